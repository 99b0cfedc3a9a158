"""Recommendations in words, and the claims of the paper with the probability that the posterior gives them.

The summary of Busbridge et al. (2025) says yes or no. Here every entry is a probability, and where the probability is not clear,
or where the answer lies far outside the runs, the entry is "the data cannot tell".
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import laws
from bayesdistill.compute import PUBLISHED_SHAPE, SCENARIOS, Shape, flops_per_token
from bayesdistill.decisions import labels
from bayesdistill.decisions.arguments import Numbers, parse_students
from bayesdistill.decisions.evidence import Evidence, Source, distilled_extrapolation, gather
from bayesdistill.decisions.labels import NATS, ONE, PARAMS, TOKENS, variable
from bayesdistill.decisions.overtaking import crossovers
from bayesdistill.decisions.planning import plan
from bayesdistill.decisions.reductions import probability_of, quantiles_of
from bayesdistill.decisions.scarcity import plan_tokens
from bayesdistill.decisions.sharing import break_even
from bayesdistill.decisions.solving import Progress
from bayesdistill.decisions.teachers import capacity_gap
from bayesdistill.errors import ParameterError

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
    """When something is clear.

    Parameters
    ----------
    threshold : float
        Probability from which on it is, with two Monte-Carlo standard errors to spare.
    indifference : float
        Nats within which two losses count as equal.
    max_extrapolation : float
        Factor beyond the seen runs from which on nothing is clear.
    """

    threshold: float
    indifference: float
    max_extrapolation: float

    def __post_init__(self) -> None:
        if not 0.5 < self.threshold < 1:
            raise ParameterError(f"threshold is {self.threshold!r}; a probability above 1/2 and below 1 is needed")
        if not self.indifference >= 0:
            raise ParameterError(f"indifference is {self.indifference!r}; 0 or a positive number of nats is needed")
        if not self.max_extrapolation >= 1:
            raise ParameterError(f"max_extrapolation is {self.max_extrapolation!r}; 1 (none) or more is needed")

    def sure(self, probability: float, mcse: float) -> bool:
        """Whether a probability is clearly above the threshold."""
        return probability - 2 * mcse >= self.threshold

    def too_far(self, factor: float) -> bool:
        """Whether an extrapolation is too long; an unknown one is not known to be."""
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
    """Whether to distil or to pretrain, when compute, data or teachers are given, in words and with probabilities.

    Parameters
    ----------
    fit, students, max_teacher_params, max_teacher_tokens, shape, noise, seed
        As for `plan`.
    budgets : float, str, or a list of them
        FLOPs for one student: the rows in which compute is given.
    tokens : float, str, or a list of them
        Unique tokens: the rows in which data are given and compute is unlimited.
    teachers : DataFrame or Dataset, optional
        Existing teachers, as for `plan`; with it there are rows in which the teacher is one of them and only its
        inference is paid.
    threshold : float
        Probability, above 1/2, from which on a choice is recommended, with two Monte-Carlo standard errors to spare.
    indifference : float
        Nats; where the two laws differ by less with probability `threshold`, the choice makes no difference.
    max_extrapolation : float
        How many times beyond the seen runs an answer may lie before the data cannot tell.
    allow_unconverged, executor, threads, progress
        As for `plan`.

    Returns
    -------
    Dataset
        Over `row`: given (`compute`, `compute and teacher`, `data`), case (who pays for the teacher, or where its tokens come
        from), student, amount (FLOPs or tokens), advice (`distil`, `pretrain`, `no difference`, `the data cannot tell`,
        `impossible`), probability that distillation beats pretraining with its _mcse, expected_gain (nats), extrapolation
        (factor; NaN if unknown), teacher_params, teacher_tokens, student_tokens of the committed strategy, and sentence.

    Raises
    ------
    ParameterError
        If an argument is unusable.
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()})
    >>> table = bd.recommendations(published, "1B", budgets=1e21, tokens=1e10)
    >>> print(table["sentence"].values[0])  # one draw is too few for any advice
    With 1e+21 FLOPs, teacher and logits already paid for: the data cannot tell for a 1B student (probability above 0.99 ± 0.43).
    """
    evidence = gather(fit, allow_unconverged)
    rule = Rule(threshold, indifference, max_extrapolation)
    rows: list[dict[str, Any]] = []

    def planned(scenario: str, table: pd.DataFrame | xr.Dataset | None) -> xr.Dataset:
        return plan(
            evidence,
            students,
            budgets,
            scenario,
            max_teacher_params=max_teacher_params,
            max_teacher_tokens=max_teacher_tokens,
            teachers=table,
            shape=shape,
            noise=noise,
            seed=seed,
            executor=executor,
            threads=threads,
            progress=progress,
        )

    for scenario in SCENARIOS:
        rows += _rows(evidence, rule, planned(scenario, None), "budget", "compute", _CASES[scenario])
    if teachers is not None:
        existing = planned("teacher inference", teachers)
        rows += _rows(evidence, rule, existing, "budget", "compute and teacher", "one of the existing teachers")
    for most_tokens, case in ((max_teacher_tokens, "teacher with other data"), ("same", "teacher on the same data")):
        limited = plan_tokens(
            evidence,
            students,
            tokens,
            max_teacher_params=max_teacher_params,
            max_teacher_tokens=most_tokens,
            shape=shape,
            noise=noise,
            seed=seed,
            executor=executor,
            threads=threads,
            progress=progress,
        )
        rows += _rows(evidence, rule, limited, "tokens", "data", case)
    text = {
        "given": "what is given",
        "case": "who pays for the teacher, or where its tokens come from",
        "sentence": "the recommendation in words",
    }
    numbers = {
        "student": (PARAMS, "non-embedding parameters of the student"),
        "amount": (ONE, "FLOPs where compute is given, unique tokens where data are"),
        "probability": (ONE, "probability that distillation beats pretraining"),
        "probability_mcse": (ONE, "Monte-Carlo standard error of probability"),
        "expected_gain": (NATS, "posterior mean of the law's advantage"),
        "extrapolation": (ONE, "how many times beyond the seen runs the answer lies"),
        "teacher_params": (PARAMS, "non-embedding parameters of the committed teacher"),
        "teacher_tokens": (TOKENS, "tokens of the committed teacher"),
        "student_tokens": (TOKENS, "tokens of the student"),
    }
    result = _long_table(rows, text, numbers, rule, evidence, shape)
    words = np.array([ADVICE[row["advice"]] for row in rows], dtype=object)
    result["advice"] = variable(("row",), words, ONE, "what is recommended")
    result.attrs |= {"noise": noise, "max_teacher_params": max_teacher_params, "max_teacher_tokens": max_teacher_tokens}
    return result


def _rows(evidence: Evidence, rule: Rule, made: xr.Dataset, axis: str, given: str, case: str) -> list[dict[str, Any]]:
    made = made.isel(scenario=0)
    gain = (made["supervised_loss"] - made["distilled_loss"]).transpose("student", axis, "chain", "draw").values
    gain = gain.reshape(*gain.shape[:2], -1)
    equal, equal_error = probability_of(evidence, np.abs(gain) < rule.indifference, ~np.isnan(gain))
    rows = []
    for i, student in enumerate(made["student"].values.tolist()):
        for j, amount in enumerate(made[axis].values.tolist()):
            cell = made.isel({"student": i, axis: j})
            row = {name: cell[name].item() for name in ("probability", "probability_mcse", "expected_gain")}
            row |= {name: cell[name].item() for name in ("teacher_params", "teacher_tokens", "student_tokens")}
            row |= {"student": student, "amount": amount, "given": given, "case": case}
            row["extrapolation"] = float(cell["extrapolation_factor"].max(skipna=False))
            row["advice"] = _advise(rule, row, float(equal[i, j]), float(equal_error[i, j]))
            row["sentence"] = _sentence(rule, row, axis, float(equal[i, j]))
            rows.append(row)
    return rows


def _advise(rule: Rule, row: dict[str, Any], equal: float, equal_error: float) -> int:
    probability, error = row["probability"], row["probability_mcse"]
    if np.isnan(probability):
        return IMPOSSIBLE
    if rule.too_far(row["extrapolation"]):
        return CANNOT_TELL
    if rule.sure(equal, equal_error):
        return NO_DIFFERENCE
    if rule.sure(probability, error):
        return DISTIL
    return PRETRAIN if rule.sure(1 - probability, error) else CANNOT_TELL


def _sentence(rule: Rule, row: dict[str, Any], axis: str, equal: float) -> str:
    amount = f"{row['amount']:.3g} FLOPs" if axis == "budget" else f"{_size(row['amount'])} unique tokens"
    start = f"With {amount}, {row['case']}: "
    who = f"a {_size(row['student'])} student"
    chance = _chance(row["probability"], row["probability_mcse"])
    match row["advice"]:
        case 0:
            tokens = "" if np.isnan(row["teacher_tokens"]) else f" on {_size(row['teacher_tokens'])} tokens"
            teacher = f"teacher of {_size(row['teacher_params'])}{tokens}"
            return f"{start}distil {who} ({chance}, gain {row['expected_gain']:.3f} nats; {teacher})."
        case 1:
            other = _chance(1 - row["probability"], row["probability_mcse"])
            return f"{start}pretrain {who} ({other}, gain {-row['expected_gain']:.3f} nats)."
        case 2:
            return f"{start}no difference for {who} (within {rule.indifference:g} nats, {_chance(equal, 0.0)})."
        case 3:
            far = ""
            if rule.too_far(row["extrapolation"]):
                far = f"; {row['extrapolation']:.0f} times beyond the runs"
            return f"{start}the data cannot tell for {who} ({chance}{far})."
        case _:
            return f"{start}impossible for {who} (no strategy fits)."


def _chance(probability: float, mcse: float) -> str:
    """A probability with as many digits as it has; the ends are never claimed."""
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
    """Each claim of the paper's summary, with the probability that the posterior gives it.

    Parameters
    ----------
    fit, students, max_teacher_params, max_teacher_tokens, shape
        As for `plan`; at least two students, for the claim about growth.
    threshold, max_extrapolation : float
        As for `recommendations`.
    allow_unconverged, executor, threads, progress
        As for `plan`.

    Returns
    -------
    Dataset
        Over `row`: claim, statement, student (NaN for a claim about all), probability with its _mcse, extrapolation (median
        factor beyond the seen runs), verdict (`supported`, `contradicted`, `the data cannot tell`).

    Raises
    ------
    ParameterError
        If an argument is unusable.
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False.

    Notes
    -----
    "Moderate compute" is what pretraining the student on 20 tokens a parameter costs. The claims, from the summary of
    Busbridge et al. (2025): `capacity_gap`, the student's loss is U-shaped in its teacher's, lowest with one that is weaker
    than the strongest within the bounds; `distil_if_free`, at moderate compute distillation wins in the best case;
    `pretraining_overtakes`, there is a budget below 1e30 FLOPs beyond which pretraining beats even the best case;
    `crossover_grows`, that budget grows with the student; `pretrain_if_alone`, at moderate compute pretraining wins if one
    student pays for its teacher; `sharing_pays`, at moderate compute distillation wins if enough students share the teacher
    and each pays for its inference.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()})
    >>> claims = bd.paper_claims(published, ["300M", "1B"])
    >>> claims["probability"].values[:2].tolist()
    [1.0, 1.0]
    """
    evidence = gather(fit, allow_unconverged)
    rule = Rule(threshold, 0.0, max_extrapolation)
    sizes = parse_students(students)
    if sizes.size < 2:
        raise ParameterError("students: the claim that the crossover grows with the student needs at least two sizes")
    moderate = 3 * flops_per_token(sizes, shape) * sizes * _TOKENS_PER_PARAM
    rows: list[dict[str, Any]] = []

    def add(claim: str, statement: str, student: float, found: tuple[Any, Any], factor: float) -> None:
        row: dict[str, Any] = {"claim": claim, "statement": statement, "student": student, "extrapolation": factor}
        row |= {"probability": float(found[0]), "probability_mcse": float(found[1])}
        rows.append(row)

    # From the strongest teacher within the bounds, as the most pessimistic draw has it, to the weakest of the paper's figures.
    six = {name: evidence.draws[name] for name in laws.SUPERVISED_PARAMETERS}
    strongest = float(laws.supervised_loss(max_teacher_params, max_teacher_tokens, **six).max())
    losses = np.linspace(strongest, max(_WEAKEST_TEACHER, strongest + 1.0), 241)
    for size in sizes.tolist():
        curve = capacity_gap(
            evidence, size, student_tokens_per_param=_TOKENS_PER_PARAM, teacher_losses=losses, shape=shape
        )
        best = curve["best_teacher"].values.reshape(-1)
        share, error = probability_of(evidence, best[None] > losses[0])
        reach = float(distilled_extrapolation(evidence, size, size * _TOKENS_PER_PARAM, np.median(best)))
        statement = "beyond some point a stronger teacher gives a worse student"
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
                evidence,
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
            evidence,
            size,
            budget,
            max_teacher_params=max_teacher_params,
            max_teacher_tokens=max_teacher_tokens,
            shape=shape,
            executor=executor,
            threads=threads,
        )
        names = labels.flag_names(shared["break_even_status"]).values.reshape(1, -1)
        share, error = probability_of(evidence, np.isin(names, ["shared", "alone", "beyond"]))
        statement = "distillation wins at moderate compute if enough students share the teacher"
        add("sharing_pays", statement, size, (share[0], error[0]), factor)
    crossing = crossovers(
        evidence,
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
    # A draw without a crossover within the range has it, if at all, beyond every run.
    outcome = labels.flag_names(crossing["crossover_status"]).values.reshape(sizes.size, -1)
    factors = np.where(np.isin(outcome, ["always", "reversed"]), np.inf, np.where(outcome == "never", 1.0, factors))
    typical = np.array([np.nan if np.isnan(f).any() else quantiles_of(f, [0.5])[0] for f in factors])
    for i, size in enumerate(sizes.tolist()):
        found = crossing["pretraining_ahead_probability"][i, 0], crossing["pretraining_ahead_probability_mcse"][i, 0]
        statement = "there is a budget beyond which pretraining wins, whatever the teacher costs"
        add("pretraining_overtakes", statement, size, found, float(typical[i]))
    found = crossing["slope_positive_probability"][0], crossing["slope_positive_probability_mcse"][0]
    farthest = float(np.max(typical))
    add("crossover_grows", "the budget beyond which pretraining wins grows with the student", np.nan, found, farthest)
    text = {"claim": "name of the claim", "statement": "what is claimed"}
    numbers = {
        "student": (PARAMS, "non-embedding parameters of the student; NaN for a claim about all"),
        "probability": (ONE, "probability of the claim"),
        "probability_mcse": (ONE, "Monte-Carlo standard error of probability"),
        "extrapolation": (ONE, "how many times beyond the seen runs the answer lies"),
    }
    result = _long_table(rows, text, numbers, rule, evidence, shape)
    words = np.array([VERDICTS[_judge(rule, row)] for row in rows], dtype=object)
    result["verdict"] = variable(("row",), words, ONE, "what the posterior says of the claim")
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
    evidence: Evidence,
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
    attrs = {**labels.shape_attributes(shape), **evidence.attrs}
    attrs |= {
        "threshold": rule.threshold,
        "indifference": rule.indifference,
        "max_extrapolation": rule.max_extrapolation,
    }
    return xr.Dataset(variables, coordinates, attrs)
