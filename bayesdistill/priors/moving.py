r"""Where and along what the distillation law's coordinates are sampled: elasticities at a run of their own, and beside c2.

The coordinates of `coordinates` say how fast the loss falls with size and tokens *at the reference run*, and the priors are
stated there. How much the elasticities change on the way to other runs depends on share_S and log_gamma_S, so that the runs
leave these four on a curved ridge, unless the elasticities are those of runs in a place that the runs decide. The sampler
therefore moves the same power sum to another place: with :math:`\alpha = e_N / (\gamma\,\varsigma(share))`,
:math:`\beta = e_D / (\gamma\,\varsigma(-share))` and the logarithms :math:`\Delta_N, \Delta_D` of the ratios of the two places,

.. math::

    share' = share - \alpha \Delta_N + \beta \Delta_D,\quad
    e_N' = e_N\,\varsigma(share') / \varsigma(share),\quad e_D' = e_D\,\varsigma(-share') / \varsigma(-share)

while gamma and everything else stay. Seen from (share, ln alpha, ln beta, ln gamma) this adds to the share what does not depend on
it, so that it keeps volumes: the Jacobian determinant is 1, and the posterior is the same one.

With c2 in the law there is a second ridge: what c2 adds to the excess of students short of tokens, a larger elasticity with
respect to tokens and a larger c0 add as well, nearly. Sampled are therefore (`join_shortage`)

.. math::

    \ln(e_D' + \kappa c_2),\quad \ln(\kappa c_2 / e_D')

and the other coordinates less a constant times :math:`c_2`. Between these two and :math:`(\ln e_D', \ln c_2)` the determinant is 1
again; what is left is that of :math:`\ln c_2` by its coordinate. Place, :math:`\kappa` and constants are those around the law
that suits the runs best (`bayesdistill.linearised`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bayesdistill.laws import exp, log, softplus
from bayesdistill.priors.coordinates import DISTILLATION_COORDINATES, shortage_of
from bayesdistill.priors.table import Priors

MOVED = ("share_S", "log_elasticity_params_S", "log_elasticity_tokens_S")
"""Coordinates that are others at another place."""

FOUR = (*MOVED, "log_gamma_S")
"""Coordinates on which those at another place depend."""

_STEP = 1e-4
_PLACES = np.linspace(-2.0, 2.0, 41)
"""Logarithms of the places that are looked at, relative to the reference run: a seventh to seven times its size and tokens."""


def move(c: Mapping[str, Any], by_params: Any, by_tokens: Any) -> tuple[Any, Any, Any]:
    """The coordinates MOVED of the same power sum at another place.

    Parameters
    ----------
    c : mapping
        Values of share_S, log_elasticity_params_S, log_elasticity_tokens_S and log_gamma_S.
    by_params, by_tokens : float or array
        Logarithms of the ratios of the new place to the old.
    """
    share, of_params, of_tokens, log_gamma = (c[name] for name in FOUR)
    less_params, less_tokens = softplus(-share), softplus(share)  # -ln of the shares of size and of tokens
    new = (
        share
        - by_params * exp(of_params - log_gamma + less_params)
        + by_tokens * exp(of_tokens - log_gamma + less_tokens)
    )
    return new, of_params + less_params - softplus(-new), of_tokens + less_tokens - softplus(new)


def movable(priors: Priors) -> bool:
    """Whether the coordinates concerned are free and independent in the prior, as they are unless an earlier fit is the prior."""
    names = list(priors.names)
    if not set(FOUR) <= set(names):
        return False
    # Wherever the law has c2, its coordinate and those on its ridge are taken apart as well.
    concerned = [
        name for name in names if name in (*DISTILLATION_COORDINATES, "token_shortage") and priors.table[name].scale > 0
    ]
    if not set(FOUR) <= set(concerned):
        return False
    rows = priors.covariance[[names.index(name) for name in concerned]]
    return bool((rows > 0).sum() == (rows != 0).sum() == len(rows))


def join_shortage(log_elasticity: Any, coordinate: Any, kappa: float) -> tuple[Any, Any]:
    """ln(e_D + kappa c2) and ln(kappa c2 / e_D), of ln e_D and the coordinate token_shortage."""
    log_c2 = log(kappa * shortage_of(coordinate))
    return log_elasticity + softplus(log_c2 - log_elasticity), log_c2 - log_elasticity


def part_shortage(log_sum: Any, log_ratio: Any, kappa: float) -> tuple[Any, Any]:
    """The inverse of `join_shortage`: ln e_D and c2."""
    return log_sum - softplus(log_ratio), exp(log_sum - softplus(-log_ratio)) / kappa


def best_place(c: Mapping[str, float], names: Sequence[str], covariance: np.ndarray) -> tuple[float, float]:
    """Where the elasticities are least correlated with share and gamma.

    Parameters
    ----------
    c : mapping
        Values of FOUR around which the covariance was taken.
    names : sequence of str
        Coordinates, FOUR among them.
    covariance : array, (name, name)
        What runs and prior leave open of them.

    Returns
    -------
    by_params, by_tokens : float
        Logarithms of the ratios of the place to the reference run.
    """
    four = [names.index(name) for name in FOUR]
    by_params, by_tokens = np.meshgrid(_PLACES, _PLACES, indexing="ij")
    jacobian = _jacobian(c, by_params, by_tokens)
    moved = jacobian @ covariance[np.ix_(four, four)] @ jacobian.swapaxes(-1, -2)
    shared = moved[..., 1:3, [0, 3]]
    explained = shared @ np.linalg.inv(moved[..., [0, 3], :][..., [0, 3]]) @ shared.swapaxes(-1, -2)
    ratios = np.diagonal(explained, axis1=-2, axis2=-1) / np.diagonal(moved[..., 1:3, 1:3], axis1=-2, axis2=-1)
    at = np.unravel_index(np.argmin(ratios.sum(-1)), by_params.shape)
    return float(by_params[at]), float(by_tokens[at])


def ridge_of_shortage(
    c: Mapping[str, float], names: Sequence[str], covariance: np.ndarray, place: tuple[float, float]
) -> dict[str, float]:
    """How much the other coordinates, moved to a place, change with c2 on the ridge on which the runs leave them.

    Parameters
    ----------
    c : mapping
        Values of FOUR and of token_shortage around which the covariance was taken.
    names : sequence of str
        Coordinates, FOUR and token_shortage among them.
    covariance : array, (name, name)
        What runs and prior leave open of them.
    place : (float, float)
        As `best_place` returns it.

    Returns
    -------
    dict
        Coordinate -> its change when c2 grows by one.
    """
    moved = np.eye(len(names))
    four = [names.index(name) for name in FOUR]
    moved[np.ix_(four, four)] = _jacobian(c, *place)
    covariance = moved @ covariance @ moved.T
    shortage, here = names.index("token_shortage"), c["token_shortage"]
    by_coordinate = (shortage_of(here + _STEP) - shortage_of(here - _STEP)) / (2 * _STEP)
    slopes = covariance[:, shortage] / covariance[shortage, shortage] / by_coordinate
    return {name: float(slope) for name, slope in zip(names, slopes, strict=True) if name != "token_shortage"}


def _jacobian(c: Mapping[str, float], by_params: Any, by_tokens: Any) -> np.ndarray:
    """Derivatives, (..., 4, 4), of the coordinates FOUR at other places by those at the reference run."""
    jacobian = np.zeros((*np.shape(by_params), 4, 4))
    jacobian[..., 3, 3] = 1.0
    for j, name in enumerate(FOUR):
        up, down = (np.stack(move({**c, name: c[name] + h}, by_params, by_tokens), -1) for h in (_STEP, -_STEP))
        jacobian[..., :3, j] = (up - down) / (2 * _STEP)
    return jacobian
