"""Posterior draws for decisions, with their provenance and the range of the data."""

from __future__ import annotations

import functools
import json
import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.arguments import SEED
from bayesdistill.datasets import FIXED_AXES, fixed_axes
from bayesdistill.errors import ConflictError, ConflictWarning, ConvergenceError, ConvergenceWarning, ModelError
from bayesdistill.law import Draws, RepetitionPrior
from bayesdistill.law.formulas import PUBLISHED_RANGE
from bayesdistill.law.parameters import DOMAIN_WORDS

_TOKENS_PER_PARAM = 20.0
_CERTAIN = 0.001
"""Posterior probability that E is lower than the loss of a teacher which is questioned."""

# Frames of the package and of cached properties are not where a warning is raised. A prefix must be shorter than the file's name.
_INTERNAL = (str(Path(posterior.__file__).parents[1]), functools.__file__.removesuffix(".py"))
CONVERGED = {True: "yes", False: "no", None: "unknown"}


@dataclass(frozen=True)
class SizeScale:
    """Sizes of models that have given losses when they are trained on 20 tokens per parameter.

    The posterior mean of the supervised law, interpolated between four sizes per decade on a logarithmic scale.

    Parameters
    ----------
    log_params, log_excess : ndarray
        Logarithms of sizes, and of their losses minus the loss of an infinite model on infinitely many tokens, in nats per token.
    limit : float
        The loss of that model.
    """

    log_params: np.ndarray
    log_excess: np.ndarray
    limit: float

    @classmethod
    def of(cls, draws: Draws) -> SizeScale:
        """Return the scale of the draws of a law."""
        params = np.append(np.geomspace(1, 1e20, 81), 1e40)[:, None]
        losses = draws.supervised_loss(params, _TOKENS_PER_PARAM * params).mean(axis=-1)
        return cls(np.log(params[:-1, 0]), np.log(losses[:-1] - losses[-1]), float(losses[-1]))

    def params(self, loss: Any) -> np.ndarray:
        """Return the sizes of models with these losses, from 1 to 1e20 parameters; NaN if the loss is."""
        with np.errstate(divide="ignore"):
            excess = np.log(np.maximum(np.asarray(loss, dtype=float) - self.limit, 0.0))
        return np.exp(np.interp(excess, self.log_excess[::-1], self.log_params[::-1]))

    def loss(self, params: float) -> float:
        """Return the loss of a model of a size."""
        return self.limit + math.exp(np.interp(math.log(params), self.log_params, self.log_excess))


@dataclass(frozen=True)
class FittedDraws:
    """Draws of the law, flattened over chain and draw, with their metadata.

    Parameters
    ----------
    draws : Draws
        The law with its draws, ordered by chain.
    chain, draw : ndarray
        Coordinates of the posterior.
    ranges : dict
        Smallest and largest value in the data of student_params, student_tokens_per_param, teacher_loss, pretraining_params,
        pretraining_tokens_per_param, teacher_params and teacher_tokens_per_param; unknown ranges are omitted. The supervised law
        predicts the loss of a new teacher, so the range of its data applies to the teacher's size and tokens.
    size_scale : SizeScale
        Sizes that stand for losses of teachers.
    attrs : dict
        Provenance and convergence as netCDF-compatible attributes.
    laws : tuple of str
        Names of the laws of a mixture; none for a fit.
    law : ndarray of int, (n_draws,)
        Position of the law of every draw among `laws`; 0 for a fit.
    """

    draws: Draws
    chain: np.ndarray
    draw: np.ndarray
    ranges: dict[str, tuple[float, float]]
    size_scale: SizeScale
    attrs: dict[str, Any]
    laws: tuple[str, ...]
    law: np.ndarray

    @property
    def n_draws(self) -> int:
        """Total number of draws in all chains."""
        return self.chain.size * self.draw.size

    def at(self, chain: np.ndarray, draw: np.ndarray) -> FittedDraws:
        """Return the draws with some of the labels."""
        rows, columns = (np.flatnonzero(np.isin(own, kept)) for own, kept in ((self.chain, chain), (self.draw, draw)))
        index = (rows[:, None] * self.draw.size + columns).ravel()
        return replace(self._take(index), chain=self.chain[rows], draw=self.draw[columns])

    def reseeded(self, fit: posterior.Fit, seed: int) -> FittedDraws:
        """Return the same draws of the fit with another discrepancy outside the data."""
        return replace(self, draws=posterior.draws_of(fit, seed=SEED(seed, "seed")))

    def limited(self, unique_tokens: float, prior: RepetitionPrior, seed: int) -> FittedDraws:
        """Return the draws for models that are trained on a limited number of unique tokens."""
        rule = prior.draw(self.draws, unique_tokens, SEED(seed, "seed"))
        attrs = {
            "unique_tokens": float(unique_tokens),
            "repetition_prior": json.dumps(vars(prior)),
            "repetition_seed": int(seed),
            posterior.LIMITED_DATA_ATTRIBUTE: limited_data_note(unique_tokens),
        }
        return replace(self, draws=replace(self.draws, repetition=rule), attrs=self.attrs | attrs)

    def _take(self, index: np.ndarray) -> FittedDraws:
        return replace(self, draws=self.draws.take(index), law=self.law[index])

    @property
    def teacher_losses(self) -> tuple[float, float]:
        """Range of plausible losses of teachers, in nats per token.

        No model has a loss below E under the law. The range includes the losses in the data, and ends at twice the largest one.
        """
        low, high = self.ranges.get("teacher_loss", (math.inf, math.inf))
        return min(low, float(np.quantile(self.draws["E"], _CERTAIN))), 2 * high

    def thinned(self, count: int) -> tuple[FittedDraws, np.ndarray]:
        """Return about `count` draws, evenly spaced within each chain and law, and their positions."""
        kept = min(self.draw.size, max(1, count // max(1, self.chain.size)))
        first = self.law[: self.draw.size]  # all chains have the laws in the same order
        parts = [np.flatnonzero(first == law) for law in np.unique(first)]
        numbers = [max(1, round(kept * part.size / self.draw.size)) for part in parts]
        even = [np.linspace(0, p.size - 1, n).round().astype(int) for p, n in zip(parts, numbers, strict=True)]
        within = np.unique(np.concatenate([part[i] for part, i in zip(parts, even, strict=True)]))
        index = (np.arange(self.chain.size)[:, None] * self.draw.size + within).ravel()
        return replace(self._take(index), draw=self.draw[within]), index


def limited_data_note(unique_tokens: float) -> str:
    """Return what every result with a limited number of unique tokens says."""
    words = f"{unique_tokens:.3g}".replace("e+", "e")
    return (
        f"Limited data: teachers and students are trained on {words} unique tokens. Repeated tokens, and parameters in excess of "
        "those for which so many tokens are compute-optimal, count less, by the rule of Muennighoff et al. (2023) with a prior on "
        "its constants. That the rule holds for distilled students is an assumption. It does not describe models with more "
        "parameters than unique tokens, which overfit."
    )


def gather(
    fit: posterior.Fit, allow_unconverged: bool = False, allow_conflict: bool = False, seed: int = 0
) -> FittedDraws:
    """Return the draws of a fit after checking convergence and corpus.

    Parameters
    ----------
    fit : DataTree or Dataset
    allow_unconverged : bool
        Whether a posterior that did not converge is accepted.
    allow_conflict : bool
        Whether runs that contradict the supervised law are accepted.
    seed : int
        Of the discrepancy outside the data.

    Raises
    ------
    ConvergenceError
        If the posterior did not converge and `allow_unconverged` is False; if it is True, a ConvergenceWarning.
    ConflictError
        If the runs contradict the supervised law and `allow_conflict` is False; if it is True, a ConflictWarning.
    """
    law = posterior.law_draws(fit)
    if law.sizes["chain"] * law.sizes["draw"] == 0:
        raise ModelError("The posterior holds no draws. Refit the model.")
    _require_valid(fit)
    # First, because chains that have to follow two corpora at once may not converge.
    conflict = _checked_corpus(fit, allow_conflict)
    # A Dataset of draws has no sampler statistics, so its convergence cannot be checked.
    known = isinstance(fit, xr.DataTree)
    convergence: dict[str, Any] = posterior.convergence(fit) if known else {"converged": None}
    if convergence["converged"] is False:
        failed = ", ".join(convergence["failed"])
        if not allow_unconverged:
            raise ConvergenceError(
                f"The posterior did not converge ({failed}). Follow the advice of bd.check(fit), or pass "
                "allow_unconverged=True to use it anyway; results are then marked as unconverged."
            )
        warnings.warn(
            f"The posterior did not converge ({failed}). Results based on it may be wrong.",
            ConvergenceWarning,
            skip_file_prefixes=_INTERNAL,
        )
    seen = posterior.seen_runs(fit)
    ranges, supervised_range = _ranges(seen)
    laws, law_of_draw = posterior.law_positions(fit)
    weights = {name: of_law["weight"] for name, of_law in posterior.members(fit).items()}
    draws = posterior.draws_of(fit, seed=SEED(seed, "seed"))
    return FittedDraws(
        draws=draws,
        chain=law["chain"].values,
        draw=law["draw"].values,
        ranges=ranges,
        size_scale=SizeScale.of(draws),
        laws=laws,
        law=law_of_draw,
        attrs={
            "converged": CONVERGED[convergence["converged"]],
            "convergence": json.dumps(convergence),
            posterior.IDENTITY_ATTRIBUTE: posterior.identity(fit),
            "posterior_provenance": json.dumps(posterior.provenance(fit)),
            "prior_dominated": json.dumps(posterior.prior_dominated(fit)),
            "posterior_draws": int(law.sizes["chain"] * law.sizes["draw"]),
            "supervised_range": supervised_range,
            "seen_ranges": json.dumps(ranges),
            **({"law_weights": json.dumps(weights)} if weights else {}),
            **conflict,
            FIXED_AXES: json.dumps(fixed_axes(seen)),
        },
    )


def _checked_corpus(fit: posterior.Fit, allow_conflict: bool) -> dict[str, str]:
    """Return the attribute of a conflict that is accepted; empty if there is no conflict."""
    found = posterior.level_shift_of(fit)
    if found is None or not found.is_conflict:
        return {}
    if not allow_conflict:
        raise ConflictError(
            f"{found.sentence} {found.fix}, or pass allow_conflict=True to decide anyway; all results then carry this warning."
        )
    warnings.warn(found.sentence, ConflictWarning, skip_file_prefixes=_INTERNAL)
    return posterior.conflict_attribute(fit)


def _require_valid(fit: posterior.Fit) -> None:
    """Raise an error if a draw is not a law; one such draw would make the mean of every strategy NaN."""
    dataset = posterior.posterior_dataset(fit)
    for parameter in posterior.law_of(fit).parameters:
        if parameter.name not in dataset:
            continue
        values = dataset[parameter.name].transpose("chain", "draw").values
        wrong = np.argwhere(~np.asarray(parameter.allows(values)))
        if wrong.size:
            chain, draw = wrong[0].tolist()
            raise ModelError(
                f"{parameter.name} is {values[chain, draw]:g} (chain {chain}, draw {draw}), but must be "
                f"{DOMAIN_WORDS[parameter.domain]}. {len(wrong)} of {values.size} draws are invalid. Remove them or refit the model."
            )


def _ranges(seen: xr.Dataset) -> tuple[dict[str, tuple[float, float]], str]:
    ranges: dict[str, tuple[float, float]] = {}

    def note(name: str, values: np.ndarray) -> None:
        ranges[name] = (float(values.min()), float(values.max()))

    if {"student_params", "student_tokens", "teacher_loss"} <= set(seen.data_vars):
        note("student_params", seen["student_params"].values)
        note("student_tokens_per_param", seen["student_tokens"].values / seen["student_params"].values)
        note("teacher_loss", seen["teacher_loss"].values)
    of_law: dict[str, Any] = {}
    source = "unknown"
    if {"params", "tokens"} <= set(seen.data_vars):
        params, tokens = seen["params"].values, seen["tokens"].values
        of_law, source = {"params": params, "tokens_per_param": tokens / params}, "supervised runs of the fit"
    elif ranges:
        of_law, source = dict(PUBLISHED_RANGE), "data of the published law"
    for name, values in of_law.items():
        for option in ("pretraining", "teacher"):
            note(f"{option}_{name}", np.asarray(values))
    return ranges, source
