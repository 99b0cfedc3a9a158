r"""Break-even number of students per teacher, and break-even number of served tokens.

A teacher shared by K students charges each student :math:`\delta_\mathrm{pre} = 1/K`. The advantage of the strategy with perfect
information never decreases with K, so each draw has one break-even number K. It is 1 if distillation pays even for one
student, and infinite if distillation does not pay even with a free teacher. K is a real number; round it up to a whole number.

A teacher that also serves users divides its pretraining in proportion to tokens. If it serves T tokens in addition to the D_S
tokens that it labels for the student, :math:`\delta_\mathrm{pre} = D_S / (D_S + T)`, so the break-even is T = D_S (K - 1).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

import numpy as np
import xarray as xr

from bayesdistill.answers import Codes
from bayesdistill.arguments import checked
from bayesdistill.compute import Scenario
from bayesdistill.decisions import labels, planning
from bayesdistill.decisions._plan import plan_problem
from bayesdistill.decisions.arguments import Number, Numbers, parse_number, parse_numbers
from bayesdistill.decisions.crossover_search import ROOT_TOLERANCE
from bayesdistill.decisions.extrapolation import CHOICE_AXES, axis_names, choice_factors, farthest_axis
from bayesdistill.decisions.fitted_draws import FittedDraws
from bayesdistill.decisions.labels import QUANTILES
from bayesdistill.decisions.reductions import lagrange, probability_of, quantiles_of
from bayesdistill.decisions.solving import PERFECT_INFORMATION, solve_piece
from bayesdistill.errors import ParameterError
from bayesdistill.strategies import Problem, supervised_losses
from bayesdistill.strategies.roots import find_roots

BREAK_EVEN_STATUS = ("shared", "alone", "never", "beyond", "impossible")
SHARED, ALONE, NEVER, BEYOND, IMPOSSIBLE = range(len(BREAK_EVEN_STATUS))
_STEPS_A_DECADE = 4
_STRATEGY = ("student_tokens", "teacher_params", "teacher_tokens", "teacher_loss")
_NODES = np.linspace(0, 1, 5)


@checked
@planning.with_options
def sharing_map(
    fit: planning.Source,
    students: Numbers,
    budgets: Numbers,
    students_per_teacher: Numbers,
    *,
    delta_lgt: float = 1.0,
    **options: Unpack[planning.LimitedSearch],
) -> xr.Dataset:
    """Return the probability that distillation beats pretraining by budget and sharing.

    Parameters
    ----------
    students_per_teacher : float, or a list of them
        Numbers K >= 1 of students that share the teacher's pretraining, delta_pre = 1/K. They may be fractional.
    delta_lgt : float
        Fraction of the teacher's inference charged to each student.

    Returns
    -------
    Dataset
        The variables of `plan` over student, students_per_teacher (in place of scenario), budget, and chain, draw.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> bd.sharing_map(published, "1B", 1e21, [1, 10])["probability"].dims
    ('student', 'students_per_teacher', 'budget')
    """
    planner = planning.planner_of(sharing_map, fit, options)
    numbers = np.sort(parse_numbers(students_per_teacher, "students_per_teacher"))
    if numbers.min() < 1:
        raise ParameterError(f"`students_per_teacher` must be at least 1, got {numbers.min():g}.")
    problem, _ = planning.problem_of(planner, students, budgets, _shared(delta_lgt, numbers))
    result = plan_problem(planner, problem, planning.workers_of(planner))
    result = result.drop_vars(["scenario", "delta_lgt"]).rename(scenario="students_per_teacher")
    result = result.assign_coords(labels.variables("sharing_map", {"students_per_teacher": numbers}))
    result.attrs["delta_lgt"] = float(delta_lgt)
    return result


class BreakEvenOptions(planning.Search, planning.LimitedData, total=False):
    """Options of `break_even`."""


@checked
@planning.with_options
def break_even(
    fit: planning.Source,
    students: Numbers,
    budgets: Numbers,
    *,
    delta_lgt: float = 1.0,
    max_students_per_teacher: Number = 1e6,
    **options: Unpack[BreakEvenOptions],
) -> xr.Dataset:
    """Return how many students must share a teacher for distillation to pay.

    Parameters
    ----------
    delta_lgt : float
        Fraction of the teacher's inference charged to each student.
    max_students_per_teacher : float
        Upper end of the search range.

    Returns
    -------
    Dataset
        Over student, budget, chain, draw: students_per_teacher (the K at which the strategy with perfect information and
        pretraining have the same loss; 1 if distillation pays for one student, infinite if it never pays), break_even_status
        (`shared`: pays from K students on; `alone`: pays for one student; `never`: does not pay even with a free teacher;
        `beyond`: pays only with more than max_students_per_teacher; `impossible`: no strategy fits the budget), served_tokens
        (additional tokens T that the teacher must serve). Over student, budget: status_probability over `outcome` with its
        _mcse, and students_per_teacher_quantile, served_tokens_quantile over `quantile`. Over student, budget, shared_by:
        pays_probability (that distillation pays with that many students) with its _mcse, and pays_extrapolates.
        Extrapolation at the break-even (with a free teacher if distillation never pays): extrapolation_factor over student,
        budget, chain, draw, the largest for the student, its teacher and pretraining (1 inside the range of the data); over
        student, budget, extrapolates and extrapolation_axis (the axis with the largest factor, in the geometric mean over
        draws). A flag is set if the median over draws is outside the range of the data or unknown.

    Notes
    -----
    K is bracketed on a grid with four steps per decade and refined by a polynomial through five points in log K.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> found = bd.break_even(published, "1B", 1e20)
    >>> bd.flag_names(found["break_even_status"]).item() in ("shared", "alone", "never")
    True
    """
    planner = planning.planner_of(break_even, fit, options)
    fitted = planner.fitted
    problem, _ = planning.problem_of(planner, students, budgets, Scenario(delta_lgt, 1.0))
    highest = parse_number(max_students_per_teacher, "max_students_per_teacher")
    if highest <= 1:
        raise ParameterError(f"`max_students_per_teacher` must be greater than 1, got {highest:g}.")
    grid = np.geomspace(1, highest, int(np.ceil(_STEPS_A_DECADE * np.log10(highest))) + 1)
    workers = planning.workers_of(planner)
    tasks = [
        (fitted, replace(problem, students=np.array([size]), budgets=np.array([spent])), grid, workers.search_threads)
        for size in problem.students
        for spent in problem.budgets
    ]
    cells = dict(workers.run(break_even_of_cell, tasks, "break-even"))
    shape = (problem.students.size, problem.budgets.size)
    found = {
        name: np.stack([cells[k][name] for k in range(len(tasks))]).reshape(*shape, *np.shape(first))
        for name, first in cells[0].items()
    }
    number, served, status = (found[name] for name in ("students_per_teacher", "served_tokens", "break_even_status"))
    pays = found.pop("pays")
    values = found | {
        "break_even_status": Codes(status, BREAK_EVEN_STATUS),
        "extrapolation_axis": Codes(found["extrapolation_axis"], axis_names(CHOICE_AXES)),
        "status_probability": probability_of(fitted, status[:, :, None] == np.arange(len(BREAK_EVEN_STATUS))[:, None]),
        "students_per_teacher_quantile": quantiles_of(number, QUANTILES),
        "served_tokens_quantile": quantiles_of(served, QUANTILES),
        "pays_probability": probability_of(
            fitted, pays, np.broadcast_to((status != IMPOSSIBLE)[:, :, None], pays.shape)
        ),
    }
    coordinates = {
        "student": problem.students,
        "budget": problem.budgets,
        "shared_by": grid,
        "outcome": list(BREAK_EVEN_STATUS),
        "quantile": np.array(QUANTILES),
    }
    attrs = labels.setting_attributes(problem.bounds, problem.shape) | fitted.attrs
    attrs |= {"delta_lgt": float(delta_lgt), "max_students_per_teacher": highest}
    return labels.answer("break_even", fitted, values, coordinates, attrs)


def _shared(delta_lgt: float, numbers: np.ndarray) -> tuple[Scenario, ...]:
    """Return the scenarios of teachers that are shared by these numbers of students."""
    return tuple(Scenario(delta_lgt, 1 / k, f"K = {k!r}") for k in numbers.tolist())


def break_even_of_cell(
    fitted: FittedDraws, problem: Problem, grid: np.ndarray, threads: int | None
) -> dict[str, np.ndarray]:
    """Return the break-even of one student and budget, and whether distillation pays, (grid, n_draws)."""
    draws = fitted.draws
    alone = supervised_losses(draws, problem)[0, 0]

    def solve(which: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Advantage and strategy, (numbers, draws)."""
        shared = replace(problem, scenarios=_shared(problem.scenarios[0].delta_lgt, numbers))
        found = solve_piece(PERFECT_INFORMATION, draws.take(which), shared, threads)
        return alone[which] - found["loss"][0, :, 0], {name: found[name][0, :, 0] for name in _STRATEGY}

    # The last number is the free teacher.
    advantage, strategy = solve(np.arange(alone.size), np.append(grid, np.inf))
    tokens = strategy["student_tokens"]
    possible = ~np.isnan(advantage[-1])
    pays, free = advantage[:-1] > 0, advantage[-1] > 0
    first = np.argmax(pays, axis=0)
    ever = pays.any(axis=0)
    status = np.select(
        [~possible, ~free & ~ever, ~ever, first == 0], [IMPOSSIBLE, NEVER, BEYOND, ALONE], default=SHARED
    ).astype(np.int8)
    number = np.select([status == ALONE, status == IMPOSSIBLE], [1.0, np.nan], default=np.inf)
    served = np.select([status == ALONE, status == IMPOSSIBLE], [0.0, np.nan], default=np.inf)
    for k in np.unique(first[status == SHARED]):
        which = np.flatnonzero((status == SHARED) & (first == k))
        ends = np.log(grid[k - 1]), np.log(grid[k])
        between, strategy_between = solve(which, np.exp(ends[0] + _NODES[1:-1] * (ends[1] - ends[0])))
        values = np.vstack([advantage[k - 1, which], between, advantage[k, which]])
        own = np.vstack([tokens[k - 1, which], strategy_between["student_tokens"], tokens[k, which]])
        share, at = _read_off(values, own)
        number[which] = np.exp(ends[0] + share * (ends[1] - ends[0]))
        served[which] = at * (number[which] - 1)
    size = problem.students[0]
    factors = choice_factors(fitted, problem, size, problem.budgets[0], strategy)
    at_break_even = factors[:, np.where(ever, first, len(grid)), np.arange(alone.size)]
    factor, each = np.where(possible, at_break_even.max(axis=0), np.nan), factors.max(axis=0)
    outside = _outside(factor, possible)
    typical = np.exp(np.log(at_break_even).mean(axis=-1, where=possible)) if possible.any() else factors[:, 0, 0]
    return {
        "students_per_teacher": number,
        "served_tokens": served,
        "break_even_status": status,
        "pays": pays,
        "extrapolation_factor": factor,
        "extrapolates": outside,
        "extrapolation_axis": farthest_axis(typical, CHOICE_AXES, outside).values,
        "pays_extrapolates": _outside(each[:-1], possible),
    }


def _outside(factor: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """Return whether the median over feasible draws is outside the range or unknown."""
    if not possible.any():
        return np.zeros(factor.shape[:-1], dtype=bool)
    return np.asarray(~(np.median(factor[..., possible], axis=-1) == 1))


def _read_off(values: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Locate the sign change of values at _NODES, and the tokens there."""
    first = np.argmax(values > 0, axis=0)
    # If a neighboring value is not finite, there is nothing to interpolate.
    share, own = _NODES[first], tokens[first, np.arange(first.size)]
    part = np.flatnonzero(np.isfinite(values).all(axis=0))
    lower, upper = _NODES[np.maximum(first[part] - 1, 0)], share[part]
    share[part] = find_roots(lambda x, k: lagrange(_NODES, values[:, k], x), lower, upper, part, ROOT_TOLERANCE)
    own[part] = np.exp(lagrange(_NODES, np.log(tokens[:, part]), share[part]))
    return share, own
