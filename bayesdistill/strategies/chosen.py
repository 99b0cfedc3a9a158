"""Chosen strategy: one teacher and split for all draws, with the lowest mean loss.

A teacher has a different loss in every draw, so no curve contains the optimum: size and tokens of the teacher are both free,
and the budget determines D_S. The mean loss is smooth in their logarithms, but it often has a long flat valley of teachers with
similar losses and several local minima. The search therefore uses diverse starting points: strategies with perfect information for
single draws, and minima of a grid over rows and over columns. All descend on a few draws. Candidates that may be optimal, given
the standard error of their differences, descend on more draws, and the remaining ones on all draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from bayesdistill.compute import PUBLISHED_SHAPE, Scenario, Shape, flops_per_token
from bayesdistill.errors import ParameterError
from bayesdistill.law import Draws
from bayesdistill.strategies.charges import Charges
from bayesdistill.strategies.curves import Curves
from bayesdistill.strategies.descent import Box, Points, descend
from bayesdistill.strategies.frontier import Frontier
from bayesdistill.strategies.perfect_information import search
from bayesdistill.strategies.problems import (
    UNLIMITED,
    Bounds,
    Request,
    possible,
    run_all,
    thread_count,
    unlimited_tokens,
)

TIE = 1e-9
"""Nats within which a strategy with perfect information for one of the draws is preferred to any other."""

_AT_ONCE = 32_768  # number of losses that are computed at once
_SINGLE = 16  # number of draws whose strategies with perfect information are starting points
_GRID = 20  # number of teacher sizes, and of teacher tokens, in the grid
_LAST_WIDTH = 0.005  # half width of the stencil on all draws
_APART, _SAME = 0.7, 0.1  # distance between starting points, and between minima
_MOST = 10  # maximum number of starting points of a problem
_DEVIATIONS = 4.0  # standard errors by which a minimum may be worse on some draws and still be evaluated on more
_SLACK = 1e-5  # additional tolerance in nats
_ON_CREASE = 33  # number of points on the crease at the cap on student tokens
_CREASE_WIDTH = 5e-4  # half width of the stencil next to the crease, small enough to find a minimum close to it


@dataclass(frozen=True)
class Stage:
    """Descent on some of the draws: half width of the stencil, and maximum number of steps."""

    draws: int
    width: float
    rounds: int


_STAGES = (Stage(64, 0.1, 8), Stage(256, 0.05, 20))


@dataclass(frozen=True)
class MeanLoss:
    """Mean loss over draws of strategies for one student and scenario.

    Parameters
    ----------
    draws : Draws
    student : float
        Non-embedding parameters.
    charges : Charges
    shape : Shape
    budgets : (n_budgets,) array
        FLOPs.
    """

    draws: Draws
    student: float
    charges: Charges
    shape: Shape
    budgets: np.ndarray

    def thinned(self, count: int) -> MeanLoss:
        """Return the mean over some of the draws, evenly spaced."""
        n = self.draws.n_draws
        index = np.unique(np.linspace(0, n - 1, min(n, count)).round().astype(int))
        return replace(self, draws=self.draws.take(index))

    def student_tokens(self, which: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the student's tokens, (n, k), or (n, 1) if they do not depend on the teacher; see `losses`."""
        flops = flops_per_token(np.exp(x), self.shape)
        return self.charges.student_tokens(self.budgets[which][:, None], flops, np.exp(y))

    def losses(self, which: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses of students and teachers under every draw.

        Parameters
        ----------
        which : (n,) array
            Indices of budgets.
        x, y : (n, k) array
            Logarithms of the teachers' parameters and tokens.

        Returns
        -------
        loss, teacher_loss : (n, k, n_draws) arrays
            Infinite where the student gets less than one token.
        """
        with np.errstate(all="ignore"):
            own = self.student_tokens(which, x, y)[..., None]
            of_teacher = self.draws.supervised_loss(np.exp(x)[..., None], np.exp(y)[..., None])
            loss = self.draws.distilled_loss(self.student, np.maximum(own, 1.0), of_teacher)
            return np.where(own >= 1, loss, np.inf), of_teacher

    def __call__(self, which: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the means (n, k) of `losses`."""
        means = np.empty(x.shape)
        size = max(1, _AT_ONCE // (x.shape[1] * self.draws.n_draws))
        for first in range(0, which.size, size):
            part = slice(first, first + size)
            means[part] = self.losses(which[part], x[part], y[part])[0].mean(axis=-1)
        return means


def chosen_strategies(
    draws: Draws,
    students: Any,
    budgets: Any,
    scenarios: str | Scenario | Sequence[str | Scenario],
    *,
    bounds: Bounds = Bounds(),  # noqa: B008  (frozen)
    shape: Shape = PUBLISHED_SHAPE,
    teachers: Any = None,
    threads: int | None = None,
) -> dict[str, np.ndarray]:
    """Return the chosen strategy, which minimizes the posterior mean of the student's loss.

    Size and tokens of the teacher are both free. If no strategy is better by more than 1e-9 nats than the best of the strategies
    with perfect information for single draws, the latter is returned. With one draw, this is the strategy with perfect information.

    Parameters
    ----------
    draws, students, scenarios, bounds, shape, teachers, threads
        As for `perfect_information_strategies`.
    budgets : (n_budgets,) array
        FLOPs; may be infinite.

    Returns
    -------
    dict of arrays
        teacher_params, teacher_tokens, student_tokens and status, (n_students, n_scenarios, n_budgets), with `teachers` also
        teacher_index; loss and teacher_loss in nats per token under every draw, (..., n_draws).

    Raises
    ------
    ParameterError
        As for `perfect_information_strategies`, or if the budgets differ between draws.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> from bayesdistill.law import LAWS, Draws
    >>> from bayesdistill.strategies import chosen_strategies
    >>> draws = Draws(LAWS["busbridge2025"], {**bd.PUBLISHED, "E": [1.22, 1.24]})
    >>> found = chosen_strategies(draws, [1e9], [1e21], "teacher inference")
    >>> found["loss"].shape, found["teacher_params"].shape
    ((1, 1, 1, 2), (1, 1, 1))
    """
    request = Request.of(draws, students, scenarios, (bounds, shape), teachers)
    spent = np.atleast_1d(np.asarray(budgets, float))
    if spent.ndim != 1:
        raise ParameterError(
            f"A chosen strategy has one budget for all draws. Give budgets of one dimension, got shape {spent.shape}."
        )
    cells = (request.students.size, len(request.scenarios), spent.size)
    out = {name: np.full(cells, np.nan) for name in ("teacher_params", "teacher_tokens", "student_tokens")}
    out |= {name: np.full((*cells, draws.n_draws), np.nan) for name in ("loss", "teacher_loss")}
    if request.teachers is not None:
        out["teacher_index"] = np.full(cells, -1)
    valid = bool(draws.n_draws and draws.valid.all())
    columns = np.flatnonzero(possible(spent, finite=False))
    if request.possible and valid and columns.size:
        solve = _choose_new if request.teachers is None else _choose_existing
        usable = np.minimum(spent[columns], UNLIMITED)
        jobs = [
            partial(solve, request, (a, b), columns, usable, out)
            for a in request.sound_students
            for b in range(len(request.scenarios))
        ]
        run_all(jobs, thread_count(threads))
    out["student_tokens"] = unlimited_tokens(out["student_tokens"], spent, bounds)
    out["status"] = request.status(out, spent, valid)
    return out


def _choose_new(
    request: Request, cell: tuple[int, int], columns: np.ndarray, budgets: np.ndarray, out: dict[str, np.ndarray]
) -> None:
    """Store the strategies with a teacher to be trained, for one student and scenario."""
    mean = MeanLoss(request.draws, *request.charges(*cell), request.shape, budgets)
    best = minimize(mean, request.bounds)
    limits = request.bounds.limits
    params, tokens = np.clip(np.exp(best.x), *limits[:2]), np.clip(np.exp(best.y), *limits[2:])
    x, y = np.log(params)[:, None], np.log(tokens)[:, None]
    where = (*cell, columns[best.which])
    out["teacher_params"][where], out["teacher_tokens"][where] = params, tokens
    out["student_tokens"][where] = np.broadcast_to(mean.student_tokens(best.which, x, y), x.shape)[:, 0]
    for m, column in enumerate(where[2]):
        loss, teacher_loss = mean.losses(best.which[m : m + 1], x[m : m + 1], y[m : m + 1])
        out["loss"][(*cell, column)], out["teacher_loss"][(*cell, column)] = loss[0, 0], teacher_loss[0, 0]


def _choose_existing(
    request: Request, cell: tuple[int, int], columns: np.ndarray, budgets: np.ndarray, out: dict[str, np.ndarray]
) -> None:
    """Store the strategies with one of the existing teachers, for one student and scenario."""
    student, charges = request.charges(*cell)
    teachers = request.teachers
    assert teachers is not None
    for column, budget in zip(columns, budgets, strict=True):
        with np.errstate(all="ignore"):
            tokens = teachers.student_tokens(budget, charges, request.shape)
            losses = teachers.student_losses(request.draws, student, tokens[:, None])
        means = losses.mean(axis=1)
        k = int(means.argmin())
        if not np.isfinite(means[k]):
            continue
        where = (*cell, column)
        out["teacher_index"][where], out["teacher_params"][where] = k, teachers.params[k]
        out["student_tokens"][where] = tokens[k]
        if teachers.tokens is not None:
            out["teacher_tokens"][where] = teachers.tokens[k]
        out["loss"][where], out["teacher_loss"][where] = losses[k], teachers.loss[k]


def minimize(mean: MeanLoss, bounds: Bounds) -> Points:
    """Return the point of the lowest mean loss for every budget that has one."""
    box = Box(*np.log(bounds.limits).tolist())
    few = mean.thinned(_STAGES[0].draws)
    single = Points.of(few, *_best_for_single_draws(mean, bounds))
    points = single.together(Points.of(few, *_minima_of_grid(mean.thinned(_SINGLE), box))).apart(_APART, _MOST)
    for stage in _STAGES:
        some = mean.thinned(stage.draws)
        points = descend(some, Points.of(some, points.which, points.x, points.y), box, stage.width, stage.rounds)
        points = _rivals(some, points.apart(_SAME, _MOST))
        if some.draws.n_draws == mean.draws.n_draws:
            break
    points = descend(mean, Points.of(mean, points.which, points.x, points.y), box, _LAST_WIDTH)
    charges = mean.charges
    if np.isfinite(charges.max_student_tokens) and (charges.delta_lgt or charges.delta_pre):
        points = points.together(_minima_on_crease(mean, few, box)).apart(np.inf, 1)
        points = descend(mean, points, box, _CREASE_WIDTH)
    likely = single.apart(np.inf, 1)
    return _lowest(points, Points.of(mean, likely.which, likely.x, likely.y))


def _lowest(points: Points, preferred: Points) -> Points:
    """Return the lowest point of every problem, or the preferred point if it is as low within TIE."""
    nearly = replace(preferred, value=preferred.value - TIE)
    best = nearly.together(points).apart(np.inf, 1)
    return best.take(np.argsort(best.which))


def _best_for_single_draws(mean: MeanLoss, bounds: Bounds) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the strategies with perfect information for some of the draws: budgets, and the points."""
    draws = mean.thinned(_SINGLE).draws
    frontier = Frontier(bounds, mean.shape, mean.charges, draws)
    found = search(Curves.of(draws, mean.student, frontier, mean.budgets[:, None]))
    which, draw = np.nonzero(np.isfinite(found["loss"]))
    return which, np.log(found["teacher_params"][which, draw]), np.log(found["teacher_tokens"][which, draw])


def _minima_of_grid(mean: MeanLoss, box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return local minima of row and column minima of a grid of teachers.

    The results are the indices of the budgets and the points. Row minima trace a valley along the sizes, and column minima
    trace a valley along the tokens.
    """
    x, y = np.linspace(box.left, box.right, _GRID), np.linspace(box.bottom, box.top, _GRID)
    X, Y = (v.ravel() for v in np.meshgrid(x, y, indexing="ij"))
    n = mean.budgets.size
    every = np.arange(n)
    values = mean(every, np.broadcast_to(X, (n, X.size)), np.broadcast_to(Y, (n, X.size))).reshape(n, _GRID, _GRID)
    chosen = np.zeros(values.shape, bool)
    for axis in (1, 2):
        k = values.argmin(axis=axis, keepdims=True)
        profile = np.take_along_axis(values, k, axis=axis)
        rows = np.pad(profile.reshape(n, _GRID), ((0, 0), (1, 1)), constant_values=np.inf)
        low = (rows[:, :-2] >= rows[:, 1:-1]) & (rows[:, 1:-1] <= rows[:, 2:]) & np.isfinite(rows[:, 1:-1])
        some = np.zeros(values.shape, bool)
        np.put_along_axis(some, k, low.reshape(profile.shape), axis=axis)
        chosen |= some
    which, i, j = np.nonzero(chosen)
    return which, x[i], y[j]


def _minima_on_crease(mean: MeanLoss, few: MeanLoss, box: Box) -> Points:
    """Return the lowest point of every problem on the crease at the cap on student tokens.

    On the crease, the budget buys exactly the cap, and the mean loss has a kink. A descent in two dimensions makes little
    progress along it.
    """

    def along(function: MeanLoss, which: np.ndarray, t: np.ndarray, _: np.ndarray) -> np.ndarray:
        return function(which, *_on_crease(mean, box, which, t))

    line, n = Box(0.0, 1.0, 0.0, 0.0), mean.budgets.size
    t = np.broadcast_to(np.linspace(0.0, 1.0, _ON_CREASE), (n, _ON_CREASE))
    padded = np.pad(along(few, np.arange(n), t, t), ((0, 0), (1, 1)), constant_values=np.inf)
    low = (padded[:, :-2] > padded[:, 1:-1]) & (padded[:, 1:-1] <= padded[:, 2:])
    which, k = np.nonzero(low)
    points = Points.of(partial(along, few), which, t[which, k], np.zeros(which.size))
    points = descend(partial(along, few), points, line, 1 / _ON_CREASE).apart(0.01, 2)
    points = Points.of(partial(along, mean), points.which, points.x, points.y)
    points = descend(partial(along, mean), points, line, 0.1 / _ON_CREASE).apart(np.inf, 1)
    x, y = _on_crease(mean, box, points.which, points.x[:, None])
    return Points.of(mean, points.which, x[:, 0], y[:, 0])


def _on_crease(mean: MeanLoss, box: Box, which: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the teachers (n, k) at t on the crease of budgets (n,), or the nearest in the box."""
    charges, budget = mean.charges, mean.budgets[which][:, None]
    if charges.delta_pre:
        x = box.left + t * (box.right - box.left)
        flops = flops_per_token(np.exp(x), mean.shape)
        left = budget - charges.per_token(flops) * charges.max_student_tokens
        y = np.log(np.maximum(left, 1e-300)) - np.log(3 * charges.delta_pre * flops)
        return x, np.clip(y, box.bottom, box.top)
    # Without a charge for pretraining, only the teacher's size matters; find it by bisection.
    low, high = np.full(budget.shape, box.left), np.full(budget.shape, box.right)
    for _ in range(60):
        middle = (low + high) / 2
        cheap = charges.per_token(flops_per_token(np.exp(middle), mean.shape)) * charges.max_student_tokens < budget
        low, high = np.where(cheap, middle, low), np.where(cheap, high, middle)
    return np.broadcast_to(low, t.shape), box.bottom + t * (box.top - box.bottom)


def _rivals(mean: MeanLoss, points: Points) -> Points:
    """Return the points that may be the lowest of their problem on all draws.

    The differences of losses vary between draws. Their standard error bounds how much lower the mean of another point may be
    on all draws.
    """
    keep = np.zeros(points.which.size, bool)
    for problem in np.unique(points.which):
        m = np.flatnonzero(points.which == problem)
        if m.size > 1:
            losses, _ = mean.losses(points.which[m], points.x[m, None], points.y[m, None])
            difference = losses[:, 0] - losses[points.value[m].argmin(), 0]
            error = difference.std(axis=-1) / np.sqrt(mean.draws.n_draws)
            m = m[difference.mean(axis=-1) <= _DEVIATIONS * error + _SLACK]
        keep[m] = True
    return points.take(np.flatnonzero(keep))
