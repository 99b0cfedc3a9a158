"""Translate a PyMC model into the two functions that nutpie calls, and compile them with LLVM.

PyTensor derives the log density and its gradient. Translating and compiling them takes about three seconds; PyTensor's own compiler
takes about a minute.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdistill.compiler.code_generation import Function
from bayesdistill.compiler.ir import Handle, UnsupportedGraphError
from bayesdistill.compiler.llvm_text import preamble
from bayesdistill.compiler.lowering import Lowering
from bayesdistill.compiler.machine_code import compile_text, lanes
from bayesdistill.compiler.program import Program

if TYPE_CHECKING:
    import pymc as pm


@dataclass(frozen=True)
class Functions:
    """The two functions that nutpie calls as LLVM assembly, and the layout of their inputs and outputs.

    Parameters
    ----------
    text : str
        LLVM assembly with the functions `logp` (log density and gradient) and `expand` (all variables of a draw).
    lowering : Lowering
        Holds the inputs in the order in which nutpie passes them, the lengths that must be equal and the indices to check.
    names, shapes : list
        Variables of a draw, free variables first.
    n_dim, n_expanded : int
        Size of a point, and of a draw.
    values, results : list
        The graph that was translated: the free variables, and the log density, its gradient and the other variables of a draw.
    """

    text: str
    lowering: Lowering
    names: list[str]
    shapes: list[tuple[int, ...]]
    n_dim: int
    n_expanded: int
    values: list[Any]
    results: list[Any]


def translate(model: pm.Model) -> Functions:
    """Translate the log density, its gradient and the variables of a draw into LLVM assembly.

    Raises
    ------
    UnsupportedGraphError
        If the model contains something that the compiler does not support.
    """
    import pytensor.tensor as pt
    from pytensor.graph import rewrite_graph

    free = {model.rvs_to_values[variable]: _shape_of_normal(model, variable) for variable in model.free_RVs}
    values = list(free)
    names = [value.name for value in values]
    others = [variable for variable in model.unobserved_value_vars if variable.name not in names]
    stable: Any = rewrite_graph([model.logp(), *others], include=["canonicalize", "stabilize"])
    slopes: Any = pt.grad(stable[0], values)
    merged: Any = rewrite_graph([stable[0], *slopes, *stable[1:]], include=["merge"])
    lowering = Lowering(free)
    density, *results = (lowering.lower(result) for result in merged)
    gradient, derived = results[: len(values)], results[len(values) :]
    outputs = [*(lowering.lower(value) for value in values), *derived]
    shapes = [_shape(lowering, handle) for handle in outputs]
    n_dim, n_expanded = (sum(math.prod(shape) for shape in some) for some in (free.values(), shapes))
    ranks = [variable.type.ndim for variable in lowering.inputs]
    numbers = itertools.count()
    logp, expand = (Function(lowering.dims, ranks, numbers) for _ in range(2))
    text = preamble(lanes()) + logp.build("logp", {"dim": n_dim}, gradient, density.op)
    text += expand.build("expand", {"dim": n_dim, "count": n_expanded}, outputs)
    names += [variable.name for variable in others]
    return Functions(text, lowering, names, shapes, n_dim, n_expanded, values=values, results=merged)


def _shape_of_normal(model: pm.Model, variable: Any) -> tuple[int, ...]:
    """Return the shape of a free variable; only normal ones are supported."""
    if type(variable.owner.op).__name__ != "NormalRV":
        raise UnsupportedGraphError(f"the free variable {variable.name}, which is not normally distributed")
    dims = model.named_vars_to_dims.get(variable.name, (None,) * variable.ndim)
    lengths = []
    for dim, known in zip(dims, variable.type.shape, strict=True):
        labels = model.coords.get(dim)
        if known is None and labels is None:
            raise UnsupportedGraphError(f"the free variable {variable.name}, whose length is not fixed")
        lengths.append(int(known) if known is not None else len(labels))
    return tuple(lengths)


def _shape(lowering: Lowering, handle: Handle) -> tuple[int, ...]:
    lengths = [1 if axis is None else lowering.dims.length(handle.op.dims[axis]) for axis in handle.axes]
    if None in lengths:
        raise UnsupportedGraphError("a deterministic variable whose length is not fixed")
    return tuple(length for length in lengths if length is not None)


def compile_program(model: pm.Model, functions: Functions) -> Program:
    """Compile the functions of a model with LLVM, and collect everything that nutpie requires from the model.

    Raises
    ------
    UnsupportedGraphError
        If this version of nutpie has another interface.
    """
    try:
        from nutpie.compile_pymc import _prepare_dims_and_coords
    except ImportError as error:
        raise UnsupportedGraphError(f"this version of nutpie ({error})") from error
    inputs, lengths = functions.lowering.inputs, functions.lowering.dims
    shared = [hasattr(variable, "get_value") for variable in inputs]
    info = (functions.names, [None] * len(functions.names), functions.shapes)
    transformed = [model.rvs_to_values[v].name for v in model.free_RVs if model.rvs_to_transforms.get(v) is not None]
    dims, coords = _prepare_dims_and_coords(model, info, transformed)
    return Program(
        code=compile_text(functions.text),
        arrays=[
            np.asarray(v.get_value() if is_shared else v.data) for v, is_shared in zip(inputs, shared, strict=True)
        ],
        shared=[v.name if is_shared else None for v, is_shared in zip(inputs, shared, strict=True)],
        axes=[(lengths.root(dim), number, axis, lengths.length(dim)) for dim, number, axis in lengths.axes],
        indices=[(number, lengths.root(dim), lengths.length(dim)) for number, dim in functions.lowering.gathered],
        names=functions.names,
        shapes=functions.shapes,
        n_dim=functions.n_dim,
        n_expanded=functions.n_expanded,
        dims={name: tuple(of) for name, of in dims.items()},
        coords={name: labels.tolist() for name, labels in coords.items()},
    )
