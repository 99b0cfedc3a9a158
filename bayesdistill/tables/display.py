"""How an answer is displayed in a notebook and in a terminal: title, table, what is hidden, and warnings."""

from __future__ import annotations

import html
import json
from typing import NamedTuple

import pandas as pd
import xarray as xr

from bayesdistill import posterior
from bayesdistill.errors import BayesdistillError
from bayesdistill.plots.grids import changes_note, target_sentences, undetermined_note
from bayesdistill.tables._decision_table import decision_table, kind_of
from bayesdistill.tables._plan_table import plan_table, summary_table
from bayesdistill.tables._write_table import table_text
from bayesdistill.tables.formatting import readable, without_constant

MOST_CELLS = 8  # of a plan; with more of them it is shown in summary
_MOST_ROWS = 24
_MOST_SENTENCES = 4
_ONE_LINE = 32  # characters of a cell, enough for a scenario or an interval
_OF_A_CELL = """
    student scenario students_per_teacher budget tokens probability probability_lowest probability_highest expected_gain
    distilled_loss_lower distilled_loss_median distilled_loss_upper supervised_loss_lower supervised_loss_median supervised_loss_upper
    regret laws_agree teacher_params teacher_tokens student_tokens pretraining_tokens student_epochs pretraining_epochs teacher_epochs
    student_share teacher_inference_share teacher_training_share status extrapolation extrapolation_axis
"""
_AXES = ("student", "scenario", "budget")
_PLAN = "Probability that distillation beats pretraining"

_OF_LOSSES = """
    student scenario budget distilled_loss_lower distilled_loss_median distilled_loss_upper supervised_loss_lower
    supervised_loss_median supervised_loss_upper teacher_params teacher_tokens student_tokens pretraining_tokens student_epochs
    pretraining_epochs teacher_epochs
    student_share teacher_inference_share teacher_training_share
"""


def loss_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns of the losses, tokens and spending of a plan."""
    return [name for name in _OF_LOSSES.split() if name in frame]


class Shown(NamedTuple):
    """The parts of a display."""

    title: str
    warning: str
    table: pd.DataFrame
    footer: str


def display_text(found: xr.Dataset) -> str | None:
    """An answer as lines of text; None if it lacks what its table needs."""
    shown = _shown(found)
    if shown is None:
        return None
    warning = [shown.warning] if shown.warning else []
    return "\n".join([shown.title, "", table_text(shown.table), "", *warning, shown.footer])


def display_html(found: xr.Dataset, dataset: str) -> str | None:
    """An answer as HTML with the display of its Dataset folded below; None if it lacks what its table needs."""
    shown = _shown(found)
    if shown is None:
        return None
    table = readable(shown.table).map(_unbroken).to_html(index=False, border=0, justify="left")
    above = [f"<p><strong>{html.escape(text)}</strong></p>" for text in (shown.title, shown.warning) if text]
    return (
        f'{"".join(above)}<div style="overflow-x: auto">{table}</div>'
        f"<details><summary>{html.escape(shown.footer)}</summary>{dataset}</details>"
    )


def _unbroken(cell: str) -> str:
    """Numbers, intervals and names stay on one line."""
    return cell.replace(" ", "\u00a0") if len(cell) <= _ONE_LINE else cell


def _shown(found: xr.Dataset) -> Shown | None:
    try:
        title, frame, table_of = _table(found)
    except (BayesdistillError, AttributeError, LookupError, TypeError, ValueError):
        return None  # a part that has lost what the table needs; a display must not fail
    converged = found.attrs.get("converged") != "no"
    warnings = [] if converged else ["The posterior did not converge, so these numbers may be wrong."]
    warnings += [*undetermined_note(found), *changes_note(found)]
    warnings += target_sentences(found) if "cheapest_student" in found else []
    if "served_tokens" in found.coords and found["sentence"].size <= _MOST_SENTENCES:
        warnings += found["sentence"].values.ravel().tolist()
    warnings += posterior.limits_of(found.attrs)
    warnings += json.loads(found.attrs.get("fixed_axes", "{}")).values()
    warnings += [text for text in [found.attrs.get("scenarios_left_out")] if text]
    warning = " ".join([*warnings, *filter(None, [found.attrs.get("suggestion")])])
    hidden = len(frame) - _MOST_ROWS
    more = f"{hidden} more row{'s' if hidden > 1 else ''}. " if hidden > 0 else ""
    sizes = ", ".join(f"{name} {size}" for name, size in found.sizes.items())
    contents = f"An xarray Dataset of {len(found.data_vars)} variables over {sizes}"
    footer = f"{more}All numbers: bd.{table_of}(...). {contents}"
    level = found.attrs.get("noise") if "noise" not in found else None
    shared, frame = without_constant(frame)
    said = "; ".join([f"level: {level}"] * bool(level) + [shared] * bool(shared))
    return Shown(f"{title} ({said})" if said else title, warning, frame.head(_MOST_ROWS), footer)


def _table(found: xr.Dataset) -> tuple[str, pd.DataFrame, str]:
    """(title, table, function that gives all of the table)."""
    kind = kind_of(found)
    if kind is not None:
        frame = decision_table(found)
        if kind.marker == "evppi_share":
            frame = frame.sort_values("evppi", ascending=False, kind="stable", ignore_index=True)
        # The title has the level of uncertainty, unless it is one of the row.
        repeated = ["extrapolates"] if "extrapolation_axis" in frame else []
        repeated += [] if "noise" in found else ["noise"]
        frame = frame.drop(columns=["loss_mean", "loss_sd", *repeated], errors="ignore")
        return kind.title or found.attrs["title"], frame, "decision_table"
    lost = [name for name in _AXES if name in found.coords and name not in found.dims]
    found = found.expand_dims(lost)  # one student of a plan is a plan of one student
    cells = plan_table(found)
    if len(cells) > MOST_CELLS and "crossover" in found and "budget" not in lost:
        return f"{_PLAN}, and the crossover", summary_table(found).drop(columns="noise", errors="ignore"), "plan_table"
    if cells["status"].eq("ok").all():
        cells = cells.drop(columns="status")
    return _PLAN, cells[[name for name in _OF_A_CELL.split() if name in cells]], "plan_table"
