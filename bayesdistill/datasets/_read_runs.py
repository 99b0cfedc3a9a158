"""Read and check tables: runs to fit (`read_runs`), runs to predict (`read_design`), candidates and teachers.

All functions apply the checks of `checks` and raise errors that describe the correction.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bayesdistill.datasets.checks import Requirements, checked, is_missing, names_of
from bayesdistill.datasets.files import read_raw
from bayesdistill.datasets.schemas import KINDS, TEACHERS, checked_kind, kind_of, required_columns
from bayesdistill.errors import DataError, ParameterError


def read_runs(
    source: str | os.PathLike[str] | pd.DataFrame,
    kind: str | None = None,
    *,
    vocabulary_size: int | None = None,
    allow_suspicious: bool = False,
) -> pd.DataFrame:
    """Read and check a table of runs.

    Parameters
    ----------
    source : path or pandas.DataFrame
        A CSV file in UTF-8 (``.csv``, ``.csv.gz``), a Parquet file (``.parquet``, ``.pq``), or a DataFrame, which is not
        modified.
    kind : {"distilled", "supervised"}, optional
        Distilled runs have the columns ``student_params student_tokens teacher_loss student_loss``, supervised ones
        ``params tokens loss``. By default, the columns determine the kind.
    vocabulary_size : int, optional
        Vocabulary size V in tokens; losses above ln(V) raise an error.
    allow_suspicious : bool
        Accept values that are valid but probably wrong: implausible sizes, tokens or losses, student losses far below the
        teacher losses, one label with different values, and constant sizes, tokens or teacher losses. The setting is stored
        in ``attrs["allow_suspicious"]`` and applies when the table is read again.

    Returns
    -------
    pandas.DataFrame
        All columns and rows in their order, rows numbered from 0, the columns of the kind as float64. ``attrs`` holds
        ``source`` and ``kind``.

    Raises
    ------
    FileError
        If the file cannot be opened.
    DataError
        If the file is not a table, a column is missing, a cell is not a positive finite number, there are fewer than two runs,
        rows are identical in every column, the loss is constant or, unless `allow_suspicious`, a value is implausible. The
        message names the file and, for a cell, its row (counted from 1 below the header), line in a CSV file, column and value.
    ParameterError
        If `kind` or `vocabulary_size` is invalid.

    Notes
    -----
    Runs of one configuration that differ in the loss or in another column such as ``seed`` are repeats and are kept.

    Examples
    --------
    >>> import bayesdistill as bd, pandas as pd
    >>> table = pd.DataFrame({"params": [1e8, 2e8], "tokens": [2e9, 8e9], "loss": [3.1, 2.8], "seed": [0, 0]})
    >>> bd.read_runs(table).attrs["kind"]
    'supervised'
    >>> bd.read_runs(table.assign(params=[100, 2e8]))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    bayesdistill.errors.DataError: the table, row 1, column params: 100 is too few for ... probably 1e+08
    """
    if vocabulary_size is not None and not (math.isfinite(vocabulary_size) and vocabulary_size >= 2):
        raise ParameterError(f"`vocabulary_size` must be an integer of at least 2, or None, got {vocabulary_size!r}.")
    required = Requirements(
        _kind(kind),
        outcome=True,
        fit=True,
        vocabulary_size=vocabulary_size,
        allow_suspicious=allow_suspicious,
    )
    return checked(read_raw(source), required)


def read_design(
    source: str | os.PathLike[str] | pd.DataFrame,
    kind: str | None = None,
    *,
    allow_suspicious: bool = False,
    teacher_losses: tuple[float, float] = (0.0, math.inf),
) -> pd.DataFrame:
    """Read and check a table of runs to predict, with or without their outcomes.

    Parameters
    ----------
    source : path or pandas.DataFrame
        As for `read_runs`.
    kind : {"distilled", "supervised"}, optional
        Distilled runs have the columns ``student_params student_tokens teacher_loss``, supervised ones ``params tokens``.
        The outcome (``student_loss`` or ``loss``) may be missing. By default, the columns determine the kind.
    allow_suspicious : bool
        As for `read_runs`.
    teacher_losses : tuple of float
        Range of plausible losses of teachers, in nats per token.

    Returns
    -------
    pandas.DataFrame
        As `read_runs` returns it.

    Raises
    ------
    FileError, DataError, ParameterError
        As for `read_runs`, but a single run is enough, columns may be constant, and runs without an outcome may be repeated.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayesdistill.datasets import read_design
    >>> read_design(pd.DataFrame({"params": ["1e9"], "tokens": [2e10]})).attrs["kind"]
    'supervised'
    """
    required = Requirements(_kind(kind), allow_suspicious=allow_suspicious, teacher_losses=teacher_losses)
    return checked(read_raw(source), required)


def _kind(kind: str | None) -> str | None:
    return kind if kind is None else checked_kind(kind)


def read_measured(
    source: str | os.PathLike[str] | pd.DataFrame, kind: str | None = None, *, allow_suspicious: bool = False
) -> pd.DataFrame:
    """Read and check a table of runs with their outcomes, which need not determine a fit.

    Raises
    ------
    FileError, DataError, ParameterError
        As for `read_design`; also if the outcome is missing or two rows are equal.
    """
    return checked(read_raw(source), Requirements(_kind(kind), outcome=True, allow_suspicious=allow_suspicious))


def read_costed(source: str | os.PathLike[str] | pd.DataFrame, kind: str) -> pd.DataFrame:
    """Read and check runs to fit like `read_runs`, and the sizes and tokens of their teachers if they are given."""
    return checked(read_raw(source), Requirements(kind, outcome=True, fit=True, optional=True))


class Part(NamedTuple):
    """Candidate runs of one kind."""

    kind: str
    rows: np.ndarray
    """Whether a row of the whole table belongs to this part."""
    frame: pd.DataFrame


def read_candidates(
    source: str | os.PathLike[str] | pd.DataFrame, teacher_losses: tuple[float, float] = (0.0, math.inf)
) -> tuple[list[str], list[Part]]:
    """Read and check a table of candidate runs, with rows of one or both kinds.

    Returns
    -------
    names : list of str
        Names of the candidates; by default, "1", "2" and so on.
    parts : list of Part
        The runs of each kind, without outcomes.

    Raises
    ------
    FileError, DataError, ParameterError
        As for `read_design`.
    """
    raw = read_raw(source, "`candidates`")
    columns = list(raw.frame.columns)
    designs = {kind: required_columns(kind, outcome=False) for kind in KINDS}
    given = [kind for kind, needed in designs.items() if set(needed) <= set(columns)]
    if len(given) < len(designs):
        rows = {kind_of(columns, None, raw.where, outcome=False): np.ones(len(raw.frame), dtype=bool)}
    else:
        kind_of(columns, given[0], raw.where, outcome=False)
        filled = {
            kind: ~raw.frame[list(needed)].map(is_missing).to_numpy(dtype=bool) for kind, needed in designs.items()
        }
        rows = {kind: cells.any(axis=1) for kind, cells in filled.items()}
        distilled, supervised = rows.values()
        for row in np.flatnonzero(distilled == supervised)[:1].tolist():
            raise DataError(
                f"{raw.where}, {raw.at(row)} has {'values for both kinds of run' if distilled[row] else 'no values'}. Fill either "
                + " or ".join(f"{' '.join(needed)} ({kind} run)" for kind, needed in designs.items())
                + "."
            )
    parts = []
    for kind, chosen in rows.items():
        if chosen.any() or len(raw.frame) == 0:
            others = {name for names in KINDS.values() for name in names} - set(designs[kind])
            required = Requirements(kind, optional=True, names=True, teacher_losses=teacher_losses)
            parts.append(Part(kind, chosen, checked(raw.part(chosen, sorted(others)), required)))
    return names_of(raw, ""), parts


def read_teachers(
    source: pd.DataFrame | str | Path, teacher_losses: tuple[float, float]
) -> tuple[list[str], pd.DataFrame]:
    """Read and check a table of existing teachers: params, loss, and optionally tokens and name.

    Returns
    -------
    names : list of str
        Names of the teachers; by default, "T1", "T2" and so on.
    frame : pandas.DataFrame

    Raises
    ------
    DataError
        As for `read_design`.
    """
    raw = read_raw(source, "`teachers`")
    required = Requirements(TEACHERS, outcome=True, optional=True, names=True, teacher_losses=teacher_losses)
    frame = checked(raw, required)
    return names_of(raw, "T"), frame
