r"""Scores of probabilities against what happened: Brier, log score, calibration in the large and in the small.

On plain arrays, with p the probability of an event and y its outcome (0 or 1). The Brier score is mean (p - y)^2; its skill
:math:`1 - \mathrm{Brier} / \bar y (1 - \bar y)` is measured against always saying the share :math:`\bar y` of events among those
scored, which nobody knew beforehand. The slope is that of a logistic regression of y on logit(p) (Cox 1958): below 1 the
probabilities are too near to 0 and 1, above 1 too near to one half.

Forecasts that share runs are not independent. Intervals resample whole groups of forecasts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

BINS = (0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0)
"""Edges of the bins of a calibration curve: narrow where most forecasts lie."""
STEEPEST = 50.0
"""A slope beyond which the outcomes count as perfectly separated by the probabilities."""


def brier(p: np.ndarray, y: np.ndarray) -> float:
    """Mean squared difference of probability and outcome; 0 is perfect, 0.25 is always saying one half."""
    return float(np.mean((p - y) ** 2))


def brier_skill(p: np.ndarray, y: np.ndarray) -> float:
    """1 for perfect, 0 for no better than the share of events, NaN where all outcomes are the same."""
    reference = float(np.mean(y) * (1 - np.mean(y)))
    return 1 - brier(p, y) / reference if reference > 0 else math.nan


def mean_log_score(p: np.ndarray, y: np.ndarray) -> float:
    """Mean log probability of what happened, natural logarithm; 0 is perfect, -0.69 is always saying one half."""
    return float(np.mean(np.log(np.where(y > 0.5, p, 1 - p))))


def calibration_line(p: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Intercept and slope of the logistic regression of y on logit(p).

    Returns
    -------
    intercept, slope : float
        NaN where all outcomes or all probabilities are the same; an infinite slope (and NaN intercept) where probabilities
        separate the outcomes without a single mistake.
    """
    if np.ptp(y) == 0 or np.ptp(p) == 0:
        return math.nan, math.nan
    x = np.log(p) - np.log1p(-p)
    if x[y > 0.5].min() > x[y < 0.5].max():
        return math.nan, math.inf
    if x[y > 0.5].max() < x[y < 0.5].min():
        return math.nan, -math.inf
    design = np.stack([np.ones_like(x), x], axis=1)
    beta = np.array([0.0, 0.0])

    def fit(b: np.ndarray) -> float:
        eta = design @ b
        return float(np.sum(y * eta - np.logaddexp(0, eta)))

    for _ in range(40):
        q = 1 / (1 + np.exp(-np.clip(design @ beta, -40, 40)))
        information = design.T @ (design * (q * (1 - q))[:, None])
        step = np.linalg.solve(information + 1e-12 * np.eye(2), design.T @ (y - q))
        size = 1.0
        while fit(beta + size * step) < fit(beta) - 1e-12 and size > 1e-6:
            size /= 2
        beta = beta + size * step
        if abs(beta[1]) > STEEPEST:
            return math.nan, math.copysign(math.inf, beta[1])
        if np.abs(step).max() < 1e-7:
            break
    return float(beta[0]), float(beta[1])


def calibration_curve(
    p: np.ndarray, y: np.ndarray, groups: np.ndarray, probability: float = 0.9
) -> dict[str, np.ndarray]:
    """Share of events among forecasts of similar probability, with intervals.

    Parameters
    ----------
    p, y : array, (forecast,)
    groups : array, (forecast,)
        Forecasts of one group share runs.
    probability : float
        Of the intervals.

    Returns
    -------
    dict
        Arrays over the bins between BINS: count, mean_probability, share, lower, upper. NaN where a bin is empty. The
        interval is that of Jeffreys' beta distribution for as many independent forecasts as the bin has groups, wider than
        if every forecast counted as one.
    """
    from scipy.stats import beta

    bins = len(BINS) - 1
    which = np.clip(np.searchsorted(BINS, p, side="right") - 1, 0, bins - 1)
    found = {name: np.full(bins, np.nan) for name in ("mean_probability", "share", "lower", "upper")}
    found["count"] = np.zeros(bins)
    tails = np.array([(1 - probability) / 2, (1 + probability) / 2])
    for b in range(bins):
        mine = which == b
        found["count"][b] = mine.sum()
        if not mine.any():
            continue
        share, effective = float(y[mine].mean()), np.unique(groups[mine]).size
        found["mean_probability"][b], found["share"][b] = p[mine].mean(), share
        lower, upper = beta.ppf(tails, effective * share + 0.5, effective * (1 - share) + 0.5)
        # As usual for Jeffreys' interval: 0 and 1 are not excluded where nothing else was seen.
        found["lower"][b] = 0.0 if share == 0 else lower
        found["upper"][b] = 1.0 if share == 1 else upper
    return found


def grouped_interval(
    score: Callable[[np.ndarray], float],
    groups: np.ndarray,
    *,
    refits: int = 200,
    probability: float = 0.9,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a score when whole groups are drawn with replacement.

    Parameters
    ----------
    score : callable
        Of an array of positions, (n,) -> float. NaN is left out.
    groups : array, (forecast,)

    Returns
    -------
    lower, upper : float
        NaN with fewer than three groups, or where most resamples have no score.
    """
    names, index = np.unique(groups, return_inverse=True)
    if names.size < 3:
        return math.nan, math.nan
    members = [np.flatnonzero(index == i) for i in range(names.size)]
    rng = np.random.default_rng(seed)
    values = np.array(
        [score(np.concatenate([members[i] for i in rng.choice(names.size, names.size)])) for _ in range(refits)]
    )
    values = values[~np.isnan(values)]
    if values.size < refits / 2:
        return math.nan, math.nan
    # Order statistics, so that infinite slopes stay infinite instead of becoming NaN between them.
    low, high = np.quantile(values, [(1 - probability) / 2, (1 + probability) / 2], method="nearest")
    return float(low), float(high)
