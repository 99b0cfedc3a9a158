r"""A whole family of students from one total budget and one shared teacher: which to distil, which to pretrain, how to split.

With weights w (summing to 1) the family's loss is the weighted mean of its students' posterior mean losses,

.. math::

    \min_{z, N_T, D_T, D} \sum_i w_i\, \mathrm{E}\, L_i(D_i), \qquad
    \sum_i n_i D_i \left(3 F(N_i) + z_i \delta_\mathrm{lgt} F(N_T)\right) + [z \neq 0]\, 3 \delta_\mathrm{pre} F(N_T) D_T \le C,

where z_i says whether student i is distilled (L_S) or pretrained (L_sup) and n_i how many of its size are trained. The teacher is
paid once. For a given teacher the compute goes where the next FLOP lowers the family's loss most: at the optimum
:math:`-w_i \,\mathrm{d}L_i / \mathrm{d}D_i` per FLOP is the same :math:`\lambda` for all students. That split is found for every
assignment z at once, on curves of loss against tokens; the teacher is sought on a grid of sizes and tokens that zooms in. The
search runs over a thinned posterior, and everything that is reported is computed from all draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import laws, posterior
from bayesdistill.compute import PUBLISHED_SHAPE, Scenario, Shape, flops_per_token, teacher_cost
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
from bayesdistill.decisions.evidence import Evidence, gather
from bayesdistill.decisions.labels import FLOPS, NATS, ONE, PARAMS, TOKENS, variable
from bayesdistill.decisions.reductions import mean_of, probability_of
from bayesdistill.decisions.solving import Draws, Progress, reporting
from bayesdistill.errors import ParameterError
from bayesdistill.strategies import Bounds

MOST_STUDENTS = 10
OPTIONS = ("plan", "pretrain all", "distil all")
DECISIONS = ("pretrain", "distil")
FEWEST_TOKENS = 1e6
_SEARCH_DRAWS = 64
_POINTS = 48  # of a curve of loss against tokens
_PRICES = 256  # values of lambda
_COARSE, _FINE, _ROUNDS = 17, 5, 7


@dataclass(frozen=True)
class Family:
    """Students, what they cost, and what they may use.

    Parameters
    ----------
    sizes, counts, weights : ndarray
        Parameters of each student, how many of that size, and their weight in the family's loss (sum 1).
    budget : float
        FLOPs for all together.
    delta_lgt, delta_pre : float
        Charged shares of the teacher's inference and pretraining.
    bounds : Bounds
    shape : Shape
    """

    sizes: np.ndarray
    counts: np.ndarray
    weights: np.ndarray
    budget: float
    delta_lgt: float
    delta_pre: float
    bounds: Bounds
    shape: Shape


@dataclass(frozen=True)
class Teacher:
    """A teacher under consideration: size, tokens, and loss of each draw (n_draws,)."""

    params: float
    tokens: float
    loss: np.ndarray
    index: int = -1


@dataclass(frozen=True)
class Choice:
    """An assignment with its teacher and split; tokens are NaN if it cannot be paid."""

    distilled: np.ndarray
    teacher: Teacher | None
    tokens: np.ndarray


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
    """For a family of students with one total budget and one shared teacher: which to distil, and how to split the compute.

    Parameters
    ----------
    fit, students, max_teacher_params, max_teacher_tokens, max_student_tokens, min_teacher_params, teachers, shape
        As for `plan`. At most 10 sizes.
    budget : float or str
        FLOPs for the whole family, teacher included.
    counts : list of int, optional
        How many students of each size are trained, alike; by default one.
    weights : list of float, optional
        What the loss of each size weighs in the loss of the family, in any unit; by default its count.
    delta_lgt : float
        Share of the teacher's inference that is charged (0 if its logits are stored already).
    delta_pre : float
        Share of the teacher's pretraining that the family is charged, once; 0 if the teacher is already paid for.
    allow_unconverged, progress
        As for `plan`.

    Returns
    -------
    Dataset
        Over `option` (plan: the best assignment; pretrain all; distil all): expected_loss (weighted posterior mean) with its
        _mcse, teacher_params, teacher_tokens, teacher_budget, feasible, and with `teachers` teacher_index; with student:
        student_tokens, student_budget (FLOPs, the teacher's inference included), with chain, draw: loss; with chain, draw:
        family_loss. Over student: decision (`pretrain` or `distil` in the plan), decision_value (how much the family's
        expected loss rises if this decision is turned round and everything else planned anew), decision_probability (that
        the plan is then the better one) with its _mcse, probability_better (that this student is better in the plan than
        when all are pretrained) with its _mcse. Scalars: probability (that the family's loss is lower than when all are
        pretrained), probability_mcse.

    Raises
    ------
    ParameterError
        If an argument is unusable.
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False.

    Notes
    -----
    Every student gets at least a million tokens. The teacher is the best for the posterior mean over 64 draws; the split is
    the best for the posterior mean over all of them.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()})
    >>> found = bd.family_plan(published, ["300M", "1B"], 1e21, delta_lgt=0, delta_pre=0)
    >>> bd.flag_names(found["decision"]).values.tolist()
    ['distil', 'distil']
    """
    evidence = gather(fit, allow_unconverged)
    sizes = parse_students(students)
    if sizes.size > MOST_STUDENTS:
        raise ParameterError(
            f"students: {sizes.size} sizes have {2**sizes.size} assignments; give at most {MOST_STUDENTS} sizes, "
            "several students of one size by counts"
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
    thin = _thinned(evidence.draws)
    listed = None
    if table is not None:
        tokens = np.zeros(len(table.names)) if table.tokens is None else table.tokens
        listed = [
            Teacher(float(p), float(d), np.full(1, loss), k)
            for k, (p, d, loss) in enumerate(zip(table.params, tokens, table.loss, strict=True))
        ]
    everyone = np.array([[bool(code >> i & 1) for i in range(sizes.size)] for code in range(2**sizes.size)])
    with reporting(progress, sizes.size + 3) as report:
        value, where = _search(family, thin, everyone, listed)
        report(1, sizes.size + 3)
        chosen: dict[int, Choice] = {}

        def settle(code: int) -> Choice:
            if code not in chosen:
                chosen[code] = _settle(family, evidence.draws, thin, everyone[code], where[code], listed)
            return chosen[code]

        best = int(np.argmin(np.where(np.isnan(value), np.inf, value)))
        options = [settle(code) for code in (best, 0, everyone.shape[0] - 1)]
        report(3, sizes.size + 3)
        flips = []
        for i in range(sizes.size):
            flips.append(settle(best ^ 1 << i))
            report(4 + i, sizes.size + 3)
    return _describe(evidence, family, options, flips, table)


def _per_student(values: Sequence[float] | None, name: str, n: int, default: np.ndarray) -> np.ndarray:
    if values is None:
        return default
    numbers = np.array([parse_number(value, name) for value in values])
    if numbers.size != n:
        raise ParameterError(f"{name}: {numbers.size} numbers for {n} students; one for each is needed")
    return numbers


def _thinned(draws: Draws) -> Draws:
    n = next(iter(draws.values())).size
    rows = np.unique(np.linspace(0, n - 1, min(n, _SEARCH_DRAWS)).round().astype(int))
    return {name: values[rows] for name, values in draws.items()}


# Loss curves and splits ---------------------------------------------------------------------------------------------


def _student_losses(family: Family, draws: Draws, tokens: np.ndarray, teacher: Teacher | None) -> np.ndarray:
    """Losses (student, points, n_draws) at tokens (student, points): distilled, or pretrained without a teacher."""
    size, seen = family.sizes[:, None, None], tokens[..., None]
    if teacher is None:
        return laws.supervised_loss(size, seen, **{name: draws[name] for name in laws.SUPERVISED_PARAMETERS})
    return laws.distilled_loss(size, seen, teacher.loss, **draws)


def _cost_per_token(family: Family, teacher: Teacher | None) -> np.ndarray:
    """FLOPs of one more token for all students of each size."""
    per_token = 3 * flops_per_token(family.sizes, family.shape)
    if teacher is not None:
        per_token = per_token + family.delta_lgt * flops_per_token(teacher.params, family.shape)
    return family.counts * per_token


def _fixed_cost(family: Family, teacher: Teacher | None) -> float:
    if teacher is None:
        return 0.0
    return float(teacher_cost(flops_per_token(teacher.params, family.shape), teacher.tokens, family.delta_pre))


def _interpolate(y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Cubic interpolation of rows y (student, points) given at 0, 1, 2, ... at positions (student, m)."""
    last = y.shape[1] - 1
    first = np.clip(np.floor(at).astype(int) - 1, 0, last - 3)
    t = at - first
    rows = np.arange(y.shape[0])[:, None]
    p0, p1, p2, p3 = (y[rows, first + k] for k in range(4))
    return (
        -p0 * (t - 1) * (t - 2) * (t - 3) / 6
        + p1 * t * (t - 2) * (t - 3) / 2
        - p2 * t * (t - 1) * (t - 3) / 2
        + p3 * t * (t - 1) * (t - 2) / 6
    )


@dataclass(frozen=True)
class Curves:
    """Mean loss of each student against log tokens, (student, points)."""

    log_tokens: np.ndarray
    loss: np.ndarray
    cost: np.ndarray

    def prices(self, weights: np.ndarray) -> np.ndarray:
        """Fall of the family's loss per FLOP between neighbouring points, made to decrease, (student, points - 1)."""
        tokens = np.exp(self.log_tokens)
        fall = weights[:, None] * -np.diff(self.loss, axis=1) / (self.cost[:, None] * np.diff(tokens, axis=1))
        return np.minimum.accumulate(np.maximum(fall, 1e-300), axis=1)

    def at_prices(self, weights: np.ndarray, log_price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log tokens and loss of each student at each price, (student, prices)."""
        falling = np.log(self.prices(weights))
        n, points = self.log_tokens.shape
        position = np.empty((n, log_price.size))
        # The price between points k and k+1 belongs to the middle; below the last price all that is allowed is bought.
        middle = np.append(np.arange(points - 1) + 0.5, points - 1.0)
        for i in range(n):
            known = np.append(falling[i], falling[i, -1] - 1e-6)
            position[i] = np.interp(-log_price, -known, middle)
        step = (self.log_tokens[:, -1] - self.log_tokens[:, 0]) / (points - 1)
        return self.log_tokens[:, :1] + position * step[:, None], _interpolate(self.loss, position)


def _curves(
    family: Family, draws: Draws, teacher: Teacher | None, low: np.ndarray, high: np.ndarray, points: int = _POINTS
) -> Curves:
    log_tokens = np.linspace(np.log(low), np.log(high), points, axis=1)
    loss = _student_losses(family, draws, np.exp(log_tokens), teacher).mean(axis=-1)
    return Curves(log_tokens, loss, _cost_per_token(family, teacher))


def _token_range(family: Family, teacher: Teacher | None) -> tuple[np.ndarray, np.ndarray]:
    cost = _cost_per_token(family, teacher)
    high = np.minimum(family.budget / cost, family.bounds.max_student_tokens)
    return np.full(cost.size, FEWEST_TOKENS), np.maximum(high, 2 * FEWEST_TOKENS)


def _split_all(
    family: Family, alone: Curves, taught: Curves | None, fixed: float, assignments: np.ndarray
) -> np.ndarray:
    """Family loss of every assignment with its best split, NaN where it cannot be paid."""
    both = [alone] if taught is None else [alone, taught]
    prices = np.concatenate([c.prices(family.weights).ravel() for c in both])
    log_price = np.linspace(np.log(prices.max()), np.log(prices.min()) - 1e-3, _PRICES)
    spend, loss = [], []
    for curves in both:
        log_tokens, value = curves.at_prices(family.weights, log_price)
        spend.append(curves.cost[:, None] * np.exp(log_tokens))
        loss.append(family.weights[:, None] * value)
    z = assignments.astype(float)
    if taught is None:
        spent, value = (1 - z) @ spend[0], (1 - z) @ loss[0]
    else:
        spent = (1 - z) @ spend[0] + z @ spend[1]
        value = (1 - z) @ loss[0] + z @ loss[1]
    available = family.budget - np.where(assignments.any(axis=1), fixed, 0.0)
    result = np.full(len(assignments), np.nan)
    for k in range(len(assignments)):
        if spent[k, 0] <= available[k]:
            result[k] = np.interp(np.log(available[k]), np.log(spent[k]), value[k])
    return result


# The teacher --------------------------------------------------------------------------------------------------------


def _trained(family: Family, draws: Draws, params: float, tokens: float) -> Teacher:
    law = {name: draws[name] for name in laws.SUPERVISED_PARAMETERS}
    return Teacher(params, tokens, laws.supervised_loss(params, tokens, **law))


def _box(family: Family) -> tuple[np.ndarray, np.ndarray]:
    b = family.bounds
    return (
        np.log([b.min_teacher_params, b.min_teacher_tokens]),
        np.log([b.max_teacher_params, b.max_teacher_tokens]),
    )


def _search(
    family: Family, draws: Draws, assignments: np.ndarray, listed: list[Teacher] | None
) -> tuple[np.ndarray, list[tuple[float, float] | int | None]]:
    """Best value of every assignment over a coarse grid of teachers (or a list), and where it was found."""
    alone = _curves(family, draws, None, *_token_range(family, None))
    best = _split_all(family, alone, None, 0.0, assignments[:1])
    value = np.append(best, np.full(len(assignments) - 1, np.nan))
    where: list[tuple[float, float] | int | None] = [None] * len(assignments)
    candidates: list[tuple[tuple[float, float] | int, Teacher]] = []
    if listed is not None:
        candidates = [(k, teacher) for k, teacher in enumerate(listed)]
    else:
        low, high = _box(family)
        for log_params in np.linspace(low[0], high[0], _COARSE):
            for log_tokens in np.linspace(low[1], high[1], _COARSE):
                teacher = _trained(family, draws, float(np.exp(log_params)), float(np.exp(log_tokens)))
                candidates.append(((float(log_params), float(log_tokens)), teacher))
    taught_ones = assignments[1:]
    for place, teacher in candidates:
        fixed = _fixed_cost(family, teacher)
        if fixed >= family.budget:
            continue
        taught = _curves(family, draws, teacher, *_token_range(family, teacher))
        found = _split_all(family, alone, taught, fixed, taught_ones)
        for k in np.flatnonzero(~np.isnan(found)):
            if not value[k + 1] <= found[k]:
                value[k + 1], where[k + 1] = found[k], place
    return value, where


def _settle(
    family: Family,
    draws: Draws,
    thin: Draws,
    distilled: np.ndarray,
    place: tuple[float, float] | int | None,
    listed: list[Teacher] | None,
) -> Choice:
    """The teacher of one assignment found more closely, and its split over all draws."""
    if not distilled.any():
        return Choice(distilled, None, _exact_split(family, draws, distilled, None))
    if place is None:
        return Choice(distilled, None, np.full(family.sizes.size, np.nan))
    if isinstance(place, int):
        assert listed is not None
        return Choice(distilled, listed[place], _exact_split(family, draws, distilled, listed[place]))
    alone = _curves(family, thin, None, *_token_range(family, None))
    low, high = _box(family)
    centre = np.array(place)
    half = (high - low) / (_COARSE - 1)
    best = np.inf
    for _ in range(_ROUNDS):
        middle = centre.copy()
        for u in np.linspace(-1, 1, _FINE):
            for v in np.linspace(-1, 1, _FINE):
                point = np.clip(middle + half * [u, v], low, high)
                teacher = _trained(family, thin, *np.exp(point).tolist())
                fixed = _fixed_cost(family, teacher)
                if fixed >= family.budget:
                    continue
                taught = _curves(family, thin, teacher, *_token_range(family, teacher))
                found = _split_all(family, alone, taught, fixed, distilled[None])[0]
                if found < best:
                    best, centre = found, point
        half = half / 2
    teacher = _trained(family, draws, *np.exp(centre).tolist())
    return Choice(distilled, teacher, _exact_split(family, draws, distilled, teacher))


def _exact_split(family: Family, draws: Draws, distilled: np.ndarray, teacher: Teacher | None) -> np.ndarray:
    """Tokens of each student that spend the budget best over all draws."""
    fixed = _fixed_cost(family, teacher) if distilled.any() else 0.0
    available = family.budget - fixed
    cost = np.where(distilled, _cost_per_token(family, teacher), _cost_per_token(family, None))
    if (cost * FEWEST_TOKENS).sum() > available:
        return np.full(cost.size, np.nan)
    cap = np.maximum(np.minimum(available / cost, family.bounds.max_student_tokens), 2 * FEWEST_TOKENS)
    low, high = np.full(cost.size, FEWEST_TOKENS), cap
    tokens = low
    for _ in range(3):
        curves = _chosen_curves(family, draws, distilled, teacher, low, high)
        tokens = _spend(curves, family.weights, available)
        # Zoom in to six steps of the grid on either side.
        reach = np.exp(6 * (curves.log_tokens[:, 1] - curves.log_tokens[:, 0]))
        low, high = np.maximum(tokens / reach, FEWEST_TOKENS), np.minimum(tokens * reach, cap)
        high = np.maximum(high, low * (1 + 1e-9))
    # What rounding has left over goes to those who may still take it.
    open_ = tokens < cap * (1 - 1e-12)
    if open_.any():
        rest = available - (cost * tokens)[~open_].sum()
        tokens = np.where(open_, tokens * rest / (cost * tokens)[open_].sum(), tokens)
    return np.minimum(tokens, cap)


def _chosen_curves(
    family: Family, draws: Draws, distilled: np.ndarray, teacher: Teacher | None, low: np.ndarray, high: np.ndarray
) -> Curves:
    alone = _curves(family, draws, None, low, high)
    if teacher is None or not distilled.any():
        return alone
    taught = _curves(family, draws, teacher, low, high)
    pick = distilled[:, None]
    return Curves(
        alone.log_tokens, np.where(pick, taught.loss, alone.loss), np.where(distilled, taught.cost, alone.cost)
    )


def _spend(curves: Curves, weights: np.ndarray, available: float) -> np.ndarray:
    """Tokens at the price at which everything is spent."""
    prices = np.log(curves.prices(weights))
    low, high = prices.min() - 1.0, prices.max()
    for _ in range(100):
        middle = (low + high) / 2
        log_tokens, _ = curves.at_prices(weights, np.array([middle]))
        if (curves.cost * np.exp(log_tokens[:, 0])).sum() > available:
            low = middle
        else:
            high = middle
    log_tokens, _ = curves.at_prices(weights, np.array([high]))
    return np.exp(log_tokens[:, 0])


# What is reported ---------------------------------------------------------------------------------------------------


def _losses(evidence: Evidence, family: Family, choice: Choice) -> np.ndarray:
    """Loss of every student in every draw, (student, n_draws)."""
    tokens = choice.tokens[:, None]
    alone = _student_losses(family, evidence.draws, tokens, None)[:, 0]
    if choice.teacher is None:
        return np.where(choice.distilled[:, None], np.nan, alone)
    taught = _student_losses(family, evidence.draws, tokens, choice.teacher)[:, 0]
    return np.where(choice.distilled[:, None], taught, alone)


def _describe(
    evidence: Evidence, family: Family, options: list[Choice], flips: list[Choice], table: TeacherTable | None
) -> xr.Dataset:
    losses = np.stack([_losses(evidence, family, choice) for choice in options])
    total = np.einsum("i,oin->on", family.weights, losses)
    expected, expected_error = mean_of(evidence, total)
    flipped = np.stack([family.weights @ _losses(evidence, family, choice) for choice in flips])
    known = ~np.isnan(flipped) & ~np.isnan(total[0])
    right, right_error = probability_of(evidence, total[0] < flipped, known)
    better, better_error = probability_of(evidence, losses[0] < losses[1], ~np.isnan(losses[0] + losses[1]))
    overall, overall_error = probability_of(evidence, total[0] < total[1], ~np.isnan(total[0] + total[1]))
    tokens = np.stack([choice.tokens for choice in options])
    costs = np.stack(
        [
            choice.tokens
            * np.where(choice.distilled, _cost_per_token(family, choice.teacher), _cost_per_token(family, None))
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
            ("option",), expected_error, NATS, "Monte-Carlo standard error of expected_loss"
        ),
        "family_loss": variable(
            ("option", *drawn), evidence.unflatten(total), NATS, "weighted mean loss of the family"
        ),
        "loss": variable((*each, *drawn), evidence.unflatten(losses), NATS, "loss of the student"),
        "student_tokens": variable(each, tokens, TOKENS, "tokens of the student"),
        "student_budget": variable(
            each, costs, FLOPS, "compute of all students of this size, the teacher's charged inference included"
        ),
        "teacher_params": variable(
            ("option",), of_teacher("params"), PARAMS, "non-embedding parameters of the shared teacher"
        ),
        "teacher_tokens": variable(("option",), of_teacher("tokens"), TOKENS, "tokens of the shared teacher"),
        "teacher_budget": variable(
            ("option",), [_fixed_cost(family, c.teacher) for c in options], FLOPS, "charged compute of its pretraining"
        ),
        "feasible": variable(("option",), ~np.isnan(tokens).any(axis=1), ONE, "whether the budget pays for it"),
        "decision": labels.flags(
            ("student",), options[0].distilled.astype(np.int8), DECISIONS, "what the plan does with this student"
        ),
        "decision_value": variable(
            ("student",),
            flipped.mean(axis=-1) - total[0].mean(),
            NATS,
            "rise of the family's expected loss if this decision is turned round and the rest planned anew",
        ),
        "decision_probability": variable(
            ("student",), right, ONE, "probability that the plan is better than with this decision turned round"
        ),
        "decision_probability_mcse": variable(
            ("student",), right_error, ONE, "Monte-Carlo standard error of decision_probability"
        ),
        "probability_better": variable(
            ("student",), better, ONE, "probability that this student is better than when all are pretrained"
        ),
        "probability_better_mcse": variable(
            ("student",), better_error, ONE, "Monte-Carlo standard error of probability_better"
        ),
        "probability": variable((), overall, ONE, "probability that the plan is better than pretraining all"),
        "probability_mcse": variable((), overall_error, ONE, "Monte-Carlo standard error of probability"),
        "count": variable(("student",), family.counts, ONE, "students of this size"),
        "weight": variable(("student",), family.weights, ONE, "weight in the family's loss"),
    }
    coordinates = {
        "student": labels.student_coordinate(family.sizes),
        "option": variable(["option"], list(OPTIONS), ONE, "how the family is trained"),
        **labels.draw_coordinates(evidence.chain, evidence.draw),
    }
    attrs = {**labels.setting_attributes(family.bounds, family.shape), **evidence.attrs}
    attrs |= {
        "budget": family.budget,
        "delta_lgt": family.delta_lgt,
        "delta_pre": family.delta_pre,
        "search_draws": min(evidence.size, _SEARCH_DRAWS),
    }
    if table is not None:
        index = [-1 if c.teacher is None else c.teacher.index for c in options]
        variables["teacher_index"] = variable(
            ("option",), index, ONE, "position of the teacher in the table, -1 for none"
        )
        coordinates["teacher"] = variable(["teacher"], list(table.names), ONE, "existing teachers")
    return xr.Dataset(variables, coordinates, attrs)
