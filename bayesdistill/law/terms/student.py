r"""The student term, L_T^-c0 (A_S / N_S^alpha_S + B_S / D_S^beta_S)^gamma_S, and its coordinates.

The coordinates of the power sum are its exponents, its share of size, and log_excess_S, the logarithm of L_S - L_T at the
reference run. teacher_power is the power of L_T at the reference run (c0 in equation 8).
"""

from __future__ import annotations

from typing import Any

from bayesdistill.law.formulas import log_student_term
from bayesdistill.law.parameters import declared
from bayesdistill.law.term import AtReference, Student, Term, Values
from bayesdistill.law.terms.supervised import SUM, log_sum_terms, power_sum

SUM_COORDINATES = ("share_S", "log_alpha_S", "log_beta_S", "log_gamma_S")


def _symbols(c: Values, p: Values, at: AtReference) -> dict[str, Any]:
    return {"c0": c["teacher_power"] / at.student.stretch}


def _coordinates_of(p: Values, at: AtReference) -> dict[str, Any]:
    return {"teacher_power": p["c0"] * at.student.stretch}


def log_term_at_reference(c: Values, p: Values, at: AtReference) -> Any:
    """Logarithm of the power sum to the power gamma_S at the reference run."""
    return c["log_excess_S"] - at.others + p["c0"] * (at.student.log_above + at.log_ratio)


def log_excess_at_reference(p: Values, at: AtReference) -> Any:
    """Logarithm of L_S - L_T at the reference run, the coordinate log_excess_S."""
    own = {f"{name}_S": p[f"{name}_S"] for name in SUM}
    log_term = log_student_term(at.reference.params, at.reference.tokens, **own)
    return log_term + at.others - p["c0"] * (at.student.log_above + at.log_ratio)


def _sum_symbols(c: Values, p: Values, at: AtReference) -> dict[str, Any]:
    found = power_sum(log_term_at_reference(c, p, at), c["share_S"], p["gamma_S"])
    return {"A_S": found["A"], "B_S": found["B"]}


def _sum_coordinates(p: Values, at: AtReference) -> dict[str, Any]:
    size, data = log_sum_terms({name: p[f"{name}_S"] for name in SUM}, at.reference)
    return {"log_excess_S": log_excess_at_reference(p, at), "share_S": size - data}


def _student_excess(log_excess: Any, student: Student, p: Values) -> Any:
    return log_excess + (student.log_term - p["c0"] * student.log_above)


def _excess(log_excess: Any, student: Student, teacher_loss: Any, log_ratio: Any, p: Values) -> Any:
    return log_excess - p["c0"] * log_ratio


STUDENT = Term(
    **declared("student"),
    symbols=_symbols,
    coordinates_of=_coordinates_of,
    sum_symbols=_sum_symbols,
    sum_coordinates=_sum_coordinates,
    student_excess=_student_excess,
    excess=_excess,
)
