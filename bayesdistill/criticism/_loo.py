"""Leave-one-out cross-validation by importance sampling, with what its diagnostics say, in words."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.criticism.groupings import fit_attributes
from bayesdistill.errors import ModelError
from bayesdistill.posterior import Fit

GOOD_K = 0.7
"""Above this Pareto k the importance sampling of a run cannot be trusted (Vehtari et al. 2024, arXiv:1507.02646)."""


def loo(fit: Fit) -> xr.Dataset:
    """Leave-one-out expected log predictive density, with Pareto k of every run.

    Parameters
    ----------
    fit : DataTree
        What `fit` returned.

    Returns
    -------
    Dataset
        Over run (supervised_run for a fit of supervised runs alone): `elpd_i`, the log predictive density of the run left out,
        and `pareto_k`. Scalars: `elpd`, `se`, `p` (effective number of parameters), `bad` (runs with k above 0.7). The
        attribute `verdict` says in words what k means for the number.

    Raises
    ------
    ModelError
        If the fit holds no log-likelihood.

    Notes
    -----
    Pareto-smoothed importance sampling by ArviZ (Vehtari, Gelman and Gabry 2017, arXiv:1507.04544). It leaves out single runs:
    others of the same teacher and student stay, so that it flatters a model that learns their shifts. `leave_out` does not.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> found = bd.loo(bd.load("fit.nc"))  # doctest: +SKIP
    >>> print(found.attrs["verdict"])  # doctest: +SKIP
    """
    name, estimate = _estimate(fit, "loo")
    dim = fit[posterior.LOG_LIKELIHOOD][name].dims[-1]
    k = np.asarray(estimate.pareto_k, dtype=float).ravel()
    variables: dict[str, tuple[Any, Any, str]] = {
        "elpd_i": (dim, np.asarray(estimate.elpd_i, dtype=float).ravel(), "log predictive density of the run left out"),
        "pareto_k": (dim, k, "Pareto k of the importance weights"),
        "elpd": ((), float(estimate.elpd), "expected log predictive density"),
        "se": ((), float(estimate.se), "standard error of elpd"),
        "p": ((), float(estimate.p), "effective number of parameters"),
        "bad": ((), int((k > GOOD_K).sum()), f"runs with k above {GOOD_K}"),
    }
    return xr.Dataset(
        {key: (dims, values, {"units": "1", "long_name": words}) for key, (dims, values, words) in variables.items()},
        coords={dim: np.arange(k.size)},
        attrs={"verdict": k_in_words(k), "likelihood": name, **fit_attributes(fit)},
    )


def k_in_words(k: np.ndarray) -> str:
    """What the Pareto k of the runs mean for the estimate."""
    bad = np.flatnonzero(~(k <= GOOD_K))  # NaN is not good
    if not bad.size:
        return f"All {k.size} values of Pareto k are at most {GOOD_K}: the estimate can be used."
    worst = bad[np.argsort(-np.nan_to_num(k[bad], nan=np.inf))][:5]
    names = ", ".join(str(i) for i in worst)
    return (
        f"{bad.size} of {k.size} values of Pareto k are above {GOOD_K} (worst: run {names}): these runs move the posterior so "
        "much that leaving them out cannot be imitated by reweighting. Do not use the estimate or a comparison made from it; "
        "fit without them (bd.leave_out does it by groups)."
    )


def compare_loo(fits: Mapping[str, Fit]) -> xr.Dataset:
    """Compare models of the same runs by leave-one-out.

    Parameters
    ----------
    fits : mapping
        Name -> what `fit` returned, two or more.

    Returns
    -------
    Dataset
        Over model, best first: `elpd`, `se`, `p`, `elpd_difference` from the best and its standard error `difference_se` (0 for
        the best), `weight` (stacking), `bad` (runs with k above 0.7), `converged` (yes, no or
        unknown). The attribute `verdict` says in words whether the
        comparison can be used, and how sure the best is.

    Raises
    ------
    ModelError
        If there are fewer than two fits, or they were not made from the same runs.

    Notes
    -----
    Stacking weights: Yao et al. (2018, arXiv:1704.02030). Where the difference is under 4, or under twice its standard error,
    the runs do not say which model is better.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> bare = bd.fit(bd.load_runs("busbridge2025"), asymptotic_width=None)  # doctest: +SKIP
    >>> bd.compare_loo({"default": bd.load("fit.nc"), "no asymptotic prior": bare}).attrs["verdict"]  # doctest: +SKIP
    """
    from arviz_stats import compare

    if len(fits) < 2:
        raise ModelError("compare_loo needs at least two fits")
    estimates = {name: _estimate(fit, "compare_loo") for name, fit in fits.items()}
    _same_runs(fits)
    with warnings.catch_warnings():
        # Said in words below, for all models together.
        warnings.simplefilter("ignore", UserWarning)
        table = compare(
            {name: estimate for name, (_, estimate) in estimates.items()}, method="stacking", round_to="none"
        )
    order = [str(name) for name in table.index]
    k = {name: np.asarray(estimates[name][1].pareto_k, dtype=float).ravel() for name in order}
    bad = [int((~(k[name] <= GOOD_K)).sum()) for name in order]
    columns = {
        "elpd": (table["elpd"], "expected log predictive density"),
        "se": (table["se"], "standard error of elpd"),
        "p": (table["p"], "effective number of parameters"),
        "elpd_difference": (-table["elpd_diff"].abs(), "elpd minus that of the best model"),
        "difference_se": (table["dse"], "standard error of the difference"),
        "weight": (table["weight"], "stacking weight"),
    }
    variables = {
        name: ("model", np.asarray(values, dtype=float), {"units": "1", "long_name": words})
        for name, (values, words) in columns.items()
    }
    variables["bad"] = ("model", np.asarray(bad), {"units": "1", "long_name": f"runs with k above {GOOD_K}"})
    verdicts = np.array([fit_attributes(fits[name])["converged"] for name in order])
    variables["converged"] = ("model", verdicts, {"long_name": "whether the draws of the fit converged"})
    found = xr.Dataset(variables, coords={"model": order})
    found.attrs = {"verdict": _comparison_in_words(found)}
    return found


def _comparison_in_words(found: xr.Dataset) -> str:
    names = [str(name) for name in found["model"].values]
    failed = [f"{name} ({int(count)} runs)" for name, count in zip(names, found["bad"].values, strict=True) if count]
    if failed:
        return f"Pareto k is above {GOOD_K} for {', '.join(failed)}: do not use this comparison; see bd.leave_out."
    gap, error = float(-found["elpd_difference"][1]), float(found["difference_se"][1])
    clear = gap > 4 and gap > 2 * error
    lead = f"{names[0]} leads {names[1]} by {gap:.1f} (standard error {error:.1f})"
    return f"{lead}." if clear else f"{lead}: the runs do not say which of the two is better."


def _estimate(fit: Fit, caller: str) -> tuple[str, Any]:
    from arviz_stats import loo as arviz_loo

    if not isinstance(fit, xr.DataTree) or posterior.LOG_LIKELIHOOD not in fit.children:
        raise ModelError(f"{caller} needs a fit with its log-likelihood, as bayesdistill.fit returns it")
    names = [str(name) for name in fit[posterior.LOG_LIKELIHOOD].data_vars]
    name = "student_loss" if "student_loss" in names else names[0]
    with warnings.catch_warnings():
        # ArviZ warns of a large k; `verdict` says it.
        warnings.simplefilter("ignore", UserWarning)
        return name, arviz_loo(fit, pointwise=True, var_name=name)


def _same_runs(fits: Mapping[str, Fit]) -> None:
    first_name, first = next(iter(fits.items()))
    for name, fit in fits.items():
        if not posterior.observed_runs(fit).equals(posterior.observed_runs(first)):
            raise ModelError(
                f"{name!r} was not fitted to the runs of {first_name!r}; leave-one-out cannot compare them"
            )
