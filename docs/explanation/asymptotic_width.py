"""How the fit, the lead with unlimited data, and the decisions move with the width of the asymptotic prior: tables of model.md.

python docs/explanation/asymptotic_width.py
"""

import numpy as np

import bayesdistill as bd
from bayesdistill.criticism.predictions import expected_losses, flat_draws
from bayesdistill.laws import asymptotic_advantage

SIZES = ("300M", "1B", "3B", "10B")
BUDGETS = np.geomspace(1e20, 1e24, 13)
LEAD = ("E", "A", "alpha", "gamma", "A_S", "alpha_S", "gamma_S", "c0", "c1", "d1", "f1")
runs = bd.load_runs("busbridge2025")
of_fit, of_plan = [], []
for width in (None, 0.02, 0.01, 0.005, 0.003):
    fit = bd.fit(runs, seed=0, asymptotic_width=width, progress=False)
    numbers = bd.check(fit).numbers
    draws = flat_draws(fit["posterior"].to_dataset())
    residual = runs["student_loss"].to_numpy() - expected_losses(draws, runs).mean(axis=0)
    lead = asymptotic_advantage(np.array([3e8, 1e9, 3e9, 1e10]), **{name: draws[name][:, None] for name in LEAD})
    words = ", ".join(f"{value:.3f}" for value in lead.mean(axis=0))
    name = "none" if width is None else f"{width:g}"
    sampling = f"{numbers['rhat']:.3f}, {numbers['ess_bulk']:.0f}, {numbers['divergences']}"
    of_fit.append(f"| {name} | {np.sqrt(np.mean(residual**2)):.4f} | {words} | {sampling} |")
    plan = bd.plan(fit, ["300M", "1B", "3B"], BUDGETS, "best case", progress=False)
    for student in plan["student"].values:
        one = plan.sel(student=student, scenario="best case")
        meanings = one["crossover_status"].attrs["flag_meanings"].split()
        status = np.array(meanings)[one["crossover_status"].values.ravel()]
        crossed = one["crossover"].values.ravel()[status == "crossed"]
        middle = f"{np.median(crossed):.1e}" if crossed.size else "-"
        odds = ", ".join(
            f"{float(one['probability'].sel(budget=b, method='nearest')):.2f}" for b in (1e21, 1e22, 1e23, 1e24)
        )
        shares = ", ".join(f"{np.mean(status == kind):.2f}" for kind in ("crossed", "always", "never"))
        of_plan.append(f"| {name} | {float(student):.0e} | {odds} | {middle} | {shares} |")
print(
    "| asymptotic_width | rms of residuals [nats] | mean lead with unlimited data, "
    + ", ".join(SIZES)
    + " [nats] | largest R-hat, smallest ESS, divergences |"
)
print("| --- | --- | --- | --- |")
print("\n".join(of_fit), "\n")
print(
    "| asymptotic_width | student | P(distillation wins) at 1e21, 1e22, 1e23, 1e24 FLOPs | median crossover where there is one [FLOPs] | share crossed, always, never |"
)
print("| --- | --- | --- | --- | --- |")
print("\n".join(of_plan))
