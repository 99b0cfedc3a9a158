"""Minima of many functions of two variables, by Newton's method with a trust region and without derivatives.

Seven values around each point define a quadratic model. The model is minimized exactly over the part of the box within the
trust radius, which also works for indefinite and nearly singular Hessians. A direction of zero width is fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Function = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Maps function indices (n,) and coordinates (n, k) to values (n, k), which may be infinite."""

_ENOUGH = 2e-10  # expected decrease of a further step at which the descent stops
_LEAST_RADIUS = 1e-5
_FIRST_RADIUS = 0.4
_STENCIL_X = np.array([0.0, -1.0, 1.0, 0.0, 0.0, 1.0, -1.0])
_STENCIL_Y = np.array([0.0, 0.0, 0.0, -1.0, 1.0, 1.0, -1.0])


@dataclass(frozen=True)
class Box:
    """Bounds of the two coordinates, the same for all points or one for each."""

    left: Any
    right: Any
    bottom: Any
    top: Any


@dataclass(frozen=True)
class Points:
    """Points with known function values, arrays of shape (n,): index of the function, coordinates, value."""

    which: np.ndarray
    x: np.ndarray
    y: np.ndarray
    value: np.ndarray

    @classmethod
    def of(cls, function: Function, which: np.ndarray, x: np.ndarray, y: np.ndarray) -> Points:
        """Return points with the values of a function."""
        return cls(which, x, y, function(which, x[:, None], y[:, None])[:, 0])

    def take(self, index: np.ndarray) -> Points:
        """Return some of the points."""
        return Points(self.which[index], self.x[index], self.y[index], self.value[index])

    def put(self, index: np.ndarray, new: Points) -> Points:
        """Return the points with some of them replaced."""
        x, y, value = self.x.copy(), self.y.copy(), self.value.copy()
        x[index], y[index], value[index] = new.x, new.y, new.value
        return Points(self.which, x, y, value)

    def together(self, other: Points) -> Points:
        """Concatenate these points with others."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("which", "x", "y", "value"))
        return Points(*(np.concatenate(pair) for pair in pairs))

    def apart(self, distance: float, most: int) -> Points:
        """Return up to `most` lowest points per function, at least `distance` apart."""
        kept: dict[int, list[int]] = {}
        for m in np.argsort(self.value, kind="stable").tolist():
            others = kept.setdefault(int(self.which[m]), [])
            near = any(max(abs(self.x[q] - self.x[m]), abs(self.y[q] - self.y[m])) < distance for q in others)
            if np.isfinite(self.value[m]) and not near and len(others) < most:
                others.append(m)
        return self.take(np.array(sorted(m for members in kept.values() for m in members), int))


@dataclass(frozen=True)
class Model:
    """Quadratic models: values and derivatives at (x, y), arrays of shape (n,)."""

    x: np.ndarray
    y: np.ndarray
    value: np.ndarray
    slope_x: np.ndarray
    slope_y: np.ndarray
    curvature_x: np.ndarray
    curvature_y: np.ndarray
    mixed: np.ndarray


def descend(function: Function, points: Points, box: Box, width: float, rounds: int = 50) -> Points:
    """Return local minima near points, with values no higher than at the points.

    Parameters
    ----------
    function : Function
    points : Points
        Starting points, with their values of this function.
    box : Box
    width : float
        Maximum half width of the stencil; the minimum is a tenth of it.
    rounds : int
        Maximum number of steps.
    """
    radius = np.full(points.x.size, _FIRST_RADIUS)
    active = np.flatnonzero(np.isfinite(points.value))
    with np.errstate(all="ignore"):
        for _ in range(rounds):
            if not active.size:
                break
            new, new_radius, done = _step(function, points.take(active), radius[active], box, width)
            points, radius[active] = points.put(active, new), new_radius
            active = active[~done & (new_radius >= _LEAST_RADIUS)]
    return points


def _step(
    function: Function, at: Points, radius: np.ndarray, box: Box, width: float
) -> tuple[Points, np.ndarray, np.ndarray]:
    """Return the points after a step, their next radius, and which are minima."""
    h = np.clip(radius / 2, width / 10, width)
    hx, hy = np.minimum(h, (box.right - box.left) / 2), np.minimum(h, (box.top - box.bottom) / 2)
    x, y = np.clip(at.x, box.left + hx, box.right - hx), np.clip(at.y, box.bottom + hy, box.top - hy)
    X, Y = x[:, None] + hx[:, None] * _STENCIL_X, y[:, None] + hy[:, None] * _STENCIL_Y
    F = function(at.which, X, Y)
    finite = np.isfinite(F).all(axis=1)
    rows, k = np.arange(F.shape[0]), F.argmin(axis=1)
    stay = F[rows, k] >= at.value
    best = Points(at.which, *(np.where(stay, old, new[rows, k]) for old, new in ((at.x, X), (at.y, Y), (at.value, F))))

    model = _model(F, x, y, hx, hy)
    reach = Box(
        np.maximum(at.x - radius, box.left) - x,
        np.minimum(at.x + radius, box.right) - x,
        np.maximum(at.y - radius, box.bottom) - y,
        np.minimum(at.y + radius, box.top) - y,
    )
    drop, step_x, step_y = _lowest(model, reach)
    hoped = at.value - (model.value + drop)
    done = finite & (hoped < _ENOUGH) & stay
    go = np.flatnonzero(finite & ~done)
    tried = replace(best, x=x + step_x, y=y + step_y, value=np.full(x.size, np.inf))
    tried = tried.put(go, Points.of(function, at.which[go], tried.x[go], tried.y[go]))
    gain, step = at.value - tried.value, np.maximum(np.abs(tried.x - at.x), np.abs(tried.y - at.y))
    lower = tried.value < best.value
    best = Points(
        at.which,
        *(np.where(lower, getattr(tried, name), getattr(best, name)) for name in ("x", "y", "value")),
    )
    done |= (np.abs(gain - hoped) < _ENOUGH) & (step < radius)
    good = np.where(
        step >= 0.99 * radius, np.where(gain > 0.75 * hoped, 2 * radius, radius), np.maximum(2 * step, radius / 8)
    )
    bad = np.minimum(radius / 2, np.maximum(step, _LEAST_RADIUS))
    # A stencil that is not finite is too close to the limit at which the student has no tokens.
    return best, np.where(finite, np.where(gain < 0.25 * hoped, bad, good), radius / 2), done


def _model(F: np.ndarray, x: np.ndarray, y: np.ndarray, hx: np.ndarray, hy: np.ndarray) -> Model:
    """Return the quadratic model of values on the stencil (fixed directions: slope 0)."""
    hx, hy = np.where(hx > 0, hx, 1.0), np.where(hy > 0, hy, 1.0)
    here, left, right, below, above, up, down = F.T
    return Model(
        x,
        y,
        here,
        slope_x=(right - left) / (2 * hx),
        slope_y=(above - below) / (2 * hy),
        curvature_x=(right - 2 * here + left) / hx**2,
        curvature_y=(above - 2 * here + below) / hy**2,
        mixed=(up + down - left - right - below - above + 2 * here) / (2 * hx * hy),
    )


def _lowest(m: Model, reach: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the minimum of the model's change over a rectangle, and its position."""
    left, right, bottom, top = reach.left, reach.right, reach.bottom, reach.top
    determinant = np.where(m.curvature_x > 0, m.curvature_x * m.curvature_y - m.mixed**2, np.nan)
    determinant = np.where(determinant > 0, determinant, np.nan)
    curved_x, curved_y = (np.where(c > 0, c, np.nan) for c in (m.curvature_x, m.curvature_y))
    inner_x = (m.mixed * m.slope_y - m.curvature_y * m.slope_x) / determinant
    inner_y = (m.mixed * m.slope_x - m.curvature_x * m.slope_y) / determinant
    places = [(inner_x, inner_y)]
    for y in (bottom, top):
        places += [(-(m.slope_x + m.mixed * y) / curved_x, y), (left, y), (right, y)]
    for x in (left, right):
        places += [(x, -(m.slope_y + m.mixed * x) / curved_y)]
    X, Y = (np.stack(v) for v in zip(*places, strict=True))
    inside = (left <= X) & (right >= X) & (bottom <= Y) & (top >= Y)
    change = m.slope_x * X + m.slope_y * Y + (m.curvature_x * X**2 + m.curvature_y * Y**2) / 2 + m.mixed * X * Y
    change = np.where(inside, change, np.inf)
    k, rows = change.argmin(axis=0), np.arange(change.shape[1])
    return change[k, rows], X[k, rows], Y[k, rows]
