"""Result Datasets, whose variables `variables.csv` declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill.answers import Variables, declared_in, labeled


def declared(function: str) -> Variables:
    """Return the variables of the result of a function."""
    return declared_in(__package__)[function]


def dataset(
    function: str, values: Mapping[Any, Any], coords: Mapping[str, Any], attrs: Mapping[str, Any]
) -> xr.Dataset:
    """Return the result of a function, with the declared dimensions, units and long names.

    Parameters
    ----------
    function : str
        Name of the result in variables.csv.
    values : mapping
        Name of a declared variable -> values. Other names are ignored.
    coords : mapping
        Coordinates. Those that are declared may be plain values.
    attrs : mapping
    """
    table = declared(function)
    variables = {name: np.asarray(values[name]) for name in table if name not in coords}
    axes = {name: np.asarray(coords[name]) for name in table if name in coords}
    return xr.Dataset(labeled(table, variables), {**coords, **labeled(table, axes)}, attrs)


def columns(cells: Any) -> dict[str, np.ndarray]:
    """Return nested lists of dicts with the same keys as a dict of arrays."""
    records = np.array(cells, dtype=object)
    found = {name: np.array([record[name] for record in records.flat]) for name in records.flat[0]}
    return {name: values.reshape(*records.shape, *values.shape[1:]) for name, values in found.items()}
