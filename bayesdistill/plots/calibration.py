"""Simulation-based calibration: ranks of truths, and whether probabilities come true."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from bayesdistill.plots import grids, style

_NEED = ("difference", "band_lower", "band_upper", "outside", "stated", "won", "won_lower", "won_upper", "decisions")
_MOST_NAMED = 6


def plot_calibration(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Rank distributions against uniform with a simultaneous band, and stated probabilities against what happened.

    Parameters
    ----------
    found : Dataset
        What `rank_ecdf` returns.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

    Returns
    -------
    Figure

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> calibration = bd.simulate_calibration(bd.load_runs("busbridge2025"), log="calibration.jsonl")  # doctest: +SKIP
    >>> bd.plot_calibration(bd.rank_ecdf(calibration)).savefig("calibration.png")  # doctest: +SKIP
    """
    grids.need(found, _NEED, "the argument of plot_calibration", "rank_ecdf()")
    look = style.make_look(size, dark)
    outside = np.flatnonzero(found["outside"].values)
    # The worst are named; the rest of those outside are drawn alike.
    named = (
        outside[np.argsort(found["p_holm"].values[outside], kind="stable")][:_MOST_NAMED]
        if "p_holm" in found
        else outside
    )
    x = found["position"].values
    with style.drawing(look):
        figure = style.new_figure(look, 4.8 if look.tall else 2.8)
        axes = figure.subplots(2 if look.tall else 1, 1 if look.tall else 2, squeeze=False).ravel()
        left, right = axes
        for ax in axes:
            style.dress(ax, look)
        left.fill_between(
            x,
            found["band_lower"].values,
            found["band_upper"].values,
            color=look.neutral,
            alpha=0.3,
            linewidth=0,
            step="mid",
        )
        entries: list[Artist] = [
            style.band_entry(f"holds a curve with {100 * found.attrs.get('prob', 0.95):g} %", look.neutral, 0.3),
            style.line_entry("a quantity", look.accent, width=0.5 * look.line),
        ]
        for k in range(found.sizes["quantity"]):
            dashes: Any = "-"
            color, width = look.accent, 0.4 * look.line
            if k in outside:
                color, width = style.WARNING_COLOR, look.line
            if k in named:
                dashes = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)))[int(np.flatnonzero(named == k)[0])]
                entries.append(
                    style.line_entry(
                        style.plain(str(found["quantity"].values[k])), color, linestyle=dashes, width=width
                    )
                )
            left.plot(x, found["difference"].values[k], color=color, linewidth=width, linestyle=dashes)
        left.axhline(0, color=look.ink, linewidth=0.5 * look.line)
        left.set_xlim(0, 1)
        left.set_xlabel("rank of the truth among the draws, as a share [1]")
        left.set_ylabel("share of ranks below, minus expected [1]")
        right.plot([0, 1], [0, 1], color=look.neutral, linestyle="--", linewidth=look.line, zorder=0.8)
        stated, won = found["stated"].values, found["won"].values
        below, above = won - found["won_lower"].values, found["won_upper"].values - won
        right.errorbar(
            stated,
            won,
            np.clip(np.stack([below, above]), 0, None),
            color=look.accent,
            linestyle="none",
            marker="o",
            markersize=1.4 * look.marker,
            elinewidth=look.line,
        )
        for p, share, count in zip(stated, won, found["decisions"].values, strict=True):
            if np.isfinite(p):
                # Beside the point, away from the line: below it on the right, above it on the left, within the panel.
                below_line = share < p if 0.1 < p < 0.9 else p < 0.5
                right.annotate(
                    f"{int(count)}",
                    (p, share),
                    xytext=((1 if below_line else -1) * 1.6 * look.marker, 0),
                    textcoords="offset points",
                    ha="left" if below_line else "right",
                    va="center",
                    fontsize=look.small,
                    bbox={"facecolor": look.paper, "edgecolor": "none", "pad": 0.3},
                    zorder=1,
                )
        right.set_xlim(-0.03, 1.03)
        right.set_ylim(-0.03, 1.03)
        right.set_xlabel("stated probability that distillation wins [1]")
        right.set_ylabel("share in which it wins [1]")
        entries.append(style.line_entry("as often as stated", look.neutral, linestyle="--"))
        attrs = found.attrs
        failed = int(attrs.get("failed", 0))
        status = (
            f"{attrs.get('counted', '?')} simulations counted; {attrs.get('passed_when_refitted', 0)} of them after a longer "
            f"refit; {failed} failed the convergence checks."
        )
        style.finish(
            figure,
            look,
            title="Simulations: are the posterior's probabilities right?",
            handles=entries,
            notes=[
                status,
                f"{outside.size} of {found.sizes['quantity']} quantities leave the band; by chance about "
                f"{(1 - attrs.get('prob', 0.95)) * found.sizes['quantity']:.0f} would. Right: decisions in bins of stated "
                "probability, with their number and 90 % intervals.",
            ],
        )
    return figure
