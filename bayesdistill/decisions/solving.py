"""Solution of strategies on grids, in pieces that fit in memory, with any executor and with progress reports.

A cell is one (student, scenario, budget). A search solves cells independently (and draws, with perfect information), so pieces
can be solved in any order and by any worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesdistill import strategies
from bayesdistill.arguments import check_fields
from bayesdistill.law import Draws
from bayesdistill.progress import Progress, reporting
from bayesdistill.strategies import Problem

# A piece of about half a million solutions takes about a second and 30 MB. The teachers available to a draw are computed once
# per piece, so smaller pieces are slower in total.
_SOLUTIONS_A_PIECE = 2**19

CHOSEN = "committed"
PERFECT_INFORMATION = "best"
STRATEGY_NAMES = {CHOSEN: "chosen strategy", PERFECT_INFORMATION: "strategy with perfect information"}


@dataclass(frozen=True)
class Workers:
    """Executor, threads and progress reports of a computation.

    Parameters
    ----------
    executor : concurrent.futures.Executor or None
        None computes in this process.
    threads : int or None
        Threads of one search; None uses one for each processor (with an executor: 1).
    progress : bool, callable or None
        As for `progress.reporting`, in pieces.
    piece : int or None
        Number of budgets that are solved at once; None determines it from memory.
    """

    executor: Executor | None = None
    threads: int | None = None
    progress: Progress = None
    piece: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def run(
        self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], what: str = "planning"
    ) -> Iterator[tuple[int, Any]]:
        """Yield (position, result) of every task in the order of completion."""
        with reporting(self.progress, len(tasks), what) as report:
            report(0, len(tasks))
            if self.executor is None:
                for i, task in enumerate(tasks):
                    yield i, function(*task)
                    report(i + 1, len(tasks))
                return
            futures = {self.executor.submit(function, *task): i for i, task in enumerate(tasks)}
            try:
                for done, future in enumerate(as_completed(futures)):
                    yield futures[future], future.result()
                    report(done + 1, len(tasks))
            finally:
                for future in futures:
                    future.cancel()

    @property
    def search_threads(self) -> int | None:
        """Threads of one search: the workers of an executor already share the cores."""
        return 1 if self.threads is None and self.executor is not None else self.threads


def solve(kind: str, draws: Draws, problem: Problem, workers: Workers) -> dict[str, np.ndarray]:
    """Solve the strategies on the whole grid of a problem.

    Parameters
    ----------
    kind : str
        "committed" (chosen strategy) or "best" (strategy with perfect information).
    draws : Draws
    problem : Problem
    workers : Workers

    Returns
    -------
    dict of ndarray
        Results of the search, over (student, scenario, budget) and, for values with draws, (..., n_draws).
    """
    n_draws = draws.n_draws
    per_budget = n_draws * len(problem.scenarios)
    piece = workers.piece or max(1, _SOLUTIONS_A_PIECE // per_budget)
    spans = [
        (i, slice(start, start + piece))
        for i in range(problem.students.size)
        for start in range(0, problem.budgets.size, piece)
    ]
    parts = [replace(problem, students=problem.students[[i]], budgets=problem.budgets[span]) for i, span in spans]
    tasks = [(kind, draws, part, workers.search_threads) for part in parts]
    whole: dict[str, np.ndarray] = {}
    for position, found in workers.run(solve_piece, tasks, STRATEGY_NAMES[kind]):
        i, span = spans[position]
        for name, values in found.items():
            if name not in whole:
                whole[name] = np.empty(problem.shape_of_grid + values.shape[3:], dtype=values.dtype)
            whole[name][i, :, span] = values[0]
    return whole


def solve_piece(kind: str, draws: Draws, problem: Problem, threads: int | None) -> dict[str, np.ndarray]:
    """Solve one piece of a grid (a module-level function, so it can be pickled)."""
    search = strategies.perfect_information_strategies if kind == PERFECT_INFORMATION else strategies.chosen_strategies
    return search(draws, problem, threads)
