"""Convergence checks of a fit and their thresholds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill.errors import ModelError
from bayesdistill.posterior.fits import SAMPLE_STATS, Fit, posterior_dataset
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

    dataset = posterior_dataset(fit)
    worst: dict[str, tuple[float, str]] = {}
    for name, variable in dataset.data_vars.items():
        if not {"chain", "draw"} <= set(variable.dims):
            continue
        values = stack(variable)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = {
                "rhat": array_stats.rhat(values, chain_axis=-2, draw_axis=-1),
                "ess_bulk": -np.asarray(array_stats.ess(values, chain_axis=-2, draw_axis=-1, method="bulk")),
                "ess_tail": -np.asarray(
                    array_stats.ess(values, chain_axis=-2, draw_axis=-1, method="tail", prob=(0.05, 0.95))
                ),
            }
        constant = (values == values[..., :1, :1]).all(axis=(-2, -1))
        for key, value in found.items():
            # Fixed parameters (gamma = 1) have no R-hat and pass the check.
            value = np.where(constant, -np.inf, value)
            candidate = (float(np.max(value)), str(name)) if not np.isnan(value).any() else (math.inf, str(name))
            if key not in worst or candidate[0] > worst[key][0]:
                worst[key] = candidate
    if not worst:
        raise ModelError("The posterior contains no draws. Refit the model.")
    stats = _sampler_statistics(fit)
    numbers: dict[str, Any] = {
        "rhat": worst["rhat"][0],
        "rhat_variable": worst["rhat"][1],
        "ess_bulk": max(0.0, -worst["ess_bulk"][0]),
        "ess_bulk_variable": worst["ess_bulk"][1],
        "ess_tail": max(0.0, -worst["ess_tail"][0]),
        "ess_tail_variable": worst["ess_tail"][1],
        **stats,
        "chains": dataset.sizes["chain"],
        "draws": dataset.sizes["draw"],
    }
    failed = []
    if numbers["rhat"] > thresholds.max_rhat:
        failed.append("rhat")
    if numbers["ess_bulk"] < thresholds.min_ess_bulk:
        failed.append("ess_bulk")
    if numbers["ess_tail"] < thresholds.min_ess_tail:
        failed.append("ess_tail")
    if stats["divergences"] is not None and stats["divergences"] > thresholds.max_divergences:
        failed.append("divergences")
    if stats["treedepth_share"] is not None and stats["treedepth_share"] > thresholds.max_treedepth_share:
        failed.append("treedepth_share")
    if stats["bfmi"] is not None and stats["bfmi"] < thresholds.min_bfmi:
        failed.append("bfmi")
    has_statistics = isinstance(fit, xr.DataTree)
    for key in ("rhat", "ess_bulk", "ess_tail"):
        if not math.isfinite(numbers[key]):
            numbers[key] = None
    return {
        "converged": (not failed) if has_statistics else None,
        "failed": failed,
        **numbers,
        "thresholds": asdict(thresholds),
    }


def _sampler_statistics(fit: Fit) -> dict[str, Any]:
    """Return divergences, truncated trajectories and E-BFMI, with the names of several samplers."""
    empty = {"divergences": None, "treedepth_share": None, "bfmi": None}
    if not isinstance(fit, xr.DataTree) or SAMPLE_STATS not in fit.children:
        return empty
    stats = fit[SAMPLE_STATS].to_dataset()
    result: dict[str, Any] = dict(empty)
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
