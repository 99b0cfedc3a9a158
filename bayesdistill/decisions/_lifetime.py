r"""Lifetime cost: the best student size if the budget pays for training and for inference.

A student of N parameters that serves T tokens costs

.. math::

    C = C_\mathrm{train}(N) + p\, F(N)\, T

with the forward FLOPs per token F(N), the price p of a FLOP of inference relative to a FLOP of training, and the cost of training
:math:`C_\mathrm{train}`: the cost of pretraining, or of a strategy of distillation (student, and charged fractions of the teacher's
inference and training). So C counts FLOPs of training at equal cost; without prices, or with equal prices, it counts FLOPs. Sardana et
al. (2024, arXiv:2401.00448) minimize C for a loss of pretraining.

==============  =============================================  ========================================================
given           the chosen size, distilled or pretrained       the best size of a draw
==============  =============================================  ========================================================
total budget    minimizes the posterior mean of the loss       minimizes the loss in this draw
target loss     minimizes the total cost with which the        minimizes the total cost with which the loss in this draw
                posterior mean of the loss reaches the target  reaches the target
==============  =============================================  ========================================================

Both questions are dual: the smallest cost of the loss that a budget buys is this budget, with the same size. The mean of the costs of
the draws is no criterion, because it is infinite if one draw never reaches the target.

Losses in this table are the law's mean curves, because no decision can depend on noise. For the chosen size, the strategy is the
chosen strategy of `plan`; for the best size of a draw, it is the strategy with perfect information, which minimizes the loss in this
draw. `size_search` describes the search. Losses and costs of the chosen sizes have the level of uncertainty `noise`, as in `plan` and
`target_loss`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.answers import Codes
from bayesdistill.arguments import checked
from bayesdistill.compute import SCENARIOS, forward_flops, teacher_cost
from bayesdistill.decisions import extrapolation, labels, planning
from bayesdistill.decisions.arguments import (
    Number,
    Numbers,
    Scenarios,
    Teachers,
    parse_budgets,
    parse_number,
    parse_numbers,
    parse_students,
)
from bayesdistill.decisions.labels import QUANTILES, flops_words, size_words
from bayesdistill.decisions.lifetime_sizes import LARGEST_RANGE, Question, find_sizes, solve_chosen
from bayesdistill.decisions.prices import Prices
from bayesdistill.decisions.reductions import (
    mean_of,
    probability_of,
    probability_positive,
    quantiles_given,
    quantiles_of,
)
from bayesdistill.decisions.size_search import SIZE_STATUS
from bayesdistill.decisions.spending import epochs_note, epochs_of
from bayesdistill.errors import ParameterError
from bayesdistill.strategies import STATUS, Problem

OPTIONS = ("pretrain", "distill", "impossible")
_PRETRAIN, _DISTILL, _IMPOSSIBLE = range(3)


class LifetimeOptions(
    planning.Search, planning.Noise, planning.PlanOptions, planning.Money, planning.LimitedData, total=False
):
    """Options of `lifetime`."""


@checked
@planning.with_options
def lifetime(
    fit: planning.Source,
    served_tokens: Numbers,
    scenarios: Scenarios = tuple(SCENARIOS),
    *,
    budgets: Numbers | None = None,
    losses: Numbers | None = None,
    students: Numbers | None = None,
    teachers: Teachers | None = None,
    max_compute: Number = 1e28,
    **options: Unpack[LifetimeOptions],
) -> xr.Dataset:
    """Return the best student size if the budget pays for training and inference, distilled and pretrained.

    Give either `budgets` or `losses`.

    Parameters
    ----------
    served_tokens : float, str, or a list of them
        Tokens that the student serves, 0 or more, in any order. The result sorts them.
    budgets : float, str, or a list of them, optional
        Total budgets for training and serving one student, in FLOPs; with prices, in FLOPs of training at equal cost. The result
        sorts them.
    losses : float, str, or a list of them, optional
        Target losses of the student, nats per token, in any order. The result sorts them.
    students : float, str, or a list of them, optional
        Sizes from which to choose, in non-embedding parameters. By default, every size up to `max_extrapolation` times outside the
        sizes in the data, of distilled students and of pretrained models respectively; from 1M to 1T without known ranges.
    max_compute : float or str
        FLOPs of training above which a target loss counts as impossible.
    max_extrapolation : float, optional
        Largest extrapolation factor of student sizes, unless `students` gives them, and of a new teacher: its size, its tokens per
        parameter and its loss. None restricts the sizes to 1M to 1T. Tokens of students are never restricted.
    inference_flops_per_second : float or str, optional
        Achieved FLOPs per second of one accelerator in inference, of the student and of the teacher; by default, the value for
        training.
    draws : int
        Number of posterior draws, evenly spaced within each chain and at least one of each, for which the search of sizes is made;
        all draws if there are fewer.

    Returns
    -------
    Dataset
        Over scenario, budget (or target), served_tokens; variables of pretraining have no scenario. Sizes: distilled_params and
        pretraining_params, the chosen sizes; with chain, thinned_draw: distilled_best_params and pretraining_best_params, the best
        size of each draw, with their quantiles (suffix _quantile) over `quantile`; distilled_size_status and pretraining_size_status
        (`ok`; `size_at_min`, `size_at_max`: the chosen size is at the end of the range; `impossible`: no size serves these tokens
        with the budget, or none reaches the target). Strategies: student_tokens, teacher_params, teacher_tokens, teacher_loss
        (posterior mean), status as in `plan`, with `teachers` teacher_index; pretraining_tokens. Fractions of the total cost:
        student_share, teacher_training_share, teacher_inference_share and serving_share of distillation, pretraining_serving_share.
        With a throughput distilled_gpu_hours and pretraining_gpu_hours, with a price distilled_money and pretraining_money, for
        training and serving. option (`pretrain`, `distill` or `impossible`: the smaller expected loss, or the smaller planned cost),
        probability (that distillation has the smaller loss, or reaches the target at the smaller cost); extrapolation_factor over
        `axis`, extrapolation, extrapolation_axis and extrapolates as in `plan`; sentence.

        With `budgets`: distilled_loss and supervised_loss of the chosen sizes (with chain, draw), their quantiles,
        expected_distilled_loss and expected_supervised_loss, advantage_quantile (pretrained minus distilled loss).

        With `losses`: distilled_cost and pretraining_cost, the total cost with which the chosen size reaches the target (with chain,
        draw; infinite if it never does), their quantiles, cost_ratio_quantile (distilled divided by pretrained cost, over the draws
        in which at least one reaches the target), planned_distilled_cost and planned_pretraining_cost (with which the posterior mean
        of the law reaches the target), distilled_impossible and pretraining_impossible.

        Probabilities and expected losses have their _mcse.

    Notes
    -----
    The docstring of `bayesdistill.decisions._lifetime` has the definitions. Tokens that the student serves count in full; generating
    with a cache costs as many FLOPs per token as reading. Without `students`, sizes are found on a grid that is refined beside
    the minima, and interpolated (`bayesdistill.decisions.size_search`). Prices, throughput and currency are attributes of the result.

    References: Sardana et al. (2024, arXiv:2401.00448) for pretraining.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> found = bd.lifetime(published, [0, "1T", "10T"], "teacher inference", budgets=1e23)
    >>> [f"{size:.1e}" for size in found["pretraining_params"].values.ravel()]
    ['3.2e+10', '1.6e+10', '3.2e+09']
    """
    planner = planning.planner_of(lifetime, fit, options)
    fitted, prices = planner.fitted, Prices.of(planner)
    if (budgets is None) == (losses is None):
        raise ParameterError(
            "Give either `budgets` or `losses`: total budgets in FLOPs, or target losses in nats per token."
        )
    goals = np.sort(parse_numbers(losses, "losses")) if losses is not None else parse_budgets(budgets or ())
    served = np.sort(parse_numbers(served_tokens, "served_tokens"))
    most = parse_number(max_compute, "max_compute")
    question = Question(goals, served, losses is not None, prices.relative, most)
    problem, table = planning.problem_of(planner, LARGEST_RANGE[0], None, scenarios, teachers)
    problem = replace(problem, logits_price=prices.relative, serving_price=prices.relative)
    listed = None if students is None else parse_students(students)
    values = find_sizes(planner, problem, question, listed)
    values |= solve_chosen(planner, problem, question, values)
    values |= _spent(problem, question, prices, values)
    values |= (_compared_costs if question.reach else _compared_losses)(planner, values)
    pretrained, alone = values["pretraining_params"], values["pretraining_tokens"]
    new = {"teacher": values["teacher_tokens"]} if table is None else {}
    values |= epochs_of(fitted.draws.repetition, student=values["student_tokens"], pretraining=alone, **new)
    factors = extrapolation.strategy_factors(fitted, problem, values["distilled_params"], values, pretrained, alone)
    # An option that is impossible is not extrapolated.
    none = [
        np.isnan(np.broadcast_to(values[name], factors.shape[1:])) for name in ("student_tokens", "pretraining_tokens")
    ]
    of_axes = [none["pretraining" in axis] for axis in extrapolation.CHOICE_AXES]
    values |= extrapolation.described(np.where(of_axes, 1.0, factors), extrapolation.CHOICE_AXES)
    coordinates = labels.grid_coordinates(problem) | {"served_tokens": served, "quantile": list(QUANTILES)}
    del coordinates["student"], coordinates["budget"]
    thinned, _ = fitted.thinned(planner.draws)
    coordinates |= {question.dim: goals, "thinned_draw": thinned.draw, "axis": list(extrapolation.CHOICE_AXES)}
    attrs = labels.setting_attributes(problem.bounds, problem.shape) | fitted.attrs | planning.noise_attributes(planner)
    attrs |= prices.attributes | {"max_extrapolation": planner.largest_factor} | epochs_note(values)
    if question.reach:
        attrs["max_compute"] = most
    if table is not None:
        coordinates["teacher"] = list(table.names)
        attrs |= table.attrs | {"teachers": json.dumps(list(table.names))}
    values["sentence"] = _sentences(problem, question, values, None if table is None else table.names)
    for limit in posterior.limits_of(attrs):
        values["sentence"] = values["sentence"] + f" {limit}"
    values |= {name: Codes(values[name], SIZE_STATUS) for name in ("distilled_size_status", "pretraining_size_status")}
    values["status"] = Codes(values["status"], STATUS)
    declared = labels.declared()[result := "lifetime_cost" if question.reach else "lifetime"]
    left = {"teacher_index"} if table is None else set()
    values = {name: value for name, value in values.items() if name in declared and name not in left}
    return prices.labeled(labels.answer(result, fitted, values, coordinates, attrs))


def _spent(problem: Problem, question: Question, prices: Prices, values: dict[str, Any]) -> dict[str, Any]:
    """Return the fractions of the cost for each purpose, GPU-hours and money, of the chosen sizes."""
    lgt, pre = (
        np.array([getattr(one, name) for one in problem.scenarios])[:, None, None]
        for name in ("delta_lgt", "delta_pre")
    )
    own, alone, teacher = (
        forward_flops(values[name], problem.shape)
        for name in ("distilled_params", "pretraining_params", "teacher_params")
    )
    tokens = values["student_tokens"]
    # The tokens of an existing teacher may be unknown; they matter only if its training is charged.
    trained = teacher_cost(teacher, np.where(pre > 0, values["teacher_tokens"], 0.0), pre)
    flops = (3 * own * tokens, trained, lgt * teacher * tokens, own * question.served)
    weights = (1.0, 1.0, question.price, question.price)
    total = sum(weight * part for weight, part in zip(weights, flops, strict=True))
    names = ("student_share", "teacher_training_share", "teacher_inference_share", "serving_share")
    found = {name: w * part / total for name, w, part in zip(names, weights, flops, strict=True)}
    training, serving = 3 * alone * values["pretraining_tokens"], alone * question.served
    found["pretraining_serving_share"] = question.price * serving / (training + question.price * serving)
    found |= prices.costs("distilled", flops[0] + flops[1], flops[2] + flops[3])
    return found | prices.costs("pretraining", training, serving)


def _compared_losses(planner: planning.Planner, values: dict[str, Any]) -> dict[str, Any]:
    """Compare the losses of the chosen sizes at the level of uncertainty."""
    fitted, deviations = planner.fitted, planning.deviations_of(planner)
    distilled, alone = values["distilled_loss"], values["supervised_loss"]
    if deviations is not None:
        own, other, bought = (
            np.where(np.isnan(values[tokens]), 1.0, values[name])[..., None]
            for name, tokens in (
                ("distilled_params", "student_tokens"),
                ("pretraining_params", "pretraining_tokens"),
                ("pretraining_tokens", "pretraining_tokens"),
            )
        )
        distilled = distilled + deviations.distilled(own, values["student_tokens"][..., None], values["teacher_losses"])
        alone = alone + deviations.pretrained(other, bought)
    expected = [mean_of(fitted, losses) for losses in (distilled, alone)]
    return {
        "distilled_loss": distilled,
        "supervised_loss": alone,
        "distilled_loss_quantile": quantiles_of(distilled, QUANTILES),
        "supervised_loss_quantile": quantiles_of(alone, QUANTILES),
        "expected_distilled_loss": expected[0],
        "expected_supervised_loss": expected[1],
        "advantage_quantile": quantiles_of(alone - distilled, QUANTILES),
        "probability": probability_positive(fitted, alone - distilled),
        "option": _option(expected[0][0], expected[1][0]),
    }


def _compared_costs(planner: planning.Planner, values: dict[str, Any]) -> dict[str, Any]:
    """Compare the costs of the chosen sizes."""
    fitted, distilled = planner.fitted, values["distilled_cost"]
    alone = np.broadcast_to(values["pretraining_cost"], distilled.shape)
    with np.errstate(invalid="ignore"):
        ratio = distilled / alone
    return {
        "distilled_cost_quantile": quantiles_of(distilled, QUANTILES),
        "pretraining_cost_quantile": quantiles_of(alone[0], QUANTILES),
        "cost_ratio_quantile": quantiles_given(ratio, np.isfinite(distilled) | np.isfinite(alone), QUANTILES),
        "distilled_impossible": probability_of(fitted, np.isinf(distilled)),
        "pretraining_impossible": probability_of(fitted, np.isinf(alone[0])),
        "probability": probability_of(fitted, distilled < alone),
        "option": _option(values["planned_distilled_cost"], values["planned_pretraining_cost"]),
    }


def _option(distilled: np.ndarray, alone: np.ndarray) -> Codes:
    """Return the option with the smaller value; NaN and infinity are impossible."""
    both = np.stack([np.broadcast_to(alone, distilled.shape), distilled])
    both = np.where(np.isnan(both), np.inf, both)
    return Codes(np.where(np.isfinite(both).any(axis=0), both.argmin(axis=0), _IMPOSSIBLE), OPTIONS)


def _sentences(
    problem: Problem, question: Question, values: dict[str, Any], teachers: tuple[str, ...] | None
) -> np.ndarray:
    """Return what to choose, (scenario, goal, served)."""
    found = np.empty(values["distilled_params"].shape, dtype=object)
    for cell in np.ndindex(found.shape):
        goal, tokens = question.goals[cell[1]], size_words(float(question.served[cell[2]]))
        aim = f"For {goal:.4g} nats per token" if question.reach else f"With {flops_words(float(goal))} {question.unit}"
        given = f"{aim} and {tokens} tokens served, {problem.scenarios[cell[0]].name}"
        option = int(values["option"].values[cell])
        if option == _IMPOSSIBLE:
            found[cell] = f"{given}: no size {'reaches the loss' if question.reach else 'can serve these tokens'}."
            continue
        distilled = option == _DISTILL
        own, other = (_words(question, values, cell, one) for one in (distilled, not distilled))
        words = f"{OPTIONS[option]} {own['size']} on {own['tokens']} tokens"
        if distilled:
            place = int(values["teacher_index"][cell])
            name = (
                f"the teacher {teachers[place]}"
                if teachers
                else f"a teacher of {size_words(values['teacher_params'][cell])}"
            )
            words += f" from {name}"
        words += f" ({own['amount']}; {own['share']} for serving). {('Distilled', 'Pretrained')[distilled]}, "
        if other:
            chance = float(values["probability"][0][cell])
            sure = posterior.about(chance if distilled else 1 - chance)
            words += f"the best size is {other['size']} ({other['amount']}; {other['share']} for serving; probability {sure} "
            words += "that this costs more)" if question.reach else "that this is worse)"
        else:
            words += "no size is possible"
        if own["end"]:
            words += f". {size_words(own['value'])} is the {own['end']} size in the search, so that other sizes may be better"
        if (far := values["extrapolation"][cell]) > 1:
            axis = extrapolation.CHOICE_AXES[np.nanargmax(values["extrapolation_factor"][:, *cell])]
            words += f". Outside the range of the data: {extrapolation.AXIS_WORDS[axis]} by a factor of {far:.2g}"
        found[cell] = f"{given}: {words}."
    return found


def _words(question: Question, values: dict[str, Any], cell: tuple[Any, ...], distilled: bool) -> dict[str, Any]:
    """Return the chosen size of an option with its loss or cost in words; empty if no size is possible."""
    name, cell = ("distilled", cell) if distilled else ("pretraining", cell[1:])
    value = values[f"{name}_params"][cell]
    if np.isnan(value):
        return {}
    low, _, _, _, high = values[f"{name}_best_params_quantile"][cell]
    loss = f"{name}_cost" if question.reach else "distilled_loss" if distilled else "supervised_loss"
    show, unit = (flops_words, question.unit) if question.reach else ("{:.3f}".format, "nats per token")
    lower, middle, upper = (show(float(values[f"{loss}_quantile"][cell][place])) for place in (0, 2, 4))
    return {
        "value": value,
        "size": f"{size_words(value)} (best in 90% of draws: {size_words(low)} to {size_words(high)})",
        "tokens": size_words(values["student_tokens" if distilled else "pretraining_tokens"][cell]),
        "amount": f"{middle} {unit}, 90% interval {lower} to {upper}",
        "share": f"{100 * values['serving_share' if distilled else 'pretraining_serving_share'][cell]:.0f}%",
        "end": ("", "smallest", "largest", "")[int(values[f"{name}_size_status"][cell])],
    }
