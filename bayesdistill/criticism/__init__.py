"""Criticism of a fit: convergence, and the law beside its runs."""

from __future__ import annotations

from bayesdistill.criticism.backtesting import backtest
from bayesdistill.criticism.comparing import compare_fits
from bayesdistill.criticism.convergence import Check, check
from bayesdistill.criticism.curves import law_curves
from bayesdistill.criticism.prior_width import PRIOR_SHARE, prior_dominated
from bayesdistill.criticism.unseen_groups import candidate_models, leave_out, score_table

__all__ = [
    "PRIOR_SHARE",
    "Check",
    "backtest",
    "candidate_models",
    "check",
    "compare_fits",
    "law_curves",
    "leave_out",
    "prior_dominated",
    "score_table",
]
