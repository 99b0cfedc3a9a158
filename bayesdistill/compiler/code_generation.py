"""Generate the LLVM assembly of a function from operations.

Operations over the same dimensions share a loop unless one of them requires the completed sum of another, so a log density with its
gradient becomes a handful of loops. A sum into one number may be computed in another order, several elements at a time. All other
arithmetic is strict, so the same assembly gives the same numbers on the same kind of processor.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from bayesdistill.compiler.ir import COLLECTS, DATA_TYPES, LEAVES, Dimensions, Handle, Operation
from bayesdistill.compiler.llvm_text import INFINITY, ONE, ZERO, Text, literal
from bayesdistill.compiler.scheduling import at_random, schedule, topological

_START = {"add": ZERO, "maximum": literal(-math.inf), "minimum": INFINITY, "and": ONE}
"""What reductions start with."""


def _waits(op: Operation) -> bool:
    """Whether an iteration depends on the one before: every collection except a sum into one number."""
    return op.kind in COLLECTS and (bool(op.dims) or op.payload != "add")


class Function(Text):
    """The LLVM assembly of one function under construction.

    Parameters
    ----------
    dims : Dimensions
    ranks : sequence of int
        Number of dimensions of each input. They determine where its lengths are in the record that nutpie passes.
    metadata_numbers : iterator of int
        Numbers of metadata nodes about loops, which must be unique within a module.
    """

    def __init__(self, dims: Dimensions, ranks: Sequence[int], metadata_numbers: Iterator[int]) -> None:
        super().__init__()
        self._dims = dims
        self._ranks = ranks
        self._metadata_numbers = metadata_numbers
        self._metadata: list[str] = []
        self._mark = ""  # of memory accesses that are independent between iterations of the current loop
        self._scalars: dict[Operation, str] = {}
        self._buffers: dict[Operation, str] = {}
        self._cells: dict[Operation, str] = {}
        self._from_record: dict[tuple[int, str], str] = {}
        self._local: dict[object, str] = {}

    def build(
        self, name: str, lengths: Mapping[str, int], outputs: Sequence[Handle], density: Operation | None = None
    ) -> str:
        """Return the assembly of a function that stores results one after the other in `out`.

        Parameters
        ----------
        name : str
        lengths : mapping
            First arguments of the function, and the values that they must have; otherwise it returns -1.
        outputs : sequence of Handle
            Results; their lengths must be fixed.
        density : Operation, optional
            A number to store in `logp`. With it, the function returns 3 or 4 if the outputs or this number are not finite, as nutpie
            expects. Otherwise it returns 0.
        """
        roots = [*([] if density is None else [density]), *(handle.op for handle in outputs)]
        order = topological(roots)
        users = schedule(order, self._key)
        block = self._allocate(order, users, set(roots))
        loops: dict[tuple[int, tuple[int, ...]], list[Operation]] = defaultdict(list)
        for op in order:
            if op.kind not in LEAVES:
                loops[op.level, self._key(op.loop)].append(op)
        for (_, loop), ops in sorted(loops.items(), key=lambda item: item[0]):
            self._loop(loop, ops)
        offset = 0
        for handle in outputs:
            offset += self._write(handle, offset)
        code = "0" if density is None else self._finish_density(self.load(density, []), offset)
        self._say(f"call void @free(ptr {block})")
        self._say(f"ret i64 {code}")

        arguments = [f"i64 %{argument}" for argument in lengths]
        arguments += ["ptr %x", "ptr %out", *(["ptr %logp"] if density is not None else []), "ptr %data"]
        guard, ok = [], "true"
        for argument, length in lengths.items():
            guard.append(f"  %is_{argument} = icmp eq i64 %{argument}, {length}")
            guard.append(f"  %ok_{argument} = and i1 {ok}, %is_{argument}")
            ok = f"%ok_{argument}"
        guard += [f"  br i1 {ok}, label %work, label %wrong", "wrong:", "  ret i64 -1", "work:"]
        lines = [*self._allocas, *guard, *self._entry, *self._lines, "}", *self._metadata, ""]
        return "\n".join([f"define i64 @{name}({', '.join(arguments)}) {{", *lines])

    # Memory -----------------------------------------------------------------------------------------------------------

    def _read(self, pointer: str, index: str, kind: str = "double", entry: bool = False) -> str:
        address = self._do(f"getelementptr {kind}, ptr {pointer}, i64 {index}", entry)
        return self._do(f"load {kind}, ptr {address}{'' if entry else self._mark}", entry)

    def _store(self, value: str, pointer: str, index: str) -> None:
        address = self._do(f"getelementptr double, ptr {pointer}, i64 {index}")
        self._say(f"store double {value}, ptr {address}{self._mark}")

    def _word(self, place: int, kind: str) -> str:
        """Return a number or an address of the record that nutpie passes."""
        if (place, kind) not in self._from_record:
            self._from_record[place, kind] = self._read("%data", str(place), kind, entry=True)
        return self._from_record[place, kind]

    def _length(self, dim: int) -> str:
        known = self._dims.length(dim)
        if known is not None:
            return str(known)
        number, axis = self._dims.axis_of(dim)
        # The record holds all addresses, then all sizes, then the shapes one after the other.
        return self._word(2 * len(self._ranks) + sum(self._ranks[:number]) + axis, "i64")

    def _size(self, dims: Iterable[int]) -> str:
        size = "1"
        for dim in dims:
            size = self._do(f"mul i64 {size}, {self._length(dim)}", entry=True)
        return size

    def _key(self, dims: Iterable[int]) -> tuple[int, ...]:
        return tuple(self._dims.root(dim) for dim in dims)

    def _allocate(
        self, order: Sequence[Operation], users: Mapping[Operation, set[Operation]], final: set[Operation]
    ) -> str:
        """Allocate memory for results that one loop passes to another; return its address."""

        def read_elsewhere(op: Operation) -> bool:
            """Whether something outside the iteration that computes an element reads it."""
            loop = (op.level, self._key(op.loop))
            return op in final or any(
                (user.level, self._key(user.loop)) != loop or _waits(user) or at_random(user, op) for user in users[op]
            )

        size, offsets = "0", {}
        for op in order:
            if op.kind in COLLECTS and not op.dims:
                self._cells[op] = self._cell(_START[op.payload])
            elif op.kind in COLLECTS or (op.kind not in LEAVES and op.dims and read_elsewhere(op)):
                offsets[op] = size
                size = self._do(f"add i64 {size}, {self._size(op.dims)}", entry=True)
        size = self._do(f"mul i64 {size}, 8", entry=True)
        block = self._do(f"call ptr @malloc(i64 {size})", entry=True)
        for op, offset in offsets.items():
            self._buffers[op] = self._do(f"getelementptr double, ptr {block}, i64 {offset}", entry=True)
        for op in offsets:
            if op.kind in COLLECTS:

                def body(indices: list[str], op: Operation = op) -> None:
                    self._store(_START[op.payload], self._buffers[op], indices[0])

                self._nest([self._size(op.dims)], body)
        return block

    # Loops ------------------------------------------------------------------------------------------------------------

    def _nest(
        self,
        lengths: Sequence[str],
        body: Callable[[list[str]], None],
        independent: bool = False,
        outer: Sequence[str] = (),
    ) -> None:
        """Write nested loops around what `body` writes.

        `independent` asserts that no iteration of the innermost loop uses memory that another one writes. `outer` are the indices of
        the loops around these.
        """
        self._count += 1
        tag, end = self._count, ""
        self._lines.append(f"""  br label %enter{tag}
enter{tag}:
  br label %head{tag}
head{tag}:
  %i{tag} = phi i64 [ 0, %enter{tag} ], [ %n{tag}, %tail{tag} ]
  %c{tag} = icmp slt i64 %i{tag}, {lengths[0]}
  br i1 %c{tag}, label %body{tag}, label %exit{tag}
body{tag}:""")
        indices = [*outer, f"%i{tag}"]
        if len(lengths) > 1:
            self._nest(lengths[1:], body, independent, indices)
        else:
            if independent:
                group, loop = next(self._metadata_numbers), next(self._metadata_numbers)
                self._metadata.append(f"!{group} = distinct !{{}}")
                parallel = f'!{{!"llvm.loop.parallel_accesses", !{group}}}'
                self._metadata.append(f"!{loop} = distinct !{{!{loop}, {parallel}}}")
                self._mark, end = f", !llvm.access.group !{group}", f", !llvm.loop !{loop}"
            body(indices)
            self._mark = ""
        self._lines.append(f"""  br label %tail{tag}
tail{tag}:
  %n{tag} = add nsw i64 %i{tag}, 1
  br label %head{tag}{end}
exit{tag}:""")

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
        """Add an element to a sum, or to another collection."""
        value = self._argument(op, 0, indices)
        address = self._cells.get(op)
        if address is None:
            kept = [indices[position] for position in op.kept]
            place = self._index(op, indices) if op.kind == "scatter" else self._flat(op.dims, kept)
            address = self._do(f"getelementptr double, ptr {self._buffers[op]}, i64 {place}")
        before = self._do(f"load double, ptr {address}")
        reordered = f"fadd reassoc double {before}, {value}"
        after = self._function(op.payload, before, value) if _waits(op) else self._do(reordered)
        self._say(f"store double {after}, ptr {address}")

    # Values -----------------------------------------------------------------------------------------------------------

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
        if op.kind == "const":
            return literal(op.payload)
        if op in self._scalars:
            return self._scalars[op]
        if op in self._local:
            return self._local[op]
        key = (op, tuple(indices))
        if key not in self._local:
            self._local[key] = self._fetch(op, indices)
            if not op.dims:  # a leaf, loaded at the entry of the function
                self._scalars[op] = self._local[key]
        return self._local[key]

    def _fetch(self, op: Operation, indices: Sequence[str]) -> str:
        entry = not op.dims
        if op.kind == "length":
            return self._do(f"sitofp i64 {self._length(op.payload)} to double", entry)
        index = "0" if entry else self._flat(op.dims, indices)
        if op.kind == "point":
            return self._read("%x", self._do(f"add i64 {index}, {op.payload}", entry), entry=entry)
        if op.kind == "input":
            number, dtype = op.payload
            value = self._read(self._word(number, "ptr"), index, DATA_TYPES[dtype], entry)
            convert = "uitofp" if dtype.startswith(("u", "b")) else "sitofp"
            return value if dtype == "float64" else self._do(f"{convert} {DATA_TYPES[dtype]} {value} to double", entry)
        return self._read(self._buffers[op], index)

    def _index(self, op: Operation, indices: Sequence[str]) -> str:
        """Return the index that the second argument of an operation holds."""
        key = ("index", op.args[1][0], tuple(indices))
        if key not in self._local:
            number, dtype = op.args[1][0].payload
            kind = DATA_TYPES[dtype]
            value = self._read(self._word(number, "ptr"), indices[0], kind)
            if kind != "i64":
                value = self._do(f"{'zext' if dtype.startswith('u') else 'sext'} {kind} {value} to i64")
            self._local[key] = value
        return self._local[key]

    def _value(self, op: Operation, indices: list[str]) -> str:
        if op.kind == "map":
            return self._function(op.payload, *(self._argument(op, place, indices) for place in range(len(op.args))))
        if op.kind == "gather":
            return self.load(op.args[0][0], [self._index(op, indices)])
        if op.kind == "slice":
            start = str(op.payload)
            return self.load(op.args[0][0], [self._do(f"add i64 {indices[0]}, {start}") if op.dims else start])
        assert op.kind == "pad"
        base, (start, count) = self._argument(op, 0, indices), op.payload
        within = self._do(f"sub i64 {indices[0]}, {start}")
        inside = self._do(f"icmp ult i64 {within}, {count}")
        safe = self._do(f"select i1 {inside}, i64 {within}, i64 0")
        more = self._function("add", base, self.load(op.args[1][0], [safe][: len(op.args[1][0].dims)]))
        return self._choose(inside, more, base)

    # Results ----------------------------------------------------------------------------------------------------------

    def _write(self, handle: Handle, offset: int) -> int:
        """Store a result in `out`, starting at `offset`; return its size."""
        op = handle.op
        positions = [position for position in handle.axes if position is not None]
        dims = [op.dims[position] for position in positions]
        if not dims:
            self._store(self.load(op, []), "%out", str(offset))
            return 1

        def body(indices: list[str]) -> None:
            value = self.load(op, [indices[positions.index(position)] for position in range(len(dims))])
            self._store(value, "%out", self._do(f"add i64 {self._flat(dims, indices)}, {offset}"))

        self._local = {}
        self._nest([self._length(dim) for dim in dims], body)
        self._local = {}
        return math.prod(int(self._length(dim)) for dim in dims)

    def _finish_density(self, value: str, count: int) -> str:
        """Store the log density; return the code of success, or of outputs or a density that are not finite."""
        self._say(f"store double {value}, ptr %logp")
        cell = self._cell(ZERO)

        def body(indices: list[str]) -> None:
            zero = self._function("mul", self._read("%out", indices[0]), ZERO)
            total = self._function("add", self._do(f"load double, ptr {cell}"), zero)
            self._say(f"store double {total}, ptr {cell}")

        self._nest([str(count)], body)
        finite = self._compare("eq", self._do(f"load double, ptr {cell}"), ZERO)
        real = self._compare("eq", self._function("mul", value, ZERO), ZERO)
        code = self._do(f"select i1 {real}, i64 0, i64 4")
        return self._do(f"select i1 {finite}, i64 {code}, i64 3")
