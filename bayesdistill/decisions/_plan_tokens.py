"""Plan over unique tokens: distillation against pretraining when data limit training.

Both options see every unique token once, up to the cap. The law does not model repeated tokens, so it does not apply to multiple
epochs. With unlimited compute, both students see all tokens, and the decision is only about the teacher. The teacher's tokens are
capped too, by the same data or by a separate cap.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

import numpy as np
import xarray as xr

from bayesdistill.answers import Codes
from bayesdistill.arguments import checked
from bayesdistill.decisions import labels, planning
from bayesdistill.decisions._crossovers import interpolated_crossovers
from bayesdistill.decisions._plan import plan_problem
from bayesdistill.decisions.arguments import Number, Numbers, Scenarios, parse_number, parse_numbers
from bayesdistill.decisions.crossover_search import changes_of_side
from bayesdistill.decisions.labels import CROSSOVER_STATUS
from bayesdistill.decisions.reductions import probability_of
from bayesdistill.decisions.solving import Workers
from bayesdistill.progress import reporting

_OVER_BUDGETS = (
    *("crossover", "crossover_status", "crossover_sign_changes"),
    *("first_change", "last_change", "side_changes", "several_changes", "several_changes_probability"),
    "several_changes_probability_mcse",
)


class TokensOptions(planning.TeacherBounds, planning.Noise, planning.PlanOptions, planning.Work, total=False):
    """Options of `plan_tokens`, whose `tokens` take the place of max_student_tokens."""


@checked
@planning.with_options
def plan_tokens(
    fit: planning.Source,
    students: Numbers,
    tokens: Numbers,
    *,
    budget: Number | None = None,
    scenarios: Scenarios = "best case",
    **options: Unpack[TokensOptions],
) -> xr.Dataset:
    """Return the probability that distillation beats pretraining by unique tokens.

    Parameters
    ----------
    tokens : float, str, or a list of them
        Unique tokens for the student, distilled or pretrained, in any order. The result sorts them.
    budget : float, str, optional
        FLOPs for one student; by default unlimited. The scenario matters only if the budget is limited.

    Returns
    -------
    Dataset
        The variables of `plan` over student, scenario, `tokens` (in place of budget) and chain, draw; and over student,
        scenario, chain, thinned_draw crossover_tokens (unique tokens above which pretraining beats distillation with perfect
        information, interpolated linearly in log tokens) with crossover_status as in `plan`; and at the level of uncertainty
        first_change_tokens, last_change_tokens and side_changes.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> bd.plan_tokens(published, "1B", [1e9, 1e10], max_teacher_tokens="same")["student_tokens"].values.ravel().tolist()
    [1000000000.0, 10000000000.0]
    """
    planner = planning.planner_of(plan_tokens, fit, options)
    same = planner.max_teacher_tokens == planning.SAME
    limit = 2e13 if same else planner.max_teacher_tokens
    given = planning.changed(planner, max_student_tokens=None, max_teacher_tokens=limit)
    caps = np.sort(parse_numbers(tokens, "tokens"))
    problem, _ = planning.problem_of(
        given, students, None if budget is None else parse_number(budget, "budget"), scenarios
    )
    parts = []
    with reporting(planner.progress, caps.size, "planning") as report:
        for i, cap in enumerate(caps):
            bounds = replace(problem.bounds, max_student_tokens=cap)
            if same:
                bounds = replace(bounds, max_teacher_tokens=cap)
            part = plan_problem(planner, replace(problem, bounds=bounds), Workers(planner.executor, planner.threads))
            parts.append(part.isel(budget=0, drop=True).drop_vars(_OVER_BUDGETS))
            report(i + 1, caps.size)
    axis = labels.variables("plan_tokens", {"tokens": caps})["tokens"]
    result = xr.concat(parts, axis, data_vars="all", coords="minimal", compat="override", combine_attrs="override")
    alone = result["supervised_loss"].sel(draw=result["thinned_draw"])
    advantage = (alone - result["best_distilled_loss"]).stack(sample=("chain", "thinned_draw"))
    crossover, status, changes = interpolated_crossovers(
        caps, advantage.transpose("student", "scenario", "tokens", "sample").values
    )
    seen = result["best_advantage"].stack(sample=("chain", "thinned_draw"))
    sides = changes_of_side(seen.transpose("student", "scenario", "tokens", "sample").values, caps)
    found = {
        "crossover_tokens": crossover,
        "crossover_status": Codes(status, CROSSOVER_STATUS),
        "crossover_sign_changes": changes,
        "first_change_tokens": sides.pop("first_change"),
        "last_change_tokens": sides.pop("last_change"),
        **sides,
        "several_changes_probability": probability_of(
            planner.fitted.thinned(planner.draws)[0], sides["side_changes"] > 1
        ),
    }
    result = result.assign(labels.variables("plan_tokens", found, result.sizes["chain"]))
    del result.attrs["max_student_tokens"]
    limit = planning.SAME if same else float(problem.bounds.max_teacher_tokens)
    result.attrs |= {"budget": float(problem.budgets[0]), "max_teacher_tokens": limit}
    return result
