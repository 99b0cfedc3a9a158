r"""Break-even number of students per teacher, and break-even number of served tokens.

A teacher shared by K students charges each student :math:`\delta_\mathrm{pre} = 1/K`. The advantage of the strategy with perfect
information never decreases with K, so each draw has one break-even number K. It is 1 if distillation pays even for one
student, and infinite if distillation does not pay even with a free teacher. K is a real number; round it up to a whole number.

A teacher that also serves users divides its pretraining in proportion to tokens. If it serves T tokens in addition to the D_S
tokens that it labels for the student, :math:`\delta_\mathrm{pre} = D_S / (D_S + T)`, so the break-even is T = D_S (K - 1).
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import replace

import numpy as np
import xarray as xr

from bayesdistill import strategies
from bayesdistill.answers import Answer
from bayesdistill.compute import PUBLISHED_SHAPE, Scenario, Shape, pretraining_tokens
from bayesdistill.decisions import labels
from bayesdistill.decisions._plan import plan_problem
from bayesdistill.decisions.arguments import (
    Number,
    Numbers,
    check_choice,
    make_bounds,
    parse_budgets,
    parse_number,
    parse_numbers,
    parse_students,
)
from bayesdistill.decisions.crossover_search import ROOT_TOLERANCE
from bayesdistill.decisions.fitted_draws import (
    FittedDraws,
    Source,
    distilled_extrapolation,
    gather,
    pretraining_extrapolation,
)
from bayesdistill.decisions.labels import ONE, TOKENS, variable
from bayesdistill.decisions.reductions import probability_of, quantiles_of
from bayesdistill.decisions.solving import PERFECT_INFORMATION, Problem, Workers, solve_piece
from bayesdistill.errors import ParameterError
from bayesdistill.law import Draws
from bayesdistill.law.predictive import RunNoise
from bayesdistill.progress import Progress
from bayesdistill.strategies import Bounds
from bayesdistill.strategies.roots import find_roots

BREAK_EVEN_STATUS = ("shared", "alone", "never", "beyond", "impossible")
SHARED, ALONE, NEVER, BEYOND, IMPOSSIBLE = range(len(BREAK_EVEN_STATUS))
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_STEPS_A_DECADE = 4
_INNER = np.array([0.25, 0.5, 0.75])


def sharing_map(
    fit: Source,
    students: Numbers,
    budgets: Numbers,
    students_per_teacher: Numbers,
    *,
    delta_lgt: float = 1.0,
    max_teacher_params: float = 1e12,
    max_teacher_tokens: float = 2e13,
    max_student_tokens: float | None = None,
    min_teacher_params: float = 1e6,
    shape: Shape = PUBLISHED_SHAPE,
    noise: str = "law",
    seed: int = 0,
    allow_unconverged: bool = False,
    executor: Executor | None = None,
    threads: int | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    """Return the probability that distillation beats pretraining by budget and sharing.

    Parameters
    ----------
    fit, students, budgets, max_teacher_params, max_teacher_tokens, max_student_tokens, min_teacher_params, shape, noise, seed
        As for `plan`.
    students_per_teacher : float, or a list of them
        Numbers K >= 1 of students that share the teacher's pretraining, delta_pre = 1/K. They may be fractional.
    delta_lgt : float
        Fraction of the teacher's inference charged to each student.
    allow_unconverged, executor, threads, progress
        As for `plan`.

    Returns
    -------
    Dataset
        The variables of `plan` over student, students_per_teacher (in place of scenario), budget, and chain, draw.

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
    >>> bd.sharing_map(published, "1B", 1e21, [1, 10])["probability"].dims
    ('student', 'students_per_teacher', 'budget')
    """
    fitted = gather(fit, allow_unconverged)
    check_choice(noise, "noise", ("law", "run"))
    numbers = np.sort(parse_numbers_from_one(students_per_teacher))
    problem = Problem(
        parse_students(students),
        parse_budgets(budgets),
        tuple(Scenario(delta_lgt, 1 / k, f"K = {k!r}") for k in numbers.tolist()),
        make_bounds(min_teacher_params, max_teacher_params, max_teacher_tokens, max_student_tokens),
        shape,
    )
    deviation = RunNoise.draw(fitted.draws, seed) if noise == "run" else None
    result = plan_problem(fitted, problem, Workers(executor, threads, progress), deviation)
    result = result.drop_vars(["scenario", "delta_lgt"]).rename(scenario="students_per_teacher")
    result = result.assign_coords(students_per_teacher=_shared_axis(numbers))
    result.attrs |= {"noise": noise, "delta_lgt": float(delta_lgt)}
    if noise == "run":
        result.attrs["noise_seed"] = int(seed)
    return result


def break_even(
    fit: Source,
    students: Numbers,
    budgets: Numbers,
    *,
    delta_lgt: float = 1.0,
    max_students_per_teacher: Number = 1e6,
    max_teacher_params: float = 1e12,
    max_teacher_tokens: float = 2e13,
    max_student_tokens: float | None = None,
    min_teacher_params: float = 1e6,
    shape: Shape = PUBLISHED_SHAPE,
    allow_unconverged: bool = False,
    executor: Executor | None = None,
    threads: int | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    """Return how many students must share a teacher for distillation to pay.

    Parameters
    ----------
    fit, students, budgets, max_teacher_params, max_teacher_tokens, max_student_tokens, min_teacher_params, shape
        As for `plan`; a budget applies to one student.
    delta_lgt : float
        Fraction of the teacher's inference charged to each student.
    max_students_per_teacher : float
        Upper end of the search range.
    allow_unconverged, executor, threads, progress
        As for `plan`.

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
        budget, chain, draw, for the student and for pretraining (1 inside the range of the data), and extrapolates over
        student, budget. A flag is set if the median over draws is outside the range of the data or unknown.

    Raises
    ------
    ParameterError
        If an argument is invalid.
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False.

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
    fitted = gather(fit, allow_unconverged)
    sizes, spent = parse_students(students), parse_budgets(budgets)
    bounds = make_bounds(min_teacher_params, max_teacher_params, max_teacher_tokens, max_student_tokens)
    highest = parse_number(max_students_per_teacher, "max_students_per_teacher")
    if highest <= 1:
        raise ParameterError(f"`max_students_per_teacher` must be greater than 1, got {highest:g}.")
    Scenario(delta_lgt, 1.0)  # Validates delta_lgt.
    steps = int(np.ceil(_STEPS_A_DECADE * np.log10(highest)))
    grid = np.geomspace(1, highest, steps + 1)
    workers = Workers(executor, threads, progress)
    cells = [(i, j) for i in range(sizes.size) for j in range(spent.size)]
    tasks = [
        (fitted.draws, sizes[i], spent[j], float(delta_lgt), grid, bounds, shape, workers.kernel_threads)
        for i, j in cells
    ]
    number = np.empty((sizes.size, spent.size, fitted.n_draws))
    served, factor = np.empty_like(number), np.empty_like(number)
    status = np.empty(number.shape, dtype=np.int8)
    pays = np.empty((sizes.size, spent.size, grid.size, fitted.n_draws), dtype=bool)
    far = np.empty((sizes.size, spent.size, grid.size), dtype=bool)
    for position, found in workers.run(break_even_of_cell, tasks, "break-even"):
        cell = i, j = cells[position]
        number[cell], served[cell], status[cell], pays[cell], tokens, teacher_loss = found
        bought = np.minimum(pretraining_tokens(sizes[i], spent[j], shape), bounds.max_student_tokens)
        each = np.maximum(
            distilled_extrapolation(fitted, sizes[i], tokens, teacher_loss),
            pretraining_extrapolation(fitted, sizes[i], bought),
        )
        factor[cell] = each[_place(status[cell], pays[cell]), np.arange(fitted.n_draws)]
        far[cell] = _outside(each[:-1], status[cell] != IMPOSSIBLE)
    variables = _break_even_variables(fitted, number, served, status, pays)
    variables |= _extrapolation_variables(fitted, factor, far, status)
    coordinates = {
        "student": labels.student_coordinate(sizes),
        "budget": labels.budget_coordinate(spent),
        "shared_by": _shared_axis(grid, "shared_by"),
        "outcome": variable(["outcome"], list(BREAK_EVEN_STATUS), ONE, "whether distilling pays"),
        "quantile": variable(["quantile"], np.array(QUANTILES), ONE, "cumulative probability"),
        **labels.draw_coordinates(fitted.chain, fitted.draw),
    }
    attrs = {**labels.setting_attributes(bounds, shape), **fitted.attrs}
    attrs |= {"delta_lgt": float(delta_lgt), "max_students_per_teacher": highest}
    return Answer(variables, coordinates, attrs)


def parse_numbers_from_one(values: Numbers) -> np.ndarray:
    """Parse numbers of students, at least 1 each."""
    numbers = parse_numbers(values, "students_per_teacher")
    if numbers.min() < 1:
        raise ParameterError(f"`students_per_teacher` must be at least 1, got {numbers.min():g}.")
    return numbers


def _shared_axis(numbers: np.ndarray, name: str = "students_per_teacher") -> xr.Variable:
    return variable([name], numbers, ONE, "students that share the teacher's pretraining")


def break_even_of_cell(
    draws: Draws,
    student: float,
    budget: float,
    delta_lgt: float,
    grid: np.ndarray,
    bounds: Bounds,
    shape: Shape,
    threads: int | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the break-even of one student and budget.

    The first four results are the break-even number, the served tokens, the status, each (n_draws,), and whether distillation
    pays, (grid, n_draws). The last two are the student's tokens and the teacher's loss
    of the strategy with perfect information, (grid and the free teacher, n_draws).
    """
    cell = Problem(np.array([student]), np.array([budget]), (), bounds, shape)
    alone = strategies.supervised_losses(draws, cell)[0, 0]

    def solve(which: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Advantage, student tokens and teacher loss, (numbers, draws)."""
        shared = replace(cell, scenarios=tuple(Scenario(delta_lgt, 1 / k, f"K = {k!r}") for k in numbers.tolist()))
        found = solve_piece(PERFECT_INFORMATION, draws.take(which), shared, threads)
        return alone[which] - found["loss"][0, :, 0], found["student_tokens"][0, :, 0], found["teacher_loss"][0, :, 0]

    everyone = np.arange(alone.size)
    advantage, tokens, teacher_loss = solve(everyone, np.append(grid, np.inf))
    possible = ~np.isnan(advantage[-1])
    pays = advantage > 0
    free, listed = pays[-1], pays[:-1]
    first = np.argmax(listed, axis=0)
    ever = listed.any(axis=0)
    status = np.select(
        [~possible, ~free & ~ever, ~ever, first == 0], [IMPOSSIBLE, NEVER, BEYOND, ALONE], default=SHARED
    ).astype(np.int8)
    number = np.select([status == ALONE, status == IMPOSSIBLE], [1.0, np.nan], default=np.inf)
    served = np.select([status == ALONE, status == IMPOSSIBLE], [0.0, np.nan], default=np.inf)
    for k in np.unique(first[status == SHARED]):
        which = np.flatnonzero((status == SHARED) & (first == k))
        ends = np.log(grid[k - 1]), np.log(grid[k])
        inner = np.exp(ends[0] + _INNER * (ends[1] - ends[0]))
        between, tokens_between, _ = solve(which, inner)
        values = np.vstack([advantage[k - 1, which], between, advantage[k, which]])
        own = np.vstack([tokens[k - 1, which], tokens_between, tokens[k, which]])
        share, at = _read_off(values, own)
        number[which] = np.exp(ends[0] + share * (ends[1] - ends[0]))
        served[which] = at * (number[which] - 1)
    return number, served, status, listed, tokens, teacher_loss


def _place(status: np.ndarray, pays: np.ndarray) -> np.ndarray:
    """Return the grid position of each draw's break-even (last: the free teacher)."""
    return np.where(pays.any(axis=0), np.argmax(pays, axis=0), len(pays))


def _outside(factor: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """Return whether the median over feasible draws is outside the range or unknown."""
    if not possible.any():
        return np.zeros(factor.shape[:-1], dtype=bool)
    return np.asarray(~(np.median(factor[..., possible], axis=-1) == 1))


def _read_off(values: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Locate the sign change of five equally spaced values, and the tokens there."""
    nodes = np.array([0, 0.25, 0.5, 0.75, 1.0])
    # Barycentric weights of five equally spaced nodes.
    weights = np.array([1.0, -4.0, 6.0, -4.0, 1.0])

    def polynomial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        gap = x[None, :] - nodes[:, None]
        exact = gap == 0
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = weights[:, None] / gap
            smooth = (terms * y).sum(axis=0) / terms.sum(axis=0)
        return np.where(exact.any(axis=0), np.where(exact, y, 0).sum(axis=0), smooth)

    first = np.argmax(values > 0, axis=0)
    columns = np.arange(values.shape[1])
    lower, upper = nodes[np.maximum(first - 1, 0)], nodes[first]
    smooth = np.isfinite(values).all(axis=0)
    share = upper.copy()  # If a neighboring value is not finite, there is nothing to interpolate.
    if smooth.any():
        part = np.flatnonzero(smooth)
        share[part] = find_roots(
            lambda x, k: polynomial(x, values[:, k]), lower[part], upper[part], part, ROOT_TOLERANCE
        )
    own = tokens[first, columns]
    if smooth.any():
        own[part] = np.exp(polynomial(share[part], np.log(tokens[:, part])))
    return share, own


def _extrapolation_variables(
    fitted: FittedDraws, factor: np.ndarray, far: np.ndarray, status: np.ndarray
) -> dict[str, xr.Variable]:
    cell = ("student", "budget")
    outside = np.array(
        [
            [_outside(f, s != IMPOSSIBLE) for f, s in zip(*pair, strict=True)]
            for pair in zip(factor, status, strict=True)
        ]
    )
    return {
        "extrapolation_factor": variable(
            (*cell, "chain", "draw"),
            fitted.unflatten(np.where(status == IMPOSSIBLE, np.nan, factor)),
            ONE,
            "factor by which the break-even is outside the range of the data, 1 inside",
        ),
        "extrapolates": variable(cell, outside, ONE, "whether the break-even is outside the range of the data"),
        "pays_extrapolates": variable(
            (*cell, "shared_by"),
            far,
            ONE,
            "whether distillation or pretraining with this many students is outside the range of the data",
        ),
    }


def _break_even_variables(
    fitted: FittedDraws, number: np.ndarray, served: np.ndarray, status: np.ndarray, pays: np.ndarray
) -> dict[str, xr.Variable]:
    cell = ("student", "budget")
    drawn = (*cell, "chain", "draw")
    each = np.stack([status == code for code in range(len(BREAK_EVEN_STATUS))], axis=2)
    share, share_error = probability_of(fitted, each)
    possible = np.broadcast_to((status != IMPOSSIBLE)[:, :, None, :], pays.shape)
    pay, pay_error = probability_of(fitted, pays, possible)
    return {
        "students_per_teacher": variable(
            drawn, fitted.unflatten(number), ONE, "students that must share a teacher for distillation to pay"
        ),
        "served_tokens": variable(
            drawn,
            fitted.unflatten(served),
            TOKENS,
            "additional tokens that the teacher must serve for distillation to pay",
        ),
        "break_even_status": labels.flags(
            drawn, fitted.unflatten(status), BREAK_EVEN_STATUS, "whether distillation pays"
        ),
        "status_probability": variable((*cell, "outcome"), share, ONE, "probability of each outcome"),
        "status_probability_mcse": variable(
            (*cell, "outcome"), share_error, ONE, "Monte Carlo standard error of status_probability"
        ),
        "students_per_teacher_quantile": variable(
            (*cell, "quantile"),
            quantiles_of(number, QUANTILES),
            ONE,
            "quantiles of the break-even number; 1 if distillation pays for one student, infinite if it never pays",
        ),
        "served_tokens_quantile": variable(
            (*cell, "quantile"), quantiles_of(served, QUANTILES), TOKENS, "quantiles of the served tokens"
        ),
        "pays_probability": variable(
            (*cell, "shared_by"),
            pay,
            ONE,
            "probability that distillation pays with this many students (strategy with perfect information)",
        ),
        "pays_probability_mcse": variable(
            (*cell, "shared_by"), pay_error, ONE, "Monte Carlo standard error of pays_probability"
        ),
    }
