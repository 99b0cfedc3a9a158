"""Choice among existing teachers, and the capacity gap."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import strategies
from bayesdistill.answers import Answer
from bayesdistill.compute import PUBLISHED_SHAPE, Scenario, Shape, pretraining_tokens
from bayesdistill.decisions import labels
from bayesdistill.decisions.arguments import (
    Number,
    Numbers,
    Scenarios,
    TeacherTable,
    make_bounds,
    parse_budgets,
    parse_numbers,
    parse_scenarios,
    parse_students,
    parse_teachers,
)
from bayesdistill.decisions.fitted_draws import FittedDraws, Source, distilled_extrapolation, gather
from bayesdistill.decisions.labels import FLOPS, NATS, ONE, PARAMS, TOKENS, variable
from bayesdistill.decisions.reductions import mean_of, probability_of
from bayesdistill.decisions.solving import CHOSEN, PERFECT_INFORMATION, Problem, Workers, solve
from bayesdistill.errors import ParameterError
from bayesdistill.progress import Progress

CELL = ("student", "scenario", "budget")
EACH = (*CELL, "teacher")
_STEP = 1e-6


def teacher_choice(
    fit: Source,
    teachers: pd.DataFrame | xr.Dataset,
    students: Numbers,
    budgets: Numbers,
    scenarios: Scenarios = "teacher inference",
    *,
    new_delta_pre: float = 1.0,
    max_teacher_params: float = 1e12,
    max_teacher_tokens: float = 2e13,
    max_student_tokens: float | None = None,
    min_teacher_params: float = 1e6,
    shape: Shape = PUBLISHED_SHAPE,
    allow_unconverged: bool = False,
    executor: Executor | None = None,
    threads: int | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    """Return which existing teacher is the best, and with what probability.

    Parameters
    ----------
    fit, students, budgets, shape
        As for `plan`.
    teachers : DataFrame or Dataset
        One per row: params, loss (measured, nats per token), and optionally name and tokens.
    scenarios : str, Scenario, or a list of them
        Charged fractions of the existing teacher's costs; usually its inference.
    new_delta_pre : float
        Fraction of its pretraining that a newly trained teacher is charged in the comparison; 1/K if K students share it.
    max_teacher_params, max_teacher_tokens, min_teacher_params : float
        Bounds on the newly trained teacher.
    max_student_tokens : float, optional
        Upper bound on the student's tokens.
    allow_unconverged, executor, threads, progress
        As for `plan`.

    Returns
    -------
    Dataset
        Over student, scenario, budget, teacher: distilled_loss (with chain, draw), expected_loss, student_tokens,
        probability_best, probability_stronger_worse (that the next stronger teacher in the table gives a worse student,
        because of the capacity gap or its higher cost), probability_new_better (that the chosen strategy with a newly
        trained teacher is better), probability_pretraining_better, regret (expected loss of this choice relative to the best
        teacher of the table in each draw), extrapolates; each probability with its _mcse. Over student, scenario, budget:
        chosen (position of the teacher with the smallest expected loss; -1 if none is affordable), evpi (value of perfect
        information about the law for this choice), new_teacher_params, new_teacher_tokens, new_status; with chain, draw:
        new_distilled_loss, supervised_loss (no scenario). Over teacher: teacher_params, measured_loss, stronger (position of
        the next stronger teacher; -1 for the strongest). A teacher that is not affordable has NaN losses and
        probability_best 0.

    Raises
    ------
    ParameterError
        If an argument is invalid.
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False.

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
    fitted = gather(fit, allow_unconverged)
    chosen_scenarios = parse_scenarios(scenarios)
    table = parse_teachers(teachers, chosen_scenarios)
    if table is None:
        raise ParameterError("`teachers` must be a table of existing teachers. To plan with new teachers, use bd.plan.")
    problem = Problem(
        parse_students(students),
        parse_budgets(budgets),
        chosen_scenarios,
        make_bounds(min_teacher_params, max_teacher_params, max_teacher_tokens, max_student_tokens),
        shape,
    )
    workers = Workers(executor, threads, progress)
    losses, tokens = _losses_of_each(fitted, problem, table, workers)
    new_problem = Problem(
        problem.students,
        problem.budgets,
        tuple(Scenario(s.delta_lgt, new_delta_pre, s.name) for s in chosen_scenarios),
        problem.bounds,
        shape,
    )
    new = solve(CHOSEN, fitted.draws, new_problem, workers)
    alone = strategies.supervised_losses(fitted.draws, problem)
    variables = _choice(fitted, losses, tokens, new, alone, table, problem)
    coordinates = labels.grid_coordinates(problem) | labels.draw_coordinates(fitted.chain, fitted.draw)
    coordinates["teacher"] = variable(["teacher"], list(table.names), ONE, "existing teachers")
    attrs = {
        **labels.setting_attributes(problem.bounds, shape),
        **fitted.attrs,
        "new_delta_pre": float(new_delta_pre),
    }
    return Answer(variables, coordinates, attrs)


def _losses_of_each(
    fitted: FittedDraws, problem: Problem, table: TeacherTable, workers: Workers
) -> tuple[np.ndarray, np.ndarray]:
    """Return the student's loss (..., teacher, n_draws) and tokens (..., teacher)."""
    losses, tokens = [], []
    for k in range(len(table.names)):
        one = Problem(
            problem.students,
            problem.budgets,
            problem.scenarios,
            problem.bounds,
            problem.shape,
            tuple(values[k : k + 1] for values in table.arrays()),
        )
        found = solve(PERFECT_INFORMATION, fitted.draws, one, Workers(workers.executor, workers.threads))
        losses.append(found["loss"])
        tokens.append(found["student_tokens"][..., 0])
    return np.stack(losses, axis=3), np.stack(tokens, axis=3)


def _choice(
    fitted: FittedDraws,
    losses: np.ndarray,
    tokens: np.ndarray,
    new: dict[str, np.ndarray],
    alone: np.ndarray,
    table: TeacherTable,
    problem: Problem,
) -> dict[str, xr.Variable]:
    comparable = np.where(np.isnan(losses), np.inf, losses)
    lowest = comparable.min(axis=3, keepdims=True)
    payable = np.isfinite(lowest[..., 0, 0])
    pretrained = alone[:, None, :, None, :]
    # Find the next stronger teacher of each teacher; the strongest has none.
    order = np.argsort(table.loss, kind="stable")[::-1]
    stronger = np.full(len(table.names), -1)
    stronger[order[:-1]] = order[1:]
    next_losses = np.where((stronger >= 0)[:, None], losses[:, :, :, stronger], np.nan)
    expected, _ = mean_of(fitted, losses)
    ranked = np.where(np.isnan(expected), np.inf, expected)
    chosen = np.where(payable, ranked.argmin(axis=3), -1)
    with np.errstate(invalid="ignore"):
        regret = np.where(np.isnan(expected), np.nan, (losses - lowest).mean(axis=-1))
    result: dict[str, xr.Variable] = {}

    def add(name: str, found: tuple[np.ndarray, np.ndarray], text: str) -> None:
        result[name] = variable(EACH, found[0], ONE, text)
        result[f"{name}_mcse"] = variable(EACH, found[1], ONE, f"Monte Carlo standard error of {name}")

    # Each draw has one best teacher; ties go to the first.
    first = comparable.argmin(axis=3)[:, :, :, None, :] == np.arange(len(table.names))[:, None]
    add(
        "probability_best",
        probability_of(fitted, first & np.isfinite(comparable), np.broadcast_to(payable[..., None, None], first.shape)),
        "probability that this teacher is the best in the table",
    )
    for name, other, text in (
        ("probability_stronger_worse", next_losses, "probability that the next stronger teacher gives a worse student"),
        (
            "probability_new_better",
            new["loss"][:, :, :, None],
            "probability that a newly trained teacher gives a better student",
        ),
        ("probability_pretraining_better", pretrained, "probability that pretraining the student is better"),
    ):
        known = ~np.isnan(losses) & ~np.isnan(other)
        holds = other > losses if name == "probability_stronger_worse" else other < losses
        add(name, probability_of(fitted, holds, known), text)
    drawn = ("chain", "draw")
    factor = distilled_extrapolation(fitted, problem.students[:, None, None, None], tokens, table.loss)
    return result | {
        "distilled_loss": variable(
            (*EACH, *drawn), fitted.unflatten(losses), NATS, "loss of the student distilled from this teacher"
        ),
        "expected_loss": variable(EACH, expected, NATS, "posterior mean of the distilled loss"),
        "regret": variable(
            EACH, regret, NATS, "expected loss of choosing this teacher, relative to the best in the table in each draw"
        ),
        "student_tokens": variable(EACH, tokens, TOKENS, "distillation tokens of the student"),
        "extrapolates": variable(
            EACH,
            ~(factor == 1) & ~np.isnan(tokens),
            ONE,
            "whether the student or its teacher is outside the range of the data",
        ),
        "chosen": variable(CELL, chosen, ONE, "position of the teacher with the smallest expected loss"),
        "evpi": variable(
            CELL,
            np.where(payable, ranked.min(axis=3) - np.where(payable, lowest[..., 0, :].mean(axis=-1), 0), np.nan),
            NATS,
            "expected value of perfect information for the choice from the table",
        ),
        "supervised_loss": variable(
            ("student", "budget", *drawn),
            fitted.unflatten(alone),
            NATS,
            "loss of the student pretrained on the budget",
        ),
        "new_distilled_loss": variable(
            (*CELL, *drawn), fitted.unflatten(new["loss"]), NATS, "loss of the student with a newly trained teacher"
        ),
        "new_teacher_params": variable(
            CELL, new["teacher_params"], PARAMS, "non-embedding parameters of the newly trained teacher"
        ),
        "new_teacher_tokens": variable(CELL, new["teacher_tokens"], TOKENS, "tokens of the newly trained teacher"),
        "new_status": labels.strategy_status(CELL, new["status"]),
        "teacher_params": variable(("teacher",), table.params, PARAMS, "non-embedding parameters of the teacher"),
        "measured_loss": variable(("teacher",), table.loss, NATS, "measured loss of the teacher"),
        "stronger": variable(
            ("teacher",), stronger, ONE, "position of the next stronger teacher, -1 for the strongest"
        ),
    }


def capacity_gap(
    fit: Source,
    students: Numbers,
    *,
    student_tokens: Numbers | None = None,
    student_tokens_per_param: Numbers | None = None,
    student_budget: Numbers | None = None,
    teacher_losses: Numbers | None = None,
    teacher_params: Numbers | None = None,
    teacher_tokens_per_param: Number | None = None,
    teacher_budget: Number | None = None,
    shape: Shape = PUBLISHED_SHAPE,
    allow_unconverged: bool = False,
) -> xr.Dataset:
    """Return the student loss as a function of the teacher, with its uncertainty.

    Parameters
    ----------
    fit, students
        As for `plan`.
    student_tokens, student_tokens_per_param, student_budget : float, str, or a list of them
        Training of the students: tokens, tokens per parameter, or FLOPs for the student alone. Give exactly one.
    teacher_losses : list of float
        Losses of the teachers in nats per token, independent of their size. Give either this or `teacher_params`.
    teacher_params : list of float or str
        Sizes of the teachers; the supervised law predicts their losses.
    teacher_tokens_per_param, teacher_budget : float or str
        With teacher_params, give one of them: tokens per parameter, or FLOPs of each teacher's pretraining (isoFLOP teachers).
    shape : Shape
        Architecture parameters that determine FLOPs per token.
    allow_unconverged : bool
        As for `plan`.

    Returns
    -------
    Dataset
        Over student, training (the given training values, in their order) and the teachers' axis (`teacher`: losses or
        sizes, increasing): distilled_loss (with chain, draw), probability_stronger_worse (that a slightly stronger teacher
        gives a worse student) with its _mcse, probability_better_alone (that the student pretrained on the same tokens is
        better) with its _mcse, extrapolates. Over student, training: student_tokens; with chain, draw: supervised_loss,
        best_teacher (the teacher on the axis with the smallest student loss). Over teacher: teacher_loss (with chain, draw),
        and teacher_tokens if teachers are given by size.

    Raises
    ------
    ParameterError
        If not exactly one argument of each group is given, or an argument is invalid.
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False.

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
    fitted = gather(fit, allow_unconverged)
    sizes = parse_students(students)
    training, training_name, training_units, tokens = _training(
        sizes, student_tokens, student_tokens_per_param, student_budget, shape
    )
    axis, by_size, teacher_tokens, teacher_loss = _teachers_axis(
        fitted, teacher_losses, teacher_params, teacher_tokens_per_param, teacher_budget, shape
    )
    draws = fitted.draws
    alone = draws.supervised_loss(sizes[:, None, None], tokens[:, :, None])
    student = draws.student(sizes[:, None, None, None], tokens[:, :, None, None])
    distilled, nearby = (
        draws.law.distilled_loss(student, teacher, draws) for teacher in (teacher_loss, teacher_loss * (1 - _STEP))
    )
    cell = ("student", "training", "teacher")
    drawn = ("chain", "draw")
    stronger, stronger_error = probability_of(fitted, nearby > distilled)
    lonely, lonely_error = probability_of(fitted, alone[:, :, None, :] < distilled)
    factor = distilled_extrapolation(fitted, sizes[:, None, None], tokens[:, :, None], teacher_loss.mean(axis=-1))
    variables = {
        "distilled_loss": variable((*cell, *drawn), fitted.unflatten(distilled), NATS, "loss of the distilled student"),
        "supervised_loss": variable(
            ("student", "training", *drawn), fitted.unflatten(alone), NATS, "loss of the student pretrained on the same tokens"
        ),
        "probability_stronger_worse": variable(
            cell, stronger, ONE, "probability that a slightly stronger teacher gives a worse student"
        ),
        "probability_stronger_worse_mcse": variable(
            cell, stronger_error, ONE, "Monte Carlo standard error of probability_stronger_worse"
        ),
        "probability_better_alone": variable(
            cell, lonely, ONE, "probability that the student pretrained on the same tokens is better"
        ),
        "probability_better_alone_mcse": variable(
            cell, lonely_error, ONE, "Monte Carlo standard error of probability_better_alone"
        ),
        "extrapolates": variable(cell, ~(factor == 1), ONE, "whether this is outside the range of the data"),
        "student_tokens": variable(("student", "training"), tokens, TOKENS, "tokens of the student"),
        "best_teacher": variable(
            ("student", "training", *drawn),
            fitted.unflatten(axis[distilled.argmin(axis=2)]),
            PARAMS if by_size else NATS,
            "size of the best teacher on the axis" if by_size else "loss of the best teacher on the axis",
        ),
        "teacher_loss": variable(
            ("teacher", *drawn), fitted.unflatten(np.broadcast_to(teacher_loss, (axis.size, fitted.n_draws))), NATS,
            "loss of the teacher",
        ),
    }  # fmt: skip
    if by_size:
        variables["teacher_tokens"] = variable(("teacher",), teacher_tokens, TOKENS, "tokens of the teacher")
    coordinates = {
        "student": labels.student_coordinate(sizes),
        "training": variable(["training"], training, training_units, training_name),
        "teacher": variable(
            ["teacher"], axis, *((PARAMS, "size of the teacher") if by_size else (NATS, "loss of the teacher"))
        ),
        **labels.draw_coordinates(fitted.chain, fitted.draw),
    }
    attrs = {**labels.shape_attributes(shape), **fitted.attrs, "teacher_axis": "params" if by_size else "loss"}
    if by_size and teacher_budget is not None:
        attrs["teacher_budget"] = float(parse_numbers(teacher_budget, "teacher_budget")[0])
    if by_size and teacher_tokens_per_param is not None:
        attrs["teacher_tokens_per_param"] = float(
            parse_numbers(teacher_tokens_per_param, "teacher_tokens_per_param")[0]
        )
    return Answer(variables, coordinates, attrs)


def _training(
    sizes: np.ndarray, tokens: Any, per_param: Any, budget: Any, shape: Shape
) -> tuple[np.ndarray, str, str, np.ndarray]:
    """Return training values, description, units, and tokens (student, training)."""
    given = {"student_tokens": tokens, "student_tokens_per_param": per_param, "student_budget": budget}
    if sum(value is not None for value in given.values()) != 1:
        raise ParameterError(f"Specify the training of the students with exactly one of {', '.join(given)}.")
    if tokens is not None:
        numbers = parse_numbers(tokens, "student_tokens")
        return numbers, "tokens of the student", TOKENS, np.broadcast_to(numbers, (sizes.size, numbers.size))
    if per_param is not None:
        numbers = parse_numbers(per_param, "student_tokens_per_param")
        return numbers, "tokens per parameter of the student", ONE, sizes[:, None] * numbers
    numbers = parse_numbers(budget, "student_budget")
    bought = pretraining_tokens(sizes[:, None], numbers[None, :], shape)
    return numbers, "FLOPs of the student's own training", FLOPS, bought


def _teachers_axis(
    fitted: FittedDraws, losses: Any, params: Any, per_param: Any, budget: Any, shape: Shape
) -> tuple[np.ndarray, bool, np.ndarray, np.ndarray]:
    """Return the teachers' axis, whether it has sizes, tokens, and losses (teacher, draws)."""
    if (losses is None) == (params is None):
        raise ParameterError("Specify the teachers with exactly one of teacher_losses and teacher_params.")
    if losses is not None:
        if per_param is not None or budget is not None:
            raise ParameterError(
                "teacher_tokens_per_param and teacher_budget require teacher_params. Omit them if you give "
                "teacher_losses."
            )
        axis = np.sort(parse_numbers(losses, "teacher_losses"))
        return axis, False, np.full(axis.size, np.nan), axis[:, None]
    if (per_param is None) == (budget is None):
        raise ParameterError(
            "teacher_params requires exactly one of teacher_tokens_per_param and teacher_budget, the teachers' training."
        )
    axis = np.sort(parse_numbers(params, "teacher_params"))
    if per_param is not None:
        tokens = axis * parse_numbers(per_param, "teacher_tokens_per_param")[0]
    else:
        tokens = pretraining_tokens(axis, parse_numbers(budget, "teacher_budget")[0], shape)
    return axis, True, tokens, fitted.draws.supervised_loss(axis[:, None], tokens[:, None])
