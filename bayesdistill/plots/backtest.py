"""Probabilities against what happened, and predicted differences against observed ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bayesdistill.arguments import LEVELS, checked, one_of
from bayesdistill.errors import ParameterError
from bayesdistill.plots import collection, grids, layout, style, visuals

NAMES = {"posterior": "posterior", "point": "Huber point fit", "bootstrap": "bootstrap"}


@checked(noise=one_of(*LEVELS))
@collection.documented
def plot_backtest(found: xr.Dataset, *, noise: str = "expected", size: str = "page", dark: bool = False) -> Figure:
    """Calibration of the forecasts of a backtest, and their differences beside the observed ones.

    Parameters
    ----------
    found : Dataset
        What `backtest` returns.
    noise : {"expected", "run", "law"}
        Level of the probabilities: with group effects and discrepancy; with the residual noise of the two runs in addition; the law's
        mean curves. Pairs of single runs show whether "run" is calibrated.
    {size}

    Returns
    -------
    Figure
        Left: share of pairs in which the distilled run was ahead against the probability that was stated, per bin, with
        90% intervals; calibrated forecasts lie on the diagonal. Right: difference of the two losses as observed and as
        forecast by the first forecaster, with 90% intervals, a color per scenario.

    Raises
    ------
    ParameterError
        If the Dataset is no backtest or has no pairs, or there is no such noise or size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.backtest(bd.load_runs("tiny"), bd.load_runs("tiny", kind="supervised"))  # doctest: +SKIP
    >>> bd.plot_backtest(found).savefig("backtest.png")  # doctest: +SKIP
    """
    if grids.without_pairs(found):
        raise ParameterError("This backtest has no pairs, because it has one kind of runs. Use bd.plot_backtest_runs.")
    with collection.drawing("backtest", found, size, dark) as (plot, look, legend):
        kept = np.asarray(found.get("scored", xr.ones_like(found["difference"])), dtype=bool)
        found = found.isel(forecast=kept)
        forecasters, first = grids.cells(found.sel(noise=noise), "forecaster"), found.isel(forecaster=0)
        scenarios = dict.fromkeys(grids.names(found, "scenario"))
        left, right = plot.pair(2.7, 4.8)
        looks = zip(style.OKABE_ITO, style.MARKERS, strict=True)
        for number, ((name, one), (color, marker)) in enumerate(zip(forecasters, looks, strict=False)):
            # Side by side, so that intervals of different forecasters can be told apart.
            x = one["curve_mean_probability"] + 0.008 * (number - (len(forecasters) - 1) / 2)
            yerr = visuals.arms(one["curve_share"], one["curve_lower"], one["curve_upper"])
            lines = {"linestyle": "-", "marker": marker, "zorder": 4 - number}
            visuals.errors(left, x, one["curve_share"], color, 1.8, yerr=yerr, width=0.6, **lines)
            legend.line(style.plain(NAMES.get(name, name)), color, marker=marker)
        visuals.line(left, [0, 1], [0, 1], look.ink, 0.7, zorder=1)
        left.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="stated probability", ylabel="share in which it was")
        layout.panel_title(left, "Is the distilled run ahead?")
        for name, color, marker in zip(scenarios, style.OKABE_ITO[2:], style.MARKERS, strict=False):
            one = first.isel(forecast=np.flatnonzero(found["scenario"].values == name))
            xerr = visuals.arms(one["mean_difference"], one["lower_difference"], one["upper_difference"])
            points = {"xerr": xerr, "marker": marker, "zorder": 3}
            visuals.errors(right, one["mean_difference"], one["difference"], color, 1.5, width=0.35, **points)
            legend.points(style.plain(name), color, marker)
        seen = first[["difference", "mean_difference"]].to_dataarray()
        ends = [seen.min(), seen.max()] if seen.size else [-0.01, 0.01]
        visuals.line(right, ends, ends, look.ink, 0.7, zorder=1)
        for axis in "xy":
            visuals.level(right, 0, look.neutral, 0.5, axis=axis)
        right.set_xlabel("forecast gain of the distilled run [nats per token]")
        right.set_ylabel("observed gain [nats per token]")
        layout.panel_title(right, NAMES.get(forecasters[0][0], forecasters[0][0]))
        legend.line("as often as stated, as much as forecast", width=0.7)
        interval = style.percent(float(found.attrs.get("interval_prob", 0.9)))
        count, kind = found.sizes["forecast"], f"level {noise} ({LEVELS[noise]})"
        return plot.finish(**notes(found, kept), count=count, kind=kind, interval=interval)


def notes(found: xr.Dataset, kept: np.ndarray) -> dict[str, Any]:
    """Return the warning about failed fits and the cutoffs, for the texts of a figure; `kept` says which forecasts are drawn."""
    failed, fits = sum(map(bool, grids.names(found, "failed"))), found["cutoff_fit"].size
    words = f"{failed} of {fits} fits failed the convergence checks; their forecasts are {'shown' if kept.all() else 'left out'}."
    cutoffs = ", ".join(style.power_of_ten(float(value)) for value in found["cutoff_fit"].values)
    return {"warnings": [words] if failed else [], "cutoffs": cutoffs}
