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
from bayesdistill.criticism.distances import geometric_distances
from bayesdistill.criticism.left_out_scores import Fitted, run_predictions
from bayesdistill.criticism.refits import (
    LONGER,
    REFIT_THRESHOLDS,
    digest,
    full_name,
    refit_until_converged,
    refitter_for,
)
from bayesdistill.criticism.results import dataset
from bayesdistill.criticism.scores import score_draws
from bayesdistill.criticism.tasks import run_missing
from bayesdistill.datasets import hash_of, read_runs
from bayesdistill.errors import ParameterError
from bayesdistill.law import DEFAULT_LAW, Law, as_law
from bayesdistill.law.effects import configuration_labels, teacher_groups
from bayesdistill.model import reference_run
from bayesdistill.posterior import ConvergenceThresholds
from bayesdistill.priors import Priors, default_priors
from bayesdistill.progress import Progress

SPLITS = ("teacher", "student", "paper")
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


def group_labels(runs: pd.DataFrame, split: str) -> np.ndarray:
    """Return the group of every run, (run,): teacher, student size or, for "paper", student configuration."""
    if split == "teacher":
        names, index = teacher_groups(runs)
        return np.array([str(name) for name in names])[index]
    columns = ["student_params"] if split == "student" else ["student_params", "student_tokens"]
    values = runs[columns].to_numpy(dtype=float)
    return np.array([f"{size:.4g}" for size in values[:, 0]] if split == "student" else configuration_labels(values))


def priors_of(law: Law | str, runs: pd.DataFrame, prior_settings: Mapping[str, Any] | None = None) -> Priors:
    """Return the default priors of a law for distilled runs."""
    law = as_law(law).for_tables(runs, None)
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
        Keyword arguments of `priors.default_priors`: tolerance, asymptotic_width, perfect_teacher_width, limited_data_width.
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
        nats per token), inside_50 and inside_90 (whether the interval contains the outcome), pit (predictive probability of a lower
        loss), fold, group (teacher, student size or, for "paper", student configuration), and converged (whether the last refit of
        the fold passed the convergence checks). Distances from the other runs of the refit, on the axes student size, tokens per
        parameter and teacher loss, in standard deviations of their logs: distance (from the range of these runs, 0 inside) and
        nearest_distance (from the nearest of them). leverage: the standard deviation of the law's expected loss over the residual
        scale (NaN for a function). `error_by_distance` summarizes them.

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
    setting |= {"runs": hash_of(runs), **asdict(thresholds), "scores": "elpd crps error inside pit leverage"}
    tasks = {
        str(k): (runs, model, ~out, sampler | {"seed": (seed + k) % 2**64}, thresholds) for k, out in enumerate(groups)
    }
    what = f"leave-out refits ({split})"
    done = run_missing(_fold, tasks, setting, what, log=checkpoint, executor=executor, progress=progress)
    labels = group_labels(runs, split)
    folds_scored = [
        pd.DataFrame(done[str(k)]).assign(fold=k, group=labels[out], **geometric_distances(runs, ~out))
        for k, out in enumerate(groups)
    ]
    scored = pd.concat(folds_scored).sort_values("run").astype({"leverage": float})
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
        tree, attempts = refit_until_converged(refitter_for(runs, model), sampler, thresholds, longer=LONGER, kept=kept)
        converged = not attempts[-1]["failed"]
        fitted = Fitted(posterior.draws_of(tree), posterior.effects_of(tree), {"distilled": runs}, {"distilled": kept})
        scored = run_predictions(fitted, np.random.default_rng(sampler["seed"]))
    else:
        drawn, density = model(runs, kept, sampler["seed"])
        unknown: list[Any] = [None] * observed.size
        scored = {"mean": drawn.mean(axis=0), "leverage": unknown, **score_draws(drawn, density, observed)}
    error = (np.asarray(scored.pop("mean")) - observed).tolist()
    return {"run": np.flatnonzero(~kept).tolist(), "error": error, "converged": converged, **scored}


def _mean(values: xr.DataArray) -> float:
    """Return the mean; NaN if there are no values."""
    return float(values.mean()) if values.size else np.nan


@checked
def score_table(results: Mapping[str, xr.Dataset], *, include_failed: bool = False) -> pd.DataFrame:
    """Return scores of several models on the same left-out runs, best elpd first.

    Parameters
    ----------
    results : mapping
        Name of the model -> result of `leave_out`, all for the same split.
    include_failed : bool
        Also score folds whose refit failed the convergence checks.

    Returns
    -------
    DataFrame
        One row per model: runs (number that is scored), elpd, the difference of elpd from the best model in the folds that both
        have and its standard error over these folds (runs of a fold are not independent), crps, rmse, coverage of the 50% and 90%
        intervals, and unconverged, the number of folds whose refit failed the convergence checks. The best model has the largest
        elpd among the models with the most runs. Scores of a model without a fold that passed are NaN.

    Examples
    --------
    >>> import bayesdistill as bd, xarray as xr
    >>> columns = {"elpd": [1.0, 2.0], "crps": [0.1, 0.1], "error": [0.3, -0.4], "inside_50": [1, 0], "inside_90": [1, 1]}
    >>> columns["converged"] = [True, True]
    >>> scored = xr.Dataset({name: ("run", value) for name, value in columns.items()} | {"fold": ("run", [0, 1])})
    >>> bd.score_table({"mine": scored}).loc["mine", ["elpd", "rmse", "coverage_50"]].round(3).tolist()
    [3.0, 0.354, 0.5]
    """
    passed = {name: scored["converged"].values.astype(bool) | include_failed for name, scored in results.items()}
    best = max(results, key=lambda name: (passed[name].sum(), float(results[name]["elpd"].values[passed[name]].sum())))
    rows = {}
    for name, every in results.items():
        both = passed[name] & passed[best]
        difference = (every["elpd"] - results[best]["elpd"]).isel(run=both)
        per_fold = np.array(
            [difference.values[every["fold"].values[both] == k].sum() for k in np.unique(every["fold"][both])]
        )
        scored = every.isel(run=passed[name])
        rows[name] = {
            "runs": scored.sizes["run"],
            "elpd": float(scored["elpd"].sum()) if scored.sizes["run"] else np.nan,
            "elpd_difference": float(difference.sum()) if per_fold.size else np.nan,
            "standard_error": np.std(per_fold, ddof=1) * np.sqrt(per_fold.size) if per_fold.size > 1 else np.nan,
            "crps": _mean(scored["crps"]),
            "rmse": np.sqrt(_mean(scored["error"] ** 2)),
            "coverage_50": _mean(scored["inside_50"]),
            "coverage_90": _mean(scored["inside_90"]),
            "unconverged": np.unique(every["fold"].values[~every["converged"].values.astype(bool)]).size,
        }
    index = pd.Index(list(rows), name="model")
    return pd.DataFrame(list(rows.values()), index=index).sort_values("elpd_difference", ascending=False)
