"""One-sided prior on the advantage of distillation with unlimited data."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesdistill.law import Law
from bayesdistill.law.term import Values

ASYMPTOTIC_SIZES = (1e8, 3e8, 1e9, 3e9, 1e10, 3e10)
"""Student sizes over which the prior averages the squared advantage, for a reference run with 5e8 parameters; other references
scale them."""


def asymptotic_advantages(law: Law, reduced: Values) -> Any:
    """Return the advantages of distillation with unlimited data, (..., size), in nats.

    Parameters
    ----------
    law : Law
    reduced : mapping
        Symbols in units of the reference run, as returned by `Law.reduced_symbols`; scalars, or arrays (..., 1).
    """
    # Sizes in units of the reference run, so that they scale with it.
    return law.asymptotic_advantage(np.array(ASYMPTOTIC_SIZES) / 5e8, reduced)


def log_asymptotic_prior(law: Law, reduced: Values, width: float) -> np.ndarray:
    """Return the log density of the asymptotic prior, up to a constant, (...)."""
    advantage = asymptotic_advantages(law, reduced)
    return np.asarray(-0.5 * np.mean((np.maximum(advantage, 0) / width) ** 2, axis=-1))
