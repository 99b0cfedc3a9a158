"""Run NUTS with nutpie, and arrange the draws as ArviZ expects them."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.errors import ModelError
from bayesdistill.progress import watched
from bayesdistill.sampling.loading import load_ahead

ADAPTATION: dict[str, Any] = {"adaptation": "low_rank", "mass_matrix_gamma": 0.3}
"""Adaptation of nutpie's mass matrix. The coordinates are correlated in a few directions only. `mass_matrix_gamma` is the weight of
a diagonal matrix: with nutpie's default of 1e-5, one of 8 seeds of the default model had half of the usual effective sample size; with
0.3, each of 16 seeds had two thirds or more."""

MAX_TREEDEPTH = 6
"""Maximum tree depth: a trajectory has at most 2 to this power steps. After tuning, trajectories have 15 to 31 steps. In the first
tuning draws, when the scales of the coordinates are unknown, they are much longer; with PyMC's default of 10, these draws took a third
of all steps of a fit."""

_HIDDEN = frozenset(
    {
        "gradient",
        "unconstrained_draw",
        "transformed_position",
        "transformed_gradient",
        "transformation_mu",
        "mass_matrix_inv",
        "mass_matrix_eigvals",
        "mass_matrix_stds",
        "divergence_start",
        "divergence_end",
        "divergence_momentum",
        "divergence_start_gradient",
    }
)
"""Statistics that nutpie names but fills only on demand."""


def sample(
    compiled: Any,
    draws: int,
    tune: int,
    chains: int,
    seed: int,
    cores: int | None,
    target_accept: float,
    progress: bool | None,
) -> xr.DataTree:
    """Sample the posterior of a compiled model; return groups posterior and sample_stats.

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
            draws=draws,
            tune=tune,
            chains=chains,
            cores=min(chains, cores or os.cpu_count() or 1),
            seed=seed,
            target_accept=target_accept,
            maxdepth=MAX_TREEDEPTH,
            **ADAPTATION,
            progress_bar=watched() if progress is None else progress,
            return_raw_trace=True,
            blocking=False,
        )
        try:
            load_ahead()
            trace = sampler.wait()
        except BaseException:
            sampler.cancel()
            raise
    except RuntimeError as error:
        raise ModelError(f"The sampler failed: {error}. Check the runs and the priors (bd.prior_table).") from error
    draw_batches, stat_batches = trace.get_arrow_trace()
    settings = json.dumps(sampler._settings.as_dict())
    return _tree(draw_batches, stat_batches, tune, compiled.coords, settings, nutpie.__version__)


def _tree(
    draws: list[Any], stats: list[Any], tune: int, coords: dict[str, Any], settings: str, version: str
) -> xr.DataTree:
    from arviz_base import from_dict

    dims: dict[str, list[str]] = {}
    groups = {posterior.POSTERIOR: _arrays(draws, tune, dims), posterior.SAMPLE_STATS: _arrays(stats, tune, dims)}
    attributes = {
        "inference_library": "nutpie",
        "inference_library_version": version,
        "inference_library_settings": settings,
    }
    tree: xr.DataTree = from_dict(
        groups,
        dims=dims,
        coords={k: np.asarray(v) for k, v in coords.items()},
        attrs={posterior.SAMPLE_STATS: attributes},
    )
    return tree


def _arrays(batches: list[Any], tune: int, dims: dict[str, list[str]]) -> dict[str, np.ndarray]:
    """Convert Arrow tables to arrays (chain, draw, ...) without tuning draws and text."""
    import pyarrow as pa

    result: dict[str, np.ndarray] = {}
    for name in batches[0].column_names:
        # Names of transformed PyMC variables end in "__"; the untransformed variables are also available.
        if name in _HIDDEN or name.endswith("__"):
            continue
        metadata = batches[0].column(name).field.metadata or {}
        shape = [int(length) for length in metadata.get(b"shape", b"").decode().split(",") if length]
        chains = []
        for batch in batches:
            column = pa.array(batch.column(name))[tune:]
            values = column.flatten() if hasattr(column, "flatten") else column
            dtype = np.dtype(values.type.to_pandas_dtype())
            # Skip the messages of divergences, because netCDF does not support missing text.
            if dtype.kind not in "biuf":
                break
            valid = values.is_valid().to_numpy(zero_copy_only=False)
            numbers = np.full(len(values), np.nan if dtype.kind == "f" else 0, dtype=dtype)
            numbers[valid] = values.drop_null().to_numpy(zero_copy_only=False)
            chains.append(numbers.reshape(len(column), *shape))
        else:
            result[name] = np.stack(chains)
            dims[name] = [dim for dim in metadata.get(b"dims", b"").decode().split(",") if dim]
    return result
