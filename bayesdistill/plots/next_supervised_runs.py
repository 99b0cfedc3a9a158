"""Which supervised run to make next: what candidate runs tell about compute-optimal pretraining, against their cost."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bayesdistill.plots import collection, style, visuals


@collection.documented
def plot_next_supervised_runs(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """What candidate supervised runs tell about the loss and the size of later models, against their cost.

    Parameters
    ----------
    found : Dataset
        What `next_supervised_runs` returns.
    {size}

    Returns
    -------
    Figure
        A color per size of the candidates. Hollow points are outside the range of the data; crosses have too few effective draws to be
        trusted.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.next_supervised_runs(bd.load("fit.nc"), None, budgets=[1e24])  # doctest: +SKIP
    >>> bd.plot_next_supervised_runs(found).savefig("next_supervised.png")  # doctest: +SKIP
    """
    with collection.drawing("next_supervised_runs", found, size, dark) as (plot, look, legend):
        loss, choice = plot.pair(2.2, 3.6)
        colors = style.size_colors(found["params"].values, look)
        far, few = found["extrapolation"].values > 1, found["status"].values > 0
        names = ("cost", "params", "sd_reduction", "size_value", "size_value_mcse")
        for cost, params, reduction, value, error, hollow, cross in zip(
            *(found[name].values for name in names), far, few, strict=True
        ):
            color = colors[params]
            drawn = {"marker": "x" if cross else "o", "markerfacecolor": look.paper if hollow else color, "edge": 0.8}
            visuals.line(choice, [cost, cost], [value - 2 * error, value + 2 * error], color, 0.7)
            for ax, y in ((loss, 100 * reduction), (choice, value)):
                visuals.points(ax, cost, y, color, 2, zorder=3, **drawn)
        for params, color in colors.items():
            legend.points(style.short(params), color, "s")
        if far.any():
            legend.points("outside the range of the data", hollow=True)
        if few.any():
            legend.points("too few effective draws", marker="x")
        legend.line("± 2 Monte Carlo standard errors", width=0.7)
        for ax, label in (
            (loss, "decrease of the\nstandard deviation [%]"),
            (choice, "value for the size\n[nats per token]"),
        ):
            visuals.level(ax, 0, width=0.6)
            ax.set_xscale("log")
            style.flops_axis(ax.xaxis)
            ax.set(xlabel="cost of the run [FLOPs]", ylabel=label)
        style.small_numbers(choice.yaxis)
        targets = ", ".join(style.power_of_ten(budget) for budget in np.sort(found["budget"].values)[:4])
        more = ", ..." if found.sizes["budget"] > 4 else ""
        return plot.finish(targets=targets + more)
