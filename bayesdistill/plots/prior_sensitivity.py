"""How much each quantity depends on each prior."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bayesdistill.plots import collection, grids, style, visuals

_LEVELS = {
    0.0: "sensitivity below 0.05",
    0.05: "0.05 to 0.1",
    0.1: "0.1 to 0.2",
    0.2: "0.2 to 0.4",
    0.4: "0.4 and more",
}


@collection.documented
def plot_prior_sensitivity(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Power-scaling sensitivity of every quantity to every prior and to the runs, as a map.

    Parameters
    ----------
    found : Dataset
        What `prior_sensitivity` returns: sensitivity over component and quantity.
    {size}

    Returns
    -------
    Figure
        Empty below 0.05; components that nothing is sensitive to are named in the footer only.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> bd.plot_prior_sensitivity(bd.prior_sensitivity(bd.load("fit.nc"))).savefig("prior.png")  # doctest: +SKIP
    """
    with collection.drawing("prior_sensitivity", found, size, dark) as (plot, look, legend):
        table, components = found["sensitivity"].transpose("quantity", "component"), grids.names(found, "component")
        shown = [c for c in components if c in ("runs", "all priors") or (table.sel(component=c) >= 0.05).any()]
        silent = [c.replace("_", " ") for c in components if c not in shown]
        quantities = [name.replace("e+", "e") for name in grids.names(found, "quantity")]
        table = table.sel(component=shown).assign_coords(quantity=quantities)
        ((ax,),) = plot.panels(1, 1, 0.14 * len(quantities) + 1.1)
        colors = dict(zip(_LEVELS, [look.paper, *style.level_colors(look, len(_LEVELS) - 1)], strict=True))
        small = look.pick(look.small, look.small, min(look.small, 330 / len(quantities)))
        edges, border = np.arange(len(shown) + 1) - 0.5, {"edgecolors": look.grid, "linewidth": 0.3 * look.line}
        visuals.tiles(ax, edges, table, colors, fontsize=small, **border)
        ax.set_xticks(range(len(shown)), [name.replace("_", " ") for name in shown], rotation=40, ha="right")
        for level, words in _LEVELS.items():
            legend.patch(words, colors[level], edgecolor=look.grid, linewidth=0.5)
        return plot.finish([f"Nothing is sensitive to: {', '.join(silent)}."] if silent else [])
