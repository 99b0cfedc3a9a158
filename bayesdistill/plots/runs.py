"""The runs with the fitted law: student loss against teacher loss, and what is left over."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill.plots import grids, style
from bayesdistill.plots.style import Look

_CURVES = ("mean", "lower", "upper", "run_lower", "run_upper", "configuration_params", "configuration_tokens")
_RUNS = ("student_loss", "residual", "configuration_of_run", "run_teacher_loss")
_MOST_GROUPS = 4


def plot_runs(curves: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Student loss against teacher loss with the fitted law and its bands; residuals below.

    A panel per tokens-per-parameter of the student, a colour per student size. Where a curve turns up again towards better
    teachers (to the left), the student cannot follow its teacher: the capacity gap.

    Parameters
    ----------
    curves : Dataset
        What `law_curves` returns: mean, lower, upper, run_lower, run_upper over configuration, teacher_loss; student_loss,
        residual, configuration_of_run, run_teacher_loss (and run_experiment) over run. Losses in nats per token.
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
    >>> fit = bd.fit(bd.load_runs("busbridge2025"), seed=0)  # doctest: +SKIP
    >>> bd.plot_runs(bd.law_curves(fit)).savefig("runs.png")  # doctest: +SKIP
    """
    grids.need(curves, [*_CURVES, *_RUNS, "teacher_loss"], "the argument of plot_runs", "law_curves()")
    look = style.make_look(size, dark)
    groups = _token_groups(curves)
    colors = style.size_colors(curves["configuration_params"].values, look)
    experiments = _experiments(curves)
    with style.drawing(look):
        heights = (1.5, 1.0) if look.tall else (2.2, 1.1)
        columns = min(4 if look.size == "slide" else 2, len(groups))
        figure = style.new_figure(look, -(-len(groups) // columns) * sum(heights))
        axes, columns = grids.shape_panels(figure, look, len(groups), heights, columns)
        for (top, bottom), (name, chosen) in zip(axes, groups, strict=True):
            _draw_law(top, look, curves, chosen, colors)
            _draw_runs(top, bottom, look, curves, chosen, colors, experiments)
            style.panel_title(top, name, 40 if look.size == "page" else 24)
        labels = ["student loss\n[nats per token]", "residual\n[nats per token]"]
        grids.label_groups(axes, columns, "teacher loss [nats per token]", labels, look)
        _finish(figure, look, curves, experiments)
        for (top, _), (_, chosen) in zip(axes, groups, strict=True):
            _label_students(top, look, curves, chosen, colors)
    return figure


def _token_groups(curves: xr.Dataset) -> list[tuple[str, np.ndarray]]:
    """Configurations that share a panel: tokens per parameter within a factor of two, four panels at most."""
    ratio = curves["configuration_tokens"].values / curves["configuration_params"].values
    octave = np.round(np.log2(ratio / 20)).astype(int)
    # Few panels are wanted: of neighbours, those are merged that have the fewest curves together.
    levels = sorted(set(octave.tolist()))
    while len(levels) > _MOST_GROUPS:
        curves_of = [np.count_nonzero(octave == level) for level in levels]
        least = int(np.argmin(np.add(curves_of[:-1], curves_of[1:])))
        octave[octave == levels[least + 1]] = levels[least]
        levels.pop(least + 1)
    groups = []
    for level in sorted(set(octave.tolist())):
        chosen = np.flatnonzero(octave == level)
        low, high = f"{ratio[chosen].min():.0f}", f"{ratio[chosen].max():.0f}"
        span = low if low == high else f"{low} to {high}"
        groups.append((f"{span} tokens per parameter", chosen))
    return groups


def _experiments(curves: xr.Dataset) -> dict[str, str]:
    """A marker per experiment, in order of appearance; one for all where runs name none."""
    if "run_experiment" not in curves:
        return {"runs": style.MARKERS[0]}
    names = list(dict.fromkeys(str(name) for name in curves["run_experiment"].values))
    return {name: style.MARKERS[i % len(style.MARKERS)] for i, name in enumerate(names)}


def _draw_law(ax: Axes, look: Look, curves: xr.Dataset, chosen: np.ndarray, colors: dict[float, object]) -> None:
    x = curves["teacher_loss"].values
    ax.plot(x, x, color=look.neutral, linestyle=":", linewidth=look.line, zorder=1)
    for i in chosen:
        one = curves.isel(configuration=i)
        color = colors[float(one["configuration_params"])]
        ax.fill_between(
            x, one["run_lower"].values, one["run_upper"].values, color=color, alpha=0.15, linewidth=0, zorder=1.5
        )
        ax.fill_between(x, one["lower"].values, one["upper"].values, color=color, alpha=0.45, linewidth=0, zorder=2)
        ax.plot(x, one["mean"].values, color=color, linewidth=0.5 * look.line, zorder=3)


def _draw_runs(
    top: Axes,
    bottom: Axes,
    look: Look,
    curves: xr.Dataset,
    chosen: np.ndarray,
    colors: dict[float, object],
    experiments: dict[str, str],
) -> None:
    x = curves["run_teacher_loss"].values
    mine = np.isin(curves["configuration_of_run"].values, chosen)
    sizes = curves["configuration_params"].values[curves["configuration_of_run"].values]
    bottom.axhline(0, color=look.ink, linewidth=0.6 * look.line, zorder=1)
    for name, marker in experiments.items():
        of_this = mine if "run_experiment" not in curves else mine & (curves["run_experiment"].values == name)
        for student in sorted(set(sizes[of_this].tolist())):
            which = of_this & (sizes == student)
            for ax, variable in ((top, "student_loss"), (bottom, "residual")):
                ax.plot(
                    x[which],
                    curves[variable].values[which],
                    linestyle="none",
                    marker=marker,
                    markersize=look.marker,
                    markerfacecolor=colors[student],
                    markeredgecolor=look.paper,
                    markeredgewidth=0.1 * look.line,
                    zorder=4,
                )


def _label_students(ax: Axes, look: Look, curves: xr.Dataset, chosen: np.ndarray, colors: dict[float, object]) -> None:
    """The size of each student at the left end of its curve; the highest curve of a size bears the name."""
    ends: dict[float, float] = {}
    for i in chosen:
        one = curves.isel(configuration=i)
        student = float(one["configuration_params"])
        ends[student] = max(ends.get(student, -np.inf), float(one["mean"][0]))
    left, right = ax.get_xlim()
    start = float(curves["teacher_loss"].values[0])
    style.direct_labels(
        ax,
        look,
        start - 0.01 * (right - left),
        [style.short(student) for student in ends],
        list(ends.values()),
        [colors[student] for student in ends],
        align="right",
    )


def _finish(figure: Figure, look: Look, curves: xr.Dataset, experiments: dict[str, str]) -> None:
    percent = grids.percent(float(curves.attrs.get("interval_prob", np.nan)))
    entries: list[Artist] = [
        style.line_entry(style.plain(name), look.ink, linestyle="none", marker=marker)
        for name, marker in experiments.items()
    ]
    entries += [
        style.line_entry("law, posterior mean", look.ink, width=0.5 * look.line),
        style.band_entry(f"law, {percent} interval", look.ink, 0.5),
        style.band_entry(f"a new run, {percent} interval", look.ink, 0.18),
        style.line_entry("student as good as its teacher", look.neutral, linestyle=":"),
    ]
    x = curves["teacher_loss"].values
    for ax in figure.axes:
        # Room for the names of the students left of the curves.
        ax.set_xlim(x[0] - (0.3 if look.tall else 0.24 if look.size == "slide" else 0.17) * (x[-1] - x[0]), x[-1])
    warnings, notes = style.fit_notes(curves)
    notes.insert(
        0,
        "Colour and label: non-embedding parameters of the student; of curves of one colour, the label is the upper one's, and lower "
        "ones have more tokens. Better teachers are to the left; where a curve rises "
        "towards them, the student cannot follow (capacity gap). Residual: observed minus posterior mean.",
    )
    style.finish(
        figure,
        look,
        title="Distilled students against their teachers, with the fitted law",
        handles=entries,
        warnings=warnings,
        notes=notes,
    )
