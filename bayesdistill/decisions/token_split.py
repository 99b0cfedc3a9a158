"""Split of one budget and choice of teacher for a family of students: the search behind `family_plan`.

For a given teacher and assignment, the split is a convex problem: at the optimum, the marginal loss reduction per FLOP is the
same for all students. Curves of loss against tokens are tabulated once per teacher; the spending at every price then determines the
split of every assignment. The teacher is searched on a grid that is refined repeatedly.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesdistill.compute import Scenario, Shape, forward_flops, teacher_cost
from bayesdistill.decisions.reductions import lagrange
from bayesdistill.law import Draws
from bayesdistill.strategies import Bounds

FEWEST_TOKENS = 1e6
_POINTS = 48  # points per curve of loss against tokens
_PRICES = 256  # number of values of lambda
_COARSE, _FINE, _ROUNDS = 17, 5, 7
SEARCH_DRAWS = 64


@dataclass(frozen=True)
class Family:
    """Students, their costs, and the bounds on their training.

    Parameters
    ----------
    sizes, counts, weights : ndarray
        Parameters of each student size, number of students, and weight in the family's loss (sum 1).
    budget : float
        FLOPs for the whole family.
    scenario : Scenario
        Charged fractions of the teacher's inference and pretraining.
    bounds : Bounds
    shape : Shape
    """

    sizes: np.ndarray
    counts: np.ndarray
    weights: np.ndarray
    budget: float
    scenario: Scenario
    bounds: Bounds
    shape: Shape


@dataclass(frozen=True)
class Teacher:
    """Candidate teacher: size, tokens, and loss in each draw (n_draws,)."""

    params: float
    tokens: float
    loss: np.ndarray
    index: int = -1


@dataclass(frozen=True)
class Choice:
    """Assignment with its teacher and split; tokens are NaN if the budget is too small."""

    distilled: np.ndarray
    teacher: Teacher | None
    tokens: np.ndarray


def thinned(draws: Draws) -> Draws:
    """Return at most SEARCH_DRAWS of the draws, evenly spaced."""
    n = draws.n_draws
    rows = np.unique(np.linspace(0, n - 1, min(n, SEARCH_DRAWS)).round().astype(int))
    return draws.take(rows)


# Loss curves and splits ---------------------------------------------------------------------------------------------


def student_losses(family: Family, draws: Draws, tokens: np.ndarray, teacher: Teacher | None) -> np.ndarray:
    """Return losses (student, points, n_draws) at tokens (student, points)."""
    size, seen = family.sizes[:, None, None], tokens[..., None]
    if teacher is None:
        return draws.supervised_loss(size, seen)
    return draws.distilled_loss(size, seen, teacher.loss)


def cost_per_token(family: Family, teacher: Teacher | None) -> np.ndarray:
    """Return the FLOPs of one additional token for all students of each size."""
    per_token = 3 * forward_flops(family.sizes, family.shape)
    if teacher is not None:
        per_token = per_token + family.scenario.delta_lgt * forward_flops(teacher.params, family.shape)
    return family.counts * per_token


def fixed_cost(family: Family, teacher: Teacher | None) -> float:
    """Return the FLOPs of the charged fraction of the teacher's pretraining."""
    if teacher is None:
        return 0.0
    return float(teacher_cost(forward_flops(teacher.params, family.shape), teacher.tokens, family.scenario.delta_pre))


def _interpolate(y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolate rows y (student, points) at 0, 1, 2, ... cubically at positions (student, m)."""
    first = np.clip(np.floor(at).astype(int) - 1, 0, y.shape[1] - 4)
    rows = np.arange(y.shape[0])[:, None]
    return lagrange(range(4), [y[rows, first + k] for k in range(4)], at - first)


@dataclass(frozen=True)
class Curves:
    """Mean loss of each student as a function of log tokens, (student, points)."""

    log_tokens: np.ndarray
    loss: np.ndarray
    cost: np.ndarray

    def prices(self, weights: np.ndarray) -> np.ndarray:
        """Return monotone loss reductions per FLOP between points, (student, points - 1)."""
        tokens = np.exp(self.log_tokens)
        fall = weights[:, None] * -np.diff(self.loss, axis=1) / (self.cost[:, None] * np.diff(tokens, axis=1))
        return np.minimum.accumulate(np.maximum(fall, 1e-300), axis=1)

    def at_prices(self, weights: np.ndarray, log_price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return log tokens and loss of each student at each price, (student, prices)."""
        falling = np.log(self.prices(weights))
        n, points = self.log_tokens.shape
        position = np.empty((n, log_price.size))
        # The price between points k and k+1 applies to their midpoint. Below the last price, students get the maximum tokens.
        middle = np.append(np.arange(points - 1) + 0.5, points - 1.0)
        for i in range(n):
            known = np.append(falling[i], falling[i, -1] - 1e-6)
            position[i] = np.interp(-log_price, -known, middle)
        step = (self.log_tokens[:, -1] - self.log_tokens[:, 0]) / (points - 1)
        return self.log_tokens[:, :1] + position * step[:, None], _interpolate(self.loss, position)


def _curves(
    family: Family, draws: Draws, teacher: Teacher | None, low: np.ndarray, high: np.ndarray, points: int = _POINTS
) -> Curves:
    log_tokens = np.linspace(np.log(low), np.log(high), points, axis=1)
    loss = student_losses(family, draws, np.exp(log_tokens), teacher).mean(axis=-1)
    return Curves(log_tokens, loss, cost_per_token(family, teacher))


def _token_range(family: Family, teacher: Teacher | None) -> tuple[np.ndarray, np.ndarray]:
    cost = cost_per_token(family, teacher)
    high = np.minimum(family.budget / cost, family.bounds.max_student_tokens)
    return np.full(cost.size, FEWEST_TOKENS), np.maximum(high, 2 * FEWEST_TOKENS)


def _split_all(
    family: Family, alone: Curves, taught: Curves | None, fixed: float, assignments: np.ndarray
) -> np.ndarray:
    """Return the family loss of every assignment with its best split (NaN if infeasible)."""
    both = [alone] if taught is None else [alone, taught]
    prices = np.concatenate([c.prices(family.weights).ravel() for c in both])
    log_price = np.linspace(np.log(prices.max()), np.log(prices.min()) - 1e-3, _PRICES)
    z = assignments.astype(float)
    spent, value = np.zeros((2, len(assignments), log_price.size))
    for share, curves in zip((1 - z, z), both, strict=False):
        log_tokens, losses = curves.at_prices(family.weights, log_price)
        spent += share @ (curves.cost[:, None] * np.exp(log_tokens))
        value += share @ (family.weights[:, None] * losses)
    available = family.budget - np.where(assignments.any(axis=1), fixed, 0.0)
    result = np.full(len(assignments), np.nan)
    for k in range(len(assignments)):
        if spent[k, 0] <= available[k]:
            result[k] = np.interp(np.log(available[k]), np.log(spent[k]), value[k])
    return result


# The teacher --------------------------------------------------------------------------------------------------------


def _trained(family: Family, draws: Draws, place: Any) -> Teacher:
    """Return a new teacher at log parameters and a position from 0 (the fewest) to 1 (the most tokens) on a log scale."""
    params = float(np.exp(place[0]))
    fewest, most = family.bounds.teacher_tokens(params)
    tokens = float(fewest * (most / fewest) ** place[1])
    return Teacher(params, tokens, draws.supervised_loss(params, tokens))


def _box(family: Family) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.log(family.bounds.teacher_params)
    return np.array([low, 0.0]), np.array([high, 1.0])


def _values(family: Family, draws: Draws, alone: Curves, teacher: Teacher, assignments: np.ndarray) -> np.ndarray:
    """Return the family loss of every assignment with a teacher (NaN if infeasible)."""
    fixed, new = fixed_cost(family, teacher), teacher.index < 0
    if fixed >= family.budget or (new and family.bounds.exclude_losses(teacher.loss.mean())):
        return np.full(len(assignments), np.nan)
    taught = _curves(family, draws, teacher, *_token_range(family, teacher))
    return _split_all(family, alone, taught, fixed, assignments)


Place = tuple[float, float] | int | None
"""Place of a new teacher (see `_trained`), position of an existing one, or None."""


def search(
    family: Family, draws: Draws, assignments: np.ndarray, listed: list[Teacher] | None
) -> tuple[np.ndarray, list[Place]]:
    """Return the best value of every assignment over a grid or list of teachers, and its teacher."""
    alone = _curves(family, draws, None, *_token_range(family, None))
    value = np.full(len(assignments), np.nan)
    value[:1] = _split_all(family, alone, None, 0.0, assignments[:1])
    where: list[Place] = [None] * len(assignments)
    candidates: list[tuple[Place, Teacher]] = []
    if listed is not None:
        candidates = [(k, teacher) for k, teacher in enumerate(listed)]
    else:
        for log_params, tokens in itertools.product(*np.linspace(*_box(family), _COARSE, axis=1).tolist()):
            candidates.append(((log_params, tokens), _trained(family, draws, (log_params, tokens))))
    for place, teacher in candidates:
        found = _values(family, draws, alone, teacher, assignments[1:])
        for k in np.flatnonzero(~np.isnan(found) & ~(value[1:] <= found)):
            value[k + 1], where[k + 1] = found[k], place
    return value, where


def settle_choice(
    family: Family, both: tuple[Draws, Draws], distilled: np.ndarray, place: Place, listed: list[Teacher] | None
) -> Choice:
    """Refine the teacher of one assignment over thinned draws, and compute its split over all draws.

    Parameters
    ----------
    family, distilled, listed
        Distilled students, and existing teachers, if any.
    both : (Draws, Draws)
        All and thinned draws.
    place : Place
        Teacher of this assignment, from `search`.
    """
    draws, thin = both
    if not distilled.any():
        return Choice(distilled, None, _exact_split(family, draws, distilled, None))
    if place is None:
        return Choice(distilled, None, np.full(family.sizes.size, np.nan))
    if isinstance(place, int):
        assert listed is not None
        return Choice(distilled, listed[place], _exact_split(family, draws, distilled, listed[place]))
    alone = _curves(family, thin, None, *_token_range(family, None))
    low, high = _box(family)
    center, half, best = np.array(place), (high - low) / (_COARSE - 1), np.inf
    around = np.array(list(itertools.product(np.linspace(-1, 1, _FINE), repeat=2)))
    for _ in range(_ROUNDS):
        for point in np.clip(center + half * around, low, high):
            found = _values(family, thin, alone, _trained(family, thin, point), distilled[None])[0]
            if found < best:
                best, center = found, point
        half = half / 2
    teacher = _trained(family, draws, center)
    return Choice(distilled, teacher, _exact_split(family, draws, distilled, teacher))


def _exact_split(family: Family, draws: Draws, distilled: np.ndarray, teacher: Teacher | None) -> np.ndarray:
    """Return the tokens of each student that minimize the family's loss over all draws."""
    fixed = fixed_cost(family, teacher) if distilled.any() else 0.0
    available = family.budget - fixed
    cost = np.where(distilled, cost_per_token(family, teacher), cost_per_token(family, None))
    if (cost * FEWEST_TOKENS).sum() > available:
        return np.full(cost.size, np.nan)
    cap = np.maximum(np.minimum(available / cost, family.bounds.max_student_tokens), 2 * FEWEST_TOKENS)
    low, high = np.full(cost.size, FEWEST_TOKENS), cap
    tokens = low
    for _ in range(3):
        curves = _chosen_curves(family, draws, distilled, teacher, low, high)
        tokens = _spend(curves, family.weights, available)
        # Zoom in to six grid steps on either side.
        reach = np.exp(6 * (curves.log_tokens[:, 1] - curves.log_tokens[:, 0]))
        low, high = np.maximum(tokens / reach, FEWEST_TOKENS), np.minimum(tokens * reach, cap)
        high = np.maximum(high, low * (1 + 1e-9))
    # Distribute the rounding remainder among students below their cap.
    open_ = tokens < cap * (1 - 1e-12)
    if open_.any():
        rest = available - (cost * tokens)[~open_].sum()
        tokens = np.where(open_, tokens * rest / (cost * tokens)[open_].sum(), tokens)
    return np.minimum(tokens, cap)


def _chosen_curves(
    family: Family, draws: Draws, distilled: np.ndarray, teacher: Teacher | None, low: np.ndarray, high: np.ndarray
) -> Curves:
    alone = _curves(family, draws, None, low, high)
    if teacher is None or not distilled.any():
        return alone
    taught = _curves(family, draws, teacher, low, high)
    pick = distilled[:, None]
    return Curves(
        alone.log_tokens, np.where(pick, taught.loss, alone.loss), np.where(distilled, taught.cost, alone.cost)
    )


def _spend(curves: Curves, weights: np.ndarray, available: float) -> np.ndarray:
    """Return the tokens at the price at which the whole budget is spent."""
    prices = np.log(curves.prices(weights))
    low, high = prices.min() - 1.0, prices.max()
    for _ in range(100):
        middle = (low + high) / 2
        log_tokens, _ = curves.at_prices(weights, np.array([middle]))
        if (curves.cost * np.exp(log_tokens[:, 0])).sum() > available:
            low = middle
        else:
            high = middle
    log_tokens, _ = curves.at_prices(weights, np.array([high]))
    return np.exp(log_tokens[:, 0])
