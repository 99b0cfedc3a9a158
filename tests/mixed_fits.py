"""Fits of several laws to the same runs, from draws that are not sampled, for the tests of mixtures."""

from __future__ import annotations

import changed_files
import numpy as np
import xarray as xr

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.law import Law, Reference


def fits() -> dict[str, xr.DataTree]:
    """Equation 8 with effects; the default law without discrepancy; equation 8 with soft targets and discrepancies, without effects."""
    plain = changed_files.small_fit()
    eight = bd.LAWS["busbridge2025"]
    default = bd.LAWS[bd.law.DEFAULT_LAW].with_discrepancy().for_runs(distilled=True, supervised=False)
    growing = eight.with_terms("soft_targets").with_discrepancy("shared", "distilled")
    return {
        "eq. 8": plain,
        "default": as_fit_of(default, plain, seed=1),
        "growing": as_fit_of(growing.for_runs(distilled=True, supervised=False), plain, seed=2),
    }


def as_fit_of(law: Law, fit: xr.DataTree, seed: int = 0) -> xr.DataTree:
    """A fit of another law to the same runs: the same symbols, scattered, with values of the symbols that the law has in addition."""
    rng = np.random.default_rng(seed)
    draws = fit["posterior"].to_dataset()
    shape = {"chain": draws.sizes["chain"], "draw": draws.sizes["draw"]}
    more = {"w1": 0.05, "kappa": 1.3, "omega": 0.9, "sigma_student_slope": 0.004, "noise_ratio": 0.1}
    more |= {"discrepancy_shared": 1.0, "discrepancy_distilled": 0.3}
    values = {}
    for parameter in law.parameters:
        center = (
            draws[parameter.name].values
            if parameter.name in draws
            else np.full((*shape.values(),), more[parameter.name])
        )
        values[parameter.name] = (("chain", "draw"), center * np.exp(0.002 * rng.standard_normal(center.shape)))
    if any(term.name == "tied_exponents" for term in law.terms):
        values |= {"alpha_S": values["alpha"], "beta_S": values["beta"]}
    values = {name: value for name, value in values.items() if name not in law.fixed}
    coords = {name: draws.coords[name] for name in ("chain", "draw")}
    for effect in law.effects:
        labels = draws["student_configuration"]
        values[effect.variable.name] = (
            ("chain", "draw", effect.dim), 0.005 * rng.standard_normal((*shape.values(), labels.size))
        )  # fmt: skip
        coords[effect.dim] = labels
    for one in law.discrepancy:
        values[one.variable] = (("chain", "draw", "step"), rng.standard_normal((*shape.values(), 6)))
        coords["step"] = np.arange(-3, 3)
    named = posterior.with_law(xr.Dataset(values, coords), law, Reference(4.8e8, 1.6e10, 2.3))
    groups = {name: node.to_dataset() for name, node in fit.children.items()}
    tree = xr.DataTree.from_dict(groups | {"posterior": named})
    tree.attrs = fit.attrs
    return tree
