"""Criticism of a fit: convergence, and the law beside its runs."""

from __future__ import annotations

from bayesdistill.criticism.convergence import Check, check
from bayesdistill.criticism.curves import law_curves

__all__ = ["Check", "check", "law_curves"]
