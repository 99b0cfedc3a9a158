"""Convergence checks of a fit and their thresholds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill.arguments import Range, check_fields
from bayesdistill.errors import ModelError
from bayesdistill.posterior.fits import SAMPLE_STATS, Fit, group_of, posterior_dataset
from bayesdistill.posterior.summaries import stack


@dataclass(frozen=True)
class ConvergenceThresholds:
    """Thresholds of the convergence checks.

    Parameters
    ----------
    max_rhat : float
        Maximum rank-normalized split R-hat of all variables (Vehtari et al. 2021).
    min_ess_bulk, min_ess_tail : float
        Minimum effective sample size of all variables, in the bulk and in the 5% and 95% tails.
    max_divergences : int
        Maximum number of divergent transitions after tuning.
    max_treedepth_share : float
        Maximum fraction of draws whose trajectory was truncated at the maximum tree depth.
    min_bfmi : float
        Minimum E-BFMI of all chains (Betancourt 2016, arXiv:1604.00695).
    """

    max_rhat: float = 1.01
    min_ess_bulk: float = 400
    min_ess_tail: float = 400
    max_divergences: int = 0
    max_treedepth_share: float = 0.01
    min_bfmi: float = 0.3

    def __post_init__(self) -> None:
        check_fields(self, **dict.fromkeys((field.name for field in fields(self)), Range(0, math.inf)))


THRESHOLDS = ConvergenceThresholds()


def convergence(fit: Fit, thresholds: ConvergenceThresholds = THRESHOLDS) -> dict[str, Any]:
    """Check the convergence of a fit and return the diagnostics.

    Parameters
    ----------
    fit : DataTree or Dataset
        A Dataset of draws has no sampler statistics; diagnostics that require them are None.
    thresholds : ConvergenceThresholds

    Returns
    -------
    dict
        `converged` (True, False, or None for a Dataset of draws without sampler statistics), `failed` (names of the failed
        checks), `rhat`, `ess_bulk` and `ess_tail` (the worst value of all variables, with the name in `rhat_variable`, ...),
        `divergences`, `treedepth_share`, `bfmi`, `chains`, `draws`, and `thresholds`.
    """
    from arviz_stats.base import array_stats

    axes: Any = {"chain_axis": -2, "draw_axis": -1}
    diagnostics: dict[str, Callable[[np.ndarray], Any]] = {  # larger is worse
        "rhat": lambda values: array_stats.rhat(values, **axes),
        "ess_bulk": lambda values: -np.asarray(array_stats.ess(values, **axes, method="bulk")),
        "ess_tail": lambda values: -np.asarray(array_stats.ess(values, **axes, method="tail", prob=(0.05, 0.95))),
    }
    dataset = posterior_dataset(fit)
    variables = {str(n): stack(v) for n, v in dataset.data_vars.items() if {"chain", "draw"} <= set(v.dims)}
    if not variables:
        raise ModelError("The posterior contains no draws. Refit the model.")
    numbers: dict[str, Any] = {}
    for key, diagnostic in diagnostics.items():
        worst = {name: _worst(diagnostic, values) for name, values in variables.items()}
        variable = max(worst, key=lambda name: worst[name])
        numbers[key] = worst[variable] if key == "rhat" else max(0.0, -worst[variable])
        numbers[f"{key}_variable"] = variable
    numbers |= _sampler_statistics(fit)
    limits = asdict(thresholds)
    failed = []
    for limit, threshold in limits.items():
        kind, key = limit.split("_", 1)
        value = numbers[key]
        if value is not None and (value > threshold if kind == "max" else value < threshold):
            failed.append(key)
    numbers |= {key: None for key in diagnostics if not math.isfinite(numbers[key])}
    return {
        "converged": (not failed) if isinstance(fit, xr.DataTree) else None,
        "failed": failed,
        **numbers,
        "chains": dataset.sizes["chain"],
        "draws": dataset.sizes["draw"],
        "thresholds": limits,
    }


def _worst(diagnostic: Callable[[np.ndarray], Any], values: np.ndarray) -> float:
    """Return the largest value of a diagnostic of a variable; fixed elements (gamma = 1) have none and pass."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found = diagnostic(values)
    constant = (values == values[..., :1, :1]).all(axis=(-2, -1))
    found = np.where(constant, -np.inf, found)
    return math.inf if np.isnan(found).any() else float(np.max(found))


def _sampler_statistics(fit: Fit) -> dict[str, Any]:
    """Return divergences, truncated trajectories and E-BFMI, with the names of several samplers."""
    result: dict[str, Any] = {"divergences": None, "treedepth_share": None, "bfmi": None}
    stats = group_of(fit, SAMPLE_STATS)
    if "diverging" in stats:
        result["divergences"] = int(stats["diverging"].sum())
    for name in ("maxdepth_reached", "reached_max_treedepth"):
        if name in stats:
            result["treedepth_share"] = float(stats[name].mean())
    if "energy" in stats:
        energy = stack(stats["energy"])
        variance = energy.var(axis=-1)
        if energy.shape[-1] > 1 and (variance > 0).all():
            result["bfmi"] = float((np.square(np.diff(energy, axis=-1)).mean(axis=-1) / variance).min())
    return result
