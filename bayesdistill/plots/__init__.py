"""Figures of plans, curves and runs. Every function takes a Dataset, returns a Figure, and computes nothing.

One file per figure; `style` holds sizes, colours and layout, `grids` what figures over student, scenario, budget share.
"""

from bayesdistill.plots.best_loss import plot_best_loss
from bayesdistill.plots.probability import plot_probability
from bayesdistill.plots.runs import plot_runs

__all__ = ["plot_best_loss", "plot_probability", "plot_runs"]
