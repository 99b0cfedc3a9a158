"""A term that is not part of the package, in one file: the student's outer exponent depends on the teacher's loss.

gamma_S is replaced by gamma_S (1 + eta ln(L_T / 2.3)). `test_new_term.py` uses it with every part of the package.
"""

from __future__ import annotations

from typing import Any

from bayesdistill import Coordinate, Parameter, Prior, Term
from bayesdistill.law.formulas import log


def _excess(log_excess: Any, student: Any, teacher_loss: Any, log_ratio: Any, p: Any) -> Any:
    return log_excess + p["eta"] * log(teacher_loss / 2.3) * student.log_term


TEACHER_EXPONENT = Term(
    name="teacher_exponent",
    sentence="The student's outer exponent changes with the logarithm of the teacher's loss.",
    parameters=(
        Parameter(
            "eta",
            "1",
            "change of the student's outer exponent with the teacher's loss",
            "The outer exponent is gamma_S (1 + eta ln(L_T / 2.3)).",
            neutral=0.0,
        ),
    ),
    coordinates=(
        Coordinate(
            "eta",
            "how the student's outer exponent depends on the teacher",
            Prior(0.0, 0.5, "eta ~ Normal(0, 0.5)", "a teacher worse by 10% changes the exponent by up to 10%"),
            symbol="eta",
        ),
    ),
    excess=_excess,
)
