"""How often `bd.check` cautions about tables that the law describes, and about tables with a known problem.

    python docs/studies/check_cautions.py [--quick]

The tables of explanation/check.md. Every table is simulated from the law that is fitted, with residual scales of 0.003 to 0.03 nats
and Student-t tails (4, 10 or 50 degrees of freedom), and then damaged.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd
from common import WITHOUT_DISCREPANCY, parser, row, table

import bayesdistill as bd
from bayesdistill.criticism import Check

FREE = WITHOUT_DISCREPANCY
GAMMA_ONE = FREE.with_fixed(gamma=1.0)
CHINCHILLA = bd.PUBLISHED | {"E": 1.817, "A": 482.0, "B": 2085.0, "alpha": 0.348, "beta": 0.366, "gamma": 1.0}
SIZES = np.geomspace(5e7, 1e10, 10)
GRID = pd.DataFrame([(n, r * n) for n in SIZES for r in (5, 10, 20, 40, 80)], columns=["params", "tokens"])
ISOFLOP = pd.DataFrame(
    [
        (n, budget / 6 / n)
        for budget in np.geomspace(1e18, 1e21, 9)
        for n in np.sqrt(budget / 120) * np.geomspace(0.25, 4, 9)
    ],
    columns=["params", "tokens"],
)
GOOD = {
    "grid of 50 runs, gamma = 1": (GRID, CHINCHILLA, GAMMA_ONE),
    "grid of 50 runs, gamma free": (GRID, bd.PUBLISHED, FREE),
    "isoFLOP, 81 runs, gamma free": (ISOFLOP, bd.PUBLISHED, FREE),
    "16 runs, gamma = 1": (GRID.iloc[::3][:16], CHINCHILLA, GAMMA_ONE),
}


def one_in_ten_is_wrong(runs: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Add 0.3 to 1.5 nats to a tenth of the losses."""
    wrong = rng.permutation(len(runs)) < max(1, len(runs) // 10)
    return runs.assign(loss=runs["loss"] + wrong * rng.uniform(0.3, 1.5, len(runs)))


def repeated_epochs(runs: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Count up to 100 epochs of data as new tokens."""
    return runs.assign(tokens=runs["tokens"] * 10 ** rng.uniform(0, 2, len(runs)))


def two_data_sets(runs: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Measure half of the losses on other data."""
    return runs.assign(loss=runs["loss"] + rng.choice([0, 0.8], len(runs)))


BAD: dict[str, tuple[Callable[..., pd.DataFrame] | None, tuple, str]] = {
    "a tenth of the runs went wrong": (
        one_in_ten_is_wrong,
        GOOD["grid of 50 runs, gamma free"],
        "much more than others",
    ),
    "repeated epochs": (repeated_epochs, GOOD["grid of 50 runs, gamma = 1"], "does not describe"),
    "losses of two data sets": (two_data_sets, GOOD["grid of 50 runs, gamma = 1"], "does not describe"),
    "gamma = 0.452 fitted with 1": (None, (ISOFLOP, bd.PUBLISHED, GAMMA_ONE), "contradict gamma"),
}


def checked(setting: tuple, seed: int, damage: Callable[..., pd.DataFrame] | None = None) -> Check:
    """Simulate, damage, fit and check one table."""
    design, truth, law = setting
    rng = np.random.default_rng([seed, 20])
    sigma, nu = float(np.exp(rng.uniform(*np.log([0.003, 0.03])))), float(rng.choice([4, 10, 50]))
    runs = bd.simulate_runs(truth, kind="supervised", seed=seed, design=design, sigma=sigma, nu=nu)
    runs = runs if damage is None else damage(runs, rng)
    runs = bd.read_runs(runs[["params", "tokens", "loss"]], "supervised", allow_suspicious=True)
    return bd.check(bd.fit(supervised=runs, law=law, seed=seed, progress=False))


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--simulations", type=int, default=40, help="tables of each kind (default 40)")
    chosen = options.parse_args(arguments)
    seeds = range(1 if chosen.quick else chosen.simulations)
    warnings.simplefilter("ignore", bd.ConvergenceWarning)
    print(table(("good tables", "tables", "not converged", "with cautions", "which"), ()), flush=True)
    for name, setting in list(GOOD.items())[: 1 if chosen.quick else None]:
        found = [checked(setting, seed) for seed in seeds]
        which = Counter(one.checked for check in found for one in check.findings if one.state == "caution")
        failed, cautioned = sum(check.ok is False for check in found), sum(bool(check.cautions) for check in found)
        print(row(name, len(found), failed, cautioned, "; ".join(f"{k}: {n}" for k, n in which.items())), flush=True)
    print(f"\n{table(('tables with a problem', 'tables', 'reported'), ())}", flush=True)
    for name, (damage, setting, words) in list(BAD.items())[: 1 if chosen.quick else None]:
        found = [checked(setting, 1000 + seed, damage) for seed in seeds]
        print(row(name, len(found), sum(any(words in text for text in check.cautions) for check in found)), flush=True)


if __name__ == "__main__":
    main()
