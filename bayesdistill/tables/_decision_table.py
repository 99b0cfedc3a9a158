"""Tables of what the other decisions return: one function that knows them by what they hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import posterior
from bayesdistill.errors import ParameterError
from bayesdistill.tables._plan_table import in_words, plan_table


@dataclass(frozen=True)
class Kind:
    """How a result becomes a table.

    Parameters
    ----------
    marker : str
        A variable that only this kind of result holds.
    dims : tuple of str
        What a row stands for.
    columns : tuple of str
        Variables, in order; those that the result lacks are left out.
    quantiles : tuple of str
        Variables over `quantile` that become a lower bound, a median and an upper bound.
    draws : tuple of str
        Variables with chain and draw, of which median and interval are taken.
    shares : str
        Prefix of the columns of `status_probability`; empty for none.
    select : str
        Where an option has to be chosen first: `dim=value`.
    title : str
        What the table says, for its display; by default the attribute `title` of the result.
    """

    marker: str
    dims: tuple[str, ...]
    columns: tuple[str, ...] = ()
    quantiles: tuple[str, ...] = ()
    draws: tuple[str, ...] = ()
    shares: str | None = None
    select: str = ""
    title: str = ""


_COSTS = tuple(f"{name}_{unit}" for unit in ("flops", "gpu_hours", "money") for name in ("gain", "regret", "evpi"))
KINDS = (
    Kind(
        "mean_mcse",
        ("run",),
        (
            "teacher",
            "model",
            "student_params",
            "student_tokens",
            "teacher_loss",
            "params",
            "tokens",
            "loss_mean",
            "loss_sd",
            "loss_lower",
            "loss_median",
            "loss_upper",
            "observed",
            "residual",
            "extrapolation",
            "extrapolates",
        ),
    ),
    Kind(
        "crossover_quantile",
        ("fit", "student", "scenario"),
        (
            "pretraining_ahead_probability",
            "pretraining_ahead_range",
            "eventually_probability",
            "eventually_range",
            "crossed_within_data_probability",
            "slope_probability",
            "slope_positive_probability",
        ),
        ("crossover", "crossover_extrapolation", "slope"),
        shares="",
        title="The budget from which on pretraining beats distillation",
    ),
    Kind(
        "students_per_teacher_quantile",
        ("student", "budget"),
        ("extrapolates",),
        ("students_per_teacher", "served_tokens"),
        shares="pays_",
        title="How many students must share a teacher, or how many tokens it must serve, before distilling pays",
    ),
    Kind(
        "probability_new_better",
        ("student", "scenario", "budget", "teacher"),
        (
            "measured_loss",
            "expected_loss",
            "regret",
            "is_best_probability",
            "probability_stronger_worse",
            "probability_new_better",
            "probability_pretraining_better",
            "student_tokens",
            "extrapolates",
        ),
        title="Which of the teachers is best",
    ),
    Kind(
        "compute_factor_quantile",
        ("student", "scenario", "budget"),
        ("unreachable_probability", "expected_gain", "regret", "evpi", *_COSTS),
        ("compute_factor",),
        title="What distilling is worth, and what a wrong choice between distilling and pretraining costs",
    ),
    Kind(
        "evppi_share",
        ("quantity", "student", "scenario", "budget"),
        ("evppi", "evppi_mcse", "evppi_share"),
        title="What knowing a parameter exactly would be worth for the choice",
    ),
    Kind(
        "decision_value",
        ("student",),
        (
            "count",
            "decision",
            "decision_value",
            "decision_probability",
            "probability_better",
            "student_tokens",
            "student_budget",
            "extrapolates",
        ),
        select="plan",
        title="Which students to distil, and how to split the compute",
    ),
    Kind(
        "advice",
        ("row",),
        (
            "given",
            "case",
            "student",
            "amount",
            "advice",
            "probability",
            "probability_mcse",
            "expected_gain",
            "extrapolation",
            "teacher_extrapolation",
            "extrapolates",
            "restricted",
            "teacher_params",
            "teacher_tokens",
            "student_tokens",
        ),
        title="What to choose",
    ),
    Kind(
        "verdict",
        ("row",),
        ("statement", "student", "claim_probability", "probability_mcse", "extrapolation", "verdict"),
        title="How probable the claims are",
    ),
    Kind(
        "evsi_per_flop",
        ("candidate",),
        (
            "rank",
            "kind",
            "params",
            "tokens",
            "teacher_loss",
            "cost",
            "evsi",
            "evsi_mcse",
            "evsi_per_flop",
            "change_probability",
            "effective_draws",
            "status",
            "batch_position",
        ),
        title="What the candidate runs are expected to be worth for the choice",
    ),
    Kind(
        "best_teacher",
        ("student", "training"),
        ("student_tokens",),
        draws=("best_teacher",),
        title="The teacher that gives the best student",
    ),
)
_RENAMED = {
    "mean_mcse": {name: f"loss_{name}" for name in ("mean", "sd", "lower", "median", "upper")},
    "probability_new_better": {"probability_best": "is_best_probability"},
    "verdict": {"probability": "claim_probability"},
}


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
    source = found.isel(option=found["option"].values.tolist().index(kind.select)) if kind.select else found
    source = source.rename(_RENAMED.get(kind.marker, {}))
    # Crossovers of one fit have no dimension of fits.
    dims = [dim for dim in kind.dims if dim != "fit" or dim in source.dims]
    shown = xr.Dataset({dim: source[dim] for dim in dims if dim in source.variables})
    interval_prob = prob if kind.quantiles or kind.draws else float(found.attrs.get("interval_prob", prob))
    for name in kind.quantiles:
        if f"{name}_quantile" not in source:
            continue
        levels = source[f"{name}_quantile"]
        interval_prob = float(levels["quantile"][-1] - levels["quantile"][0])
        for end, position in (("lower", 0), ("median", levels.sizes["quantile"] // 2), ("upper", -1)):
            shown[f"{name}_{end}"] = levels.isel(quantile=position, drop=True)
    for name in kind.draws:
        bounds = posterior.interval(source[name], prob)
        shown[f"{name}_lower"] = bounds.sel(bound="lower", drop=True)
        shown[f"{name}_median"] = posterior.median(source[name])
        shown[f"{name}_upper"] = bounds.sel(bound="upper", drop=True)
    if kind.shares is not None:
        for outcome in source["outcome"].values.tolist():
            shown[f"{kind.shares}{outcome}"] = source["status_probability"].sel(outcome=outcome, drop=True)
    for name in kind.columns:
        if name in source.variables:
            shown[name] = in_words(source[name])
    if kind.marker == "probability_new_better":
        place = xr.DataArray(np.arange(source.sizes["teacher"]), dims="teacher")
        shown["chosen"] = source["chosen"] == place
    # One row per cell: what does not depend on a dimension is repeated along it.
    frame = shown.reset_coords(drop=True).to_dataframe(dim_order=dims).reset_index()
    if kind.marker == "evsi_per_flop":
        frame = frame.sort_values("rank", ignore_index=True)
    if kind.dims == ("row",):
        frame = frame.drop(columns="row")
    frame.attrs = {"interval_prob": interval_prob}
    kept = ("lowest_budget", "highest_budget", "currency")
    frame.attrs |= {name: found.attrs[name] for name in kept if name in found.attrs}
    return frame
