"""How a budget is spent: tokens of both options, and the fractions for the student, the teacher's inference and its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayesdistill.compute import forward_flops, teacher_cost
from bayesdistill.strategies import Problem, tokens_bought

SHARES = ("student_share", "teacher_inference_share", "teacher_training_share")


def pretraining_tokens(problem: Problem) -> np.ndarray:
    """Return the tokens of pretraining each student on each budget, (student, budget); NaN if it does not buy one token."""
    bought = np.stack([tokens_bought(problem, one, problem.budgets) for one in range(problem.students.size)])
    return np.where(bought >= 1, bought, np.nan)


def budget_shares(problem: Problem, solved: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the fractions of the budget that strategies spend on each purpose.

    They sum to 1, or to less if `max_student_tokens` limits the student. Fractions of an unlimited budget are NaN.

    Parameters
    ----------
    problem : Problem
    solved : mapping
        student_tokens, teacher_params and teacher_tokens, (student, scenario, budget, ...).

    Returns
    -------
    dict
        Fractions by the names of SHARES.
    """
    tokens, teacher = solved["student_tokens"], forward_flops(solved["teacher_params"], problem.shape)
    own = [1] * (tokens.ndim - 3)
    student, budget = problem.students.reshape(-1, 1, 1, *own), problem.budgets.reshape(-1, *own)
    lgt, pre = (
        np.array([getattr(one, name) for one in problem.scenarios]).reshape(-1, 1, *own)
        for name in ("delta_lgt", "delta_pre")
    )
    # The tokens of an existing teacher may be unknown; they matter only if its training is charged.
    trained = np.where(pre > 0, solved["teacher_tokens"], 0.0)
    spent = (
        3 * forward_flops(student, problem.shape) * tokens,
        lgt * teacher * tokens,
        np.where(np.isnan(tokens), np.nan, teacher_cost(teacher, trained, pre)),
    )
    limited = np.where(np.isfinite(budget), budget, np.nan)
    return dict(zip(SHARES, (part / limited for part in spent), strict=True))


def tokens_and_shares(problem: Problem, solved: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the variables pretraining_tokens and the variables of SHARES."""
    return {"pretraining_tokens": pretraining_tokens(problem), **budget_shares(problem, solved)}
