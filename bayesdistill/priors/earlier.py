"""An earlier posterior as the prior of a new study, trusted fully or less.

To trust it less is to let its runs count less, not to stretch it: where an earlier study knew nothing its posterior is the
independent prior already, and stretching that by a factor of five would put most of it where no law is. So the likelihood of
the earlier runs is raised to the power 1 / widen^2 (the power prior of Ibrahim and Chen 2000, Statistical Science 15, 46), in
the normal approximation of all three: a standard deviation that the runs fixed grows by the factor `widen`, one that came
from the prior stays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bayesdistill.errors import ParameterError
from bayesdistill.priors.coordinates import (
    OWN_SUM_COORDINATES,
    Reference,
    distillation_coordinates,
    supervised_coordinates,
)
from bayesdistill.priors.table import (
    DISTILLATION_PRIORS,
    EFFECT_PRIORS,
    NOISE_PRIORS,
    OMEGA_PRIORS,
    SOFT_TARGETS_PRIORS,
    SUPERVISED_PRIORS,
    TIED_PRIORS,
    WEAK_TEACHER_PRIORS,
    Prior,
)

if TYPE_CHECKING:
    import xarray as xr

_INDEPENDENT: dict[str, Prior] = {**SUPERVISED_PRIORS, **DISTILLATION_PRIORS, **WEAK_TEACHER_PRIORS}
_INDEPENDENT |= {**TIED_PRIORS, **SOFT_TARGETS_PRIORS, **OMEGA_PRIORS, **NOISE_PRIORS}
_INDEPENDENT |= {name: prior for priors in EFFECT_PRIORS.values() for name, prior in priors.items()}


def coordinates_of_draws(draws: xr.Dataset, noise: xr.Dataset, reference: Reference) -> dict[str, np.ndarray]:
    """The coordinates of every draw around a reference run, (draws of all chains,) each."""
    law = {str(name): value.values.ravel() for name, value in draws.data_vars.items()}
    values = supervised_coordinates(law, reference)
    if "c1" in law:
        values |= distillation_coordinates(law, reference)
    if "w1" in law:
        values["logit_w1"] = np.log(law["w1"]) - np.log1p(-law["w1"])
    if "c1" in law and bool((law["alpha_S"] == law["alpha"]).all()):
        values = {name: value for name, value in values.items() if name not in OWN_SUM_COORDINATES}
        values["log_power_S"] = np.log(law["gamma_S"] / law["gamma"])
    if "kappa" in law:
        values["log_kappa"] = np.log(law["kappa"])
    if "omega" in law:
        fixed = bool((law["omega"] == law["omega"][0]).all())
        values |= {"omega": law["omega"]} if fixed else {"logit_omega": np.log(law["omega"]) - np.log1p(-law["omega"])}
    for symbol, offset, coordinate in (
        ("sigma", 0, "log_sigma"),
        ("nu", 1, "log_nu"),
        ("sigma_teacher", 0, "log_sigma_teacher"),
        ("sigma_student", 0, "log_sigma_student"),
        ("sigma_student_slope", 0, "log_sigma_student_slope"),
    ):
        if symbol in noise:
            values[coordinate] = np.log(noise[symbol].values.ravel() - offset)
    return {name: np.broadcast_to(value, law["E"].shape) for name, value in values.items()}


def prior_from_draws(
    draws: xr.Dataset, noise: xr.Dataset, reference: Reference, widen: float
) -> tuple[dict[str, Prior], np.ndarray]:
    """An earlier posterior as a joint normal prior, at the reference run of the new study.

    Parameters
    ----------
    draws : Dataset, (chain, draw)
        Draws of the law's parameters under their own names.
    noise : Dataset, (chain, draw)
        `sigma`, `nu`, `sigma_teacher`, `sigma_student`, `sigma_student_slope`, where the new study should start from them.
    reference : Reference
        Of the new study; the coordinates are computed anew around it.
    widen : float
        Factor on the standard deviations that the earlier runs fixed: how much less one trusts the earlier study for the new
        one. 1 is the earlier posterior, and with a large factor the independent priors are what remains.

    Returns
    -------
    table : dict
        Coordinate -> Prior, with the marginal scales.
    covariance : array, (coordinate, coordinate)

    Raises
    ------
    ParameterError
        If `widen` is below 1 or not a number, or the earlier posterior has too few draws.
    """
    if not (math.isfinite(widen) and widen >= 1):
        raise ParameterError(f"widen is {widen!r}; a factor of at least 1 is needed")
    values = coordinates_of_draws(draws, noise, reference)
    matrix = np.stack(list(values.values()))
    if matrix.shape[1] <= 2 * matrix.shape[0]:
        raise ParameterError(f"the earlier posterior has {matrix.shape[1]} draws, too few for a prior of {len(values)}")
    mean, covariance = matrix.mean(axis=1), np.cov(matrix)
    # Coordinates that the earlier study held fixed stay fixed, but rounding must not make them free.
    fixed = np.ptp(matrix, axis=1) < 1e-12
    covariance[fixed, :] = 0.0
    covariance[:, fixed] = 0.0
    free = np.flatnonzero(~fixed)
    location = mean.copy()
    location[free], covariance[np.ix_(free, free)] = _temper(
        mean[free], covariance[np.ix_(free, free)], [_INDEPENDENT[list(values)[i]] for i in free], widen
    )
    reason = f"an earlier posterior, standard deviations from its runs times {widen:g}"
    table = {
        name: Prior(
            float(where),
            math.sqrt(float(var)),
            f"jointly Normal, marginally Normal({where:.4g}, {var**0.5:.2g})",
            reason,
        )
        for name, where, var in zip(values, location, np.diagonal(covariance), strict=True)
    }
    return table, covariance


def _temper(
    mean: np.ndarray, covariance: np.ndarray, independent: list[Prior], widen: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance with the precision beyond that of the independent priors divided by widen^2.

    In coordinates in which the independent prior is standard normal, the posterior's precision has eigenvalues 1 + what the
    runs said. Directions in which it is no narrower than the prior stay as they are.
    """
    center = np.array([prior.location for prior in independent])
    scale = np.array([prior.scale for prior in independent])
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    precision = 1 / values
    along = vectors.T @ ((mean - center) / scale)
    informed = precision > 1
    tempered = np.where(informed, 1 + (precision - 1) / widen**2, precision)
    # Precision times mean is what prior and runs add up to; the prior, centred at 0, adds nothing to it.
    along = np.where(informed, precision * along / widen**2 / tempered, along)
    return center + scale * (vectors @ along), np.outer(scale, scale) * ((vectors / tempered) @ vectors.T)
