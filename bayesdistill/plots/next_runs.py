"""Which run to make next: the value of candidate runs against their cost, and what a batch of them adds up to."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill.plots import grids, style
from bayesdistill.plots.style import Look

_CANDIDATES = ("evsi", "evsi_mcse", "cost", "kind", "params", "status", "batch_position", "extrapolation_factor")
_BATCH = ("batch_candidate", "batch_evsi", "batch_evsi_mcse", "batch_cost")
_LETTERS = {"column": 18, "page": 30, "slide": 30}
_KINDS = {"distilled": "o", "supervised": "^"}


def plot_next_runs(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """The expected value of candidate runs for the decisions against their cost, and that of the batch, run by run.

    Parameters
    ----------
    found : Dataset
        What `next_runs` returns.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

    Returns
    -------
    Figure
        Hollow points have too few effective draws to be trusted; numbers are places in the batch.

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.load("fit.nc")  # doctest: +SKIP
    >>> found = bd.next_runs(fit, candidates, "1B", [1e22, 1e23], batch=3)  # doctest: +SKIP
    >>> bd.plot_next_runs(found).savefig("next_runs.png")  # doctest: +SKIP
    """
    grids.need(found, [*_CANDIDATES, *_BATCH, "candidate", "step"], "the argument of plot_next_runs", "next_runs()")
    look = style.make_look(size, dark)
    colors = style.size_colors(found["params"].values, look)
    with style.drawing(look):
        steps = found.sizes["step"]
        batch = 0.2 * steps * look.font / 8 + 0.7
        figure = style.new_figure(look, (2.0 if look.tall else 2.6) + batch)
        ratios = [2.0 if look.tall else 2.6, batch]
        top, bottom = figure.subplots(2, 1, gridspec_kw={"height_ratios": ratios})
        for ax in (top, bottom):
            style.dress(ax, look)
        _draw_candidates(top, look, found, colors)
        _draw_batch(bottom, look, found)
        _finish(figure, look, found, colors)
        _number_batch(top, look, found)
    return figure


def _draw_candidates(ax: Axes, look: Look, found: xr.Dataset, colors: dict[float, object]) -> None:
    cost, value, error = (found[name].values for name in ("cost", "evsi", "evsi_mcse"))
    trusted = found["status"].values == 0
    kinds = found["kind"].values.astype(str)
    ax.axhline(0, color=look.ink, linewidth=0.6 * look.line, zorder=1)
    for i in range(cost.size):
        color = colors[float(found["params"].values[i])]
        ax.plot(
            [cost[i]] * 2, [value[i] - 2 * error[i], value[i] + 2 * error[i]], color=color, linewidth=0.7 * look.line
        )
        ax.plot(
            cost[i],
            value[i],
            marker=_KINDS.get(kinds[i], "s"),
            markersize=2 * look.marker,
            color=color,
            markerfacecolor=color if trusted[i] else look.paper,
            markeredgewidth=0.8 * look.line,
            zorder=3,
        )
    style.flops_axis(ax.xaxis)
    if not (value.any() or error.any()):
        # Nothing to see but zeros: the axis is that of what there is to gain.
        most = _most(found)
        ax.set_ylim(-0.1 * most, most)
    style.small_numbers(ax.yaxis)
    ax.set_xlabel("cost of the run [FLOPs]")
    ax.set_ylabel("expected value\n[nats per token]")


def _number_batch(ax: Axes, look: Look, found: xr.Dataset) -> None:
    """Places in the batch beside the points, those of runs of about the same cost kept from overlapping."""
    chosen = np.flatnonzero(found["batch_position"].values > 0)
    to_axes = ax.transData + ax.transAxes.inverted()
    at = to_axes.transform(np.stack([found["cost"].values[chosen], found["evsi"].values[chosen]], axis=1))
    frame = ax.get_window_extent()
    points = frame.height / ax.figure.dpi * 72
    close = 2.5 * look.small / (frame.width / ax.figure.dpi * 72)
    columns = np.round(at[:, 0] / close)
    for column in np.unique(columns):
        mine = np.flatnonzero(columns == column)
        heights = style.spread(at[mine, 1], 1.1 * look.small / points, 0.0, 1.0)
        for i, height in zip(mine, heights, strict=True):
            ax.text(
                at[i, 0] + 0.3 * close,
                height,
                str(int(found["batch_position"].values[chosen[i]])),
                transform=ax.transAxes,
                fontsize=look.small,
                weight="bold",
                va="center",
                zorder=4,
            )


def _draw_batch(ax: Axes, look: Look, found: xr.Dataset) -> None:
    place = np.arange(found.sizes["step"])
    value, error = found["batch_evsi"].values, found["batch_evsi_mcse"].values
    ax.barh(place, value, 0.7, color=style.OKABE_ITO[4], linewidth=0, zorder=2)
    ax.errorbar(
        value, place, xerr=2 * error, linestyle="none", ecolor=look.ink, elinewidth=0.8 * look.line, capsize=look.line,
        zorder=3,
    )  # fmt: skip
    names = [
        f"{step}: {name}" for step, name in zip(place + 1, found["batch_candidate"].values.astype(str), strict=True)
    ]
    costs = [style.power_of_ten(float(cost)) for cost in found["batch_cost"].values]
    ax.set_yticks(place, [style.plain(f"{name} ({cost})") for name, cost in zip(names, costs, strict=True)])
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    if value.any() or error.any():
        ax.set_xlim(left=min(0.0, float((value - 2 * error).min())))
    else:
        ax.set_xlim(0, _most(found))
    style.small_numbers(ax.xaxis)
    label = "expected value of the batch so far [nats per token]"
    ax.set_xlabel(label.replace("batch", "batch\n") if look.tall else label)
    ax.set_ylabel("batch")


def _most(found: xr.Dataset) -> float:
    """The value of knowing the whole law, which no run can exceed; 1e-6 nats if that is nothing or not known."""
    return float(found.attrs.get("mean_evpi", 0.0)) or 1e-6


def shorten(text: str, letters: int) -> str:
    """A text cut to so many letters, with dots if any are missing."""
    return text if len(text) <= letters else f"{text[: letters - 3]}..."


def _finish(figure: Figure, look: Look, found: xr.Dataset, colors: dict[float, object]) -> None:
    entries: list[Artist] = [
        style.line_entry(style.short(params), color, linestyle="none", marker="s") for params, color in colors.items()
    ]
    kinds = [kind for kind in _KINDS if kind in found["kind"].values.astype(str)]
    entries += [style.line_entry(f"{kind} run", look.ink, linestyle="none", marker=_KINDS[kind]) for kind in kinds]
    if (found["status"].values != 0).any():
        hollow = style.line_entry("too few effective draws", look.ink, linestyle="none", marker="o")
        hollow.set_markerfacecolor(look.paper)
        entries.append(hollow)
    entries.append(style.line_entry("± 2 Monte Carlo standard errors", look.ink, width=0.7 * look.line))
    warnings, notes = style.fit_notes(found)
    words = "Value: nats gained on average by choosing after the run instead of now. Numbers: places in the batch; in brackets "
    words += "below, the compute so far [FLOPs]."
    if "mean_evpi" in found.attrs:
        words += f" Knowing the whole law would be worth {style.power_of_ten(float(found.attrs['mean_evpi']))} nats per token."
    if not found["evsi"].values.any():
        words += " Not one of these runs would change a choice: all values are 0."
    if (found["extrapolation_factor"].values > 1).any():
        names = found["candidate"].values[found["extrapolation_factor"].values > 1].astype(str)
        listed = ", ".join(style.plain(name) for name in names[:4]) + (", ..." if names.size > 4 else "")
        words += f" Outside the runs that the posterior has seen: {listed} ({names.size} in all)."
    style.finish(
        figure,
        look,
        title="What the next run would be worth",
        handles=entries,
        warnings=warnings,
        notes=[words, *notes],
    )
