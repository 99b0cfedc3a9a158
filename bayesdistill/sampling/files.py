"""Fits and plans in netCDF files: written aside and renamed, read without unpickling, refused where damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.answers import Answer
from bayesdistill.errors import FileError, ModelError, ParameterError
from bayesdistill.files import replacing
from bayesdistill.law import Law, Reference, as_law, remember

_ANSWER_ATTRIBUTE = "bayesdistill_answer"  # in a file: what it holds displays as a table


def save(result: xr.DataTree | xr.Dataset, path: str | Path) -> Path:
    """Write a fit or a plan to a netCDF file.

    The file is written under a temporary name in the same folder and then renamed: an interrupted or failed write leaves
    an earlier file as it was. Numbers are stored with checksums, so that `load` notices a damaged file.

    Parameters
    ----------
    result : DataTree or Dataset
        What `fit` or `plan` returned.
    path : path
        Where to; by custom ending in .nc.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    FileError
        If the folder does not exist or cannot be written to.
    ParameterError
        If `result` is neither, or holds something that a netCDF file cannot hold.

    Examples
    --------
    >>> import bayesdistill as bd, tempfile, pathlib, xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = bd.save(published, pathlib.Path(folder) / "published.nc")
    ...     bd.load(path)["E"].item()
    1.22
    """
    path = Path(path)
    if not isinstance(result, xr.Dataset | xr.DataTree):
        raise ParameterError(f"only a fit or a plan can be saved, not {type(result).__name__}")
    tree = xr.DataTree(result) if isinstance(result, xr.Dataset) else result.copy()
    tree.attrs[posterior.FORMAT_ATTRIBUTE] = posterior.FORMAT
    if isinstance(result, Answer):
        tree.attrs[_ANSWER_ATTRIBUTE] = 1
    encoding = {
        node.path: {
            name: {"fletcher32": True}
            for name, variable in node.to_dataset(inherit=False).variables.items()
            if variable.dtype.kind in "biuf" and variable.size and variable.ndim
        }
        for node in tree.subtree
    }
    with replacing(path) as aside:
        try:
            tree.to_netcdf(aside, engine="h5netcdf", encoding=encoding)
        except (TypeError, ValueError) as error:
            raise ParameterError(f"{path} is not written, a netCDF file cannot hold this: {error}") from error
    return path


def load(path: str | Path, *, law: Law | str | None = None) -> Any:
    """Read a fit or a plan that `save` wrote.

    Parameters
    ----------
    path : path
    law : Law or str, optional
        The law of the fit, if it has a part that is not the package's own, or if an earlier version of the package wrote the
        file without naming the law.

    Returns
    -------
    DataTree or Dataset
        The fit (DataTree) or the plan (Dataset), in memory; the file is closed.

    Raises
    ------
    FileError
        If the file is missing, damaged, or not one of this package's, or of a later version of its format.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.load("fit.nc")  # doctest: +SKIP
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"there is no file {path}")
    found = _format_of(path)
    if found is None:
        raise FileError(f"{path} was not written by bayesdistill.save; make it again with bayesdistill.fit or plan")
    if found != posterior.FORMAT:
        raise FileError(
            f"{path} has format {found}, this version reads {posterior.FORMAT}; update bayesdistill or make the file again"
        )
    try:
        tree = xr.load_datatree(path, engine="h5netcdf")
    except Exception as error:  # h5netcdf, h5py and xarray each raise their own
        raise FileError(f"{path} is damaged: {error}") from error
    if tree.children:
        return _with_known_law(tree, path, law)
    dataset = tree.to_dataset()
    is_answer = dataset.attrs.pop(_ANSWER_ATTRIBUTE, None) is not None
    return Answer(dataset.data_vars, dataset.coords, dataset.attrs) if is_answer else dataset


def _with_known_law(tree: xr.DataTree, path: Path, law: Law | str | None) -> xr.DataTree:
    """The fit, if this session knows its law."""
    if posterior.POSTERIOR not in tree.children:
        return tree
    given = None if law is None else as_law(law)
    dataset = tree[posterior.POSTERIOR].to_dataset()
    if posterior.LAW_ATTRIBUTE not in dataset.attrs and given is not None:
        seen = posterior.seen_runs(tree)
        of_runs = given.for_runs(distilled="student_params" in seen, supervised="params" in seen)
        reference = posterior.provenance(tree).get("reference")
        named = posterior.with_law(dataset, of_runs, None if reference is None else Reference(**reference))
        tree[posterior.POSTERIOR] = xr.DataTree(named)
    elif posterior.LAW_ATTRIBUTE in dataset.attrs:
        if given is not None:
            remember(given)
        try:
            posterior.law_of(tree)
        except ModelError as error:
            raise FileError(f"Cannot read {path}. {error}") from None
    return tree


def _format_of(path: Path) -> Any:
    """The version of the layout that a file says it has; None for files of others.

    Asked with h5py before anything else is read: a file of another program need not be understood any further.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get(posterior.FORMAT_ATTRIBUTE)
            return None if found is None else np.asarray(found).item()
    except Exception as error:  # OSError, but RuntimeError and others for damage in some places
        raise FileError(f"{path} is not a netCDF file, or is damaged: {error}") from error
