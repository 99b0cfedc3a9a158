"""Kinds of tables of runs, their columns and units, and inference of the kind."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from bayesdistill.arguments import QUANTITIES, shown
from bayesdistill.errors import DataError, ParameterError

if TYPE_CHECKING:
    import pandera.pandas as pa


class Column(NamedTuple):
    """Description of one column of a table of runs."""

    long_name: str
    quantity: str
    """Key in `QUANTITIES`; determines the plausibility checks."""

    @property
    def units(self) -> str:
        """Units of the quantity."""
        return QUANTITIES[self.quantity].units


COLUMNS = MappingProxyType(
    {
        "student_params": Column("non-embedding parameters of the student", "params"),
        "student_tokens": Column("distillation tokens of the student", "tokens"),
        "teacher_loss": Column("validation cross-entropy of the teacher", "loss"),
        "student_loss": Column("validation cross-entropy of the student", "loss"),
        "params": Column("non-embedding parameters of the model", "params"),
        "tokens": Column("training tokens of the model", "tokens"),
        "loss": Column("validation cross-entropy of the model", "loss"),
    }
)
"""Columns of both kinds that the model uses."""

KINDS = MappingProxyType(
    {
        "distilled": ("student_params", "student_tokens", "teacher_loss", "student_loss"),
        "supervised": ("params", "tokens", "loss"),
    }
)
"""Required columns of each kind, in the order of the law's arguments; the last one is the outcome."""

LABELS = ("teacher", "student", "experiment")
"""Label columns. In a CSV file, they are always read as text."""

GROUPS = ("teacher", "student")
"""Labels of random effects. Every row must have a label."""


# Common alternative names, in lower case and without punctuation.
_ALIASES = {
    "student_params": "ns nstudent studentn studentsize studentparameters",
    "student_tokens": "ds dstudent studentd distillationtokens",
    "teacher_loss": "lt lteacher teachercrossentropy teacherce teachervalloss",
    "student_loss": "ls lstudent studentcrossentropy studentce studentvalloss",
    "params": "n parameters size modelsize numparams nonembeddingparams",
    "tokens": "d trainingtokens traintokens numtokens",
    "loss": "l crossentropy ce valloss validationloss evalloss",
}


def required_columns(kind: str, *, outcome: bool = True) -> tuple[str, ...]:
    """Return the required columns of one kind of table, with or without the outcome."""
    return KINDS[kind] if outcome else KINDS[kind][:-1]


def runs_schema(
    kind: str, vocabulary_size: int | None = None, columns: Sequence[str] | None = None
) -> pa.DataFrameSchema:
    """Return the pandera schema of one kind of table.

    Parameters
    ----------
    kind : {"distilled", "supervised"}
        Kind of table.
    vocabulary_size : int, optional
        Vocabulary size V in tokens; losses must not exceed ln(V).
    columns : sequence of str, optional
        Required columns. By default, all columns of the kind.

    Returns
    -------
    pandera.pandas.DataFrameSchema
        All cells must be finite positive floats. Other columns are allowed. The text of every check describes the expected value.

    Examples
    --------
    >>> from bayesdistill.datasets import runs_schema
    >>> list(runs_schema("supervised").columns)
    ['params', 'tokens', 'loss']
    """
    import pandera.pandas as pa

    def column(name: str) -> pa.Column:
        checks = [
            pa.Check(lambda cells: np.isfinite(cells), error="a finite number"),
            pa.Check.greater_than(0, error="a number above 0"),
        ]
        if vocabulary_size is not None and COLUMNS[name].quantity == "loss":
            bound = math.log(vocabulary_size)
            text = (
                f"at most ln({vocabulary_size}) = {bound:.4f} nats per token, the loss of a uniform prediction (multiply bits per "
                "token by 0.6931, and take the natural logarithm of a perplexity)"
            )
            checks.append(pa.Check.less_than_or_equal_to(bound, error=text))
        return pa.Column(float, checks, nullable=False, description=COLUMNS[name].long_name)

    names = required_columns(checked_kind(kind)) if columns is None else columns
    return pa.DataFrameSchema({name: column(name) for name in names}, strict=False)


def checked_kind(kind: str) -> str:
    """Return the kind, or raise a ParameterError that lists the kinds."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise ParameterError(f"`kind` must be {', '.join(repr(name) for name in KINDS)} or None, got {shown(kind)}.")
    return kind


def kind_of(columns: Sequence[Any], kind: str | None, where: str, *, outcome: bool = True) -> str:
    """Return the kind of a table with these columns.

    Parameters
    ----------
    columns : sequence
        Column names of the table.
    kind : {"distilled", "supervised"} or None
        Requested kind; None infers it.
    where : str
        The file, or "the table".
    outcome : bool
        Whether the outcome is required.

    Raises
    ------
    DataError
        If a column is missing, or the columns match both kinds. The message suggests which columns to rename.
    """
    names = [str(name) for name in columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{where} has more than one column {_quoted(repeated)}. Rename or drop all but one.")
    complete = _complete(names, outcome=True)
    if not outcome and (kind is not None or len(complete) != 1):
        complete = _complete(names, outcome=False)
    if kind is not None:
        if checked_kind(kind) in complete:
            return kind
    elif len(complete) == 1:
        return complete[0]
    elif complete:
        raise DataError(
            f"{where} has the columns of distilled runs ({_listed('distilled', outcome)}) and of supervised runs "
            f"({_listed('supervised', outcome)}). Select one with kind='distilled' or kind='supervised'. If the table contains rows of "
            "both kinds, split it into two files."
        )
    if pd.to_numeric(pd.Series(names), errors="coerce").notna().sum() >= 3:
        raise DataError(
            f"{where} has no header; found {_quoted(names[:7])} instead of column names. Add a header: "
            f"{_listed('distilled')} for distilled runs, {_listed('supervised')} for supervised runs."
        )
    raise DataError(_missing(names, kind, where, complete, outcome))


def _complete(names: list[str], *, outcome: bool) -> list[str]:
    return [kind for kind in KINDS if set(required_columns(kind, outcome=outcome)) <= set(names)]


def _missing(names: list[str], kind: str | None, where: str, complete: list[str], outcome: bool) -> str:
    """Describe missing columns, and which columns to rename or to add."""
    needed = {candidate: required_columns(candidate, outcome=outcome) for candidate in KINDS}
    near = {candidate: _near_names(needed[candidate], names) for candidate in KINDS}
    found = {c: (len(set(needed[c]) & set(names)) + len(near[c])) / len(needed[c]) for c in KINDS}
    if kind is None and not any(found.values()):
        return (
            f"{where} has no columns of runs; found {_quoted(names) or 'none'}. Distilled runs must have the columns "
            f"{_listed('distilled', outcome)}; supervised runs must have {_listed('supervised', outcome)}."
        )
    best = kind or max(found, key=lambda candidate: found[candidate])
    missing = [name for name in needed[best] if name not in names]
    text = f"{where} has no column {_quoted(missing)}, which {best} runs require"
    if complete:
        return f"{text}; it has the columns of {complete[0]} runs ({_listed(complete[0], outcome)}), not of the requested {kind} runs."
    if near[best]:
        similar = ", ".join(f"{alike!r} looks like {name!r}" for name, alike in near[best].items())
        rename = ", ".join(f"{alike!r}: {name!r}" for name, alike in near[best].items())
        return (
            f"{text}; {similar}. Rename it, for example with runs.rename(columns={{{rename}}}). Found {_quoted(names)}."
        )
    return f"{text} ({', '.join(f'{n}: {COLUMNS[n].long_name}, in {COLUMNS[n].units}' for n in missing)}). Found {_quoted(names)}."


def _near_names(needed: Sequence[str], names: list[str]) -> dict[str, str]:
    """Return required name -> similar name in the table."""
    free = {_bare(name): name for name in names if name not in needed}
    near = {}
    for wanted in needed:
        if wanted in names:
            continue
        hits = [bare for bare in (_bare(wanted), *_ALIASES[wanted].split()) if bare in free]
        hits = hits or difflib.get_close_matches(_bare(wanted), list(free), n=1, cutoff=0.8)
        if hits:
            near[wanted] = free.pop(hits[0])
    return near


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _listed(kind: str, outcome: bool = True) -> str:
    return " ".join(required_columns(kind, outcome=outcome))
