"""What the draws of a fit say about runs: expected losses, and new runs with every kind of scatter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesdistill.laws import EXTENSION_PARAMETERS, LAW_PARAMETERS, distilled_loss, supervised_loss, teacher_axis
from bayesdistill.model import scatter_factor
from bayesdistill.shifts import EFFECT_SCALES, student_configurations, teacher_labels

if TYPE_CHECKING:
    import pandas as pd

    from bayesdistill.priors import Reference


def flat_draws(posterior: xr.Dataset) -> dict[str, np.ndarray]:
    """Every variable with chain and draw stacked first, (draw, ...)."""
    return {
        str(name): value.transpose("chain", "draw", ...).values.reshape(-1, *value.shape[2:])
        for name, value in posterior.data_vars.items()
        if {"chain", "draw"} <= set(value.dims)
    }


def expected_losses(draws: dict[str, np.ndarray], runs: pd.DataFrame) -> np.ndarray:
    """The law at the design of runs, for every draw, (draw, run), in nats per token."""
    names = [name for name in LAW_PARAMETERS + EXTENSION_PARAMETERS if name in draws]
    return np.asarray(
        distilled_loss(
            runs["student_params"].to_numpy(dtype=float),
            runs["student_tokens"].to_numpy(dtype=float),
            runs["teacher_loss"].to_numpy(dtype=float),
            **{name: draws[name][:, None] for name in names},
        )
    )


def _groups(runs: pd.DataFrame, reference: Reference) -> dict[str, tuple[np.ndarray, Any]]:
    """Kind of shared shifts -> group of every run, (run,), and what its shift is multiplied with."""
    configuration = student_configurations(runs)[1]
    losses = runs["teacher_loss"].to_numpy(dtype=float)
    return {
        "effect_teacher": (teacher_labels(runs)[1], 1.0),
        "effect_student_configuration": (configuration, 1.0),
        "effect_student_slope": (configuration, teacher_axis(losses, reference.teacher_loss)),
    }


def fitted_losses(draws: dict[str, np.ndarray], runs: pd.DataFrame, reference: Reference) -> np.ndarray:
    """Expected loss of every fitted run, shifts of its teacher and configuration included, (draw, run)."""
    center = expected_losses(draws, runs)
    for name, (index, times) in _groups(runs, reference).items():
        if name in draws:
            center = center + times * draws[name][:, index]
    return center


def scatter_scale(draws: dict[str, np.ndarray], runs: pd.DataFrame, reference: Reference) -> np.ndarray:
    """Scale of the Student-t of every run, (draw, run), in nats per token."""
    law = {name: draws[name][:, None] for name in ("E", "A", "B", "alpha", "beta", "gamma")}
    params, tokens, teacher = (
        runs[column].to_numpy(dtype=float) for column in ("student_params", "student_tokens", "teacher_loss")
    )
    forms = {name: draws[name][:, None] for name in ("noise_ratio", "noise_tokens") if name in draws}
    factor = scatter_factor(forms, teacher, supervised_loss(params, tokens, **law), tokens, reference)
    return np.broadcast_to(draws["sigma"][:, None] * factor, (len(draws["sigma"]), len(runs)))


def shared_shifts(
    draws: dict[str, np.ndarray],
    runs: pd.DataFrame,
    kept: np.ndarray,
    reference: Reference,
    rng: np.random.Generator,
) -> np.ndarray:
    """Shifts of teachers and student configurations for every run, (draw, run); those of unseen groups drawn anew."""
    count = len(draws["sigma"])
    total = np.zeros((count, len(runs)))
    for name, (index, times) in _groups(runs, reference).items():
        if name not in draws:
            continue
        scale = draws[EFFECT_SCALES[name]]
        effects = draws[name].copy()
        unseen = np.setdiff1d(np.arange(effects.shape[1]), index[kept])
        # A shift counts from the mean of the groups seen, which is itself off by the scale over the root of their number.
        spread = scale * np.sqrt(1 + 1 / max(effects.shape[1] - unseen.size, 1))
        effects[:, unseen] = spread[:, None] * rng.standard_normal((count, unseen.size))
        total += times * effects[:, index]
    return total
