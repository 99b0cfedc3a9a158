"""Power and false alarms of the level shift that `bd.fit` estimates, on simulated tables.

python docs/studies/level_shift.py [--tables 200] [--first-seed 10000] [--quick]

Every row is one kind of table. Its laws are simulated: "published" is equation 8 with the published parameters. "near" changes the
distillation coordinates of the default law at the published runs by 0.15 prior standard deviations, and "wide" by 0.4; their supervised
coordinates are drawn from the published-law prior. Designs: rows of the published design, or "own": 1, 2, 4 or 8
students and teachers, each of random size and tokens. With supervised runs, there are 20 of them, with the distribution of
sizes and tokens of the students. Residual scales are 0.003 to 0.02 nats, effects of student configurations 0.003 to 0.015 nats.

If the column "teachers" of the result is a number, sizes and tokens of the teachers are known, with 5 to 100 tokens per parameter.
Losses of teachers deviate from the supervised law like losses of supervised runs, and by a common normal effect with that standard
deviation in nats. Otherwise, these tables are the same as the tables without sizes of the teachers.

There are three outcomes: a conflict, no shift (one of 0.1 nats is excluded), and undetermined. Subsets of the packaged runs follow.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from common import WITHOUT_DISCREPANCY, parser
from scipy.optimize import brentq

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.law import SUPERVISED_SYMBOLS
from bayesdistill.model import reference_run
from bayesdistill.posterior import SUPERVISED_COORDINATES
from bayesdistill.priors import STATEMENTS, default_priors
from bayesdistill.sampling.level_shift import CENTERS, estimate_level_shift

LAW = WITHOUT_DISCREPANCY.for_runs(distilled=True, supervised=False)
KINDS = {"near": 0.15, "wide": 0.4}
KAPPA = 0.8
"""Logarithm of kappa at the published runs, which the prior of the test does not assume."""
SHIFTS = (0.0, 0.1)


def truth(kind: str, rng: np.random.Generator) -> tuple[dict[str, float], str]:
    """Return the symbols and the name of a law."""
    if kind == "published":
        return dict(bd.PUBLISHED), "busbridge2025"
    reference = reference_run(bd.load_runs(), None)
    priors = default_priors(LAW, reference)
    scale = np.array([1.0 if name in SUPERVISED_COORDINATES else KINDS[kind] for name in priors.names])
    known = CENTERS | {"log_kappa": KAPPA}
    center = np.array([known.get(name, priors.table[name].location) for name in priors.names])
    while True:
        z = np.zeros(len(priors.names))
        z[priors.free] = rng.standard_normal(int(priors.free.sum()))
        values = center + scale * (priors.factor @ z[priors.free])
        coordinates = dict(zip(priors.names, values, strict=True))
        with np.errstate(all="ignore"):
            reduced = LAW.reduced_symbols(coordinates, reference)
            if np.log(rng.uniform()) < STATEMENTS["asymptotic"].log_density(LAW, reduced, reference, 0.005):
                return {
                    name: float(value) for name, value in LAW.symbols(coordinates, reference).items()
                }, WITHOUT_DISCREPANCY


def own_design(count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return a design with a few students and teachers."""

    def between(low: float, high: float, size: int) -> np.ndarray:
        return np.exp(rng.uniform(np.log(low), np.log(high), size))

    students, teachers = rng.choice([1, 2, 4, 8], 2)
    sizes, amounts = between(1.43e8, 3e9, students), between(10, 160, max(2, count // 4))
    teacher = between(3e8, 1.26e10, teachers)
    losses = bd.supervised_loss(
        teacher, teacher * between(10, 160, teachers), **{name: bd.PUBLISHED[name] for name in SUPERVISED_SYMBOLS}
    )
    size = rng.choice(sizes, count)
    which = rng.integers(teachers, size=count)
    return pd.DataFrame(
        {
            "student_params": size.round(),
            "student_tokens": (size * rng.choice(amounts, count)).round(),
            "teacher_loss": losses[which],
            "teacher": [f"T{i}" for i in which],
        }
    )


def with_teachers(
    runs: pd.DataFrame, symbols: dict[str, float], sigma: float, effect: float, recipe: float, seed: int
) -> pd.DataFrame:
    """Return runs with sizes and tokens of the teachers, whose losses deviate from the law as in other models."""
    rng = np.random.default_rng([seed, 1])
    supervised = {name: symbols[name] for name in SUPERVISED_SYMBOLS}
    losses = runs["teacher_loss"].unique()
    ratios = np.exp(rng.uniform(np.log(5), np.log(100), losses.size))
    residuals = sigma * rng.standard_t(5, losses.size) + effect * rng.standard_normal(losses.size)
    means = losses - residuals - recipe * rng.standard_normal()

    def excess(log_size: float, ratio: float, mean: float) -> float:
        return float(bd.supervised_loss(np.exp(log_size), ratio * np.exp(log_size), **supervised)) - mean

    sizes = [np.exp(brentq(excess, 0, 50, args=at)) for at in zip(ratios, means, strict=True)]
    size, ratio = (runs["teacher_loss"].map(dict(zip(losses, values, strict=True))) for values in (sizes, ratios))
    return runs.assign(teacher_params=size, teacher_tokens=ratio * size)


def table(
    kind: str, design: str, count: int, joint: bool, seed: int, teachers: float | None = None
) -> tuple[pd.DataFrame, pd.DataFrame | None] | None:
    """Return simulated tables of distilled and supervised runs; None if a loss is not plausible."""
    rng = np.random.default_rng([seed, count, joint])
    published = bd.load_runs().drop(columns="student_loss")
    runs = (
        published.iloc[rng.choice(len(published), count, replace=False)].reset_index(drop=True)
        if design == "published"
        else own_design(count, rng)
    )
    symbols, law = truth(kind, rng)
    sigma, effect = np.exp(rng.uniform(np.log([0.003, 0.003]), np.log([0.02, 0.015])))
    if teachers is not None:
        runs = with_teachers(runs, symbols, sigma, effect, teachers, seed)
    noise = {"sigma": float(sigma), "student_sd": float(effect), "seed": rng, "law": law}
    try:
        distilled = bd.simulate_runs(symbols, design=runs, **noise)
        supervised = None
        if joint:
            some = runs.iloc[rng.integers(len(runs), size=20)]
            wide = np.exp(rng.uniform(-1, 1, (2, 20)))
            plan = pd.DataFrame(
                {"params": some["student_params"] * wide[0], "tokens": some["student_tokens"] * wide[1]}
            )
            supervised = bd.simulate_runs(
                symbols, kind="supervised", design=plan.round().reset_index(drop=True), **noise
            )
    except bd.BayesdistillError:
        return None
    if not distilled["student_loss"].between(0.5, 10).all():
        return None
    return distilled, supervised


def estimate(runs: pd.DataFrame, supervised: pd.DataFrame | None) -> posterior.LevelShift:
    """Return the level shift as `bd.fit` estimates it."""
    reference = reference_run(runs, supervised)
    law = WITHOUT_DISCREPANCY.for_runs(distilled=True, supervised=supervised is not None)
    found = estimate_level_shift(runs, supervised, default_priors(law, reference), reference)
    if found is None:
        raise bd.ModelError("The estimate failed.")
    return found


def rates(found: list[tuple[float, posterior.LevelShift]]) -> dict[str, object]:
    """Return rates of the outcomes by size of the shift, and errors, from true shifts and estimates."""
    frame = pd.DataFrame(
        {
            "size": [abs(shift) for shift, _ in found],
            "conflict": [one.is_conflict for _, one in found],
            "undetermined": [one.is_undetermined for _, one in found],
            "error": [one.shift - shift for shift, one in found],
            "standard_error": [one.standard_error for _, one in found],
        }
    )
    outcomes = {
        f"{outcome} at {size}": round(part[outcome].mean(), 3)
        for size, part in frame.groupby("size")
        for outcome in ("conflict", "undetermined")
    }
    errors = {"rms error": float((frame["error"] ** 2).mean() ** 0.5), "median se": frame["standard_error"].median()}
    return outcomes | {name: round(value, 3) for name, value in errors.items()}


def measure(kind: str, design: str, count: int, joint: bool, teachers: float | None, seeds: range) -> dict[str, object]:
    """Return rates of one kind of table."""
    found = []
    for seed in seeds:
        made = table(kind, design, count, joint, seed, teachers)
        if made is None:
            continue
        runs, supervised = made
        for size in SHIFTS:
            shift = size * (1 if seed % 2 else -1)
            moved = runs.assign(teacher_loss=runs["teacher_loss"] + shift, student_loss=runs["student_loss"] + shift)
            found.append((shift, estimate(moved, supervised)))
    row = {"law": kind, "design": design, "runs": count, "supervised": 20 if joint else 0, "teachers": teachers}
    return row | {"tables": len(found) // len(SHIFTS)} | rates(found)


def subsets(name: str, count: int, teachers: bool, tables: int) -> dict[str, object]:
    """Return rates of random subsets of packaged runs, with 20 of their supervised runs if there are some."""
    rng, runs = np.random.default_rng(count), bd.load_runs(name)
    if not teachers:
        runs = runs.drop(columns=["teacher_params", "teacher_tokens"], errors="ignore")
    other = bd.load_runs("tiny", kind="supervised") if name == "tiny" else None
    found = []
    for _ in range(tables):
        some, rest = (
            None if one is None else one.iloc[rng.choice(len(one), size, replace=False)].reset_index(drop=True)
            for one, size in ((runs, count), (other, 20))
        )
        assert some is not None
        found.append((0.0, estimate(some, rest)))
    row = {"law": "runs", "design": name, "runs": count, "supervised": 0 if other is None else 20, "teachers": teachers}
    return row | {"tables": tables} | rates(found)


CELLS = [
    *((kind, "published", count, False, None) for count in (20, 40, 80, 320) for kind in ("published", *KINDS)),
    *((kind, "published", 20, True, None) for kind in ("published", *KINDS)),
    *((kind, "own", 20, joint, None) for joint in (False, True) for kind in ("published", *KINDS)),
    *(
        (kind, design, 20, joint, 0.0)
        for design in ("published", "own")
        for joint in (False, True)
        for kind in ("published", *KINDS)
    ),
    *(("near", design, 20, False, 0.03) for design in ("published", "own")),
]


def main(arguments: list[str] | None = None) -> None:
    """Print a table of rates."""
    options = parser(__doc__)
    options.add_argument("--tables", type=int, default=200)
    options.add_argument("--first-seed", type=int, default=10000)
    given = options.parse_args(arguments)
    tables = 4 if given.quick else given.tables
    seeds, rows = range(given.first_seed, given.first_seed + tables), []
    for cell in CELLS[:1] if given.quick else CELLS:
        rows.append(measure(*cell, seeds))
        print(rows[-1], file=sys.stderr, flush=True)
    packaged = (("busbridge2025", False), ("tiny", False), ("tiny", True))
    rows += [subsets(*one, tables // 4) for one in ((name, n, known) for name, known in packaged for n in (20, 40))]
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
