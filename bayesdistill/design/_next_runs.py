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

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import strategies
from bayesdistill.answers import Answer
from bayesdistill.compute import PUBLISHED_SHAPE, SCENARIOS, Shape
from bayesdistill.decisions import labels
from bayesdistill.decisions.arguments import (
    Number,
    Numbers,
    Scenarios,
    check_choice,
    make_bounds,
    parse_budgets,
    parse_number,
    parse_scenarios,
    parse_students,
    parse_teachers,
)
from bayesdistill.decisions.extrapolation import distilled_extrapolation
from bayesdistill.decisions.fitted_draws import FittedDraws, Source, gather
from bayesdistill.decisions.labels import FLOPS, NATS, ONE, PARAMS, TOKENS, variable
from bayesdistill.decisions.solving import CHOSEN, Problem, Workers, solve
from bayesdistill.design.candidates import DISTILLED, Candidates, Predictions, parse_candidates, predict
from bayesdistill.design.reweighting import (
    Blocks,
    Worth,
    predictive_paths,
    predictive_quantiles,
    value_of_knowing,
    worth_of,
)
from bayesdistill.errors import ParameterError

CELL = ("student", "scenario", "budget")
RUN_STATUS = ("ok", "few effective draws")
OBJECTIVES = ("evsi_per_flop", "evsi")
PER_FLOP = "nats per token per FLOP"


def next_runs(
    fit: Source,
    candidates: pd.DataFrame,
    students: Numbers,
    budgets: Numbers,
    scenarios: Scenarios = tuple(SCENARIOS),
    *,
    batch: int | None = None,
    batch_compute: Number | None = None,
    objective: str = "evsi_per_flop",
    cell_weights: xr.DataArray | None = None,
    outcomes: int = 400,
    min_effective_draws: float = 100.0,
    max_teacher_params: float = 1e12,
    max_teacher_tokens: float = 2e13,
    max_student_tokens: float | None = None,
    min_teacher_params: float = 1e6,
    teachers: pd.DataFrame | xr.Dataset | None = None,
    shape: Shape = PUBLISHED_SHAPE,
    seed: int = 0,
    allow_unconverged: bool = False,
    threads: int | None = None,
) -> xr.Dataset:
    """Return the value of each candidate run for the decision, and the runs to make first.

    Parameters
    ----------
    fit : DataTree or Dataset
        The result of `fit` or `load`, or a Dataset of draws with sigma and nu.
    candidates : DataFrame
        One run per row: student_params, student_tokens, teacher_loss (a student of an existing teacher) or params, tokens
        (a model trained from scratch). Optional: name, cost (FLOPs; by default 3 F(N) D), and teacher_params, which adds the
        cost of the teacher's logits to a distilled run.
    students, budgets, scenarios
        Decisions that the runs inform, as for `plan`.
    batch : int, optional
        Number of runs to select sequentially, each given the previous runs; by default 1, or as many as `batch_compute` allows.
    batch_compute : float, str, optional
        Total FLOPs of the batch. The batch is then the better of two greedy batches: by value per FLOP and by value.
    objective : {"evsi_per_flop", "evsi"}
        Criterion for rank, and for the batch unless `batch_compute` is given.
    cell_weights : DataArray, optional
        Weight of each decision, over some or all of student, scenario, budget; by default equal. Normalized to sum to 1
        over cells with a strategy.
    outcomes : int
        Number of outcomes per run.
    min_effective_draws : float
        Effective sample size, averaged over outcomes, below which a run is flagged.
    max_teacher_params, max_teacher_tokens, max_student_tokens, min_teacher_params, teachers, shape
        As for `plan`.
    seed : int
        Random seed for the outcomes.
    allow_unconverged, threads
        As for `plan`.

    Returns
    -------
    Dataset
        Over `candidate`: evsi (nats, weighted mean over the cells), evsi_mcse, cost (FLOPs), evsi_per_flop,
        expected_reduction (fraction of evpi), change_probability (that the run changes a choice), effective_draws and
        effective_draws_lowest (mean and 5 % quantile over outcomes), status (`ok`, `few effective draws`), rank (1 is the
        best), batch_position (1 is first; 0 is not in the batch), predicted_loss and predicted_sd (nats),
        extrapolation_factor, kind, params, tokens, teacher_loss. Over candidate and cell: cell_evsi, cell_evsi_mcse. Over
        cell: evpi, expected_gain, weight. Over `step`: batch_candidate, batch_evsi (of all runs so far), its _mcse,
        batch_cost, batch_effective_draws.

    Raises
    ------
    DataError
        If the table of candidates is invalid; the message names row and column.
    ParameterError
        If an argument is invalid, or no cell has a strategy.
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False.

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
    fitted = gather(fit, allow_unconverged)
    check_choice(objective, "objective", OBJECTIVES)
    runs = parse_candidates(candidates, shape)
    most = (1 if batch_compute is None else len(runs.names)) if batch is None else batch
    for name, value, lowest in (("batch", most, 1), ("outcomes", outcomes, 2)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < lowest:
            raise ParameterError(f"`{name}` must be an integer of at least {lowest}, got {value!r}.")
    if most > len(runs.names):
        raise ParameterError(f"`batch` is {batch}, but `candidates` has only {len(runs.names)} runs. Decrease `batch`.")
    affordable = np.inf if batch_compute is None else parse_number(batch_compute, "batch_compute")
    if affordable < runs.cost.min():
        raise ParameterError(
            f"`batch_compute` is {affordable:.3g} FLOPs, but the cheapest candidate costs {runs.cost.min():.3g} FLOPs. "
            "Increase `batch_compute`."
        )
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
    strategy = solve(CHOSEN, fitted.draws, problem, Workers(threads=threads))
    alone = strategies.supervised_losses(fitted.draws, problem)
    advantage = alone[:, None] - strategy["loss"]
    grid = advantage.shape[:-1]
    feasible = ~np.isnan(advantage).any(axis=-1)
    weight = _cell_weights(cell_weights, problem, feasible)
    gain = advantage[feasible]
    predictions = predict(fitted, runs)
    blocks = Blocks.of(fitted.chain.size, fitted.draw.size)
    seen = predictive_quantiles(predictions, outcomes, seed)
    everyone = np.arange(len(runs.names))
    worth = worth_of(gain, weight[feasible], predictions, everyone, seen, blocks)
    score = worth.total / runs.cost if objective == "evsi_per_flop" else worth.total
    order = _best_first(score, runs, everyone)
    # Selection by value alone may spend everything on one run; selection by value per FLOP may buy many uninformative runs.
    # With a compute limit, neither is always better. Comparing the two batches requires no additional runs.
    rules = (objective,) if batch_compute is None else OBJECTIVES
    batches = [
        _greedy(gain, weight[feasible], predictions, blocks, worth, runs, most, affordable, rule, seed)
        for rule in rules
    ]
    best = int(np.argmax([float(found["batch_evsi"].values[-1]) for found in batches]))
    steps, rule = batches[best], rules[best]
    spread = _Spread(grid, feasible)
    variables = _per_candidate(fitted, runs, predictions, worth, order, min_effective_draws)
    variables |= {
        "cell_evsi": variable(
            ("candidate", *CELL), spread(worth.cell), NATS, "expected value of the run's outcome for one decision"
        ),
        "cell_evsi_mcse": variable(
            ("candidate", *CELL), spread(worth.cell_mcse), NATS, "Monte Carlo standard error of cell_evsi"
        ),
        "evpi": variable(
            CELL,
            spread(value_of_knowing(gain)),
            NATS,
            "expected value of perfect information about the law, for the choice between the two options",
        ),
        "expected_gain": variable(
            CELL, spread(gain.mean(axis=-1)), NATS, "posterior mean of the law's advantage of the chosen strategy"
        ),
        "weight": variable(CELL, weight, ONE, "weight of the decision"),
        "status_of_strategy": labels.strategy_status(CELL, strategy["status"]),
    }
    variables |= steps
    evpi = float(value_of_knowing(gain) @ weight[feasible])
    with np.errstate(invalid="ignore", divide="ignore"):
        share = worth.total / evpi if evpi > 0 else np.full(len(runs.names), np.nan)
    variables["expected_reduction"] = variable(
        ("candidate",), share, ONE, "expected value of the run as a fraction of evpi"
    )
    position = np.zeros(len(runs.names), dtype=int)
    for step, name in enumerate(steps["batch_candidate"].values):
        position[runs.names.index(str(name))] = step + 1
    variables["batch_position"] = variable(
        ("candidate",), position, ONE, "position in the batch, 1 is first; 0 is not in it"
    )
    coordinates = labels.grid_coordinates(problem)
    coordinates["candidate"] = variable(["candidate"], runs.names, ONE, "candidate run")
    coordinates["step"] = variable(
        ["step"], np.arange(1, steps["batch_candidate"].size + 1), ONE, "number of runs in the batch so far"
    )
    attrs = {
        **labels.setting_attributes(problem.bounds, shape),
        **fitted.attrs,
        "objective": objective,
        "batch_rule": rule,
        "batch_compute": float(affordable),
        "outcomes": int(outcomes),
        "seed": int(seed),
        "min_effective_draws": float(min_effective_draws),
        "mean_evpi": evpi,
        "estimator": "reweighted draws; mean of the apparent and the cross-fitted value",
    }
    return Answer(variables, coordinates, attrs)


class _Spread:
    """Function that puts values of feasible cells (last axis) on the grid (NaN elsewhere)."""

    def __init__(self, grid: tuple[int, ...], feasible: np.ndarray) -> None:
        self.grid, self.feasible = grid, feasible

    def __call__(self, values: np.ndarray) -> np.ndarray:
        whole = np.full((*values.shape[:-1], *self.grid), np.nan)
        whole[..., self.feasible] = values
        return whole


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


def _per_candidate(
    fitted: FittedDraws,
    runs: Candidates,
    predictions: Predictions,
    worth: Worth,
    order: np.ndarray,
    min_effective_draws: float,
) -> dict[str, xr.Variable]:
    rank = np.empty(order.size, dtype=int)
    rank[order] = np.arange(1, order.size + 1)
    effective = worth.effective.mean(axis=1)
    far = np.full(order.size, np.nan)
    for i, kind in enumerate(runs.kinds):
        if kind == DISTILLED:
            far[i] = float(distilled_extrapolation(fitted, runs.params[i], runs.tokens[i], runs.teacher_loss[i]))
    per = {
        "evsi": (worth.total, NATS, "expected value of the run's outcome for the decisions"),
        "evsi_mcse": (worth.total_mcse, NATS, "Monte Carlo standard error of evsi"),
        "cost": (runs.cost, FLOPS, "compute of the run"),
        "evsi_per_flop": (worth.total / runs.cost, PER_FLOP, "expected value of the run's outcome per compute"),
        "change_probability": (worth.change, ONE, "probability that the run changes a choice"),
        "effective_draws": (effective, ONE, "effective draws after reweighting, mean over outcomes"),
        "effective_draws_lowest": (
            np.quantile(worth.effective, 0.05, axis=1),
            ONE,
            "effective draws after reweighting, 5 % quantile over outcomes",
        ),
        "rank": (rank, ONE, "rank by the objective, 1 is best"),
        "predicted_loss": (predictions.mean.mean(axis=1), NATS, "posterior mean of the law at the run"),
        "predicted_sd": (predictions.mean.std(axis=1), NATS, "posterior standard deviation of the law at the run"),
        "extrapolation_factor": (
            far,
            ONE,
            "factor outside the range of the distilled runs, 1 inside; NaN for supervised runs or if unknown",
        ),
        "params": (runs.params, PARAMS, "non-embedding parameters of the trained model"),
        "tokens": (runs.tokens, TOKENS, "tokens of the run"),
        "teacher_loss": (runs.teacher_loss, NATS, "loss of the run's teacher; NaN for supervised runs"),
        "kind": (np.array(runs.kinds), ONE, "distilled or supervised run"),
    }
    found = {name: variable(("candidate",), *rest) for name, rest in per.items()}
    found["status"] = labels.flags(
        ("candidate",),
        (effective < min_effective_draws).astype(np.int8),
        RUN_STATUS,
        "whether the effective sample size is sufficient for a reliable evsi",
    )
    return found


def _greedy(
    gain: np.ndarray,
    weights: np.ndarray,
    predictions: Predictions,
    blocks: Blocks,
    worth: Worth,
    runs: Candidates,
    batch: int,
    affordable: float,
    objective: str,
    seed: int,
) -> dict[str, xr.Variable]:
    """Select a batch greedily while compute is left."""
    outcomes = worth.effective.shape[1]

    def best_of(added: np.ndarray, left: np.ndarray) -> int:
        score = added / runs.cost[left] if objective == "evsi_per_flop" else added
        return int(_best_first(score, runs, left)[0])

    def payable(picked: list[int]) -> np.ndarray:
        rest = affordable - runs.cost[picked].sum()
        return np.array([i for i in range(len(runs.names)) if i not in picked and runs.cost[i] <= rest], dtype=int)

    left = payable([])
    first = int(left[best_of(worth.total[left], left)])
    picked = [first]
    value, error = [worth.total[first]], [worth.total_mcse[first]]
    effective = [worth.effective[first].mean()]
    made: list[tuple[int, np.ndarray]] = []

    def together(which: np.ndarray) -> Worth:
        paths = predictive_paths(predictions, outcomes, seed, len(made))
        return worth_of(gain, weights, predictions, which, paths[which], blocks, made, random_outcomes=True)

    while len(picked) < batch and (left := payable(picked)).size:
        last = np.array([picked[-1]])
        # Use the same paths as the sums below, so that the increments are not dominated by Monte Carlo error.
        before = together(last).total[0]
        made.append((picked[-1], predictive_paths(predictions, outcomes, seed, len(made))[picked[-1]]))
        joint = together(left)
        best = best_of(joint.total - before, left)
        picked.append(int(left[best]))
        value.append(joint.total[best])
        error.append(joint.total_mcse[best])
        effective.append(joint.effective[best].mean())
    step = ("step",)
    return {
        "batch_candidate": variable(
            step, np.array([runs.names[i] for i in picked]), ONE, "run that is added at this step"
        ),
        "batch_evsi": variable(
            step, np.array(value), NATS, "expected value of the outcomes of all runs so far for the decisions"
        ),
        "batch_evsi_mcse": variable(step, np.array(error), NATS, "Monte Carlo standard error of batch_evsi"),
        "batch_cost": variable(step, np.cumsum(runs.cost[picked]), FLOPS, "compute of all runs so far"),
        "batch_effective_draws": variable(
            step, np.array(effective), ONE, "effective draws after reweighting by all runs so far, mean over outcomes"
        ),
    }
