"""Convergence of fits whose runs do not vary along an axis: numbers of explanation/model.md.

python docs/studies/fixed_axes.py [--seeds 1] [--kinds KIND ...] [--without-discrepancy] [--quick]

Tables of 24 runs of each kind (with one size, one teacher, one size and one teacher, or one number of tokens) are simulated from
equation 8, with residual scales of 0.003, 0.01 and 0.03 nats, and fitted with default settings. The script prints one line per fit and
the number that pass the convergence checks.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from common import default_law, parser
from supervised_fits import converges

import bayesdistill as bd

SCALES = (0.003, 0.01, 0.03)
SIZE, TOKENS, TEACHER = 5e8, 2e10, 2.2
"""Value of an axis that does not vary."""


def sizes(count: int) -> np.ndarray:
    """Return sizes that increase by a factor of 50."""
    return np.geomspace(1e8, 5e9, count)


def tokens(count: int) -> np.ndarray:
    """Return checkpoints along a training curve."""
    return np.linspace(4e9, 1e11, count)


def teachers(count: int) -> np.ndarray:
    """Return teacher losses in nats."""
    return np.linspace(2.0, 2.5, count)


DISTILLED = {
    "one size": ([SIZE], tokens(8), teachers(3)),
    "one teacher": (sizes(4), tokens(6), [TEACHER]),
    "one size and one teacher": ([SIZE], tokens(24), [TEACHER]),
    "one number of tokens": (sizes(6), [TOKENS], teachers(4)),
}
SUPERVISED = {"one size": ([SIZE], tokens(24)), "one number of tokens": (sizes(24), [TOKENS])}
KINDS = {
    **{f"distilled, {name}": {"distilled": axes} for name, axes in DISTILLED.items()},
    **{f"supervised, {name}": {"supervised": axes} for name, axes in SUPERVISED.items()},
    **{
        f"joint, {name}": {"distilled": DISTILLED[name], "supervised": SUPERVISED["one size"]}
        for name in ("one size", "one size and one teacher")
    },
}
COLUMNS = {"distilled": ["student_params", "student_tokens", "teacher_loss"], "supervised": ["params", "tokens"]}


def simulated(kind: str, sigma: float, seed: int) -> dict[str, pd.DataFrame]:
    """Return the tables of a kind, as arguments of `bd.fit`."""
    found = {}
    for of, axes in KINDS[kind].items():
        design = pd.DataFrame(list(itertools.product(*axes)), columns=COLUMNS[of])
        design.attrs["allow_suspicious"] = True
        runs = bd.simulate_runs(bd.PUBLISHED, kind=of, seed=seed, design=design, sigma=sigma)
        found["runs" if of == "distilled" else "supervised"] = runs
    return found


def main(arguments: list[str] | None = None) -> None:
    """Print one line per fit."""
    options = parser(__doc__, law=True)
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS), metavar="KIND")
    given = options.parse_args(arguments)
    settings = list(itertools.product(given.kinds, SCALES, range(given.seeds)))
    if given.quick:
        settings = [("supervised, one size", SCALES[-1], 0)]
    passed = [
        converges(
            f"{kind}, residual scale {sigma} nats, seed {seed}",
            **simulated(kind, sigma, seed),
            law=default_law(given),
            seed=seed,
        )
        for kind, sigma, seed in settings
    ]
    print(f"{sum(passed)} of {len(passed)} fits pass")


if __name__ == "__main__":
    main()
