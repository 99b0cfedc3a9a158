"""Validation of the arguments of decisions: students, budgets, scenarios and teachers.

Each error message names the argument and the value, and suggests a fix.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill.arguments import PARAMS, RANGES, Range, scalar, shown
from bayesdistill.compute import SCENARIOS, Scenario, scenario
from bayesdistill.datasets import read_teachers
from bayesdistill.errors import ParameterError

_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_NUMBER = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([kmbt]?)\s*", re.IGNORECASE)
_POSITIVE = Range(0, units="such as 1e9, '1e9', '1B' or '300M'", above=True)

Number = float | str
Numbers = Number | Sequence[Number] | np.ndarray
Scenarios = str | Scenario | Iterable[str | Scenario]
Teachers = pd.DataFrame | xr.Dataset | str | Path
"""A table of existing teachers, or the path of its file."""
LEFT_OUT = "scenarios_left_out"
"""Attribute of results: a sentence on the default scenarios that do not apply to the teachers."""


def parse_number(value: Number, argument: str) -> float:
    """Parse a number, or text such as "1B", "300M" or "1e9", in the range of an argument.

    Raises
    ------
    ParameterError
        If the value is not a number in the range of `argument` in `RANGES`; by default, a positive number.
    """
    number: Any = scalar(value)
    if isinstance(number, str):
        match = _NUMBER.fullmatch(number)
        with contextlib.suppress(ValueError):
            number = float(match[1]) * _SUFFIXES[match[2].lower()] if match else number
    allowed = RANGES.get(argument, _POSITIVE)
    least = 0 if allowed.low == 0 and not allowed.above else math.nextafter(0, 1)
    if isinstance(number, bool) or not isinstance(number, int | float) or not least <= number < math.inf:
        raise ParameterError(
            f"Cannot parse {shown(value)} in `{argument}`. Use a positive finite number such as 1e9, '1e9', '1B' or '300M'."
        )
    if allowed is PARAMS and number < PARAMS.low:
        raise ParameterError(
            f"`{argument}` must be {PARAMS.words}, got {number:g}. If this is in millions, write '{number:g}M'."
        )
    if allowed.whole and number == int(number):
        number = int(number)
    return float(allowed(number, argument))


def parse_numbers(values: Numbers, argument: str) -> np.ndarray:
    """Parse one or several different positive finite numbers, in the given order."""
    numbers = parse_list(values, argument)
    unique, counts = np.unique(numbers, return_counts=True)
    if counts.max() > 1:
        raise ParameterError(f"`{argument}` contains {unique[counts > 1][0]:g} more than once. Give each value once.")
    return numbers


def parse_list(values: Numbers, argument: str) -> np.ndarray:
    """Parse one or several numbers, in the given order."""
    several = (
        isinstance(values, Iterable)
        and not isinstance(values, str | bytes | Mapping)
        and getattr(values, "ndim", 1) != 0
    )
    listed: Any = values if several else [values]
    numbers = np.array([parse_number(value, argument) for value in listed])
    if numbers.size == 0:
        raise ParameterError(f"`{argument}` is empty. Give at least one number.")
    return numbers


def parse_students(students: Numbers) -> np.ndarray:
    """Parse student sizes in non-embedding parameters, in the given order."""
    return parse_numbers(students, "students")


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
    attrs : dict
        Attributes of results: which default scenarios do not apply to the teachers.
    """

    names: tuple[str, ...]
    params: np.ndarray
    loss: np.ndarray
    tokens: np.ndarray | None
    attrs: dict[str, str] = field(default_factory=dict)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Return the arrays that `strategies` expects."""
        return (self.params, self.loss) if self.tokens is None else (self.params, self.loss, self.tokens)


def parse_teachers(teachers: Teachers | None, losses: tuple[float, float]) -> TeacherTable | None:
    """Parse a table of teachers with columns params, loss, and optionally tokens and name.

    Parameters
    ----------
    teachers : DataFrame, Dataset, path or None
    losses : tuple of float
        Range of plausible losses, in nats per token.

    Raises
    ------
    DataError
        If the table is invalid.
    FileError
        If the file cannot be read.
    ParameterError
        If `teachers` is not a table.
    """
    if teachers is None:
        return None
    if isinstance(teachers, xr.Dataset):
        attrs = teachers.attrs
        teachers = (teachers if teachers.dims else teachers.expand_dims("teacher")).to_dataframe().reset_index()
        teachers.attrs = dict(attrs)
    if not isinstance(teachers, pd.DataFrame | str | Path):
        raise ParameterError(
            "`teachers` must be a DataFrame or Dataset with the columns params and loss (optionally name and tokens), or the "
            f"path of such a table, got {type(teachers).__name__}."
        )
    names, frame = read_teachers(teachers, losses)
    tokens = frame["tokens"].to_numpy() if "tokens" in frame else np.full(len(frame), np.nan)
    known = None if np.isnan(tokens).any() else tokens
    return TeacherTable(tuple(names), frame["params"].to_numpy(), frame["loss"].to_numpy(), known)


def charged_scenarios(scenarios: Scenarios, table: TeacherTable | None) -> tuple[tuple[Scenario, ...], dict[str, str]]:
    """Return the scenarios of a call, and an attribute of its result if some of the default ones are left out.

    Existing teachers without tokens cannot be charged for their pretraining.

    Raises
    ------
    ParameterError
        If a scenario is invalid, or one that the call names charges for the pretraining of such teachers.
    """
    charged = parse_scenarios(scenarios)
    costly = [item.name for item in charged if item.delta_pre > 0]
    if table is None or table.tokens is not None or not costly:
        return charged, {}
    if isinstance(scenarios, tuple) and scenarios == tuple(SCENARIOS):
        names = " and ".join(f"'{name}'" for name in costly)
        note = (
            f"Left out: {names}, because the teachers exist and their tokens are not given, so that their pretraining is not "
            "charged. To charge it, add the column tokens to the table of teachers."
        )
        return tuple(item for item in charged if not item.delta_pre), {LEFT_OUT: note}
    raise ParameterError(
        f"`teachers` has no column 'tokens', or cells without a value in it, but the scenario {costly[0]!r} charges for "
        "pretraining. Add the tokens, or use a scenario with delta_pre=0 if the teachers are already paid for."
    )
