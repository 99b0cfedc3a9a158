"""Atomic replacement of files, and a digest of the package's sources.

Every module may import this one; it imports only `errors`.
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
    """Yield a temporary path that replaces `path` on success.

    Parameters
    ----------
    path : path
        File to create or replace. It does not change after an error or interrupt. The temporary file has the same ending, which
        determines the format for some writers.

    Raises
    ------
    FileError
        If the folder does not exist or cannot be written to.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileError(f"Cannot write {path}: the folder {path.parent} does not exist.")
    if path.is_dir():
        raise FileError(f"Cannot write {path}: it is a folder. Use the name of a file.")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise FileError(f"Cannot write to {path.parent}: {error.strerror}.") from error
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        # Temporary files are private; give the result the permissions of an ordinary file.
        mask = os.umask(0)
        os.umask(mask)
        aside.chmod(0o666 & ~mask)
        aside.replace(path)
    except OSError as error:
        raise FileError(f"Cannot write {path}: {error}") from error
    finally:
        aside.unlink(missing_ok=True)


@functools.cache
def digest_of_sources(*names: str) -> str:
    """Return the SHA-256 of source files of the package.

    Parameters
    ----------
    *names : str
        Files, and folders with all Python and TOML files at any depth.

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
        if inside.is_dir() or inside.name.endswith((".py", ".toml")):
            yield from _sources(inside, f"{path}/{inside.name}")
