"""The best strategy of every draw: a search along the curve of `paths`, many draws at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesdistill.strategies.compiled import (
    distilled_loss,
    exp,
    inlined,
    kernel,
    student_cost_per_token,
    supervised_loss,
    teacher_cost,
)
from bayesdistill.strategies.paths import (
    BOTH_CHARGED,
    OVERTRAINED,
    flops_and_slope,
    log_optimal_tokens,
    log_optimal_tokens_charged,
    log_teacher_tokens,
)

_GOLDEN = 0.3819660112501051


@inlined
def affordable_tokens(budget: Any, student_flops: Any, flops: Any, tokens: Any, lgt: Any, pre: Any, cap: Any) -> Any:
    """Student tokens that are left of the budget once the teacher is paid; negative if it cannot be."""
    left = budget - teacher_cost(flops, tokens, pre)
    return min(left / student_cost_per_token(student_flops, flops, lgt), cap)


@inlined
def strategy_at(
    t: Any,
    P: Any,
    i: Any,
    kind: Any,
    student_flops: Any,
    budget: Any,
    lgt: Any,
    pre: Any,
    box: Any,
    cap: Any,
    k1: Any,
    k2: Any,
) -> Any:
    """Teacher size, teacher tokens and student tokens at t."""
    log_params = box[0] + min(max(t, 0.0), 1.0) * (box[1] - box[0])
    params = exp(log_params)
    flops, slope = flops_and_slope(params, k1, k2)
    if kind == OVERTRAINED:
        curve = box[3]
    else:
        curve = log_optimal_tokens(log_params, slope, P[1, i], P[2, i], P[3, i], P[4, i])
        if kind == BOTH_CHARGED:
            total = student_cost_per_token(student_flops, flops, lgt)
            share = lgt / (3 * pre)
            charged = log_optimal_tokens_charged(curve, P[4, i], 3 * student_flops / total, share * budget / total)
            if cap < np.inf:
                charged = min(charged, log_optimal_tokens_charged(curve, P[4, i], 1.0, share * cap))
            curve = charged
    tokens = exp(log_teacher_tokens(t, curve, box[2], box[3]))
    return params, tokens, affordable_tokens(budget, student_flops, flops, tokens, lgt, pre, cap)


@inlined
def losses_of(student: Any, student_tokens: Any, params: Any, tokens: Any, P: Any, i: Any) -> Any:
    """The student's and the teacher's loss under draw i."""
    teacher = supervised_loss(
        params, tokens, E=P[0, i], A=P[1, i], B=P[2, i], alpha=P[3, i], beta=P[4, i], gamma=P[5, i]
    )
    return distilled_given_teacher(student, student_tokens, teacher, P, i), teacher


@inlined
def distilled_given_teacher(student: Any, student_tokens: Any, teacher: Any, P: Any, i: Any) -> Any:
    """The student's loss under draw i with a teacher of that loss; infinite for less than one token."""
    loss = distilled_loss(
        student,
        max(student_tokens, 1.0),
        teacher,
        E=P[0, i],
        A=P[1, i],
        B=P[2, i],
        alpha=P[3, i],
        beta=P[4, i],
        gamma=P[5, i],
        A_S=P[6, i],
        B_S=P[7, i],
        alpha_S=P[8, i],
        beta_S=P[9, i],
        gamma_S=P[10, i],
        c0=P[11, i],
        c1=P[12, i],
        d1=P[13, i],
        f1=P[14, i],
    )
    return loss if student_tokens >= 1.0 else np.inf


@kernel
def search_draws(
    P: Any,
    student: float,
    student_flops: float,
    budgets: Any,
    lgt: float,
    pre: float,
    kind: int,
    limits: Any,
    box: Any,
    cap: float,
    k1: float,
    k2: float,
    ts: Any,
    out: Any,
) -> None:
    """Fill out[:, i] with loss, teacher size, tokens and loss, and student tokens; NaN where nothing can be paid."""
    values = np.empty(ts.size)
    for i in range(P.shape[1]):
        lowest = np.inf
        for k in range(ts.size):
            params, tokens, own = strategy_at(ts[k], P, i, kind, student_flops, budgets[i], lgt, pre, box, cap, k1, k2)
            values[k] = losses_of(student, own, params, tokens, P, i)[0]
            lowest = min(lowest, values[k])
        best_value = np.inf
        best_t = np.nan
        for k in range(ts.size):
            value = values[k]
            left = values[k - 1] if k > 0 else np.inf
            right = values[k + 1] if k < ts.size - 1 else np.inf
            if not (value < np.inf and value <= left and value <= right and value < lowest + 0.3):
                continue
            if value < best_value:
                best_value, best_t = value, ts[k]
            a, b = ts[max(k - 1, 0)], ts[min(k + 1, ts.size - 1)]
            x1 = a + _GOLDEN * (b - a)
            x2 = b - _GOLDEN * (b - a)
            f1 = f2 = np.inf
            for step in range(45):
                if step == 0 or f1 == np.inf:
                    params, tokens, own = strategy_at(
                        x1, P, i, kind, student_flops, budgets[i], lgt, pre, box, cap, k1, k2
                    )
                    f1 = losses_of(student, own, params, tokens, P, i)[0]
                if step == 0 or f2 == np.inf:
                    params, tokens, own = strategy_at(
                        x2, P, i, kind, student_flops, budgets[i], lgt, pre, box, cap, k1, k2
                    )
                    f2 = losses_of(student, own, params, tokens, P, i)[0]
                if f1 <= f2:
                    if f1 < best_value:
                        best_value, best_t = f1, x1
                    b, x2, f2 = x2, x1, f1
                    x1, f1 = a + _GOLDEN * (b - a), np.inf
                else:
                    if f2 < best_value:
                        best_value, best_t = f2, x2
                    a, x1, f1 = x1, x2, f2
                    x2, f2 = b - _GOLDEN * (b - a), np.inf
        if best_value < np.inf:
            params, tokens, own = strategy_at(best_t, P, i, kind, student_flops, budgets[i], lgt, pre, box, cap, k1, k2)
            params = min(max(params, limits[0]), limits[1])
            tokens = min(max(tokens, limits[2]), limits[3])
            loss, teacher = losses_of(student, own, params, tokens, P, i)
            out[0, i], out[1, i], out[2, i], out[3, i], out[4, i] = loss, params, tokens, teacher, own
        else:
            out[:, i] = np.nan
