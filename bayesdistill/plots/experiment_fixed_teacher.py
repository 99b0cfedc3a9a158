"""The paper's experiment 1: teachers of fixed tokens per parameter, students of one isoFLOP."""

from __future__ import annotations

import xarray as xr
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from bayesdistill import posterior
from bayesdistill.plots import grids, style
from bayesdistill.plots.capacity_gap import teacher_words


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
    prob : float
        Probability inside the equal-tailed intervals.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

    Returns
    -------
    Figure

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
    needed = ["distilled_loss", "supervised_loss", "teacher_loss", "extrapolates", "training", "student", "teacher"]
    grids.need(gap, needed, "the argument of plot_experiment_fixed_teacher", "capacity_gap(student_budget=...)")
    grids.need_units(gap, "training", "FLOPs", "capacity_gap with student_budget")
    look = style.make_look(size, dark)
    ordered = gap.sortby("student")
    sizes, budgets = ordered["student"].values, ordered["training"].values
    colors = style.budget_colors(budgets, look)
    teachers = ordered["teacher"].values
    shown = grids.summaries(ordered, ["distilled_loss", "supervised_loss", "teacher_loss"], prob, keep=["extrapolates"])
    with style.drawing(look):
        rows, columns = grids.panel_shape(look, len(teachers))
        figure = style.new_figure(look, rows * (1.5 if look.tall else 2.1))
        groups, columns = grids.shape_panels(figure, look, len(teachers), [1], columns)
        for (ax,), teacher in zip(groups, teachers, strict=True):
            one = shown.sel(teacher=teacher)
            for budget in budgets:
                mine = one.sel(training=budget)
                grids.curve(ax, look, sizes, mine, "distilled_loss", colors[float(budget)])
                alone = mine["supervised_loss"].values
                ax.plot(sizes, alone, color=colors[float(budget)], linestyle=":", linewidth=0.8 * look.line, zorder=1.5)
            ax.axhline(float(one["teacher_loss"]), color=look.neutral, linewidth=0.8 * look.line, zorder=1)
            grids.hatch_outside(ax, look, sizes, one["extrapolates"].all("training").values)
            name = style.short(float(teacher)) if gap.attrs.get("teacher_axis") == "params" else f"loss {teacher:g}"
            style.panel_title(ax, f"teacher {name}", 30)
            style.size_axis(ax.xaxis)
        grids.label_groups(
            groups, columns, "student size [non-embedding parameters]", ["student loss [nats per token]"], look
        )
        percent = grids.percent(prob)
        entries: list[Artist] = [
            style.line_entry(f"{style.power_of_ten(b)} FLOPs", colors[float(b)], width=1.6 * look.line) for b in budgets
        ]
        entries += [
            style.band_entry(f"{percent} interval of the law", look.ink, 0.25),
            style.line_entry("pretrained on the same tokens", look.ink, linestyle=":"),
            style.line_entry("the teacher", look.neutral, width=0.8 * look.line),
            *grids.reach_entries(look, dots=False, whose="at every budget"),
        ]
        warnings, notes = style.fit_notes(gap)
        budget_words = "Colour: FLOPs of the student's own training; a larger student sees fewer tokens. "
        style.finish(
            figure,
            look,
            title="Students of one compute budget, distilled from fixed teachers",
            handles=entries,
            warnings=warnings,
            notes=[budget_words + teacher_words(gap).strip(), *notes],
        )
    return figure
