"""Create reports.

All files are created in memory first, so an error does not change existing files.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import xarray as xr

from bayesdistill import posterior
from bayesdistill.criticism import check, law_curves
from bayesdistill.decisions.pairing import paired
from bayesdistill.decisions.planning import Source, fit_of
from bayesdistill.errors import ParameterError
from bayesdistill.files import check_writable, make_folder, write_file
from bayesdistill.plots.grids import need
from bayesdistill.posterior import Fit
from bayesdistill.progress import Progress, reporting
from bayesdistill.reporting import content, first_page
from bayesdistill.reporting import sentences as words
from bayesdistill.reporting._cite import cite
from bayesdistill.reporting._methods_text import methods_text
from bayesdistill.tables import latex, markdown, readable

PAGE = "report.html"
_STEPS = 6  # until the number of figures is known


def report(
    fit: Source,
    plan: xr.Dataset | None = None,
    *,
    folder: str | Path = "report",
    date: str | None = None,
    one_page: bool = False,
    progress: Progress = None,
) -> Path:
    """Write a report: a self-contained HTML page, and its tables and figures as files.

    Parameters
    ----------
    fit : DataTree, Dataset or Planner
        Result of `fit`. If the posterior did not converge, the report has a warning banner.
    plan : Dataset, optional
        Result of `plan` for this fit, of `family_plan`, or of `compute_optimal`, which is the plan of pretraining alone.
    folder : str or Path
        Output folder for report.html, the tables as .tex and .md, and the figures as .pdf and .png. It is created if it does not
        exist.
    date : str, optional
        Date of the page. By default, the current date (UTC). The rest of the report only depends on `fit` and `plan`.
    one_page : bool
        Whether to write only the first page, which has the answer of `plan`, one figure, one table and caveats, as report.html. It
        prints to one sheet of A4 or letter paper.
    progress : bool or callable, optional
        True shows a progress bar, None (the default) shows it in a terminal or a notebook, False shows nothing. A callable
        receives (finished steps, total steps).

    Returns
    -------
    Path
        Path of the page.

    Raises
    ------
    FileError
        If the folder cannot be created or written to.
    ModelError
        If `fit` is not a fit.
    ParameterError
        If `plan` is not a plan, or was computed from another fit, or if there is no plan for one page.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> bd.report(bd.load("fit.nc"), bd.load("plan.nc"), folder="report")  # doctest: +SKIP
    """
    check_report(folder)
    return write_report(report_files(fit_of(fit), plan, date=date, one_page=one_page, progress=progress), folder)


def report_files(
    fit: Fit,
    plan: xr.Dataset | None = None,
    *,
    date: str | None = None,
    one_page: bool = False,
    curves: xr.Dataset | None = None,
    progress: Progress = False,
) -> dict[str, bytes]:
    """Return the files of a report, path within its folder -> content.

    Arguments and errors are the same as for `report`. Pass `curves`, the result of `law_curves(fit)`, to avoid recomputing them.
    """
    posterior.law_draws(fit)
    if plan is not None:
        plan = _checked_plan(fit, plan)
    if curves is not None:
        paired(fit, curves, "result of law_curves")
    if one_page and plan is None:
        raise ParameterError(
            "A report of one page requires a plan. Pass the result of bd.plan, bd.family_plan or bd.compute_optimal."
        )
    optimal = plan if plan is not None and (_is_optimal(plan) or content.is_family(plan)) else None
    plan = None if optimal is not None else plan
    files: dict[str, bytes] = {}
    with reporting(progress, _STEPS, "report") as done:
        done(0, _STEPS)
        found = check(fit)
        done(1, _STEPS)
        if (
            curves is None
            and not one_page
            and "student_params" in posterior.seen_runs(fit)
            and posterior.is_distilled(fit)
        ):
            curves = law_curves(fit)
        tables = content.tables_of(fit, plan, found.rows, optimal)
        figures = content.figures_of(plan, curves, optimal)
        if one_page:
            tables = {name: frame for name, frame in tables.items() if name == "optimal"}
            figures = dict(list(figures.items())[:1])
        for name, frame in tables.items():
            files[f"tables/{name}.tex"] = latex(frame).encode()
            files[f"tables/{name}.md"] = markdown(frame).encode()
        for step, (name, figure) in enumerate(figures.items(), start=2):
            done(step, len(figures) + 2)
            for form in ("png", "pdf"):
                files[f"figures/{name}.{form}"] = content.drawn(figure, form)
        done(len(figures) + 2, len(figures) + 2)
    pictures = {name: base64.b64encode(files[f"figures/{name}.png"]).decode() for name in figures}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bayesdistill.reporting", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.j2").render(
        date=datetime.now(UTC).strftime("%Y-%m-%d") if date is None else date,
        heading="Distill or pretrain?"
        if posterior.is_distilled(fit) and (optimal is None or content.is_family(optimal))
        else "Compute-optimal pretraining",
        question=words.question(plan, optimal),
        sentences=_sentences(fit, plan, optimal),
        one_page=one_page,
        first=_first(fit, plan, optimal),
        meanings=[]
        if plan is None
        else [(str(name), first_page.meaning(str(name))) for name in plan["scenario"].values],
        verdict=found.verdict,
        methods=methods_text(fit).split("\n\n"),
        bibtex=cite(fit),
        tables={name: readable(frame) for name, frame in tables.items()},
        pictures=pictures,
        provenance=posterior.provenance(fit),
        draws_hash=posterior.identity(fit),
        unusable=found.ok is False,
        **words.warnings_and_notes(fit, plan if optimal is None else optimal, found),
    )
    return {PAGE: page.encode(), **({} if one_page else files)}


def _first(fit: Fit, plan: xr.Dataset | None, optimal: xr.Dataset | None) -> dict[str, Any] | None:
    """Return what the first page has; None for a fit alone, and for pretraining alone, which have sentences."""
    if optimal is not None and content.is_family(optimal):
        return {
            "headline": str(optimal.attrs["sentence"]),
            "table": first_page.family_rows(optimal),
            "selection": "",
            "caveats": first_page.caveats(fit, optimal),
        }
    if plan is None:
        return None
    table = first_page.rows(plan)
    return {
        "headline": first_page.headline(plan),
        "table": table,
        "selection": first_page.selection(plan, len(table)),
        "caveats": first_page.caveats(fit, plan),
    }


def _is_optimal(plan: xr.Dataset) -> bool:
    return "size_exponent" in plan


def _sentences(fit: Fit, plan: xr.Dataset | None, optimal: xr.Dataset | None) -> tuple[str, ...]:
    if optimal is not None and content.is_family(optimal):
        return (str(optimal.attrs["sentence"]),)
    if optimal is not None:
        return words.optimal_sentences(optimal)
    return words.fit_sentences(fit) if plan is None else words.answer_sentences(fit, plan)


def check_report(folder: str | Path) -> None:
    """Raise an error if a report cannot be written to a folder, which need not exist."""
    for name in (PAGE, "tables/parameters.md", "figures/runs.png"):
        check_writable(f"{folder}/{name}", parents=True)


def write_report(files: Mapping[str, bytes], folder: str | Path) -> Path:
    """Write the result of `report_files`; each file is replaced atomically."""
    folder = make_folder(folder)
    for name, data in files.items():
        make_folder((folder / name).parent)
        write_file(folder / name, data)
    return folder / PAGE


def _checked_plan(fit: Fit, plan: xr.Dataset) -> xr.Dataset:
    if not isinstance(plan, xr.Dataset):
        raise ParameterError(f"`plan` must be a Dataset returned by `bd.plan`, got {type(plan).__name__}.")
    if content.is_family(plan):
        return paired(fit, plan)
    if _is_optimal(plan):
        need(plan, ["params", "tokens", "loss", "regret", "budget"], "the plan", "compute_optimal()")
        return paired(fit, plan)
    need(plan, ["probability", "crossover", "extrapolates", "student", "scenario", "budget"], "the plan", "plan()")
    return paired(fit, plan)
