"""Fits of both laws to the tiny experiment: residuals, repeated seeds, and exponents compared with the paper's.

    python docs/studies/tiny_fit.py [FOLDER] [--quick]

Prints the first tables of explanation/tiny.md; with FOLDER, the two fits are kept there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from common import WITHOUT_DISCREPANCY, parser
from tiny_common import distilled, supervised

import bayesdistill as bd
from bayesdistill.law import LAWS, SUPERVISED_SYMBOLS

LONG = {"draws": 4000, "tune": 1500, "target_accept": 0.95, "seed": 0, "progress": False}
STRONGEST = ("d128-32M", "d192-16M")


def spread_of_seeds(table, loss, cell):
    """Standard deviation between repeats of a cell, pooled."""
    groups = [g[loss].to_numpy() for _, g in table.groupby(cell) if len(g) > 1]
    return np.sqrt(sum(((g - g.mean()) ** 2).sum() for g in groups) / sum(g.size - 1 for g in groups)), len(groups)


def fits(folder, sampler):
    """The joint fit of the tiny experiment, and the fit of the paper's runs."""
    # Equation 8 without the additional terms of the default model, because the question is whether equation 8 is correct.
    tiny = bd.fit(distilled, supervised=supervised, law="busbridge2025", **sampler)
    of_paper = {} if sampler == LONG else {"draws": sampler["draws"], "tune": sampler["tune"]}
    paper = bd.fit(bd.load_runs("busbridge2025"), law="busbridge2025", seed=0, progress=False, **of_paper)
    if folder is not None:
        bd.save(tiny, folder / "tiny.nc")
        bd.save(paper, folder / "paper.nc")
    return tiny, paper


def by(table, column, edges, residual):
    """Residuals by the value of a column: count, mean and root mean square."""
    where = pd.cut(table[column], edges, include_lowest=True)
    group = residual.groupby(where, observed=True)
    return pd.DataFrame(
        {"runs": group.size(), "mean": group.mean(), "rms": group.apply(lambda x: np.sqrt((x**2).mean()))}
    )


def main(arguments: list[str] | None = None) -> None:
    command = parser(__doc__)
    command.add_argument("folder", nargs="?", type=Path, help="folder in which the two fits are kept")
    chosen = command.parse_args(arguments)
    if chosen.folder is not None:
        chosen.folder.mkdir(parents=True, exist_ok=True)
    sampler = LONG | ({"draws": 100, "tune": 200} if chosen.quick else {})
    show(*fits(chosen.folder, sampler))
    compare_supervised_laws(sampler, 1 if chosen.quick else None)


def compare_supervised_laws(sampler, first):
    """Effect of the distilled runs on the supervised law: without them, with all, with fewer, with more terms.

    `first` limits the number of fits.
    """
    weaker = distilled[~distilled["teacher"].isin(STRONGEST)]
    paper, default = LAWS["busbridge2025"], WITHOUT_DISCREPANCY
    forms = {
        "supervised runs alone": (None, default),
        "and all distilled runs": (distilled, paper),
        "and distilled runs without the two strongest teachers": (weaker, paper),
        "and all distilled runs, equation 8 with kappa": (distilled, paper.with_terms("soft_targets")),
        "and all distilled runs, default model with kappa = 1": (distilled, default.without_terms("soft_targets")),
        "and all distilled runs, default model with omega free": (distilled, default.with_fixed(omega=None)),
        "and all distilled runs, default model": (distilled, default),
    }
    rows = {}
    for name, (runs, law_of_fit) in list(forms.items())[:first]:
        fit = bd.fit(runs, supervised=supervised, law=law_of_fit, **sampler)
        draws = {key: fit["posterior"][key].values.ravel()[:, None] for key in SUPERVISED_SYMBOLS}
        law = bd.supervised_loss(supervised["params"].to_numpy(), supervised["tokens"].to_numpy(), **draws)
        residual = supervised["loss"].to_numpy() - law.mean(axis=0)
        shortest = supervised["tokens"].to_numpy() == supervised["tokens"].min()
        rows[name] = {
            "passes": bd.check(fit).ok,
            "rms": np.sqrt((residual**2).mean()),
            "mean on 0.5M tokens": residual[shortest].mean(),
            "alpha gamma": np.median(draws["alpha"] * draws["gamma"]),
            "beta gamma": np.median(draws["beta"] * draws["gamma"]),
        }
        for symbol in ("kappa", "omega"):
            if symbol in fit["posterior"]:
                found = np.quantile(fit["posterior"][symbol], [0.05, 0.5, 0.95])
                rows[name][symbol] = " ".join(f"{x:.2f}" for x in found)
        if runs is None:
            alone = float(bd.supervised_loss(24.0 * 64**2, 64_000 * 1024.0, **draws).mean())
    print("\nsupervised residuals and exponents by what is fitted")
    print(pd.DataFrame(rows).T.to_string())
    print(f"supervised runs alone: {alone:.3f} nats for width 64 on 64M tokens")


def show(tiny, paper):
    print(f"{len(distilled)} distilled and {len(supervised)} supervised runs")
    print(bd.check(tiny))
    curves = bd.law_curves(tiny)
    law = tiny["posterior"].to_dataset()[list(SUPERVISED_SYMBOLS)].mean(("chain", "draw"))
    six = {name: tiny["posterior"][name].values.ravel()[:, None] for name in SUPERVISED_SYMBOLS}

    def alone(params, tokens):
        return bd.supervised_loss(params.to_numpy(float), tokens.to_numpy(float), **six).mean(axis=0)

    runs = distilled.assign(
        residual=curves["residual"].values,
        r=distilled["teacher_loss"] / alone(distilled["student_params"], distilled["student_tokens"]),
        beats=distilled["student_loss"] < distilled["teacher_loss"],
    )
    others = supervised.assign(residual=supervised["loss"] - alone(supervised["params"], supervised["tokens"]))
    print(f"\nposterior mean of E {float(law['E']):.3f}")
    for name, table, loss, cell in (
        ("distilled", runs, "student_loss", ["student", "student_tokens", "teacher"]),
        ("supervised", others, "loss", ["params", "tokens"]),
    ):
        seeds, cells = spread_of_seeds(table, loss, cell)
        rms = np.sqrt((table["residual"] ** 2).mean())
        print(
            f"{name}: rms of residuals {rms:.4f} nats, largest {table['residual'].abs().max():.4f}; seeds {seeds:.4f} ({cells} cells)"
        )
    noise = tiny["posterior"].to_dataset()[["sigma", "sigma_supervised", "nu"]]
    print(noise.quantile([0.05, 0.5, 0.95], dim=("chain", "draw")).to_dataframe().T.round(4).to_string())
    print(
        "\ndistilled residuals (run minus law, nats) by r\n",
        by(runs, "r", [0, 0.7, 0.8, 0.9, 1.0, 1.05, 2], runs["residual"]).round(4),
    )
    print(
        "\nby tokens of the student\n", runs.groupby("student_tokens")["residual"].agg(["size", "mean", "std"]).round(4)
    )
    print("\nby student\n", runs.groupby("student_params")["residual"].agg(["size", "mean", "std"]).round(4))
    print("\nby teacher\n", runs.groupby("teacher")["residual"].agg(["size", "mean", "std"]).round(4))
    print(
        "\nsupervised residuals by size\n", others.groupby("params")["residual"].agg(["size", "mean", "std"]).round(4)
    )
    print("\nby tokens\n", others.groupby("tokens")["residual"].agg(["size", "mean", "std"]).round(4))
    better = runs[runs["beats"]]
    gap = better["teacher_loss"] - better["student_loss"]
    print(
        f"\n{len(better)} of {len(runs)} students beat their teacher, by up to {gap.max():.4f} nats, r from {better['r'].min():.2f} to "
        f"{better['r'].max():.2f}; mean residual {better['residual'].mean():.4f}"
    )
    print(
        "\nlargest residuals\n",
        runs.loc[
            runs["residual"].abs().nlargest(8).index, ["student", "student_tokens", "teacher", "seed", "r", "residual"]
        ].round(3),
    )
    print("\ntiny and the paper\n", bd.compare_fits(tiny, paper).to_dataframe().round(3).to_string())


if __name__ == "__main__":
    main()
