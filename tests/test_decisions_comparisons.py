"""Crossovers of several posteriors side by side, how far from the runs they lie, and the table and plot of both."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from decision_cases import posterior_of, simple, simple_crossover

from bayesdistill.compute import flops_per_token
from bayesdistill.decisions import compare_crossovers, crossovers
from bayesdistill.errors import ConvergenceWarning
from bayesdistill.plots import plot_crossover
from bayesdistill.tables import decision_table, table_text

STUDENTS = [3e8, 1e9, 3e9]
BUDGETS = [1e16, 1e30]
CROSSING = {"B_S": np.array([250.0, 300.0, 350.0]), "A_S": np.array([430.0, 450.0, 470.0])}


@pytest.fixture(scope="module")
def compared() -> xr.Dataset:
    """One fit whose draws all cross, one in which two of three do, one in which none does."""
    fits = {
        "all": simple(3, **CROSSING),
        "some": simple(3, B_S=300.0, A_S=[450.0, 450.0, 200.0]),
        "none": simple(3, B_S=300.0, A_S=200.0),
    }
    return compare_crossovers({k: posterior_of(v) for k, v in fits.items()}, STUDENTS, "best case", budgets=BUDGETS)


def test_the_range_is_how_far_the_answer_moves(compared):
    np.testing.assert_allclose(compared["pretraining_ahead_range"], 1.0)
    np.testing.assert_allclose(compared["eventually_range"], 1.0)
    two = compare_crossovers(
        {
            "all": posterior_of(simple(3, **CROSSING)),
            "some": posterior_of(simple(3, B_S=300.0, A_S=[450.0, 450.0, 200.0])),
        },
        STUDENTS,
        "best case",
        budgets=BUDGETS,
    )
    np.testing.assert_allclose(two["pretraining_ahead_range"], 1 / 3)
    same = posterior_of(simple(3, **CROSSING))
    assert (
        compare_crossovers({"a": same, "b": same}, 1e9, "best case", budgets=BUDGETS)["eventually_range"] == 0
    ).all()


def test_a_comparison_is_as_converged_as_its_worst_fit(compared):
    assert compared.attrs["converged"] == "unknown"


def test_one_fit_that_did_not_converge_spoils_the_comparison():
    bare = posterior_of(simple(3, **CROSSING))
    tree = xr.DataTree.from_dict({"posterior": bare})
    with pytest.warns(ConvergenceWarning):
        both = compare_crossovers(
            {"bare": bare, "tree": tree}, 1e9, "best case", budgets=BUDGETS, allow_unconverged=True
        )
    assert both.attrs["converged"] == "no"


def test_the_table_has_a_row_for_each_fit_and_the_growth_of_the_crossover(compared):
    table = decision_table(compared)
    assert table[["fit", "student"]].values.tolist() == [[f, s] for f in ("all", "some", "none") for s in STUDENTS]
    assert table["crossed"].tolist() == pytest.approx([1.0] * 3 + [2 / 3] * 3 + [0.0] * 3)
    # The closed form of the crossover of each draw, and its power by least squares.
    size = np.log(STUDENTS) - np.log(STUDENTS).mean()
    pairs = zip(CROSSING["B_S"], CROSSING["A_S"], strict=True)
    slopes = [size @ [np.log(simple_crossover(s, b, a)) for s in STUDENTS] / (size @ size) for b, a in pairs]
    assert table["slope_median"].tolist()[:3] == pytest.approx([np.median(slopes)] * 3, rel=1e-4)
    assert table["slope_probability"].tolist() == pytest.approx([1.0] * 3 + [2 / 3] * 3 + [0.0] * 3)
    assert "all" in table_text(table)
    assert decision_table(compared.sel(fit="all", drop=True)).shape[0] == 3


def test_how_far_the_crossover_lies_is_summarised_over_the_draws_that_cross():
    seen = xr.Dataset(
        {
            "student_params": ("run", [1e8, 1e9]),
            "student_tokens": ("run", [2e9, 1.6e11]),
            "teacher_loss": ("run", [1.5, 2.9]),
            # Supervised runs of all kinds, so that only the student is outside.
            "params": ("supervised_run", [1e6, 1e13]),
            "tokens": ("supervised_run", [1e4, 1e20]),
        }
    )
    draws = simple(3, B_S=[250.0, 300.0, 300.0], A_S=[430.0, 450.0, 200.0])
    tree = xr.DataTree.from_dict({"posterior": posterior_of(draws), "constant_data": seen})
    # Three draws are no chains, so that their convergence means nothing here.
    with pytest.warns(ConvergenceWarning):
        found = crossovers(tree, 1e9, "best case", budgets=BUDGETS, allow_unconverged=True)
    tokens = [simple_crossover(1e9, b, a) / (3 * flops_per_token(1e9)) for b, a in ((250.0, 430.0), (300.0, 450.0))]
    factors = sorted(max(1.0, t / 1e9 / 160, 20 / (t / 1e9)) for t in tokens)
    got = found["crossover_extrapolation_quantile"].sel(quantile=[0.05, 0.95]).values.ravel()
    np.testing.assert_allclose(got, factors, rtol=1e-4)
    assert decision_table(found)["crossover_extrapolation_upper"].item() == pytest.approx(factors[1], rel=1e-4)
    none = crossovers(posterior_of(simple(3, B_S=300.0, A_S=200.0)), 1e9, "best case", budgets=BUDGETS)
    assert np.isnan(none["crossover_extrapolation_quantile"]).all()


def test_the_plot_has_a_panel_for_each_fit(compared):
    figure = plot_crossover(compared)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert [t for t in titles if t] == [f"{fit}: best case" for fit in ("all", "some", "none")]
