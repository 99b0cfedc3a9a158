"""The budget beyond which pretraining wins: where it is, how it grows with the student, whether there is one."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from bayesdistill.plots import collection, grids, style, visuals

_OUTCOMES = {
    "crossed": ("pretraining overtakes", style.OKABE_ITO[1]),
    "always": ("distillation ahead at every budget", style.OKABE_ITO[0]),
    "reversed": ("distillation overtakes", style.OKABE_ITO[4]),
    "never": ("pretraining ahead at every budget", style.OKABE_ITO[5]),
    "impossible": ("no strategy fits", ""),
}
"""Outcome -> words and color: blues where distillation is ahead at the largest budget, reds where pretraining is. The two that
overtake are of one lightness; the second is hatched, so that they differ in gray too."""
_HATCHES = {"reversed": "...."}


@collection.documented
def plot_crossover(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Quantiles of the crossover budget against student size, and the probability of each outcome, for each scenario.

    Parameters
    ----------
    found : Dataset
        What `crossovers` returns: crossover_quantile, status_probability, seen_budget, slope_quantile and
        slope_positive_probability; or `compare_crossovers`, which adds a row of panels for each fit.
    {size}

    Returns
    -------
    Figure
        Quantiles count draws without a crossover: an arrow up says that distillation is still ahead at the largest budget
        that was looked at, one down that it never is.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> found = bd.crossovers(published, ["300M", "1B"], "best case", budgets=[1e19, 1e21, 1e23, 1e25])
    >>> bd.plot_crossover(found).savefig("crossover.png")  # doctest: +SKIP
    """
    with collection.drawing("crossover", found, size, dark) as (plot, look, legend):
        limits = float(found.attrs["lowest_budget"]), float(found.attrs["highest_budget"])
        shown = limits[0], _highest_shown(found, limits[1])
        cells, columns = grids.cells(found, "scenario"), look.pick(2, 4)
        if "fit" in found.dims:
            columns = (
                min(columns, len(cells)) if len(cells) > 1 else columns
            )  # a row for each fit, or fits side by side
            cells = grids.cells(found, "fit", "scenario", joint=": ")
        colors = style.size_colors(found["student"].values, look)
        for (top, bottom), cell in plot.facets(cells, columns=columns):
            for place, (student, color) in enumerate(colors.items()):
                _draw_quantiles(top, place, cell.sel(student=student), color, *shown)
            _budget_axis(top, *shown)
            _draw_outcomes(bottom, cell.sel(student=list(colors)))
            box = {"facecolor": look.paper, "edgecolor": "none", "pad": 0.5}
            visuals.text(top, 0.03, 0.98, _slope_words(cell), "axes fraction", va="top", zorder=6, bbox=box)
        legend.line(f"crossover: median and quantiles, {grids.outer_quantiles(found)}", marker="o")
        legend.points("distillation still ahead at the largest budget", marker="^")
        legend.points("pretraining ahead throughout", marker="v")
        legend.band("pretraining budgets of the data", look.neutral, 0.3)
        legend.outcomes(_OUTCOMES, found["status_probability"], hatches=_HATCHES)
        lowest, highest = map(style.power_of_ten, limits)
        return plot.finish(grids.changes_note(found), lowest=lowest, highest=highest)


def _highest_shown(found: xr.Dataset, highest: float) -> float:
    """Return the largest budget of the axis: two decades above all quantiles within the budgets that were looked at."""
    values = np.concatenate([found[name].values.ravel() for name in ("crossover_quantile", "seen_budget")])
    inside = values[np.isfinite(values) & (values <= highest)]
    return float(min(highest, 10 ** (np.ceil(np.log10(inside.max())) + 2))) if inside.size else highest


def _draw_quantiles(ax: Axes, place: int, one: xr.Dataset, color: object, lowest: float, highest: float) -> None:
    """Draw the crossover of one student; arrows where a quantile lies beyond the budgets that were looked at."""
    look, seen, values = visuals.look_of(ax), one["seen_budget"].values, one["crossover_quantile"].values
    if np.isfinite(seen).all():
        visuals.band(ax, [place - 0.4, place + 0.4], seen[0], seen[1], look.neutral, 0.3, zorder=1)
    if np.isnan(values).any():
        return
    drawn, count = np.clip(values, lowest, highest), len(values)
    for k in range(count // 2):
        # The outer pair thin, the next one thicker.
        visuals.line(ax, [place, place], [drawn[k], drawn[-1 - k]], color, 1 + 2.5 * k, zorder=3)
    if values[0] < lowest:
        visuals.points(ax, place, lowest, color, 3, marker="v", zorder=7, clip_on=False)
    if values[-1] > highest:
        visuals.points(ax, place, highest, color, 3, marker="^", zorder=7, clip_on=False)
    middle = values[count // 2]
    if count % 2 and lowest <= middle <= highest:
        visuals.points(ax, place, middle, look.paper, 2.2, markeredgecolor=color, edge=1, zorder=5)


def _budget_axis(ax: Axes, lowest: float, highest: float) -> None:
    style.flops_axis(ax.yaxis)
    # Room above for the words on the slope.
    ax.set_ylim(lowest / 3, highest * (highest / lowest) ** 0.4)
    decades = np.arange(np.ceil(np.log10(lowest) - 1e-9), np.floor(np.log10(highest) + 1e-9) + 1)
    ax.yaxis.set_major_locator(FixedLocator(list(10.0 ** decades[:: max(1, round(len(decades) / 5))])))


def _draw_outcomes(ax: Axes, cell: xr.Dataset) -> None:
    look, places, base = visuals.look_of(ax), np.arange(cell.sizes["student"]), np.zeros(cell.sizes["student"])
    for outcome in [name for name in _OUTCOMES if name in cell["outcome"]]:
        values, color = cell["status_probability"].sel(outcome=outcome).values, _OUTCOMES[outcome][1] or look.neutral
        bars = ax.bar(places, values, 0.8, bottom=base, color=color, linewidth=0.3 * look.line, zorder=2)
        for bar in bars:
            bar.set(edgecolor=look.paper, hatch=_HATCHES.get(outcome))
        base = base + values
    ax.set(xlim=(-0.6, places.size - 0.4), ylim=(0, 1))
    ax.set_xticks(places, [style.short(student) for student in cell["student"].values])


def _slope_words(cell: xr.Dataset) -> str:
    quantiles = cell["slope_quantile"].values
    if np.isnan(quantiles).any():
        return "no draw in which\nevery student crosses"
    share = float(cell["slope_probability"])
    often = "< 1" if share < 0.01 else f"{100 * share:.0f}"
    span = f"{quantiles[0]:.1f} to {quantiles[-1]:.1f}".replace("-", "\N{MINUS SIGN}")
    return f"scales as size$^{{{quantiles[len(quantiles) // 2]:.1f}}}$\n({span}; in {often}% of draws)"
