"""Make the runs of the tiny experiment, one after another on each of two cores, at the lowest priority.

    python data/tiny/grid.py --workers 2
    touch data/tiny/work/PAUSE      # the workers wait, within a second or two, until the file is removed

Every finished run is one line of data/tiny/log.jsonl, on the disk before the next begins; finished runs are skipped. Ctrl-C or
SIGTERM stops it: runs in progress are saved in data/tiny/work/ and continue next time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from design import LOG, WORK, Run, checkpoint, grid, held_out, prospective, rate_check


def begin_worker(cores, stop) -> None:
    """Pin this process to a core of its own, at the lowest priority, before JAX starts its threads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    core = cores.get()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    begin_worker.stop = stop


def work(run: Run) -> dict | None:
    """Train one run in a worker; None if it was stopped."""
    from train import Stopped, train

    try:
        return train(run, begin_worker.stop.is_set)
    except Stopped:
        return None


def finished() -> set[str]:
    return {json.loads(line)["name"] for line in LOG.read_text().splitlines()} if LOG.exists() else set()


def append(row: dict) -> None:
    with LOG.open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def next_run(waiting: list[Run], busy: set[str]) -> Run | None:
    """The first run that can begin now; a teacher whose checkpoint is gone is made again before its first student."""
    for run in waiting:
        teacher = run.teacher_run
        if teacher is None or checkpoint(teacher).exists():
            return run
        if teacher.name not in busy:
            return teacher
    return None


def make(runs: list[Run], workers: int) -> None:
    """Make the runs that are not in the log, in their order."""
    done = finished()
    waiting = [run for run in runs if run.name not in done]
    total, pace = len(waiting), 1.0
    print(f"{len(runs) - total} runs are there, {total} to make", flush=True)
    (WORK / "partial").mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    stop, cores = context.Event(), context.Queue()
    here = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(workers))
    for worker in range(workers):
        cores.put(here[worker % len(here)])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with ProcessPoolExecutor(workers, context, begin_worker, (cores, stop)) as pool:
        busy: dict[Future, tuple[Run, float]] = {}
        while busy or (waiting and not stop.is_set()):
            while len(busy) < workers and not stop.is_set():
                run = next_run(waiting, {r.name for r, _ in busy.values()})
                if run is None:
                    break
                if run in waiting:
                    waiting.remove(run)
                busy[pool.submit(work, run)] = (run, time.time())
            for future in wait(busy, timeout=1, return_when=FIRST_COMPLETED).done:
                run, started = busy.pop(future)
                row = future.result()
                if row is None:
                    print(f"stopped and saved: {run.name}", flush=True)
                    continue
                if run.name in done:
                    print(f"made again for its students: {run.name}", flush=True)
                    continue
                append(row)
                done.add(run.name)
                pace += 0.1 * ((time.time() - started) / run.seconds - pace)
                left = pace * sum(r.seconds for r in [*waiting, *(r for r, _ in busy.values())]) / workers
                print(
                    f"{time.strftime('%H:%M:%S')} {total - len(waiting) - len(busy)}/{total} {run.name}: loss {row['loss']:.4f} "
                    f"in {row['wall_s']:.0f} s (cpu {row['cpu_s']:.0f} s); about {left / 3600:.1f} h left",
                    flush=True,
                )
    if stop.is_set():
        raise SystemExit(130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    others = parser.add_mutually_exclusive_group()
    for option, runs, text in (
        (
            "--held-out",
            held_out,
            "the held-out decision cells; only after the predictions for them have been committed",
        ),
        ("--prospective", prospective, "the cells of docs/studies/prospective.py; likewise"),
        ("--rate-check", rate_check, "the check of the learning rate at d128-8M"),
    ):
        others.add_argument(
            option, dest="runs", action="store_const", const=runs, default=grid, help=f"make {text}, not the grid"
        )
    args = parser.parse_args()
    make(args.runs(), args.workers)


if __name__ == "__main__":
    main()
