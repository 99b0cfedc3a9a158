"""End-to-end analysis of the published runs, for `bayesdistill demo` and `make demo`."""

from __future__ import annotations

import shutil
import textwrap
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import xarray as xr

import bayesdistill as bd
from bayesdistill.arguments import SEED
from bayesdistill.files import check_writable, make_folder, write_file
from bayesdistill.plots.grids import changes_note, level_note, undetermined_note
from bayesdistill.reporting import PAGE, answer_sentences, check_report, report_files, write_report

STUDENTS = (3e8, 1e9, 3e9, 1e10)
BUDGETS = np.geomspace(1e19, 1e25, 25)
FILES = ("README.md", PAGE, "fit.nc", "plan.nc", "plan.csv", "runs.png", "probability.png", "best_loss.png")
"""The main output files."""


def run_demo(out: Path, *, seed: int = 0) -> list[Path]:
    """Fit the 354 published runs, plan, and write fit, plan, figures and a summary to a folder.

    Parameters
    ----------
    out : Path
        Output folder, created if it does not exist.
    seed : int
        Random seed of the sampler.

    Returns
    -------
    list of Path
        The main output files.

    Raises
    ------
    FileError
        If the folder cannot be created or written to.
    """
    seed = SEED(seed, "seed")
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {text}", flush=True)

    check_report(out)
    for name in FILES:
        check_writable(out / name, parents=True)
    out = make_folder(out)
    runs = bd.load_runs("busbridge2025")
    say(f"{len(runs)} distilled runs of Busbridge et al. (2025); compiling and sampling the law")
    fitted = bd.fit(runs, seed=seed)
    bd.save(fitted, out / "fit.nc")
    say(bd.check(fitted).verdict)
    say("planning: 4 students, 4 scenarios, 25 budgets")
    planned = bd.plan(fitted, STUDENTS, BUDGETS)
    bd.save(planned, out / "plan.nc")
    bd.write_table(bd.plan_table(planned), out / "plan.csv")
    say("drawing")
    curves = bd.law_curves(fitted)
    figures = {
        "runs.png": bd.plot_runs(curves, size="page"),
        "probability.png": bd.plot_probability(planned, size="page"),
        "best_loss.png": bd.plot_best_loss(planned, size="page"),
    }
    for name, figure in figures.items():
        figure.savefig(out / name, dpi=150)
    say("writing the report")
    write_report(report_files(fitted, planned, curves=curves), out)
    write_file(out / "README.md", summary_text(fitted, planned).encode())
    say("done")
    written = [out / name for name in FILES]
    level = " ".join([*level_note(planned), *undetermined_note(planned), *changes_note(planned)])
    print(
        f"\n{bd.table_text(bd.summary_table(planned), width=shutil.get_terminal_size().columns)}\n\n{level}\n",
        *(f"  {path}" for path in written),
        sep="\n",
    )
    return written


def summary_text(fitted: xr.DataTree, planned: xr.Dataset) -> str:
    """Return the summary of the demo: three sentences and a list of the files."""
    found = bd.provenance(fitted)
    answer = "\n\n".join(textwrap.fill(sentence, 118) for sentence in answer_sentences(fitted, planned))
    template = files("bayesdistill").joinpath("demo.md").read_text(encoding="utf-8")
    return template.format(answer=answer, page=PAGE, data=found["data"]["distilled"], found=found)
