"""Strategy with perfect information, which minimizes the loss separately for every posterior draw.

Every problem (student, scenario, budget, draw) is a function of one variable, the position on its curve (see `curves`). A grid
shows the local minima. A quartic through five points, then a cubic model of three close points, locate the lowest minimum.
Intervals that may not be smooth, other local minima that may be lower, and cells that may contain one are subdivided and then
minimized without derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize.elementwise import find_minimum

from bayesdistill.law import Draws
from bayesdistill.strategies.charges import Charges
from bayesdistill.strategies.curves import LAST, Curves, Strategies
from bayesdistill.strategies.existing import Teachers
from bayesdistill.strategies.frontier import Frontier, teacher_exists
from bayesdistill.strategies.losses import Losses
from bayesdistill.strategies.problems import Problem, budgets_per_draw, run_all, thread_count, unlimited_tokens
from bayesdistill.strategies.roots import find_roots
from bayesdistill.strategies.targets import budgets_for_targets

_PROBLEMS = 16_384  # number of problems solved together; with smaller arrays threads wait for each other
_AT_ONCE = 65_536  # number of losses computed at once; larger arrays exceed the processor's cache
_STEP = 0.05  # distance of the three points of a cubic model, relative to the spacing of the grid
_CLOSE = np.log(5)  # log ratio of budgets whose strategies are near each other, as a rule
_NEAR = np.linspace(
    -0.6, 0.6, 5
)  # positions relative to the expected one at which a minimum between neighbors is searched
_NO_GAIN = 1e-12  # nats
_NEGLIGIBLE = 1e-10  # nats; minima that are lower by less are ignored
_EVEN = 4.0  # maximum ratio of second differences of a loss that counts as evenly convex
_FALL = 3.0  # maximum decrease of the student's loss between two points, relative to the decrease of the teacher's loss
_FRACTIONS = np.arange(1, 5) / 5  # search positions within a cell that may contain a minimum
_INNER = 17  # number of points in a subdivided interval
_TOO_MUCH = 1e6  # nats; replaces infinite losses, which would stop the minimizer


@dataclass(frozen=True)
class Intervals:
    """Intervals of s that may contain a lower minimum: problem row, column, and two ends."""

    row: np.ndarray
    column: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def together(cls, *parts: Intervals) -> Intervals:
        """Concatenate several sets of intervals."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def take(self, index: Any) -> Intervals:
        """Return some of the intervals."""
        return Intervals(self.row[index], self.column[index], self.low[index], self.high[index])


def perfect_information_strategies(draws: Draws, problem: Problem, threads: int | None = None) -> dict[str, np.ndarray]:
    """Return the strategy with perfect information, which minimizes the student's loss in every draw.

    Parameters
    ----------
    draws : Draws
        A law and draws of its symbols.
    problem : Problem
        With target losses, the strategy minimizes the budget that reaches them.
    threads : int, optional
        Number of threads; by default one per processor.

    Returns
    -------
    dict of (n_students, n_scenarios, n_budgets, n_draws) arrays
        loss and teacher_loss in nats per token, teacher_params, teacher_tokens, student_tokens; status, an index into STATUS;
        with existing teachers also teacher_index, -1 where none is possible; with target losses also budget in FLOPs. NaN where
        the status is a failure.

    Raises
    ------
    ParameterError
        If shapes do not match, or a scenario has an unknown name. The status of a problem reports why it has no strategy.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> from bayesdistill.law import LAWS, Draws
    >>> from bayesdistill.strategies import Problem, perfect_information_strategies
    >>> draws = Draws(LAWS["busbridge2025"], bd.PUBLISHED)
    >>> found = perfect_information_strategies(draws, Problem([1e9], [1e21], "teacher inference"))
    >>> print(f"{found['loss'].item():.3f} {found['teacher_params'].item():.1e}")
    2.211 1.3e+09
    """
    if problem.targets is not None:
        return budgets_for_targets(perfect_information_strategies, draws, problem, threads)
    spent = budgets_per_draw(problem.budgets, draws.n_draws)
    grid = (*problem.shape_of_grid, draws.n_draws)
    out = {field.name: np.full(grid, np.nan) for field in fields(Strategies) if field.name != "position"}
    teachers = None if problem.teachers is None else Teachers.of(problem.teachers, draws.n_draws)
    if teachers is not None:
        out["teacher_index"] = np.full(grid, -1)
    losses, jobs = Losses.of(draws, problem), []
    for a in problem.sound_students if problem.possible else ():
        budgets = problem.training_budgets(a, spent)
        usable = np.isfinite(budgets)
        rows, columns = np.flatnonzero(usable.any(axis=1)), np.flatnonzero(draws.valid & usable.any(axis=0))
        width = max(32, _PROBLEMS // max(rows.size, 1))
        for part in (columns[i : i + width] for i in range(0, columns.size, width)):
            for b in range(len(problem.scenarios)):
                cell = Cell(problem, a, b, losses.take(part), None if teachers is None else teachers.for_draws(part))
                jobs.append(partial(_solve, cell, budgets[np.ix_(rows, part)], (a, b, rows[:, None], part), out))
    run_all(jobs, thread_count(threads))
    out["student_tokens"] = unlimited_tokens(out["student_tokens"], spent, problem.bounds)
    known = True if teachers is None else teachers.usable.any(axis=0)
    out["status"] = problem.status(out, draws.valid, teacher_exists(losses, problem), known)
    return out


@dataclass(frozen=True)
class Cell:
    """One student and scenario of a problem, under some of the draws."""

    problem: Problem
    student: int
    scene: int
    losses: Losses
    teachers: Teachers | None

    @property
    def size(self) -> float:
        """Non-embedding parameters of the student."""
        return float(self.problem.students[self.student])

    @property
    def charges(self) -> Charges:
        """Costs of the student."""
        return self.problem.charges(self.student, self.scene)

    @property
    def frontier(self) -> Frontier:
        """Efficient teachers."""
        return Frontier(self.problem.bounds, self.problem.shape, self.charges, self.losses)


def _solve(cell: Cell, budgets: np.ndarray, where: tuple[Any, ...], out: dict[str, np.ndarray]) -> None:
    """Store the strategies of a cell for some budgets in `out`."""
    if cell.teachers is not None:
        for row, spent in zip(where[2].ravel(), budgets, strict=True):
            for name, values in _best_existing(cell, cell.teachers, spent).items():
                out[name][(*where[:2], row, where[3])] = values
        return
    same, frontier = (budgets == budgets[:, :1]).all(), cell.frontier
    bounds = frontier.bounds
    free = replace(frontier, bounds=bounds.of_size_and_tokens)
    found = search(Curves.of(cell.size, free, budgets[:, :1] if same else budgets))
    # The bounds on the teacher's loss rarely matter, and the ends of their curves take time.
    row, column = np.nonzero(np.isfinite(found["loss"]) & bounds.exclude_losses(found["teacher_loss"]))
    for first in range(0, row.size, _PROBLEMS):
        i, j = row[first : first + _PROBLEMS], column[first : first + _PROBLEMS]
        again = search(Curves.of(cell.size, replace(frontier, losses=cell.losses.take(j)), budgets[i, j][None]))
        for name in found:
            found[name][i, j] = again[name][0]
    nothing = ~np.isfinite(found["loss"])
    for name in out.keys() & found.keys():
        found[name][nothing] = np.nan
        out[name][where] = found[name]


def _best_existing(cell: Cell, teachers: Teachers, spent: np.ndarray) -> dict[str, np.ndarray]:
    """Return the strategies with the best of the existing teachers for budgets (n_draws,); ties go to the first."""
    with np.errstate(all="ignore"):
        tokens = teachers.student_tokens(spent, cell.charges, cell.problem.shape)
        losses = teachers.student_losses(cell.losses, cell.size, tokens)
    k, draw = losses.argmin(axis=0), np.arange(spent.size)
    found = {
        "loss": losses[k, draw],
        "teacher_params": teachers.params[k],
        "teacher_tokens": np.full(k.size, np.nan) if teachers.tokens is None else teachers.tokens[k],
        "teacher_loss": teachers.loss[k, draw],
        "student_tokens": tokens[k, draw],
    }
    fine = np.isfinite(found["loss"])
    return {name: np.where(fine, v, np.nan) for name, v in found.items()} | {"teacher_index": np.where(fine, k, -1)}


def search(curves: Curves) -> dict[str, np.ndarray]:
    """Return the strategy with the lowest loss for each problem.

    If budgets are close to each other, only some of them are searched everywhere. Between two of them, the optimum is near theirs
    if these are near each other; if no certain minimum is there, it is searched everywhere, too. This presumes that no other minimum
    is the lowest at a budget between two where it is not, as for every law of the package.

    Parameters
    ----------
    curves : Curves
        Of n_budgets budgets and n_draws draws.

    Returns
    -------
    dict of (n_budgets, n_draws) arrays
        Fields of `Strategies`. The loss is infinite if no teacher is affordable.
    """
    n = curves.budgets.shape[0]
    spacing = np.diff(np.log(curves.budgets), axis=0)
    every = int(min(3, _CLOSE / spacing.max())) if n > 2 and spacing.min() > 0 else 1
    if every < 2:
        return _search_everywhere(curves)
    known = np.unique(np.append(np.arange(0, n, every), n - 1))
    some = _search_everywhere(curves.rows(known))
    found = {name: np.empty((n, values.shape[1])) for name, values in some.items()}
    for name, values in some.items():
        found[name][known] = values
    row, column = (v.ravel() for v in np.indices(found["loss"].shape))
    between = np.flatnonzero(~np.isin(row, known))
    row, column = row[between], column[between]
    after = np.searchsorted(known, row)
    for first in range(0, row.size, _AT_ONCE // LAST):
        part = slice(first, first + _AT_ONCE // LAST)
        problems, neighbors = (row[part], column[part]), (known[after[part] - 1], known[after[part]])
        rest = np.delete(np.arange(problems[0].size), _search_between(curves, problems, neighbors, found))
        elsewhere = (problems[0][rest], problems[1][rest])
        if rest.size:
            for name, values in _search_everywhere(curves.take(*elsewhere).as_row()).items():
                found[name][elsewhere] = values[0]
    return found


def _search_everywhere(curves: Curves) -> dict[str, np.ndarray]:
    """Return the strategies of problems about whose optimum nothing is known."""
    with np.errstate(all="ignore"):
        grid = _look_everywhere(curves)
        lowest = grid.loss.argmin(axis=0)
        found, doubtful = _descend(curves, lowest)
        _look_closely(curves, doubtful, found)
        _look_closely(curves, _other_intervals(curves, grid, lowest, found["loss"]), found)
    return found


def _search_between(
    curves: Curves,
    problems: tuple[np.ndarray, np.ndarray],
    neighbors: tuple[np.ndarray, np.ndarray],
    found: dict[str, np.ndarray],
) -> np.ndarray:
    """Store the strategies of some problems (row, column) that are near the strategies of their neighbors; return which these are."""
    row, column = problems
    before, after = ({name: found[name][k, column] for name in ("position", "loss")} for k in neighbors)
    share = (row - neighbors[0]) / (neighbors[1] - neighbors[0])
    center = before["position"] + share * (after["position"] - before["position"])
    inside = (center > _NEAR[-1]) & (center < LAST - _NEAR[-1])
    near = np.flatnonzero(inside & (np.abs(after["position"] - before["position"]) < 1))
    if not near.size:
        return near
    with np.errstate(all="ignore"):
        some = curves.take(row[near], column[near])
        points = center[near] + _NEAR[:, None]
        strategies = some.strategies(points)
        k = strategies.loss.argmin(axis=0)
        landing = _settle(some, points, strategies, k)
    # The loss does not increase with the budget.
    loss = landing.strategies["loss"]
    plausible = (loss <= before["loss"][near] + _NO_GAIN) & (loss >= after["loss"][near] - _NO_GAIN)
    good = landing.certain & plausible & (k > 0) & (k < _NEAR.size - 1)
    for name, values in landing.strategies.items():
        found[name][row[near[good]], column[near[good]]] = values[good]
    return near[good]


@dataclass(frozen=True)
class Grid:
    """Losses of students and teachers at s = 0 ... LAST, (LAST + 1, n_budgets, n_draws)."""

    loss: np.ndarray
    teacher_loss: np.ndarray


def _look_everywhere(curves: Curves) -> Grid:
    n_budgets, n_draws = curves.budgets.shape[0], curves.losses.n_draws
    loss, teacher_loss = np.empty((2, LAST + 1, n_budgets, n_draws))
    s = np.arange(LAST + 1.0)[:, None, None]
    for part in _parts(loss):
        found = curves.rows(part).strategies(s)
        loss[:, part], teacher_loss[:, part] = found.loss, found.teacher_loss
    return Grid(loss, teacher_loss)


def _descend(curves: Curves, lowest: np.ndarray) -> tuple[dict[str, np.ndarray], Intervals]:
    """Return the minima next to the lowest grid points, and intervals of uncertain minima."""
    points = np.clip(lowest, 1, LAST - 1) + np.linspace(-1, 1, 9)[:, None, None]
    strategies = curves.strategies(points)
    k = strategies.loss.argmin(axis=0)
    landing = _settle(curves, points, strategies, k)
    # The loss may have a separate minimum on each side of a kink.
    low, high = points[0], points[-1]
    # The last affordable teacher leaves few student tokens; a slightly cheaper teacher may be better.
    at_wall = (high == LAST) & (curves.crowding < 1)
    high = np.where(at_wall, LAST + 1.0, high)
    row, column = np.nonzero((~landing.certain | at_wall) & np.isfinite(_beside(strategies.loss, k, 0)))
    return landing.strategies, Intervals(row, column, low[row, column], high[row, column])


def _beside(values: np.ndarray, k: np.ndarray, step: int) -> np.ndarray:
    """Return values (n, ...) at k + step, or at the end if this is out of range."""
    return np.take_along_axis(values, np.clip(k + step, 0, values.shape[0] - 1)[None], axis=0)[0]


@dataclass(frozen=True)
class Landing:
    """Result of a descent: strategies by the names of their fields, and whether the minimum is certain."""

    strategies: dict[str, np.ndarray]
    certain: np.ndarray


def _settle(curves: Curves, points: np.ndarray, known: Strategies, k: np.ndarray) -> Landing:
    """Find the minimum next to the k-th point (n_points, ...), a minimum of the grid."""
    center = np.clip(k, 2, points.shape[0] - 3)
    a, b, c, d, e = (_beside(known.loss, center, step) for step in (-2, -1, 0, 1, 2))
    # Derivatives over factorials of the quartic through the five values, at the middle one.
    c1, c2 = (a - 8 * b + 8 * d - e) / 12, (-a + 16 * b - 30 * c + 16 * d - e) / 24
    c3, c4 = (-a + 2 * b - 2 * d + e) / 12, (a - 4 * b + 6 * c - 4 * d + e) / 24
    z = (k - center).astype(float)
    low, high = np.maximum(z - 1, -2.0), np.minimum(z + 1, 2.0)
    for _ in range(4):
        slope = c1 + z * (2 * c2 + z * (3 * c3 + z * 4 * c4))
        curvature = 2 * c2 + z * (6 * c3 + z * 12 * c4)
        z = np.clip(z - slope / np.where(curvature > 0, curvature, np.inf), low, high)
    third = 6 * c3 + 24 * c4 * z
    landing = _newton(curves, (z, low, high), third, (_beside(points, center, 0), points[1] - points[0]))
    worse = np.broadcast_to(curves.deficit(known) > 0, points.shape)
    smooth = _beside(worse, k, -2) == _beside(worse, k, 2)
    lower = landing.strategies["loss"] <= _beside(known.loss, k, 0) + _NO_GAIN
    return replace(landing, certain=landing.certain & smooth & lower)


def _newton(curves: Curves, place: tuple[np.ndarray, ...], third: np.ndarray, scale: tuple[np.ndarray, ...]) -> Landing:
    """Find the minimum of a cubic model near z, from three losses around z and a third derivative."""
    z, low, high = place
    origin, spacing = scale
    z = np.clip(z, low + _STEP, high - _STEP)
    beside = z + _STEP * np.array([-1.0, 0.0, 1.0]).reshape(3, *[1] * z.ndim)
    before, here, after = curves.strategies(origin + spacing * beside).loss
    curvature = (before - 2 * here + after) / _STEP**2
    slope = (after - before) / (2 * _STEP) - third * _STEP**2 / 6
    step = -slope / curvature
    for _ in range(2):
        step = step - (slope + step * (curvature + step * third / 2)) / (curvature + third * step)
    step = np.where(curvature > 0, step, -np.sign(slope))
    step = np.clip(z + np.clip(step, -1.0, 1.0), low, high) - z
    predicted = here + step * (slope + step * (curvature / 2 + step * third / 6))
    found = curves.strategies(origin + spacing * (z + step))
    # An error e of the model after a step d implies a slope of about 3 e / d at the new point. A further step would then gain
    # the squared slope over twice the curvature.
    error = found.loss - predicted
    certain = (4.5 * error**2 < _NO_GAIN * curvature * step**2) | (np.abs(error) < 1e-13)
    strategies = {f.name: np.array(np.broadcast_to(getattr(found, f.name), z.shape)) for f in fields(found)}
    return Landing(strategies, certain & np.isfinite(found.loss))


def _other_intervals(curves: Curves, grid: Grid, lowest: np.ndarray, least: np.ndarray) -> Intervals:
    """Return other intervals in which the loss may be below the lowest known value."""
    minima: list[tuple[np.ndarray, ...]] = []
    cells: list[tuple[np.ndarray, ...]] = []
    for part in _parts(grid.loss):
        some = Grid(grid.loss[:, part], grid.teacher_loss[:, part])
        for places, found in zip(_suspects(some, lowest[part], least[part]), (minima, cells), strict=True):
            k, row, column = np.nonzero(places)
            found.append((k.astype(float), row + part.start, column))
    k, row, column = (np.concatenate(v) for v in zip(*minima, strict=True))
    around = Intervals(row, column, np.maximum(k - 1, 0.0), np.minimum(k + 1, LAST))
    k, row, column = (np.concatenate(v) for v in zip(*cells, strict=True))
    return Intervals.together(around, _with_minima(curves, Intervals(row, column, k, k + 1), grid))


def _parts(loss: np.ndarray) -> list[slice]:
    """Split the budgets of an array (n_points, n_budgets, n_draws) into cache-sized parts."""
    step = max(1, _AT_ONCE // (loss.shape[0] * loss.shape[2]))
    return [slice(first, first + step) for first in range(0, loss.shape[1], step)]


def _suspects(grid: Grid, lowest: np.ndarray, least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which points are near a lower minimum, and which cells may contain one.

    A parabola is below its lowest grid point by at most an eighth of the difference to the higher neighbor, and below
    the chord between two neighbors by at most an eighth of the second difference. The tolerance is four times as large, because
    losses are not parabolas. If the grid looks evenly convex, a loss that increases before two neighbors increases between them.
    From a teacher to a stronger one, the loss of equation 8 cannot decrease by more than the loss of the teacher; the tolerance
    is three times as large.
    """
    loss, target = grid.loss, least - _NEGLIGIBLE
    rise = np.diff(loss, axis=0)
    rise[np.isnan(rise)] = np.inf  # outside the feasible range
    outside = np.full((1, *lowest.shape), np.inf)
    before, after = np.concatenate([-outside, rise]), np.concatenate([rise, outside])
    minima = (before < 0) & (after >= 0) & ~(loss - np.maximum(-before, after) / 2 > target)
    np.put_along_axis(minima, lowest[None], False, axis=0)

    bend = np.zeros_like(loss)
    bend[1:-1] = np.diff(rise, axis=0)
    small, large = np.minimum(bend[:-1], bend[1:]), np.maximum(bend[:-1], bend[1:])
    convex = (_EVEN * small > large) & ((before[:-1] > 0) | (after[1:] < 0))
    bend = np.abs(np.where(np.isfinite(bend), bend, 0.0), out=bend)
    sag = np.maximum(bend[:-1], bend[1:]) / 2
    left = np.maximum(1 - np.abs(rise) / (4 * sag), 0.0)
    cells = (np.minimum(loss[:-1], loss[1:]) - sag * left**2 < target) & ~convex
    cells &= loss[:-1] + _FALL * np.diff(grid.teacher_loss, axis=0) < target
    for neighbor in (lowest - 1, lowest):
        np.put_along_axis(cells, np.clip(neighbor, 0, LAST - 1)[None], False, axis=0)
    return minima, cells


def _with_minima(curves: Curves, cells: Intervals, grid: Grid) -> Intervals:
    """Return the cells with an inner point that is lower than both ends."""
    if not cells.row.size:
        return cells
    points = cells.low + _FRACTIONS[:, None] * (cells.high - cells.low)
    inner = curves.take(cells.row, cells.column).strategies(points).loss.min(axis=0)
    ends = (grid.loss[k.astype(int), cells.row, cells.column] for k in (cells.low, cells.high))
    return cells.take(inner < np.minimum(*ends))


def _look_closely(curves: Curves, intervals: Intervals, found: dict[str, np.ndarray]) -> None:
    """Replace strategies in `found` by better ones in these intervals."""
    intervals = _split_at_kinks(curves, intervals)
    size = max(1, _AT_ONCE // _INNER)
    for first in range(0, intervals.row.size, size):
        some = intervals.take(slice(first, first + size))
        problems = curves.take(some.row, some.column)
        which, best = _all_minima(problems, np.linspace(some.low, some.high, _INNER))
        row, column = some.row[which], some.column[which]
        lower = np.flatnonzero(best["loss"] < found["loss"][row, column])
        # Write the lowest of several minima of a problem last.
        lower = lower[np.argsort(-best["loss"][lower], kind="stable")]
        for name, values in best.items():
            found[name][row[lower], column[lower]] = values[lower]


def _split_at_kinks(curves: Curves, intervals: Intervals) -> Intervals:
    """Return the intervals, split at kinks of the frontier and where the teacher's loss equals the student's without a teacher."""
    for t in curves.frontier.kinks:
        intervals = _split(partial(_before, t), curves, intervals)
    return _split(_deficit, curves, intervals)


def _before(t: float, problems: Curves, s: np.ndarray) -> np.ndarray:
    return t - problems.t(s)


def _deficit(problems: Curves, s: np.ndarray) -> np.ndarray:
    return problems.deficit(problems.strategies(s))


def _split(sign: Callable[[Curves, np.ndarray], np.ndarray], curves: Curves, intervals: Intervals) -> Intervals:
    """Return the intervals, those at whose ends a function is positive and negative split where it is 0."""
    if not intervals.row.size:
        return intervals
    problems = curves.take(intervals.row, intervals.column)
    split = np.flatnonzero((sign(problems, intervals.low) > 0) & (sign(problems, intervals.high) < 0))
    if not split.size:
        return intervals
    halves = intervals.take(split)
    kink = find_roots(lambda s, i: sign(problems.take(i), s), halves.low, halves.high, split, 1e-12)
    keep = np.setdiff1d(np.arange(intervals.row.size), split)
    return Intervals.together(intervals.take(keep), replace(halves, high=kink), replace(halves, low=kink))


def _all_minima(problems: Curves, points: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the local minima of n problems next to points (n_points, n)."""
    known = problems.strategies(points)
    loss = known.loss
    padded = np.pad(loss, ((1, 1), (0, 0)), constant_values=np.inf)
    k, which = np.nonzero((padded[:-2] > loss) & (loss <= padded[2:]))
    some = problems.take(which)
    landing = _settle(some, points[:, which], known.take(which), k)
    best, rough = landing.strategies, np.flatnonzero(~landing.certain)
    if rough.size:
        left, right = np.maximum(k[rough] - 1, 0), np.minimum(k[rough] + 1, points.shape[0] - 1)
        bracket = [points[m, which[rough]] for m in (left, k[rough], right)]
        refined = _minimize_roughly(some.take(rough), bracket)
        for name, values in best.items():
            values[rough] = np.broadcast_to(getattr(refined, name), rough.shape)
    return which, best


def _minimize_roughly(problems: Curves, bracket: list[np.ndarray]) -> Strategies:
    """Return the minima within brackets of functions that need not be smooth."""
    left, s, right = bracket
    # A minimum at an end of its bracket stays there if the loss does not fall just inside.
    at_left, at_right = s == left, s == right
    inside = np.where(at_left, s + 1e-3 * (right - left), np.where(at_right, s - 1e-3 * (right - left), s))
    falls = ~(at_left | at_right) | (problems.strategies(inside).loss < problems.strategies(s).loss)

    def value(s: np.ndarray, i: np.ndarray) -> np.ndarray:
        losses = problems.take(i.astype(int)).strategies(s).loss
        return np.where(np.isfinite(losses), losses, _TOO_MUCH)

    i = np.flatnonzero(falls)
    if i.size:
        tolerances = {"xatol": 1e-10, "xrtol": 0.0, "fatol": 1e-14, "frtol": 0.0}
        s[i] = find_minimum(value, (left[i], inside[i], right[i]), args=(i,), tolerances=tolerances).x  # type: ignore[call-overload]
    return problems.strategies(s)
