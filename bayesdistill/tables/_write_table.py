"""Tables written down: for the terminal, as Markdown, as LaTeX, as CSV."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from bayesdistill.errors import ParameterError
from bayesdistill.files import write_file
from bayesdistill.tables.formatting import readable


def table_text(frame: pd.DataFrame) -> str:
    """A table for the terminal: aligned columns, headings broken where they are wider than what stands below them.

    Parameters
    ----------
    frame : DataFrame
        What `plan_table` or `summary_table` returned, or any other.

    Returns
    -------
    str
        Lines of text.

    Examples
    --------
    >>> import bayesdistill as bd, pandas as pd
    >>> print(bd.table_text(pd.DataFrame({"student": [1e9], "probability": [0.93]})).splitlines()[-1])
    1B       0.93
    """
    columns = [_text_column(str(heading), list(cells)) for heading, cells in readable(frame).items()]
    depth = max(map(len, columns))
    columns = [[" " * len(column[0])] * (depth - len(column)) + column for column in columns]
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def _text_column(heading: str, cells: list[str]) -> list[str]:
    """The heading in lines, a rule and the cells, all of the same width."""
    # A number belongs to the word before it.
    heading = re.sub(r"(at|\() ", "\\1\u00a0", heading).replace("% ", "%\u00a0")
    width = max(map(len, [*heading.split(" "), *cells]))
    lines = [line.replace("\u00a0", " ") for line in textwrap.wrap(heading, width, break_on_hyphens=False)]
    return [line.ljust(width) for line in [*lines, "-" * width, *cells]]


def markdown(frame: pd.DataFrame) -> str:
    """A table as GitHub Markdown, for people; whatever the texts contain, no cell can break the table."""
    shown = readable(frame).rename(columns=_markdown_cell).map(_markdown_cell)
    rows = [shown.columns, ["---"] * len(shown.columns), *shown.to_numpy()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _markdown_cell(text: Any) -> str:
    # A sign of inequality before a number is no tag.
    return re.sub(r"([\\`*_\[\]|#]|<(?! ))", r"\\\1", _one_line(text))


def latex(frame: pd.DataFrame) -> str:
    """A table as LaTeX (package booktabs), for people; special characters in texts are escaped."""
    shown = readable(frame).rename(columns=_one_line).map(_one_line)
    body = shown.to_latex(index=False, escape=True, column_format="l" * len(shown.columns))
    # Inequality signs are other characters outside mathematics in the older font encodings.
    return body.replace("> ", "$>$ ").replace("< ", "$<$ ")


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())


def write_table(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a table as .csv (numbers as they are), .md or .tex (for people).

    Parameters
    ----------
    frame : DataFrame
        From `plan_table` or `summary_table`, or any other.
    path : str or Path
        The ending decides the format. The file is replaced whole, or not at all.

    Raises
    ------
    ParameterError
        If the ending is none of the three.
    FileError
        If the file cannot be written.

    Examples
    --------
    >>> import pandas as pd
    >>> import bayesdistill as bd
    >>> bd.write_table(pd.DataFrame({"a": [1]}), "table.csv")  # doctest: +SKIP
    """
    path = Path(path)
    writers: dict[str, Callable[[pd.DataFrame], str]] = {
        ".csv": lambda table: table.to_csv(index=False, lineterminator="\n"),
        ".md": markdown,
        ".tex": latex,
    }
    if path.suffix not in writers:
        raise ParameterError(
            f"path: {path.name} ends in none of {', '.join(writers)}, so that no format is known for it"
        )
    text = writers[path.suffix](frame)
    write_file(path, text.encode(), keep=True)
