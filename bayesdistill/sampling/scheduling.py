"""When each term is computed: terms over the same dimensions share a loop wherever none waits for a sum of another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bayesdistill.sampling.terms import COLLECTS, ELEMENT, GATHER, LEAVES, PAD, SLICE, Term


def at_random(user: Term, term: Term) -> bool:
    """Whether a user reads elements of a term other than the one its loop is at."""
    if user.kind in (ELEMENT, SLICE):
        return True
    place = 0 if user.kind == GATHER else 1
    return user.kind in (GATHER, PAD) and user.args[place][0] is term


def topological(roots: Sequence[Term]) -> list[Term]:
    """All that the roots need, each after what it needs itself."""
    order: list[Term] = []
    seen: set[Term] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        term, done = stack.pop()
        if done:
            order.append(term)
        elif term not in seen:
            seen.add(term)
            stack.append((term, True))
            stack.extend((arg, False) for arg, _ in term.args if arg not in seen)
    return order


def schedule(order: Sequence[Term], key: Callable[[Iterable[int]], tuple[int, ...]]) -> dict[Term, set[Term]]:
    """Give every term the earliest level at which all it needs is there, or a later one that it shares with its users.

    Terms of one level and one loop are computed together. Returns the users of each term.
    """
    users: dict[Term, set[Term]] = {term: set() for term in order}

    def together(term: Term, arg: Term, positions: tuple[int, ...]) -> bool:
        return (
            arg.kind not in COLLECTS
            and key(arg.dims) == key(term.loop)
            and positions == tuple(range(len(arg.dims)))
            and not at_random(term, arg)
        )

    for term in order:
        level = 0
        for arg, positions in term.args:
            users[arg].add(term)
            if arg.kind not in LEAVES:
                level = max(level, arg.level + (0 if together(term, arg, positions) else 1))
        term.level = level
    for term in reversed(order):
        if term.kind in LEAVES or term.kind in COLLECTS or not term.dims or not users[term]:
            continue
        if all(together(user, term, positions) for user in users[term] for arg, positions in user.args if arg is term):
            term.level = min(user.level for user in users[term])
    return users
