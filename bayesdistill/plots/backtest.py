"""Probabilities against what happened, and predicted differences against observed ones."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from bayesdistill.errors import ParameterError
from bayesdistill.plots import grids, style

KINDS = {"run": "two single runs, with residual noise", "law": "expected losses, without residual noise"}
NAMES = {"posterior": "posterior", "point": "Huber point fit", "bootstrap": "bootstrap"}


def plot_backtest(found: xr.Dataset, *, noise: str = "run", size: str = "page", dark: bool = False) -> Figure:
    """Calibration of the forecasts of a backtest, and their differences beside the observed ones.

    Parameters
    ----------
    found : Dataset
        What `backtest` returns.
    noise : {"run", "law"}
        Whether the probabilities include the residual noise of the two runs.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

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
    needed = ["curve_share", "curve_mean_probability", "probability", "mean_difference", "difference", "forecaster"]
    grids.need(found, needed, "the argument of plot_backtest", "backtest()")
    if noise not in KINDS:
        raise ParameterError(f"noise is {noise!r}; use {' or '.join(map(repr, KINDS))}")
    look = style.make_look(size, dark)
    forecasters = [str(name) for name in found["forecaster"].values]
    scenarios = list(dict.fromkeys(str(name) for name in found["scenario"].values))
    colors = dict(zip(forecasters, style.OKABE_ITO, strict=False))
    shades = dict(zip(scenarios, style.OKABE_ITO[2:], strict=False))
    with style.drawing(look):
        rows, columns = (2, 1) if look.tall else (1, 2)
        figure = style.new_figure(look, rows * (2.4 if look.tall else 2.7))
        left, right = figure.subplots(rows, columns, squeeze=False).flat
        for ax in (left, right):
            style.dress(ax, look)
        left.plot([0, 1], [0, 1], color=look.ink, linewidth=0.7 * look.line, zorder=1)
        for number, name in enumerate(forecasters):
            curve = found.sel(forecaster=name, noise=noise)
            x, y = curve["curve_mean_probability"].values, curve["curve_share"].values
            arms = [y - curve["curve_lower"].values, curve["curve_upper"].values - y]
            left.errorbar(
                # Side by side, so that intervals of different forecasters can be told apart.
                x + 0.008 * (number - (len(forecasters) - 1) / 2),
                y,
                yerr=np.maximum(np.stack(arms), 0),
                color=colors[name],
                marker=style.MARKERS[number % len(style.MARKERS)],
                markersize=1.8 * look.marker,
                linewidth=look.line,
                elinewidth=0.6 * look.line,
                zorder=4 - number,
            )
        left.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        left.set_xlabel("stated probability")
        left.set_ylabel("share in which it was")
        style.panel_title(left, "Is the distilled run ahead?", 40)
        first = found.isel(forecaster=0)
        seen, expected = found["difference"].values, first["mean_difference"].values
        low, high = first["lower_difference"].values, first["upper_difference"].values
        for number, name in enumerate(scenarios):
            mine = found["scenario"].values == name
            right.errorbar(
                expected[mine],
                seen[mine],
                xerr=np.maximum(np.stack([expected - low, high - expected])[:, mine], 0),
                color=shades[name],
                marker=style.MARKERS[number % len(style.MARKERS)],
                markersize=1.5 * look.marker,
                linewidth=0,
                elinewidth=0.35 * look.line,
                zorder=3,
            )
        ends = np.array([min(seen.min(), expected.min()), max(seen.max(), expected.max())])
        right.plot(ends, ends, color=look.ink, linewidth=0.7 * look.line, zorder=1)
        right.axhline(0, color=look.neutral, linewidth=0.5 * look.line, zorder=1)
        right.axvline(0, color=look.neutral, linewidth=0.5 * look.line, zorder=1)
        right.set_xlabel("forecast lead of the distilled run [nats per token]")
        right.set_ylabel("observed lead [nats per token]")
        style.panel_title(right, NAMES.get(forecasters[0], forecasters[0]), 40)
        entries: list[Artist] = [
            style.line_entry(NAMES.get(name, name), colors[name], marker=style.MARKERS[i % len(style.MARKERS)])
            for i, name in enumerate(forecasters)
        ]
        entries += [
            style.line_entry(name, shades[name], linestyle="", marker=style.MARKERS[i % len(style.MARKERS)])
            for i, name in enumerate(scenarios)
        ]
        entries.append(style.line_entry("as often as stated, as much as forecast", look.ink, width=0.7 * look.line))
        warnings = []
        if any(str(text) for text in found["failed"].values):
            warnings = ["Some of the fits behind these forecasts did not pass every convergence check."]
        interval = round(100 * float(found.attrs.get("interval_prob", 0.9)))
        cutoffs = ", ".join(style.power_of_ten(float(value)) for value in found["cutoff_fit"].values)
        style.finish(
            figure,
            look,
            title="Forecasts of runs above a cut-off of compute, from those below it",
            handles=entries,
            warnings=warnings,
            notes=[
                f"{found.sizes['forecast']} forecasts of pairs, cut off at {cutoffs} FLOPs; "
                f"probabilities for {KINDS[noise]}. {interval} % intervals; those of shares count students, not pairs.",
            ],
        )
    return figure
