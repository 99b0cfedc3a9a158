"""Choice among student sizes: against a dense search, against plans, and its probabilities."""

from __future__ import annotations

import law_names as laws
import numpy as np
import pandas as pd
import pytest
from decision_cases import brute_force, posterior_of, published, scattered
from hypothesis import given, settings
from hypothesis import strategies as st

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.compute import Scenario, flops_per_token
from bayesdistill.decisions import flag_names, plan, student_choice
from bayesdistill.decisions.fitted_draws import gather
from bayesdistill.errors import ParameterError

TEACHERS = pd.DataFrame({"name": ["mine", "large"], "params": [8e9, 7e10], "loss": [2.05, 1.95]})
SIX = laws.SUPERVISED_PARAMETERS


def test_a_teacher_that_the_budget_does_not_pay_for_is_named():
    fit = posterior_of(published(2))
    teacher = pd.DataFrame({"params": [8e9], "loss": [1.98], "tokens": [1.5e13]})
    found = student_choice(fit, ["1B", "3B"], 3e21, scenarios=["best case", "teacher pretraining"], teachers=teacher)
    free, charged = found["sentence"].values[:, 0]
    assert "does not pay" not in free
    assert "3B" in charged
    assert "The budget does not pay for distillation" in charged


def test_students_are_ranked_as_a_dense_search_ranks_them():
    draws, scenario, sizes, budget = scattered(4, seed=5), Scenario(1, 0.1), [1e9, 3e8, 3e9], 3e20
    found = student_choice(posterior_of(draws, chains=2), sizes, budget, scenario).squeeze()
    distilled = np.stack([brute_force(draws, size, budget, scenario, mean=True, points=25)["loss"] for size in sizes])
    own = [budget / (3 * flops_per_token(size)) for size in sizes]
    alone = np.stack(
        [laws.supervised_loss(n, d, **{k: draws[k] for k in SIX}) for n, d in zip(sizes, own, strict=True)]
    )
    np.testing.assert_allclose(
        found["distilled_loss"].values.reshape(3, -1).mean(axis=1), distilled.mean(axis=1), atol=1e-5
    )
    np.testing.assert_allclose(found["supervised_loss"].values.reshape(3, -1), alone, atol=1e-12)
    np.testing.assert_allclose(found["pretraining_tokens"], own)
    better = distilled.mean(axis=1) < alone.mean(axis=1)
    assert flag_names(found["option"]).values.tolist() == ["distill" if one else "pretrain" for one in better]
    loss = np.where(better[:, None], distilled, alone)
    np.testing.assert_allclose(found["expected_loss"], loss.mean(axis=1), atol=1e-5)
    assert (found["rank"].values - 1).tolist() == np.argsort(np.argsort(loss.mean(axis=1))).tolist()
    assert found["best"].item() == sizes[loss.mean(axis=1).argmin()]
    for name, values in (("probability_best", loss), ("distilled_probability_best", distilled)):
        np.testing.assert_allclose(found[name], np.bincount(values.argmin(axis=0), minlength=3) / 4)
    np.testing.assert_allclose(found["regret"], (loss - loss.min(axis=0)).mean(axis=1), atol=1e-5)


def test_existing_teachers_give_what_the_law_gives():
    draws, budgets = scattered(6, seed=2), np.array([1e20, 3e21])
    found = student_choice(posterior_of(draws), ["500M", "3B"], budgets, teachers=TEACHERS)
    assert found["scenario"].values.tolist() == ["best case", "teacher inference"]
    assert "'teacher pretraining'" in found.attrs["scenarios_left_out"]
    for size in (5e8, 3e9):
        for budget in budgets:
            tokens = budget / (3 * flops_per_token(size) + flops_per_token(TEACHERS["params"].to_numpy()))
            each = [laws.distilled_loss(size, d, t, **draws) for d, t in zip(tokens, TEACHERS["loss"], strict=True)]
            best = int(np.argmin([loss.mean() for loss in each]))
            cell = found.sel(student=size, budget=budget, scenario="teacher inference")
            assert cell["teacher_index"].item() == best
            np.testing.assert_allclose(cell["distilled_loss"].values.ravel(), each[best], atol=1e-12)
            assert cell["student_tokens"].item() == pytest.approx(tokens[best])
            share = 3 * flops_per_token(size) * tokens[best] / budget
            assert cell["student_share"].item() == pytest.approx(share)
            assert cell["teacher_inference_share"].item() == pytest.approx(1 - share)


@pytest.mark.parametrize("level", ["law", "run"])
def test_one_student_equals_the_plan(jittered_draws, level):
    one = student_choice(jittered_draws, "1B", [1e20, 1e22], noise=level, seed=7)
    planned = plan(jittered_draws, "1B", [1e20, 1e22], noise=level, seed=7, draws=4)
    names = (
        "distilled_loss_quantile supervised_loss_quantile probability student_tokens pretraining_tokens teacher_params"
    )
    for name in [*names.split(), "student_share", "status", "extrapolation"]:
        np.testing.assert_allclose(one[name], planned[name], rtol=1e-9, err_msg=name)
    assert (one["probability_best"] == 1).all()
    assert (one["rank"] == 1).all()
    assert one.attrs["noise"] == planned.attrs["noise"] == level


@given(
    st.integers(0, 1000), st.lists(st.floats(1e8, 3e10), min_size=1, max_size=4, unique=True),
    st.lists(st.floats(1e10, 1e24), min_size=1, max_size=2, unique=True),
    st.sampled_from(["best case", "teacher pretraining + inference"]),
)  # fmt: skip
@settings(max_examples=8, deadline=None)
def test_probabilities_of_being_best_sum_to_one(seed, students, budgets, scenario):
    found = student_choice(posterior_of(scattered(4, seed)), students, budgets, scenario, progress=False)
    grid = [found[name].broadcast_like(found["rank"]).transpose(*found["rank"].dims).values for name in (
        "expected_loss", "probability_best", "expected_distilled_loss", "distilled_probability_best",
        "expected_supervised_loss", "supervised_probability_best", "rank", "regret",
    )]  # fmt: skip
    for at in np.ndindex(grid[0].shape[1:]):
        expected, best, distilled, distilled_best, alone, alone_best, rank, regret = (values[:, *at] for values in grid)
        for loss, chance in ((expected, best), (distilled, distilled_best), (alone, alone_best)):
            possible = ~np.isnan(loss)
            if possible.any():
                assert chance.sum() == pytest.approx(1)
                assert (chance[~possible] == 0).all()
            else:
                assert np.isnan(chance).all()
        possible = ~np.isnan(expected)
        assert (rank > 0).tolist() == possible.tolist()
        order = np.argsort(rank[possible])
        assert rank[possible][order].tolist() == list(range(1, possible.sum() + 1))
        assert (np.diff(expected[possible][order]) >= 0).all()
        assert (regret[possible] >= -1e-12).all()


def test_the_discrepancy_is_common_to_students_and_their_effects_are_not():
    fit, teacher, sizes = posterior.reference_fits(), pd.DataFrame({"params": [8e9], "loss": [2.0]}), [1e9, 1.1e9]
    draws = gather(fit, seed=3).draws
    ask = {"scenarios": "best case", "teachers": teacher, "seed": 3, "progress": False}
    expected, law = (student_choice(fit, sizes, 1e23, noise=level, **ask) for level in ("expected", "law"))
    tokens = law["pretraining_tokens"].values
    for kind, name in (("distilled", "distilled_loss"), ("supervised", "supervised_loss")):
        deviations = (expected[name] - law[name]).values.reshape(2, -1)
        path = draws.discrepancy(kind, np.array(sizes)[:, None], tokens)
        first, second = effects = deviations - path
        assert np.abs(path).max() > 0.01
        assert (np.abs(effects).max(axis=1) > 1e-3).all()
        # 800 draws: an independent pair has a correlation of 0 with a standard deviation of 0.035.
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.15


def test_sentences_name_the_choice_and_what_cannot_be_paid():
    found = student_choice(
        posterior_of(published(4)), ["300M", "1B", "3B"], [1e6, 1e21], "teacher inference", teachers=TEACHERS
    )
    none, best = found["sentence"].values.ravel()
    assert none == "With 1e6 FLOPs, teacher inference: the budget is too small for every student."
    assert found["rank"].sel(budget=1e6).values.ravel().tolist() == [0, 0, 0]
    assert np.isnan(found["best"].sel(budget=1e6).item())
    row = found.sel(budget=1e21, student=found["best"].sel(budget=1e21).item()).squeeze()
    option = str(flag_names(row["option"]).item())
    assert best.startswith(f"With 1e21 FLOPs, teacher inference: {option} ")
    assert f"{row['expected_loss'].item():.3f} nats per token" in best
    assert "of the 3 sizes" in best
    table = bd.decision_table(found)
    assert table["student"].tolist() == [3e8, 1e9, 3e9] * 2
    assert (
        table["is_best_size_probability"].tolist()[3:]
        == found["probability_best"].sel(budget=1e21).values.ravel().tolist()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"students": ["1B", 1e9]}, "`students` contains 1e\\+09 more than once"),
        ({"students": "huge"}, "'huge' in `students`"),
        ({"budgets": -1}, "-1 in `budgets`"),
        ({"scenarios": "free"}, "Unknown scenario 'free'"),
        ({"noise": "loud"}, "`noise` must be"),
        ({"scenarios": "teacher pretraining", "teachers": TEACHERS}, "`teachers` has no column 'tokens'"),
    ],
)
def test_unusable_arguments_are_named(changes, message):
    arguments = {"students": ["1B", "3B"], "budgets": 1e20} | changes
    with pytest.raises(ParameterError, match=message):
        student_choice(posterior_of(published()), **arguments)
