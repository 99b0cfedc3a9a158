"""The few kinds of arithmetic that a log density of this package is made of, between PyTensor's graph and machine code.

`lowering` turns PyTensor's graph into terms, `emission` terms into code. A term is a scalar, or an array over one or more
dimensions; dimensions of length one are left out, so that broadcasting has no part in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CONST, INPUT, POINT, LENGTH = "const", "input", "point", "length"
MAP, REDUCE, SCATTER, GATHER, ELEMENT, PLACE, SLICE, PAD = (
    "map",
    "reduce",
    "scatter",
    "gather",
    "element",
    "place",
    "slice",
    "pad",
)
LEAVES = frozenset({CONST, INPUT, POINT, LENGTH})
COLLECTS = frozenset({REDUCE, SCATTER})
"""Terms that are complete only after the loop over their argument."""


class UnsupportedGraphError(Exception):
    """A graph holds something that has no term; PyTensor's own compiler has to take it."""


@dataclass(eq=False, slots=True)
class Term:
    """One scalar or array.

    Parameters
    ----------
    kind : str
        const (payload: the number), input (payload: number of the array, dtype), point (payload: place in the free vector),
        length (payload: a dimension), map (payload: name of the function), reduce (payload: add, maximum, minimum, and), scatter
        (sums the first argument into the elements that the second names), gather (the elements of the first that the second
        names), element (payload: index), place (first argument, plus the second at the index of the payload), slice and pad
        (payload: start; of a vector, and its transpose).
    args : tuple of (Term, positions)
        `positions[i]` is the place of the argument's dimension i among the dimensions of the loop.
    dims : tuple of int
        Dimensions of the term, outermost first.
    loop : tuple of int
        Dimensions of the loop that computes it: those of the argument for reduce and scatter, otherwise its own.
    """

    kind: str
    args: tuple[tuple[Term, tuple[int, ...]], ...] = ()
    dims: tuple[int, ...] = ()
    payload: Any = None
    loop: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()
    level: int = field(default=0)


class Dimensions:
    """Lengths of dimensions: numbers, or the length of an axis of an input; equal where the graph needs them to be."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._length: list[int | None] = []
        self._by_length: dict[int, int] = {}
        self.axes: list[tuple[int, int, int]] = []

    def fixed(self, length: int) -> int:
        """The dimension of this length."""
        if length not in self._by_length:
            self._by_length[length] = self._new(length)
        return self._by_length[length]

    def of_axis(self, number: int, axis: int) -> int:
        """The dimension of an axis of an input whose length is known only when the function runs."""
        dim = self._new(None)
        self.axes.append((dim, number, axis))
        return dim

    def _new(self, length: int | None) -> int:
        self._parent.append(len(self._parent))
        self._length.append(length)
        return len(self._parent) - 1

    def root(self, dim: int) -> int:
        """The one of several equal dimensions that stands for all."""
        while self._parent[dim] != dim:
            dim = self._parent[dim]
        return dim

    def same(self, one: int, other: int) -> int:
        """Demand that two dimensions have the same length."""
        one, other = self.root(one), self.root(other)
        if one == other:
            return one
        if self._length[one] is None:
            one, other = other, one
        if self._length[other] is not None:
            raise UnsupportedGraphError(f"lengths {self._length[one]} and {self._length[other]} do not agree")
        self._parent[other] = one
        return one

    def length(self, dim: int) -> int | None:
        """The length, or None where it is known only when the function runs."""
        return self._length[self.root(dim)]

    def axis_of(self, dim: int) -> tuple[int, int]:
        """An input and its axis that have this length."""
        root = self.root(dim)
        for member, number, axis in self.axes:
            if self.root(member) == root:
                return number, axis
        raise UnsupportedGraphError("a dimension of no input")


class Handle:
    """What a variable of PyTensor's became: a term, and for each axis the dimension of the term, or None for length one."""

    __slots__ = ("axes", "term")

    def __init__(self, term: Term, axes: tuple[int | None, ...]) -> None:
        self.term = term
        self.axes = axes
