"""Prior and posterior predictive checks."""

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
    """Compare observed student losses with losses simulated from the priors.

    Parameters
    ----------
    runs : DataFrame
        Distilled runs.
    law : Law or str
    prior_settings : mapping, optional
        Keyword arguments of `priors.default_priors`: tolerance, asymptotic_width.
    draws : int
        Number of draws from the priors, including the one-sided prior on the asymptotic advantage.
    seed : int

    Returns
    -------
    Dataset
        Over run: `student_loss` and its design (losses in nats per token, parameters, tokens); `expected` (quantile, run), the
        5%, 25%, 50%, 75% and 95% quantiles of simulated losses, including residual noise; `position` (run), the fraction of
        simulated losses below the observed one. Scalars: `inside_50` and `inside_90`, the fractions of runs inside the
        equal-tailed intervals. A good prior is wider than the data, so these fractions exceed 0.5 and 0.9.

    Raises
    ------
    DataError
        If the table of runs is invalid.
    ModelError
        If almost no prior draws satisfy the asymptotic prior.
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
        raise ParameterError(f"`draws` must be at least 20 to compute 5% quantiles, got {draws!r}.")
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
        "student_params": (
            "run",
            table["student_params"].to_numpy(dtype=float),
            "parameters",
            "non-embedding parameters of the student",
        ),
        "student_tokens": ("run", table["student_tokens"].to_numpy(dtype=float), "tokens", "tokens of the student"),
        "teacher_loss": ("run", table["teacher_loss"].to_numpy(dtype=float), NATS, "loss of the teacher"),
        "student_loss": ("run", observed, NATS, "observed loss of the student"),
        "expected": (
            ("quantile", "run"),
            np.quantile(simulated, QUANTILES, axis=0),
            NATS,
            "quantiles of simulated losses",
        ),
        "position": ("run", position, "1", "fraction of simulated losses below the observed one"),
        "inside_50": (
            (),
            float((np.abs(position - 0.5) <= 0.25).mean()),
            "1",
            "fraction of runs inside their 50% interval",
        ),
        "inside_90": (
            (),
            float((np.abs(position - 0.5) <= 0.45).mean()),
            "1",
            "fraction of runs inside their 90% interval",
        ),
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
    """Compare replicated runs from the posterior with the observed runs, by group.

    Parameters
    ----------
    fit : DataTree
        Fit of distilled runs.
    bins : int
        Number of quantile bins of the loss ratio r and of the tokens.
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
        If the fit has no distilled runs.
    ParameterError
        If bins or max_draws is less than 2.

    Notes
    -----
    Replicated runs have the fitted group effects of their teachers and student configurations.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.posterior_predictive(bd.load("fit.nc"))  # doctest: +SKIP
    >>> bd.plot_posterior_predictive(found).savefig("predictive.png")  # doctest: +SKIP
    """
    if max_draws < 2:
        raise ParameterError(f"`max_draws` must be at least 2, got {max_draws}.")
    runs = distilled_runs(fit, "posterior_predictive")
    thin = thinning(fit, max_draws)
    draws, rng = draws_of(fit, thin), np.random.default_rng(seed)
    design = Design.of(draws.law, runs)
    center = expected_loss(draws, design) + group_effects(draws, design, effects_of(fit, thin))
    scale = residual_scale(draws, design)
    replicated = center + residuals(draws, scale, rng)
    observed, middle = runs["student_loss"].to_numpy(dtype=float), center.mean(axis=0)
    pit = cdf(observed, center, scale, draws["nu"][:, None]).mean(axis=0)
    groupings = group_runs(runs, loss_ratio(draws, runs).mean(axis=0), bins)
    variables = {
        "pit": ("run", pit, "1", "predictive probability of a loss below the observed one"),
        **_group_checks(groupings, observed - middle, replicated - middle, pit),
    }
    return _dataset(
        variables,
        {"run": np.arange(len(runs)), **group_coordinates(groupings)},
        {"draws": len(center), **fit_attributes(fit)},
    )


def _group_checks(
    groupings: Sequence[Grouping], seen: np.ndarray, replicated: np.ndarray, pit: np.ndarray
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
                ours, theirs = statistic(seen[mine], axis=-1), statistic(replicated[:, mine], axis=-1)
                low, high = np.quantile(theirs, (0.05, 0.95))
                row |= {name: float(ours), f"{name}_lower": float(low), f"{name}_upper": float(high)}
                row[f"{name}_p"] = float((theirs > ours).mean())
            rows.append(row)
    words = {
        "runs": "number of runs in the group",
        "inside_50": "fraction of runs inside their 50% interval",
        "inside_90": "fraction of runs inside their 90% interval",
        "inside_90_lower": "5% quantile of this fraction if the intervals are calibrated",
        "inside_90_upper": "95% quantile of this fraction if the intervals are calibrated",
    }
    for name, text in (("mean", "mean"), ("spread", "standard deviation")):
        words |= {
            name: f"{text} of observed minus predicted loss",
            f"{name}_lower": f"5% quantile of the {text} of replicated runs",
            f"{name}_upper": f"95% quantile of the {text} of replicated runs",
            f"{name}_p": f"fraction of replications with a larger {text}",
        }
    nats = {f"{name}{end}" for name in ("mean", "spread") for end in ("", "_lower", "_upper")}
    return {
        name: ("group", [row[name] for row in rows], NATS if name in nats else "1", text)
        for name, text in words.items()
    }


def _spread(values: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(np.std(values, axis=axis, ddof=1))


def thinning(fit: Fit, max_draws: int) -> slice:
    """Return a slice of evenly spaced draws with at most `max_draws` over all chains."""
    dataset = posterior_dataset(fit)
    return slice(None, None, max(1, -(-dataset.sizes["chain"] * dataset.sizes["draw"] // max_draws)))


def group_coordinates(groupings: Sequence[Grouping]) -> dict[str, Any]:
    """Return the coordinates of the dimension `group`: factor, label and middle."""
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
