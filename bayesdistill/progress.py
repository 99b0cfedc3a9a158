"""Progress of long work: a bar where somebody looks, or the caller's own function."""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Report = Callable[[int, int], None]
Progress = bool | Report | None
"""A callable is told (done, in all); True draws a bar; None draws it in a terminal and in a notebook; False nothing."""

_LOOKS = "{desc}: {bar} {n_fmt}/{total_fmt}, {elapsed} gone, {remaining} left"
DELAY = 2.0  # seconds; what is done sooner needs no bar


@contextmanager
def reporting(progress: Progress, total: int, what: str) -> Iterator[Report]:
    """A callable that is told (done, in all).

    The bar is one line of text, which a terminal and a notebook show alike without widgets, and which goes when the work
    is done: nothing of it is stored in the notebook.

    Parameters
    ----------
    progress : bool, callable or None
    total : int
        Pieces of work. One piece gets no bar.
    what : str
        Words before the bar.
    """
    if callable(progress):
        yield progress
    elif total > 1 and (watched() if progress is None else progress):
        from tqdm.std import tqdm

        where = _Output() if "ipykernel" in sys.modules else None  # None: standard error
        looks: dict[str, Any] = {"delay": DELAY, "bar_format": _LOOKS, "dynamic_ncols": True, "leave": False}
        with tqdm(total=total, desc=what, file=where, **looks) as bar:

            def report(done: int, in_all: int) -> None:
                bar.total = in_all
                bar.update(done - bar.n)

            yield report
    else:
        yield lambda done, in_all: None


class _Output:
    """A file whose last line is one output of a notebook's cell."""

    def __init__(self) -> None:
        self.shown: Any = None

    def write(self, text: str) -> None:
        words = text.strip()
        # An empty output of text would leave a grey box on pages made of the notebook, one of HTML leaves nothing.
        line = {"text/plain": words, "text/html": f"<pre>{html.escape(words)}</pre>" if words else ""}
        if self.shown is not None:
            self.shown.update(line, raw=True)
        elif words:
            from IPython.display import display

            self.shown = display(line, raw=True, display_id=True)

    def flush(self) -> None:
        """Nothing waits."""


def watched() -> bool:
    """Whether somebody looks: a terminal, or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
