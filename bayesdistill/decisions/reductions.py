"""Reduction of draws to probabilities, means and quantiles, with Monte Carlo standard errors.

The flattened draws are the last axis of each array, in the order of `FittedDraws.draws`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.decisions.fitted_draws import FittedDraws


def _with_draws(fitted: FittedDraws, values: np.ndarray) -> xr.DataArray:
    flat = np.asarray(values, dtype=float)
    spread = flat.reshape(*flat.shape[:-1], fitted.chain.size, fitted.draw.size)
    return xr.DataArray(spread, dims=[*(f"d{i}" for i in range(spread.ndim - 2)), "chain", "draw"])


def probability_of(
    fitted: FittedDraws, holds: np.ndarray, known: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the fraction of draws that satisfy a condition, and its MCSE (NaN if unknown)."""
    indicator = np.asarray(holds, dtype=float)
    if known is not None:
        indicator = np.where(known, indicator, np.nan)
    share, error = posterior.probability(_with_draws(fitted, indicator))
    return share.values, error.values


def probability_positive(fitted: FittedDraws, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability that a value is above zero, and its MCSE."""
    return probability_of(fitted, values > 0, ~np.isnan(values))


def probability_by_law(fitted: FittedDraws, values: np.ndarray) -> np.ndarray:
    """Return the probability that a value is above zero under each law of a mixture, (law, ...).

    It is NaN if a value is NaN, or if the law has no draws, as in a part of a mixture.
    """
    positive = np.where(np.isnan(values), np.nan, values > 0)
    found = np.full((len(fitted.laws), *positive.shape[:-1]), np.nan)
    for law in np.unique(fitted.law):
        found[law] = positive[..., fitted.law == law].mean(axis=-1)
    return found


def mean_of(fitted: FittedDraws, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the posterior mean and its Monte Carlo standard error."""
    mean, error = posterior.mean_mcse(_with_draws(fitted, values))
    return mean.values, error.values


def probability_given(fitted: FittedDraws, holds: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return P(holds | given) and its Monte Carlo standard error.

    Both are NaN if no draw satisfies the condition. The probability is a ratio of two means over the same draws. Its standard
    error is the standard error of the mean of (holds - ratio) given, divided by P(given).
    """
    condition = np.asarray(given, dtype=float)
    both = np.asarray(holds, dtype=float) * condition
    with np.errstate(invalid="ignore", divide="ignore"):
        share = condition.mean(axis=-1)
        ratio = both.mean(axis=-1) / share
        _, error = mean_of(fitted, np.where(np.isnan(ratio)[..., None], 0.0, both - ratio[..., None] * condition))
        return ratio, np.where(share > 0, error / share, np.nan)


def quantiles_of(values: np.ndarray, probs: Sequence[float]) -> np.ndarray:
    """Return quantiles over draws (last axis); each is one of the draws and may be infinite."""
    with np.errstate(invalid="ignore"):
        found = np.quantile(values, list(probs), axis=-1, method="inverted_cdf")
    return np.moveaxis(found, 0, -1)


def quantiles_given(values: np.ndarray, given: np.ndarray, probs: Sequence[float]) -> np.ndarray:
    """Return quantiles over the draws that satisfy a condition; NaN if none does, or if one of their values is NaN."""
    found = np.full((*values.shape[:-1], len(probs)), np.nan)
    for cell in np.ndindex(values.shape[:-1]):
        some = values[cell][given[cell]]
        if some.size and not np.isnan(some).any():
            found[cell] = quantiles_of(some, probs)
    return found


def lagrange(nodes: Any, values: Any, at: np.ndarray) -> np.ndarray:
    """Return the polynomial through the values at some nodes."""
    total = np.zeros(at.shape)
    for node, value in zip(nodes, values, strict=True):
        others = [other for other in nodes if other != node]
        total += value * math.prod(at - other for other in others) / math.prod(node - other for other in others)
    return total
