"""Simulation-based calibration: whether the posterior's probabilities are right when the model is.

A truth is drawn from the prior, runs are simulated from it on the design of real ones, the model is fitted to them, and the rank
of the truth among the posterior draws is noted. Over many simulations the ranks of every quantity are uniform if the sampler
and the model's code are right (Talts et al. 2018, arXiv:1804.06788). The same holds for decisions: among the simulations in
which the posterior gave distillation a probability p, distillation should win in a share p.

What this cannot show is whether the law is right: for that see `unseen_groups`.
"""

from __future__ import annotations

import json
from concurrent.futures import Executor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
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

if TYPE_CHECKING:
    import pandas as pd

RANKS = 99
"""Draws that a truth is ranked among, thinned from the posterior; ranks go from 0 to this number."""

CALIBRATION_THRESHOLDS = ConvergenceThresholds(
    max_rhat=1.05, min_ess_bulk=50, min_ess_tail=0, max_divergences=0, max_treedepth_share=1, min_bfmi=0
)
"""What a refit must pass for its ranks to count: looser than for a fit that is read, since 99 draws of it are used."""

LONGER = {"draws": 4, "tune": 2}
"""How many times longer a refit is that failed the convergence checks."""
MAX_TREEDEPTH = 8
"""Some laws that the priors allow have posteriors that take minutes to sample. With shorter trajectories these fail the convergence
checks, and are counted, in a time that allows hundreds of simulations."""
LONGER_ACCEPT = 0.95
"""Acceptance that the step size of such a refit is tuned to if the first had divergences."""

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
    """Ranks of truths among their posteriors, and decisions against what was true.

    Parameters
    ----------
    runs : DataFrame
        Distilled runs; only their design is used (sizes, tokens, teachers).
    simulations : int
        Truths drawn from the prior.
    law : Law or str
        A law or a name in `LAWS`; unused if `priors` are given, which belong to a law.
    priors : Priors, optional
        Instead of the default ones, around `model.reference_run(runs, None)`. With those from an earlier fit, truths are drawn
        where the posterior is, instead of everywhere the default priors allow.
    draws, tune, chains, seed : int
        Of each refit.
    thresholds : ConvergenceThresholds
        What a refit must pass. One that does not is sampled again, once, with four times the draws and twice the tuning, and
        after divergences with an acceptance of 0.99; if that fails too, the simulation is kept and marked.
    log : path, optional
        File that gets one line per finished simulation; a later call with the same seed, settings and design goes on from there.
    progress : bool or callable, optional
        A callable is told (simulations done, simulations in all). By default a bar in a terminal and in a notebook.
    executor : concurrent.futures.Executor, optional
        Where simulations are fitted, for a Dask cluster `client.get_executor()`; each worker compiles the model once. By default
        here. The result is the same.

    Returns
    -------
    Dataset
        Over simulation: `status` (passed, passed when refitted, failed), `rhat`, `ess_bulk` and `divergences` of the refit that
        counts, `first_rhat` and `first_divergences` of the first; `rank` (simulation, quantity) of the truth among 99 draws; and
        over decision `probability` (that distillation wins) and `won`; the decisions are four fixed ones, and three that are
        posed where the posterior is undecided. Quantities: every parameter, every coordinate `z[...]`,
        effects of groups, the gains of the decisions in nats, and the log-likelihood.

    Raises
    ------
    DataError
        If a line of the log is no JSON.
    ModelError
        If the priors leave next to no laws.
    ParameterError
        If an argument is out of range.

    Notes
    -----
    Whether a refit passes depends on the simulated runs alone and not on the truth behind them, so that ranks of those that
    passed are uniform too if all is right (Modrák et al. 2023, arXiv:2211.02383, from whom the log-likelihood as a quantity is
    also taken). `rank_uniformity` and the other summaries use these and say how many there are.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> runs = bd.load_runs("busbridge2025")
    >>> calibration = bd.simulate_calibration(runs, simulations=200, log="calibration.jsonl")  # doctest: +SKIP
    """
    if not isinstance(simulations, int | np.integer) or isinstance(simulations, bool) or simulations < 1:
        raise ParameterError(f"simulations is {simulations!r}; a whole number of at least 1 is needed")
    if draws * chains < RANKS + 1:
        raise ParameterError(f"draws times chains is {draws * chains}; more than {RANKS} are needed to rank among")
    reference = reference_run(runs, None)
    if priors is None:
        priors = default_priors(as_law(law).for_runs(distilled=True, supervised=False), reference)
    design = runs.assign(student_loss=1.0)  # the outcomes have no part in it
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
                # An interrupted write; the simulation is done again, on a line of its own.
                with Path(log).open("a", encoding="utf-8") as file:
                    file.write("" if text.endswith("\n") else "\n")
                continue
            raise DataError(f"{log}, line {number}: not a JSON line; remove it or start a new log") from None
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
            if "divergences" in attempts[0]["failed"]:  # otherwise shorter steps would only cost time
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
        # The draw that was picked is equal by construction, and has no vote.
        gains[name] = np.delete(gains[name], one)
    return {
        "rank": ranks,
        "attempts": attempts,
        "probability": {name: float((gains[name] > 0).mean()) for name in CHOICES},
        "won": {name: bool(true_gains[name] > 0) for name in CHOICES},
    }


@dataclass(frozen=True)
class _Side:
    """Posterior draws, or the truth as a single draw: what is compared in `_ranks`."""

    draws: Draws
    effects: dict[str, np.ndarray]
    z: np.ndarray
    gains: dict[str, np.ndarray]

    def take(self, index: np.ndarray) -> _Side:
        effects, gains = ({n: value[index] for n, value in part.items()} for part in (self.effects, self.gains))
        return _Side(self.draws.take(index), effects, self.z[index], gains)


def _ranks(found: _Side, truth: _Side, refitter: Refitter, outcome: np.ndarray) -> dict[str, int]:
    """For every quantity: how many of 99 draws, evenly thinned, lie below its true value."""
    priors, law = refitter.priors, refitter.priors.law
    some = found.take(np.linspace(0, found.draws.n_draws - 1, RANKS).round().astype(int))
    # Symbols that are fixed or equal to others have no rank of their own.
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
    """Log-likelihood of all runs together under every draw, (n_draws,)."""
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
        # R-hat is missing where a chain never moved or a draw was no number.
        return [float("nan") if attempt[key] is None else float(attempt[key]) for attempt in attempts]

    one, words = ("simulation",), "of the refit that counts"
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
