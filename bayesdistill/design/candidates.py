"""Candidate runs: what a table of them must hold, what each costs, and what the law says about it.

A row is a *distilled* run (student_params, student_tokens, teacher_loss: a student of an existing teacher) or a *supervised* run
(params, tokens: a model trained from scratch). A table may hold both; the cells of the other kind are then empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bayesdistill.compute import PUBLISHED_SHAPE, Shape, flops_per_token, student_cost_per_token
from bayesdistill.decisions.fitted_draws import FittedDraws
from bayesdistill.errors import DataError, ParameterError
from bayesdistill.law.predictive import Design, expected_loss, new_run_scale, require_noise

DISTILLED, SUPERVISED = "distilled", "supervised"
_COLUMNS = {DISTILLED: ("student_params", "student_tokens", "teacher_loss"), SUPERVISED: ("params", "tokens")}
_FEWEST_PARAMS = 1e3
# Beyond this a Student-t is a normal distribution to 1e-8, and its constant still has all its digits.
_MOST_FREEDOM = 1e8


@dataclass(frozen=True)
class Candidates:
    """Candidate runs, checked.

    Parameters
    ----------
    names : list of str
    kinds : list of str
        "distilled" or "supervised".
    params, tokens, teacher_loss : ndarray
        Of the model that the run trains; teacher_loss (nats) is NaN for a supervised run.
    cost : ndarray
        FLOPs.
    """

    names: list[str]
    kinds: list[str]
    params: np.ndarray
    tokens: np.ndarray
    teacher_loss: np.ndarray
    cost: np.ndarray


def run_costs(candidates: pd.DataFrame, *, shape: Shape = PUBLISHED_SHAPE) -> np.ndarray:
    """FLOPs that each candidate run costs.

    Parameters
    ----------
    candidates : DataFrame
        As for `next_runs`. A column `cost` (FLOPs) wins; where it is missing or empty, a run costs 3 F(N) D, and a distilled
        run with a `teacher_params` also F(N_T) D_S for the logits of its existing teacher.
    shape : Shape
        Context length, vocabulary and aspect ratio.

    Returns
    -------
    ndarray
        (candidate,)

    Raises
    ------
    DataError
        If the table is not usable; the message names row and column.

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
    """Check a table of candidates, row by row.

    Raises
    ------
    DataError
        If it is not usable; the message names row (from 1) and column.
    """
    if not isinstance(table, pd.DataFrame):
        raise DataError(f"candidates: a DataFrame is needed, one run a row, not {type(table).__name__}")
    if table.empty:
        raise DataError("candidates: the table has no rows; give at least one run that could be made")
    whole = [kind for kind, columns in _COLUMNS.items() if all(column in table for column in columns)]
    if not whole:
        raise DataError(
            f"candidates: the columns are {list(table.columns)}; distilled runs need "
            f"{', '.join(_COLUMNS[DISTILLED])}, supervised runs {', '.join(_COLUMNS[SUPERVISED])}"
        )
    kinds = [_kind_of(table, row, whole) for row in range(len(table))]
    values = np.full((3, len(table)), np.nan)
    cost = np.full(len(table), np.nan)
    for row, kind in enumerate(kinds):
        for place, column in enumerate(_COLUMNS[kind]):
            values[place, row] = _positive(table, row, column)
        if values[0, row] < _FEWEST_PARAMS:
            raise DataError(
                f"candidates, row {row + 1}, column {_COLUMNS[kind][0]}: {values[0, row]:g} parameters is no language "
                "model; sizes are counted in single parameters, so write 3e8 for 300 million"
            )
        if values[1, row] < 1:
            raise DataError(
                f"candidates, row {row + 1}, column {_COLUMNS[kind][1]}: {values[1, row]:g}; at least one token is needed"
            )
        cost[row] = _cost(table, row, kind, values[:, row], shape)
    return Candidates(_names(table), kinds, values[0], values[1], values[2], cost)


def _filled(table: pd.DataFrame, row: int, column: str) -> bool:
    return column in table and not pd.isna(table[column].iloc[row])


def _kind_of(table: pd.DataFrame, row: int, whole: list[str]) -> str:
    """The kind of a row: the one whose cells are filled, where the table has the columns of both."""
    if len(whole) == 1:
        return whole[0]
    some = [kind for kind in whole if any(_filled(table, row, column) for column in _COLUMNS[kind])]
    if len(some) == 1:
        return some[0]
    found = "cells of both kinds are filled" if some else "every cell is empty"
    raise DataError(
        f"candidates, row {row + 1}: {found}; fill either {', '.join(_COLUMNS[DISTILLED])} (a distilled run) or "
        f"{', '.join(_COLUMNS[SUPERVISED])} (a supervised run)"
    )


def _positive(table: pd.DataFrame, row: int, column: str) -> float:
    cell = table[column].iloc[row]
    try:
        number = math.nan if isinstance(cell, bool | np.bool_) else float(cell)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        hint = "; a run without a teacher goes into the columns params and tokens" if column == "teacher_loss" else ""
        shown = repr(cell) if isinstance(cell, str) else str(cell)
        raise DataError(f"candidates, row {row + 1}, column {column}: {shown} is no positive finite number{hint}")
    return number


def _cost(table: pd.DataFrame, row: int, kind: str, values: np.ndarray, shape: Shape) -> float:
    if _filled(table, row, "cost"):
        return _positive(table, row, "cost")
    with_teacher = kind == DISTILLED and _filled(table, row, "teacher_params")
    teacher = flops_per_token(_positive(table, row, "teacher_params"), shape) if with_teacher else 0.0
    return float(student_cost_per_token(flops_per_token(values[0], shape), teacher, 1.0) * values[1])


def _names(table: pd.DataFrame) -> list[str]:
    if "name" not in table:
        return [str(row + 1) for row in range(len(table))]
    names = [str(name) for name in table["name"]]
    for row, name in enumerate(names):
        if name in names[:row]:
            first = names.index(name) + 1
            raise DataError(
                f"candidates, row {row + 1}, column name: {name!r} stands in row {first} too; give each its own"
            )
    return names


@dataclass(frozen=True)
class Predictions:
    """What every draw says about every candidate's outcome: a Student-t.

    Parameters
    ----------
    mean, scale, log_constant : ndarray
        (candidate, n_draws); nats, nats, and the logarithm of the density at the mean.
    freedom : ndarray
        Degrees of freedom, (n_draws,).
    """

    mean: np.ndarray
    scale: np.ndarray
    log_constant: np.ndarray
    freedom: np.ndarray

    def log_density(self, candidate: int, outcomes: np.ndarray) -> np.ndarray:
        """Of outcomes (m,) under every draw: (m, n_draws)."""
        t = (outcomes[:, None] - self.mean[candidate]) / self.scale[candidate]
        t *= t
        t /= self.freedom
        np.log1p(t, out=t)
        t *= -(self.freedom + 1) / 2
        t += self.log_constant[candidate]
        return t


def predict(fitted: FittedDraws, candidates: Candidates) -> Predictions:
    """Return the law of every draw at every candidate, with the residual noise of a single run.

    A candidate is a run of new groups (`predictive.new_run_scale`).

    Raises
    ------
    ParameterError
        If the posterior has no residual noise, or its law gives no finite loss for a candidate.
    """
    from scipy.special import gammaln

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
            f"candidates, row {int(np.flatnonzero(bad)[0]) + 1}: some draws of the posterior give this run no finite loss or "
            "no residual noise. Remove the run, or refit the model."
        )
    freedom = np.minimum(draws["nu"], _MOST_FREEDOM)
    constant = gammaln((freedom + 1) / 2) - gammaln(freedom / 2) - 0.5 * np.log(freedom * np.pi)
    return Predictions(mean, scale, constant - np.log(scale), freedom)
