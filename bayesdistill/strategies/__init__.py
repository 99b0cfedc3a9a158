"""The optimisation kernels: the best strategy of every posterior draw, and the one strategy that is best on average.

For a student of N_S parameters, a budget C and a scenario, a strategy is a teacher (N_T parameters, D_T tokens) and the
number of tokens D_S that the rest of the budget buys for distillation (see `compute` for what is charged). L_S never rises
with D_S under equation 8, so nothing of the budget is left unless `max_student_tokens` leaves it.

Plain arrays in, plain arrays out; `decisions` names their dimensions.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesdistill.compute import PUBLISHED_SHAPE, Scenario, Shape, flops_per_token, pretraining_tokens, scenario
from bayesdistill.errors import ParameterError
from bayesdistill.laws import LAW_PARAMETERS, SUPERVISED_PARAMETERS, distilled_loss, supervised_loss
from bayesdistill.strategies import paths
from bayesdistill.strategies.best import FIELDS, LANES, PARAMETERS, search_block
from bayesdistill.strategies.committed import commit, prepare, teacher_table

STATUS = (
    "ok",
    "teacher_params_at_min",
    "teacher_params_at_max",
    "teacher_tokens_at_min",
    "teacher_tokens_at_max",
    "teacher_at_corner",
    "student_tokens_at_max",
    "budget_too_small",
    "no_teacher_in_bounds",
    "invalid_draw",
    "invalid_problem",
)
"""What the status codes mean. From `budget_too_small` on there is no strategy and the values are NaN."""
FIRST_FAILURE = STATUS.index("budget_too_small")

_POSITIVE = tuple(name for name in LAW_PARAMETERS if name not in ("E", "c0"))
_THIN = 128


@dataclass(frozen=True)
class Bounds:
    """Which teachers and how many unique tokens a strategy may use.

    Parameters
    ----------
    min_teacher_params, max_teacher_params : float
        Non-embedding parameters of a teacher.
    min_teacher_tokens, max_teacher_tokens : float
        Tokens that a teacher is trained on.
    max_student_tokens : float
        Cap on the student's tokens.
    """

    min_teacher_params: float = 1e6
    max_teacher_params: float = 1e12
    min_teacher_tokens: float = 1e6
    max_teacher_tokens: float = 2e13
    max_student_tokens: float = math.inf


def _pack(draws: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    missing = [name for name in LAW_PARAMETERS if name not in draws]
    if missing:
        raise ParameterError(f"draws lack {', '.join(missing)}; all of {', '.join(LAW_PARAMETERS)} are needed")
    columns = [np.asarray(draws.get(name, 0.0), float).ravel() for name in PARAMETERS]
    P = np.ascontiguousarray(np.broadcast_arrays(*columns))
    valid = np.isfinite(P).all(axis=0) & (P[PARAMETERS.index("w1")] >= 0) & (P[PARAMETERS.index("w1")] <= 1)
    for name in _POSITIVE:
        valid &= P[PARAMETERS.index(name)] > 0
    return P, valid


def _scenarios(scenarios: Any) -> list[Scenario]:
    if isinstance(scenarios, str | Scenario):
        scenarios = [scenarios]
    return [scenario(s) for s in scenarios]


def _budgets(budgets: Any, n_draws: int) -> np.ndarray:
    budgets = np.atleast_1d(np.asarray(budgets, float))
    if budgets.ndim == 1:
        return np.ascontiguousarray(np.broadcast_to(budgets[:, None], (budgets.size, n_draws)))
    if budgets.ndim != 2 or budgets.shape[1] != n_draws:
        raise ParameterError(f"budgets have shape {budgets.shape}; (n_budgets,) or (n_budgets, {n_draws}) is needed")
    return np.ascontiguousarray(budgets)


def _box(bounds: Bounds) -> tuple[np.ndarray, np.ndarray, bool]:
    limits = np.array(
        [bounds.min_teacher_params, bounds.max_teacher_params, bounds.min_teacher_tokens, bounds.max_teacher_tokens],
        float,
    )
    fine = bool(np.isfinite(limits).all() and limits.min() > 0 and limits[0] <= limits[1] and limits[2] <= limits[3])
    with np.errstate(all="ignore"):
        return limits, np.log(limits), fine


def _kind(s: Scenario) -> int:
    if s.delta_lgt and s.delta_pre:
        return paths.BOTH_CHARGED
    if s.delta_lgt:
        return paths.OVERTRAINED
    return paths.COMPUTE_OPTIMAL if s.delta_pre else paths.FREE_TEACHER


def _threads(threads: int | None) -> int:
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if threads < 1:
        raise ParameterError(f"threads is {threads!r}; a positive whole number is needed")
    return int(threads)


def _run(jobs: list[Any], threads: int) -> None:
    if threads == 1 or len(jobs) <= 1:
        for job in jobs:
            job()
        return
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()


def _bound_status(params: Any, tokens: Any, own: Any, bounds: Bounds) -> np.ndarray:
    def near(a: Any, b: float) -> Any:
        return np.abs(a - b) <= 1e-9 * abs(b)

    low_n, high_n = near(params, bounds.min_teacher_params), near(params, bounds.max_teacher_params)
    low_d, high_d = near(tokens, bounds.min_teacher_tokens), near(tokens, bounds.max_teacher_tokens)
    cap = near(own, bounds.max_student_tokens) if math.isfinite(bounds.max_student_tokens) else np.zeros_like(low_n)
    conditions = [(low_n | high_n) & (low_d | high_d), low_n, high_n, low_d, high_d, cap]
    names = ["teacher_at_corner", *STATUS[1:5], "student_tokens_at_max"]
    return np.select(conditions, [STATUS.index(n) for n in names], 0).astype(np.int8)


def _good(value: Any) -> Any:
    return np.greater(value, 0) & ~np.isnan(value)


def best_strategies(
    draws: Mapping[str, Any],
    students: Any,
    budgets: Any,
    scenarios: Sequence[str | Scenario],
    *,
    bounds: Bounds = Bounds(),
    shape: Shape = PUBLISHED_SHAPE,
    teachers: Any = None,
    threads: int | None = None,
) -> dict[str, np.ndarray]:
    """The strategy that minimises the student's loss, for every draw by itself."""
    P, valid = _pack(draws)
    n_draws = P.shape[1]
    students = np.atleast_1d(np.asarray(students, float))
    spent = _budgets(budgets, n_draws)
    scenes = _scenarios(scenarios)
    shape4 = (students.size, len(scenes), spent.shape[0], n_draws)
    names = ("loss", "teacher_params", "teacher_tokens", "teacher_loss", "student_tokens")
    if teachers is not None:
        return _best_of_existing(P, valid, students, spent, scenes, bounds, shape, teachers)
    found = np.full((5, *shape4), np.nan)
    limits, box, fine = _box(bounds)
    cap = float(bounds.max_student_tokens)
    if fine and cap > 0:
        room = (*box.tolist(), *limits.tolist(), cap, shape.k1, shape.k2)
        usable = np.where(np.isinf(spent), 1e300, spent)
        sizes = np.where(np.isfinite(students) & (students > 0), students, 1.0)
        table = (sizes, flops_per_token(sizes, shape), *_charges(scenes), room, paths.grid(33, 4, box[0], box[1]))
        good = np.flatnonzero(valid)
        jobs = [
            lambda columns=good[start : start + LANES]: _search_columns(P, usable, table, columns, found)
            for start in range(0, good.size, LANES)
        ]
        _run(jobs, _threads(threads))
    out = dict(zip(names, found, strict=True))
    own = out["student_tokens"]
    own[np.isfinite(own) & np.isinf(spent) & (own < cap)] = np.inf
    status = _bound_status(out["teacher_params"], out["teacher_tokens"], own, bounds)
    out["status"] = _failures(status, out["loss"], fine and cap > 0, valid, students[:, None, None, None], spent)
    return out


def _failures(status: Any, loss: Any, fine: bool, valid: Any, students: Any, spent: Any) -> np.ndarray:
    status = np.where(np.isnan(loss), STATUS.index("budget_too_small"), status)
    if not fine:
        status = np.full_like(status, STATUS.index("no_teacher_in_bounds"))
    status = np.where(valid, status, STATUS.index("invalid_draw"))
    return np.where(
        _good(students) & np.isfinite(students) & _good(spent), status, STATUS.index("invalid_problem")
    ).astype(np.int8)


def _search_columns(P: Any, spent: Any, table: Any, columns: Any, found: Any) -> None:
    # A block has always LANES draws; a short one is filled up with its last draw.
    filled = np.concatenate([columns, np.repeat(columns[-1], LANES - columns.size)])
    out = np.empty((FIELDS, *found.shape[1:-1], LANES))
    search_block(np.ascontiguousarray(P[:, filled]), np.ascontiguousarray(spent[:, filled]), *table, out)
    found[..., columns] = out[..., : columns.size]


def _charges(scenes: list[Scenario]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.array([s.delta_lgt for s in scenes], float),
        np.array([s.delta_pre for s in scenes], float),
        np.array([_kind(s) for s in scenes]),
    )


def _listed(teachers: Any, n_draws: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    params, loss = np.atleast_1d(np.asarray(teachers[0], float)), np.asarray(teachers[1], float)
    tokens = np.atleast_1d(np.asarray(teachers[2], float)) if len(teachers) > 2 and teachers[2] is not None else None
    loss = np.broadcast_to(loss[:, None] if loss.ndim == 1 else np.atleast_2d(loss), (params.size, n_draws))
    return params, loss, tokens


def _existing_losses(
    P: Any, student: float, spent: Any, s: Scenario, bounds: Bounds, shape: Shape, teachers: Any
) -> tuple[np.ndarray, np.ndarray]:
    params, loss, tokens = _listed(teachers, P.shape[1])
    flops = flops_per_token(params, shape)
    charge = 3 * s.delta_pre * flops * tokens if tokens is not None else np.zeros_like(flops)
    with np.errstate(all="ignore"):
        own = (spent - charge[:, None]) / (3 * flops_per_token(student, shape) + s.delta_lgt * flops)[:, None]
        own = np.minimum(own, bounds.max_student_tokens)
        law = dict(zip(PARAMETERS, P, strict=True))
        value = distilled_loss(student, np.maximum(own, 1.0), loss, **law)
    return np.where(own >= 1, value, np.inf), own


def _best_of_existing(
    P: Any, valid: Any, students: Any, spent: Any, scenes: Any, bounds: Any, shape: Any, teachers: Any
) -> dict[str, np.ndarray]:
    params, measured, tokens = _listed(teachers, P.shape[1])
    shape4 = (students.size, len(scenes), spent.shape[0], P.shape[1])
    names = ("loss", "teacher_params", "teacher_tokens", "teacher_loss", "student_tokens")
    out = {name: np.full(shape4, np.nan) for name in names}
    index = np.full(shape4, -1)
    rows = np.arange(P.shape[1])
    for a, student in enumerate(students):
        for b, s in enumerate(scenes):
            for c in range(spent.shape[0]):
                loss, own = _existing_losses(P, student, spent[c], s, bounds, shape, teachers)
                loss = np.where(np.isnan(loss) | ~valid, np.inf, loss)
                pick = loss.argmin(axis=0)
                ok = np.isfinite(loss[pick, rows])
                cell = (a, b, c)
                index[cell] = np.where(ok, pick, -1)
                out["loss"][cell] = np.where(ok, loss[pick, rows], np.nan)
                out["teacher_params"][cell] = np.where(ok, params[pick], np.nan)
                out["teacher_tokens"][cell] = np.where(ok, tokens[pick] if tokens is not None else np.nan, np.nan)
                out["teacher_loss"][cell] = np.where(ok, measured[pick, rows], np.nan)
                out["student_tokens"][cell] = np.where(ok, own[pick, rows], np.nan)
    status = np.zeros(shape4, np.int8)
    if math.isfinite(bounds.max_student_tokens):
        status[out["student_tokens"] == bounds.max_student_tokens] = STATUS.index("student_tokens_at_max")
    out["status"] = _failures(status, out["loss"], params.size > 0, valid, students[:, None, None, None], spent)
    out["teacher_index"] = index
    return out


def committed_strategies(
    draws: Mapping[str, Any],
    students: Any,
    budgets: Any,
    scenarios: Sequence[str | Scenario],
    *,
    bounds: Bounds = Bounds(),
    shape: Shape = PUBLISHED_SHAPE,
    teachers: Any = None,
    threads: int | None = None,
) -> dict[str, np.ndarray]:
    """The one strategy for all draws that minimises the posterior mean of the student's loss."""
    P, valid = _pack(draws)
    n_draws = P.shape[1]
    students = np.atleast_1d(np.asarray(students, float))
    budgets = np.atleast_1d(np.asarray(budgets, float))
    if budgets.ndim != 1:
        raise ParameterError("a committed strategy has one budget for all draws; give budgets with one dimension")
    scenes = _scenarios(scenarios)
    shape3 = (students.size, len(scenes), budgets.size)
    strategy = np.full((3, *shape3), np.nan)
    losses = np.full((2, *shape3, n_draws), np.nan)
    index = np.full(shape3, -1)
    limits, box, fine = _box(bounds)
    cap = float(bounds.max_student_tokens)
    usable = np.where(np.isinf(budgets), 1e300, budgets)
    law = dict(zip(PARAMETERS, P, strict=True))
    everything = bool(valid.all())

    with np.errstate(all="ignore"):
        A, B, alpha, beta = P[1], P[2], P[3], P[4]
        reference = np.array(
            [np.mean((np.log(beta * B) - np.log(alpha * A)) / beta), np.mean(1 / beta), np.mean(alpha / beta)]
        )
    room = (*box.tolist(), *limits.tolist(), cap, shape.k1, shape.k2)

    def take(n: int) -> np.ndarray:
        return np.ascontiguousarray(P[:, np.unique(np.linspace(0, n_draws - 1, min(n, n_draws)).round().astype(int))])

    thin, middle = take(64), take(512)
    if fine and cap > 0 and everything and teachers is None:
        xs, ys = np.linspace(box[0], box[1], 32), np.linspace(box[2], box[3], 32)
        table = np.empty((32, 32, thin.shape[1]))
        teacher_table(thin, xs, ys, table)
        grids = (table, xs, ys, paths.grid(33, 4, box[0], box[1]), np.linspace(0.0, 1.0, 33))
        levels = []
        for student in students:
            three = []
            for Q in (P, middle, thin):
                Q = np.concatenate([Q, np.empty((3, Q.shape[1]))])
                if student > 0:
                    prepare(Q, student)
                three.append(Q)
            levels.append(three)

    def one(a: int, b: int, c: int) -> None:
        student, s, budget = students[a], scenes[b], usable[c]
        if not (student > 0 and math.isfinite(student) and budget > 0 and everything):
            return
        if teachers is not None:
            params, measured, tokens = _listed(teachers, n_draws)
            loss, own = _existing_losses(P, student, np.full(n_draws, budget), s, bounds, shape, teachers)
            mean = loss.mean(axis=1)
            mean[np.isnan(mean)] = np.inf
            if mean.size and np.isfinite(mean.min()):
                k = int(mean.argmin())
                index[a, b, c] = k
                strategy[:, a, b, c] = params[k], np.nan if tokens is None else tokens[k], own[k, 0]
                losses[:, a, b, c] = loss[k], measured[k]
            return
        if not (fine and cap > 0):
            return
        found = _commit(P, levels[a], student, s, budget, shape, room, limits, grids, reference)
        if found is not None:
            strategy[:, a, b, c] = found
            six = {name: law[name] for name in SUPERVISED_PARAMETERS}
            losses[1, a, b, c] = supervised_loss(found[0], found[1], **six)
            losses[0, a, b, c] = distilled_loss(student, found[2], losses[1, a, b, c], **law)

    jobs = [
        lambda a=a, b=b, c=c: one(a, b, c)
        for a in range(students.size)
        for b in range(len(scenes))
        for c in range(budgets.size)
    ]
    _run(jobs, _threads(threads))
    out = dict(zip(("teacher_params", "teacher_tokens", "student_tokens"), strategy, strict=True))
    own = out["student_tokens"]
    own[np.isfinite(own) & np.isinf(budgets) & (own < cap)] = np.inf
    if teachers is None:
        status = _bound_status(out["teacher_params"], out["teacher_tokens"], own, bounds)
        some = fine and cap > 0
    else:
        status = (
            np.where(own == cap, STATUS.index("student_tokens_at_max"), 0) if math.isfinite(cap) else np.zeros(shape3)
        )
        some = len(np.atleast_1d(teachers[0])) > 0
        out["teacher_index"] = index
    out["status"] = _failures(status, own, some, everything, students[:, None, None], budgets)
    out["loss"], out["teacher_loss"] = losses
    return out


def _commit(
    P: Any,
    levels: Any,
    student: Any,
    s: Any,
    budget: Any,
    shape: Any,
    room: Any,
    limits: Any,
    grids: Any,
    reference: Any,
) -> Any:
    own_flops = float(flops_per_token(student, shape))
    problem = (own_flops, float(budget), float(s.delta_lgt), float(s.delta_pre), _kind(s))
    x, y, own, low = commit(*levels, *grids, reference, problem, room)
    if not low < np.inf:
        return None
    return float(np.clip(np.exp(x), limits[0], limits[1])), float(np.clip(np.exp(y), limits[2], limits[3])), own


def evaluate_strategies(
    draws: Mapping[str, Any], students: Any, student_tokens: Any, teacher_params: Any = None, teacher_tokens: Any = None,
    *, teacher_loss: Any = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Losses of the student and of the teacher under every draw, for given strategies.

    The arguments broadcast against each other; the draws come last. `teacher_loss` replaces the law's value.
    """
    P, _ = _pack(draws)
    law = dict(zip(PARAMETERS, P, strict=True))
    with np.errstate(all="ignore"):
        if teacher_loss is None:
            six = {name: law[name] for name in SUPERVISED_PARAMETERS}
            teacher_loss = supervised_loss(
                np.asarray(teacher_params, float)[..., None], np.asarray(teacher_tokens, float)[..., None], **six
            )
        else:
            teacher_loss = np.asarray(teacher_loss, float)[..., None] * np.ones(P.shape[1])
        loss = distilled_loss(
            np.asarray(students, float)[..., None], np.asarray(student_tokens, float)[..., None], teacher_loss, **law
        )
    return loss, np.broadcast_to(teacher_loss, loss.shape)


def supervised_losses(
    draws: Mapping[str, Any], students: Any, budgets: Any, shape: Shape = PUBLISHED_SHAPE, max_tokens: float = math.inf
) -> np.ndarray:
    """Loss of pretraining each student on all of each budget: (n_students, n_budgets, n_draws).

    NaN where the budget buys less than one token.
    """
    six = {name: np.asarray(draws[name], float).ravel() for name in SUPERVISED_PARAMETERS}
    n_draws = np.broadcast_arrays(*six.values())[0].size
    size = np.atleast_1d(np.asarray(students, float))[:, None, None]
    spent = _budgets(budgets, n_draws)
    with np.errstate(all="ignore"):
        tokens = np.minimum(pretraining_tokens(size, spent, shape), max_tokens)
        loss = supervised_loss(size, tokens, **six)
    return np.where(tokens >= 1, loss, np.nan)
