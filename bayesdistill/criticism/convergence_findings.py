"""Findings of `check` about convergence; `posterior.convergence` computes the diagnostics and defines the thresholds."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from bayesdistill import posterior
from bayesdistill.criticism.findings import Finding, number
from bayesdistill.law.forms import coordinate_description
from bayesdistill.posterior import Fit
from bayesdistill.sampling.nuts import SETTINGS

_LABELS = {
    "rhat": "largest R-hat",
    "ess_bulk": "smallest bulk ESS",
    "ess_tail": "smallest tail ESS",
    "divergences": "number of divergent transitions",
    "treedepth_share": "fraction of truncated trajectories",
    "bfmi": "smallest E-BFMI",
}
_MOST_DRAWS = 10_000
"""Most draws that are suggested; a sampler that requires more has another problem."""


def convergence_findings(fit: Fit, numbers: dict[str, Any]) -> tuple[Finding, ...]:
    """Return one finding for every threshold.

    Parameters
    ----------
    fit : DataTree or Dataset
    numbers : dict
        Result of `posterior.convergence`.
    """
    found = []
    problems = _problems(fit, numbers)
    for limit, threshold in numbers["thresholds"].items():
        kind, key = limit.split("_", 1)
        value, variable = numbers[key], numbers.get(f"{key}_variable")
        failed = key in numbers["failed"]
        text = ("undefined" if failed else "unknown") if value is None else number(value)
        found.append(
            Finding(
                _LABELS[key],
                f"{text} ({_described(fit, variable)})" if variable else text,
                f"{'<=' if kind == 'max' else '>='} {threshold:g}" if threshold else "0" if kind == "max" else ">= 0",
                "FAILED" if failed else "unknown" if value is None else "ok",
                problems[key] if failed else "",
            )
        )
    if "pareto_k" in numbers:
        failed = "pareto_k" in numbers["failed"]
        value = "infinite" if numbers["pareto_k"] is None else number(numbers["pareto_k"])
        found.append(
            Finding(
                "Pareto k of the importance weights of new runs",
                value,
                f"<= {posterior.GOOD_K}",
                "FAILED" if failed else "ok",
                f"Too few draws agree with the new runs. {_advice(fit, numbers)}" if failed else "",
            )
        )
    return tuple(found)


def _described(fit: Fit, name: str) -> str:
    """Return the name of a variable or coordinate with its description; for a mixture, `name` starts with the name of a law."""
    variable = posterior.posterior_dataset(fit).get(name.rpartition(": ")[2])
    text = coordinate_description(name) if variable is None else variable.attrs.get("long_name", "")
    return f"{name}: {text}" if text and text != name.replace("_", " ") else name


def _problems(fit: Fit, numbers: dict[str, Any]) -> dict[str, str]:
    """Return what each failed diagnostic indicates and what to do about it; equal sentences are shown once."""
    advice, variable = _advice(fit, numbers), _described(fit, numbers["rhat_variable"])
    if numbers["chains"] == 1:
        apart = f"The two halves of the chain disagree about {variable}. Sample four chains (chains=4)."
    else:
        apart = f"The chains disagree about {variable}. {advice}"
    # Chains that disagree have a small effective sample size for the same reason.
    few = apart if "rhat" in numbers["failed"] else f"The effective sample size is too small. {advice}"
    return {
        "rhat": apart,
        "ess_bulk": few,
        "ess_tail": few,
        "divergences": f"The sampler reported divergent transitions. {advice}",
        "treedepth_share": f"Trajectories reached the maximum tree depth. {advice}",
        "bfmi": f"The sampler explores the energy slowly. {advice}",
    }


def _advice(fit: Fit, numbers: dict[str, Any]) -> str:
    """Return what to do about draws that fail."""
    origin = posterior.provenance(fit)
    settings, last = origin.get("settings", {}), SETTINGS[-1]
    if "updates" in origin:
        return "Refit all runs: bd.update(fit, new_runs, refit=True)."
    if not settings or numbers["thresholds"] != asdict(posterior.THRESHOLDS):
        # Draws that would give 1.5 times the required effective sample size, if it is proportional to them.
        limits, tune = numbers["thresholds"], settings.get("tune", 1000)
        short = max(limits[f"min_{key}"] / max(numbers[key] or 1.0, 1.0) for key in ("ess_bulk", "ess_tail"))
        draws = 500 * math.ceil(max(2.0, 1.5 * short) * numbers["draws"] / 500)
        accept = ", target_accept=0.99" if "divergences" in numbers["failed"] else ""
        return f"Sample longer (tune={2 * tune}, draws={min(draws, _MOST_DRAWS)}{accept})."
    if posterior.corpus_conflict(fit):
        return "Resolve the conflict first."
    if any(settings.get(name, 0) < last[name] for name in ("draws", "tune", "target_accept")):
        return (
            "Fit without the arguments draws, tune and target_accept: `bd.fit` then increases them until the draws pass, up to "
            f"draws={last['draws']}, tune={last['tune']}, target_accept={last['target_accept']}."
        )
    if origin.get("asymptotic_width") is not None:
        return (
            "More draws will not help: the prior on distillation with unlimited data is narrow compared with what the runs leave "
            "undetermined. Fit without it (asymptotic_width=None), or add runs of other teachers and students."
        )
    return "More draws will not help: the runs do not determine the law. Add runs of other sizes, tokens or teachers."
