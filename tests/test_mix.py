"""Mixtures of laws: exact weights, nested laws, weights from scores, and everything that accepts a fit."""

from __future__ import annotations

import dataclasses
import inspect
import json
import warnings
from typing import Any

import mixed_fits
import numpy as np
import pytest
import xarray as xr
from test_arguments import OF_FITS, options_of, required
from test_corpus import with_shift

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.law import Draws, Paths, Reference, neutral_values, union_of
from bayesdistill.law.predictive import Design, Deviations, expected_loss, group_effects, residual_scale
from bayesdistill.posterior import law_weights

SLOW = {"break_even", "family_plan", "next_runs", "paper_claims", "plan_tokens", "recommendations", "sharing_map"}
REFUSED = {"prior_sensitivity"}
"""Requires the coordinates of one law."""


@pytest.fixture(scope="module")
def fits() -> dict[str, xr.DataTree]:
    return mixed_fits.fits()


@pytest.fixture(scope="module")
def many(fits) -> xr.DataTree:
    return bd.mix(fits, {"eq. 8": 1, "default": 2, "growing": 1})


def one_draw(**factors: float) -> xr.Dataset:
    """A posterior of one draw: the published law with some symbols multiplied."""
    values = {name: value * factors.get(name, 1.0) for name, value in bd.PUBLISHED.items()}
    return xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in values.items()}, attrs={"law": "busbridge2025"})


def planned(fit: Any, **options: Any) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bd.ConvergenceWarning)
        return bd.plan(fit, "1B", [1e20, 1e22], "best case", allow_unconverged=True, **{"draws": 12} | options)


def scores(elpd: Any, groups: Any = None, split: str = "student") -> xr.Dataset:
    """A result of leave_out with these log scores."""
    groups = np.arange(len(elpd)) if groups is None else np.asarray(groups)
    values = {"elpd": np.asarray(elpd, dtype=float), "fold": groups, "group": groups.astype(str)}
    values["converged"] = np.ones(len(elpd), dtype=bool)
    return xr.Dataset({n: ("run", v) for n, v in values.items()}, {"run": np.arange(len(elpd))}, {"split": split})


# Weights of draws -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.75, 0.1])
def test_two_draws_have_the_weighted_probability(share):
    many = bd.mix({"one": one_draw(), "two": one_draw(A_S=1.4)}, {"one": share, "two": 1 - share})
    plan = bd.plan(many, "1B", 1e22, "best case", draws=40)
    assert plan["probability_by_law"].sel(law="one").item() == 1
    assert plan["probability_by_law"].sel(law="two").item() == 0
    assert plan["probability"].item() == pytest.approx(share, abs=1e-12)
    assert plan["law_range"].values.ravel().tolist() == [0, 1]
    table = bd.plan_table(plan)
    assert table[["probability_lowest", "probability_highest"]].values.tolist() == [[0, 1]]
    assert not plan["laws_agree"].item()
    assert "The data do not determine the better option in this cell" in str(plan)
    # The strategy with perfect information has the same weights, whatever the number of its draws.
    assert plan["probability_best"].item() == pytest.approx(share, abs=1 / plan.sizes["thinned_draw"])
    assert json.loads(plan.attrs["law_weights"]) == {"one": share, "two": 1 - share}


def test_a_mixture_of_one_fit_is_that_fit(fits, tmp_path):
    fit = fits["eq. 8"]
    alone = bd.mix({"it": fit}, {"it": 3})
    expected, found = planned(fit, noise="run"), planned(alone, noise="run")
    # The range of a fit is that over stored fits, and the range of a mixture that over its laws.
    for name in set(expected.data_vars) - {"probability_by_law", "law_range", "laws_agree"}:
        np.testing.assert_array_equal(found[name].values, expected[name].values, err_msg=name)
    xr.testing.assert_equal(alone["log_likelihood"].to_dataset(), fit["log_likelihood"].to_dataset())
    assert posterior.convergence(alone)["failed"] == posterior.convergence(fit)["failed"]


def test_a_fit_mixed_with_itself_gives_the_same_answers(fits):
    fit = fits["eq. 8"]
    # Other draws have other group effects.
    expected, found = (planned(f, noise="law") for f in (fit, bd.mix({"a": fit, "b": fit}, {"a": 1, "b": 1})))
    for name in (
        "probability",
        "expected_gain",
        "regret",
        "student_tokens",
        "supervised_loss_mean",
        "teacher_loss_mean",
    ):
        if name.endswith("_mean"):
            found, expected = (
                p.assign({name: p[name.removesuffix("_mean")].mean(("chain", "draw"))}) for p in (found, expected)
            )
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, err_msg=name)
    by_law = found["probability_by_law"]
    np.testing.assert_array_equal(by_law.sel(law="a"), by_law.sel(law="b"))


def test_the_order_of_the_laws_does_not_matter(fits):
    weights = {"growing": 1, "eq. 8": 2}
    one = bd.mix({name: fits[name] for name in weights}, weights)
    other = bd.mix({name: fits[name] for name in reversed(weights)}, dict(reversed(weights.items())))
    assert posterior.identity(one) == posterior.identity(other)
    xr.testing.assert_identical(one, other)


def test_every_law_keeps_its_draws_and_its_share_in_thinned_draws(fits, many):
    names, law = posterior.law_positions(many)
    assert names == ("default", "eq. 8", "growing")
    assert np.bincount(law).tolist() == [60, 30, 30]
    for position, name in enumerate(names):
        found = np.unique(many["posterior"]["E"].values.ravel()[law == position])
        np.testing.assert_array_equal(np.isin(found, fits[name]["posterior"]["E"].values), True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bd.ConvergenceWarning)
        fitted = bd.Planner(many, allow_unconverged=True).fitted
    thinned, index = fitted.thinned(24)
    assert np.bincount(thinned.law).tolist() == [12, 6, 6]
    np.testing.assert_array_equal(fitted.law[index], thinned.law)
    np.testing.assert_array_equal(fitted.draws["E"][index], thinned.draws["E"])


def test_few_draws_are_repeated_and_many_are_thinned_evenly():
    draws = {k: (("chain", "draw"), np.tile(v, (4, 3000))) for k, v in bd.PUBLISHED.items()}
    long = xr.Dataset(draws, attrs={"law": "busbridge2025"})
    long["E"] = long["E"] + 1e-6 * np.arange(12000).reshape(4, 3000)
    many = bd.mix({"long": long, "short": one_draw()}, {"long": 0.8, "short": 0.2})
    names, law = posterior.law_positions(many)
    assert np.bincount(law).tolist() == [3200, 800]
    kept = many["posterior"]["E"].values.ravel()[law == names.index("long")]
    steps = np.diff(kept) / 1e-6
    assert steps.min() > 2.9
    assert steps.max() < 4.1
    with pytest.warns(UserWarning, match="'short' are smaller than one draw"):
        many = bd.mix({"long": long, "short": one_draw()}, {"long": 1e6, "short": 1})
    assert posterior.law_positions(many)[0] == ("long",)
    assert posterior.members(many)["short"]["draws_per_chain"] == 0


# Nested laws ----------------------------------------------------------------------------------------------------------


def test_the_union_gives_every_law_its_own_predictions(fits, many):
    names, law = posterior.law_positions(many)
    joint, effects = posterior.draws_of(many), posterior.effects_of(many)
    design = Design.of(joint.law, posterior.fitted_table(many, "distilled"))
    found = expected_loss(joint, design) + group_effects(joint, design, effects), residual_scale(joint, design)
    for position, name in enumerate(names):
        own, its = posterior.draws_of(fits[name]), posterior.effects_of(fits[name])
        design = Design.of(own.law, posterior.fitted_table(fits[name], "distilled"))
        expected = expected_loss(own, design) + group_effects(own, design, its), residual_scale(own, design)
        for ours, theirs in zip(found, expected, strict=True):
            place = [np.flatnonzero(own["E"] == e)[0] for e in joint["E"][law == position]]
            if name != "growing":
                np.testing.assert_array_equal(ours[law == position], theirs[place], err_msg=name)
        if name == "growing":
            # Steps in the data come from the fit, those outside are drawn for each draw of the mixture.
            near = np.full(1, 4.8e8), np.full(1, 1.6e10)
            ours = joint.discrepancy("distilled", 1.3 * near[0], near[1])
            theirs = own.discrepancy("distilled", 1.3 * near[0], near[1])
            np.testing.assert_allclose(ours[law == position], theirs[place], rtol=1e-12, atol=1e-15)
            assert np.abs(theirs).min() > 0
        else:
            far = joint.discrepancy("distilled", np.full(1, 1e13), np.full(1, 1e10))
            np.testing.assert_array_equal(far[law == position], 0)


def test_deviations_of_laws_without_effects_are_residual_noise(many):
    names, law = posterior.law_positions(many)
    found = Deviations.draw(posterior.draws_of(many), 0, "expected")
    for values in (found.distilled(1e9, 2e10, 2.2), found.pretrained(1e9, 2e10)):
        assert np.isfinite(values).all()
        assert np.abs(values[law == names.index("default")]).min() > 0
    assert np.all(found.effects["student"][law == names.index("growing")] == 0)


def test_the_first_discrepancy_of_a_draw_gives_the_scale_of_the_error_over_tokens_per_parameter():
    eight = bd.LAWS["busbridge2025"]
    own = eight.with_discrepancy("distilled")
    symbols = bd.PUBLISHED | {"sigma": 0.01, "nu": 5.0, "discrepancy_distilled": 0.3}
    paths = Paths.extended(["shared", "distilled"], 1, {}, np.arange(0), (10.0, 100.0))
    alone = Draws(own, symbols, Reference(4.8e8, 1.6e10, 2.3), paths=paths)
    union = union_of({"a": own, "b": eight.with_discrepancy("shared")}, "both")
    for scale in ("discrepancy_shared", "discrepancy_distilled"):
        assert scale in {p.name for p in union.parameters}
    both = Draws(union, symbols | {"discrepancy_shared": 0.0}, alone.reference, paths=paths)
    run = np.array([1e9]), np.array([1e13])
    assert both.discrepancy("distilled", *run) == alone.discrepancy("distilled", *run) != 0
    assert both.discrepancy("supervised", *run) == 0


def test_union_of_packaged_laws():
    eight, default = bd.LAWS["busbridge2025"], bd.LAWS[bd.law.DEFAULT_LAW]
    scales = {one.scale: 0 for one in default.discrepancy}
    both = union_of({"a": eight, "b": default}, "both")
    assert [t.name for t in both.terms] == [
        t.name for t in eight.with_terms("weak_teachers", "soft_targets", "reducible_ratio").terms
    ]
    assert dict(both.fixed) == {}
    assert both.effects == default.effects
    assert neutral_values(default, both) == {}
    assert neutral_values(eight, both) == {"w1": 0, "kappa": 1, "omega": 0, "noise_excess": 0, **scales} | {
        effect.scale.name: 0 for effect in default.effects
    }
    same = union_of({"a": default, "b": default.with_fixed(gamma=1)}, "same")
    assert same.terms == default.terms  # tied exponents too
    assert dict(same.fixed) == {"omega": 1}


ETA = bd.Parameter("eta", "1", "eta")
PRIOR = bd.Coordinate("eta", "eta", bd.Prior(0, 1), symbol="eta")
ADDED = bd.Term("mine", parameters=(ETA,), coordinates=(PRIOR,), excess=lambda x, s, t, r, p: x + p["eta"])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda law: law.with_terms(ADDED), r"term 'mine'.*eta"),
        (lambda law: law.with_terms(bd.Term("mine", floor=lambda x, s, t, p: 0.9 * x)), r"term 'mine'.*has no symbols"),
        (lambda law: law.with_residual_noise("tokens"), "'ratio' and 'tokens'"),
        (lambda law: law.for_runs(distilled=False, supervised=True), "different kinds of runs"),
        (
            lambda law: dataclasses.replace(
                law, terms=(*law.terms[:2], dataclasses.replace(law.terms[2], sentence="x"))
            ),
            r"different parts.*capacity_gap",
        ),
    ],
)
def test_laws_that_are_not_nested_are_an_error(other, message):
    law = bd.LAWS["busbridge2025"]
    with pytest.raises(bd.ModelError, match=message):
        union_of({"a": law.with_residual_noise("ratio"), "b": other(law)}, "both")


def test_terms_of_one_slot_must_have_one_order():
    terms = [
        bd.Term(name, parameters=(bd.Parameter(name, "1", name, neutral=0.0),), floor=lambda x, s, t, p: x,
                coordinates=(bd.Coordinate(name, name, bd.Prior(0, 1), symbol=name),))
        for name in ("eta", "zeta")
    ]  # fmt: skip
    law = bd.LAWS["busbridge2025"]
    assert union_of({"a": law.with_terms(terms[0]), "b": law.with_terms(*terms)}, "x").terms[3:] == tuple(terms)
    with pytest.raises(bd.ModelError, match=r"another order.*'floor'"):
        union_of({"a": law.with_terms(*terms), "b": law.with_terms(*reversed(terms))}, "x")


# Weights from scores --------------------------------------------------------------------------------------------------


def test_stacking_finds_the_best_shares():
    rng = np.random.default_rng(1)
    good = rng.normal(size=40)
    assert law_weights.stacking(np.stack([good, good - rng.uniform(0.01, 2, 40)], axis=1)).tolist() == [1, 0]
    # Each law predicts some runs that the other excludes: the weights are the fractions of these runs.
    apart = np.where(np.arange(40)[:, None] < 10, [0.0, -40.0], [-40.0, 0.0])
    np.testing.assert_allclose(law_weights.stacking(apart), [0.25, 0.75], atol=1e-4)
    three = np.concatenate([apart, np.full((40, 1), -3.0)], axis=1)
    np.testing.assert_allclose(law_weights.stacking(three), [0.25, 0.75, 0.0], atol=1e-4)


def test_pseudo_bma_is_the_softmax_of_elpd_averaged_over_groups():
    equal = np.random.default_rng(0).normal(size=(30, 1)) + np.zeros((1, 3))
    np.testing.assert_allclose(law_weights.pseudo_bma(equal, np.arange(30)), 1 / 3, rtol=1e-12)
    # The bootstrap of one group has no noise.
    elpd = np.array([[0.2, 0.0], [0.3, 0.0], [0.5, 0.0]])
    np.testing.assert_allclose(law_weights.pseudo_bma(elpd, np.zeros(3)), [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))])
    # Two groups: the share u of the first one is uniform, and elpd = 2 (u a + (1 - u) b).
    elpd, u = np.array([[3.0, 0.0], [-1.0, 0.0]]), (np.arange(100_000) + 0.5) / 100_000
    expected = np.mean(1 / (1 + np.exp(-2 * (3 * u - (1 - u)))))
    np.testing.assert_allclose(law_weights.pseudo_bma(elpd, np.arange(2))[0], expected, atol=0.01)
    # A second split with the same scores adds no evidence, but more groups.
    twice = law_weights.pseudo_bma(np.tile([[0.5, 0.0]], (2, 1)), np.array([0, 1]), splits=2)
    np.testing.assert_allclose(twice, law_weights.pseudo_bma(np.array([[0.5, 0.0]]), np.zeros(1)))


def test_weights_come_from_scores():
    two = {"eq. 8": one_draw(), "growing": one_draw(E=1.01)}
    worse = {"eq. 8": scores([1.0, 2.0]), "growing": scores([0.0, 1.0])}
    many = bd.mix(two, "stacking", scores=worse)
    assert {name: law["weight"] for name, law in posterior.members(many).items()} == {"eq. 8": 1, "growing": 0}
    assert posterior.law_positions(many)[0] == ("eq. 8",)
    equal = {name: [scores([1.0, 2.0]), scores([0.0, 1.0], split="teacher")] for name in two}
    many = bd.mix(two, scores=equal)
    assert [law["weight"] for law in posterior.members(many).values()] == pytest.approx([0.5, 0.5])
    failed = scores([1.0, 9.0]).assign(converged=("run", [True, False]))
    many = bd.mix(two, "stacking", scores={"eq. 8": scores([2.0, 0.0]), "growing": failed})
    assert posterior.members(many)["growing"]["weight"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"requires `scores`: \{name: bd.leave_out"),
        ({"weights": "stacking"}, r"requires `scores`"),
        ({"weights": "bma"}, "`weights` must be 'pseudo-bma' or 'stacking' or a mapping"),
        ({"weights": {"a": 1}}, "one number for each of 'a', 'b'"),
        ({"weights": {"a": 1, "b": -1}}, "nonnegative"),
        ({"weights": {"a": 0, "b": 0}}, "positive sum"),
        ({"weights": {"a": 1, "b": 1}, "scores": {}}, "`scores` are used with"),
        ({"scores": {"a": scores([1.0])}}, "`scores` must have results"),
        ({"scores": {"a": scores([1.0]), "b": xr.Dataset()}}, "`scores` of 'b' must be a result of leave_out"),
        ({"scores": {"a": scores([1.0]), "b": scores([1.0, 2.0])}}, "different splits or runs"),
        ({"scores": {"a": scores([1.0]), "b": scores([1.0], split="teacher")}}, "different splits or runs"),
        ({"scores": {n: scores([1.0]).assign(converged=("run", [False])) for n in "ab"}}, "no fold"),
        ({"scores": {n: scores([np.nan]) for n in "ab"}}, "not finite"),
        ({"scores": {n: scores([1.0]).assign_attrs(law=bd.LAWS["tied_reducible"].to_json()) for n in "ab"}},
         "`scores` of 'a' belong to a law with the terms"),
    ],
)  # fmt: skip
def test_weights_and_scores_are_checked(arguments, message):
    with pytest.raises(bd.ParameterError, match=message):
        bd.mix({"a": one_draw(), "b": one_draw(E=1.01)}, **arguments)


# Fits -----------------------------------------------------------------------------------------------------------------


def test_fits_are_checked(fits, many):
    equal = {"a": 1, "b": 1}
    with pytest.raises(bd.ParameterError, match="`fits` must be a mapping"):
        bd.mix([fits["eq. 8"]], equal)  # type: ignore[arg-type]
    with pytest.raises(bd.ParameterError, match="mixture as 'a'"):
        bd.mix({"a": many, "b": fits["eq. 8"]}, equal)
    with pytest.raises(bd.ModelError, match="different distilled runs"):
        bd.mix({"a": fits["eq. 8"], "b": one_draw()}, equal)
    moved = mixed_fits.as_fit_of(bd.law_of(fits["eq. 8"]), fits["eq. 8"])
    moved["posterior"].attrs["reference"] = json.dumps({"params": 1e9, "tokens": 1e10, "teacher_loss": 2.3})
    with pytest.raises(bd.ModelError, match="different reference runs"):
        bd.mix({"a": fits["eq. 8"], "b": moved}, equal)
    with pytest.raises(bd.ParameterError, match="`priors` is a mixture"):
        bd.fit(bd.load_runs("busbridge2025"), priors=many)


def test_a_mixture_has_converged_if_all_its_fits_have(fits):
    long = bd.mix({"a": one_draw(), "b": one_draw(E=1.01)}, {"a": 1, "b": 1})
    assert posterior.convergence(long)["converged"] is None  # as for draws from other sources
    mixed = bd.mix(fits, dict.fromkeys(fits, 1))
    found = posterior.convergence(mixed)
    each = {name: posterior.convergence(fit) for name, fit in fits.items()}
    assert found["rhat"] == max(one["rhat"] for one in each.values())
    assert found["ess_bulk"] == min(one["ess_bulk"] for one in each.values())
    assert found["rhat_variable"].split(": ")[0] in fits
    assert not found["converged"]
    with pytest.raises(bd.ConvergenceError, match="rhat"):
        bd.plan(mixed, "1B", 1e21)
    loose = bd.ConvergenceThresholds(max_rhat=10, min_ess_bulk=0, min_ess_tail=0, max_divergences=10**6)
    assert posterior.convergence(mixed, loose)["converged"] is True


def test_laws_far_apart_do_not_spoil_convergence():
    rng = np.random.default_rng(0)
    steps = {"diverging": (("chain", "draw"), np.zeros((4, 400), dtype=bool))}

    def fit_of(factor: float) -> xr.DataTree:
        draws = {
            k: (("chain", "draw"), v * factor * np.exp(0.01 * rng.standard_normal((4, 400))))
            for k, v in bd.PUBLISHED.items()
        }
        axes = {"chain": np.arange(4), "draw": np.arange(400)}
        named = xr.Dataset(draws, axes, {"law": "busbridge2025"})
        return xr.DataTree.from_dict({"posterior": named, "sample_stats": xr.Dataset(steps, axes)})

    fits = {"a": fit_of(1.0), "b": fit_of(1.1)}
    assert all(posterior.convergence(fit)["converged"] for fit in fits.values())
    many = bd.mix(fits, {"a": 1, "b": 1})
    assert posterior.convergence(many)["converged"] is True
    assert bd.check(many).ok


def test_a_conflict_of_one_fit_is_one_of_the_mixture(fits):
    shifted = {
        "eq. 8": with_shift(fits["eq. 8"]),
        "growing": with_shift(fits["growing"], posterior.LevelShift(0.01, 0.02, "runs")),
    }
    many = bd.mix(shifted, dict.fromkeys(shifted, 1))
    assert "1.23 nats below" in posterior.corpus_conflict(many)
    with pytest.raises(bd.ConflictError, match=r"1\.23 nats"):
        bd.plan(many, "1B", 1e21, allow_unconverged=True)


def test_files_keep_mixtures_and_their_plans(many, tmp_path):
    bd.save(many, tmp_path / "many.nc")
    loaded = bd.load(tmp_path / "many.nc")
    assert posterior.identity(loaded) == posterior.identity(many)
    assert posterior.law_positions(loaded)[0] == posterior.law_positions(many)[0]
    assert bd.provenance(loaded) == bd.provenance(many)
    plan = planned(loaded)
    bd.save(plan, tmp_path / "plan.nc")
    again = bd.load(tmp_path / "plan.nc")
    assert again.equals(plan)
    assert planned(many).equals(plan)
    # Draws of other laws in the same order are another posterior.
    draws = many["posterior"].to_dataset()
    other = draws.assign(law=draws["law"].copy(data=(draws["law"] + 1) % 3))
    assert posterior.identity(other) != posterior.identity(draws)


def test_provenance_and_texts_name_every_law(fits, many):
    found = bd.provenance(many)
    assert found["data"] == bd.provenance(fits["eq. 8"])["data"]
    assert {name: law["weight"] for name, law in found["laws"].items()} == {
        "default": 0.5,
        "eq. 8": 0.25,
        "growing": 0.25,
    }
    for name, law in found["laws"].items():
        assert law["provenance"] == bd.provenance(fits[name])
        assert law["prior_dominated"] == posterior.prior_dominated(fits[name])
    assert set(posterior.prior_dominated(many)) == set(posterior.prior_dominated(fits["eq. 8"]))
    text = bd.methods_text(many)
    assert "3 laws were mixed with these weights: default 0.5, eq. 8 0.25, growing 0.25" in text


# Everything that accepts a fit ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in OF_FITS])
def test_functions_of_a_fit_accept_a_mixture(name, many, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = options_of(name)
    function = getattr(bd, name)
    levels = ("law", "run") if "noise" in inspect.signature(function).parameters else (None,)
    with warnings.catch_warnings():
        for category in (bd.ConvergenceWarning, bd.ExtrapolationWarning):
            warnings.simplefilter("ignore", category)
        for level in levels:
            given = options | ({} if level is None else {"noise": level})
            if name in REFUSED:
                with pytest.raises(bd.ModelError, match="Pass one of its fits"):
                    function(*required(name, many), **given)
                continue
            found = function(*required(name, many), **given)
            if isinstance(found, xr.Dataset) and "probability" in found:
                assert np.isfinite(found["probability"]).any()


def test_functions_of_plans_accept_those_of_a_mixture(many):
    plan = planned(many, noise="expected")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bd.ConvergenceWarning)
        bd.plan_value(many, plan, allow_unconverged=True)
        known = bd.evppi(many, plan, allow_unconverged=True)
        found = bd.explain(plan, many, budget=1e22, allow_unconverged=True)
    assert found["gain_by_law"].sizes == {"law": 3}
    assert (known["evppi"] >= 0).all()


@pytest.mark.slow
def test_figures_reports_and_comparisons_accept_mixtures(fits, many, tmp_path):
    plan = planned(many, noise="expected")
    with warnings.catch_warnings():
        for category in (bd.ConvergenceWarning, bd.ExtrapolationWarning):
            warnings.simplefilter("ignore", category)
        worth = bd.plan_value(many, plan, allow_unconverged=True)
        crossed = bd.compare_crossovers(
            {"all": many, "one": fits["eq. 8"]}, "1B", "best case", budgets=[1e20, 1e24], allow_unconverged=True
        )
        assert np.isfinite(bd.compare_fits(many, fits["eq. 8"])["probability_first_larger"]).all()
        bd.report(many, plan, folder=tmp_path / "report")
    assert "outcome" in crossed.dims
    for plot in (bd.plot_probability, bd.plot_best_loss, bd.plot_compute_strategy):
        plot(plan)
    bd.plot_value(worth)
    bd.plot_runs(bd.law_curves(many, points=5))
    bd.plot_residuals(bd.residual_structure(many, shuffles=20))
    bd.plot_posterior_predictive(bd.posterior_predictive(many, max_draws=20))
    bd.plot_loo(bd.loo(many))


@pytest.mark.slow
def test_real_fits_of_distilled_and_supervised_runs(runs354, supervised_runs):
    fits = {name: bd.fit(runs354, supervised_runs, law=name, seed=3, progress=False) for name in bd.LAWS}
    many = bd.mix(fits, {"busbridge2025": 0.3, "tied_reducible": 0.7})
    assert bd.check(many).numbers["converged"]
    for noise in ("law", "expected", "run"):
        plan = bd.plan(many, ["300M", "1B"], [1e20, 1e22, 1e24], noise=noise)
        shares = xr.DataArray([0.3, 0.7], {"law": ["busbridge2025", "tied_reducible"]})
        np.testing.assert_allclose((shares * plan["probability_by_law"]).sum("law"), plan["probability"], atol=1e-12)
        low, high = (plan["law_range"].sel(bound=end) for end in ("lower", "upper"))
        assert ((low <= plan["probability"] + 1e-12) & (plan["probability"] <= high + 1e-12)).all()
    # The mixture predicts runs with the mean of the two densities' means.
    run = runs354.iloc[[100]].drop(columns="student_loss")
    means = {name: float(bd.predict(fit, run)["mean"].item()) for name, fit in {**fits, "all": many}.items()}
    assert means["all"] == pytest.approx(0.3 * means["busbridge2025"] + 0.7 * means["tied_reducible"], abs=2e-4)
