"""Scores of predictive draws: log score, CRPS and coverage.

The functions take plain arrays and score each run separately; the draws marginalize over the parameters.
"""

from __future__ import annotations

import numpy as np

PROBABILITIES = (0.5, 0.9)


def score_draws(drawn: np.ndarray, log_density: np.ndarray, observed: np.ndarray) -> dict[str, list[float]]:
    """Return elpd, crps, pit, inside_50 and inside_90 of every run as lists, from draws and densities (draw, run)."""
    coverage = {f"inside_{100 * p:.0f}": inside(drawn, observed, p).tolist() for p in PROBABILITIES}
    return {
        "elpd": log_score(log_density).tolist(),
        "crps": crps(drawn, observed).tolist(),
        "pit": pit(drawn, observed).tolist(),
        **coverage,
    }


def log_score(log_density: np.ndarray) -> np.ndarray:
    """Return the log of the mean predictive density, (draw, run) -> (run,)."""
    top = log_density.max(axis=0)
    return np.asarray(top + np.log(np.mean(np.exp(log_density - top), axis=0)))


def crps(draws: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return the continuous ranked probability score, (draw, run) and (run,) -> (run,).

    E|X - y| - E|X - X'| / 2 in units of the outcome, with the unbiased estimate of the second term from sorted draws (Gneiting and
    Raftery 2007).
    """
    count = draws.shape[0]
    ordered = np.sort(draws, axis=0)
    weights = 2 * np.arange(1, count + 1) - count - 1
    spread = 2 * (weights[:, None] * ordered).sum(axis=0) / (count * (count - 1))
    return np.asarray(np.abs(draws - observed).mean(axis=0) - spread / 2)


def pit(draws: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return the predictive probability of a lower outcome, (draw, run), (run,) -> (run,); never 0 or 1, because draws are finite."""
    return np.asarray(((draws < observed).sum(axis=0) + 0.5) / (draws.shape[0] + 1))


def inside(draws: np.ndarray, observed: np.ndarray, probability: float) -> np.ndarray:
    """Return whether outcomes are in equal-tailed intervals, (draw, run), (run,) -> (run,)."""
    low, high = np.quantile(draws, [(1 - probability) / 2, (1 + probability) / 2], axis=0)
    return np.asarray((low <= observed) & (observed <= high))
