"""Names, units and flags of the results of decisions."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill.compute import Scenario, Shape
from bayesdistill.decisions.solving import Problem
from bayesdistill.strategies import STATUS, Bounds

NATS = "nats per token"
FLOPS = "FLOPs"
PARAMS = "parameters"
TOKENS = "tokens"
ONE = "1"

CROSSOVER_STATUS = ("crossed", "always", "never", "reversed", "impossible")


def variable(
    dims: Sequence[str], values: Any, units: str, long_name: str, extra: Mapping[str, Any] | None = None
) -> xr.Variable:
    """Return a variable with units and long_name."""
    return xr.Variable(tuple(dims), values, {"units": units, "long_name": long_name, **(extra or {})})


def flags(dims: Sequence[str], codes: np.ndarray, names: Sequence[str], long_name: str) -> xr.Variable:
    """Return an integer variable with flag_values and flag_meanings (CF convention)."""
    attrs = {
        "units": ONE,
        "long_name": long_name,
        "flag_values": np.arange(len(names), dtype=np.int8),
        "flag_meanings": " ".join(name.replace(" ", "_") for name in names),
    }
    return xr.Variable(tuple(dims), codes.astype(np.int8), attrs)


def flag_names(codes: xr.DataArray) -> xr.DataArray:
    """Return a status variable as names instead of numbers.

    Parameters
    ----------
    codes : DataArray
        A variable with the attribute flag_meanings, such as `plan["status"]` or `plan["crossover_status"]`.

    Returns
    -------
    DataArray
        Strings with the same dimensions.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import numpy as np, xarray as xr
    >>> codes = xr.DataArray(np.array([1, 0], dtype="int8"), dims="student", attrs={"flag_meanings": "crossed always"})
    >>> bd.flag_names(codes).values.tolist()
    ['always', 'crossed']
    """
    names = np.array(codes.attrs["flag_meanings"].split())
    result = codes.copy(data=names[codes.values])
    result.attrs = {k: v for k, v in codes.attrs.items() if not k.startswith("flag_")}
    return result


def strategy_status(dims: Sequence[str], codes: np.ndarray) -> xr.Variable:
    """Return whether a strategy was found, and if not, why."""
    return flags(dims, codes, STATUS, "whether a distillation strategy was found")


def student_coordinate(students: np.ndarray) -> xr.Variable:
    """Return the student coordinate."""
    return variable(["student"], students, PARAMS, "non-embedding parameters of the student")


def budget_coordinate(budgets: np.ndarray) -> xr.Variable:
    """Return the budget coordinate."""
    return variable(["budget"], budgets, FLOPS, "compute budget of the student")


def scenario_coordinates(scenarios: Sequence[Scenario]) -> dict[str, xr.Variable]:
    """Return the scenario coordinates: name and charged fractions."""
    return {
        "scenario": variable(["scenario"], [s.name for s in scenarios], ONE, "cost scenario"),
        "delta_lgt": variable(
            ["scenario"], [float(s.delta_lgt) for s in scenarios], ONE, "charged fraction of the teacher's inference"
        ),
        "delta_pre": variable(
            ["scenario"], [float(s.delta_pre) for s in scenarios], ONE, "charged fraction of the teacher's pretraining"
        ),
    }


def grid_coordinates(problem: Problem) -> dict[str, xr.Variable]:
    """Return the student, budget and scenario coordinates of a problem."""
    return {
        "student": student_coordinate(problem.students),
        "budget": budget_coordinate(problem.budgets),
        **scenario_coordinates(problem.scenarios),
    }


def draw_coordinates(chain: np.ndarray, draw: np.ndarray) -> dict[str, xr.Variable]:
    """Return the chain and draw coordinates of the posterior."""
    return {
        "chain": variable(["chain"], chain, ONE, "chain"),
        "draw": variable(["draw"], draw, ONE, "draw within a chain"),
    }


def shape_attributes(shape: Shape) -> dict[str, Any]:
    """Return the architecture parameters and the package version as attributes."""
    return {
        "context_length": float(shape.context_length),
        "vocabulary_size": float(shape.vocabulary_size),
        "aspect_ratio": float(shape.aspect_ratio),
        "bayesdistill_version": importlib.metadata.version("bayesdistill"),
    }


def setting_attributes(bounds: Bounds, shape: Shape) -> dict[str, Any]:
    """Return bounds and architecture as attributes."""
    return {
        "min_teacher_params": float(bounds.min_teacher_params),
        "max_teacher_params": float(bounds.max_teacher_params),
        "min_teacher_tokens": float(bounds.min_teacher_tokens),
        "max_teacher_tokens": float(bounds.max_teacher_tokens),
        "max_student_tokens": float(bounds.max_student_tokens),
        **shape_attributes(shape),
    }
