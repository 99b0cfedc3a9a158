r"""The coordinates in which the law is sampled, and the way to and from the paper's own symbols.

The natural parameters of the law make NUTS crawl: A and alpha trade off over many orders of magnitude, and for large c1 only
c1 f1 d1^(-1/f1) matters. The coordinates say instead what the law does at a *reference run* (N0 parameters, D0 tokens, teacher
loss T0), where the data are: how large the excess loss is, which share of it is due to size, how fast it falls with size and
with tokens, how strong the capacity gap is for a teacher no better than the student, and how fast it changes there. Each is a
number that one can have an opinion about before seeing any run, and the data determine them nearly independently.

Supervised law, with :math:`\varsigma` the logistic function, :math:`S_0 = A N_0^{-\alpha} + B D_0^{-\beta}` and
:math:`L_0 = E + S_0^\gamma` the loss of the reference run:

.. math::

    \mathrm{log\_loss} = \ln L_0,\quad \varsigma(\mathrm{reducible}) = S_0^\gamma / L_0,\quad
    \varsigma(\mathrm{share}) = A N_0^{-\alpha} / S_0,\quad
    e_N = \gamma\alpha\,\varsigma(\mathrm{share}),\quad e_D = \gamma\beta\,\varsigma(-\mathrm{share})

so that e_N and e_D are the elasticities of the excess loss with respect to size and tokens. Runs fix L_0 far better than how
much of it is E; with E and the excess as coordinates the posterior would be a thin curved ridge. Distillation law: the same for
its own power sum, with log_excess_S, the logarithm of L_S - L_T at the reference run, in place of the first two, and for the gap
:math:`G(r) = c_1 f_1 \ln(1 + u r^{1/f_1})`, :math:`u = d_1^{-1/f_1}`: its strength s = G(1), its slope
:math:`k = dG/d\ln r` at r = 1, and u itself, which says how far the gap is from a pure power of r (u = 0).

With kappa and omega in the law, the gap's three coordinates stay what it does to a teacher no better than the student of the reference
run pretrained on its tokens (in equation 8 that is r = 1), with the slope by ln L_T, and teacher_power is the power of L_T there (in
equation 8 it is c0): runs fix what a better teacher does to a student's loss, whatever r is.

The distillation law's power sum may be tied to the supervised law's. Then alpha_S = alpha, beta_S = beta, size and tokens have the
shares that they have in the student's ability, and of the four coordinates of the sum there is one left, the logarithm of
gamma_S / gamma: the excess is a power of the student's own reducible loss, times what the teacher does.

Coefficients *at the reference* (`A_ref` = A / N0^alpha, ...) belong to sizes and tokens measured in units of N0 and D0. The law is
the same function in these units, and no intermediate number overflows unless T0 is far above the loss of the reference run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesdistill.laws import (
    EXTENSIONS,
    SUPERVISED_PARAMETERS,
    asymptotic_advantage,
    exp,
    log,
    log1p,
    log_gap,
    log_ratio,
    log_student_term,
    own_scale,
    softplus,
    supervised_loss,
)

SUPERVISED_COORDINATES = (
    "log_loss",
    "reducible",
    "share",
    "log_elasticity_params",
    "log_elasticity_tokens",
    "log_gamma",
)
DISTILLATION_COORDINATES = (
    "log_excess_S",
    "share_S",
    "log_elasticity_params_S",
    "log_elasticity_tokens_S",
    "log_gamma_S",
    "teacher_power",
    "log_gap_strength",
    "log_gap_slope",
    "gap_curvature",
)
OWN_SUM_COORDINATES = ("share_S", "log_elasticity_params_S", "log_elasticity_tokens_S", "log_gamma_S")
"""Those of the distillation law's power sum, for which `log_power_S` stands where it is tied to the supervised law's."""
NOISE_COORDINATES = ("log_sigma", "log_nu")

CURVATURE_SCALE = 0.03
"""u = CURVATURE_SCALE softplus(gap_curvature): beyond about 0.03 the gap visibly bends away from a power of r."""

ASYMPTOTIC_SIZES = (1e8, 3e8, 1e9, 3e9, 1e10, 3e10)
"""Students in whose mean square the lead with unlimited data is measured, when the reference run has 5e8 parameters; scaled with it."""


@dataclass(frozen=True)
class Reference:
    """The run around which the coordinates are centred.

    Parameters
    ----------
    params : float
        Non-embedding parameters N0.
    tokens : float
        Tokens D0.
    teacher_loss : float
        Cross-entropy T0 of the teacher in nats per token; unused by the supervised law alone.
    """

    params: float
    tokens: float
    teacher_loss: float


def _log_sigmoid(x: Any) -> Any:
    return -softplus(-x)


def _power_sum(log_excess: Any, share: Any, log_eN: Any, log_eD: Any, log_gamma: Any) -> dict[str, Any]:
    """Coefficients at the reference of a power sum whose gamma-th power is exp(log_excess) there."""
    gamma = exp(log_gamma)
    log_sum = log_excess / gamma
    return {
        "A_ref": exp(log_sum + _log_sigmoid(share)),
        "B_ref": exp(log_sum + _log_sigmoid(-share)),
        "alpha": exp(log_eN - log_gamma - _log_sigmoid(share)),
        "beta": exp(log_eD - log_gamma - _log_sigmoid(-share)),
        "gamma": gamma,
    }


def _tied_sum(log_excess: Any, log_power: Any, supervised: Mapping[str, Any], kappa: Any) -> dict[str, Any]:
    """Coefficients of a power sum that is a multiple of the one in the student's ability.

    Its gamma-th power is then, up to a factor, the power exp(log_power) of what the ability has above E.
    """
    gamma = exp(log_power) * supervised["gamma"]
    tokens = supervised["B_ref"] * exp(-supervised["beta"] * log(kappa))
    multiple = exp(log_excess / gamma - log(supervised["A_ref"] + tokens))
    return {
        "A_ref": multiple * supervised["A_ref"],
        "B_ref": multiple * tokens,
        "alpha": supervised["alpha"],
        "beta": supervised["beta"],
        "gamma": gamma,
    }


def supervised_at_reference(c: Mapping[str, Any]) -> dict[str, Any]:
    """Coefficients of the supervised law at the reference: E, A_ref, B_ref, alpha, beta, gamma."""
    log_excess = c["log_loss"] + _log_sigmoid(c["reducible"])
    law = _power_sum(log_excess, c["share"], c["log_elasticity_params"], c["log_elasticity_tokens"], c["log_gamma"])
    return {"E": exp(c["log_loss"] + _log_sigmoid(-c["reducible"])), **law}


def extensions(c: Mapping[str, Any]) -> dict[str, Any]:
    """Those of w1, kappa and omega that the coordinates have."""
    found = {}
    if "logit_w1" in c:
        found["w1"] = exp(_log_sigmoid(c["logit_w1"]))
    if "log_kappa" in c:
        found["kappa"] = exp(c["log_kappa"])
    if "logit_omega" in c:
        found["omega"] = exp(_log_sigmoid(c["logit_omega"]))
    if "omega" in c:  # fixed
        found["omega"] = c["omega"]
    return found


def distillation_at_reference(
    c: Mapping[str, Any], supervised: Mapping[str, Any], reference: Reference
) -> dict[str, Any]:
    """Coefficients of the distillation law at the reference: A_S_ref, B_S_ref, alpha_S, ..., c0, c1, d1, f1.

    Parameters
    ----------
    c : mapping
        Values of DISTILLATION_COORDINATES, and of what `extensions` reads.
    supervised : mapping
        What `supervised_at_reference` returned: the gap at the reference run depends on it.
    reference : Reference
    """
    u = CURVATURE_SCALE * softplus(c["gap_curvature"])
    further = {**EXTENSIONS, **extensions(c)}
    ability, irreducible = _loss_at_one(supervised, further["kappa"]), further["omega"] * supervised["E"]
    log_ability, stretch, log_above = own_scale(ability, irreducible)
    strength, slope, c0 = exp(c["log_gap_strength"]), exp(c["log_gap_slope"]) / stretch, c["teacher_power"] / stretch
    alone = log_ratio(_loss_at_one(supervised, 1.0), log_ability, stretch)
    f1 = strength / slope * u / ((1 + u) * log1p(u))
    gap = {"c1": strength / (f1 * log1p(u)), "d1": exp(alone - f1 * log(u)), "f1": f1}
    ratio = log_ratio(reference.teacher_loss, log_ability, stretch)
    log_excess = c["log_excess_S"] - log_gap(ratio, **gap) + c0 * (log_above + ratio)
    if "log_power_S" in c:
        law = _tied_sum(log_excess, c["log_power_S"], supervised, further["kappa"])
    else:
        law = _power_sum(log_excess, *(c[name] for name in OWN_SUM_COORDINATES))
    return {
        "A_S_ref": law["A_ref"],
        "B_S_ref": law["B_ref"],
        "alpha_S": law["alpha"],
        "beta_S": law["beta"],
        "gamma_S": law["gamma"],
        "c0": c0,
        **gap,
    }


def law_at_reference(c: Mapping[str, Any], reference: Reference) -> dict[str, Any]:
    """Coefficients at the reference of all that the coordinates say of the law: both laws, and what `extensions` reads."""
    law = supervised_at_reference(c)
    if "teacher_power" in c:
        law |= distillation_at_reference(c, law, reference) | extensions(c)
    return law


def asymptotic_leads(law: Mapping[str, Any]) -> Any:
    """Leads of distillation with unlimited data, (size,), in nats, of the students that the asymptotic prior looks at.

    Parameters
    ----------
    law : mapping
        Coefficients at the reference, as `law_at_reference` returns them.
    """
    # In units of the reference, so that the same students stand around a reference of any size.
    sizes = np.array(ASYMPTOTIC_SIZES) / 5e8
    names = ("E", "alpha", "gamma", "alpha_S", "gamma_S", "c0", "c1", "d1", "f1", "omega")
    return asymptotic_advantage(
        sizes, A=law["A_ref"], A_S=law["A_S_ref"], **{name: law[name] for name in names if name in law}
    )


def _loss_at_one(supervised: Mapping[str, Any], tokens: Any) -> Any:
    """Loss of the reference run's student, which has one unit of parameters, pretrained on so many of the run's tokens."""
    law = {name: supervised[name] for name in ("E", "alpha", "beta", "gamma")}
    return supervised_loss(1.0, tokens, A=supervised["A_ref"], B=supervised["B_ref"], **law)


def natural_parameters(at_reference: Mapping[str, Any], reference: Reference) -> dict[str, Any]:
    """The paper's own symbols, A = A_ref N0^alpha and so on, from coefficients at the reference."""
    result = {}
    for name, value in at_reference.items():
        if not name.endswith("_ref"):
            result[name] = value
            continue
        symbol = name.removesuffix("_ref")
        unit, exponent = (reference.params, "alpha") if symbol.startswith("A") else (reference.tokens, "beta")
        suffix = "_S" if symbol.endswith("_S") else ""
        result[symbol] = exp(log(value) + at_reference[exponent + suffix] * log(unit))
    return result


def supervised_coordinates(law: Mapping[str, Any], reference: Reference) -> dict[str, Any]:
    """Coordinates of a supervised law given in the paper's symbols; the inverse of `supervised_at_reference`."""
    size = log(law["A"]) - law["alpha"] * log(reference.params)
    data = log(law["B"]) - law["beta"] * log(reference.tokens)
    reducible = law["gamma"] * (size + softplus(data - size)) - log(law["E"])
    return {
        "log_loss": log(law["E"]) + softplus(reducible),
        "reducible": reducible,
        "share": size - data,
        "log_elasticity_params": log(law["alpha"]) + log(law["gamma"]) + _log_sigmoid(size - data),
        "log_elasticity_tokens": log(law["beta"]) + log(law["gamma"]) + _log_sigmoid(data - size),
        "log_gamma": log(law["gamma"]),
    }


def distillation_coordinates(law: Mapping[str, Any], reference: Reference) -> dict[str, Any]:
    """Coordinates of a distillation law given in the paper's symbols; the inverse of `distillation_at_reference`."""
    own = {name: law[name + "_S"] for name in ("A", "B", "alpha", "beta", "gamma")}
    power = supervised_coordinates({"E": 1.0, **own}, reference)
    further = {**EXTENSIONS, **{name: law[name] for name in EXTENSIONS if name in law}}
    alone, ability = (
        supervised_loss(
            reference.params, tokens * reference.tokens, **{name: law[name] for name in SUPERVISED_PARAMETERS}
        )
        for tokens in (1.0, further["kappa"])
    )
    log_ability, stretch, log_above = own_scale(ability, further["omega"] * law["E"])
    ratio = log_ratio(reference.teacher_loss, log_ability, stretch)
    log_u = (log_ratio(alone, log_ability, stretch) - log(law["d1"])) / law["f1"]
    u = exp(log_u)
    strength = law["c1"] * law["f1"] * log1p(u)
    gap = {name: law[name] for name in ("c1", "d1", "f1")}
    term = log_student_term(reference.params, reference.tokens, **{name + "_S": value for name, value in own.items()})
    # softplus^-1(y) = log(e^y - 1), which for small y is log(y) + y/2.
    scaled = u / CURVATURE_SCALE
    return {
        "log_excess_S": term + log_gap(ratio, **gap) - law["c0"] * (log_above + ratio),
        "share_S": power["share"],
        "log_elasticity_params_S": power["log_elasticity_params"],
        "log_elasticity_tokens_S": power["log_elasticity_tokens"],
        "log_gamma_S": power["log_gamma"],
        "teacher_power": law["c0"] * stretch,
        "log_gap_strength": log(strength),
        "log_gap_slope": log(law["c1"] * u / (1 + u)) + log(stretch),
        "gap_curvature": log(scaled) + log((exp(scaled) - 1) / scaled),
    }
