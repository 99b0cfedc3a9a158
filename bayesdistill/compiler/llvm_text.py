"""LLVM assembly of single operations, and declarations of the functions that they call."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from bayesdistill.compiler.ir import UnsupportedGraphError

MATHEMATICS = ("exp", "expm1", "log", "log1p", "pow", "tanh", "gammaln", "psi")
"""Functions called under the name `bayesdistill_...`; `machine_code` provides their addresses."""

_ARGUMENTS = {"pow": "double, double", "gammaln": "double, i32", "psi": "double, i32"}

VECTORS = ("exp", "expm1", "log", "log1p", "pow", "tanh")
"""Functions that can have vector versions, called `bayesdistill_..._4` and `bayesdistill_..._8`."""
LANES = (4, 8)


def _arguments(name: str) -> list[str]:
    return _ARGUMENTS.get(name, "double").split(", ")


def _variant(name: str, lanes: int) -> str:
    """Return the attribute by which LLVM finds the vector version of a function (vector function ABI)."""
    kinds = "v" * len(_arguments(name))
    return f"_ZGV_LLVM_N{lanes}{kinds}_bayesdistill_{name}(bayesdistill_{name}_{lanes})"


def preamble(lanes: Sequence[int]) -> str:
    """Return the declarations of all functions that are called; `lanes` are the available vector widths."""
    lines = ["declare noalias ptr @malloc(i64)", "declare void @free(ptr)"]
    lines += [f"declare double @llvm.{name}.f64(double)" for name in ("fabs", "sqrt")]
    several = []
    for name in MATHEMATICS:
        arguments = _arguments(name)
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


class Text:
    """Lines of a function: those at its entry, and those that follow."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._count = 0
        self._entry: list[str] = []
        self._allocas: list[str] = []

    def _name(self) -> str:
        self._count += 1
        return f"%v{self._count}"

    def _do(self, text: str) -> str:
        name = self._name()
        self._lines.append(f"  {name} = {text}")
        return name

    def _say(self, text: str) -> None:
        self._lines.append(f"  {text}")

    def _at_entry(self, text: str) -> str:
        name = self._name()
        self._entry.append(f"  {name} = {text}")
        return name

    def _cell(self) -> str:
        """Allocate memory for one number; LLVM keeps it in a register if it is allocated at the entry."""
        name = self._name()
        self._allocas.append(f"  {name} = alloca double")
        return name

    def _truth(self, condition: str) -> str:
        return self._do(f"uitofp i1 {condition} to double")

    def _compare(self, kind: str, one: str, other: str) -> str:
        return self._do(f"fcmp {kind} double {one}, {other}")

    def _arithmetic(self, kind: str, one: str, other: str) -> str:
        return self._do(f"{kind} double {one}, {other}")

    def _choose(self, condition: str, one: str, other: str) -> str:
        return self._do(f"select i1 {condition}, double {one}, double {other}")

    def _call(self, name: str, *args: str) -> str:
        return self._do(f"call double @{name}({', '.join(f'double {a}' for a in args)})")

    # Functions --------------------------------------------------------------------------------------------------------

    def _function(self, name: str, a: list[str]) -> str:
        binary = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
        comparisons = {"eq": "oeq", "neq": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
        if name in binary:
            return self._arithmetic(binary[name], a[0], a[1])
        if name in comparisons:
            return self._truth(self._compare(comparisons[name], a[0], a[1]))
        if name in ("identity", "first"):
            return a[0]
        if name == "second":
            return a[1]
        if name == "pow" and a[1] in _WHOLE:
            return self._power(a[0], _WHOLE[a[1]])
        if name in ("gammaln", "psi"):
            return self._do(f"call double @bayesdistill_{name}(double {a[0]}, i32 0)")
        if name in MATHEMATICS:
            return self._call(f"bayesdistill_{name}", *a)
        simple: dict[str, Callable[[], str]] = {
            "softplus": lambda: self._softplus(a[0]),
            "log1mexp": lambda: self._log1mexp(a[0]),
            "neg": lambda: self._do(f"fneg double {a[0]}"),
            "abs": lambda: self._call("llvm.fabs.f64", a[0]),
            "sqrt": lambda: self._call("llvm.sqrt.f64", a[0]),
            "sqr": lambda: self._arithmetic("fmul", a[0], a[0]),
            "reciprocal": lambda: self._arithmetic("fdiv", ONE, a[0]),
            "isnan": lambda: self._truth(self._compare("uno", a[0], a[0])),
            "isinf": lambda: self._truth(self._compare("oeq", self._call("llvm.fabs.f64", a[0]), INFINITY)),
            "not": lambda: self._truth(self._compare("oeq", a[0], ZERO)),
            "and": lambda: self._arithmetic("fmul", a[0], a[1]),
            "or": lambda: self._truth(self._compare("une", self._arithmetic("fadd", a[0], a[1]), ZERO)),
            "switch": lambda: self._choose(self._compare("une", a[0], ZERO), a[1], a[2]),
            "check": lambda: self._choose(self._compare("une", a[1], ZERO), a[0], NAN),
            "sign": lambda: self._sign(a[0]),
            "sigmoid": lambda: self._sigmoid(a[0]),
            "maximum": lambda: self._extreme("ogt", a),
            "minimum": lambda: self._extreme("olt", a),
        }
        if name not in simple:
            raise UnsupportedGraphError(f"the function {name}")
        return simple[name]()

    def _power(self, x: str, exponent: int) -> str:
        result = ONE if exponent == 0 else x
        for _ in range(abs(exponent) - 1):
            result = self._arithmetic("fmul", result, x)
        return self._arithmetic("fdiv", ONE, result) if exponent < 0 else result

    def _sign(self, x: str) -> str:
        positive, negative = self._compare("ogt", x, ZERO), self._compare("olt", x, ZERO)
        one = self._arithmetic("fsub", self._truth(positive), self._truth(negative))
        return self._choose(self._compare("uno", x, x), x, one)

    def _sigmoid(self, x: str) -> str:
        power = self._call("bayesdistill_exp", self._do(f"fneg double {x}"))
        return self._arithmetic("fdiv", ONE, self._arithmetic("fadd", ONE, power))

    def _softplus(self, x: str) -> str:
        """Write softplus without a branch, so that LLVM can vectorize the loop."""
        positive = self._choose(self._compare("ogt", x, ZERO), x, ZERO)
        power = self._call("bayesdistill_exp", self._do(f"fneg double {self._call('llvm.fabs.f64', x)}"))
        return self._arithmetic("fadd", positive, self._call("bayesdistill_log1p", power))

    def _log1mexp(self, x: str) -> str:
        """Write ln(1 - e^x) for x < 0: to full precision for small x, to 1e-16 in absolute terms for large x."""
        return self._call("bayesdistill_log", self._do(f"fneg double {self._call('bayesdistill_expm1', x)}"))

    def _extreme(self, kind: str, a: list[str]) -> str:
        """Write the larger or smaller of two numbers; NaN if one of them is NaN."""
        one = self._choose(self._compare(kind, a[0], a[1]), a[0], a[1])
        return self._choose(self._compare("uno", a[0], a[0]), a[0], one)
