"""Draws of several laws fitted to the 354 published runs, with which plans of a single fit show how much depends on the law.

`docs/studies/reference_fits.py` makes the file. It has 200 draws of each law and no group effects, which plans do not use.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files

import xarray as xr

from bayesdistill.posterior.corpus import corpus_conflict
from bayesdistill.posterior.fits import Fit, members, provenance


@cache
def reference_fits() -> xr.DataTree:
    """Return the mixture of the stored fits with equal weights."""
    with as_file(files(__package__) / "reference_fits.nc") as path, xr.open_datatree(path, engine="h5netcdf") as tree:
        return tree.load()


def reference_note(fit: Fit) -> str:
    """Say why the stored fits do not apply to a fit; empty if they do.

    They apply to fits whose prior is the published supervised law, unless the runs contradict it: these runs are of its corpus.
    """
    found = provenance(fit)
    if members(fit) or (found.get("supervised_law") == "published law" and not corpus_conflict(fit)):
        return ""
    why = "the fit has another supervised law" if found else "the runs behind these draws are unknown"
    return f"There is no range over laws: the package has fits of several laws for the corpus of the published law only, and {why}."
