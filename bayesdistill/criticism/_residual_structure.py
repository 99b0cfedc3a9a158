"""Structure in the residuals of the law."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill.arguments import checked, one_of, or_none
from bayesdistill.criticism import groupings
from bayesdistill.criticism.results import dataset
from bayesdistill.datasets import KINDS
from bayesdistill.law.predictive import COLUMNS, OUTCOME, Design, expected_loss
from bayesdistill.posterior import Fit, draws_of

SHUFFLES = 2000


@checked(kind=or_none(one_of(*KINDS)))
def residual_structure(
    fit: Fit,
    *,
    kind: str | None = None,
    bins: int = 8,
    max_draws: int = 1000,
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> xr.Dataset:
    """Return residuals by group, and the correlation of residuals of neighboring runs.

    Parameters
    ----------
    fit : DataTree
    kind : {"distilled", "supervised"}, optional
        Runs of a joint fit; by default, its distilled runs.
    bins : int
        Number of quantile bins of r and of the tokens; of supervised runs, of size, tokens and tokens per parameter.
    max_draws : int
        Maximum number of draws over which the law is averaged.
    shuffles : int
        Number of permutations of the residuals, for p-values.
    seed : int
        Random seed of the permutations.

    Returns
    -------
    Dataset
        Over run: `residual` (observed loss minus posterior mean of the law, nats per token; group effects are not
        subtracted), `ratio` (of supervised runs `tokens_per_param`) and the design.
        Over group (coordinates factor, label, middle): `mean_residual` with its
        `standard_error` (NaN for a single run) and `runs`. Over by (the factor): `share`, the fraction of the residual variance
        between groups (adjusted, so that independent residuals give 0 in expectation), and `p_value`, the fraction of
        permutations with at least this value. Over configuration: `neighbour_correlation`, the correlation of residuals of
        runs with consecutive teachers (in order of their losses) in the same student configuration (NaN for fewer than four
        runs). A configuration of supervised runs is a model, or a size if no model has several runs, and neighbors have
        consecutive tokens. Scalars: `neighbours`, the same over all configurations; `neighbours_p` and `neighbours_expected` from
        permutations within configurations, which give a slightly negative value.

    Raises
    ------
    ModelError
        If the fit has no such runs.
    ParameterError
        If bins, max_draws or shuffles is too small.

    Notes
    -----
    Independent noise gives uncorrelated residuals. Correlated residuals of neighboring runs indicate a smooth misfit of the law,
    which additional runs do not average out.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.residual_structure(bd.load("fit.nc"))  # doctest: +SKIP
    >>> float(found["neighbours"])  # doctest: +SKIP
    """
    kind, runs = groupings.runs_of(fit, "residual_structure", kind)
    draws = draws_of(fit, groupings.thinning(fit, max_draws))
    predicted = expected_loss(draws, Design.of(draws.law, runs, kind)).mean(axis=0)
    residual = runs[OUTCOME[kind]].to_numpy(dtype=float) - predicted
    grouped, series, axis = groupings.grouped_runs(kind, draws, runs, bins)
    rng = np.random.default_rng(seed)
    shuffled = np.stack([rng.permutation(residual) for _ in range(shuffles)])
    shares = [float(between(residual, grouping.index)) for grouping in grouped]
    p_values = [(between(shuffled, g.index) >= share).mean() for g, share in zip(grouped, shares, strict=True)]
    by_group = pd.concat([pd.Series(residual).groupby(g.index).agg(["mean", "sem", "count"]) for g in grouped])
    sequences = _sequences(residual, runs[COLUMNS[kind][-1]].to_numpy(dtype=float), series.index)
    together = lag_correlation(sequences)
    under = np.array([lag_correlation([rng.permutation(one) for one in sequences]) for _ in range(shuffles)])
    alone = [lag_correlation([one]) if one.size >= 4 else float("nan") for one in sequences]
    values = {
        **runs,
        "residual": residual,
        **axis,
        "configuration_of_run": series.index,
        "mean_residual": by_group["mean"],
        "standard_error": by_group["sem"],
        "runs": by_group["count"],
        "share": shares,
        "p_value": p_values,
        "neighbour_correlation": alone,
        "neighbours": together,
        "neighbours_p": (under >= together).mean(),
        "neighbours_expected": under.mean(),
    }
    coords = {"run": np.arange(len(runs)), "by": [g.factor for g in grouped], "configuration": series.labels}
    coords |= groupings.group_coordinates(grouped)
    attrs = {"kind": kind, "series": series.factor, "shuffles": shuffles, **groupings.fit_attributes(fit)}
    return dataset(f"residual_structure_{kind}", values, coords, attrs)


def between(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return the fraction of variance between groups, along the last axis.

    1 - (within / (n - k)) / (total / (n - 1)), for n values in k groups.
    """
    count = np.bincount(index)
    member = np.eye(count.size)[index]
    means = values @ member / count
    within = ((values - means[..., index]) ** 2).sum(axis=-1) / max(1, index.size - count.size)
    return np.asarray(1 - within / values.var(axis=-1, ddof=1))


def _sequences(residual: np.ndarray, along: np.ndarray, configuration: np.ndarray) -> list[np.ndarray]:
    """Return the residuals of every configuration in order of the teacher losses or tokens."""
    groups = (np.flatnonzero(configuration == k) for k in range(int(configuration.max()) + 1))
    return [residual[mine[np.argsort(along[mine], kind="stable")]] for mine in groups]


def lag_correlation(sequences: list[np.ndarray]) -> float:
    """Return the lag-1 autocorrelation about the mean of each sequence, pooled over sequences."""
    centered = [one - one.mean() for one in sequences if one.size > 1]
    if not centered:
        return float("nan")
    product = sum(float((one[1:] * one[:-1]).sum()) for one in centered)
    pairs = sum(one.size - 1 for one in centered)
    square = sum(float((one**2).sum()) for one in centered) / sum(one.size for one in centered)
    return product / pairs / square if square > 0 else float("nan")
