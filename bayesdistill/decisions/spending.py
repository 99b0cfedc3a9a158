"""How a budget is spent: tokens of both options, and the fractions for the student, the teacher's inference and its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayesdistill.compute import forward_flops, teacher_cost
from bayesdistill.law import Repetition
from bayesdistill.strategies import Problem, tokens_bought

MANY_EPOCHS = 40
"""Number of epochs by which repeated tokens are worth next to nothing (Muennighoff et al. 2023, section 6)."""
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


def epochs_of(repetition: Repetition | None, **tokens: Any) -> dict[str, Any]:
    """Return how often models read the unique tokens, `<model>_epochs`; empty if data are not limited, NaN for no or endless tokens."""
    if repetition is None:
        return {}
    read = {model: np.asarray(number, dtype=float) / repetition.unique_tokens for model, number in tokens.items()}
    return {f"{model}_epochs": np.where(np.isfinite(number), number, np.nan) for model, number in read.items()}


def epochs_note(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the attribute on limited data with how often plans read the unique tokens; empty if data are not limited."""
    most = {
        name.removesuffix("_epochs"): float(np.nanmax(v, initial=-np.inf))
        for name, v in values.items()
        if name.endswith("_epochs")
    }
    if not most or max(most.values()) < 0:
        return {}
    words = {"pretraining": "the pretrained student", "student": "the distilled student", "teacher": "the new teacher"}
    found = ", ".join(f"{words[name]} {number:.2g}" for name, number in most.items() if np.isfinite(number))
    text = f"Largest number of epochs: {found}."
    if max(most.values()) > MANY_EPOCHS:
        text += (
            f" More than {MANY_EPOCHS} epochs require more tokens than exist: repeated tokens then add next to nothing."
        )
    return {"epochs": text}


def tokens_and_shares(
    problem: Problem, solved: Mapping[str, np.ndarray], repetition: Repetition | None = None
) -> dict[str, Any]:
    """Return the variables pretraining_tokens and the variables of SHARES; if data are limited, also the epochs of each model."""
    own = pretraining_tokens(problem)
    found = {"pretraining_tokens": own, **budget_shares(problem, solved)}
    read = {"pretraining": own, "student": solved["student_tokens"]}
    # The tokens of existing teachers need not be of this corpus.
    new = {"teacher": solved["teacher_tokens"]} if problem.teachers is None else {}
    return found | epochs_of(repetition, **read, **new)
