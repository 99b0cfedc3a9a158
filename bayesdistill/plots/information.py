"""The value of knowing single quantities before choosing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bayesdistill.plots import collection, grids, style, visuals

_LEVELS = (0.0, 0.01, 0.05, 0.2, 0.5)
_SLIDE_ROWS = 27


@collection.documented
def plot_information(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Value of knowing one quantity, as a fraction of the value of perfect information, against the budget.

    Parameters
    ----------
    found : Dataset
        What `evppi` returns: evppi_share over quantity, student, scenario, budget.
    {size}

    Returns
    -------
    Figure
        A map for each student and scenario. Empty where knowing everything is worth nothing, because the choice is clear.

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, has a single budget, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.load("fit.nc")  # doctest: +SKIP
    >>> plan = bd.plan(fit, "1B", [1e22, 1e23, 1e24])  # doctest: +SKIP
    >>> bd.plot_information(bd.evppi(fit, plan)).savefig("information.png")  # doctest: +SKIP
    """
    with collection.drawing("information", found, size, dark) as (plot, look, legend):
        grids.need_several(found, "budget")
        budgets, share = found["budget"].values, found["evppi_share"].transpose("quantity", "budget", ...).clip(0, 1)
        middles = np.sqrt(budgets[1:] * budgets[:-1])
        edges = np.concatenate([[budgets[0] ** 2 / middles[0]], middles, [budgets[-1] ** 2 / middles[-1]]])
        columns = min(look.pick(2, 4), found.sizes["student"] * found.sizes["scenario"])
        bands = -(-found.sizes["student"] * found.sizes["scenario"] // columns)
        # The height of a slide is fixed: where there are many rows, it shows what matters most.
        most = share.max(["student", "scenario", "budget"]).fillna(0)
        enough = [x for x in _LEVELS[1:] if size != "slide" or bands * int((most >= x).sum()) <= _SLIDE_ROWS]
        floor = enough[0] if enough else _LEVELS[-1]
        shown = share.sel(quantity=most >= floor) if (most >= floor).any() else share
        idle = [style.plain(name) for name in found["quantity"].values if name not in shown["quantity"]]
        count = shown.sizes["quantity"]
        # What is left of a panel of a slide without its title, in points, is shared by the names.
        small = look.pick(look.small, look.small, min(look.small, (400 / bands - 56) / count))
        colors = dict(zip(_LEVELS, [look.grid, *style.level_colors(look, len(_LEVELS) - 1)], strict=True))
        cells = grids.cells(shown.to_dataset(), "student", "scenario", joint=", ")
        heights = [max(0.16 * count + 0.45, 1.0) * look.pick(1.0, 1.2)]
        for (ax,), cell in plot.facets(cells, x="budget", heights=heights, columns=columns):
            visuals.tiles(ax, edges, cell["evppi_share"], colors, fontsize=small, zorder=1)
        for low, high in pairwise([*_LEVELS, 1.0]):
            legend.patch(f"{100 * low:g} to {style.percent(high)}", colors[low])
        words = f"Not shown, because below {style.percent(floor)} everywhere: {', '.join(idle)}."
        return plot.finish([words] if idle else [])
