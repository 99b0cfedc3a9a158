from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from decision_cases import assert_agree, draws_of, posterior_of, published, scattered, simple
from scipy.optimize import brentq

from bayesdistill import strategies
from bayesdistill.compute import Scenario
from bayesdistill.decisions import break_even, flag_names, plan, sharing_map
from bayesdistill.errors import ConvergenceWarning, ParameterError
from bayesdistill.strategies import Bounds, Problem


def best_at(draws, student, budget, number):
    """Advantage and student tokens of the best strategy, teacher inference charged, straight from the kernels."""
    draws = draws_of(draws)
    got = strategies.perfect_information_strategies(draws, Problem([student], [budget], Scenario(1, 1 / number)))
    alone = strategies.supervised_losses(draws, Problem([student], [budget], ()))[0, 0, 0]
    return alone - got["loss"].item(), got["student_tokens"].item()


SHARED = {name: values[[1, 3, 4]] for name, values in scattered(6, seed=1).items()}
STUDENT, BUDGETS = 3e9, [1e20, 1e22]


@pytest.fixture(scope="module")
def found() -> xr.Dataset:
    return break_even(posterior_of(SHARED), STUDENT, BUDGETS)


def test_break_even_is_the_root_of_the_advantage(found):
    checked = 0
    for budget in BUDGETS:
        cell = found.sel(student=STUDENT, budget=budget).isel(chain=0)
        for draw in range(3):
            one = {k: v[draw : draw + 1] for k, v in SHARED.items()}
            name = flag_names(cell["break_even_status"]).values[draw]
            number = cell["students_per_teacher"].values[draw]

            def gap(log_number, one=one, budget=budget):
                return best_at(one, STUDENT, budget, np.exp(log_number))[0]

            if name == "shared":
                assert number == pytest.approx(np.exp(brentq(gap, 0, np.log(1e6), xtol=1e-8)), rel=1e-4)
                checked += 1
            else:
                assert name == "never"
                assert number == np.inf
                assert gap(np.log(1e6)) < 0
    assert checked == 4


def test_served_tokens_divide_the_cost_as_k_students_do(found):
    cell = found.sel(student=STUDENT).isel(chain=0)
    shared = flag_names(cell["break_even_status"]).values == "shared"
    for budget in range(2):
        for draw in np.flatnonzero(shared[budget]):
            number = cell["students_per_teacher"].values[budget, draw]
            one = {k: v[draw : draw + 1] for k, v in SHARED.items()}
            _, own = best_at(one, STUDENT, BUDGETS[budget], number)
            served = cell["served_tokens"].values[budget, draw]
            # A flat optimum: tokens are known less well than the loss.
            assert own / (own + served) == pytest.approx(1 / number, rel=0.01)


@pytest.mark.parametrize(("lgt", "cap"), [(0.3, np.inf), (0.0, np.inf), (1.0, 6e10)])
def test_break_even_knows_the_share_of_inference_and_the_cap(lgt, cap):
    options = {"delta_lgt": lgt} | ({} if np.isinf(cap) else {"max_student_tokens": cap})
    draws = {name: values[[1, 4]] for name, values in scattered(6, seed=1).items()}
    cell = break_even(posterior_of(draws), 1e9, 1e21, **options).isel(student=0, budget=0, chain=0)
    bounds = Bounds(max_student_tokens=cap)
    alone = strategies.supervised_losses(draws_of(draws), Problem([1e9], [1e21], (), bounds))[0, 0]
    shared = flag_names(cell["break_even_status"]).values == "shared"
    assert shared.any()
    for draw in np.flatnonzero(shared):
        one = draws_of(draws).take([draw])

        def gap(log_number, one=one, draw=draw):
            shared = Problem([1e9], [1e21], Scenario(lgt, 1 / np.exp(log_number)), bounds)
            return alone[draw] - strategies.perfect_information_strategies(one, shared)["loss"].item()

        number = cell["students_per_teacher"].values[draw]
        assert number == pytest.approx(np.exp(brentq(gap, 0, np.log(1e6), xtol=1e-8)), rel=1e-4)


def test_statuses_of_clear_cases():
    draws = simple(3, A_S=[10.0, 600.0, 300.0], B_S=[10.0, 1500.0, 1001.0])
    got = break_even(posterior_of(draws), 1e9, [1e7, 1e21])
    names = flag_names(got["break_even_status"])
    assert set(names.sel(budget=1e7).values.ravel()) == {"impossible"}
    assert names.sel(budget=1e21).values.ravel()[:2].tolist() == ["alone", "never"]
    assert got["students_per_teacher"].sel(budget=1e21).values.ravel()[:2].tolist() == [1, np.inf]
    assert got["served_tokens"].sel(budget=1e21).values.ravel()[:2].tolist() == [0, np.inf]
    assert np.isnan(got["students_per_teacher"].sel(budget=1e7)).all()
    assert np.isnan(got["pays_probability"].sel(budget=1e7)).all()
    assert got["status_probability"].sel(budget=1e7, outcome="impossible").item() == 1


def test_a_search_that_ends_too_early_says_so(found):
    short = break_even(posterior_of(SHARED), STUDENT, BUDGETS, max_students_per_teacher=1.5)
    long_names, short_names = flag_names(found["break_even_status"]), flag_names(short["break_even_status"])
    late = (long_names == "shared") & (found["students_per_teacher"] > 1.5)
    assert late.any()
    assert (short_names.where(late, "beyond") == "beyond").all()


def test_pays_probability_is_the_distribution_of_the_break_even_number():
    draws = scattered(40, seed=1)
    got = break_even(posterior_of(draws, chains=2), [1e9], [1e20])
    number = got["students_per_teacher"].values.ravel()
    for k, share in zip(got["shared_by"].values, got["pays_probability"].values.ravel(), strict=True):
        assert share == np.mean(number <= k * (1 + 1e-9))
    assert (np.diff(got["pays_probability"].values) >= 0).all()
    mid = got["students_per_teacher_quantile"].sel(quantile=0.5).item()
    assert mid == np.sort(number)[19]
    assert got["status_probability"].sum("outcome").item() == pytest.approx(1)


SEEN = xr.Dataset(
    {
        "student_params": ("run", [1e8, 1e10]),
        "student_tokens": ("run", [2e9, 1e12]),
        "teacher_loss": ("run", [1.9, 2.8]),
    }
)


def test_what_lies_outside_the_runs_is_flagged_as_in_the_map():
    """With a single draw the best strategy is the committed one, so that both must say the same."""
    fit = xr.DataTree.from_dict({"posterior": posterior_of(published(4), 2), "constant_data": SEEN})
    budgets = [1e19, 1e20, 1e21, 1e23]
    got = break_even(fit, [3e8, 1e9], budgets, max_students_per_teacher=100)
    mapped = sharing_map(fit, [3e8, 1e9], budgets, got["shared_by"].values)
    flags = mapped["extrapolates"].rename(students_per_teacher="shared_by").transpose(*got["pays_extrapolates"].dims)
    np.testing.assert_array_equal(got["pays_extrapolates"], flags)
    assert flags.any()
    assert not flags.all()
    factor = mapped["extrapolation_factor"].max("axis").rename(students_per_teacher="shared_by")
    paying = (flag_names(got["break_even_status"]) == "shared").isel(chain=0, draw=0)
    first = got["pays_probability"].argmax("shared_by")
    at = factor.isel(shared_by=first).transpose("student", "budget").values
    here = got["extrapolation_factor"].isel(chain=0, draw=0).transpose("student", "budget").values
    assert paying.any()
    np.testing.assert_allclose(here[paying.values], at[paying.values], rtol=0.02)
    np.testing.assert_array_equal(got["extrapolates"], here != 1)


def test_the_flag_is_that_of_the_median_draw_and_of_capped_tokens():
    seen = SEEN.assign(teacher_loss=("run", [1.0, 9.0]))
    # Supervised runs of all kinds, so that only students and teachers' losses are outside.
    seen = seen.assign(params=("supervised_run", [1e6, 1e13]), tokens=("supervised_run", [1e4, 1e20]))
    # In one of four draws distilling pays for nobody, because its teachers are so bad: far outside, but not typical.
    draws = simple(4, A_S=10.0, B_S=500.0)
    draws["E"] = np.array([1.5, 1.5, 1.5, 30.0])
    tree = xr.DataTree.from_dict({"posterior": posterior_of(draws), "constant_data": seen})
    with pytest.warns(ConvergenceWarning):
        found = break_even(tree, 1e9, 1e24, max_student_tokens=5e10, max_extrapolation=None, allow_unconverged=True)
    # The budget would buy 300,000 tokens a parameter; the cap leaves 50, which runs have seen.
    assert found["extrapolation_factor"].values.ravel()[:3].tolist() == [1.0, 1.0, 1.0]
    assert found["extrapolation_factor"].values.ravel()[3] > 3
    assert not found["extrapolates"].any()
    assert not found["pays_extrapolates"].any()


def test_unknown_ranges_raise_the_flag_and_impossible_cells_do_not(found):
    assert found["extrapolates"].all()
    tiny = break_even(posterior_of(published(2)), 1e9, 1e7)
    assert not tiny["extrapolates"].any()
    assert not tiny["pays_extrapolates"].any()
    assert np.isnan(tiny["extrapolation_factor"]).all()


def test_the_map_is_the_plan_with_shares():
    fit = posterior_of(scattered(10), chains=2)
    mapped = sharing_map(fit, ["300M", "2B"], [1e20, 1e21], [1, 7.5, 100])
    direct = plan(fit, ["300M", "2B"], [1e20, 1e21], [Scenario(1, 1 / k, str(k)) for k in (1, 7.5, 100)])
    for name in ("probability", "distilled_loss", "regret", "teacher_params", "crossover"):
        np.testing.assert_array_equal(mapped[name], direct[name], err_msg=name)
    assert mapped["students_per_teacher"].values.tolist() == [1, 7.5, 100]
    np.testing.assert_allclose(mapped["delta_pre"], [1, 1 / 7.5, 0.01])
    assert mapped.attrs["delta_lgt"] == 1
    # Sharing among more students never makes the best loss worse.
    assert (mapped["best_distilled_loss"].diff("students_per_teacher") <= 1e-9).all()


def test_run_noise_is_that_of_the_plan():
    n = 500
    noisy = simple(n, A_S=10.0, B_S=600.0) | {"sigma": np.full(n, 0.5), "nu": np.full(n, 5.0)}
    fit = posterior_of(noisy, 2)
    mapped = sharing_map(fit, 1e9, 1e22, 4, noise="run", seed=4)
    direct = plan(fit, 1e9, 1e22, Scenario(1, 0.25), noise="run", seed=4)
    for name in ("advantage", "probability", "expected_gain"):
        np.testing.assert_array_equal(mapped[name], direct[name], err_msg=name)
    assert 0 < mapped["probability"].item() < 1
    assert mapped.attrs["noise_seed"] == 4


def test_labels_files_and_cells_on_an_executor(found, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    mapped = sharing_map(posterior_of(published()), "1B", 1e21, [1, 10])
    for number, dataset in enumerate((found, mapped)):
        for name, variable in dataset.variables.items():
            assert variable.attrs["units"], name
            assert variable.attrs["long_name"], name
        dataset.to_netcdf(tmp_path / f"{number}.nc", engine="h5netcdf")
        with xr.open_dataset(tmp_path / f"{number}.nc", engine="h5netcdf") as loaded:
            assert loaded.load().identical(dataset)
    with ThreadPoolExecutor(2) as pool:
        assert_agree(break_even(posterior_of(SHARED), STUDENT, BUDGETS, executor=pool), found)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (sharing_map, {"students_per_teacher": 0.5}, "students_per_teacher"),
        (sharing_map, {"students_per_teacher": [2, 2]}, "students_per_teacher.*once"),
        (sharing_map, {"students_per_teacher": 2, "delta_lgt": 1.5}, "delta_lgt"),
        (break_even, {"max_students_per_teacher": 1}, "max_students_per_teacher"),
        (break_even, {"delta_lgt": -1}, "delta_lgt"),
    ],
)
def test_unusable_arguments_are_named(function, arguments, message):
    with pytest.raises(ParameterError, match=message):
        function(posterior_of(published()), 1e9, 1e20, **arguments)
