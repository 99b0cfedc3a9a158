"""Priors over the law: the coordinates it is sampled in, one named prior per coordinate, and priors from other studies."""

from __future__ import annotations

from bayesdistill.priors.coordinates import ASYMPTOTIC_SIZES, Reference
from bayesdistill.priors.earlier import prior_from_draws
from bayesdistill.priors.table import (
    ASYMPTOTIC_WIDTH,
    EFFECTS,
    EQUATION_8,
    NOISE,
    OMEGA,
    PUBLISHED_SIZES,
    PUBLISHED_TOKENS_PER_PARAMETER,
    PUBLISHED_TOLERANCE,
    SOFT_TARGETS,
    TIED_EXPONENTS,
    WEAK_TEACHER,
    Prior,
    Priors,
    default_priors,
    prior_frame,
    published_law_prior,
    with_block,
    with_priors,
)

__all__ = [
    "ASYMPTOTIC_SIZES",
    "ASYMPTOTIC_WIDTH",
    "EFFECTS",
    "EQUATION_8",
    "NOISE",
    "OMEGA",
    "PUBLISHED_SIZES",
    "PUBLISHED_TOKENS_PER_PARAMETER",
    "PUBLISHED_TOLERANCE",
    "SOFT_TARGETS",
    "TIED_EXPONENTS",
    "WEAK_TEACHER",
    "Prior",
    "Priors",
    "Reference",
    "default_priors",
    "prior_frame",
    "prior_from_draws",
    "published_law_prior",
    "with_block",
    "with_priors",
]
