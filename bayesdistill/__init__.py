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

# Public name -> the room that holds it. `tests/test_public_api.py` pins this list.
_ROOM_OF = {
    "BayesdistillError": "errors",
    "ConvergenceError": "errors",
    "ConvergenceWarning": "errors",
    "DataError": "errors",
    "ExtrapolationWarning": "errors",
    "FileError": "errors",
    "ModelError": "errors",
    "Gates": "posterior",
    "PUBLISHED": "laws",
    "ParameterError": "errors",
    "Prior": "priors",
    "build_model": "model",
    "check": "criticism",
    "describe_runs": "datasets",
    "fit": "sampling",
    "law_curves": "criticism",
    "load": "sampling",
    "load_runs": "datasets",
    "plan": "decisions",
    "prior_table": "sampling",
    "provenance": "posterior",
    "read_runs": "datasets",
    "save": "sampling",
    "simulate_runs": "datasets",
    "SCENARIOS": "compute",
    "Scenario": "compute",
    "Shape": "compute",
    "distillation_flops": "compute",
    "distilled_loss": "laws",
    "flops_per_token": "compute",
    "supervised_loss": "laws",
}

__all__ = ["__version__", *sorted(_ROOM_OF)]


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        value = getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(__all__) | set(globals()))
