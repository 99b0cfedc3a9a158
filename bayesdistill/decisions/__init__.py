"""Decisions from a posterior: plans, crossovers, teachers, sharing, value of information, families, recommendations.

The functions do not sample. Each takes a fit (or a Dataset of draws), checks its arguments, and returns a labeled Dataset.
The `strategies` subpackage computes the strategies.
"""

from bayesdistill.decisions._add_student import add_student
from bayesdistill.decisions._break_even import break_even, sharing_map
from bayesdistill.decisions._compute_optimal import compute_optimal
from bayesdistill.decisions._crossovers import compare_crossovers, crossovers
from bayesdistill.decisions._evppi import evppi, plan_value
from bayesdistill.decisions._family_plan import family_plan
from bayesdistill.decisions._lifetime import lifetime
from bayesdistill.decisions._plan import plan
from bayesdistill.decisions._plan_tokens import plan_tokens
from bayesdistill.decisions._predict import predict
from bayesdistill.decisions._recommendations import paper_claims, recommendations
from bayesdistill.decisions._student_choice import student_choice
from bayesdistill.decisions._target_loss import target_loss
from bayesdistill.decisions._teacher_choice import capacity_gap, teacher_choice
from bayesdistill.decisions.labels import flag_names
from bayesdistill.decisions.planning import Planner

__all__ = [
    "Planner",
    "add_student",
    "break_even",
    "capacity_gap",
    "compare_crossovers",
    "compute_optimal",
    "crossovers",
    "evppi",
    "family_plan",
    "flag_names",
    "lifetime",
    "paper_claims",
    "plan",
    "plan_tokens",
    "plan_value",
    "predict",
    "recommendations",
    "sharing_map",
    "student_choice",
    "target_loss",
    "teacher_choice",
]
