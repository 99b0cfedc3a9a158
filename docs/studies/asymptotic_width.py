"""Effect of the width of the asymptotic prior on the fit and on decisions: tables of explanation/model.md.

python docs/studies/asymptotic_width.py [--quick]
"""

from __future__ import annotations

import numpy as np
from common import parser, table

import bayesdistill as bd
from bayesdistill.law import DEFAULT_LAW
from bayesdistill.law.predictive import Design, expected_loss
from bayesdistill.posterior import draws_of

BUDGETS = np.geomspace(1e20, 1e24, 13)
FITS = ("asymptotic_width", "rms of residuals [nats]", "mean lead with unlimited data, 300M, 1B, 3B, 10B [nats]")
FITS += ("largest R-hat, smallest ESS, divergences",)
PLANS = ("asymptotic_width", "scenario", "student", "P(distillation wins) at 1e21, 1e22, 1e23, 1e24 FLOPs")
PLANS += ("median crossover [FLOPs]", "share crossed, always, never")
FORMS = [("", DEFAULT_LAW, width) for width in (None, 0.02, 0.01, 0.005, 0.003)]
FORMS += [("equation 8, ", "busbridge2025", width) for width in (None, 0.005)]


def main(arguments: list[str] | None = None) -> None:
    quick = parser(__doc__).parse_args(arguments).quick
    runs = bd.load_runs("busbridge2025")
    sampler = {"draws": 100, "tune": 100} if quick else {}
    of_fit, of_plan = [], []
    for form, law, width in FORMS[-1:] if quick else FORMS:
        fit = bd.fit(runs, seed=0, law=law, asymptotic_width=width, progress=False, **sampler)
        numbers = bd.check(fit).numbers
        draws = draws_of(fit)
        predicted = expected_loss(draws, Design.of(draws.law, runs)).mean(axis=0)
        residual = runs["student_loss"].to_numpy() - predicted
        lead = draws.law.asymptotic_advantage(np.array([3e8, 1e9, 3e9, 1e10]), draws.columns)
        words = ", ".join(f"{value:.3f}" for value in lead.mean(axis=0))
        name = form + ("none" if width is None else f"{width:g}")
        sampling = f"{numbers['rhat']:.3f}, {numbers['ess_bulk']:.0f}, {numbers['divergences']}"
        of_fit.append((name, f"{np.sqrt(np.mean(residual**2)):.4f}", words, sampling))
        budgets = BUDGETS[::4] if quick else BUDGETS
        scenarios = ["best case", "teacher pretraining"]
        plan = bd.plan(fit, ["300M", "1B", "3B"], budgets, scenarios, progress=False, allow_unconverged=quick)
        of_plan += [(name, *cells) for cells in rows_of(plan)]
    print(table(FITS, of_fit), table(PLANS, of_plan), sep="\n\n")


def rows_of(plan):
    """Probabilities and crossovers of every scenario and student."""
    for scenario in plan["scenario"].values:
        for student in plan["student"].values:
            one = plan.sel(student=student, scenario=scenario)
            meanings = np.array(one["crossover_status"].attrs["flag_meanings"].split())
            status = meanings[one["crossover_status"].values.ravel()]
            crossed = one["crossover"].values.ravel()[status == "crossed"]
            middle = f"{np.median(crossed):.1e}" if crossed.size else "-"
            wins = [float(one["probability"].sel(budget=b, method="nearest")) for b in (1e21, 1e22, 1e23, 1e24)]
            shares = ", ".join(f"{np.mean(status == kind):.2f}" for kind in ("crossed", "always", "never"))
            odds = ", ".join(f"{value:.2f}" for value in wins)
            yield scenario, f"{float(student):.0e}", odds, middle, shares


if __name__ == "__main__":
    main()
