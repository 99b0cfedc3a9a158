"""Smallest budgets that reach target losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bayesdistill.law import Draws
from bayesdistill.strategies.problems import CODE, FIRST_FAILURE, Problem
from bayesdistill.strategies.roots import find_roots

_TOLERANCE = 1e-10  # log budget
_LARGEST = (
    1e60  # FLOPs; under the published law its losses differ by less than 1e-15 nats from those with unlimited budgets
)


def budgets_for_targets(
    search: Callable[..., dict[str, np.ndarray]], draws: Draws, problem: Problem, threads: int | None
) -> dict[str, np.ndarray]:
    """Return the strategies of a search with the smallest budgets that reach each target loss.

    The lowest loss does not increase with the budget, so the budget is a root in one variable. With perfect
    information there is one for each draw; the chosen strategy reaches the target on average.

    Parameters
    ----------
    search : callable
        `perfect_information_strategies` or `chosen_strategies`.
    draws, problem, threads
        As for `search`.

    Returns
    -------
    dict of arrays
        As for `search`, and the budget in FLOPs.
    """
    targets = problem.targets
    assert targets is not None
    parts: dict[str, Any] = {}
    for a, b in np.ndindex(problem.shape_of_grid[:2]):
        cell = problem.part(a, b, np.array([_LARGEST]))
        limit = search(draws, cell, threads)
        per_draw = limit["status"].ndim == 4

        def losses(budgets: np.ndarray, which: np.ndarray, cell: Problem = cell, per_draw: bool = per_draw) -> Any:
            """Return the losses at budgets (n,), each for one of the draws or on average."""
            if per_draw:
                some = replace(cell.for_draws(which), budgets=budgets[None])
                return search(draws.take(which), some, threads)["loss"][0, 0, 0]
            return search(draws, replace(cell, budgets=budgets), threads)["loss"][0, 0].mean(axis=-1)

        lowest = limit["loss"][0, 0, 0] if per_draw else limit["loss"][0, 0].mean(axis=-1)
        wanted = np.broadcast_to(targets[:, None], (targets.size, lowest.size))
        row, column = np.nonzero((wanted > lowest) & (wanted > 0))

        def excess(x: np.ndarray, k: np.ndarray, row: Any = row, column: Any = column, losses: Any = losses) -> Any:
            return losses(np.exp(x), column[k]) - targets[row[k]]

        budgets = np.full(wanted.shape, np.nan)
        # Budgets that are too small have no loss. The loss jumps at the root if the smallest possible budget reaches the target.
        every = np.arange(row.size)
        budgets[row, column] = np.exp(find_roots(excess, 0.0, np.log(_LARGEST), every, _TOLERANCE))
        budgets = budgets if per_draw else budgets[:, 0]
        result = search(draws, replace(cell, budgets=budgets), threads) | {"budget": budgets[None, None]}
        reason = np.broadcast_to(limit["status"], result["status"].shape)
        reason = np.where(reason < FIRST_FAILURE, CODE["target_unreachable"], reason).astype(np.int8)
        sound = (targets > 0).reshape(-1, *[1] * (budgets.ndim - 1)) & np.isnan(budgets)
        result["status"] = np.where(sound, reason, result["status"])
        for name, values in result.items():
            whole = parts.setdefault(name, np.empty((*problem.shape_of_grid[:2], *values.shape[2:]), values.dtype))
            whole[a, b] = values[0, 0]
    if not parts:  # no students or no scenarios
        empty = replace(problem, budgets=targets, targets=None)
        parts = search(draws, empty, threads) | {"budget": np.empty(problem.shape_of_grid)}
    return parts
