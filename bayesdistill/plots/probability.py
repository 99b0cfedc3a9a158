"""The probability that distillation beats pretraining, against compute or unique tokens."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from bayesdistill.plots import grids, style


def plot_probability(plan: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Probability that distillation beats pretraining, a panel per scenario, a colour per student.

    Parameters
    ----------
    plan : Dataset
        What `plan` or `plan_tokens` returns: probability, probability_mcse and extrapolates over student, scenario and
        budget, or tokens.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

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
    look = style.make_look(size, dark)
    students = grids.sorted_students(plan)
    scenarios = [str(name) for name in plan["scenario"].values]
    colors = style.size_colors(students, look)
    spent = plan[axis].values
    with style.drawing(look):
        rows, columns = grids.panel_shape(look, len(scenarios))
        figure = style.new_figure(look, rows * (1.5 if look.tall else 2.1))
        axes = style.panels(figure, look, rows, columns)
        for ax, name in zip(axes.flat, scenarios, strict=False):
            cell = plan.sel(scenario=name)
            ax.axhline(0.5, color=look.ink, linewidth=0.7 * look.line, zorder=1)
            for student in students:
                one = cell.sel(student=student)
                chance, error = one["probability"].values, 2 * one["probability_mcse"].values
                low, high = np.clip(chance - error, 0, 1), np.clip(chance + error, 0, 1)
                ax.fill_between(spent, low, high, color=colors[student], alpha=0.3, linewidth=0, zorder=2)
                grids.reach_line(ax, look, spent, chance, one["extrapolates"].values, colors[student])
            grids.hatch_outside(ax, look, spent, cell["extrapolates"].all("student").values)
            style.panel_title(ax, name, 20 if look.tall else 60)
            ax.set_ylim(-0.03, 1.03)
            (style.flops_axis if axis == "budget" else style.size_axis)(ax.xaxis)
        for ax in axes.flat[len(scenarios) :]:
            ax.set_axis_off()
        words = "compute budget [FLOPs]" if axis == "budget" else "unique tokens of the student [tokens]"
        grids.label_outer(axes, len(scenarios), words, "P(distillation ahead)")
        entries: list[Artist] = grids.student_entries(look, students, colors, 1.6)
        entries += grids.reach_entries(look)
        entries += [
            style.band_entry("± 2 Monte Carlo standard errors", look.neutral, 0.3),
            style.line_entry("even odds", look.ink, width=0.7 * look.line),
        ]
        warnings, notes = style.fit_notes(plan)
        notes = [*grids.left_out(plan), grids.noise_note(plan), *notes]
        style.finish(
            figure,
            look,
            title="Probability that distilling the student beats pretraining it",
            handles=entries,
            warnings=warnings,
            notes=notes,
        )
    return figure
