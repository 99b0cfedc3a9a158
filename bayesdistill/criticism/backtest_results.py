"""Collect the predictions of a backtest and their scores in one Dataset."""

from __future__ import annotations

import itertools
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesdistill.criticism.probability_scores import (
    BINS,
    brier,
    brier_skill,
    calibration_curve,
    calibration_line,
    grouped_interval,
    mean_log_score,
)
from bayesdistill.law.effects import configuration_labels

if TYPE_CHECKING:
    import pandas as pd

EXTRAPOLATION = (1.0, 3.0, 10.0, 30.0, math.inf)
"""Edges of the extrapolation groups, in multiples of the cutoff."""
NOISE = ("law", "run")
NATS, ONE, FLOPS = "nats per token", "1", "FLOPs"

SCORES = {
    "brier": "mean squared difference between probability and outcome",
    "brier_skill": "1 minus the ratio of the Brier score to the Brier score of the base rate",
    "log_score": "mean natural logarithm of the probability of the outcome",
    "slope": "slope of the outcome's log odds against the predicted log odds, 1 if calibrated",
    "intercept": "intercept of the outcome's log odds against the predicted log odds, 0 if calibrated",
}
INTERVALS = ("brier", "brier_skill", "slope")


def collect(
    distilled: pd.DataFrame,
    supervised: pd.DataFrame,
    own: tuple[np.ndarray, np.ndarray],
    limits: list[float],
    splits: list[dict[str, Any]],
    done: dict[str, Any],
    forecasters: list[str],
) -> xr.Dataset:
    """Return the result of `backtest`."""
    variables = _forecasts(distilled, own, limits, splits, done, forecasters)
    variables |= _predictions(distilled, supervised, own, limits, splits, done, forecasters)
    variables |= _fits(limits, splits, done, forecasters)
    coordinates = {"forecaster": forecasters, "noise": list(NOISE)}
    flat = xr.Dataset(variables, coords=coordinates)
    return xr.merge([flat, _scores(flat, limits), _curve(flat)], combine_attrs="drop_conflicts")


def _variable(dims: tuple[str, ...], values: Any, units: str, words: str) -> tuple[Any, ...]:
    return dims, np.asarray(values), {"units": units, "long_name": words}


def _each(done: dict[str, Any], forecasters: list[str], count: int, part: str, name: str) -> np.ndarray:
    """Concatenate a number per pair or run over the cutoffs: (n, forecaster)."""
    return np.stack([np.concatenate([done[f"{m} {k}"][part][name] for k in range(count)]) for m in forecasters], axis=1)


def _forecasts(
    distilled: pd.DataFrame,
    own: tuple[np.ndarray, np.ndarray],
    limits: list[float],
    splits: list[dict[str, Any]],
    done: dict[str, Any],
    forecasters: list[str],
) -> dict[str, Any]:
    import pandas as pd

    pairs = pd.concat([split["pairs"].assign(cutoff=limit) for limit, split in zip(limits, splits, strict=True)])
    rows = pairs["distilled"].to_numpy(dtype=int)
    difference = pairs["difference"].to_numpy(dtype=float)
    larger = np.maximum(own[0][rows], pairs["cost"].to_numpy(dtype=float))
    size, tokens = (distilled[c].to_numpy(dtype=float)[rows] for c in ("student_params", "student_tokens"))
    probability = np.stack(
        [_each(done, forecasters, len(limits), "pairs", f"probability_{kind}") for kind in NOISE], axis=-1
    )
    found = {
        "outcome": _variable(
            ("forecast",), (difference > 0).astype(float), ONE, "whether the distilled run has the lower loss"
        ),
        "difference": _variable(("forecast",), difference, NATS, "observed pretrained minus distilled loss"),
        "cutoff": _variable(("forecast",), pairs["cutoff"], FLOPS, "compute cutoff of the fitted runs"),
        "scenario": _variable(("forecast",), pairs["scenario"].to_numpy(dtype=str), ONE, "cost scenario"),
        "extrapolation_factor": _variable(
            ("forecast",),
            larger / pairs["cutoff"].to_numpy(dtype=float),
            ONE,
            "compute of the more expensive run divided by the cutoff",
        ),
        "configuration": _variable(
            ("forecast",), configuration_labels(np.stack([size, tokens], axis=1)), ONE, "student configuration"
        ),
        "teacher_loss": _variable(
            ("forecast",), distilled["teacher_loss"].to_numpy(dtype=float)[rows], NATS, "measured loss of the teacher"
        ),
        "distilled_run": _variable(("forecast",), rows, ONE, "row number of the distilled run"),
        "interpolated": _variable(
            ("forecast",), pairs["weight"].to_numpy(dtype=float) > 0, ONE, "whether the pretrained loss is interpolated"
        ),
        "probability": _variable(
            ("forecast", "forecaster", "noise"),
            probability,
            ONE,
            "probability that the distilled run has the lower loss",
        ),
    }
    for name, words in (
        ("mean_difference", "expected pretrained minus distilled loss"),
        ("lower_difference", "5% quantile of the difference of two runs"),
        ("upper_difference", "95% quantile of the difference of two runs"),
    ):
        values = _each(done, forecasters, len(limits), "pairs", name)
        found[name] = _variable(("forecast", "forecaster"), values, NATS, words)
    return found


def _predictions(
    distilled: pd.DataFrame,
    supervised: pd.DataFrame,
    own: tuple[np.ndarray, np.ndarray],
    limits: list[float],
    splits: list[dict[str, Any]],
    done: dict[str, Any],
    forecasters: list[str],
) -> dict[str, Any]:
    columns: dict[str, list[Any]] = {name: [] for name in ("observed", "factor", "kind", "name", "cutoff")}
    tables = (
        ("distilled", distilled, "kept", ("student_params", "student_tokens", "student_loss"), own[0]),
        ("supervised", supervised, "kept_supervised", ("params", "tokens", "loss"), own[1]),
    )
    for limit, split in zip(limits, splits, strict=True):
        for kind, table, mask, names, cost in tables:
            rows = np.flatnonzero(~split[mask])
            size, tokens, loss = (table[name].to_numpy(dtype=float)[rows] for name in names)
            columns["observed"] += loss.tolist()
            columns["factor"] += (cost[rows] / limit).tolist()
            columns["kind"] += [kind] * rows.size
            columns["name"] += configuration_labels(np.stack([size, tokens], axis=1))
            columns["cutoff"] += [limit] * rows.size
    dim = ("prediction",)
    found = {
        "observed": _variable(dim, columns["observed"], NATS, "loss of the left-out run"),
        # Below 1 if only the teacher is above the cutoff.
        "prediction_factor": _variable(dim, columns["factor"], ONE, "compute of the run divided by the cutoff"),
        "prediction_cutoff": _variable(dim, columns["cutoff"], FLOPS, "compute cutoff of the fitted runs"),
        "kind": _variable(dim, columns["kind"], ONE, "distilled or supervised run"),
        "prediction_configuration": _variable(dim, columns["name"], ONE, "model configuration"),
    }
    for name, source, units, words in (
        ("predicted", "mean", NATS, "expected loss"),
        ("elpd", "elpd", ONE, "log predictive density of the left-out run"),
        ("inside_50", "inside_50", ONE, "whether the 50% interval contains the loss"),
        ("inside_90", "inside_90", ONE, "whether the 90% interval contains the loss"),
    ):
        values = _each(done, forecasters, len(limits), "runs", source).astype(float)
        found[name] = _variable(("prediction", "forecaster"), values, units, words)
    return found


def _fits(
    limits: list[float], splits: list[dict[str, Any]], done: dict[str, Any], forecasters: list[str]
) -> dict[str, Any]:
    dim = ("cutoff_fit",)
    checks = [done.get(f"posterior {k}", {}).get("convergence", {}) for k in range(len(limits))]
    failed = [", ".join(v.get("failed") or []) for v in checks]
    return {
        "cutoff_fit": _variable(dim, limits, FLOPS, "compute cutoff of the fitted runs"),
        "fitted_distilled": _variable(
            dim, [int(s["kept"].sum()) for s in splits], ONE, "number of fitted distilled runs"
        ),
        "fitted_supervised": _variable(
            dim, [int(s["kept_supervised"].sum()) for s in splits], ONE, "number of fitted supervised runs"
        ),
        "rhat": _variable(dim, [float(v.get("rhat") or math.nan) for v in checks], ONE, "largest R-hat"),
        "divergences": _variable(
            dim, [float(v.get("divergences", math.nan)) for v in checks], ONE, "number of divergent transitions"
        ),
        "failed": _variable(
            dim, np.array(failed, dtype=str), ONE, "convergence checks that the posterior's fit failed"
        ),
    }


def _masks(flat: xr.Dataset, limits: list[float]) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return the groups: name, mask of pairs and mask of runs."""
    factor, factor_run = flat["extrapolation_factor"].values, flat["prediction_factor"].values
    everything = np.ones(factor.size, dtype=bool), np.ones(factor_run.size, dtype=bool)
    groups = [("all", *everything)]
    for low, high in itertools.pairwise(EXTRAPOLATION):
        name = f"{low:g} to {high:g} times the cut-off" if math.isfinite(high) else f"over {low:g} times the cut-off"
        first = 0.0 if low == 1 else low
        groups.append((name, (first < factor) & (factor <= high), (first < factor_run) & (factor_run <= high)))
    cutoff, cutoff_run = flat["cutoff"].values, flat["prediction_cutoff"].values
    groups += [(f"cut-off {limit:.2g}", cutoff == limit, cutoff_run == limit) for limit in limits]
    scenario, kind = flat["scenario"].values, flat["kind"].values
    groups += [(name, scenario == name, ~everything[1]) for name in dict.fromkeys(scenario.tolist())]
    groups += [(f"{name} runs", ~everything[0], kind == name) for name in dict.fromkeys(kind.tolist())]
    return groups


def _scores(flat: xr.Dataset, limits: list[float]) -> xr.Dataset:
    groups = _masks(flat, limits)
    forecasters, kinds = flat["forecaster"].values, flat["noise"].values
    shape = (len(groups), forecasters.size, kinds.size)
    names = [*SCORES, *(f"{name}_{end}" for name in INTERVALS for end in ("lower", "upper"))]
    values = {name: np.full(shape, math.nan) for name in names}
    coverage = {name: np.full(shape[:2], math.nan) for name in ("coverage_50", "coverage_90", "rmse", "mean_elpd")}
    coverage |= {f"coverage_90_{end}": np.full(shape[:2], math.nan) for end in ("lower", "upper")}
    counts = {
        name: np.full(len(groups), math.nan) for name in ("forecasts", "configurations", "base_rate", "predictions")
    }
    outcome, configuration = flat["outcome"].values, flat["configuration"].values
    probability = flat["probability"].transpose("forecast", "forecaster", "noise").values
    for g, (_, mine, runs) in enumerate(groups):
        counts["forecasts"][g], counts["predictions"][g] = mine.sum(), runs.sum()
        counts["configurations"][g] = np.unique(configuration[mine]).size
        if mine.any():
            counts["base_rate"][g] = outcome[mine].mean()
        for m in range(forecasters.size):
            for n in range(kinds.size):
                if mine.any():
                    scored = _score(probability[mine, m, n], outcome[mine], configuration[mine])
                    for name, number in scored.items():
                        values[name][g, m, n] = number
            if runs.any():
                for name, number in _cover(flat.isel(forecaster=m, prediction=runs)).items():
                    coverage[name][g, m] = number
    cell = ("group", "forecaster", "noise")
    words = dict(SCORES)
    found = {}
    for name, value in values.items():
        base = name.removesuffix("_lower").removesuffix("_upper")
        end = " (90% interval, whole students resampled)" if base != name else ""
        found[name] = _variable(cell, value, ONE, words[base] + end)
    labels = {
        "coverage_50": (ONE, "fraction of left-out runs inside their 50% interval"),
        "coverage_90": (ONE, "fraction of left-out runs inside their 90% interval"),
        "coverage_90_lower": (ONE, "lower bound of the 90% interval of coverage_90, whole models resampled"),
        "coverage_90_upper": (ONE, "upper bound of the 90% interval of coverage_90, whole models resampled"),
        "rmse": (NATS, "root mean square error of the predicted loss"),
        "mean_elpd": (ONE, "mean log predictive density of a left-out run"),
    }
    found |= {name: _variable(cell[:2], coverage[name], *label) for name, label in labels.items()}
    totals = {
        "forecasts": "number of predicted pairs",
        "configurations": "number of distinct student configurations",
        "base_rate": "fraction of pairs in which the distilled run has the lower loss",
        "predictions": "number of predicted runs",
    }
    found |= {name: _variable(cell[:1], counts[name], ONE, text) for name, text in totals.items()}
    return xr.Dataset(
        found, coords={"group": [name for name, _, _ in groups], "forecaster": forecasters, "noise": kinds}
    )


def _score(p: np.ndarray, y: np.ndarray, configuration: np.ndarray) -> dict[str, float]:
    intercept, slope = calibration_line(p, y)
    found = {
        "brier": brier(p, y),
        "brier_skill": brier_skill(p, y),
        "log_score": mean_log_score(p, y),
        "slope": slope,
        "intercept": intercept,
    }
    scores = {
        "brier": lambda i: brier(p[i], y[i]),
        "brier_skill": lambda i: brier_skill(p[i], y[i]),
        "slope": lambda i: calibration_line(p[i], y[i])[1],
    }
    for name, score in scores.items():
        found[f"{name}_lower"], found[f"{name}_upper"] = grouped_interval(score, configuration)
    return found


def _cover(predictions: xr.Dataset) -> dict[str, float]:
    held = predictions["inside_90"].values
    lower, upper = grouped_interval(lambda i: float(held[i].mean()), predictions["prediction_configuration"].values)
    error = predictions["predicted"].values - predictions["observed"].values
    return {
        "coverage_50": float(predictions["inside_50"].values.mean()),
        "coverage_90": float(held.mean()),
        "coverage_90_lower": lower,
        "coverage_90_upper": upper,
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mean_elpd": float(predictions["elpd"].values.mean()),
    }


def _curve(flat: xr.Dataset) -> xr.Dataset:
    forecasters, kinds = flat["forecaster"].values, flat["noise"].values
    outcome, configuration = flat["outcome"].values, flat["configuration"].values
    names = ("count", "mean_probability", "share", "lower", "upper")
    found = {name: np.full((forecasters.size, kinds.size, len(BINS) - 1), math.nan) for name in names}
    for m, forecaster in enumerate(forecasters):
        for n, kind in enumerate(kinds):
            p = flat["probability"].sel(forecaster=forecaster, noise=kind).values
            for name, value in calibration_curve(p, outcome, configuration).items():
                found[name][m, n] = value
    words = {
        "count": "number of predictions in the bin",
        "mean_probability": "mean probability in the bin",
        "share": "fraction of the pairs in which the distilled run has the lower loss",
        "lower": "lower bound of the 90% interval of the fraction",
        "upper": "upper bound of the 90% interval of the fraction",
    }
    variables = {
        f"curve_{name}": _variable(("forecaster", "noise", "bin"), found[name], ONE, words[name]) for name in names
    }
    edges = [f"{100 * low:g} to {100 * high:g} %" for low, high in itertools.pairwise(BINS)]
    attrs = {"calibration_edges": json.dumps(BINS), "interval_prob": 0.9}
    return xr.Dataset(variables, coords={"bin": edges, "forecaster": forecasters, "noise": kinds}, attrs=attrs)
