"""Losses and strategies of many draws at a time, in loops that become vector instructions.

Loops over draws have the fixed length LANES, which leaves no remainder, so that the result of a draw does not depend on which
other draws are computed beside it. What is the same for all draws comes as tuples: the task (kind of curve, F(N_S), delta_lgt,
delta_pre) and the room (logarithms of the four bounds on the teacher, the bounds themselves, the cap on student tokens, and
the coefficients k1 and k2 of F). What differs between them stands in rows of arrays between short loops without branches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesdistill.strategies.compiled import (
    block,
    distilled_loss_from_terms,
    exp,
    inlined,
    kernel,
    log_student_term,
    own_scale,
    scaling_sum,
    student_cost_per_token,
    supervised_loss,
    teacher_cost,
)
from bayesdistill.strategies.old_formulas import EXTENSION_PARAMETERS, LAW_PARAMETERS
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
"""Draws of a loop."""
PARAMETERS = (*LAW_PARAMETERS, *EXTENSION_PARAMETERS)
"""First rows of an array of draws."""
_E, _A, _B, _ALPHA, _BETA, _GAMMA, _A_S, _B_S, _ALPHA_S, _BETA_S, _GAMMA_S, _C0, _C1, _D1, _F1, _W1, _KAPPA, _OMEGA = (
    range(18)
)
# Then the budget, and what the student's size adds to the sums in both laws.
_BUDGET, _SIZE_TERM, _SIZE_TERM_S = 18, 19, 20
ROWS = 21
"""Rows of an array of draws."""

FIELDS = 5
"""Rows of an array of strategies."""
LOSS, PARAMS, TOKENS, TEACHER, OWN = range(FIELDS)
"""The student's loss, the teacher's size, tokens and loss, and the student's tokens."""

_X, _SIZE, _FLOPS, _SLOPE, _BASE, _CURVE = range(6)


@inlined
def affordable_tokens(budget: Any, student_flops: Any, flops: Any, tokens: Any, lgt: Any, pre: Any, cap: Any) -> Any:
    """Student tokens that are left of the budget once the teacher is paid; negative if it cannot be."""
    left = budget - teacher_cost(flops, tokens, pre)
    return min(left / student_cost_per_token(student_flops, flops, lgt), cap)


@inlined
def set_student(G: Any, i: Any, student: Any) -> None:
    """Store what the student's size does to both laws of draw i: the first term of their sums."""
    G[_SIZE_TERM, i] = scaling_sum(student, np.inf, G[_A, i], G[_B, i], G[_ALPHA, i], G[_BETA, i])
    G[_SIZE_TERM_S, i] = scaling_sum(student, np.inf, G[_A_S, i], G[_B_S, i], G[_ALPHA_S, i], G[_BETA_S, i])


@inlined
def teacher_loss_at(G: Any, i: Any, params: Any, tokens: Any) -> Any:
    """The teacher's loss under draw i."""
    return supervised_loss(
        params, tokens, E=G[_E, i], A=G[_A, i], B=G[_B, i], alpha=G[_ALPHA, i], beta=G[_BETA, i], gamma=G[_GAMMA, i]
    )


@inlined
def own_loss(G: Any, i: Any, tokens: Any) -> Any:
    """Loss of the student pretrained on so many tokens.

    The laws are asked about a student of one parameter, whose sums begin with what `set_student` stored.
    """
    return supervised_loss(
        1.0, tokens, E=G[_E, i], A=G[_SIZE_TERM, i], B=G[_B, i], alpha=0.0, beta=G[_BETA, i], gamma=G[_GAMMA, i]
    )


@inlined
def student_parts(G: Any, i: Any, tokens: Any) -> Any:
    """What the law asks of the student: its excess, its own loss, its ability, and how it stretches r."""
    term = log_student_term(
        1.0, tokens, A_S=G[_SIZE_TERM_S, i], B_S=G[_B_S, i], alpha_S=0.0, beta_S=G[_BETA_S, i], gamma_S=G[_GAMMA_S, i]
    )
    log_ability, stretch, log_above = own_scale(own_loss(G, i, G[_KAPPA, i] * tokens), G[_OMEGA, i] * G[_E, i])
    return term - G[_C0, i] * log_above, own_loss(G, i, tokens), log_ability, stretch


@inlined
def loss_of_parts(
    G: Any, i: Any, own: Any, excess: Any, alone: Any, log_ability: Any, stretch: Any, teacher: Any
) -> Any:
    """The student's loss under draw i; infinite for less than one token."""
    loss = distilled_loss_from_terms(
        excess,
        alone,
        log_ability,
        stretch,
        teacher,
        c0=G[_C0, i],
        c1=G[_C1, i],
        d1=G[_D1, i],
        f1=G[_F1, i],
        w1=G[_W1, i],
    )
    return loss if own >= 1.0 else np.inf


@inlined
def student_loss_at(G: Any, i: Any, own: Any, teacher: Any) -> Any:
    """The student's loss under draw i with so many tokens of its own; infinite for less than one."""
    excess, alone, log_ability, stretch = student_parts(G, i, max(own, 1.0))
    return loss_of_parts(G, i, own, excess, alone, log_ability, stretch, teacher)


@kernel
def set_students(G: Any, student: float) -> None:
    """Store what the student's size does to the laws of all draws, whose number is a multiple of LANES."""
    for start in range(0, G.shape[1], LANES):
        for j in range(LANES):
            set_student(G, start + j, student)


# Points of the curve --------------------------------------------------------------------------------------------------


@block
def _gather(G: Any, budgets: Any, draws: Any, which: Any, start: int, size: int, H: Any) -> None:
    for j in range(LANES):
        m = start + min(j, size - 1)
        H[_BUDGET, j] = budgets[which[m], draws[m]]
    for row in range(ROWS):
        if row != _BUDGET:
            for j in range(LANES):
                H[row, j] = G[row, draws[start + min(j, size - 1)]]


@block
def _sizes(t: Any, room: Any, W: Any) -> None:
    low, high, least, most, k1, k2 = room[0], room[1], room[4], room[5], room[9], room[10]
    for j in range(LANES):
        x = low + min(max(t[j], 0.0), 1.0) * (high - low)
        params = min(max(exp(x), least), most)
        W[_X, j], W[_SIZE, j] = x, params
        W[_FLOPS, j], W[_SLOPE, j] = flops_and_slope(params, k1, k2)


@block
def _uncharged(H: Any, W: Any) -> None:
    for j in range(LANES):
        W[_BASE, j] = log_optimal_tokens(W[_X, j], W[_SLOPE, j], H[_A, j], H[_B, j], H[_ALPHA, j], H[_BETA, j])


@block
def _charged(H: Any, task: Any, cap: float, W: Any) -> None:
    # The cap limits D_S if it is finite, the budget otherwise; what limits it more asks for fewer teacher tokens.
    _, student_flops, lgt, pre = task
    capped, share = cap < np.inf, lgt / (3 * pre)
    for j in range(LANES):
        total = student_cost_per_token(student_flops, W[_FLOPS, j], lgt)
        constant = 1.0 if capped else 3 * student_flops / total
        reach = share * (cap if capped else H[_BUDGET, j] / total)
        W[_CURVE, j] = min(W[_CURVE, j], log_optimal_tokens_charged(W[_BASE, j], H[_BETA, j], constant, reach))


@block
def _teachers(H: Any, t: Any, room: Any, W: Any, tokens: Any, losses: Any) -> None:
    low, high, least, most = room[2], room[3], room[6], room[7]
    for j in range(LANES):
        tokens[j] = min(max(exp(log_teacher_tokens(t[j], W[_CURVE, j], low, high)), least), most)
        losses[j] = teacher_loss_at(H, j, W[_SIZE, j], tokens[j])


@block
def _students(H: Any, task: Any, cap: float, W: Any, tokens: Any, teachers: Any, own: Any, losses: Any) -> None:
    _, student_flops, lgt, pre = task
    for j in range(LANES):
        own[j] = affordable_tokens(H[_BUDGET, j], student_flops, W[_FLOPS, j], tokens[j], lgt, pre, cap)
        losses[j] = student_loss_at(H, j, own[j], teachers[j])


@kernel
def evaluate(G: Any, budgets: Any, draws: Any, which: Any, t: Any, task: Any, room: Any, out: Any) -> None:
    """Fill out[field, m] for draw draws[m] with budget budgets[which[m], draw] at t[m] of its curve."""
    kind, cap = task[0], room[8]
    H, W, E, T = np.empty((ROWS, LANES)), np.empty((6, LANES)), np.empty((FIELDS, LANES)), np.empty(LANES)
    for start in range(0, t.size, LANES):
        size = min(LANES, t.size - start)
        _gather(G, budgets, draws, which, start, size, H)
        for j in range(LANES):
            T[j] = t[start + min(j, size - 1)]
        _sizes(T, room, W)
        if kind != OVERTRAINED:
            _uncharged(H, W)
        for j in range(LANES):
            W[_CURVE, j] = room[3] if kind == OVERTRAINED else (np.inf if kind == BOTH_CHARGED else W[_BASE, j])
        if kind == BOTH_CHARGED:
            _charged(H, task, np.inf, W)
            if cap < np.inf:
                _charged(H, task, cap, W)
        _teachers(H, T, room, W, E[TOKENS], E[TEACHER])
        _students(H, task, cap, W, E[TOKENS], E[TEACHER], E[OWN], E[LOSS])
        for j in range(LANES):
            E[PARAMS, j] = W[_SIZE, j]
        for field in range(FIELDS):
            for j in range(size):
                out[field, start + j] = E[field, j]


# A grid on the curve --------------------------------------------------------------------------------------------------


@block
def _student_row(G: Any, task: Any, cap: float, flops: float, tokens: Any, own: Any, parts: Any) -> None:
    _, student_flops, lgt, pre = task
    for j in range(LANES):
        own[j] = affordable_tokens(G[_BUDGET, j], student_flops, flops, tokens[j], lgt, pre, cap)
        parts[0, j], parts[1, j], parts[2, j], parts[3, j] = student_parts(G, j, max(own[j], 1.0))


@block
def _loss_row(G: Any, own: Any, parts: Any, teachers: Any, losses: Any) -> None:
    for j in range(LANES):
        losses[j] = loss_of_parts(G, j, own[j], parts[0, j], parts[1, j], parts[2, j], parts[3, j], teachers[j])


@kernel
def grid_losses(
    G: Any, budgets: Any, task: Any, room: Any, every: int, flops: Any, tokens: Any, teachers: Any, V: Any
) -> None:
    """Fill V[budget, k, draw] at every so many k, for teachers [k, draw] that do not depend on the budget."""
    H = np.empty((ROWS, LANES))
    own, parts = np.empty(LANES), np.empty((4, LANES))
    for start in range(0, G.shape[1], LANES):
        part = slice(start, start + LANES)
        for row in range(ROWS):
            for j in range(LANES):
                H[row, j] = G[row, start + j]
        for c in range(budgets.shape[0]):
            for j in range(LANES):
                H[_BUDGET, j] = budgets[c, start + j]
            for k in range(0, flops.size, every):
                if k == 0 or task[0] != FREE_TEACHER:
                    _student_row(H, task, room[8], flops[k], tokens[k, part], own, parts)
                _loss_row(H, own, parts, teachers[k, part], V[c, k, part])
