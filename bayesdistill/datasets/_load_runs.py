"""Load the tables of runs that are distributed with the package."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bayesdistill.datasets._read_runs import read_runs
from bayesdistill.datasets.schemas import KINDS
from bayesdistill.errors import DataError

_PACKAGE = Path(__file__).resolve().parents[1]


def _tables() -> dict[str, dict[str, Path]]:
    """Return data set -> kind -> file, in the package (wheel) or next to it (checkout)."""
    root = _PACKAGE / "data"
    if not root.is_dir():
        root = _PACKAGE.parent / "data"
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(root.glob("*/*.csv")):
        if path.stem in KINDS:
            found.setdefault(path.parent.name, {})[path.stem] = path
    return found


def load_runs(name: str = "busbridge2025", kind: str = "distilled") -> pd.DataFrame:
    """Load a table of runs that is distributed with the package.

    Parameters
    ----------
    name : str
        Name of the data set. ``"busbridge2025"``: 354 distilled language models of Busbridge et al. (2025, arXiv:2502.08606),
        digitized from their Figure 1. ``"tiny"``: models of 14 thousand to 1 million parameters trained on bytes of C code, with
        supervised runs, teachers and repeats; not finished. The README of each data set describes its origin.
    kind : {"distilled", "supervised"}
        Kind of runs.

    Returns
    -------
    pandas.DataFrame
        As `read_runs` returns it; ``attrs["source"]`` is ``name/kind``.

    Raises
    ------
    DataError
        If there is no such table. The message lists the available ones.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> bd.load_runs("busbridge2025").shape
    (354, 7)
    """
    tables = _tables()
    if kind not in tables.get(name, {}):
        there = [f"{found!r} ({', '.join(kinds)})" for found, kinds in tables.items()]
        raise DataError(
            f"There is no packaged data set {name!r} of kind {kind!r}. Available: {', '.join(there) or 'none'}. The name of a "
            "file ends in .csv, .csv.gz, .parquet or .pq.",
            in_python="Read your own table with bd.read_runs(path).",
        )
    table = read_runs(tables[name][kind], kind)
    table.attrs["source"] = f"{name}/{kind}"
    return table
