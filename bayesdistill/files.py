"""Atomic replacement of files, and a digest of the package's sources.

Every module may import this one; it imports only `errors`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import stat
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
        File to create or replace; the target of a symbolic link is replaced, not the link. It does not change after an error or
        interrupt. The temporary file has the same ending, which determines the format for some writers.

    Raises
    ------
    FileError
        If the folder does not exist or cannot be written to, or the path is read-only, not a regular file, or has several hard links.
    """
    path = target_of(path)
    mode = _mode_of(path)
    try:
        handle, name = tempfile.mkstemp(prefix=".bayesdistill-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise FileError(f"Cannot write to {path.parent}: {error.strerror}.") from error
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(mode)
        aside.replace(path)
    except OSError as error:
        raise FileError(f"Cannot write {path}: {error}") from error
    finally:
        aside.unlink(missing_ok=True)


def target_of(path: str | Path) -> Path:
    """Return the file that a path names: with the home folder for `~`, and behind symbolic links."""
    try:
        path = Path(path).expanduser()
        return path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError) as error:  # a loop of links, no home folder
        raise FileError(f"Cannot write {path}: {error}") from error


def _mode_of(path: Path) -> int:
    """Return the permissions of a file to be written, after checking that it may be."""
    if not path.parent.is_dir():
        raise FileError(f"Cannot write {path}: the folder {path.parent} does not exist.")
    try:
        status = path.stat()
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
    except OSError as error:
        raise FileError(f"Cannot write {path}: {error.strerror}.") from error
    if stat.S_ISDIR(status.st_mode):
        raise FileError(f"Cannot write {path}: it is a folder. Use the name of a file.")
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"Cannot write {path}: it is not a regular file. Use the name of a file.")
    if status.st_nlink > 1:
        raise FileError(
            f"Cannot write {path}: it has {status.st_nlink} hard links. Use another name, or delete the file first."
        )
    if not status.st_mode & 0o222:
        raise FileError(f"Cannot write {path}: it is read-only. Use another name, or make the file writable.")
    return stat.S_IMODE(status.st_mode)


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
