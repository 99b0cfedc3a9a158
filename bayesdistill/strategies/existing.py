"""Choice among existing teachers, whose losses are measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesdistill.compute import Shape, forward_flops
from bayesdistill.errors import ParameterError
from bayesdistill.strategies.charges import Charges
from bayesdistill.strategies.losses import Losses


@dataclass(frozen=True)
class Teachers:
    """Existing teachers.

    Parameters
    ----------
    params : (n,) array
        Non-embedding parameters.
    loss : (n, n_draws) array
        Measured losses in nats per token, equal for all draws unless given for each draw.
    tokens : (n,) array or None
        Training tokens. A fraction of the pretraining is charged only if they are given.
    """

    params: np.ndarray
    loss: np.ndarray
    tokens: np.ndarray | None

    @classmethod
    def of(cls, teachers: Any, n_draws: int) -> Teachers:
        """Return teachers from (params, loss) or (params, loss, tokens).

        Raises
        ------
        ParameterError
            If their lengths differ.
        """
        params = np.atleast_1d(np.asarray(teachers[0], float))
        loss = np.atleast_1d(np.asarray(teachers[1], float))
        tokens = (
            np.atleast_1d(np.asarray(teachers[2], float)) if len(teachers) > 2 and teachers[2] is not None else None
        )
        if not params.size:
            return cls(params, np.empty((0, n_draws)), tokens)
        wanted = [(params.size,), (params.size, n_draws)]
        if loss.shape not in wanted or (tokens is not None and tokens.shape != params.shape):
            shapes = [v.shape for v in (params, loss, tokens) if v is not None]
            raise ParameterError(
                f"Teachers have shapes {', '.join(map(str, shapes))}. Give one value of parameters, loss and tokens per teacher."
            )
        return cls(params, np.broadcast_to(loss.reshape(params.size, -1), (params.size, n_draws)), tokens)

    def for_draws(self, index: np.ndarray) -> Teachers:
        """Return the teachers with their losses under some of the draws."""
        return replace(self, loss=self.loss[:, index])

    @property
    def usable(self) -> np.ndarray:
        """Return which (teacher, draw) have positive numbers."""
        sound = np.isfinite(self.params) & (self.params > 0)
        if self.tokens is not None:
            sound = sound & np.isfinite(self.tokens) & (self.tokens > 0)
        return sound[:, None] & np.isfinite(self.loss) & (self.loss > 0)

    def student_tokens(self, budgets: Any, charges: Charges, shape: Shape) -> np.ndarray:
        """Return the tokens that each teacher leaves for the student, (n, ...) for budgets (...)."""
        extra = [1] * np.ndim(budgets)
        flops = forward_flops(self.params, shape).reshape(-1, *extra)
        trained = 0.0 if self.tokens is None else self.tokens.reshape(flops.shape)
        return np.broadcast_to(charges.student_tokens(budgets, flops, trained), (self.params.size, *np.shape(budgets)))

    def student_losses(self, losses: Losses, student: float, tokens: np.ndarray) -> np.ndarray:
        """Return losses (n, n_draws) of a student with tokens (n, draws) from each teacher.

        The loss is infinite if a teacher leaves less than one token or is not usable.
        """
        return np.where(self.usable, losses.distilled(student, tokens, self.loss), np.inf)
