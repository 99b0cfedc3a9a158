"""BibTeX entries of the package, the paper, and the methods of a fit."""

from __future__ import annotations

import re
from importlib.resources import files

from bayesdistill import posterior
from bayesdistill.posterior import Fit

_ENTRIES = {
    re.split("[{,]", entry)[1]: entry
    for entry in files(__package__).joinpath("references.bib").read_text(encoding="utf-8").strip().split("\n\n")
}
"""Key -> BibTeX entry. `tests/test_report.py` compares the first two with CITATION.cff, which is not part of the wheel."""


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
    keys = ["bayesdistill", "busbridge2025distillation"]
    if fit is not None:
        found = posterior.provenance(fit)
        sampler, versions = found.get("sampler", ""), found.get("versions", {})
        methods = {
            "hoffman2014nuts": "NUTS" in sampler,
            "nutpie": "nutpie" in sampler,
            "seyboldt2026preconditioning": "low-rank" in sampler,
            "abrilpla2023pymc": "pymc" in versions,
            "martin2026arviz": "arviz" in versions,
            "vehtari2021rhat": True,  # the convergence checks always use R-hat
            "hoffmann2022training": gamma_is_one(fit),
        }
        keys += [key for key, used in methods.items() if used]
    return "\n\n".join(_ENTRIES[key] for key in keys) + "\n"


def gamma_is_one(fit: Fit) -> bool:
    """Return whether the supervised law has the form of Hoffmann et al. (2022)."""
    return posterior.law_of(fit).fixed.get("gamma") == 1
