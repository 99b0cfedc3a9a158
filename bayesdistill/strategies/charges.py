"""Costs that are charged to one student."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesdistill.compute import student_cost_per_token, teacher_cost


@dataclass(frozen=True)
class Charges:
    """Costs of one student: its own training and fractions of its teacher's inference and pretraining.

    Parameters
    ----------
    student_flops : float
        Forward FLOPs per token of the student.
    delta_lgt, delta_pre : float
        Charged fractions of the teacher's inference and pretraining, see `compute.Scenario`; `delta_lgt` is multiplied by the price of
        inference relative to training.
    max_student_tokens : float
        Cap on the student's tokens; infinite for none.
    """

    student_flops: float
    delta_lgt: float
    delta_pre: float
    max_student_tokens: float = math.inf

    def per_token(self, teacher_flops: Any) -> Any:
        """Return the FLOPs of one student token."""
        # Omit terms with zero charge so that the result does not broadcast to the axes of the teachers.
        return student_cost_per_token(self.student_flops, teacher_flops if self.delta_lgt else 0.0, self.delta_lgt)

    def student_tokens(self, budget: Any, teacher_flops: Any, teacher_tokens: Any) -> Any:
        """Return the tokens left for the student; negative if the budget does not pay for the teacher."""
        left = budget
        if self.delta_pre:
            left = budget - teacher_cost(teacher_flops, teacher_tokens, self.delta_pre)
        return np.minimum(left / self.per_token(teacher_flops), self.max_student_tokens)
