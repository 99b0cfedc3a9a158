"""What to run next, against refits on simulated truth: is the value right, and does it lead to the right decision sooner?

    python tests/benchmarks/bench_design.py [--part value|replay|all] [--truths 24] [--stages 1e19 3e19 9e19] [--state FILE]

A posterior of 40 of the published runs is the starting point; its draws are the truths that could be. *Value*: outcomes of a
candidate are quantiles of its posterior predictive; the model is refitted with each, and the value of the refits is set
beside that of reweighting. *Replay*: a truth is drawn; at each stage every method spends the same compute
on the runs it chooses, outcomes are simulated from the truth, the model is refitted, and the choices between distilling and
pretraining are compared with those that the truth calls for. With --state, what has been done is kept in a file (one JSON line
a piece) and not done again.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
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
from bayesdistill.decisions.arguments import make_bounds, parse_scenarios
from bayesdistill.decisions.evidence import gather
from bayesdistill.decisions.solving import COMMITTED, Problem, Workers, solve
from bayesdistill.design import information_order, next_runs, random_order
from bayesdistill.design.candidates import parse_candidates, predict
from bayesdistill.design.reweighting import predictive_quantiles
from bayesdistill.errors import ConvergenceWarning
from bayesdistill.laws import SUPERVISED_PARAMETERS, distilled_loss
from bayesdistill.model import reference_run
from bayesdistill.priors import default_priors

STUDENTS = [1e9, 3e9]
BUDGETS = [1e21, 1e22, 1e23]
SCENARIOS = ["best case", "teacher inference", "teacher pretraining"]
PROBLEM = Problem(
    np.array(STUDENTS),
    np.array(BUDGETS),
    parse_scenarios(SCENARIOS),
    make_bounds(1e6, 1e12, 2e13, None),
    PUBLISHED_SHAPE,
)
INITIAL, POOL = 40, 60
MAX_RHAT = 1.05
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


def setting() -> tuple[Refitter, pd.DataFrame, np.ndarray]:
    """The compiled model of 40 runs and 60 candidates, the candidates, and which runs are the 40."""
    runs = bd.load_runs("busbridge2025")
    rng = np.random.default_rng(4)
    picked = runs.iloc[rng.permutation(len(runs))[: INITIAL + POOL]].reset_index(drop=True)
    priors = default_priors(distilled=True, supervised=False, reference=reference_run(picked, None))
    first = np.arange(len(picked)) < INITIAL
    pool = picked.loc[~first, ["student_params", "student_tokens", "teacher_loss"]].reset_index(drop=True)
    pool["name"] = [str(i) for i in range(POOL)]
    return prepare_refits(picked, priors), pool, first


def sample(refitter: Refitter, kept: np.ndarray, loss: np.ndarray | None, draws: int, seed: int) -> xr.DataTree:
    """A refit whose chains agree. One with a stuck chain says nothing about reweighting: it is reported and made again."""
    for attempt in range(4):
        tree = refit(refitter, kept, loss, draws=draws, tune=600, chains=4, cores=2, seed=seed + 10_000 * attempt)
        rhat = posterior.convergence(tree)["rhat"]
        if rhat is not None and rhat < MAX_RHAT:
            return tree
        print(f"  refit with seed {seed}, attempt {attempt + 1}: R-hat {rhat}; made again", flush=True)
    raise RuntimeError("four refits in a row had chains that disagree")


def decide(tree: xr.DataTree) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The committed strategy of a posterior, and the mean advantage of distilling by it, (student, scenario, budget)."""
    draws = gather(tree, allow_unconverged=True).draws
    found = solve(COMMITTED, draws, PROBLEM, Workers(threads=2))
    return found, advantage(draws, found).mean(axis=-1)


def advantage(draws: dict[str, np.ndarray], strategy: dict[str, np.ndarray]) -> np.ndarray:
    """Of a given strategy, under other draws than those it was made for: (student, scenario, budget, n_draws)."""
    distilled, _ = strategies.evaluate_strategies(
        draws,
        PROBLEM.students[:, None, None],
        strategy["student_tokens"],
        strategy["teacher_params"],
        strategy["teacher_tokens"],
    )
    alone = strategies.supervised_losses(
        {name: draws[name] for name in SUPERVISED_PARAMETERS}, PROBLEM.students, PROBLEM.budgets
    )
    return alone[:, None] - distilled


def check_value(state: State, outcomes: int, draws: int, candidates: int) -> None:
    """EVSI by reweighting beside EVSI by refits."""
    refitter, pool, first = setting()
    start = sample(refitter, first, None, draws, seed=0)
    found = next_runs(start, pool, STUDENTS, BUDGETS, SCENARIOS, objective="evsi", allow_unconverged=True)
    strategy, gain = decide(start)
    sign = np.where(gain > 0, -1.0, 1.0)
    evidence = gather(start, allow_unconverged=True)
    predictions = predict(evidence, parse_candidates(pool, PUBLISHED_SHAPE))
    quantiles = predictive_quantiles(predictions, outcomes, seed=0)
    prior_gain = advantage(evidence.draws, strategy)
    # From the most valuable to the least: a check on valuable runs alone would not see a value that is too high elsewhere.
    by_rank = found["candidate"].sortby(found["rank"]).values
    picked = [int(by_rank[i]) for i in np.linspace(0, POOL - 1, candidates).astype(int)]
    print(f"mean EVPI {found.attrs['mean_evpi']:.2e} nats")
    for c in picked:
        after, weighted = [], []
        for m, y in enumerate(quantiles[c]):

            def refitted(c: int = c, m: int = m, y: float = float(y)) -> list:
                loss = refitter.runs["student_loss"].to_numpy(dtype=float).copy()
                loss[INITIAL + c] = y
                kept = first.copy()
                kept[INITIAL + c] = True
                tree = sample(refitter, kept, loss, draws, seed=100 + m)
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


def choose(method: str, tree: xr.DataTree, left: pd.DataFrame, compute: float, seed: int) -> list[str]:
    """Names of the next runs, which together cost no more than `compute`."""
    costs = dict(zip(left["name"], parse_candidates(left, PUBLISHED_SHAPE).cost, strict=True))
    if compute < min(costs.values()):
        return []
    if method == "value of information":
        found = next_runs(
            tree, left, STUDENTS, BUDGETS, SCENARIOS, outcomes=200, batch_compute=compute, allow_unconverged=True
        )
        return [str(name) for name in found["batch_candidate"].values]
    if method.startswith("D-optimal"):
        criterion = "information_per_flop" if "FLOP" in method else "information"
        found = information_order(tree, left, criterion=criterion, compute=compute, allow_unconverged=True)
        return [str(name) for name in found["order"].values]
    picked = []
    for name in random_order(left, seed=seed):
        if costs[name] <= compute:
            picked.append(name)
            compute -= costs[name]
    return picked


def judge(tree: xr.DataTree, truth: dict[str, np.ndarray]) -> dict[str, float]:
    """What the choices of a posterior cost, under the truth and as the posterior itself expects."""
    draws = gather(tree, allow_unconverged=True).draws
    strategy, gain = decide(tree)
    true = advantage(truth, strategy)[..., 0]
    wrong = (gain > 0) != (true > 0)
    against = np.where(gain > 0, -1.0, 1.0)[..., None] * advantage(draws, strategy)
    return {
        "regret": float((np.abs(true) * wrong).mean()),
        "wrong": float(wrong.mean()),
        "expected": float(np.maximum(against, 0).mean()),
    }


def replay(state: State, truths: int, stages: list[float], draws: int) -> None:
    """Regret of the choices against the compute spent on runs, method by method.

    All methods get the same compute: at every stage each spends what the stage adds (and what it had left), then sees the
    outcomes. The truths are draws of the posterior that all start from, evenly spaced in the order of the regret that today's
    choices would have under them: a systematic sample, so that few truths are enough.
    """
    refitter, pool, first = setting()
    start = sample(refitter, first, None, draws, seed=0)
    flat = gather(start, allow_unconverged=True)
    noise = {k: flat.noise[k].transpose("chain", "draw").values.reshape(-1) for k in ("sigma", "nu")}
    costs = parse_candidates(pool, PUBLISHED_SHAPE).cost
    strategy, gain = decide(start)
    lost = np.maximum(np.where(gain > 0, -1.0, 1.0)[..., None] * advantage(flat.draws, strategy), 0).mean(
        axis=(0, 1, 2)
    )
    evenly = np.argsort(lost)[((np.arange(truths) + 0.5) / truths * flat.size).astype(int)]
    # In an order without meaning, so that a run that is cut short has seen a fair part of them.
    evenly = evenly[np.random.default_rng(7).permutation(truths)]
    print(
        f"at the start: expected regret {lost.mean():.2e}, of the chosen truths {lost[evenly].mean():.2e} nats",
        flush=True,
    )

    def one(method: str, t: int) -> dict[str, list[float]]:
        i = int(evenly[t])
        rng = np.random.default_rng([7, t])
        truth = {name: values[i : i + 1] for name, values in flat.draws.items()}
        law = {name: float(values[0]) for name, values in truth.items()}
        columns = (pool[c].to_numpy(dtype=float) for c in ("student_params", "student_tokens", "teacher_loss"))
        outcome = distilled_loss(*columns, **law) + noise["sigma"][i] * rng.standard_t(noise["nu"][i], POOL)
        loss = np.concatenate([refitter.runs["student_loss"].to_numpy(dtype=float)[:INITIAL], outcome])
        kept, tree, spent = first.copy(), start, 0.0
        record: dict[str, list[float]] = {"spent": [0.0], "runs": [0.0]}
        for name, value in judge(tree, truth).items():
            record[name] = [value]
        for stage, compute in enumerate(stages):
            left = pool[~kept[INITIAL:]]
            if stage == 0 and method != "random":
                # Every truth starts from the same posterior, so that the first choice is the same.
                picked = state.get(
                    f"first {compute} {draws} {method}", lambda c=compute: choose(method, start, pool, c, 0)
                )
            else:
                picked = choose(method, tree, left, compute - spent, seed=1000 * t + stage)
            for name in picked:
                kept[INITIAL + int(name)] = True
                spent += float(costs[int(name)])
            if picked:
                tree = sample(refitter, kept, loss, draws, seed=stage + 1)
            record["spent"].append(spent)
            record["runs"].append(float(kept[INITIAL:].sum()))
            for name, value in judge(tree, truth).items():
                record[name].append(value)
        return record

    records: dict[str, list[dict[str, list[float]]]] = {method: [] for method in METHODS}
    setting_key = f"{stages} {draws} {truths}"
    for t in range(truths):
        for method in METHODS:
            started = time.perf_counter()
            records[method].append(state.get(f"replay {setting_key} {t} {method}", lambda m=method, t=t: one(m, t)))
            print(f"truth {t}, {method}: {time.perf_counter() - started:.0f} s", flush=True)
        if t > 0:
            show(records, stages)


def show(records: dict[str, list[dict[str, list[float]]]], stages: list[float]) -> None:
    """Means over truths with standard errors, and the differences to the value of information, paired by truth."""

    def mean(values: np.ndarray) -> str:
        return f"{values.mean():+.2e} ± {values.std(ddof=1) / np.sqrt(values.size):.1e}"

    found = {
        method: {name: np.array([r[name] for r in done]) for name in ("spent", "runs", "regret", "wrong", "expected")}
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
                f"wrong choices {one['wrong'][:, stage].mean():.3f}"
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
    parser.add_argument("--part", choices=("value", "replay", "all"), default="all")
    parser.add_argument("--truths", type=int, default=24)
    parser.add_argument("--stages", type=float, nargs="+", default=[1e19, 3e19, 9e19])
    parser.add_argument("--outcomes", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=3)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--state", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    state = State(options.state)
    if options.part in ("value", "all"):
        check_value(state, options.outcomes, options.draws, options.candidates)
    if options.part in ("replay", "all"):
        replay(state, options.truths, options.stages, options.draws)


if __name__ == "__main__":
    main()
