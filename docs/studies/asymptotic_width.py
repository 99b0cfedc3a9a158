"""Effect of the priors from statements of theory on the fit and on decisions: tables of explanation/theory.md.

    python docs/studies/asymptotic_width.py [--only width | theory] [--folder FOLDER] [--quick]

The first two tables compare widths of the asymptotic prior, the others fits with and without the statements about a perfect teacher.
Finished refits are kept in FOLDER.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import arviz as az
import numpy as np
from choice_of_model import differences
from common import WITHOUT_DISCREPANCY, parser, table

import bayesdistill as bd
from bayesdistill.law.predictive import Design, expected_loss
from bayesdistill.plots.grids import crossover_summary
from bayesdistill.posterior import draws_of
from bayesdistill.priors import LIMITED_DATA_WIDTH, PERFECT_TEACHER_WIDTH

BUDGETS = np.geomspace(1e20, 1e26, 25)
FITS = ("asymptotic_width", "rms of residuals [nats]", "mean advantage with unlimited data, 300M, 1B, 3B, 10B [nats]")
FITS += ("largest R-hat, smallest ESS, divergences",)
PLANS = ("asymptotic_width", "scenario", "student", "P(distillation wins) at 1e21, 1e22, 1e23, 1e24 FLOPs")
PLANS += ("median crossover [FLOPs]", "share crossed, always, never")
FORMS = [("", WITHOUT_DISCREPANCY, width) for width in (None, 0.02, 0.01, 0.005, 0.003)]
FORMS += [("equation 8, ", "busbridge2025", width) for width in (None, 0.005)]

PERFECT, LIMITED = {"perfect_teacher_width": PERFECT_TEACHER_WIDTH}, {"limited_data_width": LIMITED_DATA_WIDTH}
STATEMENTS = {
    # name: law, settings, row that it is compared with
    "default": (WITHOUT_DISCREPANCY, {}, "default"),
    "all statements": (WITHOUT_DISCREPANCY, PERFECT | LIMITED, "default"),
    "perfect teacher": (WITHOUT_DISCREPANCY, PERFECT, "default"),
    "limited data": (WITHOUT_DISCREPANCY, LIMITED, "default"),
    "equation 8": ("busbridge2025", {}, "equation 8"),
    "equation 8, all statements": ("busbridge2025", PERFECT | LIMITED, "equation 8"),
}
STUDENTS = np.array([3e8, 1e9, 3e9])
SPLITS = {"teacher": "left-out teachers", "student": "left-out sizes", "paper": "paper's split"}
SCORES = ("priors", "PSIS-LOO elpd")
ADVANTAGES = ("priors", "perfect teacher, 20 tokens per parameter", "100 tokens per parameter", "unlimited data")
ADVANTAGES += ("best teacher, unlimited data",)
CROSSOVERS = ("priors", "student", "P(distillation wins) at 1e21, 1e22, 1e23, 1e24 FLOPs")
CROSSOVERS += ("median crossover [FLOPs]", "share crossed, always, never")
SAMPLING = ("priors", "largest R-hat", "smallest ESS", "divergences", "CPU seconds per fit")


def main(arguments: list[str] | None = None) -> None:
    command = parser(__doc__)
    command.add_argument("--only", choices=("width", "theory"), help="run one half of the study")
    command.add_argument("--folder", type=Path, help="folder of finished refits")
    chosen = command.parse_args(arguments)
    runs = bd.load_runs("busbridge2025")
    if chosen.only != "theory":
        compare_widths(runs, chosen.quick)
    if chosen.only != "width":
        compare_statements(runs.iloc[::9].reset_index(drop=True) if chosen.quick else runs, chosen.quick, chosen.folder)


def compare_statements(runs, quick: bool, folder: Path | None) -> None:
    """Print scores, advantages, crossovers and sampling of fits with and without the statements about a perfect teacher."""
    splits = ("paper",) if quick else tuple(SPLITS)
    seeds, sampler, refits = (
        (1, {"draws": 60, "tune": 100}, {"draws": 60, "tune": 100}) if quick else (5, {}, {"draws": 400})
    )
    chosen = list(STATEMENTS)[4:] if quick else list(STATEMENTS)
    left_out = {split: {} for split in splits}
    rows = {head: [] for head in (SCORES, ADVANTAGES, CROSSOVERS, SAMPLING)}
    for name in chosen:
        law, settings, base = STATEMENTS[name]
        for split in splits:
            log = None if folder is None else folder / f"{split}-{name.replace(' ', '_').replace(',', '')}.json"
            left_out[split][name] = bd.leave_out(
                runs, split, law, prior_settings=settings, checkpoint=log, progress=False, **refits
            )
        fits, seconds = [], []
        for seed in range(seeds):
            # CPU time does not depend on what else the computer does.
            before = time.process_time()
            fits.append(bd.fit(runs, law=law, seed=seed, progress=False, **settings, **sampler))
            seconds.append(time.process_time() - before)
        fit, draws = fits[0], draws_of(fits[0])
        loo = az.loo(fit, var_name="student_loss", pointwise=True)
        against = list(differences(left_out, name, name, base, splits))[1:]
        rows[SCORES].append((name, f"{loo.elpd:.0f} ({loo.se:.0f})", *against))
        advantages = [
            draws.law.perfect_teacher_advantage(STUDENTS, None if ratio is None else ratio * STUDENTS, draws.columns)
            for ratio in (20, 100, None)
        ]
        advantages.append(draws.law.asymptotic_advantage(STUDENTS, draws.columns))
        rows[ADVANTAGES].append((name, *(words(values) for values in advantages)))
        budgets = BUDGETS[::4] if quick else BUDGETS
        plan = bd.plan(
            fit,
            ["300M", "1B", "3B"],
            budgets,
            ["best case"],
            noise="law",
            progress=False,
            allow_unconverged=quick,
            allow_conflict=True,
        )
        rows[CROSSOVERS] += [(name, *cells[1:]) for cells in rows_of(plan)]
        numbers = [bd.check(one).numbers for one in fits]
        least = [one["ess_bulk"] for one in numbers]
        divergences = sum(one["divergences"] for one in numbers)
        largest = max(one["rhat"] for one in numbers)
        # The first fit compiles the model.
        rows[SAMPLING].append(
            (name, f"{largest:.3f}", f"{min(least):.0f}", divergences, f"{np.mean(seconds[1:] or seconds):.1f}")
        )
        print(f"{name}: {time.strftime('%H:%M')}", file=sys.stderr, flush=True)
        print("\n".join(str(cells) for found in rows.values() for cells in found), file=sys.stderr, flush=True)
    for head, cells in rows.items():
        print(table((*head, *(SPLITS[split] for split in splits)) if head is SCORES else head, cells), end="\n\n")


def words(values) -> str:
    """Means over draws of the advantages of every student."""
    return ", ".join(f"{value:+.3f}" for value in values.mean(axis=0))


def compare_widths(runs, quick: bool) -> None:
    """Print fits and decisions with several widths of the asymptotic prior."""
    sampler = {"draws": 100, "tune": 100} if quick else {}
    of_fit, of_plan = [], []
    for form, law, width in FORMS[-1:] if quick else FORMS:
        fit = bd.fit(runs, seed=0, law=law, asymptotic_width=width, progress=False, **sampler)
        numbers = bd.check(fit).numbers
        draws = draws_of(fit)
        predicted = expected_loss(draws, Design.of(draws.law, runs)).mean(axis=0)
        residual = runs["student_loss"].to_numpy() - predicted
        advantage = draws.law.asymptotic_advantage(np.array([3e8, 1e9, 3e9, 1e10]), draws.columns)
        words = ", ".join(f"{value:.3f}" for value in advantage.mean(axis=0))
        name = form + ("none" if width is None else f"{width:g}")
        sampling = f"{numbers['rhat']:.3f}, {numbers['ess_bulk']:.0f}, {numbers['divergences']}"
        of_fit.append((name, f"{np.sqrt(np.mean(residual**2)):.4f}", words, sampling))
        budgets = BUDGETS[::4] if quick else BUDGETS
        scenarios = ["best case", "teacher pretraining"]
        plan = bd.plan(
            fit, ["300M", "1B", "3B"], budgets, scenarios, noise="law", progress=False, allow_unconverged=quick
        )
        of_plan += [(name, *cells) for cells in rows_of(plan)]
    print(table(FITS, of_fit), table(PLANS, of_plan), sep="\n\n", end="\n\n")


def rows_of(plan):
    """Probabilities and crossovers of every scenario and student; the median is over all draws, with and without a crossover."""
    ends = float(plan["budget"].min()), float(plan["budget"].max())
    medians = crossover_summary(plan["crossover"], plan["crossover_status"], *ends, 0.9)["median"]
    for scenario in plan["scenario"].values:
        for student in plan["student"].values:
            one = plan.sel(student=student, scenario=scenario)
            meanings = np.array(one["crossover_status"].attrs["flag_meanings"].split())
            status = meanings[one["crossover_status"].values.ravel()]
            median = float(medians.sel(student=student, scenario=scenario))
            middle = (
                f"< {ends[0]:.0e}" if median < ends[0] else f"> {ends[1]:.0e}" if median > ends[1] else f"{median:.1e}"
            )
            wins = [float(one["probability"].sel(budget=b, method="nearest")) for b in (1e21, 1e22, 1e23, 1e24)]
            shares = ", ".join(f"{np.mean(status == kind):.2f}" for kind in ("crossed", "always", "never"))
            odds = ", ".join(f"{value:.2f}" for value in wins)
            yield scenario, f"{float(student):.0e}", odds, middle, shares


if __name__ == "__main__":
    main()
