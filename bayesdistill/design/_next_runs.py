r"""Selection of the next runs by their expected value of sample information (EVSI) per FLOP, without refitting.

The decision, for every student, scenario and budget, is between the chosen strategy and pretraining. Its current expected loss is
the smaller of the two posterior means. A run with outcome y changes the posterior and may change the choice. The value of the run
is the expected decrease of the loss, in nats, averaged over y (EVSI; Raiffa and Schlaifer 1961). It is at least 0 and at most the
value of perfect information for this choice (EVPI; `regret` of the plan). The `reweighting` module describes the computation.

Assumptions: outcomes follow the posterior predictive distribution; the strategy remains the chosen strategy (adapting it to
the outcome would gain slightly more); and no teacher is trained for a run: the loss of a distilled candidate's teacher is known.
Reweighting uses the available draws. If a run is so precise or so surprising that few draws have relevant weight, `status` reports
this, and the value of the run is reliable only after refitting the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill.answers import Codes
from bayesdistill.arguments import checked, one_of
from bayesdistill.compute import SCENARIOS
from bayesdistill.decisions import labels, planning
from bayesdistill.decisions._evppi import additional_budget
from bayesdistill.decisions.arguments import Number, Numbers, Scenarios, Teachers, parse_number
from bayesdistill.decisions.extrapolation import distilled_extrapolation
from bayesdistill.decisions.fitted_draws import FittedDraws
from bayesdistill.decisions.labels import CELL
from bayesdistill.decisions.prices import Prices
from bayesdistill.decisions.solving import CHOSEN, solve
from bayesdistill.design.candidates import DISTILLED, Candidates, parse_candidates, predict, proposed_candidates
from bayesdistill.design.reweighting import Blocks, Decision, Worth, predictive_paths, predictive_quantiles, worth_of
from bayesdistill.errors import ParameterError
from bayesdistill.progress import Report, reporting
from bayesdistill.strategies import STATUS, Problem, supervised_losses

RUN_STATUS = ("ok", "few effective draws")
OBJECTIVES = ("evsi_per_flop", "evsi")


class NextRunsOptions(planning.Search, planning.Money, total=False):
    """Options of `next_runs`."""

    seed: int


@checked(objective=one_of(*OBJECTIVES))
@planning.with_options
def next_runs(
    fit: planning.Source,
    candidates: pd.DataFrame | str | Path | None,
    students: Numbers,
    budgets: Numbers,
    scenarios: Scenarios = tuple(SCENARIOS),
    *,
    batch: int | None = None,
    batch_compute: Number | None = None,
    batch_money: Number | None = None,
    objective: str = "evsi_per_flop",
    cell_weights: xr.DataArray | None = None,
    outcomes: int = 400,
    min_effective_draws: float = 100.0,
    teachers: Teachers | None = None,
    **options: Unpack[NextRunsOptions],
) -> xr.Dataset:
    """Return the value of each candidate run for the decision, and the runs to make first.

    Parameters
    ----------
    candidates : DataFrame, path or None
        One run per row: student_params, student_tokens, teacher_loss (a student of an existing teacher) or params, tokens
        (a model trained from scratch). Optional: name, cost (FLOPs; by default 3 F(N) D), and teacher_params, which adds the
        cost of the teacher's logits to a distilled run. None proposes runs in the observed ranges: three sizes, three numbers of
        tokens per parameter and three losses of teachers (or your `teachers`), and as many sizes and tokens of pretrained models.
    batch : int, optional
        Largest number of runs to select sequentially, each given the previous runs; by default 1, or as many as `batch_compute` or
        `batch_money` allows. A run is selected only if it adds more than two Monte Carlo errors to the value.
    batch_compute : float, str, optional
        Total FLOPs of the batch. The batch is then the better of two greedy batches: by value per FLOP and by value.
    batch_money : float, str, optional
        Total cost of the batch, in place of `batch_compute`; requires prices.
    objective : {"evsi_per_flop", "evsi"}
        Criterion for rank, and for the batch unless `batch_compute` is given.
    cell_weights : DataArray, optional
        Weight of each decision, over some or all of student, scenario, budget; by default equal. Normalized to sum to 1
        over cells with a strategy.
    outcomes : int
        Number of outcomes per run.
    min_effective_draws : float
        Effective sample size, averaged over outcomes, below which a run is flagged.

    Returns
    -------
    Dataset
        Over `candidate`: evsi (nats, weighted mean over the cells), evsi_mcse, cost (FLOPs), evsi_per_flop,
        expected_reduction (fraction of evpi), change_probability (that the run changes a choice), effective_draws and
        effective_draws_lowest (mean and 5% quantile over outcomes), status (`ok`, `few effective draws`), rank (1 is the
        best), batch_position (1 is first; 0 is not in the batch), predicted_loss and predicted_sd (nats),
        extrapolation_factor, kind, params, tokens, teacher_loss. Over candidate and cell: cell_evsi, cell_evsi_mcse. Over
        cell: evpi, expected_gain, weight. Over `step`: batch_candidate, batch_evsi (of all runs so far), its _mcse,
        batch_cost, batch_effective_draws. Over `candidate`, value_flops: the pretraining compute of one decision that lowers the
        loss as much as the run does (0 if evsi is within two Monte Carlo errors of 0), and worth_its_cost (that it is more than
        cost).
        With prices cost_money, value_money, batch_cost_money. The attribute `suggestion` says which run is worth its cost,
        or that none is, and what information is worth at most.

    Raises
    ------
    DataError
        If the table of candidates is invalid; the message names row and column.
    ParameterError
        If an argument is invalid, or no cell has a strategy.

    Notes
    -----
    The docstrings of `design._next_runs` and `design.reweighting` have the definitions, the estimator and the standard error.
    Ties go to the cheaper run.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import numpy as np, pandas as pd, xarray as xr
    >>> from bayesdistill.design import next_runs
    >>> rng = np.random.default_rng(0)
    >>> draws = {k: (("chain", "draw"), v * np.ones((4, 250))) for k, v in bd.PUBLISHED.items()}
    >>> draws["A_S"] = (("chain", "draw"), bd.PUBLISHED["A_S"] * np.exp(0.05 * rng.standard_normal((4, 250))))
    >>> draws |= {"sigma": (("chain", "draw"), np.full((4, 250), 0.007)), "nu": (("chain", "draw"), np.full((4, 250), 5.0))}
    >>> table = pd.DataFrame({"student_params": [3e8, np.nan], "student_tokens": [2e10, np.nan], "teacher_loss": [2.2, np.nan],
    ...                       "params": [np.nan, 3e8], "tokens": [np.nan, 2e10]})
    >>> found = next_runs(xr.Dataset(draws, attrs={"law": "busbridge2025"}), table, "1B", 3e23, "best case")
    >>> found["rank"].values.tolist()  # only the distilled run tells about A_S
    [1, 2]
    """
    planner = planning.planner_of(next_runs, fit, options)
    fitted = planner.fitted
    prices = Prices.of(planner)
    problem, table = planning.problem_of(planner, students, budgets, scenarios, teachers)
    given = proposed_candidates(fitted, table) if candidates is None else candidates
    runs = parse_candidates(given, planner.shape, fitted.teacher_losses, prices.relative)
    limits = _limits(runs, batch, _batch_limit(prices, batch_compute, batch_money), batch_money, prices)
    strategy = solve(CHOSEN, fitted.draws, problem, planning.workers_of(planner))
    advantage = supervised_losses(fitted.draws, problem)[:, None] - strategy["loss"]
    feasible = ~np.isnan(advantage).any(axis=-1)
    weight = _cell_weights(cell_weights, problem, feasible)
    blocks = Blocks.of(fitted.chain.size, fitted.draw.size)
    decision = Decision(advantage[feasible], weight[feasible], predict(fitted, runs), blocks)
    everyone = np.arange(len(runs.names))
    with reporting(planner.progress, len(runs.names), "values of runs") as report:
        worth = worth_of(
            decision, everyone, predictive_quantiles(decision.predictions, outcomes, planner.seed), report=report
        )
    order = _best_first(_score(worth.total, runs, everyone, objective), runs, everyone)
    # Selection by value alone may spend everything on one run; selection by value per FLOP may buy many uninformative runs.
    # With a compute limit, neither is always better. Comparing the two batches requires no additional runs.
    rules = (objective,) if np.isinf(limits.compute) else OBJECTIVES
    batches = []
    for rule in rules:
        with reporting(planner.progress, min(limits.runs, len(runs.names)), "batch of runs") as report:
            batches.append(_greedy(decision, runs, worth, limits, rule, planner.seed, report))
    best = int(np.argmax([max(found.value, default=0.0) for found in batches]))
    chosen = batches[best]

    def spread(values: np.ndarray) -> np.ndarray:
        """Put values of feasible cells (last axis) on the grid; NaN elsewhere."""
        whole = np.full((*values.shape[:-1], *feasible.shape), np.nan)
        whole[..., feasible] = values
        return whole

    evpi = float(decision.perfect_information @ decision.weights)
    rank, position = np.empty(everyone.size, dtype=int), np.zeros(everyone.size, dtype=int)
    rank[order] = everyone + 1
    position[chosen.picked] = np.arange(len(chosen.picked)) + 1
    flops = _in_compute(fitted, problem, weight, spread(_above_error(worth)))
    most = float(_in_compute(fitted, problem, weight, spread(decision.perfect_information)[None])[0])
    values = _per_candidate(fitted, runs, decision, worth) | {
        "value_flops": flops,
        "worth_its_cost": flops > runs.cost,
        "expected_reduction": worth.total / evpi if evpi > 0 else np.full(everyone.size, np.nan),
        "rank": rank,
        "batch_position": position,
        "status": Codes(worth.effective.mean(axis=1) < min_effective_draws, RUN_STATUS),
        "cell_evsi": (spread(worth.cell), spread(worth.cell_mcse)),
        "evpi": spread(decision.perfect_information),
        "expected_gain": spread(decision.gain.mean(axis=-1)),
        "weight": weight,
        "status_of_strategy": Codes(strategy["status"], STATUS),
        "batch_candidate": np.array(runs.names)[chosen.picked],
        "batch_evsi": (np.array(chosen.value), np.array(chosen.error)),
        "batch_cost": np.cumsum(runs.cost[chosen.picked]),
        "batch_effective_draws": np.array(chosen.effective),
    }
    for name, amount in {"cost": runs.cost, "value": flops, "batch_cost": values["batch_cost"]}.items():
        values |= {key: cost for key, cost in prices.costs(name, amount).items() if key.endswith("_money")}
    steps = np.arange(len(chosen.picked)) + 1
    coordinates = labels.grid_coordinates(problem) | {"candidate": runs.names, "step": steps}
    attrs = labels.setting_attributes(problem.bounds, problem.shape) | fitted.attrs
    attrs |= {} if table is None else table.attrs
    attrs |= {
        "objective": objective,
        "batch_rule": rules[best],
        "batch_compute": float(limits.compute),
        "outcomes": int(outcomes),
        "seed": int(planner.seed),
        "min_effective_draws": float(min_effective_draws),
        "mean_evpi": evpi,
        "mean_evpi_flops": most,
        "suggestion": _suggestion(runs, worth, flops, (evpi, most), prices),
        "estimator": "reweighted draws; mean of the apparent and the cross-fitted value",
    }
    return prices.labeled(labels.answer("next_runs", fitted, values, coordinates, attrs | prices.attributes))


def _batch_limit(prices: Prices, compute: Number | None, money: Number | None) -> float | None:
    """Return the largest cost of the batch in FLOPs of training; None if there is no limit."""
    if money is None:
        return None if compute is None else parse_number(compute, "batch_compute")
    if compute is not None:
        raise ParameterError("`batch_compute` and `batch_money` are both given. Give one of them.")
    per_flop = prices.costs("run", 1.0).get("run_money")
    if per_flop is None:
        raise ParameterError("`batch_money` requires `gpu_flops_per_second` and `price_per_gpu_hour`.")
    return float(parse_number(money, "batch_money") / per_flop)


def _known(worth: Worth) -> np.ndarray:
    """Return which candidates have a value above two Monte Carlo errors."""
    return np.asarray(worth.total > 2 * np.nan_to_num(worth.total_mcse))


def _above_error(worth: Worth) -> np.ndarray:
    """Return the values of candidates in cells, (candidate, cell); 0 for those within their Monte Carlo error."""
    return np.where(_known(worth)[:, None], worth.cell, 0.0)


def _in_compute(fitted: FittedDraws, problem: Problem, weight: np.ndarray, nats: np.ndarray) -> np.ndarray:
    """Return the pretraining compute with the same effect as the nats of cells (candidate, *cell), (candidate,)."""
    cap, found = float(problem.bounds.max_student_tokens), np.zeros(len(nats))
    some = np.flatnonzero((np.nan_to_num(nats) > 0).any(axis=(1, 2, 3)))
    if some.size:
        # Along the axis of scenarios, because pretraining is the same in all of them.
        joint = np.moveaxis(nats[some], 1, 0).reshape(problem.students.size, -1, problem.budgets.size)
        flops = additional_budget(fitted, (problem.students, problem.budgets), joint, problem.shape, cap)
        each = np.moveaxis(flops.reshape(problem.students.size, some.size, -1, problem.budgets.size), 0, 1)
        found[some] = (np.where(weight > 0, each, 0.0) * np.where(weight > 0, weight, 1.0)).sum(axis=(1, 2, 3))
    return found


def _suggestion(
    runs: Candidates, worth: Worth, flops: np.ndarray, information: tuple[float, float], prices: Prices
) -> str:
    """Say which run is worth its cost, or that none is, and what would be."""

    def amount(value: float) -> str:
        money = prices.costs("run", value).get("run_money")
        text = f"{value:.2g} FLOPs" + ("" if money is None else f" ({money:,.0f} {prices.currency})")
        return text if np.isfinite(value) else "more than any budget"

    most = (
        f"Perfect information about the law is worth {information[0]:.1g} nats per token for the decision, as much as "
        f"{amount(information[1])} of pretraining. A run is worth at most this for one decision, and more for several."
        if information[0] > 0
        else "All posterior draws agree on the decision, so that no run can change it."
    )
    if not _known(worth).any():
        return f"None of these runs is worth its cost: their values are 0 within their Monte Carlo errors. {most}"
    best = int((flops - runs.cost).argmax())
    words = f"worth {amount(flops[best])} of pretraining and costs {amount(runs.cost[best])}"
    if not (flops > runs.cost).any():
        return (
            f"None of these runs is worth its cost for one decision: the best ({runs.names[best]}) is {words}. {most}"
        )
    count = int((flops > runs.cost).sum())
    return f"{count} of {len(runs.names)} runs are worth their cost; the best ({runs.names[best]}) is {words}."


@dataclass(frozen=True)
class _Limits:
    """Largest number of runs in the batch, and their total FLOPs."""

    runs: int
    compute: float


def _limits(
    runs: Candidates, batch: int | None, compute: float | None, money: Number | None, prices: Prices
) -> _Limits:
    most = (1 if compute is None else len(runs.names)) if batch is None else batch
    if most > len(runs.names):
        raise ParameterError(f"`batch` is {batch}, but `candidates` has only {len(runs.names)} runs. Decrease `batch`.")
    affordable = np.inf if compute is None else compute
    if affordable < (cheapest := float(runs.cost.min())):
        name, unit, each = ("batch_compute", "FLOPs", 1.0)
        if money is not None:
            name, unit, each = ("batch_money", prices.currency, prices.costs("run", 1.0)["run_money"])
        raise ParameterError(
            f"`{name}` is {affordable * each:.3g} {unit}, but the cheapest candidate costs {cheapest * each:.3g} {unit}. "
            f"Increase `{name}`."
        )
    return _Limits(most, affordable)


def _cell_weights(given: xr.DataArray | None, problem: Problem, feasible: np.ndarray) -> np.ndarray:
    """Return weights over the grid that sum to 1; cells without a strategy have weight 0."""
    if not feasible.any():
        raise ParameterError(
            "No combination of student, scenario and budget has a strategy, so there is no decision to inform. Increase "
            "the budgets or relax the bounds."
        )
    weight = np.ones(feasible.shape)
    if given is not None:
        if not isinstance(given, xr.DataArray) or not set(given.dims) <= set(CELL):
            raise ParameterError("`cell_weights` must be a DataArray over some of student, scenario, budget.")
        coordinates = {
            "student": problem.students,
            "scenario": [s.name for s in problem.scenarios],
            "budget": problem.budgets,
        }
        try:
            picked = given.sel({str(d): coordinates[str(d)] for d in given.dims})
        except KeyError as error:
            raise ParameterError(f"`cell_weights` has no weight for {error}. Give a weight for each cell.") from None
        blank = xr.DataArray(weight, dims=CELL)
        weight = (blank * picked.drop_vars(list(picked.coords))).transpose(*CELL).values
        if not (np.isfinite(weight).all() and (weight >= 0).all()):
            raise ParameterError("`cell_weights` must be finite and non-negative.")
    weight = np.where(feasible, weight, 0.0)
    if not weight.sum() > 0:
        raise ParameterError("`cell_weights` must be positive for at least one cell that has a strategy.")
    return np.asarray(weight / weight.sum())


def _best_first(score: np.ndarray, runs: Candidates, which: np.ndarray) -> np.ndarray:
    """Sort positions in `which` by decreasing score; ties by cost, then by name."""
    return np.lexsort((np.array(runs.names)[which], runs.cost[which], -score))


def _score(value: np.ndarray, runs: Candidates, which: np.ndarray, objective: str) -> np.ndarray:
    return value / runs.cost[which] if objective == "evsi_per_flop" else value


def _per_candidate(fitted: FittedDraws, runs: Candidates, decision: Decision, worth: Worth) -> dict[str, Any]:
    law = decision.predictions.mean
    far = distilled_extrapolation(fitted, runs.params, runs.tokens, runs.teacher_loss)
    return {
        "evsi": (worth.total, worth.total_mcse),
        "cost": runs.cost,
        "evsi_per_flop": worth.total / runs.cost,
        "change_probability": worth.change,
        "effective_draws": worth.effective.mean(axis=1),
        "effective_draws_lowest": np.quantile(worth.effective, 0.05, axis=1),
        "predicted_loss": law.mean(axis=1),
        "predicted_sd": law.std(axis=1),
        "extrapolation_factor": np.where(np.array(runs.kinds) == DISTILLED, far, np.nan),
        "params": runs.params,
        "tokens": runs.tokens,
        "teacher_loss": runs.teacher_loss,
        "kind": np.array(runs.kinds),
    }


@dataclass(frozen=True)
class _Batch:
    """Selected candidates in their order; after each, the value of all runs so far, its error and the effective draws."""

    picked: list[int]
    value: list[float]
    error: list[float]
    effective: list[float]

    def add(self, candidate: int, worth: Worth, row: int) -> None:
        """Add a candidate with the values in a row of `worth`."""
        self.picked.append(candidate)
        self.value.append(worth.total[row])
        self.error.append(worth.total_mcse[row])
        self.effective.append(worth.effective[row].mean())


def _greedy(
    decision: Decision, runs: Candidates, worth: Worth, limits: _Limits, objective: str, seed: int, report: Report
) -> _Batch:
    """Select a batch greedily while compute is left and a run adds more than two Monte Carlo errors to the value."""
    outcomes = worth.effective.shape[1]
    batch = _Batch([], [], [], [])
    made: list[tuple[int, np.ndarray]] = []

    def payable() -> np.ndarray:
        rest = limits.compute - runs.cost[batch.picked].sum()
        free = [i for i in range(len(runs.names)) if i not in batch.picked and runs.cost[i] <= rest]
        return np.array(free, dtype=int)

    def best_of(added: np.ndarray, left: np.ndarray) -> int:
        return int(_best_first(_score(added, runs, left, objective), runs, left)[0])

    def together(which: np.ndarray) -> Worth:
        paths = predictive_paths(decision.predictions, outcomes, seed, len(made))
        return worth_of(decision, which, paths[which], made, random_outcomes=True)

    left = payable()
    left = left[_known(worth)[left]]
    if not left.size:
        return batch
    first = int(left[best_of(worth.total[left], left)])
    batch.add(first, worth, first)
    report(1, limits.runs)
    while len(batch.picked) < limits.runs and (left := payable()).size:
        last = batch.picked[-1]
        # Use the same paths as the sums below, so that the increments are not dominated by Monte Carlo error.
        before = together(np.array([last]))
        made.append((last, predictive_paths(decision.predictions, outcomes, seed, len(made))[last]))
        joint = together(left)
        added = joint.total - before.total[0]
        # Both values have the same outcomes, so their difference has the error of the differences between outcomes.
        error = (joint.per_outcome - before.per_outcome).std(axis=1) / np.sqrt(outcomes)
        enough = np.flatnonzero(added > 2 * error)
        if not enough.size:
            break
        best = int(enough[best_of(added[enough], left[enough])])
        batch.add(int(left[best]), joint, best)
        report(len(batch.picked), limits.runs)
    return batch
