"""One more student of a family: its tokens in closed form, against larger families, and its gain by the law."""

from __future__ import annotations

import law_names as laws
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from decision_cases import posterior_of, scattered, simple
from hypothesis import given, settings
from hypothesis import strategies as st

import bayesdistill as bd
from bayesdistill.compute import flops_per_token
from bayesdistill.decisions import add_student, family_plan
from bayesdistill.errors import ParameterError

TEACHER = pd.DataFrame({"name": ["mine"], "params": [8e9], "loss": [1.7]})
SIX = laws.SUPERVISED_PARAMETERS
FREE = {"teachers": TEACHER, "delta_lgt": 0}


@pytest.fixture(scope="module")
def fit() -> xr.Dataset:
    return posterior_of(simple(4, B_S=[400.0, 450.0, 500.0, 550.0], A_S=300.0))


@given(st.floats(1e8, 1e10), st.floats(0.1, 10), st.sampled_from([0.0, 1.0]))
@settings(max_examples=3, deadline=None)
def test_tokens_are_the_closed_form(student, weight, lgt):
    # L = T + A_S / N^0.3 + B_S / D^0.35: equal returns of w B_S D^-1.35 per cost of a token.
    draws = simple(2, B_S=[400.0, 500.0], A_S=300.0)
    family = family_plan(posterior_of(draws), [3e8, 3e9], 1e20, counts=[3, 1], teachers=TEACHER, delta_lgt=lgt)
    tokens = family["student_tokens"].sel(option="plan")
    for place, member in enumerate((3e8, 3e9)):
        if family["decision"].values[place]:
            cost = [3 * flops_per_token(size) + lgt * flops_per_token(8e9) for size in (member, student)]
            expected = tokens.values[place] * (weight * cost[0] / cost[1]) ** (1 / 1.35)
            found = add_student(posterior_of(draws), family, student, weight=weight)
            assert found["student_tokens"].item() == pytest.approx(expected, rel=3e-3)
            assert found["marginal_budget"].item() == pytest.approx(found["student_tokens"].item() * cost[1])


def test_the_others_of_a_larger_family_stay_as_they_are():
    draws = scattered(5, seed=3)
    fit = posterior_of(draws)
    ask = {"teachers": pd.DataFrame({"params": [8e9], "loss": [1.95]}), "delta_lgt": 0}
    family = family_plan(fit, [3e8, 1e9], 1e21, **ask)
    assert family["decision"].values.all()
    added = add_student(fit, family, [3e9, 1e9])
    larger = family_plan(fit, [3e8, 1e9, 3e9], 1e21 + added["marginal_budget"].sel(student=3e9).item(), **ask)
    tokens, before = (made["student_tokens"].sel(option="distill all") for made in (larger, family))
    np.testing.assert_allclose(tokens[:2], before, rtol=2e-3)
    assert tokens.values[2] == pytest.approx(added["student_tokens"].sel(student=3e9).item(), rel=2e-3)
    # Another one of a size costs as much as the one that is there.
    assert added["marginal_budget"].sel(student=1e9).item() == pytest.approx(
        family["student_budget"].sel(option="plan", student=1e9).item(), rel=2e-3
    )


def test_cost_and_gain_follow_from_the_law():
    draws = scattered(6, seed=1)
    fit = posterior_of(draws)
    family = family_plan(fit, [3e8, 1e9], 1e21, delta_pre=0.01)  # of a new teacher, whose loss differs between draws
    assert family["decision"].values.any()
    row = add_student(fit, family, "3B").squeeze()
    size, taught = (family[name].sel(option="plan").item() for name in ("teacher_params", "teacher_tokens"))
    teacher = laws.supervised_loss(size, taught, **{k: draws[k] for k in SIX})
    tokens, budget = row["student_tokens"].item(), row["marginal_budget"].item()
    training = 3 * flops_per_token(3e9) * tokens
    assert budget == pytest.approx(training + flops_per_token(size) * tokens)
    assert row["student_share"].item() == pytest.approx(training / budget)
    assert row["teacher_inference_share"].item() == pytest.approx(1 - training / budget)
    own = budget / (3 * flops_per_token(3e9))
    assert row["pretraining_tokens"].item() == pytest.approx(own)
    distilled = laws.distilled_loss(3e9, tokens, teacher, **draws)
    alone = laws.supervised_loss(3e9, own, **{k: draws[k] for k in SIX})
    assert row["expected_gain"].item() == pytest.approx((alone - distilled).mean(), abs=1e-12)
    assert row["probability"].item() == (distilled < alone).mean()
    np.testing.assert_allclose(row["loss_quantile"].values[[0, -1]], [distilled.min(), distilled.max()], atol=1e-12)
    assert row["average_budget"].item() == pytest.approx(1e21 / 2, rel=1e-9)
    assert f"costs {budget:.3g}".replace("e+", "e") in row["sentence"].item()
    assert bd.decision_table(row.expand_dims("student"))["marginal_budget"].tolist() == [budget]


def test_a_heavier_student_gets_more_up_to_the_bound(fit):
    family = family_plan(fit, [3e8, 3e9], 1e20, max_student_tokens=1e12, **FREE)
    tokens = [add_student(fit, family, 1e9, weight=weight)["student_tokens"].item() for weight in (0.1, 1, 10, 1e9)]
    assert (np.diff(tokens) > 0).all()
    assert tokens[-1] == 1e12


def test_a_student_of_a_pretrained_family_is_pretrained():
    draws = scattered(5, seed=3)
    fit = posterior_of(draws)
    ask = {"teachers": TEACHER.assign(loss=6.0)}
    family = family_plan(fit, [3e8, 1e9], 1e21, **ask)
    assert not family["decision"].values.any()
    added = add_student(fit, family, [3e9, 1e9])
    cost = added["marginal_budget"].values
    np.testing.assert_allclose(cost, 3 * flops_per_token(np.array([3e9, 1e9])) * added["student_tokens"].values)
    larger = family_plan(fit, [3e8, 1e9, 3e9], 1e21 + cost[0], **ask)["student_budget"].sel(option="plan").values
    np.testing.assert_allclose(larger[[2, 1]], cost, rtol=2e-3)
    six = {name: draws[name] for name in SIX}
    losses = bd.supervised_loss(3e9, added["student_tokens"].values[0], **six)
    assert added["supervised_loss_quantile"].sel(quantile=0.5).values[0] == pytest.approx(np.median(losses))
    for name in ("loss_quantile", "expected_gain", "probability"):
        assert np.isnan(added[name]).all()
    assert "The plan pretrains every student" in added["sentence"].item(0)
    assert (added["teacher_inference_share"] == 0).all()


def test_unusable_families_are_named(fit, jittered_draws):
    family = family_plan(fit, [3e8, 3e9], 1e20, **FREE)
    with pytest.raises(ParameterError, match="`family` must be the result of family_plan"):
        add_student(fit, xr.Dataset(), "1B")
    with pytest.raises(ParameterError, match="family was computed from another posterior"):
        add_student(jittered_draws, family, "1B")
    bad = family_plan(fit, [3e8, 3e9], 1e6, **FREE)
    with pytest.raises(ParameterError, match="budget of `family` is too small"):
        add_student(fit, bad, "1B")
    with pytest.raises(ParameterError, match="'huge' in `students`"):
        add_student(fit, family, "huge")
    with pytest.raises(ParameterError, match="`weight` must be"):
        add_student(fit, family, "1B", weight=0)
