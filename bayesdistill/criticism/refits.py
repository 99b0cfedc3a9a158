"""Refit one compiled model to many data sets.

Leave-group-out cross-validation, simulation-based calibration, the backtest and the replay fit the same model hundreds of times.
nutpie replaces the data of a compiled model, so the model is compiled only once.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesdistill import compiler
from bayesdistill.errors import ModelError
from bayesdistill.law import Reference
from bayesdistill.law.effects import configuration_groups
from bayesdistill.law.predictive import COLUMNS, OUTCOME
from bayesdistill.model import build_model, reference_run
from bayesdistill.posterior import with_law
from bayesdistill.priors import Priors
from bayesdistill.sampling import ADAPTATION, MAX_TREEDEPTH
from bayesdistill.sampling.groups import labeled

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Refitter:
    """Compiled model of distilled and supervised runs for refits to subsets or other outcomes.

    Parameters
    ----------
    runs : DataFrame
        All distilled runs. They determine the reference run, the student configurations and the teachers.
    priors : Priors
    reference : Reference
    compiled : nutpie's compiled model
    supervised : DataFrame, optional
        All supervised runs.
    """

    runs: pd.DataFrame
    priors: Priors
    reference: Reference
    compiled: Any
    supervised: pd.DataFrame | None = None


def prepare_refits(runs: pd.DataFrame, priors: Priors, supervised: pd.DataFrame | None = None) -> Refitter:
    """Compile the model of all runs.

    Parameters
    ----------
    runs : DataFrame
        Distilled runs.
    priors : Priors
        Priors centered at `model.reference_run(runs, supervised)`.
    supervised : DataFrame, optional
        Supervised runs of the same model.
    """
    reference = reference_run(runs, supervised)
    compiled = compiler.compile(lambda: build_model(runs, supervised, priors=priors, reference=reference), key=None)
    return Refitter(runs, priors, reference, compiled, supervised)


_LAST: list[Refitter] = []
_COMPILING = threading.Lock()


def refitter_for(runs: pd.DataFrame, priors: Priors, supervised: pd.DataFrame | None = None) -> Refitter:
    """Return the compiled model; reuse the model of the last call if it is the same.

    Each process keeps one model, because the workers of an executor keep no other state between tasks.
    """
    with _COMPILING:
        if not (_LAST and _same(_LAST[0], runs, priors, supervised)):
            _LAST[:] = [prepare_refits(runs, priors, supervised)]
        return _LAST[0]


def _same(kept: Refitter, runs: pd.DataFrame, priors: Priors, supervised: pd.DataFrame | None) -> bool:
    ours, theirs = kept.supervised, supervised
    return (
        kept.priors.law == priors.law
        and kept.priors.names == priors.names
        and kept.priors.asymptotic_width == priors.asymptotic_width
        and np.array_equal(kept.priors.location, priors.location)
        and np.array_equal(kept.priors.covariance, priors.covariance)
        and kept.runs.equals(runs)
        and (ours is theirs or (ours is not None and theirs is not None and ours.equals(theirs)))
    )


def refit(
    refitter: Refitter,
    kept: np.ndarray | None = None,
    student_loss: np.ndarray | None = None,
    kept_supervised: np.ndarray | None = None,
    *,
    draws: int = 500,
    tune: int = 700,
    chains: int = 4,
    cores: int = 2,
    seed: int = 0,
    target_accept: float = 0.9,
    max_treedepth: int = MAX_TREEDEPTH,
) -> xr.DataTree:
    """Sample the posterior of a compiled model for a subset of its runs or other outcomes.

    Parameters
    ----------
    refitter : Refitter
    kept : array of bool, (run,), optional
        Distilled runs in the likelihood, by default all. Effects of groups without runs have their prior.
    student_loss : array, (run,), optional
        Replace the outcomes of all distilled runs.
    kept_supervised : array of bool, (supervised_run,), optional
        Supervised runs in the likelihood, by default all.
    draws, tune, chains, cores, seed, target_accept
        As in `fit`.
    max_treedepth : int
        Maximum tree depth: a trajectory has at most 2 to this power steps. Truncation reduces the effective sample size but does
        not bias the draws.

    Returns
    -------
    DataTree
        Groups `posterior` and `sample_stats`.
    """
    import nutpie

    runs = refitter.runs
    kept = _mask(kept, runs, "run")
    loss = runs["student_loss"].to_numpy(dtype=float) if student_loss is None else student_loss
    data = {name: values[kept] for name, values in _data(refitter, runs, "distilled").items()}
    data["student_loss_observed"] = np.asarray(loss, dtype=float)[kept]
    data["configuration_of_run"] = configuration_groups(runs)[1][kept]
    if refitter.supervised is not None:
        kept_supervised = _mask(kept_supervised, refitter.supervised, "supervised run")
        of_supervised = _data(refitter, refitter.supervised, "supervised")
        data |= {name: values[kept_supervised] for name, values in of_supervised.items()}
    # The compiled model has no shared variables for unused data.
    used = {variable.name for variable in refitter.compiled.shared_var_keys}
    compiled = refitter.compiled.with_data(**{name: value for name, value in data.items() if name in used})
    tree: xr.DataTree = nutpie.sample(
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
    law = refitter.priors.law
    drawn = labeled(tree["posterior"].to_dataset(), law)
    tree["posterior"] = xr.DataTree(with_law(drawn, law, refitter.reference))
    return tree


def _data(refitter: Refitter, table: pd.DataFrame, kind: str) -> dict[str, np.ndarray]:
    """Return the data of one kind of runs under their names in the model."""
    found = {column: table[column].to_numpy(dtype=float) for column in COLUMNS[kind]}
    found[f"{OUTCOME[kind]}_observed"] = table[OUTCOME[kind]].to_numpy(dtype=float)
    found |= {e.index: e.groups(table)[1] for e in refitter.priors.law.effects if e.kind == kind}
    return found


def _mask(kept: np.ndarray | None, table: pd.DataFrame, what: str) -> np.ndarray:
    kept = np.ones(len(table), dtype=bool) if kept is None else kept
    if not kept.any():
        raise ModelError(f"At least one {what} must be kept. Leave out fewer runs at a time.")
    return kept
