r"""Parts of the variance of a sum of terms, and of the event that it is positive.

The terms of a gain are the law's mean curve, the discrepancy, the effects of groups and the residual noise. Each row of an array is a
term, each column a draw. The variance of the sum is the sum of the variances of the terms and twice their covariances. The event
has the variance p (1 - p). It is not a sum of functions of single terms; its parts are Shapley effects (Owen 2014, SIAM/ASA Journal
on Uncertainty Quantification 2, 245-251): the decrease of variance if a term becomes known, averaged over all orders in which the
terms can become known. They treat the terms as independent. The rest is the part of their dependence, as for the sum.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from bayesdistill import posterior

POWERS = (0.8, 1.25)
"""Powers of the joint prior, as in Kallioinen et al. (2024)."""
_PAIRINGS = 4
_BLOCKS = 20


def mean_error(values: np.ndarray, chains: int) -> float:
    """Return the Monte Carlo standard error of the mean of draws, (n_draws,), ordered by chain; NaN for very few draws."""
    if np.ptp(values) == 0:
        return 0.0
    return float(posterior.mean_mcse(xr.DataArray(values.reshape(chains, -1), dims=("chain", "draw")))[1])


def sum_parts(terms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of every term and of their dependence, (term + 1,), and contributions of draws, (term + 1, n_draws).

    The parts are the means of the contributions, with the same Monte Carlo errors.
    """
    away = terms - terms.mean(axis=1, keepdims=True)
    own = away**2
    contributions = np.concatenate([own, (away.sum(axis=0) ** 2 - own.sum(axis=0))[None]])
    return contributions.mean(axis=1), contributions


def event_parts(terms: np.ndarray, shifts: Sequence[float] = (0.0,)) -> np.ndarray:
    """Return the Shapley effects of terms on the event that their sum is positive, and the part of their dependence.

    Parameters
    ----------
    terms : ndarray
        (term, n_draws).
    shifts : sequence of float
        Constants that are added to the sum.

    Returns
    -------
    ndarray
        (shift, term + 1).
    """
    added = np.asarray(shifts, dtype=float)
    p = (terms.sum(axis=0) > -added[:, None]).mean(axis=1)
    varying = np.flatnonzero(np.ptp(terms, axis=1) > 0)
    found = np.zeros((added.size, len(terms) + 1))
    if varying.size:
        constant = added + np.delete(terms[:, 0], varying).sum()
        found[:, varying] = np.mean([_shapley(terms[varying], constant, k) for k in range(_PAIRINGS)], axis=0)
    found[:, -1] = p * (1 - p) - found[:, :-1].sum(axis=1)
    return found


def _shapley(terms: np.ndarray, constant: np.ndarray, number: int) -> np.ndarray:
    """Return the Shapley effects of independent terms, (shift, term), for one of several ways to pair their draws."""
    count, n = terms.shape
    # Draws of different terms, and of a known and an unknown term, are paired at distances that make them independent.
    step = n / (2 * count * _PAIRINGS + 1)
    known, unknown = (
        np.stack([np.roll(terms[k], round(step * (number + _PAIRINGS * (2 * k + half)))) for k in range(count)])
        for half in (0, 1)
    )
    value: dict[frozenset[int], np.ndarray] = {}
    for chosen in itertools.chain.from_iterable(itertools.combinations(range(count), k) for k in range(count + 1)):
        rest = np.sort(np.delete(unknown, chosen, axis=0).sum(axis=0))
        thresholds = -np.sort(known[list(chosen)].sum(axis=0)) - constant[:, None]
        # The probability of the event, given the chosen terms; the sum of none is 0.
        value[frozenset(chosen)] = (np.searchsorted(rest, thresholds, side="right") / n).var(axis=1)
    effects = np.zeros((constant.size, count))
    for before, variance in value.items():
        for k in {*range(count)} - before:
            effects[:, k] += (value[before | {k}] - variance) / (count * math.comb(count - 1, len(before)))
    return effects


def event_parts_error(terms: np.ndarray, chains: int, shifts: Sequence[float] = (0.0,)) -> np.ndarray:
    """Return Monte Carlo standard errors of `event_parts` by batch means, (shift, term + 1); NaN for very few draws."""
    per_chain = terms.reshape(len(terms), chains, -1)
    blocks = max(1, _BLOCKS // chains)
    if per_chain.shape[2] < 4 * blocks or blocks * chains < 2:
        return np.full((len(shifts), len(terms) + 1), np.nan)
    parts = [
        event_parts(block, shifts)
        for chain in range(chains)
        for block in np.array_split(per_chain[:, chain], blocks, axis=1)
    ]
    return np.asarray(np.std(parts, axis=0, ddof=1) / math.sqrt(len(parts)))


def prior_change(values: np.ndarray, log_prior: np.ndarray) -> tuple[float, np.ndarray]:
    """Return half the change of a posterior mean between two powers of the prior, and contributions of draws, (n_draws,).

    Parameters
    ----------
    values : ndarray
        Draws, (n_draws,).
    log_prior : ndarray
        Log density of the joint prior at these draws, up to a constant, (n_draws,).

    Notes
    -----
    Importance weights (Kallioinen et al. 2024, arXiv:2107.14054). The Monte Carlo error of the change is the error of the mean of the
    contributions.
    """
    means, parts = [], []
    for power in POWERS:
        weights = np.exp((power - 1) * (log_prior - log_prior.mean()))
        weights /= weights.mean()
        # Relative to one draw, so that the change of a constant is exactly 0.
        means.append(float(values[0] + (weights * (values - values[0])).mean()))
        parts.append(weights * (values - means[-1]))
    return (means[1] - means[0]) / 2, (parts[1] - parts[0]) / 2
