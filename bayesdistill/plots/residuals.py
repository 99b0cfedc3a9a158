"""Residuals of the law against student, teacher, r and D_S."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from bayesdistill.plots import grids, style
from bayesdistill.plots.posterior_predictive import TITLES

_NEED = (
    "residual",
    "ratio",
    "teacher_loss",
    "student_tokens",
    "student_params",
    "mean_residual",
    "share",
    "p_value",
    "neighbours",
)
_PANELS = (
    ("student", "student_params", "student [parameters]"),
    ("teacher", "teacher_loss", "teacher loss [nats per token]"),
    ("ratio", "ratio", "r, teacher over student's own loss [1]"),
    ("tokens", "student_tokens", "student tokens [tokens]"),
)


def plot_residuals(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Residuals of every run against student size, teacher loss, r and tokens, with the means of groups.

    Parameters
    ----------
    found : Dataset
        What `residual_structure` returns: residual (nats per token) over run, mean_residual over group, share and p_value.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

    Returns
    -------
    Figure
        Runs of a student configuration are joined in the order of their teachers in the panels of teacher and r: lines that are
        smooth are misfit, lines that jump are noise.

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> bd.plot_residuals(bd.residual_structure(bd.load("fit.nc"))).savefig("residuals.png")  # doctest: +SKIP
    """
    grids.need(found, _NEED, "the argument of plot_residuals", "residual_structure()")
    look = style.make_look(size, dark)
    residual, configuration = found["residual"].values, found["configuration_of_run"].values
    colors = style.size_colors(found["student_params"].values, look)
    with style.drawing(look):
        columns = 1 if look.tall else 2
        figure = style.new_figure(look, 4 / columns * 1.75)
        axes = figure.subplots(4 // columns, columns, sharey=True, squeeze=False)
        for ax, (factor, name, label) in zip(axes.ravel(), _PANELS, strict=True):
            style.dress(ax, look)
            ax.axhline(0, color=look.ink, linewidth=0.6 * look.line, zorder=1)
            x = found[name].values
            for k in np.unique(configuration):
                mine = np.flatnonzero(configuration == k)
                mine = mine[np.argsort(x[mine], kind="stable")]
                joined = "-" if factor in ("teacher", "ratio") else "none"
                color = colors[float(found["student_params"].values[mine[0]])]
                ax.plot(
                    x[mine],
                    residual[mine],
                    color=color,
                    linestyle=joined,
                    linewidth=0.35 * look.line,
                    marker="o",
                    markersize=0.6 * look.marker,
                    markeredgewidth=0,
                    zorder=2,
                )
            if factor in ("ratio", "tokens"):
                groups = found.isel(group=np.flatnonzero(found["factor"].values == factor))
                ax.errorbar(
                    groups["middle"].values,
                    groups["mean_residual"].values,
                    2 * np.nan_to_num(groups["standard_error"].values),
                    color=style.WARNING_COLOR,
                    linestyle="none",
                    marker="D",
                    markersize=look.marker,
                    elinewidth=look.line,
                    zorder=4,
                )
            if factor in ("student", "tokens"):
                style.size_axis(ax.xaxis)
                ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 3.0), numticks=9))
            ax.set_xlabel(label)
            share, p = (float(found[v].sel(by=factor)) for v in ("share", "p_value"))
            chance = f"p < {1 / found.attrs['shuffles']:.1g}" if p == 0 else f"p = {p:.2g}"
            ax.set_title(
                f"by {TITLES[factor].split(',')[0]}: {100 * share:.0f} % of the variance, {chance}", fontsize=look.small
            )
        for ax in axes[:, 0]:
            ax.set_ylabel("residual [nats per token]")
        entries: list[Artist] = [
            style.line_entry(
                f"{'' if i else 'student '}{style.short(student)}", color, marker="o", width=0.35 * look.line
            )
            for i, (student, color) in enumerate(colors.items())
        ]
        entries.append(
            style.line_entry("mean of a bin, 2 standard errors", style.WARNING_COLOR, linestyle="none", marker="D")
        )
        warnings, notes = style.fit_notes(found)
        correlation, expected, p = (float(found[v]) for v in ("neighbours", "neighbours_expected", "neighbours_p"))
        chance = f"p < {1 / found.attrs['shuffles']:.1g}" if p == 0 else f"p = {p:.2g}"
        style.finish(
            figure,
            look,
            title="What the law leaves over",
            handles=entries,
            warnings=warnings,
            notes=[
                "Observed minus predicted loss. Lines join runs of one student configuration; those with neighbouring teachers "
                f"correlate by {correlation:.2f} ({chance}; noise alone: {expected:.2f}).",
                *notes,
            ],
        )
    return figure
