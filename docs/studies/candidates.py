"""The models that explanation/choice_of_model.md compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import baselines

from bayesdistill.criticism._leave_out import Predictor
from bayesdistill.law import LAWS, Law


@dataclass(frozen=True)
class Candidate:
    """Model to score: a law with prior settings, or a baseline.

    Parameters
    ----------
    law : Law or callable
        A law or a baseline.
    prior_settings : mapping
        Keyword arguments of `priors.default_priors`: tolerance, asymptotic_width.
    """

    law: Law | Predictor
    prior_settings: Mapping[str, Any] = field(default_factory=dict)


def candidate_models() -> dict[str, Candidate]:
    """Return the models under the names of the page."""
    plain = LAWS["busbridge2025"]
    weak = plain.with_terms("weak_teachers")
    soft = weak.with_terms("soft_targets")
    reducible = soft.with_terms("reducible_ratio").with_fixed(omega=1.0)
    tied = plain.with_terms("tied_exponents", "weak_teachers", "soft_targets", "reducible_ratio").with_fixed(omega=1.0)
    effects = ("student", "student_slope")
    free, wide = {"asymptotic_width": None}, {"asymptotic_width": 0.02}
    with_effects = "student effects and slopes"
    found: dict[str, Candidate | Law] = {
        "eq. 8": plain,
        "eq. 8, no asymptotic prior": Candidate(plain, free),
        "eq. 8, student effects": plain.with_effects("student"),
        "weak teachers": weak,
        "weak teachers, no asymptotic prior": Candidate(weak, free),
        "weak teachers, noise by r": weak.with_residual_noise("ratio"),
        "weak teachers, noise by D_S": weak.with_residual_noise("tokens"),
        "weak teachers, student effects": weak.with_effects("student"),
        f"weak teachers, {with_effects}": weak.with_effects(*effects),
        f"weak teachers, {with_effects}, no asymptotic prior": Candidate(weak.with_effects(*effects), free),
        "weak teachers, teacher effects": weak.with_effects("teacher"),
        "weak teachers, both effects": weak.with_effects("teacher", "student"),
        "soft targets": soft,
        f"soft targets, {with_effects}": soft.with_effects(*effects),
        f"soft targets, {with_effects}, no asymptotic prior": Candidate(soft.with_effects(*effects), free),
        f"reducible ratio alone, {with_effects}": weak.with_terms("reducible_ratio")
        .with_fixed(omega=1.0)
        .with_effects(*effects),
        f"reducible ratio, {with_effects}": reducible.with_effects(*effects),
        f"reducible ratio, {with_effects}, omega free": reducible.with_fixed(omega=None).with_effects(*effects),
        "tied exponents": tied,
        "tied exponents, teacher effects": tied.with_effects("teacher"),
        "tied exponents, student effects": tied.with_effects("student"),
        f"tied exponents, {with_effects}": tied.with_effects(*effects),
        f"tied exponents, {with_effects}, noise by r": tied.with_effects(*effects).with_residual_noise("ratio"),
        f"tied exponents, {with_effects}, noise by D_S": tied.with_effects(*effects).with_residual_noise("tokens"),
        f"tied exponents, {with_effects}, asymptotic width 0.02": Candidate(tied.with_effects(*effects), wide),
        f"tied exponents, {with_effects}, no asymptotic prior": Candidate(tied.with_effects(*effects), free),
        f"tied exponents, {with_effects}, published law within 0.0011": Candidate(
            tied.with_effects(*effects), {"tolerance": 0.0011}
        ),
        f"tied exponents, {with_effects}, published law within 0.011": Candidate(
            tied.with_effects(*effects), {"tolerance": 0.011}
        ),
        "tied exponents, all effects": tied.with_effects("teacher", *effects),
        "no capacity gap": plain.without_terms("capacity_gap"),
        "Huber point fit": Candidate(baselines.point),
        "bootstrap": Candidate(baselines.bootstrap),
    }
    return {name: one if isinstance(one, Candidate) else Candidate(one) for name, one in found.items()}
