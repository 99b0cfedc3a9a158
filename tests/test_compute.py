from __future__ import annotations

import math

import numpy as np
import pytest

import bayesdistill as bd
from bayesdistill.compute import (
    PUBLISHED_SHAPE,
    pretraining_tokens,
    scenario,
    student_cost_per_token,
    teacher_cost,
)
from bayesdistill.errors import ParameterError

FOUR = {
    "best case": (0, 0),
    "teacher inference": (1, 0),
    "teacher pretraining": (0, 1),
    "teacher pretraining + inference": (1, 1),
}


def transformer(layers: int, aspect: int, context: int, vocabulary: int) -> tuple[float, float]:
    """Non-embedding parameters, and forward FLOPs per token counted from width and depth."""
    width = aspect * layers
    params = 12 * layers * width**2
    return params, 2 * params + 2 * context * layers * width + 2 * vocabulary * width


def test_the_published_shape_has_the_published_coefficients():
    assert (PUBLISHED_SHAPE.context_length, PUBLISHED_SHAPE.aspect_ratio, PUBLISHED_SHAPE.vocabulary_size) == (
        4096,
        128,
        32168,
    )
    assert round(PUBLISHED_SHAPE.k1, 2) == 155.06
    assert round(PUBLISHED_SHAPE.k2) == 70811


@pytest.mark.parametrize("layers", [1, 10, 29, 70])
@pytest.mark.parametrize(("aspect", "context", "vocabulary"), [(128, 4096, 32168), (64, 2048, 50257), (100, 8192, 1)])
def test_flops_are_counted_from_width_and_depth(layers, aspect, context, vocabulary):
    params, flops = transformer(layers, aspect, context, vocabulary)
    shape = bd.Shape(context_length=context, vocabulary_size=vocabulary, aspect_ratio=aspect)
    assert bd.flops_per_token(float(params), shape) == pytest.approx(flops, rel=1e-13)


def test_flops_of_one_billion_by_hand():
    # 2e9 (1 + 155.06 / 1e3 + 70811 / 1e6)
    assert bd.flops_per_token(1e9) == pytest.approx(2e9 * (1 + 0.15506 + 0.070811), rel=1e-5)
    sizes = np.array([1e8, 1e9])
    assert bd.flops_per_token(sizes).tolist() == [bd.flops_per_token(1e8), bd.flops_per_token(1e9)]
    # Embedding and attention weigh less and less.
    assert bd.flops_per_token(1e14) / 2e14 == pytest.approx(1, abs=4e-3)


@pytest.mark.parametrize(("name", "deltas"), FOUR.items())
def test_cost_of_a_distillation_by_hand(name, deltas):
    student, student_tokens, teacher, teacher_tokens = 3e8, 2e10, 7e9, 4e11
    fs, ft = bd.flops_per_token(student), bd.flops_per_token(teacher)
    lgt, pre = deltas
    expected = 3 * fs * student_tokens + lgt * ft * student_tokens + 3 * pre * ft * teacher_tokens
    found = bd.distillation_flops(student, student_tokens, teacher, teacher_tokens, bd.SCENARIOS[name])
    assert found == pytest.approx(expected, rel=1e-14)
    parts = student_cost_per_token(fs, ft, lgt) * student_tokens + teacher_cost(ft, teacher_tokens, pre)
    assert parts == pytest.approx(expected, rel=1e-14)


def test_a_teacher_shared_by_k_students_costs_each_a_kth():
    runs = (3e8, 2e10, 7e9, 4e11)
    nothing, whole = (bd.distillation_flops(*runs, bd.Scenario(0.3, delta)) for delta in (0, 1))
    for k in (1, 2, 10, 1000):
        shared = bd.distillation_flops(*runs, bd.Scenario(0.3, 1 / k))
        assert (shared - nothing) * k == pytest.approx(whole - nothing, rel=1e-9)


def test_cost_uses_the_shape_it_is_given():
    shape = bd.Shape(context_length=1, vocabulary_size=1)
    ours = bd.distillation_flops(1e9, 1e10, 1e10, 1e11, bd.SCENARIOS["teacher pretraining + inference"], shape)
    rough = 6 * 1e9 * 1e10 + 2 * 1e10 * 1e10 + 6 * 1e10 * 1e11
    assert ours == pytest.approx(rough, rel=1e-3)
    assert ours != bd.distillation_flops(1e9, 1e10, 1e10, 1e11, bd.SCENARIOS["teacher pretraining + inference"])


def test_the_whole_budget_is_spent_on_pretraining():
    budget = np.geomspace(1e18, 1e25, 8)
    tokens = pretraining_tokens(2e9, budget)
    np.testing.assert_allclose(3 * bd.flops_per_token(2e9) * tokens, budget, rtol=1e-15)


# Scenarios and shapes -------------------------------------------------------------------------------------------------


def test_the_four_scenarios():
    assert {name: (s.delta_lgt, s.delta_pre) for name, s in bd.SCENARIOS.items()} == FOUR
    assert all(s.name == name for name, s in bd.SCENARIOS.items())
    with pytest.raises(TypeError):
        bd.SCENARIOS["mine"] = bd.Scenario(0, 0)


def test_names_of_scenarios():
    assert bd.Scenario(delta_lgt=1, delta_pre=0).name == "teacher inference"
    assert bd.Scenario(delta_lgt=0.25, delta_pre=1 / 3).name == "delta_lgt=0.25, delta_pre=0.333333"
    assert bd.Scenario(1, 1, name="mine").name == "mine"
    assert bd.Scenario(0, 1) == bd.SCENARIOS["teacher pretraining"]
    assert hash(bd.Scenario(0, 1)) == hash(bd.SCENARIOS["teacher pretraining"])
    with pytest.raises(AttributeError):
        bd.Scenario(0, 1).delta_pre = 0.5


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, True, "1", None])
@pytest.mark.parametrize("key", ["delta_lgt", "delta_pre"])
def test_shares_outside_zero_and_one_are_rejected(key, value):
    with pytest.raises(ParameterError, match=rf"{key}` must be a number from 0 to 1 "):
        bd.Scenario(**({"delta_lgt": 0, "delta_pre": 0} | {key: value}))


@pytest.mark.parametrize("value", ["bestcase", "", None, 3, ["best case"]])
def test_an_unknown_scenario_lists_those_that_exist(value):
    with pytest.raises(ParameterError, match="'best case', 'teacher inference'"):
        scenario(value)


def test_a_scenario_is_itself():
    mine = bd.Scenario(0.5, 0.5)
    assert scenario(mine) is mine
    assert scenario("best case") is bd.SCENARIOS["best case"]


@pytest.mark.parametrize("key", ["context_length", "vocabulary_size", "aspect_ratio"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "4096", None])
def test_impossible_shapes_are_rejected(key, value):
    with pytest.raises(ParameterError, match=f"{key}` must be a number from"):
        bd.Shape(**{key: value})
