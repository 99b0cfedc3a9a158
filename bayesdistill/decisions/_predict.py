"""`predict`: the loss of any run, with an interval and its distance from the data."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import posterior
from bayesdistill.answers import labeled
from bayesdistill.arguments import checked, one_of, switch
from bayesdistill.datasets import COLUMNS, read_design
from bayesdistill.decisions import extrapolation, labels, planning
from bayesdistill.decisions.fitted_draws import FittedDraws
from bayesdistill.decisions.marginals import Nodes, quantiles
from bayesdistill.decisions.membership import Membership, membership_of
from bayesdistill.decisions.reductions import mean_of
from bayesdistill.errors import ParameterError
from bayesdistill.law import Draws, predictive
from bayesdistill.law.predictive import COLUMNS as DESIGN

GROUPS = ("seen", "new")
_LABELS = ("teacher", "student", "model", "experiment")
_TITLE = {
    ("law", "seen"): "Mean curve of the law, with the effects of groups in the data",
    ("law", "new"): "Mean curve of the law, without group effects",
    ("expected", "seen"): "Expected loss, with the effects of known and new groups and the discrepancy of the law",
    ("expected", "new"): "Expected loss of new groups, with the discrepancy of the law",
    ("run", "seen"): "Loss of a new run, with the effects of groups in the data",
    ("run", "new"): "Loss of a new run of new groups",
}
_CELLS = 2**22
"""Number of values (draws times runs) that are computed at once."""


@checked(groups=one_of(*GROUPS), draws=switch)
@planning.with_options
def predict(
    fit: planning.Source,
    table: pd.DataFrame | str | os.PathLike[str],
    *,
    groups: str = "seen",
    prob: float = posterior.INTERVAL_PROBABILITY,
    draws: bool = False,
    kind: str | None = None,
    allow_suspicious: bool = False,
    **options: Unpack[planning.Noise],
) -> xr.Dataset:
    """Predict the loss of runs, with intervals and their distance from the data.

    Parameters
    ----------
    fit : DataTree, Dataset or Planner
        The result of `fit` or `load`; a Dataset of draws, whose convergence is not checked; or a `Planner`, a fit with options. A
        fit of the supervised law alone predicts supervised runs only.
    table : DataFrame or path
        Distilled runs (student_params, student_tokens, teacher_loss) or supervised runs (params, tokens), in memory or in a
        CSV or Parquet file. The outcome (student_loss or loss) and the labels teacher, student and model are optional. The
        table is checked as by `read_runs`; one row is enough.
    noise : {"expected", "law", "run"}
        Level of uncertainty. "expected": the expected loss, with the law's discrepancy, if it has one, and an effect for each group
        that is not in the data. "law": the loss on the law's mean curve; the interval covers the uncertainty of the law. "run": the
        loss of a single new run, with its residual (Student-t) in addition to the expected loss. The attribute `noise` of the result
        names the level. It is "law" instead of "expected" for draws of the law's parameters alone.
    groups : {"seen", "new"}
        "seen": groups in the data keep their effects. "new": every run belongs to new groups.
    prob : float
        Probability inside the equal-tailed interval.
    draws : bool
        Whether to return draws of the loss.
    seed : int
        Random seed of the draws of the loss with noise="expected" or "run", and of the discrepancy outside the data. Summaries of runs
        within the data do not depend on it.
    kind : {"distilled", "supervised"}, optional
        By default, the columns of the table determine it.
    allow_suspicious : bool
        As for `read_runs`.

    Returns
    -------
    Dataset
        Over run (position in the table): mean, median, lower, upper, sd and mean_mcse (the Monte Carlo standard error of the
        mean), in nats per token; the design and label columns; extrapolation_factor over `axis` (how many times outside the
        range of the data, 1 inside), extrapolation (the largest of them), extrapolation_axis (its axis), extrapolates;
        group_seen over `effect` (whether the
        group of the run is in the data), if the law has group effects for such runs. With outcomes: observed and residual
        (observed minus mean), and the attribute rms_residual; with noise="run" also pit (predictive probability of a lower
        loss) and the attribute coverage (fraction of runs inside their interval). With `draws`: loss over chain and draw.

    Raises
    ------
    DataError, FileError
        If the table is invalid.
    ParameterError
        If an argument is invalid, or the fit has no law for this kind of run.

    Notes
    -----
    =============== ============================================= ==============================================
    noise           groups="seen"                                 groups="new"
    =============== ============================================= ==============================================
    "law"           law + effects of groups in the data           law
    "expected"      law + discrepancy + effects of groups in the  law + discrepancy + new effects of all groups
                    data + new effects of other groups
    "run"           the same + residual                           the same + residual
    =============== ============================================= ==============================================

    The variance of a new effect is s^2 (1 + 1/J), with s the standard deviation of the effects of the J groups in the data. New
    effects and residuals have mean zero, so the mean depends on `groups` only. The standard deviation is infinite if nu <= 2 in
    a draw; the interval is finite.

    Groups are identified by their labels, as in the fit: teachers by `teacher` (without this column by their loss), student
    configurations by parameters and tokens (four digits), models by `model` (without this column by their size).

    A supervised run has the effect of its student configuration, as in `plan`, unless the fit has supervised runs, whose
    residuals include it.

    Draws of the loss are joint: runs of the same new group share its effect. An effect depends on the seed and the group's label;
    a residual on the seed, the row's design and labels, and the number of equal rows before it. Other rows have no influence.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import pandas as pd, xarray as xr
    >>> published = xr.Dataset({k: (("chain", "draw"), [[v]]) for k, v in bd.PUBLISHED.items()}, attrs={"law": "busbridge2025"})
    >>> run = pd.DataFrame({"student_params": [5.46e8], "student_tokens": [1.207e10], "teacher_loss": [2.18485]})
    >>> bd.predict(published, run)["mean"].round(3).item()
    2.432
    """
    planner = planning.planner_of(predict, fit, options, distilled=False)
    fitted, noise, seed = planner.fitted, planner.level, planner.seed
    runs = read_design(table, kind, allow_suspicious=allow_suspicious, teacher_losses=fitted.teacher_losses)
    kind = str(runs.attrs["kind"])
    if kind == "distilled" and not fitted.draws.law.distills:
        raise ParameterError(
            f"{runs.attrs['source']} has distilled runs, but the fit has the supervised law alone. Use a fit of distilled runs, "
            "bd.fit(runs), or a table of supervised runs (params, tokens)."
        )
    if noise != "law":
        predictive.require_noise(fitted.draws)
    member = membership_of(planner.fit, fitted.draws, runs, kind, groups)
    params, tokens, *teacher = design = [runs[name].to_numpy(dtype=float) for name in DESIGN[kind]]
    effects = posterior.effects_of(planner.fit)
    without_outcomes = predictive.Design(kind, params, tokens, teacher[0] if teacher else None)
    predicted = _Prediction(fitted.draws, without_outcomes, member, effects, noise)
    outcome = predictive.OUTCOME[kind]
    observed = runs[outcome].to_numpy(dtype=float) if outcome in runs else None
    values, attrs = _summaries(fitted, predicted, prob, observed)
    factors_of: Any = extrapolation.distilled_factors if teacher else extrapolation.pretraining_factors
    factors = factors_of(fitted, params, tokens, *teacher)
    values |= {name: runs[name].astype(str).tolist() for name in _LABELS if name in runs}
    axes = extrapolation.DISTILLED_AXES if teacher else extrapolation.PRETRAINING_AXES
    values |= extrapolation.described(factors, axes)
    coordinates: dict[str, Any] = {"run": np.arange(len(runs)), "axis": list(axes)}
    if member:
        values["group_seen"] = np.stack([group.position >= 0 for group in member], axis=1)
        coordinates["effect"] = [group.effect.name for group in member]
    if draws:
        values["loss"] = _draws_of_loss(predicted, runs, int(seed))
    attrs |= {
        "title": _TITLE[noise, groups],
        "kind": kind,
        "source": str(runs.attrs["source"]),
        "noise": noise,
        "groups": groups,
        "seed": int(seed),
        "interval_kind": posterior.INTERVAL_KIND,
        "interval_prob": float(prob),
        "bayesdistill_version": importlib.metadata.version("bayesdistill"),
        **fitted.attrs,
    }
    result = labels.answer("predict", fitted, values, coordinates, attrs)
    for name in ("lower", "upper"):
        result[name].attrs |= {"interval_kind": posterior.INTERVAL_KIND, "interval_prob": float(prob)}
    columns = {name: ("run", COLUMNS[name].units, COLUMNS[name].long_name) for name in DESIGN[kind]}
    return result.assign(labeled(columns, dict(zip(DESIGN[kind], design, strict=True))))


# Predictions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Prediction:
    """Runs and the components of their predictive distribution."""

    draws: Draws
    design: predictive.Design
    member: Sequence[Membership]
    effects: dict[str, np.ndarray]
    noise: str

    def part(self, rows: slice) -> _Prediction:
        """Return the prediction of some of the runs."""
        d = self.design
        losses = None if d.teacher_loss is None else d.teacher_loss[rows]
        member = [Membership(g.effect, g.labels[rows], g.position[rows], g.new[rows]) for g in self.member]
        return replace(self, design=predictive.Design(d.kind, d.params[rows], d.tokens[rows], losses), member=member)

    def covariate(self, group: Membership) -> Any:
        """Return the factor of a group effect."""
        return group.effect.covariate(self.design.along, self.draws.reference)

    def center(self) -> np.ndarray:
        """The loss of the law, with its discrepancy unless noise is "law", and the known group effects, (n_draws, run)."""
        curve = predictive.curve_loss if self.noise == "law" else predictive.expected_loss
        total = curve(self.draws, self.design)
        for group in self.member:
            if not group.new.all():
                values = self.effects[group.effect.name][:, group.position]
                total = total + np.where(group.new, 0.0, self.covariate(group) * values)
        return total

    def new_scale(self, group: Membership) -> np.ndarray:
        """Scale of a standard normal new effect, (n_draws, run); 0 if the effect is known."""
        scale = self.draws[group.effect.scale.name]
        spread = predictive.new_group_scale(group.effect, scale, self.draws.groups.get(group.effect.name))
        return np.asarray(spread[:, None] * np.where(group.new, self.covariate(group), 0.0))

    def residual_scale(self) -> np.ndarray:
        """Scale of the residuals, (n_draws, run); 0 unless noise is "run"."""
        scale = predictive.residual_scale(self.draws, self.design)
        return scale if self.noise == "run" else 0 * scale


def _summaries(
    fitted: FittedDraws, predicted: _Prediction, prob: float, observed: np.ndarray | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Summarize the loss of every run; return values and attributes."""
    step, count = max(1, _CELLS // predicted.draws.n_draws), predicted.design.params.size
    blocks = []
    for rows in (slice(start, start + step) for start in range(0, count, step)):
        seen = None if observed is None else observed[rows]
        blocks.append(_block(fitted, predicted.part(rows), prob, seen))
    found = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    if observed is None:
        return found, {}
    residual = observed - found["mean"]
    attrs = {"rms_residual": float(np.sqrt((residual**2).mean()))}
    if predicted.noise == "run":
        attrs["coverage"] = float(((found["lower"] <= observed) & (observed <= found["upper"])).mean())
    return found | {"observed": observed, "residual": residual}, attrs


def _block(
    fitted: FittedDraws, predicted: _Prediction, prob: float, observed: np.ndarray | None
) -> dict[str, np.ndarray]:
    draws, levels = predicted.draws, np.array([(1 - prob) / 2, 0.5, (1 + prob) / 2])
    center = predicted.center()
    mean, error = mean_of(fitted, center.T)
    found = {"mean": mean, "mean_mcse": error}
    variance = center.var(axis=0)
    if predicted.noise == "law":
        bounds = np.quantile(center, levels, axis=0)
    else:
        scale, nodes = predicted.residual_scale(), Nodes(draws["nu"])
        new = sum((predicted.new_scale(group) ** 2 for group in predicted.member), np.zeros_like(center))
        variance = variance + new.mean(axis=0)
        if predicted.noise == "run":
            with np.errstate(divide="ignore", invalid="ignore"):
                of_t = np.where(draws["nu"] > 2, draws["nu"] / (draws["nu"] - 2), np.inf)
            variance = variance + (scale**2 * of_t[:, None]).mean(axis=0)
        bounds, below = np.empty((3, mean.size)), np.empty(mean.size)
        for run in range(mean.size):
            values = nodes.values(center[:, run], np.sqrt(new[:, run]), scale[:, run])
            bounds[:, run] = quantiles(values, levels)
            below[run] = np.nan if observed is None else (values < observed[run]).mean()
        if observed is not None and predicted.noise == "run":
            found["pit"] = below
    return {**found, "sd": np.sqrt(variance), **dict(zip(("lower", "median", "upper"), bounds, strict=True))}


def _draws_of_loss(predicted: _Prediction, runs: pd.DataFrame, seed: int) -> np.ndarray:
    """Return joint draws of the losses of all runs, (run, n_draws)."""
    total, draws = predicted.center(), predicted.draws
    if predicted.noise == "law":
        return total.T
    for group in predicted.member:
        scale = predicted.new_scale(group)
        drawn = {
            label: _stream(seed, "effect", group.effect.name, label).standard_normal(draws.n_draws)
            for label in {label for label, new in zip(group.labels, group.new, strict=True) if new}
        }
        for run in np.flatnonzero(group.new):
            total[:, run] += scale[:, run] * drawn[group.labels[run]]
    scale = predicted.residual_scale()
    kind = predicted.design.kind
    columns = [name for name in (*DESIGN[kind], *_LABELS) if name in runs]
    earlier: dict[tuple[str, ...], int] = {}
    for place, row in enumerate(zip(*(runs[name].tolist() for name in columns), strict=True)):
        key = (kind, *(f"{name}={value!r}" for name, value in zip(columns, row, strict=True)))
        earlier[key] = earlier.get(key, -1) + 1
        stream = _stream(seed, "residual", *key, str(earlier[key]))
        total[:, place] += scale[:, place] * predictive.standard_residuals(draws["nu"], (draws.n_draws,), stream)
    return total.T


def _stream(seed: int, *parts: str) -> np.random.Generator:
    """Return a random generator that depends only on a seed and on texts."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype="<u4").tolist()])
