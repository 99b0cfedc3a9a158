"""Predictions for left-out runs and pairs of runs, from draws of both laws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdistill.criticism.scores import PROBABILITIES, inside, log_score
from bayesdistill.law import Draws
from bayesdistill.law.predictive import (
    Design,
    expected_loss,
    group_effects,
    logpdf,
    residual_scale,
    residuals,
    standard_residuals,
    supervised_scale,
    with_new_groups,
)

if TYPE_CHECKING:
    import pandas as pd

FEWEST_SAMPLES = 2000
"""Methods with fewer draws repeat them with independent noise."""


@dataclass(frozen=True)
class Fitted:
    """Draws of both laws, and the runs to which they were fitted.

    Parameters
    ----------
    draws : Draws
    effects : mapping
        Name of a group effect -> (n_draws, group).
    distilled, supervised : DataFrame
        All runs.
    kept : array of bool, (run,)
        Fitted distilled runs. The draws include the effects of their groups.
    """

    draws: Draws
    effects: Mapping[str, np.ndarray]
    distilled: pd.DataFrame
    supervised: pd.DataFrame
    kept: np.ndarray

    def repeated(self) -> Fitted:
        """Repeat the draws until there are at least FEWEST_SAMPLES."""
        count = self.draws.n_draws
        rows = np.repeat(np.arange(count), -(-FEWEST_SAMPLES // count))
        effects = {name: value[rows] for name, value in self.effects.items()}
        return replace(self, draws=self.draws.take(rows), effects=effects)

    def design(self, kind: str) -> Design:
        """Return the design of all distilled or supervised runs."""
        return Design.of(self.draws.law, getattr(self, kind), kind)

    def new_effects(self, rng: np.random.Generator) -> np.ndarray:
        """Return group effects of all distilled runs, drawn for new groups, (n_draws, run)."""
        design = self.design("distilled")
        return group_effects(self.draws, design, with_new_groups(self.draws, design, self.effects, self.kept, rng))


def _columns(table: pd.DataFrame, *names: str) -> list[np.ndarray]:
    return [table[name].to_numpy(dtype=float) for name in names]


def run_predictions(
    fitted: Fitted, left_out: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> dict[str, list[Any]]:
    """Score the predictions of left-out runs; lists (run,), distilled runs first.

    Parameters
    ----------
    fitted : Fitted
    left_out : pair of arrays of int
        Rows of the distilled and of the supervised runs.
    rng : Generator

    Returns
    -------
    dict
        mean (nats), inside_50, inside_90, elpd.
    """
    draws, rows, others = fitted.draws, *left_out
    distilled, supervised = fitted.design("distilled"), fitted.design("supervised")
    effects = fitted.new_effects(rng)
    center = np.concatenate(
        [(expected_loss(draws, distilled) + effects)[:, rows], expected_loss(draws, supervised)[:, others]], axis=1
    )
    scale = np.concatenate(
        [residual_scale(draws, distilled)[:, rows], residual_scale(draws, supervised)[:, others]], axis=1
    )
    observed = np.concatenate(
        [_columns(fitted.distilled, "student_loss")[0][rows], _columns(fitted.supervised, "loss")[0][others]]
    )
    drawn = center + residuals(draws, scale, rng)
    held = {f"inside_{100 * p:.0f}": inside(drawn, observed, p).tolist() for p in PROBABILITIES}
    density = logpdf(observed, center, scale, draws["nu"][:, None])
    return {"mean": center.mean(axis=0).tolist(), "elpd": log_score(density).tolist(), **held}


def pair_predictions(
    fitted: Fitted, pairs: pd.DataFrame, teacher_unknown: np.ndarray, rng: np.random.Generator
) -> dict[str, list[float]]:
    """Return the probability that the distilled run of each pair wins; lists (pair,).

    Parameters
    ----------
    fitted : Fitted
    pairs : DataFrame
        Result of `pairs.matched_pairs`.
    teacher_unknown : array of bool, (pair,)
        Pairs whose teacher is not trained yet; its loss is predicted.
    rng : Generator

    Returns
    -------
    dict
        probability_law and probability_run; mean_difference, lower_difference and upper_difference (90% interval with run noise)
        of pretrained minus distilled loss in nats.
    """
    draws = fitted.draws
    rows = pairs["distilled"].to_numpy()
    table = fitted.distilled.iloc[rows].reset_index(drop=True)
    size, tokens, measured = _columns(table, "student_params", "student_tokens", "teacher_loss")
    shape = (draws.n_draws, len(pairs))
    nu = draws["nu"][:, None]
    alone_scale = draws[supervised_scale(draws.law)][:, None]
    low, high, weight = (pairs[name].to_numpy() for name in ("low", "high", "weight"))
    curves = expected_loss(draws, fitted.design("supervised"))
    pretrained = {"law": (1 - weight) * curves[:, low] + weight * curves[:, high]}
    # Interpolated losses have the noise of two runs; otherwise the weight of the single run is 1.
    noise = (1 - weight) * standard_residuals(nu, shape, rng)
    noise = noise + np.where(low == high, 0.0, weight) * standard_residuals(nu, shape, rng)
    pretrained["run"] = pretrained["law"] + alone_scale * noise
    teacher = {"law": np.broadcast_to(measured, shape)}
    if teacher_unknown.any():
        teacher_params, teacher_tokens = _columns(table, "teacher_params", "teacher_tokens")
        trained = Design("supervised", teacher_params, teacher_tokens)
        teacher["law"] = np.where(teacher_unknown, expected_loss(draws, trained), measured)
    teacher["run"] = teacher["law"] + np.where(teacher_unknown, alone_scale * standard_residuals(nu, shape, rng), 0.0)
    effects = fitted.new_effects(rng)[:, rows]
    deviation = residuals(draws, residual_scale(draws, Design("distilled", size, tokens, measured)), rng) + effects
    p, law = draws.columns, draws.law
    student = law.student(size, tokens, p)
    differences = {
        kind: pretrained[kind]
        - np.asarray(law.distilled_loss(student, np.maximum(teacher[kind], 1e-3), p))
        - (deviation if kind == "run" else 0.0)
        for kind in ("law", "run")
    }
    found = {
        # Never 0 or 1, because the number of draws is finite.
        f"probability_{kind}": (((value > 0).sum(axis=0) + 0.5) / (draws.n_draws + 1)).tolist()
        for kind, value in differences.items()
    }
    lower, upper = np.quantile(differences["run"], [0.05, 0.95], axis=0)
    return found | {
        "mean_difference": differences["law"].mean(axis=0).tolist(),
        "lower_difference": lower.tolist(),
        "upper_difference": upper.tolist(),
    }
