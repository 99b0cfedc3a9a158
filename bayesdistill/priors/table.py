"""One named prior per coordinate of the law, each with its reason, and the ways to change them.

Every coordinate c of `coordinates` has a normal prior, so that a prior is a location and a scale, and the model can sample
z ~ Normal(0, 1) with c = location + scale z. Where coordinates are known together (the published supervised law, an earlier
posterior), a covariance takes the place of the scales.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdistill.errors import ParameterError
from bayesdistill.laws import PUBLISHED, supervised_loss
from bayesdistill.priors.coordinates import (
    OWN_SUM_COORDINATES,
    SUPERVISED_COORDINATES,
    Reference,
    supervised_at_reference,
    supervised_coordinates,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Prior:
    """A normal prior on one coordinate.

    Parameters
    ----------
    location, scale : float
        Mean and standard deviation of the coordinate. A scale of 0 fixes it.
    distribution : str
        The same in words, on the scale on which one thinks of it.
    reason : str
        Why this location and this scale.
    """

    location: float
    scale: float
    distribution: str = ""
    reason: str = "given by the user"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.location) and math.isfinite(self.scale) and self.scale >= 0):
            raise ParameterError(f"a prior needs a finite location and a scale >= 0, not {self.location}, {self.scale}")
        if not self.distribution:
            object.__setattr__(self, "distribution", f"Normal({self.location:.4g}, {self.scale:.3g})")


@dataclass(frozen=True)
class Priors:
    """The joint normal prior of all coordinates of a model.

    Parameters
    ----------
    table : mapping
        Coordinate name -> Prior, in the model's order.
    covariance : array, (coordinate, coordinate)
        Of the coordinates. Its diagonal holds the squared scales.
    supervised_law : str
        Where the supervised law comes from: "runs", "published law" or "earlier posterior".
    asymptotic_width : float or None
        Width in nats of the one-sided prior on the asymptotic advantage; None leaves it out.
    """

    table: Mapping[str, Prior]
    covariance: np.ndarray
    supervised_law: str
    asymptotic_width: float | None = None

    def __post_init__(self) -> None:
        width = self.asymptotic_width
        if width is not None and not (math.isfinite(width) and width > 0):
            raise ParameterError(f"asymptotic_width is {width!r}; a positive number of nats, or None, is needed")

    @property
    def names(self) -> tuple[str, ...]:
        """Coordinate names."""
        return tuple(self.table)

    @property
    def location(self) -> np.ndarray:
        """Means, (coordinate,)."""
        return np.array([prior.location for prior in self.table.values()])

    @property
    def free(self) -> np.ndarray:
        """Which coordinates are not fixed, (coordinate,) of bool."""
        return np.diagonal(self.covariance) > 0

    @property
    def factor(self) -> np.ndarray:
        """Lower-triangular factor of the covariance of the free coordinates, (coordinate, free coordinate)."""
        free = self.free
        result = np.zeros((len(self.table), int(free.sum())))
        result[free] = np.linalg.cholesky(self.covariance[np.ix_(free, free)])
        return result


def _log(center: float, scale: float, what: str, reason: str) -> Prior:
    return Prior(math.log(center), scale, f"ln {what} ~ Normal(ln {center:g}, {scale:g})", reason)


SUPERVISED_PRIORS: Mapping[str, Prior] = {
    "log_loss": _log(
        2.5,
        0.45,
        "L at the reference run",
        "loss of a middling run: 1.0 to 6.1 nats per token at two standard deviations, bytes to words",
    ),
    "reducible": Prior(
        -0.6,
        1.1,
        "logit((L - E)/L at the reference run) ~ Normal(-0.6, 1.1)",
        "training can still remove 6 to 83 % of that loss, the rest is the entropy of text",
    ),
    "share": Prior(
        0.0, 1.5, "logit(share of the excess due to size) ~ Normal(0, 1.5)", "either of size and tokens may be short"
    ),
    "log_elasticity_params": _log(
        0.12, 0.7, "elasticity in N", "published laws have 0.1 to 0.16; a factor of 4 either way is possible"
    ),
    "log_elasticity_tokens": _log(
        0.2, 0.7, "elasticity in D", "published laws have 0.08 to 0.2; a factor of 4 either way"
    ),
    "log_gamma": _log(0.7, 0.4, "gamma", "between the form of Hoffmann et al. (1) and that of Busbridge et al. (0.45)"),
}

DISTILLATION_PRIORS: Mapping[str, Prior] = {
    "log_excess_S": Prior(
        -1.7,
        1.0,
        "ln(L_S - L_T) at the reference run ~ Normal(-1.7, 1)",
        "a student stays 0.02 to 1.3 nats above a middling teacher",
    ),
    "share_S": Prior(
        0.0, 1.5, "logit(share of the excess due to size) ~ Normal(0, 1.5)", "either of size and tokens may be short"
    ),
    "log_elasticity_params_S": _log(0.12, 0.7, "elasticity in N_S", "as in the supervised law"),
    "log_elasticity_tokens_S": _log(0.2, 0.7, "elasticity in D_S", "as in the supervised law"),
    "log_gamma_S": _log(0.7, 0.4, "gamma_S", "as in the supervised law"),
    "teacher_power": Prior(
        2.0,
        1.5,
        "power ~ Normal(2, 1.5)",
        "the excess grows as the teacher improves, with a power that is not known well; c0 of equation 8",
    ),
    "log_gap_strength": _log(
        2.0, 0.7, "s", "G(1): a teacher no better than the student removes most of the excess, 1 - exp(-s)"
    ),
    "log_gap_slope": _log(
        15.0,
        0.7,
        "k",
        "dG/dln L_T at r = 1: the gap opens within some 10 % of the teacher's loss, sharp but not a step",
    ),
    "gap_curvature": Prior(
        0.0,
        2.0,
        "x ~ Normal(0, 2), u = 0.03 softplus(x)",
        "u below 0.01 is a pure power of r, above 0.1 a kink; the data decide, the rest is nearly flat in u",
    ),
}

TIED_PRIORS: Mapping[str, Prior] = {
    "log_power_S": _log(
        1.0,
        0.7,
        "gamma_S / gamma",
        "the excess grows as the student's own reducible loss, or as a power of it between 1/4 and 4",
    ),
}

WEAK_TEACHER_PRIORS: Mapping[str, Prior] = {
    "logit_w1": Prior(
        math.log(0.05 / 0.95),
        1.5,
        "logit(w1) ~ Normal(logit 0.05, 1.5)",
        "share of max(L_T - Lsup, 0) that a student recovers: from none (equation 8) to half of it",
    ),
}

SOFT_TARGETS_PRIORS: Mapping[str, Prior] = {
    "log_kappa": Prior(
        0.0,
        1.0,
        "ln(kappa) ~ Normal(0, 1)",
        "a token with the teacher's distribution is worth 0.14 to 7 tokens of text to the student's ability; 1 is equation 8",
    ),
}

OMEGA_PRIORS: Mapping[str, Prior] = {
    "logit_omega": Prior(
        2.0,
        1.5,
        "logit(omega) ~ Normal(2, 1.5)",
        "the entropy of text is the same for teacher and student, so that what either can still learn is compared (1), but"
        " equation 8 compares losses (0): 0.27 to 0.993",
    ),
}

EFFECT_PRIORS: Mapping[str, Mapping[str, Prior]] = {
    "teacher": {
        "log_sigma_teacher": _log(
            0.004, 0.7, "sigma_teacher", "runs of one teacher share 0.001 to 0.016 nats of misfit"
        ),
    },
    "student": {
        "log_sigma_student": _log(
            0.01,
            0.7,
            "sigma_student",
            "a law misses a student configuration by 0.0025 to 0.04 nats, about the tolerance"
            " with which the published law is taken",
        ),
    },
    "student_slope": {
        "log_sigma_student_slope": _log(
            0.003,
            0.7,
            "sigma_student_slope",
            "a law misses what a teacher worse by 10 % does to one student configuration by 0.001 to 0.012 nats",
        ),
    },
}

NOISE_FORM_PRIORS: Mapping[str, Mapping[str, Prior]] = {
    "constant": {},
    "ratio": {
        "noise_ratio": Prior(
            0.0, 0.3, "noise_ratio ~ Normal(0, 0.3)", "d ln(sigma) when ln r grows by 0.1: a factor of 0.5 to 2"
        ),
    },
    "tokens": {
        "noise_tokens": Prior(
            0.0, 0.3, "noise_tokens ~ Normal(0, 0.3)", "d ln(sigma) / d ln(D_S): longer runs may scatter less or more"
        ),
    },
}

NOISE_PRIORS: Mapping[str, Prior] = {
    "log_sigma": _log(
        0.01, 1.0, "sigma", "scatter of runs around the law in nats: 0.001 to 0.07, seeds and misfit together"
    ),
    "log_nu": Prior(
        math.log(9.0),
        1.0,
        "ln(nu - 1) ~ Normal(ln 9, 1)",
        "Student-t tails from nearly Cauchy (2) to nearly normal (70)",
    ),
}

SUPERVISED_NOISE_PRIORS: Mapping[str, Prior] = {
    "log_sigma_supervised": replace(
        NOISE_PRIORS["log_sigma"],
        distribution="ln sigma_supervised ~ Normal(ln 0.01, 1)",
        reason="scatter of the supervised runs, which may come from another study than the distilled ones",
    ),
}

ASYMPTOTIC_WIDTH = 0.005
"""Nats by which distillation may lead pretraining with unlimited data: a law that is right to 0.01 nats may break the
theory by half of that. It costs no fit (docs/explanation/choice_of_model.md)."""

WEAK_TEACHER = True
SOFT_TARGETS = True
OMEGA: float | None = 1.0
TIED_EXPONENTS = True
EFFECTS: tuple[str, ...] = ("student", "student_slope")
NOISE = "constant"
"""The form of the model unless asked otherwise, chosen by what predicts runs of unseen teachers and students
(docs/explanation/choice_of_model.md)."""
EQUATION_8: Mapping[str, Any] = MappingProxyType(
    {
        "weak_teacher": False,
        "soft_targets": False,
        "omega": 0.0,
        "tied_exponents": False,
        "effects": (),
        "noise": "constant",
    }
)
"""Options of `fit` for the law as it is in the paper, with scatter that is the same and independent for all runs."""

PUBLISHED_TOLERANCE = 0.03
"""Nats by which a run of the published study may miss the published supervised law: the law itself is then known to 0.002 to 0.008
nats where it was fitted. The rounding of its printed coefficients alone is 0.002 to 0.004 nats there."""
PUBLISHED_SIZES = (1.43e8, 1.26e10)
"""Non-embedding parameters over which the published supervised law was fitted."""
PUBLISHED_TOKENS_PER_PARAMETER = (10.0, 160.0)
"""Tokens per parameter over which it is taken to hold. Its isoFLOP runs stand around the size that is best for their compute, which
is at 15 tokens a parameter."""
PSEUDO_RUNS = (24, 20)
"""Sizes and ratios of tokens to parameters of the pseudo-runs behind the published-law prior."""


def independent(table: Mapping[str, Prior], supervised_law: str) -> Priors:
    """Priors in which every coordinate is independent of the others."""
    scales = np.array([prior.scale for prior in table.values()])
    return Priors(dict(table), np.diag(scales**2), supervised_law)


def default_priors(
    *,
    distilled: bool,
    supervised: bool,
    reference: Reference,
    tolerance: float = PUBLISHED_TOLERANCE,
    gamma: float | None = None,
    asymptotic_width: float | None = ASYMPTOTIC_WIDTH,
    weak_teacher: bool = WEAK_TEACHER,
    soft_targets: bool = SOFT_TARGETS,
    omega: float | None = OMEGA,
    tied_exponents: bool = TIED_EXPONENTS,
    effects: Sequence[str] = EFFECTS,
    noise: str = NOISE,
) -> Priors:
    """The priors of a model, and with them its form.

    Parameters
    ----------
    distilled, supervised : bool
        Whether distilled and supervised runs enter the likelihood. Without supervised runs the supervised law gets the
        published-law prior.
    reference : Reference
        The run around which the coordinates are centred.
    tolerance : float
        Of the published-law prior, in nats.
    gamma : float, optional
        Fixes the supervised law's gamma; 1 is the form of Hoffmann et al. (2022).
    asymptotic_width : float or None
        Width in nats of the one-sided prior on the asymptotic advantage, used with distilled runs; None leaves it out.
    weak_teacher : bool
        Let students recover a share w1 of what a teacher worse than themselves would cost (see `laws.distilled_loss`).
    soft_targets : bool
        Let a token of distillation be worth kappa tokens of pretraining to the student's ability (see `laws.distilled_loss`).
    omega : float or None
        Share of E that the capacity gap takes off the losses it compares (see `laws.distilled_loss`): 0 is equation 8, 1 compares
        reducible losses; None leaves it free.
    tied_exponents : bool
        Let the distillation law's power sum be a multiple of the one in the student's ability: alpha_S = alpha, beta_S = beta.
    effects : sequence of {"teacher", "student", "student_slope"}
        Shifts shared by the runs of a teacher, or of a student configuration (size and tokens); "student_slope": shifts of a
        configuration that grow with ln L_T (see `laws.teacher_axis`).
    noise : {"constant", "ratio", "tokens"}
        Scatter that is the same for all runs, or depends on r = L_T / Lsup, or on the student's tokens.
    """
    if not (distilled or supervised):
        raise ParameterError("there are no runs: give distilled runs, supervised runs, or both")
    table = dict(SUPERVISED_PRIORS)
    if distilled:
        table |= DISTILLATION_PRIORS
        if tied_exponents:
            table = {name: prior for name, prior in table.items() if name not in OWN_SUM_COORDINATES}
            table |= TIED_PRIORS
        if weak_teacher:
            table |= WEAK_TEACHER_PRIORS
        if soft_targets:
            table |= SOFT_TARGETS_PRIORS
        table |= _omega_prior(omega)
    table |= NOISE_PRIORS
    if distilled:
        table |= _choice(NOISE_FORM_PRIORS, noise, "noise")
        for effect in effects:
            table |= _choice(EFFECT_PRIORS, effect, "effects")
    if distilled and supervised:
        table |= SUPERVISED_NOISE_PRIORS
    priors = independent(table, "runs" if supervised else "published law")
    if not supervised:
        priors = with_block(priors, *published_law_prior(reference, tolerance), "published law")
    if gamma is not None:
        if not supervised:
            raise ParameterError("gamma can be fixed only where supervised runs are given")
        if not (math.isfinite(gamma) and gamma > 0):
            raise ParameterError(f"gamma is {gamma!r}; a positive number is needed")
        fixed = Prior(math.log(gamma), 0.0, f"gamma = {gamma:g}", "fixed by the user")
        priors = with_priors(priors, {"log_gamma": fixed})
    return replace(priors, asymptotic_width=asymptotic_width if distilled else None)


def _omega_prior(omega: float | None) -> Mapping[str, Prior]:
    if omega is None:
        return OMEGA_PRIORS
    if not 0 <= omega <= 1:
        raise ParameterError(f"omega is {omega!r}; a share from 0 to 1 is needed, or None to leave it free")
    if omega == 0:
        return {}
    reason = "the entropy of text is the same for teacher and student: what either can still learn is compared"
    return {"omega": Prior(float(omega), 0.0, f"omega = {omega:g}", reason if omega == 1 else "fixed by the user")}


def _choice(options: Mapping[str, Mapping[str, Prior]], asked: str, argument: str) -> Mapping[str, Prior]:
    if asked not in options:
        raise ParameterError(f"{argument}: there is no {asked!r}; choose from {', '.join(map(repr, options))}")
    return options[asked]


def with_block(priors: Priors, table: Mapping[str, Prior], covariance: np.ndarray, supervised_law: str) -> Priors:
    """The same priors with a block of coordinates replaced by jointly normal ones."""
    unknown = [name for name in table if name not in priors.table]
    if unknown:
        raise ParameterError(f"the model has no coordinate {', '.join(unknown)}")
    index = [priors.names.index(name) for name in table]
    joint = priors.covariance.copy()
    joint[index, :] = 0.0
    joint[:, index] = 0.0
    joint[np.ix_(index, index)] = covariance
    return replace(priors, table={**priors.table, **table}, covariance=joint, supervised_law=supervised_law)


def with_priors(priors: Priors, changes: Mapping[str, Prior]) -> Priors:
    """The same priors with single coordinates replaced, each independent of the rest.

    Raises
    ------
    ParameterError
        If the model has no coordinate of that name; the message lists those it has.
    """
    for name, prior in changes.items():
        if name not in priors.table:
            raise ParameterError(f"the model has no coordinate {name!r}; it has {', '.join(priors.names)}")
        if not isinstance(prior, Prior):
            raise ParameterError(f"the prior of {name} is {prior!r}; give a bayesdistill.Prior(location, scale)")
        priors = with_block(priors, {name: prior}, np.array([[prior.scale**2]]), priors.supervised_law)
    return priors


def published_law_prior(
    reference: Reference,
    tolerance: float = PUBLISHED_TOLERANCE,
    tokens_per_parameter: tuple[float, float] = PUBLISHED_TOKENS_PER_PARAMETER,
) -> tuple[dict[str, Prior], np.ndarray]:
    """The published supervised law as a joint normal prior on its coordinates.

    The Laplace approximation of what 480 pseudo-runs would say: 24 sizes from 143M to 12.6B parameters, each at 20 ratios
    from 10 to 160 tokens a parameter, lying on the published law, each with a standard deviation of `tolerance`; times the
    independent priors' scales. With as many runs as a large study has, the law itself is known to 0.07 to 0.27 of the
    tolerance within that range (0.11 in mean square), and less and less outside. Independent priors on single
    coefficients would make it far too wide, because A, alpha and E trade off against each other. With a tolerance of 0.1
    the distilled runs bend the supervised law by up to 0.035 nats inside its range and 0.17 with unlimited data, to make up
    for what the distillation law misses (docs/explanation/published_law.py).

    Parameters
    ----------
    reference : Reference
    tolerance : float
        Nats.
    tokens_per_parameter : (float, float)
        Of the pseudo-runs, fewest and most.

    Returns
    -------
    table : dict
        Coordinate -> Prior, with the marginal scales.
    covariance : array, (coordinate, coordinate)
    """
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise ParameterError(f"tolerance is {tolerance!r}; a positive number of nats is needed")
    center = supervised_coordinates(PUBLISHED, reference)
    location = np.array([float(center[name]) for name in SUPERVISED_COORDINATES])
    size = np.geomspace(*PUBLISHED_SIZES, PSEUDO_RUNS[0])[:, None]
    tokens = size * np.geomspace(*tokens_per_parameter, PSEUDO_RUNS[1])

    def loss(values: np.ndarray) -> np.ndarray:
        law = supervised_at_reference(dict(zip(SUPERVISED_COORDINATES, values, strict=True)))
        law |= {"A": law.pop("A_ref"), "B": law.pop("B_ref")}
        return np.ravel(supervised_loss(size / reference.params, tokens / reference.tokens, **law))

    step = 1e-5
    jacobian = np.stack(
        [(loss(location + h) - loss(location - h)) / (2 * step) for h in step * np.eye(location.size)], axis=1
    )
    scales = np.array([SUPERVISED_PRIORS[name].scale for name in SUPERVISED_COORDINATES])
    covariance = np.linalg.inv(jacobian.T @ jacobian / tolerance**2 + np.diag(scales**-2))
    reason = f"published law of Busbridge et al. (2025), 480 pseudo-runs with a tolerance of {tolerance:g} nats"
    table = {
        name: Prior(float(where), float(scale), f"jointly Normal, marginally Normal({where:.4g}, {scale:.2g})", reason)
        for name, where, scale in zip(SUPERVISED_COORDINATES, location, np.sqrt(np.diagonal(covariance)), strict=True)
    }
    return table, covariance


def prior_frame(priors: Priors) -> pd.DataFrame:
    """The priors as a table: one row per coordinate, columns `location`, `scale`, `distribution`, `reason`."""
    import pandas as pd

    rows: Sequence[dict[str, Any]] = [
        {
            "coordinate": name,
            "location": prior.location,
            "scale": prior.scale,
            "distribution": prior.distribution,
            "reason": prior.reason,
        }
        for name, prior in priors.table.items()
    ]
    if priors.asymptotic_width is not None:
        rows = [
            *rows,
            {
                "coordinate": "asymptotic_advantage",
                "location": 0.0,
                "scale": priors.asymptotic_width,
                "distribution": f"max(a, 0) ~ Normal(0, {priors.asymptotic_width:g}), a <= 0 is free",
                "reason": "with unlimited data distillation cannot beat pretraining of the same student, and equation 8 does"
                " not know it; a is the lead in nats, in mean square over students around the reference size",
            },
        ]
    return pd.DataFrame(rows).set_index("coordinate")
