"""The capacity gap: student loss against the teacher, a U shape, with its uncertainty."""

from __future__ import annotations

import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill import posterior
from bayesdistill.plots import grids, style
from bayesdistill.plots.style import Look

NEEDED = ("distilled_loss", "supervised_loss", "best_teacher", "probability_stronger_worse", "extrapolates", "training")


def plot_capacity_gap(
    gap: xr.Dataset, *, prob: float = posterior.INTERVAL_PROBABILITY, size: str = "page", dark: bool = False
) -> Figure:
    """Student loss against the teacher's loss or size, and the probability that a stronger teacher would be worse.

    Parameters
    ----------
    gap : Dataset
        What `capacity_gap` returns: distilled_loss and supervised_loss with chain and draw, best_teacher,
        probability_stronger_worse and extrapolates over student, training and the teachers' axis.
    prob : float
        Probability inside the equal-tailed intervals.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

    Returns
    -------
    Figure
        A pair of panels for each length of the students' training, a colour per student.

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, or there is no such size.

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
    grids.need(gap, [*NEEDED, "student", "teacher"], "the argument of plot_capacity_gap", "capacity_gap()")
    look = style.make_look(size, dark)
    students = grids.sorted_students(gap)
    colors = style.size_colors(students, look)
    trainings = gap["training"].values
    names = ["distilled_loss", "supervised_loss", "best_teacher"]
    shown = grids.summaries(gap, names, prob, keep=["probability_stronger_worse", "extrapolates"])
    with style.drawing(look):
        heights = (1.5, 0.8) if look.tall else (2.3, 1.1)
        columns = min(1 if look.tall else 4 if look.size == "slide" else 2, len(trainings))
        figure = style.new_figure(look, -(-len(trainings) // columns) * sum(heights))
        groups, columns = grids.shape_panels(figure, look, len(trainings), heights, columns)
        for (top, bottom), training in zip(groups, trainings, strict=True):
            one = shown.sel(training=training)
            _draw_losses(top, look, one, students, colors)
            for student in students:
                mine = one.sel(student=student)
                grids.reach_line(
                    bottom, look, gap["teacher"].values, mine["probability_stronger_worse"].values,
                    mine["extrapolates"].values, colors[student], dots=False,
                )  # fmt: skip
            bottom.axhline(0.5, color=look.ink, linewidth=0.7 * look.line, zorder=1)
            bottom.set_ylim(-0.05, 1.05)
            for ax in (top, bottom):
                grids.hatch_outside(ax, look, gap["teacher"].values, one["extrapolates"].all("student").values)
            style.panel_title(top, training_words(gap, float(training)), 40)
            if gap.attrs.get("teacher_axis") == "params":
                style.size_axis(bottom.xaxis)
        labels = ["student loss\n[nats per token]", "P(stronger\nis worse)"]
        grids.label_groups(groups, columns, teacher_label(gap), labels, look)
        _finish(figure, look, gap, students, colors, prob)
    return figure


def training_words(gap: xr.Dataset, value: float) -> str:
    """How long the students of a panel are trained."""
    unit = gap["training"].attrs.get("units", "1")
    if unit == "FLOPs":
        return f"students trained for {style.power_of_ten(value)} FLOPs"
    if unit == "tokens":
        return f"students trained on {style.short(value)} tokens"
    return f"students at {value:g} tokens per parameter"


def teacher_label(gap: xr.Dataset) -> str:
    """Label of the teachers' axis."""
    if gap.attrs.get("teacher_axis") != "params":
        return "teacher loss [nats per token]"
    return "teacher size [non-embedding parameters]"


def mark_best(ax: Axes, look: Look, shown: xr.Dataset, color: object) -> None:
    """Median and interval of the best teacher, at the height of the curve."""
    middle, low, high = (float(shown[f"best_teacher{end}"]) for end in ("", "_lower", "_upper"))
    height = float(shown["distilled_loss"].sel(teacher=middle, method="nearest"))
    ax.plot(
        [low, high],
        [height, height],
        color=color,
        linewidth=1.2 * look.line,
        zorder=5,
        marker="|",
        markersize=2.5 * look.marker,
    )
    ax.plot(
        middle, height, marker="o", color=color, markersize=2.2 * look.marker, markeredgecolor=look.paper,
        markeredgewidth=0.5 * look.line, zorder=6,
    )  # fmt: skip


def _draw_losses(ax: Axes, look: Look, one: xr.Dataset, students: list[float], colors: dict[float, object]) -> None:
    x = one["teacher"].values
    for student in students:
        mine = one.sel(student=student)
        grids.curve(ax, look, x, mine, "distilled_loss", colors[student])
        ax.axhline(
            float(mine["supervised_loss"]), color=colors[student], linestyle=":", linewidth=0.8 * look.line, zorder=1.5
        )
        mark_best(ax, look, mine, colors[student])


def _finish(
    figure: Figure, look: Look, gap: xr.Dataset, students: list[float], colors: dict[float, object], prob: float
) -> None:
    percent = grids.percent(prob)
    entries: list[Artist] = grids.student_entries(look, students, colors, 1.6)
    entries += [
        style.band_entry(f"{percent} interval of the law", look.ink, 0.25),
        style.line_entry("pretrained on the same tokens", look.ink, linestyle=":"),
        style.line_entry(f"best teacher: median, {percent} interval", look.ink, marker="o"),
        *grids.reach_entries(look, dots=False),
    ]
    warnings, notes = style.fit_notes(gap)
    notes = [
        "P(stronger is worse): that a slightly stronger teacher gives a worse student. Stronger teachers are to the "
        f"{'right' if gap.attrs.get('teacher_axis') == 'params' else 'left'}. {teacher_words(gap)}"
        "What the teacher costs is not charged.",
        *at_the_end(gap),
        *notes,
    ]
    style.finish(
        figure,
        look,
        title="The capacity gap: a stronger teacher can give a worse student",
        handles=entries,
        warnings=warnings,
        notes=notes,
    )


def at_the_end(gap: xr.Dataset) -> list[str]:
    """A sentence where a median best teacher is the first or last of the axis: the best may not have been looked at."""
    teachers, best = gap["teacher"].values, posterior.median(gap["best_teacher"])
    if not ((best == teachers.min()) | (best == teachers.max())).any():
        return []
    return ["A best teacher at an end of the axis may lie beyond it."]


def teacher_words(gap: xr.Dataset) -> str:
    """How long the teachers were trained, where that is one number for all."""
    if "teacher_tokens_per_param" in gap.attrs:
        return f"Teachers are trained on {gap.attrs['teacher_tokens_per_param']:g} tokens per parameter. "
    if "teacher_budget" in gap.attrs:
        return f"Teachers are trained for {style.power_of_ten(gap.attrs['teacher_budget'])} FLOPs each. "
    return ""
