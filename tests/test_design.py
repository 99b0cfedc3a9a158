"""What to run next: values known in closed form, bounds, invariance, and tables that cannot be used."""

from __future__ import annotations

import json
import math
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from decision_cases import posterior_of, scattered, simple, simple_teacher
from law_names import SUPERVISED_PARAMETERS
from matplotlib.figure import Figure
from scipy.stats import t as student_t

import bayesdistill as bd
from bayesdistill.compute import PUBLISHED_SHAPE, flops_per_token
from bayesdistill.decisions.fitted_draws import gather
from bayesdistill.design import cheapest_first, information_order, next_runs, random_order, run_costs
from bayesdistill.design.candidates import parse_candidates, predict, proposed_candidates
from bayesdistill.errors import BayesdistillError, DataError, ParameterError

STUDENT, BUDGET = 1e9, 1e21
NORMAL = NormalDist()
RUN = pd.DataFrame({"student_params": [STUDENT], "student_tokens": [1e10], "teacher_loss": [2.0]})


def normal_case(
    mean: float, sd: float, sigma: float, n: int = 4000, seed: int = 1, quantiles: bool = True
) -> xr.Dataset:
    """Draws whose advantage in the best case is normal, and whose law at RUN is a constant minus the advantage."""
    rng = np.random.default_rng(seed)
    z = np.array([NORMAL.inv_cdf((i + 0.5) / n) for i in range(n)])
    z = rng.permutation(z) if quantiles else rng.standard_normal(n)
    tokens = BUDGET / (3 * flops_per_token(STUDENT))
    alone = 1.5 + 300 * STUDENT**-0.3 + 1000 * tokens**-0.35
    distilled = alone - (mean + sd * z)
    draws = simple(n, A_S=(distilled - simple_teacher() - 500 * tokens**-0.35) * STUDENT**0.3)
    draws |= {"sigma": np.full(n, sigma), "nu": np.full(n, 1e8)}
    return posterior_of(draws, 4)


def exact(mean: float, sd: float, sigma: float) -> float:
    """EVSI of a normal advantage seen through normal noise, for a choice between it and 0."""
    learnt = sd**2 / math.hypot(sd, sigma)
    z = abs(mean) / learnt
    return learnt * (NORMAL.pdf(z) - z * NORMAL.cdf(-z))


def next_run(fit: xr.Dataset, table: pd.DataFrame, **options) -> xr.Dataset:
    return next_runs(fit, table, STUDENT, BUDGET, "best case", **options)


@pytest.fixture(scope="module")
def spread_fit() -> xr.Dataset:
    draws = scattered(1000, seed=3)
    draws |= {"sigma": np.full(1000, 0.007), "nu": np.full(1000, 5.0)}
    return posterior_of(draws, 4)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "name": ["small", "large", "weak teacher", "alone", "alone, long"],
            "student_params": [2e8, 3e9, 1e9, np.nan, np.nan],
            "student_tokens": [1e10, 5e11, 1e11, np.nan, np.nan],
            "teacher_loss": [2.3, 2.1, 2.6, np.nan, np.nan],
            "params": [np.nan, np.nan, np.nan, 3e8, 2e9],
            "tokens": [np.nan, np.nan, np.nan, 1e10, 4e11],
        }
    )


@pytest.mark.parametrize("mean", [0.0, 0.005, -0.01])
@pytest.mark.parametrize("sigma", [0.001, 0.005, 0.02])
def test_value_is_that_of_the_closed_form(mean: float, sigma: float) -> None:
    found = next_run(normal_case(mean, 0.01, sigma), RUN)
    wanted = exact(mean, 0.01, sigma)
    # Draws at the quantiles of the normal distribution have next to no error of their own.
    assert found["evsi"].item() == pytest.approx(wanted, rel=0.01, abs=5e-6)
    assert abs(found["evsi"].item() - wanted) < 3 * found["evsi_mcse"].item()
    assert found["status"].item() == 0


def test_error_covers_the_closed_form_for_random_draws() -> None:
    wanted = exact(0.003, 0.01, 0.008)
    scores = []
    for seed in range(40):
        found = next_run(normal_case(0.003, 0.01, 0.008, n=600, seed=seed, quantiles=False), RUN, outcomes=200)
        scores.append((found["evsi"].item() - wanted) / found["evsi_mcse"].item())
    # The errors are not normal with 600 draws; their size must be right, and their mean near 0.
    assert abs(np.mean(scores)) < 0.6
    assert 0.6 < np.sqrt(np.mean(np.square(scores))) < 1.5


@pytest.mark.parametrize("mean", [0.004, -0.008])
def test_what_a_run_changes_and_predicts_is_that_of_the_closed_form(mean: float) -> None:
    found = next_run(normal_case(mean, 0.01, 0.005), RUN)
    learnt = 0.01**2 / math.hypot(0.01, 0.005)
    assert found["change_probability"].item() == pytest.approx(NORMAL.cdf(-abs(mean) / learnt), abs=0.01)
    assert found["predicted_sd"].item() == pytest.approx(0.01, rel=1e-3)
    assert found["expected_gain"].item() == pytest.approx(mean, abs=1e-5)


def test_the_scatter_of_a_run_is_that_of_its_kind() -> None:
    n = 6
    scales = {"sigma": 0.01, "nu": 5.0, "sigma_supervised": 0.03, "sigma_student": 0.04, "sigma_teacher": 0.12}
    fit = posterior_of(simple(n) | {name: np.full(n, value) for name, value in scales.items()})
    both = pd.DataFrame([{**GOOD}, {"params": 1e9, "tokens": 2e10}])
    made = predict(gather(fit, False), parse_candidates(both, PUBLISHED_SHAPE))
    np.testing.assert_allclose(made.scale[0], math.sqrt(0.01**2 + 0.04**2 + 0.12**2))
    # Beside supervised runs their residual scale says how far pretrained runs deviate; without them the student effect is assumed.
    np.testing.assert_allclose(made.scale[1], 0.03)
    without = posterior_of(
        simple(n) | {name: np.full(n, v) for name, v in scales.items() if name != "sigma_supervised"}
    )
    alone = predict(gather(without, False), parse_candidates(both, PUBLISHED_SHAPE))
    np.testing.assert_allclose(alone.scale[1], math.hypot(0.01, 0.04))
    law = bd.law_of(fit)
    sloped = fit.assign(sigma_student_slope=fit["sigma"] * 0 + 0.03).assign_attrs(
        law=law.with_effects(*(effect.name for effect in law.effects), "student_slope").to_json(),
        reference=json.dumps({"params": 1e9, "tokens": 1e10, "teacher_loss": 2.5}),
    )
    steeper = predict(gather(sloped, False), parse_candidates(both, PUBLISHED_SHAPE))
    axis = 10 * math.log(GOOD["teacher_loss"] / 2.5)
    np.testing.assert_allclose(steeper.scale[0] ** 2, made.scale[0] ** 2 + (0.03 * axis) ** 2)
    np.testing.assert_allclose(steeper.scale[1], made.scale[1])
    outcome = made.mean[0, :1] + 0.2
    wanted = student_t.logpdf(0.2, 5.0, scale=made.scale[0])
    np.testing.assert_allclose(made.log_density(0, outcome)[0], wanted, atol=1e-12)


def test_every_run_is_predicted_by_the_law_of_the_draws(spread_fit: xr.Dataset, table: pd.DataFrame) -> None:
    found = next_runs(spread_fit, table, 1e9, 1e23, "best case")
    law = {name: spread_fit[name].values.ravel() for name in bd.PUBLISHED}
    six = {name: law[name] for name in SUPERVISED_PARAMETERS}
    for _, run in table.iterrows():
        if np.isnan(run["params"]):
            loss = bd.distilled_loss(run["student_params"], run["student_tokens"], run["teacher_loss"], **law)
        else:
            loss = bd.supervised_loss(run["params"], run["tokens"], **six)
        assert found["predicted_loss"].sel(candidate=run["name"]).item() == pytest.approx(loss.mean(), abs=1e-12)
        assert found["predicted_sd"].sel(candidate=run["name"]).item() == pytest.approx(loss.std(), abs=1e-12)
    # With a single decision the value in all is the value for it, and so is its error.
    np.testing.assert_allclose(found["evsi_mcse"], found["cell_evsi_mcse"].values.ravel(), rtol=1e-12)
    assert (found["evsi_mcse"] > 0).any()


def test_two_equal_runs_are_one_of_half_the_variance() -> None:
    both = pd.concat([RUN, RUN], ignore_index=True)
    found = next_run(normal_case(0.0, 0.01, 0.02), both, batch=2, outcomes=2000)
    for step, sigma in ((0, 0.02), (1, 0.02 / math.sqrt(2))):
        error = found["batch_evsi_mcse"].values[step]
        assert error < 0.12 * exact(0.0, 0.01, sigma)
        assert abs(found["batch_evsi"].values[step] - exact(0.0, 0.01, sigma)) < 3 * error


def test_second_run_is_chosen_given_the_first() -> None:
    """Two runs tell the same thing, precisely, a third tells another thing: the batch holds the third."""
    n = 4000
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((2, n)) * [[0.010], [0.008]]
    tokens = BUDGET / (3 * flops_per_token(STUDENT))
    # The advantage is one + two: A_S carries one of them, E_sup's share of A the other.
    alone = 1.5 + (300 + two * STUDENT**0.3) * STUDENT**-0.3 + 1000 * tokens**-0.35
    draws = simple(n)
    draws["A"] = 300 + two * STUDENT**0.3
    teacher = 1.5 + draws["A"] * 1e12**-0.3 + 1000 * 2e13**-0.35
    draws["A_S"] = (alone - (one + two) - teacher - 500 * tokens**-0.35) * STUDENT**0.3
    draws |= {"sigma": np.full(n, 0.002), "nu": np.full(n, 1e8)}
    table = pd.DataFrame(
        {
            "name": ["distilled", "distilled again", "alone"],
            "student_params": [STUDENT, STUDENT, np.nan],
            "student_tokens": [1e10, 1.1e10, np.nan],
            "teacher_loss": [2.0, 2.0, np.nan],
            "params": [np.nan, np.nan, STUDENT],
            "tokens": [np.nan, np.nan, 1e10],
            "cost": [1.0, 1.0, 1.0],
        }
    )
    found = next_run(posterior_of(draws, 4), table, batch=2)
    assert found["rank"].sel(candidate="alone").item() == 3
    assert found["batch_candidate"].values[1] == "alone"
    assert found["batch_position"].sel(candidate="alone").item() == 2
    assert found["batch_cost"].values.tolist() == [1.0, 2.0]


def test_run_about_something_else_is_worth_nothing() -> None:
    """A run whose outcome is the same in every draw tells nothing; one about an independent quantity next to nothing."""
    table = pd.DataFrame({"params": [STUDENT], "tokens": [1e10]})
    fit = normal_case(0.004, 0.01, 0.005)
    assert next_run(fit, table)["evsi"].item() == pytest.approx(0.0, abs=1e-15)
    # B / D^0.9 matters to short runs alone: at the budget it is 1e-6 nats. A_S makes up for the term that went.
    noise = np.random.default_rng(5).standard_normal(fit["A"].shape)
    tokens = BUDGET / (3 * flops_per_token(STUDENT))
    gone = 1000 * (tokens**-0.35 - 2e13**-0.35) * STUDENT**0.3
    other = fit.assign(B=fit["A"] * 0 + 1e4 * (1 + 0.05 * noise), beta=fit["beta"] * 0 + 0.9, A_S=fit["A_S"] - gone)
    short = pd.DataFrame({"params": [STUDENT], "tokens": [1e5]})
    short.attrs["allow_suspicious"] = True
    found = next_run(other, short)
    assert found["expected_gain"].item() == pytest.approx(0.004, abs=1e-4)
    assert found["predicted_sd"].item() > 0.01
    assert found["evpi"].item() > 0.001
    assert found["evsi"].item() <= 3 * found["evsi_mcse"].item()
    assert found["evsi"].item() < 0.01 * found["evpi"].item()


def test_run_that_tells_everything_is_worth_perfect_information() -> None:
    found = next_run(normal_case(0.002, 0.01, 1e-9, n=1000), RUN, outcomes=1000)
    assert found["evsi"].item() == pytest.approx(found["evpi"].item(), rel=0.01)
    assert found["effective_draws"].item() < 2
    assert bd.decisions.flag_names(found["status"]).item() == "few_effective_draws"


def test_perfect_information_is_the_regret_of_the_plan(spread_fit: xr.Dataset, table: pd.DataFrame) -> None:
    problem = ([3e8, 3e9], [1e20, 1e23], ["best case", "teacher pretraining + inference"])
    found, plan = next_runs(spread_fit, table, *problem), bd.plan(spread_fit, *problem)
    np.testing.assert_allclose(found["evpi"], plan["regret"], rtol=0, atol=1e-12)
    capped = (1e9, 1e24, "best case")
    limit = {"max_student_tokens": 3e10}
    np.testing.assert_allclose(
        next_runs(spread_fit, table, *capped, **limit)["expected_gain"],
        bd.plan(spread_fit, *capped, **limit)["expected_gain"],
        atol=1e-12,
    )
    np.testing.assert_allclose(found["expected_gain"], plan["expected_gain"], rtol=0, atol=1e-12)


def test_more_precise_runs_are_worth_more() -> None:
    values = [next_run(normal_case(0.003, 0.01, s), RUN)["evsi"].item() for s in (0.001, 0.003, 0.01, 0.03)]
    assert (np.diff(values) < 0).all()


def test_value_lies_between_nothing_and_perfect_information(spread_fit: xr.Dataset, table: pd.DataFrame) -> None:
    found = next_runs(spread_fit, table, [3e8, 1e9, 3e9], [1e20, 1e22, 1e24])
    assert (found["cell_evsi"] >= 0).all()
    assert (found["cell_evsi"] <= found["evpi"] + 1e-15).all()
    assert found["evsi"].max() > 0
    mean = (found["cell_evsi"] * found["weight"]).sum(["student", "scenario", "budget"])
    np.testing.assert_allclose(found["evsi"], mean, rtol=1e-12)
    np.testing.assert_allclose(found["evsi_per_flop"], found["evsi"] / found["cost"])
    assert sorted(found["rank"].values.tolist()) == [1, 2, 3, 4, 5]
    best = found["evsi_per_flop"].sortby(found["rank"])
    assert (np.diff(best) <= 0).all()


def test_order_of_candidates_changes_nothing(spread_fit: xr.Dataset, table: pd.DataFrame) -> None:
    problem = ([1e9, 3e9], [1e22, 1e23], "best case")
    there = next_runs(spread_fit, table, *problem, batch=3)
    back = next_runs(spread_fit, table.iloc[::-1], *problem, batch=3)
    xr.testing.assert_identical(there, back.sel(candidate=there["candidate"].values))


def test_weights_pick_the_decision_that_counts(spread_fit: xr.Dataset, table: pd.DataFrame) -> None:
    weights = xr.DataArray([0.0, 2.0], {"student": [1e9, 3e9]}, ["student"])
    both = next_runs(spread_fit, table, [1e9, 3e9], 1e23, "best case", cell_weights=weights)
    one = next_runs(spread_fit, table, 3e9, 1e23, "best case")
    np.testing.assert_allclose(both["evsi"], one["evsi"], rtol=1e-12)
    for bad in (weights.rename(student="size"), weights.assign_coords(student=[1e9, 4e9]), -weights, 0 * weights):
        with pytest.raises(ParameterError, match="cell_weights"):
            next_runs(spread_fit, table, [1e9, 3e9], 1e23, "best case", cell_weights=bad)


def test_cells_without_a_strategy_are_left_out(spread_fit: xr.Dataset, table: pd.DataFrame) -> None:
    found = next_runs(spread_fit, table, 1e9, [1e7, 1e23], "best case")
    assert np.isnan(found["cell_evsi"].sel(budget=1e7)).all()
    assert found["weight"].values.ravel().tolist() == [0.0, 1.0]
    one = next_runs(spread_fit, table, 1e9, 1e23, "best case")
    np.testing.assert_allclose(found["evsi"], one["evsi"], rtol=1e-12)
    with pytest.raises(ParameterError, match="no decision to inform"):
        next_runs(spread_fit, table, 1e9, 1e7, "best case")


@pytest.mark.slow
def test_batch_within_a_compute_is_the_better_of_two_greedy_ones(spread_fit: xr.Dataset, table: pd.DataFrame) -> None:
    problem = ([1e9, 3e9], [1e22, 1e23], "best case")
    costs = dict(zip(table["name"], run_costs(table), strict=True))
    for compute in (1.05 * min(costs.values()), 0.5 * sum(costs.values()), 2 * sum(costs.values())):
        found = next_runs(spread_fit, table, *problem, batch_compute=compute)
        chosen = found["batch_candidate"].values.tolist()
        spent = sum(costs[name] for name in chosen)
        assert spent <= compute
        assert found["batch_cost"].values[-1] == pytest.approx(spent)
        # Every run adds more than its error.
        assert (np.diff(found["batch_evsi"], prepend=0) > 0).all()
    everything = next_runs(spread_fit, table, *problem, batch_compute=2 * sum(costs.values()))
    assert 1 < everything.sizes["step"] <= len(table)
    assert next_runs(spread_fit, table, *problem, batch=2, batch_compute=1e30).sizes["step"] == 2
    with pytest.raises(ParameterError, match="cheapest candidate costs"):
        next_runs(spread_fit, table, *problem, batch_compute=1.0)


def test_one_dear_run_beats_many_cheap_ones_that_tell_nothing() -> None:
    """By value per FLOP the cheap, nearly useless run goes first and leaves too little for the one that tells everything."""
    fit = normal_case(0.0, 0.01, 0.02)
    # What the draws differ in, A_S / N^a, is small against the noise where N is large.
    table = pd.DataFrame(
        {
            "name": ["useless", "useful"],
            "student_params": [1e12, STUDENT],
            "student_tokens": [1e10, 1e10],
            "teacher_loss": [2.0, 2.0],
            "cost": [1.0, 100.0],
        }
    )
    table.attrs["allow_suspicious"] = True  # 0.01 tokens per parameter
    plain = next_run(fit, table, batch=2)
    assert plain["batch_candidate"].values.tolist()[0] == "useless"
    found = next_run(fit, table, batch_compute=100.0)
    assert found["batch_candidate"].values.tolist() == ["useful"]
    assert found.attrs["batch_rule"] == "evsi"


def test_an_amount_of_money_is_the_compute_that_it_buys(spread_fit: xr.Dataset, table: pd.DataFrame) -> None:
    problem = (1e9, 1e23, "best case")
    prices = {"gpu_flops_per_second": 4e14, "price_per_gpu_hour": 2.0, "currency": "EUR"}
    compute = 0.5 * run_costs(table).sum()
    money = next_runs(spread_fit, table, *problem, batch_money=compute / 4e14 / 3600 * 2, **prices)
    plain = next_runs(spread_fit, table, *problem, batch_compute=compute)
    xr.testing.assert_equal(money[list(plain)], plain)
    np.testing.assert_allclose(money["cost_money"], plain["cost"] / 4e14 / 3600 * 2)
    np.testing.assert_allclose(money["batch_cost_money"], plain["batch_cost"] / 4e14 / 3600 * 2)
    assert money["value_money"].attrs["units"] == "EUR"
    for options, message in (
        ({"batch_money": 100}, "`batch_money` requires"),
        ({"batch_money": 100, "batch_compute": 1e20, **prices}, "both given"),
        ({"batch_money": 1e-5, **prices}, "`batch_money` is 1e-05 EUR, but the cheapest candidate costs .* EUR"),
        ({"batch_compute": 1e3}, "`batch_compute` is 1e\\+03 FLOPs, but the cheapest candidate costs .* FLOPs"),
    ):
        with pytest.raises(ParameterError, match=message):
            next_runs(spread_fit, table, *problem, **options)


def test_the_price_of_logits_is_that_of_inference() -> None:
    fit = normal_case(0.0, 0.01, 0.02)
    table = pd.DataFrame(
        {"student_params": [STUDENT], "student_tokens": [1e10], "teacher_loss": [2.0], "teacher_params": [7e9]}
    )
    prices = {"gpu_flops_per_second": 4e14, "price_per_gpu_hour": 2.0}
    dear = next_run(fit, table, **prices, inference_price_per_gpu_hour=6.0)
    training, inference = 3 * flops_per_token(STUDENT) * 1e10, flops_per_token(7e9) * 1e10
    assert dear["cost"].item() == pytest.approx(training + 3 * inference)
    assert dear["cost_money"].item() == pytest.approx((2 * training + 6 * inference) / 4e14 / 3600)


def test_a_run_is_worth_the_pretraining_that_lowers_the_loss_as_much() -> None:
    fit = normal_case(0.0, 0.01, 0.02)
    table = pd.DataFrame(
        {
            "student_params": [STUDENT],
            "student_tokens": [1e10],
            "teacher_loss": [2.0],
            "cost": [1e12],
            "name": ["cheap"],
        }
    )
    found = next_run(fit, table)
    extra = found["value_flops"].item()
    loss = [
        bd.supervised_loss(STUDENT, spent / (3 * flops_per_token(STUDENT)), **{k: fit[k] for k in SUPERVISED_PARAMETERS}).mean()
        for spent in (BUDGET, BUDGET + extra)
    ]  # fmt: skip
    assert (loss[0] - loss[1]).item() == pytest.approx(found["evsi"].item(), rel=1e-6)
    assert found["worth_its_cost"].item()
    assert "1 of 1 runs are worth their cost; the best (cheap)" in found.attrs["suggestion"]
    dear = next_run(fit, table.assign(cost=1e40))
    assert not dear["worth_its_cost"].item()
    assert "None of these runs is worth its cost for one decision: the best (cheap)" in dear.attrs["suggestion"]


def test_runs_without_value_are_not_bought_and_the_answer_says_so() -> None:
    # Distillation is ahead in every draw, so no run changes the choice.
    fit = normal_case(0.5, 0.001, 0.02)
    table = pd.DataFrame({"student_params": [STUDENT] * 2, "student_tokens": [1e10, 2e10], "teacher_loss": [2.0, 2.0]})
    found = next_run(fit, table, batch_compute=1e30)
    assert found.sizes["step"] == 0
    assert not found["batch_position"].any()
    assert not found["value_flops"].any()
    assert not found["worth_its_cost"].any()
    assert "None of these runs is worth its cost: their values are 0" in found.attrs["suggestion"]
    assert "All posterior draws agree on the decision" in str(found)
    assert isinstance(bd.plot_next_runs(found), Figure)


@pytest.mark.filterwarnings("ignore::bayesdistill.ConvergenceWarning")
def test_runs_are_proposed_in_the_observed_ranges_and_progress_is_shown(fit354: xr.DataTree) -> None:
    steps: list[tuple[int, int]] = []
    teachers = pd.DataFrame({"name": ["mine"], "params": [8e9], "loss": [2.05]})
    thin = fit354.map_over_datasets(lambda d: d.isel(draw=slice(0, None, 20)) if "draw" in d.dims else d)
    planner = bd.Planner(thin, allow_unconverged=True, progress=lambda *step: steps.append(step))
    found = bd.next_runs(planner, None, "1B", 1e22, "teacher inference", teachers=teachers, outcomes=20)
    distilled = found["kind"] == "distilled"
    assert found.sizes["candidate"] == 18
    assert distilled.sum() == 9
    assert (found["teacher_loss"][distilled] == 2.05).all()
    assert (found["extrapolation_factor"][distilled] == 1).all()
    assert "teacher mine" in found["candidate"].values[0]
    # The logits of the own teacher cost.
    first = found.isel(candidate=0)
    own, teacher = flops_per_token(first["params"].item()), flops_per_token(8e9)
    assert first["cost"].item() == pytest.approx((3 * own + teacher) * first["tokens"].item())
    assert len(steps) > 5
    with pytest.raises(ParameterError, match="does not have the ranges of its runs"):
        next_run(normal_case(0.0, 0.01, 0.02), None)


def test_d_optimal_order_within_a_compute(spread_fit: xr.Dataset, table: pd.DataFrame) -> None:
    costs = dict(zip(table["name"], run_costs(table), strict=True))
    whole = information_order(spread_fit, table)
    compute = 0.5 * sum(costs.values())
    some = information_order(spread_fit, table, compute=compute)
    chosen = some["order"].values.tolist()
    spent = sum(costs[name] for name in chosen)
    assert spent <= compute < sum(costs.values())
    assert all(costs[name] > compute - spent for name in costs if name not in chosen)
    assert (some["position"] == 0).sum() == len(table) - len(chosen)
    np.testing.assert_allclose(some["information"], whole["information"])
    with pytest.raises(ParameterError, match="cheapest candidate costs"):
        information_order(spread_fit, table, compute=1.0)


def test_everything_is_labelled(spread_fit: xr.Dataset, table: pd.DataFrame, tmp_path) -> None:
    found = next_runs(spread_fit, table, 1e9, 1e23, "best case", batch=2)
    for dataset in (found, information_order(spread_fit, table)):
        for name, values in dataset.variables.items():
            assert values.attrs.get("units"), name
            assert values.attrs.get("long_name"), name
    found.to_netcdf(tmp_path / "next.nc", engine="h5netcdf")


def test_costs() -> None:
    table = pd.DataFrame(
        {
            "student_params": [1e9, 1e9, 1e9],
            "student_tokens": [2e10, 2e10, 2e10],
            "teacher_loss": [2.2, 2.2, 2.2],
            "teacher_params": [np.nan, 7e9, 7e9],
            "cost": [np.nan, np.nan, 5.0],
        }
    )
    own = 3 * flops_per_token(1e9) * 2e10
    np.testing.assert_allclose(run_costs(table), [own, own + flops_per_token(7e9) * 2e10, 5.0], rtol=1e-14)
    assert cheapest_first(table) == ["3", "1", "2"]
    assert sorted(random_order(table, seed=0)) == ["1", "2", "3"]
    orders = {tuple(random_order(table, seed=s)) for s in range(40)}
    assert len(orders) == 6


def test_scatter_that_runs_share_makes_a_run_worth_less() -> None:
    fit = normal_case(0.0, 0.01, 0.006)
    wide = fit.assign(sigma_teacher=fit["sigma"] * 0 + 0.008)
    wide.attrs["law"] = bd.law_of(fit).with_effects("teacher").to_json()
    assert next_run(wide, RUN)["evsi"].item() == pytest.approx(exact(0.0, 0.01, 0.01), rel=0.01)


def test_d_optimal_order_is_that_of_the_determinants() -> None:
    """A law linear in its parameters: the fall of the log determinant is that of a linear normal model, set by set."""
    n = 3000
    rng = np.random.default_rng(2)
    draws = simple(n)
    # Narrow, so that logarithms are linear.
    for name in ("E", "A", "B"):
        draws[name] = draws[name] * np.exp(1e-3 * rng.standard_normal(n))
    sigma, nu = 3e-3, 5.0
    fit = posterior_of(draws | {"sigma": np.full(n, sigma), "nu": np.full(n, nu)}, 4)
    table = pd.DataFrame({"params": [1e8, 1e9, 1e7, 1e8], "tokens": [1e10, 1e8, 1e9, 1.1e10]})
    table.attrs["allow_suspicious"] = True
    found = information_order(fit, table)
    logs = np.stack([np.log(draws[k]) for k in ("E", "A", "B")])
    center = {k: float(np.exp(np.log(draws[k]).mean())) for k in ("E", "A", "B")}
    slopes = np.stack(
        [
            np.full(4, center["E"]),
            center["A"] * table["params"] ** -0.3,
            center["B"] * table["tokens"] ** -0.35,
        ],
        axis=1,
    )
    prior = np.linalg.inv(np.cov(logs, bias=True))
    variance = sigma**2 * (nu + 3) / (nu + 1)

    def information(rows: list[int]) -> float:
        posterior = prior + slopes[rows].T @ slopes[rows] / variance
        return 0.5 * (np.linalg.slogdet(posterior)[1] - np.linalg.slogdet(prior)[1])

    np.testing.assert_allclose(found["information"], [information([i]) for i in range(4)], rtol=5e-3)
    order = [int(name) - 1 for name in found["order"].values]
    for step in range(1, 5):
        rows = order[:step]
        assert found["total_information"].values[step - 1] == pytest.approx(information(rows), rel=5e-3)
        others = [information([*rows[:-1], i]) for i in range(4) if i not in rows]
        assert information(rows) >= max(others, default=0.0) - 1e-9


GOOD = {"student_params": 1e9, "student_tokens": 2e10, "teacher_loss": 2.2}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"student_tokens": -1.0}, "row 2, column student_tokens: -1.0; expected a number above 0"),
        ({"teacher_loss": np.nan}, "row 2, column teacher_loss: nan is a missing value; .* columns params and tokens"),
        ({"teacher_loss": "two"}, "row 2, column teacher_loss: 'two' is not a number"),
        (
            {"student_params": 300.0},
            "row 2, column student_params: 300 is too few parameters .* probably 3e\\+08 was meant",
        ),
        (
            {"student_params": 1e18},
            "row 2, column student_params: 1e\\+18 is more parameters than any published model has",
        ),
        ({"student_tokens": 0.5}, "row 2, column student_tokens: 0.5 is too few tokens"),
        ({"cost": 0.0}, "row 2, column cost: 0.0; expected a number above 0"),
        ({"cost": "much"}, "row 2, column cost: 'much' is not a number"),
        ({"teacher_params": np.inf}, "row 2, column teacher_params: inf; expected a finite number"),
        ({"teacher_params": 7.0}, "row 2, column teacher_params: 7 is too few parameters"),
        ({"name": "first"}, "row 2, column name: 'first' is also the name in row 1"),
        ({"name": None}, "row 2, column name: the name label is missing"),
        ({"params": 1e9, "tokens": 1e10}, "row 2 has values for both kinds"),
        (
            {"params": np.nan, "tokens": np.nan, **dict.fromkeys(GOOD, np.nan)},
            "row 2 has no values",
        ),
    ],
)
def test_bad_cells_are_named(second: dict[str, object], message: str) -> None:
    frame = pd.DataFrame([GOOD | {"name": "first"}, GOOD | {"name": "second"} | second])
    with pytest.raises(DataError, match=f"`candidates`, {message}"):
        run_costs(frame)


def test_bad_arguments_are_named(spread_fit: xr.Dataset, table: pd.DataFrame) -> None:
    with pytest.raises(ParameterError, match="must be a pandas DataFrame"):
        run_costs({"params": [1e9]})  # type: ignore[arg-type]
    with pytest.raises(DataError, match="has a header but no runs"):
        run_costs(table.iloc[:0])
    with pytest.raises(DataError, match="no column 'params', which supervised runs require"):
        run_costs(table[["student_params", "tokens"]])
    for options in ({"batch": 0}, {"batch": 6}, {"outcomes": 1}, {"objective": "cheap"}):
        with pytest.raises(ParameterError, match=next(iter(options))):
            next_run(spread_fit, table, **options)
    with pytest.raises(ParameterError, match="no sigma and no nu"):
        next_run(spread_fit.drop_vars(["sigma", "nu"]), table)
    with pytest.raises(BayesdistillError, match="criterion"):
        information_order(spread_fit, table, criterion="A-optimal")


def test_proposed_runs_are_not_questioned():
    """Sizes and tokens of tiny models are those of the fitted runs."""
    ranges = {"student_params": (1e4, 1e6), "student_tokens_per_param": (0.5, 40.0), "teacher_loss": (2.0, 4.0)}
    ranges |= {"pretraining_params": (1e4, 1e6), "pretraining_tokens_per_param": (0.5, 40.0)}
    table = proposed_candidates(SimpleNamespace(ranges=ranges), None)
    found = parse_candidates(table, PUBLISHED_SHAPE, (1.0, 8.0))
    assert len(found.names) == 36
    assert found.tokens.min() == pytest.approx(5000)
