"""A compiled model as plain data, and the object that nutpie samples from. Neither requires the PyMC model."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from bayesdistill.compiler.ir import UnsupportedGraphError
from bayesdistill.compiler.machine_code import load_code
from bayesdistill.errors import ModelError


@dataclass(frozen=True)
class Program:
    """Machine code of the log density and of a draw, and the data that it reads.

    Parameters
    ----------
    code : bytes
        An object file with the functions `logp` and `expand`.
    arrays : list of array
        Data that the functions read, in the order in which nutpie passes them.
    shared : list of str or None
        Names of the arrays that `with_data` can replace.
    axes : list of (int, int, int, int or None)
        For each axis of an array: its dimension, the numbers of the array and of the axis, and the length if the code fixes it.
    indices : list of (int, int, int or None)
        For each array of indices: its number, the dimension that it indexes, and the length if the code fixes it.
    names, shapes : list
        Variables of a draw, free variables first.
    n_dim, n_expanded : int
        Size of a point, and of a draw.
    dims : dict
        Variable -> names of its dimensions.
    coords : dict
        Dimension -> list of labels.
    """

    code: bytes
    arrays: list[np.ndarray]
    shared: list[str | None]
    axes: list[tuple[int, int, int, int | None]]
    indices: list[tuple[int, int, int | None]]
    names: list[str]
    shapes: list[tuple[int, ...]]
    n_dim: int
    n_expanded: int
    dims: dict[str, tuple[str | None, ...]]
    coords: dict[str, list[Any]]


@dataclass(frozen=True, eq=False)
class SharedArray:
    """An array as nutpie sees it: its rank, and its name if `with_data` can replace it."""

    name: str | None
    ndim: int


def load_program(program: Program) -> Any:
    """Load the machine code and the data of a program for nutpie.

    Raises
    ------
    ModelError
        If the code would read past the end of an array.
    UnsupportedGraphError
        If this version of nutpie has another interface.
    """
    try:
        from nutpie.compile_pymc import make_user_data
    except ImportError as error:
        raise UnsupportedGraphError(f"this version of nutpie ({error})") from error
    check_arrays(program, program.arrays)
    engine = load_code(program.code)
    keys, data = {}, {}
    for number, (value, name) in enumerate(zip(program.arrays, program.shared, strict=True)):
        key = f"{number:06d}"
        keys[SharedArray(name, value.ndim)] = key
        data[key] = np.array(value, order="C", copy=True)
        data[key].flags.writeable = False
    arguments = {
        "_n_dim": program.n_dim,
        "dims": program.dims,
        "_coords": {name: pd.Index(labels) for name, labels in program.coords.items()},
        "_shapes": dict(zip(program.names, program.shapes, strict=True)),
        # With the engine, which must exist as long as the functions are used.
        "compiled_logp_func": SimpleNamespace(address=engine.get_function_address("logp"), engine=engine),
        "compiled_expand_func": SimpleNamespace(address=engine.get_function_address("expand"), engine=engine),
        "initial_point_func": functools.partial(_initial_point, program.n_dim),
        "shared_data": data,
        "shared_var_keys": {shared: key for shared, key in keys.items() if shared.name is not None},
        "user_data": make_user_data(keys, data),
        "n_expanded": program.n_expanded,
        "shape_info": (program.names, [None] * len(program.names), program.shapes),
        "logp_func": program,
        "expand_func": program,
        # PyMC marks transformed variables by two underscores.
        "reparameterized_names": [name for name in program.names if name.endswith("__")],
    }
    try:
        return _llvm_model()(**arguments)
    except TypeError as error:
        raise UnsupportedGraphError(f"this version of nutpie ({error})") from error


def _initial_point(n_dim: int, seed: int | None = None) -> np.ndarray:
    """Draw the initial point of a chain: uniform within 0.3 of 0, the center of the prior, in every free variable.

    The unit is about one prior standard deviation, and the runs determine most coordinates ten times better, so chains start far
    apart. With PyMC's default of 1 instead of 0.3, 3 of 240 chains of the model with teacher and student effects did not reach the
    posterior; with 0.3, all of them did.
    """
    return np.random.default_rng(seed).uniform(-0.3, 0.3, n_dim)


def check_arrays(program: Program, arrays: list[np.ndarray]) -> None:
    """Check lengths and indices, because machine code reads its arrays without checking."""
    lengths: dict[int, int] = {}
    for dim, number, axis, known in program.axes:
        length = arrays[number].shape[axis]
        if lengths.setdefault(dim, known or length) != length:
            raise ModelError(f"the data of the model do not have the same length: {length} and {lengths[dim]}")
    for number, dim, known in program.indices:
        limit = lengths.get(dim, known or 0)
        if arrays[number].size and not (arrays[number].min() >= 0 and arrays[number].max() < limit):
            raise ModelError(f"an index of the data is outside 0 to {limit - 1}")


@functools.cache
def _llvm_model() -> type:
    """Return nutpie's class of compiled models with a check of new data."""
    from nutpie.compile_pymc import CompiledPyMCModel

    @dataclass(frozen=True)
    class LLVMModel(CompiledPyMCModel):
        backend: ClassVar[str] = "llvm"

        def with_data(self, **updates: Any) -> Any:
            changed = super().with_data(**updates)
            check_arrays(self.logp_func, list(changed.shared_data.values()))
            return changed

    return LLVMModel
