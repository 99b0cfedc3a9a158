"""The law: formulas, parameters, terms, the laws composed of them, and the predictive distribution of runs.

`Law` composes terms, group effects and residual noise; `LAWS` holds the named laws. The same functions give mean and scale of a
run to the PyMC model and to numpy. To add a term, write a module like those in `terms`.
"""

from bayesdistill.law.discrepancy import DISCREPANCIES, Discrepancy, Paths
from bayesdistill.law.draws import Draws
from bayesdistill.law.effects import EFFECTS, GroupEffect
from bayesdistill.law.forms import (
    DEFAULT_LAW,
    LAWS,
    SUPERVISED_SYMBOLS,
    Law,
    as_law,
    distilled_loss,
    law_of_json,
    remember,
    supervised_loss,
)
from bayesdistill.law.formulas import PUBLISHED
from bayesdistill.law.parameters import UNITS, Coordinate, Parameter, Prior, Reference
from bayesdistill.law.repetition import PUBLISHED_REPETITION, Repetition, RepetitionPrior
from bayesdistill.law.residual import RESIDUAL_NOISE, ResidualNoise
from bayesdistill.law.term import Student, Term
from bayesdistill.law.terms import TERMS
from bayesdistill.law.union import neutral_values, union_of
