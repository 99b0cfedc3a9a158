"""The range over laws of plans of a single fit, from stored fits, and what is said about it."""

from __future__ import annotations

import json
import math
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from decision_cases import posterior_of, published

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.decisions import planning, solving
from bayesdistill.decisions.references import reference_probabilities, references
from bayesdistill.tables.formatting import readable

STUDENTS, BUDGETS = [3e8, 1e9], [1e21, 1e23]
TEACHERS = pd.DataFrame({"name": ["small", "large"], "params": [1e9, 7e9], "loss": [2.3, 2.05], "tokens": [1e11, 3e11]})


def test_the_stored_fits_are_small_and_say_what_they_are(fit354):
    assert (files("bayesdistill.posterior") / "reference_fits.nc").stat().st_size < 300_000
    origin = posterior.provenance(posterior.reference_fits())
    assert origin["versions"]["bayesdistill"]
    assert origin["data"]["distilled"]["sha256"] == posterior.provenance(fit354)["data"]["distilled"]["sha256"]
    assert len(references().laws) == 4
    assert np.bincount(references().law).tolist() == [200] * 4
    assert all(law["convergence"]["converged"] for law in origin["laws"].values())


@pytest.mark.parametrize("teachers", [None, TEACHERS], ids=["new", "existing"])
@pytest.mark.parametrize("level", ["law", "expected", "run"])
def test_probabilities_are_those_of_a_plan_of_the_mixture(level, teachers):
    """A plan of the stored mixture has the same probabilities, because the strategy is the same."""
    planner = bd.Planner(posterior.reference_fits(), noise=level, seed=4, progress=False)
    plan = bd.plan(planner, STUDENTS, BUDGETS, "teacher inference", teachers=teachers)
    problem, _ = planning.problem_of(planner, STUDENTS, BUDGETS, "teacher inference", teachers)
    chosen = solving.solve(solving.CHOSEN, planner.fitted.draws, problem, planning.workers_of(planner))
    found = reference_probabilities(planner, problem, chosen)
    np.testing.assert_array_equal(found, plan["probability_by_law"])
    assert np.ptp(found, axis=0).max() > 0.1


def test_a_plan_of_a_fit_has_the_range_over_laws(fit354):
    plan = bd.plan(fit354, STUDENTS, BUDGETS, "best case", progress=False)
    every = np.concatenate([plan["probability_by_law"].values, plan["probability"].values[None]])
    np.testing.assert_array_equal(plan["law_range"].sel(bound="lower"), every.min(axis=0))
    np.testing.assert_array_equal(plan["law_range"].sel(bound="upper"), every.max(axis=0))
    curves = (
        (plan["supervised_loss"] > plan["distilled_loss"]).mean(("chain", "draw")).transpose(*plan["probability"].dims)
    )
    np.testing.assert_allclose(plan["probability_curves"], curves)
    every = np.concatenate([every, curves.values[None]])
    np.testing.assert_array_equal(plan["laws_agree"], ~((every.min(axis=0) < 0.5) & (every.max(axis=0) > 0.5)))
    # Equation 8 has distillation ahead at 1e23, the other laws do not.
    assert not plan["laws_agree"].sel(student=1e9, budget=1e23).item()
    assert "The data do not determine the better option in" in str(plan)
    table = bd.plan_table(plan)
    np.testing.assert_array_equal(table["probability_lowest"], plan["law_range"].sel(bound="lower").values.ravel())
    assert "P at 1e21 (range over laws)" in readable(bd.summary_table(plan))


def test_levels_that_disagree_are_said():
    plan = bd.plan(posterior_of(published(2)), "1B", [1e21, 1e22], "best case", progress=False)
    assert plan["laws_agree"].all()
    plan["laws_agree"][..., 0] = False
    assert "The data do not determine the better option in 1 of 2 cells of the plan" in str(plan)


def test_there_is_no_range_for_another_corpus(fit354):
    plan = bd.plan(posterior_of(published(2)), "1B", 1e21, "best case", progress=False)
    assert not {"law_range", "probability_by_law"} & {*plan.variables}
    assert "There is no range over laws" in plan.attrs["law_range"]
    assert "the runs behind these draws are unknown" in str(plan)
    assert posterior.reference_note(fit354) == ""
    joint = fit354.copy()
    origin = posterior.provenance(fit354) | {"supervised_law": "supervised runs"}
    joint.attrs[posterior.PROVENANCE_ATTRIBUTE] = json.dumps(origin)
    assert "the fit has another supervised law" in posterior.reference_note(joint)


def test_no_advice_where_laws_disagree(fit354):
    found = bd.recommendations(fit354, "1B", budgets=[1e20, 1e23], tokens=[], progress=False)
    rows = found.isel(row=(~found["laws_agree"]).values)
    assert rows.sizes["row"]
    assert not {"distill", "pretrain"} & {*rows["advice"].values.tolist()}
    for sentence in rows["sentence"].values[rows["advice"].values == "undetermined"]:
        assert "over laws" in sentence or "under all laws" in sentence
    ends = found["probability_lowest"], found["probability_highest"]
    assert (ends[0] <= found["probability"]).all()
    assert (found["probability"] <= ends[1]).all()


@pytest.mark.parametrize(("arguments", "text"), [
    ((0.72,), "about 0.7"),
    ((0.999, 0.0, (0.31, 1.0)), "above 0.95 (0.3 to > 0.95 over laws)"),
    ((0.02, 0.01, (0.0, 0.02)), "below 0.05 (the same under all laws)"),
    ((0.5, 0.2), "about 0.5 (Monte Carlo error 0.2)"),
    ((0.5, 0.0, (math.nan, math.nan)), "about 0.5"),
    ((math.nan,), "unknown"),
])  # fmt: skip
def test_probabilities_are_printed_with_the_precision_that_they_have(arguments, text):
    assert posterior.about(*arguments) == text
