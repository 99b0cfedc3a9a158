from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.criticism import baselines, scores, unseen_groups
from bayesdistill.errors import ModelError, ParameterError
from bayesdistill.laws import LAW_PARAMETERS, distilled_loss, log_gap
from bayesdistill.posterior import Gates


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
    found = bd.check(fit_of(jittered_draws), gates=Gates(max_rhat=1.02))
    assert found.ok is True
    assert found.problems == ()
    assert found.verdict == "Nothing is wrong: the draws passed every gate."
    assert [row[0] for row in found.rows] == [
        "largest R-hat",
        "smallest bulk ESS",
        "smallest tail ESS",
        "divergent transitions",
        "share of cut trajectories",
        "smallest E-BFMI",
    ]
    assert {row[3] for row in found.rows} == {"ok"}
    json.dumps(found.numbers)


def test_bare_draws_are_said_to_be_bare(jittered_draws):
    found = bd.check(jittered_draws, gates=Gates(max_rhat=1.02))
    assert found.ok is None
    assert "bare draws" in found.verdict
    assert [row[3] for row in found.rows[3:]] == ["unknown", "unknown", "unknown"]


@pytest.mark.parametrize(
    ("key", "words", "remedy"),
    [
        ("rhat", "largest R-hat is ", "the chains disagree"),
        ("ess_bulk", "smallest bulk ESS is ", "raise draws"),
        ("ess_tail", "smallest tail ESS is ", "raise draws"),
        ("divergences", "divergent transitions is 7, <= 0 is needed", "raise target_accept"),
        ("treedepth_share", "share of cut trajectories is 0.0500, <= 0.01 is needed", "tune longer"),
        ("bfmi", "smallest E-BFMI is ", "tune longer"),
    ],
)
def test_every_gate_has_words_and_a_remedy(jittered_draws, key, words, remedy):
    diverging = np.zeros((4, 250), dtype=bool)
    diverging.ravel()[:7] = True
    cut = np.zeros((4, 250), dtype=bool)
    cut.ravel()[:50] = True
    draws = jittered_draws.assign(c0=jittered_draws["c0"] + 0.3 * jittered_draws["chain"])
    walk = np.cumsum(np.random.default_rng(1).standard_normal((4, 250)), axis=1)
    gates = Gates(min_ess_tail=1e5)
    found = bd.check(fit_of(draws, diverging=diverging, maxdepth_reached=cut, energy=walk), gates=gates)
    assert found.ok is False
    assert len(found.problems) == 6
    assert found.numbers["failed"] == ["rhat", "ess_bulk", "ess_tail", "divergences", "treedepth_share", "bfmi"]
    (problem,) = [text for text in found.problems if text.startswith(words)]
    assert remedy in problem
    assert problem in str(found)
    assert str(found).startswith("Do not use these draws as they are: ")
    if key in ("rhat", "ess_bulk"):
        assert "(c0)" in problem
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
    for i, j in ((0, 0), (7, 4), (19, 8)):
        one = curves.isel(configuration=i, teacher_loss=j)
        loss = distilled_loss(
            float(one["configuration_params"]),
            float(one["configuration_tokens"]),
            float(one["teacher_loss"]),
            **{name: thin[name].values.ravel() for name in LAW_PARAMETERS},
        )
        assert float(one["mean"]) == pytest.approx(loss.mean(), rel=1e-12)
        assert float(one["lower"]) == pytest.approx(np.quantile(loss, 0.1), rel=1e-12)
        assert float(one["upper"]) == pytest.approx(np.quantile(loss, 0.9), rel=1e-12)
    # A new run scatters around the law: its band holds that of the law, and is about as wide as the scatter.
    assert (curves["run_lower"] < curves["lower"]).all()
    assert (curves["run_upper"] > curves["upper"]).all()
    scatter = float(posterior.mean(posterior.noise_draws(fit354)["sigma"]))
    width = (curves["run_upper"] - curves["run_lower"]).min()
    assert 2 * 1.28 * scatter * 0.8 < float(width) < 2 * 1.6 * scatter
    # Runs, their predictions and residuals.
    np.testing.assert_array_equal(curves["student_loss"], runs354["student_loss"])
    np.testing.assert_allclose(curves["residual"], curves["student_loss"] - curves["predicted"], atol=1e-15)
    predicted = distilled_loss(
        *(runs354[name].to_numpy()[5] for name in ("student_params", "student_tokens", "teacher_loss")),
        **{name: draws[name].values for name in LAW_PARAMETERS},
    ).mean()
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


def test_curves_need_distilled_runs(jittered_draws, fit354):
    with pytest.raises(ModelError, match="needs a fit of distilled runs"):
        bd.law_curves(jittered_draws)
    with pytest.raises(ParameterError, match="at least 2"):
        bd.law_curves(fit354, points=1)
    with pytest.raises(ParameterError, match=r"prob is 1\.5"):
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
    table = bd.score_table({"other": other, "best": best})
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
    for split, groups in (("teacher", 8), ("student", 7)):
        folds = unseen_groups.folds(runs354, split)
        assert len(folds) == groups
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
    with pytest.raises(ParameterError, match="split is 'run'"):
        unseen_groups.folds(runs354, "run")


def test_the_law_without_capacity_gap_has_none(runs354):
    from bayesdistill.model import reference_run
    from bayesdistill.priors.coordinates import distillation_at_reference, supervised_at_reference

    priors = unseen_groups.priors_of({"gap": False}, runs354)
    assert (~priors.free).sum() == 3
    c = dict(zip(priors.names, priors.location, strict=True))
    law = supervised_at_reference(c)
    law |= distillation_at_reference(c, law, reference_run(runs354, None))
    gap = log_gap(np.log(np.linspace(0.5, 1.5, 21)), **{name: law[name] for name in ("c1", "d1", "f1")})
    assert np.abs(gap).max() < 1e-9


def test_the_point_fit_finds_the_law_that_made_the_runs():
    truth = dict(bd.PUBLISHED) | {"c1": 1200.0, "d1": 0.02 ** -bd.PUBLISHED["f1"]}
    runs = bd.simulate_runs(truth, seed=4, sigma=1e-6, nu=np.inf)
    law = baselines.point_fit(runs)
    assert set(law) == set(LAW_PARAMETERS)
    columns = [runs[name].to_numpy() for name in ("student_params", "student_tokens", "teacher_loss")]
    np.testing.assert_allclose(distilled_loss(*columns, **law), runs["student_loss"], atol=2e-5)
    # It fits the published runs no worse than the published law itself, and within what the paper reports.
    published = bd.load_runs("busbridge2025")
    columns = [published[name].to_numpy() for name in ("student_params", "student_tokens", "teacher_loss")]
    ours, theirs = (
        np.abs(distilled_loss(*columns, **one) - published["student_loss"]).mean()
        for one in (baselines.point_fit(published), bd.PUBLISHED)
    )
    assert ours <= theirs


def test_leaving_out_goes_on_from_a_checkpoint(runs354, tmp_path, monkeypatch):
    few = runs354.iloc[::6].reset_index(drop=True)
    whole = bd.leave_out(few, "student", "point", seed=1)
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
        bd.leave_out(few, "student", "point", seed=1, checkpoint=checkpoint)
    told: list[tuple[int, int]] = []
    resumed = bd.leave_out(
        few, "student", "point", seed=1, checkpoint=checkpoint, progress=lambda done, of: told.append((done, of))
    )
    folds = len(unseen_groups.folds(few, "student"))
    assert told[0] == (2, folds)
    assert told[-1] == (folds, folds)
    assert len(calls) == folds + 1  # two before the interrupt, the one interrupted, the rest
    xr.testing.assert_identical(resumed, whole)
    # Other runs, or another seed, do not go on from it.
    changed = few.assign(student_loss=few["student_loss"] + 1e-9)
    calls.clear()
    calls.extend([None] * 3)
    bd.leave_out(changed, "student", "point", seed=1, checkpoint=checkpoint)
    assert len(calls) == 3 + folds
