"""Criticism of a fit: convergence, and the law beside its runs."""

from __future__ import annotations

from bayesdistill.criticism.backtesting import backtest
from bayesdistill.criticism.calibration import simulate_calibration
from bayesdistill.criticism.calibration_summaries import decision_calibration, rank_uniformity
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
    "decision_calibration",
    "law_curves",
    "leave_out",
    "prior_dominated",
    "rank_uniformity",
    "score_table",
    "simulate_calibration",
]
