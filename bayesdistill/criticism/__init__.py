"""Model criticism: convergence, predictive checks, validation, calibration, backtests.

Each name is imported when it is first used, because `check` runs after every fit and requires none of the heavy imports.
"""

from __future__ import annotations

import importlib
from typing import Any

# Module -> the public names that it defines.
_NAMES = {
    "_backtest": "backtest",
    "_check": "Check check",
    "_compare_fits": "compare_fits",
    "_error_by_distance": "error_by_distance",
    "_law_curves": "law_curves",
    "_leave_out": "leave_out score_table",
    "_loo": "compare_loo loo",
    "_prior_sensitivity": "prior_sensitivity",
    "_residual_structure": "residual_structure",
    "_simulate_calibration": "simulate_calibration",
    "_unseen_scores": "unseen_scores",
    "calibration_summaries": "decision_calibration rank_ecdf rank_uniformity",
    "predictive_checks": "posterior_predictive prior_predictive",
}
_FILE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = list(_FILE_OF)


def __getattr__(name: str) -> Any:
    if name in _FILE_OF:
        value = getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
