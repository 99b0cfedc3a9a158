"""Save fits and plans as netCDF files, and load them without unpickling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.answers import Answer
from bayesdistill.errors import FileError, ModelError, ParameterError
from bayesdistill.files import write_file
from bayesdistill.law import LAWS, Law, Reference, as_law, remember

_ANSWER_ATTRIBUTE = "bayesdistill_answer"  # marks an Answer, which is displayed as a table


def save(result: xr.DataTree | xr.Dataset, path: str | Path) -> Path:
    """Write a fit or a plan to a netCDF file.

    The file is written under a temporary name in the same folder and then renamed, so an interrupted or failed write does not
    change an existing file. Numbers are stored with checksums, so `load` detects a damaged file.

    Parameters
    ----------
    result : DataTree or Dataset
        Result of `fit`, `plan` or another function.
    path : path
        File to write, usually with the ending .nc.

    Returns
    -------
    Path
        The written file.

    Raises
    ------
    FileError
        If the file cannot be written. The result is then in another folder, which the error names.
    ParameterError
        If `result` is not a DataTree or Dataset, or contains objects that netCDF does not support.

    Examples
    --------
    >>> import bayesdistill as bd, tempfile, pathlib, xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = bd.save(published, pathlib.Path(folder) / "published.nc")
    ...     bd.load(path)["E"].item()
    1.22
    """
    if not isinstance(result, xr.Dataset | xr.DataTree):
        raise ParameterError(f"`result` must be a DataTree (fit) or Dataset (plan), got {type(result).__name__}.")
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
    try:
        # HDF5 ends the process if the disk is full, so it writes to memory.
        content = bytes(tree.to_netcdf(None, engine="h5netcdf", encoding=encoding))
    except (TypeError, ValueError) as error:
        raise ParameterError(f"Cannot write {path}: netCDF does not support the content. {error}") from error
    write_file(path, content, keep=True)
    return Path(path).expanduser()


def load(path: str | Path, *, law: Law | str | None = None) -> Any:
    """Load a fit or a plan from a file written by `save`.

    Parameters
    ----------
    path : path
    law : Law or str, optional
        Law of the fit. Required if it has a part that is not included in the package, or if the file does not name the law
        (earlier versions of the package).

    Returns
    -------
    DataTree or Dataset
        The fit (DataTree) or the plan (Dataset), loaded into memory.

    Raises
    ------
    FileError
        If the file is missing, damaged, not written by this package, or has another version of the format.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.load("fit.nc")  # doctest: +SKIP
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileError(f"The file {path} does not exist.")
    found = _format_of(path)
    if found is None:
        raise FileError(
            f"{path} was not written by bayesdistill.save. Create it with bayesdistill.fit or bayesdistill.plan."
        )
    if found != posterior.FORMAT:
        raise FileError(
            f"{path} has format {found}, but this version of bayesdistill reads format {posterior.FORMAT}. Update bayesdistill or "
            "create the file again."
        )
    try:
        tree = xr.load_datatree(path, engine="h5netcdf")
    except Exception as error:  # h5netcdf, h5py and xarray raise different types
        raise FileError(f"{path} is damaged: {error}") from error
    if tree.children:
        return _with_checked_law(tree, path, law)
    dataset = tree.to_dataset()
    is_answer = dataset.attrs.pop(_ANSWER_ATTRIBUTE, None) is not None
    return Answer(dataset.data_vars, dataset.coords, dataset.attrs) if is_answer else dataset


def _with_checked_law(tree: xr.DataTree, path: Path, law: Law | str | None) -> xr.DataTree:
    """Return the fit, or raise an error if its law is not available in this session."""
    if posterior.POSTERIOR not in tree.children:
        return tree
    given = None if law is None else as_law(law)
    dataset = tree[posterior.POSTERIOR].to_dataset()
    if posterior.LAW_ATTRIBUTE not in dataset.attrs and given is not None:
        seen = posterior.seen_runs(tree)
        of_runs = given.for_runs(distilled="student_params" in seen, supervised="params" in seen)
        reference = posterior.provenance(tree).get("reference")
        _check_coordinates(tree, of_runs, path)
        named = posterior.with_law(dataset, of_runs, None if reference is None else Reference(**reference))
        tree[posterior.POSTERIOR] = xr.DataTree(named)
    elif posterior.LAW_ATTRIBUTE in dataset.attrs:
        if given is not None:
            remember(given)
        try:
            stored = posterior.law_of(tree)
        except ModelError as error:
            raise FileError(f"Cannot read {path}. {error}") from None
        if given is not None:
            of_runs = given.for_runs(
                distilled=stored.distills, supervised=stored.supervised_noise or not stored.distills
            )
            if [term.name for term in of_runs.terms] != [term.name for term in stored.terms]:
                raise FileError(f"{path} is a fit of the law {stored.name!r}, not of {given.name!r}. Omit `law`.")
    return tree


def _check_coordinates(tree: xr.DataTree, law: Law, path: Path) -> None:
    """Reject a law whose coordinates are not those of the fit's table of priors.

    Raises
    ------
    FileError
    """
    table = posterior.prior_table(tree)
    if "parameter" not in table:
        return
    fitted = {str(name) for name in table["parameter"].values} - {"asymptotic_advantage"}
    # Fits of earlier versions list a fixed symbol by its own name or by that of its coordinate.
    names = [{c.name, c.symbol} if c.symbol in law.fixed else {c.name} for c in law.every_coordinate]
    lacking = sorted(c.name for c, either in zip(law.every_coordinate, names, strict=True) if not either & fitted)
    more = sorted(fitted - set().union(*names))
    found = (("the fit has no", lacking), ("it has", more))
    differences = "; ".join(f"{what} {', '.join(names)}" for what, names in found if names)
    if differences:
        raise FileError(
            f"{path} is not a fit of the law {law.name!r}: {differences}. Pass its law to bd.load, for example one of "
            f"{', '.join(map(repr, LAWS))}."
        )


def _format_of(path: Path) -> Any:
    """Return the format version of a file; None for files of other programs.

    h5py reads the version before the rest of the file, so files of other programs are rejected without reading them.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get(posterior.FORMAT_ATTRIBUTE)
            return None if found is None else np.asarray(found).item()
    except Exception as error:  # OSError, RuntimeError or others, depending on the damage
        raise FileError(f"{path} is not a netCDF file or is damaged: {error}") from error
