"""Data groups of a fit: runs, log-likelihood and units."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.law import Law
from bayesdistill.law.effects import configuration_groups, teacher_groups
from bayesdistill.law.predictive import (
    COLUMNS,
    LABELS,
    OUTCOME,
    Design,
    expected_loss,
    group_effects,
    logpdf,
    residual_scale,
)
from bayesdistill.model import RUN

if TYPE_CHECKING:
    import pandas as pd

_UNITS = {
    "z": ("1", "standard normal coordinates"),
    "student_loss": ("nats per token", "validation cross-entropy of the student"),
    "teacher_loss": ("nats per token", "validation cross-entropy of the teacher"),
    "student_params": ("parameters", "non-embedding parameters of the student"),
    "student_tokens": ("tokens", "distillation tokens of the student"),
    "loss": ("nats per token", "validation cross-entropy"),
    "params": ("parameters", "non-embedding parameters"),
    "tokens": ("tokens", "training tokens"),
    "teacher_of_run": ("1", "index of the run's teacher"),
    "configuration_of_run": ("1", "index of the run's student configuration"),
    "model_of_run": ("1", "index of the run's model"),
}


def labeled(dataset: xr.Dataset, law: Law) -> xr.Dataset:
    """Add units and long names to the variables of a dataset."""
    units = dict(_UNITS)
    for parameter in (*law.parameters, *(effect.variable for effect in law.effects)):
        units[parameter.name] = (parameter.unit, parameter.long_name)
    for effect in law.effects:
        units[effect.raw] = ("1", f"{effect.variable.long_name} before centering and scaling")
    for one in law.discrepancy:
        what = f"increments of the discrepancy of {' and '.join(one.kinds)} runs"
        units |= {one.variable: ("1", what), f"z_{one.variable}": ("1", f"{what}, as sampled")}
    for name, variable in dataset.variables.items():
        if name in units:
            variable.attrs = {"units": units[str(name)][0], "long_name": units[str(name)][1]}
    return dataset


def data_groups(law: Law, table: pd.DataFrame | None, other: pd.DataFrame | None) -> tuple[xr.Dataset, xr.Dataset]:
    """Return the outcomes of the runs, over `run` and `supervised_run`, and their design."""
    observed, constant = xr.Dataset(), xr.Dataset()
    for kind, runs in (("distilled", table), ("supervised", other)):
        if runs is None:
            continue
        dim = RUN[kind]
        observed[OUTCOME[kind]] = (dim, runs[OUTCOME[kind]].to_numpy(dtype=float))
        for column in COLUMNS[kind]:
            constant[column] = (dim, runs[column].to_numpy(dtype=float))
        for effect in law.effects:
            if effect.kind == kind:
                constant[effect.index] = (dim, effect.groups(runs)[1])
        for column in LABELS[kind]:
            if column in runs:
                constant[column] = (dim, np.array([str(value) for value in runs[column]]))
    if table is not None:
        # Plots and checks group the runs by these columns for every law.
        constant["teacher_of_run"] = ("run", teacher_groups(table)[1])
        constant["configuration_of_run"] = ("run", configuration_groups(table)[1])
    for dataset in (observed, constant):
        for name, size in dataset.sizes.items():
            dataset.coords[name] = np.arange(size)
    return labeled(observed, law), labeled(constant, law)


def log_likelihood(fit: posterior.Fit, table: pd.DataFrame | None, other: pd.DataFrame | None) -> xr.Dataset:
    """Return the pointwise log-likelihood of the runs at every draw.

    It is computed from the law, which avoids the compilation of another model; a test compares it with the log-likelihood of PyMC.

    Parameters
    ----------
    fit : DataTree or Dataset
        With the symbols of the residual noise and, if the law has them, the group effects.
    table, other : DataFrame, optional
        Distilled and supervised runs.

    Returns
    -------
    Dataset
        `student_loss` (chain, draw, run) and `loss` (chain, draw, supervised_run), natural logarithms.
    """
    draws, effects = posterior.draws_of(fit), posterior.effects_of(fit)
    dataset = posterior.posterior_dataset(fit)
    shape = (dataset.sizes["chain"], dataset.sizes["draw"])
    result = xr.Dataset(coords={dim: dataset[dim] for dim in ("chain", "draw")})
    for kind, runs in (("distilled", table), ("supervised", other)):
        if runs is None:
            continue
        design = Design.of(draws.law, runs, kind)
        center = expected_loss(draws, design) + group_effects(draws, design, effects)
        observed = runs[OUTCOME[kind]].to_numpy(dtype=float)
        values = logpdf(observed, center, residual_scale(draws, design), draws["nu"][:, None])
        result[OUTCOME[kind]] = (
            ("chain", "draw", RUN[kind]),
            values.reshape(*shape, -1),
            {"units": "1", "long_name": "log-likelihood of a run"},
        )
        result.coords[RUN[kind]] = np.arange(len(runs))
    return result
