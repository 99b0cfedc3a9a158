r"""Plan: the probability that distillation beats pretraining, for each student, scenario and budget.

For a student of N parameters, a budget of C FLOPs and a posterior draw :math:`\theta`,

- pretraining gives :math:`L_P(\theta) = L_\mathrm{sup}(N, C / 3F(N))`;
- a strategy s (a teacher, and the student's tokens from the rest of the budget) gives :math:`L_S(s, \theta)`;
- the *chosen* strategy :math:`s^*` minimizes the posterior mean of :math:`L_S`: the best choice under the current posterior;
- the strategy with *perfect information* :math:`s(\theta)` minimizes :math:`L_S(\cdot, \theta)`: the best choice if the law is known.

With :math:`\mathrm{E}` the mean over the posterior:

========================  ==========================================================================================
advantage                 :math:`L_P - L_S(s^*)`, positive if distillation is better
probability               :math:`P(\text{advantage} > 0)`
probability_best          the same with perfect information
expected_gain             :math:`\mathrm{E}[\text{advantage}]`
regret                    :math:`\min(\mathrm{E} L_P, \mathrm{E} L_S(s^*)) - \mathrm{E}\min(L_P, L_S(s^*))`: expected loss of
                          choosing the option with the smaller mean, relative to the better of the two in each draw
evpi                      :math:`\min(\mathrm{E} L_P, \mathrm{E} L_S(s^*)) - \mathrm{E}\min(L_P, L_S(s(\theta)))`: expected value
                          of perfect information, if :math:`\theta` is known and the strategy is adapted to it
========================  ==========================================================================================

Losses are the law's mean curves. Advantage, probability and probability_best have the level of uncertainty `noise`: with "expected",
the default, they include the effects of new student configurations and the law's discrepancy; with "run", they refer to one pair of
runs and include residual noise as well; with "law", they compare mean curves. Strategies, crossovers and all other variables refer
to the law's mean curves, because no decision can depend on noise.

Assumptions: the budget pays for training only (serving a student of the same size costs the same in both cases; `lifetime` counts it
and compares sizes); a pretrained student is trained on all tokens that the budget buys, up to `max_student_tokens`; every token is
seen once.
"""

from __future__ import annotations

import json
from typing import Any, Unpack

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.answers import Codes
from bayesdistill.arguments import checked
from bayesdistill.compute import SCENARIOS
from bayesdistill.decisions import labels, planning
from bayesdistill.decisions.arguments import Numbers, Scenarios, Teachers, TeacherTable
from bayesdistill.decisions.crossover_search import changes_of_side, perfect_information_crossovers
from bayesdistill.decisions.extrapolation import CHOICE_AXES, choice_factors, described
from bayesdistill.decisions.labels import CROSSOVER_STATUS, QUANTILES
from bayesdistill.decisions.reductions import (
    mean_of,
    probability_by_law,
    probability_of,
    probability_positive,
    quantiles_of,
)
from bayesdistill.decisions.references import reference_probabilities, references
from bayesdistill.decisions.solving import CHOSEN, PERFECT_INFORMATION, Workers, solve
from bayesdistill.decisions.spending import epochs_note, tokens_and_shares
from bayesdistill.strategies import STATUS, Problem, supervised_losses

_STRATEGY = ("teacher_params", "teacher_tokens", "teacher_loss", "student_tokens")
_AT_LEVEL = {
    *("advantage", "best_advantage", "probability", "probability_best", "probability_by_law", "law_range"),
    *("supervised_loss_quantile", "distilled_loss_quantile"),
    *("first_change", "last_change", "side_changes", "several_changes", "several_changes_probability"),
}
_RANGE = {
    True: "The range over laws is that of the laws of the mixture.",
    False: "The range over laws is that of this fit and of stored fits of several laws to the 354 runs of Busbridge et al. (2025).",
}
Solved = dict[str, np.ndarray]


@checked
@planning.with_options
def plan(
    fit: planning.Source,
    students: Numbers,
    budgets: Numbers,
    scenarios: Scenarios = tuple(SCENARIOS),
    *,
    teachers: Teachers | None = None,
    **options: Unpack[planning.LimitedSearch],
) -> xr.Dataset:
    """Return the probability that distillation beats pretraining, and the chosen strategy.

    Returns
    -------
    Dataset
        Over student, scenario, budget (and chain, draw): supervised_loss (no scenario), distilled_loss and teacher_loss of the
        chosen strategy, advantage. Over `thinned_draw` in place of draw: best_distilled_loss, best_advantage,
        best_teacher_params, best_teacher_tokens, best_teacher_loss and best_student_tokens of the strategy with perfect
        information. Without draws: probability, probability_best, expected_gain, regret, evpi (each with its _mcse),
        teacher_params, teacher_tokens, student_tokens, pretraining_tokens (no scenario), status; student_share,
        teacher_inference_share and teacher_training_share, the fractions of the budget that the chosen strategy spends on each
        (NaN of an unlimited budget); supervised_loss_quantile (no scenario) and distilled_loss_quantile over `quantile`, at the
        level of uncertainty `noise`; extrapolation_factor over `axis` (student, pretraining, and the size, tokens per parameter
        and loss of the teacher; 1 inside the range of the data), extrapolation (the largest of them), extrapolation_axis (its
        axis) and extrapolates. Over student, scenario, chain, thinned_draw: crossover (FLOPs; the budget within the range of
        `budgets` above which pretraining beats distillation with perfect information), crossover_status (`crossed`; `always`:
        distillation is better at every budget; `never`: pretraining is better at every budget; `reversed`: pretraining is
        better at first and distillation at the largest budget; `impossible`: no strategy fits any budget) and
        crossover_sign_changes (above 1: the advantage changes sign several times, and crossover is the last sign change), all
        on the law's mean curves; and at the level of uncertainty `noise` first_change and last_change, the budgets at which the
        better option changes first and last (NaN without a change; interpolated linearly in the log of `budgets`), and
        side_changes (their number). Over student, scenario: several_changes, the number of these draws in which the better
        option changes more than once, and several_changes_probability, their fraction. Over student, scenario, budget:
        probability_curves, the probability on the law's mean curves, and laws_agree, whether this one, probability and
        the probabilities of all laws are on one side of 0.5; otherwise the data do not determine which option is better. Of
        a mixture (`mix`), and
        of a fit with the published law as prior that the runs do not contradict: probability_by_law over `law`, and law_range,
        the lowest and the highest of them over `bound`. Laws are the laws of the mixture, or of stored fits to the 354 runs,
        whose range includes probability; the attribute `law_range` says which, or why there is none. All refer to the chosen
        strategy. With `teachers`: teacher_index and best_teacher_index, positions along the coordinate teacher. If a budget is
        too small for any strategy, values are NaN and status gives the reason. Bounds, level of uncertainty (`noise`),
        convergence and the fit's provenance are attributes.

    Notes
    -----
    The docstring of `bayesdistill.decisions._plan` has the definitions. The strategy with perfect information is found for `draws`
    of the posterior draws, whose labels are the coordinate `thinned_draw`. The value of perfect information is the regret, from all
    draws, plus what that strategy saves on top of it, from these draws. With the same seed, the same machine returns the same plan.
    The numbers can change by 1e-9 (relative) if other students or budgets are added, or with another executor or number of threads.
    Busbridge et al. (2025, arXiv:2502.08606), sections 4 and 5.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> plan = bd.plan(published, "1B", [1e20, 1e21], "best case")
    >>> plan["probability"].values.ravel().tolist()
    [1.0, 1.0]
    """
    planner = planning.planner_of(plan, fit, options)
    problem, table = planning.problem_of(planner, students, budgets, scenarios, teachers)
    return plan_problem(planner, problem, planning.workers_of(planner), table)


def plan_problem(
    planner: planning.Planner, problem: Problem, workers: Workers, teachers: TeacherTable | None = None
) -> xr.Dataset:
    """Compute the plan of a problem."""
    fitted = planner.fitted
    chosen = solve(CHOSEN, fitted.draws, problem, workers)
    thinned, index = fitted.thinned(planner.draws)
    best = solve(PERFECT_INFORMATION, thinned.draws, problem, workers)
    alone = supervised_losses(fitted.draws, problem)
    crossover, crossover_status, changes = perfect_information_crossovers(
        thinned.draws, problem, alone[:, None, :, index] - best["loss"], workers
    )
    values = {
        "supervised_loss": alone,
        "distilled_loss": chosen["loss"],
        "best_distilled_loss": best["loss"],
        "status": Codes(chosen["status"], STATUS),
        "crossover": crossover,
        "crossover_status": Codes(crossover_status, CROSSOVER_STATUS),
        "crossover_sign_changes": changes,
    }
    values |= {name: chosen[name] for name in _STRATEGY} | {f"best_{name}": best[name] for name in _STRATEGY}
    values |= tokens_and_shares(problem, chosen, fitted.draws.repetition) | _comparison(
        planner, problem, alone, chosen, best
    )
    values |= changes_of_side(np.asarray(values["best_advantage"]), problem.budgets)
    values["several_changes_probability"] = probability_of(thinned, np.asarray(values["side_changes"]) > 1)
    coordinates = labels.grid_coordinates(problem)
    coordinates |= {"thinned_draw": thinned.draw, "quantile": list(QUANTILES)}
    attrs = labels.setting_attributes(problem.bounds, problem.shape) | fitted.attrs | planning.noise_attributes(planner)
    attrs["max_extrapolation"] = planner.largest_factor
    attrs |= epochs_note(values)
    note = "" if fitted.laws else posterior.reference_note(planner.fit)
    attrs["law_range"] = note or _RANGE[bool(fitted.laws)]
    if teachers is not None:
        values["teacher_index"] = chosen["teacher_index"]
        values["best_teacher_index"] = best["teacher_index"]
        coordinates["teacher"] = list(teachers.names)
        attrs |= teachers.attrs | {"teachers": json.dumps(list(teachers.names))}
    coordinates["axis"] = list(CHOICE_AXES)
    if laws := fitted.laws or (() if note else references().laws):
        coordinates |= {"law": list(laws), "bound": ["lower", "upper"]}
    strategy = chosen | {"teacher_loss": chosen["teacher_loss"].mean(axis=-1)}
    factors = choice_factors(fitted, problem, problem.students[:, None, None], problem.budgets, strategy)
    values |= described(factors, CHOICE_AXES, ~np.isnan(chosen["student_tokens"]))
    result = labels.answer("plan", fitted, values, coordinates, attrs)
    for name in _AT_LEVEL & {*result.variables}:
        result[name].attrs["noise"] = planner.level
    result["crossover"].attrs |= {
        "strategy": PERFECT_INFORMATION,
        "lowest_budget": problem.budgets.min(),
        "highest_budget": problem.budgets.max(),
    }
    return result


def _comparison(
    planner: planning.Planner, problem: Problem, alone: np.ndarray, chosen: Solved, best: Solved
) -> dict[str, Any]:
    """Return advantage, probabilities, expected gain, regret and value of perfect information."""
    fitted, noise = planner.fitted, planning.deviations_of(planner)
    thinned, index = fitted.thinned(planner.draws)
    pretrained = np.broadcast_to(alone[:, None], chosen["loss"].shape)
    gain, best_gain = pretrained - chosen["loss"], pretrained[..., index] - best["loss"]
    losses = planning.losses_at_level(noise, problem, alone, chosen)
    seen = losses[0][:, None] - losses[1]
    best_seen = planning.at_level(None if noise is None else noise.take(index), problem, best_gain, best)
    # The better option in each draw, relative to the option with the smaller mean.
    better = np.minimum(pretrained, chosen["loss"])
    distill = (gain.mean(axis=-1) > 0)[..., None]
    regret, regret_error = mean_of(fitted, np.where(distill, chosen["loss"], pretrained) - better)
    saved, saved_error = mean_of(thinned, better[..., index] - np.minimum(pretrained[..., index], best["loss"]))
    found: dict[str, Any] = {
        "supervised_loss_quantile": quantiles_of(losses[0], QUANTILES),
        "distilled_loss_quantile": quantiles_of(losses[1], QUANTILES),
        "advantage": seen,
        "best_advantage": best_seen,
        "probability": probability_positive(fitted, seen),
        "probability_best": probability_positive(thinned, best_seen),
        "expected_gain": mean_of(fitted, gain),
        "regret": (regret, regret_error),
        "evpi": (regret + saved, np.hypot(regret_error, saved_error)),
    }
    ours, curves = found["probability"][0], probability_positive(fitted, gain)[0]
    probabilities = [ours, curves]
    if fitted.laws or not posterior.reference_note(planner.fit):
        each = probability_by_law(fitted, seen) if fitted.laws else reference_probabilities(planner, problem, chosen)
        ranged = [*each, *([] if fitted.laws else [ours])]
        found |= {
            "probability_by_law": each,
            "law_range": np.stack([np.fmin.reduce(ranged), np.fmax.reduce(ranged)], axis=-1),
        }
        probabilities += ranged
    low, high = np.fmin.reduce(probabilities), np.fmax.reduce(probabilities)
    return found | {"probability_curves": curves, "laws_agree": ~((low < 0.5) & (high > 0.5))}
