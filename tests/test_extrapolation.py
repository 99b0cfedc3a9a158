"""One definition of extrapolation, and plans whose teachers are within a factor of the data."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from decision_cases import posterior_of, scattered
from reference_search import dense_search, random_draws

import bayesdistill as bd
from bayesdistill.compute import PUBLISHED_SHAPE, SCENARIOS
from bayesdistill.decisions import planning
from bayesdistill.decisions.extrapolation import CHOICE_AXES, TEACHER_AXES, pretraining_factors, teacher_factors

# Narrower than the runs of the paper, so that the restriction matters at most budgets.
SEEN = xr.Dataset(
    {
        "student_params": ("run", [2e8, 3e9]),
        "student_tokens": ("run", [4e9, 3e11]),
        "teacher_loss": ("run", [2.05, 2.6]),
        "params": ("supervised_run", [3e8, 2e9]),
        "tokens": ("supervised_run", [6e9, 2e11]),
    }
)
OF_TEACHERS = [*TEACHER_AXES, "teacher_loss"]
FACTORS = (1.0, 1.7, 30.0, np.inf)


def planner_of(values: dict[str, np.ndarray], **options: Any) -> bd.Planner:
    tree = xr.DataTree.from_dict({"posterior": posterior_of(values), "constant_data": SEEN})
    planner = bd.Planner(tree, allow_unconverged=True, progress=False, **options)
    with warnings.catch_warnings():  # so few draws do not converge
        warnings.simplefilter("ignore", bd.ConvergenceWarning)
        assert planner.fitted.ranges["teacher_params"] == (3e8, 2e9)
    return planner


@pytest.fixture(scope="module")
def fit() -> bd.Planner:
    """A planner of draws around the published law that saw few runs."""
    return planner_of(scattered(24, seed=4), draws=24)


def plan_within(fit: bd.Planner, factor: float | None, budgets=(1e20, 1e23)) -> xr.Dataset:
    return bd.plan(fit, [3e8, 3e9], budgets, max_extrapolation=factor)


def test_a_teacher_that_is_scaled_is_as_far_outside_in_size_as_in_loss(fit):
    scale, fitted = fit.fitted.size_scale, fit.fitted
    for params in (1e7, 4e8, 2e9, 3.3e11):
        loss = fitted.draws.supervised_loss(params, 20 * params).mean()
        assert scale.params(loss) == pytest.approx(params, rel=1e-3)
        assert scale.loss(params) == pytest.approx(loss, abs=1e-5)
    strongest, weakest = fitted.ranges["teacher_loss"]
    for factor in (1.5, 10.0, 300.0):
        losses = [scale.loss(scale.params(strongest) * factor), scale.loss(scale.params(weakest) / factor)]
        for loss in losses:
            run = pd.DataFrame({"student_params": [1e9], "student_tokens": [2e10], "teacher_loss": [loss]})
            far = bd.predict(fit, run, allow_suspicious=True)
            assert far["extrapolation_factor"].sel(axis="teacher_loss").item() == pytest.approx(factor, rel=1e-9)
            assert far["extrapolation"].item() == pytest.approx(factor, rel=1e-9)
    inside = bd.predict(
        fit, pd.DataFrame({"student_params": [1e9] * 3, "student_tokens": [2e10] * 3, "teacher_loss": [2.05, 2.2, 2.6]})
    )
    assert not inside["extrapolates"].any()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_restricted_strategies_are_those_of_a_dense_search(seed):
    """The chosen strategy and, with one draw, the strategy with perfect information."""
    rng = np.random.default_rng(seed)
    statuses = set()
    for count in (1, 10):
        draws = random_draws(rng, count, 0.3)
        planner = planner_of({name: draws[name] for name in bd.PUBLISHED})
        for scenario in SCENARIOS:
            student, budget = 10 ** rng.uniform(8, 10), 10 ** rng.uniform(19, 24)
            factor = 10 ** rng.uniform(0, 1.5)
            asked = planning.changed(planner, max_extrapolation=factor)
            found = bd.plan(asked, student, budget, scenario)
            bounds = planning.bounds_of(asked)
            least, *_ = dense_search(draws, student, budget, SCENARIOS[scenario], bounds, PUBLISHED_SHAPE)
            assert found["distilled_loss"].mean().item() < least + 1e-6
            if count == 1:
                assert found["best_distilled_loss"].item() < least + 1e-6
            assert (found["extrapolation_factor"].sel(axis=OF_TEACHERS) <= factor * (1 + 1e-6)).all()
            statuses.add(bd.flag_names(found["status"]).item())
    assert len(statuses) >= 3, statuses


def test_a_larger_factor_never_has_a_larger_loss_and_no_limit_is_the_unrestricted_plan(fit):
    plans = [plan_within(fit, factor) for factor in FACTORS]
    for narrow, wide in itertools.pairwise(plans):
        for name in ("distilled_loss", "best_distilled_loss"):
            means = [made[name] if "best" in name else made[name].mean(["chain", "draw"]) for made in (narrow, wide)]
            assert not (means[1] > means[0] + 1e-8).any()  # without a strategy there is no loss
            assert (np.isfinite(means[1]) | ~np.isfinite(means[0])).all()
    # The restriction matters, and no limit is what draws without known runs give.
    assert (plans[-1]["distilled_loss"].mean() < plans[1]["distilled_loss"].mean() - 1e-3).all()
    alone = bd.plan(posterior_of(scattered(24, seed=4)), [3e8, 3e9], [1e20, 1e23], draws=24)
    for free in (plans[-1], plan_within(fit, None)):
        for name in alone.data_vars:
            if "extrapolat" not in name:
                np.testing.assert_array_equal(free[name], alone[name], err_msg=name)


def test_every_function_that_plans_keeps_the_factor(fit):
    limited = planning.changed(fit, max_extrapolation=2.0)
    teachers = [
        bd.plan(limited, [3e8, 3e9], [1e20, 1e23]),
        bd.plan_tokens(limited, 1e9, [1e10, 1e12]),
        bd.sharing_map(limited, 1e9, 1e21, [1, 30]),
    ]
    for made in teachers:
        assert (made["extrapolation_factor"].sel(axis=OF_TEACHERS) <= 2 * (1 + 1e-6)).all()
        assert (made["extrapolation_factor"].sel(axis=OF_TEACHERS).max("axis") > 1.5).any()
        assert made.attrs["max_extrapolation"] == 2
        assert made.attrs["max_teacher_params"] == 4e9
    family = bd.family_plan(limited, [3e8, 3e9], 1e22)
    assert 1 < family["teacher_extrapolation"].max() <= 2 * (1 + 1e-6)
    wide, narrow = (bd.break_even(fit, 1e9, 1e22, max_extrapolation=factor) for factor in (50.0, 1.2))
    assert (narrow["students_per_teacher"] >= wide["students_per_teacher"] * (1 - 1e-6)).all()
    assert (narrow["students_per_teacher"] > wide["students_per_teacher"] * 1.01).any()
    found = bd.crossovers(limited, 3e8, "best case", budgets=[1e19, 1e21, 1e23, 1e25])
    assert found.attrs["max_teacher_tokens_per_param"] == 200


@pytest.mark.parametrize("most", [1.0, 3.0, 10.0, None])
def test_recommendations_say_of_every_cell_what_the_plan_says(fit, most):
    rng = np.random.default_rng(0 if most is None else int(most))
    student, budget = 10 ** rng.uniform(8.3, 10), 10 ** rng.uniform(19, 24)
    made = bd.plan(fit, student, budget, max_extrapolation=most)
    table = bd.recommendations(fit, student, budgets=budget, tokens=[], max_extrapolation=most).to_dataframe()
    for k, row in enumerate(table.itertuples()):
        cell = made.isel(student=0, scenario=k, budget=0)
        factors = cell["extrapolation_factor"]
        others = [axis for axis in CHOICE_AXES if axis not in TEACHER_AXES]
        assert row.teacher_extrapolation == factors.sel(axis=[*TEACHER_AXES]).max()
        assert row.extrapolation == factors.sel(axis=others).max()
        assert row.extrapolates == cell["extrapolates"].item()
        assert row.extrapolation_axis == str(bd.flag_names(cell["extrapolation_axis"]).item())
        limit = np.inf if most is None else most * (1 + 1e-6)
        assert factors.sel(axis=OF_TEACHERS).max() <= limit
        assert row.advice == "undetermined" or row.extrapolation <= limit
        # The student and pretraining on the same axes as other functions.
        alone = pretraining_factors(
            fit.fitted, student, factors.sel(axis="pretraining_tokens_per_param") * 0 + 20 * student
        )
        assert alone[0] == factors.sel(axis="pretraining_params")
        far = teacher_factors(fit.fitted, row.teacher_params, row.teacher_tokens)
        assert far.max() == row.teacher_extrapolation


def test_given_teachers_are_marked_and_never_excluded(fit):
    teachers = pd.DataFrame({"params": [2e8, 9e11], "loss": [2.9, 1.75], "tokens": [1e9, 2e13]})
    near, far = (bd.plan(fit, 1e9, [1e20, 1e22], teachers=teachers, max_extrapolation=f) for f in (1.0, None))
    xr.testing.assert_equal(near, far)
    assert (near["teacher_index"] == 1).any()
    strong = near["extrapolation_factor"].sel(axis="teacher_loss").where(near["teacher_index"] == 1)
    assert strong.min() > 3
    assert near["extrapolates"].where(near["teacher_index"] == 1, True).all()


def test_bounds_that_exclude_every_teacher_near_the_data_are_an_error(fit):
    with pytest.raises(
        bd.ParameterError, match="No new teacher within the bounds is within a factor of 10 of the range"
    ):
        bd.plan(fit, 1e9, 1e21, min_teacher_params=3e10)
    assert np.isfinite(bd.plan(fit, 1e9, 1e21, min_teacher_params=3e10, max_extrapolation=None)["probability"]).any()
