from __future__ import annotations

import json
from dataclasses import asdict

import baselines
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from law_names import EXTENSION_PARAMETERS, LAW_PARAMETERS, distilled_loss
from scipy import stats

import bayesdistill as bd
from bayesdistill import criticism, posterior
from bayesdistill.answers import declared_in
from bayesdistill.criticism import _leave_out as unseen_groups
from bayesdistill.criticism import _prior_sensitivity as prior_power
from bayesdistill.criticism import _residual_structure as residuals
from bayesdistill.criticism import distances, results, scores, truths
from bayesdistill.criticism.left_out_scores import Fitted, run_predictions
from bayesdistill.errors import DataError, ModelError, ParameterError
from bayesdistill.law import LAWS, Draws, Reference
from bayesdistill.model import reference_run
from bayesdistill.posterior import ConvergenceThresholds, with_law
from bayesdistill.priors import default_priors
from bayesdistill.sampling import groups


def fit_of(draws: xr.Dataset, **stats: np.ndarray) -> xr.DataTree:
    """A fit with sampler statistics that say nothing bad, but for those given."""
    shape = (draws.sizes["chain"], draws.sizes["draw"])
    plain = {
        "diverging": np.zeros(shape, dtype=bool),
        "maxdepth_reached": np.zeros(shape, dtype=bool),
        "energy": np.random.default_rng(0).standard_normal(shape),
    }
    sample_stats = xr.Dataset({k: (("chain", "draw"), v) for k, v in (plain | stats).items()})
    return xr.DataTree.from_dict({"posterior": draws, "sample_stats": sample_stats})


# check ----------------------------------------------------------------------------------------------------------------


def test_nothing_is_wrong(jittered_draws):
    found = bd.check(fit_of(jittered_draws), thresholds=ConvergenceThresholds(max_rhat=1.02))
    assert found.ok is True
    assert found.problems == ()
    assert found.verdict == "No convergence problems found: the draws passed all checks."
    assert [row[0] for row in found.rows] == [
        "largest R-hat",
        "smallest bulk ESS",
        "smallest tail ESS",
        "number of divergent transitions",
        "fraction of truncated trajectories",
        "smallest E-BFMI",
    ]
    assert {row[3] for row in found.rows} == {"ok"}
    json.dumps(found.numbers)


def test_bare_draws_are_said_to_be_bare(jittered_draws):
    found = bd.check(jittered_draws, thresholds=ConvergenceThresholds(max_rhat=1.02))
    assert found.ok is None
    assert "no sampler statistics" in found.verdict
    assert [row[3] for row in found.rows[3:]] == ["unknown", "unknown", "unknown"]


@pytest.mark.parametrize(
    ("key", "words", "remedy"),
    [
        ("rhat", "The chains disagree about c0.", "Sample longer"),
        ("ess_bulk", "The chains disagree about c0.", "Sample longer"),
        ("ess_tail", "The chains disagree about c0.", "Sample longer"),
        ("divergences", "The sampler reported divergent transitions.", "target_accept=0.99"),
        ("treedepth_share", "Trajectories reached the maximum tree depth.", "tune=2000"),
        ("bfmi", "The sampler explores the energy slowly.", "tune=2000"),
    ],
)
def test_every_failed_check_has_a_description_and_a_fix(jittered_draws, key, words, remedy):
    diverging = np.zeros((4, 250), dtype=bool)
    diverging.ravel()[:7] = True
    cut = np.zeros((4, 250), dtype=bool)
    cut.ravel()[:50] = True
    draws = jittered_draws.assign(c0=jittered_draws["c0"] + 0.3 * jittered_draws["chain"])
    walk = np.cumsum(np.random.default_rng(1).standard_normal((4, 250)), axis=1)
    thresholds = ConvergenceThresholds(min_ess_tail=1e5)
    found = bd.check(fit_of(draws, diverging=diverging, maxdepth_reached=cut, energy=walk), thresholds=thresholds)
    assert found.ok is False
    assert len(found.problems) == 4
    assert found.cautions == ()
    failed = ["rhat", "ess_bulk", "ess_tail", "divergences", "treedepth_share", "bfmi"]
    assert found.numbers["failed"] == failed
    row = found.rows[failed.index(key)]
    assert row[3] == "FAILED"
    if key == "divergences":
        assert row == ("number of divergent transitions", "7", "0", "FAILED")
    (problem,) = [text for text in found.problems if text.startswith(words)]
    assert remedy in problem
    assert str(found).count(problem) == found.verdict.count(problem) == 1
    assert row[1] not in found.verdict.replace("0.99", "")
    assert str(found).startswith("Do not use these draws.\n- ")
    if key in ("rhat", "ess_bulk"):
        assert "(c0)" in row[1]
    assert repr(found) == str(found)


def test_a_notebook_shows_a_table_and_escapes_names(jittered_draws):
    odd = "<script>alert(1)</script>"
    draws = jittered_draws.assign({odd: jittered_draws["c0"] + jittered_draws["chain"]})
    html = bd.check(draws)._repr_html_()
    assert html.startswith("<p>")
    assert html.count("<tr>") == 6
    assert odd not in html
    assert "&lt;script&gt;" in html


# law_curves -----------------------------------------------------------------------------------------------------------


def test_the_curves_are_those_of_the_law(fit354, runs354):
    curves = bd.law_curves(fit354, points=9, max_draws=200, prob=0.8)
    assert dict(curves.sizes) == {"configuration": 20, "teacher_loss": 9, "run": 354}
    assert curves.attrs["interval_kind"] == "equal-tailed"
    assert curves.attrs["interval_prob"] == 0.8
    assert curves.attrs["converged"] == "yes"
    assert curves.attrs["supervised_law"] == "published law"
    draws = posterior.law_draws(fit354)
    thin = draws.isel(draw=slice(None, None, 20))
    paths = posterior.draws_of(fit354, slice(None, None, 20))
    for i, j in ((0, 0), (7, 4), (19, 8)):
        one = curves.isel(configuration=i, teacher_loss=j)
        loss = distilled_loss(
            float(one["configuration_params"]),
            float(one["configuration_tokens"]),
            float(one["teacher_loss"]),
            **{name: thin[name].values.ravel() for name in LAW_PARAMETERS + EXTENSION_PARAMETERS},
        )
        loss += paths.discrepancy("distilled", float(one["configuration_params"]), float(one["configuration_tokens"]))
        assert float(one["mean"]) == pytest.approx(loss.mean(), rel=1e-12)
        assert float(one["lower"]) == pytest.approx(np.quantile(loss, 0.1), rel=1e-12)
        assert float(one["upper"]) == pytest.approx(np.quantile(loss, 0.9), rel=1e-12)
    # A new run scatters around the law: its band holds that of the law, and is about as wide as the scatter.
    assert (curves["run_lower"] < curves["lower"]).all()
    assert (curves["run_upper"] > curves["upper"]).all()
    noise = posterior.draws_of(fit354)
    scatter = float(np.hypot(noise["sigma"].mean(), noise["sigma_student"].mean()))
    width = (curves["run_upper"] - curves["run_lower"]).min()
    assert 2 * 1.28 * scatter * 0.8 < float(width) < 2 * 1.6 * scatter
    # Runs, their predictions and residuals.
    np.testing.assert_array_equal(curves["student_loss"], runs354["student_loss"])
    np.testing.assert_allclose(curves["residual"], curves["student_loss"] - curves["predicted"], atol=1e-15)
    predicted = distilled_loss(
        *(runs354[name].to_numpy()[5] for name in ("student_params", "student_tokens", "teacher_loss")),
        **{name: draws[name].values for name in LAW_PARAMETERS + EXTENSION_PARAMETERS},
    ).mean()
    run = runs354.iloc[5]
    predicted += noise.discrepancy("distilled", run["student_params"], run["student_tokens"]).mean()
    assert float(curves["predicted"][5]) == pytest.approx(predicted, rel=1e-12)
    index = curves["configuration_of_run"].values
    np.testing.assert_array_equal(curves["configuration_params"].values[index], runs354["student_params"])
    np.testing.assert_array_equal(curves["configuration_tokens"].values[index], runs354["student_tokens"])
    np.testing.assert_array_equal(curves["run_teacher_loss"], runs354["teacher_loss"])
    for name, variable in curves.variables.items():
        if name != "run":
            assert variable.attrs.get("units") or name == "configuration", name
            assert variable.attrs.get("long_name") or name == "configuration", name


def test_the_same_seed_draws_the_same_band(fit354):
    ours, theirs, other = (bd.law_curves(fit354, points=3, max_draws=40, seed=seed) for seed in (1, 1, 2))
    xr.testing.assert_identical(ours, theirs)
    assert not np.array_equal(ours["run_upper"], other["run_upper"])
    np.testing.assert_array_equal(ours["upper"], other["upper"])


def test_curves_need_runs(jittered_draws, fit354):
    with pytest.raises(ModelError, match="law_curves requires a fit with its runs"):
        bd.law_curves(jittered_draws)
    with pytest.raises(ParameterError, match="an integer from 2 to"):
        bd.law_curves(fit354, points=1)
    with pytest.raises(ParameterError, match=r"`prob` must be a number from .*, got 1\.5"):
        bd.law_curves(fit354, points=2, max_draws=8, prob=1.5)


# Scores ---------------------------------------------------------------------------------------------------------------


def test_the_crps_of_normal_draws_has_its_closed_form():
    rng = np.random.default_rng(0)
    observed = np.array([0.3, -1.2, 2.0])
    mean, sd = np.array([0.0, -1.0, 1.0]), np.array([1.0, 0.5, 2.0])
    draws = mean + sd * rng.standard_normal((200_000, 3))
    z = (observed - mean) / sd
    expected = sd * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    np.testing.assert_allclose(scores.crps(draws, observed), expected, rtol=0.01)
    # Two draws by hand: (|0 - 1| + |2 - 1|)/2 - |0 - 2|/2.
    assert scores.crps(np.array([[0.0], [2.0]]), np.array([1.0])) == pytest.approx([0.0])


def test_the_crps_is_the_integral_of_the_squared_distance_of_the_distribution_functions():
    rng = np.random.default_rng(3)
    draws, observed = rng.standard_t(3, (40, 5)), rng.normal(size=5)
    for run in range(5):
        # Between neighboring points the integrand is constant, so the midpoint rule is exact.
        edges = np.sort(np.append(draws[:, run], observed[run]))
        middle = (edges[1:] + edges[:-1]) / 2
        step = (draws[:, run] <= middle[:, None]).mean(axis=1) - (observed[run] <= middle)
        pairs = np.abs(draws[:, run] - draws[:, run, None])
        # The score estimates the distance of two draws without their distances from themselves.
        unbiased = pairs.sum() / 2 * (1 / 40**2 - 1 / (40 * 39))
        expected = np.sum(step**2 * np.diff(edges)) + unbiased
        assert scores.crps(draws, observed)[run] == pytest.approx(expected, rel=1e-12)


def test_the_log_score_is_the_log_of_the_mean_density():
    density = np.log(np.array([[0.1, 1e-300], [0.3, 3e-300]]))
    np.testing.assert_allclose(scores.log_score(density), np.log([0.2, 2e-300]), rtol=1e-14)
    # Far below the smallest float.
    np.testing.assert_allclose(scores.log_score(np.array([[-2000.0], [-2000.0]])), [-2000.0])


def test_intervals_hold_what_they_say():
    draws = np.linspace(0, 1, 1001)[:, None].repeat(4, axis=1)
    observed = np.array([0.04, 0.06, 0.74, 0.96])
    assert scores.inside(draws, observed, 0.9).tolist() == [False, True, True, False]
    assert scores.inside(draws, observed, 0.5).tolist() == [False, False, True, False]


def scored(elpd: list[float], error: list[float], fold: list[int]) -> xr.Dataset:
    columns = {"elpd": elpd, "crps": [0.1] * len(elpd), "error": error, "fold": fold}
    columns |= {"inside_50": [1, 0] * (len(elpd) // 2), "inside_90": [1] * len(elpd)}
    columns["converged"] = [True] * len(elpd)
    return xr.Dataset({name: ("run", values) for name, values in columns.items()}, coords={"run": range(len(elpd))})


def test_the_table_of_scores_by_hand():
    fold = [0, 0, 1, 1, 2, 2]
    best = scored([1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [0.1, -0.1, 0.1, -0.1, 0.1, -0.1], fold)
    other = scored([0.5, 0.5, 1.0, 1.0, 0.0, 0.5], [0.3, 0.4, 0.0, 0.0, 0.0, 0.0], fold)
    other["converged"] = ("run", [True, True, False, False, True, True])
    # By default, only folds whose refit converged are scored, and models are compared in the folds of both.
    table = bd.score_table({"other": other, "best": best})
    assert table.loc[
        "other", ["runs", "elpd", "elpd_difference", "standard_error", "unconverged"]
    ].tolist() == pytest.approx([4, 1.5, -2.5, np.sqrt(2) * np.std([-1, -1.5], ddof=1), 1])
    assert table.loc["best", ["runs", "elpd"]].tolist() == [6, 6.0]
    other["converged"] = ("run", [False] * 6)
    none = bd.score_table({"other": other, "best": best}).loc["other"]
    assert none[["elpd", "elpd_difference", "rmse"]].isna().all()
    assert none[["runs", "unconverged"]].tolist() == [0, 3]
    other["converged"] = ("run", [True, True, False, False, True, True])
    scores = bd.unseen_scores({"teachers": {"other": other, "best": best}}, include_failed=True)
    assert scores["runs"].values.tolist() == [[6, 6]]
    table = bd.score_table({"other": other, "best": best}, include_failed=True)
    assert table["unconverged"].to_dict() == {"best": 0, "other": 1}
    assert list(table.index) == ["best", "other"]
    assert table.loc["best", ["elpd", "elpd_difference", "rmse", "coverage_50"]].tolist() == pytest.approx(
        [6.0, 0.0, 0.1, 0.5]
    )
    assert table.loc["other", "elpd_difference"] == pytest.approx(-2.5)
    # Folds differ by -1, 0 and -1.5; their sum has the standard error sqrt(3) sd.
    assert table.loc["other", "standard_error"] == pytest.approx(np.sqrt(3) * np.std([-1, 0, -1.5], ddof=1))
    assert table.loc["other", "rmse"] == pytest.approx(0.5 / np.sqrt(6))


# Leaving out groups ---------------------------------------------------------------------------------------------------


def test_every_run_is_left_out_once_and_groups_stay_together(runs354):
    for split, count in (("teacher", 8), ("student", 7)):
        folds = unseen_groups.folds(runs354, split)
        assert len(folds) == count
        np.testing.assert_array_equal(np.sum(folds, axis=0), 1)
        column = "teacher" if split == "teacher" else "student_params"
        for out in folds:
            assert not set(runs354[column][out]) & set(runs354[column][~out])
    # Teachers are dealt in the order of their losses, so that every fold has strong and weak ones.
    low, high = np.quantile(runs354.groupby("teacher")["teacher_loss"].first(), [0.2, 0.8])
    for out in unseen_groups.folds(runs354, "teacher"):
        assert runs354["teacher_loss"][out].min() < low
        assert runs354["teacher_loss"][out].max() > high
    (paper,) = unseen_groups.folds(runs354, "paper")
    np.testing.assert_array_equal(paper, runs354["student_loss"] <= 2.3)
    with pytest.raises(ParameterError, match=r"`split` must be one of .*got 'run'"):
        unseen_groups.folds(runs354, "run")


def test_leaving_out_goes_on_from_a_checkpoint(runs354, tmp_path, monkeypatch):
    few = runs354.iloc[::6].reset_index(drop=True)
    whole = bd.leave_out(few, "student", baselines.point, seed=1)
    assert whole.sizes["run"] == len(few)
    assert whole["run"].values.tolist() == list(range(len(few)))
    np.testing.assert_array_equal(whole["inside_50"] <= whole["inside_90"], True)
    checkpoint, calls = tmp_path / "scores.json", []
    real = unseen_groups._fold

    def stops_in_the_third(task):
        calls.append(task)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(task)

    monkeypatch.setattr(unseen_groups, "_fold", stops_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        bd.leave_out(few, "student", baselines.point, seed=1, checkpoint=checkpoint)
    told: list[tuple[int, int]] = []
    resumed = bd.leave_out(
        few,
        "student",
        baselines.point,
        seed=1,
        checkpoint=checkpoint,
        progress=lambda done, of: told.append((done, of)),
    )
    folds = len(unseen_groups.folds(few, "student"))
    assert told[0] == (2, folds)
    assert told[-1] == (folds, folds)
    assert len(calls) == folds + 1  # two before the interrupt, the one interrupted, the rest
    xr.testing.assert_identical(resumed, whole)

    def point(*task):
        return baselines.point(*task)

    with pytest.raises(
        DataError, match=r"law and priors is 'baselines.point' in the file and 'test_criticism\..*point' in"
    ):
        bd.leave_out(few, "student", point, seed=1, checkpoint=checkpoint)
    numbers = {"seed": np.int64(1), "draws": np.int64(500), "tune": np.uint16(700), "parts": np.int32(8)}
    again = bd.leave_out(few, "student", baselines.point, checkpoint=checkpoint, **numbers)
    assert len(calls) == folds + 1
    xr.testing.assert_identical(again, whole)
    # Other runs, or another seed, do not go on from it, and do not change it.
    kept = checkpoint.read_bytes()
    changed = few.assign(student_loss=few["student_loss"] + 1e-9)
    calls.clear()
    for runs, seed, said in (
        (few, 2, "seed is 1 in the file and 2 in this call"),
        (changed, 1, "runs is '[0-9a-f]{64}' in the file and '[0-9a-f]{64}' in this call"),
    ):
        with pytest.raises(DataError, match=f"Line 1 of .*scores.json has other settings: {said}. Use another file"):
            bd.leave_out(runs, "student", baselines.point, seed=seed, checkpoint=checkpoint)
    assert not calls
    assert checkpoint.read_bytes() == kept


def test_checkpoints_know_models_by_their_priors(runs354, tmp_path, monkeypatch):
    few, calls = runs354.iloc[::6].reset_index(drop=True), []

    def fold(task):
        calls.append(task)
        count = int((~task[2]).sum())
        columns = ("elpd", "crps", "error", "inside_50", "inside_90", "pit", "leverage")
        return {"run": np.flatnonzero(~task[2]).tolist(), "converged": True} | {name: [0.0] * count for name in columns}

    monkeypatch.setattr(unseen_groups, "_fold", fold)
    default, checkpoint = LAWS["tied_reducible"], tmp_path / "scores.json"
    bd.leave_out(few, "paper", checkpoint=checkpoint)
    bd.leave_out(few, "paper", default.with_effects("student", "student_slope"), checkpoint=checkpoint)
    bd.leave_out(few, "paper", default, prior_settings={"asymptotic_width": 0.005}, checkpoint=checkpoint)
    assert len(calls) == 1  # the default, written out
    for said, arguments in {
        "law and priors is": {"law": default.without_terms("weak_teachers")},
        "law and priors is '": {"prior_settings": {"asymptotic_width": None}},
        "max_rhat is 1.03 in the file and 1.5 in this call": {"thresholds": ConvergenceThresholds(1.5, 200, 200, 20)},
        "draws is 500 in the file and 600 in this call; tune is 700 in the file and 5 in": {"draws": 600, "tune": 5},
    }.items():
        with pytest.raises(DataError, match=said):
            bd.leave_out(few, "paper", checkpoint=checkpoint, **arguments)
    assert len(calls) == 1
    checkpoint.write_text("[]")
    with pytest.raises(DataError, match="is not a finished task of this package"):
        bd.leave_out(few, "paper", checkpoint=checkpoint)


# Distance from the training data ---------------------------------------------------------------------------------------


def test_distances_by_hand():
    sizes, ratios, losses = [1e8, 1e9, 1e10, 1e9], [20.0, 20.0, 20.0, 40.0], [2.0, 2.5, 2.5, 2.25]
    runs = pd.DataFrame({"student_params": sizes, "teacher_loss": losses})
    runs["student_tokens"] = runs["student_params"] * ratios
    kept = np.array([True, True, False, False])
    found = distances.geometric_distances(runs, kept)
    # Two kept runs: half their distance is the standard deviation. Tokens per parameter do not vary: logs as they are.
    np.testing.assert_allclose(found["distance"], [2.0, np.log(2)], rtol=1e-9)
    weaker = 2 * np.log(2.5 / 2.25) / np.log(2.5 / 2)
    np.testing.assert_allclose(found["nearest_distance"], [2.0, np.hypot(np.log(2), weaker)], rtol=1e-9)


def test_leverage_is_the_spread_of_the_law_over_the_residual_scale(runs354):
    few = runs354.iloc[::20].reset_index(drop=True)
    E = bd.PUBLISHED["E"] + 0.01 * np.random.default_rng(2).standard_normal(400)
    law = {name: np.full(400, value) for name, value in bd.PUBLISHED.items()} | {"E": E}
    draws = Draws(LAWS["busbridge2025"], law | {"sigma": 0.005, "nu": 8.0})
    kept = np.arange(len(few)) % 2 == 0
    scored = run_predictions(Fitted(draws, {}, {"distilled": few}, {"distilled": kept}), np.random.default_rng(0))
    out = few[~kept]
    columns = [out[name].to_numpy()[:, None] for name in ("student_params", "student_tokens", "teacher_loss")]
    expected = distilled_loss(*columns, **law).std(axis=1) / 0.005
    np.testing.assert_allclose(scored["leverage"], expected, rtol=1e-6)
    assert ((np.array(scored["pit"]) > 0) & (np.array(scored["pit"]) < 1)).all()


def simulated_errors(rng: np.random.Generator, growth: float, widening: float) -> xr.Dataset:
    """Runs of 30 groups whose errors and whose predictive scales grow with distance at given rates."""
    x = np.repeat(np.linspace(0, 2, 30), 12)
    # Runs of a group share half of the variance of their errors.
    error = (
        0.003 * np.exp(growth * x) * (rng.standard_normal(360) + np.repeat(rng.standard_normal(30), 12)) / np.sqrt(2)
    )
    pit = stats.norm.cdf(-error / (0.003 * np.exp(widening * x)))
    columns = {"error": error, "pit": pit, "distance": x, "nearest_distance": 0 * x, "leverage": x**2}
    columns |= {"converged": x >= 0, "group": np.repeat([f"g{i}" for i in range(30)], 12)}
    return xr.Dataset({name: ("run", value) for name, value in columns.items()})


def test_slopes_over_distance_are_found_and_their_intervals_cover():
    rng = np.random.default_rng(6)
    found = xr.concat([bd.error_by_distance(simulated_errors(rng, 0.8, 0.5)) for _ in range(50)], "simulation")
    one = found.sel(measure="distance")
    for error, truth in (("rmse", 0.8), ("standardized_rms", 0.3)):
        cell = one.sel(error=error)
        assert float(cell["slope"].mean()) == pytest.approx(truth, abs=0.05)
        held = float(((cell["slope_lower"] <= truth) & (truth <= cell["slope_upper"])).mean())
        assert held >= 0.8  # 90% intervals, 50 simulations: two standard errors are 0.09
    # Groups at the same distance have no slope.
    assert np.isnan(found["slope"].sel(measure="nearest_distance")).all()
    assert bd.criticism_table(found.isel(simulation=0)).shape == (30, 7)


def test_folds_that_failed_have_no_error_by_distance():
    scored = simulated_errors(np.random.default_rng(1), 0.5, 0.5)
    scored["converged"] = scored["distance"] < 1
    assert bd.error_by_distance(scored).sizes["group"] == 15
    assert bd.error_by_distance(scored, include_failed=True).sizes["group"] == 30
    with pytest.raises(bd.ModelError, match="No refit passed the convergence checks"):
        bd.error_by_distance(scored.assign(converged=("run", np.zeros(360, dtype=bool))))
    with pytest.raises(ParameterError, match=r"returned by bd.leave_out"):
        bd.error_by_distance(scored.drop_vars("pit"))


# Predictive checks ----------------------------------------------------------------------------------------------------


REFERENCE = Reference(5e8, 2e10, 2.3)


@pytest.fixture(scope="module")
def drawn_fit():
    """A fit that is right: draws around a law, runs simulated from it, and the log-likelihood of both. Nothing is sampled."""
    rng = np.random.default_rng(12)
    law = dict(bd.PUBLISHED)
    runs = bd.load_runs("busbridge2025")
    columns = [runs[name].to_numpy() for name in ("student_params", "student_tokens", "teacher_loss")]
    runs["student_loss"] = distilled_loss(*columns, **law) + 0.005 * rng.standard_t(8, len(runs))
    shape = (4, 250)
    values = {name: np.full(shape, value) for name, value in law.items()}
    values["E"] = law["E"] + 0.0003 * rng.standard_normal(shape)
    values |= {"sigma": 0.005 * np.exp(0.04 * rng.standard_normal(shape)), "nu": np.full(shape, 8.0)}
    draws = xr.Dataset({name: (("chain", "draw"), value) for name, value in values.items()})
    draws = draws.assign_coords(chain=np.arange(4), draw=np.arange(250))
    draws = with_law(draws, LAWS["busbridge2025"], REFERENCE)
    observed, constant = groups.data_groups(LAWS["busbridge2025"], runs, None)
    tree = {
        "posterior": draws,
        "log_likelihood": groups.log_likelihood(draws, runs, None),
        "observed_data": observed,
        "constant_data": constant,
    }
    fit = xr.DataTree.from_dict(tree)
    fit.attrs[posterior.PROVENANCE_ATTRIBUTE] = json.dumps(
        {"reference": asdict(REFERENCE), "supervised_law": "published law"}
    )
    return fit


def shifted(fit: xr.DataTree, shift: np.ndarray) -> xr.DataTree:
    """The same fit of runs whose losses are others by a shift that the law does not know."""
    other = fit.copy(deep=True)
    observed = other["observed_data"].to_dataset()
    observed["student_loss"] = observed["student_loss"] + shift
    other["observed_data"] = xr.DataTree(observed)
    return other


def test_the_prior_predictive_is_that_of_the_simulator(runs354):
    found = bd.prior_predictive(runs354, prior_settings={"asymptotic_width": None}, draws=60, seed=1)
    again = bd.prior_predictive(runs354, prior_settings={"asymptotic_width": None}, draws=60, seed=1)
    xr.testing.assert_identical(found, again)
    assert found["expected"].dims == ("quantile", "run")
    assert (found["expected"].diff("quantile") >= 0).all()
    np.testing.assert_array_equal(found["student_loss"], runs354["student_loss"])
    # Runs simulated from the same priors lie anywhere among the simulated ones.
    reference = reference_run(runs354, None)
    priors = default_priors("tied_reducible", reference, asymptotic_width=None)
    laws = [
        truths.draws_of_truth(truth, priors.law, reference)
        for truth in truths.draw_truths(priors, reference, 200, seed=77)
    ]
    rng = np.random.default_rng(3)
    position = [
        (truths.simulate_outcomes(law, runs354, rng)[0] < found["expected"].sel(quantile=0.5).values).mean()
        for law in laws
    ]
    assert np.mean(position) == pytest.approx(0.5, abs=0.12)
    # The one-sided prior on the advantage takes the laws under which distillation does well.
    bound = bd.prior_predictive(runs354, draws=60, seed=1)
    assert float(bound["expected"].sel(quantile=0.5).mean()) > float(found["expected"].sel(quantile=0.5).mean())
    assert bound.attrs["asymptotic_width"] == 0.005
    with pytest.raises(ParameterError, match="an integer from 20 to"):
        bd.prior_predictive(runs354, draws=5)


def test_a_right_model_repeats_its_runs(drawn_fit, runs354):
    found = bd.posterior_predictive(drawn_fit, max_draws=400)
    assert stats.kstest(found["pit"], "uniform").pvalue > 0.01
    for factor in ("student", "teacher", "ratio", "tokens"):
        one = found.isel(group=np.flatnonzero(found["factor"].values == factor))
        assert int(one["runs"].sum()) == 354
        assert float((one["inside_90"] * one["runs"]).sum() / 354) == pytest.approx(0.9, abs=0.05)
        assert float((one["inside_50"] * one["runs"]).sum() / 354) == pytest.approx(0.5, abs=0.08)
        inside = (one["mean_lower"] <= one["mean"]) & (one["mean"] <= one["mean_upper"])
        assert float(inside.mean()) > 0.75
    assert len(np.unique(found["label"].values[found["factor"].values == "student"])) == 20
    # By hand: the first configuration's mean misfit.
    draws = posterior.law_draws(drawn_fit)
    mine = (runs354["student_params"] == 1.43e8) & (runs354["student_tokens"] == runs354["student_tokens"].min())
    columns = [runs354[name].to_numpy()[mine] for name in ("student_params", "student_tokens", "teacher_loss")]
    thin = draws.isel(draw=slice(None, None, 3))
    law = distilled_loss(*columns, **{name: thin[name].values.ravel()[:, None] for name in LAW_PARAMETERS}).mean(axis=0)
    expected = (drawn_fit["observed_data"]["student_loss"].values[mine] - law).mean()
    assert float(found["mean"][0]) == pytest.approx(expected, rel=1e-9)
    for name, variable in found.data_vars.items():
        assert variable.attrs["units"], name
        assert variable.attrs["long_name"], name


def test_a_shift_of_one_group_is_found_there(drawn_fit, runs354):
    size = runs354["student_params"].to_numpy()
    found = bd.posterior_predictive(shifted(drawn_fit, np.where(size == np.max(size[size < 2e9]), 0.01, 0.0)))
    students = found.isel(group=np.flatnonzero(found["factor"].values == "student"))
    worst = int(np.argmax(students["mean"].values * (students["runs"].values > 30)))
    assert str(students["label"].values[worst]).startswith("1.82B")
    assert float(students["mean_p"][worst]) == 0
    assert float(students["inside_90"][worst]) < float(students["inside_90_lower"][worst])
    with pytest.raises(ParameterError, match="`bins` must be an integer from 2 to 10000, got 1"):
        bd.posterior_predictive(drawn_fit, bins=1)
    with pytest.raises(ModelError, match="posterior_predictive requires a fit with its runs"):
        bd.posterior_predictive(drawn_fit["posterior"].to_dataset())


# Residuals ------------------------------------------------------------------------------------------------------------


def test_noise_has_no_structure_and_a_shift_has(drawn_fit, runs354):
    noise = bd.residual_structure(drawn_fit, shuffles=300)
    assert (noise["p_value"] > 0.005).all()
    assert float(np.abs(noise["share"]).max()) < 0.12
    assert float(noise["neighbours_p"]) > 0.005
    assert float(noise["neighbours"]) == pytest.approx(float(noise["neighbours_expected"]), abs=0.2)
    teachers = runs354["teacher_loss"].to_numpy()
    wave = bd.residual_structure(shifted(drawn_fit, 0.008 * np.sin(12 * teachers)), shuffles=300)
    assert float(wave["share"].sel(by="teacher")) > 0.3
    assert float(wave["p_value"].sel(by="teacher")) == 0
    assert float(wave["neighbours"]) > 0.3
    assert float(wave["neighbours_p"]) == 0
    np.testing.assert_allclose(
        (wave["mean_residual"] * wave["runs"])[wave["factor"].values == "teacher"].sum(),
        wave["residual"].sum(),
        atol=1e-12,
    )
    with pytest.raises(ParameterError, match="`shuffles` must be an integer from 20 to"):
        bd.residual_structure(drawn_fit, shuffles=3)


def test_variance_shares_and_neighbours_by_hand():
    values, index = np.array([1.0, 3.0, 5.0, 7.0]), np.array([0, 0, 1, 1])
    # Within: 2 + 2 over 2 degrees of freedom; total: 20 over 3.
    assert float(residuals.between(values, index)) == pytest.approx(1 - 2 / (20 / 3))
    # Deviations -1, 0, 1: products 0 and 0; deviations 1, -1: product -1. Mean product -1/3, mean square 4/5.
    sequences = [np.array([1.0, 2.0, 3.0]), np.array([5.0, 3.0])]
    assert residuals.lag_correlation(sequences) == pytest.approx(-1 / 3 / (4 / 5))
    assert np.isnan(residuals.lag_correlation([np.array([1.0])]))


def test_the_published_runs_differ_by_configuration(fit354):
    found = bd.residual_structure(fit354, max_draws=200, shuffles=200)
    # The law misses between configurations, and within them it has the wrong slope.
    by_student = found.isel(by=0)
    assert float(by_student["share"]) > 0.2
    assert float(by_student["p_value"]) == 0
    assert 0.1 < float(found["neighbours"]) < 0.2


# Leave-one-out --------------------------------------------------------------------------------------------------------


def test_loo_is_that_of_arviz_and_says_when_it_cannot_be_used(drawn_fit):
    from arviz_stats import loo as arviz_loo

    found = bd.loo(drawn_fit)
    theirs = arviz_loo(drawn_fit, pointwise=True, var_name="student_loss")
    assert float(found["elpd"]) == pytest.approx(float(theirs.elpd))
    assert float(found["elpd_i"].sum()) == pytest.approx(float(theirs.elpd))
    assert int(found["bad"]) == 0
    assert found.attrs["verdict"] == "All 354 values of Pareto k are at most 0.7. The estimate is reliable."
    # A run that one draw in a thousand explains, and the others do not.
    spoiled = drawn_fit.copy(deep=True)
    density = spoiled["log_likelihood"].to_dataset()
    values = density["student_loss"].values.copy()
    values[:, :, 17] = -40 * np.random.default_rng(0).standard_exponential(values.shape[:2])
    spoiled["log_likelihood"] = xr.DataTree(density.assign(student_loss=(("chain", "draw", "run"), values)))
    bad = bd.loo(spoiled)
    assert float(bad["pareto_k"][17]) > 0.7
    assert bad.attrs["verdict"].startswith("1 of 354 values of Pareto k are above 0.7 (worst: run 17)")
    assert "Do not use the estimate" in bad.attrs["verdict"]
    compared = bd.compare_loo({"good": drawn_fit, "spoiled": spoiled})
    assert compared["bad"].sel(model="spoiled") == 1
    assert compared.attrs["verdict"].startswith(
        "Pareto k is above 0.7 for spoiled (1 runs). Do not use this comparison"
    )
    with pytest.raises(ModelError, match="requires a fit with its log-likelihood"):
        bd.loo(drawn_fit["posterior"].to_dataset())


def test_models_of_the_same_runs_are_compared(drawn_fit):
    wrong = drawn_fit.copy(deep=True)
    draws = wrong["posterior"].to_dataset()
    draws["E"] = draws["E"] + 0.02
    seen = [*wrong["constant_data"].to_dataset().data_vars.values(), wrong["observed_data"]["student_loss"]]
    density = groups.log_likelihood(draws, pd.DataFrame({one.name: one.values for one in seen}), None)
    wrong["log_likelihood"] = xr.DataTree(density)
    compared = bd.compare_loo({"wrong": wrong, "right": drawn_fit})
    assert compared["model"].values.tolist() == ["right", "wrong"]
    assert compared["converged"].values.tolist() == [bd.loo(drawn_fit).attrs["converged"]] * 2
    assert float(compared["elpd_difference"][0]) == 0
    ours = bd.loo(wrong)["elpd_i"] - bd.loo(drawn_fit)["elpd_i"]
    assert float(compared["elpd_difference"][1]) == pytest.approx(float(ours.sum()))
    assert float(compared["difference_se"][1]) == pytest.approx(float(np.sqrt(354) * ours.std()), rel=0.01)
    assert "do not say" not in compared.attrs["verdict"]
    twins = bd.compare_loo({"one": drawn_fit, "two": drawn_fit})
    assert twins.attrs["verdict"].endswith("The data do not determine which of the two models is better.")
    with pytest.raises(ModelError, match="at least two"):
        bd.compare_loo({"one": drawn_fit})
    with pytest.raises(ModelError, match="'two' and 'one' were fitted to different runs"):
        bd.compare_loo({"one": drawn_fit, "two": shifted(drawn_fit, np.full(354, 0.1))})


# Prior sensitivity ----------------------------------------------------------------------------------------------------


def test_the_log_priors_are_those_of_the_model(fit354, runs354):
    model = bd.build_model(runs354)
    found = prior_power.log_priors(fit354).isel(chain=0, draw=[0, 400, 900])
    total = sum(found[name] for name in found.data_vars).values
    z = fit354["posterior"]["z"].isel(chain=0, draw=[0, 400, 900]).values
    # Shifts of groups are no coordinates; they have no part in it.
    prior, start = model.compile_logp(vars=[model["z"], model["asymptotic_prior"]]), model.initial_point()
    expected = [float(prior(start | {"z": one})) for one in z]
    np.testing.assert_allclose(total, expected, rtol=1e-8)


def test_what_the_runs_do_not_say_hangs_on_its_prior(fit354):
    plan = bd.plan(fit354, 1e9, [1e21, 1e25], scenarios=["best case"])
    found = bd.prior_sensitivity(bd.Planner(fit354), plan)
    assert found["kind"].values.tolist().count("advantage") == 2
    advantage = found["sensitivity"].sel(
        quantity=[n for n in found["quantity"].values if str(n).startswith("advantage")]
    )
    # The asymptotic prior moves the answer with much data most, by less than counts; no coordinate of the gap moves it.
    near, far = advantage.sel(component="asymptotic").values
    assert 0.01 < near < far < 0.05
    assert float(advantage.sel(component="supervised law").min()) > 0.03
    assert float(advantage.sel(component="log_gap_strength").max()) < 0.01
    assert float(found["sensitivity"].sel(component="gap_curvature", quantity="c1")) > 0.2
    expected = ("sensitive to the priors and the data", "dominated by the priors")
    assert found["diagnosis"].sel(quantity="c1").item() in expected
    assert np.isfinite(found["sensitivity"].values).all()
    with pytest.raises(ParameterError, match="'supervised_loss' and 'distilled_loss' are missing"):
        bd.prior_sensitivity(fit354, plan[["probability"]])
    with pytest.raises(ModelError, match="coordinates and log-likelihood"):
        bd.prior_sensitivity(posterior.law_draws(fit354))


def test_prior_and_runs_that_pull_alike_have_like_sensitivities():
    rng = np.random.default_rng(5)
    z = rng.standard_normal((4, 2000)) * np.sqrt(0.5) + 1.0  # prior N(0, 1), one observation of 2 with sd 1
    draws = xr.Dataset({"E": (("chain", "draw"), z), "z": (("chain", "draw", "coordinate"), z[..., None])})
    draws = draws.assign_coords(chain=np.arange(4), draw=np.arange(2000), coordinate=["c0"])
    density = xr.Dataset({"loss": (("chain", "draw", "supervised_run"), -0.5 * (z[..., None] - 2) ** 2)})
    fit = xr.DataTree.from_dict(
        {"posterior": draws, "log_likelihood": density.assign_coords(draw=np.arange(2000), chain=np.arange(4))}
    )
    found = bd.prior_sensitivity(fit)
    prior, runs = (float(found["sensitivity"].sel(component=c, quantity="E")) for c in ("all priors", "runs"))
    assert found["sensitivity"].sel(component="c0", quantity="E").item() == pytest.approx(prior)
    # Prior and likelihood pull with the same force, so that the sensitivities are alike.
    assert prior == pytest.approx(runs, rel=0.15)
    assert prior > 0.05
    assert found["diagnosis"].item() == "sensitive to the priors and the data"


# Declared variables ---------------------------------------------------------------------------------------------------


def test_variables_are_declared_for_public_functions_and_have_units():
    tables = declared_in("bayesdistill.criticism")
    # Results that hold the design of the runs are declared for each kind.
    assert {name.removesuffix("_distilled").removesuffix("_supervised") for name in tables} <= set(criticism.__all__)
    for function in tables:
        for name, (dims, units, words) in tables[function].items():
            assert units in ("1", "nats per token", "FLOPs", "parameters", "tokens"), (function, name)
            assert words, (function, name)
            assert all(dim.isidentifier() for dim in dims.split()), (function, name)


def test_a_result_has_what_is_declared_and_no_more():
    found = results.dataset(
        "rank_ecdf",
        {name: [0.5] for name in ("stated", "won", "won_lower", "won_upper", "decisions")}
        | {"difference": [[0.0]], "band_lower": [0.0], "band_upper": [0.0], "outside": [False], "p_holm": [1.0]}
        | {"something else": [1.0]},
        {"position": [0.5], "bin_label": ("bin", ["all"])},
        {},
    )
    assert set(found.variables) == {*results.declared("rank_ecdf"), "bin_label"}
    assert found["difference"].dims == ("quantity", "position")
    assert found["position"].attrs == {"units": "1", "long_name": "fraction of posterior draws"}
    with pytest.raises(KeyError, match="kind"):
        results.dataset("prior_sensitivity", {"sensitivity": [[1.0]]}, {}, {})


def test_records_become_arrays():
    found = results.columns([[{"a": 1, "b": [1.0, 2.0]}, {"a": 2, "b": [3.0, 4.0]}]])
    assert found["a"].tolist() == [[1, 2]]
    assert found["b"].shape == (1, 2, 2)


# Scores on unseen groups ----------------------------------------------------------------------------------------------


def test_scores_of_all_splits_stand_together():
    fold = [0, 0, 1, 1]
    best, other = scored([1.0] * 4, [0.1] * 4, fold), scored([0.5] * 4, [0.2] * 4, fold)
    found = bd.unseen_scores({"teachers": {"best": best, "other": other}, "students": {"other": other}})
    assert found["elpd_difference"].sel(split="teachers").values.tolist() == [0, -2]
    assert np.isnan(found["elpd"].sel(split="students", model="best"))
    assert float(found["rmse"].sel(split="students", model="other")) == pytest.approx(0.2)
    assert found["unconverged"].sel(model="other").values.tolist() == [0, 0]
    missed = other.assign(converged=("run", [True, True, False, False]))
    assert float(bd.unseen_scores({"teachers": {"other": missed}})["unconverged"].squeeze()) == 1
    with pytest.raises(ParameterError, match="`results` is empty or has a split without models"):
        bd.unseen_scores({})
    with pytest.raises(ParameterError, match="'other' was scored on other runs than 'best'"):
        bd.unseen_scores({"teachers": {"best": best, "other": other.isel(run=[0, 1, 2])}})
