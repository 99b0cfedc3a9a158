"""How much narrower than the prior the posterior is, coordinate by coordinate."""

from __future__ import annotations

from typing import Any

from bayesdistill import posterior
from bayesdistill.posterior import Fit

PRIOR_SHARE = 0.8
"""From this share of the prior's width on, a coordinate counts as dominated by its prior."""

_PRIOR_WIDTH = 2 * 1.6448536269514722  # between the 5 and 95 % quantiles of the standard normal


def prior_dominated(fit: Fit, share: float = PRIOR_SHARE) -> list[str]:
    """Standardised coordinates about which the runs say little.

    Parameters
    ----------
    fit : DataTree or Dataset
        What `fit` returned. Bare draws of the law's symbols have no coordinates, and give an empty list.
    share : float
        How wide the posterior's 90 % interval must be, in units of the prior's.

    Returns
    -------
    list of str
        Names of coordinates, in the model's order.

    Notes
    -----
    The sampled `z` are independent standard normals a priori. Where a block of priors is joint, as that of the published law,
    coordinate = location + factor z with a triangular factor, and z is what a coordinate has that those before it have not.
    """
    draws: Any = posterior.posterior_dataset(fit)
    if "z" not in draws or "coordinate" not in draws["z"].dims:
        return []
    bounds = posterior.interval(draws["z"], 0.9)
    ratio = (bounds.sel(bound="upper") - bounds.sel(bound="lower")) / _PRIOR_WIDTH
    return [str(name) for name, r in zip(draws["coordinate"].values, ratio.values, strict=True) if r >= share]
