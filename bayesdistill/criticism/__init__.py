"""Criticism of a fit: convergence, predictions, groups left out, calibration, and decisions played against real runs.

Each name is loaded when it is first used: `check` belongs to every fit, and needs none of what the long studies import.
"""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> the file that holds it.
_FILE_OF = {
    "Check": "_check",
    "backtest": "_backtest",
    "candidate_models": "_leave_out",
    "check": "_check",
    "compare_fits": "_compare_fits",
    "compare_loo": "_loo",
    "decision_calibration": "calibration_summaries",
    "law_curves": "_law_curves",
    "leave_out": "_leave_out",
    "loo": "_loo",
    "posterior_predictive": "predictive_checks",
    "prior_predictive": "predictive_checks",
    "prior_sensitivity": "_prior_sensitivity",
    "rank_ecdf": "calibration_summaries",
    "rank_uniformity": "calibration_summaries",
    "residual_structure": "_residual_structure",
    "score_table": "_leave_out",
    "simulate_calibration": "_simulate_calibration",
    "unseen_scores": "_unseen_scores",
}

__all__ = list(_FILE_OF)


def __getattr__(name: str) -> Any:
    if name in _FILE_OF:
        value = getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
