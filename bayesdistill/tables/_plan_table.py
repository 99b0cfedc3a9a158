"""Tables of a plan: every cell, or a few columns per student and scenario."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import posterior
from bayesdistill.arguments import RANGES, checked
from bayesdistill.errors import ParameterError
from bayesdistill.plots.grids import crossover_summary, need, selected_with_lists
from bayesdistill.plots.style import power_of_ten

_PER_CELL = """
    probability probability_mcse probability_best expected_gain expected_gain_mcse regret evpi teacher_params teacher_tokens
    teacher_loss student_tokens status extrapolates extrapolation extrapolation_axis
"""
_LOSSES = ("distilled_loss", "supervised_loss")
"""Variables with quantiles. The table has the median and the outermost ones."""
_SPENDING = (
    *("pretraining_tokens", "student_epochs", "pretraining_epochs", "teacher_epochs"),
    *("student_share", "teacher_inference_share", "teacher_training_share"),
)
OTHER_CORPUS = "other corpus"
"""Content of the column `warning` if the distilled runs and the supervised law belong to different corpora."""
_OUTCOMES = ("crossed", "always", "never", "reversed", "impossible")
_AXES = ("student", "scenario", "students_per_teacher", "budget", "tokens")
_MOST_BUDGETS = 4


def with_attributes[**P](function: Callable[P, pd.DataFrame]) -> Callable[P, pd.DataFrame]:
    """Decorate a function of a result: its table has what the result's attributes say.

    The column `noise` is the level of uncertainty; the column `warning` is there if the runs contradict their law.
    """

    @functools.wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> pd.DataFrame:
        frame = function(*args, **named)
        found = next((value for value in (*args, *named.values()) if isinstance(value, xr.Dataset)), xr.Dataset())
        if "noise" in found.attrs and "noise" not in frame:
            frame["noise"] = found.attrs["noise"]
        if found.attrs.get(posterior.CONFLICT_ATTRIBUTE) and "warning" not in frame:
            frame["warning"] = OTHER_CORPUS
        return frame

    return call


@with_attributes
@selected_with_lists
def plan_table(plan: xr.Dataset) -> pd.DataFrame:
    """One row per student, scenario and budget (or unique tokens).

    Parameters
    ----------
    plan : Dataset
        What `plan`, `plan_tokens` or `sharing_map` returns.

    Returns
    -------
    DataFrame
        student, teacher_params (parameters); budget (FLOPs), or tokens, or students_per_teacher; probability,
        probability_mcse, probability_best; expected_gain, expected_gain_mcse, regret, evpi, teacher_loss (posterior mean;
        nats per token); distilled_loss and supervised_loss, each as _lower, _median and _upper (90% interval at the level of
        uncertainty; nats per token); teacher_tokens, student_tokens, pretraining_tokens (tokens); with `unique_tokens`,
        student_epochs, pretraining_epochs, teacher_epochs;
        student_share,
        teacher_inference_share and teacher_training_share (fractions of the budget of distillation); status (words),
        extrapolates (booleans), extrapolation (largest factor outside the range of the data), extrapolation_axis (its axis,
        or none). If the plan has a range over laws, after probability_best: probability_lowest and probability_highest.
        laws_agree: whether levels of uncertainty and laws are on one side of 0.5. noise: the level of uncertainty of the
        probabilities. NaN where no strategy fits the budget.

    Raises
    ------
    ParameterError
        If the Dataset is no plan.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> table = bd.plan_table(bd.plan(published, "1B", [1e20, 1e21], "best case"))
    >>> table[["scenario", "budget", "probability"]].values.tolist()
    [['best case', 1e+20, 1.0], ['best case', 1e+21, 1.0]]
    """
    names = _PER_CELL.split()
    need(plan, names, "plan", "plan()")
    means = posterior.mean(plan["teacher_loss"])
    words = {name: in_words(plan[name]) for name in ("status", "extrapolation_axis")}
    bounds = {}
    if "law_range" in plan:
        ends = {"probability_lowest": "lower", "probability_highest": "upper"}
        bounds = {name: plan["law_range"].sel(bound=end, drop=True) for name, end in ends.items()}
        place = names.index("probability_best") + 1
        names = [*names[:place], *bounds, *names[place:]]
    losses: dict[str, xr.DataArray] = {}
    for name in _LOSSES:
        if f"{name}_quantile" in plan:
            losses |= ends_of(name, plan[f"{name}_quantile"])
    place = names.index("regret")
    names = [*names[:place], *losses, *names[place:]]
    place = names.index("status")
    names = [*names[:place], *(name for name in _SPENDING if name in plan), *names[place:]]
    names += ["laws_agree"] if "laws_agree" in plan else []
    cells = plan.assign({"teacher_loss": means, **words, **bounds, **losses})[names].reset_coords(drop=True)
    axes = [name for name in _AXES if name in cells.dims]
    return cells.to_dataframe(dim_order=axes).reset_index()[[*axes, *names]]


@with_attributes
@checked
@selected_with_lists
def summary_table(
    plan: xr.Dataset, *, budgets: Sequence[float] | None = None, prob: float = posterior.INTERVAL_PROBABILITY
) -> pd.DataFrame:
    """One row per student and scenario: the probability at a few budgets, and the crossover.

    Parameters
    ----------
    plan : Dataset
        What `plan` returns.
    budgets : sequence of float, optional
        FLOPs; the plan's nearest ones (on a log scale) are taken. By default four, evenly spread over the plan's.
    prob : float
        Probability inside the equal-tailed interval of the crossover.

    Returns
    -------
    DataFrame
        student (parameters), scenario, `probability at 1e21` and so on, and if the plan has a range over laws
        `probability_lowest at 1e21` and `probability_highest at 1e21`; crossover_median, crossover_lower,
        crossover_upper (FLOPs; infinite if beyond the plan's highest budget, 0 if below its lowest; only of several budgets, as the
        following columns); the probability of
        each outcome: crossed, always (distillation ahead throughout), never (pretraining ahead throughout), reversed
        (distillation ahead at the highest budget, but not at first), impossible (left out if it does not occur);
        inside_from, inside_to: lowest and highest budget that is no extrapolation (NaN if there is none); noise: the level of
        uncertainty of the probabilities at the budgets (crossovers refer to the law's mean curves). The plan's
        lowest and highest budget are attributes.

    Raises
    ------
    ParameterError
        If the Dataset is no plan, or a budget is not positive.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> table = bd.summary_table(bd.plan(published, "1B", [1e20, 1e21], "best case"))
    >>> table["probability at 1e20"].tolist()
    [1.0]
    """
    need(plan, ["probability", "crossover", "crossover_status", "extrapolates"], "plan", "plan()")
    grid = plan["budget"].values
    chosen = grid[_positions(grid, budgets)]
    lowest, highest = float(grid.min()), float(grid.max())
    labels = [power_of_ten(budget) for budget in chosen]
    if len(set(labels)) < len(labels):
        labels = [f"{budget:.6g}" for budget in chosen]
    rows = xr.Dataset(
        {
            f"probability at {label}": plan["probability"].sel(budget=budget, drop=True)
            for label, budget in zip(labels, chosen, strict=True)
        }
    )
    if "law_range" in plan:
        for label, budget in zip(labels, chosen, strict=True):
            for name, end in (("lowest", "lower"), ("highest", "upper")):
                cell = plan["law_range"].sel(budget=budget, bound=end, drop=True)
                rows[f"probability_{name} at {label}"] = cell
    if grid.size > 1:
        rows = rows.assign(_crossings(plan, lowest, highest, prob))
    inside = plan["budget"].where(~plan["extrapolates"] & np.isfinite(plan["probability"]))
    rows["inside_from"], rows["inside_to"] = inside.min("budget"), inside.max("budget")
    frame = rows.reset_coords(drop=True).to_dataframe(dim_order=["student", "scenario"]).reset_index()
    if "impossible" in frame and not frame["impossible"].any():
        frame = frame.drop(columns="impossible")
    frame.attrs = {"lowest_budget": lowest, "highest_budget": highest, "interval_prob": prob}
    return frame


def _crossings(plan: xr.Dataset, lowest: float, highest: float, prob: float) -> dict[str, xr.DataArray]:
    """Return the interval of the crossover and the probability of each outcome, by the names of their columns."""
    crossing = crossover_summary(plan["crossover"], plan["crossover_status"], lowest, highest, prob)
    found = {}
    for end in ("lower", "median", "upper"):
        reached = crossing[end].where(~(crossing[end] < lowest), 0.0)
        found[f"crossover_{end}"] = reached.where(~(reached > highest), math.inf)
    status = in_words(plan["crossover_status"])
    return found | {outcome: posterior.mean(status == outcome) for outcome in _OUTCOMES}


def _positions(grid: np.ndarray, budgets: Sequence[float] | None) -> np.ndarray:
    if budgets is None:
        count = min(_MOST_BUDGETS, grid.size)
        return np.unique(np.round(np.linspace(0, grid.size - 1, count)).astype(int))
    wanted = np.atleast_1d(RANGES["budgets"].each(budgets, "budgets"))
    if not wanted.size:
        raise ParameterError("`budgets` is empty. Give at least one number.")
    nearest = [int(np.argmin(np.abs(np.log(grid / value)))) for value in wanted]
    return np.array(list(dict.fromkeys(nearest)))


def ends_of(name: str, levels: xr.DataArray) -> dict[str, xr.DataArray]:
    """Return the outermost quantiles and the median as columns."""
    places = {"lower": 0, "median": levels.sizes["quantile"] // 2, "upper": -1}
    return {f"{name}_{end}": levels.isel(quantile=place, drop=True) for end, place in places.items()}


def in_words(values: xr.DataArray) -> xr.DataArray:
    """A variable with flag_meanings as words; any other as it is."""
    if "flag_meanings" not in values.attrs:
        return values.drop_attrs()
    names = np.array(values.attrs["flag_meanings"].split())
    return values.copy(data=names[values.values]).drop_attrs()
