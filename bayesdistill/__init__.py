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

# Subpackage or module -> its public names. `tests/test_public_api.py` pins them.
_PUBLIC = {
    "compute": "SCENARIOS SIX_ND Scenario Shape distillation_flops flops_per_token",
    "criticism": """
        backtest check compare_fits compare_loo decision_calibration error_by_distance law_curves leave_out loo
        posterior_predictive prior_predictive prior_sensitivity rank_ecdf rank_uniformity residual_structure
        score_table simulate_calibration unseen_scores
    """,
    "datasets": "describe_runs load_runs read_runs simulate_runs",
    "decisions": """
        Planner add_student break_even capacity_gap compare_crossovers compute_optimal crossovers evppi family_plan
        flag_names lifetime paper_claims plan plan_tokens plan_value predict recommendations sharing_map student_choice
        target_loss teacher_choice
    """,
    "design": "cheapest_first information_order next_runs next_supervised_runs random_order run_costs",
    "errors": """
        BayesdistillError ConflictError ConflictWarning ConvergenceError ConvergenceWarning CompilerWarning DataError DesignWarning
        DigestWarning ExtrapolationWarning FileError ModelError ParameterError
    """,
    "explaining": "explain",
    "interactive": "interactive_page show_interactive",
    "law": """
        Coordinate GroupEffect LAWS Law PUBLISHED Parameter Prior RepetitionPrior ResidualNoise Term distilled_loss
        supervised_loss
    """,
    "model": "build_model",
    "plots": """
        plot_add_student plot_backtest plot_backtest_runs plot_best_loss plot_break_even plot_calibration plot_capacity_gap
        plot_compute_optimal plot_compute_strategy plot_crossover plot_error_by_distance
        plot_experiment_fixed_student plot_experiment_fixed_teacher plot_explain plot_family plot_information plot_lifetime
        plot_loo plot_next_runs plot_next_supervised_runs plot_posterior_predictive plot_prior_predictive plot_prior_sensitivity
        plot_probability plot_residuals plot_runs plot_sharing_map plot_student_choice plot_target_loss
        plot_teacher_choice plot_unseen_groups plot_update plot_value
    """,
    "posterior": "ConvergenceThresholds law_draws law_of mix provenance",
    "reporting": "cite methods_text report",
    "sampling": "fit load prior_table save",
    "updating": "Update update",
    "tables": "backtest_table criticism_table decision_table plan_table summary_table table_text write_table",
}
_SUBPACKAGE_OF = {name: module for module, names in _PUBLIC.items() for name in names.split()}

__all__ = ["__version__", *sorted(_SUBPACKAGE_OF)]


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGE_OF:
        value = getattr(importlib.import_module(f"{__name__}.{_SUBPACKAGE_OF[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(__all__) | set(globals()))
