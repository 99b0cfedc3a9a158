r"""Likelihood of new runs under every draw of a fit, with the effects of new groups integrated.

Runs of one new group share its effect, so their outcomes are not independent given the law. For each draw, the mode of the new effects
is found by iteratively reweighted least squares, and the integral over the effects is estimated by importance sampling from a normal
distribution around the mode. The estimate is unbiased, so that weights based on it target the exact posterior, and one of the sampled
effects is kept for every draw: the updated posterior has the effects of the new groups too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bayesdistill.decisions.membership import Membership
from bayesdistill.law import Draws
from bayesdistill.law.predictive import Design, expected_loss, logpdf, new_group_scale, residual_scale

_STEPS = 30
_SAMPLES = 32
_WIDER = 1.3
"""Factor on the standard deviations of the proposal, whose tails must not be lighter than the tails of the integrand."""


@dataclass(frozen=True)
class NewRuns:
    """Likelihood of new runs.

    Parameters
    ----------
    log_likelihood : ndarray, (n_draws,)
        Joint log density of the outcomes.
    effects : mapping
        Name of a group effect -> {label of a new group: effect under every draw, (n_draws,), nats per token}.
    """

    log_likelihood: np.ndarray
    effects: Mapping[str, Mapping[str, np.ndarray]]


def likelihood_of(
    draws: Draws,
    design: Design,
    observed: np.ndarray,
    member: Sequence[Membership],
    effects: Mapping[str, np.ndarray],
    seed: int,
) -> NewRuns:
    """Return the likelihood of new runs under every draw.

    Parameters
    ----------
    draws : Draws
    design : Design
    observed : ndarray, (run,)
        Losses in nats per token.
    member : sequence of Membership
        Groups of the runs.
    effects : mapping
        Effects of the groups of the fit: name -> (n_draws, group).
    seed : int
        Of the samples of new effects.
    """
    center = expected_loss(_within(draws, design), design)
    scale, nu = residual_scale(draws, design), draws["nu"][:, None]
    columns, spreads, names = [], [], []
    for group in member:
        covariate = group.effect.covariate(design.along, draws.reference) * np.ones(design.params.size)
        if not group.new.all():
            center = center + np.where(group.new, 0.0, covariate * effects[group.effect.name][:, group.position])
        spread = new_group_scale(group.effect, draws[group.effect.scale.name], draws.groups.get(group.effect.name))
        for label in dict.fromkeys(np.array(group.labels, dtype=object)[group.new].tolist()):
            own = np.array([one == label for one in group.labels]) & group.new
            columns.append(np.where(own, covariate, 0.0))
            spreads.append(np.broadcast_to(spread, draws.n_draws))
            names.append((group.effect.name, label))
    if not columns:
        return NewRuns(logpdf(observed, center, scale, nu).sum(axis=1), {})
    total, chosen = _integrated(
        observed - center, scale, nu, np.stack(columns, axis=1), np.stack(spreads, axis=1), seed
    )
    found: dict[str, dict[str, np.ndarray]] = {}
    for place, (name, label) in enumerate(names):
        found.setdefault(name, {})[label] = chosen[:, place]
    return NewRuns(total, found)


def _within(draws: Draws, design: Design) -> Draws:
    """Return the draws with the ratios of the new runs in the range of the data, as in a refit."""
    if draws.paths is None or draws.paths.ratios is None:
        return draws
    ratios = design.tokens / design.params
    low, high = draws.paths.ratios
    wider = (min(low, float(ratios.min())), max(high, float(ratios.max())))
    return replace(draws, paths=replace(draws.paths, ratios=wider))


def _integrated(
    deviation: np.ndarray, scale: np.ndarray, nu: np.ndarray, factors: np.ndarray, spread: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the log density with new effects integrated, (n_draws,), and one draw of the effects, (n_draws, group).

    Parameters
    ----------
    deviation, scale : ndarray, (n_draws, run)
        Outcomes minus their centers without new effects; scales of the residuals.
    nu : ndarray, (n_draws, 1)
    factors : ndarray, (run, group)
    spread : ndarray, (n_draws, group)
        Prior standard deviations of the effects.
    seed : int
    """
    mode = np.zeros_like(spread)
    prior = np.einsum("ng,gh->ngh", spread**-2.0, np.eye(spread.shape[1]))
    for _ in range(_STEPS):
        weight = (nu + 1) / (nu * scale**2 + (deviation - mode @ factors.T) ** 2)
        information = np.einsum("nr,rg,rh->ngh", weight, factors, factors, optimize=True) + prior
        mode = np.linalg.solve(information, ((weight * deviation) @ factors)[..., None])[..., 0]
    factor = _WIDER * np.linalg.cholesky(np.linalg.inv(information))
    log_volume = np.log(np.einsum("ngg->ng", factor)).sum(axis=1)
    rng = np.random.default_rng(seed)
    half = rng.standard_normal((_SAMPLES // 2, *spread.shape))
    standard = np.concatenate([half, -half])
    log_weight = np.empty((_SAMPLES, len(spread)))
    effects = mode + np.einsum("ngh,knh->kng", factor, standard)
    for k, one in enumerate(effects):
        likelihood = logpdf(deviation, one @ factors.T, scale, nu).sum(axis=1)
        log_prior = -0.5 * ((one / spread) ** 2).sum(axis=1) - np.log(spread).sum(axis=1)
        log_weight[k] = likelihood + log_prior + 0.5 * (standard[k] ** 2).sum(axis=1) + log_volume
    most = log_weight.max(axis=0)
    share = np.exp(log_weight - most)
    total = most + np.log(share.mean(axis=0))
    below = np.cumsum(share, axis=0) / share.sum(axis=0)
    chosen = (below < rng.random(len(spread))).sum(axis=0).clip(max=_SAMPLES - 1)
    return total, effects[chosen, np.arange(len(spread))]
