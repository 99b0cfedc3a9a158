"""Tables of what criticism found: one function, which recognizes each kind of result by its variables."""

from __future__ import annotations

import pandas as pd
import xarray as xr

from bayesdistill.errors import ParameterError
from bayesdistill.tables._plan_table import with_attributes

_COLUMNS = {
    "inside_90 label": "factor label runs inside_50 inside_90 mean mean_lower mean_upper mean_p spread spread_p",
    "neighbours": "share p_value",
    "pareto_k": "pareto_k elpd_i",
    "slope leverage": "runs rmse mean_error standardized_rms distance nearest_distance leverage",
    "split elpd_difference": "runs elpd elpd_difference elpd_difference_se crps rmse coverage_50 coverage_90",
    "elpd_difference": "elpd se p elpd_difference difference_se weight bad",
    "outside p_holm": "p_holm outside",
}
"""Variables or dimensions that identify a result -> its columns, in order; those that the result lacks are left out."""


@with_attributes
def criticism_table(found: xr.Dataset) -> pd.DataFrame:
    """What a check of the model found, one row a group, model, quantity or run.

    Parameters
    ----------
    found : Dataset
        What `posterior_predictive`, `residual_structure`, `loo`, `compare_loo`, `prior_sensitivity`, `unseen_scores`,
        `error_by_distance` or `rank_ecdf` returned.

    Returns
    -------
    DataFrame
        Numbers under the names and in the units that the Dataset has. Predictive checks: a row per group. Residuals: a row per
        grouping, with the share of the variance between its groups. Leave-one-out: a row per run, the largest Pareto k first.
        Comparison and unseen groups: a row per model. Error by distance: a row per group. Sensitivity: a row per quantity, a column per
        component. Ranks: a row per quantity.

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
    names = {*found.variables, *found.dims} if isinstance(found, xr.Dataset) else set()
    if "sensitivity" in names:
        values = found["sensitivity"].transpose("quantity", "component")
        table = pd.DataFrame(values.values, index=values["quantity"].to_index(), columns=values["component"].values)
        return table.assign(diagnosis=found["diagnosis"].values)
    columns = next((columns for markers, columns in _COLUMNS.items() if names.issuperset(markers.split())), None)
    if columns is None:
        raise ParameterError(
            "criticism_table takes what posterior_predictive, residual_structure, loo, compare_loo, prior_sensitivity, "
            "unseen_scores, error_by_distance or rank_ecdf returned"
        )
    kept = [name for name in columns.split() if name in found]
    table = found[kept].to_dataframe()[kept]
    if "label" in table:
        return table.set_index(["factor", "label"])
    if "pareto_k" in table:
        return table.sort_values("pareto_k", ascending=False)
    return table.dropna(subset=["elpd_difference"]) if "split" in names else table
