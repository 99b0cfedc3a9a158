"""Left-out runs, forecasts and plans with and without a discrepancy: section on the discrepancy of explanation/model.md.

python docs/studies/discrepancy.py [--sampling] [--plans] [--quick]

The default law is refitted to the published runs without whole teachers, without whole students, without the paper's held-out runs, and
to the runs with at most 3e19 FLOPs. The joint law is fitted to the runs of the tiny experiment below the default cutoffs. Plans of the
published runs follow, at the three levels of uncertainty. Last, both studies are fitted with five
seeds. The options select single parts.
"""

from __future__ import annotations

import itertools
import time
import warnings

import numpy as np
import pandas as pd
from common import WITHOUT_DISCREPANCY, parser
from tiny_common import distilled, flops, supervised

import bayesdistill as bd

LAW = bd.LAWS["tied_reducible"]
LAWS = {"none": WITHOUT_DISCREPANCY, "discrepancy": LAW}
SPLITS = ("teacher", "student", "paper", "3e19")
"""Groups that are left out; the last one is a cutoff in FLOPs."""
NOISE = ("law", "expected", "run")
STUDENTS, BUDGETS, SCENARIOS = ("300M", "1B", "3B"), np.geomspace(1e19, 1e25, 25), ("best case", "teacher inference")
SHOWN = (1e21, 1e22, 1e23, 1e25)
"""Budgets whose probabilities are printed."""


def left_out(law: bd.Law, split: str, **sampler: int) -> dict[str, float]:
    """Scores of runs left out in groups."""
    runs = bd.load_runs()
    if split == SPLITS[-1]:
        found = bd.backtest(runs, cutoffs=split, law=law, include_failed=True, progress=False, **sampler)
    else:
        found = bd.leave_out(runs, split, law=law, progress=False, **sampler)
    return {name: float(found[name].mean()) for name in ("inside_90", "inside_50", "crps") if name in found} | {
        "elpd": float(found["elpd"].sum())
    }


def forecasts(law: bd.Law, **sampler: int) -> list[dict[str, object]]:
    """Scores of the forecasts of the tiny experiment, one row per level of uncertainty."""
    found = bd.backtest(distilled, supervised, flops=flops, law=law, include_failed=True, progress=False, **sampler)
    of_all = found.isel(group=0, forecaster=0)
    runs = {"90%": float(of_all["coverage_90"]), "50%": float(of_all["coverage_50"])}
    runs["elpd"] = float(found["elpd"].isel(forecaster=0).sum())
    pairs = {"skill": "brier_skill", "slope": "slope", "log score": "log_score"}
    levels = {noise: of_all.sel(noise=noise) for noise in NOISE}
    return [
        {"noise": noise, **runs, **{name: float(one[variable]) for name, variable in pairs.items()}}
        for noise, one in levels.items()
    ]


def plans(law: bd.Law, **sampler: int) -> list[dict[str, object]]:
    """Probabilities that distillation wins, by level of uncertainty; crossovers are printed."""
    fit = bd.fit(bd.load_runs(), law=law, seed=0, progress=False, **sampler)
    planner = bd.Planner(fit, allow_unconverged=True, progress=False)
    rows: list[dict[str, object]] = []
    for noise in NOISE:
        plan = bd.plan(planner, STUDENTS, BUDGETS, SCENARIOS, noise=noise)
        shown = plan["probability"].sel(budget=list(SHOWN), method="nearest")
        for (i, student), scenario in itertools.product(enumerate(STUDENTS), SCENARIOS):
            cell = {"scenario": scenario, "student": shown["student"].values[i]}
            values = dict(zip(map("{:g}".format, SHOWN), shown.sel(cell).values, strict=True))
            rows.append({"noise": noise, "scenario": scenario, "student": student, **values})
    print(plan)
    return rows


def sampling(seeds: int, **sampler: int) -> list[dict[str, object]]:
    """Diagnostics and times of fits of both studies, with the laws in turn."""
    studies = {"published": (bd.load_runs(),), "tiny": (bd.load_runs("tiny"), bd.load_runs("tiny", kind="supervised"))}
    rows: list[dict[str, object]] = []
    for study, seed, (name, law) in itertools.product(studies, range(seeds), LAWS.items()):
        started = time.process_time()
        fit = bd.fit(*studies[study], law=law, seed=seed, progress=False, **sampler)
        processor = time.process_time() - started
        found, steps = bd.posterior.convergence(fit), float(fit["sample_stats"]["n_steps"].mean())
        kept = {name: found[name] for name in ("divergences", "rhat", "ess_bulk", "ess_tail")}
        row = {"law": name, "study": study, "seed": seed, "steps": steps, **kept, "converged": bool(found["converged"])}
        rows.append(row | {"seconds": bd.provenance(fit)["seconds"], "processor seconds": processor})
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Print four tables."""
    command = parser(__doc__)
    for part in ("sampling", "plans"):
        command.add_argument(f"--{part}", action="store_true", help=f"the {part} alone")
    given = command.parse_args(arguments)
    warnings.simplefilter("ignore", bd.ConvergenceWarning)
    short = {"draws": 50, "tune": 100} if given.quick else {}
    rows: dict[str, list[dict[str, object]]] = {"left out": [], "forecasts": [], "plans": [], "sampling": []}
    everything = not (given.sampling or given.plans)
    for name, law in LAWS.items():
        if everything or given.plans:
            rows["plans"] += [{"law": name} | row for row in plans(law, **short)]
        if everything:
            for split in SPLITS[2:3] if given.quick else SPLITS:
                scores = left_out(law, split, **(short or {"draws": 400}))
                rows["left out"].append({"law": name, "split": split} | scores)
            rows["forecasts"] += [{"law": name} | row for row in forecasts(law, **(short or {"draws": 600}))]
    if everything or given.sampling:
        rows["sampling"] = sampling(1 if given.quick else 5, **short)
    for title, found in rows.items():
        if found:
            print(title, pd.DataFrame(found).round(3).to_string(index=False), sep="\n")


if __name__ == "__main__":
    main()
