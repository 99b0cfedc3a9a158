"""The page as a file, and the same page in a notebook."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from pathlib import Path

from bayesdistill.compute import PUBLISHED_SHAPE, Shape
from bayesdistill.decisions.arguments import Number
from bayesdistill.decisions.evidence import Source, gather
from bayesdistill.files import replacing
from bayesdistill.interactive.contents import Settings, page_data

_PLACE = "@@DATA@@"


def interactive_page(
    fit: Source,
    path: str | Path,
    *,
    students: tuple[Number, Number] = ("100M", "30B"),
    budgets: tuple[Number, Number] = (1e19, 1e25),
    max_students_per_teacher: int = 1000,
    scenario: str = "teacher pretraining + inference",
    draws: int = 200,
    min_teacher_params: Number = 1e6,
    max_teacher_params: Number = 1e12,
    max_teacher_tokens: Number = 2e13,
    max_student_tokens: Number | None = None,
    shape: Shape = PUBLISHED_SHAPE,
    allow_unconverged: bool = False,
) -> Path:
    """Write one HTML file with sliders that answers from the posterior draws, offline and without Python.

    Student, budget, scenario and the number K of students that share the teacher can be moved. The page holds a thinned
    set of draws, evaluates the law for each and searches the strategies, so that between the steps of the sliders
    nothing is interpolated.

    Parameters
    ----------
    fit : DataTree or Dataset
        What `fit` returned or `load` read, or a Dataset of draws of the law's parameters.
    path : path
        The file to make or replace.
    students : tuple of two float or str
        Ends of the slider, non-embedding parameters.
    budgets : tuple of two float or str
        Ends of the slider, FLOPs for one student.
    max_students_per_teacher : int
        Largest K. Each student is charged 1/K of the teacher's pretraining, delta_pre = 1/K.
    scenario : str
        Name of the scenario that is chosen at first.
    draws : int
        How many draws the page holds, at least 20. 200 take about 60 kB; the Monte-Carlo standard error of a probability
        near one half is then 0.035.
    min_teacher_params, max_teacher_params, max_teacher_tokens, max_student_tokens, shape
        As for `plan`.
    allow_unconverged : bool
        Use a posterior that failed its convergence gates; the page says so in red.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ParameterError
        If an argument is unusable.
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False.
    FileError
        If the file cannot be written.

    Notes
    -----
    The probability is that of `plan`: the one of the committed strategy, one teacher and one split for all draws, with the
    smallest mean loss. Beside it stand the best strategy of each draw, and its probability (`probability_best` of `plan`).
    The extrapolation warning follows `plan` too. Same inputs give the same bytes.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import pathlib, tempfile, xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     bd.interactive_page(published, pathlib.Path(folder) / "page.html").name
    'page.html'
    """
    settings = Settings(
        students,
        budgets,
        max_students_per_teacher,
        scenario,
        draws,
        min_teacher_params,
        max_teacher_params,
        max_teacher_tokens,
        max_student_tokens,
        shape,
    )
    text = page_text(fit, settings, allow_unconverged)
    with replacing(path) as aside:
        aside.write_bytes(text.encode())
    return Path(path)


def show_interactive(
    fit: Source,
    *,
    students: tuple[Number, Number] = ("100M", "30B"),
    budgets: tuple[Number, Number] = (1e19, 1e25),
    max_students_per_teacher: int = 1000,
    scenario: str = "teacher pretraining + inference",
    draws: int = 200,
    min_teacher_params: Number = 1e6,
    max_teacher_params: Number = 1e12,
    max_teacher_tokens: Number = 2e13,
    max_student_tokens: Number | None = None,
    shape: Shape = PUBLISHED_SHAPE,
    allow_unconverged: bool = False,
    height: int = 1050,
) -> ShownPage:
    """The page of `interactive_page`, live in a notebook.

    Parameters
    ----------
    fit, students, budgets, max_students_per_teacher, scenario, draws
        As for `interactive_page`.
    min_teacher_params, max_teacher_params, max_teacher_tokens, max_student_tokens, shape, allow_unconverged
        As for `interactive_page`.
    height : int
        Height of the frame in pixels.

    Returns
    -------
    ShownPage
        What a notebook shows when it is the last line of a cell, or when it is given to `display`. It works in an exported
        notebook too.

    Raises
    ------
    ParameterError
        If an argument is unusable.
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> bd.show_interactive(published)
    <interactive page; shown in a notebook, written to a file by interactive_page(fit, path)>
    """
    settings = Settings(
        students,
        budgets,
        max_students_per_teacher,
        scenario,
        draws,
        min_teacher_params,
        max_teacher_params,
        max_teacher_tokens,
        max_student_tokens,
        shape,
    )
    return ShownPage(page_text(fit, settings, allow_unconverged), height)


class ShownPage:
    """A page in a frame of its own, so that its style and that of the notebook leave each other alone.

    Parameters
    ----------
    text : str
        The whole page.
    height : int
        Pixels.
    """

    def __init__(self, text: str, height: int) -> None:
        self.text = text
        self.height = int(height)

    def __repr__(self) -> str:
        return "<interactive page; shown in a notebook, written to a file by interactive_page(fit, path)>"

    def _repr_html_(self) -> str:
        style = f"width: 100%; height: {self.height}px; border: 0"
        return (
            f'<iframe title="Distil or pretrain?" sandbox="allow-scripts" style="{style}" '
            f'srcdoc="{html.escape(self.text, quote=True)}"></iframe>'
        )


def page_text(fit: Source, settings: Settings, allow_unconverged: bool) -> str:
    """The page of a fit."""
    template = files("bayesdistill.interactive").joinpath("template.html").read_text(encoding="utf-8")
    # JSON within a script element ends at "</" whatever it is quoted in, so that no "<" may stand there.
    data = json.dumps(page_data(gather(fit, allow_unconverged), settings), sort_keys=True, allow_nan=False)
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return template.replace(_PLACE, data)
