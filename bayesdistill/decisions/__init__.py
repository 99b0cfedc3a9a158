"""From a posterior to predictions and decisions: predict, plan, crossovers, teachers, sharing, value, families, recommendations.

Nothing here samples. Every function takes a fit (or a Dataset of draws), checks its arguments, and returns a labelled
Dataset; the strategies themselves come from `strategies`.
"""

from bayesdistill.decisions._predict import predict
from bayesdistill.decisions.advice import paper_claims, recommendations
from bayesdistill.decisions.families import family_plan
from bayesdistill.decisions.labels import flag_names
from bayesdistill.decisions.overtaking import compare_crossovers, crossovers
from bayesdistill.decisions.planning import plan
from bayesdistill.decisions.scarcity import plan_tokens
from bayesdistill.decisions.sharing import break_even, sharing_map
from bayesdistill.decisions.teachers import capacity_gap, teacher_choice
from bayesdistill.decisions.value import evppi, plan_value

__all__ = [
    "break_even",
    "capacity_gap",
    "compare_crossovers",
    "crossovers",
    "evppi",
    "family_plan",
    "flag_names",
    "paper_claims",
    "plan",
    "plan_tokens",
    "plan_value",
    "predict",
    "recommendations",
    "sharing_map",
    "teacher_choice",
]
