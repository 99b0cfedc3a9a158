"""The budget beyond which pretraining wins: where it is, how it grows with the student, whether there is one."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator

from bayesdistill.plots import grids, style
from bayesdistill.plots.style import Look

_OUTCOMES = (
    ("crossed", "pretraining overtakes", 1),
    ("always", "distillation always ahead", 0),
    ("reversed", "distillation overtakes", 4),
    ("never", "pretraining always ahead", 5),
    ("impossible", "no strategy fits", None),
)
"""Outcome, words, and its colour (of Okabe and Ito): blues where distillation is ahead at the largest budget, reds where
pretraining is. The two that overtake are of one lightness; the second is hatched, so that they differ in grey too."""
_HATCHES = {"reversed": "...."}


def plot_crossover(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Quantiles of the crossover budget against student size, and the probability of each outcome, for each scenario.

    Parameters
    ----------
    found : Dataset
        What `crossovers` returns: crossover_quantile, status_probability, seen_budget, slope_quantile and
        slope_positive_probability; or `compare_crossovers`, which adds a row of panels for each fit.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

    Returns
    -------
    Figure
        Quantiles count draws without a crossover: an arrow up says that distillation is still ahead at the largest budget
        that was looked at, one down that it never is.

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> found = bd.crossovers(published, ["300M", "1B"], "best case", budgets=[1e19, 1e21, 1e23, 1e25])
    >>> bd.plot_crossover(found).savefig("crossover.png")  # doctest: +SKIP
    """
    needed = ["crossover_quantile", "status_probability", "seen_budget", "slope_quantile", "slope_positive_probability"]
    grids.need(found, [*needed, "student", "scenario", "outcome"], "the argument of plot_crossover", "crossovers()")
    look = style.make_look(size, dark)
    students = grids.sorted_students(found)
    scenarios = [str(name) for name in found["scenario"].values]
    fits = [str(name) for name in found["fit"].values] if "fit" in found.dims else [""]
    pairs = [(fit, scenario) for fit in fits for scenario in scenarios]
    colors = style.size_colors(students, look)
    levels = [float(q) for q in found["quantile"].values]
    with style.drawing(look):
        heights = [1.5, 0.9] if look.tall else [2.2, 1.2]
        columns = 2 if look.tall else 4
        if len(fits) > 1:
            # A row for each fit, or fits side by side.
            columns = min(columns, len(scenarios)) if len(scenarios) > 1 else columns
        figure = style.new_figure(look, -(-len(pairs) // min(columns, len(pairs))) * sum(heights))
        groups, columns = grids.shape_panels(figure, look, len(pairs), heights, columns)
        for (top, bottom), (fit, scenario) in zip(groups, pairs, strict=True):
            cell = found.sel({"scenario": scenario, "fit": fit} if fit else {"scenario": scenario})
            _draw_quantiles(top, look, cell, students, colors, found.attrs)
            _draw_outcomes(bottom, look, cell, students)
            words = _slope_words(cell)
            style.panel_title(top, f"{fit}: {scenario}" if fit else scenario, 24 if look.size == "slide" else 20)
            top.text(
                0.03, 0.98, words, transform=top.transAxes, fontsize=look.small, va="top", zorder=6,
                bbox={"facecolor": look.paper, "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
        labels = ["crossover budget [FLOPs]", "probability"]
        grids.label_groups(groups, columns, "student size [parameters]", labels, look)
        _finish(figure, look, found, levels)
    return figure


def _draw_quantiles(
    ax: Axes, look: Look, cell: xr.Dataset, students: list[float], colors: dict[float, object], attrs: dict[str, float]
) -> None:
    lowest, highest = float(attrs["lowest_budget"]), float(attrs["highest_budget"])
    ax.set_yscale("log")
    for i, student in enumerate(students):
        one = cell.sel(student=student)
        seen = one["seen_budget"].values
        if np.isfinite(seen).all():
            ax.fill_between([i - 0.4, i + 0.4], *seen, color=look.neutral, alpha=0.3, linewidth=0, zorder=1)
        values = one["crossover_quantile"].values
        if np.isnan(values).any():
            continue
        drawn = np.clip(values, lowest, highest)
        color = colors[student]
        count = len(drawn)
        for k in range(count // 2):
            # The outer pair thin, the next one thicker.
            ax.plot(
                [i, i], [drawn[k], drawn[count - 1 - k]], color=color, linewidth=(1 + 2.5 * k) * look.line, zorder=3
            )
        if values[0] < lowest:
            ax.plot(i, lowest, marker="v", color=color, markersize=3 * look.marker, zorder=7, clip_on=False)
        if values[-1] > highest:
            ax.plot(i, highest, marker="^", color=color, markersize=3 * look.marker, zorder=7, clip_on=False)
        middle = values[count // 2]
        if count % 2 and lowest <= middle <= highest:
            ax.plot(
                i, middle, marker="o", color=look.paper, markeredgecolor=color, markersize=2.2 * look.marker,
                markeredgewidth=look.line, zorder=5,
            )  # fmt: skip
    # Room above for the words on the slope.
    ax.set_ylim(lowest / 3, highest * (highest / lowest) ** 0.4)
    style.flops_axis(ax.yaxis)
    decades = np.arange(np.ceil(np.log10(lowest) - 1e-9), np.floor(np.log10(highest) + 1e-9) + 1)
    ax.yaxis.set_major_locator(FixedLocator(list(10.0 ** decades[:: max(1, round(len(decades) / 5))])))


def _draw_outcomes(ax: Axes, look: Look, cell: xr.Dataset, students: list[float]) -> None:
    base = np.zeros(len(students))
    chance = cell["status_probability"].sel(student=students)
    for outcome, _, color in _OUTCOMES:
        if outcome not in cell["outcome"].values:
            continue
        values = chance.sel(outcome=outcome).values
        ax.bar(
            range(len(students)), values, 0.8, bottom=base, facecolor=_outcome_color(color, look), edgecolor=look.paper,
            hatch=_HATCHES.get(outcome), linewidth=0.3 * look.line, zorder=2,
        )  # fmt: skip
        base = base + values
    ax.set_ylim(0, 1)
    ax.set_xlim(-0.6, len(students) - 0.4)
    ax.set_xticks(range(len(students)), [style.short(student) for student in students])


def _outcome_color(index: int | None, look: Look) -> str:
    return look.neutral if index is None else style.OKABE_ITO[index]


def _slope_words(cell: xr.Dataset) -> str:
    quantiles = cell["slope_quantile"].values
    if np.isnan(quantiles).any():
        return "no draw in which\nevery student crosses"
    share = float(cell["slope_probability"])
    middle = quantiles[len(quantiles) // 2]
    often = "< 1" if share < 0.01 else f"{100 * share:.0f}"
    span = f"{quantiles[0]:.1f} to {quantiles[-1]:.1f}".replace("-", "\N{MINUS SIGN}")
    return f"goes as size$^{{{middle:.1f}}}$\n({span}; in {often} % of draws)"


def _finish(figure: Figure, look: Look, found: xr.Dataset, levels: list[float]) -> None:
    outer = f"{100 * levels[0]:g} to {100 * levels[-1]:g} %"
    entries: list[Artist] = [
        style.line_entry(f"crossover: median and quantiles, {outer}", look.ink, marker="o"),
        style.line_entry("distillation still ahead at the largest budget", look.ink, linestyle="none", marker="^"),
        style.line_entry("pretraining ahead throughout", look.ink, linestyle="none", marker="v"),
        style.band_entry("pretraining budgets of the data", look.neutral, 0.3),
    ]
    entries += [
        Patch(
            facecolor=_outcome_color(color, look),
            edgecolor=look.paper,
            linewidth=0,
            hatch=_HATCHES.get(outcome),
            label=words,
        )
        for outcome, words, color in _OUTCOMES
        if outcome in found["outcome"].values and float(found["status_probability"].sel(outcome=outcome).max()) > 0
    ]
    warnings, notes = style.fit_notes(found)
    low, high = style.power_of_ten(found.attrs["lowest_budget"]), style.power_of_ten(found.attrs["highest_budget"])
    notes = [
        f"Crossover: the budget from which on pretraining is ahead, looked for from {low} to {high} FLOPs. The power of the "
        "student's size with which it goes is that of the draws in which every student crosses (median and outer quantiles).",
        *notes,
    ]
    style.finish(
        figure,
        look,
        title="The budget beyond which pretraining wins",
        handles=entries,
        warnings=warnings,
        notes=notes,
    )
