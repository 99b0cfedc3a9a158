"""Losses of given strategies and of pretraining."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bayesdistill.compute import PUBLISHED_SHAPE, Shape, pretraining_tokens
from bayesdistill.errors import ParameterError
from bayesdistill.law import Draws
from bayesdistill.strategies.problems import budgets_per_draw


def evaluate_strategies(
    draws: Draws,
    students: Any,
    student_tokens: Any,
    teacher_params: Any = None,
    teacher_tokens: Any = None,
    *,
    teacher_loss: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses of the student and of the teacher under every draw, for given strategies.

    Parameters
    ----------
    draws : Draws
    students, student_tokens, teacher_params, teacher_tokens : float or array
        Strategies; they broadcast against each other.
    teacher_loss : float or array, optional
        Measured losses of teachers; replaces their size and tokens.

    Returns
    -------
    loss, teacher_loss : (..., n_draws) arrays
        Nats per token.

    Raises
    ------
    ParameterError
        If neither the teacher's size and tokens nor its loss are given.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> from bayesdistill.law import LAWS, Draws
    >>> from bayesdistill.strategies import evaluate_strategies
    >>> draws = Draws(LAWS["busbridge2025"], bd.PUBLISHED)
    >>> evaluate_strategies(draws, 5.46e8, 1.207e10, teacher_loss=2.18485)[0].round(3)
    array([2.432])
    """
    if teacher_loss is None and (teacher_params is None or teacher_tokens is None):
        raise ParameterError("The teacher is missing. Give teacher_params and teacher_tokens, or teacher_loss.")

    def column(values: Any) -> np.ndarray:
        return np.asarray(values, float)[..., None]

    with np.errstate(all="ignore"):
        if teacher_loss is None:
            of_teacher = draws.supervised_loss(column(teacher_params), column(teacher_tokens))
        else:
            of_teacher = column(teacher_loss)
        loss = draws.distilled_loss(column(students), column(student_tokens), of_teacher)
    return loss, np.broadcast_to(of_teacher, loss.shape)


def supervised_losses(
    draws: Draws, students: Any, budgets: Any, shape: Shape = PUBLISHED_SHAPE, max_tokens: float = math.inf
) -> np.ndarray:
    """Return the loss of pretraining each student on all of each budget.

    Parameters
    ----------
    draws : Draws
    students : (n_students,) array
        Non-embedding parameters.
    budgets : (n_budgets,) or (n_budgets, n_draws) array
        FLOPs.
    shape : Shape
        Architecture, which determines the cost.
    max_tokens : float
        Cap on the tokens.

    Returns
    -------
    (n_students, n_budgets, n_draws) array
        Nats per token; NaN where the budget buys less than one token.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> from bayesdistill.law import LAWS, Draws
    >>> from bayesdistill.strategies import supervised_losses
    >>> supervised_losses(Draws(LAWS["busbridge2025"], bd.PUBLISHED), [1e9], [1e21]).round(3)
    array([[[2.221]]])
    """
    sizes = np.atleast_1d(np.asarray(students, float))[:, None, None]
    with np.errstate(all="ignore"):
        tokens = np.minimum(pretraining_tokens(sizes, budgets_per_draw(budgets, draws.n_draws), shape), max_tokens)
        return np.where(tokens >= 1, draws.supervised_loss(sizes, tokens), np.nan)
