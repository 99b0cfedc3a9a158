"""Recommendations as text, and posterior probabilities of the claims of Busbridge et al. (2025).

Each entry is a probability. If the probability is not conclusive, levels of uncertainty or laws are on different sides of 0.5, or the
answer is far outside the range of the data, the entry is "undetermined".

New teachers are within `max_extrapolation`, as in `plan`: "pretrain" says that pretraining beats distillation from every such teacher.
If the student, pretraining or the loss of an existing teacher is farther outside the range of the data, the entry is "the data cannot
tell".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.arguments import check_fields, checked
from bayesdistill.compute import forward_flops
from bayesdistill.datasets import FIXED_AXES
from bayesdistill.decisions import labels, planning
from bayesdistill.decisions._break_even import break_even
from bayesdistill.decisions._crossovers import crossovers
from bayesdistill.decisions._plan import plan
from bayesdistill.decisions._plan_tokens import plan_tokens
from bayesdistill.decisions._teacher_choice import capacity_gap
from bayesdistill.decisions.arguments import Numbers, Teachers, parse_students
from bayesdistill.decisions.extrapolation import AXIS_WORDS, TEACHER_AXES, distilled_extrapolation
from bayesdistill.decisions.reductions import probability_of, quantiles_of
from bayesdistill.decisions.spending import SHARES
from bayesdistill.errors import ParameterError

DISTILL, PRETRAIN, NO_DIFFERENCE = "distill", "pretrain", "no difference"
UNDETERMINED, IMPOSSIBLE = "undetermined", "impossible"
_OF_PLAN = ("probability", "probability_mcse", "expected_gain", "teacher_params", "teacher_tokens", "student_tokens")
_CASES = {
    "best case": "teacher and logits already paid for",
    "teacher inference": "teacher exists, logits to be computed",
    "teacher pretraining": "teacher to be trained, logits stored",
    "teacher pretraining + inference": "teacher to be trained and run for this student alone",
}
_ROUNDING = 1e-6  # relative error of the factor of a teacher at the limit
_WEAKEST_TEACHER = 2.9
_TOKENS_PER_PARAM = 20.0

CLAIMS = {
    "capacity_gap": "above some teacher strength, a stronger teacher gives a worse student",
    "distil_if_free": "with the teacher paid for, distillation wins at moderate compute",
    "pretrain_if_alone": "pretraining wins at moderate compute if one student pays for its teacher",
    "sharing_pays": "distillation wins at moderate compute if enough students share the teacher",
    "pretraining_overtakes": "there is a budget above which pretraining wins, whatever the teacher costs",
    "crossover_grows": "the budget above which pretraining wins grows with the student",
}
_size = labels.size_words
Row = dict[str, Any]


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
        check_fields(self)

    def sure(self, probability: float, mcse: float) -> bool:
        """Return whether a probability is conclusively above the threshold."""
        return probability - 2 * mcse >= self.threshold

    def too_far(self, factor: float) -> bool:
        """Return whether an extrapolation factor exceeds the limit; False if it is unknown."""
        return factor > self.max_extrapolation * (1 + _ROUNDING)


@checked
@planning.with_options
def recommendations(
    fit: planning.Source,
    students: Numbers,
    *,
    budgets: Numbers = (1e20, 1e21, 1e22),
    tokens: Numbers = (1e10, 1e11, 1e12),
    teachers: Teachers | None = None,
    threshold: float = 0.9,
    indifference: float = 1e-3,
    **options: Unpack[planning.NoisySearch],
) -> xr.Dataset:
    """Recommend whether to distill or to pretrain, with probabilities and a sentence.

    The rows cover a given budget, given unique tokens, and existing teachers.

    Parameters
    ----------
    budgets : float, str, or a list of them
        FLOPs for one student, for the rows with given compute. An empty list omits these rows.
    tokens : float, str, or a list of them
        Unique tokens, for the rows with given data and unlimited compute. An empty list omits these rows.
    teachers : DataFrame, Dataset or path, optional
        Existing teachers, as for `plan`. They add rows in which the teacher is one of them and only its inference is charged.
    threshold : float
        Probability, above 1/2, above which a choice is recommended, with a margin of two Monte Carlo standard errors.
    indifference : float
        Nats. If the two losses differ by less with probability `threshold`, the advice is `no difference`.

    Returns
    -------
    Dataset
        Over `row`: given (`compute`, `compute and teacher`, `data`), case (cost scenario, or source of the teacher's tokens),
        student, amount (FLOPs or tokens), advice (`distill`, `pretrain`, `no difference`, `undetermined`,
        `impossible`), probability that distillation beats pretraining with its _mcse, expected_gain (nats), teacher_params,
        teacher_tokens, teacher_loss (posterior mean), student_tokens of the strategy, and sentence; distilled_loss and
        supervised_loss, each as _lower, _median and _upper (90% interval at the level of uncertainty); pretraining_tokens;
        student_share, teacher_inference_share and teacher_training_share (fractions of the budget); probability_lowest and
        probability_highest over laws and laws_agree, as law_range and laws_agree of `plan`. Extrapolation factors (1
        inside the range of the data; NaN if unknown): extrapolation of student, teacher loss and pretraining,
        teacher_extrapolation of a new teacher (size and tokens per parameter), relative to the data of the supervised law;
        extrapolation_axis (the axis with the largest factor of all); extrapolates (a factor is above 1
        or unknown); restricted (a factor of the new teacher is `max_extrapolation`, so that teachers farther outside the range of
        the data could be better).

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> table = bd.recommendations(published, "1B", budgets=1e21, tokens=1e10)
    >>> print(table["sentence"].values[0].split(": ")[1])  # one draw is too few for any advice
    the data do not determine the choice for a 1B student (probability above 0.95 (Monte Carlo error 0.4); extrapolation unknown).
    """
    planner = planning.planner_of(recommendations, fit, options)
    bounds = planning.bounds_of(planner)
    rule = Rule(threshold, indifference, planner.largest_factor)
    if _none(budgets) and _none(tokens):
        raise ParameterError("`budgets` and `tokens` are both empty. Give at least one number.")
    rows: list[Row] = []
    for scenario, words in _CASES.items():
        rows += _rows(rule, Case(planner, "compute", words, scenario), students, budgets)
    if teachers is not None:
        case = Case(planner, "compute and teacher", "one of the existing teachers", "teacher inference", teachers)
        rows += _rows(rule, case, students, budgets)
    same = planning.planner_of(recommendations, planner, {"max_teacher_tokens": planning.SAME})
    for limited, source in ((planner, "teacher with other data"), (same, "teacher on the same data")):
        rows += _rows(rule, Case(limited, "data", source), students, tokens)
    result = _long_table("recommendations", rows, rule, planner)
    result.attrs |= {
        "max_teacher_params": bounds.max_teacher_params,
        "max_teacher_tokens": bounds.max_teacher_tokens,
    }
    return result


@dataclass(frozen=True)
class Case:
    """What is given in a set of rows.

    Parameters
    ----------
    planner : Planner
        The caller's bounds on the teacher.
    given : {"compute", "compute and teacher", "data"}
    words : str
        Cost scenario, or source of the teacher's tokens.
    scenario : str
        Name of the cost scenario if compute is given.
    teachers : DataFrame, Dataset or path, optional
        Existing teachers. By default, the supervised law predicts the loss of a new teacher.
    """

    planner: planning.Planner
    given: str
    words: str
    scenario: str = ""
    teachers: Teachers | None = None

    @property
    def axis(self) -> str:
        """Dimension of the plan: budget or tokens."""
        return "tokens" if self.given == "data" else "budget"

    def plan(self, students: Numbers, amounts: Numbers) -> xr.Dataset:
        """Return the plan."""
        if self.given == "data":
            return plan_tokens(self.planner, students, amounts)
        return plan(self.planner, students, amounts, self.scenario, teachers=self.teachers)


def _none(amounts: Any) -> bool:
    """Return whether a list of amounts is empty."""
    return isinstance(amounts, list | tuple | np.ndarray) and len(amounts) == 0


def _rows(rule: Rule, case: Case, students: Numbers, amounts: Numbers) -> list[Row]:
    if _none(amounts):
        return []
    made = case.plan(students, amounts)
    rows = []
    for student in made["student"].values.tolist():
        for amount in made[case.axis].values.tolist():
            row = _row(rule, case, made, student, amount)
            rows.append(row | {"sentence": _sentence(rule, row, case)})
    return rows


def _row(rule: Rule, case: Case, made: xr.Dataset, student: float, amount: float) -> Row:
    fitted = case.planner.fitted
    cell = made.isel(scenario=0).sel({"student": student, case.axis: amount})
    gain = (cell["supervised_loss"] - cell["distilled_loss"]).transpose("chain", "draw").values.reshape(1, -1)
    equal, equal_mcse = probability_of(fitted, np.abs(gain) < rule.indifference, ~np.isnan(gain))
    row: Row = {"student": student, "amount": amount, "given": case.given, "case": case.words}
    row |= {name: cell[name].item() for name in _OF_PLAN}
    row["laws_agree"] = cell["laws_agree"].item()
    ends = cell["law_range"].values.tolist() if "law_range" in cell else [np.nan, np.nan]
    row |= dict(zip(("probability_lowest", "probability_highest"), ends, strict=True))
    row["teacher_loss"] = float(cell["teacher_loss"].mean(skipna=False))
    row |= {name: cell[name].item() for name in ("pretraining_tokens", *SHARES)}
    for name in ("distilled_loss", "supervised_loss"):
        levels = cell[f"{name}_quantile"].values
        row |= {f"{name}_lower": levels[0], f"{name}_median": levels[levels.size // 2], f"{name}_upper": levels[-1]}
    factors = cell["extrapolation_factor"].to_series()
    for name, axes in (("", factors.index.difference(list(TEACHER_AXES))), ("teacher_", list(TEACHER_AXES))):
        row[f"{name}extrapolation"] = float(factors[axes].max(skipna=False))
        # Not an axis if a factor is NaN; no sentence names it then.
        row[f"{name}axis"] = str(factors[axes].fillna(0).idxmax())
    row["extrapolates"] = cell["extrapolates"].item()
    # The loss of a new teacher restricts it as well.
    at_limit = [factors[name] for name in (*TEACHER_AXES, "teacher_loss") if case.teachers is None]
    row["restricted"] = bool(np.isclose(at_limit, rule.max_extrapolation, rtol=_ROUNDING).any())
    row["extrapolation_axis"] = str(labels.flag_names(cell["extrapolation_axis"]).item())
    row |= {"equal": float(equal[0]), "equal_mcse": float(equal_mcse[0])}
    row["advice"] = _advise(rule, row)
    return row


def _advise(rule: Rule, row: Row) -> str:
    probability, error = row["probability"], row["probability_mcse"]
    if np.isnan(probability):
        return IMPOSSIBLE
    if rule.too_far(row["extrapolation"]) or rule.too_far(row["teacher_extrapolation"]):
        return UNDETERMINED
    if rule.sure(row["equal"], row["equal_mcse"]):
        return NO_DIFFERENCE
    if not row["laws_agree"]:
        return UNDETERMINED
    if rule.sure(probability, error):
        return DISTILL
    return PRETRAIN if rule.sure(1 - probability, error) else UNDETERMINED


def _sentence(rule: Rule, row: Row, case: Case) -> str:
    amount = f"{row['amount']:.3g} FLOPs" if case.axis == "budget" else f"{_size(row['amount'])} unique tokens"
    who, far, gain = f"a {_size(row['student'])} student", _far(rule, row), row["expected_gain"]
    ends = row["probability_lowest"], row["probability_highest"]
    chance = f"probability {posterior.about(row['probability'], row['probability_mcse'], ends)}"
    other = posterior.about(1 - row["probability"], row["probability_mcse"], [1 - end for end in reversed(ends)])
    other, equal = f"probability {other}", f"probability {posterior.about(row['equal'])}"
    split = "" if row["laws_agree"] else "; laws or levels of uncertainty disagree"
    words = {
        DISTILL: f"distill {who} ({chance}, gain {gain:.3f} nats; {_teacher(rule, row)}{far})",
        PRETRAIN: f"pretrain {who} ({other}, gain {-gain:.3f} nats{far})",
        NO_DIFFERENCE: f"no relevant difference for {who} (within {rule.indifference:g} nats, {equal}{far})",
        UNDETERMINED: f"the data do not determine the choice for {who} ({chance}{split}{far})",
        IMPOSSIBLE: f"impossible for {who} (no strategy fits the budget and the bounds)",
    }
    return f"With {amount}, {row['case']}: {words[row['advice']]}."


def _teacher(rule: Rule, row: dict[str, Any]) -> str:
    tokens = "" if np.isnan(row["teacher_tokens"]) else f" on {_size(row['teacher_tokens'])} tokens"
    restricted = f", the best within a factor of {rule.max_extrapolation:g} of the data" if row["restricted"] else ""
    return f"teacher of {_size(row['teacher_params'])}{tokens}{restricted}"


def _far(rule: Rule, row: dict[str, Any]) -> str:
    """Describe the extrapolation; if a factor exceeds the limit, describe only such factors."""
    factors = {row["axis"]: row["extrapolation"], row["teacher_axis"]: row["teacher_extrapolation"]}
    if any(np.isnan(list(factors.values()))):
        return "; extrapolation unknown"
    too_far = {axis: factor for axis, factor in factors.items() if rule.too_far(factor)}
    words = [
        f"; {AXIS_WORDS[axis]} outside the range of the data{' of the supervised law' if axis in TEACHER_AXES else ''} "
        f"{_times(factor)}"
        for axis, factor in (too_far or factors).items()
        if factor > 1
    ]
    return "".join(words)


def _times(factor: float) -> str:
    if factor < 1.05:
        return "by a factor below 1.05"
    return f"by a factor of {factor:.0f}" if factor >= 9.95 else f"by a factor of {factor:.2g}"


@checked
@planning.with_options
def paper_claims(
    fit: planning.Source,
    students: Numbers,
    *,
    threshold: float = 0.9,
    **options: Unpack[planning.NoisyGridSearch],
) -> xr.Dataset:
    """Return the posterior probability of each claim in the paper's summary.

    Parameters
    ----------
    students : list of float or str
        Non-embedding parameters of at least two students, because one claim is about growth with the student.
    threshold : float
        As for `recommendations`.

    Returns
    -------
    Dataset
        Over `row`: claim, statement, student (NaN for a claim about all students), probability with its _mcse, extrapolation
        (median extrapolation factor), verdict (`supported`, `contradicted`, `undetermined`), noise (level of
        uncertainty: the plan's level for `distil_if_free` and `pretrain_if_alone`, the law's mean curves for the others).

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
    planner = planning.planner_of(paper_claims, fit, options)
    fitted, bounds = planner.fitted, planning.bounds_of(planner)
    rule = Rule(threshold, 0.0, planner.largest_factor)
    sizes = parse_students(students)
    if sizes.size < 2:
        raise ParameterError(
            "`students` must have at least two sizes to assess whether the crossover grows with the student."
        )
    rows: list[Row] = []

    def add(
        claim: str, student: float, found: tuple[Any, Any], factor: float, level: str = "law", settled: bool = True
    ) -> None:
        row = {
            "claim": claim,
            "statement": CLAIMS[claim],
            "student": student,
            "extrapolation": float(factor),
            "noise": level,
            "laws_agree": bool(settled),
        }
        rows.append(row | dict(zip(("probability", "probability_mcse"), map(float, found), strict=True)))

    # From the strongest teacher within the bounds in the most pessimistic draw to the weakest teacher in the paper's figures.
    largest = bounds.teacher_params[1]
    strongest = float(fitted.draws.supervised_loss(largest, bounds.teacher_tokens(largest)[1]).max())
    strongest = max(strongest, bounds.min_teacher_loss)
    losses = np.linspace(strongest, max(_WEAKEST_TEACHER, strongest + 1.0), 241)
    for size in sizes.tolist():
        curve = capacity_gap(planner, size, student_tokens_per_param=_TOKENS_PER_PARAM, teacher_losses=losses)
        best = curve["best_teacher"].values.reshape(-1)
        reach = distilled_extrapolation(fitted, size, size * _TOKENS_PER_PARAM, np.median(best))
        add("capacity_gap", size, probability_of(fitted, best > losses[0]), float(reach))
    moderate = 3 * forward_flops(sizes, planner.shape) * sizes * _TOKENS_PER_PARAM
    for size, budget in zip(sizes.tolist(), moderate.tolist(), strict=True):
        made = plan(planner, size, budget, ["best case", "teacher pretraining + inference"])
        settled = made["laws_agree"].values.ravel()
        free, alone = made["probability"].values.ravel()
        errors = made["probability_mcse"].values.ravel()
        factors = made["extrapolation_factor"].max("axis", skipna=False).values.ravel()
        add("distil_if_free", size, (free, errors[0]), factors[0], planner.level, settled[0])
        add("pretrain_if_alone", size, (1 - alone, errors[1]), factors[1], planner.level, settled[1])
        shared = labels.flag_names(break_even(planner, size, budget)["break_even_status"]).values.ravel()
        pays = probability_of(fitted, np.isin(shared, ["shared", "alone", "beyond"]))
        add("sharing_pays", size, pays, factors[1])
    crossing = crossovers(planner, sizes, "best case")
    far = crossing["crossover_extrapolation"].values.reshape(sizes.size, -1)
    # A draw without a crossover within the range can have a crossover only outside the range of the data.
    outcome = labels.flag_names(crossing["crossover_status"]).values.reshape(sizes.size, -1)
    far = np.where(np.isin(outcome, ["always", "reversed"]), np.inf, np.where(outcome == "never", 1.0, far))
    typical = np.array([np.nan if np.isnan(f).any() else quantiles_of(f, [0.5])[0] for f in far])
    for i, size in enumerate(sizes.tolist()):
        found = crossing["pretraining_ahead_probability"][i, 0], crossing["pretraining_ahead_probability_mcse"][i, 0]
        add("pretraining_overtakes", size, found, float(typical[i]))
    found = crossing["slope_positive_probability"][0], crossing["slope_positive_probability_mcse"][0]
    add("crossover_grows", np.nan, found, float(np.max(typical)))
    return _long_table("paper_claims", [row | {"verdict": _verdict(rule, row)} for row in rows], rule, planner)


def _verdict(rule: Rule, row: Row) -> str:
    probability, error = row["probability"], row["probability_mcse"]
    if rule.too_far(row["extrapolation"]) or not row["laws_agree"]:
        return UNDETERMINED
    if rule.sure(probability, error):
        return "supported"
    return "contradicted" if rule.sure(1 - probability, error) else UNDETERMINED


def _long_table(result: str, rows: list[Row], rule: Rule, planner: planning.Planner) -> xr.Dataset:
    attrs = planner.fitted.attrs
    limits = [*posterior.limits_of(attrs), *json.loads(attrs.get(FIXED_AXES, "{}")).values()]
    if said := " ".join(filter(None, limits)):
        # Sentences are quoted without the result.
        rows = [
            row | {name: f"{row[name]} {said}" for name in ("sentence", "statement") if name in row} for row in rows
        ]
    columns = {name: [row[name] for row in rows] for name in labels.declared()[result] if name != "row"}
    values = {
        name: np.array(column, dtype=object if isinstance(column[0], str) else None) for name, column in columns.items()
    }
    attrs = labels.shape_attributes(planner.shape) | attrs | vars(rule) | planning.noise_attributes(planner)
    return labels.answer(result, planner.fitted, values, {"row": np.arange(len(rows))}, attrs)
