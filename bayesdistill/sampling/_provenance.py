"""Record the provenance of a fit: versions, data, priors, settings and seed."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bayesdistill.datasets import data_hash
from bayesdistill.law import Reference
from bayesdistill.priors import Priors

if TYPE_CHECKING:
    import pandas as pd


def describe_origin(
    table: pd.DataFrame | None,
    other: pd.DataFrame | None,
    priors: Priors,
    reference: Reference,
    backend: str,
    settings: dict[str, Any],
    seed: int,
    started: float,
) -> dict[str, Any]:
    """Return the provenance of a fit; `backend` is the compiler, "llvm" or "numba"."""
    packages = ("bayesdistill", "pymc", "nutpie", "pytensor", "llvmlite", "numba", "arviz", "xarray", "numpy", "pandas")
    data = {
        kind: {"runs": len(frame), "sha256": data_hash(frame), "source": str(frame.attrs.get("source", "a DataFrame"))}
        for kind, frame in (("distilled", table), ("supervised", other))
        if frame is not None
    }
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "sampler": "nutpie NUTS, low-rank mass matrix",
        "backend": backend,
        "seed": int(seed),
        "settings": settings,
        "data": data,
        "reference": asdict(reference),
        "law": json.loads(priors.law.to_json()),
        "supervised_law": priors.supervised_law,
        "asymptotic_width": priors.asymptotic_width,
        "priors": {name: prior.distribution for name, prior in priors.table.items()},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 2),
    }
