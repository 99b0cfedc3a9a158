"""PyMC's transform of the coordinates to those that the sampler moves in: `priors.moving` around the law that suits the runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdistill.linearised import best_point, covariance
from bayesdistill.priors import Priors, Reference
from bayesdistill.priors.coordinates import (
    DISTILLATION_COORDINATES,
    log_change_of_shortage,
    shortage_coordinate,
    shortage_of,
)
from bayesdistill.priors.moving import (
    FOUR,
    MOVED,
    best_place,
    join_shortage,
    move,
    part_shortage,
    ridge_of_shortage,
)

if TYPE_CHECKING:
    import pandas as pd

_TOKENS, _SHORTAGE = "log_elasticity_tokens_S", "token_shortage"


def sampled_coordinates(
    runs: pd.DataFrame, supervised: pd.DataFrame | None, priors: Priors, reference: Reference, free: list[str]
) -> Any:
    """The transform of z for runs and priors that are `movable`; its values are 0 at the law that suits the runs best.

    Parameters
    ----------
    runs : DataFrame
        Distilled runs.
    supervised : DataFrame or None
        Supervised runs.
    priors : Priors
    reference : Reference
    free : list of str
        Names of the coordinates in z.
    """
    from pymc.logprob.transforms import Transform

    # Constants: what is found for these runs becomes a part of the compiled text.
    best = best_point(runs, supervised, priors, reference)
    at_best = dict(zip(priors.names, (priors.location + priors.factor @ best).tolist(), strict=True))
    names = [name for name in DISTILLATION_COORDINATES if name in free]
    place = best_place(at_best, names, covariance(at_best, names, runs, priors, reference))
    scale = {name: priors.table[name].scale for name in free}
    here = {name: priors.table[name].location for name in free}
    there = here | dict(zip(MOVED, move(here, *place), strict=True))
    # Elements are put in their places by unit vectors, which needs no join of arrays.
    unit = {name: np.array([name == other for other in free], dtype=float) for name in free}
    stay = 1.0 - sum(unit[name] for name in MOVED)
    at = {name: i for i, name in enumerate(free)}

    def moved(value: Any, old: dict[str, float], new: dict[str, float], sign: float) -> Any:
        c = {name: old[name] + scale[name] * value[at[name]] for name in FOUR}
        found = zip(MOVED, move(c, sign * place[0], sign * place[1]), strict=True)
        return stay * value + sum(unit[name] * ((x - new[name]) / scale[name]) for name, x in found)

    kappa, slopes = 0.0, np.zeros(len(free))
    if _SHORTAGE in free:
        names = [*names, _SHORTAGE]
        ridge = ridge_of_shortage(at_best, names, covariance(at_best, names, runs, priors, reference), place)
        # Three digits suffice, and do not hang on the last ones of linear algebra, which vary between processes.
        ridge = {name: float(f"{slope:.3g}") for name, slope in ridge.items()}
        # On the ridge e_D falls by kappa when c2 grows by one: the logarithm's slope there, times e_D there.
        there_best = dict(zip(MOVED, move(at_best, *place), strict=True))[_TOKENS]
        kappa = float(f"{-ridge.pop(_TOKENS) * np.exp(there_best):.3g}")
        slopes = sum((unit[name] * slope / scale[name] for name, slope in ridge.items()), slopes)
    beside = kappa > 0
    lone = 1.0 - unit[_TOKENS] - (unit[_SHORTAGE] if beside else 0.0)

    def forward(value: Any) -> Any:
        if not beside:
            return moved(value, here, there, 1.0)
        x = here[_SHORTAGE] + scale[_SHORTAGE] * value[at[_SHORTAGE]]
        value = moved(value, here, there, 1.0)
        log_sum, log_ratio = join_shortage(there[_TOKENS] + scale[_TOKENS] * value[at[_TOKENS]], x, kappa)
        rest = lone * value - slopes * shortage_of(x)
        return rest + unit[_TOKENS] * (log_sum / scale[_TOKENS]) + unit[_SHORTAGE] * log_ratio

    origin = np.round(forward(best), 6)

    def parted(value: Any) -> tuple[Any, Any]:
        log_sum = scale[_TOKENS] * (origin[at[_TOKENS]] + value[at[_TOKENS]])
        return part_shortage(log_sum, origin[at[_SHORTAGE]] + value[at[_SHORTAGE]], kappa)

    class BestPlace(Transform):
        name = "best_place"

        def forward(self, value: Any, *inputs: Any) -> Any:
            return forward(value) - origin

        def backward(self, value: Any, *inputs: Any) -> Any:
            if not beside:
                return moved(value + origin, there, here, -1.0)
            log_elasticity, c2 = parted(value)
            z = lone * (value + origin) + slopes * c2
            z += unit[_TOKENS] * ((log_elasticity - there[_TOKENS]) / scale[_TOKENS])
            z += unit[_SHORTAGE] * ((shortage_coordinate(c2) - here[_SHORTAGE]) / scale[_SHORTAGE])
            return moved(z, there, here, -1.0)

        def log_jac_det(self, value: Any, *inputs: Any) -> Any:
            # All steps keep volumes but the one from ln c2 to its coordinate: see priors.moving.
            if not beside:
                return 0.0 * value
            return unit[_SHORTAGE] * (log_change_of_shortage(parted(value)[1]) - np.log(scale[_SHORTAGE]))

    return BestPlace()
