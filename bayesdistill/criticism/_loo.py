"""Leave-one-out cross-validation by importance sampling, with a reliability check."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.criticism.groupings import fit_attributes, require_draws
from bayesdistill.criticism.results import dataset
from bayesdistill.errors import ModelError
from bayesdistill.posterior import GOOD_K, Fit


def loo(fit: Fit) -> xr.Dataset:
    """Estimate the leave-one-out expected log predictive density, with Pareto k of every run.

    Parameters
    ----------
    fit : DataTree
        Result of `fit`.

    Returns
    -------
    Dataset
        Over run (supervised_run for a fit of supervised runs alone): `elpd_i`, the log predictive density of the left-out run,
        and `pareto_k`. Scalars: `elpd`, `se`, `p` (effective number of parameters), `bad` (number of runs with k above 0.7).
        The attribute `verdict` describes whether the estimate is reliable.

    Raises
    ------
    ModelError
        If the fit has no log-likelihood.

    Notes
    -----
    Pareto-smoothed importance sampling by ArviZ (Vehtari, Gelman and Gabry 2017, arXiv:1507.04544). It leaves out single runs
    and keeps other runs of the same teacher, student or model, so it is optimistic for models with group effects. Use `leave_out`
    for predictions of new groups.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.loo(bd.load("fit.nc"))  # doctest: +SKIP
    >>> print(found.attrs["verdict"])  # doctest: +SKIP
    """
    name, estimate = _estimate(fit, "loo")
    dim = str(fit[posterior.LOG_LIKELIHOOD][name].dims[-1])
    k = np.asarray(estimate.pareto_k, dtype=float).ravel()
    values = {"elpd_i": np.ravel(estimate.elpd_i), "pareto_k": k, "bad": int((k > GOOD_K).sum())}
    values |= {part: float(getattr(estimate, part)) for part in ("elpd", "se", "p")}
    attrs = {"verdict": describe_k(k), "likelihood": name, **fit_attributes(fit)}
    found = dataset("loo", values, {"run": np.arange(k.size)}, attrs)
    return found if dim == "run" else found.rename(run=dim)


def describe_k(k: np.ndarray) -> str:
    """Describe whether the Pareto k of the runs allow the use of the estimate."""
    bad = np.flatnonzero(~(k <= GOOD_K))  # NaN counts as bad
    if not bad.size:
        return f"All {k.size} values of Pareto k are at most {GOOD_K}. The estimate is reliable."
    worst = bad[np.argsort(-np.nan_to_num(k[bad], nan=np.inf))][:5]
    names = ", ".join(str(i) for i in worst)
    return (
        f"{bad.size} of {k.size} values of Pareto k are above {GOOD_K} (worst: run {names}). These runs are too influential "
        "for importance sampling. Do not use the estimate or comparisons based on it; refit the model without these runs "
        "(bd.leave_out leaves out groups)."
    )


def compare_loo(fits: Mapping[str, Fit]) -> xr.Dataset:
    """Compare models of the same runs by leave-one-out cross-validation.

    Parameters
    ----------
    fits : mapping
        Name -> result of `fit`, two or more.

    Returns
    -------
    Dataset
        Over model, best first: `elpd`, `se`, `p`, `elpd_difference` from the best and its standard error `difference_se` (0 for
        the best), `weight` (stacking), `bad` (number of runs with k above 0.7), `converged` (yes, no or unknown). The attribute
        `verdict` describes whether the comparison is reliable and how clear the difference is.

    Raises
    ------
    ModelError
        If there are fewer than two fits, or their runs differ.

    Notes
    -----
    Stacking weights: Yao et al. (2018, arXiv:1704.02030). If the difference is below 4, or below twice its standard error,
    the data do not determine which model is better.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> bare = bd.fit(bd.load_runs("busbridge2025"), asymptotic_width=None)  # doctest: +SKIP
    >>> bd.compare_loo({"default": bd.load("fit.nc"), "no asymptotic prior": bare}).attrs["verdict"]  # doctest: +SKIP
    """
    from arviz_stats import compare

    if len(fits) < 2:
        raise ModelError(f"compare_loo requires at least two fits, got {len(fits)}.")
    estimates = {name: _estimate(fit, "compare_loo") for name, fit in fits.items()}
    _same_runs(fits)
    with warnings.catch_warnings():
        # The verdict below describes this for all models together.
        warnings.simplefilter("ignore", UserWarning)
        table = compare(
            {name: estimate for name, (_, estimate) in estimates.items()}, method="stacking", round_to="none"
        )
    order = [str(name) for name in table.index]
    values = {name: table[name].to_numpy(dtype=float) for name in ("elpd", "se", "p", "weight")}
    values |= {"elpd_difference": -table["elpd_diff"].abs().to_numpy(dtype=float), "difference_se": table["dse"]}
    values["bad"] = [int((~(np.ravel(estimates[name][1].pareto_k) <= GOOD_K)).sum()) for name in order]
    values["converged"] = [fit_attributes(fits[name])["converged"] for name in order]
    found = dataset("compare_loo", values, {"model": order}, {})
    found.attrs = {"verdict": _describe_comparison(found), **posterior.conflict_attribute(fits)}
    return found


def _describe_comparison(found: xr.Dataset) -> str:
    names = [str(name) for name in found["model"].values]
    failed = [f"{name} ({int(count)} runs)" for name, count in zip(names, found["bad"].values, strict=True) if count]
    if failed:
        return (
            f"Pareto k is above {GOOD_K} for {', '.join(failed)}. Do not use this comparison; use bd.leave_out instead."
        )
    gap, error = float(-found["elpd_difference"][1]), float(found["difference_se"][1])
    clear = gap > 4 and gap > 2 * error
    text = f"The elpd of {names[0]} exceeds the elpd of {names[1]} by {gap:.1f} (standard error {error:.1f})."
    return text if clear else f"{text} The data do not determine which of the two models is better."


def _estimate(fit: Fit, caller: str) -> tuple[str, Any]:
    from arviz_stats import loo as arviz_loo

    if not isinstance(fit, xr.DataTree) or posterior.LOG_LIKELIHOOD not in fit.children:
        raise ModelError(f"{caller} requires a fit with its log-likelihood. Pass the result of bd.fit.")
    require_draws(fit, caller)
    names = [str(name) for name in fit[posterior.LOG_LIKELIHOOD].data_vars]
    name = "student_loss" if "student_loss" in names else names[0]
    with warnings.catch_warnings():
        # ArviZ warns about large k; `verdict` reports it.
        warnings.simplefilter("ignore", UserWarning)
        return name, arviz_loo(fit, pointwise=True, var_name=name)


def _same_runs(fits: Mapping[str, Fit]) -> None:
    first_name, first = next(iter(fits.items()))
    for name, fit in fits.items():
        if not posterior.observed_runs(fit).equals(posterior.observed_runs(first)):
            raise ModelError(
                f"{name!r} and {first_name!r} were fitted to different runs. compare_loo requires fits of the same runs."
            )
