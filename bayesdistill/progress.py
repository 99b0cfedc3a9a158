"""Progress bars, and progress callbacks."""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Report = Callable[[int, int], None]
Progress = bool | Report | None
"""A callable is called with (done, total). True shows a bar, False does not, and None shows it in a terminal or notebook."""

_FORMAT = "{desc}: {bar} {n_fmt}/{total_fmt}, {elapsed} elapsed, {remaining} left"
DELAY = 2.0  # seconds; shorter tasks show no bar


@contextmanager
def reporting(progress: Progress, total: int, what: str) -> Iterator[Report]:
    """Yield a callable that reports progress as (done, total).

    The bar is one line of text in a terminal or notebook and does not require widgets. It is removed at the end, so it is not stored
    in the notebook.

    Parameters
    ----------
    progress : bool, callable or None
    total : int
        Number of tasks. A single task shows no bar.
    what : str
        Description of the bar.
    """
    if callable(progress):
        yield progress
    elif total > 1 and (watched() if progress is None else progress):
        from tqdm.std import tqdm

        where = _Output() if "ipykernel" in sys.modules else None  # None: standard error
        options: dict[str, Any] = {"delay": DELAY, "bar_format": _FORMAT, "dynamic_ncols": True, "leave": False}
        with tqdm(total=total, desc=what, file=where, **options) as bar:

            def report(done: int, in_all: int) -> None:
                bar.total = in_all
                bar.update(done - bar.n)

            yield report
    else:
        yield lambda done, in_all: None


class _Output:
    """File object that displays its last line as one output of a notebook cell."""

    def __init__(self) -> None:
        self.shown: Any = None

    def write(self, text: str) -> None:
        words = text.strip()
        # In rendered notebooks, empty text output is displayed as a gray box; empty HTML is not.
        line = {"text/plain": words, "text/html": f"<pre>{html.escape(words)}</pre>" if words else ""}
        if self.shown is not None:
            self.shown.update(line, raw=True)
        elif words:
            from IPython.display import display

            self.shown = display(line, raw=True, display_id=True)

    def flush(self) -> None:
        """Do nothing, because output is not buffered."""


def watched() -> bool:
    """Return whether the output is displayed in a terminal or notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
