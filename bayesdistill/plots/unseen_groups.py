"""How models do on teachers and students that they have not seen."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayesdistill.plots import collection, grids, layout, style, visuals

_LABELS = ("elpd minus the best's [1]", "coverage [1]", "RMSE [nats per token]")


@collection.documented
def plot_unseen_groups(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Differences in elpd, coverage and error on the groups left out, for every model and split.

    Parameters
    ----------
    found : Dataset
        What `unseen_scores` returns.
    {size}

    Returns
    -------
    Figure
        A row for each split: elpd minus the elpd of the split's best model with two standard errors (none for a split of one
        fold), coverage of the 50 and 90% intervals, and RMSE in nats per token.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> runs = bd.load_runs("busbridge2025")
    >>> results = {"students": {"point fit": bd.leave_out(runs, "student", "point")}}  # doctest: +SKIP
    >>> bd.plot_unseen_groups(bd.unseen_scores(results)).savefig("unseen.png")  # doctest: +SKIP
    """
    with collection.drawing("unseen_groups", found, size, dark) as (plot, look, legend):
        models, splits = [style.plain(name) for name in grids.names(found, "model")], grids.cells(found, "split")
        blue, orange = look.accent, style.OKABE_ITO[1]
        rows, columns = look.pick((3 * len(splits), 1), (len(splits), 3))
        axes = plot.panels(rows, columns, rows * (0.15 * len(models) + 0.5)).reshape(len(splits), 3)
        for group, (split, one) in zip(axes, splits, strict=True):
            for ax, label in zip(group, _LABELS, strict=True):
                visuals.rows(ax, models if columns == 1 or ax is group[0] else [""] * len(models))
                ax.set_xlabel(label if columns == 1 or ax in axes[-1] else "")
            _draw_scores(group, one, blue, orange)
            layout.panel_title(group[0], f"{split} unseen")
        legend.points("elpd difference, 2 standard errors", blue)
        legend.points("runs in their 90% interval", blue)
        legend.points("runs in their 50% interval", orange, "^")
        legend.band("85 to 95%", look.neutral)
        legend.points("RMSE", blue, "s")
        failed = int(np.nansum(found["unconverged"].values)) if "unconverged" in found else 0
        words = f"{failed} of the refits behind this figure did not converge; its numbers may be wrong."
        return plot.finish(warnings=[words] if failed else [])


def _draw_scores(group: np.ndarray, one: xr.Dataset, blue: str, orange: str) -> None:
    left, middle, right = group
    look, places = visuals.look_of(left), np.arange(one.sizes["model"])
    left.xaxis.set_major_locator(MaxNLocator(5))
    visuals.level(left, 0, width=0.6, axis="x", zorder=2)
    visuals.errors(left, one["elpd_difference"], places, blue, 1.3, xerr=2 * one["elpd_difference_se"].fillna(0))
    middle.axvspan(0.85, 0.95, color=look.neutral, alpha=0.25, linewidth=0)
    visuals.level(middle, 0.5, look.neutral, 1.0, axis="x", linestyle=":", zorder=2)
    visuals.points(middle, one["coverage_90"], places, blue, 1.4)
    visuals.points(middle, one["coverage_50"], places, orange, 1.4, marker="^")
    middle.set_xlim(0, 1.03)
    visuals.points(right, one["rmse"], places, blue, 1.2, marker="s")
    right.set_xlim(0, 1.08 * max(float(one["rmse"].max()), 1e-12))
    right.xaxis.set_major_locator(MaxNLocator(4))
