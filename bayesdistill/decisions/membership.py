"""Groups of runs that a fit may or may not have seen: teachers, student configurations and models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import posterior
from bayesdistill.law import Draws
from bayesdistill.law.effects import GroupEffect, configuration_labels
from bayesdistill.law.predictive import COLUMNS as DESIGN


@dataclass(frozen=True)
class Membership:
    """Groups of the runs for one group effect.

    Parameters
    ----------
    effect : GroupEffect
    labels : list of str, (run,)
    position : ndarray of int, (run,)
        Among the groups of the fit; -1 for a group that is not in the data.
    new : ndarray of bool, (run,)
        Whether the group counts as new.
    """

    effect: GroupEffect
    labels: list[str]
    position: np.ndarray
    new: np.ndarray


def membership_of(fit: posterior.Fit, draws: Draws, runs: pd.DataFrame, kind: str, groups: str) -> list[Membership]:
    """Return the groups of the runs for each of their group effects."""
    known, seen = posterior.seen_groups(fit), posterior.seen_runs(fit)
    found = []
    for effect in draws.law.effects:
        if effect.kind == kind:
            distinct, index = effect.groups(runs)
            labels = [distinct[i] for i in index]
            position = _positions(labels, known.get(effect.name, []), effect, runs, kind, seen)
        elif effect.applies_to(kind, draws.law.supervised_noise):
            labels = configuration_labels(runs[list(DESIGN[kind])].to_numpy(dtype=float))
            position = np.full(len(runs), -1)
        else:
            continue
        found.append(Membership(effect, labels, position, (position < 0) | (groups == "new")))
    return found


def _positions(
    labels: Sequence[str], known: Sequence[str], effect: GroupEffect, runs: pd.DataFrame, kind: str, seen: xr.Dataset
) -> np.ndarray:
    """Return the positions of labels among the groups of a fit, -1 for unknown labels."""
    places: dict[str, list[int]] = {}
    for place, label in enumerate(known):
        places.setdefault(label, []).append(place)
    found = np.array([places.get(label, [-1])[0] for label in labels])
    columns = DESIGN[kind]
    if not {*columns, effect.index} <= set(seen.data_vars):
        return found
    for row, label in enumerate(labels):
        if len(places.get(label, [])) > 1:
            # Labels of configurations are rounded and therefore not always unique. Use the nearest configuration.
            data = np.log([seen[name].values for name in columns])
            apart = np.abs(data - np.log([[runs[name].iloc[row]] for name in columns])).sum(axis=0)
            apart = np.where(np.isin(seen[effect.index].values, places[label]), apart, np.inf)
            found[row] = int(seen[effect.index].values[apart.argmin()])
    return found
