"""Candidate runs: validation of their table, their costs, and their predictive distributions.

A row is a *distilled* run (student_params, student_tokens, teacher_loss: a student of an existing teacher) or a *supervised* run
(params, tokens: a model trained from scratch). A table may have both kinds; leave the cells of the other kind empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bayesdistill.arguments import checked, instance
from bayesdistill.compute import PUBLISHED_SHAPE, Shape, forward_flops, student_cost_per_token
from bayesdistill.decisions.fitted_draws import FittedDraws
from bayesdistill.errors import DataError, ParameterError
from bayesdistill.law.predictive import COLUMNS, Design, expected_loss, logpdf, new_run_scale, require_noise

DISTILLED, SUPERVISED = "distilled", "supervised"

_FEWEST_PARAMS = 1e3
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


def parse_candidates(table: pd.DataFrame, shape: Shape) -> Candidates:
    """Validate a table of candidates.

    Raises
    ------
    DataError
        If the table is invalid; the message names row (from 1) and column.
    """
    if not isinstance(table, pd.DataFrame):
        raise DataError(f"`candidates` must be a DataFrame with one run per row, got {type(table).__name__}.")
    if table.empty:
        raise DataError("`candidates` has no rows. Give at least one candidate run.")
    whole = [kind for kind, columns in COLUMNS.items() if all(column in table for column in columns)]
    if not whole:
        raise DataError(
            f"`candidates` has the columns {list(table.columns)}. Distilled runs require "
            f"{', '.join(COLUMNS[DISTILLED])}; supervised runs require {', '.join(COLUMNS[SUPERVISED])}."
        )
    kinds = [_kind_of(table, row, whole) for row in range(len(table))]
    values = np.full((3, len(table)), np.nan)
    cost = np.full(len(table), np.nan)
    for row, kind in enumerate(kinds):
        for place, column in enumerate(COLUMNS[kind]):
            values[place, row] = _positive(table, row, column)
        if values[0, row] < _FEWEST_PARAMS:
            raise DataError(
                f"`{COLUMNS[kind][0]}` in row {row + 1} of candidates is {values[0, row]:g}, which is too small for a number "
                "of parameters. If this is in millions, multiply it by 1e6 (300 million is 3e8)."
            )
        if values[1, row] < 1:
            raise DataError(
                f"`{COLUMNS[kind][1]}` in row {row + 1} of candidates must be at least 1 token, got {values[1, row]:g}."
            )
        cost[row] = _cost(table, row, kind, values[:, row], shape)
    return Candidates(_names(table), kinds, values[0], values[1], values[2], cost)


def _filled(table: pd.DataFrame, row: int, column: str) -> bool:
    return column in table and not pd.isna(table[column].iloc[row])


def _kind_of(table: pd.DataFrame, row: int, whole: list[str]) -> str:
    """Return the kind of a row, determined by its columns and filled cells."""
    if len(whole) == 1:
        return whole[0]
    some = [kind for kind in whole if any(_filled(table, row, column) for column in COLUMNS[kind])]
    if len(some) == 1:
        return some[0]
    found = "has values for both kinds of run" if some else "has no values"
    raise DataError(
        f"Row {row + 1} of candidates {found}. Fill either {', '.join(COLUMNS[DISTILLED])} (distilled run) or "
        f"{', '.join(COLUMNS[SUPERVISED])} (supervised run)."
    )


def _positive(table: pd.DataFrame, row: int, column: str) -> float:
    cell = table[column].iloc[row]
    try:
        number = math.nan if isinstance(cell, bool | np.bool_) else float(cell)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        hint = " For a run without a teacher, use the columns params and tokens." if column == "teacher_loss" else ""
        shown = repr(cell) if isinstance(cell, str) else str(cell)
        raise DataError(
            f"`{column}` in row {row + 1} of candidates must be a positive finite number, got {shown}.{hint}"
        )
    return number


def _cost(table: pd.DataFrame, row: int, kind: str, values: np.ndarray, shape: Shape) -> float:
    if _filled(table, row, "cost"):
        return _positive(table, row, "cost")
    with_teacher = kind == DISTILLED and _filled(table, row, "teacher_params")
    teacher = forward_flops(_positive(table, row, "teacher_params"), shape) if with_teacher else 0.0
    return float(student_cost_per_token(forward_flops(values[0], shape), teacher, 1.0) * values[1])


def _names(table: pd.DataFrame) -> list[str]:
    if "name" not in table:
        return [str(row + 1) for row in range(len(table))]
    names = [str(name) for name in table["name"]]
    for row, name in enumerate(names):
        if name in names[:row]:
            first = names.index(name) + 1
            raise DataError(
                f"`name` in row {row + 1} of candidates is {name!r}, as in row {first}. Use different names."
            )
    return names


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
