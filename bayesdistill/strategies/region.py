"""Teachers that the bounds allow for the chosen strategy, as a region of log parameters and log tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.interpolate import CubicHermiteSpline
from scipy.optimize import brentq

from bayesdistill.strategies.descent import Box
from bayesdistill.strategies.losses import Losses
from bayesdistill.strategies.problems import Bounds
from bayesdistill.strategies.roots import find_roots

_KNOTS = 65  # number of sizes, and of tokens, at which an edge of equal mean loss is computed
_HAIR = 1e-9  # rounding of log tokens
_STEP = 1e-4  # of log tokens and log parameters, for derivatives
_ACCURACY = 1e-13  # of log tokens and log parameters


@dataclass(frozen=True)
class Edge:
    """Log tokens with which the posterior mean of a teacher's loss has a given value, for some of the log sizes."""

    left: float
    right: float
    log_tokens: CubicHermiteSpline


@dataclass(frozen=True)
class Region:
    """Range of log tokens for each log size, and a rectangle that represents it.

    The search for a teacher moves in the rectangle, whose second coordinate goes from the fewest to the most tokens of each size. So
    teachers on the edges of the region are on edges of the rectangle. If the region is a rectangle, the coordinate is log tokens.

    Parameters
    ----------
    bounds : Bounds
    box : Box
        Rectangle of log parameters (left, right) and the second coordinate (bottom, top).
    worst, best : Edge or None
        Where the posterior mean of the teacher's loss is at its upper and lower bound, if this is within the other bounds.
    """

    bounds: Bounds
    box: Box
    worst: Edge | None = None
    best: Edge | None = None

    @classmethod
    def of(cls, losses: Losses, bounds: Bounds) -> Region:
        """Return the region of some bounds, within which there is some teacher."""
        left, right = np.log(bounds.teacher_params)
        if bounds.limit_size_and_tokens_separately:
            return cls(bounds, Box(left, right, *np.log(bounds.teacher_tokens(bounds.teacher_params[0]))))
        worst, best = (
            _edge(losses, bounds, level) if bounds.limit_losses else None
            for level in (bounds.max_teacher_loss, bounds.min_teacher_loss)
        )
        if worst is not None:
            left = max(left, worst.left)
        if best is not None:
            right = min(right, best.right)
        return cls(bounds, Box(left, right, 0.0, _height(bounds, left, right)), worst, best)

    @property
    def corners(self) -> np.ndarray:
        """Log parameters at which the edges may have kinks."""
        b = self.bounds
        found = [v for edge in (self.worst, self.best) if edge is not None for v in (edge.left, edge.right)]
        ratios = (
            (b.min_teacher_tokens, b.min_teacher_tokens_per_param),
            (b.max_teacher_tokens, b.max_teacher_tokens_per_param),
        )
        found += [np.log(tokens / ratio) for tokens, ratio in ratios if 0 < ratio < np.inf]
        return np.unique(np.clip(found, self.box.left, self.box.right))

    def edges(self, x: Any) -> tuple[Any, Any]:
        """Return the fewest and most log tokens of teachers with log parameters x."""
        x = np.clip(x, self.box.left, self.box.right)
        bottom, top = np.log(self.bounds.teacher_tokens(np.exp(x)))
        if self.worst is not None:
            within = (x >= self.worst.left) & (x <= self.worst.right)
            bottom = np.where(within, np.maximum(bottom, self.worst.log_tokens(x)), bottom)
        if self.best is not None:
            within = (x >= self.best.left) & (x <= self.best.right)
            top = np.where(within, np.minimum(top, self.best.log_tokens(x)), top)
        return np.minimum(bottom, top), top

    def log_tokens(self, x: Any, place: Any) -> Any:
        """Return the log tokens of teachers with log parameters x at places along the second coordinate."""
        if self.bounds.limit_size_and_tokens_separately:
            return place
        bottom, top = self.edges(x)
        return bottom + place / self.box.top * (top - bottom)

    def place(self, x: Any, y: Any) -> Any:
        """Return the second coordinate of teachers with log parameters x and log tokens y, or of the nearest that are allowed."""
        bottom, top = self.edges(x)
        if self.bounds.limit_size_and_tokens_separately:
            return np.clip(y, bottom, top)
        return np.clip((y - bottom) / np.maximum(top - bottom, _HAIR), 0.0, 1.0) * self.box.top

    def settle(self, losses: Losses, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return log tokens next to y with which the mean loss is exactly within its bounds."""
        if not self.bounds.limit_losses:
            return y
        limits, loss = np.log(self.bounds.teacher_tokens(np.exp(x))), mean_loss(losses, x, y)
        for level, outside in (
            (self.bounds.max_teacher_loss, loss > self.bounds.max_teacher_loss),
            (self.bounds.min_teacher_loss, loss < self.bounds.min_teacher_loss),
        ):
            if outside.any():
                part = tuple(v[outside] for v in limits)
                y = y.copy()
                y[outside] = _tokens_at(losses, level, x[outside], part)
        return y


def _height(bounds: Bounds, left: float, right: float) -> float:
    """Return the largest range of log tokens of a size."""
    fewest, most = bounds.teacher_tokens(np.exp(np.linspace(left, right, _KNOTS)))
    return float(max(np.log(most / fewest).max(), _HAIR))


def some_teacher(losses: Losses, bounds: Bounds) -> bool:
    """Return whether the mean loss of a teacher within the bounds on size and tokens is within those on losses."""
    sides = zip(bounds.teacher_params, (0, 1), strict=True)
    worst, best = (mean_loss(losses, np.log(size), np.log(bounds.teacher_tokens(size)[side])) for size, side in sides)
    return bool(worst >= bounds.min_teacher_loss and best <= bounds.max_teacher_loss)


def mean_loss(losses: Losses, x: Any, y: Any) -> Any:
    """Return the posterior mean loss of teachers with log parameters x and log tokens y."""
    with np.errstate(all="ignore"):
        return losses.supervised(np.exp(x)[..., None], np.exp(y)[..., None]).mean(axis=-1)


def _edge(losses: Losses, bounds: Bounds, level: float) -> Edge | None:
    """Return the edge on which the mean loss is `level`, if it is within the bounds on sizes and tokens."""
    left, right = np.log(bounds.teacher_params)

    def excess(x: float, side: int) -> float:
        y = np.log(bounds.teacher_tokens(np.exp(x))[side])
        return float(mean_loss(losses, np.asarray(x), y) - level)

    # Losses decrease with the size along the lower and the upper bound on tokens.
    if not (excess(left, 0) > 0 and excess(right, 1) < 0):
        return None
    start = left if excess(left, 1) <= 0 else brentq(excess, left, right, args=(1,), xtol=1e-13)
    end = right if excess(right, 0) >= 0 else brentq(excess, left, right, args=(0,), xtol=1e-13)

    # Knots evenly spaced in size and in tokens, because the edge may be steep at either end.
    every = np.arange(_KNOTS)
    sizes = np.linspace(start, end, _KNOTS)
    bottom, top = np.log(bounds.teacher_tokens(np.exp(sizes)))
    tokens = _tokens_at(losses, level, sizes, (bottom, top))
    middle = np.linspace(tokens[0], tokens[-1], _KNOTS)[1:-1]
    found = find_roots(
        lambda x, k: mean_loss(losses, x, middle[k]) - level, start, end, every[: middle.size], _ACCURACY
    )
    known = np.isfinite(found)
    x, y = np.append(sizes, found[known]), np.append(tokens, middle[known])
    x, first = np.unique(x.round(10), return_index=True)
    y = y[first]
    if x.size == 1:
        x, y = np.array([x[0] - 1, x[0] + 1]), np.repeat(y, 2)
    across, along = (
        mean_loss(losses, x - dx, y - dy) - mean_loss(losses, x + dx, y + dy) for dx, dy in ((_STEP, 0), (0, _STEP))
    )
    along = np.maximum(along, np.finfo(float).tiny)
    # Limited so that tokens decrease with the size between knots, too (Fritsch and Carlson, 1980).
    fall = np.pad(-np.diff(y) / np.diff(x), 1, mode="edge")
    slope = np.fmin(across / along, 3 * np.minimum(fall[:-1], fall[1:]))
    return Edge(float(start), float(end), CubicHermiteSpline(x, y, -slope))


def _tokens_at(losses: Losses, level: float, x: np.ndarray, limits: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the log tokens within limits with which teachers with log parameters x have a mean loss, or the nearest."""

    def excess(y: np.ndarray, which: np.ndarray) -> np.ndarray:
        return np.asarray(mean_loss(losses, x[which], y) - level)

    bottom, top = limits
    worst, best = (excess(y, np.arange(x.size)) for y in limits)
    y = np.where(worst <= 0, bottom, top)
    between = np.flatnonzero((worst > 0) & (best < 0))
    y[between] = find_roots(excess, bottom[between], top[between], between, _ACCURACY)
    return y
