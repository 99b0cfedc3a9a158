"""Result Datasets from tables of their variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

NATS, ONE, FLOPS, PARAMS, TOKENS = "nats per token", "1", "FLOPs", "parameters", "tokens"

Variables = Mapping[str, tuple[str, str, str]]
"""Name of a variable -> its dimensions, separated by spaces, units and long_name."""


def labelled(variables: Variables, values: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the variables of a table with their values, in its order, for `xarray.Dataset`."""
    return {
        name: (dims.split(), np.asarray(values[name]), {"units": units, "long_name": words})
        for name, (dims, units, words) in variables.items()
    }


def dataset(
    variables: Variables, values: Mapping[Any, Any], coords: Mapping[str, Any], attrs: Mapping[str, Any]
) -> xr.Dataset:
    """Return a Dataset with the variables of a table."""
    return xr.Dataset(labelled(variables, values), coords=coords, attrs=attrs)


def columns(cells: Any) -> dict[str, np.ndarray]:
    """Return nested lists of dicts with the same keys as a dict of arrays."""
    records = np.array(cells, dtype=object)
    found = {name: np.array([record[name] for record in records.flat]) for name in records.flat[0]}
    return {name: values.reshape(*records.shape, *values.shape[1:]) for name, values in found.items()}
