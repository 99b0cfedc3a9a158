"""Structure of netCDF files: only what `save` writes, nothing that points outside the file.

HDF5 offers more than netCDF does: links and storage in other files, datasets that are views of other files, filters that are
loaded from libraries. A file with any of these is rejected before its numbers are read.
"""

from __future__ import annotations

import io
import math
from typing import Any

import h5py
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t, h5z

_MOST_OBJECTS = 20_000  # a fit has about 100
_MOST_GROUPS, _MOST_LEVELS = (
    200,
    10,
)  # a fit has 8 groups on one level; each inherits the coordinates above it, which takes time
_NUMBERS = tuple(
    getattr(h5t, name)
    for name in (
        *(f"STD_{kind}{bits}{order}" for kind in "IU" for bits in (8, 16, 32, 64) for order in ("LE", "BE")),
        *(f"IEEE_F{bits}{order}" for bits in (32, 64) for order in ("LE", "BE")),
    )
)
_DIMENSIONS = {b"DIMENSION_LIST": h5t.VLEN, b"REFERENCE_LIST": h5t.COMPOUND}
"""Attributes of netCDF that point to dimensions of the same file."""
_NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable."


class ContentError(ValueError):
    """Content that `save` does not write."""


def opened(content: bytes) -> h5py.File:
    """Open the bytes of a file after checking all objects in it.

    Raises
    ------
    ContentError
        If an object is not one of those that `save` writes. HDF5 raises other errors for damaged files.
    """
    file = h5py.File(io.BytesIO(content), "r")
    count, groups, seen = 0, [("", file.id)], {h5o.get_info(file.id).addr}
    _check_attributes("the root group", file.id, len(content))
    while groups:
        path, group = groups.pop()
        for name in group:
            where = f"{path}/{name.decode()}"
            if group.links.get_info(name).type != h5l.TYPE_HARD:
                raise ContentError(f"{where} is a link to another place or file")
            item = h5o.open(group, name)
            address = h5o.get_info(item).addr
            if address in seen or len(seen) > _MOST_OBJECTS:
                raise ContentError(f"{where} is linked twice" if address in seen else "it has too many objects")
            seen.add(address)
            _check_attributes(where, item, len(content))
            if isinstance(item, h5g.GroupID):
                count += 1
                if count > _MOST_GROUPS or path.count("/") >= _MOST_LEVELS:
                    raise ContentError(
                        f"it has more than {_MOST_GROUPS} groups or more than {_MOST_LEVELS} levels of them"
                    )
                groups.append((where, item))
            elif isinstance(item, h5d.DatasetID):
                _check_dataset(where, item, len(content))
            else:
                raise ContentError(f"{where} is a stored type")
    return file


def _check_dataset(where: str, data: h5d.DatasetID, size: int) -> None:
    plan = data.get_create_plist()
    if plan.get_layout() == h5d.VIRTUAL or plan.get_external_count():
        raise ContentError(f"{where} is stored in another file")
    if any(plan.get_filter(i)[0] != h5z.FILTER_FLETCHER32 for i in range(plan.get_nfilters())):
        raise ContentError(f"{where} uses a filter other than checksums")
    _check_type(where, data.get_type())
    named = h5a.exists(data, b"NAME") and h5a.open(data, b"NAME").dtype.kind == "S"
    stored = not (named and h5py.Dataset(data).attrs["NAME"].startswith(_NO_VARIABLE))
    _check_size(where, data, size, itemsize=data.get_type().get_size() if stored else 1)
    if plan.get_layout() == h5d.CHUNKED and math.prod(plan.get_chunk()) * data.get_type().get_size() > size:
        raise ContentError(f"{where} declares chunks that are larger than the file")


def _check_attributes(where: str, item: Any, size: int) -> None:
    for i in range(h5a.get_num_attrs(item)):
        attribute = h5a.open(item, index=i)
        name, kind = attribute.name, attribute.get_type()
        what = f"attribute {name.decode()!r} of {where}"
        _check_size(what, attribute, size, itemsize=kind.get_size())
        if name not in _DIMENSIONS:
            _check_type(what, kind)
            continue
        parts = [kind.get_super()] if kind.get_class() == h5t.VLEN else []
        if kind.get_class() == h5t.COMPOUND:
            parts = [kind.get_member_type(k) for k in range(kind.get_nmembers())]
        references = [part for part in parts if part.get_class() == h5t.REFERENCE]
        if kind.get_class() != _DIMENSIONS[name] or not references or not all(r == h5t.STD_REF_OBJ for r in references):
            raise ContentError(f"{what} does not name dimensions")


def _check_type(what: str, kind: Any) -> None:
    text = kind.get_class() == h5t.STRING
    if kind.committed() or not (text or any(kind == number for number in _NUMBERS)):
        raise ContentError(f"{what} has a type that bayesdistill.save does not use")


def _check_size(what: str, item: Any, size: int, itemsize: int) -> None:
    space = item.get_space()
    if space.get_simple_extent_type() != h5s.NULL and space.get_simple_extent_npoints() * itemsize > size:
        raise ContentError(f"{what} declares more values than the file can hold")
