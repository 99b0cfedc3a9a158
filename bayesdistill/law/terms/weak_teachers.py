"""Weak teachers: when the teacher is worse than the student would be on its own, the student recovers a fraction w1 of the
resulting loss increase. Equation 8 (w1 = 0) cannot go below L_T.
"""

from __future__ import annotations

from typing import Any

from bayesdistill.law.parameters import declared
from bayesdistill.law.term import Student, Term, Values


def _floor(loss: Any, student: Student, teacher_loss: Any, p: Values) -> Any:
    worse = teacher_loss - student.supervised
    return loss - p["w1"] * (worse + abs(worse)) / 2


WEAK_TEACHERS = Term(**declared("weak_teachers"), floor=_floor)
