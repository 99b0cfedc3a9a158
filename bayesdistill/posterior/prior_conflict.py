"""Conflicts between priors and data: coordinates that the runs move far from their priors."""

from __future__ import annotations

from bayesdistill.posterior.fits import Fit, posterior_dataset
from bayesdistill.posterior.summaries import mean

PRIOR_CONFLICT = 3.0
"""A posterior mean this many prior standard deviations from the prior mean is in conflict with the prior."""


def prior_shifts(fit: Fit) -> dict[str, float]:
    """Return the posterior means of the standardized coordinates, in prior standard deviations from the prior mean.

    Parameters
    ----------
    fit : DataTree or Dataset
        Result of `fit`. Draws of symbols without coordinates give an empty dict.

    Returns
    -------
    dict
        Coordinate -> shift, in the model's order.

    Notes
    -----
    As for `prior_dominated`, z is the part of a coordinate that is independent of the preceding coordinates under a joint prior.
    """
    draws = posterior_dataset(fit)
    if "z" not in draws or "coordinate" not in draws["z"].dims:
        return {}
    return {str(name): float(z) for name, z in zip(draws["coordinate"].values, mean(draws["z"]).values, strict=True)}
