"""Tables of what the other decisions return: one function, which recognizes them by their variables."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from importlib.resources import files

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import posterior
from bayesdistill.arguments import checked
from bayesdistill.errors import ParameterError
from bayesdistill.tables._plan_table import ends_of, in_words, plan_table, with_attributes


@dataclass(frozen=True)
class Kind:
    """How a result becomes a table; `results.toml` describes the fields and declares every kind."""

    marker: str
    rows: list[str]
    columns: list[str] = field(default_factory=list)
    intervals: list[str] = field(default_factory=list)
    outcomes: str | None = None
    option: str = ""
    renamed: dict[str, str] = field(default_factory=dict)
    title: str = ""


KINDS = [
    Kind(**entry)
    for entry in tomllib.loads(files(__package__).joinpath("results.toml").read_text(encoding="utf-8"))["result"]
]


def kind_of(found: xr.Dataset) -> Kind | None:
    """The kind of a result; None for a plan, which has a table of its own, and for what is no result."""
    return next((kind for kind in KINDS if kind.marker in found.data_vars), None)


@with_attributes
@checked
def decision_table(found: xr.Dataset, *, prob: float = posterior.INTERVAL_PROBABILITY) -> pd.DataFrame:
    """What a decision function returned as a table of numbers, one row per case.

    Parameters
    ----------
    found : Dataset
        What `predict`, `compute_optimal`, `plan`, `plan_tokens`, `sharing_map`, `crossovers`, `compare_crossovers`,
        `break_even`, `student_choice`, `teacher_choice`, `capacity_gap`, `plan_value`, `target_loss`, `lifetime`, `evppi`,
        `family_plan`, `add_student`, `recommendations`, `paper_claims`, `next_runs` or `describe_runs` returns.
    prob : float
        Probability inside the equal-tailed interval where draws are summarised here; where the result holds quantiles, the
        outermost are taken.

    Returns
    -------
    DataFrame
        Variables of the result that have no draws, in its units; a median and its interval as three columns `_lower`,
        `_median`, `_upper`; noise, the level of uncertainty. Candidates of `next_runs` are sorted by rank.

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
        raise ParameterError(f"found must be a Dataset returned by a decision function, got {type(found).__name__}")
    kind = kind_of(found)
    if kind is None:
        if {"probability", "status", "student", "expected_gain"} <= set(found.variables):
            return plan_table(found)
        raise ParameterError(
            f"no table is known for a Dataset of {', '.join(map(str, list(found.data_vars)[:5])) or 'nothing'}"
        )
    source = (found.sel(option=kind.option) if kind.option else found).rename(
        {name: column for name, column in kind.renamed.items() if name in found}
    )
    # Crossovers of one fit have no dimension of fits.
    rows = [dim for dim in kind.rows if dim != "fit" or dim in source.dims]
    shown = xr.Dataset({dim: source[dim] for dim in rows if dim in source.variables})
    interval_prob = prob if kind.intervals else float(found.attrs.get("interval_prob", prob))
    for name in kind.intervals:
        if f"{name}_quantile" in source:
            levels = source[f"{name}_quantile"]
            interval_prob = float(levels["quantile"][-1] - levels["quantile"][0])
            shown = shown.assign(ends_of(name, levels))
        elif name in source and "draw" in source[name].dims:
            lower, upper = posterior.interval(source[name], prob).transpose("bound", ...).drop_vars("bound")
            middle = posterior.median(source[name])
            shown = shown.assign({f"{name}_lower": lower, f"{name}_median": middle, f"{name}_upper": upper})
    if kind.outcomes is not None:
        for outcome in source["outcome"].values.tolist():
            shown[f"{kind.outcomes}{outcome}"] = source["status_probability"].sel(outcome=outcome, drop=True)
    for name in kind.columns:
        if name in source.variables:
            shown[name] = in_words(source[name])
    if kind.marker == "probability_new_better":
        place = xr.DataArray(np.arange(source.sizes["teacher"]), dims="teacher")
        shown["chosen"] = source["chosen"] == place
    # One row per cell: what does not depend on a dimension is repeated along it.
    frame = shown.reset_coords(drop=True).to_dataframe(dim_order=rows).reset_index()
    if kind.marker in ("evsi_per_flop", "sd_reduction"):
        frame = frame.sort_values("rank", ignore_index=True)
    if kind.rows == ["row"]:
        frame = frame.drop(columns="row")
    frame.attrs = {"interval_prob": interval_prob}
    kept = ("lowest_budget", "highest_budget", "currency")
    frame.attrs |= {name: found.attrs[name] for name in kept if name in found.attrs}
    return frame
