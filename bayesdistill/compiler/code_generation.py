"""Generate the LLVM assembly of a function from operations.

Operations over the same dimensions share a loop unless one of them needs the completed sum of another, so a log density with its
gradient becomes a handful of loops. A sum into one number may be computed in another order, several elements at a time. All other
arithmetic is strict, so the same assembly gives the same numbers on the same kind of processor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from bayesdistill.compiler.ir import (
    COLLECTS,
    CONST,
    ELEMENT,
    GATHER,
    INPUT,
    LEAVES,
    LENGTH,
    MAP,
    PAD,
    PLACE,
    POINT,
    SCATTER,
    SLICE,
    Dimensions,
    Operation,
)
from bayesdistill.compiler.llvm_text import INFINITY, ONE, ZERO, Text, literal
from bayesdistill.compiler.scheduling import at_random, schedule, topological

_TYPES = {"float64": "double", "bool": "i8", "int8": "i8", "uint8": "i8", "int16": "i16", "uint16": "i16"}
_TYPES |= {"int32": "i32", "uint32": "i32", "int64": "i64"}


def _waits(op: Operation) -> bool:
    """Whether an iteration depends on the one before: every collection except a sum into one number."""
    return op.kind in COLLECTS and (bool(op.dims) or op.payload != "add")


_START = {"add": ZERO, "maximum": literal(float("-inf")), "minimum": INFINITY, "and": ONE}


class Function(Text):
    """The LLVM assembly of one function under construction.

    Parameters
    ----------
    dims : Dimensions
    ranks : sequence of int
        Number of dimensions of each input. They determine where its lengths are in the record that nutpie passes.
    first_metadata : int
        Number of the first metadata node about a loop; numbers must be unique within a module.
    """

    def __init__(self, dims: Dimensions, ranks: Sequence[int], first_metadata: int = 0) -> None:
        self._dims = dims
        self._ranks = ranks
        self._next_metadata = first_metadata
        self._metadata: list[str] = []
        super().__init__()
        self._scalars: dict[Operation, str] = {}
        self._buffers: dict[Operation, str] = {}
        self._cells: dict[Operation, str] = {}
        self._pointers: dict[int, str] = {}
        self._lengths: dict[int, str] = {}
        self._local: dict[object, str] = {}

    # Data that the function reads ------------------------------------------------------------------------------------

    def _word(self, place: int, kind: str) -> str:
        address = self._at_entry(f"getelementptr i64, ptr %data, i64 {place}")
        return self._at_entry(f"load {kind}, ptr {address}")

    def _pointer(self, number: int) -> str:
        if number not in self._pointers:
            self._pointers[number] = self._word(number, "ptr")
        return self._pointers[number]

    def _length(self, dim: int) -> str:
        root = self._dims.root(dim)
        known = self._dims.length(root)
        if known is not None:
            return str(known)
        if root not in self._lengths:
            number, axis = self._dims.axis_of(root)
            # The record holds all addresses, then all sizes, then the shapes one after the other.
            self._lengths[root] = self._word(2 * len(self._ranks) + sum(self._ranks[:number]) + axis, "i64")
        return self._lengths[root]

    def _size(self, dims: Iterable[int]) -> str:
        size = "1"
        for dim in dims:
            length = self._length(dim)
            known = size.isdigit() and length.isdigit()
            size = str(int(size) * int(length)) if known else self._at_entry(f"mul i64 {size}, {length}")
        return size

    # Operations -------------------------------------------------------------------------------------------------------

    def build(self, name: str, arguments: str, roots: Sequence[Operation], finish: Callable[[Function], None]) -> str:
        """Return the assembly of a function that computes `roots` and then runs what `finish` writes."""
        order = topological(roots)
        users = schedule(order, self._key)
        self._allocate(order, users, roots)
        loops: dict[tuple[int, tuple[int, ...]], list[Operation]] = defaultdict(list)
        for op in order:
            if op.kind not in LEAVES:
                loops[op.level, self._key(op.loop)].append(op)
        for (_, loop), ops in sorted(loops.items(), key=lambda item: (item[0][0], item[0][1])):
            self._loop(loop, ops)
        finish(self)
        body = "\n".join([*self._entry, *self._lines])
        allocas = "\n".join(self._allocas)
        metadata = "\n".join(self._metadata)
        return f"define i64 @{name}({arguments}) {{\n{allocas}\n  {self._guard}\nwork:\n{body}\n}}\n{metadata}\n"

    _guard = "br label %work"

    def guard(self, conditions: Sequence[tuple[str, int]]) -> None:
        """Return -1 unless arguments have these values."""
        lines = []
        for count, (argument, value) in enumerate(conditions):
            target = "work" if count == len(conditions) - 1 else f"next{count}"
            lines.append(f"%ok{count} = icmp eq i64 {argument}, {value}")
            lines.append(f"br i1 %ok{count}, label %{target}, label %wrong")
            if target != "work":
                lines.append(f"\n{target}:")
        self._guard = "\n  ".join([*lines, "\nwrong:\n  ret i64 -1"])

    def _key(self, dims: Iterable[int]) -> tuple[int, ...]:
        return tuple(self._dims.root(dim) for dim in dims)

    def _allocate(
        self, order: Sequence[Operation], users: dict[Operation, set[Operation]], roots: Sequence[Operation]
    ) -> None:
        """Allocate memory for results that one loop passes to another."""
        offset = "0"
        lines = []
        final = set(roots)
        for op in order:
            if op.kind in LEAVES:
                continue
            if op.kind in COLLECTS and not op.dims:
                self._cells[op] = self._cell()
                lines.append(f"  store double {_START[op.payload]}, ptr {self._cells[op]}")
                continue
            leaves_loop = any(
                user.level != op.level or self._key(user.loop) != self._key(op.loop) for user in users[op]
            )
            apart = any(_waits(user) for user in users[op])
            random = any(user.kind in (ELEMENT, SLICE, GATHER, PAD) and at_random(user, op) for user in users[op])
            if op.dims and (op.kind in COLLECTS or leaves_loop or apart or random or op in final):
                self._buffers[op] = offset
                size = self._size(op.dims)
                offset = (
                    str(int(offset) + int(size))
                    if offset.isdigit() and size.isdigit()
                    else self._at_entry(f"add i64 {offset}, {size}")
                )
        if offset != "0":
            size = self._at_entry(f"mul i64 {offset}, 8")
            block = self._at_entry(f"call ptr @malloc(i64 {size})")
            self._block: str | None = block
            for op, place in self._buffers.items():
                self._buffers[op] = self._at_entry(f"getelementptr double, ptr {block}, i64 {place}")
        else:
            self._block = None
        self._lines.extend(lines)
        for op, pointer in self._buffers.items():
            if op.kind in COLLECTS:
                start = ZERO if op.kind == SCATTER else _START[op.payload]
                self._nest(
                    (self._size(op.dims),),
                    lambda i, pointer=pointer, start=start: self._store(start, pointer, i[0]),  # type: ignore[misc]
                )

    def _store(self, value: str, pointer: str, index: str) -> None:
        address = self._do(f"getelementptr double, ptr {pointer}, i64 {index}")
        self._say(f"store double {value}, ptr {address}")

    def _nest(self, lengths: Sequence[str], body: Callable[[list[str]], None], independent: bool = False) -> None:
        """Write nested loops around what `body` writes.

        `independent` asserts that no iteration of the innermost loop uses memory that another one writes.
        """
        self._count += 1
        tag = self._count
        self._say(f"br label %enter{tag}_0")
        for depth, length in enumerate(lengths):
            self._lines.append(f"enter{tag}_{depth}:")
            self._say(f"br label %head{tag}_{depth}")
            self._lines.append(f"head{tag}_{depth}:")
            self._say(f"%i{tag}_{depth} = phi i64 [ 0, %enter{tag}_{depth} ], [ %n{tag}_{depth}, %tail{tag}_{depth} ]")
            self._say(f"%c{tag}_{depth} = icmp slt i64 %i{tag}_{depth}, {length}")
            inner = f"body{tag}" if depth == len(lengths) - 1 else f"enter{tag}_{depth + 1}"
            self._say(f"br i1 %c{tag}_{depth}, label %{inner}, label %exit{tag}_{depth}")
        self._lines.append(f"body{tag}:")
        begin = len(self._lines)
        body([f"%i{tag}_{depth}" for depth in range(len(lengths))])
        metadata = self._independent(begin) if independent else ""
        for depth in reversed(range(len(lengths))):
            self._say(f"br label %tail{tag}_{depth}")
            self._lines.append(f"tail{tag}_{depth}:")
            self._say(f"%n{tag}_{depth} = add nsw i64 %i{tag}_{depth}, 1")
            self._say(f"br label %head{tag}_{depth}{metadata if depth == len(lengths) - 1 else ''}")
            self._lines.append(f"exit{tag}_{depth}:")

    def _independent(self, begin: int) -> str:
        """Mark memory accesses from line `begin` on as independent between iterations; return the mark of the loop."""
        group, loop = self._next_metadata, self._next_metadata + 1
        self._next_metadata += 2
        self._metadata += [
            f"!{group} = distinct !{{}}",
            f'!{loop} = distinct !{{!{loop}, !{{!"llvm.loop.parallel_accesses", !{group}}}}}',
        ]
        cells = {f"ptr {cell}" for cell in self._cells.values()}
        for place in range(begin, len(self._lines)):
            line = self._lines[place]
            if (" = load " in line or line.startswith("  store ")) and line[line.rindex("ptr ") :] not in cells:
                self._lines[place] = f"{line}, !llvm.access.group !{group}"
        return f", !llvm.loop !{loop}"

    def _loop(self, loop: tuple[int, ...], ops: Sequence[Operation]) -> None:
        self._local = {}
        if not loop:
            for op in ops:
                self._scalars[op] = self._value(op, [])
            return

        def body(indices: list[str]) -> None:
            for op in together:
                if op.kind in COLLECTS:
                    self._collect(op, indices)
                    continue
                self._local[op] = self._value(op, indices)
                if op in self._buffers:
                    self._store(self._local[op], self._buffers[op], self._flat(op.dims, indices))

        def rest(indices: list[str]) -> None:
            for op in apart:
                self._collect(op, indices)

        # Collections run in a second loop that reads results from memory, so that LLVM can vectorize the first loop.
        together, apart = ([op for op in ops if _waits(op) is waits] for waits in (False, True))
        lengths = [self._length(dim) for dim in loop]
        for inside, write in ((together, body), (apart, rest)):
            if inside:
                self._nest(lengths, write, independent=write is body)
            self._local = {}
        for op in ops:
            if op in self._cells:
                self._scalars[op] = self._do(f"load double, ptr {self._cells[op]}")

    def _collect(self, op: Operation, indices: list[str]) -> None:
        value = self._argument(op, 0, indices)
        if op.kind == SCATTER:
            chosen = self._index(op.args[1][0], indices)
            address = self._do(f"getelementptr double, ptr {self._buffers[op]}, i64 {chosen}")
            function = "add"
        elif op.dims:
            at = self._flat(op.dims, [indices[place] for place in op.kept])
            address = self._do(f"getelementptr double, ptr {self._buffers[op]}, i64 {at}")
            function = op.payload
        else:
            address, function = self._cells[op], op.payload
        before = self._do(f"load double, ptr {address}")
        if function == "add" and not _waits(op):
            after = self._do(f"fadd reassoc double {before}, {value}")
        else:
            after = self._function(function, [before, value])
        self._say(f"store double {after}, ptr {address}")

    def _flat(self, dims: Sequence[int], indices: Sequence[str]) -> str:
        """Return the position of an element in memory, in row-major order."""
        key = ("flat", self._key(dims), tuple(indices))
        if key not in self._local:
            flat = indices[0]
            for dim, index in zip(dims[1:], indices[1:], strict=True):
                scaled = self._do(f"mul i64 {flat}, {self._length(dim)}")
                flat = self._do(f"add i64 {scaled}, {index}")
            self._local[key] = flat
        return self._local[key]

    def _argument(self, op: Operation, place: int, indices: Sequence[str]) -> str:
        arg, positions = op.args[place]
        return self.load(arg, [indices[p] for p in positions])

    def load(self, op: Operation, indices: Sequence[str]) -> str:
        """Return the value of an operation's result, or of one element of it."""
        if op.kind == CONST:
            return literal(op.payload)
        if not op.dims and op in self._scalars:
            return self._scalars[op]
        if op in self._local and op.kind not in LEAVES:
            return self._local[op]
        key = (op, tuple(indices))
        if key not in self._local:
            self._local[key] = self._fetch(op, indices)
            if not op.dims:  # a leaf, loaded at the entry of the function
                self._scalars[op] = self._local[key]
        return self._local[key]

    def _fetch(self, op: Operation, indices: Sequence[str]) -> str:
        if op.kind == LENGTH:
            return self._at_entry(f"sitofp i64 {self._length(op.payload)} to double")
        if op.kind == INPUT:
            return self._input(op, indices)
        if op.kind == POINT:
            place = str(op.payload)
            if op.dims:
                place = self._do(f"add i64 {self._flat(op.dims, indices)}, {op.payload}")
                address = self._do(f"getelementptr double, ptr %x, i64 {place}")
                return self._do(f"load double, ptr {address}")
            address = self._at_entry(f"getelementptr double, ptr %x, i64 {place}")
            return self._at_entry(f"load double, ptr {address}")
        address = self._do(f"getelementptr double, ptr {self._buffers[op]}, i64 {self._flat(op.dims, indices)}")
        return self._do(f"load double, ptr {address}")

    def _input(self, op: Operation, indices: Sequence[str]) -> str:
        number, dtype = op.payload
        kind = _TYPES[dtype]
        if op.dims:
            address = self._do(f"getelementptr {kind}, ptr {self._pointer(number)}, i64 {self._flat(op.dims, indices)}")
            value = self._do(f"load {kind}, ptr {address}")
        else:
            value = self._at_entry(f"load {kind}, ptr {self._pointer(number)}")
        if dtype == "float64":
            return value
        convert = "uitofp" if dtype.startswith(("u", "b")) else "sitofp"
        text = f"{convert} {kind} {value} to double"
        return self._do(text) if op.dims else self._at_entry(text)

    def _index(self, op: Operation, indices: Sequence[str]) -> str:
        number, dtype = op.payload
        key = ("index", op, tuple(indices))
        if key not in self._local:
            kind = _TYPES[dtype]
            address = self._do(f"getelementptr {kind}, ptr {self._pointer(number)}, i64 {indices[0]}")
            value = self._do(f"load {kind}, ptr {address}")
            if kind != "i64":
                value = self._do(f"{'zext' if dtype.startswith('u') else 'sext'} {kind} {value} to i64")
            self._local[key] = value
        return self._local[key]

    def _value(self, op: Operation, indices: list[str]) -> str:
        if op.kind == MAP:
            return self._function(op.payload, [self._argument(op, place, indices) for place in range(len(op.args))])
        if op.kind == ELEMENT:
            return self.load(op.args[0][0], [str(op.payload)])
        if op.kind == GATHER:
            return self.load(op.args[0][0], [self._index(op.args[1][0], indices)])
        if op.kind == SLICE:
            return self.load(op.args[0][0], [self._do(f"add i64 {indices[0]}, {op.payload}")])
        base = self._argument(op, 0, indices)
        if op.kind == PLACE:
            more = self._arithmetic("fadd", base, self._argument(op, 1, indices))
            return self._choose(self._do(f"icmp eq i64 {indices[0]}, {op.payload}"), more, base)
        assert op.kind == PAD
        start, count = op.payload
        within = self._do(f"sub i64 {indices[0]}, {start}")
        inside = self._do(f"icmp ult i64 {within}, {count}")
        safe = self._do(f"select i1 {inside}, i64 {within}, i64 0")
        more = self._arithmetic("fadd", base, self.load(op.args[1][0], [safe]))
        return self._choose(inside, more, base)

    # Results ----------------------------------------------------------------------------------------------------------

    def write(self, op: Operation, positions: Sequence[int | None], lengths: Sequence[int], offset: int) -> None:
        """Store a result of this shape in `out`, starting at `offset`."""
        if not lengths:
            self._store(self.load(op, []), "%out", str(offset))
            return

        def body(indices: list[str]) -> None:
            place = indices[0]
            for length, index in zip(lengths[1:], indices[1:], strict=True):
                place = self._do(f"add i64 {self._do(f'mul i64 {place}, {length}')}, {index}")
            inner: list[str] = [""] * len(op.dims)
            for axis, position in enumerate(positions):
                if position is not None:
                    inner[position] = indices[axis]
            self._store(self.load(op, inner), "%out", self._do(f"add i64 {place}, {offset}"))

        # A scalar is loaded before the loop, because its name must also be valid after it.
        if not op.dims:
            self.load(op, [])
        self._local = {}
        self._nest([str(length) for length in lengths], body)
        self._local = {}

    def leave(self, value: str = "0") -> None:
        """Free the memory and return `value`."""
        if self._block is not None:
            self._say(f"call void @free(ptr {self._block})")
        self._say(f"ret i64 {value}")

    def finish_logp(self, value: str, count: int) -> None:
        """Store the log density; return 3 or 4 if the gradient or the density is not finite, as nutpie expects."""
        self._say(f"store double {value}, ptr %logp")
        finite = self.finite(count)
        real = self._compare("oeq", self._arithmetic("fmul", value, ZERO), ZERO)
        code = self._do(f"select i1 {real}, i64 0, i64 4")
        self.leave(self._do(f"select i1 {finite}, i64 {code}, i64 3"))

    def finite(self, count: int) -> str:
        """Return whether the first `count` numbers of `out` are finite, as i1."""
        cell = self._cell()
        self._say(f"store double {ZERO}, ptr {cell}")

        def body(indices: list[str]) -> None:
            address = self._do(f"getelementptr double, ptr %out, i64 {indices[0]}")
            value = self._do(f"load double, ptr {address}")
            total = self._arithmetic(
                "fadd", self._do(f"load double, ptr {cell}"), self._arithmetic("fmul", value, ZERO)
            )
            self._say(f"store double {total}, ptr {cell}")

        self._nest((str(count),), body)
        return self._compare("oeq", self._do(f"load double, ptr {cell}"), ZERO)
