"""Tables of a plan: every cell, or a few columns per student and scenario."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import posterior
from bayesdistill.errors import ParameterError
from bayesdistill.plots.grids import crossover_summary, need
from bayesdistill.plots.style import power_of_ten

_PER_CELL = (
    "probability",
    "probability_mcse",
    "probability_best",
    "expected_gain",
    "expected_gain_mcse",
    "regret",
    "evpi",
    "teacher_params",
    "teacher_tokens",
    "student_tokens",
)
_OUTCOMES = ("crossed", "always", "never", "reversed", "impossible")
_AXES = ("student", "scenario", "students_per_teacher", "budget", "tokens")
_MOST_BUDGETS = 4


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
        nats per token); teacher_tokens, student_tokens (tokens); status (words), extrapolates (booleans). NaN where no
        strategy fits the budget.

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
    need(plan, [*_PER_CELL, "teacher_loss", "status", "extrapolates"], "plan", "plan()")
    cells = plan[[*_PER_CELL, "extrapolates"]].reset_coords(drop=True)
    cells["teacher_loss"] = posterior.mean(plan["teacher_loss"])
    cells["status"] = in_words(plan["status"])
    axes = [name for name in _AXES if name in cells.dims]
    frame = cells.to_dataframe(dim_order=axes).reset_index()
    order = [*axes, *_PER_CELL[:9], "teacher_loss", "student_tokens", "status", "extrapolates"]
    return frame[order]


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
        student (parameters), scenario, `probability at 1e21` and so on; crossover_median, crossover_lower,
        crossover_upper (FLOPs; infinite if beyond the plan's highest budget, 0 if below its lowest); the probability of
        each outcome: crossed, always (distillation ahead throughout), never (pretraining ahead throughout), reversed
        (distillation ahead at the highest budget, but not at first), impossible (left out if it does not occur);
        inside_from, inside_to: lowest and highest budget that is no extrapolation (NaN if there is none). The plan's
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
    meanings = plan["crossover_status"].attrs["flag_meanings"].split()
    codes = plan["crossover_status"].attrs["flag_values"]
    shares = {
        name: posterior.probability(plan["crossover_status"] == code)[0]
        for name, code in zip(meanings, np.atleast_1d(codes), strict=True)
    }
    crossing = crossover_summary(plan["crossover"], plan["crossover_status"], lowest, highest, prob)
    labels = [power_of_ten(budget) for budget in chosen]
    if len(set(labels)) < len(labels):
        labels = [f"{budget:.6g}" for budget in chosen]
    rows = []
    for student in plan["student"].values:
        for scenario in plan["scenario"].values:
            at = {"student": student, "scenario": scenario}
            row: dict[str, Any] = {"student": float(student), "scenario": str(scenario)}
            for label, budget in zip(labels, chosen, strict=True):
                row[f"probability at {label}"] = float(plan["probability"].sel({**at, "budget": budget}))
            for key in ("lower", "median", "upper"):
                value = float(crossing[key].sel(at))
                row[f"crossover_{key}"] = 0.0 if value < lowest else math.inf if value > highest else value
            for name in _OUTCOMES:
                row[name] = float(shares[name].sel(at))
            inside = grid[~plan["extrapolates"].sel(at).values & np.isfinite(plan["probability"].sel(at).values)]
            row["inside_from"] = float(inside.min()) if inside.size else math.nan
            row["inside_to"] = float(inside.max()) if inside.size else math.nan
            rows.append(row)
    frame = pd.DataFrame(rows)
    if not frame["impossible"].any():
        frame = frame.drop(columns="impossible")
    frame.attrs = {"lowest_budget": lowest, "highest_budget": highest, "interval_prob": prob}
    return frame


def _positions(grid: np.ndarray, budgets: Sequence[float] | None) -> np.ndarray:
    if budgets is None:
        count = min(_MOST_BUDGETS, grid.size)
        return np.unique(np.round(np.linspace(0, grid.size - 1, count)).astype(int))
    wanted = np.atleast_1d(np.asarray(budgets, dtype=float))
    if not wanted.size or not (np.isfinite(wanted) & (wanted > 0)).all():
        raise ParameterError(f"budgets: {budgets!r} are not positive numbers of FLOPs")
    nearest = [int(np.argmin(np.abs(np.log(grid / value)))) for value in wanted]
    return np.array(list(dict.fromkeys(nearest)))


def in_words(values: xr.DataArray) -> xr.DataArray:
    """A variable with flag_meanings as words; any other as it is."""
    if "flag_meanings" not in values.attrs:
        return values.drop_attrs()
    names = np.array(values.attrs["flag_meanings"].split())
    return values.copy(data=names[values.values]).drop_attrs()
