"""Prior and posterior predictive checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import binom

from bayesdistill.arguments import Range, checked, one_of, or_none
from bayesdistill.criticism import groupings
from bayesdistill.criticism.results import columns, dataset
from bayesdistill.criticism.truths import draw_truths, draws_of_truth, simulate_outcomes
from bayesdistill.datasets import KINDS, read_runs
from bayesdistill.errors import ModelError
from bayesdistill.law import DEFAULT_LAW, Law, as_law
from bayesdistill.law.predictive import OUTCOME, Design, cdf, expected_loss, group_effects, residual_scale, residuals
from bayesdistill.model import reference_run
from bayesdistill.posterior import Fit, draws_of, effects_of
from bayesdistill.priors import default_priors

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


# With fewer than 20 draws, there are no 5% quantiles.
@checked(draws=Range(20, 100_000, whole=True), kind=or_none(one_of(*KINDS)))
def prior_predictive(
    runs: pd.DataFrame | None = None,
    supervised: pd.DataFrame | None = None,
    *,
    kind: str | None = None,
    law: Law | str = DEFAULT_LAW,
    prior_settings: Mapping[str, Any] | None = None,
    draws: int = 500,
    seed: int = 0,
) -> xr.Dataset:
    """Compare observed losses with losses simulated from the priors.

    Parameters
    ----------
    runs, supervised : DataFrame, optional
        Distilled and supervised runs, as for `fit`, with the priors of `bd.fit(runs, supervised, law=law)`.
    kind : {"distilled", "supervised"}, optional
        Runs that are compared if both are given; by default, the distilled ones.
    law : Law or str
    prior_settings : mapping, optional
        Keyword arguments of `priors.default_priors`: tolerance, asymptotic_width, perfect_teacher_width, limited_data_width.
    draws : int
        Range of draws from the priors, including those from statements of theory.
    seed : int

    Returns
    -------
    Dataset
        Over run: `student_loss` (of supervised runs `loss`) and its design
        (losses in nats per token, parameters, tokens); `expected` (quantile, run), the
        5%, 25%, 50%, 75% and 95% quantiles of simulated losses, including residual noise; `position` (run), the fraction of
        simulated losses below the observed one. Scalars: `inside_50` and `inside_90`, the fractions of runs inside the
        equal-tailed intervals. A good prior is wider than the data, so these fractions exceed 0.5 and 0.9.

    Raises
    ------
    DataError
        If the table of runs is invalid.
    ModelError
        If there are no runs, or almost no prior draws satisfy the asymptotic prior.
    ParameterError
        If draws is less than 20.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.prior_predictive(bd.load_runs("busbridge2025"), draws=40)
    >>> dict(found.sizes)["run"]
    354
    """
    tables = {
        one: read_runs(given, kind=one)
        for one, given in zip(KINDS, (runs, supervised), strict=True)
        if given is not None
    }
    reference = reference_run(tables.get("distilled"), tables.get("supervised"))
    law = as_law(law).for_tables(tables.get("distilled"), tables.get("supervised"))
    kind = kind or next(iter(tables))
    if kind not in tables:
        raise ModelError(f"There are no {kind} runs. Pass them, or omit `kind`.")
    table = tables[kind]
    priors = default_priors(law, reference, **dict(prior_settings or {}))
    rng = np.random.default_rng(seed)
    drawn = (draws_of_truth(truth, law, reference) for truth in draw_truths(priors, reference, draws, seed))
    simulated = np.stack([simulate_outcomes(truth, table, rng, kind)[0] for truth in drawn])
    position = (simulated < table[OUTCOME[kind]].to_numpy(dtype=float)).mean(axis=0)
    values = {**table, "expected": np.quantile(simulated, QUANTILES, axis=0), "position": position, **_inside(position)}
    attrs = {
        "kind": kind,
        "draws": draws,
        **{name: "none" if width is None else width for name, width in priors.widths.items()},
        "supervised_law": priors.supervised_law,
        "converged": "yes",  # independent draws of the prior
    }
    return dataset(
        f"prior_predictive_{kind}", values, {"quantile": list(QUANTILES), "run": np.arange(len(table))}, attrs
    )


@checked(kind=or_none(one_of(*KINDS)))
def posterior_predictive(
    fit: Fit, *, kind: str | None = None, bins: int = 8, max_draws: int = 1000, seed: int = 0
) -> xr.Dataset:
    """Compare replicated runs from the posterior with the observed runs, by group.

    Parameters
    ----------
    fit : DataTree
    kind : {"distilled", "supervised"}, optional
        Runs of a joint fit; by default, its distilled runs.
    bins : int
        Number of quantile bins of the loss ratio r and of the tokens; of supervised runs, of size, tokens and tokens per parameter.
    max_draws : int
        Maximum number of draws, evenly thinned.
    seed : int
        Random seed of the replicated runs.

    Returns
    -------
    Dataset
        Over run: `pit`, the predictive probability of a loss below the observed one (approximately uniform if the model is
        correct; slightly concentrated near 0.5, because the model was fitted to the same runs). Over group (coordinates
        factor, label, middle): `runs`; `inside_50` and `inside_90`, the fractions of runs inside the equal-tailed intervals;
        `inside_90_lower` and `inside_90_upper`, the 5% and 95% quantiles of this fraction for independent runs; `mean` and
        `spread` (standard deviation; NaN for fewer than three runs) of observed minus predicted loss in nats per token, with
        the 90% intervals of replicated runs `mean_lower`, `mean_upper`, `spread_lower` and `spread_upper`; and `mean_p` and
        `spread_p`, the fractions of replications with larger values than observed (posterior predictive p-values).

    Raises
    ------
    ModelError
        If the fit has no such runs.
    ParameterError
        If bins or max_draws is less than 2.

    Notes
    -----
    Replicated runs have the fitted group effects of their teachers, student configurations and models.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.posterior_predictive(bd.load("fit.nc"))  # doctest: +SKIP
    >>> bd.plot_posterior_predictive(found).savefig("predictive.png")  # doctest: +SKIP
    """
    kind, runs = groupings.runs_of(fit, "posterior_predictive", kind)
    thin = groupings.thinning(fit, max_draws)
    draws, rng = draws_of(fit, thin), np.random.default_rng(seed)
    design = Design.of(draws.law, runs, kind)
    center = expected_loss(draws, design) + group_effects(draws, design, effects_of(fit, thin))
    scale = residual_scale(draws, design)
    replicated = center + residuals(draws, scale, rng)
    observed, middle = runs[OUTCOME[kind]].to_numpy(dtype=float), center.mean(axis=0)
    pit = cdf(observed, center, scale, draws["nu"][:, None]).mean(axis=0)
    grouped, _, _ = groupings.grouped_runs(kind, draws, runs, bins)
    values = {"pit": pit, **_group_checks(grouped, observed - middle, replicated - middle, pit)}
    coords = {"run": np.arange(len(runs)), **groupings.group_coordinates(grouped)}
    attrs = {"kind": kind, "draws": len(center), **groupings.fit_attributes(fit)}
    return dataset("posterior_predictive", values, coords, attrs)


def _inside(position: np.ndarray) -> dict[str, float]:
    """Return the fractions of runs whose position is inside the equal-tailed intervals."""
    return {f"inside_{p}": float((np.abs(position - 0.5) <= p / 200).mean()) for p in (50, 90)}


def _group_checks(
    grouped: Sequence[groupings.Grouping], seen: np.ndarray, replicated: np.ndarray, pit: np.ndarray
) -> dict[str, np.ndarray]:
    rows = []
    for mine in (grouping.index == k for grouping in grouped for k in range(len(grouping.labels))):
        count = int(mine.sum())
        low, high = np.asarray(binom.ppf((0.05, 0.95), count, 0.9)) / count
        row = {"runs": count, **_inside(pit[mine]), "inside_90_lower": low, "inside_90_upper": high}
        row |= _compare("mean", seen[mine].mean(), replicated[:, mine].mean(axis=1))
        if count >= 3:
            row |= _compare("spread", seen[mine].std(ddof=1), replicated[:, mine].std(axis=1, ddof=1))
        else:
            row |= _compare("spread", np.nan, np.full(len(replicated), np.nan))
        rows.append(row)
    return columns(rows)


def _compare(name: str, observed: float, replicated: np.ndarray) -> dict[str, float]:
    """Return a statistic of the runs, its 90% interval over replications, and its p-value."""
    lower, upper = np.quantile(replicated, (0.05, 0.95))
    larger = np.nan if np.isnan(observed) else (replicated > observed).mean()
    return {name: observed, f"{name}_lower": lower, f"{name}_upper": upper, f"{name}_p": larger}
