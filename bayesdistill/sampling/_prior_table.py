"""Which priors a fit has: the defaults, changed by a mapping, or taken from an earlier fit; and their table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.errors import ModelError, ParameterError
from bayesdistill.law import DEFAULT_LAW, Law, Prior, Reference, as_law
from bayesdistill.model import reference_run
from bayesdistill.priors import Priors, default_priors, prior_frame, prior_from_draws, with_block, with_priors

if TYPE_CHECKING:
    import pandas as pd


def choose_priors(
    asked: Priors | Mapping[str, Prior] | xr.DataTree | None, widen: float, default: Priors, reference: Reference
) -> Priors:
    """Return the priors that `fit` was asked for, in the coordinates of the default ones."""
    if asked is None:
        return default
    if isinstance(asked, Priors):
        return asked
    if isinstance(asked, xr.DataTree):
        draws = posterior.draws_of(asked)
        block, covariance = prior_from_draws(draws, default.law, reference, widen)
        names = [name for name in block if name in default.table and default.table[name].scale > 0]
        if draws.law.distills is not default.law.distills:
            # `sigma` is the residual scale of distilled runs in one of the two models, of supervised runs in the other.
            names = [name for name in names if name != "log_sigma"]
        index = [list(block).index(name) for name in names]
        origin = "earlier posterior" if default.supervised_law == "published law" else "earlier posterior and runs"
        return with_block(default, {name: block[name] for name in names}, covariance[np.ix_(index, index)], origin)
    if isinstance(asked, dict | MappingProxyType):
        return with_priors(default, asked)
    raise ParameterError(f"priors is a {type(asked).__name__}. Pass a mapping of Prior, Priors, or an earlier fit.")


def prior_table(
    fit: xr.DataTree | None = None,
    *,
    runs: pd.DataFrame | None = None,
    supervised: pd.DataFrame | None = None,
    law: Law | str = DEFAULT_LAW,
) -> pd.DataFrame:
    """Return the prior of every coordinate: location, scale, distribution and reason.

    Parameters
    ----------
    fit : DataTree, optional
        Of an existing fit.
    runs, supervised : DataFrame, optional
        Of the fit that `bd.fit(runs, supervised, law=law)` would make.
    law : Law or str

    Returns
    -------
    DataFrame
        Index `coordinate`.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> table = bd.prior_table(runs=bd.load_runs("busbridge2025"))
    >>> table.loc["log_kappa", "distribution"]
    'ln(kappa) ~ Normal(0, 1)'
    """
    if fit is not None:
        table = posterior.prior_table(fit)
        if "reason" not in table:
            raise ModelError("This fit holds no table of priors: it was not made by bd.fit.")
        return table.to_dataframe().rename_axis("coordinate")
    law = as_law(law).for_runs(distilled=runs is not None, supervised=supervised is not None)
    return prior_frame(default_priors(law, reference_run(runs, supervised)))
