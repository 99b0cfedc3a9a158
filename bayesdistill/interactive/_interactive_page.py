"""The page as a file and in a notebook."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from pathlib import Path

from bayesdistill.compute import PUBLISHED_SHAPE, Shape
from bayesdistill.decisions.arguments import Number
from bayesdistill.decisions.fitted_draws import Source, gather
from bayesdistill.files import replacing
from bayesdistill.interactive.contents import Settings, page_data
from bayesdistill.interactive.javascript import law_functions

_LAW_PLACE, _DATA_PLACE = "@@LAW@@", "@@DATA@@"


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
    """Write an HTML file with sliders that compares strategies, offline and without Python.

    The sliders set the student, the budget, the scenario and the number K of students that share the teacher. The page holds
    a thinned set of posterior draws. At every move it evaluates the law for these draws and optimizes the strategy, without
    interpolation. It supports laws with custom terms.

    Parameters
    ----------
    fit : DataTree or Dataset
        Result of `fit` or `load`, or a Dataset of draws of the law's symbols.
    path : path
        The file to create or replace.
    students : tuple of two float or str
        Range of the slider, non-embedding parameters.
    budgets : tuple of two float or str
        Range of the slider, FLOPs for one student.
    max_students_per_teacher : int
        Largest K. Each student is charged 1/K of the teacher's pretraining, delta_pre = 1/K.
    scenario : str
        Name of the initial cost scenario.
    draws : int
        Number of draws in the page, at least 20. With 200 draws the page takes about 100 kB, and the Monte Carlo standard error
        of a probability near one half is 0.035.
    min_teacher_params, max_teacher_params, max_teacher_tokens, max_student_tokens, shape
        As for `plan`.
    allow_unconverged : bool
        Accept a posterior that failed the convergence checks. The page then shows a warning in red.

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
    FileError
        If the file cannot be written.

    Notes
    -----
    The probability is `probability` of `plan`, for the chosen strategy: one teacher and one split of the budget for all draws, with
    the smallest mean loss. The table also shows the strategy with perfect information, which is optimal for each draw, and its
    probability (`probability_best` of `plan`). The extrapolation warning uses the rule of `plan`. The same inputs give the same
    bytes.

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
    """Show the page of `interactive_page` in a notebook.

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
        An object that a notebook displays, also after export to HTML.

    Raises
    ------
    ParameterError
        If an argument is invalid, or a term of the law uses an operation that cannot be translated to JavaScript.
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> bd.show_interactive(published)
    <interactive page; displayed in a notebook, written to a file by interactive_page(fit, path)>
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
        self.height = int(height)

    def __repr__(self) -> str:
        return "<interactive page; displayed in a notebook, written to a file by interactive_page(fit, path)>"

    def _repr_html_(self) -> str:
        style = f"width: 100%; height: {self.height}px; border: 0"
        return (
            f'<iframe title="Distill or pretrain?" sandbox="allow-scripts" style="{style}" '
            f'srcdoc="{html.escape(self.text, quote=True)}"></iframe>'
        )


def page_text(fit: Source, settings: Settings, allow_unconverged: bool) -> str:
    """Return the HTML of the page."""
    fitted = gather(fit, allow_unconverged)
    # JSON within a script element ends at "</" even inside quotes, so "<" must be escaped.
    data = json.dumps(page_data(fitted, settings), sort_keys=True, allow_nan=False)
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    template = files("bayesdistill.interactive").joinpath("template.html").read_text(encoding="utf-8")
    # The law comes first: the data hold text from files.
    return template.replace(_LAW_PLACE, law_functions(fitted.draws.law)).replace(_DATA_PLACE, data)
