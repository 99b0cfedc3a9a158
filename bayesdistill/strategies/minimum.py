"""Brent's method for the minima of many functions of one variable at a time.

The state of each search is a column: a bracket a < b, the three best points x, w, v with their values fx <= fw <= fv, and the
last two steps. Every search takes its steps by itself; those that are over are left out of the next round. The arithmetic is
compiled without fused instructions, so that a search does not depend on its place among the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bayesdistill.strategies.compiled import plain_kernel

_GOLDEN = 0.3819660112501051
_SHORT_STEP = 1e-4  # after which the slope is known well enough to believe how little there is to gain
_ROUNDS = 80
_A, _B, _X, _W, _V, _FX, _FW, _FV, _STEP, _BEFORE = range(10)


@plain_kernel
def propose(S: Any, tolerance: float, enough: float, t: Any) -> None:
    """The next point of every search, which is x itself once its minimum is found.

    It is the vertex of the parabola through the three best points, or a golden section where the parabola is of no use. The
    search is over when the bracket is as narrow as `tolerance`, or when after a short step the parabola promises less than
    `enough`.
    """
    for i in range(t.size):
        a, b, x, w, v = S[_A, i], S[_B, i], S[_X, i], S[_W, i], S[_V, i]
        fx, fw, fv, step, before = S[_FX, i], S[_FW, i], S[_FV, i], S[_STEP, i], S[_BEFORE, i]
        middle = 0.5 * (a + b)
        r = (x - w) * (fx - fv)
        q = (x - v) * (fx - fw)
        p = (x - v) * q - (x - w) * r
        q = 2 * (q - r)
        p = -p if q > 0 else p
        q = abs(q)
        inside = (abs(p) < abs(0.5 * q * before)) & (p > q * (a - x)) & (p < q * (b - x))
        jump = p / q
        # The lowest point is an end of the interval and the parabola falls beyond it: a short step inside tells whether it stays.
        at_end = ((x == b) & (jump >= 0)) | ((x == a) & (jump <= 0))
        gain = abs(0.5 * q * jump * jump / ((x - v) * (x - w) * (w - v)))
        narrow = abs(x - middle) <= 2 * tolerance - 0.5 * (b - a)
        done = narrow | (inside & (abs(step) < _SHORT_STEP) & (gain < enough))
        toward = tolerance if middle >= x else -tolerance
        landing = x + jump
        jump = toward if (landing - a < 2 * tolerance) | (b - landing < 2 * tolerance) else jump
        reach = a - x if x >= middle else b - x
        jump = jump if inside else (toward if at_end else _GOLDEN * reach)
        least = tolerance if jump > 0 else -tolerance
        landing = x + (jump if abs(jump) >= tolerance else least)
        t[i] = x if done else landing
        S[_BEFORE, i] = step if inside else reach
        S[_STEP, i] = jump


@plain_kernel
def accept(S: Any, t: Any, values: Any) -> None:
    """The state of every search after its function was found to have these values at t."""
    for i in range(t.size):
        x, w, v, fx, fw, fv = S[_X, i], S[_W, i], S[_V, i], S[_FX, i], S[_FW, i], S[_FV, i]
        u, fu = t[i], values[i]
        if fu < fx:
            S[_A if u >= x else _B, i] = x
            S[_V, i], S[_FV, i], S[_W, i], S[_FW, i], S[_X, i], S[_FX, i] = w, fw, x, fx, u, fu
            continue
        S[_B if u >= x else _A, i] = u
        if fu <= fw or w == x:
            S[_V, i], S[_FV, i], S[_W, i], S[_FW, i] = w, fw, u, fu
        elif fu <= fv or v in (x, w):
            S[_V, i], S[_FV, i] = u, fu


def minimise(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray], brackets: np.ndarray, tolerance: float, enough: float
) -> tuple[np.ndarray, np.ndarray]:
    """Minima and their values.

    Parameters
    ----------
    function : callable
        Takes the numbers of some searches and a point for each, and gives the values.
    brackets : (6, n) array
        For each search a <= m <= b and the values there, of which that at m is the lowest; infinite ones are allowed.
    tolerance : float
        Width to which a bracket is narrowed.
    enough : float
        Gain that is not worth a step; negative for functions that may have a kink.
    """
    a, m, b, fa, fm, fb = brackets
    lower = fa < fb
    S = np.stack([a, b, m, *np.where(lower, (a, b), (b, a)), fm, *np.where(lower, (fa, fb), (fb, fa)), b - a, b - a])
    t, value = m.copy(), fm.copy()
    active = np.arange(m.size)
    for _ in range(_ROUNDS):
        u = np.empty(active.size)
        propose(S, tolerance, enough, u)
        going = u != S[_X]
        if not going.all():
            over = active[~going]
            t[over], value[over] = S[_X, ~going], S[_FX, ~going]
            active, S, u = active[going], np.ascontiguousarray(S[:, going]), u[going]
        if not active.size:
            return t, value
        accept(S, u, function(active, u))
    t[active], value[active] = S[_X], S[_FX]
    return t, value
