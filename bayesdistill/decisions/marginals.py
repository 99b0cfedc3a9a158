"""Quantiles of the predictive distribution of one run: posterior draws, new group effects and residual noise.

The predictive distribution is a mixture over posterior draws. Random residuals would add Monte Carlo error to its quantiles, so
every draw is combined with evenly spaced quantiles of the residual (and of a new group effect) instead. The result is
deterministic and accurate to about 0.5% of the residual scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

_VALUES = 2**16
"""Minimum number of values that represent the predictive distribution of a run."""
_FEWEST = 8
"""Minimum number of values per draw."""
_GOLDEN = (np.sqrt(5) - 1) / 2
_SHUFFLE = 20250212


@dataclass(frozen=True)
class Nodes:
    """Standardized residuals and group effects that represent their distributions.

    Parameters
    ----------
    nu : ndarray, (n_draws,)
        Degrees of freedom of the residuals.
    """

    nu: np.ndarray

    @property
    def per_draw(self) -> int:
        """Number of values per draw."""
        return max(_FEWEST, -(-_VALUES // self.nu.size))

    @cached_property
    def residuals(self) -> np.ndarray:
        """Student-t(nu) quantiles, (n_draws, per_draw), at levels that differ from draw to draw."""
        from scipy.special import stdtrit

        shift = (0.5 + _GOLDEN * np.arange(self.nu.size)) % 1.0
        levels = (np.arange(self.per_draw) + shift[:, None]) / self.per_draw
        return np.asarray(stdtrit(self.nu[:, None], np.clip(levels, 1e-12, 1 - 1e-12)))

    @cached_property
    def effects(self) -> np.ndarray:
        """Standard normal quantiles in random order, (n_draws, per_draw), independent of the residuals."""
        from scipy.special import ndtri

        count = self.nu.size * self.per_draw
        order = np.random.default_rng(_SHUFFLE).permutation(count)
        return np.asarray(ndtri((order + 0.5) / count).reshape(self.nu.size, self.per_draw))

    def values(self, center: np.ndarray, effect_scale: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Equally probable losses of one run, in nats per token.

        Parameters
        ----------
        center : ndarray, (n_draws,)
            The law's mean with the known group effects.
        effect_scale : ndarray, (n_draws,)
            Standard deviation of the sum of the new group effects; 0 without any.
        scale : ndarray, (n_draws,)
            Scale of the residual.
        """
        found = center[:, None] + scale[:, None] * self.residuals
        if effect_scale.any():
            found = found + effect_scale[:, None] * self.effects
        return np.asarray(found.ravel())


def quantiles(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Quantiles of equally probable values, (..., value) -> (level, ...)."""
    return np.asarray(np.quantile(values, levels, axis=-1, method="hazen"))
