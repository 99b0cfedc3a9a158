"""A trust-region Newton search in two dimensions for many functions at a time, without derivatives.

Around each point nine values on a stencil make a quadratic model. It is minimised over the part of the bounds that is not
farther than the radius, exactly, which needs no definite Hessian. A direction without width is left alone, so that the same
search serves in one dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Function = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Takes the numbers of some functions and a point for each, two arrays of coordinates, and gives the values."""

_ENOUGH = 1e-9  # that a further step would gain
_LEAST_RADIUS = 1e-5
_ROUNDS = 50
_MIDDLE = 4  # column of the middle of a stencil


def polish(
    function: Function,
    which: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    value: np.ndarray,
    box: np.ndarray,
    widest: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local minima near points of known value.

    Parameters
    ----------
    function : Function
        May be infinite in places.
    which, x, y, value : (n,) arrays
        Number of the function, the point, and the value there.
    box : (4,) array
        Bounds of x, then of y.
    widest : float
        Half width of the stencil at most; a tenth of it is the least.

    Returns
    -------
    x, y, value : (n,) arrays
        Never higher than before.
    """
    x, y, value = x.copy(), y.copy(), value.copy()
    radius = np.full(x.size, 4 * widest if box[2] == box[3] else 0.4)
    active = np.flatnonzero(np.isfinite(value))
    for _ in range(_ROUNDS):
        if not active.size:
            break
        u, v, f, r = x[active], y[active], value[active], radius[active]
        h = np.clip(r / 2, widest / 10, widest)
        hx, hy = np.minimum(h, (box[1] - box[0]) / 2), np.minimum(h, (box[3] - box[2]) / 2)
        cx = np.clip(u, box[0] + hx, box[1] - hx)
        cy = np.clip(v, box[2] + hy, box[3] - hy)
        F, X, Y = _stencil(function, which[active], u, v, f, cx, cy, hx, hy)
        rows, lowest = np.arange(active.size), F.argmin(axis=1)
        stay = F[rows, lowest] >= f
        nu = np.where(stay, u, X[rows, lowest])
        nv = np.where(stay, v, Y[rows, lowest])
        nf = np.where(stay, f, F[rows, lowest])
        finite = np.isfinite(F).all(axis=1)

        lower_x, upper_x = np.maximum(u - r, box[0]) - cx, np.minimum(u + r, box[1]) - cx
        lower_y, upper_y = np.maximum(v - r, box[2]) - cy, np.minimum(v + r, box[3]) - cy
        drop, su, sv = _lowest_of_model(_derivatives(F, hx, hy), lower_x, upper_x, lower_y, upper_y)
        with np.errstate(invalid="ignore"):
            hoped = f - (F[:, _MIDDLE] + drop)
            done = finite & (hoped < _ENOUGH) & stay
        go = finite & ~done
        mu, mv, mf = cx + su, cy + sv, np.full(active.size, np.inf)
        mf[go] = function(which[active[go]], mu[go], mv[go])
        with np.errstate(invalid="ignore"):
            gain, step = f - mf, np.maximum(abs(mu - u), abs(mv - v))
            take = go & (mf < nf)
            nu, nv, nf = np.where(take, mu, nu), np.where(take, mv, nv), np.where(take, mf, nf)
            done |= go & (abs(gain - hoped) < _ENOUGH) & (step < r)
            at_edge = np.where(gain > 0.75 * hoped, 2 * r, r)
            good = np.where(step >= 0.99 * r, at_edge, np.maximum(2 * step, r / 8))
            bad = np.minimum(r / 2, np.maximum(step, _LEAST_RADIUS))
            # A stencil that is not finite is too near to where nothing is left for the student.
            new_radius = np.where(finite, np.where(gain < 0.25 * hoped, bad, good), r / 2)
        x[active], y[active], value[active], radius[active] = nu, nv, nf, new_radius
        active = active[~done & (new_radius >= _LEAST_RADIUS)]
    return x, y, value


def _stencil(
    function: Function, which: Any, u: Any, v: Any, f: Any, cx: Any, cy: Any, hx: Any, hy: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values and places of the 3 x 3 points around (cx, cy); only those that are distinct and not known are computed."""
    offset = np.array([-1.0, 0.0, 1.0])
    X = np.repeat(cx[:, None] + offset * hx[:, None], 3, axis=1)
    Y = np.tile(cy[:, None] + offset * hy[:, None], (1, 3))
    known = (u[:, None] == X) & (v[:, None] == Y)
    F = np.where(known, f[:, None], np.nan)
    middle_x, middle_y = np.repeat([False, True, False], 3), np.tile([False, True, False], 3)
    wanted = ~known & (middle_x | (hx > 0)[:, None]) & (middle_y | (hy > 0)[:, None])
    row, column = np.nonzero(wanted)
    F[row, column] = function(which[row], X[row, column], Y[row, column])
    flat_x, flat_y = hx == 0, hy == 0
    if flat_x.any():
        F[flat_x] = np.tile(F[flat_x, 3:6], (1, 3))
    if flat_y.any():
        F[flat_y] = np.repeat(F[flat_y, 1::3], 3, axis=1)
    return F, X, Y


def _derivatives(F: np.ndarray, hx: np.ndarray, hy: np.ndarray) -> tuple[np.ndarray, ...]:
    """First and second derivatives at the middle of the stencil; 0 along a direction without width."""
    wx, wy = np.where(hx > 0, hx, 1.0), np.where(hy > 0, hy, 1.0)
    with np.errstate(invalid="ignore"):
        gx, gy = (F[:, 7] - F[:, 1]) / (2 * wx), (F[:, 5] - F[:, 3]) / (2 * wy)
        hxx = (F[:, 7] - 2 * F[:, 4] + F[:, 1]) / wx**2
        hyy = (F[:, 5] - 2 * F[:, 4] + F[:, 3]) / wy**2
        hxy = (F[:, 8] - F[:, 6] - F[:, 2] + F[:, 0]) / (4 * wx * wy)
    return gx, gy, hxx, hxy, hyy


def _lowest_of_model(
    derivatives: tuple[np.ndarray, ...], left: Any, right: Any, bottom: Any, top: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The least value of g.s + s.H.s/2 over a rectangle, and where: inside, on an edge, or at a corner."""
    gx, gy, hxx, hxy, hyy = derivatives
    with np.errstate(all="ignore"):
        determinant = np.where(hxx > 0, hxx * hyy - hxy**2, np.nan)
        determinant = np.where(determinant > 0, determinant, np.nan)
        curved_x, curved_y = np.where(hxx > 0, hxx, np.nan), np.where(hyy > 0, hyy, np.nan)
        places = [((hxy * gy - hyy * gx) / determinant, (hxy * gx - hxx * gy) / determinant)]
        for edge in (bottom, top):
            places += [(-(gx + hxy * edge) / curved_x, edge), (left, edge), (right, edge)]
        for edge in (left, right):
            places += [(edge, -(gy + hxy * edge) / curved_y)]
        sx, sy = (np.stack(v, axis=1) for v in zip(*places, strict=True))
        inside = (sx >= left[:, None]) & (sx <= right[:, None]) & (sy >= bottom[:, None]) & (sy <= top[:, None])
        values = gx[:, None] * sx + gy[:, None] * sy
        values += 0.5 * (hxx[:, None] * sx**2 + 2 * hxy[:, None] * sx * sy + hyy[:, None] * sy**2)
        values = np.where(inside, values, np.inf)
    k = values.argmin(axis=1)
    rows = np.arange(k.size)
    return values[rows, k], sx[rows, k], sy[rows, k]
