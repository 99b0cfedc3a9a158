"""Read CSV and Parquet files into raw tables, with the line number of each row."""

from __future__ import annotations

import csv
import gzip
import io
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bayesdistill.datasets.schemas import COLUMNS, LABELS
from bayesdistill.errors import DataError, FileError, ParameterError

_CSV = (".csv", ".csv.gz")
_PARQUET = (".parquet", ".pq")


class RawTable(NamedTuple):
    """Table before its cells are checked."""

    frame: pd.DataFrame
    where: str
    """Name of the table in messages: the given path, or "the table"."""
    lines: Sequence[int] | None
    """For a CSV file, the first line of each row, counted from 1."""

    def at(self, row: int) -> str:
        """Return the name of a row in messages."""
        line = "" if self.lines is None else f" (line {self.lines[row]})"
        return f"row {row + 1}{line}"


def read_raw(source: str | os.PathLike[str] | pd.DataFrame) -> RawTable:
    """Return the cells of a file or a DataFrame.

    Raises
    ------
    FileError
        If the file cannot be opened.
    DataError
        If the file is empty or does not contain a table.
    """
    if isinstance(source, pd.DataFrame):
        return RawTable(_without_index(source), "the table", None)
    if not isinstance(source, str | os.PathLike):
        given = f"{type(source).__module__}.{type(source).__qualname__}"
        raise ParameterError(
            f"Runs must be a pandas DataFrame or the path to a CSV or Parquet file, got an object of type {given}."
        )
    path = Path(source)
    where = str(source)
    name = path.name.lower()
    if not name.endswith(_CSV + _PARQUET):
        raise DataError(
            f"{where} must have one of the endings {', '.join(_CSV + _PARQUET)}. Save it in one of these formats.",
            in_python="Or read it with pandas and pass the DataFrame.",
        )
    content = _bytes_of(path, where)
    if name.endswith(_PARQUET):
        return RawTable(_parquet(content, where), where, None)
    return _csv(_text(content, where), where)


def _bytes_of(path: Path, where: str) -> bytes:
    try:
        content = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            content = gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{where} is not a gzip file or is damaged: {error}") from None
    except FileNotFoundError:
        raise FileError(f"{where} does not exist. Check the working directory, or use an absolute path.") from None
    except OSError as error:
        raise FileError(f"{where} cannot be read: {error.strerror or error}.") from None
    if not content.strip():
        raise DataError(f"{where} is empty. It must have a header and at least two runs.")
    return content


def _parquet(content: bytes, where: str) -> pd.DataFrame:
    import pyarrow as arrow

    try:
        return _without_index(pd.read_parquet(io.BytesIO(content)))
    except (arrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{where} is not a Parquet file or is damaged: {reason}") from None


def _without_index(frame: pd.DataFrame) -> pd.DataFrame:
    # Named levels are columns that were set as index; unnamed levels are row numbers.
    named = [level for level in frame.index.names if level is not None]
    if named:
        try:
            frame = frame.reset_index(level=named)
        except ValueError:
            raise DataError(f"The table has {named} both in its index and as a column. Drop one of them.") from None
    return frame.reset_index(drop=True)


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


def _csv(text: str, where: str) -> RawTable:
    header, rows, lines = _records(text, where)
    # By default, DataFrame.to_csv writes the row number to a first column without a name.
    unnamed = [str(position) for position, name in enumerate(header, 1) if not name and position > 1]
    if unnamed:
        raise DataError(f"{where}: column {', '.join(unnamed)} has no name in the header. Name it or delete it.")
    if header and not header[0]:
        header, rows = header[1:], [row[1:] for row in rows]
    # Skip duplicated names here; `kind_of` rejects them.
    frame = pd.DataFrame(rows, columns=header, dtype=object)
    if frame.columns.is_unique:
        for name in frame.columns.difference(list(COLUMNS)):
            frame[name] = _other_column(frame[name].tolist(), text=name in LABELS)
    return RawTable(frame, where, lines)


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
                _reject_other_separators(header, where)
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{where}, row {len(rows) + 1} (line {first_line}) has {len(cells)} cells, but the header has "
                    f"{len(header)} columns. Quote cells that contain commas, and write numbers with a decimal point."
                )
            rows.append(cells)
            lines.append(first_line)
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.line_num} is not valid CSV: {error}.") from None
    return header, rows, lines


def _reject_other_separators(header: list[str], where: str) -> None:
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            raise DataError(
                f"{where} is separated by {name} instead of commas. Save it with commas.",
                in_python=f"Or pass pandas.read_csv({where!r}, sep={separator!r}).",
            )


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
