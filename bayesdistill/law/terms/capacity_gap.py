r"""The capacity gap, (1 + (r/d1)^(1/f1))^(-c1 f1), and its coordinates.

For large c1 only c1 f1 d1^(-1/f1) matters, so c1 and d1 are nearly degenerate. The coordinates describe
:math:`G(r) = c_1 f_1 \ln(1 + u r^{1/f_1})`, :math:`u = d_1^{-1/f_1}`, for a teacher no better than the student of the
reference run pretrained on its tokens (r = 1 in equation 8): its strength s = G, the power n = d ln G / d ln L_T, and u itself,
which measures how far the gap is from a pure power of r (u = 0, where f1 = 1/n).
"""

from __future__ import annotations

from typing import Any

from bayesdistill.law.formulas import exp, log, log1p, log_gap, softplus
from bayesdistill.law.parameters import declared
from bayesdistill.law.term import AtReference, Student, Term, Values

CURVATURE_SCALE = 0.03
"""u = CURVATURE_SCALE softplus(gap_curvature): above about 0.03 the gap visibly bends away from a power of r."""


def _symbols(c: Values, p: Values, at: AtReference) -> dict[str, Any]:
    u = CURVATURE_SCALE * softplus(c["gap_curvature"])
    strength, power = exp(c["log_gap_strength"]), exp(c["log_gap_power"]) / at.student.stretch
    f1 = u / ((1 + u) * log1p(u)) / power
    return {"c1": strength / (f1 * log1p(u)), "d1": exp(at.log_ratio_alone - f1 * log(u)), "f1": f1}


def _coordinates_of(p: Values, at: AtReference) -> dict[str, Any]:
    u = exp((at.log_ratio_alone - log(p["d1"])) / p["f1"])
    # softplus^-1(y) = log(e^y - 1), which for small y is log(y) + y/2.
    scaled = u / CURVATURE_SCALE
    return {
        "log_gap_strength": log(p["c1"] * p["f1"] * log1p(u)),
        "log_gap_power": log(u / ((1 + u) * log1p(u)) / p["f1"]) + log(at.student.stretch),
        "gap_curvature": log(scaled) + log((exp(scaled) - 1) / scaled),
    }


def _excess(log_excess: Any, student: Student, teacher_loss: Any, log_ratio: Any, p: Values) -> Any:
    return log_excess + log_gap(log_ratio, c1=p["c1"], d1=p["d1"], f1=p["f1"])


CAPACITY_GAP = Term(**declared("capacity_gap"), symbols=_symbols, coordinates_of=_coordinates_of, excess=_excess)
