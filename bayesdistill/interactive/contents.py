"""Data of the page: thinned draws, slider ranges, and notes about the posterior."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from bayesdistill import posterior
from bayesdistill.arguments import LEVELS, Range, Rule, check_fields, one_of, or_none
from bayesdistill.compute import SCENARIOS
from bayesdistill.decisions.arguments import Numbers, parse_numbers, parse_students
from bayesdistill.decisions.fitted_draws import FittedDraws
from bayesdistill.decisions.planning import Planner, at_level, bounds_of, deviations_of, problem_of
from bayesdistill.decisions.solving import CHOSEN, Workers, solve
from bayesdistill.errors import ParameterError
from bayesdistill.law import Draws
from bayesdistill.law.discrepancy import log_compute
from bayesdistill.law.predictive import Deviations
from bayesdistill.strategies import Bounds, supervised_losses
from bayesdistill.strategies.losses import Losses
from bayesdistill.strategies.region import Region, some_teacher

SCENARIO_TEXTS = {
    "best case": "The teacher and its logits are already available at no cost.",
    "teacher inference": "The teacher exists; running it on the student's tokens is charged.",
    "teacher pretraining": "The teacher is pretrained for K students; running it is not charged.",
    "teacher pretraining + inference": "The teacher is pretrained for K students; each student is also charged for running it.",
}
_KNOTS = 129  # number of teacher sizes at which the fewest and the most tokens are given
_STEPS = (1, 1.5, 2, 3, 4, 5, 6, 8)
_FEWEST_DRAWS = 20
_BUDGETS = 25  # number of budgets among which the first one is chosen
_FEWEST_TOKENS = 1e-3


@dataclass(frozen=True)
class Sliders:
    """Ranges and initial positions of the page's controls, and the number of draws."""

    students: Numbers
    budgets: Numbers
    max_students_per_teacher: int
    scenario: str | None
    draws: int

    def __post_init__(self) -> None:
        rules: dict[str, Rule] = {
            "draws": Range(_FEWEST_DRAWS, 1_000_000, whole=True),
            "scenario": or_none(one_of(*SCENARIOS)),
        }
        check_fields(self, max_students_per_teacher=Range(1, 1_000_000, whole=True), **rules)


def page_data(planner: Planner, sliders: Sliders) -> dict[str, Any]:
    """Return the data of the page as objects for JSON."""
    students = _two_ends(parse_students(sliders.students), "students")
    budgets = _two_ends(parse_numbers(sliders.budgets, "budgets"), "budgets")
    fitted, bounds = planner.fitted, bounds_of(planner)
    chosen = thinned(fitted.n_draws, sliders.draws)
    draws = {name: fitted.draws[name][chosen] for name in fitted.draws.law.symbols_of_law}
    deviations = deviations_of(planner)
    if deviations is not None:
        draws |= _deviation_values(deviations.take(chosen))
    paths, first = _knots(fitted.draws.take(chosen), students, budgets) if deviations is not None else ({}, {})
    broken = [name for name, values in draws.items() if not np.isfinite(values).all()]
    if broken:
        raise ParameterError(
            f"The draws of {', '.join(broken)} are not finite. Call bd.check(fit) and refit the model."
        )
    return {
        "level": planner.level,
        "currency": planner.currency,
        "level_note": f"Level {planner.level} compares {LEVELS[planner.level]}.",
        "paths": paths,
        "first_knots": first,
        "draws": {name: values.tolist() for name, values in draws.items()},
        "shape": {"k1": planner.shape.k1, "k2": planner.shape.k2},
        "bounds": {name: value if math.isfinite(value) else None for name, value in vars(bounds).items()}
        | dict(zip(("min_teacher_params", "max_teacher_params"), bounds.teacher_params, strict=True)),
        "region": _region(fitted.draws.take(chosen), bounds),
        "ranges": fitted.ranges,
        "size_scale": {
            "log_params": fitted.size_scale.log_params.tolist(),
            "log_excess": fitted.size_scale.log_excess.tolist(),
            "limit": fitted.size_scale.limit,
        },
        "students": students,
        "budgets": budgets,
        "shared": sharing_steps(sliders.max_students_per_teacher),
        "scenarios": [
            {"name": name, "delta_lgt": s.delta_lgt, "delta_pre": s.delta_pre, "text": SCENARIO_TEXTS[name]}
            for name, s in SCENARIOS.items()
        ],
        "start": opening(planner, chosen, students, budgets, sliders.scenario),
        "notes": notes(fitted),
        "about": about(planner, chosen.size),
    }


def opening(
    planner: Planner, chosen: np.ndarray, students: Sequence[float], budgets: Sequence[float], scenario: str | None
) -> dict[str, Any]:
    """Return the first question of the page: student, budget and scenario.

    The scenario is the one whose probability varies most with the budget, for one student per teacher, and the budget the one with the
    probability closest to one half.

    Parameters
    ----------
    planner : Planner
    chosen : (n,) array of int
        Positions of the draws of the page.
    students, budgets : two float
        Ends of the sliders.
    scenario : str, optional
        The scenario, if it is given.
    """
    student, names = _middle(students, 1e9), list(SCENARIOS) if scenario is None else [scenario]
    problem, _ = problem_of(planner, student, np.geomspace(min(budgets), max(budgets), _BUDGETS).tolist(), names)
    draws, deviations = planner.fitted.draws.take(chosen), deviations_of(planner)
    solved = solve(CHOSEN, draws, problem, Workers(threads=planner.threads))
    gain = supervised_losses(draws, problem)[:, None] - solved["loss"]
    gain = at_level(None if deviations is None else deviations.take(chosen), problem, gain, solved)[0]
    uncertain = np.where(np.isnan(gain).any(axis=-1), np.inf, np.abs((gain > 0).mean(axis=-1) - 0.5))
    reach = np.where(np.isfinite(uncertain), (gain > 0).mean(axis=-1), np.nan)
    spread = np.nan_to_num(np.fmax.reduce(reach, axis=1) - np.fmin.reduce(reach, axis=1), nan=-1.0)
    best = int(spread.argmax())
    return {
        "student": student,
        "budget": float(problem.budgets[uncertain[best].argmin()]),
        "scenario": names[best],
    }


def _region(draws: Draws, bounds: Bounds) -> dict[str, list[float]]:
    """Return the log of the fewest and of the most tokens of teachers that the bounds allow, by the log of their size."""
    losses = Losses(draws)
    if not some_teacher(losses, bounds):
        raise ParameterError("No new teacher is within the bounds. Increase `max_extrapolation`, or set it to None.")
    region = Region.of(losses, bounds)
    x = np.sort(np.append(np.linspace(region.box.left, region.box.right, _KNOTS), region.corners))
    bottom, top = (np.broadcast_to(edge, x.shape).tolist() for edge in region.edges(x))
    return {"x": x.tolist(), "bottom": bottom, "top": top}


def _deviation_values(deviations: Deviations) -> dict[str, np.ndarray]:
    """Return the values of every draw for `javascript.deviation_function`, without paths: all symbols, residuals and group effects."""
    found = {p.name: deviations.draws[p.name] for p in deviations.draws.law.parameters}
    found |= {"residual": deviations.residual, "pretrained_residual": deviations.pretrained_residual}
    for of, effects in (("own", deviations.effects), ("other", deviations.pretrained_effects)):
        found |= {f"{of}_{name}": values for name, values in effects.items()}
    return found


def _knots(
    draws: Draws, students: Sequence[float], budgets: Sequence[float]
) -> tuple[dict[str, list[list[float]]], dict[str, int]]:
    """Return paths in nats per token at whole positions that the page can reach, (n_draws, knot), and their first positions.

    Positions with fewer than `_FEWEST_TOKENS` tokens per parameter have the value of the first knot.
    """
    if draws.paths is None:
        return {}, {}
    reference, ratios = draws.reference, draws.paths.ratios
    smallest = min(students)
    most = max(budgets) / (6 * smallest)  # at least 6 FLOPs per parameter and token
    own = [log_compute(smallest, smallest * _FEWEST_TOKENS, reference), log_compute(smallest, most, reference)]
    positions: dict[str, list[Any]] = {"path": own}
    if ratios is not None:
        positions["ratio"] = [math.log(_FEWEST_TOKENS / ratios[0]), math.log(most / smallest / ratios[1])]
    without = replace(draws, paths=replace(draws.paths, ratios=None))
    paths, first = {}, {}
    for name, (low, high) in positions.items():
        whole = np.arange(np.floor(min(low, 0)), np.ceil(max(high, 0)) + 1)[:, None]
        # One number of tokens per parameter in the middle of its range, or far outside it with the same compute.
        outside = 0.0 if name == "path" or ratios is None else whole
        edge = 1.0 if ratios is None else np.where(outside < 0, *ratios)
        compute = reference.params * reference.tokens * np.exp(whole if name == "path" else 0.0 * whole)
        params = np.sqrt(compute / (edge * np.exp(outside)))
        for kind in ("supervised", "distilled"):
            found = without.discrepancy(kind, params, compute / params)
            if name == "ratio":
                found = draws.discrepancy(kind, params, compute / params) - found
            paths[f"{name}_{kind}"] = found.T.round(7).tolist()
        first[name] = int(whole[0, 0])
    return paths, first


def thinned(size: int, draws: int) -> np.ndarray:
    """Return the positions of `draws` evenly spaced draws, or of all draws if there are fewer."""
    count = min(int(draws), size)
    return np.arange(count) * size // count


def sharing_steps(highest: int) -> list[int]:
    """Return numbers of students from 1 to the highest, in about equal ratios."""
    decades = range(math.ceil(math.log10(highest)) + 1)
    steps = {int(step * 10**decade) for decade in decades for step in _STEPS}
    return sorted({step for step in steps if step < highest} | {int(highest)})


def _two_ends(values: np.ndarray, argument: str) -> list[float]:
    if values.size != 2:
        raise ParameterError(f"`{argument}` must be two values, (lowest, highest), got {values.size}.")
    return sorted(values.tolist())


def _middle(ends: Sequence[float], wanted: float) -> float:
    low, high = ends
    return wanted if low <= wanted <= high else math.sqrt(low * high)


def notes(fitted: FittedDraws) -> list[dict[str, Any]]:
    """Return notes about the posterior, which the page always shows."""
    found: list[dict[str, Any]] = []
    if fitted.attrs["converged"] == "no":
        failed = ", ".join(json.loads(fitted.attrs["convergence"])["failed"])
        found.append({"bad": True, "text": f"This posterior did not converge ({failed}). The results may be wrong."})
    elif fitted.attrs["converged"] != "yes":
        found.append({"bad": False, "text": "Convergence of these posterior draws is unknown."})
    if conflict := fitted.attrs.get(posterior.CONFLICT_ATTRIBUTE):
        found.append({"bad": True, "text": conflict})
    published = json.loads(fitted.attrs["posterior_provenance"]).get("supervised_law") == "published law"
    names = json.loads(fitted.attrs["prior_dominated"])
    found += [{"bad": False, "text": text} for text in posterior.prior_sentences(names, published)]
    found += [{"bad": True, "text": text} for text in json.loads(fitted.attrs["fixed_axes"]).values()]
    return found


def about(planner: Planner, count: int) -> list[str]:
    """Return lines for the footer: draws, data, ranges, bounds, versions and law."""
    fitted, bounds = planner.fitted, bounds_of(planner)
    known = json.loads(fitted.attrs["posterior_provenance"])
    lines = [f"Draws: {count} of {fitted.n_draws}, evenly spaced over all chains."]
    for kind, table in sorted((known.get("data") or {}).items()):
        runs = table.get("runs", "unknown number of")
        source, sha256 = table.get("source", "unknown"), table.get("sha256", "unknown")
        lines.append(f"Data, {kind}: {runs} runs, source {source}, SHA-256 {sha256}.")
    if not known.get("data"):
        lines.append("Data: unknown.")
    seen = "; ".join(f"{name.replace('_', ' ')} {low:.4g} to {high:.4g}" for name, (low, high) in fitted.ranges.items())
    if seen:
        lines.append(f"Range of the data: {seen} (supervised law: {fitted.attrs['supervised_range']}).")
    most = bounds.max_student_tokens
    student = f"at most {most:g}" if math.isfinite(most) else "limited by the budget only"
    lines += [
        f"Teachers: {bounds.min_teacher_params:g} to {bounds.max_teacher_params:g} parameters, at most "
        f"{bounds.max_teacher_tokens:g} tokens. Student tokens: {student}.",
        "Losses and gains refer to the law's mean curves, in nats per token.",
    ]
    made = [f"{name} {number}" for name, number in sorted((known.get("versions") or {}).items())]
    if made:
        lines.append(f"Fit: {', '.join(made)}; seed {known.get('seed', 'unknown')}.")
    law = fitted.draws.law
    terms = ", ".join(term.name for term in law.terms)
    return [
        *lines,
        f"Page: bayesdistill {version('bayesdistill')}.",
        f"Law: {law.name}, {law.reference}. Terms: {terms}.",
    ]
