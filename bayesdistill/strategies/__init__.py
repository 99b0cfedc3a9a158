"""The optimisation kernels: the best strategy of every posterior draw, and the one strategy that is best on average.

For a student of N_S parameters, a budget C and a scenario, a strategy is a teacher (N_T parameters, D_T tokens) and the
number of tokens D_S that the rest of the budget buys for distillation (see `compute` for what is charged):

    C = 3 F(N_S) D_S + F(N_T) (delta_lgt D_S + 3 delta_pre D_T)

L_S never rises with D_S: more tokens lower the student's term of equation 8 and its own supervised loss, a lower one of these
raises r, and a higher r narrows the capacity gap (and raises what is recovered of a weak teacher, if the law has w1). With
omega > 0 what stands for the power of L_T depends on the student's ability; with tied exponents the excess is then a power
gamma_S / gamma - c0 of what the ability has above omega E, times a function that falls with r, and nothing rises as long as
gamma_S / gamma >= c0, as in every draw for the published runs (a test looks). So the whole budget is spent unless `max_student_tokens`
leaves some of it.

Where several teachers are equally good the reported one is the cheapest: when nothing is charged for it, the compute-optimal
one among those of its loss; when only its inference is charged, the smallest, which takes all the tokens that it may have.

Plain arrays in, plain arrays out; `decisions` names their dimensions. Every problem is solved by itself: its result is the
same to the bit whatever else is asked at the same time, and however many threads work.

Files: `compiled` makes machine code of the laws; `paths` says where an optimum can lie; `blocks`, `cells`, `minimum` and `best`
search it for every draw; `averages`, `newton` and `committed` for all draws together; `existing` chooses from a table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from bayesdistill.compute import (
    PUBLISHED_SHAPE,
    Scenario,
    Shape,
    flops_per_token,
    pretraining_tokens,
    student_cost_per_token,
    teacher_cost,
)
from bayesdistill.errors import ParameterError
from bayesdistill.strategies import averages, best, committed
from bayesdistill.strategies.blocks import FIELDS, LANES, PARAMETERS, ROWS, set_students
from bayesdistill.strategies.existing import Teachers
from bayesdistill.strategies.old_formulas import SUPERVISED_PARAMETERS, distilled_loss, supervised_loss
from bayesdistill.strategies.paths import BOTH_CHARGED
from bayesdistill.strategies.problems import (
    FIRST_FAILURE,
    STATUS,
    UNLIMITED,
    Bounds,
    bound_status,
    budgets_per_draw,
    cap_reached,
    failures,
    kind_of,
    list_scenarios,
    pack,
    possible,
    run_all,
    thread_count,
)

__all__ = [
    "FIRST_FAILURE",
    "STATUS",
    "Bounds",
    "best_strategies",
    "committed_strategies",
    "evaluate_strategies",
    "supervised_losses",
]

_NAMES = ("loss", "teacher_params", "teacher_tokens", "teacher_loss", "student_tokens")
_DRAWS_A_JOB = 4 * LANES


def best_strategies(
    draws: Mapping[str, Any],
    students: Any,
    budgets: Any,
    scenarios: str | Scenario | Sequence[str | Scenario],
    *,
    bounds: Bounds = Bounds(),  # noqa: B008  (frozen)
    shape: Shape = PUBLISHED_SHAPE,
    teachers: Any = None,
    threads: int | None = None,
) -> dict[str, np.ndarray]:
    """The strategy that minimises the student's loss, for every draw by itself.

    Parameters
    ----------
    draws : mapping of str to (n_draws,) array
        The 15 coefficients of the laws under the names of LAW_PARAMETERS; w1, kappa and omega if the law is extended.
    students : (n_students,) array
        Non-embedding parameters.
    budgets : (n_budgets,) or (n_budgets, n_draws) array
        FLOPs, the same for all draws or not; may be infinite.
    scenarios : sequence of Scenario or str
        Who pays for the teacher.
    bounds : Bounds
        On teachers and tokens. With `teachers` only the cap on student tokens matters.
    shape : Shape
        Of the architecture, for its cost.
    teachers : tuple of arrays, optional
        (params, loss) or (params, loss, tokens) of teachers that exist, with measured losses of shape (n,) or (n, n_draws):
        the choice is then among these alone. Their inference is charged as the scenario says; their pretraining is charged
        its share only if their tokens are given.
    threads : int, optional
        By default one for each processor.

    Returns
    -------
    dict of (n_students, n_scenarios, n_budgets, n_draws) arrays
        loss and teacher_loss in nats per token, teacher_params, teacher_tokens, student_tokens; status, an index into STATUS;
        with `teachers` also teacher_index, -1 where none is possible. NaN where the status is a failure.

    Raises
    ------
    ParameterError
        If draws lack a coefficient, shapes do not fit, or a scenario has an unknown name. What makes single problems
        impossible ends in their status.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> from bayesdistill.strategies import best_strategies
    >>> found = best_strategies({k: [v] for k, v in bd.PUBLISHED.items()}, [1e9], [1e21], "teacher inference")
    >>> print(f"{found['loss'].item():.3f} {found['teacher_params'].item():.1e}")
    2.211 1.3e+09
    """
    P, valid = pack(draws)
    n_draws = P.shape[1]
    sizes = np.atleast_1d(np.asarray(students, float))
    spent = budgets_per_draw(budgets, n_draws)
    scenes = list_scenarios(scenarios)
    out = np.full((FIELDS, sizes.size, len(scenes), spent.shape[0], n_draws), np.nan)
    index = np.full(out.shape[1:], -1) if teachers is not None else None
    listed = Teachers.of(teachers, n_draws) if teachers is not None else None
    sound = np.flatnonzero(possible(sizes, finite=True))
    something = bounds.hold_something if listed is None else bool(listed.params.size and bounds.max_student_tokens > 0)
    columns = np.flatnonzero(valid)
    count = thread_count(threads)
    if something and columns.size:
        # A job has several times LANES draws, but not so many that a thread has none.
        wide = min(_DRAWS_A_JOB, LANES * math.ceil(columns.size / LANES / count))
        usable = np.where(possible(spent, finite=False), np.minimum(spent, UNLIMITED), 0.0)
        asked = (sizes, sound, scenes, bounds, shape)
        jobs = [
            partial(_best_of_draws, P, usable, columns[i : i + wide], asked, listed, out, index)
            for i in range(0, columns.size, wide)
        ]
        run_all(jobs, count)
    result = dict(zip(_NAMES, out, strict=True))
    own = result["student_tokens"]
    own[np.isfinite(own) & np.isinf(spent) & (own < bounds.max_student_tokens)] = np.inf
    if index is None:
        status = bound_status(result["teacher_params"], result["teacher_tokens"], own, bounds)
    else:
        result["teacher_index"] = index
        status = cap_reached(own, bounds) * STATUS.index("student_tokens_at_max")
    found = ~np.isnan(result["loss"])
    result["status"] = failures(status, found, something, valid, sizes[:, None, None, None], spent)
    return result


def _best_of_draws(
    P: np.ndarray,
    spent: np.ndarray,
    columns: np.ndarray,
    asked: tuple[np.ndarray, np.ndarray, list[Scenario], Bounds, Shape],
    listed: Teachers | None,
    out: np.ndarray,
    index: np.ndarray | None,
) -> None:
    """Fill the columns of out (and index) with the best strategies of these draws."""
    sizes, sound, scenes, bounds, shape = asked
    # Loops take LANES draws at a time; the last of a short block are repeated.
    filled = np.concatenate([columns, np.repeat(columns[-1], -columns.size % LANES)])
    block = np.zeros((ROWS, filled.size))
    block[: len(PARAMETERS)] = P[:, filled]
    budgets = np.ascontiguousarray(spent[:, filled])
    room = bounds.room(shape) if listed is None else (*[0.0] * 8, float(bounds.max_student_tokens), shape.k1, shape.k2)
    scratch = None
    if listed is None:
        scratch = best.Scratch.of(budgets.shape[0], best.curve_points(room), filled.size)
    for b, s in enumerate(scenes):
        kind, lgt, pre = kind_of(s), float(s.delta_lgt), float(s.delta_pre)
        teachers = None
        if scratch is not None and kind != BOTH_CHARGED:
            teachers = best.curve_teachers(block, (kind, 1.0, lgt, pre), room, scratch.ts)
        for a in sound:
            set_students(block, float(sizes[a]))
            own_flops = float(flops_per_token(sizes[a], shape))
            step = best.BUDGETS_AT_ONCE if listed is None else 1
            for c in range(0, budgets.shape[0], step):
                part = budgets[c : c + step]
                if scratch is not None:
                    found = best.search(block, part, (kind, own_flops, lgt, pre), room, teachers, scratch)
                    out[:, a, b, c : c + step][..., columns] = found[..., : columns.size]
                elif listed is not None and index is not None:
                    losses = listed.student_losses(block, filled, part, own_flops, s, room)[0, :, : columns.size]
                    tokens = listed.student_tokens(sizes[a], spent[c, columns], s, bounds.max_student_tokens, shape)
                    index[a, b, c, columns], out[:, a, b, c, columns] = _pick(losses, tokens, listed, columns)


def _pick(
    losses: np.ndarray, tokens: np.ndarray, listed: Teachers, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Number and strategy of the teacher with the lowest loss (n_teachers, n_draws), the first of equal ones."""
    k = losses.argmin(axis=0)
    draw = np.arange(k.size)
    trained = np.full(k.size, np.nan) if listed.tokens is None else listed.tokens[k]
    strategy = np.stack([losses[k, draw], listed.params[k], trained, listed.loss[k, columns], tokens[k, draw]])
    possible_one = np.isfinite(losses[k, draw])
    return np.where(possible_one, k, -1), np.where(possible_one, strategy, np.nan)


def committed_strategies(
    draws: Mapping[str, Any],
    students: Any,
    budgets: Any,
    scenarios: str | Scenario | Sequence[str | Scenario],
    *,
    bounds: Bounds = Bounds(),  # noqa: B008  (frozen)
    shape: Shape = PUBLISHED_SHAPE,
    teachers: Any = None,
    threads: int | None = None,
) -> dict[str, np.ndarray]:
    """The one strategy for all draws that minimises the posterior mean of the student's loss.

    Size and tokens of the teacher are both free. If no teacher beats the best one on the curve of `paths`, taken for a law
    between the draws, by more than 1e-7 nats, that one is reported: with one draw, the strategy that is best for it.

    Parameters
    ----------
    draws, students, scenarios, bounds, shape, teachers, threads
        As for `best_strategies`.
    budgets : (n_budgets,) array
        FLOPs; may be infinite.

    Returns
    -------
    dict of arrays
        teacher_params, teacher_tokens, student_tokens and status, (n_students, n_scenarios, n_budgets), with `teachers` also
        teacher_index; loss and teacher_loss in nats per token under every draw, (..., n_draws).

    Raises
    ------
    ParameterError
        As for `best_strategies`.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> from bayesdistill.strategies import committed_strategies
    >>> draws = {k: [v, v] for k, v in bd.PUBLISHED.items()}
    >>> draws["E"] = [1.22, 1.24]
    >>> found = committed_strategies(draws, [1e9], [1e21], "teacher inference")
    >>> found["loss"].shape, found["teacher_params"].shape
    ((1, 1, 1, 2), (1, 1, 1))
    """
    P, valid = pack(draws)
    n_draws = P.shape[1]
    sizes = np.atleast_1d(np.asarray(students, float))
    spent = np.atleast_1d(np.asarray(budgets, float))
    if spent.ndim != 1:
        raise ParameterError("a committed strategy has one budget for all draws; give budgets with one dimension")
    scenes = list_scenarios(scenarios)
    listed = Teachers.of(teachers, n_draws) if teachers is not None else None
    something = bounds.hold_something if listed is None else bool(listed.params.size and bounds.max_student_tokens > 0)
    cells = (sizes.size, len(scenes), spent.size)
    strategy = np.full((3, *cells), np.nan)
    losses = np.full((2, *cells, n_draws), np.nan)
    index = np.full(cells, -1)
    everything = bool(n_draws and valid.all())
    if something and everything:
        sound = np.flatnonzero(possible(sizes, finite=True)).tolist()
        places = [
            (a, b, c)
            for a in sound
            for b in range(len(scenes))
            for c in np.flatnonzero(possible(spent, finite=False)).tolist()
        ]
        usable = np.minimum(spent, UNLIMITED)
        asked = (sizes, usable, scenes, bounds, shape)
        if listed is None and places:
            _commit_new(P, places, asked, strategy, losses, thread_count(threads))
        elif listed is not None:
            _commit_listed(P, places, asked, listed, strategy, losses, index)
    result = dict(zip(("teacher_params", "teacher_tokens", "student_tokens"), strategy, strict=True))
    own = result["student_tokens"]
    own[np.isfinite(own) & np.isinf(spent) & (own < bounds.max_student_tokens)] = np.inf
    if listed is None:
        status = bound_status(result["teacher_params"], result["teacher_tokens"], own, bounds)
    else:
        result["teacher_index"] = index
        status = cap_reached(own, bounds) * STATUS.index("student_tokens_at_max")
    result["status"] = failures(status, ~np.isnan(own), something, everything, sizes[:, None, None], spent)
    result["loss"], result["teacher_loss"] = losses
    return result


def _commit_new(
    P: np.ndarray,
    places: list[tuple[int, int, int]],
    asked: Any,
    strategy: np.ndarray,
    losses: np.ndarray,
    threads: int,
) -> None:
    """Fill strategy and losses at these places with teachers to be trained."""
    sizes, spent, scenes, bounds, shape = asked
    prepared = np.repeat(np.concatenate([P, np.zeros((ROWS - P.shape[0], P.shape[1]))])[None], sizes.size, axis=0)
    averages.prepare(prepared, np.where(possible(sizes, finite=True), sizes, 1.0))
    own_flops = np.array([flops_per_token(n, shape) if n > 0 else np.nan for n in sizes])
    columns = [
        (a, own_flops[a], spent[c], scenes[b].delta_lgt, scenes[b].delta_pre, kind_of(scenes[b])) for a, b, c in places
    ]
    A, B, alpha, beta = (P[PARAMETERS.index(name)] for name in ("A", "B", "alpha", "beta"))
    reference = np.array([np.mean(np.log(beta * B / (alpha * A)) / beta), np.mean(1 / beta), np.mean(alpha / beta)])

    def run(work: Any, size: int) -> None:
        edges = np.linspace(0, size, min(size, 8 * threads) + 1).astype(int)
        run_all([partial(work, slice(i, j)) for i, j in pairwise(edges)], threads)

    problems = np.ascontiguousarray(np.array(columns, float).T)
    x, y, low = committed.commit(committed.Task(prepared, problems, bounds.room(shape), reference, run))
    found = np.flatnonzero(np.isfinite(low))
    a, b, c = (np.array(v)[found] for v in zip(*places, strict=True))
    limits = bounds.limits
    params, tokens = np.clip(np.exp(x[found]), *limits[:2]), np.clip(np.exp(y[found]), *limits[2:])
    flops = flops_per_token(params, shape)
    lgt, pre = np.array([s.delta_lgt for s in scenes])[b], np.array([s.delta_pre for s in scenes])[b]
    left = spent[c] - teacher_cost(flops, tokens, pre)
    own = np.minimum(left / student_cost_per_token(own_flops[a], flops, lgt), bounds.max_student_tokens)
    strategy[:, a, b, c] = params, tokens, own
    of_teachers, of_students = np.empty((2, found.size, P.shape[1]))

    def fill(part: slice) -> None:
        averages.teacher_losses(params[part], tokens[part], prepared[0], of_teachers[part])
        averages.student_losses(a[part], own[part], prepared, of_teachers[part], of_students[part])

    run(fill, found.size)
    losses[0, a, b, c], losses[1, a, b, c] = of_students, of_teachers


def _commit_listed(
    P: np.ndarray,
    places: list[tuple[int, int, int]],
    asked: Any,
    listed: Teachers,
    strategy: np.ndarray,
    losses: np.ndarray,
    index: np.ndarray,
) -> None:
    """Fill strategy, losses and index at these places with teachers of a list."""
    sizes, spent, scenes, bounds, shape = asked
    n_draws = P.shape[1]
    filled = np.append(np.arange(n_draws), np.repeat(n_draws - 1, -n_draws % LANES))
    block = np.zeros((ROWS, filled.size))
    block[: len(PARAMETERS)] = P[:, filled]
    room = (*[0.0] * 8, float(bounds.max_student_tokens), shape.k1, shape.k2)
    for a, b, c in places:
        set_students(block, float(sizes[a]))
        own_flops, s = float(flops_per_token(sizes[a], shape)), scenes[b]
        each = listed.student_losses(block, filled, np.full((1, filled.size), spent[c]), own_flops, s, room)
        mean = each[0, :, :n_draws].mean(axis=1)
        k = int(mean.argmin())
        if not np.isfinite(mean[k]):
            continue
        own = listed.student_tokens(sizes[a], spent[c], s, bounds.max_student_tokens, shape)[k]
        index[a, b, c] = k
        strategy[:, a, b, c] = listed.params[k], np.nan if listed.tokens is None else listed.tokens[k], own
        losses[:, a, b, c] = each[0, k, :n_draws], listed.loss[k]


def evaluate_strategies(
    draws: Mapping[str, Any],
    students: Any,
    student_tokens: Any,
    teacher_params: Any = None,
    teacher_tokens: Any = None,
    *,
    teacher_loss: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Losses of the student and of the teacher under every draw, for given strategies.

    Parameters
    ----------
    draws : mapping of str to (n_draws,) array
        As for `best_strategies`.
    students, student_tokens, teacher_params, teacher_tokens : float or array
        Strategies; they broadcast against each other.
    teacher_loss : float or array, optional
        Measured losses of teachers, instead of their size and tokens.

    Returns
    -------
    loss, teacher_loss : (..., n_draws) arrays
        Nats per token.

    Raises
    ------
    ParameterError
        If neither the teacher's size and tokens nor its loss are given.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> from bayesdistill.strategies import evaluate_strategies
    >>> draws = {k: [v] for k, v in bd.PUBLISHED.items()}
    >>> evaluate_strategies(draws, 5.46e8, 1.207e10, teacher_loss=2.18485)[0].round(3)
    array([2.432])
    """
    P, _ = pack(draws)
    law = dict(zip(PARAMETERS, P, strict=True))
    if teacher_loss is None and (teacher_params is None or teacher_tokens is None):
        raise ParameterError("a teacher is missing; give teacher_params and teacher_tokens, or teacher_loss")

    def column(values: Any) -> np.ndarray:
        return np.asarray(values, float)[..., None]

    with np.errstate(all="ignore"):
        if teacher_loss is None:
            six = {name: law[name] for name in SUPERVISED_PARAMETERS}
            of_teacher = supervised_loss(column(teacher_params), column(teacher_tokens), **six)
        else:
            of_teacher = column(teacher_loss)
        loss = distilled_loss(column(students), column(student_tokens), of_teacher, **law)
    return loss, np.broadcast_to(of_teacher, loss.shape)


def supervised_losses(
    draws: Mapping[str, Any], students: Any, budgets: Any, shape: Shape = PUBLISHED_SHAPE, max_tokens: float = math.inf
) -> np.ndarray:
    """Loss of pretraining each student on all of each budget.

    Parameters
    ----------
    draws : mapping of str to (n_draws,) array
        The six coefficients of the supervised law.
    students : (n_students,) array
        Non-embedding parameters.
    budgets : (n_budgets,) or (n_budgets, n_draws) array
        FLOPs.
    shape : Shape
        Of the architecture, for its cost.
    max_tokens : float
        Cap on the tokens.

    Returns
    -------
    (n_students, n_budgets, n_draws) array
        Nats per token; NaN where the budget buys less than one token.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> from bayesdistill.strategies import supervised_losses
    >>> supervised_losses({k: [v] for k, v in bd.PUBLISHED.items()}, [1e9], [1e21]).round(3)
    array([[[2.221]]])
    """
    missing = [name for name in SUPERVISED_PARAMETERS if name not in draws]
    if missing:
        raise ParameterError(f"draws lack {', '.join(missing)}, which the supervised law needs")
    six = {name: np.asarray(draws[name], float).ravel() for name in SUPERVISED_PARAMETERS}
    n_draws = np.broadcast_arrays(*six.values())[0].size
    sizes = np.atleast_1d(np.asarray(students, float))[:, None, None]
    with np.errstate(all="ignore"):
        tokens = np.minimum(pretraining_tokens(sizes, budgets_per_draw(budgets, n_draws), shape), max_tokens)
        return np.where(tokens >= 1, supervised_loss(sizes, tokens, **six), np.nan)
