"""Tables and figures of a report."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from bayesdistill import posterior
from bayesdistill.plots import (
    plot_best_loss,
    plot_compute_optimal,
    plot_compute_strategy,
    plot_family,
    plot_probability,
    plot_runs,
)
from bayesdistill.plots.style import axis_words
from bayesdistill.posterior import Fit
from bayesdistill.tables import decision_table, plan_table, summary_table


def is_family(plan: xr.Dataset) -> bool:
    """Whether a result is one of `family_plan`."""
    return "decision_probability" in plan


def tables_of(
    fit: Fit, plan: xr.Dataset | None, rows: tuple, optimal: xr.Dataset | None = None
) -> dict[str, pd.DataFrame]:
    """Return name -> table; `rows` are the rows of `check`."""
    found = posterior.provenance(fit)
    tables: dict[str, pd.DataFrame] = {}
    if optimal is not None:
        tables["family" if is_family(optimal) else "optimal"] = decision_table(optimal).drop(columns="extrapolates")
    if plan is not None:
        tables["plan"] = plan_table(plan)
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
        tables["groups"] = pd.DataFrame(counts.items(), columns=["student label", "runs"])
    tables["diagnostics"] = pd.DataFrame(rows, columns=["check", "found", "threshold", "passed"])
    tables["parameters"] = _parameters(fit)
    priors = posterior.prior_table(fit)
    if "reason" in priors:
        columns = {"coordinate": "parameter", "prior": "distribution", "reason": "reason"}
        tables["priors"] = pd.DataFrame({column: priors[name].values for column, name in columns.items()})
        shifts = posterior.prior_shifts(fit)
        # Of the coordinate, in prior standard deviations; the part that is independent of the preceding ones under a joint prior.
        moved = [f"{shifts[name]:+.1f}" if name in shifts else "" for name in tables["priors"]["coordinate"]]
        tables["priors"].insert(2, "posterior shift (prior sd)", moved)
    if found.get("versions"):
        tables["versions"] = pd.DataFrame(sorted(found["versions"].items()), columns=["package", "version"])
    return tables


def _strategies(plan: xr.Dataset) -> pd.DataFrame:
    last = plan.sizes["budget"] - 1
    frame = plan_table(plan.isel(budget=sorted({round(i * last / 3) for i in range(4)})))
    keep = "student scenario budget probability probability_lowest probability_highest laws_agree expected_gain teacher_params"
    keep += " teacher_tokens student_tokens status extrapolates noise warning"
    return frame[[name for name in keep.split() if name in frame]]


def _extrapolation(plan: xr.Dataset) -> pd.DataFrame:
    factor = plan["extrapolation_factor"].where(np.isfinite(plan["probability"]))
    cells = [name for name in factor.dims if name != "axis"]
    worst, outside = factor.max(cells).to_series(), (factor > 1).mean(cells).to_series()
    rows = [(axis_words(str(axis)), f"{worst[axis]:.3g}", f"{100 * outside[axis]:.0f}%") for axis in worst.index]
    return pd.DataFrame(rows, columns=["axis", "largest extrapolation factor", "cells outside the range"])


def _parameters(fit: Fit) -> pd.DataFrame:
    interval = f"{100 * posterior.INTERVAL_PROBABILITY:.0f}% interval"
    rows = []
    for name, values in posterior.law_draws(fit).data_vars.items():
        middle, (low, high) = float(posterior.median(values)), posterior.interval(values).values
        unit = str(values.attrs.get("units", ""))
        rows.append((str(name), f"{middle:.4g}", f"{low:.4g} to {high:.4g}", unit))
    return pd.DataFrame(rows, columns=["symbol", "median", interval, "unit"])


def figures_of(
    plan: xr.Dataset | None, curves: xr.Dataset | None, optimal: xr.Dataset | None = None
) -> dict[str, Figure]:
    """Return name -> figure."""
    figures: dict[str, Figure] = {}
    if optimal is not None and is_family(optimal):
        figures["family"] = plot_family(optimal)
    elif optimal is not None and optimal.sizes["budget"] > 1:
        figures["compute_optimal"] = plot_compute_optimal(optimal)
    if plan is not None:
        first = {"probability": plot_probability, "best_loss": plot_best_loss}
        # The probabilities of one budget are in the table; the gains have intervals.
        names = reversed(first) if plan.sizes["budget"] == 1 else first
        figures |= {name: first[name](plan) for name in names}
        figures["compute_strategy"] = plot_compute_strategy(plan)
    if curves is not None:
        figures["runs"] = plot_runs(curves)
    return figures


def drawn(figure: Figure, form: str) -> bytes:
    """Return the content of a figure file without its creation date."""
    dates: dict[str, dict[str, None]] = {"pdf": {"CreationDate": None}, "png": {"Software": None}}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=150, metadata=dates[form])
    return buffer.getvalue()
