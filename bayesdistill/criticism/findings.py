"""`Finding`: what one of the functions that `check` runs reports about a fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "caution", "FAILED", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One row of `check`.

    Parameters
    ----------
    checked : str
        What is checked, for example "largest R-hat".
    value : str
        What was found.
    expected : str
        Threshold or expectation, for example "<= 1.01".
    state : {"ok", "caution", "FAILED", "unknown"}
        FAILED: the draws must not be used. caution: the draws can be used, but not for every question. unknown: the fit lacks
        what the check requires.
    sentence : str
        The problem and what to do about it, without the numbers of the row; empty if there is none.
    """

    checked: str
    value: str
    expected: str
    state: State
    sentence: str = ""


def number(value: float) -> str:
    """Format a diagnostic."""
    return str(value) if isinstance(value, int) else f"{value:.4f}" if abs(value) < 10 else f"{value:.0f}"
