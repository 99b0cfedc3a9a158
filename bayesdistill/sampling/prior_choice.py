"""Which priors a fit has: the defaults, changed by a mapping, or taken from an earlier fit; and their table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.errors import ModelError, ParameterError
from bayesdistill.model import reference_run
from bayesdistill.priors import (
    Prior,
    Priors,
    Reference,
    default_priors,
    prior_frame,
    prior_from_draws,
    with_block,
    with_priors,
)

if TYPE_CHECKING:
    import pandas as pd


def choose_priors(
    asked: Priors | Mapping[str, Prior] | xr.DataTree | None,
    widen: float,
    default: Priors,
    reference: Reference,
    *,
    keep_supervised: bool,
) -> Priors:
    """The priors that `fit` was asked for, in the coordinates of the default ones."""
    if asked is None:
        return default
    if isinstance(asked, Priors):
        return asked
    if isinstance(asked, xr.DataTree):
        noise = posterior.noise_draws(asked)
        if posterior.is_distilled(asked) is not ("teacher_power" in default.table):
            # `sigma` is the scatter of distilled runs in one of the two models, of supervised runs in the other.
            noise = noise.drop_vars("sigma", errors="ignore")
        block, covariance = prior_from_draws(posterior.law_draws(asked), noise, reference, widen)
        names = [name for name in block if name in default.table]
        for name in names:
            given, earlier = default.table[name], block[name]
            if given.scale == 0 and (earlier.scale > 0 or abs(earlier.location - given.location) > 1e-9):
                symbol = name.removeprefix("log_")
                raise ParameterError(
                    f"{symbol} is fixed, and the earlier fit that serves as prior has another; leave {symbol} out, or repeat the "
                    f"earlier fit with the same {symbol}"
                )
        index = [list(block).index(name) for name in names]
        law = "earlier posterior" if keep_supervised else "earlier posterior and runs"
        return with_block(default, {name: block[name] for name in names}, covariance[np.ix_(index, index)], law)
    if isinstance(asked, dict | MappingProxyType):
        return with_priors(default, asked)
    raise ParameterError(f"priors is a {type(asked).__name__}; give a mapping of Prior, Priors, or an earlier fit")


def prior_table(
    fit: xr.DataTree | None = None,
    *,
    runs: pd.DataFrame | None = None,
    supervised: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The priors one by one: location, scale, distribution and reason of every coordinate.

    Parameters
    ----------
    fit : DataTree, optional
        Of an existing fit.
    runs, supervised : DataFrame, optional
        Of the fit that `bd.fit(runs, supervised)` would make.

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
            raise ModelError("this fit holds no table of priors; it was not made by bayesdistill.fit")
        return table.to_dataframe().rename_axis("coordinate")
    reference = reference_run(runs, supervised)
    return prior_frame(
        default_priors(distilled=runs is not None, supervised=supervised is not None, reference=reference)
    )
