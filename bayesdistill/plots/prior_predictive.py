"""What the priors expect of the runs, beside what was observed."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogFormatterMathtext, LogLocator

from bayesdistill.plots import collection, style, visuals


@collection.documented
def plot_prior_predictive(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Losses that the priors expect at every run's design, beside the losses observed.

    Parameters
    ----------
    found : Dataset
        What `prior_predictive` returns: student_loss or, of supervised runs, loss (nats per token), expected over quantile and run,
        position over run.
    {size}

    Returns
    -------
    Figure
        Left: runs in the order of their losses, with the prior's 50 and 90% intervals. Right: how many runs lie where among
        the losses simulated for them; a prior that is wider than the data has a hill in the middle.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.prior_predictive(bd.load_runs("busbridge2025"), draws=40)
    >>> bd.plot_prior_predictive(found).savefig("prior.png")  # doctest: +SKIP
    """
    supervised = isinstance(found, xr.Dataset) and found.attrs.get("kind") == "supervised"
    figure, loss = ("prior_predictive_supervised", "loss") if supervised else ("prior_predictive", "student_loss")
    with collection.drawing(figure, found, size, dark) as (plot, look, legend):
        found = found.sortby(loss)
        expected, x = found["expected"], np.arange(found.sizes["run"])
        left, right = plot.pair(2.6, 4.4)
        for low, high, alpha in ((0.05, 0.95, 0.2), (0.25, 0.75, 0.4)):
            visuals.band(left, x, expected.sel(quantile=low), expected.sel(quantile=high), look.accent, alpha, zorder=1)
        visuals.line(left, x, expected.sel(quantile=0.5), look.accent, 0.6)
        visuals.points(left, x, found[loss], look.ink, 0.6)
        _loss_axis(left, float(expected.min()), float(expected.max()))
        left.set(
            xlabel="run, in the order of its loss",
            ylabel=f"{'loss' if supervised else 'student loss'} [nats per token]",
        )
        bins = np.linspace(0, 1, 21).tolist()
        right.hist(found["position"].values, bins=bins, color=look.accent, edgecolor=look.paper, linewidth=0.4)
        visuals.level(right, x.size / 20, look.neutral, 1.0, linestyle="--", zorder=2)
        right.set(xlim=(0, 1), xlabel="share of simulated losses below the observed one [1]", ylabel="runs")
        legend.points("observed")
        legend.line("prior, median", look.accent, width=0.6)
        legend.band("prior, 50% of runs", look.accent, 0.6)
        legend.band("prior, 90% of runs", look.accent, 0.2)
        legend.line("if the prior were the truth", look.neutral, linestyle="--")
        shares = {name: f"{100 * float(found[name]):.0f}%" for name in ("inside_50", "inside_90")}
        return plot.finish(runs=x.size, draws=found.attrs.get("draws", "?"), **shares)


def _loss_axis(ax: Axes, low: float, high: float) -> None:
    style.log_axis(ax.yaxis)
    if high > 20 * low:  # a wide prior spans powers of ten
        style.set_ticks(ax.yaxis, LogLocator(numticks=6), LogFormatterMathtext())
    else:
        ticks = [tick for tick in (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 20) if low <= tick <= high]
        style.set_ticks(ax.yaxis, FixedLocator(ticks), lambda value: f"{value:g}")
