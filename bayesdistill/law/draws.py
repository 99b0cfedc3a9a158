"""`Draws`: a law with many values of its symbols, as every calculation from a posterior uses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from bayesdistill.errors import ParameterError
from bayesdistill.law.discrepancy import RATIO, Paths, log_compute
from bayesdistill.law.forms import SUPERVISED_SYMBOLS, Law
from bayesdistill.law.parameters import UNITS, Reference
from bayesdistill.law.repetition import Repetition
from bayesdistill.law.term import Student


@dataclass(frozen=True, eq=False)
class Draws(Mapping[str, np.ndarray]):
    """Draws of a law's symbols, a mapping from symbol to array (n_draws,).

    Parameters
    ----------
    law : Law
    symbols : mapping
        Symbol -> array (n_draws,) or float. Fixed symbols may be missing.
    reference : Reference
        Of slopes and of residual noise that depends on tokens.
    groups : mapping
        Name of a group effect -> number of groups in the data behind the draws.
    paths : Paths, optional
        Of the law's discrepancies; None if the law has none.
    repetition : Repetition, optional
        What tokens beyond the unique tokens of a corpus are worth; None if all tokens are different.

    Raises
    ------
    ParameterError
        If a symbol of the law's terms is missing, or lengths differ.
    """

    law: Law
    symbols: Mapping[str, Any]
    reference: Reference = UNITS
    groups: Mapping[str, int] = field(default_factory=dict)
    paths: Paths | None = None
    repetition: Repetition | None = None

    def __post_init__(self) -> None:
        known = {p.name for p in self.law.parameters}
        given = {name: np.asarray(v, dtype=float).ravel() for name, v in {**self.law.fixed, **self.symbols}.items()}
        missing = [name for name in self.law.symbols_of_law if name not in given]
        if missing:
            needed = ", ".join(self.law.symbols_of_law)
            raise ParameterError(f"The draws lack {', '.join(missing)}. The law {self.law.name!r} has {needed}.")
        kept = {name: value for name, value in given.items() if name in known}
        sizes = {value.size for value in kept.values()} - {1}
        if len(sizes) > 1:
            found = ", ".join(f"{name} {value.size}" for name, value in kept.items())
            raise ParameterError(f"Every symbol must have one value per draw, got different lengths: {found}.")
        count = sizes.pop() if sizes else 1
        whole = {
            name: np.ascontiguousarray(value if value.size == count else np.broadcast_to(value, count))
            for name, value in kept.items()
        }
        object.__setattr__(self, "symbols", whole)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.symbols[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.symbols)

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def n_draws(self) -> int:
        """Number of draws."""
        return int(next(iter(self.symbols.values())).size)

    @cached_property
    def valid(self) -> np.ndarray:
        """Draws in which every symbol is finite and in its domain, (n_draws,) of bool."""
        return np.asarray(self.law.valid({name: self[name] for name in self.law.symbols_of_law}))

    def take(self, index: Any) -> Draws:
        """Some of the draws: a slice, a mask or integers."""
        paths = None if self.paths is None else self.paths.take(index)
        repetition = None if self.repetition is None else self.repetition.take(index)
        symbols = {name: value[index] for name, value in self.symbols.items()}
        return replace(self, symbols=symbols, paths=paths, repetition=repetition)

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The draws as columns, (n_draws, 1), so that results have the shape (n_draws, run)."""
        return {name: value[:, None] for name, value in self.symbols.items()}

    def student(self, params: Any, tokens: Any) -> Student:
        """The student's part of the law; params and tokens (..., 1) or (..., n_draws)."""
        return self.law.student(*self.effective(params, tokens), self.symbols)

    def supervised_loss(self, params: Any, tokens: Any) -> np.ndarray:
        """Loss of pretrained models in nats per token, (..., n_draws); params and tokens (..., 1) or (..., n_draws)."""
        p = {name: self.symbols[name] for name in SUPERVISED_SYMBOLS}
        return np.asarray(self.law.supervised_loss(*self.effective(params, tokens), p))

    def effective(self, params: Any, tokens: Any) -> tuple[Any, Any]:
        """Effective parameters and tokens, which the law sees, of models trained on a number of tokens."""
        if self.repetition is None:
            return params, tokens
        return self.repetition.effective_params(params), self.repetition.effective(tokens)

    def distilled_loss(self, params: Any, tokens: Any, teacher_loss: Any) -> np.ndarray:
        """Loss of distilled students in nats per token, (..., n_draws); arguments (..., 1) or (..., n_draws)."""
        return np.asarray(self.law.distilled_loss(self.student(params, tokens), teacher_loss, self.symbols))

    def discrepancy(self, kind: str, params: Any, tokens: Any) -> np.ndarray:
        """Error of the law for runs of a kind in nats per token, (..., n_draws); arguments (..., 1) or (..., n_draws)."""
        total = np.zeros(np.broadcast_shapes(np.shape(params), np.shape(tokens), (self.n_draws,)))
        if self.paths is None:
            return total
        misfit = self.law.misfit_scale(self.symbols)
        position = log_compute(params, tokens, self.reference)
        own = [one for one in self.law.discrepancy if kind in one.kinds]
        total = sum((self[one.scale] * self.paths.at(one.name, position) for one in own), total)
        outside = self.paths.beyond_ratios(params, tokens)
        if outside is not None and own:
            # Use the scale of the first discrepancy that the draw has: it is 0 in draws of laws without the discrepancy.
            scale = self[own[-1].scale]
            for one in reversed(own[:-1]):
                scale = np.where(self[one.scale] > 0, self[one.scale], scale)
            total = total + scale * self.paths.at(RATIO, outside)
        return np.asarray(misfit * total)
