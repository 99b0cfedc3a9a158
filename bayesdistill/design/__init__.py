"""Design of experiments: the value of candidate runs for a decision, and other criteria to order them.

The functions do not sample or refit. They reweight the posterior draws by the likelihood of possible outcomes.
"""

from bayesdistill.design._information_order import cheapest_first, information_order, random_order
from bayesdistill.design._next_runs import next_runs
from bayesdistill.design._next_supervised_runs import next_supervised_runs
from bayesdistill.design.candidates import run_costs

__all__ = ["cheapest_first", "information_order", "next_runs", "next_supervised_runs", "random_order", "run_costs"]
