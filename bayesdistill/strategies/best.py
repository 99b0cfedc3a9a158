"""The best strategy of every draw: a search along the curve of `paths`.

A coarse grid on the curve comes first. Cells that may hide an optimum lower than the lowest point seen (see `cells`) are
divided twice; those that still may, away from the lowest point, are looked into closely. Every local minimum that could be the
lowest is then followed to its bottom with Brent's method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesdistill.compute import flops_from_coefficients
from bayesdistill.strategies.blocks import FIELDS, LOSS, PARAMS, TEACHER, TOKENS, evaluate, grid_losses
from bayesdistill.strategies.cells import INNER, divide, drop_empty_ends, list_inner_minima, list_minima
from bayesdistill.strategies.minimum import minimise
from bayesdistill.strategies.paths import grid

BUDGETS_AT_ONCE = 8
"""Budgets of one call of `search`."""
_EVERY = 4  # points of the curve of which one is looked at first
_GAP = (
    8  # columns left empty, so that the points of one draw do not all fall on the same lines of the processor's cache
)
_TOLERANCE = 1e-7  # in t, where the loss has a flat bottom: its error goes with the square
_TOLERANCE_KINK = 1e-10  # in t, where the cap on student tokens can leave it a kink
_NO_GAIN = 1e-11  # nats


def curve_points(room: tuple[float, ...]) -> np.ndarray:
    """The points of the curve that `search` may look at before it follows a minimum."""
    return grid(17, 2, _EVERY, room[0], room[1])


@dataclass(frozen=True)
class Scratch:
    """Arrays that `search` fills, made once because fresh memory takes longer to come by than the search takes to fill it."""

    ts: np.ndarray
    draws: np.ndarray
    which: np.ndarray
    points: np.ndarray
    grid: tuple[np.ndarray, np.ndarray, np.ndarray]
    losses: np.ndarray
    teachers: np.ndarray
    looked: np.ndarray
    places: np.ndarray
    brackets: np.ndarray
    cells: np.ndarray

    @classmethod
    def of(cls, n_budgets: int, ts: np.ndarray, n_draws: int) -> Scratch:
        """Room for so many budgets (at most BUDGETS_AT_ONCE are used), the points of the curve, and draws."""
        n_budgets = min(n_budgets, BUDGETS_AT_ONCE)
        coarse = ts[::_EVERY]
        shape, size = (n_budgets, coarse.size, n_draws), n_budgets * coarse.size * n_draws
        draws, which, t = (
            np.ascontiguousarray(np.broadcast_to(v, shape)).ravel()
            for v in (np.arange(n_draws), np.arange(n_budgets)[:, None, None], coarse[:, None])
        )
        all_points = n_budgets * ts.size * n_draws
        return cls(
            ts=ts,
            draws=np.empty(2 * size, np.int64),
            which=np.empty(2 * size, np.int64),
            points=np.empty(2 * size, np.int64),
            grid=(draws, which, t),
            losses=np.empty((n_budgets, ts.size, n_draws + _GAP)),
            teachers=np.empty((n_budgets, ts.size, n_draws + _GAP)),
            looked=np.empty((FIELDS, size)),
            # At most half of the points are minima, and each of the cells between them holds at most four.
            places=np.empty((2, 2, 5 * all_points), np.int64),
            brackets=np.empty((6, 5 * all_points)),
            cells=np.empty((4, all_points)),
        )


def curve_teachers(P: np.ndarray, task: Any, room: Any, ts: np.ndarray) -> np.ndarray:
    """What `evaluate` gives for the teachers of every draw at every t of the curve, (FIELDS, 1, n, more than n_draws), for a
    scenario in which they depend neither on student nor on budget.
    """
    n_draws = P.shape[1]
    size = ts.size * n_draws
    out = np.empty((FIELDS, size))
    every = np.tile(np.arange(n_draws), ts.size)
    evaluate(P, np.full((1, n_draws), 1e300), every, np.zeros(size, np.int64), np.repeat(ts, n_draws), task, room, out)
    return np.pad(out.reshape(FIELDS, 1, ts.size, n_draws), ((0, 0), (0, 0), (0, 0), (0, _GAP)))


def search(
    P: np.ndarray,
    budgets: np.ndarray,
    task: tuple[int, float, float, float],
    room: tuple[float, ...],
    teachers: np.ndarray | None,
    scratch: Scratch,
) -> np.ndarray:
    """The best strategy of each draw for each budget: (FIELDS, n_budgets, n_draws), NaN where nothing can be paid.

    Parameters
    ----------
    P : (ROWS, n_draws) array
        Coefficients in the order of PARAMETERS, after `set_students`; a multiple of LANES draws.
    budgets : (n_budgets, n_draws) array
        FLOPs.
    task, room : tuple
        See `blocks`.
    teachers : array or None
        `curve_teachers` of the scenario, unless both shares are charged.
    scratch : Scratch
        For at least as many budgets and exactly these draws.
    """
    n_budgets, n_draws = budgets.shape
    ts = scratch.ts

    def at(draws: np.ndarray, which: np.ndarray, t: np.ndarray) -> np.ndarray:
        out = np.empty((FIELDS, t.size))
        evaluate(P, budgets, draws, which, t, task, room, out)
        return out

    V, L = _coarse_grid(P, budgets, task, room, teachers, scratch)
    drop_empty_ends(V, L, n_draws, ts)
    for every in (_EVERY, _EVERY // 2):
        count = divide(V, L, n_draws, every, scratch.draws, scratch.which, scratch.points)
        i, c, k = scratch.draws[:count], scratch.which[:count], scratch.points[:count]
        found = at(i, c, ts[k])
        V[c, k, i] = found[LOSS]
        if teachers is None:
            L[c, k, i] = found[TEACHER]

    best = np.empty((2, n_budgets, n_draws))
    places, brackets, cells = scratch.places, scratch.brackets, scratch.cells
    count, deep = list_minima(V, L, n_draws, _EVERY, ts, best, places, brackets, cells)
    if deep:
        parts = np.arange(1, INNER + 1) / (INNER + 1)
        inner = cells[0, :deep, None] + (cells[1, :deep] - cells[0, :deep])[:, None] * parts
        i, c = np.repeat(places[1, :, :deep], INNER, axis=1)
        losses = at(i, c, inner.ravel())[LOSS].reshape(deep, INNER)
        count = list_inner_minima(losses, places, brackets, cells, deep, count)

    i, c = places[0, :, :count]
    accuracy = (_TOLERANCE, _NO_GAIN) if np.isinf(room[8]) else (_TOLERANCE_KINK, -1.0)
    t, value = minimise(lambda rows, u: at(i[rows], c[rows], u)[LOSS], brackets[:, :count], *accuracy)
    lower = np.flatnonzero(value < best[0, c, i])
    # The lowest of several minima is written last.
    lower = lower[np.argsort(-value[lower], kind="stable")]
    best[:, c[lower], i[lower]] = value[lower], t[lower]
    c, i = np.nonzero(np.isfinite(best[0]))
    out = np.full((FIELDS, n_budgets, n_draws), np.nan)
    out[:, c, i] = at(i, c, best[1, c, i])
    return out


def _coarse_grid(
    P: np.ndarray, budgets: np.ndarray, task: Any, room: Any, teachers: np.ndarray | None, scratch: Scratch
) -> tuple[np.ndarray, np.ndarray]:
    """The losses of students and teachers at every fourth point of the curve."""
    n_budgets, n_draws = budgets.shape
    V = scratch.losses[:n_budgets]
    V[:, :, :n_draws] = np.nan
    if teachers is not None:
        flops = flops_from_coefficients(teachers[PARAMS, 0, :, 0], room[9], room[10])
        grid_losses(P, budgets, task, room, _EVERY, flops, teachers[TOKENS, 0], teachers[TEACHER, 0], V)
        return V, teachers[TEACHER]
    L = scratch.teachers[:n_budgets]
    coarse = (n_budgets, -(-scratch.ts.size // _EVERY), n_draws)
    size = math.prod(coarse)
    out = scratch.looked[:, :size]
    evaluate(P, budgets, *[v[:size] for v in scratch.grid], task, room, out)
    V[:, ::_EVERY, :n_draws] = out[LOSS].reshape(coarse)
    L[:, ::_EVERY, :n_draws] = out[TEACHER].reshape(coarse)
    return V, L
