"""Convergence of supervised fits at default settings: table of explanation/model.md.

python docs/studies/supervised_fits.py [TABLE ...] [--seeds 5] [--without-discrepancy] [--quick]

Each TABLE has supervised runs; by default, the tiny experiment and three simulated tables: isoFLOP runs, a random design, and
runs with heavy tails. The runs with the lowest 60% and 80% of compute are fitted with gamma free and gamma = 1. The script prints one
line per fit and the fraction that passes the convergence checks.
"""

from __future__ import annotations

import math
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from common import default_law, parser

import bayesdistill as bd

FRACTIONS = (0.6, 0.8)


def simulated(name: str, seed: int = 0) -> pd.DataFrame:
    """Supervised runs of the published law."""
    rng = np.random.default_rng(seed)
    if name == "isoFLOP":
        budgets, ratios = np.geomspace(1e18, 4e20, 9), np.geomspace(2, 200, 10)
        flops, ratio = (grid.ravel() for grid in np.meshgrid(budgets, ratios))
        params = np.sqrt(flops / 6 / ratio)
        tokens = ratio * params
    else:
        count = 40 if name == "heavy tails" else 200
        params = np.exp(rng.uniform(np.log(1e7), np.log(8e9), count))
        tokens = params * np.exp(rng.uniform(np.log(1), np.log(200), count))
    law = {symbol: bd.PUBLISHED[symbol] for symbol in ("E", "A", "B", "alpha", "beta", "gamma")}
    loss = bd.supervised_loss(params, tokens, **law)
    nu, scale = (1.5, 0.02) if name == "heavy tails" else (5.0, 0.01)
    noise = scale * (loss - law["E"]) * rng.standard_t(nu, loss.size)
    return pd.DataFrame({"params": params, "tokens": tokens, "loss": loss + noise})


def converges(label: str, **arguments: object) -> bool:
    """Fit runs, print one line of diagnostics, and return whether the fit passes the convergence checks."""
    start = time.process_time()
    with warnings.catch_warnings():
        for category in (bd.ConvergenceWarning, bd.DesignWarning, bd.ConflictWarning):
            warnings.simplefilter("ignore", category)
        fit = bd.fit(**arguments, progress=False)
    found = bd.posterior.convergence(fit)
    print(
        f"{label}: {'passed' if found['converged'] else 'failed'}, R-hat {found['rhat'] or math.inf:.3f}, "
        f"ESS {found['ess_bulk'] or 0:.0f} {found['ess_tail'] or 0:.0f}, {found['divergences']} divergences, "
        f"{found['treedepth_share']:.1%} truncated, {float(fit['sample_stats']['n_steps'].mean()):.0f} steps, "
        f"{time.process_time() - start:.1f} s",
        flush=True,
    )
    return bool(found["converged"])


def main(arguments: list[str] | None = None) -> None:
    """Print one line per fit."""
    options = parser(__doc__, law=True)
    options.add_argument("tables", nargs="*", metavar="TABLE")
    options.add_argument("--seeds", type=int, default=5)
    given = options.parse_args(arguments)
    tables = {Path(path).stem: bd.read_runs(path, "supervised") for path in given.tables}
    if not tables:
        names = ("isoFLOP", "random design", "heavy tails")
        tables = {name: bd.read_runs(simulated(name), "supervised") for name in names}
        tables["tiny"] = bd.load_runs("tiny", kind="supervised")
    if given.quick:
        tables = dict([tables.popitem()])
    passed = []
    for name, table in tables.items():
        rank = (table["params"] * table["tokens"]).rank(pct=True)
        for fraction in FRACTIONS:
            some = table[rank <= fraction].reset_index(drop=True)
            for gamma in (None, 1.0):
                law = default_law(given).with_fixed(gamma=gamma)
                for seed in range(1 if given.quick else given.seeds):
                    label = f"{name}, {fraction:.0%} of the runs, gamma {gamma or 'free'}, seed {seed}"
                    passed.append(converges(label, supervised=some, law=law, seed=seed))
    print(f"{sum(passed)} of {len(passed)} fits pass")


if __name__ == "__main__":
    main()
