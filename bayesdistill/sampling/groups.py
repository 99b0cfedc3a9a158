"""The groups of a fit beside the draws: the runs, their log-likelihood, and the units of everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.laws import (
    EXTENSION_PARAMETERS,
    LAW_PARAMETERS,
    SUPERVISED_PARAMETERS,
    distilled_loss,
    supervised_loss,
    teacher_axis,
)
from bayesdistill.model import DISTILLED_LIKELIHOOD, SUPERVISED_LIKELIHOOD, scatter_factor
from bayesdistill.shifts import student_configurations, teacher_labels

if TYPE_CHECKING:
    import pandas as pd

    from bayesdistill.priors import Reference

_UNITS = {
    "E": ("nats per token", "irreducible loss of the supervised law"),
    "A": ("nats^(1/gamma) parameters^alpha", "size coefficient of the supervised law"),
    "B": ("nats^(1/gamma) tokens^beta", "token coefficient of the supervised law"),
    "alpha": ("1", "size exponent of the supervised law"),
    "beta": ("1", "token exponent of the supervised law"),
    "gamma": ("1", "outer exponent of the supervised law"),
    "A_S": ("parameters^alpha_S", "size coefficient of the distillation law"),
    "B_S": ("tokens^beta_S", "token coefficient of the distillation law"),
    "alpha_S": ("1", "size exponent of the distillation law"),
    "beta_S": ("1", "token exponent of the distillation law"),
    "gamma_S": ("1", "outer exponent of the distillation law"),
    "c0": ("1", "exponent of the teacher's loss"),
    "c1": ("1", "strength of the capacity gap"),
    "d1": ("1", "loss ratio at which the capacity gap bends"),
    "f1": ("1", "width of the capacity gap"),
    "sigma": ("nats per token", "scale of the scatter of runs around the law"),
    "sigma_supervised": ("nats per token", "scale of the scatter of supervised runs around the law"),
    "sigma_teacher": ("nats per token", "scale of the shifts that runs of one teacher share"),
    "sigma_student": ("nats per token", "scale of the shifts that runs of one student configuration share"),
    "sigma_student_slope": (
        "nats per token",
        "scale of what 10 % of the teacher's loss add to the shift of a student configuration",
    ),
    "effect_teacher": ("nats per token", "shift of the runs of a teacher from the law"),
    "effect_student_configuration": ("nats per token", "shift of the runs of a student configuration from the law"),
    "effect_student_slope": (
        "nats per token",
        "what 10 % of the teacher's loss add to the shift of a student configuration",
    ),
    "noise_ratio": ("1", "change of ln(sigma) when ln r grows by 0.1"),
    "noise_tokens": ("1", "change of ln(sigma) with ln(student_tokens)"),
    "w1": ("1", "share of what a weak teacher would cost that the student recovers"),
    "kappa": ("1", "tokens of pretraining that a token of distillation is worth to the student's ability"),
    "omega": ("1", "share of the irreducible loss that the capacity gap takes off the losses it compares"),
    "teacher_of_run": ("1", "place of the run's teacher among the teachers"),
    "configuration_of_run": ("1", "place of the run's student configuration among the configurations"),
    "nu": ("1", "degrees of freedom of the scatter"),
    "z": ("1", "standard normal coordinates"),
    "z_teacher": ("1", "shifts of teachers as they are sampled"),
    "z_student_configuration": ("1", "shifts of student configurations as they are sampled"),
    "z_student_slope": ("1", "slopes of student configurations as they are sampled"),
    "student_loss": ("nats per token", "validation cross-entropy of the student"),
    "teacher_loss": ("nats per token", "validation cross-entropy of the teacher"),
    "student_params": ("parameters", "non-embedding parameters of the student"),
    "student_tokens": ("tokens", "tokens the student was distilled on"),
    "loss": ("nats per token", "validation cross-entropy"),
    "params": ("parameters", "non-embedding parameters"),
    "tokens": ("tokens", "training tokens"),
}


def labelled(dataset: xr.Dataset, reference: Reference | None = None) -> xr.Dataset:
    """The dataset, its known variables with units and long names, slopes with the teacher's loss at which they begin."""
    for name, variable in dataset.variables.items():
        if name in _UNITS:
            variable.attrs = {"units": _UNITS[name][0], "long_name": _UNITS[name][1]}
            if reference is not None and str(name).endswith("student_slope"):
                variable.attrs[posterior.SLOPE_ORIGIN] = reference.teacher_loss
    return dataset


def data_groups(table: pd.DataFrame | None, other: pd.DataFrame | None) -> tuple[xr.Dataset, xr.Dataset]:
    """What came out of the runs, over `run` and `supervised_run`, and their design."""
    observed, constant = xr.Dataset(), xr.Dataset()
    if table is not None:
        observed[DISTILLED_LIKELIHOOD] = ("run", table["student_loss"].to_numpy(dtype=float))
        for column in ("student_params", "student_tokens", "teacher_loss"):
            constant[column] = ("run", table[column].to_numpy(dtype=float))
        for column in ("teacher", "student", "experiment"):
            if column in table:
                constant[column] = (
                    "run",
                    np.array([str(value) for value in table[column]]),
                )
        constant["teacher_of_run"] = ("run", teacher_labels(table)[1])
        constant["configuration_of_run"] = ("run", student_configurations(table)[1])
    if other is not None:
        observed[SUPERVISED_LIKELIHOOD] = ("supervised_run", other["loss"].to_numpy(dtype=float))
        for column in ("params", "tokens"):
            constant[column] = ("supervised_run", other[column].to_numpy(dtype=float))
    for dataset in (observed, constant):
        for dim in dataset.dims:
            dataset.coords[dim] = np.arange(dataset.sizes[dim])
    return labelled(observed), labelled(constant)


def log_likelihood(draws: xr.Dataset, observed: xr.Dataset, constant: xr.Dataset, reference: Reference) -> xr.Dataset:
    """Pointwise log-likelihood of the runs under every draw.

    Computed from the law itself, so that no second model has to be compiled; a test compares it with PyMC's.

    Parameters
    ----------
    draws : Dataset, (chain, draw)
        The law's parameters, sigma, nu and, where the model has them, sigma_supervised, shared shifts and what the scatter
        depends on.
    observed, constant : Dataset
        As in a fit's groups of these names.
    reference : Reference
        Of the model.

    Returns
    -------
    Dataset
        `student_loss` (chain, draw, run) and `loss` (chain, draw, supervised_run), natural logarithms.
    """
    result = xr.Dataset()
    nu = draws["nu"]
    if DISTILLED_LIKELIHOOD in observed:
        mu = distilled_loss(
            constant["student_params"],
            constant["student_tokens"],
            constant["teacher_loss"],
            **{name: draws[name] for name in LAW_PARAMETERS + EXTENSION_PARAMETERS if name in draws},
        )
        for effect, place, times in (
            ("effect_teacher", "teacher_of_run", 1.0),
            ("effect_student_configuration", "configuration_of_run", 1.0),
            (
                "effect_student_slope",
                "configuration_of_run",
                teacher_axis(constant["teacher_loss"], reference.teacher_loss),
            ),
        ):
            if effect in draws:
                shift = draws[effect][..., constant[place]].drop_vars([str(draws[effect].dims[-1])], errors="ignore")
                mu = mu + times * shift
        sigma = draws["sigma"]
        if "noise_ratio" in draws or "noise_tokens" in draws:
            alone = supervised_loss(
                constant["student_params"],
                constant["student_tokens"],
                **{name: draws[name] for name in SUPERVISED_PARAMETERS},
            )
            sigma = sigma * scatter_factor(
                draws, constant["teacher_loss"], alone, constant["student_tokens"], reference
            )
        result[DISTILLED_LIKELIHOOD] = _student_t(observed[DISTILLED_LIKELIHOOD], mu, sigma, nu)
    if SUPERVISED_LIKELIHOOD in observed:
        law = {name: draws[name] for name in SUPERVISED_PARAMETERS}
        mu = supervised_loss(constant["params"], constant["tokens"], **law)
        sigma = draws["sigma_supervised"] if "sigma_supervised" in draws else draws["sigma"]
        result[SUPERVISED_LIKELIHOOD] = _student_t(observed[SUPERVISED_LIKELIHOOD], mu, sigma, nu)
    for variable in result.data_vars.values():
        variable.attrs = {"units": "1", "long_name": "log-likelihood of a run"}
    return result


def _student_t(y: xr.DataArray, mu: xr.DataArray, sigma: xr.DataArray, nu: xr.DataArray) -> xr.DataArray:
    from scipy.special import gammaln

    constant: Any = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi) - np.log(sigma)
    value: xr.DataArray = constant - (nu + 1) / 2 * np.log1p(((y - mu) / sigma) ** 2 / nu)
    return value.transpose("chain", "draw", ...)
