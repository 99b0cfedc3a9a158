"""Brent's method for the minimum of a function of one variable, as single steps without branches.

The caller evaluates the function, so that many minima are sought at a time, one in each lane of a vector. The state is a
bracket a < b and the three best points x, w, v with their values fx <= fw <= fv; `step` and `before` are the last two steps.
"""

from __future__ import annotations

from typing import Any

from bayesdistill.strategies.compiled import inlined

_GOLDEN = 0.3819660112501051
_SHORT_STEP = 1e-4  # after which the slope is known well enough to believe how little there is to gain


@inlined
def brent_step(
    a: Any,
    b: Any,
    x: Any,
    w: Any,
    v: Any,
    fx: Any,
    fw: Any,
    fv: Any,
    step: Any,
    before: Any,
    tolerance: Any,
    enough: Any,
) -> Any:
    """The next point, which is x itself once the minimum is found, and the two steps to store.

    The next point is the vertex of the parabola through the three best points, or a golden section where the parabola is of
    no use. The search is over when the bracket is as narrow as `tolerance`, or when after a short step the parabola promises
    less than `enough`. It stays over: a stored `before` of 0 says so.
    """
    middle = 0.5 * (a + b)
    r = (x - w) * (fx - fv)
    q = (x - v) * (fx - fw)
    p = (x - v) * q - (x - w) * r
    q = 2 * (q - r)
    p = -p if q > 0 else p
    q = abs(q)
    inside = (abs(p) < abs(0.5 * q * before)) & (p > q * (a - x)) & (p < q * (b - x))
    jump = p / q
    gain = abs(0.5 * q * jump * jump / ((x - v) * (x - w) * (w - v)))
    narrow = abs(x - middle) <= 2 * tolerance - 0.5 * (b - a)
    done = (before == 0) | narrow | (inside & (abs(step) < _SHORT_STEP) & (gain < enough))
    toward = tolerance if middle >= x else -tolerance
    landing = x + jump
    jump = toward if (landing - a < 2 * tolerance) | (b - landing < 2 * tolerance) else jump
    reach = a - x if x >= middle else b - x
    jump = jump if inside else _GOLDEN * reach
    least = tolerance if jump > 0 else -tolerance
    landing = x + (jump if abs(jump) >= tolerance else least)
    return x if done else landing, jump, 0.0 if done else (step if inside else reach)


@inlined
def brent_update(a: Any, b: Any, x: Any, w: Any, v: Any, fx: Any, fw: Any, fv: Any, u: Any, fu: Any) -> Any:
    """The state after the function was found to be fu at u; unchanged where u is x."""
    moved = u != x
    better = moved & (fu < fx)
    second = moved & (not better) & ((fu <= fw) | (w == x))
    third = moved & (not better) & (not second) & ((fu <= fv) | (v == x) | (v == w))
    right = u >= x
    new_a = (x if right else a) if better else (u if moved & (not right) else a)
    new_b = (b if right else x) if better else (u if moved & right else b)
    new_v, new_fv = (w, fw) if better | second else ((u, fu) if third else (v, fv))
    new_w, new_fw = (x, fx) if better else ((u, fu) if second else (w, fw))
    new_x, new_fx = (u, fu) if better else (x, fx)
    return new_a, new_b, new_x, new_w, new_v, new_fx, new_fw, new_fv
