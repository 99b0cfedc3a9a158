"""The question, the answer in three sentences, and what the reader must be warned of."""

from __future__ import annotations

import numpy as np
import xarray as xr

from bayesdistill import posterior
from bayesdistill.plots.style import fit_notes, power_of_ten, short
from bayesdistill.posterior import PRIOR_SHARE, Fit, prior_dominated

_MODERATE = 3e20
_MEANINGS = {
    "best case": "if the teacher and its logits are already paid for",
    "teacher inference": "if the student must pay for its teacher's inference",
    "teacher pretraining": "if this one student must pay for its teacher's pretraining",
    "teacher pretraining + inference": "if this one student must pay for its teacher's pretraining and inference",
}


def percent(value: float) -> str:
    """A probability in words; never a certainty that no finite number of draws can give."""
    if not np.isfinite(value):
        return "unknown"
    number = 100 * value
    return "more than 99 %" if number > 99 else "less than 1 %" if number < 1 else f"{number:.0f} %"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _at(plan: xr.Dataset, scenario: str, budget: float) -> str:
    """Probabilities of all students at one budget."""
    row = plan["probability"].sel(scenario=scenario, budget=budget)
    sizes = [short(float(size)) for size in plan["student"].values]
    words = [percent(float(p)) for p in row.values]
    if len(sizes) == 1:
        return f"{words[0]} for a student of {sizes[0]}"
    if len(set(words)) == 1:
        return f"{words[0]} for students of {', '.join(sizes)}"
    return ", ".join(f"{word} ({size})" for word, size in zip(words, sizes, strict=True))


def _meaning(scenario: str) -> str:
    return _MEANINGS.get(scenario, f"in the scenario '{scenario}'")


def question(plan: xr.Dataset | None) -> str:
    """What was asked, in a sentence."""
    if plan is None:
        return "What do the runs say about the scaling law? No plan was given, so no decision was asked for."
    sizes = _listed([short(float(size)) for size in plan["student"].values])
    budgets, scenarios = plan["budget"].values, [str(name) for name in plan["scenario"].values]
    span = f"{power_of_ten(float(budgets.min()))} FLOPs"
    if budgets.size > 1:
        span = f"{power_of_ten(float(budgets.min()))} to {power_of_ten(float(budgets.max()))} FLOPs ({budgets.size} budgets)"
    return (
        f"With {span}, should a language model of {sizes} non-embedding parameters be distilled from a teacher, or "
        f"pretrained on the same budget? Scenarios of who pays for the teacher: {_listed(scenarios)}."
    )


def answer_sentences(fit: Fit, plan: xr.Dataset) -> tuple[str, str, str]:
    """The answer of a plan: at a moderate budget, at the largest one, and how much of it the data carry.

    Parameters
    ----------
    fit : DataTree or Dataset
    plan : Dataset
        What `plan` returned.

    Returns
    -------
    tuple of str
        Three sentences.
    """
    budgets = plan["budget"].values.astype(float)
    scenarios = [str(name) for name in plan["scenario"].values]
    cheap, dear = scenarios[0], scenarios[-1]
    near, far = float(budgets[np.argmin(np.abs(np.log(budgets / _MODERATE)))]), float(budgets.max())
    first = (
        f"At a budget of {power_of_ten(near)} FLOPs, distilling beats pretraining with probability "
        f"{_at(plan, cheap, near)} {_meaning(cheap)}"
    )
    if len(scenarios) > 1:
        first += f", but with probability {_at(plan, dear, near)} {_meaning(dear)}"
    lead = plan["expected_gain"].sel(scenario=cheap, budget=far).values
    low, high = float(np.min(lead)), float(np.max(lead))
    nats = f"{low:+.4f}" if low == high else f"{low:+.4f} to {high:+.4f}"
    known = "unknown" if not np.isfinite(low) else f"{nats} nats per token"
    second = (
        f"At the largest budget, {power_of_ten(far)} FLOPs, the expected lead of distillation ({cheap}) is {known}, and "
        f"distillation is ahead with probability {_at(plan, cheap, far)}."
    )
    inside = 100 * float((~plan["extrapolates"]).mean())
    width = posterior.provenance(fit).get("asymptotic_width")
    third = (
        f"{'Only ' if inside < 50 else ''}{inside:.0f} % of the grid of students, scenarios and budgets lies within what the "
        "runs have seen"
    )
    if inside < 100:
        third += "; the rest is marked as extrapolated"
        if width is not None:
            third += (
                ", and the more data a budget buys, the larger is the part of the prior on the asymptotic advantage "
                f"({width} nats wide); bd.prior_sensitivity says how large"
            )
    return f"{first}.", second, f"{third}."


def fit_sentences(fit: Fit) -> tuple[str, str, str]:
    """The same for a fit without a plan: the irreducible loss, the scatter, and what was not asked."""
    draws = posterior.law_draws(fit)
    low, high = (float(v) for v in posterior.interval(draws["E"]))
    first = (
        f"With probability {100 * posterior.INTERVAL_PROBABILITY:.0f} % the irreducible loss of the supervised law is "
        f"between {low:.3f} and {high:.3f} nats per token."
    )
    everything = posterior.posterior_dataset(fit)
    second = "The posterior does not contain the residual scale of single runs."
    if "sigma" in everything:
        low, high = (float(v) for v in posterior.interval(everything["sigma"]))
        second = f"The residual scale of single runs is {low:.4f} to {high:.4f} nats per token (same probability)."
    return first, second, "Whether to distill was not asked: make a plan, and give it to the report."


def warnings_and_notes(fit: Fit, plan: xr.Dataset | None, verdict: str, ok: bool | None) -> dict[str, list[str]]:
    """What stands above the answer (`warnings`) and below it (`notes`)."""
    warnings, notes = [], []
    if ok is False:
        warnings.append(f"The posterior behind this report did not converge; its numbers may be wrong. {verdict}")
    elif ok is None:
        notes.append("Whether the draws behind this report converged is not known.")
    if plan is not None:
        said, noted = fit_notes(plan)
        if ok is not False:
            warnings += [text.replace("this figure", "the plan") for text in said]
        # What the prior dominates stands among the warnings, with the coordinates' own names.
        notes += [text for text in noted if "converged" not in text and "rior-dominated" not in text]
        share = float(plan["extrapolates"].mean())
        if share:
            warnings.append(
                f"{percent(share).capitalize()} of the cells of the plan lie outside what the runs have seen. There the answer "
                "is the law's extrapolation, and increasingly the prior's."
            )
    names = prior_dominated(fit)
    if names:
        warnings.append(
            f"Prior-dominated: {_listed(names)}. The posterior of these standardised coordinates is at least {PRIOR_SHARE:g} "
            "times as wide as their prior, so that what depends on them rests on the prior and not on the runs."
        )
    if posterior.provenance(fit).get("supervised_law") == "published law" and not any("published" in n for n in notes):
        notes.append("The supervised law comes from the published-law prior, not from supervised runs.")
    return {"warnings": warnings, "notes": notes}
