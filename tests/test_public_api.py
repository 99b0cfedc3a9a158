"""The public surface: pinned names, documented functions, no swallowed keyword, a light import."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import bayesdistill as bd

_NAMES = """
BayesdistillError ConvergenceError ConvergenceWarning DataError ExtrapolationWarning FileError Gates ModelError PUBLISHED
ParameterError Prior SCENARIOS Scenario Shape __version__ break_even build_model capacity_gap check compare_crossovers
crossovers describe_runs distillation_flops distilled_loss evppi family_plan fit flops_per_token law_curves leave_out load
load_runs paper_claims plan plan_table plan_tokens plan_value plot_best_loss plot_break_even plot_capacity_gap
plot_compute_strategy plot_crossover plot_experiment_fixed_student plot_experiment_fixed_teacher plot_probability plot_runs
prior_table provenance read_runs recommendations save score_table sharing_map simulate_runs summary_table supervised_loss
table_text teacher_choice write_table
"""
NAMES = sorted(_NAMES.split())


def test_the_names_are_these() -> None:
    assert sorted(bd.__all__) == sorted(NAMES)
    for name in NAMES:
        assert getattr(bd, name) is not None


FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(bd, name))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_documented_and_swallow_nothing(name: str) -> None:
    function = getattr(bd, name)
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    text = inspect.getdoc(function) or ""
    assert "Parameters\n---" in text
    assert "Returns\n---" in text or name == "write_table"


def test_importing_costs_nothing() -> None:
    code = "import sys, bayesdistill; print([m for m in ('pymc', 'arviz', 'pandas', 'numpy', 'matplotlib') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.strip() == "[]"
