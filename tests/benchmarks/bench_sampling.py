"""Effective draws per second: this package's coordinates against the paper's symbols, nutpie against PyMC and numpyro.

    python tests/benchmarks/bench_sampling.py [--numpyro] [--short] [--skip-natural] [--target-accept 0.9]

Everything is timed in this one process on two cores, after compilation, and reported as a ratio to the default model; absolute
numbers depend on the machine. ESS is the smallest bulk ESS over the law's parameters, sigma and nu. With --numpyro the group `jax` of
pyproject.toml must be installed.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import ctypes
import sys
import time
from pathlib import Path

import numpy as np
import nutpie
import pandas as pd
import pymc as pm
import xarray as xr
from arviz_stats.base import array_stats

import bayesdistill as bd
from bayesdistill import compiler
from bayesdistill.compiler import translation
from bayesdistill.criticism.refits import prepare_refits, refit
from bayesdistill.law import DEFAULT_LAW, LAWS, SUPERVISED_SYMBOLS, distilled_loss
from bayesdistill.model import build_model, reference_run
from bayesdistill.priors import default_priors

sys.path.append(str(Path(__file__).parents[2] / "docs" / "studies"))
from baselines import fit_coordinates, law_of

PAPER, DEFAULT = LAWS["busbridge2025"], LAWS[DEFAULT_LAW]
JUDGED = (*PAPER.symbols_of_law, "sigma", "nu")


def smallest_ess(posterior: xr.Dataset) -> tuple[float, str]:
    """Smallest bulk ESS over the judged parameters, and whose it is."""
    draws = {name: posterior[name].transpose("chain", "draw").values for name in JUDGED}
    return min(
        (float(array_stats.ess(values, chain_axis=0, draw_axis=1, method="bulk")), name)
        for name, values in draws.items()
    )


def natural_model(runs) -> pm.Model:
    """The same law and likelihood in the paper's symbols: what one writes down first.

    The supervised law has the published-law prior, moved to the logarithms of its symbols; the rest has wide lognormal priors.
    """
    reference = reference_run(runs, None)
    priors = default_priors(DEFAULT, reference)
    rng = np.random.default_rng(0)
    values = priors.location[:6, None] + priors.factor[:6] @ rng.standard_normal((priors.factor.shape[1], 4000))
    alone = PAPER.for_runs(distilled=False, supervised=True)
    law = alone.symbols(dict(zip(priors.names[:6], values, strict=True)), reference)
    logs = np.log(np.stack([law[name] for name in SUPERVISED_SYMBOLS]))
    center = {"A_S": 1e3, "B_S": 1e5, "alpha_S": 0.35, "beta_S": 0.4, "gamma_S": 0.7, "c1": 1e4, "d1": 2.0, "f1": 0.1}
    width = {"A_S": 3.0, "B_S": 4.0, "c1": 4.0}
    with pm.Model() as model:
        supervised = pm.MvNormal("log_supervised", mu=logs.mean(axis=1), cov=np.cov(logs), initval=logs.mean(axis=1))
        symbols = {
            name: pm.Deterministic(name, pm.math.exp(supervised[i])) for i, name in enumerate(SUPERVISED_SYMBOLS)
        }
        for name, value in center.items():
            symbols[name] = pm.LogNormal(name, np.log(value), width.get(name, 0.5), initval=value)
        symbols["c0"] = pm.Normal("c0", 2.0, 1.5, initval=2.0)
        sigma = pm.LogNormal("sigma", np.log(0.01), 1.0)
        nu = pm.Deterministic("nu", 1 + pm.LogNormal("nu_minus_1", np.log(9.0), 1.0))
        columns = [runs[c].to_numpy(dtype=float) for c in ("student_params", "student_tokens", "teacher_loss")]
        mu = distilled_loss(columns[0], columns[1], columns[2], **symbols)
        pm.StudentT("y", nu=nu, mu=mu, sigma=sigma, observed=runs["student_loss"].to_numpy(dtype=float))
    return model


def timed(label: str, sample, results: list) -> None:
    """Sample once and keep label, seconds, ESS, ESS per second, divergences."""
    started = time.perf_counter()
    tree = sample()
    seconds = time.perf_counter() - started
    ess, slowest = smallest_ess(tree["posterior"].to_dataset())
    divergences = int(tree["sample_stats"]["diverging"].sum())
    results.append((label, seconds, ess, ess / seconds, divergences))
    print(
        f"{label}: {seconds:.1f} s, min ESS {ess:.0f} ({slowest}), {ess / seconds:.2f} min-ESS/s, {divergences} divergences",
        flush=True,
    )


def natural_rows(runs, slow: int, results: list) -> None:
    """The paper's symbols, sampled by nutpie and by PyMC."""
    natural = natural_model(runs)
    compiled = nutpie.compile_pymc_model(natural)
    timed(
        "the paper's symbols, nutpie",
        lambda: nutpie.sample(
            compiled,
            draws=slow,
            tune=slow,
            chains=4,
            cores=2,
            seed=1,
            target_accept=0.9,
            progress_bar=False,
            save_warmup=False,
        ),
        results,
    )
    with natural:
        timed(
            "the paper's symbols, PyMC NUTS (compile included)",
            lambda: pm.sample(
                slow,
                tune=slow,
                chains=4,
                cores=2,
                random_seed=1,
                nuts_sampler="pymc",
                nuts={"target_accept": 0.9},
                quiet=True,
            ),
            results,
        )


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--numpyro", action="store_true")
    parser.add_argument("--short", action="store_true", help="fewer draws of the slow competitors")
    parser.add_argument("--skip-natural", action="store_true", help="leave the paper's symbols out; they take minutes")
    parser.add_argument("--target-accept", type=float, default=0.9, help="of the package's models")
    options = parser.parse_args()
    accept = options.target_accept
    runs = bd.load_runs("busbridge2025")
    reference = reference_run(runs, None)
    results: list = []
    slow = 200 if options.short else 1000
    for label, law, prior_settings, seeds in (
        ("base model: equation 8", PAPER, {}, 5),
        ("default model (w1, kappa, omega 1, tied exponents, student effects and slopes)", DEFAULT, {}, 5),
        ("base model, no asymptotic prior", PAPER, {"asymptotic_width": None}, 1),
        ("default model without slopes", DEFAULT.with_effects("student"), {}, 1),
        ("default model, exponents apart", DEFAULT.without_terms("tied_exponents"), {}, 1),
        ("default model, omega free", DEFAULT.with_fixed(omega=None), {}, 1),
        ("default model, noise by r", DEFAULT.with_residual_noise("ratio"), {}, 1),
        ("default model with teacher effects", DEFAULT.with_effects("teacher", "student", "student_slope"), {}, 5),
        ("default model with teacher effects alone", DEFAULT.with_effects("teacher"), {}, 1),
    ):
        refitter = prepare_refits(runs, default_priors(law, reference, **prior_settings))
        refit(refitter, draws=10, tune=10, seed=1)
        for seed in range(1, 1 + seeds):
            timed(
                label,
                lambda refitter=refitter, seed=seed: refit(
                    refitter, draws=1000, tune=1000, seed=seed, target_accept=accept
                ),
                results,
            )
    if not options.skip_natural:
        natural_rows(runs, slow, results)
    if options.numpyro:
        with build_model(runs):
            timed(
                "default model, numpyro (compile included)",
                lambda: pm.sample(
                    1000,
                    tune=1000,
                    chains=4,
                    cores=2,
                    random_seed=1,
                    nuts_sampler="numpyro",
                    nuts={"target_accept": 0.9},
                    quiet=True,
                ),
                results,
            )
    started = time.perf_counter()
    rng = np.random.default_rng(0)
    start = fit_coordinates(runs, reference, None)
    for _ in range(32):
        law_of(fit_coordinates(runs.iloc[rng.integers(0, len(runs), len(runs))], reference, start), reference)
    bootstrap = (time.perf_counter() - started) / 32 * 4096
    print(f"4096 bootstrap refits of eq. 8 (32 timed): {bootstrap:.0f} s")
    print("\n| sampler | seeds | min-ESS/s | relative to the base model | divergences, all seeds |")
    print("| --- | --- | --- | --- | --- |")
    labels = list(dict.fromkeys(result[0] for result in results))
    rates = {label: float(np.median([r[3] for r in results if r[0] == label])) for label in labels}
    for label in labels:
        own = [result for result in results if result[0] == label]
        ratio, divergences = rates[label] / rates[labels[0]], sum(result[4] for result in own)
        print(f"| {label} | {len(own)} | {rates[label]:.3g} | {ratio:.3g} | {divergences} |")
    base, default = (float(np.median([r[1] for r in results if r[0] == label])) for label in labels[:2])
    print(
        f"\n4096 bootstrap refits over a base fit: {bootstrap / base:.0f}; over a default fit: {bootstrap / default:.0f}"
    )
    steps(runs, reference)
    scaling(runs, reference)


def steps(runs, reference) -> None:
    """Time of the log density with its gradient, one number at a time and several at once, in turns."""
    forms = {"base model": PAPER, "default model": DEFAULT}
    available = translation.lanes()
    print(
        f"\n| log density and gradient | several at once ({available}) | one by one | ratio |\n| --- | --- | --- | --- |"
    )
    for label, law in forms.items():
        priors = default_priors(law, reference)
        calls = []
        for lanes in (available, []):
            translation.lanes = lambda lanes=lanes: lanes
            model = build_model(runs, priors=priors, reference=reference)
            calls.append(density(compiler.compile(lambda model=model: model, None)))
        best = [min(times) for times in zip(*[[call() for call in calls] for _ in range(7)], strict=True)]
        print(f"| {label} | {1e6 * best[0]:.0f} µs | {1e6 * best[1]:.0f} µs | {best[1] / best[0]:.1f} |", flush=True)
    translation.lanes = lambda: available


def density(compiled):
    """A function that says how long one call of the compiled log density takes, in seconds, from a thousand of them."""
    pointer = ctypes.c_void_p
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_uint64, pointer, pointer, pointer, pointer)(
        compiled.compiled_logp_func.address
    )
    x = 0.3 * np.random.default_rng(0).standard_normal(compiled.n_dim)
    slope, value = np.empty(x.size), np.empty(1)

    def seconds() -> float:
        started = time.perf_counter()
        for _ in range(1000):
            # `compiled` owns the machine code and the data, and must outlive the calls.
            function(x.size, x.ctypes.data, slope.ctypes.data, value.ctypes.data, compiled.user_data.ctypes.data)
        return (time.perf_counter() - started) / 1000

    return seconds


def scaling(runs, reference) -> None:
    """Time of a step of the trajectory for 1, 10 and 100 times the runs, each copy with scatter of its own."""
    print("\n| runs | seconds a leapfrog step, relative to 354 runs | relative to the runs |\n| --- | --- | --- |")
    first = None
    for copies, more in ((1, 3000), (10, 600), (100, 100)):
        rng = np.random.default_rng(copies)
        table = pd.concat([runs] * copies, ignore_index=True)
        table["student_loss"] += 0.003 * rng.standard_normal(len(table))
        refitter = prepare_refits(table, default_priors(DEFAULT, reference))
        refit(refitter, draws=5, tune=5, seed=1, chains=1)
        seconds = []
        for draws in (20, 20 + more):  # the same chain, once longer: the difference has no tuning in it
            started = time.perf_counter()
            tree = refit(refitter, draws=draws, tune=200, seed=1, chains=1)
            seconds.append(time.perf_counter() - started)
        step = (seconds[1] - seconds[0]) / float(tree["sample_stats"]["n_steps"][:, 20:].sum())
        first = first or step
        print(f"| {len(table)} | {step / first:.1f} | {step / first / copies:.2f} |", flush=True)


if __name__ == "__main__":
    main()
