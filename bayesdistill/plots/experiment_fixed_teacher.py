"""The paper's experiment 1: teachers of fixed tokens per parameter, students of one isoFLOP."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from bayesdistill.errors import ParameterError
from bayesdistill.plots import collection, grids, style, visuals
from bayesdistill.plots.capacity_gap import teacher_words


@collection.documented
def plot_experiment_fixed_teacher(
    gap: xr.Dataset, *, prob: float = grids.PROB, size: str = "page", dark: bool = False
) -> Figure:
    """Student loss against student size at fixed student compute, a panel per teacher, a color per budget.

    Experiment 1 of Busbridge et al. (2025): the teachers have a fixed number of tokens per parameter, the students share the
    FLOPs of their own training, so that a larger student sees fewer tokens.

    Parameters
    ----------
    gap : Dataset
        What `capacity_gap` returns for many students, `student_budget` and a few `teacher_params` (or `teacher_losses`).
    {prob}
    {size}

    {returns}

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, the students do not share budgets, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import numpy as np, xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> gap = bd.capacity_gap(
    ...     published, list(np.geomspace(1e8, 1e10, 21)), student_budget=[1e20, 1e21], teacher_params=["1B", "7B"],
    ...     teacher_tokens_per_param=20,
    ... )
    >>> bd.plot_experiment_fixed_teacher(gap).savefig("experiment_1.png")  # doctest: +SKIP
    """
    with collection.drawing("experiment_fixed_teacher", gap, size, dark) as (plot, look, legend):
        if (units := gap["training"].attrs.get("units", "none")) != "FLOPs":
            maker = "capacity_gap with student_budget"
            raise ParameterError(f"training has the units {units!r}; FLOPs are required, as {maker} gives them")
        losses = ["distilled_loss", "supervised_loss", "teacher_loss"]
        shown = grids.summaries(gap.sortby("student"), losses, prob, keep=["extrapolates"])
        teachers = gap["teacher"].values.tolist()
        by_size = gap.attrs.get("teacher_axis") == "params"
        names = [style.short(teacher) if by_size else f"loss {teacher:g}" for teacher in teachers]
        cells = [(f"teacher {n}", shown.sel(teacher=t)) for n, t in zip(names, teachers, strict=True)]
        colors = plot.budgets(gap["training"])
        for (ax,), cell in plot.facets(cells, x="student", over="training"):
            for budget, color in colors.items():
                one = cell.sel(training=budget)
                visuals.curve(ax, "student", one, "distilled_loss", color)
                visuals.line(ax, one["student"], one["supervised_loss"], color, 0.8, linestyle=":", zorder=1.5)
            visuals.level(ax, cell["teacher_loss"], look.neutral, 0.8)
        legend.band(f"{style.percent(prob)} interval of the law")
        legend.line("pretrained on the same tokens", linestyle=":")
        legend.line("the teacher", look.neutral, width=0.8)
        legend.reach(whose="at every budget")
        return plot.finish(teachers=teacher_words(gap).strip())
