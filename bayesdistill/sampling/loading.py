"""Import packages while the sampler runs."""

from __future__ import annotations

import contextlib
import importlib

_LATER = ("dask.array", "h5netcdf", "dask.distributed")
"""Packages that the log-likelihood and `save` import. xarray imports dask, if it is installed, when it creates an array or writes a
file."""


def load_ahead() -> None:
    """Import the packages that the rest of a fit requires.

    The threads of the sampler do not wait, because they do not hold the GIL. An import that fails is ignored here and raises an error
    where the package is required.
    """
    for name in _LATER:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
