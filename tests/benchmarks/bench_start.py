"""From the shell to a saved posterior: `bayesdistill fit RUNS -o fit.nc` in fresh processes, stage by stage.

    python tests/benchmarks/bench_start.py [--repeats 3] [--runs busbridge2025] [--numba]

Every process is new. "Empty" starts with empty cache folders of the package, PyTensor and numba; "warm" is the second process
that uses the same ones, and finds the model compiled. (Python's own bytecode is there in both: it is made once, after an
installation.) The two take turns, so that whatever else the machine does hits both. Times are wall clock and processor time, the
latter of all threads: on a busy machine it says more. Packages are counted in the stage that imports them: PyMC in "build", which
a warm cache leaves out, and what is imported while the sampler works in "sample". "Verify" compares the compiled model with
PyTensor's own evaluation. `--numba` also compiles the model with PyTensor and numba, for comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STAGES = ("import", "read", "build", "compile", "verify", "sample", "finish", "save")

CHILD = """
import sys, time, json, os
laps = {}
last = [float(os.environ["BENCH_STARTED"]), 0.0]
def lap(name):
    wall, cpu = time.time(), time.process_time()
    before = laps.get(name, (0.0, 0.0))
    laps[name] = (before[0] + wall - last[0], before[1] + cpu - last[1])
    last[:] = wall, cpu
import bayesdistill.cli
from bayesdistill import datasets, model, sampling
from bayesdistill.compiler import _compile
from bayesdistill.sampling import _fit as fitting
import nutpie
lap("import")
def timed(module, name, stage, before="finish"):
    inner = getattr(module, name)
    def outer(*a, **k):
        lap(before)
        result = inner(*a, **k)
        lap(stage)
        return result
    setattr(module, name, outer)
timed(datasets, "load_runs", "read", "import")
timed(datasets, "read_runs", "read", "import")
timed(fitting.compiler, "compile", "compile", "read")
timed(fitting, "build_model", "build", "compile")
timed(_compile, "verify", "verify", "compile")
timed(fitting, "sample", "sample")
timed(sampling, "save", "save")
try:
    bayesdistill.cli.main()
except SystemExit as end:
    assert not end.code, end.code
lap("finish")
print(json.dumps(laps))
"""


def run(runs: str, cache: Path, compiler: str) -> tuple[dict[str, tuple[float, float]], float]:
    """Stages (wall, processor), and the wall time from start to exit, of one fit in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "BENCH_STARTED": str(time.time()),
            "BAYESDISTILL_COMPILER": compiler,
            "BAYESDISTILL_CACHE": str(cache / "own") if compiler == "llvm" else "off",
            "PYTENSOR_FLAGS": f"base_compiledir={cache / 'pytensor'}",
            "NUMBA_CACHE_DIR": str(cache / "numba"),
            "OMP_NUM_THREADS": "1",
        }
        started = time.time()
        ran = subprocess.run(
            [sys.executable, "-c", CHILD, "fit", runs, "-o", str(Path(folder) / "fit.nc"), "--quiet"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        total = time.time() - started
        assert (Path(folder) / "fit.nc").stat().st_size > 100_000
    return json.loads(ran.stdout.splitlines()[-1]), total


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--runs", default="busbridge2025")
    parser.add_argument("--numba", action="store_true")
    options = parser.parse_args()
    compilers = ["llvm", "numba"] if options.numba else ["llvm"]
    found: dict[str, list[tuple[dict[str, tuple[float, float]], float]]] = {}
    for _ in range(options.repeats):
        for compiler in compilers:
            with tempfile.TemporaryDirectory() as cache:
                for state in ("empty", "warm"):
                    found.setdefault(f"{compiler}, {state}", []).append(run(options.runs, Path(cache), compiler))
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; medians of {options.repeats}; seconds wall / processor"
    )
    print(f"{'stage':10s}" + "".join(f"{name:>22s}" for name in found))
    for stage in STAGES:
        cells = []
        for measured in found.values():
            wall, cpu = (statistics.median(laps.get(stage, (0.0, 0.0))[i] for laps, _ in measured) for i in (0, 1))
            cells.append(f"{wall:10.2f} / {cpu:7.2f}  ")
        print(f"{stage:10s}" + "".join(f"{cell:>22s}" for cell in cells))
    cells = []
    for measured in found.values():
        cpu = statistics.median(sum(cpu for _, cpu in laps.values()) for laps, _ in measured)
        cells.append(f"{statistics.median(total for _, total in measured):10.2f} / {cpu:7.2f}  ")
    print(f"{'total':10s}" + "".join(f"{cell:>22s}" for cell in cells))


if __name__ == "__main__":
    main()
