"""The scaling law as a PyMC model: priors, law and likelihood in one place.

Student-t noise around the law. Distilled runs follow equation 8, supervised runs the supervised law, and both share the
supervised law's parameters; without supervised runs these come from the published-law prior (see `priors`). The free
variable is one standard normal vector z; coordinates = location + factor z, and the law follows from the coordinates (see
`priors.coordinates`). The paper's own symbols are deterministics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdistill.errors import ModelError
from bayesdistill.laws import (
    DISTILLATION_PARAMETERS,
    EXTENSION_PARAMETERS,
    EXTENSIONS,
    SUPERVISED_PARAMETERS,
    distilled_loss_from_terms,
    exp,
    log,
    log_student_term,
    own_scale,
    supervised_loss,
)
from bayesdistill.priors import Priors, Reference, default_priors
from bayesdistill.priors.coordinates import (
    asymptotic_leads,
    law_at_reference,
    natural_parameters,
)
from bayesdistill.shifts import EFFECT_SCALES, add_shifts, student_configurations

if TYPE_CHECKING:
    import pandas as pd
    import pymc as pm

DISTILLED_LIKELIHOOD = "student_loss"
SUPERVISED_LIKELIHOOD = "loss"


def reference_run(runs: pd.DataFrame | None, supervised: pd.DataFrame | None) -> Reference:
    """The run around which the coordinates are centred: the geometric mean of the runs given.

    Sizes, tokens and teacher losses only: the outcomes of the runs have no part in it. Rounded to two digits, so that a
    table with one run more has the same reference.
    """

    def middle(values: Any) -> float:
        return float(f"{np.exp(np.mean(np.log(np.asarray(values, dtype=float)))):.1e}")

    if runs is not None:
        return Reference(middle(runs["student_params"]), middle(runs["student_tokens"]), middle(runs["teacher_loss"]))
    if supervised is not None:
        return Reference(middle(supervised["params"]), middle(supervised["tokens"]), 1.0)
    raise ModelError("there are no runs: give distilled runs, supervised runs, or both")


def build_model(
    runs: pd.DataFrame | None = None,
    supervised: pd.DataFrame | None = None,
    *,
    priors: Priors | None = None,
    reference: Reference | None = None,
) -> pm.Model:
    """The Bayesian scaling law as a PyMC model.

    Parameters
    ----------
    runs : DataFrame, optional
        Distilled runs with columns student_params, student_tokens, teacher_loss (nats per token), student_loss (nats per
        token), as `read_runs` returns them.
    supervised : DataFrame, optional
        Supervised runs with columns params, tokens, loss (nats per token). Without them the supervised law comes from the
        prior.
    priors : Priors, optional
        By default those of `default_priors`. The coordinates they hold decide what the model has: w1, kappa, omega, effects of teacher
        and student configuration and their slopes, scatter that depends on r or D_S (see `default_priors`).
    reference : Reference, optional
        The run around which the coordinates are centred; by default `reference_run`. Priors belong to a reference.

    Returns
    -------
    pymc.Model
        Free variable `z` (coordinate); deterministics E A B alpha beta gamma, and with distilled runs A_S B_S alpha_S
        beta_S gamma_S c0 c1 d1 f1; sigma (nats) and nu; sigma_supervised where both kinds of runs are given; where asked
        for, w1, kappa, omega, sigma_teacher, sigma_student, sigma_student_slope and the effects. Observed `student_loss` (run) and
        `loss` (supervised_run). The data are `pymc.Data`, so that a compiled model can be refitted to other runs.

    Raises
    ------
    ModelError
        If there are no runs at all.

    Notes
    -----
    Busbridge et al. (2025, arXiv:2502.08606), equation 8 and the supervised scaling law.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> model = bd.build_model(bd.load_runs("busbridge2025"))
    >>> [rv.name for rv in model.free_RVs]
    ['z', 'z_student_slope', 'z_student_configuration']
    """
    import pymc as pm

    if runs is None and supervised is None:
        raise ModelError("there are no runs: give distilled runs, supervised runs, or both")
    reference = reference or reference_run(runs, supervised)
    if priors is None:
        priors = default_priors(distilled=runs is not None, supervised=supervised is not None, reference=reference)
    free = [name for name, is_free in zip(priors.names, priors.free, strict=True) if is_free]
    with pm.Model(coords={"coordinate": free}) as model:
        z = pm.Normal("z", 0.0, 1.0, dims="coordinate")
        values = priors.location + priors.factor @ z
        c = {name: values[i] for i, name in enumerate(priors.names)}
        law = law_at_reference(c, reference)
        symbols = natural_parameters(law, reference)
        for name in SUPERVISED_PARAMETERS + (DISTILLATION_PARAMETERS if runs is not None else ()):
            pm.Deterministic(name, symbols[name])
        for name in EXTENSION_PARAMETERS:
            if name in law:
                pm.Deterministic(name, law[name])
        if runs is not None and priors.asymptotic_width is not None:
            _constrain_asymptote(law, priors.asymptotic_width)
        sigma = pm.Deterministic("sigma", pm.math.exp(c["log_sigma"]))
        nu = pm.Deterministic("nu", 1 + pm.math.exp(c["log_nu"]))
        if runs is not None:
            _observe_distilled(runs, law, c, reference, sigma, nu)
        if supervised is not None:
            if "log_sigma_supervised" in c:
                sigma = pm.Deterministic("sigma_supervised", pm.math.exp(c["log_sigma_supervised"]))
            _observe_supervised(supervised, law, reference, sigma, nu)
    return model


def _supervised_loss(params: Any, tokens: Any, law: dict[str, Any], reference: Reference) -> Any:
    """The supervised law with sizes and tokens in units of the reference run."""
    rest = {name: law[name] for name in ("E", "alpha", "beta", "gamma")}
    return supervised_loss(params / reference.params, tokens / reference.tokens, A=law["A_ref"], B=law["B_ref"], **rest)


def _student_term(params: Any, tokens: Any, law: dict[str, Any], reference: Reference) -> Any:
    rest = {name: law[name] for name in ("alpha_S", "beta_S", "gamma_S")}
    return log_student_term(
        params / reference.params, tokens / reference.tokens, A_S=law["A_S_ref"], B_S=law["B_S_ref"], **rest
    )


def _constrain_asymptote(law: dict[str, Any], width: float) -> None:
    """With unlimited data distillation may lead pretraining by little: a one-sided normal prior on the lead.

    A potential, not a distribution: the lead is a function of the coordinates, whose own priors stay as they are.
    """
    import pymc as pm

    lead = asymptotic_leads(law)
    pm.Potential("asymptotic_prior", -0.5 * pm.math.sqr(pm.math.maximum(lead, 0.0) / width).mean())


def _observe_distilled(
    runs: pd.DataFrame, law: dict[str, Any], c: dict[str, Any], reference: Reference, sigma: Any, nu: Any
) -> None:
    import pymc as pm

    model = pm.modelcontext(None)
    model.add_coord("run", np.arange(len(runs)))
    for column in ("student_params", "student_tokens", "teacher_loss"):
        pm.Data(column, runs[column].to_numpy(dtype=float), dims="run")
    # The power sums depend on the student's size and tokens alone, and many runs share them.
    distinct, index = student_configurations(runs)
    of_run = pm.Data("configuration_of_run", index, dims="run")
    alone = ability = _supervised_loss(distinct[:, 0], distinct[:, 1], law, reference)
    if "kappa" in law:
        ability = _supervised_loss(distinct[:, 0], law["kappa"] * distinct[:, 1], law, reference)
    log_ability, stretch, log_above = own_scale(ability, law.get("omega", EXTENSIONS["omega"]) * law["E"])
    log_excess = _student_term(distinct[:, 0], distinct[:, 1], law, reference) - law["c0"] * log_above
    supervised = alone[of_run]
    own = log_excess[of_run], supervised, log_ability[of_run], stretch[of_run]
    rest = {name: law[name] for name in ("c0", "c1", "d1", "f1", "w1") if name in law}
    mu = distilled_loss_from_terms(*own, model["teacher_loss"], **rest)
    observed = pm.Data("student_loss_observed", runs["student_loss"].to_numpy(dtype=float), dims="run")
    scales = {kind: "log_" + scale for kind, scale in EFFECT_SCALES.items()}
    for name in ("noise_ratio", "noise_tokens"):
        if name in c:
            pm.Deterministic(name, c[name])
    sigma = sigma * scatter_factor(c, model["teacher_loss"], supervised, model["student_tokens"], reference)
    # What a run with Student-t scatter says of its middle is what a normal one with this scale says (Fisher information).
    normal = sigma * pm.math.sqrt((nu + 3) / (nu + 1))
    mu = add_shifts(runs, mu, observed, normal, {k: c[name] for k, name in scales.items() if name in c}, reference)
    pm.StudentT(DISTILLED_LIKELIHOOD, nu=nu, mu=mu, sigma=sigma, observed=observed, dims="run")


def scatter_factor(
    draws: Mapping[Any, Any], teacher_loss: Any, supervised: Any, student_tokens: Any, reference: Reference
) -> Any:
    """What the scale of the scatter is multiplied with for a run, 1 where it is the same for all.

    Parameters
    ----------
    draws : mapping
        noise_ratio and noise_tokens, where the model has them.
    teacher_loss, supervised, student_tokens : float or array
        Of the run; `supervised` is the loss of its student pretrained on the same tokens.
    reference : Reference
    """
    factor: Any = 1.0
    if "noise_ratio" in draws:
        factor = factor * exp(draws["noise_ratio"] * (log(teacher_loss) - log(supervised)) / 0.1)
    if "noise_tokens" in draws:
        factor = factor * exp(draws["noise_tokens"] * log(student_tokens / reference.tokens))
    return factor


def _observe_supervised(
    supervised: pd.DataFrame, law: dict[str, Any], reference: Reference, sigma: Any, nu: Any
) -> None:
    import pymc as pm

    model = pm.modelcontext(None)
    model.add_coord("supervised_run", np.arange(len(supervised)))
    for column in ("params", "tokens"):
        pm.Data(column, supervised[column].to_numpy(dtype=float), dims="supervised_run")
    mu = _supervised_loss(model["params"], model["tokens"], law, reference)
    observed = pm.Data("loss_observed", supervised["loss"].to_numpy(dtype=float), dims="supervised_run")
    pm.StudentT(
        SUPERVISED_LIKELIHOOD,
        nu=nu,
        mu=mu,
        sigma=sigma,
        observed=observed,
        dims="supervised_run",
    )
