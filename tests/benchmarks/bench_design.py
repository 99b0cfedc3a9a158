"""What to run next, against refits on simulated truth: is the value right, and does it lead to the right decision sooner?

    python tests/benchmarks/bench_design.py [--part value|at-once|replay|all] [--truths 40] [--stages 1e19 3e19 9e19] [--state FILE]

A posterior of 40 of the published runs is the starting point; its draws are the truths that could be. *Value*: outcomes of a
candidate are quantiles of its posterior predictive; the model is refitted with each, and the value of the refits is set
beside that of reweighting. *At once*: every method spends the same compute on the runs it chooses, all at once; outcomes are
simulated from each draw as the truth, and the choices between distilling and pretraining are compared with those that the truth
calls for. *Replay*: the same in stages, with the outcomes of a stage seen before the next. Posteriors on the way are the draws
of the start, reweighted; some of the replay's are refitted to see whether that is right. With --state, what has been done is
kept in a file (one JSON line a piece) and not done again.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import functools
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

import bayesdistill as bd
from bayesdistill import posterior, strategies
from bayesdistill.compute import PUBLISHED_SHAPE
from bayesdistill.criticism.refits import Refitter, prepare_refits, refit
from bayesdistill.decisions.arguments import parse_scenarios
from bayesdistill.decisions.fitted_draws import gather
from bayesdistill.decisions.solving import CHOSEN, Problem, Workers, solve
from bayesdistill.design import information_order, next_runs, random_order
from bayesdistill.design.candidates import parse_candidates, predict
from bayesdistill.design.reweighting import predictive_quantiles
from bayesdistill.errors import ConvergenceWarning
from bayesdistill.law import DEFAULT_LAW, Draws
from bayesdistill.model import reference_run
from bayesdistill.priors import default_priors

STUDENTS = [1e9, 3e9]
BUDGETS = [1e21, 1e22, 1e23]
SCENARIOS = ["best case", "teacher inference", "teacher pretraining"]
PROBLEM = Problem(
    np.array(STUDENTS),
    np.array(BUDGETS),
    parse_scenarios(SCENARIOS),
    strategies.Bounds(),
    PUBLISHED_SHAPE,
)
INITIAL, POOL = 40, 60
MAX_RHAT = 1.05
CHOICE_DRAWS, CHOICE_OUTCOMES, CHECK_DRAWS = 1000, 64, 500
METHODS = ("value of information", "D-optimal", "D-optimal per FLOP", "random")


class State:
    """Pieces of work that are done, in a file or in memory."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self.done = {entry["key"]: entry["value"] for entry in map(json.loads, lines)}

    def get(self, key: str, make: Callable[[], object]):
        if key not in self.done:
            self.done[key] = make()
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps({"key": key, "value": self.done[key]}) + "\n")
        return self.done[key]


def setting() -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """The 40 runs and 60 candidates, the candidates, and which runs are the 40."""
    runs = bd.load_runs("busbridge2025")
    rng = np.random.default_rng(4)
    picked = runs.iloc[rng.permutation(len(runs))[: INITIAL + POOL]].reset_index(drop=True)
    first = np.arange(len(picked)) < INITIAL
    pool = picked.loc[~first, ["student_params", "student_tokens", "teacher_loss"]].reset_index(drop=True)
    pool["name"] = [str(i) for i in range(POOL)]
    return picked, pool, first


@functools.cache
def compiled() -> Refitter:
    """The model of all 100 runs, compiled when it is first needed."""
    picked, _, _ = setting()
    priors = default_priors(DEFAULT_LAW, reference_run(picked, None))
    return prepare_refits(picked, priors)


def sample(kept: np.ndarray, loss: np.ndarray | None, draws: int, seed: int) -> xr.DataTree:
    """A refit whose chains agree. One with a stuck chain says nothing about reweighting: it is reported and made again."""
    for attempt in range(4):
        tree = refit(compiled(), kept, loss, draws=draws, tune=600, chains=4, cores=2, seed=seed + 10_000 * attempt)
        rhat = posterior.convergence(tree)["rhat"]
        if rhat is not None and rhat < MAX_RHAT:
            return tree
        print(f"  refit with seed {seed}, attempt {attempt + 1}: R-hat {rhat}; made again", flush=True)
    raise RuntimeError("four refits in a row had chains that disagree")


def decide(tree: xr.DataTree) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The committed strategy of a posterior, and the mean advantage of distilling by it, (student, scenario, budget)."""
    draws = gather(tree, allow_unconverged=True).draws
    found = solve(CHOSEN, draws, PROBLEM, Workers(threads=2))
    return found, advantage(draws, found).mean(axis=-1)


def advantage(draws: Draws, strategy: dict[str, np.ndarray]) -> np.ndarray:
    """Of a given strategy, under other draws than those it was made for: (student, scenario, budget, n_draws)."""
    params, tokens, own = (strategy[name][..., None] for name in ("teacher_params", "teacher_tokens", "student_tokens"))
    distilled = draws.distilled_loss(PROBLEM.students[:, None, None, None], own, draws.supervised_loss(params, tokens))
    alone = strategies.supervised_losses(draws, PROBLEM)
    return alone[:, None] - distilled


def check_value(state: State, outcomes: int, draws: int, candidates: int) -> None:
    """EVSI by reweighting beside EVSI by refits."""
    picked, pool, first = setting()
    start = sample(first, None, draws, seed=0)
    found = next_runs(start, pool, STUDENTS, BUDGETS, SCENARIOS, objective="evsi", allow_unconverged=True)
    strategy, gain = decide(start)
    sign = np.where(gain > 0, -1.0, 1.0)
    fitted = gather(start, allow_unconverged=True)
    predictions = predict(fitted, parse_candidates(pool, PUBLISHED_SHAPE))
    quantiles = predictive_quantiles(predictions, outcomes, seed=0)
    prior_gain = advantage(fitted.draws, strategy)
    # From the most valuable to the least: a check on valuable runs alone would not see a value that is too high elsewhere.
    by_rank = found["candidate"].sortby(found["rank"]).values
    chosen = [int(by_rank[i]) for i in np.linspace(0, POOL - 1, candidates).astype(int)]
    print(f"mean EVPI {found.attrs['mean_evpi']:.2e} nats")
    for c in chosen:
        after, weighted = [], []
        for m, y in enumerate(quantiles[c]):

            def refitted(c: int = c, m: int = m, y: float = float(y)) -> list:
                loss = picked["student_loss"].to_numpy(dtype=float).copy()
                loss[INITIAL + c] = y
                kept = first.copy()
                kept[INITIAL + c] = True
                tree = sample(kept, loss, draws, seed=100 + m)
                return advantage(gather(tree, allow_unconverged=True).draws, strategy).mean(axis=-1).tolist()

            after.append(state.get(f"value {outcomes} {draws} {c} {m}", refitted))
            w = np.exp(predictions.log_density(c, np.array([y]))[0])
            weighted.append(prior_gain @ (w / w.sum()))
        after, weighted = np.array(after), np.array(weighted)
        by_refits = np.maximum(sign * after, 0).mean(axis=0)
        by_weights = np.maximum(sign * weighted, 0).mean(axis=0)
        row = found.sel(candidate=str(c))
        print(
            f"candidate {c} (rank {row['rank'].item()}): evsi {row['evsi'].item():.2e} ± {row['evsi_mcse'].item():.1e}; "
            f"at the same {outcomes} outcomes: reweighted {by_weights.mean():.2e}, refitted {by_refits.mean():.2e}; "
            f"advantage after an outcome, rms difference {np.sqrt(np.mean((after - weighted) ** 2)):.2e} of a spread "
            f"over outcomes of {after.std(axis=0).mean():.2e} nats; effective draws {row['effective_draws'].item():.0f}",
            flush=True,
        )


def choose(method: str, fit: xr.Dataset, left: pd.DataFrame, compute: float, seed: int) -> list[str]:
    """Names of the next runs, which together cost no more than `compute`."""
    costs = dict(zip(left["name"], parse_candidates(left, PUBLISHED_SHAPE).cost, strict=True))
    if compute < min(costs.values()):
        return []
    if method == "value of information":
        found = next_runs(fit, left, STUDENTS, BUDGETS, SCENARIOS, outcomes=CHOICE_OUTCOMES, batch_compute=compute)
        return [str(name) for name in found["batch_candidate"].values]
    if method.startswith("D-optimal"):
        criterion = "information_per_flop" if "FLOP" in method else "information"
        return [
            str(name) for name in information_order(fit, left, criterion=criterion, compute=compute)["order"].values
        ]
    picked = []
    for name in random_order(left, seed=seed):
        if costs[name] <= compute:
            picked.append(name)
            compute -= costs[name]
    return picked


class Start:
    """The posterior of the first runs with many draws, what it says of the pool, and what each draw says of the decisions."""

    def __init__(self, pool: pd.DataFrame, first: np.ndarray, draws: int, path: Path | None) -> None:
        if path is not None and path.exists():
            tree = xr.open_datatree(path, engine="h5netcdf").load()
        else:
            tree = sample(first, None, draws, seed=0)
            if path is not None:
                tree.to_netcdf(path, engine="h5netcdf")
        self.fitted = gather(tree, allow_unconverged=True)
        self.costs = parse_candidates(pool, PUBLISHED_SHAPE).cost
        self.predictions = predict(self.fitted, parse_candidates(pool, PUBLISHED_SHAPE))
        self.draws = self.fitted.draws
        few = np.linspace(0, self.fitted.n_draws - 1, CHOICE_DRAWS).astype(int)
        self.strategy = solve(CHOSEN, self.draws.take(few), PROBLEM, Workers(threads=1))
        self.gain = advantage(self.fitted.draws, self.strategy).reshape(-1, self.fitted.n_draws)

    def resampled(self, weights: np.ndarray, seed: int) -> xr.Dataset:
        """A posterior of few draws of equal weight, in random order, for the methods to choose by."""
        rng = np.random.default_rng([11, seed])
        at = (np.arange(CHOICE_DRAWS) + rng.random()) / CHOICE_DRAWS
        rows = np.minimum(np.searchsorted(np.cumsum(weights), at), weights.size - 1)
        rows = rng.permutation(rows)
        values = {name: (("chain", "draw"), value[rows].reshape(4, -1)) for name, value in self.draws.items()}
        return posterior.with_law(xr.Dataset(values), self.draws.law, self.draws.reference)


def judge(gain: np.ndarray, weights: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """What the choices of a posterior cost, under the truth and as the posterior itself expects."""
    mean = gain @ weights
    wrong = (mean > 0) != (true > 0)
    against = np.where(mean > 0, -1.0, 1.0)[:, None] * gain
    return {
        "regret": float((np.abs(true) * wrong).mean()),
        "wrong": float(wrong.mean()),
        "expected": float((np.maximum(against, 0) @ weights).mean()),
        "effective": float(1 / np.sum(weights**2)),
    }


def replay(
    state: State, truths: int, stages: list[float], draws: int, checks: int, path: Path | None, count: int
) -> None:
    """Regret of the choices against the compute spent on runs, method by method.

    All methods get the same compute: at every stage each spends what the stage adds (and what it had left), then sees the
    outcomes. The truths are draws of the posterior that all start from, evenly spaced in the order of the regret that today's
    choices would have under them: a systematic sample, so that fewer truths are enough. A posterior after outcomes is the start's
    many draws, reweighted; with `checks`, so many of the last ones are refitted as well. The strategies are those committed to
    at the start.
    """
    runs, pool, first = setting()
    start = Start(pool, first, draws, path)
    size = start.fitted.n_draws
    equal = np.full(size, 1 / size)
    sign = np.where(start.gain.mean(axis=1) > 0, -1.0, 1.0)
    lost = np.maximum(sign[:, None] * start.gain, 0).mean(axis=0)
    evenly = np.argsort(lost)[((np.arange(truths) + 0.5) / truths * size).astype(int)]
    # In an order without meaning, so that a run that is cut short has seen a fair part of them.
    evenly = evenly[np.random.default_rng(7).permutation(truths)]
    print(
        f"at the start: expected regret {lost.mean():.2e}, of the chosen truths {lost[evenly].mean():.2e} nats",
        flush=True,
    )

    def outcomes(t: int) -> np.ndarray:
        i = int(evenly[t])
        scatter = np.random.default_rng([7, t]).standard_t(start.draws["nu"][i], POOL)
        return start.predictions.mean[:, i] + start.predictions.scale[:, i] * scatter

    def weights_after(kept: list[int], seen: np.ndarray) -> np.ndarray:
        total = np.zeros(size)
        for c in kept:
            total += start.predictions.log_density(c, seen[c : c + 1])[0]
        likelihood = np.exp(total - total.max())
        return likelihood / likelihood.sum()

    def one(method: str, t: int) -> dict[str, list]:
        seen, true = outcomes(t), start.gain[:, evenly[t]]
        kept: list[int] = []
        weights, spent = equal, 0.0
        record: dict[str, list] = {"spent": [0.0], "runs": [0]}
        for name, value in judge(start.gain, weights, true).items():
            record[name] = [value]
        for stage, compute in enumerate(stages):
            left = pool.drop(index=kept)
            if stage == 0 and method != "random":
                # Every truth starts from the same posterior, so that the first choice is the same.
                key = f"first {compute} {draws} {method}"
                picked = state.get(key, lambda c=compute: choose(method, start.resampled(equal, 0), pool, c, 0))
            else:
                picked = choose(method, start.resampled(weights, t), left, compute - spent, seed=1000 * t + stage)
            kept += [int(name) for name in picked]
            spent = float(start.costs[kept].sum())
            weights = weights_after(kept, seen)
            record["spent"].append(spent)
            record["runs"].append(len(kept))
            for name, value in judge(start.gain, weights, true).items():
                record[name].append(value)
        record["kept"] = kept
        return record

    def check(t: int) -> list[list[float]]:
        """Mean advantages after all stages of the first method, reweighted and refitted, and both expected regrets."""
        kept = records[METHODS[0]][t]["kept"]
        seen = outcomes(t)
        loss = np.concatenate([runs["student_loss"].to_numpy(dtype=float)[:INITIAL], seen])
        mask = first.copy()
        mask[[INITIAL + c for c in kept]] = True
        tree = sample(mask, loss, CHECK_DRAWS, seed=t + 1)
        again = advantage(gather(tree, allow_unconverged=True).draws, start.strategy).reshape(len(start.gain), -1)
        weights = weights_after(kept, seen)
        refitted = judge(again, np.full(again.shape[1], 1 / again.shape[1]), start.gain[:, evenly[t]])
        reweighted = judge(start.gain, weights, start.gain[:, evenly[t]])
        return [
            (start.gain @ weights).tolist(),
            again.mean(axis=1).tolist(),
            again.std(axis=1).tolist(),
            [reweighted["expected"], refitted["expected"]],
        ]

    records: dict[str, list[dict[str, list]]] = {method: [] for method in METHODS}
    key = f"{stages} {draws} {truths}"
    for t in range(count):
        started = time.perf_counter()
        for method in METHODS:
            records[method].append(state.get(f"replay {key} {t} {method}", lambda m=method, t=t: one(m, t)))
        print(f"truth {t}: {time.perf_counter() - started:.0f} s", flush=True)
        if t % 10 == 9:
            show(records, stages)
    show(records, stages)
    checked = []
    for t in range(min(checks, count)):
        checked.append(state.get(f"check {key} {CHECK_DRAWS} {t}", lambda t=t: check(t)))
        weighted, again, spread, expected = (np.array(x) for x in checked[-1])
        alike = np.mean((weighted > 0) == (again > 0))
        print(
            f"refit {t}: {len(records[METHODS[0]][t]['kept'])} runs; mean advantage reweighted less refitted, over the "
            f"posterior's standard deviation, rms {np.sqrt(np.mean(((weighted - again) / spread) ** 2)):.3f}; the same choice in "
            f"{alike:.3f} of decisions; expected regret {expected[0]:.2e} and {expected[1]:.2e}",
            flush=True,
        )


def at_once(state: State, budgets: list[float], draws: int, path: Path | None, orders: int = 4) -> None:
    """The runs chosen all at once, every draw of the start in turn the truth: regret that is left, and its standard error.

    Random choice is the mean over several orders.
    """
    _, pool, first = setting()
    start = Start(pool, first, draws, path)
    size = start.fitted.n_draws
    scatter = np.random.default_rng(17).standard_t(start.draws["nu"], (POOL, size))
    seen = start.predictions.mean + start.predictions.scale * scatter
    equal = np.full(size, 1 / size)

    def left_after(kept: list[int]) -> list[list[float]]:
        """Regret under the truth, and as expected, truth by truth."""
        regret, expected = np.empty(size), np.empty(size)
        for part in np.array_split(np.arange(size), max(1, size // 200)):
            weights = np.zeros((part.size, size))
            for c in kept:
                weights += start.predictions.log_density(c, seen[c, part])
            weights = np.exp(weights - weights.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            mean, true = weights @ start.gain.T, start.gain[:, part].T
            regret[part] = (np.abs(true) * ((mean > 0) != (true > 0))).mean(axis=1)
            # Of pretraining, what distilling would have gained, and the other way round.
            gained, lost = weights @ np.maximum(start.gain, 0).T, weights @ np.maximum(-start.gain, 0).T
            expected[part] = np.where(mean > 0, lost, gained).mean(axis=1)
        return [regret.tolist(), expected.tolist()]

    for compute in budgets:
        ours: np.ndarray | None = None
        print(f"compute {compute:.1e} FLOPs")
        for method in METHODS:
            results = []
            for seed in range(orders if method == "random" else 1):
                fit = start.resampled(equal, 0)
                key = f"{compute} {draws} {method} {seed}"
                kept = state.get(f"first {key}", lambda m=method, c=compute, f=fit, s=seed: choose(m, f, pool, c, s))
                results.append(state.get(f"at once {key}", lambda k=kept: left_after([int(name) for name in k])))
            found = np.mean(results, axis=0)
            ours = found if ours is None else ours
            words = [
                f"{what} {values.mean():.3e} (more than by value of information: {(values - our).mean():+.1e} ± "
                f"{(values - our).std(ddof=1) / np.sqrt(size):.1e})"
                for what, values, our in zip(("regret", "expected regret"), found, ours, strict=True)
            ]
            print(f"  {method}: last batch of {len(kept)} runs; {'; '.join(words)}", flush=True)


def show(records: dict[str, list[dict[str, list[float]]]], stages: list[float]) -> None:
    """Means over truths with standard errors, and the differences to the value of information, paired by truth."""

    def mean(values: np.ndarray) -> str:
        return f"{values.mean():+.2e} ± {values.std(ddof=1) / np.sqrt(values.size):.1e}"

    found = {
        method: {
            name: np.array([r[name] for r in done])
            for name in ("spent", "runs", "regret", "wrong", "expected", "effective")
        }
        for method, done in records.items()
    }
    ours = found[METHODS[0]]
    print(f"\n{len(ours['regret'])} truths, {len(STUDENTS) * len(BUDGETS) * len(SCENARIOS)} decisions")
    for stage, compute in enumerate([0.0, *stages]):
        print(f"compute {compute:.1e} FLOPs")
        for method, one in found.items():
            print(
                f"  {method}: {one['runs'][:, stage].mean():.1f} runs, {one['spent'][:, stage].mean():.1e} FLOPs; regret "
                f"{mean(one['regret'][:, stage])}, as each posterior expects {mean(one['expected'][:, stage])} nats; "
                f"wrong choices {one['wrong'][:, stage].mean():.3f}; effective draws {one['effective'][:, stage].mean():.0f}"
            )
            if stage and method != METHODS[0]:
                print(
                    f"    more than by value of information: regret {mean(one['regret'][:, stage] - ours['regret'][:, stage])}, "
                    f"expected {mean(one['expected'][:, stage] - ours['expected'][:, stage])}"
                )
    print(flush=True)


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=("value", "at-once", "replay", "all"), default="all")
    parser.add_argument("--truths", type=int, default=40)
    parser.add_argument("--stages", type=float, nargs="+", default=[1e19, 3e19, 9e19])
    parser.add_argument("--outcomes", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=3)
    parser.add_argument("--draws", type=int, default=500, help="per chain, of the refits of the part `value`")
    parser.add_argument(
        "--start-draws", type=int, default=5000, help="per chain, of the posterior that the replay starts from"
    )
    parser.add_argument("--first", type=int, help="of the truths, how many to replay; all if left out")
    parser.add_argument("--start", type=Path, help="file that keeps the posterior that the replay starts from")
    parser.add_argument("--checks", type=int, default=6, help="posteriors of the replay that are refitted")
    parser.add_argument("--state", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    state = State(options.state)
    count = options.truths if options.first is None else min(options.first, options.truths)
    if options.part in ("value", "all"):
        check_value(state, options.outcomes, options.draws, options.candidates)
    if options.part in ("at-once", "all"):
        at_once(state, options.stages, options.start_draws, options.start)
    if options.part in ("replay", "all"):
        replay(state, options.truths, options.stages, options.start_draws, options.checks, options.start, count)


if __name__ == "__main__":
    main()
