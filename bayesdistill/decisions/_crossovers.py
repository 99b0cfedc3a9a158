r"""Crossover budgets: whether and where pretraining overtakes distillation, and how this depends on the student.

Busbridge et al. (2025) claim that distillation is better up to a budget that grows with the student, and pretraining is better
above it. For each draw, the crossover is the last sign change of the advantage within a wide range of budgets. The limit of large
budgets is the *asymptotic advantage*, Lsup(N, D) - L_S with unlimited compute: the teacher is at its bounds, and the student's
tokens are unlimited (or at their cap). It is the same in every scenario. With unlimited tokens, distillation cannot beat
pretraining, because a student trained on the data minimizes the loss by which both are judged. The law does not enforce this,
so the posterior of the asymptotic advantage reflects the law's extrapolation and the prior on the asymptotic gap. Use
`compare_crossovers` with fits with and without this prior to measure its influence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.answers import Codes
from bayesdistill.arguments import checked, one_of
from bayesdistill.compute import SCENARIOS, Scenario, forward_flops
from bayesdistill.decisions import labels, planning, solving
from bayesdistill.decisions.arguments import Numbers, Scenarios, Teachers
from bayesdistill.decisions.crossover_search import (
    CROSSED,
    changes_of_side,
    chosen_crossovers,
    classify,
    perfect_information_crossovers,
)
from bayesdistill.decisions.extrapolation import CHOICE_AXES, choice_factors, farthest_axis
from bayesdistill.decisions.fitted_draws import FittedDraws
from bayesdistill.decisions.labels import CROSSOVER_STATUS, QUANTILES
from bayesdistill.decisions.reductions import (
    probability_given,
    probability_of,
    probability_positive,
    quantiles_given,
    quantiles_of,
)
from bayesdistill.errors import ParameterError
from bayesdistill.strategies import Problem, supervised_losses

_SHARED = ("student_tokens", "teacher_params", "teacher_tokens")
_MOST_CHOSEN = 64  # Maximum number of budgets at which the chosen strategy is solved; each requires all draws.
DEFAULT_BUDGETS = tuple(float(b) for b in np.geomspace(1e18, 1e30, 49))


@checked(strategy=one_of(*solving.STRATEGY_NAMES))
@planning.with_options
def crossovers(
    fit: planning.Source,
    students: Numbers,
    scenarios: Scenarios = tuple(SCENARIOS),
    *,
    budgets: Numbers = DEFAULT_BUDGETS,
    strategy: str = "best",
    teachers: Teachers | None = None,
    **options: Unpack[planning.LimitedGridSearch],
) -> xr.Dataset:
    """Return the distribution of the crossover budget and its growth with the student.

    Parameters
    ----------
    budgets : float, str, or a list of them
        FLOPs. Crossovers are searched within this range; sign changes are detected between neighboring budgets.
    strategy : {"best", "committed"}
        "best": each draw uses its strategy with perfect information; the relative error of the crossover is about 1e-7.
        "committed": all draws share the chosen strategy, which minimizes the posterior mean loss at each budget; budgets are
        added where draws cross, until the relative error of the crossover is about 1e-4.

    Returns
    -------
    Dataset
        Over student, scenario, chain, draw: crossover (FLOPs, NaN unless `crossed`), crossover_status,
        crossover_sign_changes, crossover_extrapolation (the factor by which the strategy, its teacher or pretraining is outside
        the range of the data at the crossover). Over student, scenario: crossover_extrapolation_axis (the axis with the largest
        factor, in the geometric mean over draws with a crossover); status_probability over `outcome` (the statuses) with its
        _mcse; crossover_quantile over `quantile`, in which `always` and `reversed` count as infinite and `never` as 0;
        pretraining_ahead_probability at the largest budget; crossed_within_data_probability;
        crossover_extrapolation_quantile among draws with a crossover. Over student, chain, draw:
        asymptotic_advantage; over student: eventually_probability (that pretraining is better with unlimited compute);
        seen_budget over `bound` (range of pretraining budgets in the data). Over scenario, chain, draw: slope, the
        power of the student's size with which the crossover grows, in draws in which every student has a crossover; over
        scenario: slope_quantile, slope_probability (that a draw has a slope), slope_positive_probability (given that). All these
        refer to the law's mean curves. At the level of uncertainty `noise`, in which a draw can change sides several times: over
        student, scenario, chain, draw: first_change and last_change (FLOPs, NaN without a change; interpolated linearly in the log
        of `budgets`) and side_changes (their number); over student, scenario: their quantiles among the draws with a change, and
        several_changes, the number of draws in which the better option changes more than once, and their fraction
        several_changes_probability.

    Notes
    -----
    Statuses are defined as in `plan`. Busbridge et al. (2025, arXiv:2502.08606), section 5.2.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> found = bd.crossovers(published, ["300M", "1B"], "teacher pretraining + inference")
    >>> bd.flag_names(found["crossover_status"]).dims
    ('student', 'scenario', 'chain', 'draw')
    """
    planner = planning.planner_of(crossovers, fit, options)
    fitted, workers = planner.fitted, planning.workers_of(planner)
    problem, table = planning.problem_of(planner, students, budgets, scenarios, teachers)
    if problem.budgets.size < 2:
        raise ParameterError(
            f"`budgets` must have at least two values, got {problem.budgets.size}. They define the search range."
        )
    solved = solving.solve(strategy, fitted.draws, problem, workers)
    advantage = supervised_losses(fitted.draws, problem)[:, None] - solved["loss"]
    informed = strategy == solving.PERFECT_INFORMATION
    search = perfect_information_crossovers if informed else chosen_crossovers
    crossover, status, changes = search(fitted.draws, problem, advantage, workers)
    sides = changes_of_side(
        planning.at_level(planning.deviations_of(planner), problem, advantage, solved), problem.budgets
    )
    factors = _extrapolation(fitted, problem, strategy, crossover, workers)
    extrapolation = factors.max(axis=0)
    asymptote = _asymptotic_advantage(fitted, problem, workers.search_threads)
    crossed, always, never, reversed_, _ = (status == code for code in range(len(CROSSOVER_STATUS)))
    placed = np.select([always | reversed_, never], [np.inf, 0.0], default=crossover)
    with np.errstate(divide="ignore", invalid="ignore"):
        typical = np.exp(np.where(crossed, np.log(factors), 0.0).sum(axis=-1) / crossed.sum(axis=-1))
    values = {
        "crossover": crossover,
        "crossover_status": Codes(status, CROSSOVER_STATUS),
        "crossover_sign_changes": changes,
        "crossover_extrapolation": extrapolation,
        "crossover_extrapolation_axis": farthest_axis(typical, CHOICE_AXES, crossed.any(axis=-1)),
        "asymptotic_advantage": asymptote,
        "status_probability": probability_of(fitted, status[:, :, None] == np.arange(len(CROSSOVER_STATUS))[:, None]),
        "pretraining_ahead_probability": probability_of(fitted, crossed | never),
        "eventually_probability": probability_positive(fitted, -asymptote),
        "crossed_within_data_probability": probability_of(fitted, extrapolation == 1),
        "crossover_quantile": quantiles_of(placed, QUANTILES),
        "crossover_extrapolation_quantile": quantiles_given(extrapolation, crossed, QUANTILES),
        "seen_budget": _seen_budgets(fitted, problem),
    }
    values |= sides | _slopes(fitted, problem.students, crossover)
    values["several_changes_probability"] = probability_of(fitted, sides["side_changes"] > 1)
    for name in ("first_change", "last_change"):
        values[f"{name}_quantile"] = quantiles_given(sides[name], sides["side_changes"] > 0, QUANTILES)
    coordinates = labels.grid_coordinates(problem)
    del coordinates["budget"]
    coordinates |= {"outcome": list(CROSSOVER_STATUS), "quantile": np.array(QUANTILES), "bound": ["lower", "upper"]}
    attrs = labels.setting_attributes(problem.bounds, problem.shape) | fitted.attrs
    attrs |= {
        "strategy": strategy,
        "lowest_budget": float(problem.budgets[0]),
        "highest_budget": float(problem.budgets[-1]),
        "n_budgets": problem.budgets.size,
        "teachers": json.dumps(None if table is None else list(table.names)),
        **({} if table is None else table.attrs),
    }
    result = labels.answer("crossovers", fitted, values, coordinates, attrs)
    result["crossover"].attrs["long_name"] += f" ({solving.STRATEGY_NAMES[strategy]})"
    result["crossover"].attrs["strategy"] = strategy
    for name in (*sides, "several_changes_probability", "first_change_quantile", "last_change_quantile"):
        result[name].attrs |= planning.noise_attributes(planner)
    return result


@checked(strategy=one_of(*solving.STRATEGY_NAMES))
@planning.with_options
def compare_crossovers(
    fits: Mapping[str, planning.Source],
    students: Numbers,
    scenarios: Scenarios = tuple(SCENARIOS),
    *,
    budgets: Numbers = DEFAULT_BUDGETS,
    strategy: str = "best",
    **options: Unpack[planning.LimitedGridSearch],
) -> xr.Dataset:
    """Compare the crossovers of several posteriors, for example under different priors.

    Parameters
    ----------
    fits : mapping of str to DataTree, Dataset or Planner
        Fits by name, for example with and without the prior on the asymptotic gap, with several widths of this prior, or a
        Dataset of prior draws.
    budgets, strategy
        As for `crossovers`.

    Returns
    -------
    Dataset
        The summaries of `crossovers` (all variables without draws), with `fit` as first dimension, and the largest minus the
        smallest probability among the fits: pretraining_ahead_range over student, scenario, and eventually_range over
        student. If the fits differ only in a prior, a range near 0 means that this prior has little influence; a range near 1
        means that it determines the answer.

    Raises
    ------
    ParameterError
        If `fits` is not a mapping, or is empty.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> other = published.assign(E=published.E + 0.01)
    >>> bd.compare_crossovers({"a": published, "b": other}, "1B", "best case")["fit"].values.tolist()
    ['a', 'b']
    """
    planning.check_options(compare_crossovers, options)
    if not isinstance(fits, Mapping) or not fits:
        raise ParameterError(
            "`fits` must be a non-empty mapping from names to fits, such as {'with': fit_1, 'without': fit_2}."
        )
    wholes = [
        crossovers(fit, students, scenarios, budgets=budgets, strategy=strategy, **options) for fit in fits.values()
    ]
    parts = [whole.drop_dims(["chain", "draw"]) for whole in wholes]
    names = labels.variables("compare_crossovers", {"fit": [str(name) for name in fits]})["fit"]
    result = xr.concat(
        parts, names, data_vars="all", combine_attrs="drop_conflicts", coords="minimal", compat="override"
    )
    for name in ("pretraining_ahead", "eventually"):
        each = result[f"{name}_probability"]
        moved = {f"{name}_range": (each.max("fit") - each.min("fit")).values}
        result = result.assign(labels.variables("compare_crossovers", moved))
    converged = {str(k): p.attrs["converged"] for k, p in zip(fits, parts, strict=True)}
    result.attrs["converged_each"] = json.dumps(converged)
    # Report the worst convergence state: a comparison is only as reliable as its least converged posterior.
    result.attrs["converged"] = next((state for state in ("no", "unknown") if state in converged.values()), "yes")
    result.attrs |= posterior.conflict_attribute({str(name): planning.fit_of(fit) for name, fit in fits.items()})
    return result


def interpolated_crossovers(budgets: np.ndarray, advantage: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interpolate crossovers linearly in log budget, (student, scenario, n_draws)."""
    sides = changes_of_side(advantage, budgets)
    status = np.empty(sides["side_changes"].shape, dtype=np.int8)
    for cell in np.ndindex(status.shape[:-1]):
        status[cell] = classify(advantage[cell], budgets)["status"]
    return np.where(status == CROSSED, sides["last_change"], np.nan), status, sides["side_changes"]


def _asymptotic_advantage(fitted: FittedDraws, problem: Problem, threads: int | None) -> np.ndarray:
    """Return the advantage with perfect information and unlimited compute, (student, n_draws)."""
    unlimited = replace(problem, budgets=np.array([np.inf]), scenarios=(Scenario(0, 0),))
    found = solving.solve_piece(solving.PERFECT_INFORMATION, fitted.draws, unlimited, threads)
    return supervised_losses(fitted.draws, unlimited)[:, 0] - found["loss"][:, 0, 0]


def _extrapolation(
    fitted: FittedDraws, problem: Problem, strategy: str, crossover: np.ndarray, workers: solving.Workers
) -> np.ndarray:
    """Return the extrapolation factors at each crossover over CHOICE_AXES, (axis, student, scenario, n_draws)."""
    at_crossover = _perfect_information_at if strategy == solving.PERFECT_INFORMATION else _chosen_at
    result = np.full((len(CHOICE_AXES), *crossover.shape), np.nan)
    for i, j in np.ndindex(crossover.shape[:2]):
        crossed = np.flatnonzero(~np.isnan(crossover[i, j]))
        if crossed.size:
            budgets = crossover[i, j, crossed]
            found = at_crossover(fitted, problem.part(i, j, budgets), crossed, workers)
            result[:, i, j, crossed] = choice_factors(fitted, problem, problem.students[i], budgets, found)
    return result


def _perfect_information_at(
    fitted: FittedDraws, cell: Problem, crossed: np.ndarray, workers: solving.Workers
) -> dict[str, np.ndarray]:
    """Return the strategy with perfect information at each crossover."""
    own = replace(cell.for_draws(crossed), budgets=cell.budgets[None, :])
    found = solving.solve_piece(solving.PERFECT_INFORMATION, fitted.draws.take(crossed), own, workers.search_threads)
    return {name: found[name][0, 0, 0] for name in (*_SHARED, "teacher_loss")}


def _chosen_at(
    fitted: FittedDraws, cell: Problem, crossed: np.ndarray, workers: solving.Workers
) -> dict[str, np.ndarray]:
    """Return the chosen strategy at each crossover.

    Each budget requires all draws. With more than _MOST_CHOSEN budgets, solve the strategy on a geometric grid and
    interpolate.
    """
    wanted = np.log(cell.budgets)
    nodes = np.unique(cell.budgets)
    if nodes.size > _MOST_CHOSEN:
        nodes = np.geomspace(nodes[0], nodes[-1], _MOST_CHOSEN)
    quiet = solving.Workers(workers.executor, workers.threads, None, workers.piece)
    found = solving.solve(solving.CHOSEN, fitted.draws, replace(cell, budgets=nodes), quiet)
    at = np.log(nodes)
    result = {name: np.exp(np.interp(wanted, at, np.log(found[name][0, 0]))) for name in _SHARED}
    of_draws = found["teacher_loss"][0, 0][:, crossed].T
    teacher_loss = [np.interp(x, at, losses) for x, losses in zip(wanted, of_draws, strict=True)]
    return result | {"teacher_loss": np.array(teacher_loss)}


def _seen_budgets(fitted: FittedDraws, problem: Problem) -> np.ndarray:
    """Return the pretraining budgets of the fewest and of the most tokens per parameter in the data, (student, 2)."""
    seen = fitted.ranges.get("pretraining_tokens_per_param", (np.nan, np.nan))
    return np.multiply.outer(3 * forward_flops(problem.students, problem.shape) * problem.students, seen)


def _slopes(fitted: FittedDraws, students: np.ndarray, crossover: np.ndarray) -> dict[str, Any]:
    """Fit the exponent of the crossover in the student's size, if all students cross."""
    size = np.log(students) - np.log(students).mean()
    with np.errstate(invalid="ignore"):
        slope = np.tensordot(size, np.log(crossover), axes=(0, 0)) / np.sum(size**2)
    if students.size < 2:
        slope = np.full_like(slope, np.nan)
    has = ~np.isnan(slope)
    return {
        "slope": slope,
        "slope_quantile": quantiles_given(slope, has, QUANTILES),
        "slope_probability": probability_of(fitted, has),
        "slope_positive_probability": probability_given(fitted, slope > 0, has),
    }
