"""A family of students with one budget: how the compute is split, and which students to distill."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill import posterior
from bayesdistill.errors import ParameterError
from bayesdistill.plots import collection, grids, style, visuals

_DECISIONS = {"distill": style.OKABE_ITO[0], "pretrain": style.OKABE_ITO[1]}


@collection.documented
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
    with collection.drawing("family", found, size, dark) as (plot, look, legend):
        if "flag_meanings" not in found["decision"].attrs:
            raise ParameterError(
                "decision has no attribute flag_meanings; the Dataset is not what family_plan() returned"
            )
        found, ratios = found.sortby("student"), [found.sizes["option"], found.sizes["student"]]
        meanings = found["decision"].attrs["flag_meanings"].split()
        decided = [meanings[int(code)] for code in found["decision"].values]
        top, bottom = plot.panels(2, 1, 0.33 * sum(ratios) + 1.4, height_ratios=ratios)[:, 0]
        colors = style.size_colors(found["student"].values, look)
        for i, (student, color) in enumerate(colors.items()):
            legend.patch(f"{'' if i else 'student '}{style.short(student)}", color)
        legend.patch("teacher's pretraining", look.neutral)
        for name, color in _DECISIONS.items():
            legend.patch(name, color)
        legend.points("P(this student is better than if all are pretrained)", marker="D")
        _draw_split(top, found, [*colors.values(), look.neutral])
        _draw_decisions(bottom, found, decided)
        chance = posterior.about(float(found["probability"]), float(found["probability_mcse"]))
        words = f"The plan beats pretraining all with probability {chance}."
        outside = _outside(found.sel(option="plan"))
        seen = (
            f"Outside the runs that the posterior has seen: {', '.join(outside)}." if outside else "Not extrapolated."
        )
        return plot.finish(plan=words if "distill" in decided else "The plan is to pretrain all.", outside=seen)


def _outside(plan: xr.Dataset) -> list[str]:
    """Return the students and the teacher of the plan that are extrapolated."""
    students = [style.short(student) for student in plan["student"].values[plan["extrapolates"].values]]
    return students + (["the teacher"] if float(plan["teacher_extrapolation"]) != 1 else [])


def _draw_split(ax: Axes, found: xr.Dataset, colors: list[object]) -> None:
    """Draw the compute of each student and of the teacher, with a row for each option."""
    each = zip(grids.names(found, "option"), found["expected_loss"].values, found["feasible"].values, strict=True)
    losses = [(style.plain(name), f"{loss:.4f} nats" if paid else "cannot be paid") for name, loss, paid in each]
    places = visuals.rows(ax, [f"{name}: {loss}" for name, loss in losses])
    amounts = [*found["student_budget"].transpose("student", "option").values, found["teacher_budget"].values]
    ends = np.cumsum(np.nan_to_num(amounts), axis=0)
    for start, end, color in zip([np.zeros(places.size), *ends], ends, colors, strict=False):
        visuals.bars(ax, places, end - start, color, left=start)
    style.small_numbers(ax.xaxis)
    ax.set(xlabel="compute [FLOPs]", ylabel="option")


def _draw_decisions(ax: Axes, found: xr.Dataset, decided: list[str]) -> None:
    each = zip(found["count"].values, found["student"].values, decided, strict=True)
    places = visuals.rows(ax, [f"{count:g} × {style.short(student)}: {name}" for count, student, name in each])
    look, colors = visuals.look_of(ax), [_DECISIONS[name] for name in decided]
    visuals.bars(ax, places, found["decision_probability"].values, colors)
    diamonds = {"marker": "D", "markeredgecolor": look.paper, "clip_on": False, "zorder": 3}
    visuals.points(ax, found["probability_better"], places, look.ink, 2, **diamonds)
    visuals.level(ax, 0.5, axis="x", zorder=2.5)
    ax.set(xlim=(0, 1.02), xlabel="probability", ylabel="student")
