"""`Law`: a model of runs composed of terms, group effects and residual noise; and the named laws."""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdistill.arguments import Range, check_fields, checked, instance, is_finite, scalar, shown, switch, tuple_of
from bayesdistill.errors import BayesdistillError, ModelError, ParameterError
from bayesdistill.law import formulas
from bayesdistill.law.discrepancy import DISCREPANCIES, Discrepancy
from bayesdistill.law.effects import EFFECTS, GroupEffect
from bayesdistill.law.formulas import exp, log, log_ratio, log_student_term, own_scale
from bayesdistill.law.parameters import DOMAIN_WORDS, DOMAINS, UNITS, Coordinate, Parameter, Reference
from bayesdistill.law.residual import (
    BASE_COORDINATES,
    CONSTANT,
    NU,
    RESIDUAL_NOISE,
    SIGMA,
    SIGMA_SUPERVISED,
    SUPERVISED_COORDINATE,
    ResidualNoise,
)
from bayesdistill.law.term import ZERO, AtReference, Student, Term, Values
from bayesdistill.law.terms import TERMS
from bayesdistill.law.terms.supervised import SUM

if TYPE_CHECKING:
    import pandas as pd

SUPERVISED_SYMBOLS = tuple(parameter.name for parameter in TERMS["supervised"].parameters)
"""E, A, B, alpha, beta, gamma: every law has the supervised law."""

ASYMPTOTIC_TEACHERS = np.linspace(0.0, 1.2, 41)
"""Teachers that `Law.asymptotic_advantage` tries, as fractions of the student's own reducible loss: 0 is a perfect teacher (loss
E), 1 one that is no better than the student with unlimited data. The optimum lies between; steps of 3% put the minimum
within 5e-4 nats."""


@dataclass(frozen=True)
class Law:
    """A model of distilled and supervised runs.

    Laws are compared and stored by the names of their parts. Change one with `with_terms`, `without_terms`, `with_effects`,
    `with_discrepancy`, `with_residual_noise` and `with_fixed`, which return a new law.

    Parameters
    ----------
    name : str
        Name in output.
    reference : str
        Source.
    terms : tuple of Term
        The supervised law first. A law of supervised runs alone has no other.
    effects : tuple of GroupEffect
    residual_noise, supervised_residual_noise : ResidualNoise
        Of distilled and of supervised runs.
    fixed : mapping
        Symbol -> value, for symbols that are not sampled, such as gamma or omega. Each must depend on one coordinate only.
    supervised_noise : bool
        Whether supervised runs have their own residual scale, as in joint fits with distilled runs.
    discrepancy : tuple of Discrepancy
        Errors of the law that grow with the distance from its runs.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> law = bd.LAWS["busbridge2025"].with_terms("soft_targets")
    >>> [term.name for term in law.terms]
    ['supervised', 'student', 'capacity_gap', 'soft_targets']
    """

    name: str
    reference: str
    terms: tuple[Term, ...]
    effects: tuple[GroupEffect, ...] = ()
    residual_noise: ResidualNoise = CONSTANT
    supervised_residual_noise: ResidualNoise = CONSTANT
    fixed: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    supervised_noise: bool = False
    discrepancy: tuple[Discrepancy, ...] = ()

    def __post_init__(self) -> None:
        check_fields(
            self,
            name=instance(str),
            reference=instance(str),
            terms=tuple_of(Term),
            effects=tuple_of(GroupEffect),
            residual_noise=instance(ResidualNoise),
            supervised_residual_noise=instance(ResidualNoise),
            fixed=instance(Mapping),
            supervised_noise=switch,
            discrepancy=tuple_of(Discrepancy),
        )
        object.__setattr__(self, "fixed", MappingProxyType({name: scalar(value) for name, value in self.fixed.items()}))
        for kind, noise, other in (
            ("distilled", self.residual_noise, "supervised_factor"),
            ("supervised", self.supervised_residual_noise, "factor"),
        ):
            if getattr(noise, other) is not None:
                raise ParameterError(f"The residual noise {noise.name!r} is not one of {kind} runs.")
        parts_of_law = (("term", self.terms), ("group effect", self.effects), ("discrepancy", self.discrepancy))
        for what, parts in parts_of_law:
            for name in _repeated(parts):
                raise ParameterError(f"The law {self.name!r} has the {what} {name!r} twice.")
        if not self.terms or self.terms[0].name != "supervised":
            raise ParameterError(f"The first term of the law {self.name!r} must be 'supervised'.")
        if self.distills and "log_excess_S" not in {c.name for c in self.every_coordinate}:
            raise ParameterError(f"The law {self.name!r} can describe distilled runs only with the term 'student'.")
        for what, names in (("symbol", self.parameters), ("coordinate", self.every_coordinate)):
            for name in _repeated(names):
                raise ParameterError(
                    f"Two parts of the law {self.name!r} have the {what} {name!r}. Rename it in your own part."
                )
        linked = {c.symbol: c for c in self.every_coordinate if c.symbol}
        domain = {parameter.name: parameter.domain for parameter in self.parameters}
        for name, value in self.fixed.items():
            if name not in linked:
                choices = ", ".join(repr(symbol) for symbol in linked)
                raise ParameterError(f"Cannot fix {name!r} in the law {self.name!r}; it can fix {choices}.")
            if not is_finite(value) or not DOMAINS[domain[name]](value):
                raise ParameterError(f"Cannot fix {name} at {shown(value)}: it must be {DOMAIN_WORDS[domain[name]]}.")

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __reduce__(self) -> Any:
        noise = (self.residual_noise, self.supervised_residual_noise)
        parts = (self.name, self.reference, self.terms, self.effects, *noise, dict(self.fixed))
        return Law, (*parts, self.supervised_noise, self.discrepancy)

    # Composition ----------------------------------------------------------------------------------------------------

    def with_terms(self, *terms: str | Term) -> Law:
        """The law with more terms, by name or as `Term` objects."""
        added = tuple(_part(term, TERMS, "term") for term in terms)
        return replace(self, name="+".join((self.name, *(t.name for t in added))), terms=self.terms + added)

    def without_terms(self, *names: str) -> Law:
        """The law without some terms; values fixed for their symbols go with them."""
        known = [term.name for term in self.terms]
        for name in names:
            if name not in known[1:]:
                raise ParameterError(f"The law {self.name!r} has no term {name!r} to remove; it has {known[1:]}.")
        kept = tuple(term for term in self.terms if term.name not in names)
        lost = {p.name for term in self.terms if term.name in names for p in term.parameters}
        fixed = {name: value for name, value in self.fixed.items() if name not in lost}
        return replace(self, name="-".join((self.name, *names)), terms=kept, fixed=fixed)

    def with_effects(self, *effects: str | GroupEffect) -> Law:
        """The law with these group effects and no others."""
        return replace(self, effects=tuple(_part(effect, EFFECTS, "group effect") for effect in effects))

    def with_discrepancy(self, *discrepancies: str | Discrepancy) -> Law:
        """The law with these discrepancies and no others: "shared" and "distilled". Without arguments, it has none."""
        parts = tuple(_part(one, DISCREPANCIES, "discrepancy") for one in discrepancies)
        return replace(self, discrepancy=parts)

    def with_residual_noise(
        self, noise: str | ResidualNoise | None = None, *, supervised: str | ResidualNoise | None = None
    ) -> Law:
        """The law with another form of the residual noise of distilled or of supervised runs; None keeps the current form."""
        given = {"residual_noise": noise, "supervised_residual_noise": supervised}
        what = "form of the residual noise"
        return replace(self, **{k: _part(v, RESIDUAL_NOISE, what) for k, v in given.items() if v is not None})

    def with_fixed(self, **values: float | None) -> Law:
        """The law with some symbols fixed; None lets a symbol vary."""
        given = {**self.fixed, **values}
        fixed = {
            name: float(value) if is_finite(value) else value for name, value in given.items() if value is not None
        }
        return replace(self, fixed=fixed)

    def for_runs(self, *, distilled: bool, supervised: bool) -> Law:
        """The law of the kinds of runs that there are.

        Parameters
        ----------
        distilled, supervised : bool
            Which kinds of runs enter the likelihood. Without distilled runs the supervised law is left, with the group
            effects of supervised runs. With both, supervised runs have a residual scale of their own.
        """
        if not (distilled or supervised):
            raise ModelError("There are no runs. Pass distilled runs, supervised runs, or both.")
        if distilled and not self.distills:
            raise ModelError(f"The law {self.name!r} describes supervised runs only, but there are distilled runs.")
        kinds = [kind for kind, given in (("distilled", distilled), ("supervised", supervised)) if given]
        free = replace(
            self,
            terms=tuple(term for term in self.terms if distilled or term.kind == "supervised"),
            effects=tuple(effect for effect in self.effects if effect.kind in kinds),
            residual_noise=self.residual_noise if distilled else CONSTANT,
            supervised_residual_noise=self.supervised_residual_noise if supervised else CONSTANT,
            fixed={},
            supervised_noise=distilled and supervised,
            discrepancy=tuple(one for one in self.discrepancy if distilled or "supervised" in one.kinds),
        )
        symbols = {p.name for p in free.parameters}
        return replace(free, fixed={name: value for name, value in self.fixed.items() if name in symbols})

    def for_tables(self, distilled: pd.DataFrame | None, supervised: pd.DataFrame | None) -> Law:
        """The law of the runs of two tables, without the group effects that the runs do not determine.

        Parameters
        ----------
        distilled, supervised : DataFrame, optional
            Runs that enter the likelihood. An effect requires two groups and one group with two runs; effects of models require
            the column `model`.
        """
        given = {"distilled": distilled, "supervised": supervised}
        tables = {kind: table for kind, table in given.items() if table is not None}
        law = self.for_runs(**{kind: kind in tables for kind in given})
        return replace(law, effects=tuple(e for e in law.effects if e.determined_by(tables[e.kind])))

    @property
    def kinds(self) -> dict[str, bool]:
        """Kinds of runs that the law describes: supervised runs in joint fits have a separate residual scale."""
        return {"distilled": self.distills, "supervised": self.supervised_noise or not self.distills}

    @property
    def distills(self) -> bool:
        """Whether the law describes distilled runs."""
        return any(term.kind == "distilled" for term in self.terms)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All scalar symbols: terms, residual noise, standard deviations of group effects."""
        terms = tuple(p for term in self.terms for p in term.parameters)
        supervised = (SIGMA_SUPERVISED,) if self.supervised_noise else ()
        noise = (*self.residual_noise.parameters, *self.supervised_residual_noise.parameters)
        noise += tuple(p for one in self.discrepancy for p in one.parameters)
        return (*terms, SIGMA, NU, *noise, *(e.scale for e in self.effects), *supervised)

    @property
    def symbols_of_law(self) -> tuple[str, ...]:
        """Symbols of the terms, without symbols of the residual noise and of the group effects."""
        return tuple(p.name for term in self.terms for p in term.parameters)

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        """The sampled coordinates, in the model's order, without the coordinates of fixed symbols."""
        return tuple(c for c in self.every_coordinate if c.symbol not in self.fixed)

    @property
    def every_coordinate(self) -> tuple[Coordinate, ...]:
        """The coordinates, including coordinates of fixed symbols."""
        replaced = {name for term in self.terms for name in term.replaces}
        found = [c for term in self.terms for c in term.coordinates if c.name not in replaced]
        found += [*BASE_COORDINATES, *self.residual_noise.coordinates, *self.supervised_residual_noise.coordinates]
        found += [c for one in self.discrepancy for c in one.coordinates]
        found += [effect.coordinate for effect in self.effects]
        found += [SUPERVISED_COORDINATE] if self.supervised_noise else []
        return tuple(found)

    @property
    def sentences(self) -> list[str]:
        """Differences of the law from the supervised law and equation 8, for methods sections."""
        plain = {term.name for term in LAWS["busbridge2025"].terms}
        found = [term.sentence for term in self.terms if term.name not in plain]
        found += [effect.sentence for effect in self.effects]
        found += [one.sentence for one in self.discrepancy]
        found += [self.residual_noise.sentence, self.supervised_residual_noise.sentence]
        return [sentence for sentence in found if sentence]

    # Storage --------------------------------------------------------------------------------------------------------

    @property
    def is_packaged(self) -> bool:
        """Whether all parts are part of the package, so every session has them."""
        return all(packaged == part for part, packaged in self._parts())

    def _parts(self) -> list[tuple[Any, Any]]:
        """(part, the packaged part of that name or None)."""
        found: list[tuple[Any, Any]] = [(term, TERMS.get(term.name)) for term in self.terms]
        found += [(effect, EFFECTS.get(effect.name)) for effect in self.effects]
        found += [(one, DISCREPANCIES.get(one.name)) for one in self.discrepancy]
        noise = (self.residual_noise, self.supervised_residual_noise)
        return [*found, *((part, RESIDUAL_NOISE.get(part.name)) for part in noise)]

    def to_json(self) -> str:
        """The law as JSON: names of its parts, with a digest for those that are not the package's own."""
        names = [
            part.name if packaged == part else {"name": part.name, "digest": part.digest}
            for part, packaged in self._parts()
        ]
        count, end = len(self.terms), len(self.terms) + len(self.effects)
        return json.dumps(
            {
                "name": self.name,
                "reference": self.reference,
                "terms": names[:count],
                "effects": names[count:end],
                "noise": names[-2],
                "supervised_residual_noise": names[-1],
                "fixed": dict(sorted(self.fixed.items())),
                "supervised_noise": self.supervised_noise,
                "discrepancy": names[end:-2],
            }
        )

    # Formulas -------------------------------------------------------------------------------------------------------

    def supervised_loss(self, params: Any, tokens: Any, p: Values) -> Any:
        """Loss of a pretrained model, nats per token; everything broadcasts."""
        return formulas.supervised_loss(params, tokens, **{name: p[name] for name in SUPERVISED_SYMBOLS})

    def student(self, params: Any, tokens: Any, p: Values, units: Reference = UNITS) -> Student:
        """The student's part of the law; compute it once for many teachers.

        Parameters
        ----------
        params, tokens : float or array
            Non-embedding parameters and tokens.
        p : mapping
            Symbol -> value; everything broadcasts.
        units : Reference
            The units of the symbols: units of a reference run for `reduced_symbols`.
        """
        own = {f"{name}_S": p[f"{name}_S"] for name in SUM}
        log_term = log_student_term(*_relative(params, tokens, units), **own)
        student = self._student(params, tokens, p, units, log_term)
        return replace(student, log_excess=self._modified("student_excess", ZERO, student, p))

    def _student(self, params: Any, tokens: Any, p: Values, units: Reference, log_term: Any = 0.0) -> Student:
        relative = _relative(params, tokens, units)
        supervised = ability = self.supervised_loss(*relative, p)
        counted = self._modified("ability_tokens", tokens, p)
        ability_tokens = _relative(params, counted, units)[1]
        if counted is not tokens:
            ability = self.supervised_loss(relative[0], ability_tokens, p)
        irreducible = self._modified("irreducible", 0.0 * p["E"], p)
        return Student(*relative, supervised, ability_tokens, *own_scale(ability, irreducible), log_term)

    def distilled_loss(self, student: Student, teacher_loss: Any, p: Values) -> Any:
        """Loss of a student with a teacher, nats per token.

        Parameters
        ----------
        student : Student
            What `student` returned.
        teacher_loss : float or array
            Cross-entropy of the teacher in nats per token.
        p : mapping
            Symbol -> value; everything broadcasts.
        """
        ratio = log_ratio(teacher_loss, student.log_ability, student.stretch)
        excess = self._modified("excess", ZERO, student, teacher_loss, ratio, p)
        return self._modified("floor", teacher_loss, student, teacher_loss, p) + exp(excess + student.log_excess)

    def _modified(self, slot: str, value: Any, *arguments: Any) -> Any:
        return _modified(self.terms, slot, value, *arguments)

    def _with(self, slot: str) -> list[Term]:
        return [term for term in self.terms if getattr(term, slot) is not None]

    def asymptotic_advantage(self, params: Any, p: Values) -> Any:
        """Advantage of the best distilled student over the pretrained one, both with unlimited data.

        A student that has seen unlimited data of the true distribution minimizes the loss by which both are judged. In
        theory, the advantage is therefore <= 0 for every student. The law does not enforce it.

        Parameters
        ----------
        params : float or array, (...)
            Non-embedding parameters of the student.
        p : mapping
            Symbol -> value of shape (...); everything broadcasts.

        Returns
        -------
        array, (...)
            Lsup(N, inf) - min over L_T of L_S(N, inf, L_T), nats per token.
        """
        p = self._unlimited(p)
        student = self.student(params, 1.0, p)
        supervised = student.supervised
        teacher_loss = supervised[..., None] - (supervised - p["E"])[..., None] * (1 - ASYMPTOTIC_TEACHERS)
        zero = 0 * supervised
        last = {name: value if isinstance(value, float) else (value + zero)[..., None] for name, value in p.items()}
        loss = self.distilled_loss(student.map(lambda x: x[..., None]), teacher_loss, last)
        return supervised - loss.min(axis=-1)

    def perfect_teacher_advantage(self, params: Any, tokens: Any, p: Values, units: Reference = UNITS) -> Any:
        """Advantage of the student of a perfect teacher (L_T = E) over the pretrained one with the same tokens.

        A perfect teacher is the true distribution. In theory, the advantage is therefore 0 with unlimited data and >= 0 otherwise. The
        law does not enforce it.

        Parameters
        ----------
        params : float or array, (...)
            Non-embedding parameters of the student.
        tokens : float, array or None
            Tokens of both; None for unlimited data.
        p : mapping
            Symbol -> value; everything broadcasts.
        units : Reference
            The units that the symbols belong to, as in `student`.

        Returns
        -------
        array, (...)
            Lsup(N, D) - L_S(N, D, E), nats per token.
        """
        if tokens is None:
            # Logarithms of infinite tokens have no gradient.
            p, tokens = self._unlimited(p), units.tokens
        student = self.student(params, tokens, p, units)
        return student.supervised - self.distilled_loss(student, p["E"], p)

    def _unlimited(self, p: Values) -> Values:
        """The symbols with those values that stand for unlimited data, together with one token."""
        return {**p, **{q.name: q.unlimited for q in self.parameters if q.unlimited is not None}}

    # Coordinates ----------------------------------------------------------------------------------------------------

    def symbols(self, coordinates: Values, reference: Reference) -> dict[str, Any]:
        """Symbols from coordinates around a reference run, for sizes and tokens in single parameters and tokens.

        Parameters
        ----------
        coordinates : mapping
            Coordinate -> value; fixed symbols may be among them under their own name.
        reference : Reference
        """
        return self.rescaled(self.reduced_symbols(coordinates, reference), reference)

    def rescaled(self, reduced: Values, reference: Reference) -> dict[str, Any]:
        """Symbols in single parameters and tokens from symbols in units of the reference run: A = A_ref N0^alpha."""
        return self._in_units(reduced, reference, 1.0)

    def in_units_of(self, p: Values, reference: Reference) -> dict[str, Any]:
        """The inverse of `rescaled`."""
        return self._in_units(p, reference, -1.0)

    def _in_units(self, p: Values, reference: Reference, sign: float) -> dict[str, Any]:
        result = dict(p)
        for parameter in self.parameters:
            if parameter.per is not None and parameter.name in p:
                of, exponent = parameter.per
                result[parameter.name] = exp(log(p[parameter.name]) + sign * p[exponent] * log(getattr(reference, of)))
        return result

    def reduced_symbols(self, coordinates: Values, reference: Reference) -> dict[str, Any]:
        """Symbols for sizes and tokens in units of the reference run, in which no intermediate number overflows."""
        c, p = dict(coordinates), {}
        for coordinate in self.every_coordinate:
            if coordinate.symbol in self.fixed:
                p[coordinate.symbol] = c.get(coordinate.symbol, self.fixed[coordinate.symbol])
            elif coordinate.alone and coordinate.name in c:
                p[coordinate.symbol] = coordinate.symbol_value(c[coordinate.name])
        p |= self.terms[0].symbols(c, p, None)  # type: ignore[misc]
        if not self.distills:
            return p
        at = self._at(UNITS, p, reference.teacher_loss)
        for term in self._with("symbols")[1:]:
            p |= term.symbols(c, p, at)  # type: ignore[misc]
        p |= self._with("sum_symbols")[-1].sum_symbols(c, p, self._with_others(at, p))  # type: ignore[misc]
        return p

    def coordinates_of(self, symbols: Values, reference: Reference) -> dict[str, Any]:
        """Coordinates from symbols in single parameters and tokens; the inverse of `symbols`.

        Symbols of the residual noise and of the group effects may be missing; fixed symbols keep their own name.
        """
        p = {**self.fixed, **symbols}
        found = dict(self.terms[0].coordinates_of(p, AtReference(reference, None, None, None)))  # type: ignore[misc, arg-type]
        if self.distills:
            at = self._with_others(self._at(reference, p, reference.teacher_loss), p)
            for term in self._with("coordinates_of")[1:]:
                found |= term.coordinates_of(p, at)  # type: ignore[misc]
            found |= self._with("sum_coordinates")[-1].sum_coordinates(p, at)  # type: ignore[misc]
        for coordinate in self.every_coordinate:
            if coordinate.symbol in self.fixed:
                found[coordinate.symbol] = p[coordinate.symbol]
            elif coordinate.alone and coordinate.symbol in p and coordinate.name not in found:
                found[coordinate.name] = coordinate.of_symbol(p[coordinate.symbol])
        names = {c.symbol if c.symbol in self.fixed else c.name for c in self.every_coordinate}
        return {name: value for name, value in found.items() if name in names}

    def _at(self, reference: Reference, p: Values, teacher_loss: Any) -> AtReference:
        """The reference run in the units of `reference`."""
        student = self._student(reference.params, reference.tokens, p, UNITS)
        ratio, alone = (
            log_ratio(loss, student.log_ability, student.stretch) for loss in (teacher_loss, student.supervised)
        )
        return AtReference(replace(reference, teacher_loss=teacher_loss), student, ratio, alone)

    def _with_others(self, at: AtReference, p: Values) -> AtReference:
        """The reference run with the contribution of all terms except `student` to the logarithm of the excess."""
        others = [term for term in self.terms if term is not self._with("sum_symbols")[0]]
        excess = _modified(others, "excess", ZERO, at.student, at.reference.teacher_loss, at.log_ratio, p)
        return replace(at, others=_modified(others, "student_excess", excess, at.student, p))

    def misfit_scale(self, p: Values) -> Any:
        """Scale of the misfit of the law within the data, nats per token: residual scale and constant group effects of a kind."""
        kind = "distilled" if self.distills else "supervised"
        shared = [p[e.scale.name] ** 2 for e in self.effects if e.kind == kind and not e.slope]
        return sum(shared, p["sigma"] ** 2) ** 0.5

    def valid(self, p: Values) -> Any:
        """Which draws are laws: every symbol there is finite, and in its domain or neutral."""
        found = [q.allows(p[q.name]) & np.isfinite(p[q.name]) for q in self.parameters if q.name in p]
        return functools.reduce(np.logical_and, found)


def as_law(law: Law | str) -> Law:
    """A law by name, or the law itself."""
    if isinstance(law, Law):
        return law
    if not isinstance(law, str) or law not in LAWS:
        raise ParameterError(
            f"There is no law {shown(law)}. Pass a bayesdistill.Law, or choose from {', '.join(map(repr, LAWS))}."
        )
    return LAWS[law]


def _modified(terms: Sequence[Term], slot: str, value: Any, *arguments: Any) -> Any:
    """A slot's value after the functions of the terms, the last term first."""
    for term in reversed(terms):
        function = getattr(term, slot)
        if function is None:
            continue
        try:
            value = function(value, *arguments)
        except BayesdistillError:
            raise
        except (KeyError, TypeError, ValueError, NotImplementedError) as error:
            raise ModelError(
                f"The term {term.name!r} failed in its slot {slot!r} ({type(error).__name__}: {error}). Use operators, the "
                "functions of bayesdistill.law.formulas, and symbols that are known there (see bayesdistill/law/term.py)."
            ) from error
    return value


def _repeated(parts: Sequence[Any]) -> list[str]:
    """Names that several parts have."""
    return sorted(name for name, count in Counter(part.name for part in parts).items() if count > 1)


def _relative(params: Any, tokens: Any, units: Reference) -> tuple[Any, Any]:
    return (params, tokens) if units is UNITS else (params / units.params, tokens / units.tokens)


def _part(asked: Any, known: Mapping[str, Any], what: str) -> Any:
    if isinstance(asked, type(next(iter(known.values())))):
        return asked
    if not isinstance(asked, str) or asked not in known:
        raise ParameterError(f"There is no {what} {shown(asked)}. Choose from {', '.join(map(repr, known))}.")
    return known[asked]


_BUSBRIDGE = "Busbridge et al. (2025), arXiv:2502.08606"
EQUATION_8 = Law(
    name="busbridge2025",
    reference=f"{_BUSBRIDGE}, equation 8",
    terms=(TERMS["supervised"], TERMS["student"], TERMS["capacity_gap"]),
)
DEFAULT_LAW = "tied_reducible"
LAWS: Mapping[str, Law] = MappingProxyType(
    {
        "busbridge2025": EQUATION_8,
        DEFAULT_LAW: replace(
            EQUATION_8.with_terms("tied_exponents", "weak_teachers", "soft_targets", "reducible_ratio")
            .with_effects("student", "student_slope", "model", "model_slope")
            .with_residual_noise(supervised="excess")
            .with_discrepancy("shared", "distilled")
            .with_fixed(omega=1.0),
            name=DEFAULT_LAW,
            reference=f"{_BUSBRIDGE}, equation 8, extended (docs/explanation/choice_of_model.md)",
        ),
    }
)
"""Named laws. "busbridge2025" is equation 8 as in the paper, with independent residuals. "tied_reducible", the default of `fit`,
ties the student's exponents to the supervised law's, compares reducible losses, allows for weak teachers and soft targets, and
has effects and slopes of student configurations and a discrepancy that grows with the distance from the runs. It predicts unseen
teachers and students best."""

_EXTENDED = EQUATION_8.with_terms("weak_teachers", "soft_targets", "reducible_ratio")


def _positive(value: Any, name: str) -> Any:
    """Return positive numbers, or a variable of PyTensor. Infinity is a limit; NaN is a cell of a plan without a strategy."""
    rule = Range(0, math.inf, above=True)
    if hasattr(value, "owner"):
        return value
    if isinstance(value, float) or getattr(getattr(value, "dtype", None), "kind", "") == "f":
        array = np.asarray(value)
        rule.each(array[~np.isnan(array)], name)
        return value
    return rule.each(value, name)


supervised_loss = checked(params=_positive, tokens=_positive)(formulas.supervised_loss)


@checked(student_params=_positive, student_tokens=_positive, teacher_loss=_positive)
def distilled_loss(
    student_params: Any,
    student_tokens: Any,
    teacher_loss: Any,
    *,
    E: Any,
    A: Any,
    B: Any,
    alpha: Any,
    beta: Any,
    gamma: Any,
    A_S: Any,
    B_S: Any,
    alpha_S: Any,
    beta_S: Any,
    gamma_S: Any,
    c0: Any,
    c1: Any,
    d1: Any,
    f1: Any,
    w1: Any = 0.0,
    kappa: Any = 1.0,
    omega: Any = 0.0,
) -> Any:
    """Cross-entropy of a student distilled from a teacher.

    Parameters
    ----------
    student_params : float or array
        Non-embedding parameters N_S of the student.
    student_tokens : float or array
        Tokens D_S that the student is distilled on.
    teacher_loss : float or array
        Cross-entropy L_T of the teacher in nats per token.
    E, A, B, alpha, beta, gamma : float or array
        The supervised law, which gives the student's own ability.
    A_S, B_S, alpha_S, beta_S, gamma_S, c0, c1, d1, f1 : float or array
        The distillation law. Everything broadcasts.
    w1 : float or array
        When the teacher is worse than the student would be on its own, the student recovers this fraction of
        max(L_T - Lsup, 0). 0 is equation 8, which cannot go below L_T.
    kappa : float or array
        One distillation token improves the student's ability as much as kappa pretraining tokens: r is
        L_T / Lsup(N_S, kappa D_S). 1 is equation 8. With unlimited data kappa has no effect.
    omega : float or array
        Fraction of E that is subtracted from the losses that the capacity gap and the power of L_T compare (see
        `formulas.log_ratio`). 0 is equation 8, 1 compares reducible losses.

    Returns
    -------
    float or array
        Validation cross-entropy in nats per token.

    Notes
    -----
    Busbridge et al. (2025), equation 8. For laws with other terms use `bayesdistill.predict`.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> round(float(bd.distilled_loss(5.46e8, 1.207e10, 2.18485, **bd.PUBLISHED)), 3)
    2.432
    """
    p = {"E": E, "A": A, "B": B, "alpha": alpha, "beta": beta, "gamma": gamma}
    p |= {"A_S": A_S, "B_S": B_S, "alpha_S": alpha_S, "beta_S": beta_S, "gamma_S": gamma_S}
    p |= {"c0": c0, "c1": c1, "d1": d1, "f1": f1, "w1": w1, "kappa": kappa, "omega": omega}
    return _EXTENDED.distilled_loss(_EXTENDED.student(student_params, student_tokens, p), teacher_loss, p)


# Storage ------------------------------------------------------------------------------------------------------------

_CUSTOM: dict[tuple[str, str], Any] = {}
"""Parts of laws that are not the package's own and that this session has seen, by name and digest."""


def remember(law: Law) -> None:
    """Let `law_of_json` find the parts of a law for the rest of the session."""
    _CUSTOM.update({(part.name, part.digest): part for part, packaged in law._parts() if packaged != part})


def coordinate_description(name: str) -> str:
    """Return a short description of a coordinate of any law of this session."""
    parts = [*TERMS.values(), *RESIDUAL_NOISE.values(), *DISCREPANCIES.values(), *_CUSTOM.values()]
    found = [c for part in parts for c in getattr(part, "coordinates", ())]
    found += [*BASE_COORDINATES, SUPERVISED_COORDINATE, *(effect.coordinate for effect in EFFECTS.values())]
    return next((c.description for c in found if c.name == name), name.replace("_", " "))


def law_of_json(text: str, law: Law | None = None) -> Law:
    """The law that `Law.to_json` wrote, or that has this name in `LAWS`.

    Parameters
    ----------
    text : str
    law : Law, optional
        With the parts that are not the package's own.

    Raises
    ------
    ModelError
        If it has a part that is not defined in this session.
    """
    if text in LAWS:
        # Draws that name their law only have no supervised runs.
        return LAWS[text].for_runs(**LAWS[text].kinds)
    if law is not None:
        remember(law)
    try:
        stored = json.loads(text)
        terms = tuple(_stored(part, TERMS, "term") for part in stored["terms"])
        effects = tuple(_stored(part, EFFECTS, "group effect") for part in stored["effects"])
        noise, other = (
            _stored(stored[name], RESIDUAL_NOISE, "form of the residual noise")
            for name in ("noise", "supervised_residual_noise")
        )
        discrepancy = tuple(_stored(part, DISCREPANCIES, "discrepancy") for part in stored["discrepancy"] or ())
        name, reference, fixed = stored["name"], stored["reference"], dict(stored["fixed"])
        if not (isinstance(name, str) and isinstance(reference, str)):
            raise TypeError("name and reference must be text")
        parts = Law(name, reference, terms, effects, noise, other)
        noisy = bool(stored["supervised_noise"])
        return replace(parts, fixed=fixed, supervised_noise=noisy, discrepancy=discrepancy)
    except ModelError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"Cannot read the law {text[:80]!r}: {str(error).rstrip('.')}. Use a name in bd.LAWS or the text that bd.fit stores."
        ) from None


def _stored(part: Any, packaged: Mapping[str, Any], what: str) -> Any:
    if isinstance(part, str):
        if part in packaged:
            return packaged[part]
        raise ModelError(f"The law has the {what} {part!r}, which this version of bayesdistill does not have.")
    found = _CUSTOM.get((part["name"], part["digest"]))
    if found is None:
        known = any(name == part["name"] for name, _ in _CUSTOM)
        raise ModelError(
            f"The law has the {what} {part['name']!r}, which is not part of bayesdistill"
            + (" and differs from the one of that name in this session" if known else "")
            + ". Pass the law: bd.load(path, law=...) or bd.law_draws(draws, law=...)."
        )
    return found
