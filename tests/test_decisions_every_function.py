"""What every decision function owes: answers that depend on the question alone, and words where there is no answer."""

from __future__ import annotations

import law_names as laws
import numpy as np
import pandas as pd
import pytest
from decision_cases import assert_agree, posterior_of, published, scattered
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesdistill.compute import flops_per_token
from bayesdistill.decisions import (
    break_even,
    capacity_gap,
    crossovers,
    evppi,
    family_plan,
    flag_names,
    lifetime,
    paper_claims,
    plan,
    plan_tokens,
    plan_value,
    recommendations,
    sharing_map,
    student_choice,
    target_loss,
    teacher_choice,
)
from bayesdistill.design import next_runs
from bayesdistill.errors import BayesdistillError, ModelError, ParameterError

few = settings(max_examples=3, deadline=None, derandomize=True)
some = settings(max_examples=6, deadline=None, derandomize=True)

TABLE = pd.DataFrame({"name": ["small", "large"], "params": [1e9, 7e9], "loss": [2.3, 2.05], "tokens": [1e11, 3e11]})
RUNS = pd.DataFrame({"student_params": [1e9], "student_tokens": [2e10], "teacher_loss": [2.2]})

# Each asked about students and budgets; what plan_tokens calls tokens is here a budget divided by 1e11.
ASKED = {
    "plan": lambda fit, s, b, **o: plan(fit, s, b, "teacher pretraining + inference", **o),
    "plan with a table": lambda fit, s, b, **o: plan(fit, s, b, "teacher inference", teachers=TABLE, **o),
    "plan_tokens": lambda fit, s, b, **o: plan_tokens(fit, s, [float(x) / 1e11 for x in b], **o),
    "crossovers": lambda fit, s, b, **o: crossovers(fit, s, "teacher inference", budgets=b, **o),
    "committed crossovers": lambda fit, s, b, **o: crossovers(
        fit, s, "teacher inference", budgets=b, strategy="committed", **o
    ),
    "sharing_map": lambda fit, s, b, **o: sharing_map(fit, s, b, [1, 8], **o),
    "break_even": lambda fit, s, b, **o: break_even(fit, s, b, **o),
    "student_choice": lambda fit, s, b, **o: student_choice(fit, s, b, "teacher inference", **o),
    "teacher_choice": lambda fit, s, b, **o: teacher_choice(fit, TABLE, s, b, **o),
}
# Those that do not have a budget axis, or answer in rows.
OTHERS = {
    "family_plan": lambda fit, s, b, **o: family_plan(fit, s, b[0], **o),
    "recommendations": lambda fit, s, b, **o: recommendations(fit, s, budgets=b, tokens=[1e10], **o),
    "paper_claims": lambda fit, s, b, **o: paper_claims(fit, s, **o),
    "next_runs": lambda fit, s, b, **o: next_runs(fit, RUNS, s, b, **o),
    "lifetime": lambda fit, s, b, **o: lifetime(fit, [0, 1e10], "best case", budgets=b, students=s, **o),
    "target_loss": lambda fit, s, b, **o: target_loss(
        fit, s, [2.0 + 0.01 * i for i in range(len(b))], "best case", **o
    ),
}
BROKEN = ASKED | OTHERS | {
    "capacity_gap": lambda fit, s, b: capacity_gap(fit, s, student_tokens=1e10, teacher_losses=[2.0, 2.4]),
    "plan_value": lambda fit, s, b: plan_value(fit, plan(posterior_of(published(3)), s, b, "best case")),
    "evppi": lambda fit, s, b: evppi(fit, plan(posterior_of(published(3)), s, b, "best case")),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in ("break_even", "student_choice") else ()) for name in ASKED],
)
@few
@given(st.integers(0, 1000), st.permutations([2e8, 1.3e9]), st.permutations([1e20, 1e22, 1e24]))
def test_order_units_and_threads_change_nothing(name, seed, students, budgets):
    fit = posterior_of(scattered(3, seed))
    reference = ASKED[name](fit, [2e8, 1.3e9], [1e20, 1e22, 1e24], threads=1)
    turned = ASKED[name](fit, students, [f"{b:g}" for b in budgets], threads=2)
    turned = turned.sel(student=reference["student"])
    assert_agree(turned, reference)


@pytest.mark.slow
@few
@given(st.integers(0, 1000), st.permutations([0, 1]))
def test_order_of_a_family_changes_nothing(seed, order):
    fit = posterior_of(scattered(3, seed))
    sizes, counts, weights = np.array([2e8, 4e9]), np.array([3.0, 1.0]), np.array([1.0, 4.0])
    free = {"delta_lgt": 0.5, "delta_pre": 0, "teachers": TABLE}
    one = family_plan(fit, sizes, 1e21, counts=counts, weights=weights, **free)
    i = list(order)
    other = family_plan(fit, sizes[i], "1e21", counts=counts[i], weights=weights[i], **free)
    for name in ("decision", "probability_better", "student_tokens", "expected_loss", "count", "weight"):
        there = other[name].sel(student=sizes) if "student" in other[name].dims else other[name]
        np.testing.assert_allclose(there, one[name], rtol=1e-6, err_msg=name)


@pytest.mark.slow
@few
@given(st.integers(0, 1000), st.permutations([3e8, 2e9]))
def test_order_and_units_change_no_advice(seed, students):
    fit = posterior_of(scattered(8, seed), 2)
    one = recommendations(fit, [3e8, 2e9], budgets=[1e20, 1e22], tokens=[1e10], threads=1).to_dataframe()
    other = recommendations(fit, students, budgets=["1e22", "1e20"], tokens="10B", threads=2).to_dataframe()
    key = ["given", "case", "student", "amount"]
    pd.testing.assert_frame_equal(*(frame.sort_values(key, ignore_index=True) for frame in (one, other)), rtol=1e-9)


# Impossible problems --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", BROKEN)
@few
@given(st.sampled_from(list(laws.PUBLISHED)), st.integers(0, 2), st.sampled_from([np.nan, np.inf]))
def test_a_broken_draw_is_named_by_every_function(function, name, position, value):
    draws = {k: np.full(3, v) for k, v in laws.PUBLISHED.items()}
    draws[name][position] = value
    fit = posterior_of(draws | {"sigma": np.full(3, 0.01), "nu": np.full(3, 5.0)})
    with pytest.raises(ModelError, match=f"{name} is not finite .*draw {position}"):
        BROKEN[function](fit, [1e9, 2e9], [1e20, 1e22])


@pytest.mark.parametrize("function", ASKED | OTHERS)
@few
@given(st.floats(3.5, 5.5), st.floats(4.1, 5.9))
def test_bounds_that_exclude_every_teacher_are_an_error_of_every_function(function, log_params, log_tokens):
    fit = posterior_of(published(3) | {"sigma": np.full(3, 0.01), "nu": np.full(3, 5.0)})
    question = ([1e9, 2e9], [1e20, 1e22])
    if function != "paper_claims":  # which has the least teacher of the package
        with pytest.raises(BayesdistillError, match="no teacher is left"):
            (ASKED | OTHERS)[function](fit, *question, max_teacher_params=10**log_params)
    with pytest.raises(BayesdistillError, match="no teacher is left"):
        (ASKED | OTHERS)[function](fit, *question, max_teacher_tokens=10**log_tokens)


below_one_token = st.floats(0.01, 0.99)


@pytest.mark.parametrize("function", ["plan", "plan with a table", "sharing_map"])
@some
@given(below_one_token, st.floats(8, 11))
def test_less_than_a_token_is_a_status(function, share, log_student):
    student = 10**log_student
    budget = share * 3 * flops_per_token(student)
    found = ASKED[function](posterior_of(scattered(3)), student, [budget, 1e24])
    tiny, fine = found.sel(budget=budget), found.sel(budget=1e24)
    assert set(flag_names(tiny["status"]).values.ravel()) == {"budget_too_small"}
    for name in ("probability", "probability_best", "expected_gain", "regret", "evpi", "best_distilled_loss"):
        assert np.isnan(tiny[name]).all(), name
        assert np.isfinite(fine[name]).all(), name
    assert not tiny["extrapolates"].any()


@few
@given(below_one_token, st.floats(8, 11), st.sampled_from(["best", "committed"]))
def test_less_than_a_token_has_no_crossover_no_break_even_and_no_teacher(share, log_student, strategy):
    student = 10**log_student
    budget = share * 3 * flops_per_token(student)
    fit = posterior_of(scattered(3))
    crossing = crossovers(fit, student, budgets=[budget / 2, budget], strategy=strategy)
    assert set(flag_names(crossing["crossover_status"]).values.ravel()) == {"impossible"}
    assert np.isnan(crossing["crossover"]).all()
    shared = break_even(fit, student, budget)
    assert set(flag_names(shared["break_even_status"]).values.ravel()) == {"impossible"}
    assert np.isnan(shared["students_per_teacher"]).all()
    choice = teacher_choice(fit, TABLE, student, budget)
    assert (choice["chosen"] == -1).all()
    assert np.isnan(choice["expected_loss"]).all()
    tokens = plan_tokens(fit, student, 1e10, budget=budget)
    assert set(flag_names(tokens["status"]).values.ravel()) == {"budget_too_small"}
    made = plan(fit, student, [budget, 1e24], "best case")
    worth, known = plan_value(fit, made), evppi(fit, made)
    for name in ("equivalent_budget", "gain_flops", "unreachable_probability"):
        assert np.isnan(worth[name].sel(budget=budget)).all(), name
        assert not np.isnan(worth[name].sel(budget=1e24)).any(), name
    assert np.isnan(known["evppi"].sel(budget=budget)).all()
    with pytest.raises(ParameterError, match="no decision to inform"):
        next_runs(
            posterior_of(scattered(3) | {"sigma": np.full(3, 0.01), "nu": np.full(3, 5.0)}), RUNS, student, budget
        )


@some
@given(below_one_token, st.floats(8, 11))
def test_a_family_below_its_fewest_tokens_is_not_feasible(share, log_student):
    students = 10**log_student * np.array([1.0, 3.0])
    # A million tokens for each is the least.
    budget = share * float((3e6 * flops_per_token(students)).sum())
    found = family_plan(posterior_of(scattered(3)), students, budget)
    assert not found["feasible"].any()
    assert np.isnan(found["expected_loss"]).all()


@pytest.mark.parametrize("function", [f for f in ASKED if f not in ("plan with a table", "teacher_choice")])
@few
@given(st.floats(10.5, 12))
def test_a_student_larger_than_every_teacher_has_an_answer(function, log_student):
    found = ASKED[function](posterior_of(scattered(2)), 10**log_student, [1e22, 1e25], max_teacher_params=1e9)
    for name, least in (("probability", 0.0), ("pretraining_ahead_probability", 0.0), ("pays_probability", 0.0)):
        if name in found:
            assert ((found[name] >= least) & (found[name] <= 1)).all()
    for name in ("teacher_params", "best_teacher_params"):
        if name in found:
            assert (found[name] <= 1e9 * (1 + 1e-9)).all()
    status = next(found[n] for n in ("status", "crossover_status", "break_even_status") if n in found)
    assert not np.isin(flag_names(status), ["impossible", "no_teacher_in_bounds", "budget_too_small"]).any()
