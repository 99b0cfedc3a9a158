"""The prospective test: scores of made-up predictions, and what the stored predictions are about."""

from __future__ import annotations

import numpy as np
import pandas as pd
import prospective as module
import pytest
import xarray as xr

import bayesdistill as bd
from bayesdistill import posterior

CELLS = ["sup-a", "dis-a", "sup-b", "dis-b"]


@pytest.fixture
def predicted():
    """Predictions of two pairs by one law: uniform losses within 0.2 nats of 2 (pair a) and of 3 (pair b)."""
    center = np.array([2.0, 2.0, 3.0, 3.0])
    quantile = np.broadcast_to(center[:, None] + 0.4 * (module.PROBABILITIES - 0.5), (1, 3, 4, 50))
    levels = ("law", "noise", "cell")
    return xr.Dataset(
        {
            "mean": (levels, np.broadcast_to(center, (1, 3, 4))),
            "quantile": ((*levels, "probability"), quantile),
            "log_density": (("law", "cell", "offset"), np.broadcast_to(-(module.OFFSETS**2), (1, 4, 201))),
            "wins": (("law", "noise", "pair"), [[[0.5, 0.5], [0.6, 0.5], [0.8, 0.3]]]),
            "center": ("cell", center),
        },
        {
            "law": ["flat"],
            "noise": list(module.NOISE),
            "cell": CELLS,
            "probability": module.PROBABILITIES,
            "offset": module.OFFSETS,
            "pair": CELLS[1::2],
        },
    )


def test_scores_are_exact(predicted):
    losses = {"sup-a": 2.15, "dis-a": 2.0, "sup-b": 3.0, "dis-b": 3.24, "another run": 9.0}
    law, expected, run = module.score(predicted, losses).to_dict("records")
    assert (run["runs"], run["pairs"]) == (4, 2)
    assert run["90%"] == 0.75  # all but the last
    assert run["50%"] == 0.5
    assert run["bias"] == pytest.approx((0.15 + 0.24) / 4)
    draws = 0.4 * (module.PROBABILITIES - 0.5)
    spread = np.abs(draws[:, None] - draws).mean() / 2
    by_hand = [np.abs(draws - loss).mean() - spread for loss in (0.15, 0.0, 0.0, 0.24)]
    assert run["crps"] == pytest.approx(np.mean(by_hand), rel=1e-12)
    assert run["elpd"] == pytest.approx(-(0.15**2) - 0.24**2)
    assert np.isnan([law["elpd"], expected["elpd"]]).all()
    assert run["brier"] == pytest.approx((0.2**2 + 0.3**2) / 2)
    assert run["skill"] == pytest.approx(1 - run["brier"] / 0.25)
    assert law["skill"] == pytest.approx(0.0)


def test_cells_that_are_not_trained_do_not_count(predicted):
    run = module.score(predicted, {"sup-a": 2.15, "dis-a": 2.0, "sup-b": 3.0}).iloc[-1]
    assert (run["runs"], run["pairs"], run["90%"]) == (3, 1, 1.0)
    assert run["brier"] == pytest.approx(0.2**2)
    assert np.isnan(run["skill"])  # one outcome has no base rate
    assert module.score(predicted, {"sup-a": 2.4})["elpd"].iloc[-1] == -np.inf  # outside the stored densities
    alone = module.score(predicted, {"sup-b": 3.0}).iloc[-1]
    assert (alone["runs"], alone["pairs"]) == (1, 0)
    assert np.isnan(alone["brier"])


def test_cells_are_outside_the_tables_and_have_teachers_of_known_loss():
    planned, alone, distilled = module.cells(), bd.load_runs("tiny", kind="supervised"), bd.load_runs("tiny")
    assert len(planned) == planned.index.nunique() == 24
    most_tokens = max(alone["tokens"].max(), distilled["student_tokens"].max())
    compute = (
        (alone["params"] * alone["tokens"]).max(),
        (distilled["student_params"] * distilled["student_tokens"]).max(),
    )
    assert planned["tokens"].min() > most_tokens
    assert (planned["params"] * planned["tokens"]).min() > max(compute)
    pretrained, taught = planned.iloc[::2], planned.iloc[1::2]
    assert set(pretrained["kind"]) == {"supervised"}
    assert set(taught["kind"]) == {"distilled"}
    columns = ["params", "tokens", "model"]
    assert pretrained[columns].to_numpy().tolist() == taught[columns].to_numpy().tolist()
    assert taught["teacher_loss"].between(1.2, 1.5).all()


def test_stored_predictions_are_of_these_cells_and_older_than_their_losses():
    stored, planned = module.load(), module.cells()
    assert stored["cell"].values.tolist() == planned.index.tolist()
    assert stored["pair"].values.tolist() == planned.index[1::2].tolist()
    assert stored["law"].values.tolist() == [*module.LAWS, module.MIXTURE]
    np.testing.assert_allclose(stored["teacher_loss"], planned["teacher_loss"])
    assert (stored["quantile"].diff("probability") >= 0).all()
    assert ((stored["wins"] >= 0) & (stored["wins"] < 1)).all()  # rounded to four digits
    assert (stored["wins"].sel(noise="run") > 0).all()
    mass = np.exp(stored["log_density"]).sum("offset") * 0.003
    np.testing.assert_allclose(mass, 1.0, atol=0.03)
    log = module.log_rows()
    trained = [log[name] for name in planned.index if name in log]
    assert all(stored.attrs["written"] < row["finished"] for row in trained)
    assert {row["train_sha256"] for row in trained} <= {log["sup-d192-16M-s0"]["train_sha256"]}
    assert {row["experiment"] for row in trained} <= {"prospective"}


def test_predictions_cannot_change_once_a_cell_is_trained(monkeypatch):
    rows = module.log_rows() | {module.cells().index[0]: {"loss": 1.3}}
    monkeypatch.setattr(module, "log_rows", lambda: rows)
    with pytest.raises(SystemExit, match="already trained"):
        module.predict()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayesdistill.ConvergenceWarning")
def test_groups_of_the_fit_keep_their_effects_and_cells_have_new_ones():
    planned = module.cells()
    runs, kept = module.with_cells(planned)
    assert {kind: int((~mask).sum()) for kind, mask in kept.items()} == {"distilled": 12, "supervised": 12}
    fit = bd.fit(
        bd.load_runs("tiny"),
        supervised=bd.load_runs("tiny", kind="supervised"),
        draws=5,
        tune=5,
        chains=1,
        seed=0,
        progress=False,
    )
    fitted = module.fitted_to(fit, runs, kept)
    rng = np.random.default_rng(0)
    for kind, mask in kept.items():
        for name, drawn in fitted.effects_of_all(kind, rng).items():
            of_run = drawn[:, fitted.design(kind).groups[name][1]]
            stored, labels = posterior.effects_of(fit)[name], posterior.seen_groups(fit)[name]
            seen = bd.load_runs("tiny", kind=kind)
            effect = next(effect for effect in fitted.draws.law.effects if effect.name == name)
            own, index = effect.groups(seen)
            place = [labels.index(own[i]) for i in index]
            np.testing.assert_allclose(of_run[:, mask], stored[:, place])
            assert (np.abs(of_run[:, ~mask]) > 0).all()
    assert pd.isna(runs["supervised"]["loss"]).sum() == 12
