"""Mixtures: one posterior from fits of several laws to the same runs, weighted by what they predict."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill.arguments import is_finite, shown
from bayesdistill.errors import ModelError, ParameterError
from bayesdistill.law import Law, neutral_values, union_of
from bayesdistill.posterior.convergence import convergence
from bayesdistill.posterior.corpus import LEVEL_SHIFT_ATTRIBUTE, LevelShift, level_shift_of
from bayesdistill.posterior.fits import (
    CONSTANT,
    FORMAT,
    FORMAT_ATTRIBUTE,
    LAW_INDEX,
    LOG_LIKELIHOOD,
    OBSERVED,
    POSTERIOR,
    PRIOR_TABLE,
    PROVENANCE_ATTRIBUTE,
    REFERENCE_ATTRIBUTE,
    Fit,
    group_of,
    law_draws,
    law_of,
    members,
    posterior_dataset,
    prior_table,
    provenance,
    reference_of,
    with_law,
)
from bayesdistill.posterior.law_weights import METHODS, Scores, weights_of_scores
from bayesdistill.posterior.prior_dominance import prior_dominated

DRAWS = 4000
"""Total number of draws of a mixture."""
_ROUNDING = 0.005
"""Largest error of a weight because draws are whole; a fit with few draws repeats them instead."""


def mix(
    fits: Mapping[str, Fit],
    weights: str | Mapping[str, float] = "pseudo-bma",
    *,
    scores: Mapping[str, xr.Dataset | Sequence[xr.Dataset]] | None = None,
) -> xr.DataTree:
    """Mix fits of several laws to the same runs into one posterior.

    Everything that accepts a fit accepts the mixture. Its law is the union of the laws: draws of a law without a term have the values
    at which the term has no effect. Plans of a mixture show the probability under each law and the range over the laws.

    Parameters
    ----------
    fits : mapping
        Name -> result of `fit` or `load`. All fits have the same runs.
    weights : {"pseudo-bma", "stacking"} or mapping
        Name -> weight, a nonnegative number; the weights are divided by their sum. A method determines them from `scores`.
        "pseudo-bma": proportional to the exponential of the elpd, averaged over a Bayesian bootstrap of the groups of left-out runs.
        "stacking": maximizes the sum of the log predictive densities of the mixture.
    scores : mapping, optional
        Name -> result of `leave_out`, or a list of results of several splits. All laws have the same splits. Required by the methods,
        because a mixture never refits.

    Returns
    -------
    DataTree
        Groups posterior (chain, draw) with `law`, the position of each draw's law (its attribute `laws` has the names),
        log_likelihood, observed_data, constant_data and prior_table. There are about 4,000 draws: of each fit in proportion to its
        weight, and evenly spaced within its chains. `provenance` has the entries that all fits share, and the weight, convergence
        checks and provenance of each fit under `laws`.

    Raises
    ------
    ModelError
        If the fits have different runs, or a law has a term that no value of its symbols removes.
    ParameterError
        If weights or scores are missing or invalid.

    Warns
    -----
    UserWarning
        If a weight is smaller than one draw in each chain: the law has no draws.

    Notes
    -----
    The mixture has converged if all fits have, and conflicts with the supervised law if one of them does. Pseudo-BMA+ and stacking: Yao
    et al. (2018), Bayesian Analysis 13, 917. Scores of several splits are averaged. Averaging laws did not predict left-out runs better
    than the best law; it shows how much depends on the form of the law.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> worse = published.assign(A_S=2 * published["A_S"])
    >>> many = bd.mix({"published": published, "worse": worse}, {"published": 0.75, "worse": 0.25})
    >>> bd.plan(many, "1B", 1e22, "best case")["probability_by_law"].values.ravel().tolist()
    [1.0, 0.0]
    """
    check_fits(fits)
    # In the order of the names, so that the order of the arguments changes nothing.
    fits = {name: fits[name] for name in sorted(fits)}
    shares = _weights(weights, scores, fits)
    chains = max(posterior_dataset(fit).sizes["chain"] for fit in fits.values())
    counts = _counts(shares, {name: _size(fit) // chains for name, fit in fits.items()}, chains)
    kept = {name: fit for name, fit in fits.items() if counts[name]}
    laws = {name: law_of(fit) for name, fit in kept.items()}
    union = union_of(laws, f"mixture of {', '.join(kept)}")
    # In random order, so that the chains have no trend and evenly spaced draws are of all laws. All chains have the same order.
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(kept)), [counts[name] for name in kept]))
    parts = [_draws(fit, laws[name], union) for name, fit in kept.items()]
    axes = {"chain": np.arange(chains), "draw": np.arange(order.size)}
    dataset = _joined(parts, order, axes)
    attrs = {"units": "1", "long_name": "position of the law", "laws": json.dumps(list(kept))}
    dataset[LAW_INDEX] = (("chain", "draw"), np.tile(order, (chains, 1)), attrs)
    any_fit = next(iter(kept.values()))
    has_reference = REFERENCE_ATTRIBUTE in posterior_dataset(any_fit).attrs
    dataset = with_law(dataset, union, reference_of(any_fit) if has_reference else None)
    shifts = [shift for fit in kept.values() if (shift := level_shift_of(fit)) is not None]
    if shifts:
        worst: LevelShift = max(shifts, key=lambda shift: abs(shift.shift) / shift.threshold)
        dataset = dataset.assign_attrs({LEVEL_SHIFT_ATTRIBUTE: json.dumps(vars(worst))})
    groups = {POSTERIOR: dataset}
    likelihoods = [_likelihood(fit) for fit in kept.values()]
    if all(found.data_vars for found in likelihoods):
        groups[LOG_LIKELIHOOD] = _joined(likelihoods, order, axes)
    for name in (OBSERVED, CONSTANT):
        if all(name in _children(fit) for fit in kept.values()):
            groups[name] = xr.merge([group_of(fit, name) for fit in kept.values()], compat="equals", join="exact")
    tables = {name: prior_table(fit) for name, fit in kept.items() if "parameter" in prior_table(fit)}
    if tables:
        named = [
            t.assign_coords(parameter=[f"{name}: {p}" for p in t["parameter"].values]) for name, t in tables.items()
        ]
        groups[PRIOR_TABLE] = xr.concat(named, "parameter")
    result = xr.DataTree.from_dict(groups)
    origin = _origin(fits, shares, counts, union)
    result.attrs = {FORMAT_ATTRIBUTE: FORMAT, PROVENANCE_ATTRIBUTE: json.dumps(origin, sort_keys=True)}
    return result


def check_fits(fits: Any) -> None:
    """Raise an error if this is no mapping from names to fits of single laws to the same runs."""
    if not isinstance(fits, Mapping) or not fits or not all(isinstance(name, str) and name for name in fits):
        raise ParameterError(f"`fits` must be a mapping from names to fits, got {shown(fits)}.")
    for name, fit in fits.items():
        if isinstance(fit, Fit) and members(fit):
            raise ParameterError(f"`fits` has a mixture as {name!r}. Pass the fits that it was made of.")
        law_draws(fit)
        if not _size(fit):
            raise ModelError(f"The fit {name!r} has no draws.")
    (first, one), *others = fits.items()
    for name, fit in others:
        ours, theirs = ({kind: t["sha256"] for kind, t in provenance(f).get("data", {}).items()} for f in (one, fit))
        if ours != theirs:
            kinds = [kind for kind in ("distilled", "supervised") if ours.get(kind) != theirs.get(kind)]
            raise ModelError(
                f"The fits {first!r} and {name!r} have different {' and '.join(kinds)} runs. Fit all laws to the same runs."
            )
        if str(reference_of(one)) != str(reference_of(fit)):
            raise ModelError(
                f"The fits {first!r} and {name!r} have different reference runs. Fit all laws to the same runs."
            )


def _weights(weights: Any, scores: Any, fits: Mapping[str, Fit]) -> dict[str, float]:
    """Return the normalized weights of the fits."""
    if isinstance(weights, str):
        if weights not in METHODS:
            raise ParameterError(
                f"`weights` must be {' or '.join(map(repr, METHODS))} or a mapping, got {shown(weights)}."
            )
        if scores is None:
            raise ParameterError(
                f"`weights` = {weights!r} requires `scores`: {{name: bd.leave_out(runs, 'teacher', law), ...}} with the names of the "
                "fits, or lists of results of several splits. Without scores, pass numbers, such as "
                f"weights={dict.fromkeys(fits, 1)!r}."
            )
        return weights_of_scores(_checked_scores(scores, fits), weights)
    if scores is not None:
        raise ParameterError(
            f"`scores` are used with {' or '.join(map(repr, METHODS))}, but `weights` has other values."
        )
    return normalized_weights(weights, fits)


def normalized_weights(weights: Any, fits: Mapping[str, Any]) -> dict[str, float]:
    """Return weights of the fits, by name, divided by their sum."""
    if not isinstance(weights, Mapping) or set(weights) != set(fits):
        raise ParameterError(
            f"`weights` must have one number for each of {', '.join(map(repr, fits))}, got {shown(weights)}."
        )
    if not all(is_finite(w) and w >= 0 for w in weights.values()) or not 0 < sum(weights.values()) < math.inf:
        raise ParameterError(f"`weights` must be nonnegative numbers with a positive sum, got {shown(weights)}.")
    total = math.fsum(float(w) for w in weights.values())
    return {name: float(weights[name]) / total for name in fits}


def _checked_scores(scores: Any, fits: Mapping[str, Fit]) -> Scores:
    """Return the scores of every fit as lists, after checking that they belong to its law."""
    if not isinstance(scores, Mapping) or set(scores) != set(fits):
        raise ParameterError(f"`scores` must have results of leave_out for each of {', '.join(map(repr, fits))}.")
    found = {name: [scores[name]] if isinstance(scores[name], xr.Dataset) else scores[name] for name in fits}
    for name, results in found.items():
        needed = {"elpd", "fold", "group", "converged"}
        if not isinstance(results, list | tuple) or not results or not all(
            isinstance(one, xr.Dataset) and needed <= {*one.variables} for one in results
        ):  # fmt: skip
            raise ParameterError(f"`scores` of {name!r} must be a result of leave_out or a list of them.")
        for one in results:
            text = str(one.attrs.get("law", ""))
            scored = json.loads(text).get("terms") if text.startswith("{") else None
            terms = json.loads(law_of(fits[name]).to_json())["terms"]
            if scored is not None and scored != terms:
                raise ParameterError(
                    f"`scores` of {name!r} belong to a law with the terms {scored}, but the fit has {terms}."
                )
    return found


def _size(fit: Fit) -> int:
    dataset = posterior_dataset(fit)
    return int(dataset.sizes["chain"] * dataset.sizes["draw"])


def _counts(shares: Mapping[str, float], sizes: Mapping[str, int], chains: int) -> dict[str, int]:
    """Return the number of draws of every law in each chain.

    Parameters
    ----------
    shares : mapping
        Name -> weight; the sum is 1.
    sizes : mapping
        Name -> number of draws of the fit for each chain of the mixture.
    chains : int
    """
    weight = np.array(list(shares.values()))
    available = np.array([sizes[name] for name in shares], dtype=float)
    most = max(1, DRAWS // chains)
    without_repeats = int(np.floor(np.min(available[weight > 0] / weight[weight > 0]) + 1e-9))
    counts = _apportioned(weight, max(1, min(most, without_repeats)))
    if np.abs(counts / counts.sum() - weight).max() > _ROUNDING:
        counts = _apportioned(weight, most)
    small = [name for name, share, count in zip(shares, weight, counts, strict=True) if share and not count]
    if small:
        warnings.warn(
            f"The weights of {', '.join(map(repr, small))} are smaller than one draw in each chain of the mixture, so these laws have "
            "no draws.",
            stacklevel=4,
        )
    return dict(zip(shares, counts.tolist(), strict=True))


def _apportioned(weight: np.ndarray, total: int) -> np.ndarray:
    """Return whole numbers in proportion to weights, by the largest remainders."""
    exact = weight * total
    counts = np.floor(exact + 1e-9).astype(int)
    rest = np.argsort(-(exact - counts), kind="stable")[: total - counts.sum()]
    counts[rest] += 1
    return counts


def _children(fit: Fit) -> set[str]:
    return {*fit.children} if isinstance(fit, xr.DataTree) else set()


def _draws(fit: Fit, law: Law, union: Law) -> xr.Dataset:
    """Return the draws of a fit as draws of the union; symbols that the law lacks have their neutral values."""
    dataset = posterior_dataset(fit)
    arrays = [effect.variable.name for effect in union.effects] + [one.variable for one in union.discrepancy]
    names = [p.name for p in union.parameters if p.name not in union.fixed]
    found = dataset[[name for name in (*names, *arrays) if name in dataset]]
    lacking = {name: value for name, value in neutral_values(law, union).items() if name not in union.fixed}
    return found.assign({name: xr.full_like(dataset["E"], value, dtype=float) for name, value in lacking.items()})


def _likelihood(fit: Fit) -> xr.Dataset:
    """Return the log-likelihood at the posterior's draws; empty if it is unknown. The two groups may have been thinned differently."""
    found, draws = group_of(fit, LOG_LIKELIHOOD), posterior_dataset(fit)
    labels = {dim: draws[dim].values for dim in ("chain", "draw")}
    if not all(dim in found.coords and set(labels[dim]) <= set(found[dim].values) for dim in labels):
        return xr.Dataset()
    return found.sel(labels)


def _joined(parts: list[xr.Dataset], order: np.ndarray, axes: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Concatenate draws of several laws.

    Parameters
    ----------
    parts : list of Dataset
        Draws of each law. Variables with more dimensions than chain and draw are 0 for laws that lack them; others that a law lacks are
        left out.
    order : ndarray of int, (draw,)
        Position of the law of every draw of a chain.
    axes : mapping
        Coordinates chain and draw.
    """
    chains = axes["chain"].size
    found = xr.Dataset(coords=axes)
    for name in dict.fromkeys(str(name) for part in parts for name in part.data_vars):
        having = [part[name] for part in parts if name in part]
        dims = [dim for dim in having[0].dims if dim not in ("chain", "draw")]
        shape = [having[0].sizes[dim] for dim in dims]
        if len(having) < len(parts) and not dims:
            continue
        for other in having[1:]:
            if not all(having[0].coords[dim].equals(other.coords[dim]) for dim in dims if dim in having[0].coords):
                raise ModelError(f"The fits have different labels of {name}. Fit all laws to the same runs.")
        values = np.zeros((chains, order.size, *shape))
        for position, part in enumerate(parts):
            if name not in part:
                continue
            flat = part[name].transpose("chain", "draw", *dims).values
            flat = flat.reshape(-1, *flat.shape[2:])
            places = np.flatnonzero(order == position)
            values[:, places] = flat[_evenly(len(flat), chains * places.size)].reshape(chains, places.size, *shape)
        found[name] = (("chain", "draw", *dims), values, having[0].attrs)
        found = found.assign_coords({dim: having[0].coords[dim] for dim in dims if dim in having[0].coords})
    return found


def _evenly(size: int, count: int) -> np.ndarray:
    """Return `count` evenly spaced positions among `size`; all of them in order if the numbers are equal."""
    return (2 * np.arange(count) + 1) * size // (2 * count)


def _origin(
    fits: Mapping[str, Fit], shares: Mapping[str, float], counts: Mapping[str, int], union: Law
) -> dict[str, Any]:
    """Return the provenance of a mixture: what all fits share, and weight, convergence and provenance of each."""
    origins = {name: provenance(fit) for name, fit in fits.items()}
    first, *others = origins.values()
    common = {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}
    laws = {
        name: {
            "weight": shares[name],
            "draws_per_chain": counts[name],
            "convergence": convergence(fit) if isinstance(fit, xr.DataTree) else {"converged": None, "failed": []},
            "prior_dominated": prior_dominated(fit),
            "provenance": origins[name],
        }
        for name, fit in fits.items()
    }
    return {**common, "law": json.loads(union.to_json()), "laws": laws}
