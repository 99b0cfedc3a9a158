"""Reducible ratio: the capacity gap and the power of L_T compare losses above omega E.

Equation 8 compares losses (omega = 0). The entropy of text is the same for teacher and student, so that omega = 1 compares
what either can still learn. See `formulas.log_ratio` for teachers below omega E.
"""

from __future__ import annotations

from typing import Any

from bayesdistill.law.parameters import Coordinate, Parameter, normal
from bayesdistill.law.term import Term, Values


def _irreducible(loss: Any, p: Values) -> Any:
    return p["omega"] * p["E"]


REDUCIBLE_RATIO = Term(
    name="reducible_ratio",
    sentence="The capacity gap and the power of the teacher's loss compare losses above omega E; equation 8 is omega = 0.",
    parameters=(
        Parameter(
            "omega",
            "1",
            "fraction of the irreducible loss that is subtracted from the losses that are compared",
            "The capacity gap and the power of the teacher's loss compare losses above omega E.",
            neutral=0.0,
            domain="fraction",
        ),
    ),
    coordinates=(
        Coordinate(
            "logit_omega",
            "how much of the irreducible loss is subtracted from the losses that are compared",
            normal(
                2.0,
                1.5,
                "logit(omega)",
                "the entropy of text is the same for teacher and student, so that what either can still learn is compared (1), but"
                " equation 8 compares losses (0): 0.27 to 0.993",
            ),
            symbol="omega",
            link="logit",
        ),
    ),
    irreducible=_irreducible,
)
