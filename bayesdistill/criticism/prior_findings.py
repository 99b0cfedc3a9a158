"""Findings of `check` about the priors: conflicts with the data, and the irreducible loss."""

from __future__ import annotations

import numpy as np

from bayesdistill import posterior
from bayesdistill.criticism.findings import Finding
from bayesdistill.criticism.quality_findings import runs_miss_the_law
from bayesdistill.criticism.residuals import residuals_of
from bayesdistill.law.forms import coordinate_description
from bayesdistill.posterior import PRIOR_CONFLICT, SUPERVISED_COORDINATES, Fit, prior_shifts

MAX_SHIFT, MAX_WIDENING = 0.75, 1.25
"""Largest shift of the irreducible loss, in posterior standard deviations, and largest factor on its standard deviation when the
priors are weakened."""
_RESIDUAL_NOISE = {"log_nu", "log_sigma", "log_sigma_supervised"}
"""Coordinates that runs far from the law move."""


def prior_findings(fit: Fit) -> tuple[Finding, ...]:
    """Return conflicts between priors and data, and how much E depends on the priors; none without coordinates."""
    shifts = prior_shifts(fit)
    if not shifts:
        return ()
    label, expected = "posterior mean in prior standard deviations", f"within {PRIOR_CONFLICT:g}"
    if runs_miss_the_law(list(residuals_of(fit))):
        # Such runs are the cause, and `quality_findings` has the advice; another prior would hide them.
        shifts = {name: z for name, z in shifts.items() if name not in _RESIDUAL_NOISE}
    far = {name: z for name, z in shifts.items() if abs(z) > PRIOR_CONFLICT}
    worst = max(shifts, key=lambda name: abs(shifts[name]))
    published = posterior.provenance(fit).get("supervised_law") == "published law"
    conflicts = [
        Finding(label, f"{z:+.1f} ({name})", expected, "caution", _conflict(name, published)) for name, z in far.items()
    ] or [Finding(label, f"{shifts[worst]:+.1f} ({worst})", expected, "ok")]
    return (*conflicts, *_irreducible(fit))


def _conflict(name: str, published: bool) -> str:
    if published and name in SUPERVISED_COORDINATES:
        return (
            "The distilled runs contradict the published law, which is the prior of the supervised law. Fit another law of "
            "bd.LAWS, or fit with supervised runs of the same study."
        )
    return (
        f"The runs and the prior of {name} ({coordinate_description(name)}) contradict each other. Check the runs; if they are "
        f"right, fit with another prior (priors={{'{name}': bd.Prior(location, scale)}})."
    )


def prior_dependence_of_irreducible(fit: Fit) -> tuple[float, float, float]:
    """Return how E depends on the priors.

    Returns
    -------
    shift, widening, sd : float
        Change of the posterior mean of E in nats and factor on its posterior standard deviation when the standard deviations of all
        priors are multiplied by sqrt(2), and the posterior standard deviation in nats.

    Notes
    -----
    Power scaling of the priors by 1/2 (Kallioinen et al. 2024, arXiv:2107.14054), to first order: the derivative of a posterior mean
    with respect to the power of the prior is its posterior covariance with the log prior. Draws of E and its square have enough of
    them for this, where importance weights would not.
    """
    draws = posterior.posterior_dataset(fit)
    e = draws["E"].transpose("chain", "draw").values.ravel()
    log_prior = -0.5 * (draws["z"].transpose("chain", "draw", "coordinate").values ** 2).sum(axis=-1).ravel()
    away = e - e.mean()
    shift, square = (-0.5 * float(np.cov(values, log_prior)[0, 1]) for values in (away, away**2))
    variance = float(away @ away) / away.size
    return shift, float(np.sqrt(max(variance + square, 0.0) / variance)), variance**0.5


def _irreducible(fit: Fit) -> tuple[Finding, ...]:
    if "E" not in posterior.posterior_dataset(fit) or posterior.provenance(fit).get("supervised_law") != "runs":
        return ()
    shift, widening, sd = prior_dependence_of_irreducible(fit)
    fine = abs(shift) <= MAX_SHIFT * sd and widening <= MAX_WIDENING
    return (
        Finding(
            "E with priors 1.4 times as wide",
            f"moves {abs(shift) / sd:.2f} sd, sd x {widening:.2f}",
            f"<= {MAX_SHIFT:g} sd, x {MAX_WIDENING:g}",
            "ok" if fine else "caution",
            f"The irreducible loss E depends on its prior: with all priors 1.4 times as wide it moves by {shift:+.2f} nats, and its "
            f"standard deviation changes from {sd:.2f} to {sd * widening:.2f} nats.",
        ),
    )
