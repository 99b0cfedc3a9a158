"""What a table of runs holds, in a few numbers, and its fingerprint."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayesdistill.datasets.schemas import COLUMNS, GROUPS, KINDS, kind_of

if TYPE_CHECKING:
    import xarray as xr


def _kind(table: pd.DataFrame) -> str:
    return kind_of(list(table.columns), table.attrs.get("kind"), "the table")


def data_hash(table: pd.DataFrame) -> str:
    """SHA-256 of what a fit reads of a table: sizes, tokens, losses, and which runs share a teacher or a student.

    Parameters
    ----------
    table : pandas.DataFrame
        Runs of either kind, as `read_runs` returns them.

    Returns
    -------
    str
        64 hexadecimal digits. The order of the rows counts; their index, the order of the columns, other columns and the
        file they came from do not.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> from bayesdistill.datasets import data_hash
    >>> runs = bd.load_runs("busbridge2025")
    >>> data_hash(runs) == data_hash(runs.drop(columns="experiment").set_index("teacher", drop=False))
    True
    """
    kind = _kind(table)
    digest = hashlib.sha256(kind.encode())
    for name in KINDS[kind]:
        digest.update(f"\n{name}\n".encode())
        digest.update(np.ascontiguousarray(table[name].to_numpy(dtype="<f8")).tobytes())
    for name in GROUPS:
        if name in table:
            digest.update(f"\n{name}\n".encode())
            digest.update("".join(f"{len(str(label))}:{label}" for label in table[name]).encode())
    return digest.hexdigest()


def describe_runs(table: pd.DataFrame) -> xr.Dataset:
    """Counts and ranges of a table of runs.

    Parameters
    ----------
    table : pandas.DataFrame
        Runs of either kind, as `read_runs` returns them.

    Returns
    -------
    xarray.Dataset
        The model columns and ``tokens_per_parameter`` over ``statistic`` (minimum, median, maximum), and the counts ``runs``,
        ``configurations`` (distinct size and tokens), ``repeats`` (runs beyond the first of equal size, tokens and teacher)
        and, for distilled runs, ``teachers`` (by name, or by loss where they have none). Attributes: ``kind``, ``source``,
        ``data_hash``.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> from bayesdistill.datasets import describe_runs
    >>> summary = describe_runs(bd.load_runs("busbridge2025"))
    >>> int(summary.runs), int(summary.teachers), float(summary.student_params.sel(statistic="maximum"))
    (354, 65, 7750000000.0)
    """
    import xarray as xr

    kind = _kind(table)
    size, tokens = KINDS[kind][:2]
    values = {name: table[name].to_numpy(dtype=float) for name in KINDS[kind]}
    units = {name: (COLUMNS[name].units, COLUMNS[name].long_name) for name in KINDS[kind]}
    values["tokens_per_parameter"] = values[tokens] / values[size]
    units["tokens_per_parameter"] = ("tokens per parameter", "training tokens over non-embedding parameters")
    variables = {
        name: xr.Variable("statistic", _range(values[name]), {"units": unit, "long_name": said})
        for name, (unit, said) in units.items()
    }

    teacher = ["teacher" if "teacher" in table else "teacher_loss"] if kind == "distilled" else []
    counts = {
        "runs": (len(table), "runs", "runs in the table"),
        "configurations": (_distinct(table, [size, tokens]), "pairs", "distinct pairs of size and tokens"),
        "repeats": (
            len(table) - _distinct(table, [size, tokens, *teacher]),
            "runs",
            "runs beyond the first of equal size, tokens and teacher",
        ),
    }
    if teacher:
        counts["teachers"] = (_distinct(table, teacher), "teachers", "distinct teachers")
    for name, (count, unit, said) in counts.items():
        variables[name] = xr.Variable((), count, {"units": unit, "long_name": said})

    return xr.Dataset(
        variables,
        coords={"statistic": ["minimum", "median", "maximum"]},
        attrs={"kind": kind, "source": str(table.attrs.get("source", "a DataFrame")), "data_hash": data_hash(table)},
    )


def _range(values: np.ndarray) -> np.ndarray:
    return np.array([values.min(), np.median(values), values.max()])


def _distinct(table: pd.DataFrame, columns: list[str]) -> int:
    return len(table[columns].drop_duplicates())
