"""How well a model predicts runs of teachers and students that it has not seen.

Runs share teachers and student configurations, so that leaving out single runs flatters every model that learns their
shifts. Here whole teachers, whole student sizes, or the part that the paper extrapolated to are left out, and every model is
scored on the runs left out: log score (elpd), CRPS, error of the mean, coverage of intervals.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from scipy.stats import t as student_t

from bayesdistill import posterior
from bayesdistill.criticism.baselines import BASELINES
from bayesdistill.criticism.predictions import expected_losses, flat_draws, scatter_scale, shared_shifts
from bayesdistill.criticism.refits import refit, refitter_for
from bayesdistill.criticism.running import keep_finished, read_finished, run_tasks
from bayesdistill.criticism.scores import PROBABILITIES, crps, inside, log_score
from bayesdistill.datasets import data_hash
from bayesdistill.errors import ParameterError
from bayesdistill.model import reference_run
from bayesdistill.posterior import Gates
from bayesdistill.priors import EQUATION_8, Prior, Priors, default_priors, with_priors
from bayesdistill.progress import Progress
from bayesdistill.shifts import teacher_labels

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("teacher", "student", "paper")
REFIT_GATES = Gates(max_rhat=1.03, min_ess_bulk=200, min_ess_tail=200, max_divergences=20)
"""What a refit must pass: enough for scores; single divergences do not move them."""
LONGER = 3
"""Factor on draws and tuning draws of a refit that did not pass the gates."""
PAPER_THRESHOLD = 2.3
"""The paper fitted runs with L_S above this and showed the rest as extrapolation (nats per token)."""

Model = Mapping[str, Any] | str


def candidate_models() -> dict[str, Model]:
    """The models that docs/explanation/choice_of_model.md compares: options of `default_priors`, or a baseline's name."""
    plain = dict(EQUATION_8)
    weak = plain | {"weak_teacher": True}
    soft = weak | {"soft_targets": True}
    reducible = soft | {"omega": 1.0}
    tied = reducible | {"tied_exponents": True}
    shifts = {"effects": ("student", "student_slope")}
    return {
        "eq. 8": plain,
        "eq. 8, no asymptotic prior": plain | {"asymptotic_width": None},
        "eq. 8, student effects": plain | {"effects": ("student",)},
        "weak teachers": weak,
        "weak teachers, no asymptotic prior": weak | {"asymptotic_width": None},
        "weak teachers, noise by r": weak | {"noise": "ratio"},
        "weak teachers, noise by D_S": weak | {"noise": "tokens"},
        "weak teachers, student effects": weak | {"effects": ("student",)},
        "weak teachers, student effects and slopes": weak | shifts,
        "weak teachers, student effects and slopes, no asymptotic prior": weak | shifts | {"asymptotic_width": None},
        "weak teachers, teacher effects": weak | {"effects": ("teacher",)},
        "weak teachers, both effects": weak | {"effects": ("teacher", "student")},
        "soft targets": soft,
        "soft targets, student effects and slopes": soft | shifts,
        "soft targets, student effects and slopes, no asymptotic prior": soft | shifts | {"asymptotic_width": None},
        "reducible ratio alone, student effects and slopes": weak | {"omega": 1.0} | shifts,
        "reducible ratio, student effects and slopes": reducible | shifts,
        "reducible ratio, student effects and slopes, omega free": reducible | shifts | {"omega": None},
        "tied exponents": tied,
        "tied exponents, teacher effects": tied | {"effects": ("teacher",)},
        "tied exponents, student effects": tied | {"effects": ("student",)},
        "tied exponents, student effects and slopes": tied | shifts,
        "tied exponents, student effects and slopes, noise by r": tied | shifts | {"noise": "ratio"},
        "tied exponents, student effects and slopes, noise by D_S": tied | shifts | {"noise": "tokens"},
        "tied exponents, student effects and slopes, asymptotic width 0.02": tied | shifts | {"asymptotic_width": 0.02},
        "tied exponents, student effects and slopes, no asymptotic prior": tied | shifts | {"asymptotic_width": None},
        "tied exponents, student effects and slopes, published law within 0.01": tied | shifts | {"tolerance": 0.01},
        "tied exponents, student effects and slopes, published law within 0.1": tied | shifts | {"tolerance": 0.1},
        "tied exponents, all effects": tied | {"effects": ("teacher", "student", "student_slope")},
        "no capacity gap": plain | {"gap": False},
        "Huber point fit": "point",
        "bootstrap": "bootstrap",
    }


def folds(runs: pd.DataFrame, split: str, parts: int = 8) -> list[np.ndarray]:
    """Which runs are left out together, a list of (run,) of bool.

    Parameters
    ----------
    runs : DataFrame
    split : {"teacher", "student", "paper"}
        "teacher": `parts` groups of whole teachers. "student": one student size at a time, all its configurations.
        "paper": the runs with a student loss of at most 2.3, which the paper extrapolated to.
    parts : int
        Groups of teachers, dealt in the order of their losses.
    """
    if split == "teacher":
        names, index = teacher_labels(runs)
        loss = runs["teacher_loss"].to_numpy(dtype=float)
        order = np.argsort(np.argsort([loss[index == i].mean() for i in range(len(names))]))
        return [np.isin(index, np.flatnonzero(order % parts == k)) for k in range(min(parts, len(names)))]
    if split == "student":
        size = runs["student_params"].to_numpy(dtype=float)
        return [size == value for value in np.unique(size)]
    if split == "paper":
        return [runs["student_loss"].to_numpy(dtype=float) <= PAPER_THRESHOLD]
    raise ParameterError(f"split is {split!r}; choose from {', '.join(map(repr, SPLITS))}")


def priors_of(model: Mapping[str, Any], runs: pd.DataFrame) -> Priors:
    """Priors of a candidate model: options of `default_priors`, and gap=False for the law without capacity gap."""
    options = dict(model)
    gap = options.pop("gap", True)
    priors = default_priors(distilled=True, supervised=False, reference=reference_run(runs, None), **options)
    if gap:
        return priors
    off = Prior(-30.0, 0.0, "s = k = 0", "no capacity gap")
    # The slope too: with s = 0 and k > 0 the gap would open at once where r > 1.
    return with_priors(priors, {"log_gap_strength": off, "log_gap_slope": off, "gap_curvature": Prior(0.0, 0.0)})


def leave_out(
    runs: pd.DataFrame,
    split: str,
    model: Model,
    *,
    parts: int = 8,
    draws: int = 500,
    tune: int = 700,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: Progress = None,
    executor: Executor | None = None,
    gates: Gates = REFIT_GATES,
) -> xr.Dataset:
    """Fit without each group of runs in turn and score the predictions of the runs left out.

    Parameters
    ----------
    runs : DataFrame
        Distilled runs.
    split : {"teacher", "student", "paper"}
        See `folds`.
    model : mapping or str
        Options of `priors.default_priors`, or "point" or "bootstrap" for the baselines.
    parts : int
        Groups of teachers.
    draws, tune, seed : int
        Of each refit (4 chains).
    checkpoint : path, optional
        A JSON file that keeps finished folds; a later call with the same runs and settings goes on from there.
    progress : bool or callable, optional
        A callable is told (folds done, folds in all); by default a bar in a terminal and in a notebook.
    executor : concurrent.futures.Executor, optional
        Where folds are fitted; each worker compiles the model once. By default here, one after the other.
    gates : Gates
        What the draws of a refit must pass; one that fails is made once more, three times longer.

    Returns
    -------
    Dataset
        Over run, for those left out: elpd (natural log of the predictive density), crps and error (mean minus observed, nats
        per token), inside_50 and inside_90 (whether the interval held the outcome), fold, and converged (whether the fold's
        refit passed the gates in the end).

    Notes
    -----
    The scatter and the shifts of unseen groups are part of the prediction. The score of a run is marginal: shifts that
    the runs of a left-out group share are integrated out run by run.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> scored = bd.leave_out(bd.load_runs("busbridge2025"), "student", {"weak_teacher": True})  # doctest: +SKIP
    """
    groups = folds(runs, split, parts)
    model = model if isinstance(model, str) else dict(model)  # other mappings need not pickle
    # The priors, not the options: what an option means by default may change between versions.
    form = model if isinstance(model, str) else _digest_of(priors_of(model, runs))
    setting = {"split": split, "model": form, "parts": parts, "draws": draws, "tune": tune, "seed": seed}
    setting |= {"data": data_hash(runs), "gates": list(astuple(gates))}
    done = read_finished(checkpoint, setting)
    todo = [k for k in range(len(groups)) if str(k) not in done]
    tasks = [(runs, model, groups[k], draws, tune, seed + k, gates) for k in todo]
    label = f"left out, {split}"
    for i, result in run_tasks(_fold, tasks, executor=executor, progress=progress, done=len(done), what=label):
        done[str(todo[i])] = result
        keep_finished(checkpoint, setting, done)
    columns: dict[str, list[Any]] = {
        name: [] for name in ("run", "elpd", "crps", "error", "inside_50", "inside_90", "fold", "converged")
    }
    for k in range(len(groups)):
        for name in columns:
            value = k if name == "fold" else done[str(k)][name]
            columns[name] += value if isinstance(value, list) else [value] * len(done[str(k)]["run"])
    run = columns.pop("run")
    units = {"elpd": "1", "crps": "nats per token", "error": "nats per token"}
    words = {
        "elpd": "log predictive density of the left-out run",
        "crps": "continuous ranked probability score",
        "error": "predicted mean minus observed student loss",
        "inside_50": "whether the 50 % interval held the outcome",
        "inside_90": "whether the 90 % interval held the outcome",
        "fold": "group that was left out together",
        "converged": "whether the refit passed the gates",
    }
    return xr.Dataset(
        {
            name: ("run", np.asarray(v), {"units": units.get(name, "1"), "long_name": words[name]})
            for name, v in columns.items()
        },
        coords={"run": run},
        attrs={"split": split, "model": repr(model)},
    ).sortby("run")


def _digest_of(priors: Priors) -> str:
    said = [repr(priors.table), priors.covariance.tolist(), priors.asymptotic_width]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _fold(task: tuple[Any, ...]) -> dict[str, list[Any]]:
    runs, model, out, draws, tune, seed, gates = task
    rng = np.random.default_rng(seed)
    converged = True
    if isinstance(model, str):
        drawn, density = BASELINES[model](runs, ~out, seed)
        expected = drawn.mean(axis=0)
    else:
        drawn, density, expected, converged = _posterior_predictions(runs, model, out, draws, tune, seed, rng, gates)
    observed = runs["student_loss"].to_numpy(dtype=float)[out]
    coverage = {f"inside_{100 * p:.0f}": inside(drawn, observed, p).tolist() for p in PROBABILITIES}
    return {
        "run": np.flatnonzero(out).tolist(),
        "elpd": log_score(density).tolist(),
        "crps": crps(drawn, observed).tolist(),
        "error": (expected - observed).tolist(),
        "converged": converged,
        **coverage,
    }


def _posterior_predictions(
    runs: pd.DataFrame,
    model: Mapping[str, Any],
    out: np.ndarray,
    draws: int,
    tune: int,
    seed: int,
    rng: np.random.Generator,
    gates: Gates,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    refitter = refitter_for(runs, priors_of(model, runs))
    for longer in (1, LONGER):
        tree = refit(refitter, ~out, draws=longer * draws, tune=longer * tune, seed=seed)
        converged = not posterior.convergence(tree, gates)["failed"]
        if converged:
            break
    flat = flat_draws(tree["posterior"].to_dataset())
    center = expected_losses(flat, runs) + shared_shifts(flat, runs, ~out, refitter.reference, rng)
    scale = scatter_scale(flat, runs, refitter.reference)[:, out]
    center, nu = center[:, out], flat["nu"][:, None]
    observed = runs["student_loss"].to_numpy(dtype=float)[out]
    drawn = center + scale * rng.standard_t(np.broadcast_to(nu, center.shape))
    # The mean of the law, not of the draws: with nu near 1 the mean of Student-t draws does not settle.
    expected = np.asarray(center.mean(axis=0))
    return drawn, np.asarray(student_t.logpdf(observed, nu, loc=center, scale=scale)), expected, converged


def score_table(results: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Scores of several models on the same left-out runs, with standard errors of the differences from the best elpd.

    Parameters
    ----------
    results : mapping
        Name of the model -> what `leave_out` returned, all for the same split.

    Returns
    -------
    DataFrame
        One row a model, best elpd first: elpd, elpd_difference and its standard error over folds (runs of a fold are not
        independent), crps, rmse, coverage of the 50 and 90 % intervals, and how many refits did not converge.

    Examples
    --------
    >>> import bayesdistill as bd, xarray as xr
    >>> columns = {"elpd": [1.0, 2.0], "crps": [0.1, 0.1], "error": [0.3, -0.4], "inside_50": [1, 0], "inside_90": [1, 1]}
    >>> columns["converged"] = [True, True]
    >>> scored = xr.Dataset({name: ("run", value) for name, value in columns.items()} | {"fold": ("run", [0, 1])})
    >>> bd.score_table({"mine": scored}).loc["mine", ["elpd", "rmse", "coverage_50"]].round(3).tolist()
    [3.0, 0.354, 0.5]
    """
    import pandas as pd

    names: Sequence[str] = list(results)
    best = max(names, key=lambda name: float(results[name]["elpd"].sum()))
    rows = []
    for name in names:
        scored = results[name]
        difference = scored["elpd"] - results[best]["elpd"]
        per_fold = difference.groupby(scored["fold"]).sum().values
        error = float(np.std(per_fold, ddof=1) * np.sqrt(per_fold.size)) if per_fold.size > 1 else float("nan")
        rows.append(
            {
                "model": name,
                "runs": scored.sizes["run"],
                "elpd": float(scored["elpd"].sum()),
                "elpd_difference": float(difference.sum()),
                "standard_error": error,
                "crps": float(scored["crps"].mean()),
                "rmse": float(np.sqrt((scored["error"] ** 2).mean())),
                "coverage_50": float(scored["inside_50"].mean()),
                "coverage_90": float(scored["inside_90"].mean()),
                "unconverged": int(np.unique(scored["fold"].values[~scored["converged"].values.astype(bool)]).size),
            }
        )
    return pd.DataFrame(rows).sort_values("elpd", ascending=False).set_index("model")
