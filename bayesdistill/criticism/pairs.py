"""Which distilled run is compared with which pretrained ones: the same student on the tokens that the same compute buys.

A distilled run costs C under a scenario, and C buys D* = C / (3 F(N_S)) tokens of pretraining for a student of its size. In the
best case D* are the student's own tokens. Where no pretrained run has D*, its loss is interpolated between the two runs of that
size on either side, linearly in log tokens, and the forecast is of the same mixture of two runs, so that nothing is owed to
the shape of the curve between them. Never beyond the runs, and never across a gap of more than a factor of four.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bayesdistill.compute import Scenario, student_cost_per_token, teacher_cost
from bayesdistill.errors import ParameterError

if TYPE_CHECKING:
    import pandas as pd

WIDEST_GAP = 4.0
"""Ratio of the tokens of two neighbouring runs across which one still interpolates."""
SAME_TOKENS = 1e-6
"""Relative difference up to which two numbers of tokens are the same."""

Flops = Callable[[np.ndarray], np.ndarray]


def column(table: pd.DataFrame, name: str) -> np.ndarray:
    """A column as floats; NaN where the table does not have it."""
    return table[name].to_numpy(dtype=float) if name in table else np.full(len(table), np.nan)


def own_costs(distilled: pd.DataFrame, supervised: pd.DataFrame, flops: Flops) -> tuple[np.ndarray, np.ndarray]:
    """FLOPs that each run takes to make, teachers given: (run,) and (supervised_run,).

    A distilled run is charged for its teacher's logits where `teacher_params` is known.
    """
    teacher = np.nan_to_num(flops(column(distilled, "teacher_params")))
    per_token = student_cost_per_token(flops(column(distilled, "student_params")), teacher, 1.0)
    alone = 3 * flops(column(supervised, "params")) * column(supervised, "tokens")
    return per_token * column(distilled, "student_tokens"), alone


def teacher_costs(distilled: pd.DataFrame, flops: Flops) -> np.ndarray:
    """FLOPs that each run's teacher took to pretrain, (run,); NaN where its size or tokens are not known."""
    return 3 * flops(column(distilled, "teacher_params")) * column(distilled, "teacher_tokens")


def matched_pairs(
    distilled: pd.DataFrame, supervised: pd.DataFrame, scenarios: Sequence[Scenario], flops: Flops
) -> pd.DataFrame:
    """Every distilled run with the pretrained runs that the same compute buys, scenario by scenario.

    Parameters
    ----------
    distilled : DataFrame
        With teacher_params for scenarios that charge the teacher's inference, and teacher_tokens for those that charge its
        pretraining.
    supervised : DataFrame
        Where it has a column seed, as `distilled` may, repeats are paired seed by seed; a run without a partner of its seed
        takes the first.
    scenarios : sequence of Scenario
    flops : callable
        Forward FLOPs per token of sizes, (n,) -> (n,).

    Returns
    -------
    DataFrame
        One row a pair: distilled (row of the table), low and high (rows of the supervised table), weight (of high), scenario
        (name), pays_teacher (whether it charges pretraining), tokens (those of the pretrained one), cost (FLOPs charged),
        difference (observed, pretrained minus distilled loss in nats: positive where the distilled one is ahead).

    Raises
    ------
    ParameterError
        If a column that a scenario needs is missing.
    """
    import pandas as pd

    params, tokens = column(distilled, "student_params"), column(distilled, "student_tokens")
    student = flops(params)
    for scenario in scenarios:
        needed = ["teacher_params"] if scenario.delta_lgt or scenario.delta_pre else []
        needed += ["teacher_tokens"] if scenario.delta_pre else []
        missing = [name for name in needed if name not in distilled]
        if missing:
            raise ParameterError(
                f"scenario {scenario.name!r} needs the column {' and '.join(missing)} of distilled runs"
            )
    seeds = column(distilled, "seed")
    knots = {size: _knots(supervised, size) for size in np.unique(params)}
    student_loss, loss = column(distilled, "student_loss"), column(supervised, "loss")
    rows = []
    for scenario in scenarios:
        cost = student_cost_per_token(student, 0.0, 0.0) * tokens
        if scenario.delta_lgt or scenario.delta_pre:
            teacher = flops(column(distilled, "teacher_params"))
            cost = student_cost_per_token(student, teacher, scenario.delta_lgt) * tokens
            if scenario.delta_pre:
                cost = cost + teacher_cost(teacher, column(distilled, "teacher_tokens"), scenario.delta_pre)
        bought = cost / (3 * student)
        for run in range(len(distilled)):
            match = _match(knots[params[run]], bought[run])
            if match is None:
                continue
            low, high = (_of_seed(supervised, same, seeds[run]) for same in match[:2])
            weight = match[2]
            pretrained = (1 - weight) * loss[low] + weight * loss[high]
            rows.append(
                {
                    "distilled": run,
                    "low": low,
                    "high": high,
                    "weight": weight,
                    "scenario": scenario.name,
                    "pays_teacher": bool(scenario.delta_pre),
                    "tokens": bought[run],
                    "cost": cost[run],
                    "difference": pretrained - student_loss[run],
                }
            )
    names = ["distilled", "low", "high", "weight", "scenario", "pays_teacher", "tokens", "cost", "difference"]
    return pd.DataFrame(rows, columns=names)


Knots = list[tuple[float, np.ndarray]]


def _knots(supervised: pd.DataFrame, size: float) -> Knots:
    """Tokens of the runs of a size, in order, with the rows that have them."""
    tokens = column(supervised, "tokens")
    mine = np.flatnonzero(column(supervised, "params") == size)
    return [(float(value), mine[tokens[mine] == value]) for value in np.unique(tokens[mine])]


def _match(knots: Knots, tokens: float) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Rows below and above some tokens and the weight of those above; None where the runs do not reach."""
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
    """The row with that seed, or else the first."""
    found = rows[column(supervised, "seed")[rows] == seed]
    return int(found[0] if found.size else rows[0])
