"""Posteriors that several test files share. The real fit is made once a session and kept nowhere."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayesdistill as bd

os.environ["BAYESDISTILL_CACHE"] = "off"
# Of these processes and their children: tests find nothing that earlier ones compiled, and leave nothing with the user.

SHARED = {
    "fit354": "real fit",
    "joint": "simulated fits",
    "chinchilla": "simulated fits",
    "ratio_fit": "fit with noise by r",
    "plain": "compiled model",
    "baseline_backtest": "backtest",
    "pool": "draws of the prior",
}
"""Fixtures that take long, and the group of their tests. With several workers, all tests of a group go to the same worker, so that
the fixture is made once."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name, group in SHARED.items():
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(group))
                break


@pytest.fixture(scope="session")
def runs354() -> pd.DataFrame:
    """The published runs."""
    return bd.load_runs("busbridge2025")


@pytest.fixture(scope="session")
def fit354(runs354: pd.DataFrame) -> xr.DataTree:
    """A real NUTS fit of the published runs. Tests must not change it; `with_groups` makes a copy that differs."""
    return bd.fit(runs354, seed=0, progress=False)


@pytest.fixture(scope="session")
def published_draw() -> xr.Dataset:
    """A posterior of one draw: the published law."""
    draws = {name: (("chain", "draw"), [[value]]) for name, value in bd.PUBLISHED.items()}
    return xr.Dataset(draws, attrs={"law": "busbridge2025"})


@pytest.fixture(scope="session")
def jittered_draws() -> xr.Dataset:
    """Bare draws scattered around the published law, with noise parameters: 4 chains of 250."""
    rng = np.random.default_rng(20250212)
    size = {"E": 0.003, "A": 0.02, "B": 0.02, "A_S": 0.02, "B_S": 0.02, "c0": 0.02, "gamma_S": 0.005}
    draws = {
        name: (("chain", "draw"), value * np.exp(size.get(name, 0.001) * rng.standard_normal((4, 250))))
        for name, value in bd.PUBLISHED.items()
    }
    draws["sigma"] = (("chain", "draw"), 0.007 * np.exp(0.05 * rng.standard_normal((4, 250))))
    draws["nu"] = (("chain", "draw"), 1 + 4 * np.exp(0.2 * rng.standard_normal((4, 250))))
    draws = xr.Dataset(draws, attrs={"law": "busbridge2025"})
    return draws.assign_coords(chain=np.arange(4), draw=np.arange(250))


@pytest.fixture(scope="session")
def supervised_runs() -> pd.DataFrame:
    """32 supervised runs simulated from the published law."""
    return bd.simulate_runs(bd.PUBLISHED, kind="supervised", seed=11, sigma=0.004, nu=20.0)
