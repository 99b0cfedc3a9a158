"""Run NUTS with nutpie, and arrange the draws as ArviZ expects them."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from typing import Any

import xarray as xr

from bayesdistill import posterior
from bayesdistill.errors import ModelError
from bayesdistill.progress import watched

ADAPTATION: dict[str, Any] = {"adaptation": "low_rank", "mass_matrix_gamma": 0.3}
"""Adaptation of nutpie's mass matrix. The coordinates are correlated in a few directions only. `mass_matrix_gamma` is the weight of
a diagonal matrix: with nutpie's default of 1e-5, one of 8 seeds of the default model had half of the usual effective sample size; with
0.3, each of 16 seeds had two thirds or more."""

MAX_TREEDEPTH = 6
"""Maximum tree depth: a trajectory has at most 2 to this power steps. After tuning, trajectories have 15 to 31 steps. In the first
tuning draws, when the scales of the coordinates are unknown, they are much longer; with PyMC's default of 10, these draws took a third
of all steps of a fit."""

SETTINGS: tuple[dict[str, Any], ...] = (
    {"draws": 1000, "tune": 1000, "target_accept": 0.9, "maxdepth": MAX_TREEDEPTH},
    {"draws": 2000, "tune": 2000, "target_accept": 0.97, "maxdepth": 10},
    {"draws": 4000, "tune": 2000, "target_accept": 0.998, "maxdepth": 12},
)
"""Default settings of a fit: each is used if the draws of the one before fail the convergence checks. Few runs determine a few
functions of the coordinates, which change with the other coordinates. The posterior is then a thin curved surface, on which
trajectories require many small steps. The prior on the advantage with unlimited data ends it abruptly."""
FIXED_AXIS_SETTINGS = SETTINGS[1:]
"""The same for runs with an axis that does not vary, whose draws often fail with the first settings."""
PATH_SETTINGS = (SETTINGS[0] | {"target_accept": 0.95}, *SETTINGS[1:])
"""The same for a law with a discrepancy. E and gamma then reach farther along a ridge that becomes narrow: at 0.9, two of nine
fits of the two packaged studies had a divergent draw."""

_LATER = ("dask.array", "h5netcdf", "dask.distributed")
"""Packages that the log-likelihood and `save` import. xarray imports dask, if it is installed, when it creates an array or writes a
file."""


def load_ahead() -> None:
    """Import the packages that the rest of a fit requires.

    The threads of the sampler do not wait, because they do not hold the GIL. An import that fails is ignored here and raises an error
    where the package is required.
    """
    for name in _LATER:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def sample(
    compiled: Any, *, cores: int | None, progress: bool | None, chains: int, **settings: Any
) -> dict[str, xr.Dataset]:
    """Sample the posterior of a compiled model; return the groups posterior and sample_stats.

    `settings` are arguments of `nutpie.sample`, such as the entries of `SETTINGS`.

    Raises
    ------
    ModelError
        If the sampler fails.
    KeyboardInterrupt
        If the user interrupts the sampler. The draws are discarded, because the fit is incomplete.
    """
    import nutpie

    try:
        sampler = nutpie.sample(
            compiled,
            **settings,
            **ADAPTATION,
            chains=chains,
            cores=min(chains, cores or os.cpu_count() or 1),
            progress_bar=watched() if progress is None else progress,
            blocking=False,
        )
        try:
            # In a thread, because an import may swallow the KeyboardInterrupt that only the main thread gets.
            threading.Thread(target=load_ahead, daemon=True).start()
            tree = sampler.wait()
        except BaseException:
            sampler.cancel()
            raise
    except RuntimeError as error:
        reason = str(error).partition("Stack backtrace")[0].strip().rstrip(".")
        raise ModelError(f"The sampler failed: {reason}. Check the runs and the priors (bd.prior_table).") from error
    groups = {name: tree[name].to_dataset() for name in (posterior.POSTERIOR, posterior.SAMPLE_STATS)}
    # Names of transformed PyMC variables end in "__"; netCDF does not support the missing messages of divergences.
    return {
        group: dataset[[name for name, v in dataset.items() if not name.endswith("__") and v.dtype.kind in "biuf"]]
        for group, dataset in groups.items()
    }
