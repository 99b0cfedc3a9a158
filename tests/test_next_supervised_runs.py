"""Values of supervised runs for pretraining against closed forms and limits."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from test_cli import run
from test_update import NORMAL, REFERENCE, law_loss

import bayesdistill as bd
from bayesdistill import cli, posterior

LAW = bd.LAWS["tied_reducible"].with_discrepancy().with_effects().with_residual_noise(supervised="constant")
BUDGETS = [1e22, 1e24]
RUNS = pd.DataFrame({"params": [1e9, 4e9], "tokens": [2e10, 8e10], "name": ["small", "large"]})


def draws_of(sigma: float, count: int = 500, **values: np.ndarray) -> xr.Dataset:
    """Draws of the published law with normal residuals; some symbols have other values, (chain, draw)."""
    law = LAW.for_runs(distilled=False, supervised=True)
    known = {**bd.PUBLISHED, "sigma": sigma, "nu": NORMAL}
    drawn = {p.name: np.full((4, count), known[p.name]) for p in law.parameters} | values
    return posterior.with_law(xr.Dataset({k: (("chain", "draw"), v) for k, v in drawn.items()}), law, REFERENCE)


def test_a_normal_level_is_known_after_the_run_as_well_as_theory_says():
    sd, sigma = 0.01, 0.005
    levels = bd.PUBLISHED["E"] + sd * np.random.default_rng(0).standard_normal((4, 1000))
    found = bd.next_supervised_runs(draws_of(sigma, 1000, E=levels), RUNS, BUDGETS)
    after = (sd**-2 + sigma**-2) ** -0.5
    np.testing.assert_allclose(found["loss_sd"], sd, rtol=0.05)
    np.testing.assert_allclose(found["loss_sd_after"], after, rtol=0.03)
    np.testing.assert_allclose(found["sd_reduction"], 1 - after / sd, atol=0.03)
    np.testing.assert_allclose(found["size_value"], 0, atol=1e-12)  # E does not change the optimum
    np.testing.assert_allclose(found["predicted_loss"], law_loss(RUNS), atol=1e-3)
    assert found["candidate"].values[found["rank"].values == 1] == "small"  # the cheaper one of two equal runs


@pytest.mark.parametrize(("sigma", "share"), [(1e-5, 1.0), (10.0, 0.0)])
def test_a_precise_run_is_worth_the_regret_and_a_noisy_one_nothing(sigma, share):
    """Two equally probable laws, which the loss of any run tells apart if it is precise."""
    factor = np.where(np.random.default_rng(1).permutation(2000).reshape(4, 500) % 2, 0.8, 1.25)
    found = bd.next_supervised_runs(draws_of(sigma, A=bd.PUBLISHED["A"] * factor), RUNS, BUDGETS)
    regret = found["regret"].values
    assert (regret > 1e-5).all()
    np.testing.assert_allclose(found["budget_size_value"], share * np.tile(regret, (2, 1)), atol=0.02 * regret.min())
    np.testing.assert_allclose(found["sd_reduction"], share, atol=0.02)


def test_the_value_of_a_choice_is_a_nested_simulation():
    """Random outcomes and a reweighting written out, for a small model on many tokens, whose loss tells about A alone."""
    rng = np.random.default_rng(2)
    values = {name: bd.PUBLISHED[name] * rng.lognormal(0, 0.3, (4, 400)) for name in ("A", "B")}
    draws, run_ = draws_of(0.01, 400, **values), RUNS.iloc[:1].assign(params=2e8, tokens=1e13)
    found = bd.next_supervised_runs(draws, run_, BUDGETS)
    p = {name: draws[name].values.ravel() for name in ("E", "A", "B", "alpha", "beta", "gamma")}
    mean = bd.supervised_loss(2e8, 1e13, **p)
    chosen = bd.compute_optimal(draws, BUDGETS, noise="law")["params"].values
    sizes = np.geomspace(0.4, 2.5, 41) * chosen[:, None]  # the middle one is chosen now
    tokens = np.array(BUDGETS)[:, None] / (3 * bd.flops_per_token(sizes))
    losses = bd.supervised_loss(sizes[..., None], tokens[..., None], **p)
    outcomes = rng.choice(mean, 3000) + 0.01 * rng.standard_normal(3000)
    weights = np.exp(-0.5 * ((outcomes[:, None] - mean) / 0.01) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    updated = (weights @ losses.reshape(-1, mean.size).T).reshape(-1, 2, sizes.shape[1])
    value = (updated[:, :, 20] - updated.min(axis=-1)).mean(axis=0)
    regret = found["regret"].values
    assert (value > 0.3 * regret).all()
    assert (value < 0.9 * regret).all()
    np.testing.assert_allclose(found["budget_size_value"].values[0], value, atol=0.06 * regret.min())
    np.testing.assert_array_less(found["budget_size_value_mcse"].values[0], 0.1 * regret)


def test_runs_are_proposed_within_the_compute_of_the_data(supervised_runs):
    draws = draws_of(0.01, E=bd.PUBLISHED["E"] + 0.01 * np.random.default_rng(0).standard_normal((4, 500)))
    data = xr.Dataset({name: ("supervised_run", supervised_runs[name].values) for name in ("params", "tokens")})
    fit = xr.DataTree.from_dict({"posterior": draws, "constant_data": data})
    found = bd.next_supervised_runs(fit, None, 1e24, objective="size", outcomes=50)
    spent = 3 * bd.flops_per_token(supervised_runs["params"]) * supervised_runs["tokens"]
    assert found["cost"].min() >= spent.min() * (1 - 1e-9)
    assert found["cost"].max() <= spent.max() * (1 + 1e-9)
    assert sorted(found["rank"].values) == list(range(1, 13))
    near = bd.next_supervised_runs(fit, None, 1e21, outcomes=50)  # a run near the target would be made instead of it
    assert near["cost"].max() == pytest.approx(min(1e21 / 4, spent.max()))
    with pytest.raises(bd.ParameterError, match="Pass a table of `candidates`"):
        bd.next_supervised_runs(draws, None, 1e24)
    distilled = pd.DataFrame({"student_params": [1e9], "student_tokens": [2e10], "teacher_loss": [2.2]})
    with pytest.raises(bd.ParameterError, match=r"Use bd\.next_runs"):
        bd.next_supervised_runs(draws, distilled, 1e24)


def test_the_command_ranks_runs(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cli, "_load_fit", bd.load)  # draws without a fit
    draws = draws_of(0.01, 50, E=bd.PUBLISHED["E"] + 0.01 * np.random.default_rng(0).standard_normal((4, 50)))
    fit, table = bd.save(draws, tmp_path / "fit.nc"), tmp_path / "runs.csv"
    RUNS.to_csv(table, index=False)
    asked = ["next-supervised", str(fit), "--budgets", "1e24", "--candidates", str(table)]
    code, out, err = run(monkeypatch, capsys, *asked)
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 80
    code, out, err = run(monkeypatch, capsys, *asked, "--json")
    assert code == 0, err
    expected = bd.decision_table(bd.next_supervised_runs(draws, RUNS, 1e24))
    assert [row["sd_reduction"] for row in json.loads(out)] == pytest.approx(
        expected["sd_reduction"].tolist(), rel=1e-5
    )
