"""Problems of a search for strategies: students, budgets or target losses, costs, bounds and teachers; and status codes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from bayesdistill.compute import PUBLISHED_SHAPE, Scenario, Shape, forward_flops, scenario
from bayesdistill.errors import ParameterError
from bayesdistill.strategies.charges import Charges

STATUS = (
    "ok",
    "teacher_params_at_min",
    "teacher_params_at_max",
    "teacher_tokens_at_min",
    "teacher_tokens_at_max",
    "teacher_at_corner",
    "teacher_tokens_per_param_at_min",
    "teacher_tokens_per_param_at_max",
    "teacher_loss_at_min",
    "teacher_loss_at_max",
    "student_tokens_at_max",
    "budget_too_small",
    "target_unreachable",
    "no_teacher_in_bounds",
    "invalid_draw",
    "invalid_problem",
    "invalid_teacher",
)
"""Status codes.

ok
    Inside all bounds.
teacher_params_at_min ... student_tokens_at_max
    The strategy is at a bound: the teacher's size, tokens, tokens per parameter or loss is, both size and tokens are
    (`teacher_at_corner`), or only the student's tokens are. A teacher whose inference alone is charged uses all the tokens that
    it may have.
budget_too_small
    No teacher within bounds leaves a token for the student.
target_unreachable
    No budget gives the student the target loss.
no_teacher_in_bounds
    The bounds exclude everything, or the list of teachers is empty.
invalid_draw
    A coefficient is NaN, infinite or of the wrong sign. One invalid draw makes the mean over draws, and therefore every chosen
    strategy, invalid.
invalid_problem
    The student's size, the budget or the target loss is NaN or not positive, or the student's size is infinite.
invalid_teacher
    The size, the loss or the tokens of every existing teacher are NaN, infinite or not positive.

The codes from `budget_too_small` on have no strategy, and the values are NaN."""
FIRST_FAILURE = STATUS.index("budget_too_small")
"""First status code without a strategy."""
CODE = {name: code for code, name in enumerate(STATUS)}

UNLIMITED = 1e300
"""Replacement for an infinite budget: its losses differ by 1e-100 nats from those with unlimited tokens."""


def require_number(value: Any, name: str) -> float:
    """Return a value that is a number other than NaN, or raise ParameterError with its name."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or math.isnan(value):
        raise ParameterError(f"`{name}` must be a number, got {value!r}.")
    return float(value)


@dataclass(frozen=True)
class Bounds:
    """Bounds on the teachers and the tokens of a strategy.

    Parameters
    ----------
    min_teacher_params, max_teacher_params : float
        Non-embedding parameters of a teacher; finite. The law was fitted to teachers of 143M to 7.75B.
    min_teacher_tokens, max_teacher_tokens : float
        Training tokens of a teacher; finite. At the lower default bounds, 1e6 parameters and 1e6 tokens, the published law gives
        7.5 nats, which is worse than any realistic teacher.
    max_student_tokens : float
        Cap on the student's tokens; infinite for none. The rest of the budget is then not spent.
    min_teacher_tokens_per_param, max_teacher_tokens_per_param : float
        Training tokens of a teacher per non-embedding parameter.
    min_teacher_loss, max_teacher_loss : float
        Cross-entropy of a new teacher in nats per token: predicted in each draw for the strategy with perfect information, and
        the posterior mean for the chosen strategy.

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
    min_teacher_tokens_per_param: float = 0.0
    max_teacher_tokens_per_param: float = math.inf
    min_teacher_loss: float = 0.0
    max_teacher_loss: float = math.inf

    def __post_init__(self) -> None:
        for field in fields(self):
            require_number(getattr(self, field.name), field.name)

    @property
    def teacher_params(self) -> tuple[float, float]:
        """Smallest and largest size for which some number of tokens is within bounds."""
        few, many = self.min_teacher_tokens_per_param, self.max_teacher_tokens_per_param
        low = max(self.min_teacher_params, self.min_teacher_tokens / many if many > 0 else math.inf)
        return low, min(self.max_teacher_params, self.max_teacher_tokens / few if few else math.inf)

    def teacher_tokens(self, params: Any) -> tuple[Any, Any]:
        """Return the smallest and largest number of tokens of teachers of given sizes, without the bounds on their losses."""
        few, many = self.min_teacher_tokens_per_param * params, self.max_teacher_tokens_per_param * params
        return np.maximum(self.min_teacher_tokens, few), np.minimum(self.max_teacher_tokens, many)

    @property
    def limit_losses(self) -> bool:
        """Whether the teacher's loss is bounded."""
        return self.min_teacher_loss > 0 or math.isfinite(self.max_teacher_loss)

    @property
    def of_size_and_tokens(self) -> Bounds:
        """The bounds without those on the teacher's loss."""
        return replace(self, min_teacher_loss=0.0, max_teacher_loss=math.inf)

    def exclude_losses(self, loss: Any) -> Any:
        """Return which losses of teachers are outside their bounds; NaN is not."""
        return (loss < self.min_teacher_loss) | (loss > self.max_teacher_loss)

    @property
    def limit_size_and_tokens_separately(self) -> bool:
        """Whether the allowed teachers form a rectangle of sizes and tokens."""
        return not (
            self.limit_losses or self.min_teacher_tokens_per_param or math.isfinite(self.max_teacher_tokens_per_param)
        )

    @property
    def hold_something(self) -> bool:
        """Whether the bounds allow any teacher and any student tokens."""
        box = (self.min_teacher_params, self.max_teacher_params, self.min_teacher_tokens, self.max_teacher_tokens)
        if not (all(math.isfinite(v) and v > 0 for v in box) and self.min_teacher_tokens <= self.max_teacher_tokens):
            return False
        low, high = self.teacher_params
        ordered = self.min_teacher_tokens_per_param <= self.max_teacher_tokens_per_param
        ordered &= self.min_teacher_loss <= self.max_teacher_loss
        return low <= high and ordered and self.max_student_tokens > 0


@dataclass(frozen=True)
class Problem:
    """Grid of strategies: every student in every scenario with every budget (or target loss).

    Parameters
    ----------
    students : float or (n_students,) array
        Non-embedding parameters.
    budgets : float, (n_budgets,) or (n_budgets, n_draws) array
        FLOPs of training and, with `served_tokens`, inference; may be infinite. Empty if there are target losses.
    scenarios : Scenario or str, or a sequence of them
        Fractions of the teacher's inference and pretraining that are charged.
    bounds : Bounds
        Bounds on teachers and tokens. For existing teachers, only the cap on student tokens applies.
    shape : Shape
        Architecture, which determines FLOPs per token.
    teachers : tuple of arrays, optional
        (params, loss) or (params, loss, tokens) of existing teachers, with measured losses of shape (n,) or (n, n_draws). By
        default, a new teacher is trained. The pretraining of existing teachers is charged only if their tokens are given.
    targets : (n_targets,) array, optional
        Losses of the student in nats per token, in place of budgets: find the smallest budget that reaches each of them.
    served_tokens : float
        Tokens of inference that the budget pays for, in addition to training.
    serving_price : float
        Price of a FLOP of inference relative to a FLOP of training.
    logits_price : float
        Price of a FLOP of a teacher's inference relative to a FLOP of training. Budgets are then in FLOPs of training at equal cost.

    Raises
    ------
    ParameterError
        If there are neither budgets nor targets, or both, or a value is not a number or negative.

    Examples
    --------
    The smallest budget for a 1B student of 2.2 nats that also pays for 1e12 tokens of inference, with a teacher of at most 200 tokens
    per parameter, and all models trained on 1e11 unique tokens:

    >>> import bayesdistill as bd
    >>> from bayesdistill.law import LAWS, Draws, Repetition
    >>> from bayesdistill.strategies import Bounds, Problem, chosen_strategies
    >>> draws = Draws(LAWS["busbridge2025"], bd.PUBLISHED, repetition=Repetition(1e11))  # for a fit: posterior.draws_of(fit)
    >>> options = {"targets": [2.2], "served_tokens": 1e12}
    >>> problem = Problem([1e9], [], "teacher inference", Bounds(max_teacher_tokens_per_param=200), **options)
    >>> f"{chosen_strategies(draws, problem)['budget'].item():.1e}"
    '4.0e+21'
    """

    students: np.ndarray
    budgets: np.ndarray
    scenarios: tuple[Scenario, ...]
    bounds: Bounds = Bounds()
    shape: Shape = PUBLISHED_SHAPE
    teachers: tuple[Any, ...] | None = None
    targets: np.ndarray | None = None
    served_tokens: float = 0.0
    serving_price: float = 1.0
    logits_price: float = 1.0

    def __post_init__(self) -> None:
        if self.budgets is None:
            object.__setattr__(self, "budgets", ())
        several = [self.scenarios] if isinstance(self.scenarios, str | Scenario) else self.scenarios
        object.__setattr__(self, "scenarios", tuple(scenario(s) for s in several))
        for name in ("students", "budgets", "targets"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, np.atleast_1d(np.asarray(getattr(self, name), float)))
        if (self.targets is not None) == bool(self.budgets.size):
            raise ParameterError(
                "A problem has either budgets or target losses. With `targets`, `budgets` must be empty."
            )
        if self.targets is not None and self.targets.ndim != 1:
            raise ParameterError(f"`targets` must have one dimension, got the shape {self.targets.shape}.")
        for name in ("served_tokens", "serving_price", "logits_price"):
            if not 0 <= require_number(getattr(self, name), name) < math.inf:
                raise ParameterError(f"`{name}` must be finite and not negative, got {getattr(self, name):g}.")

    def part(self, student: int, scene: int, budgets: np.ndarray) -> Problem:
        """Return the problem of one student and scenario with other budgets."""
        one, scenarios = self.students[[student]], (self.scenarios[scene],)
        return replace(self, students=one, scenarios=scenarios, budgets=budgets, targets=None)

    def for_draws(self, index: np.ndarray) -> Problem:
        """Return the problem for some of the draws, if it has values that depend on them."""
        teachers = self.teachers
        if teachers is not None and np.ndim(teachers[1]) == 2:
            teachers = (teachers[0], np.asarray(teachers[1])[:, index], *teachers[2:])
        return replace(self, teachers=teachers)

    @property
    def shape_of_grid(self) -> tuple[int, int, int]:
        """Number of students, of scenarios, and of budgets or target losses."""
        rows = self.budgets if self.targets is None else self.targets
        return self.students.size, len(self.scenarios), rows.shape[0]

    @property
    def possible(self) -> bool:
        """Whether the bounds allow any strategy."""
        if self.teachers is None:
            return self.bounds.hold_something
        return bool(np.size(self.teachers[0]) and self.bounds.max_student_tokens > 0)

    @property
    def sound_students(self) -> list[int]:
        """Positions of the students whose size is a positive number."""
        return np.flatnonzero((self.students > 0) & np.isfinite(self.students)).tolist()

    def charges(self, student: int, scene: int) -> Charges:
        """Return the costs of a student in a scenario."""
        s = self.scenarios[scene]
        flops = float(forward_flops(self.students[student], self.shape))
        lgt = float(s.delta_lgt * self.logits_price)
        return Charges(flops, lgt, float(s.delta_pre), float(self.bounds.max_student_tokens))

    def serving_cost(self, student: int) -> float:
        """Return the charged FLOPs of a student's inference."""
        return self.serving_price * self.served_tokens * float(forward_flops(self.students[student], self.shape))

    def training_budgets(self, student: int, budgets: np.ndarray) -> np.ndarray:
        """Return what budgets leave for training; NaN if nothing, and at most UNLIMITED."""
        left = np.minimum(budgets, UNLIMITED) - self.serving_cost(student)
        return np.where((budgets > 0) & (left > 0), left, np.nan)

    def status(
        self, found: dict[str, np.ndarray], valid: Any, teacher_exists: Any = True, teacher_usable: Any = True
    ) -> np.ndarray:
        """Return the status of strategies over (student, scenario, budget, ...).

        `valid` says which draws are valid, `teacher_exists` in which of them any teacher is within bounds, and `teacher_usable` in
        which of them any existing teacher has positive finite numbers.
        """
        own, bounds = found["student_tokens"], self.bounds
        capped = cap_reached(own, bounds) * CODE["student_tokens_at_max"]
        status = bound_status(found, bounds) if self.teachers is None else capped
        failure = "budget_too_small" if self.targets is None else "target_unreachable"
        status = np.where(np.isnan(own), CODE[failure], status)
        status = np.where(teacher_usable, status, CODE["invalid_teacher"])
        status = np.where(self.possible & teacher_exists, status, CODE["no_teacher_in_bounds"])
        status = np.where(valid, status, CODE["invalid_draw"])
        rows = self.budgets if self.targets is None else self.targets
        rows = rows.reshape(*rows.shape, *[1] * (status.ndim - 2 - rows.ndim))
        students = self.students.reshape(-1, *[1] * (status.ndim - 1))
        sound = (students > 0) & np.isfinite(students) & (rows > 0)
        return np.where(sound, status, CODE["invalid_problem"]).astype(np.int8)


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


def bound_status(found: dict[str, np.ndarray], bounds: Bounds) -> np.ndarray:
    """Return the status code of the bounds that strategies with new teachers reach."""

    def at(values: Any, bound: float) -> Any:
        return np.abs(values - bound) <= 1e-9 * bound if math.isfinite(bound) else np.zeros(np.shape(values), bool)

    params, tokens, loss = found["teacher_params"], found["teacher_tokens"], found["teacher_loss"]
    if loss.ndim > params.ndim:  # the chosen strategy, whose teacher has a loss in every draw
        loss = loss.mean(axis=-1)
    low, high = at(params, bounds.min_teacher_params), at(params, bounds.max_teacher_params)
    few, many = at(tokens, bounds.min_teacher_tokens), at(tokens, bounds.max_teacher_tokens)
    ratio, limits = tokens / params, (bounds.min_teacher_tokens_per_param, bounds.max_teacher_tokens_per_param)
    reached = [(low | high) & (few | many), low, high, few, many, *(at(ratio, v) for v in limits)]
    reached += [at(loss, v) for v in (bounds.min_teacher_loss, bounds.max_teacher_loss)]
    reached.append(cap_reached(found["student_tokens"], bounds))
    names = ["teacher_at_corner", *STATUS[1:5], *STATUS[6:11]]
    return np.select(reached, [CODE[name] for name in names], 0).astype(np.int8)


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
