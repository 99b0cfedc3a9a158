"""Axes of a design that do not vary, and the questions that its runs therefore cannot answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdistill.datasets.schemas import KINDS

if TYPE_CHECKING:
    import pandas as pd

VARIES = 1.5
"""Sizes and tokens vary if the largest is at least this multiple of the smallest: families of models and budgets usually step by a
factor of 2 or more, so that the next step is farther from a smaller range than the range is wide."""
TEACHER_VARIES = 1.03
"""The same for teacher losses. A teacher with 1.5 times the parameters and tokens has a loss that is lower by a factor of 1.03 (7B
parameters) to 1.05 (30M) under the published law."""
FIXED_AXES = "fixed_axes"
"""Attribute of results: `fixed_axes` of the runs, as JSON."""

_DEPENDS = "such answers depend on the law and its priors."


def fixed_axes(columns: Mapping[Any, Any] | pd.DataFrame) -> dict[str, str]:
    """Return the axes of a design that do not vary.

    Parameters
    ----------
    columns : mapping or DataFrame
        Column -> values, (run,): a table of runs, or `posterior.seen_runs` of a fit, which may hold runs of both kinds.

    Returns
    -------
    dict
        Name of the axis -> a sentence: what does not vary, and which questions the runs therefore cannot answer. An axis is a
        column, or a combination of size and tokens such as "tokens/params". Empty if all axes vary, or without runs.

    Notes
    -----
    Sizes and tokens that vary can still lie on one line, such as a fixed number of tokens per parameter or a fixed budget. The
    line is the first principal component of their logarithms. It is reported if the runs vary around it by less than `VARIES`.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesdistill.datasets.axes import fixed_axes
    >>> sizes = np.array([1e8, 1e9, 1e10])
    >>> list(fixed_axes({"params": sizes, "tokens": 20 * sizes}))
    ['tokens/params']
    """
    found: dict[str, str] = {}
    for kind, (size, tokens, *others) in KINDS.items():
        if not {size, tokens} <= set(columns):
            continue
        values = {name: np.asarray(columns[name], dtype=float) for name in (size, tokens)}
        what = "distilled students" if kind == "distilled" else "pretrained models"
        still = [name for name in values if values[name].max() < VARIES * values[name].min()]
        if size in still:
            mixed = "" if kind == "distilled" else ", and do not separate the irreducible loss from the effect of size"
            found[size] = (
                f"The {kind} runs have one size ({_span(values[size])} parameters). They cannot answer questions about larger or "
                f"smaller {what}{mixed}; {_DEPENDS}"
            )
        if tokens in still:
            found[tokens] = (
                f"The {kind} runs have one number of tokens ({_span(values[tokens])}). They cannot answer how the loss of {what} "
                f"changes with more or fewer tokens; {_DEPENDS}"
            )
        line = None if still else _line(size, tokens, *values.values())
        if line is not None:
            found[line[0]] = (
                f"The {kind} runs have {line[1]}. They do not separate the effects of size and tokens, so they cannot answer how to "
                f"split a budget between size and tokens of {what}; {_DEPENDS}"
            )
        if "teacher_loss" in others:
            loss = np.asarray(columns["teacher_loss"], dtype=float)
            if loss.max() < TEACHER_VARIES * loss.min():
                found["teacher_loss"] = (
                    f"The distilled runs have one teacher loss ({_span(loss)} nats). They cannot answer which teacher is best, or "
                    f"what a better or worse teacher is worth; {_DEPENDS}"
                )
    return found


def _line(size: str, tokens: str, sizes: np.ndarray, counts: np.ndarray) -> tuple[str, str] | None:
    """Return the name and description of the line on which sizes and tokens lie, if they do."""
    logs = np.log([sizes, counts])
    across = np.linalg.eigh(np.cov(logs))[1][:, 0]
    # Tokens at a given size vary by the factor that matters, or sizes at given tokens if these vary more.
    if np.ptp(across @ logs) >= np.log(VARIES) * np.abs(across).max():
        return None
    power = -across[0] / across[1]
    if abs(power - 1) < 0.15:
        return f"{tokens}/{size}", "one number of tokens per parameter"
    if abs(power + 1) < 0.15:
        return f"{tokens}*{size}", "one training budget (parameters times tokens)"
    return f"{tokens}/{size}^{power:.2g}", f"tokens that follow from their size (a power of {power:.2g})"


def short(value: float) -> str:
    """Format a size or a number of tokens, for example 300M or 1.82B."""
    for unit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * unit:
            return f"{value / unit:.3g}{suffix}"
    return f"{value:.3g}"


def _span(values: np.ndarray) -> str:
    low, high = short(values.min()), short(values.max())
    return low if low == high else f"{low} to {high}"
