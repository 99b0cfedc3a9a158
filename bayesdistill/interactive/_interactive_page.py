"""The page as a file and in a notebook."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from pathlib import Path
from typing import Unpack

from bayesdistill import arguments
from bayesdistill.decisions.arguments import Number
from bayesdistill.decisions.planning import Noise, Planner, Source, StrategyBounds, planner_of, with_options
from bayesdistill.files import check_writable, write_file
from bayesdistill.interactive.contents import Sliders, page_data
from bayesdistill.interactive.javascript import (
    cost_functions,
    deviation_function,
    law_functions,
    price_functions,
    teacher_functions,
)


class PageOptions(StrategyBounds, Noise, total=False):
    """Options of the page."""


@with_options
def interactive_page(
    fit: Source,
    path: str | Path,
    *,
    students: tuple[Number, Number] = ("100M", "30B"),
    budgets: tuple[Number, Number] = (1e19, 1e25),
    max_students_per_teacher: int = 1000,
    scenario: str | None = None,
    draws: int = 200,
    **options: Unpack[PageOptions],
) -> Path:
    """Write an HTML file with sliders that compares strategies, offline and without Python.

    The sliders set the student, the budget, the scenario and the number K of students that share the teacher. Fields take an existing
    teacher, prices, tokens served and a target loss. The page holds a thinned set of posterior draws. At every move it evaluates the
    law for these draws and optimizes the strategy, without interpolation. It supports laws with custom terms.

    Parameters
    ----------
    path : path
        The file to create or replace.
    students : tuple of two float or str
        Range of the slider, non-embedding parameters.
    budgets : tuple of two float or str
        Range of the slider, FLOPs for one student.
    max_students_per_teacher : int
        Largest K. Each student is charged 1/K of the teacher's pretraining, delta_pre = 1/K.
    scenario : str, optional
        Name of the first cost scenario. By default, the one whose probability varies most with the budget; the first budget is the one
        with a probability close to one half.
    draws : int
        Number of draws in the page, at least 20. With 200 draws the page takes about 100 kB (400 kB if the law has a discrepancy), and
        the Monte Carlo standard error of a probability near one half is 0.035.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ParameterError
        If an argument is invalid, or a term of the law uses an operation that cannot be translated to JavaScript.
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False.
    ConflictError
        If the runs contradict the supervised law, as runs of another corpus do, and `allow_conflict` is False.
    FileError
        If the file cannot be written.

    Notes
    -----
    The probability is `probability` of `plan` at the level of uncertainty `noise`, which the page names, for the chosen strategy: one
    teacher and one split of the budget for all draws, with the smallest mean loss. The table also shows the strategy with perfect
    information, which is optimal for each draw, and its probability (`probability_best` of `plan`). The extrapolation warning uses the
    rule of `plan`. The same inputs give the same bytes.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import pathlib, tempfile, xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     bd.interactive_page(published, pathlib.Path(folder) / "page.html").name
    'page.html'
    """
    check_writable(path)
    sliders = Sliders(students, budgets, max_students_per_teacher, scenario, draws)
    text = page_text(planner_of(interactive_page, fit, options), sliders)
    write_file(path, text.encode())
    return Path(path).expanduser()


class ShownPage:
    """A page in a frame, so that its style sheet does not affect the notebook.

    Parameters
    ----------
    text : str
        HTML of the page.
    height : int
        Height of the frame in pixels.
    """

    def __init__(self, text: str, height: int) -> None:
        self.text = text
        self.height = arguments.Range(50, 100_000, "pixels", whole=True)(height, "height")

    def __repr__(self) -> str:
        return "<interactive page; displayed in a notebook, written to a file by interactive_page(fit, path)>"

    def _repr_html_(self) -> str:
        style = f"width: 100%; height: {self.height}px; border: 0"
        return (
            f'<iframe title="Distill or pretrain?" sandbox="allow-scripts" style="{style}" '
            f'srcdoc="{html.escape(self.text, quote=True)}"></iframe>'
        )


@with_options
def show_interactive(
    fit: Source,
    *,
    students: tuple[Number, Number] = ("100M", "30B"),
    budgets: tuple[Number, Number] = (1e19, 1e25),
    max_students_per_teacher: int = 1000,
    scenario: str | None = None,
    draws: int = 200,
    height: int = 1050,
    **options: Unpack[PageOptions],
) -> ShownPage:
    """Show the page of `interactive_page` in a notebook.

    Parameters
    ----------
    students, budgets, max_students_per_teacher, scenario, draws
        As for `interactive_page`.
    height : int
        Height of the frame in pixels.

    Returns
    -------
    ShownPage
        An object that a notebook displays, also after export to HTML.

    Raises
    ------
    ParameterError
        If an argument is invalid, or a term of the law uses an operation that cannot be translated to JavaScript.
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False.
    ConflictError
        If the runs contradict the supervised law, as runs of another corpus do, and `allow_conflict` is False.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> bd.show_interactive(published)
    <interactive page; displayed in a notebook, written to a file by interactive_page(fit, path)>
    """
    sliders = Sliders(students, budgets, max_students_per_teacher, scenario, draws)
    return ShownPage(page_text(planner_of(show_interactive, fit, options), sliders), height)


def page_text(planner: Planner, sliders: Sliders) -> str:
    """Return the HTML of the page."""
    # JSON within a script element ends at "</" even inside quotes, so "<" must be escaped.
    data = json.dumps(page_data(planner, sliders), sort_keys=True, allow_nan=False)
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    template = files("bayesdistill.interactive").joinpath("template.html").read_text(encoding="utf-8")
    # The law comes first: the data hold text from files.
    draws = planner.fitted.draws
    law = [law_functions(draws.law)] + ([deviation_function(draws)] if planner.level != "law" else [])
    strategy = "\n".join([cost_functions(planner.shape), price_functions(), teacher_functions()])
    parts = {"@@STRATEGY@@": strategy, "@@LAW@@": "\n".join(law), "@@DATA@@": data}
    for mark, part in parts.items():
        template = template.replace(mark, part)
    return template
