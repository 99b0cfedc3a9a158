"""The best cross-entropy against compute, distilled and pretrained, and where the two cross."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from bayesdistill import posterior
from bayesdistill.plots import grids, style, visuals
from bayesdistill.plots.collection import drawing
from bayesdistill.plots.docstrings import documented

_LOSSES = ("distilled_loss", "supervised_loss", "advantage")
_LINEAR = 1e-3
"""Nats around zero that the axis of the gain draws linearly; beyond, it is logarithmic."""


@documented
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
    needed = [*_LOSSES, "crossover", "crossover_status", "extrapolates", "probability"]
    grids.need(plan, needed, "plan", "plan()")
    shown = grids.summaries(plan, _LOSSES, prob, keep=["extrapolates"])
    ends = float(plan["budget"].min()), float(plan["budget"].max())
    crossing = grids.crossover_summary(plan["crossover"], plan["crossover_status"], *ends, prob)
    with drawing(size, dark) as plot:
        look, legend, budgets = plot.look, plot.legend, plan["budget"].values
        colors = style.size_colors(plan["student"].values, look)
        heights = look.pick([1.2, 1.1, 0.5], [1.7, 1.5, 0.6], [1.4, 1.3, 0.8])
        for group, cell in plot.facets(grids.cells(shown, "scenario"), heights, look.pick(2, 4)):
            losses, gain, cross = group
            visuals.level(gain, 0)
            for student, color in colors.items():
                one = cell.sel(student=student)
                visuals.interval(losses, "budget", one, "supervised_loss", look.neutral, 0.3, zorder=1.5)
                visuals.line(losses, budgets, one["supervised_loss"].values, look.neutral, 0.8, zorder=2)
                visuals.curve(losses, "budget", one, "distilled_loss", color)
                visuals.curve(gain, "budget", one, "advantage", color, 0.2)
            _gain_axis(gain)
            _draw_crossovers(cross, crossing.sel(scenario=cell["scenario"]), colors, *ends)
            for ax in group:
                visuals.hatch_outside(ax, budgets, cell["extrapolates"].all("student").values)
            style.flops_axis(cross.xaxis)
        labels = ["loss\n[nats per token]", "gain\n[nats per token]", "crossover"]
        plot.label("compute budget [FLOPs]", labels)
        percent = style.percent(prob)
        legend.sizes(colors)
        legend.line("pretrained", look.neutral, width=0.8)
        legend.band(f"{percent} interval", alpha=0.3)
        legend.reach(dots=False)
        legend.line(f"crossover: median, {percent} interval", marker="o")
        legend.points("beyond the budgets shown", marker=">")
        notes = [
            "Gain: pretrained minus distilled loss (logarithmic beyond 0.001 nats). Crossover: the budget from which on "
            "pretraining beats the strategy with perfect information. An arrow to the right alone: distillation is ahead at the "
            "highest budget; to the left alone: pretraining is ahead throughout.",
            *grids.left_out(plan),
            grids.noise_note(plan),
        ]
        return plot.finish("Cross-entropy that a budget buys, distilled and pretrained", notes, fit=plan)


def _gain_axis(ax: Axes) -> None:
    ax.set_yscale("symlog", linthresh=_LINEAR, linscale=1.0)
    values = [-1, -0.1, -0.01, -0.001, 0, 0.001, 0.01, 0.1, 1]
    style.set_ticks(
        ax.yaxis, FixedLocator(values), lambda value: f"{value:+g}".replace("-", "\N{MINUS SIGN}") if value else "0"
    )


def _draw_crossovers(
    ax: Axes, crossing: xr.Dataset, colors: dict[float, object], lowest: float, highest: float
) -> None:
    """Draw median and interval of the crossover of each student; an arrow where a bound lies beyond the budgets."""
    for row, (student, color) in enumerate(colors.items()):
        low, middle, high = (float(crossing[name].sel(student=student)) for name in ("lower", "median", "upper"))
        if np.isnan(middle):
            continue
        visuals.line(ax, np.clip([low, high], lowest, highest), [row, row], color, zorder=2)
        if low < lowest:
            visuals.points(ax, lowest, row, color, 1.6, marker="<", clip_on=False, zorder=3)
        if high > highest:
            visuals.points(ax, highest, row, color, 1.6, marker=">", clip_on=False, zorder=3)
        if lowest <= middle <= highest:
            visuals.points(ax, middle, row, color, 1.8, zorder=3)
    ax.set_ylim(-0.6, len(colors) - 0.4)
    ax.set_yticks(range(len(colors)), [style.short(student) for student in colors])
    ax.grid(visible=False, axis="y")
