"""The scores of a backtest as a table."""

from __future__ import annotations

import pandas as pd
import xarray as xr

from bayesdistill.arguments import NOISE, checked, one_of, or_none
from bayesdistill.errors import ParameterError
from bayesdistill.plots.grids import need, without_pairs
from bayesdistill.tables._plan_table import with_attributes

_GROUPS = ["group", "forecaster", "noise"]
_COUNTS = ["forecasts", "configurations", "predictions", "unconverged"]
_COLUMNS = """
    forecasts configurations base_rate brier brier_skill brier_skill_lower brier_skill_upper log_score slope slope_lower
    slope_upper intercept predictions coverage_50 coverage_90 coverage_90_lower coverage_90_upper rmse mean_crps unconverged
"""


@with_attributes
@checked(noise=or_none(one_of(*NOISE)))
def backtest_table(found: xr.Dataset, *, noise: str | None = None) -> pd.DataFrame:
    """One row per group of forecasts, forecaster and kind of noise; without pairs, per group and forecaster.

    Parameters
    ----------
    found : Dataset
        What `backtest` returns.
    noise : {"run", "expected", "law"}, optional
        One kind of probabilities of pairs; by default all.

    Returns
    -------
    DataFrame
        group, forecaster, noise; forecasts (pairs), configurations (distinct students), base_rate; brier, brier_skill,
        log_score, slope, intercept and the 90% intervals of skill and slope; predictions (left-out runs), coverage_50,
        coverage_90 and its interval, rmse and mean_crps (nats per token); unconverged (number of cutoffs at which the posterior's
        fit failed the convergence checks; by default they are not scored). NaN where a group has no scored pair, or no scored
        run. Groups without either are left out, unless fits failed. A backtest of one kind of runs has no columns of pairs.

    Raises
    ------
    ParameterError
        If the Dataset is no backtest, or has no such noise or no pairs.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.backtest(bd.load_runs("tiny"), bd.load_runs("tiny", kind="supervised"))  # doctest: +SKIP
    >>> bd.backtest_table(found, noise="run").head()  # doctest: +SKIP
    """
    columns, groups = _COLUMNS.split(), _GROUPS
    if without_pairs(found):
        columns, groups = columns[columns.index("predictions") :], _GROUPS[:2]
    need(found, [*columns, *groups], "the argument of backtest_table", "backtest()")
    kinds = [str(kind) for kind in found["noise"].values] if "noise" in groups else []
    if noise is not None and noise not in kinds:
        rule = " or ".join(map(repr, kinds)) or "omitted, because this backtest has no pairs"
        raise ParameterError(f"`noise` must be {rule}, got {noise!r}.")
    shown = found[columns] if noise is None else found[columns].sel(noise=[noise])
    table = shown.to_dataframe(dim_order=groups).reset_index()[[*groups, *columns]]
    counts = [name for name in _COUNTS if name in columns]
    return table[(table[counts] > 0).any(axis=1)].reset_index(drop=True).astype(dict.fromkeys(counts, int))
