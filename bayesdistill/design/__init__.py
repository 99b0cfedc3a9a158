"""Which run to make next: what candidate runs are worth for a decision, and other ways to choose them.

Nothing here samples or refits: the draws of the posterior are reweighted by what a run could show.
"""

from bayesdistill.design._information_order import cheapest_first, information_order, random_order
from bayesdistill.design._next_runs import next_runs
from bayesdistill.design.candidates import run_costs

__all__ = ["cheapest_first", "information_order", "next_runs", "random_order", "run_costs"]
