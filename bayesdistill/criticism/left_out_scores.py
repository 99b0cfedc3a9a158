"""Predictions for left-out runs and pairs of runs, from draws of the law."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from bayesdistill.criticism.pairs import column
from bayesdistill.criticism.scores import score_draws
from bayesdistill.law import Draws
from bayesdistill.law.predictive import (
    OUTCOME,
    Design,
    curve_loss,
    expected_loss,
    group_effects,
    logpdf,
    new_run_scale,
    pretrained_noise_factor,
    residual_scale,
    residuals,
    shared_effect,
    standard_residuals,
    with_new_groups,
)

FEWEST_SAMPLES = 2000
"""Methods with fewer draws repeat them with independent noise."""


@dataclass(frozen=True)
class Fitted:
    """Draws of a law, and the runs to which they were fitted.

    Parameters
    ----------
    draws : Draws
    effects : mapping
        Name of a group effect -> (n_draws, group).
    runs : mapping
        "distilled" and, if there are any, "supervised" -> all runs.
    kept : mapping
        The same keys -> mask of the fitted runs, (run,) of bool. The draws include the effects of their groups.
    """

    draws: Draws
    effects: Mapping[str, np.ndarray]
    runs: Mapping[str, pd.DataFrame]
    kept: Mapping[str, np.ndarray]

    def repeated(self) -> Fitted:
        """Repeat the draws until there are at least FEWEST_SAMPLES."""
        count = self.draws.n_draws
        rows = np.repeat(np.arange(count), -(-FEWEST_SAMPLES // count))
        effects = {name: value[rows] for name, value in self.effects.items()}
        return replace(self, draws=self.draws.take(rows), effects=effects)

    def design(self, kind: str) -> Design:
        """Return the design of all distilled or supervised runs."""
        return Design.of(self.draws.law, self.runs[kind], kind)

    def effects_of_all(self, kind: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return the group effects of a kind, drawn for new groups: name -> (n_draws, group)."""
        return with_new_groups(self.draws, self.design(kind), self.effects, self.kept[kind], rng)

    def new_effects(self, kind: str, rng: np.random.Generator) -> np.ndarray:
        """Return group effects of all runs of a kind, drawn for new groups, (n_draws, run)."""
        return group_effects(self.draws, self.design(kind), self.effects_of_all(kind, rng))


def run_predictions(fitted: Fitted, rng: np.random.Generator) -> dict[str, list[Any]]:
    """Score the predictions of left-out runs, including residual noise; lists (run,), distilled runs first.

    Returns
    -------
    dict
        mean (nats), elpd, crps, pit, inside_50 and inside_90; leverage, the standard deviation of the law's expected loss over the
        residual scale (root mean square over draws).
    """
    draws, parts = fitted.draws, []
    for kind, table in fitted.runs.items():
        design, out = fitted.design(kind), ~fitted.kept[kind]
        center = expected_loss(draws, design)
        scale = residual_scale(draws, design)
        leverage = center.std(axis=0) / np.sqrt((scale**2).mean(axis=0))
        center = center + fitted.new_effects(kind, rng)
        parts.append((center[:, out], scale[:, out], column(table, OUTCOME[kind])[out], leverage[out]))
    center, scale, observed, leverage = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    drawn = center + residuals(draws, scale, rng)
    density = logpdf(observed, center, scale, draws["nu"][:, None])
    # Average the expected loss, not the draws: for nu near 1, the mean of Student-t draws does not converge.
    scores = score_draws(drawn, density, observed)
    return {"mean": center.mean(axis=0).tolist(), "leverage": leverage.tolist(), **scores}


def pair_predictions(fitted: Fitted, pairs: pd.DataFrame, rng: np.random.Generator) -> dict[str, list[float]]:
    """Return the probability that the distilled run of each pair wins; lists (pair,).

    Parameters
    ----------
    fitted : Fitted
    pairs : DataFrame
        Result of `pairs.matched_pairs`, and teacher_unknown: whether the pair's teacher is not trained yet, so its loss
        is predicted.
    rng : Generator

    Returns
    -------
    dict
        probability_law, probability_expected and probability_run; mean_difference, lower_difference and upper_difference (90% interval
        with run noise) of pretrained minus distilled loss in nats.
    """
    draws, law, p = fitted.draws, fitted.draws.law, fitted.draws.columns
    rows, unknown = pairs["distilled"].to_numpy(), pairs["teacher_unknown"].to_numpy(dtype=bool)
    table = fitted.runs["distilled"].iloc[rows]
    size, tokens, measured = (column(table, name) for name in ("student_params", "student_tokens", "teacher_loss"))
    low, high, weight = (pairs[name].to_numpy() for name in ("low", "high", "weight"))
    supervised, distilled = fitted.design("supervised"), fitted.design("distilled")

    def noise() -> np.ndarray:
        return standard_residuals(p["nu"], (draws.n_draws, len(pairs)), rng)

    def between(values: np.ndarray) -> np.ndarray:
        """Interpolate between the two pretrained runs of every pair."""
        return (1 - weight) * values[:, low] + weight * values[:, high]

    effects = fitted.effects_of_all("distilled", rng)
    expected_own = (
        expected_loss(draws, distilled) - curve_loss(draws, distilled) + group_effects(draws, distilled, effects)
    )
    expected_own = expected_own[:, rows]
    expected = between(expected_loss(draws, supervised) + fitted.new_effects("supervised", rng))
    for effect in law.effects:
        if effect.of_pretrained and effect.name in effects:
            own = effects[effect.name][:, distilled.groups[effect.name][1][rows]]
            expected = expected + shared_effect(draws, effect, own, rng.standard_normal(own.shape))
    # Interpolated losses have the noise of two runs; otherwise the weight of the single run is 1.
    scale = residual_scale(draws, supervised) * pretrained_noise_factor(draws)[:, None]
    alone = expected + (1 - weight) * scale[:, low] * noise()
    alone = alone + np.where(low == high, 0.0, weight) * scale[:, high] * noise()
    run_own = expected_own + residuals(draws, residual_scale(draws, distilled), rng)[:, rows]
    noisy_teacher = teacher = mean_teacher = np.broadcast_to(measured, expected.shape)
    if unknown.any():
        trained = Design("supervised", column(table, "teacher_params"), column(table, "teacher_tokens"))
        mean_teacher = np.where(unknown, curve_loss(draws, trained), measured)
        teacher = np.where(unknown, expected_loss(draws, trained), measured)
        noisy_teacher = teacher + np.where(unknown, new_run_scale(draws, trained) * noise(), 0.0)
    student = law.student(size, tokens, p)
    levels = (
        ("law", between(curve_loss(draws, supervised)), mean_teacher, 0.0),
        ("expected", expected, teacher, expected_own),
        ("run", alone, noisy_teacher, run_own),
    )
    differences = {
        name: pretrained - np.asarray(law.distilled_loss(student, np.maximum(loss, 1e-3), p)) - deviation
        for name, pretrained, loss, deviation in levels
    }
    found = {
        # Never 0 or 1, because the number of draws is finite.
        f"probability_{name}": (((value > 0).sum(axis=0) + 0.5) / (draws.n_draws + 1)).tolist()
        for name, value in differences.items()
    }
    lower, upper = np.quantile(differences["run"], [0.05, 0.95], axis=0)
    return found | {
        "mean_difference": differences["law"].mean(axis=0).tolist(),
        "lower_difference": lower.tolist(),
        "upper_difference": upper.tolist(),
    }
