"""Priors from statements of theory about the advantage of distillation over pretraining of the same student.

A perfect teacher (L_T = E) is the true distribution, so training on its logits is training on the data with less noise. Each statement
is a consequence for the student's advantage and becomes a prior with a width; None omits it. A law does not enforce the statements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from bayesdistill.law import Law, Reference
from bayesdistill.law.formulas import maximum
from bayesdistill.law.term import Values

ASYMPTOTIC_SIZES = (1e8, 3e8, 1e9, 3e9, 1e10, 3e10)
"""Student sizes over which the priors average, for a reference run with 5e8 parameters; other references scale them."""
LIMITED_TOKENS_PER_PARAMETER = (5.0, 20.0, 100.0)
"""Tokens per parameter over which the prior on the advantage with limited data averages: from a quarter to five times the ratio that is
compute-optimal without a teacher."""

_RELATIVE_SIZES = np.array(ASYMPTOTIC_SIZES) / 5e8


def _asymptotic(law: Law, reduced: Values, reference: Reference) -> Any:
    # Sizes in units of the reference run, so that they scale with it.
    return law.asymptotic_advantage(_RELATIVE_SIZES, reduced)


def _perfect_teacher(law: Law, reduced: Values, reference: Reference) -> Any:
    return law.perfect_teacher_advantage(_RELATIVE_SIZES * reference.params, None, reduced, reference)


def _limited_data(law: Law, reduced: Values, reference: Reference) -> Any:
    size = np.repeat(_RELATIVE_SIZES * reference.params, len(LIMITED_TOKENS_PER_PARAMETER))
    ratio = np.tile(LIMITED_TOKENS_PER_PARAMETER, len(_RELATIVE_SIZES))
    return law.perfect_teacher_advantage(size, ratio * size, reduced, reference)


@dataclass(frozen=True)
class Statement:
    """A statement of theory about the advantage a of distillation, and the normal prior on its violations.

    Parameters
    ----------
    name : str
        Name of the prior: `<name>_width` is its width in settings and provenance, `<name>_advantage` its row in the table of
        priors, `<name>_prior` its potential in the PyMC model.
    violation : str
        How far the advantage contradicts the statement, as a formula: "max(a, 0)", "max(-a, 0)" or "a".
    reason : str
        The statement, for the table of priors.
    advantages : callable (law, reduced, reference) -> (..., cell)
        Advantages in nats of the students that the statement is evaluated at. `reduced` are symbols in units of the reference run,
        as returned by `Law.reduced_symbols`: scalars, or arrays (..., 1), or PyTensor variables.
    """

    name: str
    violation: str
    reason: str
    advantages: Callable[[Law, Values, Reference], Any]

    @property
    def setting(self) -> str:
        """The keyword argument that sets the width."""
        return f"{self.name}_width"

    @property
    def row(self) -> str:
        """The name in the table of priors."""
        return f"{self.name}_advantage"

    def distribution(self, width: float) -> str:
        """Return the prior in words."""
        flat = {"max(a, 0)": ", flat for a <= 0", "max(-a, 0)": ", flat for a >= 0"}.get(self.violation, "")
        return f"{self.violation} ~ Normal(0, {width:g}){flat}"

    def log_density(self, law: Law, reduced: Values, reference: Reference, width: float) -> Any:
        """Return the log density of the prior up to a constant, (...).

        Parameters
        ----------
        law : Law
        reduced : mapping
            Symbols in units of the reference run: scalars, or arrays (..., 1), or PyTensor variables.
        reference : Reference
        width : float
            In nats.
        """
        advantage = self.advantages(law, reduced, reference)
        violation = {"max(a, 0)": lambda a: maximum(a, 0.0), "max(-a, 0)": lambda a: maximum(-a, 0.0), "a": lambda a: a}
        return -0.5 * ((violation[self.violation](advantage) / width) ** 2).mean(axis=-1)


STATEMENTS = MappingProxyType(
    {
        statement.name: statement
        for statement in (
            Statement(
                "asymptotic",
                "max(a, 0)",
                "With unlimited data, distillation cannot beat pretraining of the same student, but equation 8 does not enforce this. "
                "a is the advantage in nats, in mean square over students around the reference size.",
                _asymptotic,
            ),
            Statement(
                "perfect_teacher",
                "a",
                "A perfect teacher (L_T = E) is the true distribution, so that with unlimited data its student equals the pretrained "
                "one. a is the advantage in nats, in mean square over students around the reference size.",
                _perfect_teacher,
            ),
            Statement(
                "limited_data",
                "max(-a, 0)",
                "The logits of a perfect teacher (L_T = E) are the data with less noise, so that its student is at least as good as "
                "one pretrained on the same tokens. a is the advantage in nats, in mean square over students around the reference size "
                "with 5, 20 and 100 tokens per parameter.",
                _limited_data,
            ),
        )
    }
)
"""Statements by name. `asymptotic` is about all teachers, the others are about a perfect one."""
