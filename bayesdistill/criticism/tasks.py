"""Run tasks sequentially or on an executor, with a progress bar and a log of the finished ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from pathlib import Path
from typing import Any

from bayesdistill.errors import DataError, ParameterError
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


def read_finished(log: str | Path | None, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results that earlier calls with the same settings wrote to a log: key -> result.

    Raises
    ------
    DataError
        If the file is not a log.
    """
    if log is None or not Path(log).exists():
        return {}
    done, text, ours = {}, Path(log).read_text(encoding="utf-8"), json.loads(json.dumps(setting))
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines) and not text.endswith("\n"):
                # An interrupted write. The task is repeated and written to a new line.
                Path(log).write_text(text + "\n", encoding="utf-8")
                break
            raise DataError(f"Line {number} of {log} is not JSON. Delete the line or use another file name.") from None
        if not isinstance(entry, dict) or not {"setting", "task", "result"} <= set(entry):
            raise DataError(
                f"Line {number} of {log} is not a finished task of this package. Use another file name, or delete the file."
            )
        if entry["setting"] == ours:
            done[entry["task"]] = entry["result"]
    return done


def keep_finished(log: str | Path | None, setting: Mapping[str, Any], key: str, result: Any) -> None:
    """Append a result to the log, as a line of JSON."""
    if log is not None:
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"setting": setting, "task": key, "result": result}) + "\n")


def run_missing(
    function: Callable[[Any], Any],
    tasks: Mapping[str, Any],
    setting: Mapping[str, Any],
    what: str,
    *,
    log: str | Path | None,
    executor: Executor | None,
    progress: Progress,
) -> dict[str, Any]:
    """Return the result of every task, from the log or by running it; write each new result to the log.

    Parameters
    ----------
    function, what, executor, progress
        As for `run_tasks`.
    tasks : mapping
        Key -> task.
    setting : mapping
        Everything else that the results depend on.
    log : path, optional
        File with one line per finished task. Lines of other settings are skipped.

    Raises
    ------
    DataError
        If the file is not a log.
    """
    done = read_finished(log, setting)
    missing = [key for key in tasks if key not in done]
    todo, finished = [tasks[key] for key in missing], len(tasks) - len(missing)
    for i, result in run_tasks(function, todo, executor=executor, progress=progress, done=finished, what=what):
        done[missing[i]] = result
        keep_finished(log, setting, missing[i], result)
    return {key: done[key] for key in tasks}
