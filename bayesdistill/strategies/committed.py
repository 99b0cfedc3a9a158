"""The strategy that minimises the posterior mean of the student's loss: one teacher and one split for all draws.

With many draws there is no curve that must hold the optimum, because a teacher has another loss under every draw: size and
tokens of the teacher are both free, and D_S is what the budget leaves. The mean loss is smooth in their logarithms. A grid on
some of the draws shows every basin; a trust-region Newton search with second differences goes to the bottom of each, first
on those draws and then on all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesdistill.strategies.best import affordable_tokens, losses_of
from bayesdistill.strategies.compiled import exp, inlined, kernel, log, student_cost_per_token
from bayesdistill.strategies.paths import (
    BOTH_CHARGED,
    OVERTRAINED,
    flops_and_slope,
    log_optimal_tokens_charged,
    log_teacher_tokens,
)


@inlined
def _mean(x: Any, y: Any, P: Any, problem: Any) -> Any:
    student, student_flops, budget, lgt, pre, cap, k1, k2 = problem
    params, tokens = exp(x), exp(y)
    flops = flops_and_slope(params, k1, k2)[0]
    own = affordable_tokens(budget, student_flops, flops, tokens, lgt, pre, cap)
    if not own >= 1.0:
        return np.inf
    n = P.shape[1]
    total = 0.0
    for i in range(n):
        total += losses_of(student, own, params, tokens, P, i)[0]
    return total / n


@kernel
def _evaluate(x: float, y: float, P: Any, problem: Any) -> float:
    return _mean(x, y, P, problem)


@kernel
def _minimise_model(g: Any, H: Any, lower: Any, upper: Any, at: Any) -> float:
    # The least value of g.s + s.H.s/2 over a rectangle: at a stationary point inside, on an edge, or at a corner.
    best = 0.0
    at[0] = at[1] = 0.0
    for case in range(9):
        a, b = case % 3, case // 3
        if a == 2 and b == 2:
            det = H[0] * H[2] - H[1] * H[1]
            if det <= 0:
                continue
            sx = -(H[2] * g[0] - H[1] * g[1]) / det
            sy = -(H[0] * g[1] - H[1] * g[0]) / det
        elif a == 2:
            sy = upper[1] if b else lower[1]
            if H[0] <= 0:
                continue
            sx = -(g[0] + H[1] * sy) / H[0]
        elif b == 2:
            sx = upper[0] if a else lower[0]
            if H[2] <= 0:
                continue
            sy = -(g[1] + H[1] * sx) / H[2]
        else:
            sx = upper[0] if a else lower[0]
            sy = upper[1] if b else lower[1]
        if sx < lower[0] or sx > upper[0] or sy < lower[1] or sy > upper[1]:
            continue
        value = g[0] * sx + g[1] * sy + 0.5 * (H[0] * sx * sx + 2 * H[1] * sx * sy + H[2] * sy * sy)
        if value < best:
            best = value
            at[0], at[1] = sx, sy
    return best


@kernel
def polish(x: float, y: float, value: float, radius: float, P: Any, problem: Any, box: Any) -> Any:
    """Trust-region Newton from a point with that mean loss."""
    F = np.empty((3, 3))
    g, H = np.zeros(2), np.zeros(3)
    lower, upper, at = np.zeros(2), np.zeros(2), np.zeros(2)
    for _ in range(60):
        h = min(max(radius / 2, 2e-3), 0.1)
        hx, hy = min(h, (box[1] - box[0]) / 2), min(h, (box[3] - box[2]) / 2)
        cx = min(max(x, box[0] + hx), box[1] - hx)
        cy = min(max(y, box[2] + hy), box[3] - hy)
        finite = True
        nx, ny, nv = x, y, value
        for a in range(3):
            for b in range(3):
                if (hx == 0 and a != 1) or (hy == 0 and b != 1):
                    F[a, b] = 0.0
                    continue
                px, py = cx + (a - 1) * hx, cy + (b - 1) * hy
                F[a, b] = _mean(px, py, P, problem)
                finite = finite and F[a, b] < np.inf
                if F[a, b] < nv:
                    nx, ny, nv = px, py, F[a, b]
        if not finite:
            x, y, value = nx, ny, nv
            radius /= 2
            if radius < 1e-5:
                break
            continue
        g[:] = 0.0
        H[:] = 0.0
        if hx > 0:
            g[0], H[0] = (F[2, 1] - F[0, 1]) / (2 * hx), (F[2, 1] - 2 * F[1, 1] + F[0, 1]) / hx**2
        if hy > 0:
            g[1], H[2] = (F[1, 2] - F[1, 0]) / (2 * hy), (F[1, 2] - 2 * F[1, 1] + F[1, 0]) / hy**2
        if hx > 0 and hy > 0:
            H[1] = (F[2, 2] - F[2, 0] - F[0, 2] + F[0, 0]) / (4 * hx * hy)
        lower[0], upper[0] = max(x - radius, box[0]) - cx, min(x + radius, box[1]) - cx
        lower[1], upper[1] = max(y - radius, box[2]) - cy, min(y + radius, box[3]) - cy
        predicted = F[1, 1] + _minimise_model(g, H, lower, upper, at)
        mx, my = cx + at[0], cy + at[1]
        mv = _mean(mx, my, P, problem)
        gain, hoped = value - mv, value - predicted
        step = max(abs(mx - x), abs(my - y))
        if mv < nv:
            nx, ny, nv = mx, my, mv
        done = hoped < 1e-11 and value - nv < 1e-11
        x, y, value = nx, ny, nv
        if done and radius <= 0.02:
            break
        if gain < 0.25 * hoped:
            radius = min(radius / 2, max(step, 1e-5))
        elif step >= 0.99 * radius and gain > 0.75 * hoped:
            radius *= 2
        elif step < radius / 2:
            radius = max(2 * step, radius / 8)
        if radius < 1e-5:
            break
    return x, y, value


@inlined
def _curve_point(t: Any, reference: Any, kind: Any, problem: Any, box: Any) -> Any:
    _, student_flops, budget, lgt, pre, cap, k1, k2 = problem
    x = box[0] + min(max(t, 0.0), 1.0) * (box[1] - box[0])
    flops, slope = flops_and_slope(exp(x), k1, k2)
    if kind == OVERTRAINED:
        curve = box[3]
    else:
        curve = reference[0] + reference[1] * log(slope) + reference[2] * x
        if kind == BOTH_CHARGED:
            beta = 1 / reference[1]
            total = student_cost_per_token(student_flops, flops, lgt)
            share = lgt / (3 * pre)
            charged = log_optimal_tokens_charged(curve, beta, 3 * student_flops / total, share * budget / total)
            if cap < np.inf:
                charged = min(charged, log_optimal_tokens_charged(curve, beta, 1.0, share * cap))
            curve = charged
    return x, log_teacher_tokens(t, curve, box[2], box[3])


@kernel
def search_curve(reference: Any, kind: int, P: Any, thin: Any, problem: Any, box: Any, ts: Any) -> Any:
    """The least mean loss along the curve of a law between the draws."""
    values = np.empty(ts.size)
    for k in range(ts.size):
        x, y = _curve_point(ts[k], reference, kind, problem, box)
        values[k] = _mean(x, y, thin, problem)
    best, bt = np.inf, np.nan
    lowest = values.min()
    for k in range(ts.size):
        left = values[k - 1] if k > 0 else np.inf
        right = values[k + 1] if k < ts.size - 1 else np.inf
        if not (values[k] < np.inf and values[k] <= left and values[k] <= right and values[k] < lowest + 0.1):
            continue
        a, m, b = ts[max(k - 1, 0)], ts[k], ts[min(k + 1, ts.size - 1)]
        x, y = _curve_point(m, reference, kind, problem, box)
        fm = _mean(x, y, P, problem)
        for _ in range(40):
            p = m + 0.3819660112501051 * (b - m) if b - m > m - a else m - 0.3819660112501051 * (m - a)
            x, y = _curve_point(p, reference, kind, problem, box)
            fp = _mean(x, y, P, problem)
            if fp < fm:
                if p > m:
                    a = m
                else:
                    b = m
                m, fm = p, fp
            elif p > m:
                b = p
            else:
                a = p
        if fm < best:
            best, bt = fm, m
    x, y = _curve_point(bt, reference, kind, problem, box) if best < np.inf else (np.nan, np.nan)
    return x, y, best


@kernel
def search_plane(P: Any, thin: Any, problem: Any, box: Any, xs: Any, ys: Any, most: int) -> Any:
    """The least mean loss over size and tokens of the teacher."""
    V = np.empty((xs.size + 2, ys.size + 2))
    V[:] = np.inf
    for a in range(xs.size):
        for b in range(ys.size):
            V[a + 1, b + 1] = _mean(xs[a], ys[b], thin, problem)
    best, bx, by = np.inf, np.nan, np.nan
    taken = V.copy()
    spacing = max(xs[1] - xs[0], ys[1] - ys[0])
    for _ in range(most):
        low, la, lb = np.inf, -1, -1
        for a in range(1, xs.size + 1):
            for b in range(1, ys.size + 1):
                v = taken[a, b]
                if v < low and v <= V[a - 1 : a + 2, b - 1 : b + 2].min():
                    low, la, lb = v, a, b
        if la < 0:
            break
        taken[la, lb] = np.inf
        x, y, v = polish(xs[la - 1], ys[lb - 1], low, spacing, thin, problem, box)
        v = _mean(x, y, P, problem)
        if v < best + 1e-3:
            x, y, v = polish(x, y, v, 0.1, P, problem, box)
        if v < best:
            best, bx, by = v, x, y
    return bx, by, best
