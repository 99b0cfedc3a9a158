"""The paper's experiment 1: teachers of fixed tokens per parameter, students of one isoFLOP."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from bayesdistill import posterior
from bayesdistill.errors import ParameterError
from bayesdistill.plots import grids, style, visuals
from bayesdistill.plots.capacity_gap import teacher_words
from bayesdistill.plots.collection import drawing
from bayesdistill.plots.docstrings import documented

_NEEDED = "distilled_loss supervised_loss teacher_loss extrapolates training student teacher"


@documented
def plot_experiment_fixed_teacher(
    gap: xr.Dataset, *, prob: float = posterior.INTERVAL_PROBABILITY, size: str = "page", dark: bool = False
) -> Figure:
    """Student loss against student size at fixed student compute, a panel per teacher, a colour per budget.

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
    grids.need(gap, _NEEDED, "the argument of plot_experiment_fixed_teacher", "capacity_gap(student_budget=...)")
    units = gap["training"].attrs.get("units", "none")
    if units != "FLOPs":
        raise ParameterError(
            f"training has the units {units!r}; FLOPs are needed, as capacity_gap with student_budget gives them"
        )
    losses = ["distilled_loss", "supervised_loss", "teacher_loss"]
    shown = grids.summaries(gap.sortby("student"), losses, prob, keep=["extrapolates"])
    by_size = gap.attrs.get("teacher_axis") == "params"
    cells = [
        (f"teacher {style.short(teacher) if by_size else f'loss {teacher:g}'}", shown.sel(teacher=teacher))
        for teacher in gap["teacher"].values.tolist()
    ]
    with drawing(size, dark) as plot:
        look, legend, sizes = plot.look, plot.legend, shown["student"].values
        colors = style.budget_colors(gap["training"].values, look)
        for (ax,), cell in plot.facets(cells, [look.pick(1.5, 2.1)]):
            for budget, color in colors.items():
                one = cell.sel(training=budget)
                visuals.curve(ax, "student", one, "distilled_loss", color)
                visuals.line(ax, sizes, one["supervised_loss"].values, color, 0.8, linestyle=":", zorder=1.5)
            visuals.level(ax, float(cell["teacher_loss"]), look.neutral, 0.8)
            visuals.hatch_outside(ax, sizes, cell["extrapolates"].all("training").values)
            style.size_axis(ax.xaxis)
        plot.label("student size [non-embedding parameters]", ["student loss [nats per token]"])
        legend.budgets(colors)
        legend.band(f"{style.percent(prob)} interval of the law")
        legend.line("pretrained on the same tokens", linestyle=":")
        legend.line("the teacher", look.neutral, width=0.8)
        legend.reach(dots=False, whose="at every budget")
        notes = [
            "Colour: FLOPs of the student's own training; a larger student sees fewer tokens. "
            + teacher_words(gap).strip()
        ]
        return plot.finish("Students of one compute budget, distilled from fixed teachers", notes, fit=gap)
