"""The compiled model: what turns a PyMC model into the functions that NUTS calls.

PyTensor derives the log density and its gradient; `lowering`, `emission` and `native` turn them into machine code in about a
second, where PyTensor's own compiler takes half a minute. A model that holds something they do not know is compiled by PyTensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdistill.sampling.emission import Function
from bayesdistill.sampling.loading import load_nutpie
from bayesdistill.sampling.lowering import Lowering
from bayesdistill.sampling.native import compile_text, lanes
from bayesdistill.sampling.program import Program, load_program
from bayesdistill.sampling.terms import Handle, UnsupportedGraphError
from bayesdistill.sampling.text import preamble

if TYPE_CHECKING:
    import pymc as pm

ADAPTATION: dict[str, Any] = {"adaptation": "low_rank", "mass_matrix_gamma": 0.3}
"""How nutpie adapts its mass matrix: the coordinates are correlated in a few directions only. With nutpie's
default of 1e-5 for `mass_matrix_gamma`, the weight of a diagonal matrix, one of 8 seeds of the default model had half of the usual
number of effective draws; with 0.3 each of 16 had two thirds or more."""

MAX_TREEDEPTH = 6
"""Trajectories are cut at 2 to this power steps. Those of a tuned sampler have 15 to 31; in the first tuning draws, when the scales
of the coordinates are not known, they are much longer, and with PyMC's 10 took a third of all steps of a fit."""


def compile_model(model: pm.Model) -> Any:
    """Compile a model for nutpie so that the same seed gives the same draws in every process.

    Parameters
    ----------
    model : pymc.Model

    Returns
    -------
    nutpie's compiled model
    """
    try:
        return compile_natively(model)
    except UnsupportedGraphError:
        return compile_with_pytensor(model)


def compile_with_pytensor(model: pm.Model) -> Any:
    """Compile a model with PyTensor and numba, which know every operation.

    Under PyTensor's default of fast math the last digit of a sum depends on what the compiler sees at once, and so on how
    much of the model a cache on disk already holds; after a thousand steps the draws are others. Strict arithmetic costs some
    speed, and keeps the test for numbers that are not finite, on which NUTS relies.
    """
    import nutpie
    import pytensor

    with pytensor.config.change_flags(numba__fastmath=False):
        return nutpie.compile_pymc_model(model)


@dataclass(frozen=True)
class Functions:
    """The two functions that nutpie calls, as text, with the layout of what goes in and comes out.

    Parameters
    ----------
    text : str
        LLVM's language; functions `logp` and `expand`.
    inputs : list
        PyTensor's constants and shared variables that the functions read, in the order of their addresses.
    lowering : Lowering
        Knows which lengths must agree.
    names, shapes : list
        Variables of a draw, free ones first.
    n_dim, n_expanded : int
        Numbers in a point, and in a draw.
    """

    text: str
    inputs: list[Any]
    lowering: Lowering
    names: list[str]
    shapes: list[tuple[int, ...]]
    n_dim: int
    n_expanded: int


def translate(model: pm.Model) -> Functions:
    """The log density with its gradient, and the other variables of a draw, in LLVM's language.

    Raises
    ------
    UnsupportedGraphError
        If the model holds something that has no term.
    """
    import pytensor.tensor as pt
    from pytensor.graph import rewrite_graph

    values = [model.rvs_to_values[variable] for variable in model.free_RVs]
    shapes = [_shape_of_normal(model, variable) for variable in model.free_RVs]
    free = {value.name for value in values}
    others = [variable for variable in model.unobserved_value_vars if variable.name not in free]
    names = [variable.name for variable in (*values, *others)]
    stable: Any = rewrite_graph([model.logp(), *others], include=["canonicalize", "stabilize"])
    slopes: Any = pt.grad(stable[0], values)
    merged: Any = rewrite_graph([stable[0], *slopes, *stable[1:]], include=["merge"])
    density, *results = merged
    sizes = [int(np.prod(shape)) for shape in shapes]
    offsets = np.cumsum([0, *sizes]).tolist()
    points = {value: (offsets[i], shapes[i]) for i, value in enumerate(values)}
    lowering = Lowering(points)
    logp = lowering.term(density)
    slopes, derived = (
        [lowering.term(result) for result in part] for part in (results[: len(values)], results[len(values) :])
    )
    places = [(lowering.term(value), shape) for value, shape in zip(values, shapes, strict=True)]
    outputs = [*places, *((handle, _shape(lowering, handle)) for handle in derived)]
    ranks = [variable.type.ndim for variable in lowering.inputs]
    n_dim, n_expanded = offsets[-1], sum(int(np.prod(shape)) for _, shape in outputs)
    text = preamble(lanes()) + _logp_text(lowering, ranks, logp, list(zip(slopes, shapes, strict=True)), n_dim)
    text += _expand_text(lowering, ranks, outputs, n_dim, n_expanded)
    return Functions(text, lowering.inputs, lowering, names, [shape for _, shape in outputs], n_dim, n_expanded)


def _shape_of_normal(model: pm.Model, variable: Any) -> tuple[int, ...]:
    """The shape of a free variable that is normal, as all of this package's are."""
    if type(variable.owner.op).__name__ != "NormalRV":
        raise UnsupportedGraphError(f"the free variable {variable.name}, which is not normal")
    dims = model.named_vars_to_dims.get(variable.name, (None,) * variable.ndim)
    lengths = []
    for dim, known in zip(dims, variable.type.shape, strict=True):
        labels = model.coords.get(dim)
        if known is None and labels is None:
            raise UnsupportedGraphError(f"the length of {variable.name}")
        lengths.append(int(known) if known is not None else len(labels))
    return tuple(lengths)


def _shape(lowering: Lowering, handle: Handle) -> tuple[int, ...]:
    lengths = [1 if axis is None else lowering.dims.length(handle.term.dims[axis]) for axis in handle.axes]
    if None in lengths:
        raise UnsupportedGraphError("a variable of a draw whose length is not fixed")
    return tuple(length for length in lengths if length is not None)


def _logp_text(
    lowering: Lowering, ranks: list[int], logp: Handle, gradient: list[tuple[Handle, tuple[int, ...]]], n_dim: int
) -> str:
    function = Function(lowering.dims, ranks)
    function.guard([("%dim", n_dim)])

    def finish(function: Function) -> None:
        offset = 0
        for handle, shape in gradient:
            function.write(handle.term, handle.axes, shape, offset)
            offset += int(np.prod(shape))
        function.finish_logp(function.load(logp.term, []), n_dim)

    arguments = "i64 %dim, ptr %x, ptr %out, ptr %logp, ptr %data"
    return function.build("logp", arguments, [logp.term, *(handle.term for handle, _ in gradient)], finish)


_NOTES_OF_EXPAND = 100_000
"""Where the notes of the second function of the module begin; the first has fewer."""


def _expand_text(
    lowering: Lowering,
    ranks: list[int],
    outputs: list[tuple[Handle, tuple[int, ...]]],
    n_dim: int,
    n_expanded: int,
) -> str:
    function = Function(lowering.dims, ranks, _NOTES_OF_EXPAND)
    function.guard([("%dim", n_dim), ("%count", n_expanded)])

    def finish(function: Function) -> None:
        offset = 0
        for handle, shape in outputs:
            function.write(handle.term, handle.axes, shape, offset)
            offset += int(np.prod(shape))
        function.leave()

    arguments = "i64 %dim, i64 %count, ptr %x, ptr %out, ptr %data"
    return function.build("expand", arguments, [handle.term for handle, _ in outputs], finish)


def compile_natively(model: pm.Model) -> Any:
    """Compile a model through LLVM.

    Raises
    ------
    UnsupportedGraphError
        If the model holds something that has no term.
    """
    return load_program(program_of(model))


def program_of(model: pm.Model) -> Program:
    """Machine code of a model, with all that nutpie asks of the model.

    Raises
    ------
    UnsupportedGraphError
        If the model holds something that has no term.
    """
    load_nutpie()
    import nutpie.compile_pymc as inner

    # None of these is promised by nutpie.
    if not all(hasattr(inner, name) for name in ("CompiledPyMCModel", "_prepare_dims_and_coords", "make_user_data")):
        raise UnsupportedGraphError("this version of nutpie is not known")
    functions = translate(model)
    lengths, indices = functions.lowering.dims, functions.lowering.gathered
    shared = [hasattr(variable, "get_value") for variable in functions.inputs]
    values = [
        variable.get_value() if is_shared else variable.data
        for variable, is_shared in zip(functions.inputs, shared, strict=True)
    ]
    info = (functions.names, [None] * len(functions.names), functions.shapes)
    transformed = [model.rvs_to_values[v].name for v in model.free_RVs if model.rvs_to_transforms.get(v) is not None]
    dims, coords = inner._prepare_dims_and_coords(model, info, transformed)
    return Program(
        code=compile_text(functions.text),
        arrays=[np.asarray(value) for value in values],
        shared=[v.name if is_shared else None for v, is_shared in zip(functions.inputs, shared, strict=True)],
        axes=[(lengths.root(dim), number, axis, lengths.length(dim)) for dim, number, axis in lengths.axes],
        indices=[(number, lengths.root(dim), lengths.length(dim)) for number, dim in indices],
        names=functions.names,
        shapes=functions.shapes,
        n_dim=functions.n_dim,
        n_expanded=functions.n_expanded,
        dims={name: tuple(of) for name, of in dims.items()},
        coords={name: labels.tolist() for name, labels in coords.items()},
    )
