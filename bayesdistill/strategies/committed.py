"""The strategy that minimises the posterior mean of the student's loss: one teacher and one split for all draws.

With many draws no curve must hold the optimum, because a teacher has another loss under every draw: size and tokens of the
teacher are both free, and D_S is what the budget leaves. Their mean loss is smooth in the logarithms, but for a cap on the
student's tokens, which leaves a crease where the budget buys exactly the cap.

A grid on a few draws shows the basins, and Newton's method goes to the bottom of each, first on those draws and then on all.
Beside it the curve of `paths` is searched for a law between the draws, and the crease if there is one. Where the teacher costs
nothing, teachers of different size and equal loss are nearly equally good; the one on the curve is then preferred, so that one
draw, or many equal ones, give the strategy that is best for it.

All problems take their steps together, each by itself: numpy decides, and compiled loops average over draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from bayesdistill.strategies.averages import (
    mean_grid,
    mean_losses,
    points_on_crease,
    points_on_curve,
    teacher_losses,
)
from bayesdistill.strategies.newton import Function, polish
from bayesdistill.strategies.paths import grid

TIE = 1e-7
"""Nats within which the curve is preferred to a committed strategy beside it."""

_FEW, _SOME = 64, 512  # draws for a first and a second look
_GRID = 32  # teacher sizes, and tokens, of the grid
_BASINS = 6  # of the grid that are followed
_NEAR = 2e-2  # nats by which a basin may seem worse on few draws and still be followed on all
_FAR = 0.05  # in either logarithm: a step that the search on all draws is not left to make by itself
_CREASE_STENCIL = 5e-4  # half width, so that a minimum close to a crease is not stepped over
_CAP = 8  # place of the cap in the room

Line = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Takes numbers of problems and a point on the line of each, and gives x and y."""


@dataclass(frozen=True)
class Task:
    """What the search needs.

    Parameters
    ----------
    P : (n_students, ROWS, n_draws) array
        Draws, after `averages.prepare`.
    problems : (6, n) array
        See `averages`.
    room : tuple
        See `blocks`.
    reference : (3,) array
        See `averages.points_on_curve`.
    run : callable
        Takes a function of a slice and a length, and calls it for slices that make up that length, in any order.
    """

    P: np.ndarray
    problems: np.ndarray
    room: tuple[float, ...]
    reference: np.ndarray
    run: Callable[[Callable[[slice], None], int], None]


def commit(task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logarithms of the committed teacher's size and tokens, and the mean loss, of every problem.

    The mean loss is infinite where no teacher leaves a token.
    """
    few, some = _thinned(task, _FEW), _thinned(task, _SOME)
    on_few, on_all = _mean_of(task, few), _mean_of(task, task.P)
    box = np.array(task.room[:4])
    everything = np.arange(task.problems.shape[1])

    curve_x, curve_y, curve_low = _search_line(
        task, everything, partial(_on_curve, task), grid(33, 4, 1, task.room[0], task.room[1]), few
    )
    x, y, low = curve_x.copy(), curve_y.copy(), curve_low.copy()
    if np.isfinite(task.room[_CAP]):
        creased = np.flatnonzero(task.problems[3] + task.problems[4] > 0)
        points = np.linspace(0.0, 1.0, 33)
        _keep_lower(creased, *_search_line(task, creased, partial(_on_crease, task), points, few), x, y, low)

    # On few draws: which basins of the grid are not the one to which the point on the lines leads.
    start = np.flatnonzero(np.isfinite(low))
    grid_x, grid_y, problem = _grid_minima(task, few)
    which = np.concatenate([start, problem])
    bx, by = np.concatenate([x[start], grid_x]), np.concatenate([y[start], grid_y])
    bx, by, value = polish(on_few, which, bx, by, on_few(which, bx, by), box, 0.1)
    # A valley may lead far away from the point on the lines, farther than the short steps on all draws would follow it.
    moved = np.maximum(abs(bx[: start.size] - x[start]), abs(by[: start.size] - y[start])) > _FAR
    far = np.flatnonzero(moved)
    far_which, far_x, far_y = which[far], bx[far], by[far]
    which, bx, by = _other_basins(which, bx, by, value, start.size, few)
    which, bx, by = (np.concatenate(v) for v in ((which, far_which), (bx, far_x), (by, far_y)))

    # On all draws: from the point on the lines, and from the other basins by way of some more draws.
    _keep_lower(start, *polish(on_all, start, x[start], y[start], low[start], box, 0.02), x, y, low)
    if some.shape[2] < task.P.shape[2]:
        on_some = _mean_of(task, some)
        bx, by, _ = polish(on_some, which, bx, by, on_some(which, bx, by), box, 0.05)
    value = on_all(which, bx, by)
    near = value <= low[which] + _NEAR / 2
    which, bx, by, value = which[near], bx[near], by[near], value[near]
    _keep_lower(which, *polish(on_all, which, bx, by, value, box, 0.02), x, y, low)

    if np.isfinite(task.room[_CAP]):
        again = creased[np.isfinite(low[creased])]
        _keep_lower(again, *polish(on_all, again, x[again], y[again], low[again], box, _CREASE_STENCIL), x, y, low)

    tie = np.isfinite(curve_low) & (curve_low <= low + TIE)
    return np.where(tie, curve_x, x), np.where(tie, curve_y, y), np.where(tie, curve_low, low)


def _keep_lower(
    which: np.ndarray,
    new_x: np.ndarray,
    new_y: np.ndarray,
    new: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    low: np.ndarray,
) -> None:
    for p, u, v, f in zip(which, new_x, new_y, new, strict=True):
        if f < low[p]:
            x[p], y[p], low[p] = u, v, f


def _thinned(task: Task, number: int) -> np.ndarray:
    n = task.P.shape[2]
    columns = np.unique(np.linspace(0, n - 1, min(n, number)).round().astype(int))
    return np.ascontiguousarray(task.P[:, :, columns])


def _mean_of(task: Task, P: np.ndarray) -> Function:
    def mean(which: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        means = np.empty(which.size)

        def work(part: slice) -> None:
            mean_losses(which[part], x[part], y[part], P, task.problems, task.room, means[part])

        task.run(work, which.size)
        return means

    return mean


def _on_curve(task: Task, which: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.empty(t.size), np.empty(t.size)
    points_on_curve(which, t, task.reference, task.problems, task.room, x, y)
    return x, y


def _on_crease(task: Task, which: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.empty(t.size), np.empty(t.size)
    points_on_crease(which, t, task.problems, task.room, x, y)
    return x, y


def _search_line(
    task: Task, which: np.ndarray, line: Line, ts: np.ndarray, few: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lowest point on the line of each of these problems: all local minima on few draws, and the near ones on all."""

    def along(mean: Function) -> Function:
        return lambda rows, t, _: mean(rows, *line(rows, t))

    on_few, on_all = along(_mean_of(task, few)), along(_mean_of(task, task.P))
    box = np.array([ts[0], ts[-1], 0.0, 0.0])
    everything = np.repeat(which, ts.size)
    V = on_few(everything, np.tile(ts, which.size), everything).reshape(which.size, ts.size)
    padded = np.pad(V, ((0, 0), (1, 1)), constant_values=np.inf)
    floor = V.min(axis=1, initial=np.inf)
    least = np.isfinite(V) & (padded[:, :-2] > V) & (padded[:, 2:] >= V) & (floor[:, None] + _NEAR >= V)
    row, k = np.nonzero(least)
    t, _, value = polish(on_few, which[row], ts[k], np.zeros(k.size), V[row, k], box, 0.01)
    np.minimum.at(floor, row, value)
    near = value <= floor[row] + _NEAR / 2
    row, t, zero = row[near], t[near], np.zeros(near.sum())
    t, _, value = polish(on_all, which[row], t, zero, on_all(which[row], t, zero), box, 0.002)
    at, nothing, best = np.zeros(which.size), np.zeros(which.size), np.full(which.size, np.inf)
    _keep_lower(row, t, zero, value, at, nothing, best)
    return *line(which, at), best


def _grid_minima(task: Task, few: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lowest local minima of each problem on the grid of teachers: x, y and the problem."""
    xs = np.linspace(task.room[0], task.room[1], _GRID)
    ys = np.linspace(task.room[2], task.room[3], _GRID)
    X, Y = (v.ravel() for v in np.meshgrid(xs, ys, indexing="ij"))
    table = np.empty((_GRID, _GRID, few.shape[2]))
    teacher_losses(np.exp(X), np.exp(Y), few[0], table.reshape(X.size, -1))
    n = task.problems.shape[1]
    V = np.empty((n, _GRID, _GRID))

    def work(part: slice) -> None:
        mean_grid(np.arange(n)[part], xs, ys, few, table, task.problems, task.room, V[part])

    task.run(work, n)
    padded = np.pad(V, ((0, 0), (1, 1), (1, 1)), constant_values=np.inf)
    least = np.isfinite(V)
    for a in range(3):
        for b in range(3):
            least &= padded[:, a : a + _GRID, b : b + _GRID] >= V
    flat = np.where(least, V, np.inf).reshape(n, -1)
    places = np.argsort(flat, axis=1, kind="stable")[:, :_BASINS]
    problem, column = np.nonzero(np.isfinite(np.take_along_axis(flat, places, axis=1)))
    chosen = places[problem, column]
    return X[chosen], Y[chosen], problem


def _other_basins(
    which: np.ndarray, x: np.ndarray, y: np.ndarray, value: np.ndarray, first: int, few: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Problem, x and y of those after the first points that lie in a basin of their own, nearly as low as any of the problem.

    The same basin is the same place, or another place of a flat valley, along which teachers of equal loss are equally good.
    """
    losses = np.empty((which.size, few.shape[2]))
    teacher_losses(np.exp(x), np.exp(y), few[0], losses)
    teacher = losses.mean(axis=1)
    kept: dict[int, list[int]] = {}
    for m, p in enumerate(which.tolist()):
        others = kept.setdefault(p, [])
        same_place = [max(abs(x[q] - x[m]), abs(y[q] - y[m])) < 0.1 for q in others]
        same_valley = [
            abs(value[q] - value[m]) < 2e-5 and abs(teacher[q] - teacher[m]) < 0.02 * teacher[m] for q in others
        ]
        if np.isfinite(value[m]) and not any(same_place + same_valley):
            others.append(m)
    chosen = [
        m
        for members in kept.values()
        for m in members
        if m >= first and value[m] <= min(value[q] for q in members) + _NEAR
    ]
    return which[chosen], x[chosen], y[chosen]
