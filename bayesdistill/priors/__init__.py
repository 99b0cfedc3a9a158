"""Priors of a law's coordinates: defaults, published law, earlier posterior, statements of theory."""

from __future__ import annotations

from bayesdistill.priors.earlier import BETWEEN_STUDIES, prior_from_draws, shape_prior_from_draws
from bayesdistill.priors.table import (
    ASYMPTOTIC_WIDTH,
    LIMITED_DATA_WIDTH,
    PERFECT_TEACHER_WIDTH,
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
    without_published_law,
)
from bayesdistill.priors.theory import ASYMPTOTIC_SIZES, LIMITED_TOKENS_PER_PARAMETER, STATEMENTS, Statement
