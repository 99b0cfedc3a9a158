"""Match every distilled run with pretrained runs of the same size and compute.

A distilled run has cost C under a scenario. Pretraining a model of the student's size at this cost uses D* = C / (3 F(N_S)) tokens;
in the best case, D* equals the student's tokens. If no pretrained run has D* tokens, its loss is interpolated between the two
neighboring runs of that size, linearly in log tokens. The prediction is for the same weighted mean of two runs, so it does not
depend on the shape of the curve between them. There is no extrapolation, and no interpolation across a factor of more than four.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from bayesdistill.compute import Scenario, student_cost_per_token, teacher_cost
from bayesdistill.errors import ParameterError

WIDEST_GAP = 4.0
"""Maximum ratio of the tokens of two neighboring runs for interpolation."""
SAME_TOKENS = 1e-6
"""Relative difference up to which two numbers of tokens count as equal."""

Flops = Callable[[np.ndarray], np.ndarray]


def column(table: pd.DataFrame, name: str) -> np.ndarray:
    """Return a column as floats; NaN if the table does not have it."""
    return table[name].to_numpy(dtype=float) if name in table else np.full(len(table), np.nan)


def known_flops(flops: Flops, sizes: np.ndarray) -> np.ndarray:
    """Return the forward FLOPs per token of sizes, by the function of the caller; NaN if a size is not available."""
    found = np.full(sizes.shape, np.nan)
    known = ~np.isnan(sizes)
    if known.any():
        values = np.asarray(flops(sizes[known]))
        if values.shape != found[known].shape or values.dtype.kind not in "iuf" or not (values > 0).all():
            raise ParameterError("`flops` must return a positive number of FLOPs for each size of an array.")
        found[known] = values
    return found


def own_costs(distilled: pd.DataFrame, supervised: pd.DataFrame, flops: Flops) -> tuple[np.ndarray, np.ndarray]:
    """Return the FLOPs of each run with a given teacher: (run,) and (supervised_run,); a table may be empty.

    The cost of a distilled run includes its teacher's logits if `teacher_params` is available.
    """
    teacher = np.nan_to_num(known_flops(flops, column(distilled, "teacher_params")))
    per_token = student_cost_per_token(known_flops(flops, column(distilled, "student_params")), teacher, 1.0)
    alone = 3 * known_flops(flops, column(supervised, "params")) * column(supervised, "tokens")
    return per_token * column(distilled, "student_tokens"), alone


def teacher_costs(distilled: pd.DataFrame, flops: Flops) -> np.ndarray:
    """Return the pretraining FLOPs of each run's teacher, (run,); NaN if not available."""
    return 3 * known_flops(flops, column(distilled, "teacher_params")) * column(distilled, "teacher_tokens")


def matched_pairs(
    distilled: pd.DataFrame, supervised: pd.DataFrame, scenarios: Sequence[Scenario], flops: Flops
) -> pd.DataFrame:
    """Match distilled runs with pretrained runs of equal compute in every scenario.

    Parameters
    ----------
    distilled : DataFrame
        Scenarios that charge the teacher's inference require teacher_params; scenarios that charge its pretraining also
        require teacher_tokens.
    supervised : DataFrame
        If both tables have a column seed, repeats are paired by seed; a run without a partner of the same seed is paired with
        the first repeat.
    scenarios : sequence of Scenario
    flops : callable
        Forward FLOPs per token for an array of sizes, (n,) -> (n,).

    Returns
    -------
    DataFrame
        One row per pair: distilled (row of the distilled table), low and high (rows of the supervised table), weight (of high),
        scenario (name), pays_teacher (whether the scenario charges the teacher's pretraining), tokens (of the pretrained run),
        cost (FLOPs), difference (observed pretrained minus distilled loss in nats; positive if the distilled run is better).

    Raises
    ------
    ParameterError
        If a column that a scenario requires is missing.
    """
    params, tokens = column(distilled, "student_params"), column(distilled, "student_tokens")
    student = known_flops(flops, params)
    for scenario in scenarios:
        needed = ["teacher_params"] if scenario.delta_lgt or scenario.delta_pre else []
        needed += ["teacher_tokens"] if scenario.delta_pre else []
        missing = [name for name in needed if name not in distilled]
        if missing:
            raise ParameterError(
                f"Scenario {scenario.name!r} requires the column {' and '.join(missing)} in the table of distilled runs."
            )
    seeds = column(distilled, "seed")
    knots = {size: _knots(supervised, size) for size in np.unique(params)}
    student_loss, loss = column(distilled, "student_loss"), column(supervised, "loss")
    rows = []
    for scenario in scenarios:
        cost = student_cost_per_token(student, 0.0, 0.0) * tokens
        if scenario.delta_lgt or scenario.delta_pre:
            teacher = known_flops(flops, column(distilled, "teacher_params"))
            cost = student_cost_per_token(student, teacher, scenario.delta_lgt) * tokens
            if scenario.delta_pre:
                cost = cost + teacher_cost(teacher, column(distilled, "teacher_tokens"), scenario.delta_pre)
        bought, charged = cost / (3 * student), bool(scenario.delta_pre)
        for run in range(len(distilled)):
            match = _match(knots[params[run]], bought[run])
            if match is None:
                continue
            low, high = (_of_seed(supervised, same, seeds[run]) for same in match[:2])
            weight = match[2]
            difference = (1 - weight) * loss[low] + weight * loss[high] - student_loss[run]
            rows.append((run, low, high, weight, scenario.name, charged, bought[run], cost[run], difference))
    names = ["distilled", "low", "high", "weight", "scenario", "pays_teacher", "tokens", "cost", "difference"]
    return pd.DataFrame(rows, columns=names)


Knots = list[tuple[float, np.ndarray]]


def _knots(supervised: pd.DataFrame, size: float) -> Knots:
    """Return the distinct tokens of the runs of a size, in order, with their rows."""
    tokens = column(supervised, "tokens")
    mine = np.flatnonzero(column(supervised, "params") == size)
    return [(float(value), mine[tokens[mine] == value]) for value in np.unique(tokens[mine])]


def _match(knots: Knots, tokens: float) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Return rows below and above a number of tokens and the weight above; None out of range."""
    if not math.isfinite(tokens):
        return None
    for value, rows in knots:
        if abs(tokens / value - 1) < SAME_TOKENS:
            return rows, rows, 0.0
    for (below, low), (above, high) in itertools.pairwise(knots):
        if below < tokens < above and above / below <= WIDEST_GAP * (1 + SAME_TOKENS):
            return low, high, math.log(tokens / below) / math.log(above / below)
    return None


def _of_seed(supervised: pd.DataFrame, rows: np.ndarray, seed: float) -> int:
    """Return the row with that seed or, if there is none, the first row."""
    found = rows[column(supervised, "seed")[rows] == seed]
    return int(found[0] if found.size else rows[0])
