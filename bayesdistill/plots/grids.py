"""What figures over student, scenario and budget share: which cells exist, which lie outside the data, and how to say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bayesdistill import posterior
from bayesdistill.errors import ParameterError
from bayesdistill.plots import style
from bayesdistill.plots.style import Look


def need(data: xr.Dataset, names: Sequence[str], what: str, maker: str) -> None:
    """Refuse a Dataset that lacks variables.

    Raises
    ------
    ParameterError
        Naming what is missing and which function makes it.
    """
    if not isinstance(data, xr.Dataset):
        raise ParameterError(f"{what} is a {type(data).__name__}; an xarray Dataset as {maker} returns it is needed")
    missing = [name for name in names if name not in data.variables]
    if missing:
        raise ParameterError(f"this Dataset has no {', '.join(missing)}; {what} is what {maker} returns")


def need_units(data: xr.Dataset, name: str, units: str, maker: str) -> None:
    """Refuse a Dataset whose axis is of another kind.

    Raises
    ------
    ParameterError
        Naming the units that were found.
    """
    found = data[name].attrs.get("units", "none")
    if found != units:
        raise ParameterError(f"{name} has the units {found!r}; {units} are needed, as {maker} gives them")


def need_several(data: xr.Dataset, name: str) -> None:
    """Refuse a Dataset with a single point on an axis along which something is drawn.

    Raises
    ------
    ParameterError
        Naming the axis.
    """
    if data.sizes.get(name, 0) < 2:
        raise ParameterError(f"{name}: at least two are needed to draw along it")


def summaries(data: xr.Dataset, names: Sequence[str], prob: float, keep: Sequence[str] = ()) -> xr.Dataset:
    """Median of each named variable under its own name, its interval as `_lower` and `_upper`; `keep` as it is."""
    found = {name: data[name] for name in keep}
    for name in names:
        bounds = posterior.interval(data[name], prob)
        found[name] = posterior.median(data[name])
        found[f"{name}_lower"] = bounds.sel(bound="lower", drop=True)
        found[f"{name}_upper"] = bounds.sel(bound="upper", drop=True)
    return xr.Dataset(found)


def band(
    ax: Axes, x: np.ndarray, shown: xr.Dataset, name: str, color: Any, alpha: float = 0.25, zorder: float = 2
) -> None:
    """The interval of a variable of `summaries` along x."""
    low, high = shown[f"{name}_lower"].values, shown[f"{name}_upper"].values
    ax.fill_between(x, low, high, color=color, alpha=alpha, linewidth=0, zorder=zorder)


def curve(
    ax: Axes, look: Look, x: np.ndarray, shown: xr.Dataset, name: str, color: Any, *, alpha: float = 0.25
) -> None:
    """Median and interval of a variable of `summaries` along x, by what `extrapolates` says inside or outside the data."""
    band(ax, x, shown, name, color, alpha)
    reach_line(ax, look, x, shown[name].values, shown["extrapolates"].values, color, dots=False)


def reach_line(
    ax: Axes, look: Look, x: np.ndarray, y: np.ndarray, outside: np.ndarray, color: Any, *, dots: bool = True
) -> None:
    """A curve, dashed and thin where it lies outside the data; full, with a dot at each point, inside.

    Without dots, a point inside whose neighbours are outside is a short piece of the full line: a dot would be taken for another
    mark of the figure.
    """
    ax.plot(x, y, color=color, linestyle="--", linewidth=0.9 * look.line, zorder=3)
    inside = np.where(outside, np.nan, y)
    alone = lonely(inside)
    ax.plot(x, inside, color=color, linewidth=1.6 * look.line, zorder=3.1)
    if dots:
        ax.plot(x, inside, color=color, linestyle="none", marker="o", markersize=1.5 * look.marker, zorder=3.2)
    elif alone.any():
        ax.plot(
            x, np.where(alone, inside, np.nan), color=color, linestyle="none", marker="_", markersize=3 * look.marker,
            markeredgewidth=1.6 * look.line, zorder=3.2,
        )  # fmt: skip


def lonely(values: np.ndarray) -> np.ndarray:
    """Which values have no neighbour to be joined with by a line, and would not be seen."""
    padded = np.concatenate([[np.nan], values, [np.nan]])
    return np.isfinite(values) & np.isnan(padded[:-2]) & np.isnan(padded[2:])


def hatch_outside(ax: Axes, look: Look, budgets: np.ndarray, outside: np.ndarray) -> None:
    """Hatch what lies below the lowest and above the highest budget at which any curve of the panel is inside the data.

    The x axis may show something else than budgets.
    """
    inside = np.flatnonzero(~outside)
    if not inside.size:
        # Not `axvspan`, which takes no transform: it would stretch the axis to 0 and 1.
        ax.add_patch(Rectangle((0, 0), 1, 1, transform=ax.transAxes, **_hatching(look)))
        return
    if inside[0] > 0:
        ax.axvspan(budgets[0], budgets[inside[0]], **_hatching(look))
    if inside[-1] < budgets.size - 1:
        ax.axvspan(budgets[inside[-1]], budgets[-1], **_hatching(look))


def _hatching(look: Look) -> dict[str, Any]:
    return {
        "facecolor": "none",
        "edgecolor": look.neutral,
        "hatch": style.HATCH,
        "linewidth": 0,
        "alpha": 0.3,
        "zorder": 0,
    }


def reach_entries(look: Look, *, dots: bool = True, whose: str = "for every student") -> list[Artist]:
    """Legend entries that explain `reach_line` and `hatch_outside`."""
    return [
        style.line_entry("inside the data", look.ink, marker="o" if dots else "", width=1.6 * look.line),
        style.line_entry("extrapolated", look.ink, linestyle="--", width=0.9 * look.line),
        style.hatch_entry(f"outside the data {whose}", look),
    ]


def student_entries(look: Look, students: Sequence[float], colors: Mapping[float, Any], width: float) -> list[Artist]:
    """Legend entries for the colours of student sizes; the first says what they are."""
    return [
        style.line_entry(f"{'' if i else 'student '}{style.short(s)}", colors[s], width=width * look.line)
        for i, s in enumerate(students)
    ]


def spent_axis(plan: xr.Dataset) -> str:
    """What a plan runs over: budget, or tokens if that is what it was made for."""
    return "tokens" if isinstance(plan, xr.Dataset) and "tokens" in plan.dims else "budget"


def left_out(plan: xr.Dataset) -> list[str]:
    """Sentences on the cells that have no strategy, and are therefore not drawn."""
    axis = spent_axis(plan)
    missing = plan["probability"].isnull()
    found = []
    for scenario in plan["scenario"].values:
        parts = []
        for student in plan["student"].values:
            gone = missing.sel(scenario=scenario, student=student)
            without = plan[axis].values[gone.values]
            if without.size == plan.sizes[axis]:
                parts.append(f"{style.short(student)} at every point")
            elif without.size:
                parts.append(
                    f"{style.short(student)} at {without.size} points up to {style.power_of_ten(without.max())}"
                )
        if parts:
            found.append(f"{style.plain(scenario)}: {', '.join(parts)}")
    return [f"Not drawn, because no strategy fits the budget: {'; '.join(found)}."] if found else []


def sorted_students(data: xr.Dataset) -> list[float]:
    """Students by size."""
    return sorted(float(value) for value in data["student"].values)


def panel_shape(look: Look, count: int) -> tuple[int, int]:
    """Rows and columns for so many equal panels."""
    columns = 1 if count == 1 or (look.tall and count == 3) else 2
    if look.size == "slide" and count not in (1, 2, 4):
        columns = min(count, 4)
    return -(-count // columns), columns


def label_outer(axes: np.ndarray, count: int, x: str, y: str) -> None:
    """Labels of the x axis under the lowest panel of each column, of the y axis left of each row."""
    rows, columns = axes.shape
    if columns > 2:
        x = x.replace(" [", "\n[")
    for column in range(columns):
        used = [row for row in range(rows) if row * columns + column < count]
        if used:
            lowest = axes[used[-1], column]
            lowest.set_xlabel(x)
            lowest.tick_params(labelbottom=True)
    for row in range(rows):
        axes[row, 0].set_ylabel(y)


def noise_note(plan: xr.Dataset) -> str:
    """Whether the law's mean curves are compared or a pair of runs."""
    if plan.attrs.get("noise", "law") == "run":
        return "Two single runs are compared, with their residual noise."
    return "Expected losses are compared, without the residual noise of single runs."


def same_scale(axes: Sequence[Axes]) -> None:
    """Give panels that are compared the limits that hold all of them."""
    limits = [ax.get_ylim() for ax in axes]
    for ax in axes:
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def crossover_summary(
    crossover: xr.DataArray, status: xr.DataArray, lowest: float, highest: float, prob: float
) -> xr.Dataset:
    """Lower bound, median and upper bound of crossovers over all draws, those without one included.

    A draw in which distillation is ahead at the highest budget has its crossover, if any, beyond it; one in which pretraining
    is ahead throughout, below the lowest. A value below `lowest` or above `highest` says just that. NaN if no strategy fits
    any budget.
    """
    names = dict(zip(status.attrs["flag_meanings"].split(), np.atleast_1d(status.attrs["flag_values"]), strict=True))
    above = (status == names["always"]) | (status == names["reversed"])
    # Finite stand-ins: a quantile between two infinite values would be NaN.
    whole = crossover.where(~above, 10 * highest).where(status != names["never"], lowest / 10)
    shown = summaries(whole.to_dataset(name="crossover"), ["crossover"], prob)
    shown = shown.rename(crossover="median", crossover_lower="lower", crossover_upper="upper")
    return shown.where((status != names["impossible"]).all(("chain", "draw")))


def shape_panels(
    figure: Figure, look: Look, count: int, heights: Sequence[float], columns: int
) -> tuple[np.ndarray, int]:
    """Axes for `count` groups of panels, each group `heights` stacked panels, as an array (count, len(heights)); columns used."""
    columns = min(columns, count)
    bands = -(-count // columns)
    axes = style.panels(figure, look, len(heights) * bands, columns, share_y=False, height_ratios=list(heights) * bands)
    groups = []
    for i in range(bands * columns):
        row, column = divmod(i, columns)
        group = axes[len(heights) * row : len(heights) * (row + 1), column]
        groups.append(group)
        if i >= count:
            for ax in group:
                ax.set_axis_off()
    chosen = np.array(groups[:count])
    for i, group in enumerate(chosen):
        lowest = i + columns >= count
        for ax in group[:-1]:
            ax.tick_params(labelbottom=False)
        group[-1].tick_params(labelbottom=lowest)
    return chosen, columns


def label_groups(
    groups: np.ndarray,
    columns: int,
    x: str,
    y: Sequence[str],
    look: Look,
    *,
    same: bool = True,
    repeat: bool | None = None,
) -> None:
    """Axis labels at the outer panels of `shape_panels`.

    With `same`, panels that are compared get the same limits; with `repeat` (by default where limits differ) the numbers of
    the y axis stand at every panel.
    """
    repeat = not same if repeat is None else repeat
    if same:
        for kind in range(groups.shape[1]):
            same_scale(list(groups[:, kind]))
    if (look.tall and columns > 1) or (look.size == "slide" and columns > 2 and len(x) > 26):
        x = x.replace(" [", "\n[")
    if look.tall and columns > 1:
        x = x.replace("[non-embedding ", "[non-embedding\n")
    if look.size == "slide":
        y = [text.replace(" [", "\n[") for text in y]
    for i, group in enumerate(groups):
        if i + columns >= len(groups):
            group[-1].set_xlabel(x)
        for ax, text in zip(group, y, strict=True):
            ax.tick_params(labelleft=i % columns == 0 or repeat)
            if i % columns == 0:
                ax.set_ylabel(text, fontsize=look.small if len(y) > 1 else look.font)


def percent(prob: float) -> str:
    """A probability for a legend."""
    return f"{100 * prob:g} %"
