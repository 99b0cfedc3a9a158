"""A family of students with one budget: how the compute is split, and which students to distil."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill.errors import ParameterError
from bayesdistill.plots import grids, style, visuals
from bayesdistill.plots.collection import drawing
from bayesdistill.plots.docstrings import documented

_NEEDED = (
    "student_budget teacher_budget decision decision_probability probability_better expected_loss extrapolates "
    "teacher_extrapolation student option count"
)
_DECISIONS = {"distil": style.OKABE_ITO[0], "pretrain": style.OKABE_ITO[1]}


@documented
def plot_family(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """The split of a family's compute for each option, and how sure each student's decision is.

    Parameters
    ----------
    found : Dataset
        What `family_plan` returns.
    {size}

    {returns}

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> bd.plot_family(bd.family_plan(published, ["300M", "1B"], 1e21)).savefig("family.png")  # doctest: +SKIP
    """
    grids.need(found, _NEEDED, "the argument of plot_family", "family_plan()")
    if "flag_meanings" not in found["decision"].attrs:
        raise ParameterError("decision has no attribute flag_meanings; the Dataset is not what family_plan() returned")
    found = found.sortby("student")
    meanings = found["decision"].attrs["flag_meanings"].split()
    decided = [meanings[int(code)] for code in found["decision"].values]
    with drawing(size, dark) as plot:
        legend, ratios = plot.legend, [found.sizes["option"], found.sizes["student"]]
        top, bottom = plot.panels(2, 1, 0.33 * sum(ratios) + 1.4, height_ratios=ratios)[:, 0]
        colors = style.size_colors(found["student"].values, plot.look)
        _draw_split(top, found, colors)
        _draw_decisions(bottom, found, decided)
        for i, (student, color) in enumerate(colors.items()):
            legend.patch(f"{'' if i else 'student '}{style.short(student)}", color)
        legend.patch("teacher's pretraining", plot.look.neutral)
        for name, color in _DECISIONS.items():
            legend.patch(name, color)
        legend.points("P(this student is better than if all are pretrained)", marker="D")
        chance, error = float(found["probability"]), float(found["probability_mcse"])
        words = (
            f"The plan beats pretraining all with probability {chance:.2f} (Monte Carlo standard error {error:.2f})."
        )
        outside = _outside(found.sel(option="plan"))
        notes = [
            words if "distil" in decided else "The plan is to pretrain all.",
            "Beside each option: the mean loss of the family. Bars below: probability that the plan is better than the best "
            "one with this decision turned round.",
            f"Outside the runs that the posterior has seen: {', '.join(outside)}." if outside else "Not extrapolated.",
        ]
        return plot.finish("A family of students that shares a budget and a teacher", notes, fit=found)


def _outside(plan: xr.Dataset) -> list[str]:
    """Return the students and the teacher of the plan that are extrapolated."""
    names = [style.short(float(student)) for student in plan["student"].values[plan["extrapolates"].values]]
    return names + (["the teacher"] if float(plan["teacher_extrapolation"]) != 1 else [])


def _draw_split(ax: Axes, found: xr.Dataset, colors: dict[float, object]) -> None:
    budgets = [found["student_budget"].sel(student=student).values for student in colors]
    losses = [
        f"{loss:.4f} nats" if feasible else "cannot be paid"
        for loss, feasible in zip(found["expected_loss"].values, found["feasible"].values, strict=True)
    ]
    names = zip(grids.names(found, "option"), losses, strict=True)
    places = visuals.rows(ax, [f"{style.plain(name)}: {loss}" for name, loss in names])
    start = np.zeros(places.size)
    parts = zip(
        [*budgets, found["teacher_budget"].values], [*colors.values(), visuals.look_of(ax).neutral], strict=True
    )
    for amount, color in parts:
        ax.barh(places, np.nan_to_num(amount), 0.7, left=start, color=color, linewidth=0, zorder=2)
        start = start + np.nan_to_num(amount)
    style.small_numbers(ax.xaxis)
    ax.set_xlabel("compute [FLOPs]")
    ax.set_ylabel("option")


def _draw_decisions(ax: Axes, found: xr.Dataset, decided: list[str]) -> None:
    look = visuals.look_of(ax)
    each = zip(found["count"].values, found["student"].values, decided, strict=True)
    places = visuals.rows(ax, [f"{count:g} × {style.short(student)}: {name}" for count, student, name in each])
    colors = [_DECISIONS.get(name, look.neutral) for name in decided]
    ax.barh(places, found["decision_probability"].values, 0.7, color=colors, linewidth=0, zorder=2)
    better = found["probability_better"].values
    visuals.points(ax, better, places, look.ink, 2, marker="D", markeredgecolor=look.paper, clip_on=False, zorder=3)
    visuals.level(ax, 0.5, axis="x", zorder=2.5)
    ax.set_xlim(0, 1.02)
    ax.set_xlabel("probability")
    ax.set_ylabel("student")
