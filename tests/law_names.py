"""Names and formulas of the law that several test files use, and posteriors made from bare draws."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bayesdistill.law import LAWS, PUBLISHED, SUPERVISED_SYMBOLS, TERMS, Law, distilled_loss, supervised_loss
from bayesdistill.law.effects import EFFECTS
from bayesdistill.law.forms import ASYMPTOTIC_TEACHERS
from bayesdistill.law.formulas import exp, log, log1p, log_gap, log_ratio, log_student_term, own_scale, softplus

__all__ = [
    "ASYMPTOTIC_TEACHERS",
    "PUBLISHED",
    "distilled_loss",
    "exp",
    "log",
    "log1p",
    "log_gap",
    "log_ratio",
    "log_student_term",
    "own_scale",
    "softplus",
    "supervised_loss",
]

SUPERVISED_PARAMETERS = SUPERVISED_SYMBOLS
LAW_PARAMETERS = LAWS["busbridge2025"].symbols_of_law
DISTILLATION_PARAMETERS = LAW_PARAMETERS[len(SUPERVISED_PARAMETERS) :]
EXTENSIONS = {p.name: p.neutral for term in TERMS.values() for p in term.parameters if p.neutral is not None}
EXTENSION_PARAMETERS = tuple(EXTENSIONS)


EXTENDED = LAWS["busbridge2025"].with_terms("weak_teachers", "soft_targets", "reducible_ratio")


def asymptotic_advantage(params: Any, *, omega: Any = 0.0, **symbols: Any) -> Any:
    """`Law.asymptotic_advantage` of equation 8 with a reducible ratio."""
    return EXTENDED.asymptotic_advantage(params, {**symbols, "omega": omega})


def law_with(names: Iterable[str]) -> Law:
    """Equation 8 with the terms and group effects whose symbols are among these names."""
    names = set(names)
    law = LAWS["busbridge2025"].with_terms(
        *(t for t in TERMS.values() if {p.name for p in t.parameters if p.neutral is not None} & names)
    )
    law = law.with_effects(*(effect for effect in EFFECTS.values() if effect.scale.name in names))
    for form in ("ratio", "tokens"):
        law = law.with_residual_noise(form) if f"noise_{form}" in names else law
    return law.for_runs(distilled="c0" in names, supervised="sigma_supervised" in names or "c0" not in names)
