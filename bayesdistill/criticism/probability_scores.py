r"""Scores of predicted probabilities: Brier score, log score, calibration line and curve.

The functions take plain arrays, with p the probability of an event and y its outcome (0 or 1). The Brier score is the mean of
(p - y)^2. The Brier skill score :math:`1 - \mathrm{Brier} / \bar y (1 - \bar y)` compares it with the constant prediction
:math:`\bar y`, the fraction of events, which is only available afterwards. The calibration slope is the slope of a logistic
regression of y on logit(p) (Cox 1958). A slope below 1 indicates overconfident probabilities (too close to 0 and 1), and a slope
above 1 underconfident ones.

Predictions that share runs are not independent, so the intervals resample whole groups of predictions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

BINS = (0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0)
"""Edges of the bins of a calibration curve, narrow near 0 and 1."""
STEEPEST = 50.0
"""For steeper slopes, the probabilities are assumed to separate the outcomes perfectly."""


def brier(p: np.ndarray, y: np.ndarray) -> float:
    """Return the mean squared difference of probability and outcome; 0.25 for p = 0.5."""
    return float(np.mean((p - y) ** 2))


def brier_skill(p: np.ndarray, y: np.ndarray) -> float:
    """Return the Brier skill score against the base rate; NaN if all outcomes are equal."""
    reference = float(np.mean(y) * (1 - np.mean(y)))
    return 1 - brier(p, y) / reference if reference > 0 else math.nan


def mean_log_score(p: np.ndarray, y: np.ndarray) -> float:
    """Return the mean log probability of the outcome, natural logarithm; -0.69 for p = 0.5."""
    return float(np.mean(np.log(np.where(y > 0.5, p, 1 - p))))


def calibration_line(p: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return intercept and slope of the logistic regression of y on logit(p).

    Returns
    -------
    intercept, slope : float
        NaN if all outcomes or all probabilities are equal. If the probabilities separate the outcomes perfectly, the slope is
        infinite and the intercept NaN.
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
    """Return the fraction of events in bins of predicted probability, with intervals.

    Parameters
    ----------
    p, y : array, (prediction,)
    groups : array, (prediction,)
        Predictions of one group share runs.
    probability : float
        Probability of the intervals.

    Returns
    -------
    dict
        Arrays over the bins between BINS: count, mean_probability, share, lower, upper. NaN in empty bins. The effective
        sample size of the Jeffreys interval is the number of groups in the bin, not the number of predictions.
    """
    from scipy.stats import beta

    bins = len(BINS) - 1
    which = np.clip(np.searchsorted(BINS, p, side="right") - 1, 0, bins - 1)
    found = {name: np.full(bins, np.nan) for name in ("mean_probability", "share", "lower", "upper")}
    found["count"] = np.bincount(which, minlength=bins).astype(float)
    for b in np.unique(which):
        mine = which == b
        share, effective = float(y[mine].mean()), np.unique(groups[mine]).size
        found["mean_probability"][b], found["share"][b] = p[mine].mean(), share
        tails = np.array([(1 - probability) / 2, (1 + probability) / 2])
        lower, upper = beta.ppf(tails, effective * share + 0.5, effective * (1 - share) + 0.5)
        # The usual modification of the Jeffreys interval if all outcomes are equal.
        found["lower"][b], found["upper"][b] = 0.0 if share == 0 else lower, 1.0 if share == 1 else upper
    return found


def grouped_interval(
    score: Callable[[np.ndarray], float],
    groups: np.ndarray,
    *,
    refits: int = 200,
    probability: float = 0.9,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a score, resampling whole groups.

    Parameters
    ----------
    score : callable
        Score of the predictions at an array of positions, (n,) -> float. NaN is omitted.
    groups : array, (prediction,)

    Returns
    -------
    lower, upper : float
        NaN for fewer than three groups, or if most resamples have no score.
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
    # Order statistics, because interpolation between infinite slopes gives NaN.
    low, high = np.quantile(values, [(1 - probability) / 2, (1 + probability) / 2], method="nearest")
    return float(low), float(high)
