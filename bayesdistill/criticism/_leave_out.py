"""Leave-group-out cross-validation over teachers, students and the paper's split.

Runs share teachers and student configurations, so leaving out single runs gives optimistic scores to models with group effects.
This module leaves out all runs of a teacher or a student size, or the runs that the paper extrapolated to, and scores the
predictions of these runs: log score (elpd), CRPS, error of the mean, and coverage of intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import posterior
from bayesdistill.arguments import SAMPLED, checked, instance, one_of
from bayesdistill.criticism.left_out_scores import Fitted, run_predictions
from bayesdistill.criticism.refits import digest, full_name, refit_until_converged, refitter_for
from bayesdistill.criticism.results import dataset
from bayesdistill.criticism.scores import score_draws
from bayesdistill.criticism.tasks import run_missing
from bayesdistill.datasets import hash_of, read_runs
from bayesdistill.errors import ParameterError
from bayesdistill.law import DEFAULT_LAW, Law, as_law
from bayesdistill.law.effects import teacher_groups
from bayesdistill.model import reference_run
from bayesdistill.posterior import ConvergenceThresholds
from bayesdistill.priors import Priors, default_priors
from bayesdistill.progress import Progress

SPLITS = ("teacher", "student", "paper")
REFIT_THRESHOLDS = ConvergenceThresholds(max_rhat=1.03, min_ess_bulk=200, min_ess_tail=200, max_divergences=20)
"""Thresholds of a refit. They are looser than the defaults, because a few divergences do not affect the scores."""
LONGER = 3
"""Factor by which draws and tuning draws increase if a refit fails the convergence checks."""
PAPER_THRESHOLD = 2.3
"""The paper fitted runs with L_S above this value (nats per token) and extrapolated to the others."""


Predictor = Callable[[pd.DataFrame, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""(runs, kept, seed) -> predictive draws and log densities of the other runs, (n, run) each."""


def folds(runs: pd.DataFrame, split: str, parts: int = 8) -> list[np.ndarray]:
    """Return masks of the runs that are left out together, a list of (run,) of bool.

    Parameters
    ----------
    runs : DataFrame
    split : {"teacher", "student", "paper"}
        "teacher": teachers in `parts` groups. "student": one student size at a time, with all its configurations.
        "paper": the runs with a student loss of at most 2.3, to which the paper extrapolated.
    parts : int
        Number of groups of teachers. Teachers are assigned to groups in turn, in order of their losses.
    """
    if split == "teacher":
        names, index = teacher_groups(runs)
        loss = runs["teacher_loss"].to_numpy(dtype=float)
        order = np.argsort(np.argsort([loss[index == i].mean() for i in range(len(names))]))
        return [np.isin(index, np.flatnonzero(order % parts == k)) for k in range(min(parts, len(names)))]
    if split == "student":
        size = runs["student_params"].to_numpy(dtype=float)
        return [size == value for value in np.unique(size)]
    if split == "paper":
        return [runs["student_loss"].to_numpy(dtype=float) <= PAPER_THRESHOLD]
    raise ParameterError(f"`split` must be one of {', '.join(map(repr, SPLITS))}, got {split!r}.")


def priors_of(law: Law | str, runs: pd.DataFrame, prior_settings: Mapping[str, Any] | None = None) -> Priors:
    """Return the default priors of a law for distilled runs."""
    law = as_law(law).for_runs(distilled=True, supervised=False)
    return default_priors(law, reference_run(runs, None), **dict(prior_settings or {}))


@checked(draws=SAMPLED, split=one_of(*SPLITS), thresholds=instance(ConvergenceThresholds))
def leave_out(
    runs: pd.DataFrame,
    split: str,
    law: Law | str | Predictor = DEFAULT_LAW,
    *,
    prior_settings: Mapping[str, Any] | None = None,
    parts: int = 8,
    draws: int = 500,
    tune: int = 700,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: Progress = None,
    executor: Executor | None = None,
    thresholds: ConvergenceThresholds = REFIT_THRESHOLDS,
) -> xr.Dataset:
    """Refit without each group of runs in turn and score the predictions of the left-out runs.

    Parameters
    ----------
    runs : DataFrame
        Distilled runs.
    split : {"teacher", "student", "paper"}
        See `folds`.
    law : Law, str or callable
        A law or a name in `LAWS`. To score another method, pass a function defined in a module that takes (runs, kept, seed)
        and returns predictive draws and log densities of the runs not kept, (n, run) each.
    prior_settings : mapping, optional
        Keyword arguments of `priors.default_priors`: tolerance, asymptotic_width.
    parts : int
        Number of groups of teachers.
    draws, tune, seed : int
        Sampler settings of each refit (4 chains).
    checkpoint : path, optional
        File with one line per finished fold. A later call with the same runs and settings resumes from it; other settings are
        an error.
    progress : bool or callable, optional
        A callable is called with (folds done, total folds). By default, a progress bar in a terminal or notebook.
    executor : concurrent.futures.Executor, optional
        Runs the refits; each worker compiles the model once. By default, refits run sequentially in this process.
    thresholds : ConvergenceThresholds
        Convergence thresholds of a refit. A refit that fails is repeated once with three times as many draws.

    Returns
    -------
    Dataset
        Over run, for the left-out runs: elpd (natural log of the predictive density), crps and error (mean minus observed,
        nats per token), inside_50 and inside_90 (whether the interval contains the outcome), fold, and converged (whether the
        last refit of the fold passed the convergence checks).

    Raises
    ------
    DataError
        If the table of runs is invalid, or the checkpoint is not a log of this package, is damaged, or has other settings.
    FileError
        If the checkpoint cannot be written.
    ParameterError
        If the split is unknown.

    Notes
    -----
    Predictions include residual noise and the effects of unseen groups. The score of a run is marginal: effects that the
    runs of a left-out group share are integrated out for each run separately.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> scored = bd.leave_out(bd.load_runs("busbridge2025"), "student", "busbridge2025")  # doctest: +SKIP
    """
    runs = read_runs(runs, kind="distilled")
    groups = folds(runs, split, parts)
    model = law if callable(law) else priors_of(law, runs, prior_settings)
    name = digest(model) if isinstance(model, Priors) else full_name(model)
    sampler = {"draws": draws, "tune": tune, "seed": seed}
    setting = {"function": "leave_out", "split": split, "law and priors": name, "parts": parts, **sampler}
    setting |= {"runs": hash_of(runs), **asdict(thresholds)}
    tasks = {
        str(k): (runs, model, ~out, sampler | {"seed": (seed + k) % 2**64}, thresholds) for k, out in enumerate(groups)
    }
    what = f"leave-out refits ({split})"
    done = run_missing(_fold, tasks, setting, what, log=checkpoint, executor=executor, progress=progress)
    scored = pd.concat([pd.DataFrame(done[str(k)]).assign(fold=k) for k in range(len(groups))]).sort_values("run")
    attrs = {
        "split": split,
        "law": model.law.to_json() if isinstance(model, Priors) else getattr(model, "__name__", name),
    }
    return dataset("leave_out", dict(scored), {"run": scored["run"].to_numpy()}, attrs)


def _fold(task: tuple[Any, ...]) -> dict[str, Any]:
    """Refit without a group and score its runs."""
    runs, model, kept, sampler, thresholds = task
    observed, converged = runs["student_loss"].to_numpy(dtype=float)[~kept], True
    if isinstance(model, Priors):
        longer = {"draws": LONGER, "tune": LONGER}
        tree, attempts = refit_until_converged(refitter_for(runs, model), sampler, thresholds, longer=longer, kept=kept)
        converged = not attempts[-1]["failed"]
        fitted = Fitted(posterior.draws_of(tree), posterior.effects_of(tree), {"distilled": runs}, {"distilled": kept})
        scored = run_predictions(fitted, np.random.default_rng(sampler["seed"]))
    else:
        drawn, density = model(runs, kept, sampler["seed"])
        scored = {"mean": drawn.mean(axis=0), **score_draws(drawn, density, observed)}
    error = (np.asarray(scored.pop("mean")) - observed).tolist()
    return {"run": np.flatnonzero(~kept).tolist(), "error": error, "converged": converged, **scored}


def score_table(results: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Return scores of several models on the same left-out runs, best elpd first.

    Parameters
    ----------
    results : mapping
        Name of the model -> result of `leave_out`, all for the same split.

    Returns
    -------
    DataFrame
        One row per model: elpd, the difference from the best elpd and its standard error over folds (runs of a fold are not
        independent), crps, rmse, coverage of the 50% and 90% intervals, and the number of refits that did not converge.

    Examples
    --------
    >>> import bayesdistill as bd, xarray as xr
    >>> columns = {"elpd": [1.0, 2.0], "crps": [0.1, 0.1], "error": [0.3, -0.4], "inside_50": [1, 0], "inside_90": [1, 1]}
    >>> columns["converged"] = [True, True]
    >>> scored = xr.Dataset({name: ("run", value) for name, value in columns.items()} | {"fold": ("run", [0, 1])})
    >>> bd.score_table({"mine": scored}).loc["mine", ["elpd", "rmse", "coverage_50"]].round(3).tolist()
    [3.0, 0.354, 0.5]
    """
    best = max(results, key=lambda name: float(results[name]["elpd"].sum()))
    rows = {}
    for name, scored in results.items():
        difference = scored["elpd"] - results[best]["elpd"]
        per_fold = difference.groupby(scored["fold"]).sum().values
        converged = scored["converged"].values.astype(bool)
        rows[name] = {
            "runs": scored.sizes["run"],
            "elpd": float(scored["elpd"].sum()),
            "elpd_difference": float(difference.sum()),
            "standard_error": np.std(per_fold, ddof=1) * np.sqrt(per_fold.size) if per_fold.size > 1 else np.nan,
            "crps": float(scored["crps"].mean()),
            "rmse": float(np.sqrt((scored["error"] ** 2).mean())),
            "coverage_50": float(scored["inside_50"].mean()),
            "coverage_90": float(scored["inside_90"].mean()),
            "unconverged": np.unique(scored["fold"].values[~converged]).size,
        }
    index = pd.Index(list(rows), name="model")
    return pd.DataFrame(list(rows.values()), index=index).sort_values("elpd", ascending=False)
