"""Curves of the fitted law with intervals, observed runs and residuals."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.arguments import checked
from bayesdistill.criticism.groupings import distilled_runs, fit_attributes, thinning
from bayesdistill.criticism.results import dataset
from bayesdistill.datasets import FIXED_AXES, fixed_axes
from bayesdistill.law.effects import student_configurations
from bayesdistill.law.predictive import Design, RunNoise, expected_loss
from bayesdistill.posterior import INTERVAL_KIND, INTERVAL_PROBABILITY


@checked
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
    runs = distilled_runs(fit, "law_curves")
    pairs, index = student_configurations(runs)
    losses = runs["teacher_loss"].to_numpy()
    margin = 0.03 * float(np.ptp(losses))
    teacher = np.linspace(losses.min() - margin, losses.max() + margin, points)
    draws, some = posterior.draws_of(fit), posterior.draws_of(fit, thinning(fit, max_draws))
    grid = (pairs[:, 0, None, None], pairs[:, 1, None, None], teacher[:, None])
    curve = some.distilled_loss(*grid)
    new_run = curve + RunNoise.draw(some, seed).distilled(*grid)
    tails = [(1 - prob) / 2, (1 + prob) / 2]
    predicted = expected_loss(draws, Design.of(draws.law, runs)).mean(axis=0)
    values = {
        "mean": curve.mean(axis=-1),
        "student_loss": runs["student_loss"],
        "predicted": predicted,
        "residual": runs["student_loss"] - predicted,
        "configuration_of_run": index,
    }
    values["lower"], values["upper"] = np.quantile(curve, tails, axis=-1)
    values["run_lower"], values["run_upper"] = np.quantile(new_run, tails, axis=-1)
    coords = {"configuration": np.arange(len(pairs)), "teacher_loss": teacher}
    coords |= {"configuration_params": pairs[:, 0], "configuration_tokens": pairs[:, 1]}
    attrs = {"interval_kind": INTERVAL_KIND, "interval_prob": prob, **fit_attributes(fit)}
    attrs["prior_dominated"] = json.dumps(posterior.prior_dominated(fit))
    attrs[FIXED_AXES] = json.dumps(fixed_axes(posterior.seen_runs(fit)))
    result = dataset("law_curves", values, coords, attrs)
    # `teacher_loss` is the axis of the curves, so the columns of the runs require another name.
    for name, value in posterior.seen_runs(fit).items():
        if value.dims == ("run",):
            plain = {"units": "1", "long_name": f"run {name}".replace("_", " ")}
            result[f"run_{name}"] = value.assign_attrs(value.attrs if value.attrs.get("units") else plain)
    return result
