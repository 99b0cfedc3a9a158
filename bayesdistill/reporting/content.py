"""Tables and figures of a report."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import matplotlib
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from bayesdistill import posterior
from bayesdistill.plots import plot_best_loss, plot_compute_strategy, plot_probability, plot_runs
from bayesdistill.posterior import Fit
from bayesdistill.tables import plan_table, summary_table

TITLES = {
    "summary": "Probability that distillation beats pretraining, and crossover budget",
    "strategies": "Strategies at selected budgets",
    "extrapolation": "Extrapolation of the plan",
    "data": "Data",
    "groups": "Runs per student",
    "diagnostics": "Convergence diagnostics",
    "parameters": "Parameters of the law",
    "priors": "Priors",
    "versions": "Software versions",
}
CAPTIONS = {
    "probability": "Probability that distillation beats pretraining, against the budget.",
    "best_loss": "Lowest expected cross-entropy against compute, distilled and pretrained.",
    "compute_strategy": "Compute-optimal teacher and student tokens against the budget.",
    "runs": "Runs with the fitted law and its intervals; residuals below.",
}


def tables_of(fit: Fit, plan: xr.Dataset | None, rows: tuple) -> dict[str, pd.DataFrame]:
    """Return name -> table; `rows` are the rows of `check`."""
    found = posterior.provenance(fit)
    tables: dict[str, pd.DataFrame] = {}
    if plan is not None:
        tables["summary"] = summary_table(plan)
        tables["strategies"] = _strategies(plan)
        if "extrapolation_factor" in plan:
            tables["extrapolation"] = _extrapolation(plan)
    data = [
        {"kind": kind, "runs": table["runs"], "source": table.get("source", ""), "SHA-256": table["sha256"]}
        for kind, table in sorted(found.get("data", {}).items())
    ]
    if data:
        tables["data"] = pd.DataFrame(data)
    seen = posterior.seen_runs(fit)
    if "student" in seen:
        counts = Counter(str(label) for label in seen["student"].values)
        tables["groups"] = pd.DataFrame({"student label": list(counts), "runs": list(counts.values())})
    tables["diagnostics"] = pd.DataFrame(list(rows), columns=["check", "found", "threshold", "passed"])
    tables["parameters"] = _parameters(fit)
    priors = posterior.prior_table(fit)
    if "reason" in priors:
        names = [str(name) for name in priors["parameter"].values]
        tables["priors"] = pd.DataFrame(
            {"coordinate": names, "prior": priors["distribution"].values, "reason": priors["reason"].values}
        )
    if found.get("versions"):
        tables["versions"] = pd.DataFrame(sorted(found["versions"].items()), columns=["package", "version"])
    return tables


def _strategies(plan: xr.Dataset) -> pd.DataFrame:
    budgets = plan["budget"].values
    last = budgets.size - 1
    chosen = sorted({round(i * last / 3) for i in range(4)})
    frame = plan_table(plan.isel(budget=chosen))
    keep = ["student", "scenario", "budget", "probability", "expected_gain", "teacher_params", "teacher_tokens"]
    return frame[[*keep, "student_tokens", "status", "extrapolates"]]


def _extrapolation(plan: xr.Dataset) -> pd.DataFrame:
    factor = plan["extrapolation_factor"]
    worst = factor.max([name for name in factor.dims if name != "axis"])
    return pd.DataFrame(
        {
            "axis": [str(name).replace("_", " ") for name in factor["axis"].values],
            "largest extrapolation factor": [f"{float(v):.3g}" for v in worst.values],
        }
    )


def _parameters(fit: Fit) -> pd.DataFrame:
    draws = posterior.law_draws(fit)
    prob = 100 * posterior.INTERVAL_PROBABILITY
    rows: list[dict[str, Any]] = []
    for name, values in draws.data_vars.items():
        low, high = (float(v) for v in posterior.interval(values))
        middle = float(posterior.median(values))
        rows.append(
            {
                "symbol": str(name),
                "median": f"{middle:.4g}",
                f"{prob:.0f}% interval": f"{low:.4g} to {high:.4g}",
                "unit": str(values.attrs.get("units", "")),
            }
        )
    return pd.DataFrame(rows)


def figures_of(plan: xr.Dataset | None, curves: xr.Dataset | None) -> dict[str, Figure]:
    """Return name -> figure."""
    figures: dict[str, Figure] = {}
    if plan is not None:
        figures["probability"] = plot_probability(plan)
        figures["best_loss"] = plot_best_loss(plan)
        figures["compute_strategy"] = plot_compute_strategy(plan)
    if curves is not None:
        figures["runs"] = plot_runs(curves)
    return figures


def drawn(figure: Figure, form: str) -> bytes:
    """Return the content of a figure file without its creation date."""
    metadata: dict[str, Any] = {"pdf": {"CreationDate": None}, "png": {"Software": None}}[form]
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "bayesdistill"}):
        figure.savefig(buffer, format=form, dpi=150, metadata=metadata)
    return buffer.getvalue()
