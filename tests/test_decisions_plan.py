from __future__ import annotations

import concurrent.futures as futures
import json
import tracemalloc

import law_names as laws
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from decision_cases import (
    assert_agree,
    best_of,
    brute_force,
    posterior_of,
    published,
    scattered,
    simple,
    simple_crossover,
    simple_teacher,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import t

from bayesdistill import posterior
from bayesdistill.compute import SCENARIOS, Scenario, Shape, flops_per_token
from bayesdistill.decisions import crossovers, flag_names, plan
from bayesdistill.decisions.crossover_search import changes_of_side, classify
from bayesdistill.decisions.fitted_draws import gather
from bayesdistill.decisions.reductions import probability_given, probability_positive
from bayesdistill.decisions.solving import CHOSEN, PERFECT_INFORMATION, Problem, Workers, solve
from bayesdistill.errors import ConvergenceError, ConvergenceWarning, DataError, FileError, ModelError, ParameterError
from bayesdistill.law.predictive import SHARED, Deviations
from bayesdistill.strategies import STATUS, Bounds
from bayesdistill.tables import plan_table

BEST_CASE = Scenario(0, 0)
UNITS = {"nats per token", "FLOPs", "parameters", "tokens", "1"}


@pytest.fixture(scope="module")
def small_plan() -> xr.Dataset:
    return plan(posterior_of(scattered(12), chains=2), ["300M", 3e9], [1e20, 1e22, 1e24])


# What a plan holds ----------------------------------------------------------------------------------------------------


def test_every_variable_has_units_dimensions_and_a_name(small_plan):
    for name, variable in small_plan.variables.items():
        assert variable.attrs["units"] in UNITS, name
        assert variable.attrs["long_name"], name
    cell = ("student", "scenario", "budget")
    for name in ("probability", "probability_mcse", "probability_best", "expected_gain", "regret", "evpi", "status"):
        assert small_plan[name].dims == cell
    for name in ("teacher_params", "teacher_tokens", "student_tokens", "extrapolates"):
        assert small_plan[name].dims == cell
    for name in ("distilled_loss", "advantage", "teacher_loss"):
        assert small_plan[name].dims == (*cell, "chain", "draw")
    for name in ("best_distilled_loss", "best_teacher_params"):
        assert small_plan[name].dims == (*cell, "chain", "thinned_draw")
    assert small_plan["supervised_loss"].dims == ("student", "budget", "chain", "draw")
    assert small_plan["crossover"].dims == ("student", "scenario", "chain", "thinned_draw")
    assert small_plan["student"].values.tolist() == [3e8, 3e9]
    assert small_plan["delta_pre"].values.tolist() == [0, 0, 1, 1]


def test_a_plan_survives_a_file(small_plan, tmp_path):
    small_plan.to_netcdf(tmp_path / "plan.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "plan.nc", engine="h5netcdf") as loaded:
        assert loaded.load().identical(small_plan)
    assert small_plan.attrs["max_teacher_params"] == 1e12
    assert small_plan.attrs["converged"] == "unknown"
    assert json.loads(small_plan.attrs["convergence"])["converged"] is None


# Exact answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", list(SCENARIOS.values()), ids=list(SCENARIOS))
def test_a_posterior_of_one_draw_gives_the_point_optimum(scenario):
    draws = published()
    students, budgets = [3e8, 3e9], [1e20, 1e23]
    found = plan(posterior_of(draws), students, budgets, scenario)
    for student in students:
        for budget in budgets:
            cell = found.sel(student=student, budget=budget).isel(scenario=0, chain=0, draw=0)
            oracle = brute_force(draws, student, budget, scenario)["loss"][0]
            assert cell["distilled_loss"].item() == pytest.approx(oracle, abs=1e-6)
            assert cell["best_distilled_loss"].item() == pytest.approx(oracle, abs=1e-6)
            tokens = budget / (3 * flops_per_token(student))
            alone = laws.supervised_loss(student, tokens, **{k: draws[k][0] for k in laws.SUPERVISED_PARAMETERS})
            assert cell["supervised_loss"].item() == pytest.approx(alone, abs=1e-12)
            assert cell["advantage"].item() == pytest.approx(alone - oracle, abs=1e-6)
            assert cell["probability"].item() == float(alone > oracle)
            assert cell["regret"].item() == pytest.approx(0, abs=1e-12)
            assert cell["evpi"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["teacher inference", "teacher pretraining + inference"])
def test_committed_minimises_the_mean_and_best_each_draw(name):
    draws = scattered(6)
    scenario = SCENARIOS[name]
    found = plan(posterior_of(draws), 1e9, 1e21, scenario).isel(student=0, scenario=0, budget=0, chain=0)
    committed = brute_force(draws, 1e9, 1e21, scenario, mean=True)["loss"]
    best = brute_force(draws, 1e9, 1e21, scenario)["loss"]
    assert found["distilled_loss"].mean().item() == pytest.approx(committed.mean(), abs=1e-6)
    np.testing.assert_allclose(found["best_distilled_loss"], best, atol=1e-6)
    # The chosen strategy, evaluated by the law itself, gives the stated losses and costs the budget.
    strategy = {k: found[k].item() for k in ("teacher_params", "teacher_tokens", "student_tokens")}
    sup = {k: draws[k] for k in laws.SUPERVISED_PARAMETERS}
    teacher = laws.supervised_loss(strategy["teacher_params"], strategy["teacher_tokens"], **sup)
    loss = laws.distilled_loss(1e9, strategy["student_tokens"], teacher, **draws)
    np.testing.assert_allclose(found["distilled_loss"], loss, atol=1e-12)
    np.testing.assert_allclose(found["teacher_loss"], teacher, atol=1e-12)
    flops = 3 * flops_per_token(1e9) * strategy["student_tokens"] + flops_per_token(strategy["teacher_params"]) * (
        scenario.delta_lgt * strategy["student_tokens"] + 3 * scenario.delta_pre * strategy["teacher_tokens"]
    )
    assert flops == pytest.approx(1e21, rel=1e-9)


def test_the_extension_for_weak_teachers_is_carried_into_the_plan():
    draws = scattered(4) | {"w1": np.array([0.0, 0.3, 0.6, 0.9])}
    scenario = SCENARIOS["teacher pretraining + inference"]
    found = plan(posterior_of(draws), 1e9, 3e20, scenario).isel(student=0, scenario=0, budget=0, chain=0)
    np.testing.assert_allclose(found["best_distilled_loss"], brute_force(draws, 1e9, 3e20, scenario)["loss"], atol=1e-6)
    plain = plan(posterior_of(scattered(4)), 1e9, 3e20, scenario).isel(student=0, scenario=0, budget=0, chain=0)
    better = (found["best_distilled_loss"] < plain["best_distilled_loss"] - 1e-4).values
    assert not better[0]
    assert better[3]


def test_kappa_and_omega_are_carried_into_the_plan():
    draws = scattered(4) | {"kappa": np.array([1.0, 2.0, 1.0, 3.0]), "omega": np.array([0.0, 0.0, 0.7, 1.0])}
    scenario = SCENARIOS["teacher pretraining + inference"]
    found = plan(posterior_of(draws), 1e9, 3e20, scenario).isel(student=0, scenario=0, budget=0, chain=0)
    np.testing.assert_allclose(found["best_distilled_loss"], brute_force(draws, 1e9, 3e20, scenario)["loss"], atol=1e-6)
    plain = plan(posterior_of(scattered(4)), 1e9, 3e20, scenario).isel(student=0, scenario=0, budget=0, chain=0)
    changed = abs(found["best_distilled_loss"] - plain["best_distilled_loss"]).values
    assert changed[0] < 1e-9
    assert (changed[1:] > 1e-4).all()


def test_summaries_follow_their_definitions():
    # Half of the draws have a better distilled student, half a worse one, and the better half is far better.
    draws = simple(4, B_S=[10.0, 20.0, 1100.0, 1200.0], A_S=300.0)
    found = plan(posterior_of(draws), 1e9, 1e20, "best case").isel(student=0, scenario=0, budget=0)
    tokens = 1e20 / (3 * flops_per_token(1e9))
    alone = 1.5 + 300 * 1e9**-0.3 + 1000 * tokens**-0.35
    loss = simple_teacher() + 300 * 1e9**-0.3 + draws["B_S"] * tokens**-0.35
    np.testing.assert_allclose(found["advantage"].values[0], alone - loss, atol=1e-9)
    assert found["probability"].item() == 0.5
    assert found["expected_gain"].item() == pytest.approx(alone - loss.mean(), abs=1e-9)
    regret = min(alone, loss.mean()) - np.minimum(alone, loss).mean()
    assert regret > 0
    assert found["regret"].item() == pytest.approx(regret, abs=1e-9)
    # The strongest teacher is best in every draw, so knowing the law adds nothing beyond the choice itself.
    assert found["evpi"].item() == pytest.approx(regret, abs=1e-7)


@pytest.mark.parametrize(("B_S", "expected"), [(5.0, 1.0), (2000.0, 0.0)])
def test_probability_is_one_or_zero_when_all_draws_agree(B_S, expected):
    found = plan(posterior_of(simple(8, B_S=B_S, A_S=300.0), chains=2), 1e9, [1e19, 1e20], "best case")
    assert (found["probability"] == expected).all()
    assert (found["probability_best"] == expected).all()
    assert (found["probability_mcse"] > 0).all()  # agreement of 8 draws is no certainty
    assert (found["crossover_status"] == (1 if expected else 2)).all()
    assert np.isnan(found["crossover"]).all()


def test_summaries_are_those_of_the_losses_of_the_draws(small_plan):
    alone, committed = small_plan["supervised_loss"], small_plan["distilled_loss"]
    best, draws = best_of(small_plan), ("chain", "draw")
    chosen = np.minimum(alone.mean(draws), committed.mean(draws))
    wanted = {
        "expected_gain": (alone - committed).mean(draws),
        "regret": chosen - np.minimum(alone, committed).mean(draws),
        "evpi": chosen - np.minimum(alone, best).mean(draws),
        "probability": (alone > committed).mean(draws),
        "probability_best": (alone > best).mean(draws),
    }
    for name, values in wanted.items():
        np.testing.assert_allclose(small_plan[name], values.transpose(*small_plan[name].dims), atol=1e-12, err_msg=name)
    # Adapting the strategy is worth something of its own, or the three could not be told apart.
    assert (small_plan["evpi"] > small_plan["regret"] + 1e-5).any()


def test_best_strategies_are_worth_what_they_say_and_cost_the_budget(small_plan):
    draws = {k: v.reshape(2, 6) for k, v in scattered(12).items()}
    six = {k: draws[k] for k in laws.SUPERVISED_PARAMETERS}
    for i, j, k in np.ndindex(2, 4, 3):
        cell = small_plan.isel(student=i, scenario=j, budget=k)
        params, tokens, own = (cell[f"best_{k}"].values for k in ("teacher_params", "teacher_tokens", "student_tokens"))
        teacher = laws.supervised_loss(params, tokens, **six)
        np.testing.assert_allclose(cell["best_teacher_loss"], teacher, atol=1e-9)
        loss = laws.distilled_loss(cell["student"].item(), own, teacher, **draws)
        np.testing.assert_allclose(cell["best_distilled_loss"], loss, atol=1e-9)
        charged = cell["delta_lgt"].item() * own + 3 * cell["delta_pre"].item() * tokens
        spent = 3 * flops_per_token(cell["student"].item()) * own + flops_per_token(params) * charged
        np.testing.assert_allclose(spent, cell["budget"].item(), rtol=1e-9)


def test_only_a_lead_counts_not_a_tie():
    fitted = gather(posterior_of(published(4)), False)
    share, error = probability_positive(fitted, np.array([[-1.0, 0.0, 0.0, 1e-12], [1.0, np.nan, 1.0, 1.0]]))
    np.testing.assert_array_equal(share, [0.25, np.nan])
    assert np.isfinite(error[0])


def test_a_conditional_probability_has_the_error_of_the_draws_that_fulfil_the_condition():
    rng = np.random.default_rng(3)
    fitted = gather(posterior_of(published(8000), 4), False)
    condition, holds = rng.uniform(size=(2, 1, 8000)) < [[[0.2]], [[0.3]]]
    share, error = probability_given(fitted, holds, condition)
    assert share[0] == pytest.approx(holds[condition].mean(), abs=1e-12)
    assert error[0] == pytest.approx(np.sqrt(0.3 * 0.7 / 1600), rel=0.1)
    nobody, unknown = probability_given(fitted, holds, condition & False)
    assert np.isnan(nobody).all()
    assert np.isnan(unknown).all()


def test_evpi_is_at_least_regret_and_neither_is_negative(small_plan):
    assert (small_plan["regret"] >= 0).all()
    assert (small_plan["evpi"] >= small_plan["regret"] - 1e-9).all()
    assert (best_of(small_plan) <= small_plan["distilled_loss"] + 1e-9).all()


def test_perfect_information_of_thinned_draws_is_that_of_these_draws_and_its_value_is_within_its_error():
    fit = posterior_of(scattered(600), chains=2)
    cells = (fit, 1e9, np.geomspace(1e20, 1e24, 9), ["best case", "teacher pretraining"])
    whole, some = plan(*cells, draws=600), plan(*cells, draws=60)
    assert whole.sizes["thinned_draw"] == whole.sizes["draw"] == 300
    assert some.sizes["thinned_draw"] == 30
    assert some["thinned_draw"].values[[0, -1]].tolist() == whole["draw"].values[[0, -1]].tolist()
    same = whole.sel(thinned_draw=some["thinned_draw"])
    for name in ("best_distilled_loss", "best_teacher_loss", "best_student_tokens", "crossover"):
        np.testing.assert_allclose(some[name], same[name], rtol=1e-6)
    for name in ("distilled_loss", "probability", "regret", "advantage"):
        xr.testing.assert_identical(some[name], whole[name])
    for name in ("evpi", "probability_best"):
        error = np.hypot(some[f"{name}_mcse"], whole[f"{name}_mcse"])
        assert (np.abs(some[name] - whole[name]) <= 4 * error + 1e-12).all()
        assert (some[f"{name}_mcse"] >= whole[f"{name}_mcse"] * 0.99).mean() > 0.9
    assert (some["evpi"] > some["regret"]).any()
    for wrong in (0, 2.5, True):
        with pytest.raises(ParameterError, match="draws"):
            plan(*cells, draws=wrong)


@pytest.mark.parametrize("step", [7, pytest.param(3, marks=pytest.mark.slow)])
def test_neighbors_along_the_budgets_do_not_change_the_optimum(step):
    """Plans of many close budgets start from neighbors; each budget alone does not."""
    budgets = np.geomspace(1e18, 1e26, 41)
    fit = posterior_of(scattered(40))
    options = {"scenarios": [*SCENARIOS, Scenario(0.3, 0.2)], "max_student_tokens": 3e12}
    together = best_of(plan(fit, [1e8, 3e9], budgets, **options))
    for k in range(1, 41, step):
        alone = best_of(plan(fit, [1e8, 3e9], budgets[k], **options))
        np.testing.assert_allclose(together.isel(budget=[k]), alone, atol=1e-9, rtol=0)


# Crossovers -----------------------------------------------------------------------------------------------------------


def test_crossover_is_the_closed_form_root_whatever_the_grid():
    draws = simple(3, B_S=[300.0, 600.0, 900.0], A_S=[420.0, 400.0, 410.0])
    expected = [simple_crossover(1e9, b, a) for b, a in zip(draws["B_S"], draws["A_S"], strict=True)]
    coarse = plan(posterior_of(draws), 1e9, [1e17, 1e27], "best case")
    fine = plan(posterior_of(draws), 1e9, np.geomspace(1e17, 1e27, 23), "best case")
    for found in (coarse, fine):
        assert flag_names(found["crossover_status"]).values.ravel().tolist() == ["crossed"] * 3
        np.testing.assert_allclose(found["crossover"].values.ravel(), expected, rtol=1e-5)
        assert (found["crossover_sign_changes"] == 1).all()


@pytest.mark.parametrize("strategy", ["plan", "best", "committed"])
@pytest.mark.parametrize("listed", [False, True])
def test_crossover_knows_the_shape_and_the_table(strategy, listed):
    """The closed form with another architecture, and with a teacher whose loss is measured."""
    shape = Shape(context_length=100_000, vocabulary_size=300_000, aspect_ratio=40.0)
    draws = simple(2, B_S=[300.0, 600.0], A_S=[420.0, 405.0])
    expected = np.array([simple_crossover(1e9, b, a, shape) for b, a in ((300.0, 420.0), (600.0, 405.0))])
    options = {"shape": shape}
    if listed:
        options["teachers"] = pd.DataFrame({"params": [2e9, 1e9], "loss": [1.9, 1.8]})
        excess = 1.8 + (draws["A_S"] - 300) * 1e9**-0.3 - 1.5
        expected = 3 * flops_per_token(1e9, shape) * ((1000 - draws["B_S"]) / excess) ** (1 / 0.35)
    budgets = np.geomspace(1e15, 1e28, 7)
    fit = posterior_of(draws)
    if strategy == "plan":
        found = plan(fit, 1e9, budgets, "best case", **options)
    else:
        found = crossovers(fit, 1e9, "best case", budgets=budgets, strategy=strategy, **options)
    np.testing.assert_allclose(found["crossover"].values.ravel(), expected, rtol=1e-3)


def test_crossover_of_a_plan_is_that_of_the_best_strategy():
    budgets = np.geomspace(1e20, 1e27, 57)
    found = plan(posterior_of(scattered(8)), 1e9, budgets, "teacher inference").isel(student=0, scenario=0, chain=0)
    alone = found["supervised_loss"].transpose("budget", "draw").values
    for losses, same in ((best_of(found), True), (found["distilled_loss"], False)):
        known = classify(alone - losses.transpose("budget", "draw").values, budgets)
        crossed = known["status"] == 0
        inside = (found["crossover"] > budgets[known["lower"]]) & (found["crossover"] < budgets[known["upper"]])
        agrees = (found["crossover_status"].values == known["status"]) & (inside.values | ~crossed)
        # The chosen strategy is overtaken earlier, or this could not tell.
        assert crossed.sum() >= 3
        assert agrees.all() == same


def test_crossover_between_published_curves_is_a_root_of_the_advantage():
    draws = published()
    found = plan(posterior_of(draws), 1e9, np.geomspace(1e19, 1e25, 13), "teacher pretraining")
    assert flag_names(found["crossover_status"]).item() in ("crossed", "reversed", "never", "always")
    budgets = np.geomspace(1e19, 1e25, 13)
    signs = (found["supervised_loss"] > found["best_distilled_loss"]).values.ravel()
    if flag_names(found["crossover_status"]).item() == "crossed":
        at = found["crossover"].item()
        again = plan(posterior_of(draws), 1e9, [at], "teacher pretraining")
        assert abs(again["advantage"].item()) < 1e-7
        assert budgets[:-1][signs[:-1] & ~signs[1:]][-1] < at < budgets[1:][signs[:-1] & ~signs[1:]][-1]


def test_classify_reads_every_pattern_of_signs():
    nan = np.nan
    columns = {
        "crossed": [1, 1, -1, -1],
        "always": [1, 1, 1, 1],
        "never": [-1, -1, -1, -1],
        "reversed": [-1, -1, -1, 1],
        "window": [-1, 1, 1, -1],
        "twice": [1, -1, 1, -1],
    }
    found = classify(np.array(list(columns.values()), dtype=float).T, np.arange(4.0))
    assert found["status"].tolist() == [0, 1, 2, 3, 0, 0]
    assert found["sign_changes"].tolist() == [1, 0, 0, 1, 2, 3]
    assert found["lower"].tolist() == [1, 0, 0, 2, 2, 2]
    assert found["upper"].tolist() == [2, 0, 0, 3, 3, 3]
    partly = classify(np.array([[nan, nan], [1, -1], [-1, -1]], dtype=float), np.arange(3.0))
    assert partly["status"].tolist() == [0, 2]
    assert partly["lower"][0] == 1
    assert classify(np.full((3, 2), nan), np.arange(3.0))["status"].tolist() == [4, 4]


def test_changes_of_side_are_exact_for_constructed_draws():
    """The advantage is linear in the log of the budget between its values, so that interpolation is exact."""
    budgets = np.array([1.0, 10.0, 100.0, 1000.0, 1e4])
    nan = np.nan
    draws = {
        "never": [-1, -2, -1, -3, -1],
        "once": [1, 3, -1, -1, -2],
        "twice": [-1, 1, 1, 3, -1],
        "three times": [1, -3, 1, 1, -1],
        "touches zero": [1, 0, 1, 1, 1],
    }
    advantage = np.array(list(draws.values()), dtype=float).T
    found = changes_of_side(np.stack([advantage, np.where(np.arange(5)[:, None] == 0, nan, advantage)]), budgets)
    np.testing.assert_allclose(np.log10(found["first_change"][0]), [nan, 1.75, 0.5, 0.25, 1])
    np.testing.assert_allclose(np.log10(found["last_change"][0]), [nan, 1.75, 3.75, 3.5, 1])
    assert found["side_changes"][0].tolist() == [0, 1, 2, 3, 2]
    assert found["several_changes"].tolist() == [3, 1]
    # The smallest budget has no strategy.
    np.testing.assert_allclose(np.log10(found["first_change"][1]), [nan, 1.75, 3.75, 1.75, 1])
    np.testing.assert_allclose(np.log10(found["last_change"][1]), [nan, 1.75, 3.75, 3.5, 1])
    assert found["side_changes"][1].tolist() == [0, 1, 1, 2, 1]
    nothing = changes_of_side(np.full((3, 2), nan), budgets[:3])
    assert np.isnan(nothing["first_change"]).all()
    assert nothing["several_changes"] == 0


# Invariance -----------------------------------------------------------------------------------------------------------


def test_order_of_students_and_budgets_changes_nothing(small_plan):
    other = plan(posterior_of(scattered(12), chains=2), [3e9, 3e8], [1e24, 1e20, 1e22])
    assert_agree(other.sel(student=[3e8, 3e9]), small_plan)


def test_pieces_threads_and_executors_change_nothing(small_plan):
    fit = posterior_of(scattered(12), chains=2)
    arguments = (fit, ["300M", 3e9], [1e20, 1e22, 1e24])
    assert_agree(plan(*arguments, piece=1), small_plan)
    assert_agree(plan(*arguments, threads=2), small_plan)
    with futures.ThreadPoolExecutor(2) as pool:
        assert_agree(plan(*arguments, executor=pool, piece=1), small_plan)


@pytest.mark.slow
def test_processes_and_a_dask_cluster_change_nothing(small_plan):
    distributed = pytest.importorskip("distributed")
    fit = posterior_of(scattered(12), chains=2)
    arguments = (fit, ["300M", 3e9], [1e20, 1e22, 1e24])
    with futures.ProcessPoolExecutor(2) as pool:
        assert_agree(plan(*arguments, executor=pool, piece=1), small_plan)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert_agree(plan(*arguments, executor=client.get_executor(), piece=1), small_plan)


def test_a_posterior_in_dask_arrays_is_the_same_posterior(small_plan):
    pytest.importorskip("dask")
    chunked = posterior_of(scattered(12), chains=2).chunk(chain=1, draw=4)
    xr.testing.assert_identical(plan(chunked, ["300M", 3e9], [1e20, 1e22, 1e24]), small_plan)


@pytest.mark.parametrize("kind", [PERFECT_INFORMATION, CHOSEN])
def test_memory_beyond_the_answer_does_not_grow_with_the_budgets(kind):
    def beyond(n_budgets: int) -> float:
        problem = Problem(np.array([1e9]), np.geomspace(1e19, 1e24, n_budgets), (BEST_CASE,), Bounds())
        tracemalloc.start()
        found = solve(kind, draws, problem, Workers(threads=1, piece=4))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak - sum(values.nbytes for values in found.values())

    draws = posterior.draws_of(posterior_of(scattered(64)))
    beyond(4)  # loads modules, which takes memory of its own
    few = beyond(8)
    assert beyond(64) < few + 100_000  # the answer has 200,000 bytes for 64 budgets, a piece of it 12,000


def test_progress_reports_every_piece():
    seen: list[tuple[int, int]] = []
    plan(posterior_of(published()), [1e9, 2e9], [1e20, 1e21], "best case", piece=1, progress=lambda *a: seen.append(a))
    starts = [i for i, (done, _) in enumerate(seen) if done == 0]
    assert seen[starts[0]] == (0, 4)
    assert (4, 4) in seen
    assert all(total == seen[starts[0]][1] for _, total in seen[: starts[1]])


def test_a_bar_is_drawn_and_leaves_the_result_alone():
    fit = posterior_of(published())
    xr.testing.assert_identical(plan(fit, [1e9, 2e9], 1e20, progress=True), plan(fit, [1e9, 2e9], 1e20))


# Noise ----------------------------------------------------------------------------------------------------------------


def test_run_noise_widens_the_advantage_and_leaves_the_law_alone():
    n = 4000
    draws = simple(n, B_S=500.0, A_S=250.0) | {"sigma": np.full(n, 0.05), "nu": np.full(n, 30.0)}
    fit = posterior_of(draws, chains=4)
    law = plan(fit, 1e9, [1e22], "best case", draws=n)
    run = plan(fit, 1e9, [1e22], "best case", noise="run", seed=3, draws=n)
    again = plan(fit, 1e9, [1e22], "best case", noise="run", seed=3, draws=n)
    other = plan(fit, 1e9, [1e22], "best case", noise="run", seed=4)
    assert law["probability"].item() == 1
    gain = law["advantage"].mean().item()
    # The difference of two t(30) residuals of scale 0.05 is close to a normal of variance 2 * 0.05^2 * 30/28.
    from scipy.stats import norm

    expected = norm.cdf(gain / (0.05 * np.sqrt(2 * 30 / 28)))
    assert 0.6 < expected < 0.95
    assert run["probability"].item() == pytest.approx(expected, abs=4 * run["probability_mcse"].item())
    assert run["advantage"].std().item() == pytest.approx(0.05 * np.sqrt(2 * 30 / 28), rel=0.05)
    for name in ("expected_gain", "regret", "evpi", "distilled_loss", "supervised_loss", "crossover"):
        xr.testing.assert_identical(run[name], law[name])
    # The strongest teacher is the best in every draw, so that both strategies are one, with residual noise too.
    assert run["probability_best"].item() == run["probability"].item()
    xr.testing.assert_identical(run, again)
    assert run["probability"].item() != other["probability"].item()
    assert run.attrs["noise"] == "run"
    assert run.attrs["noise_seed"] == 3


@pytest.mark.parametrize("level", ["law", "run"])
def test_quantiles_of_losses_are_those_of_the_draws_at_the_level(jittered_draws, level):
    found = plan(
        jittered_draws, [3e8, 1e9], [1e15, 1e21], ["best case", Scenario(1, 0.5)], noise=level, seed=3, draws=4
    )
    draws = gather(jittered_draws).draws
    size, shape = found["student"].values[:, None, None, None], (2, 2, 2, 1000)
    own = found["budget"].values[:, None] / (3 * flops_per_token(size[:, 0]))
    np.testing.assert_allclose(found["pretraining_tokens"], own[..., 0], rtol=1e-12)
    alone = np.broadcast_to(found["supervised_loss"].values.reshape(2, 1, 2, -1), shape)
    distilled = found["distilled_loss"].values.reshape(shape)
    if level == "run":
        noise, tokens = Deviations.draw(draws, 3, "run"), found["student_tokens"].values[..., None]
        alone = alone + noise.pretrained(size, own[:, None])
        distilled = distilled + noise.distilled(size, tokens, found["teacher_loss"].values.reshape(shape))
    np.testing.assert_allclose(found["advantage"].values.reshape(shape), alone - distilled, atol=1e-12)
    levels = found["quantile"].values
    for name, values in (("supervised_loss", alone[:, 0]), ("distilled_loss", distilled)):
        expected = np.moveaxis(np.quantile(values, levels, axis=-1, method="inverted_cdf"), 0, -1)
        np.testing.assert_allclose(found[f"{name}_quantile"], expected, atol=1e-12)
        assert found[f"{name}_quantile"].attrs["noise"] == level
    row = plan_table(found).iloc[0]
    assert row["distilled_loss_lower"] == found["distilled_loss_quantile"].values[0, 0, 0, 0]
    assert row["supervised_loss_median"] == found["supervised_loss_quantile"].values[0, 0, 2]


@given(
    st.floats(1e8, 1e10), st.floats(1e19, 1e24), st.floats(0, 1), st.floats(0, 1), st.sampled_from([None, 1e10]),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=8, deadline=None)
def test_the_shares_of_a_budget_are_its_costs(student, budget, lgt, pre, cap, existing):
    teachers = pd.DataFrame({"params": [3e9], "loss": [2.1]}) if existing else None
    pre = 0.0 if existing else pre
    scenario = Scenario(lgt, pre)
    found = plan(
        posterior_of(published()), student, budget, scenario, teachers=teachers, max_student_tokens=cap, progress=False
    ).squeeze()
    own, taught = found["student_tokens"].item(), found["teacher_tokens"].item()
    size = flops_per_token(found["teacher_params"].item())
    costs = {
        "student_share": 3 * flops_per_token(student) * own,
        "teacher_inference_share": lgt * size * own,
        "teacher_training_share": 3 * pre * size * taught if pre else 0.0,
    }
    for name, cost in costs.items():
        assert found[name].item() == pytest.approx(cost / budget, rel=1e-9)
    total = sum(found[name].item() for name in costs)
    capped = cap is not None and own == pytest.approx(cap)
    assert total <= 1 + 1e-9 if capped else total == pytest.approx(1, rel=1e-9)


def test_configuration_scatter_enters_run_noise():
    n = 4000
    quiet = {"sigma": np.full(n, 1e-9), "nu": np.full(n, 30.0)}
    effects = {"sigma_teacher": np.full(n, 0.03), "sigma_student": np.full(n, 0.02)}
    fit = posterior_of(simple(n, A_S=300.0) | quiet | effects)
    run = plan(fit, 1e9, [1e22], "best case", noise="run")
    assert run["advantage"].std().item() == pytest.approx(np.sqrt(0.03**2 + 2 * (1 - SHARED) * 0.02**2), rel=0.05)


def test_residuals_have_the_tails_of_the_posterior():
    n = 40_000
    fitted = gather(posterior_of(published(n) | {"sigma": np.full(n, 0.02), "nu": np.full(n, 3.0)}), False)
    noise = Deviations.draw(fitted.draws, 1)
    distilled, pretrained = noise.distilled(1e9, 1e10, 2.0), noise.pretrained(1e9, 1e10)
    for scatter in (distilled, pretrained):
        for q in (0.75, 0.99):
            assert np.quantile(np.abs(scatter), q) == pytest.approx(0.02 * t.ppf((1 + q) / 2, 3), rel=0.06)
    assert abs(np.corrcoef(np.sign(distilled), np.sign(pretrained))[0, 1]) < 0.03


def test_slopes_of_configurations_enter_run_noise_with_the_teacher_of_the_cell():
    n = 4000
    quiet = {"sigma": np.full(n, 1e-9), "nu": np.full(n, 30.0), "sigma_student_slope": np.full(n, 0.01)}
    fit = posterior_of(simple(n, A_S=300.0) | quiet)
    fit.attrs["reference"] = json.dumps({"params": 1e9, "tokens": 1e10, "teacher_loss": 2.5})
    plans = {noise: plan(fit, 1e9, [1e21, 1e22], "best case", noise=noise) for noise in ("law", "run")}
    scatter = (plans["run"]["advantage"] - plans["law"]["advantage"]).squeeze(["student", "scenario"])
    axis = 10 * np.log(plans["run"]["teacher_loss"].isel(draw=0).squeeze() / 2.5)
    assert abs(axis.values).min() > 0.5  # teachers far enough from where slopes begin
    per_axis = scatter / axis
    assert per_axis.std("draw").values == pytest.approx(0.01, rel=0.05)
    # One slope for a draw, whatever the budget.
    np.testing.assert_allclose(per_axis.isel(budget=0), per_axis.isel(budget=1), atol=1e-9)
    del fit.attrs["reference"]
    with pytest.raises(ParameterError, match="attribute 'reference'"):
        plan(fit, 1e9, [1e22], "best case", noise="run")


def test_supervised_runs_may_have_a_scatter_of_their_own():
    n = 4000
    scales = {"sigma": np.full(n, 1e-9), "sigma_supervised": np.full(n, 0.04), "nu": np.full(n, 30.0)}
    run = plan(posterior_of(simple(n, A_S=300.0) | scales), 1e9, [1e22], "best case", noise="run")
    assert run["advantage"].std().item() == pytest.approx(0.04 * np.sqrt(30 / 28), rel=0.05)


def test_run_noise_needs_a_posterior_that_has_it():
    with pytest.raises(ParameterError, match="noise='law'"):
        plan(posterior_of(published()), 1e9, 1e20, noise="run")


# Extrapolation --------------------------------------------------------------------------------------------------------


def tree_of(draws: dict, chains: int = 1) -> xr.DataTree:
    seen = xr.Dataset(
        {
            "student_params": ("run", [1e8, 1e9]),
            "student_tokens": ("run", [2e9, 1.6e11]),
            "teacher_loss": ("run", [1.5, 2.9]),
        }
    )
    return xr.DataTree.from_dict({"posterior": posterior_of(draws, chains), "constant_data": seen})


def test_extrapolation_names_the_axis_and_the_factor():
    near = {"max_teacher_params": 1.2e10, "max_teacher_tokens": 1.2e12}
    found = plan(tree_of(simple()), [5e8, 1e11], [1e20, 1e22], "best case", **near)
    factor = found["extrapolation_factor"].sel(scenario="best case")
    inside = factor.sel(student=5e8, budget=1e20)
    tokens_per_param = 1e20 / (3 * flops_per_token(5e8)) / 5e8
    assert 20 < tokens_per_param < 160
    assert inside.values.tolist() == [1.0] * 7
    assert not found["extrapolates"].sel(student=5e8, budget=1e20).item()
    too_long = factor.sel(student=5e8, budget=1e22)
    expected = 1e22 / (3 * flops_per_token(5e8)) / 5e8 / 160
    np.testing.assert_allclose(too_long, [1.0, expected, 1.0, 1.0, expected, 1.0, 1.0])
    large = factor.sel(student=1e11, budget=1e22)
    few = 20 / (1e22 / (3 * flops_per_token(1e11)) / 1e11)
    # The distilled runs begin at 20 tokens per parameter, the supervised ones at 10.
    np.testing.assert_allclose(large, [100.0, few, 1.0, 1e11 / 12.6e9, few / 2, 1.0, 1.0])
    axes = flag_names(found["extrapolation_axis"]).isel(scenario=0)
    assert axes.values.tolist() == [["none", "student_tokens_per_param"], ["student_tokens_per_param"] * 2]
    np.testing.assert_array_equal(found["extrapolation"], found["extrapolation_factor"].max("axis"))
    assert found["extrapolates"].sel(student=[5e8, 1e11], budget=1e22).all()
    assert found.attrs["supervised_range"] == "data of the published law"


@pytest.mark.parametrize(
    ("limits", "axis", "wanted"),
    [
        # 78,125 tokens per parameter; the data of the supervised law end at 160.
        ({"max_teacher_params": 256e6, "max_teacher_tokens": 2e13}, "teacher_tokens_per_param", 2e13 / 256e6 / 160),
        ({"max_teacher_params": 1e12, "max_teacher_tokens": 2e13}, "teacher_params", 1e12 / 12.6e9),
    ],
)
def test_the_size_and_tokens_of_a_new_teacher_are_extrapolated(limits, axis, wanted):
    fit = tree_of(simple())
    limits = {**limits, "max_extrapolation": None}
    found = plan(fit, 5e8, 1e20, "best case", **limits).squeeze()
    assert found["extrapolates"].item()
    assert flag_names(found["extrapolation_axis"]).item() == axis
    assert found["extrapolation_factor"].sel(axis=axis).item() == pytest.approx(wanted, rel=1e-6)
    assert found["extrapolation"].item() == pytest.approx(wanted, rel=1e-6)
    # The loss of an existing teacher is measured.
    teachers = pd.DataFrame({"params": [1e12], "loss": [2.2], "tokens": [7.8e16]})
    assert not plan(fit, 5e8, 1e20, "best case", teachers=teachers)["extrapolates"].any()
    row = plan_table(plan(fit, 5e8, [1e20, 1e22], "best case", **limits)).iloc[0]
    assert (row["extrapolation_axis"], row["extrapolation"]) == (axis, pytest.approx(wanted, rel=1e-6))


def size_with(loss: float, irreducible: float = 1.55) -> float:
    """The size that has a loss under the law of `simple` on 20 tokens per parameter."""

    def excess(x: float) -> float:
        return irreducible + 300 * np.exp(-0.3 * x) + 1000 * (20 * np.exp(x)) ** -0.35 - loss

    return float(np.exp(brentq(excess, 0, 60)))


def test_extrapolation_is_of_the_mean_teacher_loss_and_of_capped_tokens():
    seen = xr.Dataset(
        {
            "student_params": ("run", [1e8, 1e10]),
            "student_tokens": ("run", [2e9, 1.6e12]),
            "teacher_loss": ("run", [2.5, 2.9]),
        }
    )
    draws = simple(400)
    draws["E"] = 1.5 + 0.1 * np.tile([-1.0, 0.0, 1.0, 2.0], 100)
    tree = xr.DataTree.from_dict({"posterior": posterior_of(draws, 4), "constant_data": seen})
    found = plan(tree, 1e9, 1e24, "best case", max_student_tokens=3.2e11, max_extrapolation=None)
    factor = found["extrapolation_factor"].isel(student=0, scenario=0, budget=0)
    # A draw may lie farther outside than the mean, which is what the one teacher is judged by.
    assert factor.sel(axis="teacher_loss").item() == pytest.approx(
        size_with(simple_teacher() + 0.05) / size_with(2.5), rel=2e-3
    )
    # The budget would buy 20 times as many tokens; neither student sees them.
    assert factor.sel(axis="student_tokens_per_param").item() == pytest.approx(320 / 160)
    assert factor.sel(axis="pretraining_tokens_per_param").item() == pytest.approx(320 / 160)


def test_without_known_runs_nothing_is_vouched_for(small_plan):
    assert small_plan["extrapolates"].all()
    assert np.isnan(small_plan["extrapolation_factor"]).all()
    assert small_plan.attrs["supervised_range"] == "unknown"


# Bounds, statuses, teachers -------------------------------------------------------------------------------------------


def test_existing_teachers_without_tokens_are_not_charged_for_pretraining_by_default():
    teachers = pd.DataFrame({"params": [3e9], "loss": [2.1]})
    found = plan(posterior_of(scattered(3)), 1e9, 1e21, teachers=teachers)
    assert found["scenario"].values.tolist() == ["best case", "teacher inference"]
    assert np.isfinite(found["probability"]).all()
    whole = plan(posterior_of(scattered(3)), 1e9, 1e21, teachers=teachers.assign(tokens=6e10))
    assert whole["scenario"].values.tolist() == list(SCENARIOS)
    np.testing.assert_allclose(found["expected_gain"], whole["expected_gain"].isel(scenario=[0, 1]), rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "value", "words"), [("A", -1.0, "a positive number"), ("nu", 0.5, "a number above 1")]
)
def test_an_invalid_draw_is_an_error_that_names_it(name, value, words):
    draws = posterior_of(scattered(6) | {"sigma": np.full(6, 0.01), "nu": np.full(6, 5.0)}, chains=2)
    draws[name].values[1, 2] = value
    with pytest.raises(ModelError, match=rf"{name} is {value:g} \(chain 1, draw 2\), but must be {words}. 1 of 6"):
        plan(draws, 1e9, 1e21)


def test_a_budget_too_small_is_a_status_not_an_exception():
    found = plan(posterior_of(scattered(3)), 1e9, [1e10, 1e21], "teacher pretraining + inference")
    tiny, fine = found.isel(student=0, scenario=0, budget=0), found.isel(student=0, scenario=0, budget=1)
    assert flag_names(tiny["status"]).item() == "budget_too_small"
    assert fine["status"].item() < STATUS.index("budget_too_small")
    for name in ("probability", "probability_mcse", "probability_best", "expected_gain", "regret", "evpi"):
        assert np.isnan(tiny[name].item()), name
        assert np.isfinite(fine[name].item()), name
    assert not tiny["extrapolates"].item()
    only = plan(posterior_of(scattered(3)), 1e9, [1e10], "teacher pretraining + inference")
    assert set(flag_names(only["crossover_status"]).values.ravel()) == {"impossible"}


def test_student_tokens_are_bounded_for_both_options():
    cap = 1e10
    found = plan(posterior_of(published()), 1e9, 1e24, "best case", max_student_tokens=cap)
    assert found["student_tokens"].item() == pytest.approx(cap, rel=1e-9)
    sup = {k: laws.PUBLISHED[k] for k in laws.SUPERVISED_PARAMETERS}
    assert found["supervised_loss"].item() == pytest.approx(laws.supervised_loss(1e9, cap, **sup), abs=1e-12)
    assert found.attrs["max_student_tokens"] == cap


def test_scenarios_that_existing_teachers_exclude_are_named(tmp_path):
    teachers = pd.DataFrame({"name": ["a", "b"], "params": [3e9, 1e9], "loss": [2.1, 2.3]})
    teachers.to_csv(tmp_path / "mine.csv", index=False)
    fit = posterior_of(scattered(3))
    found = plan(fit, 1e9, 1e21, teachers=tmp_path / "mine.csv")
    assert_agree(found, plan(fit, 1e9, 1e21, teachers=teachers))
    assert found["scenario"].values.tolist() == ["best case", "teacher inference"]
    note = found.attrs["scenarios_left_out"]
    assert "'teacher pretraining' and 'teacher pretraining + inference'" in note
    assert note in repr(found)
    half = teachers.assign(tokens=[6e10, np.nan])  # one of them cannot be charged
    assert plan(fit, 1e9, 1e21, teachers=half)["scenario"].values.tolist() == ["best case", "teacher inference"]
    for complete in ({"teachers": teachers.assign(tokens=6e10)}, {"teachers": teachers, "scenarios": "best case"}, {}):
        assert "scenarios_left_out" not in plan(fit, 1e9, 1e21, **complete).attrs
    with pytest.raises(FileError, match=r"nowhere\.csv does not exist"):
        plan(fit, 1e9, 1e21, teachers="nowhere.csv")


def test_existing_teachers_are_chosen_from():
    draws = scattered(5)
    table = pd.DataFrame({"name": ["small", "large"], "params": [1e9, 1e11], "loss": [2.3, 1.9]})
    found = plan(posterior_of(draws), 1e9, [1e20, 1e21], ["best case", "teacher inference"], teachers=table)
    for scenario in ("best case", "teacher inference"):
        for budget in (1e20, 1e21):
            cell = found.sel(student=1e9, scenario=scenario, budget=budget).isel(chain=0)
            share = SCENARIOS[scenario].delta_lgt
            per_token = 3 * flops_per_token(1e9) + share * flops_per_token(table["params"].to_numpy())
            losses = np.stack(
                [
                    laws.distilled_loss(1e9, budget / c, t, **draws)
                    for c, t in zip(per_token, table["loss"], strict=True)
                ]
            )
            committed = int(np.argmin(losses.mean(axis=1)))
            assert cell["teacher_index"].item() == committed
            np.testing.assert_allclose(cell["distilled_loss"], losses[committed], atol=1e-12)
            np.testing.assert_allclose(cell["best_distilled_loss"], losses.min(axis=0), atol=1e-12)
            assert (cell["best_teacher_index"].values == losses.argmin(axis=0)).all()
            assert (cell["teacher_loss"] == table["loss"][committed]).all()
    assert found["teacher"].values.tolist() == ["small", "large"]


# Invalid arguments ----------------------------------------------------------------------------------------------------


TEACHERS = pd.DataFrame({"params": [1e9, 7e9], "loss": [2.3, 2.0], "tokens": [2e10, 1.4e11], "name": ["a", "b"]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"students": []}, "students.*empty"),
        ({"students": 143}, "students.*143M"),
        ({"students": "1Q"}, "'1Q' in `students`"),
        ({"students": [1e9, "1B"]}, "students.*more than once"),
        ({"students": [1e9, np.nan]}, "students"),
        ({"students": True}, "students"),
        ({"students": [[1e9]]}, "students"),
        ({"budgets": -1.0}, "budgets"),
        ({"budgets": [1e20, np.inf]}, "budgets"),
        ({"budgets": ["many"]}, "'many' in `budgets`"),
        ({"scenarios": "free lunch"}, "free lunch.*best case"),
        ({"scenarios": []}, "scenarios.*empty"),
        ({"scenarios": 3}, "scenarios"),
        ({"scenarios": ["best case", Scenario(0, 0)]}, "scenarios.*more than once"),
        ({"noise": "loud"}, "noise.*'law', 'expected' or 'run'"),
        ({"max_teacher_params": 0}, "max_teacher_params"),
        ({"max_teacher_tokens": np.nan}, "max_teacher_tokens"),
        ({"max_student_tokens": -5}, "max_student_tokens"),
        ({"max_teacher_params": 1e5}, "min_teacher_params.*no teacher is left"),
        ({"threads": 0}, "threads"),
        ({"piece": 0}, "piece"),
        ({"executor": "dask"}, "executor.*get_executor"),
        ({"teachers": [1e9]}, "teachers.*DataFrame"),
        (
            {"teachers": pd.DataFrame({"params": [1e9], "loss": [2.0]}), "scenarios": "teacher pretraining"},
            "teachers.*'tokens'",
        ),
        (
            {"teachers": TEACHERS.assign(tokens=[2e10, np.nan]), "scenarios": Scenario(0, 1)},
            "teachers.*'tokens'.*cells without a value",
        ),
    ],
)
def test_unusable_arguments_are_named(changes, message):
    arguments = {"students": 1e9, "budgets": 1e20} | changes
    with pytest.raises(ParameterError, match=message):
        plan(posterior_of(published()), **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": None}, "has no column 'loss', which teachers require"),
        ({"params": [7.0, 7e9]}, "row 1, column params: 7 is too few parameters for a language model; probably 7e"),
        ({"loss": [2.3, -2.0]}, "row 2, column loss: -2.0; expected a number above 0"),
        ({"loss": [2.3, "2,0"]}, "row 2, column loss: '2,0' is not a number.*write 2.0, with a decimal point"),
        ({"tokens": [20.0, 140.0]}, "row 1, column tokens: 20 .* too few tokens .* probably 2e.10 was meant"),
        ({"tokens": [2e7, 1.4e8]}, "columns params and tokens: the median run has 0.02 tokens per parameter"),
        ({"tokens": [2e10, True]}, "row 2, column tokens: True is not a number"),
        ({"loss": [0.9, 2.0]}, "row 1, column loss: 0.9 is below the irreducible loss E"),
        ({"loss": [2.3, 11.0]}, "row 2, column loss: 11 is larger than the loss of a unigram model"),
        (
            {"loss": [2.3, 50.0]},
            "row 2, column loss: 50 is larger than the loss of a uniform prediction; if it is a perp",
        ),
        ({"name": ["a", "a"]}, "row 2, column name: 'a' is also the name in row 1"),
        ({"name": ["a", None]}, "row 2, column name: the name label is missing"),
    ],
)
def test_teachers_are_checked_like_runs(changes, message):
    table = TEACHERS.assign(**changes) if changes != {"loss": None} else TEACHERS.drop(columns="loss")
    with pytest.raises(DataError, match=f"`teachers`.*{message}"):
        plan(posterior_of(published()), 1e9, 1e20, "best case", teachers=table)
    with pytest.raises(DataError, match="has a header but no teachers"):
        plan(posterior_of(published()), 1e9, 1e20, "best case", teachers=TEACHERS.iloc[:0])


def test_implausible_teachers_can_be_allowed():
    table = TEACHERS.assign(loss=[0.9, 2.0])
    with pytest.raises(DataError, match=r"set teachers\.attrs\['allow_suspicious'\] = True"):
        plan(posterior_of(published()), 1e9, 1e20, "best case", teachers=table)
    table.attrs["allow_suspicious"] = True
    found = plan(posterior_of(published()), 1e9, 1e20, "best case", teachers=table)
    assert found["teacher"].values.tolist() == ["a", "b"]
    # As a Dataset, with the same attribute.
    same = plan(posterior_of(published()), 1e9, 1e20, "best case", teachers=table.to_xarray().assign_attrs(table.attrs))
    assert same["distilled_loss"].equals(found["distilled_loss"])


def test_numbers_may_be_written_as_people_write_them():
    found = plan(posterior_of(published()), ["1B", "300M", "2.5e9"], "1e20", "best case")
    assert found["student"].values.tolist() == [1e9, 3e8, 2.5e9]


def test_an_unconverged_posterior_is_rejected_unless_asked_for():
    fit = tree_of(scattered(40), chains=2)
    with pytest.raises(ConvergenceError, match="allow_unconverged"):
        plan(fit, 1e9, 1e20, "best case")
    with pytest.warns(ConvergenceWarning, match="ess_bulk"):
        found = plan(fit, 1e9, 1e20, "best case", allow_unconverged=True)
    assert found.attrs["converged"] == "no"


def test_a_converged_posterior_is_used_in_silence():
    found = plan(tree_of(scattered(2000), chains=4), 1e9, 1e20, "best case")
    assert found.attrs["converged"] == "yes"


def test_a_supervised_fit_and_broken_draws_are_rejected():
    draws = published()
    with pytest.raises(ParameterError, match="supervised law alone"):
        plan(posterior_of({k: draws[k] for k in laws.SUPERVISED_PARAMETERS}), 1e9, 1e20)
    with pytest.raises(ModelError, match="c0"):
        plan(posterior_of(draws | {"c0": np.array([np.nan])}), 1e9, 1e20)
    with pytest.raises(ModelError, match="DataTree"):
        plan(draws, 1e9, 1e20)
