"""Posteriors whose decisions are known in closed form, and a brute-force search, for the tests of the decisions."""

from __future__ import annotations

import law_names as laws
import numpy as np
import xarray as xr

from bayesdistill.compute import PUBLISHED_SHAPE, Scenario, Shape, flops_per_token
from bayesdistill.law import Draws


def posterior_of(draws: dict[str, np.ndarray], chains: int = 1) -> xr.Dataset:
    """A Dataset of draws from flat arrays, with the law that their names ask for."""
    dataset = xr.Dataset({k: (("chain", "draw"), np.reshape(np.atleast_1d(v), (chains, -1))) for k, v in draws.items()})
    return dataset.assign_attrs(law=laws.law_with(draws).to_json())


def draws_of(draws: dict[str, np.ndarray]) -> Draws:
    """Flat arrays as draws of the law that their names ask for."""
    return Draws(laws.law_with(draws), draws)


def assert_agree(found: xr.Dataset, expected: xr.Dataset) -> None:
    """The same result, with numbers that agree to 1e-9 (relative)."""
    xr.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert found.attrs == expected.attrs
    assert {n: v.attrs.keys() for n, v in found.variables.items()} == {
        n: v.attrs.keys() for n, v in expected.variables.items()
    }


def published(copies: int = 1) -> dict[str, np.ndarray]:
    return {k: np.full(copies, v) for k, v in laws.PUBLISHED.items()}


def scattered(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Draws around the published law, wide enough that decisions differ between them."""
    rng = np.random.default_rng(seed)
    draws = published(n)
    for name, scale in {"E": 0.01, "A_S": 0.05, "B_S": 0.05, "c0": 0.05, "gamma_S": 0.01, "beta_S": 0.005}.items():
        draws[name] = draws[name] * np.exp(scale * rng.standard_normal(n))
    return draws


# A law without capacity gap (c0 = 0, and c1 so small that the gap factor is 1 to the last bit), with all exponents of tokens
# equal and gamma = gamma_S = 1:
#   Lsup = E + A/N^a + B/D^b,   L_S = L_T + A_S/N^a + B_S/D^b.
# In the best case the strongest teacher is the best one, its loss T the same at every budget, and the two curves cross where
# (B - B_S)/D^b = T + A_S/N^a - E - A/N^a.
def simple(n: int = 1, B_S: float | np.ndarray = 500.0, A_S: float | np.ndarray = 400.0) -> dict[str, np.ndarray]:
    values = {"E": 1.5, "A": 300.0, "B": 1000.0, "alpha": 0.3, "beta": 0.35, "gamma": 1.0}
    values |= {"alpha_S": 0.3, "beta_S": 0.35, "gamma_S": 1.0, "c0": 0.0, "c1": 1e-30, "d1": 1.0, "f1": 0.1}
    draws = {k: np.full(n, v) for k, v in values.items()}
    draws["A_S"] = np.broadcast_to(np.asarray(A_S, dtype=float), (n,)).copy()
    draws["B_S"] = np.broadcast_to(np.asarray(B_S, dtype=float), (n,)).copy()
    return draws


def simple_teacher(max_params: float = 1e12, max_tokens: float = 2e13) -> float:
    return float(1.5 + 300.0 * max_params**-0.3 + 1000.0 * max_tokens**-0.35)


def simple_crossover(student: float, B_S: float, A_S: float, shape: Shape = PUBLISHED_SHAPE) -> float:
    """Budget at which the best-case curves of `simple` cross; NaN if they do not."""
    excess = simple_teacher() + (A_S - 300.0) * student**-0.3 - 1.5
    if excess <= 0 or B_S >= 1000.0:
        return float("nan")
    tokens = ((1000.0 - B_S) / excess) ** (1 / 0.35)
    return float(3 * flops_per_token(student, shape) * tokens)


def brute_force(
    draws: dict[str, np.ndarray],
    student: float,
    budget: float,
    scenario: Scenario,
    *,
    max_teacher_params: float = 1e12,
    max_teacher_tokens: float = 2e13,
    min_teacher_params: float = 1e6,
    max_student_tokens: float = np.inf,
    points: int = 101,
    rounds: int = 7,
    mean: bool = False,
) -> dict[str, np.ndarray]:
    """The best strategy of each draw (or of their mean) on a grid over teacher size and tokens that zooms in.

    Written from the definition, with nothing of the package but the two laws and F(N).
    """
    n = draws["E"].size
    groups = [np.arange(n)] if mean else [np.array([i]) for i in range(n)]
    out = {
        k: np.full(n, np.nan) for k in ("loss", "teacher_params", "teacher_tokens", "student_tokens", "teacher_loss")
    }
    for group in groups:
        theta = {k: v[group][:, None, None] for k, v in draws.items()}
        sup = {k: theta[k] for k in laws.SUPERVISED_PARAMETERS}
        low = np.log([min_teacher_params, 1e6])
        high = np.log([max_teacher_params, max_teacher_tokens])
        box_low, box_high = low.copy(), high.copy()
        for _ in range(rounds):
            params = np.exp(np.linspace(low[0], high[0], points))[:, None]
            tokens = np.exp(np.linspace(low[1], high[1], points))[None, :]
            teacher_flops = flops_per_token(params)
            left = budget - 3 * scenario.delta_pre * teacher_flops * tokens
            bought = left / (3 * flops_per_token(student) + scenario.delta_lgt * teacher_flops)
            bought = np.minimum(bought, max_student_tokens)
            feasible = bought >= 1
            bought = np.where(feasible, bought, 1.0)
            teacher = laws.supervised_loss(params, tokens, **sup)
            loss = laws.distilled_loss(student, bought, teacher, **theta)
            score = np.where(feasible, loss.mean(axis=0), np.inf)
            i, j = np.unravel_index(np.argmin(score), score.shape)
            if not np.isfinite(score[i, j]):
                break
            out["loss"][group] = loss[:, i, j]
            out["teacher_loss"][group] = teacher[:, i, j]
            out["teacher_params"][group] = params[i, 0]
            out["teacher_tokens"][group] = tokens[0, j]
            out["student_tokens"][group] = bought[i, j]
            centre = np.log([params[i, 0], tokens[0, j]])
            half = (high - low) / 10
            low, high = np.maximum(centre - half, box_low), np.minimum(centre + half, box_high)
    return out


def best_of(plan, name="distilled_loss"):
    """Of the strategy with perfect information, on the draws of a plan that is so small that none are left out."""
    values = plan[f"best_{name}"].rename(thinned_draw="draw")
    assert values.sizes["draw"] == plan.sizes["draw"]
    return values
