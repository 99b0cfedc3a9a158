from __future__ import annotations

import law_names as laws
import numpy as np
import pytest
import xarray as xr
from decision_cases import posterior_of, published, scattered, simple
from scipy.stats import norm

from bayesdistill.compute import flops_per_token
from bayesdistill.decisions import evppi, plan, plan_value
from bayesdistill.decisions._evppi import regression_evppi
from bayesdistill.errors import ParameterError
from bayesdistill.tables import decision_table
from bayesdistill.tables.formatting import readable

SIX = laws.SUPERVISED_PARAMETERS


@pytest.fixture(scope="module")
def fit() -> xr.Dataset:
    return posterior_of(scattered(20, seed=5), chains=2)


@pytest.fixture(scope="module")
def made(fit) -> xr.Dataset:
    return plan(fit, [3e8, 3e9], [1e20, 1e22], ["best case", "teacher pretraining + inference"])


@pytest.fixture(scope="module")
def worth(fit, made) -> xr.Dataset:
    return plan_value(fit, made, gpu_flops_per_second="4e14", price_per_gpu_hour=2.5, currency="EUR")


def test_the_equivalent_budget_buys_the_distilled_loss(fit, made, worth):
    checked = 0
    for student in (3e8, 3e9):
        tokens = worth["equivalent_budget"].sel(student=student) / (3 * flops_per_token(student))
        reached = laws.supervised_loss(student, tokens, **{k: fit[k] for k in SIX})
        wanted = made["distilled_loss"].sel(student=student)
        finite = np.isfinite(tokens)
        checked += int(finite.sum())
        difference = (reached - wanted).where(finite, 0)
        np.testing.assert_allclose(difference, 0, atol=1e-9)
        # Where no budget does, the distilled student is below the floor of the pretrained one.
        floor = laws.supervised_loss(student, np.inf, **{k: fit[k] for k in SIX})
        assert ((wanted <= floor + 1e-12) | finite).all()
    assert checked > 100
    factor = worth["compute_factor"]
    np.testing.assert_array_equal((factor > 1).values, (made["advantage"] > 0).values)


def test_totals_of_both_options_with_prices_of_training_and_inference(fit, made, worth):
    np.testing.assert_allclose(worth["distilled_money"].sel(scenario="best case"), worth["pretraining_money"])
    np.testing.assert_allclose(
        worth["pretraining_money"], worth["budget_money"].broadcast_like(worth["pretraining_money"])
    )
    np.testing.assert_allclose(worth["distilled_money"], worth["budget_money"].broadcast_like(worth["distilled_money"]))
    dear = plan_value(
        fit, made, gpu_flops_per_second=4e14, price_per_gpu_hour=2.5,
        inference_flops_per_second=1e14, inference_price_per_gpu_hour=1.0,
    )  # fmt: skip
    inference = (flops_per_token(made["teacher_params"]) * made["student_tokens"] * made["delta_lgt"]).transpose(
        *made["status"].dims
    )
    budget = made["budget"].broadcast_like(inference).transpose(*inference.dims)
    np.testing.assert_allclose(
        dear["distilled_money"], ((budget - inference) / 4e14 * 2.5 + inference / 1e14) / 3600, rtol=1e-9
    )
    np.testing.assert_allclose(
        dear["distilled_gpu_hours"], ((budget - inference) / 4e14 + inference / 1e14) / 3600, rtol=1e-9
    )
    xr.testing.assert_equal(dear["pretraining_gpu_hours"], worth["pretraining_gpu_hours"])


def test_what_is_zero_within_its_error_is_about_zero(fit, made):
    worth = plan_value(fit, made, gpu_flops_per_second=4e14, price_per_gpu_hour=2)
    small = worth.assign(
        expected_gain=0 * worth["expected_gain"] + 1e-17, expected_gain_mcse=worth["expected_gain_mcse"] + 1e-9
    )
    small = small.assign(gain_money=0 * worth["gain_money"] - 2.96e-11, gain_flops=0 * worth["gain_flops"] - 1e4)
    shown = readable(decision_table(small))
    for heading in ("gain [nats]", "gain [FLOPs]", "gain [USD]"):
        assert (shown[heading] == "about 0").all()
    assert not any("MC error" in heading for heading in shown)
    # A difference that the search cannot resolve is no compute at all.
    tiny = plan_value(fit, made.assign(expected_gain=0 * made["expected_gain"] - 1e-17))
    assert (tiny["gain_flops"] == 0).all()
    large = worth.assign(expected_gain_mcse=0 * worth["expected_gain_mcse"])
    assert not (readable(decision_table(large))["gain [nats]"] == "about 0").any()


def test_no_budget_reaches_a_student_below_the_floor():
    draws = simple(4, A_S=[10.0, 20.0, 400.0, 500.0], B_S=10.0)
    fit = posterior_of(draws)
    made = plan(fit, 1e9, 1e22, "best case")
    worth = plan_value(fit, made)
    assert np.isinf(worth["equivalent_budget"].values.ravel()).tolist() == [True, True, False, False]
    assert worth["unreachable_probability"].item() == 0.5
    assert worth["compute_factor_quantile"].sel(quantile=0.95).item() == np.inf
    assert np.isfinite(worth["compute_factor_quantile"].sel(quantile=0.25).item())
    assert "gain_gpu_hours" not in worth


def test_a_cap_on_tokens_bounds_the_equivalent_budget(fit):
    made = plan(fit, 1e9, 1e22, "best case", max_student_tokens=1e11)
    worth = plan_value(fit, made)
    # Pretraining already sees all the tokens: where it is behind, nothing helps.
    behind = made["advantage"] > 0
    assert behind.any()
    assert (np.isinf(worth["equivalent_budget"]) == behind).all()


def test_nats_become_compute_hours_and_money_along_the_mean_law(fit, made, worth):
    for name in ("expected_gain", "regret", "evpi"):
        flops = worth[f"{name.removeprefix('expected_')}_flops"]
        for cell in np.ndindex(flops.shape):
            student, budget = made["student"].values[cell[0]], made["budget"].values[cell[2]]
            six = {k: fit[k].values.ravel() for k in SIX}
            tokens = np.array([budget, budget + flops.values[cell]]) / (3 * flops_per_token(student))
            if not np.isfinite(tokens).all() or tokens[1] <= 0:
                continue
            before, after = (laws.supervised_loss(student, t, **six).mean() for t in tokens)
            assert before - after == pytest.approx(made[name].values[cell], abs=1e-8)
    np.testing.assert_allclose(worth["gain_gpu_hours"], worth["gain_flops"] / 4e14 / 3600)
    np.testing.assert_allclose(worth["gain_money"], worth["gain_gpu_hours"] * 2.5)
    np.testing.assert_allclose(worth["budget_money"], worth["budget"] / 4e14 / 3600 * 2.5)
    assert worth["gain_money"].attrs["units"] == "EUR"
    assert worth.attrs["price_per_gpu_hour"] == 2.5
    assert worth.attrs["gpu_flops_per_second"] == 4e14
    assert np.isfinite(worth["evpi_flops"]).all()
    assert (worth["evpi_flops"] >= worth["regret_flops"] - 1e-3 * worth["budget"]).all()


def test_the_compute_of_a_gain_is_that_of_the_mean_law_and_ends_at_the_cap():
    draws = scattered(30, seed=2)
    # Draws that differ in how fast tokens help, so that the mean of the law is not the law of any draw.
    draws["B"] = draws["B"] * np.exp(np.linspace(-1, 1, 30))
    fit = posterior_of(draws, chains=2)
    worth = plan_value(fit, plan(fit, 1e9, 3e20, "best case"))
    six = {k: draws[k] for k in SIX}
    spent = np.array([3e20, 3e20 + worth["gain_flops"].item()])
    before, after = (laws.supervised_loss(1e9, c / (3 * flops_per_token(1e9)), **six).mean() for c in spent)
    assert worth["expected_gain"].item() > 0.01
    assert before - after == pytest.approx(worth["expected_gain"].item(), abs=1e-9)
    # Tokens that may not be seen buy nothing.
    cap = 1.01 * spent[0] / (3 * flops_per_token(1e9))
    capped = plan_value(fit, plan(fit, 1e9, 3e20, "best case", max_student_tokens=cap))
    assert capped["expected_gain"].item() == pytest.approx(worth["expected_gain"].item(), abs=1e-12)
    assert capped["gain_flops"].item() == np.inf


def test_blocks_of_the_error_do_not_cross_chains():
    """The order of the chains is arbitrary: the error of the value does not depend on it."""
    rng = np.random.default_rng(7)
    chains = np.stack([rng.standard_normal((2, 100)) + shift for shift in (0.0, 0.5, -0.5, 1.0)])
    errors = []
    for order in ([0, 1, 2, 3], [3, 0, 2, 1]):
        quantity, other = np.concatenate(list(chains[order]), axis=-1)
        errors.append(regression_evppi((quantity + other)[None], quantity, 4)[1][0])
    assert errors[0] == pytest.approx(errors[1], rel=1e-9)
    assert errors[0] > 0


def test_evppi_of_a_linear_gain_is_the_closed_form():
    # The advantage is a - b1 z1 - b2 z2 with independent standard normal z: both values are known.
    n, student, budget = 4000, 1e9, 1e20
    rng = np.random.default_rng(8)
    z = rng.standard_normal((2, n))
    tokens = budget / (3 * flops_per_token(student))
    b = np.array([0.02, 0.01])
    A_S, B_S = 285 + z[0] * b[0] * student**0.3, 800 + z[1] * b[1] * tokens**0.35
    draws = simple(n, A_S=A_S, B_S=B_S)
    draws["d1"] = np.exp(0.1 * rng.standard_normal(n))  # has no effect where there is no capacity gap
    fit = posterior_of(draws, chains=4)
    made = plan(fit, student, budget, "best case")
    value = evppi(fit, made).isel(student=0, scenario=0, budget=0)
    mean = made["expected_gain"].item()

    def expected(spread):
        return mean * norm.cdf(mean / spread) + spread * norm.pdf(mean / spread) - max(mean, 0)

    for name, spread in (("A_S", b[0]), ("B_S", b[1])):
        got = value.sel(quantity=name)
        assert expected(spread) > 1e-5
        assert got["evppi"].item() == pytest.approx(expected(spread), abs=4 * got["evppi_mcse"].item() + 1e-6)
        assert 0 < got["evppi_mcse"].item() < expected(spread)
        assert got["evppi"].item() <= made["regret"].item() + 1e-6
        assert got["evppi_share"].item() == got["evppi"].item() / made["regret"].item()
    assert value["evppi"].sel(quantity="E").item() == 0
    assert value["evppi"].sel(quantity="d1").item() < 0.02 * made["regret"].item()
    assert made["regret"].item() == pytest.approx(expected(np.hypot(*b)), rel=0.1)


def test_knowing_the_advantage_itself_is_worth_the_regret():
    fit = posterior_of(scattered(2000, seed=4), chains=4)
    made = plan(fit, 3e9, 3e21, "teacher inference")
    advantage = (made["supervised_loss"] - made["distilled_loss"]).isel(student=0, scenario=0, budget=0, drop=True)
    value = evppi(fit, made, {"advantage": advantage})
    assert made["regret"].item() > 1e-5
    assert value["evppi"].item() == pytest.approx(made["regret"].item(), rel=0.1)
    # The strategy stays the committed one: what adapting it would be worth is no part of the whole.
    assert made["evpi"].item() > 1.05 * made["regret"].item()
    assert value["evppi_share"].item() == value["evppi"].item() / made["regret"].item()


def test_the_standard_error_is_that_of_repeated_samples():
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(200):
        x = rng.standard_normal(400)
        gain = (0.1 + x + 0.5 * rng.standard_normal(400))[None]
        value, error = regression_evppi(gain, x, 1)
        values.append(value[0])
        errors.append(error[0])
    exact = 0.1 * norm.cdf(0.1) + norm.pdf(0.1) - 0.1
    assert np.mean(values) == pytest.approx(exact, abs=0.02)
    assert np.median(errors) == pytest.approx(np.std(values), rel=0.25)


def test_what_changes_no_choice_is_worth_nothing():
    fit = posterior_of(simple(50, A_S=np.linspace(90, 110, 50), B_S=100.0))
    value = evppi(fit, plan(fit, 1e9, 1e21, "best case"))
    assert (value["evppi"] == 0).all()
    assert (value["evppi_mcse"] == 0).all()
    assert np.isnan(value["evppi_share"]).all()


def test_too_few_draws_say_nothing():
    value, error = regression_evppi(np.ones((2, 10)), np.arange(10.0), 1)
    assert np.isnan(value).all()
    assert np.isnan(error).all()


def test_labels_and_files(fit, made, worth, tmp_path):
    for number, dataset in enumerate((worth, evppi(fit, made))):
        for name, variable in dataset.variables.items():
            assert variable.attrs["units"], name
            assert variable.attrs["long_name"], name
        dataset.to_netcdf(tmp_path / f"{number}.nc", engine="h5netcdf")
        with xr.open_dataset(tmp_path / f"{number}.nc", engine="h5netcdf") as loaded:
            assert loaded.load().identical(dataset)


def test_a_plan_of_another_fit_is_rejected(made, fit):
    with pytest.raises(ParameterError, match="another posterior"):
        plan_value(posterior_of(scattered(20, seed=6), chains=2), made)
    with pytest.raises(ParameterError, match="another posterior"):
        evppi(posterior_of(published()), made)
    with pytest.raises(ParameterError, match=r"returned by `bd\.plan`"):
        plan_value(fit, fit)
    with pytest.raises(ParameterError, match="must have the dimensions"):
        plan_value(fit, made.sel(student=3e9))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"price_per_gpu_hour": 2}, "gpu_flops_per_second"),
        ({"gpu_flops_per_second": 0}, "gpu_flops_per_second"),
        ({"gpu_flops_per_second": 1e14, "price_per_gpu_hour": "free"}, "price_per_gpu_hour"),
    ],
)
def test_prices_and_speeds_are_checked(fit, made, arguments, message):
    with pytest.raises(ParameterError, match=message):
        plan_value(fit, made, **arguments)


def test_quantities_are_checked(fit, made):
    with pytest.raises(ParameterError, match="chain and draw"):
        evppi(fit, made, {"x": xr.DataArray([1.0], dims="draw")})
    with pytest.raises(ParameterError, match="finite value for each of the 20"):
        evppi(fit, made, {"x": fit["E"] * np.nan})
    with pytest.raises(ParameterError, match="empty"):
        evppi(fit, made, {})
