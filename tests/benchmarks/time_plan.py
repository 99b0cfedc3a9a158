"""Time a large plan and its crossovers in a process of its own; prints JSON. `bench_plan.py` calls it, also for an earlier version.

    python tests/benchmarks/time_plan.py FIT RESULTS --threads 2

It uses nothing but the public functions, so that it runs with earlier versions too. If FIT does not exist, it is made, and nothing is
timed.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import json
import resource
import sys
import time

import numpy as np

import bayesdistill as bd

STUDENTS = ("300M", "1B", "3B", "10B")
BUDGETS = (1e19, 1e25, 31)


def timed(function):
    """The result, seconds on the clock, and seconds of processor time."""
    began, started = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - began, time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fit")
    parser.add_argument("results")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    if not os.path.exists(chosen.fit):
        bd.save(bd.fit(bd.load_runs("busbridge2025"), seed=0, progress=False), chosen.fit)
        return
    fit = bd.load(chosen.fit)
    options = {"threads": chosen.threads, "progress": False}
    unit = 1 if sys.platform == "darwin" else 1024
    _, first, _ = timed(lambda: bd.plan(fit, "1B", [1e20, 1e21], **options))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plan, wall, busy = timed(lambda: bd.plan(fit, STUDENTS, np.geomspace(*BUDGETS), **options))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found, crossing_wall, crossing_busy = timed(lambda: bd.crossovers(fit, STUDENTS[:3], **options))
    names = ("probability", "probability_best", "expected_gain", "regret", "evpi")
    values = {name: plan[name].values for name in names}
    np.savez(chosen.results, **values, crossover=found["crossover_quantile"].values)
    record = {
        "draws": int(fit["posterior"]["E"].size),
        "cells": int(plan["probability"].size),
        "small plan": first,
        "plan": wall,
        "plan processor": busy,
        "crossovers": crossing_wall,
        "crossovers processor": crossing_busy,
        "peak MB": peak * unit / 1e6,
        "MB before": before * unit / 1e6,
        "MB of the plan": plan.nbytes / 1e6,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
