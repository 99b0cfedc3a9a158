"""Predictive distribution of runs: law, group effects and residual noise, in numpy.

Mean and scale are the functions of `Law` that the PyMC model uses too. Everything here has the shape (n_draws, run), except
`RunNoise`, which serves grids of runs of any shape.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdistill.arguments import SEED
from bayesdistill.errors import ParameterError
from bayesdistill.law.draws import Draws
from bayesdistill.law.effects import GroupEffect, Groups
from bayesdistill.law.forms import Law
from bayesdistill.law.parameters import Reference
from bayesdistill.law.term import Student, Values

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "distilled": ("student_params", "student_tokens", "teacher_loss"),
    "supervised": ("params", "tokens"),
}
OUTCOME: Mapping[str, str] = {"distilled": "student_loss", "supervised": "loss"}
"""Columns of a table of runs: its design, and what was measured."""
LABELS: Mapping[str, tuple[str, ...]] = {"distilled": ("teacher", "student", "experiment"), "supervised": ("model",)}
"""Columns of labels that a fit stores."""


@dataclass(frozen=True)
class Design:
    """Runs without their outcomes.

    Parameters
    ----------
    kind : {"distilled", "supervised"}
    params, tokens : ndarray, (run,)
        Of the model that the run trains.
    teacher_loss : ndarray, (run,), optional
        Nats per token; of distilled runs.
    groups : mapping
        Name of a group effect -> labels of its groups and the index of each run's, for the effects that these runs have.
    """

    kind: str
    params: np.ndarray
    tokens: np.ndarray
    teacher_loss: np.ndarray | None = None
    groups: Mapping[str, Groups] = field(default_factory=dict)

    @classmethod
    def of(cls, law: Law, table: pd.DataFrame, kind: str = "distilled") -> Design:
        """The design of a table of runs, with the groups of a law's effects."""
        params, tokens, *teacher = (table[name].to_numpy(dtype=float) for name in COLUMNS[kind])
        groups = {effect.name: effect.groups(table) for effect in law.effects if effect.kind == kind}
        return cls(kind, params, tokens, teacher[0] if teacher else None, groups)

    @property
    def along(self) -> np.ndarray:
        """Covariate of the slopes of group effects, (run,): teacher loss of distilled runs, tokens of supervised runs."""
        return self.tokens if self.teacher_loss is None else self.teacher_loss

    @property
    def group_lists(self) -> dict[str, list[Any]]:
        """Labels of the groups of every effect and the index of each run's, as JSON stores them."""
        return {name: [list(labels), index.tolist()] for name, (labels, index) in self.groups.items()}


def expected_loss(draws: Draws, design: Design) -> np.ndarray:
    """The loss of every run that the law with its discrepancy expects under every draw, (n_draws, run), nats per token."""
    curve = curve_loss(draws, design)
    if draws.paths is None:
        return curve
    return np.asarray(curve + draws.discrepancy(design.kind, design.params[:, None], design.tokens[:, None]).T)


def curve_loss(draws: Draws, design: Design) -> np.ndarray:
    """The law's mean curve at every run under every draw, (n_draws, run), nats per token."""
    p = draws.columns
    if design.kind == "supervised":
        return np.asarray(draws.law.supervised_loss(design.params, design.tokens, p))
    student = draws.law.student(design.params, design.tokens, p)
    return np.asarray(draws.law.distilled_loss(student, design.teacher_loss, p))


def residual_scale_of(law: Law, student: Student, teacher_loss: Any, p: Values, reference: Reference) -> Any:
    """Scale of a distilled run's residual, in arrays or tensors; everything broadcasts."""
    factor = (
        1.0 if law.residual_noise.factor is None else law.residual_noise.factor(student, teacher_loss, p, reference)
    )
    return p["sigma"] * factor


def residual_scale(draws: Draws, design: Design) -> np.ndarray:
    """Scale of the Student-t residual of every run under every draw, (n_draws, run), nats per token."""
    require_noise(draws)
    p = draws.columns
    if design.kind == "supervised":
        scale = supervised_residual_scale(draws.law, curve_loss(draws, design), p, draws.reference)
    elif draws.law.residual_noise.factor is None:
        scale = p["sigma"]
    else:
        student = draws.law.student(design.params, design.tokens, p)
        scale = residual_scale_of(draws.law, student, design.teacher_loss, p, draws.reference)
    return np.broadcast_to(scale, (draws.n_draws, design.params.size))


def supervised_residual_scale(law: Law, loss: Any, p: Values, reference: Reference) -> Any:
    """Scale of a supervised run's residual, given the law's loss in nats per token, in arrays or tensors; everything broadcasts."""
    sigma = p["sigma_supervised" if law.supervised_noise else "sigma"]
    factor = law.supervised_residual_noise.supervised_factor
    if factor is None:
        return sigma
    return sigma * factor(loss, law.supervised_loss(reference.params, reference.tokens, p), p)


def has_noise(draws: Draws) -> bool:
    """Return whether the draws have a symbol of the residual noise, the group effects or the discrepancy that the law does not fix."""
    known = {*draws.law.symbols_of_law, *draws.law.fixed}
    return any(p.name in draws for p in draws.law.parameters if p.name not in known)


def require_noise(draws: Draws) -> None:
    """Raise an error if the draws lack a symbol of the residual noise or of the group effects.

    Raises
    ------
    ParameterError
    """
    missing = [p.name for p in draws.law.parameters if p.name not in draws]
    if missing:
        raise ParameterError(
            f"The posterior has no {' and no '.join(missing)}, so the residual noise of single runs is unknown. "
            "Use a fit that bd.fit returned, or noise='law' where there is a choice."
        )
    slopes = [effect.scale.name for effect in draws.law.effects if effect.slope]
    if (slopes or draws.law.residual_noise.factor is not None) and np.isnan(draws.reference.teacher_loss):
        raise ParameterError(
            f"The posterior has {', '.join(slopes) or 'residual noise that depends on the run'}, but no attribute 'reference', the "
            "run around which it is defined. Keep the attributes of the posterior of a fit."
        )


def group_effects(draws: Draws, design: Design, effects: Mapping[str, np.ndarray]) -> np.ndarray:
    """Sum of the group effects of every run, (n_draws, run), nats per token.

    Parameters
    ----------
    draws : Draws
    design : Design
    effects : mapping
        Name of a group effect -> (n_draws, group).
    """
    total = np.zeros((draws.n_draws, design.params.size))
    for effect in _effects_of(draws.law, design):
        covariate = effect.covariate(design.along, draws.reference)
        total = total + covariate * effects[effect.name][:, design.groups[effect.name][1]]
    return total


def _effects_of(law: Law, design: Design) -> list[GroupEffect]:
    return [effect for effect in law.effects if effect.name in design.groups]


def new_group_scale(effect: GroupEffect, scale: Any, groups: int | None) -> Any:
    """Standard deviation of the effect of a group that is not in the data.

    If the effects of the groups in the data sum to zero, an effect is relative to their mean, which differs from the mean of all
    groups by the scale divided by the square root of their number.
    """
    return scale * np.sqrt(1 + 1 / groups) if groups and effect.sum_to_zero else scale


def with_new_groups(
    draws: Draws, design: Design, effects: Mapping[str, np.ndarray], kept: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The effects of all groups, with new draws for groups that have no run among `kept`, (run,)."""
    found = {}
    for effect in _effects_of(draws.law, design):
        labels, index = design.groups[effect.name]
        unseen = np.setdiff1d(np.arange(len(labels)), index[kept])
        spread = new_group_scale(effect, draws[effect.scale.name], max(len(labels) - unseen.size, 1))
        values = np.array(effects[effect.name])
        values[:, unseen] = spread[:, None] * rng.standard_normal((draws.n_draws, unseen.size))
        found[effect.name] = values
    return found


def new_run_scale(draws: Draws, design: Design) -> np.ndarray:
    """Scale of every run as a run of new groups, (n_draws, run), nats per token.

    The variances of the group effects are added to the squared residual scale, so a run has one Student-t distribution.
    """
    variance = residual_scale(draws, design) ** 2
    for effect in draws.law.effects:
        if effect.applies_to(design.kind, draws.law.supervised_noise):
            spread = new_group_scale(effect, draws[effect.scale.name], draws.groups.get(effect.name))
            covariate = effect.covariate(design.along, draws.reference)
            variance = variance + (spread[:, None] * covariate) ** 2
    return np.asarray(np.sqrt(variance))


def standard_residuals(nu: Any, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Student-t random numbers with nu degrees of freedom, or normal ones if nu is infinite."""
    if np.ndim(nu) == 0 and np.isinf(float(nu)):
        return rng.standard_normal(shape)
    return rng.standard_t(np.broadcast_to(nu, shape))


def logpdf(observed: Any, center: Any, scale: Any, nu: Any) -> np.ndarray:
    """Log density of losses under Student-t distributions; everything broadcasts."""
    from scipy.special import gammaln

    constant = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi) - np.log(scale)
    return np.asarray(constant - (nu + 1) / 2 * np.log1p(((observed - center) / scale) ** 2 / nu))


def cdf(observed: Any, center: Any, scale: Any, nu: Any) -> np.ndarray:
    """Probability of a loss below the observed one under Student-t distributions; everything broadcasts."""
    from scipy.special import stdtr

    return np.asarray(stdtr(nu, (observed - center) / scale))


def residuals(draws: Draws, scale: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random residuals of runs with these scales, (n_draws, run), nats per token."""
    return scale * standard_residuals(draws["nu"][:, None], scale.shape, rng)


SHARED = 0.75
"""Assumed correlation of the effects that a student configuration has on a distilled and on a pretrained run. In trials on the tiny
experiment, effects of distilled configurations and residuals of pretrained runs of the same size and tokens correlated by 0.35 to
0.77. These residuals contain the noise of single runs, so the effects themselves correlate more."""


def pretrained_effect_scale(draws: Draws, effect: GroupEffect) -> np.ndarray:
    """Standard deviation of the effect that a student configuration has on a pretrained run, (n_draws,), nats per token.

    Without supervised runs, it equals the standard deviation for distilled runs. Otherwise, the residual scale of supervised runs
    contains it, with the same fraction of the variance as for distilled runs.
    """
    scale = new_group_scale(effect, draws[effect.scale.name], draws.groups.get(effect.name))
    if not draws.law.supervised_noise:
        return np.asarray(scale)
    return np.asarray(draws["sigma_supervised"] * scale / np.sqrt(scale**2 + draws["sigma"] ** 2))


def pretrained_noise_factor(draws: Draws) -> np.ndarray:
    """Fraction of the residual scale of a pretrained run that remains without the effects of its student configuration, (n_draws,)."""
    left = np.ones(draws.n_draws)
    if draws.law.supervised_noise:
        for effect in draws.law.effects:
            if effect.of_pretrained:
                left = left - (pretrained_effect_scale(draws, effect) / draws["sigma_supervised"]) ** 2
    return np.sqrt(np.maximum(left, 0.0))


def shared_effect(draws: Draws, effect: GroupEffect, distilled: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Effect of a student configuration on a pretrained run, nats per token.

    Parameters
    ----------
    draws : Draws
    effect : GroupEffect
    distilled : ndarray, (n_draws, ...)
        Effect of the configuration on distilled runs, nats per token.
    own : ndarray, (n_draws, ...)
        Standard normal numbers.
    """
    new = new_group_scale(effect, draws[effect.scale.name], draws.groups.get(effect.name))
    of_draw = (slice(None), *(None,) * (distilled.ndim - 1))
    common = SHARED * distilled / np.where(new > 0, new, 1.0)[of_draw]  # 0 in draws of a law without the effect
    return np.asarray(pretrained_effect_scale(draws, effect)[of_draw] * (common + np.sqrt(1 - SHARED**2) * own))


@dataclass(frozen=True)
class Deviations:
    """Deviations from the law's mean curves of one distilled and one pretrained run, the same pair everywhere.

    One pair is drawn for each posterior draw, independently of where it is evaluated: answers do not depend on the order or the
    extent of a grid, and curves over it are smooth. Both runs belong to groups that are not in the data.

    Parameters
    ----------
    draws : Draws
    residual, pretrained_residual : ndarray, (n_draws,)
        Student-t(nu) residuals in units of their scales; 0 without residual noise.
    effects, pretrained_effects : mapping
        Name of a group effect -> (n_draws,), nats per token.
    """

    draws: Draws
    residual: np.ndarray
    pretrained_residual: np.ndarray
    effects: Mapping[str, np.ndarray]
    pretrained_effects: Mapping[str, np.ndarray]

    @classmethod
    def draw(cls, draws: Draws, seed: int, noise: str = "run") -> Deviations:
        """Draw one pair of runs per posterior draw.

        The effects of the student configuration on the two runs have the correlation SHARED.

        Parameters
        ----------
        draws : Draws
        seed : int
        noise : {"expected", "run"}
            Without or with residual noise.

        Raises
        ------
        ParameterError
            If the draws lack the residual noise.
        """
        require_noise(draws)
        seed = SEED(seed, "seed")
        rng = np.random.default_rng(seed)
        residual, pretrained = rng.standard_t(draws["nu"]), rng.standard_t(draws["nu"]) * pretrained_noise_factor(draws)
        if noise == "expected":
            residual, pretrained = 0 * residual, 0 * pretrained
        own, other = {}, {}
        for effect in draws.law.effects:
            # Use a separate stream, so that an effect does not depend on which others a law has.
            stream = np.random.default_rng([seed, zlib.crc32(effect.name.encode())])
            spread = new_group_scale(effect, draws[effect.scale.name], draws.groups.get(effect.name))
            first, second = stream.standard_normal((2, draws.n_draws))
            if effect.kind == "distilled":
                own[effect.name] = spread * first
            if effect.of_pretrained:
                other[effect.name] = shared_effect(draws, effect, spread * first, second)
            elif effect.kind == "supervised":
                other[effect.name] = spread * second
        return cls(draws, residual, pretrained, own, other)

    def take(self, index: Any) -> Deviations:
        """Return the deviations of some of the posterior draws."""
        own, other = ({k: v[index] for k, v in e.items()} for e in (self.effects, self.pretrained_effects))
        return Deviations(self.draws.take(index), self.residual[index], self.pretrained_residual[index], own, other)

    def distilled(self, params: Any, tokens: Any, teacher_loss: Any) -> np.ndarray:
        """Deviation of the distilled run, (..., n_draws); arguments (..., 1) or (..., n_draws), nats per token."""
        draws, law = self.draws, self.draws.law
        student = draws.student(params, tokens) if law.residual_noise.factor is not None else None
        scale = residual_scale_of(law, student, teacher_loss, draws.symbols, draws.reference)  # type: ignore[arg-type]
        total = scale * self.residual + draws.discrepancy("distilled", params, tokens)
        for effect in law.effects:
            if effect.name in self.effects:
                total = total + effect.covariate(teacher_loss, draws.reference) * self.effects[effect.name]
        return np.asarray(total)

    def pretrained(self, params: Any, tokens: Any) -> np.ndarray:
        """Deviation of the pretrained run, (..., n_draws), nats per token; arguments (..., 1) or (..., n_draws)."""
        law, p = self.draws.law, self.draws.symbols
        loss = law.supervised_loss(params, tokens, p)
        total = supervised_residual_scale(law, loss, p, self.draws.reference) * self.pretrained_residual
        total = total + self.draws.discrepancy("supervised", params, tokens)
        for effect in law.effects:
            if effect.name in self.pretrained_effects:
                covariate = effect.covariate(tokens, self.draws.reference)
                total = total + covariate * self.pretrained_effects[effect.name]
        return np.asarray(total)

    def difference(self, params: Any, tokens: Any, teacher_loss: Any, pretraining_tokens: Any) -> np.ndarray:
        """Deviation of the pretrained run minus deviation of the distilled run, (..., n_draws), nats per token."""
        return self.pretrained(params, pretraining_tokens) - self.distilled(params, tokens, teacher_loss)
