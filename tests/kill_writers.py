"""Kill every writer of files at random moments: each file has its earlier or its new content, and the next write removes the rest.

    python tests/kill_writers.py --kills 40

A process that has imported everything forks the writers. For each writer, this prints how many kills happened while a file was written
(a temporary file is left) and how many after the new version was complete.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import figure_inputs as inputs
import numpy as np
import xarray as xr

import bayesdistill as bd
from bayesdistill.compiler.cache import read_program, write_program
from bayesdistill.compiler.program import Program
from bayesdistill.criticism.tasks import keep_finished, read_finished
from bayesdistill.files import TEMPORARY
from bayesdistill.reporting import report_files, write_report

Write = Callable[[Path, int], object]
"""Write one of two versions to a folder."""
SETTING = {"function": "kills"}


def fit_of(version: int) -> xr.DataTree:
    rng = np.random.default_rng(version)
    values = {name: value * np.exp(0.001 * rng.standard_normal((4, 250))) for name, value in bd.PUBLISHED.items()}
    draws = xr.Dataset(
        {name: (("chain", "draw"), value) for name, value in values.items()}, attrs={"law": "busbridge2025"}
    )
    return xr.DataTree.from_dict({"posterior": draws})


def program_of(version: int) -> Program:
    return Program(
        code=bytes(100_000),
        arrays=[np.full(1000, version)],
        shared=[None],
        axes=[],
        indices=[],
        names=["z"],
        shapes=[()],
        n_dim=1,
        n_expanded=1,
        dims={},
        coords={},
    )


def add_to_log(folder: Path, version: int) -> None:
    """Version 0 is a log of two tasks, version 1 has twenty more."""
    log = folder / "log.jsonl"
    if version == 0:
        log.unlink(missing_ok=True)
    done = read_finished(log, SETTING)
    for k in range(len(done), 22 if version else 2):
        done[str(k)] = np.full(5000, k / 7)
        keep_finished(log, SETTING, done)


def writers() -> dict[str, Write]:
    plans = [inputs.plan(), inputs.plan(students=(3e8, 1e9))]
    fits, tables = [fit_of(version) for version in (0, 1)], [bd.plan_table(plan) for plan in plans]
    reports = [report_files(fit["posterior"].to_dataset(), date="2026-01-02") for fit in fits]
    figure = bd.plot_probability(plans[0])
    return {
        "fit": lambda folder, version: bd.save(fits[version], folder / "fit.nc"),
        "plan": lambda folder, version: bd.save(plans[version], folder / "plan.nc"),
        "table": lambda folder, version: bd.write_table(tables[version], folder / "plan.csv"),
        "report": lambda folder, version: write_report(reports[version], folder),
        "page": lambda folder, version: bd.interactive_page(
            fits[version]["posterior"].to_dataset(), folder / "page.html", draws=20
        ),
        "figure": lambda folder, version: figure.savefig(folder / "figure.png", dpi=50 + version),
        "log": add_to_log,
        "cache": lambda folder, version: write_program(folder, "key", program_of(version), 0.0),
    }


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()


def is_whole(name: str, content: bytes, versions: list[dict[str, bytes]]) -> bool:
    """Whether a file has the content of a version; a log grows line by line."""
    whole = content in (version.get(name) for version in versions)
    return whole or (name == "log.jsonl" and content[-1:] == b"\n" and versions[1][name].startswith(content))


def kill(write: Write, folder: Path, delay: float, pause: float) -> None:
    """Write until the process is killed; `pause` is the time that the disk takes for a file."""
    reader, writer = os.pipe()
    with warnings.catch_warnings(action="ignore"):  # threads of libraries, which the writers do not use
        child = os.fork()
    if child == 0:
        os.fsync = lambda handle: time.sleep(pause)
        os.write(writer, b"x")
        for version in cycle((1, 0)):
            write(folder, version)
    os.read(reader, 1)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
    assert os.WTERMSIG(status) == signal.SIGKILL, "the writer ended before it was killed"


def check(name: str, write: Write, kills: int, rng: np.random.Generator) -> tuple[int, int]:
    """Kill a writer several times; return how often this was during the writing of a file, and how often after it."""
    with tempfile.TemporaryDirectory() as place:
        folder, versions, during, after = Path(place), [], 0, 0
        for version in (1, 0):
            started = time.perf_counter()
            write(folder, version)
            duration = time.perf_counter() - started
            versions.insert(0, dict(contents(folder)))
        for _ in range(kills):
            kill(write, folder, rng.uniform(0, 4 * duration), pause=rng.uniform(0, 2 * duration / len(versions[0])))
            found = dict(contents(folder))
            files = {path: content for path, content in found.items() if not Path(path).name.startswith(TEMPORARY)}
            during += len(found) > len(files)
            after += files == versions[1]
            lost = versions[0].keys() - files.keys() - {"log.jsonl"}  # the writer of the log deletes it to begin anew
            assert not lost, f"{name}: {lost} is lost"
            for path, content in files.items():
                assert is_whole(path, content, versions), f"{name}: {path} is neither the earlier nor the new file"
            assert name != "cache" or read_program(folder, "key") is not None
            write(folder, 0)
            assert dict(contents(folder)) == versions[0], f"{name}: {dict(contents(folder)).keys()} are left"
    return during, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    rng = np.random.default_rng(chosen.seed)
    for name, write in writers().items():
        started = time.perf_counter()
        during, after = check(name, write, chosen.kills, rng)
        seconds = time.perf_counter() - started
        print(f"{name}: {chosen.kills} kills, {during} during and {after} after writing, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
