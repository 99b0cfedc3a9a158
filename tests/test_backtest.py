"""The backtest: scores in closed form, pairs by hand, and forecasts that come true where the law is true."""

from __future__ import annotations

import itertools
import json
import math

import joint_baselines
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from law_names import SUPERVISED_PARAMETERS
from scipy.stats import beta, t

import bayesdistill as bd
from bayesdistill.criticism import _backtest as backtesting
from bayesdistill.criticism import pairs, probability_scores
from bayesdistill.errors import DataError, ModelError, ParameterError
from bayesdistill.law import LAWS, Draws

# Scores ---------------------------------------------------------------------------------------------------------------


def test_brier_and_log_score_in_closed_form():
    p, y = np.array([0.9, 0.2, 0.5]), np.array([1.0, 0.0, 1.0])
    assert probability_scores.brier(p, y) == pytest.approx((0.01 + 0.04 + 0.25) / 3)
    assert probability_scores.mean_log_score(p, y) == pytest.approx(math.log(0.9 * 0.8 * 0.5) / 3)
    assert probability_scores.brier_skill(p, y) == pytest.approx(1 - 0.1 / (2 / 9))
    assert probability_scores.brier_skill(np.full(3, 2 / 3), y) == pytest.approx(0)
    assert math.isnan(probability_scores.brier_skill(p, np.ones(3)))


@given(st.floats(0.3, 3.0), st.floats(-1.0, 1.0))
@settings(max_examples=25, deadline=None)
def test_the_calibration_line_finds_what_made_the_outcomes(slope, intercept):
    # Outcomes in their expected shares: each forecast stands for q wins and 1 - q losses, as weights of 200 copies.
    x = np.linspace(-3, 3, 13)
    q = 1 / (1 + np.exp(-(intercept + slope * x)))
    wins = np.round(20000 * q).astype(int)
    p = np.repeat(1 / (1 + np.exp(-x)), 20000)
    y = np.concatenate([np.r_[np.ones(w), np.zeros(20000 - w)] for w in wins])
    found = probability_scores.calibration_line(p, y)
    assert found == pytest.approx((intercept, slope), abs=0.01)


def test_the_calibration_line_says_when_there_is_none():
    assert probability_scores.calibration_line(np.array([0.2, 0.8]), np.array([0.0, 1.0]))[1] == math.inf
    assert probability_scores.calibration_line(np.array([0.8, 0.2]), np.array([0.0, 1.0]))[1] == -math.inf
    assert all(math.isnan(v) for v in probability_scores.calibration_line(np.array([0.2, 0.8]), np.ones(2)))
    assert all(math.isnan(v) for v in probability_scores.calibration_line(np.full(2, 0.5), np.array([0.0, 1.0])))


def test_overconfident_forecasts_have_a_slope_below_one():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1.5, 4000)
    y = (rng.uniform(size=x.size) < 1 / (1 + np.exp(-x))).astype(float)
    for factor in (1.0, 2.0):
        _, slope = probability_scores.calibration_line(1 / (1 + np.exp(-factor * x)), y)
        assert slope == pytest.approx(1 / factor, abs=0.08)


def test_the_curve_counts_groups_not_forecasts():
    p, y = np.full(8, 0.9), np.array([1.0] * 6 + [0.0] * 2)
    many = probability_scores.calibration_curve(p, y, np.arange(8))
    few = probability_scores.calibration_curve(p, y, np.repeat([0, 1], 4))
    at = 4  # 0.8 to 0.95
    assert many["count"][at] == 8
    assert many["share"][at] == few["share"][at] == 0.75
    assert few["lower"][at] < many["lower"][at] < 0.75 < many["upper"][at] < few["upper"][at]
    assert np.isnan(many["share"][0])
    assert probability_scores.calibration_curve(p, np.ones(8), np.arange(8))["upper"][at] == 1.0


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.95, 1.0]), st.booleans()), min_size=1)
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_every_forecast_is_in_one_bin_with_the_interval_of_jeffreys(forecasts):
    p, y = (np.array(v, dtype=float) for v in zip(*forecasts, strict=True))
    found = probability_scores.calibration_curve(p, y, np.arange(p.size), probability=0.8)
    edges = probability_scores.BINS
    assert found["count"].sum() == p.size
    for b, (low, high) in enumerate(itertools.pairwise(edges)):
        # An edge belongs to the bin above it, and 1 to the last.
        mine = (p >= low) & ((p < high) | ((b == len(edges) - 2) & (p == 1)))
        assert found["count"][b] == mine.sum()
        if not mine.any():
            assert np.isnan([found[name][b] for name in ("share", "mean_probability", "lower", "upper")]).all()
            continue
        wins, losses = y[mine].sum(), (1 - y[mine]).sum()
        assert found["mean_probability"][b] == pytest.approx(p[mine].mean())
        assert found["share"][b] == wins / mine.sum()
        assert found["lower"][b] == (0 if wins == 0 else pytest.approx(beta.ppf(0.1, wins + 0.5, losses + 0.5)))
        assert found["upper"][b] == (1 if losses == 0 else pytest.approx(beta.ppf(0.9, wins + 0.5, losses + 0.5)))


def test_intervals_of_a_score_have_the_probability_asked_for_and_leave_out_what_has_no_score():
    rng = np.random.default_rng(2)
    values, groups = rng.normal(size=400), np.arange(400)

    def interval(score, probability):
        return probability_scores.grouped_interval(score, groups, refits=800, probability=probability)

    for probability, z in ((0.5, 0.6745), (0.9, 1.645)):
        low, high = interval(lambda i: float(values[i].mean()), probability)
        assert high - low == pytest.approx(2 * z * values.std() / 20, rel=0.1)

    def sometimes(share):
        return lambda i: float(values[i].mean()) if i[0] < 400 * share else math.nan

    assert np.isfinite(interval(sometimes(0.7), 0.9)).all()
    # Where most resamples have no score there is no interval.
    assert np.isnan(interval(sometimes(0.3), 0.9)).all()


def test_intervals_widen_when_forecasts_share_runs():
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(20), 10)
    values = rng.normal(size=20)[cluster]
    wide = probability_scores.grouped_interval(lambda i: float(values[i].mean()), cluster)
    narrow = probability_scores.grouped_interval(lambda i: float(values[i].mean()), np.arange(200))
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])
    assert wide[1] - wide[0] == pytest.approx(2 * 1.645 * values.std() / math.sqrt(20), rel=0.25)
    assert all(math.isnan(v) for v in probability_scores.grouped_interval(lambda i: 0.0, np.zeros(5)))


# Pairs ----------------------------------------------------------------------------------------------------------------


def flat_flops(params):
    return 2.0 * np.asarray(params, dtype=float)


@pytest.fixture
def small_tables():
    supervised = pd.DataFrame(
        {
            "params": [1e6, 1e6, 1e6, 1e6, 2e6],
            "tokens": [1e8, 2e8, 2e8, 8e8, 1e8],
            "loss": [3.0, 2.8, 2.82, 2.5, 2.9],
            "seed": [0, 0, 1, 0, 0],
        }
    )
    distilled = pd.DataFrame(
        {
            "student_params": [1e6, 1e6, 1e6, 3e6],
            "student_tokens": [2e8, 1e8, 8e8, 1e8],
            "teacher_loss": [2.4] * 4,
            "student_loss": [2.7, 2.9, 2.6, 2.7],
            "teacher_params": [3e6] * 4,
            "teacher_tokens": [5e8] * 4,
            "seed": [1, 0, 0, 0],
        }
    )
    return distilled, supervised


def test_in_the_best_case_a_run_meets_one_of_its_own_tokens_and_seed(small_tables):
    found = pairs.matched_pairs(*small_tables, [bd.SCENARIOS["best case"]], flat_flops)
    assert found["distilled"].tolist() == [0, 1, 2]  # nobody was pretrained at 3e6
    assert found["low"].tolist() == found["high"].tolist() == [2, 0, 3]
    assert found["difference"].tolist() == pytest.approx([0.12, 0.1, -0.1])


def test_at_equal_compute_the_loss_is_interpolated_and_never_extrapolated(small_tables):
    # The teacher's logits cost as much as the student's training: twice the tokens for pretraining.
    found = pairs.matched_pairs(*small_tables, [bd.SCENARIOS["teacher inference"]], flat_flops)
    assert found["distilled"].tolist() == [0, 1]  # 16e8 tokens were never seen
    assert found["tokens"].tolist() == pytest.approx([4e8, 2e8])
    assert found["weight"].tolist() == pytest.approx([0.5, 0.0])
    assert found["difference"].tolist() == pytest.approx([(2.82 + 2.5) / 2 - 2.7, 2.8 - 2.9])
    assert found["cost"].tolist() == pytest.approx([2 * 3 * 2e6 * 2e8, 2 * 3 * 2e6 * 1e8])


def test_no_interpolation_across_a_wide_gap(small_tables):
    distilled, supervised = small_tables
    sparse = supervised.drop(index=[1, 2]).reset_index(drop=True)
    found = pairs.matched_pairs(distilled, sparse, [bd.SCENARIOS["teacher inference"]], flat_flops)
    assert found.empty


def test_charging_the_teacher_needs_its_columns(small_tables):
    distilled, supervised = small_tables
    with pytest.raises(ParameterError, match="teacher_tokens"):
        pairs.matched_pairs(
            distilled.drop(columns="teacher_tokens"), supervised, [bd.SCENARIOS["teacher pretraining"]], flat_flops
        )


# The whole --------------------------------------------------------------------------------------------------------------


def simulated_study(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both kinds of runs from the published law, on a grid like that of the tiny experiment."""
    sizes, tokens = np.array([1.5e8, 3e8, 6e8, 1.2e9, 2.4e9]), np.array([3e9, 6e9, 1.2e10, 2.4e10, 4.8e10, 9.6e10])
    law = {name: bd.PUBLISHED[name] for name in SUPERVISED_PARAMETERS}
    teachers = [(3e8, 1e10), (1e9, 2e10), (3e9, 6e10), (7e9, 2e11)]
    rows = [
        (n, d, float(bd.supervised_loss(*teacher, **law)), *teacher)
        for n in sizes
        for d in tokens[::2]
        for teacher in teachers
    ]
    names = ["student_params", "student_tokens", "teacher_loss", "teacher_params", "teacher_tokens"]
    grid = pd.DataFrame([(n, d) for n in sizes for d in tokens], columns=["params", "tokens"])
    noise = {"sigma": 0.01, "nu": 20.0}
    distilled = bd.simulate_runs(bd.PUBLISHED, seed=seed, design=pd.DataFrame(rows, columns=names), **noise)
    return distilled, bd.simulate_runs(bd.PUBLISHED, seed=seed + 1, kind="supervised", design=grid, **noise)


@pytest.fixture(scope="module")
def baseline_backtest(tmp_path_factory):
    distilled, supervised = simulated_study(3)
    path = tmp_path_factory.mktemp("backtest") / "kept.json"
    told = []
    found = bd.backtest(
        distilled,
        supervised,
        cutoffs=[6e19],
        forecasters=[joint_baselines.point],
        checkpoint=path,
        progress=lambda *done: told.append(done),
    )
    return found, (distilled, supervised), path, told


def test_a_law_that_is_true_forecasts_well(baseline_backtest):
    found, *_ = baseline_backtest
    everything = found.sel(group="all", forecaster="point")
    assert found.sizes["forecast"] > 40
    assert 0.1 < float(everything["base_rate"]) < 0.9
    assert float(everything["brier_skill"].sel(noise="run")) > 0.3
    assert float(everything["rmse"]) < 0.05
    # The law without noise is certain of everything, and some of that is wrong.
    assert float(everything["log_score"].sel(noise="law")) < float(everything["log_score"].sel(noise="run"))
    assert set(np.unique(found["outcome"])) == {0.0, 1.0}
    assert ((found["extrapolation_factor"] > 0.3) & (found["extrapolation_factor"] < 1e3)).all()


def test_groups_add_up(baseline_backtest):
    found, *_ = baseline_backtest
    counts = found["forecasts"].to_series()
    by_distance = counts[[name for name in counts.index if "times" in name]]
    assert by_distance.sum() == counts["all"] == counts[["best case", "teacher inference", "teacher pretraining"]].sum()
    assert found["curve_count"].sel(noise="run").sum("bin").values.tolist() == [counts["all"]]
    one = found.isel(forecast=found["scenario"].values == "best case")
    p = one["probability"].sel(noise="run", forecaster="point")
    assert float(((p - one["outcome"]) ** 2).mean()) == pytest.approx(
        float(found["brier"].sel(group="best case", noise="run", forecaster="point"))
    )


def test_no_run_above_the_cutoff_was_fitted(baseline_backtest):
    found, (distilled, supervised), *_ = baseline_backtest
    own = pairs.own_costs(distilled, supervised, bd.flops_per_token)
    assert int(found["fitted_distilled"][0]) == (own[0] <= 6e19).sum()
    assert int(found["fitted_supervised"][0]) == (own[1] <= 6e19).sum()
    assert set(found["distilled_run"].values) <= set(np.flatnonzero(own[0] > 6e19))
    assert found.sizes["prediction"] == (own[0] > 6e19).sum() + (own[1] > 6e19).sum()


def test_finished_fits_are_kept_and_others_are_not_taken_for_them(baseline_backtest, monkeypatch):
    found, tables, path, told = baseline_backtest
    assert told == [(0, 1), (1, 1)]
    kept = json.loads(path.read_text())

    def refuse(task):
        raise AssertionError("fitted again")

    monkeypatch.setattr(backtesting, "_fit_and_predict", refuse)
    numbers = {"draws": np.int64(1000), "tune": np.int32(1000), "seed": np.int64(0)}
    again = bd.backtest(*tables, cutoffs=[6e19], forecasters=[joint_baselines.point], checkpoint=path, **numbers)
    xr.testing.assert_identical(again, found)
    with pytest.raises(DataError, match=r"cutoffs is \[6e\+19\] in the file and \[7e\+19\] in this call"):
        bd.backtest(*tables, cutoffs=[7e19], forecasters=[joint_baselines.point], checkpoint=path)
    with pytest.raises(DataError, match=r"scenarios is .* in the file and \['best case'\] in this call"):
        bd.backtest(
            *tables, cutoffs=[6e19], scenarios=["best case"], forecasters=[joint_baselines.point], checkpoint=path
        )
    assert json.loads(path.read_text()) == kept


def test_other_outcomes_do_not_change_what_was_forecast(baseline_backtest):
    found, (distilled, supervised), *_ = baseline_backtest
    own = pairs.own_costs(distilled, supervised, bd.flops_per_token)
    other = distilled.assign(student_loss=distilled["student_loss"] + np.where(own[0] > 6e19, 0.3, 0.0))
    again = bd.backtest(other, supervised, cutoffs=[6e19], forecasters=[joint_baselines.point])
    np.testing.assert_array_equal(again["probability"], found["probability"])
    assert float(again["outcome"].mean()) < float(found["outcome"].mean())


def test_charged_teachers_take_their_students_with_them():
    distilled, supervised = simulated_study(3)
    own = pairs.own_costs(distilled, supervised, bd.flops_per_token)
    teacher = pairs.teacher_costs(distilled, bd.flops_per_token)
    charged = bd.backtest(
        distilled, supervised, cutoffs=[3e20], forecasters=[joint_baselines.point], teachers="charged"
    )
    fitted = (own[0] <= 3e20) & (teacher <= 3e20)
    assert int(charged["fitted_distilled"][0]) == fitted.sum() < (own[0] <= 3e20).sum()
    assert charged.attrs["teachers"] == "charged"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"cutoffs": [-1.0]}, "-1.0 in `cutoffs`"),
        ({"cutoffs": [1e17]}, "Only 0 distilled and 0 supervised runs are below .* at least 10 of each kind"),
        ({"cutoffs": [1e30]}, "No pair of runs is above"),
        ({"forecasters": ["oracle"]}, "must be 'posterior' or functions .*got .'oracle'"),
        ({"forecasters": [joint_baselines.point] * 2}, "functions with different names"),
        ({"forecasters": "oracle"}, "must be 'posterior' or functions .*got 'oracle'"),
        ({"forecasters": [["posterior"]]}, "must be 'posterior' or functions"),
        ({"scenarios": "bset case"}, "Unknown scenario 'bset case'"),
        ({"scenarios": "best case", "cutoffs": 1e30}, "No pair of runs is above"),
        ({"scenarios": ["best case", "best case"]}, "contains the name 'best case' more than once"),
        ({"scenarios": [bd.Scenario(0, 1, "a"), bd.Scenario(0, 0.5, "a")]}, "contains the name 'a' more than once"),
        ({"scenarios": ["best case", bd.Scenario(0, 0, "mine")]}, "'best case' and 'mine' have the same costs"),
        ({"flops": 3}, "`flops` must be a function"),
        ({"flops": lambda sizes: -sizes}, "`flops` must return a positive number"),
        (
            {"prior_settings": {"width": 1}},
            "`prior_settings` must be a mapping of tolerance, asymptotic_width, .* and limited_data_width",
        ),
        ({"seed": -1}, "`seed` must be an integer from 0"),
        ({"teachers": "free"}, "must be 'given' or 'charged', got 'free'"),
    ],
)
def test_unusable_arguments_are_named(wrong, words):
    with pytest.raises(ParameterError, match=words):
        bd.backtest(*simulated_study(3), **wrong)


@pytest.mark.slow
def test_the_documented_example():
    tiny, alone = bd.load_runs("tiny"), bd.load_runs("tiny", kind="supervised")
    found = bd.backtest(tiny, alone, cutoffs=[1e14], forecasters=joint_baselines.point, progress=False)
    assert found.sizes["forecast"] > 0


def test_table_and_figure(baseline_backtest):
    found, *_ = baseline_backtest
    table = bd.backtest_table(found, noise="run")
    assert table["group"].iloc[0] == "all"
    assert (table["noise"] == "run").all()
    assert table["forecasts"].iloc[0] == found.sizes["forecast"]
    assert len(bd.backtest_table(found)) == 3 * len(table)
    assert bd.table_text(table)
    figure = bd.plot_backtest(found)
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "stated probability",
        "forecast gain of the distilled run [nats per token]",
    ]
    with pytest.raises(ParameterError, match="noise"):
        bd.plot_backtest(found, noise="none")
    with pytest.raises(ParameterError, match="noise"):
        bd.backtest_table(found, noise="none")
    with pytest.raises(ParameterError, match="backtest"):
        bd.backtest_table(xr.Dataset())


def the_published_law(distilled, supervised, reference, seed):
    law = LAWS["busbridge2025"].for_tables(distilled, supervised)
    return Draws(law, bd.PUBLISHED | {"sigma": 0.01, "sigma_supervised": 0.01, "nu": 20.0})


def test_cutoffs_whose_fit_failed_are_not_scored_and_counted(monkeypatch):
    real, failing = backtesting._fit_and_predict, [2e20]

    def fit(task):
        runs, _, priors, split, *rest = task
        found = real((runs, the_published_law, priors, split, *rest))
        checks = {"rhat": 1.5, "ess_bulk": 9.0, "divergences": 3, "refits": 2}
        found["convergence"] = checks | {"failed": ["rhat"] if split.cutoff in failing else []}
        return found

    monkeypatch.setattr(backtesting, "_fit_and_predict", fit)
    monkeypatch.setattr(probability_scores, "grouped_interval", lambda *_: (0.0, 0.0))  # slow, and not tested here
    tables, settings = simulated_study(3), {"cutoffs": [6e19, 2e20], "scenarios": "best case"}
    with pytest.warns(
        bd.ConvergenceWarning, match=r"1 of 2 cutoffs: 2e\+20 FLOPs \(rhat\). These cutoffs are not scored"
    ):
        found = bd.backtest(*tables, **settings)
    good = found["cutoff"].values == 6e19
    np.testing.assert_array_equal(found["scored"], good)
    p, y = found["probability"].sel(noise="run").values[good, 0], found["outcome"].values[good]
    row = bd.backtest_table(found, noise="run").set_index("group")
    assert row.loc["all", "brier"] == pytest.approx(probability_scores.brier(p, y))
    assert row.loc["all", ["forecasts", "unconverged"]].tolist() == [good.sum(), 1]
    assert row.loc["cut-off 2e+20", ["forecasts", "predictions", "unconverged"]].tolist() == [0, 0, 1]
    assert row.loc["cut-off 6e+19", "unconverged"] == 0
    assert found["curve_count"].sel(noise="run").sum() == good.sum()
    with pytest.warns(bd.ConvergenceWarning, match="scored nevertheless"):
        every = bd.backtest(*tables, **settings, include_failed=True)
    assert every["forecasts"].sel(group="all") == found.sizes["forecast"]
    failing.append(6e19)
    with pytest.warns(bd.ConvergenceWarning, match="2 of 2 cutoffs"):
        none = bd.backtest(*tables, **settings)
    assert np.isnan(none["brier"]).all()
    assert bd.plot_backtest(none).axes


# One kind of runs -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone():
    """Backtest of supervised runs alone, with the law that made them."""
    _, runs = simulated_study(3)
    return bd.backtest(supervised=runs, cutoffs=[6e19, 2e20], forecasters=the_published_law), runs


def test_supervised_runs_alone_have_predictions_and_no_pairs(alone):
    found, runs = alone
    (_, own) = pairs.own_costs(pd.DataFrame(), runs, bd.flops_per_token)
    assert not {"forecast", "noise", "bin"} & {*found.dims}
    assert not {"forecasts", "configurations", "base_rate", "outcome"} & {*found.variables}
    assert found["fitted_supervised"].values.tolist() == [(own <= 6e19).sum(), (own <= 2e20).sum()]
    assert not found["fitted_distilled"].any()
    parts = [(runs[own > limit], own[own > limit] / limit) for limit in (6e19, 2e20)]
    left = pd.concat([table for table, _ in parts])
    np.testing.assert_array_equal(found["observed"], left["loss"])
    np.testing.assert_allclose(found["prediction_factor"], np.concatenate([factor for _, factor in parts]))
    assert set(found["kind"].values) == {"supervised"}
    # The predictive distribution of every run is Student-t around the published law, so that its scores are known.
    law = {name: bd.PUBLISHED[name] for name in SUPERVISED_PARAMETERS}
    expected = bd.supervised_loss(left["params"].to_numpy(), left["tokens"].to_numpy(), **law)
    z = (left["loss"].to_numpy() - expected) / 0.01
    one = found.isel(forecaster=0)
    np.testing.assert_allclose(one["predicted"], expected, rtol=1e-12)
    np.testing.assert_allclose(one["elpd"], t(20).logpdf(z) - math.log(0.01), rtol=1e-9)
    np.testing.assert_allclose(one["pit"], t(20).cdf(z), atol=0.05)
    clear = np.abs(np.abs(z) - t(20).ppf(0.95)) > 0.15
    np.testing.assert_array_equal(one["inside_90"][clear], np.abs(z[clear]) < t(20).ppf(0.95))
    grid = np.linspace(-40, 40, 8001)
    distance = t(20).cdf(grid) - (grid >= z[:, None])
    np.testing.assert_allclose(one["crps"], 0.01 * np.trapezoid(distance**2, grid), rtol=0.1)


def test_groups_of_supervised_runs_add_up(alone):
    found, _ = alone
    counts = found["predictions"].to_series()
    assert [name for name in counts.index if "runs" in name or "teacher" in name] == []
    assert counts["all"] == found.sizes["prediction"] == counts[[n for n in counts.index if "times" in n]].sum()
    assert counts["all"] == counts[["cut-off 6e+19", "cut-off 2e+20"]].sum()
    one = found.isel(prediction=found["prediction_cutoff"].values == 2e20).mean("prediction")
    group = found.sel(group="cut-off 2e+20")
    pairs_of_names = (("inside_50", "coverage_50"), ("inside_90", "coverage_90"), ("crps", "mean_crps"))
    for run, whole in (*pairs_of_names, ("elpd", "mean_elpd")):
        np.testing.assert_allclose(group[whole], one[run])


def test_the_positional_call_is_the_same(alone):
    found, runs = alone
    xr.testing.assert_identical(
        found, bd.backtest(None, runs, cutoffs=[6e19, 2e20], forecasters=the_published_law, progress=False)
    )


def test_table_and_figure_of_supervised_runs(alone):
    found, _ = alone
    table = bd.backtest_table(found)
    names = "predictions coverage_50 coverage_90 coverage_90_lower coverage_90_upper rmse mean_crps unconverged"
    assert " ".join(table) == f"group forecaster {names}"
    assert table["predictions"].tolist()[0] == found.sizes["prediction"]
    assert (table["predictions"] > 0).all()
    assert bd.table_text(table)
    assert len(bd.plot_backtest_runs(found).axes) == 2
    with pytest.raises(ParameterError, match=r"no pairs.*bd\.plot_backtest_runs"):
        bd.plot_backtest(found)
    with pytest.raises(ParameterError, match="`noise` must be omitted, because this backtest has no pairs"):
        bd.backtest_table(found, noise="run")


def test_distilled_runs_alone_have_predictions_and_no_pairs():
    distilled, _ = simulated_study(3)
    found = bd.backtest(distilled, cutoffs=[6e19], forecasters=the_published_law)
    own, _ = pairs.own_costs(distilled, pd.DataFrame(), bd.flops_per_token)
    np.testing.assert_array_equal(found["observed"], distilled["student_loss"][own > 6e19])
    assert not found["fitted_supervised"].any()
    assert "forecast" not in found.dims


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            {"scenarios": "best case"},
            "`scenarios` requires pairs .* there are no distilled runs. Pass `distilled`, or omit",
        ),
        ({"teachers": "charged"}, "`teachers` is 'charged', but there are no distilled runs"),
        ({"cutoffs": [1e30]}, "No run is above any cutoff"),
        ({"cutoffs": [1e17]}, "Only 0 supervised runs are below"),
        ({"supervised": None}, "There are no runs. Pass distilled runs, supervised runs, or both"),
    ],
)
def test_unusable_arguments_of_one_kind_are_named(alone, wrong, words):
    with pytest.raises(ParameterError, match=words):
        bd.backtest(**({"supervised": alone[1]} | wrong))


@pytest.mark.slow
def test_the_posterior_of_supervised_runs_alone_is_that_of_a_fit():
    _, runs = simulated_study(3)
    settings = {"law": bd.LAWS["busbridge2025"].with_fixed(gamma=1.0), "seed": 2, "progress": False}
    found = bd.backtest(supervised=runs, cutoffs=[1e20], **settings)
    _, own = pairs.own_costs(pd.DataFrame(), runs, bd.flops_per_token)
    fit = bd.fit(supervised=runs[own <= 1e20].reset_index(drop=True), **settings)
    predicted = bd.predict(fit, runs[own > 1e20].drop(columns="loss"))
    # The priors are centered at the mean of all runs there, and of the fitted runs here.
    difference = found["predicted"].values[:, 0] - predicted["mean"].values
    assert (np.abs(difference) < 0.3 * predicted["sd"].values).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayesdistill.ConvergenceWarning")
def test_intervals_of_supervised_runs_hold_where_the_law_is_true():
    inside = []
    for seed in range(10, 170, 10):
        _, runs = simulated_study(seed)
        settings = {"law": "busbridge2025", "draws": 500, "tune": 700, "seed": seed, "include_failed": True}
        found = bd.backtest(supervised=runs, cutoffs=[6e19], **settings)
        inside.append([float(found[name].mean()) for name in ("inside_50", "inside_90")])
    half, most = np.mean(inside, axis=0)
    error = np.std(inside, axis=0) / math.sqrt(len(inside))
    assert abs(half - 0.5) < 3 * error[0]
    assert abs(most - 0.9) < 3 * error[1] + 0.02


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayesdistill.ConvergenceWarning")
def test_the_posteriors_probabilities_come_true_where_the_law_is_true():
    """Calibrated by construction: pooled over simulated studies slope, coverage and skill are what they promise."""
    p, y, held, shown = [], [], [], 0
    for seed in range(10, 90, 10):
        found = bd.backtest(
            *simulated_study(seed),
            cutoffs=[6e19],
            forecasters=["posterior"],
            law="busbridge2025",
            draws=500,
            tune=700,
            seed=seed,
            include_failed=True,
        )
        p.append(found["probability"].sel(noise="run").values.ravel())
        y.append(found["outcome"].values)
        held.append(found["inside_90"].values.ravel())
        shown += found.sizes["forecast"]
    p, y, held = (np.concatenate(values) for values in (p, y, held))
    assert shown > 500
    assert probability_scores.brier_skill(p, y) > 0.6
    # Of three studies the slope is 1.7, of eight 1.27: pairs share students, and few outcomes are undecided.
    assert 0.7 < probability_scores.calibration_line(p, y)[1] < 1.5
    assert 0.84 < held.mean() < 0.96


# Two fits beside each other ---------------------------------------------------------------------------------------------


def test_compare_fits(published_draw, jittered_draws):
    same = bd.compare_fits(jittered_draws, jittered_draws)
    assert same["probability_first_larger"].values == pytest.approx(0.5)
    assert not same["separated"].any()
    gap = bd.compare_fits(published_draw, published_draw).sel(parameter="gap at r = 1")
    c1, d1, f1 = (bd.PUBLISHED[name] for name in ("c1", "d1", "f1"))
    assert float(gap["first_median"]) == pytest.approx(c1 * f1 * math.log1p(d1 ** (-1 / f1)))
    paper = LAWS["busbridge2025"]
    alone = published_draw[list(SUPERVISED_PARAMETERS)]
    with pytest.raises(ModelError, match=r"no A_S, .*which the law 'busbridge2025' has"):
        bd.compare_fits(alone, published_draw)
    alone.attrs["law"] = paper.for_runs(distilled=False, supervised=True).to_json()
    assert "c0" not in bd.compare_fits(alone, published_draw)["parameter"].values
    # What two laws have in common is compared.
    without = published_draw.assign_attrs(law=paper.without_terms("capacity_gap").to_json())
    common = set(bd.compare_fits(without, published_draw)["parameter"].values)
    assert {"c0", "alpha_S gamma_S"} <= common
    assert not {"c1", "d1", "f1", "gap at r = 1"} & common
