"""Writing files so that nothing is lost, under a temporary name in the same folder, then renamed; and the package's own files.

Every module may import this one; it imports only errors.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from bayesdistill.errors import FileError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to; on success it becomes `path`, on any error or interrupt `path` stays as it was.

    Parameters
    ----------
    path : path
        The file to make or replace. The temporary file has the same ending, because writers look at it.

    Raises
    ------
    FileError
        If the folder does not exist or cannot be written to.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise FileError(f"cannot write {path}: it is a folder")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise FileError(f"cannot write into {path.parent}: {error.strerror}") from error
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        # A temporary file is private; the result gets the permissions that a plain file would have.
        mask = os.umask(0)
        os.umask(mask)
        aside.chmod(0o666 & ~mask)
        aside.replace(path)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error}") from error
    finally:
        aside.unlink(missing_ok=True)


@functools.cache
def digest_of_sources(*names: str) -> str:
    """Return the SHA-256 of sources of the package, which identifies what was compiled from them.

    Parameters
    ----------
    *names : str
        Files, and folders with all Python files at any depth.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in names:
        for path, content in _sources(resources.files("bayesdistill") / name, name):
            digest.update(f"{path} {len(content)} ".encode() + content)
    return digest.hexdigest()


def _sources(place: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    if not place.is_dir():
        yield path, place.read_bytes()
        return
    for inside in sorted(place.iterdir(), key=lambda entry: entry.name):
        if inside.is_dir() or inside.name.endswith(".py"):
            yield from _sources(inside, f"{path}/{inside.name}")
