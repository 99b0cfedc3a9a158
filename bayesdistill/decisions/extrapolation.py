"""Extrapolation factors: how far runs and strategies are outside the range of the data."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesdistill.compute import pretraining_tokens
from bayesdistill.decisions.fitted_draws import FittedDraws
from bayesdistill.strategies import Problem

DISTILLED_AXES = ("student_params", "student_tokens_per_param", "teacher_loss")
PRETRAINING_AXES = ("pretraining_params", "pretraining_tokens_per_param")


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


def _factors(fitted: FittedDraws, axes: tuple[str, ...], values: tuple[Any, ...]) -> np.ndarray:
    of_axes = (
        extrapolation_factor(np.asarray(at, dtype=float), fitted.ranges.get(axis))
        for axis, at in zip(axes, values, strict=True)
    )
    return np.stack(np.broadcast_arrays(*of_axes))


def distilled_extrapolation(fitted: FittedDraws, params: Any, tokens: Any, teacher_loss: Any) -> np.ndarray:
    """Return the largest extrapolation factor of distilled students."""
    return distilled_factors(fitted, params, tokens, teacher_loss).max(axis=0)


def pretraining_extrapolation(fitted: FittedDraws, params: Any, tokens: Any) -> np.ndarray:
    """Return the largest extrapolation factor of pretrained students or new teachers."""
    return pretraining_factors(fitted, params, tokens).max(axis=0)


def choice_factors(
    fitted: FittedDraws, problem: Problem, students: Any, budgets: Any, tokens: Any, teacher_loss: Any
) -> np.ndarray:
    """Return the extrapolation factors of a strategy and of pretraining with the same budget, (axis, ...)."""
    alone = np.minimum(pretraining_tokens(students, budgets, problem.shape), problem.bounds.max_student_tokens)
    values = (students, tokens / students, teacher_loss, students, alone / students)
    return _factors(fitted, DISTILLED_AXES + PRETRAINING_AXES, values)
