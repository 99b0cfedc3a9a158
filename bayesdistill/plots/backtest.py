"""Probabilities against what happened, and predicted differences against observed ones."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill.errors import ParameterError
from bayesdistill.plots import grids, style, visuals
from bayesdistill.plots.collection import drawing
from bayesdistill.plots.docstrings import documented
from bayesdistill.plots.layout import panel_title
from bayesdistill.plots.style import MARKERS, OKABE_ITO

_NEEDED = "curve_share curve_mean_probability probability mean_difference difference forecaster"
KINDS = {"run": "two single runs, with residual noise", "law": "expected losses, without residual noise"}
NAMES = {"posterior": "posterior", "point": "Huber point fit", "bootstrap": "bootstrap"}


@documented
def plot_backtest(found: xr.Dataset, *, noise: str = "run", size: str = "page", dark: bool = False) -> Figure:
    """Calibration of the forecasts of a backtest, and their differences beside the observed ones.

    Parameters
    ----------
    found : Dataset
        What `backtest` returns.
    noise : {"run", "law"}
        Whether the probabilities include the residual noise of the two runs.
    {size}

    Returns
    -------
    Figure
        Left: share of pairs in which the distilled run was ahead against the probability that was stated, per bin, with
        90 % intervals; calibrated forecasts lie on the diagonal. Right: difference of the two losses as observed and as
        forecast by the first forecaster, with 90 % intervals, a colour per scenario.

    Raises
    ------
    ParameterError
        If the Dataset is no backtest, or there is no such noise or size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.backtest(bd.load_runs("tiny"), bd.load_runs("tiny", kind="supervised"))  # doctest: +SKIP
    >>> bd.plot_backtest(found).savefig("backtest.png")  # doctest: +SKIP
    """
    grids.need(found, _NEEDED, "the argument of plot_backtest", "backtest()")
    if noise not in KINDS:
        raise ParameterError(f"noise is {noise!r}; use {' or '.join(map(repr, KINDS))}")
    forecasters, scenarios = grids.names(found, "forecaster"), list(dict.fromkeys(grids.names(found, "scenario")))
    with drawing(size, dark) as plot:
        legend = plot.legend
        left, right = plot.pair(2.7, 4.8)
        for number, (name, color) in enumerate(zip(forecasters, OKABE_ITO, strict=False)):
            # Side by side, so that intervals of different forecasters can be told apart.
            offset, marker = 0.008 * (number - (len(forecasters) - 1) / 2), MARKERS[number % len(MARKERS)]
            _draw_curve(left, found.sel(forecaster=name, noise=noise), offset, color, marker=marker, zorder=4 - number)
            legend.line(NAMES.get(name, name), color, marker=marker)
        visuals.line(left, [0, 1], [0, 1], plot.look.ink, 0.7, zorder=1)
        left.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="stated probability", ylabel="share in which it was")
        panel_title(left, "Is the distilled run ahead?")
        for number, (name, color) in enumerate(zip(scenarios, OKABE_ITO[2:], strict=False)):
            one = found.isel(forecaster=0, forecast=np.flatnonzero(found["scenario"].values == name))
            _draw_differences(right, one, color, MARKERS[number % len(MARKERS)])
            legend.points(name, color, MARKERS[number % len(MARKERS)])
        seen, expected = found["difference"].values, found["mean_difference"].isel(forecaster=0).values
        ends = [min(seen.min(), expected.min()), max(seen.max(), expected.max())]
        visuals.line(right, ends, ends, plot.look.ink, 0.7, zorder=1)
        for axis in "xy":
            visuals.level(right, 0, plot.look.neutral, 0.5, axis=axis)
        right.set_xlabel("forecast lead of the distilled run [nats per token]")
        right.set_ylabel("observed lead [nats per token]")
        panel_title(right, NAMES.get(forecasters[0], forecasters[0]))
        legend.line("as often as stated, as much as forecast", width=0.7)
        warnings = []
        if any(grids.names(found, "failed")):
            warnings = ["Some of the fits behind these forecasts did not pass every convergence check."]
        cutoffs = ", ".join(style.power_of_ten(float(value)) for value in found["cutoff_fit"].values)
        interval = round(100 * float(found.attrs.get("interval_prob", 0.9)))
        notes = [
            f"{found.sizes['forecast']} forecasts of pairs, cut off at {cutoffs} FLOPs; "
            f"probabilities for {KINDS[noise]}. {interval} % intervals; those of shares count students, not pairs."
        ]
        title = "Forecasts of runs above a cut-off of compute, from those below it"
        return plot.finish(title, notes, warnings=warnings)


def _draw_curve(ax: Axes, curve: xr.Dataset, offset: float, color: str, **kwargs: object) -> None:
    x, y = curve["curve_mean_probability"].values + offset, curve["curve_share"].values
    arms = np.maximum(np.stack([y - curve["curve_lower"].values, curve["curve_upper"].values - y]), 0)
    visuals.errors(ax, x, y, color, 1.8, yerr=arms, width=0.6, linestyle="-", **kwargs)


def _draw_differences(ax: Axes, one: xr.Dataset, color: str, marker: str) -> None:
    x, y = one["mean_difference"].values, one["difference"].values
    arms = np.maximum(np.stack([x - one["lower_difference"].values, one["upper_difference"].values - x]), 0)
    visuals.errors(ax, x, y, color, 1.5, xerr=arms, width=0.35, marker=marker, zorder=3)
