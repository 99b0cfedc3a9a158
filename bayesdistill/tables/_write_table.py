"""Tables written down: for the terminal, as Markdown, as LaTeX, as CSV."""

from __future__ import annotations

import contextlib
import re
import textwrap
from collections.abc import Callable
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from bayesdistill.arguments import checked
from bayesdistill.errors import ParameterError
from bayesdistill.files import write_file
from bayesdistill.tables.formatting import readable

_IDENTIFY = {
    "fit",
    "quantity",
    "case",
    "amount",
    "run",
    "candidate",
    "teacher",
    "student",
    "scenario",
    "option",
    "budget",
    "tokens",
    "students_per_teacher",
}
"""Columns that identify rows, if they come first."""
_LONG_CELL = 25


@checked
def table_text(frame: pd.DataFrame, *, width: int | None = None) -> str:
    """A table for the terminal: aligned columns, headings broken where they are wider than what stands below them.

    Parameters
    ----------
    frame : DataFrame
        What `plan_table` or `summary_table` returned, or any other.
    width : int, optional
        Characters per line. A wider table continues below, with the columns that identify its rows repeated, and its long texts are
        broken. By default, every row has one line.

    Returns
    -------
    str
        Lines of text.

    Examples
    --------
    >>> import bayesdistill as bd, pandas as pd
    >>> print(bd.table_text(pd.DataFrame({"student": [1e9], "probability": [0.93]})).splitlines()[-1])
    1B       0.9
    """
    shown = readable(frame)
    if width is None or _width(shown) <= width:
        return _text(shown)
    repeated = [*range(len([*takewhile(_IDENTIFY.__contains__, frame.columns)]))]
    broken = _broken(shown)
    parts: list[list[int]] = [[]]
    for place in range(len(repeated), shown.shape[1]):
        if parts[-1] and _width(broken.iloc[:, [*repeated, *parts[-1], place]]) > width:
            parts.append([])
        parts[-1].append(place)
    return "\n\n".join(_text(_broken(shown.iloc[:, [*repeated, *part]])) for part in parts)


def _width(shown: pd.DataFrame) -> int:
    return sum(len(_text_column(str(heading), list(cells))[0]) + 2 for heading, cells in shown.items()) - 2


def _broken(shown: pd.DataFrame) -> pd.DataFrame:
    """Break long cells into lines, which become rows."""
    rows = []
    for row in shown.itertuples(index=False):
        lines = [textwrap.wrap(cell, _LONG_CELL, break_on_hyphens=False) or [""] for cell in row]
        rows += list(zip_longest(*lines, fillvalue=""))
    return pd.DataFrame(rows, columns=shown.columns)


def _text(shown: pd.DataFrame) -> str:
    columns = [_text_column(str(heading), list(cells)) for heading, cells in shown.items()]
    depth = max(map(len, columns))
    columns = [[" " * len(column[0])] * (depth - len(column)) + column for column in columns]
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def _text_column(heading: str, cells: list[str]) -> list[str]:
    """The heading in lines, a rule and the cells, all of the same width."""
    # A number belongs to the word before it.
    heading = re.sub(r"(at|\() ", "\\1\u00a0", heading).replace("% ", "%\u00a0")
    width = max(1, *map(len, [*heading.split(" "), *cells]))
    lines = [line.replace("\u00a0", " ") for line in textwrap.wrap(heading, width, break_on_hyphens=False)]
    return [line.ljust(width) for line in [*lines, "-" * width, *cells]]


def markdown(frame: pd.DataFrame) -> str:
    """A table as GitHub Markdown, for people; no text in a cell can break the table."""
    shown = readable(frame).rename(columns=_markdown_cell).map(_markdown_cell)
    rows = [shown.columns, ["---"] * len(shown.columns), *shown.to_numpy()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _markdown_cell(text: str) -> str:
    # A sign of inequality before a number is no tag.
    return re.sub(r"([\\`*_~$&\[\]|#]|<(?! ))", r"\\\1", text)


def latex(frame: pd.DataFrame) -> str:
    """A table as LaTeX (package booktabs), for people; special characters in texts are escaped."""
    shown = readable(frame)
    body = shown.to_latex(index=False, escape=True, column_format="l" * len(shown.columns))
    # Inequality signs are other characters outside mathematics in the older font encodings.
    return body.replace("> ", "$>$ ").replace("< ", "$<$ ")


def csv(frame: pd.DataFrame) -> str:
    """Return a table as CSV, with numbers as they are.

    A spreadsheet does not evaluate any text of it as a formula: an apostrophe is put before the first character if this is one of
    = + - @, a tab or a line break and the text is not a number.
    """
    shown = frame.rename(columns=_no_formula)
    for place, kind in enumerate(shown.dtypes):
        if kind.kind == "O":
            shown.isetitem(place, shown.iloc[:, place].map(_no_formula).array)
    return str(shown.to_csv(index=False, lineterminator="\n"))


def _no_formula(value: Any) -> Any:
    if not isinstance(value, str) or not re.match(r"\s*[=+\-@＝＋－＠]|[\t\r\n]", value):
        return value
    with contextlib.suppress(ValueError):
        float(value)
        return value
    return f"'{value}"


def write_table(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a table as .csv (numbers as they are), .md or .tex (for people).

    Parameters
    ----------
    frame : DataFrame
        From `plan_table` or `summary_table`, or any other.
    path : str or Path
        The ending decides the format. The file is replaced whole, or not at all. In a .csv file, an apostrophe precedes text that
        a spreadsheet would evaluate as a formula.

    Raises
    ------
    ParameterError
        If `frame` is not a DataFrame, or the ending is none of the three.
    FileError
        If the file cannot be written. The table is then in another folder, which the error names.

    Examples
    --------
    >>> import pandas as pd
    >>> import bayesdistill as bd
    >>> bd.write_table(pd.DataFrame({"a": [1]}), "table.csv")  # doctest: +SKIP
    """
    if not isinstance(frame, pd.DataFrame):
        raise ParameterError(f"`frame` must be a DataFrame, got {type(frame).__name__}.")
    suffix = Path(str(path)).suffix
    writers: dict[str, Callable[[pd.DataFrame], str]] = {
        ".csv": csv,
        ".md": markdown,
        ".tex": latex,
    }
    if suffix not in writers:
        raise ParameterError(f"`path` must end in one of {', '.join(writers)}, got {str(path)!r}.")
    write_file(path, writers[suffix](frame).encode(errors="backslashreplace"), keep=True)
