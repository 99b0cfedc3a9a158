"""Checks of tables: columns, cells, rows and implausible values.

Every table that a function takes passes through `checked`: runs to fit or to predict, candidates and teachers. `Requirements` are the
differences between them.
"""

from __future__ import annotations

import math
import numbers
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from bayesdistill.arguments import QUANTITIES, shown
from bayesdistill.datasets import suspicions
from bayesdistill.datasets.files import FORMATS, RawTable, in_format, read_csv_call
from bayesdistill.datasets.schemas import (
    COLUMNS,
    GROUPS,
    NAME,
    OPTIONAL,
    RECIPE,
    RECIPES,
    TEACHERS,
    kind_of,
    required_columns,
    runs_schema,
)
from bayesdistill.errors import DataError

_SHOWN = 5  # maximum number of problems in one message
_LONGEST = 900  # characters of the problems in one message
_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "<na>", "nat", "-"})
_SUFFIXES = {
    **dict.fromkeys(("k", "thousand"), 1e3),
    **dict.fromkeys(("m", "mio", "mn", "mln", "million", "millions"), 1e6),
    **dict.fromkeys(("b", "bn", "bln", "g", "mrd", "billion", "billions"), 1e9),
    **dict.fromkeys(("t", "tn", "trillion", "trillions"), 1e12),
}


@dataclass(frozen=True)
class Requirements:
    """What a table must have.

    Parameters
    ----------
    kind : {"distilled", "supervised", "teachers"}, optional
        By default, the columns determine it.
    outcome : bool
        Whether the outcome must be present.
    fit : bool
        Whether the runs are fitted: at least two different runs, with columns that vary.
    optional : bool
        Whether the columns in `OPTIONAL` are checked too.
    names : bool
        Whether every row must have a name, if there is a column of names.
    vocabulary_size : float, optional
        Losses must not exceed its logarithm.
    allow_suspicious : bool
        Accept implausible values.
    teacher_losses : tuple of float
        Range of plausible losses of teachers, in nats per token.
    """

    kind: str | None = None
    outcome: bool = False
    fit: bool = False
    optional: bool = False
    names: bool = False
    vocabulary_size: float | None = None
    allow_suspicious: bool = False
    teacher_losses: tuple[float, float] = (0.0, math.inf)


def checked(raw: RawTable, required: Requirements) -> pd.DataFrame:
    """Return a table with its columns as floats.

    Raises
    ------
    DataError
        If the table does not meet the requirements or, unless they are allowed, has implausible values.
    """
    attrs = raw.frame.attrs
    names = list(raw.frame.columns)
    kind = kind_of(names, required.kind, raw.where, outcome=required.outcome, recorded=attrs.get("kind"))
    if len(raw.frame) == 0:
        needed = "two rows" if required.fit else "one row"
        raise DataError(
            f"{raw.where} has a header but no {'teachers' if kind == TEACHERS else 'runs'}. It must have at least {needed}."
        )
    *_, target = required_columns(kind)
    columns = [*required_columns(kind, outcome=required.outcome or target in names)]
    columns += [name for name in OPTIONAL[kind] if required.optional and name in names]
    frame = raw.frame.assign(**{name: np.array([_number(cell) for cell in raw.frame[name]]) for name in columns})
    faults = _cells(raw, frame, kind, columns, required)
    foreign = raw.text and any(": write " in fault for fault in faults)
    advice = read_csv_call(raw.text, raw.path) if foreign else ""
    _raise(raw, kind, faults, "Correct these cells or remove their rows", advice)
    if required.fit and len(frame) < 2:
        only = "is the only run; a fit requires at least two runs and should have a dozen or more"
        _raise(raw, kind, [f"{raw.at(0)}, {only}"])
    _raise(
        raw, kind, _other_recipes(raw, frame, kind), "Remove these rows, or drop the column to use the law all the same"
    )
    repeated = _duplicates(raw, frame) if target in columns and kind != TEACHERS else []
    _raise(raw, kind, repeated + (_constant_target(frame[target]) if required.fit else []))
    allow = required.allow_suspicious or attrs.get("allow_suspicious") is True
    if not allow:
        unchecked = [name for name in OPTIONAL[kind] if name in names and name not in columns]
        known = frame.drop(columns=unchecked)
        found = suspicions.found(raw, known, kind, fit=required.fit, teacher_losses=required.teacher_losses)
        _raise(raw, kind, found, *_how_to_allow(raw))
    frame.attrs = attrs | {"source": raw.path or attrs.get("source", "a DataFrame"), "kind": kind}
    frame.attrs |= {"allow_suspicious": True} if allow else {}
    return frame


def _raise(raw: RawTable, kind: str, problems: list[str], fix: str = "", in_python: str = "") -> None:
    if not problems:
        return
    if len(problems) == 1:
        raise DataError(f"{raw.where}, {problems[0]}." + (f" {fix}." if fix else ""), in_python=in_python)
    listed = problems[:_SHOWN]
    while len(listed) > 1 and sum(map(len, listed)) > _LONGEST - len(raw.where) - len(fix) - len(in_python):
        listed.pop()
    more = [f"and {len(problems) - len(listed)} more"] if len(problems) > len(listed) else []
    lines = "".join(f"\n  {problem}" for problem in [*listed, *more])
    what = kind if kind == TEACHERS else f"{kind} runs"
    advice = f"\n{in_python}" if in_python else ""
    text = f"{raw.where} has {len(problems)} problems as a table of {what}{f'. {fix}' if fix else ''}:{lines}"
    raise DataError(text, in_python=advice)


def _how_to_allow(raw: RawTable) -> tuple[str, str]:
    """Return how to accept implausible values, for everyone and in Python only."""
    if raw.where.startswith("`"):
        return f"If the values are correct, set {raw.where.strip('`')}.attrs['allow_suspicious'] = True", ""
    at_hand = "" if raw.path else "Or set attrs['allow_suspicious'] = True, which every function accepts."
    return "If the values are correct, pass allow_suspicious=True", at_hand


# Cells --------------------------------------------------------------------------------------------------------------


def _number(cell: Any) -> float:
    """Convert a cell to a correctly rounded float; NaN if it is missing or not a number."""
    is_text, is_flag = isinstance(cell, str), isinstance(cell, bool | np.bool_)
    if (is_text and "_" in cell) or is_flag or not isinstance(cell, str | numbers.Real | Decimal):
        return math.nan
    try:
        return float(cell)
    except ValueError:  # text, or a signaling NaN
        return math.nan
    except OverflowError:  # an integer or Decimal larger than the largest float
        return math.inf


def is_missing(cell: Any) -> bool:
    """Return whether a cell is empty or has a word for a missing value."""
    if isinstance(cell, str):
        return cell.strip().lower() in _MISSING
    return bool(np.all(pd.isna(cell)))


def _cells(raw: RawTable, frame: pd.DataFrame, kind: str, columns: Sequence[str], required: Requirements) -> list[str]:
    """Return the problems of single cells, one per cell, in order of the rows."""
    import pandera.pandas as pa

    found = []
    try:
        runs_schema(kind, required.vocabulary_size, columns).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        for column, check, row in zip(cases["column"], cases["check"], cases["index"], strict=True):
            cell = raw.frame[column].iloc[row]
            if column not in OPTIONAL[kind] or not is_missing(cell):
                text = _not_a_number(cell, column) if check == "not_nullable" else f"{_shown(cell)}; expected {check}"
                found.append((row, columns.index(column), column, check, text))
    found = _without_numbers(raw, found, columns)
    for place, label in enumerate([*GROUPS[kind], *([NAME] if required.names else [])], len(columns)):
        faults = [_not_a_label(cell, label) for cell in frame.get(label, ())]
        found += [(row, place, label, "label", text) for row, text in enumerate(faults) if text]
    cells = pd.DataFrame(found, columns=["row", "place", "column", "check", "text"])
    cells = cells.sort_values(["row", "place"], kind="stable").drop_duplicates(["row", "place"])
    cells["alike"] = cells.groupby(["column", "check"])["text"].transform("size")
    # Report a problem of a whole column once, so that it does not hide other problems.
    cells = cells[(cells["alike"] <= _SHOWN) | ~cells.duplicated(["column", "check"])]
    return [
        f"{raw.at(row)}{', column ' * bool(column)}{column}: {text}"
        + (f" (one of {alike} such {'cells in this column' if column else 'rows'})" if alike > _SHOWN else "")
        for row, column, text, alike in cells[["row", "column", "text", "alike"]].to_numpy().tolist()
    ]


def _without_numbers(
    raw: RawTable, found: list[tuple[int, int, str, str, str]], columns: Sequence[str]
) -> list[tuple[int, int, str, str, str]]:
    """Replace the problems of rows without any number by one each."""
    faulty = [row for row, _, _, check, _ in found if check == "not_nullable"]
    empty = sorted(row for row, count in Counter(faulty).items() if count == len(columns) > 1)
    if 2 * len(empty) > len(raw.frame):
        return found
    cells = {row: ", ".join(_shown(raw.frame[name].iloc[row]) for name in columns) for row in empty}
    what = "no numbers; delete the row if it repeats the header or has units"
    others = [fault for fault in found if fault[0] not in cells]
    return [*others, *((row, 0, "", "row", f"{text}: {what}") for row, text in cells.items())]


def _not_a_label(cell: Any, name: str) -> str:
    if not pd.api.types.is_scalar(cell):
        return f"{_shown(cell)} is not a label; expected text or a number"
    return f"the {name} label is missing; label every row or drop the column" if is_missing(cell) else ""


def _not_a_number(cell: Any, column: str) -> str:
    expected = f"expected a number ({COLUMNS[column].long_name}, in {COLUMNS[column].units})"
    if is_missing(cell):
        hint = ". A run without a teacher has the columns params and tokens" if column == "teacher_loss" else ""
        return f"{_shown(cell)} is a missing value; {expected}{hint}"
    meant = _meant(cell.strip(), column) if isinstance(cell, str) else ""
    return f"{_shown(cell)} is not a number; {expected}{meant}"


def _meant(text: str, column: str) -> str:
    """Return the number to write in place of a number in another format."""
    if len(text) > 40:
        return ""
    suffixed = re.fullmatch(r"([0-9.]+)\s*([a-z]+)\.?( (params|parameters|tokens))?", text.lower())
    if suffixed and suffixed[2] in _SUFFIXES and math.isfinite(_number(suffixed[1])):
        return f": write {_number(suffixed[1]) * _SUFFIXES[suffixed[2]]:g}"
    power = re.fullmatch(
        r"([0-9]+\.?[0-9]*)\s*[x*×·]\s*10(?:\^|\*\*)?([0-9⁰¹²³⁴⁵⁶⁷⁸⁹]+)|([0-9]+\.?[0-9]*)d([+-]?[0-9]+)", text.lower()
    )
    if power:
        exponent = unicodedata.normalize("NFKC", power[2] or power[4])
        return f": write {_number(f'{power[1] or power[3]}e{exponent}'):g}"
    _, fewest, most = QUANTITIES[COLUMNS[column].quantity]
    text = re.sub(r"\s", " ", text).replace("\u2019", "'")
    found = []
    for mark, point in FORMATS:
        number = in_format(text, mark, point)
        if number is not None:
            how = "with a decimal point" if point in text and point == "," else "without separators"
            found.append((not fewest < float(number) <= most, f": write {number}, {how}"))
    return min(found, default=(False, ""), key=lambda one: one[0])[1]


def _shown(cell: Any) -> str:
    text = (
        repr(cell[:50])
        if isinstance(cell, str)
        else shown(cell)
        if isinstance(cell, list | dict | tuple | set)
        else str(cell)
    )
    return text if len(text) <= 40 else f"{text[:37]}..."


# Recipes ------------------------------------------------------------------------------------------------------------


def _other_recipes(raw: RawTable, frame: pd.DataFrame, kind: str) -> list[str]:
    """Return the columns of runs that were trained in another way than the law describes."""
    found = []
    for name in RECIPES[kind]:
        other = [row for row, cell in enumerate(frame.get(name, ())) if not _is_described(cell, name)]
        if other:
            many = f" (one of {len(other)} such rows)" if len(other) > 1 else ""
            cell = _shown(frame[name].iloc[other[0]])
            found.append(f"{raw.at(other[0])}, column {name}: {cell}, but {RECIPE[name].expected}{many}")
    return found


def _is_described(cell: Any, name: str) -> bool:
    if isinstance(cell, str) and cell.strip().lower() in RECIPE[name].described:
        return True
    return is_missing(cell) or _number(cell) in RECIPE[name].described


# Rows ---------------------------------------------------------------------------------------------------------------


def _duplicates(raw: RawTable, frame: pd.DataFrame) -> list[str]:
    try:
        repeated = np.flatnonzero(frame.duplicated())
    except (TypeError, ValueError, NotImplementedError):  # cells of Parquet files can be lists, which cannot be hashed
        repeated = np.flatnonzero(frame.astype(str).duplicated())
    if not len(repeated):
        return []
    keys = [tuple(row) for row in frame.astype(str).to_numpy()]
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    return [
        f"{raw.at(int(row))}: equal to {raw.at(first[keys[row]])} in every column; delete one or, if both are runs, add a "
        "column such as 'seed' to distinguish them"
        for row in repeated
    ]


def _constant_target(losses: pd.Series) -> list[str]:
    if losses.min() < losses.max():
        return []
    return [
        f"column {losses.name}: all {len(losses)} values are {losses.iloc[0]:g}; measured losses differ between runs, so check "
        "how the column was computed"
    ]


def names_of(raw: RawTable, default: str) -> list[str]:
    """Return the different names of the rows of a table; by default, `default` with the number of the row.

    Raises
    ------
    DataError
        If two rows have the same name.
    """
    if NAME not in raw.frame:
        return [f"{default}{row + 1}" for row in range(len(raw.frame))]
    names = [str(name) for name in raw.frame[NAME]]
    repeated = np.flatnonzero(pd.Series(names).duplicated()).tolist()
    for row in repeated[:1]:
        raise DataError(
            f"{raw.where}, {raw.at(row)}, column {NAME}: {_shown(names[row])} is also the name in "
            f"{raw.at(names.index(names[row]))}. Use different names."
        )
    return names
