r"""The supervised and the distillation scaling law: one home for each formula.

The laws of Busbridge et al. (2025, arXiv:2502.08606), with N non-embedding parameters, D training tokens and L the
validation cross-entropy in nats per token:

.. math::

    L_\mathrm{sup}(N, D) &= E + \left(A N^{-\alpha} + B D^{-\beta}\right)^{\gamma}

    L_S &= L_T + L_T^{-c_0} \left(1 + (r / d_1)^{1/f_1}\right)^{-c_1 f_1}
           \left(A_S N_S^{-\alpha_S} + B_S D_S^{-\beta_S}\right)^{\gamma_S},
    \qquad r = L_T / L_\mathrm{sup}(N_S, D_S)

The second is their equation 8. The middle factor is the *capacity gap*: for a teacher much better than the student could
be by itself (r small) it is 1 and the student stays far above its teacher; as r grows it falls, and the student comes close
to a teacher that is no better than itself. L_S against L_T is therefore U-shaped.

What the package adds, with equation 8 as the case w1 = 0, kappa = 1, omega = 0: the student recovers the share w1 of what a teacher
worse than itself would cost it; r compares the teacher with Lsup(N_S, kappa D_S), the student's *ability*; and the losses compared
are those above omega E (`log_ratio`).

What the laws assume, and where they fail. One corpus, one tokenizer and one recipe stand behind every coefficient: a loss
from another corpus is not comparable. Nothing in the law keeps a distilled student with unlimited data from beating the same student
trained on the data itself, which cannot be (see docs/explanation/model.md).

Every function is written in operators and in the few functions of the math namespace below, so that Python floats, numpy
arrays, xarray objects and PyTensor variables pass through the same line; `strategies` compiles the same functions for its
inner loops. They are pure: nothing is read but the arguments, and no coefficient has a default.
"""

from __future__ import annotations

import sys
from types import MappingProxyType
from typing import Any

import numpy as np

SUPERVISED_PARAMETERS = ("E", "A", "B", "alpha", "beta", "gamma")
DISTILLATION_PARAMETERS = ("A_S", "B_S", "alpha_S", "beta_S", "gamma_S", "c0", "c1", "d1", "f1")
LAW_PARAMETERS = SUPERVISED_PARAMETERS + DISTILLATION_PARAMETERS
EXTENSIONS = MappingProxyType({"w1": 0.0, "kappa": 1.0, "omega": 0.0})
"""Parameters beyond equation 8, with the values for which the law is equation 8."""
EXTENSION_PARAMETERS = tuple(EXTENSIONS)

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
"""Published values. The supervised six are printed by Busbridge et al. (2025); the distillation nine are recovered from
the 20 curves that their Figure 1 draws (rms 3.3e-4 nats, worst 1.2e-3)."""


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


def softplus(x: Any) -> Any:
    """log(1 + e^x), without overflow for large x."""
    return (x + abs(x)) / 2 + log1p(exp(-abs(x)))


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
    """gamma_S log(A_S / N_S^alpha_S + B_S / D_S^beta_S): what the student's own size and tokens do to its excess loss."""
    return gamma_S * log(scaling_sum(params, tokens, A_S, B_S, alpha_S, beta_S))


def log_gap(log_ratio: Any, *, c1: Any, d1: Any, f1: Any) -> Any:
    """Logarithm of the capacity-gap factor, (1 + (r/d1)^(1/f1))^(-c1 f1), at log r."""
    return -c1 * f1 * softplus((log_ratio - log(d1)) / f1)


def own_scale(ability: Any, irreducible: Any) -> tuple[Any, Any, Any]:
    """What the capacity gap asks of the student.

    Returns
    -------
    log_ability, stretch, log_above
        The logarithm of its ability, how much faster the logarithm of r changes than that of L_T, and the logarithm of what the
        ability has above `irreducible`.
    """
    above = ability - irreducible
    return log(ability), ability / above, log(above)


def log_ratio(teacher_loss: Any, log_ability: Any, stretch: Any) -> Any:
    """Logarithm of r, of which `own_scale` gives the student's part.

    With nothing irreducible the stretch is 1 and r = L_T / ability, as in equation 8. Otherwise losses are compared by what they have
    above it. For log(L_T - irreducible), which a teacher below it does not have, stands its tangent in log L_T at a teacher as good
    as the student, which every teacher has:

        log r = log(L_T / ability) ability / (ability - irreducible)
    """
    return (log(teacher_loss) - log_ability) * stretch


def distilled_loss_from_terms(
    log_excess: Any,
    supervised: Any,
    log_ability: Any,
    stretch: Any,
    teacher_loss: Any,
    *,
    c0: Any,
    c1: Any,
    d1: Any,
    f1: Any,
    w1: Any = EXTENSIONS["w1"],
) -> Any:
    """The law from the student's parts and a teacher, so that a caller with many teachers per student computes the former once.

    Parameters
    ----------
    log_excess : float or array
        `log_student_term` less c0 times the last of `own_scale`: the excess at r = 1, but for the gap.
    supervised : float or array
        Loss of the student pretrained on its tokens. With w1 > 0 the student recovers the share w1 of what a teacher worse than
        that would cost it.
    log_ability, stretch : float or array
        The first two of `own_scale`.
    teacher_loss : float or array
    c0, c1, d1, f1, w1 : float or array
    """
    ratio = log_ratio(teacher_loss, log_ability, stretch)
    gap = log_gap(ratio, c1=c1, d1=d1, f1=f1)
    own_lead = teacher_loss - supervised
    recovered = w1 * (own_lead + abs(own_lead)) / 2
    return teacher_loss - recovered + exp(gap - c0 * ratio + log_excess)


def distilled_loss(
    student_params: Any,
    student_tokens: Any,
    teacher_loss: Any,
    *,
    E: Any,
    A: Any,
    B: Any,
    alpha: Any,
    beta: Any,
    gamma: Any,
    A_S: Any,
    B_S: Any,
    alpha_S: Any,
    beta_S: Any,
    gamma_S: Any,
    c0: Any,
    c1: Any,
    d1: Any,
    f1: Any,
    w1: Any = EXTENSIONS["w1"],
    kappa: Any = EXTENSIONS["kappa"],
    omega: Any = EXTENSIONS["omega"],
) -> Any:
    """Cross-entropy of a student distilled from a teacher.

    Parameters
    ----------
    student_params : float or array
        Non-embedding parameters N_S of the student.
    student_tokens : float or array
        Tokens D_S that the student is distilled on.
    teacher_loss : float or array
        Cross-entropy L_T of the teacher in nats per token.
    E, A, B, alpha, beta, gamma : float or array
        The supervised law, through which the student's own ability enters.
    A_S, B_S, alpha_S, beta_S, gamma_S, c0, c1, d1, f1 : float or array
        The distillation law. Everything broadcasts.
    w1 : float or array
        Share of max(L_T - Lsup, 0), what a teacher worse than the student alone would cost it, that the student recovers;
        0 is equation 8, which cannot go below L_T.
    kappa : float or array
        How many tokens of pretraining one token of distillation is worth for the student's ability: in r stands
        Lsup(N_S, kappa D_S). 1 is equation 8. With unlimited data kappa does nothing.
    omega : float or array
        Share of E, which no student can lose, that the capacity gap takes off the losses that it compares: r and the power of
        L_T are of losses less omega E (see `log_ratio`). 0 is equation 8, 1 a comparison of reducible losses.

    Returns
    -------
    float or array
        Validation cross-entropy in nats per token.

    Notes
    -----
    Busbridge et al. (2025), equation 8.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> round(float(bd.distilled_loss(5.46e8, 1.207e10, 2.18485, **bd.PUBLISHED)), 3)
    2.432
    """
    supervised = supervised_loss(student_params, student_tokens, E=E, A=A, B=B, alpha=alpha, beta=beta, gamma=gamma)
    term = log_student_term(
        student_params, student_tokens, A_S=A_S, B_S=B_S, alpha_S=alpha_S, beta_S=beta_S, gamma_S=gamma_S
    )
    ability = supervised_loss(
        student_params, kappa * student_tokens, E=E, A=A, B=B, alpha=alpha, beta=beta, gamma=gamma
    )
    log_ability, stretch, log_above = own_scale(ability, omega * E)
    return distilled_loss_from_terms(
        term - c0 * log_above, supervised, log_ability, stretch, teacher_loss, c0=c0, c1=c1, d1=d1, f1=f1, w1=w1
    )


def teacher_axis(teacher_loss: Any, origin: float) -> Any:
    """Where a teacher stands for shifts that grow with its loss: ln(L_T / origin) / 0.1.

    A slope over this axis is in nats per 10 % of the teacher's loss, and does nothing at `origin`. Not of the paper: what its
    law misses differs from one student configuration to the next and grows with the teacher's loss (docs/explanation/misfit.md).

    Parameters
    ----------
    teacher_loss : float or array
        Cross-entropy of the teacher in nats per token.
    origin : float
        The same of the teacher at which there is no shift.
    """
    return (log(teacher_loss) - float(np.log(origin))) / 0.1


ASYMPTOTIC_TEACHERS = np.linspace(0.0, 1.2, 41)
"""Teachers that `asymptotic_advantage` tries, as shares of the student's own reducible loss: 0 is a perfect teacher (loss
E), 1 one that is no better than the student with unlimited data. The optimum lies between; steps of 3 % put the minimum
within 5e-4 nats."""


def asymptotic_advantage(
    params: Any,
    *,
    E: Any,
    A: Any,
    alpha: Any,
    gamma: Any,
    A_S: Any,
    alpha_S: Any,
    gamma_S: Any,
    c0: Any,
    c1: Any,
    d1: Any,
    f1: Any,
    omega: Any = EXTENSIONS["omega"],
) -> Any:
    """How far the best distilled student with unlimited data is ahead of the same student pretrained with unlimited data.

    A student that has seen unlimited data of the true distribution minimises the very loss by which both are judged, so
    that theory says <= 0 for every student. Equation 8 does not enforce it.

    Parameters
    ----------
    params : float or array, (...)
        Non-embedding parameters of the student.
    E, A, alpha, gamma, A_S, alpha_S, gamma_S, c0, c1, d1, f1, omega : float or array, (...)
        Coefficients; those of the token terms drop out, and kappa with them. Everything broadcasts.

    Returns
    -------
    array, (...)
        Lsup(N, inf) - min over L_T of L_S(N, inf, L_T), in nats per token.
    """
    nothing = {"B": 0.0, "beta": 0.0}
    supervised = supervised_loss(params, 1.0, E=E, A=A, alpha=alpha, gamma=gamma, **nothing)
    term = log_student_term(params, 1.0, A_S=A_S, alpha_S=alpha_S, gamma_S=gamma_S, B_S=0.0, beta_S=0.0)
    teacher_loss = supervised[..., None] - (supervised - E)[..., None] * (1 - ASYMPTOTIC_TEACHERS)
    zero = 0 * supervised
    gap = {"c0": (c0 + zero)[..., None], "c1": (c1 + zero)[..., None]}
    gap |= {"d1": (d1 + zero)[..., None], "f1": (f1 + zero)[..., None]}
    log_ability, stretch, log_above = (part[..., None] for part in own_scale(supervised, omega * E + zero))
    log_excess = term[..., None] - gap["c0"] * log_above
    distilled = distilled_loss_from_terms(log_excess, supervised[..., None], log_ability, stretch, teacher_loss, **gap)
    return supervised - distilled.min(axis=-1)
