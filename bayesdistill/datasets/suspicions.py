"""Checks for tables with valid but implausible values.

Every check returns sentences that name the column, a row, the value, the expected value and the likely cause. The checks are
heuristic; `read_runs(..., allow_suspicious=True)` skips them.

Magnitudes: Language models have at least 1e3 parameters and are trained on at least 1e4 tokens, so sizes such as 143 or 0.143 are
probably given in millions or billions. The smallest models in the literature (1e4 parameters, 1e5 tokens) pass. Smaller errors of
units (143,000 for 143 million) are detected from the tokens per parameter, D/N, which are between 1 and a few thousand in scaling
studies. If the median is outside 0.05 to 15,000, a column probably has the wrong units. If a minority of rows differs from all
others by a factor of 200 or more, and a factor of 1e3, 1e6 or 1e9 removes the difference, these rows probably have the wrong units.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from bayesdistill.arguments import QUANTITIES
from bayesdistill.datasets.files import RawTable
from bayesdistill.datasets.schemas import COLUMNS, KINDS

_RATIO_RANGE = (0.05, 1.5e4)
_USUAL_RATIO = 30.0
_APART = 200.0
_FACTORS = {1e3: "thousands", 1e6: "millions", 1e9: "billions"}
_HIGHEST_MEDIAN_LOSS = 7.5  # nats; about the loss of a unigram model with a large vocabulary
# Fraction of rows; nats. In the published runs, 12% of the students have a lower loss than their teacher.
_SWAPPED_SHARE, _SWAPPED_GAP = 0.8, 0.02
_FEWEST_SWAPPED = 10  # runs of a design; in smaller designs, all students may be better than a weak teacher
_LOSS_TOLERANCE = 1e-3  # nats within one teacher, for rounding
_PARAMS_TOLERANCE = 0.01  # relative, within one student, for sizes rounded to three digits


def found(raw: RawTable, frame: pd.DataFrame, kind: str, *, design: bool = False) -> list[str]:
    """Return the implausible values of a table with valid cells.

    Parameters
    ----------
    raw : RawTable
        Raw table, for row names in messages.
    frame : pandas.DataFrame
        Table with the model columns as floats.
    kind : {"distilled", "supervised"}
        Kind of table.
    design : bool
        Whether the runs are only predicted: the outcome may be missing, and columns may be constant.

    Returns
    -------
    list of str
        One sentence per problem; empty for a plausible table.
    """
    problems = _magnitudes(raw, frame, kind)
    if kind == "distilled":
        # Do not report a size with wrong units again as inconsistent with its student label.
        swapped = [] if design and (len(frame) < _FEWEST_SWAPPED or "student_loss" not in frame) else _swapped(frame)
        problems += swapped or ([] if problems else _labels(raw, frame))
    problems += _losses(raw, frame, kind)
    return problems if design else problems + _constant(frame, kind)


# Sizes and tokens ---------------------------------------------------------------------------------------------------


def _magnitudes(raw: RawTable, frame: pd.DataFrame, kind: str) -> list[str]:
    size, tokens = KINDS[kind][:2]
    log_ratio = np.log10(frame[tokens]) - np.log10(frame[size])  # unlike D/N, it does not overflow
    return (
        _out_of_range(raw, frame, log_ratio, size, tokens)
        or _ratio_of_table(log_ratio, size, tokens)
        or _ratio_of_rows(raw, frame, log_ratio, size, tokens)
    )


def _out_of_range(raw: RawTable, frame: pd.DataFrame, log_ratio: pd.Series, size: str, tokens: str) -> list[str]:
    few_params = frame[size] < QUANTITIES["params"].fewest
    few_tokens = frame[tokens] < QUANTITIES["tokens"].fewest
    problems = []
    # If both are too small, assume that tokens are in billions, the most common unit, and infer the unit of the size.
    if few_params.any():
        believed = log_ratio.where(~few_tokens, log_ratio + 9)[few_params]
        factor = _likeliest_factor(believed, of=size)
        problems.append(_slip(raw, frame[size], few_params, factor, "is too few parameters for a language model"))
    if few_tokens.any():
        factor = 1e9 if few_params.any() else _likeliest_factor(log_ratio[few_tokens], of=tokens)
        problems.append(_slip(raw, frame[tokens], few_tokens, factor, "is too few tokens to train a language model"))
    for name, other in ((size, tokens), (tokens, size)):
        many = frame[name] > QUANTITIES[COLUMNS[name].quantity].most
        if many.any():
            # Dividing one column changes the ratio like multiplying the other.
            factor = 1 / _likeliest_factor(log_ratio[many], of=other)
            what = f"is more {COLUMNS[name].units} than any published model has"
            problems.append(_slip(raw, frame[name], many, factor, what))
    return problems


def _likeliest_factor(log_ratio: pd.Series, of: str) -> float:
    """Return the factor on a column that gives the most usual tokens per parameter."""
    sign = 1 if COLUMNS[of].quantity == "tokens" else -1
    off = float(log_ratio.median()) - math.log10(_USUAL_RATIO)
    return min(_FACTORS, key=lambda factor: abs(off + sign * math.log10(factor)))


def _slip(raw: RawTable, values: pd.Series, rows: pd.Series, factor: float | None, what: str) -> str:
    """Describe rows whose value in one column is probably wrong by a factor."""
    first = int(np.flatnonzero(rows)[0])
    value = values.iloc[first]
    count = f" (one of {rows.sum()} such rows)" if rows.sum() > 1 else ""
    text = f"{raw.at(first)}, column {values.name}: {value:.6g}{count} {what}"
    if factor is None:
        return text
    change = f"{_FACTORS[factor]}, multiply by {_power(factor)}" if factor > 1 else f"divide by {_power(1 / factor)}"
    return f"{text}; probably {value * factor:.6g} was meant ({change})"


def _power(factor: float) -> str:
    return f"1e{round(math.log10(factor))}"


def _ratio_of_table(log_ratio: pd.Series, size: str, tokens: str) -> list[str]:
    ratio = 10 ** float(log_ratio.median())
    low, high = _RATIO_RANGE
    if low <= ratio <= high:
        return []
    small, large = (tokens, size) if ratio < low else (size, tokens)
    factor = _likeliest_factor(log_ratio, of=small)
    return [
        f"columns {size} and {tokens}: the median run has {ratio:.3g} tokens per parameter; expected {low:g} to "
        f"{high:g}. Either {small} is in {_FACTORS[factor]} (multiply it by {_power(factor)}), or {large} is {_power(factor)} "
        "times too large"
    ]


def _ratio_of_rows(raw: RawTable, frame: pd.DataFrame, ratio: pd.Series, size: str, tokens: str) -> list[str]:
    """Find rows whose tokens per parameter (log10) differ by a factor of about 1e3, 1e6 or 1e9."""
    ordered = np.sort(ratio)
    for cut in np.flatnonzero(np.diff(ordered) > math.log10(_APART)):
        for odd, direction in ((ratio <= ordered[cut], 1), (ratio > ordered[cut], -1)):
            if odd.mean() >= 0.5:
                continue
            rest = ratio[~odd]
            for factor in _FACTORS:
                corrected = ratio[odd] + direction * math.log10(factor)
                if corrected.between(rest.min() - 0.3, rest.max() + 0.3).all():
                    small, large = (tokens, size) if direction > 0 else (size, tokens)
                    large_is_odd = (frame.loc[odd, large] > 10 * frame.loc[~odd, large].max()).all()
                    name, change = (large, 1 / factor) if large_is_odd else (small, factor)
                    what = f"gives {10 ** ratio[odd].iloc[0]:.3g} tokens per parameter, far from all other runs"
                    return [_slip(raw, frame[name], odd, change, what)]
    return []


# Losses -------------------------------------------------------------------------------------------------------------


def _losses(raw: RawTable, frame: pd.DataFrame, kind: str) -> list[str]:
    advice = "expected nats per token; take the natural logarithm of a perplexity, or multiply bits per token by 0.6931"
    problems = []
    for name in KINDS[kind]:
        if COLUMNS[name].quantity != "loss" or name not in frame:
            continue
        values, high = frame[name], frame[name] > QUANTITIES["loss"].most
        if high.any():
            nats = math.log(values[high].iloc[0])
            what = f"is larger than the loss of a uniform prediction; if it is a perplexity, its logarithm is {nats:.4f}; {advice}"
            problems.append(_slip(raw, values, high, None, what))
        elif values.median() > _HIGHEST_MEDIAN_LOSS:
            problems.append(
                f"column {name}: the median is {values.median():.4g}, larger than the loss of a unigram model; {advice}"
            )
    return problems


def _swapped(frame: pd.DataFrame) -> list[str]:
    better = frame["teacher_loss"] - frame["student_loss"]
    share = (better > 0).mean()
    if share >= _SWAPPED_SHARE and better.median() > _SWAPPED_GAP:
        return [
            f"columns teacher_loss and student_loss: the student is better than its teacher in {(better > 0).sum()} of "
            f"{len(frame)} runs, by {better.median():.3g} nats in the median; the two columns are probably swapped"
        ]
    if "teacher" in frame:
        groups = frame.groupby("teacher")[["teacher_loss", "student_loss"]]
        spread = (groups.max() - groups.min())[frame.groupby("teacher").size() > 1]
        if (spread["student_loss"] <= _LOSS_TOLERANCE).all() and (spread["teacher_loss"] > _LOSS_TOLERANCE).any():
            return [
                "columns teacher_loss and student_loss: runs with the same teacher have equal student_loss and different "
                "teacher_loss; the two columns are probably swapped"
            ]
    return []


def _labels(raw: RawTable, frame: pd.DataFrame) -> list[str]:
    """Find labels of one teacher or student with different values."""
    problems = []
    for label, name in (("teacher", "teacher_loss"), ("student", "student_params")):
        if label not in frame:
            continue
        usual = frame.groupby(label)[name].transform("median")
        tolerance = _LOSS_TOLERANCE if label == "teacher" else _PARAMS_TOLERANCE * usual
        for value, rows in frame[(frame[name] - usual).abs() > tolerance].groupby(label):
            odd, here = int(rows.index[0]), float(rows[name].iloc[0])
            distance = (frame[name] - here).abs().where(frame[label] == value, -1.0).to_numpy()
            other = int(distance.argmax())
            there = float(frame[name].iloc[other])
            problems.append(
                f"{raw.at(odd)}, column {name}: {here:.6g} for {label} {str(value)!r}, which has {there:.6g} in "
                f"{raw.at(other)}; each {label} must have one {name}, so correct it or use different labels in column {label}"
            )
    return problems


def _constant(frame: pd.DataFrame, kind: str) -> list[str]:
    causes = {"params": "size", "tokens": "tokens", "loss": "the teacher"}
    return [
        f"column {name}: all {len(frame)} values are {frame[name].iloc[0]:.6g}, so these runs do not determine the "
        f"dependence of the loss on {causes[COLUMNS[name].quantity]}; add runs with other values"
        for name in KINDS[kind][:-1]
        if frame[name].min() == frame[name].max()
    ]
