"""Writing of whole files, and a digest of the package's sources.

Every module may import this one; it imports only `errors`.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import BinaryIO

from bayesdistill.errors import FileError

TEMPORARY = ".bayesdistill-"
"""Start of the names of temporary files."""


def write_file(path: str | Path, content: bytes, *, keep: bool = False, private: bool = False) -> None:
    """Create or replace a file; after an error, an interrupt or a kill it has its earlier content.

    Parameters
    ----------
    path : path
        The target of a symbolic link is replaced, not the link.
    content : bytes
        Content of the file.
    keep : bool
        If the file cannot be written, write the content to a new file in another folder. The error names it.
    private : bool
        Give only the user access to the file. An existing file or link with its name is replaced.

    Raises
    ------
    FileError
        If the folder does not exist or cannot be written to, the path is read-only, not a regular file, or has several hard links,
        or the disk is full.
    """
    try:
        target, mode, owner = (Path(path), 0o600, None) if private else _target(path)
        with _temporary_file(target) as (file, aside):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if owner is not None:
                with contextlib.suppress(OSError):  # only root can give files to others
                    os.chown(aside, *owner)
            aside.chmod(mode)
            aside.replace(target)
    except FileError as error:
        if not keep:
            raise
        raise FileError(f"{error} {_keep_elsewhere(content, Path(str(path)).suffix)}") from error


def check_writable(path: str | Path, *, parents: bool = False) -> None:
    """Raise an error if a file cannot be written, before the computation of its content.

    Parameters
    ----------
    path : path
        File as for `write_file`.
    parents : bool
        Whether folders that do not exist will be created.

    Raises
    ------
    FileError
    """
    target, *_ = _target(path, parents=parents)
    with _temporary_file(_folder_of(target, parents=parents) / target.name):
        pass


def make_folder(path: str | Path) -> Path:
    """Create a folder and its parents unless they exist, and return it with the home folder for `~`."""
    try:
        folder = Path(path).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise FileError(f"Cannot create the folder {path!s:.300}: {getattr(error, 'strerror', error)}.") from error
    return folder


def target_of(path: str | Path) -> Path:
    """Return the file that a path names: with the home folder for `~`, and behind symbolic links."""
    path = Path(path).expanduser()
    return path.resolve() if path.is_symlink() else path


def _target(path: str | Path, *, parents: bool = False) -> tuple[Path, int, tuple[int, int] | None]:
    """Return the file to be replaced, its mode, and its owner and group if it exists, after checking that it may be."""
    name = f"{path!s:.300}"
    try:
        target = target_of(path)
        folder = _folder_of(target, parents=parents)
        if not folder.is_dir():
            reason = (
                f"{folder!s:.300} is not a folder" if folder.exists() else f"the folder {folder!s:.300} does not exist"
            )
            raise FileError(f"Cannot write {name}: {reason}.")
        try:
            status = target.stat()
        except FileNotFoundError:
            mask = os.umask(0)
            os.umask(mask)
            return target, 0o666 & ~mask, None
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"Cannot write {name}: {error.strerror}.") from error
    except (RuntimeError, TypeError, ValueError) as error:  # no home folder, not a path, a null character
        raise FileError(f"Cannot write {name!r}: {str(error).rstrip('.')}.") from error
    if stat.S_ISDIR(status.st_mode):
        raise FileError(f"Cannot write {name}: it is a folder. Use the name of a file.")
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"Cannot write {name}: it is not a regular file. Use the name of a file.")
    if status.st_nlink > 1:
        raise FileError(
            f"Cannot write {name}: it has {status.st_nlink} hard links. Use another name, or delete the file first."
        )
    if folder.stat().st_mode & stat.S_ISVTX and os.geteuid() not in (0, status.st_uid, folder.stat().st_uid):
        raise FileError(f"Cannot write {name}: it belongs to another user, who alone can replace it. Use another name.")
    if not status.st_mode & 0o222 or not os.access(target, os.W_OK):
        raise FileError(f"Cannot write {name}: it is read-only. Use another name, or make the file writable.")
    return target, stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)


def _folder_of(path: Path, *, parents: bool) -> Path:
    """Return the folder of a file; with `parents`, the nearest one that exists."""
    return next((folder for folder in path.parents if folder.exists()), path.parent) if parents else path.parent


@contextlib.contextmanager
def _temporary_file(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Yield a new file beside another, and its path; it is deleted at the end unless it was renamed.

    The file is locked as long as its process lives. A file without a lock belongs to a process that was killed, on any machine
    that shares the folder; it is deleted here. A file system without locks keeps such files.
    """
    start = f"{TEMPORARY}{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}-"
    try:
        for abandoned in target.parent.glob(f"{start}*"):
            with contextlib.suppress(OSError), _opened(abandoned) as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                abandoned.unlink()
        while True:
            handle, name = tempfile.mkstemp(prefix=start, dir=target.parent)
            with os.fdopen(handle, "wb") as file:
                try:
                    with contextlib.suppress(OSError):  # a file system without locks
                        fcntl.flock(handle, fcntl.LOCK_EX)
                    if os.path.exists(name):  # no other process found it before it was locked
                        yield file, Path(name)
                        return
                finally:
                    with contextlib.suppress(OSError):
                        os.unlink(name)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"Cannot write {target!s:.300}: {error.strerror}.") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield handle
    finally:
        os.close(handle)


def _keep_elsewhere(content: bytes, suffix: str) -> str:
    """Write content to a new file that only the user can read, and say where it is."""
    suffix = suffix if re.fullmatch(r"\.\w{1,10}", suffix) else ""
    for folder in (tempfile.gettempdir, os.getcwd, Path.home):
        with contextlib.suppress(OSError, RuntimeError):
            handle, name = tempfile.mkstemp(prefix="bayesdistill-", suffix=suffix, dir=folder())
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(handle)
            except BaseException:
                os.unlink(name)
                raise
            return f"The content is in {name} instead."
    return "It cannot be written to another folder either."


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
