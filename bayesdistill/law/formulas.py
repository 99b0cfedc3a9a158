r"""The formulas of the supervised and the distillation scaling law, one definition each.

The laws of Busbridge et al. (2025, arXiv:2502.08606), with N non-embedding parameters, D training tokens and L the
validation cross-entropy in nats per token:

.. math::

    L_\mathrm{sup}(N, D) &= E + \left(A N^{-\alpha} + B D^{-\beta}\right)^{\gamma}

    L_S &= L_T + L_T^{-c_0} \left(1 + (r / d_1)^{1/f_1}\right)^{-c_1 f_1}
           \left(A_S N_S^{-\alpha_S} + B_S D_S^{-\beta_S}\right)^{\gamma_S},
    \qquad r = L_T / L_\mathrm{sup}(N_S, D_S)

The second is their equation 8. The middle factor is the *capacity gap*: for a teacher much better than the student could be
by itself (small r) it is 1 and the student stays far above its teacher. As r grows the factor falls, and the student
approaches a teacher that is no better than itself. L_S as a function of L_T is therefore U-shaped.

All coefficients belong to one corpus, one tokenizer and one recipe: losses from another corpus are not comparable. The law
does not prevent a distilled student with unlimited data from beating the same student pretrained on the data itself, which
is impossible (docs/explanation/theory.md).

Every function uses operators and the small math namespace below, so that the same line accepts Python floats, numpy arrays,
xarray objects and PyTensor variables. The functions are pure, and no coefficient has a default. `terms` combines them into
the terms of a law.
"""

from __future__ import annotations

import sys
from types import MappingProxyType
from typing import Any

import numpy as np

PUBLISHED = MappingProxyType(
    {
        "E": 1.220,
        "A": 3355.0,
        "B": 18186.0,
        "alpha": 0.408,
        "beta": 0.431,
        "gamma": 0.452,
        "A_S": 1114.97,
        "B_S": 1830774.0,
        "alpha_S": 0.2881,
        "beta_S": 0.6310,
        "gamma_S": 0.7748,
        "c0": 2.4731,
        "c1": 1779080.0,
        "d1": 2.9784,
        "f1": 0.097267,
    }
)
"""Published values. Busbridge et al. (2025) print the six supervised ones; the nine of the distillation law are recovered from
the 20 curves of their Figure 1 (rms 3.3e-4 nats, worst 1.2e-3)."""
PUBLISHED_RANGE = MappingProxyType({"params": (1.43e8, 1.26e10), "tokens_per_param": (10.0, 160.0)})
"""Range of the runs of the published supervised law: non-embedding parameters, and tokens per parameter."""


# The math namespace -------------------------------------------------------------------------------------------------


def _is_symbolic(x: Any) -> bool:
    # Asked without importing PyTensor: an argument can only be symbolic if somebody else has imported it.
    pytensor = sys.modules.get("pytensor.graph.basic")
    return pytensor is not None and isinstance(x, pytensor.Variable)


def exp(x: Any) -> Any:
    """e to the power x."""
    return sys.modules["pytensor.tensor"].exp(x) if _is_symbolic(x) else np.exp(x)


def log(x: Any) -> Any:
    """Natural logarithm."""
    return sys.modules["pytensor.tensor"].log(x) if _is_symbolic(x) else np.log(x)


def log1p(x: Any) -> Any:
    """log(1 + x)."""
    return sys.modules["pytensor.tensor"].log1p(x) if _is_symbolic(x) else np.log1p(x)


def maximum(x: Any, y: Any) -> Any:
    """The larger of two values, elementwise."""
    return (sys.modules["pytensor.tensor"] if _is_symbolic(x) else np).maximum(x, y)


def softplus(x: Any) -> Any:
    """log(1 + e^x), without overflow for large x."""
    size = abs(x)
    return (x + size) / 2 + log1p(exp(-size))


# The laws -----------------------------------------------------------------------------------------------------------


def scaling_sum(params: Any, tokens: Any, A: Any, B: Any, alpha: Any, beta: Any) -> Any:
    """A / N^alpha + B / D^beta, the sum inside both laws.

    Written with exponentials of logarithms, so that an infinite N or D gives exactly 0 for its term.
    """
    return A * exp(-alpha * log(params)) + B * exp(-beta * log(tokens))


def supervised_loss(params: Any, tokens: Any, *, E: Any, A: Any, B: Any, alpha: Any, beta: Any, gamma: Any) -> Any:
    """Cross-entropy of a model pretrained from scratch.

    Parameters
    ----------
    params : float or array
        Non-embedding parameters N.
    tokens : float or array
        Training tokens D.
    E, A, B, alpha, beta, gamma : float or array
        Coefficients under the posterior's names. Everything broadcasts.

    Returns
    -------
    float or array
        Validation cross-entropy in nats per token.

    Notes
    -----
    Busbridge et al. (2025), the supervised scaling law; gamma = 1 is the form of Hoffmann et al. (2022).

    Examples
    --------
    >>> import bayesdistill as bd
    >>> law = {name: bd.PUBLISHED[name] for name in ("E", "A", "B", "alpha", "beta", "gamma")}
    >>> round(float(bd.supervised_loss(1e9, 2e10, **law)), 3)
    2.375
    """
    return E + exp(gamma * log(scaling_sum(params, tokens, A, B, alpha, beta)))


def log_student_term(params: Any, tokens: Any, *, A_S: Any, B_S: Any, alpha_S: Any, beta_S: Any, gamma_S: Any) -> Any:
    """gamma_S log(A_S / N_S^alpha_S + B_S / D_S^beta_S), the student's own part of its excess loss."""
    return gamma_S * log(scaling_sum(params, tokens, A_S, B_S, alpha_S, beta_S))


def log_gap(log_ratio: Any, *, c1: Any, d1: Any, f1: Any) -> Any:
    """Logarithm of the capacity-gap factor, (1 + (r/d1)^(1/f1))^(-c1 f1), at log r."""
    return -c1 * f1 * softplus((log_ratio - log(d1)) / f1)


def own_scale(ability: Any, irreducible: Any) -> tuple[Any, Any, Any]:
    """Return the student's quantities in the comparison with the teacher.

    Returns
    -------
    log_ability, stretch, log_above
        The logarithm of its ability, d ln r / d ln L_T, and the logarithm of ability minus `irreducible`.
    """
    above = ability - irreducible
    return log(ability), ability / above, log(above)


def log_ratio(teacher_loss: Any, log_ability: Any, stretch: Any) -> Any:
    """Logarithm of r, the teacher's loss divided by the student's ability; `own_scale` gives the student's part.

    If nothing is irreducible, the stretch is 1 and r = L_T / ability, as in equation 8. Otherwise losses above the irreducible
    part are compared. log(L_T - irreducible) is undefined for a teacher below that part, so we use its tangent in log L_T
    at a teacher as good as the student, which is defined for every teacher:

        log r = log(L_T / ability) ability / (ability - irreducible)
    """
    return (log(teacher_loss) - log_ability) * stretch


def teacher_axis(teacher_loss: Any, origin: float) -> Any:
    """Covariate of group slopes: ln(L_T / origin) / 0.1, in units of 10% of the teacher's loss.

    A slope over this axis is in nats and has no effect at `origin`. It is not part of the paper's law: the misfit of that law
    differs between student configurations and grows with the teacher's loss (docs/explanation/misfit.md).

    Parameters
    ----------
    teacher_loss : float or array
        Cross-entropy of the teacher in nats per token.
    origin : float
        Teacher loss at which slopes have no effect.
    """
    return (log(teacher_loss) - float(np.log(origin))) / 0.1
