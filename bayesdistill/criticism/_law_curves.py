"""Curves of the fitted law with intervals, observed runs and residuals."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.errors import ModelError, ParameterError
from bayesdistill.law.predictive import RunNoise
from bayesdistill.posterior import INTERVAL_KIND, INTERVAL_PROBABILITY

NATS = "nats per token"


def law_curves(
    fit: xr.DataTree, *, prob: float = INTERVAL_PROBABILITY, points: int = 121, max_draws: int = 1000, seed: int = 0
) -> xr.Dataset:
    """Return student loss against teacher loss for every student configuration.

    Parameters
    ----------
    fit : DataTree
        Fit of distilled runs.
    prob : float
        Probability of the equal-tailed intervals.
    points : int
        Number of teacher losses per curve.
    max_draws : int
        Maximum number of draws for the intervals, evenly thinned.
    seed : int
        Random seed of the intervals for a new run.

    Returns
    -------
    Dataset
        Over configuration and teacher_loss: `mean`, `lower` and `upper` of the expected loss; `run_lower` and `run_upper` of a
        new run (with residual noise and the effects of a new teacher and student configuration). Over run: student_loss,
        predicted (posterior mean of the expected loss), residual (observed minus predicted), the design, and the run's
        configuration. Losses are in nats per token.

    Raises
    ------
    ModelError
        If the fit has no distilled runs.
    ParameterError
        If prob is not between 0 and 1, or points or max_draws is less than 2.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> curves = bd.law_curves(bd.load("fit.nc"))  # doctest: +SKIP
    """
    seen = posterior.seen_runs(fit)
    if not posterior.is_distilled(fit) or "student_params" not in seen:
        raise ModelError("law_curves requires a fit of distilled runs. Pass the result of bd.fit(runs).")
    if points < 2 or max_draws < 2:
        raise ParameterError(f"`points` and `max_draws` must be at least 2, got {points} and {max_draws}.")
    if not 0 < prob < 1:
        raise ParameterError(f"`prob` must be between 0 and 1, got {prob!r}.")
    observed = posterior.observed_runs(fit)["student_loss"]
    pairs, index = np.unique(
        np.stack([seen["student_params"].values, seen["student_tokens"].values], axis=1), axis=0, return_inverse=True
    )
    configuration = np.arange(len(pairs))
    losses = seen["teacher_loss"].values
    margin = 0.03 * float(np.ptp(losses))
    teacher = np.linspace(losses.min() - margin, losses.max() + margin, points)
    everything = posterior.posterior_dataset(fit)
    thin = slice(None, None, max(1, -(-everything.sizes["chain"] * everything.sizes["draw"] // max_draws)))
    draws, some = posterior.draws_of(fit), posterior.draws_of(fit, thin)
    grid = (pairs[:, 0, None, None], pairs[:, 1, None, None], teacher[:, None])
    curve = some.distilled_loss(*grid)
    new_run = curve + RunNoise.draw(some, seed).distilled(*grid)
    tails = [(1 - prob) / 2, (1 + prob) / 2]
    bounds, run_bounds = (np.quantile(values, tails, axis=-1) for values in (curve, new_run))
    of_runs = (seen[name].values[:, None] for name in ("student_params", "student_tokens", "teacher_loss"))
    predicted = ("run", draws.distilled_loss(*of_runs).mean(axis=-1))
    both = ("configuration", "teacher_loss")
    result = xr.Dataset(
        {
            "mean": (both, curve.mean(axis=-1)),
            "lower": (both, bounds[0]),
            "upper": (both, bounds[1]),
            "run_lower": (both, run_bounds[0]),
            "run_upper": (both, run_bounds[1]),
            "student_loss": observed,
            "predicted": predicted,
            "residual": ("run", observed.values - predicted[1]),
            "configuration_of_run": ("run", index.ravel()),
        }
    )
    # `teacher_loss` is the axis of the curves, so the teacher losses of the runs require another name.
    result = result.assign_coords(
        configuration=configuration,
        teacher_loss=teacher,
        configuration_params=("configuration", pairs[:, 0]),
        configuration_tokens=("configuration", pairs[:, 1]),
    ).assign({"run_" + str(name): value for name, value in seen.data_vars.items() if value.dims == ("run",)})
    text = {
        "mean": "posterior mean of the expected loss",
        "lower": "lower bound of the expected loss",
        "upper": "upper bound of the expected loss",
        "run_lower": "lower bound of a new run",
        "run_upper": "upper bound of a new run",
        "student_loss": "validation cross-entropy of the student",
        "predicted": "posterior mean of the expected loss of the run",
        "residual": "observed minus predicted student loss",
    }
    for name, words in text.items():
        result[name].attrs = {"units": NATS, "long_name": words}
    result["configuration_of_run"].attrs = {"units": "1", "long_name": "student configuration of the run"}
    result["configuration_params"].attrs = {
        "units": "parameters",
        "long_name": "non-embedding parameters of the student",
    }
    result["configuration_tokens"].attrs = {"units": "tokens", "long_name": "tokens of the student"}
    result["teacher_loss"].attrs = {"units": NATS, "long_name": "validation cross-entropy of the teacher"}
    for key, variable in result.data_vars.items():
        if not variable.attrs.get("units"):
            variable.attrs = {"units": "1", "long_name": str(key).replace("_", " ")}
    verdict = posterior.convergence(fit)
    result.attrs = {
        "interval_kind": INTERVAL_KIND,
        "interval_prob": prob,
        "converged": {True: "yes", False: "no", None: "unknown"}[verdict["converged"]],
        "supervised_law": posterior.provenance(fit).get("supervised_law", "unknown"),
        "prior_dominated": json.dumps(posterior.prior_dominated(fit)),
    }
    return result
