"""Dimensions, coordinates and attributes of the results of decisions."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill.answers import FLOPS, ONE, PARAMS, Answer, Table, labeled
from bayesdistill.compute import Shape
from bayesdistill.decisions.fitted_draws import FittedDraws
from bayesdistill.strategies import Bounds, Problem

CELL = "student scenario budget"
CELL_DIMS = tuple(CELL.split())
CELL_DRAWN = f"{CELL} chain draw"
_BOUNDS = ("min_teacher_params", "max_teacher_params", "min_teacher_tokens", "max_teacher_tokens", "max_student_tokens")
CROSSOVER_STATUS = ("crossed", "always", "never", "reversed", "impossible")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

COORDINATES: Table = {
    ("student", PARAMS): {"student": "non-embedding parameters of the student"},
    ("budget", FLOPS): {"budget": "compute budget of the student"},
    ("scenario", ONE): {
        "scenario": "cost scenario",
        "delta_lgt": "charged fraction of the teacher's inference",
        "delta_pre": "charged fraction of the teacher's pretraining",
    },
    ("teacher", ONE): {"teacher": "existing teachers"},
    ("axis", ONE): {"axis": "quantity whose range is known"},
    ("quantile", ONE): {"quantile": "cumulative probability"},
    ("chain", ONE): {"chain": "chain"},
    ("draw", ONE): {"draw": "draw within a chain"},
}


def answer(
    fitted: FittedDraws,
    table: Table,
    values: Mapping[str, Any],
    coordinates: Mapping[str, Any],
    attrs: Mapping[str, Any],
) -> Answer:
    """Return a labeled result.

    Parameters
    ----------
    fitted : FittedDraws
    table, values
        As for `answers.labeled`.
    coordinates : mapping
        Name -> values of a coordinate in COORDINATES, or a variable. Chain and draw are added if a variable has them.
    attrs : mapping
    """
    variables = labeled(table, values, fitted.size)
    if any("chain" in of.dims for of in variables.values()):
        coordinates = {**coordinates, "chain": fitted.chain, "draw": fitted.draw}
    made = {
        name: value if isinstance(value, xr.Variable) else labeled(COORDINATES, {name: value})[name]
        for name, value in coordinates.items()
    }
    return Answer(variables, made, attrs)


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


def grid_coordinates(problem: Problem) -> dict[str, Any]:
    """Return the student, budget and scenario coordinates of a problem."""
    values = {
        "student": problem.students,
        "budget": problem.budgets,
        "scenario": [s.name for s in problem.scenarios],
        "delta_lgt": [float(s.delta_lgt) for s in problem.scenarios],
        "delta_pre": [float(s.delta_pre) for s in problem.scenarios],
    }
    return dict(labeled(COORDINATES, values))


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
    return {name: float(getattr(bounds, name)) for name in _BOUNDS} | shape_attributes(shape)
