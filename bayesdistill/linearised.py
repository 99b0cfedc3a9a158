"""The law that suits the runs best, and what the runs leave open around it, by least squares: where the sampler steps.

Losses are taken as normal around the law, with the scatter and the shared shifts of the middle of the prior; priors and the
asymptotic prior count as they do in the model. No posterior depends on it: it only chooses the coordinates in which the sampler
moves (see `priors.moving`), so that it may be rough. It costs a few hundred evaluations of the law.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdistill.laws import SUPERVISED_PARAMETERS, distilled_loss, supervised_loss, teacher_axis
from bayesdistill.priors import Priors, Reference
from bayesdistill.priors.coordinates import asymptotic_leads, law_at_reference, natural_parameters
from bayesdistill.shifts import student_configurations

if TYPE_CHECKING:
    import pandas as pd

_STEP = 1e-5
_MOST_STEPS = 100
_SMALL_GAIN = 1e-3
"""Of the sum of squares of standard normals: far below what matters for the coordinates."""


def best_point(runs: pd.DataFrame, supervised: pd.DataFrame | None, priors: Priors, reference: Reference) -> np.ndarray:
    """z, (free coordinate,), at which prior and runs together have the least squares, from the middle of the prior on.

    Rounded to two digits, a hundredth of the prior's standard deviation, so that draws do not hang on the last digits of a solver.

    Parameters
    ----------
    runs : DataFrame
        Distilled runs.
    supervised : DataFrame or None
        Supervised runs.
    priors : Priors
    reference : Reference

    Notes
    -----
    Steps of Levenberg and Marquardt: one that makes it worse, or leaves the range of numbers, is shortened until it does not.
    """
    missed = _missed(runs, supervised, priors, reference)

    def residual(z: np.ndarray) -> np.ndarray:
        c = dict(zip(priors.names, priors.location + priors.factor @ z, strict=True))
        return np.concatenate([z, missed(c)])

    z = np.zeros(priors.factor.shape[1])
    damping = 1.0
    with np.errstate(all="ignore"):
        now = residual(z)
        for _ in range(_MOST_STEPS):
            slopes = np.stack([(residual(z + _STEP * one) - now) / _STEP for one in np.eye(z.size)], axis=1)
            least = now @ now
            if not np.isfinite(least) or not np.isfinite(slopes).all():
                break
            while damping < 1e12:
                step = np.linalg.solve(slopes.T @ slopes + damping * np.eye(z.size), -slopes.T @ now)
                then = residual(z + step)
                if then @ then < least:
                    break
                damping *= 4
            else:
                break
            z, now, damping = z + step, then, damping / 4
            if least - now @ now < _SMALL_GAIN:
                break
    return np.round(z, 2)


def covariance(
    c: Mapping[str, float], names: Sequence[str], runs: pd.DataFrame, priors: Priors, reference: Reference
) -> np.ndarray:
    """Covariance of some coordinates, (name, name), around the law `c`, all others given. They are independent in the prior.

    The scatter is that of the runs around this law, within a factor of ten of the middle of the prior.
    """
    missed = _missed(runs, None, priors, reference)
    found = np.sqrt(np.mean(missed(c)[: len(runs)] ** 2))
    missed = _missed(runs, None, priors, reference, float(np.clip(found, 0.1, 10.0)))
    scales = np.array([priors.table[name].scale for name in names])
    with np.errstate(all="ignore"):
        slopes = np.stack(
            [(missed({**c, n: c[n] + _STEP}) - missed({**c, n: c[n] - _STEP})) / (2 * _STEP) for n in names]
        )
    slopes *= scales[:, None]
    return np.asarray(np.linalg.inv(np.eye(len(names)) + slopes @ slopes.T) * np.outer(scales, scales))


def _missed(
    runs: pd.DataFrame, supervised: pd.DataFrame | None, priors: Priors, reference: Reference, scatter: float = 1.0
) -> Callable[[Mapping[str, Any]], np.ndarray]:
    """A function of coordinates: by how many standard deviations law and asymptotic prior miss the runs and theory.

    The distilled runs come first; `scatter` is theirs relative to the middle of the prior.
    """
    middle = dict(zip(priors.names, priors.location, strict=True))
    columns = [runs[name].to_numpy(dtype=float) for name in ("student_params", "student_tokens", "teacher_loss")]
    observed = runs["student_loss"].to_numpy(dtype=float)
    whiten = _whitening(runs, scatter * np.exp(middle["log_sigma"]), middle, reference)
    others = None if supervised is None else [supervised[name].to_numpy(dtype=float) for name in ("params", "tokens")]

    def missed(c: Mapping[str, Any]) -> np.ndarray:
        at_reference = law_at_reference(c, reference)
        law = natural_parameters(at_reference, reference)
        parts = [whiten(np.asarray(distilled_loss(*columns, **law)) - observed)]
        if priors.asymptotic_width is not None:
            leads = np.maximum(np.asarray(asymptotic_leads(at_reference)), 0.0)
            parts.append(leads / (priors.asymptotic_width * np.sqrt(leads.size)))
        if supervised is not None and others is not None:
            alone = np.asarray(supervised_loss(*others, **{name: law[name] for name in SUPERVISED_PARAMETERS}))
            parts.append((alone - supervised["loss"].to_numpy(dtype=float)) / np.exp(middle["log_sigma_supervised"]))
        return np.concatenate(parts)

    return missed


def _whitening(
    runs: pd.DataFrame, sigma: float, middle: Mapping[str, Any], reference: Reference
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from nats, (run,), to independent standard normals, where runs of a configuration share shift and slope.

    Shifts of teachers, which cross the configurations, are left out.
    """
    axis = teacher_axis(runs["teacher_loss"].to_numpy(dtype=float), reference.teacher_loss)
    shared = {"log_sigma_student": np.ones_like(axis), "log_sigma_student_slope": axis}
    shapes = [np.exp(middle[name]) * shape / sigma for name, shape in shared.items() if name in middle]
    groups = []
    if shapes:
        _, configuration = student_configurations(runs)
        for group in range(configuration.max() + 1):
            members = np.flatnonzero(configuration == group)
            basis, size, _ = np.linalg.svd(np.stack(shapes, axis=1)[members], full_matrices=False)
            groups.append((members, basis, 1 - 1 / np.sqrt(1 + size**2)))

    def whiten(nats: np.ndarray) -> np.ndarray:
        scaled = nats / sigma
        for members, basis, taken in groups:
            scaled[members] -= basis @ (taken * (basis.T @ scaled[members]))
        return scaled

    return whiten
