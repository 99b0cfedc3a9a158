"""Residuals of the law against the design of the runs."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from bayesdistill.plots import collection, grids, layout, style, visuals
from bayesdistill.plots.posterior_predictive import title_of

_PANELS = {
    "distilled": (
        ("student", "student_params", "student [parameters]"),
        ("teacher", "teacher_loss", "teacher loss [nats per token]"),
        ("ratio", "ratio", "r, teacher over student's own loss [1]"),
        ("tokens", "student_tokens", "student tokens [tokens]"),
    ),
    "supervised": (
        ("size", "params", "model [parameters]"),
        ("tokens", "tokens", "training tokens [tokens]"),
        ("tokens_per_param", "tokens_per_param", "tokens per parameter [1]"),
        ("model", "params", "model [parameters]"),
    ),
}
_FIGURES = {"distilled": "residuals", "supervised": "residuals_supervised"}
_LOG = ("student", "size", "tokens", "tokens_per_param", "model")
_JOINED = {"distilled": ("teacher", "ratio"), "supervised": ("tokens", "tokens_per_param")}
_MOST_NAMED = 12
"""Most sizes that the legend names; more are named by the axis of the first panel alone."""


@collection.documented
def plot_residuals(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Residuals of every run against the design, with the means of groups.

    Distilled runs: student size, teacher loss, r and tokens. Supervised runs: size, tokens, tokens per parameter, and models.

    Parameters
    ----------
    found : Dataset
        What `residual_structure` returns: residual (nats per token) over run, mean_residual over group, share and p_value.
    {size}

    Returns
    -------
    Figure
        Runs of a student configuration are joined in the order of their teachers in the panels of teacher and r, and supervised
        runs of a model or size in the order of their tokens: lines that are smooth are misfit, lines that jump are noise.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> bd.plot_residuals(bd.residual_structure(bd.load("fit.nc"))).savefig("residuals.png")  # doctest: +SKIP
    """
    kind = found.attrs.get("kind", "distilled") if isinstance(found, xr.Dataset) else "distilled"
    with collection.drawing(_FIGURES[kind], found, size, dark) as (plot, look, legend):
        panels = [panel for panel in _PANELS[kind] if panel[0] in found["by"].values]
        columns = look.pick(1, 2)
        rows = -(-len(panels) // columns)
        axes = plot.panels(rows, columns, rows * 1.75, sharey=True)
        params = found[_PANELS[kind][0][1]]
        colors = style.size_colors(params.values, look)
        if len(colors) <= _MOST_NAMED:
            colors = plot.sizes(params, width=0.35, marker="o")
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        for ax, (factor, name, label) in zip(axes.flat, panels, strict=False):
            visuals.level(ax, 0, width=0.6)
            _draw_runs(ax, found, name, params, colors, "-" if factor in _JOINED[kind] else "none")
            if factor not in ("student", "teacher"):
                bins = grids.group_of(found, factor)
                arms = 2 * bins["standard_error"].fillna(0)
                middle, residual = bins["middle"], bins["mean_residual"]
                visuals.errors(ax, middle, residual, style.WARNING_COLOR, yerr=arms, marker="D", zorder=4)
            if factor in _LOG:
                style.log_axis(ax.xaxis)
                style.set_ticks(ax.xaxis, LogLocator(base=10, subs=(1.0, 3.0), numticks=9), style.short)
            ax.set_xlabel(label)
            share, chance = float(found["share"].sel(by=factor)), _chance(found, found["p_value"].sel(by=factor))
            words = f"by {title_of(found, factor).split(',')[0]}: {100 * share:.0f}% of the variance, {chance}"
            layout.panel_title(ax, words, fontsize=look.small)
        for ax in axes[:, 0]:
            ax.set_ylabel("residual [nats per token]")
        legend.points(
            "mean of a bin or model, 2 standard errors"
            if panels[-1][0] == "model"
            else "mean of a bin, 2 standard errors",
            style.WARNING_COLOR,
            "D",
        )
        correlation, expected = float(found["neighbours"]), float(found["neighbours_expected"])
        chance, series = _chance(found, found["neighbours_p"]), found.attrs.get("series", "student")
        return plot.finish(correlation=correlation, expected=expected, chance=chance, series=series)


def _chance(found: xr.Dataset, value: xr.DataArray) -> str:
    """Write a p value; 0 means that no shuffle reached what was observed."""
    p = float(value)
    return f"p < {1 / found.attrs['shuffles']:.1g}" if p == 0 else f"p = {p:.2g}"


def _draw_runs(
    ax: Axes, found: xr.Dataset, name: str, params: xr.DataArray, colors: dict[float, object], linestyle: str
) -> None:
    looks = {"edge": 0, "linestyle": linestyle, "linewidth": 0.35 * visuals.look_of(ax).line, "zorder": 2}
    for k in np.unique(found["configuration_of_run"].values):
        mine = found.isel(run=np.flatnonzero(found["configuration_of_run"].values == k)).sortby(name)
        visuals.points(ax, mine[name], mine["residual"], colors[float(mine[params.name][0])], 0.6, **looks)
