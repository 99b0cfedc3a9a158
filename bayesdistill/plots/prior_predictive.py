"""What the priors expect of the runs, beside what was observed."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogFormatterMathtext, LogLocator, NullFormatter, NullLocator

from bayesdistill.plots import grids, style


def plot_prior_predictive(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Losses that the priors expect at every run's design, beside the losses observed.

    Parameters
    ----------
    found : Dataset
        What `prior_predictive` returns: student_loss (nats per token), expected over quantile and run, position over run.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

    Returns
    -------
    Figure
        Left: runs in the order of their losses, with the prior's 50 and 90 % intervals. Right: how many runs lie where among
        the losses simulated for them; a prior that is wider than the data has a hill in the middle.

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.prior_predictive(bd.load_runs("busbridge2025"), draws=40)
    >>> bd.plot_prior_predictive(found).savefig("prior.png")  # doctest: +SKIP
    """
    maker = "prior_predictive()"
    grids.need(
        found, ["expected", "student_loss", "position", "inside_90"], "the argument of plot_prior_predictive", maker
    )
    look = style.make_look(size, dark)
    order = np.argsort(found["student_loss"].values, kind="stable")
    expected, color = found["expected"].isel(run=order), look.accent
    with style.drawing(look):
        figure = style.new_figure(look, 4.4 if look.tall else 2.6)
        axes = figure.subplots(2 if look.tall else 1, 1 if look.tall else 2, squeeze=False).ravel()
        for ax in axes:
            style.dress(ax, look)
        left, right = axes
        x = np.arange(order.size)
        for low, high, alpha in ((0.05, 0.95, 0.2), (0.25, 0.75, 0.4)):
            bounds = (expected.sel(quantile=q).values for q in (low, high))
            left.fill_between(x, *bounds, color=color, alpha=alpha, linewidth=0)
        left.plot(x, expected.sel(quantile=0.5).values, color=color, linewidth=0.6 * look.line)
        left.plot(
            x,
            found["student_loss"].values[order],
            color=look.ink,
            linestyle="none",
            marker="o",
            markersize=0.6 * look.marker,
        )
        left.set_yscale("log")
        low, high = float(expected.min()), float(expected.max())
        if high > 20 * low:  # a wide prior spans powers of ten
            left.yaxis.set_major_locator(LogLocator(numticks=6))
            left.yaxis.set_major_formatter(LogFormatterMathtext())
        else:
            ticks = [t for t in (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 20) if low <= t <= high]
            left.yaxis.set_major_locator(FixedLocator(ticks))
            left.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        left.yaxis.set_minor_locator(NullLocator())
        left.yaxis.set_minor_formatter(NullFormatter())
        left.set_xlabel("run, in the order of its loss")
        left.set_ylabel("student loss [nats per token]")
        right.hist(
            found["position"].values, bins=np.linspace(0, 1, 21), color=color, edgecolor=look.paper, linewidth=0.4
        )
        right.axhline(order.size / 20, color=look.neutral, linestyle="--", linewidth=look.line)
        right.set_xlim(0, 1)
        right.set_xlabel("share of simulated losses below the observed one [1]")
        right.set_ylabel("runs")
        entries: list[Artist] = [
            style.line_entry("observed", look.ink, linestyle="none", marker="o"),
            style.line_entry("prior, median", color, width=0.6 * look.line),
            style.band_entry("prior, 50 % of runs", color, 0.6),
            style.band_entry("prior, 90 % of runs", color, 0.2),
            style.line_entry("if the prior were the truth", look.neutral, linestyle="--"),
        ]
        warnings, notes = style.fit_notes(found)
        inside = ", ".join(
            f"{100 * float(found[name]):.0f} % in the {name[-2:]} % interval" for name in ("inside_50", "inside_90")
        )
        style.finish(
            figure,
            look,
            title="What the priors expect of these runs",
            handles=entries,
            warnings=warnings,
            notes=[
                f"Of {order.size} runs {inside}. With residual noise; {found.attrs.get('draws', '?')} draws of the law.",
                *notes,
            ],
        )
    return figure
