"""Losses along the curve of efficient teachers, for arrays of problems.

A problem is a budget and a posterior draw. Its strategies lie on a curve (see `frontier`). A number s from 0 to LAST gives the
position on the affordable part of the curve. Integers are the points of a grid. If the budget limits the teacher, they are denser
toward this limit, because the losses change fastest there. The loss is a smooth function of s except for a few kinks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from bayesdistill.strategies.frontier import Frontier
from bayesdistill.strategies.losses import Losses

LAST = 20
"""Index of the last point of the grid."""
_CROWDING = 0.1  # spacing of the grid at the last affordable teacher, relative to even spacing


@dataclass(frozen=True)
class Strategies:
    """Strategies and their losses; the arrays broadcast against each other.

    Parameters
    ----------
    loss, teacher_loss : array
        Nats per token. The loss is infinite where the student gets less than one token.
    teacher_params, teacher_tokens, student_tokens : array
    position : array
        Position s on the curve.
    """

    loss: np.ndarray
    teacher_params: np.ndarray
    teacher_tokens: np.ndarray
    teacher_loss: np.ndarray
    student_tokens: np.ndarray
    position: np.ndarray

    def take(self, columns: np.ndarray) -> Strategies:
        """Return the strategies of some problems (last axis)."""
        parts = np.broadcast_arrays(*(getattr(self, field.name) for field in fields(self)))
        return Strategies(*(part[..., columns] for part in parts))


@dataclass(frozen=True)
class Curves:
    """Curves of all problems.

    The arrays of problems broadcast against each other, with the draws as last axis.

    Parameters
    ----------
    student : float
        Non-embedding parameters of the student.
    frontier : Frontier
        With the losses of the law.
    budgets : array
        FLOPs.
    start, end : array
        The t of the frontier at s = 0 and s = LAST.
    crowding : array
        Spacing of the grid at s = LAST, relative to an even one.
    """

    student: float
    frontier: Frontier
    budgets: np.ndarray
    start: np.ndarray
    end: np.ndarray
    crowding: np.ndarray

    @classmethod
    def of(cls, student: float, frontier: Frontier, budgets: np.ndarray) -> Curves:
        """Return the curves of budgets of shape (n_budgets, n_draws) or (n_budgets, 1)."""
        start, end, limited = frontier.ends(budgets)
        return cls(student, frontier, budgets, start, end, np.where(limited, _CROWDING, 1.0))

    @property
    def losses(self) -> Losses:
        """The losses of the law."""
        return self.frontier.losses

    def take(self, *index: np.ndarray) -> Curves:
        """Return some problems as arrays of shape (n,), from positions along each axis."""
        shape = np.broadcast_shapes(self.budgets.shape, (self.losses.n_draws,))
        own = (self.budgets, self.start, self.end, self.crowding)
        frontier = replace(self.frontier, losses=self.losses.take(index[-1]))
        return Curves(self.student, frontier, *(np.broadcast_to(v, shape)[index] for v in own))

    def as_row(self) -> Curves:
        """Return problems (n,) as problems of one budget and n draws."""
        own = (self.budgets, self.start, self.end, self.crowding)
        return Curves(self.student, self.frontier, *(v[None] for v in own))

    def rows(self, part: slice | np.ndarray) -> Curves:
        """Return the problems of some of the budgets."""
        own = (self.budgets, self.start, self.end, self.crowding)
        return Curves(self.student, self.frontier, *(v[part] if v.shape[0] > 1 else v for v in own))

    def t(self, s: Any) -> np.ndarray:
        """Return the t of the frontier at s, which broadcasts against the problems."""
        rest = 1 - np.asarray(s) / LAST
        return np.asarray(self.end - (self.end - self.start) * rest * (self.crowding + (1 - self.crowding) * rest))

    def strategies(self, s: Any) -> Strategies:
        """Return the strategies at s, which broadcasts against the problems."""
        teacher = self.frontier.teacher(self.t(s), self.budgets)
        teacher_loss = self.losses.supervised(teacher.params, teacher.tokens)
        tokens = self.frontier.charges.student_tokens(self.budgets, teacher.flops, teacher.tokens)
        loss = self.losses.distilled(self.student, tokens, teacher_loss)
        return Strategies(loss, teacher.params, teacher.tokens, teacher_loss, tokens, np.asarray(s))

    def deficit(self, found: Strategies) -> np.ndarray:
        """Return teacher loss minus student loss without a teacher (laws may have a kink at 0)."""
        return found.teacher_loss - self.losses.supervised(self.student, np.maximum(found.student_tokens, 1.0))
