"""Compare the parameters of two fits."""

from __future__ import annotations

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.criticism.results import columns, dataset
from bayesdistill.errors import ParameterError

INTERVAL = 0.9


def _derived(law: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return exponents and capacity gap, and the combinations that the runs determine."""
    found = {name: law[name] for name in ("alpha", "beta", "gamma")}
    found["alpha gamma"], found["beta gamma"] = law["alpha"] * law["gamma"], law["beta"] * law["gamma"]
    found["E"] = law["E"]
    if "c0" in law:
        found |= {name: law[name] for name in ("alpha_S", "beta_S", "gamma_S")}
        found["alpha_S gamma_S"] = law["alpha_S"] * law["gamma_S"]
        found["beta_S gamma_S"] = law["beta_S"] * law["gamma_S"]
        found["c0"] = law["c0"]
    if "c1" in law:
        found |= {name: law[name] for name in ("c1", "d1", "f1")}
        u = np.exp(-np.log(law["d1"]) / law["f1"])
        found["gap at r = 1"] = law["c1"] * law["f1"] * np.log1p(u)
        found["slope of the gap at r = 1"] = law["c1"] * u / (1 + u)
    return found


def compare_fits(first: posterior.Fit, second: posterior.Fit) -> xr.Dataset:
    """Compare the exponents and the capacity gap of two fits.

    Parameters
    ----------
    first, second : DataTree or Dataset
        Results of `fit`. The coefficients A, B, A_S and B_S are omitted, because they depend on the units of size and tokens.

    Returns
    -------
    Dataset
        Over `parameter`: `first_median`, `first_lower`, `first_upper` and the same of the second fit (equal-tailed 90%
        intervals), `probability_first_larger` (treating the draws of the two fits as independent), and `separated` (whether
        the two intervals do not overlap). Parameters: alpha, beta, gamma, E and, if both fits have the distillation law,
        alpha_S, beta_S, gamma_S, c0, c1, d1 and f1; products such as alpha gamma, which are the exponents of the loss when the
        other term is negligible; and the capacity gap G(1) and its slope dG/d ln r at r = 1, which the runs determine better
        than c1, d1 and f1.

    Raises
    ------
    ParameterError
        If one of them is not a fit of a law.

    Notes
    -----
    Values of E from different corpora or tokenizers are not comparable.

    Examples
    --------
    >>> import bayesdistill as bd, xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v, v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> steeper = published.assign(alpha=published["alpha"] * 2)
    >>> float(bd.compare_fits(steeper, published)["probability_first_larger"].sel(parameter="alpha"))
    1.0
    """
    ours, theirs = (_derived(posterior.law_draws(fit)) for fit in (first, second))
    names = [name for name in ours if name in theirs]
    if not names:
        raise ParameterError("The two fits have no parameters in common.")
    tails = [(1 - INTERVAL) / 2, 0.5, (1 + INTERVAL) / 2]
    rows = []
    for name in names:
        a, b = (np.sort(values[name].values.ravel()) for values in (ours, theirs))
        row = dict(zip(("first_lower", "first_median", "first_upper"), np.quantile(a, tails), strict=True))
        row |= dict(zip(("second_lower", "second_median", "second_upper"), np.quantile(b, tails), strict=True))
        # Over all pairs of draws; ties count as one half.
        below = np.searchsorted(b, a, side="left") + np.searchsorted(b, a, side="right")
        row["probability_first_larger"] = below.mean() / (2 * b.size)
        row["separated"] = row["first_lower"] > row["second_upper"] or row["first_upper"] < row["second_lower"]
        rows.append(row)
    attrs = {"interval_kind": "equal-tailed", "interval_prob": INTERVAL}
    return dataset("compare_fits", columns(rows), {"parameter": names}, attrs)
