"""Checkpoints of the functions that fit a model many times: checked before the work, and resumed exactly after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import bayesdistill as bd
from bayesdistill.criticism import _backtest, _leave_out, _simulate_calibration

Call = Callable[..., xr.Dataset]
SMALL = {"draws": 60, "tune": 60, "progress": False}


def leave_out(path: Path | None, **options: object) -> xr.Dataset:
    runs = bd.load_runs("busbridge2025").iloc[::9].reset_index(drop=True)
    return bd.leave_out(runs, "student", checkpoint=path, **SMALL, **options)


def simulate_calibration(path: Path | None, **options: object) -> xr.Dataset:
    runs = bd.load_runs("busbridge2025").iloc[::9].reset_index(drop=True)
    return bd.simulate_calibration(runs, simulations=3, log=path, **SMALL, **options)


def backtest(path: Path | None, **options: object) -> xr.Dataset:
    tables = bd.load_runs("tiny"), bd.load_runs("tiny", kind="supervised")
    return bd.backtest(*tables, checkpoint=path, **SMALL, **options)


CALLS: dict[str, tuple[Call, object, str]] = {
    "leave_out": (leave_out, _leave_out, "_fold"),
    "simulate_calibration": (simulate_calibration, _simulate_calibration, "_simulation"),
    "backtest": (backtest, _backtest, "_fit_and_predict"),
}


@pytest.mark.parametrize("name", CALLS)
def test_bad_checkpoints_are_noticed_before_the_first_fit(name, tmp_path, monkeypatch):
    call, module, task = CALLS[name]
    monkeypatch.setattr(module, task, lambda *_: pytest.fail("a fit has begun"))
    foreign, fifo, read_only = (tmp_path / name for name in ("runs.csv", "fifo", "read-only"))
    foreign.write_text("student_params,student_tokens\n")
    os.mkfifo(fifo)
    read_only.touch(0o400)
    for path in (tmp_path, fifo, read_only, tmp_path / "nowhere" / "log", os.devnull, 3):
        with pytest.raises(bd.FileError, match="Cannot write"):
            call(path)
    with pytest.raises(bd.DataError, match=r"Line 1 of .* is damaged or is not a finished task"):
        call(foreign)
    assert foreign.read_text() == "student_params,student_tokens\n"


KILLED = """
import os, signal, sys
import test_checkpoints
calls = []
real = os.fsync
def fsync(handle):
    real(handle)
    calls.append(handle)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = fsync
test_checkpoints.CALLS[sys.argv[1]][0](sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayesdistill.ConvergenceWarning")
@pytest.mark.parametrize("name", CALLS)
def test_work_that_was_killed_is_resumed_exactly(name, tmp_path, monkeypatch):
    call, module, task = CALLS[name]
    path = tmp_path / "log.jsonl"
    folders = [str(Path(__file__).parent), *sys.path]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, name, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text().count("\n") == 1
    assert len(list(tmp_path.iterdir())) == 2  # and a temporary file
    whole = call(None)
    tasks, real = [], getattr(module, task)
    monkeypatch.setattr(module, task, lambda given: tasks.append(given) or real(given))
    numbers = {"seed": np.int64(0)}
    resumed = call(path, **numbers)
    count = len(tasks)
    assert path.read_text().count("\n") == count + 1
    assert list(tmp_path.iterdir()) == [path]
    xr.testing.assert_identical(resumed, whole)
    xr.testing.assert_identical(call(path), whole)
    assert len(tasks) == count
    with pytest.raises(bd.DataError, match="seed is 0 in the file and 1 in this call"):
        call(path, seed=1)
