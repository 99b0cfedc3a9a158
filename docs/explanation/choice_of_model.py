"""Scores every candidate model on runs of unseen teachers, unseen students, and the paper's extrapolation.

    python docs/explanation/choice_of_model.py FOLDER [DRAWS] [SHARE OF]

Finished folds are kept in FOLDER, so that an interrupted run goes on where it stopped. Prints the tables of
choice_of_model.md. `SHARE OF` (0 2, 1 2) makes every second model only, for two processes on one folder; a run without it
then finds all folds and prints the tables.
"""

import sys
import time
from pathlib import Path

import arviz as az
import numpy as np

import bayesdistill as bd
from bayesdistill.criticism._leave_out import SPLITS, candidate_models, leave_out, priors_of, score_table
from bayesdistill.criticism.baselines import BASELINES

DEFAULT = "tied exponents, student effects and slopes"
folder = Path(sys.argv[1])
draws = int(sys.argv[2]) if len(sys.argv) > 2 else 500
share, of = (int(sys.argv[3]), int(sys.argv[4])) if len(sys.argv) > 4 else (0, 1)
folder.mkdir(parents=True, exist_ok=True)
runs = bd.load_runs("busbridge2025")
results = {split: {} for split in SPLITS}
alone = []
for i, (name, model) in enumerate(candidate_models().items()):
    if i % of != share:
        continue
    short = name.replace(" ", "_").replace(",", "").replace(".", "")
    for split in ("paper", "student", "teacher"):
        started = time.monotonic()
        file = folder / f"{split}-{short}.json"
        results[split][name] = leave_out(
            runs,
            split,
            model.law,
            prior_settings=model.prior_settings,
            draws=draws,
            checkpoint=file,
            progress=False,
        )
        print(f"{name}, {split}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    if model.law not in BASELINES:
        file = folder / f"fit-{short}.nc"
        if not file.exists():
            priors = priors_of(model.law, runs, model.prior_settings)
            bd.save(bd.fit(runs, priors=priors, seed=1, progress=False), file)
        fit = bd.load(file)
        loo = az.loo(fit, var_name="student_loss", pointwise=True)
        numbers = bd.check(fit).numbers
        high = int((loo.pareto_k > 0.7).sum())
        alone.append((loo.elpd, loo.se, high, numbers["rhat"], numbers["ess_bulk"], numbers["divergences"], name))
for split in SPLITS:
    columns = ["elpd", "elpd_difference", "standard_error", "crps", "rmse", "coverage_50", "coverage_90", "unconverged"]
    formats = ("{:.0f}", "{:.0f}", "{:.0f}", "{:.4f}", "{:.4f}", "{:.2f}", "{:.2f}", "{:.0f}")
    heads = [
        "elpd",
        "to best",
        "SE",
        "crps",
        "rmse",
        "in 50 %",
        "in 90 %",
        "failed",
    ]  # short, so that a page holds them
    print(f"\n{split}\n\n| model | {' | '.join(heads)} |\n|{' --- |' * (len(heads) + 1)}")
    for name, row in score_table(results[split]).iterrows():
        print(f"| {name} | {' | '.join(form.format(row[c]) for form, c in zip(formats, columns, strict=True))} |")
SHIFTS = ", student effects and slopes"
STEPS = {
    "w1 (no shifts)": ("weak teachers", "eq. 8"),
    "slopes of shifts": (DEFAULT, "tied exponents, student effects"),
    "kappa": ("soft targets" + SHIFTS, "weak teachers" + SHIFTS),
    "kappa, with omega = 1": ("reducible ratio" + SHIFTS, "reducible ratio alone" + SHIFTS),
    "omega = 1": ("reducible ratio" + SHIFTS, "soft targets" + SHIFTS),
    "omega free instead": ("reducible ratio" + SHIFTS + ", omega free", "reducible ratio" + SHIFTS),
    "tied exponents": (DEFAULT, "reducible ratio" + SHIFTS),
    "no asymptotic prior, equation 8": ("eq. 8, no asymptotic prior", "eq. 8"),
    "no asymptotic prior, w1": ("weak teachers" + SHIFTS + ", no asymptotic prior", "weak teachers" + SHIFTS),
    "no asymptotic prior, w1 and kappa": ("soft targets" + SHIFTS + ", no asymptotic prior", "soft targets" + SHIFTS),
    "no asymptotic prior, default": (DEFAULT + ", no asymptotic prior", DEFAULT),
}
"""What is added to a model -> the model with it, and without; with shifts and slopes unless said."""


def differences(label, one, other):
    """A row of differences of elpd, with standard errors over folds."""
    cells = []
    for split in SPLITS:
        with_it, without = (results[split][name] for name in (one, other))
        per_fold = (with_it["elpd"] - without["elpd"]).groupby(with_it["fold"]).sum().values
        error = f" ({np.std(per_fold, ddof=1) * np.sqrt(per_fold.size):.0f})" if per_fold.size > 1 else ""
        cells.append(f"{per_fold.sum():+.0f}{error}")
    return f"| {label} | {' | '.join(cells)} |"


if of == 1:
    print("\nagainst the default\n\n| model | " + " | ".join(SPLITS) + " |\n| --- | --- | --- | --- |")
    print("\n".join(differences(name, name, DEFAULT) for name in results["teacher"]))
    print("\none step at a time\n\n| what is added | " + " | ".join(SPLITS) + " |\n| --- | --- | --- | --- |")
    print("\n".join(differences(label, *models) for label, models in STEPS.items()))
print("\nsingle runs\n\n| model | PSIS-LOO elpd | standard error | Pareto k > 0.7 | R-hat | ESS | divergences |")
print("| --- | --- | --- | --- | --- | --- | --- |")
for elpd, error, high, rhat, ess, divergences, name in sorted(alone, reverse=True):
    print(f"| {name} | {elpd:.0f} | {error:.0f} | {high} | {rhat:.3f} | {ess:.0f} | {divergences} |")
