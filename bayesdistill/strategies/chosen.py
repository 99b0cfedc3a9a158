"""Chosen strategy: one teacher and split for all draws, with the lowest mean loss.

A teacher has a different loss in every draw, so no curve contains the optimum: size and tokens of the teacher are both free,
and the budget determines D_S. The mean loss is smooth in their logarithms, but it often has a long flat valley of teachers with
similar losses and several local minima. The search therefore uses diverse starting points: strategies with perfect information for
single draws, and minima of a grid over rows and over columns. All descend on a few draws. Candidates that may be optimal, given
the standard error of their differences, descend on more draws, and the remaining ones on all draws.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from bayesdistill.compute import forward_flops
from bayesdistill.errors import ParameterError
from bayesdistill.law import Draws
from bayesdistill.strategies.curves import Curves
from bayesdistill.strategies.descent import Box, Points, descend
from bayesdistill.strategies.existing import Teachers
from bayesdistill.strategies.losses import Losses
from bayesdistill.strategies.perfect_information import Cell, search
from bayesdistill.strategies.problems import Problem, run_all, thread_count, unlimited_tokens
from bayesdistill.strategies.region import Region, some_teacher
from bayesdistill.strategies.targets import budgets_for_targets

TIE = 1e-9
"""Nats within which a strategy with perfect information for one of the draws is preferred to any other."""

_AT_ONCE = 65_536  # number of losses that are computed at once
_SINGLE = 16  # number of draws whose strategies with perfect information are starting points
_GRID = 20  # number of teacher sizes, and of teacher tokens, in the grid
_LAST_WIDTH = 0.005  # half width of the stencil on all draws
_APART, _SAME = 0.7, 0.1  # distance between starting points, and between minima
_MOST = 10  # maximum number of starting points of a problem
_DEVIATIONS = 4.0  # standard errors by which a minimum may be worse on some draws and still be evaluated on more
_SLACK = 1e-5  # additional tolerance in nats
_ON_CURVE = 33  # number of points on the crease at the cap on student tokens, and on an edge of the region
_CREASE_WIDTH = 5e-4  # half width of the stencil next to the crease, small enough to find a minimum close to it


@dataclass(frozen=True)
class Stage:
    """Descent on some of the draws: half width of the stencil, and maximum number of steps."""

    draws: int
    width: float
    rounds: int


_STAGES = (Stage(64, 0.1, 3), Stage(64, 0.1, 5), Stage(256, 0.01, 20))


@dataclass(frozen=True)
class MeanLoss:
    """Mean loss over draws of strategies for one student and scenario.

    Parameters
    ----------
    cell : Cell
    region : Region
        Teachers that are allowed.
    budgets : (n_budgets,) array
        FLOPs of training.
    """

    cell: Cell
    region: Region
    budgets: np.ndarray

    @property
    def n_draws(self) -> int:
        """Number of draws."""
        return self.cell.losses.n_draws

    def thinned(self, count: int) -> MeanLoss:
        """Return the mean over some of the draws, evenly spaced."""
        index = np.unique(np.linspace(0, self.n_draws - 1, min(self.n_draws, count)).round().astype(int))
        return replace(self, cell=replace(self.cell, losses=self.cell.losses.take(index)))

    def student_tokens(self, which: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the student's tokens, (n, k), or (n, 1) if they do not depend on the teacher; see `losses`."""
        flops = forward_flops(np.exp(x), self.cell.problem.shape)
        return self.cell.charges.student_tokens(self.budgets[which][:, None], flops, np.exp(y))

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
            of_teacher = self.cell.losses.supervised(np.exp(x)[..., None], np.exp(y)[..., None])
            return self.cell.losses.distilled(self.cell.size, own, of_teacher), of_teacher

    def __call__(self, which: np.ndarray, x: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Return the means (n, k) of `losses` in the coordinates of the region."""
        means, y = np.empty(x.shape), self.region.log_tokens(x, place)
        size = max(1, _AT_ONCE // (x.shape[1] * self.n_draws))
        for first in range(0, which.size, size):
            part = slice(first, first + size)
            means[part] = self.losses(which[part], x[part], y[part])[0].mean(axis=-1)
        return means


def chosen_strategies(draws: Draws, problem: Problem, threads: int | None = None) -> dict[str, np.ndarray]:
    """Return the chosen strategy, which minimizes the posterior mean of the student's loss.

    Size and tokens of the teacher are both free. If no strategy is better by more than 1e-9 nats than the best of the strategies
    with perfect information for single draws, this strategy is returned. With one draw, this is the strategy with perfect information.

    Parameters
    ----------
    draws : Draws
    problem : Problem
        With budgets (n_budgets,), equal for all draws. With target losses, the strategy reaches them on average with the smallest
        budget.
    threads : int, optional
        As for `perfect_information_strategies`.

    Returns
    -------
    dict of arrays
        teacher_params, teacher_tokens, student_tokens and status, (n_students, n_scenarios, n_budgets), with existing teachers
        also teacher_index, with target losses also budget; loss and teacher_loss in nats per token under every draw,
        (..., n_draws).

    Raises
    ------
    ParameterError
        As for `perfect_information_strategies`, or if the budgets differ between draws.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> from bayesdistill.law import LAWS, Draws
    >>> from bayesdistill.strategies import Problem, chosen_strategies
    >>> draws = Draws(LAWS["busbridge2025"], {**bd.PUBLISHED, "E": [1.22, 1.24]})
    >>> found = chosen_strategies(draws, Problem([1e9], [1e21], "teacher inference"))
    >>> found["loss"].shape, found["teacher_params"].shape
    ((1, 1, 1, 2), (1, 1, 1))
    """
    if problem.targets is not None:
        return budgets_for_targets(chosen_strategies, draws, problem, threads)
    spent, grid = problem.budgets, problem.shape_of_grid
    if spent.ndim != 1:
        raise ParameterError(
            f"A chosen strategy has one budget for all draws. Give budgets of one dimension, got shape {spent.shape}."
        )
    out = {name: np.full(grid, np.nan) for name in ("teacher_params", "teacher_tokens", "student_tokens")}
    out |= {name: np.full((*grid, draws.n_draws), np.nan) for name in ("loss", "teacher_loss")}
    teachers = None if problem.teachers is None else Teachers.of(problem.teachers, draws.n_draws)
    if teachers is not None:
        out["teacher_index"] = np.full(grid, -1)
    losses = Losses.of(draws, problem)
    valid = bool(draws.n_draws and draws.valid.all())
    possible = valid and problem.possible
    if teachers is None:
        possible = possible and some_teacher(losses, problem.bounds)

    def solve(region: Region | None, wanted: np.ndarray) -> None:
        jobs = []
        for a in problem.sound_students if possible else ():
            budgets = problem.training_budgets(a, spent)
            for b in range(grid[1]):
                columns = np.flatnonzero(np.isfinite(budgets) & wanted[a, b])
                cell = Cell(problem, a, b, losses, teachers)
                choose = _choose_existing if region is None else partial(_choose_new, region=region)
                jobs += [partial(choose, cell, columns, budgets[columns], out)] if columns.size else []
        run_all(jobs, thread_count(threads))

    region = Region.of(losses, problem.bounds.of_size_and_tokens) if possible and teachers is None else None
    solve(region, np.full(grid, True))
    # The bounds on the teacher's loss rarely matter, and their region takes time.
    if region is not None and problem.bounds.limit_losses:
        outside = problem.bounds.exclude_losses(out["teacher_loss"].mean(axis=-1))
        if outside.any():
            for values in out.values():
                values[outside] = np.nan
            solve(Region.of(losses, problem.bounds), outside)
    out["student_tokens"] = unlimited_tokens(out["student_tokens"], spent, problem.bounds)
    usable = teachers is None or bool(teachers.usable.all(axis=1).any())
    out["status"] = problem.status(out, valid, possible, usable)
    return out


def _choose_new(
    cell: Cell, columns: np.ndarray, budgets: np.ndarray, out: dict[str, np.ndarray], *, region: Region
) -> None:
    """Store the strategies with a teacher to be trained, for one student and scenario."""
    mean = MeanLoss(cell, region, budgets)
    best = minimize(mean)
    params = np.clip(np.exp(best.x), *cell.problem.bounds.teacher_params)
    log_tokens = region.settle(cell.losses, np.log(params), region.log_tokens(best.x, best.y))
    tokens = np.clip(np.exp(log_tokens), *cell.problem.bounds.teacher_tokens(params))
    x, y = np.log(params)[:, None], np.log(tokens)[:, None]
    where = (cell.student, cell.scene, columns[best.which])
    out["teacher_params"][where], out["teacher_tokens"][where] = params, tokens
    out["student_tokens"][where] = np.broadcast_to(mean.student_tokens(best.which, x, y), x.shape)[:, 0]
    for m, column in enumerate(where[2]):
        loss, teacher_loss = mean.losses(best.which[m : m + 1], x[m : m + 1], y[m : m + 1])
        out["loss"][(*where[:2], column)], out["teacher_loss"][(*where[:2], column)] = loss[0, 0], teacher_loss[0, 0]


def _choose_existing(cell: Cell, columns: np.ndarray, budgets: np.ndarray, out: dict[str, np.ndarray]) -> None:
    """Store the strategies with one of the existing teachers, for one student and scenario."""
    teachers = cell.teachers
    assert teachers is not None
    for column, budget in zip(columns, budgets, strict=True):
        with np.errstate(all="ignore"):
            tokens = teachers.student_tokens(budget, cell.charges, cell.problem.shape)
            losses = teachers.student_losses(cell.losses, cell.size, tokens[:, None])
        means = losses.mean(axis=1)
        k = int(means.argmin())
        if not np.isfinite(means[k]):
            continue
        where = (cell.student, cell.scene, column)
        out["teacher_index"][where], out["teacher_params"][where] = k, teachers.params[k]
        out["student_tokens"][where] = tokens[k]
        if teachers.tokens is not None:
            out["teacher_tokens"][where] = teachers.tokens[k]
        out["loss"][where], out["teacher_loss"][where] = losses[k], teachers.loss[k]


def minimize(mean: MeanLoss) -> Points:
    """Return the point of the lowest mean loss for every budget that has one."""
    region, charges = mean.region, mean.cell.charges
    few = mean.thinned(_STAGES[0].draws)
    single = Points.of(few, *_best_for_single_draws(mean))
    points = single.together(Points.of(few, *_minima_of_grid(mean.thinned(_SINGLE)))).apart(_APART, _MOST)
    for stage in _STAGES:
        some = mean.thinned(stage.draws)
        points = descend(some, Points.of(some, points.which, points.x, points.y), region.box, stage.width, stage.rounds)
        points = _rivals(some, points.apart(_SAME, _MOST))
        if some.n_draws == mean.n_draws:
            break
    points = descend(mean, Points.of(mean, points.which, points.x, points.y), region.box, _LAST_WIDTH)
    if region.bounds.limit_losses:  # where an edge is steep, its interpolation is not exact
        y = region.settle(mean.cell.losses, points.x, region.log_tokens(points.x, points.y))
        points = Points.of(mean, points.which, points.x, region.place(points.x, y))
    if np.isfinite(charges.max_student_tokens) and (charges.delta_lgt or charges.delta_pre):
        points = points.together(_minima_on_crease(mean, few))
        points = descend(mean, points.apart(np.inf, 1), region.box, _CREASE_WIDTH)
    if region.corners.size:
        points = _beside_corners(mean, few, points.apart(np.inf, 1))
    likely = single.apart(np.inf, 1)
    return _lowest(points, Points.of(mean, likely.which, likely.x, likely.y))


def _lowest(points: Points, preferred: Points) -> Points:
    """Return the lowest point of every problem, or the preferred point if it is as low within TIE."""
    nearly = replace(preferred, value=preferred.value - TIE)
    best = nearly.together(points).apart(np.inf, 1)
    return best.take(np.argsort(best.which))


def _best_for_single_draws(mean: MeanLoss) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the strategies with perfect information for some of the draws: budgets, and the points."""
    cell = mean.thinned(_SINGLE).cell
    frontier = replace(cell.frontier, bounds=mean.region.bounds)
    found = search(Curves.of(cell.size, frontier, mean.budgets[:, None]))
    which, draw = np.nonzero(np.isfinite(found["loss"]))
    x = np.clip(np.log(found["teacher_params"][which, draw]), mean.region.box.left, mean.region.box.right)
    return which, x, mean.region.place(x, np.log(found["teacher_tokens"][which, draw]))


def _minima_of_grid(mean: MeanLoss) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return local minima of row and column minima of a grid of teachers.

    The results are the indices of the budgets and the points. Row minima trace a valley along the sizes, and column minima
    trace a valley along the tokens.
    """
    box = mean.region.box
    X, share = np.meshgrid(np.linspace(box.left, box.right, _GRID), np.linspace(0, 1, _GRID), indexing="ij")
    Y = box.bottom + share * (box.top - box.bottom)
    n = mean.budgets.size
    x, y = (np.broadcast_to(v.ravel(), (n, X.size)) for v in (X, Y))
    values = mean(np.arange(n), x, y).reshape(n, _GRID, _GRID)
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
    return which, X[i, j], Y[i, j]


def _minima_on_crease(mean: MeanLoss, few: MeanLoss) -> Points:
    """Return the lowest point of every problem on the curve of teachers on which the mean loss has a kink.

    A descent in two dimensions makes little progress along such a curve.
    """

    def along(function: MeanLoss, which: np.ndarray, t: np.ndarray, _: np.ndarray) -> np.ndarray:
        return function(which, *_crease(mean, which, t))

    line, n = Box(0.0, 1.0, 0.0, 0.0), mean.budgets.size
    t = np.broadcast_to(np.linspace(0.0, 1.0, _ON_CURVE), (n, _ON_CURVE))
    padded = np.pad(along(few, np.arange(n), t, t), ((0, 0), (1, 1)), constant_values=np.inf)
    low = (padded[:, :-2] > padded[:, 1:-1]) & (padded[:, 1:-1] <= padded[:, 2:])
    which, k = np.nonzero(low)
    points = Points.of(partial(along, few), which, t[which, k], np.zeros(which.size))
    points = descend(partial(along, few), points, line, 1 / _ON_CURVE).apart(0.01, 2)
    points = Points.of(partial(along, mean), points.which, points.x, points.y)
    points = descend(partial(along, mean), points, line, 0.1 / _ON_CURVE).apart(np.inf, 1)
    x, y = _crease(mean, points.which, points.x[:, None])
    return Points.of(mean, points.which, x[:, 0], y[:, 0])


def _beside_corners(mean: MeanLoss, few: MeanLoss, points: Points) -> Points:
    """Return the lowest point of every problem, of these and of those at and near the corners of the region.

    A stencil that contains a corner has a kink, so the descent may stop short of the minimum.
    """
    x, n, box = mean.region.corners, mean.budgets.size, mean.region.box
    y = np.repeat([box.bottom, box.top], x.size)
    corners = Points.of(few, np.repeat(np.arange(n), y.size), np.tile(x, 2 * n), np.tile(y, n))
    corners = corners.take(np.flatnonzero(np.isfinite(corners.value)))
    rivals = _rivals(few, corners.together(Points.of(few, points.which, points.x, points.y)))
    points = points.together(Points.of(mean, rivals.which, rivals.x, rivals.y)).apart(np.inf, 1)
    near = (abs(points.x[:, None] - x) < 2 * _LAST_WIDTH).any(axis=1)
    return points.together(descend(mean, points.take(np.flatnonzero(near)), box, _CREASE_WIDTH)).apart(np.inf, 1)


def _crease(mean: MeanLoss, which: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the teachers (n, k) that leave exactly the cap on student tokens, or the nearest allowed, at t for budgets (n,).

    They are in the coordinates of the region; t goes from 0 to 1.
    """
    charges, budget, box = mean.cell.charges, mean.budgets[which][:, None], mean.region.box
    shape = mean.cell.problem.shape
    if charges.delta_pre:
        x = box.left + t * (box.right - box.left)
        flops = forward_flops(np.exp(x), shape)
        left = budget - charges.per_token(flops) * charges.max_student_tokens
        y = np.log(np.maximum(left, 1e-300)) - np.log(3 * charges.delta_pre * flops)
        return x, mean.region.place(x, y)
    # Without a charge for pretraining, only the teacher's size matters; find it by bisection.
    low, high = np.full(budget.shape, box.left), np.full(budget.shape, box.right)
    for _ in range(60):
        middle = (low + high) / 2
        cheap = charges.per_token(forward_flops(np.exp(middle), shape)) * charges.max_student_tokens < budget
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
            x = points.x[m, None]
            losses, _ = mean.losses(points.which[m], x, mean.region.log_tokens(x, points.y[m, None]))
            difference = losses[:, 0] - losses[points.value[m].argmin(), 0]
            error = difference.std(axis=-1) / np.sqrt(mean.n_draws)
            m = m[difference.mean(axis=-1) <= _DEVIATIONS * error + _SLACK]
        keep[m] = True
    return points.take(np.flatnonzero(keep))
