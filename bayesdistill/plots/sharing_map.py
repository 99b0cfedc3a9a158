"""The probability that distillation beats pretraining over budget and number of students that share the teacher."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bayesdistill.plots import grids, style
from bayesdistill.plots.break_even import draw_map, map_entries


def plot_sharing_map(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Map of the probability that distillation beats pretraining over budget and students per teacher, a panel per student.

    Parameters
    ----------
    found : Dataset
        What `sharing_map` returns: probability and extrapolates over student, students_per_teacher, budget.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

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
    needed = ["probability", "extrapolates", "student", "students_per_teacher", "budget"]
    grids.need(found, needed, "the argument of plot_sharing_map", "sharing_map()")
    for axis in ("budget", "students_per_teacher"):
        grids.need_several(found, axis)
    look = style.make_look(size, dark)
    students = grids.sorted_students(found)
    budgets, numbers = found["budget"].values, found["students_per_teacher"].values
    with style.drawing(look):
        rows, columns = grids.panel_shape(look, len(students))
        figure = style.new_figure(look, rows * (1.6 if look.tall else 2.4))
        groups, columns = grids.shape_panels(figure, look, len(students), [1], columns)
        for (ax,), student in zip(groups, students, strict=True):
            one = found.sel(student=student)
            draw_map(ax, look, budgets, numbers, one["probability"], one["extrapolates"])
            style.panel_title(ax, f"student {style.short(student)}", 40)
            style.flops_axis(ax.xaxis)
        grids.label_groups(groups, columns, "compute budget [FLOPs]", ["students that share the teacher"], look)
        warnings, notes = style.fit_notes(found)
        style.finish(
            figure,
            look,
            title="Distilling against pretraining when students share a teacher",
            handles=[*map_entries("P(distillation ahead)"), style.hatch_entry("extrapolated", look)],
            warnings=warnings,
            notes=[
                "The budget is that of one student. Charged to each of K students that share a teacher: 1/K of its pretraining and "
                f"{100 * float(found.attrs.get('delta_lgt', np.nan)):g} % of its inference. Chosen strategy.",
                grids.noise_note(found),
                *notes,
            ],
        )
    return figure
