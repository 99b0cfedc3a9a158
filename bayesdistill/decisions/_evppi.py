r"""Value of distillation, and value of information about single quantities.

A gain in nats is converted into compute: the equivalent pretraining budget is the :math:`C'` with
:math:`L_\mathrm{sup}(N, C' / 3F(N)) = L_S`. It is infinite if :math:`L_S` is lower than the loss of pretraining on unlimited
tokens. GPU-hours and money follow from a throughput and a price given by the user.

The expected value of partial perfect information about a quantity :math:`\varphi`, for the choice between pretraining and the
chosen strategy, is :math:`\mathrm{E}\max(0, \mathrm{E}[g \mid \varphi]) - \max(0, \mathrm{E}\,g)` with the advantage g. The inner
expectation is a regression of g on :math:`\varphi` over the draws (Strong, Oakley and Brennan 2014, Medical Decision Making 34,
311-326), here on Hermite polynomials of the normal score of :math:`\varphi`'s rank. Its upper bound is the value of perfect
information for this choice, `regret` of the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, Unpack

import numpy as np
import xarray as xr

from bayesdistill.compute import Shape, forward_flops, pretraining_tokens
from bayesdistill.decisions import labels, planning
from bayesdistill.decisions.crossover_search import ROOT_TOLERANCE
from bayesdistill.decisions.fitted_draws import FittedDraws
from bayesdistill.decisions.labels import CELL, QUANTILES
from bayesdistill.decisions.pairing import limited_data_of, paired, shape_of
from bayesdistill.decisions.prices import Prices
from bayesdistill.decisions.reductions import probability_of, quantiles_of
from bayesdistill.decisions.spending import SHARES
from bayesdistill.errors import ParameterError
from bayesdistill.strategies.roots import find_roots

# Degree of the regression. The bias of the estimate grows with the degree; it is about degree * variance / draws.
_DEGREE = 5
_BLOCKS = 20
# Largest equivalent budget that is searched, as a multiple of the given budget.
_LARGEST_FACTOR = 1e12
_WORTH = {"gain": "expected_gain", "regret": "regret", "evpi": "evpi"}
_LEVEL = {"noise": "law"}  # also if the plan's probabilities have another level


class ValueOptions(planning.Unconverged, planning.Money, total=False):
    """Options of `plan_value`."""


@planning.with_options
def plan_value(
    fit: planning.Source,
    plan: xr.Dataset,
    **options: Unpack[ValueOptions],
) -> xr.Dataset:
    """Return the value of a plan in nats, equivalent pretraining compute, GPU-hours and money.

    Parameters
    ----------
    plan : Dataset
        The result of `plan`, with its draws.

    Returns
    -------
    Dataset
        Over student, scenario, budget, chain, draw: equivalent_budget (FLOPs with which pretraining reaches the loss of the
        chosen strategy; infinite if unreachable), compute_factor (equivalent_budget divided by the budget; above 1 if
        distillation is better). Over student, scenario, budget: compute_factor_quantile over `quantile`,
        unreachable_probability (that no budget suffices) with its _mcse, expected_gain, regret, evpi (nats, from the plan),
        and gain_flops, regret_flops, evpi_flops: the additional pretraining compute that gives the same number of nats along
        the posterior mean of the supervised law (negative if distillation is worse, infinite if unreachable). With a
        throughput also gain_gpu_hours, regret_gpu_hours, evpi_gpu_hours, budget_gpu_hours (over budget), and what the two options
        take in all, distilled_gpu_hours (of training and of the teacher's inference that are charged) and pretraining_gpu_hours
        (no scenario); with a price gain_money, regret_money, evpi_money, budget_money, distilled_money and pretraining_money.

    Raises
    ------
    ParameterError
        If the plan was not computed from this fit, or an argument is invalid.

    Notes
    -----
    The equivalent pretraining respects the plan's max_student_tokens. Throughput, price and currency are
    attributes of the result. Additional compute is 0 if it is less than the tolerance of its search, 1e-9 of the budget.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> plan = bd.plan(published, "1B", 1e21, "best case")
    >>> worth = bd.plan_value(published, plan, gpu_flops_per_second=4e14, price_per_gpu_hour=2)
    >>> bool(worth["compute_factor"] > 1)
    True
    """
    planner = planning.planner_of(plan_value, fit, options)
    prices = Prices.of(planner)
    fitted, plan = paired_draws(planner, plan)
    shape = shape_of(plan)
    students, budgets = plan["student"].values, plan["budget"].values
    cap = float(plan.attrs["max_student_tokens"])
    distilled = _flat(plan["distilled_loss"], CELL)
    tokens = tokens_for_loss(students[:, None, None, None], distilled, fitted, cap)
    equivalent = 3 * forward_flops(students, shape)[:, None, None, None] * tokens
    factor = equivalent / budgets[:, None]
    values = {
        "equivalent_budget": equivalent,
        "compute_factor": factor,
        "compute_factor_quantile": quantiles_of(factor, QUANTILES),
        "unreachable_probability": probability_of(fitted, np.isinf(equivalent), ~np.isnan(distilled)),
    }
    coordinates = {
        name: plan.coords[name].variable for name in (*CELL, "delta_lgt", "delta_pre") if name in plan.coords
    }
    result = labels.answer(
        "plan_value", fitted, values, coordinates | {"quantile": np.array(QUANTILES)}, plan.attrs | _LEVEL
    )
    kept = [name for stem in _WORTH.values() for name in (stem, f"{stem}_mcse") if name in plan]
    result = result.assign({name: plan[name].transpose(*CELL) for name in kept})
    flops = {
        short: additional_budget(fitted, (students, budgets), plan[name].transpose(*CELL).values, shape, cap)
        for short, name in _WORTH.items()
    }
    worth = {f"{short}_flops": values for short, values in flops.items()}
    if prices.speed is not None:
        student, inference, teacher = (plan[name].transpose(*CELL).values * budgets for name in SHARES)
        worth |= prices.costs("distilled", student + teacher, inference)
        alone = np.minimum(pretraining_tokens(students[:, None], budgets, shape), cap)
        worth |= prices.costs("pretraining", 3 * forward_flops(students, shape)[:, None] * alone)
    for short, amounts in (flops | {"budget": budgets}).items():
        worth |= prices.costs(short, amounts)
    result.attrs |= prices.attributes
    return prices.labeled(result.assign(labels.variables("plan_value", worth)))


@planning.with_options
def evppi(
    fit: planning.Source,
    plan: xr.Dataset,
    quantities: Mapping[str, xr.DataArray] | None = None,
    **options: Unpack[planning.Unconverged],
) -> xr.Dataset:
    """Return the expected value of perfect information about single parameters.

    The decision is the choice between distillation and pretraining.

    Parameters
    ----------
    plan : Dataset
        The result of `plan`, with its draws.
    quantities : mapping of str to DataArray, optional
        Quantities that could become known, by name, with values over chain and draw. By default all parameters of the law.
        Functions of several parameters, such as the loss of a certain run, often match better what an experiment measures.

    Returns
    -------
    Dataset
        Over quantity, student, scenario, budget: evppi (nats), evppi_mcse, and evppi_share (fraction of the plan's regret, the
        value of perfect information for this choice; NaN if it is 0).

    Raises
    ------
    ParameterError
        If the plan was not computed from this fit, or a quantity does not have the dimensions chain and draw.

    Notes
    -----
    Estimator: regression on Hermite polynomials up to degree 5 of the normal score (Strong, Oakley and Brennan 2014). Its
    upward bias is about 5 times the variance of the advantage divided by the effective sample size. The standard error is a
    jackknife over blocks of consecutive draws (Künsch 1989, Annals of Statistics 17, 1217-1241), which accounts for autocorrelation.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import numpy as np, xarray as xr
    >>> rng = np.random.default_rng(0)
    >>> draws = {k: (("chain", "draw"), v * np.ones((4, 100))) for k, v in bd.PUBLISHED.items()}
    >>> draws["E"] = (("chain", "draw"), 1.22 * np.exp(0.01 * rng.standard_normal((4, 100))))
    >>> fit = xr.Dataset(draws, attrs={"law": "busbridge2025"})
    >>> value = bd.evppi(fit, bd.plan(fit, "1B", 1e21, "best case"))
    >>> value["evppi"].sel(quantity="A").item()
    0.0
    """
    fitted, plan = paired_draws(planning.planner_of(evppi, fit, options), plan)
    known = _quantities(fitted, quantities)
    gain = _flat(plan["supervised_loss"] - plan["distilled_loss"], CELL)
    cells = gain.reshape(-1, fitted.n_draws)
    value = np.full((len(known), cells.shape[0]), np.nan)
    error = np.full_like(value, np.nan)
    # If all draws agree on the choice, no information can change it.
    agreed = (cells >= 0).all(axis=1) | (cells <= 0).all(axis=1)
    value[:, agreed], error[:, agreed] = 0.0, 0.0
    fine = ~np.isnan(cells).any(axis=1) & ~agreed
    for k, values in enumerate(known.values()):
        value[k, fine], error[k, fine] = regression_evppi(cells[fine], values, fitted.chain.size)
    value, error = (array.reshape(len(known), *gain.shape[:-1]) for array in (value, error))
    regret = plan["regret"].transpose(*CELL).values
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(regret > 0, value / regret, np.nan)
    coordinates: dict[str, Any] = {
        name: plan.coords[name].variable for name in (*CELL, "delta_lgt", "delta_pre") if name in plan.coords
    }
    coordinates["quantity"] = list(known)
    attrs = (
        plan.attrs
        | _LEVEL
        | {"estimator": f"regression on Hermite polynomials of degree {_DEGREE} of the normal score"}
    )
    return labels.answer("evppi", fitted, {"evppi": (value, error), "evppi_share": share}, coordinates, attrs)


def _quantities(fitted: FittedDraws, quantities: Mapping[str, xr.DataArray] | None) -> dict[str, np.ndarray]:
    if quantities is None:
        return {name: fitted.draws[name] for name in fitted.draws.law.symbols_of_law}
    known = {}
    for name, values in quantities.items():
        if not isinstance(values, xr.DataArray) or set(values.dims) != {"chain", "draw"}:
            raise ParameterError(f"quantities[{name!r}] must be a DataArray over chain and draw.")
        labels = {"chain": fitted.chain, "draw": fitted.draw}
        try:
            values = values.sel({dim: kept for dim, kept in labels.items() if dim in values.coords})
            flat = values.transpose("chain", "draw").values.reshape(-1).astype(float)
        except (KeyError, TypeError, ValueError):
            flat = np.zeros(0)
        if flat.size != fitted.n_draws or not np.isfinite(flat).all():
            raise ParameterError(
                f"quantities[{name!r}] must have one finite value for each of the {fitted.n_draws} draws."
            )
        known[str(name)] = flat
    if not known:
        raise ParameterError("`quantities` is empty. Omit it to use all parameters of the law.")
    return known


def regression_evppi(gain: np.ndarray, quantity: np.ndarray, chains: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the value of information about one quantity, (cells,), and its standard error.

    Parameters
    ----------
    gain : ndarray
        Advantage, (cells, n_draws), ordered by chain.
    quantity : ndarray
        (n_draws,).
    chains : int
        Number of chains; blocks of the jackknife do not cross chains.
    """
    n = quantity.size
    if np.ptp(quantity) == 0 or n < 4 * (_DEGREE + 1):
        # A constant carries no information, and very few draws do not allow an estimate.
        nothing = np.full(len(gain), 0.0 if np.ptp(quantity) == 0 else np.nan)
        return nothing, nothing.copy()
    basis = np.polynomial.hermite_e.hermevander(_normal_score(quantity), _DEGREE)
    basis /= np.sqrt((basis**2).mean(axis=0))
    gram, moments = basis.T @ basis, basis.T @ gain.T

    totals = gain.sum(axis=1)

    def value_without(rows: np.ndarray) -> np.ndarray:
        kept = np.ones(n, dtype=bool)
        kept[rows] = False
        remaining = gram - basis[rows].T @ basis[rows], moments - basis[rows].T @ gain[:, rows].T
        # Singular if the quantity has few values, as a symbol that is fixed in the laws of a mixture.
        coefficients = np.linalg.lstsq(*remaining, rcond=1e-10)[0]
        predicted = basis[kept] @ coefficients
        np.maximum(predicted, 0, out=predicted)
        mean = (totals - gain[:, rows].sum(axis=1)) / (n - rows.size)
        return predicted.mean(axis=0) - np.maximum(mean, 0)

    whole = value_without(np.array([], dtype=int))
    blocks = [
        block
        for chain in np.array_split(np.arange(n), chains)
        for block in np.array_split(chain, max(1, min(_BLOCKS // chains, chain.size)))
        if block.size
    ]
    if len(blocks) < 2:
        return np.maximum(whole, 0), np.full(len(gain), np.nan)
    partial = np.stack([value_without(block) for block in blocks])
    error = np.sqrt((len(blocks) - 1) * partial.var(axis=0))
    # Negative values are rounding errors: the mean of the positive parts is at least the positive part of the mean.
    return np.maximum(whole, 0), error


def _normal_score(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    inverse_cdf = NormalDist().inv_cdf
    return np.array([inverse_cdf(u) for u in middle / values.size])[inverse]


def tokens_for_loss(params: np.ndarray, loss: np.ndarray, fitted: FittedDraws, cap: float) -> np.ndarray:
    """Return the tokens with which pretraining reaches a loss in each draw.

    Infinite if no number up to the cap suffices. The supervised law solved for D: (B / ((L - E)^(1/gamma) - A / N^alpha))^(1/beta).
    With limited data, N and D are effective numbers.
    """
    law = fitted.draws
    params, _ = law.effective(params, 1.0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        excess = np.maximum(loss - law["E"], 0) ** (1 / law["gamma"]) - law["A"] * params ** -law["alpha"]
        tokens = np.where(excess > 0, (law["B"] / excess) ** (1 / law["beta"]), np.inf)
        tokens = tokens if law.repetition is None else law.repetition.tokens_for(tokens)
    tokens = np.where(tokens <= cap * (1 + 1e-9), tokens, np.inf)
    return np.where(np.isnan(loss), np.nan, tokens)


def additional_budget(
    fitted: FittedDraws, grid: tuple[np.ndarray, np.ndarray], nats: np.ndarray, shape: Shape, cap: float
) -> np.ndarray:
    """Return the additional compute that lowers the mean pretrained loss by the given nats, (student, scenario, budget)."""
    size, spent, _ = (v.ravel() for v in np.broadcast_arrays(grid[0][:, None, None], grid[1], nats))

    def mean_loss(log_budget: np.ndarray, which: np.ndarray) -> np.ndarray:
        tokens = np.minimum(pretraining_tokens(size[which], np.exp(log_budget), shape), cap)
        return fitted.draws.supervised_loss(size[which, None], tokens[:, None]).mean(axis=-1)

    everyone = np.arange(size.size)
    at = np.log(spent)
    with np.errstate(invalid="ignore"):
        target = mean_loss(at, everyone) - nats.ravel()
    lower, upper = at - np.log(_LARGEST_FACTOR), at + np.log(_LARGEST_FACTOR)
    at_lower, at_upper = mean_loss(lower, everyone) - target, mean_loss(upper, everyone) - target
    result = np.select([np.isnan(target), at_upper >= 0], [np.nan, np.inf], default=-spent)
    within = np.flatnonzero((at_lower > 0) & (at_upper < 0))
    root = find_roots(lambda x, k: mean_loss(x, k) - target[k], lower[within], upper[within], within, ROOT_TOLERANCE)
    change = root - at[within]
    result[within] = spent[within] * np.expm1(np.where(np.abs(change) <= ROOT_TOLERANCE, 0.0, change))
    return result.reshape(nats.shape)


def _flat(values: xr.DataArray, dims: tuple[str, ...]) -> np.ndarray:
    array = values.transpose(*dims, "chain", "draw").values
    return array.reshape(*array.shape[:-2], -1)


def paired_draws(planner: planning.Planner, plan: xr.Dataset) -> tuple[FittedDraws, xr.Dataset]:
    """Return the draws that a fit and a plan have in common, and the plan with its draws in the order of the fit."""
    needed = ("supervised_loss", "distilled_loss", "expected_gain", "regret", "evpi")
    if not isinstance(plan, xr.Dataset) or any(name not in plan for name in needed):
        raise ParameterError("Expected a Dataset returned by `bd.plan`, with its draws and scenarios.")
    if any(name not in plan.dims for name in (*CELL, "chain", "draw")):
        raise ParameterError(
            "The plan must have the dimensions student, scenario and budget. Select with lists, for example "
            "plan.sel(student=[1e9])."
        )
    plan = paired(planner.fit, plan)
    planner = planning.changed(planner, **limited_data_of(plan))
    return planner.fitted.at(plan["chain"].values, plan["draw"].values), plan
