"""The scores of a backtest as a table."""

from __future__ import annotations

import pandas as pd
import xarray as xr

from bayesdistill.arguments import checked, one_of, or_none
from bayesdistill.errors import ParameterError
from bayesdistill.plots.grids import need
from bayesdistill.tables._plan_table import with_warning

_GROUPS = ["group", "forecaster", "noise"]
_COUNTS = ["forecasts", "configurations", "predictions", "unconverged"]
_COLUMNS = """
    forecasts configurations base_rate brier brier_skill brier_skill_lower brier_skill_upper log_score slope slope_lower
    slope_upper intercept predictions coverage_50 coverage_90 coverage_90_lower coverage_90_upper rmse unconverged
"""


@with_warning
@checked(noise=or_none(one_of("law", "run")))
def backtest_table(found: xr.Dataset, *, noise: str | None = None) -> pd.DataFrame:
    """One row per group of forecasts, forecaster and kind of noise.

    Parameters
    ----------
    found : Dataset
        What `backtest` returns.
    noise : {"run", "law"}, optional
        One kind of probabilities; by default both.

    Returns
    -------
    DataFrame
        group, forecaster, noise; forecasts (pairs), configurations (distinct students), base_rate; brier, brier_skill,
        log_score, slope, intercept and the 90 % intervals of skill and slope; predictions (left-out runs), coverage_50,
        coverage_90 and its interval, rmse (nats per token); unconverged (number of cutoffs at which the posterior's fit failed
        the convergence checks; by default they are not scored). NaN where a group has no scored pair, or no scored run. Groups
        without either are left out, unless fits failed.

    Raises
    ------
    ParameterError
        If the Dataset is no backtest, or has no such noise.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.backtest(bd.load_runs("tiny"), bd.load_runs("tiny", kind="supervised"))  # doctest: +SKIP
    >>> bd.backtest_table(found, noise="run").head()  # doctest: +SKIP
    """
    columns = _COLUMNS.split()
    need(found, [*columns, *_GROUPS], "the argument of backtest_table", "backtest()")
    kinds = [str(kind) for kind in found["noise"].values]
    if noise is not None and noise not in kinds:
        raise ParameterError(f"`noise` must be {' or '.join(map(repr, kinds))}, got {noise!r}.")
    shown = found[columns] if noise is None else found[columns].sel(noise=[noise])
    table = shown.to_dataframe(dim_order=_GROUPS).reset_index()[[*_GROUPS, *columns]]
    table = table[(table["forecasts"] > 0) | (table["predictions"] > 0) | (table["unconverged"] > 0)].reset_index(
        drop=True
    )
    return table.astype(dict.fromkeys(_COUNTS, int))
