"""What a table of runs must hold: its two kinds, their columns and units, and how a kind is told from the column names."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from bayesdistill.errors import DataError, ParameterError

if TYPE_CHECKING:
    import pandera.pandas as pa


class Column(NamedTuple):
    """What one column of a table of runs means."""

    long_name: str
    units: str
    quantity: str
    """`params`, `tokens` or `loss`: which checks of magnitude apply."""


COLUMNS = MappingProxyType(
    {
        "student_params": Column("non-embedding parameters of the student", "parameters", "params"),
        "student_tokens": Column("tokens the student is distilled on", "tokens", "tokens"),
        "teacher_loss": Column("validation cross-entropy of the teacher", "nats per token", "loss"),
        "student_loss": Column("validation cross-entropy of the student", "nats per token", "loss"),
        "params": Column("non-embedding parameters of the model", "parameters", "params"),
        "tokens": Column("tokens the model is trained on", "tokens", "tokens"),
        "loss": Column("validation cross-entropy of the model", "nats per token", "loss"),
    }
)
"""Every column that the model reads, of either kind."""

KINDS = MappingProxyType(
    {
        "distilled": ("student_params", "student_tokens", "teacher_loss", "student_loss"),
        "supervised": ("params", "tokens", "loss"),
    }
)
"""The columns that each kind of table needs, in the order of the law's arguments; the last is what the law predicts."""

LABELS = ("teacher", "student", "experiment")
"""Columns that hold names. In a CSV file they are read as text, whatever they look like."""

GROUPS = ("teacher", "student")
"""Labels that say which runs share a source of scatter; a row without one would belong to no group."""

# Names in use elsewhere, lower case and without punctuation. Names that only differ in those need no entry.
_ALIASES = {
    "student_params": ("ns", "nstudent", "studentn", "studentsize", "studentparameters"),
    "student_tokens": ("ds", "dstudent", "studentd", "distillationtokens"),
    "teacher_loss": ("lt", "lteacher", "teachercrossentropy", "teacherce", "teachervalloss"),
    "student_loss": ("ls", "lstudent", "studentcrossentropy", "studentce", "studentvalloss"),
    "params": ("n", "parameters", "size", "modelsize", "numparams", "nonembeddingparams"),
    "tokens": ("d", "trainingtokens", "traintokens", "numtokens"),
    "loss": ("l", "crossentropy", "ce", "valloss", "validationloss", "evalloss"),
}


def design_columns(kind: str) -> tuple[str, ...]:
    """The columns of one kind of table without its outcome."""
    return KINDS[kind][:-1]


def runs_schema(
    kind: str, vocabulary_size: int | None = None, columns: Sequence[str] | None = None
) -> pa.DataFrameSchema:
    """The pandera schema of one kind of table: what every cell must be, taken by itself.

    Parameters
    ----------
    kind : {"distilled", "supervised"}
        Which columns.
    vocabulary_size : int, optional
        Tokens in the vocabulary V; bounds every loss by ln(V).
    columns : sequence of str, optional
        Those that must be there; by default all columns of the kind.

    Returns
    -------
    pandera.pandas.DataFrameSchema
        Floats, present, finite, positive. Other columns are allowed. The text of every check says what it expects.

    Examples
    --------
    >>> from bayesdistill.datasets import runs_schema
    >>> list(runs_schema("supervised").columns)
    ['params', 'tokens', 'loss']
    """
    import numpy as np
    import pandera.pandas as pa

    def column(name: str) -> pa.Column:
        checks = [
            pa.Check(lambda cells: np.isfinite(cells), error="a finite number"),
            pa.Check.greater_than(0, error="a number above 0"),
        ]
        if vocabulary_size is not None and COLUMNS[name].quantity == "loss":
            bound = math.log(vocabulary_size)
            said = (
                f"at most ln({vocabulary_size}) = {bound:.4f} nats per token, the loss of guessing at random among the "
                "vocabulary (bits per token times 0.6931, and the logarithm of a perplexity, are nats)"
            )
            checks.append(pa.Check.less_than_or_equal_to(bound, error=said))
        return pa.Column(float, checks, nullable=False, description=COLUMNS[name].long_name)

    names = KINDS[checked_kind(kind)] if columns is None else columns
    return pa.DataFrameSchema({name: column(name) for name in names}, strict=False)


def checked_kind(kind: str) -> str:
    """The kind itself, or a ParameterError that lists the kinds."""
    if kind not in KINDS:
        raise ParameterError(f"kind is {kind!r}; use {' or '.join(repr(name) for name in KINDS)}, or None to infer it")
    return kind


def checked_vocabulary_size(vocabulary_size: int | None) -> int | None:
    """The vocabulary size itself, or a ParameterError."""
    if vocabulary_size is not None and not (math.isfinite(vocabulary_size) and vocabulary_size >= 2):
        raise ParameterError(f"vocabulary_size is {vocabulary_size!r}; an integer of at least 2 is needed, or None")
    return vocabulary_size


def kind_of(columns: Sequence[Any], kind: str | None, where: str, *, outcome: bool = True) -> str:
    """Which kind of table has these columns; refuses a table that lacks a column, or that could be both kinds.

    Parameters
    ----------
    columns : sequence
        The names that were found.
    kind : {"distilled", "supervised"} or None
        What was asked for; None infers it.
    where : str
        The file, or "the table".
    outcome : bool
        Whether the outcome must be there.

    Raises
    ------
    DataError
        Names the missing columns, and for each the column that is probably meant.
    """
    names = [str(name) for name in columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{where}: column {_quoted(repeated)} is there more than once; rename or drop all but one")
    complete = [candidate for candidate, needed in KINDS.items() if set(needed) <= set(names)]
    if not outcome and (kind is not None or len(complete) != 1):
        complete = [candidate for candidate in KINDS if set(design_columns(candidate)) <= set(names)]
    if kind is not None:
        if checked_kind(kind) in complete:
            return kind
    elif len(complete) == 1:
        return complete[0]
    elif complete:
        raise DataError(
            f"{where} has the columns of distilled runs ({_listed('distilled', outcome)}) and of supervised runs "
            f"({_listed('supervised', outcome)}): say which to use with kind='distilled' or kind='supervised'; if some rows are of one "
            "kind and some of the other, write them to two files"
        )
    _refuse_headerless(names, where)
    raise DataError(_missing(names, kind, where, complete, outcome))


def _refuse_headerless(names: list[str], where: str) -> None:
    if sum(_is_number(name) for name in names) >= 3:
        raise DataError(
            f"{where} has no header: {_quoted(names[:7])} stand where the column names should be; write the names above them: "
            f"{_listed('distilled')} for distilled runs, {_listed('supervised')} for supervised ones"
        )


def _missing(names: list[str], kind: str | None, where: str, complete: list[str], outcome: bool) -> str:
    needed = {candidate: KINDS[candidate] if outcome else design_columns(candidate) for candidate in KINDS}
    near = {candidate: _near_names(needed[candidate], names) for candidate in KINDS}
    if kind is None:
        found = {c: len(set(needed[c]) & set(names)) + len(near[c]) for c in KINDS}
        best = max(found, key=lambda candidate: found[candidate] / len(needed[candidate]))
        if found[best] == 0:
            return (
                f"{where} has no columns of runs; found {_quoted(names) or 'none'}. Distilled runs need the columns "
                f"{_listed('distilled', outcome)}; supervised runs need {_listed('supervised', outcome)}"
            )
    else:
        best = kind
    missing = [name for name in needed[best] if name not in names]
    text = f"{where} has no column {_quoted(missing)}, which {best} runs need"
    if complete:
        return f"{text}; it has the columns of {complete[0]} runs ({_listed(complete[0], outcome)}), not of the {kind} runs asked for"
    if near[best]:
        means = ", ".join(f"{found!r} looks like {name!r}" for name, found in near[best].items())
        rename = ", ".join(f"{found!r}: {name!r}" for name, found in near[best].items())
        return f"{text}; {means}. Rename it, for example with runs.rename(columns={{{rename}}}); found {_quoted(names)}"
    return f"{text} ({', '.join(f'{n}: {COLUMNS[n].long_name}, in {COLUMNS[n].units}' for n in missing)}); found {_quoted(names)}"


def _near_names(needed: Sequence[str], names: list[str]) -> dict[str, str]:
    """Needed name -> the name found that is probably meant."""
    free = {_bare(name): name for name in names if name not in needed}
    near = {}
    for wanted in needed:
        if wanted in names:
            continue
        hits = [bare for bare in (_bare(wanted), *_ALIASES[wanted]) if bare in free]
        hits = hits or difflib.get_close_matches(_bare(wanted), list(free), n=1, cutoff=0.8)
        if hits:
            near[wanted] = free.pop(hits[0])
    return near


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _listed(kind: str, outcome: bool = True) -> str:
    return " ".join(KINDS[kind] if outcome else design_columns(kind))
