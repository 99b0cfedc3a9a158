"""Packages that a fit loads: nutpie without what it does not need, and the rest while the sampler works."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from typing import Any

_LATER = (
    "pyarrow",
    "arviz_base",
    "scipy.special",
    "arviz_stats.base",
    "dask.array",
    "h5netcdf",
    "dask.distributed",
)
"""What laying out the draws, the log-likelihood, the convergence checks and `save` import. xarray looks for dask whenever it is given
an array or writes a file, and does without where it is not installed."""


def load_ahead() -> None:
    """Import what the rest of a fit needs; the sampler's threads do not wait for it, as they run without Python's lock.

    What cannot be imported is an error where it is needed, not here.
    """
    for name in _LATER:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def load_nutpie() -> Any:
    """nutpie, without what its import would load and a fit does not need.

    nutpie imports arviz, and that its plots and matplotlib, two seconds or more. Here nutpie gets a stand-in that passes on
    every name to the real arviz when it is asked for one; everybody else gets arviz itself.
    """
    if "nutpie" not in sys.modules and "arviz" not in sys.modules:
        later = types.ModuleType("arviz")

        def look(name: str) -> Any:
            if sys.modules.get("arviz") is later:
                del sys.modules["arviz"]
            return getattr(importlib.import_module("arviz"), name)

        later.__getattr__ = look  # type: ignore[method-assign]
        sys.modules["arviz"] = later
        try:
            import nutpie
        finally:
            if sys.modules.get("arviz") is later:
                del sys.modules["arviz"]
    import nutpie

    return nutpie
