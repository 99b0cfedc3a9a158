"""Choose the priors of a fit, and show them as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.datasets import read_design
from bayesdistill.errors import ModelError, ParameterError
from bayesdistill.law import DEFAULT_LAW, UNITS, Draws, Law, Prior, Reference, as_law
from bayesdistill.model import reference_run
from bayesdistill.priors import (
    BETWEEN_STUDIES,
    Priors,
    default_priors,
    prior_frame,
    prior_from_draws,
    shape_prior_from_draws,
    with_block,
    with_fixed_symbols,
    with_priors,
    without_published_law,
)

if TYPE_CHECKING:
    import pandas as pd


TRANSFERS = ("all", "shape")
"""What an earlier fit that is used as prior informs."""
WIDEN = {"all": 2.0, "shape": 1.0}
"""Default factors on the standard deviations of an earlier fit. The difference between studies already widens a shape."""


def choose_priors(
    given: Priors | Mapping[str, Prior] | xr.DataTree | Sequence[xr.DataTree] | None,
    widen: float | None,
    default: Priors,
    reference: Reference,
    *,
    transfer: str = "all",
    between_studies: float = BETWEEN_STUDIES,
) -> Priors:
    """Return the priors that `fit` uses, in the coordinates of the default priors."""
    if isinstance(given, list | tuple) or (transfer == "shape" and isinstance(given, xr.DataTree)):
        return _from_shapes(given, widen, default, reference, transfer, between_studies)
    if transfer == "shape":
        found = "no priors" if given is None else type(given).__name__
        raise ParameterError(
            f"transfer='shape' takes the shape of the law from an earlier fit: pass it as `priors`, got {found}. Without an earlier "
            "fit, omit `transfer`."
        )
    if given is None:
        return default
    if isinstance(given, Priors):
        return given
    if isinstance(given, xr.DataTree):
        draws = _draws_of(given)
        default = _with_fixed_of([draws], default, {coordinate.symbol for coordinate in default.law.coordinates})
        origin = "earlier posterior" + ("" if default.supervised_law == "published law" else " and runs")
        return _with_block(
            default, *prior_from_draws(draws, default.law, reference, _widen(widen, "all")), [draws], origin
        )
    if isinstance(given, dict | MappingProxyType):
        return with_priors(default, given)
    raise ParameterError(f"`priors` must be a mapping of Prior, Priors, or an earlier fit, got {type(given).__name__}.")


def _from_shapes(
    given: xr.DataTree | Sequence[xr.DataTree],
    widen: float | None,
    default: Priors,
    reference: Reference,
    transfer: str,
    between_studies: float,
) -> Priors:
    """Return priors with the shape of earlier fits of other corpora; none of them has a published supervised law."""
    fits = [given] if isinstance(given, xr.DataTree) else list(given)
    if transfer != "shape" or not all(isinstance(fit, xr.DataTree) for fit in fits):
        raise ParameterError(
            "`priors` is a sequence, which must have earlier fits of other corpora: pass them with transfer='shape'. If they are "
            "of one corpus, fit their runs together."
        )
    earlier = [_draws_of(fit) for fit in fits]
    shape = {coordinate.symbol for coordinate in default.law.coordinates if coordinate.shape}
    default = _with_fixed_of(earlier, default, shape)
    runs = default.supervised_law != "published law"
    default = default if runs else without_published_law(default)
    # Draws without a reference run are not results of `fit`.
    studies = [(draws, reference if draws.reference is UNITS else draws.reference) for draws in earlier]
    block = shape_prior_from_draws(studies, default.law, _widen(widen, "shape"), between_studies)
    origin = "shape of an earlier posterior" if fits else "default priors"
    return _with_block(default, *block, earlier, origin + (" and runs" if runs else ""))


def _draws_of(fit: xr.DataTree) -> Draws:
    if posterior.members(fit):
        raise ParameterError(
            "`priors` is a mixture of several laws, whose draws have no coordinates. Pass one of its fits."
        )
    return posterior.draws_of(fit)


def _widen(widen: float | None, transfer: str) -> float:
    return WIDEN[transfer] if widen is None else widen


def _with_fixed_of(earlier: Sequence[Draws], default: Priors, symbols: set[str]) -> Priors:
    """Fix what the laws of earlier fits fix, of some symbols."""
    for draws in earlier:
        held = {symbol: value for symbol, value in draws.law.fixed.items() if symbol in symbols}
        default = with_fixed_symbols(default, held, "fixed in the earlier fit")
    return default


def _with_block(
    default: Priors, block: Mapping[str, Prior], covariance: np.ndarray, earlier: Sequence[Draws], origin: str
) -> Priors:
    """Replace the priors of the coordinates that vary and that earlier fits inform."""
    names = [name for name in block if name in default.table and default.table[name].scale > 0]
    if any(draws.law.distills is not default.law.distills for draws in earlier):
        # `sigma` is the residual scale of distilled runs in one of the two models, of supervised runs in the other.
        names = [name for name in names if name != "log_sigma"]
    index = [list(block).index(name) for name in names]
    return with_block(default, {name: block[name] for name in names}, covariance[np.ix_(index, index)], origin)


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
        Return the priors of this fit.
    runs, supervised : DataFrame, optional
        Return the priors of `bd.fit(runs, supervised, law=law)`.
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
            raise ModelError("This fit has no table of priors. Pass the result of bd.fit.")
        return table.to_dataframe().rename_axis("coordinate")
    runs = None if runs is None else read_design(runs, "distilled")
    supervised = None if supervised is None else read_design(supervised, "supervised")
    law = as_law(law).for_tables(runs, supervised)
    return prior_frame(default_priors(law, reference_run(runs, supervised)))
