"""BibTeX entries of the package, the paper, and the methods of a fit."""

from __future__ import annotations

from bayesdistill import posterior
from bayesdistill.posterior import Fit

# `tests/test_report.py` compares the first two entries with CITATION.cff, which is not part of the wheel.
_PACKAGE = r"""@software{bayesdistill,
  title   = {bayesdistill: the distillation scaling law as a Bayesian model},
  author  = {{The bayesdistill authors}},
  version = {0.1.0},
  date    = {2026-11-24},
  year    = {2026},
  license = {Apache-2.0}
}"""
_LAW = r"""@misc{busbridge2025distillation,
  title         = {Distillation Scaling Laws},
  author        = {Busbridge, Dan and Shidani, Amitis and Weers, Floris and Ramapuram, Jason and Littwin, Etai and Webb, Russ},
  year          = {2025},
  eprint        = {2502.08606},
  archiveprefix = {arXiv}
}"""
_NUTS = r"""@article{hoffman2014nuts,
  title   = {The {No-U-Turn} Sampler: Adaptively Setting Path Lengths in {Hamiltonian} {Monte} {Carlo}},
  author  = {Hoffman, Matthew D. and Gelman, Andrew},
  journal = {Journal of Machine Learning Research},
  volume  = {15},
  number  = {47},
  pages   = {1593--1623},
  year    = {2014}
}"""
_NUTPIE = r"""@software{nutpie,
  title  = {nutpie},
  author = {Seyboldt, Adrian and {PyMC Developers}},
  url    = {https://github.com/pymc-devs/nutpie}
}"""
_LOW_RANK = r"""@misc{seyboldt2026preconditioning,
  title         = {Preconditioning {Hamiltonian} {Monte} {Carlo} by minimizing {Fisher} Divergence},
  author        = {Seyboldt, Adrian and Carlson, Eliot L. and Carpenter, Bob},
  year          = {2026},
  eprint        = {2603.18845},
  archiveprefix = {arXiv}
}"""
_PYMC = r"""@article{abrilpla2023pymc,
  title   = {{PyMC}: a modern, and comprehensive probabilistic programming framework in {Python}},
  author  = {Abril-Pla, Oriol and Andreani, Virgile and Carroll, Colin and Dong, Larry and Fonnesbeck, Christopher J. and
             Kochurov, Maxim and Kumar, Ravin and Lao, Junpeng and Luhmann, Christian C. and Martin, Osvaldo A. and
             Osthege, Michael and Vieira, Ricardo and Wiecki, Thomas and Zinkov, Robert},
  journal = {PeerJ Computer Science},
  volume  = {9},
  pages   = {e1516},
  year    = {2023},
  doi     = {10.7717/peerj-cs.1516}
}"""
_ARVIZ = r"""@article{martin2026arviz,
  title   = {{ArviZ}: a modular and flexible library for exploratory analysis of {Bayesian} models},
  author  = {Martin, Osvaldo A. and Abril-Pla, Oriol and Deklerk, Jordan and Axen, Seth D. and Carroll, Colin and
             Hartikainen, Ari and Vehtari, Aki},
  journal = {Journal of Open Source Software},
  volume  = {11},
  number  = {119},
  pages   = {9889},
  year    = {2026},
  doi     = {10.21105/joss.09889}
}"""
_RHAT = r"""@article{vehtari2021rhat,
  title   = {Rank-Normalization, Folding, and Localization: An Improved {$\widehat{R}$} for Assessing Convergence of
             {MCMC} (with Discussion)},
  author  = {Vehtari, Aki and Gelman, Andrew and Simpson, Daniel and Carpenter, Bob and B{\"u}rkner, Paul-Christian},
  journal = {Bayesian Analysis},
  volume  = {16},
  number  = {2},
  pages   = {667--718},
  year    = {2021},
  doi     = {10.1214/20-BA1221}
}"""
_CHINCHILLA = r"""@misc{hoffmann2022training,
  title         = {Training Compute-Optimal Large Language Models},
  author        = {Hoffmann, Jordan and Borgeaud, Sebastian and Mensch, Arthur and Buchatskaya, Elena and Cai, Trevor and
                   Rutherford, Eliza and de Las Casas, Diego and Hendricks, Lisa Anne and Welbl, Johannes and Clark, Aidan and
                   Hennigan, Tom and Noland, Eric and Millican, Katie and van den Driessche, George and Damoc, Bogdan and
                   Guy, Aurelia and Osindero, Simon and Simonyan, Karen and Elsen, Erich and Rae, Jack W. and Vinyals, Oriol and
                   Sifre, Laurent},
  year          = {2022},
  eprint        = {2203.15556},
  archiveprefix = {arXiv}
}"""


def cite(fit: Fit | None = None) -> str:
    """Return BibTeX entries of the package, the paper of the law, and the methods of a fit.

    Parameters
    ----------
    fit : DataTree or Dataset, optional
        Result of `fit`. Its provenance determines which methods are cited. By default, no methods are cited.

    Returns
    -------
    str
        BibTeX entries, separated by empty lines.

    Raises
    ------
    ModelError
        If `fit` is not a fit.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> print(bd.cite().splitlines()[0])
    @software{bayesdistill,
    """
    entries = [_PACKAGE, _LAW]
    if fit is not None:
        entries += _methods(fit)
    return "\n\n".join(entries) + "\n"


def _methods(fit: Fit) -> list[str]:
    found = posterior.provenance(fit)
    sampler, versions = found.get("sampler", ""), found.get("versions", {})
    entries = [
        (_NUTS, "NUTS" in sampler),
        (_NUTPIE, "nutpie" in sampler),
        (_LOW_RANK, "low-rank" in sampler),
        (_PYMC, "pymc" in versions),
        (_ARVIZ, "arviz" in versions),
        (_RHAT, True),  # the convergence checks always use R-hat
        (_CHINCHILLA, gamma_is_one(fit)),
    ]
    return [text for text, used in entries if used]


def gamma_is_one(fit: Fit) -> bool:
    """Return whether the supervised law has the form of Hoffmann et al. (2022)."""
    return posterior.law_of(fit).fixed.get("gamma") == 1
