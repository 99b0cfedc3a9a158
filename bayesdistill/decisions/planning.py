"""`Planner`: a fit with the options that decisions share.

A decision function takes a fit and keywords, or a Planner. It names the keywords that it uses with a TypedDict
(`**options: Unpack[...]`), and `with_options` completes its signature and its docstring from the fields of Planner and from the
arguments described below. So every option has one default and one description.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypedDict, get_args, get_type_hints

import numpy as np

from bayesdistill import posterior
from bayesdistill.arguments import NOISE, check_fields, instance, one_of
from bayesdistill.compute import PUBLISHED_SHAPE, Shape
from bayesdistill.decisions import arguments
from bayesdistill.decisions.arguments import Number, Numbers, Scenarios, Teachers, TeacherTable
from bayesdistill.decisions.extrapolation import within_factor
from bayesdistill.decisions.fitted_draws import FittedDraws, gather
from bayesdistill.decisions.solving import Workers
from bayesdistill.errors import ParameterError
from bayesdistill.law import PUBLISHED_REPETITION, RepetitionPrior
from bayesdistill.law.predictive import Deviations, has_noise
from bayesdistill.progress import Progress
from bayesdistill.strategies import Bounds, Problem, tokens_bought

SAME = "same"
"""Upper bound on the teacher's tokens in `plan_tokens`: the student's tokens."""


@dataclass(frozen=True, eq=False)
class Planner:
    """A fit with the options that decisions share.

    Every function that takes a fit to make decisions also takes a Planner. Keywords of the function override its options. A
    function ignores the options that it does not have as keywords. Convergence is checked once.

    Parameters
    ----------
    fit : DataTree or Dataset
        The result of `fit` or `load`, or a Dataset of draws of the law's parameters over chain and draw. Convergence is not
        checked for a Dataset.
    min_teacher_params : float or str
        Lower bound on the teacher's parameters.
    max_teacher_params : float or str
        Upper bound on the teacher's parameters.
    max_teacher_tokens : float or str
        Upper bound on the teacher's tokens. In `plan_tokens`, "same" restricts the teacher to the student's tokens.
    max_extrapolation : float, optional
        Largest extrapolation factor of a new teacher: its size, its tokens per parameter and its loss are at most this many times
        outside the range of the data (a factor of its loss is one of the size of models with this loss; see
        `bayesdistill.decisions.extrapolation`). None allows every teacher within the other bounds. Student tokens are never
        restricted, neither of distillation nor of pretraining, and teachers of a table are never excluded; results mark both as
        extrapolated. Without known ranges, as for a Dataset of draws, there is no restriction. In `recommendations` and
        `paper_claims`, no advice or verdict is conclusive if a factor, also of the student, exceeds this.
    max_student_tokens : float or str, optional
        Upper bound on the student's tokens, distilled or pretrained; by default, only the budget limits them.
    unique_tokens : float or str, optional
        Unique tokens of the corpus from which teachers and students are trained. Models may read them several times, with less
        effect; by default, all tokens are different. Existing teachers keep their measured losses.
    repetition : RepetitionPrior
        Prior of the constants of the rule for `unique_tokens`.
    shape : Shape
        Architecture parameters that determine FLOPs per token.
    gpu_flops_per_second : float or str, optional
        Achieved FLOPs per second of one accelerator in training (peak times utilization). Required for GPU-hours.
    price_per_gpu_hour : float or str, optional
        Price of one GPU-hour of training. Required for money.
    inference_flops_per_second : float or str, optional
        Achieved FLOPs per second of one accelerator in the teacher's inference; by default, the value for training.
    inference_price_per_gpu_hour : float or str, optional
        Price of one GPU-hour of inference; by default, the price for training.
    currency : str
        Unit of the prices.
    noise : {"expected", "law", "run"}
        Level of uncertainty: what advantages and probabilities compare. "expected": expected losses, with the effects of new student
        configurations and, if the law has one, the discrepancy, which grows with the distance from the data. "law": the law's mean
        curves, without both; its probabilities are overconfident. "run": single runs, with residual noise in addition to both. The
        attribute `noise` of a result names its level. It is "law" instead of "expected" for draws of the law's parameters alone.
    draws : int
        Number of posterior draws, evenly spaced within each chain and at least one of each, for which a plan finds the strategy with
        perfect information; all draws if there are fewer. 1,000 draws suffice for its summaries; Monte Carlo errors require four in
        each chain. `predict` and `interactive_page`
        have other arguments of this name.
    seed : int
        Random seed of all random numbers, such as the noise of single runs and the discrepancy outside the data.
    allow_unconverged : bool
        Use a posterior that failed convergence checks, with a warning. The attributes of the results record this.
    allow_conflict : bool
        Decide although the runs contradict the supervised law, as runs of another corpus do, with a warning. All results carry it.
    executor : concurrent.futures.Executor, optional
        Executor that solves pieces of the problem; for a Dask cluster, `client.get_executor()`.
    threads : int, optional
        Number of threads in one process.
    piece : int, optional
        Number of budgets that are solved at once; by default, memory determines it.
    progress : bool or callable, optional
        True shows a progress bar, None (the default) shows it in a terminal or a notebook, False shows nothing. A callable
        receives (finished pieces, total pieces).

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> small_teachers = bd.Planner(published, max_teacher_params="10B", progress=False)
    >>> bd.plan(small_teachers, "1B", 1e23, "best case")["teacher_params"].item() <= 10e9
    True
    >>> bd.plan(small_teachers, "1B", 1e23, "best case", max_teacher_params="1B")["teacher_params"].item() <= 1e9
    True
    """

    fit: posterior.Fit = field(repr=False)
    _: KW_ONLY
    min_teacher_params: Number = 1e6
    max_teacher_params: Number = 1e12
    max_teacher_tokens: Number = 2e13
    max_student_tokens: Number | None = None
    max_extrapolation: float | None = 10.0
    unique_tokens: Number | None = None
    repetition: RepetitionPrior = PUBLISHED_REPETITION
    shape: Shape = PUBLISHED_SHAPE
    gpu_flops_per_second: Number | None = None
    price_per_gpu_hour: Number | None = None
    inference_flops_per_second: Number | None = None
    inference_price_per_gpu_hour: Number | None = None
    currency: str = "USD"
    noise: str = "expected"
    draws: int = 1000
    seed: int = 0
    allow_unconverged: bool = False
    allow_conflict: bool = False
    executor: Executor | None = None
    threads: int | None = None
    piece: int | None = None
    progress: Progress = None

    def __post_init__(self) -> None:
        if isinstance(self.fit, Planner):
            raise ParameterError(
                "`fit` is a Planner already. Change its options with dataclasses.replace(planner, ...)."
            )
        check_fields(self, shape=instance(Shape), noise=one_of(*NOISE), repetition=instance(RepetitionPrior))
        if self.unique_tokens is not None:
            object.__setattr__(self, "unique_tokens", arguments.parse_number(self.unique_tokens, "unique_tokens"))
        same = isinstance(self.max_teacher_tokens, str) and self.max_teacher_tokens == SAME
        given_bounds(replace(self, max_teacher_tokens=2e13) if same else self)

    @cached_property
    def gathered(self) -> FittedDraws:
        """Draws of the fit, after checking convergence and corpus."""
        return gather(self.fit, self.allow_unconverged, self.allow_conflict, self.seed)

    @cached_property
    def fitted(self) -> FittedDraws:
        """Draws of the fit for the unique tokens of the corpus."""
        return self.limited(self.gathered)

    def limited(self, fitted: FittedDraws) -> FittedDraws:
        """Return draws for the unique tokens of the corpus; the same draws if these are not limited."""
        unique = self.unique_tokens
        return fitted if unique is None else fitted.limited(float(unique), self.repetition, self.seed)

    @property
    def largest_factor(self) -> float:
        """Largest extrapolation factor of a new teacher, infinite if it is not restricted."""
        return math.inf if self.max_extrapolation is None else float(self.max_extrapolation)

    @property
    def level(self) -> str:
        """Level of uncertainty: `noise`, or "law" instead of "expected" if the draws have the law's parameters alone."""
        return "law" if self.noise == "expected" and not has_noise(self.fitted.draws) else self.noise


Source = posterior.Fit | Planner


def fit_of(source: Source) -> posterior.Fit:
    """Return the fit of a Planner, or the fit itself."""
    return source.fit if isinstance(source, Planner) else source


class Unconverged(TypedDict, total=False):
    """Options of functions that only use draws."""

    allow_unconverged: bool
    allow_conflict: bool


class Costs(Unconverged, total=False):
    """Options of functions that compute FLOPs."""

    shape: Shape


class Money(TypedDict, total=False):
    """Options of functions whose results have GPU-hours and money."""

    gpu_flops_per_second: Number | None
    price_per_gpu_hour: Number | None
    inference_flops_per_second: Number | None
    inference_price_per_gpu_hour: Number | None
    currency: str


class Noise(Unconverged, total=False):
    """Options of functions whose results have a level of uncertainty."""

    noise: str
    seed: int


class TeacherBounds(Costs, total=False):
    """Options of functions that choose a teacher."""

    min_teacher_params: Number
    max_teacher_params: Number
    max_teacher_tokens: Number
    max_extrapolation: float | None


class StrategyBounds(TeacherBounds, total=False):
    """Options of functions that choose a strategy."""

    max_student_tokens: Number | None


class LimitedData(TypedDict, total=False):
    """Options of functions that plan with a limited number of unique tokens."""

    unique_tokens: Number | None
    repetition: RepetitionPrior
    seed: int


class Work(TypedDict, total=False):
    """Options of long computations."""

    executor: Executor | None
    threads: int | None
    progress: Progress


class Search(StrategyBounds, Work, total=False):
    """Options of functions that search for strategies."""


class GridSearch(Search, total=False):
    """Options of functions that search for strategies on a grid of budgets."""

    piece: int | None


class PlanOptions(TypedDict, total=False):
    """Options of functions that find the strategy with perfect information for some of the draws."""

    draws: int


class NoisyGridSearch(GridSearch, Noise, total=False):
    """Options of functions that search for strategies on a grid and compare losses at a level of uncertainty."""


class NoisySearch(NoisyGridSearch, PlanOptions, total=False):
    """Options of functions that also find the strategy with perfect information for some of the draws."""


class LimitedGridSearch(NoisyGridSearch, LimitedData, total=False):
    """Options of functions that do the same with a limited number of unique tokens."""


class LimitedSearch(NoisySearch, LimitedData, total=False):
    """Options of functions that also find the strategy with perfect information, with a limited number of unique tokens."""


def planner_of(
    function: Callable[..., Any], fit: Source, options: Mapping[str, Any], *, distilled: bool = True
) -> Planner:
    """Return the Planner of a call: the fit with its options, or the Planner with the options that are overridden.

    Parameters
    ----------
    function : callable
        The called function, decorated with `with_options`.
    fit : DataTree, Dataset or Planner
    options : mapping
        The keywords of the call.
    distilled : bool
        Whether a distillation law is required.

    Raises
    ------
    TypeError
        If the function does not have one of the options.
    ParameterError
        If a distillation law is required and the fit has none.
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False.
    ConflictError
        If the runs contradict the supervised law and `allow_conflict` is False.
    """
    check_options(function, options)
    planner = changed(fit, **options) if isinstance(fit, Planner) else Planner(fit, **options)
    # A plan that is given has its own unique tokens.
    if (
        planner.unique_tokens is not None
        and not {"unique_tokens", "plan"} & inspect.signature(function).parameters.keys()
    ):
        raise ParameterError(
            f"{function.__name__} does not have the option `unique_tokens` of this Planner. Pass the fit, or a Planner without it."
        )
    if distilled and not planner.fitted.draws.law.distills:
        raise ParameterError(
            "The fit has the supervised law alone, but decisions about distillation require a distillation law. Fit "
            "distilled runs with bd.fit(runs) or bd.fit(runs, supervised=...). For pretraining alone, use bd.predict or "
            "bd.compute_optimal."
        )
    return planner


def changed(planner: Planner, **options: Any) -> Planner:
    """Return the Planner with other options. It shares the draws of the fit, whose warnings then appear once."""
    found = replace(planner, **options)
    if all(getattr(found, name) == getattr(planner, name) for name in Unconverged.__annotations__):
        same = found.seed == planner.seed
        vars(found)["gathered"] = planner.gathered if same else planner.gathered.reseeded(found.fit, found.seed)
    return found


def check_options(function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise a TypeError if a function does not have one of the options."""
    for name in options.keys() - inspect.signature(function).parameters.keys():
        raise TypeError(f"{function.__name__}() got an unexpected keyword argument {name!r}")


def bounds_of(planner: Planner) -> Bounds:
    """Return the bounds on teachers and student tokens of a Planner, with those that keep its largest extrapolation factor."""
    bounds = within_factor(planner.fitted, given_bounds(planner), planner.largest_factor)
    if not bounds.hold_something:
        raise ParameterError(
            f"No new teacher within the bounds is within a factor of {planner.largest_factor:g} of the range of the data, so no "
            "teacher is left. Increase `max_extrapolation`, set it to None, or relax the bounds."
        )
    return bounds


def given_bounds(planner: Planner) -> Bounds:
    """Return the bounds that are given in a Planner."""
    given = {of.name: getattr(planner, of.name) for of in fields(Bounds) if hasattr(planner, of.name)}
    bounds = Bounds(**{name: arguments.parse_number(value, name) for name, value in given.items() if value is not None})
    if bounds.min_teacher_params > bounds.max_teacher_params:
        raise ParameterError(
            f"`min_teacher_params` ({bounds.min_teacher_params:g}) is larger than `max_teacher_params` "
            f"({bounds.max_teacher_params:g}), so no teacher is left. Increase the maximum or decrease the minimum."
        )
    if bounds.max_teacher_tokens < bounds.min_teacher_tokens:
        raise ParameterError(
            f"`max_teacher_tokens` is {bounds.max_teacher_tokens:g}, but teachers are trained on at least "
            f"{bounds.min_teacher_tokens:g} tokens, so no teacher is left. Increase it."
        )
    return bounds


def workers_of(planner: Planner) -> Workers:
    """Return the executor, threads and progress of a Planner."""
    return Workers(planner.executor, planner.threads, planner.progress, planner.piece)


def deviations_of(planner: Planner) -> Deviations | None:
    """Return the deviations of a pair of runs from the law, or None if the Planner compares the law's mean losses."""
    return None if planner.level == "law" else Deviations.draw(planner.fitted.draws, planner.seed, planner.level)


def deviations_of_students(planner: Planner, sizes: np.ndarray) -> list[Deviations | None]:
    """Return deviations for each of several students.

    Effects of student configurations and residuals are independent; the discrepancy is a path of the draws and therefore common. The
    smallest student has the deviations of `deviations_of`.
    """
    if planner.level == "law":
        return [None] * sizes.size
    ranks = np.argsort(np.argsort(sizes)).tolist()
    draws = planner.fitted.draws
    return [Deviations.draw(draws, (planner.seed + rank) % 2**64, planner.level) for rank in ranks]


def at_level(
    deviations: Deviations | None, problem: Problem, gain: np.ndarray, solved: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return an advantage at a level of uncertainty.

    Parameters
    ----------
    deviations : Deviations or None
        Of the draws, from `deviations_of`.
    problem : Problem
    gain : ndarray
        Pretrained minus distilled loss on the law's mean curves, (student, scenario, budget, n_draws), nats per token.
    solved : mapping
        student_tokens and teacher_loss of the strategies, from `solving.solve`.
    """
    if deviations is None:
        return gain
    pretrained, distilled = losses_at_level(deviations, problem, 0.0, {**solved, "loss": np.zeros(gain.shape)})
    return np.asarray(gain + (pretrained[:, None] - distilled))


def losses_at_level(
    deviations: Deviations | None, problem: Problem, alone: Any, solved: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pretrained and the distilled losses at a level of uncertainty, in nats per token.

    Parameters
    ----------
    deviations : Deviations or None
        Of the draws, from `deviations_of`.
    problem : Problem
    alone : ndarray
        Pretrained losses on the law's mean curves, (student, budget, n_draws).
    solved : mapping
        loss (student, scenario, budget, n_draws), student_tokens and teacher_loss of the strategies, from `solving.solve`.
    """
    if deviations is None:
        return alone, solved["loss"]
    tokens = solved["student_tokens"]
    tokens = tokens if tokens.ndim == solved["loss"].ndim else tokens[..., None]
    bought = np.stack([tokens_bought(problem, one, problem.budgets) for one in range(problem.students.size)])
    sizes = problem.students[:, None, None]
    pretrained = alone + deviations.pretrained(
        sizes, np.maximum(bought, 1.0)[..., None]
    )  # a smaller budget has no loss
    return pretrained, solved["loss"] + deviations.distilled(sizes[..., None], tokens, solved["teacher_loss"])


def noise_attributes(planner: Planner) -> dict[str, Any]:
    """Return the level of uncertainty, and its seed if it is random, as attributes."""
    return {"noise": planner.level} | ({} if planner.level == "law" else {"noise_seed": int(planner.seed)})


def problem_of(
    planner: Planner,
    students: Numbers,
    budgets: Numbers | None,
    scenarios: Scenarios,
    teachers: Teachers | None = None,
) -> tuple[Problem, TeacherTable | None]:
    """Return the problem of a call, with an unlimited budget if None, and its table of existing teachers."""
    table = arguments.parse_teachers(teachers, planner.fitted.teacher_losses)
    charged, left_out = arguments.charged_scenarios(scenarios, table)
    if table is not None:
        table = replace(table, attrs=left_out)
    problem = Problem(
        arguments.parse_students(students),
        np.array([np.inf]) if budgets is None else arguments.parse_budgets(budgets),
        charged,
        bounds_of(planner),
        planner.shape,
        teachers=None if table is None else table.arrays(),
    )
    return problem, table


# Signatures and docstrings ------------------------------------------------------------------------------------------

_ARGUMENTS = """
fit : DataTree, Dataset or Planner
    The result of `fit` or `load`; or a Dataset of draws of the law's parameters over chain and draw, whose convergence is not
    checked; or a `Planner`, a fit with options.
students : float, str, or a list of them
    Non-embedding parameters, such as 3e8 or "300M". The result keeps their order.
budgets : float, str, or a list of them
    FLOPs for one student, in any order. The result sorts them.
scenarios : str, Scenario, or a list of them
    Cost scenarios: who pays for the teacher. The default ones that charge for pretraining are left out if existing teachers have
    no tokens; the attribute `scenarios_left_out` lists them.
teachers : DataFrame, Dataset or path, optional
    Existing teachers, one per row: params, loss (measured, nats per token), and optionally name and tokens. The strategy
    then uses one of them. Implausible values raise a DataError; to accept them, set ``attrs["allow_suspicious"] = True``. By
    default, the strategy uses a new teacher within the bounds, with the loss predicted by the
    supervised law.
"""
_RAISES = """DataError
    If the table of teachers is invalid.
ParameterError
    If an argument is invalid, or the fit has no distillation law.
ConvergenceError
    If the posterior did not converge and `allow_unconverged` is False.
ConflictError
    If the runs contradict the supervised law, as runs of another corpus do, and `allow_conflict` is False.
"""
_HEADING = re.compile(r"^(\w+)\n-+\n", re.MULTILINE)
_ENTRY = re.compile(r"^(\w[\w, ]*?)(?: : .*)?\n(?:(?:    .*)?\n)*", re.MULTILINE)


def with_options[F: Callable[..., Any]](function: F) -> F:
    """Complete the signature and the docstring of a function with the options in the TypedDict of its `options`.

    Parameters and errors without a description get the shared one.
    """
    names = get_args(get_type_hints(function)["options"])[0].__annotations__
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    shared = [p for p in inspect.signature(Planner).parameters.values() if p.name in names]
    function.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
    if function.__doc__:
        sections = _sections(function.__doc__)
        described = _entries(_sections(Planner.__doc__)["Parameters"]) | _entries(_ARGUMENTS)
        described |= _entries(sections.pop("Parameters", ""))
        errors = _entries(_RAISES) | _entries(sections.pop("Raises", ""))
        ordered = {
            "": sections.pop(""),
            "Parameters": "".join(dict.fromkeys(described[p.name] for p in [*own, *shared])),
            "Returns": sections.pop("Returns"),
            "Raises": "".join(dict.fromkeys(errors.values())),
        }
        function.__doc__ = "\n".join(
            f"{title}\n{'-' * len(title)}\n{text.strip()}\n" if title else text
            for title, text in (ordered | sections).items()
        )
    return function


def _sections(docstring: str | None) -> dict[str, str]:
    """Split a docstring into its sections: heading -> text; the summary has no heading."""
    summary, *rest = _HEADING.split(inspect.cleandoc(docstring or "") + "\n")
    return {"": summary.strip() + "\n"} | dict(zip(rest[::2], rest[1::2], strict=True))


def _entries(text: str) -> dict[str, str]:
    """Split a section of parameters: name -> entry."""
    return {name: m[0].rstrip() + "\n" for m in _ENTRY.finditer(text) for name in m[1].split(", ")}
