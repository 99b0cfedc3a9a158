"""Use an earlier posterior as the prior of a new study, with reduced weight.

The likelihood of the earlier runs is raised to the power 1 / widen^2 (power prior of Ibrahim and Chen 2000, Statistical Science 15,
46), in a normal approximation. Standard deviations that the earlier runs determine are multiplied by `widen`; standard deviations
that the independent priors determine do not change. Scaling the whole posterior instead would also widen the independent
priors and put most of the prior mass on implausible laws.

For a study of another corpus, `shape_prior_from_draws` keeps the shape alone (exponents, capacity gap, kappa: `Coordinate.shape`). Its
coordinates are dimensionless. They are computed at the reference run of the earlier study: at the reference run of the new one, the
law of another corpus would be extrapolated. Partial pooling: the shapes of two studies have the default prior, with standard
deviation s, and a correlation of 1 - b^2 / 2, so that their difference has the standard deviation b s. With several earlier studies,
every pair of studies has this correlation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bayesdistill.arguments import checked
from bayesdistill.errors import ParameterError
from bayesdistill.law import Draws, Law, Prior, Reference
from bayesdistill.priors.table import joint_priors

BETWEEN_STUDIES = 0.5
"""Standard deviation of the difference between the shapes of two studies, in standard deviations of the default prior. The shapes
of the packaged studies "busbridge2025" and "tiny" differ by 0.53 in root mean square (docs/explanation/transfer.md)."""


def coordinates_of_draws(draws: Draws, reference: Reference) -> dict[str, np.ndarray]:
    """Return the coordinates of every draw at a reference run, (n_draws,) each.

    Parameters
    ----------
    draws : Draws
        Draws of the earlier law.
    reference : Reference
    """
    values = draws.law.coordinates_of(draws, reference)
    return {name: np.broadcast_to(value, draws.n_draws) for name, value in values.items()}


@checked(draws=None)
def prior_from_draws(draws: Draws, law: Law, reference: Reference, widen: float) -> tuple[dict[str, Prior], np.ndarray]:
    """Return an earlier posterior as a joint normal prior for a new study.

    Parameters
    ----------
    draws : Draws
        The earlier posterior, including the symbols of the residual noise.
    law : Law
        Law of the new study.
    reference : Reference
        Reference run of the new study, at which the coordinates are computed.
    widen : float
        Factor on the standard deviations that the earlier runs determine. A factor of 1 gives the earlier posterior; large
        factors give the independent priors.

    Returns
    -------
    table : dict
        Coordinate -> Prior, with the marginal scales.
    covariance : array, (coordinate, coordinate)

    Raises
    ------
    ParameterError
        If `widen` is below 1 or not a number, or the earlier posterior has too few draws.
    """
    for symbol, value in law.fixed.items():
        earlier = draws.get(symbol)
        if earlier is not None and np.abs(earlier - value).max() > 1e-9:
            raise ParameterError(
                f"The law fixes {symbol} at {value:g}, but the earlier fit that is used as prior has other values. Let it vary with "
                f"law.with_fixed({symbol}=None), or repeat the earlier fit with {symbol} = {value:g}."
            )
    default = {c.name: c.prior for one in (draws.law, law) for c in one.every_coordinate}
    values = coordinates_of_draws(draws, reference)
    values = {name: values[name] for name in default if name in values}  # in the model's order
    matrix = np.stack(list(values.values()))
    if matrix.shape[1] <= 2 * matrix.shape[0]:
        raise ParameterError(
            f"The earlier posterior has {matrix.shape[1]} draws, but a prior of {len(values)} coordinates requires more than "
            f"{2 * matrix.shape[0]}. Refit the earlier model with more draws."
        )
    mean, covariance = matrix.mean(axis=1), np.cov(matrix)
    # Coordinates fixed in the earlier study remain exactly fixed despite rounding errors.
    fixed = np.ptp(matrix, axis=1) < 1e-12
    covariance[fixed, :] = 0.0
    covariance[:, fixed] = 0.0
    free = np.flatnonzero(~fixed)
    location = mean.copy()
    location[free], covariance[np.ix_(free, free)] = _temper(
        mean[free], covariance[np.ix_(free, free)], [default[list(values)[i]] for i in free], widen
    )
    reason = f"an earlier posterior, standard deviations from its runs times {widen:g}"
    return joint_priors(values, location, covariance, reason), covariance


@checked(earlier=None)
def shape_prior_from_draws(
    earlier: Sequence[tuple[Draws, Reference]],
    law: Law,
    widen: float = 1.0,
    between_studies: float = BETWEEN_STUDIES,
) -> tuple[dict[str, Prior], np.ndarray]:
    """Return the shapes of earlier posteriors as a joint normal prior for a study of another corpus.

    Parameters
    ----------
    earlier : sequence of (Draws, Reference)
        The posterior of each earlier study, and its reference run.
    law : Law
        Law of the new study.
    widen : float
        As in `prior_from_draws`.
    between_studies : float
        Standard deviation of the difference between the shapes of two studies, in standard deviations of the default prior. 0 is
        the same shape; sqrt(2) gives the default prior.

    Returns
    -------
    table : dict
        Coordinate -> Prior, with the marginal scales. Coordinates that no earlier study has are missing.
    covariance : array, (coordinate, coordinate)
    """
    default = {c.name: c.prior for c in law.every_coordinate if c.shape}
    center = np.array([prior.location for prior in default.values()])
    scale = np.array([prior.scale for prior in default.values()])
    size, studies = len(default), len(earlier) + 1
    # Coordinates of all studies, the new one last, in which the default priors are standard normal.
    correlation = np.eye(studies) + (1 - between_studies**2 / 2) * (1 - np.eye(studies))
    prior = np.kron(correlation, np.eye(size))
    likelihood, information = np.zeros(prior.shape), np.zeros(len(prior))
    informed = np.zeros(size, dtype=bool)
    for study, (draws, reference) in enumerate(earlier):
        table, covariance = prior_from_draws(draws, law, reference, widen)
        names = [name for name in default if name in table and table[name].scale > 0]
        own, place = (
            [list(table).index(name) for name in names],
            np.array([list(default).index(name) for name in names]),
        )
        precision = np.linalg.inv(covariance[np.ix_(own, own)] / np.outer(scale[place], scale[place]))
        mean = (np.array([table[name].location for name in names]) - center[place]) / scale[place]
        at = study * size + place
        # What the runs add to the independent prior of their study.
        likelihood[np.ix_(at, at)] = precision - np.eye(len(names))
        information[at] = precision @ mean
        informed[place] = True
    # inv(inv(prior) + likelihood), without the inverse of a prior in which all shapes are equal
    pooled = np.linalg.solve(np.eye(len(prior)) + prior @ likelihood, prior)[-size:]
    location = center + scale * (pooled @ information)
    covariance = np.outer(scale, scale) * pooled[:, -size:]
    kept = np.flatnonzero(informed)
    names, covariance = [list(default)[i] for i in kept], covariance[np.ix_(kept, kept)]
    count = "an earlier posterior" if len(earlier) == 1 else f"{len(earlier)} earlier posteriors"
    reason = f"the shape of {count}; shapes differ between studies by {between_studies:g} prior standard deviations"
    return joint_priors(names, location[kept], covariance, reason), covariance


def _temper(
    mean: np.ndarray, covariance: np.ndarray, independent: list[Prior], widen: float
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the precision that the runs add to the independent priors by widen^2.

    In coordinates in which the independent prior is standard normal, the eigenvalues of the posterior precision are 1 plus the
    contribution of the runs. Directions in which the posterior is not narrower than the prior do not change.
    """
    center = np.array([prior.location for prior in independent])
    scale = np.array([prior.scale for prior in independent])
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    precision = 1 / values
    along = vectors.T @ ((mean - center) / scale)
    informed = precision > 1
    tempered = np.where(informed, 1 + (precision - 1) / widen**2, precision)
    # Precision times mean is additive over prior and runs, and 0 for the prior, which is centered at 0.
    along = np.where(informed, precision * along / widen**2 / tempered, along)
    return center + scale * (vectors @ along), np.outer(scale, scale) * ((vectors / tempered) @ vectors.T)
