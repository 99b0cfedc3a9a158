"""Choice among existing teachers, and the capacity gap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
import xarray as xr

from bayesdistill.answers import FLOPS, NATS, ONE, PARAMS, TOKENS, Codes, variable
from bayesdistill.arguments import checked
from bayesdistill.compute import Shape, pretraining_tokens
from bayesdistill.decisions import labels, planning
from bayesdistill.decisions.arguments import (
    Number,
    Numbers,
    Scenarios,
    Teachers,
    TeacherTable,
    parse_numbers,
    parse_students,
)
from bayesdistill.decisions.extrapolation import (
    CHOICE_AXES,
    DISTILLED_AXES,
    TEACHER_AXES,
    choice_factors,
    described,
    distilled_factors,
    teacher_factors,
)
from bayesdistill.decisions.fitted_draws import FittedDraws
from bayesdistill.decisions.reductions import mean_of, probability_of, probability_positive, quantiles_of
from bayesdistill.decisions.solving import CHOSEN, PERFECT_INFORMATION, Workers, solve
from bayesdistill.decisions.spending import epochs_note, tokens_and_shares
from bayesdistill.errors import ParameterError
from bayesdistill.law import Draws
from bayesdistill.strategies import STATUS, Problem, supervised_losses

_STEP = 1e-6


class TeacherOptions(planning.GridSearch, planning.LimitedData, total=False):
    """Options of `teacher_choice`."""


@checked
@planning.with_options
def teacher_choice(
    fit: planning.Source,
    teachers: Teachers,
    students: Numbers,
    budgets: Numbers,
    scenarios: Scenarios = "teacher inference",
    *,
    new_delta_pre: float = 1.0,
    **options: Unpack[TeacherOptions],
) -> xr.Dataset:
    """Return which existing teacher is the best, and with what probability.

    Parameters
    ----------
    teachers : DataFrame, Dataset or path
        One per row: params, loss (measured, nats per token), and optionally name and tokens.
    scenarios : str, Scenario, or a list of them
        Charged fractions of the existing teacher's costs; usually its inference.
    new_delta_pre : float
        Fraction of its pretraining that a newly trained teacher is charged in the comparison; 1/K if K students share it.

    Returns
    -------
    Dataset
        Over student, scenario, budget, teacher: distilled_loss (with chain, draw; its quantiles in distilled_loss_quantile),
        expected_loss, student_tokens, student_share, teacher_inference_share and teacher_training_share (fractions of the budget),
        probability_best, probability_stronger_worse (that the next stronger teacher in the table gives a worse student,
        because of the capacity gap or its higher cost), probability_new_better (that the chosen strategy with a newly
        trained teacher is better), probability_pretraining_better, regret (expected loss of this choice relative to the best
        teacher of the table in each draw); each probability with its _mcse; extrapolation_factor over `axis`, extrapolation
        (the largest of them), extrapolation_axis (its axis) and extrapolates, of the student and the teacher's loss. Over
        student, scenario, budget: new_extrapolation, new_extrapolation_axis (of the strategy with a newly trained teacher),
        chosen (position of the teacher with the smallest expected loss; -1 if none is affordable), evpi (value of perfect
        information about the law for this choice), new_teacher_params, new_teacher_tokens, new_status; with chain, draw:
        new_distilled_loss, supervised_loss (no scenario; its quantiles in supervised_loss_quantile). Over student, budget:
        pretraining_tokens. Over teacher: teacher_params, measured_loss, stronger (position of
        the next stronger teacher; -1 for the strongest). A teacher that is not affordable has NaN losses and
        probability_best 0.

    Notes
    -----
    The measured losses are treated as exact; the posterior describes the uncertainty of the law only.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import pandas as pd, xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> table = pd.DataFrame({"name": ["small", "large"], "params": [1e9, 7e9], "loss": [2.25, 2.05]})
    >>> found = bd.teacher_choice(published, table, "300M", 1e20)
    >>> str(found["teacher"].values[found["chosen"].item()])
    'small'
    """
    planner = planning.planner_of(teacher_choice, fit, options)
    fitted, workers = planner.fitted, planning.workers_of(planner)
    problem, table = planning.problem_of(planner, students, budgets, scenarios, teachers)
    if table is None:
        raise ParameterError("`teachers` must be a table of existing teachers. To plan with new teachers, use bd.plan.")
    shared = tuple(replace(s, delta_pre=new_delta_pre) for s in problem.scenarios)
    new = solve(CHOSEN, fitted.draws, replace(problem, scenarios=shared, teachers=None), workers)
    losses, tokens = _losses_of_each(fitted, problem, table, workers)
    alone = supervised_losses(fitted.draws, problem)
    # The next stronger teacher of each teacher; the strongest has none.
    order = np.argsort(table.loss, kind="stable")[::-1]
    stronger = np.full(len(table.names), -1)
    stronger[order[:-1]] = order[1:]
    next_losses = np.where((stronger >= 0)[:, None], losses[:, :, :, stronger], np.nan)
    factors = distilled_factors(fitted, problem.students[:, None, None, None], tokens, table.loss)
    strategy = new | {"teacher_loss": new["teacher_loss"].mean(axis=-1)}
    of_new = choice_factors(
        fitted, replace(problem, teachers=None), problem.students[:, None, None], problem.budgets, strategy
    )
    far = described(of_new, CHOICE_AXES, ~np.isnan(new["student_tokens"]))
    values = {
        **described(factors, DISTILLED_AXES, ~np.isnan(tokens)),
        **{f"new_{name}": far[name] for name in ("extrapolation", "extrapolation_axis")},
        "distilled_loss": losses,
        "distilled_loss_quantile": quantiles_of(losses, labels.QUANTILES),
        "supervised_loss_quantile": quantiles_of(alone, labels.QUANTILES),
        "student_tokens": tokens,
        **tokens_and_shares(problem, {"student_tokens": tokens, **_of_table(table)}, fitted.draws.repetition),
        "probability_stronger_worse": probability_positive(fitted, next_losses - losses),
        "probability_new_better": probability_positive(fitted, losses - new["loss"][:, :, :, None]),
        "probability_pretraining_better": probability_positive(fitted, losses - alone[:, None, :, None]),
        "supervised_loss": alone,
        "new_distilled_loss": new["loss"],
        **{f"new_{name}": new[name] for name in ("teacher_params", "teacher_tokens")},
        "new_status": Codes(new["status"], STATUS),
        "teacher_params": table.params,
        "measured_loss": table.loss,
        "stronger": stronger,
    }
    coordinates = labels.grid_coordinates(problem) | {"teacher": list(table.names), "axis": list(DISTILLED_AXES)}
    coordinates["quantile"] = list(labels.QUANTILES)
    attrs = labels.setting_attributes(problem.bounds, problem.shape) | fitted.attrs
    attrs |= table.attrs | {"new_delta_pre": float(new_delta_pre)} | epochs_note(values)
    return labels.answer("teacher_choice", fitted, values | _choice(fitted, losses), coordinates, attrs)


def _of_table(table: TeacherTable) -> dict[str, np.ndarray]:
    unknown = np.full(table.params.size, np.nan)
    return {"teacher_params": table.params, "teacher_tokens": unknown if table.tokens is None else table.tokens}


def _losses_of_each(
    fitted: FittedDraws, problem: Problem, table: TeacherTable, workers: Workers
) -> tuple[np.ndarray, np.ndarray]:
    """Return the student's loss (..., teacher, n_draws) and tokens (..., teacher)."""
    quiet = Workers(workers.executor, workers.threads)
    alone = [
        replace(problem, teachers=tuple(values[k : k + 1] for values in table.arrays()))
        for k in range(len(table.names))
    ]
    found = [solve(PERFECT_INFORMATION, fitted.draws, one, quiet) for one in alone]
    losses, tokens = ([of_one[name] for of_one in found] for name in ("loss", "student_tokens"))
    return np.stack(losses, axis=3), np.stack(tokens, axis=3)[..., 0]


def _choice(fitted: FittedDraws, losses: np.ndarray) -> dict[str, Any]:
    """Return the choice from the table, its regret and its value of perfect information; losses (..., teacher, n_draws)."""
    comparable = np.where(np.isnan(losses), np.inf, losses)
    lowest = comparable.min(axis=3)
    payable = np.isfinite(lowest[..., 0])
    expected, _ = mean_of(fitted, losses)
    ranked = np.where(np.isnan(expected), np.inf, expected)
    with np.errstate(invalid="ignore"):
        regret = np.where(np.isnan(expected), np.nan, (losses - lowest[..., None, :]).mean(axis=-1))
        evpi = np.where(payable, ranked.min(axis=3) - lowest.mean(axis=-1), np.nan)
    # Each draw has one best teacher; ties go to the first.
    first = comparable.argmin(axis=3)[:, :, :, None, :] == np.arange(losses.shape[3])[:, None]
    known = np.broadcast_to(payable[..., None, None], first.shape)
    return {
        "expected_loss": expected,
        "regret": regret,
        "probability_best": probability_of(fitted, first & np.isfinite(comparable), known),
        "chosen": np.where(payable, ranked.argmin(axis=3), -1),
        "evpi": evpi,
    }


@checked
@planning.with_options
def capacity_gap(
    fit: planning.Source,
    students: Numbers,
    *,
    student_tokens: Numbers | None = None,
    student_tokens_per_param: Numbers | None = None,
    student_budget: Numbers | None = None,
    teacher_losses: Numbers | None = None,
    teacher_params: Numbers | None = None,
    teacher_tokens_per_param: Number | None = None,
    teacher_budget: Number | None = None,
    **options: Unpack[planning.Costs],
) -> xr.Dataset:
    """Return the student loss as a function of the teacher, with its uncertainty.

    Parameters
    ----------
    student_tokens, student_tokens_per_param, student_budget : float, str, or a list of them
        Training of the students: tokens, tokens per parameter, or FLOPs for the student alone. Give exactly one.
    teacher_losses : list of float
        Losses of the teachers in nats per token, independent of their size. Give either this or `teacher_params`.
    teacher_params : list of float or str
        Sizes of the teachers; the supervised law predicts their losses.
    teacher_tokens_per_param, teacher_budget : float or str
        With teacher_params, give one of them: tokens per parameter, or FLOPs of each teacher's pretraining (isoFLOP teachers).

    Returns
    -------
    Dataset
        Over student, training (the given training values, in their order) and the teachers' axis (`teacher`: losses or
        sizes, increasing): distilled_loss (with chain, draw), probability_stronger_worse (that a slightly stronger teacher
        gives a worse student) with its _mcse, probability_better_alone (that the student pretrained on the same tokens is
        better) with its _mcse; extrapolation_factor over `axis`, extrapolation (the largest of them), extrapolation_axis (its
        axis) and extrapolates, of the student, the teacher's loss and, if teachers are given by size, of their size and tokens
        per parameter. Over student, training: student_tokens; with chain, draw: supervised_loss,
        best_teacher (the teacher on the axis with the smallest student loss). Over teacher: teacher_loss (with chain, draw),
        and teacher_tokens if teachers are given by size.

    Raises
    ------
    ParameterError
        If not exactly one argument of each group is given, or an argument is invalid.

    Notes
    -----
    The comparison is at equal student tokens and does not charge for the teacher. Busbridge et al. (2025,
    arXiv:2502.08606), section 4.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import numpy as np, xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> curve = bd.capacity_gap(published, "300M", student_tokens_per_param=20, teacher_losses=np.linspace(1.8, 2.8, 51))
    >>> round(curve["best_teacher"].item(), 2)
    2.14
    """
    planner = planning.planner_of(capacity_gap, fit, options)
    fitted, draws, shape = planner.fitted, planner.fitted.draws, planner.shape
    sizes = parse_students(students)
    training, tokens = _training(sizes, student_tokens, student_tokens_per_param, student_budget, shape)
    teachers = _teachers(draws, teacher_losses, teacher_params, teacher_tokens_per_param, teacher_budget, shape)
    alone = draws.supervised_loss(sizes[:, None, None], tokens[:, :, None])
    student = draws.student(sizes[:, None, None, None], tokens[:, :, None, None])
    distilled, nearby = (
        draws.law.distilled_loss(student, loss, draws) for loss in (teachers.loss, teachers.loss * (1 - _STEP))
    )
    factors = distilled_factors(fitted, sizes[:, None, None], tokens[:, :, None], teachers.loss.mean(axis=-1))
    axes: tuple[str, ...] = DISTILLED_AXES
    if teachers.tokens is not None:
        of_teachers = teacher_factors(fitted, teachers.axis.values, teachers.tokens)[:, None, None]
        factors = np.concatenate([factors, np.broadcast_to(of_teachers, (len(of_teachers), *factors.shape[1:]))])
        axes += TEACHER_AXES
    values = {
        **described(factors, axes),
        "distilled_loss": distilled,
        "supervised_loss": alone,
        "probability_stronger_worse": probability_positive(fitted, nearby - distilled),
        "probability_better_alone": probability_positive(fitted, distilled - alone[:, :, None, :]),
        "student_tokens": tokens,
        "best_teacher": teachers.axis.values[distilled.argmin(axis=2)],
        "teacher_loss": np.broadcast_to(teachers.loss, (teachers.axis.size, fitted.n_draws)),
    }
    if teachers.tokens is not None:
        values["teacher_tokens"] = teachers.tokens
    coordinates = {"student": sizes, "training": training, "teacher": teachers.axis, "axis": list(axes)}
    attrs = labels.shape_attributes(shape) | fitted.attrs | teachers.attrs
    result = labels.answer("capacity_gap", fitted, values, coordinates, attrs)
    if teachers.tokens is not None:
        result["best_teacher"].attrs |= {"units": PARAMS, "long_name": "size of the best teacher on the axis"}
    return result


def _only(message: str, **given: Any) -> tuple[str, np.ndarray]:
    """Return the name and the numbers of the only argument that is given."""
    found = [name for name, value in given.items() if value is not None]
    if len(found) != 1:
        raise ParameterError(message)
    return found[0], parse_numbers(given[found[0]], found[0])


_TRAINING = {
    "student_tokens": (TOKENS, "tokens of the student"),
    "student_tokens_per_param": (ONE, "tokens per parameter of the student"),
    "student_budget": (FLOPS, "FLOPs of the student's own training"),
}


def _training(
    sizes: np.ndarray, tokens: Any, per_param: Any, budget: Any, shape: Shape
) -> tuple[xr.Variable, np.ndarray]:
    """Return the coordinate of the training of the students, and their tokens (student, training)."""
    message = f"Specify the training of the students with exactly one of {', '.join(_TRAINING)}."
    name, numbers = _only(message, **dict(zip(_TRAINING, (tokens, per_param, budget), strict=True)))
    coordinate = variable(["training"], numbers, *_TRAINING[name])
    if name == "student_tokens":
        return coordinate, np.broadcast_to(numbers, (sizes.size, numbers.size))
    if name == "student_tokens_per_param":
        return coordinate, sizes[:, None] * numbers
    return coordinate, pretraining_tokens(sizes[:, None], numbers[None, :], shape)


@dataclass(frozen=True)
class _Teachers:
    """Teachers of the capacity gap: axis, tokens (None if given by loss), losses (teacher, n_draws) and attributes."""

    axis: xr.Variable
    tokens: np.ndarray | None
    loss: np.ndarray
    attrs: dict[str, Any]


def _teachers(draws: Draws, losses: Any, params: Any, per_param: Any, budget: Any, shape: Shape) -> _Teachers:
    message = "Specify the teachers with exactly one of teacher_losses and teacher_params."
    name, numbers = _only(message, teacher_losses=losses, teacher_params=params)
    axis = np.sort(numbers)
    if name == "teacher_losses":
        if per_param is not None or budget is not None:
            raise ParameterError(
                "teacher_tokens_per_param and teacher_budget require teacher_params. Omit them if you give "
                "teacher_losses."
            )
        coordinate = variable(["teacher"], axis, NATS, "loss of the teacher")
        return _Teachers(coordinate, None, axis[:, None], {"teacher_axis": "loss"})
    message = (
        "teacher_params requires exactly one of teacher_tokens_per_param and teacher_budget, the teachers' training."
    )
    training, (number, *_) = _only(message, teacher_tokens_per_param=per_param, teacher_budget=budget)
    tokens = axis * number if budget is None else pretraining_tokens(axis, number, shape)
    coordinate = variable(["teacher"], axis, PARAMS, "size of the teacher")
    loss = draws.supervised_loss(axis[:, None], tokens[:, None])
    return _Teachers(coordinate, tokens, loss, {"teacher_axis": "params", training: float(number)})
