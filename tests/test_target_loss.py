"""Target losses: closed forms, dense searches, plans, prices, and what theory requires."""

from __future__ import annotations

import law_names as laws
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from decision_cases import brute_force, posterior_of, published, scattered, simple
from hypothesis import given, settings
from hypothesis import strategies as st

import bayesdistill as bd
from bayesdistill.compute import Scenario, flops_per_token
from bayesdistill.decisions import planning
from bayesdistill.decisions._target_loss import deviations_of_size
from bayesdistill.decisions.solving import CHOSEN, solve
from bayesdistill.decisions.target_search import first_budgets
from bayesdistill.errors import ParameterError
from bayesdistill.plots.grids import target_sentences
from bayesdistill.strategies import Problem, chosen_strategies, supervised_losses

INFERENCE, BOTH = "teacher inference", "teacher pretraining + inference"
TEACHER = pd.DataFrame({"params": [7e9], "loss": [1.9], "tokens": [1.4e11]})
SIZE = 1e9


@pytest.fixture(scope="module")
def draws() -> dict[str, np.ndarray]:
    return scattered(8, seed=3)


@pytest.fixture(scope="module")
def fit(draws) -> xr.Dataset:
    return posterior_of(draws, chains=2)


def test_a_power_law_with_one_teacher_has_a_closed_form():
    draws = simple(6, A_S=[300.0, 400.0, 500.0, 600.0, 700.0, 2000.0], B_S=np.linspace(300, 1500, 6))
    targets = np.array([2.6, 2.9])
    found = bd.target_loss(posterior_of(draws, 2), SIZE, targets, ["best case", INFERENCE, BOTH], teachers=TEACHER)
    flops, teacher = flops_per_token(SIZE), flops_per_token(7e9)
    own = targets[:, None] - 1.9 - draws["A_S"] * SIZE**-0.3
    tokens = np.where(own > 0, (draws["B_S"] / np.maximum(own, 1e-9)) ** (1 / 0.35), np.inf)
    assert np.isinf(tokens).any()  # one student is too small for its target
    for scenario, (lgt, pre) in {"best case": (0, 0), INFERENCE: (1, 0), BOTH: (1, 1)}.items():
        compute = tokens * (3 * flops + lgt * teacher) + 3 * pre * teacher * 1.4e11
        one = found.isel(student=0).sel(scenario=scenario).stack(sample=("chain", "draw"))  # noqa: PD013
        np.testing.assert_allclose(one["distilled_compute"], compute, rtol=1e-6)
        np.testing.assert_allclose(one["distilled_tokens"], tokens, rtol=1e-5)
        np.testing.assert_allclose(one["distilled_impossible"], np.isinf(compute).mean(axis=-1))
        alone = 3 * flops * (1000 / (targets[:, None] - 1.5 - 300 * SIZE**-0.3)) ** (1 / 0.35) * np.ones(6)
        np.testing.assert_allclose(one["pretraining_compute"], alone, rtol=1e-8)
        np.testing.assert_allclose(one["ratio"], compute / alone, rtol=1e-6)
        np.testing.assert_allclose(one["probability"], (compute < alone).mean(axis=-1))
        assert (one["ratio_quantile"].sel(quantile=0.5) == np.sort(one["ratio"].values)[:, 2]).all()


@pytest.mark.parametrize("scenario", [INFERENCE, BOTH])
def test_a_dense_search_finds_the_target_with_these_budgets(fit, draws, scenario):
    found = bd.target_loss(fit, SIZE, [2.2, 2.4], scenario).squeeze()
    scene = bd.SCENARIOS[scenario]
    for target in (2.2, 2.4):
        one = found.sel(target=target)
        planned = brute_force(draws, SIZE, one["planned_compute"].item(), scene, mean=True)
        assert planned["loss"].mean() == pytest.approx(target, abs=1e-6)
        budget = one["distilled_compute"].values.ravel()
        for k in (0, 5):
            searched = brute_force(draws, SIZE, float(budget[k]), scene, mean=True)
            assert searched["loss"][k] == pytest.approx(target, abs=1e-4)
        alone = one["pretraining_compute"].values.ravel()
        reached = laws.supervised_loss(
            SIZE, alone / (3 * flops_per_token(SIZE)), **{k: draws[k] for k in laws.SUPERVISED_PARAMETERS}
        )
        np.testing.assert_allclose(reached, target, atol=1e-9)


def test_a_target_from_a_plan_returns_the_budget(fit):
    budgets = [3e20, 2e22]
    plan = bd.plan(fit, SIZE, budgets, [INFERENCE, BOTH])
    for scenario in (INFERENCE, BOTH):
        for budget in budgets:
            cell = plan.sel(student=SIZE, scenario=scenario, budget=budget)
            on_average = bd.target_loss(fit, SIZE, cell["distilled_loss"].mean().item(), scenario).squeeze()
            assert on_average["planned_compute"].item() == pytest.approx(budget, rel=1e-5)
            assert on_average["student_tokens"].item() == pytest.approx(cell["student_tokens"].item(), rel=1e-3)
            per_draw = bd.target_loss(fit, SIZE, cell["distilled_loss"].values.ravel(), scenario).squeeze()
            own = per_draw["distilled_compute"].transpose("target", ...).values.reshape(8, 8)
            order = np.argsort(np.argsort(cell["distilled_loss"].values.ravel()))
            np.testing.assert_allclose(own[order, np.arange(8)], budget, rtol=1e-3)
    alone = bd.target_loss(fit, SIZE, plan["supervised_loss"].sel(budget=2e22).mean().item(), INFERENCE)
    assert alone["planned_pretraining_compute"].item() == pytest.approx(2e22, rel=1e-8)


@pytest.mark.slow
def test_the_search_of_strategies_for_targets_agrees(fit):
    planner = bd.Planner(fit)
    found = bd.target_loss(fit, [3e8, SIZE], [2.3, 2.6], [INFERENCE, BOTH])
    problem = Problem([3e8, SIZE], [], (INFERENCE, BOTH), targets=[2.3, 2.6])
    expected = chosen_strategies(planner.fitted.draws, problem)
    np.testing.assert_allclose(found["planned_compute"], expected["budget"], rtol=1e-5)
    assert np.isfinite(expected["budget"]).any()


def test_existing_teachers_are_switched_where_another_becomes_better(fit, draws):
    table = pd.DataFrame(
        {"name": ["s", "m", "l"], "params": [5e8, 2e9, 2e10], "loss": [2.45, 2.25, 1.95], "tokens": 1e11}
    )
    budgets = np.geomspace(1e19, 1e23, 9)
    plan = bd.plan(fit, SIZE, budgets, INFERENCE, teachers=table).squeeze()
    assert len(set(plan["teacher_index"].values.tolist())) > 1
    found = bd.target_loss(
        fit, SIZE, plan["distilled_loss"].mean(("chain", "draw")).values, INFERENCE, teachers=table
    ).squeeze()
    found = found.sortby("target", ascending=False)
    np.testing.assert_allclose(found["planned_compute"], budgets, rtol=1e-8)
    np.testing.assert_array_equal(found["teacher_index"], plan["teacher_index"])


def wandering(seed: int, draws: int = 5):
    """Losses that fall on average, with straight pieces that rise in between."""
    rng = np.random.default_rng(seed)
    knots = np.linspace(0, 10, 21)
    values = 3 - 0.2 * knots[:, None] + np.cumsum(0.15 * rng.standard_normal((21, draws)), axis=0)

    def loss(x):
        x = np.broadcast_to(x, (len(x), draws))
        return np.stack([np.interp(x[:, k], knots, values[:, k]) for k in range(draws)], axis=1)

    return loss


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.lists(st.floats(0.5, 3.2), min_size=2, max_size=4, unique=True))
def test_the_first_budget_is_that_of_a_dense_grid_and_a_lower_target_never_costs_less(seed, targets):
    loss, targets = wandering(seed), np.sort(targets)
    found = first_budgets(loss, np.linspace(0, 10, 26), targets, 5)
    dense = np.linspace(0, 10, 20_001)
    reached = loss(dense[:, None])[None] <= targets[:, None, None]
    first = np.where(reached.any(axis=1), dense[reached.argmax(axis=1)], np.inf)
    np.testing.assert_array_equal(np.isinf(found), np.isinf(first))
    assert (found >= first - 1e-3).all()
    # A visit below the target between two points of the search may be missed, but only if it is that short.
    early = found > first + 1e-3
    below = (reached & (dense[:, None] < found[:, None] - 1e-3)).sum(axis=1) * (dense[1] - dense[0])
    assert (below[early] < 0.1).all()
    assert (found[:-1] >= found[1:]).all()
    np.testing.assert_allclose(loss(np.where(np.isfinite(found), found, 0))[np.isfinite(found) & (found > 0)],
                               np.broadcast_to(targets[:, None], found.shape)[np.isfinite(found) & (found > 0)], atol=1e-6)  # fmt: skip


@pytest.mark.filterwarnings("ignore::bayesdistill.ConvergenceWarning")
def test_losses_at_a_level_of_uncertainty_reach_the_target_first_where_a_dense_search_says(fit354):
    thin = fit354.map_over_datasets(lambda d: d.isel(draw=slice(0, None, 10)) if "draw" in d.dims else d)
    planner, targets = bd.Planner(thin, allow_unconverged=True), [2.15, 2.2, 2.3, 2.5]
    found = bd.target_loss(planner, SIZE, targets, [INFERENCE, BOTH])
    assert found.attrs["noise"] == "expected"
    compute = found["distilled_compute"].isel(student=0).stack(sample=("chain", "draw"))  # noqa: PD013
    alone = found["pretraining_compute"].isel(student=0).stack(sample=("chain", "draw"))  # noqa: PD013
    # A lower target never costs less, in any draw.
    for of in (compute, alone):
        values = of.transpose("target", ...).values
        assert (values[:-1] >= values[1:]).all()
    assert (found["probability"].values < 1).any()
    # The loss of the chosen strategies with the deviations of the draws, at many budgets.
    deviations = deviations_of_size(planner, SIZE)
    budgets = np.geomspace(1e19, 1e24, 61)
    problem, _ = planning.problem_of(planner, SIZE, budgets, [INFERENCE, BOTH])
    chosen = solve(CHOSEN, planner.fitted.draws, problem, planning.workers_of(planner))
    loss = chosen["loss"] + deviations.distilled(SIZE, chosen["student_tokens"][..., None], chosen["teacher_loss"])
    own = (budgets / (3 * flops_per_token(SIZE)))[:, None]
    pretrained = supervised_losses(planner.fitted.draws, problem)[0] + deviations.pretrained(SIZE, own)
    assert np.abs(deviations.pretrained(SIZE, own)).max() > 0.01
    for t, target in enumerate(targets):
        for s in range(2):
            _assert_first(loss[0, s], compute.isel(scenario=s, target=t).values, target, budgets)
        _assert_first(pretrained, alone.isel(target=t).values, target, budgets)


def _assert_first(loss: np.ndarray, compute: np.ndarray, target: float, budgets: np.ndarray) -> None:
    """Assert that budgets of draws are in the first step of a dense grid that ends at or below the target."""
    reached = loss <= target
    last = reached.argmax(axis=0)
    some = np.flatnonzero(reached.any(axis=0) & (last > 0))
    assert some.size > 350
    high, low = budgets[last[some]], budgets[last[some] - 1]
    # Either grid may miss a visit below the target that is shorter than its steps.
    late = (compute[some] > high) & (loss[last[some], some] < target - 2e-4)  # beyond the error of the interpolation
    assert (loss[last[some] + 1, some][late] > target).all()
    assert late.mean() < 0.01
    assert (compute[some] < low * (1 - 1e-4)).mean() < 0.01


def test_equal_prices_give_the_flop_answer(fit):
    plain = bd.target_loss(fit, SIZE, 2.3, [INFERENCE, BOTH])
    paid = bd.target_loss(
        fit, SIZE, 2.3, [INFERENCE, BOTH], gpu_flops_per_second="4e14", price_per_gpu_hour=2.5, currency="EUR"
    )
    same = bd.target_loss(
        fit, SIZE, 2.3, [INFERENCE, BOTH], gpu_flops_per_second=4e14, price_per_gpu_hour=2.5,
        inference_flops_per_second=8e14, inference_price_per_gpu_hour=5, currency="EUR",
    )  # fmt: skip
    for name in plain:
        np.testing.assert_array_equal(plain[name], paid[name])
        np.testing.assert_array_equal(plain[name], same[name])
    np.testing.assert_allclose(paid["distilled_money"], paid["distilled_compute"] / 4e14 / 3600 * 2.5)
    np.testing.assert_allclose(same["distilled_money"], paid["distilled_money"])
    np.testing.assert_allclose(paid["pretraining_gpu_hours"], paid["pretraining_compute"] / 4e14 / 3600)
    assert (same["distilled_gpu_hours"] < paid["distilled_gpu_hours"]).all()  # its inference is faster
    assert paid["distilled_money"].attrs["units"] == paid["pretraining_money_quantile"].attrs["units"] == "EUR"
    assert paid.attrs["price_per_gpu_hour"] == paid.attrs["inference_price_per_gpu_hour"] == 2.5
    assert not {"distilled_money", "distilled_gpu_hours"} & {*plain}


def test_strategies_adapt_to_the_price_of_inference(fit, draws):
    prices = {"gpu_flops_per_second": 4e14, "price_per_gpu_hour": 2}
    plain = bd.target_loss(fit, SIZE, 2.3, INFERENCE, **prices).squeeze()
    dear = bd.target_loss(fit, SIZE, 2.3, INFERENCE, inference_price_per_gpu_hour=12, **prices).squeeze()
    assert dear["teacher_params"] < plain["teacher_params"]
    assert (dear["distilled_money"] > plain["distilled_money"]).all()
    # Cheaper than the strategy for equal prices at these prices.
    teacher, tokens = (plain[name].item() for name in ("teacher_params", "student_tokens"))
    training, inference = 3 * flops_per_token(SIZE) * tokens, flops_per_token(teacher) * tokens
    assert dear["planned_compute"].item() < training + 6 * inference
    np.testing.assert_allclose(dear["ratio"], dear["distilled_money"] / dear["pretraining_money"])
    # Pretraining has no inference.
    xr.testing.assert_equal(dear["pretraining_money"], plain["pretraining_money"])
    # Charging a fraction of it is the same as a lower price.
    half = bd.target_loss(fit, SIZE, 2.3, Scenario(0.5, 0), **prices).squeeze()
    cheap = bd.target_loss(fit, SIZE, 2.3, INFERENCE, inference_price_per_gpu_hour=1, **prices).squeeze()
    np.testing.assert_allclose(half["distilled_money"], cheap["distilled_money"], rtol=1e-6)


def test_the_cheapest_student_and_impossible_targets(fit):
    found = bd.target_loss(fit, [1e8, 3e9, 3e8], [2.2, 2.5], BOTH).squeeze()
    np.testing.assert_allclose(
        found["probability_cheapest"].sum("student") + found["neither_probability"].min("student"), 1
    )
    cost = np.minimum(found["distilled_compute"], found["pretraining_compute"])
    for target in (2.2, 2.5):
        one = cost.sel(target=target)
        assert found["cheapest_student"].sel(target=target) == one.median(("chain", "draw")).idxmin()
        best = (one.argmin("student") == 1).mean().item()
        assert found["probability_cheapest"].sel(target=target, student=3e9).item() == pytest.approx(best)
    assert found["pretraining_impossible"].sel(student=1e8, target=2.2) == 1
    assert bd.flag_names(found["cheaper"].sel(student=1e8, target=2.2)).item() == "neither"
    nobody = bd.target_loss(fit, 1e8, 2.2, BOTH).squeeze()
    assert np.isnan([nobody["cheapest_student"], nobody["teacher_params"]]).all()
    assert nobody["probability"] == nobody["probability_cheapest"] == 0
    assert np.isinf(nobody["distilled_compute_quantile"]).all()
    assert np.isnan(nobody["ratio_quantile"]).all()
    # A student does not depend on which others are asked about.
    alone = bd.target_loss(fit, 3e8, 2.5, BOTH).squeeze()
    xr.testing.assert_equal(alone["ratio"], found["ratio"].sel(student=3e8, target=2.5))


def test_a_search_range_and_a_cap_make_targets_impossible(fit):
    free = bd.target_loss(fit, SIZE, 2.3, BOTH)
    most = free["distilled_compute"].median().item()
    cut = bd.target_loss(fit, SIZE, 2.3, BOTH, max_compute=most)
    assert cut["distilled_impossible"].item() == np.isinf(cut["distilled_compute"]).mean() == 0.5
    capped = bd.target_loss(fit, SIZE, 2.3, BOTH, max_student_tokens=free["pretraining_tokens"].median().item())
    assert capped["pretraining_impossible"].item() == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"losses": -2.0}, "`losses`"),
        ({"losses": 20.0}, "`losses` must be"),
        ({"losses": []}, "`losses` is empty"),
        ({"losses": [2.2, 2.2]}, "more than once"),
        ({"max_compute": 10}, "`max_compute` must be"),
        ({"price_per_gpu_hour": 2}, "requires `gpu_flops_per_second`"),
        ({"inference_flops_per_second": 2e14}, "requires `gpu_flops_per_second`"),
        ({"gpu_flops_per_second": 4e14, "inference_price_per_gpu_hour": 2}, "requires `price_per_gpu_hour`"),
        ({"gpu_flops_per_second": -1}, "gpu_flops_per_second"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ParameterError, match=message):
        bd.target_loss(
            posterior_of(published()), **({"students": "1B", "losses": 2.3, "scenarios": INFERENCE} | arguments)
        )


def test_sentences_and_tables(fit):
    found = bd.target_loss(fit, [SIZE, 3e9], 2.3, INFERENCE, gpu_flops_per_second=4e14, price_per_gpu_hour=2)
    low, middle, high = found["ratio_quantile"].squeeze().sel(student=SIZE, quantile=[0.05, 0.5, 0.95]).values
    text = str(found)
    assert f"it costs {middle:.2g} times ({low:.2g} to {high:.2g}) as much as pretraining" in text
    assert "Cheapest student (teacher inference, 2.3 nats): 3B, with probability" in text
    table = bd.decision_table(found)
    assert table["ratio_median"].iloc[0] == middle
    shown = bd.table_text(table)
    for heading in ("[USD]", "P(distillation", "cheaper)"):
        assert heading in shown
    impossible = str(bd.target_loss(fit, 1e8, 2.2, INFERENCE))
    assert "neither option reaches it with up to 1e28 FLOPs" in impossible
    assert "infinite" in impossible


def test_a_target_below_the_irreducible_loss_is_reached_by_neither():
    found = bd.target_loss(posterior_of(scattered(4, seed=1)), "1B", [0.9, 2.3], "best case")
    below, _ = target_sentences(found)
    assert below == "1B, best case, 0.9 nats: neither option reaches it with up to 1e28 FLOPs."
