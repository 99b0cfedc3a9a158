"""The value of knowing single quantities before choosing."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bayesdistill.plots import grids, style, visuals
from bayesdistill.plots.collection import drawing
from bayesdistill.plots.docstrings import documented

_LEVELS = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)
_SLIDE_ROWS = 27


@documented
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
    grids.need(found, "evppi_share quantity student scenario", "the argument of plot_information", "evppi()")
    grids.need_several(found, "budget")
    budgets, share = found["budget"].values, found["evppi_share"].transpose("quantity", "budget", ...).clip(0, 1)
    middles = np.sqrt(budgets[1:] * budgets[:-1])
    edges = np.concatenate([[budgets[0] ** 2 / middles[0]], middles, [budgets[-1] ** 2 / middles[-1]]])
    with drawing(size, dark) as plot:
        look = plot.look
        count = found.sizes["student"] * found.sizes["scenario"]
        columns = min(look.pick(2, 4), count)
        bands = -(-count // columns)
        floor = _floor(share, _SLIDE_ROWS // bands if size == "slide" else np.inf)
        most = share.max(["student", "scenario", "budget"]).fillna(0)
        shown = share.sel(quantity=most >= floor) if (most >= floor).any() else share
        idle = [style.plain(name) for name in found["quantity"].values if name not in shown["quantity"]]
        cells = [
            (f"{title.removeprefix('student ')}, {scenario}", cell)
            for title, part in grids.cells(shown.to_dataset(), "student")
            for scenario, cell in grids.cells(part, "scenario")
        ]
        # What is left of a panel of a slide without its title, in points, is shared by the names.
        small = look.pick(look.small, look.small, min(look.small, (400 / bands - 56) / shown.sizes["quantity"]))
        colors = [look.grid, *style.level_colors(look, len(_LEVELS) - 2)]
        height = max(0.16 * shown.sizes["quantity"] + 0.45, 1.0) * look.pick(1.0, 1.2)
        for (ax,), cell in plot.facets(cells, [height], columns):
            visuals.tiles(ax, edges, cell["evppi_share"], _LEVELS, colors, fontsize=small, zorder=1)
            style.flops_axis(ax.xaxis)
        plot.label("compute budget [FLOPs]", ["quantity"], same=False, repeat=False)
        for low, high, color in zip(_LEVELS[:-1], _LEVELS[1:], colors, strict=True):
            plot.legend.patch(f"{100 * low:g} to {style.percent(high)}", color)
        notes = [
            "Fraction of the value of perfect information about the law, for the choice between pretraining and the chosen "
            "strategy. Empty where that is 0. Quantities are not independent: fractions do not add up to 100 %."
            + (f" Not shown, because below {style.percent(floor)} everywhere: {', '.join(idle)}." if idle else "")
        ]
        return plot.finish("What it would be worth to know one quantity", notes, fit=found)


def _floor(share: xr.DataArray, rows: float) -> float:
    """Return the level from which on quantities are shown: a slide, whose height is fixed, shows what matters most."""
    most = share.max(["student", "scenario", "budget"]).fillna(0)
    enough = [level for level in _LEVELS[1:-1] if int((most >= level).sum()) <= rows]
    return enough[0] if enough else _LEVELS[-2]
