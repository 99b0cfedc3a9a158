"""How models do on teachers and students that they have not seen."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayesdistill.plots import grids, style, visuals
from bayesdistill.plots.collection import drawing
from bayesdistill.plots.docstrings import documented
from bayesdistill.plots.layout import panel_title

_NEEDED = "elpd_difference elpd_difference_se coverage_50 coverage_90 rmse"


@documented
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
        A row for each split: elpd minus that of the split's best model with two standard errors (none for a split of one
        fold), coverage of the 50 and 90 % intervals, and RMSE in nats per token.

    {raises}

    Examples
    --------
    >>> import bayesdistill as bd
    >>> runs = bd.load_runs("busbridge2025")
    >>> results = {"students": {"eq. 8": bd.leave_out(runs, "student", "busbridge2025")}}  # doctest: +SKIP
    >>> bd.plot_unseen_groups(bd.unseen_scores(results)).savefig("unseen.png")  # doctest: +SKIP
    """
    grids.need(found, _NEEDED, "the argument of plot_unseen_groups", "unseen_scores()")
    models, splits = [style.plain(name) for name in grids.names(found, "model")], grids.names(found, "split")
    with drawing(size, dark) as plot:
        legend, blue, orange = plot.legend, plot.look.accent, style.OKABE_ITO[1]
        rows, columns = plot.look.pick((3 * len(splits), 1), (len(splits), 3))
        axes = plot.panels(rows, columns, rows * (0.15 * len(models) + 0.5)).reshape(len(splits), 3)
        for group, split in zip(axes, splits, strict=True):
            for ax in group:
                visuals.rows(ax, models if columns == 1 or ax is group[0] else [""] * len(models))
            _draw(group, found.sel(split=split), blue, orange)
            panel_title(group[0], f"{split} unseen")
        for group in axes if columns == 1 else axes[-1:]:
            for ax, label in zip(
                group, ("elpd minus the best's [1]", "coverage [1]", "RMSE [nats per token]"), strict=True
            ):
                ax.set_xlabel(label)
        legend.points("elpd difference, 2 standard errors", blue)
        legend.points("runs in their 90 % interval", blue)
        legend.points("runs in their 50 % interval", orange, "^")
        legend.band("85 to 95 %", plot.look.neutral)
        legend.points("RMSE", blue, "s")
        failed = int(np.nansum(found["unconverged"].values)) if "unconverged" in found else 0
        words = f"{failed} of the refits behind this figure did not converge; its numbers may be wrong."
        notes = ["Standard errors over folds; a split of one fold has none."]
        return plot.finish("Runs of groups that the model has not seen", notes, warnings=[words] if failed else [])


def _draw(group: np.ndarray, one: xr.Dataset, blue: str, orange: str) -> None:
    left, middle, right = group
    look, places = visuals.look_of(left), np.arange(one.sizes["model"])
    left.xaxis.set_major_locator(MaxNLocator(5))
    visuals.level(left, 0, width=0.6, axis="x", zorder=2)
    arms = 2 * np.nan_to_num(one["elpd_difference_se"].values)
    visuals.errors(left, one["elpd_difference"].values, places, blue, 1.3, xerr=arms)
    middle.axvspan(0.85, 0.95, color=look.neutral, alpha=0.25, linewidth=0)
    visuals.level(middle, 0.5, look.neutral, 1.0, axis="x", linestyle=":", zorder=2)
    for name, color, marker in (("coverage_90", blue, "o"), ("coverage_50", orange, "^")):
        visuals.points(middle, one[name].values, places, color, 1.4, marker=marker)
    middle.set_xlim(0, 1.03)
    visuals.points(right, one["rmse"].values, places, blue, 1.2, marker="s")
    right.set_xlim(0, 1.08 * max(float(one["rmse"].max()), 1e-12))
    right.xaxis.set_major_locator(MaxNLocator(4))
