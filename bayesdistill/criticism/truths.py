"""Prior draws of laws, runs simulated from them, and the gains of decisions under them.

The simulator does not use the PyMC model, because calibration does not detect an error that model and simulator share.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from bayesdistill.arguments import checked
from bayesdistill.errors import ModelError
from bayesdistill.law import Draws, Law, Paths, Reference
from bayesdistill.law.predictive import Design, Deviations, expected_loss, group_effects, residual_scale, residuals
from bayesdistill.priors import Priors

DECISIONS = {
    # name: student parameters, tokens when distilled, tokens when pretrained, teacher parameters and tokens.
    # Equal tokens if the teacher already exists; otherwise the pretrained student also gets the teacher's compute.
    "300M, equal tokens": (3e8, 3e10, 3e10, 3e9, 6e10),
    "1B, equal tokens": (1e9, 1e11, 1e11, 7e9, 1.4e11),
    "1B, twice the tokens for pretraining": (1e9, 5e10, 1e11, 3e9, 6e10),
    "3B, five times the tokens for pretraining": (3e9, 6e10, 3e11, 7e9, 1.4e11),
}
"""Fixed decisions, evaluated under every truth and every posterior. Under the one-sided prior on the advantage, distillation almost
never wins these; BREAK_EVEN contains more balanced decisions."""

BREAK_EVEN = {
    # name: student parameters, tokens when distilled, teacher parameters and tokens.
    "300M, near break-even": (3e8, 3e10, 3e9, 6e10),
    "1B, near break-even": (1e9, 1e11, 7e9, 1.4e11),
    "3B, near break-even": (3e9, 6e10, 7e9, 1.4e11),
}
"""Decisions near the break-even point of the posterior: the pretrained student gets the tokens at which both losses are equal under
a random posterior draw. Probabilities must also be calibrated for decisions that depend on the posterior."""
MOST_TOKENS = 1e18
"""Tokens if pretraining never reaches the loss of the distilled student under a draw."""

_FEWEST = 200
"""Smallest number of draws that are annealed together."""
_MOVES, _LAST_MOVES = 5, 30
"""Moves of every draw in each step, and at the end."""


@checked
def draw_truths(priors: Priors, reference: Reference, count: int, seed: int) -> list[dict[str, Any]]:
    """Draw laws from the prior, with rejection sampling of the one-sided priors from statements of theory.

    In about one draw in 300, A_S or B_S overflows (its exponent is above 30); such draws are rejected. A perfect teacher's advantage
    with unlimited data is confined from both sides, which fewer than one prior draw in ten thousand satisfies. With this prior, draws
    are moved to the constrained prior in steps (`_annealed`); they are then approximate.

    Returns
    -------
    list of dict
        Symbols of the law under the posterior's names, and the coordinates under `z`, (free coordinate,).

    Raises
    ------
    ModelError
        If fewer than one draw in a thousand satisfies the priors from statements of theory.
    """
    rng = np.random.default_rng(seed)
    if priors.perfect_teacher_width is not None:
        found = _annealed(priors, reference, count, rng)
        return [_truth(_symbols(priors, reference, z)[1], z) for z in found]
    truths: list[dict[str, Any]] = []
    for _ in range(1000 * count):
        z = rng.standard_normal((priors.factor.shape[1],))
        with np.errstate(over="ignore"):
            reduced, symbols = _symbols(priors, reference, z)
        if not all(np.isfinite(value) for value in symbols.values()):
            continue
        if not rng.uniform() < np.exp(_log_theory(priors, reduced, reference)):
            continue
        truths.append(_truth(symbols, z))
        if len(truths) == count:
            return truths
    raise ModelError(
        f"Only {len(truths)} of {1000 * count} prior draws satisfy the priors from statements of theory. Widen them."
    )


def _truth(symbols: dict[str, Any], z: np.ndarray) -> dict[str, Any]:
    return {**{name: float(value) for name, value in symbols.items()}, "z": z}


def _symbols(priors: Priors, reference: Reference, z: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the symbols in units of the reference run and in single parameters and tokens, (...), of z, (..., free coordinate)."""
    c = dict(zip(priors.names, np.moveaxis(priors.location + z @ priors.factor.T, -1, 0), strict=True))
    reduced = priors.law.reduced_symbols(c, reference)
    return reduced, priors.law.rescaled(reduced, reference)


def _log_theory(priors: Priors, reduced: dict[str, Any], reference: Reference) -> Any:
    """Return the log density of the priors from statements of theory, up to a constant."""
    return sum(
        statement.log_density(priors.law, reduced, reference, width) for statement, width in priors.theory.items()
    )


def _annealed(priors: Priors, reference: Reference, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw z from the prior with the priors from statements of theory by annealed sequential Monte Carlo, (count, free coordinate).

    The power of the statements' density increases from 0 to 1 such that half of the draws are effective in each step. Draws are
    resampled and moved by elliptical slice sampling (Murray, Adams & MacKay 2010), which requires no tuning under a normal prior.
    """

    def log_density(z: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            reduced, symbols = _symbols(priors, reference, z)
            columns = {name: np.asarray(value)[..., None] for name, value in reduced.items()}
            found = _log_theory(priors, columns, reference)
            undefined = ~np.isfinite(sum(symbols.values()) + found)
        return np.where(undefined, -np.inf, found)

    def moved(z: np.ndarray, density: np.ndarray, power: float) -> tuple[np.ndarray, np.ndarray]:
        other = rng.standard_normal(z.shape)
        threshold = power * density - rng.standard_exponential(len(z))
        angle = rng.uniform(0, 2 * np.pi, len(z))
        low, high = angle - 2 * np.pi, angle.copy()
        z, density, start, left = z.copy(), density.copy(), z, np.arange(len(z))
        while left.size:
            turn = angle[left, None]
            tried = start[left] * np.cos(turn) + other[left] * np.sin(turn)
            found = log_density(tried)
            accepted = power * found > threshold[left]
            z[left[accepted]], density[left[accepted]] = tried[accepted], found[accepted]
            left = left[~accepted]
            below = angle[left] < 0
            low[left[below]], high[left[~below]] = angle[left[below]], angle[left[~below]]
            angle[left] = rng.uniform(low[left], high[left])
        return z, density

    z = rng.standard_normal((max(count, _FEWEST), priors.factor.shape[1]))
    density, power = log_density(z), 0.0
    while power < 1:
        step = _step(density, 1 - power)
        power = min(1.0, power + step)
        weights = np.exp(step * (density - density.max()))
        kept = rng.choice(len(z), len(z), p=weights / weights.sum())
        z, density = z[kept], density[kept]
        for _ in range(_MOVES if power < 1 else _LAST_MOVES):
            z, density = moved(z, density, power)
    return z[rng.permutation(len(z))[:count]]


def _step(density: np.ndarray, largest: float) -> float:
    """Return the largest increase of the power that leaves half of the draws effective."""
    low, high = -40.0, np.log(largest)
    for _ in range(50):
        middle = (low + high) / 2
        weights = np.exp(np.exp(middle) * (density - density.max()))
        low, high = (middle, high) if weights.sum() ** 2 > 0.5 * len(density) * (weights**2).sum() else (low, middle)
    return float(np.exp(high)) if high < np.log(largest) else largest


def simulate_outcomes(
    truth: Draws, runs: pd.DataFrame, rng: np.random.Generator, kind: str = "distilled"
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Simulate losses at the design of runs under a true law.

    Parameters
    ----------
    truth : Draws
        A single draw.
    runs : DataFrame
        Their losses are not used.
    rng : Generator
    kind : {"distilled", "supervised"}

    Returns
    -------
    losses : ndarray, (run,)
        Nats per token.
    effects : dict
        Name of a group effect -> (1, group).
    """
    design = Design.of(truth.law, runs, kind)
    effects = {}
    for effect in truth.law.effects:
        if effect.name in design.groups:
            values = truth[effect.scale.name] * rng.standard_normal(len(design.groups[effect.name][0]))
            effects[effect.name] = (values - effect.sum_to_zero * values.mean())[None]
    center = expected_loss(truth, design) + group_effects(truth, design, effects)
    return (center + residuals(truth, residual_scale(truth, design), rng))[0], effects


def _distilled(draws: Draws, params: float, tokens: float, teacher: Sequence[float]) -> np.ndarray:
    return draws.distilled_loss(params, tokens, draws.supervised_loss(*teacher))


def _gain(
    source: Draws | Deviations, params: float, tokens: float, pretrained: float, teacher: Sequence[float]
) -> np.ndarray:
    """Return pretrained minus distilled loss in nats, (n_draws,): of the mean curves, or with deviations from them."""
    draws = source if isinstance(source, Draws) else source.draws
    curves = draws.supervised_loss(params, pretrained) - _distilled(draws, params, tokens, teacher)
    if isinstance(source, Draws):
        return curves
    return curves + source.difference(params, tokens, draws.supervised_loss(*teacher), pretrained)


def break_even_tokens(truth: Draws, name: str) -> float:
    """Return the pretraining tokens that match the distilled student, for one draw."""
    params, tokens, *teacher = BREAK_EVEN[name]
    law = {symbol: float(value[0]) for symbol, value in truth.items()}
    excess = float(_distilled(truth, params, tokens, teacher)[0]) - law["E"]
    left = excess ** (1 / law["gamma"]) - law["A"] * params ** -law["alpha"] if excess > 0 else 0.0
    with np.errstate(over="ignore"):
        return float(min(MOST_TOKENS, (left / law["B"]) ** (-1 / law["beta"]))) if left > 0 else MOST_TOKENS


def break_even_gain(source: Draws | Deviations, name: str, pretrained: float) -> np.ndarray:
    """Return pretrained minus distilled loss in nats of a decision of BREAK_EVEN, (n_draws,)."""
    params, tokens, *teacher = BREAK_EVEN[name]
    return _gain(source, params, tokens, pretrained, teacher)


def decision_gains(source: Draws | Deviations) -> dict[str, np.ndarray]:
    """Return pretrained minus distilled loss in nats for each of DECISIONS, (n_draws,)."""
    return {name: _gain(source, *one[:3], teacher=one[3:]) for name, one in DECISIONS.items()}


def draws_of_truth(truth: dict[str, Any], law: Law, reference: Reference) -> Draws:
    """Convert a result of `draw_truths` to a single draw; the paths of its discrepancies are a function of `z`."""
    symbols = {name: value for name, value in truth.items() if name != "z"}
    names, seed = [one.name for one in law.discrepancy], zlib.crc32(np.ascontiguousarray(truth["z"]).tobytes())
    paths = Paths.extended(names, 1, {}, np.arange(0), None, seed) if names else None
    return Draws(law, symbols, reference, paths=paths)


def like_fitted(truth: Draws, fitted: Draws) -> Draws:
    """Return a true law for which the runs of the fitted draws are the data: groups that are new to the fit are new to it."""
    ratios = None if fitted.paths is None else fitted.paths.ratios
    paths = None if truth.paths is None else replace(truth.paths, ratios=ratios)
    return replace(truth, groups=fitted.groups, paths=paths)
