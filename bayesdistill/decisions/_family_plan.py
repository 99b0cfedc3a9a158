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
from typing import Any, Unpack

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.answers import Codes
from bayesdistill.arguments import checked
from bayesdistill.compute import Scenario, forward_flops
from bayesdistill.decisions import labels, planning, token_split
from bayesdistill.decisions.arguments import (
    Number,
    Numbers,
    Teachers,
    charged_scenarios,
    parse_list,
    parse_number,
    parse_students,
    parse_teachers,
)
from bayesdistill.decisions.extrapolation import (
    CHOICE_AXES,
    DISTILLED_AXES,
    PRETRAINING_AXES,
    TEACHER_AXES,
    described,
    distilled_factors,
    pretraining_factors,
    teacher_factors,
)
from bayesdistill.decisions.fitted_draws import FittedDraws
from bayesdistill.decisions.labels import flops_words, size_words
from bayesdistill.decisions.reductions import mean_of, probability_positive, quantiles_of
from bayesdistill.decisions.spending import epochs_note, epochs_of
from bayesdistill.decisions.token_split import Choice, Family, Teacher
from bayesdistill.errors import ParameterError
from bayesdistill.law.predictive import Deviations
from bayesdistill.progress import Progress, reporting

MOST_STUDENTS = 10
OPTIONS = ("plan", "pretrain all", "distill all")
DECISIONS = ("pretrain", "distill")


class FamilyOptions(planning.StrategyBounds, planning.Noise, planning.LimitedData, total=False):
    """Options of `family_plan`."""

    progress: Progress


@checked
@planning.with_options
def family_plan(
    fit: planning.Source,
    students: Numbers,
    budget: Number,
    *,
    counts: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
    delta_lgt: float = 1.0,
    delta_pre: float | None = None,
    teachers: Teachers | None = None,
    **options: Unpack[FamilyOptions],
) -> xr.Dataset:
    """Plan a family of students: which to distill, and how to split one total budget.

    Parameters
    ----------
    students : float, str, or a list of them
        Non-embedding parameters of at most 10 sizes, such as 3e8 or "300M". The result keeps their order.
    budget : float or str
        FLOPs for the whole family, including the teacher.
    counts : list of int, optional
        Number of students of each size; by default one.
    weights : list of float, optional
        Weight of each size in the loss of the family, in any unit; by default its count.
    delta_lgt : float
        Fraction of the teacher's inference that is charged (0 if its logits are already available).
    delta_pre : float, optional
        Fraction of the teacher's pretraining that is charged to the family, once; 0 if the teacher is already paid for. By default 1
        for a new teacher, and 0 for existing ones.

    Returns
    -------
    Dataset
        Over `option` (plan: the best assignment; pretrain all; distill all): expected_loss (weighted posterior mean) with its
        _mcse, teacher_params, teacher_tokens, teacher_loss (posterior mean), teacher_budget, teacher_training_share (fraction
        of the budget), feasible, and with `teachers` teacher_index; with student: student_tokens, student_budget (FLOPs,
        including the teacher's inference), student_share and teacher_inference_share (fractions of the budget),
        extrapolation_factor over `axis` (factor by which the student or its teacher is outside the range of the data, 1 inside
        or if the axis does not matter), extrapolation (the largest of them), extrapolation_axis (its axis) and extrapolates,
        with chain, draw: loss; with chain, draw: family_loss; loss_quantile and family_loss_quantile over `quantile`; and
        teacher_extrapolation (of a new teacher, relative to the data of the supervised law). Over student: decision (`pretrain`
        or `distill` in the plan), decision_value (increase of the family's expected loss if this decision is reversed and the
        rest is replanned), decision_probability (that the plan is better than with this decision reversed) with its _mcse,
        probability_better (that the student's loss is lower in the plan than if all are pretrained) with its _mcse,
        supervised_loss_quantile and pretraining_tokens (if all are pretrained). Scalars: probability (that the family's loss is
        lower than if all are pretrained), probability_mcse.

    Notes
    -----
    Probabilities and quantiles are at the level of uncertainty `noise`; decisions, split, and all other values refer to the law's
    mean curves. The students of one size share one deviation from the law; students of different sizes have a common discrepancy and
    independent effects.

    Every student has at least a million tokens. The teacher minimizes the posterior mean over 64 draws; the split minimizes
    the posterior mean over all draws.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> found = bd.family_plan(published, ["300M", "1B"], 1e21, delta_lgt=0, delta_pre=0)
    >>> bd.flag_names(found["decision"]).values.tolist()
    ['distill', 'distill']
    """
    planner = planning.planner_of(family_plan, fit, options)
    fitted = planner.fitted
    sizes = parse_students(students)
    if sizes.size > MOST_STUDENTS:
        raise ParameterError(
            f"`students` has {sizes.size} sizes, which is too many for an exhaustive search. Give at most {MOST_STUDENTS} "
            "sizes; use `counts` for several students of the same size."
        )
    numbers = _per_student(counts, "counts", sizes.size, np.ones(sizes.size))
    weight = _per_student(weights, "weights", sizes.size, numbers)
    table = parse_teachers(teachers, fitted.teacher_losses)
    if delta_pre is None:
        delta_pre = 1.0 if table is None else 0.0
    (scenario,), _ = charged_scenarios(Scenario(delta_lgt, delta_pre), table)
    family = Family(
        sizes=sizes,
        counts=numbers,
        weights=weight / weight.sum(),
        budget=parse_number(budget, "budget"),
        scenario=scenario,
        bounds=planning.bounds_of(planner),
        shape=planner.shape,
    )
    listed = None
    if table is not None:
        tokens = np.zeros(len(table.names)) if table.tokens is None else table.tokens
        listed = [
            Teacher(float(p), float(d), np.full(1, loss), k)
            for k, (p, d, loss) in enumerate(zip(table.params, tokens, table.loss, strict=True))
        ]
    choices, flips = _choices(family, fitted, listed, planner.progress)
    values = _losses(planner, family, choices, flips) | _strategies(fitted, family, choices)
    new = {"teacher": values["teacher_tokens"]} if table is None else {}
    read = {"student": values["student_tokens"], "pretraining": values["pretraining_tokens"], **new}
    values |= epochs_of(fitted.draws.repetition, **read)
    coordinates: dict[str, Any] = {"student": sizes, "option": list(OPTIONS), "axis": list(CHOICE_AXES)}
    coordinates["quantile"] = list(labels.QUANTILES)
    if table is not None:
        values["teacher_index"] = [-1 if c.teacher is None else c.teacher.index for c in choices]
        coordinates["teacher"] = list(table.names)
    attrs = labels.setting_attributes(family.bounds, family.shape) | fitted.attrs | planning.noise_attributes(planner)
    attrs |= {
        "budget": family.budget,
        "delta_lgt": float(delta_lgt),
        "delta_pre": float(delta_pre),
        "search_draws": min(fitted.n_draws, token_split.SEARCH_DRAWS),
        **epochs_note(values),
    }
    attrs["sentence"] = _sentence(family, choices[0], values, None if table is None else table.names)
    return labels.answer("family_plan", fitted, values, coordinates, attrs)


def _sentence(family: Family, plan: Choice, values: dict[str, Any], names: tuple[str, ...] | None) -> str:
    """Return the plan of a family as a sentence."""
    count = family.counts.sum()
    given = f"With {flops_words(family.budget)} FLOPs for {count:g} student{'s' if count > 1 else ''}"
    if np.isnan(plan.tokens).any():
        return f"{given}: the budget is too small for every plan."
    (low, middle, high), alone = values["family_loss_quantile"][0][[0, 2, 4]], values["family_loss_quantile"][1][2]
    loss = f"mean loss {middle:.3f} nats per token, 90% interval {low:.3f} to {high:.3f}"
    if plan.teacher is None:
        return f"{given}: pretrain all ({loss})."
    own, shared = (
        ", ".join(size_words(size) for size in family.sizes[plan.distilled == taught]) for taught in (False, True)
    )
    teacher = size_words(plan.teacher.params) if names is None else names[plan.teacher.index]
    share = values["teacher_training_share"][0]
    charged = f" The teacher's training takes {share:.0%} of the budget." if share > 0 else ""
    return (
        f"{given}: distill {shared} from the teacher {teacher}{f' and pretrain {own}' if own else ''} ({loss}; {alone:.3f} if all are "
        f"pretrained). Probability {posterior.about(float(values['probability'][0]))} that this is better than pretraining all."
        f"{charged}"
    )


def _per_student(values: Sequence[float] | None, name: str, n: int, default: np.ndarray) -> np.ndarray:
    if values is None:
        return default
    numbers = parse_list(values, name)
    if numbers.size != n:
        raise ParameterError(f"`{name}` must have one value for each of the {n} sizes, got {numbers.size} values.")
    return numbers


def _choices(
    family: Family, fitted: FittedDraws, listed: list[Teacher] | None, progress: Progress
) -> tuple[list[Choice], list[Choice]]:
    """Return the choices of OPTIONS, and the best choices with the decision of each student reversed."""
    n, thin = family.sizes.size, token_split.thinned(fitted.draws)
    everyone = np.array([[bool(code >> i & 1) for i in range(n)] for code in range(2**n)])
    chosen: dict[int, Choice] = {}
    with reporting(progress, n + 3, "planning") as report:
        value, where = token_split.search(family, thin, everyone, listed)
        report(1, n + 3)

        def settle(code: int) -> Choice:
            if code not in chosen:
                chosen[code] = token_split.settle_choice(
                    family, (fitted.draws, thin), everyone[code], where[code], listed
                )
            return chosen[code]

        best = int(np.argmin(np.where(np.isnan(value), np.inf, value)))
        options = [settle(code) for code in (best, 0, 2**n - 1)]
        report(3, n + 3)
        flips = []
        for i in range(n):
            flips.append(settle(best ^ 1 << i))
            report(4 + i, n + 3)
    return options, flips


def _losses_of(fitted: FittedDraws, family: Family, choice: Choice) -> np.ndarray:
    """Return the loss of every student in every draw, (student, n_draws)."""
    tokens, distilled = choice.tokens[:, None], choice.distilled[:, None]
    alone = token_split.student_losses(family, fitted.draws, tokens, None)[:, 0]
    if choice.teacher is None:
        return np.where(distilled, np.nan, alone)
    return np.where(distilled, token_split.student_losses(family, fitted.draws, tokens, choice.teacher)[:, 0], alone)


def _at_level(
    losses: np.ndarray, family: Family, choices: list[Choice], deviations: list[Deviations | None]
) -> np.ndarray:
    """Return the losses of choices, (choice, student, n_draws), at the level of uncertainty."""
    found = losses.copy()
    for i, choice in enumerate(choices):
        for k, (size, tokens, one) in enumerate(zip(family.sizes, choice.tokens, deviations, strict=True)):
            if one is None or np.isnan(tokens):
                continue
            if choice.distilled[k] and choice.teacher is not None:
                found[i, k] += one.distilled(size, tokens, choice.teacher.loss)
            else:
                found[i, k] += one.pretrained(size, tokens)
    return found


def _losses(planner: planning.Planner, family: Family, options: list[Choice], flips: list[Choice]) -> dict[str, Any]:
    """Return the losses of students and family, and their comparisons at the level of uncertainty."""
    fitted, deviations = planner.fitted, planning.deviations_of_students(planner, family.sizes)
    law = [np.stack([_losses_of(fitted, family, choice) for choice in choices]) for choices in (options, flips)]
    seen, seen_flips = (
        _at_level(losses, family, choices, deviations) for losses, choices in zip(law, (options, flips), strict=True)
    )
    total, flipped = (np.einsum("i,oin->on", family.weights, losses) for losses in law)
    seen_total, seen_flipped = (np.einsum("i,oin->on", family.weights, losses) for losses in (seen, seen_flips))
    return {
        "expected_loss": mean_of(fitted, total),
        "family_loss": total,
        "loss": law[0],
        "loss_quantile": quantiles_of(seen, labels.QUANTILES),
        "supervised_loss_quantile": quantiles_of(seen[1], labels.QUANTILES),
        "family_loss_quantile": quantiles_of(seen_total, labels.QUANTILES),
        "decision_value": flipped.mean(axis=-1) - total[0].mean(),
        "decision_probability": probability_positive(fitted, seen_flipped - seen_total[0]),
        "probability_better": probability_positive(fitted, seen[1] - seen[0]),
        "probability": probability_positive(fitted, seen_total[1] - seen_total[0]),
    }


def _strategies(fitted: FittedDraws, family: Family, options: list[Choice]) -> dict[str, Any]:
    """Return teachers, split and extrapolation of every option."""
    tokens = np.stack([choice.tokens for choice in options])
    costs, factors = np.empty_like(tokens), np.ones((len(CHOICE_AXES), *tokens.shape))
    of_teacher = np.ones(len(options))
    rows = {
        axes: [CHOICE_AXES.index(axis) for axis in axes] for axes in (DISTILLED_AXES, PRETRAINING_AXES, TEACHER_AXES)
    }
    for i, (distilled, teacher, own) in enumerate((c.distilled, c.teacher, c.tokens) for c in options):
        costs[i] = own * np.where(
            distilled, token_split.cost_per_token(family, teacher), token_split.cost_per_token(family, None)
        )
        alone = pretraining_factors(fitted, family.sizes, own)
        factors[rows[PRETRAINING_AXES], i] = np.where(distilled, 1.0, alone)
        if teacher is not None:
            taught = distilled_factors(fitted, family.sizes, own, teacher.loss.mean())
            factors[rows[DISTILLED_AXES], i] = np.where(distilled, taught, 1.0)
            if teacher.index < 0:
                far = teacher_factors(fitted, teacher.params, teacher.tokens)
                of_teacher[i] = far.max()
                factors[rows[TEACHER_AXES], i] = np.where(distilled, far[:, None], 1.0)
    planned = ~np.isnan(tokens)
    training = 3 * family.counts * forward_flops(family.sizes, family.shape) * tokens
    teachers = [choice.teacher for choice in options]
    return {
        "student_tokens": tokens,
        "pretraining_tokens": tokens[1],
        "student_budget": costs,
        "student_share": training / family.budget,
        "teacher_inference_share": np.maximum(costs - training, 0.0) / family.budget,
        "teacher_training_share": np.array([token_split.fixed_cost(family, c.teacher) for c in options])
        / family.budget,
        "teacher_params": [np.nan if t is None else float(t.params) for t in teachers],
        "teacher_tokens": [float(t.tokens) if t is not None and t.tokens else np.nan for t in teachers],
        "teacher_loss": [np.nan if t is None else t.loss.mean() for t in teachers],
        "teacher_budget": [token_split.fixed_cost(family, t) for t in teachers],
        "feasible": planned.all(axis=1),
        "decision": Codes(options[0].distilled, DECISIONS),
        "count": family.counts,
        "weight": family.weights,
        **described(np.where(planned, factors, np.nan), CHOICE_AXES, planned),
        "teacher_extrapolation": of_teacher,
    }
