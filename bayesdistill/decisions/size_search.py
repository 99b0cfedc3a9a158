"""Search for the sizes that minimize several functions at once, such as the loss at equal cost in each posterior draw.

All functions are evaluated at the same sizes: first on a grid of four sizes per decade, then in the middle of the steps beside each
minimum, until the values at both ends of a step differ by less than a tolerance. So the steps are short where the functions are steep,
as beside sizes that are too expensive. The minimum of the parabola through the best size and its two neighbors, on a log scale, is the
result. A minimum that is narrower than a step of the first grid can be missed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bayesdistill.answers import Codes

SIZES_A_DECADE = 4
_LARGEST_STEP, _SMALLEST_STEP = np.log(10) / 7, np.log(10) / 500
_OF_OTHERS = 10.0  # tolerance of all but the first functions, relative to theirs
SIZE_STATUS = ("ok", "size_at_min", "size_at_max", "impossible")
"""Whether a best size is inside the range of sizes. At its end, sizes outside the range may be better."""
_OK, _AT_MIN, _AT_MAX, _IMPOSSIBLE = range(len(SIZE_STATUS))


def size_grid(low: float, high: float) -> np.ndarray:
    """Return the first grid of sizes between two sizes, which it includes."""
    return np.geomspace(low, high, max(int(np.ceil(np.log10(high / low) * SIZES_A_DECADE)) + 1, 2))


def best_sizes(
    evaluate: Callable[[np.ndarray], np.ndarray], sizes: np.ndarray, tolerance: float, *, refine: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sizes with the smallest values.

    Parameters
    ----------
    evaluate : callable
        Sizes (m,) -> values (m, ..., n); infinite where a size is impossible.
    sizes : (k,) array
        The first sizes, in any order.
    tolerance : float
        Largest difference between values beside a minimum, for the functions that are first along the last axis; ten times as much
        for the others.
    refine : bool
        Whether sizes between those may be best; otherwise, the result is one of them, the first if several are equal.

    Returns
    -------
    sizes, status : (..., n) arrays
        Best sizes, NaN if all are impossible, and their codes of SIZE_STATUS.
    """
    values = evaluate(sizes)
    while refine:
        order = np.argsort(sizes)
        sizes, values = sizes[order], values[order]
        middle = _beside_minima(np.log(sizes), values, tolerance)
        if not middle.size:
            break
        sizes, values = np.append(sizes, np.exp(middle)), np.concatenate([values, evaluate(np.exp(middle))])
    place = values.argmin(axis=0)
    found = _vertices(np.log(sizes), values, place) if refine else sizes[place]
    status = np.select([sizes[place] == sizes.min(), sizes[place] == sizes.max()], [_AT_MIN, _AT_MAX], _OK)
    possible = np.isfinite(values.min(axis=0))
    return np.where(possible, found, np.nan), np.where(possible, status, _IMPOSSIBLE)


def status_codes(status: np.ndarray) -> Codes:
    """Return codes with their names."""
    return Codes(status, SIZE_STATUS)


def _beside_minima(x: np.ndarray, values: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the middle of every step beside a minimum that is long, or over which the values change."""
    most = np.full(values.shape[1:], _OF_OTHERS * tolerance)
    most[..., 0] = tolerance
    possible = np.isfinite(values.min(axis=0))
    flat, most = values[:, possible], most[possible]
    place, each = flat.argmin(axis=0), np.arange(flat.shape[1])
    split = []
    for step in (place - 1, place):
        inside = (step >= 0) & (step < x.size - 1)
        step, one = step[inside], each[inside]
        length, rise = x[step + 1] - x[step], np.abs(flat[step + 1, one] - flat[step, one])
        split.append(step[(length > _LARGEST_STEP) | ((rise > most[one]) & (length > _SMALLEST_STEP))])
    steps = np.unique(np.concatenate(split))
    return (x[steps] + x[steps + 1]) / 2


def _vertices(x: np.ndarray, values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return the sizes of the minima of parabolas through the values at each place and its neighbors."""
    inner = place.clip(1, max(x.size - 2, 1))
    left, middle, right = (np.take_along_axis(values, (inner + step)[None], axis=0)[0] for step in (-1, 0, 1))
    low, high = x[inner] - x[inner - 1], x[inner + 1] - x[inner]
    with np.errstate(all="ignore"):
        rise, fall = (right - middle) / high, (left - middle) / low
        vertex = x[inner] + (fall * high - rise * low) / (2 * (rise + fall))
    usable = (inner == place) & np.isfinite(vertex)
    return np.exp(np.where(usable, vertex.clip(x[inner - 1], x[inner + 1]), x[place]))
