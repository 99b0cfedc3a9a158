"""The column `model`: checkpoints of one model share an effect and a slope."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import bayesdistill as bd
from bayesdistill.criticism.left_out_scores import Fitted
from bayesdistill.datasets import data_hash, describe_runs, published_design, training_curves
from bayesdistill.errors import DataError, DesignWarning
from bayesdistill.law import LAWS, Draws, Reference
from bayesdistill.law.predictive import Design, Deviations, new_run_scale

DEFAULT, PAPER = LAWS["tied_reducible"], LAWS["busbridge2025"]
SUPERVISED = ("E", "A", "B", "alpha", "beta", "gamma")


def checkpoints(seed: int, models: int = 16, *, sd: float = 0.03, slope_sd: float = 0.01) -> pd.DataFrame:
    """Checkpoints of models under the published law: a normal effect and slope a model, and residuals of 0.002 nats."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(np.log(5e7), np.log(4e9), models))
    table = pd.DataFrame({"model": np.repeat([f"m{i}" for i in range(models)], 6), "params": np.repeat(sizes, 6)})
    table["tokens"] = np.tile(np.linspace(6e10, 3e11, 6), models)
    law = {name: bd.PUBLISHED[name] for name in SUPERVISED}
    effect, slope = np.repeat([[sd], [slope_sd]] * rng.standard_normal((2, models)), 6, axis=1)
    away = np.log(table["tokens"] / np.exp(np.log(table["tokens"]).mean()))
    noise = 0.002 * rng.standard_t(5.0, len(table))
    table["loss"] = bd.supervised_loss(table["params"], table["tokens"], **law) + effect + slope * away + noise
    return table


def names(law: bd.Law) -> list[str]:
    return [effect.name for effect in law.effects]


def test_default_law_has_the_effects_that_the_runs_determine():
    table = checkpoints(0)
    assert names(DEFAULT.for_tables(None, table)) == ["model", "model_slope"]
    assert names(DEFAULT.for_tables(None, table.drop(columns="model"))) == []
    assert names(DEFAULT.for_tables(None, table.groupby("model").head(1))) == []
    assert names(DEFAULT.for_tables(None, table.assign(model="transformer"))) == []
    # Seeds of one configuration share its misfit but say nothing about tokens; one repeated model is enough.
    assert names(DEFAULT.for_tables(None, table.assign(tokens=1e11))) == ["model"]
    unique = [f"{i}" for i in range(len(table))]
    assert names(DEFAULT.for_tables(None, table.assign(model=["0", *unique[:-1]]))) == ["model", "model_slope"]
    for law in (PAPER, DEFAULT.with_effects()):
        assert names(law.for_tables(None, table)) == []
    assert names(PAPER.with_effects("model").for_tables(None, table)) == ["model"]


def test_joint_fits_have_the_same_rule(runs354):
    table = checkpoints(0)
    students = ["student", "student_slope"]
    assert names(DEFAULT.for_tables(runs354, table)) == [*students, "model", "model_slope"]
    assert names(DEFAULT.for_tables(runs354, table.drop(columns="model"))) == students
    alone = DEFAULT.for_tables(runs354, None)
    assert names(alone) == students
    assert not any("model" in parameter.name for parameter in alone.parameters)


def test_models_are_part_of_the_hash():
    table = checkpoints(0)
    other = table.assign(model=[f"{name}x" for name in table["model"]])
    hashes = {data_hash(one) for one in (table, other, table.drop(columns="model"))}
    assert len(hashes) == 3
    assert data_hash(table.assign(teacher="T", student="S")) == data_hash(table)


def test_labels_of_models_are_checked(tmp_path):
    table = checkpoints(0)
    with pytest.raises(DataError, match=r"row 3, column model: the model label is missing; label every row or drop"):
        bd.read_runs(table.assign(model=[None if row == 2 else name for row, name in enumerate(table["model"])]))
    with pytest.raises(
        DataError, match=r"column params: .* for model 'a', which has .*; each model must have one params"
    ):
        bd.read_runs(table.assign(model=["a", "b"] * 48))
    # An architecture, not a model.
    assert len(bd.read_runs(table.assign(model="transformer"))) == 96
    path = tmp_path / "runs.csv"
    table.assign(model=[f"{int(name[1:]):03d}" for name in table["model"]]).to_csv(path, index=False)
    assert bd.read_runs(path)["model"].tolist()[:7] == ["000"] * 6 + ["001"]


def test_a_fit_of_checkpoints_knows_its_models(tmp_path):
    table = checkpoints(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bd.ConvergenceWarning)
        fit = bd.fit(supervised=table, draws=300, tune=500, chains=2, seed=0, progress=False)
    assert names(bd.law_of(fit)) == ["model", "model_slope"]
    # The true standard deviations and residual scale.
    for name, truth in (("sigma_model", 0.03), ("sigma_model_slope", 0.01), ("sigma", 0.002)):
        low, high = np.quantile(fit["posterior"][name], [0.005, 0.995])
        assert low < truth < high, name
    # The models are a sample of all models, whose mean is the law: the effects do not sum to zero.
    assert float(np.abs(fit["posterior"]["effect_model"].mean("model")).max()) > 1e-3
    assert fit["constant_data"]["model"].values.tolist() == table["model"].tolist()
    bd.save(fit, tmp_path / "fit.nc")
    again = bd.load(tmp_path / "fit.nc")
    pd.testing.assert_frame_equal(
        bd.posterior.fitted_table(again, "supervised"), table[["params", "tokens", "model", "loss"]]
    )
    # A model in the data keeps its effects; a new one, or one without a label, has others.
    runs = table.groupby("model").tail(1).drop(columns="loss")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bd.ConvergenceWarning)
        seen, new, unlabeled = (
            bd.predict(again, one, noise="run", allow_unconverged=True)
            for one in (runs, runs.assign(model="other"), runs.drop(columns="model"))
        )
    assert seen["group_seen"].all()
    assert not new["group_seen"].any()
    assert not unlabeled["group_seen"].any()
    width = (new["upper"] - new["lower"]).mean() / (seen["upper"] - seen["lower"]).mean()
    assert width > 4


def draws_with_models(count: int) -> Draws:
    law = DEFAULT.with_discrepancy().for_runs(distilled=False, supervised=True)
    noise = {"sigma": 1e-9, "nu": 30.0, "sigma_model": 0.03, "sigma_model_slope": 0.01, "noise_excess": 0.0}
    symbols = {name: np.full(count, value) for name, value in {**bd.PUBLISHED, **noise}.items()}
    return Draws(law, symbols, Reference(1e9, 1e11, 1.0), {"model": 8, "model_slope": 8})


def test_a_new_model_deviates_by_effect_and_slope():
    draws = draws_with_models(100_000)
    tokens = np.array([1e11, 1e12])
    design = Design("supervised", np.full(2, 1e9), tokens)
    expected = np.sqrt(0.03**2 + (0.01 * np.log(tokens / 1e11)) ** 2)
    np.testing.assert_allclose(new_run_scale(draws.take([0]), design)[0], expected, rtol=1e-6)
    deviation = Deviations.draw(draws, 0).pretrained(1e9, tokens[:, None])
    np.testing.assert_allclose(deviation.std(axis=-1), expected, rtol=0.01)
    # One model: its deviations differ by its slope alone.
    assert np.std(deviation[1] - deviation[0]) == pytest.approx(0.01 * np.log(10), rel=0.01)


def test_left_out_models_have_new_effects():
    table, draws = checkpoints(2, models=8), draws_with_models(20_000)
    kept = ~table["model"].isin(["m6", "m7"]).to_numpy()
    effects = {name: np.full((draws.n_draws, 8), value) for name, value in (("model", 0.1), ("model_slope", 0.2))}
    found = Fitted(draws, effects, {"supervised": table}, {"supervised": kept}).new_effects(
        "supervised", np.random.default_rng(0)
    )
    axis = np.log(table["tokens"].to_numpy() / 1e11)
    np.testing.assert_allclose(found[:, kept], np.broadcast_to(0.1 + 0.2 * axis[kept], found[:, kept].shape))
    wanted = np.sqrt(0.03**2 + (0.01 * axis[~kept]) ** 2)
    np.testing.assert_allclose(found[:, ~kept].std(axis=0), wanted, rtol=0.03)
    # Checkpoints of one left-out model share its effect, and different models share nothing.
    together = np.corrcoef(found[:, ~kept].T)
    assert together[0, 1] > 0.9
    assert abs(together[0, 6]) < 0.03


def test_plans_use_the_tokens_of_the_pretrained_run():
    """The slope of a new model enters at the tokens that the budget buys, far from those of the reference run."""
    law = PAPER.with_effects("model_slope").for_runs(distilled=True, supervised=True)
    noise = {"sigma": 1e-9, "sigma_supervised": 1e-9, "nu": 30.0, "sigma_model_slope": 0.01, "noise_excess": 0.0}
    count = 4000
    draws = Draws(law, {k: np.full(count, v) for k, v in {**bd.PUBLISHED, **noise}.items()}, Reference(1e9, 1e11, 2.2))
    fit = bd.posterior.with_law(
        xr.Dataset({k: (("chain", "draw"), v[None]) for k, v in draws.symbols.items()}),
        law,
        draws.reference,
    )
    plans = {name: bd.plan(fit, 1e9, [1e21, 1e22], "best case", noise=name) for name in ("law", "run")}
    scatter = (plans["run"]["advantage"] - plans["law"]["advantage"]).squeeze(["student", "scenario", "chain"])
    bought = np.array([1e21, 1e22]) / (3 * bd.flops_per_token(1e9))
    np.testing.assert_allclose(scatter.std("draw"), 0.01 * np.abs(np.log(bought / 1e11)), rtol=0.05)


# Suggestion ---------------------------------------------------------------------------------------------------------


def test_unlabeled_checkpoints_are_recognized():
    table = checkpoints(0).drop(columns="model")
    summary = describe_runs(table)
    text = summary.attrs["suggestion"]
    assert text in str(summary)
    assert text.startswith("96 of 96 supervised runs look like checkpoints of 16 trained models")
    assert "use a column model" in text
    assert training_curves(table.sample(frac=1, random_state=0)) == text
    assert training_curves(checkpoints(0)) == ""
    # Labels that do not repeat give no group effects, so that nothing accounts for the dependence.
    for labels in ([f"run {i}" for i in range(len(table))], "all"):
        assert training_curves(table.assign(model=labels)) == text
    fit = {"draws": 20, "tune": 20, "chains": 1, "progress": False, "law": "busbridge2025"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bd.ConvergenceWarning)
        with pytest.warns(DesignWarning, match="look like checkpoints"):
            found = bd.fit(supervised=table, **fit)
    assert any("look like checkpoints" in text for text in bd.check(found).problems + bd.check(found).cautions)


def test_grids_of_independent_runs_are_not_taken_for_checkpoints():
    assert training_curves(published_design("supervised")) == ""
    assert training_curves(published_design()) == ""
    assert training_curves(bd.load_runs("tiny", kind="supervised").drop(columns="model")) == ""
    rng = np.random.default_rng(0)
    flagged = 0
    for _ in range(200):  # isoFLOP runs of random budgets, and of sizes that several budgets share
        sizes, budgets = (
            np.exp(rng.uniform(np.log(low), np.log(high), n)) for low, high, n in ((1e8, 1e10, 9), (1e18, 1e22, 7))
        )
        grid = np.array([(size, budget / (6 * size)) for size in sizes for budget in budgets])
        flagged += bool(training_curves(pd.DataFrame(grid, columns=["params", "tokens"])))
    assert flagged <= 10


# Calibration ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_halves_of_the_models_agree():
    """90% intervals of the difference between two halves cover 0; without the effects they do not."""
    agree = {"tied_reducible": 0, "busbridge2025": 0}
    count = 20
    for seed in range(count):
        table = checkpoints(100 + seed, models=20)
        first = table["model"].isin([f"m{i}" for i in range(10)])
        for law in agree:
            values = []
            for half in (table[first], table[~first]):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", bd.ConvergenceWarning)
                    fit = bd.fit(supervised=half, law=LAWS[law].with_fixed(gamma=0.5), seed=seed, progress=False)
                values.append({name: fit["posterior"][name].values.ravel() for name in ("E", "alpha")})
            inside = []
            for name in ("E", "alpha"):
                first_half, second_half = values[0][name], values[1][name]
                # A fit that samples again has more draws.
                some = np.random.default_rng(0).choice(first_half, second_half.size)
                low, high = np.quantile(some - second_half, [0.05, 0.95])
                inside.append(low <= 0 <= high)
            agree[law] += all(inside)
    # At least 85%, allowing for the count; nine in ten would be exact for one parameter.
    assert agree["tied_reducible"] >= stats.binom.ppf(0.01, count, 0.85)
    assert agree["busbridge2025"] < agree["tied_reducible"]
