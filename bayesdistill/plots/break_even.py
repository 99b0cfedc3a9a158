"""How many students must share a teacher before distilling pays."""

from __future__ import annotations

from itertools import pairwise

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bayesdistill.plots import grids, style
from bayesdistill.plots.style import Look

LEVELS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_OUTCOMES = (
    ("alone", "pays for one student", 0),
    ("shared", "pays if shared", 4),
    ("beyond", "pays only for more than searched", 3),
    ("never", "never pays", 5),
    ("impossible", "no strategy fits", None),
)
"""Outcome, words, and its colour (of Okabe and Ito)."""


def plot_break_even(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """The probability that distilling pays over budget and number of students that share the teacher, and its break-even.

    Parameters
    ----------
    found : Dataset
        What `break_even` returns for several budgets: pays_probability, pays_extrapolates, students_per_teacher_quantile,
        status_probability.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

    Returns
    -------
    Figure
        For each student a map with the quantiles of the break-even number, hatched where it is extrapolated, and below it the
        probability of each outcome.

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, has a single budget, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> found = bd.break_even(published, "1B", [1e20, 1e21, 1e22])
    >>> bd.plot_break_even(found).savefig("break_even.png")  # doctest: +SKIP
    """
    needed = [
        "pays_probability",
        "pays_extrapolates",
        "students_per_teacher_quantile",
        "status_probability",
        "shared_by",
        "budget",
        "student",
    ]
    grids.need(found, needed, "the argument of plot_break_even", "break_even()")
    grids.need_several(found, "budget")
    look = style.make_look(size, dark)
    students = grids.sorted_students(found)
    with style.drawing(look):
        heights = [1.5, 0.8] if look.tall else [2.2, 1.0]
        columns = 4 if look.size == "slide" else 2
        figure = style.new_figure(look, -(-len(students) // min(columns, len(students))) * sum(heights))
        groups, columns = grids.shape_panels(figure, look, len(students), heights, columns)
        for (top, bottom), student in zip(groups, students, strict=True):
            one = found.sel(student=student)
            draw_map(
                top,
                look,
                one["budget"].values,
                one["shared_by"].values,
                one["pays_probability"],
                one["pays_extrapolates"],
            )
            _draw_quantiles(top, look, one)
            _draw_outcomes(bottom, look, one)
            style.panel_title(top, f"student {style.short(student)}", 40)
            style.flops_axis(bottom.xaxis)
        labels = ["students that\nshare the teacher", "probability"]
        grids.label_groups(groups, columns, "compute budget [FLOPs]", labels, look)
        levels = [float(q) for q in found["quantile"].values]
        outer = f"{100 * levels[0]:g} and {100 * levels[-1]:g} %"
        entries: list[Artist] = [
            *map_entries("P(distilling pays)"),
            style.hatch_entry("extrapolated", look),
            style.line_entry("break-even: median", look.ink, width=1.4 * look.line),
            style.line_entry(f"break-even: {outer} quantile", look.ink, linestyle=":", width=1.2 * look.line),
        ]
        entries += [
            Patch(facecolor=_color(color, look), edgecolor="none", label=words)
            for outcome, words, color in _OUTCOMES
            if float(found["status_probability"].sel(outcome=outcome).max()) > 0
        ]
        warnings, notes = style.fit_notes(found)
        style.finish(
            figure,
            look,
            title="How many students must share a teacher before distilling pays",
            handles=entries,
            warnings=warnings,
            notes=[
                "The budget is that of one student. Charged to each of K students that share a teacher: 1/K of its pretraining and "
                f"{100 * found.attrs['delta_lgt']:g} % of its inference. Best strategy of each draw. Hatched where, in the median "
                "over draws, it or pretraining lies outside the runs that the posterior has seen.",
                *notes,
            ],
        )
    return figure


def draw_map(
    ax: Axes, look: Look, budgets: np.ndarray, numbers: np.ndarray, chance: xr.DataArray, outside: xr.DataArray
) -> None:
    """Probability over budget and number of students, in steps, hatched where it is extrapolated."""
    ax.set_yscale("log")
    values = chance.transpose(..., "budget").values
    mesh = ax.contourf(budgets, numbers, np.ma.masked_invalid(values), levels=LEVELS, colors=_shades(), zorder=0.5)
    mesh.set_edgecolor("face")
    _hatch(ax, budgets, numbers, outside.transpose(..., "budget").values, 0.5, zorder=1)
    ax.set_ylim(numbers.min(), numbers.max())
    ax.yaxis.set_major_locator(LogLocator(base=10, numticks=5))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: style.short(value)))
    ax.grid(visible=False)


def _hatch(ax: Axes, x: np.ndarray, y: np.ndarray, outside: np.ndarray, grey: float, zorder: float) -> None:
    if outside.any():
        marked = ax.contourf(
            x, y, outside.astype(float), levels=[0.5, 1.5], colors="none", hatches=[style.HATCH], zorder=zorder
        )
        # White under black would hide the map; grey shows on its dark and on its light end.
        marked.set_edgecolor((grey, grey, grey, 0.8))
        marked.set_linewidth(0)


def map_entries(what: str) -> list[Artist]:
    """Legend entries of the steps of `draw_map`."""
    words = [f"{low:g} to {high:g}" for low, high in pairwise(LEVELS)]
    words[0] = f"{what} {words[0]}"
    entries: list[Artist] = [
        Patch(facecolor=shade, edgecolor="none", label=text) for shade, text in zip(_shades(), words, strict=True)
    ]
    return entries


def _shades() -> list[tuple[float, float, float, float]]:
    colormap = matplotlib.colormaps["cividis"]
    return [colormap(float(x)) for x in np.linspace(0.05, 1.0, len(LEVELS) - 1)]


def _draw_quantiles(ax: Axes, look: Look, one: xr.Dataset) -> None:
    """Break-even numbers; where they are infinite the line leaves through the top."""
    quantiles = one["students_per_teacher_quantile"].transpose("quantile", "budget").values
    top = 10 * float(one["shared_by"].max())
    for i, values in enumerate(quantiles):
        middle = i == len(quantiles) // 2
        if not middle and 0 < i < len(quantiles) - 1:
            continue
        ax.plot(
            one["budget"].values,
            np.where(np.isinf(values), top, values),
            color="#ffffff" if middle else "#e0e0e0",
            linewidth=(2.6 if middle else 2.2) * look.line,
            linestyle="-" if middle else ":",
            zorder=2,
        )
        ax.plot(
            one["budget"].values,
            np.where(np.isinf(values), top, values),
            color="#000000",
            linewidth=(1.4 if middle else 1.2) * look.line,
            linestyle="-" if middle else ":",
            zorder=2.1,
        )


def _draw_outcomes(ax: Axes, look: Look, one: xr.Dataset) -> None:
    chance = one["status_probability"].transpose("outcome", "budget")
    names = [outcome for outcome, _, _ in _OUTCOMES]
    colors = [_color(color, look) for _, _, color in _OUTCOMES]
    ax.stackplot(one["budget"].values, chance.sel(outcome=names).values, colors=colors, linewidth=0, zorder=2)
    if "extrapolates" in one:
        outside = np.broadcast_to(one["extrapolates"].values, (2, one.sizes["budget"]))
        _hatch(ax, one["budget"].values, np.array([0.0, 1.0]), outside, 0.25, zorder=2.5)
    ax.set_ylim(0, 1)
    ax.set_xlim(one["budget"].values.min(), one["budget"].values.max())


def _color(index: int | None, look: Look) -> str:
    return look.neutral if index is None else style.OKABE_ITO[index]
