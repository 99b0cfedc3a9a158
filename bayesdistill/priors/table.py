"""One named prior per coordinate of the law, each with its reason, and the ways to change them.

Every coordinate c of `coordinates` has a normal prior, so that a prior is a location and a scale, and the model can sample
z ~ Normal(0, 1) with c = location + scale z. Where coordinates are known together (the published supervised law, an earlier
posterior), a covariance takes the place of the scales.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdistill.errors import ParameterError
from bayesdistill.law import PUBLISHED, SUPERVISED_SYMBOLS, Law, Prior, Reference, as_law
from bayesdistill.law.terms import TERMS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Priors:
    """The joint normal prior of all coordinates of a law.

    Parameters
    ----------
    law : Law
    table : mapping
        Coordinate name -> Prior, in the model's order.
    covariance : array, (coordinate, coordinate)
        Of the coordinates. Its diagonal holds the squared scales.
    supervised_law : str
        Where the supervised law comes from: "runs", "published law" or "earlier posterior".
    asymptotic_width : float or None
        Width in nats of the one-sided prior on the asymptotic advantage; None leaves it out.
    """

    law: Law
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


ASYMPTOTIC_WIDTH = 0.005
"""Nats by which distillation may lead pretraining with unlimited data: a law that is right to 0.01 nats may break the
theory by half of that. It costs no fit (docs/explanation/choice_of_model.md)."""

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


def default_priors(
    law: Law | str,
    reference: Reference,
    *,
    tolerance: float = PUBLISHED_TOLERANCE,
    asymptotic_width: float | None = ASYMPTOTIC_WIDTH,
) -> Priors:
    """Return the default priors of a law.

    Parameters
    ----------
    law : Law or str
        As `Law.for_runs` returned it: without supervised runs the supervised law gets the published-law prior. A name in `LAWS`
        stands for that law and distilled runs alone.
    reference : Reference
        The run around which the coordinates are centered.
    tolerance : float
        Of the published-law prior, in nats.
    asymptotic_width : float or None
        Width in nats of the one-sided prior on the asymptotic advantage, used with distilled runs; None omits it.
    """
    law = as_law(law)
    published = law.distills and not law.supervised_noise
    table = {}
    for coordinate in law.every_coordinate:
        if coordinate.symbol in law.fixed:
            value = law.fixed[coordinate.symbol]
            table[coordinate.symbol] = Prior(value, 0.0, f"{coordinate.symbol} = {value:g}", "fixed by the law")
        else:
            table[coordinate.name] = coordinate.prior
    scales = np.array([prior.scale for prior in table.values()])
    priors = Priors(law, table, np.diag(scales**2), "published law" if published else "runs")
    if published:
        fixed = [name for name in SUPERVISED_SYMBOLS if name in law.fixed]
        if fixed:
            raise ParameterError(
                f"The law fixes {fixed[0]}, which requires supervised runs: without them the supervised law comes from the "
                "published-law prior."
            )
        priors = with_block(priors, *published_law_prior(reference, tolerance), "published law")
    return replace(priors, asymptotic_width=asymptotic_width if law.distills else None)


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
    law = Law("supervised", "", (TERMS["supervised"],))
    names = tuple(coordinate.name for coordinate in TERMS["supervised"].coordinates)
    center = law.coordinates_of(PUBLISHED, reference)
    location = np.array([float(center[name]) for name in names])
    size = np.geomspace(*PUBLISHED_SIZES, PSEUDO_RUNS[0])[:, None]
    tokens = size * np.geomspace(*tokens_per_parameter, PSEUDO_RUNS[1])

    def loss(values: np.ndarray) -> np.ndarray:
        p = law.reduced_symbols(dict(zip(names, values, strict=True)), reference)
        return np.ravel(law.supervised_loss(size / reference.params, tokens / reference.tokens, p))

    step = 1e-5
    jacobian = np.stack(
        [(loss(location + h) - loss(location - h)) / (2 * step) for h in step * np.eye(location.size)], axis=1
    )
    scales = np.array([coordinate.prior.scale for coordinate in TERMS["supervised"].coordinates])
    covariance = np.linalg.inv(jacobian.T @ jacobian / tolerance**2 + np.diag(scales**-2))
    reason = f"published law of Busbridge et al. (2025), 480 pseudo-runs with a tolerance of {tolerance:g} nats"
    table = {
        name: Prior(float(where), float(scale), f"jointly Normal, marginally Normal({where:.4g}, {scale:.2g})", reason)
        for name, where, scale in zip(names, location, np.sqrt(np.diagonal(covariance)), strict=True)
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
