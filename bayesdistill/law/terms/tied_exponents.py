"""Student exponents tied to the exponents of the supervised law.

alpha_S = alpha, beta_S = beta, and size and tokens have the shares that they have in the student's ability. Of the four
coordinates of the student's power sum one is left, the logarithm of gamma_S / gamma: the excess is a power of the student's own
reducible loss, times a function of the teacher.
"""

from __future__ import annotations

from typing import Any

from bayesdistill.law.formulas import exp, log
from bayesdistill.law.parameters import declared
from bayesdistill.law.term import AtReference, Term, Values
from bayesdistill.law.terms.student import SUM_COORDINATES, log_excess_at_reference, log_term_at_reference


def _sum_symbols(c: Values, p: Values, at: AtReference) -> dict[str, Any]:
    gamma = exp(c["log_power_S"]) * p["gamma"]
    # The student's ability may count its tokens differently (soft_targets). The symbols are in units of the reference run.
    tokens = p["B"] * exp(-p["beta"] * log(at.student.ability_tokens))
    multiple = exp(log_term_at_reference(c, p, at) / gamma - log(p["A"] + tokens))
    return {
        "A_S": multiple * p["A"],
        "B_S": multiple * tokens,
        "alpha_S": p["alpha"],
        "beta_S": p["beta"],
        "gamma_S": gamma,
    }


def _sum_coordinates(p: Values, at: AtReference) -> dict[str, Any]:
    return {"log_excess_S": log_excess_at_reference(p, at), "log_power_S": log(p["gamma_S"] / p["gamma"])}


TIED_EXPONENTS = Term(
    **declared("tied_exponents"),
    replaces=SUM_COORDINATES,
    determines=("alpha_S", "beta_S"),
    sum_symbols=_sum_symbols,
    sum_coordinates=_sum_coordinates,
)
