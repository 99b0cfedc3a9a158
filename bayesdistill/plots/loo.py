"""Leave-one-out: which runs the law finds hard, and whether the estimate can be trusted."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayesdistill.errors import ParameterError
from bayesdistill.plots import collection, grids, style, visuals

GOOD_K = 0.7


@collection.documented
def plot_loo(found: xr.Dataset, *, size: str = "page", dark: bool = False) -> Figure:
    """Pareto k and the log predictive density of every run, or the comparison of models.

    Parameters
    ----------
    found : Dataset
        What `loo` returns (pareto_k and elpd_i over run), or what `compare_loo` returns (elpd_difference over model).
    {size}

    {returns}

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
    with collection.drawing("loo", found, size, dark) as (plot, look, legend):
        bad = ~(found["pareto_k"].values <= GOOD_K)
        warnings, verdict = _verdict(found, bad)
        top, bottom = plot.panels(2, 1, 3.2, sharex=True)[:, 0]
        for ax, name in ((top, "pareto_k"), (bottom, "elpd_i")):
            visuals.flagged(ax, np.arange(bad.size), found[name], bad)
        visuals.level(top, GOOD_K, look.neutral, 1.0, linestyle="--", zorder=2)
        top.set_ylabel("Pareto k [1]")
        bottom.set(xlabel="run, in the order of the table", ylabel="log predictive\ndensity [1]")
        bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend.flagged(f"k at most {GOOD_K}", f"k above {GOOD_K}")
        legend.line(f"k = {GOOD_K}", look.neutral, linestyle="--")
        return plot.finish(warnings=warnings, verdict=verdict, elpd=float(found["elpd"]), se=float(found["se"]))


def _verdict(found: xr.Dataset, bad: np.ndarray) -> tuple[list[str], str]:
    """Return the verdict as a warning if anything is bad, otherwise as the beginning of the notes."""
    verdict = str(found.attrs.get("verdict", ""))
    return ([verdict], "") if bad.any() else ([], f"{verdict} ")


def _plot_comparison(found: xr.Dataset, size: str, dark: bool) -> Figure:
    with collection.drawing("loo_comparison", found, size, dark) as (plot, _, legend):
        models, bad = [style.plain(name) for name in grids.names(found, "model")], found["bad"].values != 0
        warnings, verdict = _verdict(found, bad)
        converged = grids.names(found, "converged") if "converged" in found else ["yes"] * len(models)
        failed = [name for name, answer in zip(models, converged, strict=True) if answer == "no"]
        if failed:
            warnings.insert(0, f"Did not converge: {', '.join(failed)}; its numbers may be wrong.")
        ((ax,),) = plot.panels(1, 1, 0.25 * len(models) + 0.5)
        visuals.level(ax, 0, width=0.6, axis="x", zorder=2)
        places, difference = visuals.rows(ax, models), found["elpd_difference"]
        visuals.flagged(ax, difference, places, bad, 1.4, xerr=2 * found["difference_se"])
        ax.set_xlabel("elpd minus elpd of the best model [1]")
        legend.flagged("difference, 2 standard errors", "Pareto k too large: no estimate")
        return plot.finish(warnings=warnings, verdict=verdict)
