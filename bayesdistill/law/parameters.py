"""Descriptions of a law: symbols, the coordinates that are sampled, their priors, and the reference run.

A `Parameter` is a symbol of a formula, as in a posterior. A `Coordinate` is a quantity that NUTS samples. Each coordinate has
a normal default prior and describes the law at the reference run, so that a prior can be chosen before
seeing data. Some symbols depend on one coordinate only (`Coordinate.link`); the others follow from several coordinates
together (`Term.symbols`).
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any

import numpy as np

from bayesdistill.arguments import Range, check_fields, instance, one_of, shown, switch
from bayesdistill.errors import ParameterError
from bayesdistill.law.formulas import exp, log, softplus


@dataclass(frozen=True)
class Reference:
    """The run around which the coordinates are centered.

    Parameters
    ----------
    params : float
        Non-embedding parameters N0.
    tokens : float
        Tokens D0.
    teacher_loss : float
        Cross-entropy T0 of the teacher in nats per token. The supervised law does not use it.
    """

    params: float
    tokens: float
    teacher_loss: float

    def __reduce__(self) -> Any:
        # UNITS is compared with `is`, because it holds NaN.
        return "UNITS" if self is UNITS else (Reference, (self.params, self.tokens, self.teacher_loss))


UNITS = Reference(1.0, 1.0, math.nan)
"""The reference of symbols in units of single parameters and single tokens, as in a posterior."""


@dataclass(frozen=True)
class Prior:
    """A normal prior on one coordinate.

    Parameters
    ----------
    location, scale : float
        Mean and standard deviation of the coordinate. A scale of 0 fixes it.
    distribution : str
        The prior in words, on a natural scale.
    reason : str
        Why this location and this scale.
    """

    location: float
    scale: float
    distribution: str = ""
    reason: str = "given by the user"

    def __post_init__(self) -> None:
        text = instance(str)
        check_fields(self, location=Range(), scale=Range(0), distribution=text, reason=text)
        if not self.distribution:
            object.__setattr__(self, "distribution", f"Normal({self.location:.4g}, {self.scale:.3g})")


def normal(location: float, scale: float, what: str, reason: str) -> Prior:
    """A normal prior on something."""
    return Prior(location, scale, f"{what} ~ Normal({location:g}, {scale:g})", reason)


def log_normal(center: float, scale: float, what: str, reason: str) -> Prior:
    """A prior on the logarithm of something positive, given its median."""
    return Prior(math.log(center), scale, f"ln {what} ~ Normal(ln {center:g}, {scale:g})", reason)


_PRIORS: Mapping[str, Callable[..., Prior]] = MappingProxyType(
    {"normal": normal, "log_normal": log_normal, "prior": Prior}
)
"""Forms of a prior in `symbols.toml`."""

DOMAINS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "real": np.isfinite,
        "positive": lambda x: np.isfinite(x) & (x > 0),
        "above 1": lambda x: np.isfinite(x) & (x > 1),
        "fraction": lambda x: (x >= 0) & (x <= 1),
    }
)
"""Which values a symbol may have; NaN is in none."""
DOMAIN_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "real": "a finite number",
        "positive": "a positive number",
        "above 1": "a number above 1",
        "fraction": "a number from 0 to 1",
    }
)


_DIMENSIONS = ("chain", "draw", "run", "supervised_run", "coordinate", "step", "z", "law")
_DATA = ("student_params", "student_tokens", "teacher_loss", "student_loss", "params", "tokens", "loss")
RESERVED = frozenset(_DIMENSIONS + _DATA)
"""Names of dimensions and data of a fit, which no symbol can have."""


@dataclass(frozen=True)
class Parameter:
    """A symbol of a law.

    Parameters
    ----------
    name : str
        The variable of the posterior.
    unit : str
    long_name : str
        Label of axes and tables.
    sentence : str
        Effect of the symbol, for readers.
    neutral : float, optional
        The value at which it has no effect.
    domain : {"real", "positive", "above 1", "fraction"}
    per : (str, str), optional
        For a coefficient of a power: ("params", "alpha") or ("tokens", "beta"), the base of the power and the symbol that is its
        exponent. In units of a reference run the coefficient A is A / N0^alpha.
    unlimited : float, optional
        The value that stands for unlimited data, together with one token.
    """

    name: str
    unit: str
    long_name: str
    sentence: str = ""
    neutral: float | None = None
    domain: str = "real"
    per: tuple[str, str] | None = None
    unlimited: float | None = None

    def __post_init__(self) -> None:
        check_fields(
            self, domain=one_of(*DOMAINS), **dict.fromkeys(("name", "unit", "long_name", "sentence"), instance(str))
        )
        if self.per is not None and not (isinstance(self.per, tuple | list) and len(self.per) == 2):
            raise ParameterError(
                f"`per` of {self.name!r} must be a pair such as ('params', 'alpha'), got {shown(self.per)}."
            )
        if self.per is not None and self.per[0] not in ("params", "tokens"):
            raise ParameterError(f"`per` of {self.name!r} must start with 'params' or 'tokens', got {self.per[0]!r}.")
        if self.name in RESERVED or not self.name.isidentifier():
            raise ParameterError(f"A symbol cannot be called {self.name!r}. Choose another name.")

    def allows(self, values: Any) -> Any:
        """Return which values a draw can have: those in the domain, and the neutral value, as draws of laws without the symbol have."""
        inside = DOMAINS[self.domain](values)
        return inside if self.neutral is None else inside | (values == self.neutral)


@dataclass(frozen=True)
class Coordinate:
    """A quantity that NUTS samples.

    Parameters
    ----------
    name : str
    description : str
        Short description for readers.
    prior : Prior
        The default.
    symbol : str
        The symbol that it determines, if there is one. Fixing the symbol removes the coordinate.
    link : {"log", "logit", "identity", "log above 1", "joint log"}
        How: the coordinate is the link of the symbol. With "joint log", the symbol follows from other coordinates too, as
        `Term.symbols` says, and the coordinate is its logarithm in a typical law.
    shape : bool
        Whether it describes the shape of the law, such as an exponent, which studies of other corpora are informative about. Other
        coordinates describe the level of the losses, or the noise (`priors.earlier`).
    """

    name: str
    description: str
    prior: Prior
    symbol: str = ""
    link: str = "identity"
    shape: bool = False

    def __post_init__(self) -> None:
        texts = dict.fromkeys(("name", "description", "symbol"), instance(str))
        check_fields(self, link=one_of(*_LINK), prior=instance(Prior), shape=switch, **texts)

    @property
    def alone(self) -> bool:
        """Whether it determines a symbol by itself."""
        return bool(self.symbol) and self.link != "joint log"

    def symbol_value(self, value: Any) -> Any:
        """The symbol at a value of the coordinate."""
        return _INVERSE[self.link](value)

    def of_symbol(self, value: Any) -> Any:
        """The coordinate at a value of the symbol."""
        return _LINK[self.link](value)


def log_sigmoid(x: Any) -> Any:
    """log(1 / (1 + e^-x))."""
    return -softplus(-x)


_INVERSE: dict[str, Callable[[Any], Any]] = {
    "log": exp,
    "logit": lambda x: exp(log_sigmoid(x)),
    "identity": lambda x: x,
    "log above 1": lambda x: 1 + exp(x),
    "joint log": exp,
}
_LINK: dict[str, Callable[[Any], Any]] = {
    "log": log,
    "logit": lambda p: np.log(p) - np.log1p(-p),
    "identity": lambda x: x,
    "log above 1": lambda x: log(x - 1),
    "joint log": log,
}


# Declarations ---------------------------------------------------------------------------------------------------------


@functools.cache
def symbol_table() -> dict[str, Any]:
    """Return the content of `symbols.toml`."""
    return tomllib.loads((resources.files("bayesdistill") / "law" / "symbols.toml").read_text(encoding="utf-8"))


def declared(name: str) -> dict[str, Any]:
    """Return the name, sentence, symbols and coordinates of a part of a law, as `symbols.toml` declares them."""
    part = symbol_table()[name]
    return {
        "name": name,
        "sentence": part.get("sentence", ""),
        "parameters": tuple(_parameter(symbol, **entry) for symbol, entry in part.get("parameters", {}).items()),
        "coordinates": tuple(_coordinate(name, **entry) for name, entry in part["coordinates"].items()),
    }


def _parameter(name: str, per: list[str] | None = None, **entry: Any) -> Parameter:
    return Parameter(name, **entry, per=None if per is None else (per[0], per[1]))


def _coordinate(name: str, reason: str, **entry: Any) -> Coordinate:
    form = next(form for form in _PRIORS if form in entry)
    return Coordinate(name, prior=_PRIORS[form](*entry.pop(form), reason), **entry)
