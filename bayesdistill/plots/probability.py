"""The probability that distillation beats pretraining, against compute or unique tokens."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bayesdistill.plots import grids, style, visuals
from bayesdistill.plots.collection import drawing
from bayesdistill.plots.docstrings import documented


@documented
def plot_probability(plan: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Probability that distillation beats pretraining, a panel per scenario, a colour per student.

    Parameters
    ----------
    plan : Dataset
        What `plan` or `plan_tokens` returns: probability, probability_mcse and extrapolates over student, scenario and
        budget, or tokens.
    {size}

    Returns
    -------
    Figure
        The band is two Monte Carlo standard errors either way. Curves are dashed where the strategy or pretraining lies
        outside the range of the data. Budgets outside it for every student are hatched.

    Raises
    ------
    ParameterError
        If the Dataset is no plan, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> figure = bd.plot_probability(bd.plan(published, "1B", [1e20, 1e21], "best case"))
    >>> figure.savefig("probability.png")  # doctest: +SKIP
    """
    axis = grids.spent_axis(plan)
    needed = ["probability", "probability_mcse", "extrapolates", "student", "scenario", axis]
    grids.need(plan, needed, "plan", "plan() or plan_tokens()")
    with drawing(size, dark) as plot:
        legend, spent = plot.legend, plan[axis].values
        colors = style.size_colors(plan["student"].values, plot.look)
        for (ax,), cell in plot.facets(grids.cells(plan, "scenario"), [plot.look.pick(1.5, 2.1)]):
            visuals.level(ax, 0.5)
            for student, color in colors.items():
                one = cell.sel(student=student)
                chance, error = one["probability"].values, 2 * one["probability_mcse"].values
                low, high = np.clip(chance - error, 0, 1), np.clip(chance + error, 0, 1)
                visuals.band(ax, spent, low, high, color, 0.3)
                visuals.reach_line(ax, spent, chance, one["extrapolates"].values, color)
            visuals.hatch_outside(ax, spent, cell["extrapolates"].all("student").values)
            ax.set_ylim(-0.03, 1.03)
            (style.flops_axis if axis == "budget" else style.size_axis)(ax.xaxis)
        words = "compute budget [FLOPs]" if axis == "budget" else "unique tokens of the student [tokens]"
        plot.label(words, ["P(distillation ahead)"])
        legend.sizes(colors)
        legend.reach()
        legend.band("± 2 Monte Carlo standard errors", plot.look.neutral, 0.3)
        legend.line("even odds", width=0.7)
        notes = [*grids.left_out(plan), grids.noise_note(plan)]
        return plot.finish("Probability that distilling the student beats pretraining it", notes, fit=plan)
