"""Compare compiled functions with PyTensor's own evaluation of the same graph."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from bayesdistill.compiler.translation import Functions

TOLERANCE = 1e-8
"""Largest accepted relative difference."""

_SCALES = (0.1, 0.3, 1.0)
"""The functions are compared at one random point of each of these standard deviations."""


class DisagreementError(Exception):
    """The compiled functions differ from PyTensor's; the message completes "the LLVM compiler ..."."""


def verify(compiled: Any, functions: Functions) -> float:
    """Compare the log density, its gradient and the variables of a draw with PyTensor's at a few points.

    PyTensor evaluates the graph operation by operation in Python, without compiling it.

    Parameters
    ----------
    compiled : nutpie's compiled model
    functions : Functions
        Holds the graph.

    Returns
    -------
    float
        Largest relative difference. Differences of an array are relative to its Euclidean norm.

    Raises
    ------
    DisagreementError
        If a difference exceeds `TOLERANCE`, or if PyTensor's results are not finite at any of the points.
    """
    expected = _pytensor_function(functions)
    rng = np.random.default_rng(0)
    differences = []
    for scale in _SCALES:
        x = scale * rng.standard_normal(compiled.n_dim)
        results = expected(x)
        if not all(np.isfinite(result).all() for result in results):
            continue
        for found, result in zip(evaluate(compiled, x), results, strict=True):
            # Far from the data, coefficients of the law can be so large that their squares overflow.
            top = float(np.abs(result).max(initial=0.0)) or 1.0
            size = float(np.linalg.norm(result / top))
            differences.append(float(np.linalg.norm(found / top - result / top)) / (size or 1.0))
            if not differences[-1] <= TOLERANCE:
                raise DisagreementError(
                    f"gives results that differ from PyTensor's by {differences[-1]:.1e} (relative)"
                )
    if not differences:
        raise DisagreementError(
            "could not be checked, because the log density is not finite at the points of the check"
        )
    return max(differences)


def evaluate(compiled: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Call the compiled functions as nutpie does.

    Returns
    -------
    tuple of array
        Log density, gradient and draw; NaN where a function reports failure.
    """
    pointer, size = ctypes.c_void_p, ctypes.c_uint64
    density, gradient, draw = (np.full(count, np.nan) for count in (1, x.size, compiled.n_expanded))
    point, data = x.ctypes.data, compiled.user_data.ctypes.data
    logp = ctypes.CFUNCTYPE(ctypes.c_int64, size, pointer, pointer, pointer, pointer)
    expand = ctypes.CFUNCTYPE(ctypes.c_int64, size, size, pointer, pointer, pointer)
    if logp(compiled.compiled_logp_func.address)(x.size, point, gradient.ctypes.data, density.ctypes.data, data):
        density[:] = np.nan
    if expand(compiled.compiled_expand_func.address)(x.size, draw.size, point, draw.ctypes.data, data):
        draw[:] = np.nan
    return density, gradient, draw


def _pytensor_function(functions: Functions) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return PyTensor's log density, gradient and draw as functions of a point."""
    import pytensor
    from pytensor.compile.mode import Mode

    count = len(functions.values)
    shapes = functions.shapes[:count]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    mode = Mode(linker="py", optimizer="None")
    with pytensor.config.change_flags(cxx=""):
        function = pytensor.function(functions.values, functions.results, mode=mode, on_unused_input="ignore")

    def evaluated(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        parts = [part.reshape(shape) for part, shape in zip(np.split(x, ends), shapes, strict=True)]
        with np.errstate(all="ignore"):
            density, *results = (np.ravel(result) for result in function(*parts))
        return density, np.concatenate(results[:count]), np.concatenate([x, *results[count:]])

    return evaluated
