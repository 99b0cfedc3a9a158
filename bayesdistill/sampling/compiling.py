"""The compiled model: what turns a PyMC model into the functions that NUTS calls.

PyTensor derives the log density and its gradient; `lowering`, `emission` and `native` turn them into machine code in about a
second, where PyTensor's own compiler takes half a minute. Nothing is kept on disk. A model that holds something they do not know
is compiled by PyTensor.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdistill.errors import ModelError
from bayesdistill.sampling.emission import Function
from bayesdistill.sampling.lowering import Lowering
from bayesdistill.sampling.native import compile_text, lanes
from bayesdistill.sampling.terms import Handle, UnsupportedGraphError
from bayesdistill.sampling.text import preamble

if TYPE_CHECKING:
    import pymc as pm

ADAPTATION: dict[str, Any] = {"adaptation": "low_rank", "mass_matrix_gamma": 0.3}
"""How nutpie adapts its mass matrix: the coordinates are correlated in a few directions only. With nutpie's
default of 1e-5 for `mass_matrix_gamma`, the weight of a diagonal matrix, one of 8 seeds of the default model had half of the usual
number of effective draws; with 0.3 each of 16 had two thirds or more."""


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
    shapes = [_centred(model, variable) for variable in model.free_RVs]
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


def _centred(model: pm.Model, variable: Any) -> tuple[int, ...]:
    """The shape of a free variable that is normal around zero, as all of this package's models are."""
    owner = variable.owner
    normal = type(owner.op).__name__ == "NormalRV"
    if not normal or _number(owner.inputs[-2]) != 0:
        raise UnsupportedGraphError(f"the free variable {variable.name}, which is not normal around zero")
    dims = model.named_vars_to_dims.get(variable.name, (None,) * variable.ndim)
    lengths = []
    for dim, known in zip(dims, variable.type.shape, strict=True):
        labels = model.coords.get(dim)
        if known is None and labels is None:
            raise UnsupportedGraphError(f"the length of {variable.name}")
        lengths.append(int(known) if known is not None else len(labels))
    return tuple(lengths)


def _number(variable: Any) -> float | None:
    """The number that a variable repeats, if it is a constant."""
    while variable.owner is not None and type(variable.owner.op).__name__ == "DimShuffle":
        variable = variable.owner.inputs[0]
    value = np.asarray(getattr(variable, "data", np.nan))
    return float(value.reshape(())) if value.size == 1 else None


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
    try:
        from nutpie.compile_pymc import _prepare_dims_and_coords, make_user_data
    except ImportError as error:  # not promised by nutpie
        raise UnsupportedGraphError("this version of nutpie is not known") from error

    functions = translate(model)
    code = compile_text(functions.text)
    keys = {variable: f"{number:06d}" for number, variable in enumerate(functions.inputs)}
    data = {}
    for variable, key in keys.items():
        value = variable.get_value() if hasattr(variable, "get_value") else variable.data
        data[key] = np.array(value, order="C", copy=True)
        data[key].flags.writeable = False
    _check(functions.lowering, list(data.values()))
    info = (functions.names, [None] * len(functions.names), functions.shapes)
    dims, coords = _prepare_dims_and_coords(model, info, [])
    return _native_model()(
        _n_dim=functions.n_dim,
        dims=dims,
        _coords=coords,
        _shapes=dict(zip(functions.names, functions.shapes, strict=True)),
        compiled_logp_func=SimpleNamespace(address=code.address("logp"), code=code),
        compiled_expand_func=SimpleNamespace(address=code.address("expand"), code=code),
        initial_point_func=functools.partial(_initial_point, functions.n_dim),
        shared_data=data,
        shared_var_keys={variable: key for variable, key in keys.items() if hasattr(variable, "get_value")},
        user_data=make_user_data(keys, data),
        n_expanded=functions.n_expanded,
        shape_info=info,
        logp_func=functions,
        expand_func=functions,
        reparameterized_names=[],
    )


def _initial_point(n_dim: int, seed: int | None = None) -> np.ndarray:
    """Where a chain starts: in every coordinate at most 0.3 standard deviations from the middle of the prior.

    Most coordinates are known ten times better from the runs, so that chains start apart. With PyMC's 1 instead of 0.3, three
    of 240 chains of the model with shifts of teachers and of configurations lost their way at the start and stayed there; with
    0.3 none did.
    """
    return np.random.default_rng(seed).uniform(-0.3, 0.3, n_dim)


def _check(lowering: Lowering, arrays: list[np.ndarray]) -> None:
    """Machine code reads what it is told to: lengths must agree, and indices must lie within what they index."""
    lengths: dict[int, int] = {}
    for dim, number, axis in lowering.dims.axes:
        length, root = arrays[number].shape[axis], lowering.dims.root(dim)
        if lengths.setdefault(root, lowering.dims.length(root) or length) != length:
            raise ModelError(f"the data of the model do not have the same length: {length} and {lengths[root]}")
    for number, dim in lowering.gathered:
        root = lowering.dims.root(dim)
        limit = lengths.get(root, lowering.dims.length(root) or 0)
        if arrays[number].size and not (arrays[number].min() >= 0 and arrays[number].max() < limit):
            raise ModelError(f"an index of the data lies outside 0 to {limit - 1}")


@functools.cache
def _native_model() -> type:
    """nutpie's compiled model, which checks new data before machine code reads them."""
    from nutpie.compile_pymc import CompiledPyMCModel

    @dataclass(frozen=True)
    class NativeModel(CompiledPyMCModel):
        def with_data(self, **updates: Any) -> Any:
            changed = super().with_data(**updates)
            _check(self.logp_func.lowering, list(changed.shared_data.values()))
            return changed

    return NativeModel
