"""Refit one compiled model to many data sets.

Leave-group-out cross-validation, simulation-based calibration, the backtest and the replay fit the same model hundreds of times.
nutpie replaces the data of a compiled model, so the model is compiled only once.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import compiler, posterior
from bayesdistill.errors import ModelError
from bayesdistill.law import Reference
from bayesdistill.law.discrepancy import path_weights, steps_between
from bayesdistill.law.effects import EFFECTS
from bayesdistill.law.predictive import COLUMNS, OUTCOME
from bayesdistill.model import RUN, SUPERVISED_PATH_WEIGHTS, build_model, reference_run, run_position, run_positions
from bayesdistill.priors import Priors
from bayesdistill.sampling import ADAPTATION, MAX_TREEDEPTH
from bayesdistill.sampling.groups import labeled


@dataclass(frozen=True)
class Refitter:
    """Compiled model of distilled and supervised runs for refits to subsets or other outcomes.

    Parameters
    ----------
    runs : DataFrame, optional
        All distilled runs. If there are any, they determine the reference run, the student configurations and the teachers.
    priors : Priors
    reference : Reference
    compiled : nutpie's compiled model
    supervised : DataFrame, optional
        All supervised runs.
    """

    runs: pd.DataFrame | None
    priors: Priors
    reference: Reference
    compiled: Any
    supervised: pd.DataFrame | None = None


def prepare_refits(runs: pd.DataFrame | None, priors: Priors, supervised: pd.DataFrame | None = None) -> Refitter:
    """Compile the model of all runs.

    Parameters
    ----------
    runs : DataFrame, optional
        Distilled runs.
    priors : Priors
        Priors centered at `model.reference_run(runs, supervised)`.
    supervised : DataFrame, optional
        Supervised runs of the same model.
    """
    reference = reference_run(runs, supervised)
    compiled = compiler.compile(lambda: build_model(runs, supervised, priors=priors, reference=reference), key=None)
    return Refitter(runs, priors, reference, compiled, supervised)


def digest(priors: Priors) -> str:
    """Return a digest of a law and its priors, 16 hexadecimal digits."""
    numbers = [priors.location.tolist(), priors.covariance.tolist(), priors.widths]
    parts = [priors.law.to_json(), list(priors.names), repr(priors.table), numbers]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def full_name(function: Any) -> str:
    """Return the module and the name of a function."""
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"


_LAST: dict[Any, Refitter] = {}
_COMPILING = threading.Lock()


def refitter_for(runs: pd.DataFrame | None, priors: Priors, supervised: pd.DataFrame | None = None) -> Refitter:
    """Return the compiled model; reuse the model of the last call if it is the same.

    Each process keeps one model, because the workers of an executor keep no other state between tasks.
    """
    tables = [table for table in (runs, supervised) if table is not None]
    key = (digest(priors), *(pd.util.hash_pandas_object(table).to_numpy().tobytes() for table in tables))
    with _COMPILING:
        if key not in _LAST:
            _LAST.clear()
            _LAST[key] = prepare_refits(runs, priors, supervised)
        return _LAST[key]


REFIT_THRESHOLDS = posterior.ConvergenceThresholds(
    max_rhat=1.03, min_ess_bulk=200, min_ess_tail=200, max_divergences=20
)
"""Thresholds of a refit whose predictions are scored. They are looser than the defaults, because a few divergences do not affect
the scores."""
LONGER = {"draws": 3, "tune": 3}
"""Factors by which draws and tuning draws increase if such a refit fails the convergence checks."""

SAMPLER = {"draws": 500, "tune": 700, "chains": 4, "cores": 2, "seed": 0, "target_accept": 0.9}
"""Sampler settings of a refit, under nutpie's names."""


def refit(
    refitter: Refitter,
    kept: np.ndarray | None = None,
    student_loss: np.ndarray | None = None,
    kept_supervised: np.ndarray | None = None,
    **sampler: Any,
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
    **sampler
        Replace or add to settings of SAMPLER. A smaller `maxdepth` truncates trajectories at 2 to this power steps. This reduces the
        effective sample size but does not bias the draws.

    Returns
    -------
    DataTree
        Groups `posterior` and `sample_stats`, and `constant_data` with sizes, tokens and teacher losses of the fitted runs.
    """
    import nutpie

    law = refitter.priors.law
    data: dict[str, np.ndarray] = {}
    design: dict[str, Any] = {}
    tables = (("distilled", refitter.runs, kept), ("supervised", refitter.supervised, kept_supervised))
    for kind, table, chosen in tables:
        if table is None:
            continue
        chosen = np.ones(len(table), dtype=bool) if chosen is None else chosen
        if not chosen.any():
            raise ModelError(f"At least one {kind} run must be kept. Leave out fewer runs at a time.")
        found = {name: table[name].to_numpy(dtype=float) for name in COLUMNS[kind]}
        found[f"{OUTCOME[kind]}_observed"] = table[OUTCOME[kind]].to_numpy(dtype=float)
        if kind == "distilled" and student_loss is not None:
            found[f"{OUTCOME[kind]}_observed"] = np.asarray(student_loss, dtype=float)
        found |= {
            effect.index: effect.groups(table)[1]
            for effect in (EFFECTS["student"], *law.effects)
            if effect.kind == kind
        }
        if law.discrepancy and kind == "supervised":
            steps = steps_between(run_positions(refitter.runs, refitter.supervised, refitter.reference))
            found[SUPERVISED_PATH_WEIGHTS] = path_weights(run_position(table, kind, refitter.reference), steps)
        data |= {name: values[chosen] for name, values in found.items()}
        design |= {name: ((RUN[kind],), found[name][chosen]) for name in COLUMNS[kind]}
    # The compiled model has no shared variables for unused data.
    used = {variable.name for variable in refitter.compiled.shared_var_keys}
    compiled = refitter.compiled.with_data(**{name: value for name, value in data.items() if name in used})
    settings = {"maxdepth": MAX_TREEDEPTH, **SAMPLER, **sampler, **ADAPTATION}
    tree: xr.DataTree = nutpie.sample(compiled, progress_bar=False, save_warmup=False, **settings)
    drawn = labeled(tree["posterior"].to_dataset(), law)
    tree[posterior.POSTERIOR] = xr.DataTree(posterior.with_law(drawn, law, refitter.reference))
    tree[posterior.CONSTANT] = xr.DataTree(xr.Dataset(design))
    return tree


def refit_until_converged(
    refitter: Refitter,
    sampler: Mapping[str, Any],
    thresholds: posterior.ConvergenceThresholds,
    *,
    longer: Mapping[str, int],
    accept: float | None = None,
    further: Callable[[xr.DataTree], list[str]] | None = None,
    **data: np.ndarray,
) -> tuple[xr.DataTree, list[dict[str, Any]]]:
    """Refit, once more with longer chains if the first refit fails the convergence checks.

    Parameters
    ----------
    refitter, sampler, data
        As for `refit`.
    thresholds : ConvergenceThresholds
    longer : mapping
        Factors by which settings of the sampler increase in the second refit.
    accept : float, optional
        Target acceptance rate of the second refit if the first one had divergences.
    further : callable, optional
        Further check of a refit; returns the names of what failed.

    Returns
    -------
    tree : DataTree
        The last refit.
    attempts : list of dict
        Result of `posterior.convergence` for every refit.
    """
    attempts: list[dict[str, Any]] = []
    for factors in ({}, longer):
        settings = {**sampler, **{name: factor * sampler[name] for name, factor in factors.items()}}
        if accept and attempts and "divergences" in attempts[0]["failed"]:
            settings["target_accept"] = accept
        tree = refit(refitter, **data, **settings)
        attempts.append(posterior.convergence(tree, thresholds))
        attempts[-1]["failed"] += [] if further is None else further(tree)
        if not attempts[-1]["failed"]:
            break
    return tree, attempts
