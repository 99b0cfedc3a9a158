r"""Search for the smallest budgets that reach target losses in each posterior draw.

The chosen strategies of a student are a curve over the budget C: the teacher and the tokens that one would choose with C FLOPs. In
each draw, the loss along this curve is :math:`L(C, \theta)`, and the budget of a target :math:`\ell` is the first that reaches it,
:math:`\min\{C : L(C, \theta) \le \ell\}`. A lower target therefore never costs less, and a budget is enough for a target in exactly
those draws in which the loss of the plan with this budget is at most the target, as long as the loss decreases.

The loss includes the deviations of its level of uncertainty (group effects, discrepancy), which differ between draws. The strategies
do not, because the deviations are unknown in advance. With the discrepancy, the loss need not decrease everywhere, so the first
budget is searched on a grid of 16 budgets per decade that is refined in the step that contains it; shorter visits below the target are
missed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesdistill.compute import forward_flops
from bayesdistill.decisions.solving import CHOSEN, solve_piece
from bayesdistill.law import Draws
from bayesdistill.law.predictive import Deviations
from bayesdistill.strategies import Problem, tokens_bought
from bayesdistill.strategies.charges import Charges
from bayesdistill.strategies.existing import Teachers
from bayesdistill.strategies.losses import Losses
from bayesdistill.strategies.roots import find_roots

_LEAST_TOKENS = 1e6  # the smallest budget pretrains the student on as many tokens
_STRATEGIES_A_DECADE = 4
_STEPS = 4  # between neighboring strategies, in which a loss is searched
_PARTS, _ROUNDS = 16, 4
_TIE = 1e-9  # nats
_TOLERANCE = 1e-9  # log budget

Loss = Callable[[np.ndarray], np.ndarray]
"""Losses (m, n) at the logarithms of budgets, (m, 1) or (m, n)."""


def budget_nodes(problem: Problem, most: float) -> np.ndarray:
    """Return the logarithms of the budgets of one student for which strategies are found, from 1e6 tokens of pretraining."""
    least = min(3 * float(forward_flops(problem.students[0], problem.shape)) * _LEAST_TOKENS, most / 10)
    return np.linspace(np.log(least), np.log(most), int(np.ceil(np.log10(most / least) * _STRATEGIES_A_DECADE)) + 1)


def first_budgets(loss: Loss, nodes: np.ndarray, targets: np.ndarray, draws: int) -> np.ndarray:
    """Return the logarithms of the first budgets at which losses reach targets, (target, draw); infinite if they never do.

    Parameters
    ----------
    loss : callable
    nodes : (node,) array
        Logarithms of budgets, increasing.
    targets : (target,) array
        Nats per token.
    draws : int
        Number of losses at each budget.
    """
    grid = np.linspace(nodes[:-1], nodes[1:], _STEPS, endpoint=False).T.ravel()
    grid = np.append(grid, nodes[-1])
    values = loss(grid[:, None])
    found = np.full((targets.size, draws), np.inf)
    each = np.arange(draws)
    for row, target in zip(found, targets, strict=True):
        reached = values <= target
        some = np.flatnonzero(reached.any(axis=0))
        last = reached.argmax(axis=0)
        low, high = grid[np.maximum(last - 1, 0)], grid[last]
        for _ in range(_ROUNDS):
            inside = low + (high - low) * np.linspace(0, 1, _PARTS + 1)[:, None]
            at = loss(inside)
            part = np.maximum((at <= target).argmax(axis=0), 1)
            low, high = inside[part - 1, each], inside[part, each]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = (at[part - 1, each] - target) / (at[part - 1, each] - at[part, each])
        # The first budget of the grid may reach the target, and the loss may be infinite before it.
        share = np.where(np.isfinite(share), np.clip(share, 0, 1), 1.0)
        row[some] = (low + share * (high - low))[some]
    return found


@dataclass(frozen=True, eq=False)
class StrategyCurve:
    """The chosen strategies of one student in one scenario as functions of the budget.

    Between neighboring budgets of a grid, size and tokens of the teacher are interpolated on a log scale. Where the strategy of one of
    the neighbors is better than what lies between them, as it is for existing teachers, the curve jumps from one to the other.

    Parameters
    ----------
    problem : Problem
        One student and scenario.
    losses : Losses
    charges : Charges
    nodes : (node,) array
        Logarithms of budgets.
    params, tokens : (node,) arrays
        Logarithms of the teacher's parameters and tokens; NaN if no strategy fits the budget.
    index : (node,) array of int
        Positions of existing teachers; empty for new ones.
    jumps : (node - 1,) array
        Where the strategy jumps, NaN where it is interpolated.
    teachers : Teachers, optional
    """

    problem: Problem
    losses: Losses
    charges: Charges
    nodes: np.ndarray
    params: np.ndarray
    tokens: np.ndarray
    index: np.ndarray
    jumps: np.ndarray
    teachers: Teachers | None

    @classmethod
    def of(cls, draws: Draws, problem: Problem, nodes: np.ndarray, threads: int | None) -> StrategyCurve:
        """Find the strategies of one student and scenario at some budgets."""
        found = solve_piece(CHOSEN, draws, problem.part(0, 0, np.exp(nodes)), threads)
        params, tokens = (np.log(found[name][0, 0]) for name in ("teacher_params", "teacher_tokens"))
        teachers = None if problem.teachers is None else Teachers.of(problem.teachers, draws.n_draws)
        index = np.empty(0, int) if teachers is None else found["teacher_index"][0, 0]
        nowhere = np.full(nodes.size - 1, np.nan)
        own = (problem, Losses.of(draws, problem), problem.charges(0, 0), nodes, params, tokens, index)
        return cls(*own, cls(*own, nowhere, teachers)._jumps(), teachers)

    def _jumps(self) -> np.ndarray:
        # Below the smallest budget with a strategy, that one applies; what it cannot pay for has no tokens.
        found = np.where(np.isnan(self.params[:-1]), -np.inf, np.nan)
        left = np.flatnonzero(~np.isnan(self.params[:-1] + self.params[1:]))

        def mean(x: np.ndarray, place: np.ndarray, share: float) -> np.ndarray:
            return self.law_loss(x[:, None], place[:, None], np.full((place.size, 1), share)).mean(axis=-1)

        if self.teachers is None:
            middle = (self.nodes[left] + self.nodes[left + 1]) / 2
            ends = np.minimum(mean(middle, left, 0.0), mean(middle, left, 1.0))
            left = left[ends < mean(middle, left, 0.5) - _TIE]
        else:
            left = left[self.index[left] != self.index[left + 1]]
        found[left] = find_roots(
            lambda x, place: mean(x, place, 0.0) - mean(x, place, 1.0),
            self.nodes[left],
            self.nodes[left + 1],
            left,
            _TOLERANCE,
        )
        return found

    def strategy(self, x: np.ndarray, place: Any = None, share: Any = None) -> dict[str, np.ndarray]:
        """Return the strategies at the logarithms of budgets, (m, 1) or (m, n_draws): teacher_loss is (m, n_draws).

        Parameters
        ----------
        x : ndarray
        place, share : ndarray, optional
            Lower neighbor, and the position between both neighbors from 0 to 1, of the teacher; by default, the position of the budget.
        """
        if place is None:
            place = np.clip(np.searchsorted(self.nodes, x, side="right") - 1, 0, self.nodes.size - 2)
            jump = self.jumps[place]
            share = (x - self.nodes[place]) / (self.nodes[place + 1] - self.nodes[place])
            share = np.where(np.isnan(jump), np.clip(share, 0, 1), x >= jump)
        with np.errstate(all="ignore"):
            params, tokens = (
                np.exp(np.where(share == 0, low, np.where(share == 1, high, low + share * (high - low))))
                for low, high in ((v[place], v[place + 1]) for v in (self.params, self.tokens))
            )
            flops = forward_flops(params, self.problem.shape)
            own = self.charges.student_tokens(np.exp(x), flops, tokens)
            index = np.full(np.shape(own), -1) if self.teachers is None else self.index[place + (share >= 0.5)]
            if self.teachers is None:
                loss = self.losses.supervised(params, tokens)
            else:
                loss = self.teachers.loss[index, np.arange(self.losses.n_draws)]
        found = {"teacher_params": params, "teacher_tokens": tokens, "student_tokens": own, "teacher_loss": loss}
        return found | {"teacher_index": index}

    def law_loss(self, x: np.ndarray, place: Any = None, share: Any = None) -> np.ndarray:
        """Return the loss of the student on the law's mean curves, (m, n_draws); infinite without a strategy."""
        found = self.strategy(x, place, share)
        with np.errstate(all="ignore"):
            return self.losses.distilled(self.problem.students[0], found["student_tokens"], found["teacher_loss"])

    def loss(self, x: np.ndarray, deviations: Deviations | None) -> np.ndarray:
        """Return the loss of the student at a level of uncertainty, (m, n_draws)."""
        if deviations is None:
            return self.law_loss(x)
        found, size = self.strategy(x), self.problem.students[0]
        own = np.maximum(found["student_tokens"], 1.0)
        with np.errstate(all="ignore"):
            loss = self.losses.distilled(size, found["student_tokens"], found["teacher_loss"])
            return np.asarray(loss + deviations.distilled(size, own, found["teacher_loss"]))


def pretraining_loss(draws: Draws, problem: Problem, deviations: Deviations | None) -> Loss:
    """Return the loss of pretraining the only student of a problem as a function of the logarithm of the budget."""
    losses, size = Losses.of(draws, problem), problem.students[0]

    def loss(x: np.ndarray) -> np.ndarray:
        tokens = np.maximum(tokens_bought(problem, 0, np.exp(x)), 1.0)
        law = losses.supervised(size, tokens)
        return law if deviations is None else np.asarray(law + deviations.pretrained(size, tokens))

    return loss
