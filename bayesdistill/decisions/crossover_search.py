r"""Search for the crossover budget of each draw.

The advantage of distillation at budget C is Lsup(N, C/(3F(N))) - L_S of a strategy, positive if distillation is better. It is
evaluated at the given budgets. Between neighboring budgets with different signs, the root in log C is refined so that it does not
depend on the resolution of the grid, unless two roots are between the same two budgets. With perfect information, each draw has
its own strategy and a bracketing method finds the root. The chosen strategy is shared by all draws at each budget, so budgets are
added where draws cross.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesdistill import strategies
from bayesdistill.decisions import solving
from bayesdistill.decisions.labels import CROSSOVER_STATUS
from bayesdistill.decisions.solving import CHOSEN, PERFECT_INFORMATION, Problem, Workers
from bayesdistill.law import Draws
from bayesdistill.strategies.roots import find_roots

# The optimum is accurate to about 1e-9 nats, and the advantage falls by at least 1e-3 nats per factor e of budget.
ROOT_TOLERANCE = 1e-7  # log budget
_LAST_STEP = 1e-5  # log budget; the secant method is much more accurate than its last step
_MOST_SECANTS = 5
_FAR = 500.0  # log budget; a step that goes farther failed, and the root is bracketed instead
_PARTS = 4  # Number of parts into which an interval with crossings of the chosen strategy is divided.
_MOST_DIVISIONS = 5
# Largest movement of a root, in log budget, at the last division of its interval. The remaining error is 4^4 times smaller if
# the advantage is smooth, and at least 4 times smaller if the strategy reaches a bound or switches.
_SETTLED = 4e-4

CROSSED, ALWAYS, NEVER, REVERSED, IMPOSSIBLE = range(len(CROSSOVER_STATUS))


def classify(advantage: np.ndarray, budgets: np.ndarray) -> dict[str, np.ndarray]:
    """Return status, bracket of the crossover and number of sign changes of each draw.

    Parameters
    ----------
    advantage : ndarray
        (n_budgets, n_draws), NaN at budgets too small for any strategy.
    budgets : ndarray
        Increasing.

    Returns
    -------
    dict
        status, sign_changes, upper (position of the budget after the last sign change), lower (position of the budget before
        it); 0 if there is no sign change.
    """
    feasible = np.flatnonzero(~np.isnan(advantage).any(axis=1))
    n_draws = advantage.shape[1]
    if not feasible.size:
        nothing = np.zeros(n_draws, dtype=np.intp)
        status = np.full(n_draws, IMPOSSIBLE, dtype=np.int8)
        return {"status": status, "sign_changes": nothing, "lower": nothing, "upper": nothing}
    ahead = advantage[feasible] > 0
    changes = ahead[1:] != ahead[:-1]
    count = changes.sum(axis=0)
    status = np.select(
        [count == 0, ~ahead[-1]], [np.where(ahead[-1], ALWAYS, NEVER), CROSSED], default=REVERSED
    ).astype(np.int8)
    last = _last(changes) if len(changes) else np.zeros(n_draws, dtype=np.intp)
    lower = np.where(count > 0, feasible[last], 0)
    upper = np.where(count > 0, feasible[np.minimum(last + 1, feasible.size - 1)], 0)
    return {"status": status, "sign_changes": count, "lower": lower, "upper": upper}


def changes_of_side(advantage: np.ndarray, budgets: np.ndarray) -> dict[str, np.ndarray]:
    """Return where the better option changes first and last, and how often, in each draw.

    Parameters
    ----------
    advantage : ndarray
        (..., n_budgets, n_draws), NaN at budgets too small for any strategy.
    budgets : ndarray
        FLOPs, or tokens; increasing.

    Returns
    -------
    dict
        first_change and last_change, (..., n_draws), interpolated linearly in the log of the budget, NaN without a change;
        side_changes, (..., n_draws); several_changes, (...,), the number of draws with more than one change.
    """
    shape = (*advantage.shape[:-2], advantage.shape[-1])
    first, last, count = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, dtype=np.int16)
    for cell in np.ndindex(shape[:-1]):
        known = ~np.isnan(advantage[cell]).any(axis=1)
        values, x = advantage[cell][known], np.log(budgets[known])
        changed = (values[1:] > 0) != (values[:-1] > 0)
        count[cell] = changed.sum(axis=0)
        which = np.flatnonzero(count[cell])
        for found, place in ((first, _first), (last, _last)) if which.size else ():
            k = place(changed[:, which])
            before, after = values[k, which], values[k + 1, which]
            found[cell][which] = np.exp(x[k] + before / (before - after) * (x[k + 1] - x[k]))
    several = (count > 1).sum(axis=-1)
    return {"first_change": first, "last_change": last, "side_changes": count, "several_changes": several}


def _first(changed: np.ndarray) -> np.ndarray:
    return np.argmax(changed, axis=0)


def _last(changed: np.ndarray) -> np.ndarray:
    return len(changed) - 1 - np.argmax(changed[::-1], axis=0)


def perfect_information_crossovers(
    draws: Draws, problem: Problem, advantage: np.ndarray, workers: Workers
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the crossover budgets with perfect information, (student, scenario, n_draws).

    Parameters
    ----------
    draws, problem : as for `solving.solve`
    advantage : ndarray
        With perfect information, (student, scenario, budget, n_draws), at the budgets of the problem.

    Returns
    -------
    crossover, status, sign_changes : ndarray
        Crossover in FLOPs; NaN unless the status is `crossed`.
    """
    n_students, n_scenarios, _, n_draws = advantage.shape
    crossover = np.full((n_students, n_scenarios, n_draws), np.nan)
    status = np.empty((n_students, n_scenarios, n_draws), dtype=np.int8)
    changes = np.empty((n_students, n_scenarios, n_draws), dtype=np.int16)
    tasks: list[tuple[Any, ...]] = []
    where = []
    for i, j in np.ndindex(n_students, n_scenarios):
        found = classify(advantage[i, j], problem.budgets)
        status[i, j], changes[i, j] = found["status"], found["sign_changes"]
        crossed = np.flatnonzero(found["status"] == CROSSED)
        if crossed.size:
            known = ~np.isnan(advantage[i, j]).any(axis=1)
            x, values = np.log(problem.budgets[known]), advantage[i, j, known][:, crossed]
            k = np.searchsorted(x, np.log(problem.budgets[found["lower"][crossed]]))
            rise = (values[k + 1, np.arange(k.size)] - values[k, np.arange(k.size)]) / (x[k + 1] - x[k])
            bracket = Bracket(x[k], x[k + 1], _cubic_root(x, values, k), rise)
            cell = problem.part(i, j, problem.budgets).for_draws(crossed)
            where.append((i, j, crossed))
            tasks.append((draws.take(crossed), cell, bracket, workers.search_threads))
    for position, root in workers.run(_crossing, tasks, "crossovers"):
        crossover[where[position]] = root
    return crossover, status, changes


@dataclass(frozen=True)
class Bracket:
    """Log budgets between which the advantage of each draw changes its sign, where it is expected to, and its mean slope."""

    lower: np.ndarray
    upper: np.ndarray
    expected: np.ndarray
    slope: np.ndarray


def _crossing(draws: Draws, problem: Problem, bracket: Bracket, threads: int | None) -> np.ndarray:
    """Return the crossover budget of every draw (a module-level function, so it can be pickled).

    The secant method converges in two or three steps from the expected root; the few other draws are bracketed.
    """

    def advantage(log_budget: np.ndarray, which: np.ndarray) -> np.ndarray:
        return best_advantage(draws.take(which), problem.for_draws(which), np.exp(log_budget), threads)

    active = np.arange(draws.n_draws)
    at, value = bracket.expected.copy(), advantage(bracket.expected, active)
    step = -value / bracket.slope
    for _ in range(_MOST_SECANTS):
        x = at[active] + step[active]
        far = ~(np.abs(x) < _FAR)
        at[active[far]], active, x = np.nan, active[~far], x[~far]
        if not active.size:
            break
        new = advantage(x, active)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = (new - value[active]) / step[active]
            at[active], value[active], step[active] = x, new, np.where(new == 0, 0.0, -new / slope)
        active = active[~(np.abs(step[active]) < _LAST_STEP)]
        if not active.size:
            break
    at += step
    rest = np.flatnonzero(~((at >= bracket.lower) & (at <= bracket.upper)) | np.isin(np.arange(at.size), active))
    at[rest] = find_roots(advantage, bracket.lower[rest], bracket.upper[rest], rest, ROOT_TOLERANCE)
    return np.exp(at)


def best_advantage(draws: Draws, problem: Problem, budgets: np.ndarray, threads: int | None) -> np.ndarray:
    """Return the advantage with perfect information, each draw at its own budget, (n_draws,)."""
    own = replace(problem, budgets=budgets[None])
    found = solving.solve_piece(PERFECT_INFORMATION, draws, own, threads)
    return strategies.supervised_losses(draws, own)[0, 0] - found["loss"][0, 0, 0]


def chosen_crossovers(
    draws: Draws, problem: Problem, advantage: np.ndarray, workers: Workers
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the crossover budgets of the chosen strategy, (student, scenario, n_draws).

    The relative error is about 1e-4. The chosen strategy limits the accuracy: strategies whose mean losses differ by 1e-9 nats
    count as equal, and their losses in a single draw may differ by 1e-6.

    Parameters
    ----------
    draws, problem, workers : as for `solving.solve`
    advantage : ndarray
        Of the chosen strategy, (student, scenario, budget, n_draws), at the budgets of the problem.

    Returns
    -------
    crossover, status, sign_changes : ndarray
        As for `perfect_information_crossovers`.
    """
    n_students, n_scenarios, _, n_draws = advantage.shape
    crossover = np.full((n_students, n_scenarios, n_draws), np.nan)
    status = np.empty(crossover.shape, dtype=np.int8)
    changes = np.empty(crossover.shape, dtype=np.int16)
    quiet = Workers(workers.executor, workers.threads, None, workers.piece)
    for i, j in np.ndindex(n_students, n_scenarios):
        found = classify(advantage[i, j], problem.budgets)
        status[i, j], changes[i, j] = found["status"], found["sign_changes"]
        crossed = np.flatnonzero(found["status"] == CROSSED)
        if not crossed.size:
            continue

        def solved(x: np.ndarray, i: int = i, j: int = j) -> np.ndarray:
            return _chosen_advantage(draws, problem, i, j, np.exp(x), quiet)

        known = ~np.isnan(advantage[i, j]).any(axis=1)
        x, values = np.log(problem.budgets[known]), advantage[i, j, known]
        k = np.searchsorted(x, np.log(problem.budgets[found["lower"][crossed]]))
        crossover[i, j, crossed] = np.exp(_divide_and_read(solved, x, values, crossed, k))
    return crossover, status, changes


def _divide_and_read(
    solved: Callable[[np.ndarray], np.ndarray], x: np.ndarray, values: np.ndarray, which: np.ndarray, k: np.ndarray
) -> np.ndarray:
    """Refine roots of the draws `which`, whose values (points, n_draws) change sign at k.

    Divide intervals, with values (n, n_draws) from `solved` at (n,) additional points, until no root moves.
    """
    root = _cubic_root(x, values[:, which], k)
    moving = np.arange(which.size)
    for _ in range(_MOST_DIVISIONS):
        intervals = np.unique(k[moving])
        share = np.arange(1, _PARTS) / _PARTS
        inner = (x[intervals, None] + (x[intervals + 1] - x[intervals])[:, None] * share).ravel()
        low, high = x[k], x[k + 1]
        places = np.searchsorted(x, inner)
        x, values = np.insert(x, places, inner), np.insert(values, places, solved(inner), axis=0)
        # Select the last sign change within the divided interval, or the interval itself.
        start, end = np.searchsorted(x, low), np.searchsorted(x, high)
        ahead = values[:, which] > 0
        k = end - 1
        for step in range(1, _PARTS):
            earlier = np.maximum(end - 1 - step, start)
            rows = np.arange(which.size)
            k = np.where(ahead[k, rows] != ahead[k + 1, rows], k, earlier)
        before, root = root, _cubic_root(x, values[:, which], k)
        moving = np.flatnonzero(abs(root - before) > _SETTLED)
        if not moving.size:
            break
    return root


def _cubic_root(x: np.ndarray, values: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return the root of the cubic through the four points nearest to x[k] and x[k + 1]."""
    columns = np.arange(k.size)
    first = np.clip(k - 1, 0, max(x.size - 4, 0))
    points = first[:, None] + np.arange(min(4, x.size))
    nodes, heights = x[points], values[points, columns[:, None]]

    def cubic(at: np.ndarray, rows: np.ndarray) -> np.ndarray:
        total = np.zeros(at.size)
        for m in range(points.shape[1]):
            others = [q for q in range(points.shape[1]) if q != m]
            terms = (at[:, None] - nodes[rows][:, others]) / (nodes[rows, m][:, None] - nodes[rows][:, others])
            total += heights[rows, m] * terms.prod(axis=1)
        return total

    return find_roots(cubic, x[k], x[k + 1], np.arange(k.size), ROOT_TOLERANCE)


def _chosen_advantage(
    draws: Draws, problem: Problem, i: int, j: int, budgets: np.ndarray, workers: Workers
) -> np.ndarray:
    """Return the advantage of the chosen strategy, (n_budgets, n_draws)."""
    part = problem.part(i, j, budgets)
    found = solving.solve(CHOSEN, draws, part, workers)
    return strategies.supervised_losses(draws, part)[0] - found["loss"][0, 0]
