"""Simulation-based calibration of the default model: tables and figure of explanation/calibration.md.

    python docs/studies/calibration.py [LOG] [--simulations 400] [--workers 1] [--seed 0] [--quick]

The laws are drawn from the posterior of the 354 runs, with three times the standard deviations of the coordinates that the runs
determine. Finished simulations are kept in LOG (calibration.jsonl), from which an interrupted study resumes. With several
workers, each refit runs in its own process. The figure is calibration.png in the current folder.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext

from common import parser, table

import bayesdistill as bd
from bayesdistill.law import DEFAULT_LAW
from bayesdistill.model import reference_run
from bayesdistill.priors import default_priors
from bayesdistill.sampling._prior_table import choose_priors

WIDEN = 3.0


def main(arguments: list[str] | None = None) -> None:
    command = parser(__doc__)
    command.add_argument("log", nargs="?", default="calibration.jsonl")
    command.add_argument("--simulations", type=int, default=400)
    command.add_argument("--workers", type=int, default=1)
    command.add_argument("--seed", type=int, default=0)
    chosen = command.parse_args(arguments)
    runs = bd.load_runs("busbridge2025")
    simulations, sampler, first = chosen.simulations, {}, {}
    if chosen.quick:
        runs, simulations, first = runs.iloc[::9].reset_index(drop=True), 2, {"draws": 100, "tune": 200}
        sampler = first | {"thresholds": bd.ConvergenceThresholds(9, 1, 1, 10**6)}
    reference = reference_run(runs, None)
    earlier = bd.fit(runs, seed=0, progress=False, **first)
    priors = choose_priors(earlier, WIDEN, default_priors(DEFAULT_LAW, reference), reference)
    fresh = multiprocessing.get_context("spawn")
    pool = nullcontext() if chosen.workers == 1 else ProcessPoolExecutor(chosen.workers, mp_context=fresh)
    with pool as executor:
        found = bd.simulate_calibration(
            runs,
            simulations=simulations,
            priors=priors,
            seed=chosen.seed,
            log=chosen.log,
            executor=executor,
            **sampler,
        )
    states = found["status"].to_series().value_counts()
    names = ("passed", "passed when refitted", "failed")
    print(table(("refit", "simulations"), ((state, int(states.get(state, 0))) for state in names)))
    for title, include in (("without", False), ("with", True)):
        show(found, title, include)
    bd.plot_calibration(bd.rank_ecdf(found)).savefig("calibration.png", dpi=150)
    print("\ncalibration.png drawn")


def show(found, title: str, include: bool) -> None:
    """Print ranks and decisions, with or without failed refits."""
    curves = bd.rank_ecdf(found, include_failed=include)
    ranks = bd.rank_uniformity(found, include_failed=include)
    print(f"\nRanks of {len(ranks)} quantities, {title} failed refits, {curves.attrs['counted']} simulations:")
    print(f"smallest p-value {ranks['p_value'].min():.2g}, corrected {ranks['p_holm'].min():.2g};", end=" ")
    print(f"{int(curves['outside'].sum())} leave their 95% band.\n")
    rows = []
    for name, one in ranks.sort_values("p_value").iterrows():
        leaves = "yes" if bool(curves["outside"].sel(quantity=name)) else "no"
        rows.append((name, f"{one['mean_rank']:.3f}", f"{one['p_value']:.2g}", f"{one['p_holm']:.2g}", leaves))
    print(table(("quantity", "mean rank", "p", "p corrected", "leaves the band"), rows), end="\n\n")
    rows = []
    for name, one in bd.decision_calibration(found, include_failed=include).iterrows():
        interval = f"{one['lower']:.3f} to {one['upper']:.3f}"
        rows.append((name, int(one["simulations"]), f"{one['stated']:.3f}", f"{one['won']:.3f}", interval))
    print(table(("stated", "decisions", "mean stated", "won", "90% interval"), rows))
    counted = found if include else found.sel(simulation=found["status"] != "failed")
    stated, won = counted["probability"], counted["won"]
    # Summed by simulation, because the decisions of a simulation share its posterior.
    more = (won - stated).where((stated > 0.05) & (stated < 0.95)).sum("decision")
    apart = float(more.sum() / (more**2).sum() ** 0.5)
    print(f"\nUndecided ones were won more often than stated by {apart:.1f} standard errors over simulations.")


if __name__ == "__main__":
    main()
