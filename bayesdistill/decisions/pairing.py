"""Pairing of a fit with a result that was computed from it, by the identity of the posterior and by the labels of the draws."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.compute import Shape, pretraining_tokens
from bayesdistill.errors import ParameterError
from bayesdistill.law import RepetitionPrior

SHAPE = ("context_length", "vocabulary_size", "aspect_ratio")
_LABELS = ("chain", "draw")


def shape_of(plan: xr.Dataset) -> Shape:
    """Return the architecture of a plan."""
    return Shape(**{name: plan.attrs[name] for name in SHAPE})


def paired(fit: posterior.Fit, result: Any, what: str = "plan") -> xr.Dataset:
    """Return a result with its draws in the order of a fit.

    The result may have fewer draws than the fit, or draws in another order; the labels chain and draw tell which they are. A result
    of an earlier version has no identity of its posterior. Then the provenance must be the same. The losses of pretrained
    students, if the result has them, must equal the losses of the fit at these labels: labels can be wrong.

    Parameters
    ----------
    fit : DataTree or Dataset
    result : Dataset
    what : str
        The name of the result in error messages.

    Raises
    ------
    ParameterError
        If the result was computed from another posterior, or has no labels of draws.
    """
    another = ParameterError(
        f"The {what} was computed from another posterior, for example before the model was refitted or draws were selected, or its "
        "labels were changed. "
        f"Recompute the {what} with this fit, or pass the fit from which it was computed."
    )
    stored = result.attrs.get(posterior.IDENTITY_ATTRIBUTE)
    if stored is not None and stored != posterior.identity(fit):
        raise another
    if stored is None and not _same_provenance(fit, result):
        raise another
    kept, draws = {}, posterior.law_draws(fit)
    for dim in _LABELS:
        if dim not in result.dims:
            continue
        if dim not in result.coords:
            raise ParameterError(
                f"The {what} has no labels {dim!r}, so its draws cannot be matched with the fit. Recompute it."
            )
        labels = result[dim].values
        known = set(labels.tolist())
        kept[dim] = [label for label in draws[dim].values if label in known]
        if len(kept[dim]) < labels.size:
            raise another
    aligned: xr.Dataset = result.sel(kept)
    if not _same_losses(fit, aligned):
        raise another
    return aligned


def limited_data_of(plan: xr.Dataset) -> dict[str, Any]:
    """Return the unique tokens of a plan with limited data, and the prior and the seed of its rule, as options of a Planner."""
    if "unique_tokens" not in plan.attrs:
        return {"unique_tokens": None}
    prior = RepetitionPrior(**json.loads(plan.attrs["repetition_prior"]))
    seed = int(plan.attrs["repetition_seed"])
    return {"unique_tokens": float(plan.attrs["unique_tokens"]), "repetition": prior, "seed": seed}


def _same_provenance(fit: posterior.Fit, result: xr.Dataset) -> bool:
    try:
        return bool(json.loads(result.attrs.get("posterior_provenance", "{}")) == posterior.provenance(fit))
    except (TypeError, ValueError):
        return False


def _same_losses(fit: posterior.Fit, plan: xr.Dataset) -> bool:
    """Return whether a plan and a fit have the same losses of pretrained students; True if the result has none."""
    stated = plan.get("supervised_loss")
    if (
        stated is None
        or "unique_tokens" in plan.attrs  # the rule for repeated tokens has constants of its own
        or {*SHAPE, "max_student_tokens"} - set(plan.attrs)
        or set(stated.dims) != {"student", "budget", *_LABELS}
        or any(plan[axis].dtype.kind not in "iuf" for axis in ("student", "budget"))  # a user's names
    ):
        return True
    sizes = plan["student"].values[:, None, None]
    tokens = pretraining_tokens(sizes, plan["budget"].values[None, :, None], shape_of(plan))
    tokens = np.minimum(tokens, plan.attrs["max_student_tokens"])
    draws = posterior.posterior_dataset(fit).sel({dim: plan[dim].values for dim in _LABELS})
    symbols = {name: draws[name].transpose(*_LABELS).values.ravel() for name in posterior.law_of(fit).symbols_of_law}
    computed = posterior.law_of(fit).supervised_loss(sizes, tokens, symbols)
    values = stated.transpose("student", "budget", *_LABELS).values.reshape(computed.shape)
    # The loss is NaN if the budget buys less than one token.
    return bool(np.allclose(values, np.where(tokens >= 1, computed, np.nan), rtol=0, atol=1e-9, equal_nan=True))
