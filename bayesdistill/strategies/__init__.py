"""Strategies for distillation: a teacher, and a split of the budget between teacher and student.

For a student of N_S parameters, a budget C and a scenario, a strategy is a teacher (N_T parameters, D_T tokens) and the
number of tokens D_S that the rest of the budget buys for distillation (see `compute` for the charged costs):

    C = 3 F(N_S) D_S + F(N_T) (delta_lgt D_S + 3 delta_pre D_T)

The *strategy with perfect information* minimizes the student's loss separately for each posterior draw. The *chosen strategy*
minimizes the posterior mean. Both support any law: they call its functions, and read only A, B, alpha and beta of the
supervised law, which determine the cheapest teachers for each loss. They assume that L_S does not increase with D_S, so
the whole budget is spent unless `max_student_tokens` limits the tokens. Equation 8 has this property. With omega > 0 it
holds for tied exponents if gamma_S / gamma >= c0, as in every draw for the published runs (a test checks it).

If several teachers are equally good, the cheapest is returned: if the teacher is free, the compute-optimal teacher among those
with the same loss; if only its inference is charged, the smallest, which uses all the tokens that it may have.

A `Problem` names all that a search depends on: students, budgets or target losses, scenarios, bounds, existing teachers, inference
that the budget pays for, and what repeated tokens are worth. Inputs and outputs are arrays; `decisions` names their dimensions.

Modules: `problems` has problems, bounds and status codes, `charges` the costs of a student, `losses`
the losses of strategies and of pretraining; `frontier` the cheapest teachers, `curves` the losses along them, `perfect_information`
the search along the curves; `region` the allowed teachers of the chosen strategy, `descent` a minimizer, `chosen` the search;
`existing` existing teachers; `targets` the smallest budgets for target losses.
"""

from bayesdistill.strategies.chosen import chosen_strategies
from bayesdistill.strategies.losses import supervised_losses, tokens_bought
from bayesdistill.strategies.perfect_information import perfect_information_strategies
from bayesdistill.strategies.problems import FIRST_FAILURE, STATUS, Bounds, Problem

__all__ = [
    "FIRST_FAILURE",
    "STATUS",
    "Bounds",
    "Problem",
    "chosen_strategies",
    "perfect_information_strategies",
    "supervised_losses",
    "tokens_bought",
]
