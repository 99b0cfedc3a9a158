"""What plots read from a result: whether it is the right one, its cells, summaries over draws, and notes about it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.arguments import LEVELS
from bayesdistill.errors import BayesdistillError, ParameterError
from bayesdistill.plots import style

PROB = posterior.INTERVAL_PROBABILITY
_SEVERAL = 0.05


def need(data: xr.Dataset, names: Sequence[str], what: str, maker: str) -> None:
    """Reject a Dataset that lacks variables.

    Raises
    ------
    ParameterError
        Naming what is missing and which function makes it.
    """
    if not isinstance(data, xr.Dataset):
        raise ParameterError(f"Expected {what} as a Dataset returned by {maker}, got {type(data).__name__}.")
    missing = [name for name in names if name not in data.variables]
    if missing:
        raise ParameterError(f"Expected {what} as a Dataset returned by {maker}; {', '.join(missing)} is missing.")


def without_pairs(found: Any) -> bool:
    """Return whether a result of `backtest` has no pairs, because it was given one kind of runs."""
    return isinstance(found, xr.Dataset) and "prediction" in found.dims and "forecast" not in found.dims


def selected_with_lists[F: Callable[..., Any]](function: F) -> F:
    """Decorate a function of a Dataset: if it fails because one label was selected as a scalar, the error names the solution.

    Raises
    ------
    ParameterError
    """

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        try:
            return function(*args, **named)
        except BayesdistillError:
            raise
        except (IndexError, KeyError, TypeError, ValueError) as error:
            data = [value for value in (*args, *named.values()) if isinstance(value, xr.Dataset)]
            single = [str(name) for one in data for name, labels in one.coords.items() if labels.ndim == 0]
            if not single:
                raise
            raise ParameterError(
                f"The Dataset has a scalar {' and '.join(single)} where dimensions are required. Select with lists, for example "
                f"result.isel({single[0]}=[0])."
            ) from error

    return call  # type: ignore[return-value]


def need_several(data: xr.Dataset, name: str) -> None:
    """Reject a Dataset with a single point on an axis along which something is drawn.

    Raises
    ------
    ParameterError
        Naming the axis.
    """
    if data.sizes.get(name, 0) < 2:
        raise ParameterError(
            f"The figure is drawn along `{name}` and requires at least two values of it. Compute the result for several."
        )


def summaries(data: xr.Dataset, names: Sequence[str], prob: float, keep: Sequence[str] = ()) -> xr.Dataset:
    """Median of each named variable under its own name, its interval as `_lower` and `_upper`; `keep` as it is."""
    found = {name: data[name] for name in keep}
    for name in names:
        bounds = posterior.interval(data[name], prob)
        found[name] = posterior.median(data[name])
        found[f"{name}_lower"] = bounds.sel(bound="lower", drop=True)
        found[f"{name}_upper"] = bounds.sel(bound="upper", drop=True)
    return xr.Dataset(found)


def spent_axis(plan: xr.Dataset) -> str:
    """What a plan runs over: budget, or tokens if that is what it was made for."""
    return "tokens" if isinstance(plan, xr.Dataset) and "tokens" in plan.dims else "budget"


def left_out(plan: xr.Dataset) -> list[str]:
    """Return a sentence on the cells that have no strategy; an empty list if there are none."""
    axis, found = spent_axis(plan), []
    for scenario, cell in cells(plan, "scenario"):
        parts = []
        for student in plan["student"].values:
            without = plan[axis].values[cell["probability"].sel(student=student).isnull().values]
            points = f"{without.size} point{'s' if without.size > 1 else ''}"
            where = f"at {points} up to {style.power_of_ten(without.max(initial=0))}"
            if without.size:
                parts.append(
                    f"{style.short(student)} {'at every point' if without.size == plan.sizes[axis] else where}"
                )
        if parts:
            found.append(f"{style.plain(scenario)}: {', '.join(parts)}")
    return [f"No strategy fits the budget: {'; '.join(found)}."] if found else []


def names(data: xr.Dataset, dim: str) -> list[str]:
    """Return the labels of a coordinate."""
    return [str(value) for value in data[dim].values]


def cells(data: xr.Dataset, dim: str, inner: str = "", joint: str = ", ") -> list[tuple[str, xr.Dataset]]:
    """Return (title, part) for each value of a dimension, or for each pair of values of two; students by size."""
    if inner:
        return [
            (f"{first}{joint}{second}", part) for first, row in cells(data, dim) for second, part in cells(row, inner)
        ]
    if dim == "student":
        return [(f"student {style.short(s)}", data.sel(student=s)) for s in sorted(data["student"].values.tolist())]
    return [(str(value), data.sel({dim: value})) for value in data[dim].values]


def group_of(found: xr.Dataset, factor: str) -> xr.Dataset:
    """Return the groups of runs that share a factor."""
    return found.isel(group=np.flatnonzero(found["factor"].values == factor))


def share(data: xr.Dataset, name: str) -> str:
    """Return an attribute in percent."""
    return style.percent(float(data.attrs.get(name, np.nan)))


def outer_quantiles(data: xr.Dataset, to: str = "to") -> str:
    """Return the lowest and the highest level of the dimension `quantile` in words."""
    return f"{100 * float(data['quantile'][0]):g} {to} {style.percent(float(data['quantile'][-1]))}"


def level_note(data: xr.Dataset, level: str = "") -> list[str]:
    """Which level of uncertainty a result, or a figure of a part of it, has; nothing for results without levels."""
    level = level or str(data.attrs.get("noise", ""))
    return [f"Level {level} compares {LEVELS[level]}."] if level in LEVELS else []


def undetermined_note(plan: xr.Dataset) -> list[str]:
    """Say in how many cells of a plan the data do not determine the better option, and which laws were asked."""
    if "laws_agree" not in plan or "probability" not in plan:
        return []
    known = plan["probability"].notnull()
    open_, count = np.count_nonzero(known & ~plan["laws_agree"]), np.count_nonzero(known)
    cells = f"{open_} of {count} cells" if count > 1 else "this cell"
    found = [
        f"The data do not determine the better option in {cells} of the plan: laws or levels of uncertainty are on different "
        "sides of 0.5."
    ]
    return [*(found if open_ else []), *filter(None, [plan.attrs.get("law_range")])]


def changes_note(data: xr.Dataset) -> list[str]:
    """Say that crossovers are ambiguous if the better option changes more than once in more than 5% of the draws."""
    chance = data.get("several_changes_probability")
    most = float("nan") if chance is None else float(chance.max())
    if chance is None or not most > _SEVERAL:
        return []
    return [
        f"In up to {100 * most:.0f}% of the draws (level {chance.attrs.get('noise', 'law')}), the better option changes more "
        "than once, so that distillation can be ahead again above the crossover."
    ]


def target_sentences(found: xr.Dataset, most: int = 4) -> list[str]:
    """Say which option reaches each target loss at lower cost, by how much and how sure that is, and which student is the cheapest.

    Empty for more than `most` cells of student, scenario and target.
    """
    shape = ("student", "scenario", "target")
    if any(name not in found.dims for name in shape) or found["probability"].size > most:
        return []
    said = []
    for student, scenario, target in np.ndindex(*(found.sizes[name] for name in shape)):
        cell = found.isel(student=student, scenario=scenario, target=target)
        low, middle, high = (float(cell["ratio_quantile"][place]) for place in (0, found.sizes["quantile"] // 2, -1))
        given = f"{style.short(float(cell['student']))}, {style.plain(str(cell['scenario'].values))}, {float(cell['target']):g} nats: "
        if min(float(cell[f"{option}_impossible"]) for option in ("distilled", "pretraining")) == 1:
            said.append(
                f"{given}neither option reaches it with up to {style.power_of_ten(found.attrs['max_compute'])} FLOPs."
            )
            continue
        words = f"{given}distillation is cheaper with probability {posterior.tenths(float(cell['probability']))}"
        if np.isfinite([low, middle, high]).all():
            words += f"; it costs {middle:.2g} times ({low:.2g} to {high:.2g}) as much as pretraining"
        for option in ("distilled", "pretraining"):
            never = float(cell[f"{option}_impossible"])
            name = {"pretraining": "pretrained"}.get(option, option)
            words += (
                f"; the {name} student never reaches it with probability {posterior.tenths(never)}" if never else ""
            )
        said.append(f"{words}.")
    if found.sizes["student"] > 1:
        for scenario, target in np.ndindex(found.sizes["scenario"], found.sizes["target"]):
            cell = found.isel(scenario=scenario, target=target)
            size = float(cell["cheapest_student"])
            if np.isfinite(size):
                chance = posterior.tenths(float(cell["probability_cheapest"].sel(student=size)))
                name = style.plain(str(cell["scenario"].values))
                said.append(
                    f"Cheapest student ({name}, {float(cell['target']):g} nats): {style.short(size)}, with probability {chance}."
                )
    return said


def extrapolation_note(data: xr.Dataset) -> list[str]:
    """Which axes are outside the range of the data, and by which factor at most; nothing if none is or the result has no axes."""
    factor = data.get("extrapolation_factor")
    if factor is None or "axis" not in factor.dims:
        return []
    worst = factor.where(data["extrapolates"]).max([name for name in factor.dims if name != "axis"]).to_series()
    worst = worst[worst > 1].sort_values(ascending=False, kind="stable")
    # Rounded up, because a factor of 1.00 says that nothing is extrapolated.
    named = [
        f"{style.axis_words(str(axis))} (\N{MULTIPLICATION SIGN}{style.short(max(value, 1.01))})"
        for axis, value in worst.items()
    ]
    return [f"Outside the range of the data, at most by these factors: {', '.join(named)}."] if named else []


def crossover_summary(
    crossover: xr.DataArray, status: xr.DataArray, lowest: float, highest: float, prob: float
) -> xr.Dataset:
    """Lower bound, median and upper bound of crossovers over all draws, those without one included.

    A draw in which distillation is ahead at the highest budget has its crossover, if any, beyond it; one in which pretraining
    is ahead throughout, below the lowest. A value below `lowest` or above `highest` says just that. NaN if no strategy fits
    any budget.
    """
    names = dict(zip(status.attrs["flag_meanings"].split(), np.atleast_1d(status.attrs["flag_values"]), strict=True))
    above = (status == names["always"]) | (status == names["reversed"])
    # Finite stand-ins: a quantile between two infinite values would be NaN.
    whole = crossover.where(~above, 10 * highest).where(status != names["never"], lowest / 10)
    shown = summaries(whole.to_dataset(name="crossover"), ["crossover"], prob)
    shown = shown.rename(crossover="median", crossover_lower="lower", crossover_upper="upper")
    return shown.where((status != names["impossible"]).all(posterior.draw_dimensions(status)))
