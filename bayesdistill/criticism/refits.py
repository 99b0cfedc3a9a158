"""Fitting one model to many tables of runs: compiled once, then a fraction of the time for each.

Leave-group-out and simulation-based calibration fit the same model hundreds of times. nutpie keeps the compiled model and takes
new data, so that only sampling is paid for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesdistill.errors import ModelError
from bayesdistill.model import build_model, reference_run, student_configurations, teacher_labels
from bayesdistill.priors import Priors, Reference
from bayesdistill.sampling import ADAPTATION, compile_model

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Refitter:
    """A compiled model of distilled runs, ready for subsets of them and for other outcomes.

    Parameters
    ----------
    runs : DataFrame
        All runs: they fix the reference, the student configurations and the teachers.
    priors : Priors
    reference : Reference
    compiled : nutpie's compiled model
    """

    runs: pd.DataFrame
    priors: Priors
    reference: Reference
    compiled: Any


def prepare_refits(runs: pd.DataFrame, priors: Priors) -> Refitter:
    """Compile the model of all runs once.

    Parameters
    ----------
    runs : DataFrame
        Distilled runs.
    priors : Priors
        Around `model.reference_run(runs, None)`.
    """
    reference = reference_run(runs, None)
    model = build_model(runs, priors=priors, reference=reference)
    return Refitter(runs, priors, reference, compile_model(model))


def refit(
    refitter: Refitter,
    kept: np.ndarray | None = None,
    student_loss: np.ndarray | None = None,
    *,
    draws: int = 500,
    tune: int = 700,
    chains: int = 4,
    cores: int = 2,
    seed: int = 0,
    target_accept: float = 0.9,
    max_treedepth: int = 10,
) -> xr.DataTree:
    """Sample the compiled model for some of its runs, or for other outcomes of them.

    Parameters
    ----------
    refitter : Refitter
    kept : array of bool, (run,), optional
        Runs that enter the likelihood; all if left out. Groups without a run draw their effects from the prior.
    student_loss : array, (run,), optional
        Other outcomes, of all runs.
    draws, tune, chains, cores, seed, target_accept
        As in `fit`.
    max_treedepth : int
        Trajectories are cut at 2 to this power steps. Cut ones cost independent draws, never correctness.

    Returns
    -------
    DataTree
        Groups posterior and sample_stats.
    """
    import nutpie

    runs = refitter.runs
    kept = np.ones(len(runs), dtype=bool) if kept is None else kept
    if not kept.any():
        raise ModelError("no run is kept: leave out fewer groups at a time")
    loss = runs["student_loss"].to_numpy(dtype=float) if student_loss is None else student_loss
    data: dict[str, Any] = {
        "student_params": runs["student_params"].to_numpy(dtype=float)[kept],
        "student_tokens": runs["student_tokens"].to_numpy(dtype=float)[kept],
        "teacher_loss": runs["teacher_loss"].to_numpy(dtype=float)[kept],
        "student_loss_observed": np.asarray(loss, dtype=float)[kept],
        "configuration_of_run": student_configurations(runs)[1][kept],
        "teacher_of_run": teacher_labels(runs)[1][kept],
    }
    known = {variable.name for variable in refitter.compiled.shared_var_keys}
    compiled = refitter.compiled.with_data(**{name: value for name, value in data.items() if name in known})
    return nutpie.sample(
        compiled,
        draws=draws,
        tune=tune,
        chains=chains,
        cores=cores,
        seed=seed,
        target_accept=target_accept,
        maxdepth=max_treedepth,
        progress_bar=False,
        save_warmup=False,
        **ADAPTATION,
    )
