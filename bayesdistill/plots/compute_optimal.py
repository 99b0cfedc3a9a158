"""The compute-optimal size, tokens and loss of pretraining against the budget, and isoFLOP curves."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from bayesdistill.plots import collection, grids, style, visuals

_BUDGETS = 5  # isoFLOP curves


@collection.documented
def plot_compute_optimal(
    found: xr.Dataset, *, prob: float = grids.PROB, size: str = "page", dark: bool = False
) -> Figure:
    """Loss, size and tokens per parameter of the compute-optimal model against the budget, and isoFLOP curves.

    Parameters
    ----------
    found : Dataset
        What `compute_optimal` returns, for at least two budgets.
    {prob}
    {size}

    Returns
    -------
    Figure
        Lines are the chosen size, bands the interval of the loss and of the optimum of each draw. The isoFLOP curves show what another
        size costs on the same budget, for at most five budgets.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> figure = bd.plot_compute_optimal(bd.compute_optimal(published, [1e20, 1e21, 1e22]))
    >>> figure.savefig("compute_optimal.png")  # doctest: +SKIP
    """
    with collection.drawing("compute_optimal", found, size, dark) as (plot, look, legend):
        grids.need_several(found, "budget")
        ratio = found["best_tokens"] / found["best_params"]
        whole = found.assign(best_tokens_per_parameter=ratio)
        names = ["loss", "best_params", "best_tokens_per_parameter"]
        shown = grids.summaries(whole, names, prob, keep=["params", "tokens_per_parameter", "extrapolates"])
        rows, columns = look.pick((4, 1), (2, 2))
        axes = plot.panels(rows, columns, look.pick(6.4, 4.6)).ravel()
        for ax, name, line in zip(axes[:3], names, ("loss", "params", "tokens_per_parameter"), strict=True):
            visuals.interval(ax, "budget", shown, name, look.accent)
            visuals.reach_line(ax, "budget", shown, line, look.accent)
            visuals.hatch_outside(ax, shown["budget"].values, shown["extrapolates"].values)
            style.flops_axis(ax.xaxis)
            ax.set_xlabel("compute budget [FLOPs]")
        style.size_axis(axes[1].yaxis)
        labels = (
            "loss\n[nats per token]",
            "size\n[parameters]",
            "tokens per\nparameter",
            "excess loss\n[nats per token]",
        )
        for ax, label in zip(axes, labels, strict=True):
            ax.set_ylabel(label)
        legend.band(f"{style.percent(prob)} interval", look.accent)
        legend.reach(whose="")
        _draw_profiles(axes[3], plot, found)
        return plot.finish()


def _draw_profiles(ax: Axes, plot: collection.PlotCollection, found: xr.Dataset) -> None:
    """Draw isoFLOP curves with the outermost quantiles."""
    places = np.unique(np.linspace(0, found.sizes["budget"] - 1, _BUDGETS).round().astype(int))
    few, multiples = found.isel(budget=places), found["multiple"].values
    for budget, color in plot.budgets(few["budget"]).items():
        levels = few["excess_quantile"].sel(budget=budget)
        low, middle, high = (levels.isel(quantile=i) for i in (0, levels.sizes["quantile"] // 2, -1))
        visuals.band(ax, multiples, low, high, color, 0.2)
        visuals.line(ax, multiples, middle, color, 1.6, zorder=3)
    style.log_axis(ax.xaxis)
    ticks = [value for value in (0.25, 0.5, 1.0, 2.0, 4.0) if multiples[0] <= value <= multiples[-1]]
    style.set_ticks(ax.xaxis, FixedLocator(ticks), lambda value: f"{value:g}")
    ax.set_xlabel("size over the chosen size")
