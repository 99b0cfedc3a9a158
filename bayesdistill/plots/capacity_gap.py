"""The capacity gap: student loss against the teacher, a U shape, with its uncertainty."""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill import posterior
from bayesdistill.plots import collection, grids, style, visuals


@collection.documented
def plot_capacity_gap(gap: xr.Dataset, *, prob: float = grids.PROB, size: str = "page", dark: bool = False) -> Figure:
    """Student loss against the teacher's loss or size, and the probability that a stronger teacher would be worse.

    Parameters
    ----------
    gap : Dataset
        What `capacity_gap` returns: distilled_loss and supervised_loss with chain and draw, best_teacher,
        probability_stronger_worse and extrapolates over student, training and the teachers' axis.
    {prob}
    {size}

    Returns
    -------
    Figure
        A pair of panels for each length of the students' training, a color per student.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import numpy as np, xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> gap = bd.capacity_gap(
    ...     published, "300M", student_tokens_per_param=20, teacher_losses=list(np.linspace(1.9, 2.7, 41))
    ... )
    >>> bd.plot_capacity_gap(gap).savefig("capacity_gap.png")  # doctest: +SKIP
    """
    with collection.drawing("capacity_gap", gap, size, dark) as (plot, _, legend):
        names, kept = (
            ["distilled_loss", "supervised_loss", "best_teacher"],
            ["probability_stronger_worse", "extrapolates"],
        )
        shown = grids.summaries(gap, names, prob, keep=kept)
        cells = [(training_words(value), shown.sel(training=value)) for value in gap["training"]]
        colors = plot.sizes(gap["student"])
        for (top, bottom), cell in plot.facets(cells, x="teacher", over="student"):
            for student, color in colors.items():
                one = cell.sel(student=student)
                draw_gap(top, one, color)
                visuals.level(top, one["supervised_loss"], color, 0.8, linestyle=":", zorder=1.5)
                visuals.reach_line(bottom, "teacher", one, "probability_stronger_worse", color)
            visuals.level(bottom, 0.5)
            bottom.set_ylim(-0.05, 1.05)
        gap_legend(legend, prob)
        side = "right" if gap.attrs.get("teacher_axis") == "params" else "left"
        return plot.finish(at_the_end(gap), teacher=teacher_label(gap), teachers=teacher_words(gap), side=side)


def training_words(training: xr.DataArray) -> str:
    """Return how long the students of a panel are trained, in words."""
    value = float(training)
    words = {"FLOPs": f"for {style.power_of_ten(value)} FLOPs", "tokens": f"on {style.short(value)} tokens"}
    unit = training.attrs.get("units", "1")
    return f"students trained {words[unit]}" if unit in words else f"students at {value:g} tokens per parameter"


def teacher_label(gap: xr.Dataset) -> str:
    """Return the label of the teachers' axis."""
    by_size = gap.attrs.get("teacher_axis") == "params"
    return "teacher size [non-embedding parameters]" if by_size else "teacher loss [nats per token]"


def draw_gap(ax: Axes, shown: xr.Dataset, color: object) -> None:
    """Draw the student's loss along the teachers, and median and interval of the best teacher at the height of the curve."""
    visuals.curve(ax, "teacher", shown, "distilled_loss", color)
    middle, low, high = (float(shown[f"best_teacher{end}"]) for end in ("", "_lower", "_upper"))
    height, look = float(shown["distilled_loss"].sel(teacher=middle, method="nearest")), visuals.look_of(ax)
    visuals.line(ax, [low, high], [height] * 2, color, 1.2, zorder=5, marker="|", markersize=2.5 * look.marker)
    visuals.points(ax, middle, height, color, 2.2, markeredgecolor=look.paper, edge=0.5, zorder=6)


def gap_legend(
    legend: collection.Legend, prob: float, color: str | None = None, whose: str = "for every student"
) -> None:
    """Add what `draw_gap` draws, and the loss of pretrained students in `color`."""
    legend.band(f"{style.percent(prob)} interval of the law")
    legend.line("pretrained on the same tokens", color, linestyle=":")
    legend.line(f"best teacher: median, {style.percent(prob)} interval", marker="o")
    legend.reach(whose=whose)


def at_the_end(gap: xr.Dataset) -> list[str]:
    """Return a sentence where a median best teacher is the first or last of the axis: the best may not have been looked at."""
    at_end = (
        posterior.median(gap["best_teacher"]).isin([gap["teacher"].values.min(), gap["teacher"].values.max()]).any()
    )
    return ["A best teacher at an end of the axis may lie beyond it."] if at_end else []


def teacher_words(gap: xr.Dataset) -> str:
    """Return how long the teachers were trained, where that is one number for all."""
    if "teacher_tokens_per_param" in gap.attrs:
        return f"Teachers are trained on {gap.attrs['teacher_tokens_per_param']:g} tokens per parameter. "
    if "teacher_budget" in gap.attrs:
        return f"Teachers are trained for {style.power_of_ten(gap.attrs['teacher_budget'])} FLOPs each. "
    return ""
