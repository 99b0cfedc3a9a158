"""Simulate runs from a law with known parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from bayesdistill.arguments import Range, checked, generator, instance
from bayesdistill.datasets._load_runs import load_runs
from bayesdistill.datasets._read_runs import read_design
from bayesdistill.datasets.schemas import KINDS, checked_kind
from bayesdistill.errors import ParameterError
from bayesdistill.law import LAWS, TERMS, Draws, Law, as_law
from bayesdistill.law.parameters import DOMAIN_WORDS
from bayesdistill.law.predictive import Design, expected_loss, standard_residuals


def published_design(kind: str = "distilled") -> pd.DataFrame:
    """Return the design of the published runs, without outcomes.

    Parameters
    ----------
    kind : {"distilled", "supervised"}
        Distilled: the 354 configurations of `load_runs`. Supervised: the paper does not list its runs, so the design has eight
        of its model sizes (196608 n^3 parameters for n layers of aspect ratio 128; 143M to 12.6B) at 20, 40, 80 and 160 tokens
        per parameter.

    Returns
    -------
    pandas.DataFrame
        The columns of the kind without the outcome. Distilled designs also have their labels.
    """
    if checked_kind(kind) == "distilled":
        return load_runs("busbridge2025").drop(columns="student_loss")
    sizes = [196608.0 * layers**3 for layers in (9, 10, 14, 17, 21, 29, 34, 40)]
    grid = [(params, ratio * params) for params in sizes for ratio in (20, 40, 80, 160)]
    return pd.DataFrame(grid, columns=["params", "tokens"])


@checked(parameters=instance(Mapping), seed=generator, nu=Range(0, math.inf, above=True))
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
        Symbols of the law, for example `PUBLISHED`. Supervised runs only require the first six. Other entries are ignored; group
        effects and residual noise have their own arguments.
    seed : int or numpy.random.Generator
        Random seed or generator.
    law : Law or str, optional
        By default, equation 8 with the terms of the package whose symbols are in `parameters` (w1, kappa, omega).
    kind : {"distilled", "supervised"}
        Kind of runs. For a joint fit, simulate both kinds with the same parameters.
    design : pandas.DataFrame, optional
        One row per configuration: ``student_params student_tokens teacher_loss`` or ``params tokens``. Other columns are kept.
        By default `published_design`.
    sigma : float
        Scale of the Student-t residual noise in nats per token. The default is close to the residual scale of the published
        law at the published runs (median absolute residual 0.0053).
    nu : float
        Degrees of freedom of the residual noise; infinite for normal noise.
    teacher_sd : float
        Standard deviation in nats of the teacher effects. Runs share a teacher if they have the same ``teacher`` label or,
        without labels, the same teacher loss.
    student_sd : float
        Standard deviation in nats of the effects of student configurations (size and tokens).
    repeats : int
        Number of runs per configuration. If it is more than one, the table has a column ``seed``, numbered from 0.

    Returns
    -------
    pandas.DataFrame
        Simulated runs. Distilled runs have labels ``teacher`` and ``student``, which are added if the design has none. ``attrs``
        contains ``kind``, ``source`` and the true parameters and noise (``truth``).

    Raises
    ------
    ParameterError
        If a parameter is missing or out of range, or a simulated loss is not positive and finite.
    DataError
        If the design has no rows or lacks a column.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> runs = bd.simulate_runs(bd.PUBLISHED, seed=1, sigma=0.005)
    >>> len(runs), runs.attrs["truth"]["E"], runs.attrs["truth"]["sigma"]
    (354, 1.22, 0.005)
    """
    law = _law_with(parameters) if law is None else as_law(law)
    law = law.for_runs(distilled=checked_kind(kind) == "distilled", supervised=kind == "supervised")
    known = {**law.fixed, **parameters}
    missing = [name for name in law.symbols_of_law if name not in known]
    if missing:
        raise ParameterError(
            f"`parameters` must contain {', '.join(missing)}. The law of {kind} runs has {', '.join(law.symbols_of_law)}."
        )
    truth = {name: float(Range()(known[name], name)) for name in law.symbols_of_law}
    for parameter in law.parameters:
        if parameter.name in truth and not law.valid({parameter.name: truth[parameter.name]}):
            raise ParameterError(
                f"{parameter.name} must be {DOMAIN_WORDS[parameter.domain]}, got {truth[parameter.name]!r}."
            )
    noise = {"sigma": sigma, "nu": nu, "teacher_sd": teacher_sd, "student_sd": student_sd}

    runs = _laid_out(published_design(kind) if design is None else design, kind, repeats)
    with np.errstate(all="ignore"):
        expected = expected_loss(Draws(law, truth), Design.of(law.with_effects(), runs, kind))[0]

    rng = np.random.default_rng(seed)
    effects = np.zeros(len(runs))
    # Draw all random numbers for any scale, so that the noise of a seed does not depend on the group effects.
    teacher = ["teacher"] if kind == "distilled" else np.zeros(len(runs))
    for labels, scale in ((teacher, teacher_sd), (list(KINDS[kind][:2]), student_sd)):
        groups = runs.groupby(labels).ngroup().to_numpy()
        effects += scale * rng.standard_normal(int(groups.max()) + 1)[groups]
    losses = expected + effects + sigma * standard_residuals(nu, (len(runs),), rng)
    wrong = np.flatnonzero(~(np.isfinite(losses) & (losses > 0)))
    if wrong.size:
        row = int(wrong[0])
        raise ParameterError(
            f"The simulated loss in row {row + 1} of the design is {losses[row]:.4g} (expected loss {expected[row]:.4g}), but it "
            "must be positive and finite. Use parameters closer to PUBLISHED, or less noise."
        )
    *inputs, target = KINDS[kind]
    runs.insert(max(list(runs.columns).index(name) for name in inputs) + 1, target, losses)
    allowed = runs.attrs.get("allow_suspicious") is True
    runs.attrs = {"source": "simulated", "kind": kind, "truth": truth | {name: float(v) for name, v in noise.items()}}
    if allowed:
        runs.attrs["allow_suspicious"] = True
    return runs


def _law_with(parameters: Mapping[str, float]) -> Law:
    plain = LAWS["busbridge2025"]
    known = {parameter.name for parameter in plain.parameters}
    added = [t for t in TERMS.values() if any(q.name in parameters and q.name not in known for q in t.parameters)]
    return plain.with_terms(*added)


def _laid_out(design: pd.DataFrame, kind: str, repeats: int) -> pd.DataFrame:
    """Return the design with labels and one row per run, without the outcome."""
    target = KINDS[kind][-1]
    # Outcomes of the design are not used, so they may be missing.
    runs = design.loc[:, [name != target for name in design.columns]] if isinstance(design, pd.DataFrame) else design
    runs = read_design(runs, kind).drop(columns=target, errors="ignore")
    if kind == "distilled":
        if "student" not in runs:
            runs["student"] = runs["student_params"].map(_size_name)
        if "teacher" not in runs:
            runs["teacher"] = runs["teacher_loss"].rank(method="dense").astype(int).map("T{:02d}".format)
    if repeats > 1:
        runs = runs.loc[runs.index.repeat(repeats)].assign(seed=np.tile(np.arange(repeats), len(runs)))
    return runs.reset_index(drop=True)


def _size_name(params: float) -> str:
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if params >= unit:
            return f"{params / unit:.4g}{letter}"
    return f"{params:g}"
