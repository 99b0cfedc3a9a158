"""Which cells of a grid on the curve may hide a minimum.

Along the curve of `paths` L_T falls, the teacher's charge rises, and with it the excess L_S - L_T. Between two points L_S can
therefore not be lower than at the weaker teacher by more than what L_T falls between them. An extension of equation 8 whose
excess does not rise along the curve is still searched on the grid and its local minima; it only loses this certificate.

V[budget, point, draw] holds the student's losses, NaN where a point was not computed, and L those of the teachers, whose first
axis has length 1 where they do not depend on the budget. Both may have more columns than there are draws.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bayesdistill.strategies.compiled import plain_inlined, plain_kernel

INNER = 7
"""Points inside a cell that may hide a minimum."""
_CANNOT, _GENTLY, _STEEPLY = range(3)  # whether a cell may hide a minimum
_STEEP = 8.0  # an excess that grows more than so many times within a cell is steep
_NEGLIGIBLE = 1e-10  # nats


@plain_inlined
def _may_hide(fa: Any, la: Any, fb: Any, lb: Any, lowest: Any) -> Any:
    # Whether the loss may fall below `lowest` between a weaker teacher a and a stronger one b. It cannot fall from a by more
    # than L_T does. And where L_T and the excess are nearly exponential between the two, as they are unless the cell is
    # wide, it cannot sag below the chord by more than an eighth of what each rises times what its logarithm rises; a sixth
    # leaves room for the excess to be a little less regular than that. The sag is a parabola, 0 at both ends: what is left
    # of it below the lower end is less the steeper the chord.
    if not fa - (la - lb) < lowest - _NEGLIGIBLE:
        return _CANNOT
    ea, eb = fa - la, fb - lb
    if not (ea > 0 and eb > ea and eb < _STEEP * ea):
        return _STEEPLY
    sag = (eb - ea) ** 2 / math.sqrt(ea * eb) + (la - lb) ** 2 / lb
    sag = sag / 6
    left = max(1 - abs(fa - fb) / (4 * sag), 0.0)
    return _GENTLY if min(fa, fb) - sag * left * left < lowest - _NEGLIGIBLE else _CANNOT


@plain_kernel
def drop_empty_ends(V: Any, L: Any, n_draws: int, ts: Any) -> None:
    """Forget the losses on ends of the curve without length, where tokens are at their bound all along."""
    first, last = 0, ts.size - 1
    while ts[first] < 0:
        first += 1
    while ts[last] > 1:
        last -= 1
    for c in range(V.shape[0]):
        teachers = L[min(c, L.shape[0] - 1)]
        for i in range(n_draws):
            if teachers[0, i] == teachers[first, i]:
                for k in range(first):
                    V[c, k, i] = np.nan
            if teachers[ts.size - 1, i] == teachers[last, i]:
                for k in range(last + 1, ts.size):
                    V[c, k, i] = np.nan


@plain_kernel
def divide(V: Any, L: Any, n_draws: int, every: int, draws: Any, which: Any, places: Any) -> int:
    """List the middles of cells of `every` points that may hide a lower value than the lowest known one."""
    count = 0
    n = V.shape[1]
    lowest = np.empty(n_draws)
    for c in range(V.shape[0]):
        teachers = L[min(c, L.shape[0] - 1)]
        for i in range(n_draws):
            lowest[i] = np.inf
        for k in range(n):
            for i in range(n_draws):
                lowest[i] = V[c, k, i] if V[c, k, i] < lowest[i] else lowest[i]
        for a in range(0, n - 1, every):
            b = a + every
            for i in range(n_draws):
                # The first condition of _may_hide, which few cells pass; it is false where an end is not known.
                if (
                    V[c, a, i] - (teachers[a, i] - teachers[b, i]) < lowest[i]
                    and V[c, b, i] == V[c, b, i]
                    and _may_hide(V[c, a, i], teachers[a, i], V[c, b, i], teachers[b, i], lowest[i]) != _CANNOT
                ):
                    draws[count], which[count], places[count] = i, c, a + every // 2
                    count += 1
    return count


@plain_kernel
def list_minima(
    V: Any, L: Any, n_draws: int, every: int, ts: Any, best: Any, places: Any, brackets: Any, cells: Any
) -> Any:
    """Find the lowest known value of each draw and budget, list the brackets of local minima that may go below it, and the
    cells that may hide another.

    `best` takes value and t; `places[0]` and `brackets` draw, budget and the bracket (a, m, b and their values); `places[1]`
    and `cells` draw, budget and the cell (a, b and their values). Inside a cell of `every` points nothing is known unless its
    middle is, because `divide` begins there.
    """
    count = deep = 0
    n, half = ts.size, every // 2
    for c in range(V.shape[0]):
        teachers = L[min(c, L.shape[0] - 1)]
        for i in range(n_draws):
            lowest, at = np.inf, 0
            for first in range(0, n, every):
                whole = first + half >= n or V[c, first + half, i] != V[c, first + half, i]
                for k in range(first, first + 1 if whole else first + every):
                    if V[c, k, i] < lowest:
                        lowest, at = V[c, k, i], k
            best[0, c, i], best[1, c, i] = lowest, ts[at]
            if not lowest < np.inf:
                continue
            a, m = -1, 0
            while V[c, m, i] != V[c, m, i]:
                m += 1
            while m < n:
                b = m + 1
                if m % every == 0 and m + half < n and V[c, m + half, i] != V[c, m + half, i]:
                    b = m + every
                while b < n and V[c, b, i] != V[c, b, i]:
                    b += 1
                fm, lm = V[c, m, i], teachers[m, i]
                if fm < np.inf:
                    ta, fa, la = (ts[a], V[c, a, i], teachers[a, i]) if a >= 0 else (ts[m], np.inf, lm)
                    tb, fb, lb = (ts[b], V[c, b, i], teachers[b, i]) if b < n else (ts[m], np.inf, lm)
                    if fm < fa and fm <= fb:
                        floor = min(fm - (lm - lb), fa - (la - lm) if fa < np.inf else np.inf)
                        if m == at or floor < lowest - _NEGLIGIBLE:
                            places[0, 0, count], places[0, 1, count] = i, c
                            brackets[0, count], brackets[1, count], brackets[2, count] = ta, ts[m], tb
                            brackets[3, count], brackets[4, count], brackets[5, count] = fa, fm, fb
                            count += 1
                    hides = _may_hide(fm, lm, fb, lb, lowest)
                    if hides == _STEEPLY or (hides == _GENTLY and m != at and b != at):
                        places[1, 0, deep], places[1, 1, deep] = i, c
                        cells[0, deep], cells[1, deep], cells[2, deep], cells[3, deep] = ts[m], tb, fm, fb
                        deep += 1
                a, m = m, b
    return count, deep


@plain_kernel
def list_inner_minima(losses: Any, places: Any, brackets: Any, cells: Any, deep: int, count: int) -> int:
    """Append the local minima inside cells, whose inner points have these losses, to the brackets."""
    for m in range(deep):
        a, step = cells[0, m], (cells[1, m] - cells[0, m]) / (INNER + 1)
        for q in range(1, INNER + 1):
            before = losses[m, q - 2] if q > 1 else cells[2, m]
            here = losses[m, q - 1]
            after = losses[m, q] if q < INNER else cells[3, m]
            if here < before and here <= after:
                places[0, 0, count], places[0, 1, count] = places[1, 0, m], places[1, 1, m]
                brackets[0, count], brackets[1, count] = a + (q - 1) * step, a + q * step
                brackets[2, count] = a + (q + 1) * step
                brackets[3, count], brackets[4, count], brackets[5, count] = before, here, after
                count += 1
    return count
