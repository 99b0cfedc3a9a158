"""Residuals of the runs of a fit under the posterior mean, and tests for structure in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.criticism.groupings import thinning
from bayesdistill.errors import BayesdistillError
from bayesdistill.law import Draws
from bayesdistill.law.effects import Groups
from bayesdistill.law.predictive import COLUMNS, OUTCOME, Design, expected_loss, group_effects, residual_scale
from bayesdistill.posterior import Fit

_DRAWS = 1000
"""Draws from which means and variances are computed, a compromise between accuracy and time."""

_FOLLOWED = 0.1
"""Directions in which the posterior variance of the mean losses is above this fraction of the residual variance."""
_NOTHING = 1e-8
"""A direction is not tested if less than this fraction of its information is left."""


@dataclass(frozen=True)
class Residuals:
    """Runs of one kind with their residuals.

    Parameters
    ----------
    kind : {"distilled", "supervised"}
    design : Design
    draws : Draws
    loss : ndarray, (run,)
        Observed losses, nats per token.
    expected : ndarray, (n_draws, run)
        Mean losses: the law and the group effects.
    scale : ndarray, (run,)
        Posterior median of the residual scale.
    nu : float
        Posterior median of the degrees of freedom.
    """

    kind: str
    design: Design
    draws: Draws
    loss: np.ndarray
    expected: np.ndarray
    scale: np.ndarray
    nu: float

    @property
    def columns(self) -> Mapping[str, np.ndarray]:
        """Design of the runs by column."""
        values = (self.design.params, self.design.tokens, self.design.teacher_loss)
        return {name: value for name, value in zip(COLUMNS[self.kind], values, strict=False) if value is not None}

    @property
    def residual(self) -> np.ndarray:
        """Observed loss minus posterior mean, (run,), nats per token."""
        return np.asarray(self.loss - self.expected.mean(axis=0))

    @property
    def standardized(self) -> np.ndarray:
        """Residuals in units of their scale, (run,)."""
        return self.residual / self.scale

    @cached_property
    def _variance(self) -> np.ndarray:
        """Variance of normal residuals that would carry as much information as the runs' own, (run,)."""
        return (self.nu + 3) / (self.nu + 1) * self.scale**2

    @cached_property
    def _tangent(self) -> np.ndarray:
        """Orthonormal directions in which the law and the group effects follow the runs, in standardized losses, (k, run)."""
        whitened = (self.expected - self.expected.mean(axis=0)) / np.sqrt(self._variance * (len(self.expected) - 1))
        _, singular, directions = np.linalg.svd(whitened, full_matrices=False)
        return np.asarray(directions[singular**2 > _FOLLOWED])

    def trend(self, direction: np.ndarray) -> tuple[float, float, float]:
        """Fit the residuals by a multiple of a direction.

        Parameters
        ----------
        direction : ndarray, (run,)
            Change of the mean losses. The part that the law and the group effects can follow is removed.

        Returns
        -------
        estimate, error, span : float
            The multiple after one step and its standard error, and the largest minus the smallest value of the rest of the
            direction; the error is infinite if nothing is left.

        Notes
        -----
        In a normal linear model with residual variance s^2 and posterior covariance C of the means, the residuals from the posterior
        mean have the covariance s^2 - C in repeated samples from the model, because the law follows a part of the noise. A
        Student-t residual carries as much information as a normal one of variance (nu + 3)/(nu + 1) scale^2, and enters by its
        score, which limits the influence of outliers.
        """
        sd = np.sqrt(self._variance)
        whitened = direction / sd
        rest = whitened - self._tangent.T @ (self._tangent @ whitened)
        information = float(rest @ rest)
        kept = information - float((self.expected @ (rest / sd)).var(ddof=1))
        if information < _NOTHING * float(whitened @ whitened) or kept <= 0:
            return 0.0, np.inf, 0.0
        score = (self.nu + 1) * self.residual / (self.nu * self.scale**2 + self.residual**2)
        return float((rest * sd) @ score) / kept, kept**-0.5, float(np.ptp(rest * sd))


def residuals_of(fit: Fit) -> Iterator[Residuals]:
    """Yield the residuals of each kind of runs of a fit; none for draws without runs or without residual noise."""
    seen, observed = posterior.seen_runs(fit), posterior.observed_runs(fit)
    kinds = [kind for kind in COLUMNS if {*COLUMNS[kind]} <= set(seen) and OUTCOME[kind] in observed]
    if not kinds:
        return
    try:
        thin = thinning(fit, _DRAWS)
        draws, effects = posterior.draws_of(fit, thin), posterior.effects_of(fit, thin)
        designs = {kind: _design(kind, draws, seen) for kind in kinds}
        scales = {kind: np.median(residual_scale(draws, design), axis=0) for kind, design in designs.items()}
    except BayesdistillError:
        return  # draws that are not finite or lack the residual noise; other checks report them
    for kind, design in designs.items():
        expected = expected_loss(draws, design) + group_effects(draws, design, effects)
        if np.isfinite(expected).all():
            loss, nu = observed[OUTCOME[kind]].values, float(np.median(draws["nu"]))
            yield Residuals(kind, design, draws, loss, expected, scales[kind], nu)


def _design(kind: str, draws: Draws, seen: xr.Dataset) -> Design:
    params, tokens, *teacher = (seen[name].values for name in COLUMNS[kind])
    groups: dict[str, Groups] = {
        effect.name: ([], seen[effect.index].values)
        for effect in draws.law.effects
        if effect.kind == kind and effect.index in seen
    }
    return Design(kind, params, tokens, teacher[0] if teacher else None, groups)
