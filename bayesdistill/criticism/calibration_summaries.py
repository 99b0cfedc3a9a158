"""Summaries of `simulate_calibration`: uniformity of ranks and calibration of decisions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill.arguments import Range, checked
from bayesdistill.criticism.results import dataset
from bayesdistill.errors import ModelError, ParameterError

EDGES = (0.0, 0.05, 0.25, 0.75, 0.95, 1.0)
"""Edges of the bins of predicted probability."""


def usable(calibration: xr.Dataset, include_failed: bool = False) -> xr.Dataset:
    """Return the simulations whose refit passed the convergence checks, or all of them.

    Raises
    ------
    ModelError
        If no refit passed the convergence checks.
    """
    if include_failed or "status" not in calibration:
        return calibration
    found = calibration.isel(simulation=np.flatnonzero(calibration["status"].values != "failed"))
    if not found.sizes["simulation"]:
        raise ModelError(
            f"None of the {calibration.sizes['simulation']} refits passed the convergence checks. Increase tune and draws."
        )
    return found


@checked
def rank_uniformity(calibration: xr.Dataset, *, include_failed: bool = False) -> pd.DataFrame:
    """Test whether the ranks of every quantity are uniform.

    Parameters
    ----------
    calibration : Dataset
        Result of `simulate_calibration`.
    include_failed : bool
        Also use simulations whose refit failed the convergence checks.

    Returns
    -------
    DataFrame
        One row per quantity: simulations (number used), mean_rank as a fraction (0.5 if unbiased), p_value of a chi-square
        test with ten bins, and p_holm, the p-value corrected for the number of quantities (Holm 1979).

    Examples
    --------
    >>> import bayesdistill as bd, numpy as np, xarray as xr
    >>> ranks = np.tile(np.arange(100), 2)[:, None]
    >>> even = xr.Dataset({"rank": (("simulation", "quantity"), ranks)}, {"quantity": ["c0"]}, {"ranks": 99})
    >>> bd.rank_uniformity(even).loc["c0"].tolist()
    [200.0, 0.5, 1.0, 1.0]
    """
    from scipy.stats import chisquare

    counted = usable(calibration, include_failed)
    top, ranks = counted.attrs["ranks"], counted["rank"].transpose("quantity", "simulation")
    counts = np.stack([np.histogram(rank, bins=10, range=(-0.5, top + 0.5))[0] for rank in ranks.values])
    columns = {
        "simulations": ranks.sizes["simulation"],
        "mean_rank": ranks.values.mean(axis=1) / top,
        "p_value": chisquare(counts, axis=1)[1],
    }
    frame = pd.DataFrame(columns, index=pd.Index([str(name) for name in ranks["quantity"].values], name="quantity"))
    frame["p_holm"] = _holm(frame["p_value"].to_numpy())
    return frame


def _holm(p_values: np.ndarray) -> np.ndarray:
    order = np.argsort(p_values)
    scaled = np.minimum(1.0, p_values[order] * (len(p_values) - np.arange(len(p_values))))
    result = np.empty_like(scaled)
    result[order] = np.maximum.accumulate(scaled)
    return result


@checked
def decision_calibration(
    calibration: xr.Dataset, edges: tuple[float, ...] = EDGES, *, include_failed: bool = False
) -> pd.DataFrame:
    """Compare predicted probabilities that distillation wins with the fraction of wins.

    Parameters
    ----------
    calibration : Dataset
        Result of `simulate_calibration`.
    edges : tuple of float
        Edges of the bins of predicted probability, increasing from 0 to 1.
    include_failed : bool
        Also use simulations whose refit failed the convergence checks.

    Returns
    -------
    DataFrame
        One row per bin: simulations (number of decisions), stated (mean predicted probability), won (fraction of wins), lower
        and upper (90% interval of this fraction, from the beta distribution with Jeffreys' prior). The decisions of one
        simulation are counted separately although they are not independent, so the interval can be too narrow by up to the
        square root of their number.

    Examples
    --------
    >>> import bayesdistill as bd, numpy as np, xarray as xr
    >>> cell = ("simulation", "decision")
    >>> kept = xr.Dataset({"probability": (cell, [[0.5], [0.5]]), "won": (cell, [[True], [False]])})
    >>> bd.decision_calibration(kept).loc["0.25 to 0.75", ["stated", "won"]].tolist()
    [0.5, 0.5]
    """
    from scipy.stats import beta

    if len(edges) < 2 or edges[0] != 0 or edges[-1] != 1 or any(a >= b for a, b in pairwise(edges)):
        raise ParameterError(f"`edges` must be increasing numbers from 0 to 1, got {edges!r}.")
    counted = usable(calibration, include_failed)
    stated, won = counted["probability"].values.ravel(), counted["won"].values.ravel().astype(float)
    bins = np.clip(np.digitize(stated, edges) - 1, 0, len(edges) - 2)
    count, wins, total = (np.bincount(bins, weights, len(edges) - 1) for weights in (None, won, stated))
    labels = pd.Index([f"{low:g} to {high:g}" for low, high in pairwise(edges)], name="bin")
    frame = pd.DataFrame({"simulations": count}, index=labels)
    frame["stated"], frame["won"] = total / frame["simulations"], wins / frame["simulations"]
    frame["lower"], frame["upper"] = np.asarray(beta.ppf([[0.05], [0.95]], wins + 0.5, count - wins + 0.5))
    return frame


# The level of the band is a quantile of the simulations.
@checked(simulations=Range(20, 1_000_000, whole=True))
def rank_ecdf(
    calibration: xr.Dataset, *, prob: float = 0.95, include_failed: bool = False, simulations: int = 2000, seed: int = 0
) -> xr.Dataset:
    """Return the ECDF of the ranks minus the uniform CDF, with a simultaneous band.

    Parameters
    ----------
    calibration : Dataset
        Result of `simulate_calibration`.
    prob : float
        Probability that the band contains the whole curve of one quantity if its ranks are uniform.
    include_failed : bool
        Also use simulations whose refit failed the convergence checks.
    simulations, seed : int
        Number and random seed of the simulated uniform ranks that determine the width of the band.

    Returns
    -------
    Dataset
        Over quantity and position (fraction of draws): `difference`, the fraction of ranks up to a position minus the position.
        Over position: `band_lower` and `band_upper`. Over quantity: `outside` (whether the curve leaves the band) and `p_holm`
        of `rank_uniformity`. Over bin (coordinate bin_label): `stated`, `won`, `won_lower`, `won_upper` and `decisions` of
        `decision_calibration`. Attributes: number of simulations counted, passed, passed when refitted, and failed.

    Raises
    ------
    ModelError
        If no refit passed the convergence checks.
    ParameterError
        If prob is not between 0 and 1.

    Notes
    -----
    Band of Säilynoja, Bürkner and Vehtari (2022, arXiv:2103.10522): binomial intervals at every position, at a level found by
    simulation so that they hold simultaneously. With prob=0.95, one quantity in twenty leaves its band by chance.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> calibration = bd.simulate_calibration(bd.load_runs("busbridge2025"), log="calibration.jsonl")  # doctest: +SKIP
    >>> bd.plot_calibration(bd.rank_ecdf(calibration)).savefig("calibration.png")  # doctest: +SKIP
    """
    counted = usable(calibration, include_failed)
    top = int(counted.attrs["ranks"])
    positions = (np.arange(top) + 1) / (top + 1)
    rank = counted["rank"].transpose("quantity", "simulation").values
    shares = (rank[:, :, None] <= np.arange(top)).mean(axis=1)
    lower, upper = simultaneous_band(rank.shape[1], positions, prob, simulations, seed)
    outside = ((shares < lower - 1e-12) | (shares > upper + 1e-12)).any(axis=1)
    decisions = decision_calibration(calibration, include_failed=include_failed)
    uniformity = rank_uniformity(calibration, include_failed=include_failed)
    values = {
        **decisions,
        "difference": shares - positions,
        "band_lower": lower - positions,
        "band_upper": upper - positions,
        "outside": outside,
        "p_holm": uniformity["p_holm"],
        "won_lower": decisions["lower"],
        "won_upper": decisions["upper"],
        "decisions": decisions["simulations"],
    }
    coords = {
        "quantity": counted["quantity"].values,
        "position": positions,
        "bin_label": ("bin", decisions.index.to_numpy(dtype=str)),
    }
    statuses = ("passed", "passed_when_refitted", "failed")
    counts = {name: calibration.attrs[name] for name in statuses if name in calibration.attrs}
    return dataset("rank_ecdf", values, coords, {"prob": prob, "counted": counted.sizes["simulation"], **counts})


@checked
def simultaneous_band(
    count: int, positions: np.ndarray, prob: float, simulations: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return a band that contains the ECDF of `count` uniform ranks with a given probability.

    Parameters
    ----------
    count : int
        Number of ranks.
    positions : ndarray, (position,)
        Increasing, in (0, 1): the expected fractions.
    prob : float
    simulations, seed : int

    Returns
    -------
    lower, upper : ndarray, (position,)
        Fractions.
    """
    from scipy.stats import binom

    rng = np.random.default_rng(seed)
    cells = np.diff(np.concatenate([[0.0], positions, [1.0]]))
    below = rng.multinomial(count, cells, size=simulations)[:, :-1].cumsum(axis=1)
    tail = np.minimum(binom.cdf(below, count, positions), binom.sf(below - 1, count, positions))
    # For each curve, the level of the two-sided interval that its most extreme point touches.
    level = float(np.quantile((2 * tail).min(axis=1), 1 - prob))
    return (
        np.asarray(binom.ppf(level / 2, count, positions)) / count,
        np.asarray(binom.ppf(1 - level / 2, count, positions)) / count,
    )
