"""`bd.predict`: closed forms, group effects, calibration, tables and errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats
from test_cli import Command, command, unconverged

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.datasets import read_design
from bayesdistill.decisions.marginals import Nodes
from bayesdistill.law import Draws, Reference
from bayesdistill.law.formulas import teacher_axis
from bayesdistill.law.predictive import Design, expected_loss

__all__ = ["command", "unconverged"]  # fixtures

REFERENCE = Reference(5e8, 1e10, 2.2)
TWO = pd.DataFrame({"student_params": [1e9, 3e8], "student_tokens": [2e10, 4e10], "teacher_loss": [2.2, 2.4]})
ALONE = pd.DataFrame({"params": [1e9, 3e8], "tokens": [2e10, 4e10]})
EQUATION_8 = bd.LAWS["busbridge2025"]


def posterior_of(
    law: bd.Law, draws: int = 1, effects: dict[str, np.ndarray] | None = None, **symbols: float
) -> xr.Dataset:
    """Equal draws of the published law with these symbols; effects are (label, value) by name."""
    values = {**bd.PUBLISHED, "sigma": 0.01, "nu": 5.0, **symbols}
    values = {p.name: values[p.name] for p in law.parameters if p.name in values}
    found = xr.Dataset({name: (("chain", "draw"), np.full((1, draws), value)) for name, value in values.items()})
    for effect in law.effects:
        if effects and effect.name in effects:
            labels, of_label = zip(*effects[effect.name].items(), strict=True)
            found[effect.variable.name] = (("chain", "draw", effect.dim), np.tile(of_label, (1, draws, 1)))
            found = found.assign_coords({effect.dim: list(labels)})
    return posterior.with_law(found, law, REFERENCE)


# Closed forms -------------------------------------------------------------------------------------------------------


def test_the_mean_is_that_of_the_law():
    distilled, alone = bd.predict(posterior_of(EQUATION_8), TWO), bd.predict(posterior_of(EQUATION_8), ALONE)
    expected = bd.distilled_loss(*(TWO[name].to_numpy() for name in TWO), **bd.PUBLISHED)
    pretrained = bd.supervised_loss(
        1e9, 2e10, **{name: bd.PUBLISHED[name] for name in ("E", "A", "B", "alpha", "beta", "gamma")}
    )
    np.testing.assert_allclose(distilled["mean"], expected, rtol=1e-12)
    assert alone["mean"].values[0] == pytest.approx(pretrained, rel=1e-12)
    # A law without uncertainty.
    for name in ("lower", "median", "upper"):
        np.testing.assert_allclose(distilled[name], expected, rtol=1e-12)
    np.testing.assert_allclose(distilled["sd"], 0.0, atol=1e-12)


@pytest.mark.parametrize("prob", [0.5, 0.9, 0.99])
def test_a_single_draw_has_student_t_quantiles(prob):
    found = bd.predict(posterior_of(EQUATION_8), TWO, noise="run", prob=prob)
    for name, level in (("lower", (1 - prob) / 2), ("median", 0.5), ("upper", (1 + prob) / 2)):
        exact = found["mean"].values + 0.01 * stats.t.ppf(level, 5.0)
        np.testing.assert_allclose(found[name], exact, atol=1e-7)
    np.testing.assert_allclose(found["sd"], 0.01 * np.sqrt(5 / 3))
    assert found["lower"].attrs["interval_prob"] == prob
    assert found.attrs["interval_kind"] == "equal-tailed"


def test_many_draws_are_a_mixture():
    rng = np.random.default_rng(1)
    few = posterior_of(EQUATION_8, 300)
    few = few.assign(
        E=few["E"] + 0.01 * rng.standard_normal((1, 300)),
        sigma=few["sigma"] * np.exp(0.3 * rng.standard_normal((1, 300))),
        nu=few["nu"] - 2.5 + 5 * rng.random((1, 300)),
    )
    found = bd.predict(few, TWO, noise="run")
    center = bd.predict(few, TWO, draws=True)["loss"].values[:, 0]
    for name, level in (("lower", 0.05), ("median", 0.5), ("upper", 0.95)):
        z = (found[name].values[:, None] - center) / few["sigma"].values
        below = stats.t.cdf(z, few["nu"].values).mean(axis=1)
        np.testing.assert_allclose(below, level, atol=5e-4)
    variance = center.var(axis=1) + (few["sigma"] ** 2 * few["nu"] / (few["nu"] - 2)).values.mean()
    np.testing.assert_allclose(found["sd"], np.sqrt(variance))
    np.testing.assert_allclose(found["mean"], center.mean(axis=1))


def test_the_standard_deviation_is_infinite_with_very_heavy_tails():
    found = bd.predict(posterior_of(EQUATION_8, nu=1.9), TWO, noise="run")
    assert np.isinf(found["sd"]).all()
    assert np.isfinite(found["upper"]).all()


@pytest.mark.parametrize("form", ["ratio", "tokens"])
def test_residuals_may_depend_on_the_run(form):
    law = EQUATION_8.with_residual_noise(form)
    found = bd.predict(posterior_of(law, **{f"noise_{form}": 0.2}), TWO, noise="run")
    own = bd.predict(posterior_of(EQUATION_8), ALONE)["mean"].values
    change = np.log(TWO["teacher_loss"] / own) / 0.1 if form == "ratio" else np.log(TWO["student_tokens"] / 1e10)
    scale = 0.01 * np.exp(0.2 * change)
    np.testing.assert_allclose(found["upper"], found["mean"] + scale * stats.t.ppf(0.95, 5.0), atol=1e-6)


def test_nodes_represent_independent_distributions():
    nodes = Nodes(np.full(40, 4.0))
    assert nodes.residuals.size >= 2**16
    assert np.corrcoef(nodes.residuals.ravel(), nodes.effects.ravel())[0, 1] == pytest.approx(0, abs=0.02)
    assert nodes.effects.std() == pytest.approx(1.0, abs=1e-3)


# Group effects ------------------------------------------------------------------------------------------------------

TEACHERS = {"T1": 0.02, "T2": -0.03, "T3": 0.01}
OF_TEACHERS = TWO.assign(teacher=["T2", "T9"])


def with_teachers(draws: int = 1) -> xr.Dataset:
    law = EQUATION_8.with_effects("teacher")
    return posterior_of(law, draws, {"teacher": TEACHERS}, sigma_teacher=0.05)


def test_effects_of_groups_in_the_data_are_known():
    plain = bd.predict(posterior_of(EQUATION_8), TWO)["mean"].values
    found = bd.predict(with_teachers(), OF_TEACHERS)
    np.testing.assert_allclose(found["mean"], plain + np.array([-0.03, 0.0]))
    np.testing.assert_allclose(bd.predict(with_teachers(), OF_TEACHERS, groups="new")["mean"], plain)
    assert found["group_seen"].values.tolist() == [[True], [False]]
    assert found["effect"].values.tolist() == ["teacher"]
    # Without labels, teachers are named by their loss, and these are not in the data.
    assert not bd.predict(with_teachers(), TWO)["group_seen"].any()


def test_new_groups_have_the_variance_of_a_group_outside_the_sum_to_zero():
    fit = with_teachers(4000)
    residual, effect = 0.01**2 * 5 / 3, 0.05**2 * (1 + 1 / 3)
    for groups, new in (("seen", [0, 1]), ("new", [1, 1])):
        found = bd.predict(fit, OF_TEACHERS, noise="run", groups=groups, draws=True)
        np.testing.assert_allclose(found["sd"], np.sqrt(residual + effect * np.array(new)))
        np.testing.assert_allclose(found["loss"].std(("chain", "draw")), found["sd"], rtol=0.05)
        rng = np.random.default_rng(0)
        simulated = np.sqrt(effect) * rng.standard_normal(10**6) * new[1] + 0.01 * rng.standard_t(5.0, 10**6)
        np.testing.assert_allclose(found["upper"][1] - found["mean"][1], np.quantile(simulated, 0.95), rtol=0.01)
        # The mean is exact: new effects and residuals have none.
        np.testing.assert_array_equal(found["mean"], bd.predict(fit, OF_TEACHERS, groups=groups)["mean"])


def test_runs_of_one_new_group_share_its_effect():
    runs = pd.concat([OF_TEACHERS.iloc[[1, 1, 1]].assign(teacher=["T9", "T9", "T8"])], ignore_index=True)
    found = bd.predict(with_teachers(4000), runs, noise="run", draws=True)["loss"].values[:, 0]
    together = np.corrcoef(found)
    expected = 0.05**2 * 4 / 3 / (0.05**2 * 4 / 3 + 0.01**2 * 5 / 3)
    assert together[0, 1] == pytest.approx(expected, abs=0.02)
    assert together[0, 2] == pytest.approx(0.0, abs=0.06)
    assert (found[0] != found[1]).all()


def test_rows_do_not_depend_on_one_another():
    fit = with_teachers(200)
    runs = pd.concat([OF_TEACHERS, OF_TEACHERS.assign(student_params=7e8)], ignore_index=True)
    whole = bd.predict(fit, runs, noise="run", draws=True, seed=3)
    for order in ([2], [3, 1], [1, 0, 2]):
        part = bd.predict(fit, runs.iloc[order], noise="run", draws=True, seed=3)
        for name in ("mean", "lower", "median", "upper", "sd", "loss", "extrapolation", "group_seen"):
            expected = whole[name].isel(run=order).values
            np.testing.assert_allclose(part[name].values.astype(float), expected.astype(float), rtol=1e-12)
    other = bd.predict(fit, runs, noise="run", draws=True, seed=4)
    assert (other["loss"] != whole["loss"]).all()
    np.testing.assert_array_equal(other["upper"], whole["upper"])


def test_large_tables_are_computed_in_blocks(monkeypatch):
    fit, runs = with_teachers(50), OF_TEACHERS
    whole = bd.predict(fit, runs, noise="run")
    monkeypatch.setattr("bayesdistill.decisions._predict._CELLS", 1)
    blocks = bd.predict(fit, runs, noise="run")
    for name in ("mean", "lower", "upper", "sd", "mean_mcse"):
        np.testing.assert_allclose(blocks[name], whole[name], rtol=1e-12, atol=1e-15)


def test_configurations_with_the_same_rounded_label_are_told_apart():
    law = EQUATION_8.with_effects("student")
    draws = posterior_of(law, 1, {"student": {"a": 0.01, "b": -0.01}}, sigma_student=0.02)
    draws = draws.assign_coords(student_configuration=["1e+09 parameters, 2e+10 tokens"] * 2)
    seen = xr.Dataset(
        {
            "student_params": ("run", [1.00001e9, 1e9]),
            "student_tokens": ("run", [2e10, 2e10]),
            "teacher_loss": ("run", [2.2, 2.2]),
            "configuration_of_run": ("run", [1, 0]),
        }
    )
    fit = xr.DataTree.from_dict({"posterior": draws, "constant_data": seen})
    runs = TWO.iloc[[0, 0]].assign(student_params=[1e9, 1.00001e9])
    found = (
        bd.predict(fit, runs, allow_unconverged=True)["mean"]
        - bd.predict(fit, runs, groups="new", allow_unconverged=True)["mean"]
    )
    np.testing.assert_allclose(found, [0.01, -0.01], atol=1e-12)


def test_a_supervised_run_has_the_effect_of_a_student_configuration_as_in_a_plan():
    law = EQUATION_8.with_effects("student")
    fit = posterior_of(law, 1, {"student": {"a": 0.01, "b": -0.01}}, sigma_student=0.02)
    found = bd.predict(fit, ALONE, noise="run")
    np.testing.assert_allclose(found["sd"], np.sqrt(0.01**2 * 5 / 3 + 0.02**2 * 1.5))
    # Residuals of supervised runs of the fit include it.
    joint = law.for_runs(distilled=True, supervised=True)
    fit = posterior_of(joint, 1, {"student": {"a": 0.01, "b": -0.01}}, sigma_student=0.02, sigma_supervised=0.004)
    np.testing.assert_allclose(bd.predict(fit, ALONE, noise="run")["sd"], 0.004 * np.sqrt(5 / 3))


# A real fit ---------------------------------------------------------------------------------------------------------


def test_effects_are_those_of_the_posterior(fit354, runs354):
    runs = runs354.iloc[::40]
    seen, new = (bd.predict(fit354, runs, noise="law", groups=groups, draws=True) for groups in ("seen", "new"))
    draws, data = fit354["posterior"].to_dataset(), fit354["constant_data"].to_dataset()
    of_run = data["configuration_of_run"].values[::40]
    axis = teacher_axis(runs["teacher_loss"].to_numpy(), posterior.reference_of(fit354).teacher_loss)
    level = draws["effect_student_configuration"].values[..., of_run]
    slope = draws["effect_student_slope"].values[..., of_run] * axis
    difference = (seen["loss"] - new["loss"]).transpose("chain", "draw", "run")
    np.testing.assert_allclose(difference, level + slope, atol=1e-12)
    assert seen["group_seen"].all()
    assert seen["effect"].values.tolist() == ["student", "student_slope"]


def test_fitted_runs_are_covered_and_inside_the_range(fit354, runs354):
    found = bd.predict(fit354, runs354, noise="run")
    assert 0.84 < found.attrs["coverage"] < 0.96
    assert found["pit"].values.mean() == pytest.approx(0.5, abs=0.06)
    np.testing.assert_allclose(found["residual"], runs354["student_loss"] - found["mean"])
    assert found.attrs["rms_residual"] < 0.01
    assert not found["extrapolates"].any()
    law = bd.predict(fit354, runs354)
    assert "pit" not in law
    assert "coverage" not in law.attrs
    width = lambda answer: answer["upper"] - answer["lower"]  # noqa: E731
    assert (width(law) < width(found)).all()
    assert (width(found) < width(bd.predict(fit354, runs354, noise="run", groups="new"))).all()
    assert (found["mean_mcse"] < 1e-3).all()
    # Joint draws have the same marginal distribution.
    drawn = bd.predict(fit354, runs354.iloc[[5]], noise="run", draws=True)["loss"]
    np.testing.assert_allclose(drawn.quantile([0.05, 0.95]), [found["lower"][5], found["upper"][5]], atol=1e-3)


def test_distance_from_the_data(fit354, runs354):
    largest = runs354["student_params"].max()
    per_param = (runs354["student_tokens"] / runs354["student_params"]).median()
    run = pd.DataFrame(
        {"student_params": [2 * largest], "student_tokens": [2 * largest * per_param], "teacher_loss": [2.2]}
    )
    found = bd.predict(fit354, run)
    np.testing.assert_allclose(found["extrapolation_factor"].sel(axis="student_params"), 2.0)
    np.testing.assert_allclose(found["extrapolation"], 2.0)
    assert found["extrapolates"].all()
    alone = bd.predict(fit354, ALONE)
    assert alone["axis"].values.tolist() == ["pretraining_params", "pretraining_tokens_per_param"]
    assert alone.attrs["supervised_range"] == "data of the published law"
    # Nothing is known about the data behind bare draws.
    bare = bd.predict(posterior_of(EQUATION_8), TWO)
    assert np.isnan(bare["extrapolation"]).all()
    assert bare["extrapolates"].all()


def test_everything_has_units_and_survives_a_file(fit354, runs354, tmp_path):
    found = bd.predict(fit354, runs354.head(3), noise="run", draws=True)
    for name, values in found.variables.items():
        assert {"units", "long_name"} <= set(values.attrs), name
    for name in ("converged", "posterior_provenance", "noise", "groups", "seed", "interval_prob", "interval_kind"):
        assert name in found.attrs
    bd.save(found, tmp_path / "predicted.nc")
    loaded = bd.load(tmp_path / "predicted.nc")
    xr.testing.assert_equal(loaded, found)
    assert str(loaded) == str(found)


def test_the_display_is_a_table(fit354, runs354):
    found = bd.predict(fit354, runs354.head(3), noise="run", prob=0.5)
    lines = str(found).splitlines()
    assert lines[0] == "Loss of a new run, with the effects of groups in the data (level: run)"
    assert "(50%" in found._repr_html_().replace(" ", "\u00a0")
    table = bd.decision_table(found)
    assert len(table) == 3
    assert table.attrs["interval_prob"] == 0.5
    np.testing.assert_array_equal(table["loss_lower"], found["lower"])
    np.testing.assert_array_equal(table["loss_mean"], found["mean"])


@pytest.mark.slow
def test_intervals_are_calibrated():
    """Held-out runs of models in the data and of new models, from a known law with effects of models."""
    rng = np.random.default_rng(5)
    law = EQUATION_8.with_effects("model")
    sizes = np.exp(rng.uniform(np.log(1e8), np.log(5e9), 100))
    table = pd.DataFrame(
        {
            "model": np.repeat([f"m{i}" for i in range(100)], 4),
            "params": np.repeat(sizes, 4),
            "tokens": np.repeat(sizes, 4) * np.exp(rng.uniform(np.log(10), np.log(150), 400)),
        }
    )
    truth = Draws(EQUATION_8, bd.PUBLISHED)
    center = expected_loss(truth, Design.of(EQUATION_8, table, "supervised"))[0]
    effects = np.repeat(0.02 * rng.standard_normal(100), 4)
    table["loss"] = center + effects + 0.006 * rng.standard_t(6.0, 400)
    first = table["model"].isin([f"m{i}" for i in range(30)])
    last = np.arange(400) % 4 == 3
    fit = bd.fit(
        supervised=table[first & ~last], law=law, draws=3000, tune=2000, seed=0, target_accept=0.95, progress=False
    )
    for rows, groups in ((first & last, "seen"), (~first & last, "seen"), (~first & last, "new")):
        runs = table[rows]
        for prob in (0.5, 0.9):
            found = bd.predict(fit, runs, noise="run", groups=groups, prob=prob)
            covered = round(found.attrs["coverage"] * len(runs))
            assert stats.binom.ppf(0.002, len(runs), prob) <= covered <= stats.binom.ppf(0.998, len(runs), prob)
    assert bd.predict(fit, table[first & last])["group_seen"].all()
    known, unknown = (bd.predict(fit, table[r], noise="run") for r in (first & last, ~first & last))
    assert float((known["upper"] - known["lower"]).mean()) < 0.8 * float((unknown["upper"] - unknown["lower"]).mean())


# Tables and errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_tables_may_be_files_of_one_row(tmp_path, ending):
    path = tmp_path / f"runs.{ending}"
    one = TWO.head(1).assign(teacher="007")
    one.to_parquet(path) if ending == "parquet" else one.to_csv(path, index=False)
    found = bd.predict(posterior_of(EQUATION_8), path)
    assert found.sizes["run"] == 1
    assert found["mean"].item() == bd.predict(posterior_of(EQUATION_8), one)["mean"].item()
    assert found["teacher"].item() == "007"
    assert found.attrs["source"] == str(path)


def test_a_fit_of_the_supervised_law_alone_predicts_supervised_runs():
    law = EQUATION_8.for_runs(distilled=False, supervised=True)
    fit = posterior_of(law)
    found = bd.predict(fit, ALONE.assign(loss=[2.4, 2.5]), noise="run")
    np.testing.assert_allclose(found["upper"], found["mean"] + 0.01 * stats.t.ppf(0.95, 5.0), atol=1e-7)
    assert found["observed"].values.tolist() == [2.4, 2.5]
    with pytest.raises(bd.ParameterError, match="supervised law alone"):
        bd.predict(fit, TWO)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (TWO.drop(columns="teacher_loss"), "no column 'teacher_loss', which distilled runs require"),
        (TWO.rename(columns={"student_tokens": "D_S"}), "'D_S' looks like 'student_tokens'"),
        (TWO.assign(student_params=[0.3, 1.0]), "row 1, column student_params: 0.3"),
        (TWO.assign(teacher_loss=[2.2, np.nan]), "row 2, column teacher_loss"),
        (TWO.assign(teacher_loss=[2.2, -1]), "row 2, column teacher_loss: -1.0; expected a number above 0"),
        (TWO.assign(student_loss=[2.2, "x"]), "row 2, column student_loss: 'x' is not a number"),
        (TWO.assign(teacher_loss=[2.2, 15.0]), "if it is a perplexity, its logarithm is"),
        (TWO.assign(teacher=["T1", "T1"]), "each teacher must have one teacher_loss"),
        (TWO.assign(teacher=["T1", None]), "the teacher label is missing"),
        (TWO.assign(params=1e9, tokens=2e10), "Select one with kind='distilled' or kind='supervised'"),
        (TWO.head(0), "It must have at least one row"),
        (
            pd.DataFrame({"a": [1.0]}),
            "Distilled runs must have the columns student_params student_tokens teacher_loss; ",
        ),
        (TWO.iloc[[0, 0]].assign(student_loss=2.4), "equal to row 1 in every column"),
    ],
)
def test_tables_that_cannot_be_used(table, said):
    with pytest.raises(bd.DataError) as found:
        bd.predict(posterior_of(EQUATION_8), table)
    assert said in str(found.value)


def test_a_design_needs_no_variation_and_may_repeat():
    assert len(read_design(TWO.iloc[[0, 0, 0]])) == 3
    both = TWO.assign(params=1e9, tokens=2e10)
    assert read_design(both, "supervised").attrs["kind"] == "supervised"
    assert read_design(both.assign(student_loss=2.5)).attrs["kind"] == "distilled"
    # A few students that all beat their teachers are no reason to suspect swapped columns.
    assert len(read_design(TWO.assign(student_loss=[2.1, 2.3]))) == 2
    odd = TWO.assign(student_params=[0.3, 1.0])
    assert len(read_design(odd, allow_suspicious=True)) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"noise": "white"}, "`noise` must be 'law', 'expected' or 'run', got 'white'"),
        ({"groups": "old"}, "`groups` must be 'seen' or 'new', got 'old'"),
        ({"prob": 1.0}, "`prob` must be a number from 0.001 to 0.9999, got 1.0"),
        ({"seed": -1}, "`seed` must be an integer"),
        ({"kind": "other"}, "`kind` must be 'distilled', 'supervised' or None, got 'other'"),
    ],
)
def test_bad_arguments(arguments, said):
    with pytest.raises(bd.ParameterError, match=said):
        bd.predict(posterior_of(EQUATION_8), TWO, **arguments)


def test_runs_cannot_be_predicted_without_the_residual_noise(published_draw):
    bd.predict(published_draw, TWO)
    with pytest.raises(bd.ParameterError, match="no sigma and no nu"):
        bd.predict(published_draw, TWO, noise="run")


def test_an_unconverged_fit_is_used_only_when_told_to(unconverged):
    fit = bd.load(unconverged)
    with pytest.raises(bd.ConvergenceError, match="allow_unconverged=True"):
        bd.predict(fit, TWO)
    with pytest.warns(bd.ConvergenceWarning):
        found = bd.predict(fit, TWO, allow_unconverged=True)
    assert found.attrs["converged"] == "no"
    assert "did not converge" in str(found)


# Command line -------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(fit354: xr.DataTree, tmp_path: Path) -> Path:
    return bd.save(fit354, tmp_path / "fit.nc")


def test_the_command_prints_and_writes(saved: Path, runs354: pd.DataFrame, command: Command, tmp_path: Path):
    runs354.head(3).to_csv(tmp_path / "runs.csv", index=False)
    options = [
        "predict",
        saved,
        tmp_path / "runs.csv",
        "--noise",
        "run",
        "--groups",
        "new",
        "--prob",
        "0.5",
        "--seed",
        "1k",
    ]
    code, out, err = command(*options, "-o", tmp_path / "out.csv")
    assert code == 0, err
    assert out.startswith("Loss of a new run of new groups (level: run)\n")
    assert "inside their 50% interval" in out
    direct = bd.predict(
        bd.load(saved), tmp_path / "runs.csv", noise="run", groups="new", prob=0.5, seed=1000, draws=True
    )
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out.csv"), bd.decision_table(direct), check_dtype=False)
    code, out, _ = command(*options, "-o", tmp_path / "out.nc", "--json")
    assert code == 0
    assert [row["loss_upper"] for row in json.loads(out)] == pytest.approx(direct["upper"].values.tolist(), rel=1e-5)
    assert json.loads(out)[0]["converged"] == "yes"
    xr.testing.assert_equal(bd.load(tmp_path / "out.nc"), direct)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--noise", "white"], "--noise must be 'law', 'expected' or 'run', got 'white'"),
        (["--groups", "old"], "--groups must be 'seen' or 'new', got 'old'"),
        (["--prob", "90"], "--prob must be a number from 0.001 to 0.9999, got 90"),
        (["--prob", "most"], "'most' in --prob"),
        (["--seed", "1.5"], "--seed must be an integer such as 1000, 1e3 or 1k, got '1.5'"),
        (["--seed", "-1"], "--seed must be an integer from 0"),
        (["-o", "out.txt"], "out.txt must end in .csv or .nc"),
        (["-o", "nowhere/out.csv"], "the folder nowhere does not exist"),
        ([], "pass --allow-suspicious"),
    ],
)
def test_bad_options(options, said, saved, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (TWO.assign(student_params=[300, 1000.0])).to_csv("runs.csv", index=False)
    code, out, err = command("predict", saved, "runs.csv", *options)
    assert code == 2
    assert said in err
    assert "Traceback" not in err + out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit.nc", "runs.csv"]


def test_the_command_names_options_for_an_unconverged_fit(unconverged, command, tmp_path):
    TWO.to_csv(tmp_path / "runs.csv", index=False)
    code, _, err = command("predict", unconverged, tmp_path / "runs.csv")
    assert code == 2
    assert "--allow-unconverged" in err
