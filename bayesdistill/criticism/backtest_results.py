"""Collect the predictions of a backtest and their scores in one Dataset."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill.arguments import NOISE
from bayesdistill.criticism import probability_scores as scores
from bayesdistill.criticism.results import columns, dataset
from bayesdistill.law.effects import configuration_labels
from bayesdistill.law.predictive import COLUMNS, OUTCOME

EXTRAPOLATION = (1.0, 3.0, 10.0, 30.0, math.inf)
"""Edges of the extrapolation groups, in multiples of the cutoff."""
PAIR_DIMS = ("forecast", "noise", "bin")
PAIR_COUNTS = ("forecasts", "configurations", "base_rate")
"""Dimensions and further variables of a result that describe pairs; a backtest of one kind of runs has none."""
RUN_SCORES = ("elpd", "crps", "pit", "inside_50", "inside_90")

SCORES: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "brier": scores.brier,
    "brier_skill": scores.brier_skill,
    "log_score": scores.mean_log_score,
    "slope": lambda p, y: scores.calibration_line(p, y)[1],
    "intercept": lambda p, y: scores.calibration_line(p, y)[0],
}
INTERVALS = [(name, f"{name}_lower", f"{name}_upper") for name in ("brier", "brier_skill", "slope")]


@dataclass(frozen=True)
class Split:
    """Runs at a compute cutoff.

    Parameters
    ----------
    cutoff : float
        FLOPs.
    kept : dict
        "distilled" and "supervised" -> mask of the fitted runs, (run,) of bool; empty for a kind without runs.
    pairs : DataFrame
        Pairs to predict: the result of `pairs.matched_pairs`, and teacher_unknown (whether the teacher is not trained yet).
    """

    cutoff: float
    kept: dict[str, np.ndarray]
    pairs: pd.DataFrame


def collect(
    runs: Mapping[str, pd.DataFrame],
    own: Mapping[str, np.ndarray],
    splits: Sequence[Split],
    results: Mapping[str, list[dict[str, Any]]],
    *,
    include_failed: bool = False,
) -> xr.Dataset:
    """Return the result of `backtest`.

    Parameters
    ----------
    runs, own : mapping
        "distilled" and "supervised", or one of them -> runs and their compute in FLOPs.
    splits : sequence of Split
    results : mapping
        Name of a forecaster -> its results, one for each split.
    include_failed : bool
        Whether cutoffs at which the posterior's fit failed the convergence checks are scored.
    """
    found = _forecasts(runs, own, splits) | _predictions(runs, own, splits)
    found |= _fits(splits, results.get("posterior", [{}] * len(splits)))
    values = {name: np.asarray(value) for name, value in found.items()}

    def each(part: str, name: str) -> np.ndarray:
        """Concatenate a number per pair or run over the cutoffs, (n, forecaster)."""
        every = ([result[part].get(name, []) for result in of_method] for of_method in results.values())
        return np.stack([np.concatenate(lists) for lists in every], axis=1).astype(float)

    values["probability"] = np.stack([each("pairs", f"probability_{kind}") for kind in NOISE], axis=-1)
    values |= {name: each("pairs", name) for name in ("mean_difference", "lower_difference", "upper_difference")}
    values |= {name: each("runs", name) for name in RUN_SCORES}
    values["predicted"] = each("runs", "mean")
    groups = _groups(values, [split.cutoff for split in splits])
    bad = values["cutoff_fit"][values["failed"] != ""]
    cutoffs = [np.concatenate([values["cutoff"][p], values["prediction_cutoff"][r]]) for _, p, r in groups]
    values["unconverged"] = np.array([np.isin(bad, one).sum() for one in cutoffs], dtype=float)
    values["scored"] = ~np.isin(values["cutoff"], bad) | include_failed
    values["prediction_scored"] = ~np.isin(values["prediction_cutoff"], bad) | include_failed
    groups = [(name, p & values["scored"], r & values["prediction_scored"]) for name, p, r in groups]
    values |= _scores(values, groups)
    coords = {
        "forecaster": list(results),
        "noise": list(NOISE),
        "group": [name for name, _, _ in groups],
        "bin": [f"{100 * low:g} to {100 * high:g}%" for low, high in itertools.pairwise(scores.BINS)],
    }
    attrs = {"calibration_edges": json.dumps(scores.BINS), "interval_prob": 0.9}
    result = dataset("backtest", values, coords, attrs)
    return result if len(runs) == 2 else result.drop_dims(PAIR_DIMS).drop_vars(PAIR_COUNTS)


def _labels(runs: pd.DataFrame, kind: str) -> list[str]:
    return configuration_labels(runs[list(COLUMNS[kind][:2])].to_numpy(dtype=float))


def _forecasts(
    runs: Mapping[str, pd.DataFrame], own: Mapping[str, np.ndarray], splits: Sequence[Split]
) -> dict[str, Any]:
    pairs = pd.concat([split.pairs.assign(cutoff=split.cutoff) for split in splits])
    rows = pairs["distilled"].to_numpy(dtype=int)
    distilled = runs.get("distilled", pd.DataFrame(columns=COLUMNS["distilled"]))
    return {
        "outcome": (pairs["difference"] > 0).astype(float),
        "difference": pairs["difference"].astype(float),
        "cutoff": pairs["cutoff"],
        "scenario": pairs["scenario"].to_numpy(dtype=str),
        "extrapolation_factor": np.maximum(own["distilled"][rows], pairs["cost"].astype(float)) / pairs["cutoff"],
        "configuration": np.array(_labels(distilled.iloc[rows], "distilled")),
        "teacher_loss": distilled["teacher_loss"].to_numpy(dtype=float)[rows],
        "distilled_run": rows,
        "interpolated": pairs["weight"] > 0,
    }


def _predictions(
    runs: Mapping[str, pd.DataFrame], own: Mapping[str, np.ndarray], splits: Sequence[Split]
) -> dict[str, Any]:
    parts = []
    for split, (kind, table) in itertools.product(splits, runs.items()):
        out = ~split.kept[kind]
        part = {
            "observed": table[OUTCOME[kind]].to_numpy(dtype=float)[out],
            # Below 1 if only the teacher is above the cutoff.
            "prediction_factor": own[kind][out] / split.cutoff,
            "prediction_cutoff": split.cutoff,
            "kind": kind,
            "prediction_configuration": _labels(table[out], kind),
        }
        parts.append(pd.DataFrame(part))
    found = pd.concat(parts)
    words = ("kind", "prediction_configuration")
    return {str(name): found[name].to_numpy(dtype=str if name in words else float) for name in found}


def _fits(splits: Sequence[Split], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    checks = [result.get("convergence", {}) for result in results]
    return {
        "cutoff_fit": [split.cutoff for split in splits],
        "fitted_distilled": [int(split.kept["distilled"].sum()) for split in splits],
        "fitted_supervised": [int(split.kept["supervised"].sum()) for split in splits],
        "rhat": [float(check.get("rhat") or math.nan) for check in checks],
        "ess_bulk": [float(check.get("ess_bulk") or math.nan) for check in checks],
        "divergences": [float(check.get("divergences", math.nan)) for check in checks],
        "refits": [float(check.get("refits", math.nan)) for check in checks],
        "failed": np.array([", ".join(check.get("failed") or []) for check in checks], dtype=str),
    }


Group = tuple[str, np.ndarray, np.ndarray]


def _groups(values: Mapping[str, np.ndarray], cutoffs: Sequence[float]) -> list[Group]:
    """Return the groups: name, mask of pairs and mask of runs."""
    factors, limits = (values["extrapolation_factor"], values["prediction_factor"]), ("cutoff", "prediction_cutoff")
    scenario, kind = values["scenario"], values["kind"]
    groups: list[Group] = [("all", np.ones(scenario.size, dtype=bool), np.ones(kind.size, dtype=bool))]
    for low, high in itertools.pairwise(EXTRAPOLATION):
        name = f"{low:g} to {high:g} times the cut-off" if math.isfinite(high) else f"over {low:g} times the cut-off"
        first = 0.0 if low == 1 else low
        pairs, runs = ((first < factor) & (factor <= high) for factor in factors)
        groups.append((name, pairs, runs))
    groups += [(f"cut-off {cutoff:.2g}", *(values[one] == cutoff for one in limits)) for cutoff in cutoffs]
    groups += [(name, scenario == name, np.zeros(kind.size, bool)) for name in dict.fromkeys(scenario.tolist())]
    kinds = dict.fromkeys(kind.tolist())
    groups += [(f"{name} runs", np.zeros(scenario.size, bool), kind == name) for name in kinds if len(kinds) > 1]
    return groups


def _scores(values: Mapping[str, np.ndarray], groups: Sequence[Group]) -> dict[str, np.ndarray]:
    """Return the scores of every group, and the calibration curves of all pairs."""
    p, y, student = (values[name] for name in ("probability", "outcome", "configuration"))
    every = groups[0][1]
    methods, kinds = range(p.shape[1]), range(p.shape[2])
    found = columns(
        [[[_score(p[mine, m, n], y[mine], student[mine]) for n in kinds] for m in methods] for _, mine, _ in groups]
    )
    found |= columns([[_cover(values, runs, m) for m in methods] for _, _, runs in groups])
    found |= columns([_count(y[mine], student[mine], runs) for _, mine, runs in groups])
    curves = columns(
        [[scores.calibration_curve(p[every, m, n], y[every], student[every]) for n in kinds] for m in methods]
    )
    return found | {f"curve_{name}": value for name, value in curves.items()}


def _score(p: np.ndarray, y: np.ndarray, configuration: np.ndarray) -> dict[str, float]:
    if not p.size:
        return dict.fromkeys([*SCORES, *(end for _, *ends in INTERVALS for end in ends)], math.nan)
    found = {name: score(p, y) for name, score in SCORES.items()}
    for name, lower, upper in INTERVALS:
        interval = scores.grouped_interval(lambda i, score=SCORES[name]: score(p[i], y[i]), configuration)  # type: ignore[misc]
        found[lower], found[upper] = interval
    return found


def _cover(values: Mapping[str, np.ndarray], runs: np.ndarray, method: int) -> dict[str, float]:
    names = ("coverage_50", "coverage_90", "coverage_90_lower", "coverage_90_upper", "rmse", "mean_crps", "mean_elpd")
    if not runs.any():
        return dict.fromkeys(names, math.nan)
    narrow, held, predicted, crps, elpd = (
        values[name][runs, method] for name in ("inside_50", "inside_90", "predicted", "crps", "elpd")
    )
    interval = scores.grouped_interval(lambda i: float(held[i].mean()), values["prediction_configuration"][runs])
    error = float(np.sqrt(np.mean((predicted - values["observed"][runs]) ** 2)))
    return dict(zip(names, (narrow.mean(), held.mean(), *interval, error, crps.mean(), elpd.mean()), strict=True))


def _count(y: np.ndarray, configuration: np.ndarray, runs: np.ndarray) -> dict[str, float]:
    return {
        "forecasts": float(y.size),
        "configurations": float(np.unique(configuration).size),
        "base_rate": float(y.mean()) if y.size else math.nan,
        "predictions": float(runs.sum()),
    }
