"""Simulation-based calibration: ranks of truths, and calibration of probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill.plots import collection, grids, style, visuals

_DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)))


@collection.documented
def plot_calibration(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Rank distributions against uniform with a simultaneous band, and stated probabilities against what happened.

    Parameters
    ----------
    found : Dataset
        What `rank_ecdf` returns.
    {size}

    {returns}

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> calibration = bd.simulate_calibration(bd.load_runs("busbridge2025"), log="calibration.jsonl")  # doctest: +SKIP
    >>> bd.plot_calibration(bd.rank_ecdf(calibration)).savefig("calibration.png")  # doctest: +SKIP
    """
    with collection.drawing("calibration", found, size, dark) as (plot, look, legend):
        attrs, x, outside = found.attrs, found["position"], found["outside"].values
        prob, count = attrs.get("prob", 0.95), outside.size
        worst = found.isel(quantity=np.flatnonzero(outside))
        worst = worst.sortby("p_holm") if "p_holm" in found else worst
        # The worst are named; the rest of those outside are drawn alike.
        dashes = dict(zip(grids.names(worst, "quantity"), _DASHES, strict=False))
        left, right = plot.pair(2.8, 4.8)
        visuals.band(left, x, found["band_lower"], found["band_upper"], look.neutral, 0.3, step="mid", zorder=1)
        legend.band(f"holds a curve with {style.percent(prob)}", look.neutral, 0.3)
        legend.line("a quantity", look.accent, width=0.5)
        for name, one in grids.cells(found, "quantity"):
            color, width = (style.WARNING_COLOR, 1.0) if one["outside"] else (look.accent, 0.4)
            visuals.line(left, x, one["difference"], color, width, linestyle=dashes.get(name, "-"))
            if name in dashes:
                legend.line(style.plain(name), color, linestyle=dashes[name], width=width)
        visuals.level(left, 0, width=0.5, zorder=2)
        left.set(xlim=(0, 1), xlabel="rank of the truth among the draws, as a share [1]")
        left.set_ylabel("share of ranks below, minus expected [1]")
        _draw_decisions(right, found)
        legend.line("as often as stated", look.neutral, linestyle="--")
        said = {"counted": attrs.get("counted", "?"), "failed": int(attrs.get("failed", 0))}
        said["refitted"] = attrs.get("passed_when_refitted", 0)
        return plot.finish(**said, outside=np.count_nonzero(outside), count=count, expected=(1 - prob) * count)


def _draw_decisions(ax: Axes, found: xr.Dataset) -> None:
    look, stated, won = visuals.look_of(ax), found["stated"].values, found["won"].values
    visuals.line(ax, [0, 1], [0, 1], look.neutral, linestyle="--", zorder=0.8)
    visuals.errors(ax, stated, won, look.accent, 1.4, yerr=visuals.arms(won, found["won_lower"], found["won_upper"]))
    box = {"facecolor": look.paper, "edgecolor": "none", "pad": 0.3}
    for p, share, count in zip(stated, won, found["decisions"].values, strict=True):
        if np.isfinite(p):
            # Beside the point, away from the line: below it on the right, above it on the left, within the panel.
            right = share < p if 0.1 < p < 0.9 else p < 0.5
            side, offset = ("left", 1.6 * look.marker) if right else ("right", -1.6 * look.marker)
            place: dict[str, Any] = {"xytext": (offset, 0), "textcoords": "offset points", "ha": side, "va": "center"}
            ax.annotate(f"{int(count)}", (p, share), fontsize=look.small, bbox=box, zorder=1, **place)
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), ylabel="share in which it wins [1]")
    ax.set_xlabel("stated probability that distillation wins [1]")
