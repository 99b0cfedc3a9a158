"""Long work in pieces: here or on an executor, with a bar where somebody looks, and nothing finished that is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
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
    """(position, result) of every task, in the order in which they finish.

    Parameters
    ----------
    function : callable
        Of one task; for an executor of processes a function of a module.
    tasks : sequence
    executor : concurrent.futures.Executor, optional
        By default the tasks are done here, one after the other. An interrupt cancels what has not begun.
    progress : bool, callable or None
        A callable is told (done, in all); True draws a bar; None draws it in a terminal and in a notebook.
    done : int
        Tasks that an earlier call has finished; they count as done.
    what : str
        Words of the bar.

    Raises
    ------
    ParameterError
        If executor is none.
    """
    if executor is not None and not hasattr(executor, "submit"):
        raise ParameterError(
            f"executor is a {type(executor).__name__}; give a concurrent.futures.Executor, "
            "for a Dask cluster client.get_executor()"
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
    """What an earlier call with the same setting has finished: key -> result, empty if there is none.

    Raises
    ------
    DataError
        If the file is no checkpoint.
    """
    if checkpoint is None or not Path(checkpoint).exists():
        return {}
    try:
        kept = json.loads(Path(checkpoint).read_text(encoding="utf-8"))
        ours, finished = kept["setting"] == json.loads(json.dumps(setting)), dict(kept["finished"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{checkpoint} is not a checkpoint of this package; name another file, or remove it") from error
    return finished if ours else {}


def keep_finished(checkpoint: str | Path | None, setting: dict[str, Any], finished: dict[str, Any]) -> None:
    """Write what is finished, aside and renamed, so that an interrupted call goes on from it."""
    if checkpoint is not None:
        with replacing(Path(checkpoint)) as aside:
            aside.write_text(json.dumps({"setting": setting, "finished": finished}), encoding="utf-8")
