"""Criticism of fits of supervised runs, against brute force, and its figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.criticism.prior_findings import prior_findings
from bayesdistill.criticism.quality_findings import quality_findings
from bayesdistill.errors import DataError, ModelError
from bayesdistill.law import LAWS, Reference
from bayesdistill.sampling.groups import data_groups

SYMBOLS = ("E", "A", "B", "alpha", "beta", "gamma")
REFERENCE = Reference(5e8, 1e11, 2.3)


def table(models: int = 6) -> pd.DataFrame:
    """Checkpoints of models; every second model is 0.02 nats too high, and losses bend with the tokens."""
    sizes = np.geomspace(1e8, 4e9, models)
    runs = pd.DataFrame({"model": np.repeat([f"m{i}" for i in range(models)], 6), "params": np.repeat(sizes, 6)})
    runs["tokens"] = np.tile(np.geomspace(2e10, 4e11, 6), models)
    law = bd.supervised_loss(runs["params"], runs["tokens"], **{name: bd.PUBLISHED[name] for name in SYMBOLS})
    bend = 0.004 * np.log(runs["tokens"] / 1e11) ** 2
    return runs.assign(loss=law + bend + np.repeat(np.arange(models) % 2 * 0.02, 6))


def fit_of(runs: pd.DataFrame, distilled: pd.DataFrame | None = None, count: int = 300, nu: float = 6.0) -> xr.DataTree:
    """Draws around the published law as a fit of these runs, without sampling."""
    law = LAWS["tied_reducible"].with_effects("model", "model_slope") if distilled is None else LAWS["busbridge2025"]
    law = law.with_discrepancy().for_tables(distilled, runs)
    rng = np.random.default_rng(0)
    noise = {
        "sigma": 0.004,
        "nu": nu,
        "sigma_model": 0.01,
        "sigma_model_slope": 0.002,
        "sigma_supervised": 0.004,
        "noise_excess": 0.0,
    }
    values = {**bd.PUBLISHED, **noise}
    draws = {p.name: (("chain", "draw"), values[p.name] * rng.lognormal(0, 0.001, (2, count))) for p in law.parameters}
    for effect in law.effects:
        labels = effect.groups(runs)[0]
        centers = 0.01 * (np.arange(len(labels)) % 2) if effect.name == "model" else np.zeros(len(labels))
        spread = 0.001 * rng.standard_normal((2, count, len(labels)))
        draws[effect.variable.name] = (("chain", "draw", effect.dim), centers + spread)
    coords = {effect.dim: effect.groups(runs)[0] for effect in law.effects}
    kept = posterior.with_law(xr.Dataset(draws, coords), law, REFERENCE)
    observed, constant = data_groups(law, distilled, runs)
    return xr.DataTree.from_dict({"posterior": kept, "observed_data": observed, "constant_data": constant})


def losses(fit: xr.DataTree, runs: pd.DataFrame) -> np.ndarray:
    """The law's loss of every run under every draw, (n_draws, run), from the formula."""
    p = {name: fit["posterior"][name].values.ravel()[:, None] for name in SYMBOLS}
    n, d = (runs[name].to_numpy() for name in ("params", "tokens"))
    return p["E"] + (p["A"] / n ** p["alpha"] + p["B"] / d ** p["beta"]) ** p["gamma"]


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return table()


@pytest.fixture(scope="module")
def fit(runs) -> xr.DataTree:
    return fit_of(runs)


@pytest.fixture(scope="module")
def joint(runs, runs354) -> xr.DataTree:
    return fit_of(runs, runs354.iloc[::9].reset_index(drop=True))


def test_posterior_predictive_is_that_of_the_formula(fit, runs):
    found = bd.posterior_predictive(fit, max_draws=600)
    assert found.attrs["kind"] == "supervised"
    draws, index = fit["posterior"], np.repeat(np.arange(6), 6)
    axis = np.log(runs["tokens"].to_numpy() / REFERENCE.tokens)
    effects, slopes = (draws[name].values.reshape(-1, 6)[:, index] for name in ("effect_model", "effect_model_slope"))
    center = losses(fit, runs) + effects + slopes * axis
    sigma, nu = (draws[name].values.reshape(-1, 1) for name in ("sigma", "nu"))
    observed = runs["loss"].to_numpy()
    np.testing.assert_allclose(found["pit"], stats.t(nu, center, sigma).cdf(observed).mean(axis=0), rtol=1e-9)
    of_models = found.isel(group=found["factor"].values == "model")
    assert of_models["label"].values.tolist() == [f"m{i}" for i in range(6)]  # in order of size
    residual = observed - center.mean(axis=0)
    np.testing.assert_allclose(of_models["mean"], residual.reshape(6, 6).mean(axis=1), rtol=1e-9)
    assert set(found["factor"].values) == {"model", "size", "tokens", "tokens_per_param"}
    assert (found["runs"].groupby("factor").sum() == len(runs)).all()


def test_residual_structure_is_that_of_the_formula(fit, runs):
    found = bd.residual_structure(fit, shuffles=300)
    residual = runs["loss"].to_numpy() - losses(fit, runs).mean(axis=0)
    np.testing.assert_allclose(found["residual"], residual, rtol=1e-9)
    np.testing.assert_allclose(found["tokens_per_param"], runs["tokens"] / runs["params"])
    grouped = residual.reshape(6, 6)
    within = ((grouped - grouped.mean(axis=1, keepdims=True)) ** 2).sum() / 30
    assert float(found["share"].sel(by="model")) == pytest.approx(1 - within / residual.var(ddof=1))
    assert float(found["p_value"].sel(by="model")) < 0.01
    # Losses bend with the tokens, so neighbors within a model agree.
    apart = grouped - grouped.mean(axis=1, keepdims=True)
    expected = (apart[:, 1:] * apart[:, :-1]).sum() / 30 / (apart**2).mean()
    assert float(found["neighbours"]) == pytest.approx(expected)
    assert float(found["neighbours_p"]) < 0.01
    assert found["configuration"].values.tolist() == [f"m{i}" for i in range(6)]
    assert bd.criticism_table(found).index.tolist() == ["model", "size", "tokens", "tokens_per_param"]


def test_runs_without_labels_are_grouped_by_size(runs):
    found = bd.residual_structure(fit_of(runs.drop(columns="model")), shuffles=20)
    assert found["by"].values.tolist() == ["size", "tokens", "tokens_per_param"]
    assert found.attrs["series"] == "size"
    assert found.sizes["configuration"] == 6


def test_law_curves_are_those_of_the_formula(fit, runs):
    curves = bd.law_curves(fit, points=5, max_draws=600)
    assert curves["mean"].dims == ("configuration", "tokens")
    grid = pd.DataFrame(
        {"params": np.repeat(curves["configuration_params"].values, 5), "tokens": np.tile(curves["tokens"], 6)}
    )
    found = losses(fit, grid)
    np.testing.assert_allclose(curves["mean"].values.ravel(), found.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(curves["lower"].values.ravel(), np.quantile(found, 0.05, axis=0), rtol=1e-9)
    np.testing.assert_allclose(curves["residual"], runs["loss"] - losses(fit, runs).mean(axis=0), rtol=1e-9)
    np.testing.assert_array_equal(curves["run_tokens"], runs["tokens"])
    np.testing.assert_array_equal(curves["configuration_of_run"], np.repeat(np.arange(6), 6))
    # A new run has the effects of a new model: variances of residual, effect and slope add up, with 6 models in the data.
    axis = np.log(curves["tokens"].values / REFERENCE.tokens)
    variance = 0.004**2 * 6 / 4 + 7 / 6 * (0.01**2 + (0.002 * axis) ** 2)
    width = (curves["run_upper"] - curves["run_lower"]) / (2 * 1.645)
    np.testing.assert_allclose(width, np.broadcast_to(np.sqrt(variance), width.shape), rtol=0.1)


def test_many_sizes_have_few_curves():
    many = table(30)
    curves = bd.law_curves(fit_of(many), points=3)
    sizes = curves["configuration_params"].values
    assert sizes.size == 8
    assert set(sizes) <= set(many["params"])
    nearest = sizes[curves["configuration_of_run"].values]
    distance = np.abs(np.log(many["params"].to_numpy()[:, None] / sizes)).min(axis=1)
    np.testing.assert_allclose(np.abs(np.log(many["params"] / nearest)), distance, atol=1e-12)


def test_prior_predictive_simulates_pretrained_losses(runs):
    found = bd.prior_predictive(supervised=runs, draws=200, seed=1)
    np.testing.assert_array_equal(found["loss"], runs["loss"])
    below = (found["expected"].values < runs["loss"].to_numpy()).mean(axis=0)
    # A loss above k of the five quantiles has a position between these quantiles.
    edges = np.array([0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0])
    k = np.round(5 * below).astype(int)
    assert ((edges[k] - 0.01 <= found["position"]) & (found["position"] <= edges[k + 1] + 0.01)).all()
    assert 0.5 < float(found["inside_90"]) <= 1
    with pytest.raises(DataError, match="supervised"):
        bd.prior_predictive(runs)
    with pytest.raises(ModelError, match="no runs"):
        bd.prior_predictive()
    with pytest.raises(ModelError, match="no distilled runs"):
        bd.prior_predictive(supervised=runs, kind="distilled")


def test_both_kinds_of_a_joint_fit(joint, fit, runs):
    for function, options in (
        (bd.posterior_predictive, {}),
        (bd.residual_structure, {"shuffles": 20}),
        (bd.law_curves, {"points": 3}),
    ):
        kinds = {kind: function(joint, kind=kind, **options) for kind in ("distilled", "supervised")}
        assert {kind: one.sizes["run"] for kind, one in kinds.items()} == {"distilled": 40, "supervised": 36}
        xr.testing.assert_identical(function(joint, **options), kinds["distilled"])
        with pytest.raises(ModelError, match="requires a fit of distilled runs"):
            function(fit, kind="distilled", **options)
        with pytest.raises(bd.ParameterError, match="kind"):
            function(fit, kind="both", **options)


@pytest.mark.parametrize(
    "size", ["page", *(pytest.param(size, marks=pytest.mark.slow) for size in ("column", "slide"))]
)
def test_figures(fit, runs, size):
    found = {
        bd.plot_posterior_predictive: bd.posterior_predictive(fit),
        bd.plot_residuals: bd.residual_structure(fit, shuffles=20),
        bd.plot_runs: bd.law_curves(fit, points=5),
        bd.plot_prior_predictive: bd.prior_predictive(supervised=runs, draws=20),
    }
    labels = {}
    for plot, data in found.items():
        figure = plot(data, size=size)
        labels[plot] = {
            text.replace("\n", " ") for ax in figure.axes for text in (ax.get_xlabel(), ax.get_ylabel()) if text
        }
        figure.canvas.draw()
    assert {"training tokens [tokens]", "tokens per parameter [1]", "model [parameters]"} <= labels[bd.plot_residuals]
    assert {"training tokens [tokens]", "loss [nats per token]", "residual [nats per token]"} <= labels[bd.plot_runs]
    assert "loss [nats per token]" in labels[bd.plot_prior_predictive]
    assert {"size of the model", "tokens of the model"} <= labels[bd.plot_posterior_predictive]
    with pytest.raises(bd.ParameterError, match="'model', 'size', 'tokens', 'tokens_per_param'"):
        bd.plot_posterior_predictive(found[bd.plot_posterior_predictive], factors=("teacher",))


@pytest.mark.parametrize("kind", ["supervised", "distilled"])
def test_curves_of_a_fixed_axis_are_drawn(kind, runs, runs354):
    """One number of tokens, or one teacher: the axis is around it, has a tick, and nothing warns."""
    one_teacher = runs354.iloc[::9].assign(teacher="T", teacher_loss=2.2).reset_index(drop=True)
    fixed = runs.assign(tokens=7e10) if kind == "supervised" else runs
    curves = bd.law_curves(fit_of(fixed, None if kind == "supervised" else one_teacher), kind=kind, points=5)
    axis, at = ("tokens", 7e10) if kind == "supervised" else ("teacher_loss", 2.2)
    assert curves[axis].values[0] < at * 0.99 < at * 1.01 < curves[axis].values[-1]
    assert (curves["run_upper"] > curves["upper"]).all()
    figure = bd.plot_runs(curves)
    figure.canvas.draw()
    for ax in (ax for ax in figure.axes if ax.axison):
        low, high = ax.get_xlim()
        assert low < at < high
        assert any(low <= tick <= high for tick in ax.get_xticks())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([0], "supervised runs in row 1)"),
        ([0, 1], "supervised runs in rows 1, 2)"),
        (list(range(1, 36, 4)), "supervised runs in rows 18, 22, 26, 30, 34, the worst 5 of 9)"),
    ],
)
def test_runs_that_miss_the_law_are_counted_from_1_and_are_one_cause(runs, wrong, words):
    """Their advice replaces that on the priors of the residual noise, and no other."""
    table = runs.copy()
    table.loc[wrong, "loss"] += 0.3 + 0.01 * np.arange(len(wrong))
    shifts = {"log_alpha": -3.5, "log_sigma": 4.0, "log_nu": -5.0}
    for nu, named in ((1.5, {"log_alpha"}), (6.0, set(shifts))):
        fit = fit_of(table, nu=nu)
        z = np.broadcast_to(list(shifts.values()), (2, 300, 3))
        fit["posterior"] = (
            fit["posterior"]
            .to_dataset()
            .assign(z=(("chain", "draw", "coordinate"), z))
            .assign_coords(coordinate=list(shifts))
        )
        cautions = [found.sentence for found in quality_findings(fit) if found.state == "caution"]
        assert any(words in text for text in cautions) == (nu < 2)
        conflicts = [found for found in prior_findings(fit) if found.state == "caution"]
        assert {found.value.split("(")[1].rstrip(")") for found in conflicts} == named
