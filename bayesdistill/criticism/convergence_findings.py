"""Findings of `check` about convergence; `posterior.convergence` computes the diagnostics and defines the thresholds."""

from __future__ import annotations

import math
from typing import Any

from bayesdistill import posterior
from bayesdistill.criticism.findings import Finding, number
from bayesdistill.posterior import Fit

_LABELS = {
    "rhat": "largest R-hat",
    "ess_bulk": "smallest bulk ESS",
    "ess_tail": "smallest tail ESS",
    "divergences": "number of divergent transitions",
    "treedepth_share": "fraction of truncated trajectories",
    "bfmi": "smallest E-BFMI",
}
_MOST_DRAWS = 10_000
"""Most draws that are suggested; a sampler that needs more has another problem."""


def convergence_findings(fit: Fit, numbers: dict[str, Any]) -> tuple[Finding, ...]:
    """Return one finding for every threshold.

    Parameters
    ----------
    fit : DataTree or Dataset
    numbers : dict
        Result of `posterior.convergence`.
    """
    found = []
    problems = _problems(numbers, posterior.provenance(fit).get("settings", {}).get("tune", 1000))
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
                problems[key] if failed else "",
            )
        )
    return tuple(found)


def _problems(numbers: dict[str, Any], tune: int) -> dict[str, str]:
    """Return what each failed diagnostic indicates and what to do about it; equal sentences are shown once."""
    limits, variable = numbers["thresholds"], numbers["rhat_variable"]
    # Draws that would give 1.5 times the required effective sample size, if it is proportional to them.
    short = max(limits[f"min_{key}"] / max(numbers[key] or 1.0, 1.0) for key in ("ess_bulk", "ess_tail"))
    draws = 500 * math.ceil(max(2.0, 1.5 * short) * numbers["draws"] / 500)
    longer = f"Sample longer (tune={2 * tune}, draws={min(draws, _MOST_DRAWS)})."
    if numbers["chains"] == 1:
        apart = f"The two halves of the chain disagree about {variable}. Sample four chains (chains=4)."
    else:
        apart = f"The chains disagree about {variable}. {longer}"
    # Chains that disagree have a small effective sample size for the same reason.
    few = apart if "rhat" in numbers["failed"] else f"The effective sample size is too small. {longer}"
    return {
        "rhat": apart,
        "ess_bulk": few,
        "ess_tail": few,
        "divergences": "The sampler reported divergent transitions. Sample with target_accept=0.99.",
        "treedepth_share": f"Trajectories reached the maximum tree depth. Sample with tune={2 * tune}.",
        "bfmi": f"The sampler explores the energy slowly. Sample with tune={2 * tune}.",
    }
