from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayesdistill as bd
from bayesdistill import laws
from bayesdistill.errors import ModelError
from bayesdistill.model import build_model, reference_run, student_configurations, teacher_labels
from bayesdistill.priors import ASYMPTOTIC_SIZES, Prior, Priors, Reference, default_priors, with_priors
from bayesdistill.priors.coordinates import (
    distillation_at_reference,
    natural_parameters,
    supervised_at_reference,
)
from bayesdistill.sampling import log_likelihood

SUPERVISED = laws.SUPERVISED_PARAMETERS


def python_mode():
    """Evaluate a graph as it stands: rewriting and compiling it takes longer than the tests."""
    from pytensor.compile.mode import Mode

    return Mode(linker="py", optimizer=None)


@pytest.fixture(scope="module")
def runs(runs354) -> pd.DataFrame:
    """Every seventh of the published runs: teachers, students and experiments of all kinds."""
    return runs354.iloc[::7].reset_index(drop=True)


def points(size: int, count: int = 6, scale: float = 0.3) -> list[np.ndarray]:
    rng = np.random.default_rng(size)
    return [np.zeros(size), *(scale * rng.standard_normal((count - 1, size)))]


# The density, written down a second time with scipy -------------------------------------------------------------------


def symbols_at(z: np.ndarray, priors: Priors, reference: Reference) -> tuple[dict[str, float], dict[str, float]]:
    """The paper's symbols, and the coordinates, at a value of the free variable."""
    root = np.zeros((len(priors.names), int(priors.free.sum())))
    covariance = priors.covariance[np.ix_(priors.free, priors.free)]
    root[priors.free] = np.linalg.cholesky(covariance)
    c = dict(zip(priors.names, priors.location + root @ z, strict=True))
    law = supervised_at_reference(c)
    if "c0" in c:
        law |= distillation_at_reference(c, law, reference)
    return {name: float(value) for name, value in natural_parameters(law, reference).items()}, c


def asymptotic_potential(law: dict[str, float], reference: Reference, width: float) -> float:
    """-1/2 of the mean square of the leads with unlimited data in units of the width, from the laws themselves."""
    squares = []
    for size in np.array(ASYMPTOTIC_SIZES) * reference.params / 5e8:
        alone = laws.supervised_loss(size, np.inf, **{name: law[name] for name in SUPERVISED})
        teacher = law["E"] + laws.ASYMPTOTIC_TEACHERS * (alone - law["E"])
        lead = alone - laws.distilled_loss(size, np.inf, teacher, **law).min()
        squares.append(max(lead, 0.0) ** 2)
    return -0.5 * np.mean(squares) / width**2


def by_hand(
    z: np.ndarray,
    priors: Priors,
    reference: Reference,
    runs: pd.DataFrame | None,
    supervised: pd.DataFrame | None,
) -> float:
    law, c = symbols_at(z, priors, reference)
    sigma, nu = np.exp(c["log_sigma"]), 1 + np.exp(c["log_nu"])
    total = stats.norm.logpdf(z).sum()
    if runs is not None:
        mu = laws.distilled_loss(
            *(runs[name].to_numpy() for name in ("student_params", "student_tokens", "teacher_loss")), **law
        )
        total += stats.t.logpdf(runs["student_loss"].to_numpy(), nu, mu, sigma).sum()
        if priors.asymptotic_width is not None:
            total += asymptotic_potential(law, reference, priors.asymptotic_width)
    if supervised is not None:
        mu = laws.supervised_loss(
            supervised["params"].to_numpy(), supervised["tokens"].to_numpy(), **{name: law[name] for name in SUPERVISED}
        )
        scale = np.exp(c["log_sigma_supervised"]) if "log_sigma_supervised" in c else sigma
        total += stats.t.logpdf(supervised["loss"].to_numpy(), nu, mu, scale).sum()
    return float(total)


CASES = {
    "distilled": {"runs": True, "supervised": False, "asymptotic_width": None},
    "distilled, asymptote": {"runs": True, "supervised": False, "asymptotic_width": 0.005},
    "supervised": {"runs": False, "supervised": True},
    "supervised, gamma = 1": {"runs": False, "supervised": True, "gamma": 1.0},
    "joint": {"runs": True, "supervised": True, "asymptotic_width": None},
    "joint, gamma = 0.5, asymptote": {"runs": True, "supervised": True, "gamma": 0.5, "asymptotic_width": 0.02},
}


def case(name, runs, supervised_runs):
    options = dict(CASES[name])
    table = runs if options.pop("runs") else None
    other = supervised_runs if options.pop("supervised") else None
    reference = reference_run(table, other)
    priors = default_priors(distilled=table is not None, supervised=other is not None, reference=reference, **options)
    if table is not None and other is not None:
        # Broad priors on the supervised law leave the law's neighbourhood; a joint fit never does.
        near = {name: Prior(prior.location, 0.2 * prior.scale) for name, prior in priors.table.items() if prior.scale}
        priors = with_priors(priors, near)
    return table, other, reference, priors


@pytest.mark.parametrize("name", CASES)
def test_the_log_density_and_the_symbols_are_those_written_down(name, runs, supervised_runs):
    table, other, reference, priors = case(name, runs, supervised_runs)
    model = build_model(table, other, priors=priors, reference=reference)
    assert [variable.name for variable in model.free_RVs] == ["z"]
    free = [name for name, is_free in zip(priors.names, priors.free, strict=True) if is_free]
    assert model.coords["coordinate"] == tuple(free)
    symbols = [variable.name for variable in model.deterministics]
    assert set(symbols) == {
        *(laws.LAW_PARAMETERS if table is not None else SUPERVISED),
        "sigma",
        "nu",
        *(["sigma_supervised"] if table is not None and other is not None else []),
    }
    outputs = [model.logp(), *(model[symbol] for symbol in symbols)]
    compiled = model.compile_fn(model.replace_rvs_by_values(outputs), mode=python_mode())
    for z in points(len(free)):
        density, *values = compiled({"z": z})
        expected = by_hand(z, priors, reference, table, other)
        assert np.isfinite(expected)
        assert float(density) == pytest.approx(expected, rel=1e-9, abs=1e-7)
        law, c = symbols_at(z, priors, reference)
        law |= {"sigma": np.exp(c["log_sigma"]), "nu": 1 + np.exp(c["log_nu"])}
        if "sigma_supervised" in symbols:
            law["sigma_supervised"] = np.exp(c["log_sigma_supervised"])
        assert {symbol: float(value) for symbol, value in zip(symbols, values, strict=True)} == pytest.approx(
            law, rel=1e-9
        )
        if "gamma" in CASES[name]:
            assert law["gamma"] == pytest.approx(CASES[name]["gamma"], rel=1e-15)


def test_the_pointwise_log_likelihood_is_that_of_the_model(runs, supervised_runs):
    import xarray as xr

    table, other, reference, priors = case("joint", runs, supervised_runs)
    model = build_model(table, other, priors=priors, reference=reference)
    compiled = model.compile_logp([model["student_loss"], model["loss"]], sum=False, mode=python_mode())
    observed = xr.Dataset(
        {"student_loss": ("run", table["student_loss"]), "loss": ("supervised_run", other["loss"].to_numpy())}
    )
    constant = xr.Dataset(
        {name: ("run", table[name].to_numpy()) for name in ("student_params", "student_tokens", "teacher_loss")}
        | {name: ("supervised_run", other[name].to_numpy()) for name in ("params", "tokens")}
    )
    for z in points(int(priors.free.sum()), count=3):
        law, c = symbols_at(z, priors, reference)
        law |= {"sigma": np.exp(c["log_sigma"]), "nu": 1 + np.exp(c["log_nu"])}
        law |= {"sigma_supervised": np.exp(c["log_sigma_supervised"])}
        draws = xr.Dataset({name: (("chain", "draw"), [[float(value)]]) for name, value in law.items()})
        ours = log_likelihood(draws, observed, constant)
        theirs = compiled({"z": z})
        np.testing.assert_allclose(ours["student_loss"].values.ravel(), theirs[0], rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(ours["loss"].values.ravel(), theirs[1], rtol=1e-8, atol=1e-8)


def test_the_published_law_is_where_the_prior_is_centred(runs):
    reference = reference_run(runs, None)
    priors = default_priors(distilled=True, supervised=False, reference=reference)
    law, _ = symbols_at(np.zeros(int(priors.free.sum())), priors, reference)
    assert {name: law[name] for name in SUPERVISED} == pytest.approx(
        {name: bd.PUBLISHED[name] for name in SUPERVISED}, rel=1e-9
    )


# Runs and reference ---------------------------------------------------------------------------------------------------


def test_the_reference_run_is_the_middle_of_the_design(runs354, supervised_runs):
    middle = {name: float(np.exp(np.log(runs354[name]).mean())) for name in ("student_params", "student_tokens")}
    reference = reference_run(runs354, supervised_runs)
    assert reference.params == pytest.approx(middle["student_params"], rel=0.05)
    assert reference.tokens == pytest.approx(middle["student_tokens"], rel=0.05)
    assert reference.teacher_loss == pytest.approx(np.exp(np.log(runs354["teacher_loss"]).mean()), rel=0.025)
    # Outcomes have no part in it, and one run more or less does not move it.
    changed = runs354.assign(student_loss=runs354["student_loss"] + 1)
    assert reference_run(changed, None) == reference == reference_run(runs354.iloc[1:], None)
    alone = reference_run(None, supervised_runs)
    assert alone.params == pytest.approx(np.exp(np.log(supervised_runs["params"]).mean()), rel=0.05)


def test_no_runs_no_model():
    with pytest.raises(ModelError, match="give distilled runs, supervised runs, or both"):
        build_model()
    with pytest.raises(ModelError, match="give distilled runs, supervised runs, or both"):
        reference_run(None, None)


def test_configurations_and_teachers_of_the_published_runs(runs354):
    distinct, index = student_configurations(runs354)
    # 14 configurations with many teachers, and six large students with one run each.
    assert len(distinct) == 20
    assert (np.bincount(index) > 1).sum() == 14
    np.testing.assert_array_equal(distinct[index], runs354[["student_params", "student_tokens"]].to_numpy())
    names, teacher = teacher_labels(runs354)
    assert len(names) == 65
    assert [names[i] for i in teacher] == runs354["teacher"].tolist()
    unnamed, by_loss = teacher_labels(runs354.drop(columns="teacher"))
    assert [unnamed[i] for i in by_loss] == [f"{loss:.6g}" for loss in runs354["teacher_loss"]]


# Options --------------------------------------------------------------------------------------------------------------


def test_weak_teachers_effects_and_scatter_enter_as_written_down(runs):
    reference = reference_run(runs, None)
    priors = default_priors(
        distilled=True,
        supervised=False,
        reference=reference,
        asymptotic_width=None,
        weak_teacher=True,
        effects=("teacher", "student"),
        noise="ratio",
    )
    model = build_model(runs, priors=priors, reference=reference)
    assert {variable.name for variable in model.free_RVs} == {"z", "z_teacher", "z_student_configuration"}
    density = model.compile_logp(mode=python_mode())
    distinct, configuration = student_configurations(runs)
    names, teacher = teacher_labels(runs)
    rng = np.random.default_rng(0)
    for z in points(int(priors.free.sum()), count=4):
        z_teacher, z_student = rng.standard_normal(len(names)), rng.standard_normal(len(distinct))
        law, c = symbols_at(z, priors, reference)
        size, tokens, weak = (runs[name].to_numpy() for name in ("student_params", "student_tokens", "teacher_loss"))
        own = laws.supervised_loss(size, tokens, **{name: law[name] for name in SUPERVISED})
        mu = laws.distilled_loss(size, tokens, weak, **law)
        mu = mu - np.maximum(weak - own, 0) / (1 + np.exp(-c["logit_w1"]))
        mu = mu + np.exp(c["log_sigma_teacher"]) * z_teacher[teacher]
        mu = mu + np.exp(c["log_sigma_student"]) * z_student[configuration]
        sigma = np.exp(c["log_sigma"] + c["noise_ratio"] * np.log(weak / own) / 0.1)
        expected = stats.t.logpdf(runs["student_loss"].to_numpy(), 1 + np.exp(c["log_nu"]), mu, sigma).sum()
        expected += sum(stats.norm.logpdf(part).sum() for part in (z, z_teacher, z_student))
        found = density({"z": z, "z_teacher": z_teacher, "z_student_configuration": z_student})
        assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-7)
