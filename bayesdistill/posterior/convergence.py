"""Convergence checks of a fit and their thresholds."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill.arguments import Range, check_fields
from bayesdistill.errors import ModelError
from bayesdistill.posterior.fits import SAMPLE_STATS, Fit, group_of, members, posterior_dataset, provenance
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
GOOD_K = 0.7
"""For larger values of Pareto k, importance sampling is unreliable (Vehtari et al. 2024, arXiv:1507.02646)."""


def convergence(fit: Fit, thresholds: ConvergenceThresholds = THRESHOLDS) -> dict[str, Any]:
    """Check the convergence of a fit and return the diagnostics.

    Parameters
    ----------
    fit : DataTree or Dataset
        A Dataset of draws has no sampler statistics; diagnostics that require them are None.
    thresholds : ConvergenceThresholds
        Of a mixture, the worst diagnostics of its fits are compared with them: R-hat across laws has no meaning.

    Returns
    -------
    dict
        `converged` (True, False, or None for a Dataset of draws without sampler statistics), `failed` (names of the failed
        checks), `rhat`, `ess_bulk` and `ess_tail` (the worst value of all variables, with the name of the variable or coordinate in
        `rhat_variable`, ...), `pareto_k` (after an update), `divergences`, `treedepth_share`, `bfmi`, `chains`, `draws`, and
        `thresholds`.
    """
    dataset = posterior_dataset(fit)
    of_laws = {name: law["convergence"] for name, law in members(fit).items() if law["draws_per_chain"]}
    updates = provenance(fit).get("updates", [])
    if updates:  # of the sampler's draws, with the effective sample size after the last update
        of_laws = {"before the update": updates[-1]["convergence"]}
    numbers = _worst_of(of_laws) if of_laws else _diagnostics(fit)
    known = isinstance(fit, xr.DataTree) and all(law["converged"] is not None for law in of_laws.values())
    limits = asdict(thresholds)
    failed = []
    for limit, threshold in limits.items():
        kind, key = limit.split("_", 1)
        value = numbers[key]
        if value is not None and (value > threshold if kind == "max" else value < threshold):
            failed.append(key)
    if updates:
        worst_k = max(math.inf if one["pareto_k"] is None else one["pareto_k"] for one in updates)
        numbers["pareto_k"] = worst_k if math.isfinite(worst_k) else None
        failed += ["pareto_k"] if worst_k > GOOD_K else []
    numbers |= {key: None for key in _OF_DRAWS if numbers[key] is not None and not math.isfinite(numbers[key])}
    return {
        "converged": (not failed) if known else None,
        "failed": failed,
        **numbers,
        "chains": dataset.sizes["chain"],
        "draws": dataset.sizes["draw"],
        "thresholds": limits,
    }


_OF_DRAWS = ("rhat", "ess_bulk", "ess_tail")


def _diagnostics(fit: Fit) -> dict[str, Any]:
    """Return the diagnostics of the draws and of the sampler."""
    dataset = posterior_dataset(fit)
    variables = {str(n): stack(v) for n, v in dataset.data_vars.items() if {"chain", "draw"} <= set(v.dims)}
    if "z" in variables and "coordinate" in dataset.coords:
        variables |= dict(zip(map(str, dataset["coordinate"].values), variables.pop("z"), strict=True))
    if not variables:
        raise ModelError("The posterior contains no draws. Refit the model.")
    # Every decision checks its fit. A fit may change in place, so the key is its content.
    key = hashlib.sha256()
    for name, values in variables.items():
        key.update(repr((name, values.shape, values.dtype)).encode() + np.ascontiguousarray(values).tobytes())
    if key.digest() not in _known:
        if len(_known) >= _MOST_KNOWN:
            _known.pop(next(iter(_known)))
        _known[key.digest()] = _of_draws(variables)
    return _known[key.digest()] | _sampler_statistics(fit)


_MOST_KNOWN = 16
_known: dict[bytes, dict[str, Any]] = {}  # diagnostics of the last posteriors


def _of_draws(variables: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the worst R-hat and effective sample sizes of variables (..., chain, draw), with their names."""
    from arviz_stats.base import array_stats

    axes: Any = {"chain_axis": -2, "draw_axis": -1}
    diagnostics: dict[str, Callable[[np.ndarray], Any]] = {  # larger is worse
        "rhat": lambda values: array_stats.rhat(values, **axes),
        "ess_bulk": lambda values: -np.asarray(array_stats.ess(values, **axes, method="bulk")),
        "ess_tail": lambda values: -np.asarray(array_stats.ess(values, **axes, method="tail", prob=(0.05, 0.95))),
    }
    numbers: dict[str, Any] = {}
    for key, diagnostic in diagnostics.items():
        worst = {name: _worst(diagnostic, values) for name, values in variables.items()}
        variable = max(worst, key=lambda name: worst[name])
        numbers[key] = worst[variable] if key == "rhat" else max(0.0, -worst[variable])
        numbers[f"{key}_variable"] = variable
    return numbers


def _worst_of(laws: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the worst diagnostics of the fits of a mixture, None where no fit has them; divergences are summed."""
    numbers: dict[str, Any] = {}
    for key in _OF_DRAWS:
        # An R-hat that is not finite is stored as None.
        undefined = {name: math.inf for name, law in laws.items() if key in law["failed"]}
        values = {name: law[key] for name, law in laws.items() if law.get(key) is not None}
        values = {**(undefined if key == "rhat" else {}), **values}
        worst = (max if key == "rhat" else min)(values, key=values.__getitem__, default=None)
        numbers[key] = None if worst is None else values[worst]
        variable = "" if worst is None else laws[worst].get(f"{key}_variable", "")
        numbers[f"{key}_variable"] = "" if worst is None else f"{worst}: {variable}"
    for key, worst_of in (("divergences", sum), ("treedepth_share", max), ("bfmi", min)):
        known = [law[key] for law in laws.values() if law.get(key) is not None]
        numbers[key] = worst_of(known) if known else None
    return numbers


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
