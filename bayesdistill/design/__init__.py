"""Which run to make next: what candidate runs are worth for a decision, and other ways to choose them.

Nothing here samples or refits: the draws of the posterior are reweighted by what a run could show.
"""

from bayesdistill.design.candidates import run_costs
from bayesdistill.design.choosing import next_runs
from bayesdistill.design.orders import cheapest_first, information_order, random_order

__all__ = ["cheapest_first", "information_order", "next_runs", "random_order", "run_costs"]
