"""Write the tables of the tiny experiment from its log.

    python data/tiny/collect.py

supervised.csv and distilled.csv are what `bayesdistill.load_runs("tiny")` reads; tuning.csv holds the runs that chose the
learning rate and those that check cells of the grid with half and twice the rate. Held-out and prospective runs have tables of
their own.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

from design import distilled, grid, held_out, prospective, supervised

HERE = Path(__file__).resolve().parent

# Column: how it is read from a line of the log. Columns that bayesdistill asks for come first.
SUPERVISED: dict[str, Callable[[dict], object]] = {
    "params": lambda row: row["params"],
    "tokens": lambda row: row["tokens"],
    "loss": lambda row: row["loss"],
    "model": lambda row: model_name(row["name"]),
    "seed": lambda row: row["seed"],
    "width": lambda row: row["width"],
    "train_loss": lambda row: row["train_loss"],
    "wall_s": lambda row: row["wall_s"],
    "cpu_s": lambda row: row["cpu_s"],
}
DISTILLED: dict[str, Callable[[dict], object]] = {
    "student_params": lambda row: row["params"],
    "student_tokens": lambda row: row["tokens"],
    "teacher_loss": lambda row: row["teacher_loss"],
    "student_loss": lambda row: row["loss"],
    "student": lambda row: f"d{row['width']}",
    "teacher": lambda row: model_name(row["teacher"]),
    "seed": lambda row: row["seed"],
    "teacher_params": lambda row: row["teacher_params"],
    "teacher_tokens": lambda row: row["teacher_tokens"],
    "experiment": lambda row: row["experiment"],
    "train_loss": lambda row: row["train_loss"],
    "wall_s": lambda row: row["wall_s"],
    "cpu_s": lambda row: row["cpu_s"],
}
TUNING: dict[str, Callable[[dict], object]] = {
    "run": lambda row: row["name"].split("-lr")[0].split("-wd")[0],
    "rate_factor": lambda row: row["rate_factor"],
    "lr0": lambda row: row["lr0"],
    "weight_decay": lambda row: row["weight_decay"],
    "loss": lambda row: row["loss"],
    "experiment": lambda row: row["experiment"],
}


def model_name(run: str) -> str:
    """`d64-8M` of `sup-d64-8M-s0`."""
    return "-".join(run.split("-")[1:3])


def write(path: Path, columns: dict[str, Callable[[dict], object]], rows: list[dict]) -> None:
    if not rows:  # a table without runs is none: readers say that it is not there
        path.unlink(missing_ok=True)
        print(f"{path.name}: no run yet")
        return
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows([read(row) for read in columns.values()] for row in rows)
    unfinished.replace(path)
    print(f"{path.name}: {len(rows)} runs")


def order(row: dict) -> tuple:
    return row["params"], row["tokens"], row["teacher_params"] or 0, row["teacher_tokens"] or 0, row["seed"], row["lr0"]


def cell_and_text(row: dict) -> tuple[str, str]:
    return row["name"].split("-lr")[0].split("-wd")[0], row["train_sha256"]


def main() -> None:
    log = {row["name"]: row for row in map(json.loads, (HERE / "log.jsonl").read_text().splitlines())}
    rows = sorted(log.values(), key=order)
    main_runs = [row for row in rows if row["experiment"] == "main"]
    write(HERE / "supervised.csv", SUPERVISED, [row for row in main_runs if row["teacher"] is None])
    write(HERE / "distilled.csv", DISTILLED, [row for row in main_runs if row["teacher"] is not None])
    # Rates are compared among runs that read the same text, and some were tried on an earlier one.
    earlier = [json.loads(line) for line in (HERE / "earlier_corpus.jsonl").read_text().splitlines()]
    every = sorted(rows + earlier, key=order)
    tried = {cell_and_text(row) for row in every if row["experiment"] in ("tuning", "check")}
    write(HERE / "tuning.csv", TUNING, [row for row in every if cell_and_text(row) in tried])
    for experiment in ("held-out", "prospective"):
        kept_apart = [row for row in rows if row["experiment"] == experiment]
        if kept_apart:
            write(HERE / f"{experiment}-supervised.csv", SUPERVISED, [r for r in kept_apart if r["teacher"] is None])
            write(HERE / f"{experiment}-distilled.csv", DISTILLED, [r for r in kept_apart if r["teacher"] is not None])
    missing = [run for run in grid() if run.name not in log]
    print(
        f"of {len(supervised())} supervised and {len(distilled())} distilled runs and the checks, {len(missing)} are missing;"
    )
    for kind, runs in (("held-out", held_out()), ("prospective", prospective())):
        print(f"{sum(run.name in log for run in runs)} of {len(runs)} {kind} runs are made")


if __name__ == "__main__":
    main()
