"""Labeled results: a Dataset with a hook for its display, and its variables declared as data.

A function declares its variables in a `Table`, by dimensions and units, and computes their values; `labeled` makes the variables.

Nothing here knows how an answer is displayed. `tables` registers its displays, and the package's metadata names it as entry point of
the group "bayesdistill.display", which is loaded when an answer is displayed for the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import xarray as xr

NATS = "nats per token"
FLOPS = "FLOPs"
PARAMS = "parameters"
TOKENS = "tokens"
ONE = "1"
Units = str | tuple[str, ...]
"""Units of a variable, or the names of its integer codes (flags)."""
Table = Mapping[tuple[str, Units], Mapping[str, str]]
"""Declared variables: (dimensions separated by spaces, units) -> name -> long_name."""
DRAWS = ("chain", "draw")

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


def variable(dims: Sequence[str], values: Any, units: Units, long_name: str) -> xr.Variable:
    """Return a variable with units and long_name, or with flag_values and flag_meanings (CF convention)."""
    attrs: dict[str, Any] = {"units": units, "long_name": long_name}
    if isinstance(units, tuple):
        meanings = " ".join(name.replace(" ", "_") for name in units)
        attrs |= {"units": ONE, "flag_values": np.arange(len(units), dtype=np.int8), "flag_meanings": meanings}
        values = np.asarray(values).astype(np.int8)
    return xr.Variable(tuple(dims), values, attrs)


def labeled(table: Table, values: Mapping[str, Any], draws: tuple[int, int] = (1, -1)) -> dict[str, xr.Variable]:
    """Return the variables of a table.

    Parameters
    ----------
    table : Table
        Declarations; those without a value are not used.
    values : mapping
        Name -> array, or (estimate, Monte Carlo standard error), which makes two variables, the second with suffix `_mcse`. If
        the dimensions end with chain and draw, the last axis of the array may hold the flattened draws.
    draws : (int, int)
        Number of chains, and of draws in each.
    """
    declared = {
        name: (tuple(dims.split()), units, text)
        for (dims, units), names in table.items()
        for name, text in names.items()
    }
    found = {}
    for name, value in values.items():
        dims, units, text = declared[name]
        value, *error = value if isinstance(value, tuple) else (value,)
        if dims[-2:] == DRAWS and np.ndim(value) == len(dims) - 1:
            value = value.reshape(*value.shape[:-1], *draws)
        found[name] = variable(dims, value, units, text)
        if error:
            found[f"{name}_mcse"] = variable(dims, error[0], units, f"Monte Carlo standard error of {name}")
    return found


class Answer(xr.Dataset):
    """A Dataset that a notebook and a terminal display as a table.

    Part of an answer, such as one student of a plan, is displayed as a table as well, if it contains everything that the table
    needs; otherwise as xarray displays it. Files hold the plain Dataset.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> plan = bd.plan(published, "1B", [1e20, 1e21], "best case")
    >>> print(str(plan).splitlines()[0])
    Probability that distillation beats pretraining
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
