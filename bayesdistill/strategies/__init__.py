"""Strategies for distillation: a teacher, and what the rest of the budget buys.

For a student of N_S parameters, a budget C and a scenario, a strategy is a teacher (N_T parameters, D_T tokens) and the
number of tokens D_S that the rest of the budget buys for distillation (see `compute` for what is charged):

    C = 3 F(N_S) D_S + F(N_T) (delta_lgt D_S + 3 delta_pre D_T)

The *strategy with perfect information* minimizes the student's loss for each posterior draw by itself. The *chosen strategy*
minimizes the posterior mean. Both work with any law: they call its functions, and read only A, B, alpha and beta of the
supervised law, which determine the teachers that charge least for their loss. They assume that L_S does not rise with D_S, so
that the whole budget is spent unless `max_student_tokens` leaves some of it. Equation 8 has this property. With omega > 0 it
holds for tied exponents if gamma_S / gamma >= c0, as in every draw for the published runs (a test checks it).

Where several teachers are equally good the reported one is the cheapest: when nothing is charged for it, the compute-optimal
one among those of its loss; when only its inference is charged, the smallest, which takes all the tokens that it may have.

Arrays in, arrays out; `decisions` names their dimensions.

Modules: `problems` has bounds, requests and status codes, `charges` what a student pays for, `frontier` the teachers that
charge least, `curves` the losses along them; `perfect_information` searches the best strategy of every draw; `chosen` the one
that is best on average, with the minimizer of `descent`; `existing` has teachers that exist; `losses` evaluates strategies.
"""

from bayesdistill.strategies.chosen import committed_strategies
from bayesdistill.strategies.losses import evaluate_strategies, supervised_losses
from bayesdistill.strategies.perfect_information import best_strategies
from bayesdistill.strategies.problems import FIRST_FAILURE, STATUS, Bounds

__all__ = [
    "FIRST_FAILURE",
    "STATUS",
    "Bounds",
    "best_strategies",
    "committed_strategies",
    "evaluate_strategies",
    "supervised_losses",
]
