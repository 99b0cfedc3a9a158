"""The fitted law beside the runs it was fitted to: curves with bands, and residuals."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.errors import ModelError, ParameterError
from bayesdistill.laws import distilled_loss, teacher_axis
from bayesdistill.posterior import INTERVAL_KIND, INTERVAL_PROBABILITY

NATS = "nats per token"


def law_curves(
    fit: xr.DataTree, *, prob: float = INTERVAL_PROBABILITY, points: int = 121, max_draws: int = 1000, seed: int = 0
) -> xr.Dataset:
    """Student loss against teacher loss for every student configuration, with bands, beside the runs.

    Parameters
    ----------
    fit : DataTree
        Of distilled runs.
    prob : float
        Probability inside the equal-tailed bands.
    points : int
        Teacher losses per curve.
    max_draws : int
        Draws used for the bands, evenly thinned.
    seed : int
        Of the scatter in the bands for a new run.

    Returns
    -------
    Dataset
        Over configuration, teacher_loss: `mean`, `lower`, `upper` of the law (expected loss), `run_lower`, `run_upper` of a
        new run (law and scatter, that of its teacher and configuration included). Over run: student_loss, predicted
        (posterior mean of the law), residual (observed minus predicted), the design, and the run's configuration. Losses in
        nats per token.

    Raises
    ------
    ModelError
        If the fit has no distilled runs.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> curves = bd.law_curves(bd.load("fit.nc"))  # doctest: +SKIP
    """
    seen = posterior.seen_runs(fit)
    if not posterior.is_distilled(fit) or "student_params" not in seen:
        raise ModelError("law_curves needs a fit of distilled runs, as bayesdistill.fit(runs) returns it")
    if points < 2 or max_draws < 2:
        raise ParameterError("points and max_draws must be at least 2")
    draws = posterior.law_draws(fit)
    observed = posterior.observed_runs(fit)["student_loss"]
    pairs, index = np.unique(
        np.stack([seen["student_params"].values, seen["student_tokens"].values], axis=1), axis=0, return_inverse=True
    )
    configuration = np.arange(len(pairs))
    size = xr.DataArray(pairs[:, 0], dims="configuration", coords={"configuration": configuration})
    tokens = xr.DataArray(pairs[:, 1], dims="configuration", coords={"configuration": configuration})
    losses = seen["teacher_loss"].values
    margin = 0.03 * float(np.ptp(losses))
    teacher = xr.DataArray(np.linspace(losses.min() - margin, losses.max() + margin, points), dims="teacher_loss")
    thin = slice(None, None, max(1, -(-draws.sizes["chain"] * draws.sizes["draw"] // max_draws)))
    some = draws.isel(draw=thin)
    law = {str(name): value for name, value in some.data_vars.items()}
    curve = distilled_loss(size, tokens, teacher, **law)
    noise = posterior.noise_draws(fit).isel(draw=thin)
    rng = np.random.default_rng(seed)
    scatter = noise["sigma"].values * rng.standard_t(noise["nu"].values)
    for shared in ("sigma_teacher", "sigma_student"):
        if shared in noise:
            scatter = scatter + noise[shared].values * rng.standard_normal(scatter.shape)
    new_run = curve + xr.DataArray(scatter, dims=("chain", "draw"))
    if "sigma_student_slope" in noise:
        slope = noise["sigma_student_slope"].values * rng.standard_normal(scatter.shape)
        axis = teacher_axis(teacher, posterior.slope_origin(noise))
        new_run = new_run + xr.DataArray(slope, dims=("chain", "draw")) * axis
    bounds, run_bounds = posterior.interval(curve, prob), posterior.interval(new_run, prob)
    predicted = posterior.mean(
        distilled_loss(
            seen["student_params"],
            seen["student_tokens"],
            seen["teacher_loss"],
            **{str(name): value for name, value in draws.data_vars.items()},
        )
    )
    result = xr.Dataset(
        {
            "mean": posterior.mean(curve).transpose("configuration", "teacher_loss"),
            "lower": bounds.sel(bound="lower", drop=True).transpose("configuration", "teacher_loss"),
            "upper": bounds.sel(bound="upper", drop=True).transpose("configuration", "teacher_loss"),
            "run_lower": run_bounds.sel(bound="lower", drop=True).transpose("configuration", "teacher_loss"),
            "run_upper": run_bounds.sel(bound="upper", drop=True).transpose("configuration", "teacher_loss"),
            "student_loss": observed,
            "predicted": predicted,
            "residual": observed - predicted,
            "configuration_of_run": ("run", index.ravel()),
        }
    )
    # `teacher_loss` is the curves' axis, so that the runs' own teacher losses need another name.
    result = result.assign_coords(
        teacher_loss=teacher.values, configuration_params=size, configuration_tokens=tokens
    ).assign({"run_" + str(name): value for name, value in seen.data_vars.items() if value.dims == ("run",)})
    text = {
        "mean": "posterior mean of the law",
        "lower": "lower bound of the law",
        "upper": "upper bound of the law",
        "run_lower": "lower bound of a new run",
        "run_upper": "upper bound of a new run",
        "student_loss": "validation cross-entropy of the student",
        "predicted": "posterior mean of the law at the run",
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
