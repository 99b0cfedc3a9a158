"""Weak teachers: when the teacher is worse than the student would be on its own, the student recovers a fraction w1 of the
resulting loss increase. Equation 8 (w1 = 0) cannot go below L_T.
"""

from __future__ import annotations

import math
from typing import Any

from bayesdistill.law.parameters import Coordinate, Parameter, Prior
from bayesdistill.law.term import Student, Term, Values


def _floor(loss: Any, student: Student, teacher_loss: Any, p: Values) -> Any:
    worse = teacher_loss - student.supervised
    return loss - p["w1"] * (worse + abs(worse)) / 2


WEAK_TEACHERS = Term(
    name="weak_teachers",
    sentence="When the teacher is worse than the student would be on its own, the student recovers a fraction w1 of the "
    "resulting loss increase; equation 8 is w1 = 0.",
    parameters=(
        Parameter(
            "w1",
            "1",
            "fraction of a weak teacher's cost that the student recovers",
            "When the teacher is worse than the student would be on its own, the student recovers this fraction of "
            "max(L_T - Lsup, 0).",
            neutral=0.0,
            domain="fraction",
            # With unlimited data the best teacher is no worse than the student, so that w1 has no effect on the best loss.
            unlimited=0.0,
        ),
    ),
    coordinates=(
        Coordinate(
            "logit_w1",
            "what students recover of a weak teacher's cost",
            Prior(
                math.log(0.05 / 0.95),
                1.5,
                "logit(w1) ~ Normal(logit 0.05, 1.5)",
                "fraction of max(L_T - Lsup, 0) that a student recovers: from none (equation 8) to half of it",
            ),
            symbol="w1",
            link="logit",
        ),
    ),
    floor=_floor,
)
