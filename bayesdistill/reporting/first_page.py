"""The first page of a report: one sentence, one small table and three caveats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import posterior
from bayesdistill.plots.style import power_of_ten, short, signed
from bayesdistill.posterior import Fit

SURE = 0.9
"""Probability above which an option is recommended, with a margin of two Monte Carlo standard errors."""
FAR = 10.0
"""Extrapolation factor above which nothing is recommended."""
_MOST_ROWS = 8
DIGITIZED = "busbridge2025/distilled"
"""Source of the packaged runs, in the provenance of a fit."""
MEANINGS = {
    "best case": "if the teacher's logits are already available",
    "teacher inference": "if the budget includes the teacher's inference",
    "teacher pretraining": "if the budget includes the teacher's pretraining",
    "teacher pretraining + inference": "if the budget includes the teacher's pretraining and inference",
}
"""Cost scenarios in words."""


def meaning(scenario: str) -> str:
    """Return a cost scenario in words."""
    return MEANINGS.get(scenario, f"in the scenario '{scenario}'")


def advice(cell: xr.Dataset) -> str:
    """Return the recommendation for a cell of a plan: distill, pretrain, undetermined or impossible."""
    chance, error = float(cell["probability"]), float(cell["probability_mcse"])
    if np.isnan(chance):
        return "impossible"
    if float(cell["extrapolation"]) > FAR or not bool(cell.get("laws_agree", True)):
        return "undetermined"
    margin = 2 * np.nan_to_num(error)
    return "distill" if chance - margin >= SURE else "pretrain" if 1 - chance - margin >= SURE else "undetermined"


def headline(plan: xr.Dataset) -> str:
    """Return the answer in one sentence: every student at the middle budget, in the first and the last scenario."""
    budget = float(plan["budget"].values[plan.sizes["budget"] // 2])
    scenarios = [str(plan["scenario"].values[place]) for place in sorted({0, plan.sizes["scenario"] - 1})]
    parts = []
    for scenario in scenarios:
        cells = plan.sel(scenario=scenario, budget=budget)
        said: dict[str, list[str]] = {}
        for student in plan["student"].values:
            said.setdefault(advice(cells.sel(student=student)), []).append(short(float(student)))
        firm = [f"{name} {_listed(said[name])}" for name in ("distill", "pretrain") if name in said]
        rest = " and ".join(f"{words} {_listed(said[name])}" for name, words in _OPEN.items() if name in said)
        answer = f"{' and '.join(firm)} ({rest})" if firm and rest else " and ".join(firm) or rest
        parts.append(f"{meaning(scenario)}, {answer}")
    return f"With {power_of_ten(budget)} FLOPs: {'; '.join(parts)}."


_OPEN = {
    "undetermined": "the data do not determine the better option for",
    "impossible": "no strategy fits the budget for",
}


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def rows(plan: xr.Dataset) -> pd.DataFrame:
    """Return at most eight cells of a plan in words, spread over its budgets, in the first and the last scenario."""
    scenarios = sorted({0, plan.sizes["scenario"] - 1})
    students = np.unique(np.linspace(0, plan.sizes["student"] - 1, min(plan.sizes["student"], 4)).round().astype(int))
    count = max(1, min(3, _MOST_ROWS // (len(scenarios) * students.size), plan.sizes["budget"]))
    last = plan.sizes["budget"] - 1
    budgets = np.unique((np.arange(1, count + 1) / (count + 1) * last).round().astype(int))
    found: list[dict[str, Any]] = []
    for student in students:
        for scene in scenarios:
            for budget in budgets:
                cell = plan.isel(student=student, scenario=scene, budget=budget)
                ends = cell["law_range"].values.tolist() if "law_range" in cell else []
                chance = float(cell["probability"])
                known = not np.isnan(chance)
                found.append(
                    {
                        "student": short(float(cell["student"])),
                        "cost scenario": str(cell["scenario"].item()),
                        "budget [FLOPs]": power_of_ten(float(cell["budget"])),
                        "P(distillation is better), range over laws": _chance(chance, ends),
                        "gain [nats]": signed(float(cell["expected_gain"]), 3) if known else "-",
                        "recommendation": advice(cell),
                        "distance from the data": _distance(cell) if known else "-",
                    }
                )
    return pd.DataFrame(found)


def family_rows(family: xr.Dataset) -> pd.DataFrame:
    """Return the plan of every student of a family in words."""
    found = []
    meanings = str(family["decision"].attrs["flag_meanings"]).split()
    decisions = {float(size): meanings[int(family["decision"].sel(student=size))] for size in family["student"].values}
    # A plan that pretrains all is not better than itself.
    same = "distill" not in decisions.values()
    for size in family["student"].values:
        cell = family.sel(student=size, option="plan")
        low, middle, high = cell["loss_quantile"].sel(quantile=[0.05, 0.5, 0.95]).values
        found.append(
            {
                "student": short(float(size)),
                "number": f"{float(cell['count']):g}",
                "decision": decisions[float(size)],
                "tokens": short(float(cell["student_tokens"])),
                "loss [nats], 90% interval": f"{middle:.3f} ({low:.3f} to {high:.3f})",
                "P(better than if all are pretrained)": "-"
                if same
                else posterior.tenths(float(cell["probability_better"])),
                "distance from the data": _distance(cell),
            }
        )
    return pd.DataFrame(found)


def _chance(chance: float, ends: list[float]) -> str:
    if np.isnan(chance):
        return "-"
    words = [posterior.tenths(end) for end in ends]
    return posterior.tenths(chance) + (f" ({words[0]} to {words[1]})" if len({*words}) > 1 else "")


def _times(factor: float) -> str:
    """Write a factor above 1, which is never rounded to 1."""
    return short(factor) if factor >= 100 else f"{max(factor, 1.01):.3g}" if factor < 1.1 else f"{factor:.2g}"


def _distance(cell: xr.Dataset) -> str:
    factor = float(cell["extrapolation"])
    return "inside" if factor == 1 else f"{_times(factor)} times outside" if np.isfinite(factor) else "unknown"


def selection(plan: xr.Dataset, shown: int) -> str:
    """Return a sentence about the cells that the table does not have; empty if it has all."""
    total = plan["probability"].size
    return (
        ""
        if shown == total
        else f"The table has {shown} of the {total} cells of the plan; the others are in tables/plan.md."
    )


def caveats(fit: Fit, plan: xr.Dataset) -> list[str]:
    """Return three limits of the answer in plain words: data, extrapolation and dependence on the law."""
    data = posterior.provenance(fit).get("data", {})
    runs = (
        " and ".join(f"{table['runs']} {kind} runs" for kind, table in sorted(data.items()))
        or "draws without their runs"
    )
    digitized = any(DIGITIZED in str(table.get("source", "")) for table in data.values())
    source = (
        "; the distilled ones were digitized from a figure of Busbridge et al. (2025), arXiv:2502.08606"
        if digitized
        else ""
    )
    first = (
        f"The law was fitted to {runs}{source}. It holds for one corpus, tokenizer and recipe. Equal loss does not mean equal "
        "ability."
    )
    outside = float(plan["extrapolates"].mean())
    factors = plan["extrapolation"].where(np.isfinite(plan["probability"]))
    largest = float(factors.max())
    second = "All cells of the plan are within the range of the data."
    if outside:
        factor = f", by factors of up to {_times(largest)}" if np.isfinite(largest) else ""
        second = (
            f"{100 * outside:.0f}% of the cells of the plan are outside the range of the data{factor}. Their answers are "
            "extrapolations and depend on the form of the law and on the priors."
        )
    third = (
        "The probabilities are posterior probabilities under one law. Other laws that predict as well can give other "
        "probabilities."
    )
    if "law_range" in plan:
        width = (plan["law_range"].sel(bound="upper") - plan["law_range"].sel(bound="lower")).max()
        split = int((~plan["laws_agree"] & np.isfinite(plan["probability"])).sum())
        third = (
            f"Laws that predict equally well give probabilities that differ by up to {float(width):.1f}. In {split} of "
            f"{plan['probability'].size} cells, laws or levels of uncertainty disagree about the better option, so the data do not "
            "determine it."
        )
    return [*posterior.limits_of({**posterior.conflict_attribute(fit), **plan.attrs}), first, second, third]
