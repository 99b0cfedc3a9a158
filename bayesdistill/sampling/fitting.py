"""`fit`: the tables and priors asked for, the model, NUTS, and everything put into one DataTree."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayesdistill import compiler, posterior
from bayesdistill.datasets import read_runs
from bayesdistill.errors import ConvergenceWarning, ModelError, ParameterError
from bayesdistill.model import build_model, reference_run
from bayesdistill.priors import (
    ASYMPTOTIC_WIDTH,
    EFFECTS,
    NOISE,
    OMEGA,
    PUBLISHED_TOLERANCE,
    SOFT_TARGETS,
    TIED_EXPONENTS,
    WEAK_TEACHER,
    Prior,
    Priors,
    default_priors,
    prior_frame,
)
from bayesdistill.sampling.groups import data_groups, labelled, log_likelihood
from bayesdistill.sampling.model_key import model_key
from bayesdistill.sampling.nuts import sample
from bayesdistill.sampling.origins import describe_origin
from bayesdistill.sampling.prior_choice import choose_priors

if TYPE_CHECKING:
    import pandas as pd


def fit(
    runs: pd.DataFrame | str | Path | None = None,
    supervised: pd.DataFrame | str | Path | None = None,
    *,
    priors: Priors | Mapping[str, Prior] | xr.DataTree | None = None,
    widen: float = 2.0,
    gamma: float | None = None,
    tolerance: float = PUBLISHED_TOLERANCE,
    asymptotic_width: float | None = ASYMPTOTIC_WIDTH,
    weak_teacher: bool = WEAK_TEACHER,
    soft_targets: bool = SOFT_TARGETS,
    omega: float | None = OMEGA,
    tied_exponents: bool = TIED_EXPONENTS,
    effects: Sequence[str] = EFFECTS,
    noise: str = NOISE,
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    seed: int = 0,
    cores: int | None = None,
    target_accept: float = 0.9,
    progress: bool | None = None,
) -> xr.DataTree:
    """Fit the scaling law to runs with NUTS.

    Parameters
    ----------
    runs : DataFrame or path, optional
        Distilled runs (student_params, student_tokens, teacher_loss, student_loss); read and checked by `read_runs`.
    supervised : DataFrame or path, optional
        Supervised runs (params, tokens, loss). Alone, they give a fit of the supervised law; beside distilled runs they
        take the place of the published-law prior.
    priors : mapping of Prior, Priors, or DataTree, optional
        A mapping changes single coordinates (see `prior_table`); an earlier fit serves as prior, its standard deviations
        times `widen`; Priors are taken as they are.
    widen : float
        How much wider an earlier posterior is made before it serves as prior.
    gamma : float, optional
        Fixes the supervised law's gamma; 1 is the form of Hoffmann et al. (2022). Needs supervised runs.
    tolerance : float
        Nats; of the published-law prior, used where there are no supervised runs.
    asymptotic_width : float or None
        Nats; width of the one-sided prior on distillation's lead with unlimited data. None leaves it out.
    weak_teacher : bool
        Whether students may beat a teacher that is worse than they would be alone: one more parameter, w1.
    soft_targets : bool
        Whether a token of distillation may be worth more or less to the student's ability than one of pretraining: one more
        parameter, kappa.
    omega : float or None
        Share of the irreducible loss that the capacity gap takes off the losses it compares: 0 is equation 8, 1 compares reducible
        losses; None makes it a parameter.
    tied_exponents : bool
        Whether size and tokens enter the student's excess as they enter its own reducible loss: alpha_S = alpha, beta_S = beta, three
        parameters fewer.
    effects : sequence of {"teacher", "student", "student_slope"}
        Shifts shared by the runs of a teacher, or of a student configuration; "student_slope": shifts of a configuration that
        grow with ln L_T. `noise="run"` in `plan` counts them as scatter.
    noise : {"constant", "ratio", "tokens"}
        Scatter that is the same for all runs, or depends on r = L_T / Lsup, or on the student's tokens.
    draws, tune, chains : int
        Kept and tuning draws of each chain, and chains.
    seed : int
        The same seed gives the same draws, whatever `cores` is.
    cores : int, optional
        Chains sampled at once; by default as many as the machine has cores.
    target_accept : float
        Acceptance that the step size is tuned to. Raise it towards 1 against divergences.
    progress : bool, optional
        Whether to show a progress bar; by default in a terminal and in a notebook.

    Returns
    -------
    DataTree
        Groups posterior (chain, draw), sample_stats, log_likelihood, observed_data, constant_data and prior_table;
        provenance in the attributes (`bayesdistill.provenance`). Every ArviZ function works on it.

    Raises
    ------
    DataError
        If a table of runs is not usable.
    ModelError
        If there are no runs, or the sampler fails.
    ParameterError
        If an argument is out of range.

    Warns
    -----
    CompilerWarning
        If the model is compiled with numba, which takes about a minute (see `bayesdistill.compiler`).
    ConvergenceWarning
        If the draws fail a gate of `check`.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.fit(bd.load_runs("busbridge2025"), seed=1, progress=False)  # doctest: +SKIP
    """
    for name, count, least in (("draws", draws, 4), ("tune", tune, 1), ("chains", chains, 1)):
        if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < least:
            raise ParameterError(f"{name} is {count!r}; a whole number of at least {least} is needed")
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise ParameterError(f"seed is {seed!r}; a whole number from 0 to 2^64 - 1 is needed")
    if cores is not None and (not isinstance(cores, int | np.integer) or isinstance(cores, bool) or cores < 1):
        raise ParameterError(f"cores is {cores!r}; a whole number of at least 1 is needed")
    if not 0 < target_accept < 1:
        raise ParameterError(f"target_accept is {target_accept!r}; a number between 0 and 1 is needed")
    if runs is None and supervised is None:
        raise ModelError("there are no runs: give distilled runs, supervised runs, or both")
    table = None if runs is None else read_runs(runs, kind="distilled")
    other = None if supervised is None else read_runs(supervised, kind="supervised")
    reference = reference_run(table, other)
    chosen = choose_priors(
        priors,
        widen,
        default_priors(
            distilled=table is not None,
            supervised=other is not None,
            reference=reference,
            tolerance=tolerance,
            gamma=gamma,
            asymptotic_width=asymptotic_width,
            weak_teacher=weak_teacher,
            soft_targets=soft_targets,
            omega=omega,
            tied_exponents=tied_exponents,
            effects=effects,
            noise=noise,
        ),
        reference,
        keep_supervised=other is None,
    )
    started = time.time()
    compiled = compiler.compile(
        lambda: build_model(table, other, priors=chosen, reference=reference),
        model_key(table, other, chosen, reference),
    )
    tree = sample(compiled, draws, tune, chains, seed, cores, target_accept, progress)
    observed, constant = data_groups(table, other)
    drawn = tree["posterior"].to_dataset()
    kept = labelled(drawn, reference)
    if posterior.OMEGA in chosen.table:
        kept = kept.drop_vars(posterior.OMEGA).assign_attrs({posterior.OMEGA: chosen.table[posterior.OMEGA].location})
    groups = {
        posterior.POSTERIOR: kept,
        posterior.SAMPLE_STATS: tree["sample_stats"].to_dataset(),
        posterior.LOG_LIKELIHOOD: log_likelihood(drawn, observed, constant, reference),
        posterior.OBSERVED: observed,
        posterior.CONSTANT: constant,
        posterior.PRIOR_TABLE: prior_frame(chosen).to_xarray().rename(coordinate="parameter"),
    }
    result = xr.DataTree.from_dict(groups)
    settings = {"draws": draws, "tune": tune, "chains": chains, "target_accept": target_accept}
    result.attrs = {
        posterior.FORMAT_ATTRIBUTE: posterior.FORMAT,
        posterior.PROVENANCE_ATTRIBUTE: json.dumps(
            describe_origin(table, other, chosen, reference, compiled.backend, settings, seed, started), sort_keys=True
        ),
    }
    verdict = posterior.convergence(result)
    if verdict["failed"]:
        warnings.warn(
            f"the draws did not pass {', '.join(verdict['failed'])}; bd.check(fit) says what to do",
            ConvergenceWarning,
            stacklevel=2,
        )
    return result
