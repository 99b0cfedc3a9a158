"""Limited data: the option `unique_tokens` against closed forms, dense searches and invariances, and what every output says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from decision_cases import posterior_of, scattered
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_search import dense_search, effective_tokens
from test_cli import run

import bayesdistill as bd
from bayesdistill.compute import PUBLISHED_SHAPE, SCENARIOS, pretraining_tokens
from bayesdistill.decisions import compute_optimal, crossovers, family_plan, lifetime, plan, student_choice, target_loss
from bayesdistill.decisions.planning import Planner
from bayesdistill.errors import ParameterError
from bayesdistill.law import LAWS, PUBLISHED, Draws
from bayesdistill.strategies import Bounds, Problem, chosen_strategies

FIXED = bd.RepetitionPrior(log_sd=0.0)


@pytest.fixture(scope="module")
def fit() -> xr.Dataset:
    return posterior_of(scattered(6, seed=2))


def test_pretraining_has_the_loss_of_the_published_rule(fit):
    found = plan(fit, "1B", [1e21, 1e23], "best case", unique_tokens="3B", repetition=FIXED)
    draws = {name: fit[name].values.ravel() for name in ("E", "A", "B", "alpha", "beta", "gamma")}
    tokens = pretraining_tokens(1e9, np.array([1e21, 1e23]))
    a, b = (draws[one] * draws[two] for one, two in (("alpha", "A"), ("beta", "B")))
    enough = (a / b * 3e9 ** draws["beta"]) ** (1 / draws["alpha"])
    params = effective_tokens(1e9, enough, 5.309743)
    assert (params < 1e9).any()
    expected = bd.supervised_loss(params, effective_tokens(tokens, 3e9)[:, None], **draws)
    np.testing.assert_allclose(found["supervised_loss"].values.reshape(2, -1), expected, rtol=1e-12)
    np.testing.assert_allclose(found["pretraining_epochs"].values[0], tokens / 3e9)


@pytest.mark.parametrize("scenario", ["best case", "teacher pretraining", "teacher inference"])
def test_the_chosen_strategy_is_that_of_a_dense_search(fit, scenario):
    draws = Planner(fit, unique_tokens=2e10, repetition=FIXED).fitted.draws
    rule = draws.repetition
    # One size for all draws, so that the search does not have to know the rule for each of them.
    same = replace(draws, repetition=replace(rule, enough_params=2e9))
    bounds = Bounds()
    least, _, _ = dense_search(
        replace(draws, repetition=None),
        1e9,
        1e22,
        SCENARIOS[scenario],
        bounds,
        PUBLISHED_SHAPE,
        unique=2e10,
        enough=2e9,
    )
    found = chosen_strategies(same, Problem([1e9], [1e22], scenario, bounds))["loss"].mean()
    assert found < least + 1e-6
    assert found > least - 1e-3


def test_unlimited_tokens_change_nothing(fit):
    ask = ("1B", [1e20, 1e22], ["best case", "teacher pretraining"])
    plain, none, ample = (
        plan(fit, *ask, **option) for option in ({}, {"unique_tokens": None}, {"unique_tokens": 1e20})
    )
    xr.testing.assert_identical(plain, none)
    for name in ("supervised_loss", "distilled_loss", "probability", "expected_gain"):
        np.testing.assert_allclose(ample[name], plain[name], atol=1e-9)
    many, free = (
        crossovers(fit, "3B", "best case", **one)["crossover_quantile"] for one in ({"unique_tokens": 1e20}, {})
    )
    np.testing.assert_allclose(many, free, rtol=1e-6)
    assert "limited_data" not in plain.attrs
    assert "student_epochs" not in plain


@given(st.floats(9.5, 12.5), st.floats(1.2, 30))
@settings(max_examples=2, deadline=None)
def test_more_unique_tokens_never_hurt(exponent, factor):
    fit = posterior_of(scattered(4, seed=5))
    few, many = (
        plan(fit, "1B", [1e21, 1e23], "teacher pretraining", unique_tokens=unique)
        for unique in (10**exponent, 10**exponent * factor)
    )
    for name in ("supervised_loss", "distilled_loss"):
        assert (many[name].mean(("chain", "draw")) <= few[name].mean(("chain", "draw")) + 1e-7).all()


def test_one_student_is_the_plan_and_a_target_returns_the_budget(fit):
    option = {"unique_tokens": "20B"}
    made = plan(fit, "1B", 1e22, "best case", **option)
    chosen = student_choice(fit, "1B", 1e22, "best case", **option)
    np.testing.assert_allclose(chosen["distilled_loss"].values, made["distilled_loss"].values, atol=1e-9)
    target = float(made["supervised_loss"].mean())
    found = target_loss(fit, "1B", target, "best case", noise="law", **option)
    alone = float(made["distilled_loss"].mean())
    again = target_loss(fit, "1B", alone, "best case", noise="law", **option)
    assert found["planned_pretraining_compute"].item() == pytest.approx(1e22, rel=1e-4)
    assert again["planned_compute"].item() == pytest.approx(1e22, rel=1e-4)
    family = family_plan(fit, "1B", 1e22, delta_lgt=0, delta_pre=0, noise="law", **option)
    assert family["expected_loss"].sel(option="plan").item() == pytest.approx(
        min(float(made[name].mean()) for name in ("supervised_loss", "distilled_loss")), abs=2e-4
    )


def test_epochs_of_every_decision_are_tokens_over_unique_tokens(fit):
    option = {"unique_tokens": 2e9}
    teachers = pd.DataFrame({"params": [1e9, 7e9], "loss": [2.3, 2.1]})
    target = target_loss(fit, "300M", [2.5, 2.6], "teacher inference", **option)
    life = lifetime(fit, served_tokens=1e12, scenarios="best case", budgets=1e21, students=["300M"], **option)
    family = family_plan(fit, ["300M", "1B"], 1e21, **option)
    choice = bd.teacher_choice(fit, teachers, "300M", 1e21, **option)
    optimal = compute_optimal(fit, [1e20, 1e22], **option)
    read = {
        "student": [(one, "student_tokens") for one in (target, life, family, choice)],
        "teacher": [(one, "teacher_tokens") for one in (target, life, family)],
        "pretraining": [(one, "pretraining_tokens") for one in (life, family, choice)] + [(optimal, "tokens")],
    }
    for model, places in read.items():
        for found, tokens in places:
            np.testing.assert_allclose(found[f"{model}_epochs"], found[tokens] / 2e9)
            assert f"{model}_epochs" in bd.decision_table(found)
    middle = target["pretraining_tokens_quantile"].sel(quantile=0.5)
    np.testing.assert_allclose(target["pretraining_epochs"], middle.where(np.isfinite(middle)) / 2e9)
    for found in (target, life, family, choice, optimal):
        assert "Largest number of epochs" in found.attrs["epochs"]
        assert ("require more tokens than exist" in found.attrs["epochs"]) == any(
            (found[name] > 40).any() for name in found if str(name).endswith("_epochs")
        )


def test_the_compute_optimal_size_is_that_of_a_dense_search(fit):
    """Of each draw, and of the mean; constants differ between draws."""
    planner = Planner(fit, unique_tokens=1e10, seed=3)
    found = compute_optimal(planner, [1e20, 1e22, 1e23], noise="law")
    draws, budgets = planner.fitted.draws, found["budget"].values[:, None, None]
    sizes = np.geomspace(1e7, 1e14, 40_001)[:, None]
    losses = draws.supervised_loss(sizes, pretraining_tokens(sizes, budgets))
    best = sizes[losses.argmin(axis=1), 0]
    np.testing.assert_allclose(found["best_params"].values.reshape(3, -1), best, rtol=1e-3)
    assert (losses.min(axis=1) >= draws.supervised_loss(
        found["best_params"].values.reshape(3, -1), found["best_tokens"].values.reshape(3, -1)
    ) - 1e-12).all()  # fmt: skip
    np.testing.assert_allclose(found["params"], sizes[losses.mean(axis=-1).argmin(axis=1), 0], rtol=1e-3)
    ample = compute_optimal(fit, [1e20, 1e23], unique_tokens=1e20)
    plain = compute_optimal(fit, [1e20, 1e23])
    np.testing.assert_allclose(ample["params"], plain["params"], rtol=1e-7)
    # Excess parameters lose their value faster than repeated tokens (Muennighoff et al., section 6).
    assert found["params"].values[2] < plain["params"].values[1]


def test_lifetime_with_limited_data(fit):
    ask = {"served_tokens": [0, 1e12], "scenarios": "best case", "budgets": 1e22, "students": ["1B", "3B"]}
    plain, ample, few = (
        lifetime(fit, **ask, **option) for option in ({}, {"unique_tokens": 1e20}, {"unique_tokens": 2e9})
    )
    for name in ("distilled_loss_quantile", "supervised_loss_quantile"):
        np.testing.assert_allclose(ample[name], plain[name], atol=1e-8)
        assert (few[name].sel(quantile=0.5) > plain[name].sel(quantile=0.5)).all()
    assert "Limited data" in few["sentence"].values.ravel()[0]


def test_the_prior_of_the_constants_and_its_seed():
    draws = Draws(LAWS["busbridge2025"], {**PUBLISHED, "E": np.full(20_000, PUBLISHED["E"])})
    rule = bd.RepetitionPrior().draw(draws, 3e11, seed=1)
    for drawn, median in ((rule.decay, 15.387756), (rule.params_decay, 5.309743)):
        assert np.log(drawn).mean() == pytest.approx(np.log(median), abs=4 * 0.4 / np.sqrt(20_000))
        assert np.log(drawn).std() == pytest.approx(0.4, rel=0.03)
    assert abs(np.corrcoef(np.log(rule.decay), np.log(rule.params_decay))[0, 1]) < 0.03
    np.testing.assert_array_equal(rule.decay, bd.RepetitionPrior().draw(draws, 3e11, seed=1).decay)
    assert not np.array_equal(rule.decay, bd.RepetitionPrior().draw(draws, 3e11, seed=2).decay)
    # The size for which the tokens are compute-optimal has the lowest loss of all with the same product N D.
    enough, six = rule.enough_params[0], {name: PUBLISHED[name] for name in ("E", "A", "B", "alpha", "beta", "gamma")}
    best, *others = (bd.supervised_loss(enough * f, 3e11 / f, **six) for f in (1, 0.99, 1.01))
    assert best < min(others)
    taken = rule.take(slice(0, 5))
    assert taken.decay.size == taken.enough_params.size == 5


def test_intervals_hold_the_truth_of_simulated_repetition(fit):
    """The truth is another draw of the law and of the constants; the 90% interval of the plan's loss has to hold it in 90%."""
    wide = posterior_of(scattered(400, seed=11))
    planner = Planner(wide, unique_tokens=2e10, seed=3)
    interval = plan(planner, "1B", 3e22, "best case", noise="law", draws=4)["supervised_loss_quantile"].values.ravel()
    truths = Planner(posterior_of(scattered(400, seed=12)), unique_tokens=2e10, seed=4).fitted.draws
    losses = truths.supervised_loss(1e9, pretraining_tokens(1e9, 3e22))
    inside = ((losses > interval[0]) & (losses < interval[-1])).mean()
    assert abs(inside - 0.9) < 4 * np.sqrt(0.9 * 0.1 / 400)


@pytest.mark.filterwarnings("ignore::bayesdistill.errors.ConvergenceWarning")
def test_every_output_says_that_data_are_limited(fit, monkeypatch, capsys, tmp_path):
    option = {"unique_tokens": "30B"}
    made, chosen = (
        plan(fit, "1B", [1e21, 1e23], "best case", **option),
        student_choice(fit, "1B", 1e23, "best case", **option),
    )
    for found in (
        made,
        chosen,
        target_loss(fit, "1B", 2.3, "best case", **option),
        family_plan(fit, ["1B", "3B"], 1e21, **option),
    ):
        text = " ".join(str(found).split())
        assert "Limited data: teachers and students are trained on 3e10 unique tokens." in text
        assert "That the rule holds for distilled students is an assumption" in text
    assert "More than 40 epochs require more tokens than exist" in " ".join(str(made).split())
    assert "Limited data" in chosen["sentence"].item()
    table = bd.plan_table(made)
    assert {"student_epochs", "pretraining_epochs", "teacher_epochs"} <= {*table}
    caption = " ".join(word.get_text() for word in bd.plot_probability(made).findobj(lambda a: hasattr(a, "get_text")))
    assert "Limited data" in " ".join(caption.split())
    path = tmp_path / "fit.nc"
    bd.save(xr.DataTree.from_dict({"posterior": fit}), path)
    ask = [
        "plan",
        str(path),
        "--student",
        "1B",
        "--budgets",
        "1e21,1e23",
        "--unique-tokens",
        "30B",
        "--allow-unconverged",
    ]
    code, out, err = run(monkeypatch, capsys, *ask)
    assert code == 0, err
    assert "Limited data" in out
    code, out, err = run(monkeypatch, capsys, *ask, "--json")
    rows = json.loads(out)
    assert "Limited data" in rows[0]["limited_data"]
    assert rows[0]["pretraining_epochs"] > 1


def test_what_cannot_be_limited_is_named(fit):
    with pytest.raises(ParameterError, match="'many' in `unique_tokens`"):
        plan(fit, "1B", 1e21, unique_tokens="many")
    with pytest.raises(ParameterError, match="`log_sd` must be"):
        bd.RepetitionPrior(log_sd=-1)
    with pytest.raises(ParameterError, match="`repetition` must be"):
        plan(fit, "1B", 1e21, unique_tokens=1e11, repetition=15.4)
    runs = pd.DataFrame({"params": [1e9], "tokens": [2e10]})
    with pytest.raises(ParameterError, match="predict does not have the option `unique_tokens`"):
        bd.predict(Planner(fit, unique_tokens=1e11), runs)


def test_the_value_of_a_plan_with_limited_data(fit, tmp_path):
    """The equivalent budget of pretraining has the loss of the distilled student, with the same unique tokens."""
    planner = Planner(fit, unique_tokens=2e10, seed=5)
    made = plan(planner, "1B", [1e21, 3e21], "best case", noise="law")
    worth = bd.plan_value(fit, made)
    equivalent = worth["equivalent_budget"].transpose("student", "scenario", "budget", "chain", "draw").values.ravel()
    draws = planner.fitted.draws
    distilled = made["distilled_loss"].transpose("student", "scenario", "budget", "chain", "draw").values.ravel()
    tokens = pretraining_tokens(1e9, equivalent).reshape(2, -1)
    reached = draws.supervised_loss(1e9, tokens).ravel()
    within = np.isfinite(equivalent)
    assert within.any()
    np.testing.assert_allclose(reached[within], distilled[within], atol=1e-9)
    xr.testing.assert_identical(worth, bd.plan_value(planner, made))
    assert bd.evppi(fit, made).sizes["budget"] == 2
    assert "Limited data" in bd.report(fit, made, folder=tmp_path / "report").read_text(encoding="utf-8")
    rule = draws.repetition
    for amount in (1e9, 5e10, 4e11):
        np.testing.assert_allclose(rule.tokens_for(rule.effective(np.full(6, amount))), amount, rtol=1e-6)
    assert np.isinf(rule.tokens_for(2e10 * (1 + rule.decay))).all()
