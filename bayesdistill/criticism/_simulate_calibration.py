"""Simulation-based calibration of the posterior and of its decisions.

Each simulation draws true parameters from the prior, simulates runs at the design of real runs, fits the model to them, and
computes the rank of the truth among the posterior draws. If the sampler and the model are implemented correctly, the ranks of
every quantity are uniform (Talts et al. 2018, arXiv:1804.06788). Decisions are calibrated if distillation wins in a fraction p of
the simulations in which its posterior probability of winning is p.

Calibration does not test whether the law describes real runs. Use `leave_out` and `posterior_predictive` for this.
"""

from __future__ import annotations

import json
from concurrent.futures import Executor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import posterior
from bayesdistill.criticism.refits import Refitter, refit, refitter_for
from bayesdistill.criticism.tasks import run_tasks
from bayesdistill.criticism.truths import (
    BREAK_EVEN,
    DECISIONS,
    break_even_gain,
    break_even_tokens,
    decision_gains,
    draw_truths,
    draws_of_truth,
    simulate_outcomes,
)
from bayesdistill.datasets import data_hash
from bayesdistill.errors import DataError, ParameterError
from bayesdistill.law import DEFAULT_LAW, Draws, Law, as_law
from bayesdistill.law.effects import student_configurations
from bayesdistill.law.predictive import Design, expected_loss, group_effects, logpdf, residual_scale
from bayesdistill.model import reference_run
from bayesdistill.posterior import ConvergenceThresholds
from bayesdistill.priors import Priors, default_priors
from bayesdistill.progress import Progress

RANKS = 99
"""Number of thinned posterior draws among which the truth is ranked; ranks range from 0 to this number."""

CALIBRATION_THRESHOLDS = ConvergenceThresholds(
    max_rhat=1.05, min_ess_bulk=50, min_ess_tail=0, max_divergences=0, max_treedepth_share=1, min_bfmi=0
)
"""Convergence thresholds of a refit. They are looser than the defaults, because only 99 draws are used."""

LONGER = {"draws": 4, "tune": 2}
"""Factors by which draws and tuning draws increase if a refit fails the convergence checks."""
MAX_TREEDEPTH = 8
"""Maximum tree depth. The posteriors of some prior draws would take minutes to sample. With shorter trajectories, these refits fail
the convergence checks and are counted as failed, in a time that allows hundreds of simulations."""
LONGER_ACCEPT = 0.95
"""Target acceptance rate of the second refit if the first one had divergences."""

CHOICES = [*DECISIONS, *BREAK_EVEN]

STATUSES = ("passed", "passed when refitted", "failed")


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
        Convergence thresholds of a refit. A refit that fails is repeated once with four times as many draws and twice as many
        tuning draws and, after divergences, with a target acceptance rate of 0.95. If it fails again, its status is "failed".
    log : path, optional
        File with one line per finished simulation. A later call with the same seed, settings and design resumes from it.
    progress : bool or callable, optional
        A callable is called with (simulations done, total). By default, a progress bar in a terminal or notebook.
    executor : concurrent.futures.Executor, optional
        Runs the refits; use `client.get_executor()` for a Dask cluster. Each worker compiles the model once. By default, refits
        run sequentially in this process. The results are the same.

    Returns
    -------
    Dataset
        Over simulation: `status` (passed, passed when refitted, failed), `rhat`, `ess_bulk` and `divergences` of the last refit,
        `first_rhat` and `first_divergences` of the first one. Over simulation and quantity: `rank` of the truth among 99 draws.
        Over simulation and decision: `probability` (that distillation wins) and `won`, for four fixed decisions and three
        near the break-even point of the posterior. Quantities: every parameter, every coordinate `z[...]`, group effects, the
        gains of the decisions in nats, and the log-likelihood.

    Raises
    ------
    DataError
        If a line of the log is not JSON.
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
    if not isinstance(simulations, int | np.integer) or isinstance(simulations, bool) or simulations < 1:
        raise ParameterError(f"`simulations` must be a positive integer, got {simulations!r}.")
    if draws * chains < RANKS + 1:
        raise ParameterError(
            f"`draws` times `chains` must be more than {RANKS} to compute ranks, got {draws * chains}."
        )
    reference = reference_run(runs, None)
    if priors is None:
        priors = default_priors(as_law(law).for_runs(distilled=True, supervised=False), reference)
    design = runs.assign(student_loss=1.0)  # the outcomes are not used
    prior = [
        priors.law.to_json(),
        list(priors.names),
        priors.location.tolist(),
        priors.covariance.tolist(),
        priors.asymptotic_width,
    ]
    setting = json.dumps([seed, draws, tune, chains, astuple(thresholds), prior, data_hash(design), CHOICES])
    done = _read_log(log, setting)
    truths = draw_truths(priors, reference, simulations, seed)
    todo = [k for k in range(simulations) if k not in done]
    cores = 2 if executor is None else 1
    tasks = [(runs, priors, truths[k], draws, tune, chains, cores, thresholds, seed + 1 + k) for k in todo]
    done_before = simulations - len(todo)
    for i, result in run_tasks(
        _simulation, tasks, executor=executor, progress=progress, done=done_before, what="simulations"
    ):
        done[todo[i]] = result
        if log is not None:
            with Path(log).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"setting": setting, "simulation": todo[i], **result}) + "\n")
    return _collect([done[k] for k in range(simulations)])


def _read_log(log: str | Path | None, setting: str) -> dict[int, dict[str, Any]]:
    if log is None or not Path(log).exists():
        return {}
    done = {}
    text = Path(log).read_text(encoding="utf-8")
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):
                # An interrupted write. The simulation is repeated and written to a new line.
                with Path(log).open("a", encoding="utf-8") as file:
                    file.write("" if text.endswith("\n") else "\n")
                continue
            raise DataError(f"Line {number} of {log} is not JSON. Delete the line or use a new log file.") from None
        if entry.pop("setting") == setting:
            done[int(entry.pop("simulation"))] = entry
    return done


def _simulation(task: tuple[Any, ...]) -> dict[str, Any]:
    runs, priors, truth, draws, tune, chains, cores, thresholds, seed = task
    refitter = refitter_for(runs, priors)
    true_law = draws_of_truth(truth, priors.law, refitter.reference)
    outcome, true_effects = simulate_outcomes(true_law, runs, np.random.default_rng(seed))
    settings = {"chains": chains, "cores": cores, "seed": seed, "max_treedepth": MAX_TREEDEPTH}
    attempts: list[dict[str, Any]] = []
    for longer in (False, True):
        if longer:
            draws, tune = draws * LONGER["draws"], tune * LONGER["tune"]
            if "divergences" in attempts[0]["failed"]:  # without divergences, shorter steps only take longer
                settings |= {"target_accept": LONGER_ACCEPT}
        tree = refit(refitter, student_loss=outcome, draws=draws, tune=tune, **settings)
        verdict = posterior.convergence(tree, thresholds)
        attempts.append({key: verdict[key] for key in ("failed", "rhat", "rhat_variable", "ess_bulk", "divergences")})
        if not verdict["failed"]:
            break
    draws_found, effects = posterior.draws_of(tree), posterior.effects_of(tree)
    gains, true_gains = decision_gains(draws_found), decision_gains(true_law)
    z = posterior.posterior_dataset(tree)["z"].values.reshape(-1, truth["z"].size)
    ranks = _ranks(
        _Side(draws_found, effects, z, gains),
        _Side(true_law, true_effects, truth["z"][None], true_gains),
        refitter,
        outcome,
    )
    one = int(np.random.default_rng([seed, 1]).integers(draws_found.n_draws))
    picked = draws_found.take([one])
    for name in BREAK_EVEN:
        tokens = break_even_tokens(picked, name)
        gains[name] = break_even_gain(draws_found, name, tokens)
        true_gains[name] = break_even_gain(true_law, name, tokens)
        # At the picked draw both losses are equal by construction, so it is excluded.
        gains[name] = np.delete(gains[name], one)
    return {
        "rank": ranks,
        "attempts": attempts,
        "probability": {name: float((gains[name] > 0).mean()) for name in CHOICES},
        "won": {name: bool(true_gains[name] > 0) for name in CHOICES},
    }


@dataclass(frozen=True)
class _Side:
    """Posterior draws, or the truth as a single draw; compared in `_ranks`."""

    draws: Draws
    effects: dict[str, np.ndarray]
    z: np.ndarray
    gains: dict[str, np.ndarray]

    def take(self, index: np.ndarray) -> _Side:
        effects, gains = ({n: value[index] for n, value in part.items()} for part in (self.effects, self.gains))
        return _Side(self.draws.take(index), effects, self.z[index], gains)


def _ranks(found: _Side, truth: _Side, refitter: Refitter, outcome: np.ndarray) -> dict[str, int]:
    """Return, for every quantity, how many of 99 evenly thinned draws are below the true value."""
    priors, law = refitter.priors, refitter.priors.law
    some = found.take(np.linspace(0, found.draws.n_draws - 1, RANKS).round().astype(int))
    # Symbols that are fixed or determined by others have no rank.
    idle = {*law.fixed, *(name for term in law.terms for name in term.determines)}
    idle |= {name.removeprefix("log_") for name, free in zip(priors.names, priors.free, strict=True) if not free}
    pairs = {name: (values, truth.draws[name]) for name, values in some.draws.items() if name not in idle}
    free = [name for name, is_free in zip(priors.names, priors.free, strict=True) if is_free]
    pairs |= {f"z[{name}]": (some.z[:, i], truth.z[:, i]) for i, name in enumerate(free)}
    configurations = [f"{n:.4g}, {d:.4g}" for n, d in student_configurations(refitter.runs)[0]]
    for effect in law.effects:
        if effect.name in some.effects:
            labels = configurations if effect.dim == "student_configuration" else effect.groups(refitter.runs)[0]
            for i, label in enumerate(labels):
                both = (some.effects[effect.name][:, i], truth.effects[effect.name][:, i])
                pairs[f"{effect.variable.name}[{label}]"] = both
    pairs |= {f"gain: {name}": (some.gains[name], truth.gains[name]) for name in DECISIONS}
    pairs["log-likelihood"] = (_log_likelihood(some, refitter, outcome), _log_likelihood(truth, refitter, outcome))
    return {name: int((values < true).sum()) for name, (values, true) in pairs.items()}


def _log_likelihood(side: _Side, refitter: Refitter, outcome: np.ndarray) -> np.ndarray:
    """Return the joint log-likelihood of all runs at every draw, (n_draws,)."""
    design = Design.of(side.draws.law, refitter.runs)
    center = expected_loss(side.draws, design) + group_effects(side.draws, design, side.effects)
    density = logpdf(outcome, center, residual_scale(side.draws, design), side.draws["nu"][:, None])
    return np.asarray(density.sum(axis=1))


def _status(attempts: list[dict[str, Any]]) -> str:
    return "failed" if attempts[-1]["failed"] else STATUSES[len(attempts) - 1]


def _collect(results: list[dict[str, Any]]) -> xr.Dataset:
    quantities, decisions = list(results[0]["rank"]), CHOICES
    first, last = ([result["attempts"][i] for result in results] for i in (0, -1))

    def numbers(attempts: list[dict[str, Any]], key: str) -> list[float]:
        # R-hat is missing if a chain did not move or a draw is NaN.
        return [float("nan") if attempt[key] is None else float(attempt[key]) for attempt in attempts]

    one, words = ("simulation",), "of the last refit"
    status = np.array([_status(result["attempts"]) for result in results])
    table: dict[str, tuple[tuple[str, ...], Any, str]] = {
        "rank": (
            ("simulation", "quantity"),
            [[result["rank"][name] for name in quantities] for result in results],
            f"rank of the truth among {RANKS} posterior draws",
        ),
        "status": (one, status, "whether the refit passed the convergence checks"),
        "rhat": (one, numbers(last, "rhat"), f"largest R-hat {words}"),
        "ess_bulk": (one, numbers(last, "ess_bulk"), f"smallest effective sample size {words}"),
        "divergences": (one, [attempt["divergences"] for attempt in last], f"divergent transitions {words}"),
        "first_rhat": (one, numbers(first, "rhat"), "largest R-hat of the first refit"),
        "first_divergences": (
            one,
            [attempt["divergences"] for attempt in first],
            "divergent transitions of the first refit",
        ),
        "probability": (
            ("simulation", "decision"),
            [[result["probability"][name] for name in decisions] for result in results],
            "posterior probability that distillation wins",
        ),
        "won": (
            ("simulation", "decision"),
            [[result["won"][name] for name in decisions] for result in results],
            "whether distillation wins under the truth",
        ),
    }
    return xr.Dataset(
        {name: (dims, values, {"units": "1", "long_name": text}) for name, (dims, values, text) in table.items()},
        coords={"simulation": np.arange(len(results)), "quantity": quantities, "decision": decisions},
        attrs={"ranks": RANKS} | {name.replace(" ", "_"): int((status == name).sum()) for name in STATUSES},
    )
