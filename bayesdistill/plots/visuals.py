"""What plots draw into a panel. Widths of lines and sizes of markers are multiples of the widths and sizes of the figure's look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from bayesdistill.plots import style
from bayesdistill.plots.picture import Picture
from bayesdistill.plots.style import Look


def look_of(ax: Axes) -> Look:
    """Return the measures and colors of the figure of a panel."""
    return cast(Picture, ax.figure).look


# Lines, points and bands ----------------------------------------------------------------------------------------------


def line(ax: Axes, x: Any, y: Any, color: Any, width: float = 1.0, **kwargs: Any) -> None:
    """Draw a line."""
    ax.plot(np.asarray(x), np.asarray(y), color=color, linewidth=width * look_of(ax).line, **kwargs)


def points(ax: Axes, x: Any, y: Any, color: Any, size: float = 1.0, **kwargs: Any) -> None:
    """Draw markers, round ones by default; `edge` is the width of their edges."""
    look, edge = look_of(ax), kwargs.pop("edge", None)
    kwargs = {"linestyle": "none", "marker": "o", "markersize": size * look.marker, "color": color} | kwargs
    ax.plot(np.asarray(x), np.asarray(y), markeredgewidth=None if edge is None else edge * look.line, **kwargs)


def errors(ax: Axes, x: Any, y: Any, color: Any, size: float = 1.0, *, width: float = 1.0, **kwargs: Any) -> None:
    """Draw markers with error bars (`xerr`, `yerr`) of width `width`."""
    look = look_of(ax)
    kwargs = {"linestyle": "none", "marker": "o", "markersize": size * look.marker, "color": color} | kwargs
    ax.errorbar(np.asarray(x), np.asarray(y), elinewidth=width * look.line, **kwargs)


def arms(middle: Any, low: Any, high: Any) -> np.ndarray:
    """Return the lengths of error bars from the ends of intervals."""
    return np.maximum(np.stack([middle - low, high - middle]), 0)


def flagged(ax: Axes, x: Any, y: Any, bad: np.ndarray, size: float = 1.0, **kwargs: Any) -> None:
    """Draw dots, and diamonds in the color of warnings where `bad`; `xerr` adds error bars."""
    x, y, xerr = np.asarray(x), np.asarray(y), np.asarray(kwargs.pop("xerr", np.zeros(bad.shape)))
    for which, color, marker in ((~bad, look_of(ax).accent, "o"), (bad, style.WARNING_COLOR, "D")):
        errors(ax, x[which], y[which], color, size, xerr=xerr[which], marker=marker, **kwargs)


def bars(ax: Axes, places: Any, widths: Any, color: Any, **kwargs: Any) -> None:
    """Draw horizontal bars."""
    ax.barh(places, widths, **{"height": 0.7, "color": color, "linewidth": 0, "zorder": 2} | kwargs)
    ax.grid(visible=False, axis="y")


def level(ax: Axes, at: Any, color: Any = None, width: float = 0.7, *, axis: str = "y", **kwargs: Any) -> None:
    """Draw a line across the panel at a value of an axis."""
    look = look_of(ax)
    kwargs = {"color": look.ink if color is None else color, "linewidth": width * look.line, "zorder": 1} | kwargs
    (ax.axhline if axis == "y" else ax.axvline)(float(at), **kwargs)


def band(ax: Axes, x: Any, low: Any, high: Any, color: Any, alpha: float = 0.25, **kwargs: Any) -> None:
    """Fill what lies between two curves."""
    x, low, high = np.asarray(x), np.asarray(low), np.asarray(high)
    if x.size == 1:  # a band of one value has no area
        ends = np.concatenate([low, high])
        line(ax, [x[0], x[0]], ends, color, 4, **{"zorder": 2, "alpha": alpha, "solid_capstyle": "butt"} | kwargs)
        return
    ax.fill_between(x, low, high, color=color, alpha=alpha, linewidth=0, **{"zorder": 2} | kwargs)


def interval(ax: Axes, x: str, shown: xr.Dataset, name: str, color: Any, alpha: float = 0.25, **kwargs: Any) -> None:
    """Draw the interval of a variable of `grids.summaries` along the dimension `x`."""
    band(ax, shown[x], shown[f"{name}_lower"], shown[f"{name}_upper"], color, alpha, **kwargs)


def text(ax: Axes, x: Any, y: Any, words: str, coords: str = "data", **kwargs: Any) -> None:
    """Write words at a place, given in the coordinates of `Axes.annotate`."""
    ax.annotate(words, (x, y), xycoords=coords, **{"fontsize": look_of(ax).small} | kwargs)


# What is extrapolated -------------------------------------------------------------------------------------------------


def curve(ax: Axes, x: str, shown: xr.Dataset, name: str, color: Any, alpha: float = 0.25) -> None:
    """Draw median and interval of a variable of `grids.summaries`; `extrapolates` says what is outside the data."""
    interval(ax, x, shown, name, color, alpha)
    reach_line(ax, x, shown, name, color)


FEW = 2  # values that are drawn as dots


def reach_line(ax: Axes, x: str, shown: xr.Dataset, name: str, color: Any, *, dots: bool = False) -> None:
    """Draw a variable along the dimension `x`, dashed and thin where it `extrapolates`, solid inside the data.

    With dots, every point inside has one. Without, a point inside whose neighbors are outside is a short piece of the solid line:
    a dot would be taken for another mark of the figure. One or two values are dots, hollow where they are extrapolated: a dashed line
    between two points cannot be told from a solid one.
    """
    inside = shown[name].where(~shown["extrapolates"])
    if shown.sizes[x] <= FEW:
        outside = shown[name].where(shown["extrapolates"])
        points(ax, shown[x], inside, color, 2, zorder=3.2, clip_on=False)
        hollow = {"markerfacecolor": look_of(ax).paper, "edge": 1.2}
        points(ax, shown[x], outside, color, 2, zorder=3.2, clip_on=False, **hollow)
    line(ax, shown[x], shown[name], color, 0.9, linestyle="--", zorder=3)
    line(ax, shown[x], inside, color, 1.6, zorder=3.1)
    if dots:
        points(ax, shown[x], inside, color, 1.5, zorder=3.2)
    else:
        lonely(ax, shown[x], inside, color, 3, edge=1.6, zorder=3.2)


def lonely(ax: Axes, x: Any, y: Any, color: Any, size: float, **kwargs: Any) -> None:
    """Mark the values that have no neighbor to be joined with by a line, and would not be seen."""
    padded = np.pad(np.asarray(y), 1, constant_values=np.nan)
    alone = np.isfinite(padded[1:-1]) & np.isnan(padded[:-2]) & np.isnan(padded[2:])
    if alone.any():
        points(ax, x[alone], y[alone], color, size, **{"marker": "_"} | kwargs)


def hatch_outside(ax: Axes, x: np.ndarray, outside: np.ndarray) -> None:
    """Hatch what lies below the lowest and above the highest x at which any curve of the panel is inside the data."""
    neutral, inside = look_of(ax).neutral, x[~outside]
    looks: dict[str, Any] = {
        "facecolor": "none",
        "edgecolor": neutral,
        "hatch": style.HATCH,
        "linewidth": 0,
        "alpha": 0.12,
    }
    if not inside.size:
        # Not `axvspan`, which takes no transform: it would stretch the axis to 0 and 1.
        ax.add_patch(Rectangle((0, 0), 1, 1, transform=ax.transAxes, zorder=0, **looks))
        return
    for low, high in ((x[0], inside[0]), (inside[-1], x[-1])):
        if low < high:
            ax.axvspan(low, high, zorder=0, **looks)


# Maps -----------------------------------------------------------------------------------------------------------------

STEPS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Levels of a map of probabilities."""


def step_colors() -> list[Any]:
    """Return the colors of `STEPS`."""
    return [matplotlib.colormaps["cividis"](float(x)) for x in np.linspace(0.05, 1.0, len(STEPS) - 1)]


def step_map(ax: Axes, chance: xr.DataArray, outside: xr.DataArray, y: str) -> None:
    """Draw a probability over budget and `y` in steps, hatched where it is extrapolated."""
    budgets, numbers = chance["budget"].values, chance[y].values
    values = np.ma.masked_invalid(chance.transpose(y, "budget").values)
    style.log_axis(ax.yaxis)
    mesh = ax.contourf(budgets, numbers, values, levels=STEPS, colors=step_colors(), zorder=0.5)
    mesh.set_edgecolor("face")
    hatch_map(ax, budgets, numbers, outside.transpose(y, "budget").values, 0.5, zorder=1)
    ax.set_ylim(numbers.min(), numbers.max())
    style.set_ticks(ax.yaxis, LogLocator(base=10, numticks=5), style.short)
    ax.grid(visible=False)


def hatch_map(ax: Axes, x: np.ndarray, y: np.ndarray, outside: np.ndarray, gray: float, *, zorder: float) -> None:
    """Hatch the part of a map that is extrapolated."""
    if outside.any():
        values = outside.astype(float)
        marked = ax.contourf(x, y, values, levels=[0.5, 1.5], colors="none", hatches=[style.HATCH[:2]], zorder=zorder)
        # White under black would hide the map; gray shows on its dark and on its light end.
        marked.set_edgecolor((gray, gray, gray, 0.8))
        marked.set_linewidth(0)


def tiles(ax: Axes, edges: np.ndarray, table: xr.DataArray, colors: Mapping[float, Any], **kwargs: Any) -> None:
    """Draw a table (row, column) as a map: a color for what is at least each level; names of the rows beside it."""
    rows(ax, [style.plain(name) for name in table[table.dims[0]].values], fontsize=kwargs.pop("fontsize"))
    # Finite levels; the last one is above everything.
    norm = BoundaryNorm([*colors, max(1.0, float(table.max())) + 1], len(colors))
    values = np.ma.masked_invalid(table.values)
    heights = np.arange(table.shape[0] + 1) - 0.5
    ax.pcolormesh(edges, heights, values, cmap=ListedColormap([*colors.values()]), norm=norm, **kwargs)
    ax.grid(visible=False)


# Names beside what they name ------------------------------------------------------------------------------------------


def rows(ax: Axes, names: Sequence[str], **kwargs: Any) -> np.ndarray:
    """Name rows from top to bottom, and return their places."""
    places = np.arange(len(names))
    ax.set_yticks(places, list(names), **kwargs)
    ax.set_ylim(len(names) - 0.5, -0.5)
    return places


def spread(positions: Sequence[float] | np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Return positions moved as little as a simple pass allows so that neighbors are `gap` apart, inside [low, high]."""
    wanted = np.asarray(positions, dtype=float)
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(wanted.size)
    placed = np.maximum.accumulate(wanted[order] - steps) + steps
    placed = np.maximum(np.minimum(placed, high - steps[::-1]), low)  # as high as the ones above leave room for
    result = np.empty_like(placed)
    result[order] = placed
    return result


def direct_labels(ax: Axes, x: float, ends: Mapping[str, tuple[float, Any]]) -> None:
    """Write names left of the ends (value, color) of curves at `x`, without overlap. Call it after `finish`."""
    look, to_axes = look_of(ax), ax.transData + ax.transAxes.inverted()
    places = to_axes.transform([(x, value) for value, _ in ends.values()])
    letter = look.small / (ax.get_window_extent().height / ax.figure.dpi * 72)
    heights = spread(places[:, 1], 1.05 * letter, 0.0, 1.0 - letter)
    for (name, (_, color)), height in zip(ends.items(), heights, strict=True):
        text(ax, places[0, 0], height, name, "axes fraction", color=color, ha="right", va="center")
