"""Predictions of runs that are trained afterwards, and their scores: section on the prospective test of explanation/tiny.md.

    python docs/studies/prospective.py [--predict] [--quick]

The cells are pairs of a pretrained and a distilled run of the tiny experiment with more tokens and more compute than all of its runs
(`prospective` in data/tiny/design.py). `--predict` fits every law to the tables and writes prospective.json; it raises an error if
a cell is already trained. Without it, the script scores the cells that are trained so far.
"""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from common import parser

import bayesdistill as bd
from bayesdistill import posterior
from bayesdistill.criticism.left_out_scores import Fitted, pair_predictions
from bayesdistill.criticism.probability_scores import brier, brier_skill
from bayesdistill.law.predictive import curve_loss, expected_loss, logpdf, residual_scale, residuals

FILE = Path(__file__).with_suffix(".json")
TINY = Path(__file__).resolve().parents[2] / "data" / "tiny"

LAW = bd.LAWS["tied_reducible"].with_discrepancy()
DISCREPANCY = LAW.with_discrepancy("shared", "distilled")
TWO_SIDED = {"perfect_teacher_width": 0.005, "limited_data_width": 0.01, "draws": 4000, "tune": 4000}
"""With these priors, fits of default length have too small an effective sample size."""
LAWS: dict[str, dict[str, Any]] = {
    "equation 8": {"law": "busbridge2025"},
    "default": {"law": LAW},
    "discrepancy": {"law": DISCREPANCY},
    "two-sided": {"law": LAW, **TWO_SIDED},
    "two-sided, discrepancy": {"law": DISCREPANCY, **TWO_SIDED},
}
"""Name -> arguments of `fit`. The last forecaster is their mixture with equal weights."""
MIXTURE = "equal mixture"
SAMPLER = {"draws": 2000, "tune": 2000, "target_accept": 0.99, "seed": 0}
NOISE = ("law", "expected", "run")
PROBABILITIES = np.arange(1, 100, 2) / 100
"""Of the stored quantiles. They are midpoints, so that their mean pinball loss is half the CRPS."""
OFFSETS = np.arange(-100, 101) * 0.003
"""Losses of the stored log densities, relative to the `center` of the cell [nats per token]."""


# Predictions ----------------------------------------------------------------------------------------------------------


def log_rows() -> dict[str, dict[str, Any]]:
    """Return the trained runs of the tiny experiment by name."""
    return {row["name"]: row for row in map(json.loads, (TINY / "log.jsonl").read_text().splitlines())}


def cells() -> pd.DataFrame:
    """Return the cells, indexed by name: the pretrained run of a pair, then its distilled run."""
    sys.path.insert(0, str(TINY))
    design, trained = importlib.import_module("design"), log_rows()
    rows = []
    for run in design.prospective():
        taught = run.teacher_run is not None
        row = {
            "name": run.name,
            "kind": "distilled" if taught else "supervised",
            "params": float(design.params(run.width)),
            "tokens": float(run.steps * design.BATCH_TOKENS),
            "width": run.width,
            "model": design.label(run.width, run.tokens),
            "teacher": design.label(*run.teacher) if taught else "",
            "teacher_loss": trained[run.teacher_run.name]["loss"] if taught else np.nan,
        }
        rows.append(row)
    return pd.DataFrame(rows).set_index("name")


def with_cells(planned: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], dict[str, np.ndarray]]:
    """Return the tables with the cells below their runs, and masks of the runs; cells have no outcome."""
    names = {"params": "student_params", "tokens": "student_tokens"}
    new = {
        "distilled": planned.rename(columns=names).assign(student=[f"d{width}" for width in planned["width"]]),
        "supervised": planned,
    }
    runs, kept = {}, {}
    for kind in new:
        old = bd.load_runs("tiny", kind=kind)
        below = new[kind][planned["kind"] == kind].reindex(columns=old.columns)
        runs[kind] = pd.concat([old, below.dropna(axis=1)], ignore_index=True)
        kept[kind] = np.arange(len(runs[kind])) < len(old)
    return runs, kept


def fitted_to(fit: xr.DataTree, runs: dict[str, pd.DataFrame], kept: dict[str, np.ndarray]) -> Fitted:
    """Return a fit as forecaster of the cells: groups in the fit keep their effects."""
    draws, known, seen = posterior.draws_of(fit), posterior.effects_of(fit), posterior.seen_groups(fit)
    effects = {}
    for effect in draws.law.effects:
        if effect.name in known:
            labels, _ = effect.groups(runs[effect.kind])
            place = dict(zip(seen[effect.name], known[effect.name].T, strict=True))
            effects[effect.name] = np.stack([place.get(label, np.zeros(draws.n_draws)) for label in labels], axis=1)
    return Fitted(draws, effects, runs, kept)


def forecast(fitted: Fitted, planned: pd.DataFrame, center: np.ndarray) -> xr.Dataset:
    """Return the predictive distributions of all cells and the probabilities of all pairs."""
    rng = np.random.default_rng(SAMPLER["seed"])
    draws, shape = fitted.draws, (fitted.draws.n_draws, len(planned))
    losses = {noise: np.empty(shape) for noise in NOISE}
    density = np.empty((len(planned), OFFSETS.size))
    for kind, kept in fitted.kept.items():
        design, at = fitted.design(kind), np.flatnonzero(planned["kind"] == kind)
        scale = residual_scale(draws, design)[:, ~kept]
        expected = (expected_loss(draws, design) + fitted.new_effects(kind, rng))[:, ~kept]
        losses["law"][:, at] = curve_loss(draws, design)[:, ~kept]
        losses["expected"][:, at] = expected
        losses["run"][:, at] = expected + residuals(draws, scale, rng)
        for i, cell in enumerate(at):
            points = center[cell] + OFFSETS[:, None]
            each = logpdf(points, expected[:, i], scale[:, i], draws["nu"])
            density[cell] = np.logaddexp.reduce(each, axis=1) - np.log(draws.n_draws)
    drawn = np.stack([losses[noise] for noise in NOISE])
    rows = {kind: np.flatnonzero(~kept) for kind, kept in fitted.kept.items()}
    pairs = pd.DataFrame({"distilled": rows["distilled"], "low": rows["supervised"], "high": rows["supervised"]})
    wins = pair_predictions(fitted, pairs.assign(weight=0.0, teacher_unknown=False), rng)
    over = ("noise", "cell")
    return xr.Dataset(
        {
            "mean": (over, drawn.mean(axis=1)),
            "sd": (over, drawn.std(axis=1)),
            "median": (over, np.median(drawn, axis=1)),
            "quantile": ((*over, "probability"), np.moveaxis(np.quantile(drawn, PROBABILITIES, axis=1), 0, -1)),
            "log_density": (("cell", "offset"), density.round(2)),
            "wins": (("noise", "pair"), [wins[f"probability_{noise}"] for noise in NOISE]),
        }
    )


def predictions(laws: Mapping[str, dict[str, Any]], **sampler: Any) -> xr.Dataset:
    """Fit every law to the tables and predict the cells, with the mixture as last law."""
    planned = cells()
    runs, kept = with_cells(planned)
    tables = {"runs": bd.load_runs("tiny"), "supervised": bd.load_runs("tiny", kind="supervised")}
    fits = {name: bd.fit(**tables, **sampler | law, progress=False) for name, law in laws.items()}
    checks = {name: bd.check(fit).verdict for name, fit in fits.items()}
    fits[MIXTURE] = bd.mix(fits, dict.fromkeys(fits, 1.0))
    forecasters = {name: fitted_to(fit, runs, kept) for name, fit in fits.items()}
    first = next(iter(forecasters.values()))
    curves = {kind: curve_loss(first.draws, first.design(kind)).mean(axis=0)[~kept[kind]] for kind in kept}
    center = np.empty(len(planned))
    for kind, curve in curves.items():
        center[planned["kind"] == kind] = curve.round(2)
    found = xr.concat([forecast(one, planned, center) for one in forecasters.values()], "law").round(4)
    told = bd.provenance(next(iter(fits.values())))
    described = {
        name: ("cell", planned[name].tolist()) for name in ("kind", "params", "tokens", "teacher", "teacher_loss")
    }
    return (
        found.assign(described | {"center": ("cell", center.round(2))})
        .assign_coords(
            law=list(fits),
            noise=list(NOISE),
            cell=planned.index.to_list(),
            probability=PROBABILITIES,
            offset=OFFSETS.round(3),
            pair=planned.index[planned["kind"] == "distilled"].to_list(),
        )
        .assign_attrs(checks=checks, sampler=sampler, versions=told["versions"], data=told["data"])
    )


def predict() -> None:
    """Write the predictions, unless a cell is trained.

    Raises
    ------
    SystemExit
        If a cell is trained, or the tables differ from their last commit.
    """
    made = sorted(set(cells().index) & set(log_rows()))
    if made:
        raise SystemExit(f"{', '.join(made)}: already trained. Predictions must be made before the runs.")
    command = ["git", "diff", "--quiet", "HEAD", "--", "supervised.csv", "distilled.csv", "log.jsonl", "design.py"]
    if subprocess.run(command, cwd=TINY).returncode:
        raise SystemExit("The tables, the log or the design have changes. Commit them first.")
    command = ["git", "log", "-1", "--format=%H", "--", "supervised.csv", "distilled.csv"]
    commit = subprocess.run(command, cwd=TINY, capture_output=True, text=True, check=True).stdout.strip()
    found = predictions(LAWS, **SAMPLER)
    written = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    text = json.dumps(found.assign_attrs(written=written, commit_of_data=commit).to_dict())
    unfinished = FILE.with_suffix(".part")
    unfinished.write_text(text + "\n")
    unfinished.replace(FILE)


def load() -> xr.Dataset:
    """Return the stored predictions."""
    return xr.Dataset.from_dict(json.loads(FILE.read_text()))


# Scores ---------------------------------------------------------------------------------------------------------------


def score(predicted: xr.Dataset, losses: Mapping[str, float]) -> pd.DataFrame:
    """Score predictions by the losses of trained cells.

    Parameters
    ----------
    predicted : Dataset
        Result of `predictions`.
    losses : mapping
        Name of a run -> loss in nats per token. Other runs than the cells are ignored.

    Returns
    -------
    DataFrame
        One row per law and level of uncertainty: runs, 90% and 50% (fraction inside the interval), bias (mean of observed minus
        predicted mean) and crps (nats per token), elpd (sum over runs, of the level "run"; minus infinity outside OFFSETS), pairs,
        brier and skill of the probability that the distilled run of a pair is better; the skill is NaN if all outcomes are equal.
    """
    trained = [name for name in predicted["cell"].values if name in losses]
    found = predicted.sel(cell=trained)
    observed = xr.DataArray([losses[name] for name in trained], dims="cell")
    q, p = found["quantile"], found["probability"]
    ends = {
        coverage: [q.sel(probability=(1 + sign * coverage) / 2, method="nearest") for sign in (-1, 1)]
        for coverage in (0.9, 0.5)
    }
    inside = {c: ((low <= observed) & (observed <= high)).mean("cell") for c, (low, high) in ends.items()}
    crps = 2 * ((observed - q) * (p - (observed < q))).mean(["probability", "cell"])
    bias = (observed - found["mean"]).mean("cell")
    at = {name: losses[name] - float(found["center"].sel(cell=name)) for name in trained}
    partner = dict(zip(predicted["pair"].values, predicted["cell"].values[::2], strict=True))
    pairs = [name for name in partner if name in losses and partner[name] in losses]
    won = np.array([float(losses[name] < losses[partner[name]]) for name in pairs])
    rows = []
    for law in predicted["law"].values:
        density = found["log_density"].sel(law=law)
        points = predicted["offset"].values
        elpd = sum(np.interp(x, points, density.sel(cell=n).values, -np.inf, -np.inf) for n, x in at.items())
        for noise in predicted["noise"].values:
            level = {"law": law, "noise": noise}
            wins = predicted["wins"].sel(level | {"pair": pairs}).values
            rows.append(
                level
                | {"runs": len(trained), "90%": float(inside[0.9].sel(level)), "50%": float(inside[0.5].sel(level))}
                | {"bias": float(bias.sel(level)), "crps": float(crps.sel(level))}
                | {"elpd": elpd if noise == "run" else np.nan, "pairs": len(pairs)}
                | {"brier": brier(wins, won) if pairs else np.nan, "skill": brier_skill(wins, won) if pairs else np.nan}
            )
    return pd.DataFrame(rows)


def listed(predicted: xr.Dataset, losses: Mapping[str, float]) -> str:
    """Return the predictions of single runs by every law, next to the losses so far, and the probabilities of the pairs."""
    of_run = predicted.sel(noise="run")
    rows = []
    for cell in predicted["cell"].values:
        row = {"cell": cell, "loss": losses.get(cell, np.nan)}
        for law in predicted["law"].values:
            one = of_run.sel(law=law, cell=cell)
            low, high = (float(one["quantile"].sel(probability=p, method="nearest")) for p in (0.05, 0.95))
            row[law] = f"{float(one['median']):.3f} ({low:.3f} to {high:.3f})"
        rows.append(row)
    wins = pd.DataFrame(
        {
            f"{law}, {noise}": predicted["wins"].sel(law=law, noise=noise).values
            for law, noise in itertools.product(predicted["law"].values, predicted["noise"].values)
        },
        predicted["pair"].values,
    )
    return (
        f"{pd.DataFrame(rows).to_string(index=False)}\n\nP(the distilled run is better)\n{wins.T.round(2).to_string()}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Write predictions, or print them and their scores."""
    options = parser(__doc__)
    options.add_argument("--predict", action="store_true", help="fit the laws and write the predictions")
    given = options.parse_args(arguments)
    warnings.simplefilter("ignore", bd.ConvergenceWarning)
    if given.quick:
        found = predictions(dict([next(iter(LAWS.items()))]), draws=100, tune=300, seed=0)
        print(listed(found.isel(cell=slice(2), pair=slice(1)), {}))
        return
    if given.predict:
        predict()
    predicted, losses = load(), {name: row["loss"] for name, row in log_rows().items()}
    trained = sum(name in losses for name in predicted["cell"].values)
    print(f"{listed(predicted, losses)}\n\n{trained} of {predicted.sizes['cell']} cells are trained.")
    if trained:
        print(score(predicted, losses).round(4).to_string(index=False))


if __name__ == "__main__":
    main()
