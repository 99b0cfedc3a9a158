"""Fits of few distilled runs pass the convergence checks with default settings."""

from __future__ import annotations

import few_runs
import pytest

import bayesdistill as bd


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("design", few_runs.DESIGNS)
def test_fits_of_few_runs_converge(design, seed):
    """A ConvergenceWarning is an error."""
    fit = bd.fit(few_runs.simulated(design, seed), seed=seed, progress=False)
    attempts = bd.provenance(fit)["attempts"]
    assert [bool(one["failed"]) for one in attempts] == [True] * (len(attempts) - 1) + [False]
    assert bd.check(fit).ok
