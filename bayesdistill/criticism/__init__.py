"""Criticism of a fit: convergence, predictions, groups left out, calibration, and decisions played against real runs.

Each name is loaded when it is first used: `check` belongs to every fit, and needs none of what the long studies import.
"""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> the file that holds it.
_FILE_OF = {
    "PRIOR_SHARE": "prior_width",
    "Check": "convergence",
    "backtest": "backtesting",
    "candidate_models": "unseen_groups",
    "check": "convergence",
    "compare_fits": "comparing",
    "compare_loo": "leaving_one",
    "decision_calibration": "calibration_summaries",
    "law_curves": "curves",
    "leave_out": "unseen_groups",
    "loo": "leaving_one",
    "posterior_predictive": "predictive",
    "prior_dominated": "prior_width",
    "prior_predictive": "predictive",
    "prior_sensitivity": "prior_power",
    "rank_ecdf": "calibration_summaries",
    "rank_uniformity": "calibration_summaries",
    "residual_structure": "residuals",
    "score_table": "unseen_groups",
    "simulate_calibration": "calibration",
    "unseen_scores": "unseen_summary",
}

__all__ = list(_FILE_OF)


def __getattr__(name: str) -> Any:
    if name in _FILE_OF:
        value = getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
