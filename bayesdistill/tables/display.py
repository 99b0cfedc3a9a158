"""How an answer is displayed in a notebook and in a terminal: title, table, what is hidden, and warnings."""

from __future__ import annotations

import html

import pandas as pd
import xarray as xr

from bayesdistill.errors import BayesdistillError
from bayesdistill.tables._decision_table import decision_table, kind_of
from bayesdistill.tables._plan_table import plan_table, summary_table
from bayesdistill.tables._write_table import table_text
from bayesdistill.tables.formatting import readable

_MOST_CELLS = 8  # of a plan; with more of them it is shown in summary
_MOST_ROWS = 24
_ONE_LINE = 32  # characters of a cell, enough for a scenario or an interval
_OF_A_CELL = """
    student scenario students_per_teacher budget tokens probability expected_gain regret teacher_params teacher_tokens
    student_tokens status extrapolates
"""
_AXES = ("student", "scenario", "budget")
_PLAN = "Probability that distillation beats pretraining"


def display_text(found: xr.Dataset) -> str | None:
    """An answer as lines of text; None if it lacks what its table needs."""
    shown = _shown(found)
    if shown is None:
        return None
    title, frame, table_of = shown
    table = table_text(frame.head(_MOST_ROWS))
    return "\n".join([title, "", table, "", *_warnings(found), _footer(found, frame, table_of)])


def display_html(found: xr.Dataset, dataset: str) -> str | None:
    """An answer as HTML with the display of its Dataset folded below; None if it lacks what its table needs."""
    shown = _shown(found)
    if shown is None:
        return None
    title, frame, table_of = shown
    cells = readable(frame.head(_MOST_ROWS)).map(_unbroken)
    table = cells.to_html(index=False, border=0, justify="left")
    warnings = "".join(f"<p><strong>{html.escape(text)}</strong></p>" for text in _warnings(found))
    return (
        f"<p><strong>{html.escape(title)}</strong></p>{warnings}"
        f'<div style="overflow-x: auto">{table}</div>'
        f"<details><summary>{html.escape(_footer(found, frame, table_of))}</summary>{dataset}</details>"
    )


def _unbroken(cell: str) -> str:
    """Numbers, intervals and names stay on one line."""
    return cell.replace(" ", "\u00a0") if len(cell) <= _ONE_LINE else cell


def _shown(found: xr.Dataset) -> tuple[str, pd.DataFrame, str] | None:
    """(title, table, function that gives all of the table), or None."""
    kind = kind_of(found)
    lost = [name for name in _AXES if name in found.coords and name not in found.dims]
    try:
        if kind is not None:
            frame = decision_table(found)
            if kind.marker == "evppi_share":
                frame = frame.sort_values("evppi", ascending=False, kind="stable", ignore_index=True)
            frame = frame.drop(columns=["loss_mean", "loss_sd"], errors="ignore")
            return kind.title or found.attrs["title"], frame, "decision_table"
        found = found.expand_dims(lost)  # one student of a plan is a plan of one student
        cells = plan_table(found)
        if len(cells) > _MOST_CELLS and "crossover" in found and "budget" not in lost:
            return f"{_PLAN}, and the crossover", summary_table(found), "plan_table"
        if cells["status"].eq("ok").all():
            cells = cells.drop(columns="status")
        return _PLAN, cells[[name for name in _OF_A_CELL.split() if name in cells]], "plan_table"
    except (BayesdistillError, AttributeError, LookupError, TypeError, ValueError):
        return None  # a part that has lost what the table needs; a display must not fail


def _warnings(found: xr.Dataset) -> list[str]:
    if found.attrs.get("converged") != "no":
        return []
    return ["The posterior did not converge, so these numbers may be wrong."]


def _footer(found: xr.Dataset, frame: pd.DataFrame, table_of: str) -> str:
    hidden = len(frame) - _MOST_ROWS
    more = f"{hidden} more row{'s' if hidden > 1 else ''}. " if hidden > 0 else ""
    sizes = ", ".join(f"{name} {size}" for name, size in found.sizes.items())
    return f"{more}All numbers: bd.{table_of}(...). An xarray Dataset of {len(found.data_vars)} variables over {sizes}"
