"""Default priors of the coordinates of a law, and functions that change them.

Every coordinate c has a normal prior with a location and a scale. The model samples z ~ Normal(0, 1) and computes
c = location + scale z. For joint priors (published supervised law, earlier posterior), a covariance replaces the scales.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bayesdistill.arguments import check_fields, checked
from bayesdistill.errors import ParameterError
from bayesdistill.law import PUBLISHED, SUPERVISED_SYMBOLS, Law, Prior, Reference, as_law
from bayesdistill.law.formulas import PUBLISHED_RANGE
from bayesdistill.law.terms import TERMS
from bayesdistill.priors.theory import STATEMENTS, Statement

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Priors:
    """Joint normal prior of all coordinates of a law.

    Parameters
    ----------
    law : Law
    table : mapping
        Coordinate name -> Prior, in the model's order.
    covariance : array, (coordinate, coordinate)
        Covariance of the coordinates. Its diagonal contains the squared scales.
    supervised_law : str
        Source of the supervised law: "runs", "published law", "earlier posterior", "shape of an earlier posterior" or "default priors".
    asymptotic_width : float or None
        Width in nats of the one-sided prior on the asymptotic advantage; None omits this prior.
    perfect_teacher_width : float or None
        Width in nats of the prior on the advantage of the student of a perfect teacher with unlimited data, from both sides.
    limited_data_width : float or None
        Width in nats of the one-sided prior on that advantage with limited data.
    """

    law: Law
    table: Mapping[str, Prior]
    covariance: np.ndarray
    supervised_law: str
    asymptotic_width: float | None = None
    perfect_teacher_width: float | None = None
    limited_data_width: float | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return tuple(self.table)

    @property
    def widths(self) -> dict[str, float | None]:
        """Widths in nats of the priors from statements of theory, by setting."""
        return {statement.setting: getattr(self, statement.setting) for statement in STATEMENTS.values()}

    @property
    def theory(self) -> dict[Statement, float]:
        """Statements of theory whose priors are not omitted, with their widths in nats."""
        widths = self.widths
        return {s: width for s in STATEMENTS.values() if (width := widths[s.setting]) is not None}

    @property
    def location(self) -> np.ndarray:
        """Prior means, (coordinate,)."""
        return np.array([prior.location for prior in self.table.values()])

    @property
    def free(self) -> np.ndarray:
        """Mask of the coordinates that are not fixed, (coordinate,)."""
        return np.diagonal(self.covariance) > 0

    @property
    def factor(self) -> np.ndarray:
        """Lower-triangular factor of the covariance, (coordinate, free coordinate)."""
        free = self.free
        result = np.zeros((len(self.table), int(free.sum())))
        result[free] = np.linalg.cholesky(self.covariance[np.ix_(free, free)])
        return result


ASYMPTOTIC_WIDTH = 0.005
"""Width in nats of the prior on the advantage of distillation over pretraining with unlimited data: half of the law's accuracy of
about 0.01 nats. It does not reduce the quality of the fit (docs/explanation/choice_of_model.md)."""

PERFECT_TEACHER_WIDTH = 0.005
"""Suggested width in nats of the prior on the advantage of the student of a perfect teacher with unlimited data: as above, because both
describe the same limit."""
LIMITED_DATA_WIDTH = 0.01
"""Suggested width in nats of the prior on that advantage with limited data: the law's accuracy. It is twice the other widths, because
less noise in the targets is not proven to help at every learning rate and batch size."""

PUBLISHED_TOLERANCE = 0.0035
"""Prior standard deviation in nats of the loss of the published supervised law, as root mean square over its fitted range, where the
rounding of the published coefficients is 0.002 to 0.004 nats."""
PUBLISHED_SIZES = PUBLISHED_RANGE["params"]
"""Range of non-embedding parameters to which the published supervised law was fitted."""
PUBLISHED_TOKENS_PER_PARAMETER = PUBLISHED_RANGE["tokens_per_param"]
"""Range of tokens per parameter of the published supervised law. Its isoFLOP runs are around the compute-optimal size, with 15 tokens
per parameter."""
_GRID = (24, 20)
"""Number of sizes and of token ratios at which the published-law prior is evaluated; more points change nothing."""


@checked
def default_priors(
    law: Law | str,
    reference: Reference,
    *,
    tolerance: float = PUBLISHED_TOLERANCE,
    asymptotic_width: float | None = ASYMPTOTIC_WIDTH,
    perfect_teacher_width: float | None = None,
    limited_data_width: float | None = None,
) -> Priors:
    """Return the default priors of a law.

    Parameters
    ----------
    law : Law or str
        Result of `Law.for_runs`; without supervised runs, the supervised law has the published-law prior. A name in `LAWS`
        selects that law for distilled runs.
    reference : Reference
        Run at which the coordinates are centered.
    tolerance : float
        Prior standard deviation in nats of the loss of the published supervised law (`published_law_prior`).
    asymptotic_width : float or None
        Width in nats of the one-sided prior on the asymptotic advantage, used with distilled runs; None omits it.
    perfect_teacher_width : float or None
        Width in nats of the prior on the advantage of the student of a perfect teacher (L_T = E) with unlimited data, from both sides:
        for example PERFECT_TEACHER_WIDTH.
    limited_data_width : float or None
        Width in nats of the one-sided prior on that advantage with limited data: for example LIMITED_DATA_WIDTH.
    """
    law = as_law(law)
    law = law.for_runs(**law.kinds)
    published = law.distills and not law.supervised_noise
    table = {}
    for coordinate in law.every_coordinate:
        if coordinate.symbol in law.fixed:
            table[coordinate.symbol] = _fixed(coordinate.symbol, law.fixed[coordinate.symbol], "fixed by the law")
        else:
            table[coordinate.name] = coordinate.prior
    scales = np.array([prior.scale for prior in table.values()])
    priors = Priors(law, table, np.diag(scales**2), "published law" if published else "runs")
    if published:
        fixed = [name for name in SUPERVISED_SYMBOLS if name in law.fixed]
        if fixed:
            raise ParameterError(
                f"The law fixes {fixed[0]}, which requires supervised runs. Without supervised runs, the supervised law has the "
                "published-law prior."
            )
        priors = with_block(priors, *published_law_prior(reference, tolerance), "published law")
    if not law.distills:
        return priors
    return replace(
        priors,
        asymptotic_width=asymptotic_width,
        perfect_teacher_width=perfect_teacher_width,
        limited_data_width=limited_data_width,
    )


def _fixed(symbol: str, value: float, reason: str) -> Prior:
    return Prior(value, 0.0, f"{symbol} = {value:g}", reason)


def with_fixed_symbols(priors: Priors, values: Mapping[str, float], reason: str) -> Priors:
    """Fix symbols of the law of some priors; their coordinates make way for the symbols."""
    symbol = {c.name: c.symbol for c in priors.law.coordinates if c.symbol in values}
    table = {
        symbol.get(name, name): _fixed(symbol[name], values[symbol[name]], reason) if name in symbol else prior
        for name, prior in priors.table.items()
    }
    varies = np.array([name not in symbol for name in priors.names])
    covariance = priors.covariance * np.outer(varies, varies)
    return replace(priors, law=priors.law.with_fixed(**values), table=table, covariance=covariance)


def with_block(priors: Priors, table: Mapping[str, Prior], covariance: np.ndarray, supervised_law: str) -> Priors:
    """Replace the priors of a block of coordinates by a joint normal prior."""
    unknown = [name for name in table if name not in priors.table]
    if unknown:
        raise ParameterError(
            f"The model has no coordinate {', '.join(unknown)}. Its coordinates are {', '.join(priors.names)}."
        )
    index = [priors.names.index(name) for name in table]
    joint = priors.covariance.copy()
    joint[index, :] = 0.0
    joint[:, index] = 0.0
    joint[np.ix_(index, index)] = covariance
    return replace(priors, table={**priors.table, **table}, covariance=joint, supervised_law=supervised_law)


def without_published_law(priors: Priors) -> Priors:
    """Return priors whose supervised law has the independent default priors instead of the published-law prior."""
    names = {coordinate.name for coordinate in TERMS["supervised"].coordinates}
    default = {c.name: c.prior for c in priors.law.coordinates if c.name in names}
    return with_block(priors, default, np.diag([prior.scale**2 for prior in default.values()]), "runs")


def with_priors(priors: Priors, changes: Mapping[str, Prior]) -> Priors:
    """Replace the priors of single coordinates by independent priors.

    Raises
    ------
    ParameterError
        If the model has no coordinate of that name. The message lists its coordinates.
    """
    for name, prior in changes.items():
        if name not in priors.table:
            raise ParameterError(
                f"The model has no coordinate {name!r}. Its coordinates are {', '.join(priors.names)}."
            )
        if not isinstance(prior, Prior):
            raise ParameterError(f"The prior of {name} must be a bayesdistill.Prior(location, scale), got {prior!r}.")
        priors = with_block(priors, {name: prior}, np.array([[prior.scale**2]]), priors.supervised_law)
    return priors


@checked
def published_law_prior(
    reference: Reference,
    tolerance: float = PUBLISHED_TOLERANCE,
    tokens_per_parameter: tuple[float, float] = PUBLISHED_TOKENS_PER_PARAMETER,
) -> tuple[dict[str, Prior], np.ndarray]:
    """Return the published supervised law as a joint normal prior on its coordinates.

    The prior is centered at the published law. Its covariance combines the independent priors with a multiple of the information of
    runs with equal independent errors over the fitted range: 143M to 12.6B parameters and 10 to 160 tokens per parameter. The
    multiple is chosen so that the prior standard deviation of the loss is `tolerance` in root mean square over that range. It is
    0.6 to 2.4 times the tolerance at single points, and increases outside. Independent priors on single coefficients would be much
    wider, because A, alpha and E are strongly correlated. With a tolerance of 0.011, the distilled runs change the supervised law by
    up to 0.017 nats inside its range and 0.06 nats with unlimited data, to compensate for the misfit of the distillation law
    (docs/studies/published_law.py).

    Parameters
    ----------
    reference : Reference
    tolerance : float
        Root mean square over the range of the prior standard deviation of the loss, in nats. Values above what the independent
        priors allow (about 0.5) give these.
    tokens_per_parameter : (float, float)
        Range of tokens per parameter.

    Returns
    -------
    table : dict
        Coordinate -> Prior, with the marginal scales.
    covariance : array, (coordinate, coordinate)
    """
    law = Law("supervised", "", (TERMS["supervised"],))
    names = tuple(coordinate.name for coordinate in TERMS["supervised"].coordinates)
    center = law.coordinates_of(PUBLISHED, reference)
    location = np.array([float(center[name]) for name in names])
    size = np.geomspace(*PUBLISHED_SIZES, _GRID[0])[:, None]
    tokens = size * np.geomspace(*tokens_per_parameter, _GRID[1])

    def loss(values: np.ndarray) -> np.ndarray:
        p = law.reduced_symbols(dict(zip(names, values, strict=True)), reference)
        return np.ravel(law.supervised_loss(size / reference.params, tokens / reference.tokens, p))

    from scipy.optimize import brentq

    step = 1e-5
    jacobian = np.stack(
        [(loss(location + h) - loss(location - h)) / (2 * step) for h in step * np.eye(location.size)], axis=1
    )
    scales = np.array([coordinate.prior.scale for coordinate in TERMS["supervised"].coordinates])
    information = jacobian.T @ jacobian / len(jacobian)

    def covariance_at(log_multiple: float) -> np.ndarray:
        return np.asarray(np.linalg.inv(math.exp(log_multiple) * information + np.diag(scales**-2)))

    def excess(log_multiple: float) -> float:
        """How far the standard deviation of the loss exceeds the tolerance, on a log scale."""
        return 0.5 * math.log(np.trace(information @ covariance_at(log_multiple))) - math.log(tolerance)

    low, high = -20.0, 40.0
    covariance = covariance_at(low if excess(low) < 0 else brentq(excess, low, high))
    reason = f"published law of Busbridge et al. (2025), loss within a standard deviation of {tolerance:g} nats"
    return joint_priors(names, location, covariance, reason), covariance


def joint_priors(names: Iterable[str], location: np.ndarray, covariance: np.ndarray, reason: str) -> dict[str, Prior]:
    """Return the marginal priors of coordinates that are jointly normal."""
    return {
        name: Prior(float(mean), float(scale), f"jointly Normal, marginally Normal({mean:.4g}, {scale:.2g})", reason)
        for name, mean, scale in zip(names, location, np.sqrt(np.diagonal(covariance)), strict=True)
    }


def prior_frame(priors: Priors) -> pd.DataFrame:
    """Return the priors as a table with one row per coordinate."""
    import pandas as pd

    table = dict(priors.table)
    for statement, width in priors.theory.items():
        table[statement.row] = Prior(0.0, width, statement.distribution(width), statement.reason)
    return pd.DataFrame([asdict(prior) for prior in table.values()], index=pd.Index(table, name="coordinate"))
