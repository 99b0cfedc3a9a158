"""Baselines: the Huber point fit of the paper and its bootstrap.

The supervised law is fixed at its published values, as in the paper, and the nine parameters of equation 8 minimize a Huber loss
of the residuals. The predictions have normal residual noise with the root mean square of the residuals as standard deviation.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bayesdistill.law import LAWS, PUBLISHED, SUPERVISED_SYMBOLS, Reference, distilled_loss
from bayesdistill.model import reference_run

HUBER_DELTA = 0.001
"""Residual in nats above which the Huber loss is linear."""
BOOTSTRAP_REFITS = 200

_EQUATION_8 = LAWS["busbridge2025"]
DISTILLATION_COORDINATES = tuple(
    coordinate.name for term in _EQUATION_8.terms if term.kind == "distilled" for coordinate in term.coordinates
)


def law_of(values: np.ndarray, reference: Reference) -> dict[str, float]:
    """Return all symbols for given coordinates of the distillation law, with the published supervised law."""
    published = _EQUATION_8.coordinates_of(PUBLISHED, reference)
    symbols = _EQUATION_8.symbols(published | dict(zip(DISTILLATION_COORDINATES, values, strict=True)), reference)
    return symbols | {name: PUBLISHED[name] for name in SUPERVISED_SYMBOLS}


def losses(law: dict[str, float], runs: pd.DataFrame) -> np.ndarray:
    """Return the expected student losses, (run,)."""
    columns = [runs[c].to_numpy(dtype=float) for c in ("student_params", "student_tokens", "teacher_loss")]
    return np.asarray(distilled_loss(*columns, **law))


def point_fit(
    runs: pd.DataFrame, start: np.ndarray | None = None, reference: Reference | None = None
) -> dict[str, float]:
    """Fit equation 8 by minimizing a Huber loss, with the published supervised law.

    Parameters
    ----------
    runs : DataFrame
        Distilled runs.
    start : array, (coordinate,), optional
        Initial coordinates. By default, the coordinates of the published law.
    reference : Reference, optional
        By default `model.reference_run(runs, None)`.

    Returns
    -------
    dict
        All 15 parameters under the posterior's names.
    """
    reference = reference or reference_run(runs, None)
    return law_of(fit_coordinates(runs, reference, start), reference)


def fit_coordinates(runs: pd.DataFrame, reference: Reference, start: np.ndarray | None) -> np.ndarray:
    """Return the coordinates that minimize the Huber loss; arguments as for `point_fit`."""
    from scipy.optimize import least_squares

    if start is None:
        published = _EQUATION_8.coordinates_of(PUBLISHED, reference)
        # At the published curvature the gradient vanishes.
        published["gap_curvature"] = max(float(published["gap_curvature"]), -2.0)
        start = np.array([float(published[name]) for name in DISTILLATION_COORDINATES])
    observed = runs["student_loss"].to_numpy(dtype=float)

    def residual(values: np.ndarray) -> np.ndarray:
        # A_S may overflow at a trial step; the optimizer rejects this step.
        with np.errstate(over="ignore", invalid="ignore"):
            return losses(law_of(values, reference), runs) - observed

    low, high = np.full(start.size, -12.0), np.full(start.size, 12.0)
    found = least_squares(residual, np.clip(start, low, high), bounds=(low, high), loss="huber", f_scale=HUBER_DELTA)
    return np.asarray(found.x)


Predictions = tuple[np.ndarray, np.ndarray]


def point(runs: pd.DataFrame, kept: np.ndarray, seed: int) -> Predictions:
    """Return draws and log densities of the runs not kept, from the point fit."""
    reference = reference_run(runs, None)
    law = law_of(fit_coordinates(runs[kept], reference, None), reference)
    return _with_noise(losses(law, runs)[None, :], runs, kept, seed)


def bootstrap(runs: pd.DataFrame, kept: np.ndarray, seed: int) -> Predictions:
    """Return draws and log densities of the runs not kept, from bootstrap refits."""
    rng = np.random.default_rng(seed)
    reference = reference_run(runs, None)
    start = fit_coordinates(runs[kept], reference, None)
    rows = np.flatnonzero(kept)
    curves = []
    for _ in range(BOOTSTRAP_REFITS):
        sample = runs.iloc[rng.choice(rows, rows.size)]
        curves.append(losses(law_of(fit_coordinates(sample, reference, start), reference), runs))
    return _with_noise(np.stack(curves), runs, kept, seed)


def _with_noise(curves: np.ndarray, runs: pd.DataFrame, kept: np.ndarray, seed: int) -> Predictions:
    rng = np.random.default_rng(seed + 1)
    observed = runs["student_loss"].to_numpy(dtype=float)
    residual = observed[kept] - curves.mean(axis=0)[kept]
    scale = float(np.sqrt(np.mean(residual**2)))
    repeated = np.repeat(curves[:, ~kept], -(-2000 // curves.shape[0]), axis=0)
    drawn = repeated + scale * rng.standard_normal(repeated.shape)
    density = -0.5 * ((observed[~kept] - curves[:, ~kept]) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    return drawn, density
