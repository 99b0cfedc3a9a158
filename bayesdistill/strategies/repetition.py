"""Limited data: what repeated tokens are worth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesdistill.errors import ParameterError


@dataclass(frozen=True)
class Repetition:
    r"""Effective number of tokens of a corpus that is read several times.

    .. math:: D' = U + U R^* \left(1 - e^{-R / R^*}\right), \qquad R = \max(D / U - 1, 0)

    Parameters
    ----------
    unique_tokens : float
        Unique tokens U of the corpus, from which teachers and students are trained.
    decay : float or (n_draws,) array
        Constant R*, in epochs, with which the value of repeated tokens decays. They are worth at most R* times the unique tokens.

    Raises
    ------
    ParameterError
        If a value is not positive.

    Notes
    -----
    Muennighoff et al. (2023, arXiv:2305.16264), equation 5, with the published R* = 15.39. Their correction for excess
    parameters is not included. After hundreds of epochs the effective number hardly grows, so teachers that differ
    only in such epochs are equally good; the chosen strategy can be any of them within 1e-9 nats.

    Examples
    --------
    >>> from bayesdistill.strategies import Repetition
    >>> f"{Repetition(1e11).effective(4e11):.2e}"
    '3.73e+11'
    """

    unique_tokens: float
    decay: Any = 15.387756

    def __post_init__(self) -> None:
        for name in ("unique_tokens", "decay"):
            value = np.asarray(getattr(self, name))
            if value.dtype.kind not in "if" or not np.all((value > 0) & np.isfinite(value)):
                raise ParameterError(f"`{name}` must be positive and finite, got {getattr(self, name)!r}.")

    def take(self, index: Any) -> Repetition:
        """Return the rule for some of the draws."""
        return replace(self, decay=self.decay[index]) if np.ndim(self.decay) else self

    def effective(self, tokens: Any) -> Any:
        """Return the effective number of tokens."""
        repeats = np.maximum(tokens / self.unique_tokens - 1, 0.0)
        again = -self.decay * np.expm1(-repeats / self.decay)
        return np.minimum(tokens, self.unique_tokens) + self.unique_tokens * again

    def log_elasticity(self, tokens: Any) -> Any:
        """Return the logarithm of d log(effective tokens) / d log(tokens), which decreases with the tokens."""
        repeats = np.maximum(tokens / self.unique_tokens - 1, 0.0)
        return np.log(tokens) - repeats / self.decay - np.log(self.effective(tokens))
