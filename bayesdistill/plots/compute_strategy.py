"""How the best use of compute changes with the budget: teacher size, teacher tokens, student tokens."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bayesdistill.plots import collection, grids, style, visuals

_MARKS = 13  # maximum number of diamonds of a curve
_ROWS = ("teacher_params", "teacher_tokens", "student_tokens")


@collection.documented
def plot_compute_strategy(
    plan: xr.Dataset, *, prob: float = grids.PROB, size: str = "page", dark: bool = False
) -> Figure:
    """Teacher size, teacher tokens and student tokens against compute, for each scenario and student.

    Parameters
    ----------
    plan : Dataset
        What `plan` returns: teacher_params, teacher_tokens and student_tokens of the chosen strategy, the same with the
        prefix ``best_`` for the strategy with perfect information, extrapolates.
    {prob}
    {size}

    Returns
    -------
    Figure
        Diamonds are the chosen strategy, lines and bands the median and the interval of the strategies with perfect information.

    Raises
    ------
    ParameterError
        If the Dataset is no plan, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> figure = bd.plot_compute_strategy(bd.plan(published, "1B", [1e20, 1e21], "teacher inference"))
    >>> figure.savefig("strategy.png")  # doctest: +SKIP
    """
    with collection.drawing("compute_strategy", plan, size, dark) as (plot, look, legend):
        shown = grids.summaries(plan, [f"best_{name}" for name in _ROWS], prob, keep=[*_ROWS, "extrapolates"])
        colors, cells = plot.sizes(plan["student"]), grids.cells(shown, "scenario")
        # The tokens of existing teachers are not known, and no limit applies to them.
        new = bool(shown["teacher_tokens"].notnull().any())
        rows = [row for row, name in enumerate(_ROWS) if shown[name].notnull().any()] or range(len(_ROWS))
        for group, cell in plot.facets(cells, x="budget", over="student", rows=rows):
            for ax, name in zip(group, (_ROWS[row] for row in rows), strict=True):
                for student, color in colors.items():
                    one = cell.sel(student=student)
                    visuals.curve(ax, "budget", one, f"best_{name}", color)
                    hollow = {"markerfacecolor": look.paper, "edge": 0.8}
                    some = one.isel(budget=slice(None, None, -(-one.sizes["budget"] // _MARKS)))
                    visuals.points(ax, some["budget"], some[name], color, 1.2, zorder=3.3, marker="D", **hollow)
                limit = float(plan.attrs.get(f"max_{name}", np.inf))
                if np.isfinite(limit) and new:
                    visuals.level(ax, limit, look.neutral, 1.0, linestyle=":")
                style.size_axis(ax.yaxis)
        legend.band(f"strategy with perfect information: median, {style.percent(prob)} interval")
        legend.points("chosen strategy", marker="D", hollow=True)
        if new:
            legend.line("largest allowed", look.neutral, linestyle=":")
        legend.reach()
        return plot.finish(grids.left_out(plan))
