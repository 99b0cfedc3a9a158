"""What decision functions return: a Dataset with a hook for its display.

Nothing here knows how an answer is displayed. `tables` registers its displays, and the package's metadata names it as entry point of
the group "bayesdistill.display", which is loaded when an answer is displayed for the first time.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

import xarray as xr

ENTRY_POINTS = "bayesdistill.display"
_displays: dict[str, Callable[..., str | None]] = {}


def register_display(text: Callable[[xr.Dataset], str | None], html: Callable[[xr.Dataset, str], str | None]) -> None:
    """Register how answers are displayed.

    Parameters
    ----------
    text : callable
        Answer -> text for a terminal; None to display it as xarray does.
    html : callable
        (answer, xarray's HTML) -> HTML for a notebook; None to display it as xarray does.
    """
    _displays.update(text=text, html=html)


def _display(kind: str, *arguments: object) -> str | None:
    if not _displays:
        for point in entry_points(group=ENTRY_POINTS):
            point.load()
    return _displays[kind](*arguments) if kind in _displays else None


class Answer(xr.Dataset):
    """A Dataset that a notebook and a terminal display as a table.

    Part of an answer, such as one student of a plan, is displayed as a table as well, if it contains everything that the table
    needs; otherwise as xarray displays it. Files hold the plain Dataset.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> plan = bd.plan(published, "1B", [1e20, 1e21], "best case")
    >>> print(str(plan).splitlines()[0])
    Probability that distillation beats pretraining
    """

    __slots__ = ()

    def __repr__(self) -> str:
        shown = _display("text", self)
        return super().__repr__() if shown is None else shown

    __str__ = __repr__

    def _repr_html_(self) -> str:
        dataset = super()._repr_html_()
        shown = _display("html", self, dataset)
        return dataset if shown is None else shown
