"""The one-sided prior on the lead of distillation with unlimited data."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesdistill.law import Law
from bayesdistill.law.term import Values

ASYMPTOTIC_SIZES = (1e8, 3e8, 1e9, 3e9, 1e10, 3e10)
"""Students whose mean squared lead the prior limits, if the reference run has 5e8 parameters; otherwise scaled with it."""


def asymptotic_leads(law: Law, reduced: Values) -> Any:
    """Leads of distillation with unlimited data of the students of the asymptotic prior, (..., size), in nats.

    Parameters
    ----------
    law : Law
    reduced : mapping
        Symbols in units of the reference run, as `Law.reduced_symbols` returns them; scalars, or arrays (..., 1).
    """
    # In units of the reference run, so that the students are the same around a reference run of any size.
    return law.asymptotic_advantage(np.array(ASYMPTOTIC_SIZES) / 5e8, reduced)


def log_asymptotic_prior(law: Law, reduced: Values, width: float) -> np.ndarray:
    """Logarithm of the prior's density, up to a constant, in numpy, (...); arguments as for `asymptotic_leads`."""
    lead = asymptotic_leads(law, reduced)
    return np.asarray(-0.5 * np.mean((np.maximum(lead, 0) / width) ** 2, axis=-1))
