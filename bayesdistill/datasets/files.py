"""Read CSV and Parquet files into raw tables, with the line number of each row."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bayesdistill.arguments import QUANTITIES, shown
from bayesdistill.datasets.schemas import COLUMNS, KINDS, LABELS
from bayesdistill.errors import DataError, FileError, ParameterError

_CSV = (".csv", ".csv.gz")
_PARQUET = (".parquet", ".pq")
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars", r"\s+": "spaces"}
FORMATS = (("_", "."), ("_", ","), (",", "."), (".", ","), (" ", ","), ("'", ","), (" ", "."), ("'", "."))
"""Thousands separator and decimal separator of numbers, in the order in which they are tried."""
_EXCEL = re.compile(r"\s*\"?sep=.?", re.IGNORECASE)
_CONFLICT = re.compile(r"^(<{7}|>{7}|={7}|\|{7})( .*)?\r?$", re.MULTILINE)
_LONGEST_NAME = 200
"""Longest name of a file in messages."""


class RawTable(NamedTuple):
    """Table before its cells are checked."""

    frame: pd.DataFrame
    where: str
    """Name of the table in messages: the given path, or "the table"."""
    lines: Sequence[int] | None = None
    """For a CSV file, the first line of each row, counted from 1."""
    rows: Sequence[int] | None = None
    """For a part of a table, the row of each run in the whole table, counted from 0."""
    text: str = ""
    """Content of a CSV file."""
    path: str = ""

    def at(self, row: int) -> str:
        """Return the name of a row in messages."""
        row = row if self.rows is None else self.rows[row]
        line = "" if self.lines is None else f" (line {self.lines[row]})"
        return f"row {row + 1}{line}"

    def part(self, rows: np.ndarray, without: Sequence[str]) -> RawTable:
        """Return some of the rows, without some of the columns."""
        attrs = self.frame.attrs
        frame = self.frame[rows].drop(columns=list(without), errors="ignore").reset_index(drop=True)
        frame.attrs = attrs
        return self._replace(frame=frame, rows=np.flatnonzero(rows).tolist())


def read_raw(source: Any, where: str = "the table") -> RawTable:
    """Return the cells of a file or a DataFrame.

    Parameters
    ----------
    source : path or pandas.DataFrame
    where : str
        Name of a DataFrame in messages.

    Raises
    ------
    FileError
        If the file cannot be opened.
    DataError
        If the file is empty or does not contain a table.
    ParameterError
        If the source is neither a DataFrame nor a path.
    """
    if isinstance(source, pd.DataFrame):
        return RawTable(_plain(source, where), where)
    if not isinstance(source, str | os.PathLike):
        given = f"{type(source).__module__}.{type(source).__qualname__}"
        raise ParameterError(
            f"{where[0].upper()}{where[1:]} must be a pandas DataFrame or the path to a CSV or Parquet file, got an object of "
            f"type {given[:_LONGEST_NAME]}."
        )
    path = Path(source)
    where = _short(os.fsdecode(source))
    name = path.name.lower()
    if os.path.isdir(path):  # false for paths of any length
        raise FileError(f"{where} is a folder. Use the name of a file in it.")
    if not name.endswith(_CSV + _PARQUET) and os.path.exists(path):
        raise DataError(
            f"{where} must have one of the endings {', '.join(_CSV + _PARQUET)}. Save it in one of these formats.",
            in_python="Or read it with pandas and pass the DataFrame.",
        )
    content = _bytes_of(path, where)
    if name.endswith(_PARQUET):
        return RawTable(_parquet(content, where), where, path=str(path))
    return _csv(_text(content, where), where, str(path))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"...{text[3 - _LONGEST_NAME :]}"


def _bytes_of(path: Path, where: str) -> bytes:
    try:
        content = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            content = gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{where} is not a gzip file or is damaged: {_short(str(error))}") from None
    except FileNotFoundError:
        raise FileError(f"{where} does not exist. Check the working directory, or use an absolute path.") from None
    except (OSError, ValueError) as error:  # ValueError: the path has a null byte
        raise FileError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if not content.strip():
        raise DataError(f"{where} is empty. It must have a header and at least two runs.")
    return content


def _parquet(content: bytes, where: str) -> pd.DataFrame:
    import pyarrow as arrow

    try:
        frame = pd.read_parquet(io.BytesIO(content))
    except (arrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{where} is not a Parquet file or is damaged: {_short(reason)}") from None
    return _plain(frame, where)


def _plain(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return a copy with a plain index, text as names, and the attributes that JSON can represent."""
    attrs = {key: value for key, value in frame.attrs.items() if _is_json(value)}
    if "source" in frame.attrs:
        attrs["source"] = str(frame.attrs["source"])
    frame = frame.copy(deep=False)
    # pandas compares attributes, which fails for arrays, and writes them to Parquet files as JSON.
    frame.attrs = {}
    # Named levels are columns that were set as index; unnamed levels are row numbers.
    for level in [name for name in frame.index.names if name is not None]:
        values = frame.index.get_level_values(list(frame.index.names).index(level))
        if level not in frame.columns:
            continue
        if not frame.columns.is_unique or not values.equals(pd.Index(frame[level])):
            raise DataError(f"{where} has {shown(level)} both in its index and as a column. Drop one of them.")
        frame = frame.reset_index(level=level, drop=True)
    frame = frame.reset_index(level=[name for name in frame.index.names if name is not None])
    frame = frame.reset_index(drop=True)
    if not all(isinstance(name, str) for name in frame.columns):
        frame.columns = pd.Index([str(name) for name in frame.columns])
    frame.attrs = attrs
    return frame


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _text(content: bytes, where: str) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{where} is encoded in UTF-16. Save it as CSV in UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not encoded in UTF-8 (byte {error.start + 1}). Save the table as CSV in UTF-8."
        ) from None
    if "\0" in text:
        raise DataError(f"{where} contains binary data. Save the table as CSV in UTF-8.")
    return text


def _csv(text: str, where: str, path: str) -> RawTable:
    if mark := _CONFLICT.search(text):
        line = text.count("\n", 0, mark.start()) + 1
        raise DataError(
            f"{where}, line {line} is a merge conflict marker ({shown(mark[0].strip())}). Resolve the conflict and delete the markers."
        )
    _reject_other_formats(text, where, path)
    header, rows, lines = _records(text, where)
    # By default, DataFrame.to_csv writes the row number to a first column without a name.
    unnamed = [str(position) for position, name in enumerate(header, 1) if not name and position > 1]
    if unnamed:
        shown_names = ", ".join(unnamed[:10])
        raise DataError(f"{where}: column {shown_names} has no name in the header. Name it or delete it.")
    if header and not header[0]:
        header, rows = header[1:], [row[1:] for row in rows]
    # Skip duplicated names here; `kind_of` rejects them.
    frame = pd.DataFrame(rows, columns=header, dtype=object)
    if frame.columns.is_unique:
        for name in frame.columns.difference([name for columns in KINDS.values() for name in columns]):
            frame[name] = _other_column(frame[name].tolist(), text=name in LABELS)
    return RawTable(frame, where, lines, text=text, path=path)


def _records(text: str, where: str) -> tuple[list[str], list[list[str]], list[int]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    header: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    line = 1
    try:
        for cells in reader:
            first_line, line = line, reader.line_num + 1
            if not any(cell.strip() for cell in cells) and len(cells) <= 1:
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                continue
            if len(cells) != len(header):
                at, content = f"{where}, row {len(rows) + 1} (line {first_line})", shown(",".join(cells))
                if _is_comment(cells[0]):
                    raise DataError(f"{at} is a comment ({content}). Delete it.")
                raise DataError(
                    f"{at} has {len(cells)} cells, but the header has {len(header)} columns: {content}. Quote cells that contain "
                    "commas, write numbers with a decimal point, or delete the row if it is a note."
                )
            rows.append(cells)
            lines.append(first_line)
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.line_num} is not valid CSV: {error}.") from None
    return header, rows, lines


# Other formats ------------------------------------------------------------------------------------------------------


def _reject_other_formats(text: str, where: str, path: str) -> None:
    """Raise an error for a file that is not separated by commas or does not start with its header."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    number, first = lines[0]
    header = _header(text)
    found = f"{where}, line {number} ({shown(first)})"
    separator = _separator(first)
    if _is_comment(first) and header is None and any(name in first for names in KINDS.values() for name in names):
        raise DataError(f"{found} has a header after '#'. Delete the '#'.")
    if _is_comment(first):
        problem = f"{found} is a comment. Delete the lines of comments before the header"
    elif _EXCEL.match(first):
        problem = f"{found} is an instruction for Excel. Delete this line"
    elif header is not None and header > number:
        problem = f"{found} is not the header, which is line {header}. Delete the lines before the header"
    elif separator != ",":
        problem = (
            f"{where} is separated by {_SEPARATORS[separator]} instead of commas. Save it with commas between the columns and "
            "decimal points"
        )
    else:
        return
    raise DataError(f"{problem}.", in_python=read_csv_call(text, path))


def _header(text: str) -> int | None:
    """Return the number of the first line with the names of the columns of runs, apart from comments; None if there is none."""
    for number, line in enumerate(text.splitlines()[:50], 1):
        names = set(re.findall(r"\w+", line))
        if not _is_comment(line) and any(names.issuperset(columns[:-1]) for columns in KINDS.values()):
            return number
    return None


def _separator(header: str) -> str:
    """Return the separator of a header, a key of `_SEPARATORS` or a comma."""
    found = max(",", *_SEPARATORS, key=header.count)
    words = header.split()
    by_spaces = found not in header and set(COLUMNS) & set(words) and all(map(str.isidentifier, words))
    return r"\s+" if by_spaces else found


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def read_csv_call(text: str, path: str) -> str:
    """Return advice to call pandas.read_csv for a file in another format; empty if there is no such call."""
    lines = text.splitlines()
    other = (i for i, line in enumerate(lines, 1) if line.strip() and not _is_comment(line) and not _EXCEL.match(line))
    start = (_header(text) or next(other, 1)) - 1
    header = lines[start]
    separator = _separator(header)
    options: dict[str, Any] = {} if separator == "," else {"sep": separator}
    if any(line.strip() for line in lines[:start]):
        options["skiprows"] = start
    if re.search(f"{re.escape(separator)} ", header):
        options["skipinitialspace"] = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            frame = pd.read_csv(io.StringIO(text), nrows=1000, dtype=str, **options)
        except (ValueError, pd.errors.ParserError):
            return ""
    if frame.columns.intersection([*COLUMNS]).empty:
        return ""
    numbers = next(
        (one for exact in (True, False) for one in FORMATS if _reads(frame, *one, plausible=exact)), FORMATS[0]
    )
    options |= {} if numbers[1] == "." else {"decimal": numbers[1]}
    options |= {} if numbers[0] == "_" else {"thousands": numbers[0]}
    if not options:
        return ""
    name = repr(path) if len(path) <= _LONGEST_NAME else "path"
    call = ", ".join([name, *(f"{key}={value!r}" for key, value in options.items())])
    return f"Or pass pandas.read_csv({call})."


def in_format(text: str, mark: str, point: str) -> str | None:
    """Return a number in Python's format from text with other thousands and decimal separators, or None."""
    whole = rf"[0-9]+|[0-9]{{1,3}}({re.escape(mark)}[0-9]{{3}})+"
    pattern = rf"\s*({whole})({re.escape(point)}[0-9]*)?(e[+-]?[0-9]+)?\s*"
    if not re.fullmatch(pattern, text, re.IGNORECASE):
        return None
    return text.strip().replace(mark, "").replace(point, ".")


def _reads(frame: pd.DataFrame, mark: str, point: str, *, plausible: bool) -> bool:
    """Return whether the columns of runs, as text, are numbers in a format, and plausible ones."""
    for name in COLUMNS:
        _, low, high = QUANTITIES[COLUMNS[name].quantity]
        for cell in frame[name].dropna() if name in frame else ():
            number = in_format(cell, mark, point)
            if number is None or (plausible and not low < float(number) <= high):
                return False
    return any(name in frame for name in COLUMNS)


def _other_column(cells: list[str], text: bool) -> pd.Series:
    """Convert a column that the model does not use to integers, floats or text."""
    cells = [cell.strip() for cell in cells]
    filled = [cell for cell in cells if cell]
    for number in (int, float):
        if text or not filled or any("_" in cell for cell in filled):
            break
        try:
            return pd.Series([number(cell) if cell else None for cell in cells])
        except ValueError:
            continue
    return pd.Series([cell or None for cell in cells], dtype="str")
