"""The distillation law's elasticities at another place: the same law, the same volume, and the place that suits the runs."""

from __future__ import annotations

from dataclasses import replace

import arviz as az
import numpy as np
import pytest

import bayesdistill as bd
from bayesdistill import laws, posterior
from bayesdistill import model as model_module
from bayesdistill.model import reference_run
from bayesdistill.priors import Prior, Reference, default_priors, with_priors
from bayesdistill.priors.coordinates import (
    DISTILLATION_COORDINATES,
    distillation_at_reference,
    distillation_coordinates,
    natural_parameters,
    supervised_at_reference,
)
from bayesdistill.priors.moving import MOVED, best_place, movable, move

FOUR = (*MOVED, "log_gamma_S")


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


def explained(runs, priors, reference, place) -> float:
    """How much of the variance of the two elasticities share and gamma explain, from derivatives taken at that place."""
    middle = dict(zip(priors.names, priors.location, strict=True))
    names = [name for name in DISTILLATION_COORDINATES if priors.table[name].scale > 0]

    def losses(moved):
        c = {**middle, **moved}
        c |= dict(zip(MOVED, move({name: c[name] for name in FOUR}, -place[0], -place[1]), strict=True))
        law = supervised_at_reference(c)
        law |= distillation_at_reference(c, law, reference)
        return laws.distilled_loss(*columns(runs), **natural_parameters(law, reference)), [c[name] for name in names]

    start = {name: middle[name] for name in names}
    start |= dict(zip(MOVED, move({name: middle[name] for name in FOUR}, *place), strict=True))
    information = []
    scales = np.array([priors.table[name].scale for name in names])
    for name in names:
        (up, c_up), (down, c_down) = (losses({**start, name: start[name] + h}) for h in (1e-4, -1e-4))
        fit = (np.asarray(up) - down) / 2e-4 / np.exp(middle["log_sigma"])
        prior = (np.array(c_up) - c_down) / 2e-4 / scales
        information.append(np.concatenate([fit, prior]))
    covariance = np.linalg.inv(np.array(information) @ np.array(information).T)
    on = [names.index("share_S"), names.index("log_gamma_S")]
    total = 0.0
    for name in MOVED[1:]:
        i = names.index(name)
        b = covariance[i, on]
        total += b @ np.linalg.solve(covariance[np.ix_(on, on)], b) / covariance[i, i]
    return total


def test_the_best_place_leaves_elasticities_least_correlated(runs354):
    priors, reference = priors_of(runs354)
    place = best_place(*columns(runs354), priors, reference)
    at_reference, best = (explained(runs354, priors, reference, p) for p in ((0.0, 0.0), place))
    assert best < 0.3 * at_reference
    for step in ((0.1, 0.0), (-0.1, 0.0), (0.0, 0.1), (0.0, -0.1)):
        assert best <= explained(runs354, priors, reference, np.add(place, step)) + 1e-6


def test_without_information_from_runs_nothing_moves(runs354):
    """The prior has its coordinates independent at the reference run."""
    priors, reference = priors_of(runs354)
    blind = with_priors(priors, {"log_sigma": Prior(8.0, 0.1)})
    assert best_place(*columns(runs354), blind, reference) == pytest.approx((0.0, 0.0), abs=1e-9)


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
    model = bd.build_model(runs354, priors=replace(priors, covariance=together), reference=reference)
    assert model.rvs_to_transforms[model["z"]] is None


def test_a_draw_holds_the_coordinates_of_the_prior_only(runs354):
    with pytest.warns(bd.ConvergenceWarning):
        fit = bd.fit(runs354, draws=4, tune=4, chains=1, progress=False)
    assert not [name for name in fit["posterior"].variables if "best_place" in name]
    priors, reference = priors_of(runs354)
    z = fit["posterior"]["z"].values[0]
    c = dict(zip(priors.names, (priors.location[:, None] + priors.factor @ z.T), strict=True))
    law = supervised_at_reference(c)
    law |= distillation_at_reference(c, law, reference)
    for name, values in natural_parameters(law, reference).items():
        np.testing.assert_allclose(fit["posterior"][name].values[0], values, rtol=1e-9)


@pytest.mark.slow
def test_the_posterior_is_the_same_one(runs354, monkeypatch):
    """Sampled at the best place or at the reference run: means and standard deviations agree within their errors.

    Steps are shorter than by default: at the reference run every second fit of this length has a divergence with 0.9.
    """
    moved = bd.fit(runs354, draws=3000, seed=1, target_accept=0.95, progress=False)
    monkeypatch.setattr(model_module, "movable", lambda _: False)
    still = bd.fit(runs354, draws=3000, seed=2, target_accept=0.95, progress=False)
    apart = []
    for name in (*laws.LAW_PARAMETERS, "w1", "sigma", "nu", "sigma_student", "sigma_student_slope"):
        logs = [np.log(fit["posterior"][name]) for fit in (moved, still)]
        for values in (logs, [(one - one.mean()) ** 2 for one in logs]):
            (mean, error), (other, other_error) = (posterior.mean_mcse(one) for one in values)
            apart.append(float(abs(mean - other) / np.hypot(error, other_error)))
    assert max(apart) < 4.0
    # Of the parameters that the elasticities make, as in docs/performance.md: the others mix alike in both.
    names = ("A_S", "B_S", "alpha_S", "beta_S", "gamma_S")
    ess = [min(float(az.ess(fit["posterior"][name].values)) for name in names) for fit in (moved, still)]
    assert ess[0] > 1.4 * ess[1]
