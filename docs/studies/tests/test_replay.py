"""The replay of the choice of runs, with fits that hold only which runs were made."""

from __future__ import annotations

import json

import numpy as np
import pytest
import replay as module
import xarray as xr
from replay import BATCHES, START, replay

import bayesdistill as bd
from bayesdistill.criticism.pairs import own_costs
from bayesdistill.errors import DataError, ParameterError


def flops(params):
    return 2.0 * np.asarray(params, dtype=float)


@pytest.fixture
def study(monkeypatch):
    """Runs, and fits that hold which rows were made, in place of sampling."""
    distilled = bd.load_runs("tiny")
    supervised = bd.load_runs("tiny", kind="supervised")
    fitted = []

    def fit(refitter, made, **sampler):
        fitted.append(made.copy())
        draws = xr.Dataset({name: (("chain", "draw"), np.ones((2, 8))) for name in bd.PUBLISHED})
        return xr.DataTree.from_dict({"posterior": draws, "made": xr.Dataset({"made": ("row", made)})})

    class Prepared:
        def __init__(self, runs, priors, supervised):
            self.runs, self.supervised = runs, supervised

    monkeypatch.setattr(module, "_fit", fit)
    monkeypatch.setattr(module, "prepare_refits", Prepared)
    return distilled, supervised, fitted


def decide(fit):
    """Two decisions: the first is right once the most expensive run is made, the second always."""
    made = fit["made"]["made"].values
    return np.array([0.5 if made[-1] else -0.1, -0.2])


def last_first(fit, candidates, count, seed):
    return candidates["name"].tolist()[::-1]


def first_first(fit, candidates, count, seed):
    return candidates["name"].tolist()


def test_regret_falls_when_the_run_that_matters_is_made(study, tmp_path):
    distilled, supervised, fitted = study
    told = []
    path = tmp_path / "kept.json"
    arguments = {"flops": flops, "starts": 2, "checkpoint": path, "progress": lambda *done: told.append(done)}
    orders = {"last": last_first, "first": first_first}
    found = replay(distilled, supervised, orders, decide, **arguments)
    assert found["full_gain"].values.tolist() == [0.5, -0.2]
    # The wrong first decision costs what all runs see in it, over two decisions.
    assert found["regret"].sel(order="first").values.ravel().tolist() == [0.25] * 2 * (len(BATCHES) + 1)
    assert found["regret"].sel(order="last", start=0).values.tolist() == [0.25] + [0.0] * len(BATCHES)
    assert found["agreement"].sel(order="last", start=0).values.tolist() == [0.5] + [1.0] * len(BATCHES)
    assert found["runs"].values.tolist() == np.cumsum([sum(START), *BATCHES]).tolist()
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    # Nothing is made twice, and both ways begin with the same runs, all of them cheap.
    costs = np.concatenate(own_costs(distilled, supervised, flops))
    starts = [made for made in fitted if made.sum() == sum(START)]
    assert len(starts) == 4
    np.testing.assert_array_equal(starts[0], starts[1])
    assert (starts[0] != starts[2]).any()
    assert costs[starts[0]].max() <= np.median(costs) * 4
    spent = found["compute"].sel(order="last", start=0).values
    assert spent[0] == 0
    assert (np.diff(spent) > 0).all()
    before = len(fitted)
    xr.testing.assert_identical(replay(distilled, supervised, orders, decide, **arguments), found)
    assert len(fitted) == before
    finished = [json.loads(line)["task"] for line in path.read_text().splitlines()]
    assert set(finished) == {"full", "last 0", "first 0", "last 1", "first 1"}
    with pytest.raises(DataError, match="seed is 0 in the file and 1 in this call"):
        replay(distilled, supervised, orders, decide, **(arguments | {"seed": 1}))


def test_candidates_are_what_next_runs_takes(study):
    distilled, supervised, _ = study
    costs = np.concatenate(own_costs(distilled, supervised, flops))
    made = np.zeros(costs.size, dtype=bool)
    made[[0, len(distilled)]] = True
    table = module.candidates_of(distilled, supervised, costs)[~made].reset_index(drop=True)
    assert len(table) == costs.size - 2
    np.testing.assert_allclose(bd.run_costs(table), costs[~made])
    assert bd.cheapest_first(table)[0] == str(np.flatnonzero(~made)[np.argmin(costs[~made])])


def test_more_runs_than_there_are(study):
    distilled, supervised, _ = study
    with pytest.raises(ParameterError, match="but there are only"):
        replay(distilled, supervised, {"first": first_first}, decide, flops=flops, batches=[10_000])
