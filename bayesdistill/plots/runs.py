"""The runs with the fitted law: student loss against teacher loss, and what is left over."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill.plots import grids, style, visuals
from bayesdistill.plots.collection import drawing
from bayesdistill.plots.docstrings import documented

_NEEDED = (
    "mean lower upper run_lower run_upper configuration_params configuration_tokens student_loss residual "
    "configuration_of_run run_teacher_loss teacher_loss"
)
_MOST_GROUPS = 4


@documented
def plot_runs(curves: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Student loss against teacher loss with the fitted law and its bands; residuals below.

    A panel per tokens-per-parameter of the student, a colour per student size. Where a curve turns up again towards better
    teachers (to the left), the student cannot follow its teacher: the capacity gap.

    Parameters
    ----------
    curves : Dataset
        What `law_curves` returns: mean, lower, upper, run_lower, run_upper over configuration, teacher_loss; student_loss,
        residual, configuration_of_run, run_teacher_loss (and run_experiment) over run. Losses in nats per token.
    {size}

    {returns}

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.fit(bd.load_runs("busbridge2025"), seed=0)  # doctest: +SKIP
    >>> bd.plot_runs(bd.law_curves(fit)).savefig("runs.png")  # doctest: +SKIP
    """
    grids.need(curves, _NEEDED, "the argument of plot_runs", "law_curves()")
    x = curves["teacher_loss"].values
    groups = _token_groups(curves)
    with drawing(size, dark) as plot:
        look, legend = plot.look, plot.legend
        colors = style.size_colors(curves["configuration_params"].values, look)
        markers = _markers(curves)
        for (top, bottom), chosen in plot.facets(groups, look.pick([1.5, 1.0], [2.2, 1.1]), look.pick(2, 2, 4)):
            _draw_law(top, curves.isel(configuration=chosen), colors)
            _draw_runs(top, bottom, curves, chosen, colors, markers)
            # Room for the names of the students left of the curves.
            top.set_xlim(x[0] - look.pick(0.3, 0.17, 0.24) * (x[-1] - x[0]), x[-1])
        plot.label("teacher loss [nats per token]", ["student loss\n[nats per token]", "residual\n[nats per token]"])
        percent = style.percent(float(curves.attrs.get("interval_prob", np.nan)))
        for name, marker in markers.items():
            legend.points(style.plain(name), marker=marker)
        legend.line("law, posterior mean", width=0.5)
        legend.band(f"law, {percent} interval", alpha=0.5)
        legend.band(f"a new run, {percent} interval", alpha=0.18)
        legend.line("student as good as its teacher", look.neutral, linestyle=":")
        notes = [
            "Colour and label: non-embedding parameters of the student; of curves of one colour, the label is the upper one's, and "
            "lower ones have more tokens. Better teachers are to the left; where a curve rises towards them, the student cannot "
            "follow (capacity gap). Residual: observed minus posterior mean."
        ]
        figure = plot.finish("Distilled students against their teachers, with the fitted law", notes, fit=curves)
        for (top, _), (_, chosen) in zip(plot.groups, groups, strict=True):
            _label_students(top, curves.isel(configuration=chosen), colors)
        return figure


def _token_groups(curves: xr.Dataset) -> list[tuple[str, np.ndarray]]:
    """Return (title, configurations) of each panel: tokens per parameter within a factor of two, four panels at most."""
    ratio = curves["configuration_tokens"].values / curves["configuration_params"].values
    octave = np.round(np.log2(ratio / 20)).astype(int)
    # Few panels are wanted: of neighbors, those are merged that have the fewest curves together.
    levels = sorted(set(octave.tolist()))
    while len(levels) > _MOST_GROUPS:
        curves_of = [np.count_nonzero(octave == level) for level in levels]
        least = int(np.argmin(np.add(curves_of[:-1], curves_of[1:])))
        octave[octave == levels[least + 1]] = levels[least]
        levels.pop(least + 1)
    groups = []
    for level in levels:
        chosen = np.flatnonzero(octave == level)
        low, high = f"{ratio[chosen].min():.0f}", f"{ratio[chosen].max():.0f}"
        groups.append((f"{low if low == high else f'{low} to {high}'} tokens per parameter", chosen))
    return groups


def _markers(curves: xr.Dataset) -> dict[str, str]:
    """Return a marker per experiment, in order of appearance; one for all where runs name none."""
    names = dict.fromkeys(grids.names(curves, "run_experiment")) if "run_experiment" in curves else ["runs"]
    return {name: style.MARKERS[i % len(style.MARKERS)] for i, name in enumerate(names)}


def _draw_law(ax: Axes, curves: xr.Dataset, colors: dict[float, object]) -> None:
    x = curves["teacher_loss"].values
    visuals.line(ax, x, x, visuals.look_of(ax).neutral, linestyle=":", zorder=1)
    for i, params in enumerate(curves["configuration_params"].values):
        one, color = curves.isel(configuration=i), colors[params]
        visuals.band(ax, x, one["run_lower"].values, one["run_upper"].values, color, 0.15, zorder=1.5)
        visuals.band(ax, x, one["lower"].values, one["upper"].values, color, 0.45)
        visuals.line(ax, x, one["mean"].values, color, 0.5, zorder=3)


def _draw_runs(
    top: Axes,
    bottom: Axes,
    curves: xr.Dataset,
    chosen: np.ndarray,
    colors: dict[float, object],
    markers: dict[str, str],
) -> None:
    look, configuration = visuals.look_of(top), curves["configuration_of_run"].values
    sizes = curves["configuration_params"].values[configuration]
    visuals.level(bottom, 0, width=0.6)
    for name, marker in markers.items():
        mine = np.isin(configuration, chosen)
        if "run_experiment" in curves:
            mine &= curves["run_experiment"].values == name
        for student in np.unique(sizes[mine]):
            runs = curves.isel(run=np.flatnonzero(mine & (sizes == student)))
            for ax, variable in ((top, "student_loss"), (bottom, "residual")):
                visuals.points(
                    ax, runs["run_teacher_loss"].values, runs[variable].values, colors[student], marker=marker,
                    markeredgecolor=look.paper, edge=0.1, zorder=4,
                )  # fmt: skip


def _label_students(ax: Axes, curves: xr.Dataset, colors: dict[float, object]) -> None:
    """Write the size of each student at the left end of its curve; the highest curve of a size bears the name."""
    ends: dict[str, tuple[float, object]] = {}
    for params, value in zip(curves["configuration_params"].values, curves["mean"].values[:, 0], strict=True):
        name = style.short(params)
        ends[name] = max(ends.get(name, (-np.inf,))[0], value), colors[params]
    left, right = ax.get_xlim()
    visuals.direct_labels(ax, float(curves["teacher_loss"][0]) - 0.01 * (right - left), ends)
