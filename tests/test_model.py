from __future__ import annotations

import law_names as laws
import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from scipy import stats

import bayesdistill as bd
from bayesdistill.errors import ModelError
from bayesdistill.law import LAWS, Prior, Reference
from bayesdistill.law.effects import student_configurations, teacher_groups
from bayesdistill.model import build_model, reference_run
from bayesdistill.posterior import posterior_dataset, with_law
from bayesdistill.priors import ASYMPTOTIC_SIZES, Priors, default_priors, with_priors
from bayesdistill.sampling.groups import data_groups, log_likelihood

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
    known = {*laws.LAW_PARAMETERS} & {*priors.law.symbols_of_law}
    law = {name: value for name, value in priors.law.symbols(c, reference).items() if name in known}
    if "teacher_power" in c:
        law |= {"kappa": np.exp(c["log_kappa"])} if "log_kappa" in c else {}
        law |= {"omega": 1 / (1 + np.exp(-c["logit_omega"]))} if "logit_omega" in c else {}
        law |= {"omega": c["omega"]} if "omega" in c else {}
    return {name: float(value) for name, value in law.items()}, c


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


PAPER = LAWS["busbridge2025"]
SOFT = PAPER.with_terms("soft_targets", "reducible_ratio")
WEAK = PAPER.with_terms("weak_teachers")
CASES = {
    # name: (distilled runs, supervised runs, law, width of the asymptotic prior)
    "distilled": (True, False, PAPER, None),
    "distilled, asymptote": (True, False, PAPER, 0.005),
    "supervised": (False, True, PAPER, 0.005),
    "supervised, gamma = 1": (False, True, PAPER.with_fixed(gamma=1.0), 0.005),
    "weak": (True, False, WEAK, 0.005),
    "effects": (True, False, WEAK.with_effects("teacher", "student"), 0.005),
    "extended": (True, False, WEAK.with_terms("soft_targets", "reducible_ratio"), 0.005),
    "tied exponents": (True, False, PAPER.with_terms("tied_exponents"), 0.005),
    "asymptote, kappa, omega free": (True, False, SOFT, 0.005),
    "asymptote, kappa, omega 0.8, tied": (True, False, SOFT.with_terms("tied_exponents").with_fixed(omega=0.8), 0.005),
    "noise by ratio": (True, False, PAPER.with_effects("teacher").with_residual_noise("ratio"), 0.005),
    "noise by tokens": (True, False, PAPER.with_residual_noise("tokens"), 0.005),
    "joint": (True, True, PAPER, None),
    "joint, gamma = 0.5, asymptote": (True, True, PAPER.with_fixed(gamma=0.5), 0.02),
}


def case(name, runs, supervised_runs):
    distilled, alone, law, width = CASES[name]
    table, other = runs if distilled else None, supervised_runs if alone else None
    reference = reference_run(table, other)
    priors = default_priors(law.for_runs(distilled=distilled, supervised=alone), reference, asymptotic_width=width)
    if table is not None and other is not None:
        # Broad priors on the supervised law leave the law's neighbourhood; a joint fit never does.
        near = {name: Prior(prior.location, 0.2 * prior.scale) for name, prior in priors.table.items() if prior.scale}
        priors = with_priors(priors, near)
    return table, other, reference, priors


PLAIN = [
    name
    for name, (_, _, law, _) in CASES.items()
    if not law.effects and law.residual_noise.factor is None and "w1" not in law.symbols_of_law
]


@pytest.mark.parametrize("name", PLAIN)
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
        *(["kappa"] if "kappa" in priors.law.symbols_of_law else []),
        # A fixed extension has no variable.
        *(["omega"] if "omega" in {*priors.law.symbols_of_law} - {*priors.law.fixed} else []),
    }
    outputs = [model.logp(), *(model[symbol] for symbol in symbols)]
    compiled = model.compile_fn(model.replace_rvs_by_values(outputs), mode=python_mode())
    for z in points(len(free)):
        density, *values = compiled({"z": z})
        expected = by_hand(z, priors, reference, table, other)
        assert np.isfinite(expected)
        assert float(density) == pytest.approx(expected, rel=1e-9, abs=1e-7)
        law, c = symbols_at(z, priors, reference)
        if "omega" in priors.law.fixed:
            assert law.pop("omega") == 0.8
        law |= {"sigma": np.exp(c["log_sigma"]), "nu": 1 + np.exp(c["log_nu"])}
        if "sigma_supervised" in symbols:
            law["sigma_supervised"] = np.exp(c["log_sigma_supervised"])
        assert {symbol: float(value) for symbol, value in zip(symbols, values, strict=True)} == pytest.approx(
            law, rel=1e-9
        )
        if "gamma" in priors.law.fixed:
            assert law["gamma"] == priors.law.fixed["gamma"] == (0.5 if "joint" in name else 1.0)
    if "omega" in priors.law.fixed:
        # Every posterior has it all the same.
        one = xr.Dataset({name: (("chain", "draw"), np.reshape(float(v), (1, 1))) for name, v in law.items()})
        whole = posterior_dataset(with_law(one, priors.law, reference))
        np.testing.assert_array_equal(whole["omega"], [[0.8]])


@pytest.mark.parametrize(
    "name",
    [
        "joint",
        "extended",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("effects", "noise by ratio")),
        "noise by tokens",
    ],
)
def test_the_pointwise_log_likelihood_is_that_of_the_model(name, runs, supervised_runs):
    table, other, reference, priors = case(name, runs, supervised_runs)
    model = build_model(table, other, priors=priors, reference=reference)
    observed, _ = data_groups(priors.law, table, other)
    outputs = [variable for variable in model.deterministics if variable.name != "z"]
    density = model.compile_logp([model[str(kind)] for kind in observed.data_vars], sum=False, mode=python_mode())
    symbols = model.compile_fn(
        model.replace_rvs_by_values(outputs), inputs=model.value_vars, mode=python_mode(), on_unused_input="ignore"
    )
    rng = np.random.default_rng(3)
    for _ in range(3):
        point = {
            value.name: 0.4 * rng.standard_normal(start.shape)
            for value, start in zip(
                model.value_vars, [model.initial_point()[value.name] for value in model.value_vars], strict=True
            )
        }
        draws = xr.Dataset()
        for output, value in zip(outputs, symbols(point), strict=True):
            dims = next((e.dim for e in priors.law.effects if e.variable.name == output.name), None)
            draws[output.name] = ("chain", "draw", *([dims] if dims else [])), np.asarray(value)[None, None]
        ours = log_likelihood(with_law(draws, priors.law, reference), table, other)
        for kind, theirs in zip(observed.data_vars, density(point), strict=True):
            np.testing.assert_allclose(ours[kind].values.ravel(), theirs, rtol=1e-8, atol=1e-8)


def test_the_shifts_of_groups_that_have_runs_add_up_to_zero(runs, supervised_runs):
    table, other, reference, priors = case("effects", runs, supervised_runs)
    model = build_model(table, other, priors=priors, reference=reference)
    rng = np.random.default_rng(5)
    point = {name: rng.standard_normal(np.shape(value)) for name, value in model.initial_point().items()}
    with model:
        kept = model["configuration_of_run"].get_value() != 0
        for whole in (True, False):
            if not whole:  # a refit that leaves the first configuration out
                lengths = {"run": np.arange(int(kept.sum()))}
                new = {d.name: d.get_value()[kept] for d in model.data_vars if d.get_value().shape == kept.shape}
                pm.set_data(new, coords=lengths)
            [shift] = model.compile_fn(
                model.replace_rvs_by_values([model["effect_student_configuration"]]),
                inputs=model.value_vars,
                on_unused_input="ignore",
                mode=python_mode(),
            )(point)
            assert np.ptp(shift) > 1e-4
            assert shift[0 if whole else 1 :].sum() == pytest.approx(0.0, abs=1e-12)
            assert whole or abs(shift.sum()) > 1e-5


def test_the_published_law_is_where_the_prior_is_centred(runs):
    reference = reference_run(runs, None)
    priors = default_priors("tied_reducible", reference)
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
    with pytest.raises(ModelError, match=r"no runs\. Pass distilled runs, supervised runs, or both"):
        build_model()
    with pytest.raises(ModelError, match=r"no runs\. Pass distilled runs, supervised runs, or both"):
        reference_run(None, None)


def test_configurations_and_teachers_of_the_published_runs(runs354):
    distinct, index = student_configurations(runs354)
    # 14 configurations with many teachers, and six large students with one run each.
    assert len(distinct) == 20
    assert (np.bincount(index) > 1).sum() == 14
    np.testing.assert_array_equal(distinct[index], runs354[["student_params", "student_tokens"]].to_numpy())
    names, teacher = teacher_groups(runs354)
    assert len(names) == 65
    assert [names[i] for i in teacher] == runs354["teacher"].tolist()
    unnamed, by_loss = teacher_groups(runs354.drop(columns="teacher"))
    assert [unnamed[i] for i in by_loss] == [f"{loss:.6g}" for loss in runs354["teacher_loss"]]


# Options --------------------------------------------------------------------------------------------------------------


def test_weak_teachers_effects_and_scatter_enter_as_written_down(runs):
    reference = reference_run(runs, None)
    law = LAWS["tied_reducible"].with_fixed(omega=None).with_residual_noise("ratio").with_discrepancy()
    law = law.with_effects("teacher", "student", "student_slope")
    priors = default_priors(law, reference, asymptotic_width=None)
    model = build_model(runs, priors=priors, reference=reference)
    kinds = {"z", "z_teacher", "z_student_configuration", "z_student_slope"}
    assert {variable.name for variable in model.free_RVs} == kinds
    density = model.compile_logp(mode=python_mode())
    distinct, configuration = student_configurations(runs)
    names, teacher = teacher_groups(runs)
    rng = np.random.default_rng(0)
    for z in points(int(priors.free.sum()), count=4):
        z_teacher, z_student = rng.standard_normal(len(names)), rng.standard_normal(len(distinct))
        z_slope = rng.standard_normal(len(distinct))
        law, c = symbols_at(z, priors, reference)
        size, tokens, weak = (runs[name].to_numpy() for name in ("student_params", "student_tokens", "teacher_loss"))
        own = laws.supervised_loss(size, tokens, **{name: law[name] for name in SUPERVISED})
        able = laws.supervised_loss(size, np.exp(c["log_kappa"]) * tokens, **{name: law[name] for name in SUPERVISED})
        above = able - law["E"] / (1 + np.exp(-c["logit_omega"]))
        ratio = (weak / able) ** (able / above)
        mu = (
            weak
            - np.maximum(weak - own, 0) / (1 + np.exp(-c["logit_w1"]))
            + (above * ratio) ** -law["c0"]
            * (1 + (ratio / law["d1"]) ** (1 / law["f1"])) ** (-law["c1"] * law["f1"])
            * (law["A_S"] / size ** law["alpha_S"] + law["B_S"] / tokens ** law["beta_S"]) ** law["gamma_S"]
        )
        sigma = np.exp(c["log_sigma"] + c["noise_ratio"] * np.log(weak / own) / 0.1)
        raw, raw_density = {}, 0.0
        one, axis = np.ones(len(runs)), 10 * np.log(weak / reference.teacher_loss)
        for name, variable, unit, index, times in (
            ("student_slope", "z_student_slope", z_slope, configuration, axis),
            ("teacher", "z_teacher", z_teacher, teacher, one),
            ("student", "z_student_configuration", z_student, configuration, one),
        ):
            scale = np.exp(c[f"log_sigma_{name}"])
            scatter = sigma * np.sqrt((4 + np.exp(c["log_nu"])) / (2 + np.exp(c["log_nu"])))
            # What is sampled is a shift less what it is expected to be, given the law and the runs, in its own scale.
            miss = mu - runs["student_loss"].to_numpy()
            level, wide = np.zeros((2, index.max() + 1))
            for j in range(len(level)):
                x, y, weight = times[index == j], miss[index == j], scatter[index == j] ** -2
                away = x - np.average(x, weights=weight) if name == "student_slope" else x
                left = 1 / (1 + scale**2 * (weight * away**2).sum())
                level[j] = left * scale**2 * (weight * away * y).sum()
                wide[j] = scale * np.sqrt(left)
            shift, count = scale * unit, level.size
            raw[variable] = (shift + level - level.mean()) / wide
            mu = mu + times * (shift - shift.mean())[index]
            # Sum-to-zero effects are normal in one dimension less; their mean is as wide as the remainders.
            raw_density += stats.norm.logpdf(shift - shift.mean(), scale=scale).sum() + np.log(scale)
            narrow = np.sqrt((wide**2).mean())
            raw_density += -0.5 * (np.sqrt(count) * shift.mean() / narrow) ** 2 - np.log(narrow) + np.log(wide).sum()
        expected = stats.t.logpdf(runs["student_loss"].to_numpy(), 1 + np.exp(c["log_nu"]), mu, sigma).sum()
        expected += stats.norm.logpdf(z).sum() + raw_density
        found = density({"z": z} | raw)
        assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-7)


@pytest.mark.parametrize("name", ["student_configuration", "student_slope"])
def test_the_density_of_sampled_remainders_is_normalized(name, runs):
    """For any law and scales; otherwise the scales would have other priors than the table of priors says."""
    priors = default_priors("tied_reducible", reference_run(runs, None), asymptotic_width=None)
    model = build_model(runs, priors=priors)
    raw = f"z_{name}"
    density = model.compile_fn(
        [*model.replace_rvs_by_values([model[f"{raw}_prior"]]), model.logp(vars=[model[raw]])],
        inputs=model.value_vars,
        on_unused_input="ignore",
        mode=python_mode(),
    )
    start = {key: np.zeros(np.shape(value)) for key, value in model.initial_point().items()}
    count = start[raw].size

    def at(z: np.ndarray, x: np.ndarray) -> float:
        return float(sum(density(start | {"z": z, raw: x})))

    for z in points(int(priors.free.sum()), count=3):
        # A quadratic function of the remainders: its values at a few points determine it exactly.
        unit = np.eye(count)
        middle = at(z, np.zeros(count))
        up, down = (np.array([at(z, sign * e) for e in unit]) for sign in (1, -1))
        gradient, hessian = (up - down) / 2, np.diag(up + down - 2 * middle)
        for i in range(count):
            for j in range(i):
                hessian[i, j] = hessian[j, i] = at(z, unit[i] + unit[j]) - up[i] - up[j] + middle
        log_integral = middle - 0.5 * gradient @ np.linalg.solve(hessian, gradient)
        log_integral += 0.5 * count * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(-hessian)[1]
        assert log_integral == pytest.approx(0.0, abs=1e-6)
