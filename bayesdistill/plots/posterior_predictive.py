"""Repeated runs beside observed ones, group by group."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesdistill.arguments import shown
from bayesdistill.errors import ParameterError
from bayesdistill.plots import collection, grids, style, visuals

TITLES = {
    "student": "student configuration",
    "teacher": "teacher",
    "ratio": "r, teacher over student's own loss",
    "tokens": "tokens of the student",
    "model": "model",
    "size": "size of the model",
    "tokens_per_param": "tokens per parameter",
}
_FACTORS = {"distilled": ("student", "ratio", "tokens"), "supervised": ("size", "tokens", "tokens_per_param")}


def title_of(found: xr.Dataset, factor: str) -> str:
    """Return what the runs of a result are grouped by."""
    supervised = found.attrs.get("kind") == "supervised"
    return "tokens of the model" if supervised and factor == "tokens" else TITLES.get(factor, factor)


@collection.documented
def plot_posterior_predictive(
    found: xr.Dataset, *, factors: tuple[str, ...] | None = None, size: str = "page", dark: bool = False
) -> Figure:
    """Mean misfit and coverage of every group of runs, with what repetition of the runs would give.

    Parameters
    ----------
    found : Dataset
        What `posterior_predictive` returns: mean, mean_lower, mean_upper (nats per token), inside_90 and its bounds over group.
    factors : tuple of str, optional
        What the runs are grouped by, a row each: "student", "teacher", "ratio", "tokens" of distilled runs; "model", "size",
        "tokens", "tokens_per_param" of supervised runs. By default, all but teachers and models, which are many; ask for them alone.
    {size}

    {returns}

    Raises
    ------
    ParameterError
        If the Dataset lacks a variable, a factor is unknown, or there is no such size.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.posterior_predictive(bd.load("fit.nc"))  # doctest: +SKIP
    >>> bd.plot_posterior_predictive(found, factors=("teacher",)).savefig("teachers.png")  # doctest: +SKIP
    """
    with collection.drawing("posterior_predictive", found, size, dark) as (plot, look, legend):
        known = list(dict.fromkeys(grids.names(found, "factor")))
        factors = _FACTORS[found.attrs.get("kind", "distilled")] if factors is None else factors
        if not isinstance(factors, tuple | list) or not factors or any(name not in known for name in factors):
            raise ParameterError(f"`factors` must be a tuple of {', '.join(map(repr, known))}, got {shown(factors)}.")
        groups = {name: grids.group_of(found, name) for name in factors}
        counts = [one.sizes["group"] for one in groups.values()]
        # Not so low that the label of a few groups is longer than their panel.
        ratios = [max(count, 4) + 2 for count in counts]
        height = max(1.5, sum(0.14 * ratio + 0.17 for ratio in ratios))
        axes = plot.panels(len(groups), 2, height, sharey="row", sharex="col", height_ratios=ratios)
        # The height of a slide is fixed, and its rows are low.
        small = look.pick(look.small, look.small, min(look.small, 330 / (sum(counts) + 6)))
        for (left, right), (name, one) in zip(axes, groups.items(), strict=True):
            labels = zip(grids.names(one, "label"), one["runs"].values, strict=True)
            visuals.rows(left, [f"{style.plain(label)} ({int(n)})" for label, n in labels], fontsize=small)
            _draw(left, one, "mean", 0.0)
            _draw(right, one, "inside_90", 0.9)
            right.set_xlim(-0.03, 1.03)
            title = style.plain(title_of(found, name))
            left.set_ylabel(look.pick(title, title, title.split(",")[0]))
        style.small_numbers(axes[-1, 0].xaxis, look.pick(3, 6))
        axes[-1, 0].set_xlabel("mean misfit\n[nats per token]")
        axes[-1, 1].set_xlabel("share in\n90% interval [1]")
        legend.flagged("observed, as the model allows", "observed, outside of 90% of repetitions")
        legend.band("90% of repetitions", look.neutral, 0.4)
        short = size == "slide" and "ratio" in factors
        return plot.finish(["r: the teacher's loss over the student's own."] if short else [])


def _draw(ax: Axes, one: xr.Dataset, name: str, center: float) -> None:
    low, high, value = (one[f"{name}{end}"].values for end in ("_lower", "_upper", ""))
    places, neutral = np.arange(value.size), visuals.look_of(ax).neutral
    ax.use_sticky_edges = False  # a band that ends at the axis looks cut
    visuals.bars(ax, places, high - low, neutral, left=low, height=0.55, alpha=0.4, zorder=1)
    # Bounds of a count are inclusive: allow for rounding of the shares.
    outside = (value < low - 1e-12) | (value > high + 1e-12)
    visuals.flagged(ax, value, places, outside, 1.2, zorder=3)
    visuals.level(ax, center, width=0.6, axis="x", zorder=0.5)
