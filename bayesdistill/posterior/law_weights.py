"""Weights of laws from log scores of left-out runs: pseudo-BMA+ and stacking (Yao et al. 2018, Bayesian Analysis 13, 917)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from bayesdistill.errors import ParameterError

METHODS = ("pseudo-bma", "stacking")
Scores = Mapping[str, Sequence[xr.Dataset]]
"""Name of a law -> results of `leave_out`, one for each split."""
_BOOTSTRAPS = 4000
_NEGLIGIBLE = 1e-4
"""Weights of stacking below this value are 0."""


def weights_of_scores(scores: Scores, method: str) -> dict[str, float]:
    """Return the weights of laws by a method.

    Raises
    ------
    ParameterError
        If the laws were not scored on the same runs.
    """
    elpd, groups = pointwise(scores)
    found = stacking(elpd) if method == "stacking" else pseudo_bma(elpd, groups, len(next(iter(scores.values()))))
    return dict(zip(scores, found.tolist(), strict=True))


def pointwise(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Return the log scores of the runs in folds whose refits converged for all laws, (run, law), and the group of each run.

    Runs of several splits are stacked; groups of different splits differ.
    """
    (first, one), *others = scores.items()
    for name, results in others:
        ours, theirs = ([(r.attrs.get("split"), r["run"].values.tolist(), r["fold"].values.tolist()) for r in results]
                        for results in (one, results))  # fmt: skip
        if ours != theirs:
            raise ParameterError(
                f"`scores` of {first!r} and {name!r} have different splits or runs. Use the same arguments of leave_out, in the same "
                "order of splits."
            )
    values, groups = [], []
    for position in range(len(one)):
        parts = [results[position] for results in scores.values()]
        passed = np.logical_and.reduce([part["converged"].values.astype(bool) for part in parts])
        values.append(np.stack([part["elpd"].values[passed] for part in parts], axis=1))
        groups += [f"{position} {label}" for label in parts[0]["group"].values[passed]]
    elpd = np.concatenate(values)
    if not len(elpd):
        raise ParameterError("`scores` have no fold whose refits converged for all laws. Refit with more draws.")
    if not np.isfinite(elpd).all():
        raise ParameterError("`scores` have log scores that are not finite.")
    return elpd, np.array(groups)


def pseudo_bma(elpd: np.ndarray, groups: np.ndarray, splits: int = 1) -> np.ndarray:
    """Return pseudo-BMA+ weights.

    Parameters
    ----------
    elpd : ndarray, (run, law)
    groups : ndarray, (run,)
        The Bayesian bootstrap draws weights of whole groups, because runs of one group are not independent.
    splits : int
        Number of splits that scored every run; elpd is their mean.
    """
    _, index = np.unique(groups, return_inverse=True)
    count = index.max() + 1
    sums = np.stack([np.bincount(index, column, count) for column in elpd.T], axis=1) / splits
    shares = np.random.default_rng(0).dirichlet(np.ones(count), _BOOTSTRAPS)
    total = count * shares @ (sums - sums.mean(axis=1, keepdims=True))
    weights = np.exp(total - total.max(axis=1, keepdims=True))
    mean = (weights / weights.sum(axis=1, keepdims=True)).mean(axis=0)
    return np.asarray(mean / mean.sum())


def stacking(elpd: np.ndarray) -> np.ndarray:
    """Return the weights that maximize the sum of the logarithms of the mixed densities; elpd (run, law)."""
    from scipy.optimize import LinearConstraint, minimize

    laws = elpd.shape[1]
    density = np.exp(elpd - elpd.max(axis=1, keepdims=True))

    def loss(w: np.ndarray) -> float:
        return -float(np.log(np.maximum(density @ w, 1e-300)).mean())

    def slope(w: np.ndarray) -> np.ndarray:
        return np.asarray(-(density / np.maximum(density @ w, 1e-300)[:, None]).mean(axis=0))

    found = minimize(
        loss,
        np.full(laws, 1 / laws),
        jac=slope,
        method="SLSQP",
        bounds=[(0, 1)] * laws,
        constraints=LinearConstraint(np.ones((1, laws)), 1, 1),
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    weights = np.where(found.x < _NEGLIGIBLE, 0.0, found.x)
    return np.asarray(weights / weights.sum())
