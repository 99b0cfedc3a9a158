"""Baselines of the joint posterior: Huber point fits of both laws, and a bootstrap.

As in the paper, the supervised law is fitted to the supervised runs, and then equation 8 to the distilled runs with the supervised
law fixed. Predictions have normal residual noise with the root mean square of the residuals as standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
from baselines import DISTILLATION_COORDINATES, HUBER_DELTA

from bayesdistill.errors import ModelError
from bayesdistill.law import LAWS, Draws, Law, Reference

_EQUATION_8 = LAWS["busbridge2025"].for_runs(distilled=True, supervised=True)
SUPERVISED_COORDINATES = tuple(coordinate.name for coordinate in _EQUATION_8.terms[0].coordinates)

ALMOST_NORMAL = 1e8
"""Degrees of freedom for which a Student-t distribution is practically normal."""
BOOTSTRAP_REFITS = 100
COARSE_DELTA = 0.02
"""Scale in nats of the smooth loss of the initial search."""
STARTS = 5
"""Number of starting points of a point fit: the prior location and random points around it."""


def joint_point_fit(
    distilled: pd.DataFrame,
    supervised: pd.DataFrame,
    reference: Reference,
    starts: list[np.ndarray] | None = None,
) -> np.ndarray:
    """Fit both laws by minimizing a Huber loss; return their coordinates, (coordinate,).

    Parameters
    ----------
    distilled, supervised : DataFrame
        Runs to fit.
    reference : Reference
        Run at which the coordinates are centered.
    starts : list of array, (coordinate,), optional
        Starting points of the search; the best result is kept. A single start allows at most 40 steps. By default, the prior
        locations and random points around them.

    Raises
    ------
    ModelError
        If no starting point leads to finite losses.
    """
    count = len(SUPERVISED_COORDINATES)
    starts = starts or default_starts(_EQUATION_8, SUPERVISED_COORDINATES + DISTILLATION_COORDINATES, supervised)
    alone = _EQUATION_8.for_runs(distilled=False, supervised=True)
    first = supervised_point_fit(alone, supervised, reference, [s[:count] for s in starts])

    def student(values: np.ndarray) -> np.ndarray:
        return _distilled(_law(np.concatenate([first, values]), reference), distilled)

    second = _least(student, distilled["student_loss"].to_numpy(dtype=float), [s[count:] for s in starts])
    return np.concatenate([first, second])


def default_starts(law: Law, names: tuple[str, ...], supervised: pd.DataFrame) -> list[np.ndarray]:
    """Return starting points of coordinates: prior locations and random points. The first coordinate is the level of the loss."""
    priors = {coordinate.name: coordinate.prior for coordinate in law.coordinates}
    center = np.array([priors[name].location for name in names])
    scale = np.array([priors[name].scale for name in names])
    center[0] = math.log(float(np.median(supervised["loss"])))
    rng = np.random.default_rng(0)
    return [center, *(center + 0.5 * scale * rng.standard_normal((STARTS - 1, center.size)))]


def supervised_point_fit(
    law: Law, supervised: pd.DataFrame, reference: Reference, starts: list[np.ndarray] | None = None
) -> np.ndarray:
    """Fit a supervised law by minimizing a Huber loss; return its coordinates, (coordinate,). See `joint_point_fit`."""
    names = tuple(coordinate.name for coordinate in law.terms[0].coordinates if coordinate in law.coordinates)
    params, tokens = _columns(supervised, "params", "tokens")

    def loss(values: np.ndarray) -> np.ndarray:
        symbols = law.symbols(dict(zip(names, values, strict=True)), reference)
        return np.asarray(law.supervised_loss(params, tokens, symbols))

    starts = starts or default_starts(law, names, supervised)
    return _least(loss, supervised["loss"].to_numpy(dtype=float), starts)


def _columns(table: pd.DataFrame, *names: str) -> list[np.ndarray]:
    return [table[name].to_numpy(dtype=float) for name in names]


def _law(values: np.ndarray, reference: Reference) -> dict[str, float]:
    """Return all 15 symbols for given coordinates."""
    return _EQUATION_8.symbols(
        dict(zip(SUPERVISED_COORDINATES + DISTILLATION_COORDINATES, values, strict=True)), reference
    )


def _distilled(symbols: dict[str, float], table: pd.DataFrame) -> np.ndarray:
    params, tokens, teacher_loss = _columns(table, "student_params", "student_tokens", "teacher_loss")
    return np.asarray(_EQUATION_8.distilled_loss(_EQUATION_8.student(params, tokens, symbols), teacher_loss, symbols))


def _least(law: Callable[[np.ndarray], np.ndarray], observed: np.ndarray, starts: list[np.ndarray]) -> np.ndarray:
    from scipy.optimize import least_squares

    def residual(values: np.ndarray) -> np.ndarray:
        # A trial step may overflow; the optimizer rejects steps with huge residuals.
        with np.errstate(all="ignore"):
            return np.clip(np.nan_to_num(law(values) - observed, nan=1e3), -1e3, 1e3)

    def search(start: np.ndarray, loss: Literal["linear", "soft_l1", "huber"], scale: float, most: int) -> Any:
        inside = np.clip(start, -11.9, 11.9)
        return least_squares(residual, inside, bounds=(-12, 12), loss=loss, f_scale=scale, max_nfev=most)

    if len(starts) == 1:  # a bootstrap refit, which starts near its optimum
        return np.asarray(search(starts[0], "huber", HUBER_DELTA, 40).x)
    # Compare the starting points with a smooth loss, then refine only the best one.
    coarse = [search(start, "soft_l1", COARSE_DELTA, 60) for start in starts]
    best = min(coarse, key=lambda found: found.cost)
    if not best.cost < 1e3 * observed.size:
        raise ModelError("The Huber fit found no law with finite losses. Check the runs for implausible values.")
    return np.asarray(search(best.x, "huber", HUBER_DELTA, 200).x)


def _with_residuals(laws: list[dict[str, float]], distilled: pd.DataFrame, supervised: pd.DataFrame) -> Draws:
    """Return laws as draws, with the root mean square residual of their mean as residual scale."""
    flat = {name: np.array([law[name] for law in laws]) for name in laws[0]}
    curves = np.stack([_distilled(law, distilled) for law in laws])
    columns = {name: value[:, None] for name, value in flat.items()}
    params, tokens = _columns(supervised, "params", "tokens")
    supervised_curves = _EQUATION_8.supervised_loss(params, tokens, columns)
    for name, left in (
        ("sigma", distilled["student_loss"].to_numpy(dtype=float) - curves.mean(axis=0)),
        ("sigma_supervised", supervised["loss"].to_numpy(dtype=float) - supervised_curves.mean(axis=0)),
    ):
        flat[name] = np.full(len(laws), math.sqrt(float(np.mean(left**2))))
    flat["nu"] = np.full(len(laws), ALMOST_NORMAL)
    return Draws(_EQUATION_8, flat)


def point(distilled: pd.DataFrame, supervised: pd.DataFrame, reference: Reference, seed: int) -> Draws:
    """Return the point fit as a posterior with one draw."""
    found = joint_point_fit(distilled, supervised, reference)
    return _with_residuals([_law(found, reference)], distilled, supervised)


def bootstrap(distilled: pd.DataFrame, supervised: pd.DataFrame, reference: Reference, seed: int) -> Draws:
    """Return bootstrap refits; distilled and supervised runs are resampled separately."""
    rng = np.random.default_rng(seed)
    best = joint_point_fit(distilled, supervised, reference)
    laws = []
    for _ in range(BOOTSTRAP_REFITS):
        ours = distilled.iloc[rng.choice(len(distilled), len(distilled))]
        theirs = supervised.iloc[rng.choice(len(supervised), len(supervised))]
        laws.append(_law(joint_point_fit(ours, theirs, reference, [best]), reference))
    return _with_residuals(laws, distilled, supervised)
