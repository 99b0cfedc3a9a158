"""The distillation law's elasticities at another place: the same law, the same volume, and the place that suits the runs."""

from __future__ import annotations

from dataclasses import replace

import arviz as az
import numpy as np
import pytest

import bayesdistill as bd
from bayesdistill import coordinate_transform, laws, posterior
from bayesdistill import model as model_module
from bayesdistill.coordinate_transform import sampled_coordinates
from bayesdistill.linearised import best_point, covariance
from bayesdistill.model import reference_run
from bayesdistill.priors import ASYMPTOTIC_SIZES, Prior, Reference, default_priors, with_priors
from bayesdistill.priors.coordinates import (
    DISTILLATION_COORDINATES,
    distillation_coordinates,
    law_at_reference,
    natural_parameters,
)
from bayesdistill.priors.moving import FOUR, MOVED, best_place, join_shortage, movable, move, part_shortage


def priors_of(runs, **options):
    reference = reference_run(runs, None)
    return default_priors(distilled=True, supervised=False, reference=reference, **options), reference


def columns(runs):
    return [runs[name].to_numpy() for name in ("student_params", "student_tokens", "teacher_loss")]


def test_the_coordinates_of_the_same_law_around_another_reference():
    """Moved coordinates are what the inverse of the coordinates says of the published law there."""
    here = Reference(5e8, 2e10, 2.3)
    for by_params, by_tokens in ((0.7, 0.0), (0.0, -1.1), (-1.3, 0.4)):
        there = Reference(5e8 * np.exp(by_params), 2e10 * np.exp(by_tokens), 2.3)
        c, expected = (distillation_coordinates(bd.PUBLISHED, reference) for reference in (here, there))
        assert move(c, by_params, by_tokens) == pytest.approx([expected[name] for name in MOVED], rel=1e-10)


def test_there_and_back_and_volumes():
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = np.array([0.5, -2.0, -2.2, -0.6]) + 0.5 * rng.standard_normal(4)
        by = rng.uniform(-1.5, 1.5, 2)

        def moved(point, by=by):
            return np.array([*move(dict(zip(FOUR, point, strict=True)), *by), point[3]])

        there = moved(x)
        assert np.abs(there - x)[:3].max() > 1e-3
        np.testing.assert_allclose(moved(there, -by), x, rtol=1e-9, atol=1e-11)
        h = 1e-5
        jacobian = np.stack([(moved(x + h * one) - moved(x - h * one)) / (2 * h) for one in np.eye(4)], axis=1)
        assert np.linalg.det(jacobian) == pytest.approx(1.0, abs=1e-6)


def transform(runs, supervised=None, **options):
    """PyMC's transform, the priors, and the names of what is in z."""
    reference = reference_run(runs, supervised)
    priors = default_priors(distilled=True, supervised=supervised is not None, reference=reference, **options)
    free = [name for name, is_free in zip(priors.names, priors.free, strict=True) if is_free]
    return sampled_coordinates(runs, supervised, priors, reference, free), priors, reference, free


@pytest.mark.parametrize(
    "options", [{}, {"token_shortage": False}, bd.EQUATION_8], ids=["default", "no c2", "equation 8"]
)
def test_there_and_back_and_how_volumes_change(runs354, options):
    """The whole transform: its inverse, and its determinant by central differences against the one that it states."""
    found, _, _, free = transform(runs354, **options)
    rng = np.random.default_rng(1)
    for _ in range(5):
        z = 1.5 * rng.standard_normal(len(free))
        value = found.forward(z)
        np.testing.assert_allclose(found.backward(value), z, rtol=1e-9, atol=1e-9)
        h = 1e-5
        jacobian = np.stack(
            [(found.backward(value + h * one) - found.backward(value - h * one)) / (2 * h) for one in np.eye(len(free))]
        )
        assert np.linalg.slogdet(jacobian)[1] == pytest.approx(np.sum(found.log_jac_det(value)), abs=1e-5)


def test_without_a_ridge_to_lie_beside_c2_stays_as_it_is(runs354, monkeypatch):
    """A multiple of c2 below 0 has no logarithm: then only the elasticities move, and volumes stay."""
    positive = dict.fromkeys(DISTILLATION_COORDINATES, 0.1)
    monkeypatch.setattr(coordinate_transform, "ridge_of_shortage", lambda *_: dict(positive))
    found, _, _, free = transform(runs354)
    z = np.random.default_rng(4).standard_normal(len(free))
    value = found.forward(z)
    np.testing.assert_allclose(found.backward(value), z, rtol=1e-9, atol=1e-9)
    assert np.sum(found.log_jac_det(value)) == 0
    at = free.index("token_shortage")
    assert found.forward(z + 0.5 * (np.arange(len(free)) == at))[at] - value[at] == pytest.approx(0.5)


def test_shortage_joined_and_parted():
    for log_elasticity, coordinate in ((-2.0, 3.0), (-4.0, 0.1), (-1.0, -6.0)):
        together, ratio = join_shortage(log_elasticity, coordinate, 0.05)
        c2 = 0.4 * np.log1p(np.exp(coordinate))
        assert together == pytest.approx(np.log(np.exp(log_elasticity) + 0.05 * c2), abs=1e-12)
        assert ratio == pytest.approx(np.log(0.05 * c2) - log_elasticity, abs=1e-12)
        assert part_shortage(together, ratio, 0.05) == pytest.approx((log_elasticity, c2), rel=1e-9)


def test_the_last_digits_of_linear_algebra_change_no_draw(runs354):
    """Sums in another order, as other threads make them: runs in reverse order have the same transform to the last bit."""
    one, _, _, free = transform(runs354)
    other, *_ = transform(runs354[::-1].reset_index(drop=True))
    for value in np.random.default_rng(3).standard_normal((5, len(free))):
        np.testing.assert_array_equal(one.backward(value), other.backward(value))


def squares(z, runs, supervised, priors, reference) -> float:
    """What `best_point` makes least, written out run by run: prior, runs with shared shifts, asymptotic prior, supervised runs."""
    c = dict(zip(priors.names, priors.location + priors.factor @ z, strict=True))
    middle = dict(zip(priors.names, priors.location, strict=True))
    law = natural_parameters(law_at_reference(c, reference), reference)
    missed = laws.distilled_loss(*columns(runs), **law) - runs["student_loss"].to_numpy()
    same = (
        runs[["student_params", "student_tokens"]].to_numpy()[:, None]
        == runs[["student_params", "student_tokens"]].to_numpy()
    ).all(-1)
    axis = np.log(runs["teacher_loss"].to_numpy() / reference.teacher_loss) / 0.1
    shared = np.exp(2 * middle["log_sigma_student"]) + np.exp(2 * middle["log_sigma_student_slope"]) * np.outer(
        axis, axis
    )
    between = same * shared + np.exp(2 * middle["log_sigma"]) * np.eye(len(runs))
    sizes = np.array(ASYMPTOTIC_SIZES) * reference.params / 5e8
    names = ("E", "A", "alpha", "gamma", "A_S", "alpha_S", "gamma_S", "c0", "c1", "d1", "f1")
    lead = (
        np.maximum(laws.asymptotic_advantage(sizes, **{name: law[name] for name in names}), 0) / priors.asymptotic_width
    )
    total = z @ z + missed @ np.linalg.solve(between, missed) + np.mean(lead**2)
    if supervised is not None:
        alone = laws.supervised_loss(
            supervised["params"], supervised["tokens"], **{name: law[name] for name in laws.SUPERVISED_PARAMETERS}
        )
        total += np.sum(((alone - supervised["loss"]) / np.exp(middle["log_sigma_supervised"])) ** 2)
    return float(total)


@pytest.mark.parametrize("joint", [False, True])
def test_the_law_that_suits_the_runs_best_has_the_least_squares(runs354, supervised_runs, joint):
    supervised = supervised_runs if joint else None
    _, priors, reference, _ = transform(runs354, supervised)
    best = best_point(runs354, supervised, priors, reference)
    least = squares(best, runs354, supervised, priors, reference)
    assert least < 0.1 * squares(0 * best, runs354, supervised, priors, reference)
    rng = np.random.default_rng(2)
    for _ in range(20):
        nearby = best + 0.05 * rng.standard_normal(best.size)
        assert squares(nearby, runs354, supervised, priors, reference) > least - 0.01


def explained(c, names, covariance, place) -> float:
    """How much of the variance of the two elasticities, moved to a place, share and gamma explain."""
    jacobian = np.eye(len(names))
    four = [names.index(name) for name in FOUR]
    for j, name in enumerate(FOUR):
        up, down = (move({**c, name: c[name] + h}, *place) for h in (1e-4, -1e-4))
        jacobian[four[:3], four[j]] = (np.array(up) - down) / 2e-4
    moved = jacobian @ covariance @ jacobian.T
    on = [names.index("share_S"), names.index("log_gamma_S")]
    total = 0.0
    for name in MOVED[1:]:
        i = names.index(name)
        total += moved[i, on] @ np.linalg.solve(moved[np.ix_(on, on)], moved[i, on]) / moved[i, i]
    return total


def test_the_best_place_leaves_elasticities_least_correlated(runs354):
    _, priors, reference, free = transform(runs354)
    best = best_point(runs354, None, priors, reference)
    c = dict(zip(priors.names, priors.location + priors.factor @ best, strict=True))
    names = [name for name in DISTILLATION_COORDINATES if name in free]
    left = covariance(c, names, runs354, priors, reference)
    place = best_place(c, names, left)
    least = explained(c, names, left, place)
    assert least < 0.5 * explained(c, names, left, (0.0, 0.0))
    for step in ((0.1, 0.0), (-0.1, 0.0), (0.0, 0.1), (0.0, -0.1)):
        assert least <= explained(c, names, left, np.add(place, step)) + 1e-6


def test_along_the_ridge_of_c2_the_law_hardly_changes(runs354):
    """Steps of c2 with the sampler's other values fixed change the runs' losses far less than steps of c2 alone."""
    found, priors, reference, free = transform(runs354)

    def losses(z):
        c = dict(zip(priors.names, priors.location + priors.factor @ z, strict=True))
        return laws.distilled_loss(
            *columns(runs354), **natural_parameters(law_at_reference(c, reference), reference)
        ), c

    at = free.index("token_shortage")
    value = np.zeros(len(free))
    start, before = losses(found.backward(value))
    for step in (-1.0, 0.5):
        value[at] = step
        along, after = losses(found.backward(value))
        alone, same = losses(np.where(np.arange(len(free)) == at, found.backward(value), found.backward(0 * value)))
        assert same["token_shortage"] == after["token_shortage"] != before["token_shortage"]
        assert np.std(along - start) < 0.25 * np.std(alone - start)


def test_what_can_be_moved(runs354):
    priors, reference = priors_of(runs354)
    assert movable(priors)
    assert not movable(with_priors(priors, {"log_gamma_S": Prior(0.0, 0.0)}))
    assert not movable(default_priors(distilled=False, supervised=True, reference=reference))
    names = list(priors.names)
    together = priors.covariance.copy()
    i, j = names.index("share_S"), names.index("c0")
    together[i, j] = together[j, i] = 0.3 * np.sqrt(together[i, i] * together[j, j])
    assert not movable(replace(priors, covariance=together))
    together = priors.covariance.copy()
    i, j = names.index("token_shortage"), names.index("c0")
    together[i, j] = together[j, i] = 0.3 * np.sqrt(together[i, i] * together[j, j])
    assert not movable(replace(priors, covariance=together))
    model = bd.build_model(runs354, priors=replace(priors, covariance=together), reference=reference)
    assert model.rvs_to_transforms[model["z"]] is None


def test_a_draw_holds_the_coordinates_of_the_prior_only(runs354):
    with pytest.warns(bd.ConvergenceWarning):
        fit = bd.fit(runs354, draws=4, tune=4, chains=1, progress=False)
    assert not [name for name in fit["posterior"].variables if "best_place" in name]
    priors, reference = priors_of(runs354)
    z = fit["posterior"]["z"].values[0]
    c = dict(zip(priors.names, (priors.location[:, None] + priors.factor @ z.T), strict=True))
    for name, values in natural_parameters(law_at_reference(c, reference), reference).items():
        np.testing.assert_allclose(fit["posterior"][name].values[0], values, rtol=1e-9)


@pytest.mark.slow
def test_the_posterior_is_the_same_one(runs354, monkeypatch):
    """Sampled in these terms or in the prior's own: means and standard deviations agree within their errors."""
    options = {"draws": 3000, "target_accept": 0.95, "progress": False}
    moved = bd.fit(runs354, seed=1, **options)
    monkeypatch.setattr(model_module, "movable", lambda _: False)
    still = bd.fit(runs354, seed=2, **options)
    apart = []
    for name in (*laws.LAW_PARAMETERS, "w1", "c2", "sigma", "nu", "sigma_student", "sigma_student_slope"):
        logs = [np.log(fit["posterior"][name]) for fit in (moved, still)]
        for values in (logs, [(one - one.mean()) ** 2 for one in logs]):
            (mean, error), (other, other_error) = (posterior.mean_mcse(one) for one in values)
            apart.append(float(abs(mean - other) / np.hypot(error, other_error)))
    assert max(apart) < 4.0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayesdistill.ConvergenceWarning")  # of the fit in the prior's own terms
def test_where_c2_is_next_to_nothing_chains_mix_beside_its_ridge_only(monkeypatch):
    """As in docs/performance.md: c2's ridge bends where c2 goes to 0, and its effective draws tell how chains get along it."""
    runs = bd.simulate_runs(bd.PUBLISHED, seed=1, sigma=0.003)
    moved = bd.fit(runs, seed=1, target_accept=0.95, progress=False)
    monkeypatch.setattr(model_module, "movable", lambda _: False)
    still = bd.fit(runs, seed=1, target_accept=0.95, progress=False)
    assert bd.check(moved).ok, bd.check(moved).verdict
    ess = [float(az.ess(fit["posterior"]["c2"].values)) for fit in (moved, still)]
    assert ess[0] > 5 * ess[1]
