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

Losses are the law's mean curves. With `noise="run"`, advantage, probability and probability_best refer to one pair of
runs with residual noise and group effects. All other variables refer to the law, because no decision can depend on noise.

Assumptions: the budget pays for training only (serving the student costs the same in both cases); a pretrained student is trained
on all tokens that the budget buys, up to `max_student_tokens`; every token is seen once.
"""

from __future__ import annotations

import json
from concurrent.futures import Executor
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import strategies
from bayesdistill.answers import Answer
from bayesdistill.compute import PUBLISHED_SHAPE, SCENARIOS, Shape, pretraining_tokens
from bayesdistill.decisions import labels
from bayesdistill.decisions.arguments import (
    Numbers,
    Scenarios,
    TeacherTable,
    check_choice,
    make_bounds,
    parse_budgets,
    parse_scenarios,
    parse_students,
    parse_teachers,
)
from bayesdistill.decisions.crossover_search import perfect_information_crossovers
from bayesdistill.decisions.fitted_draws import (
    FittedDraws,
    Source,
    extrapolation_factor,
    gather,
)
from bayesdistill.decisions.labels import FLOPS, NATS, ONE, PARAMS, TOKENS, variable
from bayesdistill.decisions.reductions import mean_of, probability_positive
from bayesdistill.decisions.solving import CHOSEN, PERFECT_INFORMATION, STRATEGY_NAMES, Problem, Workers, solve
from bayesdistill.law.predictive import RunNoise
from bayesdistill.progress import Progress

CELL = ("student", "scenario", "budget")
DRAWS = ("chain", "draw")
EXTRAPOLATION_AXES = (
    "student_params",
    "student_tokens_per_param",
    "teacher_loss",
    "pretraining_params",
    "pretraining_tokens_per_param",
)


def plan(
    fit: Source,
    students: Numbers,
    budgets: Numbers,
    scenarios: Scenarios = tuple(SCENARIOS),
    *,
    max_teacher_params: float = 1e12,
    max_teacher_tokens: float = 2e13,
    max_student_tokens: float | None = None,
    min_teacher_params: float = 1e6,
    teachers: pd.DataFrame | xr.Dataset | None = None,
    shape: Shape = PUBLISHED_SHAPE,
    noise: str = "law",
    seed: int = 0,
    allow_unconverged: bool = False,
    executor: Executor | None = None,
    threads: int | None = None,
    piece: int | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    """Return the probability that distillation beats pretraining, and the chosen strategy.

    Parameters
    ----------
    fit : DataTree or Dataset
        The result of `fit` or `load`, or a Dataset of draws of the law's 15 parameters over chain and draw. Convergence is
        not checked for a Dataset.
    students : float, str, or a list of them
        Non-embedding parameters, such as 3e8 or "300M". The plan keeps their order.
    budgets : float, str, or a list of them
        FLOPs for one student, in any order. The plan sorts them.
    scenarios : str, Scenario, or a list of them
        Cost scenarios (default: the four named scenarios).
    max_teacher_params, max_teacher_tokens : float
        Upper bounds on the teacher's parameters and tokens.
    max_student_tokens : float, optional
        Upper bound on the student's tokens, distilled or pretrained; by default, only the budget limits them.
    min_teacher_params : float
        Lower bound on the teacher's parameters.
    teachers : DataFrame or Dataset, optional
        Existing teachers, one per row: params, loss (measured, nats per token), and optionally name and tokens. The strategy
        then uses one of them. By default, the strategy uses a new teacher within the bounds, with the loss predicted by the
        supervised law.
    shape : Shape
        Architecture parameters that determine FLOPs per token.
    noise : {"law", "run"}
        "law": compare the law's mean curves. "run": compare one pair of runs with residual noise and group effects. Affects
        advantage, probability and probability_best.
    seed : int
        Random seed for noise="run".
    allow_unconverged : bool
        Use a posterior that failed convergence checks. The attributes of the plan record this.
    executor : concurrent.futures.Executor, optional
        Executor that solves the pieces; for a Dask cluster, `client.get_executor()`. The result is bitwise identical.
    threads : int, optional
        Number of threads in one process.
    piece : int, optional
        Number of budgets that are solved at once; by default, memory determines it.
    progress : bool or callable, optional
        True shows a progress bar, None (the default) shows it in a terminal or a notebook, False shows nothing. A callable
        receives (finished pieces, total pieces).

    Returns
    -------
    Dataset
        Over student, scenario, budget (and chain, draw): supervised_loss (no scenario), distilled_loss and teacher_loss of the
        chosen strategy, best_distilled_loss, best_teacher_params, best_teacher_tokens, best_teacher_loss and
        best_student_tokens of the strategy with perfect information, advantage. Without draws: probability, probability_best
        (each with its _mcse), expected_gain, expected_gain_mcse, regret, evpi, teacher_params, teacher_tokens,
        student_tokens, status, extrapolates, and extrapolation_factor over `axis`. Over student, scenario, chain, draw:
        crossover (FLOPs; the budget within the range of `budgets` above which pretraining beats distillation with perfect
        information), crossover_status (`crossed`; `always`: distillation is better at every budget; `never`: pretraining is
        better at every budget; `reversed`: pretraining is better at first and distillation at the largest budget;
        `impossible`: no strategy fits any budget) and crossover_sign_changes (above 1: the advantage changes sign several
        times, and crossover is the last sign change). With `teachers`: teacher_index and best_teacher_index, positions along
        the coordinate teacher. If a budget is too small for any strategy, values are NaN and status gives the reason.
        Bounds, noise, convergence and the fit's provenance are attributes.

    Raises
    ------
    ParameterError
        If an argument is invalid, or the fit has no distillation law.
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False.

    Notes
    -----
    The module docstring has the definitions. Busbridge et al. (2025, arXiv:2502.08606), sections 4 and 5.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> plan = bd.plan(published, "1B", [1e20, 1e21], "best case")
    >>> plan["probability"].values.ravel().tolist()
    [1.0, 1.0]
    """
    fitted = gather(fit, allow_unconverged)
    check_choice(noise, "noise", ("law", "run"))
    chosen = parse_scenarios(scenarios)
    table = parse_teachers(teachers, chosen)
    problem = Problem(
        parse_students(students),
        parse_budgets(budgets),
        chosen,
        make_bounds(min_teacher_params, max_teacher_params, max_teacher_tokens, max_student_tokens),
        shape,
        None if table is None else table.arrays(),
    )
    deviation = RunNoise.draw(fitted.draws, seed) if noise == "run" else None
    result = plan_problem(fitted, problem, Workers(executor, threads, progress, piece), deviation, table)
    result.attrs["noise"] = noise
    if noise == "run":
        result.attrs["noise_seed"] = int(seed)
    return result


def plan_problem(
    fitted: FittedDraws,
    problem: Problem,
    workers: Workers,
    run_noise: RunNoise | None = None,
    teachers: TeacherTable | None = None,
) -> xr.Dataset:
    """Compute the plan of a problem whose arguments have been checked."""
    chosen = solve(CHOSEN, fitted.draws, problem, workers)
    best = solve(PERFECT_INFORMATION, fitted.draws, problem, workers)
    alone = strategies.supervised_losses(fitted.draws, problem)
    crossover, crossover_status, changes = perfect_information_crossovers(
        fitted.draws, problem, alone[:, None] - best["loss"], workers
    )
    variables = _losses_and_strategies(fitted, chosen, best, alone)
    variables |= _probabilities(fitted, problem, alone, chosen, best, run_noise)
    variables |= _extrapolation(fitted, problem, chosen)
    per_pair = ("student", "scenario", *DRAWS)
    variables |= {
        "crossover": variable(
            per_pair,
            fitted.unflatten(crossover),
            FLOPS,
            "budget above which pretraining beats distillation (strategy with perfect information)",
            {
                "strategy": PERFECT_INFORMATION,
                "lowest_budget": problem.budgets.min(),
                "highest_budget": problem.budgets.max(),
            },
        ),
        "crossover_status": labels.flags(
            per_pair,
            fitted.unflatten(crossover_status),
            labels.CROSSOVER_STATUS,
            "whether pretraining overtakes distillation within the budgets",
        ),
        "crossover_sign_changes": variable(
            per_pair, fitted.unflatten(changes), ONE, "number of sign changes of the advantage within the budgets"
        ),
    }
    if teachers is not None:
        variables["teacher_index"] = variable(
            CELL, chosen["teacher_index"], ONE, "position of the chosen teacher in the table"
        )
        variables["best_teacher_index"] = variable(
            (*CELL, *DRAWS),
            fitted.unflatten(best["teacher_index"]),
            ONE,
            "position of the teacher with perfect information in the table",
        )
    coordinates = labels.grid_coordinates(problem) | labels.draw_coordinates(fitted.chain, fitted.draw)
    if teachers is not None:
        coordinates["teacher"] = variable(["teacher"], list(teachers.names), ONE, "existing teachers")
    attrs = {**labels.setting_attributes(problem.bounds, problem.shape), **fitted.attrs, "noise": "law"}
    if teachers is not None:
        attrs["teachers"] = json.dumps(list(teachers.names))
    return Answer(variables, coordinates, attrs)


def _losses_and_strategies(
    fitted: FittedDraws, chosen: dict[str, np.ndarray], best: dict[str, np.ndarray], alone: np.ndarray
) -> dict[str, xr.Variable]:
    drawn = (*CELL, *DRAWS)
    spread = fitted.unflatten
    return {
        "supervised_loss": variable(
            ("student", "budget", *DRAWS), spread(alone), NATS, "loss of the student pretrained on the whole budget"
        ),
        "distilled_loss": variable(
            drawn, spread(chosen["loss"]), NATS, "loss of the student distilled with the chosen strategy"
        ),
        "best_distilled_loss": variable(
            drawn, spread(best["loss"]), NATS, "loss of the student distilled with perfect information"
        ),
        "teacher_params": variable(
            CELL, chosen["teacher_params"], PARAMS, "non-embedding parameters of the chosen teacher"
        ),
        "teacher_tokens": variable(CELL, chosen["teacher_tokens"], TOKENS, "tokens of the chosen teacher"),
        "teacher_loss": variable(drawn, spread(chosen["teacher_loss"]), NATS, "loss of the chosen teacher"),
        "student_tokens": variable(
            CELL, chosen["student_tokens"], TOKENS, "distillation tokens of the chosen strategy"
        ),
        "status": labels.strategy_status(CELL, chosen["status"]),
        "best_teacher_params": variable(
            drawn,
            spread(best["teacher_params"]),
            PARAMS,
            "non-embedding parameters of the teacher with perfect information",
        ),
        "best_teacher_tokens": variable(
            drawn, spread(best["teacher_tokens"]), TOKENS, "tokens of the teacher with perfect information"
        ),
        "best_teacher_loss": variable(
            drawn, spread(best["teacher_loss"]), NATS, "loss of the teacher with perfect information"
        ),
        "best_student_tokens": variable(
            drawn, spread(best["student_tokens"]), TOKENS, "distillation tokens with perfect information"
        ),
    }


def _probabilities(
    fitted: FittedDraws,
    problem: Problem,
    alone: np.ndarray,
    chosen_strategy: dict[str, np.ndarray],
    informed_strategy: dict[str, np.ndarray],
    run_noise: RunNoise | None,
) -> dict[str, xr.Variable]:
    chosen, best = chosen_strategy["loss"], informed_strategy["loss"]
    pretrained = np.broadcast_to(alone[:, None], chosen.shape)
    smaller_mean = np.minimum(pretrained.mean(axis=-1), chosen.mean(axis=-1))
    gain = pretrained - chosen
    seen_gain, seen_best = gain, pretrained - best
    if run_noise is not None:
        sizes = problem.students[:, None, None, None]
        tokens = chosen_strategy["student_tokens"][..., None]
        seen_gain = gain + run_noise.difference(sizes, tokens, chosen_strategy["teacher_loss"])
        seen_best = seen_best + run_noise.difference(
            sizes, informed_strategy["student_tokens"], informed_strategy["teacher_loss"]
        )
    result: dict[str, xr.Variable] = {}
    result["advantage"] = variable(
        (*CELL, *DRAWS),
        fitted.unflatten(seen_gain),
        NATS,
        "pretrained minus distilled loss of the chosen strategy; positive if distillation is better",
        {"noise": "law" if run_noise is None else "run"},
    )
    for name, values, strategy in (
        ("probability", seen_gain, "committed"),
        ("probability_best", seen_best, "best"),
    ):
        share, error = probability_positive(fitted, values)
        result[name] = variable(
            CELL, share, ONE, f"probability that distillation beats pretraining ({STRATEGY_NAMES[strategy]})"
        )
        result[f"{name}_mcse"] = variable(CELL, error, ONE, f"Monte Carlo standard error of {name}")
    mean, error = mean_of(fitted, gain)
    result["expected_gain"] = variable(CELL, mean, NATS, "posterior mean of the law's advantage of the chosen strategy")
    result["expected_gain_mcse"] = variable(CELL, error, NATS, "Monte Carlo standard error of expected_gain")
    result["regret"] = variable(
        CELL,
        smaller_mean - np.minimum(pretrained, chosen).mean(axis=-1),
        NATS,
        "expected loss of choosing the option with the smaller mean, relative to the better option in each draw",
    )
    result["evpi"] = variable(
        CELL,
        smaller_mean - np.minimum(pretrained, best).mean(axis=-1),
        NATS,
        "expected value of perfect information about the law, for the choice and the strategy",
    )
    return result


def _extrapolation(fitted: FittedDraws, problem: Problem, chosen: dict[str, np.ndarray]) -> dict[str, xr.Variable]:
    """Return the extrapolation factors of the chosen strategy and of pretraining."""
    shape = chosen["student_tokens"].shape
    sizes = problem.students[:, None, None]
    bought = pretraining_tokens(sizes, problem.budgets[None, None, :], problem.shape)
    bought = np.minimum(bought, problem.bounds.max_student_tokens)
    values: dict[str, Any] = {
        "student_params": sizes,
        "student_tokens_per_param": chosen["student_tokens"] / sizes,
        "teacher_loss": chosen["teacher_loss"].mean(axis=-1),
        "pretraining_params": sizes,
        "pretraining_tokens_per_param": bought / sizes,
    }
    factors = np.stack(
        [
            np.broadcast_to(extrapolation_factor(values[axis], fitted.ranges.get(axis)), shape)
            for axis in EXTRAPOLATION_AXES
        ]
    )
    # Without a known range, extrapolation cannot be excluded, so set the flag. Without a strategy, do not set it.
    infeasible = np.isnan(chosen["student_tokens"])
    outside = ~(factors == 1.0).all(axis=0) & ~infeasible
    return {
        "extrapolates": variable(
            CELL,
            outside,
            ONE,
            "whether the chosen strategy or pretraining is outside the range of the data",
        ),
        "extrapolation_factor": variable(
            ("axis", *CELL), factors, ONE, "factor outside the range of the data, 1 inside"
        ),
        "axis": variable(["axis"], list(EXTRAPOLATION_AXES), ONE, "quantity whose range is known"),
    }
