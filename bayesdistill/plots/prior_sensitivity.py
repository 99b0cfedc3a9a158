"""How much each quantity hangs on each prior."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bayesdistill.plots import grids, style, visuals
from bayesdistill.plots.collection import drawing
from bayesdistill.plots.docstrings import documented

_LEVELS = (0.0, 0.05, 0.1, 0.2, 0.4)
_WORDS = ("sensitivity below 0.05", "0.05 to 0.1", "0.1 to 0.2", "0.2 to 0.4", "0.4 and more")


@documented
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
    needed = ["sensitivity", "component", "quantity"]
    grids.need(found, needed, "the argument of plot_prior_sensitivity", "prior_sensitivity()")
    table = found["sensitivity"].transpose("quantity", "component")
    names = grids.names(found, "component")
    shown = [c for c in names if c in ("runs", "all priors") or (table.sel(component=c) >= _LEVELS[1]).any()]
    silent = [name.replace("_", " ") for name in names if name not in shown]
    table = table.sel(component=shown).assign_coords(
        quantity=[name.replace("e+", "e") for name in grids.names(found, "quantity")]
    )
    count = table.sizes["quantity"]
    with drawing(size, dark) as plot:
        look = plot.look
        ((ax,),) = plot.panels(1, 1, 0.14 * count + 1.1)
        colors = [look.paper, *style.level_colors(look, len(_LEVELS) - 1)]
        levels = [*_LEVELS, max(1e3, float(np.nanmax(table)) + 1)]
        small = look.pick(look.small, look.small, min(look.small, 330 / count))
        edges, line = np.arange(len(shown) + 1) - 0.5, 0.3 * look.line
        visuals.tiles(ax, edges, table, levels, colors, fontsize=small, edgecolors=look.grid, linewidth=line)
        ax.set_xticks(range(len(shown)), [name.replace("_", " ") for name in shown], rotation=40, ha="right")
        for color, words in zip(colors, _WORDS, strict=True):
            plot.legend.patch(words, color, edgecolor=look.grid, linewidth=0.5)
        rest = f" Nothing is sensitive to: {', '.join(silent)}." if silent else ""
        notes = [
            "Power-scaling sensitivity: change of the posterior, as a distance, when a component doubles in weight "
            f"(extrapolated from a small change). Blank: below 0.05.{rest}"
        ]
        return plot.finish("What hangs on which prior", notes, fit=found)
