"""Plan over unique tokens: distillation against pretraining when data limit training.

Both options see every unique token once, up to the cap. The law does not model repeated tokens, so it does not apply to multiple
epochs. With unlimited compute, both students see all tokens, and the decision is only about the teacher. The teacher's tokens are
capped too, by the same data or by a separate cap.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import replace

import numpy as np
import xarray as xr

from bayesdistill.compute import PUBLISHED_SHAPE, Shape
from bayesdistill.decisions import labels
from bayesdistill.decisions._crossovers import interpolated_crossovers
from bayesdistill.decisions._plan import plan_problem
from bayesdistill.decisions.arguments import (
    Number,
    Numbers,
    Scenarios,
    check_choice,
    make_bounds,
    parse_number,
    parse_numbers,
    parse_scenarios,
    parse_students,
)
from bayesdistill.decisions.fitted_draws import Source, gather
from bayesdistill.decisions.labels import CROSSOVER_STATUS, ONE, TOKENS, variable
from bayesdistill.decisions.solving import Problem, Workers
from bayesdistill.law.predictive import RunNoise
from bayesdistill.progress import Progress, reporting

SAME = "same"


def plan_tokens(
    fit: Source,
    students: Numbers,
    tokens: Numbers,
    *,
    budget: Number | None = None,
    scenarios: Scenarios = "best case",
    max_teacher_params: float = 1e12,
    max_teacher_tokens: Number = 2e13,
    min_teacher_params: float = 1e6,
    shape: Shape = PUBLISHED_SHAPE,
    noise: str = "law",
    seed: int = 0,
    allow_unconverged: bool = False,
    executor: Executor | None = None,
    threads: int | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    """Return the probability that distillation beats pretraining by unique tokens.

    Parameters
    ----------
    fit, students, scenarios, max_teacher_params, min_teacher_params, shape, noise, seed
        As for `plan`. The scenario matters only if the budget is limited.
    tokens : float, str, or a list of them
        Unique tokens for the student, distilled or pretrained, in any order. The result sorts them.
    budget : float, str, optional
        FLOPs for one student; by default unlimited.
    max_teacher_tokens : float, str
        Upper bound on the teacher's unique tokens. "same" restricts the teacher to the student's tokens.
    allow_unconverged, executor, threads, progress
        As for `plan`.

    Returns
    -------
    Dataset
        The variables of `plan` over student, scenario, `tokens` (in place of budget) and chain, draw; and over student,
        scenario, chain, draw crossover_tokens (unique tokens above which pretraining beats distillation with perfect
        information, interpolated linearly in log tokens) with crossover_status as in `plan`.

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
    >>> bd.plan_tokens(published, "1B", [1e9, 1e10], max_teacher_tokens="same")["student_tokens"].values.ravel().tolist()
    [1000000000.0, 10000000000.0]
    """
    fitted = gather(fit, allow_unconverged)
    check_choice(noise, "noise", ("law", "run"))
    caps = np.sort(parse_numbers(tokens, "tokens"))
    same = max_teacher_tokens == SAME
    spent = np.inf if budget is None else parse_number(budget, "budget")
    problem = Problem(
        parse_students(students),
        np.array([spent]),
        parse_scenarios(scenarios),
        make_bounds(min_teacher_params, max_teacher_params, 2e13 if same else max_teacher_tokens, None),
        shape,
    )
    deviation = RunNoise.draw(fitted.draws, seed) if noise == "run" else None
    workers = Workers(executor, threads)
    parts = []
    with reporting(progress, caps.size, "planning") as report:
        for i, cap in enumerate(caps):
            bounds = replace(problem.bounds, max_student_tokens=cap)
            if same:
                bounds = replace(bounds, max_teacher_tokens=cap)
            part = plan_problem(fitted, replace(problem, bounds=bounds), workers, deviation)
            parts.append(part.isel(budget=0, drop=True))
            report(i + 1, caps.size)
    axis = variable(["tokens"], caps, TOKENS, "unique tokens available to the student")
    fixed = [
        name for name, values in parts[0].variables.items() if "budget" not in values.dims and name in parts[0].coords
    ]
    result = xr.concat(
        [part.drop_vars(["crossover", "crossover_status", "crossover_sign_changes"]) for part in parts],
        axis,
        data_vars="all",
        coords="minimal",
        compat="override",
        combine_attrs="override",
    )
    result = result.assign_coords({name: parts[0].coords[name] for name in fixed})
    drawn = ("student", "scenario", "tokens", "chain", "draw")
    advantage = (result["supervised_loss"] - result["best_distilled_loss"]).transpose(*drawn).values
    crossover, status, changes = interpolated_crossovers(caps, advantage.reshape(*advantage.shape[:3], -1))
    pair = ("student", "scenario", "chain", "draw")
    result["crossover_tokens"] = variable(
        pair, fitted.unflatten(crossover), TOKENS, "unique tokens above which pretraining beats distillation"
    )
    result["crossover_status"] = labels.flags(
        pair,
        fitted.unflatten(status),
        CROSSOVER_STATUS,
        "whether pretraining overtakes distillation within the tokens",
    )
    result["crossover_sign_changes"] = variable(
        pair, fitted.unflatten(changes), ONE, "number of sign changes of the advantage within the tokens"
    )
    del result.attrs["max_student_tokens"]
    result.attrs |= {
        "noise": noise,
        "budget": float(spent),
        "max_teacher_tokens": SAME if same else float(problem.bounds.max_teacher_tokens),
    }
    if noise == "run":
        result.attrs["noise_seed"] = int(seed)
    return result
