"""Tables whose cells are all possible but which, taken together, cannot mean what they say.

Every check returns sentences that name the column, a row, the value, what was expected and what was probably meant. All of
them are judgements: `read_runs(..., allow_suspicious=True)` leaves them out.

Magnitudes. No language model has fewer than 1e3 parameters, and none is trained on fewer than 1e4 tokens, so 143 or 0.143
parameters stand for millions or billions; the smallest models that people study (1e4 parameters, 1e5 tokens) pass. Larger slips
(143,000 for 143 million) show in the tokens per parameter, D/N. Scaling studies lie between 1 and a few thousand, so a median
outside 0.05 to 15,000 means that a column is in other units; and a few rows set apart from all others by a factor of 200 or
more, which a factor of 1e3, 1e6 or 1e9 would bring back among them, mean that these rows are.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesdistill.datasets.files import RawTable
from bayesdistill.datasets.schemas import COLUMNS, KINDS

_FEWEST = {"params": 1e3, "tokens": 1e4}
_MOST = {"params": 1e14, "tokens": 1e17}
_RATIO_RANGE = (0.05, 1.5e4)
_USUAL_RATIO = 30.0
_APART = 200.0
_FACTORS = {1e3: "thousands", 1e6: "millions", 1e9: "billions"}
_HIGHEST_LOSS = 12.0  # nats; what guessing at random among 163,000 tokens costs
_HIGHEST_MEDIAN_LOSS = 7.5  # nats; about what knowing only how often each token of a large vocabulary occurs costs
_SWAPPED_SHARE, _SWAPPED_GAP = 0.8, 0.02  # of rows; nats. In the published runs 12 % of students beat their teacher
_FEWEST_SWAPPED = 10  # runs of a design; a few runs with a weak teacher all beat it
_LOSS_TOLERANCE = 1e-3  # nats within one teacher: rounding
_PARAMS_TOLERANCE = 0.01  # relative, within one student: sizes are quoted to three digits


def found(raw: RawTable, frame: pd.DataFrame, kind: str, *, design: bool = False) -> list[str]:
    """Everything about a table with valid cells that is probably a mistake.

    Parameters
    ----------
    raw : RawTable
        For the names of rows.
    frame : pandas.DataFrame
        The table, its model columns as floats.
    kind : {"distilled", "supervised"}
        Which columns.
    design : bool
        Whether the law is only evaluated at these runs: the outcome may be missing, and columns may be constant.

    Returns
    -------
    list of str
        One sentence a problem; empty for a table that raises no doubt.
    """
    problems = _magnitudes(raw, frame, kind)
    if kind == "distilled":
        # A size that is off by a factor would be reported again, as one that differs from its student's others.
        swapped = [] if design and (len(frame) < _FEWEST_SWAPPED or "student_loss" not in frame) else _swapped(frame)
        problems += swapped or ([] if problems else _labels(raw, frame))
    problems += _losses(raw, frame, kind)
    return problems if design else problems + _constant(frame, kind)


# Sizes and tokens ---------------------------------------------------------------------------------------------------


def _magnitudes(raw: RawTable, frame: pd.DataFrame, kind: str) -> list[str]:
    size, tokens = KINDS[kind][:2]
    return (
        _out_of_range(raw, frame, size, tokens)
        or _ratio_of_table(frame, size, tokens)
        or _ratio_of_rows(raw, frame, size, tokens)
    )


def _out_of_range(raw: RawTable, frame: pd.DataFrame, size: str, tokens: str) -> list[str]:
    problems = []
    few_params, few_tokens = frame[size] < _FEWEST["params"], frame[tokens] < _FEWEST["tokens"]
    # Where both are too small, tokens are taken for billions, the unit of most tables, and the size follows from them.
    if few_params.any():
        believed = frame[tokens].where(~few_tokens, 1e9 * frame[tokens])
        factor = _likeliest_factor(_log_ratio(believed, frame[size])[few_params], of=size)
        what = "is too few parameters for a language model"
        problems.append(_slip(raw, frame[size], few_params, factor, what))
    if few_tokens.any():
        factor = 1e9
        if not few_params.any():
            factor = _likeliest_factor(_log_ratio(frame[tokens], frame[size])[few_tokens], of=tokens)
        what = "is too few tokens to train a language model"
        problems.append(_slip(raw, frame[tokens], few_tokens, factor, what))
    for name in (size, tokens):
        column = COLUMNS[name]
        many = frame[name] > _MOST[column.quantity]
        if many.any():
            # Dividing one of the two does to their ratio what multiplying the other does.
            log_ratio = _log_ratio(frame[tokens], frame[size])[many]
            factor = 1 / _likeliest_factor(log_ratio, of=tokens if name == size else size)
            problems.append(_slip(raw, frame[name], many, factor, f"is more {column.units} than anybody has used"))
    return problems


def _log_ratio(tokens: pd.Series, size: pd.Series) -> pd.Series:
    """log10 of the tokens per parameter; finite for all positive finite numbers, which D/N is not."""
    return np.log10(tokens) - np.log10(size)


def _likeliest_factor(log_ratio: pd.Series, of: str) -> float:
    """The factor on a column that brings the tokens per parameter closest to what is usual."""
    sign = 1 if COLUMNS[of].quantity == "tokens" else -1
    off = float(log_ratio.median()) - math.log10(_USUAL_RATIO)
    return min(_FACTORS, key=lambda factor: abs(off + sign * math.log10(factor)))


def _slip(raw: RawTable, values: pd.Series, rows: pd.Series, factor: float | None, what: str) -> str:
    """A sentence about rows whose value in one column seems to be off by a factor."""
    first = int(np.flatnonzero(rows)[0])
    value = values.iloc[first]
    count = f" (one of {rows.sum()} such rows)" if rows.sum() > 1 else ""
    said = f"{raw.at(first)}, column {values.name}: {value:.6g}{count} {what}"
    if factor is None:
        return said
    change = f"{_FACTORS[factor]}, multiply by {_power(factor)}" if factor > 1 else f"divide by {_power(1 / factor)}"
    return f"{said}; probably {value * factor:.6g} was meant ({change})"


def _power(factor: float) -> str:
    return f"1e{round(math.log10(factor))}"


def _ratio_of_table(frame: pd.DataFrame, size: str, tokens: str) -> list[str]:
    log_ratio = _log_ratio(frame[tokens], frame[size])
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


def _ratio_of_rows(raw: RawTable, frame: pd.DataFrame, size: str, tokens: str) -> list[str]:
    """Rows set apart from the majority in tokens per parameter by what looks like a factor of 1e3, 1e6 or 1e9."""
    ratio = _log_ratio(frame[tokens], frame[size])
    ordered = np.sort(ratio)
    for cut in np.flatnonzero(np.diff(ordered) > math.log10(_APART)):
        for odd, direction in ((ratio <= ordered[cut], 1), (ratio > ordered[cut], -1)):
            if odd.mean() >= 0.5:
                continue
            rest = ratio[~odd]
            for factor in _FACTORS:
                shifted = ratio[odd] + direction * math.log10(factor)
                if shifted.between(rest.min() - 0.3, rest.max() + 0.3).all():
                    name, change = _culprit(frame, odd, direction, factor, size, tokens)
                    what = f"makes {10 ** ratio[odd].iloc[0]:.3g} tokens per parameter, far from all other runs"
                    return [_slip(raw, frame[name], odd, change, what)]
    return []


def _culprit(
    frame: pd.DataFrame, odd: pd.Series, direction: int, factor: float, size: str, tokens: str
) -> tuple[str, float]:
    """Which column slipped, and what mends it: the one whose values do not belong among those of the other rows."""
    small, large = (tokens, size) if direction > 0 else (size, tokens)
    values: NDArray[np.float64] = frame.loc[odd, large].to_numpy()
    others = frame.loc[~odd, large]
    large_is_odd = (values > 10 * others.max()).all()
    return (large, 1 / factor) if large_is_odd else (small, factor)


# Losses -------------------------------------------------------------------------------------------------------------


def _losses(raw: RawTable, frame: pd.DataFrame, kind: str) -> list[str]:
    problems = []
    for name in KINDS[kind]:
        if COLUMNS[name].quantity != "loss" or name not in frame:
            continue
        values, high = frame[name], frame[name] > _HIGHEST_LOSS
        advice = (
            "expected nats per token: take the natural logarithm of a perplexity, multiply bits per token by 0.6931"
        )
        if high.any():
            nats = math.log(values[high].iloc[0])
            what = f"is more than guessing at random costs; a perplexity? ln of it is {nats:.4f}; {advice}"
            problems.append(_slip(raw, values, high, None, what))
        elif values.median() > _HIGHEST_MEDIAN_LOSS:
            problems.append(
                f"column {name}: the median is {values.median():.4g}, more than untrained models lose; {advice}"
            )
    return problems


def _swapped(frame: pd.DataFrame) -> list[str]:
    ahead = frame["teacher_loss"] - frame["student_loss"]
    share = (ahead > 0).mean()
    if share >= _SWAPPED_SHARE and ahead.median() > _SWAPPED_GAP:
        return [
            f"columns teacher_loss and student_loss: the student is better than its teacher in {(ahead > 0).sum()} of "
            f"{len(frame)} runs, by {ahead.median():.3g} nats in the middle; the two columns are probably swapped"
        ]
    if "teacher" in frame:
        groups = frame.groupby("teacher")[["teacher_loss", "student_loss"]]
        spread = (groups.max() - groups.min())[frame.groupby("teacher").size() > 1]
        if (spread["student_loss"] <= _LOSS_TOLERANCE).all() and (spread["teacher_loss"] > _LOSS_TOLERANCE).any():
            return [
                "columns teacher_loss and student_loss: within a teacher student_loss is always the same and teacher_loss "
                "varies; the two columns are probably swapped"
            ]
    return []


def _labels(raw: RawTable, frame: pd.DataFrame) -> list[str]:
    """Labels that stand for one teacher or student but come with different values."""
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
                f"{raw.at(other)}; one {label} has one {name}: correct it, or give the runs different names in column {label}"
            )
    return problems


def _constant(frame: pd.DataFrame, kind: str) -> list[str]:
    lost = {
        "params": "how the loss falls with size",
        "tokens": "how the loss falls with tokens",
        "loss": "what a better teacher does, the capacity gap,",
    }
    return [
        f"column {name}: all {len(frame)} values are {frame[name].iloc[0]:.6g}, so {lost[COLUMNS[name].quantity]} cannot be "
        "learnt from these runs; add runs that differ in it"
        for name in KINDS[kind][:-1]
        if frame[name].min() == frame[name].max()
    ]
