"""Soft targets: one distillation token improves the student's ability as much as kappa pretraining tokens.

r = L_T / Lsup(N_S, kappa D_S); equation 8 is kappa = 1. With unlimited data kappa has no effect.
"""

from __future__ import annotations

from typing import Any

from bayesdistill.law.parameters import Coordinate, Parameter, normal
from bayesdistill.law.term import Term, Values


def _ability_tokens(tokens: Any, p: Values) -> Any:
    return p["kappa"] * tokens


SOFT_TARGETS = Term(
    name="soft_targets",
    sentence="One distillation token improves the student as much as kappa pretraining tokens: r compares the teacher with "
    "Lsup(N_S, kappa D_S); equation 8 is kappa = 1.",
    parameters=(
        Parameter(
            "kappa",
            "1",
            "pretraining tokens that one distillation token is worth to the student's ability",
            "One distillation token improves the student as much as kappa pretraining tokens.",
            neutral=1.0,
            domain="positive",
            unlimited=1.0,
        ),
    ),
    coordinates=(
        Coordinate(
            "log_kappa",
            "how many pretraining tokens one distillation token is worth",
            normal(
                0.0,
                1.0,
                "ln(kappa)",
                "a token with the teacher's distribution is worth 0.14 to 7 tokens of text to the student's ability; 1 is equation 8",
            ),
            symbol="kappa",
            link="log",
        ),
    ),
    ability_tokens=_ability_tokens,
)
