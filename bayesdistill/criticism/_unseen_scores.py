"""Cross-validation scores of several models and splits as one Dataset."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from bayesdistill.arguments import checked
from bayesdistill.criticism._leave_out import score_table
from bayesdistill.criticism.results import dataset, declared
from bayesdistill.errors import ParameterError


@checked
def unseen_scores(results: Mapping[str, Mapping[str, xr.Dataset]], *, include_failed: bool = False) -> xr.Dataset:
    """Return scores on unseen groups for every split and model.

    Parameters
    ----------
    results : mapping
        Name of the split (such as "teachers") -> name of the model -> result of `leave_out`.
    include_failed : bool
        Also score folds whose refit failed the convergence checks.

    Returns
    -------
    Dataset
        Over split and model: `elpd`, `elpd_difference` from the best model of the split, `elpd_difference_se` (NaN for a single
        fold), `crps` and `rmse` in nats per token, `coverage_50`, `coverage_90`, `runs` (number that is scored), `unconverged`
        (number of folds whose refit did not pass the convergence checks; by default they are not scored, see `score_table`). NaN
        if a model was not scored on a split.

    Raises
    ------
    ParameterError
        If there are no results, or models of one split were scored on different runs.

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
        raise ParameterError(
            "`results` is empty or has a split without models. Pass {split: {model: result of bd.leave_out}}."
        )
    tables = []
    for split, scored in results.items():
        first = next(iter(scored))
        for name, one in scored.items():
            if not np.array_equal(one["run"].values, scored[first]["run"].values):
                raise ParameterError(
                    f"Split {split!r}: {name!r} was scored on other runs than {first!r}. Use the same runs."
                )
        tables.append(
            score_table(scored, include_failed=include_failed).rename(columns={"standard_error": "elpd_difference_se"})
        )
    models = list(dict.fromkeys(name for scored in results.values() for name in scored))
    values = {
        name: np.stack([table[name].reindex(models) for table in tables]).astype(float)
        for name in declared("unseen_scores")
    }
    return dataset("unseen_scores", values, {"split": list(results), "model": models}, {})
