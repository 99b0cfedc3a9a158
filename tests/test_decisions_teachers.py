from __future__ import annotations

import law_names as laws
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from decision_cases import brute_force, posterior_of, published, scattered, simple

from bayesdistill.compute import Scenario, flops_per_token
from bayesdistill.decisions import capacity_gap, plan, teacher_choice
from bayesdistill.errors import ConvergenceWarning, ParameterError

TABLE = pd.DataFrame(
    {"name": ["mid", "strong", "weak"], "params": [3e9, 7e10, 5e8], "loss": [2.20, 1.95, 2.45], "tokens": [1e11] * 3}
)
SIX = laws.SUPERVISED_PARAMETERS


@pytest.fixture(scope="module")
def draws() -> dict[str, np.ndarray]:
    return scattered(30, seed=2)


@pytest.fixture(scope="module")
def choice(draws) -> xr.Dataset:
    return teacher_choice(posterior_of(draws, chains=2), TABLE, ["300M", "2B"], [1e19, 3e20])


def by_hand(draws, student, budget):
    per_token = 3 * flops_per_token(student) + flops_per_token(TABLE["params"].to_numpy())
    tokens = budget / per_token
    losses = [laws.distilled_loss(student, d, t, **draws) for d, t in zip(tokens, TABLE["loss"], strict=True)]
    return tokens, np.stack(losses)


def test_every_number_of_the_choice_follows_from_the_law(draws, choice):
    for student in (3e8, 2e9):
        for budget in (1e19, 3e20):
            tokens, losses = by_hand(draws, student, budget)
            cell = choice.sel(student=student, budget=budget).isel(scenario=0)
            np.testing.assert_allclose(cell["student_tokens"], tokens)
            np.testing.assert_allclose(cell["distilled_loss"].values.reshape(3, -1), losses, atol=1e-12)
            np.testing.assert_allclose(cell["expected_loss"], losses.mean(axis=1), atol=1e-12)
            assert cell["chosen"].item() == losses.mean(axis=1).argmin()
            best = np.bincount(losses.argmin(axis=0), minlength=3) / 30
            np.testing.assert_allclose(cell["probability_best"], best, atol=1e-12)
            np.testing.assert_allclose(cell["regret"], (losses - losses.min(axis=0)).mean(axis=1), atol=1e-12)
            evpi = losses.mean(axis=1).min() - losses.min(axis=0).mean()
            assert cell["evpi"].item() == pytest.approx(evpi, abs=1e-12)
            worse = [np.mean(losses[1] > losses[0]), np.nan, np.mean(losses[0] > losses[2])]
            np.testing.assert_allclose(cell["probability_stronger_worse"], worse, atol=1e-12)
            own = budget / (3 * flops_per_token(student))
            alone = laws.supervised_loss(student, own, **{k: draws[k] for k in SIX})
            np.testing.assert_allclose(cell["probability_pretraining_better"], (alone < losses).mean(axis=1))
    assert choice["stronger"].values.tolist() == [1, -1, 0]
    np.testing.assert_allclose(choice["probability_best"].sum("teacher"), 1)


def test_a_newly_trained_teacher_is_charged_for(draws, choice):
    new = brute_force(draws, 3e8, 3e20, Scenario(1, 1), mean=True)["loss"]
    cell = choice.sel(student=3e8, budget=3e20).isel(scenario=0)
    np.testing.assert_allclose(cell["new_distilled_loss"].values.mean(), new.mean(), atol=1e-6)
    _, losses = by_hand(draws, 3e8, 3e20)
    shared = teacher_choice(posterior_of(draws), TABLE, 3e8, 3e20, new_delta_pre=0.01)
    assert shared["new_distilled_loss"].mean().item() < new.mean()
    expected = [np.mean(cell["new_distilled_loss"].values.ravel() < losses[k]) for k in range(3)]
    np.testing.assert_allclose(cell["probability_new_better"], expected)


def test_a_teacher_that_cannot_be_paid_is_never_the_best(draws):
    # Charged in full, the strong teacher's pretraining alone costs 3 * 2 * 7e10 * 1e11 = 4e22 FLOPs.
    found = teacher_choice(posterior_of(draws), TABLE, 1e9, [1e7, 1e22], Scenario(1, 1, "paid in full"))
    cell = found.sel(student=1e9, budget=1e22, scenario="paid in full")
    assert np.isnan(cell["expected_loss"].sel(teacher="strong"))
    assert cell["probability_best"].sel(teacher="strong") == 0
    assert np.isnan(cell["probability_stronger_worse"].sel(teacher="mid"))
    assert cell["teacher"].values[cell["chosen"].item()] != "strong"
    nothing = found.sel(student=1e9, budget=1e7, scenario="paid in full")
    assert nothing["chosen"].item() == -1
    assert np.isnan(nothing["probability_best"]).all()
    assert np.isnan(nothing["evpi"]).all()


def test_a_cap_holds_for_every_option(draws):
    found = teacher_choice(posterior_of(draws), TABLE, 3e8, 1e21, max_student_tokens=5e9).isel(student=0, budget=0)
    np.testing.assert_allclose(found["student_tokens"], 5e9)
    alone = laws.supervised_loss(3e8, 5e9, **{k: draws[k] for k in SIX})
    np.testing.assert_allclose(found["supervised_loss"].values[0], alone, atol=1e-12)
    new = brute_force(draws, 3e8, 1e21, Scenario(1, 1), mean=True, max_student_tokens=5e9)["loss"]
    assert found["new_distilled_loss"].mean().item() == pytest.approx(new.mean(), abs=1e-6)
    committed = plan(posterior_of(draws), 3e8, 1e21, Scenario(1, 1), max_student_tokens=5e9)
    np.testing.assert_array_equal(
        found["new_distilled_loss"].values.ravel(), committed["distilled_loss"].values.ravel()
    )


SEEN = xr.Dataset(
    {
        "student_params": ("run", [1e8, 1e10]),
        "student_tokens": ("run", [2e9, 1.6e12]),
        "teacher_loss": ("run", [2.0, 2.9]),
    }
)


def test_what_lies_outside_the_runs_is_flagged(draws):
    tree = xr.DataTree.from_dict({"posterior": posterior_of(draws, 2), "constant_data": SEEN})
    with pytest.warns(ConvergenceWarning):
        found = teacher_choice(tree, TABLE, 3e8, [1e17, 1e20], allow_unconverged=True).isel(student=0, scenario=0)
    # 1e17 FLOPs are less than 20 tokens a parameter, and the strong teacher leaves as little of 1e20.
    assert found["extrapolates"].sel(budget=1e17).all()
    assert found["extrapolates"].sel(budget=1e20).values.tolist() == [False, True, False]
    with pytest.warns(ConvergenceWarning):
        curve = capacity_gap(
            tree, 3e8, student_tokens_per_param=[19, 21, 159, 161], teacher_losses=[1.99, 2.01, 2.89, 2.91],
            allow_unconverged=True,
        )  # fmt: skip
    inside = ~curve["extrapolates"].values[0]
    np.testing.assert_array_equal(inside, np.outer([0, 1, 1, 0], [0, 1, 1, 0]).astype(bool))
    unknown = teacher_choice(posterior_of(draws), TABLE, 3e8, [1e7, 3e20])
    # Where nothing is known the flag is up; where no teacher can be paid there is nothing to flag.
    assert unknown["extrapolates"].sel(budget=3e20).all()
    assert not unknown["extrapolates"].sel(budget=1e7).any()


def test_the_u_shape_is_the_law(draws):
    losses = np.linspace(1.8, 2.8, 21)
    curve = capacity_gap(posterior_of(draws), [3e8, 2e9], student_tokens=[1e10, 1e11], teacher_losses=losses[::-1])
    assert curve["teacher"].values.tolist() == losses.tolist()
    for student in (3e8, 2e9):
        for tokens in (1e10, 1e11):
            expected = laws.distilled_loss(student, tokens, losses[:, None], **draws)
            cell = curve.sel(student=student, training=tokens)
            np.testing.assert_allclose(cell["distilled_loss"].values[:, 0], expected, atol=1e-12)
            np.testing.assert_array_equal(cell["best_teacher"].values[0], losses[expected.argmin(axis=0)])
            alone = laws.supervised_loss(student, tokens, **{k: draws[k] for k in SIX})
            np.testing.assert_allclose(cell["supervised_loss"].values[0], alone, atol=1e-12)
            np.testing.assert_allclose(cell["probability_better_alone"], (alone < expected).mean(axis=1))


def test_a_stronger_teacher_is_worse_on_the_left_arm_of_the_u_only():
    curve = capacity_gap(
        posterior_of(published()), 3e8, student_tokens_per_param=20, teacher_losses=np.linspace(1.7, 2.9, 121)
    )
    worse = curve["probability_stronger_worse"].values.ravel()
    turning = curve["best_teacher"].item()
    assert 1.8 < turning < 2.8
    assert (worse[curve["teacher"].values < turning - 0.02] == 1).all()
    assert (worse[curve["teacher"].values > turning + 0.02] == 0).all()
    # Without capacity gap a stronger teacher never hurts.
    flat = capacity_gap(posterior_of(simple()), 3e8, student_tokens=1e10, teacher_losses=np.linspace(1.7, 2.9, 11))
    assert (flat["probability_stronger_worse"] == 0).all()
    assert (flat["best_teacher"] == 1.7).all()


def test_teachers_by_size_and_students_by_budget(draws):
    sizes = np.geomspace(1e8, 1e10, 9)
    iso = capacity_gap(
        posterior_of(draws), [3e8, 1e9], student_budget=[1e20], teacher_params=sizes, teacher_budget=1e21
    )
    tokens = 1e21 / (3 * flops_per_token(sizes))
    np.testing.assert_allclose(iso["teacher_tokens"], tokens)
    teacher = laws.supervised_loss(sizes[:, None], tokens[:, None], **{k: draws[k] for k in SIX})
    np.testing.assert_allclose(iso["teacher_loss"].values[:, 0], teacher, atol=1e-12)
    own = 1e20 / (3 * flops_per_token(3e8))
    expected = laws.distilled_loss(3e8, own, teacher, **draws)
    np.testing.assert_allclose(iso["distilled_loss"].sel(student=3e8).values[0, :, 0], expected, atol=1e-12)
    fixed = capacity_gap(
        posterior_of(draws), 1e9, student_tokens_per_param=[20, 80], teacher_params=sizes, teacher_tokens_per_param=20
    )
    np.testing.assert_allclose(fixed["teacher_tokens"], 20 * sizes)
    np.testing.assert_allclose(fixed["student_tokens"].values[0], [2e10, 8e10])
    assert fixed.attrs["teacher_axis"] == "params"


def test_labels_and_files(choice, draws, tmp_path):
    curve = capacity_gap(posterior_of(draws), 1e9, student_budget=1e20, teacher_params=[1e9, 2e9], teacher_budget=1e21)
    for number, dataset in enumerate((choice, curve)):
        for name, variable in dataset.variables.items():
            assert variable.attrs["units"], name
            assert variable.attrs["long_name"], name
        dataset.to_netcdf(tmp_path / f"{number}.nc", engine="h5netcdf")
        with xr.open_dataset(tmp_path / f"{number}.nc", engine="h5netcdf") as loaded:
            assert loaded.load().identical(dataset)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"teacher_losses": [2.0]}, "exactly one of student_tokens"),
        ({"student_tokens": 1e9, "student_budget": 1e20, "teacher_losses": [2.0]}, "exactly one of student_tokens"),
        ({"student_tokens": 1e9}, "exactly one of teacher_losses"),
        ({"student_tokens": 1e9, "teacher_losses": [2.0], "teacher_budget": 1e20}, "require teacher_params"),
        ({"student_tokens": 1e9, "teacher_params": [1e9]}, "exactly one of teacher_tokens_per_param"),
        ({"student_tokens": -1, "teacher_losses": [2.0]}, "student_tokens"),
    ],
)
def test_an_incomplete_question_is_rejected(arguments, message):
    with pytest.raises(ParameterError, match=message):
        capacity_gap(posterior_of(published()), 1e9, **arguments)


def test_a_table_is_needed():
    with pytest.raises(ParameterError, match="teachers"):
        teacher_choice(posterior_of(published()), None, 1e9, 1e20)
    with pytest.raises(ParameterError, match="delta_pre"):
        teacher_choice(posterior_of(published()), TABLE, 1e9, 1e20, new_delta_pre=2)
