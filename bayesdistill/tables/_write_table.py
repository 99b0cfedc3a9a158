"""Tables written down: for the terminal, as Markdown, as LaTeX, as CSV."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bayesdistill.errors import ParameterError
from bayesdistill.files import replacing
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
    shown = readable(frame)
    columns = []
    for name in shown.columns:
        values = [str(value) for value in shown[name]]
        width = max([len(value) for value in values] + [len(word) for word in _words(name)])
        lines = _fill(_words(name), width)
        columns.append((lines, values, width))
    depth = max(len(lines) for lines, _, _ in columns)
    text = []
    for i in range(depth):
        cells = [([""] * (depth - len(lines)) + lines)[i].ljust(width) for lines, _, width in columns]
        text.append("  ".join(cells).rstrip())
    text.append("  ".join("-" * width for _, _, width in columns))
    text += ["  ".join(values[i].ljust(width) for _, values, width in columns).rstrip() for i in range(len(shown))]
    return "\n".join(text)


def _words(heading: str) -> list[str]:
    # A number belongs to the word before it.
    return re.sub(r"(at|\() ", "\\1\u00a0", heading).replace("% ", "%\u00a0").split(" ")


def _fill(words: Sequence[str], width: int) -> list[str]:
    lines = [""]
    for word in words:
        joined = f"{lines[-1]} {word}".strip()
        if len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return [line.replace("\u00a0", " ") for line in lines]


def markdown(frame: pd.DataFrame) -> str:
    """A table as GitHub Markdown, for people; whatever the texts contain, no cell can break the table."""
    shown = readable(frame)
    lines = [_row(shown.columns), _row(["---"] * len(shown.columns), escape=False)]
    lines += [_row(values) for values in shown.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def _row(cells: Any, *, escape: bool = True) -> str:
    texts = [_escape_markdown(str(cell)) if escape else cell for cell in cells]
    return f"| {' | '.join(texts)} |"


def _escape_markdown(text: str) -> str:
    joined = " ".join(text.split())
    # A sign of inequality before a number is no tag.
    return re.sub(r"([\\`*_\[\]|#]|<(?! ))", r"\\\1", joined)


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
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")
