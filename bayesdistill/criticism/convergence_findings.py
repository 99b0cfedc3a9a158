"""Findings of `check` about convergence; `posterior.convergence` computes the diagnostics and defines the thresholds."""

from __future__ import annotations

import math
from typing import Any

from bayesdistill.criticism.findings import Finding, number

_LABELS = {
    "rhat": "largest R-hat",
    "ess_bulk": "smallest bulk ESS",
    "ess_tail": "smallest tail ESS",
    "divergences": "number of divergent transitions",
    "treedepth_share": "fraction of truncated trajectories",
    "bfmi": "smallest E-BFMI",
}


def convergence_findings(numbers: dict[str, Any]) -> tuple[Finding, ...]:
    """Return one finding for every threshold.

    Parameters
    ----------
    numbers : dict
        Result of `posterior.convergence`.
    """
    found = []
    for limit, threshold in numbers["thresholds"].items():
        kind, key = limit.split("_", 1)
        value, variable = numbers[key], numbers.get(f"{key}_variable")
        failed = key in numbers["failed"]
        text = ("undefined" if failed else "unknown") if value is None else number(value)
        found.append(
            Finding(
                _LABELS[key],
                f"{text} ({variable})" if variable else text,
                f"{'<=' if kind == 'max' else '>='} {threshold:g}" if threshold else "0" if kind == "max" else ">= 0",
                "FAILED" if failed else "unknown" if value is None else "ok",
                _problem(key, numbers) if failed else "",
            )
        )
    return tuple(found)


def _problem(key: str, numbers: dict[str, Any]) -> str:
    """Return what a failed diagnostic indicates, and what to do about it."""
    if key == "rhat":
        one = numbers["chains"] == 1
        return (
            f"The {'two halves of the chain' if one else 'chains'} disagree about {numbers['rhat_variable']}. Sample "
            f"{'four chains (chains=4)' if one else 'longer (tune=2000, draws=2000)'}."
        )
    if key in ("ess_bulk", "ess_tail"):
        return f"The effective sample size is too small. Increase draws to {_draws(numbers)}."
    return {
        "divergences": "The sampler reported divergent transitions. Increase target_accept to 0.95 or 0.99.",
        "treedepth_share": "Trajectories reached the maximum tree depth. Increase tune, or use the default priors.",
        "bfmi": "The sampler explores the energy slowly. Increase tune, and check for priors with heavy tails.",
    }[key]


def _draws(numbers: dict[str, Any]) -> int:
    """Return draws per chain that give 1.5 times the required effective sample sizes at the same efficiency."""
    limits = numbers["thresholds"]
    short = max(limits[f"min_{key}"] / max(numbers[key] or 1.0, 1.0) for key in ("ess_bulk", "ess_tail"))
    return 500 * math.ceil(1.5 * short * numbers["draws"] / 500)
