"""Priors of a law's coordinates: defaults, published law, earlier posterior."""

from __future__ import annotations

from bayesdistill.priors.asymptotic import ASYMPTOTIC_SIZES, asymptotic_advantages, log_asymptotic_prior
from bayesdistill.priors.earlier import prior_from_draws
from bayesdistill.priors.table import (
    ASYMPTOTIC_WIDTH,
    PUBLISHED_SIZES,
    PUBLISHED_TOKENS_PER_PARAMETER,
    PUBLISHED_TOLERANCE,
    Priors,
    default_priors,
    prior_frame,
    published_law_prior,
    with_block,
    with_fixed_symbols,
    with_priors,
)
