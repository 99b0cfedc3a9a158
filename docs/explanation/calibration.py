"""Simulation-based calibration of the default model: the tables and the figure of calibration.md.

Laws are drawn where the 354 runs put them, from their posterior with the standard deviations that the runs fixed times three.

python docs/explanation/calibration.py [LOG [SIMULATIONS [WORKERS [SEED]]]]    # 400 for the page

What is finished stands in LOG (calibration.jsonl); interrupted, it goes on from there. With more than one worker, simulations are
fitted in processes of their own.
"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext

import bayesdistill as bd
from bayesdistill.law import DEFAULT_LAW
from bayesdistill.model import reference_run
from bayesdistill.priors import default_priors
from bayesdistill.sampling._prior_table import choose_priors

WIDEN = 3.0


def main(log: str = "calibration.jsonl", simulations: str = "200", workers: str = "1", seed: str = "0") -> None:
    fresh = multiprocessing.get_context("spawn")
    pool = nullcontext() if int(workers) == 1 else ProcessPoolExecutor(int(workers), mp_context=fresh)
    runs = bd.load_runs("busbridge2025")
    reference = reference_run(runs, None)
    default = default_priors(DEFAULT_LAW, reference)
    earlier = bd.fit(runs, seed=0, progress=False)
    priors = choose_priors(earlier, WIDEN, default, reference)
    with pool as executor:
        found = bd.simulate_calibration(
            runs, simulations=int(simulations), priors=priors, seed=int(seed), log=log, executor=executor
        )
    states = found["status"].to_series().value_counts()
    print("| refit | simulations |\n| --- | --- |")
    for state in ("passed", "passed when refitted", "failed"):
        print(f"| {state} | {int(states.get(state, 0))} |")
    for title, include in (("without", False), ("with", True)):
        curves = bd.rank_ecdf(found, include_failed=include)
        table = bd.rank_uniformity(found, include_failed=include)
        print(f"\nRanks of {len(table)} quantities, {title} failed refits, {curves.attrs['counted']} simulations:")
        print(f"smallest p-value {table['p_value'].min():.2g}, corrected {table['p_holm'].min():.2g};", end=" ")
        print(f"{int(curves['outside'].sum())} leave their 95 % band.\n")
        print("| quantity | mean rank | p | p corrected | leaves the band |\n| --- | --- | --- | --- | --- |")
        for name, row in table.sort_values("p_value").iterrows():
            leaves = "yes" if bool(curves["outside"].sel(quantity=name)) else "no"
            print(f"| {name} | {row['mean_rank']:.3f} | {row['p_value']:.2g} | {row['p_holm']:.2g} | {leaves} |")
        print("\n| stated | decisions | mean stated | won | 90 % interval |\n| --- | --- | --- | --- | --- |")
        for name, row in bd.decision_calibration(found, include_failed=include).iterrows():
            share = f"{row['stated']:.3f} | {row['won']:.3f} | {row['lower']:.3f} to {row['upper']:.3f}"
            print(f"| {name} | {int(row['simulations'])} | {share} |")
        counted = found if include else found.sel(simulation=found["status"] != "failed")
        stated, won = counted["probability"], counted["won"]
        # By simulation, whose decisions share a posterior.
        more = (won - stated).where((stated > 0.05) & (stated < 0.95)).sum("decision")
        apart = float(more.sum() / (more**2).sum() ** 0.5)
        print(f"\nUndecided ones were won more often than stated by {apart:.1f} standard errors over simulations.")
    bd.plot_calibration(bd.rank_ecdf(found)).savefig("calibration.png", dpi=150)
    print("\ncalibration.png drawn")


if __name__ == "__main__":
    main(*sys.argv[1:])
