"""Labels and attributes of the results of decisions.

`variables.csv` declares the dimensions, units and long name of every variable and coordinate of every result.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill.answers import Answer, Variables, declared_in, labeled
from bayesdistill.compute import Shape
from bayesdistill.decisions.fitted_draws import FittedDraws
from bayesdistill.strategies import Bounds, Problem

CELL = ("student", "scenario", "budget")
CROSSOVER_STATUS = ("crossed", "always", "never", "reversed", "impossible")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def declared() -> Mapping[str, Variables]:
    """Return the tables of variables.csv: result -> variable -> dimensions, units, long_name; "" for shared coordinates."""
    return declared_in(__package__)


def variables(result: str, values: Mapping[str, Any], chains: int = 1) -> dict[str, xr.Variable]:
    """Return labeled variables and coordinates of a result, such as "plan"; values as for `answers.labeled`."""
    return labeled({**declared()[""], **declared()[result]}, values, chains)


def answer(
    result: str,
    fitted: FittedDraws,
    values: Mapping[str, Any],
    coordinates: Mapping[str, Any],
    attrs: Mapping[str, Any],
) -> Answer:
    """Return a labeled result.

    Parameters
    ----------
    result : str
        Name of the result in variables.csv.
    fitted : FittedDraws
    values : mapping
        As for `answers.labeled`.
    coordinates : mapping
        Name -> values, or a variable. Chain and draw are added if a variable has them.
    attrs : mapping
        With the level of uncertainty, `noise`; by default the law's mean curves.
    """
    attrs = {"noise": "law", **attrs}
    found = variables(result, values, fitted.chain.size)
    if any("chain" in of.dims for of in found.values()):
        coordinates = {**coordinates, "chain": fitted.chain, "draw": fitted.draw}
    return Answer(found, variables(result, coordinates), attrs)


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
    return {
        "student": problem.students,
        "budget": problem.budgets,
        "scenario": [s.name for s in problem.scenarios],
        "delta_lgt": [float(s.delta_lgt) for s in problem.scenarios],
        "delta_pre": [float(s.delta_pre) for s in problem.scenarios],
    }


def bounds_of_attributes(attrs: Mapping[str, Any]) -> Bounds:
    """Return the bounds in the attributes of a result."""
    return Bounds(**{of.name: attrs[of.name] for of in fields(Bounds)})


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
    return {name: float(value) for name, value in vars(bounds).items()} | shape_attributes(shape)


def size_words(value: float) -> str:
    """Return a number of parameters or tokens as text such as "300M"."""
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if value >= limit * 0.9995:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def flops_words(value: float) -> str:
    """Return a number of FLOPs as text such as "3e21"."""
    return re.sub(r"e.0*", "e", f"{value:.3g}")
