"""The probability that distillation beats pretraining, against compute or unique tokens."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from bayesdistill.plots import collection, grids, visuals


@collection.documented
def plot_probability(plan: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Probability that distillation beats pretraining, a panel per scenario, a color per student.

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
    with collection.drawing("probability", plan, size, dark, needs=[axis]) as (plot, look, legend):
        colors, cells = plot.sizes(plan["student"]), grids.cells(plan, "scenario")
        for (ax,), cell in plot.facets(cells, x=axis, over="student"):
            visuals.level(ax, 0.5)
            for student, color in colors.items():
                one = cell.sel(student=student)
                chance, error = one["probability"], 2 * one["probability_mcse"]
                visuals.band(ax, one[axis], (chance - error).clip(0, 1), (chance + error).clip(0, 1), color, 0.3)
                visuals.reach_line(ax, axis, one, "probability", color, dots=True)
            ax.set_ylim(-0.03, 1.03)
        words = "compute budget [FLOPs]" if axis == "budget" else "unique tokens of the student [tokens]"
        legend.reach(dots=True)
        legend.band("± 2 Monte Carlo standard errors", look.neutral, 0.3)
        legend.line("even odds", width=0.7)
        return plot.finish([*grids.left_out(plan), *grids.undetermined_note(plan)], spent=words)
