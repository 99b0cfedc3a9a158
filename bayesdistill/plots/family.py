"""A family of students with one budget: how the compute is split, and which students to distil."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bayesdistill.errors import ParameterError
from bayesdistill.plots import grids, style
from bayesdistill.plots.style import Look

_DECISIONS = {"distil": style.OKABE_ITO[0], "pretrain": style.OKABE_ITO[1]}


def plot_family(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """The split of a family's compute for each option, and how sure each student's decision is.

    Parameters
    ----------
    found : Dataset
        What `family_plan` returns.
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
        If the Dataset lacks a variable, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> bd.plot_family(bd.family_plan(published, ["300M", "1B"], 1e21)).savefig("family.png")  # doctest: +SKIP
    """
    needed = [
        "student_budget",
        "teacher_budget",
        "decision",
        "decision_probability",
        "probability_better",
        "expected_loss",
        "extrapolates",
        "teacher_extrapolation",
    ]
    grids.need(found, [*needed, "student", "option", "count"], "the argument of plot_family", "family_plan()")
    if "flag_meanings" not in found["decision"].attrs:
        raise ParameterError("decision has no attribute flag_meanings; the Dataset is not what family_plan() returned")
    look = style.make_look(size, dark)
    ordered = found.sortby("student")
    colors = style.size_colors(ordered["student"].values, look)
    with style.drawing(look):
        rows = 0.33 * (ordered.sizes["option"] + ordered.sizes["student"]) + 1.4
        figure = style.new_figure(look, rows)
        axes = figure.subplots(2, 1, gridspec_kw={"height_ratios": [ordered.sizes["option"], ordered.sizes["student"]]})
        for ax in axes:
            style.dress(ax, look)
            ax.grid(visible=False, axis="y")
        _draw_split(axes[0], look, ordered, colors)
        _draw_decisions(axes[1], look, ordered)
        entries: list[Artist] = [
            Patch(facecolor=color, edgecolor="none", label=f"{'' if i else 'student '}{style.short(student)}")
            for i, (student, color) in enumerate(colors.items())
        ]
        entries += [
            Patch(facecolor=look.neutral, edgecolor="none", label="teacher's pretraining"),
            *(Patch(facecolor=color, edgecolor="none", label=name) for name, color in _DECISIONS.items()),
            style.line_entry(
                "P(this student is better than if all are pretrained)", look.ink, linestyle="none", marker="D"
            ),
        ]
        warnings, notes = style.fit_notes(found)
        words_far = "Not extrapolated."
        if outside := _outside(found):
            words_far = f"Outside the runs that the posterior has seen: {', '.join(outside)}."
        chance, error = float(found["probability"]), float(found["probability_mcse"])
        words = (
            f"The plan beats pretraining all with probability {chance:.2f} (Monte Carlo standard error {error:.2f})."
        )
        if "distil" not in _decided(found):
            words = "The plan is to pretrain all."
        style.finish(
            figure,
            look,
            title="A family of students that shares a budget and a teacher",
            handles=entries,
            warnings=warnings,
            notes=[
                f"{words} "
                "Beside each option: the mean loss of the family. Bars below: probability that the plan is better than the best "
                f"one with this decision turned round. {words_far}",
                *notes,
            ],
        )
    return figure


def _outside(found: xr.Dataset) -> list[str]:
    """Students and teacher of the plan that are extrapolated, in words."""
    plan = found.sel(option="plan")
    names = [
        style.short(float(s)) for s, out in zip(plan["student"].values, plan["extrapolates"].values, strict=True) if out
    ]
    if float(plan["teacher_extrapolation"]) != 1:
        names.append("the teacher")
    return names


def _decided(found: xr.Dataset) -> list[str]:
    names = found["decision"].attrs["flag_meanings"].split()
    return [names[int(code)] for code in found["decision"].values]


def _draw_split(ax: Axes, look: Look, found: xr.Dataset, colors: dict[float, object]) -> None:
    place = np.arange(found.sizes["option"])
    start = np.zeros(place.size)
    parts = [(float(s), found["student_budget"].sel(student=s).values) for s in found["student"].values]
    for student, amount in [*parts, (None, found["teacher_budget"].values)]:
        width = np.nan_to_num(amount)
        color = look.neutral if student is None else colors[student]
        ax.barh(place, width, 0.7, left=start, color=color, linewidth=0, zorder=2)
        start = start + width
    texts = []
    for name, loss, feasible in zip(
        found["option"].values, found["expected_loss"].values, found["feasible"].values, strict=True
    ):
        texts.append(f"{style.plain(name)}: {loss:.4f} nats" if feasible else f"{style.plain(name)}: cannot be paid")
    ax.set_yticks(place, texts)
    ax.invert_yaxis()
    style.small_numbers(ax.xaxis)
    ax.set_xlabel("compute [FLOPs]")
    ax.set_ylabel("option")


def _draw_decisions(ax: Axes, look: Look, found: xr.Dataset) -> None:
    decided = _decided(found)
    place = np.arange(len(decided))
    ax.barh(
        place, found["decision_probability"].values, 0.7, color=[_DECISIONS.get(d, look.neutral) for d in decided], linewidth=0,
        zorder=2,
    )  # fmt: skip
    ax.plot(
        found["probability_better"].values, place, linestyle="none", marker="D", color=look.ink, markeredgecolor=look.paper,
        markersize=2 * look.marker, clip_on=False, zorder=3,
    )  # fmt: skip
    counts = found["count"].values
    ax.set_yticks(
        place,
        [
            f"{count:g} × {style.short(s)}: {d}"
            for s, count, d in zip(found["student"].values, counts, decided, strict=True)
        ],
    )
    ax.set_xlim(0, 1.02)
    ax.invert_yaxis()
    ax.axvline(0.5, color=look.ink, linewidth=0.7 * look.line, zorder=2.5)
    ax.set_xlabel("probability")
    ax.set_ylabel("student")
