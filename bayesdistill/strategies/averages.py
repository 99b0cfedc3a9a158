"""Averages of losses over draws, and the curves on which a committed strategy is sought, in compiled loops.

A problem is a column of the place of its student among the prepared draws, F(N_S), budget, delta_lgt, delta_pre and the kind
of curve. Teachers are given by the logarithms x and y of their size and tokens. `room` is as in `blocks`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesdistill.strategies.blocks import affordable_tokens, set_student, student_loss_at, teacher_loss_at
from bayesdistill.strategies.compiled import exp, inlined, kernel, log, student_cost_per_token
from bayesdistill.strategies.paths import (
    BOTH_CHARGED,
    OVERTRAINED,
    flops_and_slope,
    log_optimal_tokens_charged,
    log_teacher_tokens,
)

_STUDENT, _STUDENT_FLOPS, _BUDGET, _LGT, _PRE, _KIND = range(6)


@inlined
def _average(losses: Any, n: int) -> float:
    # Four sums in a fixed order.
    a = b = c = d = 0.0
    for i in range(0, n - 3, 4):
        a += losses[i]
        b += losses[i + 1]
        c += losses[i + 2]
        d += losses[i + 3]
    for i in range(n - n % 4, n):
        a += losses[i]
    return ((a + b) + (c + d)) / n


@inlined
def _own_tokens(problems: Any, p: int, flops: float, tokens: float, room: Any) -> float:
    return affordable_tokens(
        problems[_BUDGET, p], problems[_STUDENT_FLOPS, p], flops, tokens, problems[_LGT, p], problems[_PRE, p], room[8]
    )


@kernel
def prepare(P: Any, students: Any) -> None:
    """Store in the rows of P[student] what each student's size does to the laws of all draws."""
    for s in range(students.size):
        for i in range(P.shape[2]):
            set_student(P[s], i, students[s])


@kernel
def mean_losses(which: Any, x: Any, y: Any, P: Any, problems: Any, room: Any, means: Any) -> None:
    """The mean loss of teachers, each for one of the problems; infinite where less than a token is left."""
    n = P.shape[2]
    losses = np.empty(n)
    for m in range(which.size):
        p = which[m]
        params, tokens = exp(x[m]), exp(y[m])
        flops, _ = flops_and_slope(params, room[9], room[10])
        own = _own_tokens(problems, p, flops, tokens, room)
        if not own >= 1.0:
            means[m] = np.inf
            continue
        G = P[int(problems[_STUDENT, p])]
        for i in range(n):
            losses[i] = student_loss_at(G, i, own, teacher_loss_at(G, i, params, tokens))
        means[m] = _average(losses, n)


@kernel
def mean_grid(which: Any, x: Any, y: Any, P: Any, table: Any, problems: Any, room: Any, means: Any) -> None:
    """The mean loss, for some problems, of all teachers of a grid, whose losses are in table[x, y, draw]."""
    n = P.shape[2]
    losses = np.empty(n)
    for m in range(which.size):
        p = which[m]
        G = P[int(problems[_STUDENT, p])]
        for a in range(x.size):
            flops, _ = flops_and_slope(exp(x[a]), room[9], room[10])
            for b in range(y.size):
                own = _own_tokens(problems, p, flops, exp(y[b]), room)
                if not own >= 1.0:
                    means[m, a, b] = np.inf
                    continue
                for i in range(n):
                    losses[i] = student_loss_at(G, i, own, table[a, b, i])
                means[m, a, b] = _average(losses, n)


@kernel
def teacher_losses(params: Any, tokens: Any, P: Any, losses: Any) -> None:
    """Fill losses[teacher, draw]."""
    for m in range(params.size):
        for i in range(P.shape[1]):
            losses[m, i] = teacher_loss_at(P, i, params[m], tokens[m])


@kernel
def student_losses(which: Any, own: Any, P: Any, teachers: Any, losses: Any) -> None:
    """Fill losses[strategy, draw] for students which[strategy] with so many tokens and the losses of their teachers."""
    for m in range(which.size):
        G = P[which[m]]
        for i in range(P.shape[2]):
            losses[m, i] = student_loss_at(G, i, own[m], teachers[m, i])


@kernel
def points_on_curve(which: Any, t: Any, reference: Any, problems: Any, room: Any, x: Any, y: Any) -> None:
    """The teachers at t of the curve of `paths`, for a law between the draws.

    `reference` holds averages over the draws of what makes log D_T on the compute-optimal curve: a constant, a factor of the
    logarithm of the slope of F, and one of log N_T.
    """
    for m in range(which.size):
        p = which[m]
        lgt, pre, kind = problems[_LGT, p], problems[_PRE, p], int(problems[_KIND, p])
        x[m] = room[0] + min(max(t[m], 0.0), 1.0) * (room[1] - room[0])
        flops, slope = flops_and_slope(exp(x[m]), room[9], room[10])
        curve = room[3]
        if kind != OVERTRAINED:
            curve = reference[0] + reference[1] * log(slope) + reference[2] * x[m]
        if kind == BOTH_CHARGED:
            beta, share = 1 / reference[1], lgt / (3 * pre)
            total = student_cost_per_token(problems[_STUDENT_FLOPS, p], flops, lgt)
            constant, reach = 3 * problems[_STUDENT_FLOPS, p] / total, share * problems[_BUDGET, p] / total
            left = log_optimal_tokens_charged(curve, beta, constant, reach)
            curve = min(left, log_optimal_tokens_charged(curve, beta, 1.0, share * min(room[8], 1e300)))
        y[m] = log_teacher_tokens(t[m], curve, room[2], room[3])


@kernel
def points_on_crease(which: Any, t: Any, problems: Any, room: Any, x: Any, y: Any) -> None:
    """Teachers with which the budget buys exactly the cap on student tokens, or the nearest within bounds."""
    for m in range(which.size):
        p = which[m]
        student_flops, budget, lgt, pre = (
            problems[_STUDENT_FLOPS, p], problems[_BUDGET, p], problems[_LGT, p], problems[_PRE, p],
        )  # fmt: skip
        if pre > 0:
            x[m] = room[0] + t[m] * (room[1] - room[0])
            flops, _ = flops_and_slope(exp(x[m]), room[9], room[10])
            left = budget - student_cost_per_token(student_flops, flops, lgt) * room[8]
            y[m] = min(max(log(max(left / (3 * pre * flops), 1e-300)), room[2]), room[3])
            continue
        # Without a charge for pretraining the teacher's size alone decides, and its tokens are free.
        low, high = room[0], room[1]
        for _ in range(60):
            middle = 0.5 * (low + high)
            flops, _ = flops_and_slope(exp(middle), room[9], room[10])
            if student_cost_per_token(student_flops, flops, lgt) * room[8] < budget:
                low = middle
            else:
                high = middle
        x[m], y[m] = low, room[2] + t[m] * (room[3] - room[2])
