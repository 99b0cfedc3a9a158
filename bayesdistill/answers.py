"""Labeled results: a Dataset with a hook for its display, and its variables declared as data.

Each subpackage declares dimensions, units and long names of its results in a table (`Variables`, variables.csv); `labeled` makes the
variables of a table from their values.

This module does not depend on the display of an answer. `tables` registers its displays, and the package's metadata names it as entry
point of the group "bayesdistill.display", which is loaded when an answer is displayed for the first time.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from importlib.metadata import entry_points
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

NATS = "nats per token"
FLOPS = "FLOPs"
PARAMS = "parameters"
TOKENS = "tokens"
ONE = "1"
Variables = Mapping[str, tuple[str, str, str]]
"""Name of a variable -> its dimensions, separated by spaces, units and long_name."""

ENTRY_POINTS = "bayesdistill.display"
_displays: dict[str, Callable[..., str | None]] = {}


def register_display(text: Callable[[xr.Dataset], str | None], html: Callable[[xr.Dataset, str], str | None]) -> None:
    """Register how answers are displayed.

    Parameters
    ----------
    text : callable
        Answer -> text for a terminal; None to display it as xarray does.
    html : callable
        (answer, xarray's HTML) -> HTML for a notebook; None to display it as xarray does.
    """
    _displays.update(text=text, html=html)


def _display(kind: str, *arguments: object) -> str | None:
    if not _displays:
        for point in entry_points(group=ENTRY_POINTS):
            point.load()
    return _displays[kind](*arguments) if kind in _displays else None


class Codes(NamedTuple):
    """Integer codes of names: a variable with flag_values and flag_meanings (CF convention)."""

    values: np.ndarray
    names: Sequence[str]


def variable(dims: Sequence[str], values: Any, units: str, long_name: str) -> xr.Variable:
    """Return a variable with units and long_name."""
    return xr.Variable(tuple(dims), values, {"units": units, "long_name": long_name})


@functools.cache
def declared_in(package: str) -> Mapping[str, Variables]:
    """Return the tables in variables.csv of a subpackage: name of a result -> its variables."""
    tables: dict[str, dict[str, tuple[str, str, str]]] = {}
    text = resources.files(package).joinpath("variables.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        tables.setdefault(row["result"], {})[row["variable"]] = (row["dimensions"], row["units"], row["long_name"])
    return tables


def labeled(table: Variables, values: Mapping[str, Any], chains: int = 1) -> dict[str, xr.Variable]:
    """Return the variables of a table that have values.

    Parameters
    ----------
    table : Variables
    values : mapping
        Name -> array, Codes, a variable, or (estimate, Monte Carlo standard error), which makes two variables, the second with
        suffix `_mcse`. If the last two dimensions are chain and draws, the last axis may hold the flattened draws.
    chains : int
        Number of chains.
    """
    found = {}
    for name, value in values.items():
        if isinstance(value, xr.Variable):
            found[name] = value
            continue
        dims, units, text = table[name]
        along = tuple(dims.split())
        if isinstance(value, tuple) and not isinstance(value, Codes):
            value, error = value
            found[f"{name}_mcse"] = variable(along, error, units, f"Monte Carlo standard error of {name}")
        array = value.values.astype(np.int8) if isinstance(value, Codes) else value
        if "chain" in along and np.ndim(array) == len(along) - 1:
            array = array.reshape(*array.shape[:-1], chains, -1)
        found[name] = variable(along, array, units, text)
        if isinstance(value, Codes):
            meanings = " ".join(flag.replace(" ", "_") for flag in value.names)
            flags = np.arange(len(value.names), dtype=np.int8)
            found[name].attrs |= {"flag_values": flags, "flag_meanings": meanings}
    return found


class Answer(xr.Dataset):
    """A Dataset that a notebook and a terminal display as a table.

    Part of an answer, such as one student of a plan, is displayed as a table as well, if it contains all variables of the
    table; otherwise as xarray displays it. Files hold the plain Dataset.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> plan = bd.plan(published, "1B", [1e20, 1e21], "best case")
    >>> print(str(plan).splitlines()[0])
    Probability that distillation beats pretraining (level: law)
    """

    __slots__ = ()

    def __repr__(self) -> str:
        shown = _display("text", self)
        return super().__repr__() if shown is None else shown

    __str__ = __repr__

    def _repr_html_(self) -> str:
        dataset = super()._repr_html_()
        shown = _display("html", self, dataset)
        return dataset if shown is None else shown
