"""The distillation scaling law as a Bayesian model, carried into decisions.

Fit the law to distillation runs, check the posterior, and ask at which compute budgets distilling a student from a teacher
beats pretraining it:

    import bayesdistill as bd
    fit = bd.fit(bd.load_runs("busbridge2025"), seed=0)
    bd.check(fit)
    plan = bd.plan(fit, students=[3e8, 1e9], budgets=[1e20, 1e21, 1e22])

Every public name is loaded when it is first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> the subpackage or module that holds it. `tests/test_public_api.py` pins this list.
_SUBPACKAGE_OF = {
    "BayesdistillError": "errors",
    "ConvergenceError": "errors",
    "ConvergenceWarning": "errors",
    "CompilerWarning": "errors",
    "Coordinate": "law",
    "DataError": "errors",
    "ExtrapolationWarning": "errors",
    "FileError": "errors",
    "ConvergenceThresholds": "posterior",
    "GroupEffect": "law",
    "LAWS": "law",
    "Law": "law",
    "ModelError": "errors",
    "PUBLISHED": "law",
    "Parameter": "law",
    "ParameterError": "errors",
    "Prior": "law",
    "ResidualNoise": "law",
    "SCENARIOS": "compute",
    "Scenario": "compute",
    "Shape": "compute",
    "Term": "law",
    "backtest": "criticism",
    "backtest_table": "tables",
    "break_even": "decisions",
    "build_model": "model",
    "capacity_gap": "decisions",
    "cheapest_first": "design",
    "check": "criticism",
    "cite": "reporting",
    "compare_crossovers": "decisions",
    "compare_fits": "criticism",
    "compare_loo": "criticism",
    "criticism_table": "tables",
    "crossovers": "decisions",
    "decision_calibration": "criticism",
    "decision_table": "tables",
    "describe_runs": "datasets",
    "distillation_flops": "compute",
    "distilled_loss": "law",
    "evppi": "decisions",
    "family_plan": "decisions",
    "fit": "sampling",
    "flag_names": "decisions",
    "flops_per_token": "compute",
    "information_order": "design",
    "interactive_page": "interactive",
    "law_curves": "criticism",
    "law_draws": "posterior",
    "law_of": "posterior",
    "leave_out": "criticism",
    "load": "sampling",
    "load_runs": "datasets",
    "loo": "criticism",
    "methods_text": "reporting",
    "next_runs": "design",
    "paper_claims": "decisions",
    "plan": "decisions",
    "plan_table": "tables",
    "plan_tokens": "decisions",
    "plan_value": "decisions",
    "plot_backtest": "plots",
    "plot_best_loss": "plots",
    "plot_break_even": "plots",
    "plot_calibration": "plots",
    "plot_capacity_gap": "plots",
    "plot_compute_strategy": "plots",
    "plot_crossover": "plots",
    "plot_experiment_fixed_student": "plots",
    "plot_experiment_fixed_teacher": "plots",
    "plot_family": "plots",
    "plot_information": "plots",
    "plot_loo": "plots",
    "plot_next_runs": "plots",
    "plot_posterior_predictive": "plots",
    "plot_prior_predictive": "plots",
    "plot_prior_sensitivity": "plots",
    "plot_probability": "plots",
    "plot_residuals": "plots",
    "plot_runs": "plots",
    "plot_sharing_map": "plots",
    "plot_teacher_choice": "plots",
    "plot_unseen_groups": "plots",
    "plot_value": "plots",
    "posterior_predictive": "criticism",
    "predict": "decisions",
    "prior_predictive": "criticism",
    "prior_sensitivity": "criticism",
    "prior_table": "sampling",
    "provenance": "posterior",
    "random_order": "design",
    "rank_ecdf": "criticism",
    "rank_uniformity": "criticism",
    "read_runs": "datasets",
    "recommendations": "decisions",
    "report": "reporting",
    "residual_structure": "criticism",
    "run_costs": "design",
    "save": "sampling",
    "score_table": "criticism",
    "sharing_map": "decisions",
    "show_interactive": "interactive",
    "simulate_calibration": "criticism",
    "simulate_runs": "datasets",
    "summary_table": "tables",
    "supervised_loss": "law",
    "table_text": "tables",
    "teacher_choice": "decisions",
    "unseen_scores": "criticism",
    "write_table": "tables",
}

__all__ = ["__version__", *sorted(_SUBPACKAGE_OF)]


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGE_OF:
        value = getattr(importlib.import_module(f"{__name__}.{_SUBPACKAGE_OF[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(__all__) | set(globals()))
