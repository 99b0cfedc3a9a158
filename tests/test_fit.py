"""The real fit of the published runs, and real fits of simulated ones. Nothing here is mocked."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from law_names import DISTILLATION_PARAMETERS, EXTENSION_PARAMETERS, LAW_PARAMETERS, SUPERVISED_PARAMETERS
from scipy import stats

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.criticism.refits import prepare_refits, refit
from bayesdistill.datasets import data_hash
from bayesdistill.errors import ConvergenceWarning, DataError, ModelError, ParameterError
from bayesdistill.law import LAWS, Prior
from bayesdistill.law.effects import student_configurations
from bayesdistill.law.predictive import Design, expected_loss, group_effects, with_new_groups
from bayesdistill.model import reference_run
from bayesdistill.priors import default_priors
from bayesdistill.sampling._prior_table import choose_priors

GAMMA_ONE = bd.LAWS["tied_reducible"].with_discrepancy().with_fixed(gamma=1.0)
SIGMA, NU, SIGMA_SUPERVISED = 0.007, 8.0, 0.004

# A law of the default model, about where the published runs put it, around the published supervised law.
TRUTH = {name: bd.PUBLISHED[name] for name in SUPERVISED_PARAMETERS} | {"w1": 0.05, "kappa": 2.4, "omega": 1.0}
TRUTH |= {"A_S": 0.28 * TRUTH["A"], "B_S": 0.28 * TRUTH["B"] * 2.4 ** -TRUTH["beta"], "gamma_S": 1.6 * TRUTH["gamma"]}
TRUTH |= {"alpha_S": TRUTH["alpha"], "beta_S": TRUTH["beta"], "c0": 0.82, "c1": 700.0, "d1": 2.87, "f1": 0.234}


@pytest.fixture(scope="module")
def simulated() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Distilled and supervised runs of one study that obeys a known law."""
    distilled = bd.simulate_runs(TRUTH, seed=101, sigma=SIGMA, nu=NU)
    supervised = bd.simulate_runs(TRUTH, kind="supervised", seed=102, sigma=SIGMA_SUPERVISED, nu=NU)
    return distilled, supervised


@pytest.fixture(scope="module")
def joint(simulated) -> xr.DataTree:
    return bd.fit(*simulated, seed=1, progress=False)


@pytest.fixture(scope="module")
def chinchilla(supervised_runs) -> xr.DataTree:
    """The supervised law alone, with gamma = 1."""
    return bd.fit(
        supervised=supervised_runs, law=GAMMA_ONE, draws=500, tune=500, chains=3, seed=3, cores=2, progress=False
    )


# The published runs ---------------------------------------------------------------------------------------------------


def test_the_published_runs_sample_cleanly(fit354):
    import arviz as az

    draws = fit354["posterior"].to_dataset()
    assert (draws.sizes["chain"], draws.sizes["draw"]) == (4, 1000)
    assert int(fit354["sample_stats"]["diverging"].sum()) == 0
    assert int(fit354["sample_stats"]["maxdepth_reached"].sum()) == 0
    assert float(az.rhat(draws).to_array("variable").max()) < 1.01
    # The thresholds of `check` ask for 400.
    assert float(az.ess(draws, method="bulk").to_array("variable").min()) > 600
    assert float(az.ess(draws, method="tail").to_array("variable").min()) > 700
    found = bd.check(fit354)
    assert found.ok is True
    assert found.problems == ()


def test_the_law_fits_the_published_runs(fit354, runs354):
    draws = posterior.draws_of(fit354)
    law = expected_loss(draws, Design.of(draws.law, runs354, "distilled")).mean(axis=0)
    residual = runs354["student_loss"].to_numpy() - law
    assert np.sqrt(np.square(residual).mean()) < 0.012
    # The shifts of configurations, a few hundredths of a nat at most, take away most of what is left.
    shift = posterior.mean(fit354["posterior"]["effect_student_configuration"]).values
    left = residual - shift[posterior.seen_runs(fit354)["configuration_of_run"].values]
    assert abs(np.median(left)) < 0.001
    assert np.sqrt(np.square(left).mean()) < 0.006
    assert np.abs(shift).max() < 0.03


def test_what_a_fit_holds(fit354, runs354):
    assert set(fit354.children) == {
        "posterior",
        "sample_stats",
        "log_likelihood",
        "observed_data",
        "constant_data",
        "prior_table",
    }
    drawn = fit354["posterior"].to_dataset()
    assert set(LAW_PARAMETERS) | {"sigma", "nu", "z"} <= set(drawn.data_vars)
    for group in ("posterior", "observed_data", "constant_data", "log_likelihood"):
        for name, variable in fit354[group].data_vars.items():
            if variable.dtype.kind == "f":
                assert variable.attrs["units"], name
                assert variable.attrs["long_name"], name
    seen = posterior.seen_runs(fit354)
    for name in ("student_params", "student_tokens", "teacher_loss"):
        np.testing.assert_array_equal(seen[name], runs354[name])
    assert seen["teacher"].values.tolist() == runs354["teacher"].tolist()
    np.testing.assert_array_equal(posterior.observed_runs(fit354)["student_loss"], runs354["student_loss"])
    assert posterior.is_distilled(fit354)


def path_by_hand(draw, columns, reference):
    """The discrepancy of the default law at distilled runs: increments between whole u are added up from 0, the last one in part."""
    found = []
    for u in np.log(columns[0] * columns[1] / (reference.params * reference.tokens)):
        total = 0.0
        for step in draw["step"].values:
            part = min(max(u - step, 0), 1) if step >= 0 else -min(max(step + 1 - u, 0), 1)
            at = draw.sel(step=step)
            total += part * float(
                at["discrepancy_shared"] * at["path_shared"] + at["discrepancy_distilled"] * at["path_distilled"]
            )
        found.append(total * np.hypot(draw["sigma"], draw["sigma_student"]))
    return np.array(found)


def test_the_log_likelihood_is_student_t_around_the_law(fit354, runs354):
    found = fit354["log_likelihood"]["student_loss"]
    assert found.dims == ("chain", "draw", "run")
    draws = posterior.posterior_dataset(fit354)
    columns = [runs354[name].to_numpy() for name in ("student_params", "student_tokens", "teacher_loss")]
    for chain, draw in ((0, 0), (2, 511), (3, 999)):
        one = {
            name: float(draws[name][chain, draw]) for name in (*LAW_PARAMETERS, *EXTENSION_PARAMETERS, "sigma", "nu")
        }
        sigma, nu = one.pop("sigma"), one.pop("nu")
        configuration = student_configurations(runs354)[1]
        shift = draws["effect_student_configuration"][chain, draw].values[configuration]
        slope = draws["effect_student_slope"][chain, draw].values[configuration]
        law = bd.distilled_loss(*columns, **one) + shift + slope * 10 * np.log(columns[2] / 2.3)
        law += path_by_hand(draws.isel(chain=chain, draw=draw), columns, posterior.reference_of(fit354))
        expected = stats.t.logpdf(runs354["student_loss"].to_numpy(), nu, law, sigma)
        np.testing.assert_allclose(found[chain, draw], expected, rtol=1e-10, atol=1e-10)


def test_more_tokens_help_in_every_draw(fit354):
    """What `strategies` relies on to spend the whole budget."""
    assert "omega" not in fit354["posterior"]
    assert (posterior.law_draws(fit354)["omega"] == 1).all()
    draws = posterior.law_draws(fit354)
    assert (draws["alpha_S"] == draws["alpha"]).all()
    assert (draws["gamma_S"] / draws["gamma"] > draws["c0"]).all()
    assert (draws["c0"] > 0).all()


@pytest.mark.slow
def test_slopes_of_configurations_go_through_everything_that_uses_scatter(runs354, tmp_path):
    with pytest.warns(ConvergenceWarning):  # a short one
        made = bd.fit(runs354, draws=80, tune=300, seed=3, progress=False)
    bd.save(made, tmp_path / "fit.nc")
    fit = bd.load(tmp_path / "fit.nc")
    draws = posterior.posterior_dataset(fit)
    columns = [runs354[name].to_numpy() for name in ("student_params", "student_tokens", "teacher_loss")]
    configuration = student_configurations(runs354)[1]
    axis = 10 * np.log(columns[2] / 2.3)  # 2.3 nats is the reference run's teacher
    assert posterior.reference_of(fit).teacher_loss == 2.3
    one = {name: float(draws[name][1, 50]) for name in LAW_PARAMETERS + EXTENSION_PARAMETERS}
    shift, slope = (draws[f"effect_student_{name}"][1, 50].values for name in ("configuration", "slope"))
    assert abs(slope.sum()) < 1e-12 < 1e-4 < np.ptp(slope)
    center = bd.distilled_loss(*columns, **one) + shift[configuration] + slope[configuration] * axis
    center += path_by_hand(draws.isel(chain=1, draw=50), columns, posterior.reference_of(fit))
    sigma, nu = (float(draws[name][1, 50]) for name in ("sigma", "nu"))
    expected = stats.t.logpdf(runs354["student_loss"].to_numpy(), nu, center, sigma)
    np.testing.assert_allclose(fit["log_likelihood"]["student_loss"][1, 50], expected, rtol=1e-10, atol=1e-10)
    flat, effects = posterior.draws_of(fit), posterior.effects_of(fit)
    design = Design.of(flat.law, runs354)
    fitted = expected_loss(flat, design) + group_effects(flat, design, effects)
    np.testing.assert_allclose(fitted[130], center, rtol=1e-12)
    # Without its own runs a configuration draws both anew, wider for teachers far from where slopes begin.
    kept = configuration != 3
    unseen = with_new_groups(flat, design, effects, kept, np.random.default_rng(0))
    drawn = group_effects(flat, design, unseen)
    np.testing.assert_allclose(drawn[130][kept], (shift[configuration] + slope[configuration] * axis)[kept], rtol=1e-9)
    spread = np.sqrt(
        np.mean(draws["sigma_student"] ** 2 + draws["sigma_student_slope"] ** 2 * axis[configuration == 3][0] ** 2)
    )
    assert drawn[:, ~kept][:, 0].std() == pytest.approx(float(spread) * np.sqrt(1 + 1 / 19), rel=0.15)
    plain = fit.copy()
    law = bd.law_of(fit).with_effects("student")
    plain["posterior"] = xr.DataTree(draws.drop_vars("sigma_student_slope").assign_attrs(law=law.to_json()))
    width, less = (
        (curves["run_upper"] - curves["run_lower"]).mean("configuration")
        for curves in (bd.law_curves(one, points=45, prob=0.8) for one in (fit, plain))
    )
    wider = width / less
    assert (wider.isel(teacher_loss=[0, -1]) > 1.03).all()
    assert float(wider.interp(teacher_loss=2.3)) == pytest.approx(1, abs=0.01)
    # What a later study starts from, and what a report says.
    later = choose_priors(
        fit,
        2.0,
        default_priors("tied_reducible", reference_run(runs354, None)),
        reference_run(runs354, None),
    )
    found = later.table["log_sigma_student_slope"]
    assert "earlier posterior" in found.reason
    assert "random slope over the logarithm of the teacher's loss" in bd.methods_text(fit)


def test_decisions_take_the_draws_of_a_refit(runs354):
    reference = reference_run(runs354, None)
    law = LAWS["busbridge2025"].with_effects("student")  # compiled in half of the time of the default law
    priors = default_priors(law, reference, asymptotic_width=None)
    made = refit(prepare_refits(runs354, priors), draws=30, tune=200, seed=1)
    assert posterior.reference_of(made) == reference
    spread = {}
    for noise in ("law", "run"):
        with pytest.warns(ConvergenceWarning):
            plan = bd.plan(made, "1B", "1e21", "best case", noise=noise, allow_unconverged=True)
        spread[noise] = float(plan["advantage"].std())
    scales = posterior.draws_of(made)["sigma_student"]
    # The effects of the two runs have a correlation of 0.75, so that their difference has half of the variance of one.
    assert spread["run"] ** 2 - spread["law"] ** 2 > 0.4 * float((scales**2).mean())


def test_arviz_works_on_a_fit(fit354):
    import arviz as az

    summary = az.summary(fit354, var_names=["E", "c0", "sigma"])
    assert list(summary.index) == ["E", "c0", "sigma"]
    # Configurations with a single run: leaving it out leaves their shift to the prior.
    alone = np.bincount(posterior.seen_runs(fit354)["configuration_of_run"].values) == 1
    with pytest.warns(UserWarning, match="shape parameter of Pareto distribution"):
        loo = az.loo(fit354, pointwise=True)
    assert loo.n_data_points == 354
    assert 0 < (loo.pareto_k > 0.7).sum() <= 2 * alone.sum()
    # Fewer effective parameters than there are: coordinates, shifts and slopes of configurations, which add up to zero.
    assert 17 < loo.p < fit354["posterior"].sizes["coordinate"] + 2 * (alone.size - 1)
    assert az.extract(fit354, var_names=["E"]).sizes["sample"] == 4000
    assert not az.diagnose(fit354)
    assert (az.bfmi(fit354)["energy"] > 0.3).all()


def test_provenance_is_complete(fit354, runs354):
    found = bd.provenance(fit354)
    assert set(found) >= {
        "versions",
        "sampler",
        "backend",
        "seed",
        "settings",
        "data",
        "reference",
        "supervised_law",
        "asymptotic_width",
        "perfect_teacher_width",
        "limited_data_width",
        "priors",
        "started",
        "seconds",
    }
    assert found["seed"] == 0
    assert found["backend"] == "llvm"
    assert "nutpie" in found["sampler"]
    assert found["settings"] == {"draws": 1000, "tune": 1000, "chains": 4, "target_accept": 0.95, "maxdepth": 6}
    for name in ("bayesdistill", "pymc", "nutpie", "pytensor", "arviz", "xarray", "numpy"):
        assert found["versions"][name] == version(name)
    assert found["data"]["distilled"] == {
        "runs": 354,
        "sha256": data_hash(runs354),
        "source": "busbridge2025/distilled",
    }
    assert found["supervised_law"] == "published law"
    assert set(found["reference"]) == {"params", "tokens", "teacher_loss"}
    assert set(found["priors"]) >= {"log_loss", "teacher_power", "log_gap_power", "log_sigma", "log_nu"}
    assert pd.Timestamp(found["started"]) <= pd.Timestamp.now(tz="UTC")
    assert found["seconds"] > 0
    assert fit354.attrs["bayesdistill_format"] == posterior.FORMAT
    table = bd.prior_table(fit354)
    assert set(found["priors"]) <= set(table.index)
    assert table.loc["log_kappa", "distribution"] == found["priors"]["log_kappa"]


# Plans of the real fit ------------------------------------------------------------------------------------------------


def test_who_pays_for_the_teacher_decides_at_moderate_budgets(fit354):
    plan = bd.plan(fit354, ["1B", "3B"], 3e20, ["best case", "teacher pretraining + inference"])
    assert plan.attrs["converged"] == "yes"
    alone = plan["probability"].sel(scenario="teacher pretraining + inference", budget=3e20)
    shared = plan["probability"].sel(scenario="best case", budget=3e20)
    assert (alone < 0.5).all()
    assert (shared > 0.5).all()
    for name in ("probability_best", "expected_gain"):
        middle = 0.5 if name == "probability_best" else 0.0
        assert (plan[name].sel(scenario="best case") > middle).all()
        assert (plan[name].sel(scenario="teacher pretraining + inference") < middle).all()


def test_saving_loading_and_planning_again_changes_nothing(fit354, tmp_path):
    path = bd.save(fit354, tmp_path / "fit.nc")
    loaded = bd.load(path)
    xr.testing.assert_identical(loaded, fit354)
    asked = {"students": ["300M", "3B"], "budgets": [1e20, 1e22], "scenarios": ["teacher inference"]}
    ours, theirs = (bd.plan(one, **asked) for one in (fit354, loaded))
    xr.testing.assert_identical(ours, theirs)
    again = bd.load(bd.save(ours, tmp_path / "plan.nc"))
    xr.testing.assert_equal(again, ours)
    for name in ours.variables:
        assert str(again[name].attrs) == str(ours[name].attrs), name


# Simulated runs -------------------------------------------------------------------------------------------------------


def test_parameters_are_recovered_from_simulated_runs(joint):
    assert bd.check(joint).ok is True
    draws = posterior.posterior_dataset(joint)
    truth = TRUTH | {"sigma": SIGMA, "sigma_supervised": SIGMA_SUPERVISED, "nu": NU}
    assert (draws["omega"] == 1).all()
    below = {name: float((draws[name] < value).mean()) for name, value in truth.items() if name != "omega"}
    # Every parameter lies within the central 99.8% of its posterior.
    assert {name: share for name, share in below.items() if not 0.001 < share < 0.999} == {}
    # What the runs pin down is near the truth, not only within a wide posterior. (gamma and gamma_S trade off with the rest.)
    for name, tolerance in (("E", 0.02), ("sigma", 0.15), ("sigma_supervised", 0.45), ("c0", 0.1)):
        assert float(posterior.median(draws[name])) == pytest.approx(truth[name], rel=tolerance), name
    strength, actual = (p["c1"] * p["f1"] * np.log1p(p["d1"] ** (-1 / p["f1"])) for p in (draws, truth))
    assert float(posterior.median(strength)) == pytest.approx(actual, rel=0.1)
    assert float(abs(strength.mean() - actual) / strength.std()) < 4


def test_the_law_is_recovered_from_simulated_runs(joint):
    law = posterior.law_draws(joint)
    size, tokens = np.array([2e8, 1e9, 5e9]), np.array([8e9, 3e10, 1e11])
    n, d = xr.DataArray(size, dims="student"), xr.DataArray(tokens, dims="student")
    t = xr.DataArray([1.95, 2.1, 2.3, 2.6], dims="teacher")
    six = {name: law[name] for name in SUPERVISED_PARAMETERS}
    for found, truth in (
        (bd.distilled_loss(n, d, t, **law), bd.distilled_loss(n, d, t, **TRUTH)),
        (
            bd.supervised_loss(n, d, **six),
            bd.supervised_loss(n, d, **{name: TRUTH[name] for name in SUPERVISED_PARAMETERS}),
        ),
    ):
        score = (posterior.mean(found) - truth) / found.std(("chain", "draw"))
        assert float(abs(score).max()) < 4
        assert float((score**2).mean()) < 3
        assert float(abs(posterior.mean(found) - truth).max()) < 0.01


def test_a_joint_fit_holds_both_kinds_of_runs(joint, simulated):
    distilled, supervised = simulated
    seen = posterior.seen_runs(joint)
    np.testing.assert_array_equal(seen["params"], supervised["params"])
    np.testing.assert_array_equal(posterior.observed_runs(joint)["loss"], supervised["loss"])
    assert joint["log_likelihood"]["loss"].dims == ("chain", "draw", "supervised_run")
    found = bd.provenance(joint)
    assert {kind: value["runs"] for kind, value in found["data"].items()} == {
        "distilled": len(distilled),
        "supervised": len(supervised),
    }
    assert found["supervised_law"] == "runs"
    assert found["asymptotic_width"] == 0.005


# The supervised law alone; seeds; global state ------------------------------------------------------------------------


def test_the_supervised_law_alone_with_gamma_one(chinchilla, supervised_runs):
    draws = chinchilla["posterior"].to_dataset()
    assert not posterior.is_distilled(chinchilla)
    assert not set(DISTILLATION_PARAMETERS) & set(draws.data_vars)
    np.testing.assert_array_equal(draws["gamma"], 1.0)
    assert bd.provenance(chinchilla)["priors"]["gamma"] == "gamma = 1"
    # The Chinchilla form is not the law that made the runs, but it bends to them within the range.
    law = {name: draws[name].values[..., None] for name in SUPERVISED_PARAMETERS}
    predicted = bd.supervised_loss(supervised_runs["params"].to_numpy(), supervised_runs["tokens"].to_numpy(), **law)
    residual = supervised_runs["loss"].to_numpy() - predicted.mean(axis=(0, 1))
    assert np.sqrt(np.square(residual).mean()) < 0.01
    with pytest.raises(ParameterError, match="has the supervised law alone"):
        bd.plan(chinchilla, "1B", 1e20, allow_unconverged=True)


def state_of_the_process() -> dict[str, object]:
    import arviz as az
    import matplotlib as mpl
    import pytensor

    numpy_state = np.random.get_state()  # noqa: NPY002
    return {
        "warnings": list(warnings.filters),
        "matplotlib": dict(mpl.rcParams),
        "arviz": dict(az.rcParams),
        "pytensor": {name: getattr(pytensor.config, name) for name in ("mode", "cxx", "floatX", "numba__fastmath")},
        "numpy random": (numpy_state[0], numpy_state[1].tolist(), *numpy_state[2:]),
        "random": random.getstate(),
        "numpy errors": np.geterr(),
        "numpy printing": np.get_printoptions(),
        "xarray": dict(xr.get_options()),
        "environment": dict(os.environ),
        "logging": (logging.getLogger().level, list(logging.getLogger().handlers)),
        "folder": os.getcwd(),
    }


def test_the_same_seed_gives_the_same_draws_and_leaves_the_process_alone(chinchilla, supervised_runs):
    before, table = state_of_the_process(), supervised_runs.copy()
    again = bd.fit(
        supervised=supervised_runs, law=GAMMA_ONE, draws=500, tune=500, chains=3, seed=3, cores=1, progress=False
    )
    after = state_of_the_process()
    assert {key for key, value in before.items() if after[key] != value} == set()
    pd.testing.assert_frame_equal(supervised_runs, table)
    # Sampled with one core and with two.
    ours, theirs = (one["posterior"].to_dataset() for one in (chinchilla, again))
    assert set(ours.data_vars) == set(theirs.data_vars)
    for name in ours.data_vars:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=str(name))
    np.testing.assert_array_equal(chinchilla["log_likelihood"]["loss"], again["log_likelihood"]["loss"])


DRAWS_OF_ONE_PROCESS = """
import hashlib, warnings
import bayesdistill as bd
warnings.simplefilter("ignore", bd.ConvergenceWarning)
runs = bd.load_runs("busbridge2025")
fit = bd.fit(runs, draws=50, tune=100, chains=2, seed=3, progress=False)
print(hashlib.sha256(fit["posterior"]["z"].to_numpy().tobytes()).hexdigest())
"""


def draws_of_a_process(cache: Path, compiler: str) -> str:
    environment = os.environ | {"PYTENSOR_FLAGS": f"base_compiledir={cache}", "NUMBA_CACHE_DIR": str(cache / "own")}
    environment |= {"BAYESDISTILL_COMPILER": compiler}
    command = [sys.executable, "-c", DRAWS_OF_ONE_PROCESS]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_draws_in_every_process(tmp_path):
    first, second = (draws_of_a_process(tmp_path / name, "llvm") for name in ("one", "other"))
    assert first == second
    # With the cache of models off, no compiled code is kept anywhere.
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".nbi", ".nbc", ".so", ".pkl")] == []


@pytest.mark.slow
def test_the_same_seed_gives_the_same_draws_whatever_pytensor_cached(tmp_path):
    """The second process finds everything in the cache, the third a part of it, the first nothing."""
    first, second = (draws_of_a_process(tmp_path, "numba") for _ in range(2))
    cached = sorted((tmp_path / "numba").iterdir())
    assert cached
    for path in cached[::2]:
        path.unlink()
    assert first == second == draws_of_a_process(tmp_path, "numba")


INTERRUPTED_FIT = """
import sys
import bayesdistill as bd
from bayesdistill.sampling import _fit as fitting
sample = fitting.sample
def announced(*arguments, **options):
    print("compiled", flush=True)
    return sample(*arguments, **options)
fitting.sample = announced
bd.save(bd.fit(bd.load_runs("busbridge2025"), draws=500_000, cores=1, progress=False), sys.argv[1])
"""


@pytest.mark.slow
def test_an_interrupted_fit_loses_no_earlier_file(tmp_path, published_draw):
    path = bd.save(published_draw, tmp_path / "fit.nc")
    before = path.read_bytes()
    command = [sys.executable, "-c", INTERRUPTED_FIT, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "compiled"
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    # The draws so far are no fit: the interrupt ends the program, and nothing is saved.
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [path]


# Arguments ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"draws": 3}, r"`draws` must be an integer from 4 to .*, got 3"),
        ({"draws": 1000.0}, r"`draws` must be an integer from 4 to .*, got 1000\.0"),
        ({"draws": True}, r"`draws` must be .* got True"),
        ({"tune": 0}, r"`tune` must be an integer from 1 to .*, got 0"),
        ({"chains": 0}, r"`chains` must be an integer from 1 to .*, got 0"),
        ({"seed": -1}, r"`seed` must be an integer from 0 .* got -1"),
        ({"seed": None}, r"`seed` must be .* got None"),
        ({"seed": 1.5}, r"`seed` must be .* got 1\.5"),
        ({"cores": 0}, r"`cores` must be an integer from 1 to .*, got 0"),
        ({"target_accept": 1.0}, r"`target_accept` must be a number from .*, got 1\.0"),
        ({"target_accept": 0}, r"`target_accept` must be a number from .*, got 0"),
        ({"law": GAMMA_ONE}, r"fixes gamma, which requires supervised runs"),
        ({"law": "eq8"}, r"There is no law 'eq8'.*'busbridge2025'"),
        ({"tolerance": -1}, r"`tolerance` must be a number from .* nats, got -1"),
        ({"asymptotic_width": 0}, r"`asymptotic_width` must be a number from .* nats, got 0"),
        ({"perfect_teacher_width": -1}, r"`perfect_teacher_width` must be a number from .* nats, got -1"),
        ({"limited_data_width": 11}, r"`limited_data_width` must be a number from .* nats, got 11"),
        ({"priors": 3}, r"`priors` must be .* got int"),
        ({"priors": {"d0": Prior(0, 1)}}, r"no coordinate 'd0'"),
        ({"priors": {"teacher_power": 2.0}}, r"The prior of teacher_power must be .* got 2\.0"),
    ],
)
def test_arguments_that_cannot_be(runs354, options, said):
    with pytest.raises(ParameterError, match=said):
        bd.fit(runs354, progress=False, **options)


def test_tables_that_cannot_be(runs354, supervised_runs, tmp_path):
    with pytest.raises(ModelError, match="Pass distilled runs, supervised runs, or both"):
        bd.fit()
    with pytest.raises(DataError, match="student_loss"):
        bd.fit(runs354.drop(columns="student_loss"))
    with pytest.raises(DataError):
        bd.fit(supervised_runs)
    with pytest.raises(DataError):
        bd.fit(supervised=runs354)
    with pytest.raises(DataError, match="missing value"):
        bd.fit(runs354.assign(student_loss=runs354["student_loss"].where(runs354.index != 3)))


def test_an_earlier_fit_must_suit_the_new_one(supervised_runs, fit354):
    with pytest.raises(ParameterError, match="fixes gamma at 1, but the earlier fit"):
        bd.fit(supervised=supervised_runs, priors=fit354, law=GAMMA_ONE)
    with pytest.raises(ParameterError, match="`widen` must be a number from 1 to 1000, got 0"):
        bd.fit(supervised=supervised_runs, priors=fit354, widen=0)
    with pytest.raises(ParameterError, match=r"`priors` must be .* got Dataset"):
        bd.fit(supervised=supervised_runs, priors=fit354["posterior"].to_dataset())


def test_one_of_several_studies_is_named(runs354, supervised_runs):
    labels = np.where(np.arange(len(runs354)) < 20, "mine", "paper")
    with pytest.raises(
        DataError, match=r"2 labels: 'mine' \(20 runs\), 'paper' \(334 runs\).*in `study`, for example 'mine'"
    ):
        bd.fit(runs354.assign(study=labels))
    with pytest.raises(DataError, match=r"'7' \(32 runs\), 'paper' \(354 runs\)"):
        bd.fit(runs354.assign(study="paper"), supervised_runs.assign(study=7))
    with pytest.raises(ParameterError, match=r"no study 'other': the column 'study' has 'mine' \(20 runs\)"):
        bd.fit(runs354.assign(study=labels), study="other")
    with pytest.raises(ParameterError, match="no study 'mine': the column 'study' is missing"):
        bd.fit(runs354, study="mine")
    with pytest.raises(ParameterError, match="`priors` are given, but the other studies are the prior of 'mine'"):
        bd.fit(runs354.assign(study=labels), study="mine", priors={"log_alpha": Prior(-1.0, 0.1)})
    with pytest.raises(DataError, match="32 supervised runs have no label"):
        bd.fit(runs354.assign(study=labels), supervised_runs, study="mine")
    with pytest.raises(DataError, match="3 distilled runs have no label"):
        bd.fit(runs354.assign(study=[None] * 3 + labels.tolist()[3:]), study="mine")


def test_several_studies_are_fits_of_each_with_the_shapes_of_the_others(supervised_runs):
    settings = {"draws": 50, "tune": 100, "chains": 2, "seed": 1, "progress": False}
    parts = [supervised_runs.iloc[index].reset_index(drop=True) for index in (slice(0, 20), slice(20, 32))]
    whole = pd.concat([part.assign(study=name) for part, name in zip(parts, "ab", strict=True)])
    whole.attrs["allow_suspicious"] = True
    for part in parts:
        part.attrs["allow_suspicious"] = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = bd.fit(supervised=whole, study="b", **settings)
        first = bd.fit(supervised=parts[0], **settings)
        second = bd.fit(supervised=parts[1], priors=[first], transfer="shape", **settings)
    xr.testing.assert_equal(found["posterior"].to_dataset(), second["posterior"].to_dataset())
    origin = bd.provenance(found)
    assert origin["data"]["supervised"]["runs"] == 12
    assert [one["supervised"]["runs"] for one in origin["earlier"]] == [20]


def test_one_study_is_an_ordinary_fit(supervised_runs):
    settings = {"draws": 50, "tune": 100, "chains": 2, "seed": 1, "progress": False}
    tables = (supervised_runs, supervised_runs.assign(study="mine"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        plain, labeled = (bd.fit(supervised=table, **settings) for table in tables)
    xr.testing.assert_equal(plain["posterior"].to_dataset(), labeled["posterior"].to_dataset())


def test_a_shape_requires_an_earlier_fit(supervised_runs, fit354):
    with pytest.raises(ParameterError, match=r"pass it as `priors`, got no priors\. Without an earlier fit, omit"):
        bd.fit(supervised=supervised_runs, transfer="shape")
    with pytest.raises(ParameterError, match="`priors` is a sequence, which must have earlier fits"):
        bd.fit(supervised=supervised_runs, priors=[fit354])
    with pytest.raises(ParameterError, match="pass it as `priors`, got dict"):
        bd.fit(supervised=supervised_runs, priors={"log_alpha": Prior(-1.0, 0.1)}, transfer="shape")
    with pytest.raises(ParameterError, match="`transfer` must be 'all' or 'shape', got 'levels'"):
        bd.fit(supervised=supervised_runs, priors=fit354, transfer="levels")
    with pytest.raises(ParameterError, match=r"`between_studies` must be a number from 0 to 1\.41421"):
        bd.fit(supervised=supervised_runs, priors=fit354, transfer="shape", between_studies=2)


def test_an_earlier_fit_with_another_gamma_is_no_prior(supervised_runs, chinchilla):
    with pytest.raises(ParameterError, match=r"fixes gamma at 0\.5, but the earlier fit"):
        bd.fit(supervised=supervised_runs, priors=chinchilla, law=GAMMA_ONE.with_fixed(gamma=0.5))


# Slow -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_other_seeds_sample_as_cleanly(runs354, fit354, seed):
    other = bd.fit(runs354, draws=2000, seed=seed, progress=False)
    found = bd.check(other, thresholds=bd.ConvergenceThresholds(min_ess_bulk=1000, min_ess_tail=1000))
    assert found.ok, found.verdict
    for name in ("E", "c0", "sigma", "alpha_S"):
        ours, theirs = (posterior.mean_mcse(one["posterior"][name]) for one in (fit354, other))
        error = float(np.hypot(ours[1], theirs[1]))
        assert abs(float(ours[0] - theirs[0])) < 4.5 * error, name


@pytest.mark.slow
def test_recovery_is_calibrated_over_studies():
    scores = []
    for seed in range(6):
        runs = bd.simulate_runs(TRUTH, seed=seed, sigma=SIGMA, nu=NU)
        supervised = bd.simulate_runs(TRUTH, kind="supervised", seed=50 + seed, sigma=SIGMA_SUPERVISED, nu=NU)
        fit = bd.fit(runs, supervised, seed=seed, progress=False)
        assert bd.check(fit).ok
        law = posterior.law_draws(fit)
        for run in ((2e8, 8e9, 2.0), (1e9, 3e10, 2.2), (4e9, 1e11, 2.0)):
            found = bd.distilled_loss(*run, **law)
            scores.append(float((posterior.mean(found) - bd.distilled_loss(*run, **TRUTH)) / found.std()))
    scores = np.array(scores)
    assert np.abs(scores).max() < 4
    # 18 scores, three to a study and correlated within it: their mean square is about 1.
    assert 0.2 < np.square(scores).mean() < 2.5


@pytest.mark.slow
def test_kappa_is_found_where_there_is_one_and_none_where_there_is_none(runs354, fit354):
    without = bd.fit(runs354, law=LAWS["tied_reducible"].without_terms("soft_targets"), seed=1, progress=False)
    assert bd.check(without).ok, bd.check(without).verdict
    assert "kappa = 1" in bd.methods_text(fit354)
    assert "kappa = 1" not in bd.methods_text(without)
    rms = [float((bd.law_curves(one)["residual"] ** 2).mean() ** 0.5) for one in (fit354, without)]
    assert rms == pytest.approx([0.0042, 0.0045], abs=1e-4)  # docs/explanation/misfit.md
    assert float(fit354["posterior"]["kappa"].quantile(0.05)) > 1.7
    assert float(fit354["posterior"]["kappa"].quantile(0.95)) < 4.0
    # And none where equation 8 is true.
    inside = []
    for seed in (1, 2, 3):
        runs = bd.simulate_runs(bd.PUBLISHED, seed=seed, sigma=0.003)
        law = LAWS["tied_reducible"].without_terms("reducible_ratio", "tied_exponents")
        none = bd.fit(runs, law=law, seed=seed, progress=False)
        assert bd.check(none).ok, bd.check(none).verdict
        low, high = none["posterior"]["kappa"].quantile([0.05, 0.95]).values
        inside.append(low < 1 < high)
        assert 0.8 < low < high < 1.4
    assert sum(inside) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_default_samples_cleanly_where_equation_8_is_true(seed):
    """Without shifts the scatter between configurations goes to 0, and the law that is fitted is not the one that made the runs."""
    fit = bd.fit(bd.simulate_runs(bd.PUBLISHED, seed=seed, sigma=0.003), seed=seed, progress=False)
    found = bd.check(fit, thresholds=bd.ConvergenceThresholds(min_ess_bulk=1000))
    assert found.ok, found.verdict


@pytest.mark.slow
def test_an_earlier_fit_narrows_a_small_study(fit354, runs354):
    small = runs354.sample(12, random_state=3).reset_index(drop=True)
    # A dozen runs of a few configurations look suspicious by themselves.
    small = bd.read_runs(small, allow_suspicious=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        alone = bd.fit(small, seed=5, progress=False)
        near = bd.fit(small, priors=fit354, widen=1.5, seed=5, progress=False)
        wide = bd.fit(small, priors=fit354, widen=6.0, seed=5, progress=False)
    assert bd.provenance(near)["supervised_law"] == "earlier posterior"
    run = (1e9, 3e10, 2.0)
    spread = {
        name: float(bd.distilled_loss(*run, **posterior.law_draws(one)).std())
        for name, one in (("earlier", fit354), ("near", near), ("wide", wide), ("alone", alone))
    }
    assert spread["near"] < spread["wide"] < spread["alone"]
    # A prior of 1.5 times the spread and a dozen runs know no less than the prior, and little more than it.
    assert 0.3 * spread["earlier"] < spread["near"] < 1.6 * spread["earlier"]


@pytest.mark.slow
def test_the_shape_of_an_earlier_fit_helps_runs_of_another_corpus(fit354, runs354):
    """Of the packaged runs with other levels, 15 predict the others within their intervals; with all of the earlier fit they do not."""
    moved = runs354.assign(teacher_loss=runs354["teacher_loss"] + 0.1, student_loss=runs354["student_loss"] + 0.1)
    kept = np.random.default_rng(1).choice(len(moved), 15, replace=False)
    some = moved.iloc[kept].reset_index(drop=True)
    some.attrs["allow_suspicious"] = True
    found = bd.fit(some, priors=fit354, transfer="shape", seed=1, progress=False)
    check = posterior.convergence(found)
    assert check["converged"]
    assert check["rhat"] < 1.01
    assert check["divergences"] == 0
    assert posterior.level_shift_of(found) is None
    rest = moved.drop(index=kept).reset_index(drop=True)
    predicted = bd.predict(found, rest, noise="run")
    assert predicted.attrs["coverage"] > 0.8
    assert predicted.attrs["rms_residual"] < 0.03
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", bd.ConflictWarning)
        wrong = bd.fit(some, priors=fit354, seed=1, draws=1000, progress=False)
        predicted = bd.predict(wrong, rest, noise="run", allow_unconverged=True, allow_conflict=True)
    assert predicted.attrs["rms_residual"] > 0.03


@pytest.mark.slow
def test_a_stronger_prior_pulls(runs354):
    prior = {"log_kappa": Prior(0.4, 0.01)}
    pulled = bd.fit(runs354, priors=prior, draws=3000, seed=2, target_accept=0.95, progress=False)
    assert float(posterior.mean(np.log(pulled["posterior"]["kappa"]))) == pytest.approx(0.4, abs=0.03)
    assert bd.prior_table(pulled).loc["log_kappa", "distribution"] == "Normal(0.4, 0.01)"
