"""The runs with the fitted law: student loss against teacher loss, or loss against tokens, and what is left over."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from bayesdistill.plots import collection, grids, style, visuals

_MOST_GROUPS = 4
_EXPERIMENTS = {
    "fixed-m-teacher": "teachers of 20 tokens per parameter",
    "isoflop-teacher": "teachers of equal compute",
    "large-student": "large students",
}
"""Experiments of the packaged runs in words; others have the words of their table."""


@collection.documented
def plot_runs(curves: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Student loss against teacher loss, or pretrained loss against tokens, with the fitted law; residuals below.

    Distilled runs have a panel per tokens-per-parameter of the student, and a color per student size. Where a curve turns up again
    towards better teachers (to the left), the student cannot follow its teacher: the capacity gap.

    Parameters
    ----------
    curves : Dataset
        What `law_curves` returns: mean, lower, upper, run_lower, run_upper over configuration, teacher_loss; student_loss,
        residual, configuration_of_run, run_teacher_loss (and run_experiment) over run. Of supervised runs, tokens in place of
        teacher_loss and loss in place of student_loss. Losses in nats per token.
    {size}

    {returns}

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.fit(bd.load_runs("busbridge2025"), seed=0)  # doctest: +SKIP
    >>> bd.plot_runs(bd.law_curves(fit)).savefig("runs.png")  # doctest: +SKIP
    """
    if isinstance(curves, xr.Dataset) and curves.attrs.get("kind") == "supervised":
        return _plot_supervised(curves, size, dark)
    with collection.drawing("runs", curves, size, dark) as (plot, look, legend):
        x, percent = curves["teacher_loss"].values, style.percent(float(curves.attrs.get("interval_prob", np.nan)))
        if "run_experiment" not in curves:
            curves = curves.assign(run_experiment=xr.full_like(curves["configuration_of_run"], "runs", dtype=object))
        experiments = dict.fromkeys(grids.names(curves, "run_experiment"))
        markers = {name: style.MARKERS[i % len(style.MARKERS)] for i, name in enumerate(experiments)}
        cells = _token_groups(curves)
        colors = style.size_colors(curves["configuration_params"].values, look)
        for (top, bottom), cell in plot.facets(cells):
            visuals.line(top, x, x, look.neutral, linestyle=":", zorder=1)
            _draw_law(top, cell, "teacher_loss", colors)
            visuals.level(bottom, 0, width=0.6)
            for experiment, marker in markers.items():
                mine = cell.isel(run=np.flatnonzero(cell["run_experiment"].values == experiment))
                for ax, name in ((top, "student_loss"), (bottom, "residual")):
                    _draw_runs(ax, mine, "run_teacher_loss", name, colors, marker)
            # Room for the names of the students left of the curves.
            top.set_xlim(x[0] - look.pick(0.3, 0.17, 0.24) * (x[-1] - x[0]), x[-1])
        for name, marker in markers.items():
            legend.points(_EXPERIMENTS.get(name, style.plain(name)), marker=marker)
        _explain(legend, percent)
        legend.line("student as good as its teacher", look.neutral, linestyle=":")
        figure = plot.finish()
        for (top, _), (_, cell) in zip(plot.groups, cells, strict=True):
            _label_students(top, cell, "teacher_loss", colors)
        return figure


def _plot_supervised(curves: xr.Dataset, size: str, dark: bool) -> Figure:
    with collection.drawing("runs_supervised", curves, size, dark) as (plot, look, legend):
        params = curves["configuration_params"].values
        colors = style.size_colors(params, look)
        # Runs of other sizes have the color of the nearest curve.
        runs = curves.assign(run_params=("run", params[curves["configuration_of_run"].values]))
        for (top, bottom), cell in plot.facets([("", runs)]):
            _draw_law(top, cell, "tokens", colors)
            visuals.level(bottom, 0, width=0.6)
            for ax, name in ((top, "loss"), (bottom, "residual")):
                _draw_runs(ax, cell, "run_tokens", name, colors, "o")
            style.log_axis(bottom.xaxis)
            style.set_ticks(bottom.xaxis, LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=12), style.short)
            low, high = cell["tokens"].values[[0, -1]]
            top.set_xlim(low * (low / high) ** look.pick(0.2, 0.12, 0.16), high)
        _explain(legend, style.percent(float(curves.attrs.get("interval_prob", np.nan))))
        legend.points("run")
        figure = plot.finish()
        _label_students(plot.groups[0][0], runs, "tokens", colors)
        return figure


def _explain(legend: collection.Legend, percent: str) -> None:
    legend.line("law, posterior mean", width=0.5)
    legend.band(f"law, {percent} interval", alpha=0.5)
    legend.band(f"a new run, {percent} interval", alpha=0.18)


def _token_groups(curves: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """Return (title, part) for each panel: tokens per parameter within a factor of two, four panels at most."""
    ratio = curves["configuration_tokens"].values / curves["configuration_params"].values
    octave = np.round(np.log2(ratio / 20)).astype(int)
    # Few panels are wanted: of neighbors, those are merged that have the fewest curves together.
    levels = np.unique(octave)
    while levels.size > _MOST_GROUPS:
        curves_of = np.count_nonzero(octave[:, None] == levels, axis=0)
        least = int(np.argmin(curves_of[:-1] + curves_of[1:]))
        octave[octave == levels[least + 1]] = levels[least]
        levels = np.unique(octave)
    groups = []
    for level in levels:
        chosen, runs = octave == level, octave[curves["configuration_of_run"].values] == level
        ends = dict.fromkeys([f"{ratio[chosen].min():.0f}", f"{ratio[chosen].max():.0f}"])
        part = curves.isel(configuration=np.flatnonzero(chosen), run=np.flatnonzero(runs))
        params = curves["configuration_params"].values[part["configuration_of_run"].values]
        groups.append((f"{' to '.join(ends)} tokens per parameter", part.assign(run_params=("run", params))))
    return groups


def _draw_law(ax: Axes, cell: xr.Dataset, axis: str, colors: dict[float, object]) -> None:
    x = cell[axis]
    for i, params in enumerate(cell["configuration_params"].values):
        one, color = cell.isel(configuration=i), colors[params]
        visuals.band(ax, x, one["run_lower"], one["run_upper"], color, 0.15, zorder=1.5)
        visuals.band(ax, x, one["lower"], one["upper"], color, 0.45)
        visuals.line(ax, x, one["mean"], color, 0.5, zorder=3)


def _draw_runs(ax: Axes, runs: xr.Dataset, axis: str, name: str, colors: dict[float, object], marker: str) -> None:
    looks: dict[str, Any] = {"marker": marker, "markeredgecolor": visuals.look_of(ax).paper, "edge": 0.1, "zorder": 4}
    for params in np.unique(runs["run_params"].values):
        mine = runs.isel(run=np.flatnonzero(runs["run_params"].values == params))
        visuals.points(ax, mine[axis], mine[name], colors[params], **looks)


def _label_students(ax: Axes, cell: xr.Dataset, axis: str, colors: dict[float, object]) -> None:
    """Write the size of each model at the left end of its curve; the highest curve of a size bears the name."""
    ends: dict[str, tuple[float, object]] = {}
    for params, value in zip(cell["configuration_params"].values, cell["mean"].values[:, 0], strict=True):
        name = style.short(params)
        ends[name] = max(ends.get(name, (-np.inf,))[0], value), colors[params]
    to_data = (ax.transData + ax.transAxes.inverted()).inverted()
    first = ax.transAxes.inverted().transform(ax.transData.transform((float(cell[axis][0]), ax.get_ylim()[0])))[0]
    visuals.direct_labels(ax, float(to_data.transform((first - 0.01, 0.0))[0]), ends)
