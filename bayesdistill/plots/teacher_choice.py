"""Which of the teachers that exist: the student's loss with each, and the probability that it is the best."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill.plots import collection, grids, style, visuals

_LOSSES = ("distilled_loss", "new_distilled_loss", "supervised_loss")
_KEPT = ("probability_best", "extrapolates")
_ROTATED_FROM = 4


@collection.documented
def plot_teacher_choice(
    found: xr.Dataset, *, prob: float = grids.PROB, size: str = "page", dark: bool = False
) -> Figure:
    """The student's loss with each existing teacher, weakest to strongest, and the probability that it is the best one.

    Parameters
    ----------
    found : Dataset
        What `teacher_choice` returns.
    {prob}
    {size}

    Returns
    -------
    Figure
        A pair of panels for each student and scenario, a color per budget. Hollow points are extrapolated.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import pandas as pd, xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> table = pd.DataFrame({"name": ["small", "large"], "params": [1e9, 7e9], "loss": [2.25, 2.05]})
    >>> found = bd.teacher_choice(published, table, "300M", 1e20)
    >>> bd.plot_teacher_choice(found).savefig("teachers.png")  # doctest: +SKIP
    """
    with collection.drawing("teacher_choice", found, size, dark) as (plot, _, legend):
        found = found.sortby("measured_loss", ascending=False)
        shown = grids.summaries(found, _LOSSES, prob, keep=_KEPT)
        cells = grids.cells(shown, "scenario", "student", joint=", ")
        measured = zip(grids.names(found, "teacher"), found["measured_loss"].values, strict=True)
        names = [style.plain(f"{name} ({loss:.2f})") for name, loss in measured]
        colors, places = plot.budgets(found["budget"]), np.arange(len(names))
        for (top, bottom), cell in plot.facets(cells):
            for k, (budget, color) in enumerate(colors.items()):
                one, at = cell.sel(budget=budget), places + 0.6 * ((k + 0.5) / len(colors) - 0.5)
                _draw_losses(top, one, at, color)
                bottom.bar(at, one["probability_best"].values, 0.6 / len(colors), color=color, linewidth=0)
            bottom.set(xlim=(-0.6, len(names) - 0.4), ylim=(0, 1.02))
            bottom.set_xticks(places, names, rotation=90 if len(names) >= _ROTATED_FROM else 0)
        legend.line(f"median, {style.percent(prob)} interval of the law", marker="o")
        legend.points("extrapolated", hollow=True)
        legend.line("pretrained", linestyle=":")
        legend.line("with a newly trained teacher", linestyle="-.")
        return plot.finish(share=grids.share(found, "new_delta_pre"))


def _draw_losses(ax: Axes, one: xr.Dataset, at: np.ndarray, color: object) -> None:
    look, outside, middle = visuals.look_of(ax), one["extrapolates"].values, one["distilled_loss"].values
    low, high = one["distilled_loss_lower"].values, one["distilled_loss_upper"].values
    ax.vlines(at, low, high, colors=[color], linewidth=1.5 * look.line, zorder=3)  # type: ignore[list-item]
    for which, face in ((outside, look.paper), (~outside, color)):
        visuals.points(ax, at[which], middle[which], color, 1.8, markerfacecolor=face, edge=0.8, zorder=4)
    visuals.level(ax, one["supervised_loss"], color, 1.0, linestyle=":", zorder=1.5)
    visuals.level(ax, one["new_distilled_loss"], color, 0.8, linestyle="-.", zorder=1.5)
