"""What must hold for every posterior, student, budget and scenario."""

from __future__ import annotations

import law_names as laws
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from decision_cases import assert_agree, best_of, brute_force, posterior_of
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesdistill.compute import Scenario, flops_per_token
from bayesdistill.decisions import break_even, flag_names, plan, plan_tokens
from bayesdistill.errors import ModelError, ParameterError
from bayesdistill.strategies import STATUS

few = settings(max_examples=8, deadline=None, derandomize=True)
some = settings(max_examples=15, deadline=None, derandomize=True)

_SPREAD = {"E": 0.1, "A": 0.3, "B": 0.3, "alpha": 0.05, "beta": 0.05, "gamma": 0.05, "A_S": 0.3, "B_S": 0.3}
_SPREAD |= {"alpha_S": 0.05, "beta_S": 0.05, "gamma_S": 0.05, "c0": 0.1, "c1": 0.3, "d1": 0.1, "f1": 0.2}


@st.composite
def posteriors(draw: st.DrawFn, low: int = 1, high: int = 5) -> dict[str, np.ndarray]:
    """Draws scattered around the published law."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(low, high))
    return {k: v * np.exp(_SPREAD[k] * rng.uniform(-1, 1, n)) for k, v in laws.PUBLISHED.items()}


students = st.floats(8, 11).map(lambda x: float(f"{10**x:.4g}"))
budgets = st.floats(18, 25).map(lambda x: float(f"{10**x:.4g}"))
shares = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.01, 1.0).map(lambda x: round(x, 3)))


def best_loss(found: xr.Dataset) -> np.ndarray:
    return found["best_distilled_loss"].values.ravel()


@few
@given(posteriors(1, 1), students, budgets, shares, shares, st.floats(9, 12), st.floats(10.5, 13.5))
def test_one_draw_is_the_point_optimum(draws, student, budget, lgt, pre, log_params, log_tokens):
    bounds = {"max_teacher_params": 10**log_params, "max_teacher_tokens": 10**log_tokens}
    scenario = Scenario(lgt, pre)
    found = plan(posterior_of(draws), student, budget, scenario, **bounds)
    oracle = brute_force(draws, student, budget, scenario, **bounds)["loss"][0]
    for name in ("distilled_loss", "best_distilled_loss"):
        # The oracle stops within 1e-6 above the optimum, the search where a further step would gain less than 1e-9.
        assert found[name].item() <= oracle + 1e-8
        assert found[name].item() == pytest.approx(oracle, abs=1e-5)
    assert found["probability"].item() in (0, 1)
    assert found["regret"].item() == pytest.approx(0, abs=1e-12)


@settings(few, max_examples=4)
@given(posteriors(1, 1), students, budgets, shares, shares, st.integers(2, 70))
def test_copies_of_a_draw_are_that_draw(draws, student, budget, lgt, pre, copies):
    one = plan(posterior_of(draws), student, budget, Scenario(lgt, pre))
    many = plan(posterior_of({k: np.repeat(v, copies) for k, v in draws.items()}), student, budget, Scenario(lgt, pre))
    for name in ("distilled_loss", "best_distilled_loss", "teacher_loss", "advantage"):
        np.testing.assert_allclose(many[name].values, one[name].item(), atol=1e-7, err_msg=name)
    for name in ("probability", "probability_best"):
        assert many[name].item() == one[name].item()
    for name in ("regret", "evpi"):
        assert many[name].item() == pytest.approx(0, abs=1e-7)


@some
@given(posteriors(1, 1), students, budgets)
def test_a_free_teacher_is_the_one_dimensional_minimum(draws, student, budget):
    found = plan(posterior_of(draws), student, budget, Scenario(0, 0))
    six = {k: draws[k] for k in laws.SUPERVISED_PARAMETERS}
    lowest, highest = (laws.supervised_loss(n, d, **six)[0] for n, d in ((1e12, 2e13), (1e6, 1e6)))
    tokens = budget / (3 * flops_per_token(student))
    low, high = lowest, highest
    for _ in range(6):
        grid = np.linspace(low, high, 4001)
        loss = laws.distilled_loss(student, tokens, grid, **draws)
        k = int(np.argmin(loss))
        low, high = grid[max(k - 2, 0)], grid[min(k + 2, grid.size - 1)]
    assert found["best_distilled_loss"].item() == pytest.approx(loss.min(), abs=1e-8)
    assert found["distilled_loss"].item() == pytest.approx(loss.min(), abs=1e-8)
    assert found["student_tokens"].item() == pytest.approx(tokens, rel=1e-12)


@some
@given(posteriors(2, 6), students, budgets, shares, shares)
def test_probabilities_count_draws_and_are_certain_when_all_agree(draws, student, budget, lgt, pre):
    found = plan(posterior_of(draws), student, budget, Scenario(lgt, pre))
    ahead = found["advantage"].values.ravel() > 0
    assert found["probability"].item() == pytest.approx(ahead.mean())
    agree = plan(posterior_of({k: np.repeat(v[:1], 4) for k, v in draws.items()}), student, budget, Scenario(lgt, pre))
    assert agree["probability"].item() in (0, 1)
    assert agree["probability"].item() == agree["probability_best"].item()
    assert 0 < agree["probability_mcse"].item() < 0.5


@some
@given(posteriors(2, 6), students, budgets, shares, shares)
def test_committed_is_never_better_than_best_and_knowledge_is_never_worth_less_than_nothing(
    draws, student, budget, lgt, pre
):
    found = plan(posterior_of(draws), student, budget, Scenario(lgt, pre))
    assert (best_of(found) <= found["distilled_loss"] + 1e-9).all()
    assert (found["probability_best"] >= found["probability"]).all()
    assert found["regret"].item() >= -1e-12
    assert found["evpi"].item() >= found["regret"].item() - 1e-9


@some
@given(posteriors(1, 4), students, st.lists(budgets, min_size=2, max_size=4, unique=True), shares, shares)
def test_more_budget_never_raises_the_best_loss(draws, student, spent, lgt, pre):
    found = plan(posterior_of(draws), student, spent, Scenario(lgt, pre))
    assert (np.diff(found["budget"]) > 0).all()
    assert (found["best_distilled_loss"].diff("budget") <= 1e-7).all()
    assert (found["supervised_loss"].diff("budget") <= 1e-12).all()
    assert (found["distilled_loss"].mean("draw").diff("budget") <= 1e-6).all()


@some
@given(posteriors(1, 4), students, budgets, shares, shares, shares)
def test_a_larger_share_never_lowers_the_best_loss(draws, student, budget, first, second, other):
    low, high = sorted((first, second))
    for scenarios in (
        (Scenario(low, other, "low"), Scenario(high, other, "high")),
        (Scenario(other, low, "low"), Scenario(other, high, "high")),
    ):
        found = plan(posterior_of(draws), student, budget, scenarios)
        best = found["best_distilled_loss"]
        assert (best.sel(scenario="low") <= best.sel(scenario="high") + 1e-7).all()


@some
@given(posteriors(1, 4), students, st.lists(budgets, min_size=2, max_size=4, unique=True), shares, shares, shares)
def test_existing_teachers_are_monotone_too(draws, student, spent, first, second, other):
    """More budget, a smaller share, or one more teacher to choose from never raises the best loss or the committed mean."""
    table = pd.DataFrame({"params": [2e8, 3e9, 8e10], "loss": [2.6, 2.2, 1.95], "tokens": [1e10, 1e11, 1e12]})
    low, high = sorted((first, second))
    scenarios = (Scenario(low, other, "low"), Scenario(high, other, "high"), Scenario(low, high, "paid"))
    found = plan(posterior_of(draws), student, spent, scenarios, teachers=table)
    fewer = plan(posterior_of(draws), student, spent, scenarios, teachers=table.iloc[:2])

    def losses(made):
        # What cannot be paid is infinitely bad.
        best = made["best_distilled_loss"].isel(student=0, chain=0).fillna(np.inf)
        return best, made["distilled_loss"].isel(student=0, chain=0).fillna(np.inf).mean("draw")

    for all_of_them, without_the_last in zip(losses(found), losses(fewer), strict=True):
        assert (all_of_them.values[:, 1:] <= all_of_them.values[:, :-1] + 1e-12).all()
        assert (all_of_them.sel(scenario="low") <= all_of_them.sel(scenario="high") + 1e-12).all()
        assert (all_of_them <= without_the_last).all()
    free = plan(posterior_of(draws), student, spent, Scenario(low, 0), teachers=table)
    assert (losses(free)[0].isel(scenario=0) <= losses(found)[0].sel(scenario="paid") + 1e-12).all()


@some
@given(posteriors(1, 3), students, budgets, shares, shares, st.floats(8, 12), st.floats(9, 13))
def test_wider_bounds_never_raise_the_best_loss(draws, student, budget, lgt, pre, log_params, log_tokens):
    scenario = Scenario(lgt, pre)
    narrow = plan(
        posterior_of(draws), student, budget, scenario,
        max_teacher_params=10**log_params, max_teacher_tokens=10**log_tokens, max_student_tokens=1e11,
    )  # fmt: skip
    wide = plan(posterior_of(draws), student, budget, scenario)
    assert (best_loss(wide) <= best_loss(narrow) + 1e-7).all()
    assert narrow["teacher_params"].item() <= 10**log_params * (1 + 1e-9)
    assert narrow["teacher_tokens"].item() <= 10**log_tokens * (1 + 1e-9)
    assert narrow["student_tokens"].item() <= 1e11 * (1 + 1e-9)


@few
@given(posteriors(3, 6), st.permutations([2e8, 1.3e9, 4e10]), st.permutations([1e19, 1e21, 1e24]), st.integers(1, 3))
def test_order_units_and_pieces_change_nothing(draws, sizes, spent, piece):
    fit = posterior_of(draws)
    scenario = Scenario(1, 0.3)
    reference = plan(fit, [2e8, 1.3e9, 4e10], [1e19, 1e21, 1e24], scenario)
    shuffled = plan(fit, sizes, spent, scenario, piece=piece, threads=1)
    assert_agree(shuffled.sel(student=reference["student"]), reference)
    written = plan(fit, ["0.2B", "1300M", "40B"], ["1e19", "1e21", "1e24"], scenario)
    xr.testing.assert_identical(written, reference)


@few
@given(posteriors(4, 4), students, budgets)
def test_order_and_chains_of_the_draws_change_no_mean(draws, student, budget):
    scenario = Scenario(1, 1)
    one = plan(posterior_of(draws), student, budget, scenario)
    turned = plan(posterior_of({k: v[::-1] for k, v in draws.items()}, chains=2), student, budget, scenario)
    np.testing.assert_allclose(best_loss(turned), best_loss(one)[::-1], atol=1e-9)
    for name in ("probability_best", "expected_gain", "regret", "evpi"):
        assert turned[name].item() == pytest.approx(one[name].item(), abs=1e-7), name


@few
@given(posteriors(1, 3), students, budgets, shares)
def test_break_even_never_falls_as_inference_costs_more(draws, student, budget, lgt):
    fit = posterior_of(draws)
    free = break_even(fit, student, budget, delta_lgt=0.0)["students_per_teacher"].values
    charged = break_even(fit, student, budget, delta_lgt=lgt)["students_per_teacher"].values
    assert (charged >= free * (1 - 1e-5)).all()


@few
@given(posteriors(1, 3), students, st.lists(st.floats(8, 13), min_size=2, max_size=3, unique=True))
def test_more_tokens_never_raise_either_loss(draws, student, logs):
    found = plan_tokens(posterior_of(draws), student, [10**x for x in logs], max_teacher_tokens="same")
    assert (found["supervised_loss"].diff("tokens") <= 1e-12).all()
    assert (found["best_distilled_loss"].diff("tokens") <= 1e-7).all()


# Impossible problems --------------------------------------------------------------------------------------------------


@some
@given(posteriors(1, 3), students, st.floats(6, 12).map(lambda x: 10**x), shares, shares)
def test_tiny_budgets_end_with_a_status_or_an_answer(draws, student, budget, lgt, pre):
    found = plan(posterior_of(draws), student, [budget, 1e22], Scenario(lgt, pre))
    tiny = found.sel(budget=budget)
    status = flag_names(tiny["status"]).item()
    tokens = budget / (3 * flops_per_token(student))
    if tokens < 1:
        assert status == "budget_too_small"
    if tiny["status"].item() >= STATUS.index("budget_too_small"):
        for name in ("probability", "probability_mcse", "probability_best", "expected_gain", "regret", "evpi"):
            assert np.isnan(tiny[name].item()), name
        assert np.isnan(tiny["distilled_loss"]).all()
    else:
        assert np.isfinite(tiny["distilled_loss"]).all()
    assert np.isfinite(found["probability"].sel(budget=1e22)).all()


@few
@given(posteriors(1, 2), st.floats(10.5, 12), budgets)
def test_a_student_larger_than_every_teacher_is_answered(draws, log_student, budget):
    student = 10**log_student
    found = plan(posterior_of(draws), student, budget, Scenario(1, 1), max_teacher_params=1e9)
    oracle = brute_force(draws, student, budget, Scenario(1, 1), max_teacher_params=1e9)["loss"]
    np.testing.assert_allclose(best_loss(found), oracle, atol=1e-5)


@pytest.mark.parametrize("name", list(laws.PUBLISHED))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_draws_are_named(name, value):
    draws = {k: np.full(3, v) for k, v in laws.PUBLISHED.items()}
    draws[name][1] = value
    with pytest.raises(ModelError, match=f"{name} is not finite .*draw 1"):
        plan(posterior_of(draws), 1e9, 1e20, "best case")


def test_bounds_that_exclude_every_teacher_are_an_error():
    fit = posterior_of({k: np.full(1, v) for k, v in laws.PUBLISHED.items()})
    with pytest.raises(ParameterError, match="no teacher is left"):
        plan(fit, 1e9, 1e20, max_teacher_params=5e8, min_teacher_params=6e8)
    with pytest.raises(ParameterError, match="max_teacher_tokens"):
        plan(fit, 1e9, 1e20, max_teacher_tokens=1e5)
