"""Extrapolation factors: how far runs and strategies are outside the range of the data, and teachers within a factor of it.

All factors have one definition: 1 inside the range of the data, 2 at twice the maximum or half the minimum.

- Distilled students: their size, their tokens per parameter, and the loss of their teacher, relative to the distilled runs.
- Pretrained students: their size and tokens per parameter, relative to the data of the supervised law.
- New teachers: their size and tokens per parameter, relative to the data of the supervised law, which predicts their loss. A fit
  without supervised runs has the published law as prior, so the published ranges apply. Sizes and tokens of the teachers of distilled
  runs are not used, because they do not inform the supervised law. Existing teachers have measured losses, so their sizes and tokens
  are no extrapolation.

A ratio of losses is no useful measure: the strongest observed teacher has 1.9 nats, and no teacher has half of that. The factor of a
teacher's loss is therefore a ratio of the sizes of models that would have these losses on 20 tokens per parameter, by the
supervised law (`SizeScale`). A factor of 10 stands for a teacher that is as strong as one with ten times the parameters and ten times
the tokens of the strongest observed teacher, or as weak as one with a tenth of both of the weakest. So a teacher that is scaled by a
factor at constant tokens per parameter is extrapolated by this factor both in its size and in its loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bayesdistill.answers import Codes
from bayesdistill.compute import pretraining_tokens
from bayesdistill.decisions.fitted_draws import FittedDraws
from bayesdistill.strategies import Bounds, Problem

DISTILLED_AXES = ("student_params", "student_tokens_per_param", "teacher_loss")
PRETRAINING_AXES = ("pretraining_params", "pretraining_tokens_per_param")
TEACHER_AXES = ("teacher_params", "teacher_tokens_per_param")
CHOICE_AXES = DISTILLED_AXES + PRETRAINING_AXES + TEACHER_AXES
INSIDE, UNKNOWN = "none", "unknown"
AXIS_WORDS = {
    "student_params": "student size",
    "student_tokens_per_param": "student tokens per parameter",
    "teacher_loss": "teacher loss",
    "pretraining_params": "pretrained student size",
    "pretraining_tokens_per_param": "pretraining tokens per parameter",
    "pretraining_compute": "pretraining compute",
    "teacher_params": "teacher size",
    "teacher_tokens_per_param": "teacher tokens per parameter",
}


def extrapolation_factor(values: Any, seen: tuple[float, float] | None) -> np.ndarray:
    """Return the factor by which values are outside a range.

    The factor is 1 inside, 2 at twice the maximum or half the minimum, and NaN if the value is NaN or the range is unknown.
    """
    if seen is None:
        return np.full(np.shape(values), np.nan)
    lowest, highest = seen
    # The tolerance prevents rounding errors from placing a run outside the range of its own data.
    factor = np.maximum(np.maximum(values / highest, lowest / values), 1.0)
    return np.where(factor < 1 + 1e-9, 1.0, factor)


def distilled_factors(fitted: FittedDraws, params: Any, tokens: Any, teacher_loss: Any) -> np.ndarray:
    """Return the extrapolation factors of distilled students over DISTILLED_AXES, (axis, ...)."""
    return _factors(fitted, DISTILLED_AXES, (params, tokens / params, teacher_loss))


def pretraining_factors(fitted: FittedDraws, params: Any, tokens: Any) -> np.ndarray:
    """Return the extrapolation factors of the supervised law over PRETRAINING_AXES, (axis, ...).

    They apply to pretrained students and to new teachers, because the data of the supervised law cover a limited range of sizes
    and tokens.
    """
    return _factors(fitted, PRETRAINING_AXES, (params, tokens / params))


def teacher_factors(fitted: FittedDraws, params: Any, tokens: Any) -> np.ndarray:
    """Return the extrapolation factors of new teachers over TEACHER_AXES, (axis, ...)."""
    return _factors(fitted, TEACHER_AXES, (params, tokens / params))


def _factors(fitted: FittedDraws, axes: tuple[str, ...], values: tuple[Any, ...]) -> np.ndarray:
    of_axes = []
    for axis, at in zip(axes, values, strict=True):
        seen, shown = fitted.ranges.get(axis), np.asarray(at, dtype=float)
        if axis == "teacher_loss" and seen is not None:
            seen, shown = _sizes_of(fitted, seen), fitted.size_scale.params(shown)
        of_axes.append(extrapolation_factor(shown, seen))
    return np.stack(np.broadcast_arrays(*of_axes))


def _sizes_of(fitted: FittedDraws, losses: tuple[float, float]) -> tuple[float, float]:
    """Return the sizes that stand for the highest and the lowest loss of a range."""
    weakest, strongest = fitted.size_scale.params(losses[::-1]).tolist()
    return weakest, strongest


def within_factor(fitted: FittedDraws, bounds: Bounds, factor: float) -> Bounds:
    """Return the bounds on new teachers that also keep their extrapolation factors at most at `factor`, if the ranges are known."""
    if not factor < np.inf:
        return bounds
    limits = {axis: (low / factor, high * factor) for axis, (low, high) in fitted.ranges.items()}
    if "teacher_loss" in limits:
        weakest, strongest = _sizes_of(fitted, fitted.ranges["teacher_loss"])
        limits["teacher_loss"] = (fitted.size_scale.loss(strongest * factor), fitted.size_scale.loss(weakest / factor))
    of_teachers = {axis: limits[axis] for axis in (*TEACHER_AXES, "teacher_loss") if axis in limits}
    lowest = {f"min_{axis}": max(low, getattr(bounds, f"min_{axis}")) for axis, (low, _) in of_teachers.items()}
    highest = {f"max_{axis}": min(high, getattr(bounds, f"max_{axis}")) for axis, (_, high) in of_teachers.items()}
    return replace(bounds, **lowest, **highest)


def distilled_extrapolation(fitted: FittedDraws, params: Any, tokens: Any, teacher_loss: Any) -> np.ndarray:
    """Return the largest extrapolation factor of distilled students."""
    return distilled_factors(fitted, params, tokens, teacher_loss).max(axis=0)


def choice_factors(
    fitted: FittedDraws, problem: Problem, students: Any, budgets: Any, strategy: Mapping[str, Any]
) -> np.ndarray:
    """Return the extrapolation factors of a strategy and of pretraining with the same budget over CHOICE_AXES, (axis, ...).

    `strategy` holds student_tokens, teacher_loss, teacher_params and teacher_tokens. The losses of existing teachers are measured,
    so their sizes and tokens are no extrapolation.
    """
    alone = np.minimum(pretraining_tokens(students, budgets, problem.shape), problem.bounds.max_student_tokens)
    return strategy_factors(fitted, problem, students, strategy, students, alone)


def strategy_factors(
    fitted: FittedDraws, problem: Problem, students: Any, strategy: Mapping[str, Any], pretrained: Any, alone: Any
) -> np.ndarray:
    """Return the extrapolation factors of a strategy, and of other pretrained students with their tokens, as `choice_factors`."""
    tokens, size = strategy["student_tokens"], strategy["teacher_params"]
    values = (students, tokens / students, strategy["teacher_loss"], pretrained, alone / pretrained)
    factors = _factors(fitted, CHOICE_AXES, (*values, size, strategy["teacher_tokens"] / size))
    if problem.teachers is not None:
        factors[-len(TEACHER_AXES) :] = 1.0
    return factors


def described(factors: np.ndarray, axes: tuple[str, ...], possible: Any = True) -> dict[str, Any]:
    """Return the variables that describe extrapolation.

    Parameters
    ----------
    factors : ndarray, (axis, ...)
        Extrapolation factors; NaN if unknown.
    axes : tuple of str, (axis,)
    possible : array of bool, (...)
        Whether there is a strategy. Without one, nothing is extrapolated.

    Returns
    -------
    dict
        extrapolation_factor; extrapolation (the largest factor), extrapolates (whether a factor is above 1 or unknown, because
        then extrapolation cannot be excluded) and extrapolation_axis (the axis with the largest factor), (...) each.
    """
    largest = factors.max(axis=0)
    return {
        "extrapolation_factor": factors,
        "extrapolation": largest,
        "extrapolates": ~(largest == 1.0) & possible,
        "extrapolation_axis": farthest_axis(factors, axes, possible),
    }


def axis_names(axes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the values of extrapolation_axis."""
    return (INSIDE, *axes, UNKNOWN)


def farthest_axis(factors: np.ndarray, axes: tuple[str, ...], possible: Any = True) -> Codes:
    """Return the axis with the largest factor, (...): its name, "none" if all are 1, "unknown" if one is NaN."""
    largest = factors.max(axis=0)
    place = np.where(np.isnan(largest), len(axes), np.nan_to_num(factors).argmax(axis=0)) + 1
    return Codes(np.where((largest == 1.0) | ~np.asarray(possible), 0, place), axis_names(axes))
