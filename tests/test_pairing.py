"""Results are paired with their fit by the identity of the posterior and by the labels of the draws."""

from __future__ import annotations

import json
import time
from functools import partial

import changed_files
import numpy as np
import pytest
import xarray as xr

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.reporting import _report, report_files

ATTRIBUTE = posterior.IDENTITY_ATTRIBUTE
pytestmark = pytest.mark.filterwarnings("ignore::bayesdistill.ConvergenceWarning")


@pytest.fixture(scope="module")
def draws(jittered_draws) -> xr.Dataset:
    return jittered_draws.isel(draw=slice(0, 50))


@pytest.fixture(scope="module")
def plan(draws) -> xr.Dataset:
    return bd.plan(draws, "1B", [1e20, 1e22], "best case", progress=False)


@pytest.fixture(scope="module")
def fit() -> xr.DataTree:
    """A small fit with all of its groups."""
    return changed_files.small_fit()


@pytest.fixture(scope="module")
def fit_plan(fit) -> xr.Dataset:
    return bd.plan(fit, "1B", [1e20, 1e22], "best case", allow_unconverged=True, progress=False)


@pytest.fixture(scope="module")
def other_fit(fit) -> xr.DataTree:
    """The same fit with draws that differ by 1e-12."""
    other = fit.copy()
    own = fit["posterior"].to_dataset()
    other["posterior"] = xr.DataTree(own.assign(E=own["E"] * (1 + 1e-12)))
    return other


def shuffled(plan: xr.Dataset) -> xr.Dataset:
    rng = np.random.default_rng(0)
    return plan.isel(draw=rng.permutation(plan.sizes["draw"]), chain=np.roll(range(plan.sizes["chain"]), 1))


def test_the_identity_depends_on_law_draws_and_labels_alone(draws):
    own = posterior.identity(draws)
    assert own == posterior.identity(draws.copy(deep=True).assign_attrs(note="x"))
    assert own == posterior.identity(draws.transpose("draw", "chain"))
    changes = [
        draws.assign(E=draws["E"] * (1 + 1e-15)),
        draws.assign(sigma=draws["sigma"] * (1 + 1e-12)),
        draws.isel(draw=slice(None, None, 2)),
        draws.isel(draw=slice(None, None, -1)),
        draws.assign_coords(draw=draws["draw"] + 1),
        draws.assign_attrs(law=bd.LAWS["busbridge2025"].with_effects("teacher").to_json()),
    ]
    assert len({own, *map(posterior.identity, changes)}) == len(changes) + 1


def test_the_identity_costs_little(draws):
    wide = xr.concat([draws.assign_coords(draw=draws["draw"] + 50 * k) for k in range(20)], "draw")  # 4,000 draws
    durations = []
    for _ in range(5):
        start = time.perf_counter()
        posterior.identity(wide)
        durations.append(time.perf_counter() - start)
    assert min(durations) < 0.05


def test_every_result_names_its_posterior(draws, plan, fit):
    runs = bd.load_runs("busbridge2025").iloc[:3]
    results = [plan, bd.crossovers(draws, "1B", "best case", budgets=[1e20, 1e24]), bd.predict(draws, runs)]
    assert {found.attrs[ATTRIBUTE] for found in results} == {posterior.identity(draws)}
    for found in (bd.law_curves(fit, points=5), bd.loo(fit)):
        assert found.attrs[ATTRIBUTE] == posterior.identity(fit)


def test_the_identity_survives_files(fit, fit_plan, tmp_path):
    bd.save(fit, tmp_path / "fit.nc")
    bd.save(fit_plan, tmp_path / "plan.nc")
    again, planned = bd.load(tmp_path / "fit.nc"), bd.load(tmp_path / "plan.nc")
    assert posterior.identity(again) == posterior.identity(fit) == planned.attrs[ATTRIBUTE]


@pytest.mark.parametrize("change", [shuffled, lambda plan: plan.isel(draw=slice(3, None, 4))])
def test_draws_are_matched_by_their_labels(draws, plan, change):
    changed = change(plan)
    kept = {"chain": np.sort(changed["chain"].values), "draw": np.sort(changed["draw"].values)}
    value, again = bd.plan_value(draws, plan), bd.plan_value(draws, changed)
    xr.testing.assert_identical(again["equivalent_budget"], value["equivalent_budget"].sel(kept))
    whole = plan.sel(kept)
    xr.testing.assert_identical(bd.evppi(draws, changed), bd.evppi(draws, whole))
    quantities = {"E": draws["E"]}
    named = bd.evppi(draws, changed, {"E": shuffled(draws)["E"]})
    np.testing.assert_array_equal(named["evppi"], bd.evppi(draws, whole, quantities)["evppi"])


def test_wrong_labels_are_rejected(draws, plan):
    thinned = plan.isel(draw=slice(None, None, 2))
    wrong = [
        thinned.assign_coords(draw=np.arange(25)),
        plan.assign_coords(draw=np.arange(50)[::-1]),
        plan.assign_coords(draw=plan["draw"].astype(str)),
        plan.isel(draw=[0, 0, 1]),
    ]
    for one in wrong:
        with pytest.raises(bd.ParameterError, match="or its labels were changed"):
            bd.evppi(draws, one)
    named = plan.assign_coords(student=["ours"])
    np.testing.assert_array_equal(bd.evppi(draws, named)["evppi"], bd.evppi(draws, plan)["evppi"])


def test_sensitivities_require_the_dimensions_of_a_plan(fit, fit_plan):
    with pytest.raises(bd.ParameterError, match="must have the dimensions student, scenario, budget, chain and draw"):
        bd.prior_sensitivity(fit, fit_plan.isel(student=0))


def test_sensitivities_do_not_depend_on_the_order_of_draws(fit, fit_plan):
    straight, mixed = (bd.prior_sensitivity(fit, one) for one in (fit_plan, shuffled(fit_plan)))
    np.testing.assert_allclose(mixed["sensitivity"], straight["sensitivity"], rtol=1e-9)
    xr.testing.assert_identical(_report._checked_plan(fit, shuffled(fit_plan)), fit_plan)


def test_another_posterior_is_rejected_everywhere(fit, other_fit, fit_plan, draws, plan):
    unconverged = [partial(call, allow_unconverged=True) for call in (bd.plan_value, bd.evppi)]
    for call in (bd.prior_sensitivity, *unconverged, report_files):
        with pytest.raises(
            bd.ParameterError, match=r"The plan was computed from another posterior.*Recompute the plan"
        ):
            call(other_fit, fit_plan)
    with pytest.raises(bd.ParameterError, match="result of law_curves was computed from another posterior"):
        report_files(other_fit, curves=bd.law_curves(fit, points=5))
    thinned = draws.isel(draw=slice(None, None, 2))
    for one, result in ((thinned, plan), (draws, bd.plan(thinned, "1B", 1e20, "best case"))):
        with pytest.raises(bd.ParameterError, match="or draws were selected"):
            bd.evppi(one, result)


def test_draws_without_labels_are_rejected(draws, plan):
    with pytest.raises(bd.ParameterError, match="no labels 'draw'"):
        bd.evppi(draws, plan.drop_vars("draw"))


def test_results_of_earlier_versions_are_compared_by_provenance_and_losses(fit, other_fit, fit_plan, draws, plan):
    def earlier(result: xr.Dataset) -> xr.Dataset:
        return result.drop_attrs(deep=False).assign_attrs({k: v for k, v in result.attrs.items() if k != ATTRIBUTE})

    xr.testing.assert_equal(bd.evppi(draws, earlier(plan)), bd.evppi(draws, plan))
    bd.prior_sensitivity(fit, earlier(fit_plan))
    moved = draws.assign(E=draws["E"] + 0.01)
    with pytest.raises(bd.ParameterError, match="another posterior"):
        bd.evppi(moved, earlier(plan))
    foreign = earlier(fit_plan).assign_attrs(posterior_provenance=json.dumps({"seed": 99}))
    with pytest.raises(bd.ParameterError, match="another posterior"):
        bd.prior_sensitivity(fit, foreign)
