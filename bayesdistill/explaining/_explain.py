r"""Explain: where the uncertainty of one answer comes from.

The answer is the gain of distillation, pretrained minus distilled loss with the chosen strategy of a plan, and the probability that it
is positive. Let f be the gain, or 1 if it is positive and 0 otherwise. The variance of f has these parts:

==================  ==================================================================================================
form of the law     variance of :math:`\mathrm{E}[f \mid \text{law}]` between laws
posterior           of the law's mean curves, from the parameters of a law
discrepancy         of the error of a law that grows with the distance from its runs
group effects       of the effects of a new student configuration
residual noise      of two single runs (level "run")
interactions        of the dependence between these terms: the same runs determine law and discrepancy
priors              of :math:`\mathrm{E} f` between two powers of the joint prior, 0.8 and 1.25
Monte Carlo error   squared standard error of :math:`\mathrm{E} f` because there is a finite number of draws
==================  ==================================================================================================

The law of total variance separates the law from the rest, which is averaged over laws. Given the law, the gain is a sum of terms, so
its variance is a sum of their variances and covariances. For the event, see `explaining.variances`.

The last two are not properties of f: they say how far its mean may be off. Both are added as independent errors of the answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
import xarray as xr

from bayesdistill import posterior
from bayesdistill.answers import Answer
from bayesdistill.arguments import NOISE, checked, one_of, or_none, shown
from bayesdistill.compute import Shape
from bayesdistill.criticism._prior_sensitivity import log_priors
from bayesdistill.decisions import labels, planning
from bayesdistill.decisions.arguments import Number, parse_number
from bayesdistill.decisions.labels import CELL, flops_words, size_words
from bayesdistill.decisions.pairing import limited_data_of, paired, shape_of
from bayesdistill.decisions.references import references
from bayesdistill.design.candidates import Candidates, parse_candidates, predict, proposed_candidates
from bayesdistill.errors import ParameterError
from bayesdistill.explaining.variances import event_parts, event_parts_error, mean_error, prior_change, sum_parts
from bayesdistill.law import Draws
from bayesdistill.law.formulas import log_ratio
from bayesdistill.law.predictive import Deviations, has_noise

LAW, POSTERIOR, PRIORS, MONTE_CARLO = "form of the law", "posterior", "priors", "Monte Carlo error"
TERMS = (POSTERIOR, "discrepancy", "group effects", "residual noise", "interactions")
PARTS = (LAW, *TERMS, PRIORS, MONTE_CARLO)
"""Parts of the uncertainty of an answer, in the order of the table."""
_EXTRAPOLATION = ("extrapolation", "extrapolation_axis", "extrapolation_factor")
_SMALL = 0.01
"""Smallest decrease of the variance by a run that is recommended."""
_RATIOS = (0.0, 0.8, 1.0, np.inf)
"""Limits of the groups of candidate runs by r, the teacher's loss divided by the student's ability."""


@dataclass(frozen=True)
class _Law:
    """The answer under one law.

    Parameters
    ----------
    name : str
    weight : float
    terms : ndarray
        Gain of the law's mean curves, discrepancy, group effects and residual noise, (term, n_draws), nats per token.
    chains : int
    log_prior : ndarray or None
        (n_draws,); None if it is unknown.
    shift_error : float
        Standard error of a shift of the gain that comes from other draws, in nats per token.
    """

    name: str
    weight: float
    terms: np.ndarray
    chains: int
    log_prior: np.ndarray | None = None
    shift_error: float = 0.0


@checked(noise=or_none(one_of(*NOISE)))
@planning.with_options
def explain(
    plan: xr.Dataset,
    fits: planning.Source | Mapping[str, planning.Source],
    *,
    student: Number | None = None,
    budget: Number | None = None,
    scenario: str | None = None,
    weights: Mapping[str, float] | None = None,
    noise: str | None = None,
    candidates: pd.DataFrame | str | Path | None = None,
    **options: Unpack[planning.Unconverged],
) -> xr.Dataset:
    """Explain where the uncertainty of one answer of a plan comes from.

    Parameters
    ----------
    plan : Dataset
        The result of `plan`.
    fits : DataTree, Dataset, Planner, or mapping
        The fit from which the plan was computed, or name -> fit: this one and fits of other laws to the same runs. Nothing is refitted.
        With one fit, the laws are the laws of a mixture (`mix`), or stored fits of several laws if the plan has a range over them.
    student, budget, scenario : optional
        Labels of the answer. They may be omitted where the plan has only one.
    weights : mapping, optional
        Name -> weight of each of several fits; by default equal.
    noise : {"expected", "law", "run"}, optional
        Level of uncertainty, by default the level of the plan. Only "run" has residual noise.
    candidates : DataFrame or path, optional
        Runs that could be done next, as for `next_runs`; by default runs within the range of the data.

    Returns
    -------
    Dataset
        Over `part`: gain_variance (the sum is the variance of the answer), gain_sd (its square root), gain_share (fraction of the
        sum), and the same of the event that the gain is positive: probability_variance and probability_share. All but gain_sd have
        Monte Carlo standard errors (_mcse; for a share, the error of its variance divided by the sum). Scalars: gain and probability
        (averaged over laws), gain_total and probability_total (the sums), and extrapolation_factor (over `axis`), extrapolation,
        extrapolation_axis and extrapolates of the plan. Over `law`: law_weight, gain_by_law, probability_by_law. Over `candidate`:
        reduction, the expected decrease of the variance of the gain by this run as a fraction of gain_total; kind, params, tokens,
        teacher_loss, cost, ratio (r of the run). The attribute `suggestion` has three sentences. A part that is unknown is NaN and not
        in the sum; the attribute `unknown` says why.

    Raises
    ------
    ModelError
        If the fits have different runs.
    ParameterError
        If the plan was computed from none of the fits, or an argument is invalid.

    Notes
    -----
    The docstring of `bayesdistill.explaining._explain` defines the parts. The part of the priors is a sensitivity: it depends on the
    powers 0.8 and 1.25, which multiply the standard deviations of normal priors by 1.12 and 0.89. Stored fits have other runs than the
    fit, so only the differences between their means are used: each law shifts the gain by its difference from the mean of the laws.
    The variance of a Student-t distribution with 2 degrees of freedom or fewer is infinite. If the posterior includes such values, the
    part of the residual noise is the variance among the draws, and its Monte Carlo error is too small. `reduction` is the
    linear-normal approximation of `information_order`; effects of new groups and residual noise are not reduced. With limited data,
    the posterior includes the constants of the rule for repeated tokens.

    Examples
    --------
    >>> import bayesdistill as bd
    >>> import numpy as np, xarray as xr
    >>> rng = np.random.default_rng(0)
    >>> draws = {k: (("chain", "draw"), v * np.ones((4, 100))) for k, v in bd.PUBLISHED.items()}
    >>> draws["A_S"] = (("chain", "draw"), bd.PUBLISHED["A_S"] * np.exp(0.01 * rng.standard_normal((4, 100))))
    >>> fit = xr.Dataset(draws, attrs={"law": "busbridge2025"})
    >>> found = bd.explain(bd.plan(fit, "1B", 1e21, "best case"), fit)
    >>> bool(found["gain_share"].sel(part="posterior") > 0.9)
    True
    """
    cell = _answer_of(plan, student, budget, scenario)
    level = str(cell.attrs["noise"]) if noise is None else noise
    seed = int(cell.attrs.get("noise_seed", 0))
    given = fits if isinstance(fits, Mapping) and not isinstance(fits, xr.Dataset | xr.DataTree) else {"": fits}
    sources = {}
    for name, fit in given.items():
        planner = planning.planner_of(explain, fit, options)
        sources[str(name)] = planning.changed(planner, **{"noise": level, "seed": seed} | limited_data_of(cell))
    _check_plan(cell, sources)
    shares = _weights(weights, sources)
    laws, stored = _laws(cell, sources, shares)
    own = next(iter(sources.values()))
    runs = _candidate_runs(own, candidates, shape_of(cell))
    values: dict[str, Any] = {
        "law_weight": [law.weight for law in laws],
        "gain_by_law": [float(law.terms.sum(axis=0).mean()) for law in laws],
        "probability_by_law": [float((law.terms.sum(axis=0) > 0).mean()) for law in laws],
    }
    weight = np.array(values["law_weight"])
    for name in ("gain", "probability"):
        values[name] = float(weight @ np.array(values[f"{name}_by_law"]))
        variance, error = _variances(name, laws, stored)
        total = float(np.nansum(variance))
        with np.errstate(invalid="ignore", divide="ignore"):
            values[f"{name}_share"] = (variance / total, error / total)
        values |= {f"{name}_variance": (variance, error), f"{name}_total": total}
    gain_variance = values["gain_variance"][0]
    values["gain_sd"] = np.sqrt(np.where(gain_variance >= 0, gain_variance, np.nan))
    coordinates: dict[str, Any] = {"part": list(PARTS), "law": [law.name for law in laws]}
    if runs is not None:
        values["reduction"] = _reductions(cell, sources, shares, runs) / values["gain_total"]
        values |= {name: getattr(runs, name) for name in ("params", "tokens", "teacher_loss", "cost")}
        values["kind"] = np.array(runs.kinds, dtype=str)
        values["ratio"] = _ratios(own.gathered.draws, runs)
        coordinates["candidate"] = list(runs.names)
    coordinates |= {name: cell.coords[name].variable for name in (*CELL, "axis")}
    values |= {name: cell[name].variable for name in ("extrapolates", *_EXTRAPOLATION)}
    attrs = own.fitted.attrs | planning.noise_attributes(own)
    attrs["converged"] = _converged(sources)
    attrs["title"] = _title(values)
    if unknown := [words for part, words in _UNKNOWN.items() if np.isnan(gain_variance[PARTS.index(part)])]:
        attrs["unknown"] = " ".join(unknown)
    attrs["laws"] = "stored fits of several laws" if stored else "the given fits"
    attrs["suggestion"] = " ".join(_sentences(values, runs, attrs.get("unknown")))
    return Answer(labels.variables("explain", values), labels.variables("explain", coordinates), attrs)


def _answer_of(plan: Any, student: Any, budget: Any, scenario: Any) -> xr.Dataset:
    """Return the cell of a plan, with scalar coordinates."""
    strategy = ("teacher_params", "teacher_tokens", "student_tokens", "pretraining_tokens", "teacher_loss")
    needed = ("advantage", "extrapolates", *strategy, *_EXTRAPOLATION)
    if not isinstance(plan, xr.Dataset) or any(name not in plan for name in needed) or "budget" not in plan.coords:
        raise ParameterError("`plan` must be a Dataset returned by `bd.plan`, with its draws.")
    for name, label in (("student", student), ("budget", budget), ("scenario", scenario)):
        if name not in plan.dims:
            plan = plan.expand_dims(name)
        values = plan[name].values
        available = ", ".join(repr(v) if isinstance(v, str) else f"{v:.4g}" for v in values.tolist())
        if label is None:
            if values.size > 1:
                raise ParameterError(f"The plan has several values of `{name}`: {available}. Give one of them.")
            chosen = np.array([0])
        elif name == "scenario":
            chosen = np.flatnonzero(values == label)
        else:
            chosen = np.flatnonzero(np.isclose(values, parse_number(label, name), rtol=1e-6, atol=0))
        if chosen.size != 1:
            raise ParameterError(f"The plan has no {name} {shown(label)}. Give one of {available}.")
        plan = plan.isel({name: chosen})
    if np.isnan(plan["student_tokens"].values).any():
        raise ParameterError(
            "No strategy fits this budget, so there is no gain to explain. Give a larger `budget` of the plan."
        )
    return plan.squeeze(CELL)


def _check_plan(cell: xr.Dataset, sources: Mapping[str, planning.Planner]) -> None:
    """Raise an error if the plan was computed from none of the fits, or if these have different runs."""
    fits = {name: planner.fit for name, planner in sources.items()}
    if not fits:
        raise ParameterError("`fits` is empty. Give the fit from which the plan was computed.")
    if len(fits) == 1:
        paired(next(iter(fits.values())), cell)
        return
    posterior.check_fits(fits)
    stored = cell.attrs.get(posterior.IDENTITY_ATTRIBUTE)
    if stored not in {posterior.identity(fit) for fit in fits.values()}:
        raise ParameterError(
            f"The plan was computed from none of the fits {', '.join(map(repr, fits))}. Add the fit from which it was computed."
        )


def _weights(weights: Any, sources: Mapping[str, planning.Planner]) -> dict[str, float]:
    if weights is None:
        return dict.fromkeys(sources, 1 / len(sources))
    return posterior.normalized_weights(weights, sources)


def _laws(
    cell: xr.Dataset, sources: Mapping[str, planning.Planner], shares: Mapping[str, float]
) -> tuple[list[_Law], bool]:
    """Return the answer under each law, and whether the laws share their draws because they are stored fits."""
    found = []
    for name, planner in sources.items():
        fitted = planner.fitted
        known = name or fitted.draws.law.name
        found.append(
            _Law(known, shares[name], _terms(fitted.draws, planner, cell), fitted.chain.size, _log_prior(planner))
        )
    (own, *others), planner = found, next(iter(sources.values()))
    if others:
        return found, False
    if planner.fitted.laws:
        of = planner.fitted.law
        return [
            replace(own, name=name, weight=float((of == k).mean()), terms=own.terms[:, of == k])
            for k, name in enumerate(planner.fitted.laws)
            if (of == k).any()
        ], False
    if posterior.reference_note(planner.fit):
        return found, False
    stored = planner.limited(references(planner.seed))  # without group effects
    gain = _terms(stored.draws, planner, cell)[:2].sum(axis=0)
    each = [gain[stored.law == k] for k in range(len(stored.laws))]
    means = np.array([one.mean() for one in each])
    return [
        replace(
            own,
            name=name,
            weight=1 / means.size,
            terms=own.terms + np.array([[means[k] - means.mean()], [0], [0], [0]]),
            shift_error=mean_error(each[k], stored.chain.size),
        )
        for k, name in enumerate(stored.laws)
    ], True


def _terms(draws: Draws, planner: planning.Planner, cell: xr.Dataset) -> np.ndarray:
    """Return the terms of the gain in every draw, (term, n_draws), nats per token, at the level and with the seed of a Planner."""
    run = {name: np.array([float(cell[name])]) for name in ("student", "student_tokens", "pretraining_tokens")}
    size, tokens, alone = run.values()
    if "teacher_index" in cell:  # an existing teacher has its measured loss
        teacher = np.array([float(cell["teacher_loss"].mean())])
    else:
        teacher = draws.supervised_loss(*(np.array([float(cell[f"teacher_{name}"])]) for name in ("params", "tokens")))
    found = np.zeros((4, draws.n_draws))
    found[0] = draws.supervised_loss(size, alone) - draws.distilled_loss(size, tokens, teacher)
    if planner.level != "law":
        found[1] = draws.discrepancy("supervised", size, alone) - draws.discrepancy("distilled", size, tokens)
        plain, where = replace(draws, paths=None), (size, tokens, teacher, alone)
        found[2] = Deviations.draw(plain, planner.seed, "expected").difference(*where)
        if planner.level == "run":
            found[3] = Deviations.draw(plain, planner.seed, "run").difference(*where) - found[2]
    return found


def _log_prior(planner: planning.Planner) -> np.ndarray | None:
    """Return the log density of the joint prior at every draw, (n_draws,); None if it is unknown."""
    fit, fitted = planner.fit, planner.fitted
    if not isinstance(fit, xr.DataTree) or posterior.members(fit) or "z" not in posterior.posterior_dataset(fit):
        return None
    density = log_priors(fit).to_dataarray("prior").sum("prior")
    kept = density.sel(chain=fitted.chain, draw=fitted.draw).transpose("chain", "draw")
    return np.asarray(kept.values.ravel())


def _variances(name: str, laws: list[_Law], stored: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the parts of the variance of the gain or of the event, in the order of PARTS, and their standard errors."""
    weight = np.array([law.weight for law in laws])
    event = name == "probability"
    values = [law.terms.sum(axis=0) for law in laws]
    means_of_gain = [float(one.mean()) for one in values]
    answers = [np.where(one > 0, 1.0, 0.0) for one in values] if event else values
    means = np.array([one.mean() for one in answers])
    chains = laws[0].chains

    def error_of(parts: list[np.ndarray]) -> float:
        """Standard error of the mean over laws of means of draws. Laws of stored fits have the same draws."""
        if stored:
            return mean_error(np.tensordot(weight, np.stack(parts), 1), chains)
        each = [mean_error(part, law.chains) for part, law in zip(parts, laws, strict=True)]
        return float(np.linalg.norm(weight * each))

    away = means - weight @ means
    own = np.array([_shift_error(law, event) for law in laws])
    between = float(weight @ away**2) if len(laws) > 1 else np.nan
    # To second order, because the first is 0 where the laws agree.
    between_error = float(np.sqrt(np.sum((2 * weight * away * own) ** 2 + 2 * (weight * own**2) ** 2)))
    if event:
        # Laws of stored fits differ by constants.
        groups = (
            [(laws[0], [mean - means_of_gain[0] for mean in means_of_gain])]
            if stored
            else [(law, [0.0]) for law in laws]
        )
        within = weight @ np.concatenate([event_parts(law.terms, shifts) for law, shifts in groups])
        each = np.concatenate([event_parts_error(law.terms, law.chains, shifts) for law, shifts in groups])
        within_error = weight @ each if stored else np.sqrt(weight**2 @ each**2)
        certain = [posterior.probability(_labeled(one, law))[1] for one, law in zip(answers, laws, strict=True)]
        # If all draws agree, this error is not 0.
        together = error_of(answers) if stored else 0.0
        monte_carlo = together or float(np.linalg.norm(weight * np.array(certain, dtype=float)))
    else:
        parts, drawn = zip(*[sum_parts(law.terms) for law in laws], strict=True)
        within = weight @ np.array(parts)
        within_error = np.array([error_of([one[k] for one in drawn]) for k in range(len(TERMS))])
        monte_carlo = error_of(answers)
    prior, prior_error = np.nan, np.nan
    if all(law.log_prior is not None for law in laws):
        changes, drawn = zip(
            *[prior_change(one, np.asarray(law.log_prior)) for one, law in zip(answers, laws, strict=True)], strict=True
        )
        change, deviation = float(weight @ changes), error_of(list(drawn))
        prior, prior_error = change**2, float(np.hypot(2 * change * deviation, np.sqrt(2) * deviation**2))
    return (
        np.array([between, *within, prior, monte_carlo**2]),
        np.array([between_error if len(laws) > 1 else np.nan, *within_error, prior_error, np.nan]),
    )


def _labeled(values: np.ndarray, law: _Law) -> xr.DataArray:
    return xr.DataArray(values.reshape(law.chains, -1), dims=("chain", "draw"))


def _shift_error(law: _Law, event: bool) -> float:
    """Return the standard error of the mean answer under a law, without errors that all stored laws share."""
    gain = law.terms.sum(axis=0)
    if not event:
        return law.shift_error or mean_error(gain, law.chains)
    if law.shift_error:
        return float((np.abs(gain) < law.shift_error).mean() / 2)
    return float(posterior.probability(_labeled(gain > 0, law))[1])


def _candidate_runs(planner: planning.Planner, candidates: Any, shape: Shape) -> Candidates | None:
    """Return the candidate runs; None if none are given and the ranges of the data or the residual noise are unknown."""
    fitted = planner.fitted
    if candidates is None:
        if "student_params" not in fitted.ranges or not has_noise(fitted.draws):
            return None
        candidates = proposed_candidates(fitted, None)
    return parse_candidates(candidates, shape, fitted.teacher_losses)


def _ratios(draws: Draws, runs: Candidates) -> np.ndarray:
    """Return the posterior median of r for each candidate run, (candidate,); NaN for pretrained runs."""
    found = np.full(len(runs.names), np.nan)
    taught = np.array(runs.kinds, dtype=str) == "distilled"
    if taught.any():
        student = draws.student(runs.params[taught, None], runs.tokens[taught, None])
        ratio = log_ratio(runs.teacher_loss[taught, None], student.log_ability, student.stretch)
        found[taught] = np.exp(np.median(ratio, axis=-1))
    return found


def _reductions(
    cell: xr.Dataset, sources: Mapping[str, planning.Planner], shares: Mapping[str, float], runs: Candidates
) -> np.ndarray:
    """Return the expected decrease of the variance of the expected gain by each run, (candidate,), (nats per token)^2."""
    gains, means, weights, noise = [], [], [], np.zeros(len(runs.names))
    for name, planner in sources.items():
        predicted = predict(planner.gathered, runs)  # of unique tokens
        gains.append(_terms(planner.fitted.draws, planner, cell)[:2].sum(axis=0))
        means.append(predicted.mean)
        weights.append(np.full(gains[-1].size, shares[name] / gains[-1].size))
        # The Fisher information about the location of a Student-t distribution, as in `information_order`.
        variance = predicted.scale**2 * (predicted.freedom + 3) / (predicted.freedom + 1)
        noise += shares[name] * variance.mean(axis=1)
    gain, mean, weight = np.concatenate(gains), np.concatenate(means, axis=1), np.concatenate(weights)
    gain = gain - weight @ gain
    mean = mean - (mean @ weight)[:, None]
    return np.asarray((mean @ (weight * gain)) ** 2 / (mean**2 @ weight + noise))


def _converged(sources: Mapping[str, planning.Planner]) -> str:
    states = {planner.fitted.attrs["converged"] for planner in sources.values()}
    return next(state for state in ("no", "unknown", "yes") if state in states)


def _title(values: Mapping[str, Any]) -> str:
    return (
        f"Where the uncertainty comes from: gain {values['gain']:+.4f} nats (standard deviation "
        f"{np.sqrt(values['gain_total']):.4f}), probability {posterior.tenths(values['probability'])}"
    )


_UNKNOWN = {
    LAW: "The part of the form of the law is unknown: it requires fits of several laws.",
    PRIORS: "The part of the priors is unknown: it requires fits with their coordinates, and no mixture.",
}
_WORDS = {
    LAW: "the form of the law",
    POSTERIOR: "the posterior of the law's parameters",
    "discrepancy": "the discrepancy of the law",
    "group effects": "the effects of student configurations",
    "residual noise": "the residual noise of single runs",
    "interactions": "the dependence between law and discrepancy",
    PRIORS: "the priors",
    MONTE_CARLO: "the Monte Carlo error",
}


def _sentences(values: Mapping[str, Any], runs: Candidates | None, unknown: str | None) -> list[str]:
    """Return which parts are the largest, and which candidate run reduces the variance most."""
    share = np.nan_to_num(values["gain_share"][0])
    first, second = np.argsort(-share, kind="stable")[:2]
    words = f"{share[first]:.0%} of the variance of the gain comes from {_WORDS[PARTS[first]]}"
    if share[first] < 0.5:
        words += f", {share[second]:.0%} from {_WORDS[PARTS[second]]}"
    if not values["gain_total"] > 0:
        words = "The gain is the same in all draws"
    found = [f"{words}."]
    if runs is not None and values["gain_total"] > 0:
        best = int(np.argmax(values["reduction"]))
        reduction, of = (
            float(values["reduction"][best]),
            f"{len(runs.names)} candidate run{'s' * (len(runs.names) > 1)}",
        )
        if reduction < _SMALL:
            found.append(f"None of {of} reduces the variance by more than {_SMALL:.0%}.")
        else:
            found.append(
                f"Of {of}, {_run_words(runs, best)} ({flops_words(runs.cost[best])} FLOPs) would reduce the variance most, "
                f"by an expected {reduction:.0%}."
            )
            found.append(_region_words(values))
    return [*found, unknown] if unknown else found


def _region_words(values: Mapping[str, Any]) -> str:
    """Return how much the candidate runs of each group reduce the variance on average, the most useful group first."""
    ratio, groups = values["ratio"], {"pretrained runs": np.isnan(values["ratio"])}
    for low, high in itertools.pairwise(_RATIOS):
        limits = f"below {high:g}" if low == 0 else f"above {low:g}" if np.isinf(high) else f"from {low:g} to {high:g}"
        groups[f"runs with r {limits}"] = (ratio >= low) & (ratio < high)
    means = {words: float(values["reduction"][of].mean()) for words, of in groups.items() if of.any()}
    listed = ", ".join(f"{mean:.1%} for {words}" for words, mean in sorted(means.items(), key=lambda pair: -pair[1]))
    return f"The average reduction is {listed}."


def _run_words(runs: Candidates, k: int) -> str:
    model = f"{size_words(runs.params[k])} parameters on {size_words(runs.tokens[k])} tokens"
    if runs.kinds[k] == "supervised":
        return f"a pretrained model of {model}"
    return f"a student of {model} with a teacher of {runs.teacher_loss[k]:.2f} nats"
