"""Replay of experimental designs on existing runs.

A study starts from a few low-compute runs. At each step, a design method selects further runs, their losses are looked up, and the
law is refitted. The decisions after every step are compared with the decisions of a fit to all runs. The cost of a wrong decision
is the expected difference between the two options under the fit to all runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from common import WITHOUT_DISCREPANCY

from bayesdistill import posterior
from bayesdistill.criticism.pairs import Flops, own_costs
from bayesdistill.criticism.refits import Refitter, digest, prepare_refits, refit
from bayesdistill.criticism.tasks import keep_finished, read_finished
from bayesdistill.datasets import data_hash, read_runs
from bayesdistill.errors import ParameterError
from bayesdistill.law import Law, as_law
from bayesdistill.law.predictive import Design
from bayesdistill.model import reference_run
from bayesdistill.priors import default_priors

Choose = Callable[[xr.DataTree, pd.DataFrame, int, int], Sequence[str]]
"""(fit, candidates, count, seed) -> names of at least `count` candidates, the next run first."""
Decide = Callable[[xr.DataTree], np.ndarray]
"""fit -> expected gain of distillation over pretraining in nats, (decision,); distill if it is positive."""

START = (8, 7)
"""Number of distilled and supervised runs at the start of a study."""
BATCHES = (5, 5, 10, 15)
WORST_RHAT = 1.1
"""Fits with a larger R-hat are repeated."""


def replay(
    distilled: pd.DataFrame,
    supervised: pd.DataFrame,
    orders: Mapping[str, Choose],
    decide: Decide,
    *,
    flops: Flops,
    starts: int = 3,
    batches: Sequence[int] = BATCHES,
    law: Law | str = WITHOUT_DISCREPANCY,
    prior_settings: Mapping[str, Any] | None = None,
    draws: int = 500,
    tune: int = 600,
    chains: int = 2,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Return the regret of the decisions after every batch of runs, for every design method.

    Parameters
    ----------
    distilled, supervised : DataFrame
        All runs.
    orders : mapping
        Name -> design method.
    decide : callable
        Computes the expected gains of the decisions from a fit.
    flops : callable
        Forward FLOPs per token for an array of sizes.
    starts : int
        Number of studies. Each starts from 8 distilled and 7 supervised runs, drawn from the half of each kind with the lower
        compute.
    batches : sequence of int
        Number of runs added at each step.
    law : Law or str
    prior_settings : mapping, optional
        Keyword arguments of `priors.default_priors`: asymptotic_width.
    draws, tune, chains, seed : int
        Sampler settings of every fit. The fit to all runs has twice as many draws.
    checkpoint : path, optional
        File with one line per finished study. A later call with the same runs and settings resumes from it; other settings are an
        error.
    progress : callable, optional
        Called with (studies done, total studies). A study is one design method from one start.

    Returns
    -------
    Dataset
        Over order, start and step: regret (nats, mean over decisions of the cost of wrong decisions under the fit to all runs),
        agreement (fraction of decisions equal to the decisions of the fit to all runs), compute (FLOPs after the start), rhat.
        Over step: runs. Over decision: full_gain (nats).

    Raises
    ------
    ParameterError
        If the batches require more runs than there are.
    """
    distilled = read_runs(distilled, kind="distilled").reset_index(drop=True)
    supervised = read_runs(supervised, kind="supervised").reset_index(drop=True)
    if sum(START) + sum(batches) > len(distilled) + len(supervised):
        raise ParameterError(
            f"The start and `batches` {tuple(batches)} require {sum(START) + sum(batches)} runs, but there are only "
            f"{len(distilled) + len(supervised)}. Use fewer or smaller batches."
        )
    law = as_law(law).for_tables(distilled, supervised)
    priors = default_priors(law, reference_run(distilled, supervised), **dict(prior_settings or {}))
    setting = {
        "function": "replay",
        "data": [data_hash(distilled), data_hash(supervised)],
        "groups": Design.of(law, supervised, "supervised").group_lists,
        "model": digest(priors),
        **{"draws": draws, "tune": tune, "chains": chains, "seed": seed},
        **{"batches": list(batches), "worst rhat": WORST_RHAT},
    }
    done = read_finished(checkpoint, setting)
    jobs = [(name, k) for k in range(starts) for name in orders]
    sampler = {"draws": draws, "tune": tune, "chains": chains, "seed": seed}
    refitter: Refitter | None = None
    costs = np.concatenate(own_costs(distilled, supervised, flops))
    everything = np.ones(costs.size, dtype=bool)
    candidates = candidates_of(distilled, supervised, costs)

    def keep(key: str, value: Any) -> None:
        done[key] = value
        keep_finished(checkpoint, setting, done)

    for key in ["full", *(f"{name} {k}" for name, k in jobs)]:
        if key in done:
            continue
        refitter = refitter or prepare_refits(distilled, priors, supervised)
        if key == "full":
            tree = _fit(refitter, everything, **{**sampler, "draws": 2 * draws, "chains": 4})
            keep(key, {"gain": np.asarray(decide(tree)).tolist()})
            continue
        name, k = key.rsplit(" ", 1)
        first = _start(len(distilled), costs, int(k), seed)
        result = _study(
            refitter, first, candidates, batches, sampler=sampler, which=int(k), choose=orders[name], decide=decide
        )
        keep(key, result)
        if progress is not None:
            progress(len(done) - 1, len(jobs))
    return _collect(done, list(orders), starts, batches)


def _start(distilled: int, costs: np.ndarray, which: int, seed: int) -> np.ndarray:
    """Return a mask of the runs at the start of a study, distilled runs first."""
    rng = np.random.default_rng([seed, which])
    selected = np.zeros(costs.size, dtype=bool)
    for count, rows in zip(START, (np.arange(distilled), np.arange(distilled, costs.size)), strict=True):
        cheap = rows[np.argsort(costs[rows], kind="stable")][: max(count, rows.size // 2)]
        selected[rng.choice(cheap, count, replace=False)] = True
    return selected


def _fit(refitter: Refitter, selected: np.ndarray, **sampler: Any) -> xr.DataTree:
    """Fit the selected runs; repeat once with more draws if the chains disagree."""
    count = len(refitter.runs)
    tree = refit(refitter, selected[:count], kept_supervised=selected[count:], **sampler)
    if (posterior.convergence(tree)["rhat"] or math.inf) > WORST_RHAT:
        longer = {"draws": 2 * sampler["draws"], "tune": 3 * sampler["tune"], "seed": sampler["seed"] + 500}
        tree = refit(refitter, selected[:count], kept_supervised=selected[count:], **{**sampler, **longer})
    return tree


def candidates_of(distilled: pd.DataFrame, supervised: pd.DataFrame, costs: np.ndarray) -> pd.DataFrame:
    """Return all runs as candidates for `design.next_runs`, distilled runs first.

    The names are row numbers.
    """
    ours = distilled[["student_params", "student_tokens", "teacher_loss"]]
    table = pd.concat([ours, supervised[["params", "tokens"]]], ignore_index=True)
    table["cost"] = costs
    table["name"] = [str(row) for row in range(costs.size)]
    return table


def _study(
    refitter: Refitter,
    selected: np.ndarray,
    candidates: pd.DataFrame,
    batches: Sequence[int],
    *,
    sampler: dict[str, Any],
    which: int,
    choose: Choose,
    decide: Decide,
) -> dict[str, list[Any]]:
    selected = selected.copy()
    spent = 0.0
    result: dict[str, list[Any]] = {"gain": [], "compute": [], "rhat": [], "runs": []}
    for step in range(len(batches) + 1):
        tree = _fit(refitter, selected, **{**sampler, "seed": sampler["seed"] + 1000 * which})
        result["gain"].append(np.asarray(decide(tree), dtype=float).tolist())
        result["compute"].append(spent)
        result["rhat"].append(posterior.convergence(tree)["rhat"] or math.nan)
        result["runs"].append(int(selected.sum()))
        if step < len(batches):
            table = candidates[~selected].reset_index(drop=True)
            names = list(choose(tree, table, batches[step], which))[: batches[step]]
            rows = [int(name) for name in names]
            selected[rows] = True
            spent += float(candidates["cost"].to_numpy()[rows].sum())
    return result


def _collect(done: dict[str, Any], orders: list[str], starts: int, batches: Sequence[int]) -> xr.Dataset:
    full = np.array(done["full"]["gain"])
    shape = (len(orders), starts, len(batches) + 1)
    values = {name: np.full(shape, math.nan) for name in ("regret", "agreement", "compute", "rhat")}
    for i, name in enumerate(orders):
        for k in range(starts):
            study = done[f"{name} {k}"]
            wrong = (np.array(study["gain"]) > 0) != (full > 0)
            values["regret"][i, k] = (np.abs(full) * wrong).mean(axis=1)
            values["agreement"][i, k] = 1 - wrong.mean(axis=1)
            values["compute"][i, k] = study["compute"]
            values["rhat"][i, k] = study["rhat"]
    words = {
        "regret": ("nats per token", "mean cost of wrong decisions over all decisions"),
        "agreement": ("1", "fraction of decisions equal to the decisions of the fit to all runs"),
        "compute": ("FLOPs", "compute of the selected runs"),
        "rhat": ("1", "largest R-hat of the fit"),
    }
    runs = np.cumsum([sum(START), *batches])
    variables = {
        name: (("order", "start", "step"), value, dict(zip(("units", "long_name"), words[name], strict=True)))
        for name, value in values.items()
    }
    return xr.Dataset(
        variables
        | {
            "full_gain": (
                "decision",
                full,
                {"units": "nats per token", "long_name": "expected gain under the fit to all runs"},
            )
        },
        coords={"order": orders, "start": np.arange(starts), "step": np.arange(runs.size), "runs": ("step", runs)},
    )
