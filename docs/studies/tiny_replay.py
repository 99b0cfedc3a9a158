"""Replay of the choice of runs on the tiny experiment: value of information, D-optimality, random, cheapest first.

    python docs/studies/tiny_replay.py FOLDER [STARTS] [--quick]

Prints the tables of explanation/tiny.md. Finished studies are kept in FOLDER, from which an interrupted one resumes.
"""

from __future__ import annotations

import sys
import time
import warnings

import numpy as np
from common import parser
from replay import replay
from tiny_common import BUDGETS, SCENARIOS, SHAPE, STUDENTS, distilled, flops, report_to_stderr, supervised

import bayesdistill as bd

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


def main(arguments: list[str] | None = None) -> None:
    command = parser(__doc__, folder=True)
    command.add_argument("starts", nargs="?", type=int, default=3)
    chosen = command.parse_args(arguments)
    starts, orders, settings = chosen.starts, ORDERS, {}
    if chosen.quick:
        starts, orders = 1, {"D-optimal per FLOP": by_information}
        settings = {"batches": [5], "draws": 100, "tune": 200}
    chosen.folder.mkdir(parents=True, exist_ok=True)
    processor = time.process_time()
    warnings.simplefilter("ignore", bd.ConvergenceWarning)  # the table shows the worst R-hat
    found = replay(
        distilled,
        supervised,
        orders,
        decide,
        flops=flops,
        starts=starts,
        checkpoint=chosen.folder / "replay.json",
        progress=report_to_stderr(),
        **settings,
    )
    gain = found["full_gain"].values
    print(f"{len(distilled)} distilled and {len(supervised)} supervised runs;", end=" ")
    print(f"{gain.size} decisions, {np.sum(gain > 0)} to distill")
    for name, unit, digits in (("regret", 1e3, 2), ("agreement", 1, 2), ("compute", 1e-12, 1)):
        table = (unit * found[name].mean("start")).to_pandas().round(digits)
        table.columns = [f"{runs} runs" for runs in found["runs"].values]
        print(f"\n{name}, mean of {starts} starts, in units of {1 / unit:g}\n{table.to_string()}")
    table = (1e3 * found["regret"]).isel(step=slice(1, None)).mean("step").to_pandas().round(2)
    print(f"\nregret of each start, mean of the steps after the first, thousandths of a nat\n{table.to_string()}")
    print(f"\nlargest R-hat of any fit {float(found['rhat'].max()):.3f}")
    print(f"{time.process_time() - processor:.0f} core-seconds in this run", file=sys.stderr)


if __name__ == "__main__":
    main()
