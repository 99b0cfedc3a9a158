"""Simulation-based calibration: whether the posterior's probabilities are right when the model is.

A truth is drawn from the prior, runs are simulated from it on the design of real ones, the model is fitted to them, and the rank
of the truth among the posterior draws is noted. Over many simulations the ranks of every quantity are uniform if the sampler
and the model's code are right (Talts et al. 2018, arXiv:1804.06788). The same holds for decisions: among the simulations in
which the posterior gave distillation a probability p, distillation should win in a share p.

What this cannot show is whether the law is right: for that see `unseen_groups`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesdistill.criticism.predictions import expected_losses, flat_draws
from bayesdistill.criticism.refits import Refitter, prepare_refits, refit
from bayesdistill.errors import DataError, ModelError, ParameterError
from bayesdistill.laws import SUPERVISED_PARAMETERS, asymptotic_advantage, distilled_loss, supervised_loss
from bayesdistill.model import reference_run
from bayesdistill.priors import ASYMPTOTIC_SIZES, Priors, Reference, default_priors
from bayesdistill.priors.coordinates import (
    distillation_at_reference,
    natural_parameters,
    supervised_at_reference,
)

if TYPE_CHECKING:
    import pandas as pd

RANKS = 99
"""Draws that a truth is ranked among, thinned from the posterior; ranks go from 0 to this number."""

DECISIONS = {
    # name: student parameters, tokens when distilled, tokens when pretrained, teacher parameters and tokens.
    # Teachers already paid for: equal tokens; teachers to be paid for: the pretrained student gets their compute too.
    "300M, equal tokens": (3e8, 3e10, 3e10, 3e9, 6e10),
    "1B, equal tokens": (1e9, 1e11, 1e11, 7e9, 1.4e11),
    "1B, twice the tokens for pretraining": (1e9, 5e10, 1e11, 3e9, 6e10),
    "3B, five times the tokens for pretraining": (3e9, 6e10, 3e11, 7e9, 1.4e11),
}
"""Fixed choices whose outcome is asked of every truth and every posterior."""


def draw_truths(priors: Priors, reference: Reference, count: int, seed: int) -> list[dict[str, Any]]:
    """Laws drawn from the prior, the one-sided prior on the asymptotic advantage included (by rejection).

    About one law in 300 has an A_S or B_S beyond the largest float (its exponent is above 30); it is drawn again.

    Returns
    -------
    list of dict
        Parameters under the posterior's names, with sigma and nu, and the coordinates under `z`, (free coordinate,).

    Raises
    ------
    ModelError
        If fewer than one draw in a thousand satisfies the asymptotic prior.
    """
    rng = np.random.default_rng(seed)
    truths: list[dict[str, Any]] = []
    for _ in range(1000 * count):
        z = rng.standard_normal(priors.factor.shape[1])
        c = dict(zip(priors.names, priors.location + priors.factor @ z, strict=True))
        at_reference = supervised_at_reference(c)
        with np.errstate(over="ignore"):
            at_reference |= distillation_at_reference(c, at_reference, reference)
            law = {name: float(value) for name, value in natural_parameters(at_reference, reference).items()}
        if not all(np.isfinite(value) for value in law.values()):
            continue
        accept = rng.uniform()
        if priors.asymptotic_width is not None:
            names = ("E", "alpha", "gamma", "alpha_S", "gamma_S", "c0", "c1", "d1", "f1")
            lead = asymptotic_advantage(
                np.array(ASYMPTOTIC_SIZES) / 5e8,
                A=at_reference["A_ref"],
                A_S=at_reference["A_S_ref"],
                **{name: at_reference[name] for name in names},
            )
            if not accept < np.exp(-0.5 * np.mean((np.maximum(lead, 0) / priors.asymptotic_width) ** 2)):
                continue
        if "logit_w1" in c:
            law["w1"] = float(1 / (1 + np.exp(-c["logit_w1"])))
        truths.append({**law, "sigma": float(np.exp(c["log_sigma"])), "nu": float(1 + np.exp(c["log_nu"])), "z": z})
        if len(truths) == count:
            return truths
    raise ModelError(f"only {len(truths)} of {1000 * count} prior draws satisfy the asymptotic prior; widen it")


def decision_gains(law: dict[str, Any]) -> dict[str, np.ndarray]:
    """Pretrained minus distilled loss in nats for each of DECISIONS; positive where distillation wins."""
    alone = {name: law[name] for name in SUPERVISED_PARAMETERS}
    whole = {name: value for name, value in law.items() if name not in ("sigma", "nu", "z")}
    gains = {}
    for name, (params, distilled, pretrained, teacher_params, teacher_tokens) in DECISIONS.items():
        teacher = supervised_loss(teacher_params, teacher_tokens, **alone)
        gain = supervised_loss(params, pretrained, **alone) - distilled_loss(params, distilled, teacher, **whole)
        gains[name] = np.asarray(gain)
    return gains


def simulate_calibration(
    runs: pd.DataFrame,
    *,
    simulations: int = 200,
    options: dict[str, Any] | None = None,
    draws: int = 500,
    tune: int = 700,
    chains: int = 2,
    seed: int = 0,
    log: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    executor: Executor | None = None,
) -> xr.Dataset:
    """Ranks of truths among their posteriors, and decisions against what was true.

    Parameters
    ----------
    runs : DataFrame
        Distilled runs; only their design is used.
    simulations : int
        Truths drawn from the prior.
    options : dict, optional
        Of `default_priors`: the form of the model. Effects of groups and scatter that is not constant are not supported.
    draws, tune, chains, seed : int
        Of each refit.
    log : path, optional
        File that gets one line per finished simulation; a later call with the same seed and settings goes on from there.
    progress : callable, optional
        Told (simulations done, simulations in all).
    executor : concurrent.futures.Executor, optional
        Where simulations are fitted; each worker compiles the model once. By default here.

    Returns
    -------
    Dataset
        Over simulation: rank (quantity; 0 to 99), divergences, and over decision: probability (of distillation winning) and won.
    """
    options = dict(options or {})
    if options.get("effects") or options.get("noise", "constant") != "constant":
        raise ParameterError(
            "effects and scatter that is not constant are not supported here: leave them out of options"
        )
    reference = reference_run(runs, None)
    priors = default_priors(distilled=True, supervised=False, reference=reference, **options)
    setting = json.dumps(
        [seed, draws, tune, chains, sorted(options.items()), len(runs), list(priors.names)], default=str
    )
    done = _read_log(log, setting)
    truths = draw_truths(priors, reference, simulations, seed)
    todo = [k for k in range(simulations) if k not in done]
    tasks = [(runs, priors, truths[k], draws, tune, chains, seed + 1 + k) for k in todo]
    results: Iterable[dict[str, Any]] = (
        map(_simulation, tasks) if executor is None else executor.map(_simulation, tasks)
    )
    for k, result in zip(todo, results, strict=True):
        done[k] = result
        if log is not None:
            with Path(log).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"setting": setting, "simulation": k, **result}) + "\n")
        if progress is not None:
            progress(len(done), simulations)
    return _collect([done[k] for k in range(simulations)])


def _read_log(log: str | Path | None, setting: str) -> dict[int, dict[str, Any]]:
    if log is None or not Path(log).exists():
        return {}
    done = {}
    lines = Path(log).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):  # an interrupted write; the simulation is done again
                continue
            raise DataError(f"{log}, line {number}: not a JSON line; remove it or start a new log") from None
        if entry.pop("setting") == setting:
            done[int(entry.pop("simulation"))] = entry
    return done


_REFITTERS: dict[str, Refitter] = {}


def _same(ours: Priors, theirs: Priors) -> bool:
    return (
        ours.names == theirs.names
        and ours.asymptotic_width == theirs.asymptotic_width
        and np.array_equal(ours.location, theirs.location)
        and np.array_equal(ours.covariance, theirs.covariance)
    )


def _simulation(task: tuple[Any, ...]) -> dict[str, Any]:
    runs, priors, truth, draws, tune, chains, seed = task
    # One compiled model a process, for the priors and runs of the last simulation.
    kept = _REFITTERS.get("kept")
    if kept is None or not (_same(kept.priors, priors) and kept.runs.equals(runs)):
        kept = _REFITTERS["kept"] = prepare_refits(runs, priors)
    rng = np.random.default_rng(seed)
    center = expected_losses({name: np.atleast_1d(value) for name, value in truth.items() if name != "z"}, runs)[0]
    outcome = center + truth["sigma"] * rng.standard_t(truth["nu"], len(runs))
    tree = refit(kept, student_loss=outcome, draws=draws, tune=tune, chains=chains, seed=seed)
    flat = flat_draws(tree["posterior"].to_dataset())
    thin = np.linspace(0, len(flat["sigma"]) - 1, RANKS).round().astype(int)
    quantities = {name: (value[thin], truth[name]) for name, value in flat.items() if name in truth and name != "z"}
    free = [name for name, is_free in zip(priors.names, priors.free, strict=True) if is_free]
    quantities |= {f"z[{name}]": (flat["z"][thin, i], truth["z"][i]) for i, name in enumerate(free)}
    gains, true_gains = decision_gains(flat), decision_gains(truth)
    quantities |= {f"gain: {name}": (gains[name][thin], true_gains[name]) for name in DECISIONS}
    return {
        "rank": {name: int((value < true).sum()) for name, (value, true) in quantities.items()},
        "divergences": int(tree["sample_stats"]["diverging"].sum()),
        "probability": {name: float((gains[name] > 0).mean()) for name in DECISIONS},
        "won": {name: bool(true_gains[name] > 0) for name in DECISIONS},
    }


def _collect(results: list[dict[str, Any]]) -> xr.Dataset:
    quantities, decisions = list(results[0]["rank"]), list(DECISIONS)
    return xr.Dataset(
        {
            "rank": (
                ("simulation", "quantity"),
                [[result["rank"][name] for name in quantities] for result in results],
                {"units": "1", "long_name": f"rank of the truth among {RANKS} posterior draws"},
            ),
            "divergences": (
                "simulation",
                [result["divergences"] for result in results],
                {"units": "1", "long_name": "divergent transitions"},
            ),
            "probability": (
                ("simulation", "decision"),
                [[result["probability"][name] for name in decisions] for result in results],
                {"units": "1", "long_name": "posterior probability that distillation wins"},
            ),
            "won": (
                ("simulation", "decision"),
                [[result["won"][name] for name in decisions] for result in results],
                {"units": "1", "long_name": "whether distillation wins under the truth"},
            ),
        },
        coords={"simulation": np.arange(len(results)), "quantity": quantities, "decision": decisions},
        attrs={"ranks": RANKS},
    )


def rank_uniformity(calibration: xr.Dataset) -> pd.DataFrame:
    """Whether the ranks of every quantity are uniform.

    Parameters
    ----------
    calibration : Dataset
        What `simulate_calibration` returned.

    Returns
    -------
    DataFrame
        One row a quantity: mean_rank as a share (0.5 if unbiased), p_value of a chi-square test in ten bins, and p_holm, the same
        corrected for the number of quantities (Holm 1979).
    """
    import pandas as pd
    from scipy.stats import chisquare

    rows = []
    for name in calibration["quantity"].values:
        rank = calibration["rank"].sel(quantity=name).values
        counts = np.histogram(rank, bins=10, range=(-0.5, calibration.attrs["ranks"] + 0.5))[0]
        rows.append(
            {
                "quantity": str(name),
                "mean_rank": rank.mean() / calibration.attrs["ranks"],
                "p_value": chisquare(counts)[1],
            }
        )
    frame = pd.DataFrame(rows).set_index("quantity")
    frame["p_holm"] = _holm(frame["p_value"].to_numpy())
    return frame


def _holm(p_values: np.ndarray) -> np.ndarray:
    order = np.argsort(p_values)
    scaled = np.minimum(1.0, p_values[order] * (len(p_values) - np.arange(len(p_values))))
    result = np.empty_like(scaled)
    result[order] = np.maximum.accumulate(scaled)
    return result


def decision_calibration(
    calibration: xr.Dataset, edges: tuple[float, ...] = (0.0, 0.05, 0.25, 0.75, 0.95, 1.0)
) -> pd.DataFrame:
    """How often distillation won where the posterior said that it would with some probability.

    Parameters
    ----------
    calibration : Dataset
        What `simulate_calibration` returned.
    edges : tuple of float
        Of the bins of stated probability.

    Returns
    -------
    DataFrame
        One row a bin: simulations, stated (mean probability), won (share), lower and upper (90 % interval of that share).
    """
    import pandas as pd
    from scipy.stats import beta

    stated, won = calibration["probability"].values.ravel(), calibration["won"].values.ravel().astype(float)
    bins = np.clip(np.digitize(stated, edges) - 1, 0, len(edges) - 2)
    rows = []
    for k in range(len(edges) - 1):
        inside = bins == k
        count, wins = int(inside.sum()), float(won[inside].sum())
        low, high = (float(beta.ppf(q, wins + 0.5, count - wins + 0.5)) for q in (0.05, 0.95))
        rows.append(
            {
                "bin": f"{edges[k]:g} to {edges[k + 1]:g}",
                "simulations": count,
                "stated": float(stated[inside].mean()) if count else float("nan"),
                "won": wins / count if count else float("nan"),
                "lower": low,
                "upper": high,
            }
        )
    return pd.DataFrame(rows).set_index("bin")
