"""A compiled model as plain data, and what nutpie samples made of it: neither needs the PyMC model any more."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from bayesdistill.errors import ModelError
from bayesdistill.sampling.loading import load_nutpie
from bayesdistill.sampling.native import load_code


@dataclass(frozen=True)
class Program:
    """Machine code of the log density and of a draw, and what it reads.

    Parameters
    ----------
    code : bytes
        An object file with the functions `logp` and `expand`.
    arrays : list of array
        What the functions read, in the order of their addresses.
    shared : list of str or None
        Names of those arrays that `with_data` may replace.
    axes : list of (int, int, int, int or None)
        Of an axis of an array: the dimension, number of the array and of its axis, and its length where the code has it.
    indices : list of (int, int, int or None)
        Of an array of indices: its number, the dimension that it indexes, and its length where the code has it.
    names, shapes : list
        Variables of a draw, free ones first.
    n_dim, n_expanded : int
        Numbers in a point, and in a draw.
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
    """What nutpie asks of an array: a name by which `with_data` finds it, if it may be replaced, and its rank."""

    name: str | None
    ndim: int


def load_program(program: Program) -> Any:
    """Load the machine code of a program, and give it to nutpie with its data.

    Raises
    ------
    ModelError
        If the code would read beyond its arrays.
    """
    load_nutpie()
    from nutpie.compile_pymc import make_user_data

    check_arrays(program, program.arrays)
    code = load_code(program.code)
    keys, data = {}, {}
    for number, (value, name) in enumerate(zip(program.arrays, program.shared, strict=True)):
        key = f"{number:06d}"
        keys[SharedArray(name, value.ndim)] = key
        data[key] = np.array(value, order="C", copy=True)
        data[key].flags.writeable = False
    return _native_model()(
        _n_dim=program.n_dim,
        dims=program.dims,
        _coords={name: pd.Index(labels) for name, labels in program.coords.items()},
        _shapes=dict(zip(program.names, program.shapes, strict=True)),
        compiled_logp_func=SimpleNamespace(address=code.address("logp"), code=code),
        compiled_expand_func=SimpleNamespace(address=code.address("expand"), code=code),
        initial_point_func=functools.partial(_initial_point, program.n_dim),
        shared_data=data,
        shared_var_keys={shared: key for shared, key in keys.items() if shared.name is not None},
        user_data=make_user_data(keys, data),
        n_expanded=program.n_expanded,
        shape_info=(program.names, [None] * len(program.names), program.shapes),
        logp_func=program,
        expand_func=program,
        # Two underscores are PyMC's mark of a transformed variable.
        reparameterized_names=[name for name in program.names if name.endswith("__")],
    )


def _initial_point(n_dim: int, seed: int | None = None) -> np.ndarray:
    """Where a chain starts: at most 0.3 from 0 in everything that is sampled, in about the prior's standard deviations.

    At 0 is the middle of the prior.

    Most coordinates are known ten times better from the runs, so that chains start apart. With PyMC's 1 instead of 0.3, three
    of 240 chains of the model with shifts of teachers and of configurations lost their way at the start and stayed there; with
    0.3 none did.
    """
    return np.random.default_rng(seed).uniform(-0.3, 0.3, n_dim)


def check_arrays(program: Program, arrays: list[np.ndarray]) -> None:
    """Machine code reads what it is told to: lengths must agree, and indices must lie within what they index."""
    lengths: dict[int, int] = {}
    for dim, number, axis, known in program.axes:
        length = arrays[number].shape[axis]
        if lengths.setdefault(dim, known or length) != length:
            raise ModelError(f"the data of the model do not have the same length: {length} and {lengths[dim]}")
    for number, dim, known in program.indices:
        limit = lengths.get(dim, known or 0)
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
            check_arrays(self.logp_func, list(changed.shared_data.values()))
            return changed

    return NativeModel
