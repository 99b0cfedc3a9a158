"""Numbers of tables as short strings, and their columns under headings with units.

`columns.csv` declares the heading and the format of every column. The format is a name in `FORMATS` or a Python format string. A
column `x_median` stands for three columns: `x_lower`, `x_median` and `x_upper`. Other columns are shown as text under their own name.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from importlib.resources import files
from itertools import repeat
from typing import Any

import pandas as pd

from bayesdistill import posterior
from bayesdistill.plots.style import power_of_ten, short

Format = Callable[[Any], str]
_RANGE = ("probability_lowest", "probability_highest")
"""Columns of a range over laws, which is shown beside the probability."""


ABOUT_ZERO = "about 0"
_WORTH = {"gain": "expected_gain", "regret": "regret", "evpi": "evpi", "evsi": "evsi", "evppi": "evppi"}
"""Values that have a Monte Carlo error: stem of their columns, in nats or converted, and the column in nats."""
_SHARED = ("budget", "target")
"""Columns that a caption replaces if all rows have the same value."""
_HIDDEN_ERRORS = ("gain_mcse", "regret_mcse", "evpi_mcse")


def _number(value: float, form: Format = "{:.3g}".format) -> str:
    return "infinite" if math.isinf(value) else form(value)


def amount(value: float) -> str:
    """Format an amount of money with three digits, without powers of ten below a billion."""
    if abs(value) < 0.005:
        return "0" if value == 0 else ABOUT_ZERO
    if abs(value) >= 1e9:
        return f"{value:.2e}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{round(value, 2 - math.floor(math.log10(abs(value)))):,.{digits}f}"


FORMATS: Mapping[str, Format] = {
    "text": str,
    "words": lambda value: str(value).replace("_", " "),
    "yes or no": lambda value: "yes" if value else "no",
    "chance": posterior.tenths,
    "size": short,
    "size or infinite": lambda value: _number(value, short),
    "size or loss": lambda value: short(value) if value > 1e3 else f"{value:.3f}",
    "power of ten": power_of_ten,
    "power or infinite": lambda value: _number(value, power_of_ten),
    "amount": lambda value: _number(value, amount),
    "number": _number,
    "tiny": lambda value: "0" if value == 0 else f"{value:.1e}",
    "position": lambda value: str(value) if value else "-",
}
COLUMNS: Mapping[str, tuple[str, Format]] = {
    row["column"]: (row["heading"], FORMATS.get(row["format"], row["format"].format))
    for row in csv.DictReader(files(__package__).joinpath("columns.csv").read_text(encoding="utf-8").splitlines())
}
"""Column -> (heading, function that formats a value)."""


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of this package as short strings under headings with units.

    Parameters
    ----------
    frame : DataFrame
        From `plan_table`, `summary_table` or `decision_table`. Columns that are not known are kept, as text.

    Returns
    -------
    DataFrame
        Strings. Three columns of a median and an interval become one, `median (lower to upper)`; so do a probability and its range
        over laws (without the range if it rounds to the probability), and the two of the budgets inside the data. Probabilities have
        one decimal, because laws that predict equally well differ by tenths. What is missing is a dash.
    """
    prob = frame.attrs.get("interval_prob", posterior.INTERVAL_PROBABILITY)
    currency = frame.attrs.get("currency", "money")
    out: dict[str, list[str]] = {}
    for column, values in frame.items():
        name = str(column)
        stem, _, part = name.rpartition("_")
        if (
            name == "inside_to"
            or name.startswith(_RANGE)
            or name in _HIDDEN_ERRORS
            or (part in ("lower", "upper") and f"{stem}_median" in COLUMNS)
        ):
            continue
        heading, form = COLUMNS.get(name, (name, str))
        if name == "loss_median" and "supervised_loss_median" in frame:
            form = COLUMNS["supervised_loss_median"][1]  # losses that are compared have the same digits
        if name == "inside_from":
            ends = zip(values, frame["inside_to"], strict=True)
            cells = [_span(form, low, high) for low, high in ends]
        elif part == "median" and name in COLUMNS:
            heading = f"{heading} ({100 * prob:.0f}% interval)"
            form = _crossover_bound(frame.attrs) if name == "crossover_median" else form
            cells = list(map(_interval, repeat(form), frame[f"{stem}_lower"], values, frame[f"{stem}_upper"]))
        else:
            if name.startswith("probability at "):
                heading, form = name.replace("probability", "P", 1), posterior.tenths
            cells = [_or_dash(value, form) for value in values.tolist()]
            cells = [ABOUT_ZERO if zero else cell for zero, cell in zip(_within_error(frame, name), cells, strict=True)]
            lowest, highest = (frame.get(name.replace("probability", stem, 1)) for stem in _RANGE)
            if name.startswith("probability") and lowest is not None and highest is not None:
                heading = f"{heading} (range over laws)"
                cells = list(map(_with_range, cells, lowest, highest))
        out[one_line(heading.replace("[money]", f"[{currency}]"))] = list(map(one_line, cells))
    return pd.DataFrame(out)


def without_constant(frame: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """Return what all rows of a table share as text, such as "budget: 1e21 FLOPs", and the table without these columns."""
    shared = [
        name for name in _SHARED if name in frame and len(frame) > 1 and (frame[name] == frame[name].iloc[0]).all()
    ]
    texts = []
    for name in shared:
        heading, form = COLUMNS[name]
        label, _, unit = heading.rstrip("]").partition(" [")
        texts.append(f"{label}: {form(frame[name].iloc[0])} {unit}")
    return ", ".join(texts), frame.drop(columns=shared)


def _span(form: Format, low: float, high: float) -> str:
    if math.isnan(low):
        return "nowhere"
    return form(low) if low == high else f"{form(low)} to {form(high)}"


def _within_error(frame: pd.DataFrame, name: str) -> list[bool]:
    """Return which values of a column are 0 within two Monte Carlo errors, and not exactly 0."""
    stem = next((stem for stem, nats in _WORTH.items() if name == nats or name.startswith(f"{stem}_")), "")
    nats, error = (frame.get(column) for column in (_WORTH.get(stem), f"{stem}_mcse"))
    if nats is None or error is None or name.endswith(("_mcse", "_share")):
        return [False] * len(frame)
    return [0 < abs(value) <= 2 * mcse for value, mcse in zip(nats, error, strict=True)]


def one_line(text: str) -> str:
    """Return text without line breaks and characters that control a terminal."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _or_dash(value: Any, form: Format) -> str:
    return "-" if value is None or (isinstance(value, float) and math.isnan(value)) else form(value)


def _with_range(cell: str, low: float, high: float) -> str:
    ends = posterior.tenths(low), posterior.tenths(high)
    return cell if math.isnan(low) or {cell} == {*ends} else f"{cell} ({ends[0]} to {ends[1]})"


def _interval(form: Format, low: float, middle: float, high: float) -> str:
    if math.isnan(middle):
        return "-"
    return form(middle) if form(low) == form(high) else f"{form(middle)} ({form(low)} to {form(high)})"


def _crossover_bound(attrs: Mapping[Any, Any]) -> Format:
    """0 and infinity say that there is no crossover within the budgets."""

    def bound(value: float) -> str:
        if value == 0:
            return f"< {power_of_ten(attrs['lowest_budget'])}" if "lowest_budget" in attrs else "below"
        if math.isinf(value):
            return f"> {power_of_ten(attrs['highest_budget'])}" if "highest_budget" in attrs else "beyond"
        return power_of_ten(value)

    return bound
