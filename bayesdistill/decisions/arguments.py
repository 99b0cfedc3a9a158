"""What a planner passes in, checked once: students, budgets, scenarios, teachers.

Every message names the argument, the value and the way out.
"""

from __future__ import annotations

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
from bayesdistill.strategies import Bounds

_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_NUMBER = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([kmbt]?)\s*", re.IGNORECASE)
_FEWEST_PARAMS = 1e3

Number = float | str
Numbers = Number | Sequence[Number] | np.ndarray
Scenarios = str | Scenario | Iterable[str | Scenario]


def parse_number(value: Number, argument: str) -> float:
    """A positive finite number from a number or from text such as "1B", "300M", "1e9".

    Raises
    ------
    ParameterError
        If it is neither; the message names `argument`.
    """
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        try:
            number = float(match[1]) * _SUFFIXES[match[2].lower()] if match else math.nan
        except ValueError:
            number = math.nan
    elif isinstance(value, bool | np.bool_):
        number = math.nan
    else:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ParameterError(f"{argument}: {value!r} is no positive finite number; write 1e9, '1e9', '1B' or '300M'")
    return number


def parse_numbers(values: Numbers, argument: str) -> np.ndarray:
    """One or several positive finite numbers, all different, in the order given."""
    listed: list[Any] = [values] if isinstance(values, str) or np.ndim(values) == 0 else list(values)  # type: ignore[arg-type]
    if np.ndim(values) > 1:
        raise ParameterError(f"{argument}: a list of numbers is needed, not an array of {np.ndim(values)} dimensions")
    numbers = np.array([parse_number(value, argument) for value in listed])
    if numbers.size == 0:
        raise ParameterError(f"{argument}: the list is empty; at least one number is needed")
    unique, counts = np.unique(numbers, return_counts=True)
    if counts.max() > 1:
        raise ParameterError(f"{argument}: {unique[counts > 1][0]:g} stands there more than once; give each value once")
    return numbers


def parse_students(students: Numbers) -> np.ndarray:
    """Student sizes in non-embedding parameters, in the order given."""
    sizes = parse_numbers(students, "students")
    if sizes.min() < _FEWEST_PARAMS:
        small = sizes.min()
        raise ParameterError(
            f"students: {small:g} parameters is no language model; sizes are counted in single parameters, "
            f"so write '{small:g}M' or {small:g}e6 for {small:g} million"
        )
    return sizes


def parse_budgets(budgets: Numbers) -> np.ndarray:
    """Budgets in FLOPs, sorted from small to large."""
    return np.sort(parse_numbers(budgets, "budgets"))


def parse_scenarios(scenarios: Scenarios) -> tuple[Scenario, ...]:
    """One or several scenarios by name or as objects, with different names."""
    if isinstance(scenarios, str | Scenario):
        scenarios = [scenarios]
    try:
        found = tuple(scenario(item) for item in scenarios)
    except TypeError:
        raise ParameterError(f"scenarios: {scenarios!r} is no list of names or Scenario objects") from None
    if not found:
        names = ", ".join(repr(name) for name in SCENARIOS)
        raise ParameterError(f"scenarios: the list is empty; give some of {names}, or Scenario objects")
    names_seen: set[str] = set()
    for item in found:
        if item.name in names_seen:
            raise ParameterError(f"scenarios: {item.name!r} stands there more than once; give each its own name")
        names_seen.add(item.name)
    return found


@dataclass(frozen=True)
class TeacherTable:
    """Teachers that exist, with their measured losses.

    Parameters
    ----------
    names : tuple of str
        All different.
    params, loss : ndarray
        Non-embedding parameters and measured cross-entropy (nats per token).
    tokens : ndarray or None
        Tokens that each was trained on; needed where a share of its pretraining is charged.
    """

    names: tuple[str, ...]
    params: np.ndarray
    loss: np.ndarray
    tokens: np.ndarray | None

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The form that `strategies` takes."""
        return (self.params, self.loss) if self.tokens is None else (self.params, self.loss, self.tokens)


def parse_teachers(teachers: pd.DataFrame | xr.Dataset | None, scenarios: Sequence[Scenario]) -> TeacherTable | None:
    """A table of teachers with columns params, loss, and optionally tokens and name."""
    if teachers is None:
        return None
    if isinstance(teachers, xr.Dataset):
        teachers = teachers.to_dataframe().reset_index()
    if not isinstance(teachers, pd.DataFrame):
        raise ParameterError(
            f"teachers: a DataFrame with the columns params and loss (and name, tokens) is needed, "
            f"not {type(teachers).__name__}"
        )
    for column in ("params", "loss"):
        if column not in teachers:
            raise ParameterError(f"teachers: the column {column!r} is missing; there are {list(teachers.columns)}")
    if teachers.empty:
        raise ParameterError("teachers: the table is empty; leave it out to let new teachers be trained")
    columns: dict[str, np.ndarray] = {}
    for column in ("params", "loss", "tokens"):
        if column in teachers:
            columns[column] = np.array([parse_number(v, f"teachers, column {column!r}") for v in teachers[column]])
    if columns["params"].min() < _FEWEST_PARAMS:
        raise ParameterError(
            f"teachers, column 'params': {columns['params'].min():g} parameters is no language model; "
            "sizes are counted in single parameters"
        )
    charged = [item.name for item in scenarios if item.delta_pre > 0]
    if charged and "tokens" not in columns:
        raise ParameterError(
            f"teachers: the scenario {charged[0]!r} charges for pretraining, so the column 'tokens' is needed; "
            "teachers that are already paid for have delta_pre = 0"
        )
    names = [str(n) for n in teachers["name"]] if "name" in teachers else [f"T{i + 1}" for i in range(len(teachers))]
    for name in names:
        if names.count(name) > 1:
            raise ParameterError(f"teachers, column 'name': {name!r} stands there more than once")
    return TeacherTable(tuple(names), columns["params"], columns["loss"], columns.get("tokens"))


def make_bounds(
    min_teacher_params: Number,
    max_teacher_params: Number,
    max_teacher_tokens: Number,
    max_student_tokens: Number | None,
) -> Bounds:
    """Bounds from the arguments that users type."""
    low = parse_number(min_teacher_params, "min_teacher_params")
    high = parse_number(max_teacher_params, "max_teacher_params")
    if low > high:
        raise ParameterError(
            f"min_teacher_params ({low:g}) is above max_teacher_params ({high:g}): no teacher is left; raise the maximum"
        )
    tokens = parse_number(max_teacher_tokens, "max_teacher_tokens")
    if tokens < Bounds().min_teacher_tokens:
        raise ParameterError(
            f"max_teacher_tokens ({tokens:g}) is below {Bounds().min_teacher_tokens:g}, the fewest that a teacher is trained "
            "on: no teacher is left; raise it"
        )
    return Bounds(
        min_teacher_params=low,
        max_teacher_params=high,
        max_teacher_tokens=tokens,
        max_student_tokens=np.inf
        if max_student_tokens is None
        else parse_number(max_student_tokens, "max_student_tokens"),
    )


def check_choice(value: Any, argument: str, choices: Sequence[str]) -> str:
    """One of a few words."""
    if value not in choices:
        raise ParameterError(f"{argument}: {value!r} is not known; use {' or '.join(repr(c) for c in choices)}")
    return str(value)
