"""Tables: the numbers of the plan, and texts that survive Markdown, LaTeX and a terminal."""

from __future__ import annotations

import contextlib
import csv
import inspect
import io
import math
import re
import textwrap
from importlib.resources import files

import figure_inputs as inputs
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from decision_cases import posterior_of, scattered
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesdistill import decisions, tables
from bayesdistill.errors import FileError, ParameterError
from bayesdistill.tables import _write_table
from bayesdistill.tables._decision_table import KINDS
from bayesdistill.tables.formatting import FORMATS


def hostile() -> xr.Dataset:
    """A plan whose scenarios have names that break tables."""
    return inputs.plan(scenarios=["a | b", "50% & more_less", "<b>x</b>\nnext"])


# plan_table -----------------------------------------------------------------------------------------------------------


def test_plan_table_holds_the_plan():
    plan = inputs.plan()
    frame = tables.plan_table(plan)
    assert len(frame) == plan["probability"].size
    assert frame.columns[:5].tolist() == ["student", "scenario", "budget", "probability", "probability_mcse"]
    for _, row in frame.iloc[::7].iterrows():
        cell = plan.sel({key: row[key] for key in ("student", "scenario", "budget")})
        for name in ("probability", "expected_gain", "teacher_params", "student_tokens", "regret", "evpi"):
            np.testing.assert_equal(row[name], cell[name].item())
        assert row["extrapolates"] == cell["extrapolates"].item()
    first = plan["teacher_loss"].isel(student=0, scenario=0, budget=0).values
    assert frame["teacher_loss"][0] == pytest.approx(first.mean(), abs=1e-14)


def test_plan_table_says_why_a_cell_is_empty():
    frame = tables.plan_table(inputs.plan())
    empty = frame[frame["probability"].isna()]
    assert set(empty["status"]) == {"budget_too_small"}
    assert set(empty["student"]) == {1e10}
    assert not empty["extrapolates"].any()
    assert set(frame.loc[frame["probability"].notna(), "status"]) == {"ok"}


def test_csv_gives_back_every_number(tmp_path):
    frame = tables.plan_table(hostile())
    tables.write_table(frame, tmp_path / "plan.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "plan.csv"), frame, check_dtype=False, check_exact=True)


# summary_table --------------------------------------------------------------------------------------------------------


def test_summary_takes_the_nearest_budgets():
    plan = inputs.plan(students=[1e9], scenarios=["best case"])
    frame = tables.summary_table(plan, budgets=[2e20, 2.5e20, 1e30])
    at = [name for name in frame.columns if name.startswith("probability at")]
    assert at == ["probability at 3.2e20", "probability at 1e25"]
    assert frame["probability at 1e25"][0] == plan["probability"].values[0, 0, -1]
    default = [name for name in tables.summary_table(plan).columns if name.startswith("probability at")]
    assert default == [f"probability at {b}" for b in ("1e19", "1e21", "1e23", "1e25")]
    with pytest.raises(ParameterError, match="number from"):
        tables.summary_table(plan, budgets=[-1])


def test_summary_tells_close_budgets_apart():
    plan = inputs.plan(students=[1e9], scenarios=["best case"], budgets=[1.001e21, 1.002e21])
    frame = tables.summary_table(plan)
    assert [c for c in frame.columns if c.startswith("probability")] == [
        "probability at 1.001e+21",
        "probability at 1.002e+21",
    ]


def test_summary_of_crossovers_is_exact():
    plan = inputs.plan(students=[1e9], scenarios=["best case"])
    plan["crossover"][:] = np.nan
    plan["crossover_status"][:] = 1
    plan["crossover_status"][0, 0, 0] = 0
    plan["crossover"][0, 0, 0] = [1e20, 2e20, 3e20, 4e20]
    row = tables.summary_table(plan, prob=0.5).iloc[0]
    assert row["crossed"] == row["always"] == 0.5
    assert row["never"] == row["reversed"] == 0
    # Sorted: 1, 2, 3, 4e20 and four beyond the budgets. The 25% quantile is 1.75 steps from the first.
    assert row["crossover_lower"] == pytest.approx(2.75e20)
    assert math.isinf(row["crossover_median"])
    assert math.isinf(row["crossover_upper"])
    plan["crossover_status"][0, 0, 1] = 2
    row = tables.summary_table(plan).iloc[0]
    assert row["crossover_lower"] == 0
    assert row["never"] == 0.5
    assert "impossible" not in row.index


def test_summary_of_what_is_impossible():
    plan = inputs.plan(students=[1e9], scenarios=["best case"])
    plan["crossover"][:] = np.nan
    plan["crossover_status"][:] = 4
    plan["probability"][:] = np.nan
    frame = tables.summary_table(plan)
    assert frame["impossible"][0] == 1
    assert math.isnan(frame["crossover_median"][0])
    shown = tables.readable(frame)
    assert shown["P at 1e21"][0] == "-"
    assert shown["crossover [FLOPs] (90% interval)"][0] == "-"
    assert shown["inside the data [FLOPs]"][0] == "nowhere"


def test_summary_says_where_the_data_reach():
    plan = inputs.plan(students=[1e9], scenarios=["best case"])
    inside = plan["budget"].values[~plan["extrapolates"].values[0, 0]]
    row = tables.summary_table(plan).iloc[0]
    assert (row["inside_from"], row["inside_to"]) == (inside.min(), inside.max())


# decision_table -------------------------------------------------------------------------------------------------------


def test_crossovers_and_break_even_become_intervals_and_shares():
    found = inputs.crossovers()
    frame = tables.decision_table(found)
    assert frame[["student", "scenario"]].values.tolist()[:2] == [[3e8, "best case"], [3e8, "teacher inference"]]
    assert frame.loc[0, ["crossover_lower", "crossover_median", "crossover_upper"]].tolist() == [1e21, 1e23, 1e25]
    assert frame.loc[1, ["crossed", "always", "never", "reversed", "impossible"]].tolist() == [0.6, 0, 0.3, 0.1, 0]
    assert frame.attrs["interval_prob"] == pytest.approx(0.9)
    assert tables.readable(frame)["crossover [FLOPs] (90% interval)"].tolist() == [
        "1e23 (1e21 to 1e25)",
        "1e20 (< 1e18 to > 1e28)",
        "1e24 (1e22 to > 1e28)",
        "< 1e18 (< 1e18 to 1e19)",
        "> 1e28",
        "-",
    ]
    frame = tables.decision_table(inputs.break_even())
    assert len(frame) == 22
    np.testing.assert_array_equal(
        frame["students_per_teacher_upper"],
        inputs.break_even()["students_per_teacher_quantile"].values[..., -1].ravel(),
    )
    assert tables.readable(frame).iloc[-1, 2].endswith("to infinite)")
    assert tables.readable(frame).iloc[0, 3].endswith("B)")


def test_teachers_and_candidates():
    found = inputs.teacher_choice()
    found["chosen"] = (("student", "scenario", "budget"), np.array([[[4, 2]], [[4, -1]]]))
    frame = tables.decision_table(found)
    first = frame[(frame["student"] == 3e8) & (frame["budget"] == 1e20)]
    assert first["teacher"].tolist() == ["weak", "huge", "small", "large", "fits"]
    assert first["chosen"].tolist() == [False, False, False, False, True]
    assert not frame[(frame["student"] == 1e9) & (frame["budget"] == 1e21)]["chosen"].any()
    assert first["measured_loss"].tolist() == found["measured_loss"].values.tolist()
    frame = tables.decision_table(inputs.next_runs())
    assert frame["rank"].tolist() == [1, 2, 3, 4, 5]
    assert frame["candidate"].tolist()[-2:] == ["e", "d"]
    assert frame["status"].tolist()[-2:] == ["few_effective_draws", "ok"]


def test_the_family_is_that_of_the_plan():
    frame = tables.decision_table(inputs.family())
    assert frame["decision"].tolist() == ["distill", "distill", "pretrain"]
    assert frame["student_budget"].tolist() == [2e21, 3e21, 4e21]


def test_advice_and_claims():
    shown = tables.readable(tables.decision_table(inputs.recommendations()))
    assert shown["advice"].tolist() == ["distill", "undetermined"]
    assert shown["P(distillation ahead)"].tolist() == ["> 0.95", "0.6"]
    assert shown["extrapolation factor"].tolist() == ["1", "-"]
    shown = tables.readable(tables.decision_table(inputs.paper_claims()))
    assert shown["student"].tolist() == ["-", "1B"]
    assert shown["P(claim)"].tolist() == ["> 0.95", "0.3"]


def test_money_has_its_currency():
    shown = tables.readable(tables.decision_table(inputs.plan_value()))
    assert "regret [USD]" in shown.columns
    assert "equivalent compute over budget (90% interval)" in shown.columns
    assert shown["equivalent compute over budget (90% interval)"].str.contains("infinite").any()


def test_best_teachers_are_summarised():
    gap = inputs.gap()
    frame = tables.decision_table(gap, prob=0.5)
    one = gap["best_teacher"].sel(student=1e9, training=80)
    row = frame[(frame["student"] == 1e9) & (frame["training"] == 80)].iloc[0]
    assert row["best_teacher_median"] == float(one.median())
    assert row["best_teacher_lower"] == pytest.approx(float(one.quantile(0.25)))


@pytest.mark.parametrize("make", ["plan", "plan_tokens", "evppi"])
def test_every_cell_is_a_row(make):
    found = getattr(inputs, make)()
    marker = "evppi" if make == "evppi" else "probability"
    frame = tables.decision_table(found)
    assert len(frame) == found[marker].size
    assert sorted(frame[marker].dropna()) == sorted(found[marker].values[np.isfinite(found[marker].values)])


def test_a_dataset_of_something_else_has_no_table():
    with pytest.raises(ParameterError, match="no table is known for a Dataset of nothing"):
        tables.decision_table(xr.Dataset())
    with pytest.raises(ParameterError, match="DataArray"):
        tables.decision_table(xr.DataArray(1))


def test_every_table_can_be_written(tmp_path):
    makers = (
        inputs.break_even, inputs.crossovers, inputs.evppi, inputs.family, inputs.gap, inputs.next_runs, inputs.paper_claims,
        inputs.plan_value, inputs.recommendations,
    )  # fmt: skip
    for make in makers:
        frame = tables.decision_table(make())
        assert len(tables.table_text(frame).splitlines()) > len(frame)
        assert tables.markdown(frame).count("\n") == len(frame) + 2
        assert tables.latex(frame).count(r"\\") == len(frame) + 1


# Texts ----------------------------------------------------------------------------------------------------------------


def test_probabilities_have_one_decimal_and_are_never_certain():
    frame = pd.DataFrame({"probability": [1.0, 0.96, 0.94, 0.5, 0.06, 0.04, 0.0, math.nan]})
    shown = ["> 0.95", "> 0.95", "0.9", "0.5", "0.1", "< 0.05", "< 0.05", "-"]
    assert tables.readable(frame)["P(distillation ahead)"].tolist() == shown


def test_probabilities_have_their_range_over_laws():
    frame = pd.DataFrame(
        {"probability": [0.72, 0.2], "probability_lowest": [0.04, math.nan], "probability_highest": [0.99, math.nan]}
    )
    assert tables.readable(frame).to_dict("list") == {
        "P(distillation ahead) (range over laws)": ["0.7 (< 0.05 to > 0.95)", "0.2"]
    }
    frame = frame.rename(columns=lambda name: f"{name} at 1e21")
    assert tables.readable(frame).to_dict("list") == {"P at 1e21 (range over laws)": ["0.7 (< 0.05 to > 0.95)", "0.2"]}


def test_readable_crossovers():
    frame = pd.DataFrame(
        {
            "crossover_lower": [0.0, 1e21, math.inf, 1e20],
            "crossover_median": [1e20, 2e22, math.inf, 1e20],
            "crossover_upper": [1e21, math.inf, math.inf, 1e20],
        }
    )
    frame.attrs = {"lowest_budget": 1e19, "highest_budget": 1e25, "interval_prob": 0.8}
    shown = tables.readable(frame)
    assert shown["crossover [FLOPs] (80% interval)"].tolist() == [
        "1e20 (< 1e19 to 1e21)",
        "2e22 (1e21 to > 1e25)",
        "> 1e25",
        "1e20",
    ]


def test_every_column_is_declared_once_with_a_format_that_exists():
    declared = pd.read_csv(files("bayesdistill.tables") / "columns.csv")
    assert declared["column"].is_unique
    assert declared.notna().all(axis=None)
    for name in declared["format"]:
        assert name in FORMATS or name.format(1.5) != name, name


def test_kinds_of_results_are_told_apart():
    markers = [kind.marker for kind in KINDS]
    assert len(set(markers)) == len(markers)
    for kind in KINDS:
        assert len(set(kind.columns)) == len(kind.columns), kind.marker
        assert set(kind.renamed.values()) <= set(kind.columns), kind.marker


def test_unknown_columns_are_kept():
    shown = tables.readable(pd.DataFrame({"mine": [1.5, None], "student": [3e8, 1e9]}))
    assert shown.to_dict("list") == {"mine": ["1.5", "-"], "student": ["300M", "1B"]}


def test_text_is_aligned():
    text = tables.table_text(tables.summary_table(inputs.plan()))
    lines = text.splitlines()
    rule = next(i for i, line in enumerate(lines) if set(line) == {"-", " "})
    starts = [i for i, c in enumerate(lines[rule]) if c == "-" and (i == 0 or lines[rule][i - 1] == " ")]
    for line in lines:
        for start in starts[1:]:
            assert line[start - 2 : start].strip() == ""
    assert len(lines) - rule - 1 == 12
    assert max(map(len, lines)) < 190


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_narrow_table_has_every_cell_in_lines_that_fit(data):
    words = st.text("abcdefg ", min_size=1, max_size=40).filter(str.strip)
    names = data.draw(st.lists(words.map(str.strip), min_size=1, max_size=4, unique=True))
    numbers = {f"value {i}": [float(i + k) for k in range(len(names))] for i in range(data.draw(st.integers(0, 12)))}
    frame = pd.DataFrame({"student": 1e9, "scenario": names} | numbers)
    text = tables.table_text(frame, width=60)
    assert max(map(len, text.splitlines())) <= 60
    assert tables.table_text(frame, width=1000) == tables.table_text(frame)
    parts = text.split("\n\n")
    assert all(part.count("1B") == len(names) for part in parts)  # rows are identified in every part
    shown = " ".join(text.split())
    for heading, values in numbers.items():
        assert all(str(value) in shown for value in values)
        assert heading.split()[1] in shown
    for name in names:
        assert all(piece in shown for piece in textwrap.wrap(" ".join(name.split()), 25))  # longer words are broken too


def test_markdown_cannot_be_broken():
    text = tables.markdown(tables.summary_table(hostile()))
    lines = text.splitlines()
    assert len(lines) == 2 + 9
    cells = [len([c for i, c in enumerate(line) if c == "|" and line[i - 1] != "\\"]) for line in lines]
    assert len(set(cells)) == 1
    assert r"a \| b" in text
    assert r"\<b>x\</b> next" in text
    assert "| < 0.05 |" in text or "| > 0.95 |" in text


def test_latex_is_escaped():
    text = tables.latex(tables.summary_table(hostile()))
    assert r"50\% \& more\_less" in text
    assert text.count(r"\\") == 1 + 9
    assert "\n next" not in text
    assert text.startswith(r"\begin{tabular}{")
    body = text.split(r"\midrule")[1]
    columns = {line.replace(r"\&", "").count("&") for line in body.splitlines() if line.endswith(r"\\")}
    assert len(columns) == 1
    assert " < " not in body.replace("$<$", "")


FORMULAS = ["=1+1", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", " =1", "＝1+1", "=cmd|' /C calc'!A0", "-", "+"]
HARMLESS = ["teacher A", "1-2", "a=b", "-0.01", "+3", "-1e-5", "'=1", "", "7B"]


def test_no_text_of_a_csv_file_is_a_formula(tmp_path):
    texts = FORMULAS + HARMLESS
    numbers = np.linspace(-0.3, 0.3, len(texts))
    frame = pd.DataFrame(
        {"name": texts, "=loss": numbers, "small": numbers.astype(np.float32), "count": range(len(texts))}
    )
    frame["mixed"] = [*numbers[:-3].tolist(), "=1", None, -0.01]
    frame["category"] = pd.Categorical(texts)
    frame["string"] = pd.array(texts, dtype="string")
    frame["yes"] = numbers > 0
    before = frame.copy(deep=True)
    tables.write_table(frame, tmp_path / "table.csv")
    pd.testing.assert_frame_equal(frame, before)
    with (tmp_path / "table.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["name", "'=loss", *frame.columns[2:]]
    expected = [f"'{text}" for text in FORMULAS] + HARMLESS
    for place in (0, 5, 6):
        assert [row[place] for row in rows] == expected
    assert [row[4] for row in rows][-3:] == ["'=1", "", "-0.01"]
    plain = pd.read_csv(io.StringIO(frame.drop(columns=["name", "mixed", "category", "string"]).to_csv(index=False)))
    written = pd.read_csv(tmp_path / "table.csv").rename(columns={"'=loss": "=loss"})
    pd.testing.assert_frame_equal(written[plain.columns], plain, check_exact=True)


@given(st.lists(st.text(), min_size=1, max_size=5), st.text(min_size=1))
@settings(max_examples=60, deadline=None)
def test_any_text_gives_a_whole_table_in_every_format(texts, heading):
    frame = pd.DataFrame({f"{heading} ": texts, "loss": range(len(texts))})  # no column of this package
    cells = list(csv.reader(io.StringIO(_write_table.csv(frame), newline="")))
    assert [len(row) for row in cells] == [2] * (1 + len(texts))
    for cell in (row[0] for row in cells):
        with contextlib.suppress(ValueError):
            float(cell)
            continue
        assert cell.lstrip()[:1] not in tuple("=+-@")
        assert cell[:1] not in tuple("\t\r\n")
    lines = tables.markdown(frame).splitlines()
    assert len(lines) == 2 + len(texts)
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {3}
    assert tables.latex(frame).count(r" \\" + "\n") == 1 + len(texts)
    for text in (tables.table_text(frame), tables.markdown(frame), tables.latex(frame)):
        assert all(character.isprintable() or character == "\n" for character in text)


def test_what_is_no_table_and_no_path():
    for frame, path in ((None, "a.csv"), ("text", "a.csv"), (pd.DataFrame(), 3), (pd.DataFrame(), "a.CSV.gz")):
        with pytest.raises(ParameterError, match="must"):
            tables.write_table(frame, path)


def test_commands_of_latex_in_texts_are_printed():
    text = tables.latex(pd.DataFrame({r"\input{x} & y_1": [r"\input{/etc/passwd} $x^2$ ~ #1 {a}%"]}))
    assert r"\input" not in text
    assert r"\textbackslash input\{x\} \& y\_1" in text
    assert r"\textbackslash input\{/etc/passwd\} \$x" in text


@pytest.mark.parametrize("ending", ["csv", "md", "tex"])
def test_files_are_written_and_replaced_whole(ending, tmp_path):
    path = tmp_path / f"table.{ending}"
    path.write_text("older")
    tables.write_table(tables.summary_table(inputs.plan()), str(path))
    text = path.read_text(encoding="utf-8")
    assert "teacher pretraining + inference" in text
    assert "older" not in text
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    frame = tables.summary_table(inputs.plan())
    with pytest.raises(ParameterError, match=r"\.csv, \.md, \.tex"):
        tables.write_table(frame, tmp_path / "table.xlsx")
    with pytest.raises(FileError, match="does not exist"):
        tables.write_table(frame, tmp_path / "missing" / "table.csv")


@pytest.mark.parametrize("make", [tables.plan_table, tables.summary_table])
def test_wrong_input_is_refused(make):
    with pytest.raises(ParameterError, match="is missing"):
        make(xr.Dataset())


@pytest.mark.parametrize("function", [each for each in vars(tables).values() if inspect.isfunction(each)])
def test_signatures(function):
    kinds = {p.kind for p in inspect.signature(function).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds


def test_what_the_decisions_return_becomes_tables():
    fit = posterior_of(scattered(8), chains=2)
    plan = decisions.plan(fit, ["300M", "1B"], [1e17, 1e21, 1e24], ["best case"])
    assert len(tables.plan_table(plan)) == 6
    frame = tables.summary_table(plan)
    assert frame["student"].tolist() == [3e8, 1e9]
    assert (frame[["crossed", "always", "never", "reversed"]].sum(axis=1) == 1).all()
    assert "300M" in tables.table_text(frame)
    made = [
        decisions.crossovers(fit, "1B", "best case", budgets=[1e19, 1e22, 1e25]),
        decisions.break_even(fit, "1B", 1e21),
        decisions.sharing_map(fit, "1B", 1e21, [1, 10]),
        decisions.plan_tokens(fit, "1B", [1e10, 1e11]),
        decisions.capacity_gap(fit, "1B", student_tokens_per_param=20, teacher_losses=[2.0, 2.2]),
        decisions.teacher_choice(fit, pd.DataFrame({"params": [1e9, 7e9], "loss": [2.25, 2.05]}), "1B", 1e21),
        decisions.plan_value(fit, plan),
        decisions.evppi(fit, plan),
        decisions.target_loss(fit, "1B", 2.3, "best case"),
        decisions.family_plan(fit, ["300M", "1B"], 1e21),
    ]
    for found in made:
        frame = tables.decision_table(found)
        assert len(frame)
        assert not set(tables.readable(frame).columns) & {"chain", "draw"}
        assert "_" not in "".join(tables.readable(frame).columns), frame.columns


def test_a_plan_of_one_budget_has_no_crossovers(published_draw):
    one, two = (
        tables.summary_table(decisions.plan(published_draw, "1B", budgets, "best case"))
        for budgets in (3e21, [3e21, 1e22])
    )
    assert "crossover_median" not in one
    assert "always" not in one
    assert {"crossover_median", "always", "never"} <= {*two}
    text = tables.table_text(one.assign(inside_from=3e21, inside_to=3e21))
    assert "3e21 to 3e21" not in text
    assert "< 3e21" not in text
