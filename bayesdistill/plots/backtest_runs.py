"""Left-out runs of a backtest in their predictive distributions."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bayesdistill.plots import backtest, collection, grids, layout, style, visuals


@collection.documented
def plot_backtest_runs(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Coverage of the predictive intervals of left-out runs, and the place of each run in its predictive distribution.

    Parameters
    ----------
    found : Dataset
        What `backtest` returns, for one or both kinds of runs.
    {size}

    Returns
    -------
    Figure
        Left: fractions of the left-out runs of each group inside their 90% and 50% intervals, a color per forecaster, with 90%
        intervals of the former. Right: predictive probability of a lower loss against the compute of the run in multiples of the
        cutoff; calibrated predictions are uniform between 0 and 1 at every distance.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.backtest(supervised=bd.load_runs("tiny", kind="supervised"))  # doctest: +SKIP
    >>> bd.plot_backtest_runs(found).savefig("runs.png")  # doctest: +SKIP
    """
    with collection.drawing("backtest_runs", found, size, dark) as (plot, look, legend):
        kept = found["prediction_scored"].values.astype(bool)
        runs = found.isel(prediction=kept)
        groups = found.isel(group=found["predictions"].values > 0)
        left, right = plot.pair(2.9, 5.2)
        places = visuals.rows(left, grids.names(groups, "group"))
        forecasters = grids.cells(found, "forecaster")
        for number, ((name, _), color) in enumerate(zip(forecasters, style.OKABE_ITO, strict=False)):
            one = groups.isel(forecaster=number)
            # Side by side, so that intervals of different forecasters can be told apart.
            y = np.asarray(places) + 0.18 * (number - (len(forecasters) - 1) / 2)
            xerr = visuals.arms(one["coverage_90"], one["coverage_90_lower"], one["coverage_90_upper"])
            visuals.errors(left, one["coverage_90"], y, color, 1.4, xerr=xerr, width=0.6)
            visuals.points(left, one["coverage_50"], y, color, 1.4, marker="^")
            visuals.points(right, runs["prediction_factor"], runs["pit"].isel(forecaster=number), color, 1.0)
            legend.line(style.plain(backtest.NAMES.get(name, name)), color)
        for probability in (0.5, 0.9):
            visuals.level(left, probability, look.neutral, 0.7, axis="x", linestyle=":")
            for edge in ((1 - probability) / 2, (1 + probability) / 2):
                visuals.level(right, edge, look.neutral, 0.7, linestyle=":")
        left.set(xlim=(-0.03, 1.03), xlabel="fraction of the runs inside [1]")
        layout.panel_title(left, "Are the intervals right?")
        style.log_axis(right.xaxis)
        right.set(ylim=(-0.03, 1.03), xlabel="compute over cut-off [1]", ylabel="probability of a lower loss [1]")
        layout.panel_title(right, "Runs in their predictive distributions")
        legend.points("inside the 90% interval", look.ink)
        legend.points("inside the 50% interval", look.ink, "^")
        legend.line("stated fractions; bounds of the 50 and 90% intervals", look.neutral, linestyle=":", width=0.7)
        return plot.finish(**backtest.notes(found, kept), count=runs.sizes["prediction"])
