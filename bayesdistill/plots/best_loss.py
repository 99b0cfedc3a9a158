"""The best cross-entropy against compute, distilled and pretrained, and where the two cross."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from bayesdistill.plots import collection, grids, style, visuals

_LOSSES = ("distilled_loss", "supervised_loss", "advantage")
_CROSSOVER = (
    "Crossover (mean curves of the law): the budget from which on pretraining beats the strategy with perfect information. An "
    "arrow to the right alone: distillation is ahead at the highest budget; to the left alone: pretraining is ahead throughout."
)
_LINEAR = 1e-3
"""Nats around zero that the axis of the gain draws linearly; beyond, it is logarithmic."""


@collection.documented
def plot_best_loss(plan: xr.Dataset, *, prob: float = grids.PROB, size: str = "page", dark: bool = False) -> Figure:
    """Best cross-entropy against compute for each scenario and student, beside pretraining, with the crossovers.

    Three panels per scenario: the losses; their difference, since it is often a few thousandths of a nat; and the budget
    from which on pretraining is ahead.

    Parameters
    ----------
    plan : Dataset
        What `plan` returns: distilled_loss (of the chosen strategy), advantage, crossover and crossover_status with
        chain and draw; supervised_loss; extrapolates.
    {prob}
    {size}

    {returns}

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
    with collection.drawing("best_loss", plan, size, dark) as (plot, look, legend):
        shown = grids.summaries(plan, _LOSSES, prob, keep=["extrapolates"])
        ends = float(plan["budget"].min()), float(plan["budget"].max())
        shown = shown.assign(grids.crossover_summary(plan["crossover"], plan["crossover_status"], *ends, prob))
        colors, cells = plot.sizes(plan["student"]), grids.cells(shown, "scenario")
        several = shown.sizes["budget"] > 1  # a crossover between budgets
        rows = range(3 if several else 2)
        for (losses, gain, *cross), cell in plot.facets(cells, x="budget", over="student", rows=rows):
            visuals.level(gain, 0)
            for place, (student, color) in enumerate(colors.items()):
                one = cell.sel(student=student)
                visuals.interval(losses, "budget", one, "supervised_loss", color, 0.12, zorder=1.5)
                visuals.line(losses, one["budget"], one["supervised_loss"], color, 1.0, zorder=2, linestyle=":")
                if one.sizes["budget"] <= 2:
                    visuals.points(losses, one["budget"], one["supervised_loss"], color, 3, marker="x", zorder=3)
                visuals.curve(losses, "budget", one, "distilled_loss", color)
                visuals.curve(gain, "budget", one, "advantage", color, 0.2)
                for ax in cross:
                    _draw_crossover(ax, place, one, color, *ends)
            _gain_axis(gain)
            for ax in cross:
                ax.set_ylim(-0.6, len(colors) - 0.4)
                ax.set_yticks(range(len(colors)), [style.short(student) for student in colors])
                ax.grid(visible=False, axis="y")
        if several:
            legend.line("pretrained", look.neutral, width=1.0, linestyle=":")
        else:
            legend.points("pretrained", look.neutral, marker="x")
        legend.band(f"{style.percent(prob)} interval", alpha=0.3)
        legend.reach()
        if several:
            legend.line(f"crossover: median, {style.percent(prob)} interval", marker="o")
            legend.points("beyond the budgets shown", marker=">")
        return plot.finish([_CROSSOVER] * several + [*grids.left_out(plan), *grids.changes_note(plan)])


def _gain_axis(ax: Axes) -> None:
    ax.set_yscale("symlog", linthresh=_LINEAR, linscale=1.0)
    ticks = FixedLocator([-1, -0.1, -0.01, -0.001, 0, 0.001, 0.01, 0.1, 1])
    style.set_ticks(ax.yaxis, ticks, lambda gain: f"{gain:+g}".replace("-", "\N{MINUS SIGN}") if gain else "0")


def _draw_crossover(ax: Axes, place: int, one: xr.Dataset, color: object, lowest: float, highest: float) -> None:
    """Draw median and interval of a student's crossover; an arrow where a bound lies beyond the budgets."""
    low, middle, high = (float(one[name]) for name in ("lower", "median", "upper"))
    if np.isnan(middle):
        return
    visuals.line(ax, np.clip([low, high], lowest, highest), [place, place], color, zorder=2)
    if low < lowest:
        visuals.points(ax, lowest, place, color, 1.6, marker="<", clip_on=False, zorder=3)
    if high > highest:
        visuals.points(ax, highest, place, color, 1.6, marker=">", clip_on=False, zorder=3)
    if lowest <= middle <= highest:
        visuals.points(ax, middle, place, color, 1.8, zorder=3)
