r"""The PyMC model of a law: priors, law and likelihood in one place.

The free variable is one standard normal vector z. Coordinates = location + factor z; the law turns them into its symbols
(`Law.reduced_symbols`), which are deterministics. The residuals follow a Student-t distribution. Supervised runs, if there
are any, enter through the supervised law; otherwise its symbols come from the published-law prior (see `priors`).

**Sampling of group effects.** The runs of a group j share an effect, or a slope (`GroupEffect.covariate`), which is normal
with standard deviation s. Runs determine law + effect far better than either alone. If effects were sampled by themselves,
law and effects would lie on a narrow ridge, the more so the larger s is. Given the law and normal residuals, the effect would
be normal with a known mean and standard deviation. We sample the remainder in units of that standard deviation:

.. math::

    \mathrm{effect}_j = -\lambda_j m_j + s \sqrt{1 - \lambda_j}\; \mathrm{raw}_j,\qquad
    \lambda_j = \frac{s^2 n_j}{s^2 n_j + \sigma^2}

with :math:`m_j` the mean of law - observed over the :math:`n_j` runs of the group; for a slope, its least-squares slope and the
sum of squares around the mean of the axis. If the residual scale differs between runs, runs are weighted by it. The prior of raw
follows from the prior of the effect, Normal(0, s), so the posterior does not depend on :math:`\lambda`. :math:`\lambda` is near 1
(centered) for groups of many runs and 0 (non-centered) for groups of none; Papaspiliopoulos et al. (2007, Statistical Science
22, 59) describe such families with a fixed fraction.

The effects of teachers and student configurations that have runs sum to zero, and so do the :math:`\lambda m`: no common effect can
take the law's place. Otherwise the asymptotic prior would push the law up, and the effects would push the runs back. Effects of
models do not (`GroupEffect.sum_to_zero`): they are large compared with the residuals, and a law that had to pass through their mean
would be confined to a thin curved surface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdistill.arguments import checked, instance, or_none
from bayesdistill.datasets import read_measured
from bayesdistill.errors import ModelError
from bayesdistill.law import DEFAULT_LAW, UNITS, GroupEffect, Law, Reference, as_law
from bayesdistill.law.discrepancy import log_compute, path_weights, steps_between
from bayesdistill.law.effects import student_configurations
from bayesdistill.law.predictive import COLUMNS, OUTCOME, residual_scale_of, supervised_residual_scale
from bayesdistill.priors import Priors, default_priors

if TYPE_CHECKING:
    import pandas as pd
    import pymc as pm

RUN = {"distilled": "run", "supervised": "supervised_run"}
"""Dimension of the runs of a kind."""
SUPERVISED_PATH_WEIGHTS = "path_weights_supervised"
"""Data with the weights of the increments of a discrepancy in the loss of every supervised run."""
PATH_UNIT = 0.01
"""Nats in which increments are sampled, about their size, so that the sampler starts with the right scale."""


def reference_run(runs: pd.DataFrame | None, supervised: pd.DataFrame | None) -> Reference:
    """The run around which the coordinates are centered: the geometric mean of the runs.

    It depends on sizes, tokens and teacher losses only, not on the outcomes of the runs. Rounded to two digits, so that a
    table with one run more has the same reference.
    """

    def middle(values: Any) -> float:
        return float(f"{np.exp(np.mean(np.log(np.asarray(values, dtype=float)))):.1e}")

    if runs is not None:
        return Reference(middle(runs["student_params"]), middle(runs["student_tokens"]), middle(runs["teacher_loss"]))
    if supervised is not None:
        return Reference(middle(supervised["params"]), middle(supervised["tokens"]), 1.0)
    raise ModelError("There are no runs. Pass distilled runs, supervised runs, or both.")


@checked(priors=or_none(instance(Priors)), reference=or_none(instance(Reference)))
def build_model(
    runs: pd.DataFrame | None = None,
    supervised: pd.DataFrame | None = None,
    *,
    law: Law | str = DEFAULT_LAW,
    priors: Priors | None = None,
    reference: Reference | None = None,
) -> pm.Model:
    """Build the PyMC model of a law.

    Parameters
    ----------
    runs : DataFrame, optional
        Distilled runs with columns student_params, student_tokens, teacher_loss (nats per token), student_loss (nats per
        token), as `read_runs` returns them.
    supervised : DataFrame, optional
        Supervised runs with columns params, tokens, loss (nats per token). Without them the supervised law comes from the
        prior.
    law : Law or str
        A law or a name in `LAWS`; unused if `priors` are given, which belong to a law.
    priors : Priors, optional
        By default `default_priors`.
    reference : Reference, optional
        The run around which the coordinates are centered; by default `reference_run`. Priors belong to a reference.

    Returns
    -------
    pymc.Model
        Free variables `z` (coordinate), the increments of discrepancies and the remainders of group effects. Deterministics: the
        symbols of the law that are not fixed, among them sigma (nats) and nu, the discrepancies and the group effects. Observed
        `student_loss` (run) and `loss` (supervised_run). The data are `pymc.Data`, so that a compiled model can be refitted to
        other runs.

    Raises
    ------
    DataError
        If a table is invalid.
    ModelError
        If there are no runs, or a term of the law depends on the units of sizes and tokens.

    Notes
    -----
    Busbridge et al. (2025, arXiv:2502.08606), equation 8 and the supervised scaling law.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> model = bd.build_model(bd.load_runs("busbridge2025"))
    >>> [rv.name for rv in model.free_RVs]
    ['z', 'z_path_shared', 'z_path_distilled', 'z_student_slope', 'z_student_configuration']
    """
    import pymc as pm

    runs = None if runs is None else read_measured(runs, "distilled")
    supervised = None if supervised is None else read_measured(supervised, "supervised")
    reference = reference or reference_run(runs, supervised)
    if priors is None:
        law = as_law(law).for_tables(runs, supervised)
        priors = default_priors(law, reference)
    law = priors.law
    _check_units(law, priors, reference)
    free = [name for name, is_free in zip(priors.names, priors.free, strict=True) if is_free]
    with pm.Model(coords={"coordinate": free}) as model:
        z = pm.Normal("z", 0.0, 1.0, dims="coordinate")
        values = priors.location + priors.factor @ z
        c = {name: values[i] for i, name in enumerate(priors.names)}
        reduced = law.reduced_symbols(c, reference)
        symbols = law.rescaled(reduced, reference)
        scales = {effect.scale.name for effect in law.effects}
        for parameter in law.parameters:
            # Fixed extensions have no variable: ArviZ's diagnostics divide by the variance of every variable.
            fixed = parameter.name in law.fixed and parameter.neutral is not None
            if not fixed and parameter.name not in scales:
                pm.Deterministic(parameter.name, symbols[parameter.name])
        _add_paths(law, reduced, run_positions(runs, supervised, reference))
        if runs is not None:
            for statement, width in priors.theory.items():
                # A potential: the advantage is a function of the coordinates, whose own priors stay as they are.
                pm.Potential(f"{statement.name}_prior", statement.log_density(law, reduced, reference, width))
            _observe_distilled(runs, law, reduced, reference)
        if supervised is not None:
            _observe_supervised(supervised, law, reduced, reference)
    return model


def _add_paths(law: Law, p: dict[str, Any], positions: np.ndarray) -> None:
    """Add the increments of the discrepancies, (step,), to the PyMC model of the context.

    Distilled runs determine the sum of two paths and hardly anything determines their difference. We sample two
    combinations of the paths, a rotation: the sum in nats, which the runs determine independently of the scales, and the
    combination that is independent of the sum, in units of its standard deviation.

    Parameters
    ----------
    law : Law
    p : dict
        Symbols.
    positions : ndarray, (run,)
        Where the paths are evaluated.
    """
    import pymc as pm

    if not law.discrepancy:
        return
    pm.modelcontext(None).add_coord("step", steps_between(positions))
    scales = [p[one.scale] for one in law.discrepancy]
    length = pm.math.sqrt(sum(scale**2 for scale in scales))
    nats = law.misfit_scale(p) * length
    first, *rest = law.discrepancy
    found = [pm.Normal(f"z_{first.variable}", 0.0, nats / PATH_UNIT, dims="step") * PATH_UNIT / nats]
    if rest:
        (a, b), (total,), other = scales, found, pm.Normal(f"z_{rest[0].variable}", 0.0, 1.0, dims="step")
        found = [(a * total + b * other) / length, (b * total - a * other) / length]
    for one, value in zip(law.discrepancy, found, strict=True):
        pm.Deterministic(one.variable, value, dims="step")


def run_position(table: pd.DataFrame, kind: str, reference: Reference) -> np.ndarray:
    """Return where the discrepancy of every run of a kind is evaluated, (run,)."""
    params, tokens, *_ = (table[name].to_numpy(dtype=float) for name in COLUMNS[kind])
    return log_compute(params, tokens, reference)


def run_positions(runs: pd.DataFrame | None, supervised: pd.DataFrame | None, reference: Reference) -> np.ndarray:
    """Return where the discrepancy of all runs is evaluated, (run,)."""
    tables = (("distilled", runs), ("supervised", supervised))
    return np.concatenate([run_position(table, kind, reference) for kind, table in tables if table is not None])


def _check_units(law: Law, priors: Priors, reference: Reference) -> None:
    """Reject a term whose formula gives another loss in units of the reference run."""
    if not law.distills:
        return
    with np.errstate(all="ignore"):
        # Away from the location, at which new terms have no effect by custom.
        values = priors.location + priors.factor @ np.full(priors.factor.shape[1], 0.3)
        reduced = law.reduced_symbols(dict(zip(priors.names, values, strict=True)), reference)
        p = law.rescaled(reduced, reference)
        size, tokens = 2 * reference.params, 3 * reference.tokens
        students = (
            (law.student(size, tokens, reduced, reference), reduced),
            (law.student(2.0, 3.0, reduced), reduced),
            (law.student(size, tokens, p), p),
        )
        losses = [law.distilled_loss(student, 1.1 * reference.teacher_loss, symbols) for student, symbols in students]
    if np.isfinite(losses).all() and not np.allclose(losses, losses[0], rtol=1e-6, atol=0):
        names = ", ".join(term.name for term in law.terms)
        raise ModelError(
            f"A term of the law {law.name!r} ({names}) gives {min(losses):.6g} to {max(losses):.6g} nats for the same run "
            "in different units of sizes and tokens. Declare `per` for its coefficients; the slot "
            "`ability_tokens` must return a multiple of the tokens."
        )


def _observe_distilled(runs: pd.DataFrame, law: Law, p: dict[str, Any], reference: Reference) -> None:
    import pymc as pm
    import pytensor.tensor as pt

    model = _with_design(runs, "distilled")
    # The power sums depend on the student's size and tokens alone, and many runs share them.
    distinct, index = student_configurations(runs)
    of_run = pm.Data("configuration_of_run", index, dims="run")
    student = law.student(distinct[:, 0], distinct[:, 1], p, reference)
    student = student.map(lambda values: pt.as_tensor_variable(values)[of_run])
    teacher_loss = model["teacher_loss"]
    mu = law.distilled_loss(student, teacher_loss, p)
    # Sizes of `student` are in units of the reference run.
    sigma = residual_scale_of(law, student, teacher_loss, p, UNITS)
    _observe(runs, law, "distilled", mu, sigma, p, reference)


def _observe_supervised(supervised: pd.DataFrame, law: Law, p: dict[str, Any], reference: Reference) -> None:
    model = _with_design(supervised, "supervised")
    mu = law.supervised_loss(model["params"] / reference.params, model["tokens"] / reference.tokens, p)
    _observe(supervised, law, "supervised", mu, supervised_residual_scale(law, mu, p, UNITS), p, reference)


def _with_design(table: pd.DataFrame, kind: str) -> pm.Model:
    """Add the columns of a table of runs to the PyMC model of the context, and return it."""
    import pymc as pm

    model = pm.modelcontext(None)
    model.add_coord(RUN[kind], np.arange(len(table)))
    for column in COLUMNS[kind]:
        pm.Data(column, table[column].to_numpy(dtype=float), dims=RUN[kind])
    return model


def _observe(
    table: pd.DataFrame, law: Law, kind: str, mu: Any, sigma: Any, p: dict[str, Any], reference: Reference
) -> None:
    """Add discrepancy, group effects and likelihood of the runs of a kind, in the PyMC model of the context."""
    import pymc as pm

    model = pm.modelcontext(None)
    outcome = OUTCOME[kind]
    observed = pm.Data(f"{outcome}_observed", table[outcome].to_numpy(dtype=float), dims=RUN[kind])
    own = [one for one in law.discrepancy if kind in one.kinds]
    if own:
        total = sum(p[one.scale] * model[one.variable] for one in own)
        mu += law.misfit_scale(p) * _path_at_runs(table, kind, total, reference)
    # A run with a Student-t residual carries as much information about its mean as a normal one with this scale.
    normal = sigma * pm.math.sqrt((p["nu"] + 3) / (p["nu"] + 1))
    # Each effect is sampled given the law and the effects before it.
    for effect in sorted(law.effects, key=lambda effect: not effect.slope):
        if effect.kind != kind:
            continue
        labels, index = effect.groups(table)
        model.add_coord(effect.dim, labels)
        of_run = model[effect.index] if effect.index in model else pm.Data(effect.index, index, dims=RUN[kind])
        axis = effect.covariate(model[COLUMNS[kind][-1]], reference) if effect.slope else None
        values = _group_effects(effect, len(labels), of_run, p, normal, mu - observed, axis)[of_run]
        mu += values if axis is None else values * axis
    pm.StudentT(outcome, nu=p["nu"], mu=mu, sigma=sigma, observed=observed, dims=RUN[kind])


def _path_at_runs(table: pd.DataFrame, kind: str, increments: Any, reference: Reference) -> Any:
    """Return the values of a path with these increments at the runs of a kind, (run,)."""
    import pymc as pm

    model = pm.modelcontext(None)
    steps = np.asarray(model.coords["step"])
    if kind == "distilled":
        # The path depends on the student's configuration, which many runs share.
        distinct, _ = student_configurations(table)
        weights = path_weights(log_compute(distinct[:, 0], distinct[:, 1], reference), steps)
        return pm.math.dot(weights, increments)[model["configuration_of_run"]]
    weights = path_weights(run_position(table, kind, reference), steps)
    return pm.Data(SUPERVISED_PATH_WEIGHTS, weights, dims=(RUN[kind], "step")) @ increments


def _group_effects(
    effect: GroupEffect, groups: int, of_run: Any, p: dict[str, Any], sigma: Any, miss: Any, axis: Any | None
) -> Any:
    """Effects or slopes of the groups in nats, (group,).

    Parameters
    ----------
    effect : GroupEffect
    groups : int
    of_run : tensor of int, (run,)
    p : dict
        Symbols; the effect's standard deviation among them.
    sigma : tensor, scalar or (run,)
        Standard deviation of normal residuals that would carry as much information as the runs' own.
    miss : tensor, (run,)
        By how much the law and earlier effects exceed the observed losses.
    axis : tensor, (run,), or None
        Covariate of slopes.
    """
    import pymc as pm
    import pytensor.tensor as pt

    def total(of_runs: Any) -> Any:
        return pt.inc_subtensor(pt.zeros(groups)[of_run], of_runs)

    scale = pm.Deterministic(effect.scale.name, p[effect.scale.name])
    # Taken from the data that the model holds now, because refits leave groups out.
    seen = pm.math.minimum(total(1.0), 1.0)
    weight = 1 / pm.math.sqr(sigma)
    known = total(weight)
    if axis is None:
        level = total(weight * miss)
    else:
        away = axis - (total(weight * axis) / pm.math.maximum(known, 1e-300))[of_run]
        known, level = total(weight * pm.math.sqr(away)), total(weight * away * miss)
    square = pm.math.sqr(scale)
    left = 1 / (1 + square * known)  # 1 - lambda
    level = square * left * level  # lambda m
    wide = scale * pm.math.sqrt(left)
    if not effect.sum_to_zero:
        raw = pm.Normal(effect.raw, level / wide, 1 / pm.math.sqrt(left), dims=effect.dim)
        return pm.Deterministic(effect.variable.name, wide * raw - level, dims=effect.dim)
    count = seen.sum()
    level -= seen * (level.sum() / count)
    raw = pm.Normal(effect.raw, 0.0, 1.0, dims=effect.dim)
    free = wide * raw - level
    mean = (seen * free).sum() / count
    values = free - seen * mean
    # The runs do not depend on the mean: any distribution of it gives the same posterior. In this one it is as wide as the remainders
    # that the runs determine.
    narrow = (seen * pm.math.sqr(wide)).sum() / count
    log_density = -0.5 * pm.math.sqr(values).sum() / square - (groups - 1) * pm.math.log(scale)
    log_density -= 0.5 * count * pm.math.sqr(mean) / narrow + 0.5 * pm.math.log(narrow)
    log_density += pm.math.log(wide).sum()  # from effects to remainders
    pm.Potential(f"{effect.raw}_prior", log_density + 0.5 * pm.math.sqr(raw).sum())
    return pm.Deterministic(effect.variable.name, values, dims=effect.dim)
