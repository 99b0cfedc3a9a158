"""Laws as objects: one definition for PyMC and numpy, composition, storage, and the predictive distribution of runs."""

from __future__ import annotations

import json
import pickle
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.decisions.fitted_draws import gather
from bayesdistill.design.candidates import parse_candidates, predict
from bayesdistill.errors import FileError, ModelError, ParameterError
from bayesdistill.law import (
    DISCREPANCIES,
    EFFECTS,
    LAWS,
    RESIDUAL_NOISE,
    TERMS,
    UNITS,
    Coordinate,
    Draws,
    Law,
    Parameter,
    Prior,
    Reference,
    Term,
    as_law,
    forms,
    law_of_json,
)
from bayesdistill.law.discrepancy import Paths
from bayesdistill.law.effects import configuration_groups
from bayesdistill.law.formulas import log
from bayesdistill.law.predictive import (
    Design,
    Deviations,
    cdf,
    expected_loss,
    group_effects,
    logpdf,
    new_group_scale,
    new_run_scale,
    residual_scale,
    residuals,
    with_new_groups,
)
from bayesdistill.model import build_model, reference_run
from bayesdistill.priors import default_priors

PAPER, DEFAULT = LAWS["busbridge2025"], LAWS["tied_reducible"]
REFERENCE = Reference(params=5e8, tokens=2e10, teacher_loss=2.28)
OPTIONAL = ("tied_exponents", "weak_teachers", "soft_targets", "reducible_ratio")

DISTILLED = {
    **LAWS,
    **{f"equation 8 with {name}": PAPER.with_terms(name) for name in OPTIONAL},
    **{f"default without {name}": DEFAULT.without_terms(name) for name in (*OPTIONAL, "capacity_gap")},
    "no capacity gap": PAPER.without_terms("capacity_gap"),
    "omega free": DEFAULT.with_fixed(omega=None),
    "omega 0.6": DEFAULT.with_fixed(omega=0.6),
    "noise by ratio": DEFAULT.with_residual_noise("ratio"),
    "noise by tokens": PAPER.with_residual_noise("tokens"),
    "teacher effects": PAPER.with_effects("teacher"),
    "student effects": PAPER.with_effects("student"),
    "student slopes": PAPER.with_effects("student_slope"),
    "all effects, noise by ratio": DEFAULT.with_effects("teacher", "student", "student_slope").with_residual_noise(
        "ratio"
    ),
}
VARIANTS: dict[str, tuple[Law, bool, bool]] = {name: (law, True, False) for name, law in DISTILLED.items()}
VARIANTS |= {
    "joint": (DEFAULT, True, True),
    "joint, gamma 0.5, noise by tokens": (PAPER.with_fixed(gamma=0.5).with_residual_noise("tokens"), True, True),
    "joint, effects of models": (DEFAULT.with_effects("student", "student_slope", "model"), True, True),
    "supervised": (DEFAULT, False, True),
    "supervised, gamma 1": (PAPER.with_fixed(gamma=1.0), False, True),
    "supervised, effects of models": (DEFAULT.with_effects("model"), False, True),
}


def law_of_variant(name: str) -> Law:
    law, distilled, supervised = VARIANTS[name]
    return law.for_runs(distilled=distilled, supervised=supervised)


@pytest.fixture(scope="module")
def tables(runs354, supervised_runs) -> dict[str, pd.DataFrame]:
    """A few runs of each kind; models of supervised runs have several checkpoints."""
    names = [f"model of {size:g}" for size in supervised_runs["params"]]
    return {
        "distilled": runs354.iloc[::13].reset_index(drop=True),
        "supervised": supervised_runs.assign(model=names),
    }


def python_mode():
    """Evaluate a graph as it stands: rewriting and compiling it takes longer than the tests."""
    from pytensor.compile.mode import Mode

    return Mode(linker="py", optimizer=None)


# One definition for PyMC and numpy ------------------------------------------------------------------------------------


def test_the_table_of_symbols_declares_the_parts_of_laws_and_nothing_else():
    declared = tomllib.loads((Path(bd.__file__).parent / "law" / "symbols.toml").read_text(encoding="utf-8"))
    parts = {*TERMS, *RESIDUAL_NOISE, *(f"discrepancy_{name}" for name in DISCREPANCIES)}
    assert set(declared) | {"constant"} == {*parts, "residual", "residual_supervised", "effects"}
    assert list(declared["effects"]) == list(EFFECTS)
    for name, part in (TERMS | dict(RESIDUAL_NOISE)).items():
        entries = declared.get(name, {})
        assert [p.name for p in part.parameters] == list(entries.get("parameters", {}))
        assert [c.name for c in part.coordinates] == list(entries.get("coordinates", {}))


PARTS = {
    *("omega 0.6", "noise by ratio", "teacher effects", "student effects", "student slopes"),
    *("joint", "supervised, gamma 1"),
    *(name for name in VARIANTS if name.startswith("default without")),  # equation 8 with the others
}
"""Variants whose parts other variants have too."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in PARTS else ()) for name in VARIANTS]
)
def test_the_likelihood_of_the_model_is_that_of_the_predictive_distribution(name, tables):
    law, distilled, supervised = VARIANTS[name]
    runs = tables["distilled"] if distilled else None
    others = tables["supervised"] if supervised else None
    reference = reference_run(runs, others)
    priors = default_priors(law_of_variant(name), reference)
    law = priors.law
    model = build_model(runs, others, priors=priors, reference=reference)
    kinds = {kind: table for kind, table in (("distilled", runs), ("supervised", others)) if table is not None}
    outcome = {"distilled": "student_loss", "supervised": "loss"}
    outputs = [*model.deterministics, *model.logp([model[outcome[kind]] for kind in kinds], sum=False)]
    function = model.compile_fn(
        model.replace_rvs_by_values(outputs), inputs=model.value_vars, mode=python_mode(), on_unused_input="ignore"
    )
    assert {effect.variable.name for effect in law.effects} <= {variable.name for variable in model.deterministics}
    rng = np.random.default_rng(len(name))
    for _ in range(3):
        point = {key: 0.2 * rng.standard_normal(np.shape(value)) for key, value in model.initial_point().items()}
        values = function(point)
        found = {v.name: np.asarray(value) for v, value in zip(model.deterministics, values, strict=False)}
        increments = {one.name: found[one.variable][None] for one in law.discrepancy}
        steps = np.asarray(model.coords.get("step", ()), dtype=int)
        paths = Paths.extended([*increments], 1, increments, steps, None) if increments else None
        draws = Draws(law, {p.name: found[p.name] for p in law.parameters if p.name in found}, reference, paths=paths)
        assert draws.n_draws == 1
        effects = {effect.name: found[effect.variable.name][None] for effect in law.effects}
        for (kind, table), theirs in zip(kinds.items(), values[len(model.deterministics) :], strict=True):
            design = Design.of(law, table, kind)
            center = expected_loss(draws, design) + group_effects(draws, design, effects)
            observed = table[outcome[kind]].to_numpy(dtype=float)
            ours = logpdf(observed, center, residual_scale(draws, design), draws["nu"][:, None])
            np.testing.assert_allclose(ours[0], theirs, rtol=1e-10, atol=1e-10)


# Coordinates and symbols ----------------------------------------------------------------------------------------------


def random_coordinates(law: Law, reference: Reference, count: int = 30) -> dict[str, np.ndarray]:
    """Coordinates around the centers of the priors, fixed symbols under their own names."""
    rng = np.random.default_rng(8)
    priors = default_priors(law, reference)
    noise = 0.3 * rng.standard_normal((len(priors.names), count))
    scale = np.diagonal(priors.covariance)[:, None] ** 0.5
    values = priors.location[:, None] + scale * noise
    return dict(zip(priors.names, values, strict=True))


@pytest.mark.parametrize("reference", [REFERENCE, Reference(3e6, 9e7, 3.4)])
@pytest.mark.parametrize("name", VARIANTS)
def test_symbols_and_coordinates_are_inverse_to_each_other(name, reference):
    law = law_of_variant(name)
    c = random_coordinates(law, reference)
    p = law.symbols(c, reference)
    assert set(p) == {parameter.name for parameter in law.parameters}
    assert law.valid(p).all()
    back = law.coordinates_of(p, reference)
    assert set(back) == set(c)
    for key, value in c.items():
        # u is recovered from d1^(-1/f1), so that the curvature loses digits.
        tolerance = 1e-6 if key == "gap_curvature" else 1e-8
        np.testing.assert_allclose(np.broadcast_to(back[key], value.shape), value, rtol=tolerance, atol=tolerance)
    again = law.symbols(back, reference)
    for symbol, value in p.items():
        np.testing.assert_allclose(again[symbol], value, rtol=1e-6)
    for symbol, value in law.fixed.items():
        np.testing.assert_array_equal(p[symbol], value)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_units_of_the_reference_run_do_not_change_a_loss(name):
    law = law_of_variant(name)
    reduced = law.reduced_symbols(random_coordinates(law, REFERENCE), REFERENCE)
    p = law.rescaled(reduced, REFERENCE)
    for symbol, value in law.in_units_of(p, REFERENCE).items():
        np.testing.assert_allclose(value, reduced[symbol], rtol=1e-12)
    rng = np.random.default_rng(9)
    size, tokens, teacher = 10 ** rng.uniform(7, 11, 30), 10 ** rng.uniform(9, 13, 30), rng.uniform(1.8, 3.5, 30)
    ours = law.supervised_loss(size / REFERENCE.params, tokens / REFERENCE.tokens, reduced)
    np.testing.assert_allclose(ours, law.supervised_loss(size, tokens, p), rtol=1e-12)
    if law.distills:
        student = law.student(size, tokens, reduced, REFERENCE)
        np.testing.assert_allclose(student.tokens, tokens / REFERENCE.tokens, rtol=1e-15)
        ours = law.distilled_loss(student, teacher, reduced)
        np.testing.assert_allclose(ours, law.distilled_loss(law.student(size, tokens, p), teacher, p), rtol=1e-10)


def test_the_named_laws_are_the_public_formula():
    p = LAWS["busbridge2025"].symbols(random_coordinates(PAPER, REFERENCE), REFERENCE)
    extended = PAPER.with_terms("weak_teachers", "soft_targets", "reducible_ratio")
    rng = np.random.default_rng(3)
    more = {"w1": rng.uniform(size=30), "kappa": np.exp(rng.standard_normal(30)), "omega": rng.uniform(size=30)}
    symbols = {name: p[name] for name in PAPER.symbols_of_law}
    for law, given in ((PAPER, symbols), (extended, symbols | more)):
        ours = law.distilled_loss(law.student(1e9, 3e10, given), 2.2, given)
        np.testing.assert_array_equal(ours, bd.distilled_loss(1e9, 3e10, 2.2, **given))
    # At their neutral values the optional terms change nothing.
    neutral = symbols | {"w1": 0.0, "kappa": 1.0, "omega": 0.0}
    ours = extended.distilled_loss(extended.student(1e9, 3e10, neutral), 2.2, neutral)
    np.testing.assert_allclose(ours, bd.distilled_loss(1e9, 3e10, 2.2, **symbols), rtol=1e-14)


# Composition and storage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_a_law_comes_back_from_json_and_from_a_pickle(name):
    law = law_of_variant(name)
    assert law.is_packaged
    for again in (law_of_json(law.to_json()), pickle.loads(pickle.dumps(law))):
        assert again == law
        assert hash(again) == hash(law)
        assert again.to_json() == law.to_json()
        assert again.coordinates == law.coordinates
        # A worker process of a pool has equal parts that are not the same objects.
        assert again.is_packaged
    assert all(one is other for one, other in zip(law_of_json(law.to_json()).terms, law.terms, strict=True))
    json.loads(law.to_json())


def test_different_laws_are_different():
    laws = [law_of_variant(name) for name in VARIANTS]
    texts = {law.to_json() for law in laws}
    assert len(texts) == len(laws)
    assert len(set(laws)) == len(laws)
    assert law_of_json("tied_reducible") == LAWS["tied_reducible"].for_runs(distilled=True, supervised=False)


def test_composition_returns_new_laws():
    law = PAPER.with_terms("weak_teachers").with_effects("student").with_residual_noise("tokens").with_fixed(w1=0.1)
    assert [term.name for term in PAPER.terms] == ["supervised", "student", "capacity_gap"]
    assert (PAPER.effects, PAPER.residual_noise, dict(PAPER.fixed)) == ((), RESIDUAL_NOISE["constant"], {})
    assert "logit_w1" not in [c.name for c in law.coordinates]
    assert dict(law.without_terms("weak_teachers").fixed) == {}
    assert dict(law.with_fixed(w1=None).fixed) == {}
    assert law.with_effects("teacher").effects == (EFFECTS["teacher"],)
    alone = law.for_runs(distilled=False, supervised=True)
    assert ([t.name for t in alone.terms], alone.effects, alone.residual_noise) == (
        ["supervised"],
        (),
        RESIDUAL_NOISE["constant"],
    )
    assert not alone.distills
    assert law.for_runs(distilled=True, supervised=True).parameters[-1].name == "sigma_supervised"
    # A fixed value has no coordinate in the model, and the same law results.
    priors = default_priors(law, REFERENCE)
    assert (priors.table["w1"].location, priors.table["w1"].scale) == (0.1, 0.0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PAPER.with_terms("kappa"), r"no term 'kappa'. Choose from 'supervised', .*'soft_targets'"),
        (lambda: PAPER.with_effects("size"), r"no group effect 'size'. Choose from 'teacher', 'student'"),
        (
            lambda: PAPER.with_residual_noise("r"),
            r"no form of the residual noise 'r'. Choose from 'constant', 'ratio', 'tokens'",
        ),
        (lambda: PAPER.without_terms("weak_teachers"), r"no term 'weak_teachers' to remove; it has \['student'"),
        (lambda: PAPER.without_terms("supervised"), r"no term 'supervised' to remove"),
        (lambda: PAPER.with_terms("student"), r"has the term 'student' twice"),
        (lambda: DEFAULT.with_terms("soft_targets"), r"has the term 'soft_targets' twice"),
        (lambda: PAPER.with_effects("teacher", "teacher"), r"has the group effect 'teacher' twice"),
        (
            lambda: PAPER.with_terms(replace(TERMS["soft_targets"], name="mine")).with_terms("soft_targets"),
            "have the symbol 'kappa'",
        ),
        (lambda: DEFAULT.without_terms("student"), "can describe distilled runs only with the term 'student'"),
        (lambda: Term("mine", kind="other"), "kind 'distilled' or 'supervised', got 'other'"),
        (
            lambda: Term(
                "mine",
                parameters=(bd.Parameter("eta", "1", "eta"),),
                coordinates=(bd.Coordinate("c", "c", bd.Prior(0, 1)),),
            ),
            r"symbols \['eta'\], but its coordinates determine \[\]",
        ),
        (lambda: bd.Parameter("eta", "1", "eta", domain="pos"), "`domain` must be"),
        (lambda: bd.Parameter("draw", "1", "draw"), "symbol cannot be called 'draw'"),
        (lambda: bd.Coordinate("eta", "eta", bd.Prior(0, 1), symbol="eta", link="ln"), "`link` must be"),
        (
            lambda: PAPER.with_fixed(c1=2.0),
            r"Cannot fix 'c1' in the law 'busbridge2025'; it can fix 'alpha', 'beta', 'gamma'",
        ),
        (lambda: PAPER.with_fixed(kappa=2.0), r"Cannot fix 'kappa'"),
        (lambda: DEFAULT.with_fixed(omega=1.5), r"Cannot fix omega at 1\.5: it must be a number from 0 to 1"),
        (lambda: DEFAULT.with_fixed(kappa=-1.0), r"Cannot fix kappa at -1\.0: it must be a positive number"),
        (lambda: DEFAULT.with_fixed(kappa=float("inf")), r"Cannot fix kappa at inf: it must be a positive number"),
        (lambda: Law("mine", "", (TERMS["student"],)), r"first term of the law 'mine' must be 'supervised'"),
        (lambda: as_law("eq. 8"), r"no law 'eq. 8'. Pass a bayesdistill.Law, or choose from 'busbridge2025', "),
        (lambda: as_law(8), r"no law 8. Pass a bayesdistill.Law"),
        (lambda: Draws(PAPER, {"E": 1.2}), r"The draws lack A, B, .*The law 'busbridge2025' has E, A, B"),
        (
            lambda: Draws(PAPER, {**bd.PUBLISHED, "E": np.ones(3), "A": np.ones(4)}),
            r"one value per draw, got different lengths: .*E 3, A 4",
        ),
    ],
)
def test_laws_that_cannot_be_composed_are_rejected(make, words):
    with pytest.raises(ParameterError, match=words):
        make()


@pytest.mark.parametrize("text", ["eq. 8", "{}", "[1]", "null", '{"name": 1, "terms": [{}]}'])
def test_texts_that_are_no_laws_are_rejected(text):
    with pytest.raises(ModelError, match="Cannot read the law"):
        law_of_json(text)


def test_a_part_that_this_version_lacks_is_named():
    stored = json.loads(PAPER.to_json())
    stored["terms"].append("from_the_future")
    with pytest.raises(
        ModelError, match=r"^The law has the term 'from_the_future', which this version of bayesdistill does not"
    ):
        law_of_json(json.dumps(stored))


def test_what_a_law_fixes_stays_fixed_whatever_it_is_fixed_in():
    law = DEFAULT.with_residual_noise("ratio").with_fixed(sigma=0.01, nu=8, sigma_student=0.01, noise_ratio=0.1)
    assert law.for_runs(distilled=True, supervised=False).fixed == law.fixed
    assert law.for_runs(distilled=True, supervised=True).fixed == law.fixed
    assert law.for_runs(distilled=False, supervised=True).fixed == {"sigma": 0.01, "nu": 8.0}


def test_parts_that_share_a_symbol_or_a_coordinate_are_rejected():
    def own(symbol: str, coordinate: str) -> Term:
        found = Coordinate(coordinate, "mine", Prior(0.0, 0.5), symbol=symbol)
        return Term("own", parameters=(Parameter(symbol, "1", "mine"),), coordinates=(found,))

    with pytest.raises(ParameterError, match="have the symbol 'c0'"):
        PAPER.with_terms(own("c0", "eta"))
    with pytest.raises(ParameterError, match="have the coordinate 'log_sigma'"):
        PAPER.with_terms(own("eta", "log_sigma"))


def test_the_units_of_bare_draws_are_themselves_in_another_process():
    assert pickle.loads(pickle.dumps(UNITS)) is UNITS
    assert pickle.loads(pickle.dumps(REFERENCE)) == REFERENCE


# Terms of one's own ---------------------------------------------------------------------------------------------------


def small_term(power: float, sign: float = 1.0) -> Term:
    """The excess of a student times a fixed power of its tokens per parameter."""

    def excess(value, student, p):
        return value + sign * power * (log(student.tokens) - log(student.params))

    return Term("tokens_per_parameter", f"Power {power}.", student_excess=excess)


def test_a_term_of_the_same_name_with_other_code_is_another(monkeypatch):
    monkeypatch.setattr(forms, "_CUSTOM", {})
    first, same, other = small_term(0.01), small_term(0.01), small_term(-0.01, -1.0)
    assert first.digest == same.digest
    assert first.digest != other.digest  # the enclosed values differ
    assert (
        len({first.digest, replace(first, sentence="Other.").digest, replace(first, student_excess=None).digest}) == 3
    )
    law = PAPER.with_terms(first)
    assert not law.is_packaged
    assert replace(PAPER, terms=(*PAPER.terms[:2], replace(TERMS["capacity_gap"]))).to_json() == PAPER.to_json()
    assert not replace(PAPER, terms=(*PAPER.terms[:2], replace(TERMS["capacity_gap"], sentence="Mine."))).is_packaged
    text = law.to_json()
    with pytest.raises(
        ModelError, match=r"term 'tokens_per_parameter', which is not part of bayesdistill. Pass the law"
    ):
        law_of_json(text)
    forms.remember(PAPER.with_terms(replace(first, sentence="Other.")))
    with pytest.raises(ModelError, match="differs from the one of that name in this session"):
        law_of_json(text)
    found = law_of_json(text, law)
    assert found.to_json() == text
    assert found.terms[-1] is first
    assert law_of_json(text).terms[-1] is first


def test_a_fit_with_a_term_of_ones_own_is_loaded_with_its_law_only(tmp_path, monkeypatch):
    monkeypatch.setattr(forms, "_CUSTOM", {})
    law = PAPER.with_terms(small_term(0.01))
    rng = np.random.default_rng(0)
    values = {name: value * np.exp(1e-3 * rng.standard_normal((2, 20))) for name, value in bd.PUBLISHED.items()}
    draws = xr.Dataset({name: (("chain", "draw"), value) for name, value in values.items()})
    fit = xr.DataTree.from_dict({"posterior": posterior.with_law(draws, law, REFERENCE)})
    path = bd.save(fit, tmp_path / "fit.nc")
    assert bd.law_of(bd.load(path)) == law  # this session has seen it
    monkeypatch.setattr(forms, "_CUSTOM", {})
    with pytest.raises(FileError, match=r"fit.nc.*'tokens_per_parameter'.*bd.load\(path, law=...\)"):
        bd.load(path)
    for other in (PAPER, PAPER.with_terms(replace(small_term(0.01), student_excess=small_term(0.5).student_excess))):
        with pytest.raises(FileError, match="tokens_per_parameter"):
            bd.load(path, law=other)
    again = bd.load(path, law=law)
    assert bd.law_of(again) == law
    found = posterior.draws_of(again)
    expected = posterior.draws_of(fit)
    np.testing.assert_array_equal(found.distilled_loss(1e9, 2e10, 2.2), expected.distilled_loss(1e9, 2e10, 2.2))
    # The term is part of the loss.
    plain = Draws(PAPER, found.symbols, REFERENCE)
    factor = (found.distilled_loss(1e9, 2e10, 2.2) - 2.2) / (plain.distilled_loss(1e9, 2e10, 2.2) - 2.2)
    np.testing.assert_allclose(factor, 20**0.01, rtol=1e-12)


def test_a_term_that_depends_on_the_units_is_rejected(runs354):
    def excess(value, student, p):
        return value + 0.01 * student.log_term * student.log_term

    law = PAPER.with_terms(Term("squared", student_excess=excess))
    build_model(runs354.iloc[::40], law=law)  # the sum is the same number in all units

    def relative(value, student, p):
        return value + 0.01 * p["A"]

    with pytest.raises(
        ModelError, match=r"term of the law .*\(supervised, student, capacity_gap, raw\).*Declare `per`"
    ):
        build_model(runs354.iloc[::40], law=PAPER.with_terms(Term("raw", student_excess=relative)))

    more = Term("more", ability_tokens=lambda tokens, p: tokens + 1e10)
    with pytest.raises(ModelError, match=r"for the same run.*must return a multiple of the tokens"):
        build_model(runs354.iloc[::40], law=PAPER.with_terms(more))

    eta = Coordinate("eta", "mine", Prior(0.0, 0.5), symbol="eta")  # without effect where the prior is centered

    def neutral(value, student, p):
        return value + p["eta"] * log(p["B"])

    term = Term("neutral", parameters=(Parameter("eta", "1", "mine"),), coordinates=(eta,), student_excess=neutral)
    with pytest.raises(ModelError, match="Declare `per`"):
        build_model(runs354.iloc[::40], law=PAPER.with_terms(term))


# The predictive distribution ------------------------------------------------------------------------------------------


def draws_with_noise(law: Law, count: int, seed: int = 0, **more: float) -> Draws:
    """The published law `count` times, with residual noise; group effects are 0.01 nats large unless given."""
    rng = np.random.default_rng(seed)
    values = {name: np.full(count, value) for name, value in bd.PUBLISHED.items()}
    values |= {"sigma": 0.005 * np.exp(0.2 * rng.standard_normal(count)), "nu": np.full(count, 6.0)}
    values |= {p.name: np.full(count, p.neutral) for p in law.parameters if p.neutral is not None}
    values |= {effect.scale.name: np.full(count, 0.01) for effect in law.effects}
    return Draws(law, values | {name: np.full(count, value) for name, value in more.items()}, REFERENCE)


@pytest.mark.parametrize("groups", [2, 5, 20])
def test_the_effect_of_a_new_group_is_wider_by_the_mean_of_those_in_the_data(groups):
    rng = np.random.default_rng(groups)
    count, sigma = 200_000, 0.01
    effects = sigma * rng.standard_normal((count, groups + 1))
    # The model's effects sum to zero over the groups in the data: the law goes through their mean.
    effects -= effects[:, :groups].mean(axis=1, keepdims=True)
    expected = sigma * np.sqrt(1 + 1 / groups)
    assert np.std(effects[:, groups]) == pytest.approx(expected, rel=0.01)
    assert new_group_scale(EFFECTS["student"], sigma, groups) == pytest.approx(expected, rel=1e-14)
    assert new_group_scale(EFFECTS["student"], sigma, None) == sigma
    assert new_group_scale(EFFECTS["model"], sigma, groups) == sigma
    # As `with_new_groups` draws them, where one group has no run among those fitted.
    law = PAPER.with_effects("student")
    table = pd.DataFrame(
        {
            "student_params": np.repeat(np.geomspace(1e8, 1e9, groups + 1), 2),
            "student_tokens": 1e10,
            "teacher_loss": 2.3,
            "student_loss": 2.5,
        }
    )
    draws, design = draws_with_noise(law, count), Design.of(law, table)
    kept = configuration_groups(table)[1] < groups
    found = with_new_groups(draws, design, {"student": effects}, kept, rng)["student"]
    np.testing.assert_array_equal(found[:, :groups], effects[:, :groups])
    assert np.std(found[:, groups]) == pytest.approx(expected, rel=0.01)
    assert abs(np.corrcoef(found[:, groups], found[:, 0])[0, 1]) < 0.01
    one = replace(draws.take(slice(5)), groups={"student": groups})
    variance = new_run_scale(one, Design("distilled", np.array([1e9]), np.array([1e10]), np.array([2.3]))) ** 2
    np.testing.assert_allclose(variance[:, 0], one["sigma"] ** 2 + expected**2, rtol=1e-12)


def test_residuals_densities_and_probabilities_are_those_of_scipy():
    rng = np.random.default_rng(2)
    nu = np.array([1.01, 2.5, 8.0, 1e8])[:, None]
    scale, center = np.array([0.003, 0.02, 1.0]), np.array([2.0, 2.5, 3.0])
    observed = center + scale * np.array([[-4.0, 0.1, 2.0]])
    np.testing.assert_allclose(
        logpdf(observed, center, scale, nu), stats.t.logpdf(observed, nu, center, scale), rtol=1e-7, atol=1e-7
    )
    np.testing.assert_allclose(
        logpdf(observed, center, scale, nu[:3]), stats.t.logpdf(observed, nu[:3], center, scale), rtol=1e-12
    )
    np.testing.assert_allclose(cdf(observed, center, scale, nu), stats.t.cdf(observed, nu, center, scale), rtol=1e-10)
    draws = draws_with_noise(PAPER, 20_000, sigma=0.004, nu=3.0)
    drawn = residuals(draws, np.full((20_000, 2), 0.004), rng)
    for column in drawn.T:
        assert stats.kstest(column, stats.t(3.0, scale=0.004).cdf).pvalue > 0.001
    assert abs(np.corrcoef(np.sign(drawn).T)[0, 1]) < 0.04


@pytest.mark.parametrize("form", ["constant", "ratio", "tokens"])
def test_a_pair_of_runs_has_the_same_noise_wherever_it_is_asked(form):
    law = PAPER.with_residual_noise(form).with_effects("teacher", "student", "student_slope")
    more = {} if form == "constant" else {f"noise_{form}": 0.2}
    draws = draws_with_noise(law, 50, **more)
    size = np.geomspace(1e8, 1e10, 6)[:, None, None]
    tokens, teacher = np.geomspace(1e9, 1e12, 5)[:, None], 2.3
    noise = Deviations.draw(draws, 3)
    whole = noise.distilled(size, tokens, teacher)
    assert np.broadcast_shapes(whole.shape, (6, 5, 50)) == (6, 5, 50)
    whole = np.broadcast_to(whole, (6, 5, 50))
    again = Deviations.draw(draws, 3)
    backwards = np.broadcast_to(again.distilled(size[::-1], tokens[::-1], teacher), (6, 5, 50))
    np.testing.assert_array_equal(backwards[::-1, ::-1], whole)
    for i, j in ((5, 4), (0, 0), (2, 3)):
        alone = Deviations.draw(draws, 3).distilled(size[i, 0], tokens[j], teacher)
        np.testing.assert_array_equal(np.broadcast_to(alone, 50), whole[i, j])
    np.testing.assert_array_equal(again.pretrained(1e9, 1e10), noise.pretrained(1e9, 1e10))
    np.testing.assert_array_equal(
        again.difference(1e9, 1e10, 2.3, 1e10), noise.pretrained(1e9, 1e10) - noise.distilled(1e9, 1e10, 2.3)
    )
    assert not np.array_equal(Deviations.draw(draws, 4).pretrained(1e9, 1e10), noise.pretrained(1e9, 1e10))
    # An effect does not depend on which others the law has.
    fewer = law.with_effects("student")
    alone = Deviations.draw(Draws(fewer, draws.symbols, REFERENCE), 3)
    np.testing.assert_array_equal(alone.effects["student"], noise.effects["student"])
    np.testing.assert_array_equal(alone.residual, noise.residual)
    np.testing.assert_array_equal(alone.pretrained(1e9, 1e10), noise.pretrained(1e9, 1e10))


def test_the_noise_of_a_pair_has_the_scale_of_new_runs():
    law = PAPER.with_residual_noise("ratio").with_effects("student", "student_slope")
    draws = draws_with_noise(law, 200_000, sigma=0.01, nu=1e6, noise_ratio=0.3)
    draws = replace(draws, groups={"student": 4, "student_slope": 4})
    noise = Deviations.draw(draws, 0)
    for teacher in (2.0, REFERENCE.teacher_loss, 3.0):
        design = Design("distilled", np.array([1e9]), np.array([2e10]), np.array([teacher]))
        expected = float(new_run_scale(draws.take([0]), design)[0, 0])
        own = bd.supervised_loss(
            1e9, 2e10, **{name: bd.PUBLISHED[name] for name in ("E", "A", "B", "alpha", "beta", "gamma")}
        )
        residual = 0.01 * np.exp(0.3 * np.log(teacher / own) / 0.1)
        axis = 10 * np.log(teacher / REFERENCE.teacher_loss)
        assert expected == pytest.approx(np.sqrt(residual**2 + 0.01**2 * 1.25 * (1 + axis**2)), rel=1e-10)
        assert np.std(noise.distilled(1e9, 2e10, teacher)) == pytest.approx(expected, rel=0.01)
    # The pretrained run has an effect of its configuration as large as that of the distilled one, and shares three quarters of it.
    pretrained = noise.pretrained(1e9, 1e10)
    assert np.std(pretrained) == pytest.approx(np.sqrt(0.01**2 + 0.01**2 * 1.25), rel=0.01)
    distilled = noise.distilled(1e9, 2e10, REFERENCE.teacher_loss)
    assert np.cov(pretrained, distilled)[0, 1] == pytest.approx(0.75 * 0.01**2 * 1.25, rel=0.03)


def test_noise_that_the_draws_lack_is_named(published_draw):
    with pytest.raises(ParameterError, match=r"no sigma and no nu, .*Use a fit that bd.fit returned, or noise='law'"):
        Deviations.draw(posterior.draws_of(published_draw), 0)


# A fit whose residual scale depends on the run ------------------------------------------------------------------------


RATIO = PAPER.with_residual_noise("ratio")


@pytest.fixture(scope="module")
def ratio_fit(runs354):
    with pytest.warns(bd.ConvergenceWarning):
        return bd.fit(runs354.iloc[::3], law=RATIO, draws=150, tune=300, chains=2, seed=4, progress=False)


def with_ratio(fit: xr.DataTree, value: float) -> xr.DataTree:
    """The fit with another dependence of the residual scale on the teacher."""
    other = fit.copy(deep=True)
    draws = other["posterior"].to_dataset()
    other["posterior"] = xr.DataTree(draws.assign(noise_ratio=xr.full_like(draws["noise_ratio"], value)))
    return other


def test_every_answer_uses_the_scale_of_the_run(ratio_fit):
    assert posterior.draws_of(ratio_fit).law == RATIO
    assert "noise_ratio" in ratio_fit["posterior"]
    assert "noise_ratio" in bd.prior_table(ratio_fit).index
    same, steep = with_ratio(ratio_fit, 0.0), with_ratio(ratio_fit, 0.5)
    # Curves: bands of single runs widen with the teacher's loss.
    wide, narrow = (bd.law_curves(fit, points=5, max_draws=300) for fit in (steep, same))
    np.testing.assert_array_equal(wide["upper"], narrow["upper"])
    ratio = (wide["run_upper"] - wide["run_lower"]) / (narrow["run_upper"] - narrow["run_lower"])
    assert (ratio.isel(teacher_loss=-1) > 1.5 * ratio.isel(teacher_loss=0)).all()
    # Plans: the pair of runs has the residual scale of its design.
    arguments = {"students": 1e9, "budgets": [1e21], "scenarios": ["best case"], "allow_unconverged": True}
    plans = {}
    for name, fit in (("same", same), ("steep", steep)):
        with pytest.warns(bd.ConvergenceWarning):
            plans[name] = {noise: bd.plan(fit, noise=noise, seed=5, **arguments) for noise in ("law", "run")}
    np.testing.assert_array_equal(plans["same"]["law"]["advantage"], plans["steep"]["law"]["advantage"])
    for name, fit in (("same", same), ("steep", steep)):
        law, run = (plans[name][noise].squeeze(drop=True) for noise in ("law", "run"))
        draws = posterior.draws_of(fit)
        teacher = run["teacher_loss"].values.ravel()
        expected = Deviations.draw(draws, 5).difference(1e9, float(run["student_tokens"]), teacher, 1e10)
        np.testing.assert_allclose(
            run["advantage"].values.ravel() - law["advantage"].values.ravel(), expected, atol=1e-12
        )
    assert float(abs(plans["same"]["run"]["advantage"] - plans["steep"]["run"]["advantage"]).max()) > 1e-5
    # Candidates: the informative runs have little noise.
    candidates = pd.DataFrame({"student_params": 1e9, "student_tokens": 2e10, "teacher_loss": [2.0, 2.6]})
    parsed = parse_candidates(candidates, bd.Shape())
    with pytest.warns(bd.ConvergenceWarning):
        flat, other = (predict(gather(fit, True), parsed) for fit in (same, steep))
    np.testing.assert_array_equal(flat.scale[0], flat.scale[1])
    np.testing.assert_allclose(other.scale[1] / other.scale[0], np.exp(0.5 * np.log(2.6 / 2.0) / 0.1), rtol=1e-10)
    with pytest.warns(bd.ConvergenceWarning):
        effective = [
            bd.next_runs(fit, candidates, [1e9], [1e21], ["best case"], outcomes=32, allow_unconverged=True)[
                "effective_draws"
            ].values
            for fit in (same, steep)
        ]
    # With less noise an outcome rules out more draws.
    assert effective[1][0] < effective[0][0]
    assert effective[1][1] > effective[0][1]


def test_an_earlier_fit_hands_its_noise_on(ratio_fit, runs354):
    with pytest.warns(bd.ConvergenceWarning):
        again = bd.fit(
            runs354.iloc[1::12], law=RATIO, priors=ratio_fit, draws=20, tune=60, chains=2, seed=1, progress=False
        )
    assert "noise_ratio" in again["posterior"]
    table, default = bd.prior_table(again), bd.prior_table(runs=runs354, law=RATIO)
    earlier = ratio_fit["posterior"]["noise_ratio"].values
    assert table.loc["noise_ratio", "scale"] < default.loc["noise_ratio", "scale"] == 0.3
    assert table.loc["noise_ratio", "location"] == pytest.approx(earlier.mean(), abs=4 * earlier.std())
    assert "earlier posterior" in table.loc["noise_ratio", "reason"]


def test_a_slot_that_fails_names_its_term(runs354):
    def excess(log_excess, student, teacher_loss, log_ratio, p):
        return log_excess + p["theta"]

    law = PAPER.with_terms(Term("mine", excess=excess))
    with pytest.raises(ModelError, match=r"term 'mine' failed in its slot 'excess' \(KeyError: 'theta'\)"):
        bd.build_model(runs354, law=law)
    supervised_only = PAPER.for_runs(distilled=False, supervised=True)
    with pytest.raises(ModelError, match="describes supervised runs only"):
        bd.build_model(runs354, law=supervised_only)


def test_a_coefficient_of_a_power_in_a_users_term_has_both_units(runs354):
    """K / D_S^zeta, added to the student's loss: the model and numpy agree if K declares `per`, and not otherwise."""

    def floor(loss, student, teacher_loss, p):
        return loss + p["K"] * np.exp(-p["zeta"] * np.log(student.tokens))

    def term(per) -> Term:
        prior = bd.Prior(np.log(0.05), 0.3)
        return Term(
            "own_power",
            parameters=(
                bd.Parameter("K", "tokens^zeta", "coefficient", domain="positive", per=per),
                bd.Parameter("zeta", "1", "exponent", domain="positive"),
            ),
            coordinates=(
                bd.Coordinate("log_K", "the coefficient", prior, symbol="K", link="log"),
                bd.Coordinate("log_zeta", "the exponent", bd.Prior(np.log(0.3), 0.3), symbol="zeta", link="log"),
            ),
            floor=floor,
        )

    bd.build_model(runs354, law=PAPER.with_terms(term(("tokens", "zeta"))))
    with pytest.raises(ModelError, match="Declare `per` for its coefficients"):
        bd.build_model(runs354, law=PAPER.with_terms(term(None)))


def test_a_file_is_not_read_with_another_law(fit354, tmp_path):
    path = bd.save(fit354, tmp_path / "fit.nc")
    with pytest.raises(FileError, match="is a fit of the law 'tied_reducible', not of 'busbridge2025'"):
        bd.load(path, law="busbridge2025")
    # As an earlier version wrote it, without naming its law.
    old = fit354.copy()
    old["posterior"] = xr.DataTree(old["posterior"].to_dataset().drop_attrs(deep=False))
    path = bd.save(old, tmp_path / "old.nc")
    with pytest.raises(
        FileError, match=r"not a fit of the law 'busbridge2025': the fit has no .*share_S.*; it has .*log_kappa"
    ):
        bd.load(path, law="busbridge2025")
    with pytest.raises(FileError, match=r"it has .*log_sigma_student, log_sigma_student_slope"):
        bd.load(path, law=DEFAULT.with_effects())
    again = bd.load(path, law="tied_reducible")
    assert bd.law_of(again) == bd.law_of(fit354)
    xr.testing.assert_equal(bd.law_draws(again), bd.law_draws(fit354))


# Residual noise of supervised runs -----------------------------------------------------------------------------------


def test_the_residual_scale_of_supervised_runs_is_a_power_of_their_reducible_loss():
    law = DEFAULT.with_effects().with_discrepancy().for_runs(distilled=False, supervised=True)
    draws = draws_with_noise(law, 3, sigma=0.02, noise_excess=0.7)
    sizes, tokens = np.array([1e8, 1e9, 1e10]), np.array([1e10, 1e10, 1e12])
    six = {name: bd.PUBLISHED[name] for name in ("E", "A", "B", "alpha", "beta", "gamma")}
    loss = bd.supervised_loss(sizes, tokens, **six)
    at_reference = bd.supervised_loss(REFERENCE.params, REFERENCE.tokens, **six)
    expected = 0.02 * ((loss - six["E"]) / (at_reference - six["E"])) ** 0.7
    scale = residual_scale(draws, Design("supervised", sizes, tokens))
    np.testing.assert_allclose(scale, np.broadcast_to(expected, (3, 3)), rtol=1e-12)
    # The PyMC model has the same formula: its log density is that of these scales.
    table = pd.DataFrame({"params": sizes, "tokens": tokens, "loss": loss + np.array([0.01, -0.02, 0.005])})
    noise = Deviations.draw(draws, 1)
    np.testing.assert_allclose(
        noise.pretrained(sizes[0], tokens[0]), expected[0] * noise.pretrained_residual, rtol=1e-12
    )
    model = bd.build_model(supervised=bd.read_runs(table, kind="supervised", allow_suspicious=True), law=law)
    z = np.zeros(len(model.coords["coordinate"]))
    priors = default_priors(law, reference_run(None, table))
    at = law.symbols(dict(zip(priors.names, priors.location, strict=True)), reference_run(None, table))
    center = law.supervised_loss(sizes, tokens, at)
    middle = reference_run(None, table)
    ratio = (center - at["E"]) / (law.supervised_loss(middle.params, middle.tokens, at) - at["E"])
    residual_scales = at["sigma"] * ratio ** at["noise_excess"]
    density = logpdf(table["loss"].to_numpy(), center, residual_scales, at["nu"]).sum()
    prior = -0.5 * len(z) * np.log(2 * np.pi)
    assert float(model.compile_logp()({"z": z})) == pytest.approx(density + prior, rel=1e-10)


def test_forms_of_the_residual_noise_belong_to_a_kind_of_runs():
    constant = DEFAULT.with_residual_noise(supervised="constant")
    assert "noise_excess" not in [p.name for p in constant.for_runs(distilled=False, supervised=True).parameters]
    assert "noise_excess" in [p.name for p in DEFAULT.for_runs(distilled=True, supervised=True).parameters]
    assert "noise_excess" not in [p.name for p in DEFAULT.for_runs(distilled=True, supervised=False).parameters]
    for wrong in ({"noise": "excess"}, {"supervised": "ratio"}):
        with pytest.raises(
            ParameterError, match=r"residual noise '(excess|ratio)' is not one of (distilled|supervised) runs"
        ):
            DEFAULT.with_residual_noise(**wrong)
