"""Read and check tables of runs to fit (`read_runs`) or to predict (`read_design`).

Both functions apply the same checks and raise errors that describe the correction.
"""

from __future__ import annotations

import math
import numbers
import os
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from bayesdistill.datasets import suspicions
from bayesdistill.datasets.files import RawTable, read_raw
from bayesdistill.datasets.schemas import COLUMNS, GROUPS, kind_of, required_columns, runs_schema
from bayesdistill.errors import DataError, ParameterError

_SHOWN = 5  # maximum number of problems in one message
_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "<na>", "-"})
_SUFFIXES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


def read_runs(
    source: str | os.PathLike[str] | pd.DataFrame,
    kind: str | None = None,
    *,
    vocabulary_size: int | None = None,
    allow_suspicious: bool = False,
) -> pd.DataFrame:
    """Read and check a table of runs.

    Parameters
    ----------
    source : path or pandas.DataFrame
        A CSV file in UTF-8 (``.csv``, ``.csv.gz``), a Parquet file (``.parquet``, ``.pq``), or a DataFrame, which is not
        modified.
    kind : {"distilled", "supervised"}, optional
        Distilled runs have the columns ``student_params student_tokens teacher_loss student_loss``, supervised ones
        ``params tokens loss``. By default, the columns determine the kind.
    vocabulary_size : int, optional
        Vocabulary size V in tokens; losses above ln(V) raise an error.
    allow_suspicious : bool
        Accept values that are valid but probably wrong: implausible sizes, tokens or losses, student losses far below the
        teacher losses, one label with different values, and constant sizes, tokens or teacher losses. The setting is stored
        in ``attrs["allow_suspicious"]`` and applies when the table is read again.

    Returns
    -------
    pandas.DataFrame
        All columns and rows in their order, rows numbered from 0, the columns of the kind as float64. ``attrs`` holds
        ``source`` and ``kind``.

    Raises
    ------
    FileError
        If the file cannot be opened.
    DataError
        If the file is not a table, a column is missing, a cell is not a positive finite number, there are fewer than two runs,
        rows are identical in every column, the loss is constant or, unless `allow_suspicious`, a value is implausible. The
        message names the file and, for a cell, its row (counted from 1 below the header), line in a CSV file, column and value.
    ParameterError
        If `kind` or `vocabulary_size` is invalid.

    Notes
    -----
    Runs of one configuration that differ in the loss or in another column such as ``seed`` are repeats and are kept.

    Examples
    --------
    >>> import bayesdistill as bd, pandas as pd
    >>> table = pd.DataFrame({"params": [1e8, 2e8], "tokens": [2e9, 8e9], "loss": [3.1, 2.8], "seed": [0, 0]})
    >>> bd.read_runs(table).attrs["kind"]
    'supervised'
    >>> bd.read_runs(table.assign(params=[100, 2e8]))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    bayesdistill.errors.DataError: the table, row 1, column params: 100 is too few for ... probably 1e+08
    """
    if vocabulary_size is not None and not (math.isfinite(vocabulary_size) and vocabulary_size >= 2):
        raise ParameterError(f"`vocabulary_size` must be an integer of at least 2, or None, got {vocabulary_size!r}.")
    return _checked(source, kind, vocabulary_size, allow_suspicious, design=False)


def read_design(
    source: str | os.PathLike[str] | pd.DataFrame, kind: str | None = None, *, allow_suspicious: bool = False
) -> pd.DataFrame:
    """Read and check a table of runs to predict, with or without their outcomes.

    Parameters
    ----------
    source : path or pandas.DataFrame
        As for `read_runs`.
    kind : {"distilled", "supervised"}, optional
        Distilled runs have the columns ``student_params student_tokens teacher_loss``, supervised ones ``params tokens``.
        The outcome (``student_loss`` or ``loss``) may be missing. By default, the columns determine the kind.
    allow_suspicious : bool
        As for `read_runs`.

    Returns
    -------
    pandas.DataFrame
        As `read_runs` returns it.

    Raises
    ------
    FileError, DataError, ParameterError
        As for `read_runs`, but a single run is enough, columns may be constant, and runs without an outcome may be repeated.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayesdistill.datasets import read_design
    >>> read_design(pd.DataFrame({"params": ["1e9"], "tokens": [2e10]})).attrs["kind"]
    'supervised'
    """
    return _checked(source, kind, None, allow_suspicious, design=True)


def _checked(
    source: str | os.PathLike[str] | pd.DataFrame,
    kind: str | None,
    vocabulary_size: int | None,
    allow_suspicious: bool,
    *,
    design: bool,
) -> pd.DataFrame:
    """Return a checked table. A design may have constant columns, a single row and no outcome."""
    raw = read_raw(source)
    kind = kind_of(list(raw.frame.columns), kind, raw.where, outcome=not design)
    attrs = dict(raw.frame.attrs)
    allow = allow_suspicious or attrs.get("allow_suspicious") is True
    if len(raw.frame) == 0:
        required = "one row" if design else "two rows"
        raise DataError(f"{raw.where} has a header but no runs. It must have at least {required}.")
    *_, target = required_columns(kind)
    columns = required_columns(kind, outcome=not design or target in raw.frame)
    frame = _numbers(raw, columns)
    _raise(
        raw.where, kind, _cells(raw, frame, kind, columns, vocabulary_size), "Correct these cells or remove their rows"
    )
    if not design and len(frame) < 2:
        only = "is the only run; a fit requires at least two runs and should have a dozen or more"
        _raise(raw.where, kind, [f"{raw.at(0)}, {only}"])
    duplicates = _duplicates(raw, frame) if target in columns else []
    _raise(raw.where, kind, duplicates + ([] if design else _constant_target(frame[target])))
    if not allow:
        suspicious = suspicions.found(raw, frame, kind, design=design)
        _raise(raw.where, kind, suspicious, "If the values are correct, pass allow_suspicious=True")
    source_name = attrs.get("source", "a DataFrame") if isinstance(source, pd.DataFrame) else os.fspath(source)
    frame.attrs = attrs | {"source": source_name, "kind": kind} | ({"allow_suspicious": True} if allow else {})
    return frame


def _raise(where: str, kind: str, problems: list[str], fix: str = "") -> None:
    if not problems:
        return
    if len(problems) == 1:
        raise DataError(f"{where}, {problems[0]}." + (f" {fix}." if fix else ""))
    more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    shown = "".join(f"\n  {problem}" for problem in [*problems[:_SHOWN], *more])
    advice = f". {fix}:" if fix else ":"
    raise DataError(f"{where} has {len(problems)} problems as a table of {kind} runs{advice}{shown}")


# Cells --------------------------------------------------------------------------------------------------------------


def _numbers(raw: RawTable, columns: Sequence[str]) -> pd.DataFrame:
    """Convert columns to float64; NaN if a cell is missing or not a number."""
    return raw.frame.assign(**{name: np.array([_number(cell) for cell in raw.frame[name]]) for name in columns})


def _number(cell: Any) -> float:
    """Convert a cell to a correctly rounded float; NaN if it is missing or not a number."""
    is_text, is_flag = isinstance(cell, str), isinstance(cell, bool | np.bool_)
    if (is_text and "_" in cell) or is_flag or not isinstance(cell, str | numbers.Real | Decimal):
        return math.nan
    try:
        return float(cell)
    except ValueError:
        return math.nan
    except OverflowError:  # an integer or Decimal larger than the largest float
        return math.inf


def _is_missing(cell: Any) -> bool:
    if isinstance(cell, str):
        return cell.strip().lower() in _MISSING
    return bool(np.all(pd.isna(cell)))


def _cells(
    raw: RawTable, frame: pd.DataFrame, kind: str, columns: Sequence[str], vocabulary_size: int | None
) -> list[str]:
    """Return the problems of single cells, one per cell, in order of the rows."""
    import pandera.pandas as pa

    found = []
    try:
        runs_schema(kind, vocabulary_size, columns).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        for column, check, row in zip(cases["column"], cases["check"], cases["index"], strict=True):
            cell = raw.frame[column].iloc[row]
            text = _not_a_number(cell, column) if check == "not_nullable" else f"{_shown(cell)}; expected {check}"
            found.append((row, columns.index(column), column, check, text))
    for place, label in enumerate(GROUPS, len(columns)):
        faults = [_not_a_label(cell, label) for cell in frame.get(label, ())]
        found += [(row, place, label, "label", text) for row, text in enumerate(faults) if text]
    cells = pd.DataFrame(found, columns=["row", "place", "column", "check", "text"])
    cells = cells.sort_values(["row", "place"], kind="stable").drop_duplicates(["row", "place"])
    cells["alike"] = cells.groupby(["column", "check"])["text"].transform("size")
    # Report a problem of a whole column once, so that it does not hide other problems.
    cells = cells[(cells["alike"] <= _SHOWN) | ~cells.duplicated(["column", "check"])]
    return [
        f"{raw.at(row)}, column {column}: {text}"
        + (f" (one of {alike} such cells in this column)" if alike > _SHOWN else "")
        for row, column, text, alike in cells[["row", "column", "text", "alike"]].to_numpy().tolist()
    ]


def _not_a_label(cell: Any, name: str) -> str:
    if not pd.api.types.is_scalar(cell):
        return f"{_shown(cell)} is not a label; expected text or a number"
    return f"the {name} label is missing; label every row or drop the column" if _is_missing(cell) else ""


def _not_a_number(cell: Any, column: str) -> str:
    expected = f"expected a number ({COLUMNS[column].long_name}, in {COLUMNS[column].units})"
    if _is_missing(cell):
        return f"{_shown(cell)} is a missing value; {expected}"
    text, hint = str(cell).strip() if isinstance(cell, str) else "", ""
    suffixed = re.fullmatch(r"([0-9.]+)\s*([kmbgt])", text.lower())
    if suffixed and math.isfinite(_number(suffixed[1])):
        hint = f": write {_number(suffixed[1]) * _SUFFIXES[suffixed[2]]:g}"
    elif re.fullmatch(r"[0-9]+,[0-9]{1,2}|[0-9]+,[0-9]{4,}", text):
        hint = f": write {text.replace(',', '.')}, with a decimal point"
    elif re.fullmatch(r"[0-9]{1,3}([,_ ][0-9]{3})+(\.[0-9]*)?", text):
        hint = f": write {re.sub('[,_ ]', '', text)}, without separators"
    return f"{_shown(cell)} is not a number; {expected}{hint}"


def _shown(cell: Any) -> str:
    text = repr(cell) if isinstance(cell, str) else str(cell)
    return text if len(text) <= 40 else f"{text[:37]}..."


# Rows ---------------------------------------------------------------------------------------------------------------


def _duplicates(raw: RawTable, frame: pd.DataFrame) -> list[str]:
    try:
        repeated = np.flatnonzero(frame.duplicated())
    except TypeError:  # cells of Parquet files can be lists, which cannot be hashed
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
