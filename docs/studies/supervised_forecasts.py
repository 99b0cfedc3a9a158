"""Forecasts of supervised runs with more compute than the fitted ones: tables of explanation/calibration.md.

    python docs/studies/supervised_forecasts.py [TABLE ...] [--quick]

Each TABLE has supervised runs; the runs of the tiny experiment are always included. Every law of LAWS is fitted to the runs with the
lowest 60% and 80% of compute (6 N D) and predicts the others, next to a Huber fit with bootstrap and, if it is installed, the package
simple-scaling-laws. The script prints coverage, CRPS and RMSE over all tables, by distance, and for every table.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import supervised_baselines as baselines
from common import WITHOUT_DISCREPANCY, parser, table

import bayesdistill as bd

FRACTIONS = (0.6, 0.8)
LAWS = {
    "gamma = 1": WITHOUT_DISCREPANCY.with_fixed(gamma=1.0),
    "gamma free": WITHOUT_DISCREPANCY,
    "discrepancy": bd.LAWS["tied_reducible"],
}
"""Name -> law. CRPS and RMSE are relative to the first one."""
NAMES = {"huber_bootstrap": "Huber fit, bootstrap", "simple_scaling_laws": "simple-scaling-laws"}
EDGES = {1.0: "", 3.0: "1 to 3 times", 10.0: "3 to 10 times", np.inf: "over 10 times"}
"""Upper edge of the compute over the cutoff -> name of the group."""
COLUMNS = ["observed", "prediction_cutoff", "prediction_factor", "predicted", "elpd", "crps", "inside_50", "inside_90"]


def two_flops(params):
    """Forward FLOPs per token, 2 N: a run costs 6 N D."""
    return 2.0 * np.asarray(params, dtype=float)


def forecasts(runs: pd.DataFrame, name: str, **options: object) -> pd.DataFrame:
    """Return a row per left-out run, cutoff and method; runs whose fit failed the convergence checks are marked."""
    compute = 6 * runs["params"] * runs["tokens"]
    cutoffs = sorted({float(np.quantile(compute, fraction, method="lower")) for fraction in FRACTIONS})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bd.ConvergenceWarning)
        found = bd.backtest(
            supervised=runs, cutoffs=cutoffs, flops=two_flops, include_failed=True, progress=False, **options
        )
    rows = found[COLUMNS].to_dataframe().reset_index()
    failed = found["cutoff_fit"].values[found["failed"].values != ""]
    for cutoff in failed:
        print(f"{name}: the fit below {cutoff:.3g} FLOPs failed {found['failed'].sel(cutoff_fit=cutoff).values!s}")
    return rows.assign(table=name, failed=rows["prediction_cutoff"].isin(failed))


def everything(
    tables: dict[str, pd.DataFrame], laws: dict[str, object], peers: list[object], sampler: dict[str, int]
) -> pd.DataFrame:
    """Return the forecasts of every table by every law and every other method."""
    parts = []
    for name, runs in tables.items():
        start = time.monotonic()
        for title, law in laws.items():
            parts.append(forecasts(runs, name, law=law, **sampler).assign(forecaster=title))
        if peers:
            parts.append(forecasts(runs, name, forecasters=peers).replace({"forecaster": NAMES}))
        print(f"{name}: {len(runs)} runs, {time.monotonic() - start:.0f} s", flush=True)
    return pd.concat(parts, ignore_index=True)


def summary(rows: pd.DataFrame) -> str:
    """Return the scores of every method; CRPS and RMSE are geometric means over tables and cutoffs of ratios to the first method."""
    rows = rows.assign(square=(rows["predicted"] - rows["observed"]) ** 2)
    splits = rows.groupby(["forecaster", "table", "prediction_cutoff"], sort=False)[["crps", "square"]].mean()
    splits["square"] **= 0.5
    methods = list(dict.fromkeys(rows["forecaster"]))
    cells = []
    for method in methods:
        mine = rows[rows["forecaster"] == method]
        crps, rmse = np.exp(np.log(splits.loc[method] / splits.loc[methods[0]]).mean())
        fits = mine[["table", "prediction_cutoff", "failed"]].drop_duplicates()
        shares = (f"{100 * mine[name].mean():.0f}%" for name in ("inside_90", "inside_50"))
        numbers = f"{crps:.2f}", f"{rmse:.2f}", f"{mine['elpd'].mean():.2f}"
        cells.append([method, len(mine), *shares, *numbers, f"{fits['failed'].sum()} of {len(fits)}"])
    return table(["method", "runs", "in 90%", "in 50%", "CRPS", "RMSE", "elpd per run", "failed fits"], cells)


def coverage(rows: pd.DataFrame, groups: pd.Series) -> str:
    """Return the fraction of runs inside their 90% intervals, a row per method and a column per group."""
    options = {"index": "forecaster", "columns": "group", "sort": False, "observed": True}
    shares = rows.assign(group=groups).pivot_table(values="inside_90", aggfunc=["mean", "size"], **options)
    head = ["in 90%", *(f"{name} ({count})" for name, count in shares["size"].iloc[0].items())]
    lines = shares["mean"].itertuples()
    return table(head, ([method, *(f"{100 * share:.0f}%" for share in line)] for method, *line in lines))


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    options = parser(__doc__)
    options.add_argument("tables", nargs="*", metavar="TABLE")
    given = options.parse_args(arguments)
    tables = {Path(path).stem: bd.read_runs(path, "supervised") for path in given.tables}
    tables["tiny"] = bd.load_runs("tiny", kind="supervised")
    laws, peers, sampler = LAWS, [baselines.huber_bootstrap], {}
    if baselines.has_simple_scaling_laws():
        peers.append(baselines.simple_scaling_laws)
    else:
        print("simple-scaling-laws is not installed and therefore omitted.")
    if given.quick:
        tables, laws, peers = {"tiny": tables["tiny"]}, dict([next(iter(LAWS.items()))]), peers[1:]
        sampler = {"draws": 200, "tune": 300}
    rows = everything(tables, laws, peers, sampler)
    print(f"\n{summary(rows)}\n")
    print(f"{coverage(rows, pd.cut(rows['prediction_factor'], list(EDGES), labels=list(EDGES.values())[1:]))}\n")
    print(coverage(rows, rows["table"]))


if __name__ == "__main__":
    main()
