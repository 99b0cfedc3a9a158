"""Baselines of supervised forecasts: a Huber fit of the Chinchilla form with a bootstrap, and the package simple-scaling-laws.

Both are forecasters of `bd.backtest`: functions of (distilled, supervised, reference, seed) that return draws of
L = E + A N^-alpha + B D^-beta with normal residual noise.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas as pd
from joint_baselines import ALMOST_NORMAL, BOOTSTRAP_REFITS, supervised_point_fit

from bayesdistill.law import LAWS, Draws, Reference

CHINCHILLA = LAWS["busbridge2025"].for_runs(distilled=False, supervised=True).with_fixed(gamma=1.0)
PEER_DRAWS = 1000
TERMS = {"model_size__params": ("A", "alpha"), "dataset_size__tokens": ("B", "beta")}
"""Column of simple-scaling-laws -> amplitude and exponent of its term."""


def huber_bootstrap(distilled: None, supervised: pd.DataFrame, reference: Reference, seed: int) -> Draws:
    """Return bootstrap refits; the residual scale of each is the root mean square of its residuals from all fitted runs."""
    rng = np.random.default_rng(seed)
    names = [coordinate.name for coordinate in CHINCHILLA.terms[0].coordinates if coordinate in CHINCHILLA.coordinates]
    best = supervised_point_fit(CHINCHILLA, supervised, reference)
    found = []
    for _ in range(BOOTSTRAP_REFITS):
        sample = supervised.iloc[rng.choice(len(supervised), len(supervised))]
        found.append(supervised_point_fit(CHINCHILLA, sample, reference, [best]))
    symbols = CHINCHILLA.symbols(dict(zip(names, np.array(found).T[..., None], strict=True)), reference)
    loss = CHINCHILLA.supervised_loss(supervised["params"].to_numpy(), supervised["tokens"].to_numpy(), symbols)
    sigma = np.sqrt(np.mean((supervised["loss"].to_numpy() - loss) ** 2, axis=1))
    return Draws(CHINCHILLA, dict(symbols) | {"sigma": sigma, "nu": ALMOST_NORMAL})


def has_simple_scaling_laws() -> bool:
    """Return whether simple-scaling-laws is installed."""
    return importlib.util.find_spec("simple_scaling_laws") is not None


def simple_scaling_laws(distilled: None, supervised: pd.DataFrame, reference: Reference, seed: int) -> Draws:
    """Return the bootstrap draws of simple-scaling-laws, every row a training run, with its scale of a new run.

    Its noise is normal unless there are ten or more repeated runs; then it resamples their deviations, which this omits.
    """
    import polars
    import simple_scaling_laws as peer

    frame = {name: supervised[name.split("__")[1]].to_numpy(dtype=float) for name in (*TERMS, "test_loss__loss")}
    frame["training_run_id"] = [str(number) for number in range(len(supervised))]
    model = peer.fit(polars.DataFrame(frame), law="separable-power", n_draws=PEER_DRAWS, seed=seed)
    drawn = model.draws["test_loss__loss"]
    theirs = dict(zip(model.law.param_names, drawn.params.T, strict=True))
    symbols = theirs | {"sigma": drawn.run_sd, "nu": ALMOST_NORMAL}
    for name, (amplitude, power) in TERMS.items():
        symbols[amplitude] = theirs[amplitude] * model.observed_domain[name]["reference"] ** theirs[power]
    return Draws(CHINCHILLA, symbols)
