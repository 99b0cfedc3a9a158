"""Summary and hash of a table of runs."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayesdistill.datasets._read_runs import read_measured
from bayesdistill.datasets.axes import FIXED_AXES, fixed_axes
from bayesdistill.datasets.schemas import COLUMNS, GROUPS, KINDS
from bayesdistill.datasets.training_curves import training_curves

if TYPE_CHECKING:
    from bayesdistill.answers import Answer


def data_hash(table: pd.DataFrame) -> str:
    """Return the SHA-256 of the columns of a table that a fit uses.

    Parameters
    ----------
    table : pandas.DataFrame
        Runs of either kind, as `read_runs` returns them.

    Returns
    -------
    str
        64 hexadecimal digits. The hash covers sizes, tokens, losses, and the labels of teachers, students and models. It depends on
        the order of the rows, but not on the index, the order of the columns, other columns or the source file.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> from bayesdistill.datasets import data_hash
    >>> runs = bd.load_runs("busbridge2025")
    >>> data_hash(runs) == data_hash(runs.drop(columns="experiment").set_index("teacher", drop=False))
    True
    """
    return hash_of(read_measured(table, allow_suspicious=True))


def hash_of(table: pd.DataFrame) -> str:
    """Return the `data_hash` of a table that a function of this package has read."""
    kind = table.attrs["kind"]
    digest = hashlib.sha256(kind.encode())
    for name in KINDS[kind]:
        digest.update(f"\n{name}\n".encode())
        digest.update(np.ascontiguousarray(table[name].to_numpy(dtype="<f8")).tobytes())
    for name in GROUPS[kind]:
        if name in table:
            digest.update(f"\n{name}\n".encode())
            digest.update("".join(f"{len(str(label))}:{label}" for label in table[name]).encode())
    return digest.hexdigest()


def describe_runs(table: pd.DataFrame) -> Answer:
    """Return counts and ranges of a table of runs.

    Parameters
    ----------
    table : pandas.DataFrame
        Runs of either kind, as `read_runs` returns them.

    Returns
    -------
    xarray.Dataset
        Displayed as a table, with the sentences of ``fixed_axes`` and ``suggestion`` below. The model columns and
        ``tokens_per_parameter`` over ``statistic`` (minimum, median, maximum), and the counts ``runs``, ``configurations``
        (distinct size and tokens), ``repeats`` (runs with the same size, tokens and teacher as an earlier run) and, for distilled
        runs, ``teachers`` (by label or, without labels, by loss). Attributes: ``title``, ``kind``, ``source``, ``data_hash``,
        ``fixed_axes``: JSON of the axes that do not vary, with the questions that the runs therefore cannot answer, and
        ``suggestion``: to label models if supervised runs without labels that group them look like checkpoints, or "".

    Examples
    --------
    >>> import bayesdistill as bd
    >>> from bayesdistill.datasets import describe_runs
    >>> summary = describe_runs(bd.load_runs("busbridge2025"))
    >>> int(summary.runs), int(summary.teachers), float(summary.student_params.sel(statistic="maximum"))
    (354, 65, 7750000000.0)
    """
    from bayesdistill.answers import Answer, declared_in, labeled

    def distinct(*columns: str) -> int:
        return len(table[[*columns]].drop_duplicates())

    table = read_measured(table)
    kind = table.attrs["kind"]
    size, tokens = KINDS[kind][:2]
    teacher = ["teacher" if "teacher" in table else "teacher_loss"] if kind == "distilled" else []
    declared = dict(declared_in("bayesdistill.datasets")["describe_runs"])
    declared |= {name: ("statistic", COLUMNS[name].units, COLUMNS[name].long_name) for name in KINDS[kind]}
    columns = {name: table[name].to_numpy(dtype=float) for name in KINDS[kind]}
    columns["tokens_per_parameter"] = columns[tokens] / columns[size]
    values: dict[str, Any] = {name: [v.min(), np.median(v), v.max()] for name, v in columns.items()}
    values |= {"runs": len(table), "configurations": distinct(size, tokens)}
    values["repeats"] = len(table) - distinct(size, tokens, *teacher)
    if teacher:
        values["teachers"] = distinct(*teacher)
    counts = {"runs": f"{kind} runs", "teachers": "teachers", "configurations": "configurations", "repeats": "repeats"}
    return Answer(
        labeled(declared, values),
        coords={"statistic": ["minimum", "median", "maximum"]},
        attrs={
            "title": ", ".join(f"{values[name]} {text}" for name, text in counts.items() if name in values),
            "kind": kind,
            "source": table.attrs["source"],
            "data_hash": hash_of(table),
            FIXED_AXES: json.dumps(fixed_axes(table)),
            "suggestion": training_curves(table),
        },
    )
