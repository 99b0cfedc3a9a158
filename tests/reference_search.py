"""A dense search over teachers that knows nothing of the structure that `strategies` uses, and random problems for it.

Every teacher of a grid over the whole box of sizes and tokens is tried, with all student tokens that the budget leaves; the
neighbourhood of every low cell is then searched again on finer and finer grids.
"""

import numpy as np

from bayesdistill.compute import flops_per_token
from bayesdistill.law import LAWS, PUBLISHED, SUPERVISED_SYMBOLS, Draws, supervised_loss

_REFERENCE_RUN = {"params": 5e8, "tokens": 2e10, "teacher_loss": 2.28}


def random_draws(rng, size, spread=1.0):
    """Laws around the published one, varied in quantities that the data speak about (the supervised law at a few sizes,
    the student's excess at a reference run, the gap's strength and slope there), so that each is a plausible law."""
    draws = {}
    z = rng.normal(size=(12, size)) * spread
    alpha = 0.408 * np.exp(0.05 * z[0])
    beta = 0.431 * np.exp(0.05 * z[1])
    # A and B follow the exponents so that the two terms keep their size at a 1e9 model on 2e10 tokens.
    draws["E"] = 1.22 + 0.05 * z[2]
    draws["A"] = PUBLISHED["A"] * 1e9 ** (alpha - 0.408) * np.exp(0.1 * z[3])
    draws["B"] = PUBLISHED["B"] * 2e10 ** (beta - 0.431) * np.exp(0.1 * z[4])
    draws["alpha"], draws["beta"] = alpha, beta
    draws["gamma"] = 0.452 * np.exp(0.05 * z[5])
    N0, D0, T0 = _REFERENCE_RUN.values()
    gamma_S = 0.7 * np.exp(0.3 * z[6])
    share = 1 / (1 + np.exp(-z[7]))
    draws["alpha_S"] = 0.12 * np.exp(0.4 * z[8]) / (gamma_S * share)
    draws["beta_S"] = 0.2 * np.exp(0.4 * rng.normal(size=size) * spread) / (gamma_S * (1 - share))
    draws["c0"] = 2 + 1.0 * rng.normal(size=size) * spread
    s = 2 * np.exp(0.5 * z[9])
    k = 15 * np.exp(0.5 * z[10])
    u = 0.03 * np.logaddexp(0, 2 * z[11])
    f1 = s / k * u / ((1 + u) * np.log1p(u))
    draws["f1"], draws["c1"], draws["d1"] = f1, s / (f1 * np.log1p(u)), u ** (-f1)
    # Student terms: their sum is the excess at the reference run, shared between size and tokens.
    six = {name: draws[name] for name in SUPERVISED_SYMBOLS}
    log_ratio = np.log(T0 / supervised_loss(N0, D0, **six))
    gap = s * np.log1p(u * np.exp(log_ratio / f1)) / np.log1p(u)
    excess = np.exp(-1.7 + 0.5 * rng.normal(size=size) * spread)
    inside = (excess * T0 ** draws["c0"] * np.exp(gap)) ** (1 / gamma_S)
    draws["A_S"] = inside * share * N0 ** draws["alpha_S"]
    draws["B_S"] = inside * (1 - share) * D0 ** draws["beta_S"]
    draws["gamma_S"] = gamma_S
    return Draws(LAWS["busbridge2025"], draws)


def effective_tokens(tokens, unique, decay=15.387756):
    """Muennighoff et al. (2023), equation 5."""
    repeats = np.maximum(tokens / unique - 1, 0)
    return np.minimum(tokens, unique) + unique * decay * (1 - np.exp(-repeats / decay))


def strategy_loss(
    draws, student, budget, scene, bounds, shape, log_params, log_tokens, served=0.0, unique=np.inf, enough=np.inf
):
    """Student loss for teachers (..., 1) under draws; infinite where the student gets less than one token or, on average over
    the draws, the teacher is outside the bounds."""
    params, tokens = np.exp(log_params), np.exp(log_tokens)
    flops, cost = flops_per_token(params, shape), flops_per_token(student, shape)
    left = budget - served * cost - 3 * scene.delta_pre * flops * tokens
    own = np.minimum(left / (3 * cost + scene.delta_lgt * flops), bounds.max_student_tokens)
    seen, of_teacher, size, own_size = np.maximum(own, 1.0), tokens, params, student
    if np.isfinite(unique):
        seen, of_teacher = effective_tokens(seen, unique), effective_tokens(tokens, unique)
    if np.isfinite(enough):
        size, own_size = (effective_tokens(one, enough, 5.309743) for one in (params, student))
    teacher_loss = draws.supervised_loss(size, of_teacher)
    loss = draws.distilled_loss(own_size, seen, teacher_loss)
    ratio, average = tokens / params, teacher_loss.mean(axis=-1, keepdims=True)
    allowed = (ratio >= bounds.min_teacher_tokens_per_param) & (ratio <= bounds.max_teacher_tokens_per_param)
    allowed &= (average >= bounds.min_teacher_loss) & (average <= bounds.max_teacher_loss)
    return np.where((own >= 1) & allowed, loss, np.inf)


def dense_search(draws, student, budget, scene, bounds, shape, points=121, zooms=5, keep=6, **more):
    """The least mean loss over the box, and the teacher that has it; `more` is passed to `strategy_loss`."""
    low = np.log([bounds.min_teacher_params, bounds.min_teacher_tokens])
    high = np.log([bounds.max_teacher_params, bounds.max_teacher_tokens])

    def table(x, y):
        X, Y = np.meshgrid(x, y, indexing="ij")
        args = (student, budget, scene, bounds, shape, X[..., None], Y[..., None])
        return strategy_loss(draws, *args, **more).mean(axis=-1)

    with np.errstate(all="ignore"):
        x, y = np.linspace(low[0], high[0], points), np.linspace(low[1], high[1], points)
        V = table(x, y)
        padded = np.pad(V, 1, constant_values=np.inf)
        neighbours = [padded[a : a + V.shape[0], b : b + V.shape[1]] for a in range(3) for b in range(3)]
        cells = np.argwhere((np.min(neighbours, axis=0) >= V) & np.isfinite(V))
        cells = cells[np.argsort(V[tuple(cells.T)], kind="stable")][:keep]
        best = (np.inf, np.nan, np.nan)
        for a, b in cells:
            centre, width = np.array([x[a], y[b]]), 1.5 * (high - low) / (points - 1)
            value = V[a, b]
            for _ in range(zooms * 4):
                xs = np.linspace(max(centre[0] - width[0], low[0]), min(centre[0] + width[0], high[0]), 21)
                ys = np.linspace(max(centre[1] - width[1], low[1]), min(centre[1] + width[1], high[1]), 21)
                W = table(xs, ys)
                i, j = np.unravel_index(W.argmin(), W.shape)
                moved = np.array([xs[i], ys[j]])
                on_edge = (np.abs(moved - centre) > 0.9 * width).any()
                if W[i, j] <= value:
                    value, centre = W[i, j], moved
                if not on_edge:
                    width = width / 3
                if width.max() < 1e-5:
                    break
            if value < best[0]:
                best = (float(value), *(float(v) for v in np.exp(centre)))
    return best
