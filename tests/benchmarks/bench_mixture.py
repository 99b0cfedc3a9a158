"""Time to fit four laws to the 354 runs, mix them and plan, on two cores.

python tests/benchmarks/bench_mixture.py

The laws are those of the stored reference fits (docs/studies/reference_fits.py), with the default settings of `fit`. Set XDG_CACHE_HOME
to an empty folder for times that include compilation.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from pathlib import Path

import numpy as np

import bayesdistill as bd

sys.path.append(str(Path(__file__).parents[2] / "docs" / "studies"))
from reference_fits import FITS, LONG

STUDENTS, BUDGETS, SCENARIOS = ("300M", "1B", "3B"), np.geomspace(1e19, 1e25, 25), ("best case", "teacher inference")


def main() -> None:
    """Print the seconds of each fit and of the plan of the mixture."""
    runs, fits, began = bd.load_runs(), {}, time.perf_counter()
    for name, arguments in FITS.items():
        started = time.perf_counter()
        chosen = {key: value for key, value in arguments.items() if key not in LONG}
        fits[name] = bd.fit(runs, seed=0, progress=False, **chosen)
        verdict = "passes" if bd.posterior.convergence(fits[name])["converged"] else "fails"
        print(f"{name}: {time.perf_counter() - started:.1f} s, {verdict} the convergence checks", flush=True)
    started = time.perf_counter()
    bd.plan(bd.mix(fits, dict.fromkeys(fits, 1)), STUDENTS, BUDGETS, SCENARIOS, progress=False)
    print(
        f"mixture and plan of {len(STUDENTS) * len(SCENARIOS) * len(BUDGETS)} cells: {time.perf_counter() - started:.1f} s"
    )
    print(f"in all: {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
