"""Whether distilled runs and the supervised law of a fit belong to the same corpus: the level shift that `fit` stores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bayesdistill.posterior.fits import Fit, posterior_dataset

LEVEL_SHIFT_ATTRIBUTE = "level_shift"
"""Attribute of the posterior: the fields of a `LevelShift` as JSON."""
CONFLICT_ATTRIBUTE = "corpus_conflict"
LIMITED_DATA_ATTRIBUTE = "limited_data"
LIMITS = (CONFLICT_ATTRIBUTE, LIMITED_DATA_ATTRIBUTE, "epochs")
"""Attributes of results with sentences without which no answer is quoted."""
"""Attribute of results that come from a fit with a conflict: the sentence about the conflict."""
SMALLEST_SHIFT = {"published law": 0.06, "runs": 0.09, "earlier posterior": 0.09}
CONFLICT_ERRORS = {"published law": 1.5, "runs": 2.0, "earlier posterior": 2.0}
"""By source of the supervised law: smallest shift in nats that is a conflict, and the standard errors that it requires. Both are larger
for a user's own supervised runs, which rarely belong to another corpus: with the thresholds of the published law, 20 to 40 runs of
"tiny" conflict with supervised runs of the same corpus in a quarter to a third of cases, because their distillation law is far from the
prior."""
TARGET_SHIFT = 0.1
EXCLUDED_ERRORS = 1.5
"""Runs exclude a shift in nats that is this many standard errors away. Standard errors include the prior of the distillation
coordinates, and exceed the root mean square error by a fifth for laws near it (docs/studies/level_shift.py)."""
LARGEST_ERROR = 0.065
MANY_ERRORS = 4.0
"""With a larger standard error in nats, a conflict requires so many of them: a single teacher is weak evidence, and the standard error
is too small if the law is far from the prior."""

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
_FIX_OF_TEACHERS = "Leave teacher_params and teacher_tokens empty for teachers that were trained on another corpus. "


@dataclass(frozen=True)
class LevelShift:
    """By how much the losses of the distilled runs of a fit are shifted against its supervised law.

    Parameters
    ----------
    shift, standard_error : float
        Nats per token.
    supervised_law : str
        Source of the supervised law, as in `provenance`.
    teachers : int
        Number of teachers that are observations of the supervised law, because their sizes and tokens are known.
    """

    shift: float
    standard_error: float
    supervised_law: str
    teachers: int = 0

    @property
    def threshold(self) -> float:
        """Smallest absolute shift in nats that is a conflict."""
        # Teachers as observations of the supervised law do not depend on the distillation law.
        rule = "published law" if self.teachers else self._kind
        errors = CONFLICT_ERRORS[rule] if self.standard_error <= LARGEST_ERROR else MANY_ERRORS
        return max(SMALLEST_SHIFT[rule], errors * self.standard_error)

    @property
    def largest(self) -> float:
        """Largest absolute shift in nats that the runs do not exclude."""
        return abs(self.shift) + EXCLUDED_ERRORS * self.standard_error

    @property
    def is_undetermined(self) -> bool:
        """Whether the runs neither show a shift nor exclude one of 0.1 nats."""
        return not self.is_conflict and self.largest >= TARGET_SHIFT

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
        return (_FIX_OF_TEACHERS if self.teachers else "") + _FIXES[self._kind]

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


def limits_of(attrs: Mapping[Any, Any]) -> list[str]:
    """Return the sentences of LIMITS among the attributes of a result."""
    return [attrs[name] for name in LIMITS if attrs.get(name)]
