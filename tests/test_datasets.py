"""Tables of runs: accepted tables, and error messages about all others."""

import gzip
import hashlib
import json
import math
import re
import subprocess
import sys
from decimal import Decimal

import law_names as laws
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from bayesdistill.datasets import (
    KINDS,
    data_hash,
    describe_runs,
    fixed_axes,
    load_runs,
    published_design,
    read_costed,
    read_runs,
    runs_schema,
    simulate_runs,
)
from bayesdistill.datasets import _load_runs as packaged
from bayesdistill.errors import DataError, FileError, ParameterError

PUBLISHED = laws.PUBLISHED

# A small study: 12 runs, three students, two teachers, two token counts.
SMALL = pd.DataFrame(
    [
        (f"s{params:.0e}", params, ratio * params, teacher, loss, loss + 0.4 - 0.01 * i - 0.001 * j - 0.1 * k)
        for i, params in enumerate((1.43e8, 1.98e8, 5.46e8))
        for j, ratio in enumerate((20, 80))
        for k, (teacher, loss) in enumerate((("M01", 1.9), ("M05", 2.25)))
    ],
    columns=["student", "student_params", "student_tokens", "teacher", "teacher_loss", "student_loss"],
)
SUPERVISED = pd.DataFrame(
    {"params": [1e8, 1e8, 5e8, 5e8], "tokens": [2e9, 8e9, 1e10, 4e10], "loss": [3.0, 2.8, 2.6, 2.4]}
)


def tiny_study() -> pd.DataFrame:
    """Models of 14k to 221k parameters on 0.5M to 32M bytes: the grid of a study on two cores."""
    sizes = {width: 24.0 * width**2 for width in (24, 32, 48, 64, 96)}
    teachers = {
        "32/1M": 2.45,
        "64/2M": 2.1,
        "48/4M": 1.96,
        "64/8M": 1.73,
        "96/8M": 1.62,
        "128/32M": 1.45,
        "192/16M": 1.42,
    }
    rows = [
        (size, tokens, name, loss, 1.45 + 60 * size**-0.48 + 150 * tokens**-0.45 + 0.02 * loss)
        for size in sizes.values()
        for tokens in (0.5e6, 2e6, 8e6, 16e6, 32e6)
        for name, loss in teachers.items()
    ]
    return pd.DataFrame(rows, columns=["student_params", "student_tokens", "teacher", "teacher_loss", "student_loss"])


def message(source, *args, error=DataError, **options) -> str:
    with pytest.raises(error) as caught:
        read_runs(source, *args, **options)
    return str(caught.value)


def written(tmp_path, text: str | bytes, name: str = "mine.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def with_cell(row: int, column: str, value: object, table: pd.DataFrame = SMALL) -> pd.DataFrame:
    cells = table[column].astype(object)
    cells.iloc[row] = value
    return table.assign(**{column: cells})


# Packaged runs ------------------------------------------------------------------------------------------------------


def test_the_packaged_runs_are_the_published_ones():
    runs = load_runs()
    assert list(runs.columns) == [
        "student",
        "student_params",
        "student_tokens",
        "teacher",
        "teacher_loss",
        "student_loss",
        "experiment",
    ]
    assert runs.attrs == {"source": "busbridge2025/distilled", "kind": "distilled"}
    assert runs["experiment"].value_counts().to_dict() == {
        "isoflop-teacher": 220,
        "fixed-m-teacher": 128,
        "large-student": 6,
    }
    assert runs["teacher"].nunique() == 65
    first = runs.iloc[0]
    assert (first["student"], first["student_params"], first["student_tokens"]) == ("143M", 1.43e8, 3.601e9)
    assert (first["teacher"], first["teacher_loss"], first["student_loss"]) == ("M01", 1.89526, 2.75477)
    # The README and DESIGN of the data: 41 students beat their teacher, by at most 0.024 nats.
    ahead = runs["teacher_loss"] - runs["student_loss"]
    assert ((ahead > 0).sum(), round(ahead.max(), 3)) == (41, 0.024)
    # Whoever changes the table changes this.
    assert data_hash(runs) == "e8741e63f7ec55110701d048df8c5d50f100e48a253ca2f9e9e5b7878ceec6e7"


@pytest.mark.parametrize(
    ("name", "kind"), [("busbridge", "distilled"), ("busbridge2025", "supervised"), ("../data", "distilled")]
)
def test_an_unknown_data_set_lists_those_that_exist(name, kind):
    with pytest.raises(DataError) as caught:
        load_runs(name, kind)
    assert f"There is no packaged data set {name!r} of kind {kind!r}" in str(caught.value)
    assert re.search(r"'busbridge2025' \(distilled[^)]*\)", str(caught.value))


@pytest.mark.parametrize("root", ["bayesdistill/data", "data"], ids=["wheel", "checkout"])
def test_any_folder_with_a_table_is_a_data_set(tmp_path, monkeypatch, root):
    folder = tmp_path / root / "tiny"
    folder.mkdir(parents=True)
    (folder.parent / "notes").mkdir()
    SMALL.to_csv(folder / "distilled.csv", index=False)
    SUPERVISED.to_csv(folder / "supervised.csv", index=False)
    monkeypatch.setattr(packaged, "_PACKAGE", tmp_path / "bayesdistill")
    pd.testing.assert_frame_equal(load_runs("tiny"), SMALL, check_dtype=False)
    assert load_runs("tiny", kind="supervised").attrs == {"source": "tiny/supervised", "kind": "supervised"}
    with pytest.raises(DataError, match=r"Available: 'tiny' \(distilled, supervised\)\."):
        load_runs("notes")


# Good tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mine.csv", "mine.csv.gz", "MINE.CSV", "mine.parquet", "mine.pq"])
def test_files_give_back_what_was_written(tmp_path, name):
    table = SMALL.assign(note=[f'a, "b" {i}' for i in range(12)], wall_hours=np.linspace(0.1, 7, 12), seed=range(12))
    path = tmp_path / name
    if name.lower().endswith("csv"):
        table.to_csv(path, index=False)
    elif name.endswith("gz"):
        path.write_bytes(gzip.compress(table.to_csv(index=False).encode()))
    else:
        table.to_parquet(path)
    runs = read_runs(path)
    pd.testing.assert_frame_equal(runs, table, check_exact=True)
    assert runs.attrs == {"source": str(path), "kind": "distilled"}
    assert read_runs(str(path)).attrs["source"] == str(path)


def test_a_table_in_memory_is_left_as_it_is():
    table = SMALL.iloc[::-1]
    before = table.copy(deep=True)
    runs = read_runs(table)
    pd.testing.assert_frame_equal(table, before)
    assert list(runs.index) == list(range(12))
    pd.testing.assert_frame_equal(runs, before.reset_index(drop=True))
    assert runs.attrs == {"source": "a DataFrame", "kind": "distilled"}
    assert read_runs(runs.assign(x=1)).attrs["source"] == "a DataFrame"
    runs.attrs["source"] = "somewhere"
    assert read_runs(runs).attrs["source"] == "somewhere"


def test_kinds_are_inferred_or_chosen():
    both = pd.concat([SMALL.iloc[[0, 3, 6, 9]].reset_index(drop=True), SUPERVISED], axis=1)
    assert read_runs(SUPERVISED).attrs["kind"] == "supervised"
    assert read_runs(both, "supervised").attrs["kind"] == "supervised"
    assert read_runs(both, kind="distilled").attrs["kind"] == "distilled"
    assert "Select one with kind='distilled' or kind='supervised'" in message(both)


def test_numbers_come_in_many_types():
    table = SUPERVISED.assign(
        params=pd.array([100_000_000, 100_000_000, 500_000_000, 500_000_000], dtype="Int64"),
        tokens=[" 2e9", "8E9", "10000000000", "4e10"],
        loss=[Decimal("3.0"), np.float32(2.75), 2.6, 2],
    )
    runs = read_runs(table)
    assert all(runs[name].dtype == np.float64 for name in KINDS["supervised"])
    assert runs["params"].tolist() == [1e8, 1e8, 5e8, 5e8]
    assert runs["tokens"].tolist() == [2e9, 8e9, 1e10, 4e10]
    assert runs["loss"].tolist() == [3.0, 2.75, 2.6, 2.0]


def test_a_named_index_is_a_column_and_other_indices_are_dropped():
    # Two seeds with the same losses: without the index they would be rows that are there twice.
    seeded = pd.concat([SUPERVISED, SUPERVISED]).assign(seed=np.repeat([0, 1], 4)).set_index("seed")
    assert list(read_runs(seeded).columns) == ["seed", "params", "tokens", "loss"]
    assert read_runs(seeded)["seed"].tolist() == [0] * 4 + [1] * 4
    assert list(read_runs(SUPERVISED.set_axis(list("abcd"))).columns) == list(SUPERVISED.columns)
    doubled = SUPERVISED.assign(seed=0).set_index("seed").assign(seed=1)
    assert "both in its index and as a column" in message(doubled)


def test_csv_files_as_spreadsheets_and_pandas_write_them(tmp_path):
    text = SUPERVISED.to_csv()  # with the number of the row, under no name
    assert list(read_runs(written(tmp_path, text)).columns) == ["params", "tokens", "loss"]
    marked = "\ufeff" + SUPERVISED.to_csv(index=False).replace(",", ", ").replace("\n", "\r\n\r\n")
    pd.testing.assert_frame_equal(read_runs(written(tmp_path, marked)), SUPERVISED)


def test_names_in_a_csv_file_stay_text_and_other_columns_find_their_type(tmp_path):
    text = (
        "params,tokens,loss,teacher,seed,hours,note\n"
        "1e8,2e9,3.0,007,1,0.5,1_0\n"
        "2e8,8e9,2.7,010,2,,x\n"
        "4e8,8e9,2.5,012,3,2,\n"
    )
    runs = read_runs(written(tmp_path, text))
    assert runs["teacher"].tolist() == ["007", "010", "012"]
    assert runs["seed"].tolist() == [1, 2, 3]
    assert runs["seed"].dtype == np.int64
    assert runs["hours"].dtype == np.float64
    assert runs["hours"].isna().tolist() == [False, True, False]
    assert runs["note"].isna().tolist() == [False, False, True]
    assert runs["note"].iloc[0] == "1_0"


def test_repeats_of_a_configuration_are_runs():
    losses = pd.concat([SMALL, SMALL.assign(student_loss=SMALL["student_loss"] + 0.01)])
    seeds = pd.concat([SMALL.assign(seed=0), SMALL.assign(seed=1)])
    assert len(read_runs(losses)) == len(read_runs(seeds)) == 24


@pytest.mark.parametrize("size", [12, 6])
def test_a_small_study_passes(size):
    assert len(read_runs(SMALL.iloc[:size])) == size


def test_a_study_of_tiny_models_passes():
    table = tiny_study()
    assert (table["student_params"].min(), table["student_tokens"].min()) == (13824, 5e5)
    assert 1.5 < table["student_loss"].min() < table["student_loss"].max() < 3
    assert len(read_runs(table, vocabulary_size=128)) == 175
    supervised = pd.DataFrame(
        [(24.0 * d**2, t * 1e6, 1.2 + 9 / d + 0.3 / t) for d in (24, 64, 192) for t in (0.5, 4, 32)],
        columns=KINDS["supervised"],
    )
    assert len(read_runs(supervised, vocabulary_size=128)) == 9


def test_a_grid_over_decades_passes():
    """Sizes and token counts of exact powers of ten look like slips of a unit to a careless check."""
    table = pd.DataFrame(
        [(10.0**n, 10.0**d, 1.5 + 10 / n + 10 / d) for n in (6, 7, 8, 9) for d in (8, 9, 10, 11)],
        columns=KINDS["supervised"],
    )
    assert len(read_runs(table)) == 16


@st.composite
def tables(draw):
    """Tables with valid cells and any losses: sizes of any study, no labels, notes with everything that CSV must quote."""
    count = draw(st.integers(2, 12))
    size = st.floats(1e4, 1e12)
    sizes = draw(st.lists(size, min_size=count, max_size=count, unique=True))
    ratios = draw(st.lists(st.floats(10, 1000), min_size=count, max_size=count, unique=True))
    teachers = draw(st.lists(st.floats(1, 5), min_size=count, max_size=count, unique=True))
    excess = draw(st.lists(st.floats(1e-3, 1), min_size=count, max_size=count))
    note = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8).map(lambda text: f"x{text}x")
    table = pd.DataFrame(
        {
            "note": pd.Series(draw(st.lists(note, min_size=count, max_size=count)), dtype="str"),
            "student_params": sizes,
            "student_tokens": [n * r for n, r in zip(sizes, ratios, strict=True)],
            "teacher_loss": teachers,
            "student_loss": [t + e for t, e in zip(teachers, excess, strict=True)],
        }
    )
    tokens, loss = table["student_tokens"], table["student_loss"]
    return table if tokens.min() < tokens.max() and loss.min() < loss.max() else draw(st.nothing())


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(table=tables(), suffix=st.sampled_from([".csv", ".csv.gz", ".parquet"]))
def test_any_valid_table_comes_back_to_the_bit(tmp_path_factory, table, suffix):
    path = tmp_path_factory.mktemp("runs") / f"any{suffix}"
    if suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    runs = read_runs(path, allow_suspicious=True)
    pd.testing.assert_frame_equal(runs, table, check_exact=True)
    assert data_hash(runs) == data_hash(table)
    pd.testing.assert_frame_equal(read_runs(runs), runs, check_exact=True)


# Files that hold no table -------------------------------------------------------------------------------------------


def test_a_missing_file_and_a_folder(tmp_path):
    assert f"{tmp_path / 'no.csv'} does not exist" in message(tmp_path / "no.csv", error=FileError)
    (tmp_path / "folder.csv").mkdir()
    assert f"{tmp_path / 'folder.csv'} is a folder" in message(tmp_path / "folder.csv", error=FileError)


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (b"", "mine.csv", "is empty. It must have a header and at least two runs."),
        (b" \n\n", "mine.csv", "is empty"),
        (b"", "mine.parquet", "is empty"),
        (gzip.compress(b"", mtime=0), "mine.csv.gz", "is empty"),
        (b"params,tokens,loss\n", "mine.csv", "has a header but no runs"),
        (
            b"params,tokens,loss\n1e8,2e9,3\n",
            "mine.csv",
            "row 1 (line 2), is the only run; a fit requires at least two runs",
        ),
        (b"\x89PNG\r\n\x1a\n\xff", "mine.csv", "is not encoded in UTF-8 (byte 1)"),
        (b"params\0tokens", "mine.csv", "contains binary data"),
        ("params,tokens".encode("utf-16"), "mine.csv", "is encoded in UTF-16. Save it as CSV in UTF-8."),
        (b"params,tokens,loss\n1e8,2e9,3\n", "mine.parquet", "is not a Parquet file or is damaged"),
        (b"params,tokens,loss\n1e8,2e9,3\n", "mine.csv.gz", "is not a gzip file or is damaged"),
        (
            gzip.compress(b"params,tokens,loss\n" * 99, mtime=0)[:-12],
            "mine.csv.gz",
            "is not a gzip file or is damaged",
        ),
        (b"PK\x03\x04", "mine.xlsx", "read it with pandas and pass the DataFrame"),
        (b"params;tokens;loss\n1e8;2e9;3,1\n", "mine.csv", "is separated by semicolons instead of commas"),
        (b"params\ttokens\tloss\n", "mine.csv", "is separated by tabs instead of commas"),
        (b'params,tokens,loss\n1e8,"2e9,3\n', "mine.csv", "line 2 is not valid CSV"),
        (
            b"params,tokens,loss\n1e8,2e9,3\n\n1e8,2,5e9,3\n",
            "mine.csv",
            "row 2 (line 4) has 4 cells, but the header has 3 columns",
        ),
        (b"params,tokens,,loss\n1e8,2e9,,3\n", "mine.csv", "column 3 has no name"),
        (b"1e8,2e9,3\n2e8,8e9,2.8\n", "mine.csv", "has no header; found '1e8', '2e9', '3' instead of column names"),
        (b"params,tokens,loss,loss\n1e8,2e9,3,3\n", "mine.csv", "has more than one column 'loss'"),
        (b"just some words", "mine.csv", "has no columns of runs; found 'just some words'"),
    ],
)
def test_a_file_that_is_no_table_is_named_with_its_fault(tmp_path, content, name, said):
    path = written(tmp_path, content, name)
    text = message(path)
    assert text.startswith(str(path))
    assert said in text


def test_a_damaged_parquet_file(tmp_path):
    SMALL.to_parquet(tmp_path / "mine.parquet")
    content = (tmp_path / "mine.parquet").read_bytes()
    text = message(written(tmp_path, content[: len(content) // 2], "half.parquet"))
    assert "half.parquet is not a Parquet file or is damaged" in text


def test_arguments_that_do_not_exist():
    assert "must be 'distilled', 'supervised' or None, got 'teacher'" in message(SMALL, "teacher", error=ParameterError)
    assert "`vocabulary_size` must be an integer of at least 2, or None, got 1." in message(
        SMALL, vocabulary_size=1, error=ParameterError
    )
    assert "got an object of type builtins.list." in message([1, 2], error=ParameterError)


# Columns ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "needed"),
    [
        ("N_S", "student_params"),
        ("studentparams", "student_params"),
        ("Student_Params", "student_params"),
        ("student_param", "student_params"),
        ("D_S", "student_tokens"),
        ("L_T", "teacher_loss"),
        ("teacher cross-entropy", "teacher_loss"),
        ("L_S", "student_loss"),
        ("student_los", "student_loss"),
    ],
)
def test_a_missing_column_is_guessed_from_names_like_it(found, needed):
    text = message(SMALL.rename(columns={needed: found}))
    assert text.startswith(
        f"the table has no column {needed!r}, which distilled runs require; {found!r} looks like {needed!r}"
    )
    assert f"runs.rename(columns={{{found!r}: {needed!r}}})" in text


def test_all_columns_under_the_papers_symbols():
    text = message(SUPERVISED.set_axis(["N", "D", "L"], axis=1))
    assert "no column 'params', 'tokens', 'loss', which supervised runs require" in text
    assert "runs.rename(columns={'N': 'params', 'D': 'tokens', 'L': 'loss'})" in text


def test_a_missing_column_that_nothing_looks_like():
    text = message(SMALL.drop(columns="teacher_loss"))
    assert (
        "no column 'teacher_loss', which distilled runs require (teacher_loss: validation cross-entropy of the teacher"
        in text
    )
    assert "Found 'student', 'student_params'" in text
    # A teacher's size is not its loss.
    assert "looks like" not in message(SMALL.rename(columns={"teacher_loss": "teacher_params"}))


def test_the_other_kind_was_asked_for():
    assert "it has the columns of supervised runs (params tokens loss), not of the requested distilled runs" in message(
        SUPERVISED, "distilled"
    )


def test_a_table_without_columns():
    assert "has no columns of runs; found none" in message(pd.DataFrame())
    assert "has no header" in message(pd.DataFrame([[1e8, 2e9, 3.0], [2e8, 8e9, 2.8]]))


# Cells --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "abc",
            "'abc' is not a number; expected a number (validation cross-entropy of the student, in nats per token)",
        ),
        ("", "'' is a missing value; expected a number"),
        ("NA", "'NA' is a missing value"),
        (math.nan, "nan is a missing value"),
        (None, "None is a missing value"),
        (math.inf, "inf; expected a finite number"),
        (-math.inf, "-inf; expected a finite number"),
        (10**400, "1000000000000000000000000000000000000...; expected a finite number"),
        (-2.5, "-2.5; expected a number above 0"),
        (0, "0; expected a number above 0"),
        (True, "True is not a number"),
        (2 + 1j, "(2+1j) is not a number"),
        ("x" * 99, "'" + "x" * 36 + "... is not a number"),
    ],
)
def test_a_bad_cell_is_named(value, said):
    text = message(with_cell(6, "student_loss", value))
    assert f"the table, row 7, column student_loss: {said}" in text
    assert text.endswith(". Correct these cells or remove their rows.")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("143M", "write 1.43e+08"),
        ("1.82B", "write 1.82e+09"),
        ("143,000,000", "write 143000000, without"),
        ("1_000", "not a num"),
        ("143,5", "write 143.5, with a decimal point"),
    ],
)
def test_sizes_written_for_people_get_the_number_to_write(value, said):
    text = message(with_cell(0, "student_params", value))
    assert f"row 1, column student_params: {value!r} is not a number" in text
    assert said in text


def test_a_loss_is_at_most_that_of_guessing():
    at_bound = with_cell(3, "student_loss", math.log(128))
    assert len(read_runs(at_bound, vocabulary_size=128)) == 12
    text = message(with_cell(3, "student_loss", 4.9), vocabulary_size=128)
    assert "row 4, column student_loss: 4.9; expected at most ln(128) = 4.8520 nats per token" in text
    assert "multiply bits per token by 0.6931" in text
    assert len(read_runs(with_cell(3, "student_loss", 4.9))) == 12


def test_problems_are_collected_in_the_order_of_rows(tmp_path):
    table = with_cell(
        9, "student_loss", "abc", with_cell(2, "teacher_loss", -1, with_cell(2, "student_params", math.inf))
    )
    path = tmp_path / "mine.csv"
    table.to_csv(path, index=False)
    lines = message(path).splitlines()
    assert lines[0].startswith(f"{path} has 3 problems as a table of distilled runs")
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "row 3 (line 4), column student_params",
        "row 3 (line 4), column teacher_loss",
        "row 10 (line 11), column student_loss",
    ]


def test_many_problems_are_cut_and_a_bad_column_is_told_once():
    table = with_cell(11, "student_params", "abc").assign(student_loss=-SMALL["student_loss"])
    lines = message(table).splitlines()
    assert len(lines) == 3
    assert (
        lines[1].strip().startswith("row 1, column student_loss: -2.3; expected a number above 0 (one of 12 such cells")
    )
    assert lines[2].strip().startswith("row 12, column student_params: 'abc'")
    table = SMALL
    for i, column in enumerate(KINDS["distilled"]):
        for row in (i, i + 4):
            table = with_cell(row, column, "?", table)
    lines = message(table).splitlines()
    assert lines[0].startswith("the table has 8 problems")
    assert lines[6:] == ["  and 3 more"]


def test_a_run_without_its_teacher_or_student_name():
    text = message(with_cell(4, "teacher", None, with_cell(4, "student", " ")))
    assert "row 5, column teacher: the teacher label is missing; label every row or drop the column" in text
    assert "row 5, column student: the student label is missing" in text
    assert "row 1, column teacher: ['a'] is not a label" in message(SMALL.assign(teacher=[["a"]] * 12))


@pytest.mark.parametrize("column", ["teacher_params", "teacher_tokens"])
def test_a_teacher_has_one_size_and_one_number_of_tokens(column):
    table = SMALL.assign(teacher_params=SMALL["teacher"].map({"M01": 3e9, "M05": 5e8}))
    table["teacher_tokens"] = 100 * table["teacher_params"]
    read_costed(table, "distilled")
    read_costed(with_cell(4, column, np.nan, table), "distilled")
    wrong = with_cell(4, column, 2.5 * table[column][4], table)
    # Without labels, runs with the same teacher loss have the same teacher.
    for named, key in ((wrong, "teacher 'M01'"), (wrong.drop(columns="teacher"), "teacher_loss '1.9'")):
        expected = f"row 5, column {column}: {wrong[column][4]:.6g} for {key}, which has {table[column][0]:.6g} in row 1; each teacher "
        with pytest.raises(DataError, match=re.escape(expected)):
            read_costed(named, "distilled")


_CORRUPT = ["abc", "", "nan", "inf", "-inf", "-3", "0", "1e-400", "0x10", "2.5.1", "1e8 2e8"]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    row=st.integers(0, 11),
    column=st.sampled_from(KINDS["distilled"]),
    cell=st.sampled_from(_CORRUPT),
    breaks=st.lists(st.integers(0, 3), min_size=12, max_size=12),
    suffix=st.sampled_from([".csv", ".csv.gz", ".parquet"]),
)
def test_any_single_corrupted_cell_is_named(tmp_path_factory, row, column, cell, breaks, suffix):
    """File, row, line (with notes that run over several lines above it), column and value."""
    table = with_cell(row, column, cell, SMALL.astype(dict.fromkeys(KINDS["distilled"], str)))
    table["note"] = ["a" + "\n" * n + "b" for n in breaks]
    path = tmp_path_factory.mktemp("runs") / f"broken{suffix}"
    if suffix == ".parquet":
        table.astype("str").to_parquet(path)
        line = ""
    else:
        table.to_csv(path, index=False)
        line = f" (line {2 + row + sum(breaks[:row])})"
    text = message(path)
    assert text.startswith(f"{path}, row {row + 1}{line}, column {column}: {cell!r}")
    assert "problems" not in text


# Rows ---------------------------------------------------------------------------------------------------------------


def test_a_row_that_is_there_twice(tmp_path):
    path = tmp_path / "mine.csv"
    pd.concat([SMALL, SMALL.iloc[[3]]]).to_csv(path, index=False)
    text = message(path)
    assert f"{path}, row 13 (line 14): equal to row 4 (line 5) in every column; delete one" in text
    assert "add a column such as 'seed'" in text
    listed = SMALL.assign(curve=[[1, 2]] * 12)
    assert "row 13: equal to row 1 in every column" in message(pd.concat([listed, listed.iloc[[0]]]))


def test_no_setting_accepts_what_cannot_be_fitted():
    for table, said in [
        (SMALL.iloc[:1], "is the only run"),
        (SMALL.iloc[:0], "no runs"),
        (
            SMALL.assign(student_loss=2.5),
            "column student_loss: all 12 values are 2.5; measured losses differ between runs",
        ),
        (pd.concat([SMALL, SMALL.iloc[[3]]]), "row 13: equal to row 4"),
        (with_cell(0, "student_loss", math.nan), "row 1, column student_loss: nan is a missing value"),
    ]:
        assert said in message(table, allow_suspicious=True)


# Tables that cannot mean what they say ------------------------------------------------------------------------------


def suspicion(table, *args, **options) -> str:
    """The message about a table, which must pass when it is allowed and when it is read again."""
    text = message(table, *args, **options)
    assert "If the values are correct, pass allow_suspicious=True" in text
    allowed = read_runs(table, *args, allow_suspicious=True, **options)
    assert allowed.attrs["allow_suspicious"] is True
    assert len(read_runs(allowed)) == len(table)
    return text


@pytest.mark.parametrize(
    ("column", "factor", "first", "unit"),
    [
        ("student_params", 1e6, "143", "millions, multiply by 1e6"),
        ("student_params", 1e9, "0.143", "billions, multiply by 1e9"),
        ("student_tokens", 1e9, "2.86", "billions, multiply by 1e9"),
        ("student_tokens", 1e6, "2860", "millions, multiply by 1e6"),
    ],
)
def test_a_column_in_millions_or_billions(tmp_path, column, factor, first, unit):
    path = tmp_path / "mine.csv"
    SMALL.assign(**{column: SMALL[column] / factor}).to_csv(path, index=False)
    text = message(path)
    assert f"{path}, row 1 (line 2), column {column}: {first} " in text
    assert f"probably {SMALL[column].iloc[0]:g} was meant ({unit})" in text
    suspicion(SMALL.assign(**{column: SMALL[column] / factor}))


def test_both_columns_in_the_units_of_tables_in_papers():
    text = suspicion(
        SMALL.assign(student_params=SMALL["student_params"] / 1e6, student_tokens=SMALL["student_tokens"] / 1e9)
    )
    assert "column student_params: 143 (one of 12 such rows) is too few parameters" in text
    assert "probably 1.43e+08 was meant (millions" in text
    assert "column student_tokens: 2.86 (one of 12 such rows) is too few tokens" in text
    assert "probably 2.86e+09 was meant (billions" in text


@pytest.mark.parametrize("published", [False, True])
def test_a_column_in_thousands_shows_in_tokens_per_parameter(published):
    table = load_runs() if published else SMALL
    text = suspicion(table.assign(student_params=table["student_params"] / 1e3))
    assert "columns student_params and student_tokens: the median run has" in text
    assert (
        "Either student_params is in thousands (multiply it by 1e3), or student_tokens is 1e3 times too large" in text
    )
    text = suspicion(load_runs().assign(student_tokens=load_runs()["student_tokens"] / 1e3))
    assert (
        "Either student_tokens is in thousands (multiply it by 1e3), or student_params is 1e3 times too large" in text
    )


def test_a_tiny_study_in_thousands_and_millions():
    table = tiny_study()
    text = suspicion(table.assign(student_params=table["student_params"] / 1e3))
    assert "row 1, column student_params: 13.824 (one of 175 such rows)" in text
    assert "probably 13824 was meant (thousands" in text
    text = suspicion(table.assign(student_tokens=table["student_tokens"] / 1e6))
    assert "row 1, column student_tokens: 0.5 (one of 175 such rows)" in text
    assert "probably 500000 was meant (millions" in text


@pytest.mark.parametrize("column", ["student_params", "student_tokens"])
@pytest.mark.parametrize("factor", [1e-9, 1e-6, 1e-3, 1e3, 1e6, 1e9])
def test_one_run_in_another_unit(column, factor):
    """A single slip in 354 runs, in either direction, is found, and the number that was meant is given back."""
    runs = load_runs()
    meant = float(runs[column].iloc[17])
    text = suspicion(with_cell(17, column, meant * factor, runs))
    assert f"the table, row 18, column {column}: {meant * factor:.6g} " in text
    assert f"probably {meant:.6g} was meant" in text
    assert "problems" not in text


@pytest.mark.parametrize("share", [2, 3, 5])
def test_several_runs_in_another_unit(share):
    table = SMALL.drop(columns="student").astype({"student_params": float})
    table.loc[: share - 1, "student_params"] /= 1e3
    text = suspicion(table)
    assert f"row 1, column student_params: 143000 (one of {share} such rows) gives" in text
    assert "probably 1.43e+08 was meant (thousands" in text


def test_losses_in_other_units():
    perplexity = suspicion(SMALL.assign(student_loss=np.exp(SMALL["student_loss"] + 1)))
    value = math.exp(SMALL["student_loss"].iloc[0] + 1)
    assert (
        f"row 1, column student_loss: {value:.6g} (one of 12 such rows) is larger than the loss of a uniform"
        in perplexity
    )
    assert f"if it is a perplexity, its logarithm is {SMALL['student_loss'].iloc[0] + 1:.4f}" in perplexity
    low = np.exp(SMALL["student_loss"] - 0.2)
    assert low.max() < 12
    assert (
        f"column student_loss: the median is {low.median():.4g}, which is larger than the loss of a unigram model"
        in suspicion(SMALL.assign(student_loss=low))
    )
    one = suspicion(with_cell(5, "teacher_loss", 15.0, SMALL.drop(columns="teacher")))
    assert "row 6, column teacher_loss: 15 is larger than the loss of a uniform prediction" in one


def test_student_and_teacher_losses_swapped():
    swapped = {"student_loss": "teacher_loss", "teacher_loss": "student_loss"}
    text = suspicion(load_runs().rename(columns=swapped))
    assert "the student is better than its teacher in 313 of 354 runs, by 0.144 nats in the median" in text
    assert "probably swapped" in text
    # Students above and below their teachers alike, but one teacher with many losses: only the labels tell.
    table = load_runs().query("teacher_loss > 2.35")
    assert read_runs(table) is not None
    text = suspicion(table.rename(columns=swapped))
    assert "runs with the same teacher have equal student_loss and different teacher_loss" in text


def test_one_teacher_has_one_loss_and_one_student_one_size():
    text = suspicion(with_cell(4, "teacher_loss", 1.95))
    assert (
        "row 5, column teacher_loss: 1.95 for teacher 'M01', which has 1.9 in row 1; each teacher must have one teacher_loss"
        in text
    )
    text = suspicion(with_cell(6, "student_params", 2.5e8))
    assert "row 7, column student_params: 2.5e+08 for student 's2e+08', which has 1.98e+08 in row 5" in text
    rounded = with_cell(4, "teacher_loss", 1.9004, with_cell(6, "student_params", 1.97e8))
    assert len(read_runs(rounded)) == 12
    assert len(read_runs(SMALL.assign(teacher=[1, "a"] * 6))) == 12


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (SMALL.drop(columns="student"), "student_params"),
        (SMALL, "student_tokens"),
        (SMALL.drop(columns="teacher"), "teacher_loss"),
        (SUPERVISED, "params"),
        (SUPERVISED, "tokens"),
    ],
)
def test_a_column_may_have_one_value(table, column):
    """Such runs answer some questions; `fit`, `check` and plans say which they do not."""
    one = table.assign(**{column: float(table[column].iloc[1])})
    assert len(read_runs(one)) == len(one)
    assert fixed_axes(one)


# Schema, hash, description ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "same", "other", "said"),
    [
        ("mixing", [1, "1.0", None], 0.5, "0.5, but the law describes students that learn from the teacher's"),
        ("temperature", [1.0, "1", np.nan], "2", "'2', but the law describes distillation at temperature 1"),
        ("top_k", ["all", "Full", math.inf, ""], 50, "50, but the law describes students of the teacher's whole"),
        ("init", ["random", " Scratch", None], "pruned", "'pruned', but the law describes models trained from random"),
    ],
)
def test_runs_with_another_recipe_are_rejected(runs354, column, same, other, said):
    cells = pd.Series((same * len(runs354))[: len(runs354)], dtype=object)
    assert len(read_runs(runs354.assign(**{column: cells}))) == len(runs354)
    cells.iloc[[4, 7]] = [other, other]
    mixed = runs354.assign(**{column: cells})
    with pytest.raises(DataError, match=re.escape(said)) as raised:
        read_runs(mixed, allow_suspicious=True)
    assert f"row 5, column {column}" in str(raised.value)
    assert "one of 2 such rows" in str(raised.value)
    assert "drop the column" in str(raised.value)
    assert len(read_runs(mixed.drop(columns=column))) == len(runs354)


def test_supervised_runs_have_no_recipe_of_distillation():
    runs = load_runs("tiny", kind="supervised")
    assert len(read_runs(runs.assign(temperature=2.0))) == len(runs)
    with pytest.raises(DataError, match="column init: 'teacher'"):
        read_runs(runs.assign(init="teacher"))


def test_the_schema_is_pandera_and_stands_alone():
    import pandera.errors

    schema = runs_schema("supervised", vocabulary_size=32)
    assert list(schema.columns) == list(KINDS["supervised"])
    schema.validate(SUPERVISED)
    with pytest.raises(pandera.errors.SchemaError, match=re.escape("at most ln(32) = 3.4657")):
        schema.validate(SUPERVISED.assign(loss=3.5))
    with pytest.raises(ParameterError, match=r"`kind` must be .*, got 'x'"):
        runs_schema("x")


def test_the_hash_is_of_what_a_fit_reads():
    plain = SUPERVISED.copy()
    expected = hashlib.sha256(b"supervised")
    for name in ("params", "tokens", "loss"):
        expected.update(b"\n" + name.encode() + b"\n" + np.array(plain[name], dtype="<f8").tobytes())
    assert data_hash(plain) == expected.hexdigest()
    same = plain[["loss", "tokens", "params"]].assign(note="x").set_axis([9, 8, 7, 6])
    assert data_hash(same) == data_hash(plain)
    assert data_hash(plain.astype({"params": int})) == data_hash(plain)
    others = [
        plain.iloc[::-1],
        plain.iloc[:-1],
        plain.assign(loss=np.nextafter(plain["loss"], 9)),
        plain.assign(params=plain["tokens"], tokens=plain["params"]),
    ]
    labelled = [
        SMALL,
        SMALL.assign(teacher=SMALL["student"]),
        SMALL.drop(columns="teacher"),
        SMALL.drop(columns="student"),
    ]
    assert len({data_hash(table) for table in [plain, *others, *labelled]}) == 9


def test_runs_are_described_in_numbers():
    summary = describe_runs(load_runs())
    assert {name: int(summary[name]) for name in ("runs", "configurations", "repeats", "teachers")} == {
        "runs": 354,
        "configurations": 20,
        "repeats": 4,
        "teachers": 65,
    }
    np.testing.assert_array_equal(summary["student_params"], [1.43e8, 5.46e8, 7.75e9])
    np.testing.assert_array_equal(summary["teacher_loss"], [1.89526, 2.29607, 2.75449])
    np.testing.assert_allclose(
        summary["tokens_per_parameter"].sel(statistic="maximum"), 3.988889e10 / 1.98e8, rtol=0.05
    )
    assert all({"units", "long_name"} <= set(variable.attrs) for variable in summary.data_vars.values())
    assert summary.attrs["data_hash"] == data_hash(load_runs())
    assert str(summary).startswith("354 distilled runs, 65 teachers, 20 configurations, 4 repeats\n")
    assert [line.split()[:2] for line in str(summary).splitlines() if line.startswith("m")] == [
        ["minimum", "143M"],
        ["median", "546M"],
        ["maximum", "7.75B"],
    ]
    supervised = describe_runs(read_runs(pd.concat([SUPERVISED, SUPERVISED.assign(loss=SUPERVISED["loss"] + 0.01)])))
    assert (int(supervised["runs"]), int(supervised["configurations"]), int(supervised["repeats"])) == (8, 4, 4)
    assert "teachers" not in supervised


# Simulated runs -----------------------------------------------------------------------------------------------------

DRAWN = [  # N_S, D_S, L_T and the L_S that the paper's curves show
    (1.43e08, 3.601e09, 2.28182, 2.7310),
    (1.98e08, 9.567e09, 2.28182, 2.5899),
    (5.46e08, 1.207e10, 2.18485, 2.4326),
    (5.46e08, 4.829e10, 2.28182, 2.3575),
    (1.82e09, 3.813e10, 2.18485, 2.2410),
    (4.82e09, 9.879e10, 2.42727, 2.4273),
    (4.82e09, 5.12e11, 2.28182, 2.2818),
    (7.75e09, 5.12e11, 2.28182, 2.2818),
]


def test_without_noise_runs_lie_on_the_law():
    design = pd.DataFrame([row[:3] for row in DRAWN], columns=KINDS["distilled"][:3])
    runs = simulate_runs(PUBLISHED, seed=0, design=design, sigma=0)
    np.testing.assert_allclose(runs["student_loss"], [row[3] for row in DRAWN], atol=1.5e-3)
    assert runs["student"].tolist() == ["143M", "198M", "546M", "546M", "1.82B", "4.82B", "4.82B", "7.75B"]
    assert runs["teacher"].tolist() == ["T02", "T02", "T01", "T02", "T01", "T03", "T02", "T02"]
    supervised = simulate_runs(PUBLISHED, seed=0, kind="supervised", sigma=0)
    assert len(supervised) == 32
    # E + (A/N^alpha + B/D^beta)^gamma, written out.
    first = supervised.iloc[0]
    term = 3355 / first["params"] ** 0.408 + 18186 / first["tokens"] ** 0.431
    assert first["loss"] == pytest.approx(1.220 + term**0.452, abs=1e-12)


def test_what_the_default_model_adds_to_the_law_is_simulated_too():
    """Equation 8 with w1, kappa and omega, written out for a student better than its teacher and one that is worse."""
    design = pd.DataFrame([(1e9, 5e10, 2.6), (1.43e8, 3e9, 2.0)], columns=KINDS["distilled"][:3])
    plain = simulate_runs(PUBLISHED, seed=0, design=design, sigma=0)["student_loss"]
    more = {"w1": 0.1, "kappa": 2.0, "omega": 0.5}
    runs = simulate_runs(dict(PUBLISHED) | more, seed=0, design=design, sigma=0)
    size, tokens, teacher = (design[name] for name in KINDS["distilled"][:3])
    alone, ability = (1.220 + (3355 / size**0.408 + 18186 / (k * tokens) ** 0.431) ** 0.452 for k in (1, 2))
    above = ability - 0.61
    ratio = (teacher / ability) ** (ability / above)
    p = PUBLISHED
    expected = (
        teacher
        - 0.1 * np.maximum(teacher - alone, 0)
        + (above * ratio) ** -p["c0"]
        * (1 + (ratio / p["d1"]) ** (1 / p["f1"])) ** (-p["c1"] * p["f1"])
        * (p["A_S"] / size ** p["alpha_S"] + p["B_S"] / tokens ** p["beta_S"]) ** p["gamma_S"]
    )
    np.testing.assert_allclose(runs["student_loss"], expected, rtol=1e-10)
    assert (abs(runs["student_loss"] - plain) > 0.001).all()
    assert runs.attrs["truth"]["kappa"] == 2.0
    for wrong, said in (
        ({"w1": 1.5}, "w1 must be a number from 0 to 1, got 1.5"),
        ({"omega": -0.1}, "omega must be a number from 0 to 1, got -0.1"),
        ({"kappa": 0.0}, "kappa must be a positive number, got 0.0"),
    ):
        with pytest.raises(ParameterError, match=said):
            simulate_runs(dict(PUBLISHED) | wrong, seed=0)


def test_simulated_runs_have_the_columns_of_real_ones_and_tell_their_truth(tmp_path):
    runs = simulate_runs(PUBLISHED, seed=3, teacher_sd=0.004)
    real = load_runs()
    assert list(runs.columns) == list(real.columns)
    pd.testing.assert_frame_equal(runs.drop(columns="student_loss"), real.drop(columns="student_loss"))
    assert runs.attrs["truth"] == dict(PUBLISHED) | {"sigma": 0.007, "nu": 5.0, "teacher_sd": 0.004, "student_sd": 0.0}
    json.dumps(runs.attrs)
    assert read_runs(runs).attrs["truth"] == runs.attrs["truth"]
    runs.to_parquet(tmp_path / "runs.parquet")
    assert read_runs(tmp_path / "runs.parquet").attrs["truth"]["c0"] == PUBLISHED["c0"]
    assert set(simulate_runs(PUBLISHED, seed=3, kind="supervised").attrs["truth"]) == {
        *laws.SUPERVISED_PARAMETERS,
        "sigma",
        "nu",
        "teacher_sd",
        "student_sd",
    }


def test_equal_seeds_give_equal_runs():
    one, again = (simulate_runs(PUBLISHED, seed=7) for _ in range(2))
    pd.testing.assert_frame_equal(one, again, check_exact=True)
    pd.testing.assert_frame_equal(one, simulate_runs(PUBLISHED, seed=np.random.default_rng(7)), check_exact=True)
    rng = np.random.default_rng(7)
    assert not simulate_runs(PUBLISHED, seed=rng).equals(simulate_runs(PUBLISHED, seed=rng))


@pytest.mark.parametrize("nu", [3.0, math.inf])
def test_noise_is_student_t(nu):
    design = published_design("supervised")
    runs = simulate_runs(PUBLISHED, seed=11, kind="supervised", design=design, sigma=0.01, nu=nu, repeats=300)
    assert len(runs) == 9600
    assert runs["seed"].value_counts().eq(32).all()
    law = {name: PUBLISHED[name] for name in laws.SUPERVISED_PARAMETERS}
    unit = (runs["loss"] - laws.supervised_loss(runs["params"], runs["tokens"], **law)) / 0.01
    right = stats.norm() if math.isinf(nu) else stats.t(nu)
    wrong = stats.t(3) if math.isinf(nu) else stats.norm()
    assert stats.kstest(unit, right.cdf).pvalue > 0.01
    assert stats.kstest(unit, wrong.cdf).pvalue < 1e-6


def test_shifts_are_shared_within_teachers_and_configurations():
    teachers = pd.DataFrame({"teacher": [f"T{i}" for i in range(400)], "teacher_loss": np.linspace(1.9, 2.7, 400)})
    students = pd.DataFrame({"student_params": [2e8, 5e8, 1e9], "student_tokens": [4e9, 2e10, 2e10]})
    by_teacher = teachers.merge(students, how="cross")
    runs = simulate_runs(PUBLISHED, seed=5, design=by_teacher, sigma=0, teacher_sd=0.02)
    clean = simulate_runs(PUBLISHED, seed=5, design=by_teacher, sigma=0)
    shift = (runs["student_loss"] - clean["student_loss"]).groupby(runs["teacher"])
    assert (shift.max() - shift.min()).max() < 1e-12
    assert stats.kstest(shift.mean() / 0.02, "norm").pvalue > 0.01

    # Two token counts for each size: a configuration is both.
    sizes = pd.DataFrame({"student_params": np.geomspace(1e8, 1e10, 200)}).merge(
        pd.DataFrame({"student_tokens": [2e10, 8e10]}), how="cross"
    )
    by_student = sizes.merge(teachers.iloc[[0, 200, 399]], how="cross")
    runs = simulate_runs(PUBLISHED, seed=6, design=by_student, sigma=0, student_sd=0.02)
    clean = simulate_runs(PUBLISHED, seed=6, design=by_student, sigma=0)
    shift = (runs["student_loss"] - clean["student_loss"]).groupby([runs["student_params"], runs["student_tokens"]])
    assert (shift.max() - shift.min()).max() < 1e-12
    assert stats.kstest(shift.mean() / 0.02, "norm").pvalue > 0.01
    of_one_size = shift.mean().to_numpy().reshape(200, 2)
    assert abs(np.corrcoef(of_one_size.T)[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "both"}, "got 'both'"),
        ({"sigma": -1.0}, "`sigma` must be a number from 0 to 10 nats, got -1.0"),
        ({"sigma": math.nan}, "`sigma` must be a number from 0 to 10 nats, got nan"),
        ({"nu": 0.0}, "`nu` must be a number above 0, got 0.0"),
        ({"teacher_sd": math.inf}, "`teacher_sd` must be a number from 0 to 10 nats, got inf"),
        ({"repeats": 0}, "`repeats` must be an integer from 1 to 100000, got 0"),
        ({"sigma": 10.0}, "of the design is -"),
    ],
)
def test_arguments_that_cannot_be_simulated(options, said):
    with pytest.raises(ParameterError, match=re.escape(said)):
        simulate_runs(PUBLISHED, seed=0, **options)


def test_parameters_or_columns_that_are_missing():
    fewer = {name: value for name, value in PUBLISHED.items() if name not in ("c0", "f1")}
    with pytest.raises(ParameterError, match=r"must contain c0, f1\. The law of distilled runs has"):
        simulate_runs(fewer, seed=0)
    with pytest.raises(ParameterError, match=r"B_S must be a positive number, got -1000000000\.0"):
        simulate_runs(dict(PUBLISHED) | {"B_S": -1e9}, seed=0)
    with pytest.raises(DataError, match="no column 'teacher_loss', which distilled runs require"):
        simulate_runs(PUBLISHED, seed=0, design=SMALL.drop(columns="teacher_loss"))
    with pytest.raises(DataError, match="has a header but no runs"):
        simulate_runs(PUBLISHED, seed=0, design=SMALL.iloc[:0])


# What importing costs -----------------------------------------------------------------------------------------------


def test_importing_the_room_loads_no_heavy_package():
    code = (
        "import sys, bayesdistill.datasets as d; "
        "print([n for n in ('pandera', 'xarray', 'pyarrow.parquet', 'pymc') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
