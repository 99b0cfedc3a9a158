"""Findings of `check` about the design: axes of the runs that do not vary."""

from __future__ import annotations

from bayesdistill import posterior
from bayesdistill.criticism.findings import Finding
from bayesdistill.datasets import fixed_axes
from bayesdistill.posterior import Fit


def design_findings(fit: Fit) -> tuple[Finding, ...]:
    """Return whether all axes of the runs vary, or a finding for every axis that does not; none without runs."""
    seen = posterior.seen_runs(fit)
    if not seen.data_vars:
        return ()
    label = "axes that do not vary"
    found = fixed_axes(seen)
    return tuple(Finding(label, axis, "none", "caution", text) for axis, text in found.items()) or (
        Finding(label, "none", "none", "ok"),
    )
