"""Coordinates that the prior determines more than the runs."""

from __future__ import annotations

from bayesdistill.law import TERMS
from bayesdistill.law.forms import coordinate_description
from bayesdistill.posterior.fits import Fit, posterior_dataset
from bayesdistill.posterior.summaries import interval

PRIOR_SHARE = 0.8
"""A coordinate whose posterior interval is at least this fraction of its prior interval is dominated by its prior."""

_PRIOR_WIDTH = 2 * 1.6448536269514722  # between the 5 and 95 % quantiles of the standard normal


def prior_dominated(fit: Fit, share: float = PRIOR_SHARE) -> list[str]:
    """Return the standardized coordinates that the prior determines more than the runs.

    Parameters
    ----------
    fit : DataTree or Dataset
        What `fit` returned. Bare draws of the law's symbols have no coordinates, and give an empty list.
    share : float
        How wide the posterior's 90 % interval must be, in units of the prior's.

    Returns
    -------
    list of str
        Names of coordinates, in the model's order.

    Notes
    -----
    The sampled `z` are independent standard normals a priori. Where a block of priors is joint, as that of the published law,
    coordinate = location + factor z with a triangular factor, and z is the part of a coordinate that is independent of earlier ones.
    """
    draws = posterior_dataset(fit)
    if "z" not in draws or "coordinate" not in draws["z"].dims:
        return []
    bounds = interval(draws["z"], 0.9)
    ratio = (bounds.sel(bound="upper") - bounds.sel(bound="lower")) / _PRIOR_WIDTH
    return [str(name) for name, r in zip(draws["coordinate"].values, ratio.values, strict=True) if r >= share]


SUPERVISED_COORDINATES = frozenset(coordinate.name for coordinate in TERMS["supervised"].coordinates)
"""Coordinates that the published-law prior determines."""


def prior_sentences(names: list[str], published: bool) -> list[str]:
    """Return sentences about prior-dominated coordinates and a supervised law that comes from a prior.

    Parameters
    ----------
    names : list of str
        As `prior_dominated` gives them.
    published : bool
        Whether the supervised law came from the published-law prior, which one sentence then says for all its coordinates.

    Returns
    -------
    list of str
        Sentences, none if there is nothing to tell.
    """
    said = ["The supervised law comes from the published-law prior, not from supervised runs."] if published else []
    rest = [name for name in names if not (published and name in SUPERVISED_COORDINATES)]
    if rest:
        words = "; ".join(coordinate_description(name) for name in rest)
        said.append(f"{'Also prior-dominated' if published else 'Prior-dominated'}: {words}.")
    return said
