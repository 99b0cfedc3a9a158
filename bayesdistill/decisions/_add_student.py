r"""Marginal cost and gain of one more student on the teacher of a family.

The teacher of the family exists once the family is trained, so that one more student pays for its own training and its charged share of
the teacher's inference. Its tokens are those at which it gains as much per FLOP as every student of the family: with the loss reduction
:math:`\lambda = -w_i \,\mathrm{d}L_i / \mathrm{d}C_i` that the split of the family equalizes, they solve

.. math:: -w \, \frac{\mathrm{d}\, \mathrm{E} L}{\mathrm{d} D} = \lambda \left(3 F(N) + \delta_\mathrm{lgt} F(N_T)\right).

The family with this student and with the budget increased by the cost of these tokens leaves all other students as they are. If the
plan of the family pretrains every student, one more student is pretrained too, by the same condition.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.arguments import checked
from bayesdistill.compute import Scenario, forward_flops, pretraining_tokens
from bayesdistill.decisions import labels, pairing, planning, token_split
from bayesdistill.decisions.arguments import Numbers, parse_students
from bayesdistill.decisions.extrapolation import (
    DISTILLED_AXES,
    PRETRAINING_AXES,
    described,
    distilled_factors,
    pretraining_factors,
)
from bayesdistill.decisions.labels import QUANTILES, flops_words, size_words
from bayesdistill.decisions.reductions import mean_of, probability_positive, quantiles_of
from bayesdistill.decisions.token_split import FEWEST_TOKENS, Family, Teacher
from bayesdistill.errors import ParameterError
from bayesdistill.law import Draws

_NEEDED = {
    "option",
    "decision",
    "student_tokens",
    "student_budget",
    "teacher_params",
    "teacher_loss",
    "count",
    "weight",
}
_STEP = 1e-3  # of log tokens, in derivatives
_MOST_TOKENS = 1e18


@checked
@planning.with_options
def add_student(
    fit: planning.Source,
    family: xr.Dataset,
    students: Numbers,
    *,
    weight: float = 1.0,
    **options: Unpack[planning.Noise],
) -> xr.Dataset:
    """Return the marginal cost and gain of one more student on the teacher of a family.

    Parameters
    ----------
    family : Dataset
        The result of `family_plan` for this fit. If its plan pretrains every student, so is the student to add, and the variables of
        distillation are NaN.
    students : float, str, or a list of them
        Non-embedding parameters of the student to add. Several sizes are alternatives, each added alone.
    weight : float
        Weight of the student in the loss of the family, relative to the mean weight of a student.

    Returns
    -------
    Dataset
        Over student: student_tokens (at which one FLOP lowers the loss of the family as much as for its other students),
        marginal_budget (FLOPs of these tokens, with the charged inference of the teacher), student_share and
        teacher_inference_share (fractions of marginal_budget), pretraining_tokens (that marginal_budget buys), expected_gain
        (pretrained minus distilled loss) with its _mcse, probability (that the distilled student is better) with its _mcse,
        loss_quantile and supervised_loss_quantile over `quantile`, sentence, extrapolation_factor over `axis`, extrapolation (the
        largest of them), extrapolation_axis and extrapolates. Scalar: average_budget (FLOPs per student of the family, with its
        teacher).

    Notes
    -----
    The docstring of `bayesdistill.decisions._add_student` has the definitions. Quantiles and probability are at the level of
    uncertainty `noise`.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import pandas as pd, xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> teacher = pd.DataFrame({"params": [8e9], "loss": [2.0]})
    >>> family = bd.family_plan(published, ["300M", "1B"], 1e21, delta_lgt=0, teachers=teacher)
    >>> bool(bd.add_student(published, family, "3B")["marginal_budget"].item() > 1e20)
    True
    """
    planner = planning.planner_of(add_student, fit, options)
    fitted, draws = planner.fitted, planner.fitted.draws
    if not isinstance(family, xr.Dataset) or not set(family.variables) >= _NEEDED:
        raise ParameterError("`family` must be the result of family_plan, with all its options.")
    made = pairing.paired(planner.fit, family, "family").sel(option="plan")
    group, teacher = _family_of(made), _teacher_of(made, draws)
    sizes = parse_students(students)
    new = replace(
        group, sizes=sizes, counts=np.ones(sizes.size), weights=np.full(sizes.size, weight / group.counts.sum())
    )
    tokens = _tokens_at(new, draws, teacher, _price(group, draws, teacher, made))
    training = 3 * forward_flops(sizes, group.shape) * tokens
    cost = token_split.cost_per_token(new, teacher) * tokens
    own = np.minimum(pretraining_tokens(sizes, cost, group.shape), group.bounds.max_student_tokens)
    alone = draws.supervised_loss(sizes[:, None], own[:, None])
    if teacher is None:
        distilled, teacher_loss = np.full_like(alone, np.nan), np.nan
    else:
        distilled = draws.distilled_loss(sizes[:, None], tokens[:, None], teacher.loss)
        teacher_loss = float(teacher.loss.mean())
    gain = mean_of(fitted, alone - distilled)
    for place, deviations in enumerate(planning.deviations_of_students(planner, sizes)):
        if deviations is not None:
            if teacher is not None:
                distilled[place] += deviations.distilled(sizes[place], tokens[place], teacher.loss)
            alone[place] += deviations.pretrained(sizes[place], own[place])
    pretrained_factors = pretraining_factors(fitted, sizes, own)
    if teacher is None:
        student_factors = np.ones((len(DISTILLED_AXES), sizes.size))
    else:
        student_factors = distilled_factors(fitted, sizes, tokens, teacher_loss)
    factors = np.concatenate([student_factors, pretrained_factors])
    average = float(made["student_budget"].sum() + made["teacher_budget"]) / group.counts.sum()
    values: dict[str, Any] = {
        "student_tokens": tokens,
        "marginal_budget": cost,
        "student_share": training / cost,
        "teacher_inference_share": np.maximum(1 - training / cost, 0.0),
        "pretraining_tokens": own,
        "expected_gain": gain,
        "probability": probability_positive(fitted, alone - distilled),
        "loss_quantile": quantiles_of(distilled, QUANTILES),
        "supervised_loss_quantile": quantiles_of(alone, QUANTILES),
        "average_budget": average,
        **described(factors, DISTILLED_AXES + PRETRAINING_AXES),
    }
    values["sentence"] = _sentences(sizes, values, teacher is not None)
    axes = list(DISTILLED_AXES + PRETRAINING_AXES)
    coordinates = {"student": sizes, "quantile": list(QUANTILES), "axis": axes}
    attrs = labels.setting_attributes(group.bounds, group.shape) | fitted.attrs | planning.noise_attributes(planner)
    attrs |= {} if teacher is None else {"teacher_params": teacher.params}
    attrs |= {"delta_lgt": float(group.scenario.delta_lgt), "weight": float(weight)}
    return labels.answer("add_student", fitted, values, coordinates, attrs)


def _family_of(made: xr.Dataset) -> Family:
    return Family(
        sizes=made["student"].values,
        counts=made["count"].values.astype(float),
        weights=made["weight"].values,
        budget=float(made.attrs["budget"]),
        scenario=Scenario(made.attrs["delta_lgt"], made.attrs["delta_pre"]),
        bounds=labels.bounds_of_attributes(made.attrs),
        shape=pairing.shape_of(made),
    )


def _teacher_of(made: xr.Dataset, draws: Draws) -> Teacher | None:
    """Return the teacher of a plan, with its measured loss or the loss that the law predicts in every draw; None without one."""
    params, tokens = float(made["teacher_params"]), float(made["teacher_tokens"])
    if not bool(made["feasible"]):
        raise ParameterError(
            "The budget of `family` is too small for its students. Plan the family with a larger budget."
        )
    if np.isnan(params):
        return None
    index = int(made["teacher_index"]) if "teacher_index" in made else -1
    if index >= 0:
        return Teacher(params, np.nan_to_num(tokens), np.full(1, float(made["teacher_loss"])), index)
    return Teacher(params, tokens, draws.supervised_loss(params, tokens))


def _slopes(family: Family, draws: Draws, tokens: np.ndarray, teacher: Teacher | None) -> np.ndarray:
    """Return how much the mean loss of each student decreases per unit of log tokens."""
    nearby = tokens[:, None] * np.exp([-_STEP, _STEP])
    fewer, more = token_split.student_losses(family, draws, nearby, teacher).mean(axis=-1).T
    return np.maximum((fewer - more) / (2 * _STEP), 1e-300)


def _price(family: Family, draws: Draws, teacher: Teacher | None, made: xr.Dataset) -> float:
    """Return the decrease of the family's loss per FLOP, which its split equalizes; 0 if all students have all their tokens."""
    tokens, distilled = made["student_tokens"].values, made["decision"].values.astype(bool)
    prices = [
        family.weights * _slopes(family, draws, tokens, one) / (token_split.cost_per_token(family, one) * tokens)
        for one in (None, teacher)
    ]
    limited = (tokens > FEWEST_TOKENS * 1.001) & (tokens < family.bounds.max_student_tokens * 0.999)
    found = np.where(distilled, prices[1], prices[0])[limited]
    return float(np.exp(np.log(found).mean())) if found.size else 0.0


def _tokens_at(new: Family, draws: Draws, teacher: Teacher | None, price: float) -> np.ndarray:
    """Return the tokens at which each student decreases the loss by a price per FLOP."""
    from scipy.optimize import brentq

    cost, most = token_split.cost_per_token(new, teacher), min(new.bounds.max_student_tokens, _MOST_TOKENS)
    found = np.full(cost.size, most)
    for place in range(cost.size):
        one = replace(new, sizes=new.sizes[[place]])

        def excess(log_tokens: float, one: Family = one, place: int = place) -> float:
            tokens = np.exp(log_tokens)
            worth = new.weights[place] * _slopes(one, draws, np.array([tokens]), teacher)[0]
            return float(np.log(worth / (cost[place] * tokens)) - np.log(price))

        ends = np.log([FEWEST_TOKENS, most])
        if price > 0 and excess(ends[1]) < 0:
            found[place] = np.exp(brentq(excess, *ends)) if excess(ends[0]) > 0 else FEWEST_TOKENS
    return found


def _sentences(sizes: np.ndarray, values: dict[str, Any], distilled: bool) -> np.ndarray:
    found = np.empty(sizes.size, dtype=object)
    average = flops_words(values["average_budget"])
    for place, size in enumerate(sizes):
        low, middle, high = values["loss_quantile" if distilled else "supervised_loss_quantile"][place][[0, 2, 4]]
        gain, (chance, error) = values["expected_gain"][0][place], (part[place] for part in values["probability"])
        tokens, budget = values["student_tokens"][place], values["marginal_budget"][place]
        found[place] = (
            f"One more student of {size_words(size)} on {size_words(tokens)} tokens costs {flops_words(budget)} FLOPs (in "
            f"the family: {average} per student, teacher included) and has {middle:.3f} nats per token, 90% interval {low:.3f} to "
            f"{high:.3f}. "
        )
        if distilled:
            about = posterior.about(float(chance), float(error))
            found[place] += (
                f"Pretrained for the same FLOPs, it has {abs(gain):.3f} nats {'more' if gain > 0 else 'less'} (probability {about} "
                "that the distilled one is better)."
            )
        else:
            found[place] += "The plan pretrains every student of the family, and this one too."
    return found
