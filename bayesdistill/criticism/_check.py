"""Convergence report: problems found, and how to fix them.

`posterior.convergence` computes the diagnostics and defines the thresholds.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from bayesdistill import posterior
from bayesdistill.arguments import checked, instance
from bayesdistill.posterior import THRESHOLDS, ConvergenceThresholds, Fit

_LABELS = {
    "rhat": "largest R-hat",
    "ess_bulk": "smallest bulk ESS",
    "ess_tail": "smallest tail ESS",
    "divergences": "number of divergent transitions",
    "treedepth_share": "fraction of truncated trajectories",
    "bfmi": "smallest E-BFMI",
}
_ADVICE = {
    "rhat": "The chains disagree. Sample longer (tune=2000, draws=2000); if this does not help, check the priors and the runs.",
    "ess_bulk": "The effective sample size is too small. Increase draws.",
    "ess_tail": "The effective sample size in the tails is too small. Increase draws.",
    "divergences": "The sampler reported divergent transitions. Increase target_accept to 0.95 or 0.99.",
    "treedepth_share": "Trajectories reached the maximum tree depth. Increase tune, or use the default priors.",
    "bfmi": "The sampler explores the energy slowly. Increase tune, and check for priors with heavy tails.",
}


@dataclass(frozen=True)
class Check:
    """Result of `check`, displayed as text or, in a notebook, as a table.

    Parameters
    ----------
    ok : bool or None
        Whether all checks passed; None for draws without sampler statistics.
    rows : tuple of (check, value, threshold, passed)
    problems : tuple of str
        Description and suggested fix of every failed check.
    numbers : dict
        The result of `posterior.convergence`.
    """

    ok: bool | None
    rows: tuple[tuple[str, str, str, str], ...]
    problems: tuple[str, ...]
    numbers: dict[str, Any]

    @property
    def verdict(self) -> str:
        """Summary of the checks as text."""
        if self.ok:
            return "No convergence problems found: the draws passed all checks."
        if self.ok is None and not self.problems:
            return "No problems found, but these draws have no sampler statistics, so some checks are unavailable."
        return "Do not use these draws: " + " ".join(self.problems)

    def __str__(self) -> str:
        widths = [max(len(row[i]) for row in self.rows) for i in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in self.rows]
        return "\n".join([self.verdict, *(line.rstrip() for line in lines)])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in self.rows)
        return f"<p>{html.escape(self.verdict)}</p><table>{body}</table>"


@checked(thresholds=instance(ConvergenceThresholds))
def check(fit: Fit, *, thresholds: ConvergenceThresholds = THRESHOLDS) -> Check:
    """Check the convergence of a fit and suggest fixes.

    Parameters
    ----------
    fit : DataTree or Dataset
        What `fit` returned.
    thresholds : ConvergenceThresholds
        Thresholds of rank-normalized R-hat, bulk and tail ESS, divergences, truncated trajectories, and E-BFMI.

    Returns
    -------
    Check
        Displays as a sentence and a table.

    Notes
    -----
    R-hat and ESS: Vehtari et al. (2021, arXiv:1903.08008). E-BFMI: Betancourt (2016, arXiv:1604.00695).

    Examples
    --------
    >>> import bayesdistill as bd, numpy as np, xarray as xr
    >>> rng = np.random.default_rng(0)
    >>> values = {k: (("chain", "draw"), v * rng.lognormal(0, 0.01, (4, 1000))) for k, v in bd.PUBLISHED.items()}
    >>> draws = xr.Dataset(values, attrs={"law": "busbridge2025"})
    >>> bd.check(draws).problems
    ()
    """
    numbers = posterior.convergence(fit, thresholds)
    rows, problems = [], []
    for limit, threshold in numbers["thresholds"].items():
        kind, key = limit.split("_", 1)
        label, relation, value = _LABELS[key], "<=" if kind == "max" else ">=", numbers[key]
        failed = key in numbers["failed"]
        variable = numbers.get(f"{key}_variable")
        text = "unknown" if value is None else _number(value) + (f" ({variable})" if variable else "")
        state = "FAILED" if failed else "unknown" if value is None else "ok"
        rows.append((label, text, f"{relation} {threshold:g}", state))
        if failed:
            problems.append(f"The {label} is {text}; it must be {relation} {threshold:g}. {_ADVICE[key]}")
    return Check(numbers["converged"], tuple(rows), tuple(problems), numbers)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}" if abs(value) < 10 else f"{value:.0f}"
