"""What distilling is worth: equivalent pretraining compute, and the cost of choosing wrongly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bayesdistill.errors import ParameterError
from bayesdistill.plots import grids, style

MEASURES = {"nats": "", "flops": "_flops", "gpu_hours": "_gpu_hours", "money": "_money"}
_FACTORS = (0.05, 50.0)
"""Equivalent compute over the budget that the axis shows."""


def plot_value(value: xr.Dataset, *, measure: str = "nats", size: str = "page", dark: bool = False) -> Figure:
    """How much compute pretraining would need for the distilled loss, and what a wrong or an ignorant choice costs.

    Parameters
    ----------
    value : Dataset
        What `plan_value` returns: compute_factor_quantile, regret, evpi.
    measure : {"nats", "flops", "gpu_hours", "money"}
        In what regret and the value of perfect information are shown; the last two need a Dataset that was made with a
        throughput and a price.
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
        If the Dataset lacks a variable, or there is no such measure or size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> plan = bd.plan(published, "1B", [1e20, 1e21], "best case")
    >>> bd.plot_value(bd.plan_value(published, plan)).savefig("value.png")  # doctest: +SKIP
    """
    if measure not in MEASURES:
        raise ParameterError(f"measure is {measure!r}; use {', '.join(repr(name) for name in MEASURES)}")
    regret, evpi = f"regret{MEASURES[measure]}", f"evpi{MEASURES[measure]}"
    grids.need(value, ["compute_factor_quantile", regret, evpi, "budget"], "the argument of plot_value", "plan_value()")
    look = style.make_look(size, dark)
    students = grids.sorted_students(value)
    scenarios = [str(name) for name in value["scenario"].values]
    colors = style.size_colors(students, look)
    budgets = value["budget"].values
    levels = [float(q) for q in value["quantile"].values]
    unit = value[regret].attrs.get("units", "")
    with style.drawing(look):
        heights = [1.3, 1.0] if look.tall else [1.9, 1.5]
        columns = 2 if look.tall else 4
        figure = style.new_figure(look, -(-len(scenarios) // min(columns, len(scenarios))) * sum(heights))
        groups, columns = grids.shape_panels(figure, look, len(scenarios), heights, columns)
        for (top, bottom), scenario in zip(groups, scenarios, strict=True):
            cell = value[["compute_factor_quantile", regret, evpi]].sel(scenario=scenario)
            top.axhline(1, color=look.ink, linewidth=0.7 * look.line, zorder=1)
            for student in students:
                one = cell.sel(student=student)
                factor = np.clip(one["compute_factor_quantile"].transpose("quantile", "budget").values, *_FACTORS)
                top.fill_between(
                    budgets, factor[0], factor[-1], color=colors[student], alpha=0.25, linewidth=0, zorder=2
                )
                top.plot(budgets, factor[len(levels) // 2], color=colors[student], linewidth=1.4 * look.line, zorder=3)
                for name, linestyle, piece in ((regret, "-", "_"), (evpi, ":", ".")):
                    amount = one[name].where(np.isfinite(one[name]) & (one[name] > 0)).values
                    bottom.plot(budgets, amount, color=colors[student], linestyle=linestyle, linewidth=1.2 * look.line)
                    alone = grids.lonely(amount)
                    bottom.plot(
                        budgets[alone], amount[alone], color=colors[student], linestyle="none", marker=piece,
                        markersize=2.4 * look.marker, markeredgewidth=1.2 * look.line,
                    )  # fmt: skip
            top.set_yscale("log")
            top.set_ylim(*_FACTORS)
            top.yaxis.set_major_locator(LogLocator(base=10))
            top.yaxis.set_minor_locator(NullLocator())
            top.yaxis.set_major_formatter(FuncFormatter(lambda factor, _: f"{factor:g}"))
            bottom.set_yscale("log")
            bottom.yaxis.set_major_locator(LogLocator(base=10, numticks=5))
            bottom.yaxis.set_minor_locator(NullLocator())
            style.panel_title(top, scenario, 24 if look.size == "slide" else 20)
            style.flops_axis(bottom.xaxis)
        _scale_costs(list(groups[:, 1]), np.concatenate([value[name].values.ravel() for name in (regret, evpi)]))
        labels = ["equivalent compute\nover the budget", f"expected cost\n[{style.plain(unit)}]"]
        grids.label_groups(groups, columns, "compute budget [FLOPs]", labels, look)
        outer = f"{100 * levels[0]:g} to {100 * levels[-1]:g} %"
        entries: list[Artist] = grids.student_entries(look, students, colors, 1.4)
        entries += [
            style.band_entry(f"quantiles, {outer}", look.ink, 0.25),
            style.line_entry("regret", look.ink),
            style.line_entry("value of perfect information", look.ink, linestyle=":"),
        ]
        warnings, notes = style.fit_notes(value)
        style.finish(
            figure,
            look,
            title="What distilling is worth",
            handles=entries,
            warnings=warnings,
            notes=[
                "Above: the compute with which pretraining reaches the distilled loss, over the budget (above 1 distilling is "
                f"ahead; cut at {_FACTORS[1]:g}, where it may be that no compute does). Below: what the choice with the smaller "
                "mean loss costs on average against the right one (regret), and against one who knows the law; what is "
                "exactly 0 is not drawn. How far this lies outside the data is shown by plot_probability of the same plan.",
                *_price(value, measure),
                *notes,
            ],
        )
    return figure


def _scale_costs(axes: Sequence[Axes], costs: np.ndarray) -> None:
    """Limits that cut no mark, and labels between the powers of ten where these alone would be one or two."""
    shown = costs[np.isfinite(costs) & (costs > 0)]
    if not shown.size:
        return
    low, high = shown.min() / 1.4, shown.max() * 1.4
    for ax in axes:
        ax.set_ylim(low, high)
        if high < 100 * low:
            ax.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if high < 20 * low else (1.0, 3.0)))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda cost, _: style.power_of_ten(cost)))


def _price(value: xr.Dataset, measure: str) -> list[str]:
    if measure not in ("gpu_hours", "money"):
        return []
    words = f"At {style.power_of_ten(float(value.attrs['gpu_flops_per_second']))} FLOPs a second and accelerator"
    if measure == "money":
        price, currency = float(value.attrs["price_per_gpu_hour"]), style.plain(str(value.attrs["currency"]))
        words += f", {price:g} {currency} an hour"
    return [f"{words}."]
