r"""Target losses: what distillation and pretraining cost until a student reaches a loss.

For a student of N parameters, a target :math:`\ell` and a posterior draw :math:`\theta`, the compute of an option is the first budget
with which the student reaches the target, :math:`C(\theta) = \min\{C : L(C, \theta) \le \ell\}`. For distillation, the strategy is
chosen for every budget as in `plan`, from the law's mean curves over all draws; its loss in a draw has the level of uncertainty
`noise`. So "expected", the default, solves law + effects of the student's configuration + discrepancy = target. The module
`target_search` describes the search.

========================  ==========================================================================================
ratio                     :math:`C_\mathrm{distilled} / C_\mathrm{pretrained}`, below 1 if distillation is cheaper
probability               :math:`P(C_\mathrm{distilled} < C_\mathrm{pretrained})`
impossible                :math:`P(C > C_\mathrm{max})`: the student never reaches the target with this option
planned budget            the budget with which the posterior mean of the law's loss reaches the target
========================  ==========================================================================================

With prices of training and inference, cheaper means less money: a FLOP of inference counts as much as its price relative to a FLOP of
training, in the choice of the strategies too. Without prices, or with equal prices, these are FLOPs.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import xarray as xr

from bayesdistill.answers import Codes
from bayesdistill.arguments import checked
from bayesdistill.compute import SCENARIOS
from bayesdistill.decisions import labels, planning
from bayesdistill.decisions.arguments import Number, Numbers, Scenarios, Teachers, parse_number, parse_numbers
from bayesdistill.decisions.extrapolation import CHOICE_AXES, choice_factors, described
from bayesdistill.decisions.labels import QUANTILES
from bayesdistill.decisions.prices import Prices, charged_flops
from bayesdistill.decisions.reductions import probability_of, quantiles_given, quantiles_of
from bayesdistill.decisions.solving import CHOSEN, solve_piece
from bayesdistill.decisions.spending import epochs_note, epochs_of
from bayesdistill.decisions.target_search import StrategyCurve, budget_nodes, first_budgets, pretraining_loss
from bayesdistill.law import Draws
from bayesdistill.law.predictive import Deviations
from bayesdistill.strategies import Problem, tokens_bought

CHEAPER_OPTIONS = ("distill", "pretrain", "neither")
_STRATEGY = ("teacher_params", "teacher_tokens", "teacher_loss", "student_tokens")


class TargetOptions(planning.Search, planning.Noise, planning.Money, planning.LimitedData, total=False):
    """Options of `target_loss`."""


@checked
@planning.with_options
def target_loss(
    fit: planning.Source,
    students: Numbers,
    losses: Numbers,
    scenarios: Scenarios = tuple(SCENARIOS),
    *,
    teachers: Teachers | None = None,
    max_compute: Number = 1e28,
    **options: Unpack[TargetOptions],
) -> xr.Dataset:
    """Return what distillation and pretraining cost until students reach target losses, and which is cheaper.

    Parameters
    ----------
    losses : float, str, or a list of them
        Target losses of the student, nats per token, in any order. The result sorts them.
    max_compute : float or str
        FLOPs. A target that an option does not reach with this budget counts as impossible.

    Returns
    -------
    Dataset
        Over student, scenario, target, chain, draw: distilled_compute (FLOPs charged until the student reaches the target;
        infinite if it never does), distilled_tokens (of the student), ratio (cost of distillation divided by cost of
        pretraining; NaN if both are infinite); without scenario pretraining_compute and pretraining_tokens. With a
        throughput also distilled_gpu_hours and pretraining_gpu_hours, with a price distilled_money and pretraining_money.
        Of each, quantiles over `quantile` with the suffix _quantile; quantiles of ratio are over the draws in which at least one
        option reaches the target. Over student, scenario, target: probability (that distillation reaches the target and is
        cheaper), distilled_impossible, pretraining_impossible and neither_probability (fractions of draws in which an option,
        or both, never reach the target), probability_cheapest (that this student, by its cheaper option, is the cheapest of
        all students), each with its _mcse; cheaper (`distill`, `pretrain`, `neither`: the option with the smaller median cost,
        if it is finite); planned_compute (with which distillation reaches the target on the posterior mean of the law;
        infinite if never), and for it teacher_params, teacher_tokens, teacher_loss (posterior mean), student_tokens, with
        `teachers` teacher_index; planned_pretraining_compute; and for these two extrapolation_factor over `axis`,
        extrapolation, extrapolation_axis and extrapolates as in `plan`. Over scenario, target: cheapest_student (non-embedding
        parameters; the student with the smallest median cost, NaN if no median is finite).

    Notes
    -----
    The docstring of `bayesdistill.decisions._target_loss` has the definitions. A lower target never costs less. The smallest budget
    pretrains the student on a million tokens. Strategies are interpolated between four budgets per decade, which changes the cost of a
    draw by less than 0.1%. The effects of student configurations are independent between students. Prices, throughput and currency are
    attributes of the result.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> found = bd.target_loss(published, "1B", 2.3, "teacher inference")
    >>> found["probability"].item(), bool(found["ratio"] < 1)
    (1.0, True)
    """
    planner = planning.planner_of(target_loss, fit, options)
    fitted, prices = planner.fitted, Prices.of(planner)
    targets = np.sort(parse_numbers(losses, "losses"))
    most = parse_number(max_compute, "max_compute")
    problem, table = planning.problem_of(planner, students, None, scenarios, teachers)
    problem = replace(problem, logits_price=prices.relative)
    workers = planning.workers_of(planner)
    threads = workers.search_threads
    tasks = [
        (
            fitted.draws,
            problem.part(a, b, problem.budgets),
            targets,
            most,
            deviations_of_size(planner, size),
            prices,
            threads,
        )
        for a, size in enumerate(problem.students)
        for b in range(len(problem.scenarios))
    ]
    cells = dict(workers.run(reach_targets, tasks, "target losses"))
    grid = problem.students.size, len(problem.scenarios)
    values: dict[str, Any] = {}
    for name in cells[0]:
        whole = np.stack([cells[k][name] for k in range(len(tasks))])
        values[name] = whole.reshape(*grid, *whole.shape[1:])
    # Pretraining is the same in all scenarios.
    for name in [name for name in values if name.startswith(("pretraining_", "planned_pretraining"))]:
        values[name] = values[name][:, 0]
    distilled, alone = values.pop("cost"), values.pop("pretraining_cost")[:, None]
    values |= _comparison(planner, distilled, np.broadcast_to(alone, distilled.shape), problem.students)
    for name in [name for name in values if name.startswith(("distilled_", "pretraining_"))]:
        if values[name].__class__ is np.ndarray and values[name].shape[-1] == fitted.n_draws:
            values[f"{name}_quantile"] = quantiles_of(values[name], QUANTILES)
    read = {
        "student": values["student_tokens"],
        "pretraining": values["pretraining_tokens_quantile"][..., len(QUANTILES) // 2],
    }
    if table is None:
        read["teacher"] = values["teacher_tokens"]
    values |= epochs_of(fitted.draws.repetition, **read)
    sizes = problem.students[:, None, None]
    alone_budget = values["planned_pretraining_compute"][:, None]
    factors = choice_factors(fitted, problem, sizes, alone_budget, values)
    values |= described(factors, CHOICE_AXES, ~np.isnan(values["student_tokens"]))
    coordinates = labels.grid_coordinates(problem)
    del coordinates["budget"]
    coordinates |= {"target": targets, "quantile": np.array(QUANTILES), "axis": list(CHOICE_AXES)}
    attrs = labels.setting_attributes(problem.bounds, problem.shape) | fitted.attrs | planning.noise_attributes(planner)
    attrs |= prices.attributes | {"max_compute": most} | epochs_note(values)
    if table is not None:
        coordinates["teacher"] = list(table.names)
        attrs |= table.attrs
    else:
        del values["teacher_index"]
    return prices.labeled(labels.answer("target_loss", fitted, values, coordinates, attrs))


def deviations_of_size(planner: planning.Planner, size: float) -> Deviations | None:
    """Return the deviations of the runs of one student: the common discrepancy, and effects independent of other sizes."""
    seed = (int(planner.seed) + zlib.crc32(repr(float(size)).encode())) % 2**64
    return None if planner.level == "law" else Deviations.draw(planner.fitted.draws, seed, planner.level)


def reach_targets(
    draws: Draws,
    problem: Problem,
    targets: np.ndarray,
    most: float,
    deviations: Deviations | None,
    prices: Prices,
    threads: int | None,
) -> dict[str, np.ndarray]:
    """Return the budgets and strategies of one student and scenario that reach targets: values over (target, n_draws) or (target,)."""
    nodes, size, scenario, n_draws = (
        budget_nodes(problem, most),
        problem.students[0],
        problem.scenarios[0],
        draws.n_draws,
    )
    curve = StrategyCurve.of(draws, problem, nodes, threads)
    with np.errstate(all="ignore"):
        at = first_budgets(lambda x: curve.loss(x, deviations), nodes, targets, n_draws)
        planned = first_budgets(lambda x: curve.law_loss(x).mean(axis=-1, keepdims=True), nodes, targets, 1)
    pretrained = reach_alone(draws, problem, targets, most, deviations)
    alone = pretrained["pretraining_cost"]
    never = np.isinf(at)
    strategy = curve.strategy(np.where(never, nodes[0], at))
    flops = charged_flops(
        scenario,
        problem.shape,
        size,
        strategy["student_tokens"],
        strategy["teacher_params"],
        strategy["teacher_tokens"],
    )
    training, inference = (np.where(never, np.inf, value) for value in flops)
    alone_tokens = np.where(np.isinf(alone), np.inf, tokens_bought(problem, 0, np.where(np.isinf(alone), 1.0, alone)))
    # The strategy of the planned budget is not interpolated.
    budgets = np.exp(planned)[:, 0]
    plan = solve_piece(
        CHOSEN, draws, problem.part(0, 0, np.where(np.isinf(budgets), np.exp(nodes[0]), budgets)), threads
    )
    plan = {name: values[0, 0] for name, values in plan.items()}
    plan["teacher_loss"] = plan["teacher_loss"].mean(axis=-1)
    none = np.isinf(budgets)
    found = {
        "cost": np.exp(at),
        **pretrained,
        "distilled_compute": training + inference,
        "pretraining_compute": alone,
        "distilled_tokens": np.where(never, np.inf, strategy["student_tokens"]),
        "pretraining_tokens": alone_tokens,
        **prices.costs("distilled", training, inference),
        **prices.costs("pretraining", alone),
        "planned_compute": budgets,
        "teacher_index": np.where(none, -1, plan.get("teacher_index", -1)),
    }
    return found | {name: np.where(none, np.nan, plan[name]) for name in _STRATEGY}


def reach_alone(
    draws: Draws, problem: Problem, targets: np.ndarray, most: float, deviations: Deviations | None
) -> dict[str, np.ndarray]:
    """Return the budgets of pretraining the only student of a problem until it reaches targets, in each draw and on average."""
    nodes = budget_nodes(problem, most)
    loss, law = (pretraining_loss(draws, problem, of) for of in (deviations, None))
    with np.errstate(all="ignore"):
        alone = first_budgets(loss, nodes, targets, draws.n_draws)
        planned = first_budgets(lambda x: law(x).mean(axis=-1, keepdims=True), nodes, targets, 1)
    return {"pretraining_cost": np.exp(alone), "planned_pretraining_compute": np.exp(planned)[:, 0]}


def _comparison(
    planner: planning.Planner, distilled: np.ndarray, alone: np.ndarray, students: np.ndarray
) -> dict[str, Any]:
    """Compare the options and the students by their costs, (student, scenario, target, n_draws)."""
    fitted = planner.fitted
    with np.errstate(invalid="ignore"):
        ratio = distilled / alone
    never, never_alone = np.isinf(distilled), np.isinf(alone)
    cost = np.minimum(distilled, alone)
    # Each draw has one cheapest student; ties go to the first.
    first = (cost.argmin(axis=0) == np.arange(students.size)[:, None, None, None]) & np.isfinite(cost)
    medians = np.stack([quantiles_of(of, [0.5])[..., 0] for of in (distilled, alone)])
    # At equal cost, a teacher is not worth the effort.
    option = np.where(np.isinf(medians).all(axis=0), 2, np.where(medians[0] < medians[1], 0, 1))
    typical = medians.min(axis=0)
    return {
        "ratio": ratio,
        "ratio_quantile": quantiles_given(ratio, ~(never & never_alone), QUANTILES),
        "probability": probability_of(fitted, distilled < alone),
        "distilled_impossible": probability_of(fitted, never),
        "pretraining_impossible": probability_of(fitted, never_alone[:, 0]),
        "neither_probability": probability_of(fitted, never & never_alone),
        "probability_cheapest": probability_of(fitted, first),
        "cheaper": Codes(option, CHEAPER_OPTIONS),
        "cheapest_student": np.where(np.isinf(typical).all(axis=0), np.nan, students[typical.argmin(axis=0)]),
    }
