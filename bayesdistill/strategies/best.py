"""The best strategy of every draw: a search along the curve of `paths`, a block of draws at a time.

Along the curve L_T falls, the teacher's charge rises, and with it the excess L_S - L_T. Between two neighbours of a grid L_S can
therefore not be lower than at the weaker teacher by more than what L_T falls between them. That tells which cells of the
grid may hide an optimum lower than the lowest point seen; these cells are divided, and every local minimum that remains and
could be the lowest is followed to its bottom with Brent's method. (An extension of equation 8 whose excess does not rise
along the curve is still searched on the grid and its local minima; it only loses this certificate.)

All loops over draws have the fixed length LANES, which the compiler turns into vector instructions without a remainder, so
that the result of a draw does not depend on which other draws are in its block.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bayesdistill.laws import EXTENSION_PARAMETERS, LAW_PARAMETERS
from bayesdistill.strategies.compiled import (
    block,
    distilled_loss_from_terms,
    exp,
    inlined,
    kernel,
    log_student_term,
    scaling_sum,
    student_cost_per_token,
    supervised_loss,
    teacher_cost,
)
from bayesdistill.strategies.minimum import brent_step, brent_update
from bayesdistill.strategies.paths import (
    BOTH_CHARGED,
    FREE_TEACHER,
    OVERTRAINED,
    flops_and_slope,
    log_optimal_tokens,
    log_optimal_tokens_charged,
    log_teacher_tokens,
)

LANES = 64
"""Draws in a block."""
# Rows of a block: the parameters, the budget, and what the student's size adds to the sums in both laws.
PARAMETERS = (*LAW_PARAMETERS, *EXTENSION_PARAMETERS)
_E, _A, _B, _ALPHA, _BETA, _GAMMA, _A_S, _B_S, _ALPHA_S, _BETA_S, _GAMMA_S, _C0, _C1, _D1, _F1, _W1 = range(
    len(PARAMETERS)
)
_BUDGET, _SIZE_TERM, _SIZE_TERM_S = len(PARAMETERS), len(PARAMETERS) + 1, len(PARAMETERS) + 2
ROWS = len(PARAMETERS) + 3
# Rows of what a point of the curve gives.
FIELDS = 5
_LOSS, _PARAMS, _TOKENS, _TEACHER, _OWN = range(FIELDS)

_TOLERANCE = 1e-7  # in t, where the loss has a flat bottom: its error goes with the square
_TOLERANCE_KINK = 1e-10  # in t, where the cap on student tokens can leave it a kink
_CANNOT, _GENTLY, _STEEPLY = range(3)  # whether a cell may hide a minimum
_STEEP = 8.0  # an excess that grows more than so many times within a cell is steep
_INNER = 7  # points inside a cell that may hide a minimum
_NEGLIGIBLE = 1e-10  # nats
_NO_GAIN = 1e-13  # nats


@inlined
def affordable_tokens(budget: Any, student_flops: Any, flops: Any, tokens: Any, lgt: Any, pre: Any, cap: Any) -> Any:
    """Student tokens that are left of the budget once the teacher is paid; negative if it cannot be."""
    left = budget - teacher_cost(flops, tokens, pre)
    return min(left / student_cost_per_token(student_flops, flops, lgt), cap)


@inlined
def teacher_loss_at(G: Any, i: Any, params: Any, tokens: Any) -> Any:
    """The teacher's loss under draw i."""
    return supervised_loss(
        params, tokens, E=G[_E, i], A=G[_A, i], B=G[_B, i], alpha=G[_ALPHA, i], beta=G[_BETA, i], gamma=G[_GAMMA, i]
    )


@inlined
def set_student(G: Any, i: Any, student: Any) -> None:
    """Store what the student's size does to both laws of draw i: the first term of their sums."""
    G[_SIZE_TERM, i] = scaling_sum(student, np.inf, G[_A, i], G[_B, i], G[_ALPHA, i], G[_BETA, i])
    G[_SIZE_TERM_S, i] = scaling_sum(student, np.inf, G[_A_S, i], G[_B_S, i], G[_ALPHA_S, i], G[_BETA_S, i])


@inlined
def student_parts(G: Any, i: Any, tokens: Any) -> Any:
    """The student's own supervised loss and its term of equation 8; its size is already in the block."""
    alone = supervised_loss(
        1.0, tokens, E=G[_E, i], A=G[_SIZE_TERM, i], B=G[_B, i], alpha=0.0, beta=G[_BETA, i], gamma=G[_GAMMA, i]
    )
    term = log_student_term(
        1.0, tokens, A_S=G[_SIZE_TERM_S, i], B_S=G[_B_S, i], alpha_S=0.0, beta_S=G[_BETA_S, i], gamma_S=G[_GAMMA_S, i]
    )
    return alone, term


@inlined
def student_loss_at(G: Any, i: Any, own: Any, teacher: Any) -> Any:
    """The student's loss under draw i; infinite for less than one token."""
    alone, term = student_parts(G, i, max(own, 1.0))
    loss = distilled_loss_from_terms(
        term, alone, teacher, c0=G[_C0, i], c1=G[_C1, i], d1=G[_D1, i], f1=G[_F1, i], w1=G[_W1, i]
    )
    return loss if own >= 1.0 else np.inf


# What is the same for all draws comes as tuples: the task (kind, F(N_S), delta_lgt, delta_pre), and the room (logarithms of
# the four bounds on the teacher, the bounds themselves, the cap on student tokens, k1, k2). Between the loops stand rows of
# a scratch array: short loops without branches are what the compiler vectorises.
_X, _SIZE, _FLOPS, _SLOPE, _CURVE = range(5)


@block
def _sizes(t: Any, room: Any, W: Any) -> None:
    low, high, least, most, k1, k2 = room[0], room[1], room[4], room[5], room[9], room[10]
    for i in range(LANES):
        x = low + min(max(t[i], 0.0), 1.0) * (high - low)
        params = min(max(exp(x), least), most)
        W[_X, i], W[_SIZE, i] = x, params
        W[_FLOPS, i], W[_SLOPE, i] = flops_and_slope(params, k1, k2)


@block
def _curve(G: Any, task: Any, room: Any, W: Any) -> None:
    kind, student_flops, lgt, pre = task
    cap = room[8]
    if kind == OVERTRAINED:
        W[_CURVE] = room[3]
        return
    for i in range(LANES):
        W[_CURVE, i] = log_optimal_tokens(W[_X, i], W[_SLOPE, i], G[_A, i], G[_B, i], G[_ALPHA, i], G[_BETA, i])
    if kind != BOTH_CHARGED:
        return
    share = lgt / (3 * pre)
    if cap < np.inf:
        for i in range(LANES):
            total = student_cost_per_token(student_flops, W[_FLOPS, i], lgt)
            curve = W[_CURVE, i]
            left = log_optimal_tokens_charged(
                curve, G[_BETA, i], 3 * student_flops / total, share * G[_BUDGET, i] / total
            )
            W[_CURVE, i] = min(left, log_optimal_tokens_charged(curve, G[_BETA, i], 1.0, share * cap))
    else:
        for i in range(LANES):
            total = student_cost_per_token(student_flops, W[_FLOPS, i], lgt)
            W[_CURVE, i] = log_optimal_tokens_charged(
                W[_CURVE, i], G[_BETA, i], 3 * student_flops / total, share * G[_BUDGET, i] / total
            )


@block
def _teachers(G: Any, t: Any, room: Any, W: Any, tokens: Any, teacher: Any) -> None:
    low, high, least, most = room[2], room[3], room[6], room[7]
    for i in range(LANES):
        tokens[i] = min(max(exp(log_teacher_tokens(t[i], W[_CURVE, i], low, high)), least), most)
        teacher[i] = teacher_loss_at(G, i, W[_SIZE, i], tokens[i])


@block
def evaluate(G: Any, t: Any, task: Any, room: Any, W: Any, out: Any) -> None:
    """Losses and strategy of every draw of a block at its own t."""
    _, student_flops, lgt, pre = task
    cap = room[8]
    _sizes(t, room, W)
    _curve(G, task, room, W)
    _teachers(G, t, room, W, out[_TOKENS], out[_TEACHER])
    for i in range(LANES):
        own = affordable_tokens(G[_BUDGET, i], student_flops, W[_FLOPS, i], out[_TOKENS, i], lgt, pre, cap)
        out[_OWN, i] = own
        out[_LOSS, i] = student_loss_at(G, i, own, out[_TEACHER, i])
        out[_PARAMS, i] = W[_SIZE, i]


@block
def _grid_row(G: Any, t: Any, task: Any, room: Any, W: Any, teacher: Any, cost: Any) -> None:
    # Loss and charge of the teachers of all draws at one t.
    pre = task[3]
    _curve(G, task, room, W)
    _teachers(G, t, room, W, cost, teacher)
    for i in range(LANES):
        cost[i] = teacher_cost(W[_FLOPS, i], cost[i], pre)


@block
def _loss_row(G: Any, per_token: Any, cap: Any, teacher: Any, cost: Any, loss: Any) -> None:
    for i in range(LANES):
        own = min((G[_BUDGET, i] - cost[i]) / per_token, cap)
        loss[i] = student_loss_at(G, i, own, teacher[i])


@block
def _student_row(G: Any, per_token: Any, cap: Any, alone: Any, term: Any) -> None:
    for i in range(LANES):
        own = min(G[_BUDGET, i] / per_token, cap)
        alone[i], term[i] = student_parts(G, i, max(own, 1.0))
        term[i] = term[i] if own >= 1.0 else np.inf


@block
def _free_row(G: Any, alone: Any, term: Any, teacher: Any, loss: Any) -> None:
    for i in range(LANES):
        loss[i] = distilled_loss_from_terms(
            term[i], alone[i], teacher[i], c0=G[_C0, i], c1=G[_C1, i], d1=G[_D1, i], f1=G[_F1, i], w1=G[_W1, i]
        )


@block
def _student_block(G: Any, student: Any) -> None:
    for i in range(LANES):
        set_student(G, i, student)


@block
def _gather(G: Any, lanes: Any, count: int, into: Any) -> None:
    for row in range(ROWS):
        for j in range(LANES):
            into[row, j] = G[row, lanes[min(j, count - 1)]]


@block
def _propose(S: Any, t: Any, smooth: bool) -> int:
    # The next point of every lane; how many lanes are not done.
    active = 0
    tolerance = _TOLERANCE if smooth else _TOLERANCE_KINK
    enough = _NO_GAIN if smooth else -1.0
    for i in range(LANES):
        t[i], S[8, i], S[9, i] = brent_step(
            S[0, i], S[1, i], S[2, i], S[3, i], S[4, i], S[5, i], S[6, i], S[7, i], S[8, i], S[9, i], tolerance, enough
        )
        active += 0 if t[i] == S[2, i] else 1
    return active


@block
def _accept(S: Any, t: Any, value: Any) -> None:
    for i in range(LANES):
        S[0, i], S[1, i], S[2, i], S[3, i], S[4, i], S[5, i], S[6, i], S[7, i] = brent_update(
            S[0, i], S[1, i], S[2, i], S[3, i], S[4, i], S[5, i], S[6, i], S[7, i], t[i], value[i]
        )


@inlined
def _may_hide(fa: Any, la: Any, fb: Any, lb: Any, lowest: Any) -> Any:
    # Whether the loss may fall below `lowest` between a weaker teacher a and a stronger one b. It cannot fall from a by more
    # than L_T does. And where L_T and the excess are nearly exponential between the two, as they are unless the cell is
    # wide, it cannot sag below the chord by more than an eighth of what each rises times what its logarithm rises; a sixth
    # leaves room for the excess to be a little less regular than that.
    if not fa - (la - lb) < lowest - _NEGLIGIBLE:
        return _CANNOT
    ea, eb = fa - la, fb - lb
    if not (ea > 0 and eb > ea and eb < _STEEP * ea):
        return _STEEPLY
    sag = (eb - ea) ** 2 / math.sqrt(ea * eb) + (la - lb) ** 2 / lb
    return _GENTLY if min(fa, fb) - sag / 6 < lowest - _NEGLIGIBLE else _CANNOT


@block
def _divide(V: Any, L: Any, ts: Any, lanes: Any, points: Any, first: Any) -> int:
    # The midpoints of cells that may hide a lower value; first[k, i] is the place of that of cell k in the list, or -1.
    count = 0
    for i in range(LANES):
        # An end of the curve that has no length, because the tokens are at their bound there already, is no place to look.
        for k in range(ts.size):
            if (ts[k] < 0 and L[k, i] == L[k + 1, i]) or (ts[k] > 1 and L[k, i] == L[k - 1, i]):
                V[k, i] = np.inf
        lowest = np.inf
        for k in range(ts.size):
            lowest = min(lowest, V[k, i])
        for k in range(ts.size - 1):
            first[k, i] = -1
            if _may_hide(V[k, i], L[k, i], V[k + 1, i], L[k + 1, i], lowest) != _CANNOT:
                first[k, i] = count
                lanes[count] = i
                points[count] = 0.5 * (ts[k] + ts[k + 1])
                count += 1
    return count


@block
def _minima(
    V: Any,
    L: Any,
    ts: Any,
    points: Any,
    first: Any,
    more: Any,
    best: Any,
    lanes: Any,
    brackets: Any,
    cells: Any,
    cell_lanes: Any,
) -> Any:
    # The lowest value of each draw on the grid with its midpoints; brackets of the local minima that may go below it; and
    # the cells that may hide another.
    count = deep = 0
    for i in range(LANES):
        lowest, at = np.inf, np.nan
        for k in range(ts.size):
            if V[k, i] < lowest:
                lowest, at = V[k, i], ts[k]
            if k < ts.size - 1 and first[k, i] >= 0 and more[0, first[k, i]] < lowest:
                lowest, at = more[0, first[k, i]], points[first[k, i]]
        best[0, i], best[1, i] = lowest, at
        if not lowest < np.inf:
            continue
        ta, fa, la = ts[0], np.inf, np.inf
        tm, fm, lm = ts[0], V[0, i], L[0, i]
        k, half = 0, False
        while k < ts.size:
            if not half and k < ts.size - 1 and first[k, i] >= 0:
                tb, fb, lb = points[first[k, i]], more[0, first[k, i]], more[1, first[k, i]]
                half = True
            else:
                k, half = k + 1, False
                if k < ts.size:
                    tb, fb, lb = ts[k], V[k, i], L[k, i]
                else:
                    tb, fb, lb = tm, np.inf, lm
            if fm < np.inf and fm < fa and fm <= fb:
                floor = min(fm - (lm - lb), fa - (la - lm) if fa < np.inf else np.inf)
                if tm == at or floor < lowest - _NEGLIGIBLE:
                    lanes[count] = i
                    brackets[0, count], brackets[1, count], brackets[2, count] = ta, tm, tb
                    brackets[3, count], brackets[4, count], brackets[5, count] = fa, fm, fb
                    count += 1
            hides = _may_hide(fm, lm, fb, lb, lowest) if fm < np.inf else _CANNOT
            if hides == _STEEPLY or (hides == _GENTLY and tm != at and tb != at):
                cell_lanes[deep] = i
                cells[0, deep], cells[1, deep], cells[2, deep], cells[3, deep] = tm, tb, fm, fb
                deep += 1
            ta, fa, la = tm, fm, lm
            tm, fm, lm = tb, fb, lb
    return count, deep


@block
def _search_cells(
    G: Any,
    H: Any,
    cells: Any,
    cell_lanes: Any,
    deep: int,
    task: Any,
    room: Any,
    W: Any,
    t: Any,
    E: Any,
    lanes: Any,
    brackets: Any,
    count: int,
) -> int:
    # The local minima inside cells, seen on a grid within each, are added to the brackets.
    own, inner, values = np.empty(LANES, np.int64), np.empty(LANES), np.empty(_INNER + 2)
    per_round = LANES // _INNER
    start = 0
    while start < deep:
        number = min(per_round, deep - start)
        for j in range(number):
            a, b = cells[0, start + j], cells[1, start + j]
            for q in range(_INNER):
                own[j * _INNER + q] = cell_lanes[start + j]
                inner[j * _INNER + q] = a + (b - a) * (q + 1) / (_INNER + 1)
        _gather(G, own, number * _INNER, H)
        for j in range(LANES):
            t[j] = inner[min(j, number * _INNER - 1)]
        evaluate(H, t, task, room, W, E)
        for j in range(number):
            a, b = cells[0, start + j], cells[1, start + j]
            step = (b - a) / (_INNER + 1)
            values[0], values[_INNER + 1] = cells[2, start + j], cells[3, start + j]
            values[1 : _INNER + 1] = E[_LOSS, j * _INNER : (j + 1) * _INNER]
            for q in range(1, _INNER + 1):
                if values[q] < values[q - 1] and values[q] <= values[q + 1]:
                    lanes[count] = cell_lanes[start + j]
                    brackets[0, count], brackets[1, count], brackets[2, count] = (
                        a + (q - 1) * step,
                        a + q * step,
                        a + (q + 1) * step,
                    )
                    brackets[3, count], brackets[4, count], brackets[5, count] = values[q - 1], values[q], values[q + 1]
                    count += 1
        start += number
    return count


@block
def _descend(
    G: Any,
    H: Any,
    lanes: Any,
    brackets: Any,
    count: int,
    task: Any,
    room: Any,
    S: Any,
    t: Any,
    W: Any,
    E: Any,
    best: Any,
) -> None:
    start = 0
    while start < count:
        size = min(LANES, count - start)
        _gather(G, lanes[start:], size, H)
        for j in range(LANES):
            m = start + min(j, size - 1)
            fa, fb = brackets[3, m], brackets[5, m]
            a, b = brackets[0, m], brackets[2, m]
            S[0, j], S[1, j], S[2, j], S[5, j] = a, b, brackets[1, m], brackets[4, m]
            S[3, j], S[6, j], S[4, j], S[7, j] = (a, fa, b, fb) if fa < fb else (b, fb, a, fa)
            S[8, j] = S[9, j] = b - a
        for _ in range(60):
            if _propose(S, t, room[8] == np.inf) == 0:
                break
            evaluate(H, t, task, room, W, E)
            _accept(S, t, E[_LOSS])
        for j in range(size):
            i = lanes[start + j]
            if S[5, j] < best[0, i]:
                best[0, i], best[1, i] = S[5, j], S[2, j]
        start += size


@kernel
def search_block(
    P: Any,
    budgets: Any,
    students: Any,
    students_flops: Any,
    lgts: Any,
    pres: Any,
    kinds: Any,
    room: Any,
    ts: Any,
    out: Any,
) -> None:
    """Fill out[:, student, scenario, budget, draw] with the best strategy of each of LANES draws; NaN where there is none.

    Parameters
    ----------
    P : (16, LANES) array
        Coefficients in the order of PARAMETERS.
    budgets : (n_budgets, LANES) array
    students, students_flops : (n_students,) arrays
        N_S and F(N_S).
    lgts, pres, kinds : (n_scenarios,) arrays
        Shares, and the kind of curve they ask for.
    room : tuple
        Logarithms of the bounds on the teacher, the bounds, the cap on student tokens, and the coefficients k1, k2.
    ts : (n,) array
        Where the curve is looked at first.
    out : (5, n_students, n_scenarios, n_budgets, LANES) array
        Filled with loss, teacher size, teacher tokens, teacher loss and student tokens.
    """
    low, high, cap, k1, k2 = room[0], room[1], room[8], room[9], room[10]
    n = ts.size
    G, H = np.empty((ROWS, LANES)), np.empty((ROWS, LANES))
    G[:_BUDGET] = P
    L, cost, V = np.empty((n, LANES)), np.empty((n, LANES)), np.empty((n, LANES))
    first = np.empty((n, LANES), np.int64)
    # At most every grid point and midpoint of every draw is a minimum or the start of a cell, and a cell holds few minima.
    most = 2 * n * LANES
    lanes, points, more = np.empty(most, np.int64), np.empty(most), np.empty((2, most))
    cells, cell_lanes = np.empty((4, most)), np.empty(most, np.int64)
    places, brackets = np.empty(most * (_INNER + 1) // 2, np.int64), np.empty((6, most * (_INNER + 1) // 2))
    S, t, E, best = np.empty((10, LANES)), np.empty(LANES), np.empty((FIELDS, LANES)), np.empty((2, LANES))
    alone, term = np.empty(LANES), np.empty(LANES)
    W, sizes = np.empty((5, LANES)), np.empty((4, n))
    for k in range(n):
        sizes[0, k] = low + min(max(ts[k], 0.0), 1.0) * (high - low)
        sizes[1, k] = min(max(exp(sizes[0, k]), room[4]), room[5])
        sizes[2, k], sizes[3, k] = flops_and_slope(sizes[1, k], k1, k2)
    for s in range(lgts.size):
        kind, lgt, pre = kinds[s], lgts[s], pres[s]
        for a in range(students.size):
            task = (kind, students_flops[a], lgt, pre)
            _student_block(G, students[a])
            for c in range(budgets.shape[0]):
                G[_BUDGET] = budgets[c]
                if kind == BOTH_CHARGED or (a == 0 and c == 0):
                    for k in range(n):
                        t[:] = ts[k]
                        W[_X], W[_SIZE], W[_FLOPS], W[_SLOPE] = sizes[0, k], sizes[1, k], sizes[2, k], sizes[3, k]
                        _grid_row(G, t, task, room, W, L[k], cost[k])
                if kind == FREE_TEACHER:
                    _student_row(G, student_cost_per_token(students_flops[a], 0.0, 0.0), cap, alone, term)
                    for k in range(n):
                        _free_row(G, alone, term, L[k], V[k])
                else:
                    for k in range(n):
                        _loss_row(
                            G, student_cost_per_token(students_flops[a], sizes[2, k], lgt), cap, L[k], cost[k], V[k]
                        )
                count = _divide(V, L, ts, lanes, points, first)
                start = 0
                while start < count:
                    size = min(LANES, count - start)
                    _gather(G, lanes[start:], size, H)
                    for j in range(LANES):
                        t[j] = points[start + min(j, size - 1)]
                    evaluate(H, t, task, room, W, E)
                    more[0, start : start + size] = E[_LOSS, :size]
                    more[1, start : start + size] = E[_TEACHER, :size]
                    start += size
                count, deep = _minima(V, L, ts, points, first, more, best, places, brackets, cells, cell_lanes)
                if deep > 0:
                    count = _search_cells(G, H, cells, cell_lanes, deep, task, room, W, t, E, places, brackets, count)
                _descend(G, H, places, brackets, count, task, room, S, t, W, E, best)
                for i in range(LANES):
                    t[i] = best[1, i] if best[0, i] < np.inf else 0.0
                evaluate(G, t, task, room, W, E)
                for i in range(LANES):
                    for field in range(FIELDS):
                        out[field, a, s, c, i] = E[field, i] if best[0, i] < np.inf else np.nan
