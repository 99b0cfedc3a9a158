"""Run tasks sequentially or on an executor, with a progress bar and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from pathlib import Path
from typing import Any

from bayesdistill.errors import DataError, ParameterError
from bayesdistill.files import replacing
from bayesdistill.progress import Progress, reporting


def run_tasks(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    *,
    executor: Executor | None = None,
    progress: Progress = None,
    done: int = 0,
    what: str = "",
) -> Iterator[tuple[int, Any]]:
    """Yield (position, result) of every task, in order of completion.

    Parameters
    ----------
    function : callable
        Function of one task. An executor with processes requires a function defined in a module.
    tasks : sequence
    executor : concurrent.futures.Executor, optional
        By default, the tasks run sequentially in this process. An interrupt cancels tasks that have not started.
    progress : bool, callable or None
        A callable is called with (done, total). True shows a bar; None shows it in a terminal or notebook.
    done : int
        Number of tasks that an earlier call finished.
    what : str
        Description of the bar.

    Raises
    ------
    ParameterError
        If `executor` is not an executor.
    """
    if executor is not None and not hasattr(executor, "submit"):
        raise ParameterError(
            f"`executor` must be a concurrent.futures.Executor, got {type(executor).__name__}. For a Dask cluster, pass "
            "client.get_executor()."
        )
    total = done + len(tasks)
    with reporting(progress, total, what) as report:
        report(done, total)
        if executor is None:
            for i, task in enumerate(tasks):
                yield i, function(task)
                report(done + i + 1, total)
            return
        futures = {executor.submit(function, task): i for i, task in enumerate(tasks)}
        try:
            for count, future in enumerate(as_completed(futures), start=1):
                yield futures[future], future.result()
                report(done + count, total)
        finally:
            for future in futures:
                future.cancel()


def read_finished(checkpoint: str | Path | None, setting: dict[str, Any]) -> dict[str, Any]:
    """Return the finished results of an earlier call with the same settings: key -> result.

    Raises
    ------
    DataError
        If the file is not a checkpoint.
    """
    if checkpoint is None or not Path(checkpoint).exists():
        return {}
    try:
        kept = json.loads(Path(checkpoint).read_text(encoding="utf-8"))
        ours, finished = kept["setting"] == json.loads(json.dumps(setting)), dict(kept["finished"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{checkpoint} is not a checkpoint of this package. Use another file name, or delete the file."
        ) from error
    return finished if ours else {}


def keep_finished(checkpoint: str | Path | None, setting: dict[str, Any], finished: dict[str, Any]) -> None:
    """Write the finished results to the checkpoint, replacing the file atomically."""
    if checkpoint is not None:
        with replacing(Path(checkpoint)) as aside:
            aside.write_text(json.dumps({"setting": setting, "finished": finished}), encoding="utf-8")


def run_missing(
    function: Callable[[Any], Any],
    tasks: Mapping[str, Any],
    setting: dict[str, Any],
    what: str,
    *,
    checkpoint: str | Path | None,
    executor: Executor | None,
    progress: Progress,
) -> dict[str, Any]:
    """Return the result of every task, from the checkpoint or by running it; keep each new result in the checkpoint.

    Parameters
    ----------
    function, what, executor, progress
        As for `run_tasks`.
    tasks : mapping
        Key -> task.
    setting, checkpoint
        As for `read_finished`.
    """
    done = read_finished(checkpoint, setting)
    missing = [key for key in tasks if key not in done]
    todo = [tasks[key] for key in missing]
    for i, result in run_tasks(function, todo, executor=executor, progress=progress, done=len(done), what=what):
        done[missing[i]] = result
        keep_finished(checkpoint, setting, done)
    return done
