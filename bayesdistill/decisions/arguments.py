"""Validation of the arguments of decisions: students, budgets, scenarios and teachers.

Each error message names the argument and the value, and suggests a fix.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill.compute import SCENARIOS, Scenario, scenario
from bayesdistill.errors import ParameterError

_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_NUMBER = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([kmbt]?)\s*", re.IGNORECASE)
_FEWEST_PARAMS = 1e3

Number = float | str
Numbers = Number | Sequence[Number] | np.ndarray
Scenarios = str | Scenario | Iterable[str | Scenario]


def parse_number(value: Number, argument: str) -> float:
    """Parse a positive finite number from a number or from text such as "1B", "300M", "1e9".

    Raises
    ------
    ParameterError
        If the value is not a positive finite number; the message names `argument`.
    """
    number = math.nan
    with contextlib.suppress(TypeError, ValueError):
        if isinstance(value, str):
            if match := _NUMBER.fullmatch(value):
                number = float(match[1]) * _SUFFIXES[match[2].lower()]
        elif not isinstance(value, bool | np.bool_):
            number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ParameterError(
            f"Cannot parse {value!r} in {argument}. Use a positive finite number such as 1e9, '1e9', '1B' or '300M'."
        )
    return number


def parse_numbers(values: Numbers, argument: str) -> np.ndarray:
    """Parse one or several different positive finite numbers, in the given order."""
    listed: list[Any] = [values] if isinstance(values, str) or np.ndim(values) == 0 else list(values)  # type: ignore[arg-type]
    if np.ndim(values) > 1:
        raise ParameterError(f"`{argument}` must be a list of numbers, got an array with {np.ndim(values)} dimensions.")
    numbers = np.array([parse_number(value, argument) for value in listed])
    if numbers.size == 0:
        raise ParameterError(f"`{argument}` is empty. Give at least one number.")
    unique, counts = np.unique(numbers, return_counts=True)
    if counts.max() > 1:
        raise ParameterError(f"`{argument}` contains {unique[counts > 1][0]:g} more than once. Give each value once.")
    return numbers


def parse_students(students: Numbers) -> np.ndarray:
    """Parse student sizes in non-embedding parameters, in the given order."""
    sizes = parse_numbers(students, "students")
    if sizes.min() < _FEWEST_PARAMS:
        small = sizes.min()
        raise ParameterError(
            f"`students` contains {small:g}, which is too small for a number of parameters. If this is in millions, "
            f"write '{small:g}M' or {small:g}e6."
        )
    return sizes


def parse_budgets(budgets: Numbers) -> np.ndarray:
    """Parse budgets in FLOPs and sort them in increasing order."""
    return np.sort(parse_numbers(budgets, "budgets"))


def parse_scenarios(scenarios: Scenarios) -> tuple[Scenario, ...]:
    """Parse one or several scenarios, by name or as objects, with different names."""
    if isinstance(scenarios, str | Scenario):
        scenarios = [scenarios]
    try:
        found = tuple(scenario(item) for item in scenarios)
    except TypeError:
        raise ParameterError(f"`scenarios` must be a list of names or Scenario objects, got {scenarios!r}.") from None
    if not found:
        names = ", ".join(repr(name) for name in SCENARIOS)
        raise ParameterError(f"`scenarios` is empty. Give some of {names}, or Scenario objects.")
    names_seen: set[str] = set()
    for item in found:
        if item.name in names_seen:
            raise ParameterError(f"`scenarios` contains the name {item.name!r} more than once. Use different names.")
        names_seen.add(item.name)
    return found


@dataclass(frozen=True)
class TeacherTable:
    """Existing teachers with their measured losses.

    Parameters
    ----------
    names : tuple of str
        Unique names.
    params, loss : ndarray
        Non-embedding parameters and measured cross-entropy (nats per token).
    tokens : ndarray or None
        Training tokens of each teacher; required if a fraction of its pretraining is charged.
    """

    names: tuple[str, ...]
    params: np.ndarray
    loss: np.ndarray
    tokens: np.ndarray | None

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Return the arrays that `strategies` expects."""
        return (self.params, self.loss) if self.tokens is None else (self.params, self.loss, self.tokens)


def parse_teachers(teachers: pd.DataFrame | xr.Dataset | None, scenarios: Sequence[Scenario]) -> TeacherTable | None:
    """Parse a table of teachers with columns params, loss, and optionally tokens and name."""
    if teachers is None:
        return None
    if isinstance(teachers, xr.Dataset):
        teachers = teachers.to_dataframe().reset_index()
    if not isinstance(teachers, pd.DataFrame):
        raise ParameterError(
            "`teachers` must be a DataFrame or Dataset with the columns params and loss (optionally name and tokens), "
            f"got {type(teachers).__name__}."
        )
    for column in ("params", "loss"):
        if column not in teachers:
            raise ParameterError(f"`teachers` has no column {column!r}. Found the columns {list(teachers.columns)}.")
    if teachers.empty:
        raise ParameterError("`teachers` has no rows. Omit it to plan with newly trained teachers.")
    columns = {
        column: np.array([parse_number(value, f"column {column!r} of teachers") for value in teachers[column]])
        for column in ("params", "loss", "tokens")
        if column in teachers
    }
    if columns["params"].min() < _FEWEST_PARAMS:
        raise ParameterError(
            f"Column 'params' of `teachers` contains {columns['params'].min():g}, which is too small for a number of "
            "parameters. If this is in millions, multiply it by 1e6."
        )
    charged = [item.name for item in scenarios if item.delta_pre > 0]
    if charged and "tokens" not in columns:
        raise ParameterError(
            f"`teachers` has no column 'tokens', but the scenario {charged[0]!r} charges for pretraining. Add the column, "
            "or use a scenario with delta_pre=0 if the teachers are already paid for."
        )
    names = [str(n) for n in teachers["name"]] if "name" in teachers else [f"T{i + 1}" for i in range(len(teachers))]
    for name in names:
        if names.count(name) > 1:
            raise ParameterError(f"Column 'name' of `teachers` contains {name!r} more than once. Use different names.")
    return TeacherTable(tuple(names), columns["params"], columns["loss"], columns.get("tokens"))


def check_choice(value: Any, argument: str, choices: Sequence[str]) -> str:
    """Check that a value is one of the choices."""
    if value not in choices:
        raise ParameterError(f"`{argument}` must be {' or '.join(repr(c) for c in choices)}, got {value!r}.")
    return str(value)
