"""How the best use of compute changes with the budget: teacher size, teacher tokens, student tokens."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from bayesdistill import posterior
from bayesdistill.plots import grids, style

_ROWS = (
    ("teacher_params", "max_teacher_params", "teacher size\n[parameters]"),
    ("teacher_tokens", "max_teacher_tokens", "teacher tokens\n[tokens]"),
    ("student_tokens", "max_student_tokens", "student tokens\n[tokens]"),
)


def plot_compute_strategy(
    plan: xr.Dataset, *, prob: float = posterior.INTERVAL_PROBABILITY, size: str = "page", dark: bool = False
) -> Figure:
    """Teacher size, teacher tokens and student tokens against compute, for each scenario and student.

    Parameters
    ----------
    plan : Dataset
        What `plan` returns: teacher_params, teacher_tokens and student_tokens of the chosen strategy, the same with the
        prefix ``best_`` for the strategy with perfect information, extrapolates.
    prob : float
        Probability inside the equal-tailed intervals.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

    Returns
    -------
    Figure
        Lines are the chosen strategy, bands the interval of the strategies with perfect information.

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
    names = [name for name, _, _ in _ROWS]
    grids.need(plan, [*names, *(f"best_{name}" for name in names), "probability", "extrapolates"], "plan", "plan()")
    look = style.make_look(size, dark)
    students = grids.sorted_students(plan)
    scenarios = [str(name) for name in plan["scenario"].values]
    colors = style.size_colors(students, look)
    budgets = plan["budget"].values
    shown = grids.summaries(plan, [f"best_{name}" for name in names], prob, keep=[*names, "extrapolates"])
    with style.drawing(look):
        heights = [1.0] * 3 if look.tall else [1.5] * 3
        columns = 2 if look.tall else 4
        figure = style.new_figure(look, -(-len(scenarios) // min(columns, len(scenarios))) * sum(heights))
        groups, columns = grids.shape_panels(figure, look, len(scenarios), heights, columns)
        for group, scenario in zip(groups, scenarios, strict=True):
            cell = shown.sel(scenario=scenario)
            for ax, (name, bound, _) in zip(group, _ROWS, strict=True):
                for student in students:
                    one = cell.sel(student=student)
                    grids.band(ax, budgets, one, f"best_{name}", colors[student])
                    outside = one["extrapolates"].values
                    grids.reach_line(ax, look, budgets, one[name].values, outside, colors[student], dots=False)
                limit = float(plan.attrs.get(bound, np.inf))
                if np.isfinite(limit):
                    ax.axhline(limit, color=look.neutral, linestyle=":", linewidth=look.line, zorder=1)
                grids.hatch_outside(ax, look, budgets, cell["extrapolates"].all("student").values)
                style.size_axis(ax.yaxis)
            style.flops_axis(group[-1].xaxis)
            style.panel_title(group[0], scenario, 24 if look.size == "slide" else 20)
        grids.label_groups(groups, columns, "compute budget [FLOPs]", [label for _, _, label in _ROWS], look)
        entries: list[Artist] = grids.student_entries(look, students, colors, 1.6)
        entries += [
            style.band_entry(f"strategy with perfect information, {grids.percent(prob)} interval", look.ink, 0.25),
            style.line_entry("largest allowed", look.neutral, linestyle=":"),
            *grids.reach_entries(look, dots=False),
        ]
        warnings, notes = style.fit_notes(plan)
        style.finish(
            figure,
            look,
            title="Where the compute goes: the teacher and the student's tokens",
            handles=entries,
            warnings=warnings,
            notes=[
                "Lines: the chosen strategy, with the smallest mean loss. Where the teacher is not charged, many teachers of "
                "nearly the same loss do as well, and its size is hardly determined.",
                *grids.left_out(plan),
                *notes,
            ],
        )
    return figure
