"""Laws drawn from the prior, runs simulated from them, and what they would have decided.

Written without the PyMC model on purpose: calibration would not notice an error that model and simulator share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdistill.criticism.predictions import expected_losses, scatter_scale, shared_shifts
from bayesdistill.errors import ModelError
from bayesdistill.laws import (
    EXTENSION_PARAMETERS,
    LAW_PARAMETERS,
    SUPERVISED_PARAMETERS,
    asymptotic_advantage,
    distilled_loss,
    supervised_loss,
)
from bayesdistill.priors import ASYMPTOTIC_SIZES, Priors, Reference
from bayesdistill.priors.coordinates import (
    DISTILLATION_COORDINATES,
    NOISE_COORDINATES,
    SUPERVISED_COORDINATES,
    law_at_reference,
    natural_parameters,
)
from bayesdistill.shifts import EFFECT_SCALES, student_configurations, teacher_labels

if TYPE_CHECKING:
    import pandas as pd

DECISIONS = {
    # name: student parameters, tokens when distilled, tokens when pretrained, teacher parameters and tokens.
    # Teachers already paid for: equal tokens; teachers to be paid for: the pretrained student gets their compute too.
    "300M, equal tokens": (3e8, 3e10, 3e10, 3e9, 6e10),
    "1B, equal tokens": (1e9, 1e11, 1e11, 7e9, 1.4e11),
    "1B, twice the tokens for pretraining": (1e9, 5e10, 1e11, 3e9, 6e10),
    "3B, five times the tokens for pretraining": (3e9, 6e10, 3e11, 7e9, 1.4e11),
}
"""Fixed choices whose outcome is asked of every truth and every posterior. The one-sided prior on the advantage leaves next to
no law under which distillation wins these, so that there are also BREAK_EVEN."""

BREAK_EVEN = {
    # name: student parameters, tokens when distilled, teacher parameters and tokens.
    "300M, near break-even": (3e8, 3e10, 3e9, 6e10),
    "1B, near break-even": (1e9, 1e11, 7e9, 1.4e11),
    "3B, near break-even": (3e9, 6e10, 7e9, 1.4e11),
}
"""Choices that are as open as the posterior: the pretrained student gets the tokens at which a draw of the posterior, taken at
random, says that both are equal. What is known when choosing may decide what is asked; the probabilities must be right still."""
MOST_TOKENS = 1e18
"""Tokens where a draw says that pretraining never gets there."""

SCATTER_FORMS = ("noise_ratio", "noise_tokens")
"""Coordinates of the scatter that are symbols themselves, and no deterministics of the model."""
GROUP_SCALES = {f"log_{scale}": scale for scale in EFFECT_SCALES.values()}


def draw_truths(priors: Priors, reference: Reference, count: int, seed: int) -> list[dict[str, Any]]:
    """Laws drawn from the prior, the one-sided prior on the asymptotic advantage included (by rejection).

    About one law in 300 has an A_S or B_S beyond the largest float (its exponent is above 30); it is drawn again.

    Returns
    -------
    list of dict
        Parameters under the posterior's names, with those of the scatter, and the coordinates under `z`,
        (free coordinate,).

    Raises
    ------
    ModelError
        If fewer than one draw in a thousand satisfies the asymptotic prior, or the priors hold a coordinate that this
        simulator does not know.
    """
    known = {*SUPERVISED_COORDINATES, *DISTILLATION_COORDINATES, *NOISE_COORDINATES, *SCATTER_FORMS, *GROUP_SCALES}
    unknown = set(priors.names) - known - {"log_power_S", "logit_w1", "log_kappa", "logit_omega", "omega"}
    if unknown:
        raise ModelError(f"runs cannot be simulated from {', '.join(sorted(unknown))}; leave it out of the priors")
    rng = np.random.default_rng(seed)
    truths: list[dict[str, Any]] = []
    for _ in range(1000 * count):
        z = rng.standard_normal(priors.factor.shape[1])
        c = dict(zip(priors.names, priors.location + priors.factor @ z, strict=True))
        with np.errstate(over="ignore"):
            at_reference = law_at_reference(c, reference)
            law = {name: float(value) for name, value in natural_parameters(at_reference, reference).items()}
        if not all(np.isfinite(value) for value in law.values()):
            continue
        accept = rng.uniform()
        if priors.asymptotic_width is not None:
            names = ("E", "alpha", "gamma", "alpha_S", "gamma_S", "c0", "c1", "d1", "f1", "omega")
            lead = asymptotic_advantage(
                np.array(ASYMPTOTIC_SIZES) / 5e8,
                A=at_reference["A_ref"],
                A_S=at_reference["A_S_ref"],
                **{name: at_reference[name] for name in names if name in at_reference},
            )
            if not accept < np.exp(-0.5 * np.mean((np.maximum(lead, 0) / priors.asymptotic_width) ** 2)):
                continue
        scatter = {"sigma": float(np.exp(c["log_sigma"])), "nu": float(1 + np.exp(c["log_nu"]))}
        scatter |= {symbol: float(np.exp(c[name])) for name, symbol in GROUP_SCALES.items() if name in c}
        scatter |= {name: float(c[name]) for name in SCATTER_FORMS if name in c}
        truths.append({**law, **scatter, "z": z})
        if len(truths) == count:
            return truths
    raise ModelError(f"only {len(truths)} of {1000 * count} prior draws satisfy the asymptotic prior; widen it")


def simulate_outcomes(
    truth: dict[str, Any], runs: pd.DataFrame, reference: Reference, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Student losses of the runs' design under a truth, (run,) in nats per token, and the shifts of groups that made them.

    Returns
    -------
    losses : ndarray, (run,)
    effects : dict
        `effect_teacher` (teacher,), `effect_student_configuration` and `effect_student_slope` (configuration,), where the
        truth has their scale.
    """
    effects = {}
    for name, scale in EFFECT_SCALES.items():
        if scale in truth:
            groups = teacher_labels(runs)[0] if name == "effect_teacher" else student_configurations(runs)[0]
            shift = truth[scale] * rng.standard_normal(len(groups))
            effects[name] = shift - shift.mean()  # as in the model, the groups with runs add up to zero
    one = {name: np.asarray(value)[None] for name, value in (truth | effects).items()}
    center = expected_losses(one, runs) + shared_shifts(one, runs, np.ones(len(runs), dtype=bool), reference, rng)
    scatter = scatter_scale(one, runs, reference) * rng.standard_t(truth["nu"], (1, len(runs)))
    return (center + scatter)[0], effects


def _distilled(law: dict[str, Any], params: float, tokens: float, teacher: Sequence[float]) -> np.ndarray:
    alone = {name: law[name] for name in SUPERVISED_PARAMETERS}
    whole = {name: law[name] for name in LAW_PARAMETERS + EXTENSION_PARAMETERS if name in law}
    return np.asarray(distilled_loss(params, tokens, supervised_loss(*teacher, **alone), **whole))


def break_even_tokens(law: dict[str, Any], name: str) -> float:
    """Tokens of pretraining that give the loss of the distilled student of BREAK_EVEN, under one law."""
    params, tokens, *teacher = BREAK_EVEN[name]
    excess = float(_distilled(law, params, tokens, teacher)) - law["E"]
    if excess <= 0:
        return MOST_TOKENS
    left = excess ** (1 / law["gamma"]) - law["A"] * params ** -law["alpha"]
    with np.errstate(over="ignore"):
        return float(min(MOST_TOKENS, (left / law["B"]) ** (-1 / law["beta"]))) if left > 0 else MOST_TOKENS


def break_even_gain(law: dict[str, Any], name: str, pretrained: float) -> np.ndarray:
    """Pretrained minus distilled loss in nats of a choice of BREAK_EVEN; positive where distillation wins."""
    params, tokens, *teacher = BREAK_EVEN[name]
    alone = {symbol: law[symbol] for symbol in SUPERVISED_PARAMETERS}
    distilled = _distilled(law, params, tokens, teacher)
    return np.asarray(supervised_loss(params, pretrained, **alone) - distilled)


def decision_gains(law: dict[str, Any]) -> dict[str, np.ndarray]:
    """Pretrained minus distilled loss in nats for each of DECISIONS; positive where distillation wins."""
    alone = {name: law[name] for name in SUPERVISED_PARAMETERS}
    return {
        name: np.asarray(supervised_loss(params, pretrained, **alone) - _distilled(law, params, tokens, teacher))
        for name, (params, tokens, pretrained, *teacher) in DECISIONS.items()
    }
