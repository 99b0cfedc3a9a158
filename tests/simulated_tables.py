"""Tables of honest studies with random designs and laws, and the same with mistakes in them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

import bayesdistill as bd
from bayesdistill.datasets import read_measured
from bayesdistill.law import supervised_loss

DESIGNS = ("grid", "isoflop", "fixed ratio", "checkpoints", "scattered", "one size", "little data")
COLUMNS = {
    "distilled": ("student_params", "student_tokens", "student_loss"),
    "supervised": ("params", "tokens", "loss"),
}


def random_law(rng: np.random.Generator) -> dict[str, float]:
    """A supervised law of another corpus or tokenizer: other exponents, coefficients and levels."""
    law = {name: bd.PUBLISHED[name] for name in ("E", "A", "B", "alpha", "beta", "gamma")}
    law |= {name: law[name] * np.exp(0.2 * rng.standard_normal()) for name in ("E", "A", "B")}
    law |= {name: law[name] * np.exp(0.04 * rng.standard_normal()) for name in ("alpha", "beta", "gamma")}
    return law


def design(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and tokens of 3 to 500 runs."""
    smallest = 10 ** rng.uniform(5, 9)
    sizes = smallest * np.geomspace(1, 10 ** rng.uniform(0.6, 2), int(rng.integers(3, 12)))
    ratio = 10 ** rng.uniform(0.7, 2)
    if kind == "grid":
        params, ratios = np.meshgrid(sizes, ratio * 2.0 ** np.arange(rng.integers(2, 6)))
        return params.ravel(), (params * ratios).ravel()
    if kind == "isoflop":
        compute, offset = np.meshgrid(np.geomspace(1, 100, 5) * 6 * 20 * smallest**2 * 100, np.linspace(-0.9, 0.9, 9))
        best = np.sqrt(compute / 6 / 20)
        params = best * 10**offset
        return params.ravel(), (compute / 6 / params).ravel()
    if kind == "fixed ratio":
        return sizes, sizes * ratio
    if kind == "checkpoints":
        params, share = np.meshgrid(sizes[:6], np.linspace(0.1, 1, 10))
        return params.ravel(), (share * ratio * 10 * sizes.max()).ravel()
    if kind == "one size":
        return np.full(20, smallest), smallest * ratio * np.arange(1, 21) / 4
    if kind == "little data":
        params, ratios = np.meshgrid(sizes, 10 ** rng.uniform(-1.5, -0.5) * 4.0 ** np.arange(rng.integers(3, 6)))
        return params.ravel(), np.maximum(params * ratios, 2e4).ravel()
    count = int(rng.integers(3, 500))
    params = smallest * 10 ** rng.uniform(0, 2, count)
    return params, params * ratio * 10 ** rng.uniform(-0.5, 1.5, count)


def honest(seed: int) -> pd.DataFrame:
    """A table of a study without mistakes; columns that are constant on purpose are allowed."""
    rng = np.random.default_rng(seed)
    kind = ("supervised", "distilled")[seed % 2]
    params, tokens = design(rng, DESIGNS[seed // 2 % len(DESIGNS)])
    law, sigma = random_law(rng), 10 ** rng.uniform(-3, -1.7)
    if kind == "supervised":
        loss = supervised_loss(params, tokens, **law) * np.exp(sigma * rng.standard_normal(params.size))
        table = pd.DataFrame({"params": params, "tokens": tokens, "loss": loss})
    else:
        count = int(rng.integers(1, 5))
        teachers = supervised_loss(params.max() * 10 ** rng.uniform(0, 1, count), tokens.max() * 3.0, **law)
        table = pd.DataFrame({"student_params": params, "student_tokens": tokens})
        table["teacher_loss"] = rng.choice(teachers, params.size)
        table = bd.simulate_runs({**bd.PUBLISHED, **law}, seed=seed, design=allowed(table), sigma=sigma)
    table = table.drop(columns=["student", "teacher"], errors="ignore").drop_duplicates()
    # The law of simulations has no bound; real models are soon better than a unigram model.
    return table[table.iloc[:, -1] < 7].reset_index(drop=True)


def allowed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with implausible values accepted."""
    table = table.copy()
    table.attrs = {"allow_suspicious": True}
    return table


def questions(table: pd.DataFrame) -> str:
    """The question about a table, apart from constant columns, which some designs have on purpose; empty if there is none."""
    table = table.copy()
    table.attrs = {}
    try:
        read_measured(table)
    except bd.DataError as error:
        return str(error)
    return ""


Corruption = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]


def _names(table: pd.DataFrame) -> tuple[str, str, str]:
    return COLUMNS["distilled" if "student_loss" in table else "supervised"]


def swapped(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    size, tokens, _ = _names(table)
    return table.rename(columns={size: tokens, tokens: size})


def in_units(column: int, factor: float, rows: int | None = None) -> Corruption:
    """One column, in all rows or in some, in another unit."""

    def corrupt(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        name = _names(table)[column]
        chosen = np.arange(len(table)) if rows is None else rng.choice(len(table), rows, replace=False)
        values = table[name].to_numpy().copy()
        values[chosen] /= factor
        return table.assign(**{name: values})

    return corrupt


def of_losses(change: Callable[[np.ndarray], np.ndarray]) -> Corruption:
    """All losses of the trained models as another quantity."""

    def corrupt(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        name = _names(table)[2]
        return table.assign(**{name: change(table[name].to_numpy())})

    return corrupt


def two_tokenizers(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    name = _names(table)[2]
    return pd.concat([table, table.assign(**{name: 0.37 * table[name]})], ignore_index=True)


CORRUPTIONS: dict[str, tuple[Corruption, str]] = {
    "swapped": (swapped, r"swapped"),
    **{
        f"{what} in {unit}": (in_units(column, factor), rf"{column_name} is in {unit}|{unit}, multiply by")
        for column, what, column_name in ((0, "sizes", "params"), (1, "tokens", "tokens"))
        for factor, unit in ((1e3, "thousands"), (1e6, "millions"), (1e9, "billions"), (1e12, "trillions"))
    },
    **{
        f"one of the {what} in {unit}": (in_units(column, factor, 1), rf"{column_name}: .*\({unit}, multiply by")
        for column, what, column_name in ((0, "sizes", "params"), (1, "tokens", "tokens"))
        for factor, unit in ((1e3, "thousands"), (1e6, "millions"), (1e9, "billions"), (1e12, "trillions"))
    },
    "perplexities": (of_losses(np.exp), "perplexit"),
    "accuracies": (of_losses(lambda loss: np.exp(-loss / 2)), "accurac"),
    "error rates": (of_losses(lambda loss: 1 - np.exp(-loss / 2)), "accurac|error rates"),
    "bits per byte": (of_losses(lambda loss: loss / np.log(2) / 4.3), "[Bb]its per byte"),
    "two tokenizers": (two_tokenizers, "tokenizer"),
}
"""Mistake -> how to make it, and what a right message contains."""
