"""Losses of given strategies and of pretraining."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesdistill.compute import pretraining_tokens
from bayesdistill.errors import ParameterError
from bayesdistill.law import Draws
from bayesdistill.strategies.problems import Problem, budgets_per_draw
from bayesdistill.strategies.repetition import Repetition


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


@dataclass(frozen=True)
class Losses:
    """Losses of models from numbers of tokens, of which some may be repeated.

    Parameters
    ----------
    draws : Draws
    repetition : Repetition or None
        None if all tokens are different.
    """

    draws: Draws
    repetition: Repetition | None

    @classmethod
    def of(cls, draws: Draws, problem: Problem) -> Losses:
        """Return the losses of a problem, with only the symbols that they depend on."""
        return cls(replace(draws, symbols={name: draws[name] for name in draws.law.symbols_of_law}), problem.repetition)

    @property
    def n_draws(self) -> int:
        """Number of draws."""
        return self.draws.n_draws

    def take(self, index: Any) -> Losses:
        """Return the losses under some of the draws."""
        repetition = None if self.repetition is None else self.repetition.take(index)
        return Losses(self.draws.take(index), repetition)

    def effective(self, tokens: Any) -> Any:
        """Return the number of tokens that the law sees."""
        return tokens if self.repetition is None else self.repetition.effective(tokens)

    def supervised(self, params: Any, tokens: Any) -> np.ndarray:
        """Return the losses of pretrained models; arguments (..., 1) or (..., n_draws)."""
        return self.draws.supervised_loss(params, self.effective(tokens))

    def distilled(self, params: Any, tokens: Any, teacher_loss: Any) -> np.ndarray:
        """Return the losses of distilled students; infinite with less than one token."""
        loss = self.draws.distilled_loss(params, self.effective(np.maximum(tokens, 1.0)), teacher_loss)
        return np.where(np.asarray(tokens) >= 1, loss, np.inf)


def supervised_losses(draws: Draws, problem: Problem) -> np.ndarray:
    """Return the loss of pretraining each student on all of each budget.

    Parameters
    ----------
    draws : Draws
    problem : Problem
        The students, budgets, cap on tokens, inference and repetition matter.

    Returns
    -------
    (n_students, n_budgets, n_draws) array
        Nats per token; NaN where the budget buys less than one token.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> from bayesdistill.law import LAWS, Draws
    >>> from bayesdistill.strategies import Problem, supervised_losses
    >>> supervised_losses(Draws(LAWS["busbridge2025"], bd.PUBLISHED), Problem([1e9], [1e21], ())).round(3)
    array([[[2.221]]])
    """
    losses, budgets = Losses.of(draws, problem), budgets_per_draw(problem.budgets, draws.n_draws)
    found = np.empty((problem.students.size, *budgets.shape))
    with np.errstate(all="ignore"):
        for student, size in enumerate(problem.students):
            left = budgets - problem.serving_cost(student)
            tokens = np.minimum(pretraining_tokens(size, left, problem.shape), problem.bounds.max_student_tokens)
            found[student] = np.where(tokens >= 1, losses.supervised(size, tokens), np.nan)
    return found
