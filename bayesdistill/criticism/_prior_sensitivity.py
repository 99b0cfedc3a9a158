"""Sensitivity of the posterior and of decisions to each prior, by power scaling."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.criticism.groupings import fit_attributes, require_draws
from bayesdistill.criticism.results import dataset
from bayesdistill.datasets.axes import short
from bayesdistill.decisions.pairing import paired
from bayesdistill.decisions.planning import Source, fit_of
from bayesdistill.errors import ModelError, ParameterError
from bayesdistill.posterior import Fit
from bayesdistill.posterior.prior_dominance import SUPERVISED_COORDINATES
from bayesdistill.priors import STATEMENTS

SENSITIVE = 0.05
"""A prior with at least this sensitivity is informative (Kallioinen et al. 2024)."""
_BREAKS_TIES = 1e-9


def prior_sensitivity(fit: Source, plan: xr.Dataset | None = None) -> xr.Dataset:
    """Return the sensitivity of a law and a plan to each prior and to the runs.

    Parameters
    ----------
    fit : DataTree or Planner
        Result of `fit`.
    plan : Dataset, optional
        Result of `plan` for this fit. Its advantages (pretrained minus distilled loss in nats, on the law's mean curves) are
        additional quantities, one for each student, scenario and budget.

    Returns
    -------
    Dataset
        `sensitivity` over component and quantity: the rate of change of the quantity's posterior (cumulative Jensen-Shannon
        distance per doubling) when the component is raised to a power near 1. Components: `runs` (the likelihood),
        `all priors`, `supervised law` (the joint prior of its coordinates), `asymptotic` (the one-sided prior on the advantage
        with unlimited data), `perfect_teacher` and `limited_data` (if the fit has these priors), and every other coordinate.
        `kind` (quantity): parameter or advantage. `diagnosis` (quantity): interpretation, with the threshold 0.05.

    Raises
    ------
    ModelError
        If the fit has no coordinates `z` or no log-likelihood.
    ParameterError
        If the plan was computed from other draws.

    Notes
    -----
    Power scaling by importance sampling (Kallioinen, Paananen, Bürkner and Vehtari 2024, arXiv:2107.14054), implemented in ArviZ;
    no model is refitted. It describes small changes of a prior. To study large changes, refit the model, for example with
    another `asymptotic_width`. The priors of the effects of teachers and student configurations are not scaled; the priors of
    their standard deviations are.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.load("fit.nc")  # doctest: +SKIP
    >>> found = bd.prior_sensitivity(fit, bd.plan(fit, "1B", [1e21, 1e23]))  # doctest: +SKIP
    >>> found["sensitivity"].sel(component="asymptotic").to_series()  # doctest: +SKIP
    """
    from arviz_stats import psense

    fit = fit_of(fit)
    draws = posterior.posterior_dataset(fit)
    if posterior.members(fit):
        raise ModelError(
            "prior_sensitivity requires the coordinates of one law, but this is a mixture of several. Pass one of its fits."
        )
    if not isinstance(fit, xr.DataTree) or "z" not in draws or posterior.LOG_LIKELIHOOD not in fit.children:
        raise ModelError(
            "prior_sensitivity requires a fit with its coordinates and log-likelihood. Pass the result of bd.fit."
        )
    require_draws(fit, "prior_sensitivity")
    quantities, kinds = _quantities(fit, plan)
    # The two groups may have been thinned differently.
    quantities, priors, likelihood = xr.align(
        quantities,
        log_priors(fit),
        fit[posterior.LOG_LIKELIHOOD].to_dataset(),
        join="inner",
        exclude={"run", "supervised_run"},
    )
    if not quantities.sizes["draw"] or not quantities.sizes["chain"]:
        raise ModelError("The posterior and its log-likelihood have no draws in common. Refit the model.")
    for name in [name for name in STATEMENTS if name in priors]:
        # One-sided priors are 0 in most draws, and importance weights with ties in their tail cannot be smoothed.
        tied = priors[name]
        priors[name] = tied - _BREAKS_TIES * np.random.default_rng(0).random(tied.shape)
    tree = xr.DataTree.from_dict({"posterior": quantities, "log_prior": priors, "log_likelihood": likelihood})
    chosen: dict[str, dict[str, Any]] = {"runs": {"group": "likelihood"}, "all priors": {"group": "prior"}}
    chosen |= {str(name): {"group": "prior", "group_var_names": [name]} for name in priors.data_vars}
    with _quiet():
        scaled = {component: psense(tree, **which) for component, which in chosen.items()}
    names = [str(name) for name in quantities.data_vars]
    found = {component: np.array([float(one[name]) for name in names]) for component, one in scaled.items()}
    values = {
        "sensitivity": np.stack(list(found.values())),
        "kind": kinds,
        "diagnosis": [_diagnose(*pair) for pair in zip(found["all priors"], found["runs"], strict=True)],
    }
    attrs = {"threshold": SENSITIVE, **fit_attributes(fit)}
    return dataset("prior_sensitivity", values, {"component": list(found), "quantity": names}, attrs)


def log_priors(fit: Fit) -> xr.Dataset:
    """Return the log density of every prior at every draw, up to a constant, (chain, draw)."""
    draws = posterior.posterior_dataset(fit)
    z = draws["z"]
    density = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    names = [str(name) for name in z["coordinate"].values]
    joint = [name for name in names if name in SUPERVISED_COORDINATES]
    result = xr.Dataset()
    if joint:
        result["supervised law"] = density.sel(coordinate=joint).sum("coordinate")
    result = result.assign(_log_theory(fit, draws))
    for name in names:
        if name not in joint:
            result[name] = density.sel(coordinate=name, drop=True)
    return result.drop_vars("coordinate", errors="ignore")


def _log_theory(fit: Fit, draws: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the log densities of the priors from statements of theory at the draws of the symbols, by name."""
    provenance = posterior.provenance(fit)
    widths = {s: width for s in STATEMENTS.values() if (width := provenance.get(s.setting)) is not None}
    if not widths or not posterior.is_distilled(fit):
        return {}
    found, reference = posterior.draws_of(fit), posterior.reference_of(fit)
    reduced = found.law.in_units_of(found.columns, reference)
    values = {s.name: s.log_density(found.law, reduced, reference, width) for s, width in widths.items()}
    return {name: draws["E"].copy(data=value.reshape(draws["E"].shape)) for name, value in values.items()}


def _quantities(fit: Fit, plan: xr.Dataset | None) -> tuple[xr.Dataset, list[str]]:
    draws = posterior.posterior_dataset(fit)
    names = [
        str(name)
        for name, value in draws.data_vars.items()
        if set(value.dims) == {"chain", "draw"} and bool((value != value[0, 0]).any())  # omit fixed symbols
    ]
    result = xr.Dataset({name: draws[name].transpose("chain", "draw") for name in names})
    kinds = ["parameter"] * len(names)
    if plan is None:
        return result, kinds
    if not isinstance(plan, xr.Dataset) or not {"distilled_loss", "supervised_loss"} <= set(plan.variables):
        raise ParameterError(
            "Expected a Dataset returned by `bd.plan`; variables 'supervised_loss' and 'distilled_loss' are missing."
        )
    plan = paired(fit, plan)
    # Of the law's mean curves: effects of new groups and paths outside the data are independent of the priors of the law.
    advantage = plan["supervised_loss"] - plan["distilled_loss"]
    axis = "tokens" if "tokens" in advantage.dims else "budget"
    if set(advantage.dims) != {"student", "scenario", axis, "chain", "draw"}:
        raise ParameterError(
            f"The advantage of the plan must have the dimensions student, scenario, {axis}, chain and draw. Select with lists, "
            "for example plan.sel(student=[1e9])."
        )
    result = result.sel(chain=plan["chain"].values, draw=plan["draw"].values)
    unit = "tokens" if axis == "tokens" else "FLOPs"
    advantage = advantage.transpose("scenario", "student", axis, "chain", "draw")
    for scenario, student, spent in itertools.product(*(plan[dim].values for dim in ("scenario", "student", axis))):
        one = advantage.sel({"scenario": scenario, "student": student, axis: spent})
        if bool(one.isnull().any()):
            continue  # no strategy fits the budget
        name = f"advantage, {short(float(student))}, {scenario}, {spent:.3g} {unit}"
        result[name] = one.reset_coords(drop=True)
        kinds.append("advantage")
    return result, kinds


def _diagnose(prior: float, runs: float) -> str:
    if prior < SENSITIVE:
        return "insensitive to the priors"
    return "sensitive to the priors and the data" if runs >= SENSITIVE else "dominated by the priors"


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress a general hint that ArviZ logs; `diagnosis` is specific to each quantity."""
    logger = logging.getLogger("arviz_stats")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
