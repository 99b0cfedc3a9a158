"""Whether the draws can be used, in words: what is wrong, what it means, what to do.

The numbers and thresholds are those of `posterior.convergence`; here they get sentences.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from bayesdistill import posterior
from bayesdistill.posterior import THRESHOLDS, ConvergenceThresholds, Fit

_ADVICE = {
    "rhat": "the chains disagree: sample longer (tune=2000, draws=2000); if it stays, look at the priors and the runs",
    "ess_bulk": "there are too few independent draws: raise draws",
    "ess_tail": "the tails are explored too little: raise draws",
    "divergences": "the sampler met corners that it could not follow: raise target_accept to 0.95 or 0.99",
    "treedepth_share": "trajectories were cut: the posterior is badly scaled; use the default priors' coordinates, tune longer",
    "bfmi": "the energy is explored slowly: tune longer; heavy tails of a prior may be the cause",
}


@dataclass(frozen=True)
class Check:
    """What `check` found. Prints as text; shows as a table in a notebook.

    Parameters
    ----------
    ok : bool or None
        Whether every check was passed; None for bare draws, whose sampler is unknown.
    rows : tuple of (check, value, threshold, passed)
    problems : tuple of str
        A sentence and its remedy for every check that failed.
    numbers : dict
        As `posterior.convergence` gives them.
    """

    ok: bool | None
    rows: tuple[tuple[str, str, str, str], ...]
    problems: tuple[str, ...]
    numbers: dict[str, Any]

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.ok:
            return "Nothing is wrong: the draws passed every convergence check."
        if self.ok is None and not self.problems:
            return "These are bare draws: what could be computed is in order, what the sampler met is unknown."
        return "Do not use these draws as they are: " + "; ".join(self.problems) + "."

    def __str__(self) -> str:
        widths = [max(len(row[i]) for row in self.rows) for i in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in self.rows]
        return "\n".join([self.verdict, *(line.rstrip() for line in lines)])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in self.rows)
        return f"<p>{html.escape(self.verdict)}</p><table>{body}</table>"


def check(fit: Fit, *, thresholds: ConvergenceThresholds = THRESHOLDS) -> Check:
    """Say in words whether the draws of a fit can be used.

    Parameters
    ----------
    fit : DataTree or Dataset
        What `fit` returned.
    thresholds : ConvergenceThresholds
        Thresholds: rank-normalised R-hat, bulk and tail ESS, divergences, share of cut trajectories, E-BFMI.

    Returns
    -------
    Check
        Prints as a sentence and a table.

    Notes
    -----
    R-hat and ESS: Vehtari et al. (2021, arXiv:1903.08008). E-BFMI: Betancourt (2016, arXiv:1604.00695).

    Examples
    --------
    >>> import bayesdistill as bd, numpy as np, xarray as xr
    >>> rng = np.random.default_rng(0)
    >>> scattered = {k: (("chain", "draw"), v * rng.lognormal(0, 0.01, (4, 1000))) for k, v in bd.PUBLISHED.items()}
    >>> draws = xr.Dataset(scattered, attrs={"law": "busbridge2025"})
    >>> bd.check(draws).problems
    ()
    """
    numbers = posterior.convergence(fit, thresholds)
    rows, problems = [], []
    for key, label, threshold, relation in (
        ("rhat", "largest R-hat", thresholds.max_rhat, "<="),
        ("ess_bulk", "smallest bulk ESS", thresholds.min_ess_bulk, ">="),
        ("ess_tail", "smallest tail ESS", thresholds.min_ess_tail, ">="),
        ("divergences", "divergent transitions", thresholds.max_divergences, "<="),
        ("treedepth_share", "share of cut trajectories", thresholds.max_treedepth_share, "<="),
        ("bfmi", "smallest E-BFMI", thresholds.min_bfmi, ">="),
    ):
        value = numbers[key]
        failed = key in numbers["failed"]
        variable = numbers.get(f"{key}_variable")
        text = "unknown" if value is None else _number(value) + (f" ({variable})" if variable else "")
        state = "FAILED" if failed else "unknown" if value is None else "ok"
        rows.append((label, text, f"{relation} {threshold:g}", state))
        if failed:
            problems.append(f"{label} is {text}, {relation} {threshold:g} is needed ({_ADVICE[key]})")
    return Check(numbers["converged"], tuple(rows), tuple(problems), numbers)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}" if abs(value) < 10 else f"{value:.0f}"
