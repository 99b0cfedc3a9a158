"""What a search is asked: bounds, draws as one array, scenarios, budgets; and what is said about its answers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesdistill.compute import Scenario, Shape, scenario
from bayesdistill.errors import ParameterError
from bayesdistill.strategies import paths
from bayesdistill.strategies.blocks import PARAMETERS
from bayesdistill.strategies.old_formulas import EXTENSIONS, LAW_PARAMETERS

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
"""What the status codes mean.

ok
    Inside all bounds.
teacher_params_at_min ... student_tokens_at_max
    A strategy that another bound would change: the teacher's size or tokens are at one, both are (`teacher_at_corner`), or
    only the student's tokens are. A teacher whose inference alone is charged takes all the tokens that it may have.
budget_too_small
    No teacher within bounds leaves a token for the student.
no_teacher_in_bounds
    The bounds exclude everything, or the list of teachers is empty.
invalid_draw
    A coefficient is NaN, infinite or of the wrong sign. One such draw makes the mean over draws, and with it every committed
    strategy, invalid.
invalid_problem
    The student's size or the budget is NaN or not positive, or the student's size is infinite.

From `budget_too_small` on there is no strategy and the values are NaN."""
FIRST_FAILURE = STATUS.index("budget_too_small")
"""The first status code without a strategy."""
_CODE = {name: code for code, name in enumerate(STATUS)}

_POSITIVE = tuple(name for name in LAW_PARAMETERS if name not in ("E", "c0"))
UNLIMITED = 1e300
"""What stands for an infinite budget: its students lack 1e-100 nats to unlimited tokens."""


@dataclass(frozen=True)
class Bounds:
    """Which teachers and how many unique tokens a strategy may use.

    Parameters
    ----------
    min_teacher_params, max_teacher_params : float
        Non-embedding parameters of a teacher. The law was fitted to teachers of 143M to 7.75B.
    min_teacher_tokens, max_teacher_tokens : float
        Tokens that a teacher is trained on. With 1e6 parameters on 1e6 tokens, the least by default, the published law is at
        7.5 nats, worse than any teacher that one would choose.
    max_student_tokens : float
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
        """Least and most parameters, least and most tokens of a teacher."""
        return np.array(
            [self.min_teacher_params, self.max_teacher_params, self.min_teacher_tokens, self.max_teacher_tokens], float
        )

    @property
    def hold_something(self) -> bool:
        """Whether any teacher and any student tokens are allowed."""
        a = self.limits
        fine = np.isfinite(a).all() and a.min() > 0 and a[0] <= a[1] and a[2] <= a[3] and self.max_student_tokens > 0
        return bool(fine)

    def room(self, shape: Shape) -> tuple[float, ...]:
        """What `blocks` calls the room."""
        limits = self.limits
        return (*np.log(limits).tolist(), *limits.tolist(), float(self.max_student_tokens), shape.k1, shape.k2)


def pack(draws: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Draws as an array (PARAMETERS, n_draws), and which of them are laws at all.

    A parameter of an extension that is missing has the value that makes the law equation 8.

    Raises
    ------
    ParameterError
        If a coefficient is missing, or their lengths differ.
    """
    missing = [name for name in LAW_PARAMETERS if name not in draws]
    if missing:
        raise ParameterError(f"draws lack {', '.join(missing)}; all of {', '.join(LAW_PARAMETERS)} are needed")
    rows = [np.asarray(draws.get(name, EXTENSIONS.get(name)), float).ravel() for name in PARAMETERS]
    try:
        P = np.ascontiguousarray(np.broadcast_arrays(*rows))
    except ValueError:
        sizes = ", ".join(f"{name} {row.size}" for name, row in zip(PARAMETERS, rows, strict=True))
        raise ParameterError(
            f"draws have different lengths ({sizes}); every parameter needs one value a draw"
        ) from None
    valid = np.isfinite(P).all(axis=0)
    for name in _POSITIVE:
        valid &= P[PARAMETERS.index(name)] > 0
    shares = P[[PARAMETERS.index("w1"), PARAMETERS.index("omega")]]
    return P, valid & (shares >= 0).all(axis=0) & (shares <= 1).all(axis=0) & (P[PARAMETERS.index("kappa")] > 0)


def list_scenarios(scenarios: str | Scenario | Sequence[str | Scenario]) -> list[Scenario]:
    """Scenarios from one or several, by name or not."""
    if isinstance(scenarios, str | Scenario):
        return [scenario(scenarios)]
    return [scenario(s) for s in scenarios]


def kind_of(s: Scenario) -> int:
    """Which curve a scenario asks for, see `paths`."""
    if s.delta_lgt and s.delta_pre:
        return paths.BOTH_CHARGED
    if s.delta_lgt:
        return paths.OVERTRAINED
    return paths.COMPUTE_OPTIMAL if s.delta_pre else paths.FREE_TEACHER


def budgets_per_draw(budgets: Any, n_draws: int) -> np.ndarray:
    """Budgets as an array (n_budgets, n_draws).

    Raises
    ------
    ParameterError
        If they have another shape than (n_budgets,) or (n_budgets, n_draws).
    """
    budgets = np.atleast_1d(np.asarray(budgets, float))
    if budgets.ndim == 1:
        budgets = np.broadcast_to(budgets[:, None], (budgets.size, n_draws))
    if budgets.ndim != 2 or budgets.shape[1] != n_draws:
        raise ParameterError(f"budgets have shape {budgets.shape}; (n_budgets,) or (n_budgets, {n_draws}) is needed")
    return np.ascontiguousarray(budgets)


def possible(values: np.ndarray, *, finite: bool) -> np.ndarray:
    """Which sizes or budgets are positive numbers."""
    return (values > 0) & (np.isfinite(values) if finite else True)


def bound_status(params: Any, tokens: Any, own: Any, bounds: Bounds) -> np.ndarray:
    """Which bounds hold a strategy."""

    def at(values: Any, bound: float) -> Any:
        return np.abs(values - bound) <= 1e-9 * bound

    low, high = at(params, bounds.min_teacher_params), at(params, bounds.max_teacher_params)
    few, many = at(tokens, bounds.min_teacher_tokens), at(tokens, bounds.max_teacher_tokens)
    conditions = [(low | high) & (few | many), low, high, few, many, cap_reached(own, bounds)]
    names = ["teacher_at_corner", *STATUS[1:5], "student_tokens_at_max"]
    return np.select(conditions, [_CODE[name] for name in names], 0).astype(np.int8)


def cap_reached(own: np.ndarray, bounds: Bounds) -> np.ndarray:
    """Where the student has all the tokens that it may have."""
    cap = bounds.max_student_tokens
    return np.abs(own - cap) <= 1e-9 * cap if math.isfinite(cap) else np.zeros(np.shape(own), bool)


def failures(
    status: np.ndarray, found: np.ndarray, something: bool, valid: Any, students: np.ndarray, budgets: np.ndarray
) -> np.ndarray:
    """The status with the reason where nothing was found; the last arguments broadcast against it."""
    status = np.where(found, status, _CODE["budget_too_small"])
    if not something:
        status = np.full_like(status, _CODE["no_teacher_in_bounds"])
    status = np.where(valid, status, _CODE["invalid_draw"])
    sound = possible(students, finite=True) & possible(budgets, finite=False)
    return np.where(sound, status, _CODE["invalid_problem"]).astype(np.int8)


def thread_count(threads: int | None) -> int:
    """How many threads to use: by default as many as processors are allowed.

    Raises
    ------
    ParameterError
        If `threads` is less than 1.
    """
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if threads < 1:
        raise ParameterError(f"threads is {threads!r}; a positive whole number is needed")
    return int(threads)


def run_all(jobs: Sequence[Callable[[], None]], threads: int) -> None:
    """Call all jobs, in any order; they write to places of their own."""
    if threads == 1 or len(jobs) <= 1:
        for job in jobs:
            job()
        return
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()
