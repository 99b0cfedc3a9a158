"""Parts of the uncertainty of one answer: exact sums, closed forms, Monte Carlo errors, and what is said about them."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from functools import cache

import mixed_fits
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from decision_cases import posterior_of, published, scattered, simple
from scipy.stats import norm
from typer.testing import CliRunner

import bayesdistill as bd
from bayesdistill import cli, posterior
from bayesdistill.decisions.planning import changed
from bayesdistill.design.candidates import parse_candidates, predict, proposed_candidates
from bayesdistill.errors import ModelError, ParameterError
from bayesdistill.explaining import PARTS
from bayesdistill.explaining.variances import event_parts, event_parts_error, mean_error, prior_change, sum_parts

WITHIN = ["posterior", "discrepancy", "group effects", "residual noise", "interactions"]
N = 4000


def share(found: xr.Dataset, part: str, of: str = "gain") -> float:
    return found[f"{of}_share"].sel(part=part).item()


def variance(found: xr.Dataset, part: str | list[str], of: str = "gain") -> float:
    return float(found[f"{of}_variance"].sel(part=part).sum())


@cache
def unshifted_gain() -> float:
    return float(gain_of(posterior_of(simple()))["expected_gain"].item())


def normal_law(spread: float, mean: float = 0.001, seed: int = 0, exact: bool = True, **more: np.ndarray) -> xr.Dataset:
    """A posterior whose gain is normal: the coefficient A_S of a law without capacity gap, whose term is A_S / N^a.

    With `exact`, mean and standard deviation of the draws are those of the distribution.
    """
    draws = simple(N)
    size = 1e9 ** draws["alpha_S"][0]
    noise = np.random.default_rng(seed).standard_normal(N)
    noise = (noise - noise.mean()) / noise.std() if exact else noise
    change = mean - unshifted_gain() + spread * noise
    return posterior_of(draws | {"A_S": draws["A_S"] - size * change} | more, chains=4)


def gain_of(fit: xr.Dataset, **options: object) -> xr.Dataset:
    return bd.plan(fit, 1e9, 1e21, "best case", progress=False, draws=4, **options)


# The whole is the sum of its parts -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planner354(fit354) -> bd.Planner:
    """Convergence is checked once."""
    return bd.Planner(fit354, progress=False, draws=4)


@pytest.fixture(scope="module")
def plan354(planner354) -> xr.Dataset:
    return bd.plan(planner354, ["300M", "1B"], 1e22, ["best case", "teacher inference"])


@pytest.mark.parametrize(("level", "scenario"), [("law", "best case"), ("expected", "teacher inference")])
def test_parts_sum_to_the_variance_of_the_answer(planner354, plan354, level, scenario):
    found = bd.explain(plan354, planner354, student="1B", budget=1e22, scenario=scenario, noise=level)
    for name in ("gain", "probability"):
        assert float(found[f"{name}_share"].sum()) == pytest.approx(1, abs=1e-12)
        assert float(found[f"{name}_variance"].sum()) == pytest.approx(float(found[f"{name}_total"]), rel=1e-12)
    one = plan354.sel(student=1e9, budget=1e22, scenario=scenario)
    seen = one["advantage"] if level == "expected" else one["supervised_loss"] - one["distilled_loss"]
    # Stored laws shift the gain of the fit, so its variance within a law is that of the fit.
    assert variance(found, WITHIN) == pytest.approx(float(seen.var()), rel=1e-9)
    assert found["gain"].item() == pytest.approx(float(seen.mean()), rel=1e-9)
    np.testing.assert_allclose(found["gain_by_law"].mean(), found["gain"])
    shifts = found["gain_by_law"].values - found["gain"].item()
    p = [(seen.values + shift > 0).mean() for shift in shifts]
    np.testing.assert_allclose(found["probability_by_law"], p)
    inner = variance(found, ["form of the law", *WITHIN], "probability")
    assert inner == pytest.approx(np.mean(p) * (1 - np.mean(p)), rel=1e-9)
    error = posterior.mean_mcse(seen)[1].item() ** 2
    assert variance(found, "Monte Carlo error") == pytest.approx(error, rel=1e-9)
    assert set(found["law"].values) == set(plan354["law"].values)
    assert np.all(found["gain_variance"].sel(part=["group effects", "discrepancy"]) > 0) == (level == "expected")
    assert variance(found, "residual noise") == 0


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_separate_fits_give_the_variance_of_their_mixture(count):
    fits = dict(itertools.islice(mixed_fits.fits().items(), count))
    options = {"allow_unconverged": True}
    first = next(iter(fits))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bd.ConvergenceWarning)
        plan = gain_of(fits[first], noise="run", **options)
        found = bd.explain(plan, fits, weights={name: k + 1 for k, name in enumerate(fits)}, **options)
    assert found.attrs["converged"] == "no"
    weight = found["law_weight"].values
    np.testing.assert_allclose(weight, np.arange(1, count + 1) / sum(range(count + 1)))
    assert found["law"].values.tolist() == list(fits)
    # The first fit has the gains of the plan, so its mean is known.
    assert found["gain_by_law"].sel(law=first).item() == pytest.approx(float(plan["advantage"].mean()), rel=1e-9)
    between = weight @ (found["gain_by_law"].values - weight @ found["gain_by_law"].values) ** 2
    assert variance(found, "form of the law") == pytest.approx(between, rel=1e-12)
    p = weight @ found["probability_by_law"].values
    assert variance(found, ["form of the law", *WITHIN], "probability") == pytest.approx(
        p * (1 - p), rel=1e-9, abs=1e-15
    )


def test_a_mixture_has_the_variance_of_its_draws():
    eight = posterior_of(scattered(400, seed=1), chains=4)
    other = eight.assign(A_S=1.03 * eight["A_S"])
    many = bd.mix({"a": eight, "b": other}, {"a": 3, "b": 1})
    plan = gain_of(many)
    found = bd.explain(plan, many)
    assert found["law_weight"].values.tolist() == pytest.approx([0.75, 0.25], abs=0.005)
    assert variance(found, ["form of the law", *WITHIN]) == pytest.approx(float(plan["advantage"].var()), rel=1e-9)
    assert found["probability"].item() == pytest.approx(plan["probability"].item())
    np.testing.assert_allclose(found["probability_by_law"], plan["probability_by_law"].squeeze())
    assert np.isnan(share(found, "priors"))
    assert "no mixture" in found.attrs["unknown"]


# Closed forms ---------------------------------------------------------------------------------------------------------


def test_a_normal_posterior_is_the_only_part():
    fit = normal_law(0.002)
    found = bd.explain(gain_of(fit), fit)
    assert variance(found, "posterior") == pytest.approx(0.002**2, rel=1e-9)
    others = [part for part in WITHIN if part != "posterior"]
    unknown = found["part"].values[np.isnan(found["gain_share"].values)].tolist()
    assert unknown == ["form of the law", "priors"]
    assert "requires fits of several laws" in found.attrs["suggestion"]
    np.testing.assert_allclose(found["gain_variance"].sel(part=others), 0, atol=1e-18)
    # The square of the standard error of N independent draws.
    assert variance(found, "Monte Carlo error") == pytest.approx(0.002**2 / N, rel=0.2)
    assert found["gain_sd"].sel(part="posterior").item() == pytest.approx(0.002, rel=1e-9)


def test_two_laws_that_differ_by_a_constant():
    fits = {"a": normal_law(0.002), "b": normal_law(0.002, mean=-0.003, seed=1)}
    plan = gain_of(fits["a"])
    found = bd.explain(plan, fits)
    np.testing.assert_allclose(found["gain_by_law"], [0.001, -0.003], rtol=1e-9)
    assert variance(found, "form of the law") == pytest.approx(0.002**2, rel=1e-9)
    uneven = bd.explain(plan, fits, weights={"a": 0.9, "b": 0.1})
    assert variance(uneven, "form of the law") == pytest.approx(0.9 * 0.1 * 0.004**2, rel=1e-9)
    assert variance(uneven, "posterior") == pytest.approx(0.002**2, rel=1e-9)
    # The gain of each law is normal, so the parts of the probability are known too.
    p = norm.cdf([0.5, -1.5])
    for part, exact in {"form of the law": np.ptp(p) ** 2 / 4, "posterior": np.mean(p * (1 - p))}.items():
        error = found["probability_variance_mcse"].sel(part=part).item()
        assert error < 0.1 * exact
        assert variance(found, part, "probability") == pytest.approx(exact, abs=3.5 * error)


def test_residual_noise_has_its_closed_form():
    sigma, nu = 0.003, 8.0
    fit = normal_law(0.002, sigma=np.full(N, sigma), nu=np.full(N, nu))
    found = bd.explain(gain_of(fit, noise="run"), fit)
    expected = 2 * sigma**2 * nu / (nu - 2)  # of two runs
    error = found["gain_variance_mcse"].sel(part="residual noise").item()
    assert error < 0.05 * expected
    assert variance(found, "residual noise") == pytest.approx(expected, abs=3.5 * error)
    assert variance(found, "posterior") == pytest.approx(0.002**2, rel=1e-9)
    assert abs(variance(found, "interactions")) < 3.5 * found["gain_variance_mcse"].sel(part="interactions").item()
    assert share(bd.explain(gain_of(fit), fit), "residual noise") == 0


def test_shapley_effects_of_normal_terms_on_the_event():
    """The variance of the probability of a sum of normal terms given some of them is an orthant probability."""
    scale, mean = np.array([1.0, 2.0, 0.0, 0.5]), 0.3
    rng = np.random.default_rng(0)
    terms = scale[:, None] * rng.standard_normal((4, 40_000)) + mean / 4
    total = scale @ scale
    p = norm.cdf(mean / math.sqrt(total))

    def value(known: tuple[int, ...]) -> float:
        rho = (scale[list(known)] ** 2).sum() / total
        x = np.linspace(-8, 8, 4001)
        if rho in (0.0, 1.0):
            return rho * p * (1 - p)
        given = norm.cdf((mean / math.sqrt(total) + math.sqrt(rho) * x) / math.sqrt(1 - rho))
        return float((norm.pdf(x) * (given - p) ** 2).sum() * (x[1] - x[0]))

    exact = np.zeros(4)
    orders = list(itertools.permutations(range(4)))
    for order in orders:
        for k, term in enumerate(order):
            exact[term] += (value(order[: k + 1]) - value(order[:k])) / len(orders)
    found, error = event_parts(terms)[0], event_parts_error(terms, 4)[0]
    np.testing.assert_allclose(found[:4], exact, atol=0.004)
    assert np.all(np.abs(found[:4] - exact) <= 4 * error[:4] + 1e-12)
    assert found[2] == 0
    assert found.sum() == pytest.approx((terms.sum(axis=0) > 0).mean() * (terms.sum(axis=0) <= 0).mean(), rel=1e-12)


def test_terms_that_cancel_have_negative_interactions():
    first = np.random.default_rng(0).standard_normal(2000)
    terms = np.stack([first, -0.9 * first])
    parts, drawn = sum_parts(terms)
    v = first.var()
    np.testing.assert_allclose(parts, [v, 0.81 * v, -1.8 * v])
    np.testing.assert_allclose(drawn.mean(axis=1), parts)
    assert event_parts(terms)[0, -1] == pytest.approx(0, abs=0.01)  # the sum has the sign of the first term


@pytest.mark.parametrize("informed", [0.3, 0.9])
def test_power_scaling_of_a_conjugate_posterior(informed):
    """A normal prior and likelihood: the mean under a power of the prior is known."""
    sd, mean, count = math.sqrt(informed), 1.2, 200_000
    draws = mean + sd * np.random.default_rng(3).standard_normal(count)

    def scaled(power: float) -> float:
        return (mean / informed) / (1 / informed - 1 + power)

    found, drawn = prior_change(draws, -0.5 * draws**2)
    error = mean_error(drawn, 4)
    exact = (scaled(1.25) - scaled(0.8)) / 2
    assert error < 0.05 * abs(exact)
    assert found == pytest.approx(exact, abs=4 * error)
    assert prior_change(np.full(10, 0.1), np.arange(10.0))[0] == 0


def test_the_priors_of_a_fit_are_scaled(fit354, planner354, plan354):
    """The part is the squared half change of the answer under the weights of the joint prior."""
    from bayesdistill.criticism._prior_sensitivity import log_priors

    found = bd.explain(plan354, planner354, student="1B", budget=1e22, scenario="best case", noise="law")
    one = plan354.sel(student=1e9, budget=1e22, scenario="best case")
    gain = one["supervised_loss"] - one["distilled_loss"]
    prior = sum(log_priors(fit354).data_vars.values())
    means = [float(gain.weighted(np.exp((power - 1) * prior)).mean()) for power in (0.8, 1.25)]
    assert variance(found, "priors") == pytest.approx(((means[1] - means[0]) / 2) ** 2, rel=1e-6)


# Monte Carlo errors ---------------------------------------------------------------------------------------------------


def simulated(seed: int) -> np.ndarray:
    """Terms of 1,000 autocorrelated draws in 4 chains."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((3, 4, 1050))
    for k in range(1, 1050):
        steps[0, :, k] = 0.6 * steps[0, :, k - 1] + 0.8 * steps[0, :, k]
    return np.array([1.0, 0.7, 0.4])[:, None] * steps[:, :, 50:300].reshape(3, -1) + 0.2


@pytest.mark.parametrize(
    ("repeats", "of"),
    [(100, "sum"), (12, "event"), *(pytest.param(500, of, marks=pytest.mark.slow) for of in ("sum", "event"))],
)
def test_monte_carlo_errors_are_the_spread_over_seeds(repeats, of):
    values, errors = [], []
    for seed in range(repeats):
        terms = simulated(seed)
        if of == "sum":
            parts, drawn = sum_parts(terms)
            values.append(parts)
            errors.append([mean_error(one, 4) for one in drawn])
        else:
            values.append(event_parts(terms)[0])
            errors.append(event_parts_error(terms, 4)[0])
    ratio = np.sqrt(np.mean(np.square(errors), axis=0)) / np.std(values, axis=0, ddof=1)
    # The relative error of a standard deviation of independent values is 1 / sqrt(2 repeats).
    assert np.all(np.abs(np.log(ratio)) < 0.15 + 3 / math.sqrt(2 * repeats)), ratio


@pytest.mark.slow
def test_errors_of_an_explanation_are_the_spread_over_seeds():
    """Two laws with normal posteriors, their draws not standardized."""
    found = []
    for seed in range(100):
        fits = {
            name: normal_law(0.003, mean, 2 * seed + k, exact=False)
            for k, (name, mean) in enumerate((("a", 0.001), ("b", -0.003)))
        }
        found.append(bd.explain(gain_of(fits["a"]), fits))
    whole = xr.concat(found, "seed")
    for name in ("gain_variance", "probability_variance"):
        of = whole[name].sel(part=["form of the law", "posterior"])
        stated = np.sqrt((whole[f"{name}_mcse"].sel(part=of["part"]) ** 2).mean("seed"))
        assert np.all(np.abs(np.log(stated / of.std("seed"))) < 0.35)


# Runs that reduce the uncertainty ----------------------------------------------------------------------------------------


def test_the_reduction_of_a_normal_answer_is_the_closed_form():
    """A run that measures the only uncertain coefficient with noise leaves the variance of the conjugate normal model."""
    sigma, nu = 0.003, 8.0
    fit = normal_law(0.002, sigma=np.full(N, sigma), nu=np.full(N, nu))
    runs = pd.DataFrame(
        {
            "student_params": [1e9, 1e12],
            "student_tokens": [2e10, 2e12],
            "teacher_loss": [2.0, 2.0],
            "name": ["near", "far"],
        }
    )
    found = bd.explain(gain_of(fit), fit, candidates=runs)
    noise = sigma**2 * (nu + 3) / (nu + 1)
    near = 0.002**2 / (0.002**2 + noise)
    posterior_share = share(found, "posterior")
    assert found["reduction"].sel(candidate="near").item() == pytest.approx(near * posterior_share, rel=1e-6)
    small = 0.002**2 * 1e-3 ** (2 * 0.3)
    assert found["reduction"].sel(candidate="far").item() == pytest.approx(
        small / (small + noise) * posterior_share, rel=1e-6
    )
    assert "1B parameters on 20B tokens with a teacher of 2.00 nats" in found.attrs["suggestion"]
    assert f"by an expected {near * posterior_share:.0%}" in found.attrs["suggestion"]
    law = {name: float(fit[name].mean()) for name in ("E", "A", "B", "alpha", "beta", "gamma")}
    alone = [
        bd.supervised_loss(*run, **law) for run in ((1e9, 2e10), (1e12, 2e12))
    ]  # equation 8: the student's ability
    np.testing.assert_allclose(found["ratio"], 2.0 / np.array(alone), rtol=1e-9)
    most, _ = found["reduction"].values
    assert f"The average reduction is {most:.1%} for runs with r " in found.attrs["suggestion"]
    useless = bd.explain(gain_of(fit), fit, candidates=pd.DataFrame({"params": [1e9], "tokens": [1e10]}))
    assert useless["reduction"].item() == pytest.approx(0, abs=1e-12)
    assert "None of 1 candidate run reduces the variance by more than 1%." in useless.attrs["suggestion"]


@pytest.mark.slow
@pytest.mark.parametrize("budget", [1e20, 1e22])
def test_reductions_are_close_to_importance_weighting(planner354, budget):
    """The variance of the expected gain after a simulated outcome, from the weights of the draws."""
    plan = bd.plan(planner354, "1B", budget, "best case")
    found, plan = bd.explain(plan, planner354), plan.squeeze()
    fitted = planner354.fitted
    runs = parse_candidates(proposed_candidates(fitted, None), bd.Shape(), fitted.teacher_losses)
    predicted = predict(fitted, runs)
    gain = np.asarray(plan["supervised_loss"] - plan["distilled_loss"]).ravel()
    size, tokens, alone = (
        np.array([float(plan[name])]) for name in ("student", "student_tokens", "pretraining_tokens")
    )
    gain = (
        gain + fitted.draws.discrepancy("supervised", size, alone) - fitted.draws.discrepancy("distilled", size, tokens)
    )
    rng = np.random.default_rng(0)
    for k in np.argsort(-found["reduction"].values)[:5]:
        draw = rng.integers(gain.size, size=400)
        outcomes = predicted.mean[k, draw] + predicted.scale[k, draw] * rng.standard_t(predicted.freedom[draw])
        weights = np.exp(predicted.log_density(k, outcomes))
        weights /= weights.sum(axis=1, keepdims=True)
        left = weights @ gain**2 - (weights @ gain) ** 2
        exact = (gain.var() - left.mean()) / found["gain_total"].item()
        assert found["reduction"].values[k] == pytest.approx(exact, rel=0.25)


# Arguments and texts ------------------------------------------------------------------------------------------------------


def test_a_planner_and_a_name_give_the_same_answer(planner354, plan354):
    options = {"student": 1e9, "budget": "1e22", "scenario": "best case"}
    found = bd.explain(plan354, planner354, **options)
    # The level and the seed are those of the plan.
    other = bd.explain(plan354, {"default": changed(planner354, noise="run", seed=9)}, **options)
    xr.testing.assert_identical(other.drop_attrs(), found.drop_attrs())
    one = bd.explain(plan354.sel(student=1e9, budget=1e22, scenario="best case"), planner354)
    xr.testing.assert_allclose(one, found)
    assert "of the variance of the gain comes from" in found.attrs["suggestion"]
    assert "candidate runs" in found.attrs["suggestion"]
    text = str(found)
    assert text.startswith("Where the uncertainty comes from: gain ")
    assert found.attrs["suggestion"] in text
    table = bd.decision_table(found)
    assert table["part"].tolist() == list(PARTS)
    assert max(map(len, bd.table_text(table.drop(columns="noise"), width=80).splitlines())) <= 80


def test_existing_teachers_have_their_measured_losses(planner354):
    teachers = pd.DataFrame({"params": [1e9, 7e9], "loss": [2.3, 2.05]})
    plan = bd.plan(planner354, "1B", 1e21, "teacher inference", teachers=teachers, noise="run", seed=5)
    found = bd.explain(plan, planner354)
    assert variance(found, WITHIN) == pytest.approx(float(plan["advantage"].var()), rel=1e-9)
    assert variance(found, "residual noise") > 0


def test_a_plan_with_limited_data_is_explained(planner354):
    plan = bd.plan(planner354, "1B", 1e22, "best case", unique_tokens="50B")
    found = bd.explain(plan, planner354)
    assert found["gain"].item() == pytest.approx(float(plan["advantage"].mean()), rel=1e-9)
    assert variance(found, WITHIN) == pytest.approx(float(plan["advantage"].var()), rel=1e-9)
    assert found.attrs["unique_tokens"] == 5e10


def test_errors_name_what_is_missing(planner354, plan354):
    cell = {"student": "1B", "budget": 1e22, "scenario": "best case"}
    with pytest.raises(ParameterError, match=r"several values of `student`: 3e\+08, 1e\+09"):
        bd.explain(plan354, planner354, **cell | {"student": None})
    with pytest.raises(ParameterError, match="no budget 1e\\+21"):
        bd.explain(plan354, planner354, **cell | {"budget": 1e21})
    with pytest.raises(ParameterError, match="no scenario 'best'"):
        bd.explain(plan354, planner354, **cell | {"scenario": "best"})
    with pytest.raises(ParameterError, match=r"returned by `bd\.plan`"):
        bd.explain(plan354[["probability"]], planner354, **cell)
    fits = {"a": normal_law(0.002), "b": normal_law(0.001)}
    with pytest.raises(ParameterError, match="none of the fits 'a', 'b'"):
        bd.explain(gain_of(normal_law(0.003)), fits)
    with pytest.raises(ParameterError, match="another posterior"):
        bd.explain(gain_of(fits["a"]), fits["b"])
    with pytest.raises(ParameterError, match="`fits` is empty"):
        bd.explain(plan354, {}, **cell)
    with pytest.raises(ParameterError, match="one number for each of 'a', 'b'"):
        bd.explain(gain_of(fits["a"]), fits, weights={"a": 1})
    with pytest.raises(ModelError, match="different"):
        bd.explain(plan354, {"a": planner354, "b": fits["a"]}, **cell)
    fit = posterior_of(published(20))
    with pytest.raises(ParameterError, match="No strategy fits this budget"):
        bd.explain(bd.plan(fit, "1B", [1e7, 1e22], "best case", progress=False), fit, budget=1e7)


def test_a_certain_answer_has_a_monte_carlo_error_alone():
    fit = posterior_of(published(400), chains=4)
    found = bd.explain(bd.plan(fit, 1e9, 1e20, "best case", progress=False), fit)
    assert found["probability"].item() == 1
    assert share(found, "Monte Carlo error", "probability") == 1
    assert found["gain_total"].item() == 0
    assert np.isnan(found["gain_share"].sel(part="posterior"))
    assert found.attrs["suggestion"].startswith("The gain is the same in all draws.")


def test_the_command_prints_table_and_sentences(tmp_path, jittered_draws, monkeypatch):
    monkeypatch.setattr(cli, "_load_fit", bd.load)
    first, second = (bd.save(jittered_draws, tmp_path / f"{name}.nc") for name in ("one", "two"))
    call = ["explain", str(first), "--student", "1B", "--budget", "1e22", "--scenario", "best case"]
    said = CliRunner().invoke(cli.app, [*call, "--noise", "run", "--fit", f"other={second}"], env={"COLUMNS": "80"})
    assert said.exit_code == 0, said.output
    assert max(map(len, said.output.splitlines())) <= 80
    words = " ".join(said.output.split())
    assert "of the variance of the gain comes from" in words
    assert "The part of the priors is unknown" in words
    found = CliRunner().invoke(cli.app, [*call, "--json", "-o", str(tmp_path / "explanation.nc")])
    rows = json.loads(found.stdout)
    assert [row["part"] for row in rows] == list(PARTS)
    assert sum(row["gain_share"] or 0 for row in rows) == pytest.approx(1, abs=1e-4)
    assert rows[0]["suggestion"]
    stored = bd.load(tmp_path / "explanation.nc")
    assert stored["gain"].item() == pytest.approx(rows[0]["gain"], rel=1e-5)
    for wrong in ("other", "=two.nc", f"one={second}"):
        failed = CliRunner().invoke(cli.app, [*call, "--fit", wrong])
        assert isinstance(failed.exception, ParameterError)
