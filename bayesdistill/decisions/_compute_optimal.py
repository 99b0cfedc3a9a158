r"""`compute_optimal`: the model size and the tokens that minimize the loss of pretraining for a compute budget.

With N parameters, a budget C buys :math:`D = C / (3 F(N))` tokens, and the law predicts

.. math::

    L(N) = E + \left(A / N^\alpha + B / D^\beta\right)^\gamma

gamma > 0 leaves the order of sizes unchanged, so the sum has the same optimum. Its logarithmic derivative has one root, because the
elasticity of F increases with N. For F(N) = 2 N the root is equation 4 of Hoffmann et al. (2022, arXiv:2203.15556):

.. math::

    N^* = \left(\frac{\alpha A}{\beta B}\right)^{1/(\alpha + \beta)} \left(\frac{C}{6}\right)^{\beta/(\alpha + \beta)}

The optimum of each draw refers to the law's mean curve. The discrepancy depends on N D, which hardly changes along a budget, so it
moves the loss and not the optimal size.
"""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import xarray as xr
from scipy.optimize import elementwise

from bayesdistill import posterior
from bayesdistill.compute import Shape, flops_by_part, flops_elasticity, forward_flops, pretraining_tokens
from bayesdistill.decisions import extrapolation, labels, planning
from bayesdistill.decisions.arguments import Numbers, parse_budgets
from bayesdistill.decisions.reductions import mean_of, quantiles_of
from bayesdistill.decisions.spending import epochs_note, epochs_of
from bayesdistill.errors import ParameterError
from bayesdistill.law import Draws
from bayesdistill.law.formulas import PUBLISHED_RANGE
from bayesdistill.strategies.roots import find_roots

MULTIPLES = 2.0 ** np.linspace(-2, 2, 17)
"""Sizes of the isoFLOP curves, as multiples of the chosen size."""
AXES = (*extrapolation.PRETRAINING_AXES, "pretraining_compute")
_SMALLEST, _LARGEST = 0.0, np.log(1e20)  # logarithms of parameters, larger than any model
_GRID = 17
_MARGIN = 1e-3


class OptimalOptions(planning.Costs, planning.Noise, planning.LimitedData, total=False):
    """Options of `compute_optimal`."""


@planning.with_options
def compute_optimal(fit: planning.Source, budgets: Numbers, **options: Unpack[OptimalOptions]) -> xr.Dataset:
    """Return the compute-optimal size and tokens of pretraining for each budget, with the loss.

    A fit of supervised runs alone is enough.

    Parameters
    ----------
    budgets : float, str, or a list of them
        Training FLOPs of one model, in any order. The result sorts them.
    noise : {"expected", "law", "run"}
        Level of uncertainty of `loss`. "expected": the expected loss of a new model, with the law's discrepancy, if it has one, which
        grows with the distance from the data. "law": the loss on the law's mean curve. "run": a single run. The optimum does not depend
        on it. It is "law" instead of "expected" for draws of the law's parameters alone.

    Returns
    -------
    Dataset
        Over `budget`: params, tokens, tokens_per_parameter (of the chosen size, which minimizes the posterior mean of the law's loss);
        regret (nats; expected excess loss of the chosen size over the optimum of each draw) with regret_mcse; loss (chain, draw) of the
        chosen size at the level of uncertainty; best_params and best_tokens (chain, draw), the optimum of each draw; excess_quantile
        over `multiple`, the loss of other sizes on the same budget minus the loss of the chosen one (isoFLOP curve; nats);
        extrapolation_factor over `axis`, extrapolation, extrapolates, extrapolation_axis: how far the model and the budget are outside
        the range of the data. size_exponent (chain, draw): beta / (alpha + beta), the power of C with which the optimal size grows
        if C = 6 N D.

    Raises
    ------
    ParameterError
        If an argument is invalid, or the compute-optimal size is not between 1 and 1e20 parameters.

    Notes
    -----
    FLOPs are 3 F(N) D with the package's F(N), which counts attention and the output layer. ``shape=bd.SIX_ND`` counts 6 N D, as in
    most published isoFLOP studies. Sizes count non-embedding parameters, or the parameters that the fitted table counts.

    The optimum of a draw refers to the law's mean curve; see the docstring of `decisions._compute_optimal`.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> found = bd.compute_optimal(published, 1e21, shape=bd.SIX_ND)
    >>> f"{found['params'].item():.3g} parameters, {found['tokens'].item():.3g} tokens"
    '3.05e+09 parameters, 5.46e+10 tokens'
    """
    planner = planning.planner_of(compute_optimal, fit, options, distilled=False)
    fitted, shape, draws = planner.fitted, planner.shape, planner.fitted.draws
    at = parse_budgets(budgets)
    best = optimal_sizes(draws, at, shape)
    for budget in at[np.isnan(best).any(axis=1)]:
        raise ParameterError(
            f"`budgets`: in some draws, the compute-optimal size for {budget:g} FLOPs is not between 1 and 1e20 parameters. "
            "Remove this budget."
        )
    sizes = chosen_sizes(draws, at, shape, best)
    tokens, best_tokens = pretraining_tokens(sizes, at, shape), pretraining_tokens(best, at[:, None], shape)
    law = draws.supervised_loss(sizes[:, None], tokens[:, None])
    deviations = planning.deviations_of(planner)
    loss = law if deviations is None else law + deviations.pretrained(sizes[:, None], tokens[:, None])
    excess = np.empty((at.size, MULTIPLES.size, len(labels.QUANTILES)))
    for place, multiple in enumerate(MULTIPLES):
        other = multiple * sizes
        bought = pretraining_tokens(other, at, shape)
        excess[:, place] = quantiles_of(draws.supervised_loss(other[:, None], bought[:, None]) - law, labels.QUANTILES)
    factors = np.stack(
        [
            *extrapolation.pretraining_factors(fitted, sizes, tokens),
            extrapolation.extrapolation_factor(at, seen_compute(planner)),
        ]
    )
    values: dict[str, Any] = {
        "params": sizes,
        "tokens": tokens,
        "tokens_per_parameter": tokens / sizes,
        "best_params": best,
        "best_tokens": best_tokens,
        "loss": loss,
        "regret": mean_of(fitted, law - draws.supervised_loss(best, best_tokens)),
        "excess_quantile": excess,
        "size_exponent": draws["beta"] / (draws["alpha"] + draws["beta"]),
        **extrapolation.described(factors, AXES),
        **epochs_of(draws.repetition, pretraining=tokens),
    }
    coordinates = {"budget": at, "multiple": MULTIPLES, "quantile": list(labels.QUANTILES), "axis": list(AXES)}
    attrs = labels.shape_attributes(shape) | planning.noise_attributes(planner) | fitted.attrs | epochs_note(values)
    return labels.answer("compute_optimal", fitted, values, coordinates, attrs)


def optimal_sizes(draws: Draws, budgets: np.ndarray, shape: Shape) -> np.ndarray:
    """Return the size with the smallest loss of the law for each budget and draw, (budget, n_draws)."""
    log_ratio = np.log(draws["alpha"] * draws["A"]) - np.log(draws["beta"] * draws["B"])
    log_budget = np.log(budgets / 3)
    limited = draws.repetition

    def slope(log_size: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Logarithm of what more parameters gain over what the lost tokens cost; it decreases."""
        row, draw = np.divmod(which, draws.n_draws)
        alpha, beta = draws["alpha"][draw], draws["beta"][draw]
        weights, attention, output = flops_by_part(np.exp(log_size), shape)
        flops = weights + attention + output
        elasticity = flops_elasticity(weights, attention, output)
        log_tokens = log_budget[row] - np.log(flops)
        gain = log_ratio[draw] - np.log(elasticity)
        if limited is None:
            return np.asarray(gain - alpha * log_size + beta * log_tokens)
        rule, size, tokens = limited.take(draw), np.exp(log_size), np.exp(log_tokens)
        more = rule.log_elasticity_params(size) - alpha * np.log(rule.effective_params(size))
        return np.asarray(gain + more - rule.log_elasticity(tokens) + beta * np.log(rule.effective(tokens)))

    count = budgets.size * draws.n_draws
    roots = find_roots(slope, _SMALLEST, _LARGEST, np.arange(count), 1e-10)
    return np.exp(roots).reshape(budgets.size, draws.n_draws)


def chosen_sizes(draws: Draws, budgets: np.ndarray, shape: Shape, best: np.ndarray) -> np.ndarray:
    """Return the size with the smallest posterior mean of the law's loss for each budget, (budget,).

    It lies between the smallest and the largest optimum of a draw, because all losses decrease before and increase after.
    """

    def mean_loss(log_size: np.ndarray, row: np.ndarray) -> np.ndarray:
        size = np.exp(log_size)
        tokens = pretraining_tokens(size, budgets[row.astype(int)], shape)
        return np.asarray(draws.supervised_loss(size[..., None], tokens[..., None]).mean(axis=-1))

    rows = np.arange(budgets.size)
    ends = np.log(best.min(axis=1)) - _MARGIN, np.log(best.max(axis=1)) + _MARGIN
    grid = np.linspace(*ends, _GRID)
    place = np.argmin([mean_loss(points, rows) for points in grid], axis=0).clip(1, _GRID - 2)
    bracket = tuple(grid[place + step, rows] for step in (-1, 0, 1))
    found: Any = elementwise.find_minimum(mean_loss, bracket, args=(rows,))
    return np.exp(found.x)


def seen_compute(planner: planning.Planner) -> tuple[float, float] | None:
    """Return the range of training FLOPs of the pretrained models in the data; None if it is unknown."""
    seen = posterior.seen_runs(planner.fit)
    if {"params", "tokens"} <= set(seen.data_vars):
        params, tokens = seen["params"].values, seen["tokens"].values
    elif "pretraining_params" in planner.fitted.ranges:
        params = np.array(PUBLISHED_RANGE["params"])
        tokens = params * np.array(PUBLISHED_RANGE["tokens_per_param"])
    else:
        return None
    flops = 3 * forward_flops(params, planner.shape) * tokens
    return float(flops.min()), float(flops.max())
