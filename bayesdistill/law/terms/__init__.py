"""The terms that laws are composed of, one module each."""

from __future__ import annotations

from bayesdistill.law.terms.capacity_gap import CAPACITY_GAP
from bayesdistill.law.terms.reducible_ratio import REDUCIBLE_RATIO
from bayesdistill.law.terms.soft_targets import SOFT_TARGETS
from bayesdistill.law.terms.student import STUDENT
from bayesdistill.law.terms.supervised import SUPERVISED
from bayesdistill.law.terms.tied_exponents import TIED_EXPONENTS
from bayesdistill.law.terms.weak_teachers import WEAK_TEACHERS

TERMS = {
    term.name: term
    for term in (SUPERVISED, STUDENT, CAPACITY_GAP, TIED_EXPONENTS, WEAK_TEACHERS, SOFT_TARGETS, REDUCIBLE_RATIO)
}
"""Terms of the package by name. A fit with these can be loaded in every session."""
