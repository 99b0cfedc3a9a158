r"""The supervised law, E + (A / N^alpha + B / D^beta)^gamma, and its coordinates.

The natural parameters make NUTS slow: A and alpha trade off over many orders of magnitude. The coordinates describe the law
at the reference run (N0 parameters, D0 tokens), where the data are. With :math:`\varsigma` the logistic function,
:math:`S_0 = A N_0^{-\alpha} + B D_0^{-\beta}` and :math:`L_0 = E + S_0^\gamma` the loss of the reference run:

.. math::

    \mathrm{log\_loss} = \ln L_0,\quad \varsigma(\mathrm{reducible}) = S_0^\gamma / L_0,\quad
    \varsigma(\mathrm{share}) = A N_0^{-\alpha} / S_0,\quad
    e_N = \gamma\alpha\,\varsigma(\mathrm{share}),\quad e_D = \gamma\beta\,\varsigma(-\mathrm{share})

so that e_N and e_D are the elasticities of the excess loss with respect to size and tokens. Runs determine L_0 far better than
how much of it is E; with E and the excess as coordinates the posterior would be a thin curved ridge.

Coefficients in units of the reference run, such as A / N0^alpha, belong to sizes and tokens measured in units of N0 and D0.
The law is the same function in these units, and no intermediate number overflows unless T0 is far above the loss of the
reference run.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from bayesdistill.law.formulas import exp, log, softplus
from bayesdistill.law.parameters import Coordinate, Parameter, Reference, log_normal, log_sigmoid, normal
from bayesdistill.law.term import AtReference, Term, Values

SUM = ("A", "B", "alpha", "beta", "gamma")
"""Symbols of a power sum (A / N^alpha + B / D^beta)^gamma."""


def power_sum_parameters(
    unit: str, suffix: str, law: str, model: str, power: str = "The power of the sum."
) -> tuple[Parameter, ...]:
    """Return the symbols of the power sum of a law, whose names end in `suffix`; `unit` precedes that of the powers."""
    A, B, alpha, beta, gamma = (f"{name}{suffix}" for name in SUM)
    positive = functools.partial(Parameter, domain="positive")
    of_law = f"of the {law} law"
    return (
        positive(
            A,
            f"{unit}parameters^{alpha}",
            f"size coefficient {of_law}",
            f"How much a limited size costs {model}.",
            per=("params", alpha),
        ),
        positive(
            B,
            f"{unit}tokens^{beta}",
            f"token coefficient {of_law}",
            f"How much limited data cost {model}.",
            per=("tokens", beta),
            unlimited=0.0,
        ),
        positive(alpha, "1", f"size exponent {of_law}", "How fast the size term falls with size."),
        positive(beta, "1", f"token exponent {of_law}", "How fast the token term falls with tokens.", unlimited=0.0),
        positive(gamma, "1", f"outer exponent {of_law}", power),
    )


def power_sum(log_excess: Any, share: Any, log_eN: Any, log_eD: Any, log_gamma: Any) -> dict[str, Any]:
    """Coefficients, in units of the reference run, of a power sum whose gamma-th power is exp(log_excess) there."""
    gamma = exp(log_gamma)
    log_sum = log_excess / gamma
    return {
        "A": exp(log_sum + log_sigmoid(share)),
        "B": exp(log_sum + log_sigmoid(-share)),
        "alpha": exp(log_eN - log_gamma - log_sigmoid(share)),
        "beta": exp(log_eD - log_gamma - log_sigmoid(-share)),
        "gamma": gamma,
    }


def log_sum_terms(p: Mapping[str, Any], reference: Reference) -> tuple[Any, Any]:
    """Logarithms of the size term and of the token term of a power sum at the reference run."""
    return (
        log(p["A"]) - p["alpha"] * log(reference.params),
        log(p["B"]) - p["beta"] * log(reference.tokens),
    )


def power_sum_coordinates(p: Mapping[str, Any], reference: Reference) -> dict[str, Any]:
    """Share, elasticities and log gamma of a power sum; the inverse of `power_sum`."""
    size, data = log_sum_terms(p, reference)
    return {
        "share": size - data,
        "log_elasticity_params": log(p["alpha"]) + log(p["gamma"]) + log_sigmoid(size - data),
        "log_elasticity_tokens": log(p["beta"]) + log(p["gamma"]) + log_sigmoid(data - size),
        "log_gamma": log(p["gamma"]),
    }


def _symbols(c: Values, p: Values, at: Any) -> dict[str, Any]:
    log_excess = c["log_loss"] + log_sigmoid(c["reducible"])
    rest = power_sum(log_excess, c["share"], c["log_elasticity_params"], c["log_elasticity_tokens"], c["log_gamma"])
    return {"E": exp(c["log_loss"] + log_sigmoid(-c["reducible"])), **rest}


def _coordinates_of(p: Values, at: AtReference) -> dict[str, Any]:
    size, data = log_sum_terms(p, at.reference)
    reducible = p["gamma"] * (size + softplus(data - size)) - log(p["E"])
    return {
        "log_loss": log(p["E"]) + softplus(reducible),
        "reducible": reducible,
        **power_sum_coordinates(p, at.reference),
    }


EITHER_SHARE = normal(0.0, 1.5, "logit(share of the excess due to size)", "either of size and tokens may be short")

SUPERVISED = Term(
    name="supervised",
    sentence="Pretrained models follow the supervised scaling law.",
    kind="supervised",
    parameters=(
        Parameter(
            "E",
            "nats per token",
            "irreducible loss of the supervised law",
            "Loss with unlimited size and data.",
            domain="positive",
        ),
        *power_sum_parameters(
            "nats^(1/gamma) ",
            "",
            "supervised",
            "a pretrained model",
            "The power of the sum; 1 is the form of Hoffmann et al. (2022).",
        ),
    ),
    coordinates=(
        Coordinate(
            "log_loss",
            "the supervised loss of a middling run",
            log_normal(
                2.5,
                0.45,
                "L at the reference run",
                "loss of a middling run: 1.0 to 6.1 nats per token at two standard deviations, bytes to words",
            ),
        ),
        Coordinate(
            "reducible",
            "the irreducible loss",
            normal(
                -0.6,
                1.1,
                "logit((L - E)/L at the reference run)",
                "training can still remove 6 to 83 % of that loss, the rest is the entropy of text",
            ),
        ),
        Coordinate("share", "what size and tokens each do to the supervised loss", EITHER_SHARE),
        Coordinate(
            "log_elasticity_params",
            "how fast the supervised loss falls with size",
            log_normal(
                0.12, 0.7, "elasticity in N", "published laws have 0.1 to 0.16; a factor of 4 either way is possible"
            ),
        ),
        Coordinate(
            "log_elasticity_tokens",
            "how fast the supervised loss falls with tokens",
            log_normal(0.2, 0.7, "elasticity in D", "published laws have 0.08 to 0.2; a factor of 4 either way"),
        ),
        Coordinate(
            "log_gamma",
            "the supervised law's outer exponent",
            log_normal(
                0.7, 0.4, "gamma", "between the form of Hoffmann et al. (1) and that of Busbridge et al. (0.45)"
            ),
            symbol="gamma",
            link="log",
        ),
    ),
    symbols=_symbols,
    coordinates_of=_coordinates_of,
)
