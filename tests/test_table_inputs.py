"""Tables in other formats, with odd types and of any size: read, questioned or rejected with a short error of the package."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bayesdistill as bd
from bayesdistill.datasets import data_hash, describe_runs, read_design
from bayesdistill.datasets.schemas import COLUMNS
from bayesdistill.decisions.fitted_draws import gather
from bayesdistill.design import run_costs

LONGEST = 1200
RUNS = bd.simulate_runs(bd.PUBLISHED, kind="supervised", seed=3).round({"loss": 3})
POINTS = RUNS.to_csv(index=False)
COMMAS = POINTS.replace(",", ";").replace(".", ",")
GROUPED = "params;tokens;loss\n" + "".join(
    f"{n:,.0f};{d:,.0f};{loss}\n".replace(",", ".").replace(f";{loss}", f";{str(loss).replace('.', ',')}")
    for n, d, loss in RUNS.itertuples(index=False)
)
EXPONENTS = "params;tokens;loss\n" + "".join(
    f"{n:.2E};{d:.2E};{loss:.3f}\n".replace(".", ",") for n, d, loss in RUNS.itertuples(index=False)
)


def rejected(source: object, **options: object) -> str:
    with pytest.raises(bd.DataError) as caught:
        bd.read_runs(source, **options)  # type: ignore[arg-type]
    assert len(str(caught.value)) <= LONGEST
    return str(caught.value)


def message_of(call: Callable[..., object], table: object) -> str:
    """The package's own error, if the call raises one; any other error is raised."""
    try:
        call(table)
    except bd.BayesdistillError as error:
        return str(error)
    return ""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (COMMAS, "is separated by semicolons instead of commas"),
        (GROUPED, "is separated by semicolons instead of commas"),
        (EXPONENTS, "is separated by semicolons instead of commas"),
        (POINTS.replace(",", ";"), "is separated by semicolons"),
        (POINTS.replace(",", "; "), "is separated by semicolons"),
        (POINTS.replace(",", "\t"), "is separated by tabs"),
        (COMMAS.replace(";", "\t"), "is separated by tabs"),
        (POINTS.replace(",", "|"), "is separated by vertical bars"),
        ("# from the cluster\n" + POINTS, "line 1 ('# from the cluster') is a comment"),
        ("# one\n# two\n" + COMMAS, "line 1 ('# one') is a comment"),
        ("sep=,\n" + POINTS, "line 1 ('sep=,') is an instruction for Excel"),
        ("sep=;\n" + COMMAS, "line 1 ('sep=;') is an instruction for Excel"),
        (re.sub(r"(\d)\.(\d+)$", r'"\1,\2"', POINTS.replace(".0,", ","), flags=re.MULTILINE), "with a decimal point"),
    ],
)
def test_other_formats_are_named_with_a_call_that_reads_them(tmp_path, text, said):
    message = rejected(written(tmp_path, text))
    assert said in message
    call = re.search(r"Or pass (pandas\.read_csv\(.*\))", message)
    assert call is not None
    frame = eval(call[1], {"pandas": pd})  # the advice itself
    runs = bd.read_runs(frame)
    rounded = RUNS if text is not EXPONENTS else RUNS.map(lambda value: float(f"{value:.3g}"))
    np.testing.assert_allclose(runs[list(RUNS)], rounded, rtol=3e-3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Runs of 2024\n" + POINTS, "line 1 ('Runs of 2024') is not the header, which is line 2"),
        (",,\n\n" + POINTS, "line 1 (',,') is not the header, which is line 3"),
        ("// exported\n" + COMMAS, "line 1 ('// exported') is not the header, which is line 2"),
        ("# params, tokens and loss\n" + POINTS, "is a comment. Delete the lines of comments"),
        (POINTS.replace(",", "   "), "is separated by spaces"),
        (RUNS.to_string(index=False), "is separated by spaces"),
    ],
)
def test_lines_before_the_header_and_columns_of_fixed_width(tmp_path, text, said):
    test_other_formats_are_named_with_a_call_that_reads_them(tmp_path, text, said)


def test_rows_that_are_not_runs(tmp_path):
    header, *lines = POINTS.splitlines()
    for row in (header, "count,count,nats", "(M),(B),", ",,"):
        message = rejected(written(tmp_path, "\n".join([header, *lines[:3], row, *lines[3:]])))
        assert "mine.csv, row 4 (line 5): '" in message
        assert "no numbers; delete the row if it repeats the header or has units" in message
    assert "(line 5) is a comment ('# rerun')" in rejected(
        written(tmp_path, "\n".join([header, *lines[:3], "# rerun", *lines[3:]]))
    )
    for what, total in (("means", RUNS.mean()), ("medians", RUNS.median()), ("sums", RUNS.sum())):
        table = pd.concat([RUNS, total.to_frame().T.round({"loss": 3})], ignore_index=True)
        assert f"row {len(table)}: the values are the {what} of the other rows; delete this row" in rejected(table)


def test_headers_after_a_comment_mark_and_merge_conflicts(tmp_path):
    assert "has a header after '#'. Delete the '#'." in rejected(written(tmp_path, "# " + POINTS))
    lines = POINTS.splitlines()
    marked = [*lines[:3], "<<<<<<< HEAD", lines[3], "=======", lines[4], ">>>>>>> other", *lines[5:]]
    for end in ("\n", "\r\n"):
        path = tmp_path / "mine.csv"
        path.write_bytes(end.join(marked).encode())
        assert "line 4 is a merge conflict marker ('<<<<<<< HEAD'). Resolve the conflict" in rejected(path)


@pytest.mark.parametrize(
    ("column", "cell", "meant"),
    [
        ("loss", "2,895", "write 2.895, with a decimal point"),
        ("params", "1,895", "write 1895, without separators"),
        ("params", "1,43E+08", "write 1.43E+08, with a decimal point"),
        ("params", "143.000.000", "write 143000000, without separators"),
        ("tokens", "3.601.000.000,5", "write 3601000000.5, with a decimal point"),
        ("tokens", "3 601 000 000", "write 3601000000, without separators"),
        ("tokens", "3\u202f601\u202f000\u202f000", "write 3601000000, without separators"),
        ("tokens", "3'601'000'000", "write 3601000000, without separators"),
        ("tokens", "3\u2019601\u2019000\u2019000", "write 3601000000, without separators"),
        ("tokens", "20B", "write 2e+10"),
        ("tokens", "20 Bn", "write 2e+10"),
        ("tokens", "20 Mrd.", "write 2e+10"),
        ("params", "70 million params", "write 7e+07"),
        ("params", "7x10^7", "write 7e+07"),
        ("params", "7 × 10⁷", "write 7e+07"),
        ("params", "7.0D+07", "write 7e+07"),
    ],
)
def test_numbers_in_other_formats(column, cell, meant):
    cells = RUNS[column].astype(object)
    cells.iloc[4] = cell
    message = rejected(RUNS.assign(**{column: cells}))
    assert f"row 5, column {column}: " in message
    assert meant in message


# Attributes, names, and long texts ----------------------------------------------------------------------------------


def test_attributes_that_cannot_be_compared_or_written(tmp_path):
    table = RUNS.copy()
    circle: list[object] = []
    circle.append(circle)
    table.attrs = {"source": Path("mine"), "array": np.arange(3), "frame": RUNS, "circle": circle, "note": {"by": "me"}}
    runs = bd.read_runs(table)
    assert runs.attrs == {"source": "mine", "note": {"by": "me"}, "kind": "supervised"}
    assert pd.concat([runs, runs]).attrs["source"] == "mine"
    runs.to_parquet(tmp_path / "runs.parquet")
    assert set(table.attrs) == {"source", "array", "frame", "circle", "note"}
    assert len(bd.build_model(supervised=table).observed_RVs) == 1
    assert describe_runs(table).attrs["source"] == "mine"


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_500_000,
        "params,tokens,loss\n" + "y" * 1_500_000 + ",2e9,3\n2e8,8e9,2.8\n",
        ",".join(f"column {i}" for i in range(4_000)) + "\n" + ",".join("1" * 4_000) + "\n",
        "params,tokens,loss\n" + "oops,-1,inf\n" * 2_000,
        "params,tokens,loss,loss\n" + "1e8,2e9,3,3\n",
        "params,tokens,loss," + "z" * 900_000 + ",\n1e8,2e9,3,,\n",
        "# " + "c" * 1_500_000 + "\nparams,tokens,loss\n1e8,2e9,3\n",
        "params;tokens;loss;" + "h" * 1_500_000 + "\n1e8;2e9;3;1\n",
        "params,tokens,loss\n" + "1e8,2e9,3\n" * 4,
        "student_params,student_tokens,teacher_loss,student_loss,teacher\n"
        + "".join(f"1e8,{i}e9,{2 + 0.1 * i},{3 - 0.1 * i},{'t' * 300_000}\n" for i in range(2, 7)),
        POINTS.replace("loss", "loss,dataset")
        .replace("\n", "," + "d" * 100_000 + "\n", 9)
        .replace("d" * 100_000, "dataset", 1),
    ],
)
def test_messages_are_short_whatever_the_file(tmp_path, text):
    rejected(written(tmp_path, text))


def test_long_paths_and_labels():
    for name in ("p" * 5000 + ".csv", "p" * 5000 + ".xlsx", "p\0q.csv"):
        with pytest.raises(bd.BayesdistillError) as caught:
            bd.read_runs(name)
        assert len(str(caught.value)) <= LONGEST
    teachers = pd.DataFrame({"params": [1e9, 2e9], "loss": [2.2, 2.1], "name": ["n" * 100_000] * 2})
    with pytest.raises(bd.DataError) as caught:
        bd.plan(_published(), 1e9, 1e21, "best case", teachers=teachers)
    assert len(str(caught.value)) <= LONGEST


def _published() -> xr.Dataset:
    draws = {name: (("chain", "draw"), np.full((1, 4), value)) for name, value in bd.PUBLISHED.items()}
    draws |= {"sigma": (("chain", "draw"), np.full((1, 4), 0.007)), "nu": (("chain", "draw"), np.full((1, 4), 5.0))}
    return xr.Dataset(draws, attrs={"law": "busbridge2025"})


# Any table ----------------------------------------------------------------------------------------------------------

CELLS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(1, 1e12),
    st.integers(-5, 10**20),
    st.sampled_from(["1e9", "2,5", "143M", "", "NA", "abc", "1_000", "٣", "=1+1", " 2.5 "]),
    st.none(),
    st.booleans(),
    st.decimals(-10, 10**10, places=2),
    st.just(pd.NA),
    st.just(pd.NaT),
    st.dates(),
    st.just([1, 2]),
    st.just({"a": 1}),
    st.just(np.array([1.0])),
    st.just(1 + 2j),
    st.just(b"x"),
    st.just(datetime.timedelta(1)),
)
NAMES = st.sampled_from(
    [*COLUMNS, "teacher", "student", "name", "model", "dataset", 1, 2.5, None, ("a", "b"), "", "x" * 50]
)
USUAL = {
    "params": [1e8, 3e8, 1e9],
    "tokens": [2e9, 8e9, 3e10],
    "loss": [3.2, 2.8, 2.5],
    "student_params": [1e8, 3e8, 1e9],
    "student_tokens": [2e9, 8e9, 3e10],
    "teacher_loss": [2.2, 2.1, 2.0],
    "student_loss": [3.1, 2.7, 2.4],
}
BASES = (
    ("params", "tokens", "loss"),
    ("student_params", "student_tokens", "teacher_loss", "student_loss"),
    (),
    tuple(USUAL),
)


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """A table of runs with changed cells, columns, types and index, or any table."""
    base = draw(st.sampled_from(BASES))
    rows = draw(st.integers(0, 4))
    columns: list[pd.Series] = []
    for name in base:
        values: list[object] = [USUAL[name][i % 3] for i in range(rows)]
        for place in draw(st.lists(st.integers(0, 4), max_size=2)):
            if place < rows:
                values[place] = draw(CELLS)
        columns.append(pd.Series(values, name=name, dtype=object))
    for _ in range(draw(st.integers(0, 2))):
        values = draw(st.lists(CELLS, min_size=rows, max_size=rows))
        columns.append(pd.Series(values, name=draw(NAMES), dtype=object))
    table = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=range(rows))
    kind = draw(
        st.sampled_from(["object", "infer", "category", "Float64", "pyarrow", "float32", "multi", "dates", "named"])
    )
    try:
        if kind == "infer":
            table = table.infer_objects()
        elif kind in ("category", "Float64", "float32"):
            with np.errstate(over="ignore"):
                table = table.astype(kind)
        elif kind == "pyarrow":
            table = table.astype("string[pyarrow]")
        elif kind == "multi":
            table.columns = pd.MultiIndex.from_tuples([(str(name), "b") for name in table.columns])
        elif kind == "dates":
            table.index = pd.date_range("2026-01-01", periods=rows)
        elif kind == "named" and table.shape[1]:
            table = table.set_index(table.columns[0], drop=draw(st.booleans()))
    except (TypeError, ValueError, NotImplementedError, AttributeError, RuntimeWarning):  # which float32 raises
        pass
    table.attrs = draw(
        st.sampled_from([{}, {"kind": "supervised"}, {"kind": 3}, {"source": None}, {"a": np.arange(2)}])
    )
    return table


ENTRIES = {
    "read_runs": bd.read_runs,
    "read_runs, allowed": lambda table: bd.read_runs(table, allow_suspicious=True),
    "read_design": read_design,
    "describe_runs": describe_runs,
    "data_hash": data_hash,
    "run_costs": run_costs,
    "simulate_runs": lambda table: bd.simulate_runs(bd.PUBLISHED, seed=0, design=table),
    "simulate_runs, supervised": lambda table: bd.simulate_runs(bd.PUBLISHED, seed=0, design=table, kind="supervised"),
    "prior_table": lambda table: bd.prior_table(runs=table),
    "prior_table, supervised": lambda table: bd.prior_table(supervised=table),
    "predict": lambda table: bd.predict(_published(), table, noise="run"),
    "plan": lambda table: bd.plan(_published(), 1e9, 1e21, "best case", teachers=table, progress=False),
}
quick = settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", list(ENTRIES))
@quick
@given(table=tables())
def test_any_table_is_read_questioned_or_rejected(name, table):
    before = table.copy(deep=True)
    assert len(message_of(ENTRIES[name], table)) <= LONGEST
    assert list(table.columns) == list(before.columns) or table.columns.equals(before.columns)
    assert table.shape == before.shape


@quick
@given(content=st.one_of(st.binary(max_size=200), tables().map(lambda table: table.to_csv(index=False).encode())))
def test_any_file_is_read_questioned_or_rejected(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    for read in (bd.read_runs, read_design):
        assert len(message_of(read, path)) <= LONGEST


@pytest.mark.parametrize("values", [["1e8", Decimal("2e8")], pd.array([1, 2], dtype="Int64") * 10**8])
def test_numbers_of_other_types_are_read(values):
    table = pd.DataFrame({"params": values, "tokens": [2e9, 8e9], "loss": [3.2, 2.8]})
    assert bd.read_runs(table)["params"].tolist() == [1e8, 2e8]


def test_build_model_and_tables_of_criticism_are_checked():
    runs = bd.load_runs()
    for change, said in (
        ({"student_params": runs["student_params"] / 1e6}, "in millions|millions, multiply by 1e6"),
        ({"student_tokens": np.nan}, "is a missing value"),
        ({"teacher_loss": "two"}, "'two' is not a number"),
    ):
        table = runs.assign(**change)
        for call in (
            lambda table: bd.build_model(table),
            lambda table: bd.prior_table(runs=table),
            lambda table: bd.leave_out(table, "student"),
            lambda table: bd.simulate_calibration(table, simulations=1),
            lambda table: bd.prior_predictive(table),
            lambda table: bd.simulate_runs(bd.PUBLISHED, seed=0, design=table),
            describe_runs,
        ):
            with pytest.raises(bd.DataError, match=said):
                call(table)
    with pytest.raises(bd.DataError, match="no column 'teacher_loss'"):
        bd.build_model(runs.drop(columns="teacher_loss"))
    teachers = runs.assign(teacher_params=7.0)
    with pytest.raises(bd.DataError, match=r"column teacher_params: 7 .* too few parameters"):
        bd.backtest(teachers, bd.load_runs("tiny", "supervised"))


def test_teacher_losses_below_the_irreducible_loss_are_questioned():
    run = pd.DataFrame({"student_params": [1e9], "student_tokens": [2e10], "teacher_loss": [0.9]})
    said = r"row 1, column teacher_loss: 0\.9 is below the irreducible loss E of the fit, 1\.22"
    for call in (
        lambda table: bd.predict(_published(), table),
        lambda table: bd.information_order(_published(), table),
    ):
        with pytest.raises(bd.DataError, match=said):
            call(run)
        assert call(run.assign(teacher_loss=1.9)) is not None
        run.attrs["allow_suspicious"] = True
        assert call(run) is not None
        run.attrs = {}


def test_teacher_losses_in_the_data_of_a_fit_are_plausible():
    seen = xr.Dataset({name: ("run", [1e9, 2e9]) for name in ("student_params", "student_tokens")})
    seen["teacher_loss"] = ("run", [0.8, 1.9])
    fit = xr.DataTree.from_dict({"posterior": _published(), "constant_data": seen})
    assert gather(_published(), False).teacher_losses == (pytest.approx(1.22), np.inf)
    assert gather(fit, True).teacher_losses == (0.8, 3.8)
