"""Soft targets: one distillation token improves the student's ability as much as kappa pretraining tokens.

r = L_T / Lsup(N_S, kappa D_S); equation 8 is kappa = 1. With unlimited data kappa has no effect.
"""

from __future__ import annotations

from typing import Any

from bayesdistill.law.parameters import declared
from bayesdistill.law.term import Term, Values


def _ability_tokens(tokens: Any, p: Values) -> Any:
    return p["kappa"] * tokens


SOFT_TARGETS = Term(**declared("soft_targets"), ability_tokens=_ability_tokens)
