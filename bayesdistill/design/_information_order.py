r"""Orders of candidate runs for comparison with `next_runs`: D-optimal, by cost, random.

D-optimality minimizes the posterior volume, independent of the decision. The coordinates are the logarithms of the law's symbols
(c0, which may be negative, w1 and omega are not transformed), with covariance :math:`\Sigma` over the draws. If the law at run c is
linear in them with slopes :math:`x_c`, runs with noise variances :math:`v_c` change the log determinant by

.. math::

    -\log\det\left(I + V^{-1/2} X \Sigma X^\top V^{-1/2}\right)

The variance v is the inverse Fisher information of a Student-t distribution about its location,
:math:`\sigma^2 (\nu + 3)/(\nu + 1)`. A regression over the draws gives the slopes.
"""

from __future__ import annotations

from typing import Unpack

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill.arguments import checked, instance, one_of
from bayesdistill.compute import PUBLISHED_SHAPE, Shape
from bayesdistill.decisions import labels, planning
from bayesdistill.decisions.arguments import Number, parse_number
from bayesdistill.design.candidates import parse_candidates, predict
from bayesdistill.errors import ParameterError

CRITERIA = ("information", "information_per_flop")


@checked(criterion=one_of(*CRITERIA))
@planning.with_options
def information_order(
    fit: planning.Source,
    candidates: pd.DataFrame,
    *,
    criterion: str = "information",
    compute: Number | None = None,
    **options: Unpack[planning.Costs],
) -> xr.Dataset:
    """Return the greedy D-optimal order of candidate runs.

    Parameters
    ----------
    candidates : DataFrame
        As for `next_runs`.
    criterion : {"information", "information_per_flop"}
        Criterion of the greedy selection.
    compute : float, str, optional
        Total FLOPs of the runs in the order. Runs that exceed the remaining compute are skipped.

    Returns
    -------
    Dataset
        Over `candidate`: information (half the decrease of the log determinant of the covariance from this run alone, in nats
        of entropy), cost (FLOPs), position (1 is first; 0 is not in the order). Over `step`: order (names),
        total_information of the runs so far.

    Raises
    ------
    DataError
        If the table of candidates is invalid.
    ParameterError
        If an argument is invalid, or `compute` is smaller than the cost of every candidate.

    Notes
    -----
    Linear-normal approximation; Chaloner and Verdinelli (1995), Statistical Science 10, 273-304.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import numpy as np, pandas as pd, xarray as xr
    >>> from bayesdistill.design import information_order
    >>> rng = np.random.default_rng(0)
    >>> draws = {k: (("chain", "draw"), v * np.ones((4, 250))) for k, v in bd.PUBLISHED.items()}
    >>> draws["E"] = (("chain", "draw"), 1.22 * np.exp(0.01 * rng.standard_normal((4, 250))))
    >>> draws |= {"sigma": (("chain", "draw"), np.full((4, 250), 0.007)), "nu": (("chain", "draw"), np.full((4, 250), 5.0))}
    >>> runs = pd.DataFrame({"params": [1e9, 3e8], "tokens": [2e10, 2e10]})
    >>> information_order(xr.Dataset(draws, attrs={"law": "busbridge2025"}), runs).sizes["candidate"]
    2
    """
    planner = planning.planner_of(information_order, fit, options)
    fitted = planner.fitted
    runs = parse_candidates(candidates, planner.shape, planner.fitted.teacher_losses)
    predictions = predict(fitted, runs)
    draws, law = fitted.draws, fitted.draws.law
    columns = [
        np.log(draws[q.name]) if q.domain == "positive" else draws[q.name]
        for q in law.parameters
        if q.name in law.symbols_of_law and np.ptp(draws[q.name]) > 0
    ]
    centered = predictions.mean - predictions.mean.mean(axis=1, keepdims=True)
    linear = np.zeros_like(centered)
    if columns:
        coordinates = np.stack(columns)
        coordinates = coordinates - coordinates.mean(axis=1, keepdims=True)
        coordinates /= coordinates.std(axis=1, keepdims=True)
        # Compute orthonormal directions over the draws, and drop directions that only reflect rounding errors.
        _, size, directions = np.linalg.svd(coordinates, full_matrices=False)
        directions = directions[size > 1e-8 * size[0]]
        linear = (centered @ directions.T) @ directions
    variance = (predictions.scale**2 * (predictions.freedom + 3) / (predictions.freedom + 1)).mean(axis=1)
    scaled = linear / np.sqrt(variance * fitted.n_draws)[:, None]
    alone = 0.5 * np.log1p((scaled**2).sum(axis=1))
    # Update the remaining variance of each run given the selected runs, with a Cholesky factor built step by step.
    kernel = scaled @ scaled.T + np.eye(len(runs.names))
    left = np.diag(kernel).copy()
    factor = np.zeros_like(kernel)
    order: list[int] = []
    total: list[float] = []
    names = np.array(runs.names)
    rest = np.inf if compute is None else parse_number(compute, "compute")
    if rest < runs.cost.min():
        raise ParameterError(
            f"`compute` is {rest:.3g} FLOPs, but the cheapest candidate costs {runs.cost.min():.3g} FLOPs. Increase `compute`."
        )
    while free := [i for i in range(len(names)) if i not in order and runs.cost[i] <= rest]:
        gained = 0.5 * np.log(np.maximum(left, 1.0))
        score = gained / runs.cost if criterion == "information_per_flop" else gained
        best = free[int(np.lexsort((names[free], runs.cost[free], -score[free]))[0])]
        total.append((total[-1] if total else 0.0) + float(gained[best]))
        step = len(order)
        factor[:, step] = (kernel[:, best] - factor[:, :step] @ factor[best, :step]) / np.sqrt(left[best])
        left = left - factor[:, step] ** 2
        order.append(best)
        rest -= float(runs.cost[best])
    position = np.zeros(len(names), dtype=int)
    position[order] = np.arange(1, len(order) + 1)
    values = {
        "information": alone,
        "cost": runs.cost,
        "position": position,
        "order": names[order],
        "total_information": np.array(total),
    }
    axes = {"candidate": list(names), "step": np.arange(1, len(order) + 1)}
    return labels.answer("information_order", fitted, values, axes, fitted.attrs | {"criterion": criterion})


@checked(shape=instance(Shape))
def cheapest_first(candidates: pd.DataFrame, *, shape: Shape = PUBLISHED_SHAPE) -> list[str]:
    """Return the names of the candidates by increasing cost.

    Parameters
    ----------
    candidates : DataFrame
        As for `next_runs`; without a column `name`, rows are named "1", "2" and so on.
    shape : Shape

    Returns
    -------
    list of str

    Examples
    --------
    >>> import pandas as pd
    >>> from bayesdistill.design import cheapest_first
    >>> cheapest_first(pd.DataFrame({"params": [1e9, 1e8], "tokens": [2e10, 2e9]}))
    ['2', '1']
    """
    runs = parse_candidates(candidates, shape)
    return [runs.names[i] for i in np.lexsort((np.array(runs.names), runs.cost))]


@checked(shape=instance(Shape))
def random_order(candidates: pd.DataFrame, *, seed: int, shape: Shape = PUBLISHED_SHAPE) -> list[str]:
    """Return the names of the candidates in random order.

    Parameters
    ----------
    candidates : DataFrame
        As for `next_runs`.
    seed : int
    shape : Shape

    Returns
    -------
    list of str

    Examples
    --------
    >>> import pandas as pd
    >>> from bayesdistill.design import random_order
    >>> sorted(random_order(pd.DataFrame({"params": [1e9, 1e8], "tokens": [2e10, 2e9]}), seed=0))
    ['1', '2']
    """
    runs = parse_candidates(candidates, shape)
    return [runs.names[i] for i in np.random.default_rng(seed).permutation(len(runs.names))]
