"""Which of the teachers that exist: the student's loss with each, and the probability that it is the best."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill import posterior
from bayesdistill.plots import grids, style, visuals
from bayesdistill.plots.collection import drawing
from bayesdistill.plots.docstrings import documented

_LOSSES = ("distilled_loss", "new_distilled_loss", "supervised_loss")
_KEPT = ("probability_best", "extrapolates")
_ROTATED_FROM = 4


@documented
def plot_teacher_choice(
    found: xr.Dataset, *, prob: float = posterior.INTERVAL_PROBABILITY, size: str = "page", dark: bool = False
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
        A pair of panels for each student and scenario, a colour per budget. Hollow points are extrapolated.

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
    needed = [*_LOSSES, *_KEPT, "measured_loss", "student", "scenario", "budget"]
    grids.need(found, needed, "the argument of plot_teacher_choice", "teacher_choice()")
    ordered = found.sortby("measured_loss", ascending=False)
    shown = grids.summaries(ordered, _LOSSES, prob, keep=_KEPT)
    cells = [
        (f"{student}, {scenario}" if found.sizes["scenario"] > 1 else student, cell)
        for scenario, part in grids.cells(shown, "scenario")
        for student, cell in grids.cells(part, "student")
    ]
    measured = zip(grids.names(ordered, "teacher"), ordered["measured_loss"].values, strict=True)
    names = [style.plain(f"{name} ({loss:.2f})") for name, loss in measured]
    with drawing(size, dark) as plot:
        look, legend, places = plot.look, plot.legend, np.arange(len(names))
        colors = style.budget_colors(ordered["budget"].values, look)
        for (top, bottom), cell in plot.facets(cells, look.pick([1.5, 0.8], [2.0, 1.0]), look.pick(1, 3, 4)):
            for k, budget in enumerate(found["budget"].values):
                one, color = cell.sel(budget=budget), colors[budget]
                at = places + 0.6 * ((k + 0.5) / len(colors) - 0.5)
                _draw_losses(top, one, at, color)
                bottom.bar(at, one["probability_best"].values, 0.6 / len(colors), color=color, linewidth=0)
            bottom.set_xlim(-0.6, len(names) - 0.4)
            bottom.set_ylim(0, 1.02)
            bottom.set_xticks(places, names, rotation=90 if len(names) >= _ROTATED_FROM else 0)
        plot.label("teacher (its loss [nats per token])", ["student loss\n[nats per token]", "P(best of\nthe table)"])
        legend.budgets({budget: colors[budget] for budget in found["budget"].values})
        legend.line(f"median, {style.percent(prob)} interval of the law", marker="o")
        legend.points("extrapolated", hollow=True)
        legend.line("pretrained", linestyle=":")
        legend.line("with a newly trained teacher", linestyle="-.")
        notes = [
            "Teachers from weak to strong. A teacher that cannot be paid has no point. "
            f"The newly trained one is charged {100 * float(found.attrs.get('new_delta_pre', np.nan)):g} % of its pretraining."
        ]
        return plot.finish("Which of the existing teachers", notes, fit=found)


def _draw_losses(ax: Axes, one: xr.Dataset, at: np.ndarray, color: object) -> None:
    look, outside = visuals.look_of(ax), one["extrapolates"].values
    low, high = one["distilled_loss_lower"].values, one["distilled_loss_upper"].values
    ax.vlines(at, low, high, colors=[color], linewidth=1.5 * look.line, zorder=3)  # type: ignore[list-item]
    for which, face in ((outside, look.paper), (~outside, color)):
        middle = one["distilled_loss"].values[which]
        visuals.points(ax, at[which], middle, color, 1.8, markerfacecolor=face, edge=0.8, zorder=4)
    visuals.level(ax, float(one["supervised_loss"]), color, 1.0, linestyle=":", zorder=1.5)
    visuals.level(ax, float(one["new_distilled_loss"]), color, 0.8, linestyle="-.", zorder=1.5)
