"""The paper's experiment 2: teachers of one isoFLOP, students of fixed tokens per parameter."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from bayesdistill.errors import ParameterError
from bayesdistill.plots import collection, grids, visuals
from bayesdistill.plots.capacity_gap import at_the_end, draw_gap, gap_legend, teacher_label, training_words


@collection.documented
def plot_experiment_fixed_student(
    gap: xr.Dataset, *, prob: float = grids.PROB, size: str = "page", dark: bool = False
) -> Figure:
    """Student loss against teacher size at fixed teacher compute, a panel per student, a color per teacher budget.

    Experiment 2 of Busbridge et al. (2025): the teachers of a curve share the FLOPs of their pretraining, so that a larger one
    has seen fewer tokens; the students have a fixed number of tokens per parameter.

    Parameters
    ----------
    gap : Dataset
        What `capacity_gap` returns for `teacher_params`, `teacher_budget` and one length of the students' training. For
        several teacher budgets, the Datasets joined along a dimension `teacher_budget` (FLOPs).
    {prob}
    {size}

    {returns}

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, has no teacher budgets or several lengths of training, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import numpy as np, xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> gap = bd.capacity_gap(
    ...     published, ["300M", "1B"], student_tokens_per_param=20, teacher_params=list(np.geomspace(1e8, 1e10, 21)),
    ...     teacher_budget=1e21,
    ... )
    >>> bd.plot_experiment_fixed_student(gap).savefig("experiment_2.png")  # doctest: +SKIP
    """
    with collection.drawing("experiment_fixed_student", gap, size, dark) as (plot, look, legend):
        if "teacher_budget" not in gap.dims:
            if "teacher_budget" not in gap.attrs:
                raise ParameterError(
                    "this Dataset has no teacher_budget; make it by capacity_gap(..., teacher_budget=...)"
                )
            gap = gap.expand_dims(teacher_budget=[float(gap.attrs["teacher_budget"])])
        if gap.sizes["training"] != 1:
            raise ParameterError("choose one length of the students' training, by gap.isel(training=[0])")
        names = ["distilled_loss", "supervised_loss", "best_teacher"]
        shown = grids.summaries(gap.isel(training=0), names, prob, keep=["extrapolates"])
        colors, cells = plot.budgets(gap["teacher_budget"]), grids.cells(shown, "student")
        for (ax,), cell in plot.facets(cells, x="teacher", over="teacher_budget"):
            for budget, color in colors.items():
                draw_gap(ax, cell.sel(teacher_budget=budget), color)
            alone = cell["supervised_loss"].isel(teacher_budget=0)
            visuals.level(ax, alone, look.neutral, 1.0, linestyle=":", zorder=1.5)
        gap_legend(legend, prob, look.neutral, whose="at every budget")
        words = training_words(gap["training"][0]).capitalize()
        return plot.finish(at_the_end(gap), teacher=teacher_label(gap), training=words)
