"""Leave-one-out: which runs the law finds hard, and whether the estimate can be trusted."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from bayesdistill.errors import ParameterError
from bayesdistill.plots import grids, style

GOOD_K = 0.7


def plot_loo(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Pareto k and the log predictive density of every run, or the comparison of models.

    Parameters
    ----------
    found : Dataset
        What `loo` returns (pareto_k and elpd_i over run), or what `compare_loo` returns (elpd_difference over model).
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
        If the Dataset is neither, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> bd.plot_loo(bd.loo(bd.load("fit.nc"))).savefig("loo.png")  # doctest: +SKIP
    """
    if isinstance(found, xr.Dataset) and "elpd_difference" in found and "model" in found.dims:
        return _plot_comparison(found, size, dark)
    if not isinstance(found, xr.Dataset) or "pareto_k" not in found:
        raise ParameterError("the argument of plot_loo is what loo() or compare_loo() returns")
    grids.need(found, ["elpd_i", "elpd", "se"], "the argument of plot_loo", "loo()")
    look = style.make_look(size, dark)
    k, density = found["pareto_k"].values, found["elpd_i"].values
    x, bad = np.arange(k.size), ~(k <= GOOD_K)
    with style.drawing(look):
        figure = style.new_figure(look, 3.2)
        axes = style.panels(figure, look, 2, 1, share_y=False)[:, 0]
        for ax, values, label in zip(axes, (k, density), ("Pareto k [1]", "log predictive\ndensity [1]"), strict=True):
            for which, color, marker in ((~bad, look.accent, "o"), (bad, style.WARNING_COLOR, "D")):
                ax.plot(x[which], values[which], linestyle="none", marker=marker, color=color, markersize=look.marker)
            ax.set_ylabel(label)
        axes[0].axhline(GOOD_K, color=look.neutral, linestyle="--", linewidth=look.line)
        axes[1].set_xlabel("run, in the order of the table")
        entries: list[Artist] = [
            style.line_entry(f"k at most {GOOD_K}", look.accent, linestyle="none", marker="o"),
            style.line_entry(f"k above {GOOD_K}", style.WARNING_COLOR, linestyle="none", marker="D"),
            style.line_entry(f"k = {GOOD_K}", look.neutral, linestyle="--"),
        ]
        warnings, notes = style.fit_notes(found)
        verdict = str(found.attrs.get("verdict", ""))
        estimate = f"elpd {float(found['elpd']):.1f}, standard error {float(found['se']):.1f}."
        style.finish(
            figure,
            look,
            title="Every run left out in turn, by importance sampling",
            handles=entries,
            warnings=[*warnings, *([verdict] if bad.any() else [])],
            notes=[*([] if bad.any() else [verdict]), estimate, *notes],
        )
    return figure


def _plot_comparison(found: xr.Dataset, size: str, dark: bool) -> Figure:
    grids.need(found, ["difference_se", "bad", "weight"], "the argument of plot_loo", "compare_loo()")
    look = style.make_look(size, dark)
    y = np.arange(found.sizes["model"])
    difference, error = found["elpd_difference"].values, found["difference_se"].values
    trusted = found["bad"].values == 0
    with style.drawing(look):
        figure = style.new_figure(look, 0.25 * y.size + 0.5)
        ax = style.panels(figure, look, 1, 1)[0, 0]
        ax.axvline(0, color=look.ink, linewidth=0.6 * look.line)
        for which, color, marker in ((trusted, look.accent, "o"), (~trusted, style.WARNING_COLOR, "D")):
            ax.errorbar(
                difference[which],
                y[which],
                xerr=2 * error[which],
                color=color,
                linestyle="none",
                marker=marker,
                markersize=1.4 * look.marker,
                elinewidth=look.line,
            )
        ax.set_yticks(y, [style.plain(str(name)) for name in found["model"].values])
        ax.set_ylim(y.size - 0.5, -0.5)
        ax.set_xlabel("elpd minus that of the best model [1]")
        entries: list[Artist] = [
            style.line_entry("difference, 2 standard errors", look.accent, linestyle="none", marker="o"),
            style.line_entry("Pareto k too large: no estimate", style.WARNING_COLOR, linestyle="none", marker="D"),
        ]
        verdict = str(found.attrs.get("verdict", ""))
        bad = not bool(trusted.all())
        wrong = found["model"].values[found["converged"].values == "no"] if "converged" in found else []
        failed = [style.plain(str(name)) for name in wrong]
        style.finish(
            figure,
            look,
            title="Models compared by leaving out single runs",
            handles=entries,
            warnings=[
                *([f"Did not converge: {', '.join(failed)}; its numbers may be wrong."] if failed else []),
                *([verdict] if bad else []),
            ],
            notes=[*([] if bad else [verdict]), "Others of the same teacher and student stay: see bd.leave_out."],
        )
    return figure
