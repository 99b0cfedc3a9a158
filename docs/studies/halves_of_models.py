"""Agreement of fits of two random halves of the models: paragraph on checkpoints of explanation/model.md.

python docs/studies/halves_of_models.py [TABLE] [--splits 200] [--quick]

TABLE has supervised runs with the column `model`; by default, new checkpoints are simulated for every split. For each
split, both halves are fitted without effects, with a constant effect of models, and with effects and slopes. Halves agree on a
parameter if the equal-tailed 90% interval of the difference of independent draws contains 0. The script prints one line of JSON per
split and law, then fractions of splits.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
from common import parser

import bayesdistill as bd

LAWS = {"no effects": (), "constant effects": ("model",), "effects and slopes": ("model", "model_slope")}
PARAMETERS = ("E", "alpha")


def simulated(seed: int, models: int = 22, checkpoints: int = 9) -> pd.DataFrame:
    """Checkpoints of models under the published law, with effects of 0.05 and slopes of 0.01 nats."""
    rng = np.random.default_rng(seed)
    tokens = np.linspace(1.2e11, 3.5e11, checkpoints)
    table = pd.DataFrame(
        {
            "model": np.repeat([f"m{i}" for i in range(models)], checkpoints),
            "params": np.repeat(np.exp(rng.uniform(np.log(5e7), np.log(2e9), models)), checkpoints),
            "tokens": np.tile(tokens, models),
        }
    )
    effect, slope = (np.repeat(sd * rng.standard_normal(models), checkpoints) for sd in (0.05, 0.01))
    names = ("E", "A", "B", "alpha", "beta", "gamma")
    law = bd.supervised_loss(table["params"], table["tokens"], **{name: bd.PUBLISHED[name] for name in names})
    away = np.log(table["tokens"] / np.exp(np.log(tokens).mean()))
    return table.assign(loss=law + effect + slope * away + 0.0015 * rng.standard_t(3.0, len(table)))


def agreement(first: dict[str, np.ndarray], second: dict[str, np.ndarray], seed: int = 0) -> dict[str, bool]:
    """Whether 90% intervals of the differences of independent draws contain 0."""
    rng, found = np.random.default_rng(seed), {}
    for name in PARAMETERS:
        low, high = np.quantile(rng.choice(first[name], second[name].size) - second[name], [0.05, 0.95])
        found[name] = bool(low <= 0 <= high)
    return found | {"both": all(found.values())}


def split(table: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two random halves of the models."""
    names = np.random.default_rng(seed).permutation(table["model"].unique())
    first = table["model"].isin(names[: len(names) // 2])
    return table[first].reset_index(drop=True), table[~first].reset_index(drop=True)


def study(table: pd.DataFrame | None, splits: int, laws: list[str], **sampler: int) -> Iterator[dict[str, object]]:
    """Yield the agreement of the two halves for every split and law."""
    for seed in range(splits):
        halves = split(simulated(seed) if table is None else table, seed)
        for name in laws:
            law, draws, failed = bd.LAWS["busbridge2025"].with_effects(*LAWS[name]), [], 0
            for half in halves:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", bd.ConvergenceWarning)
                    fit = bd.fit(supervised=half, law=law, seed=seed, progress=False, **sampler)
                failed += bool(bd.check(fit).numbers["failed"])
                draws.append({name: fit["posterior"][name].values.ravel() for name in PARAMETERS})
            yield {"seed": seed, "law": name, "failed": failed, **agreement(*draws)}


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("table", nargs="?")
    options.add_argument("--splits", type=int, default=200)
    options.add_argument("--law", choices=list(LAWS), action="append", help="fit this law only; repeat for more")
    chosen = options.parse_args(arguments)
    table = None if chosen.table is None else bd.read_runs(chosen.table, "supervised")
    sampler = {"draws": 100, "tune": 100} if chosen.quick else {}
    rows = []
    for row in study(table, 1 if chosen.quick else chosen.splits, chosen.law or list(LAWS), **sampler):
        rows.append(row)
        print(json.dumps(row), flush=True)
    print(pd.DataFrame(rows).groupby("law")[[*PARAMETERS, "both", "failed"]].mean().to_string())


if __name__ == "__main__":
    main()
