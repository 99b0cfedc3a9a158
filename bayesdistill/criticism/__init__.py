"""Criticism of a fit: convergence, and the law beside its runs."""

from __future__ import annotations

from bayesdistill.criticism.convergence import Check, check
from bayesdistill.criticism.curves import law_curves
from bayesdistill.criticism.unseen_groups import candidate_models, leave_out, score_table

__all__ = ["Check", "candidate_models", "check", "law_curves", "leave_out", "score_table"]
