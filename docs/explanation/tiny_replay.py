"""Replays the choice of runs on the tiny experiment: value of information, D-optimality, at random, cheapest first.

    python docs/explanation/tiny_replay.py FOLDER [STARTS]

Finished studies are kept in FOLDER, so that an interrupted run goes on where it stopped. Prints the tables of tiny.md.
"""

import sys
import time
import warnings
from pathlib import Path

import numpy as np
from tiny_common import BUDGETS, SCENARIOS, SHAPE, STUDENTS, distilled, flops, supervised

import bayesdistill as bd
from bayesdistill.criticism.replay import replay

folder = Path(sys.argv[1])
starts = int(sys.argv[2]) if len(sys.argv) > 2 else 3
folder.mkdir(parents=True, exist_ok=True)
# The teachers that exist, with their measured losses; none is trained for a decision.
TEACHERS = (
    distilled.drop_duplicates("teacher")[["teacher", "teacher_params", "teacher_tokens", "teacher_loss"]]
    .rename(columns={"teacher": "name", "teacher_params": "params", "teacher_tokens": "tokens", "teacher_loss": "loss"})
    .reset_index(drop=True)
)
SETTING = {"teachers": TEACHERS, "shape": SHAPE, "allow_unconverged": True, "threads": 1}


def decide(fit):
    plan = bd.plan(fit, STUDENTS, BUDGETS, SCENARIOS, **SETTING)
    return plan["expected_gain"].values.ravel()


def by_value(fit, candidates, count, seed):
    found = bd.next_runs(fit, candidates, STUDENTS, BUDGETS, SCENARIOS, batch=count, outcomes=100, seed=seed, **SETTING)
    return [str(name) for name in found["batch_candidate"].values]


def by_information(fit, candidates, count, seed):
    found = bd.information_order(fit, candidates, criterion="information_per_flop", shape=SHAPE, allow_unconverged=True)
    return [str(name) for name in found["order"].values[:count]]


ORDERS = {
    "value of information per FLOP": by_value,
    "D-optimal per FLOP": by_information,
    "random": lambda fit, candidates, count, seed: bd.random_order(candidates, seed=seed, shape=SHAPE),
    "cheapest first": lambda fit, candidates, count, seed: bd.cheapest_first(candidates, shape=SHAPE),
}

if __name__ == "__main__":
    began, processor = time.monotonic(), time.process_time()
    warnings.simplefilter("ignore", bd.ConvergenceWarning)  # the table shows the worst R-hat
    found = replay(
        distilled,
        supervised,
        ORDERS,
        decide,
        flops=flops,
        starts=starts,
        checkpoint=folder / "replay.json",
        progress=lambda done, of: print(f"{done}/{of} {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True),
    )
    gain = found["full_gain"].values
    print(
        f"{len(distilled)} distilled and {len(supervised)} supervised runs; {gain.size} decisions, {np.sum(gain > 0)} to distil"
    )
    for name, unit, digits in (("regret", 1e3, 2), ("agreement", 1, 2), ("compute", 1e-12, 1)):
        table = (unit * found[name].mean("start")).to_pandas().round(digits)
        table.columns = [f"{runs} runs" for runs in found["runs"].values]
        print(f"\n{name}, mean of {starts} starts, in units of {1 / unit:g}\n{table.to_string()}")
    table = (1e3 * found["regret"]).isel(step=[1, 2, 3, 4]).mean("step").to_pandas().round(2)
    print(f"\nregret of each start, mean of the steps after the first, thousandths of a nat\n{table.to_string()}")
    print(f"\nlargest R-hat of any fit {float(found['rhat'].max()):.3f}")
    print(f"{time.process_time() - processor:.0f} core-seconds in this sitting", file=sys.stderr)
