"""Residual noise: the scale of the Student-t distribution of single runs, and how it depends on the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bayesdistill.law.formulas import exp, log
from bayesdistill.law.parameters import Coordinate, Parameter, Prior, Reference, log_normal, normal
from bayesdistill.law.term import Part, Student, Values

SIGMA = Parameter("sigma", "nats per token", "residual scale", "Scale of the Student-t residuals.", domain="positive")
NU = Parameter(
    "nu", "1", "degrees of freedom of the residuals", "Small values mean that some runs miss by far.", domain="positive"
)
SIGMA_SUPERVISED = Parameter(
    "sigma_supervised", "nats per token", "residual scale of supervised runs", domain="positive"
)

_SIGMA_REASON = "residuals of runs in nats: 0.001 to 0.07, seeds and misfit together"
BASE_COORDINATES = (
    Coordinate(
        "log_sigma", "the residual scale", log_normal(0.01, 1.0, "sigma", _SIGMA_REASON), symbol="sigma", link="log"
    ),
    Coordinate(
        "log_nu",
        "the tails of the residuals",
        Prior(
            math.log(9.0),
            1.0,
            "ln(nu - 1) ~ Normal(ln 9, 1)",
            "Student-t tails from nearly Cauchy (2) to nearly normal (70)",
        ),
        symbol="nu",
        link="log above 1",
    ),
)
SUPERVISED_COORDINATE = Coordinate(
    "log_sigma_supervised",
    "the residual scale of supervised runs",
    log_normal(
        0.01,
        1.0,
        "sigma_supervised",
        "residuals of the supervised runs, which may come from another study than the distilled ones",
    ),
    symbol="sigma_supervised",
    link="log",
)


@dataclass(frozen=True)
class ResidualNoise(Part):
    """How the residual scale of a distilled run depends on the run.

    Parameters
    ----------
    name : str
    sentence : str
        What it says, for methods sections.
    parameters, coordinates : tuple
        Beyond sigma and nu.
    factor : callable (student, teacher_loss, p, reference), optional
        What sigma is multiplied with; 1 if left out. The sizes of `student` are in units of which `reference` is the reference run.
    """

    sentence: str = ""
    parameters: tuple[Parameter, ...] = ()
    coordinates: tuple[Coordinate, ...] = ()
    factor: Callable[[Student, Any, Values, Reference], Any] | None = None


def _ratio_factor(student: Student, teacher_loss: Any, p: Values, reference: Reference) -> Any:
    return exp(p["noise_ratio"] * (log(teacher_loss) - log(student.supervised)) / 0.1)


def _tokens_factor(student: Student, teacher_loss: Any, p: Values, reference: Reference) -> Any:
    return exp(p["noise_tokens"] * log(student.tokens / reference.tokens))


CONSTANT = ResidualNoise("constant")
RATIO = ResidualNoise(
    "ratio",
    "The residual scale depends on the ratio of the teacher's loss to the student's own.",
    (Parameter("noise_ratio", "1", "change of ln(sigma) when ln r grows by 0.1", neutral=0.0),),
    (
        Coordinate(
            "noise_ratio",
            "how the residual scale depends on the teacher",
            normal(0.0, 0.3, "noise_ratio", "d ln(sigma) when ln r grows by 0.1: a factor of 0.5 to 2"),
            symbol="noise_ratio",
        ),
    ),
    _ratio_factor,
)
TOKENS = ResidualNoise(
    "tokens",
    "The residual scale depends on the student's tokens.",
    (Parameter("noise_tokens", "1", "change of ln(sigma) with ln(student_tokens)", neutral=0.0),),
    (
        Coordinate(
            "noise_tokens",
            "how the residual scale depends on the tokens",
            normal(
                0.0, 0.3, "noise_tokens", "d ln(sigma) / d ln(D_S): longer runs may have smaller or larger residuals"
            ),
            symbol="noise_tokens",
        ),
    ),
    _tokens_factor,
)

RESIDUAL_NOISE: Mapping[str, ResidualNoise] = MappingProxyType({n.name: n for n in (CONSTANT, RATIO, TOKENS)})
"""Forms of the residual noise by name."""
