"""Curves of the fitted law with intervals, observed runs and residuals."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.arguments import checked, one_of, or_none
from bayesdistill.criticism.groupings import fit_attributes, runs_of, thinning
from bayesdistill.criticism.results import dataset
from bayesdistill.datasets import FIXED_AXES, KINDS, TEACHER_VARIES, fixed_axes
from bayesdistill.law.effects import student_configurations
from bayesdistill.law.predictive import COLUMNS, OUTCOME, Design, Deviations, expected_loss
from bayesdistill.model import RUN
from bayesdistill.posterior import INTERVAL_KIND, INTERVAL_PROBABILITY

MOST_SIZES = 8
"""Maximum number of curves of supervised runs."""
_LEAST_TOKENS = 3.0
"""Least ratio of the ends of the axis of tokens, so that it has one of the ticks 1, 2, 5, 10."""


@checked(kind=or_none(one_of(*KINDS)))
def law_curves(
    fit: xr.DataTree,
    *,
    kind: str | None = None,
    prob: float = INTERVAL_PROBABILITY,
    points: int = 121,
    max_draws: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Return student loss against teacher loss for every student configuration, or pretrained loss against tokens for sizes.

    Parameters
    ----------
    fit : DataTree
    kind : {"distilled", "supervised"}, optional
        Runs of a joint fit; by default, its distilled runs.
    prob : float
        Probability of the equal-tailed intervals.
    points : int
        Number of teacher losses, or of tokens, per curve.
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
        configuration. Losses are in nats per token. Of supervised runs, `tokens` replaces teacher_loss and `loss` student_loss, and
        a configuration is a size: all sizes, or eight of them that have the runs of nearby sizes.

    Raises
    ------
    ModelError
        If the fit has no such runs.
    ParameterError
        If prob is not between 0 and 1, or points or max_draws is less than 2.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> curves = bd.law_curves(bd.load("fit.nc"))  # doctest: +SKIP
    """
    kind, runs = runs_of(fit, "law_curves", kind)
    draws, some = posterior.draws_of(fit), posterior.draws_of(fit, thinning(fit, max_draws))
    noise, along, outcome = Deviations.draw(some, seed), COLUMNS[kind][-1], OUTCOME[kind]
    if kind == "distilled":
        pairs, index = student_configurations(runs)
        axis = _axis(runs[along].to_numpy(), (TEACHER_VARIES - 1) * runs[along].min(), points)
        grid = (pairs[:, 0, None, None], pairs[:, 1, None, None], axis[:, None])
        law = some.distilled_loss(*grid)
        curve, new_run = law + some.discrepancy(kind, *grid[:2]), law + noise.distilled(*grid)
        coords = {"configuration_params": pairs[:, 0], "configuration_tokens": pairs[:, 1]}
    else:
        sizes, index = _curve_sizes(runs["params"].to_numpy())
        axis = np.exp(_axis(np.log(runs[along].to_numpy()), np.log(_LEAST_TOKENS), points))
        at = (sizes[:, None, None], axis[:, None])
        law = some.supervised_loss(*at)
        curve, new_run = law + some.discrepancy(kind, *at), law + noise.pretrained(*at)
        coords = {"configuration_params": sizes}
    tails = [(1 - prob) / 2, (1 + prob) / 2]
    predicted = expected_loss(draws, Design.of(draws.law, runs, kind)).mean(axis=0)
    values = {
        "mean": curve.mean(axis=-1),
        outcome: runs[outcome],
        "predicted": predicted,
        "residual": runs[outcome] - predicted,
        "configuration_of_run": index,
    }
    values["lower"], values["upper"] = np.quantile(curve, tails, axis=-1)
    values["run_lower"], values["run_upper"] = np.quantile(new_run, tails, axis=-1)
    coords |= {"configuration": np.arange(len(curve)), along: axis}
    attrs = {"kind": kind, "interval_kind": INTERVAL_KIND, "interval_prob": prob, **fit_attributes(fit)}
    attrs["prior_dominated"] = json.dumps(posterior.prior_dominated(fit))
    attrs[FIXED_AXES] = json.dumps(fixed_axes(posterior.seen_runs(fit)))
    result = dataset(f"law_curves_{kind}", values, coords, attrs)
    # A column of the design is the axis of the curves, so the columns of the runs require another name.
    for name, value in posterior.seen_runs(fit).items():
        if value.dims == (RUN[kind],):
            plain = {"units": "1", "long_name": f"run {name}".replace("_", " ")}
            units = value.attrs if value.attrs.get("units") else plain
            result[f"run_{name}"] = ("run", value.values, units)
    return result


def _axis(values: np.ndarray, least: float, points: int) -> np.ndarray:
    """Return an even grid over the values with a margin of 3%, or around values that vary less than `least`, (points,)."""
    span = float(np.ptp(values))
    margin = max(0.03 * span, (least - span) / 2)
    return np.linspace(values.min() - margin, values.max() + margin, points)


def _curve_sizes(params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sizes of at most MOST_SIZES curves, and the index of the nearest one for every run."""
    sizes = np.unique(params)
    if sizes.size > MOST_SIZES:
        # Sizes of runs, at even steps of the logarithm.
        wanted = np.linspace(np.log(sizes[0]), np.log(sizes[-1]), MOST_SIZES)
        sizes = np.unique(sizes[np.abs(np.log(sizes)[:, None] - wanted).argmin(axis=0)])
    return sizes, np.abs(np.log(params)[:, None] - np.log(sizes)).argmin(axis=1)
