r"""Shifts that all runs of a teacher, or of a student configuration, share: who shares them, and how they are sampled.

A group j of runs shares a shift, or a slope over `laws.teacher_axis`, normal with standard deviation s. The runs fix what the
law says of a group *and* its shift together far better than either alone, so that shifts sampled by themselves leave law and
shifts on a narrow ridge, and the more so the larger s is. With the law given, the runs would be normal around law and shift
with standard deviation sigma, and the shift would have a mean and a standard deviation that can be written down. What is
sampled is the rest, in units of the latter:

.. math::

    \mathrm{shift}_j = -\lambda_j m_j + s \sqrt{1 - \lambda_j}\; \mathrm{raw}_j,\qquad
    \lambda_j = \frac{s^2 n_j}{s^2 n_j + \sigma^2}

with :math:`m_j` the mean of law - observed over the group's :math:`n_j` runs; for a slope, its slope by least squares and the
sum of squares around the mean of the axis. Where the scatter differs between runs, each counts by its own. The prior of
raw follows from that of the shift, Normal(0, s), so that the posterior
is the same whatever :math:`\lambda` is. It is near 1 where runs are many (centred) and 0 where there are none (non-centred);
Papaspiliopoulos et al. (2007, Statistical Science 22, 59) describe such families, with a fixed share.

The shifts of the groups that have runs add up to zero, and so do the :math:`\lambda m` above: the law goes through the middle of
the groups, and no common shift can take the law's place. Without that the asymptotic prior pushes the law up and the shifts
push the runs back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdistill.laws import teacher_axis

if TYPE_CHECKING:
    import pandas as pd

    from bayesdistill.priors import Reference

EFFECT_SCALES = {
    "effect_teacher": "sigma_teacher",
    "effect_student_configuration": "sigma_student",
    "effect_student_slope": "sigma_student_slope",
}
"""Kind of shared shifts -> the name of their standard deviation."""

_GROUP_OF = {
    "effect_teacher": ("teacher", "teacher_of_run"),
    "effect_student_configuration": ("student_configuration", "configuration_of_run"),
    "effect_student_slope": ("student_configuration", "configuration_of_run"),
}
_ORDER = ("effect_student_slope", "effect_teacher", "effect_student_configuration")
"""The levels of each kind are what runs miss law and earlier kinds by."""


def student_configurations(runs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Distinct (student_params, student_tokens), (configuration, 2), and the index of each run's, (run,)."""
    pairs = runs[["student_params", "student_tokens"]].to_numpy(dtype=float)
    distinct, index = np.unique(pairs, axis=0, return_inverse=True)
    return distinct, index.ravel()


def configuration_labels(distinct: np.ndarray) -> list[str]:
    """Names of student configurations, given as (configuration, 2): parameters and tokens."""
    return [f"{size:.4g} parameters, {tokens:.4g} tokens" for size, tokens in distinct]


def teacher_labels(runs: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """Names of the distinct teachers, and the index of each run's, (run,). Without a column `teacher`, one per loss."""
    labels = runs["teacher"].astype(str) if "teacher" in runs else runs["teacher_loss"].map("{:.6g}".format)
    names, index = np.unique(np.array(labels, dtype=object).astype(str), return_inverse=True)
    return [str(name) for name in names], index.ravel()


def add_shifts(
    runs: pd.DataFrame, mu: Any, observed: Any, sigma: Any, log_scales: dict[str, Any], reference: Reference
) -> Any:
    """The law's losses with the shifts added, in the PyMC model of the context.

    Parameters
    ----------
    runs : DataFrame
        Distilled runs.
    mu, observed : tensor, (run,)
        Losses of the law and of the runs, nats per token.
    sigma : tensor, scalar or (run,)
        Standard deviation, in nats, of normal scatter that would say as much of a shift as the runs' does.
    log_scales : dict
        Kind of shift, of EFFECT_SCALES, -> logarithm of its standard deviation, where the model has it.
    reference : Reference
        Slopes do nothing at its teacher loss.
    """
    import pymc as pm

    model = pm.modelcontext(None)
    distinct, configuration = student_configurations(runs)
    names, teacher = teacher_labels(runs)
    labels = {"teacher": names, "student_configuration": configuration_labels(distinct)}
    places = {"teacher_of_run": teacher, "configuration_of_run": configuration}
    for kind in _ORDER:
        if kind in log_scales:
            dim, place = _GROUP_OF[kind]
            model.add_coord(dim, labels[dim])
            of_run = model[place] if place in model else pm.Data(place, places[place], dims="run")
            slope = kind == "effect_student_slope"
            axis = teacher_axis(model["teacher_loss"], reference.teacher_loss) if slope else None
            shift = _shifts(kind, dim, len(labels[dim]), of_run, log_scales[kind], sigma, mu - observed, axis)[of_run]
            mu += shift * axis if slope else shift
    return mu


def _shifts(
    kind: str, dim: str, groups: int, of_run: Any, log_scale: Any, sigma: Any, miss: Any, axis: Any | None
) -> Any:
    """Shifts in nats of the groups, (group,), or slopes; `miss`, (run,), is what law and earlier shifts exceed the runs by."""
    import pymc as pm
    import pytensor.tensor as pt

    def total(of_runs: Any) -> Any:
        return pt.inc_subtensor(pt.zeros(groups)[of_run], of_runs)

    scale = pm.Deterministic(EFFECT_SCALES[kind], pm.math.exp(log_scale))
    # Which groups have runs is asked of the data that the model holds now: refits leave groups out.
    seen = pm.math.minimum(total(1.0), 1.0)
    weight = 1 / pm.math.sqr(sigma)
    known = total(weight)
    if axis is None:
        level = total(weight * miss)
    else:
        away = axis - (total(weight * axis) / pm.math.maximum(known, 1e-300))[of_run]
        known, level = total(weight * pm.math.sqr(away)), total(weight * away * miss)
    square = pm.math.sqr(scale)
    left = 1 / (1 + square * known)  # 1 - lambda
    level = square * left * level  # lambda m
    level -= seen * (level.sum() / seen.sum())
    wide = scale * pm.math.sqrt(left)
    raw = pm.Normal(kind.replace("effect", "z"), level / wide, 1 / pm.math.sqrt(left), dims=dim)
    shift = wide * raw - level
    shift -= (seen * shift).sum() / seen.sum()
    return pm.Deterministic(kind, shift, dims=dim)
