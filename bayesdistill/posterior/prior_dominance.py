"""Coordinates that the prior determines more than the runs."""

from __future__ import annotations

from bayesdistill.law import TERMS
from bayesdistill.law.forms import coordinate_description
from bayesdistill.posterior.fits import Fit, members, posterior_dataset
from bayesdistill.posterior.summaries import interval

PRIOR_SHARE = 0.8
"""A coordinate whose posterior interval is at least this fraction of its prior interval is dominated by its prior."""

_PRIOR_WIDTH = 2 * 1.6448536269514722  # distance between the 5% and 95% quantiles of the standard normal


def prior_dominated(fit: Fit, share: float = PRIOR_SHARE) -> list[str]:
    """Return the standardized coordinates that the prior determines more than the runs.

    Parameters
    ----------
    fit : DataTree or Dataset
        Result of `fit`. Draws of symbols without coordinates give an empty list.
    share : float
        Minimum ratio of the width of the posterior's 90% interval to the width of the prior's.

    Returns
    -------
    list of str
        Names of coordinates, in the model's order. A mixture has the coordinates of all its fits (with the default `share`).

    Notes
    -----
    The sampled `z` have independent standard normal priors. For a joint prior, such as the published-law prior,
    coordinate = location + factor z with a triangular factor, and z is the part of a coordinate that is independent of the
    preceding coordinates.
    """
    if of_laws := members(fit):
        return list(dict.fromkeys(name for law in of_laws.values() for name in law["prior_dominated"]))
    draws = posterior_dataset(fit)
    if "z" not in draws or "coordinate" not in draws["z"].dims:
        return []
    bounds = interval(draws["z"], 0.9)
    ratio = (bounds.sel(bound="upper") - bounds.sel(bound="lower")) / _PRIOR_WIDTH
    return [str(name) for name, r in zip(draws["coordinate"].values, ratio.values, strict=True) if r >= share]


SUPERVISED_COORDINATES = frozenset(coordinate.name for coordinate in TERMS["supervised"].coordinates)
"""Coordinates with the published-law prior."""


def prior_sentences(names: list[str], published: bool) -> list[str]:
    """Return sentences about prior-dominated coordinates and the published-law prior.

    Parameters
    ----------
    names : list of str
        Result of `prior_dominated`.
    published : bool
        Whether the fit uses the published-law prior. One sentence then covers all its coordinates.

    Returns
    -------
    list of str
        Sentences; empty if the data dominate all priors.
    """
    sentences = (
        ["The supervised law comes from the published-law prior, not from supervised runs."] if published else []
    )
    rest = [name for name in names if not (published and name in SUPERVISED_COORDINATES)]
    if rest:
        words = "; ".join(coordinate_description(name) for name in rest)
        sentences.append(f"{'Also prior-dominated' if published else 'Prior-dominated'}: {words}.")
    return sentences
