"""Limited data: what repeated tokens, and parameters that the data cannot use, are worth."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from bayesdistill.arguments import Range, check_fields
from bayesdistill.errors import ParameterError


@dataclass(frozen=True)
class Repetition:
    r"""Effective tokens and parameters of models that read a corpus several times.

    .. math::
        D' = U + U R_D^* \left(1 - e^{-R_D / R_D^*}\right), \quad R_D = \max(D / U - 1, 0)

        N' = V + V R_N^* \left(1 - e^{-R_N / R_N^*}\right), \quad R_N = \max(N / V - 1, 0)

    Parameters
    ----------
    unique_tokens : float
        Unique tokens U of the corpus, from which teachers and students are trained.
    decay : float or (n_draws,) array
        Constant R_D*, in epochs, with which the value of repeated tokens decays. They are worth at most R_D* times the unique tokens.
    enough_params : float or (n_draws,) array
        Parameters V of the model for which U tokens are compute-optimal; infinite if larger models lose nothing.
    params_decay : float or (n_draws,) array
        Constant R_N* with which the value of parameters in excess of V decays.

    Raises
    ------
    ParameterError
        If a value is not positive.

    Notes
    -----
    Muennighoff et al. (2023, arXiv:2305.16264), equations 5 and 6, with the published R_D* = 15.39 and R_N* = 5.31. After hundreds of
    epochs the effective number hardly grows, so teachers that differ only in such epochs are equally good; the chosen strategy can be
    any of them within 1e-9 nats.

    Examples
    --------
    >>> from bayesdistill.law import Repetition
    >>> f"{Repetition(1e11).effective(4e11):.2e}"
    '3.73e+11'
    """

    unique_tokens: float
    decay: Any = 15.387756
    enough_params: Any = np.inf
    params_decay: Any = 5.309743

    def __post_init__(self) -> None:
        for field in fields(self):
            value = np.asarray(getattr(self, field.name))
            most = np.inf if field.name == "enough_params" else np.finfo(float).max
            if value.dtype.kind not in "if" or not np.all((value > 0) & (value <= most)):
                raise ParameterError(f"`{field.name}` must be positive and finite, got {getattr(self, field.name)!r}.")

    def take(self, index: Any) -> Repetition:
        """Return the rule for some of the draws."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value[index] for name, value in values.items() if np.ndim(value)})

    def effective(self, tokens: Any) -> Any:
        """Return the effective number of tokens."""
        return _saturating(tokens, self.unique_tokens, self.decay)

    def tokens_for(self, effective: Any) -> Any:
        """Return the tokens with this effective number, the inverse of `effective`; infinite if no number of epochs suffices."""
        excess = np.maximum(np.asarray(effective) / self.unique_tokens - 1, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            epochs = np.where(excess < self.decay, -self.decay * np.log1p(-excess / self.decay), np.inf)
        return np.minimum(effective, self.unique_tokens) + self.unique_tokens * epochs

    def effective_params(self, params: Any) -> Any:
        """Return the effective number of parameters."""
        if np.ndim(self.enough_params) == 0 and np.isinf(self.enough_params):
            return params
        return _saturating(params, self.enough_params, self.params_decay)

    def log_elasticity(self, tokens: Any) -> Any:
        """Return the logarithm of d log(effective tokens) / d log(tokens), which decreases with the tokens."""
        return _log_elasticity(tokens, self.unique_tokens, self.decay)

    def log_elasticity_params(self, params: Any) -> Any:
        """Return the logarithm of d log(effective parameters) / d log(parameters), which decreases with the parameters."""
        return _log_elasticity(params, self.enough_params, self.params_decay)


_LARGEST = 230.0  # logarithm of a size that no model has


@dataclass(frozen=True)
class RepetitionPrior:
    """Prior of the constants of `Repetition`: independent lognormal distributions.

    Parameters
    ----------
    decay : float
        Median of R_D*, in epochs.
    params_decay : float
        Median of R_N*.
    log_sd : float
        Standard deviation of both logarithms; 0 fixes the constants.

    Raises
    ------
    ParameterError
        If a median is not positive or the standard deviation is negative.

    Notes
    -----
    The medians are the estimates of Muennighoff et al. (2023, arXiv:2305.16264), from pretraining of models of up to 9B parameters on
    C4 and OSCAR. That they hold for distillation, and for other corpora, is an assumption; `log_sd` allows for it.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> from bayesdistill.law import LAWS, Draws
    >>> draws = Draws(LAWS["busbridge2025"], bd.PUBLISHED)
    >>> bd.RepetitionPrior(log_sd=0).draw(draws, 3e11, seed=0).decay
    array([15.387756])
    """

    decay: float = 15.387756
    params_decay: float = 5.309743
    log_sd: float = 0.4

    def __post_init__(self) -> None:
        positive, zero = Range(0, np.inf, above=True), Range(0, 10)
        check_fields(self, decay=positive, params_decay=positive, log_sd=zero)

    def draw(self, draws: Mapping[str, np.ndarray], unique_tokens: float, seed: int) -> Repetition:
        """Return the rule for some number of unique tokens, with constants for every draw.

        V is the size for which U tokens are compute-optimal under the draw's supervised law, with 6 N D FLOPs:
        alpha A V^-alpha = beta B U^-beta.
        """
        z = np.random.default_rng([seed, zlib.crc32(b"repetition")]).standard_normal((2, draws["alpha"].size))
        decay, params_decay = (
            median * np.exp(self.log_sd * one) for median, one in zip((self.decay, self.params_decay), z, strict=True)
        )
        alpha, beta = draws["alpha"], draws["beta"]
        log_data = np.log(beta * draws["B"]) - beta * np.log(unique_tokens)
        enough = np.exp(np.clip((np.log(alpha * draws["A"]) - log_data) / alpha, 0.0, _LARGEST))
        return Repetition(unique_tokens, decay, enough, params_decay)


PUBLISHED_REPETITION = RepetitionPrior()
"""Prior with the published constants as medians."""


def _saturating(amount: Any, full: Any, decay: Any) -> Any:
    """Return an amount that counts fully up to `full` and in part above it."""
    excess = np.maximum(amount / full - 1, 0.0)
    # An infinite `full` is never exceeded.
    above = np.where(excess > 0, full, 0.0) * (-decay * np.expm1(-excess / decay))
    return np.minimum(amount, full) + above


def _log_elasticity(amount: Any, full: Any, decay: Any) -> Any:
    excess = np.maximum(amount / full - 1, 0.0)
    return np.log(amount) - excess / decay - np.log(_saturating(amount, full, decay))
