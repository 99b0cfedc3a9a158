"""Scores of predictive draws against what happened: log score, CRPS, error, coverage.

On plain arrays; `leave_out` labels them. All are for single runs, with everything that the model is uncertain about
integrated out by the draws.
"""

from __future__ import annotations

import numpy as np

PROBABILITIES = (0.5, 0.9)


def log_score(log_density: np.ndarray) -> np.ndarray:
    """Log of the mean predictive density, from log densities given each draw, (draw, run) -> (run,)."""
    top = log_density.max(axis=0)
    return np.asarray(top + np.log(np.mean(np.exp(log_density - top), axis=0)))


def crps(draws: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of predictive draws, (draw, run) and (run,) -> (run,), in units of the outcome.

    E|X - y| - E|X - X'| / 2, the second term from the sorted draws without the bias of pairing a draw with itself
    (Gneiting and Raftery 2007).
    """
    count = draws.shape[0]
    ordered = np.sort(draws, axis=0)
    weights = 2 * np.arange(1, count + 1) - count - 1
    spread = 2 * (weights[:, None] * ordered).sum(axis=0) / (count * (count - 1))
    return np.asarray(np.abs(draws - observed).mean(axis=0) - spread / 2)


def inside(draws: np.ndarray, observed: np.ndarray, probability: float) -> np.ndarray:
    """Whether the outcome lies in the equal-tailed interval of the draws, (draw, run) and (run,) -> (run,) of bool."""
    low, high = np.quantile(draws, [(1 - probability) / 2, (1 + probability) / 2], axis=0)
    return np.asarray((low <= observed) & (observed <= high))
