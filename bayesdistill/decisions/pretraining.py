"""The alternative to distillation: pretraining the student on all tokens that the budget buys."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesdistill.compute import pretraining_tokens
from bayesdistill.strategies import Problem


def pretrained_tokens(problem: Problem, students: Any, budgets: Any) -> np.ndarray:
    """Return the tokens of pretrained students: what the budget buys, up to the problem's maximum."""
    return np.minimum(pretraining_tokens(students, budgets, problem.shape), problem.bounds.max_student_tokens)
