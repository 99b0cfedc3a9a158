"""Distances of left-out runs from the runs that a refit has seen, on the axes of `extrapolates`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from bayesdistill.decisions.extrapolation import extrapolation_factor

MEASURES = ("distance", "nearest_distance", "leverage")
"""Distance outside the range, distance from the nearest run, and leverage, the variables of `leave_out`."""


def standardized_logs(runs: pd.DataFrame, kept: np.ndarray) -> np.ndarray:
    """Return the logs of student size, tokens per parameter and teacher loss, in standard deviations of the kept runs, (run, axis).

    An axis along which the kept runs do not vary has its logs unchanged.
    """
    size, tokens, loss = (
        runs[name].to_numpy(dtype=float) for name in ("student_params", "student_tokens", "teacher_loss")
    )
    logs = np.log(np.stack([size, tokens / size, loss], axis=1))
    scale = logs[kept].std(axis=0)
    return np.asarray(logs / np.where(scale > 0, scale, 1.0))


def geometric_distances(runs: pd.DataFrame, kept: np.ndarray) -> Mapping[str, np.ndarray]:
    """Return the distances of the runs that are not kept, (run,) each, in standard deviations of the logs of the kept runs.

    Returns
    -------
    dict
        distance: Euclidean distance from the box of the ranges of the kept runs, 0 inside; on each axis it is the log of the
        extrapolation factor. nearest_distance: Euclidean distance from the nearest kept run.
    """
    places = standardized_logs(runs, kept)
    seen, out = places[kept], places[~kept]
    # The logs of extrapolation factors are differences of logs.
    outside = [
        np.log(extrapolation_factor(np.exp(mine), (float(np.exp(one.min())), float(np.exp(one.max())))))
        for one, mine in zip(seen.T, out.T, strict=True)
    ]
    nearest = np.sqrt(((out[:, None] - seen) ** 2).sum(axis=-1)).min(axis=1)
    return {"distance": np.sqrt(np.square(outside).sum(axis=0)), "nearest_distance": nearest}
