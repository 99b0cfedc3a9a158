"""Load the tables of runs that are distributed with the package."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bayesdistill.datasets._read_runs import read_runs
from bayesdistill.datasets.schemas import KINDS
from bayesdistill.errors import DataError

_PACKAGE = Path(__file__).resolve().parents[1]


def _folders() -> dict[str, Path]:
    """Return data set -> folder, in the package (wheel) or next to it (checkout)."""
    root = _PACKAGE / "data"
    if not root.is_dir():
        root = _PACKAGE.parent / "data"
    if not root.is_dir():
        return {}
    return {folder.name: folder for folder in sorted(root.iterdir()) if _kinds_in(folder)}


def _kinds_in(folder: Path) -> list[str]:
    return [kind for kind in KINDS if (folder / f"{kind}.csv").is_file()]


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
    folders = _folders()
    if name not in folders or kind not in _kinds_in(folders[name]):
        there = [f"{found!r} ({', '.join(_kinds_in(folder))})" for found, folder in folders.items()]
        raise DataError(
            f"There is no packaged data set {name!r} of kind {kind!r}. Available: {', '.join(there) or 'none'}. To read your own "
            "table, use bd.read_runs(path)."
        )
    table = read_runs(folders[name] / f"{kind}.csv", kind)
    table.attrs["source"] = f"{name}/{kind}"
    return table
