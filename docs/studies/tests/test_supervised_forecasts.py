"""The baselines of supervised forecasts find the law that made the runs, and the study's tables count right."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import supervised_baselines as baselines
import supervised_forecasts as study

import bayesdistill as bd
from bayesdistill.law.predictive import Design, expected_loss, residual_scale
from bayesdistill.model import reference_run

LAW = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37, "gamma": 1.0}
SIGMA = 0.01


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    """Runs of the Chinchilla form with normal noise, and without it in the column `truth`."""
    size, ratio = (grid.ravel() for grid in np.meshgrid(np.geomspace(2e7, 2e9, 8), np.geomspace(5, 80, 5)))
    truth = bd.supervised_loss(size, size * ratio, **LAW)
    noise = SIGMA * np.random.default_rng(1).standard_normal(size.size)
    return pd.DataFrame({"params": size, "tokens": size * ratio, "loss": truth + noise, "truth": truth})


@pytest.mark.parametrize("name", ["huber_bootstrap", "simple_scaling_laws"])
def test_baselines_find_the_law_and_its_noise(runs, monkeypatch, name):
    if name == "simple_scaling_laws" and not baselines.has_simple_scaling_laws():
        pytest.skip("simple-scaling-laws is not installed")
    monkeypatch.setattr(baselines, "BOOTSTRAP_REFITS", 20)
    found = getattr(baselines, name)(None, runs, reference_run(None, runs), 0)
    design = Design.of(found.law, runs, "supervised")
    loss = expected_loss(found, design)
    # The middle of the runs is determined to about sigma over the root of their number.
    np.testing.assert_allclose(loss.mean(axis=0), runs["truth"], atol=0.012)
    assert np.median(np.abs(loss.mean(axis=0) - runs["truth"])) < 0.5 * SIGMA
    assert loss.std(axis=0).min() > 0.05 * SIGMA
    assert residual_scale(found, design).mean() == pytest.approx(SIGMA, rel=0.3)


def test_tables_count_runs_and_compare_with_the_first_method():
    rows = pd.DataFrame(
        {
            "forecaster": ["first"] * 4 + ["second"] * 4,
            "table": ["a", "a", "b", "b"] * 2,
            "prediction_cutoff": 1e18,
            "prediction_factor": [2.0, 20.0, 2.0, 2.0] * 2,
            "observed": 2.0,
            "predicted": [2.1, 2.1, 2.2, 2.2, 2.2, 2.2, 2.1, 2.1],
            "crps": [1.0, 1.0, 3.0, 5.0, 1.0, 1.0, 1.0, 1.0],
            "elpd": 0.5,
            "inside_90": [1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0],
            "inside_50": 0.0,
            "failed": [False] * 6 + [True] * 2,
        }
    )
    lines = study.summary(rows).splitlines()
    assert lines[2] == "| first | 4 | 75% | 0% | 1.00 | 1.00 | 0.50 | 0 of 2 |"
    # CRPS: the geometric mean of 1 and 1/4. RMSE: of 2 and 1/2.
    assert lines[3] == "| second | 4 | 50% | 0% | 0.50 | 1.00 | 0.50 | 1 of 2 |"
    assert study.coverage(rows, rows["table"]).splitlines() == [
        "| in 90% | a (2) | b (2) |",
        "| --- | --- | --- |",
        "| first | 50% | 100% |",
        "| second | 100% | 0% |",
    ]


def test_runs_above_the_cutoffs_are_predicted(runs):
    found = study.forecasts(runs, "simulated", forecasters=[the_law])
    compute = 6 * runs["params"] * runs["tokens"]
    limits = np.quantile(compute, study.FRACTIONS, method="lower")
    assert len(found) == sum((compute > limit).sum() for limit in limits)
    np.testing.assert_allclose(found["observed"], np.concatenate([runs["loss"][compute > limit] for limit in limits]))
    assert not found["failed"].any()


def the_law(distilled, supervised, reference, seed):
    return bd.law.Draws(baselines.CHINCHILLA, LAW | {"sigma": SIGMA, "nu": 1e8})
