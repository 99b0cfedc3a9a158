"""Backtests the decisions on the tiny experiment: fits to the cheap runs, forecasts of the dear ones, what came true.

    python docs/explanation/tiny_backtest.py FOLDER [DRAWS]

Finished fits are kept in FOLDER, so that an interrupted run goes on where it stopped; other runs, or another model, start
anew. Prints the tables of tiny.md and leaves two figures and the results (netCDF) in FOLDER.
"""

import sys
import time
from pathlib import Path

from tiny_common import distilled, flops, supervised

import bayesdistill as bd

VARIANTS = {
    "default": {},
    "without": {"law": bd.LAWS["tied_reducible"].without_terms("soft_targets")},
    "plain": {"law": "busbridge2025"},
    "charged": {"law": "busbridge2025", "teachers": "charged"},
}
WORDS = {
    "default": "teachers given, the default model",
    "without": "teachers given, the default model with kappa = 1",
    "plain": "teachers given, equation 8 by itself",
    "charged": "teachers charged, equation 8 by itself: no run of a teacher above the cut-off is fitted",
}


def show(found, noise):
    table = bd.backtest_table(found, noise=noise)
    numbers = ["forecasts", "base_rate", "brier", "brier_skill", "log_score", "slope", "intercept"]
    losses = ["predictions", "coverage_50", "coverage_90", "rmse"]
    print(table.set_index(["group", "forecaster"])[numbers + losses].round(3).to_string())


def told(began):
    """Prints how far a backtest is."""
    return lambda done, of: print(f"{done}/{of} {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def main():
    folder = Path(sys.argv[1])
    draws = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{len(distilled)} distilled and {len(supervised)} supervised runs")
    for name, variant in VARIANTS.items():
        found = bd.backtest(
            distilled,
            supervised,
            flops=flops,
            draws=draws,
            tune=draws,
            checkpoint=folder / f"{name}.json",
            progress=told(time.monotonic()),
            **variant,
        )
        bd.save(found, folder / f"{name}.nc")
        print(f"\n# {WORDS[name]}")
        fits = ["fitted_distilled", "fitted_supervised", "rhat", "divergences", "failed"]
        print(found[fits].to_dataframe().round(3).to_string())
        for noise in ("run", "law"):
            print(f"\nprobabilities with {noise} noise")
            show(found, noise)
        everything = found.sel(group="all", forecaster="posterior", noise="run")
        for score in ("brier_skill", "slope", "coverage_90"):
            low, high = (float(everything[f"{score}_{end}"]) for end in ("lower", "upper"))
            print(f"{score} {float(everything[score]):.2f} ({low:.2f} to {high:.2f})")
        curve = ["curve_count", "curve_mean_probability", "curve_share", "curve_lower", "curve_upper"]
        print(found[curve].sel(forecaster="posterior", noise="run").to_dataframe()[curve].round(2).to_string())
        bd.plot_backtest(found).savefig(folder / f"{name}.png", dpi=150)


if __name__ == "__main__":
    main()
