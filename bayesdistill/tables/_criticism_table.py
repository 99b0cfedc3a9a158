"""Tables of what criticism found: one function that knows each kind of result by what it holds."""

from __future__ import annotations

import pandas as pd
import xarray as xr

from bayesdistill.errors import ParameterError

_GROUPS = ("factor", "label")
_CHECKS = ("runs", "inside_50", "inside_90", "mean", "mean_lower", "mean_upper", "mean_p", "spread", "spread_p")
_SCORES = (
    "runs",
    "elpd",
    "elpd_difference",
    "elpd_difference_se",
    "crps",
    "rmse",
    "coverage_50",
    "coverage_90",
)
_COMPARED = ("elpd", "se", "p", "elpd_difference", "difference_se", "weight", "bad")


def criticism_table(found: xr.Dataset) -> pd.DataFrame:
    """What a check of the model found, one row a group, model, quantity or run.

    Parameters
    ----------
    found : Dataset
        What `posterior_predictive`, `residual_structure`, `loo`, `compare_loo`, `prior_sensitivity`, `unseen_scores` or
        `rank_ecdf` returned.

    Returns
    -------
    DataFrame
        Numbers under the names and in the units that the Dataset has. Predictive checks: a row a group. Residuals: a row a
        grouping, with the share of the variance between its groups. Leave-one-out: a row a run, the largest Pareto k first.
        Comparison and unseen groups: a row a model. Sensitivity: a row a quantity, a column a component. Ranks: a row a
        quantity.

    Raises
    ------
    ParameterError
        If the Dataset is none of these.

    Examples
    --------
    >>> import bayesdistill as bd, xarray as xr
    >>> compared = xr.Dataset({"elpd_difference": ("model", [0.0, -3.0])}, {"model": ["mine", "yours"]})
    >>> bd.criticism_table(compared)["elpd_difference"].tolist()
    [0.0, -3.0]
    """
    if isinstance(found, xr.Dataset):
        if {"inside_90", "label"} <= set(found.variables):
            return _rows(found, "group", _CHECKS).set_index(list(_GROUPS))
        if "neighbours" in found:
            return found[["share", "p_value"]].to_dataframe()
        if "pareto_k" in found:
            return found[["pareto_k", "elpd_i"]].to_dataframe().sort_values("pareto_k", ascending=False)
        if "sensitivity" in found:
            values = found["sensitivity"].transpose("quantity", "component")
            table = pd.DataFrame(values.values, index=values["quantity"].to_index(), columns=values["component"].values)
            table["diagnosis"] = found["diagnosis"].values
            return table
        if "split" in found.dims and "elpd_difference" in found:
            rows = found[[name for name in _SCORES if name in found]].to_dataframe()
            return rows.dropna(subset=["elpd_difference"])
        if "elpd_difference" in found:
            return found[[name for name in _COMPARED if name in found]].to_dataframe()
        if {"outside", "p_holm"} <= set(found.variables):
            return found[["p_holm", "outside"]].to_dataframe()
    raise ParameterError(
        "criticism_table takes what posterior_predictive, residual_structure, loo, compare_loo, prior_sensitivity, "
        "unseen_scores or rank_ecdf returned"
    )


def _rows(found: xr.Dataset, dim: str, names: tuple[str, ...]) -> pd.DataFrame:
    columns = [*_GROUPS, *(name for name in names if name in found)]
    return pd.DataFrame({name: found[name].values for name in columns}, index=range(found.sizes[dim]))
