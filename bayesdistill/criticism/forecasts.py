"""What draws of both laws forecast for runs that were left out, and for pairs of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t as student_t

from bayesdistill.criticism.predictions import expected_losses, scatter_scale, shared_shifts
from bayesdistill.criticism.scores import PROBABILITIES, inside, log_score
from bayesdistill.laws import (
    EXTENSION_PARAMETERS,
    LAW_PARAMETERS,
    SUPERVISED_PARAMETERS,
    distilled_loss,
    supervised_loss,
)

if TYPE_CHECKING:
    import pandas as pd

    from bayesdistill.priors import Reference

FEWEST_SAMPLES = 2000
"""A method with fewer draws repeats them, each time with other noise."""

Draws = dict[str, np.ndarray]


def enough(flat: Draws) -> Draws:
    """The same draws, repeated until there are at least FEWEST_SAMPLES."""
    count = len(flat["sigma"])
    return {name: np.repeat(value, -(-FEWEST_SAMPLES // count), axis=0) for name, value in flat.items()}


def supervised_scale(flat: Draws) -> np.ndarray:
    """Scale of a supervised run's scatter, (draw,)."""
    return flat.get("sigma_supervised", flat["sigma"])


def supervised_centers(flat: Draws, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The supervised law, (draw, run)."""
    law = {name: flat[name][:, None] for name in SUPERVISED_PARAMETERS}
    return np.asarray(supervised_loss(params, tokens, **law))


def _columns(table: pd.DataFrame, *names: str) -> list[np.ndarray]:
    return [table[name].to_numpy(dtype=float) for name in names]


def run_forecasts(
    flat: Draws,
    distilled: pd.DataFrame,
    supervised: pd.DataFrame,
    kept: np.ndarray,
    left_out: tuple[np.ndarray, np.ndarray],
    reference: Reference,
    rng: np.random.Generator,
) -> dict[str, list[Any]]:
    """Scores of the forecasts of single left-out runs, distilled ones first, each list (run,).

    Parameters
    ----------
    flat : dict of array, (draw, ...)
    distilled, supervised : DataFrame
    kept : array of bool
        Distilled runs that were fitted: their groups' shifts are known.
    left_out : pair of arrays of int
        Rows of the two tables.
    reference : Reference
    rng : Generator

    Returns
    -------
    dict
        mean (nats), inside_50, inside_90, elpd.
    """
    rows, others = left_out
    shifts = shared_shifts(flat, distilled, kept, reference, rng)
    params, tokens = _columns(supervised, "params", "tokens")
    alone = supervised_centers(flat, params[others], tokens[others])
    center = np.concatenate([(expected_losses(flat, distilled) + shifts)[:, rows], alone], axis=1)
    scale = np.concatenate(
        [
            scatter_scale(flat, distilled, reference)[:, rows],
            np.broadcast_to(supervised_scale(flat)[:, None], alone.shape),
        ],
        axis=1,
    )
    observed = np.concatenate([_columns(distilled, "student_loss")[0][rows], _columns(supervised, "loss")[0][others]])
    nu = flat["nu"][:, None]
    drawn = center + scale * rng.standard_t(np.broadcast_to(nu, center.shape))
    held = {f"inside_{100 * p:.0f}": inside(drawn, observed, p).tolist() for p in PROBABILITIES}
    density = np.asarray(student_t.logpdf(observed, nu, loc=center, scale=scale))
    return {"mean": center.mean(axis=0).tolist(), "elpd": log_score(density).tolist(), **held}


def pair_forecasts(
    flat: Draws,
    distilled: pd.DataFrame,
    supervised: pd.DataFrame,
    pairs: pd.DataFrame,
    kept: np.ndarray,
    teacher_unknown: np.ndarray,
    reference: Reference,
    rng: np.random.Generator,
) -> dict[str, list[float]]:
    """Probability that the distilled run of each pair is ahead, with law and with run noise, each list (pair,).

    Parameters
    ----------
    flat : dict of array, (draw, ...)
    distilled, supervised : DataFrame
    pairs : DataFrame
        As `pairs.matched_pairs` makes it.
    kept : array of bool, (run,)
        Distilled runs that were fitted.
    teacher_unknown : array of bool, (pair,)
        Where the teacher is still to be trained: its loss is forecast too.
    reference : Reference
    rng : Generator

    Returns
    -------
    dict
        probability_law, probability_run; mean, lower and upper (90 %, with run noise) of pretrained minus distilled loss, nats.
    """
    names = [name for name in LAW_PARAMETERS + EXTENSION_PARAMETERS if name in flat]
    law = {name: flat[name][:, None] for name in names}
    table = distilled.iloc[pairs["distilled"].to_numpy()].reset_index(drop=True)
    size, tokens, measured = _columns(table, "student_params", "student_tokens", "teacher_loss")
    count = len(flat["sigma"])
    shape = (count, len(pairs))
    nu = np.broadcast_to(flat["nu"][:, None], shape)
    alone_scale = supervised_scale(flat)[:, None]
    low, high, weight = (pairs[name].to_numpy() for name in ("low", "high", "weight"))
    params, seen = _columns(supervised, "params", "tokens")
    below, above = (supervised_centers(flat, params[rows], seen[rows]) for rows in (low, high))
    pretrained = {"law": (1 - weight) * below + weight * above}
    # Two runs, each with scatter of its own; where there is one, its weight is 1.
    noise = (1 - weight) * rng.standard_t(nu) + np.where(low == high, 0.0, weight) * rng.standard_t(nu)
    pretrained["run"] = pretrained["law"] + alone_scale * noise
    teacher = {"law": np.broadcast_to(measured, shape)}
    if teacher_unknown.any():
        forecast = supervised_centers(flat, *_columns(table, "teacher_params", "teacher_tokens"))
        teacher["law"] = np.where(teacher_unknown, forecast, measured)
    teacher["run"] = teacher["law"] + np.where(teacher_unknown, alone_scale * rng.standard_t(nu), 0.0)
    shifts = shared_shifts(flat, distilled, kept, reference, rng)[:, pairs["distilled"].to_numpy()]
    scatter = scatter_scale(flat, table, reference) * rng.standard_t(nu) + shifts
    differences = {
        kind: pretrained[kind]
        - np.asarray(distilled_loss(size, tokens, np.maximum(teacher[kind], 1e-3), **law))
        - (scatter if kind == "run" else 0.0)
        for kind in ("law", "run")
    }
    found = {
        # Never 0 or 1: with finitely many draws nobody can be certain.
        f"probability_{kind}": (((value > 0).sum(axis=0) + 0.5) / (count + 1)).tolist()
        for kind, value in differences.items()
    }
    lower, upper = np.quantile(differences["run"], [0.05, 0.95], axis=0)
    return found | {
        "mean_difference": differences["law"].mean(axis=0).tolist(),
        "lower_difference": lower.tolist(),
        "upper_difference": upper.tolist(),
    }
