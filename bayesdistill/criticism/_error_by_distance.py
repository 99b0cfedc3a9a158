"""Error of left-out groups against their distance from the runs of the refit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill.arguments import checked
from bayesdistill.criticism.distances import MEASURES
from bayesdistill.criticism.results import dataset, declared
from bayesdistill.errors import ModelError, ParameterError

ERRORS = ("rmse", "standardized_rms")
_FEWEST_GROUPS = 4


@checked
def error_by_distance(scored: xr.Dataset, *, prob: float = 0.9, include_failed: bool = False) -> xr.Dataset:
    """Return the error of each left-out group with its distance from the training data, and whether it grows with distance.

    Parameters
    ----------
    scored : Dataset
        Result of `leave_out`.
    prob : float
        Probability of the intervals of the slopes.
    include_failed : bool
        Also use folds whose refit failed the convergence checks.

    Returns
    -------
    Dataset
        Over group (teachers, student sizes or, for the paper's split, student configurations): `runs`; `mean_error` (mean minus
        observed) and `rmse` in nats per token; `standardized_rms`, the root mean square of the normal quantiles of the PIT values,
        which is 1 if the predictive distribution has the right width; and the means of `distance`, `nearest_distance` and `leverage`
        of its runs (see `leave_out`). Over measure (these three) and error (`rmse`, `standardized_rms`): `slope` of the log of the
        error per unit of the measure with `slope_lower` and `slope_upper`, and `intercept`. NaN with fewer than four groups, or
        if all have the same distance.

    Raises
    ------
    ModelError
        If no refit passed the convergence checks.
    ParameterError
        If `scored` is not a result of `leave_out`.

    Notes
    -----
    Least squares over groups, which count equally, with a t interval: runs of a group share its error, so groups are the independent
    observations, and few groups give a wide interval. If the predictive distribution widens as fast as the error grows,
    the slope of rmse is positive and the slope of standardized_rms is 0.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> scored = bd.leave_out(bd.load_runs("busbridge2025"), "teacher")  # doctest: +SKIP
    >>> found = bd.error_by_distance(scored)  # doctest: +SKIP
    >>> bd.plot_error_by_distance(found).savefig("distance.png")  # doctest: +SKIP
    """
    from scipy.special import ndtri

    needed = {"group", "error", "pit", "converged", *MEASURES}
    if not isinstance(scored, xr.Dataset) or not needed <= set(scored.variables):
        raise ParameterError("`scored` must be a Dataset returned by bd.leave_out.")
    kept = scored["converged"].values.astype(bool) | include_failed
    if not kept.any():
        raise ModelError(
            "No refit passed the convergence checks. Increase tune and draws, or pass include_failed=True."
        )
    frame = pd.DataFrame({name: scored[name].values[kept] for name in needed})
    frame["z"] = ndtri(frame["pit"].to_numpy())
    groups = frame.groupby("group", sort=False)
    values: dict[str, Any] = {name: groups[name].mean().to_numpy() for name in MEASURES}
    values |= {"runs": groups.size().to_numpy(), "mean_error": groups["error"].mean().to_numpy()}
    values |= {
        name: np.sqrt(groups[of].agg(lambda one: (one**2).mean()).to_numpy())
        for name, of in zip(ERRORS, ("error", "z"), strict=True)
    }
    lines = np.array([[_line(values[x], np.log(values[y]), prob) for y in ERRORS] for x in MEASURES])
    values |= dict(zip(("slope", "slope_lower", "slope_upper", "intercept"), np.moveaxis(lines, -1, 0), strict=True))
    coords = {"group": list(groups.groups), "measure": list(MEASURES), "error": list(ERRORS)}
    assert set(values) == set(declared("error_by_distance"))
    return dataset("error_by_distance", values, coords, {"split": scored.attrs.get("split", ""), "interval_prob": prob})


def _line(x: np.ndarray, y: np.ndarray, prob: float) -> tuple[float, float, float, float]:
    """Return slope, its lower and upper bound, and intercept of least squares."""
    from scipy.stats import linregress, t

    if x.size < _FEWEST_GROUPS or not np.isfinite(x).all() or np.ptp(x) < 1e-9:
        return (np.nan,) * 4
    found = linregress(x, y)
    half = float(t.ppf((1 + prob) / 2, x.size - 2)) * found.stderr
    return found.slope, found.slope - half, found.slope + half, found.intercept
