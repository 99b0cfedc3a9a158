r"""Where the distillation law's elasticities are sampled: at a run of their own, not at the reference run.

The coordinates of `coordinates` say how fast the loss falls with size and tokens *at the reference run*, and the priors are
stated there. How much the elasticities change on the way to other runs depends on share_S and log_gamma_S, so that the runs
leave these four on a curved ridge, unless the elasticities are those of runs in a place that the table decides. The sampler
therefore moves the same power sum to another place: with :math:`\alpha = e_N / (\gamma\,\varsigma(share))`,
:math:`\beta = e_D / (\gamma\,\varsigma(-share))` and the logarithms :math:`\Delta_N, \Delta_D` of the ratios of the two places,

.. math::

    share' = share - \alpha \Delta_N + \beta \Delta_D,\quad
    e_N' = e_N\,\varsigma(share') / \varsigma(share),\quad e_D' = e_D\,\varsigma(-share') / \varsigma(-share)

while gamma and everything else stay. Seen from (share, ln alpha, ln beta, ln gamma) this adds to the share what does not depend on
it, so that it keeps volumes: the Jacobian determinant is 1, and the posterior is the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayesdistill.laws import distilled_loss, exp, softplus
from bayesdistill.priors.coordinates import (
    DISTILLATION_COORDINATES,
    Reference,
    distillation_at_reference,
    natural_parameters,
    supervised_at_reference,
)
from bayesdistill.priors.table import Priors

MOVED = ("share_S", "log_elasticity_params_S", "log_elasticity_tokens_S")
"""Coordinates that are others at another place."""

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
    share, of_params, of_tokens, log_gamma = (c[name] for name in (*MOVED, "log_gamma_S"))
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
    if not {*MOVED, "log_gamma_S"} <= set(names):
        return False
    rows = priors.covariance[[names.index(name) for name in (*MOVED, "log_gamma_S")]]
    return bool((rows > 0).sum() == (rows != 0).sum() == len(rows))


def best_place(
    params: Any, tokens: Any, teacher_loss: Any, priors: Priors, reference: Reference
) -> tuple[float, float]:
    """Where runs of this design leave the elasticities least correlated with share and gamma.

    Judged at the middle of the prior, from the information that the runs would have about the distillation law's coordinates
    (their first derivatives, the scatter of the prior) and that the prior has. No outcome of a run is looked at.

    Parameters
    ----------
    params, tokens, teacher_loss : array, (run,)
        The students' non-embedding parameters and tokens, and the teachers' cross-entropy (nats per token).
    priors : Priors
        `movable`.
    reference : Reference

    Returns
    -------
    by_params, by_tokens : float
        Logarithms of the ratios of the place to the reference run.
    """
    middle = dict(zip(priors.names, priors.location, strict=True))
    names = [name for name in DISTILLATION_COORDINATES if priors.table[name].scale > 0]
    scales = np.array([priors.table[name].scale for name in names])

    def losses(c: dict[str, Any]) -> np.ndarray:
        law = supervised_at_reference(c)
        law |= distillation_at_reference(c, law, reference)
        return np.asarray(distilled_loss(params, tokens, teacher_loss, **natural_parameters(law, reference)))

    step = 1e-4
    slopes = np.stack(
        [(losses({**middle, n: middle[n] + step}) - losses({**middle, n: middle[n] - step})) for n in names]
    )
    slopes *= scales[:, None] / (2 * step * np.exp(middle["log_sigma"]))
    covariance = np.linalg.inv(np.eye(len(names)) + slopes @ slopes.T) * np.outer(scales, scales)
    four = [names.index(name) for name in (*MOVED, "log_gamma_S")]
    by_params, by_tokens = np.meshgrid(_PLACES, _PLACES, indexing="ij")
    jacobian = np.zeros((*by_params.shape, 4, 4))
    jacobian[..., 3, 3] = 1.0
    for j, name in enumerate((*MOVED, "log_gamma_S")):
        up, down = (np.stack(move({**middle, name: middle[name] + h}, by_params, by_tokens), -1) for h in (step, -step))
        jacobian[..., :3, j] = (up - down) / (2 * step)
    moved = jacobian @ covariance[np.ix_(four, four)] @ jacobian.swapaxes(-1, -2)
    shared = moved[..., 1:3, [0, 3]]
    explained = shared @ np.linalg.inv(moved[..., [0, 3], :][..., [0, 3]]) @ shared.swapaxes(-1, -2)
    ratios = np.diagonal(explained, axis1=-2, axis2=-1) / np.diagonal(moved[..., 1:3, 1:3], axis1=-2, axis2=-1)
    at = np.unravel_index(np.argmin(ratios.sum(-1)), by_params.shape)
    return float(by_params[at]), float(by_tokens[at])
