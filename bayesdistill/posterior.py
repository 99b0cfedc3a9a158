"""A fit as seen by everything that uses it: the law's draws, their summaries with Monte-Carlo error, and their provenance.

This is the only room that knows the names of the groups and attributes of a fit. A fit is an `xarray.DataTree` that
`sampling.fit` returned or `sampling.load` read; where only draws matter, a Dataset with dimensions chain and draw does.

Summaries keep chains and draws apart until the last reduction, because the Monte-Carlo standard error of a probability
depends on how strongly the draws of each chain are correlated (Vehtari et al. 2021, arXiv:1903.08008).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr

from bayesdistill.errors import ModelError, ParameterError
from bayesdistill.laws import DISTILLATION_PARAMETERS, EXTENSION_PARAMETERS, LAW_PARAMETERS, SUPERVISED_PARAMETERS

POSTERIOR = "posterior"
SAMPLE_STATS = "sample_stats"
LOG_LIKELIHOOD = "log_likelihood"
OBSERVED = "observed_data"
CONSTANT = "constant_data"
OMEGA = "omega"
"""Where it is fixed it is an attribute of the posterior: ArviZ's diagnostics divide by the variance of every variable."""
PRIOR_TABLE = "prior_table"
SLOPE_ORIGIN = "teacher_loss"
"""Attribute of sigma_student_slope: the loss of the teacher at which slopes begin."""
FORMAT_ATTRIBUTE = "bayesdistill_format"
PROVENANCE_ATTRIBUTE = "bayesdistill_provenance"
FORMAT = 1
"""Version of the layout of a saved fit; `sampling.load` refuses files of another."""

INTERVAL_KIND = "equal-tailed"
INTERVAL_PROBABILITY = 0.9

Fit = xr.DataTree | xr.Dataset


# What a fit holds ---------------------------------------------------------------------------------------------------


def posterior_dataset(fit: Fit) -> xr.Dataset:
    """All posterior variables, (chain, draw, ...), a fixed omega among them.

    Raises
    ------
    ModelError
        If `fit` holds no posterior with dimensions chain and draw.
    """
    if isinstance(fit, xr.DataTree):
        if POSTERIOR not in fit.children:
            raise ModelError("this DataTree has no group 'posterior'; pass what `fit` returned or `load` read")
        dataset = fit[POSTERIOR].to_dataset()
    elif isinstance(fit, xr.Dataset):
        dataset = fit
    else:
        raise ModelError(f"a fit is an xarray DataTree (or a Dataset of draws), not {type(fit).__name__}")
    missing = {"chain", "draw"} - set(dataset.dims)
    if missing:
        raise ModelError(f"the posterior lacks the dimension {' and '.join(sorted(missing))}")
    if OMEGA in dataset.attrs and OMEGA not in dataset:
        value = np.full((dataset.sizes["chain"], dataset.sizes["draw"]), float(dataset.attrs[OMEGA]))
        dataset = dataset.assign({OMEGA: (("chain", "draw"), value)})
    return dataset


def law_draws(fit: Fit) -> xr.Dataset:
    """Draws of the law's parameters that the posterior holds, under their own names.

    Parameters
    ----------
    fit : DataTree or Dataset

    Returns
    -------
    Dataset
        What `distilled_loss` needs: dimensions chain and draw; E A B alpha beta gamma and, for a distillation fit, A_S B_S alpha_S
        beta_S gamma_S c0 c1 d1 f1, and w1, kappa and omega if the model has them.

    Raises
    ------
    ModelError
        If a parameter of the supervised law is missing, or a value is NaN or infinite; or if the law is one that this version
        does not know.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> fit = bd.fit("mine.csv")  # doctest: +SKIP
    >>> bd.distilled_loss(1e9, 2e10, 2.2, **bd.law_draws(fit)).mean()  # doctest: +SKIP
    """
    dataset = posterior_dataset(fit)
    if "c2" in dataset:
        raise ModelError("this fit is of an earlier version, whose law had c2 (token shortage); fit the runs again")
    names = [name for name in (*LAW_PARAMETERS, *EXTENSION_PARAMETERS) if name in dataset]
    missing = [name for name in SUPERVISED_PARAMETERS if name not in dataset]
    if missing:
        raise ModelError(f"the posterior has no {', '.join(missing)}; it is not a fit of a scaling law")
    draws = dataset[names].transpose("chain", "draw").astype(float)
    for name in names:
        bad = ~np.isfinite(draws[name].values)
        if bad.any():
            chain, draw = (int(i[0]) for i in np.nonzero(bad))
            raise ModelError(f"the posterior of {name} is not finite (chain {chain}, draw {draw}); fit again")
    return draws


def slope_origin(noise: xr.Dataset) -> float:
    """The teacher's loss at which the slopes of student configurations begin, from the draws of `noise_draws`.

    Raises
    ------
    ParameterError
        If the draws do not say.
    """
    try:
        return float(noise["sigma_student_slope"].attrs[SLOPE_ORIGIN])
    except KeyError:
        raise ParameterError(
            f"the posterior has sigma_student_slope without its attribute {SLOPE_ORIGIN!r}, the teacher's loss at which "
            "slopes begin; take the variable from a fit, attributes included, or leave it out"
        ) from None


def is_distilled(fit: Fit) -> bool:
    """Whether the posterior holds the distillation law, or the supervised law alone."""
    return all(name in posterior_dataset(fit) for name in DISTILLATION_PARAMETERS)


def noise_draws(fit: Fit) -> xr.Dataset:
    """Draws of the scatter of single runs around the law, (chain, draw), in nats.

    Returns
    -------
    Dataset
        `sigma` and `nu` of the Student-t, `sigma_supervised` where supervised runs have a scatter of their own, and
        `sigma_teacher`, `sigma_student` (scatter shared by the runs of a teacher and of a student configuration) and
        `sigma_student_slope` (of a configuration, per 10 % of the teacher's loss; its attribute `teacher_loss` says from
        which teacher on) where the posterior has them.
    """
    dataset = posterior_dataset(fit)
    wanted = ("sigma", "nu", "sigma_supervised", "sigma_teacher", "sigma_student", "sigma_student_slope")
    return dataset[[name for name in wanted if name in dataset]]


def seen_runs(fit: Fit) -> xr.Dataset:
    """The design of the runs that the posterior has seen.

    Returns
    -------
    Dataset
        student_params, student_tokens and teacher_loss over `run`; params and tokens over `supervised_run`. Empty for a
        bare Dataset of draws.
    """
    if isinstance(fit, xr.DataTree) and CONSTANT in fit.children:
        return fit[CONSTANT].to_dataset()
    return xr.Dataset()


def observed_runs(fit: Fit) -> xr.Dataset:
    """What came out of the runs that the posterior has seen: student_loss over `run`, loss over `supervised_run`."""
    if isinstance(fit, xr.DataTree) and OBSERVED in fit.children:
        return fit[OBSERVED].to_dataset()
    return xr.Dataset()


def provenance(fit: Fit) -> dict[str, Any]:
    """What a fit came from.

    Parameters
    ----------
    fit : DataTree or Dataset

    Returns
    -------
    dict
        `versions`, `sampler`, `backend`, `seed`, `settings`, `data` (runs, hash and source of each table), `reference`,
        `supervised_law`, `asymptotic_width`, `priors`, `started` and `seconds`. Empty for draws from elsewhere.

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
        raise ModelError(f"a fit is an xarray DataTree (or a Dataset of draws), not {type(fit).__name__}")
    text = fit.attrs.get(PROVENANCE_ATTRIBUTE, "{}")
    return dict(json.loads(text))


def prior_table(fit: Fit) -> xr.Dataset:
    """The priors of a fit: variables `distribution` and `reason` over the dimension `parameter`."""
    if isinstance(fit, xr.DataTree) and PRIOR_TABLE in fit.children:
        return fit[PRIOR_TABLE].to_dataset()
    return xr.Dataset()


# Summaries ----------------------------------------------------------------------------------------------------------


def _stack(values: xr.DataArray) -> np.ndarray:
    return np.asarray(values.transpose(..., "chain", "draw").values, dtype=float)


def probability(indicator: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Share of draws in which something holds, with its Monte-Carlo standard error.

    Parameters
    ----------
    indicator : DataArray
        Booleans (or 0 and 1) with dimensions chain and draw, and any others. NaN where the question has no answer.

    Returns
    -------
    probability, mcse : DataArray
        Both without chain and draw. NaN where any draw is NaN.

    Notes
    -----
    The standard error is sqrt(q (1 - q) / ESS) with the effective sample size of the mean of the indicator (Vehtari et
    al. 2021) and q = (n p + 1/2) / (n + 1), n draws. Where all draws agree p is 0 or 1 and the plain formula would claim
    certainty; this one leaves about 0.7/n.
    """
    from arviz_stats.base import array_stats

    values = _stack(indicator)
    draws = values.shape[-1] * values.shape[-2]
    share = values.mean(axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        ess = np.asarray(array_stats.ess(values, chain_axis=-2, draw_axis=-1, method="mean"), dtype=float)
    constant = (values == values[..., :1, :1]).all(axis=(-2, -1))
    ess = np.where(constant | ~np.isfinite(ess), draws, ess)
    q = (draws * share + 0.5) / (draws + 1)
    template = indicator.isel(chain=0, draw=0, drop=True).astype(float)
    p = template.copy(data=share)
    error = template.copy(data=np.where(np.isfinite(share), np.sqrt(q * (1 - q) / ess), np.nan))
    p.attrs = {"units": "1", "long_name": "probability"}
    error.attrs = {"units": "1", "long_name": "Monte-Carlo standard error of the probability"}
    return p, error


def mean_mcse(values: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Posterior mean over chain and draw, with its Monte-Carlo standard error.

    The standard error is NaN for a posterior of fewer than four draws a chain, which has none.
    """
    from arviz_stats.base import array_stats

    array = _stack(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.asarray(array_stats.mcse(array, chain_axis=-2, draw_axis=-1, method="mean"), dtype=float)
    template = values.isel(chain=0, draw=0, drop=True).astype(float)
    mean = template.copy(data=array.mean(axis=(-2, -1)))
    mean.attrs = dict(values.attrs)
    mcse = template.copy(data=error)
    mcse.attrs = {
        "units": values.attrs.get("units", "1"),
        "long_name": "Monte-Carlo standard error of the posterior mean",
    }
    return mean, mcse


def interval(values: xr.DataArray, prob: float = INTERVAL_PROBABILITY) -> xr.DataArray:
    """Equal-tailed interval over chain and draw.

    Parameters
    ----------
    values : DataArray
        With dimensions chain and draw.
    prob : float
        Probability inside, in (0, 1).

    Returns
    -------
    DataArray
        With the dimension `bound` (lower, upper); attributes interval_kind and interval_prob. NaN where any draw is NaN.
    """
    if not 0 < prob < 1:
        raise ParameterError(f"prob is {prob!r}; a probability between 0 and 1 is needed")
    tails = [(1 - prob) / 2, (1 + prob) / 2]
    result = values.quantile(tails, dim=("chain", "draw"), skipna=False).rename(quantile="bound")
    result = result.assign_coords(bound=["lower", "upper"])
    result.attrs = {**values.attrs, "interval_kind": INTERVAL_KIND, "interval_prob": prob}
    return result


def mean(values: xr.DataArray) -> xr.DataArray:
    """Posterior mean over chain and draw, attributes kept. NaN where any draw is NaN."""
    return values.mean(dim=("chain", "draw"), keep_attrs=True, skipna=False)


def median(values: xr.DataArray) -> xr.DataArray:
    """Posterior median over chain and draw, attributes kept. NaN where any draw is NaN."""
    return values.median(dim=("chain", "draw"), keep_attrs=True, skipna=False)


# Prior and posterior ------------------------------------------------------------------------------------------------

PRIOR_SHARE = 0.8
"""From this share of the prior's width on, a coordinate counts as dominated by its prior."""

_PRIOR_WIDTH = 2 * 1.6448536269514722  # between the 5 and 95 % quantiles of the standard normal


def prior_dominated(fit: Fit, share: float = PRIOR_SHARE) -> list[str]:
    """Standardised coordinates about which the runs say little.

    Parameters
    ----------
    fit : DataTree or Dataset
        What `fit` returned. Bare draws of the law's symbols have no coordinates, and give an empty list.
    share : float
        How wide the posterior's 90 % interval must be, in units of the prior's.

    Returns
    -------
    list of str
        Names of coordinates, in the model's order.

    Notes
    -----
    The sampled `z` are independent standard normals a priori. Where a block of priors is joint, as that of the published law,
    coordinate = location + factor z with a triangular factor, and z is what a coordinate has that those before it have not.
    """
    draws = posterior_dataset(fit)
    if "z" not in draws or "coordinate" not in draws["z"].dims:
        return []
    bounds = interval(draws["z"], 0.9)
    ratio = (bounds.sel(bound="upper") - bounds.sel(bound="lower")) / _PRIOR_WIDTH
    return [str(name) for name, r in zip(draws["coordinate"].values, ratio.values, strict=True) if r >= share]


SUPERVISED_COORDINATES = frozenset(
    ("log_loss", "reducible", "share", "log_elasticity_params", "log_elasticity_tokens", "log_gamma")
)
"""Coordinates that the published-law prior speaks for; `tests/test_plots.py` compares them with the model's."""

COORDINATE_WORDS = {
    "log_loss": "the supervised loss of a middling run",
    "reducible": "the irreducible loss",
    "share": "what size and tokens each do to the supervised loss",
    "log_elasticity_params": "how fast the supervised loss falls with size",
    "log_elasticity_tokens": "how fast the supervised loss falls with tokens",
    "log_gamma": "the supervised law's outer exponent",
    "log_excess_S": "how far a student stays above its teacher",
    "share_S": "what size and tokens each do to the student's loss",
    "log_elasticity_params_S": "how fast the student's loss falls with size",
    "log_elasticity_tokens_S": "how fast the student's loss falls with tokens",
    "log_gamma_S": "the distillation law's outer exponent",
    "teacher_power": "the exponent of the teacher's loss",
    "log_gap_strength": "the strength of the capacity gap",
    "log_gap_slope": "the slope of the capacity gap",
    "gap_curvature": "the curvature of the capacity gap",
    "log_sigma": "the scatter of runs",
    "log_nu": "the tails of the scatter",
    "log_sigma_supervised": "the scatter of supervised runs",
    "log_sigma_teacher": "the shifts of teachers",
    "log_sigma_student": "the shifts of student configurations",
    "log_sigma_student_slope": "how those shifts grow with the teacher's loss",
    "logit_w1": "what students make good of a weak teacher",
    "log_power_S": "how a student's excess grows with its own reducible loss",
    "log_kappa": "how many tokens of pretraining a token of distillation is worth",
    "logit_omega": "how much of the irreducible loss the capacity gap takes off",
    "noise_ratio": "how the scatter depends on the teacher",
    "noise_tokens": "how the scatter depends on the tokens",
}


def prior_sentences(names: list[str], published: bool) -> list[str]:
    """What to tell the reader about coordinates that the prior dominates, and about a supervised law that is a prior.

    Parameters
    ----------
    names : list of str
        As `prior_dominated` gives them.
    published : bool
        Whether the supervised law came from the published-law prior, which one sentence then says for all its coordinates.

    Returns
    -------
    list of str
        Sentences, none if there is nothing to tell.
    """
    said = ["The supervised law comes from the published-law prior, not from supervised runs."] if published else []
    rest = [name for name in names if not (published and name in SUPERVISED_COORDINATES)]
    if rest:
        words = "; ".join(COORDINATE_WORDS.get(name, name.replace("_", " ")) for name in rest)
        said.append(f"{'Also prior-dominated' if published else 'Prior-dominated'}: {words}.")
    return said


# Convergence --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gates:
    """What a posterior must pass to be used without a warning.

    Parameters
    ----------
    max_rhat : float
        Largest rank-normalised split R-hat of any variable (Vehtari et al. 2021).
    min_ess_bulk, min_ess_tail : float
        Smallest effective sample size of any variable, in the bulk and in the 5 and 95 % tails.
    max_divergences : int
        Divergent transitions after tuning.
    max_treedepth_share : float
        Share of draws whose trajectory was cut at the maximal tree depth.
    min_bfmi : float
        Smallest E-BFMI of any chain (Betancourt 2016, arXiv:1604.00695).
    """

    max_rhat: float = 1.01
    min_ess_bulk: float = 400
    min_ess_tail: float = 400
    max_divergences: int = 0
    max_treedepth_share: float = 0.01
    min_bfmi: float = 0.3


GATES = Gates()


def convergence(fit: Fit, gates: Gates = GATES) -> dict[str, Any]:
    """Whether the draws passed the gates, with the numbers behind it.

    Parameters
    ----------
    fit : DataTree or Dataset
        A bare Dataset has no sample statistics; what cannot be computed is None.
    gates : Gates
        Thresholds.

    Returns
    -------
    dict
        `converged` (True, False, or None for a bare Dataset of draws, whose sampler nobody knows), `failed` (names of
        the gates that failed), `rhat`, `ess_bulk`, `ess_tail` (the worst over all variables, with the variable in
        `rhat_variable`, ...), `divergences`, `treedepth_share`, `bfmi`, `chains`, `draws`, and `gates`.
    """
    from arviz_stats.base import array_stats

    dataset = posterior_dataset(fit)
    worst: dict[str, tuple[float, str]] = {}
    for name, variable in dataset.data_vars.items():
        if not {"chain", "draw"} <= set(variable.dims):
            continue
        values = _stack(variable)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = {
                "rhat": array_stats.rhat(values, chain_axis=-2, draw_axis=-1),
                "ess_bulk": -np.asarray(array_stats.ess(values, chain_axis=-2, draw_axis=-1, method="bulk")),
                "ess_tail": -np.asarray(
                    array_stats.ess(values, chain_axis=-2, draw_axis=-1, method="tail", prob=(0.05, 0.95))
                ),
            }
        constant = (values == values[..., :1, :1]).all(axis=(-2, -1))
        for key, value in found.items():
            # A parameter that is fixed (gamma = 1) has no R-hat; that is no fault.
            value = np.where(constant, -np.inf, value)
            candidate = (float(np.max(value)), str(name)) if not np.isnan(value).any() else (math.inf, str(name))
            if key not in worst or candidate[0] > worst[key][0]:
                worst[key] = candidate
    if not worst:
        raise ModelError("the posterior holds no draws")
    stats = _sampler_statistics(fit)
    numbers: dict[str, Any] = {
        "rhat": worst["rhat"][0],
        "rhat_variable": worst["rhat"][1],
        "ess_bulk": max(0.0, -worst["ess_bulk"][0]),
        "ess_bulk_variable": worst["ess_bulk"][1],
        "ess_tail": max(0.0, -worst["ess_tail"][0]),
        "ess_tail_variable": worst["ess_tail"][1],
        **stats,
        "chains": dataset.sizes["chain"],
        "draws": dataset.sizes["draw"],
    }
    failed = []
    if numbers["rhat"] > gates.max_rhat:
        failed.append("rhat")
    if numbers["ess_bulk"] < gates.min_ess_bulk:
        failed.append("ess_bulk")
    if numbers["ess_tail"] < gates.min_ess_tail:
        failed.append("ess_tail")
    if stats["divergences"] is not None and stats["divergences"] > gates.max_divergences:
        failed.append("divergences")
    if stats["treedepth_share"] is not None and stats["treedepth_share"] > gates.max_treedepth_share:
        failed.append("treedepth_share")
    if stats["bfmi"] is not None and stats["bfmi"] < gates.min_bfmi:
        failed.append("bfmi")
    known = isinstance(fit, xr.DataTree)
    for key in ("rhat", "ess_bulk", "ess_tail"):
        if not math.isfinite(numbers[key]):
            numbers[key] = None
    return {"converged": (not failed) if known else None, "failed": failed, **numbers, "gates": asdict(gates)}


def _sampler_statistics(fit: Fit) -> dict[str, Any]:
    """Divergences, cut trajectories and E-BFMI; samplers name their statistics differently."""
    empty = {"divergences": None, "treedepth_share": None, "bfmi": None}
    if not isinstance(fit, xr.DataTree) or SAMPLE_STATS not in fit.children:
        return empty
    stats = fit[SAMPLE_STATS].to_dataset()
    result: dict[str, Any] = dict(empty)
    if "diverging" in stats:
        result["divergences"] = int(stats["diverging"].sum())
    for name in ("maxdepth_reached", "reached_max_treedepth"):
        if name in stats:
            result["treedepth_share"] = float(stats[name].mean())
    if "energy" in stats:
        energy = _stack(stats["energy"])
        variance = energy.var(axis=-1)
        if energy.shape[-1] > 1 and (variance > 0).all():
            result["bfmi"] = float((np.square(np.diff(energy, axis=-1)).mean(axis=-1) / variance).min())
    return result
