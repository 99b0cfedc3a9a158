"""Scores of several models on several ways to leave groups out, as one Dataset."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from bayesdistill.criticism._leave_out import score_table
from bayesdistill.errors import ParameterError

_COLUMNS = {
    "elpd": ("elpd", "1", "log predictive density of the runs left out"),
    "elpd_difference": ("elpd_difference", "1", "elpd minus that of the best model of the split"),
    "elpd_difference_se": ("standard_error", "1", "standard error of the difference, over folds"),
    "crps": ("crps", "nats per token", "continuous ranked probability score"),
    "rmse": ("rmse", "nats per token", "root mean square error of the mean"),
    "coverage_50": ("coverage_50", "1", "share of left-out runs in their 50 % interval"),
    "coverage_90": ("coverage_90", "1", "share of left-out runs in their 90 % interval"),
    "runs": ("runs", "1", "runs left out"),
    "unconverged": ("unconverged", "1", "folds whose refit did not pass the convergence checks"),
}


def unseen_scores(results: Mapping[str, Mapping[str, xr.Dataset]]) -> xr.Dataset:
    """Scores on unseen groups, for every split and model.

    Parameters
    ----------
    results : mapping
        Split (as a name for people, such as "teachers") -> model -> what `leave_out` returned.

    Returns
    -------
    Dataset
        Over split and model, NaN where a model was not scored on a split: `elpd`, `elpd_difference` from the split's best with
        `elpd_difference_se` (NaN where there is one fold), `crps` and `rmse` in nats per token, `coverage_50`, `coverage_90`,
        `runs`, `unconverged` (folds whose refit did not pass the convergence checks).

    Raises
    ------
    ParameterError
        If there is nothing to score, or models of one split were scored on different runs.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> columns = {"elpd": [1.0, 2.0], "crps": [0.1, 0.1], "error": [0.3, -0.4], "inside_50": [1, 0], "inside_90": [1, 1]}
    >>> scored = xr.Dataset({name: ("run", value) for name, value in columns.items()} | {"fold": ("run", [0, 1])})
    >>> scored = scored.assign_coords(run=[0, 1]).assign(converged=("run", [True, True]))
    >>> bd.unseen_scores({"students": {"mine": scored}})["elpd"].item()
    3.0
    """
    if not results or not all(results.values()):
        raise ParameterError("there is nothing to score: give {split: {model: result of leave_out}}")
    models = list(dict.fromkeys(name for scored in results.values() for name in scored))
    values = {name: np.full((len(results), len(models)), np.nan) for name in _COLUMNS}
    for i, (split, scored) in enumerate(results.items()):
        first = next(iter(scored.values()))
        for name, one in scored.items():
            if not np.array_equal(one["run"].values, first["run"].values):
                raise ParameterError(f"{split}: {name!r} was scored on other runs than {next(iter(scored))!r}")
        table = score_table(scored)
        for name, (column, _, _) in _COLUMNS.items():
            for model in scored:
                values[name][i, models.index(model)] = table.loc[model, column]
    return xr.Dataset(
        {
            name: (("split", "model"), values[name], {"units": units, "long_name": words})
            for name, (_, units, words) in _COLUMNS.items()
        },
        coords={"split": list(results), "model": models},
    )
