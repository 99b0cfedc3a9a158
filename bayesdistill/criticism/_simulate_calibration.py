"""Simulation-based calibration of the posterior and of its decisions.

Each simulation draws true parameters from the prior, simulates runs at the design of real runs, fits the model to them, and
computes the rank of the truth among the posterior draws. If the sampler and the model are implemented correctly, the ranks of
every quantity are uniform (Talts et al. 2018, arXiv:1804.06788). Decisions are calibrated if distillation wins in a fraction p of
the simulations in which its posterior probability of winning is p.

Calibration does not test whether the law describes real runs. Use `leave_out` and `posterior_predictive` for this.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import posterior
from bayesdistill.arguments import SAMPLED, checked, instance, or_none
from bayesdistill.criticism import truths
from bayesdistill.criticism.refits import digest, refit_until_converged, refitter_for
from bayesdistill.criticism.results import dataset
from bayesdistill.criticism.tasks import run_missing
from bayesdistill.datasets import hash_of, read_design
from bayesdistill.errors import ParameterError
from bayesdistill.law import DEFAULT_LAW, Law, as_law
from bayesdistill.law.discrepancy import STEPS, log_compute, steps_between
from bayesdistill.law.effects import student_configurations
from bayesdistill.law.predictive import Design, Deviations, expected_loss, group_effects, logpdf, residual_scale
from bayesdistill.model import reference_run
from bayesdistill.posterior import ConvergenceThresholds
from bayesdistill.priors import Priors, default_priors
from bayesdistill.progress import Progress

RANKS = 99
"""Number of thinned posterior draws among which the truth is ranked; ranks range from 0 to this number."""

CALIBRATION_THRESHOLDS = ConvergenceThresholds(
    max_rhat=1.05, min_ess_bulk=100, min_ess_tail=100, max_divergences=0, max_treedepth_share=1, min_bfmi=0
)
"""Convergence thresholds of a refit. They are looser than the defaults, because only 99 draws are used. Ranks among 99 draws
require as many effective draws: with 25, ranks at both ends are a third too frequent even if the posterior is correct, with 100
they are not."""

LONGER = {"draws": 4, "tune": 2}
"""Factors by which draws and tuning draws increase if a refit fails the convergence checks."""
MAX_TREEDEPTH = 8
"""Maximum tree depth. The posteriors of some prior draws would take minutes to sample. With shorter trajectories, these refits fail
the convergence checks and are counted as failed, in a time that allows hundreds of simulations."""
LONGER_ACCEPT = 0.95
"""Target acceptance rate of the second refit if the first one had divergences."""

ATTEMPT = ("failed", "rhat", "rhat_variable", "ess_bulk", "divergences")
CHOICES = [*truths.DECISIONS, *truths.BREAK_EVEN]

STATUSES = ("passed", "passed when refitted", "failed")


@checked(draws=SAMPLED, priors=or_none(instance(Priors)), thresholds=instance(ConvergenceThresholds))
def simulate_calibration(
    runs: pd.DataFrame,
    *,
    simulations: int = 200,
    law: Law | str = DEFAULT_LAW,
    priors: Priors | None = None,
    draws: int = 500,
    tune: int = 700,
    chains: int = 2,
    seed: int = 0,
    thresholds: ConvergenceThresholds = CALIBRATION_THRESHOLDS,
    log: str | Path | None = None,
    progress: Progress = None,
    executor: Executor | None = None,
) -> xr.Dataset:
    """Run simulation-based calibration of the posterior and of decisions.

    Parameters
    ----------
    runs : DataFrame
        Distilled runs. Only their design (sizes, tokens, teachers) is used.
    simulations : int
        Number of simulations.
    law : Law or str
        A law or a name in `LAWS`. Ignored if `priors` are given, because they belong to a law.
    priors : Priors, optional
        Replace the default priors; centered at `model.reference_run(runs, None)`. With priors from an earlier fit, the truths
        are drawn from its posterior.
    draws, tune, chains, seed : int
        Sampler settings of each refit.
    thresholds : ConvergenceThresholds
        Convergence thresholds of a refit; `min_ess_bulk` also applies to the ranked quantities. A refit that fails is repeated once
        with four times as many draws and twice as many tuning draws and, after divergences, with a target acceptance rate of 0.95.
        If it fails again, its status is "failed".
    log : path, optional
        File with one line per finished simulation. A later call with the same seed, settings and design resumes from it, also with
        more simulations; other settings are an error.
    progress : bool or callable, optional
        A callable is called with (simulations done, total). By default, a progress bar in a terminal or notebook.
    executor : concurrent.futures.Executor, optional
        Runs the refits; use `client.get_executor()` for a Dask cluster. Each worker compiles the model once. By default, refits
        run sequentially in this process. The results are the same.

    Returns
    -------
    Dataset
        Over simulation: `status` (passed, passed when refitted, failed), `rhat`, `ess_bulk`, `ess_ranked` (the smallest of the
        ranked quantities) and `divergences` of the last refit, `first_rhat` and `first_divergences` of the first one. Over
        simulation and quantity: `rank` of the truth among 99 draws. Over simulation and decision: `probability` (that distillation
        wins) and `won`, for four fixed decisions and three near the break-even point of the posterior, with the discrepancy and the
        group effects of a new student (noise="expected" in plans). Quantities: every parameter, every coordinate `z[...]`, group
        effects, increments of the paths of discrepancies, the gains of the decisions in nats (of the mean curves, and expected
        gains with discrepancy and group effects), and the log-likelihood.

    Raises
    ------
    DataError
        If the table of runs is invalid, or the log is not a log of this package, is damaged, or has other settings.
    FileError
        If the log cannot be written.
    ModelError
        If almost no prior draws satisfy the asymptotic prior.
    ParameterError
        If an argument is out of range.

    Notes
    -----
    Whether a refit passes the checks depends only on the simulated runs, so the ranks of the passed refits are also uniform if
    the implementation is correct (Modrák et al. 2023, arXiv:2211.02383, who also propose the log-likelihood as a quantity).
    `rank_uniformity` and the other summaries use the passed refits and report their number.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> runs = bd.load_runs("busbridge2025")
    >>> calibration = bd.simulate_calibration(runs, simulations=200, log="calibration.jsonl")  # doctest: +SKIP
    """
    if draws * chains < RANKS + 1:
        raise ParameterError(
            f"`draws` times `chains` must be more than {RANKS} to compute ranks, got {draws * chains}."
        )
    runs = read_design(runs, kind="distilled")
    reference = reference_run(runs, None)
    if priors is None:
        priors = default_priors(as_law(law).for_tables(runs, None), reference)
    design = runs.assign(student_loss=1.0)  # the outcomes are not used
    runs = runs if "student_loss" in runs else runs.assign(student_loss=runs["teacher_loss"])
    sampler = {"draws": draws, "tune": tune, "chains": chains, "maxdepth": MAX_TREEDEPTH}
    setting = {
        "function": "simulate_calibration",
        "runs": hash_of(design),
        "law and priors": digest(priors),
        **sampler,
    }
    setting |= {"seed": seed, "decisions": CHOICES, **asdict(thresholds)}
    cores = 2 if executor is None else 1
    tasks = {
        str(k): (runs, priors, truth, sampler | {"cores": cores, "seed": (seed + 1 + k) % 2**64}, thresholds)
        for k, truth in enumerate(truths.draw_truths(priors, reference, simulations, seed))
    }
    done = run_missing(_simulation, tasks, setting, "simulations", log=log, executor=executor, progress=progress)
    return _collect(list(done.values()))


def _simulation(task: tuple[Any, ...]) -> dict[str, Any]:
    runs, priors, truth, sampler, thresholds = task
    seed = sampler["seed"]
    refitter = refitter_for(runs, priors)
    true_law = truths.draws_of_truth(truth, priors.law, refitter.reference)
    outcome, true_effects = truths.simulate_outcomes(true_law, runs, np.random.default_rng(seed))
    ranked: dict[str, np.ndarray] = {}

    def too_few_effective_draws(tree: xr.DataTree) -> list[str]:
        z = posterior.posterior_dataset(tree)["z"].values.reshape(-1, truth["z"].size)
        ranked.update(_quantities(runs, _new_pairs(tree, seed), posterior.effects_of(tree), z, priors, outcome))
        ranked_ess.append(_smallest_ess(ranked, sampler["chains"]))
        return ["ess_ranked"] if ranked_ess[-1] < thresholds.min_ess_bulk else []

    ranked_ess: list[float] = []
    # Without divergences, shorter steps only take longer.
    tree, attempts = refit_until_converged(
        refitter,
        sampler,
        thresholds,
        longer=LONGER,
        accept=LONGER_ACCEPT,
        further=too_few_effective_draws,
        student_loss=outcome,
    )
    pairs = _new_pairs(tree, seed)
    draws, own = pairs.draws, int(np.random.default_rng([seed, 2]).integers(2**63))
    true_pair = Deviations.draw(truths.like_fitted(true_law, draws), own, "expected")
    thin = np.linspace(0, draws.n_draws - 1, RANKS).round().astype(int)
    found = {name: values[thin] for name, values in ranked.items()}
    true = _quantities(runs, true_pair, true_effects, truth["z"][None], priors, outcome)
    gains, true_gains = truths.decision_gains(pairs), truths.decision_gains(true_pair)
    one = int(np.random.default_rng([seed, 1]).integers(draws.n_draws))
    for name in truths.BREAK_EVEN:
        tokens = truths.break_even_tokens(draws.take([one]), name)
        # The tokens depend on the picked draw: the mean curves of both losses are equal there. It is excluded.
        gains[name] = np.delete(truths.break_even_gain(pairs, name, tokens), one)
        true_gains[name] = truths.break_even_gain(true_pair, name, tokens)
    return {
        "rank": {name: int((values < true[name]).sum()) for name, values in found.items()},
        "attempts": [
            {name: attempt[name] for name in ATTEMPT} | {"ess_ranked": ess}
            for attempt, ess in zip(attempts, ranked_ess, strict=True)
        ],
        "probability": {name: float((gains[name] > 0).mean()) for name in CHOICES},
        "won": {name: bool(true_gains[name] > 0) for name in CHOICES},
    }


def _new_pairs(tree: xr.DataTree, seed: int) -> Deviations:
    """Return the deviations of new pairs of runs, with a discrepancy outside the data that differs between simulations."""
    return Deviations.draw(posterior.draws_of(tree, seed=seed), seed, "expected")


def _smallest_ess(values: dict[str, np.ndarray], chains: int) -> float:
    """Return the smallest bulk effective sample size of quantities, (n_draws,) each; 0 if one is undefined."""
    from arviz_stats.base import array_stats

    stacked = np.stack([one.reshape(chains, -1) for one in values.values()])
    moving = stacked[(stacked != stacked[:, :1, :1]).any(axis=(-2, -1))]
    with np.errstate(invalid="ignore", divide="ignore"):
        ess = array_stats.ess(moving, chain_axis=-2, draw_axis=-1, method="bulk")
    return float(np.nan_to_num(np.min(ess)))


def _quantities(
    runs: pd.DataFrame,
    pairs: Deviations,
    effects: dict[str, np.ndarray],
    z: np.ndarray,
    priors: Priors,
    outcome: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return every quantity that is ranked, at every draw or at the truth, (n_draws,)."""
    law, draws, design = priors.law, pairs.draws, Design.of(priors.law, runs)
    free = [name for name, is_free in zip(priors.names, priors.free, strict=True) if is_free]
    # Symbols that are fixed or determined by others have no rank.
    idle = {*law.fixed, *(name for term in law.terms for name in term.determines)}
    idle |= {name.removeprefix("log_") for name in priors.names if name not in free}
    found = {name: values for name, values in draws.items() if name not in idle}
    found |= {f"z[{name}]": z[:, i] for i, name in enumerate(free)}
    configurations = [f"{n:.4g}, {d:.4g}" for n, d in student_configurations(runs)[0]]
    for effect in law.effects:
        if effect.name in effects:
            labels = configurations if effect.dim == "student_configuration" else effect.groups(runs)[0]
            of_groups = zip(labels, effects[effect.name].T, strict=True)
            found |= {f"{effect.variable.name}[{label}]": values for label, values in of_groups}
    if draws.paths is not None:
        for k in steps_between(log_compute(design.params, design.tokens, draws.reference)):
            for one in law.discrepancy:
                found[f"{one.variable}[{k}]"] = draws.paths.increments[one.name][:, k - STEPS[0]]
    for title, source in (("gain", draws), ("expected gain", pairs)):
        found |= {f"{title}: {name}": gain for name, gain in truths.decision_gains(source).items()}
    center = expected_loss(draws, design) + group_effects(draws, design, effects)
    density = logpdf(outcome, center, residual_scale(draws, design), draws["nu"][:, None])
    return found | {"log-likelihood": np.asarray(density.sum(axis=1))}


def _collect(results: list[dict[str, Any]]) -> xr.Dataset:
    last, first = ([result["attempts"][i] for result in results] for i in (-1, 0))
    passed = [STATUSES[len(result["attempts"]) - 1] for result in results]
    status = np.array([word if not end["failed"] else "failed" for word, end in zip(passed, last, strict=True)])
    values: dict[str, Any] = {
        name: pd.DataFrame([result[name] for result in results]) for name in ("rank", "probability", "won")
    }
    # R-hat is None if a chain did not move or a draw is NaN.
    values |= {name: np.array([end[name] for end in last], dtype=float) for name in ("rhat", "ess_bulk", "ess_ranked")}
    values |= {"status": status, "divergences": [end["divergences"] for end in last]}
    values["first_rhat"] = np.array([start["rhat"] for start in first], dtype=float)
    values["first_divergences"] = [start["divergences"] for start in first]
    coords = {"simulation": np.arange(len(results)), "quantity": list(results[0]["rank"]), "decision": CHOICES}
    counts = {name.replace(" ", "_"): int((status == name).sum()) for name in STATUSES}
    return dataset("simulate_calibration", values, coords, {"ranks": RANKS, **counts})
