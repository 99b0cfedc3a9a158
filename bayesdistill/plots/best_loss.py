"""The best cross-entropy against compute, distilled and pretrained, and where the two cross."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from bayesdistill import posterior
from bayesdistill.plots import grids, style
from bayesdistill.plots.style import Look

_NEEDED = (
    "distilled_loss",
    "supervised_loss",
    "advantage",
    "crossover",
    "crossover_status",
    "extrapolates",
    "probability",
)
_LINEAR = 1e-3
"""Nats around zero that the advantage axis draws linearly; beyond, it is logarithmic."""


def plot_best_loss(
    plan: xr.Dataset, *, prob: float = posterior.INTERVAL_PROBABILITY, size: str = "page", dark: bool = False
) -> Figure:
    """Best cross-entropy against compute for each scenario and student, beside pretraining, with the crossovers.

    Three panels per scenario: the losses; their difference, since it is often a few thousandths of a nat; and the budget
    from which on pretraining is ahead.

    Parameters
    ----------
    plan : Dataset
        What `plan` returns: distilled_loss (of the chosen strategy), advantage, crossover and crossover_status with
        chain and draw; supervised_loss; extrapolates.
    prob : float
        Probability inside the equal-tailed intervals.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

    Returns
    -------
    Figure

    Raises
    ------
    ParameterError
        If the Dataset is no plan, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> figure = bd.plot_best_loss(bd.plan(published, "1B", [1e20, 1e21], "best case"))
    >>> figure.savefig("best_loss.png")  # doctest: +SKIP
    """
    grids.need(plan, _NEEDED, "plan", "plan()")
    look = style.make_look(size, dark)
    students = grids.sorted_students(plan)
    scenarios = [str(name) for name in plan["scenario"].values]
    colors = style.size_colors(students, look)
    losses = ["distilled_loss", "supervised_loss", "advantage"]
    shown = grids.summaries(plan, losses, prob, keep=["extrapolates"])
    lowest, highest = float(plan["budget"].min()), float(plan["budget"].max())
    crossing = grids.crossover_summary(plan["crossover"], plan["crossover_status"], lowest, highest, prob)
    with style.drawing(look):
        heights = {"column": [1.2, 1.1, 0.5], "page": [1.7, 1.5, 0.6], "slide": [1.4, 1.3, 0.8]}[look.size]
        columns = 2 if look.tall else 4
        bands = -(-len(scenarios) // min(columns, len(scenarios)))
        figure = style.new_figure(look, bands * sum(heights))
        groups, columns = grids.shape_panels(figure, look, len(scenarios), heights, columns)
        for (loss, gain, cross), name in zip(groups, scenarios, strict=True):
            cell = shown.sel(scenario=name)
            _draw_losses(loss, look, cell, students, colors)
            _draw_advantage(gain, look, cell, students, colors)
            _draw_crossovers(cross, look, crossing.sel(scenario=name), students, colors, lowest, highest)
            outside = cell["extrapolates"].all("student").values
            for ax in (loss, gain, cross):
                grids.hatch_outside(ax, look, cell["budget"].values, outside)
            style.panel_title(loss, name, 24 if look.size == "slide" else 20)
            style.flops_axis(cross.xaxis)
        labels = ["loss\n[nats per token]", "gain\n[nats per token]", "crossover"]
        grids.label_groups(groups, columns, "compute budget [FLOPs]", labels, look)
        _finish(figure, look, plan, students, colors, prob)
    return figure


def _draw_losses(ax: Axes, look: Look, cell: xr.Dataset, students: list[float], colors: dict[float, object]) -> None:
    x = cell["budget"].values
    for student in students:
        one = cell.sel(student=student)
        grids.band(ax, x, one, "supervised_loss", look.neutral, 0.3, 1.5)
        ax.plot(x, one["supervised_loss"].values, color=look.neutral, linewidth=0.8 * look.line, zorder=2)
        grids.curve(ax, look, x, one, "distilled_loss", colors[student])


def _draw_advantage(ax: Axes, look: Look, cell: xr.Dataset, students: list[float], colors: dict[float, object]) -> None:
    x = cell["budget"].values
    ax.axhline(0, color=look.ink, linewidth=0.7 * look.line, zorder=1)
    for student in students:
        one = cell.sel(student=student)
        grids.curve(ax, look, x, one, "advantage", colors[student], alpha=0.2)
    ax.set_yscale("symlog", linthresh=_LINEAR, linscale=1.0)
    ax.yaxis.set_major_locator(FixedLocator([-1, -0.1, -0.01, -0.001, 0, 0.001, 0.01, 0.1, 1]))
    ax.yaxis.set_minor_locator(FixedLocator([]))
    ax.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "\N{MINUS SIGN}") if value else "0")
    )


def _draw_crossovers(
    ax: Axes,
    look: Look,
    crossing: xr.Dataset,
    students: list[float],
    colors: dict[float, object],
    lowest: float,
    highest: float,
) -> None:
    """Median and interval of the crossover of each student; an arrow where a bound lies beyond the budgets."""
    for level, student in enumerate(students):
        one = crossing.sel(student=student)
        low, middle, high = (float(one[name]) for name in ("lower", "median", "upper"))
        if np.isnan(middle):
            continue
        color = colors[student]
        ends = np.clip([low, high], lowest, highest)
        ax.plot(ends, [level, level], color=color, linewidth=look.line, zorder=2)
        if low < lowest:
            ax.plot(lowest, level, marker="<", markersize=1.6 * look.marker, color=color, clip_on=False, zorder=3)
        if high > highest:
            ax.plot(highest, level, marker=">", markersize=1.6 * look.marker, color=color, clip_on=False, zorder=3)
        if lowest <= middle <= highest:
            ax.plot(middle, level, marker="o", markersize=1.8 * look.marker, color=color, zorder=3)
    ax.set_ylim(-0.6, len(students) - 0.4)
    ax.set_yticks(range(len(students)), [style.short(student) for student in students])
    ax.grid(visible=False, axis="y")


def _finish(
    figure: Figure, look: Look, plan: xr.Dataset, students: list[float], colors: dict[float, object], prob: float
) -> None:
    entries: list[Artist] = grids.student_entries(look, students, colors, 1.6)
    entries += [
        style.line_entry("pretrained", look.neutral, width=0.8 * look.line),
        style.band_entry(f"{grids.percent(prob)} interval", look.ink, 0.3),
        *grids.reach_entries(look, dots=False),
        style.line_entry(f"crossover: median, {grids.percent(prob)} interval", look.ink, marker="o"),
        style.line_entry("beyond the budgets shown", look.ink, linestyle="none", marker=">"),
    ]
    warnings, notes = style.fit_notes(plan)
    notes = [
        "Gain: pretrained minus distilled loss (logarithmic beyond 0.001 nats). Crossover: the budget from which on "
        "pretraining beats the strategy with perfect information. An arrow to the right alone: distillation is ahead at the highest "
        "budget; to the left alone: pretraining is ahead throughout.",
        *grids.left_out(plan),
        grids.noise_note(plan),
        *notes,
    ]
    style.finish(
        figure,
        look,
        title="Cross-entropy that a budget buys, distilled and pretrained",
        handles=entries,
        warnings=warnings,
        notes=notes,
    )
