"""The choice among teachers that exist, whose losses are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesdistill.compute import (
    Scenario,
    Shape,
    flops_from_coefficients,
    flops_per_token,
    student_cost_per_token,
    teacher_cost,
)
from bayesdistill.errors import ParameterError
from bayesdistill.strategies.blocks import grid_losses
from bayesdistill.strategies.paths import OVERTRAINED


@dataclass(frozen=True)
class Teachers:
    """Teachers that exist.

    Parameters
    ----------
    params : (n,) array
        Non-embedding parameters.
    loss : (n, n_draws) array
        Measured losses, the same for every draw unless they were given for each.
    tokens : (n,) array or None
        Tokens that they were trained on. Only with them is a share of their pretraining charged.
    """

    params: np.ndarray
    loss: np.ndarray
    tokens: np.ndarray | None

    @classmethod
    def of(cls, teachers: Any, n_draws: int) -> Teachers:
        """From (params, loss) or (params, loss, tokens).

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
        wanted = [(params.size,), (params.size, n_draws)]
        if loss.shape not in wanted or (tokens is not None and tokens.shape != params.shape):
            shapes = [v.shape for v in (params, loss, tokens) if v is not None]
            raise ParameterError(
                f"teachers have shapes {', '.join(map(str, shapes))}; parameters, losses and tokens need one value a teacher"
            )
        return cls(params, np.broadcast_to(loss.reshape(params.size, -1), (params.size, n_draws)), tokens)

    @property
    def usable(self) -> np.ndarray:
        """Which (teacher, draw) are positive numbers."""
        sound = np.isfinite(self.params) & (self.params > 0)
        if self.tokens is not None:
            sound = sound & np.isfinite(self.tokens) & (self.tokens > 0)
        return sound[:, None] & np.isfinite(self.loss) & (self.loss > 0)

    def student_tokens(self, student: float, budgets: np.ndarray, s: Scenario, cap: float, shape: Shape) -> np.ndarray:
        """What each teacher leaves for the student: the shape of budgets with the teachers before it."""
        flops = flops_per_token(self.params, shape).reshape(-1, *[1] * budgets.ndim)
        trained = 0.0 if self.tokens is None else self.tokens.reshape(flops.shape)
        left = budgets - teacher_cost(flops, trained, s.delta_pre)
        return np.minimum(left / student_cost_per_token(flops_per_token(student, shape), flops, s.delta_lgt), cap)

    def student_losses(
        self, P: np.ndarray, columns: Any, budgets: np.ndarray, student_flops: float, s: Scenario, room: Any
    ) -> np.ndarray:
        """Losses (n_budgets, n_teachers, n_draws) for draws P after `set_students`, whose teachers' losses are in columns.

        Infinite where a teacher leaves less than a token or is not usable.
        """
        usable = self.usable
        params = np.where(usable.any(axis=1), self.params, 1.0)
        tokens = np.zeros(params.size) if self.tokens is None else np.where(usable.any(axis=1), self.tokens, 0.0)
        flops = flops_from_coefficients(params, room[9], room[10])
        V = np.empty((budgets.shape[0], params.size, P.shape[1]))
        table = np.ascontiguousarray(np.broadcast_to(tokens[:, None], V.shape[1:]))
        losses = np.ascontiguousarray(np.where(usable, self.loss, 1.0)[:, columns])
        task = (OVERTRAINED, student_flops, float(s.delta_lgt), float(s.delta_pre))
        grid_losses(P, budgets, task, room, 1, flops, table, losses, V)
        return np.where(usable[:, columns], V, np.inf)
