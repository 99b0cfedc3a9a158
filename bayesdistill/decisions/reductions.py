"""From values with draws to probabilities, means and quantiles, always with their Monte-Carlo standard error.

Arrays have the flattened draws last, in the order of `FittedDraws.draws`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.decisions.fitted_draws import FittedDraws


def _with_draws(fitted: FittedDraws, values: np.ndarray) -> xr.DataArray:
    spread = fitted.unflatten(np.asarray(values, dtype=float))
    return xr.DataArray(spread, dims=[*(f"d{i}" for i in range(spread.ndim - 2)), "chain", "draw"])


def probability_of(
    fitted: FittedDraws, holds: np.ndarray, known: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Share of draws in which something holds, and its Monte-Carlo standard error; NaN where any draw is unknown."""
    indicator = np.asarray(holds, dtype=float)
    if known is not None:
        indicator = np.where(known, indicator, np.nan)
    share, error = posterior.probability(_with_draws(fitted, indicator))
    return share.values, error.values


def probability_positive(fitted: FittedDraws, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability that a value is above zero."""
    return probability_of(fitted, values > 0, ~np.isnan(values))


def mean_of(fitted: FittedDraws, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and its Monte-Carlo standard error."""
    mean, error = posterior.mean_mcse(_with_draws(fitted, values))
    return mean.values, error.values


def probability_given(fitted: FittedDraws, holds: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P(holds | given) and its Monte-Carlo standard error; NaN where no draw fulfils the condition.

    A ratio of two means over the same correlated draws: its standard error is that of the mean of
    (holds - ratio) given, divided by P(given).
    """
    condition = np.asarray(given, dtype=float)
    both = np.asarray(holds, dtype=float) * condition
    with np.errstate(invalid="ignore", divide="ignore"):
        share = condition.mean(axis=-1)
        ratio = both.mean(axis=-1) / share
        _, error = mean_of(fitted, np.where(np.isnan(ratio)[..., None], 0.0, both - ratio[..., None] * condition))
        return ratio, np.where(share > 0, error / share, np.nan)


def quantiles_of(values: np.ndarray, probs: Sequence[float]) -> np.ndarray:
    """Quantiles over the draws, last in the result; each is one of the draws, so that infinite ones are allowed."""
    with np.errstate(invalid="ignore"):
        found = np.quantile(values, list(probs), axis=-1, method="inverted_cdf")
    return np.moveaxis(found, 0, -1)
