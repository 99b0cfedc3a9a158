"""Residual noise: the scale of the Student-t distribution of single runs, and how it depends on the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bayesdistill.law.formulas import exp, log
from bayesdistill.law.parameters import Coordinate, Parameter, Reference, declared
from bayesdistill.law.term import Part, Student, Values

SIGMA, NU = declared("residual")["parameters"]
BASE_COORDINATES = declared("residual")["coordinates"]
SIGMA_SUPERVISED = declared("residual_supervised")["parameters"][0]
SUPERVISED_COORDINATE = declared("residual_supervised")["coordinates"][0]


@dataclass(frozen=True)
class ResidualNoise(Part):
    """How the residual scale of a run depends on the run.

    Parameters
    ----------
    name : str
    sentence : str
        Sentence for methods sections.
    parameters, coordinates : tuple
        In addition to sigma and nu.
    factor : callable (student, teacher_loss, p, reference), optional
        Factor of sigma of a distilled run; by default 1. The sizes of `student` are in units in which `reference` is
        the reference run.
    supervised_factor : callable (loss, at_reference, p), optional
        Factor of sigma of a supervised run, given the law's loss of the run and of the reference run in nats per
        token; 1 if left out.
    """

    sentence: str = ""
    parameters: tuple[Parameter, ...] = ()
    coordinates: tuple[Coordinate, ...] = ()
    factor: Callable[[Student, Any, Values, Reference], Any] | None = None
    supervised_factor: Callable[[Any, Any, Values], Any] | None = None


def _ratio_factor(student: Student, teacher_loss: Any, p: Values, reference: Reference) -> Any:
    return exp(p["noise_ratio"] * (log(teacher_loss) - log(student.supervised)) / 0.1)


def _tokens_factor(student: Student, teacher_loss: Any, p: Values, reference: Reference) -> Any:
    return exp(p["noise_tokens"] * log(student.tokens / reference.tokens))


def _excess_factor(loss: Any, at_reference: Any, p: Values) -> Any:
    return exp(p["noise_excess"] * (log(loss - p["E"]) - log(at_reference - p["E"])))


CONSTANT = ResidualNoise("constant")
RATIO = ResidualNoise(**declared("ratio"), factor=_ratio_factor)
TOKENS = ResidualNoise(**declared("tokens"), factor=_tokens_factor)
EXCESS = ResidualNoise(**declared("excess"), supervised_factor=_excess_factor)

RESIDUAL_NOISE: Mapping[str, ResidualNoise] = MappingProxyType({n.name: n for n in (CONSTANT, RATIO, TOKENS, EXCESS)})
"""Forms of the residual noise by name: "ratio" and "tokens" of distilled runs, "excess" of supervised runs, "constant" of both."""
