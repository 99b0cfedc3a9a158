"""The paper's experiment 2: teachers of one isoFLOP, students of fixed tokens per parameter."""

from __future__ import annotations

import xarray as xr
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from bayesdistill import posterior
from bayesdistill.errors import ParameterError
from bayesdistill.plots import grids, style
from bayesdistill.plots.capacity_gap import at_the_end, mark_best, teacher_label, training_words


def plot_experiment_fixed_student(
    gap: xr.Dataset, *, prob: float = posterior.INTERVAL_PROBABILITY, size: str = "page", dark: bool = False
) -> Figure:
    """Student loss against teacher size at fixed teacher compute, a panel per student, a colour per teacher budget.

    Experiment 2 of Busbridge et al. (2025): the teachers of a curve share the FLOPs of their pretraining, so that a larger one
    has seen fewer tokens; the students have a fixed number of tokens per parameter.

    Parameters
    ----------
    gap : Dataset
        What `capacity_gap` returns for `teacher_params`, `teacher_budget` and one length of the students' training. For
        several teacher budgets, the Datasets joined along a dimension `teacher_budget` (FLOPs).
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
    needed = ["distilled_loss", "supervised_loss", "best_teacher", "extrapolates", "training", "student", "teacher"]
    grids.need(gap, needed, "the argument of plot_experiment_fixed_student", "capacity_gap(teacher_budget=...)")
    if "teacher_budget" not in gap.dims:
        if "teacher_budget" not in gap.attrs:
            raise ParameterError("this Dataset has no teacher_budget; make it by capacity_gap(..., teacher_budget=...)")
        gap = gap.expand_dims(teacher_budget=[float(gap.attrs["teacher_budget"])])
    if gap.sizes["training"] != 1:
        raise ParameterError("choose one length of the students' training, by gap.isel(training=[0])")
    look = style.make_look(size, dark)
    students = grids.sorted_students(gap)
    teachers, budgets = gap["teacher"].values, gap["teacher_budget"].values
    colors = style.budget_colors(budgets, look)
    names = ["distilled_loss", "supervised_loss", "best_teacher"]
    one = grids.summaries(gap.isel(training=0), names, prob, keep=["extrapolates"])
    with style.drawing(look):
        rows, columns = grids.panel_shape(look, len(students))
        figure = style.new_figure(look, rows * (1.5 if look.tall else 2.1))
        groups, columns = grids.shape_panels(figure, look, len(students), [1], columns)
        for (ax,), student in zip(groups, students, strict=True):
            mine = one.sel(student=student)
            for budget in budgets:
                curve = mine.sel(teacher_budget=budget)
                grids.curve(ax, look, teachers, curve, "distilled_loss", colors[float(budget)])
                mark_best(ax, look, curve, colors[float(budget)])
            alone = float(mine["supervised_loss"].isel(teacher_budget=0))
            ax.axhline(alone, color=look.neutral, linestyle=":", linewidth=look.line, zorder=1.5)
            grids.hatch_outside(ax, look, teachers, mine["extrapolates"].all("teacher_budget").values)
            style.panel_title(ax, f"student {style.short(student)}", 30)
            style.size_axis(ax.xaxis)
        grids.label_groups(groups, columns, teacher_label(gap), ["student loss [nats per token]"], look, same=False)
        percent = grids.percent(prob)
        entries: list[Artist] = [
            style.line_entry(f"{style.power_of_ten(b)} FLOPs", colors[float(b)], width=1.6 * look.line) for b in budgets
        ]
        entries += [
            style.band_entry(f"{percent} interval of the law", look.ink, 0.25),
            style.line_entry("pretrained on the same tokens", look.neutral, linestyle=":"),
            style.line_entry(f"best teacher: median, {percent} interval", look.ink, marker="o"),
            *grids.reach_entries(look, dots=False, whose="at every budget"),
        ]
        warnings, notes = style.fit_notes(gap)
        words = training_words(gap, float(gap["training"].values[0])).capitalize()
        style.finish(
            figure,
            look,
            title="Teachers of one compute budget, and their students",
            handles=entries,
            warnings=warnings,
            notes=[
                f"Colour: FLOPs of the teacher's pretraining. {words}. Panels have scales of their own.",
                *at_the_end(gap),
                *notes,
            ],
        )
    return figure
