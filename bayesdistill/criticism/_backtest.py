"""Do the probabilities come true? Fit to the cheap runs, forecast the dear ones, and look at what came out.

For every cut-off of compute both laws are fitted to the runs below it alone. For every pair of a distilled and a pretrained run of
the same student above it (see `pairs`), the draws give the probability that the distilled one has the lower loss: with *law* noise
of the laws' mean curves, with *run* noise of the two runs that were made, scatter included. What happened is the sign of
the observed difference of two single runs, so that only the probability with run noise can be right; the other is there
to show what is lost by forgetting the scatter.

By default teachers are given, as they are to one who downloads them: a run is cheap by its own compute, logits included, and its
teacher's loss is known. With `teachers="charged"` it is cheap only if its teacher is cheap too, so that no strong teacher is seen,
and where a scenario charges the pretraining of a dear teacher, that teacher's loss is forecast as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.compute import Scenario, flops_per_token
from bayesdistill.compute import scenario as parse_scenario
from bayesdistill.criticism.backtest_results import EXTRAPOLATION, collect
from bayesdistill.criticism.joint_baselines import JOINT_BASELINES
from bayesdistill.criticism.left_out_scores import Fitted, pair_forecasts, run_forecasts
from bayesdistill.criticism.pairs import Flops, matched_pairs, own_costs, teacher_costs
from bayesdistill.criticism.refits import refit, refitter_for
from bayesdistill.criticism.tasks import keep_finished, read_finished, run_tasks
from bayesdistill.datasets import data_hash, read_runs
from bayesdistill.errors import ParameterError
from bayesdistill.law import DEFAULT_LAW, Law, as_law
from bayesdistill.law.predictive import Design
from bayesdistill.model import reference_run
from bayesdistill.priors import default_priors
from bayesdistill.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

POSTERIOR = "posterior"
FORECASTERS = (POSTERIOR, *JOINT_BASELINES)
SCENARIO_NAMES = ("best case", "teacher inference", "teacher pretraining")
TEACHERS = ("given", "charged")
FEWEST_RUNS = 10
"""Distilled runs, and supervised ones, that a fit needs at least."""
DEFAULT_SHARES = (0.3, 0.5, 0.7)
"""Shares of the runs below the default cut-offs."""


def backtest(
    distilled: pd.DataFrame,
    supervised: pd.DataFrame,
    *,
    cutoffs: Sequence[float] | None = None,
    scenarios: Sequence[str | Scenario] = SCENARIO_NAMES,
    flops: Flops = flops_per_token,
    forecasters: Sequence[str] = FORECASTERS,
    teachers: str = "given",
    law: Law | str = DEFAULT_LAW,
    prior_settings: Mapping[str, Any] | None = None,
    draws: int = 1000,
    tune: int = 1000,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: Progress = None,
    executor: Executor | None = None,
) -> xr.Dataset:
    """Fit to the runs below each cut-off of compute and score the forecasts for those above.

    Parameters
    ----------
    distilled : DataFrame
        Distilled runs. teacher_params and teacher_tokens are needed by scenarios that charge the teacher.
    supervised : DataFrame
        Supervised runs of the same study, of the students' own sizes among others.
    cutoffs : sequence of float, optional
        FLOPs of a single run. By default those below which 30, 50 and 70 % of the runs lie.
    scenarios : sequence of str or Scenario
        What a distilled run is charged, and so how many tokens its pretrained partner gets; the best case is equal tokens.
    flops : callable
        Forward FLOPs per token of an array of sizes. By default `flops_per_token`, the shape of the published runs.
    forecasters : sequence of {"posterior", "point", "bootstrap"}
        The joint posterior, the Huber point fit, and its bootstrap.
    teachers : {"given", "charged"}
        Whether a run is cheap by its own compute alone, its teacher being there, or only if its teacher is cheap as well.
    law : Law or str
        Of the posterior.
    prior_settings : mapping, optional
        Keyword arguments of `priors.default_priors`: asymptotic_width.
    draws, tune, seed : int
        Of each fit (4 chains).
    checkpoint : path, optional
        A JSON file that keeps finished fits; a later call with the same runs, model and settings goes on from there.
    progress : bool or callable, optional
        A callable is told (fits done, fits in all); by default a bar in a terminal and in a notebook.
    executor : concurrent.futures.Executor, optional
        Where fits are made; each worker compiles the model once. By default here, one after the other.

    Returns
    -------
    Dataset
        Over `forecast` (a pair at a cut-off): outcome (1 where the distilled run was ahead), difference (observed, pretrained
        minus distilled loss, nats), cutoff, scenario, extrapolation_factor (the dearer of the two, over the cut-off),
        configuration, and over forecaster and noise probability; mean_difference, lower_difference, upper_difference (nats).
        Over `prediction` (a left-out run at a cut-off): observed, kind, and over forecaster predicted (nats), elpd, inside_50,
        inside_90. Over `group` (all, and by extrapolation, cut-off, scenario): forecasts, base_rate, and over forecaster and
        noise brier, brier_skill, log_score, slope, intercept, with _lower and _upper (90 %, whole student configurations
        resampled); over forecaster coverage_50, coverage_90, rmse. Over `bin` the calibration curve of all: curve_count,
        curve_mean_probability, curve_share, curve_lower, curve_upper. Over `cutoff_fit`: fitted_distilled,
        fitted_supervised, and rhat, divergences and failed (convergence checks) of the posterior's fits.

    Raises
    ------
    ParameterError
        If an argument is unusable, a cut-off leaves too few runs below it, or no pair is left out anywhere.

    Notes
    -----
    Scores are defined at the head of `criticism.probability_scores`, pairs at that of `criticism.pairs`. A pair counts where
    both its runs are above the cut-off.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> tiny, alone = bd.load_runs("tiny"), bd.load_runs("tiny", kind="supervised")
    >>> found = bd.backtest(tiny, alone, cutoffs=[3e12])  # doctest: +SKIP
    >>> bd.backtest_table(found)  # doctest: +SKIP
    """
    distilled = read_runs(distilled, kind="distilled").reset_index(drop=True)
    supervised = read_runs(supervised, kind="supervised").reset_index(drop=True)
    chosen = [parse_scenario(value) for value in scenarios]
    unknown = [name for name in forecasters if name not in FORECASTERS]
    if unknown or not forecasters:
        raise ParameterError(f"forecasters: there is no {unknown}; choose from {', '.join(map(repr, FORECASTERS))}")
    law = as_law(law).for_runs(distilled=True, supervised=True)
    priors = default_priors(law, reference_run(distilled, supervised), **dict(prior_settings or {}))
    own = own_costs(distilled, supervised, flops)
    if teachers not in TEACHERS:
        raise ParameterError(f"teachers is {teachers!r}; choose from {', '.join(map(repr, TEACHERS))}")
    # A teacher of unknown cost cannot be called dear.
    teacher = np.nan_to_num(teacher_costs(distilled, flops)) * (teachers == "charged")
    limits = _cutoffs(cutoffs, np.concatenate([np.maximum(own[0], teacher), own[1]]))
    pairs = matched_pairs(distilled, supervised, chosen, flops)
    splits = [_split(limit, distilled, own, teacher, pairs) for limit in limits]
    if not any(len(split["pairs"]) for split in splits):
        raise ParameterError("no pair of runs is above any cut-off; lower the cut-offs, or add supervised runs")
    setting = {
        "data": [data_hash(distilled), data_hash(supervised)],
        "groups": Design.of(law, supervised, "supervised").group_lists,
        "cutoffs": limits,
        "pairs": _digest([split["pairs"].to_csv() for split in splits]),
        "forecasters": list(forecasters),
        "model": _digest([law.to_json(), repr(priors.table), repr(priors.asymptotic_width)]),
        "draws": [draws, tune, seed],
    }
    done = read_finished(checkpoint, setting)
    cores = 2 if executor is None else 1
    jobs = [(forecaster, k) for k in range(len(limits)) for forecaster in forecasters]
    todo = [job for job in jobs if f"{job[0]} {job[1]}" not in done]
    tasks = [
        (distilled, supervised, forecaster, priors, splits[k], draws, tune, cores, seed + k) for forecaster, k in todo
    ]
    for i, result in run_tasks(
        _fit_and_forecast, tasks, executor=executor, progress=progress, done=len(done), what="backtest"
    ):
        forecaster, k = todo[i]
        done[f"{forecaster} {k}"] = result
        keep_finished(checkpoint, setting, done)
    found = collect(distilled, supervised, own, limits, splits, done, list(forecasters))
    found.attrs |= {
        "scenarios": json.dumps([scenario.name for scenario in chosen]),
        "extrapolation_edges": json.dumps(EXTRAPOLATION[:-1]),
        "law": law.to_json(),
        "teachers": teachers,
        "seed": int(seed),
    }
    return found


def _cutoffs(given: Sequence[float] | None, costs: np.ndarray) -> list[float]:
    if given is None:
        return [float(f"{value:.1e}") for value in np.quantile(costs, DEFAULT_SHARES)]
    limits = [float(value) for value in np.atleast_1d(np.asarray(given, dtype=float))]
    if not limits or not all(np.isfinite(value) and value > 0 for value in limits):
        raise ParameterError(f"cutoffs is {given!r}; positive numbers of FLOPs are needed")
    return sorted(limits)


def _split(
    limit: float, distilled: pd.DataFrame, own: tuple[np.ndarray, np.ndarray], teacher: np.ndarray, pairs: pd.DataFrame
) -> dict[str, Any]:
    """Which runs are fitted, which are forecast, and the pairs of the latter."""
    kept = (own[0] <= limit) & (teacher <= limit)
    kept_supervised = own[1] <= limit
    if kept.sum() < FEWEST_RUNS or kept_supervised.sum() < FEWEST_RUNS:
        raise ParameterError(
            f"cut-off {limit:.3g} FLOPs leaves {kept.sum()} distilled and {kept_supervised.sum()} supervised runs to fit; "
            f"at least {FEWEST_RUNS} of each are needed"
        )
    run, low, high = (pairs[name].to_numpy(dtype=int) for name in ("distilled", "low", "high"))
    unseen = ~kept[run] & ~kept_supervised[low] & ~kept_supervised[high]
    mine = pairs[unseen].reset_index(drop=True)
    dear = teacher[mine["distilled"].to_numpy(dtype=int)] > limit
    return {
        "kept": kept,
        "kept_supervised": kept_supervised,
        "pairs": mine,
        "teacher_unknown": dear & mine["pays_teacher"].to_numpy(dtype=bool),
    }


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def _fit_and_forecast(task: tuple[Any, ...]) -> dict[str, Any]:
    distilled, supervised, forecaster, priors, split, draws, tune, cores, seed = task
    rng = np.random.default_rng(seed)
    reference = reference_run(distilled, supervised)
    kept, kept_supervised = split["kept"], split["kept_supervised"]
    verdict: dict[str, Any] = {}
    if forecaster == POSTERIOR:
        refitter = refitter_for(distilled, priors, supervised)
        tree = refit(refitter, kept, kept_supervised=kept_supervised, draws=draws, tune=tune, seed=seed, cores=cores)
        numbers = posterior.convergence(tree)
        verdict = {name: numbers[name] for name in ("rhat", "divergences", "failed")}
        found, effects = posterior.draws_of(tree), posterior.effects_of(tree)
    else:
        found = JOINT_BASELINES[forecaster](distilled[kept], supervised[kept_supervised], reference, seed)
        effects = {}
    fitted = Fitted(found, effects, distilled, supervised, kept).repeated()
    left_out = (np.flatnonzero(~kept), np.flatnonzero(~kept_supervised))
    return {
        "convergence": verdict,
        "runs": run_forecasts(fitted, left_out, rng),
        "pairs": pair_forecasts(fitted, split["pairs"], split["teacher_unknown"], rng),
    }
