"""Model criticism: convergence, predictive checks, validation, calibration, backtests.

Each name is imported when it is first used, because `check` runs after every fit and requires none of the heavy imports.
"""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> module that defines it.
_FILE_OF = {
    "Check": "_check",
    "backtest": "_backtest",
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
