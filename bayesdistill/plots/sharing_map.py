"""The probability that distillation beats pretraining over budget and number of students that share the teacher."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from bayesdistill.plots import collection, grids, visuals


@collection.documented
def plot_sharing_map(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Map of the probability that distillation beats pretraining over budget and students per teacher, a panel per student.

    Parameters
    ----------
    found : Dataset
        What `sharing_map` returns: probability and extrapolates over student, students_per_teacher, budget.
    {size}

    Returns
    -------
    Figure
        Hatched where the strategy or pretraining lies outside the runs that the posterior has seen.

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, has a single budget or number, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> found = bd.sharing_map(published, "1B", [1e20, 1e21, 1e22], [1, 10, 100])
    >>> bd.plot_sharing_map(found).savefig("sharing.png")  # doctest: +SKIP
    """
    with collection.drawing("sharing_map", found, size, dark) as (plot, _, legend):
        for axis in ("budget", "students_per_teacher"):
            grids.need_several(found, axis)
        for (ax,), cell in plot.facets(grids.cells(found, "student"), x="budget"):
            visuals.step_map(ax, cell["probability"], cell["extrapolates"], "students_per_teacher")
        legend.steps("P(distillation ahead)")
        legend.hatch("extrapolated")
        return plot.finish(share=grids.share(found, "delta_lgt"))
