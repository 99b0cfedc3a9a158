"""Backtest of the decisions on the tiny experiment: fits to the cheap runs, predictions of the expensive ones.

    python docs/studies/tiny_backtest.py FOLDER [--draws 1000] [--variants NAME ...] [--scenarios NAME ...]
        [--posterior-only] [--include-failed] [--quick]

Prints the tables of explanation/tiny.md; keeps figures and results (netCDF) in FOLDER. Finished fits are kept there too, so that an
interrupted study resumes; other runs, or another model, start from the beginning.
"""

from __future__ import annotations

import joint_baselines
from common import WITHOUT_DISCREPANCY, parser
from tiny_common import distilled, flops, report_to_stderr, supervised

import bayesdistill as bd

VARIANTS = {
    "default": {},
    "without discrepancy": {"law": WITHOUT_DISCREPANCY},
    "kappa = 1": {"law": bd.LAWS["tied_reducible"].without_terms("soft_targets")},
    "plain": {"law": "busbridge2025"},
    "charged": {"law": "busbridge2025", "teachers": "charged"},
    "limited": {"law": WITHOUT_DISCREPANCY, "prior_settings": {"limited_data_width": 0.01}},
    "theory": {
        "law": WITHOUT_DISCREPANCY,
        "prior_settings": {"perfect_teacher_width": 0.005, "limited_data_width": 0.01},
    },
    "wide theory": {
        "law": WITHOUT_DISCREPANCY,
        "prior_settings": {"perfect_teacher_width": 0.015, "limited_data_width": 0.015},
    },
}
WORDS = {
    "default": "teachers given, the default law",
    "without discrepancy": "teachers given, the default law without its discrepancy",
    "kappa = 1": "teachers given, the default law with kappa = 1",
    "plain": "teachers given, equation 8 by itself",
    "charged": "teachers charged, equation 8 by itself: no run of a teacher above the cut-off is fitted",
    "limited": "without discrepancy, with the prior about a perfect teacher and limited data",
    "theory": "without discrepancy, with the priors about a perfect teacher",
    "wide theory": "without discrepancy, with wide priors about a perfect teacher",
}


def show(found, noise):
    table = bd.backtest_table(found, noise=noise)
    numbers = ["forecasts", "base_rate", "brier", "brier_skill", "log_score", "slope", "intercept"]
    losses = ["predictions", "coverage_50", "coverage_90", "rmse"]
    print(table.set_index(["group", "forecaster"])[numbers + losses].round(3).to_string())


def main(arguments: list[str] | None = None) -> None:
    command = parser(__doc__, folder=True)
    command.add_argument("--draws", type=int, default=1000)
    command.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    command.add_argument("--scenarios", nargs="+", help="scenarios; by default, the scenarios of bd.backtest")
    command.add_argument("--posterior-only", action="store_true", help="omit the baselines")
    command.add_argument("--include-failed", action="store_true", help="score fits that fail the convergence checks")
    chosen = command.parse_args(arguments)
    folder, draws, variants = chosen.folder, chosen.draws, {name: VARIANTS[name] for name in chosen.variants}
    methods, limits = ["posterior", joint_baselines.point, joint_baselines.bootstrap], {}
    if chosen.posterior_only:
        methods = methods[:1]
    if chosen.scenarios:
        limits["scenarios"] = chosen.scenarios
    if chosen.quick:
        draws, variants, methods, limits = 50, {"plain": VARIANTS["plain"]}, methods[:2], {"cutoffs": [4.5e12]}
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{len(distilled)} distilled and {len(supervised)} supervised runs")
    for name, variant in variants.items():
        found = bd.backtest(
            distilled,
            supervised,
            flops=flops,
            forecasters=methods,
            draws=draws,
            tune=draws,
            checkpoint=folder / f"{name}.json",
            progress=report_to_stderr(),
            include_failed=chosen.include_failed,
            **limits,
            **variant,
        )
        bd.save(found, folder / f"{name}.nc")
        print(f"\n# {WORDS[name]}")
        fits = ["fitted_distilled", "fitted_supervised", "rhat", "divergences", "failed"]
        print(found[fits].to_dataframe().round(3).to_string())
        for noise in ("run", "expected", "law"):
            print(f"\nprobabilities at the level {noise}")
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
