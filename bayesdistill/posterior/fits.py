"""Access to the law, draws, runs and provenance of a fit.

This module defines the names of the groups and attributes of a fit. A fit is an `xarray.DataTree` returned by `sampling.fit` or
`sampling.load`. Functions that only use the draws also accept a Dataset with dimensions chain and draw whose attribute `law` names
the law.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill.errors import ModelError
from bayesdistill.law import UNITS, Draws, Law, Paths, Reference, as_law, law_of_json, remember
from bayesdistill.law.formulas import PUBLISHED_RANGE
from bayesdistill.law.predictive import COLUMNS, LABELS, OUTCOME

POSTERIOR = "posterior"
SAMPLE_STATS = "sample_stats"
LOG_LIKELIHOOD = "log_likelihood"
OBSERVED = "observed_data"
CONSTANT = "constant_data"
PRIOR_TABLE = "prior_table"
LAW_ATTRIBUTE = "law"
"""Attribute of the posterior: the law as JSON, or a name in `LAWS`."""
REFERENCE_ATTRIBUTE = "reference"
"""Attribute of the posterior: the reference run as JSON."""
LAW_INDEX = "law"
"""Variable of the posterior of a mixture: the position of the law of every draw among the names in its attribute `laws`."""
FORMAT_ATTRIBUTE = "bayesdistill_format"
PROVENANCE_ATTRIBUTE = "bayesdistill_provenance"
IDENTITY_ATTRIBUTE = "posterior_identity"
"""Attribute of every result with the identity of the posterior from which it was computed."""
FORMAT = 1
"""Format version of a saved fit; `sampling.load` rejects files with other versions."""

Fit = xr.DataTree | xr.Dataset


def with_law(dataset: xr.Dataset, law: Law, reference: Reference | None) -> xr.Dataset:
    """Store the law and the reference run in the attributes of a posterior."""
    remember(law)
    dataset = dataset.assign_attrs({LAW_ATTRIBUTE: law.to_json()})
    return dataset if reference is None else dataset.assign_attrs({REFERENCE_ATTRIBUTE: json.dumps(asdict(reference))})


def posterior_dataset(fit: Fit) -> xr.Dataset:
    """Return all posterior variables, (chain, draw, ...), and the fixed symbols of the law.

    Raises
    ------
    ModelError
        If `fit` has no posterior with dimensions chain and draw.
    """
    dataset = _posterior(fit)
    if LAW_ATTRIBUTE in dataset.attrs:
        shape = (dataset.sizes["chain"], dataset.sizes["draw"])
        fixed = {name: v for name, v in law_of(fit).fixed.items() if name not in dataset}
        dataset = dataset.assign({name: (("chain", "draw"), np.full(shape, value)) for name, value in fixed.items()})
    return dataset


def _posterior(fit: Fit) -> xr.Dataset:
    if isinstance(fit, xr.DataTree):
        if POSTERIOR not in fit.children:
            raise ModelError("This DataTree has no group 'posterior'. Pass the result of bd.fit or bd.load.")
        dataset = fit[POSTERIOR].to_dataset()
    elif isinstance(fit, xr.Dataset):
        dataset = fit
    else:
        raise ModelError(f"A fit must be an xarray DataTree (or a Dataset of draws), got {type(fit).__name__}.")
    missing = {"chain", "draw"} - set(dataset.dims)
    if missing:
        raise ModelError(f"The posterior has no dimension {' and '.join(sorted(missing))}.")
    return dataset


def law_of(fit: Fit) -> Law:
    """Return the law of a fit.

    Parameters
    ----------
    fit : DataTree or Dataset

    Returns
    -------
    Law

    Raises
    ------
    ModelError
        If the fit does not name its law, or a part of the law is not defined in this session.

    Examples
    --------
    >>> import bayesdistill as bd, xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> bd.law_of(published).name
    'busbridge2025'
    """
    text = _posterior(fit).attrs.get(LAW_ATTRIBUTE)
    if isinstance(text, Law):
        return text
    if not isinstance(text, str):
        raise ModelError(
            "The posterior does not name its law, as for fits of earlier versions and draws from other sources. Pass the law with "
            "bd.load(path, law=...) or bd.law_draws(draws, law=...), or set the attribute 'law' of the draws to a name in "
            "bd.LAWS."
        )
    return law_of_json(text)


def law_draws(fit: Fit, law: Law | str | None = None) -> xr.Dataset:
    """Return the draws of the symbols of a law's terms.

    Parameters
    ----------
    fit : DataTree or Dataset
    law : Law or str, optional
        Law of the draws. Required if the draws do not name their law.

    Returns
    -------
    Dataset
        Dimensions chain and draw. Its attributes name the law, so it can be used like a fit.

    Raises
    ------
    ModelError
        If the law is unknown, a symbol is missing, or a value is NaN or infinite.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.fit("mine.csv")  # doctest: +SKIP
    >>> bd.distilled_loss(1e9, 2e10, 2.2, **bd.law_draws(fit)).mean()  # doctest: +SKIP
    """
    if law is not None:
        fit = with_law(_posterior(fit), as_law(law), None)
    law = law_of(fit)
    dataset = posterior_dataset(fit)
    missing = [name for name in law.symbols_of_law if name not in dataset]
    if missing:
        raise ModelError(f"The posterior has no {', '.join(missing)}, which the law {law.name!r} has.")
    names = [p.name for p in law.parameters if p.name in dataset]
    for name in names:
        if set(dataset[name].dims) != {"chain", "draw"} or dataset[name].dtype.kind not in "biuf":
            raise ModelError(
                f"The posterior of {name} must be numbers with dimensions chain and draw, got {dataset[name].dtype} with "
                f"{' and '.join(map(str, dataset[name].dims)) or 'no dimensions'}."
            )
    draws = dataset[names].transpose("chain", "draw").astype(float)
    for name in names:
        bad = ~np.isfinite(draws[name].values)
        if bad.any():
            chain, draw = (int(i[0]) for i in np.nonzero(bad))
            raise ModelError(f"The posterior of {name} is not finite (chain {chain}, draw {draw}). Refit the model.")
    return draws[list(law.symbols_of_law)]


def draws_of(fit: Fit, thin: slice = slice(None), seed: int = 0) -> Draws:
    """Return the flattened draws of the law and of the residual noise of a fit.

    Parameters
    ----------
    fit : DataTree or Dataset
    thin : slice
        Selects draws of each chain.
    seed : int
        Of the discrepancy outside the data.

    Raises
    ------
    ModelError
        As for `law_draws`.
    """
    law = law_of(fit)
    law_draws(fit)
    dataset = posterior_dataset(fit).isel(draw=thin)
    flat = {p.name: _flat(dataset[p.name]) for p in law.parameters if p.name in dataset}
    groups = {e.name: dataset.sizes[e.dim] for e in law.effects if e.variable.name in dataset}
    return Draws(law, flat, reference_of(fit), groups, _paths_of(fit, law, thin, seed) if law.discrepancy else None)


def _paths_of(fit: Fit, law: Law, thin: slice, seed: int) -> Paths:
    """Return the paths of a fit's discrepancies, with increments outside the data from their prior."""
    dataset = posterior_dataset(fit)
    fitted = {one.name: _flat(dataset[one.variable]) for one in law.discrepancy if one.variable in dataset}
    steps = dataset["step"].values if fitted else np.arange(0)
    count = dataset.sizes["chain"] * dataset.sizes["draw"]
    paths = Paths.extended([one.name for one in law.discrepancy], count, fitted, steps, _ratios(fit), seed)
    kept = np.arange(count).reshape(dataset.sizes["chain"], -1)[:, thin].ravel()
    return paths if thin == slice(None) else paths.take(kept)


def _ratios(fit: Fit) -> tuple[float, float] | None:
    """Return the range of tokens per parameter in the data of a fit, or of the published law; None for draws without data."""
    seen = seen_runs(fit)
    pairs = [names[:2] for names in COLUMNS.values() if {*names[:2]} <= {*seen.data_vars}]
    ratios = [seen[tokens].values / seen[params].values for params, tokens in pairs]
    if not ratios:
        return None
    if OUTCOME["supervised"] not in observed_runs(fit):
        ratios.append(np.array(PUBLISHED_RANGE["tokens_per_param"]))
    every = np.concatenate(ratios)
    return float(every.min()), float(every.max())


def identity(fit: Fit) -> str:
    """Return the SHA-256 of the law of a fit and of the draws of its symbols with their labels.

    It is the same after saving and loading. Other draws, or some of the draws in another order, have another identity.
    """
    law, dataset = law_of(fit), posterior_dataset(fit)
    digest = hashlib.sha256(law.to_json().encode())
    paths = [one.variable for one in law.discrepancy if one.variable in dataset]
    of_mixture = [LAW_INDEX] if law_positions(fit)[0] else []
    for name in ("chain", "draw", *(p.name for p in law.parameters if p.name in dataset), *paths, *of_mixture):
        values = dataset[name].transpose(*(dim for dim in ("chain", "draw") if dim in dataset[name].dims), ...).values
        is_number = values.dtype.kind in "iufb"
        digest.update(name.encode())
        digest.update(values.astype("<f8").tobytes() if is_number else json.dumps(values.astype(str).tolist()).encode())
    return digest.hexdigest()


def effects_of(fit: Fit, thin: slice = slice(None)) -> dict[str, np.ndarray]:
    """Return draws of the group effects: name -> (n_draws, group), nats per token."""
    dataset = posterior_dataset(fit).isel(draw=thin)
    effects = [effect for effect in law_of(fit).effects if effect.variable.name in dataset]
    return {effect.name: _flat(dataset[effect.variable.name]) for effect in effects}


def seen_groups(fit: Fit) -> dict[str, list[str]]:
    """Return the labels of the groups with effects in a fit: name of the effect -> labels."""
    dataset = posterior_dataset(fit)
    effects = [e for e in law_of(fit).effects if e.variable.name in dataset and e.dim in dataset.coords]
    return {effect.name: [str(label) for label in dataset[effect.dim].values] for effect in effects}


def _flat(values: xr.DataArray) -> np.ndarray:
    """Concatenate the chains, (n_draws, ...)."""
    array = values.transpose("chain", "draw", ...).values
    return np.ascontiguousarray(array.reshape(-1, *array.shape[2:]), dtype=float)


def reference_of(fit: Fit) -> Reference:
    """Return the reference run of the coordinates of a fit; by default, units of 1."""
    text = _posterior(fit).attrs.get(REFERENCE_ATTRIBUTE)
    return UNITS if text is None else Reference(**json.loads(text))


def is_distilled(fit: Fit) -> bool:
    """Return whether the law of a fit describes distilled runs."""
    return law_of(fit).distills


def group_of(fit: Fit, name: str) -> xr.Dataset:
    """Return a group of a fit; empty if it does not have the group, as for a Dataset of draws."""
    return fit[name].to_dataset() if isinstance(fit, xr.DataTree) and name in fit.children else xr.Dataset()


def seen_runs(fit: Fit) -> xr.Dataset:
    """Return the design of the fitted runs.

    Returns
    -------
    Dataset
        student_params, student_tokens and teacher_loss over `run`; params and tokens over `supervised_run`. Empty for a
        Dataset of draws.
    """
    return group_of(fit, CONSTANT)


def observed_runs(fit: Fit) -> xr.Dataset:
    """Return the outcomes of the fitted runs: student_loss and loss."""
    return group_of(fit, OBSERVED)


def fitted_table(fit: Fit, kind: str) -> pd.DataFrame | None:
    """Return the fitted runs of a kind as a table, design, labels and outcome; None if the fit has no such runs."""
    seen, observed = seen_runs(fit), observed_runs(fit)
    if not {*COLUMNS[kind]} <= {*seen.data_vars} or OUTCOME[kind] not in observed:
        return None
    names = [name for name in (*COLUMNS[kind], *LABELS[kind]) if name in seen]
    return pd.DataFrame({name: seen[name].values for name in names} | {OUTCOME[kind]: observed[OUTCOME[kind]].values})


def provenance(fit: Fit) -> dict[str, Any]:
    """Return the provenance of a fit.

    Parameters
    ----------
    fit : DataTree or Dataset

    Returns
    -------
    dict
        `versions`, `sampler`, `backend`, `seed`, `settings`, `attempts` (settings and failed convergence checks of every attempt to
        sample; the last one gave the draws), `data` (runs, hash and source of each table), `reference`, `supervised_law`,
        `asymptotic_width`, `priors`, `started` and `seconds`. Empty for draws from other sources. For a mixture, the entries that all
        fits share, and `laws`: name -> `weight`, `draws_per_chain`, `convergence`, `prior_dominated` and `provenance` of each fit.

    Raises
    ------
    ModelError
        If `fit` is neither a DataTree nor a Dataset.

    Examples
    --------
    >>> import bayesdistill as bd, xarray as xr
    >>> bd.provenance(xr.Dataset())
    {}
    """
    if not isinstance(fit, Fit):
        raise ModelError(f"A fit must be an xarray DataTree (or a Dataset of draws), got {type(fit).__name__}.")
    text = fit.attrs.get(PROVENANCE_ATTRIBUTE, "{}")
    return dict(json.loads(text))


def members(fit: Fit) -> dict[str, dict[str, Any]]:
    """Return weight, convergence, prior-dominated coordinates and provenance of the laws of a mixture by name; empty for a fit."""
    return dict(provenance(fit).get("laws", {}))


def law_positions(fit: Fit) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of the laws of a mixture, and the position of each draw's law, (n_draws,); no names for a fit."""
    dataset = posterior_dataset(fit)
    if LAW_INDEX not in dataset or "laws" not in dataset[LAW_INDEX].attrs:
        return (), np.zeros(dataset.sizes["chain"] * dataset.sizes["draw"], dtype=int)
    return tuple(json.loads(dataset[LAW_INDEX].attrs["laws"])), _flat(dataset[LAW_INDEX]).astype(int)


def prior_table(fit: Fit) -> xr.Dataset:
    """Return the priors of a fit: `distribution` and `reason` over `parameter`."""
    return group_of(fit, PRIOR_TABLE)
