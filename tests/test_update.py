"""`update` against closed forms, quadrature, one update with all runs, and refits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from mixed_fits import fits
from scipy import stats
from test_cli import run

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.decisions.membership import membership_of
from bayesdistill.law import Reference
from bayesdistill.law.predictive import Design
from bayesdistill.sampling.groups import data_groups
from bayesdistill.updating.likelihood import likelihood_of

REFERENCE = Reference(1e9, 2e10, 1.0)
NORMAL = 1e7
"""Degrees of freedom of residuals that are normal for all purposes."""
SIGMA, SPREAD = 0.01, 0.02
LAW = bd.LAWS["tied_reducible"].with_discrepancy().with_effects("model").with_residual_noise(supervised="constant")


def earlier_runs() -> pd.DataFrame:
    """Three models with four checkpoints each; their losses have no role."""
    runs = pd.DataFrame({"model": np.repeat(["a", "b", "c"], 4), "params": np.repeat([3e8, 1e9, 3e9], 4)})
    runs["tokens"] = np.tile(np.geomspace(5e9, 1e11, 4), 3)
    return runs.assign(loss=2.5 - 0.1 * np.log(runs["tokens"] / 1e10))


def law_loss(runs: pd.DataFrame) -> np.ndarray:
    names = ("E", "A", "B", "alpha", "beta", "gamma")
    return bd.supervised_loss(
        runs["params"].to_numpy(), runs["tokens"].to_numpy(), **{n: bd.PUBLISHED[n] for n in names}
    )


def fit_of(
    count: int = 1000,
    *,
    nu: float = NORMAL,
    sigma: float = SIGMA,
    sd: float = 0.01,
    effects: tuple[str, ...] = ("model",),
) -> xr.DataTree:
    """A posterior in which E and the effects of three models are normal, and everything else is known."""
    law = LAW.with_effects(*effects).for_tables(None, earlier_runs())
    rng = np.random.default_rng(0)
    values = {**bd.PUBLISHED, "sigma": sigma, "nu": nu, "sigma_model": SPREAD, "sigma_model_slope": 0.3 * SPREAD}
    draws = {p.name: (("chain", "draw"), np.full((4, count), values[p.name])) for p in law.parameters}
    draws["E"] = (("chain", "draw"), bd.PUBLISHED["E"] + sd * rng.standard_normal((4, count)))
    for effect in law.effects:
        drawn = 0.002 * rng.standard_normal((4, count, 3)) + [0.02, -0.02, 0.0]
        draws[effect.variable.name] = (("chain", "draw", effect.dim), drawn)
    kept = posterior.with_law(xr.Dataset(draws, {"model": ["a", "b", "c"]}), law, REFERENCE)
    observed, constant = data_groups(law, None, earlier_runs())
    tree = xr.DataTree.from_dict({"posterior": kept, "observed_data": observed, "constant_data": constant})
    return tree


def new_runs(model: str, above: float | list[float], count: int = 3) -> pd.DataFrame:
    """Checkpoints of a model of 2B parameters that are above the published law."""
    runs = pd.DataFrame({"model": model, "params": 2e9, "tokens": np.geomspace(1e10, 8e10, count)})
    return runs.assign(loss=law_loss(runs) + above)


def likelihood(fit: xr.DataTree, new: pd.DataFrame) -> np.ndarray:
    draws = posterior.draws_of(fit)
    member = membership_of(fit, draws, new, "supervised", "seen")
    design = Design("supervised", new["params"].to_numpy(), new["tokens"].to_numpy())
    found = likelihood_of(draws, design, new["loss"].to_numpy(), member, posterior.effects_of(fit), 0)
    return found.log_likelihood


# Likelihood -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effects", [("model",), ("model", "model_slope")])
def test_effects_of_new_groups_are_integrated_as_a_normal_density_has_it(effects):
    fit, new = fit_of(50, effects=effects), new_runs("new", [0.03, 0.02, 0.05])
    above = new["loss"].to_numpy() - law_loss(new) + bd.PUBLISHED["E"]
    along = np.log(new["tokens"].to_numpy() / REFERENCE.tokens)
    covariance = SIGMA**2 * np.eye(3) + SPREAD**2
    if "model_slope" in effects:
        covariance += (0.3 * SPREAD) ** 2 * np.outer(along, along)
    exact = [
        stats.multivariate_normal(np.full(3, E), covariance).logpdf(above) for E in fit["posterior"]["E"].values.ravel()
    ]
    # The proposal is wider than the integrand, so that every draw has Monte Carlo error, without bias.
    error = likelihood(fit, new) - exact
    assert np.abs(error.mean()) < 0.03
    assert error.std() < 0.2


def test_heavy_tails_agree_with_quadrature():
    fit, new = fit_of(50, nu=3.0), new_runs("new", [0.03, 0.3, 0.05])
    above = new["loss"].to_numpy() - law_loss(new) + bd.PUBLISHED["E"]
    at = np.linspace(-0.3, 0.5, 4001)
    draws = fit["posterior"]["E"].values.ravel()
    density = stats.norm.pdf(at, 0, SPREAD)
    for one in above:
        density = density * stats.t.pdf((one - draws[:, None] - at) / SIGMA, 3) / SIGMA
    error = likelihood(fit, new) - np.log(np.trapezoid(density, at))
    assert np.abs(error.mean()) < 0.03
    assert error.std() < 0.2


def test_known_groups_have_their_fitted_effects():
    fit, new = fit_of(50), new_runs("b", [-0.01, -0.02, -0.03])
    draws = fit["posterior"]
    center = (
        law_loss(new) - bd.PUBLISHED["E"] + (draws["E"] + draws["effect_model"].sel(model="b")).values.ravel()[:, None]
    )
    exact = stats.norm.logpdf(new["loss"].to_numpy(), center, SIGMA).sum(axis=1)
    np.testing.assert_allclose(likelihood(fit, new), exact, atol=1e-4)


# Posterior ------------------------------------------------------------------------------------------------------------


def conjugate(above: np.ndarray, sd: float) -> tuple[float, float]:
    """Mean and standard deviation of E - E_published after runs of one new model, for normal residuals."""
    covariance = SIGMA**2 * np.eye(above.size) + SPREAD**2
    information = np.linalg.solve(covariance, np.ones(above.size))
    precision = sd**-2 + information.sum()
    return float(information @ above / precision), float(precision**-0.5)


def of_fit(fit: xr.DataTree) -> np.ndarray:
    return fit["posterior"]["E"].values.ravel() - bd.PUBLISHED["E"]


def test_the_updated_fit_is_the_posterior_of_all_runs():
    above = np.array([0.035, 0.03, 0.045])
    found = bd.update(fit_of(sd=0.02), new_runs("new", above))
    mean, sd = conjugate(above, 0.02)
    values = of_fit(found.fit)
    error = sd / np.sqrt(found.effective_draws)
    assert values.mean() == pytest.approx(mean, abs=4 * error)
    assert values.std() == pytest.approx(sd, abs=4 * error)
    assert values.size == pytest.approx(found.effective_draws, abs=4)
    # The effect of the new model is that of a refit, too.
    effect = found.fit["posterior"]["effect_model"].sel(model="new").values.ravel()
    residual = above.mean() - values
    expected = (residual / (1 + SIGMA**2 / 3 / SPREAD**2)).mean()
    assert effect.mean() == pytest.approx(expected, abs=0.001)
    row = found.parameters.sel(quantity="E")
    assert row["shift"].item() == pytest.approx(mean / 0.02, abs=0.1)
    assert row["sd_ratio"].item() == pytest.approx(sd / 0.02, abs=0.05)
    assert found.parameters["quantity"].values.tolist() == ["E"]  # everything else is known
    assert found.reliable
    assert not found.refitted


@pytest.mark.slow
def test_two_updates_are_one_with_all_runs():
    above = np.array([0.035, 0.03, 0.045, 0.05])
    runs = new_runs("new", above, 4)
    fit = fit_of(2000, sd=0.02)
    both = bd.update(fit, runs)
    first = bd.update(fit, runs.iloc[:2])
    second = bd.update(first.fit, runs.iloc[2:])
    mean, sd = conjugate(above, 0.02)
    for found in (both, second):
        error = sd / np.sqrt(found.effective_draws)
        assert of_fit(found.fit).mean() == pytest.approx(mean, abs=4 * error)
        assert of_fit(found.fit).std() == pytest.approx(sd, abs=4 * error)
    one, two = (found.fit["posterior"]["effect_model"].sel(model="new").values.ravel() for found in (both, second))
    assert two.mean() == pytest.approx(one.mean(), abs=5 * one.std() / np.sqrt(second.effective_draws))
    assert [update["runs"] for update in bd.provenance(second.fit)["updates"]] == [2, 2]
    for found in (both, second):
        assert posterior.fitted_table(found.fit, "supervised").shape[0] == 16


def test_runs_without_information_change_nothing():
    fit = fit_of(300, sigma=50.0)
    found = bd.update(fit, new_runs("b", 0.3, 1), plan={"budgets": [1e21]})
    assert found.effective_draws > 1199
    assert abs(found.parameters["shift"]).max() < 0.01
    assert found.parameters["sd_ratio"].sel(quantity="E").item() == pytest.approx(1, abs=0.01)
    assert not found.plan["changes"].any()
    xr.testing.assert_allclose(
        found.plan["loss_before_quantile"], found.plan["loss_after_quantile"].rename("x"), atol=1e-3
    )
    assert "The plan does not change" in " ".join(found.sentences)


def test_everything_accepts_the_updated_fit(tmp_path):
    fit = fit_of(400, sd=0.02)
    new = new_runs("new", [0.01, 0.0, 0.02])
    found = bd.update(fit, new, plan={"budgets": [1e20, 1e22]})
    path = bd.save(found.fit, tmp_path / "updated.nc")
    loaded = bd.load(path)
    assert posterior.identity(loaded) == posterior.identity(found.fit) != posterior.identity(fit)
    assert posterior.seen_groups(loaded) == {"model": ["a", "b", "c", "new"]}
    earlier = fit["posterior"]["effect_model"].mean(("chain", "draw"))
    kept = loaded["posterior"]["effect_model"].mean(("chain", "draw")).sel(model=["a", "b", "c"])
    xr.testing.assert_allclose(kept, earlier, atol=5e-4)
    assert loaded["log_likelihood"]["loss"].sizes["supervised_run"] == 15
    assert loaded["constant_data"]["model_of_run"].values[-3:].tolist() == [3, 3, 3]
    predicted = bd.predict(loaded, new)
    assert predicted["group_seen"].values.all()
    updated = bd.compute_optimal(loaded, [1e20, 1e22])
    np.testing.assert_allclose(found.plan["size_after"], updated["params"])
    entry = bd.provenance(loaded)["updates"][0]
    assert entry["earlier"] == posterior.identity(fit)
    assert entry["effective_draws"] == pytest.approx(found.effective_draws)
    assert bd.provenance(loaded)["data"]["supervised"]["runs"] == 15
    numbers, before = posterior.convergence(loaded), posterior.convergence(fit)
    share = found.effective_draws / 1600
    assert numbers["ess_bulk"] == pytest.approx(share * before["ess_bulk"])
    assert numbers["converged"]
    assert "reweighted by the likelihood of 3 further supervised models" in bd.methods_text(loaded)
    for text in (str(found), found._repr_html_()):
        assert all(sentence in text for sentence in found.sentences)
        assert "What the new runs change in the law" in text
    assert float(bd.decision_table(found.parameters)["before_median"][0]) == pytest.approx(bd.PUBLISHED["E"], abs=1e-2)


def test_surprising_runs_require_a_refit():
    fit = fit_of(300, sd=0.01)
    found = bd.update(fit, new_runs("b", 0.3, 8))
    assert found.pareto_k > 0.7
    assert not found.reliable
    text = " ".join(found.sentences)
    assert "8 of 8 new runs outside the 90% interval" in text
    assert "refit=True" in text
    with pytest.raises(bd.ConvergenceError, match="pareto_k"):
        bd.compute_optimal(found.fit, 1e21)
    assert "Refit all runs" in str(bd.check(found.fit))


@pytest.mark.parametrize(
    ("fit", "runs", "message"),
    [
        (lambda: fit_of(300), lambda: new_runs("b", 0.0).drop(columns="loss"), "no outcomes in the column 'loss'"),
        (lambda: fit_of(300)["posterior"].to_dataset(), lambda: new_runs("b", 0.0), "must be the result of bd.fit"),
        (
            lambda: fit_of(300),
            lambda: pd.DataFrame(
                {"student_params": [1e9], "student_tokens": 2e10, "teacher_loss": 2.2, "student_loss": 2.4}
            ),
            "The fit has no distilled runs",
        ),
        (
            lambda: bd.mix(fits(), dict.fromkeys(fits(), 1)),
            lambda: new_runs("b", 0.0),
            "Update its fits, and mix them again",
        ),
    ],
)
def test_what_cannot_be_updated_is_named(fit, runs, message):
    with pytest.raises(bd.BayesdistillError, match=message):
        bd.update(fit(), runs())


def test_runs_that_the_fit_has_are_not_counted_twice():
    fit = fit_of(300)
    earlier = posterior.fitted_table(fit, "supervised")
    table = pd.concat([new_runs("b", 0.0), earlier.head(1)], ignore_index=True)
    with pytest.raises(bd.DataError, match=rf"the fit already has this run .*\(row {len(table)}\)"):
        bd.update(fit, table)
    assert len(bd.update(fit, table, allow_suspicious=True).runs["run"]) == len(table)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"noise": "law"}, "requires `budgets`"),
        ({"budgets": 1e21, "scenarios": "best case"}, "`scenarios` does not apply .* the supervised law alone"),
    ],
)
def test_a_plan_has_the_arguments_of_its_function(plan, message):
    with pytest.raises(bd.ParameterError, match=message):
        bd.update(fit_of(300), new_runs("b", 0.0), plan=plan)


def test_the_command_updates_a_file(monkeypatch, capsys, tmp_path):
    fit, table, output = tmp_path / "fit.nc", tmp_path / "new.csv", tmp_path / "updated.nc"
    bd.save(fit_of(300, sd=0.02), fit)
    new_runs("new", [0.02, 0.01, 0.02]).to_csv(table, index=False)
    asked = ["update", str(fit), str(table), "--budgets", "1e21"]
    code, out, err = run(monkeypatch, capsys, "update", str(fit), str(table), "--student", "1B")
    assert code == 2
    assert "--student requires --budgets" in err
    for options, message in (
        (["--scenario", "best case"], "--scenario and --delta require --student"),
        (["--student", "1B", "--budgets", "1e21"], "--student does not apply to the plan before and after the update"),
    ):
        code, out, err = run(monkeypatch, capsys, "update", str(fit), str(table), *options)
        assert (code, out) == (2, "")
        assert message in err
    expected = bd.update(bd.load(fit), table)
    code, out, err = run(monkeypatch, capsys, *asked, "-o", str(output))
    assert code == 0, err
    tables = out.split("\n\n", 1)[1].splitlines()
    assert max(map(len, tables[:-1])) <= 80
    assert expected.sentences[0] in out
    assert posterior.identity(bd.load(output)) == posterior.identity(expected.fit)
    code, out, err = run(monkeypatch, capsys, *asked, "--json")
    found = json.loads(out)
    assert found["effective_draws"] == pytest.approx(expected.effective_draws, rel=1e-5)
    assert [row["quantity"] for row in found["parameters"]] == ["E"]
    assert len(found["runs"]) == 3


# Refits ---------------------------------------------------------------------------------------------------------------


def agree(updated: xr.DataTree, refitted: xr.DataTree, names: list[str]) -> None:
    """Means of logarithms agree within four Monte Carlo errors, and standard deviations within 15%."""
    counts = [fit["posterior"].sizes["chain"] * fit["posterior"].sizes["draw"] / 3 for fit in (updated, refitted)]
    for name in names:
        one, two = (np.log(fit["posterior"][name].values.ravel()) for fit in (updated, refitted))
        error = two.std() * np.sqrt(1 / counts[0] + 1 / counts[1])
        assert one.mean() == pytest.approx(two.mean(), abs=4 * error), name
        assert one.std() == pytest.approx(two.std(), rel=0.15), name


@pytest.mark.slow
def test_an_update_is_a_refit_of_supervised_runs(supervised_runs):
    new = pd.DataFrame({"params": [3e9, 1e10, 2e8], "tokens": [3e11, 4e11, 1e10]})
    new = bd.simulate_runs(bd.PUBLISHED, kind="supervised", design=new, seed=5, sigma=0.004, nu=20.0)
    fit = bd.fit(supervised=supervised_runs, seed=0, progress=False)
    found = bd.update(fit, new)
    both = pd.concat([supervised_runs, new], ignore_index=True)
    refitted = bd.fit(supervised=both, seed=1, progress=False)
    agree(found.fit, refitted, ["E", "A", "B", "alpha", "beta", "gamma", "sigma", "discrepancy_shared"])
    before, after = (bd.compute_optimal(one, [1e21, 1e24], noise="law") for one in (found.fit, refitted))
    spread = after["loss"].std(("chain", "draw"))
    np.testing.assert_array_less(
        abs(before["loss"].mean(("chain", "draw")) - after["loss"].mean(("chain", "draw"))), 0.2 * spread
    )


@pytest.mark.slow
def test_an_update_is_a_refit_of_distilled_runs_with_a_new_teacher(runs354):
    losses = np.sort(runs354["teacher_loss"].unique())
    left_out = runs354["teacher_loss"] == losses[losses.size // 2]
    kept = runs354[~left_out].iloc[::3].reset_index(drop=True)
    new = runs354[left_out].iloc[::6].reset_index(drop=True)
    fit = bd.fit(kept, seed=0, progress=False)
    settings = {"students": "1B", "budgets": [1e21, 1e22, 1e23], "scenarios": ["best case", "teacher inference"]}
    found = bd.update(fit, new, plan=settings)
    for when, one in (("before", fit), ("after", found.fit)):
        plan = bd.plan(one, **settings)
        for name, variable in (
            ("probability", "probability"),
            ("gain", "expected_gain"),
            ("teacher", "teacher_params"),
        ):
            np.testing.assert_array_equal(found.plan[f"{name}_{when}"], plan[variable], err_msg=name)
    changes = (found.plan["gain_before"] > 0) != (found.plan["gain_after"] > 0)
    np.testing.assert_array_equal(found.plan["changes"], changes)
    word = f"in {int(changes.sum())} of" if changes.any() else "does not change"
    assert word in found.sentences[-1]
    refitted = bd.fit(pd.concat([kept, new], ignore_index=True), law=posterior.law_of(fit), seed=1, progress=False)
    assert found.reliable
    one, two = (bd.predict(which, runs354.iloc[::20], noise="law", groups="new") for which in (found.fit, refitted))
    before = bd.predict(fit, runs354.iloc[::20], noise="law", groups="new")
    # A sum-to-zero effect of a new teacher moves the law a little in a refit.
    assert abs((one["mean"] - two["mean"]) / two["sd"]).mean() < 0.35
    assert (
        abs((one["mean"] - two["mean"]) / two["sd"]).mean()
        < abs((before["mean"] - two["mean"]) / two["sd"]).mean() + 0.1
    )
    np.testing.assert_allclose(one["sd"], two["sd"], rtol=0.35)


@pytest.mark.slow
def test_a_refit_replaces_unreliable_weights(supervised_runs):
    new = supervised_runs.iloc[[3, 17, 30]].assign(loss=supervised_runs["loss"].iloc[[3, 17, 30]] + 0.15)
    new["tokens"] *= 1.1
    fit = bd.fit(supervised=supervised_runs, seed=0, progress=False)
    assert not bd.update(fit, new, allow_suspicious=True).reliable
    found = bd.update(fit, new, refit=True, seed=4, allow_suspicious=True)
    assert found.refitted
    assert found.reliable
    again = bd.fit(supervised=pd.concat([supervised_runs, new]), seed=4, progress=False)
    np.testing.assert_array_equal(found.fit["posterior"]["E"], again["posterior"]["E"])
    other = bd.fit(supervised=supervised_runs, priors={"log_nu": bd.Prior(3.0, 0.1)}, seed=0, progress=False)
    with pytest.raises(bd.ParameterError, match="priors that are not the default ones"):
        bd.update(other, new, refit=True, allow_suspicious=True)


@pytest.mark.slow
def test_what_the_page_says_is_so(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[1] / "docs" / "how-to" / "update-a-fit.md"
    (source,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    names: dict = {}
    exec(source, names)
    found, text = names["found"], " ".join(page.read_text().split())
    outside = re.search(r"(\d) of 2 new runs are outside", text)
    assert f"{outside[1]} of 2 new runs outside" in found.sentences[0]
    stated = re.search(r"leave (\d+) effective draws of 4000 \(Pareto k (\S+)\)\.", text)
    # The fit of another machine may round otherwise.
    assert float(stated[1]) == pytest.approx(found.effective_draws, rel=0.1)
    assert float(stated[2]) == pytest.approx(found.pareto_k, abs=0.15)
    numbers = re.search(r"was (\S+)B and is (\S+)B, inside .* was (\S+) nats wide and is (\S+) nats wide", text)
    last = found.plan.sel(budget=1e24)
    assert not last["changes"]
    sizes = [float(last[name]) / 1e9 for name in ("size_before", "size_after")]
    widths = [float(np.ptp(last[f"loss_{when}_quantile"].values)) for when in ("before", "after")]
    values = [float(value) for value in numbers.groups()]
    assert values[:2] == pytest.approx(sizes, rel=0.04)
    assert values[2:] == pytest.approx(widths, abs=0.003)
