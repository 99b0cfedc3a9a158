"""`Planner`: a fit with options, which every decision function takes in place of a fit and keywords."""

from __future__ import annotations

import dataclasses
import inspect
import pydoc
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from decision_cases import posterior_of, scattered

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.decisions.labels import declared
from bayesdistill.errors import ConvergenceError, ConvergenceWarning, ParameterError

TABLE = pd.DataFrame({"name": ["small", "large"], "params": [1e9, 7e9], "loss": [2.3, 2.05], "tokens": [1e11, 3e11]})
RUNS = pd.DataFrame({"student_params": [1e9, 3e8], "student_tokens": [2e10, 1e10], "teacher_loss": [2.2, 2.4]})
STUDENTS, BUDGETS = [3e8, 2e9], [1e20, 1e23]
BOUNDS = {"max_teacher_params": "300B", "max_teacher_tokens": 1e13, "min_teacher_params": 1e7, "max_extrapolation": 3.0}
ALL = BOUNDS | {"max_student_tokens": 1e13}
SHAPE = {"shape": bd.Shape(context_length=2048)}
NOISE = {"noise": "run", "seed": 3}
LIMITED = {"unique_tokens": "50B", "repetition": bd.RepetitionPrior(log_sd=0.1), "seed": 3}
THINNED = {"draws": 4}
UNCONVERGED = {"allow_unconverged": True}
MONEY = {
    "gpu_flops_per_second": 4e14, "price_per_gpu_hour": 2, "inference_flops_per_second": 2e14,
    "inference_price_per_gpu_hour": 3, "currency": "EUR",
}  # fmt: skip
SUPERVISED = {"student_params": "params", "student_tokens": "tokens"}
WORK = {"threads": 1, "progress": False}
SEARCH = ALL | SHAPE | WORK | {"piece": 1}
RANGE = [1e19, 1e22, 1e25]


def fit_of(source: xr.Dataset | bd.Planner) -> xr.Dataset:
    return source.fit if isinstance(source, bd.Planner) else source


_FAMILIES: dict[str, xr.Dataset] = {}


def free_family(fit: xr.Dataset) -> xr.Dataset:
    """Return a plan for a family of a fit, computed once."""
    name = posterior.identity(fit)
    if name not in _FAMILIES:
        _FAMILIES[name] = bd.family_plan(fit, STUDENTS, 1e20, delta_lgt=0, delta_pre=0, progress=False)
    return _FAMILIES[name]


# Function -> (the options that it uses, with a value that is not the default; the call).
CALLS = {
    "plan": (SEARCH | NOISE | THINNED | LIMITED, lambda f, **o: bd.plan(f, STUDENTS, BUDGETS, teachers=TABLE, **o)),
    "plan_tokens": (BOUNDS | SHAPE | NOISE | WORK | THINNED, lambda f, **o: bd.plan_tokens(f, STUDENTS, [1e10, 1e11], **o)),
    "sharing_map": (SEARCH | NOISE | THINNED | LIMITED, lambda f, **o: bd.sharing_map(f, STUDENTS, BUDGETS, [1, 8], **o)),
    "break_even": (ALL | SHAPE | WORK | LIMITED, lambda f, **o: bd.break_even(f, STUDENTS, BUDGETS, **o)),
    "crossovers": (SEARCH | NOISE | LIMITED, lambda f, **o: bd.crossovers(f, STUDENTS, "teacher inference", budgets=RANGE, **o)),
    "compare_crossovers": (
        SEARCH | NOISE | LIMITED,
        lambda f, **o: bd.compare_crossovers({"a": f, "b": f}, STUDENTS, "teacher inference", budgets=RANGE, **o),
    ),
    "student_choice": (
        SEARCH | NOISE | LIMITED,
        lambda f, **o: bd.student_choice(f, STUDENTS, BUDGETS, "teacher inference", teachers=TABLE, **o),
    ),
    "teacher_choice": (SEARCH | LIMITED, lambda f, **o: bd.teacher_choice(f, TABLE, STUDENTS, BUDGETS, **o)),
    "capacity_gap": (
        SHAPE,
        lambda f, **o: bd.capacity_gap(f, STUDENTS, student_budget=1e21, teacher_params=[1e9, 7e9], teacher_budget=1e22, **o),
    ),
    "family_plan": (
        ALL | SHAPE | NOISE | LIMITED | {"progress": False},
        lambda f, **o: bd.family_plan(f, STUDENTS, 1e22, teachers=TABLE, **o),
    ),
    "add_student": (
        NOISE,
        lambda f, **o: bd.add_student(
            f, free_family(fit_of(f)), "1B", **o
        ),
    ),
    "plan_value": (MONEY, lambda f, **o: bd.plan_value(f, bd.plan(fit_of(f), 1e9, 1e21), **o)),
    "target_loss": (
        ALL | SHAPE | NOISE | WORK | MONEY | LIMITED, lambda f, **o: bd.target_loss(f, STUDENTS, 2.3, teachers=TABLE, **o)
    ),
    "lifetime": (
        ALL | SHAPE | NOISE | WORK | MONEY | THINNED | LIMITED,
        lambda f, **o: bd.lifetime(f, [0, 1e12], "teacher inference", budgets=1e22, students=STUDENTS, teachers=TABLE, **o),
    ),
    "evppi": ({}, lambda f, **o: bd.evppi(f, bd.plan(fit_of(f), 1e9, 1e21), **o)),
    "predict": (NOISE, lambda f, **o: bd.predict(f, RUNS, draws=True, **o)),
    "compute_optimal": (SHAPE | NOISE | LIMITED, lambda f, **o: bd.compute_optimal(f, BUDGETS, **o)),
    "recommendations": (
        SEARCH | NOISE | THINNED,
        lambda f, **o: bd.recommendations(f, STUDENTS, budgets=1e21, tokens=1e10, teachers=TABLE, **o),
    ),
    "paper_claims": (SEARCH | NOISE, lambda f, **o: bd.paper_claims(f, STUDENTS, **o)),
    "next_runs": (
        ALL | SHAPE | WORK | MONEY | {"seed": 3},
        lambda f, **o: bd.next_runs(f, RUNS, STUDENTS, BUDGETS, outcomes=20, **o),
    ),
    "next_supervised_runs": (
        SHAPE | {"seed": 3},
        lambda f, **o: bd.next_supervised_runs(f, RUNS.rename(columns=SUPERVISED)[["params", "tokens"]], BUDGETS, outcomes=20, **o),
    ),
    "information_order": (SHAPE, lambda f, **o: bd.information_order(f, RUNS, **o)),
}  # fmt: skip
OPTIONAL = {
    "plan": {"probability_by_law", "law_range", "bound", "teacher_epochs"},
    **{name: {"teacher_epochs"} for name in ("student_choice", "target_loss", "lifetime", "family_plan")},
    "predict": {"observed", "residual", "pit", "group_seen", "effect", "teacher", "student", "model", "experiment"},
}
DEFAULTS = {field.name: field.default for field in dataclasses.fields(bd.Planner) if field.name != "fit"}


@pytest.fixture(scope="module")
def fit() -> xr.Dataset:
    rng = np.random.default_rng(1)
    noise = {"sigma": 0.01 * np.exp(0.1 * rng.standard_normal(8)), "nu": np.full(8, 5.0)}
    return posterior_of(scattered(8, seed=1) | noise, chains=2)


@pytest.mark.parametrize("name", CALLS)
def test_a_planner_gives_what_the_keywords_give(name, fit):
    options, call = CALLS[name]
    options = options | UNCONVERGED
    short = call(fit, **options)
    xr.testing.assert_identical(short, call(bd.Planner(fit, **options)))
    # Options that the function does not use are ignored, and keywords override those of the Planner.
    other = {k: v for k, v in (ALL | SHAPE | NOISE | WORK).items() if k not in options}
    others = {k: DEFAULTS[k] for k in options}
    xr.testing.assert_identical(short, call(bd.Planner(fit, **others, **other), **options))
    # The result has the variables that are declared for it, and the options do matter.
    assert declared()[name].keys() - short.variables.keys() == OPTIONAL.get(name, set())
    assert not options.keys() - {"allow_unconverged", "progress"} or not short.equals(call(fit))


@pytest.mark.parametrize("name", CALLS)
def test_a_function_accepts_the_options_that_it_uses_and_no_others(name, fit):
    options, call = CALLS[name]
    taken = dict(inspect.signature(getattr(bd, name)).parameters)
    if name == "predict":
        del taken["draws"]  # another argument with this name
    assert options.keys() | {"allow_unconverged", "allow_conflict"} == (taken.keys() & DEFAULTS.keys()) - {"executor"}
    for option in taken.keys() & DEFAULTS.keys():
        assert taken[option].default == DEFAULTS[option]
        assert taken[option].kind is inspect.Parameter.KEYWORD_ONLY
    for option in DEFAULTS.keys() - inspect.signature(getattr(bd, name)).parameters.keys() | {"max_teacher_parms"}:
        with pytest.raises(TypeError, match=rf"{name}\(\) got an unexpected keyword argument '{option}'"):
            call(fit, **{option: DEFAULTS.get(option)})


@pytest.mark.parametrize("name", CALLS)
def test_help_describes_every_option(name):
    text = pydoc.plain(pydoc.render_doc(getattr(bd, name)))
    for option in inspect.signature(getattr(bd, name)).parameters.keys() & DEFAULTS.keys():
        assert f"{option}: " in text.split("Parameters\n")[0], option
        assert f"\n    {option} : " in text.split("Parameters\n")[1], option
    assert "ConvergenceError" in text


def test_a_planner_is_frozen_and_knows_its_fields(fit):
    planner = bd.Planner(fit, max_teacher_params="10B")
    with pytest.raises(dataclasses.FrozenInstanceError):
        planner.seed = 1
    with pytest.raises(TypeError, match="max_teacher_parms"):
        bd.Planner(fit, max_teacher_parms=1e9)
    with pytest.raises(TypeError, match="positional"):
        bd.Planner(fit, 1e9)
    assert repr(planner).startswith("Planner(min_teacher_params=1000000.0, max_teacher_params='10B'")
    assert "xarray" not in repr(planner)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_teacher_params": "ten"}, "Cannot parse 'ten' in `max_teacher_params`"),
        ({"max_teacher_params": 1e5}, "no teacher is left"),
        ({"max_teacher_tokens": 1e5}, "no teacher is left"),
        ({"max_student_tokens": -1}, "Cannot parse -1 in `max_student_tokens`"),
        ({"noise": "loud"}, "`noise` must be 'law', 'expected' or 'run', got 'loud'"),
        ({"threads": 0}, "`threads` must be an integer from 1 to 10000, got 0"),
        ({"threads": "2"}, "`threads` must be an integer from 1 to 10000, got '2'"),
        ({"threads": 1.5}, "`threads` must be an integer from 1 to 10000, got 1.5"),
        ({"max_extrapolation": 0.5}, "`max_extrapolation` must be a number of at least 1, got 0.5"),
        ({"draws": 0}, "`draws` must be an integer from 1 to 1e\\+06, got 0"),
        ({"seed": "a"}, "`seed` must be an integer from 0 to .*, got 'a'"),
        ({"seed": -1}, "`seed` must be an integer from 0 to .*, got -1"),
        ({"shape": 3}, "`shape` must be a Shape, got 3"),
        ({"piece": 0}, "`piece` must be an integer from 1 to 1e\\+06 budgets, got 0"),
        ({"executor": 3}, "`executor` must be a concurrent.futures.Executor, got int"),
    ],
)
def test_an_invalid_option_is_an_error_at_once(options, message, fit):
    with pytest.raises(ParameterError, match=message):
        bd.Planner(fit, **options)
    with pytest.raises(ParameterError, match=message):
        bd.plan(bd.Planner(fit), 1e9, 1e21, **options)


def test_a_planner_of_a_planner_is_rejected(fit):
    with pytest.raises(ParameterError, match="`fit` is a Planner already"):
        bd.Planner(bd.Planner(fit), seed=3)


def test_the_same_tokens_are_for_plan_tokens_alone(fit):
    planner = bd.Planner(fit, max_teacher_tokens="same")
    assert bd.plan_tokens(planner, 1e9, 1e10)["student_tokens"].item() == 1e10
    with pytest.raises(ParameterError, match="Cannot parse 'same' in `max_teacher_tokens`"):
        bd.plan(planner, 1e9, 1e21)


def test_convergence_is_checked_once(fit):
    draws = fit.assign(E=fit["E"] + xr.DataArray([0.0, 0.1], dims="chain"))
    tree = xr.DataTree.from_dict({"posterior": draws})
    with pytest.raises(ConvergenceError, match="allow_unconverged=True"):
        bd.plan(bd.Planner(tree), 1e9, 1e21)
    planner = bd.Planner(tree, allow_unconverged=True)
    with pytest.warns(ConvergenceWarning, match="did not converge") as caught:
        first = bd.plan(planner, 1e9, 1e21, "best case")
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xr.testing.assert_identical(first, bd.plan(planner, 1e9, 1e21, "best case"))
        bd.plan(planner, 1e9, 1e21, "best case", seed=1)
    with pytest.raises(ConvergenceError):
        bd.plan(planner, 1e9, 1e21, allow_unconverged=False)


def test_a_planner_with_another_fit_uses_that_fit(fit):
    planner = bd.Planner(fit)
    bd.plan(planner, 1e9, 1e21)
    other = fit.assign(E=fit["E"] + 0.01)
    found = bd.plan(dataclasses.replace(planner, fit=other), 1e9, 1e21)
    xr.testing.assert_identical(found, bd.plan(other, 1e9, 1e21))
