"""The public surface: pinned names, documented functions, no swallowed keyword, examples that run, a light import."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from numpydoc.docscrape import FunctionDoc

import bayesdistill as bd

# A change of this list is a decision, not an accident.
_NAMES = """
BayesdistillError ConflictError ConflictWarning ConvergenceError ConvergenceWarning DataError DesignWarning DigestWarning
ExtrapolationWarning FileError ModelError
ConvergenceThresholds
CompilerWarning Coordinate GroupEffect LAWS Law PUBLISHED Parameter ParameterError Prior RepetitionPrior ResidualNoise
SCENARIOS Scenario Shape Term
__version__ backtest backtest_table break_even build_model capacity_gap cheapest_first
check cite compare_crossovers compare_fits compute_optimal plot_compute_optimal SIX_ND update Update next_supervised_runs
plot_next_supervised_runs crossovers decision_table describe_runs distillation_flops distilled_loss evppi explain family_plan
fit flag_names flops_per_token information_order interactive_page law_curves law_draws law_of leave_out Planner
load load_runs methods_text mix next_runs paper_claims plan
plan_table plan_tokens plan_value plot_backtest plot_best_loss plot_break_even plot_capacity_gap plot_compute_strategy
plot_crossover plot_experiment_fixed_student plot_experiment_fixed_teacher plot_explain plot_family plot_information plot_next_runs
plot_probability predict plot_runs plot_sharing_map plot_teacher_choice plot_update plot_value prior_table provenance random_order
read_runs recommendations report run_costs save score_table sharing_map show_interactive simulate_runs summary_table supervised_loss
table_text teacher_choice student_choice plot_student_choice add_student plot_add_student target_loss plot_target_loss
lifetime plot_lifetime write_table
simulate_calibration rank_uniformity decision_calibration
prior_predictive posterior_predictive residual_structure loo compare_loo prior_sensitivity rank_ecdf unseen_scores error_by_distance
plot_prior_predictive plot_posterior_predictive plot_residuals plot_loo plot_prior_sensitivity plot_calibration plot_unseen_groups
plot_error_by_distance plot_backtest_runs
criticism_table
"""
NAMES = sorted(_NAMES.split())
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(bd, name))]
CLASSES = [name for name in NAMES if inspect.isclass(getattr(bd, name))]
MODULES = sorted(module.name for module in pkgutil.walk_packages(bd.__path__, "bayesdistill."))


def test_the_names_are_these():
    assert sorted(bd.__all__) == NAMES
    for name in NAMES:
        assert getattr(bd, name) is not None
        assert name in dir(bd)
    with pytest.raises(AttributeError, match="no attribute 'plto_runs'"):
        bd.plto_runs  # noqa: B018


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert bd.__version__ == project["version"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_swallow_no_keyword(name):
    kinds = {parameter.kind for parameter in inspect.signature(getattr(bd, name)).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    assert inspect.Parameter.VAR_POSITIONAL not in kinds


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_documented(name):
    function = getattr(bd, name)
    doc = FunctionDoc(function)
    assert doc["Summary"], "a summary is needed"
    given = {part.strip() for parameter in doc["Parameters"] for part in parameter.name.split(",")}
    # Every parameter is described, and nothing is described that is no parameter.
    assert given == set(inspect.signature(function).parameters)
    if inspect.signature(function).return_annotation not in (None, "None"):
        assert doc["Returns"]
    assert doc["Examples"], "an example is needed"


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_documented(name):
    text = inspect.getdoc(getattr(bd, name)) or ""
    assert len(text) > 30
    if not issubclass(getattr(bd, name), Exception):
        assert "Parameters\n---" in text


def test_errors_can_be_caught_as_one_and_by_kind():
    for error, builtin in (
        (bd.DataError, ValueError),
        (bd.ParameterError, ValueError),
        (bd.ModelError, ValueError),
        (bd.FileError, OSError),
        (bd.ConvergenceError, RuntimeError),
    ):
        assert issubclass(error, bd.BayesdistillError)
        assert issubclass(error, builtin)
    assert issubclass(bd.ConvergenceWarning, UserWarning)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is(name):
    if name.endswith("__main__"):
        return
    assert (importlib.import_module(name).__doc__ or "").strip()


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0


def test_importing_costs_nothing():
    heavy = ("pymc", "pytensor", "arviz", "nutpie", "numba", "pandas", "xarray", "numpy", "scipy", "matplotlib", "rich")
    code = f"import sys, bayesdistill; print([name for name in {heavy} if name in sys.modules])"
    started = time.monotonic()
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    took = time.monotonic() - started
    assert found.strip() == "[]"
    # Start of the interpreter included; a machine that is busy is given time, pymc alone would take far more.
    assert took < 2


def test_importing_takes_less_than_half_a_second():
    code = "import time; t = time.process_time(); import bayesdistill; print(time.process_time() - t)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 0.5


def test_a_name_loads_only_what_it_needs():
    # Laws and compute without pandas or the sampler; decisions without the sampler.
    code = "import sys, bayesdistill as bd; bd.{}; print([m for m in {} if m in sys.modules])"
    for name, heavy in (
        ("distilled_loss", ("pymc", "pandas", "xarray", "arviz", "matplotlib")),
        ("flops_per_token", ("pymc", "pandas", "xarray", "arviz", "matplotlib")),
        ("plan", ("pymc", "pytensor", "nutpie", "matplotlib")),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.format(name, heavy)], check=True, capture_output=True, text=True
        )
        assert done.stdout.strip() == "[]", name
