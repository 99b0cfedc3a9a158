"""Findings of `check` about the design: axes of the runs that do not vary, and checkpoints without labels."""

from __future__ import annotations

from bayesdistill import posterior
from bayesdistill.criticism.findings import Finding
from bayesdistill.datasets import fixed_axes, training_curves
from bayesdistill.posterior import Fit


def design_findings(fit: Fit) -> tuple[Finding, ...]:
    """Return a finding for every axis that does not vary, or one if all do, and for unlabeled checkpoints; none without runs."""
    seen = posterior.seen_runs(fit)
    if not seen.data_vars:
        return ()
    label = "axes that do not vary"
    found = fixed_axes(seen)
    axes = [Finding(label, axis, "none", "caution", text) for axis, text in found.items()]
    suggestion = training_curves(seen)
    curves = [Finding("models without labels", "likely", "none", "caution", suggestion)] if suggestion else []
    return (*(axes or [Finding(label, "none", "none", "ok")]), *curves)
