"""What the page knows: thinned draws, the range of each slider, and what must be said about the posterior."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from bayesdistill import posterior
from bayesdistill.compute import SCENARIOS, Shape
from bayesdistill.decisions.arguments import (
    Number,
    check_choice,
    make_bounds,
    parse_number,
    parse_numbers,
    parse_students,
)
from bayesdistill.decisions.evidence import Evidence
from bayesdistill.errors import ParameterError

SCENARIO_TEXTS = {
    "best case": "Teacher and its outputs are already paid for.",
    "teacher inference": "The teacher exists; running it on the student's tokens is charged.",
    "teacher pretraining": "The teacher is trained for K students; its outputs are already paid for.",
    "teacher pretraining + inference": "The teacher is trained for K students, and each pays for running it.",
}
_STEPS = (1, 1.5, 2, 3, 4, 5, 6, 8)
_FEWEST_DRAWS = 20


@dataclass(frozen=True)
class Settings:
    """What may be asked of the page, as `interactive_page` takes it."""

    students: Sequence[Number]
    budgets: Sequence[Number]
    max_students_per_teacher: int
    scenario: str
    draws: int
    min_teacher_params: Number
    max_teacher_params: Number
    max_teacher_tokens: Number
    max_student_tokens: Number | None
    shape: Shape


def page_data(evidence: Evidence, settings: Settings) -> dict[str, Any]:
    """Everything that goes into the page, as JSON can hold it."""
    check_choice(settings.scenario, "scenario", tuple(SCENARIOS))
    students = _two_ends(parse_students(list(settings.students)), "students")
    budgets = _two_ends(parse_numbers(list(settings.budgets), "budgets"), "budgets")
    bounds = make_bounds(
        settings.min_teacher_params,
        settings.max_teacher_params,
        settings.max_teacher_tokens,
        settings.max_student_tokens,
    )
    chosen = thinned(evidence.size, settings.draws)
    law = {name: values[chosen] for name, values in evidence.draws.items()}
    broken = [name for name, values in law.items() if not np.isfinite(values).all()]
    if broken:
        raise ParameterError(f"fit: draws of {', '.join(broken)} are not finite; see check(fit) and fit again")
    return {
        "draws": {name: values.tolist() for name, values in law.items()},
        "shape": {"k1": settings.shape.k1, "k2": settings.shape.k2},
        "bounds": {
            "min_teacher_params": bounds.min_teacher_params,
            "max_teacher_params": bounds.max_teacher_params,
            "min_teacher_tokens": bounds.min_teacher_tokens,
            "max_teacher_tokens": bounds.max_teacher_tokens,
            "max_student_tokens": bounds.max_student_tokens if math.isfinite(bounds.max_student_tokens) else None,
        },
        "ranges": evidence.ranges,
        "students": students,
        "budgets": budgets,
        "shared": sharing_steps(settings.max_students_per_teacher),
        "scenarios": [
            {"name": name, "delta_lgt": s.delta_lgt, "delta_pre": s.delta_pre, "text": SCENARIO_TEXTS[name]}
            for name, s in SCENARIOS.items()
        ],
        "start": {
            "student": _middle(students, 1e9),
            "budget": _middle(budgets, math.nan),
            "scenario": settings.scenario,
        },
        "notes": notes(evidence),
        "about": about(evidence, chosen.size, settings),
    }


def thinned(size: int, draws: int) -> np.ndarray:
    """Positions of so many draws, evenly spaced over all chains, or of all of them if there are no more."""
    if isinstance(draws, bool) or not isinstance(draws, int | np.integer) or draws < _FEWEST_DRAWS:
        raise ParameterError(f"draws is {draws!r}; a whole number of at least {_FEWEST_DRAWS} is needed")
    count = min(int(draws), size)
    return np.arange(count) * size // count


def sharing_steps(highest: int) -> list[int]:
    """Whole numbers of students from 1 to the highest, in about equal ratios."""
    if isinstance(highest, bool) or not isinstance(highest, int | np.integer) or highest < 1:
        raise ParameterError(f"max_students_per_teacher is {highest!r}; a whole number of at least 1 is needed")
    decades = range(math.ceil(math.log10(highest)) + 1)
    steps = {int(step * 10**decade) for decade in decades for step in _STEPS}
    return sorted({step for step in steps if step < highest} | {int(highest)})


def _two_ends(values: np.ndarray, argument: str) -> list[float]:
    if values.size != 2:
        raise ParameterError(f"{argument}: the slider needs its two ends, (lowest, highest), not {values.size} values")
    return sorted(values.tolist())


def _middle(ends: list[float], wanted: float) -> float:
    low, high = ends
    return wanted if low <= wanted <= high else math.sqrt(low * high)


def notes(evidence: Evidence) -> list[dict[str, Any]]:
    """Sentences about the posterior that stand on the page whatever is asked."""
    found: list[dict[str, Any]] = []
    if evidence.attrs["converged"] == "no":
        failed = ", ".join(json.loads(evidence.attrs["convergence"])["failed"])
        found.append(
            {"bad": True, "text": f"This posterior did not converge ({failed}); every number here may be wrong."}
        )
    elif evidence.attrs["converged"] != "yes":
        found.append({"bad": False, "text": "Whether the draws behind this page converged is not known."})
    published = json.loads(evidence.attrs["posterior_provenance"]).get("supervised_law") == "published law"
    names = json.loads(evidence.attrs["prior_dominated"])
    found += [{"bad": False, "text": text} for text in posterior.prior_sentences(names, published)]
    return found


def _brief(value: Number) -> str:
    return f"{parse_number(value, 'bound'):g}"


def about(evidence: Evidence, count: int, settings: Settings) -> list[str]:
    """Lines for the foot of the page: draws, data, versions, ranges and bounds."""
    known = json.loads(evidence.attrs["posterior_provenance"])
    lines = [f"{count} of the posterior's {evidence.size} draws, evenly spaced over its chains."]
    for kind, table in sorted((known.get("data") or {}).items()):
        parts = [
            f"Data, {kind}: {table.get('runs', 'unknown number of')} runs",
            f"source {table.get('source', 'unknown')}",
        ]
        lines.append(", ".join([*parts, f"SHA-256 {table.get('sha256', 'unknown')}"]) + ".")
    if not known.get("data"):
        lines.append("Data behind the draws: unknown.")
    seen = "; ".join(
        f"{name.replace('_', ' ')} {low:.4g} to {high:.4g}" for name, (low, high) in evidence.ranges.items()
    )
    if seen:
        lines.append(f"Seen: {seen} (supervised law: {evidence.attrs['supervised_range']}).")
    bounds = f"{_brief(settings.min_teacher_params)} to {_brief(settings.max_teacher_params)} parameters"
    capped = settings.max_student_tokens
    student = "as many as the budget buys" if capped is None else f"at most {_brief(capped)}"
    lines.append(
        f"Teachers: {bounds}, at most {_brief(settings.max_teacher_tokens)} tokens. Student tokens: {student}."
    )
    lines.append("Losses are the law's mean curves, in nats per token; scatter of single runs is left out.")
    made = [f"{name} {number}" for name, number in sorted((known.get("versions") or {}).items())]
    if made:
        lines.append(f"Fit made with {', '.join(made)}; seed {known.get('seed', 'unknown')}.")
    lines.append(f"Page made with bayesdistill {version('bayesdistill')}.")
    lines.append("Law: Busbridge et al., Distillation Scaling Laws, arXiv:2502.08606 (2025).")
    return lines
