"""Update of a fit by new runs: importance weights or a refit, and what the runs change."""

from bayesdistill.updating._update import Update, update

__all__ = ["Update", "update"]
