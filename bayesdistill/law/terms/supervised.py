r"""The supervised law, E + (A / N^alpha + B / D^beta)^gamma, and its coordinates.

The natural coefficients make NUTS slow: A and alpha trade off over many orders of magnitude. The logarithms of the exponents are
coordinates; the others describe the law at the reference run (N0 parameters, D0 tokens), where the data are. With :math:`\varsigma`
the logistic function, :math:`S_0 = A N_0^{-\alpha} + B D_0^{-\beta}`, :math:`L_0 = E + S_0^\gamma` the loss of the reference run,
:math:`R = S_0^\gamma / L_0` its reducible fraction and :math:`x = \ln(S_0^\gamma / E)`, so that :math:`R = \varsigma(x)`:

.. math::

    \mathrm{log\_loss} = \ln L_0,\quad
    \mathrm{log\_size\_term} = x + \ln\frac{A N_0^{-\alpha}}{S_0},\quad
    \mathrm{log\_token\_term} = x + \ln\frac{B D_0^{-\beta}}{S_0}

    \mathrm{log\_gamma} = \ln \gamma + \ln R - t,\quad
    t = \ln\varsigma(m) + \varsigma(-m)\,(x - m)

with t the tangent of :math:`\ln R` at a typical value m of x, so that log_gamma is :math:`\ln \gamma` for a typical :math:`R`. Runs
determine :math:`\alpha`, :math:`\beta`, the two terms and :math:`\gamma R`, the elasticity of the loss with respect to :math:`S`, far
better than :math:`\gamma` or E. With :math:`\ln \gamma` as coordinate, the posterior would be a thin ridge that is curved where E is
small; the ridge :math:`\gamma R` = constant is a straight line in these coordinates.

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

_DECLARED = declared("supervised")
_LOCATION = {coordinate.name: coordinate.prior.location for coordinate in _DECLARED["coordinates"]}


def _log_add(x: Any, y: Any) -> Any:
    return x + softplus(y - x)


_TYPICAL = _log_add(_LOCATION["log_size_term"], _LOCATION["log_token_term"])
"""ln((L - E) / E) of a typical law at the reference run."""


def power_sum(log_excess: Any, share: Any, gamma: Any) -> dict[str, Any]:
    """Coefficients, in units of the reference run, of a power sum whose gamma-th power is exp(log_excess) there."""
    log_sum = log_excess / gamma
    return {"A": exp(log_sum + log_sigmoid(share)), "B": exp(log_sum + log_sigmoid(-share))}


def log_sum_terms(p: Mapping[str, Any], reference: Reference) -> tuple[Any, Any]:
    """Logarithms of the size term and of the token term of a power sum at the reference run."""
    return (
        log(p["A"]) - p["alpha"] * log(reference.params),
        log(p["B"]) - p["beta"] * log(reference.tokens),
    )


def _bend(reducible: Any) -> Any:
    """How far log R is below its tangent at the typical value of `reducible`."""
    tangent = log_sigmoid(_TYPICAL) + exp(log_sigmoid(-_TYPICAL)) * (reducible - _TYPICAL)
    return log_sigmoid(reducible) - tangent


def _symbols(c: Values, p: Values, at: Any) -> dict[str, Any]:
    size, data = c["log_size_term"], c["log_token_term"]
    reducible = _log_add(size, data)
    log_E = c["log_loss"] - softplus(reducible)
    gamma = p["gamma"] if "gamma" in p else exp(c["log_gamma"] - _bend(reducible))
    return {"E": exp(log_E), "gamma": gamma, **power_sum(log_E + reducible, size - data, gamma)}


def _coordinates_of(p: Values, at: AtReference) -> dict[str, Any]:
    size, data = log_sum_terms(p, at.reference)
    reducible = p["gamma"] * _log_add(size, data) - log(p["E"])
    return {
        "log_loss": log(p["E"]) + softplus(reducible),
        "log_size_term": reducible + log_sigmoid(size - data),
        "log_token_term": reducible + log_sigmoid(data - size),
        "log_gamma": log(p["gamma"]) + _bend(reducible),
    }


SUPERVISED = Term(**_DECLARED, kind="supervised", symbols=_symbols, coordinates_of=_coordinates_of)
