r"""Efficient teachers: for each teacher loss, the teacher with the lowest charge to the student.

For any dependence of the student's loss on the teacher's loss, a teacher can only be optimal if no cheaper teacher has the
same loss, because the savings would buy student tokens. On a level curve of the supervised law

.. math:: L_T = E + (A N_T^{-\alpha} + B D_T^{-\beta})^\gamma

the charge :math:`F(N_T)(\delta_\mathrm{lgt} D_S + 3\,\delta_\mathrm{pre} D_T)` has one minimum, where

.. math::

    g(N_T)\, \beta B D_T^{-\beta} \left(1 + \frac{\kappa}{D_T}\right) = \alpha A N_T^{-\alpha},
    \qquad \kappa = \frac{\delta_\mathrm{lgt} D_S}{3\,\delta_\mathrm{pre}}, \quad
    g(N) = \frac{\mathrm{d} \log F}{\mathrm{d} \log N}

(along the level curve the left side increases with N_T and the right side decreases). The size therefore determines the tokens:

- If nothing or only pretraining is charged, kappa is 0: the teacher is compute-optimal by itself.
- If only inference is charged, kappa is infinite: the teacher uses all the tokens that its bound allows.
- If both are charged, the budget determines D_S. The condition becomes a convex, decreasing equation in log D_T, which
  Newton's method solves from the left.

A number t gives the position on this curve. From 0 to 1, log N_T goes from its lower to its upper bound and D_T follows from the
condition, clipped to its bounds. From -1/4 to 0 the tokens of the smallest teacher increase from their lower bound; from 1 to 5/4
the tokens of the largest teacher increase to their upper bound. Along the whole curve L_T decreases and the charge increases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesdistill.compute import Shape, flops_by_part
from bayesdistill.strategies.charges import Charges
from bayesdistill.strategies.problems import Bounds

_STRETCH = 0.25  # length in t of the two ends along which only the tokens change
_TABLE = np.linspace(-_STRETCH, 1 + _STRETCH, 13)
_HAIR = 1e-6  # negligible relative difference of tokens from a bound
_LEAST_SHARE = 0.01  # fraction of the budget left for the student at the end of the searched part


@dataclass(frozen=True)
class Teacher:
    """Teachers on the curve.

    Parameters
    ----------
    params, tokens, flops : arrays that broadcast
        Non-embedding parameters, training tokens, forward FLOPs per token.
    """

    params: np.ndarray
    tokens: np.ndarray
    flops: np.ndarray


@dataclass(frozen=True)
class Frontier:
    """Curve of efficient teachers for one student and scenario.

    Parameters
    ----------
    bounds : Bounds
    shape : Shape
    charges : Charges
        Costs of the student.
    p : mapping
        The supervised law's A, B, alpha and beta, (n_draws,).
    """

    bounds: Bounds
    shape: Shape
    charges: Charges
    p: Mapping[str, np.ndarray]

    @property
    def depends_on_budget(self) -> bool:
        """Whether the teacher at t depends on the budget."""
        return self.charges.delta_lgt > 0 and self.charges.delta_pre > 0

    def teacher(self, t: Any, budget: Any) -> Teacher:
        """Return the teachers at t for budgets in FLOPs; both broadcast, with the draws as last axis."""
        low, high, fewest, most = np.log(self.bounds.limits)
        log_params = low + np.clip(t, 0.0, 1.0) * (high - low)
        params = np.clip(np.exp(log_params), self.bounds.min_teacher_params, self.bounds.max_teacher_params)
        weights, attention, output = flops_by_part(params, self.shape)
        flops = weights + attention + output
        if self.charges.delta_lgt and not self.charges.delta_pre:
            on_curve: Any = most
        else:
            slope = (weights + attention * (2 / 3) + output * (1 / 3)) / flops
            on_curve = np.clip(self._log_tokens(log_params, slope, flops, budget), fewest, most)
        below, above = np.minimum(t, 0.0) / _STRETCH, np.maximum(t - 1.0, 0.0) / _STRETCH
        log_tokens = on_curve + below * (on_curve - fewest) + above * (most - on_curve)
        tokens = np.clip(np.exp(log_tokens), self.bounds.min_teacher_tokens, self.bounds.max_teacher_tokens)
        return Teacher(params, tokens, flops)

    def _log_tokens(self, log_params: Any, slope: Any, flops: Any, budget: Any) -> Any:
        """Logarithm of the tokens that satisfy the condition."""
        p, charges = self.p, self.charges
        optimal = (np.log(p["beta"] * p["B"] / (p["alpha"] * p["A"])) + np.log(slope) + p["alpha"] * log_params) / p[
            "beta"
        ]
        if not self.depends_on_budget:
            return optimal
        share, per_token = charges.delta_lgt / (3 * charges.delta_pre), charges.per_token(flops)
        tokens = _solve_charged(optimal, p["beta"], 3 * charges.student_flops / per_token, share * budget / per_token)
        if np.isfinite(charges.max_student_tokens):
            # The budget or the cap limits D_S; the stronger limit gives fewer teacher tokens.
            capped = _solve_charged(optimal, p["beta"], 1.0, share * charges.max_student_tokens)
            tokens = np.minimum(tokens, capped)
        return tokens

    def ends(self, budget: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the first and last relevant t, and whether the budget limits the last.

        All broadcast with the budgets. The range omits ends of the curve without length, and teachers that leave less than
        about a hundredth of the budget for the student.
        """
        _, _, fewest, most = self.bounds.limits
        corners = self.teacher(np.array([0.0, 1.0])[:, None, None], budget)
        start = np.where(corners.tokens[0] > fewest * (1 + _HAIR), -_STRETCH, 0.0)
        end = np.where(corners.tokens[1] < most * (1 - _HAIR), 1 + _STRETCH, 1.0)
        if not self.charges.delta_pre:
            return start, end, np.full((1, 1), False)

        def log_cost(t: Any) -> Any:
            teacher = self.teacher(t, budget)
            return np.log(3 * self.charges.delta_pre * teacher.flops) + np.log(teacher.tokens)

        table = log_cost(_TABLE[:, None, None])
        target = np.log(budget) + np.log1p(-_LEAST_SHARE)
        k = np.clip((table <= target).sum(axis=0), 1, _TABLE.size - 1)
        here, before = (
            np.take_along_axis(np.broadcast_to(table, (_TABLE.size, *k.shape)), i[None], 0)[0] for i in (k, k - 1)
        )
        steepness = np.maximum(here - before, 1e-9) / (_TABLE[k] - _TABLE[k - 1])
        wall = _TABLE[k - 1] + (target - before) / steepness
        for _ in range(2):  # Repeat because the table is only approximately linear between its points.
            wall = np.clip(wall, -_STRETCH, 1 + _STRETCH)
            wall = wall + (target - log_cost(wall)) / steepness
        return start, np.clip(wall, start, end), wall < end


def _solve_charged(optimal: Any, beta: Any, constant: Any, reach: Any) -> Any:
    """Solve the condition for log D_T, with 1 + kappa/D_T = `constant + reach / D_T`.

    `optimal` is the solution for constant = 1 and reach = 0. Newton's method starts from the larger of the two solutions for
    one term alone. The function is convex and decreasing, so every step stays left of the root.
    """
    y = np.maximum(optimal + np.log(constant) / beta, (beta * optimal + np.log(reach)) / (1 + beta))
    for _ in range(3):
        near = reach * np.exp(-y)
        total = constant + near
        y = y + (np.log(total) - beta * (y - optimal)) / (near / total + beta)
    return y
