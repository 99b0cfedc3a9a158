"""Assign operations to loops: operations over the same dimensions share a loop where possible."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bayesdistill.compiler.ir import COLLECTS, LEAVES, Operation


def at_random(user: Operation, op: Operation) -> bool:
    """Whether a user reads other elements of a result than the current one of its loop."""
    read = {"slice": 0, "gather": 0, "pad": 1}.get(user.kind)
    return read is not None and user.args[read][0] is op


def topological(roots: Sequence[Operation]) -> list[Operation]:
    """Return the roots and everything that they depend on, in topological order."""
    order: list[Operation] = []
    seen: set[Operation] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        op, done = stack.pop()
        if done:
            order.append(op)
        elif op not in seen:
            seen.add(op)
            stack.append((op, True))
            stack.extend((arg, False) for arg, _ in op.args if arg not in seen)
    return order


def schedule(
    order: Sequence[Operation], key: Callable[[Iterable[int]], tuple[int, ...]]
) -> dict[Operation, set[Operation]]:
    """Set the level of every operation, and return the users of each.

    Operations with the same level and the same loop are computed together. The level is the lowest one at which all arguments are
    available, or a higher one that the operation shares with all its users.
    """
    users: dict[Operation, set[Operation]] = {op: set() for op in order}

    def together(op: Operation, arg: Operation, positions: tuple[int, ...]) -> bool:
        return (
            arg.kind not in COLLECTS
            and key(arg.dims) == key(op.loop)
            and positions == tuple(range(len(arg.dims)))
            and not at_random(op, arg)
        )

    for op in order:
        level = 0
        for arg, positions in op.args:
            users[arg].add(op)
            if arg.kind not in LEAVES:
                level = max(level, arg.level + (0 if together(op, arg, positions) else 1))
        op.level = level
    for op in reversed(order):
        if op.kind in LEAVES or op.kind in COLLECTS or not op.dims or not users[op]:
            continue
        if all(together(user, op, positions) for user in users[op] for arg, positions in user.args if arg is op):
            op.level = min(user.level for user in users[op])
    return users
