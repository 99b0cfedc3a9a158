"""Store compiled models on disk, so that a known model need not be built or compiled again.

The name of a file is a digest of everything that its content depends on: the key of the model, the sources of the compiler, package
versions, the processor and PyTensor's settings. So a file cannot be out of date; unused files are deleted after a while. Each file
starts with a digest of its content. Files are executed as machine code, so only regular files of the user into which no other
user can write are read, and only in folders that no other user can change. Damaged files are ignored. A model that cannot be read or
stored is compiled as usual, to the same machine code.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
import stat
import sys
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import numpy as np

from bayesdistill.compiler.machine_code import processor
from bayesdistill.compiler.program import Program
from bayesdistill.compiler.verification import TOLERANCE
from bayesdistill.errors import FileError
from bayesdistill.files import TEMPORARY, digest_of_sources, write_file

VARIABLE = "BAYESDISTILL_CACHE"
"""Environment variable: the folder of the package's cache, or one of the words of OFF."""
OFF = ("off", "0", "no", "false", "none")
KEPT = 16
"""Number of models that are kept: those used last."""

_PACKAGES = ("bayesdistill", "llvmlite", "numpy", "nutpie", "pandas", "pymc", "pytensor", "scipy")
_DIGEST_LENGTH = hashlib.sha256().digest_size
_ROOT = (0, 65534)
"""User IDs of root: its own, and the one that it has in a container without privileges."""


def cache_folder() -> Path | None:
    """Return the folder of compiled models, or None if the cache is off."""
    asked = os.environ.get(VARIABLE, "").strip()
    if asked.lower() in OFF:
        return None
    with contextlib.suppress(RuntimeError):  # the user has no home directory
        if asked:
            return Path(asked).expanduser() / "models"
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bayesdistill" / "models"
    return None


def file_key(key: str) -> str:
    """Return the digest of everything that a compiled model depends on, 64 hexadecimal digits.

    Parameters
    ----------
    key : str
        Identifies the model.
    """
    facts = {
        "model": key,
        "sources": digest_of_sources("compiler", "errors.py", "files.py"),
        "versions": [platform.python_version(), *(version(name) for name in _PACKAGES)],
        "processor": processor(),
        "settings": _settings(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _settings() -> list[str]:
    """Return PyTensor's settings except the location of its cache.

    They are read from the environment and from PyTensor's files, so that PyTensor need not be imported.
    """
    flags = [flag for flag in os.environ.get("PYTENSOR_FLAGS", "").split(",") if flag and "compiledir" not in flag]
    for name in os.environ.get("PYTENSORRC", "~/.pytensorrc").split(os.pathsep):
        with contextlib.suppress(OSError, RuntimeError):
            flags.append(Path(name).expanduser().read_bytes().hex())
    pytensor = sys.modules.get("pytensor")
    return [*flags, "float64" if pytensor is None else pytensor.config.floatX]


def read_program(folder: Path, key: str) -> Program | None:
    """Return the program of a key, or None if there is no valid file. Its check was passed before it was written."""
    path = folder / f"{key}.model"
    try:
        content = _read_own(path) if _is_private(folder) else b""
        if content[:_DIGEST_LENGTH] != hashlib.sha256(content[_DIGEST_LENGTH:]).digest():
            return None
        with np.load(io.BytesIO(content[_DIGEST_LENGTH:]), allow_pickle=False) as stored:
            rest, code, *arrays = (stored[f"arr_{number}"] for number in range(len(stored.files)))
        named = json.loads(rest.tobytes())
        if named.pop("key") != key or not 0 <= named.pop("difference_from_pytensor") <= TOLERANCE:
            return None
        for name in ("axes", "indices", "shapes"):
            named[name] = [tuple(row) for row in named[name]]
        named["dims"] = {name: tuple(dims) for name, dims in named["dims"].items()}
        program = Program(code=code.tobytes(), arrays=arrays, **named)
    except Exception:  # a file of unknown content can raise anything
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return program


def write_program(folder: Path, key: str, program: Program, difference: float) -> None:
    """Store a program that passed its check, and delete the programs that were not used for the longest time.

    `difference` is the result of `verification.verify`. If the folder is not writable, nothing is stored.
    """
    rest = {
        field.name: getattr(program, field.name) for field in fields(program) if field.name not in ("code", "arrays")
    }
    texts = (json.dumps(rest | {"key": key, "difference_from_pytensor": difference}).encode(), program.code)
    buffer = io.BytesIO()
    np.savez(buffer, *(np.frombuffer(text, dtype=np.uint8) for text in texts), *program.arrays)
    content = buffer.getvalue()
    with contextlib.suppress(OSError, FileError):
        for place in reversed((folder, *folder.parents)):
            if not place.exists():
                place.mkdir(mode=0o700, exist_ok=True)
        if not _is_private(folder):
            return
        write_file(folder / f"{key}.model", hashlib.sha256(content).digest() + content, private=True)
        ours = [*folder.glob("*.model"), *folder.glob(f"{TEMPORARY}*")]
        newest_first = sorted(ours, key=lambda path: path.stat().st_mtime, reverse=True)
        for path in newest_first[KEPT:]:
            path.unlink(missing_ok=True)


def _read_own(path: Path) -> bytes:
    """Return the content of a regular file of the user, into which no other user can write; otherwise nothing."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a FIFO would block
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
        return file.read() if own else b""


def _is_private(folder: Path) -> bool:
    """Whether only the user can write into a folder, and no other user can rename it or a folder above it."""
    folder = folder.resolve(strict=True)
    status = folder.stat()
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & 0o022
        and all(_is_safe(above.stat()) for above in folder.parents)
    )


def _is_safe(above: os.stat_result) -> bool:
    """Whether no other user can rename what is in a folder: nobody else may write into it, or it has the sticky bit.

    The group of the user may write into it, as home folders of some systems allow.
    """
    others = 0o002 if above.st_gid == os.getegid() else 0o022
    return above.st_uid in (os.geteuid(), *_ROOT) and (not above.st_mode & others or bool(above.st_mode & stat.S_ISVTX))
