"""Priors from statements of theory about the student of a perfect teacher."""

from __future__ import annotations

import numpy as np
import pytensor
import pytest
from pytensor.compile.mode import Mode
from scipy import stats

import bayesdistill as bd
from bayesdistill.criticism import truths
from bayesdistill.criticism._prior_sensitivity import log_priors
from bayesdistill.law import LAWS, PUBLISHED, Reference
from bayesdistill.model import build_model, reference_run
from bayesdistill.priors import ASYMPTOTIC_SIZES, STATEMENTS, default_priors

REFERENCE = Reference(5e8, 2e10, 2.3)
EQUATION_8, DEFAULT = LAWS["busbridge2025"], LAWS["tied_reducible"]
PERFECT, LIMITED = STATEMENTS["perfect_teacher"], STATEMENTS["limited_data"]
ALL = {"perfect_teacher_width": 0.005, "limited_data_width": 0.01}
NONE = {"asymptotic_width": None}


def columns(draws: list[dict], law) -> dict[str, np.ndarray]:
    return {p.name: np.array([one[p.name] for one in draws])[:, None] for p in law.parameters}


def advantages(statement, draws, law, reference) -> np.ndarray:
    return statement.advantages(law, law.in_units_of(columns(draws, law), reference), reference)


# The advantages -------------------------------------------------------------------------------------------------------


def by_hand(n: float, d: float, p: dict[str, float]) -> float:
    """Lsup - L_S of a perfect teacher, written down with numbers."""
    alone = p["E"] + (p["A"] * n ** -p["alpha"] + p["B"] * d ** -p["beta"]) ** p["gamma"]
    own = (p["A_S"] * n ** -p["alpha_S"] + p["B_S"] * d ** -p["beta_S"]) ** p["gamma_S"]
    ability = p["E"] + (p["A"] * n ** -p["alpha"] + p["B"] * (p.get("kappa", 1) * d) ** -p["beta"]) ** p["gamma"]
    above = ability - p.get("omega", 0) * p["E"]
    r = (p["E"] / ability) ** (ability / above)
    gap = (1 + (r / p["d1"]) ** (1 / p["f1"])) ** (-p["c1"] * p["f1"]) if "c1" in p else 1.0
    return alone - (p["E"] + (above * r) ** -p["c0"] * gap * own)


LAWS_BY_HAND = {
    "no capacity gap": (
        EQUATION_8.without_terms("capacity_gap"),
        {k: v for k, v in PUBLISHED.items() if k not in ("c1", "d1", "f1")},
    ),
    "equation 8": (EQUATION_8, PUBLISHED),
    "reducible ratio": (
        EQUATION_8.with_terms("weak_teachers", "soft_targets", "reducible_ratio"),
        {**PUBLISHED, "c0": 0.8, "c1": 700.0, "d1": 2.9, "f1": 0.23, "w1": 0.3, "kappa": 0.5, "omega": 1.0},
    ),
}


@pytest.mark.parametrize("name", LAWS_BY_HAND)
def test_the_advantages_are_those_written_down(name):
    law, p = LAWS_BY_HAND[name]
    sizes = np.array(ASYMPTOTIC_SIZES) * REFERENCE.params / 5e8
    expected = [by_hand(n, np.inf, p) for n in sizes]
    np.testing.assert_allclose(law.perfect_teacher_advantage(sizes, None, p), expected, atol=1e-9)
    reduced = law.in_units_of(p, REFERENCE)
    np.testing.assert_allclose(PERFECT.advantages(law, reduced, REFERENCE), expected, atol=1e-9)
    limited = [by_hand(n, ratio * n, p) for n in sizes for ratio in (5, 20, 100)]
    np.testing.assert_allclose(LIMITED.advantages(law, reduced, REFERENCE), limited, atol=1e-9)
    # Unlimited data is the limit of much data.
    np.testing.assert_allclose(law.perfect_teacher_advantage(sizes, 1e40, p), expected, atol=1e-9)


@pytest.mark.parametrize(("violation", "expected"), [("a", 10.0), ("max(a, 0)", 9.0), ("max(-a, 0)", 1.0)])
def test_the_density_penalizes_violations_alone(violation, expected):
    def given(law, reduced, reference):
        return np.array([[0.003, -0.001], [0.0, 0.0]])

    found = bd.priors.Statement("mine", violation, "", given).log_density(DEFAULT, {}, REFERENCE, 0.001)
    np.testing.assert_allclose(found, [-0.5 * expected / 2, 0.0])


@pytest.mark.parametrize("name", ["tied_reducible", "busbridge2025"])
def test_the_model_has_the_same_density_and_a_finite_gradient(name, runs354):
    runs = runs354.iloc[::40]
    reference = reference_run(runs, None)
    law = LAWS[name].with_effects().with_discrepancy().for_tables(runs, None)
    priors = default_priors(law, reference, **ALL)
    model = build_model(runs, priors=priors, reference=reference)
    terms = model.logp(vars=[model[f"{statement}_prior"] for statement in STATEMENTS], sum=False)
    (value,) = model.value_vars
    slopes = [pytensor.grad(term, value) for term in terms]
    function = pytensor.function([value], [*terms, *slopes], mode=Mode(linker="py", optimizer=None))
    for z in 2 * np.random.default_rng(0).standard_normal((5, priors.factor.shape[1])):
        reduced, _ = truths._symbols(priors, reference, z)
        expected = [s.log_density(law, reduced, reference, width) for s, width in priors.theory.items()]
        found = function(z)
        np.testing.assert_allclose(found[:3], expected, rtol=1e-8)
        assert np.isfinite(found[3:]).all()


# Prior draws ----------------------------------------------------------------------------------------------------------


def test_prior_draws_obey_each_statement(runs354):
    reference = reference_run(runs354, None)
    law = EQUATION_8.for_tables(runs354, None)
    free = truths.draw_truths(default_priors(law, reference, **NONE), reference, 50, seed=1)
    assert np.abs(advantages(PERFECT, free, law, reference)).max() > 1
    assert advantages(LIMITED, free, law, reference).min() < -1
    priors = default_priors(law, reference, perfect_teacher_width=0.005, **NONE)
    perfect = truths.draw_truths(priors, reference, 100, seed=1)
    assert len({one["E"] for one in perfect}) == 100
    assert all(np.allclose(truths._symbols(priors, reference, one["z"])[1]["c0"], one["c0"]) for one in perfect[:5])
    violation = np.sqrt(np.mean(advantages(PERFECT, perfect, law, reference) ** 2, axis=1))
    assert violation.max() < 6 * 0.005
    assert (advantages(PERFECT, perfect, law, reference).mean(axis=1) > 0).mean() == pytest.approx(0.5, abs=0.3)
    limited = truths.draw_truths(default_priors(law, reference, limited_data_width=0.01, **NONE), reference, 50, seed=1)
    found = advantages(LIMITED, limited, law, reference)
    assert np.sqrt(np.mean(np.minimum(found, 0) ** 2, axis=1)).max() < 6 * 0.01
    assert np.median(found) > 0.1
    # Simulated runs are those of the accepted laws.
    seen = bd.prior_predictive(
        runs354, law="busbridge2025", prior_settings={"perfect_teacher_width": 0.005} | NONE, draws=20
    )
    assert seen.attrs["perfect_teacher_width"] == 0.005
    assert seen.attrs["limited_data_width"] == "none"
    assert np.isfinite(seen["expected"].values).all()


def test_annealed_draws_are_those_of_weighted_prior_draws(runs354):
    reference = reference_run(runs354, None)
    law = EQUATION_8.for_tables(runs354, None)
    priors = default_priors(law, reference, perfect_teacher_width=0.3, limited_data_width=0.1, **NONE)
    rng = np.random.default_rng(4)
    z = rng.standard_normal((40_000, priors.factor.shape[1]))
    with np.errstate(all="ignore"):
        reduced, _ = truths._symbols(priors, reference, z)
        density = truths._log_theory(priors, {name: value[:, None] for name, value in reduced.items()}, reference)
    accepted = z[np.log(rng.uniform(size=len(z))) < density]
    assert len(accepted) > 1000
    found = np.array([one["z"] for one in truths.draw_truths(priors, reference, 600, seed=5)])
    # Resampled draws are not quite independent, so that the threshold is lower than for exact draws.
    pvalues = [stats.ks_2samp(one, other).pvalue for one, other in zip(accepted.T, found.T, strict=True)]
    assert min(pvalues) > 1e-4
    moved = [stats.kstest(one, "norm").pvalue for one in accepted.T]
    assert min(moved) < 1e-20  # so that unconstrained draws would fail


# Fits -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayesdistill.errors.ConvergenceWarning")
def test_each_statement_moves_the_advantages_of_a_fit(runs354, tmp_path):
    runs = runs354.iloc[::4]

    def fitted(**settings):
        return bd.fit(runs, law="busbridge2025", seed=1, draws=200, tune=400, progress=False, **settings)

    def means(fit, statement):
        draws, reference = bd.posterior.draws_of(fit), bd.posterior.reference_of(fit)
        reduced = draws.law.in_units_of(draws.columns, reference)
        return statement.advantages(draws.law, reduced, reference).mean(axis=0)

    free = fitted(**NONE)
    assert means(free, PERFECT).mean() < -0.1
    assert means(free, LIMITED).mean() < -0.1
    perfect = fitted(perfect_teacher_width=0.005, **NONE)
    assert np.sqrt(np.mean(means(perfect, PERFECT) ** 2)) < 0.03
    limited = fitted(limited_data_width=0.01, **NONE)
    assert means(limited, LIMITED).min() > -0.1
    assert means(limited, LIMITED).mean() > -0.03
    everything = fitted(**ALL)
    assert (means(everything, STATEMENTS["asymptotic"]) < means(free, STATEMENTS["asymptotic"])).all()

    # The fit says which priors it has.
    bd.save(everything, tmp_path / "fit.nc")
    loaded = bd.load(tmp_path / "fit.nc")
    assert {name: bd.provenance(loaded)[name] for name in ALL} == ALL
    assert {f"{name}_advantage" for name in STATEMENTS} <= set(bd.prior_table(loaded).index)
    text = bd.methods_text(loaded)
    assert "width of 0.005 nats was used for the advantage of the student of a perfect teacher" in text
    assert "width of 0.01 nats, which favors distillation" in text
    model = build_model(
        runs, priors=default_priors(bd.posterior.draws_of(loaded).law, reference_run(runs, None), **ALL)
    )
    found = log_priors(loaded).isel(chain=0, draw=0)
    for name in STATEMENTS:
        point = model.initial_point() | {"z": loaded["posterior"]["z"].isel(chain=0, draw=0).values}
        term = model.compile_logp(vars=[model[f"{name}_prior"]])
        assert float(found[name]) == pytest.approx(float(term(point)), rel=1e-8)
