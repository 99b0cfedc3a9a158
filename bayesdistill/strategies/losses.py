"""Losses of models, and of pretraining on a budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesdistill.compute import pretraining_tokens
from bayesdistill.law import Draws
from bayesdistill.strategies.problems import Problem, budgets_per_draw


@dataclass(frozen=True)
class Losses:
    """Losses of models.

    Parameters
    ----------
    draws : Draws
    """

    draws: Draws

    @classmethod
    def of(cls, draws: Draws, problem: Problem) -> Losses:
        """Return the losses of a problem, with only the symbols that they depend on."""
        symbols = {name: draws[name] for name in draws.law.symbols_of_law}
        return cls(replace(draws, symbols=symbols, paths=None))

    @property
    def n_draws(self) -> int:
        """Number of draws."""
        return self.draws.n_draws

    def take(self, index: Any) -> Losses:
        """Return the losses under some of the draws."""
        return Losses(self.draws.take(index))

    def supervised(self, params: Any, tokens: Any) -> np.ndarray:
        """Return the losses of pretrained models; arguments (..., 1) or (..., n_draws)."""
        return self.draws.supervised_loss(params, tokens)

    def distilled(self, params: Any, tokens: Any, teacher_loss: Any) -> np.ndarray:
        """Return the losses of distilled students; infinite with less than one token."""
        loss = self.draws.distilled_loss(params, np.maximum(tokens, 1.0), teacher_loss)
        return np.where(np.asarray(tokens) >= 1, loss, np.inf)


def tokens_bought(problem: Problem, student: int, budgets: np.ndarray) -> np.ndarray:
    """Return the tokens of pretraining a student, given by its position, on all of each budget; of the shape of the budgets."""
    left = budgets - problem.serving_cost(student)
    return np.minimum(
        pretraining_tokens(problem.students[student], left, problem.shape), problem.bounds.max_student_tokens
    )


def supervised_losses(draws: Draws, problem: Problem) -> np.ndarray:
    """Return the loss of pretraining each student on all of each budget.

    Parameters
    ----------
    draws : Draws
    problem : Problem
        The students, budgets, cap on tokens and inference matter.

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
            tokens = tokens_bought(problem, student, budgets)
            found[student] = np.where(tokens >= 1, losses.supervised(size, tokens), np.nan)
    return found
