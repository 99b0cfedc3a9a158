"""Sizes and tokens in wrong units, or swapped.

Language models have at least 1e3 parameters and are trained on at least 1e4 tokens. Tokens per parameter, D/N, are between 1 and a
few thousand in scaling studies. A table is questioned if a value is outside the first range, if the median of D/N is outside 0.05 to
15,000 (100,000 for models of 5e7 parameters or more), or if another reading of the columns is much more plausible than the given
one. `_READINGS` lists them: a column in thousands, millions, billions or trillions, the inverse, the two columns swapped, or FLOPs in
place of tokens.

The score of a reading is a negative log-likelihood with three parts: D/N (log-normal around 30), the ratio of the losses to the
published supervised law (log-normal; nats per byte are about a fourth of it), and how much this ratio varies. Over tables of very
different studies, models of 1e4 to 1e10 parameters, the median absolute deviation of its logarithm is 0.01 to 0.06. It is two to ten
times larger for wrong units or swapped columns.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from bayesdistill.arguments import QUANTITIES
from bayesdistill.datasets.files import RawTable
from bayesdistill.datasets.schemas import COLUMNS
from bayesdistill.law.formulas import PUBLISHED, supervised_loss

_RATIO_RANGE = (0.05, 1.5e4)
_OVERTRAINED = (5e7, 1e5)
"""Size from which models can have more tokens per parameter, and how many. Sizes in thousands are smaller."""
_USUAL = {"params": (9.0, 2.5), "tokens": (10.5, 2.5), "ratio": (1.5, 1.0)}
"""Mean and standard deviation of the decimal logarithms of sizes, tokens and tokens per parameter."""
_LEVEL = (-0.4, 0.6)
"""The same for the natural logarithm of the ratio of losses to the published supervised law, over corpora and tokenizers."""
_DEVIATION = 0.02
"""Deviation from the published law below which readings are equally good."""
_MOST_ROWS = 12
"""Number of rows that count: deviations of one study are not independent."""
_CLEAR = 8.0
"""Difference of scores from which a table is questioned although its values are plausible."""
_CLEAR_COLUMN = 2.0
"""Difference of scores from which a whole column is in another unit if a minority of its values is out of range."""
_CLEAR_ROW = 25.0
"""The same for a row, in squared deviations from the other rows."""
_FAR = 1.5
"""Decades by which the tokens per parameter of such a row differ from the median at least."""
_LEAST_SPREAD = (0.5, 0.5, 0.5, 0.06)
"""Smallest deviation of a row from the others that counts as one, for the features of `Models`."""
_LOW_RATIO = 0.3
"""Median of tokens per parameter below which no such difference is required. Few studies have runs with less data."""
_COMPARED = 100
"""Number of rows that are compared to judge a table."""
_FEWEST = 5
"""Rows that are required to compare readings by their losses."""
_COSTS = {1e3: 2.0, 1e6: 1.5, 1e9: 1.0}
"""Negative log probability of a unit; 3 for others."""
_IN_FLOPS = "if these are FLOPs, divide them by 6 {size}"
_FACTORS = {1e3: "thousands", 1e6: "millions", 1e9: "billions", 1e12: "trillions"}


class Reading(NamedTuple):
    """What size, tokens and loss could mean: factors to multiply them with, size and tokens swapped, a perplexity, or FLOPs."""

    size: float = 1.0
    tokens: float = 1.0
    swapped: bool = False
    perplexity: bool = False
    flops: bool = False

    @property
    def cost(self) -> float:
        """Negative log probability of the mistake."""
        changed = [factor for factor in (self.size, self.tokens) if factor != 1]
        # Tokens are often in trillions. If they are 1e9 times too large, they are rather FLOPs.
        of_tokens = 5.0 * (self.tokens < 1e-8) - 1.5 * (self.tokens == 1e12)
        units = sum(_COSTS.get(factor, 3.0) for factor in changed)
        return units + 0.5 * self.swapped + 1.0 * self.perplexity + of_tokens


_AS_GIVEN = Reading()
_FLOPS = Reading(flops=True)
_SINGLE = [
    *(Reading(size=f) for factor in _FACTORS for f in (factor, 1 / factor)),
    *(Reading(tokens=f) for factor in _FACTORS for f in (factor, 1 / factor)),
]
_READINGS = [
    *_SINGLE,
    Reading(swapped=True),
    Reading(perplexity=True),
    _FLOPS,
    *(Reading(a, b) for a in _FACTORS for b in _FACTORS),
]
_LAW = {name: PUBLISHED[name] for name in ("E", "A", "B", "alpha", "beta", "gamma")}


class Models(NamedTuple):
    """The models of a table: size, tokens and, if they can be compared, losses.

    Parameters
    ----------
    size, tokens : Series
        NaN if missing.
    loss, teacher_loss : Series, optional
        Of each model and of its teacher, in nats per token.
    """

    size: pd.Series
    tokens: pd.Series
    loss: pd.Series | None = None
    teacher_loss: pd.Series | None = None

    def take(self, rows: np.ndarray) -> Models:
        """Return some of the models."""
        losses = (None if values is None else values.iloc[rows] for values in (self.loss, self.teacher_loss))
        return Models(self.size.iloc[rows], self.tokens.iloc[rows], *losses)

    def log_loss(self, reading: Reading, law: np.ndarray | float = 0.0) -> np.ndarray:
        """Return the log ratio of the losses to a law, without the part that varies with the teacher's loss."""
        loss = np.ones(len(self.size)) if self.loss is None else self.loss.to_numpy()
        level = np.log(np.log(np.maximum(loss, 1.001)) if reading.perplexity else loss) - law
        teacher = np.zeros(1) if self.teacher_loss is None else np.log(self.teacher_loss.to_numpy())
        if np.ptp(teacher) == 0:
            return level
        teacher = teacher - teacher.mean()
        return np.asarray(level - teacher * (teacher @ (level - level.mean())) / (teacher @ teacher))

    def features(self, reading: Reading, rows: np.ndarray | None = None) -> np.ndarray:
        """Return decimal logarithms of size, tokens and tokens per parameter, (model, 3), and the level of the losses if known.

        The level is the log ratio to the published law. The reading applies to all rows by default.
        """
        factors = [np.where(True if rows is None else rows, factor, 1.0) for factor in (reading.size, reading.tokens)]
        size, tokens = self.size.to_numpy() * factors[0], self.tokens.to_numpy() * factors[1]
        size, tokens = (tokens, size) if reading.swapped else (size, tokens)
        tokens = tokens / (6 * size) if reading.flops else tokens
        columns = [np.log10(size), np.log10(tokens), np.log10(tokens) - np.log10(size)]
        if self.loss is not None and len(self.loss) >= _FEWEST:
            columns.append(self.log_loss(reading, published_loss(size, tokens)))
        return np.column_stack(columns)


def published_loss(size: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the natural logarithm of the loss of the published supervised law."""
    with np.errstate(all="ignore"):
        return np.asarray(np.log(supervised_loss(size, tokens, **_LAW)))


def implausible_sizes(raw: RawTable, models: Models) -> list[str]:
    """Return the implausible sizes and tokens of a table; either may be missing in some rows."""
    problems = _out_of_range(raw, models)
    both = models.take((models.size.notna() & models.tokens.notna()).to_numpy())
    if problems or both.size.empty:
        return problems
    if len(both.size) < 4:  # too few to compare a row with the others
        rows = [_of_table(both.take(np.array([row]))) for row in range(len(both.size))]
        problems = [f"{raw.at(both.size.index[row])}, {text}" for row, texts in enumerate(rows) for text in texts]
    return _of_table(both) or problems[:1] or _of_rows(raw, both)


def _spread(values: np.ndarray) -> np.ndarray:
    """Standard deviation of normal values with the same median absolute deviation, over rows."""
    return np.asarray(1.4826 * np.median(np.abs(values - np.median(values, axis=0)), axis=0))


# Tables -------------------------------------------------------------------------------------------------------------


def _score(reading: Reading, models: Models, *, ranged: bool = True) -> float:
    features, score = models.features(reading), reading.cost
    known = ~np.isnan(features[:, :3])
    for values, use, (name, (usual, deviation)) in zip(features.T, known.T, _USUAL.items(), strict=False):
        if use.any():
            score += 0.5 * ((np.median(values[use]) - usual) / deviation) ** 2
        if ranged and name in QUANTITIES:
            low, high = np.log10(QUANTITIES[name][1:])
            score += 1e3 * ((values[use] < low) | (values[use] > high)).any()
    if features.shape[1] > 3:
        level = features[:, 3]
        score += 0.5 * ((np.median(level) - _LEVEL[0]) / _LEVEL[1]) ** 2
        # A reading may explain nothing, but sizes for which the law is constant are no explanation of constant losses.
        left, whole = (max(float(_spread(values)), _DEVIATION) for values in (level, models.log_loss(reading)))
        score += 0.5 * min(len(level), _MOST_ROWS) * min(math.log(left / whole), 0.0)
    return float(score)


def _out_of_range(raw: RawTable, models: Models) -> list[str]:
    """Find values that no language model has."""
    problems = []
    for values in (models.size, models.tokens):
        units, fewest, most = QUANTITIES[COLUMNS[str(values.name)].quantity]
        aim = "for a language model" if units == "parameters" else "to train a language model"
        kinds = (
            (values < fewest, f"is too few {units} {aim}"),
            (values > most, f"is more {units} than any published model has"),
        )
        problems += [(values, rows, what) for rows, what in kinds if rows.any()]
    if not problems:
        return []
    affected = np.any([rows.to_numpy() for _, rows, _ in problems], axis=0)
    both = (models.size.notna() & models.tokens.notna()).to_numpy()
    minority, few = 2 * affected.sum() <= len(affected), both.all() and 4 <= (~affected).sum() > affected.sum()
    wrong = {values.name for values, _, _ in problems}
    fixed = [name not in wrong for name in (models.size.name, models.tokens.name)]
    flops = both.all() and _score(_FLOPS, models) < 1e3  # All rows can be FLOPs.
    readings = [
        reading
        for reading in _READINGS
        if not (
            reading.swapped
            or reading.perplexity
            or (fixed[0] and reading.size != 1)
            or (fixed[1] and reading.tokens != 1)
            or (reading.flops and (fixed[1] or not flops))
        )
    ]
    # Of a minority in a small table, the other rows are right.
    some = models.take(affected) if minority and not few else models.take(both) if both.any() else models
    best = min(readings, key=lambda reading: _score(reading, some))
    if few and _score(best, some) > _score(_AS_GIVEN, some, ranged=False) - _CLEAR_COLUMN:
        # The other rows are right.
        best = min(
            readings, key=lambda one: np.median(_squares(models, one, affected).sum(axis=1)[affected]) + one.cost
        )
    if best.flops:
        problems = [
            (values, rows, f"{what}; {_IN_FLOPS.format(size=models.size.name)}") for values, rows, what in problems
        ]
    factors = {models.size.name: best.size, models.tokens.name: best.tokens}
    return [slip(raw, values, rows, factors[values.name], what) for values, rows, what in problems]


def slip(raw: RawTable, values: pd.Series, rows: pd.Series, factor: float | None, what: str) -> str:
    """Describe rows whose value in one column is probably wrong, by a factor if it is known."""
    first = rows.index[rows.to_numpy()][0]
    count = f" (one of {rows.sum()} such rows)" if rows.sum() > 1 else ""
    text = f"{raw.at(first)}, column {values.name}: {values[first]:.6g}{count} {what}"
    if factor is None or factor == 1:
        return text
    return f"{text}; probably {values[first] * factor:.6g} was meant ({_change(factor)})"


def _change(factor: float) -> str:
    return f"{_FACTORS[factor]}, multiply by {_power(factor)}" if factor > 1 else f"divide by {_power(1 / factor)}"


def _power(factor: float) -> str:
    return f"1e{round(math.log10(factor))}"


def _of_table(models: Models) -> list[str]:
    """Find columns that are swapped or in wrong units as a whole."""
    if len(models.size) > _COMPARED:
        models = models.take(np.linspace(0, len(models.size) - 1, _COMPARED).round().astype(int))
    features = models.features(_AS_GIVEN)
    scores = {reading: _score(reading, models) for reading in (_AS_GIVEN, *_READINGS)}
    best = min(_READINGS, key=lambda reading: scores[reading])
    ratio, (low, high) = 10 ** float(np.median(features[:, 2])), _RATIO_RANGE
    if np.median(models.size) >= _OVERTRAINED[0]:
        high = _OVERTRAINED[1]
    clear = _CLEAR if ratio > _LOW_RATIO else 0.0
    by_losses = features.shape[1] > 3 and scores[_AS_GIVEN] - scores[best] > clear
    if low <= ratio <= high and not by_losses:
        return []
    size, tokens = str(models.size.name), str(models.tokens.name)
    expected = (
        "which does not agree with the losses" if low <= ratio <= high else f"but {low:g} to {high:g} are expected"
    )
    text = f"columns {size} and {tokens}: the {'median ' * (len(models.size) > 1)}run has {ratio:.3g} tokens per parameter, {expected}"
    if best.perplexity and models.loss is not None:
        return [
            f"column {models.loss.name}: the values decrease with size and tokens like perplexities; take their natural logarithm"
        ]
    if best.flops:
        return [f"{text}. Column {tokens}: {_IN_FLOPS.format(size=size)}"]
    if best.swapped:
        single = min(_SINGLE, key=lambda reading: scores[reading])
        likely = scores[single] < scores[best] + _CLEAR_COLUMN and max(single[:2]) > 1
        unit = f", or {size if single.size > 1 else tokens} is in {_change(max(single[:2]))}" if likely else ""
        return [f"{text}. The two columns are probably swapped{unit}"]
    factors = {name: factor for name, factor in zip((size, tokens), best[:2], strict=True) if factor != 1}
    if len(factors) > 1:
        return [
            f"{text}. Probably " + " and ".join(f"{name} is in {_change(factor)}" for name, factor in factors.items())
        ]
    name, factor = next(iter(factors.items()))
    small, large = (
        (name, size if name == tokens else tokens) if factor > 1 else (size if name == tokens else tokens, name)
    )
    factor = 10.0 ** round(abs(math.log10(factor)))
    swapped = scores[Reading(swapped=True)] < scores[best] + (_CLEAR_COLUMN if by_losses else _CLEAR)
    other = ", or the two columns are swapped" if swapped else ""
    return [
        f"{text}. Either {small} is in {_FACTORS[factor]} (multiply it by {_power(factor)}), or {large} is {_power(factor)} times too "
        f"large{other}"
    ]


# Rows ---------------------------------------------------------------------------------------------------------------


def _squares(models: Models, reading: Reading, rows: np.ndarray | None = None) -> np.ndarray:
    """Squared deviations of the features of rows under a reading from the features of the other rows."""
    others = models.features(_AS_GIVEN) if rows is None else models.features(reading, rows)[~rows]
    scale = np.maximum(_spread(others), _LEAST_SPREAD[: others.shape[1]])
    return np.asarray(((models.features(reading, rows) - np.median(others, axis=0)) / scale) ** 2)


def _of_rows(raw: RawTable, models: Models) -> list[str]:
    """Find rows with one value in another unit than in the other rows."""
    given = models.features(_AS_GIVEN)
    distances = np.stack([_squares(models, reading).sum(axis=1) + reading.cost for reading in _SINGLE])
    # The loss of a run that failed is far from all others, independent of its size.
    gain = np.minimum(_squares(models, _AS_GIVEN), [np.inf, np.inf, np.inf, 16][: given.shape[1]]).sum(
        axis=1
    ) - distances.min(axis=0)
    low, high = np.log10(_RATIO_RANGE) if given.shape[1] < 4 else np.median(given[:, 2]) + np.array([-_FAR, _FAR])
    odd = (gain > _CLEAR_ROW) & ((given[:, 2] < low) | (given[:, 2] > high))
    if len(odd) < 4 or not odd.any():
        return []
    which = distances.argmin(axis=0)
    first = int(np.flatnonzero(odd)[0])
    reading = _SINGLE[which[first]]
    rows = pd.Series(odd & (which == which[first]), models.size.index)
    values, factor = (models.size, reading.size) if reading.size != 1 else (models.tokens, reading.tokens)
    what = f"gives {10 ** given[first, 2]:.3g} tokens per parameter, far from all other runs"
    return [slip(raw, values, rows, factor, what)]
