"""Does the rule for repeated tokens describe the runs behind it?

    python docs/studies/limited_data.py

The supervised law is fitted to the runs of `data/muennighoff2023` that have at least one unique token per parameter and at most 60
epochs, by least absolute residuals of log losses (Huber with a width of 0.01): without a rule, with the published constants, and with
both constants free. The table has the errors by epochs for these runs and those with more epochs, and for the runs with fewer unique
tokens.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize

import bayesdistill as bd
from bayesdistill.law import Repetition

RUNS = Path(__file__).parents[2] / "data" / "muennighoff2023" / "runs.csv"
EPOCHS = (0, 1.01, 4.5, 16, 60, 2000)
START = (np.log(1.87), 6.255, 7.305, 0.353, 0.353)  # ln E, ln A, ln B, alpha, beta of the study's law


def predicted(runs: pd.DataFrame, x: np.ndarray, rule: bool = True) -> np.ndarray:
    """Return losses of runs; x has ln E, ln A, ln B, alpha, beta, and optionally the logarithms of both constants."""
    e, a, b, alpha, beta = x[:5]
    params, tokens, unique = (runs[name].to_numpy(float) for name in ("params", "tokens", "unique_tokens"))
    if rule:
        constants = bd.RepetitionPrior()
        decays = np.exp(x[5:]) if x.size > 5 else (constants.decay, constants.params_decay)
        enough = np.exp((np.log(alpha) + a - np.log(beta) - b + beta * np.log(unique)) / alpha)
        # The rule has one corpus; these runs have several.
        rules = [Repetition(u, decays[0], v, decays[1]) for u, v in zip(unique, enough, strict=True)]
        params = np.array([one.effective_params(n) for one, n in zip(rules, params, strict=True)])
        tokens = np.array([one.effective(d) for one, d in zip(rules, tokens, strict=True)])
    return np.asarray(
        bd.supervised_loss(params, tokens, E=np.exp(e), A=np.exp(a), B=np.exp(b), alpha=alpha, beta=beta, gamma=1.0)
    )


def fitted(runs: pd.DataFrame, start: np.ndarray, rule: bool, tries: int) -> np.ndarray:
    """Return the best of several fits from random starting points."""
    rng, loss = np.random.default_rng(0), runs["loss"].to_numpy()

    def cost(x: np.ndarray) -> float:
        if min(x[3:5]) < 0.02:
            return 1e3
        error = np.abs(np.log(predicted(runs, x, rule) / loss))
        return float(np.where(error < 0.01, error**2 / 2, 0.01 * (error - 0.005)).sum())

    width = np.array([0.1, 0.5, 0.5, 0.03, 0.03, 0.2, 0.2])[: start.size]
    limits = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-8, "fatol": 1e-12}
    found = [
        minimize(cost, start + width * rng.standard_normal(start.size), method="Nelder-Mead", options=limits)
        for _ in range(tries)
    ]
    return min(found, key=lambda one: one.fun).x


def main(arguments: list[str] | None = None) -> None:
    """Print the table of errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one starting point and a third of the runs")
    quick = parser.parse_args(arguments).quick
    runs = pd.read_csv(RUNS)
    runs = runs.iloc[::3] if quick else runs
    start = np.array(START)
    cases = {
        "without a rule": (start, False),
        "published constants": (start, True),
        "free constants": (np.append(start, np.log([15.39, 5.31])), True),
    }
    epochs = (runs["tokens"] / runs["unique_tokens"]).to_numpy()
    enough = (runs["unique_tokens"] >= runs["params"]).to_numpy()
    names = ["1", "1 to 4.5", "4.5 to 16", "16 to 60", "above 60", "any, less than 1 unique token per parameter"]
    group = np.where(enough, np.digitize(epochs, EPOCHS) - 1, len(names) - 1)
    print("| law | epochs | runs | RMSE [nats] | median error | bias |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (first, rule) in cases.items():
        x = fitted(runs[enough & (epochs <= 60)], first, rule, 1 if quick else 6)
        error = predicted(runs, x, rule) - runs["loss"].to_numpy()
        for k, words in enumerate(names):
            e = error[group == k]
            if e.size:
                rmse = np.sqrt(np.mean(e**2))
                print(f"| {name} | {words} | {e.size} | {rmse:.3f} | {np.median(np.abs(e)):.3f} | {e.mean():+.3f} |")
        if x.size > 5:
            print(f"\nFree constants: R_D* = {np.exp(x[5]):.1f}, R_N* = {np.exp(x[6]):.1f}")


if __name__ == "__main__":
    main()
