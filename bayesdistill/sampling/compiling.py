"""The compiled model: what turns a PyMC model into the function that NUTS calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pymc as pm

ADAPTATION: dict[str, Any] = {"adaptation": "low_rank"}
"""How nutpie adapts its mass matrix: the coordinates are correlated in a few directions only."""


def compile_model(model: pm.Model) -> Any:
    """Compile a model for nutpie so that the same seed gives the same draws in every process.

    Under PyTensor's default of fast math the last digit of a sum depends on what the compiler sees at once, and so on how
    much of the model a cache on disk already holds; after a thousand steps the draws are others. Strict arithmetic costs some
    speed, and keeps the test for numbers that are not finite, on which NUTS relies.

    Parameters
    ----------
    model : pymc.Model

    Returns
    -------
    nutpie's compiled model
    """
    import nutpie
    import pytensor

    with pytensor.config.change_flags(numba__fastmath=False):
        return nutpie.compile_pymc_model(model)
