from __future__ import annotations

import json
import math
from dataclasses import asdict

import law_names as laws
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import bayesdistill as bd
from bayesdistill.errors import ModelError, ParameterError
from bayesdistill.law import LAWS, TERMS, Draws, Law, Prior, Reference
from bayesdistill.law.residual import BASE_COORDINATES
from bayesdistill.law.terms.capacity_gap import CURVATURE_SCALE
from bayesdistill.law.terms.student import SUM_COORDINATES
from bayesdistill.priors import (
    PUBLISHED_SIZES,
    PUBLISHED_TOKENS_PER_PARAMETER,
    PUBLISHED_TOLERANCE,
    Priors,
    default_priors,
    prior_frame,
    prior_from_draws,
    published_law_prior,
    shape_prior_from_draws,
    with_block,
    with_priors,
    without_published_law,
)
from bayesdistill.priors.earlier import _temper
from bayesdistill.sampling._prior_table import choose_priors

EQUATION_8 = LAWS["busbridge2025"]
DEFAULT = LAWS["tied_reducible"]
SUPERVISED = EQUATION_8.for_runs(distilled=False, supervised=True)
SUPERVISED_PRIORS = {c.name: c.prior for c in TERMS["supervised"].coordinates}
DISTILLATION_PRIORS = {c.name: c.prior for name in ("student", "capacity_gap") for c in TERMS[name].coordinates}
NOISE_PRIORS = {
    c.name: c.prior for law in (DEFAULT, EQUATION_8.with_effects("teacher", "model")) for c in law.coordinates
}
SUPERVISED_COORDINATES, DISTILLATION_COORDINATES = tuple(SUPERVISED_PRIORS), tuple(DISTILLATION_PRIORS)
REFERENCE = Reference(params=5e8, tokens=2e10, teacher_loss=2.28)
OTHER = Reference(params=3e6, tokens=9e7, teacher_loss=3.4)
PUBLISHED_SIX = {name: bd.PUBLISHED[name] for name in laws.SUPERVISED_PARAMETERS}


def natural(c: dict, reference: Reference = REFERENCE, law: Law = EQUATION_8) -> dict:
    law = law if "teacher_power" in c else SUPERVISED
    return {name: value for name, value in law.symbols(c, reference).items() if name in law.symbols_of_law}


def published_coordinates(reference: Reference = REFERENCE) -> dict[str, float]:
    return EQUATION_8.coordinates_of(bd.PUBLISHED, reference)


def around(center: dict[str, float], width: float) -> dict[str, st.SearchStrategy]:
    """Coordinates within so many prior standard deviations of a center."""
    table = SUPERVISED_PRIORS | DISTILLATION_PRIORS
    return {
        name: st.floats(value - width * table[name].scale, value + width * table[name].scale)
        for name, value in center.items()
    }


# Coordinates ----------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(c=st.fixed_dictionaries(around({name: float(v) for name, v in published_coordinates().items()}, 0.7)))
def test_coordinates_to_symbols_and_back(c):
    with np.errstate(over="ignore"):
        law = natural(c)
    assert set(law) == set(laws.LAW_PARAMETERS)
    # Where a teacher as good as the reference is far worse than the student, A_S may be beyond 1e308.
    assume(all(math.isfinite(value) for value in law.values()))
    back = EQUATION_8.coordinates_of(law, REFERENCE)
    assert set(back) == set(c)
    for name, value in c.items():
        # u is recovered from d1^(-1/f1), so that the curvature loses digits where u is tiny.
        assert back[name] == pytest.approx(value, rel=1e-7, abs=1e-7), name


@pytest.mark.parametrize("reference", [REFERENCE, OTHER])
def test_symbols_to_coordinates_and_back(reference):
    law = natural(published_coordinates(reference), reference)
    for name, value in bd.PUBLISHED.items():
        assert float(law[name]) == pytest.approx(value, rel=1e-6 if name in ("c1", "d1") else 1e-9), name


def test_the_law_at_the_reference_is_the_law():
    rng = np.random.default_rng(5)
    for reference in (REFERENCE, OTHER):
        for _ in range(50):
            c = {
                name: float(value) + 0.1 * rng.standard_normal()
                for name, value in published_coordinates(reference).items()
            }
            unit = EQUATION_8.reduced_symbols(c, reference)
            law = EQUATION_8.rescaled(unit, reference)
            size, tokens, teacher = 10 ** rng.uniform(7, 11), 10 ** rng.uniform(9, 13), rng.uniform(1.5, 4)
            ours = laws.distilled_loss(size / reference.params, tokens / reference.tokens, teacher, **unit)
            theirs = laws.distilled_loss(size, tokens, teacher, **law)
            assert float(ours) == pytest.approx(float(theirs), rel=1e-10)


def test_coordinates_mean_what_they_say():
    c = {name: value + 0.1 for name, value in published_coordinates().items()}
    law = {name: float(value) for name, value in natural(c).items()}
    six = {name: law[name] for name in laws.SUPERVISED_PARAMETERS}
    n, d, t = REFERENCE.params, REFERENCE.tokens, REFERENCE.teacher_loss

    def excess(size: float, tokens: float) -> float:
        return float(laws.supervised_loss(size, tokens, **six)) - law["E"]

    loss = law["E"] + excess(n, d)
    assert math.log(loss) == pytest.approx(c["log_loss"], abs=1e-12)
    share = law["A"] * n ** -law["alpha"] / (law["A"] * n ** -law["alpha"] + law["B"] * d ** -law["beta"])
    assert share * excess(n, d) / law["E"] == pytest.approx(math.exp(c["log_size_term"]), rel=1e-12)
    assert (1 - share) * excess(n, d) / law["E"] == pytest.approx(math.exp(c["log_token_term"]), rel=1e-12)
    for name in ("alpha", "beta"):
        assert law[name] == pytest.approx(math.exp(c[f"log_{name}"]), rel=1e-12)
    # log_gamma is ln(gamma R) without the tangent of ln R, so that it is ln gamma with that slope for a typical law.
    typical = -1.0 + math.log(2)
    slope, at = 1 / (1 + math.exp(typical)), -math.log1p(math.exp(-typical))
    reducible = math.log(excess(n, d) / law["E"])
    tangent = at + slope * (reducible - typical)
    bend = math.log(excess(n, d) / loss) - tangent
    assert math.log(law["gamma"]) + bend == pytest.approx(c["log_gamma"], abs=1e-12)
    # The distillation law: the student's distance from its teacher at the reference run.
    distance = float(laws.distilled_loss(n, d, t, **law)) - t
    assert math.log(distance) == pytest.approx(c["log_excess_S"], abs=1e-10)
    size_term, token_term = law["A_S"] * n ** -law["alpha_S"], law["B_S"] * d ** -law["beta_S"]
    assert 1 / (1 + math.exp(-c["share_S"])) == pytest.approx(size_term / (size_term + token_term), rel=1e-12)
    for name in ("alpha_S", "beta_S", "gamma_S"):
        assert law[name] == pytest.approx(math.exp(c[f"log_{name}"]), rel=1e-12)
    h = 1e-5
    # The gap: G = -log_gap, its strength, power and curvature at r = 1.
    gap = {name: law[name] for name in ("c1", "d1", "f1")}
    assert -float(laws.log_gap(0.0, **gap)) == pytest.approx(math.exp(c["log_gap_strength"]), rel=1e-9)
    slope = -(float(laws.log_gap(h, **gap)) - float(laws.log_gap(-h, **gap))) / (2 * h)
    assert slope / math.exp(c["log_gap_strength"]) == pytest.approx(math.exp(c["log_gap_power"]), rel=1e-6)
    assert law["d1"] ** (-1 / law["f1"]) == pytest.approx(
        CURVATURE_SCALE * math.log1p(math.exp(c["gap_curvature"])), rel=1e-9
    )


def test_coordinates_pass_through_arrays():
    c = {name: np.array([value, value + 0.2]) for name, value in published_coordinates().items()}
    law = natural(c)
    for name, value in law.items():
        single = [natural({k: v[i] for k, v in c.items()})[name] for i in (0, 1)]
        np.testing.assert_allclose(value, single, rtol=1e-12)


# The default priors ---------------------------------------------------------------------------------------------------


def test_one_prior_per_coordinate_each_with_a_reason():
    assert (
        tuple(c.name for c in EQUATION_8.coordinates if c not in BASE_COORDINATES)
        == SUPERVISED_COORDINATES + DISTILLATION_COORDINATES
    )
    assert SUPERVISED_COORDINATES == (
        "log_loss",
        "log_size_term",
        "log_token_term",
        "log_alpha",
        "log_beta",
        "log_gamma",
    )
    for name, prior in (SUPERVISED_PRIORS | DISTILLATION_PRIORS | NOISE_PRIORS).items():
        assert prior.scale > 0, name
        assert "Normal" in prior.distribution, name
        assert len(prior.reason) > 15, name


def test_the_priors_are_those_of_the_design():
    values = {
        "log_excess_S": (-1.7, 1.0),
        "share_S": (0.0, 1.5),
        "log_alpha_S": (math.log(0.4), 0.5),
        "log_beta_S": (math.log(0.4), 0.5),
        "log_gamma_S": (math.log(0.7), 0.4),
        "teacher_power": (2.0, 1.5),
        "log_gap_strength": (math.log(2), 0.7),
        "log_gap_power": (math.log(6), 0.7),
        "gap_curvature": (0.0, 2.0),
    }
    assert {name: (p.location, p.scale) for name, p in DISTILLATION_PRIORS.items()} == values
    assert tuple(values) == DISTILLATION_COORDINATES
    assert CURVATURE_SCALE == 0.03


@pytest.mark.parametrize(
    ("name", "sds", "low", "high"),
    [
        ("log_loss", 2, 1.0, 6.1),
        ("log_excess_S", 2, 0.02, 1.3),
        ("log_size_term", 2, 0.06, 2.2),
        ("log_token_term", 2, 0.06, 2.2),
        ("log_alpha", 2, 0.15, 1.1),
        ("log_beta", 2, 0.15, 1.1),
        ("log_sigma", 2, 0.001, 0.07),
    ],
)
def test_ranges_that_reasons_state(name, sds, low, high):
    prior = (SUPERVISED_PRIORS | DISTILLATION_PRIORS | NOISE_PRIORS)[name]
    assert math.exp(prior.location - sds * prior.scale) == pytest.approx(low, rel=0.36)
    assert math.exp(prior.location + sds * prior.scale) == pytest.approx(high, rel=0.06)


def test_the_range_of_gamma_that_its_reason_states():
    location = {name: prior.location for name, prior in SUPERVISED_PRIORS.items()}
    medians = {}
    for term in (-2.8, -1.0, 0.8):  # ln(size term / E) and ln(token term / E), up to two standard deviations
        at = location | {"log_size_term": term, "log_token_term": term}
        medians[term] = EQUATION_8.for_runs(distilled=False, supervised=True).symbols(at, REFERENCE)["gamma"]
    assert medians[-1.0] == pytest.approx(0.7, rel=1e-12)
    assert round(float(max(medians.values())), 1) == 1.0
    assert min(medians[-2.8], medians[0.8]) > 0.7


EXTENDED = dict(bd.PUBLISHED) | {"w1": 0.05, "kappa": 2.5, "omega": 0.9}


EXTENDED_LAW = EQUATION_8.with_terms("weak_teachers", "soft_targets", "reducible_ratio")


def extended_coordinates(law: dict, reference: Reference = REFERENCE) -> dict[str, float]:
    c = EXTENDED_LAW.coordinates_of(law, reference)
    logit = {name: math.log(law[name] / (1 - law[name])) for name in ("w1", "omega")}
    assert c["logit_w1"] == pytest.approx(logit["w1"], rel=1e-14)
    assert c["logit_omega"] == pytest.approx(logit["omega"], rel=1e-14)
    assert c["log_kappa"] == pytest.approx(math.log(law["kappa"]), rel=1e-14)
    return c


def test_the_coordinates_of_an_extended_law_and_back():
    for reference in (REFERENCE, OTHER):
        c = extended_coordinates(EXTENDED, reference)
        law = natural(c, reference, EXTENDED_LAW)
        assert {name: float(value) for name, value in law.items()} == pytest.approx(EXTENDED, rel=1e-8)


def test_what_the_coordinates_of_an_extended_law_say():
    """By differences: what the gap does to a teacher no better than the reference run's student pretrained, and its slopes."""
    c = extended_coordinates(EXTENDED)
    law = {name: value for name, value in EXTENDED.items() if name != "w1"}
    alone = bd.supervised_loss(REFERENCE.params, REFERENCE.tokens, **PUBLISHED_SIX)
    ability = bd.supervised_loss(REFERENCE.params, 2.5 * REFERENCE.tokens, **PUBLISHED_SIX)

    def log_excess(teacher: float, gap: bool = True) -> float:
        # Without the gap c1 is next to nothing.
        one = law if gap else law | {"c1": 1e-300}
        return math.log(bd.distilled_loss(REFERENCE.params, REFERENCE.tokens, teacher, **one) - teacher)

    assert c["log_excess_S"] == pytest.approx(log_excess(REFERENCE.teacher_loss), abs=1e-9)
    strength = log_excess(alone, gap=False) - log_excess(alone)
    assert math.exp(c["log_gap_strength"]) == pytest.approx(strength, rel=1e-8)
    h = 1e-5
    slopes = [(log_excess(alone * (1 + h), gap) - log_excess(alone * (1 - h), gap)) / (2 * h) for gap in (True, False)]
    assert c["teacher_power"] == pytest.approx(-slopes[1], rel=1e-6)
    assert math.exp(c["log_gap_power"]) * strength == pytest.approx(slopes[1] - slopes[0], rel=1e-6)
    assert alone > ability  # kappa > 1: the two are different places


def test_tied_exponents_make_the_excess_a_power_of_the_reducible_loss():
    c = extended_coordinates(EXTENDED | {"omega": 0.6})
    c = {name: value for name, value in c.items() if name not in SUM_COORDINATES} | {"log_power_S": math.log(1.3)}
    tied = EXTENDED_LAW.with_terms("tied_exponents")
    law = {k: float(v) for k, v in natural(c, REFERENCE, tied).items()}
    assert (law["alpha_S"], law["beta_S"]) == (law["alpha"], law["beta"])
    assert law["gamma_S"] == pytest.approx(1.3 * law["gamma"])
    excess = bd.distilled_loss(REFERENCE.params, REFERENCE.tokens, REFERENCE.teacher_loss, **law | {"w1": 0.0})
    assert math.log(excess - REFERENCE.teacher_loss) == pytest.approx(c["log_excess_S"], abs=1e-9)
    own = {name: law[name] for name in ("A_S", "B_S", "alpha_S", "beta_S", "gamma_S")}
    logs = []
    for size, tokens in ((1e8, 1e9), (5e8, 2e11), (1e10, 3e10)):
        reducible = bd.supervised_loss(size, 2.5 * tokens, **PUBLISHED_SIX) - law["E"]
        logs.append(laws.log_student_term(size, tokens, **own) - 1.3 * math.log(reducible))
    assert np.ptp(logs) < 1e-9


def test_extensions_are_a_part_of_an_earlier_posterior():
    rng = np.random.default_rng(0)
    values = {name: value * np.exp(0.001 * rng.normal(size=1000)) for name, value in bd.PUBLISHED.items()}
    values["kappa"] = np.exp(0.9 + 0.1 * rng.normal(size=1000))
    soft = EQUATION_8.with_terms("soft_targets", "reducible_ratio")
    fixed = soft.with_fixed(omega=1.0)
    table, _ = prior_from_draws(Draws(fixed, values), fixed, REFERENCE, 1.0)
    assert table["log_kappa"].location == pytest.approx(0.9, abs=0.02)
    assert table["log_kappa"].scale == pytest.approx(0.1, rel=0.15)
    # A fixed symbol is the law's, which keeps its value.
    assert not {"omega", "logit_omega", "log_power_S"} & set(table)
    earlier_fit = xr.DataTree.from_dict({"posterior": dataset_of(Draws(fixed, values))})
    chosen = choose_priors(earlier_fit, 1.0, default_priors(fixed, REFERENCE), REFERENCE)
    assert (chosen.table["omega"].location, chosen.table["omega"].scale) == (1.0, 0.0)
    assert not chosen.free[chosen.names.index("omega")]
    assert chosen.table["log_kappa"] == table["log_kappa"]
    free = values | {"omega": 0.8 + 0.02 * rng.normal(size=1000)}
    table, _ = prior_from_draws(Draws(soft, free), soft, REFERENCE, 1.0)
    assert table["logit_omega"].location == pytest.approx(math.log(4), abs=0.03)
    with pytest.raises(ParameterError, match=r"fixes omega at 1, but the earlier fit .* has other values"):
        prior_from_draws(Draws(soft, free), fixed, REFERENCE, 1.0)
    tied = fixed.with_terms("tied_exponents")
    values |= {"alpha_S": values["alpha"], "beta_S": values["beta"]}
    table, _ = prior_from_draws(Draws(tied, values), tied, REFERENCE, 1.0)
    assert table["log_power_S"].location == pytest.approx(math.log(0.7748 / 0.452), abs=0.01)
    assert not set(SUM_COORDINATES) & set(table)


def test_omega_is_fixed_free_or_left_out():
    fixed = default_priors(DEFAULT.with_fixed(omega=0.5), REFERENCE)
    assert (fixed.table["omega"].location, fixed.table["omega"].scale) == (0.5, 0.0)
    free = default_priors(DEFAULT.with_fixed(omega=None), REFERENCE)
    assert free.free[free.names.index("logit_omega")]
    none = default_priors(DEFAULT.without_terms("reducible_ratio"), REFERENCE)
    assert not {"omega", "logit_omega"} & set(none.names)
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ParameterError, match=r"Cannot fix omega at .*must be a number from 0 to 1"):
            DEFAULT.with_fixed(omega=wrong)


def test_which_coordinates_a_model_has():
    def names(law: Law) -> set[str]:
        return set(default_priors(law.for_runs(distilled=True, supervised=True), REFERENCE).names)

    joint = DEFAULT.for_runs(distilled=True, supervised=True)
    both = default_priors(joint, REFERENCE)
    gap = set(DISTILLATION_COORDINATES) - set(SUM_COORDINATES)
    of_models = {"log_sigma_model", "log_sigma_model_slope"}
    assert set(both.names) == {
        *SUPERVISED_COORDINATES,
        *gap,
        "log_power_S",
        "log_sigma",
        "log_nu",
        "logit_w1",
        "log_kappa",
        "omega",
        "log_sigma_student",
        "log_sigma_student_slope",
        *of_models,
        "log_sigma_supervised",
        "noise_excess",
        "log_discrepancy_shared",
        "log_discrepancy_distilled",
    }
    scatter = {"log_sigma", "log_nu", "log_sigma_supervised"}
    assert names(EQUATION_8) == {*SUPERVISED_COORDINATES, *DISTILLATION_COORDINATES, *scatter}
    assert names(DEFAULT.without_terms("soft_targets")) == set(both.names) - {"log_kappa"}
    assert names(DEFAULT.without_terms("tied_exponents")) == set(both.names) - {"log_power_S"} | set(SUM_COORDINATES)
    assert both.supervised_law == "runs"
    distilled = default_priors(DEFAULT, REFERENCE)
    assert set(distilled.names) == set(both.names) - {"log_sigma_supervised", "noise_excess", *of_models}
    assert distilled.supervised_law == "published law"
    assert distilled.asymptotic_width == 0.005
    supervised = default_priors(DEFAULT.for_runs(distilled=False, supervised=True), REFERENCE)
    others = {"log_sigma", "log_nu", "noise_excess", "log_discrepancy_shared"}
    assert set(supervised.names) == {*SUPERVISED_COORDINATES, *others, *of_models}
    assert supervised.asymptotic_width is None
    with pytest.raises(ModelError, match="no runs"):
        DEFAULT.for_runs(distilled=False, supervised=False)


def test_gamma_can_be_fixed():
    joint = DEFAULT.for_runs(distilled=True, supervised=True)
    priors = default_priors(joint.with_fixed(gamma=1.0), REFERENCE)
    assert "log_gamma" not in priors.names
    place = priors.names.index("gamma")
    assert not priors.free[place]
    assert not priors.free[priors.names.index("omega")]
    assert priors.free.sum() == len(priors.names) - 2
    assert priors.location[place] == 1.0
    assert not priors.factor[place].any()
    assert priors.factor.shape == (len(priors.names), len(priors.names) - 2)
    assert joint.with_fixed(gamma=1.0).symbols(both_at(priors), REFERENCE)["gamma"] == 1.0
    for gamma in (0, -1.0, math.nan, math.inf):
        with pytest.raises(ParameterError, match=r"Cannot fix gamma at .*must be a positive number"):
            SUPERVISED.with_fixed(gamma=gamma)
    with pytest.raises(ParameterError, match="fixes gamma, which requires supervised runs"):
        default_priors(DEFAULT.with_fixed(gamma=1.0), REFERENCE)


def both_at(priors: Priors) -> dict[str, float]:
    return dict(zip(priors.names, priors.location, strict=True))


@pytest.mark.parametrize("width", [0, -0.01, math.nan, math.inf])
def test_impossible_widths_are_refused(width):
    with pytest.raises(ParameterError, match=r"`asymptotic_width` must be a number from 1e-.* to 10 nats, got"):
        default_priors(DEFAULT, REFERENCE, asymptotic_width=width)


def test_the_factor_is_a_root_of_the_covariance():
    priors = default_priors(DEFAULT, REFERENCE)
    np.testing.assert_allclose(priors.factor @ priors.factor.T, priors.covariance, rtol=1e-10, atol=1e-16)
    np.testing.assert_allclose(np.diagonal(priors.covariance) ** 0.5, [p.scale for p in priors.table.values()])


# The published-law prior ----------------------------------------------------------------------------------------------


def supervised_spread(
    size: np.ndarray, tokens: np.ndarray, tolerance: float = PUBLISHED_TOLERANCE, count: int = 20000
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the supervised loss under the published-law prior."""
    table, covariance = published_law_prior(REFERENCE, tolerance)
    location = [prior.location for prior in table.values()]
    draws = np.random.default_rng(0).multivariate_normal(location, covariance, count)
    c = dict(zip(table, draws.T, strict=True))
    law = natural(c)
    loss = laws.supervised_loss(
        np.ravel(size), np.ravel(tokens), **{name: value[:, None] for name, value in law.items()}
    )
    return loss.mean(axis=0), loss.std(axis=0)


def published_range() -> tuple[np.ndarray, np.ndarray]:
    size = np.geomspace(*PUBLISHED_SIZES, 12)[:, None]
    ratio = np.geomspace(*PUBLISHED_TOKENS_PER_PARAMETER, 10)
    return np.broadcast_to(size, (12, 10)), size * ratio


@pytest.mark.parametrize("reference", [REFERENCE, OTHER])
def test_the_published_law_prior_is_centred_on_the_published_law(reference):
    table, _ = published_law_prior(reference)
    law = natural({k: p.location for k, p in table.items()}, reference)
    assert {name: float(value) for name, value in law.items()} == pytest.approx(PUBLISHED_SIX, rel=1e-10)


def test_how_well_the_published_law_is_known_within_its_range():
    mean, spread = supervised_spread(*published_range())
    share = spread / PUBLISHED_TOLERANCE
    # The numbers that the docstring of `published_law_prior` states.
    assert share.min() == pytest.approx(0.6, abs=0.05)
    assert share.max() == pytest.approx(2.5, abs=0.1)
    published = laws.supervised_loss(*map(np.ravel, published_range()), **PUBLISHED_SIX)
    assert np.abs(mean - published).max() < 0.3 * PUBLISHED_TOLERANCE


def test_the_prior_is_no_narrower_than_what_the_printed_digits_say():
    """The published coefficients are rounded to half a unit of their last digit, which alone moves the law."""
    half = {"E": 5e-4, "A": 0.5, "B": 0.5, "alpha": 5e-4, "beta": 5e-4, "gamma": 5e-4}
    rng = np.random.default_rng(3)
    digits = {name: PUBLISHED_SIX[name] + width * rng.uniform(-1, 1, (20000, 1)) for name, width in half.items()}
    size, tokens = published_range()
    rounded = laws.supervised_loss(np.ravel(size), np.ravel(tokens), **digits).std(axis=0)
    # The numbers that the docstring of PUBLISHED_TOLERANCE states.
    assert rounded.min() > 0.0015
    assert rounded.max() < 0.0045
    _, spread = supervised_spread(size, tokens)
    assert (spread > 0.95 * rounded).all()
    assert np.mean(spread > rounded) > 0.95
    # A third of the tolerance would claim to know more than the digits say.
    assert np.mean(supervised_spread(size, tokens, tolerance=PUBLISHED_TOLERANCE / 3)[1] < rounded) > 0.95


def test_it_is_known_less_and_less_outside():
    # From the edge outwards: smaller, larger, and far more or fewer tokens.
    for path in (
        [(1.43e8, 40), (3e7, 40), (1e7, 40)],
        [(1.26e10, 40), (1e11, 40), (1e12, 40)],
        [(1e9, 160), (1e9, 1e3), (1e9, 1e4)],
        [(1e9, 10), (1e9, 3), (1e9, 1)],
    ):
        size = np.array([n for n, _ in path])
        _, spread = supervised_spread(size, size * np.array([ratio for _, ratio in path]))
        assert (np.diff(spread) > 0).all(), path


@pytest.mark.parametrize("tolerance", [0.001, 0.0035, 0.01, 0.03])
def test_the_tolerance_is_the_prior_standard_deviation_of_the_loss(tolerance):
    size = np.geomspace(*PUBLISHED_SIZES, 24)[:, None]
    tokens = size * np.geomspace(*PUBLISHED_TOKENS_PER_PARAMETER, 20)
    _, spread = supervised_spread(np.broadcast_to(size, tokens.shape), tokens, tolerance=tolerance)
    # Exact for a linear law; the law is not linear within wide priors.
    assert math.sqrt(np.square(spread).mean()) == pytest.approx(tolerance, rel=0.08 if tolerance <= 0.01 else 0.15)


def test_a_tolerance_that_the_other_priors_exceed_leaves_these():
    table, covariance = published_law_prior(REFERENCE, 10.0)
    scales = [SUPERVISED_PRIORS[name].scale for name in table]
    np.testing.assert_allclose(np.sqrt(np.diagonal(covariance)), scales, rtol=1e-6)


def test_a_wider_tolerance_makes_a_wider_prior():
    narrow, wide = (supervised_spread(*published_range(), tolerance=value)[1] for value in (0.001, 0.01))
    assert (wide > 8 * narrow).all()


def test_independent_priors_on_the_same_coefficients_are_far_too_wide():
    table, covariance = published_law_prior(REFERENCE)
    symbols = []
    draws = np.random.default_rng(1).multivariate_normal([p.location for p in table.values()], covariance, 4000)
    law = natural(dict(zip(table, draws.T, strict=True)))
    rng = np.random.default_rng(2)
    symbols = {name: rng.permutation(value)[:, None] for name, value in law.items()}
    size, tokens = published_range()
    shuffled = laws.supervised_loss(np.ravel(size), np.ravel(tokens), **symbols).std(axis=0)
    assert (shuffled > 50 * supervised_spread(size, tokens)[1]).all()


@pytest.mark.parametrize("tolerance", [0, -0.01, math.nan, math.inf])
def test_impossible_tolerances_are_refused(tolerance):
    with pytest.raises(ParameterError, match=r"`tolerance` must be a number from 1e-.* to 10 nats, got"):
        published_law_prior(REFERENCE, tolerance)


# Changes --------------------------------------------------------------------------------------------------------------


def test_a_single_coordinate_can_be_changed():
    priors = default_priors(DEFAULT, REFERENCE)
    changed = with_priors(priors, {"teacher_power": Prior(1.0, 0.25), "log_gamma": Prior(-0.5, 0.1)})
    assert changed.table["teacher_power"].distribution == "Normal(1, 0.25)"
    assert changed.table["teacher_power"].reason == "given by the user"
    at = [priors.names.index(name) for name in ("teacher_power", "log_gamma")]
    rest = [i for i in range(len(priors.names)) if i not in at]
    np.testing.assert_allclose(np.diagonal(changed.covariance)[at], [0.0625, 0.01], rtol=1e-15)
    np.testing.assert_array_equal(changed.location[at], [1.0, -0.5])
    # Independent of the rest, which keeps its own covariance.
    assert not changed.covariance[np.ix_(at, rest)].any()
    np.testing.assert_array_equal(changed.covariance[np.ix_(rest, rest)], priors.covariance[np.ix_(rest, rest)])
    np.testing.assert_array_equal(changed.location[rest], priors.location[rest])
    assert priors.table["teacher_power"].location == 2.0


def test_changes_that_cannot_be_made():
    priors = default_priors(SUPERVISED, REFERENCE)
    with pytest.raises(ParameterError, match=r"no coordinate 'teacher_power'. Its coordinates are log_loss"):
        with_priors(priors, {"teacher_power": Prior(1.0, 0.25)})
    with pytest.raises(
        ParameterError, match=r"prior of log_loss must be a bayesdistill\.Prior\(location, scale\), got 0\.3"
    ):
        with_priors(priors, {"log_loss": 0.3})
    with pytest.raises(ParameterError, match="no coordinate x"):
        with_block(priors, {"x": Prior(0, 1)}, np.eye(1), "runs")
    for location, scale in ((math.nan, 1), (0, -1), (math.inf, 1), (0, math.nan)):
        with pytest.raises(ParameterError, match=r"`(location|scale)` must be a "):
            Prior(location, scale)


# Earlier posteriors ---------------------------------------------------------------------------------------------------


def earlier(count: int = 4000, seed: int = 3, scale: float = 0.005) -> tuple[Draws, np.ndarray, np.ndarray]:
    """Draws of a known normal distribution on the coordinates, as symbols; and its mean and covariance."""
    center = published_coordinates() | {"log_sigma": math.log(0.007), "log_nu": math.log(4.0)}
    names = (*SUPERVISED_COORDINATES, *DISTILLATION_COORDINATES, "log_sigma", "log_nu")
    assert set(names) == set(center)
    rng = np.random.default_rng(seed)
    root = scale * rng.standard_normal((len(names), len(names)))
    mean = np.array([float(center[name]) for name in names])
    values = mean + rng.standard_normal((count, len(names))) @ root.T
    c = dict(zip(names, values.T, strict=True))
    noise = {"sigma": np.exp(c["log_sigma"]), "nu": 1 + np.exp(c["log_nu"])}
    return Draws(EQUATION_8, natural(c) | noise), values.mean(axis=0), np.cov(values.T)


def dataset_of(draws: Draws) -> xr.Dataset:
    """The draws as the posterior of a fit: four chains."""
    values = {name: (("chain", "draw"), np.reshape(value, (4, -1))) for name, value in draws.items()}
    return xr.Dataset(values, attrs={"law": draws.law.to_json()})


@pytest.mark.parametrize("widen", [1.0, 2.0, 5.0])
def test_an_earlier_posterior_comes_back_as_a_prior(widen):
    draws, mean, covariance = earlier(scale=5e-4)
    table, found = prior_from_draws(draws, EQUATION_8, REFERENCE, widen)
    assert tuple(table) == (*SUPERVISED_COORDINATES, *DISTILLATION_COORDINATES, "log_sigma", "log_nu")
    # This posterior is a thousand times narrower than the independent priors, which therefore hardly count.
    spread = np.diagonal(covariance) ** 0.5
    np.testing.assert_allclose([prior.location for prior in table.values()], mean, atol=0.2 * spread.max())
    np.testing.assert_allclose(
        found / np.outer(spread, spread) / widen**2, covariance / np.outer(spread, spread), atol=0.01
    )
    np.testing.assert_allclose([p.scale for p in table.values()], np.diagonal(found) ** 0.5, rtol=1e-12)
    if widen == 1:
        np.testing.assert_allclose([prior.location for prior in table.values()], mean, rtol=1e-9)
        np.testing.assert_allclose(found, covariance, rtol=1e-6, atol=1e-12)


def test_widening_an_earlier_posterior_raises_the_likelihood_of_its_runs_to_a_power():
    """Against the exact answer: a normal prior, normal runs that see some directions only, and the power 1 / widen^2."""
    rng = np.random.default_rng(1)
    independent = [Prior(1.0, 0.5), Prior(-2.0, 1.5), Prior(0.0, 0.2), Prior(3.0, 1.0)]
    center, scale = np.array([p.location for p in independent]), np.array([p.scale for p in independent])
    seen = rng.standard_normal((2, 4))
    told = rng.standard_normal(2) * 2

    def posterior_with(power: float) -> tuple[np.ndarray, np.ndarray]:
        precision = np.diag(scale**-2) + power * seen.T @ seen / 0.05**2
        covariance = np.linalg.inv(precision)
        return covariance @ (center / scale**2 + power * seen.T @ told / 0.05**2), covariance

    mean, covariance = posterior_with(1.0)
    for widen in (1.0, 3.0, 30.0):
        found_mean, found_covariance = _temper(mean, covariance, independent, widen)
        expected_mean, expected_covariance = posterior_with(1 / widen**2)
        np.testing.assert_allclose(found_mean, expected_mean, rtol=1e-8)
        np.testing.assert_allclose(found_covariance, expected_covariance, rtol=1e-7, atol=1e-10)
    # Trusted not at all, the independent priors are what remains.
    found_mean, found_covariance = _temper(mean, covariance, independent, 1e6)
    np.testing.assert_allclose(found_mean, center, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found_covariance, np.diag(scale**2), rtol=1e-6, atol=1e-8)


def test_an_earlier_posterior_keeps_its_predictions_around_another_reference():
    # Normal in one set of coordinates is nearly normal in another where the scatter is small.
    draws, *_ = earlier(scale=0.001)
    size, tokens, teacher = np.array([3e8, 5e9]), np.array([1e10, 1e11]), np.array([2.3, 2.1])
    direct = laws.distilled_loss(size, tokens, teacher, **{k: draws[k][:, None] for k in laws.LAW_PARAMETERS})
    for reference in (REFERENCE, Reference(2e9, 1e11, 2.1)):
        table, covariance = prior_from_draws(draws, EQUATION_8, reference, 1.0)
        values = np.random.default_rng(4).multivariate_normal(
            [prior.location for prior in table.values()], covariance, 20000
        )
        c = dict(zip(table, values.T, strict=True))
        law = {name: value[:, None] for name, value in natural(c, reference).items()}
        loss = laws.distilled_loss(size, tokens, teacher, **law)
        np.testing.assert_allclose(loss.mean(axis=0), direct.mean(axis=0), atol=0.05 * direct.std(axis=0).max())
        np.testing.assert_allclose(loss.std(axis=0), direct.std(axis=0), rtol=0.06)


def test_what_an_earlier_study_held_fixed_stays_fixed():
    draws, *_ = earlier()
    fixed = SUPERVISED.with_fixed(gamma=1.0)
    draws = Draws(fixed, {name: draws[name] for name in ("E", "A", "B", "alpha", "beta", "sigma", "nu")})
    earlier_fit = xr.DataTree.from_dict({"posterior": dataset_of(draws)})
    for law in (SUPERVISED, EQUATION_8):
        chosen = choose_priors(earlier_fit, 3.0, default_priors(law, REFERENCE), REFERENCE)
        assert chosen.law.fixed == {"gamma": 1.0}
        assert (chosen.table["gamma"].location, chosen.table["gamma"].scale) == (1.0, 0.0)
        assert chosen.table["gamma"].reason == "fixed in the earlier fit"
        assert "log_gamma" not in chosen.table
        place = chosen.names.index("gamma")
        assert not chosen.covariance[place].any()
        assert not chosen.covariance[:, place].any()
        at = dict(zip(chosen.names, chosen.location, strict=True))
        assert chosen.law.symbols(at, REFERENCE)["gamma"] == 1.0
    # A law that fixes it at the same value needs no coordinate; at another value the two contradict each other.
    assert "log_gamma" not in prior_from_draws(draws, fixed, REFERENCE, 3.0)[0]
    with pytest.raises(ParameterError, match=r"fixes gamma at 0.5.*repeat the earlier fit with gamma = 0.5"):
        prior_from_draws(draws, SUPERVISED.with_fixed(gamma=0.5), REFERENCE, 3.0)


def test_earlier_posteriors_that_cannot_serve():
    draws, *_ = earlier()
    for widen in (0, -1, 0.5, math.nan, math.inf):
        with pytest.raises(ParameterError, match=r"`widen` must be a number from 1 to 1000, got"):
            prior_from_draws(draws, EQUATION_8, REFERENCE, widen)
    with pytest.raises(ParameterError, match="20 draws, but a prior of 17 coordinates requires more than 34"):
        prior_from_draws(draws.take(slice(0, 20)), EQUATION_8, REFERENCE, 1.0)


SHAPE = [
    "log_alpha",
    "log_beta",
    "log_gamma",
    "teacher_power",
    "log_alpha_S",
    "log_beta_S",
    "log_gamma_S",
    "log_gap_strength",
    "log_gap_power",
    "gap_curvature",
]


def test_the_shape_of_a_law_has_no_level_and_no_noise():
    found = {c.name for law in (EQUATION_8, DEFAULT.with_fixed(omega=None)) for c in law.every_coordinate if c.shape}
    assert found == {*SHAPE, "log_power_S", "logit_w1", "log_kappa", "logit_omega"}


@pytest.mark.parametrize("studies", [1, 3])
@pytest.mark.parametrize("between", [0.0, 0.5, 1.0, math.sqrt(2)])
def test_the_shapes_of_earlier_posteriors_are_partially_pooled(between, studies):
    """Against the exact answer: shapes with correlated normal priors, all but one of them observed with a normal likelihood."""
    fits = [earlier(scale=0.02, seed=3 + study)[0] for study in range(studies)]
    wholes = [prior_from_draws(draws, EQUATION_8, REFERENCE, 1.0) for draws in fits]
    names = [name for name in wholes[0][0] if name in SHAPE]
    index = [list(wholes[0][0]).index(name) for name in names]
    prior = {c.name: c.prior for c in EQUATION_8.coordinates}
    center, scale = (np.array([getattr(prior[name], what) for name in names]) for what in ("location", "scale"))
    variance = np.diag(scale**2)
    shared = (1 - between**2 / 2) * variance
    # Of the difference between two shapes.
    np.testing.assert_allclose(np.diagonal(2 * variance - 2 * shared), (between * scale) ** 2, atol=1e-12)
    told, blocks = [], [[shared] * studies for _ in range(studies)]
    for study, (whole, covariance) in enumerate(wholes):
        mean, inverse = (
            np.array([whole[name].location for name in names]),
            np.linalg.inv(covariance[np.ix_(index, index)]),
        )
        precision = inverse - np.linalg.inv(variance)  # the likelihood of the earlier runs
        told.append(np.linalg.solve(precision, inverse @ mean - np.linalg.solve(variance, center)) - center)
        blocks[study] = [variance + np.linalg.inv(precision) if k == study else shared for k in range(studies)]
    gain = np.hstack([shared] * studies) @ np.linalg.inv(np.block(blocks))
    table, found = shape_prior_from_draws([(draws, REFERENCE) for draws in fits], EQUATION_8, 1.0, between)
    assert list(table) == names
    np.testing.assert_allclose([p.location for p in table.values()], center + gain @ np.concatenate(told), atol=1e-7)
    np.testing.assert_allclose(found, variance - gain @ np.vstack([shared] * studies), atol=1e-7)
    if between == math.sqrt(2):
        np.testing.assert_allclose(found, variance, atol=1e-12)


def test_no_earlier_study_leaves_default_priors_without_the_published_law():
    default = default_priors(DEFAULT, REFERENCE)
    chosen = choose_priors([], None, default, REFERENCE, transfer="shape")
    assert chosen.supervised_law == "default priors"
    assert chosen.table == without_published_law(default).table
    np.testing.assert_array_equal(chosen.covariance, without_published_law(default).covariance)


@pytest.mark.parametrize(("kinds", "source"), [({"supervised": False}, ""), ({"supervised": True}, " and runs")])
def test_an_earlier_shape_leaves_levels_and_noise_to_their_default_priors(kinds, source):
    draws, *_ = earlier()
    earlier_fit = xr.DataTree.from_dict({"posterior": dataset_of(draws)})
    default = default_priors(DEFAULT.for_runs(distilled=True, **kinds), OTHER)
    chosen = choose_priors(earlier_fit, None, default, OTHER, transfer="shape")
    assert chosen.supervised_law == f"shape of an earlier posterior{source}"
    independent = {c.name: c.prior for c in default.law.coordinates}
    informed = {name for name in SHAPE if name in chosen.table and not name.endswith("_S")}
    for i, name in enumerate(chosen.names):
        if name in informed:
            assert "shape of an earlier posterior" in chosen.table[name].reason
            assert chosen.table[name].scale < independent[name].scale
        elif name in independent:
            assert (chosen.table[name].location, chosen.table[name].scale) == (
                independent[name].location, independent[name].scale
            )  # fmt: skip
            assert np.flatnonzero(chosen.covariance[i]).tolist() == [i]
    assert chosen.widths == default.widths


def test_an_earlier_shape_does_not_depend_on_the_scale_of_the_new_study():
    draws, *_ = earlier()
    earlier_fit = xr.DataTree.from_dict(
        {"posterior": dataset_of(draws).assign_attrs(reference=json.dumps(asdict(REFERENCE)))}
    )
    found = [
        choose_priors(earlier_fit, None, default_priors(DEFAULT, at), at, transfer="shape") for at in (REFERENCE, OTHER)
    ]
    np.testing.assert_allclose(found[0].location, found[1].location, rtol=1e-12)
    np.testing.assert_allclose(found[0].covariance, found[1].covariance, rtol=1e-12)


def test_an_earlier_shape_keeps_fixed_exponents():
    draws, *_ = earlier()
    fixed = SUPERVISED.with_fixed(gamma=1.0)
    draws = Draws(fixed, {name: draws[name] for name in ("E", "A", "B", "alpha", "beta", "sigma", "nu")})
    earlier_fit = xr.DataTree.from_dict({"posterior": dataset_of(draws)})
    default = default_priors(DEFAULT.for_runs(distilled=True, supervised=True), REFERENCE)
    chosen = choose_priors(earlier_fit, None, default, REFERENCE, transfer="shape")
    assert chosen.law.fixed == {"gamma": 1.0, "omega": 1.0}


# The table ------------------------------------------------------------------------------------------------------------


def test_the_table_of_priors_has_every_coordinate(runs354):
    priors = default_priors(DEFAULT, REFERENCE)
    frame = prior_frame(priors)
    assert list(frame.index) == [*priors.names, "asymptotic_advantage"]
    assert list(frame.columns) == ["location", "scale", "distribution", "reason"]
    assert frame.loc["asymptotic_advantage", "scale"] == 0.005
    assert not frame.isna().any().any()
    without = default_priors(DEFAULT, REFERENCE, asymptotic_width=None)
    assert "asymptotic_advantage" not in prior_frame(without).index
    more = prior_frame(default_priors(DEFAULT, REFERENCE, perfect_teacher_width=0.004, limited_data_width=0.01))
    assert more.loc["perfect_teacher_advantage", "distribution"] == "a ~ Normal(0, 0.004)"
    assert more.loc["limited_data_advantage", "distribution"] == "max(-a, 0) ~ Normal(0, 0.01), flat for a >= 0"
    table = bd.prior_table(runs=runs354)
    assert isinstance(table, pd.DataFrame)
    assert table.index.name == "coordinate"
    assert set(frame.index) <= set(table.index)
    with pytest.raises(ModelError, match="no table of priors"):
        bd.prior_table(xr.DataTree())


def test_priors_are_immutable():
    priors = default_priors(DEFAULT, REFERENCE)
    assert isinstance(priors, Priors)
    with pytest.raises(AttributeError):
        priors.supervised_law = "mine"
    with pytest.raises(AttributeError):
        priors.table["teacher_power"].scale = 1.0
