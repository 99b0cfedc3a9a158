"""Finding of `check` about the corpus: whether the distilled runs follow the supervised law."""

from __future__ import annotations

from bayesdistill import posterior
from bayesdistill.criticism.findings import Finding
from bayesdistill.posterior import Fit


def corpus_findings(fit: Fit) -> tuple[Finding, ...]:
    """Return whether the losses of the distilled runs are shifted against the supervised law; none if this is unknown."""
    found = posterior.level_shift_of(fit)
    if found is None:
        return ()
    value = f"{found.shift:+.2f} ({found.standard_error:.2f}) nats"
    expected = f"within {found.threshold:.2f} nats"
    label = f"level shift of the runs against {found.source}"
    if found.is_conflict:
        return (Finding(label, value, expected, "FAILED", f"{found.sentence} {found.fix}."),)
    if not found.is_resolved:
        return (
            Finding(
                label,
                value,
                expected,
                "caution",
                f"The runs cannot show whether they belong to the corpus of {found.source}: a shift of less than "
                f"{found.threshold:.2f} nats would not be noticed. {found.fix}, or add teachers and students of other sizes.",
            ),
        )
    return (Finding(label, value, expected, "ok"),)
