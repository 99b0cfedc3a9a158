"""Which student size: the loss of each, distilled and pretrained, and the probability that it is the best."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill.plots import collection, grids, style, visuals

_MARKERS = {"distilled_loss": "o", "supervised_loss": "s"}
_KEPT = ("probability_best", "extrapolates")


@collection.documented
def plot_student_choice(
    found: xr.Dataset, *, prob: float = grids.PROB, size: str = "page", dark: bool = False
) -> Figure:
    """The loss of each student size at equal budget, distilled and pretrained, and the probability that it is the best.

    Parameters
    ----------
    found : Dataset
        What `student_choice` returns.
    {prob}
    {size}

    Returns
    -------
    Figure
        A pair of panels for each scenario, a color per budget. Hollow points are extrapolated.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> found = bd.student_choice(published, ["300M", "1B"], 1e20, "best case")
    >>> bd.plot_student_choice(found).savefig("students.png")  # doctest: +SKIP
    """
    with collection.drawing("student_choice", found, size, dark) as (plot, _, legend):
        found = found.sortby("student")
        shown = grids.summaries(found, tuple(_MARKERS), prob, keep=_KEPT)
        names = [style.short(student) for student in found["student"].values]
        colors, places = plot.budgets(found["budget"]), np.arange(len(names))
        for (top, bottom), cell in plot.facets(grids.cells(shown, "scenario")):
            for k, (budget, color) in enumerate(colors.items()):
                one, width = cell.sel(budget=budget), 0.6 / len(colors)
                middle = places + 0.6 * ((k + 0.5) / len(colors) - 0.5)
                for side, (name, marker) in zip((-0.2, 0.2), _MARKERS.items(), strict=True):
                    _draw_losses(top, one, name, middle + side * width, color, marker)
                bottom.bar(middle, one["probability_best"].values, width, color=color, linewidth=0)
            bottom.set(xlim=(-0.6, len(names) - 0.4), ylim=(0, 1.02))
            bottom.set_xticks(places, names)
        legend.line(f"distilled: median, {style.percent(prob)} interval", marker="o")
        legend.line(f"pretrained: median, {style.percent(prob)} interval", marker="s")
        legend.points("extrapolated", hollow=True)
        return plot.finish()


def _draw_losses(ax: Axes, one: xr.Dataset, name: str, at: np.ndarray, color: object, marker: str) -> None:
    look, outside = visuals.look_of(ax), one["extrapolates"].values
    low, high = one[f"{name}_lower"].values, one[f"{name}_upper"].values
    ax.vlines(at, low, high, colors=[color], linewidth=1.5 * look.line, zorder=3)  # type: ignore[list-item]
    for which, face in ((outside, look.paper), (~outside, color)):
        values = one[name].values[which]
        visuals.points(ax, at[which], values, color, 1.6, marker=marker, markerfacecolor=face, edge=0.8, zorder=4)
