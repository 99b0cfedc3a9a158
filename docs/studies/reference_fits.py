"""Thinned draws of several laws fitted to the 354 runs, from which plans of single fits have their range over laws.

    python docs/studies/reference_fits.py <folder> [--quick]

Fits are saved in the folder. The result, an equal mixture, is `bayesdistill/posterior/reference_fits.nc`; `--quick` fits one law and
writes nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from common import WITHOUT_DISCREPANCY, parser

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.law.effects import EFFECTS

TARGET = Path(bd.__file__).parent / "posterior" / "reference_fits.nc"
LAW = WITHOUT_DISCREPANCY
LONG = {"draws": 2000, "tune": 2000, "target_accept": 0.95}
FITS: dict[str, dict[str, Any]] = {
    "equation 8": {"law": "busbridge2025"},
    "tied exponents": {"law": LAW},
    "tied exponents, discrepancy": {"law": LAW.with_discrepancy("shared", "distilled"), **LONG},
    "tied exponents, theory prior": {"law": LAW, "perfect_teacher_width": 0.005, "limited_data_width": 0.01, **LONG},
}
"""Name -> arguments of `fit`."""
DRAWS = 50
"""Draws of each law in each chain."""


def fitted(name: str, folder: Path) -> xr.DataTree:
    """Return a fit that has converged, from its file if there is one."""
    path = folder / f"{name.replace(' ', '_')}.nc"
    if not path.exists():
        bd.save(bd.fit(bd.load_runs("busbridge2025"), **FITS[name], seed=0, progress=False), path)
    fit = bd.load(path)
    found = bd.check(fit)
    print(f"{name}: {found.verdict} {fit.attrs.get('seconds', '')}", flush=True)
    if found.numbers["converged"] is not True:
        raise SystemExit(f"{name} did not converge; increase its draws, or target_accept.")
    return fit


def thinned(many: xr.DataTree) -> xr.DataTree:
    """Return what plans need of a mixture: evenly spaced draws of each law and the runs."""
    draws = many["posterior"].to_dataset()
    law = draws[posterior.LAW_INDEX].values[0]
    places = [np.flatnonzero(law == position) for position in np.unique(law)]
    draws = draws.isel(
        draw=np.sort([p[np.linspace(0, p.size - 1, DRAWS).round().astype(int)] for p in places], axis=None)
    )
    draws = draws.assign_coords(draw=np.arange(draws.sizes["draw"]))
    for effect in EFFECTS.values():
        if effect.variable.name in draws:
            # Plans need the number of groups and no effects.
            draws[effect.variable.name] = 0 * draws[effect.variable.name]
    draws = draws.map(lambda values: values.astype("float32") if values.dtype == float else values, keep_attrs=True)
    runs = many["constant_data"].to_dataset()[["student_params", "student_tokens", "teacher_loss"]]
    found = xr.DataTree.from_dict({"posterior": draws, "constant_data": runs})
    laws = {
        name: {key: of_law[key] for key in ("weight", "draws_per_chain", "convergence", "prior_dominated")}
        for name, of_law in posterior.members(many).items()
    }
    origin = {key: posterior.provenance(many)[key] for key in ("data", "supervised_law")}
    origin |= {"laws": laws, "versions": {"bayesdistill": importlib.metadata.version("bayesdistill")}}
    found.attrs = many.attrs | {posterior.PROVENANCE_ATTRIBUTE: json.dumps(origin, sort_keys=True)}
    return found


if __name__ == "__main__":
    given = parser(__doc__, folder=True).parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    fits = {name: fitted(name, given.folder) for name in list(FITS)[: 1 if given.quick else None]}
    if not given.quick:
        small = thinned(bd.mix(fits, dict.fromkeys(fits, 1)))
        packed = {"zlib": True, "complevel": 9, "shuffle": True}
        encoding = {f"/{g}": {str(name): packed for name in small[g].data_vars} for g in small.children}
        small.to_netcdf(TARGET, engine="h5netcdf", encoding=encoding)
        print(f"{TARGET.stat().st_size} bytes, laws {', '.join(posterior.members(small))}")
