"""Which of the teachers that exist: the student's loss with each, and the probability that it is the best."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill import posterior
from bayesdistill.plots import grids, style
from bayesdistill.plots.style import Look

_NEEDED = (
    "distilled_loss",
    "new_distilled_loss",
    "supervised_loss",
    "probability_best",
    "extrapolates",
    "measured_loss",
)
_ROTATED_FROM = 4


def plot_teacher_choice(
    found: xr.Dataset, *, prob: float = posterior.INTERVAL_PROBABILITY, size: str = "page", dark: bool = False
) -> Figure:
    """The student's loss with each existing teacher, weakest to strongest, and the probability that it is the best one.

    Parameters
    ----------
    found : Dataset
        What `teacher_choice` returns.
    prob : float
        Probability inside the equal-tailed intervals.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

    Returns
    -------
    Figure
        A pair of panels for each student and scenario, a colour per budget. Hollow points are extrapolated.

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import pandas as pd, xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> table = pd.DataFrame({"name": ["small", "large"], "params": [1e9, 7e9], "loss": [2.25, 2.05]})
    >>> found = bd.teacher_choice(published, table, "300M", 1e20)
    >>> bd.plot_teacher_choice(found).savefig("teachers.png")  # doctest: +SKIP
    """
    grids.need(
        found, [*_NEEDED, "student", "scenario", "budget"], "the argument of plot_teacher_choice", "teacher_choice()"
    )
    look = style.make_look(size, dark)
    ordered = found.sortby("measured_loss", ascending=False)
    budgets = ordered["budget"].values
    colors = style.budget_colors(budgets, look)
    losses = ["distilled_loss", "new_distilled_loss", "supervised_loss"]
    shown = grids.summaries(ordered, losses, prob, keep=["probability_best", "extrapolates"])
    cases = [(s, str(c)) for c in ordered["scenario"].values for s in grids.sorted_students(ordered)]
    measured = zip(ordered["teacher"].values, ordered["measured_loss"].values, strict=True)
    names = [style.plain(f"{name} ({loss:.2f})") for name, loss in measured]
    with style.drawing(look):
        heights = (1.5, 0.8) if look.tall else (2.0, 1.0)
        columns = min(1 if look.tall else 4 if look.size == "slide" else 3, len(cases))
        figure = style.new_figure(look, -(-len(cases) // columns) * sum(heights))
        groups, columns = grids.shape_panels(figure, look, len(cases), heights, columns)
        for (top, bottom), (student, scenario) in zip(groups, cases, strict=True):
            one = shown.sel(student=student, scenario=scenario)
            for k, budget in enumerate(budgets):
                offset = 0.6 * ((k + 0.5) / len(budgets) - 0.5)
                _draw_losses(top, look, one.sel(budget=budget), offset, colors[float(budget)])
                bottom.bar(
                    np.arange(len(names)) + offset,
                    one["probability_best"].sel(budget=budget).values,
                    0.6 / len(budgets),
                    color=colors[float(budget)],
                    linewidth=0,
                )
            title = f"student {style.short(student)}" + (f", {scenario}" if found.sizes["scenario"] > 1 else "")
            style.panel_title(top, title, 34)
            bottom.set_xlim(-0.6, len(names) - 0.4)
            bottom.set_ylim(0, 1.02)
            bottom.set_xticks(range(len(names)), names, rotation=90 if len(names) >= _ROTATED_FROM else 0)
        labels = ["student loss\n[nats per token]", "P(best of\nthe table)"]
        grids.label_groups(groups, columns, "teacher (its loss [nats per token])", labels, look)
        _finish(figure, look, found, budgets, colors, prob)
    return figure


def _draw_losses(ax: Axes, look: Look, one: xr.Dataset, offset: float, color: object) -> None:
    place = np.arange(one.sizes["teacher"]) + offset
    middle = one["distilled_loss"].values
    low, high = one["distilled_loss_lower"].values, one["distilled_loss_upper"].values
    ax.vlines(place, low, high, colors=[color], linewidth=1.5 * look.line, zorder=3)  # type: ignore[list-item]
    outside = one["extrapolates"].values
    for which, face in ((outside, look.paper), (~outside, color)):
        ax.plot(
            place[which], middle[which], linestyle="none", marker="o", markersize=1.8 * look.marker, color=color,
            markerfacecolor=face, markeredgewidth=0.8 * look.line, zorder=4,
        )  # fmt: skip
    ax.axhline(float(one["supervised_loss"]), color=color, linestyle=":", linewidth=look.line, zorder=1.5)
    ax.axhline(float(one["new_distilled_loss"]), color=color, linestyle="-.", linewidth=0.8 * look.line, zorder=1.5)


def _finish(
    figure: Figure, look: Look, found: xr.Dataset, budgets: np.ndarray, colors: dict[float, object], prob: float
) -> None:
    entries: list[Artist] = [
        style.line_entry(f"{style.power_of_ten(b)} FLOPs", colors[float(b)], width=1.6 * look.line) for b in budgets
    ]
    hollow = style.line_entry("extrapolated", look.ink, linestyle="none", marker="o")
    hollow.set_markerfacecolor(look.paper)
    entries += [
        style.line_entry(f"median, {grids.percent(prob)} interval of the law", look.ink, marker="o"),
        hollow,
        style.line_entry("pretrained", look.ink, linestyle=":"),
        style.line_entry("with a newly trained teacher", look.ink, linestyle="-."),
    ]
    warnings, notes = style.fit_notes(found)
    share = float(found.attrs.get("new_delta_pre", np.nan))
    style.finish(
        figure,
        look,
        title="Which of the existing teachers",
        handles=entries,
        warnings=warnings,
        notes=[
            "Teachers from weak to strong. A teacher that cannot be paid has no point. "
            f"The newly trained one is charged {100 * share:g} % of its pretraining.",
            *notes,
        ],
    )
