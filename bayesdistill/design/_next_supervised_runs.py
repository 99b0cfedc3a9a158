r"""`next_supervised_runs`: which supervised run tells most about compute-optimal pretraining at target budgets.

An outcome y of a candidate gives draw j the weight :math:`w_j(y)`, as in `design.reweighting`. Two values of a run are computed.

*Size*: after the run, the size with the smallest updated mean loss is chosen. The value is the expected decrease of the law's loss
compared with the size chosen now (EVSI, in nats); at most the expected loss that the unknown optimum costs now (`regret` of
`compute_optimal`). As in `design.reweighting`, it is the mean of an apparent and a cross-fitted estimate.

*Loss*: the expected variance of the loss at the target budget after the run, :math:`\mathrm{E}_y \mathrm{Var}(L \mid y)`. The loss is
the one of the chosen size, with the law's discrepancy and without effects of new groups.
"""

from __future__ import annotations

import os
from typing import Any, Unpack

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill.answers import Codes
from bayesdistill.arguments import checked, one_of
from bayesdistill.compute import pretraining_tokens
from bayesdistill.decisions import compute_optimal, labels, planning
from bayesdistill.decisions._compute_optimal import seen_compute
from bayesdistill.decisions.arguments import Numbers, parse_budgets
from bayesdistill.decisions.extrapolation import pretraining_factors
from bayesdistill.design.candidates import DISTILLED, parse_candidates, predict
from bayesdistill.design.reweighting import Blocks, predictive_quantiles
from bayesdistill.errors import ParameterError

OBJECTIVES = ("loss", "size")
_STATUS = ("ok", "few effective draws")
_SIZES = 25
"""Sizes among which is chosen after a run: quantiles of the optimum."""


class SupervisedRunsOptions(planning.Costs, total=False):
    """Options of `next_supervised_runs`."""

    seed: int


@checked(objective=one_of(*OBJECTIVES))
@planning.with_options
def next_supervised_runs(
    fit: planning.Source,
    candidates: pd.DataFrame | str | os.PathLike[str] | None,
    budgets: Numbers,
    *,
    objective: str = "loss",
    outcomes: int = 400,
    min_effective_draws: float = 100.0,
    **options: Unpack[SupervisedRunsOptions],
) -> xr.Dataset:
    """Return what each candidate supervised run tells about compute-optimal pretraining at target budgets.

    Parameters
    ----------
    candidates : DataFrame, path or None
        One supervised run per row: params, tokens. Optional: name, cost (FLOPs; by default 3 F(N) D). None proposes runs around the
        compute-optimal size, within the training compute of the runs in the data and up to a quarter of the largest target budget.
    budgets : float, str, or a list of them
        Target budgets of the models that will be trained later, in FLOPs.
    objective : {"loss", "size"}
        Criterion of rank: the expected standard deviation of the loss at the target budgets, or the value for the choice of size.
    outcomes : int
        Number of outcomes per run.
    min_effective_draws : float
        Effective sample size, averaged over outcomes, below which a run is flagged.

    Returns
    -------
    Dataset
        Over `candidate`: sd_reduction (expected relative decrease of the standard deviation of the loss, mean over the budgets),
        size_value (nats, mean over the budgets) with size_value_mcse, cost (FLOPs), effective_draws, status (`ok`, `few effective
        draws`), rank (1 is the best), params, tokens, predicted_loss (nats), extrapolation. Over `budget`: loss_sd (nats, now) and
        regret (upper bound on the value for the choice of size). Over candidate and budget: loss_sd_after and budget_size_value.

    Raises
    ------
    DataError
        If the table of candidates is invalid; the message names row and column.
    ParameterError
        If an argument is invalid, a candidate is a distilled run, or runs cannot be proposed.

    Examples
    --------
    >>> import bayesdistill as bd, pandas as pd
    >>> runs = pd.DataFrame({"params": [1e9, 1e10], "tokens": [2e10, 2e11]})
    >>> bd.next_supervised_runs(bd.load("fit.nc"), runs, budgets=[1e24])  # doctest: +SKIP
    """
    planner = planning.planner_of(next_supervised_runs, fit, options, distilled=False)
    fitted, draws = planner.fitted, planner.fitted.draws
    targets = parse_budgets(budgets)
    table = _proposed(planner, float(targets.max())) if candidates is None else candidates
    runs = parse_candidates(table, planner.shape)
    if DISTILLED in runs.kinds:
        raise ParameterError(
            "`candidates` has distilled runs. Use bd.next_runs, or a table of supervised runs (params, tokens)."
        )
    found = compute_optimal(planner, targets, noise="law")
    sizes = found["params"].values
    tokens = found["tokens"].values
    loss = draws.supervised_loss(sizes[:, None], tokens[:, None])
    loss = loss + draws.discrepancy("supervised", sizes[:, None], tokens[:, None])
    best = found["best_params"].values.reshape(targets.size, -1)
    others = np.quantile(best, np.linspace(0.01, 0.99, _SIZES), axis=1).T
    options_ = np.concatenate([sizes[:, None], others], axis=1)[..., None]  # the size chosen now comes first
    bought = pretraining_tokens(options_, targets[:, None, None], planner.shape)
    gains = draws.supervised_loss(sizes[:, None], tokens[:, None])[:, None] - draws.supervised_loss(options_, bought)
    predictions = predict(fitted, runs)
    drawn = predictive_quantiles(predictions, outcomes, planner.seed)
    blocks = Blocks.of(fitted.chain.size, fitted.draw.size)
    count = len(runs.names)
    value, error, after = np.empty((3, count, targets.size))
    effective = np.empty(count)
    total_error = np.empty(count)
    for place in range(count):
        weights = predictions.log_density(place, drawn[place])
        weights = np.exp(weights - weights.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        effective[place] = (1 / (weights**2).sum(axis=1)).mean()
        centered = loss - loss.mean(axis=1, keepdims=True)
        mean = weights @ centered.T
        after[place] = np.sqrt(np.maximum((weights @ (centered**2).T - mean**2).mean(axis=0), 0))
        value[place], error[place], total_error[place] = _size_value(weights, gains, blocks)
    regret = found["regret"].values
    value = np.clip(value, 0, regret)
    now = loss.std(axis=1)
    reduction = 1 - (after / now).mean(axis=1)
    score = reduction if objective == "loss" else value.mean(axis=1)
    order = np.lexsort((np.array(runs.names), runs.cost, -np.round(score, 10)))
    rank = np.empty(count, dtype=int)
    rank[order] = np.arange(count) + 1
    values: dict[str, Any] = {
        "sd_reduction": reduction,
        "size_value": (value.mean(axis=1), total_error),
        "cost": runs.cost,
        "effective_draws": effective,
        "status": Codes(effective < min_effective_draws, _STATUS),
        "rank": rank,
        "params": runs.params,
        "tokens": runs.tokens,
        "predicted_loss": predictions.mean.mean(axis=1),
        "extrapolation": pretraining_factors(fitted, runs.params, runs.tokens).max(axis=0),
        "loss_sd": now,
        "regret": regret,
        "loss_sd_after": after,
        "budget_size_value": (value, error),
    }
    attrs = labels.shape_attributes(planner.shape) | fitted.attrs
    attrs |= {"objective": objective, "outcomes": int(outcomes), "seed": int(planner.seed), "noise": "expected"}
    return labels.answer("next_supervised_runs", fitted, values, {"candidate": runs.names, "budget": targets}, attrs)


def _size_value(weights: np.ndarray, gains: np.ndarray, blocks: Blocks) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the value of a run for the choice of size at each budget, its standard errors, and the standard error of the mean.

    Parameters
    ----------
    weights : ndarray, (outcome, n_draws)
    gains : ndarray, (budget, size, n_draws)
        Loss of the size chosen now minus the loss of each size.
    blocks : Blocks
    """
    budgets, sizes, draws = gains.shape
    sums = blocks.sums(weights, gains.reshape(-1, draws).T)
    inside = sums.reshape(len(blocks.edges), len(weights), budgets, sizes)
    total = inside.sum(axis=0)
    apparent = total.max(axis=-1).mean(axis=0)
    others = total - inside
    choice = others.argmax(axis=-1)
    crossed = np.take_along_axis(inside, choice[..., None], axis=-1)[..., 0].sum(axis=0).mean(axis=0)
    number = len(blocks.edges)
    partial = others.max(axis=-1).mean(axis=1) * number / max(number - 1, 1)
    jackknife = (number - 1) * partial.var(axis=0)
    together = (number - 1) * partial.mean(axis=1).var()
    optimism = np.abs(apparent - crossed) / 2
    return (
        (apparent + crossed) / 2,
        np.sqrt(jackknife + optimism**2),
        float(np.sqrt(together + optimism.mean() ** 2)),
    )


def _proposed(planner: planning.Planner, target: float) -> pd.DataFrame:
    """Return runs within the training compute of the runs in the data: three sizes around the optimum at four budgets.

    A run that costs more than the target would be made instead of it, not before it.
    """
    seen = seen_compute(planner)
    if seen is None:
        raise ParameterError(
            "The fit does not contain its runs, so no runs can be proposed. Pass a table of `candidates`."
        )
    lowest, highest = seen
    budgets = np.geomspace(lowest, min(highest, target / 4) if target > 8 * lowest else highest, 4)
    best = compute_optimal(planner, budgets, noise="law")["params"].values
    params = (best[:, None] * np.array([0.5, 1.0, 2.0])).ravel()
    tokens = pretraining_tokens(params, np.repeat(budgets, 3), planner.shape)
    return pd.DataFrame({"params": params, "tokens": tokens})
