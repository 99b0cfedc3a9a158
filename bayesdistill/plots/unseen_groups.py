"""How models do on teachers and students that they have not seen."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayesdistill.plots import grids, style

_NEED = ("elpd_difference", "elpd_difference_se", "coverage_50", "coverage_90", "rmse")


def plot_unseen_groups(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Differences in elpd, coverage and error on the groups left out, for every model and split.

    Parameters
    ----------
    found : Dataset
        What `unseen_scores` returns.
    size : {"column", "page", "slide"}
        A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
    dark : bool
        For dark backgrounds.

    Returns
    -------
    Figure
        A row for each split: elpd minus that of the split's best model with two standard errors (none for a split of one
        fold), coverage of the 50 and 90 % intervals, and RMSE in nats per token.

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> runs = bd.load_runs("busbridge2025")
    >>> results = {"students": {"eq. 8": bd.leave_out(runs, "student", "busbridge2025")}}  # doctest: +SKIP
    >>> bd.plot_unseen_groups(bd.unseen_scores(results)).savefig("unseen.png")  # doctest: +SKIP
    """
    grids.need(found, _NEED, "the argument of plot_unseen_groups", "unseen_scores()")
    look = style.make_look(size, dark)
    models = [style.plain(str(name)) for name in found["model"].values]
    splits = [str(name) for name in found["split"].values]
    y = np.arange(len(models))
    blue, orange = look.accent, style.OKABE_ITO[1]
    with style.drawing(look):
        rows, columns = (3 * len(splits), 1) if look.tall else (len(splits), 3)
        figure = style.new_figure(look, rows * (0.15 * len(models) + 0.5))
        axes = figure.subplots(rows, columns, squeeze=False).reshape(len(splits), 3)
        for row, split in zip(axes, splits, strict=True):
            one = found.sel(split=split)
            for ax in row:
                style.dress(ax, look)
                ax.set_yticks(y, models if look.tall or ax is row[0] else [""] * len(models))
                ax.set_ylim(y.size - 0.5, -0.5)
            left, middle, right = row
            left.xaxis.set_major_locator(MaxNLocator(5))
            left.axvline(0, color=look.ink, linewidth=0.6 * look.line)
            left.errorbar(
                one["elpd_difference"].values,
                y,
                xerr=2 * np.nan_to_num(one["elpd_difference_se"].values),
                color=blue,
                linestyle="none",
                marker="o",
                markersize=1.3 * look.marker,
                elinewidth=look.line,
            )
            middle.axvspan(0.85, 0.95, color=look.neutral, alpha=0.25, linewidth=0)
            middle.axvline(0.5, color=look.neutral, linestyle=":", linewidth=look.line)
            for name, color, marker in (("coverage_90", blue, "o"), ("coverage_50", orange, "^")):
                middle.plot(
                    one[name].values, y, linestyle="none", marker=marker, color=color, markersize=1.4 * look.marker
                )
            middle.set_xlim(0, 1.03)
            right.plot(one["rmse"].values, y, linestyle="none", marker="s", color=blue, markersize=1.2 * look.marker)
            right.set_xlim(0, 1.08 * max(float(one["rmse"].max()), 1e-12))
            right.xaxis.set_major_locator(MaxNLocator(4))
            style.panel_title(left, f"{split} unseen", 40)
        last = axes if look.tall else axes[-1:]
        for row in last:
            labels = ("elpd minus the best's [1]", "coverage [1]", "RMSE [nats per token]")
            for ax, label in zip(row, labels, strict=True):
                ax.set_xlabel(label)
        entries: list[Artist] = [
            style.line_entry("elpd difference, 2 standard errors", blue, linestyle="none", marker="o"),
            style.line_entry("runs in their 90 % interval", blue, linestyle="none", marker="o"),
            style.line_entry("runs in their 50 % interval", orange, linestyle="none", marker="^"),
            style.band_entry("85 to 95 %", look.neutral, 0.25),
            style.line_entry("RMSE", blue, linestyle="none", marker="s"),
        ]
        failed = int(np.nansum(found["unconverged"].values)) if "unconverged" in found else 0
        style.finish(
            figure,
            look,
            title="Runs of groups that the model has not seen",
            handles=entries,
            warnings=[f"{failed} of the refits behind this figure did not converge; its numbers may be wrong."]
            if failed
            else [],
            notes=["Standard errors over folds; a split of one fold has none."],
        )
    return figure
