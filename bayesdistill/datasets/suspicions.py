"""Checks for tables with valid but implausible values.

Every check returns sentences that name the column, a row, the value, the expected value and the likely cause. The checks are
heuristic; `read_runs(..., allow_suspicious=True)` skips them. `magnitudes` checks sizes and tokens.
"""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd

from bayesdistill.arguments import QUANTITIES, shown
from bayesdistill.datasets.files import RawTable
from bayesdistill.datasets.magnitudes import Models, Reading, implausible_sizes, published_loss, slip
from bayesdistill.datasets.schemas import COLUMNS, GROUPS, LABELED, RENAMED, SIZES, TEACHERS, required_columns

_UNIGRAM_LOSS = 7.5  # nats; about the loss of a unigram model with a large vocabulary
_ADVICE = "expected nats per token; take the natural logarithm of a perplexity, or multiply bits per token by 0.6931"
_ONE = "all losses must come from one validation set and one tokenizer; keep one of them"
_SOURCE = re.compile(
    r"(dataset|corpus|corpora|tokenizer|vocab|vocabulary|vocabsize|vocabularysize|metric|(val|valid|validation|eval|evaluation|test)(set|data))s?$"
)
"""Columns, without punctuation, that must have one value."""
_LEAST_SHARE, _MOST_SHARE = 0.6, 2.5  # of the teacher loss that a student has in the median
_REPEATS = 1.15  # ratio of losses of one configuration; seeds differ by 1 to 3%
_FEWEST = 5  # runs that are required to compare losses with the published law
_LEAST_SLOPE = 0.4  # of log losses against log losses of the published law; about 1 in all studies
# Log ratio of the losses to the published law: -1.4 (nats per byte) to 0.3. Large models are rarely trained on bytes.
_HIGH_LEVEL, _LOW_LEVEL, _LARGE = 0.6, -0.7, 3e7
_GAP = 0.2  # between two groups of such ratios
# Fraction of rows; nats. In the published runs, 12% of the students have a lower loss than their teacher.
_SWAPPED_SHARE, _SWAPPED_GAP = 0.8, 0.02
_ROUNDED = 5e-4  # relative error of rounded means
_FEWEST_SWAPPED = 10  # runs of a design; in smaller designs, all students may be better than a weak teacher
_LOSS_TOLERANCE = 1e-3  # nats within one teacher, for rounding
_PARAMS_TOLERANCE = 0.01  # relative, within one student, for sizes rounded to three digits


def found(
    raw: RawTable,
    frame: pd.DataFrame,
    kind: str,
    *,
    fit: bool = False,
    teacher_losses: tuple[float, float] = (0.0, math.inf),
) -> list[str]:
    """Return the implausible values of a table with valid cells.

    Parameters
    ----------
    raw : RawTable
        Raw table, for row names in messages.
    frame : pandas.DataFrame
        Table with the model columns as floats.
    kind : {"distilled", "supervised", "teachers"}
        Kind of table.
    fit : bool
        Whether the runs are fitted, so that columns can be swapped even in short tables.
    teacher_losses : tuple of float
        Range of plausible losses of teachers, in nats per token.

    Returns
    -------
    list of str
        One sentence per problem; empty for a plausible table.
    """
    if exchanged := _exchanged(frame, kind):
        return exchanged
    if total := _total(raw, frame, kind):
        return total
    if kind == "supervised" and "student_params" not in frame and "teacher_loss" in frame:
        return [f"column teacher_loss: supervised runs have no teacher. {RENAMED}; otherwise delete the column"]
    losses = _mixed(raw, frame, kind) or _losses(raw, frame, kind, teacher_losses)
    models = _models(frame, kind, comparable=not losses)
    problems = [problem for one in models for problem in implausible_sizes(raw, one)]
    if not problems:
        losses += [problem for one in models for problem in _units_of_losses(one)]
    if kind == "distilled":
        # Do not report a size with wrong units again as inconsistent with its student label.
        swapped = _swapped(frame) if "student_loss" in frame and (fit or len(frame) >= _FEWEST_SWAPPED) else []
        problems += swapped
    problems += [] if problems else _labels(raw, frame, kind)
    problems += losses
    return problems


def _models(frame: pd.DataFrame, kind: str, comparable: bool) -> list[Models]:
    """Return the models of a table, with their losses if these can be compared."""
    found = []
    for size, tokens, loss in SIZES[kind]:
        sizes = [frame.get(name, pd.Series(np.nan, frame.index, float, name=name)) for name in (size, tokens)]
        names = (loss, "teacher_loss" if loss == "student_loss" else "")
        losses = [frame[name] if comparable and name and name in frame else None for name in names]
        found.append(Models(sizes[0], sizes[1], losses[0], losses[1]))
    return found


def _total(raw: RawTable, frame: pd.DataFrame, kind: str) -> list[str]:
    """Find a last row with the means, medians or sums of the others."""
    values = frame[[name for name in required_columns(kind) if name in frame]]
    others, last = values.iloc[:-1], values.iloc[-1].to_numpy()
    if len(others) < 3 or (others.min() < others.max()).sum() < 2:
        return []
    for what, totals in (("means", others.mean()), ("medians", others.median()), ("sums", others.sum())):
        if np.allclose(last, totals, rtol=_ROUNDED, atol=0):
            return [f"{raw.at(len(others))}: the values are the {what} of the other rows; delete this row"]
    return []


def _exchanged(frame: pd.DataFrame, kind: str) -> list[str]:
    """Find losses swapped with sizes or tokens."""
    losses = [loss for *_, loss in SIZES[kind] if loss in frame]
    return [
        f"columns {name} and {loss}: the values of {name} are {frame[name].min():.4g} to {frame[name].max():.4g}, and the values of "
        f"{loss} are {frame[loss].min():.4g} to {frame[loss].max():.4g}; the two columns are probably swapped"
        for *sizes, _ in SIZES[kind]
        for name in sizes
        for loss in losses
        if name in frame
        and frame[name].max() <= QUANTITIES["loss"].most
        and frame[loss].min() >= QUANTITIES[COLUMNS[name].quantity][1]
    ][:1]


# Losses -------------------------------------------------------------------------------------------------------------


def _mixed(raw: RawTable, frame: pd.DataFrame, kind: str) -> list[str]:
    """Find tables with losses of several validation sets or tokenizers, and with other quantities than losses."""
    *inputs, target = required_columns(kind)
    if kind == TEACHERS or target not in frame:
        return []
    for name in [str(name) for name in frame.columns if name not in (*inputs, target)]:
        values = frame[name].dropna().astype(str).unique()
        if _SOURCE.search(re.sub(r"[^a-z]", "", name.lower())) and 1 < len(values) < max(len(frame), 3):
            some = f"{shown(values[0])} and {shown(values[1])}"
            return [f"column {shown(name)} has {len(values)} values, such as {some}; {_ONE}"]
    share = (frame[target] / frame["teacher_loss"]).median() if kind == "distilled" else 1.0
    if share < _LEAST_SHARE or (share > _MOST_SHARE and frame[target].median() <= _UNIGRAM_LOSS):
        return [
            f"columns teacher_loss and {target}: the student loss is {share:.2g} times the teacher loss in the median; one of them is "
            "probably not in nats per token (are these bits per byte, perplexities or accuracies?)"
        ]
    keys = [frame[name] for name in (*inputs, *(label for label in GROUPS[kind] if label in frame))]
    groups = frame[target].groupby([key if key.dtype == float else key.astype(str) for key in keys])
    number, repeated = groups.ngroup(), groups.transform("size") > 1
    apart = repeated & (groups.transform("max") > _REPEATS * groups.transform("min"))
    if apart.sum() > 0.5 * repeated.sum() and len(number[apart].unique()) > 1:
        same = frame[target][number == number[apart].iloc[0]]
        first, other = sorted([int(same.to_numpy().argmin()), int(same.to_numpy().argmax())])
        return [
            f"column {target}: runs with the same {' and '.join(inputs)} have different losses, such as {same.iloc[first]:.4g} in "
            f"{raw.at(same.index[first])} and {same.iloc[other]:.4g} in {raw.at(same.index[other])}; {_ONE}"
        ]
    return _not_losses(frame[target], published_loss(*(frame[name].to_numpy() for name in inputs[:2])))


def _not_losses(values: pd.Series, published: np.ndarray) -> list[str]:
    """Find accuracies and error rates, which increase or hardly decrease with the log loss of the published law."""
    law = pd.Series(published, values.index)
    if len(values) < _FEWEST or law.nunique() < 4 or law.max() - law.min() < 0.05 or values.min() == values.max():
        return []
    agreement, slope = float(values.corr(law, method="spearman")), float(np.log(values).std() / law.std())
    if agreement < -min(0.9, 2.6 / math.sqrt(len(values) - 1)):
        return [
            f"column {values.name}: the values increase with size and tokens; losses decrease (are these accuracies?)"
        ]
    if not 1 <= values.max() <= QUANTITIES["loss"].most and slope < _LEAST_SLOPE:
        return [
            f"column {values.name}: the values are {values.min():.2g} to {values.max():.2g} and hardly decrease with size and tokens; "
            "expected nats per token (are these error rates, 1 - accuracy?)"
        ]
    return []


def _units_of_losses(models: Models) -> list[str]:
    """Find losses that are too high or too low for the sizes and tokens of the models, and tables with two levels of losses."""
    models = models.take((models.size.notna() & models.tokens.notna()).to_numpy())
    if models.loss is None or models.size.empty:
        return []
    law = published_loss(models.size.to_numpy(), models.tokens.to_numpy())
    levels = np.sort(models.log_loss(Reading(), law))
    column, level = f"column {models.loss.name}", float(np.median(levels))
    text = f"{column}: the median loss is {models.loss.median():.4g}, {math.exp(level):.2g} times the loss of the published law"
    if level > _HIGH_LEVEL:
        return [f"{text}; {_ADVICE}"]
    if level < _LOW_LEVEL and models.size.median() > _LARGE:
        return [
            f"{text}; expected nats per token. Bits per byte are multiplied by 0.6931 and by the bytes per token of the tokenizer; "
            "accuracies and error rates are not losses. Losses of models of bytes, code or DNA can be correct"
        ]
    if len(levels) < _FEWEST:
        return []
    gaps = np.diff(levels)
    cut = int(gaps.argmax())
    within = max(np.ptp(levels[: cut + 1]), np.ptp(levels[cut + 1 :]))
    if gaps[cut] > max(_GAP, within) and 0.2 * len(levels) <= cut + 1 <= 0.8 * len(levels):
        return [
            f"{column}: {cut + 1} of {len(levels)} losses are lower than the others by a factor of {math.exp(gaps[cut]):.2g} at "
            f"equal size and tokens; {_ONE}"
        ]
    return []


def _losses(raw: RawTable, frame: pd.DataFrame, kind: str, teacher_losses: tuple[float, float]) -> list[str]:
    low, high = teacher_losses
    problems = []
    for name in required_columns(kind):
        if COLUMNS[name].quantity != "loss" or name not in frame:
            continue
        values, of_teachers = frame[name], name == "teacher_loss" or kind == TEACHERS
        bound = QUANTITIES["loss"].most
        if (values > bound).any():
            nats = math.log(values[values > bound].iloc[0])
            what = f"is larger than the loss of a uniform prediction; if it is a perplexity, its logarithm is {nats:.4f}; {_ADVICE}"
            if (values.between(bound, 100)).mean() > 0.5:
                what += "; percentages are not losses"
            problems.append(slip(raw, values, values > bound, None, what))
        elif (values.max() if of_teachers else values.median()) > _UNIGRAM_LOSS:
            what = f"is larger than the loss of a unigram model; {_ADVICE}"
            if of_teachers:
                problems.append(slip(raw, values, values > _UNIGRAM_LOSS, None, what))
            else:
                problems.append(f"column {name}: the median is {values.median():.4g}, which {what}")
        elif of_teachers and (values > high).any():
            what = f"is more than twice the largest teacher loss in the data of the fit, {high / 2:.4g}; {_ADVICE}"
            problems.append(slip(raw, values, values > high, None, what))
        if of_teachers and (values < low).any():
            what = (
                f"is below the irreducible loss E of the fit, {low:.4g} (0.1% quantile), which no model can reach under its "
                "law (is this in bits per byte, an accuracy, or a loss of another tokenizer or validation set?)"
            )
            problems.append(slip(raw, values, values < low, None, what))
    return problems


def _swapped(frame: pd.DataFrame) -> list[str]:
    better = frame["teacher_loss"] - frame["student_loss"]
    share = (better > 0).mean()
    # Runs with the same teacher repeat its loss; losses of students differ.
    repeats = frame["teacher_loss"].nunique() < frame["student_loss"].nunique()
    if share >= _SWAPPED_SHARE and better.median() > _SWAPPED_GAP and not repeats:
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


def _labels(raw: RawTable, frame: pd.DataFrame, kind: str) -> list[str]:
    """Find labels of one teacher, student or model with different values."""
    problems = []
    pairs = [(label, LABELED[label]) for label in GROUPS[kind]]
    if kind == "distilled":
        # Without labels, runs with the same teacher loss have the same teacher.
        key = "teacher" if "teacher" in frame else "teacher_loss"
        pairs += [(key, name) for name in ("teacher_params", "teacher_tokens") if name in frame]
    for label, name in pairs:
        # One label for all models, such as the name of an architecture, makes no groups.
        if label not in frame or (label == "model" and (frame[label] == frame[label].iloc[0]).all()):
            continue
        usual = frame.groupby(label)[name].transform("median")
        tolerance = _LOSS_TOLERANCE if name == "teacher_loss" else _PARAMS_TOLERANCE * usual
        for value, rows in frame[(frame[name] - usual).abs() > tolerance].groupby(label):
            odd, here = int(rows.index[0]), float(rows[name].iloc[0])
            distance = (frame[name] - here).abs().where(frame[label] == value, -1.0).to_numpy()
            other = int(np.nanargmax(distance))
            there = float(frame[name].iloc[other])
            one = "teacher" if label == "teacher_loss" else label
            problems.append(
                f"{raw.at(odd)}, column {name}: {here:.6g} for {label} {str(value)!r}, which has {there:.6g} in "
                f"{raw.at(other)}; each {one} must have one {name}, so correct it or use different labels in column {one}"
            )
    return problems
