"""Recognize checkpoints of one training run among supervised runs without labels of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

_FEWEST = 5
"""Distinct numbers of tokens of a training curve: smaller series are often grids of tokens per parameter."""
_EVEN = 0.5
"""Largest standard deviation of the steps, relative to their mean. Of series of five random budgets (log-uniform over two to four
orders of magnitude), 2 to 5% are so even; of seven, less than 1%."""


def training_curves(columns: Mapping[Any, Any] | pd.DataFrame) -> str:
    """Return a suggestion to label models, if supervised runs look like checkpoints; otherwise "".

    Parameters
    ----------
    columns : mapping or DataFrame
        Column -> values, (run,): a table of runs, or `posterior.seen_runs` of a fit.

    Notes
    -----
    Checkpoints are saved every so many steps, so their tokens are evenly spaced, and more so than the logarithms. Grids of
    independent runs usually multiply the tokens by a factor, and isoFLOP runs of one size have the ratios of the budgets. The
    suggestion requires that at least half of the runs belong to sizes with such a series of five or more numbers of tokens. A column
    ``model`` with another label in every row, or the same in all rows, gives no group effects and counts as missing.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesdistill.datasets.training_curves import training_curves
    >>> steps = np.arange(1, 7)
    >>> training_curves({"params": np.repeat([1e8, 1e9], 6), "tokens": np.tile(steps * 1e10, 2)})[:46]
    '12 of 12 supervised runs look like checkpoints'
    >>> training_curves({"params": np.repeat([1e8, 1e9], 6), "tokens": np.tile(2.0**steps * 1e10, 2)})
    ''
    """
    if not {"params", "tokens"} <= set(columns):
        return ""
    if "model" in columns and 1 < len({str(label) for label in np.asarray(columns["model"])}) < len(columns["model"]):
        return ""
    sizes, tokens = (np.asarray(columns[name], dtype=float) for name in ("params", "tokens"))
    curves = [mine for mine in (sizes == size for size in np.unique(sizes)) if _is_curve(np.unique(tokens[mine]))]
    count = int(sum(mine.sum() for mine in curves))
    if 2 * count < sizes.size or len(curves) < 2:
        return ""
    return (
        f"{count} of {sizes.size} supervised runs look like checkpoints of {len(curves)} trained models: the tokens of one size are "
        "evenly spaced. Checkpoints of one model are not independent, so intervals are too narrow. If they are checkpoints, use "
        "a column model with one label per trained model."
    )


def _is_curve(tokens: np.ndarray) -> bool:
    """Whether distinct numbers of tokens, in order, are spaced evenly, and more evenly than their logarithms."""
    if tokens.size < _FEWEST:
        return False
    steps, ratios = np.diff(tokens), np.diff(np.log(tokens))
    uneven = steps.std() / steps.mean()
    return bool(uneven < _EVEN and uneven < ratios.std() / ratios.mean())
