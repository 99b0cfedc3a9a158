"""Search for the sizes of `lifetime`: the chosen size and the best size of each draw, and the strategies of the chosen sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesdistill.compute import forward_flops
from bayesdistill.decisions import planning
from bayesdistill.decisions._target_loss import deviations_of_size, reach_alone, reach_targets
from bayesdistill.decisions.labels import QUANTILES
from bayesdistill.decisions.prices import Prices
from bayesdistill.decisions.reductions import quantiles_given
from bayesdistill.decisions.size_search import best_sizes, size_grid
from bayesdistill.decisions.solving import CHOSEN, PERFECT_INFORMATION, solve_piece
from bayesdistill.law import Draws
from bayesdistill.law.predictive import Deviations
from bayesdistill.strategies import STATUS, Problem, supervised_losses, tokens_bought

LARGEST_RANGE = (1e6, 1e12)
"""Range of sizes if the range of the data is unknown or does not matter."""
_TOLERANCE = {False: 5e-4, True: 2e-3}
"""Tolerance of the search of sizes: nats, and relative cost."""
_STRATEGY = ("student_tokens", "teacher_params", "teacher_tokens", "teacher_loss")
_NO_PRICES = Prices(None, None, None, None, "")

_RESULTS: dict[str, dict[str, tuple[bool, Any]]] = {
    "distilled": {
        "distilled_loss": (True, np.nan),
        "distilled_cost": (True, np.inf),
        "planned_distilled_cost": (False, np.inf),
        "student_tokens": (False, np.nan),
        "teacher_params": (False, np.nan),
        "teacher_tokens": (False, np.nan),
        "teacher_loss": (True, np.nan),
        "teacher_index": (False, -1),
        "status": (False, STATUS.index("budget_too_small")),
    },
    "pretraining": {
        "supervised_loss": (True, np.nan),
        "pretraining_cost": (True, np.inf),
        "planned_pretraining_cost": (False, np.inf),
        "pretraining_tokens": (False, np.nan),
    },
}
"""Results of a cell: whether they have draws, and their value if no size is possible."""


@dataclass(frozen=True, eq=False)
class Question:
    """Goals (total budgets or target losses) and tokens served; a cell is one goal with one number of tokens.

    Parameters
    ----------
    goals : (goal,) array
    served : (served,) array
    reach : bool
        Whether the goals are target losses.
    price : float
        Price of a FLOP of inference relative to a FLOP of training.
    most : float
        FLOPs of training above which a target counts as impossible.
    """

    goals: np.ndarray
    served: np.ndarray
    reach: bool
    price: float
    most: float

    @property
    def dim(self) -> str:
        """Name of the goals."""
        return "target" if self.reach else "budget"

    @property
    def unit(self) -> str:
        """What costs are counted in."""
        return "FLOPs" if self.price == 1 else "FLOPs of training"

    def serving(self, problem: Problem) -> np.ndarray:
        """Return the cost of serving the only student of a problem, (served,)."""
        return self.price * float(forward_flops(problem.students[0], problem.shape)) * self.served

    def training(self, problem: Problem) -> np.ndarray:
        """Return what the budgets leave for training the only student of a problem, (goal * served,); NaN if nothing."""
        left = (self.goals[:, None] - self.serving(problem)).ravel()
        return np.where(left > 0, left, np.nan)

    def total(self, problem: Problem, training: np.ndarray) -> np.ndarray:
        """Return the total costs (goal * served, ...) of costs of training (goal, ...)."""
        serving = self.serving(problem).reshape(1, -1, *[1] * (training.ndim - 1))
        return (training[:, None] + serving).reshape(-1, *training.shape[1:])


def find_sizes(
    planner: planning.Planner, problem: Problem, question: Question, listed: np.ndarray | None
) -> dict[str, Any]:
    """Return the chosen sizes, their status and the best sizes of the draws, over (scenario, goal, served, ...)."""
    thinned, index = planner.fitted.thinned(planner.draws)
    problem = problem.for_draws(index)
    workers, found = planning.workers_of(planner), {}
    parts = [replace(problem, scenarios=(one,)) for one in problem.scenarios]
    for option, axis, search, several in (
        ("distilled", "student_params", _distilled_values, parts),
        ("pretraining", "pretraining_params", _pretraining_values, parts[:1]),
    ):
        sizes = size_grid(*_size_range(planner, axis)) if listed is None else listed

        def evaluate(at: np.ndarray, search: Any = search, several: Any = several, option: str = option) -> np.ndarray:
            tasks = [
                (thinned.draws, replace(part, students=np.array([size])), question, workers.search_threads)
                for size in at
                for part in several
            ]
            results = dict(workers.run(search, tasks, f"sizes, {option}"))
            whole = np.stack([results[k] for k in range(len(tasks))])
            return whole.reshape(at.size, len(several), question.goals.size, question.served.size, -1)

        best, status = best_sizes(evaluate, sizes, _TOLERANCE[question.reach], refine=listed is None)
        cut = (lambda values: values) if option == "distilled" else (lambda values: values[0])
        found[f"{option}_params"], found[f"{option}_size_status"] = cut(best[..., 0]), cut(status[..., 0])
        found[f"{option}_best_params"] = cut(best[..., 1:])
        found[f"{option}_best_params_quantile"] = quantiles_given(
            cut(best[..., 1:]), cut(np.isfinite(best[..., 1:])), QUANTILES
        )
    return found


def _size_range(planner: planning.Planner, axis: str) -> tuple[float, float]:
    """Return the smallest and the largest size within the largest extrapolation factor."""
    seen, factor = planner.fitted.ranges.get(axis), planner.largest_factor
    if seen is None or factor == np.inf:
        return LARGEST_RANGE
    return max(seen[0] / factor, LARGEST_RANGE[0]), min(seen[1] * factor, LARGEST_RANGE[1])


def _distilled_values(draws: Draws, problem: Problem, question: Question, threads: int | None) -> np.ndarray:
    """Return what sizes minimize, for one student and scenario: (goal * served, 1 + n_draws), on average and in each draw."""
    if question.reach:
        name, asked = "budget", replace(problem, budgets=np.empty(0), targets=question.goals)
    else:
        name, asked = "loss", replace(problem, budgets=question.training(problem))
    chosen, best = (solve_piece(kind, draws, asked, threads)[name][0, 0] for kind in (CHOSEN, PERFECT_INFORMATION))
    return _compared(problem, question, chosen if question.reach else chosen.mean(axis=-1), best)


def _pretraining_values(draws: Draws, problem: Problem, question: Question, threads: int | None) -> np.ndarray:
    """Return the same for pretraining."""
    if question.reach:
        found = reach_alone(draws, problem, question.goals, question.most, None)
        return _compared(problem, question, found["planned_pretraining_compute"], found["pretraining_cost"])
    losses = supervised_losses(draws, replace(problem, budgets=question.training(problem)))[0]
    return _compared(problem, question, losses.mean(axis=-1), losses)


def _compared(problem: Problem, question: Question, mean: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return losses, or the logarithms of total costs, on average and in each draw, infinite where there are none."""
    values = np.concatenate([mean[:, None], draws], axis=-1)
    if question.reach:
        values = np.log(question.total(problem, np.where(values <= question.most, values, np.inf)))
    return np.where(np.isnan(values), np.inf, values)


def solve_chosen(
    planner: planning.Planner, problem: Problem, question: Question, sizes: dict[str, Any]
) -> dict[str, Any]:
    """Return strategies of the chosen sizes, and losses on the law's mean curves or costs of training at the level of uncertainty."""
    draws, workers = planner.fitted.draws, planning.workers_of(planner)
    found: dict[str, np.ndarray] = {}
    for option, solve in (("distilled", _solve_distilled), ("pretraining", _solve_pretraining)):
        chosen = sizes[f"{option}_params"]
        cells = [cell for cell in np.ndindex(chosen.shape) if np.isfinite(chosen[cell])]
        tasks = []
        for cell in cells:
            one = problem.scenarios[cell[0] if option == "distilled" else 0]
            part = replace(problem, students=np.array([chosen[cell]]), scenarios=(one,))
            part = replace(part, budgets=question.goals[[cell[-2]]], served_tokens=float(question.served[cell[-1]]))
            deviations = deviations_of_size(planner, float(chosen[cell])) if question.reach else None
            tasks.append((draws, part, question, deviations, workers.search_threads))
        for name, (several, empty) in _RESULTS[option].items():
            found[name] = np.full((*chosen.shape, draws.n_draws) if several else chosen.shape, empty)
        for position, solved in workers.run(solve, tasks, f"chosen size, {option}"):
            for name, value in solved.items():
                found[name][cells[position]] = value
    found["teacher_losses"] = found["teacher_loss"]
    return found | {"teacher_loss": found["teacher_loss"].mean(axis=-1)}


def _solve_distilled(
    draws: Draws, problem: Problem, question: Question, deviations: Deviations | None, threads: int | None
) -> dict[str, Any]:
    """Solve the strategy of one student, scenario, goal and number of tokens served."""
    if not question.reach:
        solved = solve_piece(CHOSEN, draws, problem, threads)
        solved = {name: values[0, 0, 0] for name, values in solved.items()}
        return {"distilled_loss": solved.pop("loss"), **solved}
    serving, targets = float(problem.serving_cost(0)), problem.budgets
    problem = replace(problem, served_tokens=0.0)
    solved = reach_targets(draws, problem, targets, question.most, deviations, _NO_PRICES, threads)
    return {
        "distilled_cost": solved["cost"][0] + serving,
        "planned_distilled_cost": solved["planned_compute"][0] + serving,
        **{name: solved[name][0] for name in (*_STRATEGY, "teacher_index")},
    }


def _solve_pretraining(
    draws: Draws, problem: Problem, question: Question, deviations: Deviations | None, threads: int | None
) -> dict[str, Any]:
    """Solve pretraining of one student for one goal and number of tokens served."""
    if not question.reach:
        tokens = tokens_bought(problem, 0, problem.budgets)[0]
        return {"supervised_loss": supervised_losses(draws, problem)[0, 0], "pretraining_tokens": tokens}
    serving, targets = float(problem.serving_cost(0)), problem.budgets
    problem = replace(problem, served_tokens=0.0)
    found = reach_alone(draws, problem, targets, question.most, deviations)
    return {
        "pretraining_cost": found["pretraining_cost"][0] + serving,
        "planned_pretraining_cost": found["planned_pretraining_compute"][0] + serving,
        "pretraining_tokens": tokens_bought(problem, 0, found["planned_pretraining_compute"])[0],
    }
