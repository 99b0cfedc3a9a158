"""Tables of what the other decisions return: one function that knows them by what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import posterior
from bayesdistill.errors import ParameterError
from bayesdistill.tables._plan_table import in_words, plan_table


@dataclass(frozen=True)
class Kind:
    """How a result becomes a table. Names are separated by spaces.

    Parameters
    ----------
    marker : str
        A variable that only this kind of result holds.
    rows : str
        Dimensions; one row per combination of their labels.
    columns : str
        Variables, in order; those that the result lacks are left out.
    intervals : str
        Variables that become a lower bound, a median and an upper bound: from `x_quantile` over `quantile`, or from draws.
    outcomes : str
        Prefix of the columns of `status_probability`; None for no such columns.
    option : str
        Label of the dimension `option` to select.
    renamed : dict
        Variable of the result -> its column, where the name of the variable is not unique among results.
    title : str
        What the table says, for its display; by default the attribute `title` of the result.
    """

    marker: str
    rows: str
    columns: str = ""
    intervals: str = ""
    outcomes: str | None = None
    option: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    title: str = ""


_COSTS = " ".join(f"{name}_{unit}" for unit in ("flops", "gpu_hours", "money") for name in ("gain", "regret", "evpi"))
KINDS = (
    Kind(
        "mean_mcse",
        rows="run",
        columns="""
            teacher model student_params student_tokens teacher_loss params tokens loss_mean loss_sd loss_lower loss_median
            loss_upper observed residual extrapolation extrapolates
        """,
        renamed={name: f"loss_{name}" for name in ("mean", "sd", "lower", "median", "upper")},
    ),
    Kind(
        "crossover_quantile",
        rows="fit student scenario",
        intervals="crossover crossover_extrapolation slope",
        outcomes="",
        columns="""
            pretraining_ahead_probability pretraining_ahead_range eventually_probability eventually_range
            crossed_within_data_probability slope_probability slope_positive_probability
        """,
        title="The budget from which on pretraining beats distillation",
    ),
    Kind(
        "students_per_teacher_quantile",
        rows="student budget",
        intervals="students_per_teacher served_tokens",
        outcomes="pays_",
        columns="extrapolates",
        title="How many students must share a teacher, or how many tokens it must serve, before distilling pays",
    ),
    Kind(
        "probability_new_better",
        rows="student scenario budget teacher",
        columns="""
            measured_loss expected_loss regret is_best_probability probability_stronger_worse probability_new_better
            probability_pretraining_better student_tokens extrapolates
        """,
        renamed={"probability_best": "is_best_probability"},
        title="Which of the teachers is best",
    ),
    Kind(
        "compute_factor_quantile",
        rows="student scenario budget",
        intervals="compute_factor",
        columns=f"unreachable_probability expected_gain regret evpi {_COSTS}",
        title="What distilling is worth, and what a wrong choice between distilling and pretraining costs",
    ),
    Kind(
        "evppi_share",
        rows="quantity student scenario budget",
        columns="evppi evppi_mcse evppi_share",
        title="What knowing a parameter exactly would be worth for the choice",
    ),
    Kind(
        "decision_value",
        rows="student",
        columns="""
            count decision decision_value decision_probability probability_better student_tokens student_budget extrapolates
        """,
        option="plan",
        title="Which students to distil, and how to split the compute",
    ),
    Kind(
        "advice",
        rows="row",
        columns="""
            given case student amount advice probability probability_mcse expected_gain extrapolation teacher_extrapolation
            extrapolates restricted teacher_params teacher_tokens student_tokens
        """,
        title="What to choose",
    ),
    Kind(
        "verdict",
        rows="row",
        columns="statement student claim_probability probability_mcse extrapolation verdict",
        renamed={"probability": "claim_probability"},
        title="How probable the claims are",
    ),
    Kind(
        "evsi_per_flop",
        rows="candidate",
        columns="""
            rank kind params tokens teacher_loss cost evsi evsi_mcse evsi_per_flop change_probability effective_draws status
            batch_position
        """,
        title="What the candidate runs are expected to be worth for the choice",
    ),
    Kind(
        "best_teacher",
        rows="student training",
        intervals="best_teacher",
        columns="student_tokens",
        title="The teacher that gives the best student",
    ),
)


def kind_of(found: xr.Dataset) -> Kind | None:
    """The kind of a result; None for a plan, which has a table of its own, and for what is no result."""
    return next((kind for kind in KINDS if kind.marker in found.data_vars), None)


def decision_table(found: xr.Dataset, *, prob: float = posterior.INTERVAL_PROBABILITY) -> pd.DataFrame:
    """What a decision function returned as a table of numbers, one row per case.

    Parameters
    ----------
    found : Dataset
        What `predict`, `plan`, `plan_tokens`, `sharing_map`, `crossovers`, `compare_crossovers`, `break_even`, `teacher_choice`,
        `capacity_gap`, `plan_value`, `evppi`, `family_plan`, `recommendations`, `paper_claims` or `next_runs` returns.
    prob : float
        Probability inside the equal-tailed interval where draws are summarised here; where the result holds quantiles, the
        outermost are taken.

    Returns
    -------
    DataFrame
        Variables of the result that have no draws, in its units; a median and its interval as three columns `_lower`,
        `_median`, `_upper`. Candidates of `next_runs` are sorted by rank.

    Raises
    ------
    ParameterError
        If the Dataset is none of these.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> found = bd.crossovers(published, "1B", "best case", budgets=[1e19, 1e25])
    >>> bd.decision_table(found)[["student", "scenario", "crossed"]].values.tolist()
    [[1000000000.0, 'best case', 1.0]]
    """
    if not isinstance(found, xr.Dataset):
        raise ParameterError(
            f"found is a {type(found).__name__}; a Dataset that a decision function returned is needed"
        )
    kind = kind_of(found)
    if kind is None:
        if {"probability", "status", "student", "expected_gain"} <= set(found.variables):
            return plan_table(found)
        raise ParameterError(
            f"no table is known for a Dataset of {', '.join(map(str, list(found.data_vars)[:5])) or 'nothing'}"
        )
    source = (found.sel(option=kind.option) if kind.option else found).rename(kind.renamed)
    # Crossovers of one fit have no dimension of fits.
    rows = [dim for dim in kind.rows.split() if dim != "fit" or dim in source.dims]
    shown = xr.Dataset({dim: source[dim] for dim in rows if dim in source.variables})
    interval_prob = prob if kind.intervals else float(found.attrs.get("interval_prob", prob))
    for name in kind.intervals.split():
        if f"{name}_quantile" in source:
            levels = source[f"{name}_quantile"]
            interval_prob = float(levels["quantile"][-1] - levels["quantile"][0])
            ends = [levels.isel(quantile=place, drop=True) for place in (0, levels.sizes["quantile"] // 2, -1)]
        elif kind.marker == name:
            lower, upper = posterior.interval(source[name], prob).transpose("bound", ...).drop_vars("bound")
            ends = [lower, posterior.median(source[name]), upper]
        else:
            continue
        for end, values in zip(("lower", "median", "upper"), ends, strict=True):
            shown[f"{name}_{end}"] = values
    if kind.outcomes is not None:
        for outcome in source["outcome"].values.tolist():
            shown[f"{kind.outcomes}{outcome}"] = source["status_probability"].sel(outcome=outcome, drop=True)
    for name in kind.columns.split():
        if name in source.variables:
            shown[name] = in_words(source[name])
    if kind.marker == "probability_new_better":
        place = xr.DataArray(np.arange(source.sizes["teacher"]), dims="teacher")
        shown["chosen"] = source["chosen"] == place
    # One row per cell: what does not depend on a dimension is repeated along it.
    frame = shown.reset_coords(drop=True).to_dataframe(dim_order=rows).reset_index()
    if kind.marker == "evsi_per_flop":
        frame = frame.sort_values("rank", ignore_index=True)
    if kind.rows == "row":
        frame = frame.drop(columns="row")
    frame.attrs = {"interval_prob": interval_prob}
    kept = ("lowest_budget", "highest_budget", "currency")
    frame.attrs |= {name: found.attrs[name] for name in kept if name in found.attrs}
    return frame
