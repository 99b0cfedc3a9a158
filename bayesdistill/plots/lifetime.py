"""The best student size, its gain or cost, and whether to distill it, against the tokens that it serves."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from bayesdistill.plots import collection, grids, style, visuals


@collection.documented
def plot_lifetime(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Plot the best size, the gain or cost, and the probability that distillation is better against the tokens served.

    Parameters
    ----------
    found : Dataset
        What `lifetime` returns, for at least two positive numbers of tokens served.
    {size}

    Returns
    -------
    Figure
        Three panels for each scenario and each budget or target loss. Lines are the chosen size, bands the quantiles of the best size
        of the draws, of the gain (pretrained minus distilled loss) for budgets, and of the cost of the chosen size for target losses.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> found = bd.lifetime(published, ["100B", "1T", "10T"], "best case", budgets=1e23)
    >>> bd.plot_lifetime(found).savefig("lifetime.png")  # doctest: +SKIP
    """
    with collection.drawing("lifetime", found, size, dark) as (plot, look, legend):
        # The axis is logarithmic.
        found = found.isel(served_tokens=np.flatnonzero(found["served_tokens"].values > 0))
        grids.need_several(found, "served_tokens")
        goal = "target" if "target" in found.dims else "budget"
        # The losses of both options differ by too little to be seen on one axis.
        amounts = ("distilled_cost", "pretraining_cost") if goal == "target" else ("advantage",)
        sizes = ("distilled_best_params", "pretraining_best_params")
        shown = found[["probability", "extrapolates", "distilled_params", "pretraining_params"]]
        for name in (*amounts, *sizes):
            levels = found[f"{name}_quantile"]
            for end, place in (("", levels.sizes["quantile"] // 2), ("_lower", 0), ("_upper", -1)):
                shown[f"{name}{end}"] = levels.isel(quantile=place, drop=True).where(np.isfinite)
        cells = [
            (f"{scenario}, {_goal(one, goal)}", row.sel({goal: one}))
            for scenario, row in grids.cells(shown, "scenario")
            for one in found[goal].values
        ]
        colors = (look.accent, look.neutral)
        for (top, middle, bottom), cell in plot.facets(cells, x="served_tokens"):
            for color, best, chosen in zip(colors, sizes, ("distilled_params", "pretraining_params"), strict=True):
                visuals.interval(top, "served_tokens", cell, best, color)
                visuals.reach_line(top, "served_tokens", cell, chosen, color)
            for color, amount in zip(colors, amounts, strict=False):
                visuals.curve(middle, "served_tokens", cell, amount, color)
            if goal == "budget":
                visuals.level(middle, 0)
            visuals.level(bottom, 0.5)
            visuals.reach_line(bottom, "served_tokens", cell, "probability", look.accent)
            style.size_axis(top.yaxis)
            if goal == "target":
                style.log_axis(middle.yaxis)
                style.set_ticks(middle.yaxis, LogLocator(base=10, subs=(1.0, 3.0), numticks=5), style.power_of_ten)
            bottom.set_ylim(-0.02, 1.02)
            for ax in (top, middle, bottom):
                visuals.hatch_outside(ax, cell["served_tokens"].values, cell["extrapolates"].values)
        legend.line("distilled", look.accent, width=1.6)
        legend.line("pretrained", look.neutral, width=1.6)
        legend.band(f"quantiles, {grids.outer_quantiles(found)}")
        legend.reach(whose="")
        words = {"target": ("total cost\n[FLOPs]", "cheaper"), "budget": ("gain\n[nats per token]", "better")}[goal]
        return plot.finish(amount=words[0], better=words[1])


def _goal(value: float, goal: str) -> str:
    return f"{value:g} nats per token" if goal == "target" else f"{style.power_of_ten(value)} FLOPs"
