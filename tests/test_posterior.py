from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr
from law_names import DISTILLATION_PARAMETERS, LAW_PARAMETERS, SUPERVISED_PARAMETERS
from scipy import stats

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.errors import ModelError, ParameterError
from bayesdistill.posterior import ConvergenceThresholds


def draws_of(values: np.ndarray, **attrs: str) -> xr.DataArray:
    return xr.DataArray(values, dims=("chain", "draw"), attrs=attrs)


def ar1(chains: int, draws: int, rho: float, seed: int) -> np.ndarray:
    """Stationary standard normal chains with lag-one correlation rho."""
    rng = np.random.default_rng(seed)
    values = np.empty((chains, draws))
    values[:, 0] = rng.standard_normal(chains)
    noise = math.sqrt(1 - rho**2) * rng.standard_normal((chains, draws))
    for i in range(1, draws):
        values[:, i] = rho * values[:, i - 1] + noise[:, i]
    return values


def markov(chains: int, draws: int, flip: float, seed: int) -> np.ndarray:
    """Chains of 0 and 1 that flip with a probability; its autocorrelation at lag k is (1 - 2 flip)^k."""
    rng = np.random.default_rng(seed)
    start = rng.integers(2, size=(chains, 1))
    flips = np.cumsum(rng.random((chains, draws)) < flip, axis=1)
    return (start + flips) % 2


# Probabilities --------------------------------------------------------------------------------------------------------


def test_a_probability_is_a_share_of_draws():
    values = np.zeros((4, 250), dtype=bool)
    values[0, :37] = True
    share, _ = posterior.probability(draws_of(values))
    assert float(share) == 0.037
    assert share.dims == ()
    assert share.attrs == {"units": "1", "long_name": "probability"}


@pytest.mark.parametrize("p", [0.5, 0.1, 0.9, 0.01])
def test_the_error_of_independent_draws_is_binomial(p):
    values = np.random.default_rng(1).random((4, 5000)) < p
    share, error = posterior.probability(draws_of(values))
    assert float(error) == pytest.approx(math.sqrt(p * (1 - p) / 20000), rel=0.15)
    assert abs(float(share) - p) < 4 * float(error)


@pytest.mark.parametrize("flip", [0.05, 0.2, 0.8])
def test_the_error_of_correlated_draws_has_its_closed_form(flip):
    # A two-state chain: ESS = n (1 - rho)/(1 + rho) with rho = 1 - 2 flip, so n flip/(1 - flip).
    values = markov(4, 5000, flip, seed=2)
    _, error = posterior.probability(draws_of(values))
    assert float(error) == pytest.approx(0.5 / math.sqrt(20000 * flip / (1 - flip)), rel=0.15)


def test_the_error_is_the_scatter_between_repeated_runs():
    found = [posterior.probability(draws_of(ar1(4, 500, 0.8, seed) > 0.7)) for seed in range(120)]
    shares, errors = (np.array([float(one[i]) for one in found]) for i in (0, 1))
    assert shares.mean() == pytest.approx(stats.norm.sf(0.7), abs=4 * shares.std() / math.sqrt(120))
    # A standard deviation from 120 values is known to 6.5%.
    assert errors.mean() == pytest.approx(shares.std(), rel=0.2)
    assert errors.mean() > 1.5 * math.sqrt(0.242 * 0.758 / 2000)


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("shape", [(4, 1000), (1, 1000), (2, 3), (1, 1)])
def test_draws_that_all_agree_leave_a_doubt(shape, value):
    n = shape[0] * shape[1]
    share, error = posterior.probability(draws_of(np.full(shape, value)))
    assert float(share) == value
    q = (n * value + 0.5) / (n + 1)
    assert float(error) == pytest.approx(math.sqrt(q * (1 - q) / n), rel=1e-12)
    if n == 4000:
        assert float(error) == pytest.approx(0.7 / n, rel=0.02)  # what the docstring says


def test_a_question_without_an_answer_has_no_probability():
    values = np.ones((2, 100))
    values[1, 7] = np.nan
    share, error = posterior.probability(draws_of(values))
    assert math.isnan(float(share))
    assert math.isnan(float(error))


def test_probabilities_of_many_cells_at_once_are_those_of_each():
    rng = np.random.default_rng(3)
    values = xr.DataArray(
        rng.random((3, 4, 200, 2)) < np.array([0.2, 0.7]),
        dims=("student", "chain", "draw", "budget"),
        coords={"student": [1.0, 2.0, 3.0], "budget": [10.0, 20.0]},
    )
    share, error = posterior.probability(values)
    assert share.dims == ("student", "budget")
    assert share["budget"].values.tolist() == [10.0, 20.0]
    for i in range(3):
        for j in range(2):
            one = posterior.probability(values.isel(student=i, budget=j, drop=True))
            assert float(one[0]) == float(share[i, j])
            assert float(one[1]) == pytest.approx(float(error[i, j]), rel=1e-12)


# Means and intervals --------------------------------------------------------------------------------------------------


def test_the_error_of_a_mean():
    rho = 0.6
    values = 3 + 2 * ar1(4, 5000, rho, seed=4)
    mean, error = posterior.mean_mcse(draws_of(values, units="nats per token", long_name="loss"))
    assert float(mean) == pytest.approx(values.mean(), rel=1e-14)
    assert float(error) == pytest.approx(2 / math.sqrt(20000 * (1 - rho) / (1 + rho)), rel=0.15)
    assert mean.attrs == {"units": "nats per token", "long_name": "loss"}
    assert error.attrs["units"] == "nats per token"
    single = posterior.mean_mcse(draws_of(np.array([[1.5]])))
    assert float(single[0]) == 1.5
    assert math.isnan(float(single[1]))


@pytest.mark.parametrize("prob", [0.5, 0.9, 0.99])
def test_intervals_are_equal_tailed(prob):
    values = np.arange(1001.0)[None, :] / 1000
    found = posterior.interval(draws_of(values, units="nats per token"), prob)
    assert found["bound"].values.tolist() == ["lower", "upper"]
    np.testing.assert_allclose(found, [(1 - prob) / 2, (1 + prob) / 2], atol=1e-12)
    assert found.attrs == {"units": "nats per token", "interval_kind": "equal-tailed", "interval_prob": prob}
    skewed = posterior.interval(draws_of(values**3), prob)
    np.testing.assert_allclose(skewed, np.array([(1 - prob) / 2, (1 + prob) / 2]) ** 3, atol=1e-9)


@pytest.mark.parametrize("prob", [0, 1, -0.1, 1.5, math.nan])
def test_intervals_need_a_probability(prob):
    with pytest.raises(ParameterError, match=r"`prob` must be a number from 0.001 to 0.9999, got"):
        posterior.interval(draws_of(np.ones((1, 4))), prob)


def test_summaries_keep_other_dimensions_and_do_not_skip_nan():
    values = xr.DataArray(np.arange(24.0).reshape(2, 3, 4), dims=("chain", "draw", "budget"), attrs={"units": "FLOPs"})
    assert posterior.mean(values).values.tolist() == values.values.reshape(6, 4).mean(axis=0).tolist()
    assert posterior.median(values).attrs == posterior.mean(values).attrs == {"units": "FLOPs"}
    values[0, 0, 1] = np.nan
    for found in (posterior.mean(values), posterior.median(values), posterior.interval(values).isel(bound=0)):
        assert np.isnan(found.values).tolist() == [False, True, False, False]


# What a fit holds -----------------------------------------------------------------------------------------------------


def test_the_law_is_found_in_trees_and_datasets(jittered_draws):
    tree = xr.DataTree.from_dict({"posterior": jittered_draws.transpose("draw", "chain")})
    for fit in (jittered_draws, tree):
        draws = posterior.law_draws(fit)
        assert set(draws.data_vars) == set(LAW_PARAMETERS)
        assert draws["E"].dims == ("chain", "draw")
        xr.testing.assert_equal(draws["E"], jittered_draws["E"])
        assert posterior.is_distilled(fit)
        found = posterior.draws_of(fit)
        assert set(found) == {*LAW_PARAMETERS, "sigma", "nu"}
        np.testing.assert_array_equal(found["nu"], jittered_draws["nu"].values.ravel())
    alone = bd.LAWS["busbridge2025"].for_runs(distilled=False, supervised=True)
    supervised = jittered_draws[list(SUPERVISED_PARAMETERS)].assign_attrs(law=alone.to_json())
    assert not posterior.is_distilled(supervised)
    assert set(posterior.law_draws(supervised).data_vars) == set(SUPERVISED_PARAMETERS)
    assert not posterior.seen_runs(jittered_draws)
    assert not posterior.observed_runs(jittered_draws)
    assert not posterior.prior_table(jittered_draws)
    assert posterior.provenance(jittered_draws) == {}


@pytest.mark.parametrize("thing", ["fit.nc", None, 3, {"E": 1.0}, np.ones(3)])
def test_what_is_no_fit_is_refused(thing):
    for function in (posterior.law_draws, posterior.is_distilled, posterior.convergence, bd.provenance, bd.check):
        with pytest.raises(ModelError, match="A fit must be an xarray DataTree"):
            function(thing)


def test_posteriors_that_lack_something_are_refused(jittered_draws):
    with pytest.raises(ModelError, match="no group 'posterior'"):
        posterior.law_draws(xr.DataTree.from_dict({"prior": jittered_draws}))
    with pytest.raises(ModelError, match="has no dimension chain and draw"):
        posterior.law_draws(jittered_draws.stack(sample=("chain", "draw")).reset_index("sample", drop=True))
    with pytest.raises(ModelError, match="has no dimension draw"):
        posterior.law_draws(jittered_draws.isel(draw=0))
    with pytest.raises(ModelError, match="has no A, gamma, which the law 'busbridge2025' has"):
        posterior.law_draws(jittered_draws.drop_vars(["A", "gamma"]))
    for value in (np.nan, np.inf):
        broken = jittered_draws.copy(deep=True)
        broken["c0"][2, 17] = value
        with pytest.raises(ModelError, match=r"posterior of c0 is not finite \(chain 2, draw 17\)"):
            posterior.law_draws(broken)
    with pytest.raises(ModelError, match="contains no draws"):
        posterior.convergence(xr.Dataset(coords={"chain": [0], "draw": [0]}))
    with pytest.raises(ModelError, match="has no A_S, which the law"):
        posterior.law_draws(jittered_draws.drop_vars(DISTILLATION_PARAMETERS[0]))
    without = jittered_draws.drop_attrs()
    for function in (posterior.law_draws, posterior.is_distilled, bd.law_of):
        with pytest.raises(ModelError, match="does not name its law"):
            function(without)
    xr.testing.assert_equal(posterior.law_draws(without, law="busbridge2025"), posterior.law_draws(jittered_draws))


def test_a_fixed_symbol_is_no_variable_but_found_by_every_reader(jittered_draws, tmp_path):
    """ArviZ's diagnostics divide by the variance of every variable, so that a fixed symbol is none of them."""
    law = bd.LAWS["busbridge2025"].with_terms("reducible_ratio").with_fixed(omega=1.0)
    fit = xr.DataTree.from_dict({"posterior": jittered_draws.assign_attrs(law=law.to_json())})
    fit.to_netcdf(tmp_path / "fit.nc")
    for one in (fit, fit["posterior"].to_dataset(), xr.open_datatree(tmp_path / "fit.nc")):
        draws = posterior.law_draws(one)
        assert draws["omega"].dims == ("chain", "draw")
        assert (draws["omega"] == 1).all()
        assert not np.allclose(
            bd.distilled_loss(1e9, 2e10, 2.0, **draws), bd.distilled_loss(1e9, 2e10, 2.0, **draws.drop_vars("omega"))
        )
    assert "omega" not in posterior.law_draws(jittered_draws)


def test_a_law_that_is_not_known_is_refused(jittered_draws):
    text = bd.LAWS["busbridge2025"].with_terms("soft_targets").to_json()
    for wrong, said in (
        ("busbridge2026", "Cannot read the law"),
        (text.replace('"soft_targets"]', '"token_shortage"]'), "has the term 'token_shortage', which this version"),
        (
            text.replace('"soft_targets"]', '{"name": "mine", "digest": "0"}]'),
            "has the term 'mine', which is not part of",
        ),
        ("[1, 2]", "Cannot read the law"),
    ):
        assert wrong != text
        with pytest.raises(ModelError, match=said):
            posterior.law_draws(jittered_draws.assign_attrs(law=wrong))


# Convergence, check by check --------------------------------------------------------------------------------------------


def sampled(values: dict[str, np.ndarray] | None = None, **stats_: np.ndarray) -> xr.DataTree:
    """A fit whose draws are independent and whose sampler met nothing, but for what is given."""
    rng = np.random.default_rng(5)
    draws = {"E": 1.2 + 0.01 * rng.standard_normal((4, 1000)), "c0": 2 + 0.1 * rng.standard_normal((4, 1000))}
    stats = {
        "diverging": np.zeros((4, 1000), dtype=bool),
        "maxdepth_reached": np.zeros((4, 1000), dtype=bool),
        "energy": rng.standard_normal((4, 1000)),
    }
    pack = {"posterior": draws | (values or {}), "sample_stats": stats | stats_}
    return xr.DataTree.from_dict(
        {group: xr.Dataset({k: (("chain", "draw"), v) for k, v in content.items()}) for group, content in pack.items()}
    )


def flags(count: int) -> np.ndarray:
    result = np.zeros((4, 1000), dtype=bool)
    result.ravel()[:count] = True
    return result


def test_good_draws_pass_every_check():
    found = posterior.convergence(sampled())
    assert found["converged"] is True
    assert found["failed"] == []
    assert (found["chains"], found["draws"]) == (4, 1000)
    assert found["divergences"] == 0
    assert found["treedepth_share"] == 0
    assert found["bfmi"] == pytest.approx(2.0, rel=0.1)  # of independent energies
    assert found["thresholds"]["max_rhat"] == 1.01


def test_numbers_are_those_of_arviz():
    import arviz as az

    values = np.stack([ar1(4, 1000, 0.9, seed) for seed in (6, 7)])
    tree = sampled({"A": values[0], "B": values[1]})
    found = posterior.convergence(tree)
    posterior_ = tree["posterior"].to_dataset()
    worst = {
        "rhat": az.rhat(posterior_).to_array().max(),
        "ess_bulk": az.ess(posterior_, method="bulk").to_array().min(),
        "ess_tail": az.ess(posterior_, method="tail", prob=(0.05, 0.95)).to_array().min(),
    }
    for name, value in worst.items():
        assert found[name] == pytest.approx(float(value), rel=1e-12)
    assert found["ess_bulk_variable"] in ("A", "B")
    assert found["bfmi"] == pytest.approx(float(np.min(az.bfmi(tree)["energy"])), rel=2e-3)


@pytest.mark.parametrize(
    ("check", "tree"),
    [
        ("rhat", sampled({"E": 1.2 + 0.01 * np.arange(4)[:, None] + 0.01 * ar1(4, 1000, 0.0, 8)})),
        ("ess_bulk", sampled({"E": ar1(4, 1000, 0.97, 9)})),
        ("divergences", sampled(diverging=flags(1))),
        ("treedepth_share", sampled(maxdepth_reached=flags(41))),
        ("bfmi", sampled(energy=ar1(4, 1000, 0.95, 10))),
    ],
)
def test_each_check_fails_by_itself(check, tree):
    found = posterior.convergence(tree)
    assert check in found["failed"]
    assert found["converged"] is False
    if check not in ("ess_bulk", "rhat"):
        assert found["failed"] == [check]


def test_the_tail_gate():
    # Random signs mix the bulk, a slowly changing size keeps the draws in the tails or out of them for long.
    signs = np.sign(ar1(4, 1000, 0.0, 11))
    values = signs * np.exp(ar1(4, 1000, 0.99, 12))
    found = posterior.convergence(sampled({"E": values}), ConvergenceThresholds(max_rhat=2.0))
    assert found["failed"] == ["ess_tail"]
    assert found["ess_tail_variable"] == "E"


def test_thresholds_can_be_named():
    tree = sampled(diverging=flags(3), maxdepth_reached=flags(80))
    assert posterior.convergence(tree)["failed"] == ["divergences", "treedepth_share"]
    lenient = posterior.convergence(tree, ConvergenceThresholds(max_divergences=3, max_treedepth_share=0.02))
    assert lenient["converged"] is True
    assert lenient["thresholds"]["max_divergences"] == 3
    assert posterior.convergence(sampled(), ConvergenceThresholds(min_ess_bulk=1e6))["failed"] == ["ess_bulk"]
    # PyMC's own sampler calls the statistic by another name.
    renamed = sampled(reached_max_treedepth=flags(2000))
    renamed["sample_stats"] = renamed["sample_stats"].to_dataset().drop_vars("maxdepth_reached")
    assert posterior.convergence(renamed)["treedepth_share"] == 0.5


def test_a_parameter_that_is_fixed_does_not_fail():
    found = posterior.convergence(sampled({"gamma": np.ones((4, 1000))}))
    assert found["converged"] is True
    assert found["rhat_variable"] != "gamma"


def test_draws_without_meaning_fail():
    values = np.full((4, 1000), 1.2)
    values[1, 5] = np.nan
    found = posterior.convergence(sampled({"E": values}))
    assert {"rhat", "ess_bulk", "ess_tail"} <= set(found["failed"])
    assert found["rhat_variable"] == "E"
    # Chains that each stand still somewhere else.
    stuck = posterior.convergence(sampled({"E": np.broadcast_to(np.arange(4.0)[:, None], (4, 1000)).copy()}))
    assert "rhat" in stuck["failed"]
    assert stuck["converged"] is False


def test_vectors_are_judged_by_their_worst_element():
    tree = sampled()
    z = np.stack([ar1(4, 1000, 0.0, 12), ar1(4, 1000, 0.98, 13)], axis=-1)
    dataset = tree["posterior"].to_dataset().assign(z=(("chain", "draw", "coordinate"), z))
    found = posterior.convergence(xr.DataTree.from_dict({"posterior": dataset, "sample_stats": tree["sample_stats"]}))
    assert found["ess_bulk_variable"] == "z"
    assert found["ess_bulk"] < 200


def test_bare_draws_are_neither_converged_nor_not(jittered_draws):
    found = posterior.convergence(jittered_draws)
    assert found["converged"] is None
    assert found["failed"] == []
    assert found["divergences"] is None
    assert found["rhat"] < 1.02
