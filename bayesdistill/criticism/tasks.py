"""Run tasks sequentially or on an executor, with a progress bar and a log of the finished ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from pathlib import Path
from typing import Any

from bayesdistill.arguments import executor as check_executor
from bayesdistill.arguments import shown
from bayesdistill.errors import DataError, FileError
from bayesdistill.files import check_writable, target_of, write_file
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
    check_executor(executor, "executor")
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

    A last line that is only the beginning of a line of these settings is ignored, because its writer was interrupted.

    Raises
    ------
    DataError
        If the file is not a log, is damaged, or has other settings.
    FileError
        If the file cannot be read or written.
    """
    if log is None:
        return {}
    check_writable(log)
    path = target_of(log)
    done: dict[str, Any] = {}
    if not path.exists():
        return done
    start = _json({"setting": setting})[:-1]
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.decode(errors="replace")
                if not line.endswith(b"\n") and (text.startswith(start) or start.startswith(text)):
                    break
                done |= _finished(text, setting, f"Line {number} of {log}")
    except OSError as error:
        raise FileError(f"Cannot read {log}: {error.strerror}.") from error
    return done


def _finished(line: str, setting: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return key -> result of a line, or raise DataError."""
    try:
        entry = json.loads(line)
        whole = isinstance(entry["setting"], dict) and _line(entry["setting"], entry["task"], entry["result"]) == line
    except (ValueError, TypeError, LookupError, RecursionError):
        whole = False
    if not whole:
        raise DataError(
            f"{where} is damaged or is not a finished task of this package. Delete the line, or use another file name."
        )
    theirs, ours = ({name: _json(value) for name, value in each.items()} for each in (entry["setting"], setting))
    different = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if different:
        pairs = (
            (name, *(shown(each.get(name))[:100] for each in (entry["setting"], setting))) for name in different[:3]
        )
        values = "; ".join(f"{name} is {old} in the file and {new} in this call" for name, old, new in pairs)
        raise DataError(f"{where} has other settings: {values}. Use another file name, or delete the file.")
    return {entry["task"]: entry["result"]}


def keep_finished(log: str | Path | None, setting: Mapping[str, Any], done: Mapping[str, Any]) -> None:
    """Write all finished results to the log, a line of JSON each; done: key -> result."""
    if log is not None:
        write_file(log, "".join(_line(setting, key, result) for key, result in done.items()).encode(), keep=True)


def _line(setting: Mapping[str, Any], key: str, result: Any) -> str:
    """Return a line of a log, which ends with the digest of the rest."""
    entry = _json({"setting": setting, "task": key, "result": result})
    return f'{entry[:-1]}, "sha256": "{hashlib.sha256(entry.encode()).hexdigest()}"}}\n'


def _json(value: Any) -> str:
    return json.dumps(value, default=lambda other: other.tolist())  # of NumPy


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
        File with one line per finished task.

    Raises
    ------
    DataError
        If the file is not a log, is damaged, or has other settings.
    FileError
        If the file cannot be read or written.
    """
    done = read_finished(log, setting)
    missing = [key for key in tasks if key not in done]
    todo, finished = [tasks[key] for key in missing], len(tasks) - len(missing)
    for i, result in run_tasks(function, todo, executor=executor, progress=progress, done=finished, what=what):
        done[missing[i]] = result
        keep_finished(log, setting, done)
    return {key: done[key] for key in tasks}
