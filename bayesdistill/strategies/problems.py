"""Inputs and status codes of a search: bounds, draws, scenarios and budgets."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesdistill.compute import Scenario, Shape, flops_per_token, scenario
from bayesdistill.errors import ParameterError
from bayesdistill.law import Draws
from bayesdistill.strategies.charges import Charges
from bayesdistill.strategies.existing import Teachers

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
"""Status codes.

ok
    Inside all bounds.
teacher_params_at_min ... student_tokens_at_max
    The strategy is at a bound: the teacher's size or tokens are, both are (`teacher_at_corner`), or only the student's
    tokens are. A teacher whose inference alone is charged uses all the tokens that it may have.
budget_too_small
    No teacher within bounds leaves a token for the student.
no_teacher_in_bounds
    The bounds exclude everything, or the list of teachers is empty.
invalid_draw
    A coefficient is NaN, infinite or of the wrong sign. One invalid draw makes the mean over draws, and therefore every chosen
    strategy, invalid.
invalid_problem
    The student's size or the budget is NaN or not positive, or the student's size is infinite.

The codes from `budget_too_small` on have no strategy, and the values are NaN."""
FIRST_FAILURE = STATUS.index("budget_too_small")
"""First status code without a strategy."""
_CODE = {name: code for code, name in enumerate(STATUS)}

UNLIMITED = 1e300
"""Replacement for an infinite budget: its losses differ by 1e-100 nats from those with unlimited tokens."""


@dataclass(frozen=True)
class Bounds:
    """Bounds on the teachers and the unique tokens of a strategy.

    Parameters
    ----------
    min_teacher_params, max_teacher_params : float
        Non-embedding parameters of a teacher. The law was fitted to teachers of 143M to 7.75B.
    min_teacher_tokens, max_teacher_tokens : float
        Training tokens of a teacher. At the lower default bounds, 1e6 parameters and 1e6 tokens, the published law gives
        7.5 nats, which is worse than any realistic teacher.
    max_student_tokens : float
        Cap on the student's tokens; infinite for none. The rest of the budget is then not spent.
        Cap on the student's tokens; infinite for none. What of the budget is left then is not spent.

    Examples
    --------
    >>> from bayesdistill.strategies import Bounds
    >>> Bounds(max_teacher_params=7e9).max_teacher_tokens
    20000000000000.0
    """

    min_teacher_params: float = 1e6
    max_teacher_params: float = 1e12
    min_teacher_tokens: float = 1e6
    max_teacher_tokens: float = 2e13
    max_student_tokens: float = math.inf

    @property
    def limits(self) -> np.ndarray:
        """Lower and upper bounds on the parameters, then on the tokens, of a teacher."""
        return np.array(
            [self.min_teacher_params, self.max_teacher_params, self.min_teacher_tokens, self.max_teacher_tokens], float
        )

    @property
    def hold_something(self) -> bool:
        """Whether the bounds allow any teacher and any student tokens."""
        a = self.limits
        fine = np.isfinite(a).all() and a.min() > 0 and a[0] <= a[1] and a[2] <= a[3] and self.max_student_tokens > 0
        return bool(fine)


@dataclass(frozen=True)
class Request:
    """Arguments of a search for strategies.

    Parameters
    ----------
    draws : Draws
        The law, and draws of the symbols of its terms.
    students : (n_students,) array
        Non-embedding parameters.
    scenarios : list of Scenario
    bounds : Bounds
    shape : Shape
    teachers : Teachers or None
        Existing teachers; None for newly trained teachers.
    """

    draws: Draws
    students: np.ndarray
    scenarios: list[Scenario]
    bounds: Bounds
    shape: Shape
    teachers: Teachers | None

    @classmethod
    def of(cls, draws: Draws, students: Any, scenarios: Any, limits: tuple[Bounds, Shape], teachers: Any) -> Request:
        """Return a request from the caller's arguments."""
        several = [scenarios] if isinstance(scenarios, str | Scenario) else list(scenarios)
        return cls(
            replace(draws, symbols={name: draws[name] for name in draws.law.symbols_of_law}),
            np.atleast_1d(np.asarray(students, float)),
            [scenario(s) for s in several],
            *limits,
            Teachers.of(teachers, draws.n_draws) if teachers is not None else None,
        )

    @property
    def possible(self) -> bool:
        """Whether the bounds allow any strategy."""
        if self.teachers is None:
            return self.bounds.hold_something
        return bool(self.teachers.params.size and self.bounds.max_student_tokens > 0)

    @property
    def sound_students(self) -> list[int]:
        """Positions of the students whose size is a positive number."""
        return np.flatnonzero(possible(self.students, finite=True)).tolist()

    def charges(self, student: int, scene: int) -> tuple[float, Charges]:
        """Return the size of a student, and its costs in a scenario."""
        size, s = float(self.students[student]), self.scenarios[scene]
        flops, cap = float(flops_per_token(size, self.shape)), float(self.bounds.max_student_tokens)
        return size, Charges(flops, float(s.delta_lgt), float(s.delta_pre), cap)

    def status(self, found: dict[str, np.ndarray], budgets: np.ndarray, valid: Any) -> np.ndarray:
        """Return the status of strategies over (student, scenario, budget, ...); budgets are (n_budgets, ...)."""
        own = found["student_tokens"]
        if self.teachers is None:
            status = bound_status(found["teacher_params"], found["teacher_tokens"], own, self.bounds)
        else:
            status = cap_reached(own, self.bounds) * _CODE["student_tokens_at_max"]
        status = np.where(np.isnan(own), _CODE["budget_too_small"], status)
        if not self.possible:
            status = np.full_like(status, _CODE["no_teacher_in_bounds"])
        status = np.where(valid, status, _CODE["invalid_draw"])
        students = self.students.reshape(-1, *[1] * (status.ndim - 1))
        sound = possible(students, finite=True) & possible(budgets, finite=False)
        return np.where(sound, status, _CODE["invalid_problem"]).astype(np.int8)


def budgets_per_draw(budgets: Any, n_draws: int) -> np.ndarray:
    """Return budgets as an array (n_budgets, n_draws).

    Raises
    ------
    ParameterError
        If the shape is neither (n_budgets,) nor (n_budgets, n_draws).
    """
    budgets = np.atleast_1d(np.asarray(budgets, float))
    if budgets.ndim == 1:
        budgets = np.broadcast_to(budgets[:, None], (budgets.size, n_draws))
    if budgets.ndim != 2 or budgets.shape[1] != n_draws:
        raise ParameterError(
            f"`budgets` must have the shape (n_budgets,) or (n_budgets, {n_draws}), got {budgets.shape}."
        )
    return budgets


def possible(values: np.ndarray, *, finite: bool) -> np.ndarray:
    """Return which sizes or budgets are positive numbers."""
    return (values > 0) & (np.isfinite(values) if finite else True)


def bound_status(params: Any, tokens: Any, own: Any, bounds: Bounds) -> np.ndarray:
    """Return the status code of the bounds that a strategy reaches."""

    def at(values: Any, bound: float) -> Any:
        return np.abs(values - bound) <= 1e-9 * bound

    low, high = at(params, bounds.min_teacher_params), at(params, bounds.max_teacher_params)
    few, many = at(tokens, bounds.min_teacher_tokens), at(tokens, bounds.max_teacher_tokens)
    conditions = [(low | high) & (few | many), low, high, few, many, cap_reached(own, bounds)]
    names = ["teacher_at_corner", *STATUS[1:5], "student_tokens_at_max"]
    return np.select(conditions, [_CODE[name] for name in names], 0).astype(np.int8)


def cap_reached(own: np.ndarray, bounds: Bounds) -> np.ndarray:
    """Return whether the student has the maximum number of tokens."""
    cap = bounds.max_student_tokens
    return np.abs(own - cap) <= 1e-9 * cap if math.isfinite(cap) else np.zeros(np.shape(own), bool)


def unlimited_tokens(own: np.ndarray, budgets: np.ndarray, bounds: Bounds) -> np.ndarray:
    """Return student tokens that are infinite if the budget is, unless they are capped."""
    return np.where(np.isfinite(own) & np.isinf(budgets) & (own < bounds.max_student_tokens), np.inf, own)


def thread_count(threads: int | None) -> int:
    """Return the number of threads; by default the number of available processors.

    Raises
    ------
    ParameterError
        If `threads` is less than 1.
    """
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if threads < 1:
        raise ParameterError(f"`threads` must be a positive integer, got {threads!r}.")
    return int(threads)


def run_all(jobs: Sequence[Callable[[], None]], threads: int) -> None:
    """Call all jobs, in any order; each writes to its own output."""
    if threads == 1 or len(jobs) <= 1:
        for job in jobs:
            job()
        return
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()
