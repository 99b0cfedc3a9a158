r"""The budget beyond which pretraining wins, for each draw.

The advantage of distillation at budget C is Lsup(N, C/(3F(N))) - L_S of a strategy, positive where distillation is ahead. It is
evaluated at given budgets. Between two neighbours of different sign the root in log C is found so that it does not depend on
how fine the grid is, as long as no pair of roots falls between two budgets: with the best strategy, which each draw has for itself, by
a bracketing method; with the committed one, which all draws share at each budget, by solving more budgets where draws cross.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bayesdistill import strategies
from bayesdistill.compute import pretraining_tokens
from bayesdistill.decisions import solving
from bayesdistill.decisions.labels import CROSSOVER_STATUS
from bayesdistill.decisions.solving import BEST, COMMITTED, Problem, Workers
from bayesdistill.law import Draws

# The optimum is known to about 1e-9 nats and the advantage falls by 1e-3 nats and more per factor e of budget.
_ROOT_TOLERANCE = 1e-7
_MOST_STEPS = 60
_PARTS = 4  # into which an interval is divided where draws cross under the committed strategy
_MOST_DIVISIONS = 5
# In log budget, by which a root may have moved when its interval was last divided: the error that is left is 4^4 times smaller where
# the advantage is smooth, and at least 4 times where the strategy meets a bound or changes altogether.
_SETTLED = 4e-4

CROSSED, ALWAYS, NEVER, REVERSED, IMPOSSIBLE = range(len(CROSSOVER_STATUS))


def find_root(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    lower: np.ndarray,
    upper: np.ndarray,
    at_lower: np.ndarray,
    at_upper: np.ndarray,
) -> np.ndarray:
    """Roots of many functions at once, each inside its own bracket, by the method of Chandrupatla (1997).

    Parameters
    ----------
    function : callable
        (points, which) -> values: the functions numbered `which` at `points`.
    lower, upper : ndarray
        Ends of the brackets.
    at_lower, at_upper : ndarray
        Values there, of different sign.

    Returns
    -------
    ndarray
        Roots, to 1e-7.

    Notes
    -----
    T. R. Chandrupatla, Advances in Engineering Software 28 (1997) 145-149: inverse quadratic interpolation where it is
    safe, bisection elsewhere.
    """
    a, b, fa, fb = upper.astype(float), lower.astype(float), at_upper.astype(float), at_lower.astype(float)
    root = np.where(np.abs(fa) < np.abs(fb), a, b)
    step = np.full(a.shape, 0.5)
    active = np.flatnonzero((fa != 0) & (fb != 0) & (np.abs(a - b) > _ROOT_TOLERANCE))
    for _ in range(_MOST_STEPS):
        if not active.size:
            break
        x = a[active] + step[active] * (b[active] - a[active])
        fx = function(x, active)
        same = np.sign(fx) == np.sign(fa[active])
        # (a, b) always brackets, a is the newest point, c the one that it replaced.
        c = np.where(same, a[active], b[active])
        fc = np.where(same, fa[active], fb[active])
        b[active] = np.where(same, b[active], a[active])
        fb[active] = np.where(same, fb[active], fa[active])
        a[active], fa[active] = x, fx
        aa, bb, ga, gb = a[active], b[active], fa[active], fb[active]
        root[active] = np.where(np.abs(ga) < np.abs(gb), aa, bb)
        width = np.abs(bb - aa)
        smallest = _ROOT_TOLERANCE / np.maximum(width, _ROOT_TOLERANCE)
        with np.errstate(divide="ignore", invalid="ignore"):
            xi = (aa - bb) / (c - bb)
            phi = (ga - gb) / (fc - gb)
            safe = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
            t = ga / (gb - ga) * fc / (gb - fc) + (c - aa) / (bb - aa) * ga / (fc - ga) * gb / (fc - gb)
        t = np.where(safe & np.isfinite(t), t, 0.5)
        step[active] = np.clip(t, 0.5 * smallest, 1 - 0.5 * smallest)
        active = active[(width > _ROOT_TOLERANCE) & (ga != 0)]
    return root


def classify(advantage: np.ndarray, budgets: np.ndarray) -> dict[str, np.ndarray]:
    """Status, bracket of the crossover and number of sign changes of each draw.

    Parameters
    ----------
    advantage : ndarray
        (n_budgets, n_draws), NaN at budgets too small for any strategy.
    budgets : ndarray
        Increasing.

    Returns
    -------
    dict
        status, sign_changes, upper: position of the budget at which the last change of sign is complete, lower: that of
        the budget before it; 0 where there is no change.
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
    # Position of the last change: the first one seen from the end.
    last = len(changes) - 1 - np.argmax(changes[::-1], axis=0) if len(changes) else np.zeros(n_draws, dtype=np.intp)
    lower = np.where(count > 0, feasible[last], 0)
    upper = np.where(count > 0, feasible[np.minimum(last + 1, feasible.size - 1)], 0)
    return {"status": status, "sign_changes": count, "lower": lower, "upper": upper}


def best_crossovers(
    draws: Draws, problem: Problem, advantage: np.ndarray, workers: Workers
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crossover budgets of the best strategy, (student, scenario, n_draws).

    Parameters
    ----------
    draws, problem : as for `solving.solve`
    advantage : ndarray
        Of the best strategy, (student, scenario, budget, n_draws), at the budgets of the problem.

    Returns
    -------
    crossover, status, sign_changes : ndarray
        Crossover in FLOPs, NaN unless the status is `crossed`.
    """
    n_students, n_scenarios, _, n_draws = advantage.shape
    crossover = np.full((n_students, n_scenarios, n_draws), np.nan)
    status = np.empty((n_students, n_scenarios, n_draws), dtype=np.int8)
    changes = np.empty((n_students, n_scenarios, n_draws), dtype=np.int16)
    tasks = []
    where = []
    for i in range(n_students):
        for j in range(n_scenarios):
            found = classify(advantage[i, j], problem.budgets)
            status[i, j], changes[i, j] = found["status"], found["sign_changes"]
            crossed = np.flatnonzero(found["status"] == CROSSED)
            if not crossed.size:
                continue
            lower, upper = found["lower"][crossed], found["upper"][crossed]
            where.append((i, j, crossed))
            tasks.append(
                (
                    draws.take(crossed),
                    Problem(
                        problem.students[i : i + 1],
                        problem.budgets,
                        problem.scenarios[j : j + 1],
                        problem.bounds,
                        problem.shape,
                        problem.teachers,
                    ),
                    np.log(problem.budgets[lower]),
                    np.log(problem.budgets[upper]),
                    advantage[i, j, lower, crossed],
                    advantage[i, j, upper, crossed],
                    workers.kernel_threads,
                )
            )
    for position, root in workers.run(_polish, tasks, "crossovers"):
        i, j, crossed = where[position]
        crossover[i, j, crossed] = np.exp(root)
    return crossover, status, changes


def _polish(
    draws: Draws,
    problem: Problem,
    lower: np.ndarray,
    upper: np.ndarray,
    at_lower: np.ndarray,
    at_upper: np.ndarray,
    threads: int | None,
) -> np.ndarray:
    def advantage(log_budget: np.ndarray, which: np.ndarray) -> np.ndarray:
        subset = draws.take(which)
        return best_advantage(subset, problem, np.exp(log_budget), threads)

    return find_root(advantage, lower, upper, at_lower, at_upper)


def best_advantage(draws: Draws, problem: Problem, budgets: np.ndarray, threads: int | None) -> np.ndarray:
    """Advantage of the best strategy of one student and scenario, each draw at its own budget, (n_draws,)."""
    found = solving.solve_piece(
        BEST,
        draws,
        problem.students,
        budgets[None, :],
        problem.scenarios,
        problem.bounds,
        problem.shape,
        problem.teachers,
        threads,
    )
    tokens = np.minimum(
        pretraining_tokens(problem.students[0], budgets, problem.shape), problem.bounds.max_student_tokens
    )
    alone = draws.supervised_loss(problem.students[0], tokens)
    return alone - found["loss"][0, 0, 0]


def committed_crossovers(
    draws: Draws, problem: Problem, advantage: np.ndarray, workers: Workers
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crossover budgets of the committed strategy, (student, scenario, n_draws), to some 1e-4 of their logarithm.

    Roots cannot be better known than the committed strategy: two that differ by 1e-9 nats in the mean loss pass for equal, and the loss
    of a single draw may differ between them by 1e-6.

    Parameters
    ----------
    draws, problem, workers : as for `solving.solve`
    advantage : ndarray
        Of the committed strategy, (student, scenario, budget, n_draws), at the budgets of the problem.

    Returns
    -------
    crossover, status, sign_changes : ndarray
        As of `best_crossovers`.
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
            return _committed_advantage(draws, problem, i, j, np.exp(x), quiet)

        known = ~np.isnan(advantage[i, j]).any(axis=1)
        x, values = np.log(problem.budgets[known]), advantage[i, j, known]
        k = np.searchsorted(x, np.log(problem.budgets[found["lower"][crossed]]))
        crossover[i, j, crossed] = np.exp(_divide_and_read(solved, x, values, crossed, k))
    return crossover, status, changes


def _divide_and_read(
    solved: Callable[[np.ndarray], np.ndarray], x: np.ndarray, values: np.ndarray, which: np.ndarray, k: np.ndarray
) -> np.ndarray:
    """Roots of the draws `which`, whose values (points, n_draws) change their sign after x[k].

    Intervals are divided by what `solved` gives for (n,) more points, (n, n_draws), until no root moves any more.
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
        # The last change of the lead within the interval that was divided, or the interval itself.
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
    """Root between x[k] and x[k + 1] of the cubic through the four nearest points, one column of values a root."""
    columns = np.arange(k.size)
    first = np.clip(k - 1, 0, max(x.size - 4, 0))
    points = first[:, None] + np.arange(min(4, x.size))
    nodes, heights = x[points], values[points, columns[:, None]]
    at_lower, at_upper = values[k, columns], values[k + 1, columns]

    def cubic(at: np.ndarray, rows: np.ndarray) -> np.ndarray:
        total = np.zeros(at.size)
        for m in range(points.shape[1]):
            others = [q for q in range(points.shape[1]) if q != m]
            terms = (at[:, None] - nodes[rows][:, others]) / (nodes[rows, m][:, None] - nodes[rows][:, others])
            total += heights[rows, m] * terms.prod(axis=1)
        return total

    return find_root(cubic, x[k], x[k + 1], at_lower, at_upper)


def _committed_advantage(
    draws: Draws, problem: Problem, i: int, j: int, budgets: np.ndarray, workers: Workers
) -> np.ndarray:
    """Advantage of the committed strategy of one student and scenario, (n_budgets, n_draws)."""
    part = Problem(
        problem.students[i : i + 1],
        budgets,
        problem.scenarios[j : j + 1],
        problem.bounds,
        problem.shape,
        problem.teachers,
    )
    found = solving.solve(COMMITTED, draws, part, workers)
    alone = strategies.supervised_losses(draws, part.students, budgets, part.shape, part.bounds.max_student_tokens)
    return alone[0] - found["loss"][0, 0]
