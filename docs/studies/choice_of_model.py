"""Scores of the candidate models on unseen teachers, unseen students and the paper's extrapolation.

    python docs/studies/choice_of_model.py FOLDER [--draws 400] [--share 0 1] [--quick]

Prints the tables of explanation/choice_of_model.md and of the CSV files in explanation/choice_of_model. Finished folds are kept in
FOLDER. `--share 0 2` and `--share 1 2` score every second model, for two processes on one folder; a run without it then finds all
folds and prints all tables.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import arviz as az
import numpy as np
from candidates import Candidate, candidate_models
from common import parser, row, table

import bayesdistill as bd
from bayesdistill.criticism._leave_out import SPLITS, priors_of

DEFAULT = "tied exponents, student effects and slopes"
COLUMNS = {
    # The headings are short, so that the table fits a page.
    "elpd": ("elpd", "{:.0f}"),
    "elpd_difference": ("to best", "{:.0f}"),
    "standard_error": ("SE", "{:.0f}"),
    "crps": ("crps", "{:.4f}"),
    "rmse": ("rmse", "{:.4f}"),
    "coverage_50": ("in 50%", "{:.2f}"),
    "coverage_90": ("in 90%", "{:.2f}"),
    "unconverged": ("failed", "{:.0f}"),
}
EFFECTS = ", student effects and slopes"
STEPS = {
    "w1 (no group effects)": ("weak teachers", "eq. 8"),
    "slopes of student effects": (DEFAULT, "tied exponents, student effects"),
    "kappa": ("soft targets" + EFFECTS, "weak teachers" + EFFECTS),
    "kappa, with omega = 1": ("reducible ratio" + EFFECTS, "reducible ratio alone" + EFFECTS),
    "omega = 1": ("reducible ratio" + EFFECTS, "soft targets" + EFFECTS),
    "omega free instead": ("reducible ratio" + EFFECTS + ", omega free", "reducible ratio" + EFFECTS),
    "tied exponents": (DEFAULT, "reducible ratio" + EFFECTS),
    "no asymptotic prior, equation 8": ("eq. 8, no asymptotic prior", "eq. 8"),
    "no asymptotic prior, w1": ("weak teachers" + EFFECTS + ", no asymptotic prior", "weak teachers" + EFFECTS),
    "no asymptotic prior, w1 and kappa": ("soft targets" + EFFECTS + ", no asymptotic prior", "soft targets" + EFFECTS),
    "no asymptotic prior, default": (DEFAULT + ", no asymptotic prior", DEFAULT),
}
"""What is added to a model -> the model with it and the model without it; by default with student effects and slopes."""


def main(arguments: list[str] | None = None) -> None:
    command = parser(__doc__, folder=True)
    command.add_argument("--draws", type=int, default=500)
    command.add_argument("--share", type=int, nargs=2, default=(0, 1), metavar=("SHARE", "OF"))
    chosen = command.parse_args(arguments)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    runs = bd.load_runs("busbridge2025")
    models = candidate_models()
    splits, sampler = ("paper", "student", "teacher"), {"draws": chosen.draws}
    if chosen.quick:
        runs, splits, sampler = runs.iloc[::9].reset_index(drop=True), ("paper",), {"draws": 60, "tune": 100}
        models = {name: models[name] for name in (DEFAULT, "Huber point fit")}
    share, of = chosen.share
    models = dict(list(models.items())[share::of])
    results = {split: {} for split in splits}
    alone = []
    for name, model in models.items():
        short = name.replace(" ", "_").replace(",", "").replace(".", "")
        for split in splits:
            started = time.monotonic()
            results[split][name] = bd.leave_out(
                runs,
                split,
                model.law,
                prior_settings=model.prior_settings,
                checkpoint=chosen.folder / f"{split}-{short}.json",
                progress=False,
                **sampler,
            )
            print(f"{name}, {split}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        if not callable(model.law):
            fit = fitted(runs, model, chosen.folder / f"fit-{short}.nc", {} if not chosen.quick else sampler)
            loo = az.loo(fit, var_name="student_loss", pointwise=True)
            numbers = bd.check(fit).numbers
            high = int((loo.pareto_k > 0.7).sum())
            alone.append((loo.elpd, loo.se, high, numbers["rhat"], numbers["ess_bulk"], numbers["divergences"], name))
    heads, formats = zip(*COLUMNS.values(), strict=True)
    for split in sorted(splits, key=SPLITS.index):
        scores = bd.score_table(results[split], include_failed=True)[list(COLUMNS)]
        rows = []
        for name, one in scores.iterrows():
            rows.append((name, *(form.format(value) for form, value in zip(formats, one, strict=True))))
        print(f"\n{split}\n\n{table(('model', *heads), rows)}")
    if of == 1 and not chosen.quick:
        print("\nagainst the default\n")
        print(table(("model", *SPLITS), (differences(results, name, name, DEFAULT) for name in models)))
        print("\none step at a time\n")
        print(table(("what is added", *SPLITS), (differences(results, name, *two) for name, two in STEPS.items())))
    print("\nsingle runs\n")
    print(row("model", "PSIS-LOO elpd", "standard error", "Pareto k > 0.7", "R-hat", "ESS", "divergences"))
    print(row(*["---"] * 7))
    for elpd, error, high, rhat, ess, divergences, name in sorted(alone, reverse=True):
        print(row(name, f"{elpd:.0f}", f"{error:.0f}", high, f"{rhat:.3f}", f"{ess:.0f}", divergences))


def fitted(runs, model: Candidate, file: Path, sampler):
    """The fit of a candidate to all runs, from `file` if it exists."""
    if not file.exists():
        priors = priors_of(model.law, runs, model.prior_settings)
        bd.save(bd.fit(runs, priors=priors, seed=1, progress=False, **sampler), file)
    return bd.load(file)


def differences(results, label: str, one: str, other: str, splits=SPLITS):
    """Cells of a row of differences of elpd, with standard errors over folds."""
    yield label
    for split in splits:
        with_it, without = (results[split][name] for name in (one, other))
        per_fold = (with_it["elpd"] - without["elpd"]).groupby(with_it["fold"]).sum().values
        error = f" ({np.std(per_fold, ddof=1) * np.sqrt(per_fold.size):.0f})" if per_fold.size > 1 else ""
        yield f"{per_fold.sum():+.0f}{error}"


if __name__ == "__main__":
    main()
