from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from decision_cases import posterior_of, scattered, simple, simple_crossover, simple_teacher
from scipy.optimize import brentq

from bayesdistill.compute import flops_per_token
from bayesdistill.decisions import compare_crossovers, crossovers, flag_names, plan
from bayesdistill.errors import ConvergenceWarning, ParameterError

STUDENTS = np.array([5e8, 1e9, 2e9])


@pytest.fixture(scope="module")
def found() -> xr.Dataset:
    # Two draws with a crossover for every student, one in which pretraining is always worse, one in which it always wins.
    return crossovers(
        posterior_of(simple(4, B_S=[300.0, 600.0, 500.0, 1500.0], A_S=[450.0, 430.0, 200.0, 430.0])),
        STUDENTS,
        "best case",
        budgets=np.geomspace(1e16, 1e30, 29),
    )


def test_crossovers_and_slope_are_the_closed_form(found):
    for draw, (B_S, A_S) in enumerate([(300.0, 450.0), (600.0, 430.0)]):
        expected = np.array([simple_crossover(s, B_S, A_S) for s in STUDENTS])
        np.testing.assert_allclose(found["crossover"].values[:, 0, 0, draw], expected, rtol=1e-5)
        slope = np.polyfit(np.log(STUDENTS), np.log(expected), 1)[0]
        assert found["slope"].values[0, 0, draw] == pytest.approx(slope, rel=1e-5)
    assert np.isnan(found["slope"].values[0, 0, 2:]).all()
    assert found["slope_probability"].item() == 0.5
    assert found["slope_positive_probability"].item() == np.mean(found["slope"].values[0, 0, :2] > 0)


def test_every_draw_is_counted_once(found):
    assert flag_names(found["crossover_status"]).values[1, 0, 0].tolist() == ["crossed", "crossed", "always", "never"]
    shares = found["status_probability"].sel(student=1e9, scenario="best case")
    assert shares.sel(outcome="crossed") == 0.5
    assert shares.sel(outcome="always") == 0.25
    assert shares.sel(outcome="never") == 0.25
    assert (found["status_probability"].sum("outcome") == 1).all()
    assert (found["pretraining_ahead_probability"] == 0.75).all()


def test_quantiles_carry_the_mass_without_a_crossover(found):
    quantile = found["crossover_quantile"].sel(student=1e9, scenario="best case")
    two = np.sort(found["crossover"].values[1, 0, 0, :2])
    assert quantile.sel(quantile=0.05) == 0
    assert quantile.sel(quantile=0.5) == two[0]
    assert quantile.sel(quantile=0.75) == two[1]
    assert quantile.sel(quantile=0.95) == np.inf


def test_a_lead_that_comes_late_counts_as_no_crossover():
    # Pretraining is ahead on few tokens and distillation on many: reversed, which no budget turns round.
    late = crossovers(
        posterior_of(simple(4, B_S=[1500.0, 1500.0, 300.0, 1500.0], A_S=[200.0, 200.0, 450.0, 600.0])),
        1e9, "best case", budgets=np.geomspace(1e16, 1e30, 15),
    )  # fmt: skip
    assert flag_names(late["crossover_status"]).values.ravel().tolist() == ["reversed", "reversed", "crossed", "never"]
    assert late["crossover_quantile"].sel(quantile=[0.05, 0.75, 0.95]).values.ravel().tolist() == [0, np.inf, np.inf]
    assert late["crossover_quantile"].sel(quantile=0.5).item() == late["crossover"].values.ravel()[2]
    assert late["pretraining_ahead_probability"].item() == 0.5


def test_the_asymptote_is_the_law_without_limit(found):
    for i, student in enumerate(STUDENTS):
        expected = 1.5 + 300 * student**-0.3 - simple_teacher() - np.array([450, 430, 200, 430]) * student**-0.3
        np.testing.assert_allclose(found["asymptotic_advantage"].values[i, 0], expected, atol=1e-7)
        assert found["eventually_probability"].values[i] == np.mean(expected < 0)


def test_a_cap_on_tokens_bounds_the_asymptote():
    capped = crossovers(posterior_of(simple()), 1e9, "best case", budgets=[1e18, 1e22], max_student_tokens=1e11)
    alone = 1.5 + 300 * 1e9**-0.3 + 1000 * 1e11**-0.35
    distilled = simple_teacher() + 400 * 1e9**-0.3 + 500 * 1e11**-0.35
    assert capped["asymptotic_advantage"].item() == pytest.approx(alone - distilled, abs=1e-7)


def test_committed_crossovers_are_the_closed_form_whatever_the_grid():
    draws = simple(2, B_S=[300.0, 600.0], A_S=[450.0, 430.0])
    # The strongest teacher is the best in every draw, so that committed and best are one.
    expected = [simple_crossover(1e9, b, a) for b, a in zip(draws["B_S"], draws["A_S"], strict=True)]
    for points in (2, 3, 15):
        budgets = np.geomspace(1e17, 1e24, points)
        committed = crossovers(posterior_of(draws), 1e9, "best case", budgets=budgets, strategy="committed")
        np.testing.assert_allclose(committed["crossover"].values.ravel(), expected, rtol=1e-4)
    assert committed.attrs["strategy"] == "committed"


@pytest.mark.parametrize("scenario", ["best case", "teacher inference"])
def test_at_a_committed_crossover_the_committed_plan_has_no_advantage(scenario):
    fit = posterior_of(scattered(8))
    found = crossovers(fit, 1e9, scenario, budgets=np.geomspace(1e19, 1e27, 9), strategy="committed")
    crossover = found["crossover"].values.ravel()
    crossed = np.flatnonzero(np.isfinite(crossover))
    assert crossed.size >= 3
    for draw in crossed:
        # Committed to one strategy at that budget, the draw is indifferent, and on either side of it it is not.
        at = crossover[draw] * np.array([0.99, 1.0, 1.01])
        advantage = plan(fit, 1e9, at, scenario)["advantage"].values[0, 0, :, 0, draw]
        assert abs(advantage[1]) < 3e-6
        assert advantage[0] > 1e-5
        assert advantage[2] < -1e-5


def test_extrapolation_is_measured_at_the_crossover():
    seen = xr.Dataset(
        {
            "student_params": ("run", [1e8, 1e9]),
            "student_tokens": ("run", [2e9, 1.6e11]),
            "teacher_loss": ("run", [1.5, 2.9]),
        }
    )
    draws = simple(B_S=300.0, A_S=450.0)
    tree = xr.DataTree.from_dict({"posterior": posterior_of(draws), "constant_data": seen})
    found = crossovers(tree, 1e9, "best case", budgets=[1e17, 1e24], max_teacher_params=1e12, max_teacher_tokens=2e13,
                       max_extrapolation=None)  # fmt: skip
    tokens = simple_crossover(1e9, 300.0, 450.0) / (3 * flops_per_token(1e9))
    # The best teacher of these draws is the largest; the supervised law is that of models of at most 12.6B.
    expected = max(1.0, tokens / 1e9 / 160, 20 / (tokens / 1e9), 1e12 / 12.6e9)
    assert flag_names(found["crossover_extrapolation_axis"]).item() == "teacher_params"
    assert found["crossover_extrapolation"].item() == pytest.approx(expected, rel=1e-5)
    assert found["crossed_within_data_probability"].item() == float(expected == 1)
    assert found["seen_budget"].values[0].tolist() == pytest.approx(
        [3 * flops_per_token(1e9) * 1e9 * r for r in (10, 160)]
    )


def size_with(loss, draws):
    """The size that has a loss on 20 tokens per parameter, by the mean of the draws' supervised laws."""

    def excess(log_size):
        size = np.exp(log_size)
        terms = draws["A"] * size ** -draws["alpha"] + draws["B"] * (20 * size) ** -draws["beta"]
        return (draws["E"] + terms ** draws["gamma"]).mean() - loss

    return np.exp(brentq(excess, np.log(1e2), np.log(1e25)))


@pytest.mark.parametrize("copies", [1, 12])  # 8 draws cross at budgets of their own, 96 at more than are solved
def test_extrapolation_at_a_committed_crossover_is_that_of_the_committed_strategy(copies):
    draws = {name: np.repeat(values, copies) for name, values in scattered(8).items()}
    if copies > 1:
        draws["E"] = draws["E"] * (1 + 1e-4 * np.random.default_rng(1).standard_normal(8 * copies))
    narrow = xr.Dataset(
        {
            "student_params": ("run", [5e8, 2e9]),
            "student_tokens": ("run", [2e11, 9e11]),  # 400 to 450 tokens a parameter
            "teacher_loss": ("run", [1.95, 1.96]),
            # Supervised runs of all kinds, so that it is the strategy that lies outside.
            "params": ("supervised_run", [1e6, 1e12]),
            "tokens": ("supervised_run", [1e6, 1e22]),
        }
    )
    tree = xr.DataTree.from_dict({"posterior": posterior_of(draws), "constant_data": narrow})
    with pytest.warns(ConvergenceWarning):
        found = crossovers(
            tree, 1e9, "teacher inference", budgets=np.geomspace(1e19, 1e27, 9), strategy="committed",
            allow_unconverged=True, max_extrapolation=None,
        )  # fmt: skip
    crossover = found["crossover"].values.ravel()
    crossed = np.flatnonzero(np.isfinite(crossover))
    assert crossed.size >= 3 * copies
    some = crossed[:: max(1, crossed.size // 5)]
    made = plan(posterior_of(draws), 1e9, crossover[some], "teacher inference").isel(student=0, scenario=0, chain=0)
    for draw in some:
        cell = made.sel(budget=crossover[draw])
        own, teacher = cell["student_tokens"].item() / 1e9, cell["teacher_loss"].values[draw]
        weakest, strongest, size = (size_with(loss, draws) for loss in (1.96, 1.95, teacher))
        wanted = max(own / 450, 400 / own, size / strongest, weakest / size, 1.0)
        assert found["crossover_extrapolation"].values.ravel()[draw] == pytest.approx(wanted, rel=1e-3)


def test_posteriors_are_compared_side_by_side(found):
    near = posterior_of(simple(2, B_S=300.0, A_S=450.0))
    far = posterior_of(simple(3, B_S=300.0, A_S=200.0))
    both = compare_crossovers({"near": near, "far": far}, STUDENTS, "best case", budgets=[1e16, 1e30])
    assert both["status_probability"].dims == ("fit", "student", "scenario", "outcome")
    assert (both["status_probability"].sel(fit="near", outcome="crossed") == 1).all()
    assert (both["status_probability"].sel(fit="far", outcome="always") == 1).all()
    assert both["eventually_probability"].sel(fit="near").values.tolist() == [1.0] * 3
    assert "draw" not in both.dims
    for name, variable in both.variables.items():
        assert variable.attrs["units"], name
        assert variable.attrs["long_name"], name


def test_results_survive_a_file(found, tmp_path):
    found.to_netcdf(tmp_path / "crossovers.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "crossovers.nc", engine="h5netcdf") as loaded:
        assert loaded.load().identical(found)


def test_a_range_is_needed():
    with pytest.raises(ParameterError, match=r"budgets.*two"):
        crossovers(posterior_of(simple()), 1e9, "best case", budgets=1e20)
    with pytest.raises(ParameterError, match="strategy"):
        crossovers(posterior_of(simple()), 1e9, "best case", strategy="lucky")
    with pytest.raises(ParameterError, match="fits"):
        compare_crossovers({}, 1e9, "best case")
