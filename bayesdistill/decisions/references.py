"""Probabilities under stored fits of several laws, for plans of a single fit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from bayesdistill import posterior
from bayesdistill.decisions import planning
from bayesdistill.decisions.fitted_draws import FittedDraws, gather
from bayesdistill.decisions.reductions import probability_by_law
from bayesdistill.law.predictive import Deviations
from bayesdistill.strategies import Problem, supervised_losses


@lru_cache(maxsize=8)
def references(seed: int = 0) -> FittedDraws:
    """Return the draws of the stored fits; the seed draws the discrepancy outside the data."""
    return gather(posterior.reference_fits(), seed=seed)


def reference_probabilities(
    planner: planning.Planner, problem: Problem, chosen: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return the probability that distillation with the chosen strategy beats pretraining under each law.

    Parameters
    ----------
    planner : Planner
    problem : Problem
    chosen : mapping
        The strategies chosen by the fit, from `solving.solve`.

    Returns
    -------
    ndarray
        (law, student, scenario, budget), in the order of the laws of `references`.
    """
    fitted = planner.limited(references(planner.seed))
    draws, teachers = fitted.draws, [chosen[name][..., None] for name in ("teacher_params", "teacher_tokens")]
    # An existing teacher has its measured loss.
    loss = draws.supervised_loss(*teachers) if problem.teachers is None else chosen["teacher_loss"][..., :1]
    distilled = draws.distilled_loss(problem.students[:, None, None, None], chosen["student_tokens"][..., None], loss)
    gain = supervised_losses(draws, problem)[:, None] - distilled
    deviations = None if planner.level == "law" else Deviations.draw(draws, planner.seed, planner.level)
    solved = {"student_tokens": chosen["student_tokens"], "teacher_loss": loss}
    return probability_by_law(fitted, planning.at_level(deviations, problem, gain, solved))
