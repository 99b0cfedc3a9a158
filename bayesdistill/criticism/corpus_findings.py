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
    if found.is_undetermined:
        fix = f"{found.fix}, or add" if found.supervised_law == "published law" else "Add supervised runs, or"
        columns = (
            ""
            if found.teachers
            else " If the teachers were trained on the corpus of the students, add their sizes and tokens (columns teacher_params and "
            "teacher_tokens)."
        )
        advice = (
            f"The runs do not determine whether they belong to the corpus of {found.source}: a level shift of "
            f"{found.largest:.2f} nats is possible. {fix} runs of other teachers and students.{columns}"
        )
        return (Finding(label, value, expected, "caution", advice),)
    return (Finding(label, value, expected, "ok"),)
