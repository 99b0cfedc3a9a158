"""What the ranks and decisions of `simulate_calibration` say: tests of uniformity, and how often the word was kept."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayesdistill.errors import ModelError, ParameterError

if TYPE_CHECKING:
    import pandas as pd

EDGES = (0.0, 0.05, 0.25, 0.75, 0.95, 1.0)
"""Of the bins of stated probability."""


def usable(calibration: xr.Dataset, include_failed: bool = False) -> xr.Dataset:
    """The simulations whose refit passed the gates, or all of them.

    Raises
    ------
    ModelError
        If there is none.
    """
    if include_failed or "status" not in calibration:
        return calibration
    found = calibration.isel(simulation=np.flatnonzero(calibration["status"].values != "failed"))
    if not found.sizes["simulation"]:
        raise ModelError(f"none of the {calibration.sizes['simulation']} refits passed the gates; raise tune and draws")
    return found


def rank_uniformity(calibration: xr.Dataset, *, include_failed: bool = False) -> pd.DataFrame:
    """Whether the ranks of every quantity are uniform.

    Parameters
    ----------
    calibration : Dataset
        What `simulate_calibration` returned.
    include_failed : bool
        Count simulations too whose refit failed the gates.

    Returns
    -------
    DataFrame
        One row a quantity: simulations counted, mean_rank as a share (0.5 if unbiased), p_value of a chi-square test in ten
        bins, and p_holm, the same corrected for the number of quantities (Holm 1979).

    Examples
    --------
    >>> import bayesdistill as bd, numpy as np, xarray as xr
    >>> ranks = np.tile(np.arange(100), 2)[:, None]
    >>> even = xr.Dataset({"rank": (("simulation", "quantity"), ranks)}, {"quantity": ["c0"]}, {"ranks": 99})
    >>> bd.rank_uniformity(even).loc["c0"].tolist()
    [200.0, 0.5, 1.0, 1.0]
    """
    import pandas as pd
    from scipy.stats import chisquare

    counted = usable(calibration, include_failed)
    rows = []
    for name in counted["quantity"].values:
        rank = counted["rank"].sel(quantity=name).values
        counts = np.histogram(rank, bins=10, range=(-0.5, counted.attrs["ranks"] + 0.5))[0]
        rows.append(
            {
                "quantity": str(name),
                "simulations": rank.size,
                "mean_rank": rank.mean() / counted.attrs["ranks"],
                "p_value": chisquare(counts)[1],
            }
        )
    frame = pd.DataFrame(rows).set_index("quantity")
    frame["p_holm"] = _holm(frame["p_value"].to_numpy())
    return frame


def _holm(p_values: np.ndarray) -> np.ndarray:
    order = np.argsort(p_values)
    scaled = np.minimum(1.0, p_values[order] * (len(p_values) - np.arange(len(p_values))))
    result = np.empty_like(scaled)
    result[order] = np.maximum.accumulate(scaled)
    return result


def decision_calibration(
    calibration: xr.Dataset, edges: tuple[float, ...] = EDGES, *, include_failed: bool = False
) -> pd.DataFrame:
    """How often distillation won where the posterior said that it would with some probability.

    Parameters
    ----------
    calibration : Dataset
        What `simulate_calibration` returned.
    edges : tuple of float
        Of the bins of stated probability, increasing from 0 to 1.
    include_failed : bool
        Count simulations too whose refit failed the gates.

    Returns
    -------
    DataFrame
        One row a bin: decisions counted, stated (mean probability), won (share), lower and upper (90 % interval of that
        share, from the beta distribution with Jeffreys' prior). The decisions of one simulation count one by one, although
        they are not independent; over the four of them the interval is too narrow by up to a factor of two.

    Examples
    --------
    >>> import bayesdistill as bd, numpy as np, xarray as xr
    >>> cell = ("simulation", "decision")
    >>> kept = xr.Dataset({"probability": (cell, [[0.5], [0.5]]), "won": (cell, [[True], [False]])})
    >>> bd.decision_calibration(kept).loc["0.25 to 0.75", ["stated", "won"]].tolist()
    [0.5, 0.5]
    """
    import pandas as pd
    from scipy.stats import beta

    if len(edges) < 2 or edges[0] != 0 or edges[-1] != 1 or any(a >= b for a, b in pairwise(edges)):
        raise ParameterError(f"edges is {edges!r}; increasing numbers from 0 to 1 are needed")
    counted = usable(calibration, include_failed)
    stated, won = counted["probability"].values.ravel(), counted["won"].values.ravel().astype(float)
    bins = np.clip(np.digitize(stated, edges) - 1, 0, len(edges) - 2)
    rows = []
    for k in range(len(edges) - 1):
        inside = bins == k
        count, wins = int(inside.sum()), float(won[inside].sum())
        low, high = (float(beta.ppf(q, wins + 0.5, count - wins + 0.5)) for q in (0.05, 0.95))
        rows.append(
            {
                "bin": f"{edges[k]:g} to {edges[k + 1]:g}",
                "simulations": count,
                "stated": float(stated[inside].mean()) if count else float("nan"),
                "won": wins / count if count else float("nan"),
                "lower": low,
                "upper": high,
            }
        )
    return pd.DataFrame(rows).set_index("bin")
