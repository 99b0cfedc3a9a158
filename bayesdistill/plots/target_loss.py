"""What distillation and pretraining cost until a student reaches a target loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterMathtext, LogLocator

from bayesdistill.plots import collection, grids, style, visuals

_QUANTILES = ("distilled_compute", "pretraining_compute", "ratio")


@collection.documented
def plot_target_loss(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Plot compute, cost ratio and probabilities against the target loss, a column per scenario, a color per student.

    Parameters
    ----------
    found : Dataset
        What `target_loss` returns.
    {size}

    {returns}

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> bd.plot_target_loss(bd.target_loss(published, "1B", [2.2, 2.3, 2.4])).savefig("target.png")  # doctest: +SKIP
    """
    with collection.drawing("target_loss", found, size, dark) as (plot, _, legend):
        shown = xr.Dataset({name: found[name] for name in ("probability", "distilled_impossible", "extrapolates")})
        for name in _QUANTILES:
            levels = found[f"{name}_quantile"]
            for end, place in (("", levels.sizes["quantile"] // 2), ("_lower", 0), ("_upper", -1)):
                shown[f"{name}{end}"] = levels.isel(quantile=place, drop=True).where(np.isfinite)
        colors = plot.sizes(found["student"])
        for (top, middle, bottom), cell in plot.facets(grids.cells(shown, "scenario"), x="target", over="student"):
            visuals.level(middle, 1)
            visuals.level(bottom, 0.5)
            for ax in (top, middle):  # before drawing: a linear axis may end below 0
                style.log_axis(ax.yaxis)
            for student, color in colors.items():
                _draw(top, middle, bottom, cell.sel(student=student), color)
            style.set_ticks(top.yaxis, LogLocator(base=10, numticks=5), LogFormatterMathtext())
            style.set_ticks(middle.yaxis, LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=5), "{:g}".format)
            bottom.set_ylim(-0.02, 1.02)
        legend.line("distilled; P(distillation cheaper)", width=1.6)
        legend.line("pretrained (median)", linestyle=":", width=1.2)
        legend.line("P(distilled never reaches it)", linestyle="-.")
        legend.band(f"quantiles, {grids.outer_quantiles(found)}")
        legend.reach()
        return plot.finish(grids.target_sentences(found))


def _draw(top: Axes, middle: Axes, bottom: Axes, one: xr.Dataset, color: Any) -> None:
    """Draw one student of one scenario; a single target has error bars in place of bands."""
    visuals.line(top, one["target"], one["pretraining_compute"], color, 1.2, linestyle=":", zorder=2.5)
    visuals.lonely(top, one["target"], one["pretraining_compute"], color, 2.4, marker="_", edge=0.8)
    for ax, name in ((top, "distilled_compute"), (middle, "ratio")):
        visuals.curve(ax, "target", one, name, color)
        if one.sizes["target"] == 1 and np.isfinite(one[name]).all():
            lengths = visuals.arms(one[name], one[f"{name}_lower"], one[f"{name}_upper"])
            visuals.errors(ax, one["target"], one[name], color, 1.2, yerr=lengths)
    visuals.reach_line(bottom, "target", one, "probability", color)
    visuals.lonely(bottom, one["target"], one["probability"], color, 1.2, marker="o")
    visuals.line(bottom, one["target"], one["distilled_impossible"], color, 1.0, linestyle="-.", zorder=2.5)
