r"""Terms of a law: symbols, coordinates, and functions for slots of the formula.

The loss of a distilled student has five slots:

.. math::

    \mathrm{ability} &= L_\mathrm{sup}(N_S, \mathtt{ability\_tokens}) \\
    \ln r &= \ln(L_T / \mathrm{ability}) \cdot \mathrm{ability} / (\mathrm{ability} - \mathtt{irreducible}) \\
    L_S &= \mathtt{floor} + \exp(\mathtt{excess} + \mathtt{student\_excess})

They start as D_S, 0, L_T, 0 and 0. A term has a function for each slot that it modifies: it takes the current value of the slot and
returns the new one. A term that changes the formula in another way requires a new slot here, and no other change. The
functions must be written with operators and the functions of `formulas`, so that they accept numpy arrays and PyTensor
variables. The PyMC model has sizes, tokens and the coefficients of powers (`Parameter.per`) in units of the reference run.
`ability_tokens` must return a multiple of the tokens, because it is given them in either unit.

The slots `excess` and `student_excess` are also evaluated at the reference run, to find the power sum from the coordinates. There
A_S, B_S, alpha_S, beta_S and gamma_S are not known yet, and `student.log_term` is 0.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from types import FunctionType
from typing import Any

from bayesdistill.errors import ParameterError
from bayesdistill.law.parameters import Coordinate, Parameter, Reference

Values = Mapping[str, Any]
"""Symbol or coordinate -> float, array or tensor. Everything broadcasts."""


class Zero:
    """Zero in a sum that adds no operation: arrays are not copied, and graphs are not changed."""

    __array_ufunc__ = None  # numpy leaves `array + zero` to this class

    def __add__(self, other: Any) -> Any:
        return other

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return -other

    def __rsub__(self, other: Any) -> Any:
        return other

    def __mul__(self, other: Any) -> Zero:
        return self

    __rmul__ = __truediv__ = __mul__

    def __neg__(self) -> Zero:
        return self


ZERO = Zero()
"""What sums in slots start with."""


@dataclass(frozen=True)
class Part:
    """A part of a law: a frozen dataclass whose fields may hold functions."""

    name: str

    @property
    def digest(self) -> str:
        """Digest of all that the part says and computes, 16 hexadecimal digits.

        Of functions it covers the source without comments and layout, so that it is the same in every version of Python, the
        values that they enclose, and the functions of the same module that they call.
        """
        content = repr([_content(getattr(self, field.name), set()) for field in fields(self)])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Student:
    """The student's part of the law: everything that does not depend on the teacher.

    All fields are floats, arrays or tensors that broadcast against each other.

    Parameters
    ----------
    params, tokens
        N_S and D_S, in the units of the symbols: single parameters and tokens, or units of the reference run.
    supervised
        Loss of the student pretrained on its tokens, nats per token.
    ability_tokens
        Tokens that count for the student's ability, in the same units.
    log_ability
        Logarithm of the loss with which the capacity gap compares the teacher.
    stretch
        d ln r / d ln L_T.
    log_above
        Logarithm of the ability minus the irreducible part.
    log_term
        gamma_S log(A_S / N_S^alpha_S + B_S / D_S^beta_S).
    log_excess
        Sum of the slot `student_excess`.
    """

    params: Any
    tokens: Any
    supervised: Any
    ability_tokens: Any
    log_ability: Any
    stretch: Any
    log_above: Any
    log_term: Any = 0.0
    log_excess: Any = 0.0

    def map(self, function: Callable[[Any], Any]) -> Student:
        """Apply a function, such as indexing, to every field that is not a scalar."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: function(v) for name, v in values.items() if getattr(v, "ndim", 0)})


@dataclass(frozen=True)
class AtReference:
    """The law at the reference run, for the transform between coordinates and symbols.

    Parameters
    ----------
    reference : Reference
        In the units of the symbols: one parameter and one token where the symbols are in units of the reference run.
    student : Student
        Of the reference run, without the student term.
    log_ratio
        ln r of the reference run.
    log_ratio_alone
        ln r of a teacher as good as the student pretrained on the run's tokens.
    others
        Contribution of all terms except `student` to the logarithm of the excess.
    """

    reference: Reference
    student: Student
    log_ratio: Any
    log_ratio_alone: Any
    others: Any = 0.0


@dataclass(frozen=True)
class Term(Part):
    """A part of a law. Every function is optional.

    Parameters
    ----------
    name : str
    sentence : str
        Sentence for methods sections.
    parameters, coordinates : tuple
        Those that the term adds, in the model's order.
    kind : {"distilled", "supervised"}
        "supervised" for terms of the supervised law, which describe pretrained models too.
    replaces : tuple of str
        Coordinates of other terms that the term makes superfluous.
    determines : tuple of str
        Symbols that the term makes equal to others.
    symbols : callable (c, p, at) -> dict
        Symbols that follow from several coordinates `c`, given the symbols `p` found so far and `at`, an `AtReference`.
        Symbols of coordinates with their own link need no function.
    coordinates_of : callable (p, at) -> dict
        The inverse of `symbols`.
    sum_symbols : callable (c, p, at) -> dict
        A_S, B_S, alpha_S, beta_S and gamma_S, once all other symbols are known. The last term that has it applies.
    sum_coordinates : callable (p, at) -> dict
        The inverse of `sum_symbols`.
    ability_tokens : callable (tokens, p)
    irreducible : callable (loss, p)
    student_excess : callable (log_excess, student, p)
    excess : callable (log_excess, student, teacher_loss, log_ratio, p)
    floor : callable (loss, student, teacher_loss, p)
        Slots of the formula; see the module.
    """

    sentence: str = ""
    parameters: tuple[Parameter, ...] = ()
    coordinates: tuple[Coordinate, ...] = ()
    kind: str = "distilled"
    replaces: tuple[str, ...] = ()
    determines: tuple[str, ...] = ()
    symbols: Callable[[Values, Values, Any], dict[str, Any]] | None = None
    coordinates_of: Callable[[Values, Any], dict[str, Any]] | None = None
    sum_symbols: Callable[[Values, Values, AtReference], dict[str, Any]] | None = None
    sum_coordinates: Callable[[Values, AtReference], dict[str, Any]] | None = None
    ability_tokens: Callable[[Any, Values], Any] | None = None
    irreducible: Callable[[Any, Values], Any] | None = None
    student_excess: Callable[[Any, Student, Values], Any] | None = None
    excess: Callable[[Any, Student, Any, Any, Values], Any] | None = None
    floor: Callable[[Any, Student, Any, Values], Any] | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("distilled", "supervised"):
            raise ParameterError(
                f"The term {self.name!r} must be of the kind 'distilled' or 'supervised', got {self.kind!r}."
            )
        symbols, linked = {p.name for p in self.parameters}, {c.symbol for c in self.coordinates if c.symbol}
        if self.coordinates and self.symbols is None and self.sum_symbols is None and symbols != linked:
            raise ParameterError(
                f"The term {self.name!r} has the symbols {sorted(symbols)}, but its coordinates determine {sorted(linked)}. Give each "
                "coordinate its `symbol`, or the term a function `symbols`."
            )


def _content(value: Any, seen: set[FunctionType]) -> Any:
    """A value for `repr` that is the same in every process."""
    if not isinstance(value, FunctionType):
        if callable(value):
            raise ParameterError(f"A term can be stored only if its slots are functions, got {value!r}.")
        return repr(value)
    if value in seen:
        return value.__name__
    seen.add(value)
    called = [value.__globals__.get(name) for name in value.__code__.co_names]
    own: list[Any] = [f for f in called if isinstance(f, FunctionType) and f.__module__ == value.__module__]
    own += [constant for constant in called if isinstance(constant, bool | int | float | str | tuple)]
    enclosed = [cell.cell_contents for cell in value.__closure__ or ()]
    return [_source(value), repr(value.__defaults__), [_content(one, seen) for one in (*enclosed, *own)]]


def _source(function: FunctionType) -> str:
    try:
        text = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):  # defined where no source is kept
        return function.__code__.co_code.hex() + repr(function.__code__.co_consts)
    try:
        return ast.unparse(ast.parse(text))
    except SyntaxError:  # a lambda within a longer expression
        return text
