"""The compute-optimal size against the closed form of Hoffmann et al. (2022), a dense search, `predict` and simulated runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from decision_cases import assert_agree
from scipy import stats
from test_cli import run

import bayesdistill as bd
from bayesdistill import cli, posterior
from bayesdistill.compute import Shape, flops_per_token
from bayesdistill.decisions._compute_optimal import MULTIPLES
from bayesdistill.law import Reference
from bayesdistill.plots import style

BUDGETS = np.geomspace(1e18, 1e25, 8)
LAW = bd.LAWS["tied_reducible"].with_effects("model").for_runs(distilled=False, supervised=True)


class Weights(Shape):
    """A shape whose FLOPs are 6 N D exactly."""

    k1 = k2 = 0.0


def draws_of_law(seed: int = 0, count: int = 250, spread: float = 0.05) -> xr.Dataset:
    """Draws around the published supervised law, with residual noise and a discrepancy."""
    rng = np.random.default_rng(seed)
    values = {
        **bd.PUBLISHED,
        "sigma": 0.004,
        "nu": 8.0,
        "noise_excess": 0.1,
        "discrepancy_shared": 0.7,
        "sigma_model": 1e-3,
    }
    names = [p.name for p in LAW.parameters]
    drawn = {
        name: (("chain", "draw"), values[name] * np.exp(spread * rng.standard_normal((4, count)))) for name in names
    }
    return posterior.with_law(xr.Dataset(drawn), LAW, Reference(1e9, 2e10, 2.3))


def symbols(draws: xr.Dataset) -> list[np.ndarray]:
    return [draws[name].values.ravel() for name in ("E", "A", "B", "alpha", "beta", "gamma")]


def loss(draws: xr.Dataset, size: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The law's loss, (..., n_draws), from the formula."""
    E, A, B, alpha, beta, gamma = symbols(draws)
    return E + (A / size[..., None] ** alpha + B / tokens[..., None] ** beta) ** gamma


def test_the_optimum_is_equation_4_of_hoffmann_whatever_gamma_is():
    draws = draws_of_law()
    found = bd.compute_optimal(draws, BUDGETS, shape=Weights())
    _, A, B, alpha, beta, _ = symbols(draws)
    power = beta / (alpha + beta)
    ratio = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    size = ratio * (BUDGETS[:, None] / 6) ** power
    np.testing.assert_allclose(found["best_params"].values.reshape(8, -1), size, rtol=1e-8)
    tokens = (BUDGETS[:, None] / 6) ** (1 - power) / ratio
    np.testing.assert_allclose(found["best_tokens"].values.reshape(8, -1), tokens, rtol=1e-8)
    np.testing.assert_allclose(found["size_exponent"].values.ravel(), power, rtol=1e-12)
    other = bd.compute_optimal(draws.assign(gamma=1.0 + 0 * draws["gamma"]), BUDGETS, shape=Weights())
    np.testing.assert_allclose(other["best_params"], found["best_params"], rtol=1e-8)
    approximate = bd.compute_optimal(draws, BUDGETS, shape=bd.SIX_ND)
    np.testing.assert_allclose(approximate["best_params"], found["best_params"], rtol=2e-4)
    assert not np.allclose(bd.compute_optimal(draws, BUDGETS)["best_params"], found["best_params"], rtol=0.05)


@pytest.mark.parametrize("shape", [Shape(), Shape(context_length=65536, vocabulary_size=262144)])
def test_the_optimum_is_that_of_a_dense_search(shape):
    draws = draws_of_law(1, 10)
    found = bd.compute_optimal(draws, BUDGETS, shape=shape)
    for place, budget in enumerate(BUDGETS):
        sizes = np.geomspace(1e6, 1e14, 40_001)
        losses = loss(draws, sizes, budget / (3 * flops_per_token(sizes, shape)))
        step = sizes[1] / sizes[0]
        best = sizes[losses.argmin(axis=0)]
        inside = found["best_params"][place].values.ravel() / best
        assert (np.abs(np.log(inside)) <= np.log(step)).all()
        chosen = sizes[losses.mean(axis=1).argmin()]
        assert abs(np.log(found["params"][place] / chosen)) <= np.log(step)
        lost = losses.mean(axis=1).min() - losses.min(axis=0).mean()
        assert found["regret"][place].item() == pytest.approx(lost, abs=1e-7)
    spent = 3 * flops_per_token(found["params"].values, shape) * found["tokens"].values
    np.testing.assert_allclose(spent, BUDGETS, rtol=1e-12)
    np.testing.assert_allclose(found["tokens_per_parameter"], found["tokens"] / found["params"])


def test_isoflop_curves_are_differences_of_the_law():
    draws = draws_of_law(2, 10)
    found = bd.compute_optimal(draws, [1e20, 1e23], noise="law")
    for place, budget in enumerate([1e20, 1e23]):
        sizes = MULTIPLES * found["params"][place].item()
        losses = loss(draws, sizes, budget / (3 * flops_per_token(sizes)))
        middle = MULTIPLES.size // 2
        np.testing.assert_allclose(found["loss"][place].values.ravel(), losses[middle], rtol=1e-12)
        expected = np.quantile(losses - losses[middle], found["quantile"], axis=1, method="inverted_cdf").T
        np.testing.assert_allclose(found["excess_quantile"][place], expected, atol=1e-12)


@pytest.mark.parametrize("noise", ["law", "expected", "run"])
def test_the_loss_is_what_predict_says_of_the_chosen_model(noise):
    draws = draws_of_law(3, 2000, 0.002)
    found = bd.compute_optimal(draws, [1e19, 1e22, 1e25], noise=noise)
    table = pd.DataFrame({"params": found["params"].values, "tokens": found["tokens"].values})
    predicted = bd.predict(draws, table, noise=noise, allow_suspicious=True)
    middle = found["loss"].quantile([0.05, 0.5, 0.95], ("chain", "draw")).values
    error = 1e-9 if noise == "law" else 3 * predicted["sd"].values / np.sqrt(8000) / 0.3
    for name, values in zip(("lower", "median", "upper"), middle, strict=True):
        np.testing.assert_array_less(np.abs(predicted[name].values - values), error)
    assert found.attrs["noise"] == noise


def test_the_discrepancy_moves_the_loss_and_not_the_optimum():
    """It depends on N D, which is the same for all sizes of a budget if FLOPs are 6 N D."""
    draws = draws_of_law(4, 50)
    law, expected = (bd.compute_optimal(draws, BUDGETS, shape=Weights(), noise=noise) for noise in ("law", "expected"))
    xr.testing.assert_equal(law["best_params"], expected["best_params"])
    xr.testing.assert_equal(law["params"], expected["params"])
    moved = (expected["loss"] - law["loss"]).std(("chain", "draw"))
    assert moved[-1] > 3 * moved[2] > 0
    inside = posterior.draws_of(draws)
    sizes = law["params"].values[:, None] * np.array([0.25, 1, 4])
    path = inside.discrepancy("supervised", sizes[..., None], (BUDGETS[:, None] / 6 / sizes)[..., None])
    np.testing.assert_allclose(path, path[:, :1] + 0 * path, atol=1e-12)


def test_more_compute_never_gives_a_worse_model_and_order_and_units_change_nothing():
    draws = draws_of_law(5, 25)
    found = bd.compute_optimal(draws, BUDGETS, noise="law")
    best = loss(draws, found["params"].values, found["tokens"].values)
    assert (np.diff(best.mean(axis=-1)) < 0).all()
    assert (np.diff(found["best_params"], axis=0) > 0).all()
    assert (np.diff(found["best_tokens"], axis=0) > 0).all()
    assert (found["regret"] >= 0).all()
    turned = bd.compute_optimal(bd.Planner(draws, noise="law"), [str(budget) for budget in BUDGETS[::-1]])
    assert_agree(turned, found)


def test_one_draw_has_no_regret(published_draw):
    found = bd.compute_optimal(published_draw, [1e20, 1e22])
    np.testing.assert_allclose(found["params"], found["best_params"].values.ravel(), rtol=1e-6)
    np.testing.assert_allclose(found["regret"], 0, atol=1e-12)


def supervised_fit(runs: pd.DataFrame) -> xr.DataTree:
    """Draws as a fit of supervised runs, without sampling."""
    data = xr.Dataset({name: ("supervised_run", runs[name].values) for name in ("params", "tokens")})
    observed = xr.Dataset({"loss": ("supervised_run", runs["loss"].values)})
    return xr.DataTree.from_dict({"posterior": draws_of_law(), "constant_data": data, "observed_data": observed})


def test_an_optimum_that_is_no_model_is_an_error(published_draw):
    with pytest.raises(bd.ParameterError, match=r"compute-optimal size for 1e\+06 FLOPs is not between"):
        bd.compute_optimal(published_draw, [1e21, 1e6])


def test_distance_from_the_data_includes_the_budget(supervised_runs):
    fit = supervised_fit(supervised_runs)
    spent = 3 * flops_per_token(supervised_runs["params"]) * supervised_runs["tokens"]
    largest = float(spent.max())
    found = bd.compute_optimal(fit, [1e20, largest, 4 * largest])
    factors = found["extrapolation_factor"].sel(axis="pretraining_compute").values
    np.testing.assert_allclose(factors, [1, 1, 4], rtol=1e-9)
    ratio = supervised_runs["tokens"] / supervised_runs["params"]
    expected = max(1, float(ratio.min()) / found["tokens_per_parameter"][0].item())
    assert found["extrapolation_factor"].sel(axis="pretraining_tokens_per_param")[0] == pytest.approx(expected)
    assert found["extrapolates"].values[-1]


def test_decisions_about_distillation_name_what_works_without_it(supervised_runs):
    fit = supervised_fit(supervised_runs)
    calls = [
        lambda: bd.plan(fit, "1B", 1e21),
        lambda: bd.crossovers(fit, "1B"),
        lambda: bd.recommendations(fit, "1B"),
    ]
    for call in calls:
        with pytest.raises(bd.ParameterError, match=r"For pretraining alone, use bd\.predict or bd\.compute_optimal"):
            call()


def test_the_command_prints_the_table_and_round_numbers(monkeypatch, capsys, tmp_path):
    fit, output = tmp_path / "fit.nc", tmp_path / "optimal.nc"
    bd.save(draws_of_law(), fit)
    monkeypatch.setattr(cli, "_load_fit", bd.load)  # draws without a fit
    asked = ["optimal", str(fit), "--budgets", "1e20,1e22", "--six-nd"]
    code, out, err = run(monkeypatch, capsys, *asked, "-o", str(output))
    assert code == 0, err
    found = bd.compute_optimal(draws_of_law(), [1e20, 1e22], shape=bd.SIX_ND)
    for size in found["params"].values:
        assert style.short(size) in out
    assert max(map(len, out.splitlines()[:-1])) <= 80
    xr.testing.assert_identical(bd.load(output), found)
    code, out, err = run(monkeypatch, capsys, *asked, "--json")
    assert code == 0, err
    names = ["budget", "params", "tokens", "loss_lower", "loss_median", "loss_upper", "best_params_median", "regret"]
    for row, (_, expected) in zip(json.loads(out), bd.decision_table(found).iterrows(), strict=True):
        assert [row[name] for name in names] == pytest.approx(expected[names].tolist(), rel=1e-5)


def design() -> pd.DataFrame:
    """IsoFLOP runs as those of Hoffmann et al. (2022): sizes around the optimum of seven budgets."""
    budgets = np.repeat(np.geomspace(6e18, 3e21, 7), 7)
    sizes = np.sqrt(budgets / 120) * np.tile(2.0 ** np.linspace(-2, 2, 7), 7)
    return pd.DataFrame({"params": sizes, "tokens": budgets / 6 / sizes})


@pytest.mark.slow
def test_intervals_contain_the_true_optimum_as_often_as_they_say():
    """Simulated tables in the published law's form with gamma = 1; inside the budgets and ten times beyond."""
    truth = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.365, "gamma": 1.0}
    budgets = np.array([1e20, 3e22])
    power = truth["beta"] / (truth["alpha"] + truth["beta"])
    ratio = (truth["alpha"] * truth["A"] / (truth["beta"] * truth["B"])) ** (1 / (truth["alpha"] + truth["beta"]))
    size = ratio * (budgets / 6) ** power
    lowest = truth["E"] + truth["A"] / size ** truth["alpha"] + truth["B"] / (budgets / 6 / size) ** truth["beta"]
    inside = []
    for seed in range(24):
        runs = bd.simulate_runs(
            {**bd.PUBLISHED, **truth}, design=design(), kind="supervised", seed=seed, sigma=0.01, nu=20.0
        )
        fit = bd.fit(supervised=runs, law=bd.LAWS["tied_reducible"].with_fixed(gamma=1), seed=seed, progress=False)
        found = bd.compute_optimal(fit, budgets, shape=bd.SIX_ND)
        for name, values in (("best_params", size), ("loss", lowest)):
            low, high = found[name].quantile([0.05, 0.95], ("chain", "draw")).values
            inside += [(name, i, low[i] <= values[i] <= high[i]) for i in range(2)]
    frame = pd.DataFrame(inside, columns=["name", "budget", "covered"])
    counts = frame.groupby(["name", "budget"])["covered"].sum()
    low, high = stats.binom.ppf([0.001, 0.999], 24, 0.9)
    assert counts.between(low, high).all(), counts.to_dict()


@pytest.mark.slow
def test_what_the_page_says_is_so(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[1] / "docs" / "how-to" / "pretraining-alone.md"
    names: dict[str, object] = {}
    for source in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        exec(source, names)
    found, text = names["found"], " ".join(page.read_text().split())
    assert isinstance(found, xr.Dataset)
    one = found.sel(budget=1e21)
    low, middle, high = one["loss"].quantile([0.05, 0.5, 0.95], ("chain", "draw")).values
    best = one["best_params"].quantile([0.05, 0.95], ("chain", "draw")).values
    stated = re.search(
        r"best size is (\S+)B parameters \(90% interval of the optimum: (\S+)B to (\S+)B\) on (\S+)B tokens, and its expected loss "
        r"is (\S+) nats \((\S+) to (\S+)\)\. The law behind these runs has its optimum at (\S+)B and (\S+) nats",
        text,
    )
    assert stated is not None
    truth = {name: bd.PUBLISHED[name] for name in ("E", "A", "B", "alpha", "beta", "gamma")}
    sizes = np.geomspace(1e9, 1e10, 100_001)
    losses = bd.supervised_loss(sizes, 1e21 / (3 * flops_per_token(sizes)), **truth)
    values = [float(value) for value in stated.groups()]
    # The fit of another machine may round otherwise.
    found_sizes = [one["params"].item() / 1e9, best[0] / 1e9, best[1] / 1e9, one["tokens"].item() / 1e9]
    assert values[:4] == pytest.approx(found_sizes, rel=0.02)
    assert values[4:7] == pytest.approx([middle, low, high], abs=3e-4)
    assert values[7:] == pytest.approx([sizes[losses.argmin()] / 1e9, losses.min()], rel=2e-3)
    assert f"costs: {one['regret'].item():.4f} nats at 1e21" in text
    half, twice = (one["excess_quantile"].sel(quantile=0.5, multiple=multiple).item() for multiple in (0.5, 2))
    assert f"half the size costs {half:.3f} nats and twice the size {twice:.3f} nats" in text
    widths = [np.ptp(found["loss"].sel(budget=b).quantile([0.05, 0.95]).values) for b in (1e21, 1e24)]
    growth = re.search(r"grows from (\S+) to (\S+) nats", text)
    assert growth is not None
    assert [float(value) for value in growth.groups()] == pytest.approx(widths, abs=2e-3)
    assert f"at least {runs_ratio(names):.0f} tokens per parameter, and the optimum has" in text
    exponents = names["simple"]["size_exponent"].quantile([0.05, 0.5, 0.95]).values
    assert "{1:.2f} ({0:.2f} to {2:.2f}) here".format(*exponents) in text
    assert f"optimum has {one['tokens_per_parameter'].item():.1f}" in text


def runs_ratio(names: dict) -> float:
    return float((names["runs"]["tokens"] / names["runs"]["params"]).min())
