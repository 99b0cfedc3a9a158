"""The law as JavaScript, recorded while the Python functions of the law run, so that each formula has one definition.

`Expression` stands for a number that only the browser computes. Arithmetic and numpy functions applied to it compute nothing
but append to a `Trace`. Calling `Law.distilled_loss` with expressions therefore records its formula, with all terms of the law.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from bayesdistill.compute import (
    Shape,
    flops_by_part,
    flops_elasticity,
    forward_flops,
    pretraining_tokens,
    student_cost_per_token,
    teacher_cost,
)
from bayesdistill.decisions.prices import Prices
from bayesdistill.errors import ParameterError
from bayesdistill.law import Draws, Law
from bayesdistill.law.discrepancy import log_compute
from bayesdistill.law.parameters import Reference
from bayesdistill.law.predictive import Deviations
from bayesdistill.strategies.frontier import log_optimal_tokens, solve_charged

JAVASCRIPT: dict[np.ufunc, str] = {
    np.add: "({} + {})",
    np.subtract: "({} - {})",
    np.multiply: "({} * {})",
    np.divide: "({} / {})",
    np.negative: "(-{})",
    np.positive: "{}",
    np.reciprocal: "(1 / {})",
    np.absolute: "Math.abs({})",
    np.fabs: "Math.abs({})",
    np.power: "Math.pow({}, {})",
    np.float_power: "Math.pow({}, {})",
    np.minimum: "Math.min({}, {})",
    np.maximum: "Math.max({}, {})",
    np.arctan: "Math.atan({})",
}
JAVASCRIPT |= {
    getattr(np, name): f"Math.{name}({{}})"
    for name in ("exp", "expm1", "log", "log1p", "log2", "log10", "sqrt", "cbrt", "sin", "cos", "sinh", "cosh", "tanh")
}
"""numpy function -> the same in JavaScript."""

Trace = dict[tuple[Any, ...], int]
"""(JavaScript, numbers of its arguments) -> number of the operation. An operation that occurs twice has one number."""


class Expression(NDArrayOperatorsMixin):
    """A value of the browser: an operation, a constant or a symbol.

    Parameters
    ----------
    trace : dict
        Where operations are recorded.
    code : str
        JavaScript, with `{}` in place of each argument.
    *arguments : int
        Numbers of earlier operations.
    """

    def __init__(self, trace: Trace, code: str, *arguments: int) -> None:
        self.trace = trace
        self.number = trace.setdefault((code, *arguments), len(trace))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Expression:
        if ufunc is np.square:
            return inputs[0] * inputs[0]
        if ufunc not in JAVASCRIPT or method != "__call__" or options:
            name = ufunc.__name__ + (f".{method}" if method != "__call__" else "")
            known = ", ".join(sorted(f"np.{each.__name__}" for each, code in JAVASCRIPT.items() if "Math" in code))
            raise ParameterError(
                f"Cannot translate the numpy function {name!r} in a term of the law to JavaScript for the interactive page. "
                f"Use +, -, *, /, ** and {known}."
            )
        return Expression(self.trace, JAVASCRIPT[ufunc], *(self._number(value) for value in inputs))

    def _number(self, value: Any) -> int:
        if isinstance(value, Expression):
            return value.number
        if np.ndim(value):
            raise ParameterError(
                f"Cannot translate an array of shape {np.shape(value)} in a term of the law to JavaScript for the "
                "interactive page. Use scalar constants."
            )
        return Expression(self.trace, json.dumps(float(value))).number

    def __bool__(self) -> bool:
        raise ParameterError(
            "Cannot translate a condition on values in a term of the law to JavaScript for the interactive page. "
            "Use np.minimum, np.maximum or np.abs."
        )


class _Paths(NamedTuple):
    """Draws for `Deviations`, as expressions: the law's symbols, and discrepancies as functions of the browser."""

    law: Law
    symbols: dict[str, Expression]
    reference: Reference
    ratios: tuple[float, float] | None

    def student(self, params: Any, tokens: Any) -> Any:
        return self.law.student(params, tokens, self.symbols)

    def discrepancy(self, kind: str, params: Any, tokens: Any) -> Any:
        """Sum of `pathAt(knots of the draw, their first position, position)`.

        Positions are the log of the student's own compute and, outside their range, of tokens per parameter.
        """
        if not any(kind in one.kinds for one in self.law.discrepancy):
            return 0.0
        position: Any = log_compute(params, tokens, self.reference)
        total = Expression(position.trace, f"pathAt(p.path_{kind}, p.first.path, {{}})", position.number)
        if self.ratios is None:
            return total
        ratio = np.log(tokens) - np.log(params)
        low, high = np.log(self.ratios).tolist()
        outside = ratio - np.minimum(np.maximum(ratio, low), high)
        return total + Expression(outside.trace, f"pathAt(p.ratio_{kind}, p.first.ratio, {{}})", outside.number)


def deviation_function(draws: Draws) -> str:
    """Return the JavaScript function `deviation(p, N, D, T, M)`, `Deviations.difference` of one draw.

    `p` is an object with the law's symbols, the residuals and group effects of `deviation_values`, and the knots of paths. The
    distilled student has D tokens and a teacher with loss T, the pretrained one M tokens.
    """
    trace: Trace = {}
    p = {name: Expression(trace, f"p.{name}") for name in (q.name for q in draws.law.parameters)}
    N, D, T, M = (Expression(trace, name) for name in ("N", "D", "T", "M"))
    effects: Any = (
        {e.name: Expression(trace, f"p.{of}_{e.name}") for e in draws.law.effects if has(e)}
        for of, has in (
            ("own", lambda e: e.kind == "distilled"),
            ("other", lambda e: e.of_pretrained or e.kind == "supervised"),
        )
    )
    known: Any = _Paths(draws.law, p, draws.reference, None if draws.paths is None else draws.paths.ratios)
    residual: Any = Expression(trace, "p.residual")
    pretrained: Any = Expression(trace, "p.pretrained_residual")
    found = Deviations(known, residual, pretrained, *effects).difference(N, D, T, M)
    body = _statements(list(trace), [np.asarray(found).item().number], "return {};")
    return "\n".join(["function deviation(p, N, D, T, M) {", *body, "}"])


def cost_functions(shape: Shape) -> str:
    """Return JavaScript functions for costs.

    - `flops(N)` and `flopsSlope(N)`: forward FLOPs per token, F(N), and d log F / d log N.
    - `tokensFor(budget, N)`: tokens that a budget buys in pretraining.
    - `distillationTokens(budget, F, F_T, D_T, lgt, pre)`: tokens of a student that a budget buys, with the F of student and teacher.
    """
    trace: Trace = {}
    N, budget, own, teacher, tokens, lgt, pre = (
        Expression(trace, name) for name in ("N", "budget", "F", "F_T", "D_T", "lgt", "pre")
    )
    left = budget - teacher_cost(teacher, tokens, pre)
    functions = {
        "flops(N)": forward_flops(N, shape),
        "flopsSlope(N)": flops_elasticity(*flops_by_part(N, shape)),
        "tokensFor(budget, N)": pretraining_tokens(N, budget, shape),
        "distillationTokens(budget, F, F_T, D_T, lgt, pre)": left / student_cost_per_token(own, teacher, lgt),
    }
    return _functions(trace, functions)


def teacher_functions() -> str:
    """Return JavaScript functions for the tokens of efficient teachers.

    - `logOptimalTokens(p, slope, x)`: log of the compute-optimal tokens of a teacher with `x` = log N_T and `slope` = g(N_T).
    - `solveCharged(optimal, beta, constant, reach)`: log of its tokens if its inference is charged as well as its pretraining.
    """
    trace: Trace = {}
    p = {name: Expression(trace, f"p.{name}") for name in ("A", "B", "alpha", "beta")}
    slope, x, optimal, beta, constant, reach = (
        Expression(trace, name) for name in ("slope", "x", "optimal", "beta", "constant", "reach")
    )
    functions = {
        "logOptimalTokens(p, slope, x)": log_optimal_tokens(p, slope, x),
        "solveCharged(optimal, beta, constant, reach)": solve_charged(optimal, beta, constant, reach),
    }
    return _functions(trace, functions)


def law_functions(law: Law) -> str:
    """Return JavaScript functions for the losses of a law.

    - `supervisedLoss(p, N, D)`: loss of a pretrained model; `p` is an object with the law's symbols.
    - `prepare(p, N)`: what depends only on a draw and the student's size, as an object.
    - `distilledLoss(prepared, D, T)`: loss of a student distilled on D tokens from a teacher with loss T.
    - `meanDistilledLoss(students, D, N_T, D_T)`: mean over an array of prepared students, with a teacher of this size and
      these tokens. What does not depend on the draw is computed once.

    Raises
    ------
    ParameterError
        If a term cannot be translated.
    """
    unusable = [name for name in law.symbols_of_law if not name.isidentifier()]
    if unusable:
        raise ParameterError(f"The law {law.name!r} has the symbol {unusable[0]!r}, which is not a valid identifier.")
    trace: Trace = {}
    p = {name: Expression(trace, f"p.{name}") for name in law.symbols_of_law}
    N, D, T, N_T, D_T = (Expression(trace, name) for name in ("N", "D", "T", "N_T", "D_T"))
    supervised = law.supervised_loss(N, D, p).number
    student = law.student(N, D, p)
    distilled = law.distilled_loss(student, T, p).number
    from_teacher = law.distilled_loss(student, law.supervised_loss(N_T, D_T, p), p).number

    every = list(trace)
    prepared, evaluated = _split(every, [distilled, from_teacher], {"D", "T", "N_T", "D_T"})
    names = [_name(number) for number in prepared]
    shared, repeated = _split(evaluated, [from_teacher], {"N", *names, *(f"p.{name}" for name in p)})
    fields = f"{{ {', '.join(['p', 'N', *names])} }}"
    functions = {
        "supervisedLoss(p, N, D)": _statements(every, [supervised], "return {};"),
        "prepare(p, N)": [*_statements(every, prepared), f"  return {fields};"],
        f"distilledLoss({fields}, D, T)": _statements(evaluated, [distilled], "return {};"),
        "meanDistilledLoss(students, D, N_T, D_T)": [
            *_statements(evaluated, shared),
            "  let sum = 0;",
            f"  for (const {fields} of students) {{",
            *("  " + line for line in _statements(repeated, [from_teacher], "sum += {};")),
            "  }",
            "  return sum / students.length;",
        ],
    }
    return "\n".join("\n".join([f"function {head} {{", *body, "}"]) for head, body in functions.items())


def price_functions() -> str:
    """Return the JavaScript functions `gpuHours(training, serving, speed)` and `money(training, serving, speed, price)` of FLOPs."""
    trace: Trace = {}
    training, serving = Expression(trace, "training"), Expression(trace, "serving")
    speed: Any = Expression(trace, "speed")
    price: Any = Expression(trace, "price")
    costs = Prices(speed, price, speed, price, "").costs("total", training, serving)
    functions = {
        "gpuHours(training, serving, speed)": costs["total_gpu_hours"],
        "money(training, serving, speed, price)": costs["total_money"],
    }
    return _functions(trace, functions)


def _functions(trace: Trace, values: dict[str, Expression]) -> str:
    """JavaScript functions, each by its name and parameters."""
    every = list(trace)
    return "\n".join(
        "\n".join([f"function {head} {{", *_statements(every, [value.number], "return {};"), "}"])
        for head, value in values.items()
    )


def _name(number: int) -> str:
    return f"v{number}"


def _needed(operations: list[tuple[Any, ...]], results: list[int]) -> list[int]:
    """Numbers of the operations that the results depend on, each after its arguments."""
    found: set[int] = set()
    waiting = list(results)
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += operations[number][1:]
    return sorted(found)


def _split(
    operations: list[tuple[Any, ...]], results: list[int], late: Collection[str]
) -> tuple[list[int], list[tuple[Any, ...]]]:
    """Split a computation into operations that do not depend on the symbols `late`, and the others.

    Returns
    -------
    numbers : list of int
        Operations of the first part whose results the second part uses.
    rest : list of tuple
        The operations with these results as symbols.
    """
    early: list[bool] = []
    for code, *arguments in operations:
        early.append(code not in late and all(early[i] for i in arguments))
    used = {i for n in _needed(operations, results) if not early[n] for i in operations[n][1:]}
    numbers = sorted(i for i in used if early[i] and len(operations[i]) > 1)
    return numbers, [(_name(n),) if n in numbers else operation for n, operation in enumerate(operations)]


def _statements(operations: list[tuple[Any, ...]], results: list[int], last: str = "") -> list[str]:
    """Statements that compute the results, as constants or in a last statement.

    Operations that are used more than once become constants too.
    """
    needed = _needed(operations, results)
    uses = Counter(i for n in needed for i in operations[n][1:])
    text: dict[int, str] = {}
    lines: list[str] = []
    for n in needed:
        code, *arguments = operations[n]
        text[n] = code.format(*(_bare(text[i]) if code.startswith("Math") else text[i] for i in arguments))
        if arguments and (uses[n] > 1 or (n in results and not last)):
            lines.append(f"  const {_name(n)} = {_bare(text[n])};")
            text[n] = _name(n)
    return [*lines, "  " + last.format(_bare(text[results[0]]))] if last else lines


def _bare(text: str) -> str:
    """An operation without its own parentheses."""
    return text[1:-1] if text.startswith("(") else text
