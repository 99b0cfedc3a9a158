"""Criticism of a fit: convergence, and the law beside its runs."""

from __future__ import annotations

from bayesdistill.criticism.backtesting import backtest
from bayesdistill.criticism.calibration import simulate_calibration
from bayesdistill.criticism.calibration_summaries import decision_calibration, rank_ecdf, rank_uniformity
from bayesdistill.criticism.comparing import compare_fits
from bayesdistill.criticism.convergence import Check, check
from bayesdistill.criticism.curves import law_curves
from bayesdistill.criticism.leaving_one import compare_loo, loo
from bayesdistill.criticism.predictive import posterior_predictive, prior_predictive
from bayesdistill.criticism.prior_power import prior_sensitivity
from bayesdistill.criticism.prior_width import PRIOR_SHARE, prior_dominated
from bayesdistill.criticism.residuals import residual_structure
from bayesdistill.criticism.unseen_groups import candidate_models, leave_out, score_table
from bayesdistill.criticism.unseen_summary import unseen_scores

__all__ = [
    "PRIOR_SHARE",
    "Check",
    "backtest",
    "candidate_models",
    "check",
    "compare_fits",
    "compare_loo",
    "decision_calibration",
    "law_curves",
    "leave_out",
    "loo",
    "posterior_predictive",
    "prior_dominated",
    "prior_predictive",
    "prior_sensitivity",
    "rank_ecdf",
    "rank_uniformity",
    "residual_structure",
    "score_table",
    "simulate_calibration",
    "unseen_scores",
]
