"""What one more student of a family costs, and which loss it has, distilled and pretrained."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bayesdistill.plots import collection, style, visuals

_MARKERS = {"loss_quantile": ("o", "distilled"), "supervised_loss_quantile": ("s", "pretrained")}


@collection.documented
def plot_add_student(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """The loss and the cost of one more student of a family, for each size.

    Parameters
    ----------
    found : Dataset
        What `add_student` returns.
    {size}

    Returns
    -------
    Figure
        Losses, distilled and pretrained for the same compute, and compute. Hollow points are extrapolated.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd, pandas as pd, xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> teacher = pd.DataFrame({"params": [8e9], "loss": [2.0]})
    >>> family = bd.family_plan(published, ["300M", "1B"], 1e21, delta_lgt=0, teachers=teacher)
    >>> bd.plot_add_student(bd.add_student(published, family, ["1B", "3B"])).savefig("added.png")  # doctest: +SKIP
    """
    with collection.drawing("add_student", found, size, dark) as (plot, look, legend):
        found = found.sortby("student")
        losses, costs = plot.pair(2.2, 3.6)
        places, outside = np.arange(found.sizes["student"]), found["extrapolates"].values
        levels = found["quantile"].values
        interval = f"median, {style.percent(levels[-1] - levels[0])} interval"
        alone = bool(found["loss_quantile"].isnull().all())
        for side, (name, (marker, option)) in zip((-0.12, 0.12), _MARKERS.items(), strict=True):
            low, middle, high = found[name].transpose("quantile", "student").values[[0, levels.size // 2, -1]]
            if np.isnan(middle).all():  # the family is pretrained
                continue
            at = places + (0 if alone else side)
            losses.vlines(at, low, high, colors=[look.accent], linewidth=1.5 * look.line, zorder=3)
            for which, face in ((outside, look.paper), (~outside, look.accent)):
                visuals.points(
                    losses,
                    at[which],
                    middle[which],
                    look.accent,
                    1.6,
                    marker=marker,
                    markerfacecolor=face,
                    edge=0.8,
                    zorder=4,
                )
            legend.line(f"{option}: {interval}", look.accent, marker=marker)
        if outside.any():
            legend.points("extrapolated", hollow=True)
        costs.bar(places, found["marginal_budget"].values, 0.6, color=look.neutral, linewidth=0, zorder=2)
        visuals.level(costs, float(found["average_budget"]), look.ink, 1.0, zorder=3)
        legend.line("mean cost of a student of the family", look.ink)
        style.small_numbers(costs.yaxis)
        names = [style.short(student) for student in found["student"].values]
        for ax, label in ((losses, "loss\n[nats per token]"), (costs, "cost\n[FLOPs]")):
            ax.set(xlim=(-0.6, places.size - 0.4), xlabel="student [non-embedding parameters]", ylabel=label)
            ax.set_xticks(places, names)
            ax.grid(visible=False, axis="x")
        return plot.finish()
