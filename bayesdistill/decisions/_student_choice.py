"""Choice among student sizes at equal budget: which is the best, distilled or pretrained, and on how many tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.answers import Codes
from bayesdistill.arguments import checked
from bayesdistill.compute import SCENARIOS
from bayesdistill.decisions import labels, planning
from bayesdistill.decisions.arguments import Numbers, Scenarios, Teachers
from bayesdistill.decisions.extrapolation import AXIS_WORDS, CHOICE_AXES, choice_factors, described
from bayesdistill.decisions.fitted_draws import FittedDraws
from bayesdistill.decisions.labels import QUANTILES, flops_words, size_words
from bayesdistill.decisions.reductions import mean_of, probability_of, probability_positive, quantiles_of
from bayesdistill.decisions.solving import CHOSEN, solve
from bayesdistill.decisions.spending import epochs_note, tokens_and_shares
from bayesdistill.strategies import STATUS, Problem, supervised_losses
from bayesdistill.strategies.problems import CODE

OPTIONS = ("pretrain", "distill", "impossible")
_PRETRAIN, _DISTIL, _IMPOSSIBLE = range(3)


@checked
@planning.with_options
def student_choice(
    fit: planning.Source,
    students: Numbers,
    budgets: Numbers,
    scenarios: Scenarios = tuple(SCENARIOS),
    *,
    teachers: Teachers | None = None,
    **options: Unpack[planning.LimitedGridSearch],
) -> xr.Dataset:
    """Return which student size is the best at equal budget, distilled or pretrained, and with what probability.

    Parameters
    ----------
    budgets : float, str, or a list of them
        FLOPs for one student, the same for every size, in any order. The result sorts them.

    Returns
    -------
    Dataset
        Over student, scenario, budget: distilled_loss (with chain, draw), expected_distilled_loss, distilled_probability_best
        (that this size is the best distilled student), probability (that distillation beats pretraining for this size, as in
        `plan`), option (with the smaller expected loss: `pretrain`, `distill`, or `impossible` if the budget buys neither),
        expected_loss (of this option), rank (by expected_loss; 1 is the best, 0 impossible), probability_best (that this size with
        its option is the best), regret (expected loss of choosing this size, relative to the best size in each draw); student_tokens,
        teacher_params, teacher_tokens, teacher_loss (posterior mean), status, student_share, teacher_inference_share,
        teacher_training_share (fractions of the budget), extrapolation_factor over `axis`, extrapolation, extrapolation_axis and
        extrapolates, as in `plan`. Over student, budget: supervised_loss (with chain, draw), expected_supervised_loss,
        supervised_probability_best (that this size is the best pretrained student), pretraining_tokens. Quantiles of the losses over
        `quantile`: distilled_loss_quantile, supervised_loss_quantile. Over scenario, budget: best (the size of rank 1; NaN if all are
        impossible) and sentence. With `teachers`: teacher_index. Probabilities and expected losses have their _mcse.

    Notes
    -----
    All losses are at the level of uncertainty `noise`. Sizes are compared in the same posterior draws, so that parameters and
    discrepancy are common to them; the effects of student configurations and the residual noise are independent. The strategies are
    the same as in `plan`. The budget pays for training; `lifetime` counts that a smaller student is cheaper to serve.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> found = bd.student_choice(published, ["300M", "1B", "3B"], 1e21, "best case")
    >>> f"{found['best'].item():g}"
    '3e+09'
    """
    planner = planning.planner_of(student_choice, fit, options)
    fitted = planner.fitted
    problem, table = planning.problem_of(planner, students, budgets, scenarios, teachers)
    chosen = solve(CHOSEN, fitted.draws, problem, planning.workers_of(planner))
    alone, distilled = _losses(planner, problem, chosen)
    pretrained = np.broadcast_to(alone[:, None], distilled.shape)
    means = np.stack([mean_of(fitted, values)[0] for values in (pretrained, distilled)])
    comparable = np.where(np.isnan(means), np.inf, means)
    option = np.where(np.isfinite(comparable).any(axis=0), comparable.argmin(axis=0), _IMPOSSIBLE)
    own = np.where((option == _DISTIL)[..., None], distilled, pretrained)
    rank = _ranks(comparable.min(axis=0))
    lowest = np.where(np.isnan(own), np.inf, own).min(axis=0)
    with np.errstate(invalid="ignore"):
        regret = (own - lowest).mean(axis=-1)
    strategy = chosen | {"teacher_loss": chosen["teacher_loss"].mean(axis=-1)}
    factors = choice_factors(fitted, problem, problem.students[:, None, None], problem.budgets, strategy)
    values: dict[str, Any] = {
        "distilled_loss": distilled,
        "supervised_loss": alone,
        "distilled_loss_quantile": quantiles_of(distilled, QUANTILES),
        "supervised_loss_quantile": quantiles_of(alone, QUANTILES),
        "expected_distilled_loss": mean_of(fitted, distilled),
        "expected_supervised_loss": mean_of(fitted, alone),
        "expected_loss": mean_of(fitted, own),
        "distilled_probability_best": _probability_best(fitted, distilled),
        "supervised_probability_best": _probability_best(fitted, alone),
        "probability_best": _probability_best(fitted, own),
        "probability": probability_positive(fitted, pretrained - distilled),
        "option": Codes(option, OPTIONS),
        "rank": rank,
        "regret": regret,
        "best": np.where((rank == 1).any(axis=0), (problem.students[:, None, None] * (rank == 1)).sum(axis=0), np.nan),
        "status": Codes(chosen["status"], STATUS),
        **{name: strategy[name] for name in ("teacher_params", "teacher_tokens", "teacher_loss", "student_tokens")},
        **tokens_and_shares(problem, chosen, fitted.draws.repetition),
        **described(factors, CHOICE_AXES, ~np.isnan(chosen["student_tokens"])),
    }
    coordinates = labels.grid_coordinates(problem) | {"axis": list(CHOICE_AXES), "quantile": list(QUANTILES)}
    attrs = labels.setting_attributes(problem.bounds, problem.shape) | fitted.attrs | planning.noise_attributes(planner)
    attrs |= epochs_note(values)
    if table is not None:
        values["teacher_index"] = chosen["teacher_index"]
        coordinates["teacher"] = list(table.names)
        attrs |= table.attrs | {"teachers": json.dumps(list(table.names))}
    values["sentence"] = _sentences(problem, values, None if table is None else table.names)
    for limit in posterior.limits_of(fitted.attrs):
        values["sentence"] = values["sentence"] + f" {limit}"
    return labels.answer("student_choice", fitted, values, coordinates, attrs)


def _losses(
    planner: planning.Planner, problem: Problem, chosen: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pretrained (student, budget, n_draws) and the distilled losses (student, scenario, budget, n_draws) at the level."""
    alone = supervised_losses(planner.fitted.draws, problem)
    pretrained, distilled = np.empty_like(alone), np.empty_like(chosen["loss"])
    for student, deviations in enumerate(planning.deviations_of_students(planner, problem.students)):
        one, own = replace(problem, students=problem.students[[student]]), [student]
        solved = {name: chosen[name][own] for name in ("loss", "student_tokens", "teacher_loss")}
        pretrained[own], distilled[own] = planning.losses_at_level(deviations, one, alone[own], solved)
    return pretrained, distilled


def _ranks(expected: np.ndarray) -> np.ndarray:
    """Return ranks along the first axis, 1 for the smallest value; 0 for infinite ones."""
    order = np.argsort(expected, axis=0, kind="stable")
    return np.where(np.isfinite(expected), np.argsort(order, axis=0) + 1, 0)


def _probability_best(fitted: FittedDraws, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability that each student, along the first axis, has the smallest loss; ties go to the first."""
    comparable = np.where(np.isnan(losses), np.inf, losses)
    students = np.arange(len(losses)).reshape(-1, *[1] * (losses.ndim - 1))
    known = np.broadcast_to(np.isfinite(comparable.min(axis=0)), losses.shape)
    return probability_of(fitted, comparable.argmin(axis=0) == students, known)


def _sentences(problem: Problem, values: dict[str, Any], teachers: tuple[str, ...] | None) -> np.ndarray:
    """Return what to choose with each budget in each scenario, (scenario, budget)."""
    found = np.empty((len(problem.scenarios), problem.budgets.size), dtype=object)
    for at in np.ndindex(found.shape):
        given = f"With {flops_words(float(problem.budgets[at[1]]))} FLOPs, {problem.scenarios[at[0]].name}"
        rank = values["rank"][:, *at]
        if not rank.any():
            found[at] = f"{given}: the budget is too small for every student."
            continue
        best = int(np.flatnonzero(rank == 1)[0])
        cell = (best, *at)
        distilled = bool(values["option"].values[cell] == _DISTIL)
        other, own = ("supervised", "distilled") if distilled else ("distilled", "supervised")
        tokens = values["student_tokens"][cell] if distilled else values["pretraining_tokens"][best, at[1]]
        words = f"{OPTIONS[distilled]} {size_words(problem.students[best])} on {size_words(tokens)} tokens"
        if distilled:
            name = size_words(values["teacher_params"][cell])
            name = name if teachers is None else teachers[int(values["teacher_index"][cell])]
            words += f" from the teacher {name}" if teachers else f" from a teacher of {name}"
        low, middle, high = (_of_cell(values[f"{own}_loss_quantile"], cell)[place] for place in (0, 2, 4))
        words += f" ({middle:.3f} nats per token, 90% interval {low:.3f} to {high:.3f})"
        ahead = values["probability"][0][cell]
        if not np.isnan(ahead):
            middle = _of_cell(values[f"{other}_loss_quantile"], cell)[2]
            chance = posterior.about(ahead if distilled else 1 - ahead)
            words += f". {('Distilled', 'Pretrained')[distilled]}, it has {middle:.3f} nats (probability {chance} that this is worse)"
        elif not distilled and values["status"].values[cell] == CODE["budget_too_small"]:
            words += ". The budget does not pay for distillation: the charged cost of the teacher exceeds it"
        if problem.students.size > 1:
            share, error = values["probability_best"]
            chance = posterior.about(float(share[cell]), float(error[cell]))
            words += f". Probability {chance} that it is the best of the {problem.students.size} sizes"
            if problem.students[best] in (problem.students.min(), problem.students.max()):
                end = "smallest" if problem.students[best] == problem.students.min() else "largest"
                words += f", and it is the {end}, so that other sizes may be better"
        factors = values["extrapolation_factor"][:, *cell]
        if (far := np.nanmax(factors, initial=1.0)) > 1:
            words += f". Outside the range of the data: {AXIS_WORDS[CHOICE_AXES[np.nanargmax(factors)]]} by a factor of {far:.2g}"
        found[at] = f"{given}: {words}."
    return found


def _of_cell(quantiles: np.ndarray, cell: tuple[int, ...]) -> np.ndarray:
    """Return the quantiles of a cell (student, scenario, budget); pretrained students have no scenario."""
    return np.asarray(quantiles[cell] if quantiles.ndim == 4 else quantiles[cell[0], cell[2]])
