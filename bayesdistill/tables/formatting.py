"""Numbers of tables as short strings, and their columns under headings with units."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pandas as pd

from bayesdistill import posterior
from bayesdistill.plots.style import power_of_ten, short

Format = Callable[[Any], str]


def _chance(value: float) -> str:
    # Two decimals, but never a certainty that no finite number of draws can give.
    if value > 0.995:
        return "> 0.99"
    return "< 0.01" if value < 0.005 else f"{value:.2f}"


def _nats(value: float) -> str:
    return f"{value:+.4f}"


def _loss(value: float) -> str:
    return f"{value:.4f}"


def _tiny(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def _number(value: float) -> str:
    return "infinite" if math.isinf(value) else f"{value:.3g}"


def _plain(value: Any) -> str:
    return str(value).replace("_", " ")


def _yes(value: Any) -> str:
    return "yes" if value else "no"


_FORMATS: dict[str, tuple[str, Format]] = {
    "student": ("student", short),
    "scenario": ("scenario", str),
    "budget": ("budget [FLOPs]", power_of_ten),
    "tokens": ("tokens", short),
    "students_per_teacher": ("students per teacher", _number),
    "probability": ("P(distillation ahead)", _chance),
    "probability_mcse": ("MC error", lambda value: f"{value:.3f}"),
    "probability_best": ("P(best strategy ahead)", _chance),
    "expected_gain": ("gain [nats]", _nats),
    "expected_gain_mcse": ("MC error of gain [nats]", _tiny),
    "regret": ("regret [nats]", _tiny),
    "evpi": ("EVPI [nats]", _tiny),
    "teacher_params": ("teacher [parameters]", short),
    "teacher_tokens": ("teacher tokens", short),
    "teacher_loss": ("teacher loss [nats]", lambda value: f"{value:.3f}"),
    "student_tokens": ("student tokens", short),
    "status": ("status", _plain),
    "extrapolates": ("extrapolates", _yes),
    "crossed": ("P(crosses)", _chance),
    "always": ("P(always ahead)", _chance),
    "never": ("P(never ahead)", _chance),
    "reversed": ("P(ahead later)", _chance),
    "impossible": ("P(no strategy)", _chance),
    # predict
    "run": ("run", str),
    "model": ("model", str),
    "student_params": ("student [parameters]", short),
    "observed": ("observed [nats]", _loss),
    "residual": ("residual [nats]", _nats),
    # crossovers
    "fit": ("posterior", str),
    "pretraining_ahead_range": ("range among posteriors at the largest budget", lambda value: f"{value:.2f}"),
    "eventually_range": ("range among posteriors without limit", lambda value: f"{value:.2f}"),
    "slope_probability": ("P(every student crosses)", _chance),
    "slope_positive_probability": ("P(grows, if so)", _chance),
    "eventually_probability": ("P(pretraining ahead without limit)", _chance),
    "pretraining_ahead_probability": ("P(pretraining ahead at the largest budget)", _chance),
    "crossed_within_data_probability": ("P(crosses within the data)", _chance),
    # break_even
    "pays_alone": ("P(pays for one)", _chance),
    "pays_shared": ("P(pays if shared)", _chance),
    "pays_beyond": ("P(pays beyond the search)", _chance),
    "pays_never": ("P(never pays)", _chance),
    "pays_impossible": ("P(no strategy)", _chance),
    # teacher_choice
    "teacher": ("teacher", str),
    "measured_loss": ("its loss [nats]", lambda value: f"{value:.3f}"),
    "expected_loss": ("student loss [nats]", _loss),
    "is_best_probability": ("P(best of the table)", _chance),
    "probability_stronger_worse": ("P(next stronger is worse)", _chance),
    "probability_new_better": ("P(new teacher is better)", _chance),
    "probability_pretraining_better": ("P(pretraining is better)", _chance),
    "chosen": ("chosen", _yes),
    # plan_value
    "unreachable_probability": ("P(no compute reaches it)", _chance),
    "gain_flops": ("gain [FLOPs]", _tiny),
    "regret_flops": ("regret [FLOPs]", _tiny),
    "evpi_flops": ("EVPI [FLOPs]", _tiny),
    "gain_gpu_hours": ("gain [GPU-hours]", _tiny),
    "regret_gpu_hours": ("regret [GPU-hours]", _tiny),
    "evpi_gpu_hours": ("EVPI [GPU-hours]", _tiny),
    "gain_money": ("gain [money]", _number),
    "regret_money": ("regret [money]", _number),
    "evpi_money": ("EVPI [money]", _number),
    # evppi
    "quantity": ("quantity", str),
    "evppi": ("EVPPI [nats]", _tiny),
    "evppi_mcse": ("MC error", _tiny),
    "evppi_share": ("share of EVPI", _chance),
    # family_plan
    "count": ("students", _number),
    "decision": ("decision", _plain),
    "decision_value": ("value of the decision [nats]", _tiny),
    "decision_probability": ("P(right decision)", _chance),
    "probability_better": ("P(better than if all are pretrained)", _chance),
    "student_budget": ("compute [FLOPs]", power_of_ten),
    # recommendations and claims
    "given": ("given", str),
    "case": ("case", str),
    "amount": ("FLOPs or tokens", power_of_ten),
    "advice": ("advice", str),
    "extrapolation": ("extrapolation factor", _number),
    "teacher_extrapolation": ("extrapolation factor of the teacher", _number),
    "restricted": ("nearer teacher", _yes),
    "statement": ("claim", str),
    "claim_probability": ("P(claim)", _chance),
    "verdict": ("verdict", str),
    # next_runs
    "candidate": ("run", str),
    "rank": ("rank", str),
    "kind": ("kind", str),
    "params": ("parameters", short),
    "cost": ("cost [FLOPs]", power_of_ten),
    "evsi": ("value [nats]", _tiny),
    "evsi_mcse": ("MC error [nats]", _tiny),
    "evsi_per_flop": ("value per FLOP", _tiny),
    "change_probability": ("P(changes a choice)", _chance),
    "effective_draws": ("effective draws", lambda value: f"{value:.0f}"),
    "batch_position": ("in the batch", lambda value: str(value) if value else "-"),
    # capacity_gap
    "training": ("training of the student", _number),
}
_INTERVALS: dict[str, tuple[str, Format]] = {
    "loss": ("loss [nats]", _loss),
    "crossover": ("crossover [FLOPs]", power_of_ten),
    "crossover_extrapolation": ("extrapolation factor of the crossover", _number),
    "slope": ("growth: power of the student's size", lambda value: f"{value:.2g}"),
    "students_per_teacher": ("break-even students per teacher", _number),
    "served_tokens": ("break-even served tokens", lambda value: "infinite" if math.isinf(value) else short(value)),
    "compute_factor": ("equivalent compute over budget", _number),
    "best_teacher": ("best teacher", lambda value: short(value) if value > 1e3 else f"{value:.3f}"),
}
"""Columns that come in threes: `_lower`, `_median`, `_upper`."""
_AT = re.compile(r"probability at (.+)")


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of this package as short strings under headings with units.

    Parameters
    ----------
    frame : DataFrame
        From `plan_table`, `summary_table` or `decision_table`. Columns that are not known are kept, as text.

    Returns
    -------
    DataFrame
        Strings. Three columns of a median and an interval become one, `median (lower to upper)`; the two of the budgets
        inside the data become one too. What is missing is a dash.
    """
    out: dict[str, list[str]] = {}
    for column in frame.columns:
        name, values = str(column), frame[column].tolist()
        stem, _, part = name.rpartition("_")
        if (stem in _INTERVALS and part in ("lower", "upper")) or name == "inside_to":
            continue
        if stem in _INTERVALS and part == "median":
            prob = frame.attrs.get("interval_prob", posterior.INTERVAL_PROBABILITY)
            heading, form = _INTERVALS[stem]
            parts = [frame[f"{stem}_{end}"].tolist() for end in ("lower", "median", "upper")]
            bound = _crossover_bound(frame) if stem == "crossover" else form
            out[f"{heading} ({100 * prob:.0f} % interval)"] = [
                _interval(bound, *ends) for ends in zip(*parts, strict=True)
            ]
        elif name == "inside_from":
            ends = zip(values, frame["inside_to"].tolist(), strict=True)
            out["inside the data [FLOPs]"] = [
                "nowhere" if math.isnan(low) else f"{power_of_ten(low)} to {power_of_ten(high)}" for low, high in ends
            ]
        elif at := _AT.fullmatch(name):
            out[f"P at {at.group(1)}"] = [_or_dash(value, _chance) for value in values]
        else:
            heading, form = _FORMATS.get(name, (name, str))
            heading = heading.replace("[money]", f"[{frame.attrs.get('currency', 'money')}]")
            out[heading] = [_or_dash(value, form) for value in values]
    return pd.DataFrame(out)


def _or_dash(value: Any, form: Format) -> str:
    return "-" if value is None or (isinstance(value, float) and math.isnan(value)) else form(value)


def _interval(bound: Format, low: float, middle: float, high: float) -> str:
    if math.isnan(middle):
        return "-"
    if bound(low) == bound(high):
        return bound(middle)
    return f"{bound(middle)} ({bound(low)} to {bound(high)})"


def _crossover_bound(frame: pd.DataFrame) -> Format:
    """0 and infinity say that there is no crossover within the budgets."""

    def bound(value: float) -> str:
        if value == 0:
            return f"< {power_of_ten(frame.attrs['lowest_budget'])}" if "lowest_budget" in frame.attrs else "below"
        if math.isinf(value):
            return f"> {power_of_ten(frame.attrs['highest_budget'])}" if "highest_budget" in frame.attrs else "beyond"
        return power_of_ten(value)

    return bound
