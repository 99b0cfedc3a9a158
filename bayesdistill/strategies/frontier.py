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

Bounds on tokens per parameter only clip the tokens at each size to a smaller range, because the ratio decreases with the size along a
level curve. Bounds on L_T end the curve. If tokens are repeated, D_T and N_T are replaced in the power law by their effective numbers,
and each side of the condition gets the elasticity of its number as a factor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from bayesdistill.compute import Shape, flops_by_part, flops_elasticity
from bayesdistill.law import Repetition
from bayesdistill.strategies.charges import Charges
from bayesdistill.strategies.losses import Losses
from bayesdistill.strategies.problems import Bounds, Problem
from bayesdistill.strategies.roots import find_roots

_STRETCH = 0.25  # length in t of the two ends along which only the tokens change
_TABLE = np.linspace(-_STRETCH, 1 + _STRETCH, 13)
_HAIR = 1e-6  # negligible relative difference of tokens from a bound
_ROUGH = 1e-3  # accuracy of the end of the searched part, in log cost and t
_LEAST_ELASTICITY = -500.0  # of effective parameters, as a logarithm; a larger teacher gains nothing
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
    losses : Losses
        The curve depends on A, B, alpha and beta of the supervised law.
    """

    bounds: Bounds
    shape: Shape
    charges: Charges
    losses: Losses

    @property
    def depends_on_budget(self) -> bool:
        """Whether the teacher at t depends on the budget."""
        return self.charges.delta_lgt > 0 and self.charges.delta_pre > 0

    @property
    def kinks(self) -> tuple[float, ...]:
        """Values of t at which the curve has a kink in every draw: the last sizes, and where other bounds on tokens apply."""
        b, (low, high) = self.bounds, np.log(self.bounds.teacher_params)
        ratios = (
            (b.min_teacher_tokens, b.min_teacher_tokens_per_param),
            (b.max_teacher_tokens, b.max_teacher_tokens_per_param),
        )
        inner = (np.log(tokens / ratio) for tokens, ratio in ratios if 0 < ratio < np.inf)
        return (0.0, 1.0, *((x - low) / (high - low) for x in inner if low < x < high))

    def teacher(self, t: Any, budget: Any) -> Teacher:
        """Return the teachers at t for budgets in FLOPs; both broadcast, with the draws as last axis."""
        smallest, largest = self.bounds.teacher_params
        low, high = np.log(smallest), np.log(largest)
        log_params = low + np.clip(t, 0.0, 1.0) * (high - low)
        params = np.clip(np.exp(log_params), smallest, largest)
        weights, attention, output = flops_by_part(params, self.shape)
        flops = weights + attention + output
        limits = self.bounds.teacher_tokens(params)
        fewest, most = np.log(limits)
        if self.charges.delta_lgt and not self.charges.delta_pre:
            on_curve: Any = most
        else:
            slope = flops_elasticity(weights, attention, output)
            p, size = self.losses.draws, log_params
            if p.repetition is not None:
                size = np.log(p.repetition.effective_params(params))
                slope = slope / np.exp(np.maximum(p.repetition.log_elasticity_params(params), _LEAST_ELASTICITY))
            optimal = log_optimal_tokens(p, slope, size)
            on_curve = np.clip(self._log_tokens(optimal, (fewest, most), flops, budget), fewest, most)
        below, above = np.minimum(t, 0.0) / _STRETCH, np.maximum(t - 1.0, 0.0) / _STRETCH
        log_tokens = on_curve + below * (on_curve - fewest) + above * (most - on_curve)
        return Teacher(params, np.clip(np.exp(log_tokens), *limits), flops)

    def _log_tokens(self, optimal: Any, limits: tuple[Any, Any], flops: Any, budget: Any) -> Any:
        """Return the logarithm of the tokens that satisfy the condition, from those that satisfy it for kappa = 0."""
        charges, beta = self.charges, self.losses.draws["beta"]
        if self.losses.draws.repetition is None:
            solve = partial(solve_charged, optimal, beta)
        else:
            solve = partial(_solve_repeated, optimal, beta, self.losses.draws.repetition, limits)
        if not self.depends_on_budget:
            return optimal if self.losses.draws.repetition is None else solve(1.0, 0.0)
        share, per_token = charges.delta_lgt / (3 * charges.delta_pre), charges.per_token(flops)
        tokens = solve(3 * charges.student_flops / per_token, share * budget / per_token)
        if np.isfinite(charges.max_student_tokens):
            # The budget or the cap limits D_S; the stronger limit gives fewer teacher tokens.
            tokens = np.minimum(tokens, solve(1.0, share * charges.max_student_tokens))
        return tokens

    def ends(self, budget: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the first and last relevant t, and whether the budget limits the last.

        All broadcast with the budgets. The range omits ends of the curve without length, and teachers that leave less than
        about a hundredth of the budget for the student.
        """
        corners = self.teacher(np.array([0.0, 1.0])[:, None, None], budget)
        fewest, most = self.bounds.teacher_tokens(corners.params)
        start = np.where(corners.tokens[0] > fewest[0] * (1 + _HAIR), -_STRETCH, 0.0)
        end = np.where(corners.tokens[1] < most[1] * (1 - _HAIR), 1 + _STRETCH, 1.0)
        if self.bounds.limit_losses:
            start, end = self._within_loss_bounds(start, end, budget)
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
        # A kink of the curve between two points of the table can mislead the secant.
        shape = np.broadcast_shapes(wall.shape, budget.shape)
        wall = np.broadcast_to(np.clip(wall, -_STRETCH, 1 + _STRETCH), shape).copy()
        off = np.flatnonzero((np.abs(target - log_cost(wall)) > _ROUGH) & (wall > -_STRETCH) & (wall < end))

        def excess(t: np.ndarray, which: np.ndarray) -> np.ndarray:
            _, teacher = self._some(which, shape, budget, t)
            cost = np.log(3 * self.charges.delta_pre * teacher.flops) + np.log(teacher.tokens)
            return cost - np.broadcast_to(target, shape).flat[which]

        low, high = (np.broadcast_to(_TABLE[i], shape).flat[off] for i in (k - 1, k))
        inside = (excess(low, off) < 0) & (excess(high, off) > 0)
        wall.flat[off[inside]] = find_roots(excess, low[inside], high[inside], off[inside], _ROUGH)
        return start, np.clip(wall, start, end), wall < end

    def _some(self, which: np.ndarray, shape: tuple[int, ...], budget: Any, t: Any) -> tuple[Losses, Teacher]:
        """Return the losses and the teachers at t (n,) of problems (n,), by their flat indices."""
        place = np.unravel_index(which, shape)
        some = replace(self, losses=self.losses.take(place[-1] if shape[-1] > 1 else np.zeros(which.size, int)))
        return some.losses, some.teacher(t, np.broadcast_to(budget, shape)[place])

    def _within_loss_bounds(self, start: Any, end: Any, budget: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the first and last t between `start` and `end` with teacher losses within bounds; NaN without any."""
        shape = np.broadcast_shapes(np.shape(start), np.shape(end), budget.shape, (self.losses.n_draws,))
        ends = [np.broadcast_to(v, shape).ravel() for v in (start, end)]

        def excess(bound: float, t: np.ndarray, which: np.ndarray) -> np.ndarray:
            losses, teacher = self._some(which, shape, budget, t)
            return losses.supervised(teacher.params, teacher.tokens) - bound

        every = np.arange(ends[0].size)
        first, last = (excess(0.0, t, every) for t in ends)  # losses decrease along the curve
        new = []
        for bound, nearest in ((self.bounds.max_teacher_loss, ends[0]), (self.bounds.min_teacher_loss, ends[1])):
            t = np.array(nearest)
            between = np.flatnonzero((first > bound) & (last < bound))
            t[between] = find_roots(partial(excess, bound), ends[0][between], ends[1][between], between, 1e-13)
            t[(last > self.bounds.max_teacher_loss) | (first < self.bounds.min_teacher_loss)] = np.nan
            new.append(t.reshape(shape))
        return new[0], new[1]


def teacher_exists(losses: Losses, problem: Problem) -> np.ndarray:
    """Return in which draws the loss of a teacher within the bounds on size and tokens is within the bounds on losses."""
    bounds = problem.bounds
    if problem.teachers is not None or not bounds.hold_something:
        return np.full(losses.n_draws, True)
    smallest, largest = bounds.teacher_params
    with np.errstate(all="ignore"):
        worst = losses.supervised(smallest, bounds.teacher_tokens(smallest)[0])
        best = losses.supervised(largest, bounds.teacher_tokens(largest)[1])
    return (worst >= bounds.min_teacher_loss) & (best <= bounds.max_teacher_loss)


def log_optimal_tokens(p: Any, slope: Any, log_params: Any) -> Any:
    """Return log D_T that satisfies the condition for kappa = 0.

    `p` maps symbols of the law to their values, and `slope` is g(N_T).
    """
    return (np.log(p["beta"] * p["B"] / (p["alpha"] * p["A"])) + np.log(slope) + p["alpha"] * log_params) / p["beta"]


def solve_charged(optimal: Any, beta: Any, constant: Any, reach: Any) -> Any:
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


def _solve_repeated(
    optimal: Any, beta: Any, repetition: Repetition, limits: tuple[Any, Any], constant: Any, reach: Any
) -> Any:
    """Solve the condition for log D_T within limits if tokens are repeated, by bisection."""
    low, high = (v + np.zeros(np.broadcast_shapes(*map(np.shape, (optimal, constant, reach, *limits)))) for v in limits)
    for _ in range(50):
        y = (low + high) / 2
        tokens = np.exp(y)
        gain = np.log(constant + reach / tokens) + repetition.log_elasticity(tokens)
        enough = beta * (np.log(repetition.effective(tokens)) - optimal) > gain
        low, high = np.where(enough, low, y), np.where(enough, y, high)
    return high
