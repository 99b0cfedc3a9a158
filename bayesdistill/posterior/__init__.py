"""Access to fits: law, draws, summaries with Monte Carlo errors, convergence, provenance."""

from __future__ import annotations

from bayesdistill.posterior._mix import check_fits, mix, normalized_weights
from bayesdistill.posterior.convergence import GOOD_K, THRESHOLDS, ConvergenceThresholds, convergence
from bayesdistill.posterior.corpus import (
    CONFLICT_ATTRIBUTE,
    LEVEL_SHIFT_ATTRIBUTE,
    LIMITED_DATA_ATTRIBUTE,
    LIMITS,
    LevelShift,
    conflict_attribute,
    corpus_conflict,
    level_shift_of,
    limits_of,
)
from bayesdistill.posterior.fits import (
    CONSTANT,
    FORMAT,
    FORMAT_ATTRIBUTE,
    IDENTITY_ATTRIBUTE,
    LAW_ATTRIBUTE,
    LAW_INDEX,
    LOG_LIKELIHOOD,
    OBSERVED,
    POSTERIOR,
    PRIOR_TABLE,
    PROVENANCE_ATTRIBUTE,
    SAMPLE_STATS,
    Fit,
    draws_of,
    effects_of,
    fitted_table,
    identity,
    is_distilled,
    law_draws,
    law_of,
    law_positions,
    members,
    observed_runs,
    posterior_dataset,
    prior_table,
    provenance,
    reference_of,
    seen_groups,
    seen_runs,
    with_law,
)
from bayesdistill.posterior.prior_conflict import PRIOR_CONFLICT, prior_shifts
from bayesdistill.posterior.prior_dominance import PRIOR_SHARE, SUPERVISED_COORDINATES, prior_dominated, prior_sentences
from bayesdistill.posterior.reference_fits import reference_fits, reference_note
from bayesdistill.posterior.summaries import (
    INTERVAL_KIND,
    INTERVAL_PROBABILITY,
    about,
    draw_dimensions,
    interval,
    mean,
    mean_mcse,
    median,
    probability,
    tenths,
)
