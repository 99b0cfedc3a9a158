"""What `check` reports about residuals, gamma and priors: calibrated by simulation, and every advice works."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.criticism import quality_findings as quality
from bayesdistill.criticism.prior_findings import prior_dependence_of_irreducible
from bayesdistill.criticism.residuals import Residuals
from bayesdistill.law import LAWS, PUBLISHED, SUPERVISED_SYMBOLS, Draws
from bayesdistill.law.predictive import Design
from bayesdistill.sampling.nuts import SETTINGS

FREE = LAWS["tied_reducible"]
GAMMA_ONE = FREE.with_fixed(gamma=1.0)
CHINCHILLA = {"E": 1.817, "A": 482.0, "B": 2085.0, "alpha": 0.348, "beta": 0.366, "gamma": 1.0}
PUBLISHED_SUPERVISED = {name: PUBLISHED[name] for name in SUPERVISED_SYMBOLS}
CURVED = {
    "E": 1.22,
    "A": 452.0,
    "B": 1614.0,
    "alpha": 0.307,
    "beta": 0.325,
    "gamma": 0.6,
}  # as the published law, but for gamma
GRID = pd.DataFrame(
    [(size, ratio * size) for size in np.geomspace(5e7, 1e10, 10) for ratio in (5, 10, 20, 40, 80)],
    columns=["params", "tokens"],
)


def simulated(truth: dict[str, float], seed: int, sigma: float = 0.01, nu: float = 10.0) -> pd.DataFrame:
    return bd.simulate_runs(PUBLISHED | truth, kind="supervised", seed=seed, design=GRID, sigma=sigma, nu=nu)


def fitted(table: pd.DataFrame, law: object = GAMMA_ONE, **options: object) -> xr.DataTree:
    table = bd.read_runs(table[["params", "tokens", "loss"]], "supervised", allow_suspicious=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bd.ConvergenceWarning)
        return bd.fit(supervised=table, law=law, progress=False, **options)  # type: ignore[arg-type]


def cautioned(fit: xr.DataTree, words: str) -> bool:
    return any(words in text for text in bd.check(fit).cautions)


# Trends of residuals --------------------------------------------------------------------------------------------------


def linear_residuals(rng: np.random.Generator, extra: float = 0.0, nu: float = 1e6) -> tuple[Residuals, np.ndarray]:
    """A linear model with two coefficients and exact draws of its posterior, of runs that have a third one."""
    x = np.linspace(-1, 1, 40)
    design, third = np.stack([np.ones(40), x], axis=1), x**2
    residual = 0.01 * (rng.standard_normal(40) if nu > 1e3 else rng.standard_t(nu, 40))
    loss = 2.5 + 0.3 * x + extra * third + residual
    weight = (nu + 1) / (nu + 3) / 1e-4
    covariance = np.linalg.inv(weight * design.T @ design + np.eye(2))
    coefficients = np.linalg.lstsq(design, loss, rcond=None)[0]
    for _ in range(30):
        miss = loss - design @ coefficients
        score = (nu + 1) * miss / (nu * 1e-4 + miss**2)
        coefficients = coefficients + covariance @ (design.T @ score - coefficients)
    draws = coefficients + rng.multivariate_normal(np.zeros(2), covariance, 300)
    law = Draws(FREE.for_runs(distilled=False, supervised=True), PUBLISHED_SUPERVISED | {"sigma": 0.01, "nu": nu})
    runs = Design("supervised", np.full(40, 1e9), np.full(40, 2e10))
    return Residuals("supervised", runs, law, loss, draws @ design.T, np.full(40, 0.01), nu), third


@pytest.mark.parametrize("nu", [1e6, 4.0])
def test_trends_have_the_size_and_the_error_that_they_state(nu):
    rng = np.random.default_rng(1)
    scores, off = [], []
    for extra in np.tile([0.0, 0.01], 150):
        one, third = linear_residuals(rng, extra, nu)
        estimate, error, span = one.trend(third)
        scores.append((estimate - extra) / error)
        off.append(abs(estimate / error) > 1.96 if extra == 0 else np.nan)
        assert 0.5 < span <= 1.1
    scores = np.array(scores)
    assert abs(scores.mean()) < 0.15
    assert scores.std() == pytest.approx(1.0, abs=0.1)
    assert np.nanmean(off) < 0.1


def test_what_the_law_follows_is_no_trend():
    one, _ = linear_residuals(np.random.default_rng(2))
    x = np.linspace(-1, 1, 40)
    estimate, error, _ = one.trend(1 + 3 * x)
    assert not np.isfinite(error) or abs(estimate / error) < 3


# Fits that check questions, and its advice followed ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_good_tables_have_no_cautions(seed):
    for truth, law in ((CHINCHILLA, GAMMA_ONE), (CHINCHILLA, FREE), (PUBLISHED_SUPERVISED, FREE)):
        found = bd.check(fitted(simulated(truth, seed), law, seed=seed, draws=2000))
        assert found.ok, found
        assert found.cautions == (), found


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [0.6, 1.0])
def test_gamma_fixed_where_the_runs_have_another(gamma):
    truth = CHINCHILLA if gamma == 1 else CURVED
    table = simulated(truth, 5, sigma=0.003)
    fit = fitted(table)
    assert cautioned(fit, "contradict gamma = 1. Fit with gamma free") == (gamma != 1)
    (one,) = quality.residuals_of(fit)
    estimate, error, _ = one.trend(quality.gamma_direction(one))
    if gamma == 1:
        assert abs(estimate / error) < 3
        return
    # One step from gamma = 1 goes most of the way.
    assert 0.4 < np.exp(estimate) < 0.85
    free = fitted(table, GAMMA_ONE.with_fixed(gamma=None), draws=2000)
    assert not cautioned(free, "gamma")
    assert not cautioned(free, "depend on")
    low, high = free["posterior"]["gamma"].quantile([0.01, 0.99]).values
    assert low < 0.6 < high < 1


@pytest.mark.slow
def test_runs_that_went_wrong_are_named():
    table = simulated(CHINCHILLA, 6, nu=50.0)
    wrong = [3, 11, 17, 22, 28, 33, 39, 41, 44, 46]
    table.loc[wrong, "loss"] += np.random.default_rng(0).uniform(0.3, 1.5, len(wrong))
    fit = fitted(table)
    (text,) = [text for text in bd.check(fit).cautions if "miss the law by much more" in text]
    named, rest = text.split("rows ")[1].split(", the worst 5 of ")
    assert {int(row) - 1 for row in named.split(", ")} <= set(wrong)
    assert len(named.split(", ")) == 5 < int(rest.split(")")[0]) <= len(wrong)
    assert not cautioned(fit, "the prior of log_nu")
    assert not cautioned(fitted(table.drop(index=wrong)), "much more")


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ["tokens", "losses"])
def test_tables_that_the_law_does_not_describe(mistake):
    """Tokens that count up to 100 epochs of data that are worth one, and losses of two data sets."""
    honest = simulated(CHINCHILLA, 7)
    rng = np.random.default_rng(7)
    wrong = {
        "tokens": honest["tokens"] * 10 ** rng.uniform(0, 2, len(honest)),
        "losses": honest["loss"] + rng.choice([0, 0.8], len(honest)),
    }
    column = mistake.replace("losses", "loss")
    fit = fitted(honest.assign(**{column: wrong[mistake]}))
    assert cautioned(fit, "so it does not describe them. Check that tokens are unique tokens (no repeated epochs)")
    assert not cautioned(fitted(honest), "does not describe")


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 4])
def test_repeated_epochs_of_some_runs(epochs):
    """Four runs repeat their data, and further epochs are worth nothing."""
    some = (GRID["tokens"] >= 80 * GRID["params"]) & (GRID.index % 20 > 9)
    unique = GRID.assign(tokens=GRID["tokens"] / np.where(some, epochs, 1))
    table = bd.simulate_runs(PUBLISHED | CHINCHILLA, kind="supervised", seed=7, design=unique, sigma=0.01, nu=50.0)
    fit = fitted(table.assign(tokens=GRID["tokens"]))
    assert cautioned(fit, "no repeated epochs") == (epochs > 1)


@pytest.mark.slow
def test_a_prior_in_conflict_with_the_runs():
    table = simulated(CHINCHILLA, 8, sigma=0.4, nu=50.0)
    fit = fitted(table)
    assert cautioned(fit, "The runs and the prior of log_sigma (the residual scale) contradict each other.")
    assert "priors={'log_sigma': bd.Prior(location, scale)}" in bd.check(fit).verdict
    other = fitted(table, priors={"log_sigma": bd.Prior(np.log(0.3), 1.0)})
    assert not cautioned(other, "contradict each other")


@pytest.mark.slow
def test_equation_8_is_in_conflict_with_the_published_law(runs354, fit354):
    """And neither the default law nor a fit with supervised runs is."""
    equation_8 = bd.fit(runs354, law="busbridge2025", progress=False)
    words = "contradict the published law"
    assert cautioned(equation_8, words)
    assert bd.check(equation_8).verdict.count(words) == 1
    shifts = posterior.prior_shifts(equation_8)
    assert max(abs(shifts[name]) for name in posterior.SUPERVISED_COORDINATES) > 4
    assert not cautioned(fit354, words)
    assert max(abs(posterior.prior_shifts(fit354)[name]) for name in posterior.SUPERVISED_COORDINATES) < 1
    supervised = bd.simulate_runs(PUBLISHED, kind="supervised", seed=1, sigma=0.005)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bd.ConvergenceWarning)
        joint = bd.fit(runs354, supervised, law="busbridge2025", progress=False)
    assert not cautioned(joint, "contradict")


@pytest.mark.slow
def test_the_shift_of_the_irreducible_loss_is_that_of_a_refit():
    """Runs whose losses hardly bend, with priors twice as wide in variance."""
    table = simulated(PUBLISHED_SUPERVISED, 9, sigma=0.03)
    options = {"draws": 4000, "tune": 2000}
    fit = fitted(table, FREE, **options)
    shift, widening, sd = prior_dependence_of_irreducible(fit)
    priors = {
        str(row): bd.Prior(float(prior["location"]), float(prior["scale"]) * 2**0.5)
        for row, prior in fit["prior_table"].to_dataset().to_dataframe().iterrows()
        if prior["scale"] > 0
    }
    wider = fitted(table, FREE, priors=priors, **options)
    moved = float(wider["posterior"]["E"].mean() - fit["posterior"]["E"].mean())
    assert shift < -0.01
    assert 0.4 < shift / moved < 2.0
    assert 1 < widening < float(wider["posterior"]["E"].std()) / sd * 1.15
    assert sd == pytest.approx(float(fit["posterior"]["E"].std()), rel=1e-3)


DEFAULTS = "Fit without the arguments draws, tune and target_accept"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("poor", "words", "thresholds"),
    [
        ({"tune": 15, "draws": 40}, "disagree about", {}),
        # With few draws, R-hat fails as well, unless its threshold is higher.
        ({"tune": 1000, "draws": 120}, "effective sample size is too small. Sample longer", {"max_rhat": 1.05}),
        ({"draws": 1000}, "effective sample size is too small. Sample longer", {"min_ess_bulk": 6000}),
        ({"chains": 1, "tune": 20, "draws": 300}, "Sample four chains (chains=4)", {}),
        ({"tune": 20}, "Trajectories reached the maximum tree depth", {}),
        ({"target_accept": 0.3}, f"divergent transitions. {DEFAULTS}", {}),
    ],
)
def test_advice_on_sampling_works(poor, words, thresholds):
    """Repeated until nothing is left to advise; every round doubles what it increases."""
    table, law, options = simulated(PUBLISHED_SUPERVISED, 10), FREE, dict(poor)
    if "target_accept" in poor:
        # Few runs and no discrepancy: a posterior with sharp bends.
        table, law = table.iloc[::4], FREE.with_discrepancy()
    limits = bd.ConvergenceThresholds(**thresholds)
    found = bd.check(fitted(table, law, **options), thresholds=limits)
    assert found.ok is False
    assert words in found.verdict
    for _ in range(4):
        text = found.verdict
        if DEFAULTS in text:
            options = {name: value for name, value in options.items() if name == "chains"}
            text = ""
        for name in ("tune", "draws", "chains"):
            if f"{name}=" in text:
                options[name] = int("".join(c for c in text.split(f"{name}=")[1][:6] if c.isdigit()))
        found = bd.check(fitted(table, law, **options), thresholds=limits)
        if found.ok:
            break
    assert found.ok, found
    assert options.get("draws", 0) <= 10_000


def failed_fit(settings, **origin):
    """Draws with a divergence, of a fit with these settings."""
    rng = np.random.default_rng(0)
    draws = {name: (("chain", "draw"), v * rng.lognormal(0, 0.01, (4, 1000))) for name, v in PUBLISHED.items()}
    diverging = np.zeros((4, 1000), dtype=bool)
    diverging[1, 5] = True
    tree = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(draws, attrs={"law": "busbridge2025"}),
            "sample_stats": xr.Dataset({"diverging": (("chain", "draw"), diverging)}),
        }
    )
    tree.attrs[posterior.PROVENANCE_ATTRIBUTE] = json.dumps({"settings": settings, **origin})
    return tree


def test_advice_on_sampling_ends():
    """After the last settings of `fit`, no advice is to sample longer."""
    first, *_, last = SETTINGS
    for settings in (first, last | {"draws": 100}, last | {"target_accept": 0.9}):
        assert DEFAULTS in bd.check(failed_fit(settings)).verdict
    for settings in (last, last | {"draws": 9000}):
        verdict = bd.check(failed_fit(settings, asymptotic_width=0.005)).verdict
        assert "Fit without it (asymptotic_width=None)" in verdict
        assert DEFAULTS not in verdict
        verdict = bd.check(failed_fit(settings, asymptotic_width=None)).verdict
        assert "Add runs of other sizes, tokens or teachers" in verdict
        assert DEFAULTS not in verdict


def test_findings_describe_the_worst_variable():
    tree = failed_fit(SETTINGS[0])
    chains = np.arange(4.0)[:, None, None] + 0.1 * np.random.default_rng(1).standard_normal((4, 1000, 2))
    z = xr.DataArray(chains, dims=("chain", "draw", "coordinate"), coords={"coordinate": ["log_power_S", "log_kappa"]})
    z[..., 1] = np.random.default_rng(2).standard_normal((4, 1000))
    tree["posterior"] = xr.DataTree(tree["posterior"].to_dataset().assign(z=z))
    text = "The chains disagree about log_power_S: how a student's excess grows with its own reducible loss."
    assert text in bd.check(tree).verdict
