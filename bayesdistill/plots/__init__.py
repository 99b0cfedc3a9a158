"""Figures of plans, curves and runs. Every function takes a Dataset, returns a Figure, and computes nothing.

One module per figure. `collection` is their skeleton: panels, legend, notes. `visuals` draws into panels and marks what is
extrapolated, `grids` reads results, `style` holds sizes, colors and formats, `layout` and `picture` make the page.
"""

from bayesdistill.plots.add_student import plot_add_student
from bayesdistill.plots.backtest import plot_backtest
from bayesdistill.plots.backtest_runs import plot_backtest_runs
from bayesdistill.plots.best_loss import plot_best_loss
from bayesdistill.plots.break_even import plot_break_even
from bayesdistill.plots.calibration import plot_calibration
from bayesdistill.plots.capacity_gap import plot_capacity_gap
from bayesdistill.plots.compute_optimal import plot_compute_optimal
from bayesdistill.plots.compute_strategy import plot_compute_strategy
from bayesdistill.plots.crossover import plot_crossover
from bayesdistill.plots.error_by_distance import plot_error_by_distance
from bayesdistill.plots.experiment_fixed_student import plot_experiment_fixed_student
from bayesdistill.plots.experiment_fixed_teacher import plot_experiment_fixed_teacher
from bayesdistill.plots.explain import plot_explain
from bayesdistill.plots.family import plot_family
from bayesdistill.plots.information import plot_information
from bayesdistill.plots.lifetime import plot_lifetime
from bayesdistill.plots.loo import plot_loo
from bayesdistill.plots.next_runs import plot_next_runs
from bayesdistill.plots.next_supervised_runs import plot_next_supervised_runs
from bayesdistill.plots.posterior_predictive import plot_posterior_predictive
from bayesdistill.plots.prior_predictive import plot_prior_predictive
from bayesdistill.plots.prior_sensitivity import plot_prior_sensitivity
from bayesdistill.plots.probability import plot_probability
from bayesdistill.plots.residuals import plot_residuals
from bayesdistill.plots.runs import plot_runs
from bayesdistill.plots.sharing_map import plot_sharing_map
from bayesdistill.plots.student_choice import plot_student_choice
from bayesdistill.plots.target_loss import plot_target_loss
from bayesdistill.plots.teacher_choice import plot_teacher_choice
from bayesdistill.plots.unseen_groups import plot_unseen_groups
from bayesdistill.plots.update import plot_update
from bayesdistill.plots.value import plot_value
