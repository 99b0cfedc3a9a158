"""Backtest: fit to low-compute runs, predict high-compute runs, and score the predictions.

For every compute cutoff, the law is fitted only to the runs below it and predicts the loss of every run above it.

With both kinds of runs, the backtest also predicts every pair of a distilled and a pretrained run of the same student above the
cutoff (see `pairs`): the draws give the probability that the distilled run has the lower loss. With *law* noise, this compares the
expected losses of the laws; with *run* noise, it compares two single runs, including residual noise. The observed outcome is the
sign of the difference between two single runs, so only the probability with run noise can be calibrated. The other shows the effect
of ignoring residual noise.

By default, teachers are given: only the compute of the run itself (including the logits) is compared with the cutoff, and the
teacher's loss is known. With `teachers="charged"`, the teacher's compute must also be below the cutoff, so the fit contains no
strong teachers. If a scenario charges the pretraining of a teacher above the cutoff, the teacher's loss is predicted as well.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import posterior
from bayesdistill.arguments import SAMPLED, checked, function, instance, one_of, shown
from bayesdistill.compute import Scenario, flops_per_token
from bayesdistill.criticism.backtest_results import EXTRAPOLATION, Split, collect
from bayesdistill.criticism.left_out_scores import Fitted, pair_predictions, run_predictions
from bayesdistill.criticism.pairs import Flops, matched_pairs, own_costs, teacher_costs
from bayesdistill.criticism.refits import (
    LONGER,
    REFIT_THRESHOLDS,
    digest,
    full_name,
    refit_until_converged,
    refitter_for,
)
from bayesdistill.criticism.tasks import run_missing
from bayesdistill.datasets import hash_of, read_costed
from bayesdistill.decisions.arguments import Numbers, Scenarios, parse_numbers, parse_scenarios
from bayesdistill.errors import ConvergenceWarning, ParameterError
from bayesdistill.law import DEFAULT_LAW, Draws, Law, Reference, as_law
from bayesdistill.law.predictive import Design
from bayesdistill.model import reference_run
from bayesdistill.posterior import ConvergenceThresholds
from bayesdistill.priors import default_priors
from bayesdistill.progress import Progress

POSTERIOR = "posterior"
KINDS = ("distilled", "supervised")
Forecaster = Callable[[pd.DataFrame | None, pd.DataFrame | None, Reference, int], Draws]
"""(distilled, supervised, reference, seed) -> draws of a law, fitted to these runs; None for a kind without runs."""
SCENARIO_NAMES = ("best case", "teacher inference", "teacher pretraining")
TEACHERS = ("given", "charged")
FEWEST_RUNS = 10
"""Minimum number of runs of each kind in a fit."""
LONGER_ACCEPT = 0.99
"""Target acceptance rate of the second fit if the first one had divergences."""
DEFAULT_SHARES = (0.3, 0.5, 0.7)
"""Fractions of the runs below the default cutoffs."""


@checked(draws=SAMPLED, teachers=one_of(*TEACHERS), flops=function, thresholds=instance(ConvergenceThresholds))
def backtest(
    distilled: pd.DataFrame | None = None,
    supervised: pd.DataFrame | None = None,
    *,
    cutoffs: Numbers | None = None,
    scenarios: Scenarios | None = None,
    flops: Flops = flops_per_token,
    forecasters: str | Forecaster | Sequence[str | Forecaster] = (POSTERIOR,),
    teachers: str = "given",
    law: Law | str = DEFAULT_LAW,
    prior_settings: Mapping[str, Any] | None = None,
    draws: int = 1000,
    tune: int = 1000,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: Progress = None,
    executor: Executor | None = None,
    thresholds: ConvergenceThresholds = REFIT_THRESHOLDS,
    include_failed: bool = False,
) -> xr.Dataset:
    """Fit to the runs below each compute cutoff and score predictions of the runs above it.

    Parameters
    ----------
    distilled : DataFrame, optional
        Distilled runs. Scenarios that charge the teacher require teacher_params and teacher_tokens. Without distilled runs, the
        supervised law alone is fitted and there are no pairs.
    supervised : DataFrame, optional
        Supervised runs of the same study. For pairs, they must include models of the students' sizes. Without supervised runs,
        the supervised law has the published-law prior and there are no pairs.
    cutoffs : float, str, or a list of them, optional
        Compute of a single run in FLOPs. By default, the 30%, 50% and 70% quantiles of the runs.
    scenarios : str, Scenario, or a list of them, optional
        Different costs charged to a distilled run. They determine the number of tokens of its pretrained partner, which has the
        same number of tokens in the best case. By default, the best case, teacher inference and teacher pretraining. They
        require both kinds of runs.
    flops : callable
        Forward FLOPs per token for an array of sizes. By default `flops_per_token`, for the shape of the published models.
    forecasters : "posterior", callable, or a list of them
        The joint posterior, and other methods to compare it with: functions defined in a module that take (distilled,
        supervised, reference, seed) and return `Draws` of a law fitted to these runs; a table that was not given is None. They
        are labeled by their names.
    teachers : {"given", "charged"}
        Whether only the run's own compute (given) or also its teacher's compute (charged) must be below the cutoff.
    law : Law or str
        Law of the posterior.
    prior_settings : mapping, optional
        Keyword arguments of `priors.default_priors`: tolerance, asymptotic_width, perfect_teacher_width, limited_data_width.
    draws, tune, seed : int
        Sampler settings of each fit (4 chains).
    checkpoint : path, optional
        File with one line per finished fit. A later call with the same runs, model and settings resumes from it; other settings
        are an error.
    progress : bool or callable, optional
        A callable is called with (fits done, total fits). By default, a progress bar in a terminal or notebook.
    executor : concurrent.futures.Executor, optional
        Runs the fits; each worker compiles the model once. By default, fits run sequentially in this process.
    thresholds : ConvergenceThresholds
        Convergence thresholds of the posterior's fits. A fit that fails is repeated once with three times as many draws and, after
        divergences, with a target acceptance rate of 0.99.
    include_failed : bool
        Also score the cutoffs at which the posterior's fit failed the convergence checks twice.

    Returns
    -------
    Dataset
        Over `forecast` (a pair at a cutoff): outcome (1 if the distilled run had the lower loss), difference (observed pretrained
        minus distilled loss, nats), cutoff, scenario, extrapolation_factor (compute of the more expensive run divided by the
        cutoff), configuration; over forecaster and noise, probability; over forecaster, mean_difference, lower_difference and
        upper_difference (nats); scored. Over `prediction` (a left-out run at a cutoff): observed, kind, prediction_scored; over
        forecaster, predicted (nats), elpd, crps (nats), pit (predictive probability of a lower loss), inside_50 and inside_90. Over
        `group` (all runs, and by extrapolation, cutoff, scenario and kind): forecasts, base_rate, unconverged (number of cutoffs of
        the group at which the posterior's fit failed the convergence checks; by default they are not scored, for any forecaster);
        over forecaster and noise, brier, brier_skill, log_score, slope and intercept, with _lower and _upper (90% intervals from
        resampling whole student configurations); over forecaster, coverage_50, coverage_90, rmse, mean_crps and mean_elpd. Over
        `bin`, the overall calibration curve: curve_count, curve_mean_probability, curve_share, curve_lower and curve_upper. Over
        `cutoff_fit`: fitted_distilled, fitted_supervised, and rhat, ess_bulk, divergences, failed (convergence checks) and refits
        (1, or 2 if the fit was repeated) of the posterior's fits. With one kind of runs, the variables of pairs are missing.

    Warns
    -----
    ConvergenceWarning
        If a fit of the posterior failed the convergence checks.

    Raises
    ------
    DataError
        If the table of runs is invalid, or the checkpoint is not a log of this package, is damaged, or has other settings.
    FileError
        If the checkpoint cannot be written.
    ParameterError
        If an argument is invalid, too few runs are below a cutoff, no pair or run is above any cutoff, or scenarios or
        charged teachers are requested without the runs that they require.

    Notes
    -----
    `criticism.probability_scores` defines the scores and `criticism.pairs` the pairs. A pair is scored if both of its runs
    are above the cutoff.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> tiny, alone = bd.load_runs("tiny"), bd.load_runs("tiny", kind="supervised")
    >>> found = bd.backtest(tiny, alone, cutoffs=[1e14])  # doctest: +SKIP
    >>> bd.backtest_table(found)  # doctest: +SKIP
    >>> alone_found = bd.backtest(supervised=alone)  # doctest: +SKIP
    """
    given = dict(zip(KINDS, (distilled, supervised), strict=True))
    runs = {
        kind: read_costed(table, kind=kind).reset_index(drop=True) for kind, table in given.items() if table is not None
    }
    chosen = _scenarios(scenarios, runs, teachers)
    for one, other in itertools.combinations(chosen, 2):
        if (one.delta_lgt, one.delta_pre) == (other.delta_lgt, other.delta_pre):
            raise ParameterError(
                f"`scenarios` {one.name!r} and {other.name!r} have the same costs, so each pair would count twice. Omit one of them."
            )
    methods = _methods(forecasters)
    law = as_law(law).for_tables(*_tables(runs))
    priors = default_priors(law, reference_run(*_tables(runs)), **(prior_settings or {}))
    # A kind without runs is an empty table here: it has no costs and no pairs.
    costed = {kind: runs.get(kind, pd.DataFrame()) for kind in KINDS}
    own = dict(zip(KINDS, own_costs(**costed, flops=flops), strict=True))
    # The cost of some teachers is unknown; they count as below the cutoff.
    teacher = np.nan_to_num(teacher_costs(costed["distilled"], flops)) * (teachers == "charged")
    most = {"distilled": np.maximum(own["distilled"], teacher), "supervised": own["supervised"]}
    pairs = matched_pairs(**costed, scenarios=chosen, flops=flops)
    splits = [_split(limit, most, teacher, pairs) for limit in _cutoffs(cutoffs, np.concatenate([*most.values()]))]
    if chosen and not any(len(split.pairs) for split in splits):
        raise ParameterError("No pair of runs is above any cutoff. Lower the cutoffs or add supervised runs.")
    if all(mask.all() for split in splits for mask in split.kept.values()):
        raise ParameterError("No run is above any cutoff. Lower the cutoffs.")
    setting = {
        "function": "backtest",
        **{kind: hash_of(table) for kind, table in runs.items()},
        "groups": {kind: Design.of(law, table, kind).group_lists for kind, table in runs.items()},
        "cutoffs": [split.cutoff for split in splits],
        "teachers": teachers,
        "scenarios": [scenario.name for scenario in chosen],
        "pairs": hashlib.sha256("".join(split.pairs.to_csv() for split in splits).encode()).hexdigest()[:16],
        "forecasters": [full_name(method) if callable(method) else method for method in methods.values()],
        "law and priors": digest(priors),
        **{"draws": draws, "tune": tune, "seed": seed},
        **asdict(thresholds),
    }
    sampler = {"draws": draws, "tune": tune, "cores": 2 if executor is None else 1}
    tasks = {
        f"{name} {k}": (runs, method, priors, split, sampler | {"seed": (seed + k) % 2**64}, thresholds)
        for k, split in enumerate(splits)
        for name, method in methods.items()
    }
    done = run_missing(
        _fit_and_predict, tasks, setting, "backtest", log=checkpoint, executor=executor, progress=progress
    )
    results = {name: [done[f"{name} {k}"] for k in range(len(splits))] for name in methods}
    found = collect(runs, own, splits, results, include_failed=include_failed)
    failed = [f"{cutoff:.3g} FLOPs ({checks})" for cutoff, checks in zip(*_failed(found), strict=True)]
    if failed:
        warnings.warn(
            f"The posterior's fit did not converge below {len(failed)} of {len(splits)} cutoffs: {'; '.join(failed)}. These "
            f"cutoffs are {'scored nevertheless' if include_failed else 'not scored'}. Increase draws and tune.",
            ConvergenceWarning,
            stacklevel=2,
        )
    found.attrs |= {
        "scenarios": json.dumps([scenario.name for scenario in chosen]),
        "extrapolation_edges": json.dumps(EXTRAPOLATION[:-1]),
        "law": law.to_json(),
        "teachers": teachers,
        "seed": int(seed),
    }
    return found


def _scenarios(given: Scenarios | None, runs: Mapping[str, pd.DataFrame], teachers: str) -> tuple[Scenario, ...]:
    """Return the scenarios of the pairs, none with one kind of runs."""
    if not runs:
        raise ParameterError("There are no runs. Pass distilled runs, supervised runs, or both.")
    if teachers == "charged" and "distilled" not in runs:
        raise ParameterError(
            "`teachers` is 'charged', but there are no distilled runs. Pass `distilled`, or omit `teachers`."
        )
    missing = [kind for kind in KINDS if kind not in runs]
    if missing and given is not None:
        raise ParameterError(
            f"`scenarios` requires pairs of a distilled and a supervised run, but there are no {missing[0]} runs. Pass "
            f"`{missing[0]}`, or omit `scenarios`."
        )
    return () if missing else parse_scenarios(SCENARIO_NAMES if given is None else given)


def _tables(runs: Mapping[str, pd.DataFrame]) -> list[pd.DataFrame | None]:
    """Return the distilled and the supervised runs, None if there are none."""
    return [runs.get(kind) for kind in KINDS]


def _failed(found: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the cutoffs at which the posterior's fit failed, and the names of the failed checks."""
    checks = found["failed"].values
    return found["cutoff_fit"].values[checks != ""], checks[checks != ""]


def _cutoffs(given: Numbers | None, costs: np.ndarray) -> list[float]:
    if given is None:
        return [float(f"{value:.1e}") for value in np.quantile(costs, DEFAULT_SHARES)]
    return sorted(parse_numbers(given, "cutoffs").tolist())


def _methods(forecasters: Any) -> dict[str, Any]:
    """Return the forecasters by name."""
    listed = (
        [forecasters] if isinstance(forecasters, str) or not isinstance(forecasters, Iterable) else list(forecasters)
    )
    methods = {getattr(method, "__name__", shown(method)): method for method in listed if callable(method)}
    if any(isinstance(method, str) and method == POSTERIOR for method in listed):
        methods[POSTERIOR] = POSTERIOR
    if not listed or len(methods) < len(listed):
        raise ParameterError(
            f"`forecasters` must be {POSTERIOR!r} or functions with different names, one or more, got {shown(forecasters)}."
        )
    return {name: methods[name] for name in sorted(methods, key=lambda name: listed.index(methods[name]))}


def _split(limit: float, most: Mapping[str, np.ndarray], teacher: np.ndarray, pairs: pd.DataFrame) -> Split:
    """Split the runs at a cutoff.

    `most` holds the compute that counts for each run, `teacher` the compute of each distilled run's teacher, FLOPs.
    """
    kept = {kind: costs <= limit for kind, costs in most.items()}
    counts = {kind: int(mask.sum()) for kind, mask in kept.items() if mask.size}
    if min(counts.values()) < FEWEST_RUNS:
        raise ParameterError(
            f"Only {' and '.join(f'{count} {kind}' for kind, count in counts.items())} runs are below the cutoff of {limit:.3g} "
            f"FLOPs; a fit requires at least {FEWEST_RUNS} of each kind. Raise the cutoff."
        )
    run, low, high = (pairs[name].to_numpy(dtype=int) for name in ("distilled", "low", "high"))
    unseen = ~kept["distilled"][run] & ~kept["supervised"][low] & ~kept["supervised"][high]
    unknown = (teacher[run] > limit) & pairs["pays_teacher"].to_numpy(dtype=bool)
    return Split(limit, kept, pairs.assign(teacher_unknown=unknown)[unseen].reset_index(drop=True))


def _fit_and_predict(task: tuple[Any, ...]) -> dict[str, Any]:
    runs, method, priors, split, sampler, thresholds = task
    rng = np.random.default_rng(sampler["seed"])
    checks: dict[str, Any] = {}
    effects: Mapping[str, np.ndarray] = {}
    if method == POSTERIOR:
        refitter = refitter_for(runs.get("distilled"), priors, runs.get("supervised"))
        kept = {"kept": split.kept["distilled"], "kept_supervised": split.kept["supervised"]}
        tree, attempts = refit_until_converged(
            refitter, sampler, thresholds, longer=LONGER, accept=LONGER_ACCEPT, **kept
        )
        checks = {name: attempts[-1][name] for name in ("rhat", "ess_bulk", "divergences", "failed")}
        checks["refits"] = len(attempts)
        found, effects = posterior.draws_of(tree), posterior.effects_of(tree)
    else:
        fitted_runs = _tables({kind: table[split.kept[kind]] for kind, table in runs.items()})
        found = method(*fitted_runs, reference_run(*_tables(runs)), sampler["seed"])
    fitted = Fitted(found, effects, runs, split.kept).repeated()
    return {
        "convergence": checks,
        "runs": run_predictions(fitted, rng),
        "pairs": pair_predictions(fitted, split.pairs, rng) if len(split.pairs) else {},
    }
