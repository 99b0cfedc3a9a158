"""What distilling is worth: equivalent pretraining compute, and the cost of choosing wrongly."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterMathtext, LogLocator

from bayesdistill.arguments import checked, one_of
from bayesdistill.plots import collection, grids, style, visuals

MEASURES = {"nats": "", "flops": "_flops", "gpu_hours": "_gpu_hours", "money": "_money"}
_FACTORS = (0.05, 50.0)
"""Equivalent compute over the budget that the axis shows."""


@checked(measure=one_of(*MEASURES))
@collection.documented
def plot_value(value: xr.Dataset, *, measure: str = "nats", size: str = "page", dark: bool = False) -> Figure:
    """How much compute pretraining would need for the distilled loss, and what a wrong or an ignorant choice costs.

    Parameters
    ----------
    value : Dataset
        What `plan_value` returns: compute_factor_quantile, regret, evpi.
    measure : {"nats", "flops", "gpu_hours", "money"}
        In what regret and the value of perfect information are shown; the last two need a Dataset that was made with a
        throughput and a price.
    {size}

    {returns}

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, or there is no such measure or size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> plan = bd.plan(published, "1B", [1e20, 1e21], "best case")
    >>> bd.plot_value(bd.plan_value(published, plan)).savefig("value.png")  # doctest: +SKIP
    """
    regret, evpi = (f"{name}{MEASURES[measure]}" for name in ("regret", "evpi"))
    with collection.drawing("value", value, size, dark, needs=[regret, evpi]) as (plot, _, legend):
        costs = value[[regret, evpi]]
        costs = costs.where(np.isfinite(costs) & (costs > 0))
        colors = plot.sizes(value["student"], width=1.4)
        shown = costs.assign(factor=value["compute_factor_quantile"].clip(*_FACTORS))
        for (top, bottom), cell in plot.facets(grids.cells(shown, "scenario"), x="budget"):
            visuals.level(top, 1)
            for student, color in colors.items():
                one = cell.sel(student=student)
                factor = one["factor"].transpose("quantile", "budget").values
                visuals.band(top, one["budget"], factor[0], factor[-1], color)
                visuals.line(top, one["budget"], factor[len(factor) // 2], color, 1.4, zorder=3)
                for name, linestyle, piece in ((regret, "-", "_"), (evpi, ":", ".")):
                    visuals.line(bottom, one["budget"], one[name], color, 1.2, linestyle=linestyle)
                    visuals.lonely(bottom, one["budget"], one[name], color, 2.4, marker=piece, edge=1.2)
            style.log_axis(top.yaxis)
            top.set_ylim(*_FACTORS)
            style.set_ticks(top.yaxis, LogLocator(base=10), lambda factor: f"{factor:g}")
            _cost_axis(bottom, costs.to_dataarray())
        unit = style.plain(value[regret].attrs.get("units", ""))
        legend.band(f"quantiles, {grids.outer_quantiles(value)}")
        legend.line("regret")
        legend.line("value of perfect information", linestyle=":")
        return plot.finish(_price(value, measure), unit=unit, most=f"{_FACTORS[1]:g}")


def _cost_axis(ax: Axes, costs: xr.DataArray) -> None:
    """Set limits that cut no mark, with labels between the powers of ten where these alone would be one or two."""
    style.log_axis(ax.yaxis)
    style.set_ticks(ax.yaxis, LogLocator(base=10, numticks=5), LogFormatterMathtext())
    # Where nothing costs anything, an empty panel.
    low, high = float(costs.min().fillna(1e-6)) / 1.4, float(costs.max().fillna(1e-3)) * 1.4
    ax.set_ylim(low, high)
    if high < 100 * low:
        subs = (1.0, 2.0, 5.0) if high < 20 * low else (1.0, 3.0)
        style.set_ticks(ax.yaxis, LogLocator(base=10, subs=subs), style.power_of_ten)


def _price(value: xr.Dataset, measure: str) -> list[str]:
    if measure not in ("gpu_hours", "money"):
        return []
    words = f"At {style.power_of_ten(float(value.attrs['gpu_flops_per_second']))} FLOPs per second and accelerator"
    if measure == "money":
        words += f", {float(value.attrs['price_per_gpu_hour']):g} {style.plain(value.attrs['currency'])} an hour"
    return [f"{words}."]
