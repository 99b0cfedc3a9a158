"""PyTensor operations that the compiler supports, and their names in the intermediate representation."""

from __future__ import annotations

import operator
from collections.abc import Callable

FUNCTIONS = {
    "Abs": "abs",
    "Add": "add",
    "AND": "and",
    "EQ": "eq",
    "Exp": "exp",
    "Expm1": "expm1",
    "GE": "ge",
    "GT": "gt",
    "GammaLn": "gammaln",
    "Identity": "identity",
    "Invert": "not",
    "IsInf": "isinf",
    "IsNan": "isnan",
    "LE": "le",
    "LT": "lt",
    "Log": "log",
    "Log1mexp": "log1mexp",
    "Log1p": "log1p",
    "Maximum": "maximum",
    "Minimum": "minimum",
    "Mul": "mul",
    "NEQ": "neq",
    "Neg": "neg",
    "OR": "or",
    "Pow": "pow",
    "Psi": "psi",
    "Reciprocal": "reciprocal",
    "Second": "second",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Softplus": "softplus",
    "Sqr": "sqr",
    "Sqrt": "sqrt",
    "Sub": "sub",
    "Switch": "switch",
    "Tanh": "tanh",
    "TrueDiv": "div",
}
"""PyTensor's scalar operation -> elementwise function."""

FOLDABLE = ("add", "mul", "and", "or", "maximum", "minimum")
"""Functions of any number of arguments."""

FOLDED: dict[str, Callable[..., float]] = {
    "add": lambda *a: sum(a[1:], a[0]),
    "first": lambda a, _: a,
    "identity": lambda a: a,
    "neg": operator.neg,
    "second": lambda _, b: b,
    "sub": operator.sub,
}
"""Functions that are evaluated during compilation if all arguments are constants."""

REDUCTIONS = {"Add": "add", "Maximum": "maximum", "Minimum": "minimum", "AND": "and"}
"""PyTensor's scalar operation -> reduction."""

INDEX_DTYPES = ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32")
"""Data types of an index."""
