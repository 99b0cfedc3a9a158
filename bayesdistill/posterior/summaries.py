"""Summaries of draws with Monte Carlo standard errors.

Chains are only combined in the last reduction, because the Monte Carlo standard error of a probability depends on the autocorrelation
of each chain (Vehtari et al. 2021, arXiv:1903.08008).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from bayesdistill.arguments import checked

INTERVAL_KIND = "equal-tailed"
INTERVAL_PROBABILITY = 0.9


def draw_dimensions(values: xr.DataArray) -> tuple[str, str]:
    """Return the dimensions of the draws: chain, and draw or thinned_draw."""
    return "chain", "thinned_draw" if "thinned_draw" in values.dims else "draw"


def stack(values: xr.DataArray) -> np.ndarray:
    """Return values with chain and draw as last dimensions, (..., chain, draw)."""
    return np.asarray(values.transpose(..., *draw_dimensions(values)).values, dtype=float)


def probability(indicator: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the fraction of draws in which an event occurs, with its Monte Carlo error.

    Parameters
    ----------
    indicator : DataArray
        Booleans (or 0 and 1) with dimensions chain, draw (or thinned_draw) and others. NaN if the event is undefined.

    Returns
    -------
    probability, mcse : DataArray
        Without the dimensions chain and draw. NaN if any draw is NaN.

    Notes
    -----
    The standard error is sqrt(q (1 - q) / ESS) with the effective sample size of the mean of the indicator (Vehtari et
    al. 2021) and q = (n p + 1/2) / (n + 1) for n draws. If all draws agree, p is 0 or 1 and the standard formula gives an error
    of 0; this formula gives about 0.7/n.
    """
    from arviz_stats.base import array_stats

    values = stack(indicator)
    draws = values.shape[-1] * values.shape[-2]
    share = values.mean(axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        ess = np.asarray(array_stats.ess(values, chain_axis=-2, draw_axis=-1, method="mean"), dtype=float)
    constant = (values == values[..., :1, :1]).all(axis=(-2, -1))
    ess = np.where(constant | ~np.isfinite(ess), draws, ess)
    q = (draws * share + 0.5) / (draws + 1)
    template = indicator.isel(dict.fromkeys(draw_dimensions(indicator), 0), drop=True).astype(float)
    p = template.copy(data=share)
    error = template.copy(data=np.where(np.isfinite(share), np.sqrt(q * (1 - q) / ess), np.nan))
    p.attrs = {"units": "1", "long_name": "probability"}
    error.attrs = {"units": "1", "long_name": "Monte Carlo standard error of the probability"}
    return p, error


def tenths(probability: float, near: str = "", above: str = "> ", below: str = "< ") -> str:
    """Format a probability with one decimal, because laws differ by tenths; never as 0 or 1."""
    if math.isnan(probability):
        return "unknown"
    if probability > 0.95:
        return f"{above}0.95"
    return f"{below}0.05" if probability < 0.05 else f"{near}{probability:.1f}"


def about(probability: float, mcse: float = 0.0, bounds: Sequence[float] = ()) -> str:
    """Format a probability with the precision that it has.

    Laws that predict equally well differ by tenths, so there is one decimal.

    Parameters
    ----------
    probability : float
    mcse : float
        Monte Carlo standard error; named if it is not negligible.
    bounds : (float, float), optional
        Lowest and highest probability over laws; not named if one is NaN.
    """
    ends = [tenths(float(bound)) for bound in bounds if not math.isnan(bound)]
    notes = [f"Monte Carlo error {mcse:.1g}"] if mcse >= 0.05 else []
    if len(ends) == 2:
        same = {tenths(probability)} == {*ends}
        notes += ["the same under all laws" if same else f"{ends[0]} to {ends[1]} over laws"]
    number = tenths(probability, "about ", "above ", "below ")
    return f"{number} ({', '.join(notes)})" if notes else number


def mean_mcse(values: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the posterior mean over chain and draw, with its Monte Carlo standard error.

    The standard error is NaN for fewer than four draws per chain.
    """
    from arviz_stats.base import array_stats

    array = stack(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.asarray(array_stats.mcse(array, chain_axis=-2, draw_axis=-1, method="mean"), dtype=float)
    template = values.isel(dict.fromkeys(draw_dimensions(values), 0), drop=True).astype(float)
    mean = template.copy(data=array.mean(axis=(-2, -1)))
    mean.attrs = dict(values.attrs)
    mcse = template.copy(data=error)
    mcse.attrs = {
        "units": values.attrs.get("units", "1"),
        "long_name": "Monte Carlo standard error of the posterior mean",
    }
    return mean, mcse


@checked
def interval(values: xr.DataArray, prob: float = INTERVAL_PROBABILITY) -> xr.DataArray:
    """Return the equal-tailed interval over chain and draw.

    Parameters
    ----------
    values : DataArray
        With dimensions chain and draw.
    prob : float
        Probability of the interval, in (0, 1).

    Returns
    -------
    DataArray
        With the dimension `bound` (lower, upper); attributes interval_kind and interval_prob. NaN if any draw is NaN.
    """
    tails = [(1 - prob) / 2, (1 + prob) / 2]
    result = values.quantile(tails, dim=draw_dimensions(values), skipna=False).rename(quantile="bound")
    result = result.assign_coords(bound=["lower", "upper"])
    result.attrs = {**values.attrs, "interval_kind": INTERVAL_KIND, "interval_prob": prob}
    return result


def mean(values: xr.DataArray) -> xr.DataArray:
    """Return the posterior mean over chain and draw; NaN if any draw is NaN."""
    return values.mean(dim=draw_dimensions(values), keep_attrs=True, skipna=False)


def median(values: xr.DataArray) -> xr.DataArray:
    """Return the posterior median over chain and draw; NaN if any draw is NaN."""
    return values.median(dim=draw_dimensions(values), keep_attrs=True, skipna=False)
