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

from collections.abc import Mapping
from typing import Any

from bayesdistill.law.formulas import exp, log, softplus
from bayesdistill.law.parameters import Reference, declared, log_sigmoid
from bayesdistill.law.term import AtReference, Term, Values

SUM = ("A", "B", "alpha", "beta", "gamma")
"""Symbols of a power sum (A / N^alpha + B / D^beta)^gamma."""


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


SUPERVISED = Term(**declared("supervised"), kind="supervised", symbols=_symbols, coordinates_of=_coordinates_of)
