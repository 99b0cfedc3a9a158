"""Save fits and plans as netCDF files, and load them without unpickling."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.answers import Answer
from bayesdistill.errors import DigestWarning, FileError, ModelError, ParameterError
from bayesdistill.files import write_file
from bayesdistill.law import LAWS, Law, Reference, as_law, remember
from bayesdistill.priors import STATEMENTS
from bayesdistill.sampling import digests
from bayesdistill.sampling.contents import ANSWER_ATTRIBUTE, check_contents, check_draws, storable
from bayesdistill.sampling.digests import read_verified, with_digest
from bayesdistill.sampling.structure import ContentError, opened

_INTERNAL = (str(Path(posterior.__file__).parents[1]),)


def save(result: xr.DataTree | xr.Dataset, path: str | Path) -> Path:
    """Write a fit or a plan to a netCDF file.

    The file is written under a temporary name in the same folder and then renamed, so an interrupted or failed write does not
    change an existing file. It ends with a digest of its content, so `load` detects every change.

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
    write_file(path, with_digest(_netcdf(result, path)), keep=True)
    return Path(path).expanduser()


def _netcdf(result: xr.DataTree | xr.Dataset, path: str | Path) -> bytes:
    """Return the content of a file. HDF5 ends the process if the disk is full, so it writes to memory."""
    nodes = (
        {"/": result}
        if isinstance(result, xr.Dataset)
        else {node.path: node.to_dataset(inherit=False) for node in result.subtree}
    )
    nodes["/"] = nodes["/"].assign_attrs(
        {posterior.FORMAT_ATTRIBUTE: posterior.FORMAT, digests.ATTRIBUTE: digests.VALUE}
    )
    if isinstance(result, Answer):
        nodes["/"].attrs[ANSWER_ATTRIBUTE] = 1
    try:
        stored = xr.DataTree.from_dict({place: storable(node) for place, node in nodes.items()})
        check_contents(stored)
        check_draws(stored)
        encoding: Any = {
            node.path: {
                name: {"_FillValue": None} | ({"fletcher32": True} if variable.size and variable.ndim else {})
                for name, variable in node.to_dataset(inherit=False).variables.items()
                if variable.dtype.kind in "biuf"
            }
            for node in stored.subtree
        }
        content = bytes(stored.to_netcdf(None, engine="h5netcdf", encoding=encoding))
        opened(content).close()
    except ContentError as error:
        raise ParameterError(f"Cannot write {path}: {_short(error)}.") from error
    except Exception as error:  # h5netcdf, h5py and xarray raise different types
        raise ParameterError(f"Cannot write {path}: netCDF does not support the content. {_short(error)}") from error
    return content


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

    Warns
    -----
    DigestWarning
        If the file was written by an earlier version, which stored no digest.

    Notes
    -----
    The digest is verified before HDF5 reads the file. Links and storage outside the file are rejected. See "Saved files" in the
    documentation.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.load("fit.nc")  # doctest: +SKIP
    """
    try:
        path = Path(path).expanduser()
    except (TypeError, RuntimeError) as error:  # not a path, no home folder
        raise FileError(f"Cannot read {path!r:.80}: {error}") from error
    content, verified = read_verified(path)
    try:
        tree = _tree(content)
    except ContentError as error:
        raise FileError(f"Cannot read {path}: {_short(error)}.") from error
    except Exception as error:  # h5netcdf, h5py and xarray raise different types
        raise FileError(f"{path} is not a netCDF file or is damaged: {_short(error)}") from error
    if not verified:
        warnings.warn(
            f"{path} was written by an earlier version of bayesdistill, which stored no digest, so damage can remain unnoticed. "
            "Save the result again with bayesdistill.save.",
            DigestWarning,
            skip_file_prefixes=_INTERNAL,
        )
    tree.attrs.pop(digests.ATTRIBUTE, None)
    if tree.children:
        return _with_checked_law(tree, path, law)
    dataset = tree.to_dataset()
    is_answer = dataset.attrs.pop(ANSWER_ATTRIBUTE, None) is not None
    del dataset.attrs[posterior.FORMAT_ATTRIBUTE]
    return Answer(dataset.data_vars, dataset.coords, dataset.attrs) if is_answer else dataset


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


def _tree(content: bytes) -> xr.DataTree:
    """Return the tree in the content of a file.

    Raises
    ------
    ContentError
        If the content is not what `save` writes.
    """
    with opened(content) as file:
        _check_format(file.attrs)
    # Values are stored as they are; conversions that attributes ask for would change numbers.
    tree = xr.load_datatree(io.BytesIO(content), engine="h5netcdf", mask_and_scale=False)
    check_contents(tree)
    return tree


def _with_checked_law(tree: xr.DataTree, path: Path, law: Law | str | None) -> xr.DataTree:
    """Return the fit, or raise an error if its law is not available in this session."""
    if posterior.POSTERIOR not in tree.children:
        return tree
    given = None if law is None else as_law(law)
    dataset = tree[posterior.POSTERIOR].to_dataset()
    if posterior.LAW_ATTRIBUTE not in dataset.attrs and given is not None:
        of_runs = given.for_tables(*(posterior.fitted_table(tree, kind) for kind in ("distilled", "supervised")))
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
            raise FileError(f"Cannot read {path}. {_short(error)}") from None
        if given is not None:
            of_runs = given.for_runs(**stored.kinds)
            if [term.name for term in of_runs.terms] != [term.name for term in stored.terms]:
                raise FileError(f"{path} is a fit of the law {stored.name!r}, not of {given.name!r}. Omit `law`.")
    try:
        check_draws(tree)
    except ContentError as error:
        raise FileError(f"Cannot read {path}: {_short(error)}.") from error
    return tree


def _check_coordinates(tree: xr.DataTree, law: Law, path: Path) -> None:
    """Reject a law whose coordinates differ from the fit's table of priors.

    Raises
    ------
    FileError
    """
    table = posterior.prior_table(tree)
    if "parameter" not in table:
        return
    fitted = {str(name) for name in table["parameter"].values} - {statement.row for statement in STATEMENTS.values()}
    # Fits of earlier versions list a fixed symbol by its own name or by the name of its coordinate.
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


def _check_format(attributes: Any) -> None:
    found = attributes.get(posterior.FORMAT_ATTRIBUTE)
    if found is None:
        raise ContentError(
            "it was not written by bayesdistill.save. Create it with bayesdistill.fit or bayesdistill.plan"
        )
    found = np.ravel(found).tolist()
    if found != [posterior.FORMAT]:
        raise ContentError(
            f"it has format {' '.join(map(str, found)):.40}, but this version of bayesdistill reads format {posterior.FORMAT}. "
            "Update bayesdistill or create the file again"
        )
