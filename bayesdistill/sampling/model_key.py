"""Identify the model of a fit, so that it can be found in the cache of compiled models."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from bayesdistill.datasets import hash_of
from bayesdistill.files import digest_of_sources
from bayesdistill.law.predictive import Design

if TYPE_CHECKING:
    import pandas as pd

    from bayesdistill.law import Reference
    from bayesdistill.priors import Priors

SOURCES = ("arguments.py", "errors.py", "law", "model.py", "priors")
"""Sources on which the model depends: `model.py` and everything that it imports, except `datasets`, which only reads runs."""


def model_key(
    runs: pd.DataFrame | None, supervised: pd.DataFrame | None, priors: Priors, reference: Reference
) -> str | None:
    """Return a digest of everything that determines the model of a fit, 64 hexadecimal digits.

    None if the law has a part that is not the package's own: such models are not cached.

    Parameters
    ----------
    runs, supervised : DataFrame or None
        Distilled and supervised runs, as returned by `read_runs`.
    priors : Priors
    reference : Reference
    """
    if not priors.law.is_packaged:
        return None
    facts = {
        "law": priors.law.to_json(),
        "runs": [None if table is None else hash_of(table) for table in (runs, supervised)],
        # Of any column: `hash_of` covers teachers and students only.
        "groups": [
            {} if table is None else Design.of(priors.law, table, kind).group_lists
            for kind, table in (("distilled", runs), ("supervised", supervised))
        ],
        "names": priors.names,
        "location": priors.location.tolist(),
        "scale": [prior.scale for prior in priors.table.values()],
        "covariance": priors.covariance.tolist(),
        "factor": priors.factor.tolist(),  # in addition to the covariance, because its last digits depend on LAPACK
        "widths": priors.widths,
        "reference": asdict(reference),
        "sources": digest_of_sources(*SOURCES),
    }
    # JSON keeps every digit of a number; `repr` covers other types.
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=repr).encode()).hexdigest()
