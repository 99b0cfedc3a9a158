"""Group the runs of a fit: distilled runs by student, teacher, loss ratio and tokens; supervised runs by model, size and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bayesdistill import posterior
from bayesdistill.arguments import checked
from bayesdistill.datasets import KINDS
from bayesdistill.datasets.axes import short
from bayesdistill.errors import ModelError
from bayesdistill.law import Draws
from bayesdistill.law.effects import EFFECTS, model_groups, student_configurations, teacher_groups
from bayesdistill.law.predictive import COLUMNS
from bayesdistill.posterior import Fit


@dataclass(frozen=True)
class Grouping:
    """Groups of runs by one factor.

    Parameters
    ----------
    factor : {"student", "teacher", "ratio", "tokens", "model", "size", "tokens_per_param"}
        Of distilled runs: student configuration, teacher, loss ratio r, or tokens of the student. Of supervised runs: model, size,
        tokens, or tokens per parameter.
    labels : list of str
        Labels of the groups, in the order of `middles`.
    index : ndarray of int, (run,)
        Group of every run.
    middles : ndarray, (group,)
        Position of the group on the axis of the factor: parameters, nats, 1, or tokens; of a model, its parameters.
    """

    factor: str
    labels: list[str]
    index: np.ndarray
    middles: np.ndarray


def runs_of(fit: Fit, what: str, kind: str | None = None) -> tuple[str, pd.DataFrame]:
    """Return the kind and the table of fitted runs, design, labels and outcome.

    Parameters
    ----------
    fit : DataTree
    what : str
        Name of the caller, for messages.
    kind : {"distilled", "supervised"}, optional
        By default, distilled runs if the fit has any.

    Raises
    ------
    ModelError
        If the fit has no such runs.
    """
    for one in KINDS if kind is None else (kind,):
        table = posterior.fitted_table(fit, one)
        if table is not None:
            return one, table
    wanted = "with its runs" if kind is None else f"of {kind} runs"
    raise ModelError(f"{what} requires a fit {wanted}. Pass the result of bd.fit.")


def loss_ratio(draws: Draws, runs: pd.DataFrame) -> np.ndarray:
    """Return r, the ratio of teacher loss to the student's supervised loss, (n_draws, run)."""
    params, tokens = (runs[name].to_numpy(dtype=float) for name in ("student_params", "student_tokens"))
    alone = draws.supervised_loss(params[:, None], tokens[:, None]).T
    return np.asarray(runs["teacher_loss"].to_numpy(dtype=float) / alone)


def grouped_runs(
    kind: str, draws: Draws, runs: pd.DataFrame, bins: int
) -> tuple[list[Grouping], Grouping, dict[str, np.ndarray]]:
    """Return the groupings of fitted runs, their series, and the axis that is not a column of the table.

    A series of distilled runs is a student configuration with its teachers; of supervised runs, a model (without repeated labels, a
    size) with its tokens. The axis is `ratio` or `tokens_per_param`, (run,).
    """
    if kind == "distilled":
        ratio = loss_ratio(draws, runs).mean(axis=0)
        grouped = group_runs(runs, ratio, bins)
        return grouped, grouped[0], {"ratio": ratio}
    params, tokens = (runs[name].to_numpy(dtype=float) for name in COLUMNS[kind])
    grouped = [
        _binned("size", params, bins),
        _binned("tokens", tokens, bins),
        _binned("tokens_per_param", tokens / params, bins),
    ]
    sizes, index = np.unique(params, return_inverse=True)
    series = Grouping("size", [short(size) for size in sizes], index, sizes)
    if EFFECTS["model"].determined_by(runs):
        names, index = model_groups(runs)
        sizes = np.array([params[index == i].mean() for i in range(len(names))])
        order = np.argsort(sizes, kind="stable")
        series = Grouping("model", [names[i] for i in order], np.argsort(order)[index], sizes[order])
        grouped.insert(0, series)
    return grouped, series, {"tokens_per_param": tokens / params}


@checked
def group_runs(runs: pd.DataFrame, ratio: np.ndarray, bins: int = 8) -> list[Grouping]:
    """Return the groupings by student configuration, teacher, loss ratio and tokens, in this order.

    Ratios and tokens are binned by quantiles, so all bins have similar numbers of runs.

    Parameters
    ----------
    runs : DataFrame
    ratio : ndarray, (run,)
        Loss ratio r of every run.
    bins : int
        Number of quantile bins of r and of D_S.

    Raises
    ------
    ParameterError
        If bins is less than 2.
    """
    pairs, configuration = student_configurations(runs)  # in order of size and tokens
    labels = [f"{short(size)}, {short(tokens)} tokens" for size, tokens in pairs]
    students = Grouping("student", labels, configuration, pairs[:, 0])
    names, teacher = teacher_groups(runs)
    loss = np.array([runs["teacher_loss"].to_numpy(dtype=float)[teacher == i].mean() for i in range(len(names))])
    order = np.argsort(loss)
    teachers = Grouping("teacher", [names[i] for i in order], np.argsort(order)[teacher], loss[order])
    tokens = runs["student_tokens"].to_numpy(dtype=float)
    return [students, teachers, _binned("ratio", ratio, bins), _binned("tokens", tokens, bins)]


def _binned(factor: str, values: np.ndarray, bins: int) -> Grouping:
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))
    index = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, max(0, edges.size - 2))
    _, index = np.unique(index, return_inverse=True)  # ties can produce bins without runs
    write: Any = "{:.3f}".format if factor == "ratio" else short
    labels, middles = [], []
    for k in range(int(index.max()) + 1):
        mine = values[index == k]
        low, high = write(float(mine.min())), write(float(mine.max()))
        labels.append(low if low == high else f"{low} to {high}")
        middles.append(float(np.median(mine)))
    return Grouping(factor, labels, index, np.array(middles))


def group_coordinates(groupings: Sequence[Grouping]) -> dict[str, Any]:
    """Return the coordinates of the dimension `group`: factor, label and middle."""
    return {
        "factor": ("group", [g.factor for g in groupings for _ in g.labels]),
        "label": ("group", [label for g in groupings for label in g.labels]),
        "middle": ("group", np.concatenate([g.middles for g in groupings])),
    }


def thinning(fit: Fit, max_draws: int) -> slice:
    """Return a slice of evenly spaced draws with at most `max_draws` over all chains."""
    dataset = posterior.posterior_dataset(fit)
    return slice(None, None, max(1, -(-dataset.sizes["chain"] * dataset.sizes["draw"] // max_draws)))


FEWEST_WEIGHTED = 50
"""Fewest draws for importance sampling: the tail of the weights has a fifth of them."""


def require_draws(fit: Fit, caller: str) -> None:
    """Raise an error if a fit has too few draws for importance sampling."""
    sizes = posterior.posterior_dataset(fit).sizes
    if sizes["chain"] * sizes["draw"] < FEWEST_WEIGHTED:
        raise ModelError(
            f"{caller} requires at least {FEWEST_WEIGHTED} draws, but the fit has {sizes['chain'] * sizes['draw']}. Refit the model "
            "with more draws."
        )


def fit_attributes(fit: Fit) -> dict[str, str]:
    """Return attributes that the figures display: convergence, source of the supervised law, conflict."""
    verdict = posterior.convergence(fit)
    known = posterior.LAW_ATTRIBUTE in posterior.posterior_dataset(fit).attrs
    return {
        "converged": {True: "yes", False: "no", None: "unknown"}[verdict["converged"]],
        "supervised_law": posterior.provenance(fit).get("supervised_law", "unknown"),
        **posterior.conflict_attribute(fit),
        **({posterior.IDENTITY_ATTRIBUTE: posterior.identity(fit)} if known else {}),
    }
