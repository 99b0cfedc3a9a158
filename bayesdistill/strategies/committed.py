"""The strategy that minimises the posterior mean of the student's loss: one teacher and one split for all draws.

With many draws no curve must hold the optimum, because a teacher has another loss under every draw: size and tokens of the
teacher are both free, and D_S is what the budget leaves. Their mean loss is smooth in the logarithms, but for a cap on the
student's tokens, which leaves a crease where the budget buys exactly the cap.

A grid on a few draws shows the basins. A trust-region Newton search with second differences goes to the bottom of each on
those draws, then on more, then on all. Beside it the curve of `paths` is searched for a law between the draws, and the crease
if there is one. Where the teacher costs nothing, teachers of different size and equal loss are nearly equally good; the one on
the curve is then preferred, so that one draw, or many equal ones, give the strategy that is best for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesdistill.strategies.best import affordable_tokens, set_student, student_loss_at, teacher_loss_at
from bayesdistill.strategies.compiled import (
    block,
    exp,
    kernel,
    log,
    student_cost_per_token,
)
from bayesdistill.strategies.minimum import brent_step, brent_update
from bayesdistill.strategies.paths import (
    BOTH_CHARGED,
    OVERTRAINED,
    flops_and_slope,
    log_optimal_tokens_charged,
    log_teacher_tokens,
)

TIE = 1e-7
"""Nats within which two committed strategies count as equally good."""

_ENOUGH = 1e-9  # nats that a further step would gain
_NEAR = 1e-2  # nats by which a basin may seem worse on few draws and still be looked at on all
_BASINS = 6  # looked at on few draws


@block
def prepare(P: Any, student: float) -> None:
    """Store what the student's size does to the laws of all draws."""
    for i in range(P.shape[1]):
        set_student(P, i, student)


@block
def _fill(x: float, y: float, own: float, P: Any, losses: Any) -> None:
    params, tokens = exp(x), exp(y)
    for i in range(P.shape[1]):
        losses[i] = student_loss_at(P, i, own, teacher_loss_at(P, i, params, tokens))


@block
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


@block
def _own_tokens(x: float, y: float, problem: Any, room: Any) -> float:
    student_flops, budget, lgt, pre, _ = problem
    flops, _ = flops_and_slope(exp(x), room[9], room[10])
    return affordable_tokens(budget, student_flops, flops, exp(y), lgt, pre, room[8])


@block
def _mean(x: float, y: float, P: Any, problem: Any, room: Any, losses: Any) -> float:
    own = _own_tokens(x, y, problem, room)
    if not own >= 1.0:
        return np.inf
    _fill(x, y, own, P, losses)
    return _average(losses, P.shape[1])


# One dimension --------------------------------------------------------------------------------------------------------


@block
def _point(t: float, crease: bool, reference: Any, problem: Any, room: Any) -> Any:
    # The teacher at t of the curve of the law between the draws, or of the crease.
    student_flops, budget, lgt, pre, kind = problem
    x0, x1, y0, y1, cap, k1, k2 = room[0], room[1], room[2], room[3], room[8], room[9], room[10]
    if crease and pre == 0:
        # Only the teacher's size decides about D_S: all tokens at the size where the budget buys the cap.
        low, high = x0, x1
        for _ in range(60):
            middle = 0.5 * (low + high)
            total = student_cost_per_token(student_flops, flops_and_slope(exp(middle), k1, k2)[0], lgt)
            low, high = (middle, high) if total * cap < budget else (low, middle)
        return low, y0 + t * (y1 - y0)
    x = x0 + min(max(t, 0.0), 1.0) * (x1 - x0)
    flops, slope = flops_and_slope(exp(x), k1, k2)
    total = student_cost_per_token(student_flops, flops, lgt)
    if crease:
        tokens = (budget - total * cap) / (3 * pre * flops)
        return x, min(max(log(max(tokens, 1e-300)), y0), y1)
    curve = y1
    if kind != OVERTRAINED:
        curve = reference[0] + reference[1] * log(slope) + reference[2] * x
        if kind == BOTH_CHARGED:
            beta, share = 1 / reference[1], lgt / (3 * pre)
            left = log_optimal_tokens_charged(curve, beta, 3 * student_flops / total, share * budget / total)
            if cap < np.inf:
                left = min(left, log_optimal_tokens_charged(curve, beta, 1.0, share * cap))
            curve = left
    return x, log_teacher_tokens(t, curve, y0, y1)


@block
def _mean_at(t: float, crease: bool, reference: Any, P: Any, problem: Any, room: Any, losses: Any) -> float:
    x, y = _point(t, crease, reference, problem, room)
    return _mean(x, y, P, problem, room, losses)


@block
def _descend_line(
    a: float, m: float, b: float, crease: bool, reference: Any, P: Any, problem: Any, room: Any, losses: Any
) -> Any:
    # The minimum near m, where a and b need not be a bracket of it: they are moved out until they are.
    fa = _mean_at(a, crease, reference, P, problem, room, losses)
    fm = _mean_at(m, crease, reference, P, problem, room, losses)
    fb = _mean_at(b, crease, reference, P, problem, room, losses)
    low, high = (0.0, 1.0) if crease else (-1.0, 2.0)
    for _ in range(12):
        if fa < fm and a > low:
            wide = 2 * (m - a)
            b, fb, m, fm = m, fm, a, fa
            a = max(a - wide, low)
            fa = _mean_at(a, crease, reference, P, problem, room, losses)
        elif fb < fm and b < high:
            wide = 2 * (b - m)
            a, fa, m, fm = m, fm, b, fb
            b = min(b + wide, high)
            fb = _mean_at(b, crease, reference, P, problem, room, losses)
        else:
            break
    x, fx = m, fm
    w, fw, v, fv = (a, fa, b, fb) if fa < fb else (b, fb, a, fa)
    if fw < fx:
        x, fx, w, fw = w, fw, x, fx
    step = before = b - a
    for _ in range(60):
        u, step, before = brent_step(a, b, x, w, v, fx, fw, fv, step, before, 1e-8, 1e-12)
        if u == x:
            break
        fu = _mean_at(u, crease, reference, P, problem, room, losses)
        a, b, x, w, v, fx, fw, fv = brent_update(a, b, x, w, v, fx, fw, fv, u, fu)
    return x, fx


@block
def _search_line(
    ts: Any, crease: bool, reference: Any, P: Any, thin: Any, problem: Any, room: Any, losses: Any, values: Any
) -> Any:
    for k in range(ts.size):
        values[k] = _mean_at(ts[k], crease, reference, thin, problem, room, losses)
    lowest = values[: ts.size].min()
    best, at = np.inf, np.nan
    for k in range(ts.size):
        left = values[k - 1] if k > 0 else np.inf
        right = values[k + 1] if k < ts.size - 1 else np.inf
        if values[k] < np.inf and values[k] < left and values[k] <= right and values[k] <= lowest + 2 * _NEAR:
            a, b = ts[max(k - 1, 0)], ts[min(k + 1, ts.size - 1)]
            t, low = _descend_line(a, ts[k], b, crease, reference, thin, problem, room, losses)
            if low <= lowest + _NEAR:
                lowest = min(lowest, low)
                a, b = max(t - 0.01, ts[0]), min(t + 0.01, ts[-1])
                t, low = _descend_line(a, t, b, crease, reference, P, problem, room, losses)
                if low < best:
                    best, at = low, t
    if not best < np.inf:
        return np.nan, np.nan, np.inf
    x, y = _point(at, crease, reference, problem, room)
    return x, y, best


# Two dimensions -------------------------------------------------------------------------------------------------------


@block
def _lowest_of_model(g: Any, H: Any, lower: Any, upper: Any) -> Any:
    # The least value of g.s + s.H.s/2 over a rectangle: at a stationary point inside, on an edge, or at a corner.
    best, bx, by = 0.0, 0.0, 0.0
    for case in range(9):
        a, b = case % 3, case // 3
        sx = upper[0] if a == 1 else lower[0]
        sy = upper[1] if b == 1 else lower[1]
        if a == 2 and b == 2:
            det = H[0] * H[2] - H[1] * H[1]
            if det <= 0 or H[0] <= 0:
                continue
            sx = (H[1] * g[1] - H[2] * g[0]) / det
            sy = (H[1] * g[0] - H[0] * g[1]) / det
        elif a == 2:
            if H[0] <= 0:
                continue
            sx = -(g[0] + H[1] * sy) / H[0]
        elif b == 2:
            if H[2] <= 0:
                continue
            sy = -(g[1] + H[1] * sx) / H[2]
        if sx < lower[0] or sx > upper[0] or sy < lower[1] or sy > upper[1]:
            continue
        value = g[0] * sx + g[1] * sy + 0.5 * (H[0] * sx * sx + 2 * H[1] * sx * sy + H[2] * sy * sy)
        if value < best:
            best, bx, by = value, sx, sy
    return best, bx, by


@block
def _polish(
    x: float, y: float, value: float, radius: float, widest: float, P: Any, problem: Any, room: Any, losses: Any
) -> Any:
    # Trust-region Newton with second differences, inside the bounds, from a point with that mean loss.
    F = np.empty((3, 3))
    g, H = np.zeros(2), np.zeros(3)
    lower, upper = np.zeros(2), np.zeros(2)
    for _ in range(50):
        h = min(max(radius / 2, 2e-3), widest)
        hx, hy = min(h, (room[1] - room[0]) / 2), min(h, (room[3] - room[2]) / 2)
        cx = min(max(x, room[0] + hx), room[1] - hx)
        cy = min(max(y, room[2] + hy), room[3] - hy)
        nx, ny, nv = x, y, value
        finite = True
        for a in range(3):
            for b in range(3):
                px, py = cx + (a - 1) * hx, cy + (b - 1) * hy
                if px == x and py == y:
                    F[a, b] = value
                else:
                    F[a, b] = _mean(px, py, P, problem, room, losses)
                finite = finite and F[a, b] < np.inf
                if F[a, b] < nv:
                    nx, ny, nv = px, py, F[a, b]
        if not finite:
            # Too near to where nothing is left for the student.
            x, y, value, radius = nx, ny, nv, radius / 2
            if radius < 1e-5:
                break
            continue
        g[0] = (F[2, 1] - F[0, 1]) / (2 * hx) if hx > 0 else 0.0
        g[1] = (F[1, 2] - F[1, 0]) / (2 * hy) if hy > 0 else 0.0
        H[0] = (F[2, 1] - 2 * F[1, 1] + F[0, 1]) / hx**2 if hx > 0 else 0.0
        H[2] = (F[1, 2] - 2 * F[1, 1] + F[1, 0]) / hy**2 if hy > 0 else 0.0
        H[1] = (F[2, 2] - F[2, 0] - F[0, 2] + F[0, 0]) / (4 * hx * hy) if hx > 0 and hy > 0 else 0.0
        lower[0], upper[0] = max(x - radius, room[0]) - cx, min(x + radius, room[1]) - cx
        lower[1], upper[1] = max(y - radius, room[2]) - cy, min(y + radius, room[3]) - cy
        drop, sx, sy = _lowest_of_model(g, H, lower, upper)
        hoped = value - (F[1, 1] + drop)
        if hoped < _ENOUGH and nv >= value:
            break
        mx, my = cx + sx, cy + sy
        mv = _mean(mx, my, P, problem, room, losses)
        gain = value - mv
        step = max(abs(mx - x), abs(my - y))
        if mv < nv:
            nx, ny, nv = mx, my, mv
        x, y, value = nx, ny, nv
        if abs(gain - hoped) < _ENOUGH and step < radius:
            break
        if gain < 0.25 * hoped:
            radius = min(radius / 2, max(step, 1e-5))
        elif step >= 0.99 * radius:
            radius *= 2 if gain > 0.75 * hoped else 1
        else:
            radius = max(2 * step, radius / 8)
        if radius < 1e-5:
            break
    return x, y, value


@kernel
def teacher_table(thin: Any, xs: Any, ys: Any, table: Any) -> None:
    """Fill table[x, y, draw] with the loss of every teacher of a grid."""
    for a in range(xs.size):
        for b in range(ys.size):
            params, tokens = exp(xs[a]), exp(ys[b])
            for i in range(thin.shape[1]):
                table[a, b, i] = teacher_loss_at(thin, i, params, tokens)


@block
def _row(own: float, thin: Any, teachers: Any, losses: Any) -> None:
    for i in range(thin.shape[1]):
        losses[i] = student_loss_at(thin, i, own, teachers[i])


@kernel
def commit(
    P: Any,
    middle: Any,
    thin: Any,
    table: Any,
    xs: Any,
    ys: Any,
    ts: Any,
    creases: Any,
    reference: Any,
    problem: Any,
    room: Any,
) -> Any:
    """The strategy with the least mean loss: logarithms of the teacher's size and tokens, student tokens, mean loss.

    Parameters
    ----------
    P, middle, thin : (19, n) arrays
        All draws, and fewer, and few of them, in the rows of `best`, after `prepare`.
    table : (n_x, n_y, n_thin) array
        From `teacher_table`, on the grid xs, ys.
    xs, ys : arrays
        Logarithms of teacher sizes and tokens.
    ts, creases : arrays
        Points on the curve and on the crease at which the first look is taken.
    reference : (3,) array
        Averages over the draws of what makes log D_T on the compute-optimal curve: a constant, a factor of log g, and one
        of log N_T.
    problem : tuple
        F(N_S), budget, delta_lgt, delta_pre, kind of curve.
    room : tuple
        As for `search_block`.
    """
    losses = np.empty(P.shape[1])
    values = np.empty(max(ts.size, creases.size))
    x, y, low = _search_line(ts, False, reference, P, thin, problem, room, losses, values)
    line_x, line_y, line = x, y, low
    if room[8] < np.inf and problem[2] + problem[3] > 0:
        cx, cy, cv = _search_line(creases, True, reference, P, thin, problem, room, losses, values)
        if cv < low:
            x, y, low = cx, cy, cv
    V = np.empty((xs.size + 2, ys.size + 2))
    V[:] = np.inf
    for a in range(xs.size):
        for b in range(ys.size):
            own = _own_tokens(xs[a], ys[b], problem, room)
            if own >= 1.0:
                _row(own, thin, table[a, b], losses)
                V[a + 1, b + 1] = _average(losses, thin.shape[1])
    # Starts: the best point of the lines, and the lowest local minima of the grid.
    starts = np.empty((_BASINS + 1, 2))
    starts[0, 0], starts[0, 1] = x, y
    count = 1 if low < np.inf else 0
    taken = np.inf * -1
    for _ in range(_BASINS):
        lowest, la, lb = np.inf, -1, -1
        for a in range(1, xs.size + 1):
            for b in range(1, ys.size + 1):
                v = V[a, b]
                if taken < v < lowest:
                    least = True
                    for da in range(-1, 2):
                        for db in range(-1, 2):
                            least = least and v <= V[a + da, b + db]
                    if least:
                        lowest, la, lb = v, a, b
        if la < 0:
            break
        taken = lowest
        starts[count, 0], starts[count, 1] = xs[la - 1], ys[lb - 1]
        count += 1
    # On few draws: which starts lie in different basins.
    found = np.empty((_BASINS + 1, 4))
    kept = 0
    lowest = np.inf
    for s in range(count):
        sx, sy = starts[s, 0], starts[s, 1]
        sv = _mean(sx, sy, thin, problem, room, losses)
        if not sv < np.inf:
            continue
        sx, sy, sv = _polish(sx, sy, sv, 0.4, 0.1, thin, problem, room, losses)
        params, tokens = exp(sx), exp(sy)
        for i in range(thin.shape[1]):
            losses[i] = teacher_loss_at(thin, i, params, tokens)
        teacher = _average(losses, thin.shape[1])
        # The same basin: the same place, or another place of the flat valley along which teachers are equally good.
        new = True
        for q in range(kept):
            same_place = abs(found[q, 0] - sx) < 0.1 and abs(found[q, 1] - sy) < 0.1
            same_valley = abs(found[q, 2] - sv) < 2e-5 and abs(found[q, 3] - teacher) < 0.02 * teacher
            new = new and not (same_place or same_valley)
        if new:
            found[kept, 0], found[kept, 1], found[kept, 2], found[kept, 3] = sx, sy, sv, teacher
            kept += 1
            lowest = min(lowest, sv)
    # On all draws: the basin of the lines from the point that they gave, the others if they may be as low.
    for q in range(kept):
        sx, sy = found[q, 0], found[q, 1]
        if q == 0 and low < np.inf:
            sx, sy, sv = _polish(x, y, low, 0.4, 0.02, P, problem, room, losses)
        elif found[q, 2] <= lowest + 2 * _NEAR:
            if middle.shape[1] < P.shape[1]:
                sv = _mean(sx, sy, middle, problem, room, losses)
                if sv < np.inf:
                    sx, sy, sv = _polish(sx, sy, sv, 0.4, 0.05, middle, problem, room, losses)
            sv = _mean(sx, sy, P, problem, room, losses)
            if sv <= low + _NEAR:
                sx, sy, sv = _polish(sx, sy, sv, 0.4, 0.02, P, problem, room, losses)
        else:
            continue
        if sv < low:
            x, y, low = sx, sy, sv
    if line <= low + TIE:
        x, y, low = line_x, line_y, line
    return x, y, _own_tokens(x, y, problem, room) if low < np.inf else np.nan, low


@kernel
def losses_of(x: Any, y: Any, own: Any, P: Any, student_losses: Any, teacher_losses: Any) -> None:
    """Losses of student and teacher under every draw (columns) for strategies (rows) given by logarithms."""
    for s in range(x.size):
        params, tokens = exp(x[s]), exp(y[s])
        for i in range(P.shape[1]):
            teacher_losses[s, i] = teacher_loss_at(P, i, params, tokens)
        for i in range(P.shape[1]):
            student_losses[s, i] = student_loss_at(P, i, own[s], teacher_losses[s, i])
