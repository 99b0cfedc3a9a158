"""Reducible ratio: the capacity gap and the power of L_T compare losses above omega E.

Equation 8 compares losses (omega = 0). The entropy of text is the same for teacher and student, so omega = 1 compares
reducible losses. See `formulas.log_ratio` for teachers below omega E.
"""

from __future__ import annotations

from typing import Any

from bayesdistill.law.parameters import declared
from bayesdistill.law.term import Term, Values


def _irreducible(loss: Any, p: Values) -> Any:
    return p["omega"] * p["E"]


REDUCIBLE_RATIO = Term(**declared("reducible_ratio"), irreducible=_irreducible)
