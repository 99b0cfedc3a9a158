r"""The teachers worth looking at: a curve in the plane of teacher size and teacher tokens.

Whatever the loss of a student does with the loss of its teacher, a strategy can only be optimal if no cheaper teacher has the
same loss: the saving would buy student tokens, and these never raise the student's loss. On a level curve of

.. math:: L_T = E + (A N_T^{-\alpha} + B D_T^{-\beta})^\gamma

the teacher's charge :math:`F(N_T)(\delta_\mathrm{lgt} D_S + 3\,\delta_\mathrm{pre} D_T)` has one minimum, where

.. math::

    g(N_T)\, \beta B D_T^{-\beta} \left(1 + \frac{\kappa}{D_T}\right) = \alpha A N_T^{-\alpha},
    \qquad \kappa = \frac{\delta_\mathrm{lgt} D_S}{3\,\delta_\mathrm{pre}}, \quad
    g(N) = \frac{\mathrm{d} \log F}{\mathrm{d} \log N}

(the left side rises and the right side falls as N_T grows along the level curve, because g rises with N). So the search has
one dimension for any two shares:

- nothing charged, or pretraining only: kappa = 0, the compute-optimal curve of the teacher by itself;
- inference only: kappa is infinite, and the teacher takes all the tokens that its bound allows;
- both: what the budget leaves for D_S makes the condition an equation in log D_T alone, convex and falling, which Newton's
  method solves from the left.

A point of the curve is given by one number. From 0 to 1, log N_T runs from its lower to its upper bound and D_T follows from
the condition, clipped to its bounds. From -1 to 0 the smallest teacher's tokens rise from their lower bound to there; from 1
to 2 those of the largest rise to their upper bound. L_T falls and the teacher's charge rises all the way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesdistill.strategies.compiled import exp, flops_from_coefficients, inlined, log

FREE_TEACHER, COMPUTE_OPTIMAL, OVERTRAINED, BOTH_CHARGED = range(4)
"""How tokens follow from size: kappa = 0 without and with a charge, kappa infinite, and the equation."""
_CROWDING = 0.1


@inlined
def flops_and_slope(params: Any, k1: Any, k2: Any) -> Any:
    """F(N) and its logarithmic slope g = d log F / d log N.

    The weights, the attention and the output layer grow as N, N^(2/3) and N^(1/3).
    """
    weights = flops_from_coefficients(params, 0.0, 0.0)
    attention = flops_from_coefficients(params, k1, 0.0) - weights
    total = flops_from_coefficients(params, k1, k2)
    output = total - attention - weights
    return total, (weights + attention * (2 / 3) + output * (1 / 3)) / total


@inlined
def log_optimal_tokens(log_params: Any, slope: Any, A: Any, B: Any, alpha: Any, beta: Any) -> Any:
    """Logarithm of the D_T that makes a teacher of that size compute-optimal by itself (kappa = 0)."""
    return (log(beta * B * slope / (alpha * A)) + alpha * log_params) / beta


@inlined
def _newton(y: Any, log_optimal: Any, beta: Any, constant: Any, reach: Any) -> Any:
    near = reach * exp(-y)
    total = constant + near
    return y + (log(total) - beta * (y - log_optimal)) / (near / total + beta)


@inlined
def log_optimal_tokens_charged(log_optimal: Any, beta: Any, constant: Any, reach: Any) -> Any:
    """Logarithm of the D_T at which `constant + reach / D_T`, which is 1 + kappa/D_T, balances the condition.

    `log_optimal` is the solution for constant = 1 and reach = 0. Newton from the larger of the two solutions that one term
    alone would have: the function is convex and falls, so that every step stays left of the root and the error is squared.
    """
    y = max(log_optimal + log(constant) / beta, (beta * log_optimal + log(reach)) / (1 + beta))
    # Written out: a loop here would keep the compiler from turning the loop over draws into vector instructions.
    y = _newton(y, log_optimal, beta, constant, reach)
    y = _newton(y, log_optimal, beta, constant, reach)
    return _newton(y, log_optimal, beta, constant, reach)


@inlined
def log_teacher_tokens(t: Any, on_curve: Any, log_min_tokens: Any, log_max_tokens: Any) -> Any:
    """log D_T at t, when the condition alone would give `on_curve`."""
    clipped = min(max(on_curve, log_min_tokens), log_max_tokens)
    below = min(t, 0.0) * (clipped - log_min_tokens)
    above = max(t - 1.0, 0.0) * (log_max_tokens - clipped)
    return min(max(clipped + below + above, log_min_tokens), log_max_tokens)


def grid(points: int, end_points: int, parts: int, log_min_params: float, log_max_params: float) -> np.ndarray:
    """Values of t for a look at the curve: `points` along the sizes, `end_points` on each of its two ends, and the cells
    between them divided into so many parts.

    They stand closer where teachers are small, so that neighbours differ about equally in log L_T.
    """
    width = log_max_params - log_min_params
    if width > 0:
        along = np.log1p(np.linspace(0.0, np.expm1(width * _CROWDING), points)) / (width * _CROWDING)
        along[0], along[-1] = 0.0, 1.0
    else:
        along = np.array([0.0, 1.0])
    ends = np.linspace(0.0, 1.0, end_points + 1)
    coarse = np.concatenate([ends[:-1] - 1, along, ends[1:] + 1])
    fractions = np.arange(parts) / parts
    return np.append((coarse[:-1, None] + np.diff(coarse)[:, None] * fractions).ravel(), coarse[-1])
