"""Runs simulated from known parameters, for checks that the truth comes back."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from bayesdistill.datasets._load_runs import load_runs
from bayesdistill.datasets.schemas import KINDS, checked_kind
from bayesdistill.errors import DataError, ParameterError
from bayesdistill.law import LAWS, TERMS, Draws, Law, as_law
from bayesdistill.law.parameters import DOMAIN_WORDS
from bayesdistill.law.predictive import Design, expected_loss


def published_design(kind: str = "distilled") -> pd.DataFrame:
    """Configurations like those of the published runs, without what came out of them.

    Parameters
    ----------
    kind : {"distilled", "supervised"}
        Distilled: the 354 configurations of `load_runs`. Supervised: the paper does not list its runs, so these are eight of
        its model sizes (196608 n^3 parameters for n layers of aspect ratio 128; 143M to 12.6B) at 20, 40, 80 and 160 tokens a
        parameter.

    Returns
    -------
    pandas.DataFrame
        The columns of the kind but its last.
    """
    if checked_kind(kind) == "distilled":
        return load_runs("busbridge2025").drop(columns="student_loss")
    sizes = [196608.0 * layers**3 for layers in (9, 10, 14, 17, 21, 29, 34, 40)]
    grid = [(params, ratio * params) for params in sizes for ratio in (20, 40, 80, 160)]
    return pd.DataFrame(grid, columns=["params", "tokens"])


def simulate_runs(
    parameters: Mapping[str, float],
    *,
    seed: int | np.random.Generator,
    law: Law | str | None = None,
    kind: str = "distilled",
    design: pd.DataFrame | None = None,
    sigma: float = 0.007,
    nu: float = 5.0,
    teacher_sd: float = 0.0,
    student_sd: float = 0.0,
    repeats: int = 1,
) -> pd.DataFrame:
    """Simulate runs from a law with known parameters.

    Parameters
    ----------
    parameters : mapping
        Symbols of the law under the posterior's names, for example `PUBLISHED`; for supervised runs the first six suffice. Other
        entries are ignored: group effects and residual noise have their own arguments.
    seed : int or numpy.random.Generator
        Equal seeds give equal runs; a generator is advanced.
    law : Law or str, optional
        By default equation 8, with the terms of the package whose symbols are among the parameters (w1, kappa, omega).
    kind : {"distilled", "supervised"}
        Which kind of runs. For a joint study simulate both with the same parameters.
    design : pandas.DataFrame, optional
        One configuration a row: ``student_params student_tokens teacher_loss`` or ``params tokens``. Other columns are kept.
        By default `published_design`.
    sigma : float
        Scale of the Student-t noise on a loss, in nats per token. The default is about what the published law leaves
        in the published runs (median absolute residual 0.0053).
    nu : float
        Its degrees of freedom; infinite for normal noise.
    teacher_sd : float
        Standard deviation, in nats, of a shift shared by all students of one teacher (one ``teacher`` label, or one teacher
        loss where there is no such column).
    student_sd : float
        Standard deviation, in nats, of a shift shared by all runs of one student configuration (size and tokens).
    repeats : int
        Runs per configuration. More than one adds a column ``seed``, numbered from 0.

    Returns
    -------
    pandas.DataFrame
        A table of the kind. Distilled runs have labels ``teacher`` and ``student``, made where the design has none. ``attrs``
        holds ``kind``, ``source`` and, in ``truth``, the parameters and noise that made the runs.

    Raises
    ------
    ParameterError
        A parameter is missing or out of range, or the law gives no positive finite loss.
    DataError
        The design lacks a column.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> runs = bd.simulate_runs(bd.PUBLISHED, seed=1, sigma=0.005)
    >>> len(runs), runs.attrs["truth"]["E"], runs.attrs["truth"]["sigma"]
    (354, 1.22, 0.005)
    """
    law = _law_with(parameters) if law is None else as_law(law)
    law = law.for_runs(distilled=checked_kind(kind) == "distilled", supervised=kind == "supervised")
    missing = [name for name in law.symbols_of_law if name not in {**law.fixed, **parameters}]
    if missing:
        raise ParameterError(f"parameters lack {', '.join(missing)}; {kind} runs need {', '.join(law.symbols_of_law)}")
    truth = {name: float({**law.fixed, **parameters}[name]) for name in law.symbols_of_law}
    for parameter in law.parameters:
        if parameter.name in truth and not law.valid({parameter.name: truth[parameter.name]}):
            raise ParameterError(
                f"{parameter.name} must be {DOMAIN_WORDS[parameter.domain]}, got {truth[parameter.name]!r}."
            )
    noise = {"sigma": sigma, "nu": nu, "teacher_sd": teacher_sd, "student_sd": student_sd}
    for name, value in noise.items():
        if not value >= 0 or (name == "nu" and value == 0) or (name != "nu" and math.isinf(value)):
            raise ParameterError(
                f"{name} is {value!r}; a number {'above 0' if name == 'nu' else 'of at least 0'} is needed"
            )
    if not (isinstance(repeats, int) and repeats >= 1):
        raise ParameterError(f"repeats is {repeats!r}; an integer of at least 1 is needed")

    runs = _laid_out(published_design(kind) if design is None else design, kind, repeats)
    with np.errstate(all="ignore"):
        expected = expected_loss(Draws(law, truth), Design.of(law.with_effects(), runs, kind))[0]

    rng = np.random.default_rng(seed)
    shift = np.zeros(len(runs))
    # Every draw is made whatever its scale, so that the same seed gives the same noise with and without the shifts.
    for groups, scale in ((_teachers(runs, kind), teacher_sd), (_configurations(runs, kind), student_sd)):
        shift += scale * rng.standard_normal(int(groups.max()) + 1)[groups]
    unit = rng.standard_normal(len(runs)) if math.isinf(nu) else rng.standard_t(nu, len(runs))
    losses = expected + shift + sigma * unit
    if not np.all(np.isfinite(losses) & (losses > 0)):
        row = int(np.flatnonzero(~(np.isfinite(losses) & (losses > 0)))[0])
        raise ParameterError(
            f"these parameters give a loss of {losses[row]:.4g} in row {row + 1} of the design (the law {expected[row]:.4g}, "
            "the rest noise); use parameters nearer to PUBLISHED, or less noise"
        )

    target = KINDS[kind][-1]
    last = max(list(runs.columns).index(name) for name in KINDS[kind][:-1])
    runs.insert(last + 1, target, losses)
    runs.attrs = {"source": "simulated", "kind": kind, "truth": truth | {name: float(v) for name, v in noise.items()}}
    return runs


def _law_with(parameters: Mapping[str, float]) -> Law:
    plain = LAWS["busbridge2025"]
    known = {parameter.name for parameter in plain.parameters}
    added = [t for t in TERMS.values() if any(q.name in parameters and q.name not in known for q in t.parameters)]
    return plain.with_terms(*added)


def _laid_out(design: pd.DataFrame, kind: str, repeats: int) -> pd.DataFrame:
    """The design with labels and one row a run, without a loss of its own."""
    needed = KINDS[kind][:-1]
    missing = [name for name in needed if name not in design]
    if missing or not len(design):
        raise DataError(
            f"the design lacks {', '.join(missing) or 'rows'}; {kind} runs need the columns {', '.join(needed)}"
        )
    runs = design.drop(columns=KINDS[kind][-1], errors="ignore").reset_index(drop=True)
    if kind == "distilled":
        if "student" not in runs:
            runs["student"] = [_size_name(params) for params in runs["student_params"]]
        if "teacher" not in runs:
            rank = runs["teacher_loss"].rank(method="dense").astype(int)
            runs["teacher"] = [f"T{value:02d}" for value in rank]
    if repeats > 1:
        runs = runs.loc[runs.index.repeat(repeats)].assign(seed=np.tile(np.arange(repeats), len(runs)))
    return runs.reset_index(drop=True)


def _size_name(params: float) -> str:
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if params >= unit:
            return f"{params / unit:.4g}{letter}"
    return f"{params:g}"


def _teachers(runs: pd.DataFrame, kind: str) -> np.ndarray:
    return runs.groupby("teacher").ngroup().to_numpy() if kind == "distilled" else np.zeros(len(runs), dtype=int)


def _configurations(runs: pd.DataFrame, kind: str) -> np.ndarray:
    return runs.groupby(list(KINDS[kind][:2])).ngroup().to_numpy()
