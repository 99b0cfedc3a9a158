"""Plans as tables: DataFrames of numbers, and the same for people as text, Markdown and LaTeX.

`plan_table` and `summary_table` return numbers in the units of the plan; `readable` turns them into short strings with
headings; `table_text` and `write_table` write them down. Nothing is computed here but selections: medians, intervals and
probabilities come from `posterior`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import posterior
from bayesdistill.errors import ParameterError
from bayesdistill.files import replacing
from bayesdistill.plots.grids import crossover_summary, need
from bayesdistill.plots.style import power_of_ten, short

_PER_CELL = (
    "probability",
    "probability_mcse",
    "probability_best",
    "expected_gain",
    "expected_gain_mcse",
    "regret",
    "evpi",
    "teacher_params",
    "teacher_tokens",
    "student_tokens",
)
_OUTCOMES = ("crossed", "always", "never", "reversed", "impossible")
_MOST_BUDGETS = 4


def plan_table(plan: xr.Dataset) -> pd.DataFrame:
    """One row per student, scenario and budget.

    Parameters
    ----------
    plan : Dataset
        What `plan` returns.

    Returns
    -------
    DataFrame
        student, teacher_params (parameters); budget (FLOPs); probability, probability_mcse, probability_best;
        expected_gain, expected_gain_mcse, regret, evpi, teacher_loss (posterior mean; nats per token); teacher_tokens,
        student_tokens (tokens); status (words), extrapolates (booleans). NaN where no strategy fits the budget.

    Raises
    ------
    ParameterError
        If the Dataset is no plan.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()})
    >>> table = bd.plan_table(bd.plan(published, "1B", [1e20, 1e21], "best case"))
    >>> table[["scenario", "budget", "probability"]].values.tolist()
    [['best case', 1e+20, 1.0], ['best case', 1e+21, 1.0]]
    """
    need(plan, [*_PER_CELL, "teacher_loss", "status", "extrapolates"], "plan", "plan()")
    cells = plan[[*_PER_CELL, "extrapolates"]].reset_coords(drop=True)
    cells["teacher_loss"] = posterior.mean(plan["teacher_loss"])
    names = np.array(plan["status"].attrs["flag_meanings"].split())
    cells["status"] = plan["status"].copy(data=names[plan["status"].values])
    frame = cells.to_dataframe(dim_order=["student", "scenario", "budget"]).reset_index()
    order = [
        "student",
        "scenario",
        "budget",
        *_PER_CELL[:9],
        "teacher_loss",
        "student_tokens",
        "status",
        "extrapolates",
    ]
    return frame[order]


def summary_table(
    plan: xr.Dataset, *, budgets: Sequence[float] | None = None, prob: float = posterior.INTERVAL_PROBABILITY
) -> pd.DataFrame:
    """One row per student and scenario: the probability at a few budgets, and the crossover.

    Parameters
    ----------
    plan : Dataset
        What `plan` returns.
    budgets : sequence of float, optional
        FLOPs; the plan's nearest ones (on a log scale) are taken. By default four, evenly spread over the plan's.
    prob : float
        Probability inside the equal-tailed interval of the crossover.

    Returns
    -------
    DataFrame
        student (parameters), scenario, `probability at 1e21` and so on; crossover_median, crossover_lower,
        crossover_upper (FLOPs; infinite if beyond the plan's highest budget, 0 if below its lowest); the probability of
        each outcome: crossed, always (distillation ahead throughout), never (pretraining ahead throughout), reversed
        (distillation ahead at the highest budget, but not at first), impossible (left out if it does not occur);
        inside_from, inside_to: lowest and highest budget that is no extrapolation (NaN if there is none). The plan's
        lowest and highest budget are attributes.

    Raises
    ------
    ParameterError
        If the Dataset is no plan, or a budget is not positive.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()})
    >>> table = bd.summary_table(bd.plan(published, "1B", [1e20, 1e21], "best case"))
    >>> table["probability at 1e20"].tolist()
    [1.0]
    """
    need(plan, ["probability", "crossover", "crossover_status", "extrapolates"], "plan", "plan()")
    grid = plan["budget"].values
    chosen = grid[_positions(grid, budgets)]
    lowest, highest = float(grid.min()), float(grid.max())
    meanings = plan["crossover_status"].attrs["flag_meanings"].split()
    codes = plan["crossover_status"].attrs["flag_values"]
    shares = {
        name: posterior.probability(plan["crossover_status"] == code)[0]
        for name, code in zip(meanings, np.atleast_1d(codes), strict=True)
    }
    crossing = crossover_summary(plan["crossover"], plan["crossover_status"], lowest, highest, prob)
    labels = [power_of_ten(budget) for budget in chosen]
    if len(set(labels)) < len(labels):
        labels = [f"{budget:.6g}" for budget in chosen]
    rows = []
    for student in plan["student"].values:
        for scenario in plan["scenario"].values:
            at = {"student": student, "scenario": scenario}
            row: dict[str, Any] = {"student": float(student), "scenario": str(scenario)}
            for label, budget in zip(labels, chosen, strict=True):
                row[f"probability at {label}"] = float(plan["probability"].sel({**at, "budget": budget}))
            for key in ("lower", "median", "upper"):
                value = float(crossing[key].sel(at))
                row[f"crossover_{key}"] = 0.0 if value < lowest else math.inf if value > highest else value
            for name in _OUTCOMES:
                row[name] = float(shares[name].sel(at))
            inside = grid[~plan["extrapolates"].sel(at).values & np.isfinite(plan["probability"].sel(at).values)]
            row["inside_from"] = float(inside.min()) if inside.size else math.nan
            row["inside_to"] = float(inside.max()) if inside.size else math.nan
            rows.append(row)
    frame = pd.DataFrame(rows)
    if not frame["impossible"].any():
        frame = frame.drop(columns="impossible")
    frame.attrs = {"lowest_budget": lowest, "highest_budget": highest, "interval_prob": prob}
    return frame


def _positions(grid: np.ndarray, budgets: Sequence[float] | None) -> np.ndarray:
    if budgets is None:
        count = min(_MOST_BUDGETS, grid.size)
        return np.unique(np.round(np.linspace(0, grid.size - 1, count)).astype(int))
    wanted = np.atleast_1d(np.asarray(budgets, dtype=float))
    if not wanted.size or not (np.isfinite(wanted) & (wanted > 0)).all():
        raise ParameterError(f"budgets: {budgets!r} are not positive numbers of FLOPs")
    nearest = [int(np.argmin(np.abs(np.log(grid / value)))) for value in wanted]
    return np.array(list(dict.fromkeys(nearest)))


# For people ---------------------------------------------------------------------------------------------------------


def _chance(value: float) -> str:
    # Two decimals, but never a certainty that no finite number of draws can give.
    if value > 0.995:
        return "> 0.99"
    return "< 0.01" if value < 0.005 else f"{value:.2f}"


def _nats(value: float) -> str:
    return f"{value:+.4f}"


_FORMATS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "student": ("student", short),
    "scenario": ("scenario", str),
    "budget": ("budget [FLOPs]", power_of_ten),
    "probability": ("P(distillation ahead)", _chance),
    "probability_mcse": ("MC error", lambda value: f"{value:.3f}"),
    "probability_best": ("P(best strategy ahead)", _chance),
    "expected_gain": ("gain [nats]", _nats),
    "expected_gain_mcse": ("MC error of gain [nats]", lambda value: f"{value:.1e}"),
    "regret": ("regret [nats]", lambda value: f"{value:.1e}"),
    "evpi": ("EVPI [nats]", lambda value: f"{value:.1e}"),
    "teacher_params": ("teacher", short),
    "teacher_tokens": ("teacher tokens", short),
    "teacher_loss": ("teacher loss [nats]", lambda value: f"{value:.3f}"),
    "student_tokens": ("student tokens", short),
    "status": ("status", lambda value: str(value).replace("_", " ")),
    "extrapolates": ("extrapolates", lambda value: "yes" if value else "no"),
    "crossed": ("P(crosses)", _chance),
    "always": ("P(always ahead)", _chance),
    "never": ("P(never ahead)", _chance),
    "reversed": ("P(ahead later)", _chance),
    "impossible": ("P(no strategy)", _chance),
}
_AT = re.compile(r"probability at (.+)")


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of this module as short strings under headings with units.

    Parameters
    ----------
    frame : DataFrame
        From `plan_table` or `summary_table`. Columns that this module does not know are kept, as text.

    Returns
    -------
    DataFrame
        Strings. The three columns of the crossover become one, `median (lower to upper)`; so do the two of the budgets
        inside the data. What is missing is a dash.
    """
    out: dict[str, list[str]] = {}
    for name in frame.columns:
        values = frame[name].tolist()
        at = _AT.fullmatch(str(name))
        if name in ("crossover_lower", "crossover_upper", "inside_to"):
            continue
        if name == "crossover_median":
            prob = frame.attrs.get("interval_prob", posterior.INTERVAL_PROBABILITY)
            out[f"crossover [FLOPs] ({100 * prob:.0f} % interval)"] = _crossovers(frame)
        elif name == "inside_from":
            ends = zip(values, frame["inside_to"].tolist(), strict=True)
            out["inside the data [FLOPs]"] = [
                "nowhere" if math.isnan(low) else f"{power_of_ten(low)} to {power_of_ten(high)}" for low, high in ends
            ]
        elif at:
            out[f"P at {at.group(1)}"] = [_or_dash(value, _chance) for value in values]
        else:
            heading, form = _FORMATS.get(str(name), (str(name), str))
            out[heading] = [_or_dash(value, form) for value in values]
    return pd.DataFrame(out)


def _or_dash(value: Any, form: Callable[[Any], str]) -> str:
    return "-" if value is None or (isinstance(value, float) and math.isnan(value)) else form(value)


def _crossovers(frame: pd.DataFrame) -> list[str]:
    def bound(value: float) -> str:
        if value == 0:
            return f"< {power_of_ten(frame.attrs['lowest_budget'])}" if "lowest_budget" in frame.attrs else "below"
        if math.isinf(value):
            return f"> {power_of_ten(frame.attrs['highest_budget'])}" if "highest_budget" in frame.attrs else "beyond"
        return power_of_ten(value)

    found = []
    for _, row in frame.iterrows():
        low, middle, high = (row[f"crossover_{key}"] for key in ("lower", "median", "upper"))
        if math.isnan(middle):
            found.append("-")
        elif bound(low) == bound(high):
            found.append(bound(middle))
        else:
            found.append(f"{bound(middle)} ({bound(low)} to {bound(high)})")
    return found


def table_text(frame: pd.DataFrame) -> str:
    """A table for the terminal: aligned columns, headings broken where they are wider than what stands below them."""
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
