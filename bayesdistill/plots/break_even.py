"""How many students must share a teacher before distilling pays."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill.plots import grids, style, visuals
from bayesdistill.plots.collection import drawing
from bayesdistill.plots.docstrings import documented
from bayesdistill.plots.style import OKABE_ITO

_NEEDED = "pays_probability pays_extrapolates students_per_teacher_quantile status_probability shared_by budget student"
_OUTCOMES = {
    "alone": ("pays for one student", OKABE_ITO[0]),
    "shared": ("pays if shared", OKABE_ITO[4]),
    "beyond": ("pays only for more than searched", OKABE_ITO[3]),
    "never": ("never pays", OKABE_ITO[5]),
    "impossible": ("no strategy fits", None),
}
"""Outcome -> words and color; that of the look where there is none."""


@documented
def plot_break_even(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """The probability that distilling pays over budget and number of students that share the teacher, and its break-even.

    Parameters
    ----------
    found : Dataset
        What `break_even` returns for several budgets: pays_probability, pays_extrapolates, students_per_teacher_quantile,
        status_probability.
    {size}

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
    grids.need(found, _NEEDED, "the argument of plot_break_even", "break_even()")
    grids.need_several(found, "budget")
    with drawing(size, dark) as plot:
        look, legend = plot.look, plot.legend
        heights = look.pick([1.5, 0.8], [2.2, 1.0])
        for (top, bottom), cell in plot.facets(grids.cells(found, "student"), heights, look.pick(2, 2, 4)):
            visuals.step_map(top, cell["pays_probability"], cell["pays_extrapolates"], "shared_by")
            _draw_quantiles(top, cell)
            _draw_outcomes(bottom, cell)
            style.flops_axis(bottom.xaxis)
        plot.label("compute budget [FLOPs]", ["students that\nshare the teacher", "probability"])
        legend.levels("P(distilling pays) ", visuals.STEPS, visuals.step_colors())
        legend.hatch("extrapolated")
        legend.line("break-even: median", width=1.4)
        legend.line(f"break-even: {grids.outer_quantiles(found, 'and')} quantile", linestyle=":", width=1.2)
        for outcome, (words, color) in _OUTCOMES.items():
            if float(found["status_probability"].sel(outcome=outcome).max()) > 0:
                legend.patch(words, color or look.neutral)
        notes = [
            "The budget is that of one student. Charged to each of K students that share a teacher: 1/K of its pretraining and "
            f"{100 * found.attrs['delta_lgt']:g} % of its inference. Best strategy of each draw. Hatched where, in the median "
            "over draws, it or pretraining lies outside the runs that the posterior has seen."
        ]
        return plot.finish("How many students must share a teacher before distilling pays", notes, fit=found)


def _draw_quantiles(ax: Axes, cell: xr.Dataset) -> None:
    """Draw the break-even numbers; where they are infinite the line leaves through the top."""
    values = cell["students_per_teacher_quantile"].transpose("quantile", "budget").values
    values = np.where(np.isinf(values), 10 * float(cell["shared_by"].max()), values)
    for i in sorted({0, len(values) // 2, len(values) - 1}):
        middle = i == len(values) // 2
        for color, width, zorder in (
            ("#ffffff" if middle else "#e0e0e0", 2.6 if middle else 2.2, 2),
            ("#000000", 1.4 if middle else 1.2, 2.1),
        ):
            style_of = "-" if middle else ":"
            visuals.line(ax, cell["budget"].values, values[i], color, width, linestyle=style_of, zorder=zorder)


def _draw_outcomes(ax: Axes, cell: xr.Dataset) -> None:
    budgets = cell["budget"].values
    chance = cell["status_probability"].transpose("outcome", "budget").sel(outcome=list(_OUTCOMES))
    colors = [color or visuals.look_of(ax).neutral for _, color in _OUTCOMES.values()]
    ax.stackplot(budgets, chance.values, colors=colors, linewidth=0, zorder=2)
    if "extrapolates" in cell:
        outside = np.broadcast_to(cell["extrapolates"].values, (2, budgets.size))
        visuals.hatch_map(ax, budgets, np.array([0.0, 1.0]), outside, 0.25, zorder=2.5)
    ax.set_ylim(0, 1)
    ax.set_xlim(budgets.min(), budgets.max())
