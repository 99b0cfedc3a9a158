"""Recommendations as text, and posterior probabilities of the claims of Busbridge et al. (2025).

Each entry is a probability. If the probability is not conclusive, or the answer is far outside the range of the data, the entry
is "the data cannot tell".

Two kinds of extrapolation can make a strategy unreliable. First, the student, its teacher's loss, or pretraining can be outside the
range of the data. Second, the teacher can be unlike every model in the data of the supervised law (for example, a trillion parameters
trained on ten billion tokens). In the second case, the plan is repeated with teachers within `max_extrapolation`. Its recommendation
is used if distillation with the restricted teacher wins, or if pretraining beats both the restricted and the unrestricted
strategy. Otherwise the entry is "the data cannot tell".
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill.answers import Answer
from bayesdistill.compute import PUBLISHED_SHAPE, SCENARIOS, Shape, flops_per_token
from bayesdistill.decisions import labels
from bayesdistill.decisions._break_even import break_even
from bayesdistill.decisions._crossovers import crossovers
from bayesdistill.decisions._plan import plan
from bayesdistill.decisions._plan_tokens import plan_tokens
from bayesdistill.decisions._teacher_choice import capacity_gap
from bayesdistill.decisions.arguments import Numbers, parse_students
from bayesdistill.decisions.extrapolation import distilled_extrapolation, pretraining_extrapolation
from bayesdistill.decisions.fitted_draws import (
    FittedDraws,
    Source,
    gather,
)
from bayesdistill.decisions.labels import NATS, ONE, PARAMS, TOKENS, variable
from bayesdistill.decisions.reductions import probability_of, quantiles_of
from bayesdistill.errors import ParameterError
from bayesdistill.progress import Progress

ADVICE = ("distil", "pretrain", "no difference", "the data cannot tell", "impossible")
DISTIL, PRETRAIN, NO_DIFFERENCE, CANNOT_TELL, IMPOSSIBLE = range(len(ADVICE))
VERDICTS = ("supported", "contradicted", "the data cannot tell")

_CASES = {
    "best case": "teacher and logits already paid for",
    "teacher inference": "teacher exists, logits to be computed",
    "teacher pretraining": "teacher to be trained, logits stored",
    "teacher pretraining + inference": "teacher to be trained and run for this student alone",
}
_WEAKEST_TEACHER = 2.9
_TOKENS_PER_PARAM = 20.0


@dataclass(frozen=True)
class Rule:
    """Criteria for a conclusive result.

    Parameters
    ----------
    threshold : float
        Probability above which a result is conclusive, with a margin of two Monte Carlo standard errors.
    indifference : float
        Difference in nats below which two losses count as equal.
    max_extrapolation : float
        Extrapolation factor above which no result is conclusive.
    """

    threshold: float
    indifference: float
    max_extrapolation: float

    def __post_init__(self) -> None:
        if not 0.5 < self.threshold < 1:
            raise ParameterError(f"`threshold` must be a probability above 1/2 and below 1, got {self.threshold!r}.")
        if not self.indifference >= 0:
            raise ParameterError(f"`indifference` must be a non-negative number of nats, got {self.indifference!r}.")
        if not self.max_extrapolation >= 1:
            raise ParameterError(
                f"`max_extrapolation` must be at least 1 (no extrapolation), got {self.max_extrapolation!r}."
            )

    def sure(self, probability: float, mcse: float) -> bool:
        """Return whether a probability is conclusively above the threshold."""
        return probability - 2 * mcse >= self.threshold

    def too_far(self, factor: float) -> bool:
        """Return whether an extrapolation factor exceeds the limit; False if it is unknown."""
        return factor > self.max_extrapolation


def recommendations(
    fit: Source,
    students: Numbers,
    *,
    budgets: Numbers = (1e20, 1e21, 1e22),
    tokens: Numbers = (1e10, 1e11, 1e12),
    teachers: pd.DataFrame | xr.Dataset | None = None,
    threshold: float = 0.9,
    indifference: float = 1e-3,
    max_extrapolation: float = 10.0,
    max_teacher_params: float = 1e12,
    max_teacher_tokens: float = 2e13,
    shape: Shape = PUBLISHED_SHAPE,
    noise: str = "law",
    seed: int = 0,
    allow_unconverged: bool = False,
    executor: Executor | None = None,
    threads: int | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    """Recommend whether to distil or to pretrain, with probabilities and a sentence.

    The rows cover a given budget, given unique tokens, and existing teachers.

    Parameters
    ----------
    fit, students, max_teacher_params, max_teacher_tokens, shape, noise, seed
        As for `plan`.
    budgets : float, str, or a list of them
        FLOPs for one student, for the rows with given compute.
    tokens : float, str, or a list of them
        Unique tokens, for the rows with given data and unlimited compute.
    teachers : DataFrame or Dataset, optional
        Existing teachers, as for `plan`. They add rows in which the teacher is one of them and only its inference is charged.
    threshold : float
        Probability, above 1/2, above which a choice is recommended, with a margin of two Monte Carlo standard errors.
    indifference : float
        Nats. If the two losses differ by less with probability `threshold`, the advice is `no difference`.
    max_extrapolation : float
        Extrapolation factor above which the advice is `the data cannot tell`.
    allow_unconverged, executor, threads, progress
        As for `plan`.

    Returns
    -------
    Dataset
        Over `row`: given (`compute`, `compute and teacher`, `data`), case (cost scenario, or source of the teacher's tokens),
        student, amount (FLOPs or tokens), advice (`distil`, `pretrain`, `no difference`, `the data cannot tell`,
        `impossible`), probability that distillation beats pretraining with its _mcse, expected_gain (nats), teacher_params,
        teacher_tokens, teacher_loss (posterior mean), student_tokens of the strategy, and sentence. Extrapolation factors (1
        inside the range of the data; NaN if unknown): extrapolation of student, teacher loss and pretraining,
        teacher_extrapolation of a new teacher, relative to the data of the supervised law; extrapolates (a factor is above 1
        or unknown); restricted (the teacher of the chosen strategy exceeds `max_extrapolation`, so the strategy is the best
        with a teacher within this limit).

    Raises
    ------
    ParameterError
        If an argument is invalid.
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> table = bd.recommendations(published, "1B", budgets=1e21, tokens=1e10)
    >>> print(table["sentence"].values[0].split(": ")[1])  # one draw is too few for any advice
    the data do not determine the choice for a 1B student (probability above 0.99 ± 0.43; extrapolation unknown).
    """
    fitted = gather(fit, allow_unconverged)
    rule = Rule(threshold, indifference, max_extrapolation)
    rows: list[dict[str, Any]] = []

    common: dict[str, Any] = {"shape": shape, "noise": noise, "seed": seed, "executor": executor, "threads": threads}

    def planner(scenario: str, table: pd.DataFrame | xr.Dataset | None) -> Planner:
        def planned(sizes: Numbers, amounts: Numbers, bounds: Limits) -> xr.Dataset:
            params, tokens = bounds
            return plan(
                fitted, sizes, amounts, scenario, max_teacher_params=params, max_teacher_tokens=float(tokens), teachers=table,
                progress=progress, **common,
            )  # fmt: skip

        return planned

    def short_of_data(sizes: Numbers, amounts: Numbers, bounds: Limits) -> xr.Dataset:
        params, most = bounds
        return plan_tokens(
            fitted, sizes, amounts, max_teacher_params=params, max_teacher_tokens=most, progress=progress, **common
        )

    limits: Limits = (max_teacher_params, max_teacher_tokens)
    for scenario in SCENARIOS:
        case = Case("budget", "compute", _CASES[scenario], limits, new_teacher=True)
        rows += _rows(fitted, rule, planner(scenario, None), students, budgets, case)
    if teachers is not None:
        case = Case("budget", "compute and teacher", "one of the existing teachers", limits, new_teacher=False)
        rows += _rows(fitted, rule, planner("teacher inference", teachers), students, budgets, case)
    for most_tokens, source in ((max_teacher_tokens, "teacher with other data"), ("same", "teacher on the same data")):
        case = Case("tokens", "data", source, (max_teacher_params, most_tokens), new_teacher=True)
        rows += _rows(fitted, rule, short_of_data, students, tokens, case)
    text = {
        "given": "what is given",
        "case": "cost scenario, or source of the teacher's tokens",
        "sentence": "recommendation as a sentence",
    }
    numbers = {
        "student": (PARAMS, "non-embedding parameters of the student"),
        "amount": (ONE, "FLOPs if compute is given, unique tokens if data are given"),
        "probability": (ONE, "probability that distillation beats pretraining"),
        "probability_mcse": (ONE, "Monte Carlo standard error of probability"),
        "expected_gain": (NATS, "posterior mean of the law's advantage"),
        "extrapolation": (ONE, "largest factor of student, teacher loss and pretraining outside the range of the data"),
        "teacher_extrapolation": (ONE, "factor by which the teacher is outside the data of the supervised law"),
        "teacher_params": (PARAMS, "non-embedding parameters of the teacher"),
        "teacher_tokens": (TOKENS, "tokens of the teacher"),
        "teacher_loss": (NATS, "posterior mean loss of the teacher"),
        "student_tokens": (TOKENS, "tokens of the student"),
    }
    result = _long_table(rows, text, numbers, rule, fitted, shape)
    words = np.array([ADVICE[row["advice"]] for row in rows], dtype=object)
    result["advice"] = variable(("row",), words, ONE, "recommendation")
    for name, meaning in (
        ("extrapolates", "whether the strategy or pretraining is outside the range of the data (or may be)"),
        (
            "restricted",
            "whether the strategy is restricted to teachers within the extrapolation limit",
        ),
    ):
        result[name] = variable(("row",), np.array([row[name] for row in rows], dtype=bool), ONE, meaning)
    result.attrs |= {"noise": noise, "max_teacher_params": max_teacher_params, "max_teacher_tokens": max_teacher_tokens}
    return result


Limits = tuple[float, float | str]
"""Upper bounds on the parameters and tokens of a teacher."""
Planner = Callable[[Numbers, Numbers, Limits], xr.Dataset]


@dataclass(frozen=True)
class Case:
    """What is given in a set of rows.

    Parameters
    ----------
    axis : str
        "budget" or "tokens".
    given, words : str
        What is given, and the cost scenario.
    limits : tuple
        The caller's bounds on the teacher.
    new_teacher : bool
        Whether the supervised law predicts the teacher's loss (otherwise it is measured).
    """

    axis: str
    given: str
    words: str
    limits: Limits
    new_teacher: bool


def _rows(
    fitted: FittedDraws, rule: Rule, planned: Planner, students: Numbers, amounts: Numbers, case: Case
) -> list[dict[str, Any]]:
    made = planned(students, amounts, case.limits)
    rows = []
    for student in made["student"].values.tolist():
        for amount in made[case.axis].values.tolist():
            row = _row(fitted, rule, made, student, amount, case)
            if rule.too_far(row["teacher_extrapolation"]) and not rule.too_far(row["extrapolation"]):
                row = _nearer(fitted, rule, planned, row, case)
            rows.append(row)
    return rows


def _row(
    fitted: FittedDraws,
    rule: Rule,
    made: xr.Dataset,
    student: float,
    amount: float,
    case: Case,
    restricted: bool = False,
) -> dict[str, Any]:
    cell = made.isel(scenario=0).sel({"student": student, case.axis: amount})
    gain = (cell["supervised_loss"] - cell["distilled_loss"]).transpose("chain", "draw").values.reshape(1, -1)
    equal, equal_error = probability_of(fitted, np.abs(gain) < rule.indifference, ~np.isnan(gain))
    row: dict[str, Any] = {"student": student, "amount": amount, "given": case.given, "case": case.words}
    for name in (
        "probability",
        "probability_mcse",
        "expected_gain",
        "teacher_params",
        "teacher_tokens",
        "student_tokens",
    ):
        row[name] = cell[name].item()
    row["teacher_loss"] = float(cell["teacher_loss"].mean(skipna=False))
    row["extrapolation"] = float(cell["extrapolation_factor"].max(skipna=False))
    row["teacher_extrapolation"] = 1.0
    if case.new_teacher:
        far = pretraining_extrapolation(fitted, row["teacher_params"], row["teacher_tokens"])
        row["teacher_extrapolation"] = float(far)
    row["restricted"] = restricted
    possible = not np.isnan(row["probability"])
    row["extrapolates"] = possible and not (row["extrapolation"] == 1 and row["teacher_extrapolation"] == 1)
    row |= {"equal": float(equal[0]), "equal_mcse": float(equal_error[0])}
    row["advice"] = _advise(rule, row)
    row["sentence"] = _sentence(rule, row, case)
    return row


def _nearer(fitted: FittedDraws, rule: Rule, planned: Planner, row: dict[str, Any], case: Case) -> dict[str, Any]:
    """Repeat a row with teachers within the extrapolation limit, if this is conclusive."""
    most_params, most_tokens = case.limits
    _, largest = fitted.ranges["pretraining_params"]
    shortest, longest = fitted.ranges["pretraining_tokens_per_param"]
    # One step suffices because the caps derive from the first teacher: with fewer tokens the optimal teacher is larger, and
    # with fewer parameters it is trained longer.
    params = min(most_params, rule.max_extrapolation * largest)
    tokens = most_tokens
    if row["teacher_tokens"] < shortest * row["teacher_params"] / rule.max_extrapolation:
        params = min(params, rule.max_extrapolation * row["teacher_tokens"] / shortest)
    elif not isinstance(tokens, str):
        tokens = min(tokens, rule.max_extrapolation * longest * row["teacher_params"])
    if (params, tokens) == case.limits:
        return row
    made = planned(row["student"], row["amount"], (params, tokens))
    again = _row(fitted, rule, made, row["student"], row["amount"], case, restricted=True)
    # Restricting the teacher cannot improve distillation. If distillation wins with a restricted teacher, it wins in general. If
    # it loses, an unrestricted teacher could still win, unless the extrapolated law shows that it loses as well.
    everywhere = _advise(rule, row | {"teacher_extrapolation": 1.0})
    settled = again["advice"] == DISTIL or again["advice"] == everywhere == PRETRAIN
    return again if settled else row


def _advise(rule: Rule, row: dict[str, Any]) -> int:
    probability, error = row["probability"], row["probability_mcse"]
    if np.isnan(probability):
        return IMPOSSIBLE
    if rule.too_far(row["extrapolation"]) or rule.too_far(row["teacher_extrapolation"]):
        return CANNOT_TELL
    if rule.sure(row["equal"], row["equal_mcse"]):
        return NO_DIFFERENCE
    if rule.sure(probability, error):
        return DISTIL
    return PRETRAIN if rule.sure(1 - probability, error) else CANNOT_TELL


def _sentence(rule: Rule, row: dict[str, Any], case: Case) -> str:
    amount = f"{row['amount']:.3g} FLOPs" if case.axis == "budget" else f"{_size(row['amount'])} unique tokens"
    start = f"With {amount}, {row['case']}: "
    who = f"a {_size(row['student'])} student"
    chance = _chance(row["probability"], row["probability_mcse"])
    far = _far(rule, row)
    match row["advice"]:
        case 0:
            return f"{start}distil {who} ({chance}, gain {row['expected_gain']:.3f} nats; {_teacher(rule, row)}{far})."
        case 1:
            other = _chance(1 - row["probability"], row["probability_mcse"])
            return f"{start}pretrain {who} ({other}, gain {-row['expected_gain']:.3f} nats{far})."
        case 2:
            return f"{start}no relevant difference for {who} (within {rule.indifference:g} nats, {_chance(row['equal'], 0.0)}{far})."
        case 3:
            return f"{start}the data do not determine the choice for {who} ({chance}{far})."
        case _:
            return f"{start}impossible for {who} (no strategy fits the budget and the bounds)."


def _teacher(rule: Rule, row: dict[str, Any]) -> str:
    tokens = "" if np.isnan(row["teacher_tokens"]) else f" on {_size(row['teacher_tokens'])} tokens"
    restricted = (
        f", the best with extrapolation by at most a factor of {rule.max_extrapolation:g}" if row["restricted"] else ""
    )
    return f"teacher of {_size(row['teacher_params'])}{tokens}{restricted}"


def _far(rule: Rule, row: dict[str, Any]) -> str:
    """Describe the extrapolation; if a factor exceeds the limit, describe only such factors."""
    factors = {"": row["extrapolation"], "teacher ": row["teacher_extrapolation"]}
    if any(np.isnan(list(factors.values()))):
        return "; extrapolation unknown"
    too_far = {what: factor for what, factor in factors.items() if rule.too_far(factor)}
    words = [
        f"; {what}outside the range of the data{' of the supervised law' if what else ''} {_times(factor)}"
        for what, factor in (too_far or factors).items()
        if factor > 1
    ]
    return "".join(words)


def _times(factor: float) -> str:
    if factor < 1.05:
        return "by a factor below 1.05"
    return f"by a factor of {factor:.0f}" if factor >= 9.95 else f"by a factor of {factor:.2g}"


def _chance(probability: float, mcse: float) -> str:
    """Format a probability with its significant digits; never as exactly 0 or 1."""
    if probability > 0.995:
        return "probability above 0.99" + (f" ± {mcse:.2f}" if mcse >= 0.005 else "")
    if probability < 0.005:
        return "probability below 0.01" + (f" ± {mcse:.2f}" if mcse >= 0.005 else "")
    return f"probability {probability:.2f} ± {max(mcse, 0.01):.2f}"


def _size(value: float) -> str:
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if value >= limit * 0.9995:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def paper_claims(
    fit: Source,
    students: Numbers,
    *,
    threshold: float = 0.9,
    max_extrapolation: float = 10.0,
    max_teacher_params: float = 1e12,
    max_teacher_tokens: float = 2e13,
    shape: Shape = PUBLISHED_SHAPE,
    allow_unconverged: bool = False,
    executor: Executor | None = None,
    threads: int | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    """Return the posterior probability of each claim in the paper's summary.

    Parameters
    ----------
    fit, students, max_teacher_params, max_teacher_tokens, shape
        As for `plan`. Give at least two students, because one claim is about growth with the student.
    threshold, max_extrapolation : float
        As for `recommendations`.
    allow_unconverged, executor, threads, progress
        As for `plan`.

    Returns
    -------
    Dataset
        Over `row`: claim, statement, student (NaN for a claim about all students), probability with its _mcse, extrapolation
        (median extrapolation factor), verdict (`supported`, `contradicted`, `the data cannot tell`).

    Raises
    ------
    ParameterError
        If an argument is invalid.
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False.

    Notes
    -----
    "Moderate compute" is the cost of pretraining the student on 20 tokens per parameter. Claims from the summary of Busbridge et
    al. (2025): `capacity_gap`, the student's loss is U-shaped in the teacher's loss, and its minimum is at a teacher weaker than
    the strongest within the bounds; `distil_if_free`, at moderate compute distillation wins in the best case;
    `pretraining_overtakes`, there is a budget below 1e30 FLOPs above which pretraining beats even the best case;
    `crossover_grows`, this budget grows with the student; `pretrain_if_alone`, at moderate compute pretraining wins if one
    student pays for its teacher; `sharing_pays`, at moderate compute distillation wins if enough students share the teacher
    and each pays for its inference.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> claims = bd.paper_claims(published, ["300M", "1B"])
    >>> claims["probability"].values[:2].tolist()
    [1.0, 1.0]
    """
    fitted = gather(fit, allow_unconverged)
    rule = Rule(threshold, 0.0, max_extrapolation)
    sizes = parse_students(students)
    if sizes.size < 2:
        raise ParameterError(
            "`students` must have at least two sizes to assess whether the crossover grows with the student."
        )
    moderate = 3 * flops_per_token(sizes, shape) * sizes * _TOKENS_PER_PARAM
    rows: list[dict[str, Any]] = []

    def add(claim: str, statement: str, student: float, found: tuple[Any, Any], factor: float) -> None:
        row: dict[str, Any] = {"claim": claim, "statement": statement, "student": student, "extrapolation": factor}
        row |= {"probability": float(found[0]), "probability_mcse": float(found[1])}
        rows.append(row)

    # From the strongest teacher within the bounds in the most pessimistic draw to the weakest teacher in the paper's figures.
    strongest = float(fitted.draws.supervised_loss(max_teacher_params, max_teacher_tokens).max())
    losses = np.linspace(strongest, max(_WEAKEST_TEACHER, strongest + 1.0), 241)
    for size in sizes.tolist():
        curve = capacity_gap(
            fitted, size, student_tokens_per_param=_TOKENS_PER_PARAM, teacher_losses=losses, shape=shape
        )
        best = curve["best_teacher"].values.reshape(-1)
        share, error = probability_of(fitted, best[None] > losses[0])
        reach = float(distilled_extrapolation(fitted, size, size * _TOKENS_PER_PARAM, np.median(best)))
        statement = "above some teacher strength, a stronger teacher gives a worse student"
        add("capacity_gap", statement, size, (share[0], error[0]), reach)
    for size, budget in zip(sizes.tolist(), moderate.tolist(), strict=True):
        for scenario, claim, statement in (
            ("best case", "distil_if_free", "with the teacher paid for, distillation wins at moderate compute"),
            (
                "teacher pretraining + inference",
                "pretrain_if_alone",
                "pretraining wins at moderate compute if one student pays for its teacher",
            ),
        ):
            made = plan(
                fitted,
                size,
                budget,
                scenario,
                max_teacher_params=max_teacher_params,
                max_teacher_tokens=max_teacher_tokens,
                shape=shape,
                executor=executor,
                threads=threads,
            )
            probability, error = made["probability"].item(), made["probability_mcse"].item()
            factor = float(made["extrapolation_factor"].max(skipna=False))
            if claim == "pretrain_if_alone":
                probability = 1 - probability
            add(claim, statement, size, (probability, error), factor)
        shared = break_even(
            fitted,
            size,
            budget,
            max_teacher_params=max_teacher_params,
            max_teacher_tokens=max_teacher_tokens,
            shape=shape,
            executor=executor,
            threads=threads,
        )
        names = labels.flag_names(shared["break_even_status"]).values.reshape(1, -1)
        share, error = probability_of(fitted, np.isin(names, ["shared", "alone", "beyond"]))
        statement = "distillation wins at moderate compute if enough students share the teacher"
        add("sharing_pays", statement, size, (share[0], error[0]), factor)
    crossing = crossovers(
        fitted,
        sizes,
        "best case",
        max_teacher_params=max_teacher_params,
        max_teacher_tokens=max_teacher_tokens,
        shape=shape,
        executor=executor,
        threads=threads,
        progress=progress,
    )
    factors = crossing["crossover_extrapolation"].values.reshape(sizes.size, -1)
    # A draw without a crossover within the range can have a crossover only outside the range of the data.
    outcome = labels.flag_names(crossing["crossover_status"]).values.reshape(sizes.size, -1)
    factors = np.where(np.isin(outcome, ["always", "reversed"]), np.inf, np.where(outcome == "never", 1.0, factors))
    typical = np.array([np.nan if np.isnan(f).any() else quantiles_of(f, [0.5])[0] for f in factors])
    for i, size in enumerate(sizes.tolist()):
        found = crossing["pretraining_ahead_probability"][i, 0], crossing["pretraining_ahead_probability_mcse"][i, 0]
        statement = "there is a budget above which pretraining wins, whatever the teacher costs"
        add("pretraining_overtakes", statement, size, found, float(typical[i]))
    found = crossing["slope_positive_probability"][0], crossing["slope_positive_probability_mcse"][0]
    farthest = float(np.max(typical))
    add("crossover_grows", "the budget above which pretraining wins grows with the student", np.nan, found, farthest)
    text = {"claim": "name of the claim", "statement": "statement of the claim"}
    numbers = {
        "student": (PARAMS, "non-embedding parameters of the student; NaN for a claim about all students"),
        "probability": (ONE, "probability of the claim"),
        "probability_mcse": (ONE, "Monte Carlo standard error of probability"),
        "extrapolation": (ONE, "factor by which the answer is outside the range of the data, 1 inside"),
    }
    result = _long_table(rows, text, numbers, rule, fitted, shape)
    words = np.array([VERDICTS[_judge(rule, row)] for row in rows], dtype=object)
    result["verdict"] = variable(("row",), words, ONE, "verdict of the posterior on the claim")
    return result


def _judge(rule: Rule, row: dict[str, Any]) -> int:
    probability, error = row["probability"], row["probability_mcse"]
    if rule.too_far(row["extrapolation"]):
        return 2
    if rule.sure(probability, error):
        return 0
    return 1 if rule.sure(1 - probability, error) else 2


def _long_table(
    rows: list[dict[str, Any]],
    text: dict[str, str],
    numbers: dict[str, tuple[str, str]],
    rule: Rule,
    fitted: FittedDraws,
    shape: Shape,
) -> xr.Dataset:
    variables = {
        name: variable(("row",), np.array([str(row[name]) for row in rows], dtype=object), ONE, long_name)
        for name, long_name in text.items()
    }
    variables |= {
        name: variable(("row",), np.array([float(row[name]) for row in rows]), units, long_name)
        for name, (units, long_name) in numbers.items()
    }
    coordinates = {"row": variable(["row"], np.arange(len(rows)), ONE, "row of the table")}
    attrs = {**labels.shape_attributes(shape), **fitted.attrs}
    attrs |= {
        "threshold": rule.threshold,
        "indifference": rule.indifference,
        "max_extrapolation": rule.max_extrapolation,
    }
    return Answer(variables, coordinates, attrs)
