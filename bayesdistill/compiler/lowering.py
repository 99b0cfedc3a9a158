"""Translate PyTensor's graph of a log density into operations.

Supported are elementwise arithmetic in double precision, sums and maxima, products of vectors and matrices, single elements and
slices of vectors, and elements selected by an index vector. Anything else raises `UnsupportedGraphError`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bayesdistill.compiler.ir import DATA_TYPES, INDEX_TYPES, Dimensions, Handle, Operation, UnsupportedGraphError
from bayesdistill.compiler.llvm_text import ELEMENTWISE

VARIADIC = ("add", "mul", "and", "or", "maximum", "minimum")
"""Functions of any number of arguments."""
REDUCTIONS = ("add", "maximum", "minimum", "and")
FOLDED: dict[str, Callable[..., float]] = {
    "add": lambda *numbers: sum(numbers[1:], numbers[0]),
    "sub": operator.sub,
    "neg": operator.neg,
    "identity": lambda number: number,
    "first": lambda number, _: number,
    "second": lambda _, number: number,
}
"""Functions that are evaluated during compilation if all arguments are constants."""


class Lowering:
    """Translate variables of a model's graph into operations; `inputs` lists the arrays that they read.

    Parameters
    ----------
    shapes : mapping of variable to shape
        Free variables, in their order in the vector that the sampler moves.
    """

    def __init__(self, shapes: Mapping[Any, tuple[int, ...]]) -> None:
        self.dims = Dimensions()
        self.inputs: list[Any] = []
        self.gathered: list[tuple[int, int]] = []
        """(input, dimension): the indices in this input must be within the dimension."""
        self._numbers: dict[Any, int] = {}
        self._known: dict[Any, Handle | list[Handle]] = {}
        offset = 0
        for variable, shape in shapes.items():
            axes, dims = self._axes([self.dims.fixed(length) if length != 1 else None for length in shape])
            self._known[variable] = Handle(Operation("point", dims=dims, payload=offset), axes)
            offset += math.prod(shape)

    def lower(self, variable: Any) -> Handle:
        """Translate a variable and everything that it depends on."""
        from pytensor.graph.traversal import io_toposort

        if variable not in self._known:
            known = [known for known in self._known if known.owner is not None]
            for node in io_toposort(known, [variable]):
                if node.outputs[0] not in self._known:
                    self._lower(node)
        return self._scalar_or_array(variable)

    # Leaves -----------------------------------------------------------------------------------------------------------

    @staticmethod
    def _axes(lengths: Sequence[int | None]) -> tuple[tuple[int | None, ...], tuple[int, ...]]:
        dims = tuple(dim for dim in lengths if dim is not None)
        count = iter(range(len(dims)))
        return tuple(None if dim is None else next(count) for dim in lengths), dims

    def _get(self, variable: Any) -> Handle | list[Handle]:
        from pytensor.compile.sharedvalue import SharedVariable
        from pytensor.graph.basic import Constant

        if variable in self._known:
            return self._known[variable]
        if isinstance(variable, Constant):
            handle = self._constant(variable)
        elif isinstance(variable, SharedVariable):
            handle = self._input(variable, variable.type.shape, variable.type.dtype)
        else:
            raise UnsupportedGraphError(f"{variable}, which is neither data, a constant nor a free variable")
        self._known[variable] = handle
        return handle

    def _constant(self, variable: Any) -> Handle:
        value = np.asarray(variable.data)
        if value.dtype.kind not in "biuf" or value.dtype == np.float16:
            raise UnsupportedGraphError(f"a constant of {value.dtype}")
        if value.size == 1:
            return Handle(Operation("const", payload=float(value.reshape(()))), (None,) * value.ndim)
        if value.ndim == 1 and value.size <= 4 and value.dtype.kind in "biu":
            raise UnsupportedGraphError("a short vector of constant integers")
        return self._input(variable, value.shape, str(value.dtype))

    def _input(self, variable: Any, shape: Sequence[int | None], dtype: str) -> Handle:
        if dtype not in DATA_TYPES:
            raise UnsupportedGraphError(f"data of {dtype}")
        number = self._numbers.setdefault(variable, len(self.inputs))
        if number == len(self.inputs):
            self.inputs.append(variable)
        lengths = [
            None if length == 1 else self.dims.of_axis(number, axis) if length is None else self.dims.fixed(length)
            for axis, length in enumerate(shape)
        ]
        axes, dims = self._axes(lengths)
        return Handle(Operation("input", dims=dims, payload=(number, dtype)), axes)

    def _scalar_or_array(self, variable: Any) -> Handle:
        found = self._get(variable)
        if isinstance(found, list):
            raise UnsupportedGraphError("arithmetic with a vector made of scalars")
        return found

    # Nodes ------------------------------------------------------------------------------------------------------------

    def _lower(self, node: Any) -> None:
        name = type(node.op).__name__
        for base in type(node.op).__mro__:
            handler = getattr(self, f"_lower_{base.__name__}", None)
            if handler is not None:
                found = handler(node)
                break
        else:
            raise UnsupportedGraphError(f"the operation {name}")
        outputs = found if isinstance(found, tuple) else (found,)
        for variable, handle in zip(node.outputs, outputs, strict=True):
            self._known[variable] = handle

    def _lower_Elemwise(self, node: Any) -> Handle:
        operation = type(node.op.scalar_op).__name__
        function, out = operation.lower(), node.outputs[0].type.dtype
        kinds = {np.dtype(i.type.dtype).kind for i in node.inputs}
        if function == "cast":
            if out != "float64" and not (kinds <= set("biu") and np.dtype(out).kind in "iu"):
                raise UnsupportedGraphError(f"a conversion of {node.inputs[0].type.dtype} to {out}")
            function = "identity"
        elif function not in ELEMENTWISE:
            raise UnsupportedGraphError(f"the function {operation}")
        if function == "invert" and kinds != {"b"}:
            raise UnsupportedGraphError("bitwise not")
        if function in ("and", "or") and kinds != {"b"}:
            raise UnsupportedGraphError("bitwise and, or")
        if out == "bool" and function in ("add", "sub"):
            raise UnsupportedGraphError("a sum of booleans")
        handles = [self._scalar_or_array(i) for i in node.inputs]
        result = self._map(function, handles)
        number = result.op.payload if result.op.kind == "const" else float("nan")
        single = np.dtype(out).kind == "f" and out != "float64"
        # Exponents such as -2 - 1 are small integers, which are exact in any precision.
        if "c" in kinds or (single and float(np.float16(number)) != number):
            raise UnsupportedGraphError(f"a result of {out}")
        return result

    def _map(self, function: str, handles: list[Handle]) -> Handle:
        count = max((len(handle.axes) for handle in handles), default=0)
        padded = [(None,) * (count - len(handle.axes)) + handle.axes for handle in handles]
        lengths: list[int | None] = []
        for axis in range(count):
            found = None
            for handle, axes in zip(handles, padded, strict=True):
                place = axes[axis]
                if place is not None:
                    dim = handle.op.dims[place]
                    found = dim if found is None else self.dims.same(found, dim)
            lengths.append(found)
        axes, dims = self._axes(lengths)
        numbers = [handle.op.payload for handle in handles if handle.op.kind == "const"]
        if len(numbers) == len(handles) and function in FOLDED:
            return Handle(Operation("const", payload=float(FOLDED[function](*numbers))), axes)
        args = tuple((h.op, self._positions(h, own, axes)) for h, own in zip(handles, padded, strict=True))
        if function in VARIADIC and len(args) == 1:
            function = "identity"
        count = 2 if function in VARIADIC else len(args)
        op = Operation("map", args[:count], dims, function)
        for arg in args[count:]:
            op = Operation("map", ((op, tuple(range(len(dims)))), arg), dims, function)
        return Handle(op, axes)

    @staticmethod
    def _positions(handle: Handle, own: Sequence[int | None], axes: Sequence[int | None]) -> tuple[int, ...]:
        positions = [-1] * len(handle.op.dims)
        for place, target in zip(own, axes, strict=True):
            if place is not None:
                assert target is not None
                positions[place] = target
        if -1 in positions:
            raise UnsupportedGraphError("a dropped dimension")
        return tuple(positions)

    def _lower_DimShuffle(self, node: Any) -> Handle:
        handle = self._scalar_or_array(node.inputs[0])
        order = node.op.new_order
        dropped = set(range(len(handle.axes))) - {axis for axis in order if axis != "x"}
        if any(handle.axes[axis] is not None for axis in dropped):
            raise UnsupportedGraphError("a dropped dimension")
        return Handle(handle.op, tuple(None if axis == "x" else handle.axes[axis] for axis in order))

    def _lower_CAReduce(self, node: Any) -> Handle:
        operation = type(node.op.scalar_op).__name__
        if operation.lower() not in REDUCTIONS:
            raise UnsupportedGraphError(f"a reduction by {operation}")
        found = self._get(node.inputs[0])
        if isinstance(found, list):
            return self._map(operation.lower(), found)
        return self._reduce(operation.lower(), found, range(len(found.axes)) if node.op.axis is None else node.op.axis)

    def _reduce(self, function: str, handle: Handle, gone: Sequence[int]) -> Handle:
        op = handle.op
        rest = tuple(place for axis, place in enumerate(handle.axes) if axis not in gone)
        kept = tuple(place for place in rest if place is not None)
        if len(kept) == len(op.dims):
            return Handle(op, rest)
        axes, dims = self._axes([None if place is None else op.dims[place] for place in rest])
        return Handle(Operation("reduce", ((op, tuple(range(len(op.dims)))),), dims, function, op.dims, kept), axes)

    def _lower_Dot(self, node: Any) -> Handle:
        left, right = (self._scalar_or_array(i) for i in node.inputs)
        # left (i, k) and right (k, j): the product over (i, k, j), summed over k.
        i, j = left.axes[:-1], right.axes[1:]
        one = Handle(left.op, (*i, left.axes[-1], *(None for _ in j)))
        other = Handle(right.op, (*(None for _ in i), right.axes[0], *j))
        return self._reduce("add", self._map("mul", [one, other]), [len(i)])

    # Shapes, and vectors of scalars ---------------------------------------------------------------------------------------

    def _lower_Shape(self, node: Any) -> Handle | list[Handle]:
        found = self._scalar_or_array(node.inputs[0])
        return self._listed([self._axis_length(found, axis) for axis in range(len(found.axes))])

    def _lower_Shape_i(self, node: Any) -> Handle:
        return self._axis_length(self._scalar_or_array(node.inputs[0]), node.op.i)

    def _axis_length(self, handle: Handle, axis: int) -> Handle:
        place = handle.axes[axis]
        if place is None:
            return Handle(Operation("const", payload=1.0))
        return Handle(Operation("length", payload=handle.op.dims[place]))

    @staticmethod
    def _listed(scalars: list[Handle]) -> Handle | list[Handle]:
        return Handle(scalars[0].op, (None,)) if len(scalars) == 1 else scalars

    def _lower_MakeVector(self, node: Any) -> Handle | list[Handle]:
        return self._listed([self._scalar_or_array(i) for i in node.inputs])

    def _unchanged(self, node: Any) -> Handle:
        return self._scalar_or_array(node.inputs[0])

    _lower_ScalarFromTensor = _lower_TensorFromScalar = _lower_SpecifyShape = _unchanged

    def _lower_Alloc(self, node: Any) -> Handle:
        value, *shape = node.inputs
        handle = self._scalar_or_array(value)
        static = node.outputs[0].type.shape
        lengths: list[int | None] = []
        for known, asked in zip(static, shape, strict=True):
            lengths.append(None if known == 1 else self.dims.fixed(known) if known is not None else self._asked(asked))
        axes, dims = self._axes(lengths)
        padded = (None,) * (len(axes) - len(handle.axes)) + handle.axes
        for place, target in zip(padded, axes, strict=True):
            if place is not None and target is not None:
                self.dims.same(handle.op.dims[place], dims[target])
        args = ((handle.op, self._positions(handle, padded, axes)), (Operation("const", payload=0.0), ()))
        return Handle(Operation("map", args, dims, "first"), axes)

    def _asked(self, variable: Any) -> int:
        op = self._scalar_or_array(variable).op
        while op.kind == "map" and op.payload == "identity":
            op = op.args[0][0]
        if op.kind == "length":
            return int(op.payload)
        if op.kind == "const":
            return self.dims.fixed(int(op.payload))
        raise UnsupportedGraphError("a length that is computed")

    def _lower_CheckAndRaise(self, node: Any) -> Handle:
        value, *conditions = (self._scalar_or_array(i) for i in node.inputs)
        for condition in conditions:
            if condition.op.kind == "const" and condition.op.payload != 0:
                continue
            # NaN where a parameter is outside its domain, which the sampler treats like PyTensor's exception.
            value = self._map("check", [value, condition])
        return value

    # Elements ---------------------------------------------------------------------------------------------------------

    @staticmethod
    def _index(variables: Sequence[Any], op: Any) -> Any:
        from pytensor.tensor.subtensor import indices_from_subtensor

        indices = indices_from_subtensor(variables, op.idx_list)
        if len(indices) != 1:
            raise UnsupportedGraphError("an index into several dimensions")
        return indices[0]

    def _whole(self, index: Any, length: int | None) -> int | tuple[int, int]:
        """Return a constant index, or a constant slice of step one as (start, count)."""
        from pytensor.graph.basic import Constant

        def number(value: Any) -> Any:
            if value is None or isinstance(value, int | np.integer):
                return value
            if isinstance(value, Constant):
                return int(value.data)
            raise UnsupportedGraphError("an index that is computed")

        if length is None:
            raise UnsupportedGraphError("an element of an array whose length is not fixed")
        if isinstance(index, slice):
            start, stop, step = slice(*(number(v) for v in (index.start, index.stop, index.step))).indices(length)
            if step != 1 or stop <= start:
                raise UnsupportedGraphError("an empty slice, or one with a step other than 1")
            return start, stop - start
        at = int(number(index))
        at += length if at < 0 else 0
        if not 0 <= at < length:
            raise UnsupportedGraphError("an index out of range")
        return at

    def _vector(self, handle: Handle) -> tuple[Operation, int | None]:
        if len(handle.axes) != 1 or handle.axes[0] is None:
            raise UnsupportedGraphError("an element of a matrix, or of a vector of length one")
        return handle.op, self.dims.length(handle.op.dims[0])

    def _lower_Subtensor(self, node: Any) -> Handle | list[Handle]:
        found = self._get(node.inputs[0])
        index = self._index(node.inputs[1:], node.op)
        if isinstance(found, list):
            at = self._whole(index, len(found))
            return found[at] if isinstance(at, int) else self._listed(found[at[0] : at[0] + at[1]])
        if found.axes == (None,):
            return Handle(found.op) if isinstance(self._whole(index, 1), int) else found
        vector, length = self._vector(found)
        at = self._whole(index, length)
        start, count = (at, 1) if isinstance(at, int) else at
        if count == length:
            return found
        axes, dims = self._axes([] if isinstance(at, int) else [None if count == 1 else self.dims.fixed(count)])
        return Handle(Operation("slice", ((vector, ()),), dims, start), axes)

    def _lower_IncSubtensor(self, node: Any) -> Handle:
        base, values = (self._scalar_or_array(i) for i in node.inputs[:2])
        vector, length = self._vector(base)
        at = self._whole(self._index(node.inputs[2:], node.op), length)
        if node.op.set_instead_of_inc:
            raise UnsupportedGraphError("an element that is overwritten")
        start, count = (at, 1) if isinstance(at, int) else at
        if count == 1 and values.op.dims:
            raise UnsupportedGraphError("an array added to one element")
        if count > 1 and not values.op.dims:
            raise UnsupportedGraphError("a scalar added to a slice")
        if values.op.dims:
            self.dims.same(values.op.dims[0], self.dims.fixed(count))
        args = ((vector, (0,)), (values.op, ()))
        return Handle(Operation("pad", args, vector.dims, (start, count)), (0,))

    def _lower_AdvancedSubtensor(self, node: Any) -> Handle:
        found, index = self._scalar_or_array(node.inputs[0]), self._chosen(node.inputs[1:], node.op)
        vector, _ = self._vector(found)
        self.gathered.append((index.op.payload[0], vector.dims[0]))
        dims = index.op.dims
        return Handle(Operation("gather", ((vector, ()), (index.op, (0,))), dims), (0,))

    def _lower_AdvancedIncSubtensor(self, node: Any) -> Handle:
        base, values = (self._scalar_or_array(i) for i in node.inputs[:2])
        index = self._chosen(node.inputs[2:], node.op)
        vector, _ = self._vector(base)
        if getattr(node.op, "ignore_duplicates", False) or (node.op.set_instead_of_inc and values.op.dims):
            raise UnsupportedGraphError("elements that are set to different values")
        dims = index.op.dims
        if values.op.dims:
            self.dims.same(values.op.dims[0], dims[0])
        self.gathered.append((index.op.payload[0], vector.dims[0]))
        positions = tuple(range(len(values.op.dims)))
        summed = Operation("const", payload=1.0) if node.op.set_instead_of_inc else values.op
        args = ((summed, positions), (index.op, (0,)))
        total = Handle(Operation("scatter", args, vector.dims, "add", dims), (0,))
        # Set one number at all indexed places, which are those where the sum of ones is not zero.
        if node.op.set_instead_of_inc:
            return self._map("switch", [total, values, base])
        return self._map("add", [base, total])

    def _chosen(self, variables: Sequence[Any], op: Any) -> Handle:
        index = self._index(variables, op)
        handle = None if isinstance(index, slice) else self._scalar_or_array(index)
        if handle is None or handle.op.kind != "input" or len(handle.axes) != 1 or handle.axes[0] is None:
            raise UnsupportedGraphError("an index that is not a vector of data")
        if handle.op.payload[1] not in INDEX_TYPES:
            raise UnsupportedGraphError(f"an index of {handle.op.payload[1]}")
        return handle

    # Nested graphs ----------------------------------------------------------------------------------------------------

    def _lower_OpFromGraph(self, node: Any) -> tuple[Handle, ...]:
        from pytensor.compile.rewriting import inline_ofg_node

        return tuple(self.lower(variable) for variable in inline_ofg_node(node))
