"""The main job on the published runs, end to end: what `bayesdistill demo` and `make demo` do."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.criticism import check, law_curves
from bayesdistill.datasets import load_runs
from bayesdistill.decisions import plan
from bayesdistill.errors import FileError
from bayesdistill.files import replacing
from bayesdistill.plots import plot_best_loss, plot_probability, plot_runs
from bayesdistill.sampling import fit, save
from bayesdistill.tables import plan_table, summary_table, table_text, write_table

STUDENTS = (3e8, 1e9, 3e9, 1e10)
BUDGETS = np.geomspace(1e19, 1e25, 25)


def run_demo(out: Path, *, seed: int = 0) -> None:
    """Fit the 354 published runs, plan, and leave fit, plan, figures and a summary in a folder.

    Parameters
    ----------
    out : Path
        Folder; made if it does not exist.
    seed : int
        Of the sampler.

    Raises
    ------
    FileError
        If the folder cannot be made.
    """
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {text}", flush=True)

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {out}: {error.strerror}") from error
    runs = load_runs("busbridge2025")
    say(f"{len(runs)} distilled runs of Busbridge et al. (2025); compiling and sampling the law")
    fitted = fit(runs, seed=seed)
    save(fitted, out / "fit.nc")
    say(check(fitted).verdict)
    say("planning: 4 students, 4 scenarios, 25 budgets, every draw")
    planned = plan(fitted, STUDENTS, BUDGETS)
    save(planned, out / "plan.nc")
    write_table(plan_table(planned), out / "plan.csv")
    say("drawing")
    for name, figure in (
        ("runs.png", plot_runs(law_curves(fitted), size="page")),
        ("probability.png", plot_probability(planned, size="page")),
        ("best_loss.png", plot_best_loss(planned, size="page")),
    ):
        with replacing(out / name) as aside:
            figure.savefig(aside, dpi=150)
    with replacing(out / "README.md") as aside:
        aside.write_text(summary_text(fitted, planned), encoding="utf-8")
    say("done")
    print()
    print(table_text(summary_table(planned)))
    print()
    for name in ("README.md", "fit.nc", "plan.nc", "plan.csv", "runs.png", "probability.png", "best_loss.png"):
        print(f"  {out / name}")


def _percent(value: float) -> str:
    if not np.isfinite(value):
        return "unknown"
    percent = 100 * value
    return "more than 99 %" if percent > 99 else "less than 1 %" if percent < 1 else f"{percent:.0f} %"


def _at(planned: xr.Dataset, scenario: str, budget: float) -> str:
    """Probabilities of all students at one budget, in words."""
    row = planned["probability"].sel(scenario=scenario).sel(budget=budget, method="nearest")
    sizes = [f"{size / 1e9:g}B" if size >= 1e9 else f"{size / 1e6:g}M" for size in planned["student"].values]
    words = [_percent(float(p)) for p in row.values]
    if len(set(words)) == 1:
        return f"{words[0]} for students of {', '.join(sizes)}"
    return ", ".join(f"{word} ({size})" for word, size in zip(words, sizes, strict=True))


def summary_text(fitted: xr.DataTree, planned: xr.Dataset) -> str:
    """The summary that the demo leaves beside its files: three sentences, then what the files are."""
    found = posterior.provenance(fitted)
    budget = 3e20
    near = float(planned["budget"].sel(budget=budget, method="nearest"))
    far = float(planned["budget"].max())
    inside = 100 * float((~planned["extrapolates"]).mean())
    lead = planned["expected_gain"].sel(scenario="best case", budget=far)
    sentences = (
        f"At a moderate budget of {near:.1e} FLOPs, distilling beats pretraining with probability "
        f"{_at(planned, 'best case', near)} if the teacher and its logits are already paid for, but with probability "
        f"{_at(planned, 'teacher pretraining + inference', near)} if this one student must pay for its teacher's pretraining "
        "and inference.",
        f"As the budget grows the lead of the best case shrinks to {float(lead.min()):+.4f} to {float(lead.max()):+.4f} nats "
        f"per token, and at {far:.0e} FLOPs distillation is ahead with probability {_at(planned, 'best case', far)}.",
        f"Only {inside:.0f} % of the grid of students, scenarios and budgets lies within what the runs have seen; the rest is "
        "marked as extrapolated, and at the largest budgets the answer owes more to the prior on the asymptotic advantage "
        f"({found['asymptotic_width']} nats wide) than to the runs.",
    )
    text = "\n\n".join(textwrap.fill(sentence, 118) for sentence in sentences)
    return f"""# What was found

{text}

| file | what it is |
| --- | --- |
| `fit.nc` | the posterior: `bayesdistill.load("fit.nc")`, an xarray DataTree for ArviZ |
| `plan.nc`, `plan.csv` | probability, gain, strategy and status for every student, scenario and budget |
| `runs.png` | the {found["data"]["distilled"]["runs"]} runs with the fitted law and its bands: the capacity gap |
| `probability.png` | the probability that distillation beats pretraining, against the budget |
| `best_loss.png` | best cross-entropy against compute, distilled and pretrained |

Seed {found["seed"]}, data sha256 {found["data"]["distilled"]["sha256"][:16]}, supervised law from: {found["supervised_law"]}.
"""
