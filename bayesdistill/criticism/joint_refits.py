"""Fitting both laws to many subsets of distilled and supervised runs: compiled once, then only sampling is paid for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesdistill.criticism.predictions import flat_draws
from bayesdistill.errors import ModelError
from bayesdistill.model import build_model, reference_run, student_configurations, teacher_labels
from bayesdistill.priors import Priors, Reference
from bayesdistill.sampling import ADAPTATION, compile_model

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class JointRefitter:
    """A compiled model of distilled and supervised runs, ready for subsets of both.

    Parameters
    ----------
    distilled, supervised : DataFrame
        All runs: their design fixes the reference, the student configurations and the teachers.
    priors : Priors
    reference : Reference
    compiled : nutpie's compiled model
    """

    distilled: pd.DataFrame
    supervised: pd.DataFrame
    priors: Priors
    reference: Reference
    compiled: Any


def prepare_joint_refits(distilled: pd.DataFrame, supervised: pd.DataFrame, priors: Priors) -> JointRefitter:
    """Compile the joint model of all runs once; `priors` are those around `model.reference_run(distilled, supervised)`."""
    reference = reference_run(distilled, supervised)
    model = build_model(distilled, supervised, priors=priors, reference=reference)
    return JointRefitter(distilled, supervised, priors, reference, compile_model(model))


def joint_refit(
    refitter: JointRefitter,
    kept_distilled: np.ndarray,
    kept_supervised: np.ndarray,
    *,
    draws: int,
    tune: int,
    seed: int,
    chains: int = 4,
    cores: int = 1,
    target_accept: float = 0.9,
) -> xr.DataTree:
    """Sample the compiled model for some of its runs.

    Parameters
    ----------
    refitter : JointRefitter
    kept_distilled, kept_supervised : array of bool, (run,) and (supervised_run,)
        Runs that enter the likelihood, at least one of each kind.
    draws, tune, seed, chains, cores, target_accept
        As in `fit`.

    Returns
    -------
    DataTree
        Groups posterior and sample_stats.
    """
    import nutpie

    if not (kept_distilled.any() and kept_supervised.any()):
        raise ModelError("no distilled or no supervised run is kept: keep at least one of each kind")
    distilled, supervised = refitter.distilled, refitter.supervised

    def kept(table: pd.DataFrame, column: str, mask: np.ndarray) -> np.ndarray:
        return table[column].to_numpy(dtype=float)[mask]

    data: dict[str, Any] = {
        "student_params": kept(distilled, "student_params", kept_distilled),
        "student_tokens": kept(distilled, "student_tokens", kept_distilled),
        "teacher_loss": kept(distilled, "teacher_loss", kept_distilled),
        "student_loss_observed": kept(distilled, "student_loss", kept_distilled),
        "configuration_of_run": student_configurations(distilled)[1][kept_distilled],
        "teacher_of_run": teacher_labels(distilled)[1][kept_distilled],
        "params": kept(supervised, "params", kept_supervised),
        "tokens": kept(supervised, "tokens", kept_supervised),
        "loss_observed": kept(supervised, "loss", kept_supervised),
    }
    # What the model does not use is no data of the compiled one.
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
        progress_bar=False,
        save_warmup=False,
        **ADAPTATION,
    )


def joint_draws(refitter: JointRefitter, tree: xr.DataTree) -> dict[str, np.ndarray]:
    """Every variable of a refit with chain and draw stacked, (draw, ...), and the coordinates of the scatter."""
    flat = flat_draws(tree["posterior"].to_dataset())
    for position, name in enumerate(refitter.priors.names):
        if name in ("noise_ratio", "noise_tokens"):  # no deterministics of the model
            flat[name] = refitter.priors.location[position] + flat["z"] @ refitter.priors.factor[position]
    return flat
