"""What decision functions return: a Dataset that displays as a table."""

from __future__ import annotations

import xarray as xr


class Answer(xr.Dataset):
    """A Dataset in every respect but its display: in a notebook and in a terminal it is shown as a table for people.

    Part of an answer, such as one student of a plan, is shown as a table as well, if all is there that the table needs;
    otherwise as xarray shows it. Files hold the plain Dataset.

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
        from bayesdistill.tables import display_text

        shown = display_text(self)
        return super().__repr__() if shown is None else shown

    __str__ = __repr__

    def _repr_html_(self) -> str:
        from bayesdistill.tables import display_html

        shown = display_html(self, super()._repr_html_())
        return super()._repr_html_() if shown is None else shown
