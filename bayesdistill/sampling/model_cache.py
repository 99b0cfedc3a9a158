"""Compiled models on disk: another fit of the same runs under the same priors neither builds nor compiles its model.

The name of a file is a digest of all that its content depends on: runs, priors, reference, the sources that make the model, the
versions of the packages that do, and the processor. So a file is never stale, only unused, and the oldest ones are removed. It
begins with a digest of the rest; one that is damaged, or not in a folder of the user's own, is as good as none. Without a file, or
where none can be written, the model is compiled as ever, to the same machine code.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
import sys
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdistill.datasets import data_hash
from bayesdistill.errors import FileError
from bayesdistill.files import digest_of_sources, replacing
from bayesdistill.model import build_model
from bayesdistill.sampling.compiling import compile_model, compile_with_pytensor, program_of
from bayesdistill.sampling.native import processor
from bayesdistill.sampling.program import Program, load_program
from bayesdistill.sampling.terms import UnsupportedGraphError

if TYPE_CHECKING:
    import pandas as pd

    from bayesdistill.law import Reference
    from bayesdistill.priors import Priors

VARIABLE = "BAYESDISTILL_CACHE"
"""Environment variable: the folder of the package's cache, or "off"."""
KEPT = 16
"""Models that are kept, the last used ones."""

_SOURCES = (
    "errors.py",
    "law",
    "law/terms",
    "model.py",
    "priors",
    "sampling",
)
_PACKAGES = ("bayesdistill", "llvmlite", "numpy", "nutpie", "pandas", "pymc", "pytensor", "scipy")
_DIGEST_LENGTH = hashlib.sha256().digest_size


def compile_runs(table: pd.DataFrame | None, other: pd.DataFrame | None, priors: Priors, reference: Reference) -> Any:
    """Compile the model of a fit for nutpie, or load it from the cache.

    Parameters
    ----------
    table, other : DataFrame or None
        Distilled and supervised runs, as `read_runs` returns them.
    priors : Priors
    reference : Reference

    Returns
    -------
    nutpie's compiled model
    """
    folder = cache_folder()
    if folder is None or not priors.law.is_packaged:
        return compile_model(build_model(table, other, priors=priors, reference=reference))
    key = key_of(table, other, priors, reference)
    program = read_program(folder, key)
    if program is None:
        model = build_model(table, other, priors=priors, reference=reference)
        try:
            program = program_of(model)
        except UnsupportedGraphError:
            return compile_with_pytensor(model)
        write_program(folder, key, program)
    return load_program(program)


def cache_folder() -> Path | None:
    """Where compiled models are kept; None if nowhere."""
    asked = os.environ.get(VARIABLE)
    if asked == "off":
        return None
    with contextlib.suppress(RuntimeError):  # a user without a home
        if asked:
            return Path(asked).expanduser() / "models"
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bayesdistill" / "models"
    return None


def key_of(table: pd.DataFrame | None, other: pd.DataFrame | None, priors: Priors, reference: Reference) -> str:
    """Digest of all that decides about the compiled model, 64 hexadecimal digits."""
    facts = {
        "runs": [None if runs is None else data_hash(runs) for runs in (table, other)],
        "law": priors.law.to_json(),
        "names": priors.names,
        "location": priors.location.tolist(),
        "scale": [prior.scale for prior in priors.table.values()],
        "covariance": priors.covariance.tolist(),
        "factor": priors.factor.tolist(),  # beside the covariance, because its last digits are those of a library
        "asymptotic_width": priors.asymptotic_width,
        "reference": asdict(reference),
        "sources": digest_of_sources(*_SOURCES),
        "versions": [platform.python_version(), *(version(name) for name in _PACKAGES)],
        "processor": processor(),
        "settings": _settings(),
    }
    # Python writes numbers to the last digit, and says of other types what they are.
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=repr).encode()).hexdigest()


def _settings() -> list[str]:
    """PyTensor's settings, without where it keeps its files; read from where it reads them, so that it need not be imported."""
    flags = [flag for flag in os.environ.get("PYTENSOR_FLAGS", "").split(",") if flag and "compiledir" not in flag]
    for name in os.environ.get("PYTENSORRC", "~/.pytensorrc").split(os.pathsep):
        with contextlib.suppress(OSError, RuntimeError):
            flags.append(Path(name).expanduser().read_bytes().hex())
    pytensor = sys.modules.get("pytensor")
    return [*flags, "float64" if pytensor is None else pytensor.config.floatX]


def read_program(folder: Path, key: str) -> Program | None:
    """The program of this key, or None if there is none that can be used."""
    path = folder / f"{key}.model"
    try:
        if not _is_ours(folder):
            return None
        content = path.read_bytes()
        if content[:_DIGEST_LENGTH] != hashlib.sha256(content[_DIGEST_LENGTH:]).digest():
            return None
        with np.load(io.BytesIO(content[_DIGEST_LENGTH:]), allow_pickle=False) as stored:
            rest, code, *arrays = (stored[f"arr_{number}"] for number in range(len(stored.files)))
        named = json.loads(rest.tobytes())
        if named.pop("key") != key:
            return None
        for name in ("axes", "indices", "shapes"):
            named[name] = [tuple(row) for row in named[name]]
        named["dims"] = {name: tuple(dims) for name, dims in named["dims"].items()}
        program = Program(code=code.tobytes(), arrays=arrays, **named)
    except Exception:  # whatever a file of somebody else's holds
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return program


def write_program(folder: Path, key: str, program: Program) -> None:
    """Keep a program, and remove those that were not used for longest; where nothing can be written nothing is."""
    rest = {
        field.name: getattr(program, field.name) for field in fields(program) if field.name not in ("code", "arrays")
    }
    texts = (json.dumps(rest | {"key": key}).encode(), program.code)
    buffer = io.BytesIO()
    np.savez(buffer, *(np.frombuffer(text, dtype=np.uint8) for text in texts), *program.arrays)
    content = buffer.getvalue()
    with contextlib.suppress(OSError, FileError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(folder):
            return
        with replacing(folder / f"{key}.model") as aside:
            aside.write_bytes(hashlib.sha256(content).digest() + content)
        newest_first = sorted(folder.glob("*.model"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in newest_first[KEPT:]:
            path.unlink(missing_ok=True)


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can write into a folder: what is in it is run as machine code."""
    status = folder.stat()
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
