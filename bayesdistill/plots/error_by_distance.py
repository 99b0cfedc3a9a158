"""Error of left-out groups against their distance from the training data."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill.plots import collection, layout, style, visuals

_LABELS = {
    "distance": "outside range [sd of logs]",
    "nearest_distance": "nearest run [sd of logs]",
    "leverage": "leverage [1]",
}
_ERRORS = {"rmse": "RMSE [nats per token]", "standardized_rms": "standardized RMS [1]"}


@collection.documented
def plot_error_by_distance(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Error of every left-out group against its distance from the training data, with a line per panel.

    Parameters
    ----------
    found : Dataset
        What `error_by_distance` returns: rmse, standardized_rms, distance, nearest_distance and leverage over group; slope and
        its interval, and intercept.
    {size}

    Returns
    -------
    Figure
        A column (in a narrow figure a row) for each measure of distance. RMSE in nats per token, and the standardized RMS, which is
        1 where the predictive distribution has the right width. Titles hold the slope of the log error.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> scored = bd.leave_out(bd.load_runs("busbridge2025"), "teacher")  # doctest: +SKIP
    >>> bd.plot_error_by_distance(bd.error_by_distance(scored)).savefig("distance.png")  # doctest: +SKIP
    """
    with collection.drawing("error_by_distance", found, size, dark) as (plot, look, legend):
        narrow = look.size == "column"
        shape = (len(_LABELS), len(_ERRORS)) if narrow else (len(_ERRORS), len(_LABELS))
        axes = plot.panels(*shape, look.pick(4.8, 3.4), sharey="col" if narrow else "row")
        axes = axes if narrow else axes.T
        for i, (row, (measure, label)) in enumerate(zip(axes, _LABELS.items(), strict=True)):
            for ax, (error, words) in zip(row, _ERRORS.items(), strict=True):
                _draw(ax, found, measure, error)
                if narrow or ax is row[-1]:
                    ax.set_xlabel(label.replace(" [", "\n["))
                if narrow or i == 0:
                    ax.set_ylabel(words.replace(" [", "\n["))
        legend.points("left-out group", look.accent)
        legend.line("least squares in the log of the error")
        interval = style.percent(float(found.attrs.get("interval_prob", 0.9)))
        return plot.finish(interval=interval)


def _draw(ax: Axes, found: xr.Dataset, measure: str, error: str) -> None:
    look, x = visuals.look_of(ax), found[measure].values
    style.log_axis(ax.yaxis)
    style.set_ticks(ax.yaxis, style.Decades(2, 5), "{:.3g}".format)
    if error == "standardized_rms":
        visuals.level(ax, 1, look.neutral)
    visuals.points(ax, x, found[error].values, look.accent, 1.2)
    slope, low, high, start = (
        float(found[name].sel(measure=measure, error=error))
        for name in ("slope", "slope_lower", "slope_upper", "intercept")
    )
    if np.isfinite(slope):
        ends = np.linspace(x.min(), x.max(), 20)
        visuals.line(ax, ends, np.exp(start + slope * ends), look.ink, 0.8)
        layout.panel_title(ax, f"{slope:+.2f} ({low:+.2f} to {high:+.2f})")
    else:
        layout.panel_title(ax, "no slope")
