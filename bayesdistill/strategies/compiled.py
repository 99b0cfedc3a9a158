"""The laws and the compute model, compiled by numba for the inner loops of the search.

A formula stands once, in `laws` or `compute`. `_copy` takes the function that stands there, replaces the names of the
math namespace that it looks up by the ones below, and compiles the copy; `tests/test_strategies.py` evaluates both on the
same points. The exponential and the logarithm are written in plain arithmetic here, because a loop over draws that calls
the C library for them cannot be turned into vector instructions by the compiler, and one without such calls is.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba import types as numba_types
from numba.extending import intrinsic

from bayesdistill import compute
from bayesdistill.files import digest_of_sources
from bayesdistill.strategies import old_formulas as laws

# Without Python's checks for division by zero, which are branches, and without the GIL.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}
# A product and a sum may become one instruction; nothing that reorders sums or assumes finite numbers is on.
_FUSED: dict[str, Any] = {"fastmath": {"contract"}}


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a small function into whichever kernel calls it."""
    return njit(forceinline=True, **_OPTIONS, **_FUSED)(function)


def plain_inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same without fused instructions."""
    return njit(forceinline=True, **_OPTIONS)(function)


def block(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop over draws that stands by itself, which is the form in which the compiler vectorises it."""
    return njit(**_OPTIONS, **_FUSED)(function)


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that Python calls, and keep the machine code on disk.

    Which products and sums are fused may differ between vector instructions and the remainder of a loop: a loop over draws
    whose results must not depend on their places has a fixed length.
    """
    return _cached(function, **_OPTIONS, **_FUSED)


def plain_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same without fused instructions, for loops of any length."""
    return _cached(function, **_OPTIONS)


def _cached(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    # numba renews its file when the source file of the function changes, but not when a function changes that was compiled
    # into it from another file. The stamp of all the sources in the name of the cache file does that.
    stamp = digest_of_sources("compute.py", "strategies")[:12]
    function.__qualname__ = f"{function.__qualname__}_{stamp}"
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        # Neither the package's folder nor the user's cache folder can be written: compile anew in every process.
        return njit(**options)(function)


# Exponential and logarithm ------------------------------------------------------------------------------------------


def _bitcast(signature: Any, target: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(target))

    return signature, generate


def _as_bits(typing_context: Any, value: Any) -> Any:
    return _bitcast(numba_types.int64(numba_types.float64), numba_types.int64)


def _as_float(typing_context: Any, value: Any) -> Any:
    return _bitcast(numba_types.float64(numba_types.int64), numba_types.float64)


_bits_of_float: Any = intrinsic(_as_bits)
_float_of_bits: Any = intrinsic(_as_float)

_LN2 = math.log(2)
_LN2_HIGH = 6.93147180369123816490e-01  # ln 2 to 33 bits: exact when multiplied by an exponent
_LN2_LOW = 1.9082149292705877e-10  # ln 2 - _LN2_HIGH
_ROUND = 1.5 * 2.0**52  # adding it leaves the nearest integer in the low bits
_TWO52 = 2.0**52
_BITS_OF_TWO52 = 0x4330000000000000
_BITS_OF_ONE = 0x3FF0000000000000
_BITS_OF_ROOT_HALF = 0x3FE6A09E667F3BCD
_MANTISSA_OFFSET = _BITS_OF_ONE - _BITS_OF_ROOT_HALF


@inlined
def exp(x: Any) -> Any:
    """e^x to 2 units in the last place for -708 < x < 709, beyond which it stays what it is there (3e-308 and 8e307).

    x = n ln 2 + t with |t| < 0.35: the Taylor series of e^t to the 13th power, summed in groups that do not wait for one
    another, and n into the exponent bits.
    """
    # In this order the comparisons let NaN through.
    inside = 709.0 if x > 709.0 else x
    inside = -708.0 if inside < -708.0 else inside
    shifted = inside * (1 / _LN2) + _ROUND
    n = shifted - _ROUND
    t = inside - n * _LN2_HIGH - n * _LN2_LOW
    t2 = t * t
    t4 = t2 * t2
    low = (1 + t) + t2 * (1 / 2 + t * (1 / 6))
    middle = (1 / 24 + t * (1 / 120)) + t2 * (1 / 720 + t * (1 / 5040))
    high = (1 / 40320 + t * (1 / 362880)) + t2 * (1 / 3628800 + t * (1 / 39916800))
    highest = 1 / 479001600 + t * (1 / 6227020800)
    series = low + t4 * (middle + t4 * (high + t4 * highest))
    return _float_of_bits(_bits_of_float(series) + (_bits_of_float(shifted) << 52))


@inlined
def log(x: Any) -> Any:
    """Natural logarithm of a positive number to 2 units in the last place; -708 or less for what is below 2.3e-308.

    x = 2^n m with m between sqrt(1/2) and sqrt(2): log m = 2 artanh s with s = (m - 1)/(m + 1), as a series in s^2.
    """
    bits = _bits_of_float(x)
    exponent = ((bits + _MANTISSA_OFFSET) >> 52) & 0x7FF
    n = _float_of_bits(exponent | _BITS_OF_TWO52) - (_TWO52 + 1023)
    m = _float_of_bits(bits - ((exponent - 1023) << 52)) - 1
    s = m / (2 + m)
    z = s * s
    z2 = z * z
    z4 = z2 * z2
    low = (1 / 3 + z * (1 / 5)) + z2 * (1 / 7 + z * (1 / 9))
    middle = (1 / 11 + z * (1 / 13)) + z2 * (1 / 15 + z * (1 / 17))
    series = low + z4 * (middle + z4 * (1 / 19 + z * (1 / 21)))
    value = n * _LN2_HIGH + (2 * s + (2 * s * z * series + n * _LN2_LOW))
    return value if x < np.inf else x


@inlined
def log1p(x: Any) -> Any:
    """log(1 + x) of a finite x > -1: the logarithm of the rounded sum, and what the rounding lost."""
    total = 1 + x
    return log(total) + (x - (total - 1)) / total


@inlined
def power(x: Any, exponent: float) -> Any:
    """x > 0 to a power."""
    return exp(exponent * log(x))


# The formulas of laws and compute -----------------------------------------------------------------------------------


def _copy(function: Any, names: dict[str, Any]) -> Callable[..., Any]:
    # Keyword-only arguments become positional ones that may still be passed by keyword: numba mistreats the former.
    code = function.__code__
    code = code.replace(co_argcount=code.co_argcount + code.co_kwonlyargcount, co_kwonlyargcount=0)
    return inlined(types.FunctionType(code, {**function.__globals__, **names}, function.__name__))


_NAMES: dict[str, Any] = {"exp": exp, "log": log, "log1p": log1p, "power": power}
for _function in (
    laws.softplus,
    laws.scaling_sum,
    laws.supervised_loss,
    laws.log_student_term,
    laws.log_gap,
    laws.own_scale,
    laws.log_ratio,
    laws.distilled_loss_from_terms,
    laws.distilled_loss,
    compute.flops_from_coefficients,
    compute.student_cost_per_token,
    compute.teacher_cost,
):
    _NAMES[_function.__name__] = _copy(_function, _NAMES)

scaling_sum = _NAMES["scaling_sum"]
supervised_loss = _NAMES["supervised_loss"]
log_student_term = _NAMES["log_student_term"]
own_scale = _NAMES["own_scale"]
distilled_loss_from_terms = _NAMES["distilled_loss_from_terms"]
distilled_loss = _NAMES["distilled_loss"]
flops_from_coefficients = _NAMES["flops_from_coefficients"]
student_cost_per_token = _NAMES["student_cost_per_token"]
teacher_cost = _NAMES["teacher_cost"]
