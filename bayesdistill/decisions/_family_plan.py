r"""Plan for a family of students with one total budget and one shared teacher.

The loss of the family is the weighted mean of its students' posterior mean losses, with weights w that sum to 1:

.. math::

    \min_{z, N_T, D_T, D} \sum_i w_i\, \mathrm{E}\, L_i(D_i), \qquad
    \sum_i n_i D_i \left(3 F(N_i) + z_i \delta_\mathrm{lgt} F(N_T)\right) + [z \neq 0]\, 3 \delta_\mathrm{pre} F(N_T) D_T \le C,

where z_i is 1 if student i is distilled (loss L_S) and 0 if it is pretrained (L_sup), and n_i is the number of students of its
size. The family pays for the teacher once. For a given teacher, the optimal split equalizes the marginal loss reduction per FLOP,
:math:`-w_i \,\mathrm{d}L_i / \mathrm{d}D_i` per FLOP :math:`= \lambda`, among students. The split is computed for all assignments
z at once from curves of loss against tokens; the teacher is searched on a grid of sizes and tokens that is refined repeatedly. The
search uses a thinned posterior; all reported values use all draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import posterior
from bayesdistill.answers import Answer
from bayesdistill.compute import PUBLISHED_SHAPE, Scenario, Shape
from bayesdistill.decisions import labels
from bayesdistill.decisions.arguments import (
    Number,
    Numbers,
    TeacherTable,
    make_bounds,
    parse_number,
    parse_students,
    parse_teachers,
)
from bayesdistill.decisions.extrapolation import distilled_extrapolation, pretraining_extrapolation
from bayesdistill.decisions.fitted_draws import FittedDraws, gather
from bayesdistill.decisions.labels import FLOPS, NATS, ONE, PARAMS, TOKENS, variable
from bayesdistill.decisions.reductions import mean_of, probability_of
from bayesdistill.decisions.token_split import (
    SEARCH_DRAWS,
    Choice,
    Family,
    Teacher,
    cost_per_token,
    fixed_cost,
    search,
    settle_choice,
    student_losses,
    thinned,
)
from bayesdistill.errors import ParameterError
from bayesdistill.progress import Progress, reporting

MOST_STUDENTS = 10
OPTIONS = ("plan", "pretrain all", "distil all")
DECISIONS = ("pretrain", "distil")


def family_plan(
    fit: posterior.Fit,
    students: Numbers,
    budget: Number,
    *,
    counts: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
    delta_lgt: float = 1.0,
    delta_pre: float = 1.0,
    max_teacher_params: float = 1e12,
    max_teacher_tokens: float = 2e13,
    max_student_tokens: float | None = None,
    min_teacher_params: float = 1e6,
    teachers: pd.DataFrame | xr.Dataset | None = None,
    shape: Shape = PUBLISHED_SHAPE,
    allow_unconverged: bool = False,
    progress: Progress = None,
) -> xr.Dataset:
    """Plan a family of students: which to distil, and how to split one total budget.

    Parameters
    ----------
    fit, students, max_teacher_params, max_teacher_tokens, max_student_tokens, min_teacher_params, teachers, shape
        As for `plan`. At most 10 sizes.
    budget : float or str
        FLOPs for the whole family, including the teacher.
    counts : list of int, optional
        Number of students of each size; by default one.
    weights : list of float, optional
        Weight of each size in the loss of the family, in any unit; by default its count.
    delta_lgt : float
        Fraction of the teacher's inference that is charged (0 if its logits are already available).
    delta_pre : float
        Fraction of the teacher's pretraining that is charged to the family, once; 0 if the teacher is already paid for.
    allow_unconverged, progress
        As for `plan`.

    Returns
    -------
    Dataset
        Over `option` (plan: the best assignment; pretrain all; distil all): expected_loss (weighted posterior mean) with its
        _mcse, teacher_params, teacher_tokens, teacher_budget, feasible, and with `teachers` teacher_index; with student:
        student_tokens, student_budget (FLOPs, including the teacher's inference), extrapolation_factor (factor by which the
        student is outside the range of the data, 1 inside) and extrapolates, with chain, draw: loss; with chain, draw:
        family_loss; and teacher_extrapolation (of a new teacher, relative to the data of the supervised law). Over student:
        decision (`pretrain` or `distil` in the plan), decision_value (increase of the family's expected loss if this decision
        is reversed and the rest is replanned), decision_probability (that the plan is better than with this decision
        reversed) with its _mcse, probability_better (that the student's loss is lower in the plan than if all are pretrained)
        with its _mcse. Scalars: probability (that the family's loss is lower than if all are pretrained), probability_mcse.

    Raises
    ------
    ParameterError
        If an argument is invalid.
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False.

    Notes
    -----
    Every student has at least a million tokens. The teacher minimizes the posterior mean over 64 draws; the split minimizes
    the posterior mean over all draws.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> found = bd.family_plan(published, ["300M", "1B"], 1e21, delta_lgt=0, delta_pre=0)
    >>> bd.flag_names(found["decision"]).values.tolist()
    ['distil', 'distil']
    """
    fitted = gather(fit, allow_unconverged)
    sizes = parse_students(students)
    if sizes.size > MOST_STUDENTS:
        raise ParameterError(
            f"`students` has {sizes.size} sizes, which is too many for an exhaustive search. Give at most {MOST_STUDENTS} "
            "sizes; use `counts` for several students of the same size."
        )
    numbers = _per_student(counts, "counts", sizes.size, np.ones(sizes.size))
    weight = _per_student(weights, "weights", sizes.size, numbers)
    scenario = Scenario(delta_lgt, delta_pre)
    table = parse_teachers(teachers, [scenario])
    family = Family(
        sizes,
        numbers,
        weight / weight.sum(),
        parse_number(budget, "budget"),
        float(delta_lgt),
        float(delta_pre),
        make_bounds(min_teacher_params, max_teacher_params, max_teacher_tokens, max_student_tokens),
        shape,
    )
    thin = thinned(fitted.draws)
    listed = None
    if table is not None:
        tokens = np.zeros(len(table.names)) if table.tokens is None else table.tokens
        listed = [
            Teacher(float(p), float(d), np.full(1, loss), k)
            for k, (p, d, loss) in enumerate(zip(table.params, tokens, table.loss, strict=True))
        ]
    everyone = np.array([[bool(code >> i & 1) for i in range(sizes.size)] for code in range(2**sizes.size)])
    with reporting(progress, sizes.size + 3, "planning") as report:
        value, where = search(family, thin, everyone, listed)
        report(1, sizes.size + 3)
        chosen: dict[int, Choice] = {}

        def settle(code: int) -> Choice:
            if code not in chosen:
                chosen[code] = settle_choice(family, fitted.draws, thin, everyone[code], where[code], listed)
            return chosen[code]

        best = int(np.argmin(np.where(np.isnan(value), np.inf, value)))
        options = [settle(code) for code in (best, 0, everyone.shape[0] - 1)]
        report(3, sizes.size + 3)
        flips = []
        for i in range(sizes.size):
            flips.append(settle(best ^ 1 << i))
            report(4 + i, sizes.size + 3)
    return _describe(fitted, family, options, flips, table)


def _per_student(values: Sequence[float] | None, name: str, n: int, default: np.ndarray) -> np.ndarray:
    if values is None:
        return default
    numbers = np.array([parse_number(value, name) for value in values])
    if numbers.size != n:
        raise ParameterError(f"`{name}` must have one value for each of the {n} sizes, got {numbers.size} values.")
    return numbers


# Results ------------------------------------------------------------------------------------------------------------


def _losses(fitted: FittedDraws, family: Family, choice: Choice) -> np.ndarray:
    """Return the loss of every student in every draw, (student, n_draws)."""
    tokens = choice.tokens[:, None]
    alone = student_losses(family, fitted.draws, tokens, None)[:, 0]
    if choice.teacher is None:
        return np.where(choice.distilled[:, None], np.nan, alone)
    taught = student_losses(family, fitted.draws, tokens, choice.teacher)[:, 0]
    return np.where(choice.distilled[:, None], taught, alone)


def _extrapolation(fitted: FittedDraws, family: Family, options: list[Choice]) -> dict[str, xr.Variable]:
    """Return the extrapolation factors of students and of new teachers in every option."""
    factor = np.empty((len(options), family.sizes.size))
    of_teacher = np.ones(len(options))
    for i, choice in enumerate(options):
        factor[i] = pretraining_extrapolation(fitted, family.sizes, choice.tokens)
        if choice.teacher is not None:
            taught = distilled_extrapolation(fitted, family.sizes, choice.tokens, choice.teacher.loss.mean())
            factor[i] = np.where(choice.distilled, taught, factor[i])
            if choice.teacher.index < 0:
                of_teacher[i] = pretraining_extrapolation(fitted, choice.teacher.params, choice.teacher.tokens)
        factor[i, np.isnan(choice.tokens)] = np.nan
    planned = np.array([~np.isnan(choice.tokens) for choice in options])
    each = ("option", "student")
    return {
        "extrapolation_factor": variable(each, factor, ONE, "factor outside the range of the data, 1 inside"),
        "extrapolates": variable(
            each, ~(factor == 1) & planned, ONE, "whether the student is outside the range of the data"
        ),
        "teacher_extrapolation": variable(
            ("option",),
            of_teacher,
            ONE,
            "factor by which the teacher is outside the data of the supervised law, 1 inside",
        ),
    }


def _describe(
    fitted: FittedDraws, family: Family, options: list[Choice], flips: list[Choice], table: TeacherTable | None
) -> xr.Dataset:
    losses = np.stack([_losses(fitted, family, choice) for choice in options])
    total = np.einsum("i,oin->on", family.weights, losses)
    expected, expected_error = mean_of(fitted, total)
    flipped = np.stack([family.weights @ _losses(fitted, family, choice) for choice in flips])
    known = ~np.isnan(flipped) & ~np.isnan(total[0])
    right, right_error = probability_of(fitted, total[0] < flipped, known)
    better, better_error = probability_of(fitted, losses[0] < losses[1], ~np.isnan(losses[0] + losses[1]))
    overall, overall_error = probability_of(fitted, total[0] < total[1], ~np.isnan(total[0] + total[1]))
    tokens = np.stack([choice.tokens for choice in options])
    costs = np.stack(
        [
            choice.tokens
            * np.where(choice.distilled, cost_per_token(family, choice.teacher), cost_per_token(family, None))
            for choice in options
        ]
    )

    def of_teacher(value: str) -> list[float]:
        return [np.nan if c.teacher is None else float(getattr(c.teacher, value)) for c in options]

    drawn = ("chain", "draw")
    each = ("option", "student")
    variables = {
        "expected_loss": variable(("option",), expected, NATS, "weighted posterior mean loss of the family"),
        "expected_loss_mcse": variable(
            ("option",), expected_error, NATS, "Monte Carlo standard error of expected_loss"
        ),
        "family_loss": variable(("option", *drawn), fitted.unflatten(total), NATS, "weighted mean loss of the family"),
        "loss": variable((*each, *drawn), fitted.unflatten(losses), NATS, "loss of the student"),
        "student_tokens": variable(each, tokens, TOKENS, "tokens of the student"),
        "student_budget": variable(
            each, costs, FLOPS, "compute of all students of this size, including the charged inference of the teacher"
        ),
        "teacher_params": variable(
            ("option",), of_teacher("params"), PARAMS, "non-embedding parameters of the shared teacher"
        ),
        "teacher_tokens": variable(("option",), of_teacher("tokens"), TOKENS, "tokens of the shared teacher"),
        "teacher_budget": variable(
            ("option",), [fixed_cost(family, c.teacher) for c in options], FLOPS, "charged compute of its pretraining"
        ),
        "feasible": variable(("option",), ~np.isnan(tokens).any(axis=1), ONE, "whether the budget is sufficient"),
        "decision": labels.flags(
            ("student",), options[0].distilled.astype(np.int8), DECISIONS, "decision of the plan for this student"
        ),
        "decision_value": variable(
            ("student",),
            flipped.mean(axis=-1) - total[0].mean(),
            NATS,
            "increase of the family's expected loss if this decision is reversed and the rest is replanned",
        ),
        "decision_probability": variable(
            ("student",), right, ONE, "probability that the plan is better than with this decision reversed"
        ),
        "decision_probability_mcse": variable(
            ("student",), right_error, ONE, "Monte Carlo standard error of decision_probability"
        ),
        "probability_better": variable(
            ("student",), better, ONE, "probability that this student is better in the plan than if all are pretrained"
        ),
        "probability_better_mcse": variable(
            ("student",), better_error, ONE, "Monte Carlo standard error of probability_better"
        ),
        "probability": variable((), overall, ONE, "probability that the plan is better than pretraining all students"),
        "probability_mcse": variable((), overall_error, ONE, "Monte Carlo standard error of probability"),
        "count": variable(("student",), family.counts, ONE, "number of students of this size"),
        "weight": variable(("student",), family.weights, ONE, "weight in the family's loss"),
    }
    variables |= _extrapolation(fitted, family, options)
    coordinates = {
        "student": labels.student_coordinate(family.sizes),
        "option": variable(["option"], list(OPTIONS), ONE, "training of the family"),
        **labels.draw_coordinates(fitted.chain, fitted.draw),
    }
    attrs = {**labels.setting_attributes(family.bounds, family.shape), **fitted.attrs}
    attrs |= {
        "budget": family.budget,
        "delta_lgt": family.delta_lgt,
        "delta_pre": family.delta_pre,
        "search_draws": min(fitted.n_draws, SEARCH_DRAWS),
    }
    if table is not None:
        index = [-1 if c.teacher is None else c.teacher.index for c in options]
        variables["teacher_index"] = variable(
            ("option",), index, ONE, "position of the teacher in the table, -1 for none"
        )
        coordinates["teacher"] = variable(["teacher"], list(table.names), ONE, "existing teachers")
    return Answer(variables, coordinates, attrs)
