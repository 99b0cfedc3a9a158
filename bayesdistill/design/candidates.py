"""Candidate runs: validation of their table, their costs, and their predictive distributions.

A row is a *distilled* run (student_params, student_tokens, teacher_loss: a student of an existing teacher) or a *supervised* run
(params, tokens: a model trained from scratch). A table may have both kinds; leave the cells of the other kind empty.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bayesdistill.arguments import checked, instance
from bayesdistill.compute import PUBLISHED_SHAPE, Shape, forward_flops, student_cost_per_token
from bayesdistill.datasets import read_candidates
from bayesdistill.decisions.arguments import TeacherTable
from bayesdistill.decisions.fitted_draws import FittedDraws
from bayesdistill.decisions.labels import size_words
from bayesdistill.errors import ParameterError
from bayesdistill.law.predictive import COLUMNS, Design, expected_loss, logpdf, new_run_scale, require_noise

DISTILLED = "distilled"
_PROPOSED = 3  # values of each axis

# Above this value, a Student-t distribution is normal to within 1e-8, and its constant is computed accurately.
_MOST_FREEDOM = 1e8


@dataclass(frozen=True)
class Candidates:
    """Validated candidate runs.

    Parameters
    ----------
    names : list of str
    kinds : list of str
        "distilled" or "supervised".
    params, tokens, teacher_loss : ndarray
        Of the trained model; teacher_loss (nats) is NaN for a supervised run.
    cost : ndarray
        FLOPs.
    """

    names: list[str]
    kinds: list[str]
    params: np.ndarray
    tokens: np.ndarray
    teacher_loss: np.ndarray
    cost: np.ndarray


@checked(shape=instance(Shape))
def run_costs(candidates: pd.DataFrame, *, shape: Shape = PUBLISHED_SHAPE) -> np.ndarray:
    """Return the cost of each candidate run in FLOPs.

    Parameters
    ----------
    candidates : DataFrame
        As for `next_runs`. A column `cost` (FLOPs) has priority. If it is missing or empty, a run costs 3 F(N) D, and a
        distilled run with `teacher_params` also costs F(N_T) D_S for the logits of its existing teacher.
    shape : Shape
        Context length, vocabulary and aspect ratio.

    Returns
    -------
    ndarray
        (candidate,)

    Raises
    ------
    DataError
        If the table is invalid; the message names row and column.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayesdistill.design import run_costs
    >>> table = pd.DataFrame({"params": [1e9], "tokens": [2e10]})
    >>> f"{run_costs(table)[0]:.3e}"
    '1.471e+20'
    """
    return parse_candidates(candidates, shape).cost


def parse_candidates(
    table: pd.DataFrame | str | os.PathLike[str],
    shape: Shape,
    teacher_losses: tuple[float, float] = (0.0, math.inf),
    logits_price: float = 1.0,
) -> Candidates:
    """Validate a table of candidates.

    Parameters
    ----------
    table : DataFrame or path
    shape : Shape
    teacher_losses : tuple of float
        Range of plausible losses of teachers, in nats per token.
    logits_price : float
        Price of a FLOP of the teacher's inference relative to a FLOP of training.

    Raises
    ------
    DataError
        If the table is invalid; the message names row (from 1) and column.
    """
    names, parts = read_candidates(table, teacher_losses)
    kinds = np.empty(len(names), dtype=object)
    values, cost = np.full((3, len(names)), np.nan), np.empty(len(names))
    for part in parts:
        columns = COLUMNS[part.kind]
        kinds[part.rows] = part.kind
        values[: len(columns), part.rows] = part.frame[list(columns)].to_numpy().T
        cost[part.rows] = [_cost(row, part.kind, shape, logits_price) for _, row in part.frame.iterrows()]
    params, tokens, losses = values
    return Candidates(names, kinds.tolist(), params, tokens, losses, cost)


def _cost(run: pd.Series, kind: str, shape: Shape, logits_price: float) -> float:
    if not np.isnan(run.get("cost", np.nan)):
        return float(run["cost"])
    size, tokens = (float(run[name]) for name in COLUMNS[kind][:2])
    teacher_params = float(run.get("teacher_params", np.nan)) if kind == DISTILLED else np.nan
    teacher = 0.0 if np.isnan(teacher_params) else forward_flops(teacher_params, shape)
    return float(student_cost_per_token(forward_flops(size, shape), teacher, logits_price) * tokens)


def proposed_candidates(fitted: FittedDraws, teachers: TeacherTable | None) -> pd.DataFrame:
    """Return candidates in the observed ranges: three sizes, three numbers of tokens per parameter, three losses of teachers.

    Existing teachers replace the losses. Supervised runs have the ranges of the supervised law's data.

    Raises
    ------
    ParameterError
        If the posterior does not have the ranges of its runs.
    """
    ranges = fitted.ranges
    if "student_params" not in ranges:
        raise ParameterError("The posterior does not have the ranges of its runs. Give `candidates`, a table of runs.")
    known = [("", loss, np.nan) for loss in np.linspace(*ranges["teacher_loss"], _PROPOSED)]
    if teachers is not None:
        known = list(zip(teachers.names, teachers.loss.tolist(), teachers.params.tolist(), strict=True))
    rows: list[dict[str, Any]] = []
    for size, tokens in _runs(ranges, "student_params", "student_tokens_per_param"):
        for name, loss, params in known:
            words = f"{size_words(size)} on {size_words(tokens)} tokens, teacher {name or f'of {loss:.2f} nats'}"
            run = {"student_params": size, "student_tokens": tokens, "teacher_loss": loss, "teacher_params": params}
            rows.append({"name": words, **run})
    for size, tokens in _runs(ranges, "pretraining_params", "pretraining_tokens_per_param"):
        rows.append(
            {"name": f"{size_words(size)} on {size_words(tokens)} tokens, pretrained", "params": size, "tokens": tokens}
        )
    table = pd.DataFrame(rows)
    # Sizes and tokens are in the range of the fitted runs, which were checked when they were read.
    table.attrs["allow_suspicious"] = True
    return table


def _runs(ranges: Mapping[str, tuple[float, float]], params: str, ratio: str) -> list[tuple[float, float]]:
    sizes, ratios = (np.geomspace(*ranges[name], _PROPOSED) for name in (params, ratio))
    return [(float(size), float(size * each)) for size in sizes for each in ratios]


@dataclass(frozen=True)
class Predictions:
    """Predictive Student-t distribution of every candidate's outcome in every draw.

    Parameters
    ----------
    mean, scale : ndarray
        (candidate, n_draws), nats.
    freedom : ndarray
        Degrees of freedom, (n_draws,).
    """

    mean: np.ndarray
    scale: np.ndarray
    freedom: np.ndarray

    def log_density(self, candidate: int, outcomes: np.ndarray) -> np.ndarray:
        """Return the log density of outcomes (m,) under every draw, (m, n_draws)."""
        return logpdf(outcomes[:, None], self.mean[candidate], self.scale[candidate], self.freedom)


def predict(fitted: FittedDraws, candidates: Candidates) -> Predictions:
    """Return the predictive distribution of every candidate in every draw, with residual noise.

    A candidate is a run of new groups (`predictive.new_run_scale`).

    Raises
    ------
    ParameterError
        If the posterior has no residual noise, or the law gives no finite loss for a candidate.
    """
    draws = fitted.draws
    require_noise(draws)
    mean = np.empty((len(candidates.kinds), fitted.n_draws))
    scale = np.empty_like(mean)
    for kind in set(candidates.kinds):
        rows = np.array([k == kind for k in candidates.kinds])
        design = Design(kind, candidates.params[rows], candidates.tokens[rows], candidates.teacher_loss[rows])
        with np.errstate(all="ignore"):
            mean[rows], scale[rows] = expected_loss(draws, design).T, new_run_scale(draws, design).T
    bad = ~(np.isfinite(mean) & (scale > 0) & np.isfinite(scale)).all(axis=1)
    if bad.any():
        raise ParameterError(
            f"Some draws of the posterior give no finite loss or no residual noise for row "
            f"{int(np.flatnonzero(bad)[0]) + 1} of candidates. Remove this run, or refit the model."
        )
    return Predictions(mean, scale, np.minimum(draws["nu"], _MOST_FREEDOM))
