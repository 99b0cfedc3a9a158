"""Sections that the docstrings of plots share."""

from __future__ import annotations

import inspect
from collections.abc import Callable

_SECTIONS = {
    "{size}": """\
size : {"column", "page", "slide"}
    A column of a two-column paper (3.4 inches wide), a page (7 inches) or a slide (13.3 by 7.5 inches).
dark : bool
    For dark backgrounds.""",
    "{prob}": """\
prob : float
    Probability inside the equal-tailed intervals.""",
    "{returns}": """\
Returns
-------
Figure""",
    "{raises}": """\
Raises
------
ParameterError
    If the Dataset lacks a variable, or there is no such size.""",
}


def documented[F: Callable[..., object]](plot: F) -> F:
    """Replace the placeholders in a docstring by the sections they name."""
    text = inspect.cleandoc(plot.__doc__ or "")
    for placeholder, section in _SECTIONS.items():
        text = text.replace(placeholder, section)
    plot.__doc__ = text
    return plot
