"""Question, answer, warnings and notes of a report in sentences."""

from __future__ import annotations

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.arguments import LEVELS
from bayesdistill.criticism import Check
from bayesdistill.plots.grids import changes_note, undetermined_note
from bayesdistill.plots.style import axis_words, fit_notes, power_of_ten, short, signed
from bayesdistill.posterior import PRIOR_SHARE, Fit, prior_dominated
from bayesdistill.reporting.first_page import meaning

_MODERATE = 3e20


def percent(value: float) -> str:
    """Format a probability as a percentage; never 0% or 100%, because the draws are finite."""
    if not np.isfinite(value):
        return "unknown"
    number = 100 * value
    return "more than 99%" if number > 99 else "less than 1%" if number < 1 else f"{number:.0f}%"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _sizes(plan: xr.Dataset) -> list[str]:
    return [short(float(size)) for size in plan["student"].values]


def _at(plan: xr.Dataset, scenario: str, budget: float) -> str:
    """Format the probabilities of all students at one budget."""
    sizes = _sizes(plan)
    cells = plan.sel(scenario=scenario, budget=budget)
    ranges = cells["law_range"].transpose("student", "bound").values if "law_range" in plan else [()] * len(sizes)
    words = [posterior.about(float(p), 0.0, ends) for p, ends in zip(cells["probability"].values, ranges, strict=True)]
    if len(sizes) == 1:
        return f"{words[0]} for a student of {sizes[0]}"
    if len(set(words)) == 1:
        return f"{words[0]} for students of {', '.join(sizes)}"
    return ", ".join(f"{word} for {size}" for word, size in zip(words, sizes, strict=True))


def question(plan: xr.Dataset | None, optimal: xr.Dataset | None = None) -> str:
    """Return the question of a report in a sentence."""
    if optimal is not None and "option" in optimal.dims:
        counts = zip(optimal["count"].values, optimal["student"].values, strict=True)
        listed = _listed([f"{count:g} of {short(float(size))}" for count, size in counts])
        return (
            f"With {power_of_ten(float(optimal.attrs['budget']))} FLOPs for a family of students ({listed} parameters), which of them "
            "should be distilled from one shared teacher, and which should be pretrained?"
        )
    if optimal is not None:
        ends = [power_of_ten(float(optimal["budget"][place])) for place in (0, -1)]
        between = f"of {ends[0]}" if len({*ends}) == 1 else f"from {ends[0]} to {ends[1]}"
        return f"Which model size and how many tokens minimize the loss of pretraining for budgets {between} FLOPs?"
    if plan is None:
        return "Which scaling law do the runs support? This report does not include a plan."
    budgets = plan["budget"].values
    lowest, highest = power_of_ten(float(budgets.min())), power_of_ten(float(budgets.max()))
    span = f"{lowest} to {highest} FLOPs ({budgets.size} budgets)" if budgets.size > 1 else f"{lowest} FLOPs"
    return (
        f"With {span}, should a language model of {_listed(_sizes(plan))} non-embedding parameters be distilled from a "
        "teacher, or pretrained with the same budget?"
    )


def _axes(plan: xr.Dataset) -> str:
    """Name the axes that are outside the range of the data, the most frequent first."""
    if "extrapolation_factor" not in plan:
        return ""
    factor = plan["extrapolation_factor"].where(plan["extrapolates"])
    share = (factor > 1).mean([name for name in factor.dims if name != "axis"]).to_series()
    share = share[share > 0].sort_values(ascending=False, kind="stable")
    named = [f"{axis_words(str(axis))} in {percent(value)}" for axis, value in share.items()]
    return f" ({', '.join(named)})" if named else ""


def answer_sentences(fit: Fit, plan: xr.Dataset) -> tuple[str, str, str]:
    """Return three sentences about a plan: moderate budget, largest budget, extrapolation.

    Parameters
    ----------
    fit : DataTree or Dataset
    plan : Dataset
        Result of `plan`.

    Returns
    -------
    tuple of str
        Three sentences.
    """
    budgets = plan["budget"].values.astype(float)
    scenarios = [str(name) for name in plan["scenario"].values]
    first_scenario, last_scenario = scenarios[0], scenarios[-1]
    near, far = float(budgets[np.argmin(np.abs(np.log(budgets / _MODERATE)))]), float(budgets.max())
    first = (
        f"At a budget of {power_of_ten(near)} FLOPs, distillation beats pretraining with probability "
        f"{_at(plan, first_scenario, near)} {meaning(first_scenario)}"
    )
    if len(scenarios) > 1:
        first += f", but with probability {_at(plan, last_scenario, near)} {meaning(last_scenario)}"
    if (level := plan.attrs.get("noise")) in LEVELS:
        first += f" (level {level}: {LEVELS[level]})"
    gain = plan["expected_gain"].sel(scenario=first_scenario, budget=far).values
    low, high = float(np.min(gain)), float(np.max(gain))
    nats = " to ".join(dict.fromkeys(signed(value, 4) for value in (low, high)))
    text = "unknown" if not np.isfinite(low) else f"{nats} nats per token"
    second = (
        f"At the largest budget, {power_of_ten(far)} FLOPs, the expected gain of distillation ({first_scenario}) is {text}, and "
        f"distillation wins with probability {_at(plan, first_scenario, far)}."
    )
    inside = 100 * float((~plan["extrapolates"]).mean())
    width = posterior.provenance(fit).get("asymptotic_width")
    third = (
        f"{'Only ' if inside < 50 else ''}{inside:.0f}% of the students, scenarios and budgets of the plan are within the range "
        "of the data"
    )
    if inside < 100:
        third += "; the others are marked as extrapolated"
        if width is not None:
            third += (
                f", and the influence of the prior on the asymptotic advantage (width {width} nats) increases with the number of "
                "tokens; use bd.prior_sensitivity to quantify it"
            )
    second = " ".join([second, *undetermined_note(plan)])
    # The answer does not stand without the warning, wherever it is quoted.
    limits = posterior.limits_of({**posterior.conflict_attribute(fit), **plan.attrs})
    return " ".join([f"{first}.", *limits]), second, f"{third}."


def optimal_sentences(optimal: xr.Dataset) -> tuple[str, ...]:
    """Return the answer of `compute_optimal`: sizes, tokens and losses at the lowest, a middle and the highest budget."""
    prob, found = posterior.INTERVAL_PROBABILITY, []
    for place in sorted({0, optimal.sizes["budget"] // 2, optimal.sizes["budget"] - 1}):
        cell = optimal.isel(budget=place)
        low, high = (float(v) for v in posterior.interval(cell["best_params"], prob))
        least, most = (float(v) for v in posterior.interval(cell["loss"], prob))
        size, tokens = (short(float(cell[name])) for name in ("params", "tokens"))
        text = (
            f"For {power_of_ten(float(cell['budget']))} FLOPs, the compute-optimal size is {size} parameters "
            f"({100 * prob:.0f}% interval of the optimum {short(low)} to {short(high)}) on {tokens} tokens, with a loss of "
            f"{float(posterior.median(cell['loss'])):.3f} nats ({least:.3f} to {most:.3f})"
        )
        if cell["extrapolates"]:
            far = float(cell["extrapolation"])
            text += "; this is outside the range of the data" + (
                f" by a factor of {far:.2g}" if np.isfinite(far) else ""
            )
        found.append(f"{text}.")
    low, high = (float(v) for v in posterior.interval(optimal["size_exponent"], prob))
    found.append(f"If C = 6 N D, the optimal size grows with a power of C between {low:.2f} and {high:.2f}.")
    level = str(optimal.attrs["noise"])
    return (*found, f"Losses are those at the level {level}: {LEVELS[level]}.")


def fit_sentences(fit: Fit) -> tuple[str, str, str]:
    """Return sentences about a fit without a plan: irreducible loss and residual scale."""
    draws = posterior.law_draws(fit)
    low, high = (float(v) for v in posterior.interval(draws["E"]))
    first = (
        f"With probability {100 * posterior.INTERVAL_PROBABILITY:.0f}%, the irreducible loss of the supervised law is "
        f"between {low:.3f} and {high:.3f} nats per token."
    )
    everything = posterior.posterior_dataset(fit)
    second = "The posterior does not contain the residual scale."
    if "sigma" in everything:
        low, high = (float(v) for v in posterior.interval(everything["sigma"]))
        second = f"The residual scale is between {low:.4f} and {high:.4f} nats per token (same probability)."
    if not posterior.is_distilled(fit):
        return first, second, "For compute-optimal sizes, pass the result of bd.compute_optimal to the report."
    return first, second, "To decide whether to distill, compute a plan and pass it to the report."


def warnings_and_notes(fit: Fit, plan: xr.Dataset | None, found: Check) -> dict[str, list[str]]:
    """Return the `warnings` above the answer and the `notes` below it; `found` is the result of `check`."""
    conflict = posterior.corpus_conflict(fit)
    warnings = [
        text for text in found.problems if conflict and conflict in text
    ]  # first, because nothing else matters then
    notes, ok, rest = [], found.ok, [text for text in found.problems if text not in warnings]
    if found.numbers["converged"] is False:
        warnings.append(f"The posterior did not converge; the numbers in this report may be wrong. {' '.join(rest)}")
    elif ok is False:
        warnings += rest
    elif ok is None:
        notes.append("The convergence of the draws is unknown.")
    warnings += found.cautions
    if plan is not None:
        notes += changes_note(plan)
        problems, remarks = fit_notes(plan)
        if ok is not False:
            warnings += [text.replace("this figure", "the plan") for text in problems]
        elif found.numbers["converged"]:
            warnings += [text for text in problems if not any(text in known for known in warnings)]
        # The warnings below list the prior-dominated coordinates by name.
        notes += [text for text in remarks if "converged" not in text and "rior-dominated" not in text]
        notes = [text for text in notes if text not in warnings]
        share = float(plan["extrapolates"].mean())
        if share:
            warnings.append(
                f"{percent(share).capitalize()} of the cells of the plan are outside the range of the data{_axes(plan)}. These "
                "results are extrapolations of the law, and depend increasingly on the prior."
            )
    names = prior_dominated(fit)
    if names:
        warnings.append(
            f"Prior-dominated: {_listed(names)}. The posterior of these standardized coordinates is at least {PRIOR_SHARE:g} "
            "times as wide as their prior, so results that depend on them reflect the prior rather than the runs."
        )
    if posterior.provenance(fit).get("supervised_law") == "published law" and not any("published" in n for n in notes):
        notes.append("The supervised law comes from the published-law prior, not from supervised runs.")
    return {"warnings": warnings, "notes": notes}
