"""Which run to make next: the value of candidate runs against their cost, and what a batch of them adds up to."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill.plots import collection, grids, style, visuals

_KINDS = {"distilled": "o", "supervised": "^"}


@collection.documented
def plot_next_runs(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """The expected value of candidate runs for the decisions against their cost, and for the batch, run by run.

    Parameters
    ----------
    found : Dataset
        What `next_runs` returns.
    {size}

    Returns
    -------
    Figure
        Hollow points have too few effective draws to be trusted; numbers are places in the batch.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.load("fit.nc")  # doctest: +SKIP
    >>> found = bd.next_runs(fit, candidates, "1B", [1e22, 1e23], batch=3)  # doctest: +SKIP
    >>> bd.plot_next_runs(found).savefig("next_runs.png")  # doctest: +SKIP
    """
    with collection.drawing("next_runs", found, size, dark) as (plot, look, legend):
        # The value of knowing the whole law, which no run can exceed; 1e-6 nats if that is nothing or not known.
        most = float(found.attrs.get("mean_evpi", 0.0)) or 1e-6
        ratios = [look.pick(2.0, 2.6), 0.2 * found.sizes["step"] * look.font / 8 + 0.7]
        top, bottom = plot.panels(2, 1, sum(ratios), height_ratios=ratios)[:, 0]
        colors = style.size_colors(found["params"].values, look)
        _draw_candidates(top, found, colors, most)
        _draw_batch(bottom, found, most)
        for params, color in colors.items():
            legend.points(style.short(params), color, "s")
        for kind in sorted(set(grids.names(found, "kind")) & set(_KINDS)):
            legend.points(f"{kind} run", marker=_KINDS[kind])
        if found["status"].any():
            legend.points("too few effective draws", hollow=True)
        legend.line("± 2 Monte Carlo standard errors", width=0.7)
        figure = plot.finish(_notes(found))
        _number_batch(top, found.isel(candidate=np.flatnonzero(found["batch_position"].values > 0)))
        return figure


def _notes(found: xr.Dataset) -> list[str]:
    notes = []
    if "mean_evpi" in found.attrs:
        worth = style.power_of_ten(float(found.attrs["mean_evpi"]))
        notes.append(f"Knowing the whole law would be worth {worth} nats per token.")
    if not found["evsi"].any():
        notes.append("Not one of these runs would change a choice: all values are 0.")
    outside = [style.plain(name) for name in found["candidate"].values[found["extrapolation_factor"].values > 1]]
    if outside:
        listed = ", ".join(outside[:4]) + (", ..." if len(outside) > 4 else "")
        notes.append(f"Outside the runs that the posterior has seen: {listed} ({len(outside)} in all).")
    return notes


def _draw_candidates(ax: Axes, found: xr.Dataset, colors: dict[float, object], most: float) -> None:
    names = ("cost", "evsi", "evsi_mcse", "params", "kind", "status")
    visuals.level(ax, 0, width=0.6)
    for cost, value, error, params, kind, status in zip(*(found[name].values for name in names), strict=True):
        color = colors[params]
        visuals.line(ax, [cost, cost], [value - 2 * error, value + 2 * error], color, 0.7)
        looks = {"marker": _KINDS.get(kind, "s"), "markerfacecolor": visuals.look_of(ax).paper if status else color}
        visuals.points(ax, cost, value, color, 2, edge=0.8, zorder=3, **looks)
    style.flops_axis(ax.xaxis)
    if not (found["evsi"].any() or found["evsi_mcse"].any()):
        ax.set_ylim(-0.1 * most, most)  # nothing to see but zeros: the axis shows what there is to gain
    style.small_numbers(ax.yaxis)
    ax.set(xlabel="cost of the run [FLOPs]", ylabel="expected value\n[nats per token]")


def _number_batch(ax: Axes, chosen: xr.Dataset) -> None:
    """Write places in the batch beside the points, places of runs of about the same cost without overlap."""
    look, frame = visuals.look_of(ax), ax.get_window_extent()
    letter = look.small * ax.figure.dpi / 72
    to_axes = ax.transData + ax.transAxes.inverted()
    at = to_axes.transform(np.stack([chosen["cost"].values, chosen["evsi"].values], axis=1))
    close = 2.5 * letter / frame.width
    columns = np.round(at[:, 0] / close)
    for column in np.unique(columns):
        mine = columns == column
        at[mine, 1] = visuals.spread(at[mine, 1], 1.1 * letter / frame.height, 0.0, 1.0)
    for (x, y), position in zip(at, chosen["batch_position"].values, strict=True):
        place = (x + 0.3 * close, y, f"{position:g}", "axes fraction")
        visuals.text(ax, *place, weight="bold", va="center", zorder=4)


def _draw_batch(ax: Axes, found: xr.Dataset, most: float) -> None:
    look, value, error = visuals.look_of(ax), found["batch_evsi"], found["batch_evsi_mcse"]
    each = zip(grids.names(found, "batch_candidate"), found["batch_cost"].values, strict=True)
    if not value.size:
        ax.set(xticks=[], yticks=[], ylabel="batch")
        visuals.text(
            ax, 0.5, 0.5, "No run adds more than its Monte Carlo error.", "axes fraction", ha="center", va="center"
        )
        return
    names = [style.plain(f"{k}: {name} ({style.power_of_ten(cost)})") for k, (name, cost) in enumerate(each, start=1)]
    places = visuals.rows(ax, names)
    visuals.bars(ax, places, value.values, style.OKABE_ITO[4])
    visuals.errors(ax, value, places, look.ink, xerr=2 * error, marker="", width=0.8, capsize=look.line, zorder=3)
    low = min(0.0, float((value - 2 * error).min()))
    ax.set_xlim(low, None if value.any() or error.any() else most)
    style.small_numbers(ax.xaxis)
    line_end = look.pick("\n", "")
    ax.set(xlabel=f"expected value of the batch{line_end} so far [nats per token]", ylabel="batch")
