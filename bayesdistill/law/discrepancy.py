r"""Discrepancy: an error of the law that grows with the distance from its runs.

No law is exact outside its data. A path is a Brownian motion over the logarithm of a student's own compute,
:math:`u = \ln(N D / (N_0 D_0))`, with the reference run at 0: knots at whole u, independent standard normal increments between
them, and straight lines between the knots. The loss is the loss of the law plus the path times a scale, which is a multiple of the
law's misfit within the data (`Law.misfit_scale`). Pretrained and distilled runs share one path; distilled runs have a second,
smaller one. Within the range of the data, the increments are sampled together with the law; outside, they have their prior
(`Paths`). There, another path depends on how far tokens per parameter are outside their range.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from bayesdistill.law.parameters import Coordinate, Parameter, Reference, declared
from bayesdistill.law.term import Part

STEPS = np.arange(-30, 50)
"""Increments that predictions can use: step k is between the knots k and k + 1. Outside these steps, paths are constant."""
RATIO = "tokens per parameter"
"""Name of the path over tokens per parameter."""


@dataclass(frozen=True)
class Discrepancy(Part):
    """A path that is added to the losses of some kinds of runs.

    Parameters
    ----------
    name : str
    sentence : str
        Sentence for methods sections.
    kinds : tuple of {"supervised", "distilled"}
        Runs that have it.
    parameters, coordinates : tuple
        The scale of the path per unit of u, in units of the law's misfit, and its logarithm, which is sampled.
    """

    sentence: str
    kinds: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    coordinates: tuple[Coordinate, ...]

    @property
    def variable(self) -> str:
        """Name of the increments in the posterior."""
        return f"path_{self.name}"

    @property
    def scale(self) -> str:
        """Symbol of the scale."""
        return self.parameters[0].name


DISCREPANCIES: Mapping[str, Discrepancy] = MappingProxyType(
    {
        name: Discrepancy(**{**declared(f"discrepancy_{name}"), "name": name}, kinds=kinds)
        for name, kinds in {"shared": ("supervised", "distilled"), "distilled": ("distilled",)}.items()
    }
)
"""Discrepancies of the package by name."""


def log_compute(params: Any, tokens: Any, reference: Reference) -> np.ndarray:
    """Return ln(N D / (N0 D0)), where a path is evaluated."""
    return np.log(params) + np.log(tokens) - np.log(reference.params) - np.log(reference.tokens)


def steps_between(position: np.ndarray) -> np.ndarray:
    """Return the steps that cover 0 and all positions."""
    low, high = min(0.0, float(position.min())), max(0.0, float(position.max()))
    return np.arange(np.floor(low), max(np.ceil(high), np.floor(low) + 1)).astype(int)


def path_weights(position: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the weights of increments in a path, (..., step): its value is their sum with these weights, and 0 at position 0."""
    return np.clip(position[..., None] - steps, 0.0, 1.0) - (steps < 0)


@dataclass(frozen=True, eq=False)
class Paths:
    """Draws of paths at any distance from the data.

    Parameters
    ----------
    increments : mapping
        Name of a discrepancy, and RATIO, -> (n_draws, step) over STEPS.
    ratios : (float, float), optional
        Range of tokens per parameter in the data; None if it is unknown.
    """

    increments: Mapping[str, np.ndarray]
    ratios: tuple[float, float] | None = None

    @classmethod
    def extended(
        cls,
        names: Sequence[str],
        n_draws: int,
        fitted: Mapping[str, np.ndarray],
        steps: np.ndarray,
        ratios: tuple[float, float] | None,
        seed: int = 0,
    ) -> Paths:
        """Draw the increments outside the data.

        An increment is a function of the seed, of the path's name, of its step and of the draw's position, so an answer does not
        depend on other answers.

        Parameters
        ----------
        names : sequence of str
            Names of discrepancies.
        n_draws : int
        fitted : mapping
            Name -> increments in the data, (n_draws, len(steps)).
        steps : ndarray of int
            Their steps.
        ratios : (float, float), optional
        seed : int
        """
        found = {}
        for name in (*names, RATIO):
            stream = zlib.crc32(name.encode())
            drawn = [np.random.default_rng([seed, stream, k]).standard_normal(n_draws) for k in STEPS - STEPS[0]]
            found[name] = np.stack(drawn, axis=1)
            if name in fitted:
                found[name][:, steps - STEPS[0]] = fitted[name]
        return cls(found, ratios)

    def take(self, index: Any) -> Paths:
        """Return the paths of some of the draws."""
        return Paths({name: value[index] for name, value in self.increments.items()}, self.ratios)

    @cached_property
    def _knots(self) -> dict[str, np.ndarray]:
        """Values at the knots, (step + 1, n_draws)."""
        found = {}
        for name, value in self.increments.items():
            sums = np.concatenate([np.zeros((1, len(value))), np.cumsum(value.T, axis=0)])
            found[name] = sums - sums[-STEPS[0]]
        return found

    def at(self, name: str, position: Any) -> np.ndarray:
        """Return the values of a path, (..., n_draws); positions (..., 1) or (..., n_draws), NaN where they are NaN."""
        knots, place = self._knots[name], np.asarray(position, dtype=float) - STEPS[0]
        inside = np.clip(np.nan_to_num(place), 0.0, STEPS.size)
        below = np.minimum(inside.astype(int), STEPS.size - 1)
        draw = np.arange(knots.shape[1])
        left, right = knots[below, draw], knots[below + 1, draw]
        return np.where(np.isnan(place), np.nan, left + (inside - below) * (right - left))

    def beyond_ratios(self, params: Any, tokens: Any) -> np.ndarray | None:
        """Return how far ln(tokens per parameter) is outside its range, with a sign; None if no run is or the range is unknown."""
        if self.ratios is None:
            return None
        ratio = np.log(tokens) - np.log(params)
        outside = ratio - np.clip(ratio, *np.log(self.ratios))
        return np.asarray(outside) if np.any(outside) else None
