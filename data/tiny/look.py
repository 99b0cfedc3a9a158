"""Summarize the tables of the tiny experiment: spread over seeds, supervised law, comparison of teachers, tuning.

    python data/tiny/look.py

It uses numpy and scipy only, for a first look; the fits of the documentation use bayesdistill.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

HERE = Path(__file__).resolve().parent


def read(name: str) -> list[dict]:
    if not (HERE / name).exists():  # collect.py writes no table without runs
        return []
    with (HERE / name).open(newline="") as file:
        return list(csv.DictReader(file))


def seed_spread(supervised: list[dict], distilled: list[dict]) -> float:
    """Standard deviation between seeds of one cell, pooled over the cells that have several; NaN if none has."""
    print("\nSeeds: cells with several")
    cells: dict[tuple, list[float]] = defaultdict(list)
    for row in supervised:
        cells[row["model"], "supervised"].append(float(row["loss"]))
    for row in distilled:
        cells[f"{row['student']}-{float(row['student_tokens']) / 1.024e6:g}M", row["teacher"]].append(
            float(row["student_loss"])
        )
    squares = freedom = 0.0
    for kind in ("supervised", "distilled"):
        repeated = [
            (c, np.array(v))
            for c, v in cells.items()
            if len(v) > 1 and (c[1] == "supervised") == (kind == "supervised")
        ]
        kind_squares = sum(((v - v.mean()) ** 2).sum() for _, v in repeated)
        kind_freedom = sum(len(v) - 1 for _, v in repeated)
        three = sum(len(v) >= 3 for _, v in repeated)
        if kind_freedom:
            print(
                f"  {kind}: {len(repeated)} cells, {three} with three seeds; sd {(kind_squares / kind_freedom) ** 0.5:.4f} nats"
            )
        squares, freedom = squares + kind_squares, freedom + kind_freedom
    return (squares / freedom) ** 0.5 if freedom else float("nan")


def supervised_law(supervised: list[dict], label: str, smallest_params: float, fewest_tokens: float) -> None:
    """Least squares of L = E + (A/N^alpha + B/D^beta)^gamma, with N in units of 1e5 and D of 4e6, from several starts."""
    table = np.array([[float(r["params"]), float(r["tokens"]), float(r["loss"])] for r in supervised])
    table = table[(table[:, 0] >= smallest_params) & (table[:, 1] >= fewest_tokens)]
    if len(table) < 8:
        print(f"  {label}: {len(table)} runs are too few")
        return
    n, d, loss = np.log(table[:, 0] / 1e5), np.log(table[:, 1] / 4e6), table[:, 2]

    def law(t: np.ndarray) -> np.ndarray:
        e, log_a, log_b, alpha, beta, gamma = t
        return e + np.exp(gamma * np.logaddexp(log_a - alpha * n, log_b - beta * d))

    lower, upper = [0, -6, -6, 0.05, 0.05, 0.05], [1.5, 6, 6, 2, 2, 2]
    starts = [[e, 0, 0, 0.4, 0.5, g] for e in (0.1, 0.8) for g in (0.3, 0.6, 1.0)]
    best = min(
        (least_squares(lambda t: law(t) - loss, start, bounds=(lower, upper), x_scale=0.1) for start in starts),
        key=lambda fit: fit.cost,
    )
    left = best.fun
    rms, percent = np.sqrt(np.mean(left**2)), 100 * np.sqrt(np.mean((left / loss) ** 2))
    e, _, _, alpha, beta, gamma = best.x
    print(
        f"  {label}: {len(table)} runs, rms {rms:.4f} nats ({percent:.2f} %), "
        f"largest {np.abs(left).max():.4f}; E {e:.2f} alpha {alpha:.2f} beta {beta:.2f} gamma {gamma:.2f}"
    )


def teachers(supervised: list[dict], distilled: list[dict], spread: float) -> None:
    """Student losses by teacher, the gain over training on the text, and how far they rise past the best teacher."""
    alone: dict[tuple, list[float]] = defaultdict(list)
    for row in supervised:
        alone[row["params"], row["tokens"]].append(float(row["loss"]))
    cells: dict[tuple, dict[tuple, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in distilled:
        cell = (row["student"], int(row["student_tokens"]), row["student_params"])
        cells[cell][float(row["teacher_loss"]), row["teacher"]].append(float(row["student_loss"]))
    print(
        "\nStudents by teacher (weakest first): mean loss; gain over training on the text; rise past the best teacher"
    )
    for (student, tokens, size), by_teacher in sorted(cells.items(), key=lambda c: (int(c[0][2]), c[0][1])):
        means = [(loss, name, np.mean(v), len(v)) for (loss, name), v in sorted(by_teacher.items(), reverse=True)]
        text = "  ".join(f"{name} ({loss:.2f}): {mean:.3f}" for loss, name, mean, _ in means)
        print(f"  {student}-{tokens / 1.024e6:g}M  {text}")
        best = min(range(len(means)), key=lambda i: means[i][2])
        rise, n_best, n_last = means[-1][2] - means[best][2], means[best][3], means[-1][3]
        alone_here = alone.get((size, str(tokens)))
        gain = f"gain {np.mean(alone_here) - means[best][2]:+.3f}" if alone_here else "no supervised run yet"
        z = rise / (spread * (1 / n_best + 1 / n_last) ** 0.5) if best < len(means) - 1 else 0.0
        print(
            f"      best {means[best][1]}, {gain}; the strongest teacher is worse by {rise:.3f}, {z:.1f} standard errors of seeds"
        )


def tuning(rows: list[dict]) -> None:
    print("\nLearning rate: loss, and the change from it at other multiples of the rate and other weight decays")
    by_run: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        by_run[row["run"]].append(row)
    for run, tried in by_run.items():
        used = [float(r["loss"]) for r in tried if float(r["rate_factor"]) == 1 and r["weight_decay"] == "0.0001"]
        if used:
            changes = "  ".join(
                f"{float(r['rate_factor']):g}x wd {r['weight_decay']}: {float(r['loss']) - used[0]:+.4f}" for r in tried
            )
            print(f"  {run}: {used[0]:.4f}   {changes}")


def main() -> None:
    supervised, distilled = read("supervised.csv"), read("distilled.csv")
    print(f"{len(supervised)} supervised and {len(distilled)} distilled runs")
    spread = seed_spread(supervised, distilled)
    print("\nSupervised law")
    supervised_law(supervised, "all", 0, 0)
    supervised_law(supervised, "N >= 24k, D >= 1M", 24_000, 1e6)
    teachers(supervised, distilled, spread)
    tuning(read("tuning.csv"))


if __name__ == "__main__":
    main()
