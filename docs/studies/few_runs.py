"""Convergence of fits of few distilled runs: numbers of explanation/check.md.

python docs/studies/few_runs.py [--seeds 2] [--first 0] [--once] [--without-discrepancy] [--quick]

Tables of 10 to 60 runs are simulated from equation 8 with a residual scale of 0.005 nats, with random students, random teachers
and random pairs of them, and fitted with default settings. With `--once`, the fits do not sample again if their draws fail the
convergence checks. The script prints one line per fit and the number that pass.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from common import default_law, parser
from supervised_fits import converges

import bayesdistill as bd
from bayesdistill.sampling.nuts import SETTINGS

DESIGNS = ((10, 4, 8), (16, 4, 12), (24, 4, 12), (24, 6, 12), (24, 8, 12), (40, 6, 12), (60, 8, 14))
"""Number of runs, teachers and students."""


def simulated(design: tuple[int, int, int], seed: int) -> pd.DataFrame:
    """Return distilled runs of 150M to 5B parameters and 10 to 160 tokens per parameter, with teachers of 1.95 to 2.7 nats."""
    runs, teachers, students = design
    rng = np.random.default_rng(seed)
    sizes = rng.choice(np.geomspace(1.5e8, 5e9, 6), students)
    tokens = sizes * np.exp(rng.uniform(np.log(10), np.log(160), students))
    losses = rng.uniform(1.95, 2.7, teachers)
    student, teacher = rng.permutation(list(itertools.product(range(students), range(teachers))))[:runs].T
    table = pd.DataFrame(
        {"student_params": sizes[student], "student_tokens": tokens[student], "teacher_loss": losses[teacher]}
    )
    table.attrs["allow_suspicious"] = True
    return bd.simulate_runs(bd.PUBLISHED, seed=seed, design=table, sigma=0.005)


def main(arguments: list[str] | None = None) -> None:
    """Print one line per fit."""
    options = parser(__doc__, law=True)
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--once", action="store_true")
    given = options.parse_args(arguments)
    tables = list(itertools.product(range(given.first, given.first + given.seeds), DESIGNS))
    once = {name: SETTINGS[0][name] for name in ("draws", "tune", "target_accept")} if given.once else {}
    passed = [
        converges(
            "{} runs, {} teachers, {} students".format(*design) + f", seed {seed}",
            runs=simulated(design, seed),
            law=default_law(given),
            seed=seed,
            **once,
        )
        for seed, design in (tables[-1:] if given.quick else tables)
    ]
    print(f"{sum(passed)} of {len(passed)} fits pass")


if __name__ == "__main__":
    main()
