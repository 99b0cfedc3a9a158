"""Fitting one model to many tables of runs: compiled once, then a fraction of the time for each.

Leave-group-out, simulation-based calibration, the backtest and the replay fit the same model hundreds of times. nutpie keeps the
compiled model and takes new data, so that only sampling is paid for.
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
from bayesdistill.sampling.groups import labelled

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Refitter:
    """A compiled model of distilled and, where there are any, supervised runs, ready for subsets and for other outcomes.

    Parameters
    ----------
    runs : DataFrame
        All distilled runs: they fix the reference, the student configurations and the teachers.
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
    """Compile the model of all runs once.

    Parameters
    ----------
    runs : DataFrame
        Distilled runs.
    priors : Priors
        Around `model.reference_run(runs, supervised)`.
    supervised : DataFrame, optional
        Supervised runs of the same model.
    """
    reference = reference_run(runs, supervised)
    compiled = compiler.compile(lambda: build_model(runs, supervised, priors=priors, reference=reference), key=None)
    return Refitter(runs, priors, reference, compiled, supervised)


_LAST: list[Refitter] = []
_COMPILING = threading.Lock()


def refitter_for(runs: pd.DataFrame, priors: Priors, supervised: pd.DataFrame | None = None) -> Refitter:
    """The compiled model of these runs and priors, one a process: that of the last call if it is the same.

    For workers of an executor, which are handed tasks and keep nothing else between them.
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
    """Sample the compiled model for some of its runs, or for other outcomes of them.

    Parameters
    ----------
    refitter : Refitter
    kept : array of bool, (run,), optional
        Runs that enter the likelihood; all if left out. Groups without a run draw their effects from the prior.
    student_loss : array, (run,), optional
        Other outcomes, of all runs.
    kept_supervised : array of bool, (supervised_run,), optional
        Supervised runs that enter the likelihood; all if left out.
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
    kept = _mask(kept, runs, "run")
    loss = runs["student_loss"].to_numpy(dtype=float) if student_loss is None else student_loss
    data = {name: values[kept] for name, values in _data(refitter, runs, "distilled").items()}
    data["student_loss_observed"] = np.asarray(loss, dtype=float)[kept]
    data["configuration_of_run"] = configuration_groups(runs)[1][kept]
    if refitter.supervised is not None:
        kept_supervised = _mask(kept_supervised, refitter.supervised, "supervised run")
        of_supervised = _data(refitter, refitter.supervised, "supervised")
        data |= {name: values[kept_supervised] for name, values in of_supervised.items()}
    # The compiled model has only the data that it uses.
    known = {variable.name for variable in refitter.compiled.shared_var_keys}
    compiled = refitter.compiled.with_data(**{name: value for name, value in data.items() if name in known})
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
    drawn = labelled(tree["posterior"].to_dataset(), law)
    tree["posterior"] = xr.DataTree(with_law(drawn, law, refitter.reference))
    return tree


def _data(refitter: Refitter, table: pd.DataFrame, kind: str) -> dict[str, np.ndarray]:
    """The data of a kind of runs under the names that the model has for them."""
    found = {column: table[column].to_numpy(dtype=float) for column in COLUMNS[kind]}
    found[f"{OUTCOME[kind]}_observed"] = table[OUTCOME[kind]].to_numpy(dtype=float)
    found |= {e.index: e.groups(table)[1] for e in refitter.priors.law.effects if e.kind == kind}
    return found


def _mask(kept: np.ndarray | None, table: pd.DataFrame, what: str) -> np.ndarray:
    kept = np.ones(len(table), dtype=bool) if kept is None else kept
    if not kept.any():
        raise ModelError(f"no {what} is kept: leave out fewer at a time")
    return kept
