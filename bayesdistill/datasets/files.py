"""From a CSV or Parquet file to a raw table: cells as they stand, with the line of the file that each row is on."""

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
    """A table before its cells are checked."""

    frame: pd.DataFrame
    where: str
    """How messages call it: the path as it was given, or "the table"."""
    lines: Sequence[int] | None
    """For a CSV file the line, counted from 1, that each row begins on."""

    def at(self, row: int) -> str:
        """How messages call a row, given its position."""
        line = "" if self.lines is None else f" (line {self.lines[row]})"
        return f"row {row + 1}{line}"


def read_raw(source: str | os.PathLike[str] | pd.DataFrame) -> RawTable:
    """Cells of a file or a DataFrame.

    Raises
    ------
    FileError
        The path is not a file that can be opened.
    DataError
        The file is empty, or does not hold a table.
    """
    if isinstance(source, pd.DataFrame):
        return RawTable(_without_index(source), "the table", None)
    if not isinstance(source, str | os.PathLike):
        given = f"{type(source).__module__}.{type(source).__qualname__}"
        raise ParameterError(
            f"runs are of type {given}; a path to a CSV or Parquet file or a pandas DataFrame is needed"
        )
    path = Path(source)
    where = str(source)
    name = path.name.lower()
    if not name.endswith(_CSV + _PARQUET):
        raise DataError(
            f"{where} is not named like a table that can be read ({', '.join(_CSV + _PARQUET)}); save it as one of these, or "
            "read it with pandas and pass the DataFrame"
        )
    content = _bytes_of(path, where)
    if name.endswith(_PARQUET):
        return RawTable(_parquet(content, where), where, None)
    return _csv(_text(content, where, compressed=name.endswith(".gz")), where)


def _bytes_of(path: Path, where: str) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileError(
            f"{where} does not exist; look for it from the working directory, or give a full path"
        ) from None
    except OSError as error:
        raise FileError(f"{where} cannot be read: {error.strerror or error}") from None
    if not content.strip():
        raise DataError(f"{where} is empty; a header and at least two runs are needed")
    return content


def _parquet(content: bytes, where: str) -> pd.DataFrame:
    import pyarrow as arrow

    try:
        return _without_index(pd.read_parquet(io.BytesIO(content)))
    except (arrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{where} is not a Parquet file, or is damaged: {reason}") from None


def _without_index(frame: pd.DataFrame) -> pd.DataFrame:
    # A level with a name is a column that somebody has set as index; one without counts rows.
    named = [level for level in frame.index.names if level is not None]
    if named:
        try:
            frame = frame.reset_index(level=named)
        except ValueError:
            raise DataError(f"the table has {named} both in its index and as a column; drop one of them") from None
    return frame.reset_index(drop=True)


def _text(content: bytes, where: str, compressed: bool) -> str:
    if compressed:
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{where} is not a gzip file, or is damaged: {error}") from None
        if not content.strip():
            raise DataError(f"{where} is empty; a header and at least two runs are needed")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{where} is text in UTF-16; save it as CSV in UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not text in UTF-8 (byte {error.start + 1}); save the table as CSV in UTF-8"
        ) from None
    if "\0" in text:
        raise DataError(f"{where} is not a table but binary data; save the table as CSV in UTF-8")
    return text


def _csv(text: str, where: str) -> RawTable:
    header, rows, lines = _records(text, where)
    # A first column without a name is what DataFrame.to_csv writes unless told index=False: the number of the row.
    unnamed = [str(position) for position, name in enumerate(header, 1) if not name and position > 1]
    if unnamed:
        raise DataError(f"{where}: column {', '.join(unnamed)} has no name in the header; name it or delete it")
    if header and not header[0]:
        header, rows = header[1:], [row[1:] for row in rows]
    # Cells of equal names would overwrite one another; the kind is told from the names, and that refuses them.
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
                _refuse_other_separators(header, where)
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{where}, row {len(rows) + 1} (line {first_line}) has {len(cells)} cells where the header names "
                    f"{len(header)} columns; quote a cell that holds a comma, and write numbers with a decimal point"
                )
            rows.append(cells)
            lines.append(first_line)
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.line_num}: not a CSV table ({error})") from None
    return header, rows, lines


def _refuse_other_separators(header: list[str], where: str) -> None:
    for separator, said in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            raise DataError(
                f"{where} is separated by {said}, not by commas; save it with commas, or pass "
                f"pandas.read_csv({where!r}, sep={separator!r})"
            )


def _other_column(cells: list[str], text: bool) -> pd.Series:
    """A column that the model does not read, as integers or floats where all its cells are, otherwise as text."""
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
