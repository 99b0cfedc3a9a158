"""How many students must share a teacher before distilling pays."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill.plots import collection, grids, style, visuals

_OUTCOMES = {
    "alone": ("pays for one student", style.OKABE_ITO[0]),
    "shared": ("pays if shared", style.OKABE_ITO[4]),
    "beyond": ("pays only for more than searched", style.OKABE_ITO[3]),
    "never": ("never pays", style.OKABE_ITO[5]),
    "impossible": ("no strategy fits", ""),
}
"""Outcome -> words and color; the look's color where there is none."""


@collection.documented
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
    with collection.drawing("break_even", found, size, dark) as (plot, _, legend):
        grids.need_several(found, "budget")
        for (top, bottom), cell in plot.facets(grids.cells(found, "student"), x="budget"):
            visuals.step_map(top, cell["pays_probability"], cell["pays_extrapolates"], "shared_by")
            _draw_quantiles(top, cell)
            _draw_outcomes(bottom, cell)
        legend.steps("P(distilling pays)")
        legend.hatch("extrapolated")
        legend.line("break-even: median", width=1.4)
        legend.line(f"break-even: {grids.outer_quantiles(found, 'and')} quantile", linestyle=":", width=1.2)
        legend.outcomes(_OUTCOMES, found["status_probability"])
        return plot.finish(share=grids.share(found, "delta_lgt"))


def _draw_quantiles(ax: Axes, cell: xr.Dataset) -> None:
    """Draw the median and the outer break-even numbers on a light border; where they are infinite they leave through the top."""
    quantiles = cell["students_per_teacher_quantile"].transpose("quantile", "budget")
    values = quantiles.where(np.isfinite(quantiles), 10 * float(cell["shared_by"].max())).values
    for i in (0, len(values) // 2, -1):
        width, dashes = (1.2, ":") if i < 1 else (1.4, "-")
        visuals.line(ax, cell["budget"], values[i], "#ffffff", width + 1.1, linestyle=dashes, zorder=2)
        visuals.line(ax, cell["budget"], values[i], "#000000", width, linestyle=dashes, zorder=2.1)


def _draw_outcomes(ax: Axes, cell: xr.Dataset) -> None:
    budgets, chance = cell["budget"].values, cell["status_probability"].transpose("outcome", "budget")
    colors = [color or visuals.look_of(ax).neutral for _, color in _OUTCOMES.values()]
    ax.stackplot(budgets, chance.sel(outcome=list(_OUTCOMES)).values, colors=colors, linewidth=0, zorder=2)
    if "extrapolates" in cell:
        outside = np.broadcast_to(cell["extrapolates"].values, (2, budgets.size))
        visuals.hatch_map(ax, budgets, np.array([0.0, 1.0]), outside, 0.25, zorder=2.5)
    ax.set(xlim=(budgets.min(), budgets.max()), ylim=(0, 1))
