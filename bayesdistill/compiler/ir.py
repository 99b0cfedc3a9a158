"""Intermediate representation: the few operations into which a log density is translated.

`lowering` translates PyTensor's graph into operations, and `code_generation` translates operations into LLVM's assembly. The
result of an operation is a scalar or an array of one or more dimensions. Dimensions of length one are dropped, so operations need no
broadcasting rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["const", "input", "point", "length", "map", "reduce", "scatter", "gather", "slice", "pad"]
LEAVES = frozenset({"const", "input", "point", "length"})
COLLECTS = frozenset({"reduce", "scatter"})
"""Operations whose result is complete only after the loop over their argument."""

INDEX_TYPES = {f"{sign}int{bits}": f"i{bits}" for sign in ("", "u") for bits in (8, 16, 32)} | {"int64": "i64"}
DATA_TYPES = {"float64": "double", "bool": "i8", **INDEX_TYPES}
"""Data types of an index and of data, and LLVM's names of them."""


class UnsupportedGraphError(Exception):
    """The model contains something that the compiler does not support; the message names it."""


@dataclass(eq=False, slots=True)
class Operation:
    """One operation, whose result is a scalar or an array.

    Parameters
    ----------
    kind : Kind
        One of

        - const: a number (payload: the number)
        - input: an array of data (payload: its position among the inputs, dtype)
        - point: free variables (payload: their offset in the vector that the sampler moves)
        - length: the length of a dimension (payload: the dimension)
        - map: an elementwise function (payload: its name)
        - reduce: a reduction (payload: add, maximum, minimum or and)
        - scatter: sum the first argument into the elements that the second argument names (payload: add)
        - gather: the elements of the first argument that the second argument names
        - slice: consecutive elements of a vector, or one element as a scalar (payload: start)
        - pad: the first argument, with the second added to consecutive elements (payload: start, count)
    args : tuple of (Operation, positions)
        `positions[i]` is the position of the argument's dimension i among the dimensions of the loop.
    dims : tuple of int
        Dimensions of the result, outermost first.
    payload : object
        See `kind`.
    loop : tuple of int
        Dimensions of the loop that computes the result: the dimensions of the argument for reduce and scatter, otherwise `dims`.
    kept : tuple of int
        For reduce: positions of the dimensions of the loop that the result keeps.
    level : int
        Loops of a lower level run first; set by `scheduling.schedule`.
    """

    kind: Kind
    args: tuple[tuple[Operation, tuple[int, ...]], ...] = ()
    dims: tuple[int, ...] = ()
    payload: Any = None
    loop: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()
    level: int = 0

    def __post_init__(self) -> None:
        self.loop = self.loop or self.dims


class Dimensions:
    """Dimensions and their lengths, and which of them must be equal.

    A length is either a number or the length of an axis of an input, which is known only when the function runs.
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._length: list[int | None] = []
        self._by_length: dict[int, int] = {}
        self.axes: list[tuple[int, int, int]] = []

    def fixed(self, length: int) -> int:
        """Return the dimension of a length."""
        if length not in self._by_length:
            self._by_length[length] = self._new(length)
        return self._by_length[length]

    def of_axis(self, number: int, axis: int) -> int:
        """Add the dimension of an axis of an input whose length is not fixed."""
        dim = self._new(None)
        self.axes.append((dim, number, axis))
        return dim

    def _new(self, length: int | None) -> int:
        self._parent.append(len(self._parent))
        self._length.append(length)
        return len(self._parent) - 1

    def root(self, dim: int) -> int:
        """Return the representative of all dimensions that are equal to this one."""
        while self._parent[dim] != dim:
            dim = self._parent[dim]
        return dim

    def same(self, one: int, other: int) -> int:
        """Require that two dimensions have the same length; return their representative."""
        one, other = self.root(one), self.root(other)
        if one == other:
            return one
        if self._length[one] is None:
            one, other = other, one
        if self._length[other] is not None:
            raise UnsupportedGraphError(
                f"arrays of lengths {self._length[one]} and {self._length[other]} in one operation"
            )
        self._parent[other] = one
        return one

    def length(self, dim: int) -> int | None:
        """Return the length, or None if it is known only when the function runs."""
        return self._length[self.root(dim)]

    def axis_of(self, dim: int) -> tuple[int, int]:
        """Return an input and the axis of it that has this length."""
        root = self.root(dim)
        for member, number, axis in self.axes:
            if self.root(member) == root:
                return number, axis
        raise UnsupportedGraphError("a length that no input has")


@dataclass(frozen=True, slots=True)
class Handle:
    """What a PyTensor variable is translated into.

    Parameters
    ----------
    op : Operation
    axes : tuple of int or None
        For each axis of the variable the position of its dimension in `op.dims`, or None if its length is one.
    """

    op: Operation
    axes: tuple[int | None, ...] = ()
