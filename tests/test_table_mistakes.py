"""Mistakes in tables: honest studies are not questioned, mistakes are, with the right advice."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulated_tables import CORRUPTIONS, DESIGNS, honest, in_units, questions, swapped

import bayesdistill as bd
from bayesdistill.datasets import read_design, read_measured, read_teachers

RATES = {
    "swapped": (0.93, 0.78),
    "sizes in thousands": (0.78, 0.74),
    "sizes in millions": (1.0, 0.93),
    "sizes in billions": (1.0, 0.97),
    "sizes in trillions": (1.0, 0.9),
    "tokens in thousands": (0.9, 0.71),
    "tokens in millions": (1.0, 0.94),
    "tokens in billions": (1.0, 0.96),
    "tokens in trillions": (1.0, 0.96),
    "one of the sizes in thousands": (0.91, 0.91),
    "one of the tokens in thousands": (0.94, 0.94),
    "error rates": (0.97, 0.97),
    "bits per byte": (0.77, 0.77),  # in small models, they could be nats per byte
}
"""Share of 69 tables that are questioned, and with the right advice. All others are 1."""


def studies(seeds: Iterable[int]) -> list[pd.DataFrame]:
    """Honest tables with at least three runs."""
    return [table for table in map(honest, seeds) if len(table) >= 3]


@pytest.fixture(scope="module")
def each() -> list[pd.DataFrame]:
    """A table of each design; the kinds alternate."""
    return studies(2 * k + k % 2 for k in range(len(DESIGNS)))


@pytest.fixture(scope="module")
def many() -> list[pd.DataFrame]:
    return studies(range(10 * len(DESIGNS)))


def asked_in(seeds: range) -> list[int]:
    """Seeds of honest tables that are questioned."""
    return [seed for seed in seeds if questions(honest(seed))]


def test_honest_tables_are_not_questioned():
    assert asked_in(range(28)) == []


@pytest.mark.slow
def test_fewer_than_one_percent_of_honest_tables_are_questioned():
    assert len(asked_in(range(28, 728))) < 7


def rates(mistake: str, tables: list[pd.DataFrame]) -> np.ndarray:
    """Share of tables that are questioned, and with the right advice."""
    corrupt, right = CORRUPTIONS[mistake]
    asked = [questions(corrupt(table, np.random.default_rng(seed))) for seed, table in enumerate(tables)]
    return np.mean([(bool(text), bool(re.search(right, text))) for text in asked], axis=0)


@pytest.mark.parametrize("mistake", list(CORRUPTIONS))
def test_mistakes_are_found_with_the_right_advice(each, mistake):
    expected = np.array(RATES.get(mistake, (1.0, 1.0)))
    error = np.sqrt(expected * (1 - expected) / len(each))
    assert (rates(mistake, each) >= expected - 2 * error).all()


@pytest.mark.slow
@pytest.mark.parametrize("mistake", list(CORRUPTIONS))
def test_rates_of_mistakes_that_are_found(many, mistake):
    assert len(many) == 69
    np.testing.assert_allclose(rates(mistake, many), RATES.get(mistake, (1.0, 1.0)), atol=0.006)


def isoflop(seed: int = 2) -> pd.DataFrame:
    """A supervised table of runs of equal compute."""
    assert DESIGNS[seed // 2] == "isoflop"
    return honest(seed)


def test_clear_cases_are_named_exactly():
    table = isoflop()
    assert "columns params and tokens" in questions(swapped(table, np.random.default_rng(0)))
    assert "The two columns are probably swapped" in questions(swapped(table, np.random.default_rng(0)))
    for column, name in ((0, "params"), (1, "tokens")):
        for factor, unit in ((1e6, "millions"), (1e9, "billions"), (1e12, "trillions")):
            text = questions(in_units(column, factor, 1)(table, np.random.default_rng(1)))
            row = int(re.search(r"row (\d+), column", text)[1]) - 1
            assert f"probably {table[name].iloc[row]:.6g} was meant ({unit}, multiply by 1e" in text
    doubled = pd.concat([table.assign(loss=0.93 / 2.54 * table["loss"]), table], ignore_index=True)
    assert "runs with the same params and tokens have different losses, such as" in questions(doubled)
    assert "all losses must come from one validation set and one tokenizer" in questions(doubled)
    # The second tokenizer with other runs, not the same ones.
    levels = np.where(np.arange(len(table)) % 2, 1.0, 1.6)
    assert "are lower than the others by a factor of" in questions(table.assign(loss=levels * table["loss"]))


@pytest.mark.parametrize("name", ["dataset", "Tokenizer", "val_set", "eval dataset", "vocab_size", "train_corpus"])
def test_a_column_of_several_validation_sets(name):
    table = isoflop()
    several = np.array(["c4", "pile", "wiki"])[np.arange(len(table)) % 3]
    assert f"column {name!r} has 3 values, such as 'c4' and 'pile'" in questions(table.assign(**{name: several}))
    assert questions(table.assign(**{name: "c4"})) == ""
    assert questions(table.assign(note=several)) == ""


def test_non_embedding_parameters_are_suggested_before_all_parameters():
    table = isoflop().rename(columns={"params": "N_no_emb"}).assign(N=1e9)
    with pytest.raises(bd.DataError, match="'N_no_emb' looks like 'params'"):
        bd.read_runs(table)


def test_students_in_another_unit_than_their_teachers():
    runs = bd.load_runs()
    assert "the student loss is 0.37" in questions(runs.assign(student_loss=runs["student_loss"] * 0.35))


def test_implausible_values_are_allowed_with_an_attribute():
    table = swapped(isoflop(), np.random.default_rng(0))
    table.attrs["allow_suspicious"] = True
    assert len(bd.read_runs(table)) == len(table)


def test_flops_in_place_of_tokens():
    for table in (isoflop(), isoflop().iloc[:9]):
        flops = table.assign(tokens=6 * table["params"] * table["tokens"])
        assert "if these are FLOPs, divide them by 6 params" in questions(flops)


@pytest.mark.parametrize("size", ["student_params", "student_tokens"])
@pytest.mark.parametrize("loss", ["teacher_loss", "student_loss"])
def test_losses_swapped_with_sizes_or_tokens(size, loss):
    text = questions(bd.load_runs().rename(columns={size: loss, loss: size}))
    assert f"columns {size} and {loss}: " in text
    assert text.count("probably swapped") == 1
    assert "perplexit" not in text


def test_percentages_are_not_called_perplexities_only():
    table = isoflop()
    for loss in (100 * np.exp(-table["loss"] / 2), 100 - 100 * np.exp(-table["loss"] / 2)):
        assert re.search("accurac|percentages", questions(table.assign(loss=loss)))


def test_teacher_losses_in_bits_per_byte():
    runs = bd.load_runs()
    runs = runs.assign(teacher_loss=runs["teacher_loss"] / np.log(2) / 4.3).drop(columns="teacher")
    assert "times the teacher loss in the median; one of them is probably not in nats per token" in questions(runs)


def test_losses_of_few_runs_are_compared_with_the_published_law():
    llama = pd.DataFrame({"params": [6.5e9, 12.8e9, 32e9], "tokens": [1e12, 1e12, 1.4e12], "loss": [1.8, 1.72, 1.61]})
    assert questions(llama) == ""
    assert "take the natural logarithm of a perplexity" in questions(llama.assign(loss=np.exp(llama["loss"])))
    assert "Bits per byte" in questions(llama.assign(loss=llama["loss"] * 0.335))


def test_students_that_are_all_better_than_a_weak_teacher():
    """Runs repeat the loss of their teacher, so the columns of losses are not swapped."""
    runs = bd.load_runs()
    runs = runs.assign(teacher_loss=np.where(runs["student_params"] > 1e9, 2.9, 2.8)).drop(columns="teacher")
    better = runs[runs["student_loss"] < 2.75].drop_duplicates()
    assert len(bd.read_runs(better)) > 200


def test_columns_of_any_factor_and_constant_losses_are_questioned_without_an_error_of_python():
    small = pd.DataFrame({"params": [1e7, 2e7, 4e7], "tokens": [2e16, 4e16, 8e16], "loss": [3.1, 2.9, 2.8]})
    assert "tokens per parameter" in questions(small)
    assert len(read_measured(isoflop().assign(loss=2.5))) == len(isoflop())


def test_small_models_of_many_tokens_and_rows_of_small_tables():
    qwen = pd.DataFrame({"params": [4.4e8, 1.4e9, 3.6e9], "tokens": [3.6e13, 3.6e13, 3.6e13]})
    assert len(read_design(qwen)) == len(read_design(qwen.head(1))) + 2 == 3
    for column, row, said in (("params", 1, "params is in"), ("tokens", 2, "tokens is in")):
        table = qwen.copy()
        table.loc[row, column] /= 1e6
        with pytest.raises(bd.DataError, match=f"row {row + 1}, columns params and tokens: the run has .* {said}"):
            read_design(table)


def test_tokens_and_losses_of_teachers_swapped():
    teachers = pd.DataFrame({"params": [1e9, 3e9], "tokens": [2.2, 2.1], "loss": [2e10, 6e10]})
    with pytest.raises(bd.DataError, match=r"columns tokens and loss: .*; the two columns are probably swapped"):
        read_teachers(teachers, (1.0, 6.0))


def test_packaged_runs_are_not_questioned():
    for name, kind in (("busbridge2025", "distilled"), ("tiny", "distilled"), ("tiny", "supervised")):
        assert bd.load_runs(name, kind).attrs.get("allow_suspicious") is None


def test_the_held_out_runs_of_the_tiny_study_pass():
    tiny = Path(__file__).parents[1] / "data" / "tiny"
    for kind in ("distilled", "supervised"):
        assert questions(pd.read_csv(tiny / f"held-out-{kind}.csv")) == ""


def test_distilled_runs_with_the_columns_of_supervised_ones():
    runs = bd.load_runs()[["student_params", "student_tokens", "teacher_loss", "student_loss"]]
    short = runs.rename(columns={"student_params": "params", "student_tokens": "tokens", "student_loss": "loss"})
    advice = "rename params to student_params, tokens to student_tokens and loss to student_loss"
    with pytest.raises(bd.DataError, match=f"column teacher_loss: supervised runs have no teacher.*{advice}"):
        bd.read_runs(short)
    with pytest.raises(bd.DataError, match=f"not of the requested distilled runs. .*{advice}"):
        bd.read_runs(short, "distilled")
    short.attrs["allow_suspicious"] = True
    assert bd.read_runs(short).attrs["kind"] == "supervised"
