r"""The budget beyond which pretraining wins, for each draw.

The advantage of distillation at budget C is Lsup(N, C/(3F(N))) - L_S of the best strategy, positive where distillation is
ahead. It is evaluated at given budgets; between two neighbours of different sign its root in log C is found by a bracketing
method, so that the crossover does not depend on how fine the grid is as long as no pair of roots falls between two budgets.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bayesdistill import laws
from bayesdistill.compute import pretraining_tokens
from bayesdistill.decisions import solving
from bayesdistill.decisions.labels import CROSSOVER_STATUS
from bayesdistill.decisions.solving import BEST, Draws, Problem, Workers

# The optimum is known to about 1e-9 nats and the advantage falls by 1e-3 nats and more per factor e of budget.
_ROOT_TOLERANCE = 1e-7
_MOST_STEPS = 60

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
                    {name: values[crossed] for name, values in draws.items()},
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
    for position, root in workers.run(_polish, tasks):
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
        subset = {name: values[which] for name, values in draws.items()}
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
    law = {name: draws[name] for name in laws.SUPERVISED_PARAMETERS}
    alone = laws.supervised_loss(problem.students[0], tokens, **law)
    return alone - found["loss"][0, 0, 0]
