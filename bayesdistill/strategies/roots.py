"""Roots of many bracketed functions of one variable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import elementwise

_LARGE = 1e6  # replaces infinite values and NaN, which would stop the search


def find_roots(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray], lower: Any, upper: Any, which: Any, tolerance: float
) -> np.ndarray:
    """Return a root of each function between two points with values of different signs.

    Parameters
    ----------
    function : callable
        (points, which) -> values: the functions with indices `which` at `points`, all of shape (n,).
    lower, upper : (n,) array or float
        Ends of the brackets. If a function jumps over 0, its root is the end of the last bracket with a finite value.
    which : (n,) array of int
        Indices of the functions.
    tolerance : float
        Largest error of a root.
    """
    if not np.size(which):
        return np.empty(0)

    def indexed(points: np.ndarray, indices: np.ndarray) -> np.ndarray:
        values = function(points, indices.astype(int))
        return np.where(np.isnan(values), _LARGE, np.clip(values, -_LARGE, _LARGE))

    tolerances = {"xatol": tolerance, "xrtol": 0.0, "fatol": 0.0}
    shape = np.shape(which)
    ends = (np.broadcast_to(lower, shape), np.broadcast_to(upper, shape))
    found: Any = elementwise.find_root(indexed, ends, args=(np.asarray(which),), tolerances=tolerances)  # type: ignore[call-overload]
    left, right = found.bracket
    at_left, at_right = found.f_bracket
    outside = np.abs(found.f_x) >= _LARGE
    return np.where(outside, np.where(np.abs(at_left) < np.abs(at_right), left, right), found.x)
