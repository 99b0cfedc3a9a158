"""Lifetime cost: closed forms, dense searches, plans, prices, and what theory requires."""

from __future__ import annotations

import figure_inputs as inputs
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from decision_cases import brute_force, posterior_of, scattered, simple
from figure_checks import assert_readable, legend_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

import bayesdistill as bd
from bayesdistill.compute import PUBLISHED_SHAPE, flops_per_token
from bayesdistill.decisions.size_search import best_sizes, size_grid
from bayesdistill.errors import ParameterError
from bayesdistill.strategies import Problem, chosen_strategies, perfect_information_strategies, supervised_losses

BEST, INFERENCE, BOTH = "best case", "teacher inference", "teacher pretraining + inference"
TEACHER = pd.DataFrame({"name": ["open"], "params": [7e9], "loss": [1.9], "tokens": [1.4e11]})
SERVED = np.array([0.0, 1e11, 1e12, 1e14])
SIZES = np.array([1e9, 2e9, 4e9, 1e10])


@pytest.fixture(scope="module")
def draws() -> dict[str, np.ndarray]:
    return scattered(8, seed=3)


@pytest.fixture(scope="module")
def fit(draws) -> xr.Dataset:
    return posterior_of(draws, chains=2)


def power_law(n: int = 4) -> dict[str, np.ndarray]:
    """Return draws of a law with gamma = 1 whose optimal sizes differ."""
    scale = np.linspace(0.7, 1.3, n)
    return simple(n, A_S=400 * scale, B_S=500 / scale) | {"A": 300 * scale, "B": 1000 / scale}


def smallest(function) -> tuple[float, float]:
    """Return the size with the smallest value of a function of sizes, and the value, found without the package."""
    grid = np.linspace(np.log(1e6), np.log(1e12), 2001)
    place = int(np.argmin(function(np.exp(grid))))
    ends = grid[max(place - 1, 0)], grid[min(place + 1, grid.size - 1)]
    found = minimize_scalar(lambda x: function(np.exp([x]))[0], bounds=ends, method="bounded", options={"xatol": 1e-9})
    return float(np.exp(found.x)), float(found.fun)


def flat(values: xr.DataArray) -> np.ndarray:
    """Return values with chain and draw as one last axis."""
    draw = "thinned_draw" if "thinned_draw" in values.dims else "draw"
    values = values if "chain" in values.dims else values.expand_dims("chain")
    return values.stack(sample=("chain", draw)).values  # noqa: PD013


@pytest.mark.parametrize(
    ("shape", "tokens"),
    [(bd.SIX_ND, SERVED[1:3])]
    + [pytest.param(s, SERVED, marks=pytest.mark.slow) for s in (bd.SIX_ND, PUBLISHED_SHAPE)],
)
def test_a_power_law_has_the_pretrained_sizes_of_an_independent_optimum(shape, tokens):
    # Sardana et al. (2024): minimize E + A / N^alpha + B / D^beta with 6 N D + 2 N T <= C, or the cost for a given loss.
    p, budget, target = power_law(), 1e22, 2.25
    fit, ask = posterior_of(p, chains=2), {"shape": shape, "teachers": TEACHER}
    found = bd.lifetime(fit, tokens, BEST, budgets=budget, **ask).isel(budget=0)
    reach = bd.lifetime(fit, tokens, BEST, losses=target, **ask).isel(target=0)
    best = [flat(one["pretraining_best_params"]) for one in (found, reach)]
    assert all((np.diff(sizes, axis=0) < 0).all() for sizes in best)  # more tokens served, smaller models
    for k, served in enumerate(tokens):
        # Serving takes 98% of the cost at 1e14 tokens. The sizes then lie close to those that are impossible.
        close = {"rel": 0.01 if served < 1e13 else 0.03}

        def loss(sizes, served=served):
            tokens = np.maximum((budget / flops_per_token(sizes, shape) - served) / 3, 1e-9)[:, None]
            return p["E"] + p["A"] * sizes[:, None] ** -p["alpha"] + p["B"] * tokens ** -p["beta"]

        def cost(sizes, served=served):
            rest = np.maximum(target - p["E"] - p["A"] * sizes[:, None] ** -p["alpha"], 1e-12)
            return flops_per_token(sizes, shape)[:, None] * (3 * (p["B"] / rest) ** (1 / p["beta"]) + served)

        for which in range(4):
            assert best[0][k, which] == pytest.approx(smallest(lambda n, w=which: loss(n)[:, w])[0], **close)
            size, value = smallest(lambda n, w=which: cost(n)[:, w])
            assert best[1][k, which] == pytest.approx(size, **close)
            assert cost(best[1][k, [which]])[0, which] == pytest.approx(value, rel=3e-3)
        size, value = smallest(lambda n: loss(n).mean(axis=-1))
        assert found["pretraining_params"][k].item() == pytest.approx(size, **close)
        assert found["expected_supervised_loss"][k].item() == pytest.approx(value, abs=1e-5 if served < 1e13 else 1e-3)
        own = cost(reach["pretraining_params"].values[[k]])[0]
        np.testing.assert_allclose(flat(reach["pretraining_cost"])[k], np.where(own < 1e28, own, np.inf), rtol=1e-6)


@pytest.mark.parametrize(("scenario", "lgt"), [pytest.param(BEST, 0, marks=pytest.mark.slow), (INFERENCE, 1)])
def test_a_power_law_with_one_teacher_has_the_distilled_sizes_of_an_independent_optimum(scenario, lgt):
    p, budget, price, target = power_law(), 1e22, 3.0, 2.4
    served = SERVED[[0, 2]]
    options = {"teachers": TEACHER, "gpu_flops_per_second": 3e14, "inference_flops_per_second": 1e14}
    found = bd.lifetime(posterior_of(p), served, scenario, budgets=budget, **options).squeeze()
    reach = bd.lifetime(posterior_of(p), served, scenario, losses=target, **options).squeeze()
    for k, tokens in enumerate(served):

        def own(sizes):
            return (3 * flops_per_token(sizes) + price * lgt * flops_per_token(7e9))[:, None]

        def serving(sizes, tokens=tokens):
            return price * tokens * flops_per_token(sizes)[:, None]

        def loss(sizes, own=own, serving=serving):
            left = np.maximum(budget - serving(sizes), 1.0) / own(sizes)
            return 1.9 + p["A_S"] * sizes[:, None] ** -0.3 + p["B_S"] * left**-0.35

        def cost(sizes, own=own, serving=serving):
            rest = np.maximum(target - 1.9 - p["A_S"] * sizes[:, None] ** -0.3, 1e-12)
            return (p["B_S"] / rest) ** (1 / 0.35) * own(sizes) + serving(sizes)

        for one, function in ((found, loss), (reach, cost)):
            best = [smallest(lambda n, w=w, function=function: function(n)[:, w])[0] for w in range(4)]
            np.testing.assert_allclose(flat(one["distilled_best_params"])[k], best, rtol=0.02)
        own_cost = cost(reach["distilled_params"].values[[k]])[0]
        reached = np.where(own_cost < 1e28, own_cost, np.inf)
        np.testing.assert_allclose(flat(reach["distilled_cost"])[k], reached, rtol=1e-5)
        size, value = smallest(lambda n: loss(n).mean(axis=-1))
        assert found["distilled_params"][k].item() == pytest.approx(size, rel=0.02)
        assert found["expected_distilled_loss"][k].item() == pytest.approx(value, abs=1e-5)
        # The parts of the cost.
        one, size = found.isel(served_tokens=k), found["distilled_params"][k].item()
        parts = np.array([3 * flops_per_token(size), price * lgt * flops_per_token(7e9)]) * one["student_tokens"].item()
        parts = np.append(parts, price * tokens * flops_per_token(size))
        assert parts.sum() == pytest.approx(budget, rel=1e-9)
        shares = [one[f"{name}_share"].item() for name in ("student", "teacher_inference", "serving")]
        np.testing.assert_allclose(shares, parts / budget, rtol=1e-9)
        hours = (parts[0] / 3e14 + parts[1:].sum() / price / 1e14) / 3600
        assert one["distilled_gpu_hours"].item() == pytest.approx(hours, rel=1e-9)
        assert one["probability"] == (flat(one["distilled_loss"]) < flat(one["supervised_loss"])).mean()


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [BEST, INFERENCE, BOTH])
def test_a_dense_search_finds_no_better_size(fit, draws, scenario):
    law, budget, target = bd.Planner(fit).fitted.draws, 1e23, 2.15
    served = np.array([0.0, 1e12, 1e13])
    found = bd.lifetime(fit, served, scenario, budgets=budget).squeeze()
    reach = bd.lifetime(fit, served, scenario, losses=target).squeeze()
    sizes = np.geomspace(1e8, 1e12, 401)
    for k, tokens in enumerate(served):
        problem = Problem(sizes, [budget], scenario, served_tokens=tokens)
        chosen, best = chosen_strategies(law, problem), perfect_information_strategies(law, problem)
        dense = np.nanmin(chosen["loss"].mean(axis=-1))
        assert found["expected_distilled_loss"][k] < dense + 2e-5
        best = np.where(np.isnan(best["loss"]), np.inf, best["loss"])[:, 0, 0]
        np.testing.assert_allclose(flat(found["distilled_best_params"])[k], sizes[best.argmin(axis=0)], rtol=0.03)
        alone = supervised_losses(law, problem)
        assert found["expected_supervised_loss"][k] < np.nanmin(alone.mean(axis=-1)) + 1e-6
        some = np.append(reach["distilled_params"][k].item(), np.geomspace(3e8, 3e10, 41))
        cost = chosen_strategies(law, Problem(some, [], scenario, targets=[target]))["budget"][:, 0, 0]
        cost = cost + tokens * flops_per_token(some)
        assert cost[0] < np.nanmin(cost) * (1 + 3e-4)
        assert reach["planned_distilled_cost"][k].item() == pytest.approx(
            cost[0], rel=1e-3
        )  # strategies are interpolated
    # A search without the package, at the chosen size.
    size, tokens = found["distilled_params"][1].item(), served[1]
    left = budget - tokens * flops_per_token(size)
    searched = brute_force(draws, size, left, bd.SCENARIOS[scenario], mean=True)
    assert searched["loss"].mean() == pytest.approx(found["expected_distilled_loss"][1].item(), abs=1e-6)


def test_without_serving_the_answers_are_those_of_student_choice_plan_and_target_loss(jittered_draws):
    fit = bd.Planner(jittered_draws.isel(draw=slice(8)), progress=False)
    scenarios, budgets = [BOTH], [1e21, 1e22]
    found = bd.lifetime(fit, 0, scenarios, budgets=budgets, students=SIZES, noise="law").isel(served_tokens=0)
    choice = bd.student_choice(fit, SIZES, budgets, scenarios, noise="law")
    np.testing.assert_array_equal(found["expected_distilled_loss"], choice["expected_distilled_loss"].min("student"))
    np.testing.assert_array_equal(found["expected_supervised_loss"], choice["expected_supervised_loss"].min("student"))
    np.testing.assert_array_equal(found["distilled_params"], choice["expected_distilled_loss"].idxmin("student"))
    np.testing.assert_array_equal(found["pretraining_params"], choice["expected_supervised_loss"].idxmin("student"))
    # Levels with noise, for one size.
    for noise in ("expected", "run"):
        one = bd.lifetime(fit, 0, scenarios, budgets=budgets, students=1e9, noise=noise, seed=5).isel(served_tokens=0)
        plan = bd.plan(fit, 1e9, budgets, scenarios, noise=noise, seed=5).isel(student=0)
        for name in ("probability", "distilled_loss_quantile", "supervised_loss_quantile", "student_tokens", "status"):
            np.testing.assert_array_equal(one[name], plan[name], err_msg=name)
        np.testing.assert_allclose(one["student_share"], plan["student_share"])
    reach = bd.lifetime(fit, 0, BOTH, losses=[2.2, 2.4], students=2e9, noise="run", seed=5).isel(served_tokens=0)
    target = bd.target_loss(fit, 2e9, [2.2, 2.4], BOTH, noise="run", seed=5).isel(student=0)
    for name in ("distilled_cost", "pretraining_cost"):
        compute = target[name.replace("cost", "compute")]
        np.testing.assert_allclose(reach[name], compute, rtol=1e-9)
    np.testing.assert_array_equal(reach["planned_distilled_cost"], target["planned_compute"])
    np.testing.assert_array_equal(reach["probability"], target["probability"])
    np.testing.assert_array_equal(reach["extrapolation_factor"], target["extrapolation_factor"])


@pytest.mark.slow
def test_the_loss_that_a_budget_buys_costs_this_budget(fit):
    options = {"teachers": TEACHER}
    bought = bd.lifetime(fit, [1e11, 1e13], INFERENCE, budgets=1e22, **options).squeeze()
    for k, served in enumerate([1e11, 1e13]):
        for option, loss in (("distilled", "expected_distilled_loss"), ("pretraining", "expected_supervised_loss")):
            paid = bd.lifetime(fit, served, INFERENCE, losses=bought[loss][k].item(), **options).squeeze()
            assert paid[f"planned_{option}_cost"].item() == pytest.approx(1e22, rel=3e-4)
            assert paid[f"{option}_params"].item() == pytest.approx(bought[f"{option}_params"][k].item(), rel=0.03)


def test_prices_count_as_tokens_and_equal_prices_give_the_flop_answer(fit):
    prices = {"gpu_flops_per_second": 4e14, "price_per_gpu_hour": 2.0, "currency": "EUR"}
    for goal in ({"budgets": 1e22}, {"losses": 2.3}):
        ask = {"students": SIZES[:2], "teachers": TEACHER, **goal}
        plain = bd.lifetime(fit, [0, 3e12], BEST, **ask)
        paid = bd.lifetime(fit, [0, 3e12], BEST, **ask, **prices)
        double = bd.lifetime(fit, [0, 1.5e12], BEST, **ask, **prices, inference_price_per_gpu_hour=4)
        for name in plain.drop_vars("sentence"):
            np.testing.assert_array_equal(plain[name], paid[name], err_msg=name)
            np.testing.assert_allclose(plain[name].values, double[name].values, rtol=1e-12, err_msg=name)
        assert paid["distilled_money"].attrs["units"] == "EUR"
        np.testing.assert_allclose(paid["distilled_money"], double["distilled_money"], rtol=1e-12)
        if "budgets" in goal:
            np.testing.assert_allclose(paid["pretraining_money"], 1e22 / 4e14 / 3600 * 2, rtol=1e-9)


@settings(max_examples=2, deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.floats(2.1, 2.6), st.floats(10, 14))
def test_serving_more_needs_a_smaller_model_and_a_lower_loss_never_costs_less(seed, target, log_served):
    fit = posterior_of(scattered(3, seed))
    served, targets = [0, 10 ** (log_served - 1), 10**log_served], [target, target + 0.05]
    ask = {"students": np.geomspace(5e8, 2e10, 7), "teachers": TEACHER}
    found = bd.lifetime(fit, served, INFERENCE, losses=targets, **ask).squeeze()
    for name in ("pretraining_params", "pretraining_best_params", "distilled_params", "distilled_best_params"):
        steps = np.diff(np.nan_to_num(found[name].transpose("served_tokens", ...).values), axis=0)
        assert (steps <= 0).all(), name
    for name in ("planned_pretraining_cost", "planned_distilled_cost"):
        cost = found[name].transpose("target", "served_tokens").values
        assert (cost[0] >= cost[1]).all()
        assert (cost[:, :-1] <= cost[:, 1:]).all()
    losses = bd.lifetime(fit, served, INFERENCE, budgets=[1e22, 1e23], **ask)
    for name in ("expected_supervised_loss", "expected_distilled_loss"):
        values = losses[name].fillna(np.inf).transpose("budget", "served_tokens", ...).values
        assert (values[0] >= values[1]).all()
        assert (values[:, :-1] <= values[:, 1:]).all()


def test_what_is_impossible_or_at_the_end_of_the_sizes_is_named(fit):
    found = bd.lifetime(fit, [0, 1e12, 1e17], BEST, budgets=1e22, students=[1e9, 4e9], teachers=TEACHER).squeeze()
    status = bd.flag_names(found["pretraining_size_status"]).values.tolist()
    assert status == ["size_at_max", "size_at_min", "impossible"]
    assert bd.flag_names(found["option"]).values[-1] == "impossible"
    last = found.isel(served_tokens=2)
    for name in ("distilled_params", "pretraining_params", "student_tokens", "probability", "expected_distilled_loss"):
        assert np.isnan(last[name]), name
    assert found["sentence"].values[-1].endswith("no size can serve these tokens.")
    assert "is the largest size in the search" in found["sentence"].values[0]
    low = bd.lifetime(fit, 0, BEST, losses=1.5, students=[1e9, 4e9], teachers=TEACHER).squeeze()
    assert bd.flag_names(low["distilled_size_status"]) == bd.flag_names(low["option"]) == "impossible"
    assert np.isinf(low["planned_distilled_cost"])
    assert low["distilled_impossible"] == low["pretraining_impossible"] == 1
    assert low["sentence"].item().endswith("no size reaches the loss.")


def test_sizes_are_limited_to_a_factor_of_the_data(fit354):
    few = fit354.map_over_datasets(lambda d: d.isel(draw=slice(0, None, 50)) if "draw" in d.dims else d)
    planner = bd.Planner(few, allow_unconverged=True, progress=False)
    with pytest.warns(bd.ConvergenceWarning):
        ranges = planner.fitted.ranges
    for factor in (1.0, 2.0):
        found = bd.lifetime(planner, 0, INFERENCE, budgets=1e24, teachers=TEACHER, max_extrapolation=factor).squeeze()
        for option, axis in (("distilled", "student_params"), ("pretraining", "pretraining_params")):
            assert found[f"{option}_params"].item() == pytest.approx(factor * ranges[axis][1])
            assert bd.flag_names(found[f"{option}_size_status"]) == "size_at_max"
            assert found["extrapolation_factor"].sel(axis=axis).item() == pytest.approx(factor)
    free = bd.lifetime(planner, 0, INFERENCE, budgets=1e24, teachers=TEACHER, max_extrapolation=None).squeeze()
    assert free["pretraining_params"] > 2 * ranges["pretraining_params"][1]
    assert bd.flag_names(free["pretraining_size_status"]) == "ok"


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.floats(np.log(2e6), np.log(5e11)), min_size=1, max_size=4), st.floats(0.2, 2))
def test_the_search_finds_the_minimum_of_smooth_functions(minima, power):
    minima = np.array(minima)

    def values(sizes):
        away = np.log(sizes)[:, None] - minima
        return np.exp(power * away) + np.exp(-0.3 * away) * power / 0.3

    found, status = best_sizes(values, size_grid(1e6, 1e12), 1e-3, refine=True)
    np.testing.assert_allclose(found, np.exp(minima), rtol=0.01)
    assert (status == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("size", ["page", "column", "slide"])
def test_costs_can_be_drawn(size):
    figure = bd.plot_lifetime(inputs.lifetime_cost(), size=size)
    assert_readable(figure)
    assert {"distilled", "pretrained"} < set(legend_of(figure))
    assert any(ax.get_ylabel().startswith("total cost") for ax in figure.axes)


def test_wrong_questions_are_errors(fit):
    for wrong, said in (
        ({}, "either `budgets` or `losses`"),
        ({"budgets": 1e21, "losses": 2.2}, "either `budgets` or `losses`"),
        ({"budgets": -1}, "`budgets`"),
        ({"losses": 2.2, "students": "1"}, "`students`"),
    ):
        with pytest.raises(ParameterError, match=said):
            bd.lifetime(fit, 1e12, BEST, **wrong)
    for served in (-1, "1e40", [1e12, 1e12], []):
        with pytest.raises(ParameterError, match="`served_tokens`"):
            bd.lifetime(fit, served, BEST, budgets=1e21)
