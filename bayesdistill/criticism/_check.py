"""Whether a fit can be used, and what it cannot determine.

Every function in `CHECKS` returns findings about a fit; `check` collects and displays them.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bayesdistill import posterior
from bayesdistill.arguments import checked, instance
from bayesdistill.criticism.convergence_findings import convergence_findings
from bayesdistill.criticism.corpus_findings import corpus_findings
from bayesdistill.criticism.design_findings import design_findings
from bayesdistill.criticism.findings import Finding
from bayesdistill.criticism.prior_findings import prior_findings
from bayesdistill.criticism.quality_findings import quality_findings
from bayesdistill.posterior import THRESHOLDS, ConvergenceThresholds, Fit

CHECKS: tuple[Callable[[Fit], tuple[Finding, ...]], ...] = (quality_findings, prior_findings)
"""Checks of the posterior. Each returns its findings; none if a fit lacks what it requires."""
_DESCRIBED = 1.1
"""Largest R-hat with which the draws describe a posterior well enough for these checks."""


@dataclass(frozen=True)
class Check:
    """Result of `check`, displayed as text or, in a notebook, as a table.

    Parameters
    ----------
    findings : tuple of Finding
        One for every row of the table.
    numbers : dict
        The result of `posterior.convergence`.
    """

    findings: tuple[Finding, ...]
    numbers: dict[str, Any]

    @property
    def ok(self) -> bool | None:
        """Whether the draws can be used; None for draws without sampler statistics if no check failed."""
        return False if self.problems else self.numbers["converged"]

    @property
    def problems(self) -> tuple[str, ...]:
        """Reasons not to use the draws, with suggested fixes."""
        return self._sentences("FAILED")

    @property
    def cautions(self) -> tuple[str, ...]:
        """Limits of a fit that can be used: what it cannot determine, and where it does not describe the runs."""
        return self._sentences("caution")

    @property
    def rows(self) -> tuple[tuple[str, str, str, str], ...]:
        """Rows of the table: check, value, expected value, state."""
        return tuple((found.checked, found.value, found.expected, found.state) for found in self.findings)

    @property
    def headline(self) -> str:
        """Summary of the checks in one sentence."""
        if self.ok is False:
            return "Do not use these draws."
        if self.ok is None:
            return "No problems found, but these draws have no sampler statistics, so some checks are unavailable."
        if self.cautions:
            return "No convergence problems found. The draws can be used, with these limits:"
        return "No convergence problems found: the draws passed all checks."

    @property
    def verdict(self) -> str:
        """Summary of the checks, problems and cautions as text."""
        return " ".join([self.headline, *self.problems, *self.cautions])

    def _sentences(self, state: str) -> tuple[str, ...]:
        # Findings with the same problem, such as bulk and tail ESS, share their sentence.
        return tuple(dict.fromkeys(found.sentence for found in self.findings if found.state == state))

    def __str__(self) -> str:
        widths = [max(len(row[i]) for row in self.rows) for i in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in self.rows]
        sentences = [f"- {text}" for text in (*self.problems, *self.cautions)]
        return "\n".join([self.headline, *sentences, *(line.rstrip() for line in lines)])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        sentences = "".join(f"<li>{html.escape(text)}</li>" for text in (*self.problems, *self.cautions))
        body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in self.rows)
        return f"<p>{html.escape(self.headline)}</p>{sentences and f'<ul>{sentences}</ul>'}<table>{body}</table>"


@checked(thresholds=instance(ConvergenceThresholds))
def check(fit: Fit, *, thresholds: ConvergenceThresholds = THRESHOLDS) -> Check:
    """Check whether a fit can be used and what it cannot determine; suggest fixes.

    Parameters
    ----------
    fit : DataTree or Dataset
        What `fit` returned.
    thresholds : ConvergenceThresholds
        Thresholds of rank-normalized R-hat, bulk and tail ESS, divergences, truncated trajectories, and E-BFMI.

    Returns
    -------
    Check
        Displays as sentences and a table. `ok` is False if the draws must not be used, for the reasons in `problems`.
        `cautions` are the limits of a fit that can be used.

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
    # The corpus first, because chains that have to follow two corpora at once may not converge.
    findings = [*corpus_findings(fit), *convergence_findings(fit, numbers), *design_findings(fit)]
    if numbers["rhat"] is not None and numbers["rhat"] <= _DESCRIBED:
        findings += [found for of in CHECKS for found in of(fit)]
    return Check(tuple(findings), numbers)
