"""Kinds of tables of runs, their columns and units, and inference of the kind."""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

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
        "teacher_params": Column("non-embedding parameters of the teacher", "params"),
        "teacher_tokens": Column("training tokens of the teacher", "tokens"),
        "cost": Column("compute of the run", "compute"),
    }
)
"""Columns of runs and of teachers that the package uses."""

KINDS = MappingProxyType(
    {
        "distilled": ("student_params", "student_tokens", "teacher_loss", "student_loss"),
        "supervised": ("params", "tokens", "loss"),
    }
)
"""Required columns of each kind, in the order of the law's arguments; the last one is the outcome."""

TEACHERS = "teachers"
"""Kind of a table of existing teachers."""

_REQUIRED = KINDS | {TEACHERS: ("params", "loss")}

OPTIONAL = MappingProxyType(
    {"distilled": ("teacher_params", "teacher_tokens", "cost"), "supervised": ("cost",), TEACHERS: ("tokens",)}
)
"""Further columns of each kind that some functions use. Their cells may be missing."""

SIZES = MappingProxyType(
    {
        "distilled": (
            ("student_params", "student_tokens", "student_loss"),
            ("teacher_params", "teacher_tokens", "teacher_loss"),
        ),
        "supervised": (("params", "tokens", "loss"),),
        TEACHERS: (("params", "tokens", "loss"),),
    }
)
"""Columns with the size, tokens and loss of each model of a run."""

RENAMED = (
    "If these are distilled runs, rename params to student_params, tokens to student_tokens and loss to student_loss"
)
"""Advice for runs with teachers and the columns of supervised runs."""

LABELS = ("teacher", "student", "experiment", "model")
"""Label columns. In a CSV file, they are always read as text."""

GROUPS = MappingProxyType({"distilled": ("teacher", "student"), "supervised": ("model",), TEACHERS: ()})
"""Labels of random effects of each kind. Every row must have a label."""

LABELED = MappingProxyType({"teacher": "teacher_loss", "student": "student_params", "model": "params"})
"""Column that has the same value in every run with the same label."""

NAME = "name"
"""Label of a teacher or a candidate. Every row must have another name."""


class Recipe(NamedTuple):
    """Description of a column of the training recipe, which the law describes for one value only."""

    described: tuple[str | float, ...]
    """Numbers, or words in lower case. Missing cells are accepted too."""
    expected: str


RECIPE = MappingProxyType(
    {
        "mixing": Recipe(
            (1.0,), "the law describes students that learn from the teacher's distribution alone (a weight of 1)"
        ),
        "temperature": Recipe((1.0,), "the law describes distillation at temperature 1"),
        "top_k": Recipe(
            (math.inf, "all", "full"), "the law describes students of the teacher's whole distribution ('all')"
        ),
        "init": Recipe(
            ("random", "scratch", "from scratch"), "the law describes models trained from random weights ('random')"
        ),
    }
)
"""Columns of the training recipe (docs/explanation/scope.md). The first three belong to distilled runs."""

RECIPES = MappingProxyType({"distilled": tuple(RECIPE), "supervised": ("init",), TEACHERS: ()})
"""Columns of the training recipe of each kind."""

_LONGEST = 60
"""Longest name of a column that messages show in full."""

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
    return _REQUIRED[kind] if outcome or kind == TEACHERS else _REQUIRED[kind][:-1]


def runs_schema(
    kind: str, vocabulary_size: float | None = None, columns: Sequence[str] | None = None
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

    names = KINDS[checked_kind(kind)] if columns is None else columns
    return pa.DataFrameSchema({name: column(name) for name in names}, strict=False)


def checked_kind(kind: str) -> str:
    """Return the kind, or raise a ParameterError that lists the kinds."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise ParameterError(f"`kind` must be {', '.join(repr(name) for name in KINDS)} or None, got {shown(kind)}.")
    return kind


def kind_of(
    names: Sequence[str], kind: str | None, where: str, *, outcome: bool = True, recorded: str | None = None
) -> str:
    """Return the kind of a table with these columns.

    Parameters
    ----------
    names : sequence of str
        Column names of the table.
    kind : {"distilled", "supervised", "teachers"} or None
        Requested kind; None infers it.
    where : str
        The file, or "the table".
    outcome : bool
        Whether the outcome is required.
    recorded : str, optional
        Kind in the attributes of the table; decides if the columns match both kinds.

    Raises
    ------
    DataError
        If a column is missing, or the columns match both kinds. The message suggests which columns to rename.
    """
    counts = Counter(names)
    if repeated := sorted(name for name, count in counts.items() if count > 1):
        raise DataError(f"{where} has more than one column {_quoted(repeated)}. Rename or drop all but one.")
    kinds = (TEACHERS,) if kind == TEACHERS else tuple(KINDS)

    def complete_with(*, outcome: bool) -> list[str]:
        return [one for one in kinds if set(required_columns(one, outcome=outcome)) <= counts.keys()]

    complete = complete_with(outcome=True)
    if not outcome and (kind is not None or len(complete) != 1):
        complete = complete_with(outcome=False)
    if (kind or recorded) in complete:
        return str(kind or recorded)
    if kind is None and len(complete) == 1:
        return complete[0]
    if kind is None and complete:
        raise DataError(
            f"{where} has the columns of distilled runs ({_listed('distilled', outcome)}) and of supervised runs "
            f"({_listed('supervised', outcome)}). Select one with kind='distilled' or kind='supervised'. If the table contains rows of "
            "both kinds, split it into two files."
        )
    if sum(_is_number(name) for name in names) >= 3:
        raise DataError(
            f"{where} has no header; found {_quoted(names[:7])} instead of column names. Add a header: "
            + " or ".join(f"{_listed(one)} for {_called(one)}" for one in kinds)
            + "."
        )
    needed = {one: required_columns(one, outcome=outcome) for one in kinds}
    raise DataError(f"{where} has no column{_missing(names, kind, needed, complete)}")


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _missing(names: Sequence[str], kind: str | None, needed: dict[str, tuple[str, ...]], complete: list[str]) -> str:
    """Describe missing columns, and which columns to rename or to add."""
    near = {one: _near_names(columns, names) for one, columns in needed.items()}
    found = {one: (len(set(columns) & set(names)) + len(near[one])) / len(columns) for one, columns in needed.items()}
    best = kind or max(found, key=lambda one: found[one])
    if not any(found.values()):
        required = "; ".join(
            f"{_called(one)} must have the columns {' '.join(columns)}" for one, columns in needed.items()
        )
        return f"s of runs; found {_quoted(names) or 'none'}. {required[0].upper()}{required[1:]}."
    missing = [name for name in needed[best] if name not in names]
    text = f" {_quoted(missing)}, which {_called(best)} require"
    if complete:
        other = complete[0]
        advice = " Pass it as supervised runs." if other == "supervised" else ""
        advice = f" {RENAMED}." if "teacher_loss" in names else advice
        return f"{text}; it has the columns of {other} runs ({' '.join(needed[other])}), not of the requested {kind} runs.{advice}"
    if near[best]:
        similar = ", ".join(f"{shown(alike)} looks like {name!r}" for name, alike in near[best].items())
        rename = ", ".join(f"{shown(alike)}: {name!r}" for name, alike in near[best].items())
        table = TEACHERS if best == TEACHERS else "runs"
        return f"{text}; {similar}. Rename it, for example with {table}.rename(columns={{{rename}}}). Found {_quoted(names)}."
    return f"{text} ({', '.join(f'{n}: {COLUMNS[n].long_name}, in {COLUMNS[n].units}' for n in missing)}). Found {_quoted(names)}."


def _near_names(needed: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Return required name -> similar name in the table."""
    free = {_bare(name): name for name in names if name not in needed}
    near = {}
    for wanted in needed:
        if wanted in names:
            continue
        better = [bare for bare, name in free.items() if excludes_embeddings(name)] if wanted.endswith("params") else []
        hits = [bare for bare in (*better, _bare(wanted), *_ALIASES[wanted].split()) if bare in free]
        hits = hits or difflib.get_close_matches(_bare(wanted), list(free), n=1, cutoff=0.8)
        if hits:
            near[wanted] = free.pop(hits[0])
    return near


def excludes_embeddings(name: str) -> bool:
    """Return whether the name of a column says that it counts the non-embedding parameters of the trained model."""
    bare = _bare(name)
    return re.search(r"(non?|without|wo|excl|excluding|minus)emb", bare) is not None and "teacher" not in bare


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _quoted(names: Sequence[str], longest: int = 300) -> str:
    """List names for a message, and count those that would make it too long."""
    texts = [repr(name) if len(name) < _LONGEST else shown(name) for name in names[:50]]
    kept = sum(total <= longest for total in itertools.accumulate(len(text) for text in texts))
    more = len(names) - max(kept, 1)
    return ", ".join(texts[: max(kept, 1)]) + (f" and {more} more" if more > 0 else "")


def _called(kind: str) -> str:
    return kind if kind == TEACHERS else f"{kind} runs"


def _listed(kind: str, outcome: bool = True) -> str:
    return " ".join(required_columns(kind, outcome=outcome))
