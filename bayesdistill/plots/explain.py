"""Where the uncertainty of one answer comes from."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bayesdistill import posterior
from bayesdistill.plots import collection, grids, style, visuals

_ANSWERS = {"gain": "gain", "probability": "probability"}


@collection.documented
def plot_explain(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Parts of the variance of a gain and of the event that it is positive, as bars.

    Parameters
    ----------
    found : Dataset
        What `explain` returns: gain_share and probability_share over part, with their Monte Carlo errors.
    {size}

    Returns
    -------
    Figure
        Two bars for each part. A part that is unknown has no bars.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.load("fit.nc")  # doctest: +SKIP
    >>> found = bd.explain(bd.plan(fit, "1B", 1e22, "best case"), fit)  # doctest: +SKIP
    >>> bd.plot_explain(found).savefig("explanation.png")  # doctest: +SKIP
    """
    with collection.drawing("explain", found, size, dark) as (plot, look, legend):
        parts = grids.names(found, "part")
        ((ax,),) = plot.panels(1, 1, 0.28 * len(parts) + 0.6)
        places = visuals.rows(ax, parts)
        visuals.level(ax, 0, axis="x")
        for k, (name, words) in enumerate(_ANSWERS.items()):
            share, at, color = 100 * found[f"{name}_share"].values, places + 0.36 * (k - 0.5), style.OKABE_ITO[k]
            visuals.bars(ax, at, np.nan_to_num(share), color, height=0.34)
            error = 100 * np.nan_to_num(found[f"{name}_share_mcse"].values)
            known = np.isfinite(share) & (error > 0)
            visuals.errors(ax, share[known], at[known], look.ink, 0, xerr=error[known], width=0.7, zorder=3)
            legend.patch(words, color)
        ax.set(xlabel="share of the variance [%]", ylabel="source of uncertainty")
        values = {name: float(found[name]) for name in ("gain", "gain_total", "probability")}
        unknown = found.attrs.get("unknown")
        return plot.finish(
            [unknown] if unknown else [],
            gain=style.signed(values["gain"], 4),
            sd=f"{values['gain_total'] ** 0.5:.4f}",
            probability=posterior.tenths(values["probability"]),
        )
