"""Union of laws: the smallest law that contains several laws as special cases.

A law without one of the terms is the union with the neutral values of the term's symbols (`Parameter.neutral`). Terms without symbols
that restrict the coordinates, such as tied exponents, are left out unless every law has them: the symbols of the draws satisfy the
restriction already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bayesdistill.errors import ModelError
from bayesdistill.law.forms import Law
from bayesdistill.law.residual import CONSTANT, ResidualNoise
from bayesdistill.law.term import Term

_SLOTS = ("ability_tokens", "irreducible", "student_excess", "excess", "floor")


def union_of(laws: Mapping[str, Law], name: str) -> Law:
    """Return the union of laws.

    Parameters
    ----------
    laws : mapping
        Name -> law.
    name : str
        Name of the union.

    Raises
    ------
    ModelError
        If a law is not a special case of the union: a term or a form of the residual noise has symbols without neutral values, or
        parts of the same name differ.
    """
    every = list(laws.values())
    if len({tuple(law.kinds.items()) for law in every}) > 1:
        kinds = "; ".join(
            f"{key}: {' and '.join(kind for kind, has in law.kinds.items() if has)} runs" for key, law in laws.items()
        )
        raise ModelError(f"The laws describe different kinds of runs ({kinds}). Fit all laws to the same runs.")
    terms = _merged([law.terms for law in every], "term")
    kept = tuple(term for term in terms if all(term in law.terms for law in every) or not _restricts(term))
    _require_order(kept, laws)
    same = set.intersection(*({*law.fixed.items()} for law in every))
    found = Law(
        name,
        "; ".join(dict.fromkeys(law.reference for law in every)),
        kept,
        effects=_merged([law.effects for law in every], "group effect"),
        residual_noise=_one_form([law.residual_noise for law in every]),
        supervised_residual_noise=_one_form([law.supervised_residual_noise for law in every]),
        supervised_noise=every[0].supervised_noise,
        discrepancy=_merged([law.discrepancy for law in every], "discrepancy"),
    )
    found = replace(found, fixed={key: value for key, value in every[0].fixed.items() if (key, value) in same})
    for key, law in laws.items():
        _require_neutral(key, law, found)
    return found


def neutral_values(law: Law, union: Law) -> dict[str, float]:
    """Return the values at which the union is one of its laws: symbol that the law lacks -> value."""
    own = {parameter.name for parameter in law.parameters}
    return {p.name: float(p.neutral) for p in union.parameters if p.name not in own and p.neutral is not None}


def _restricts(term: Term) -> bool:
    """Whether a term restricts the coordinates and does nothing else."""
    return not term.parameters and all(getattr(term, slot) is None for slot in _SLOTS)


def _merged(lists: Sequence[Sequence[Any]], what: str) -> tuple[Any, ...]:
    """Merge lists of parts; a new part follows the part that precedes it in its list."""
    found: list[Any] = []
    for parts in lists:
        place = 0
        for part in parts:
            known = [one.name for one in found]
            if part.name not in known:
                found.insert(place, part)
            elif part not in found:
                raise ModelError(
                    f"Two laws have different parts with the name of the {what} {part.name!r}. Rename one."
                )
            place = [one.name for one in found].index(part.name) + 1
    return tuple(found)


def _one_form(forms: Sequence[ResidualNoise]) -> ResidualNoise:
    """Return the only form of the residual noise that depends on the run."""
    others = [form for form in dict.fromkeys(forms) if form.name != CONSTANT.name]
    if len(others) > 1:
        names = " and ".join(repr(form.name) for form in others)
        raise ModelError(
            f"The laws have the forms {names} of the residual noise, which one law cannot have. Fit laws with one form, or with "
            "'constant' (Law.with_residual_noise)."
        )
    return others[0] if others else CONSTANT


def _require_order(terms: Sequence[Term], laws: Mapping[str, Law]) -> None:
    """Raise an error if two terms modify the same slot in different orders."""
    for name, law in laws.items():
        order = [term for term in law.terms if term in terms]
        for slot in _SLOTS:
            own, union = ([t.name for t in of if getattr(t, slot) is not None] for of in (order, terms))
            if own != [one for one in union if one in own]:
                raise ModelError(
                    f"The law {name!r} has the terms {', '.join(map(repr, own))} in another order than the other laws, and they "
                    f"modify the same slot {slot!r}. Compose the laws in the same order."
                )


def _require_neutral(name: str, law: Law, union: Law) -> None:
    own, known = {parameter.name for parameter in law.parameters}, {term.name for term in law.terms}
    for term in union.terms:
        if term.name not in known and not (term.parameters and all(p.neutral is not None for p in term.parameters)):
            lacking = [p.name for p in term.parameters if p.neutral is None]
            reason = f"{' and '.join(lacking)} have no neutral value" if lacking else "it has no symbols"
            raise ModelError(
                f"The law {name!r} has no term {term.name!r}, and no value of its symbols removes the term ({reason}), so these laws "
                "cannot be mixed. Declare `neutral` of its Parameters, or leave out a law."
            )
    for parameter in union.parameters:
        if parameter.name not in own and parameter.neutral is None:
            raise ModelError(
                f"The law {name!r} has no {parameter.name}, which has no neutral value, so these laws cannot be mixed."
            )
