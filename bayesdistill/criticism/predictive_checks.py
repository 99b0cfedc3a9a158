"""Predictive checks: runs that the priors expect, and runs that the posterior would repeat, beside those that were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from scipy.stats import binom

from bayesdistill.criticism.groupings import (
    NATS,
    Grouping,
    distilled_runs,
    fit_attributes,
    group_runs,
    loss_ratio,
)
from bayesdistill.criticism.truths import draw_truths, draws_of_truth, simulate_outcomes
from bayesdistill.datasets import read_runs
from bayesdistill.errors import ParameterError
from bayesdistill.law import DEFAULT_LAW, Law, as_law
from bayesdistill.law.predictive import Design, cdf, expected_loss, group_effects, residual_scale, residuals
from bayesdistill.model import reference_run
from bayesdistill.posterior import Fit, draws_of, effects_of, posterior_dataset
from bayesdistill.priors import default_priors

if TYPE_CHECKING:
    import pandas as pd

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def prior_predictive(
    runs: pd.DataFrame,
    *,
    law: Law | str = DEFAULT_LAW,
    prior_settings: Mapping[str, Any] | None = None,
    draws: int = 500,
    seed: int = 0,
) -> xr.Dataset:
    """Student losses that the priors expect at the design of runs, beside the losses observed.

    Parameters
    ----------
    runs : DataFrame
        Distilled runs.
    law : Law or str
    prior_settings : mapping, optional
        Keyword arguments of `priors.default_priors`: tolerance, asymptotic_width.
    draws : int
        Laws drawn from the priors, the one-sided prior on the asymptotic advantage included.
    seed : int

    Returns
    -------
    Dataset
        Over run: `student_loss` and its design (losses in nats per token, parameters, tokens); `expected` (quantile, run), the
        5, 25, 50, 75 and 95 % quantiles of simulated losses, law and scatter; `position` (run), the share of simulated losses
        below the observed one. Scalars: `inside_50`, `inside_90`, shares of runs inside the equal-tailed intervals. A good
        prior is wider than the data, so that these are above 0.5 and 0.9, and not by so much that it allows anything.

    Raises
    ------
    DataError
        If the table of runs is not usable.
    ModelError
        If the priors leave next to no laws.
    ParameterError
        If draws is less than 20.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.prior_predictive(bd.load_runs("busbridge2025"), draws=40)
    >>> dict(found.sizes)["run"]
    354
    """
    if draws < 20:
        raise ParameterError(f"draws is {draws!r}; at least 20 are needed for 5 % quantiles")
    table = read_runs(runs, kind="distilled")
    reference = reference_run(table, None)
    law = as_law(law).for_runs(distilled=True, supervised=False)
    priors = default_priors(law, reference, **dict(prior_settings or {}))
    rng = np.random.default_rng(seed)
    simulated = np.stack(
        [
            simulate_outcomes(draws_of_truth(truth, law, reference), table, rng)[0]
            for truth in draw_truths(priors, reference, draws, seed)
        ]
    )
    observed = table["student_loss"].to_numpy(dtype=float)
    position = (simulated < observed).mean(axis=0)
    design = {
        "student_params": ("run", table["student_params"].to_numpy(dtype=float), "parameters", "size of the student"),
        "student_tokens": ("run", table["student_tokens"].to_numpy(dtype=float), "tokens", "tokens of the student"),
        "teacher_loss": ("run", table["teacher_loss"].to_numpy(dtype=float), NATS, "loss of the teacher"),
        "student_loss": ("run", observed, NATS, "observed loss of the student"),
        "expected": (
            ("quantile", "run"),
            np.quantile(simulated, QUANTILES, axis=0),
            NATS,
            "quantiles of simulated losses",
        ),
        "position": ("run", position, "1", "share of simulated losses below the observed one"),
        "inside_50": ((), float((np.abs(position - 0.5) <= 0.25).mean()), "1", "share of runs in their 50 % interval"),
        "inside_90": ((), float((np.abs(position - 0.5) <= 0.45).mean()), "1", "share of runs in their 90 % interval"),
    }
    width = priors.asymptotic_width
    return _dataset(
        design,
        {"quantile": list(QUANTILES), "run": np.arange(len(table))},
        {
            "draws": draws,
            "asymptotic_width": "none" if width is None else width,
            "supervised_law": priors.supervised_law,
            "converged": "yes",  # independent draws of the prior
        },
    )


def posterior_predictive(fit: Fit, *, bins: int = 8, max_draws: int = 1000, seed: int = 0) -> xr.Dataset:
    """Whether runs repeated from the posterior look like those observed, group by group.

    Parameters
    ----------
    fit : DataTree
        Of distilled runs.
    bins : int
        Of the loss ratio r and of the tokens, by quantiles.
    max_draws : int
        Draws used, evenly thinned.
    seed : int
        Of the repeated runs.

    Returns
    -------
    Dataset
        Over run: `pit`, the predictive probability of a loss below the observed one (uniform if the model is right; the same
        runs were fitted, so that it is somewhat drawn to the middle). Over group (coordinates factor, label, middle): `runs`;
        `inside_50`, `inside_90`, shares of runs inside the equal-tailed intervals, with `inside_90_lower` and
        `inside_90_upper`, between which the share would lie in 90 % of cases if runs were independent; `mean` and `spread`
        (standard deviation; NaN below three runs) of observed minus predicted loss, with their 90 % intervals under
        repetition `mean_lower`, `mean_upper`, `spread_lower`, `spread_upper` in nats per token; and `mean_p`, `spread_p`,
        the shares of repetitions in which they are larger than observed (near 0 or 1: the model cannot make what was seen).

    Raises
    ------
    ModelError
        If the fit has no distilled runs.
    ParameterError
        If bins or max_draws is less than 2.

    Notes
    -----
    Shifts of teachers and student configurations, where the model has them, are those of the fitted groups.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.posterior_predictive(bd.load("fit.nc"))  # doctest: +SKIP
    >>> bd.plot_posterior_predictive(found).savefig("predictive.png")  # doctest: +SKIP
    """
    if max_draws < 2:
        raise ParameterError("max_draws must be at least 2")
    runs = distilled_runs(fit, "posterior_predictive")
    thin = thinning(fit, max_draws)
    draws, rng = draws_of(fit, thin), np.random.default_rng(seed)
    design = Design.of(draws.law, runs)
    center = expected_loss(draws, design) + group_effects(draws, design, effects_of(fit, thin))
    scale = residual_scale(draws, design)
    repeated = center + residuals(draws, scale, rng)
    observed, middle = runs["student_loss"].to_numpy(dtype=float), center.mean(axis=0)
    pit = cdf(observed, center, scale, draws["nu"][:, None]).mean(axis=0)
    groupings = group_runs(runs, loss_ratio(draws, runs).mean(axis=0), bins)
    variables = {
        "pit": ("run", pit, "1", "predictive probability of a loss below the observed one"),
        **_group_checks(groupings, observed - middle, repeated - middle, pit),
    }
    return _dataset(
        variables,
        {"run": np.arange(len(runs)), **group_coordinates(groupings)},
        {"draws": len(center), **fit_attributes(fit)},
    )


def _group_checks(
    groupings: Sequence[Grouping], seen: np.ndarray, repeated: np.ndarray, pit: np.ndarray
) -> dict[str, Any]:
    rows: list[dict[str, float]] = []
    for grouping in groupings:
        for k in range(len(grouping.labels)):
            mine = grouping.index == k
            count = int(mine.sum())
            row: dict[str, float] = {
                "runs": count,
                "inside_50": float((np.abs(pit[mine] - 0.5) <= 0.25).mean()),
                "inside_90": float((np.abs(pit[mine] - 0.5) <= 0.45).mean()),
                "inside_90_lower": float(binom.ppf(0.05, count, 0.9)) / count,
                "inside_90_upper": float(binom.ppf(0.95, count, 0.9)) / count,
            }
            for name, statistic, least in (("mean", np.mean, 1), ("spread", _spread, 3)):
                if count < least:
                    row |= {f"{name}{end}": float("nan") for end in ("", "_lower", "_upper", "_p")}
                    continue
                ours, theirs = statistic(seen[mine], axis=-1), statistic(repeated[:, mine], axis=-1)
                low, high = np.quantile(theirs, (0.05, 0.95))
                row |= {name: float(ours), f"{name}_lower": float(low), f"{name}_upper": float(high)}
                row[f"{name}_p"] = float((theirs > ours).mean())
            rows.append(row)
    words = {
        "runs": "runs of the group",
        "inside_50": "share of runs in their 50 % interval",
        "inside_90": "share of runs in their 90 % interval",
        "inside_90_lower": "5 % quantile of that share if the intervals are right",
        "inside_90_upper": "95 % quantile of that share if the intervals are right",
    }
    for name, text in (("mean", "mean"), ("spread", "standard deviation")):
        words |= {
            name: f"{text} of observed minus predicted loss",
            f"{name}_lower": f"5 % quantile of the {text} of repeated runs",
            f"{name}_upper": f"95 % quantile of the {text} of repeated runs",
            f"{name}_p": f"share of repetitions with a larger {text}",
        }
    nats = {f"{name}{end}" for name in ("mean", "spread") for end in ("", "_lower", "_upper")}
    return {
        name: ("group", [row[name] for row in rows], NATS if name in nats else "1", text)
        for name, text in words.items()
    }


def _spread(values: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(np.std(values, axis=axis, ddof=1))


def thinning(fit: Fit, max_draws: int) -> slice:
    """Draws of each chain such that there are at most `max_draws` in all, evenly spaced."""
    dataset = posterior_dataset(fit)
    return slice(None, None, max(1, -(-dataset.sizes["chain"] * dataset.sizes["draw"] // max_draws)))


def group_coordinates(groupings: Sequence[Grouping]) -> dict[str, Any]:
    """Coordinates of the dimension `group`: factor, label and middle."""
    return {
        "factor": ("group", [g.factor for g in groupings for _ in g.labels]),
        "label": ("group", [label for g in groupings for label in g.labels]),
        "middle": ("group", np.concatenate([g.middles for g in groupings])),
    }


def _dataset(
    variables: Mapping[str, tuple[Any, Any, str, str]], coords: dict[str, Any], attrs: dict[str, Any]
) -> xr.Dataset:
    found = {name: (dims, values, {"units": u, "long_name": w}) for name, (dims, values, u, w) in variables.items()}
    return xr.Dataset(found, coords=coords, attrs=attrs)
