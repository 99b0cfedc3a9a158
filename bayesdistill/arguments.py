"""Rules for arguments: types, and the range of every number.

`RANGES` and `RULES` have the rules of arguments that mean the same in several functions. The decorator `checked` applies `RULES` to
the arguments of a function by name; a keyword of the decorator is a rule of this function alone. `check_fields` does the same for
the fields of a dataclass. Each error message names the argument, the expected values and the value found.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import reprlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, NamedTuple, overload

import numpy as np

from bayesdistill.errors import ParameterError

Rule = Callable[[Any, str], Any]
"""(value, name of the argument) -> the value as a Python object; raises ParameterError."""

_MOST = sys.float_info.max
_SHORT = reprlib.Repr(maxstring=80, maxother=120, maxlist=4, maxtuple=4, maxdict=3, maxset=3)


class Quantity(NamedTuple):
    """What a number measures, and the range of values that are plausible for a language model."""

    units: str
    fewest: float
    most: float


QUANTITIES = MappingProxyType(
    {
        "params": Quantity("parameters", 1e3, 1e14),
        "tokens": Quantity("tokens", 1e4, 1e17),
        "loss": Quantity("nats per token", 0.0, 12.0),  # 12 nats: a uniform prediction over 163,000 tokens
        "compute": Quantity("FLOPs", 1e6, 1e40),
    }
)


def shown(value: Any) -> str:
    """Return a value as text for an error message; long values are cut."""
    return " ".join(_SHORT.repr(scalar(value)).split())


def scalar(value: Any) -> Any:
    """Return a NumPy scalar, an array without dimensions, a Decimal or a Fraction as a Python object; other values are unchanged."""
    if isinstance(value, Decimal | Fraction):
        with contextlib.suppress(ValueError, OverflowError):  # a signaling NaN, more than the largest float
            return float(value)
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def is_finite(value: Any) -> bool:
    """Return whether a value is a finite number; NumPy scalars are, and booleans are not."""
    number: Any = scalar(value)
    return not isinstance(number, bool) and isinstance(number, int | float) and abs(number) <= _MOST


@dataclass(frozen=True)
class Range:
    """Rule for a number: its range.

    Parameters
    ----------
    low, high : float
        Smallest and largest value; finite by default.
    units : str
    whole : bool
        Whether it must be an integer.
    above : bool
        Whether it must be larger than `low`.
    """

    low: float = -_MOST
    high: float = _MOST
    units: str = ""
    whole: bool = False
    above: bool = False

    def __call__(self, value: Any, name: str) -> Any:
        """Return the value as int or float, or raise ParameterError."""
        number: Any = scalar(value)
        right = isinstance(number, Integral if self.whole else Real) and not isinstance(number, bool)
        if not right or not self.holds(number) or (isinstance(number, int) and number > _MOST):
            raise ParameterError(f"`{name}` must be {self.words}, got {shown(value)}.")
        return int(number) if self.whole else number if isinstance(number, int | float) else float(number)

    def holds(self, number: Any) -> Any:
        """Return whether a number, or each number of an array, is in the range. NaN is not."""
        return (number > self.low if self.above else number >= self.low) & (number <= self.high)

    @property
    def words(self) -> str:
        """Description such as "an integer from 1 to 1000"."""
        low, high = ("2^64 - 1" if bound == SEED.high else f"{bound:g}" for bound in (self.low, self.high))
        start = f"above {low}" if self.above else f"of at least {low}"
        if self.high < _MOST:
            start = f"{start} and at most {high}" if self.above else f"from {low} to {high}"
        kind = "an integer" if self.whole else "a finite number" if self.high == _MOST else "a number"
        return " ".join(part for part in (kind, start if self.low > -_MOST else "", self.units) if part)

    def each(self, values: Any, name: str) -> Any:
        """Return a number, or an array of numbers; a list becomes an array."""
        try:
            array = np.asarray(values)
        except (TypeError, ValueError):
            array = np.array(None)
        if array.ndim == 0:
            return self(values, name)
        if array.dtype.kind not in "iuf":
            array = np.array([self(one, name) for one in array.ravel()]).reshape(array.shape)
        wrong = ~self.holds(array)
        if wrong.any():
            self(array[wrong][0], name)
        return array if isinstance(values, list | tuple) else values


SEED = Range(0, 2**64 - 1, whole=True)


def one_of(*names: str) -> Rule:
    """Return the rule for one of several names."""
    words = " or ".join(part for part in (", ".join(map(repr, names[:-1])), repr(names[-1])) if part)

    def rule(value: Any, name: str) -> str:
        if not isinstance(value, str) or value not in names:
            raise ParameterError(f"`{name}` must be {words}, got {shown(value)}.")
        return str(value)

    return rule


def or_none(rule: Rule) -> Rule:
    """Return a rule that also allows None."""
    return lambda value, name: None if value is None else rule(value, name)


def instance(kind: type) -> Rule:
    """Return the rule for an object of a class."""

    def rule(value: Any, name: str) -> Any:
        if not isinstance(value, kind):
            raise ParameterError(f"`{name}` must be a {kind.__name__}, got {shown(value)}.")
        return value

    return rule


LEVELS = {
    "law": "mean curves of the law, without group effects, discrepancy and residual noise",
    "expected": "expected losses of new student configurations, with group effects and discrepancy, without residual noise",
    "run": "single runs, with group effects, discrepancy and residual noise",
}
"""Levels of uncertainty, and what they compare."""
NOISE = tuple(LEVELS)


def tuple_of(kind: type) -> Rule:
    """Return the rule for a tuple of objects of a class."""

    def rule(value: Any, name: str) -> tuple[Any, ...]:
        if not isinstance(value, tuple | list):
            raise ParameterError(f"`{name}` must be a tuple of {kind.__name__}, got {shown(value)}.")
        return tuple(instance(kind)(one, name) for one in value)

    return rule


def generator(value: Any, name: str) -> Any:
    """Return a seed or a NumPy generator."""
    return value if isinstance(value, np.random.Generator) else SEED(value, name)


def switch(value: Any, name: str) -> bool:
    """Return a value that is True or False."""
    if not isinstance(scalar(value), int) or scalar(value) not in (0, 1):
        raise ParameterError(f"`{name}` must be True or False, got {shown(value)}.")
    return bool(value)


_WIDTHS = ("asymptotic_width", "perfect_teacher_width", "limited_data_width")


def prior_settings(value: Any, name: str) -> dict[str, Any]:
    """Return the keyword arguments of `priors.default_priors`."""
    known = ("tolerance", *_WIDTHS)
    if not isinstance(value, Mapping) or not set(value) <= set(known):
        raise ParameterError(
            f"`{name}` must be a mapping of {', '.join(known[:-1])} and {known[-1]}, got {shown(value)}."
        )
    return {key: RULES[key](number, key) for key, number in value.items()}


def function(value: Any, name: str) -> Any:
    """Return a callable."""
    if not callable(value):
        raise ParameterError(f"`{name}` must be a function, got {shown(value)}.")
    return value


def progress(value: Any, name: str) -> Any:
    """Return a callable, True, False or None."""
    return value if value is None or callable(value) else switch(value, name)


def executor(value: Any, name: str) -> Any:
    """Return an executor or None."""
    if value is not None and not callable(getattr(value, "submit", None)):
        raise ParameterError(
            f"`{name}` must be a concurrent.futures.Executor, got {type(value).__name__}. For a Dask cluster, use "
            "client.get_executor()."
        )
    return value


PARAMS = Range(QUANTITIES["params"].fewest, QUANTITIES["params"].most, QUANTITIES["params"].units)
TOKENS = Range(QUANTITIES["tokens"].fewest, QUANTITIES["tokens"].most, QUANTITIES["tokens"].units)
LOSS = Range(QUANTITIES["loss"].fewest, QUANTITIES["loss"].most, QUANTITIES["loss"].units, above=True)
FLOPS = Range(QUANTITIES["compute"].fewest, QUANTITIES["compute"].most, QUANTITIES["compute"].units)
RATIO = Range(1e-6, 1e9, "tokens per parameter")
SHARE = Range(0, 1, "(1/K if K students share the teacher)")
WORKERS = Range(1, 10_000, whole=True)

SAMPLED = Range(4, 1_000_000, whole=True)
"""Draws of each chain of a sampler."""

RANGES = MappingProxyType(
    {
        **dict.fromkeys(("students", "student_params", "teacher_params", "params"), PARAMS),
        # A bound may be far outside the sizes of all models; it then has no effect.
        "min_teacher_params": PARAMS,
        "max_teacher_params": Range(PARAMS.low, 1e4 * PARAMS.high, PARAMS.units),
        **dict.fromkeys(
            ("max_student_tokens", "max_teacher_tokens", "unique_tokens"),
            Range(TOKENS.low, 1e4 * TOKENS.high, TOKENS.units),
        ),
        **dict.fromkeys(("tokens", "student_tokens", "teacher_tokens"), TOKENS),
        "served_tokens": Range(0, 1e4 * TOKENS.high, TOKENS.units),
        **dict.fromkeys(("student_tokens_per_param", "teacher_tokens_per_param"), RATIO),
        **dict.fromkeys(("teacher_loss", "teacher_losses", "losses"), LOSS),
        **dict.fromkeys(("budget", "budgets", "student_budget", "teacher_budget", "cutoffs"), FLOPS),
        **dict.fromkeys(("compute", "batch_compute"), Range(1, 1e40, "FLOPs")),
        "batch_money": Range(1e-6, 1e15),
        "max_compute": Range(1e12, 1e40, "FLOPs"),
        "students_per_teacher": Range(1, 1e12, "students"),
        "max_students_per_teacher": Range(1, 1e12, "students", above=True),
        **dict.fromkeys(("gpu_flops_per_second", "inference_flops_per_second"), Range(1e3, 1e24, "FLOPs per second")),
        **dict.fromkeys(("price_per_gpu_hour", "inference_price_per_gpu_hour"), Range(1e-6, 1e9)),
        "counts": Range(1, 1e9, "students", whole=True),
        "weights": Range(1e-9, 1e18),
    }
)
"""Arguments of decisions that can be written as text and may be lists."""

RULES: MappingProxyType[str, Rule] = MappingProxyType(
    {
        # Decisions
        **dict.fromkeys(("delta_lgt", "delta_pre", "new_delta_pre"), SHARE),
        "weight": Range(1e-9, 1e18),
        "threshold": Range(0.5, 0.9999, above=True),
        "indifference": Range(0, 10, "nats"),
        "max_extrapolation": or_none(Range(1, math.inf)),
        # Models and samplers
        "widen": Range(1, 1000),
        "between_studies": Range(0, math.sqrt(2)),
        "tolerance": Range(1e-6, 10, "nats"),
        **dict.fromkeys(_WIDTHS, or_none(Range(1e-12, 10, "nats"))),
        "tune": Range(1, 1_000_000, whole=True),
        "chains": Range(1, 1000, whole=True),
        "target_accept": Range(0.1, 0.9999),
        **dict.fromkeys(("cores", "threads"), WORKERS),
        "piece": Range(1, 1_000_000, "budgets", whole=True),
        "width": Range(20, 1_000_000, "characters", whole=True),
        "draws": Range(1, 1_000_000, whole=True),
        "seed": SEED,
        # Criticism and design
        "prob": Range(0.001, 0.9999),
        "points": Range(2, 100_000, whole=True),
        "bins": Range(2, 10_000, whole=True),
        "max_draws": Range(2, 1_000_000, whole=True),
        "shuffles": Range(20, 1_000_000, whole=True),
        "simulations": Range(1, 1_000_000, whole=True),
        "parts": Range(2, 10_000, whole=True),
        "batch": Range(1, 1_000_000, whole=True),
        "outcomes": Range(2, 1_000_000, whole=True),
        "repeats": Range(1, 100_000, whole=True),
        **dict.fromkeys(("sigma", "teacher_sd", "student_sd"), Range(0, 10, "nats")),
        "min_effective_draws": Range(0, 1e9),
        # Switches and objects
        **dict.fromkeys(("allow_suspicious", "allow_unconverged", "allow_conflict", "include_failed", "dark"), switch),
        "progress": progress,
        "prior_settings": or_none(prior_settings),
        "executor": executor,
    }
)
"""Arguments that `checked` and `check_fields` check."""


@overload
def checked[F: Callable[..., Any]](function: F) -> F: ...
@overload
def checked[F: Callable[..., Any]](**own: Rule | None) -> Callable[[F], F]: ...
def checked(function: Any = None, **own: Rule | None) -> Any:
    """Decorate a function so that rules check its arguments. An argument equal to its default is not checked."""
    if function is None:
        return functools.partial(checked, **own)
    defaults = {name: p.default for name, p in inspect.signature(function).parameters.items()}
    rules = {name: own.get(name, RULES.get(name)) for name in defaults}

    def check(name: str, value: Any) -> Any:
        rule = rules.get(name)
        return value if rule is None or value is defaults[name] else rule(value, name)

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        positional = [check(name, value) for name, value in zip(defaults, args, strict=False)]
        return function(
            *positional, *args[len(positional) :], **{name: check(name, value) for name, value in named.items()}
        )

    return call


def check_fields(made: Any, **own: Rule) -> None:
    """Check the fields of a frozen dataclass by their rules, after it is made; a field equal to its default is not checked."""
    for field in fields(made):
        rule, value = own.get(field.name, RULES.get(field.name)), getattr(made, field.name)
        if rule is not None and value is not field.default:
            object.__setattr__(made, field.name, rule(value, field.name))
