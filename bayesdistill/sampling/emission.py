"""From terms to the text of a function in LLVM's language.

Terms over the same dimensions share a loop wherever none of them waits for a sum of another, so that a log density with its
gradient becomes a handful of loops. What a loop adds up into one number may be added in another order, several elements at a
time; everything else is strict, and the same text gives the same numbers on the same kind of processor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from bayesdistill.sampling.scheduling import at_random, schedule, topological
from bayesdistill.sampling.terms import (
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
    Term,
)
from bayesdistill.sampling.text import INFINITY, ONE, ZERO, Text, literal

_TYPES = {"float64": "double", "bool": "i8", "int8": "i8", "uint8": "i8", "int16": "i16", "uint16": "i16"}
_TYPES |= {"int32": "i32", "uint32": "i32", "int64": "i64"}


def _waits(term: Term) -> bool:
    """Whether a pass of the loop over a term needs what the pass before has left: all collecting but sums into one number."""
    return term.kind in COLLECTS and (bool(term.dims) or term.payload != "add")


_START = {"add": ZERO, "maximum": literal(float("-inf")), "minimum": INFINITY, "and": ONE}


class Function(Text):
    """The text of one function under construction.

    Parameters
    ----------
    dims : Dimensions
    ranks : sequence of int
        Number of dimensions of each input: they fix where its lengths stand in the sampler's record.
    first_note : int
        Number of the first note about a loop; each function of a module needs its own.
    """

    def __init__(self, dims: Dimensions, ranks: Sequence[int], first_note: int = 0) -> None:
        self._dims = dims
        self._ranks = ranks
        self._next_note = first_note
        self._notes: list[str] = []
        super().__init__()
        self._scalars: dict[Term, str] = {}
        self._buffers: dict[Term, str] = {}
        self._cells: dict[Term, str] = {}
        self._pointers: dict[int, str] = {}
        self._lengths: dict[int, str] = {}
        self._local: dict[object, str] = {}

    # Numbers the function is given ------------------------------------------------------------------------------------

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

    # Terms ------------------------------------------------------------------------------------------------------------

    def build(self, name: str, arguments: str, roots: Sequence[Term], finish: Callable[[Function], None]) -> str:
        """The text of a function that computes `roots`, and then whatever `finish` writes with `load`."""
        order = topological(roots)
        users = schedule(order, self._key)
        self._allocate(order, users, roots)
        loops: dict[tuple[int, tuple[int, ...]], list[Term]] = defaultdict(list)
        for term in order:
            if term.kind not in LEAVES:
                loops[term.level, self._key(term.loop)].append(term)
        for (_, loop), terms in sorted(loops.items(), key=lambda item: (item[0][0], item[0][1])):
            self._loop(loop, terms)
        finish(self)
        body = "\n".join([*self._entry, *self._lines])
        allocas = "\n".join(self._allocas)
        notes = "\n".join(self._notes)
        return f"define i64 @{name}({arguments}) {{\n{allocas}\n  {self._guard}\nwork:\n{body}\n}}\n{notes}\n"

    _guard = "br label %work"

    def guard(self, conditions: Sequence[tuple[str, int]]) -> None:
        """Leave with -1 unless arguments have these values."""
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

    def _allocate(self, order: Sequence[Term], users: dict[Term, set[Term]], roots: Sequence[Term]) -> None:
        """Memory for what one loop leaves to another."""
        offset = "0"
        lines = []
        final = set(roots)
        for term in order:
            if term.kind in LEAVES:
                continue
            if term.kind in COLLECTS and not term.dims:
                self._cells[term] = self._cell()
                lines.append(f"  store double {_START[term.payload]}, ptr {self._cells[term]}")
                continue
            leaves_loop = any(
                user.level != term.level or self._key(user.loop) != self._key(term.loop) for user in users[term]
            )
            apart = any(_waits(user) for user in users[term])
            random = any(user.kind in (ELEMENT, SLICE, GATHER, PAD) and at_random(user, term) for user in users[term])
            if term.dims and (term.kind in COLLECTS or leaves_loop or apart or random or term in final):
                self._buffers[term] = offset
                size = self._size(term.dims)
                offset = (
                    str(int(offset) + int(size))
                    if offset.isdigit() and size.isdigit()
                    else self._at_entry(f"add i64 {offset}, {size}")
                )
        if offset != "0":
            size = self._at_entry(f"mul i64 {offset}, 8")
            block = self._at_entry(f"call ptr @malloc(i64 {size})")
            self._block: str | None = block
            for term, place in self._buffers.items():
                self._buffers[term] = self._at_entry(f"getelementptr double, ptr {block}, i64 {place}")
        else:
            self._block = None
        self._lines.extend(lines)
        for term, pointer in self._buffers.items():
            if term.kind in COLLECTS:
                start = ZERO if term.kind == SCATTER else _START[term.payload]
                self._nest(
                    (self._size(term.dims),),
                    lambda i, pointer=pointer, start=start: self._store(start, pointer, i[0]),  # type: ignore[misc]
                )

    def _store(self, value: str, pointer: str, index: str) -> None:
        address = self._do(f"getelementptr double, ptr {pointer}, i64 {index}")
        self._say(f"store double {value}, ptr {address}")

    def _nest(self, lengths: Sequence[str], body: Callable[[list[str]], None], independent: bool = False) -> None:
        """Nested counting loops around what `body` writes; `independent` if no pass of the innermost needs another's memory."""
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
        note = self._note(begin) if independent else ""
        for depth in reversed(range(len(lengths))):
            self._say(f"br label %tail{tag}_{depth}")
            self._lines.append(f"tail{tag}_{depth}:")
            self._say(f"%n{tag}_{depth} = add nsw i64 %i{tag}_{depth}, 1")
            self._say(f"br label %head{tag}_{depth}{note if depth == len(lengths) - 1 else ''}")
            self._lines.append(f"exit{tag}_{depth}:")

    def _note(self, begin: int) -> str:
        """Says of the memory that lines from `begin` on use that no pass of their loop needs another's; a note for the loop."""
        group, loop = self._next_note, self._next_note + 1
        self._next_note += 2
        self._notes += [
            f"!{group} = distinct !{{}}",
            f'!{loop} = distinct !{{!{loop}, !{{!"llvm.loop.parallel_accesses", !{group}}}}}',
        ]
        cells = {f"ptr {cell}" for cell in self._cells.values()}
        for place in range(begin, len(self._lines)):
            line = self._lines[place]
            if (" = load " in line or line.startswith("  store ")) and line[line.rindex("ptr ") :] not in cells:
                self._lines[place] = f"{line}, !llvm.access.group !{group}"
        return f", !llvm.loop !{loop}"

    def _loop(self, loop: tuple[int, ...], terms: Sequence[Term]) -> None:
        self._local = {}
        if not loop:
            for term in terms:
                self._scalars[term] = self._value(term, [])
            return

        def body(indices: list[str]) -> None:
            for term in together:
                if term.kind in COLLECTS:
                    self._collect(term, indices)
                    continue
                self._local[term] = self._value(term, indices)
                if term in self._buffers:
                    self._store(self._local[term], self._buffers[term], self._flat(term.dims, indices))

        def rest(indices: list[str]) -> None:
            for term in apart:
                self._collect(term, indices)

        # Apart, and reading the others' results from memory, so that LLVM may take several elements of the first at once.
        together, apart = ([term for term in terms if _waits(term) is waits] for waits in (False, True))
        lengths = [self._length(dim) for dim in loop]
        for inside, write in ((together, body), (apart, rest)):
            if inside:
                self._nest(lengths, write, independent=write is body)
            self._local = {}
        for term in terms:
            if term in self._cells:
                self._scalars[term] = self._do(f"load double, ptr {self._cells[term]}")

    def _collect(self, term: Term, indices: list[str]) -> None:
        value = self._argument(term, 0, indices)
        if term.kind == SCATTER:
            chosen = self._index(term.args[1][0], indices)
            address = self._do(f"getelementptr double, ptr {self._buffers[term]}, i64 {chosen}")
            function = "add"
        elif term.dims:
            at = self._flat(term.dims, [indices[place] for place in term.kept])
            address = self._do(f"getelementptr double, ptr {self._buffers[term]}, i64 {at}")
            function = term.payload
        else:
            address, function = self._cells[term], term.payload
        before = self._do(f"load double, ptr {address}")
        if function == "add" and not _waits(term):
            after = self._do(f"fadd reassoc double {before}, {value}")
        else:
            after = self._function(function, [before, value])
        self._say(f"store double {after}, ptr {address}")

    def _flat(self, dims: Sequence[int], indices: Sequence[str]) -> str:
        """Place of an element in memory, the last dimension running fastest."""
        key = ("flat", self._key(dims), tuple(indices))
        if key not in self._local:
            flat = indices[0]
            for dim, index in zip(dims[1:], indices[1:], strict=True):
                scaled = self._do(f"mul i64 {flat}, {self._length(dim)}")
                flat = self._do(f"add i64 {scaled}, {index}")
            self._local[key] = flat
        return self._local[key]

    def _argument(self, term: Term, place: int, indices: Sequence[str]) -> str:
        arg, positions = term.args[place]
        return self.load(arg, [indices[p] for p in positions])

    def load(self, term: Term, indices: Sequence[str]) -> str:
        """The value of a term, at an element of it."""
        if term.kind == CONST:
            return literal(term.payload)
        if not term.dims and term in self._scalars:
            return self._scalars[term]
        if term in self._local and term.kind not in LEAVES:
            return self._local[term]
        key = (term, tuple(indices))
        if key not in self._local:
            self._local[key] = self._fetch(term, indices)
            if not term.dims:  # a leaf, fetched at the start
                self._scalars[term] = self._local[key]
        return self._local[key]

    def _fetch(self, term: Term, indices: Sequence[str]) -> str:
        if term.kind == LENGTH:
            return self._at_entry(f"sitofp i64 {self._length(term.payload)} to double")
        if term.kind == INPUT:
            return self._input(term, indices)
        if term.kind == POINT:
            place = str(term.payload)
            if term.dims:
                place = self._do(f"add i64 {self._flat(term.dims, indices)}, {term.payload}")
                address = self._do(f"getelementptr double, ptr %x, i64 {place}")
                return self._do(f"load double, ptr {address}")
            address = self._at_entry(f"getelementptr double, ptr %x, i64 {place}")
            return self._at_entry(f"load double, ptr {address}")
        address = self._do(f"getelementptr double, ptr {self._buffers[term]}, i64 {self._flat(term.dims, indices)}")
        return self._do(f"load double, ptr {address}")

    def _input(self, term: Term, indices: Sequence[str]) -> str:
        number, dtype = term.payload
        kind = _TYPES[dtype]
        if term.dims:
            address = self._do(
                f"getelementptr {kind}, ptr {self._pointer(number)}, i64 {self._flat(term.dims, indices)}"
            )
            value = self._do(f"load {kind}, ptr {address}")
        else:
            value = self._at_entry(f"load {kind}, ptr {self._pointer(number)}")
        if dtype == "float64":
            return value
        convert = "uitofp" if dtype.startswith(("u", "b")) else "sitofp"
        text = f"{convert} {kind} {value} to double"
        return self._do(text) if term.dims else self._at_entry(text)

    def _index(self, term: Term, indices: Sequence[str]) -> str:
        number, dtype = term.payload
        key = ("index", term, tuple(indices))
        if key not in self._local:
            kind = _TYPES[dtype]
            address = self._do(f"getelementptr {kind}, ptr {self._pointer(number)}, i64 {indices[0]}")
            value = self._do(f"load {kind}, ptr {address}")
            if kind != "i64":
                value = self._do(f"{'zext' if dtype.startswith('u') else 'sext'} {kind} {value} to i64")
            self._local[key] = value
        return self._local[key]

    def _value(self, term: Term, indices: list[str]) -> str:
        if term.kind == MAP:
            return self._function(
                term.payload, [self._argument(term, place, indices) for place in range(len(term.args))]
            )
        if term.kind == ELEMENT:
            return self.load(term.args[0][0], [str(term.payload)])
        if term.kind == GATHER:
            return self.load(term.args[0][0], [self._index(term.args[1][0], indices)])
        if term.kind == SLICE:
            return self.load(term.args[0][0], [self._do(f"add i64 {indices[0]}, {term.payload}")])
        base = self._argument(term, 0, indices)
        if term.kind == PLACE:
            more = self._arithmetic("fadd", base, self._argument(term, 1, indices))
            return self._choose(self._do(f"icmp eq i64 {indices[0]}, {term.payload}"), more, base)
        assert term.kind == PAD
        start, count = term.payload
        within = self._do(f"sub i64 {indices[0]}, {start}")
        inside = self._do(f"icmp ult i64 {within}, {count}")
        safe = self._do(f"select i1 {inside}, i64 {within}, i64 0")
        more = self._arithmetic("fadd", base, self.load(term.args[1][0], [safe]))
        return self._choose(inside, more, base)

    # Results ----------------------------------------------------------------------------------------------------------

    def write(self, term: Term, positions: Sequence[int | None], lengths: Sequence[int], offset: int) -> None:
        """Store a result of this shape into `out`, from `offset` on."""
        if not lengths:
            self._store(self.load(term, []), "%out", str(offset))
            return

        def body(indices: list[str]) -> None:
            place = indices[0]
            for length, index in zip(lengths[1:], indices[1:], strict=True):
                place = self._do(f"add i64 {self._do(f'mul i64 {place}, {length}')}, {index}")
            inner: list[str] = [""] * len(term.dims)
            for axis, position in enumerate(positions):
                if position is not None:
                    inner[position] = indices[axis]
            self._store(self.load(term, inner), "%out", self._do(f"add i64 {place}, {offset}"))

        # A scalar is fetched before the loop: its name must be known after it, too.
        if not term.dims:
            self.load(term, [])
        self._local = {}
        self._nest([str(length) for length in lengths], body)
        self._local = {}

    def leave(self, value: str = "0") -> None:
        """Free the memory and return."""
        if self._block is not None:
            self._say(f"call void @free(ptr {self._block})")
        self._say(f"ret i64 {value}")

    def finish_logp(self, value: str, count: int) -> None:
        """Store the log density; leave with 3 or 4 unless the gradient and it are finite, as nutpie's own functions do."""
        self._say(f"store double {value}, ptr %logp")
        finite = self.finite(count)
        real = self._compare("oeq", self._arithmetic("fmul", value, ZERO), ZERO)
        code = self._do(f"select i1 {real}, i64 0, i64 4")
        self.leave(self._do(f"select i1 {finite}, i64 {code}, i64 3"))

    def finite(self, count: int) -> str:
        """Whether the first `count` numbers of `out` are finite, as i1."""
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
