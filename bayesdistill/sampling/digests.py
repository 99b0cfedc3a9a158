"""Digest of a file: SHA-256 of the HDF5 content, stored after its end, where HDF5 and netCDF ignore it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bayesdistill.errors import FileError, ParameterError

ATTRIBUTE = "bayesdistill_digest"
"""Attribute of the root group. A file with this name but without a digest at its end is damaged."""
VALUE = "SHA-256 of the content, in the last 32 bytes of the file"
_MARK = b"\nbayesdistill SHA-256\n"
_LENGTH = len(_MARK) + hashlib.sha256().digest_size
_LARGEST = 4 * 2**30  # bytes; files are read into memory
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def with_digest(content: bytes) -> bytes:
    """Return the bytes of a file: its content and their digest."""
    if len(content) > _LARGEST - _LENGTH:
        raise ParameterError(f"The result has {_gigabytes(len(content))}; files have at most {_gigabytes(_LARGEST)}.")
    return content + _MARK + hashlib.sha256(content).digest()


def read_verified(path: Path) -> tuple[bytes, bool]:
    """Read a file once and verify its digest.

    Parameters
    ----------
    path : path

    Returns
    -------
    content : bytes
    verified : bool
        False for files that never had a digest, such as files of earlier versions of the package.

    Raises
    ------
    FileError
        If the file cannot be read, is not a regular file, is not a netCDF file, or does not have its digest.
    """
    with _opened(path) as file:
        size = os.fstat(file).st_size
        if size > _LARGEST:
            raise FileError(f"{path} has {_gigabytes(size)}; files have at most {_gigabytes(_LARGEST)}.")
        with open(file, "rb", closefd=False) as stream:
            content = stream.read(size)
        if not content.startswith(_SIGNATURE):
            raise FileError(f"{path} is not a netCDF file or is damaged: it does not start like one.")
        mark = len(content) - _LENGTH
        if content[mark : mark + len(_MARK)] == _MARK and mark > 0:
            if hashlib.sha256(memoryview(content)[:mark]).digest() == content[-hashlib.sha256().digest_size :]:
                return content, True
        elif ATTRIBUTE.encode() not in content and _MARK not in content:
            return content, False
        if _is_locked(file):
            raise FileError(f"{path} is open for writing in another program. Close it there and load the file again.")
        raise FileError(
            f"{path} is damaged or was changed by another program: its content does not have the digest that was saved with it. "
            "Use a copy, or create the file again."
        )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a regular file; what waits for a writer (FIFO) or never ends (device) is not read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise FileError(f"The file {path} does not exist.") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise FileError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.") from error
    try:
        mode = os.fstat(file).st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise FileError(f"Cannot read {path}: it is {kind}. Use the name of a file.")
        yield file
    except (OSError, MemoryError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"Cannot read {path}: {getattr(error, 'strerror', None) or 'not enough memory'}.") from error
    finally:
        os.close(file)


def _is_locked(file: int) -> bool:
    """Return whether another program has locked the file, as HDF5 does while it writes."""
    for lock in (fcntl.flock, fcntl.lockf):
        try:
            lock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # file systems without locks
            continue
    return False


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GB"
