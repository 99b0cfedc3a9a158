"""LLVM assembly of single operations, and declarations of the functions that they call."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

MATHEMATICS = ("exp", "expm1", "log", "log1p", "pow", "tanh", "gammaln", "psi")
"""Functions called under the name `bayesdistill_...`; `machine_code` provides their addresses."""
VECTORS = MATHEMATICS[:6]
"""Functions that can have vector versions, called `bayesdistill_..._4` and `bayesdistill_..._8`."""
LANES = (4, 8)

_ARGUMENTS = {"pow": ("double", "double"), "gammaln": ("double", "i32"), "psi": ("double", "i32")}


def _variant(name: str, lanes: int) -> str:
    """Return the attribute by which LLVM finds the vector version of a function (vector function ABI)."""
    kinds = "v" * len(_ARGUMENTS.get(name, "1"))
    return f"_ZGV_LLVM_N{lanes}{kinds}_bayesdistill_{name}(bayesdistill_{name}_{lanes})"


def preamble(lanes: Sequence[int]) -> str:
    """Return the declarations of all functions that are called; `lanes` are the available vector widths."""
    lines = ["declare noalias ptr @malloc(i64)", "declare void @free(ptr)"]
    lines += [f"declare double @llvm.{name}.f64(double)" for name in ("fabs", "sqrt")]
    several = []
    for name in MATHEMATICS:
        arguments = _ARGUMENTS.get(name, ("double",))
        line = f"declare double @bayesdistill_{name}({', '.join(arguments)}) nounwind willreturn memory(none)"
        if lanes and name in VECTORS:
            line += f' "vector-function-abi-variant"="{",".join(_variant(name, count) for count in lanes)}"'
            for count in lanes:
                kind = f"<{count} x double>"
                several.append(f"@bayesdistill_{name}_{count}")
                lines.append(f"declare {kind} {several[-1]}({', '.join([kind] * len(arguments))})")
        lines.append(line)
    if several:  # otherwise LLVM removes them, because nothing calls them yet
        kept = ", ".join(f"ptr {name}" for name in several)
        lines.append(f'@llvm.compiler.used = appending global [{len(several)} x ptr] [{kept}], section "llvm.metadata"')
    return "\n".join([*lines, ""])


def literal(value: float) -> str:
    """Return the exact LLVM literal of a double."""
    return "0x" + struct.pack(">d", value).hex().upper()


ZERO, ONE, NAN, INFINITY = literal(0.0), literal(1.0), literal(float("nan")), literal(float("inf"))
_WHOLE = {literal(float(exponent)): exponent for exponent in range(-4, 5)}

# Elementwise functions, by the name of PyTensor's scalar operation in lower case. `f(name, ...)` writes another function.
_INSTRUCTIONS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "truediv": "fdiv", "neg": "fneg"}
_COMPARISONS = {"eq": "oeq", "neq": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "isnan": "uno"}
_INTRINSICS = {"abs": "llvm.fabs.f64", "sqrt": "llvm.sqrt.f64"}
_DEFINED: dict[str, Callable[..., str]] = {
    "identity": lambda f, x: x,
    "first": lambda f, x, y: x,
    "second": lambda f, x, y: y,
    "and": lambda f, x, y: f("mul", x, y),
    "or": lambda f, x, y: f("neq", f("add", x, y), ZERO),
    "invert": lambda f, x: f("eq", x, ZERO),
    "isinf": lambda f, x: f("eq", f("abs", x), INFINITY),
    "check": lambda f, x, condition: f("switch", condition, x, NAN),
    "sign": lambda f, x: f("switch", f("isnan", x), x, f("sub", f("gt", x, ZERO), f("lt", x, ZERO))),
    "sqr": lambda f, x: f("mul", x, x),
    "reciprocal": lambda f, x: f("truediv", ONE, x),
    "sigmoid": lambda f, x: f("reciprocal", f("add", ONE, f("exp", f("neg", x)))),
    # Without a branch, so that LLVM can vectorize the loop.
    "softplus": lambda f, x: f(
        "add", f("switch", f("gt", x, ZERO), x, ZERO), f("log1p", f("exp", f("neg", f("abs", x))))
    ),
    # ln(1 - e^x) for x < 0: to full precision for small x, to 1e-16 in absolute terms for large x.
    "log1mexp": lambda f, x: f("log", f("neg", f("expm1", x))),
    # NaN if one of the numbers is NaN.
    "maximum": lambda f, x, y: f("switch", f("isnan", x), x, f("switch", f("gt", x, y), x, y)),
    "minimum": lambda f, x, y: f("switch", f("isnan", x), x, f("switch", f("lt", x, y), x, y)),
}
ELEMENTWISE = frozenset({*_INSTRUCTIONS, *_COMPARISONS, *_INTRINSICS, *_DEFINED, *MATHEMATICS, "switch"})
"""Names of all elementwise functions."""


class Text:
    """Lines of a function: those at its entry, and those that follow."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._entry: list[str] = []
        self._allocas: list[str] = []
        self._count = 0

    def _name(self) -> str:
        self._count += 1
        return f"%v{self._count}"

    def _do(self, text: str, entry: bool = False) -> str:
        """Write an instruction, at the entry of the function if asked; return the name of its result."""
        name = self._name()
        (self._entry if entry else self._lines).append(f"  {name} = {text}")
        return name

    def _say(self, text: str) -> None:
        self._lines.append(f"  {text}")

    def _cell(self, start: str) -> str:
        """Allocate memory for one number; LLVM keeps it in a register if it is allocated at the entry."""
        name = self._name()
        self._allocas.append(f"  {name} = alloca double")
        self._say(f"store double {start}, ptr {name}")
        return name

    def _function(self, name: str, *a: str) -> str:
        """Write an elementwise function of numbers; truth values are 0 and 1."""
        values = ", ".join(f"double {value}" for value in a)
        if name in _INSTRUCTIONS:
            return self._do(f"{_INSTRUCTIONS[name]} double {', '.join(a)}")
        if name in _COMPARISONS:
            return self._do(f"uitofp i1 {self._compare(name, *a)} to double")
        if name in _INTRINSICS:
            return self._do(f"call double @{_INTRINSICS[name]}({values})")
        if name == "switch":
            return self._choose(self._do(f"fcmp une double {a[0]}, {ZERO}"), a[1], a[2])
        if name == "pow" and a[1] in _WHOLE:
            return self._power(a[0], _WHOLE[a[1]])
        if name in MATHEMATICS:
            extra = ", i32 0" if _ARGUMENTS.get(name, ())[1:] == ("i32",) else ""
            return self._do(f"call double @bayesdistill_{name}({values}{extra})")
        return _DEFINED[name](self._function, *a)

    def _compare(self, name: str, *a: str) -> str:
        """Write a comparison of two numbers, or of one with itself, as i1."""
        return self._do(f"fcmp {_COMPARISONS[name]} double {a[0]}, {a[-1]}")

    def _choose(self, condition: str, one: str, other: str) -> str:
        return self._do(f"select i1 {condition}, double {one}, double {other}")

    def _power(self, x: str, exponent: int) -> str:
        result = ONE if exponent == 0 else x
        for _ in range(abs(exponent) - 1):
            result = self._function("mul", result, x)
        return self._function("reciprocal", result) if exponent < 0 else result
