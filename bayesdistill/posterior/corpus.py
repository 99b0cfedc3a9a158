"""Whether distilled runs and the supervised law of a fit belong to the same corpus: the level shift that `fit` stores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from bayesdistill.posterior.fits import Fit, posterior_dataset

LEVEL_SHIFT_ATTRIBUTE = "level_shift"
"""Attribute of the posterior: the fields of a `LevelShift` as JSON."""
CONFLICT_ATTRIBUTE = "corpus_conflict"
"""Attribute of results that come from a fit with a conflict: the sentence that says so."""
SMALLEST_SHIFT = {"published law": 0.06, "runs": 0.09, "earlier posterior": 0.09}
RESOLVED_ERRORS = {"published law": 1.5, "runs": 2.0, "earlier posterior": 2.0}
"""By source of the supervised law: smallest shift in nats that is a conflict, and the standard errors that it requires. Both are larger
for a user's own supervised runs, which rarely belong to another corpus: with less, parts of the packaged runs "tiny" conflict with
the supervised runs of the same corpus in one of six cases."""
RESOLVED = 0.065
"""Largest standard error in nats with which the runs show whether there is a shift of 0.1 nats."""
UNRESOLVED_ERRORS = 4.0
"""Standard errors that a conflict requires otherwise. Standard errors include the prior of the distillation coordinates: they are too
large for laws like the published one, and too small where a single teacher says little and the law is far from that prior
(docs/studies/level_shift.py measures both)."""

_SOURCES = {
    "published law": "the published law",
    "runs": "the law of the supervised runs",
    "earlier posterior": "the law of the earlier fit",
}
_FIXES = {
    "published law": "Pass supervised runs of the corpus of the distilled runs (supervised=...), or an earlier fit of them as prior "
    "(priors=...)",
    "runs": "Pass supervised runs of the corpus of the distilled runs, with losses in the same unit",
    "earlier posterior": "Use an earlier fit of the same corpus, or pass supervised runs (supervised=...)",
}


@dataclass(frozen=True)
class LevelShift:
    """By how much the losses of the distilled runs of a fit are shifted against its supervised law.

    Parameters
    ----------
    shift, standard_error : float
        Nats per token.
    supervised_law : str
        Source of the supervised law, as in `provenance`.
    """

    shift: float
    standard_error: float
    supervised_law: str

    @property
    def is_resolved(self) -> bool:
        """Whether the runs suffice to find a shift of 0.1 nats."""
        return self.standard_error <= RESOLVED

    @property
    def threshold(self) -> float:
        """Smallest absolute shift in nats that is a conflict."""
        errors = RESOLVED_ERRORS[self._kind] if self.is_resolved else UNRESOLVED_ERRORS
        return max(SMALLEST_SHIFT[self._kind], errors * self.standard_error)

    @property
    def is_conflict(self) -> bool:
        """Whether the runs contradict the supervised law."""
        return abs(self.shift) > self.threshold

    @property
    def source(self) -> str:
        """The supervised law in words."""
        return _SOURCES[self._kind]

    @property
    def fix(self) -> str:
        """What to do about a conflict."""
        return _FIXES[self._kind]

    @property
    def _kind(self) -> str:
        return self.supervised_law if self.supervised_law in _SOURCES else "runs"

    @property
    def sentence(self) -> str:
        """The conflict in a sentence; empty if there is none."""
        if not self.is_conflict:
            return ""
        side = "above" if self.shift > 0 else "below"
        return (
            f"The losses of the distilled runs are {abs(self.shift):.2f} nats {side} {self.source} (standard error "
            f"{self.standard_error:.2f}): the two belong to different corpora, tokenizers or units of loss, so the comparison of "
            "distillation with pretraining is wrong."
        )


def level_shift_of(fit: Fit) -> LevelShift | None:
    """Return the level shift that `fit` stored, or None if it is unknown, as for draws of other sources."""
    text = posterior_dataset(fit).attrs.get(LEVEL_SHIFT_ATTRIBUTE)
    return None if text is None else LevelShift(**json.loads(text))


def corpus_conflict(fit: Fit) -> str:
    """Return the sentence about a conflict between the distilled runs and the supervised law of a fit, or an empty string.

    Parameters
    ----------
    fit : DataTree or Dataset

    Returns
    -------
    str
    """
    found = level_shift_of(fit)
    return "" if found is None else found.sentence


def conflict_attribute(fits: Fit | Mapping[str, Fit]) -> dict[str, str]:
    """Return the attribute of results from a fit, or from several fits by name; empty if none of them has a conflict."""
    if isinstance(fits, Fit):
        text = corpus_conflict(fits)
    else:
        text = " ".join(f"{name}: {found}" for name, fit in fits.items() if (found := corpus_conflict(fit)))
    return {CONFLICT_ATTRIBUTE: text} if text else {}
