"""What new runs change in the parameters of the law."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bayesdistill.plots import collection, grids, style, visuals

_NORMAL = 1.645
"""Standard deviations from the mean to the ends of a central 90% interval of a normal distribution."""


@collection.documented
def plot_update(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Parameters of the law before and after an update, in standard deviations before it.

    Parameters
    ----------
    found : Dataset
        `parameters` of what `update` returns: shift and sd_ratio over quantity.
    {size}

    Returns
    -------
    Figure
        A row for each parameter, the one that changes most at the top.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.load("fit.nc")  # doctest: +SKIP
    >>> bd.plot_update(bd.update(fit, "new.csv").parameters).savefig("update.png")  # doctest: +SKIP
    """
    with collection.drawing("update", found, size, dark) as (plot, look, legend):
        order = np.argsort(-np.abs(found["shift"].values), kind="stable")
        shown = found.isel(quantity=order)
        ((ax,),) = plot.panels(1, 1, 0.2 * shown.sizes["quantity"] + 0.6)
        places = visuals.rows(ax, [style.plain(name) for name in grids.names(shown, "quantity")])
        visuals.bars(ax, places, np.full(places.size, 2 * _NORMAL), look.neutral, left=-_NORMAL, alpha=0.3)
        shift, width = shown["shift"].values, _NORMAL * shown["sd_ratio"].values
        visuals.level(ax, 0, axis="x")
        visuals.errors(ax, shift, places, look.accent, 2, xerr=width, zorder=3)
        ax.set(xlabel="change of the mean\n[earlier standard deviations]", ylabel="parameter")
        legend.band(f"before, {style.percent(0.9)} interval", look.neutral, 0.3)
        legend.line(f"after, mean and {style.percent(0.9)} interval", look.accent, marker="o")
        return plot.finish()
