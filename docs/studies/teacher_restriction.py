"""What it costs to keep teachers within a factor of the data: the tables of explanation/teachers_near_the_data.md.

    python docs/studies/teacher_restriction.py [--quick]

The first table compares the default plan of the 354 runs with the unrestricted one, the second one several factors.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from common import parser, table

import bayesdistill as bd

STUDENTS = ["300M", "1B", "3B"]
BUDGETS = ["1e20", "1e21", "1e22", "1e23", "1e24"]
FACTORS = (1.0, 3.0, 10.0, 30.0, 100.0)
SHOWN = ("best case", "teacher inference", "teacher pretraining + inference")


def size(value: float) -> str:
    """Return a number of parameters or tokens as in tables of the package."""
    limit, suffix = next((n, s) for n, s in ((1e12, "T"), (1e9, "B"), (1e6, "M")) if value >= n)
    return f"{value / limit:.3g}{suffix}"


def teacher(cell: xr.Dataset) -> str:
    """Return the chosen teacher and its tokens per parameter."""
    params, tokens = cell["teacher_params"].item(), cell["teacher_tokens"].item()
    return f"{size(params)} on {size(tokens)} ({tokens / params:,.0f})"


def compared(free: xr.Dataset, near: xr.Dataset) -> str:
    """Return the table of the cells whose teacher is restricted."""
    cost = near["distilled_loss"].mean(["chain", "draw"]) - free["distilled_loss"].mean(["chain", "draw"])
    rows = []
    for scenario in SHOWN:
        for student in free["student"].values:
            for budget in free["budget"].values:
                where = {"scenario": scenario, "student": student, "budget": budget}
                if cost.sel(where) > 1e-6:
                    old, new = free.sel(where), near.sel(where)
                    probability = f"{old['probability'].item():.2f}, {new['probability'].item():.2f}"
                    gain = f"{old['expected_gain'].item():+.4f}, {new['expected_gain'].item():+.4f}"
                    rows.append(
                        (scenario, size(student), f"{budget:.0e}", teacher(old), teacher(new), gain, probability)
                    )
    head = ("scenario", "student", "FLOPs", "any teacher", "within a factor of 10", "gain (nats)", "probability")
    return table(head, rows)


def costs(free: xr.Dataset, plans: dict[float, xr.Dataset]) -> str:
    """Return the table of the costs of several factors over all cells."""
    rows = []
    for factor, near in plans.items():
        cost = (near["distilled_loss"] - free["distilled_loss"]).mean(["chain", "draw"])
        moved = np.abs(near["probability"] - free["probability"])
        sides = (near["probability"] > 0.5) != (free["probability"] > 0.5)
        rows.append(
            (f"{factor:g}", f"{100 * float((cost > 1e-6).mean()):.0f}%", f"{float(cost.mean()):.5f}", f"{float(cost.max()):.4f}",
             f"{float(moved.max()):.2f}", int(sides.sum()))
        )  # fmt: skip
    head = ("factor", "cells with a restricted teacher", "mean cost (nats)", "largest cost (nats)", "largest change of the probability",
            "other side of 0.5")  # fmt: skip
    return table(head, rows)


def main(arguments: list[str] | None = None) -> None:
    quick = parser(__doc__).parse_args(arguments).quick
    sampler = {"draws": 100, "tune": 200, "chains": 2} if quick else {}
    fit = bd.fit(bd.load_runs("busbridge2025"), seed=0, progress=False, **sampler)
    asked = bd.Planner(fit, allow_unconverged=quick, draws=100 if quick else 1000, progress=False)
    students, budgets = (STUDENTS[1:2], BUDGETS[1:2]) if quick else (STUDENTS, BUDGETS)
    free = bd.plan(asked, students, budgets, max_extrapolation=None)
    plans = {factor: bd.plan(asked, students, budgets, max_extrapolation=factor) for factor in FACTORS}
    print(compared(free, plans[10.0]))
    print()
    print(costs(free, plans))


if __name__ == "__main__":
    main()
