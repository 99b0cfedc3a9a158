"""Answers of the decision functions are Datasets, and display as tables in a notebook and in a terminal."""

from __future__ import annotations

import pickle
from functools import cache
from html.parser import HTMLParser

import figure_inputs as inputs
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from decision_cases import posterior_of, published, scattered

from bayesdistill import decisions, sampling, tables
from bayesdistill.answers import Answer

STUDENTS, BUDGETS = ["300M", "1B"], np.geomspace(1e19, 1e25, 7)


@cache
def planned() -> xr.Dataset:
    return decisions.plan(posterior_of(scattered(60)), STUDENTS, BUDGETS, ["best case", "teacher inference"])


class Rows(HTMLParser):
    """Cells of the first table of a text, row by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(text.split("</table>")[0])

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        self.inside = tag in ("td", "th")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.rows[-1].append(data.replace("\u00a0", " "))


def test_a_plan_is_shown_as_its_summary():
    plan = planned()
    lines = str(plan).splitlines()
    assert lines[0] == "Probability that distillation beats pretraining, and the crossover (level: law)"
    expected = tables.table_text(tables.summary_table(plan).drop(columns="noise")).splitlines()
    assert lines[2 : 2 + len(expected)] == expected
    assert "chain 1, draw 60" in lines[-1]
    assert repr(plan) == str(plan)


def test_the_same_in_a_notebook_with_the_dataset_folded_below():
    plan = planned()
    text = plan._repr_html_()
    rows = Rows(text).rows
    shown = tables.readable(tables.summary_table(plan).drop(columns="noise"))  # the title has it
    assert rows == [shown.columns.tolist(), *shown.values.tolist()]
    folded = text.split("<details>")[1]
    assert "xr-wrap" in folded
    assert "best_distilled_loss" in folded


def test_few_cells_are_shown_one_by_one():
    plan = planned().sel(budget=[1e21], scenario=["best case"])
    rows = Rows(plan._repr_html_()).rows
    assert len(rows) == 3
    assert [row[0] for row in rows[1:]] == ["300M", "1B"]
    assert rows[0][2] == "P(distillation ahead)"
    assert "(level: law; budget: 1e21 FLOPs)" in str(plan)  # instead of a column with the same value in all rows
    assert "budget: " not in str(planned().sel(budget=[1e21, 1e25], scenario=["best case"]))


@pytest.mark.parametrize(
    "at", [{"student": 1}, {"student": 1, "budget": 2}, {"scenario": 0, "budget": 2}, {"budget": 0}]
)
def test_one_student_of_a_plan_is_shown_like_a_plan_of_one_student(at):
    plan = planned()
    part = plan.isel(at)
    whole = plan.isel({name: [i] for name, i in at.items()})
    rows = Rows(part._repr_html_()).rows
    if "budget" not in at:
        assert rows == Rows(whole._repr_html_()).rows
    assert len(rows) > 1
    assert {row[0] for row in rows[1:]} == ({"1B"} if "student" in at else {"300M", "1B"})


def test_a_part_that_lost_what_the_table_needs_is_shown_as_xarray_does():
    for part in (planned().drop_vars("probability"), planned().mean("draw"), planned()[["regret"]], Answer()):
        assert str(part).startswith("<xarray.Answer>")
        assert "xr-wrap" in part._repr_html_()


def real(name: str) -> xr.Dataset:
    """What a decision function returns for two draws."""
    posterior = posterior_of(published(2))
    shelf = pd.DataFrame({"params": [5e8, 2e9], "loss": [2.3, 2.2]})
    calls = {
        "plan_tokens": lambda: decisions.plan_tokens(posterior, STUDENTS, [1e10, 1e11]),
        "teacher_choice": lambda: decisions.teacher_choice(posterior, shelf, STUDENTS, 1e21),
        "student_choice": lambda: decisions.student_choice(posterior, STUDENTS, 1e21, teachers=shelf),
        "sharing_map": lambda: decisions.sharing_map(posterior, "1B", [1e20, 1e21], [1, 10, 100]),
        "break_even": lambda: decisions.break_even(posterior, "1B", [1e20, 1e21]),
    }
    return calls[name]()


MADE_UP = {
    "crossovers": inputs.crossovers,
    "plan_value": inputs.plan_value,
    "evppi": inputs.evppi,
    "explain": inputs.explanation,
    "target_loss": inputs.target_loss,
    "lifetime": inputs.lifetime,
    "lifetime_cost": inputs.lifetime_cost,
    "family_plan": inputs.family,
    "next_runs": inputs.next_runs,
    "recommendations": inputs.recommendations,
    "paper_claims": inputs.paper_claims,
    "capacity_gap": inputs.gap,
    "compute_optimal": inputs.compute_optimal,
}


@pytest.mark.parametrize(
    "name", ["plan_tokens", "student_choice", "teacher_choice", "sharing_map", "break_even", *MADE_UP]
)
def test_every_answer_has_a_title_and_a_table(name):
    if name in MADE_UP:
        found = MADE_UP[name]()
        answer = Answer(found.data_vars, found.coords, found.attrs)
    else:
        answer = real(name)
    lines = str(answer).splitlines()
    assert lines[0][0].isupper()
    assert lines[1] == ""
    assert any(line.startswith("-----") for line in lines)
    assert "An xarray Dataset of" in lines[-1]
    assert len(Rows(answer._repr_html_()).rows) > 1


def test_the_largest_values_of_information_come_first():
    found = inputs.evppi()
    answer = Answer(found.data_vars, found.coords, found.attrs)
    rows = Rows(answer._repr_html_()).rows
    texts = [row[rows[0].index("EVPPI [nats]")] for row in rows[1:]]
    assert set(texts[texts.index("-") :]) == {"-"}  # the unknown ones come last
    values = [0.0 if text == "about 0" else float(text) for text in texts if text != "-"]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


def test_long_tables_are_cut_and_say_so():
    plan = decisions.plan(posterior_of(published()), np.geomspace(1e8, 1e10, 7), BUDGETS)
    text = str(plan)
    assert "4 more rows. All numbers: bd.plan_table(...)" in text
    assert len(Rows(plan._repr_html_()).rows) == 1 + 24


def test_an_unconverged_posterior_is_mentioned_above_the_table():
    plan = planned().assign_attrs(converged="no")
    warning = "The posterior did not converge, so these numbers may be wrong."
    assert warning in str(plan)
    assert warning in plan._repr_html_().split("<table")[0]
    assert warning not in str(planned())


def test_names_from_outside_are_escaped():
    found = inputs.plan(scenarios=["<b>x</b>", "y"])
    text = Answer(found.data_vars, found.coords, found.attrs)._repr_html_().split("<details>")[0]
    assert "<b>x" not in text
    assert "&lt;b&gt;x" in text


def test_an_answer_is_a_dataset_for_everything_else(tmp_path):
    plan = planned()
    assert isinstance(plan, xr.Dataset)
    copy = pickle.loads(pickle.dumps(plan))
    assert type(copy) is Answer
    assert copy.identical(plan)
    sampling.save(plan, tmp_path / "plan.nc")
    loaded = sampling.load(tmp_path / "plan.nc")
    xr.testing.assert_equal(loaded, plan)
    assert str(loaded) == str(plan)
    with xr.open_dataset(tmp_path / "plan.nc", engine="h5netcdf") as opened:
        assert opened.equals(plan)
